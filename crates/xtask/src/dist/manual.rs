//! The manual pages: those of the programs from the command lines and the prose in packaging/man/, and sockexec-protocol(7) from
//! docs/protocol.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap_mangen::Man;
use roff::{Roff, bold, roman};

use super::markdown::{self, Section};
use super::source::Release;
use crate::{Result, context, workspace};

/// Sections in the order of man(7). All others come in place of the empty one.
const ORDER: &[&str] =
    &["DESCRIPTION", "OPTIONS", "", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES", "SECURITY", "SEE ALSO"];

/// Lines of text are broken at a space before this many bytes, as mandoc(1) wants.
const WIDTH: usize = 80;

/// Writes all pages into an existing directory: `man1/…` and `man7/…`.
pub(super) fn write(into: &Path, release: &Release) -> Result<()> {
    for (name, text) in pages(release)? {
        let path = into.join(&name);
        let directory = path.parent().unwrap_or(into);
        fs::create_dir_all(directory).map_err(context(directory.display()))?;
        fs::write(&path, text).map_err(context(path.display()))?;
    }
    Ok(())
}

/// The pages, and their names below a `man` directory.
pub(super) fn pages(release: &Release) -> Result<Vec<(String, String)>> {
    let mut pages = vec![
        // The client's name in 3.1.1.
        ("man1/sockexec.client.1".to_owned(), ".so man1/sockexec-client.1\n".to_owned()),
        ("man7/sockexec-protocol.7".to_owned(), protocol(release)?),
    ];
    for program in super::commands() {
        pages.push((format!("man1/{}.1", program.get_name()), command(program, release)?));
    }
    Ok(pages)
}

fn read(path: &str) -> Result<String> {
    let path = workspace().join(path);
    fs::read_to_string(&path).map_err(context(path.display()))
}

/// The page of a program: its options, the text below them in its help, and our prose.
fn command(command: clap::Command, release: &Release) -> Result<String> {
    let name = command.get_name().to_owned();
    // Some display names are for the version, and have more words.
    let command = command.display_name(name.clone());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command);

    let (under_options, mut sections) = help_sections(&help);
    sections.extend(markdown::sections(&read(&format!("packaging/man/{name}.md"))?));
    let mut options = vec![];
    man.render_options_section(&mut options)?;
    let mut body = String::from_utf8(options)?;
    body.push_str(&under_options.render());
    let mut parts: Vec<_> = sections.into_iter().map(|section| (section.title.clone(), text(&section))).collect();
    parts.push(("OPTIONS".to_owned(), body));
    parts.sort_by_key(|(title, _)| rank(title));

    let mut synopsis = vec![];
    man.render_synopsis_section(&mut synopsis)?;
    let mut page = head(&name, "1", &about, release);
    page.push_str(&String::from_utf8(synopsis)?);
    page.extend(parts.into_iter().map(|(_, text)| text));
    Ok(finish(&page))
}

fn rank(title: &str) -> usize {
    let at = |title| ORDER.iter().position(|&known| known == title);
    at(title).or_else(|| at("")).unwrap_or_default()
}

fn protocol(release: &Release) -> Result<String> {
    let mut sections = markdown::sections(&read("docs/protocol.md")?);
    // The title of the document.
    if let Some(first) = sections.first_mut() {
        "DESCRIPTION".clone_into(&mut first.title);
    }
    sections.extend(markdown::sections(&read("packaging/man/sockexec-protocol.md")?));
    let mut page = head("sockexec-protocol", "7", "wire protocol of sockexec", release);
    page.extend(sections.iter().map(text));
    Ok(finish(&page))
}

fn head(name: &str, section: &str, about: &str, release: &Release) -> String {
    let mut page = Roff::new();
    let source = format!("sockexec {}", release.version);
    let manual = if section == "1" { "User Commands" } else { "Miscellaneous Information" };
    page.control("TH", [name.to_uppercase().as_str(), section, &release.date, &source, manual]);
    page.control("SH", ["NAME"]);
    let about = about.trim_end_matches('.');
    page.text([roman(format!("{name} - {}", lower_first(about)))]);
    page.render()
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

fn text(section: &Section) -> String {
    let mut heading = Roff::new();
    heading.control("SH", [markdown::argument(&section.title).as_str()]);
    format!("{}{}", heading.render(), section.body.render())
}

/// The text below the options in the help, as sections. The first part is the text before any title.
pub(super) fn help_sections(help: &str) -> (Roff, Vec<Section>) {
    let mut under_options = Roff::new();
    let mut sections: Vec<Section> = vec![];
    for block in help.split("\n\n") {
        let first = block.lines().next().unwrap_or_default();
        let titled =
            first.split_once(':').filter(|(title, rest)| is_title(title) && (rest.is_empty() || rest.starts_with(' ')));
        if let Some((title, _)) = titled {
            let title = match title.to_uppercase() {
                title if title == "EXAMPLE" => "EXAMPLES".to_owned(),
                title => title,
            };
            let body = block.split_once(':').map(|(_, rest)| rest).unwrap_or_default();
            let mut section = Section { title, body: Roff::new() };
            if section.title == "EXAMPLES" {
                verbatim(&mut section.body, body);
            } else {
                block_of(&mut section.body, body);
            }
            sections.push(section);
        } else {
            let body = sections.last_mut().map_or(&mut under_options, |section| &mut section.body);
            body.control("PP", []);
            block_of(body, block);
        }
    }
    (under_options, sections)
}

/// True for `Exit status`, and not for `As PID 1, in a container, it forks once`.
fn is_title(text: &str) -> bool {
    let mut words = text.split(' ');
    text.starts_with(|first: char| first.is_ascii_uppercase())
        && words.clone().count() <= 2
        && words.all(|word| word.bytes().all(|byte| byte.is_ascii_alphabetic()))
}

/// Appends commands, one a line. A longer one continues in lines that are indented further.
fn verbatim(body: &mut Roff, text: &str) {
    body.control("EX", []);
    for line in text.trim_start_matches('\n').lines() {
        body.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    body.control("EE", []);
}

/// Appends sentences, and lines that are indented by two: `TERM  description`, or more sentences.
fn block_of(body: &mut Roff, text: &str) {
    let mut paragraph = String::new();
    let mut was_term = false;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let term = line.trim_start().split_once("  ").filter(|_| indent == 2);
        if let Some((term, about)) = term {
            flush(body, &mut paragraph);
            body.control("TP", []);
            body.text([bold(term)]);
            about.trim_start().clone_into(&mut paragraph);
            was_term = true;
            continue;
        }
        if was_term && indent <= 2 {
            flush(body, &mut paragraph);
            body.control("PP", []);
            was_term = false;
        }
        if !paragraph.is_empty() {
            paragraph.push(' ');
        }
        paragraph.push_str(line.trim_start());
    }
    flush(body, &mut paragraph);
}

fn flush(body: &mut Roff, paragraph: &mut String) {
    let text = std::mem::take(paragraph);
    if !text.trim().is_empty() {
        body.text([roman(text.trim())]);
    }
}

/// Keeps one preamble of many, wraps long lines, and turns the text into ASCII.
fn finish(page: &str) -> String {
    let preamble = Roff::new().render();
    let mut finished = preamble.clone();
    let (mut is_verbatim, mut is_term) = (false, false);
    // clap_mangen adds a break above an empty line, which is a break itself.
    for line in page.replace(&preamble, "").replace(".br\n\n.br\n", ".br\n").lines() {
        match line {
            ".EX" => is_verbatim = true,
            ".EE" => is_verbatim = false,
            _ => {}
        }
        if is_verbatim || is_term || line.starts_with('.') {
            finished.push_str(&ascii(line));
            finished.push('\n');
        } else {
            wrap(&mut finished, &ascii(line));
        }
        is_term = line == ".TP";
    }
    finished
}

fn wrap(page: &mut String, line: &str) {
    let mut rest = line.trim_end();
    while rest.len() > WIDTH {
        let blank = rest.get(..WIDTH).and_then(|start| start.rfind(' ')).or_else(|| rest.find(' '));
        let Some((start, end)) = blank.and_then(|blank| rest.split_at_checked(blank)) else { break };
        page.push_str(start.trim_end());
        page.push('\n');
        rest = end.trim_start();
        if rest.starts_with(['.', '\'']) {
            page.push_str(r"\&");
        }
    }
    page.push_str(rest);
    page.push('\n');
}

/// Replaces other characters by their number: a reader may take the page for Latin-1.
fn ascii(line: &str) -> String {
    line.chars().fold(String::with_capacity(line.len()), |mut ascii, character| {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            // Writing to a string does not fail.
            let _ = write!(ascii, r"\[u{:04X}]", u32::from(character));
        }
        ascii
    })
}

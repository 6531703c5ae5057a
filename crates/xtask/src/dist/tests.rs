//! The pages and completions, checked with the programs that read them.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::manual::{self, pages};
use super::source::Release;
use super::tool::{is_there, output};
use super::{commands, completions, sums};
use crate::workspace;

fn release() -> Release {
    Release { version: env!("CARGO_PKG_VERSION"), epoch: 0, date: "1970-01-01".to_owned() }
}

/// Whether a tool is there. Reports a missing one: `.ci/run` installs them.
fn has(tool: &str) -> bool {
    let is_there = is_there(tool);
    if !is_there {
        say!("skipped: no {tool}\n");
    }
    is_there
}

/// A page as a reader sees it, as words with single spaces between them.
fn shown(page: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    manual::write(directory.path(), &release()).unwrap();
    let text =
        output(Command::new("mandoc").args(["-T", "ascii", "-O", "width=1000"]).arg(directory.path().join(page)));
    words(&without_overstrikes(&text.unwrap()))
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// mandoc prints bold as `x`, backspace, `x`.
fn without_overstrikes(text: &str) -> String {
    let mut plain = String::new();
    for character in text.chars() {
        if character == '\u{8}' {
            plain.pop();
        } else {
            plain.push(character);
        }
    }
    plain
}

#[test]
fn mandoc_finds_nothing_wrong_with_the_pages() {
    if !has("mandoc") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    manual::write(directory.path(), &release()).unwrap();
    for (name, text) in pages(&release()).unwrap() {
        // mandoc prefers a symbolic link to a page that names another. But packages compress pages, which changes the
        // name that a link would need.
        if let Some(other) = text.strip_prefix(".so ") {
            assert!(directory.path().join(other.trim_end()).is_file(), "{name}: {text}");
            continue;
        }
        let mut mandoc = Command::new("mandoc");
        let linted = mandoc.current_dir(directory.path()).args(["-T", "lint", &name]).output().unwrap();
        let said = String::from_utf8_lossy(&linted.stdout);
        assert!(linted.status.success() && said.is_empty(), "{said}");
    }
}

/// A page has everything that the help has: options with their text, and the text below them.
#[test]
fn the_pages_of_the_programs_have_all_of_their_help() {
    if !has("mandoc") {
        return;
    }
    for command in commands() {
        let page = &format!("man1/{}.1", command.get_name());
        let shown = shown(page);
        let mut missing = vec![];
        for argument in command.get_arguments() {
            let flags = [
                argument.get_long().map(|long| format!("--{long}")),
                argument.get_short().map(|short| format!("-{short}")),
            ];
            let help = argument.get_help().map(|help| words(&help.to_string()));
            missing.extend(flags.into_iter().flatten().chain(help).filter(|text| !shown.contains(text)));
        }
        let below = command.get_after_help().unwrap().to_string();
        // In a page a title is in capitals and has no colon.
        let (capitals, all) = (shown.to_uppercase(), below.to_uppercase());
        let parts = all.split_whitespace().map(|word| word.trim_end_matches(':'));
        missing.extend(parts.filter(|&word| !capitals.contains(word)).map(str::to_owned));
        assert!(below.len() > 500 && missing.is_empty(), "{page} has not: {missing:?}");
        for title in ["SYNOPSIS", "DESCRIPTION", "OPTIONS", "SIGNALS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"] {
            assert!(shown.contains(title), "{page} has no section {title}");
        }
    }
}

/// All forms of text that the help of a program has below its options.
#[test]
fn what_is_below_the_options_becomes_sections() {
    let help = "(*) a note.\n\nSignals:\n  TERM, INT  stop\n             at once\n  HUP        nothing\n  What is ignored\n  \
                stays so.\n\nAs PID 1, in a container: it forks.\n\nExit status: 0, or\n100.\n\nExample:\n  .run 'it'\n    twice";
    let (under_options, sections) = manual::help_sections(help);
    assert_eq!(under_options.to_roff(), ".PP\n(*) a note.\n");
    let found: Vec<_> = sections.iter().map(|section| (section.title.as_str(), section.body.to_roff())).collect();
    let signals = ".TP\n\\fBTERM, INT\\fR\nstop at once\n.TP\n\\fBHUP\\fR\nnothing\n.PP\nWhat is ignored stays so.\n.PP\n\
                   As PID 1, in a container: it forks.\n";
    let examples = ".EX\n\\&.run 'it'\n  twice\n.EE\n";
    let expected = [("SIGNALS", signals), ("EXIT STATUS", "0, or 100.\n"), ("EXAMPLES", examples)];
    assert_eq!(found, expected.map(|(title, text)| (title, text.to_owned())));
}

/// The page of the protocol has the whole document: each line of code, and each word of the rest.
#[test]
fn the_page_of_the_protocol_is_the_document() {
    if !has("mandoc") {
        return;
    }
    let document = fs::read_to_string(workspace().join("docs/protocol.md")).unwrap();
    let shown = shown("man7/sockexec-protocol.7");
    let mut checked = 0;
    let mut missing = vec![];
    let mut is_fenced = false;
    let mut lines = document.lines().peekable();
    while let Some(line) = lines.next() {
        // A table's first column has no heading in a page.
        if lines.peek().is_some_and(|next| next.starts_with("| ---")) {
            continue;
        }
        if line.starts_with("```") {
            is_fenced = !is_fenced;
        } else if is_fenced || line.starts_with("    ") {
            checked += 1;
            if !shown.contains(&words(line)) {
                missing.push(words(line));
            }
        } else if !line.starts_with("| ---") && !line.starts_with('#') {
            // Without markup and the targets of links.
            let plain: String = line.replace("](", " ](").split(['[', '|', '`', '*']).collect();
            let is_prose =
                |word: &&str| !word.starts_with("](") && word.bytes().any(|byte| byte.is_ascii_alphanumeric());
            let prose =
                plain.split_whitespace().filter(is_prose).map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
            let prose: Vec<_> = prose.collect();
            checked += prose.len();
            missing.extend(prose.into_iter().filter(|&word| !shown.contains(word)).map(str::to_owned));
        }
    }
    assert!(checked > 3000 && missing.is_empty(), "{checked} checked, and the page has not: {missing:?}");
}

fn written() -> tempfile::TempDir {
    let share = tempfile::tempdir().unwrap();
    completions::write(share.path()).unwrap();
    share
}

/// What bash offers for these words, the last of which is incomplete.
fn offered(share: &Path, line: &[&str]) -> Vec<String> {
    let [name, .., last] = line else { panic!("{line:?}") };
    let script = r#"name=$1; source "$0/bash-completion/completions/$name"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        function=$(complete -p "$name" | sed 's/.*-F \([^ ]*\).*/\1/')
        "$function" "$name" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"; printf '%s\n' "${COMPREPLY[@]}""#;
    let offered = output(Command::new("bash").args(["-c", script]).arg(share).arg(name).args(line)).unwrap();
    assert!(offered.lines().all(|word| word.starts_with(last)), "{offered}");
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_options_and_values() {
    if !has("bash") {
        return;
    }
    let share = written();
    for command in commands() {
        let name = command.get_name();
        let offered = offered(share.path(), &[name, "--"]);
        for long in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(offered.contains(&format!("--{long}")), "{name} --{long} is not offered: {offered:?}");
        }
    }
    assert_eq!(offered(share.path(), &["sockexec", "--termsig", "n"]), ["number", "name"]);
    assert_eq!(offered(share.path(), &["sockexec-top", "--sort", "m"]), ["memory"]);
}

#[test]
fn zsh_and_fish_can_read_their_completions() {
    let share = written();
    for (shell, before, after) in [("zsh", "zsh/site-functions/_", ""), ("fish", "fish/vendor_completions.d/", ".fish")]
    {
        if !has(shell) {
            continue;
        }
        for command in commands() {
            let file = format!("{before}{}{after}", command.get_name());
            output(Command::new(shell).arg("-n").arg(share.path().join(file))).unwrap();
        }
    }
}

/// The checksums of one version have no file of another: 4.0.0 took those of 4.0.0-alpha.1 in.
#[test]
fn checksums_are_those_of_one_version() {
    const FILES: [&str; 5] = [
        "sockexec-VERSION-x86_64-unknown-linux-musl.tar.gz",
        "sockexec_PACKAGED-1_amd64.deb",
        "sockexec-tools_PACKAGED-12_arm64.deb",
        "sockexec-PACKAGED-1.x86_64.rpm",
        "sockexec-tools-PACKAGED-2.aarch64.rpm",
    ];
    let versions = ["4.0.0", "4.0.0-alpha.1", "4.0.0-alpha", "4.0.0-alpha.10", "4.0.0-1", "14.0.0", "4.0.01", "4.0"];
    let versions = versions.map(|version| Release { version, epoch: 0, date: String::new() });
    let named = |release: &Release| {
        let (version, packaged) = (release.version, release.in_packages());
        FILES.map(|file| file.replace("VERSION", version).replace("PACKAGED", &packaged))
    };
    for release in &versions {
        for other in &versions {
            let is_same = release.version == other.version;
            for name in named(other) {
                assert_eq!(sums::is_of(release, &name), is_same, "{name} is of {}", release.version);
            }
        }
        for name in named(release) {
            assert!(!sums::is_of(release, &format!("{name}.asc")), "{name}.asc");
            assert!(!sums::is_of(release, &name.replace("sockexec", "other")), "{name} of another project");
        }
    }
    assert!(!sums::is_of(&versions[0], "SHA256SUMS"));
}

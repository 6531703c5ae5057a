//! Markdown as sections of a manual page, as far as docs/protocol.md and packaging/man/ use it.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use roff::{Inline, Roff, bold, italic, roman};

/// A section of a manual page.
pub(super) struct Section {
    /// In capitals.
    pub(super) title: String,
    pub(super) body: Roff,
}

/// The sections of a document: one for each heading of the first level. Text before the first is left out.
pub(super) fn sections(markdown: &str) -> Vec<Section> {
    let mut page = Page::default();
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        page.take(event);
    }
    page.sections
}

#[derive(Default)]
struct Page {
    sections: Vec<Section>,
    /// The text of the current paragraph, heading or cell.
    inlines: Vec<Inline>,
    /// Within `*…*` and `**…**`.
    emphasis: bool,
    strong: bool,
    /// The targets of open links.
    links: Vec<String>,
    /// Within a block of code, its text.
    code: Option<String>,
    /// The number of the next item of each open list; `None`: a list without numbers.
    lists: Vec<Option<u64>>,
    table: Table,
    /// The next paragraph needs no space above it.
    is_first: bool,
}

/// The current table.
#[derive(Default)]
struct Table {
    head: Vec<Vec<Inline>>,
    row: Vec<Vec<Inline>>,
}

impl Page {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.begin(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match &mut self.code {
                Some(code) => code.push_str(&text),
                None => self.text(&text),
            },
            Event::Code(text) => self.inlines.push(bold(text.into_string())),
            Event::SoftBreak => self.text(" "),
            Event::HardBreak => self.inlines.push(Inline::LineBreak),
            // The documents do not use the others. A test finds lost text.
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        self.inlines.push(match (self.strong, self.emphasis) {
            (true, _) => bold(text),
            (false, true) => italic(text),
            (false, false) => roman(text),
        });
    }

    fn begin(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::CodeBlock(_) => self.code = Some(String::new()),
            Tag::Emphasis => self.emphasis = true,
            Tag::Strong => self.strong = true,
            Tag::Link { dest_url, .. } => self.links.push(dest_url.into_string()),
            Tag::List(first) => {
                // The text of an item before a list within it.
                self.paragraph();
                if !self.lists.is_empty() {
                    self.control("RS", &["4"]);
                }
                self.lists.push(first);
            }
            Tag::Item => {
                if let Some(Some(number)) = self.lists.last_mut() {
                    let label = format!("{number}.");
                    *number += 1;
                    self.control("IP", &[&label, "4"]);
                } else {
                    self.control("IP", &[r"\(bu", "2"]);
                }
                self.is_first = true;
            }
            Tag::Table(_) => self.table = Table::default(),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => self.heading(level),
            TagEnd::Paragraph | TagEnd::Item => self.paragraph(),
            TagEnd::CodeBlock => self.code(),
            TagEnd::Emphasis => self.emphasis = false,
            TagEnd::Strong => self.strong = false,
            TagEnd::Link => {
                // A manual page has no address for places within the documents.
                if let Some(address) = self.links.pop().filter(|address| address.contains("://")) {
                    self.inlines.push(roman(format!(" <{address}>")));
                }
            }
            TagEnd::List(_) => {
                self.lists.pop();
                if !self.lists.is_empty() {
                    self.control("RE", &[]);
                }
                self.is_first = false;
            }
            TagEnd::TableCell => self.table.row.push(std::mem::take(&mut self.inlines)),
            TagEnd::TableHead => self.table.head = std::mem::take(&mut self.table.row),
            TagEnd::TableRow => self.row(),
            TagEnd::Table => self.is_first = false,
            _ => {}
        }
    }

    fn control(&mut self, name: &str, arguments: &[&str]) {
        if let Some(section) = self.sections.last_mut() {
            section.body.control(name, arguments.iter().copied());
        }
    }

    fn line(&mut self, inlines: Vec<Inline>) {
        if let Some(section) = self.sections.last_mut() {
            section.body.text(inlines);
        }
    }

    fn heading(&mut self, level: HeadingLevel) {
        let inlines = std::mem::take(&mut self.inlines);
        let plain: String = inlines.iter().map(plain).collect();
        match level {
            HeadingLevel::H1 => self.sections.push(Section { title: plain.to_uppercase(), body: Roff::new() }),
            HeadingLevel::H2 => self.control("SS", &[&argument(&plain)]),
            _ => {
                self.control("PP", &[]);
                self.line(vec![bold(plain)]);
                self.is_first = false;
                return;
            }
        }
        self.is_first = true;
    }

    fn paragraph(&mut self) {
        let inlines = std::mem::take(&mut self.inlines);
        if inlines.is_empty() {
            return;
        }
        if !std::mem::take(&mut self.is_first) {
            // Within a list, `PP` would end the item.
            self.control(if self.lists.is_empty() { "PP" } else { "IP" }, &[]);
        }
        self.line(inlines);
    }

    fn code(&mut self) {
        let code = self.code.take().unwrap_or_default();
        if !std::mem::take(&mut self.is_first) {
            self.control("PP", &[]);
        }
        self.control("RS", &["4"]);
        self.control("EX", &[]);
        for line in code.lines() {
            self.line(vec![roman(line)]);
        }
        self.control("EE", &[]);
        self.control("RE", &[]);
    }

    /// Shows a row as a term, its first cell, described by the others. Rejected: tbl(1) is another program, and its
    /// cells are too narrow for these texts.
    fn row(&mut self) {
        let mut cells = std::mem::take(&mut self.table.row).into_iter();
        self.control("TP", &[]);
        self.line(cells.next().unwrap_or_default());
        let is_pair = self.table.head.len() <= 2;
        for (index, cell) in cells.enumerate() {
            if is_pair {
                self.line(cell);
                continue;
            }
            if index > 0 {
                self.control("br", &[]);
            }
            let heading: String = self.table.head.get(index + 1).into_iter().flatten().map(plain).collect();
            let mut line = vec![italic(heading), roman(": ")];
            line.extend(cell);
            self.line(line);
        }
    }
}

/// Text as an argument of a macro. The crate `roff` does not escape those.
pub(super) fn argument(text: &str) -> String {
    text.replace('\\', r"\e").replace('"', r"\(dq").replace('-', r"\-")
}

fn plain(inline: &Inline) -> String {
    match inline {
        Inline::Roman(text) | Inline::Bold(text) | Inline::Italic(text) => text.clone(),
        Inline::LineBreak => " ".to_owned(),
    }
}

//! Tests of all Markdown files: links lead somewhere, headings are unique, and lists of contents are complete.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use crate::workspace;

/// Headings repeat here, because each release has the same parts. They must be unique within a part.
const WITH_RELEASES: &str = "CHANGELOG.md";

/// The heading of a list of contents, if it has one.
const CONTENTS: &str = "Contents";

/// With fewer links above its first part, a document has no list of contents.
const FEWEST: usize = 3;

/// A Markdown file, as far as links concern it.
#[derive(Default)]
struct Document {
    headings: Vec<Heading>,
    /// Targets of links and images.
    links: Vec<String>,
    /// The places in this document to which links lead that stand above its first part, or in a part [`CONTENTS`].
    contents: Vec<String>,
}

struct Heading {
    level: HeadingLevel,
    text: String,
    anchor: String,
}

impl Document {
    fn parse(markdown: &str) -> Self {
        let mut document = Self::default();
        let mut heading: Option<String> = None;
        let mut anchors: BTreeMap<String, usize> = BTreeMap::new();
        for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(level)) => {
                    let text = heading.take().unwrap_or_default();
                    let mut anchor = slug(&text);
                    let before = anchors.entry(anchor.clone()).or_default();
                    if *before > 0 {
                        anchor = format!("{anchor}-{before}");
                    }
                    *before += 1;
                    document.headings.push(Heading { level, text, anchor });
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    let is_contents = |heading: &Heading| heading.level == HeadingLevel::H1 || heading.text == CONTENTS;
                    if let Some(anchor) =
                        dest_url.strip_prefix('#').filter(|_| document.headings.iter().all(is_contents))
                    {
                        document.contents.push(anchor.to_owned());
                    }
                    document.links.push(dest_url.into_string());
                }
                _ => {}
            }
        }
        document
    }

    fn has(&self, anchor: &str) -> bool {
        self.headings.iter().any(|heading| heading.anchor == anchor)
    }

    /// Each heading that has the text of an earlier one; with `within_parts` only if the headings above them are the
    /// same too.
    fn repeated(&self, within_parts: bool) -> Vec<String> {
        let mut path: Vec<&Heading> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut repeated = Vec::new();
        for heading in &self.headings {
            path.retain(|above| above.level < heading.level);
            path.push(heading);
            let skipped = if within_parts { 0 } else { path.len() - 1 };
            let name: Vec<&str> = path.iter().skip(skipped).map(|heading| heading.text.as_str()).collect();
            let name = name.join(" / ");
            if !seen.insert(name.clone()) {
                repeated.push(name);
            }
        }
        repeated
    }

    /// Headings that the list of contents leaves out, of the levels that it has.
    fn missing_from_contents(&self) -> Vec<&str> {
        let is_listed = |heading: &&Heading| self.contents.contains(&heading.anchor);
        let levels: BTreeSet<HeadingLevel> =
            self.headings.iter().filter(is_listed).map(|heading| heading.level).collect();
        let is_missing =
            |heading: &&Heading| levels.contains(&heading.level) && !is_listed(heading) && heading.text != CONTENTS;
        let missing = self.headings.iter().filter(|_| self.contents.len() >= FEWEST).filter(is_missing);
        missing.map(|heading| heading.text.as_str()).collect()
    }
}

/// The anchor that GitHub gives to a heading.
fn slug(text: &str) -> String {
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// All Markdown files, by their path from the root.
fn documents() -> BTreeMap<PathBuf, Document> {
    fn walk(directory: &Path, found: &mut BTreeMap<PathBuf, Document>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default();
            // What Cargo and Git keep is not ours, and other hidden directories belong to tools.
            let is_foreign = name == "target" || name.as_encoded_bytes().starts_with(b".") && name != ".github";
            if path.is_dir() && !path.is_symlink() && !is_foreign {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let document = Document::parse(&fs::read_to_string(&path).unwrap());
                found.insert(path.strip_prefix(workspace()).unwrap().to_owned(), document);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(workspace(), &mut found);
    found
}

/// The path without `.` and `..`, so that it can be looked up; `None` if it leaves the tree.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                if !normal.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    Some(normal)
}

/// Why a link of the file `from` leads nowhere.
fn fault(documents: &BTreeMap<PathBuf, Document>, from: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let to = if path.is_empty() {
        from.to_owned()
    } else {
        let Some(to) = normal(&from.parent().unwrap_or(Path::new("")).join(path)) else {
            return Some(format!("{target} leaves the tree"));
        };
        to
    };
    if !workspace().join(&to).exists() {
        return Some(format!("there is no {}", to.display()));
    }
    // Other files have anchors for lines only.
    let (Some(anchor), Some(document)) = (anchor, documents.get(&to)) else { return None };
    if document.has(anchor) { None } else { Some(format!("{} has no heading #{anchor}", to.display())) }
}

#[test]
fn links_lead_somewhere() {
    let documents = documents();
    assert!(documents.len() > 15 && documents.contains_key(Path::new("docs/testing.md")), "{:?}", documents.keys());
    let links = documents.iter().flat_map(|(from, document)| document.links.iter().map(move |link| (from, link)));
    assert!(links.clone().count() > 50);
    let faults =
        links.filter_map(|(from, link)| Some(format!("{}: {}", from.display(), fault(&documents, from, link)?)));
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A merge left docs/testing.md with a section twice. Of two equal headings only the first can be linked to.
#[test]
fn headings_are_unique_and_lists_of_contents_complete() {
    let mut faults = Vec::new();
    for (path, document) in documents() {
        let repeated = document.repeated(path == Path::new(WITH_RELEASES));
        faults.extend(repeated.iter().map(|heading| format!("{}: {heading} is there twice", path.display())));
        let missing = document.missing_from_contents();
        faults.extend(missing.iter().map(|heading| format!("{}: {heading} is not in the contents", path.display())));
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn faults_are_found() {
    let list = "# Title\n\n- [one](#one), [b](#a-b_c), [two](#a-b_c-1)\n\n";
    let markdown = format!("{list}## One\n\n### A `b_c`!\n\n## Two\n\n### A b_c\n\n```\n# no heading\n```\n");
    let document = Document::parse(&markdown);
    let anchors: Vec<&str> = document.headings.iter().map(|heading| heading.anchor.as_str()).collect();
    assert_eq!(anchors, ["title", "one", "a-b_c", "two", "a-b_c-1"]);
    assert_eq!(document.missing_from_contents(), ["Two"]);
    let titled = "# Title\n## Contents\n- [one](#one) [a](#a) [b](#b)\n## One\n### A\n### B\n### C\n";
    assert_eq!(Document::parse(titled).missing_from_contents(), ["C"]);
    assert!(Document::parse("# Title\n[one](#one)\n## One\n## Two\n").missing_from_contents().is_empty());
    let twice = Document::parse("# Title\n## One\n### Fixed\n## Two\n### Fixed\n### Fixed\n");
    assert_eq!(twice.repeated(true), ["Title / Two / Fixed"]);
    assert_eq!(twice.repeated(false), ["Fixed", "Fixed"]);

    let from = PathBuf::from("docs/testing.md");
    let documents = BTreeMap::from([(from.clone(), document)]);
    for good in ["#one", "testing.md#a-b_c-1", "./testing.md", "../docs", "https://example.org/#x", "mailto:a@b"] {
        assert_eq!(fault(&documents, &from, good), None, "{good}");
    }
    for bad in ["#three", "testing.md#three", "missing.md", "../missing/", "../../elsewhere"] {
        assert!(fault(&documents, &from, bad).is_some(), "{bad}");
    }
}

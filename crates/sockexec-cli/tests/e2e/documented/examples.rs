//! The examples of the document: taken apart, and played against a daemon.

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::common::{Client, Daemon, pairs};

/// One line of an example.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    Client {
        with_descriptors: bool,
        bytes: Vec<u8>,
        /// Whether a half-close follows.
        ends: bool,
    },
    Daemon(Vec<u8>),
}

/// The bytes that the text of a line stands for.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, char == '\\') {
            // `<5 times x>`
            ('<', false) if text.contains(" times ") => {
                let repeated: String = chars.by_ref().take_while(|&char| char != '>').collect();
                let (times, what) = repeated.split_once(" times ").expect("so many times what");
                bytes.extend(what.repeat(times.parse().expect("a number")).as_bytes());
            }
            (_, false) => bytes.extend(char.to_string().as_bytes()),
            (_, true) => match chars.next() {
                Some('n') => bytes.push(b'\n'),
                Some('r') => bytes.push(b'\r'),
                Some('x') => {
                    let digits: String = chars.by_ref().take(2).collect();
                    bytes.push(u8::from_str_radix(&digits, 16).expect("two digits"));
                }
                other => panic!("\\{other:?} in {text}"),
            },
        }
    }
    bytes
}

/// The examples, in their order. An example is a run of indented lines that begin with `>` or `<`.
pub(super) fn examples(document: &str) -> Vec<Vec<Line>> {
    let mut examples = Vec::new();
    let mut example = Vec::new();
    for line in document.lines().chain([""]) {
        if let Some(text) = line.strip_prefix("    > ") {
            let (with_descriptors, text) = match text.strip_prefix("[/dev/null, FILE, FILE] ") {
                Some(text) => (true, text),
                None => (false, text),
            };
            let (text, ends) = match text.strip_suffix(" EOF") {
                Some(text) => (text, true),
                None => (text, false),
            };
            example.push(Line::Client { with_descriptors, bytes: unescape(text), ends });
        } else if let Some(text) = line.strip_prefix("    < ") {
            example.push(Line::Daemon(unescape(text)));
        } else if !example.is_empty() {
            examples.push(std::mem::take(&mut example));
        }
    }
    examples
}

/// An example as the document has it.
fn shown(example: &[Line]) -> String {
    let line = |line: &Line| match line {
        Line::Client { bytes, .. } => format!("\n    > {}", bytes.escape_ascii()),
        Line::Daemon(bytes) => format!("\n    < {}", bytes.escape_ascii()),
    };
    example.iter().map(line).collect()
}

/// A reply without what differs from run to run: process numbers, costs, how much input was taken,
/// where output is cut into pairs, and the order of the two streams. Most examples leave out the
/// introduction, so [`play`] checks it by itself.
#[derive(Debug, Default, PartialEq)]
struct Gist {
    taken: bool,
    stdout: String,
    stderr: String,
    ended: Vec<String>,
    others: Vec<(String, String)>,
}

impl Gist {
    #[track_caller]
    fn of(raw: &[u8]) -> Self {
        let mut gist = Self::default();
        for (tag, payload) in pairs(raw) {
            let text = String::from_utf8(payload).expect("text");
            match tag.as_str() {
                "protocol" => {}
                "taken" => {
                    assert!(text.parse::<u64>().is_ok(), "{text}");
                    gist.taken = true;
                }
                "stdout" | "stderr" if text.is_empty() => gist.ended.push(tag),
                "stdout" => gist.stdout.push_str(&text),
                "stderr" => gist.stderr.push_str(&text),
                "started" => {
                    assert!(text.parse::<u32>().is_ok(), "{text}");
                    gist.others.push((tag, "PID".into()));
                }
                "usage" => {
                    let names: Vec<&str> = text
                        .split(' ')
                        .map(|item| {
                            let (name, value) = item.split_once('=').expect("name=value");
                            assert!(value.parse::<f64>().is_ok(), "{text}");
                            name
                        })
                        .collect();
                    gist.others.push((tag, names.join(" ")));
                }
                _ => gist.others.push((tag, text)),
            }
        }
        gist.ended.sort();
        gist
    }
}

#[track_caller]
fn send(daemon: &Daemon, client: &mut Client, bytes: &[u8], with_descriptors: bool) {
    if !with_descriptors {
        return client.send(bytes);
    }
    let null = File::open("/dev/null").unwrap();
    let file = File::create(daemon.directory().join("FILE")).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [null.as_fd(), file.as_fd(), file.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    rustix::net::sendmsg(client.socket(), &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
}

/// Plays the client's part and compares the daemon's. `at_last` runs when everything has been sent.
#[track_caller]
pub(super) fn play(daemon: &Daemon, example: &[Line], at_last: impl FnOnce(&mut Client)) {
    let mut client = daemon.connect();
    let mut expected = Vec::new();
    let mut last_words: Option<String> = None;
    for line in example {
        match line {
            Line::Client { with_descriptors, bytes, ends } => {
                if let Some(words) = last_words.take() {
                    client.wait_for(&words);
                }
                send(daemon, &mut client, bytes, *with_descriptors);
                if *ends {
                    client.half_close();
                }
            }
            Line::Daemon(bytes) => {
                let said = pairs(bytes);
                let (tag, payload) = said.last().expect("a pair");
                last_words = Some(if tag == "started" || payload.is_empty() {
                    format!("{}:{tag},", tag.len())
                } else {
                    String::from_utf8_lossy(payload).into_owned()
                });
                expected.extend_from_slice(bytes);
            }
        }
    }
    at_last(&mut client);
    let raw = client.rest();
    let example_shown = shown(example);
    assert_eq!(
        Gist::of(&raw),
        Gist::of(&expected),
        "the daemon (left) does not do what this example of docs/protocol.md (right) shows:{example_shown}"
    );
    let introduction = |raw| {
        let (_, payload) = pairs(raw).into_iter().find(|(tag, _)| tag == "protocol")?;
        Some(format!("{}:{}", payload.len(), payload.escape_ascii()))
    };
    let is_version_2 =
        matches!(example.first(), Some(Line::Client { bytes, .. }) if bytes.starts_with(b"10:protocol="));
    assert_eq!(pairs(&raw).first().is_some_and(|(tag, _)| tag == "protocol"), is_version_2, "{example_shown}");
    if let Some(shown) = introduction(&expected) {
        let said = introduction(&raw);
        assert_eq!(said, Some(shown), "docs/protocol.md must show this introduction (left) in \"The introduction\"");
    }
}

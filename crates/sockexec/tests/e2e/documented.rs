//! The examples of docs/protocol.md, run as they stand there.

use std::fs::{self, File};
use std::io::{IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::Value;

use crate::common::{Client, Daemon, pairs};

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol.md");
    fs::read_to_string(path).expect("docs/protocol.md")
}

/// What one side says, one line after the other.
#[derive(Debug, PartialEq)]
enum Line {
    Client { with_descriptors: bool, bytes: Vec<u8> },
    Daemon(Vec<u8>),
}

/// The bytes that a line stands for.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, char == '\\') {
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

/// The examples, in their order: indented lines that begin with `>` or `<`, up to one that does not.
fn examples(document: &str) -> Vec<Vec<Line>> {
    let mut examples = Vec::new();
    let mut example = Vec::new();
    for line in document.lines().chain([""]) {
        if let Some(text) = line.strip_prefix("    > ") {
            let (with_descriptors, text) = match text.strip_prefix("[/dev/null, FILE, FILE] ") {
                Some(text) => (true, text),
                None => (false, text),
            };
            example.push(Line::Client { with_descriptors, bytes: unescape(text) });
        } else if let Some(text) = line.strip_prefix("    < ") {
            example.push(Line::Daemon(unescape(text)));
        } else if !example.is_empty() {
            examples.push(std::mem::take(&mut example));
        }
    }
    examples
}

/// A reply with what differs from run to run taken out: numbers of processes and costs, and how output is cut into pairs, or which of
/// two streams is told first.
#[derive(Debug, Default, PartialEq)]
struct Gist {
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

#[test]
fn examples_of_the_document() {
    let daemon = Daemon::start("");
    let document = document();
    let examples = examples(&document);
    assert!(examples.len() >= 18, "{} examples", examples.len());
    for example in &examples {
        let mut client = daemon.connect();
        let mut expected = Vec::new();
        let mut last_words: Option<String> = None;
        for line in example {
            match line {
                Line::Client { with_descriptors, bytes } => {
                    if let Some(words) = last_words.take() {
                        client.wait_for(&words);
                    }
                    send(&daemon, &mut client, bytes, *with_descriptors);
                }
                Line::Daemon(bytes) => {
                    let said = pairs(bytes);
                    let (tag, payload) = said.last().expect("a pair");
                    last_words = Some(if tag == "started" {
                        "7:started,".into()
                    } else {
                        String::from_utf8_lossy(payload).into_owned()
                    });
                    expected.extend_from_slice(bytes);
                }
            }
        }
        // A client that has no more to say, as `nc -N`; with input that was not ended it would wait.
        let raw = client.rest();
        assert_eq!(Gist::of(&raw), Gist::of(&expected), "{example:?}");
    }
    assert_eq!(fs::read_to_string(daemon.directory().join("FILE")).unwrap(), "hello\n");
}

/// Every option, tag and code of an error has an example, or is in one.
#[test]
fn nothing_is_without_an_example() {
    let document = document();
    let examples = examples(&document);
    let said = |is_client: bool| -> Vec<String> {
        let lines = examples.iter().flatten();
        let bytes = lines.filter_map(|line| match line {
            Line::Client { bytes, .. } if is_client => Some(bytes),
            Line::Daemon(bytes) if !is_client => Some(bytes),
            Line::Client { .. } | Line::Daemon(_) => None,
        });
        bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    };
    let (client, daemon) = (said(true).concat(), said(false).concat());
    for words in [
        ":cwd=",
        ":env=",
        ":unsetenv=",
        ":clearenv,",
        ":timeout=",
        ":stderr=stdout,",
        ":pty=",
        ":fds,",
        ":stdin,",
        ":signal,",
        ":winsize,",
    ] {
        assert!(client.contains(words), "no example of {words}");
    }
    for words in [":started,", ":stdout,", ":stderr,", ":error,", ":usage,", ":exitcode,", ":termsig,"] {
        assert!(daemon.contains(words), "no example of {words}");
    }
    for code in
        ["not-found", "not-executable", "denied", "spawn-failed", "bad-request", "timeout", "shutdown", "internal"]
    {
        assert!(document.contains(&format!("| `{code}` |")), "{code} is not in the table");
    }
}

/// The names in `value` and below, and what kind of thing each is.
fn shape(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                shape(member, &format!("{path}.{name}"), found);
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| shape(element, &format!("{path}[]"), found)),
        Value::Null => {}
        Value::Bool(_) => found.push(format!("{path}: boolean")),
        Value::Number(_) => found.push(format!("{path}: number")),
        Value::String(_) => found.push(format!("{path}: string")),
    }
    found.sort();
    found.dedup();
}

/// The status has the members that the document shows, and no others.
#[test]
fn the_members_of_the_status() {
    let document = document();
    let (_, rest) = document.split_once("```json\n").expect("an example");
    let (json, _) = rest.split_once("```").expect("its end");
    let mut documented = Vec::new();
    shape(&serde_json::from_str(json).expect("JSON"), "", &mut documented);
    let daemon = Daemon::start("");
    let mut running = daemon.connect();
    running.send(b"10:protocol=2,1:2,5:sleep,3:100,");
    running.wait_for("7:started,");
    let mut client = daemon.connect();
    client.send(b"10:protocol=2,6:status,");
    let reply = pairs(&client.rest());
    let [(tag, payload)] = reply.as_slice() else { panic!("{reply:?}") };
    let mut found = Vec::new();
    shape(&serde_json::from_slice(payload).expect("JSON"), "", &mut found);
    assert_eq!((tag.as_str(), found), ("status", documented));
}

/// The client in Python does what is said of it.
#[test]
fn the_client_in_python() {
    let document = document();
    let (_, rest) = document.split_once("```python\n").expect("a client");
    let (source, _) = rest.split_once("```").expect("its end");
    if Command::new("python3").arg("--version").output().is_err() {
        println!("SKIPPED: no python3 to run it with");
        return;
    }
    let daemon = Daemon::start("");
    let client = daemon.directory().join("client.py");
    fs::write(&client, source).unwrap();
    let run = |argv: &[&str], input: &str| {
        let mut command = Command::new("python3");
        command.arg(&client).arg(daemon.socket()).args(argv).current_dir("/usr");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr), output.status.code())
    };
    assert_eq!(run(&["sh", "-c", "tr a-z A-Z; exit 3"], "word"), ("WORD".into(), String::new(), Some(3)));
    assert_eq!(run(&["pwd"], ""), ("/usr\n".into(), String::new(), Some(0)));
    assert_eq!(run(&["sh", "-c", "kill -9 $$"], ""), (String::new(), String::new(), Some(137)));
    let refused = run(&["nope"], "");
    assert_eq!(refused, (String::new(), "not-found nope: No such file or directory\n".into(), Some(111)));
    let big = "0123456789".repeat(500_000);
    assert_eq!(run(&["cat"], &big), (big, String::new(), Some(0)));
}

//! docs/protocol.md holds: its examples and its client in Python run as they stand there, and nothing
//! of the protocol is missing from it.

mod examples;
mod python;

use std::fs;

use serde_json::Value;
use sockexec_proto::{ErrorCode, reply, request};

use crate::common::{Daemon, pairs, steps};
use examples::{Line, examples, play};

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol.md");
    fs::read_to_string(path).expect("docs/protocol.md")
}

#[test]
fn examples_of_the_document() {
    let daemon = Daemon::start("");
    let document = document();
    let examples = examples(&document);
    assert!(examples.len() >= 22, "{} examples", examples.len());
    let is_said = |example: &[Line], tag: &str| {
        let said = |line: &Line| matches!(line, Line::Daemon(bytes) if pairs(bytes).iter().any(|pair| pair.0 == tag));
        example.iter().any(said)
    };
    for example in &examples {
        if is_said(example, "queued") {
            let busy = Daemon::start("-m 1");
            let mut other = busy.exec(&steps("out ready cat"));
            other.wait_for("ready");
            play(&busy, example, move |client| {
                client.wait_for("6:queued,");
                drop(other);
            });
        } else {
            play(&daemon, example, |_| {});
        }
    }
    assert_eq!(fs::read_to_string(daemon.directory().join("FILE")).unwrap(), "hello\n");
}

/// Every option, tag and error code of the protocol is in an example or a table.
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
    let options = request::OPTIONS.iter().filter(|option| option.name != request::STATUS);
    for option in options {
        let words = format!(":{}{}", option.name, if option.takes_value { "=" } else { "," });
        assert!(client.contains(&words), "no example of the option {}", option.name);
    }
    for tag in [request::STDIN, request::SIGNAL, request::WINSIZE] {
        assert!(client.contains(&format!(":{tag},")), "no example of {tag}");
    }
    for tag in [
        reply::PROTOCOL,
        reply::QUEUED,
        reply::STARTED,
        "stdout",
        "stderr",
        reply::TAKEN,
        reply::INPUT_CLOSED,
        reply::ERROR,
        reply::USAGE,
        reply::EXITCODE,
        reply::TERMSIG,
    ] {
        assert!(daemon.contains(&format!(":{tag},")), "no example of {tag}");
        let row = format!("`{tag}`");
        assert!(document.lines().any(|line| line.starts_with('|') && line.contains(&row)), "{tag} is in no table");
    }
    for code in ErrorCode::KNOWN {
        assert!(document.contains(&format!("| `{code}` |")), "{code} is not in the table");
    }
}

/// Collects the path and the type of every value in `value`.
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
    running.send(b"10:protocol=2,8:cwd=/usr,1:2,5:sleep,3:100,");
    running.wait_for("7:started,");
    let mut client = daemon.connect();
    client.send(b"10:protocol=2,6:status,");
    let said = pairs(&client.rest());
    let [(protocol, _), (tag, payload)] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(protocol, reply::PROTOCOL);
    let mut found = Vec::new();
    shape(&serde_json::from_slice(payload).expect("JSON"), "", &mut found);
    // What the kernel lacks is nothing on a new one.
    for list in [&mut found, &mut documented] {
        list.retain(|member| member != ".lacks[]: string");
    }
    assert!(payload.windows(8).any(|words| words == b"\"lacks\":"));
    assert_eq!(tag, "status");
    let without = |all: &[String], others: &[String]| -> Vec<String> {
        all.iter().filter(|member| !others.contains(member)).cloned().collect()
    };
    let (unsaid, gone) = (without(&found, &documented), without(&documented, &found));
    assert!(unsaid.is_empty(), "the JSON in docs/protocol.md lacks these members of the status: {unsaid:?}");
    assert!(gone.is_empty(), "the JSON in docs/protocol.md has members that the status lacks: {gone:?}");
}

/// The changelog and the fuzzers' dictionary have every option. No example could show that.
#[test]
fn every_option_is_in_the_changelog_and_the_dictionary() {
    let file = |path: &str| fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))).expect("a file");
    let (changes, dictionary) = (file("CHANGELOG.md"), file("fuzz/decode.dict"));
    for option in request::OPTIONS {
        let name = option.name;
        assert!(changes.contains(&format!("`{name}`")), "CHANGELOG.md does not have the option `{name}`");
        let word = format!(":{name}{}", if option.takes_value { "=" } else { "," });
        assert!(dictionary.contains(&word), "fuzz/decode.dict has no netstring of the option {name}");
    }
}

//! What a new option needs, place by place: each of these fails for a place that was forgotten, and names it. `CONTRIBUTING.md` has the
//! list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::mpsc;

use sockexec_proto::request::{self, OPTIONS};

use super::fake::{EXIT, Fake, INTRODUCTION, STARTED};
use super::{run, text};

/// A file of the repository.
#[track_caller]
pub(super) fn file(path: &str) -> String {
    let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The long flags of the command, as the fields of `Arguments` have them, and whether each takes a value.
pub(super) fn flags() -> BTreeMap<String, bool> {
    let source = file("crates/sockexec-cli/src/bin/sockexec-client/arguments.rs");
    let (_, rest) = source.split_once("struct Arguments {\n").expect("the struct of the arguments");
    let (body, _) = rest.split_once("\n}\n").expect("its end");
    let (mut flags, mut attributes) = (BTreeMap::new(), String::new());
    for line in body.lines().map(str::trim) {
        let field = line.trim_start_matches("pub(crate) ").split_once(": ").map(|(name, _)| name);
        match field.filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')) {
            Some(name) if line.ends_with(',') && !line.starts_with("//") => {
                if attributes.contains("long") {
                    flags.insert(format!("--{}", name.replace('_', "-")), attributes.contains("value_name"));
                }
                attributes.clear();
            }
            Some(_) | None if line.starts_with("//") => {}
            Some(_) | None => attributes.push_str(line),
        }
    }
    assert!(flags.len() > 10, "{flags:?}");
    flags
}

/// The methods `pub fn NAME(&mut self, …) -> &mut Self` of a source.
fn builders(path: &str) -> BTreeSet<String> {
    let source = file(path);
    let functions = source.split("    pub fn ").skip(1);
    let builders = functions.filter(|text| text.split('{').next().is_some_and(|head| head.contains("-> &mut Self")));
    let name = |text: &str| text.split(['(', '<']).next().map(str::to_owned);
    builders.filter_map(name).collect()
}

/// What the blocking `Command` can be told, the one for tokio can be told too.
#[test]
fn both_libraries_have_every_method() {
    let blocking: BTreeSet<String> =
        [builders("crates/sockexec/src/client/mod.rs"), builders("crates/sockexec/src/client/options.rs")]
            .into_iter()
            .flatten()
            .collect();
    let tokio = builders("crates/sockexec/src/client/tokio.rs");
    // Descriptors are not passed there, as its documentation says.
    let missing: Vec<_> = blocking.difference(&tokio).filter(|&name| name != "pass_stdio").collect();
    assert!(blocking.len() > 15 && missing.is_empty(), "client/tokio.rs has no method {missing:?}");
}

/// The documentation of `Command::version` lists all methods that need version 2.
#[test]
fn the_methods_of_version_2_are_listed() {
    let source = file("crates/sockexec/src/client/options.rs");
    let (documentation, _) = source.split_once("pub fn version(").expect("the method version");
    let unlisted: Vec<String> = builders("crates/sockexec/src/client/options.rs")
        .into_iter()
        .filter(|name| name != "version" && !documentation.contains(&format!("[`{name}`](Self::{name})")))
        .collect();
    assert!(unlisted.is_empty(), "the documentation of Command::version does not list {unlisted:?}");
}

/// How the command is brought to send each option of the protocol.
const BY_FLAG: &[(&str, &[&str])] = &[
    ("cwd", &["--chdir", "/"]),
    ("env", &["--env", "A=1"]),
    ("unsetenv", &["--unset", "A"]),
    ("clearenv", &["--clear-env"]),
    ("timeout", &["--timeout", "50"]),
    ("stderr", &["--merge-stderr"]),
    ("pty", &["--tty"]),
    ("fds", &["--pass-fds"]),
];

/// Every option of the protocol can be had from the command, and so from the library.
#[test]
fn every_option_of_the_protocol_has_a_flag() {
    for option in OPTIONS.iter().filter(|option| option.name != request::STATUS) {
        let name = option.name;
        let row = BY_FLAG.iter().find(|(row, _)| *row == name);
        let (_, flag) = row.unwrap_or_else(|| panic!("BY_FLAG of this test has no row for the option {name}"));
        let (sent, options) = mpsc::channel();
        let fake = Fake::new(move |mut peer| {
            sent.send(peer.request()).expect("the test waits");
            peer.say(&[INTRODUCTION, STARTED, EXIT].concat());
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_sockexec-client"));
        command.arg("-n").args(*flag).arg(fake.socket()).arg("program");
        let output = run(command);
        // First, as a command that knows no such flag does not connect.
        assert_eq!(output.status.code(), Some(0), "{flag:?} for the option {name}: {}", text(&output.stderr));
        fake.join();
        let options = options.recv().expect("a request");
        let is_sent = options.iter().any(|option| option.split('=').next() == Some(name));
        assert!(is_sent, "{flag:?} does not send the option {name}: {options:?}");
    }
}

/// Every flag is told of where a reader looks for what is new.
#[test]
fn every_flag_is_in_the_changelog_or_the_readme() {
    let documents = [file("CHANGELOG.md"), file("README.md")].concat();
    let words: BTreeSet<&str> = documents.split(|char: char| !(char.is_alphanumeric() || char == '-')).collect();
    let unmentioned: Vec<_> = flags().into_keys().filter(|flag| !words.contains(flag.as_str())).collect();
    assert!(unmentioned.is_empty(), "neither CHANGELOG.md nor README.md has {unmentioned:?}");
}

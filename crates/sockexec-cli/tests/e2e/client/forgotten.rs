//! The places that a new option needs. Each test names a place that was forgotten.
//! `CONTRIBUTING.md` has the list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::mpsc;

use rustix::termios::{InputModes, OptionalActions, tcgetattr, tcsetattr};
use sockexec_proto::reply;
use sockexec_proto::request::{self, OPTIONS};

use super::fake::{EXIT, Fake, STARTED};
use super::terminals::terminal;
use super::{run, text};

/// A file of the repository.
#[track_caller]
pub(super) fn file(path: &str) -> String {
    let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The long flags of the command, from the fields of `Arguments`, and whether each takes a value.
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

/// The sources in a directory, and in the file of the same name beside it, if there is one.
fn sources(directory: &str) -> String {
    let root = format!("{}/../../{directory}", env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(&root).unwrap_or_else(|error| panic!("{root}: {error}"));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.map(|path| fs::read_to_string(path).expect("a source")).collect()
}

/// The names of the public functions at this indentation.
fn functions(source: &str, indent: &str) -> BTreeSet<String> {
    let heads = source.lines().filter_map(|line| line.strip_prefix(indent)?.strip_prefix("pub "));
    let names = heads.filter_map(|head| {
        let head = ["const ", "async "].iter().find_map(|word| head.strip_prefix(word)).unwrap_or(head);
        head.strip_prefix("fn ")?.split(['(', '<']).next()
    });
    names.map(str::to_owned).collect()
}

/// The names of the public methods of this type.
fn methods(source: &str, owner: &str) -> BTreeSet<String> {
    let head = format!("\nimpl {owner} {{\n");
    let blocks = source.split(&head).skip(1);
    let bodies = blocks.filter_map(|block| block.split("\n}\n").next());
    bodies.flat_map(|body| functions(body, "    ")).collect()
}

/// The library for tokio has what the blocking one has: each function, and each method of each
/// type. Nothing checks what has no name, such as an implementation of a trait.
#[test]
fn both_libraries_have_every_method() {
    // As in tokio: `kill` waits, and only a `Child` can do it.
    let waits = [("ChildHandle", "kill", "start_kill"), ("Child", "kill", "start_kill")];
    let tokio = sources("crates/sockexec/src/client/tokio") + &file("crates/sockexec/src/client/tokio.rs");
    let all = sources("crates/sockexec/src/client");
    // Without those for tokio.
    let blocking = all.replace(&file("crates/sockexec/src/client/tokio.rs"), "");
    assert!(blocking.len() < all.len());
    let mut missing = Vec::new();
    for (owner, least) in [("Command", 25), ("Child", 9), ("ChildHandle", 4)] {
        let (mut ours, theirs) = (methods(&blocking, owner), methods(&tokio, owner));
        assert!(ours.len() >= least, "{owner} has methods that this test does not see: {ours:?}");
        for (_, name, other) in waits.iter().filter(|(row, ..)| *row == owner) {
            assert!(ours.remove(*name), "{owner}::{name}");
            ours.insert((*other).to_owned());
        }
        missing.extend(ours.difference(&theirs).map(|name| format!("{owner}::{name}")));
    }
    let mut functions = (functions(&blocking, ""), functions(&tokio, ""));
    // Methods of a status, which wait for nothing.
    assert!(functions.0.remove("prometheus"));
    assert!(functions.0.len() >= 2, "{functions:?}");
    missing.extend(functions.0.difference(&functions.1).cloned());
    assert!(missing.is_empty(), "client/tokio.rs and client/tokio have nothing for {missing:?}");
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

/// How to make the command send each option of the protocol.
const BY_FLAG: &[(&str, &[&str])] = &[
    ("cwd", &["--chdir", "/"]),
    ("env", &["--env", "A=1"]),
    ("unsetenv", &["--unset", "A"]),
    ("clearenv", &["--clear-env"]),
    ("timeout", &["--timeout", "50"]),
    ("stderr", &["--merge-stderr"]),
    ("pty", &["--tty"]),
    ("utf8", &["--tty"]),
    ("fds", &["--pass-fds"]),
];

/// The command can send every option of the protocol, and so can the library.
#[test]
fn every_option_of_the_protocol_has_a_flag() {
    for option in OPTIONS.iter().filter(|option| option.name != request::STATUS) {
        let name = option.name;
        let row = BY_FLAG.iter().find(|(row, _)| *row == name);
        let (_, flag) = row.unwrap_or_else(|| panic!("BY_FLAG of this test has no row for the option {name}"));
        let (sent, options) = mpsc::channel();
        let fake = Fake::new(move |mut peer| {
            // The client sends some options only to a daemon that allows them.
            peer.until(b"10:protocol=2,");
            let mut introduction = Vec::new();
            reply::encode_introduction(65536, &mut introduction);
            peer.say(&introduction);
            sent.send(peer.options()).expect("the test waits");
            peer.say(&[STARTED, EXIT].concat());
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_sockexec-client"));
        // A terminal for UTF-8 with nothing to read.
        let (_master, terminal) = terminal();
        let mut modes = tcgetattr(&terminal).expect("modes");
        modes.input_modes |= InputModes::IUTF8;
        tcsetattr(&terminal, OptionalActions::Now, &modes).expect("modes");
        command.stdin(terminal);
        command.arg("-n").args(*flag).arg(fake.socket()).arg("program");
        let output = run(command);
        // Checked first, because a command without that flag does not connect.
        assert_eq!(output.status.code(), Some(0), "{flag:?} for the option {name}: {}", text(&output.stderr));
        fake.join();
        let options = options.recv().expect("a request");
        let is_sent = options.iter().any(|option| option.split('=').next() == Some(name));
        assert!(is_sent, "{flag:?} does not send the option {name}: {options:?}");
    }
}

/// The help marks the flags that need version 2 with `(*)`, and `needs_version_2` asks for them.
#[test]
fn flags_of_version_2_are_marked() {
    let source = file("crates/sockexec-cli/src/bin/sockexec-client/arguments.rs");
    let (_, rest) = source.split_once("struct Arguments {\n").expect("the struct of the arguments");
    let (body, rest) = rest.split_once("\n}\n").expect("its end");
    let (_, rest) = rest.split_once("fn needs_version_2(").expect("the function");
    let (decided, _) = rest.split_once("\n    }\n").expect("its end");
    for flag in flags().into_keys() {
        let field = flag.trim_start_matches("--").replace('-', "_");
        let documentation = body
            .split("\n\n")
            .find(|text| text.contains(&format!("    {field}: ")) || text.contains(&format!("pub(crate) {field}: ")));
        let is_marked = documentation.expect("a field").contains(" (*).\n");
        let is_asked_for = !decided.contains(&format!(" {field}: _,"));
        assert_eq!(
            is_marked, is_asked_for,
            "arguments.rs: either the help of {flag} ends with ` (*).` and needs_version_2 asks for it, or neither"
        );
        let sends = BY_FLAG.iter().any(|(_, words)| words.first() == Some(&flag.as_str()));
        assert!(
            is_marked || !sends,
            "arguments.rs: {flag} sends an option of version 2: its help must end with ` (*).`"
        );
    }
}

#[test]
fn every_flag_is_in_the_changelog_or_the_readme() {
    let documents = [file("CHANGELOG.md"), file("README.md")].concat();
    let words: BTreeSet<&str> = documents.split(|char: char| !(char.is_alphanumeric() || char == '-')).collect();
    let unmentioned: Vec<_> = flags().into_keys().filter(|flag| !words.contains(flag.as_str())).collect();
    assert!(unmentioned.is_empty(), "neither CHANGELOG.md nor README.md has {unmentioned:?}");
}

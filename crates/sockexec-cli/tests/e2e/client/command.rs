//! Arguments of the command, right and wrong, and its messages.

use std::os::unix::process::CommandExt as _;

use super::forgotten::flags;
use super::{assert_lost, bare, client, fixture_client, run, text};
use crate::common::{Daemon, fixture, stale_socket, steps};

#[test]
fn version() {
    let daemon = Daemon::start("");
    for option in ["-v", "--version", "-nv"] {
        let mut command = bare(&daemon);
        command.arg(option);
        let output = run(command);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(text(&output.stdout), format!("sockexec-client version: {}\n", env!("CARGO_PKG_VERSION")));
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn help_has_every_option_and_three_examples() {
    let daemon = Daemon::start("");
    for option in ["-h", "--help"] {
        let mut command = bare(&daemon);
        command.arg(option);
        let output = run(command);
        assert_eq!(output.status.code(), Some(0));
        let help = text(&output.stdout);
        let words = ["-n", "-C", "-e", "-t", "-v", "-h", "SOCKEXEC_SOCKET", "100", "111", "124", "125", "126", "127"];
        for word in flags().keys().map(String::as_str).chain(words) {
            let is_there = help.split_whitespace().any(|found| found.trim_end_matches([',', ']', '.']) == word);
            assert!(is_there, "no {word} in {help}");
        }
        let (_, examples) = help.split_once("Examples:\n").expect("examples");
        assert_eq!(examples.lines().filter(|line| line.contains("sockexec-client")).count(), 3, "{examples}");
    }
}

/// The examples of the help do what they claim.
#[test]
fn the_examples_of_the_help_work() {
    let daemon = Daemon::start("");
    let mut command = bare(&daemon);
    command.arg("--help");
    let help = run(command).stdout;
    let (_, examples) = text(&help).split_once("Examples:\n").expect("examples");
    std::fs::create_dir(daemon.directory().join("docs")).expect("a directory");
    let binary = env!("CARGO_BIN_EXE_sockexec-client");
    for example in examples.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let example = example
            .replace("sockexec-client", &format!("'{binary}'"))
            .replace("/tmp/exec.sock", daemon.socket().to_str().expect("UTF-8"));
        let mut shell = std::process::Command::new("/bin/sh");
        shell.arg("-c").arg(&example).current_dir(daemon.directory());
        let output = shell.output().expect("a shell");
        let expected = if example.contains("exit 3") { 3 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{example}: {}", text(&output.stderr));
        assert!(!output.stdout.is_empty(), "{example}");
    }
}

#[test]
fn usage_errors() {
    let daemon = Daemon::start("");
    let cases: &[(&[&str], &str)] = &[
        (&[], "SOCKET"),
        (&["sock"], "PROGRAM"),
        (&["-x", "sock", "true"], "-x"),
        (&["--no-such-option", "sock", "true"], "--no-such-option"),
        (&["-n"], "SOCKET"),
        (&["-", "true"], "SOCKEXEC_SOCKET"),
        (&["--chdir", "", "sock", "true"], "--chdir"),
        (&["--env", "=1", "sock", "true"], "the name before the equals sign is missing"),
        (&["--env", "", "sock", "true"], "the name is empty"),
        (&["--unset", "A=1", "sock", "true"], "A=1"),
        (&["--timeout", "soon", "sock", "true"], "positive number of seconds"),
        (&["--timeout", "0", "sock", "true"], "positive number of seconds"),
        (&["--timeout", "-1", "sock", "true"], "positive number of seconds"),
        (&["--wait", "-0.5", "sock", "true"], "positive number of seconds"),
        (&["--format", "xml", "--status", "sock"], "xml"),
    ];
    for (arguments, word) in cases {
        let mut command = bare(&daemon);
        command.args(*arguments);
        let output = run(command);
        assert_eq!(output.status.code(), Some(100), "{arguments:?}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        assert!(text(&output.stderr).contains(word), "{arguments:?}: {}", text(&output.stderr));
    }
    let mut command = bare(&daemon);
    command.arg("--help");
    let help = run(command).stdout;
    let with_value: Vec<&str> = text(&help)
        .lines()
        .filter_map(|line| line.split_once(" <")?.0.split_whitespace().find(|word| word.starts_with("--")))
        .collect();
    assert!(with_value.len() >= 6, "{with_value:?}");
    let untested: Vec<_> = with_value
        .into_iter()
        .filter(|flag| !cases.iter().any(|(arguments, _)| arguments.first() == Some(flag)))
        .collect();
    assert!(untested.is_empty(), "`cases` of this test needs a row with a wrong value of each of {untested:?}");
}

/// All that follows PROGRAM belongs to it, even what looks like one of our options.
#[test]
fn arguments_reach_the_program_as_they_are() {
    let daemon = Daemon::start("");
    let arguments = ["args", "-n", "--version", "--", "-h", "", "a b", "ä\n", "--", "-"];
    let argv: Vec<&str> = std::iter::once(fixture()).chain(arguments).collect();
    let expected: Vec<u8> = argv.iter().flat_map(|argument| [argument.as_bytes(), b"\0"].concat()).collect();
    let output = run(client(&daemon, &argv));
    assert_eq!(text(&output.stdout), text(&expected));
    // Our options come before SOCKET, and `--` ends them.
    let mut command = bare(&daemon);
    command.args(["-n", "--null-stdin", "--"]).arg(daemon.socket()).args(&argv);
    assert_eq!(run(command).stdout, expected);
}

/// Under the name of 3.1.1's client it works the same way.
#[test]
fn the_old_name_works() {
    let daemon = Daemon::start("");
    let old = daemon.directory().join("sockexec.client");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sockexec-client"), &old).expect("a link");
    let mut command = std::process::Command::new(&old);
    command.arg(daemon.socket()).args(steps("out hello exit 3")).stdin(std::process::Stdio::null());
    let output = run(command);
    assert_eq!((text(&output.stdout), output.status.code()), ("hello", Some(3)));
    let mut command = bare(&daemon);
    command.arg0("sockexec.client").arg(daemon.socket());
    assert_eq!(run(command).status.code(), Some(100));
}

#[test]
fn the_socket_may_come_from_the_environment() {
    let daemon = Daemon::start("");
    let mut command = bare(&daemon);
    command.env("SOCKEXEC_SOCKET", daemon.socket()).arg("-").args(steps("out found"));
    assert_eq!(text(&run(command).stdout), "found");
    // A SOCKET argument wins, and an empty variable counts as unset.
    let mut command = fixture_client(&daemon, "out named");
    command.env("SOCKEXEC_SOCKET", "/nowhere");
    assert_eq!(text(&run(command).stdout), "named");
    let mut command = bare(&daemon);
    command.env("SOCKEXEC_SOCKET", "").arg("-").args(steps("out never"));
    let output = run(command);
    assert_eq!(output.status.code(), Some(100));
    assert!(text(&output.stderr).contains("SOCKEXEC_SOCKET"));
}

#[test]
fn an_unreachable_daemon_is_explained() {
    let daemon = Daemon::start("");
    let mut command = bare(&daemon);
    let missing = daemon.directory().join("missing");
    command.arg(&missing).arg("true");
    assert_lost(&run(command), &missing, "does the socket exist");

    let stale = daemon.directory().join("stale");
    stale_socket(&stale);
    let mut command = bare(&daemon);
    command.arg(&stale).arg("true");
    assert_lost(&run(command), &stale, "listen");

    let file = daemon.directory().join("file");
    std::fs::write(&file, "").expect("a file");
    let mut command = bare(&daemon);
    command.arg(&file).arg("true");
    assert_lost(&run(command), &file, "not a socket");

    let long = daemon.directory().join("x".repeat(200));
    let mut command = bare(&daemon);
    command.arg(&long).arg("true");
    assert_lost(&run(command), &long, "too long");

    let mut command = bare(&daemon);
    command.args(["", "true"]);
    let output = run(command);
    assert_eq!(output.status.code(), Some(111));
    // A variable of a script that is not set. It was said that the file exists.
    assert!(text(&output.stderr).contains("the path is empty"), "{}", text(&output.stderr));
}

/// The daemon's own exit codes, with its line on standard error.
#[test]
fn programs_that_cannot_start_have_their_codes() {
    let daemon = Daemon::start("");
    let output = run(client(&daemon, &["no-such-program"]));
    assert_eq!(output.status.code(), Some(127));
    assert!(text(&output.stderr).starts_with("sockexec: no-such-program: "), "{}", text(&output.stderr));
    let output = run(client(&daemon, &["/etc/passwd"]));
    assert_eq!(output.status.code(), Some(126));
    let output = run(client(&daemon, &[""]));
    assert_eq!(output.status.code(), Some(127));
}

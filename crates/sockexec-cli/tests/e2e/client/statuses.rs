//! The exit status of the command after an `error`: the table of docs/protocol.md, row by row.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};

use sockexec_proto::{ErrorCode, reply};

use super::fake::{Fake, INTRODUCTION, STARTED};
use super::{run, text};
use crate::common::Daemon;

/// The code, the exit pair that follows, and the command's exit status. A negative number is a
/// signal that ends it.
const ROWS: &[(&str, Option<&str>, i32)] = &[
    ("not-found", None, 127),
    ("not-executable", None, 126),
    ("denied", None, 126),
    ("forbidden", None, 126),
    ("busy", None, 125),
    ("spawn-failed", None, 125),
    ("internal", None, 125),
    ("bad-request", None, 111),
    ("timeout", None, 124),
    ("shutdown", None, 125),
    ("out-of-memory", None, 125),
    ("output-limit", None, 125),
    ("idle-timeout", None, 125),
    ("of-a-later-version", None, 125),
];

/// Codes of a program that was cut. Its own status counts, unless that is success.
const CUT: &[&str] = &["timeout", "shutdown", "out-of-memory", "output-limit", "idle-timeout", "of-a-later-version"];

const EXITS: &[(&str, i32)] = &[
    ("8:exitcode,1:0,", 124),
    ("8:exitcode,1:3,", 3),
    ("8:exitcode,3:124,", 124),
    ("7:termsig,2:15,", -15),
    ("7:termsig,1:9,", -9),
];

#[track_caller]
fn check(code: &str, exit: Option<&str>, expected: i32) {
    let mut reply = INTRODUCTION.to_vec();
    if exit.is_some() {
        reply.extend_from_slice(STARTED);
    }
    reply::encode_pair("error", format!("{code} the words").as_bytes(), &mut reply);
    reply.extend_from_slice(exit.unwrap_or_default().as_bytes());
    let fake = Fake::saying(&reply);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockexec-client"));
    command.args(["-n", "--usage"]).arg(fake.socket()).arg("program");
    let output = run(command);
    fake.join();
    assert_eq!(ended(&output), expected, "{code} {exit:?}: {}", text(&output.stderr));
    assert_eq!(text(&output.stderr), format!("sockexec-client: {code}: the words\n"));
}

fn ended(output: &Output) -> i32 {
    output.status.code().or(output.status.signal().map(|signal| -signal)).expect("an end")
}

#[test]
fn every_row_of_the_table_holds() {
    for (code, exit, expected) in ROWS {
        check(code, *exit, *expected);
    }
    for code in CUT {
        for (exit, expected) in EXITS {
            check(code, Some(exit), *expected);
        }
    }
    let has_row = |known: &ErrorCode| ROWS.iter().any(|(code, ..)| code.as_bytes() == known.as_bytes());
    for known in ErrorCode::KNOWN {
        assert!(has_row(known), "the code {known} has no row here");
    }
}

/// The rows that a real daemon can be made to produce.
#[test]
fn some_rows_hold_with_a_real_daemon() {
    let daemon = Daemon::start("");
    let cases: &[(&[&str], &str, i32)] = &[
        (&["--usage"], "no-such-program", 127),
        (&["-C", "/nowhere"], "true", 127),
        (&["--usage"], "/etc/passwd", 126),
    ];
    for (options, program, expected) in cases {
        let mut command = super::bare(&daemon);
        command.args(*options).arg(daemon.socket()).arg(program);
        let output = run(command);
        assert_eq!(ended(&output), *expected, "{options:?} {program:?}: {}", text(&output.stderr));
    }
}

/// The daemon is told to stop. Its programs are cut, and end as they like.
#[test]
fn a_shutdown_is_reported() {
    for (code, expected) in [(0, 124), (5, 5)] {
        let mut daemon = Daemon::start("-t 0 -k 60");
        let gate = daemon.gate("gate");
        let script = format!("trap 'exit {code}' TERM; read x <{}; while :; do sleep 0.01; done", gate.path());
        let mut command = super::bare(&daemon);
        command.arg("--usage").arg(daemon.socket()).args(["sh", "-c", &script]);
        let client = command.spawn().expect("the client starts");
        gate.open();
        daemon.terminate();
        let output = client.wait_with_output().expect("wait");
        assert_eq!(ended(&output), expected, "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("shutdown"), "{}", text(&output.stderr));
    }
}

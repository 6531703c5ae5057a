//! Questions to a daemon: `--ping` and `--status`.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use sockexec::client::{daemon_status, ping};
use sockexec::{Error, ErrorKind, Waiting};

use super::fake::{Fake, INTRODUCTION, Peer};
use super::{assert_lost, bare, run, text};
use crate::common::{Daemon, PATIENCE, full_backlog};

/// Long enough for a daemon that will never answer.
const MOMENT: Duration = Duration::from_millis(300);

/// What the command says of a daemon that has not got the processor yet, or is stopped.
const UNREAD: &str = "the daemon has not read the request";

fn asking(question: &str, socket: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockexec-client"));
    command.arg(question).arg(socket);
    command
}

/// The first of a few answers that does not say `late`: `--ping` waits for 0.9 s, in which a busy machine
/// may not run the daemon.
fn in_time(late: &str, ask: impl FnMut() -> Output) -> Output {
    let mut outputs = std::iter::repeat_with(ask).take(5);
    let is_in_time = |output: &Output| !text(&output.stderr).contains(late);
    outputs.find(is_in_time).expect("an answer in time")
}

/// Without output, and also beside a program in the only slot.
#[test]
fn a_daemon_that_serves_answers() {
    let daemon = Daemon::start("-t 0 -m 1");
    let mut running = daemon.exec(&crate::common::steps("out ready wait"));
    running.wait_for("ready");
    let mut asked = 0;
    let output = in_time("no answer in time", || {
        asked += 1;
        let mut command = bare(&daemon);
        command.arg("--ping").arg(daemon.socket());
        run(command)
    });
    assert_eq!((output.status.code(), text(&output.stdout), text(&output.stderr)), (Some(0), "", ""));
    ping(daemon.socket(), PATIENCE).expect("it serves");
    let status: serde_json::Value =
        serde_json::from_str(&daemon_status(daemon.socket(), PATIENCE).expect("a status")).expect("JSON");
    assert!((2..=asked + 1).contains(&status["totals"]["pings"].as_u64().expect("a number")), "{status}");
}

#[test]
fn no_daemon() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("sock");
    assert_lost(&run(asking("--ping", &socket)), &socket, "cannot connect");
    assert_eq!(ping(&socket, PATIENCE).expect_err("no daemon").kind(), ErrorKind::Connect);
}

/// The kernel takes the connection and the request, and nobody reads it.
#[test]
fn a_stopped_daemon_is_explained() {
    let daemon = Daemon::start("");
    daemon.stop();
    for question in ["--ping", "--status"] {
        let output = run(asking(question, daemon.socket()));
        assert_lost(&output, daemon.socket(), &format!("no answer in time: {UNREAD}; is it stopped?"));
    }
    let error = ping(daemon.socket(), MOMENT).expect_err("no answer");
    assert!(matches!(error, Error::NoAnswer(Waiting::Answer { read: Some(false) })), "{error:?}");
    daemon.signal(Signal::CONT);
    ping(daemon.socket(), PATIENCE).expect("it serves again");
}

#[test]
fn a_full_backlog_is_explained() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sock");
    let _full = full_backlog(&path);
    assert_lost(&run(asking("--ping", &path)), &path, "no room for another connection");
    let error = daemon_status(&path, MOMENT).expect_err("no answer");
    assert!(matches!(error, Error::NoAnswer(Waiting::Connection)), "{error:?}");
}

/// The daemon reads the question and answers with nothing, too little, or something else.
#[test]
fn other_answers_are_explained() {
    // As 3.1.1 does, or a daemon that is stuck.
    for answer in [&b""[..], INTRODUCTION] {
        let mut socket = PathBuf::new();
        let output = in_time(UNREAD, || {
            let fake = Fake::new(move |mut peer| {
                // The client may have left before that.
                let _ = peer.try_say(answer);
                peer.read_to_the_end();
            });
            socket = fake.socket();
            let output = run(asking("--ping", &socket));
            fake.join();
            output
        });
        assert_lost(&output, &socket, "no answer in time: the daemon has read the request");
    }
    let says = |reply: &'static [u8]| {
        move |mut peer: Peer| {
            peer.drain();
            // The client may have left before that.
            let _ = peer.try_say(reply);
        }
    };
    let cases: &[(&'static [u8], &str, ErrorKind)] = &[
        (b"", "without an answer", ErrorKind::Lost),
        (b"6:stderr,12:sockexec: no,8:exitcode,3:125,", "does not speak version 2", ErrorKind::Unsupported),
        (b"8:protocol,14:1 window=65536,", "does not speak version 2", ErrorKind::Unsupported),
        (b"4:news,0:,", "does not speak version 2", ErrorKind::Unsupported),
        (b"8:protocol,14:2 win", "in the middle of its reply", ErrorKind::Lost),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "breaks the protocol", ErrorKind::Protocol),
        (b"8:protocol,1:2,5:error,17:busy too many ask,", "too many ask", ErrorKind::Busy),
    ];
    for (reply, words, kind) in cases {
        let mut socket = PathBuf::new();
        let output = in_time("no answer in time", || {
            let fake = Fake::new(says(reply));
            socket = fake.socket();
            run(asking("--ping", &socket))
        });
        assert_lost(&output, &socket, words);
        let fake = Fake::new(says(reply));
        assert_lost(&run(asking("--status", &fake.socket())), &fake.socket(), words);
        let fake = Fake::new(says(reply));
        assert_eq!(ping(fake.socket(), PATIENCE).expect_err("no answer").kind(), *kind);
    }
}

/// Pairs of later versions are skipped. They used to end the reading.
#[test]
fn unknown_pairs_are_skipped() {
    let reply: &[u8] = b"8:protocol,8:2 mood=x,4:news,3:abc,4:news,0:,6:status,12:{\"news\": \"\"},4:news,1:x,";
    let fake = Fake::new(move |mut peer| {
        peer.drain();
        peer.say(reply);
    });
    assert_eq!(daemon_status(fake.socket(), PATIENCE).expect("a status"), "{\"news\": \"\"}");
    fake.join();
    let fake = Fake::new(move |mut peer| {
        peer.drain();
        peer.say(b"8:protocol,1:2,4:news,3:abc,4:news,0:,");
    });
    ping(fake.socket(), PATIENCE).expect("it serves");
    fake.join();
}

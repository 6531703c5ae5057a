//! Replies of sockexec 3.1.1, byte for byte, and others that no daemon should send, played by a
//! fake daemon.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use sockexec::Error;

use super::fake::Fake;
use super::{assert_lost, text};

/// Sends one reply to one client, once all of its request has come.
fn paper(reply: &[u8]) -> Fake {
    let reply = reply.to_vec();
    Fake::new(move |mut peer| {
        // All requests here end with an empty standard input.
        peer.until(b",0:,");
        peer.say(&reply);
    })
}

/// What the command makes of a reply.
#[track_caller]
fn command(reply: &[u8]) -> (Output, PathBuf) {
    let paper = paper(reply);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockexec-client"));
    command.arg(paper.socket()).args(["program", "argument"]).stdin(Stdio::null());
    let output = command.output().expect("the client starts");
    let socket = paper.socket();
    paper.join();
    (output, socket)
}

/// What the library makes of a reply.
#[track_caller]
fn library(reply: &[u8]) -> Result<sockexec::Output, Error> {
    let paper = paper(reply);
    let result = sockexec::Command::new(paper.socket(), "program").arg("argument").output();
    paper.join();
    result
}

/// The exit pair before the output, in the middle of it, or twice, and a tag that no program has.
#[test]
fn misplaced_exit_pairs_of_3_1_1_are_understood() {
    for (reply, stdout, stderr, code) in [
        (&b"6:stdout,5:hello,8:exitcode,1:0,"[..], "hello", "", 0),
        (b"8:exitcode,1:0,6:stdout,5:hello,", "hello", "", 0),
        (b"8:exitcode,1:0,7:unknown,5:hello,6:stdout,5:hello,8:exitcode,1:0,", "hello", "", 0),
        (b"6:stdout,4:out\n,8:exitcode,1:3,6:stderr,4:err\n,", "out\n", "err\n", 3),
        (
            b"8:exitcode,1:3,7:unknown,4:out\n,7:unknown,4:err\n,6:stdout,4:out\n,6:stderr,4:err\n,8:exitcode,1:3,",
            "out\n",
            "err\n",
            3,
        ),
        (b"8:exitcode,1:4,7:unknown,6:early\n,8:exitcode,1:4,6:stdout,6:early\n,", "early\n", "", 4),
    ] {
        let (output, _) = command(reply);
        assert_eq!((text(&output.stdout), text(&output.stderr)), (stdout, stderr), "{}", reply.escape_ascii());
        assert_eq!(output.status.code(), Some(code), "{}", reply.escape_ascii());
        let output = library(reply).expect("a status");
        assert_eq!((text(&output.stdout), text(&output.stderr)), (stdout, stderr), "{}", reply.escape_ascii());
        assert_eq!(output.status.code(), Some(code), "{}", reply.escape_ascii());
    }
}

/// `termsig` as a name, which 3.1.1's own client did not take for a signal.
#[test]
fn names_of_signals_of_3_1_1_are_understood() {
    for (reply, stdout, signal) in [
        (&b"7:termsig,4:TERM,"[..], "", 15),
        (b"7:termsig,4:TERM,7:termsig,4:TERM,", "", 15),
        (b"7:termsig,4:ABRT,", "", 6),
        (b"7:termsig,4:KILL,6:stdout,5:last\n,", "last\n", 9),
        (b"7:termsig,4:KILL,7:unknown,5:last\n,6:stdout,5:last\n,7:termsig,4:KILL,", "last\n", 9),
    ] {
        let (output, _) = command(reply);
        assert_eq!((text(&output.stdout), output.status.signal()), (stdout, Some(signal)));
        assert_eq!(library(reply).expect("a status").status.signal(), Some(signal));
    }
}

/// 3.1.1 has no name for a real-time signal. It must not look like success.
#[test]
fn a_signal_without_a_name_is_no_success() {
    let reply = b"7:termsig,3:???,";
    let (output, _) = command(reply);
    assert_eq!(output.status.code(), Some(128));
    assert!(text(&output.stderr).contains("did not say which"), "{}", text(&output.stderr));
    let status = library(reply).expect("a status").status;
    assert_eq!((status.success(), status.code(), status.signal()), (false, None, None));
}

/// 3.1.1 just closes the connection if it cannot start a program.
#[test]
fn a_close_without_a_status_is_an_error() {
    let (output, socket) = command(b"");
    assert_lost(&output, &socket, "without an answer");
    let error = library(b"").expect_err("no status");
    assert!(matches!(error, Error::Lost { received: 0, within_pair: false, source: None, .. }), "{error:?}");

    let (output, socket) = command(b"6:stdout,5:hello,");
    assert_lost(&output, &socket, "before it reported how the program ended");
    assert_eq!(text(&output.stdout), "hello");
    let error = library(b"6:stdout,5:hello,").expect_err("no status");
    assert!(matches!(error, Error::Lost { received: 17, within_pair: false, source: None, .. }), "{error:?}");
}

/// A cut at any byte is never a success, and always the same error.
#[test]
fn a_reply_that_breaks_off_is_an_error() {
    let reply = b"6:stdout,5:hello,6:stderr,1:x,8:exitcode,1:0,";
    for len in 0..reply.len() {
        let error = library(&reply[..len]).expect_err("no status");
        let boundary = [0, 17, 30].contains(&len);
        match error {
            Error::Lost { received, within_pair, source: None, .. } => {
                assert_eq!((usize::try_from(received), within_pair), (Ok(len), !boundary));
            }
            error => panic!("{len}: {error:?}"),
        }
    }
    // Nor is one after a status that came too early: output is missing.
    let error = library(b"8:exitcode,1:0,6:stdout,5:hel").expect_err("output is missing");
    assert!(matches!(error, Error::Lost { within_pair: true, .. }), "{error:?}");
    let (output, socket) = command(b"8:exitcode,1:0,6:stdout,5:hel");
    assert_lost(&output, &socket, "in the middle of its reply");
}

/// The error says at which byte the netstring or the status is wrong.
#[test]
fn a_reply_that_breaks_the_protocol_is_an_error() {
    for (reply, offset) in [
        (&b"HTTP/1.1 400 Bad Request\r\n"[..], 0),
        (b"6:stdout,5:hello;", 16),
        (b"6:stdout,05:hello,", 10),
        (b"6:stdout,5:hello,8:exitcode,3:256,", 30),
        (b"8:exitcode,1:x,", 13),
        (b"7:termsig,1:0,", 12),
    ] {
        match library(reply).expect_err("no status") {
            Error::Protocol(fault) => assert_eq!(fault.offset, offset, "{fault}"),
            error => panic!("{}: {error:?}", reply.escape_ascii()),
        }
        let (output, socket) = command(reply);
        assert_lost(&output, &socket, &format!("at byte {offset}"));
    }
}

//! Output of a program that was cut. A deadline, a limit and a lost connection used to lose all of
//! it.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use sockexec::{Command, Error, ErrorKind, Output, PartialOutput, Stdio, Version, tokio};

use super::fake::{Fake, INTRODUCTION, STARTED};
use super::library::command;
use crate::common::{Daemon, PATIENCE};

/// The ways that collect output.
const WAYS: [fn(Command) -> Result<Output, Error>; 4] = [
    |mut command| command.output(),
    |mut command| {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().and_then(sockexec::Child::wait_with_output)
    },
    |command| super::futures::runtime().block_on(async { tokio::Command::from(command).output().await }),
    |command| {
        super::futures::runtime().block_on(async {
            let mut command = tokio::Command::from(command);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().await?.wait_with_output().await
        })
    },
];

/// The same run in each way.
#[track_caller]
fn every_way(make: &dyn Fn() -> Command) -> Vec<Error> {
    WAYS.iter().map(|way| way(make()).expect_err("no status")).collect()
}

/// The same run in each way, with a limit that must find the output `begun` and `oops`. On a slow machine
/// the time may be up before. Then the way is tried again with more time.
#[track_caller]
fn every_way_in_time(make: &dyn Fn(Duration) -> Command) -> Vec<Error> {
    let in_time = |way: &fn(Command) -> Result<Output, Error>| {
        let mut errors =
            [1, 5, 25].iter().map(|&seconds| way(make(Duration::from_secs(seconds))).expect_err("no status"));
        let is_whole = |error: &Error| {
            error.output().is_some_and(|PartialOutput { stdout, stderr, .. }| stdout == b"begun" && stderr == b"oops")
        };
        errors.find(is_whole).expect("output that came in time, and is kept")
    };
    WAYS.iter().map(in_time).collect()
}

#[track_caller]
fn assert_partial(error: &Error, stdout: &[u8], stderr: &[u8]) {
    let Some(PartialOutput { stdout: out, stderr: err, .. }) = error.output() else { panic!("none: {error:?}") };
    assert_eq!((out.as_slice(), err.as_slice()), (stdout, stderr), "{error:?}");
}

/// A deadline that the daemon enforces.
#[test]
fn a_deadline_keeps_the_output() {
    let daemon = Daemon::start("-t 0");
    let deadline = |time| {
        let mut command = command(&daemon, "out begun err oops wait");
        command.daemon_timeout(time).stdin(Stdio::null());
        command
    };
    for error in every_way_in_time(&deadline) {
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let shown = format!("{error:?}");
        assert!(shown.contains("\"begun\"") && shown.contains("code: timeout"), "{shown}");
    }
}

/// A limit that the client enforces.
#[test]
fn a_limit_keeps_the_output() {
    for version in [Version::One, Version::Two] {
        let said: &'static [u8] = match version {
            Version::One => b"6:stdout,5:begun,6:stderr,4:oops,",
            Version::Two => b"8:protocol,14:2 window=65536,7:started,1:7,6:stdout,5:begun,6:stderr,4:oops,",
        };
        // A daemon for each way.
        let fakes = std::sync::Mutex::new(Vec::new());
        let limit = |time| {
            let fake = Fake::new(move |mut peer| {
                peer.until(b"7:program,");
                // The client may have left before that.
                let _ = peer.try_say(said);
                peer.read_to_the_end();
            });
            let mut command = Command::new(fake.socket(), "program");
            command.version(version).stdin(Stdio::null()).client_timeout(time);
            fakes.lock().expect("no panic").push(fake);
            command
        };
        for error in every_way_in_time(&limit) {
            assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
        }
        fakes.into_inner().expect("no panic").into_iter().for_each(Fake::join);
    }
}

/// The client closes the connection, which is all that `kill` can do in version 1. It used to lose
/// the output.
#[test]
fn a_kill_keeps_the_output() {
    let daemon = Daemon::start("-t 0");
    for version in [Version::One, Version::Two] {
        let start = || {
            let mut command = command(&daemon, "out begun err oops wait");
            command.version(version).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        };
        let mut child = start().spawn().expect("it starts");
        wait_for(child.stdout.as_ref().expect("a pipe"));
        wait_for(child.stderr.as_ref().expect("a pipe"));
        child.disconnect();
        let error = child.wait_with_output().expect_err("no status");
        assert_eq!(error.kind(), ErrorKind::Killed);
        assert_partial(&error, b"begun", b"oops");

        let error = super::futures::runtime().block_on(async {
            let mut child = tokio::Command::from(start()).spawn().await.expect("it starts");
            wait_for(child.stdout.as_ref().expect("a pipe"));
            wait_for(child.stderr.as_ref().expect("a pipe"));
            child.disconnect();
            child.wait_with_output().await.expect_err("no status")
        });
        assert_partial(&error, b"begun", b"oops");
    }
}

/// Waits until there is something to read.
fn wait_for(pipe: &impl AsFd) {
    let timeout = Timespec::try_from(PATIENCE).expect("a time");
    let mut fds = [PollFd::new(pipe, PollFlags::IN)];
    let n = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout))).expect("poll");
    assert_eq!(n, 1, "nothing came");
}

#[test]
fn a_lost_connection_keeps_the_output() {
    let fakes = std::sync::Mutex::new(Vec::new());
    let lost = || {
        let fake = Fake::new(move |mut peer| {
            peer.until(b"7:program,");
            peer.pair();
            peer.say(&[INTRODUCTION, STARTED, b"6:stdout,5:begun,"].concat());
        });
        let mut command = Command::new(fake.socket(), "program");
        command.version(Version::Two).stdin(Stdio::null()).client_timeout(PATIENCE);
        fakes.lock().expect("no panic").push(fake);
        command
    };
    for error in every_way(&lost) {
        assert_eq!(error.kind(), ErrorKind::Lost);
        assert_partial(&error, b"begun", b"");
    }
}

#[test]
fn without_output_nothing_is_kept() {
    let daemon = Daemon::start("");
    let missing = || {
        let mut command = Command::new(daemon.socket(), "no-such-program");
        command.version(Version::Two).stdin(Stdio::null()).client_timeout(PATIENCE);
        command
    };
    for error in every_way(&missing) {
        assert_eq!((error.kind(), error.output()), (ErrorKind::NotFound, None));
    }
}

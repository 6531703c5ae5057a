//! What a client makes of the daemon's introduction, or of an answer without one.

use std::time::Duration;

use sockexec::{Command, Error, ErrorKind, Stdio, Version};

use super::fake::{EXIT, Fake, INTRODUCTION, STARTED};
use super::{bare, run, text};
use crate::common::{Daemon, PATIENCE, steps};
use crate::faults::strace::{self, Fault, Strace, Whom};

/// Longer than a daemon that has read the request may be silent.
const LONG: Duration = Duration::from_millis(2500);

fn command(fake: &Fake) -> Command {
    let mut command = Command::new(fake.socket(), "program");
    command.version(Version::Two).client_timeout(PATIENCE);
    command
}

/// Reads a reply to its end in each way that the library has.
#[track_caller]
fn results(reply: &[u8]) -> Vec<Result<sockexec::Output, Error>> {
    let with = |run: &dyn Fn(&Fake) -> Result<sockexec::Output, Error>| {
        let fake = Fake::saying(reply);
        let result = run(&fake);
        fake.join();
        result
    };
    vec![
        with(&|fake| command(fake).output()),
        with(&|fake| {
            let mut command = command(fake);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?.wait_with_output()
        }),
        with(&|fake| super::futures::runtime().block_on(sockexec::tokio::Command::from(command(fake)).output())),
    ]
}

/// There is no second mode for older alphas or anything else.
#[test]
fn replies_that_begin_otherwise_are_refused() {
    let replies: &[&[u8]] = &[
        // An older alpha.
        b"7:started,4:4711,6:stdout,2:hi,8:exitcode,1:0,",
        b"5:error,16:not-found no: no,",
        b"6:stdout,2:hi,8:protocol,14:2 window=65536,7:started,4:4711,8:exitcode,1:0,",
        b"8:exitcode,1:0,",
        b"6:status,2:{},",
        b"4:news,3:abc,8:protocol,14:2 window=65536,7:started,4:4711,8:exitcode,1:0,",
        b"4:news,0:,8:protocol,14:2 window=65536,7:started,4:4711,8:exitcode,1:0,",
        b"8:protocol,14:1 window=65536,7:started,4:4711,8:exitcode,1:0,",
        // Whatever else is missing.
        b"8:proto",
        b"6:stdo",
    ];
    for reply in replies {
        for result in results(reply) {
            let kind = result.expect_err("it does not speak version 2").kind();
            let expected = if *reply == b"8:proto" { ErrorKind::Lost } else { ErrorKind::Unsupported };
            assert_eq!(kind, expected, "{}", reply.escape_ascii());
        }
    }
}

/// The client leaves at once, before the program does work for nobody.
#[test]
fn an_older_alpha_is_left_at_once() {
    let fake = Fake::new(|mut peer| {
        peer.say(STARTED);
        // Silence of a daemon that has read nothing proves nothing.
        peer.wait_for_the_end();
    });
    assert_eq!(command(&fake).client_timeout(None).output().expect_err("not version 2").kind(), ErrorKind::Unsupported);
    fake.join();
}

/// A later version, fewer words, more words, and pairs of later versions.
#[test]
fn later_introductions_are_accepted() {
    for introduction in [
        INTRODUCTION,
        b"8:protocol,1:2,",
        b"8:protocol,35:3 mood=fine window=1000000 options=,",
        b"8:protocol,1:2,6:queued,2:17,4:news,3:abc,4:news,0:,6:status,2:{},",
    ] {
        for result in results(&[introduction, STARTED, b"6:stdout,2:hi,", EXIT].concat()) {
            let output = result.expect("a status");
            assert_eq!(output.stdout, b"hi", "{}", introduction.escape_ascii());
            assert!(output.status.success());
        }
    }
}

/// Only silence before the introduction means that the daemon has no version 2. The exec may take
/// its time (a network file system, a huge program), and so may a free slot. The client used to
/// fail with 111 then.
#[test]
fn after_the_introduction_a_daemon_may_take_its_time() {
    let slow = |words: &'static [u8]| {
        Fake::new(move |mut peer| {
            peer.request();
            assert!(peer.pair().1.is_empty());
            peer.say(words);
            assert!(peer.is_quiet(LONG), "the client did not wait");
            peer.say(&[STARTED, EXIT].concat());
        })
    };
    let [library, tokio, tool] =
        [INTRODUCTION, b"8:protocol,14:2 window=65536,6:queued,1:1,", b"8:protocol,14:2 window=65536,6:queued,1:1,"]
            .map(slow);
    std::thread::scope(|scope| {
        let by_library = scope.spawn(|| command(&library).output());
        let by_tokio = scope
            .spawn(|| super::futures::runtime().block_on(sockexec::tokio::Command::from(command(&tokio)).output()));
        let mut by_tool = std::process::Command::new(env!("CARGO_BIN_EXE_sockexec-client"));
        by_tool.args(["-n", "--usage"]).arg(tool.socket()).arg("program");
        let output = run(by_tool);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(by_library.join().expect("no panic").expect("a status").status.success());
        assert!(by_tokio.join().expect("no panic").expect("a status").status.success());
    });
    library.join();
    tool.join();
    tokio.join();
}

/// The same with a real daemon, whose execve(2) is slow.
#[test]
fn a_slow_exec_is_waited_for() {
    if !strace::is_usable() {
        return;
    }
    let daemon = Daemon::start("-t 0");
    let slow = format!("delay_enter={}", LONG.as_micros());
    let fault = Fault { call: "execve", error: &slow, when: "1+".to_owned() };
    let strace = Strace::inject(daemon.process(), Whom::Children, &fault);
    let mut command = bare(&daemon);
    command.args(["-n", "--usage"]).arg(daemon.socket()).args(steps("out late"));
    let output = run(command);
    assert_eq!((text(&output.stdout), output.status.code()), ("late", Some(0)), "{}", text(&output.stderr));
    let (calls, _) = strace.detach();
    assert!(calls.contains_key("execve"), "{calls:?}");
}

/// A deadline beyond the clock's range is no deadline.
#[test]
fn the_longest_deadline_is_none() {
    let daemon = Daemon::start("");
    let mut command = super::library::command(&daemon, "out ran");
    let output = command.daemon_timeout(Duration::MAX).output().expect("a status");
    assert_eq!(output.stdout, b"ran");
}

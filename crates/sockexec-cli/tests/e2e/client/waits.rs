//! A program that has not started yet: how long the client waits, what it tells a person, and why
//! there is no connection.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use sockexec::client::{daemon_status, ping};
use sockexec::{Error, ErrorKind, Version, Waiting};

use super::fake::{EXIT, Fake, INTRODUCTION, Peer, STARTED};
use super::tty::Person;
use super::{assert_lost, bare, run, text, wait};
use crate::common::{Client, Daemon, PATIENCE, eventually, full_backlog, stale_socket, steps};

/// Long enough for a daemon that does not go on.
const MOMENT: Duration = Duration::from_millis(300);

/// On a busy machine a daemon that goes on may not get the processor in the first of these times. A test
/// then tries the next one.
const TIMES: [Duration; 4] = [MOMENT, SHORTER, SHORTER, SHORTER];

/// Shorter than the silence after which the client takes a daemon for one without version 2.
const SHORTER: Duration = Duration::from_millis(1300);

/// What the client says of a daemon that has not got the processor yet, or is stopped.
const UNREAD: Waiting = Waiting::Answer { read: Some(false) };

/// Runs the command with `--wait`, and asserts that its program does not start, for this reason.
#[track_caller]
fn assert_waits_in_vain(mut run_at: impl FnMut(&dyn Fn(&Path) -> Output) -> (PathBuf, Output), words: &str) {
    let waits = |time: Duration| {
        move |socket: &Path| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sockexec-client"));
            command.args(["-n", "--wait", &time.as_secs_f64().to_string()]).arg(socket).arg("program");
            run(command)
        }
    };
    let mut ends = TIMES.iter().map(|&time| run_at(&waits(time)));
    let is_in_time = |(_, output): &(PathBuf, Output)| {
        let said = text(&output.stderr);
        said.contains(words) || !said.contains("the daemon has not read the request")
    };
    let (socket, output) = ends.find(is_in_time).expect("a daemon that reads the request in time");
    assert_lost(&output, &socket, words);
}

/// The same for a socket that is there all the time.
#[track_caller]
fn assert_waits_in_vain_at(socket: &Path, words: &str) {
    assert_waits_in_vain(|run| (socket.to_owned(), run(socket)), words);
}

/// Runs the program in each way that the library has, and asserts that it does not start, for this
/// reason.
#[track_caller]
fn assert_not_started(socket: &Path, is_expected: impl Fn(Waiting) -> bool) {
    let command = |time| {
        let mut command = sockexec::Command::new(socket, "program");
        command.start_timeout(time).stdin(sockexec::Stdio::null()).client_timeout(PATIENCE);
        command
    };
    let ways: [&dyn Fn(Duration) -> Error; 3] = [
        &|time| command(time).status().expect_err("nothing starts"),
        &|time| command(time).spawn().expect_err("nothing starts"),
        &|time| {
            let mut command = sockexec::tokio::Command::from(command(time));
            super::futures::runtime().block_on(command.status()).expect_err("nothing starts")
        },
    ];
    for way in ways {
        let mut errors = TIMES.iter().map(|&time| way(time));
        let is_in_time =
            |error: &Error| is_expected(UNREAD) || !matches!(error, Error::NotStarted(waiting) if *waiting == UNREAD);
        let error = errors.find(is_in_time).expect("a daemon that reads the request in time");
        assert!(matches!(error, Error::NotStarted(waiting) if is_expected(waiting)), "{error:?}");
        assert_eq!(
            (error.kind(), std::io::Error::from(error).kind()),
            (ErrorKind::NotStarted, std::io::ErrorKind::TimedOut)
        );
    }
}

fn stopped() -> Daemon {
    let daemon = Daemon::start("");
    daemon.stop();
    daemon
}

/// A daemon whose only slot is taken by this program.
fn busy() -> (Daemon, Client) {
    let daemon = Daemon::start("-t 0 -m 1");
    let mut running = daemon.exec(&steps("out ready cat"));
    running.wait_for("ready");
    (daemon, running)
}

#[test]
fn a_stopped_daemon_is_explained() {
    let daemon = stopped();
    assert_waits_in_vain_at(daemon.socket(), "start in time: the daemon has not read the request");
    assert_not_started(daemon.socket(), |waiting| waiting == UNREAD);
    daemon.signal(Signal::CONT);
    ping(daemon.socket(), PATIENCE).expect("it serves again");
}

#[test]
fn a_wait_for_a_slot_is_explained() {
    let (mut daemon, mut running) = busy();
    assert_waits_in_vain_at(daemon.socket(), "all slots are taken, and this request waits for one");
    // The daemon may not know yet that the client before has gone.
    assert_not_started(daemon.socket(), |waiting| matches!(waiting, Waiting::Slot { requests: 1 | 2 }));
    running.end_stdin();
    assert_eq!(running.reply().code(), 0);
    daemon.assert_serves();
}

#[test]
fn a_full_backlog_is_explained() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sock");
    let _full = full_backlog(&path);
    assert_waits_in_vain_at(&path, "no room for another connection");
    assert_not_started(&path, |waiting| waiting == Waiting::Connection);
}

#[test]
fn an_exec_that_takes_too_long_is_given_up() {
    let play = |mut peer: Peer| {
        peer.request();
        // The client may have left before that.
        let _ = peer.try_say(INTRODUCTION);
        peer.read_to_the_end();
    };
    assert_waits_in_vain(|run| beside(Fake::new(play), run), "has not executed the program yet");
}

#[test]
fn a_silent_daemon_is_explained() {
    let play = |mut peer: Peer| {
        peer.request();
        peer.read_to_the_end();
    };
    assert_waits_in_vain(|run| beside(Fake::new(play), run), "has read the request and says nothing");
}

/// Runs it with a fake daemon.
#[track_caller]
fn beside(fake: Fake, run: &dyn Fn(&Path) -> Output) -> (PathBuf, Output) {
    let (socket, output) = (fake.socket(), run(&fake.socket()));
    fake.join();
    (socket, output)
}

/// It is a limit for the start. The program may take its time.
#[test]
fn a_program_that_has_started_has_no_limit() {
    const LIMIT: Duration = Duration::from_secs(5);
    let slow = || {
        Fake::new(|mut peer| {
            peer.request();
            peer.say(&[INTRODUCTION, STARTED].concat());
            peer.pair();
            assert!(peer.is_quiet(LIMIT + MOMENT), "the client did not wait");
            peer.say(EXIT);
        })
    };
    let (blocking, tokio) = (slow(), slow());
    let command = |fake: &Fake| {
        let mut command = sockexec::Command::new(fake.socket(), "program");
        command.start_timeout(LIMIT).stdin(sockexec::Stdio::null());
        command
    };
    std::thread::scope(|scope| {
        let blocking = scope.spawn(|| command(&blocking).status());
        let tokio = super::futures::runtime().block_on(sockexec::tokio::Command::from(command(&tokio)).status());
        assert!(tokio.expect("a status").success());
        assert!(blocking.join().expect("no panic").expect("a status").success());
    });
    blocking.join();
    tokio.join();
}

/// A limit that is over before the first attempt to connect was blamed on the backlog, which had
/// room.
#[test]
fn a_limit_that_is_over_at_once() {
    let daemon = stopped();
    let nothing = Duration::from_nanos(1);
    let command = || {
        let mut command = sockexec::Command::new(daemon.socket(), "program");
        command.start_timeout(nothing).stdin(sockexec::Stdio::null());
        command
    };
    let runtime = super::futures::runtime();
    for error in [
        command().status().expect_err("nothing starts"),
        runtime.block_on(sockexec::tokio::Command::from(command()).status()).expect_err("nothing starts"),
    ] {
        assert!(matches!(error, Error::NotStarted(Waiting::Answer { read: Some(false) })), "{error:?}");
    }
    for error in [
        ping(daemon.socket(), nothing).expect_err("no answer"),
        runtime.block_on(sockexec::tokio::ping(daemon.socket(), nothing)).expect_err("no answer"),
    ] {
        assert!(matches!(error, Error::NoAnswer(Waiting::Answer { read: Some(false) })), "{error:?}");
    }
}

/// No time at all is a mistake, and named as one.
#[test]
fn no_time_at_all() {
    let daemon = Daemon::start("");
    let runtime = super::futures::runtime();
    let socket = daemon.socket();
    for error in [
        ping(socket, Duration::ZERO).expect_err("no time"),
        daemon_status(socket, Duration::ZERO).expect_err("no time"),
        runtime.block_on(sockexec::tokio::ping(socket, Duration::ZERO)).expect_err("no time"),
        runtime.block_on(sockexec::tokio::daemon_status(socket, Duration::ZERO)).expect_err("no time"),
    ] {
        assert_eq!(error.kind(), ErrorKind::BadRequest, "{error:?}");
        assert!(error.to_string().contains("the time to wait for an answer is zero"), "{error}");
    }
    for option in ["--wait", "--timeout"] {
        for time in ["0", "0.0", "1e-300", "-1", "soon"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sockexec-client"));
            command.arg(format!("{option}={time}")).arg(socket).arg("true");
            let output = run(command);
            assert_eq!((output.status.code(), text(&output.stdout)), (Some(100), ""), "{output:?}");
            let said = text(&output.stderr);
            assert!(said.contains(option) && said.contains("must be a positive number of seconds"), "{said}");
        }
    }
}

/// Version 1 of the protocol does not report the start.
#[test]
fn needs_version_2() {
    let mut command = sockexec::Command::new("/nowhere", "program");
    command.start_timeout(MOMENT).version(Version::One);
    assert_eq!(command.status().expect_err("an option of version 2").kind(), ErrorKind::BadRequest);
}

/// At a terminal a wait is reported once. The daemon says at once that there is no slot.
#[test]
fn a_person_is_told() {
    let (daemon, mut running) = busy();
    let mut person = Person::new();
    let mut command = bare(&daemon);
    command.args(["-n", "--usage"]).arg(daemon.socket()).args(steps("err ran"));
    person.sit_at(&mut command);
    let mut child = command.stdin(Stdio::null()).spawn().expect("the client starts");
    person.sees("waiting: all slots are taken");
    running.end_stdin();
    assert_eq!(running.reply().code(), 0);
    let between = person.sees("ran");
    assert!(!between.contains("waiting"), "{between}");
    assert!(wait(&mut child).success());
}

/// Two seconds of silence, with and without an option of version 2.
#[test]
fn a_person_is_told_about_silence() {
    let daemon = stopped();
    let mut person = Person::new();
    let mut command = bare(&daemon);
    command.args(["-n", "--usage"]).arg(daemon.socket()).args(steps("err ran"));
    person.sit_at(&mut command);
    let mut child = command.spawn().expect("the client starts");
    person.sees("waiting: the daemon has not read the request; is it stopped?");
    daemon.signal(Signal::CONT);
    person.sees("ran");
    assert!(wait(&mut child).success());
}

/// Without a terminal, only the program writes to standard error.
#[test]
fn without_a_terminal_nobody_is_told() {
    let (daemon, mut running) = busy();
    let mut command = bare(&daemon);
    command.args(["-n", "--usage"]).arg(daemon.socket()).args(steps("out ran"));
    let child = command.spawn().expect("the client starts");
    eventually("a request that waits", || {
        let status = daemon_status(daemon.socket(), PATIENCE).expect("a status");
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        status["totals"]["waiting"] == 1
    });
    running.end_stdin();
    assert_eq!(running.reply().code(), 0);
    let output = child.wait_with_output().expect("an output");
    assert_eq!(text(&output.stdout), "ran");
    assert!(!text(&output.stderr).contains("waiting"), "{}", text(&output.stderr));
}

/// The library reports it once for each run.
#[test]
fn the_library_tells_its_caller() {
    let (daemon, mut running) = busy();
    let told = Arc::new(Mutex::new(Vec::new()));
    let command = || {
        let told = Arc::clone(&told);
        let mut command = super::library::command(&daemon, "out ran");
        command.version(Version::Two).client_timeout(PATIENCE);
        command.on_wait(move |waiting| told.lock().expect("no panic").push(waiting));
        command
    };
    let told = || told.lock().expect("no panic").clone();
    std::thread::scope(|scope| {
        let blocking = scope.spawn(|| command().output());
        eventually("the first is told", || told() == [Waiting::Slot { requests: 1 }]);
        let tokio =
            scope.spawn(|| super::futures::runtime().block_on(sockexec::tokio::Command::from(command()).output()));
        eventually("the second is told", || told().len() == 2);
        assert_eq!(told()[1], Waiting::Slot { requests: 2 });
        running.end_stdin();
        assert_eq!(running.reply().code(), 0);
        assert_eq!(blocking.join().expect("no panic").expect("a status").stdout, b"ran");
        assert_eq!(tokio.join().expect("no panic").expect("a status").stdout, b"ran");
    });
    assert_eq!(told().len(), 2);
    assert_eq!(command().output().expect("a status").stdout, b"ran");
    assert_eq!(told().len(), 2);
}

/// Each has its own message, whatever the question.
#[test]
fn every_failed_connection_is_explained() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("file"), "").expect("a file");
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a FIFO");
    stale_socket(&at("stale"));
    let long = at(&"x".repeat(200));
    let len = format!("the path is too long: {} bytes, but a socket's has at most 107; use", long.as_os_str().len());
    let cases = [
        (directory.path().to_owned(), "it is a directory; give the path of the socket in it"),
        (at("file"), "it is a file, not a socket"),
        (at("fifo"), "it is a file, not a socket"),
        (at("stale"), "does a daemon (sockexec) listen on it?"),
        (at("missing"), "does the socket exist"),
        (long, &len),
    ];
    for (path, message) in &cases {
        for arguments in [&["--ping"][..], &["--status"], &["-n"], &["-n", "--usage"]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sockexec-client"));
            command.args(arguments).arg(path);
            if arguments[0] == "-n" {
                command.arg("program");
            }
            assert_lost(&run(command), path, message);
        }
        let error = super::futures::runtime().block_on(sockexec::tokio::Command::new(path, "program").status());
        let error = error.expect_err("no daemon");
        assert!(error.kind() == ErrorKind::Connect && error.to_string().contains(message), "{error}");
    }
}

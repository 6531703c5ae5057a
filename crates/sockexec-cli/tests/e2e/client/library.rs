//! The library: runs to the end, streams, and errors.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use sockexec::{Command, Error, Stdio};

use crate::common::{Daemon, PATIENCE, eventually, fixture, full_backlog, steps};

/// A command for the fixture with these steps.
pub(super) fn command(daemon: &Daemon, words: &str) -> Command {
    let argv = steps(words);
    let mut command = Command::new(daemon.socket(), fixture());
    command.args(&argv[1..]).client_timeout(PATIENCE);
    command
}

#[test]
fn output_of_both_streams_and_a_code() {
    let daemon = Daemon::start("");
    let output = command(&daemon, "out hello err oops exit 3").output().expect("a status");
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"hello"[..], &b"oops"[..]));
    assert_eq!((output.status.code(), output.status.signal()), (Some(3), None));
    let output = command(&daemon, "die 15").output().expect("a status");
    assert_eq!((output.status.code(), output.status.signal()), (None, Some(15)));
    assert_eq!(output.status.to_string(), "signal: 15 (SIGTERM)");
}

/// Standard input of `output` is empty unless one is set. A command can run again.
#[test]
fn input_may_come_from_memory() {
    let daemon = Daemon::start("");
    assert_eq!(command(&daemon, "verify").output().expect("a status").stdout, b"ok 0\n");
    for len in [0, 1, 65_535, 65_536, 65_537, 5_000_000] {
        let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
        let mut cat = command(&daemon, "cat");
        cat.stdin_bytes(bytes.clone());
        for _ in 0..2 {
            assert!(cat.output().expect("a status").stdout == bytes, "{len} bytes");
        }
    }
    // More than the program reads.
    let output = command(&daemon, "read 10 exit 7").stdin_bytes(vec![0; 8 << 20]).output().expect("a status");
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn files_as_streams() {
    let daemon = Daemon::start("");
    let path = |name| daemon.directory().join(name);
    std::fs::write(path("in"), "from a file").expect("a file");
    let status = command(&daemon, "cat err oops")
        .stdin(File::open(path("in")).expect("a file"))
        .stdout(File::create(path("out")).expect("a file"))
        .stderr(File::create(path("err")).expect("a file"))
        .status()
        .expect("a status");
    assert!(status.success());
    assert_eq!(std::fs::read_to_string(path("out")).expect("text"), "from a file");
    assert_eq!(std::fs::read_to_string(path("err")).expect("text"), "oops");
    // Output that went elsewhere is not in `Output`.
    let output = command(&daemon, "out x err y")
        .stdout(File::create(path("out")).expect("a file"))
        .stderr(Stdio::null())
        .output()
        .expect("a status");
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
    assert_eq!(std::fs::read_to_string(path("out")).expect("text"), "x");
}

/// Without a child nobody has the other end of a pipe, so it is as if there were none.
#[test]
fn pipes_without_a_child_are_null() {
    let daemon = Daemon::start("");
    let mut verify = command(&daemon, "verify write-out 1000000");
    verify.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    assert!(verify.status().expect("a status").success());
    assert!(verify.output().expect("a status").stdout.starts_with(b"ok 0\n"));
}

#[test]
fn arguments_with_nul() {
    let daemon = Daemon::start("");
    let error = Command::new(daemon.socket(), "true").arg("fine").arg("a\0b").output().expect_err("refused");
    assert!(matches!(error, Error::InvalidArgument(2)), "{error:?}");
    assert_eq!(error.to_string(), "argument 2 holds a NUL byte");
    assert_eq!(std::io::Error::from(error).kind(), ErrorKind::InvalidInput);
    let error = Command::new(daemon.socket(), "\0").output().expect_err("refused");
    assert!(matches!(error, Error::InvalidArgument(0)), "{error:?}");
}

#[test]
fn no_daemon() {
    let daemon = Daemon::start("");
    let missing = daemon.directory().join("missing");
    match Command::new(&missing, "true").output().expect_err("no daemon") {
        Error::Connect(path, error) => assert_eq!((path, error.kind()), (missing, ErrorKind::NotFound)),
        error => panic!("{error:?}"),
    }
    let file = daemon.directory().join("file");
    std::fs::write(&file, "").expect("a file");
    match Command::new(&file, "true").spawn().expect_err("no daemon") {
        Error::Connect(path, error) => assert_eq!((path, error.kind()), (file, ErrorKind::ConnectionRefused)),
        error => panic!("{error:?}"),
    }
}

/// An error shown with its sources used to name the cause twice.
#[test]
fn a_cause_is_shown_once() {
    let daemon = Daemon::start("");
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    for error in [
        Command::new("/nowhere/sock", "true").output().expect_err("no daemon"),
        command(&daemon, "out x").stdout(full).status().expect_err("a full disk"),
    ] {
        let words = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            assert!(!words.contains(&cause.to_string()), "{cause} is in {words}");
            source = cause.source();
        }
        // The source is shown, and code can find it.
        let (Error::Connect(_, cause) | Error::Output(_, cause)) = &error else { panic!("{error:?}") };
        assert!(words.contains(&cause.to_string()), "{words}");
    }
}

/// When the time is over, the program ends, whatever it does.
#[test]
fn a_timeout_ends_the_program() {
    let daemon = Daemon::start("-t 0");
    for words in ["wait", "flood", "cat"] {
        let mut command = command(&daemon, words);
        // It would run for ever.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        command.stdin(reader).stdout(Stdio::null()).client_timeout(Duration::from_millis(300));
        let error = command.status().expect_err("no status");
        assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
        drop(writer);
        eventually("the end of the program", || daemon.process().children() == (0, 0));
    }
}

/// A full daemon does not keep its clients beyond their timeout.
#[test]
fn a_timeout_ends_the_wait_in_the_backlog() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sock");
    let _full = full_backlog(&path);
    let error = Command::new(&path, "true").client_timeout(Duration::from_millis(50)).output().expect_err("full");
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
}

/// A reader that is gone is an error, and the program ends.
#[test]
fn a_reader_that_is_gone_ends_the_program() {
    let daemon = Daemon::start("-t 0");
    let mut life = daemon.fifo("life");
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = command(&daemon, &format!("hold {} flood", life.path()));
    command.stdout(writer);
    let thread = std::thread::spawn(move || command.status());
    reader.read_exact(&mut [0; 1000]).expect("some of the flood");
    drop(reader);
    match thread.join().expect("no panic").expect_err("no status") {
        Error::Output(sockexec::Stream::Stdout, error) => assert_eq!(error.kind(), ErrorKind::BrokenPipe),
        error => panic!("{error:?}"),
    }
    life.wait_for_death();
}

/// Another process has made the descriptors non-blocking. The client does not spin, fail or lose
/// anything.
#[test]
fn non_blocking_descriptors_work() {
    let daemon = Daemon::start("");
    let (in_reader, mut in_writer) = std::io::pipe().expect("a pipe");
    let (mut out_reader, out_writer) = std::io::pipe().expect("a pipe");
    for fd in [std::os::fd::AsFd::as_fd(&in_reader), std::os::fd::AsFd::as_fd(&out_writer)] {
        rustix::io::ioctl_fionbio(fd, true).expect("non-blocking");
    }
    let mut command = command(&daemon, "cat");
    command.stdin(in_reader).stdout(out_writer);
    let thread = std::thread::spawn(move || command.status());
    let bytes: Vec<u8> = (0..=250).cycle().take(1_000_000).collect();
    let feeder = std::thread::spawn({
        let bytes = bytes.clone();
        move || in_writer.write_all(&bytes).expect("it is read")
    });
    let mut back = vec![0; bytes.len()];
    out_reader.read_exact(&mut back).expect("it is written");
    feeder.join().expect("no panic");
    assert!(back == bytes);
    assert!(thread.join().expect("no panic").expect("a status").success());
}

//! Bytes through the command, in both directions.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use rustix::fs::OFlags;

use super::terminals::{make_raw, terminal};
use super::{client, fixture_client, run, text, wait};
use crate::common::{Daemon, Process, pattern, steps};
use crate::pattern::Pattern;

/// Many times more than any buffer on the way, in bytes.
const LARGE: u64 = 300 << 20;

/// The most memory that the client may ever have, in KiB. Its program text is most of it.
const MEMORY: u64 = 16 << 10;

/// Feeds a pipe from another thread. It is fine if nobody reads the rest.
fn feed(mut command: Command, bytes: Vec<u8>) -> std::process::Output {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the client starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let feeder = thread::spawn(move || drop(stdin.write_all(&bytes)));
    let output = child.wait_with_output().expect("wait");
    feeder.join().expect("no panic");
    output
}

/// Of the 588,895 bytes of `seq 1 100000`, 3.1.1's client printed 162.
#[test]
fn seq_arrives_whole() {
    let daemon = Daemon::start("");
    let numbers: Vec<String> = (1..=100_000).map(|n| n.to_string()).collect();
    let expected = numbers.join("\n") + "\n";
    assert_eq!(expected.len(), 588_895);
    let output = run(client(&daemon, &["seq", "1", "100000"]));
    assert_eq!((text(&output.stdout), output.status.code()), (expected.as_str(), Some(0)));
}

#[test]
fn many_sizes_both_ways() {
    let daemon = Daemon::start("");
    for len in [0, 1, 2, 4095, 4096, 4097, 65_535, 65_536, 65_537, 131_072, 1 << 20, 5_000_003] {
        let bytes = pattern(len);
        let output = feed(fixture_client(&daemon, "cat"), bytes.clone());
        assert!(output.stdout == bytes, "{len} bytes came back as {}", output.stdout.len());
        assert_eq!((text(&output.stderr), output.status.code()), ("", Some(0)));
        let output = run(fixture_client(&daemon, &format!("write-err {len} exit 2")));
        assert!(output.stderr == bytes && output.stdout.is_empty(), "{len} bytes of stderr");
        assert_eq!(output.status.code(), Some(2));
    }
}

/// Regular files at both ends, which are always ready and never fail with EAGAIN.
#[test]
fn from_a_file_to_a_file() {
    let daemon = Daemon::start("");
    let bytes = pattern(3_000_001);
    let (from, to) = (daemon.directory().join("from"), daemon.directory().join("to"));
    std::fs::write(&from, &bytes).expect("a file");
    let mut command = fixture_client(&daemon, "cat");
    command.stdin(File::open(&from).expect("a file")).stdout(File::create(&to).expect("a file"));
    assert!(run(command).status.success());
    assert!(std::fs::read(&to).expect("a file") == bytes);
}

/// Sockets at both ends, as under inetd and ssh's server.
#[test]
fn from_a_socket_to_a_socket() {
    let daemon = Daemon::start("");
    let bytes = pattern(1_000_001);
    let (theirs, mut ours) = std::os::unix::net::UnixStream::pair().expect("sockets");
    let mut command = fixture_client(&daemon, "cat");
    let duplicate = std::os::fd::OwnedFd::from(theirs.try_clone().expect("a duplicate"));
    let mut child = command.stdin(duplicate).stdout(std::os::fd::OwnedFd::from(theirs)).spawn().expect("it starts");
    // The command has the duplicates too, and keeps the socket open.
    drop(command);
    let mut writer = ours.try_clone().expect("a duplicate");
    let feeder = thread::spawn({
        let bytes = bytes.clone();
        move || {
            writer.write_all(&bytes).expect("the client reads");
            writer.shutdown(std::net::Shutdown::Write).expect("half-close");
        }
    });
    let mut back = Vec::new();
    ours.read_to_end(&mut back).expect("the client writes");
    feeder.join().expect("no panic");
    assert!(back == bytes);
    assert!(wait(&mut child).success());
}

/// 300 MB go there and back, and the client never has more than its buffers.
#[test]
fn constant_memory() {
    let daemon = Daemon::start("-t 0");
    let gate = daemon.gate("gate");
    let mut command = fixture_client(&daemon, &format!("cat gate {}", gate.path()));
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the client starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let feeder = thread::spawn(move || {
        let mut pattern = Pattern::new();
        while pattern.position() < LARGE {
            let piece = pattern.peek(LARGE - pattern.position());
            stdin.write_all(piece).expect("the client reads");
            let n = piece.len();
            pattern.advance(n);
        }
    });
    let mut stdout = child.stdout.take().expect("a pipe");
    let (mut pattern, mut buffer) = (Pattern::new(), vec![0; 64 << 10]);
    while pattern.position() < LARGE {
        let n = stdout.read(&mut buffer).expect("the client writes");
        assert!(n > 0 && pattern.check(&buffer[..n]), "wrong after {} bytes", pattern.position());
    }
    feeder.join().expect("no panic");
    // The client still runs and waits for the program.
    let peak = Process::of(&child).peak_kib();
    gate.open();
    assert!(wait(&mut child).success());
    assert!(peak < MEMORY, "the client had {peak} KiB");
}

/// A reader that stops reading stops the program. The other direction goes on.
#[test]
fn a_reader_that_stops_stops_the_program() {
    let daemon = Daemon::start("-t 0");
    let mut child = fixture_client(&daemon, "flood").spawn().expect("the client starts");
    Process::of(&child).wait_until_blocked();
    daemon.process().wait_until_blocked();
    let written = Process::of(&child).written();
    assert!(written < 1 << 20, "{written} bytes were written to a pipe that nobody reads");
    child.kill().expect("it is there");
    wait(&mut child);
}

/// The program reads no stdin, or some of it, or closes it.
#[test]
fn stdin_that_the_program_does_not_read_is_dropped() {
    let daemon = Daemon::start("");
    let bytes = pattern(8 << 20);
    for (words, stdout, code) in [
        ("exit 3", "", 3),
        ("out early exit 4", "early", 4),
        ("read 100 out enough exit 5", "enough", 5),
        ("close 0 out closed exit 6", "closed", 6),
    ] {
        let output = feed(fixture_client(&daemon, words), bytes.clone());
        assert_eq!((text(&output.stdout), output.status.code()), (stdout, Some(code)), "{words}");
        assert_eq!(text(&output.stderr), "", "{words}");
    }
}

/// `-n`: standard input stays unread.
#[test]
fn null_stdin_leaves_standard_input_unread() {
    let daemon = Daemon::start("");
    for option in ["-n", "--null-stdin"] {
        let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
        writer.write_all(b"not for it").expect("room");
        let mut command = super::bare(&daemon);
        command.arg(option).arg(daemon.socket()).args(steps("verify"));
        let output = run({
            command.stdin(reader.try_clone().expect("a duplicate"));
            command
        });
        assert_eq!(text(&output.stdout), "ok 0\n");
        drop(writer);
        let mut left = String::new();
        reader.read_to_string(&mut left).expect("text");
        assert_eq!(left, "not for it");
    }
}

/// 3.1.1's client did not read a terminal.
#[test]
fn a_terminal_is_read() {
    let daemon = Daemon::start("");
    let (mut master, terminal) = terminal();
    let mut command = fixture_client(&daemon, "cat");
    command.stdin(terminal.try_clone().expect("a duplicate"));
    let mut child = command.spawn().expect("the client starts");
    master.write_all(b"typed\n").expect("typing");
    let mut line = [0; 6];
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut line).expect("the line");
    assert_eq!(&line, b"typed\n");
    assert!(is_blocking(&terminal));
    // ^D
    master.write_all(b"\x04").expect("typing");
    assert!(wait(&mut child).success());
}

/// A terminal takes little at a time. The client writes to it as any other program does.
#[test]
fn a_terminal_is_written() {
    let daemon = Daemon::start("");
    let (mut master, terminal) = terminal();
    make_raw(&terminal);
    let mut command = fixture_client(&daemon, "write-out 300000");
    command.stdout(terminal.try_clone().expect("a duplicate"));
    let mut child = command.spawn().expect("the client starts");
    let mut shown = vec![0; 300_000];
    master.read_exact(&mut shown).expect("all of it");
    assert!(Pattern::new().check(&shown));
    assert!(is_blocking(&terminal));
    assert!(wait(&mut child).success());
}

fn is_blocking(fd: impl std::os::fd::AsFd) -> bool {
    !rustix::fs::fcntl_getfl(fd).expect("flags").contains(OFlags::NONBLOCK)
}

/// `O_NONBLOCK` would affect all processes that share the pipe: the shell, and what it runs next.
#[test]
fn pipes_that_are_shared_stay_as_they_are() {
    let daemon = Daemon::start("");
    let gate = daemon.gate("gate");
    let (in_reader, mut in_writer) = std::io::pipe().expect("a pipe");
    let (mut out_reader, out_writer) = std::io::pipe().expect("a pipe");
    let mut command = fixture_client(&daemon, &format!("out a gate {} cat", gate.path()));
    command.stdin(in_reader.try_clone().expect("one")).stdout(out_writer.try_clone().expect("one"));
    command.stderr(out_writer.try_clone().expect("one"));
    let mut child = command.spawn().expect("the client starts");
    drop(command);
    let mut byte = [0];
    out_reader.read_exact(&mut byte).expect("a byte");
    assert!(is_blocking(&in_reader) && is_blocking(&out_writer), "while the program runs");
    in_writer.write_all(b"b").expect("room");
    drop(in_writer);
    gate.open();
    assert!(wait(&mut child).success());
    assert!(is_blocking(&in_reader) && is_blocking(&out_writer), "afterwards");
}

//! The library: programs that run beside the caller.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::thread;

use sockexec::{Error, Stdio, Version};

use super::library::command;
use crate::common::{Daemon, eventually};

#[test]
fn a_conversation() {
    let daemon = Daemon::start("");
    let mut child =
        command(&daemon, "cat exit 5").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    for n in 0..100 {
        writeln!(stdin, "line {n}").expect("it reads");
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it answers");
        assert_eq!(line, format!("line {n}\n"));
    }
    assert!(child.try_wait().expect("it runs").is_none());
    drop(stdin);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("end of file");
    assert!(rest.is_empty());
    assert_eq!(child.wait().expect("a status").code(), Some(5));
    // The second answer is the same.
    assert_eq!(child.wait().expect("a status").code(), Some(5));
    assert_eq!(child.try_wait().expect("a status").and_then(sockexec::ExitStatus::code), Some(5));
    child.kill().expect("nothing to do");
}

#[test]
fn wait_with_output_reads_both_streams() {
    let daemon = Daemon::start("");
    let len = 3_000_000;
    let child = command(&daemon, &format!("spawn [ write-err {len} ] write-out {len} reap exit 1"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .expect("it starts");
    let output = child.wait_with_output().expect("a status");
    assert_eq!((output.stdout.len(), output.stderr.len(), output.status.code()), (len, len, Some(1)));
}

/// `wait` ends standard input, or a program that reads to its end would never end.
#[test]
fn wait_closes_stdin() {
    let daemon = Daemon::start("");
    let mut child = command(&daemon, "verify").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    assert!(child.wait().expect("a status").success());
}

#[test]
fn kill_ends_the_program() {
    let daemon = Daemon::start("-t 0");
    for words in ["wait", "flood"] {
        let mut life = daemon.fifo(words);
        let mut child = command(&daemon, &format!("hold {} {words}", life.path()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        life.holder();
        child.kill().expect("it runs");
        child.kill().expect("once more is no fault");
        // Its output, which nobody reads, does not delay it.
        for _ in 0..2 {
            let error = child.wait().expect_err("the status is not told");
            assert!(matches!(error, Error::Killed { .. }), "{error:?}");
        }
        life.wait_for_death();
    }
}

/// In version 2 it is KILL, which the program cannot delay, and the status says so.
#[test]
fn kill_in_version_2() {
    let daemon = Daemon::start("-t 0 -k 100");
    for words in ["ignore TERM ; wait", "ignore TERM ; flood"] {
        let name = words.rsplit(' ').next().expect("a word");
        let mut life = daemon.fifo(name);
        let words = words.replace("; ", &format!("; hold {} ", life.path()));
        let mut flood = command(&daemon, &words);
        flood.version(Version::Two).client_timeout(None).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = flood.spawn().expect("it starts");
        life.holder();
        if name == "flood" {
            daemon.process().wait_until_blocked();
        }
        child.kill().expect("it runs");
        child.kill().expect("once more is no fault");
        // Its output, which nobody reads, does not delay it.
        for _ in 0..2 {
            assert_eq!(child.wait().expect("a status").signal(), Some(9));
        }
        life.wait_for_death();
        child.kill().expect("nor is it after the end");
        // What was read is what the program wrote, without a gap.
        let mut bytes = Vec::new();
        child.stdout.take().expect("a pipe").read_to_end(&mut bytes).expect("end of file");
        assert!(crate::pattern::Pattern::new().check(&bytes));
    }
}

/// A pipe that is dropped right after `kill` does not take the place of it: the status is the signal, and the
/// program that ignores TERM does not get that first.
#[test]
fn kill_and_a_reader_that_goes() {
    let daemon = Daemon::start("-t 0 -k 100");
    for round in 0..10 {
        let mut life = daemon.fifo(&round.to_string());
        let mut flood = command(&daemon, &format!("ignore TERM ; hold {} flood", life.path()));
        flood.version(Version::Two).client_timeout(None).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = flood.spawn().expect("it starts");
        life.holder();
        // Nobody reads, or the client is about to write more.
        if round % 2 == 0 {
            daemon.process().wait_until_blocked();
        } else {
            child.stdout.as_mut().expect("a pipe").read_exact(&mut [0; 10_000]).expect("some of the flood");
        }
        child.kill().expect("it runs");
        drop(child.stdout.take());
        assert_eq!(child.wait().expect("a status").signal(), Some(9));
        life.wait_for_death();
    }
}

/// A pipe ends when the program has closed its stream, as one of the standard library does, and not when the
/// program ends. A program that waits for what is written then would wait for ever.
#[test]
fn a_stream_that_ends_before_the_program() {
    let daemon = Daemon::start("-t 0");
    for (stream, words) in [(1, "out early close 1 cat exit 3"), (2, "err early close 2 cat exit 3")] {
        let mut closes = command(&daemon, words);
        closes.version(Version::Two).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = closes.spawn().expect("it starts");
        let (mut stdin, mut early) = (child.stdin.take().expect("a pipe"), String::new());
        let read = match stream {
            1 => child.stdout.take().expect("a pipe").read_to_string(&mut early),
            _ => child.stderr.take().expect("a pipe").read_to_string(&mut early),
        };
        assert_eq!((read.expect("an end of file"), early.as_str()), (5, "early"));
        stdin.write_all(b"late").expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().expect("a status");
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(output.stdout, if stream == 1 { &b""[..] } else { b"late" });
    }
}

/// The replacement of KILL without signals, which works even if the daemon is stopped.
#[test]
fn disconnect_ends_the_program() {
    let daemon = Daemon::start("-t 0");
    for version in [Version::One, Version::Two] {
        let mut life = daemon.fifo(&format!("{version:?}"));
        let mut command = command(&daemon, &format!("hold {} flood", life.path()));
        command.version(version).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        life.holder();
        child.disconnect();
        assert!(matches!(child.wait(), Err(Error::Killed { .. })));
        life.wait_for_death();
    }
}

/// As in the standard library, a dropped `Child` lets its program run, and the output arrives.
#[test]
fn dropping_ends_nothing() {
    let daemon = Daemon::start("-t 0");
    let (mut life, gate) = (daemon.fifo("life"), daemon.gate("gate"));
    let out = daemon.directory().join("out");
    let child = command(&daemon, &format!("hold {} gate {} out done", life.path(), gate.path()))
        .stdin(Stdio::null())
        .stdout(File::create(&out).expect("a file"))
        .spawn()
        .expect("it starts");
    life.holder();
    drop(child);
    gate.open();
    life.wait_for_death();
    eventually("the output", || std::fs::read(&out).expect("a file") == b"done");
}

/// The pipes go with it: standard input ends, and a writer into a pipe without a reader gets PIPE.
#[test]
fn dropping_closes_the_pipes() {
    let daemon = Daemon::start("-t 0");
    for words in ["cat", "flood"] {
        let mut life = daemon.fifo(words);
        let child = command(&daemon, &format!("hold {} {words}", life.path()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        life.holder();
        drop(child);
        life.wait_for_death();
    }
}

/// A program that has ended takes no more input. That is an error as with any pipe, not an endless
/// wait.
#[test]
fn input_after_the_end_is_an_error() {
    let daemon = Daemon::start("");
    let mut child = command(&daemon, "exit 2").stdin(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let error = stdin.write_all(&vec![0; 8 << 20]).expect_err("nobody reads");
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    assert_eq!(child.wait().expect("a status").code(), Some(2));
}

/// One program's output is another's input, as with a shell's `|`.
#[test]
fn a_pipeline() {
    let daemon = Daemon::start("");
    let len = 4_000_000;
    let mut first = command(&daemon, &format!("write-out {len}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let output = command(&daemon, "verify").stdin(first.stdout.take().expect("a pipe")).output().expect("a status");
    assert_eq!(output.stdout, format!("ok {len}\n").into_bytes());
    assert!(first.wait().expect("a status").success());
}

/// Both directions are full at the same time, and neither waits for the other.
#[test]
fn both_directions_flow_at_once() {
    let daemon = Daemon::start("");
    let bytes: Vec<u8> = (0..=250).cycle().take(8 << 20).collect();
    let mut child = command(&daemon, "cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let feeder = thread::spawn({
        let bytes = bytes.clone();
        move || stdin.write_all(&bytes).expect("it reads")
    });
    let mut back = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut back).expect("it writes");
    feeder.join().expect("no panic");
    assert!(back == bytes);
    assert!(child.wait().expect("a status").success());
}

/// The daemon is killed. Every caller that waits gets the error, each time.
#[test]
fn a_killed_daemon_is_reported() {
    let mut daemon = Daemon::start("-t 0");
    let mut life = daemon.fifo("life");
    let mut child = command(&daemon, &format!("hold {} wait", life.path())).spawn().expect("it starts");
    let holder = life.holder();
    daemon.kill();
    for _ in 0..2 {
        let error = child.wait().expect_err("no status");
        assert!(matches!(error, Error::Lost { received: 0, .. }), "{error:?}");
    }
    assert!(matches!(child.try_wait(), Err(Error::Lost { .. })));
    holder.kill();
}

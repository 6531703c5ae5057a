//! Standard input. The client sends no more than the daemon has room for, so that what follows
//! arrives. It sends nothing once the program has closed its input.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use sockexec::client::daemon_status;
use sockexec::{Command, Error, Version};

use super::fake::{EXIT, Fake, Peer, STARTED};
use super::library::command;
use super::{bare, wait};
use crate::common::{Daemon, PATIENCE, Process, eventually, steps, wait_until_stuck};

/// By then a client that reads at all has read something.
const MOMENT: Duration = Duration::from_millis(50);

/// Far more than any window, in bytes.
const PLENTY: usize = 8 << 20;

/// Introduces the daemon with this window, and starts a program.
fn begin(peer: &mut Peer, window: usize) {
    peer.request();
    let introduction = format!("2 window={window} options=cwd");
    peer.say(format!("8:protocol,{}:{introduction},", introduction.len()).as_bytes());
    assert!(peer.is_quiet(MOMENT), "input was sent before there was a program");
    peer.say(STARTED);
}

/// Takes input until the client stops, which must be at `total`. Returns the size of the largest
/// frame.
fn take(peer: &mut Peer, sent: &mut usize, total: usize) -> usize {
    let mut largest = 0;
    while *sent < total {
        let (tag, bytes) = peer.pair();
        assert_eq!(tag, "stdin");
        assert!(!bytes.is_empty(), "it ended after {sent} of {total} bytes");
        *sent += bytes.len();
        largest = largest.max(bytes.len());
    }
    assert_eq!(*sent, total, "more than the window");
    assert!(peer.is_quiet(MOMENT), "more than the window");
    largest
}

/// A daemon whose program reads slowly, and in the end everything.
fn slow(window: usize, largest: usize) -> Fake {
    Fake::new(move |mut peer| {
        begin(&mut peer, window);
        let mut sent = 0;
        assert_eq!(take(&mut peer, &mut sent, window), largest);
        let mut taken = 0;
        // Half of it, one byte more, and all.
        for more in [window / 2, window / 2 + 1, window] {
            taken = sent.min(taken + more);
            let report = taken.to_string();
            peer.say(format!("5:taken,{}:{report},", report.len()).as_bytes());
            assert!(take(&mut peer, &mut sent, taken + window) <= largest);
        }
        let report = "99999999";
        peer.say(format!("5:taken,{}:{report},", report.len()).as_bytes());
        while sent < PLENTY {
            let (tag, bytes) = peer.pair();
            assert!(tag == "stdin" && bytes.len() <= largest);
            sent += bytes.len();
        }
        assert_eq!(peer.pair(), ("stdin".to_owned(), Vec::new()));
        peer.say(EXIT);
    })
}

fn in_version_2(fake: &Fake) -> Command {
    let mut command = Command::new(fake.socket(), "program");
    command.version(Version::Two).client_timeout(PATIENCE);
    command
}

/// Frames have half a window, but at most 128 KiB, and at most the rest of the window.
#[test]
fn no_more_is_sent_than_the_window_allows() {
    for (window, largest) in [(65_536, 32_768), (100_001, 50_000), (1 << 20, 131_072)] {
        let fake = slow(window, largest);
        let mut command = in_version_2(&fake);
        assert!(command.stdin_bytes(vec![b'x'; PLENTY]).status().expect("a status").success());
        fake.join();
        {
            let fake = slow(window, largest);
            let mut command = sockexec::tokio::Command::from(in_version_2(&fake));
            command.stdin_bytes(vec![b'x'; PLENTY]);
            let status = super::futures::runtime().block_on(command.status());
            assert!(status.expect("a status").success());
            fake.join();
        }
    }
}

/// A read of less than a packet drops the rest of it. The last one before the window was full lost bytes.
#[cfg(target_os = "linux")]
#[test]
fn packets_arrive_whole() {
    const LEN: usize = 4096;
    let fake = Fake::new(|mut peer| {
        // Room for 24, and for a part of another one.
        begin(&mut peer, 100_001);
        let mut sent = 0;
        take(&mut peer, &mut sent, 24 * LEN);
        peer.say(b"5:taken,5:98304,");
        take(&mut peer, &mut sent, 40 * LEN);
        peer.say(EXIT);
    });
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::DIRECT).expect("a pipe");
    let mut command = in_version_2(&fake);
    let feeder = thread::spawn(move || {
        for _ in 0..40 {
            assert_eq!(rustix::io::write(&writer, &[b'x'; LEN]), Ok(LEN));
        }
        // The daemon is to see no end: what comes is all that it waits for.
        writer
    });
    assert!(command.stdin(sockexec::Stdio::from(reader)).status().expect("a status").success());
    drop(feeder.join().expect("no panic"));
    fake.join();
}

/// Version 1 has no window, and its frames are unchanged.
#[test]
fn version_1_has_no_window() {
    let fake = Fake::new(|mut peer| {
        peer.until(b"1:1,7:program,");
        for _ in 0..PLENTY / 65_536 {
            assert_eq!(peer.netstring().len(), 65_536);
        }
        assert_eq!(peer.netstring().len(), 0);
        peer.say(b"8:exitcode,1:0,");
    });
    let mut command = Command::new(fake.socket(), "program");
    command.client_timeout(PATIENCE).stdin_bytes(vec![b'x'; PLENTY]);
    assert!(command.status().expect("a status").success());
    fake.join();
}

/// Writes on a thread until that fails. Returns a count of the bytes taken, and the thread.
fn feed(mut stdin: impl io::Write + Send + 'static) -> (Arc<AtomicUsize>, thread::JoinHandle<io::Error>) {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let feeder = thread::spawn(move || {
        loop {
            match stdin.write(&[b'x'; 4096]) {
                Ok(n) => count.fetch_add(n, Ordering::AcqRel),
                Err(error) => return error,
            };
        }
    });
    (written, feeder)
}

/// A signal and a size are sent at once although there is no room for input.
#[test]
fn signals_pass_input_that_is_stuck() {
    let (full, is_full) = mpsc::channel();
    let fake = Fake::new(move |mut peer| {
        begin(&mut peer, 65_536);
        take(&mut peer, &mut 0, 65_536);
        full.send(()).expect("the test waits");
        assert_eq!(peer.pair(), ("signal".to_owned(), b"10".to_vec()));
        assert_eq!(peer.pair(), ("winsize".to_owned(), b"80x24".to_vec()));
        peer.say(EXIT);
    });
    let mut child = in_version_2(&fake).stdin(sockexec::Stdio::piped()).spawn().expect("it starts");
    let (_, feeder) = feed(child.stdin.take().expect("a pipe"));
    is_full.recv().expect("the daemon waits");
    child.signal(10).expect("it is sent");
    child.resize(sockexec::WindowSize { columns: 80, rows: 24 }).expect("it is sent");
    assert!(child.wait().expect("a status").success());
    assert_eq!(feeder.join().expect("no panic").kind(), io::ErrorKind::BrokenPipe);
    fake.join();
}

/// There is room in the window, but the socket is full because the daemon has stopped reading.
#[test]
fn a_signal_that_is_not_delivered_is_an_error() {
    let play = || {
        Fake::new(move |mut peer| {
            begin(&mut peer, 64 << 20);
            peer.wait_for_the_end();
        })
    };
    let fake = play();
    let mut child = in_version_2(&fake).stdin(sockexec::Stdio::piped()).spawn().expect("it starts");
    let (written, feeder) = feed(child.stdin.take().expect("a pipe"));
    wait_until_stuck(|| written.load(Ordering::Acquire) as u64);
    let handle = child.handle();
    let waiting = thread::spawn(move || handle.signal(10));
    assert!(matches!(child.signal(12), Err(Error::NotDelivered { ended: false })));
    assert!(matches!(waiting.join().expect("no panic"), Err(Error::NotDelivered { ended: false })));
    child.disconnect();
    assert!(matches!(child.wait(), Err(Error::Killed { .. })));
    assert!(matches!(child.signal(12), Err(Error::NotDelivered { ended: true })));
    feeder.join().expect("no panic");
    fake.join();
    {
        use tokio::io::AsyncWriteExt as _;
        let fake = play();
        super::futures::runtime().block_on(async {
            let mut command = sockexec::tokio::Command::from(in_version_2(&fake));
            let mut child = command.stdin(sockexec::Stdio::piped()).spawn().await.expect("it starts");
            let mut stdin = child.stdin.take().expect("a pipe");
            while tokio::time::timeout(10 * MOMENT, stdin.write_all(&[b'x'; 4096])).await.is_ok() {}
            assert!(matches!(child.signal(12).await, Err(Error::NotDelivered { ended: false })));
            child.disconnect();
            assert!(matches!(child.wait().await, Err(Error::Killed { .. })));
            assert!(matches!(child.signal(12).await, Err(Error::NotDelivered { ended: true })));
        });
        fake.join();
    }
}

/// The largest window and the smallest.
const WINDOWS: [&str; 2] = ["-t 0 -m 10", "-t 0 -m 1000"];

/// A signal used to wait for ever behind input that the program does not read.
#[test]
fn a_signal_reaches_a_program_that_does_not_read() {
    for options in WINDOWS {
        let daemon = Daemon::start(options);
        let mut child =
            command(&daemon, "wait").version(Version::Two).stdin(sockexec::Stdio::piped()).spawn().expect("it starts");
        let (written, feeder) = feed(child.stdin.take().expect("a pipe"));
        wait_until_stuck(|| written.load(Ordering::Acquire) as u64);
        child.signal(15).expect("it is sent");
        assert_eq!(child.wait().expect("a status").signal(), Some(15));
        assert_eq!(feeder.join().expect("no panic").kind(), io::ErrorKind::BrokenPipe);
    }
}

/// Two processes, killed and waited for at the end of the test.
struct Pipeline {
    feeder: Child,
    client: Child,
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        for child in [&mut self.client, &mut self.feeder] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `yes | sockexec-client OPTION SOCKET PROGRAM`.
fn pipeline(daemon: &Daemon, option: &str, program: &[String]) -> Pipeline {
    // Not the fixture: its flood contains a ^C.
    let mut yes = std::process::Command::new("yes");
    let mut feeder = yes.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut client = bare(daemon);
    client.arg(option).arg(daemon.socket()).args(program);
    client.stdin(feeder.stdout.take().expect("a pipe")).stdout(Stdio::null()).stderr(Stdio::null());
    let client = client.spawn().expect("the client starts");
    Pipeline { feeder, client }
}

/// Once input is stuck, a signal to the command reaches its program and ends both.
#[track_caller]
fn assert_ended_by(mut pipeline: Pipeline, daemon: &Daemon, signal: Signal) {
    // At least the smallest window has gone, so the client knows the program, and reads.
    eventually("input", || {
        let status = daemon_status(daemon.socket(), PATIENCE).expect("a status");
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        let connections = status["connections"].as_array().expect("an array");
        connections.iter().any(|connection| connection["bytes_in"].as_u64() > Some(65_000))
    });
    Process::of(&pipeline.feeder).wait_until_blocked();
    rustix::process::kill_process(Pid::from_child(&pipeline.client), signal).expect("it lives");
    assert_eq!(wait(&mut pipeline.client).signal(), Some(signal.as_raw()));
    daemon.wait_for_log(&format!("signal {} to the group", signal.as_raw()));
}

/// `yes | sockexec-client --usage SOCKET sleep 60`, then ^C.
#[test]
fn the_command_can_be_interrupted() {
    for options in WINDOWS {
        for option in ["--usage", "-tt"] {
            let daemon = Daemon::start(options);
            let pipeline = pipeline(&daemon, option, &steps("wait"));
            assert_ended_by(pipeline, &daemon, Signal::INT);
        }
    }
}

/// The same with a program that reads a page now and then. The signal is TERM: a shell may swallow
/// INT between the start of a child and its exec.
#[test]
fn the_command_can_be_interrupted_while_its_program_reads_slowly() {
    for options in WINDOWS {
        let daemon = Daemon::start(options);
        let program = ["sh", "-c", "while head -c 4096 >/dev/null; do sleep 0.015; done"].map(str::to_owned);
        let pipeline = pipeline(&daemon, "--usage", &program);
        assert_ended_by(pipeline, &daemon, Signal::TERM);
    }
}

/// The client completes a frame that it has begun, and sends no more. The writer gets an error, and
/// signals still arrive.
#[test]
fn a_program_that_has_closed_its_input_gets_none() {
    let fake = Fake::new(move |mut peer| {
        begin(&mut peer, 1 << 20);
        assert_eq!(peer.pair().0, "stdin");
        peer.say(b"12:input-closed,0:,");
        loop {
            let (tag, payload) = peer.pair();
            if tag == "signal" {
                break;
            }
            assert!(tag == "stdin" && !payload.is_empty());
        }
        assert!(peer.is_quiet(MOMENT));
        peer.say(EXIT);
    });
    let mut child = in_version_2(&fake).stdin(sockexec::Stdio::piped()).spawn().expect("it starts");
    let (_, feeder) = feed(child.stdin.take().expect("a pipe"));
    assert_eq!(feeder.join().expect("no panic").kind(), io::ErrorKind::BrokenPipe);
    child.signal(10).expect("it is sent");
    assert!(child.wait().expect("a status").success());
    fake.join();
}

/// Gigabytes used to vanish, and the process that fed them never knew.
#[test]
fn a_writer_learns_that_the_program_has_closed_its_input() {
    let daemon = Daemon::start("-t 0");
    let mut child = command(&daemon, "close 0 wait")
        .version(Version::Two)
        .client_timeout(None)
        .stdin(sockexec::Stdio::piped())
        .spawn()
        .expect("it starts");
    let (_, feeder) = feed(child.stdin.take().expect("a pipe"));
    assert_eq!(feeder.join().expect("no panic").kind(), io::ErrorKind::BrokenPipe);
    assert!(child.try_wait().expect("it runs").is_none());
    child.signal(15).expect("it is sent");
    assert_eq!(child.wait().expect("a status").signal(), Some(15));
    // Bytes in memory are just not sent.
    let gate = daemon.gate("gate");
    let words = format!("close 0 gate {} out done", gate.path());
    let mut in_memory = command(&daemon, &words);
    in_memory.version(Version::Two).stdin_bytes(vec![b'x'; 64 << 20]);
    let thread = thread::spawn(move || in_memory.output());
    gate.open();
    assert_eq!(thread.join().expect("no panic").expect("a status").stdout, b"done");
}

#[test]
fn a_writer_for_tokio_learns_it() {
    use tokio::io::AsyncWriteExt as _;
    let daemon = Daemon::start("-t 0");
    let mut life = daemon.fifo("life");
    super::futures::runtime().block_on(async {
        let mut command =
            sockexec::tokio::Command::from(command(&daemon, &format!("close 0 hold {} wait", life.path())));
        command.version(Version::Two).client_timeout(None).stdin(sockexec::Stdio::piped());
        let mut child = command.spawn().await.expect("it starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let write = async {
            loop {
                if let Err(error) = stdin.write_all(&[b'x'; 4096]).await {
                    break error.kind();
                }
            }
        };
        let error = tokio::time::timeout(PATIENCE, write).await.expect("the writer learns it");
        assert_eq!(error, io::ErrorKind::BrokenPipe);
        life.holder();
        assert!(life.is_held(), "the program ended");
        child.kill().await.expect("it has ended");
    });
}

/// `yes | sockexec-client --usage SOCKET PROGRAM`: `yes` dies of PIPE while the program runs on.
#[test]
fn the_feeder_of_the_command_dies_of_pipe() {
    let daemon = Daemon::start("-t 0");
    for option in ["--usage", "--pass-fds"] {
        let mut life = daemon.fifo(&format!("life{option}"));
        let program = steps(&format!("close 0 hold {} wait", life.path()));
        let mut pipeline = pipeline(&daemon, option, &program);
        assert_eq!(wait(&mut pipeline.feeder).signal(), Some(Signal::PIPE.as_raw()));
        life.holder();
        assert!(life.is_held());
        rustix::process::kill_process(Pid::from_child(&pipeline.client), Signal::TERM).expect("it lives");
        assert_eq!(wait(&mut pipeline.client).signal(), Some(Signal::TERM.as_raw()));
    }
}

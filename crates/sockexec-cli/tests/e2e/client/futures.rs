//! The client for tokio.

use std::future::Future as _;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use sockexec::tokio::Command;
use sockexec::{Error, ErrorKind, Stdio, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use super::fake::{EXIT, INTRODUCTION, STARTED};
use super::terminals::in_time;
use crate::common::{Daemon, PATIENCE, eventually, full_backlog};

pub(super) fn command(daemon: &Daemon, words: &str) -> Command {
    super::library::command(daemon, words).into()
}

pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_io().enable_time().build().expect("a runtime")
}

#[test]
fn output_and_status() {
    let daemon = Daemon::start("");
    runtime().block_on(async {
        let output = command(&daemon, "out hello err oops exit 3").output().await.expect("a status");
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"hello"[..], &b"oops"[..]));
        assert_eq!(output.status.code(), Some(3));
        let bytes: Vec<u8> = (0..=250).cycle().take(5_000_000).collect();
        let output = command(&daemon, "cat").stdin_bytes(bytes.clone()).output().await.expect("a status");
        assert!(output.stdout == bytes);
        // More than the program reads.
        let mut command = command(&daemon, "read 10 exit 7");
        let status = command.stdin_bytes(bytes).status().await.expect("a status");
        assert_eq!(status.code(), Some(7));
    });
}

#[test]
fn files_as_streams() {
    let daemon = Daemon::start("");
    let path = |name| daemon.directory().join(name);
    let bytes: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
    std::fs::write(path("in"), &bytes).expect("a file");
    runtime().block_on(async {
        let mut command = command(&daemon, "cat");
        command.stdin(std::fs::File::open(path("in")).expect("a file"));
        command.stdout(std::fs::File::create(path("out")).expect("a file"));
        assert!(command.status().await.expect("a status").success());
    });
    assert!(std::fs::read(path("out")).expect("a file") == bytes);
}

#[test]
fn a_conversation() {
    let daemon = Daemon::start("");
    runtime().block_on(async {
        let mut command = command(&daemon, "cat exit 5");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().await.expect("it starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let mut stdout = child.stdout.take().expect("a pipe");
        for _ in 0..100 {
            stdin.write_all(b"ping").await.expect("it reads");
            let mut answer = [0; 4];
            stdout.read_exact(&mut answer).await.expect("it answers");
            assert_eq!(&answer, b"ping");
        }
        drop(stdin);
        assert_eq!(stdout.read(&mut [0]).await.expect("end of file"), 0);
        for _ in 0..2 {
            assert_eq!(child.wait().await.expect("a status").code(), Some(5));
        }
    });
}

/// As many programs at a time as requested, more than the daemon's backlog holds.
#[test]
fn a_hundred_at_once() {
    let daemon = Daemon::start("-m 10 -q 1");
    runtime().block_on(async {
        let tasks: Vec<_> = (0..100)
            .map(|n| {
                let mut command = command(&daemon, &format!("cat exit {n}"));
                command.stdin_bytes(format!("input {n}"));
                tokio::spawn(async move { command.output().await })
            })
            .collect();
        for (n, task) in (0..).zip(tasks) {
            let output = task.await.expect("no panic").expect("a status");
            assert_eq!(output.stdout, format!("input {n}").into_bytes());
            assert_eq!(output.status.code(), Some(n));
        }
    });
}

/// Killed, timed out, or its future dropped: the program ends.
#[test]
fn each_way_to_end_a_program_ends_it() {
    let daemon = Daemon::start("-t 0");
    runtime().block_on(async {
        let mut life = daemon.fifo("kill");
        let mut child = command(&daemon, &format!("hold {} flood", life.path()))
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .await
            .expect("it starts");
        child.stdout.as_mut().expect("a pipe").read_exact(&mut [0; 1000]).await.expect("some of the flood");
        child.kill().await.expect("it has ended");
        assert!(matches!(child.wait().await, Err(Error::Killed { .. })));
        assert!(matches!(child.wait().await, Err(Error::Killed { .. })));
        life.wait_for_death();

        let mut wait = command(&daemon, "wait");
        let result = wait.client_timeout(Duration::from_millis(300)).output().await;
        assert!(matches!(result, Err(Error::TimedOut { .. })), "{result:?}");
        eventually("the end of the program", || daemon.process().children() == (0, 0));

        let mut life = daemon.fifo("drop");
        let mut wait = command(&daemon, &format!("hold {} wait", life.path()));
        let output = tokio::spawn(async move { wait.output().await });
        let held = tokio::task::spawn_blocking(move || {
            life.holder();
            life
        });
        let mut life = held.await.expect("no panic");
        output.abort();
        assert!(output.await.is_err());
        life.wait_for_death();
    });
}

#[test]
fn options() {
    let daemon = Daemon::start("");
    runtime().block_on(async {
        let mut inside = command(&daemon, "cwd env A");
        let output = inside.current_dir("/usr").env("A", "1").output().await.expect("a status");
        assert_eq!(output.stdout, b"/usr\n1\n");
        let error = command(&daemon, "cwd").current_dir("/nowhere").output().await.expect_err("no directory");
        assert_eq!(error.kind(), sockexec::ErrorKind::NotFound);
        let error = command(&daemon, "out x wait")
            .daemon_timeout(Duration::from_millis(200))
            .output()
            .await
            .expect_err("a deadline");
        assert_eq!(error.kind(), sockexec::ErrorKind::Timeout);
    });
}

/// 600 dropped futures used to leave 513 threads in connect(2). An unrelated `tokio::fs::read`
/// never ran, and the runtime never ended.
#[test]
fn futures_dropped_in_a_full_backlog_leave_no_threads() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sock");
    let _full = full_backlog(&path);
    in_time("the end of the runtime", move || {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(8).build().expect("a runtime");
        runtime.block_on(async {
            for _ in 0..600 {
                let mut command = Command::new(&path, "true");
                let mut output = pin!(command.output());
                assert!(output.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            let mut command = Command::new(&path, "true");
            let output = tokio::time::timeout(Duration::from_millis(50), command.output());
            assert!(output.await.is_err(), "there is no room");
            let result = Command::new(&path, "true").client_timeout(Duration::from_millis(50)).output().await;
            assert!(matches!(result, Err(Error::TimedOut { .. })), "{result:?}");
            tokio::task::spawn_blocking(|| ()).await.expect("a thread");
        });
    });
}

/// The client waits for room, and uses it.
#[test]
fn room_in_the_backlog_is_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sock");
    let (listener, _first) = full_backlog(&path);
    in_time("a status", move || {
        runtime().block_on(async {
            let mut command = Command::new(&path, "true");
            command.version(Version::Two).stdin(Stdio::null());
            let mut output = pin!(command.output());
            assert!(tokio::time::timeout(Duration::from_millis(20), output.as_mut()).await.is_err(), "no room");
            let server = std::thread::spawn(move || {
                let accept = || rustix::net::accept_with(&listener, rustix::net::SocketFlags::CLOEXEC);
                drop(accept().expect("the first"));
                let mut client = UnixStream::from(accept().expect("the second"));
                client.write_all(&[INTRODUCTION, STARTED, EXIT].concat()).expect("it reads");
                client.shutdown(std::net::Shutdown::Write).expect("half-close");
                client
            });
            assert!(output.await.expect("a status").status.success());
            server.join().expect("no panic");
        });
    });
}

/// Silent standard input delays neither the output nor the runtime. What comes later is the
/// caller's.
#[test]
fn silent_input_delays_nothing() {
    let daemon = Daemon::start("");
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    let (input, path) = (reader.try_clone().expect("a duplicate"), daemon.directory().join("out"));
    let out = std::fs::File::create(&path).expect("a file");
    let mut command = command(&daemon, "out done exit 3");
    command.stdin(input).stdout(out);
    let status = in_time("the end of the runtime", move || {
        // As many readers as the runtime has threads.
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build().expect("a runtime");
        runtime.block_on(command.status())
    });
    assert_eq!(status.expect("a status").code(), Some(3));
    assert_eq!(std::fs::read(&path).expect("a file"), b"done");
    writer.write_all(b"next").expect("room");
    drop(writer);
    let mut next = String::new();
    reader.read_to_string(&mut next).expect("text");
    assert_eq!(next, "next");
}

/// As in the standard library, it fails before there is a child.
#[test]
fn a_program_that_is_missing() {
    let daemon = Daemon::start("");
    runtime().block_on(async {
        let mut command = Command::new(daemon.socket(), "no-such-program");
        command.version(Version::Two).client_timeout(PATIENCE).stdin(Stdio::null());
        let error = command.spawn().await.expect_err("no such program");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

/// As in the blocking client: the program's number, signals, costs, and passed descriptors.
#[test]
fn numbers_signals_costs_and_descriptors() {
    let daemon = Daemon::start("-t 0");
    let mut life = daemon.fifo("life");
    runtime().block_on(async {
        let mut wait = command(&daemon, &format!("hold {} wait", life.path()));
        let mut child = wait.version(Version::Two).stdin(Stdio::null()).spawn().await.expect("it starts");
        assert_eq!(child.id(), Some(life.holder().pid.as_raw_pid().cast_unsigned()));
        assert!(child.usage().is_none());
        child.signal(10).await.expect("it is sent");
        assert_eq!(child.wait().await.expect("a status").signal(), Some(10));
        assert!(cfg!(not(target_os = "linux")) || child.usage().is_some());
        assert!(matches!(child.signal(10).await, Err(Error::NotDelivered { ended: true })));

        let len = 3_000_000;
        let words = format!("spawn [ write-err {len} ] write-out {len} reap exit 1");
        let output = command(&daemon, &words).pass_stdio().output().await.expect("a status");
        assert_eq!((output.stdout.len(), output.stderr.len(), output.status.code()), (len, len, Some(1)));
        let mut both = command(&daemon, &words);
        let child = both.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().await;
        let output = child.expect("it starts").wait_with_output().await.expect("a status");
        assert_eq!((output.stdout.len(), output.stderr.len(), output.status.code()), (len, len, Some(1)));
        let mut child = command(&daemon, "wait").stdin(Stdio::null()).spawn().await.expect("it starts");
        assert!(matches!(child.signal(10).await, Err(Error::InvalidOption(_))));
        child.kill().await.expect("it has ended");
    });
}

/// In version 2 `kill` sends KILL and reports how the program ended. Output that nobody reads does
/// not delay it.
#[test]
fn kill_reports_how_the_program_ended() {
    let daemon = Daemon::start("-t 0");
    runtime().block_on(async {
        for wait in [true, false] {
            let mut flood = command(&daemon, "flood");
            flood.version(Version::Two).client_timeout(None).stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = flood.spawn().await.expect("it starts");
            child.stdout.as_mut().expect("a pipe").read_exact(&mut [0; 1000]).await.expect("some of the flood");
            if wait {
                child.kill().await.expect("it has ended");
            } else {
                child.start_kill().expect("it is told");
            }
            assert_eq!(child.wait().await.expect("a status").signal(), Some(9));
            child.kill().await.expect("once more is no fault");
        }
        let mut wait = command(&daemon, "wait");
        let mut child = wait.version(Version::Two).stdin(Stdio::null()).spawn().await.expect("it starts");
        child.disconnect();
        assert!(matches!(child.wait().await, Err(Error::Killed { .. })));
    });
}

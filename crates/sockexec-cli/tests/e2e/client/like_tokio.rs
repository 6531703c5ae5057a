//! The client for tokio beside tokio's own, for people who know that one.

use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal as Raw;
use sockexec::tokio::{Child, ChildStdout, Command, daemon_status, ping};
use sockexec::{Error, ErrorKind, Signal, Stdio, Version, Waiting};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::fake::{Fake, Peer};
use super::futures::{command, runtime};
use super::terminals::in_time;
use crate::common::{Daemon, PATIENCE, eventually, full_backlog};

/// Requires that the future can be sent to another thread, as `tokio::spawn` does.
fn sendable<T: Send>(future: T) -> T {
    future
}

fn stdout_of(child: Child) -> ChildStdout {
    child.stdout.expect("a pipe")
}

/// By KILL, which no program can delay: after TERM the daemon would wait 100 seconds.
#[test]
fn killed_on_drop() {
    let daemon = Daemon::start("-t 0 -k 100");
    let runtime = runtime();
    for (way, act) in [(0, "wait"), (1, "wait"), (2, "wait"), (0, "flood")] {
        let mut life = daemon.fifo(&format!("life-{way}-{act}"));
        let mut wait = command(&daemon, &format!("ignore TERM ; hold {} {act}", life.path()));
        wait.version(Version::Two).kill_on_drop(true).client_timeout(None);
        wait.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = runtime.block_on(wait.spawn()).expect("it starts");
        life.holder();
        if act == "flood" {
            // The pipe that is full goes with the child. That must not end the connection before KILL is sent.
            daemon.process().wait_until_blocked();
        }
        let mut kept = None;
        match way {
            0 => drop(child),
            // A field can be moved out, and the rest is dropped.
            1 => kept = Some(stdout_of(child)),
            // A task is aborted while it waits.
            _ => runtime.block_on(async move {
                let task = tokio::spawn(child.wait_with_output());
                tokio::task::yield_now().await;
                task.abort();
                assert!(task.await.is_err_and(|error| error.is_cancelled()));
            }),
        }
        life.wait_for_death();
        drop(kept);
    }
    // In version 1 the connection is closed, which means TERM.
    let mut life = daemon.fifo("life");
    let mut wait = command(&daemon, &format!("hold {} wait", life.path()));
    wait.kill_on_drop(true).stdin(Stdio::piped());
    let child = runtime.block_on(wait.spawn()).expect("it starts");
    life.holder();
    drop(child);
    life.wait_for_death();
}

/// By default a dropped `Child` lets its program run, and also after `kill_on_drop(false)`.
#[test]
fn not_killed_on_drop() {
    let daemon = Daemon::start("-t 0");
    let runtime = runtime();
    for told in [false, true] {
        let (mut life, gate) = (daemon.fifo(&format!("life-{told}")), daemon.gate(&format!("gate-{told}")));
        let path = daemon.directory().join("out");
        let mut gated = command(&daemon, &format!("hold {} gate {} out done", life.path(), gate.path()));
        gated.version(Version::Two).stdin(Stdio::null()).stdout(std::fs::File::create(&path).expect("a file"));
        if told {
            gated.kill_on_drop(true).kill_on_drop(false);
        }
        drop(runtime.block_on(gated.spawn()).expect("it starts"));
        life.holder();
        gate.open();
        life.wait_for_death();
        eventually("the output", || std::fs::read(&path).expect("a file") == b"done");
    }
}

/// `try_wait` does not wait and leaves standard input open. Once it knows the status, it repeats
/// it.
#[test]
fn tried_to_wait() {
    let daemon = Daemon::start("-t 0");
    let runtime = runtime();
    let mut child = runtime.block_on(async {
        let mut cat = command(&daemon, "cat exit 5");
        cat.version(Version::Two).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = cat.spawn().await.expect("it starts");
        assert_eq!(child.try_wait().expect("it runs"), None);
        let mut answer = [0; 4];
        child.stdin.as_mut().expect("it is open").write_all(b"ping").await.expect("it reads");
        child.stdout.as_mut().expect("a pipe").read_exact(&mut answer).await.expect("it answers");
        assert_eq!(&answer, b"ping");
        drop(child.stdin.take());
        child
    });
    // Outside the runtime too.
    eventually("the end", || child.try_wait().expect("a status").is_some());
    for _ in 0..2 {
        assert_eq!(child.try_wait().expect("a status").expect("the end").code(), Some(5));
        assert_eq!(runtime.block_on(child.wait()).expect("a status").code(), Some(5));
    }
    assert!(cfg!(not(target_os = "linux")) || child.usage().is_some());
    let mut wait = command(&daemon, "wait");
    let mut child: Child = runtime.block_on(wait.stdin(Stdio::null()).spawn()).expect("it starts");
    child.disconnect();
    eventually("the end", || child.try_wait().is_err());
    assert!(matches!(child.try_wait(), Err(Error::Killed { .. })));
}

/// From another task, while the `Child` is waited for.
#[test]
fn a_handle() {
    let daemon = Daemon::start("-t 0");
    let mut life = daemon.fifo("life");
    runtime().block_on(async {
        for way in 0..3 {
            let mut wait = command(&daemon, "out x wait");
            wait.version(Version::Two).stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = wait.spawn().await.expect("it starts");
            let (handle, mut stdout) = (child.handle(), child.stdout.take().expect("a pipe"));
            let waiter = tokio::spawn(async move { child.wait().await });
            stdout.read_exact(&mut [0]).await.expect("it writes");
            match way {
                0 => sendable(handle.signal(Signal::USR1)).await.expect("it is sent"),
                1 => handle.clone().start_kill().expect("it is told"),
                _ => handle.disconnect(),
            }
            let status = waiter.await.expect("no panic").map(sockexec::ExitStatus::signal);
            match way {
                0 => assert_eq!(status.expect("a status"), Some(Signal::USR1.number())),
                1 => assert_eq!(status.expect("a status"), Some(9)),
                _ => assert!(matches!(status, Err(Error::Killed { .. }))),
            }
            // After the program's end it is an error or does nothing.
            assert!(matches!(handle.signal(15).await, Err(Error::NotDelivered { .. })));
            assert!(matches!(handle.signal(0).await, Err(Error::InvalidOption(_))));
            handle.start_kill().expect("nothing");
        }
        let mut wait = command(&daemon, &format!("hold {} wait", life.path()));
        let child = wait.stdin(Stdio::null()).spawn().await.expect("it starts");
        let size = sockexec::WindowSize { columns: 80, rows: 24 };
        assert!(matches!(child.handle().resize(size), Err(Error::InvalidOption(_))));
        life.holder();
        child.handle().start_kill().expect("it is told");
    });
    life.wait_for_death();
}

/// One program's output is another's input, as with a shell's `|`, and more than pipes hold.
#[test]
fn a_pipeline() {
    let daemon = Daemon::start("");
    let len = 4_000_000;
    runtime().block_on(async {
        let mut writing = command(&daemon, &format!("write-out {len}"));
        let mut first = writing.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().await.expect("it starts");
        let stdout = first.stdout.take().expect("a pipe");
        assert_eq!(stdout.as_raw_fd(), stdout.as_fd().as_raw_fd());
        let mut verify = command(&daemon, "verify");
        let output = verify.stdin(Stdio::try_from(stdout).expect("a descriptor")).output().await.expect("a status");
        assert_eq!(output.stdout, format!("ok {len}\n").into_bytes());
        assert!(first.wait().await.expect("a status").success());
    });
}

/// Outside tokio the descriptor blocks again, so reading nothing is no error.
#[test]
fn a_descriptor_without_tokio() {
    let daemon = Daemon::start("-t 0");
    let gate = daemon.gate("gate");
    let runtime = runtime();
    let mut gated = command(&daemon, &format!("gate {} out late", gate.path()));
    let mut child = runtime.block_on(gated.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()).expect("it starts");
    let stdout = runtime.block_on(async { child.stdout.take().expect("a pipe").into_owned_fd() });
    let mut stdout = std::fs::File::from(stdout.expect("a descriptor"));
    assert!(!rustix::fs::fcntl_getfl(&stdout).expect("its flags").contains(rustix::fs::OFlags::NONBLOCK));
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    gate.open();
    assert_eq!(reader.join().expect("no panic").expect("no error"), "late");
}

/// From the blocking command and back, with all settings.
#[test]
fn both_commands_are_one() {
    let mut command = Command::new("/sock", "prog");
    command.args(["a", "b"]).env("A", "1").env_remove("B").current_dir("/").stdin_bytes("x");
    let blocking = sockexec::Command::from(command.clone());
    let again = Command::from(blocking.clone());
    let strings = |words: &mut dyn Iterator<Item = &std::ffi::OsStr>| words.map(ToOwned::to_owned).collect::<Vec<_>>();
    for command in [&command, &again] {
        assert_eq!((command.get_socket(), command.get_program()), (Path::new("/sock"), blocking.get_program()));
        assert_eq!(strings(&mut command.get_args()), strings(&mut blocking.get_args()));
        assert!(command.get_envs().eq(blocking.get_envs()) && command.get_envs().len() == 2);
        assert_eq!(command.get_current_dir(), Some(Path::new("/")));
    }
}

/// As in the blocking client, for each way in which a daemon does not answer.
#[test]
fn questions() {
    let daemon = Daemon::start("-m 7");
    let moment = Duration::from_millis(300);
    runtime().block_on(async {
        sendable(ping(daemon.socket(), PATIENCE)).await.expect("it serves");
        let status = sendable(daemon_status(daemon.socket(), Duration::MAX)).await.expect("a status");
        assert!(status.contains("\"max_connections\":7"), "{status}");
        let error = ping(daemon.directory().join("missing"), PATIENCE).await.expect_err("no daemon");
        assert_eq!(error.kind(), ErrorKind::Connect);

        daemon.stop();
        let error = ping(daemon.socket(), moment).await.expect_err("no answer");
        assert!(matches!(error, Error::NoAnswer(Waiting::Answer { read: Some(false) })), "{error:?}");
        daemon.signal(Raw::CONT);

        let path = daemon.directory().join("full");
        let _full = full_backlog(&path);
        let error = daemon_status(&path, moment).await.expect_err("no answer");
        assert!(matches!(error, Error::NoAnswer(Waiting::Connection)), "{error:?}");

        let mut error = None;
        // On a busy machine the fake daemon may not have read the question in the first of these times.
        for time in [moment, 10 * moment, 100 * moment] {
            let fake = Fake::new(|mut peer: Peer| peer.read_to_the_end());
            error = Some(ping(fake.socket(), time).await.expect_err("no answer"));
            fake.join();
            if !matches!(error, Some(Error::NoAnswer(Waiting::Answer { read: Some(false) }))) {
                break;
            }
        }
        assert!(matches!(error, Some(Error::NoAnswer(Waiting::Answer { read: Some(true) }))), "{error:?}");
        for (reply, kind) in [
            (&b""[..], ErrorKind::Lost),
            (b"6:stderr,12:sockexec: no,8:exitcode,3:125,", ErrorKind::Unsupported),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", ErrorKind::Protocol),
            (b"8:protocol,1:2,5:error,17:busy too many ask,", ErrorKind::Busy),
            (b"8:protocol,1:2,", ErrorKind::Lost),
        ] {
            let fake = Fake::new(move |mut peer: Peer| {
                peer.drain();
                peer.say(reply);
            });
            let error = daemon_status(fake.socket(), PATIENCE).await.expect_err("no status");
            assert_eq!(error.kind(), kind, "{error}");
            fake.join();
        }
    });
    // A dropped future has closed its connection.
    let fake = Fake::new(|mut peer: Peer| peer.read_to_the_end());
    let socket = fake.socket();
    in_time("the end of the runtime", move || {
        runtime().block_on(async {
            assert!(tokio::time::timeout(Duration::from_millis(20), ping(socket, Duration::MAX)).await.is_err());
        });
    });
    fake.join();
}

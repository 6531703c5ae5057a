//! The client for tokio.

use std::time::Duration;

use sockexec::tokio::Command;
use sockexec::{Error, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use crate::common::{Daemon, eventually};

fn command(daemon: &Daemon, words: &str) -> Command {
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
        // More than the program wants.
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

/// As many programs at a time as are asked for, more than the daemon has room for in its backlog.
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
fn the_ways_to_end_a_program() {
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
        child.kill();
        assert!(matches!(child.wait().await, Err(Error::Killed)));
        assert!(matches!(child.wait().await, Err(Error::Killed)));
        life.wait_for_death();

        let mut wait = command(&daemon, "wait");
        let result = wait.timeout(Some(Duration::from_millis(300))).output().await;
        assert!(matches!(result, Err(Error::TimedOut)), "{result:?}");
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

/// Version 2 of the protocol.
#[test]
fn options() {
    let daemon = Daemon::start("");
    runtime().block_on(async {
        let mut inside = command(&daemon, "cwd env A");
        let output = inside.current_dir("/usr").env("A", "1").output().await.expect("a status");
        assert_eq!(output.stdout, b"/usr\n1\n");
        let error = command(&daemon, "cwd").current_dir("/nowhere").output().await.expect_err("no directory");
        assert_eq!(error.kind(), sockexec::ErrorKind::NotFound);
        let error =
            command(&daemon, "out x wait").deadline(Duration::from_millis(200)).output().await.expect_err("a deadline");
        assert_eq!(error.kind(), sockexec::ErrorKind::Timeout);
    });
}

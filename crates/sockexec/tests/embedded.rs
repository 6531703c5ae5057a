//! The daemon inside of another process, as `Daemon::builder` is documented.
//!
//! A test crate of its own: to bind a socket changes the umask of the process for a moment, which the other tests that run
//! beside it would notice.
#![forbid(unsafe_code)]

use std::error::Error as _;
use std::io::{self, Read as _};
use std::process;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::{env, fs};

use sockexec::daemon::BindError;
use sockexec::{Command, Daemon, Stdio};

/// How long to wait for what must happen: only a fault takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first order is TERM, the second KILL, whatever the kill time-out. The caller's own signals and handlers are no part of it.
#[test]
fn a_handle_shuts_it_down() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("sock");
    let daemon = Daemon::builder().timeout(None).kill_timeout(PATIENCE * 100).bind(&socket).unwrap();
    assert_eq!(daemon.path(), Some(socket.as_path()));
    assert!(format!("{daemon:?}").contains(socket.to_str().unwrap()), "{daemon:?}");
    let handle = daemon.handle();
    let (sender, end) = mpsc::channel();
    let thread = thread::spawn(move || sender.send(daemon.run()).unwrap());

    let output = Command::new(&socket, "cat").stdin_bytes("through cat").output().unwrap();
    assert_eq!((output.stdout.as_slice(), output.status.code()), (b"through cat".as_slice(), Some(0)));

    let mut stubborn = Command::new(&socket, "/bin/sh");
    stubborn.args(["-c", "trap 'echo TERM' TERM; echo ready; while :; do read line; done"]);
    let mut child = stubborn.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut line = [0; 6];
    stdout.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"ready\n");

    handle.shut_down();
    let mut line = [0; 5];
    stdout.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"TERM\n");
    assert!(!socket.exists(), "no more clients");
    assert!(end.try_recv().is_err(), "its program lives");

    handle.shut_down();
    end.recv_timeout(PATIENCE).expect("an end").unwrap();
    thread.join().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

/// What is in the way can be asked for, down to the system's error.
#[test]
fn why_it_cannot_listen() {
    let directory = tempfile::tempdir().unwrap();
    let error = Daemon::builder().bind(directory.path().join("missing/sock")).unwrap_err();
    assert!(matches!(error, BindError::Create(..)), "{error:?}");
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).unwrap();
    assert_eq!(cause.kind(), io::ErrorKind::NotFound);

    let file = directory.path().join("file");
    fs::write(&file, "kept").unwrap();
    let error = Daemon::builder().bind(&file).unwrap_err();
    assert!(matches!(error, BindError::NotASocket(_, "regular file")), "{error:?}");
    assert!(error.source().is_none(), "no call of the system's has failed: {error:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
}

/// An application that ignores CHLD could not learn how a program ended: it is told before there is a socket.
#[test]
fn children_that_nobody_can_wait_for() {
    const INSIDE: &str = "SOCKEXEC_TEST_SOCKET";
    if let Some(socket) = env::var_os(INSIDE) {
        let error = Daemon::builder().bind(&socket).unwrap_err();
        assert!(matches!(error, BindError::ChildrenIgnored), "{error:?}");
        assert_eq!(error.to_string(), "SIGCHLD is ignored in this process, so no exit status can be learned");
        assert!(error.source().is_none());
        assert!(!fs::exists(&socket).unwrap());
        return;
    }
    // What is ignored stays so over exec(2): this very test, in a process that was born so. Not by a shell's trap: dash keeps
    // CHLD for itself.
    let ignoring = || {
        let mut command = process::Command::new("env");
        command.arg("--ignore-signal=CHLD");
        command
    };
    if !ignoring().arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: this system's env(1) has no --ignore-signal");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = ignoring()
        .arg(env::current_exe().unwrap())
        .args(["--exact", "children_that_nobody_can_wait_for"])
        .env(INSIDE, directory.path().join("sock"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

/// "As many as possible" was a panic, or in a release a wrong number in a warning, where the application had
/// handed over a socket.
#[test]
fn no_number_is_too_many() {
    log::set_max_level(log::LevelFilter::Warn);
    let directory = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(directory.path().join("sock")).unwrap();
    let builder = Daemon::builder().max_connections(usize::MAX).max_waiting(usize::MAX);
    drop(builder.listener(std::os::fd::OwnedFd::from(listener)).build().unwrap());
}

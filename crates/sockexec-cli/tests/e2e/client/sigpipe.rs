//! SIGPIPE at its default, as in every C program and Python extension, ends the whole process.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sockexec::{Stdio, Version};

use super::text;
use crate::common::{Daemon, fixture};

/// The variable with the daemon's socket, for the process of its own.
const SOCKET: &str = "SOCKEXEC_TEST_SOCKET";

/// `child.stdout` was dropped while the program wrote, and the process died. With std it survives.
#[test]
fn dropped_output_raises_no_sigpipe() {
    let daemon = Daemon::start("-t 0");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "client::sigpipe::in_a_process_of_its_own", "--ignored", "--nocapture"]);
    let output = command.env(SOCKET, daemon.socket()).output().expect("it starts");
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "{}", text(&output.stdout));
}

/// Registers a handler, which sees the signal. Rust's runtime ignores it, so nothing would show
/// otherwise.
#[test]
#[ignore = "the test before this runs it, in a process in which nothing else happens"]
fn in_a_process_of_its_own() {
    let Some(socket) = std::env::var_os(SOCKET).map(PathBuf::from) else { return };
    let raised = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGPIPE, Arc::clone(&raised)).expect("a handler");
    for version in [Version::One, Version::Two] {
        // A pipe that the library made, one of ours, and the same with a socket.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("sockets");
        for (stdout, reader) in [
            (Stdio::piped(), None),
            (writer.into(), Some(std::os::fd::OwnedFd::from(reader))),
            (theirs.into(), Some(ours.into())),
        ] {
            let mut command = sockexec::Command::new(&socket, fixture());
            command.arg("flood").version(version).stdin(Stdio::null()).stdout(stdout);
            let mut child = command.spawn().expect("it starts");
            drop(command);
            let mut reader = reader.map(std::fs::File::from);
            let mut some = [0; 1000];
            match (&mut reader, &mut child.stdout) {
                (Some(reader), _) => reader.read_exact(&mut some).expect("some of the flood"),
                (None, Some(stdout)) => stdout.read_exact(&mut some).expect("some of the flood"),
                (None, None) => panic!("no pipe"),
            }
            drop((reader, child.stdout.take()));
            child.wait().expect_err("nobody reads");
            assert!(!raised.load(Ordering::Acquire), "SIGPIPE in {version:?}");
        }
    }
}

//! The client: the command as its users see it, and the library.

mod command;
mod command_2;
mod ends;
mod fake;
mod forgotten;
mod futures;
mod introduction;
mod leftovers;
mod library;
mod like_std;
mod like_tokio;
mod metrics;
mod partial;
mod ping;
mod recorded;
mod sigpipe;
mod spawned;
mod statuses;
mod stopped;
mod streams;
mod terminals;
mod tty;
mod version_2;
mod waits;
mod window;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use crate::common::{Daemon, PATIENCE, fixture, steps, wait_for_exit};

/// `sockexec-client SOCKET` in the test's directory, with empty standard input and pipes for both
/// outputs.
fn bare(daemon: &Daemon) -> Command {
    // The fixture execs it with signals at their defaults.
    let mut command = Command::new(fixture());
    command.arg("exec").arg(env!("CARGO_BIN_EXE_sockexec-client"));
    command.current_dir(daemon.directory()).env_remove("SOCKEXEC_SOCKET");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same with a program.
fn client<A: AsRef<OsStr>>(daemon: &Daemon, argv: &[A]) -> Command {
    let mut command = bare(daemon);
    command.arg(daemon.socket()).args(argv);
    command
}

/// The same with the fixture and these steps.
fn fixture_client(daemon: &Daemon, words: &str) -> Command {
    client(daemon, &steps(words))
}

#[track_caller]
fn run(mut command: Command) -> Output {
    command.output().expect("the client starts")
}

#[track_caller]
fn wait(child: &mut Child) -> ExitStatus {
    wait_for_exit(child, PATIENCE).expect("the client ends")
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("text")
}

/// Asserts that the command failed without a status: 111, and a message that names the socket and
/// says what to check.
#[track_caller]
fn assert_lost(output: &Output, socket: &Path, advice: &str) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(111), "{message}");
    assert!(message.starts_with("sockexec-client: "), "{message}");
    for word in [socket.to_str().expect("UTF-8"), advice] {
        assert!(message.contains(word), "no {word:?} in {message}");
    }
}

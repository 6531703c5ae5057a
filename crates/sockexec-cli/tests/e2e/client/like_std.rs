//! The library beside the standard library, for people who know that one.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Command as StdCommand;

use sockexec::{ChildStdin, ChildStdout, Command, Error, ErrorKind, ExitStatus, Output, Signal, Stdio, Version};

use super::library::command;
use crate::common::{Daemon, fixture, steps};

/// The same calls, and the same results of the getters.
#[test]
fn a_command_tells_what_it_was_told() {
    macro_rules! told {
        ($new:expr) => {{
            let mut command = $new;
            command.arg("-a").args(["b c", ""]).env("B", "2").env("A", "1").env_remove("C").env("B", "3");
            let first = format!("{:?}", command.get_envs().collect::<Vec<_>>());
            command.env_clear().env("D", "4").env("E", "5").env_remove("E").env_remove("F").current_dir("/some/where");
            let args: Vec<_> = command.get_args().map(OsStr::to_owned).collect();
            let envs: Vec<_> =
                command.get_envs().map(|(name, value)| (name.to_owned(), value.map(OsStr::to_owned))).collect();
            let lengths = (command.get_args().len(), command.get_envs().len());
            let directory = command.get_current_dir().map(Path::to_owned);
            (command.get_program().to_owned(), args, first, envs, lengths, directory)
        }};
    }
    assert_eq!(told!(Command::new("/sock", "prog")), told!(StdCommand::new("prog")));
    let new = Command::new("/sock", "prog");
    assert_eq!((new.get_socket(), new.get_current_dir()), (Path::new("/sock"), None));
    assert_eq!((new.get_args().len(), new.get_envs().len()), (0, 0));
}

/// A clone is a separate command that shares the descriptors.
#[test]
fn a_clone_shares_the_descriptors() {
    let daemon = Daemon::start("");
    let path = daemon.directory().join("out");
    let mut first = command(&daemon, "env NAME out -");
    first.env("NAME", "first").stdout(File::create(&path).expect("a file"));
    let mut second = first.clone();
    second.env("NAME", "second").args(["out", "!"]);
    assert!(first.status().expect("a status").success());
    assert!(second.status().expect("a status").success());
    assert!(first.status().expect("a status").success());
    // One open file with one position.
    assert_eq!(std::fs::read_to_string(&path).expect("text"), "first\n-second\n-!first\n-");
    let mut cat = command(&daemon, "cat");
    cat.stdin_bytes("all of it");
    for mut cat in [cat.clone(), cat] {
        assert_eq!(cat.output().expect("a status").stdout, b"all of it");
    }
    // A pipe ends when the last of them is gone.
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut writing = command(&daemon, "out x");
    writing.stdout(writer);
    let mut cloned = writing.clone();
    assert!(writing.status().expect("a status").success());
    drop(writing);
    assert!(cloned.status().expect("a status").success());
    drop(cloned);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("its end");
    assert_eq!(text, "xx");
}

/// One descriptor for two streams, and the streams of this process in any role.
#[test]
fn what_streams_are_made_from() {
    let daemon = Daemon::start("");
    let mut file = tempfile::tempfile().expect("a file");
    let both = Stdio::from(file.try_clone().expect("a file"));
    let mut command = command(&daemon, "out a err b out c");
    let status = command.stdout(both.clone()).stderr(both).status().expect("a status");
    assert!(status.success());
    let mut text = String::new();
    file.rewind().expect("a file");
    file.read_to_string(&mut text).expect("text");
    let mut letters: Vec<char> = text.chars().collect();
    letters.sort_unstable();
    // The order of the two streams is open.
    assert_eq!(letters, ['a', 'b', 'c']);
}

/// Runs this test again in a process of its own, whose streams it uses.
#[test]
fn streams_of_this_process() {
    const SOCKET: &str = "SOCKEXEC_TEST_OWN_STREAMS";
    if let Some(socket) = std::env::var_os(SOCKET) {
        for pass in [false, true] {
            let mut command = Command::new(&socket, fixture());
            let argv = steps("out ERR err OUT");
            command.args(&argv[1..]).stdout(std::io::stderr()).stderr(std::io::stdout());
            if pass {
                command.pass_stdio();
            }
            assert!(command.status().expect("a status").success());
        }
        return;
    }
    let daemon = Daemon::start("");
    let mut alone = StdCommand::new(std::env::current_exe().expect("this test"));
    alone.args(["--exact", "client::like_std::streams_of_this_process", "--nocapture"]).env(SOCKET, daemon.socket());
    let output = alone.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert_eq!((stdout.matches("OUT").count(), stdout.matches("ERR").count()), (2, 0), "{stdout}");
    assert_eq!((stderr.matches("ERR").count(), stderr.matches("OUT").count()), (2, 0), "{stderr}");
}

/// Standard input by reference from several threads, and its descriptors, borrowed, taken and given
/// back.
#[test]
fn the_ends_of_pipes() {
    let daemon = Daemon::start("");
    let mut cat = command(&daemon, "cat");
    let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (&stdin).write_all(b"line\n").expect("it reads"));
        }
    });
    assert_eq!(stdin.as_raw_fd(), stdin.as_fd().as_raw_fd());
    let mut again = ChildStdin::from(OwnedFd::from(stdin));
    again.write_all(b"last\n").expect("it reads");
    drop(again);
    let stdout = ChildStdout::from(OwnedFd::from(child.stdout.take().expect("a pipe")));
    let output = std::io::read_to_string(stdout).expect("text");
    assert_eq!(output, "line\nline\nline\nline\nlast\n");
    assert!(child.wait().expect("a status").success());

    // It belongs to the caller, and stays open until somebody closes it.
    let mut child = command(&daemon, "verify").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    let raw = child.stdin.take().expect("a pipe").into_raw_fd();
    assert!(Path::new("/dev/fd").join(raw.to_string()).exists());
    child.kill().expect("it is told");
}

/// `?` for a program that failed, and the standard library's type for functions that expect it.
#[test]
fn statuses() {
    let daemon = Daemon::start("");
    let run = |words: &str| command(&daemon, words).status().expect("a status");
    assert_eq!(run("exit 0").exit_ok(), Ok(()));
    assert_eq!(run("exit 0"), ExitStatus::default());
    let error = run("exit 3").exit_ok().expect_err("it failed");
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (Some(3), "the program exited unsuccessfully: exit status: 3")
    );
    for words in ["exit 0", "exit 255", "die 15", "die 9"] {
        let argv = steps(words);
        let own = StdCommand::new(fixture()).args(&argv[1..]).status().expect("it runs");
        let theirs = run(words);
        assert_eq!(theirs.to_std(), Some(own), "{words}");
        assert_eq!(theirs.to_string(), own.to_string());
    }
    // What somebody else's test makes up, and what it sees when it fails.
    let mut output = Output::default();
    output.stdout = b"made up".to_vec();
    assert!(output.status.success());
    let shown = format!("{:?}", command(&daemon, "out made err up").output().expect("a status"));
    assert!(shown.contains(r#"stdout: "made", stderr: "up""#), "{shown}");
}

/// By name, by number, and something that is no signal. The program lives on after that one.
#[test]
fn signals() {
    let daemon = Daemon::start("-t 0");
    let spawn = || {
        let mut wait = command(&daemon, "out x wait");
        wait.version(Version::Two).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts")
    };
    let parsed: Signal = "USR1".parse().expect("a signal");
    for signal in [Signal::TERM, Signal::from(34), parsed] {
        let mut child = spawn();
        for number in [0, -1, i32::MIN] {
            let error = child.signal(number).expect_err("no signal");
            assert!(matches!(error, Error::InvalidOption(_)), "{error:?}");
            assert_eq!(error.kind(), ErrorKind::BadRequest);
        }
        child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("it lives");
        child.signal(signal).expect("it is sent");
        assert_eq!(child.wait().expect("a status").signal(), Some(signal.number()));
    }
    // A variable of this type needs no conversion.
    let number: i32 = 15;
    let mut child = spawn();
    child.signal(number).expect("it is sent");
    assert_eq!(child.wait().expect("a status").signal(), Some(Signal::TERM.number()));
}

/// All limits take a plain duration, and can be removed. Zero is refused, as std refuses it for a
/// socket's time-outs.
#[test]
fn limits_can_be_removed() {
    let daemon = Daemon::start("-t 0");
    let nothing = std::time::Duration::from_nanos(1);
    let mut command = command(&daemon, "out x");
    command.client_timeout(nothing).daemon_timeout(nothing);
    assert!(matches!(command.output(), Err(Error::TimedOut { .. })));
    let zero = std::time::Duration::ZERO;
    command.client_timeout(zero).daemon_timeout(zero).start_timeout(zero);
    assert!(matches!(command.output(), Err(Error::InvalidOption(_))));
    command.client_timeout(None).daemon_timeout(None).start_timeout(None);
    assert_eq!(command.output().expect("a status").stdout, b"x");
}

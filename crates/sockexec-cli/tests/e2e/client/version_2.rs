//! The library's options of version 2.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use sockexec::{Command, Error, ErrorKind, Stdio, Version, WindowSize};

use super::library::command;
use crate::common::{Daemon, PATIENCE, fixture};

fn stdout(command: &mut Command) -> String {
    let output = command.output().expect("a status");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn directory_and_environment() {
    let daemon = Daemon::start("");
    assert_eq!(stdout(command(&daemon, "cwd").current_dir("/usr")), "/usr\n");
    assert_eq!(stdout(command(&daemon, "env ONE").env("ONE", "a=b")), "a=b\n");
    assert_eq!(stdout(command(&daemon, "env TWO env ONE").envs([("ONE", "1"), ("TWO", "2")])), "2\n1\n");
    assert_eq!(stdout(command(&daemon, "env HOME").env("HOME", "x").env_remove("HOME")), "");
    assert_eq!(stdout(command(&daemon, "env ONE env TWO").env("ONE", "1").env_clear().env("TWO", "2")), "2\n");
}

#[test]
fn reasons() {
    let daemon = Daemon::start("");
    let kind = |result: Result<sockexec::Output, Error>| result.expect_err("a reason").kind();
    let version_2 = |program: &str| {
        let mut command = Command::new(daemon.socket(), program);
        command.version(Version::Two).client_timeout(PATIENCE);
        command
    };
    assert_eq!(kind(version_2("no-such-program").output()), ErrorKind::NotFound);
    assert_eq!(kind(version_2("/etc/passwd").output()), ErrorKind::NotExecutable);
    assert_eq!(kind(command(&daemon, "cwd").current_dir("/nowhere").output()), ErrorKind::NotFound);
    // As in the standard library, it fails before there is a child.
    let error = version_2("no-such-program").stdin(Stdio::null()).spawn().expect_err("no such program");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("no-such-program"), "{error}");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
    // Version 1 has a code instead.
    let output = Command::new(daemon.socket(), "no-such-program").output().expect("a status");
    assert_eq!(output.status.code(), Some(127));
}

/// Sets an invalid option.
type Spoil = fn(&mut Command) -> &mut Command;

#[test]
fn invalid_options_are_refused() {
    let daemon = Daemon::start("");
    let size = WindowSize { columns: 80, rows: 24 };
    let spoil: &[(Spoil, &str)] = &[
        (|command| command.current_dir(""), "directory"),
        (|command| command.current_dir("a\0b"), "NUL"),
        (|command| command.env("", "x"), "name"),
        (|command| command.env("A=B", "x"), "name"),
        (|command| command.env("A", "x\0"), "value"),
        (|command| command.env_remove("="), "name"),
        (|command| command.daemon_timeout(Duration::ZERO), "daemon timeout is zero"),
        (|command| command.start_timeout(Duration::ZERO), "start timeout is zero"),
        (|command| command.client_timeout(Duration::ZERO), "client timeout is zero"),
        (|command| command.env_clear().version(Version::One), "version 1"),
        (|command| command.pass_stdio().stderr_to_stdout(), "passed"),
        (|command| command.pass_stdio().stdin_bytes("x"), "memory"),
    ];
    for (spoil, word) in spoil {
        let mut command = command(&daemon, "exit 0");
        spoil(&mut command);
        let error = command.output().expect_err("it means nothing");
        assert!(matches!(error, Error::InvalidOption(_)), "{error:?}");
        assert!(error.to_string().contains(word), "no {word:?} in {error}");
    }
    let error = command(&daemon, "exit 0").terminal(size).pass_stdio().output().expect_err("either");
    assert_eq!(error.kind(), ErrorKind::BadRequest);
}

#[test]
fn a_deadline_comes_with_the_status() {
    let daemon = Daemon::start("-t 0");
    // No status comes with a deadline before the exec. Then the test tries again with more time.
    let mut statuses = [200, 2000, 20_000].into_iter().filter_map(|millis| {
        let mut command = command(&daemon, "out begun wait");
        let error = command.daemon_timeout(Duration::from_millis(millis)).output().expect_err("a deadline");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let Error::Failed { status, .. } = error else { panic!("{error:?}") };
        status
    });
    let signal = statuses.next().expect("a program that is there in time").signal();
    // KILL is for one that was not executed yet, and may find it executed.
    assert!([Some(9), Some(15)].contains(&signal), "{signal:?}");
}

#[test]
fn one_stream() {
    let daemon = Daemon::start("");
    let output = command(&daemon, "out a err b out c").stderr_to_stdout().output().expect("a status");
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"abc"[..], &b""[..]));
    assert!(cfg!(not(target_os = "linux")) || output.usage.is_some());
}

#[test]
fn numbers_signals_and_costs() {
    let daemon = Daemon::start("-t 0");
    let mut life = daemon.fifo("life");
    let words = format!("hold {} wait", life.path());
    let mut child = command(&daemon, &words).version(Version::Two).stdin(Stdio::null()).spawn().expect("it starts");
    let holder = life.holder();
    assert_eq!(child.id(), Some(holder.pid.as_raw_pid().cast_unsigned()));
    assert!(child.usage().is_none());
    child.signal(9).expect("it is sent");
    assert_eq!(child.wait().expect("a status").signal(), Some(9));
    assert!(cfg!(not(target_os = "linux")) || child.usage().is_some_and(|usage| usage.max_rss_kib > 0));
    // A signal to a program that has ended is not delivered, which is an error.
    assert!(matches!(child.signal(15), Err(Error::NotDelivered { ended: true })));
    child.kill().expect("nothing");
    assert_eq!(child.wait().expect("a status").signal(), Some(9));
    life.wait_for_death();
}

#[test]
fn a_handle_acts_while_the_child_is_waited_for() {
    let daemon = Daemon::start("-t 0");
    let mut life = daemon.fifo("life");
    let words = format!("hold {} wait", life.path());
    let mut child = command(&daemon, &words).version(Version::Two).stdin(Stdio::null()).spawn().expect("it starts");
    let handle = child.handle();
    let waiter = thread::spawn(move || child.wait());
    life.holder();
    handle.signal(10).expect("it is sent");
    assert_eq!(waiter.join().expect("no panic").expect("a status").signal(), Some(10));
}

#[test]
fn version_1_has_neither() {
    let daemon = Daemon::start("");
    let mut child = command(&daemon, "wait").stdin(Stdio::null()).spawn().expect("it starts");
    assert_eq!(child.id(), None);
    assert!(matches!(child.signal(15), Err(Error::InvalidOption(_))));
    assert!(matches!(child.resize(WindowSize { columns: 1, rows: 1 }), Err(Error::InvalidOption(_))));
    child.kill().expect("it is told");
    assert_eq!(child.wait().expect_err("it was killed").kind(), ErrorKind::Killed);
    assert_eq!(child.usage(), None);
}

#[test]
fn a_terminal_and_its_size() {
    let daemon = Daemon::start("-t 0");
    let mut command = Command::new(daemon.socket(), "sh");
    command.args(["-c", "stty -echo; stty size; read x; stty size"]).client_timeout(PATIENCE);
    command.terminal(WindowSize { columns: 132, rows: 50 }).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut line = [0; 8];
    stdout.read_exact(&mut line).expect("a size");
    assert_eq!(&line, b"50 132\r\n");
    child.resize(WindowSize { columns: 80, rows: 25 }).expect("it is sent");
    child.stdin.as_mut().expect("a pipe").write_all(b"\n").expect("a key");
    stdout.read_exact(&mut line[..7]).expect("a size");
    assert_eq!(&line[..7], b"25 80\r\n");
    assert!(child.wait().expect("a status").success());
}

/// A file stays a file, and the caller may have pipes of its own.
#[test]
fn descriptors_are_passed() {
    let daemon = Daemon::start("");
    let path = |name| daemon.directory().join(name);
    std::fs::write(path("in"), "from a file").expect("a file");
    let mut cat = command(&daemon, "cat fds");
    cat.pass_stdio().stdin(File::open(path("in")).expect("a file"));
    cat.stdout(File::create(path("out")).expect("a file")).stderr(Stdio::null());
    assert!(cat.status().expect("a status").success());
    let out = std::fs::read_to_string(path("out")).expect("a file");
    assert!(out.starts_with("from a file"), "{out}");
    for (number, name) in [(0, "in"), (1, "out")] {
        let line = format!("{number} {}", path(name).display());
        assert!(out.contains(&line), "no {line:?} in {out}");
    }
    assert!(out.contains("2 /dev/null"), "{out}");
    // More than pipes hold, in both directions.
    let bytes: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
    let mut command = command(&daemon, "cat err done");
    let child = command.pass_stdio().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let sent = bytes.clone();
    let writer = thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output().expect("a status");
    writer.join().expect("no panic").expect("all is read");
    assert!(output.stdout == bytes && output.stderr == b"done");
    let output = Command::new(daemon.socket(), fixture()).arg("verify").pass_stdio().output().expect("a status");
    assert_eq!(output.stdout, b"ok 0\n");
    // Pipes whose other end nobody has are the same as nothing: this program once waited for ever.
    let mut verify = Command::new(daemon.socket(), fixture());
    verify.arg("verify").pass_stdio().stdin(Stdio::piped()).stdout(Stdio::piped()).client_timeout(PATIENCE);
    assert!(verify.status().expect("a status").success());
}

/// A daemon that reads everything and sends nothing, as 3.1.1 does; one that refuses the request in
/// version 1; one that closes.
#[test]
fn daemons_without_version_2_are_reported() {
    let answers: [(Option<&[u8]>, ErrorKind); 3] = [
        (None, ErrorKind::Unsupported),
        (Some(b"6:stderr,12:sockexec: no,8:exitcode,3:125,"), ErrorKind::Unsupported),
        (Some(b""), ErrorKind::Lost),
    ];
    for (answer, kind) in answers {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let daemon = thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            let mut byte = [0];
            while client.read(&mut byte).is_ok_and(|n| n > 0) && byte != *b"=" {}
            match answer {
                Some(answer) => {
                    // All of it, so that the close is no reset.
                    client.set_nonblocking(true).expect("a socket");
                    let _ = client.read(&mut [0; 1000]);
                    client.write_all(answer).expect("the client reads");
                }
                None => drop(io::copy(&mut client, &mut io::sink())),
            }
        });
        let mut command = Command::new(&socket, "true");
        // Standard input is never read, because it could be for another program.
        let (reader, mut writer) = io::pipe().expect("a pipe");
        writer.write_all(b"kept").expect("a pipe");
        command.version(Version::Two).stdin(reader.try_clone().expect("a pipe")).client_timeout(PATIENCE);
        let error = command.status().expect_err("no version 2");
        assert_eq!(error.kind(), kind, "{error}");
        drop((command, writer));
        let mut kept = String::new();
        { reader }.read_to_string(&mut kept).expect("a pipe");
        assert_eq!(kept, "kept");
        daemon.join().expect("no panic");
    }
}

#[test]
fn a_daemon_describes_itself() {
    let daemon = Daemon::start("-m 7");
    let status = sockexec::client::daemon_status(daemon.socket(), PATIENCE).expect("a status");
    assert!(status.contains("\"max_connections\":7"), "{status}");
    let error = sockexec::client::daemon_status("/nowhere/sock", PATIENCE).expect_err("no daemon");
    assert_eq!(error.kind(), ErrorKind::Connect);
}

//! Lives of connections that speak version 2: what their options, terminals and descriptors call.

use std::fs::File;
use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::Signal;

use super::run;
use super::scenario::{Life, Outcome, Scenario, connect_with, end_of, pairs, pattern, prepare, read_reply};
use super::strace::{self, Fault, Strace, Whom};
use crate::common::{Daemon, Launch, Process, eventually, request, steps};
use crate::version_2::netstring;

const OPTIONS: Scenario = Scenario {
    name: "version-2",
    story: "version 2: a directory, an environment, 100,000 bytes through `cat`, and a word on stderr",
    options: "",
    calls: &[
        "recvmsg",
        "recvfrom",
        "pipe2",
        "clone3",
        "epoll_ctl",
        "read",
        "write",
        "sendto",
        "waitid",
        "fcntl",
        "close",
    ],
    never: &[],
    play: options,
};

const TERMINAL: Scenario = Scenario {
    name: "terminal",
    story: "version 2: a terminal, a new size, the end of its input, five letters of output",
    options: "",
    calls: &["open", "openat", "ioctl", "fcntl", "pipe2", "clone3", "read", "write", "epoll_ctl", "close"],
    never: &[],
    play: terminal,
};

const HANG_UP: Scenario = Scenario {
    name: "hang-up",
    story: "version 2: a client goes while a program with a terminal, and one that ignores HUP and TERM in another group of its session, run",
    options: "",
    calls: &["openat", "getdents64", "getsid", "kill", "pidfd_open", "pidfd_send_signal"],
    never: &[],
    play: hang_up,
};

const PASSED: Scenario = Scenario {
    name: "passed",
    story: "version 2: a program whose output is a file of the client's",
    options: "",
    calls: &["recvmsg", "fcntl", "pipe2", "clone3", "waitid", "epoll_ctl", "pidfd_open", "close"],
    never: &[],
    play: passed,
};

pub(super) const ALL: [Scenario; 4] = [OPTIONS, TERMINAL, HANG_UP, PASSED];

#[test]
fn version_2() {
    run(&OPTIONS, None, Whom::Daemon);
}

#[test]
fn version_2_terminal() {
    run(&TERMINAL, None, Whom::Daemon);
}

#[test]
fn version_2_hang_up() {
    run(&HANG_UP, None, Whom::Daemon);
}

#[test]
fn version_2_passed() {
    run(&PASSED, None, Whom::Daemon);
}

/// What fails in the child, between clone and exec.
#[test]
fn version_2_child() {
    for (name, spawn) in [("version-2-child", None), ("version-2-portable-child", Some("portable"))] {
        let calls = &["setsid", "setpgid", "ioctl", "chdir"];
        run(&Scenario { name, calls, play: terminal, ..TERMINAL }, spawn, Whom::Children);
    }
}

/// What tells of an exec cannot be waited for, and the exec takes long: the daemon looks again until it can be, and only so
/// long.
#[test]
fn an_exec_that_cannot_be_waited_for() {
    if !strace::is_usable() {
        return;
    }
    prepare();
    // The portable way waits for the exec itself.
    let mut daemon = Launch::default().options("-t 0").env("SOCKEXEC_SPAWN", "fast").start();
    let mut client = daemon.connect();
    // Whoever comes later is served later: by then the daemon listens to this one, and has nothing else to do.
    let position = daemon.log_position();
    daemon.assert_serves();
    daemon.wait_for_log_after(position, "over after");
    let position = daemon.log_position();
    let faults = [("close_range", "signal=STOP", "1"), ("epoll_ctl", "ENOSPC", "1..3")]
        .map(|(call, error, when)| Fault { call, error, when: when.into() });
    let strace = Strace::inject_all(daemon.process(), Whom::Children, &faults);
    client.send(&begin(&[], "out ready cat exit 4"));
    // The child stops before its exec; the fourth attempt to wait for that succeeds.
    strace.wait_for_calls(5);
    strace.wait_for_stops(1);
    daemon.signal(Signal::USR1);
    daemon.wait_for_log_after(position, "exec of the program");
    strace.detach();
    let log = daemon.log_text().split_off(position);
    assert_eq!(log.matches("cannot wait for the exec: No space left on device").count(), 3, "{log}");
    let program = Process(*daemon.started(position).first().expect("a program"));
    eventually("a program that has stopped", || program.is_stopped());
    daemon.assert_idle("a program has stopped before its exec");
    assert_eq!(rustix::io::ioctl_fionread(client.socket()), Ok(0), "told before it was executed");
    rustix::process::kill_process(program.0, Signal::CONT).unwrap();
    client.wait_for("ready");
    daemon.assert_idle("the program was executed");
    client.send(b"5:stdin,4:word,5:stdin,0:,");
    let raw = client.rest();
    let pairs = pairs(&raw).expect("pairs");
    assert_eq!(pairs.first().map(|pair| pair.0), Some(b"started".as_slice()));
    assert!(pairs.contains(&(b"stdout", b"word")));
    assert_eq!(pairs.last(), Some(&(b"exitcode".as_slice(), b"4".as_slice())));
}

fn begin(options: &[&str], steps_: &str) -> Vec<u8> {
    let options = options.iter().flat_map(netstring);
    netstring("protocol=2").into_iter().chain(options).chain(request(&steps(steps_))).collect()
}

fn options(daemon: &Daemon, directory: &Path) -> Outcome {
    let cwd = format!("cwd={}", directory.display());
    let bytes = begin(&[&cwd, "clearenv", "env=A=b"], "env A err note cat");
    let Some(mut socket) = connect_with(daemon, &bytes) else { return Outcome::Closed };
    let input = pattern(100_000);
    let _ = socket.write_all(&[b"5:stdin,", netstring(&input).as_slice(), b"5:stdin,0:,"].concat());
    judge(socket, &[b"b\n", input.as_slice()].concat(), b"note", "0")
}

fn terminal(daemon: &Daemon, _: &Path) -> Outcome {
    let bytes = begin(&["pty=80x24", "cwd=/"], "cat out words exit 4");
    let Some(mut socket) = connect_with(daemon, &bytes) else { return Outcome::Closed };
    let _ = socket.write_all(b"7:winsize,6:100x50,5:stdin,0:,");
    judge(socket, b"words", b"", "4")
}

fn hang_up(daemon: &Daemon, directory: &Path) -> Outcome {
    let (mut leader, mut child) = (Life::new(directory, "leader"), Life::new(directory, "child"));
    let steps_ = format!("spawn [ setpgid ignore HUP TERM ; hold {} wait ] hold {} wait", child.path(), leader.path());
    let Some(mut socket) = connect_with(daemon, &begin(&["pty=80x24"], &steps_)) else { return Outcome::Closed };
    // What comes after that is no answer to wait for.
    if !read_started(&mut socket) {
        return judge(socket, b"", b"", "0");
    }
    if !(leader.wait_for_start(&socket) && child.wait_for_start(&socket)) {
        return judge(socket, b"", b"", "0");
    }
    drop(socket);
    end_of([leader, child])
}

/// Takes `started` off a reply; false: it does not begin with that, but with the end or with `error`, which are left.
fn read_started(socket: &mut UnixStream) -> bool {
    let mut first = [0; 1];
    // The first digit tells: `7:started,` or `5:error,`.
    if !matches!(rustix::net::recv(&*socket, &mut first, RecvFlags::PEEK), Ok((1, _))) || first != *b"7" {
        return false;
    }
    let (mut byte, mut commas) = ([0; 1], 0);
    while commas < 2 && socket.read_exact(&mut byte).is_ok() {
        commas += usize::from(byte == *b",");
    }
    commas == 2
}

fn passed(daemon: &Daemon, directory: &Path) -> Outcome {
    let null = File::open("/dev/null").expect("/dev/null");
    let path = directory.join("file");
    let file = File::create(&path).expect("a file");
    let Some(socket) = connect_with(daemon, b"") else { return Outcome::Closed };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [null.as_fd(), file.as_fd(), file.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let bytes = begin(&["fds"], "out words exit 4");
    let _ = rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty());
    let _ = socket.shutdown(Shutdown::Write);
    let outcome = judge(socket, b"", b"", "4");
    match std::fs::read(&path).expect("the file") {
        text if outcome == Outcome::Served && text != b"words" => {
            Outcome::Wrong("the output is not in the file".into())
        }
        _ => outcome,
    }
}

/// Reads the reply, and says what it is worth.
fn judge(socket: UnixStream, stdout: &[u8], stderr: &[u8], code: &str) -> Outcome {
    let raw = match read_reply(socket) {
        Ok(raw) => raw,
        Err(outcome) => return outcome,
    };
    let pairs = match pairs(&raw) {
        Ok(pairs) => pairs,
        Err(fault) => return Outcome::Wrong(fault),
    };
    let (mut out, mut err, mut exit, mut failure) = (Vec::new(), Vec::new(), None, None);
    for (tag, payload) in pairs {
        let text = String::from_utf8_lossy(payload).into_owned();
        match (tag, &exit) {
            (b"stdout", None) => out.extend_from_slice(payload),
            (b"stderr", None) => err.extend_from_slice(payload),
            (b"error", None) => failure = Some(text),
            (b"started" | b"usage", None) => {}
            (b"exitcode" | b"termsig", None) => exit = Some((tag, text)),
            _ => return Outcome::Wrong(format!("{} in the wrong place", tag.escape_ascii())),
        }
    }
    if !stdout.starts_with(&out) {
        return Outcome::Wrong(format!("output that is not the program's: {}", out.escape_ascii()));
    }
    match (exit, failure) {
        (None, None) => Outcome::Closed,
        (None, Some(failure)) => {
            let (code, text) = failure.split_once(' ').unwrap_or((&failure, ""));
            let reason = text.rsplit_once(": ").map_or(text, |(_, reason)| reason);
            Outcome::Told(format!("{code}, \"{reason}\""))
        }
        (Some((b"termsig", signal)), _) => Outcome::Ended(signal),
        (Some((_, found)), None) if found != code => Outcome::Wrong(format!("exit code {found}")),
        (Some(_), None) if out != stdout => {
            Outcome::Wrong(format!("{} of {} bytes of stdout, and the right code", out.len(), stdout.len()))
        }
        (Some(_), None) if err != stderr => Outcome::Wrong(format!("stderr \"{}\"", err.escape_ascii())),
        (Some(_), None) => Outcome::Served,
        // The deadline came for whoever held the output, and the program was done: both are true.
        (Some((_, found)), Some(failure)) if failure.starts_with("timeout ") && found == code => {
            Outcome::Told(format!("timeout, and exit code {found}"))
        }
        (Some((_, code)), Some(failure)) => Outcome::Wrong(format!("exit code {code} after {failure}")),
    }
}

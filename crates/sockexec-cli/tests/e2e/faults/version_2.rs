//! Connections of version 2, for the calls that their options, terminals and descriptors make.

use std::fs::File;
use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::Signal;

use super::run;
use super::scenario::{
    Life, Outcome, PATIENCE, Scenario, connect_with, end_of, make_fifo, pairs, prepare, read_reply, within, writer_of,
};
use super::strace::{self, Fault, Strace, Whom};
use crate::common::{Daemon, Launch, Process, eventually, pattern, request, steps};
use crate::version_2::netstring;

const OPTIONS: Scenario = Scenario {
    name: "version-2",
    story: "version 2: a directory, an environment, 100,000 bytes through `cat`, and a word on stderr",
    options: "",
    calls: &["recvmsg", "pipe2", "clone3", "epoll_ctl", "read", "write", "sendto", "waitid", "fcntl", "close"],
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

const HELD: Scenario = Scenario {
    name: "held",
    story: "version 2: 4,000,000 bytes for a program that reads them late, as much held for it as may be, and reports of what it took",
    options: "",
    calls: &[
        "recvmsg",
        "setsockopt",
        "getpeername",
        "write",
        "splice",
        "poll",
        "ioctl",
        "fcntl",
        "epoll_ctl",
        "epoll_wait",
        "sendto",
        "mmap",
        "mremap",
    ],
    never: &[],
    play: held,
};

const CLOSED: Scenario = Scenario {
    name: "closed-input",
    story: "version 2: a program that closes its input, which it is told when there is some",
    options: "",
    calls: &["recvmsg", "write", "epoll_ctl", "close", "sendto"],
    never: &[],
    play: closed_input,
};

const QUEUED: Scenario = Scenario {
    name: "queued",
    story: "version 2: a request that waits for its slot, and the ping of another client meanwhile",
    options: "",
    calls: &["accept4", "recvmsg", "epoll_ctl", "clone3", "pipe2", "waitid", "sendto", "shutdown", "close"],
    never: &[],
    play: queued,
};

pub(super) const ALL: [Scenario; 7] = [OPTIONS, TERMINAL, HANG_UP, PASSED, HELD, CLOSED, QUEUED];

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

#[test]
fn version_2_held() {
    run(&HELD, None, Whom::Daemon);
}

#[test]
fn version_2_closed_input() {
    run(&CLOSED, None, Whom::Daemon);
}

#[test]
fn version_2_queued() {
    run(&QUEUED, None, Whom::Daemon);
}

/// A call fails in the child, between clone and exec.
#[test]
fn version_2_child() {
    for (name, spawn) in [("version-2-child", None), ("version-2-clone-child", Some("clone"))] {
        let calls = &["setsid", "setpgid", "ioctl", "chdir"];
        run(&Scenario { name, calls, play: terminal, ..TERMINAL }, spawn, Whom::Children);
    }
}

/// The event of a slow exec cannot be waited for. The daemon polls until it can be, and no longer.
#[test]
fn an_exec_that_cannot_be_waited_for() {
    if !strace::is_usable() {
        return;
    }
    prepare();
    let mut daemon = Launch::default().options("-t 0").start();
    let mut client = daemon.connect();
    // Connections that come later are served later. So the daemon knows this one by now, and is
    // idle.
    let position = daemon.log_position();
    daemon.assert_serves();
    daemon.wait_for_log_after(position, "over after");
    let position = daemon.log_position();
    let faults = [("close_range", "signal=STOP", "1"), ("epoll_ctl", "ENOSPC", "1..3")]
        .map(|(call, error, when)| Fault { call, error, when: when.into() });
    let strace = Strace::inject_all(daemon.process(), Whom::Children, &faults);
    client.send(&begin(&[], "out ready cat exit 4"));
    // The child stops before its exec. The fourth attempt to wait for the exec succeeds.
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
    client.wait_for("status,");
    assert_eq!(rustix::io::ioctl_fionread(client.socket()), Ok(0), "told before it was executed");
    rustix::process::kill_process(program.0, Signal::CONT).unwrap();
    client.wait_for("ready");
    daemon.assert_idle("the program was executed");
    client.send(b"5:stdin,4:word,5:stdin,0:,");
    let raw = client.rest();
    let pairs = pairs(&raw).expect("pairs");
    assert_eq!(pairs.get(1).map(|pair| pair.0), Some(b"started".as_slice()));
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
    // What follows is not an answer to wait for.
    if !read_started(&mut socket) {
        return judge(socket, b"", b"", "0");
    }
    if !(leader.wait_for_start(&socket) && child.wait_for_start(&socket)) {
        return judge(socket, b"", b"", "0");
    }
    drop(socket);
    end_of([leader, child])
}

/// Reads the introduction and `started`. False if an error or the end comes in place of `started`;
/// that is not read.
fn read_started(socket: &mut UnixStream) -> bool {
    // The first digits differ: `8:protocol,`, `7:started,`, `5:error,`.
    read_pair(socket, b'8') && read_pair(socket, b'7')
}

/// Reads a pair that begins with this digit. False if it begins with another one; then nothing is
/// read.
fn read_pair(socket: &mut UnixStream, digit: u8) -> bool {
    let mut first = [0; 1];
    if !matches!(rustix::net::recv(&*socket, &mut first, RecvFlags::PEEK), Ok((1, _))) || first != [digit] {
        return false;
    }
    read_netstring(socket).and_then(|_| read_netstring(socket)).is_some()
}

fn read_netstring(socket: &mut UnixStream) -> Option<Vec<u8>> {
    let (mut byte, mut len) = ([0; 1], 0);
    loop {
        socket.read_exact(&mut byte).ok()?;
        match byte {
            [b':'] => break,
            [digit] => len = len * 10 + usize::from(digit - b'0'),
        }
    }
    let mut payload = vec![0; len + 1];
    socket.read_exact(&mut payload).ok()?;
    Some(payload)
}

fn held(daemon: &Daemon, directory: &Path) -> Outcome {
    let gate = directory.join("gate");
    make_fifo(&gate);
    let bytes = begin(&[], &format!("gate {} verify exit 5", gate.display()));
    let Some(mut socket) = connect_with(daemon, &bytes) else { return Outcome::Closed };
    let input = pattern(4_000_000);
    if !read_started(&mut socket) {
        return judge(socket, b"", b"", "5");
    }
    let pair = |piece: &[u8]| [b"5:stdin,", netstring(piece).as_slice()].concat();
    let frames: Vec<u8> = input.chunks(60_000).flat_map(pair).collect();
    let (mut rest, mut gate) = (frames.as_slice(), Some(gate));
    while !rest.is_empty() {
        // Until nothing more is taken, because the program does not read.
        let patience = if gate.is_some() { Duration::from_millis(150) } else { PATIENCE };
        socket.set_write_timeout(Some(patience)).expect("a time-out");
        match (socket.write(rest), gate.take()) {
            (Ok(n), waits) => {
                rest = rest.get(n..).unwrap_or_default();
                gate = waits;
            }
            (Err(_), Some(gate)) => drop(open_gate(&gate)),
            (Err(_), None) => break,
        }
    }
    // When all was taken, or the daemon has given up.
    drop(gate.and_then(|gate| open_gate(&gate)));
    let _ = socket.write_all(b"5:stdin,0:,");
    judge(socket, format!("ok {}\n", input.len()).as_bytes(), b"", "5")
}

/// Waits for a program at this FIFO. Dropping the result lets it go on. `None` if no program came.
fn open_gate(gate: &Path) -> Option<OwnedFd> {
    let mut writer = None;
    within(Duration::from_secs(3), || {
        writer = writer_of(gate);
        writer.is_some()
    });
    writer
}

fn closed_input(daemon: &Daemon, directory: &Path) -> Outcome {
    let gate = directory.join("gate");
    make_fifo(&gate);
    let bytes = begin(&[], &format!("close 0 gate {} out words exit 5", gate.display()));
    let Some(mut socket) = connect_with(daemon, &bytes) else { return Outcome::Closed };
    if !read_started(&mut socket) {
        return judge(socket, b"words", b"", "5");
    }
    let Some(waits) = open_gate(&gate) else { return judge(socket, b"words", b"", "5") };
    let _ = socket.write_all(b"5:stdin,4:word,");
    // The daemon reports it while the program waits, or something else has ended the program.
    let first = read_netstring(&mut socket);
    drop(waits);
    if first.as_deref() == Some(b"input-closed,") {
        let _ = read_netstring(&mut socket);
        let _ = socket.write_all(b"5:stdin,4:more,5:stdin,0:,");
        return judge(socket, b"words", b"", "5");
    }
    let raw = first.map(|tag| [format!("{}:", tag.len() - 1).as_bytes(), tag.as_slice()].concat()).unwrap_or_default();
    match judge_from(raw, socket, b"words", b"", "5") {
        Outcome::Served => Outcome::Wrong("nobody said that the input is closed".into()),
        outcome => outcome,
    }
}

fn queued(daemon: &Daemon, directory: &Path) -> Outcome {
    // As many as there are slots (`OPTIONS`). The first of them shows that it lives.
    let mut life = Life::new(directory, "life");
    let argv = [format!("hold {} cat", life.path()), "cat".to_owned(), "cat".to_owned()];
    let mut running: Vec<UnixStream> =
        argv.iter().filter_map(|steps| connect_with(daemon, &begin(&[], steps))).collect();
    if let Some(first) = running.first_mut() {
        let _ = read_started(first) && life.wait_for_start(first);
    }
    let Some(mut last) = connect_with(daemon, &begin(&[], "out words exit 4")) else { return Outcome::Closed };
    let Some(ping) = connect_with(daemon, &netstring("protocol=2")) else { return Outcome::Closed };
    let _ = ping.shutdown(Shutdown::Write);
    match read_reply(ping) {
        // A reply that is cut is no answer. All others are the introduction alone.
        Ok(raw) if raw.is_empty() || raw.starts_with(b"8:protocol,") && pairs(&raw).is_ok_and(|all| all.len() == 1) => {
        }
        Ok(raw) => return Outcome::Wrong(format!("a ping: {}", raw.escape_ascii())),
        Err(outcome) => return outcome,
    }
    let _ = last.write_all(b"5:stdin,0:,");
    for socket in &mut running {
        let _ = socket.write_all(b"5:stdin,0:,");
    }
    running.into_iter().map(|socket| judge(socket, b"", b"", "0")).fold(judge(last, b"words", b"", "4"), |all, one| {
        // The error of one of them, if there was one.
        if all == Outcome::Served || matches!(one, Outcome::Wrong(_)) { one } else { all }
    })
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

/// Reads the reply and classifies it.
fn judge(socket: UnixStream, stdout: &[u8], stderr: &[u8], code: &str) -> Outcome {
    judge_from(Vec::new(), socket, stdout, stderr, code)
}

/// The same for a reply of which `raw` was read already.
fn judge_from(mut raw: Vec<u8>, socket: UnixStream, stdout: &[u8], stderr: &[u8], code: &str) -> Outcome {
    match read_reply(socket) {
        Ok(rest) => raw.extend(rest),
        Err(outcome) => return outcome,
    }
    let pairs = match pairs(&raw) {
        Ok(pairs) => pairs,
        Err(fault) => return Outcome::Wrong(fault),
    };
    let (mut out, mut err, mut exit, mut failure) = (Vec::new(), Vec::new(), None, None);
    let mut input_closed = false;
    for (tag, payload) in pairs {
        let text = String::from_utf8_lossy(payload).into_owned();
        match (tag, &exit) {
            (b"stdout", None) => out.extend_from_slice(payload),
            (b"stderr", None) => err.extend_from_slice(payload),
            (b"error", None) if failure.is_some() => return Outcome::Wrong(format!("a second error: {text}")),
            (b"error", None) => failure = Some(text),
            (b"protocol" | b"queued" | b"started" | b"taken" | b"usage", None) => {}
            // For a program that dies before it has taken its input.
            (b"input-closed", None) if !input_closed => input_closed = true,
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
        (Some(_), None) if input_closed => Outcome::Wrong("input-closed, and the program took all of it".into()),
        (Some(_), None) => Outcome::Served,
        // The program was done, and then the deadline came for the holder of the output. Both are
        // right.
        (Some((_, found)), Some(failure)) if failure.starts_with("timeout ") && found == code => {
            Outcome::Told(format!("timeout, and exit code {found}"))
        }
        (Some((_, code)), Some(failure)) => Outcome::Wrong(format!("exit code {code} after {failure}")),
    }
}

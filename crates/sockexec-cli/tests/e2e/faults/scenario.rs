//! Short lives of one connection, each for calls that the others do not make. One call fails
//! meanwhile.

use std::io::{Read, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{Daemon, Process, fixture, pattern, request};

/// The daemon gives up on a connection after this, so that no case takes long.
pub(crate) const OPTIONS: &str = "-m 3 -t 4 -k 0.3";

/// Longer than [`OPTIONS`] let any connection last, with room for a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What the client got.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// The right answer, to the last byte.
    Served,
    /// An answer with the exit code and the reason.
    Told(String),
    /// The program was ended by this signal, and the client learned that.
    Ended(String),
    /// The connection ended without an exit pair. What had come by then was right.
    Closed,
    /// There was no client to answer. The program and its group are gone.
    Gone,
    /// There was no client to answer. A member of the group lives on.
    LivesOn,
    /// Must never happen: a wrong answer that looks right, or none at all.
    Wrong(String),
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Served => f.write_str("served"),
            Self::Told(what) => write!(f, "told: {what}"),
            Self::Ended(signal) => write!(f, "program ended, told: termsig {signal}"),
            Self::Closed => f.write_str("closed, no exit pair"),
            Self::Gone => f.write_str("group ended"),
            Self::LivesOn => f.write_str("a member of the group lives on"),
            Self::Wrong(what) => write!(f, "WRONG: {what}"),
        }
    }
}

/// A short life of one connection.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) story: &'static str,
    /// The daemon's options besides [`OPTIONS`].
    pub(crate) options: &'static str,
    /// The calls that a normal run makes fail here.
    pub(crate) calls: &'static [&'static str],
    /// The calls that no run makes fail.
    pub(crate) never: &'static [&'static str],
    pub(crate) play: fn(&Daemon, &Path) -> Outcome,
}

pub(crate) const ECHO: Scenario = Scenario {
    name: "echo",
    story: "200,000 bytes through `cat`, and a word on stderr",
    options: "",
    calls: &[
        "accept4",
        "getsockopt",
        "epoll_ctl",
        "epoll_wait",
        "setsockopt",
        "pipe2",
        "clone3",
        "clone",
        "fork",
        "vfork",
        "fcntl",
        "ioctl",
        "close",
        "read",
        "write",
        "sendto",
        "waitid",
        "wait4",
        "shutdown",
        "mmap",
        "munmap",
        "mprotect",
        "mremap",
        "brk",
        "rt_sigprocmask",
        "socketpair",
        "recvmsg",
        "poll",
        "splice",
        "tee",
        "sendmsg",
    ],
    never: &[],
    play: echo,
};

pub(crate) const SPOOL: Scenario = Scenario {
    name: "spool",
    story: "3,000,000 bytes of output for a client that does not read before the program is done",
    options: "",
    calls: &[
        "openat",
        "open",
        "statfs",
        "statx",
        "pwrite64",
        "pread64",
        "unlink",
        "ftruncate",
        "fallocate",
        "lseek",
        "mremap",
        "sendto",
        "splice",
    ],
    never: &[],
    play: spool,
};

pub(crate) const LATE: Scenario = Scenario {
    name: "late",
    story: "a program that closes its output long before it exits",
    options: "",
    calls: &["pidfd_open", "epoll_ctl", "waitid", "close"],
    never: &[],
    play: late,
};

pub(crate) const VANISH: Scenario = Scenario {
    name: "vanish",
    story: "a client that goes while its program and a child of that, which ignores TERM, run",
    options: "",
    calls: &["kill", "setpgid", "pidfd_open", "pidfd_send_signal", "waitid", "epoll_ctl", "epoll_wait"],
    never: &[],
    play: vanish,
};

pub(crate) const HOLDER: Scenario = Scenario {
    name: "holder",
    story: "with `--linger 0.2`, a descendant outside of the group that holds the output open",
    options: "--linger 0.2",
    calls: &["ioctl", "kill", "pidfd_open", "pidfd_send_signal"],
    never: &[],
    play: holder,
};

pub(crate) const FLOW: Scenario = Scenario {
    name: "flow",
    story: "4,000,000 bytes of output for a client that reads them as they come",
    options: "",
    calls: &["splice", "tee", "ioctl", "getsockopt", "fcntl", "read", "write", "sendto", "epoll_ctl"],
    never: &[],
    play: flow,
};

/// Each read takes one packet, and there are many in a turn. So the stream counts as one of small
/// writes, however slow strace makes the daemon.
pub(crate) const PIECES: Scenario = Scenario {
    name: "pieces",
    story: "3000 small writes, one soon after the other, which are gathered",
    options: "",
    calls: &["timerfd_settime", "epoll_ctl"],
    never: &[],
    play: pieces,
};

pub(crate) const ALL: [Scenario; 7] = [ECHO, SPOOL, FLOW, PIECES, LATE, VANISH, HOLDER];

fn argv(steps: &str) -> Vec<String> {
    crate::common::steps(steps)
}

/// A client that carries on after errors, where the common one expects none.
fn connect(daemon: &Daemon, argv: &[String]) -> Option<UnixStream> {
    connect_with(daemon, &request(argv))
}

pub(super) fn connect_with(daemon: &Daemon, bytes: &[u8]) -> Option<UnixStream> {
    let mut socket = UnixStream::connect(daemon.socket()).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    socket.set_write_timeout(Some(PATIENCE)).expect("a time-out");
    // The daemon may have closed the connection. Reading shows how it ended.
    let _ = socket.write_all(bytes);
    Some(socket)
}

fn echo(daemon: &Daemon, _: &Path) -> Outcome {
    let Some(mut socket) = connect(daemon, &argv("err note cat")) else { return Outcome::Closed };
    let bytes = pattern(200_000);
    let _ = socket.write_all(&[b"200000:", bytes.as_slice(), b",0:,"].concat());
    judge(socket, &bytes, b"note", "0")
}

fn spool(daemon: &Daemon, directory: &Path) -> Outcome {
    let mut life = Life::new(directory, "life");
    let steps = format!("hold {} write-out 3000000", life.path());
    let Some(mut socket) = connect(daemon, &argv(&steps)) else { return Outcome::Closed };
    // If the spool fails, the program waits for its reader. So the test reads after a while.
    life.wait_for_end(Duration::from_secs(1));
    let _ = socket.write_all(b"0:,");
    judge(socket, &pattern(3_000_000), b"", "0")
}

fn flow(daemon: &Daemon, _: &Path) -> Outcome {
    let Some(socket) = connect(daemon, &argv("write-out 4000000")) else { return Outcome::Closed };
    let _ = socket.shutdown(Shutdown::Write);
    judge(socket, &pattern(4_000_000), b"", "0")
}

fn pieces(daemon: &Daemon, _: &Path) -> Outcome {
    let Some(socket) = connect(daemon, &argv("packets write-pieces 198000 66 err note exit 5")) else {
        return Outcome::Closed;
    };
    let _ = socket.shutdown(Shutdown::Write);
    judge(socket, &pattern(198_000), b"note", "5")
}

fn late(daemon: &Daemon, directory: &Path) -> Outcome {
    let gate = directory.join("gate");
    make_fifo(&gate);
    let steps = format!("close 1 close 2 gate {} exit 7", gate.display());
    let Some(socket) = connect(daemon, &argv(&steps)) else { return Outcome::Closed };
    let _ = socket.shutdown(Shutdown::Write);
    let mut through = false;
    within(Duration::from_secs(3), || {
        let writer = writer_of(&gate);
        if writer.is_some() {
            // The daemon looks for the exit first, and then waits for it.
            std::thread::sleep(Duration::from_millis(20));
        }
        through = writer.is_some();
        through || has_answer(&socket)
    });
    match judge(socket, b"", b"", "7") {
        Outcome::Served if !through => Outcome::Wrong("an exit status before the exit".into()),
        outcome => outcome,
    }
}

fn vanish(daemon: &Daemon, directory: &Path) -> Outcome {
    let (mut leader, mut child) = (Life::new(directory, "leader"), Life::new(directory, "child"));
    let steps = format!("spawn [ ignore TERM ; hold {} wait ] hold {} wait", child.path(), leader.path());
    let Some(socket) = connect(daemon, &argv(&steps)) else { return Outcome::Closed };
    if !(leader.wait_for_start(&socket) && child.wait_for_start(&socket)) {
        return judge(socket, b"", b"", "0");
    }
    drop(socket);
    end_of([leader, child])
}

/// What became of programs whose client has gone. None may be left.
pub(super) fn end_of(mut lives: [Life; 2]) -> Outcome {
    // KILL is due after 0.3 seconds.
    let gone = lives.iter_mut().all(|life| life.wait_for_end(Duration::from_secs(2)));
    lives.iter_mut().for_each(Life::kill);
    if gone { Outcome::Gone } else { Outcome::LivesOn }
}

fn holder(daemon: &Daemon, directory: &Path) -> Outcome {
    let mut life = Life::new(directory, "life");
    let steps = format!("out words spawn [ setsid hold {} wait ] exit 4", life.path());
    let Some(socket) = connect(daemon, &argv(&steps)) else { return Outcome::Closed };
    let _ = socket.shutdown(Shutdown::Write);
    life.wait_for_start(&socket);
    let outcome = judge(socket, b"words", b"", "4");
    life.kill();
    outcome
}

/// Reads until the connection ends in any way.
pub(super) fn read_reply(mut socket: UnixStream) -> Result<Vec<u8>, Outcome> {
    let mut raw = Vec::new();
    match socket.read_to_end(&mut raw) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
            Err(Outcome::Wrong(format!("no end of the connection: {error}")))
        }
        Ok(_) | Err(_) => Ok(raw),
    }
}

/// Reads the reply and classifies it.
fn judge(socket: UnixStream, stdout: &[u8], stderr: &[u8], code: &str) -> Outcome {
    let raw = match read_reply(socket) {
        Ok(raw) => raw,
        Err(outcome) => return outcome,
    };
    let pairs = match pairs(&raw) {
        Ok(pairs) => pairs,
        Err(fault) => return Outcome::Wrong(fault),
    };
    let (mut out, mut err, mut exit) = (Vec::new(), Vec::new(), None);
    for (tag, payload) in pairs {
        match (tag, &exit) {
            (b"stdout", None) => out.extend_from_slice(payload),
            (b"stderr", None) => err.extend_from_slice(payload),
            (b"exitcode" | b"termsig", None) => exit = Some((tag, String::from_utf8_lossy(payload).into_owned())),
            _ => return Outcome::Wrong(format!("{} in the wrong place", tag.escape_ascii())),
        }
    }
    if !stdout.starts_with(&out) {
        return Outcome::Wrong(format!("{} bytes of output that are not the program's", out.len()));
    }
    let ours = err.windows(10).position(|window| window == b"sockexec: ");
    match exit {
        None => Outcome::Closed,
        Some((b"termsig", signal)) => Outcome::Ended(signal),
        Some((_, found)) => match ours {
            Some(at) => {
                let text = String::from_utf8_lossy(&err[at..]);
                let reason = text.trim_end().rsplit_once(": ").map_or("", |(_, reason)| reason);
                Outcome::Told(format!("{found}, \"{reason}\""))
            }
            None if found != code => Outcome::Wrong(format!("exit code {found}")),
            None if out != stdout => {
                Outcome::Wrong(format!("{} of {} bytes of stdout, and code {found}", out.len(), stdout.len()))
            }
            None if err != stderr => Outcome::Wrong(format!("stderr \"{}\", and code {found}", err.escape_ascii())),
            None => Outcome::Served,
        },
    }
}

pub(super) type Pair<'a> = (&'a [u8], &'a [u8]);

/// The whole pairs in `raw`. The last one may be cut.
pub(super) fn pairs(raw: &[u8]) -> Result<Vec<Pair<'_>>, String> {
    let (mut rest, mut strings) = (raw, Vec::new());
    while let Some(colon) = rest.iter().position(|&byte| byte == b':') {
        let len: usize = str::from_utf8(&rest[..colon])
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| format!("no netstring at byte {}", raw.len() - rest.len()))?;
        let Some(end) = rest.get(colon + 1 + len) else { break };
        if *end != b',' {
            return Err(format!("no comma at the end of the netstring at byte {}", raw.len() - rest.len()));
        }
        strings.push(&rest[colon + 1..colon + 1 + len]);
        rest = &rest[colon + 2 + len..];
    }
    Ok(strings.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// Whether `condition` becomes true within `time`.
pub(crate) fn within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Whether there is something to read, including the end.
fn has_answer(client: &UnixStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut [PollFd::new(client, PollFlags::IN)], Some(&now)).is_ok_and(|n| n > 0)
}

pub(super) fn make_fifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
}

/// The FIFO, open to write. `None` while nobody has it open to read.
///
/// Close-on-exec: a daemon that another test starts meanwhile would inherit it, and the program at
/// this gate would wait for its deadline.
pub(super) fn writer_of(gate: &Path) -> Option<OwnedFd> {
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(gate, flags, rustix::fs::Mode::empty()).ok()
}

/// A process that holds a FIFO. Waiting for it has a limit, because it may never start or never
/// end.
pub(super) struct Life {
    path: PathBuf,
    reader: std::fs::File,
    said: Vec<u8>,
    ended: bool,
}

impl Life {
    pub(super) fn new(directory: &Path, name: &str) -> Self {
        let path = directory.join(name);
        make_fifo(&path);
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        let reader = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).expect("a FIFO opens").into();
        Self { path, reader, said: Vec::new(), ended: false }
    }

    pub(super) fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    fn look(&mut self) {
        let mut buffer = [0; 64];
        match self.reader.read(&mut buffer) {
            // Before a process holds it, a FIFO is at its end too.
            Ok(0) => self.ended = !self.said.is_empty(),
            Ok(n) => self.said.extend_from_slice(&buffer[..n]),
            Err(_) => {}
        }
    }

    /// Waits until a program holds this FIFO, unless the daemon has answered without one.
    pub(super) fn wait_for_start(&mut self, client: &UnixStream) -> bool {
        within(Duration::from_secs(3), || {
            self.look();
            self.said.ends_with(b"\n") || has_answer(client)
        }) && self.said.ends_with(b"\n")
    }

    pub(super) fn wait_for_end(&mut self, time: Duration) -> bool {
        within(time, || {
            self.look();
            self.ended
        })
    }

    /// Kills the processes that are left. The FIFO shows that they live.
    pub(super) fn kill(&mut self) {
        self.look();
        let pid = str::from_utf8(&self.said).ok().and_then(|text| text.split(' ').next()?.parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw)
            && !self.ended
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Builds the fixture, so that no case has to wait for that.
pub(crate) fn prepare() {
    let _ = fixture();
}

/// The descriptors and children of a daemon that is idle.
pub(crate) fn footprint(process: Process) -> (usize, usize) {
    (process.descriptors(), process.children().0)
}

//! What the operator sees of a connection.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::time::Duration;

use sockexec_proto::request::Argv;

use super::Connection;
use crate::daemon::child::{Child, Pipe};
use crate::daemon::status::{ConnectionReport, PeerReport};
use crate::engine::{ExitStatus, Time, at_most};
use crate::sys::socket::Peer;

/// How many bytes of the arguments are shown, including a NUL after each.
const SHOWN: usize = 256;

impl Connection {
    /// One line: age, pid, argv, bytes in and out, what it waits for.
    pub(crate) fn describe(&self, now: Time) -> String {
        let pid = self.child.as_ref().map_or_else(|| "-".to_owned(), |child| child.group.leader().to_string());
        format!(
            "connection {}{}: age {}, pid {pid}, argv {}, {} bytes in, {} bytes out, {} bytes queued, waits for: {}",
            self.number,
            Credentials(self.peer),
            Seconds(now.saturating_sub(self.session.accepted())),
            self.arguments,
            self.received,
            self.sent,
            self.outbox.len(),
            self.waits_for(),
        )
    }

    /// Its part of the daemon's status.
    pub(crate) fn report(&self, now: Time) -> ConnectionReport {
        ConnectionReport {
            number: self.number,
            peer: self.peer.map(|Peer { pid, uid, gid }| PeerReport { pid, uid, gid }),
            pid: self.child.as_ref().map(|child| child.group.leader()),
            argv: self.arguments.texts(),
            arguments: self.arguments.count,
            cwd: self.directory().map(|path| shown(path.to_bytes())),
            age: now.saturating_sub(self.session.accepted()),
            running: self.child.as_ref().map(|_| now.saturating_sub(self.since)),
            left: self.session.deadline().map(|deadline| deadline.saturating_sub(now)),
            bytes_in: self.received,
            bytes_out: self.sent,
            state: self.waits_for(),
        }
    }

    /// The directory that its request asks for.
    fn directory(&self) -> Option<&CStr> {
        let waiting = || self.session.waiting_request().and_then(|request| request.options.directory.as_deref());
        self.child.as_ref().map_or_else(waiting, Child::directory)
    }

    fn waits_for(&self) -> &'static str {
        if self.paused { "memory for its request" } else { self.session.waits_for() }
    }

    /// Its descriptors, with what each is and waits for.
    pub(crate) fn descriptors(&self) -> Vec<(RawFd, String)> {
        let mut list = Vec::new();
        // Spliced input waits in the kernel, not here: a pipe that was found full shows it.
        let stdin_is_full = self.child.as_ref().and_then(|child| child.stdin.as_ref()).is_some_and(|pipe| !pipe.ready);
        let stdin_is_full = stdin_is_full || !self.input.is_empty();
        if let Some(socket) = &self.socket {
            let takes_input = self.session.wants_request() && !stdin_is_full;
            let wait = match (takes_input, self.outbox.is_empty() && self.writable) {
                (true, true) => "input",
                (true, false) => "input, room for output",
                (false, false) => "room for output",
                (false, true) => "nothing",
            };
            list.push((socket.as_raw_fd(), format!("client, waits for {wait}")));
        }
        for descriptor in self.descriptors.iter().flat_map(|all| all.iter()) {
            list.push((descriptor.as_fd().as_raw_fd(), "of the client, waits for the request".to_owned()));
        }
        if let Some(file) = self.outbox.file() {
            list.push((file.as_raw_fd(), "spool, waits for the client to read".to_owned()));
        }
        if let Some(child) = &self.child {
            let room = self.outbox.has_room(self.session.backpressure());
            let output_wait = |pipe: &Pipe| {
                if room && (self.writable || !pipe.ready) { "output" } else { "the client to read" }
            };
            for (pipe, name, wait) in [
                (child.stdin.as_ref(), "stdin", if stdin_is_full { "room for input" } else { "nothing" }),
                (child.stdout.as_ref(), "stdout", child.stdout.as_ref().map_or("", output_wait)),
                (child.stderr.as_ref(), "stderr", child.stderr.as_ref().map_or("", output_wait)),
                (child.exec.as_deref(), "exec", "the program to be executed"),
            ] {
                if let Some(pipe) = pipe {
                    list.push((pipe.as_fd().as_raw_fd(), format!("{name}, waits for {wait}")));
                }
            }
            if let Some(terminal) = child.group.terminal() {
                list.push((terminal.as_raw_fd(), "terminal, waits for nothing".to_owned()));
            }
            if let Some(descriptor) = child.group.opened_descriptor() {
                list.push((descriptor.as_raw_fd(), "process, waits for its exit".to_owned()));
            }
        }
        list
    }
}

/// The part of a path that is shown. What is not UTF-8 is replaced.
fn shown(path: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(path.get(..SHOWN).unwrap_or(path)).into_owned();
    if path.len() > SHOWN {
        text.push('…');
    }
    text
}

/// The first arguments of a request, [`SHOWN`] bytes of them in all. In one piece, as a daemon has one of
/// these for each program.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    /// Each ends with a NUL, and none contains one.
    bytes: Box<[u8]>,
    /// How many the request has.
    count: u32,
    /// The last one that is shown was longer.
    cut: bool,
}

impl Arguments {
    pub(super) fn new(argv: &Argv) -> Self {
        let all = argv.iter().map(CStr::to_bytes_with_nul);
        let len = at_most(SHOWN, all.clone().map(|arg| arg.len() as u64).sum());
        let mut bytes = Vec::with_capacity(len + 1);
        bytes.extend(all.flatten().take(len));
        let cut = bytes.last().is_some_and(|&last| last != 0);
        if cut {
            bytes.push(0);
        }
        Self { bytes: bytes.into(), count: u32::try_from(argv.len()).unwrap_or(u32::MAX), cut }
    }

    fn shown(&self) -> impl Iterator<Item = &[u8]> {
        let whole = self.bytes.strip_suffix(b"\0").map(|bytes| bytes.split(|&byte| byte == 0));
        whole.into_iter().flatten()
    }

    /// The program's name as far as it is shown, in quotes, for people.
    pub(super) fn program(&self) -> String {
        format!("\"{}\"", self.shown().next().unwrap_or_default().escape_ascii())
    }

    /// The first arguments as a list in JSON; the last is `…` if there are more.
    pub(super) fn json(&self) -> String {
        let mut texts = self.texts();
        if self.cut
            && let Some(last) = texts.last_mut()
        {
            last.push('…');
        }
        if texts.len() < usize::try_from(self.count).unwrap_or(usize::MAX) {
            texts.push("…".to_owned());
        }
        // Cannot fail: it is text.
        serde_json::to_string(&texts).unwrap_or_else(|_| "[]".to_owned())
    }

    /// What is not UTF-8 is replaced.
    fn texts(&self) -> Vec<String> {
        self.shown().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
    }
}

/// In quotes, for people.
impl fmt::Display for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("-");
        }
        let mut shown = 0;
        for arg in self.shown() {
            write!(f, "{}\"{}\"", if shown == 0 { "" } else { " " }, arg.escape_ascii())?;
            shown += 1;
        }
        if self.cut {
            f.write_str("…")?;
        }
        if shown < self.count {
            write!(f, " … ({} arguments)", self.count)?;
        }
        Ok(())
    }
}

pub(super) struct Credentials(pub(super) Option<Peer>);

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Peer { pid, uid, gid }) => write!(f, " from pid {pid} uid {uid} gid {gid}"),
            None => Ok(()),
        }
    }
}

pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.0.as_secs_f64())
    }
}

pub(super) struct Ended(pub(super) ExitStatus);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ExitStatus::Code(code) => write!(f, "exit code {code}"),
            ExitStatus::Signal(number) => write!(f, "signal {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    fn arguments(argv: &[&[u8]]) -> Arguments {
        Arguments::new(&argv.iter().map(|arg| CString::new(*arg).unwrap()).collect())
    }

    #[test]
    fn arguments_are_shown_as_far_as_they_go() {
        assert_eq!(arguments(&[]).to_string(), "-");
        assert_eq!(arguments(&[b"ls"]).to_string(), r#""ls""#);
        let some = arguments(&[b"", b"a b", b"\"\n\xff", b""]);
        assert_eq!(some.to_string(), r#""" "a b" "\"\n\xff" """#);
        assert_eq!(some.texts(), ["", "a b", "\"\n\u{fffd}", ""]);
        assert_eq!(some.json(), r#"["","a b","\"\n�",""]"#);
        let exact = arguments(&[&[b'x'; SHOWN - 1]]);
        assert_eq!(exact.to_string(), format!("\"{}\"", "x".repeat(SHOWN - 1)));
        for long in [arguments(&[&[b'x'; SHOWN]]), arguments(&[&[b'x'; 5 * SHOWN]])] {
            assert_eq!(long.to_string(), format!("\"{}\"…", "x".repeat(SHOWN)));
        }
        let many = arguments(&[b"".as_slice(); 1000]);
        assert_eq!(many.texts().len(), SHOWN);
        assert!(many.to_string().ends_with(r#" "" … (1000 arguments)"#), "{many}");
        let both = arguments(&[&[b'x'; SHOWN], b"y"]).to_string();
        assert!(both.ends_with("x\"… … (2 arguments)"), "{both}");
        assert_eq!(arguments(&[&[b'x'; SHOWN], b"y"]).json(), format!("[\"{}…\",\"…\"]", "x".repeat(SHOWN)));
    }
}

//! What the operator sees of a connection.

use std::ffi::CString;
use std::fmt::{self, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::Duration;

use super::Connection;
use crate::daemon::status::{ConnectionReport, PeerReport};
use crate::engine::{ExitStatus, Time};
use crate::sys::socket::Peer;

/// How much of the arguments is shown, in bytes.
const LABEL_MAX: usize = 256;

impl Connection {
    /// One line: age, pid, argv, bytes in and out, what it waits for.
    pub(crate) fn describe(&self, now: Time) -> String {
        let pid = self.child.as_ref().map_or_else(|| "-".to_owned(), |child| child.group.leader().to_string());
        format!(
            "connection {}{}: age {}, pid {pid}, argv {}, {} bytes in, {} bytes out, {} bytes queued, waits for: {}",
            self.number,
            Credentials(self.peer),
            Seconds(now.saturating_sub(self.accepted)),
            if self.label.is_empty() { "-" } else { &self.label },
            self.received,
            self.sent,
            self.outbox.len(),
            self.session.waits_for(),
        )
    }

    /// What the daemon's status tells of it.
    pub(crate) fn report(&self, now: Time) -> ConnectionReport {
        ConnectionReport {
            number: self.number,
            peer: self.peer.map(|Peer { pid, uid, gid }| PeerReport { pid, uid, gid }),
            pid: self.child.as_ref().map(|child| child.group.leader()),
            argv: self.argv.clone(),
            arguments: self.arguments,
            age: now.saturating_sub(self.accepted),
            bytes_in: self.received,
            bytes_out: self.sent,
            state: self.session.waits_for(),
        }
    }

    /// Its descriptors, with what each is and waits for.
    pub(crate) fn descriptors(&self) -> Vec<(RawFd, String)> {
        let mut list = Vec::new();
        if let Some(socket) = &self.socket {
            let wait = match (self.session.wants_request() && self.input.is_empty(), self.outbox.is_empty()) {
                (true, true) => "input",
                (true, false) => "input, room for output",
                (false, false) => "room for output",
                (false, true) => "nothing",
            };
            list.push((socket.as_raw_fd(), format!("client, waits for {wait}")));
        }
        for descriptor in &self.descriptors {
            list.push((descriptor.as_raw_fd(), "of the client, waits for the request".to_owned()));
        }
        if let Some(file) = self.outbox.file() {
            list.push((file.as_raw_fd(), "spool, waits for the client to read".to_owned()));
        }
        if let Some(child) = &self.child {
            let stdin_wait = if self.input.is_empty() { "nothing" } else { "room for input" };
            let room = self.outbox.has_room(self.session.backpressure());
            let output_wait = if room { "output" } else { "the client to read" };
            for (pipe, name, wait) in [
                (&child.stdin, "stdin", stdin_wait),
                (&child.stdout, "stdout", output_wait),
                (&child.stderr, "stderr", output_wait),
                (&child.exec, "exec", "the program to be executed"),
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

/// The arguments as a person can read them, in quotes, cut after [`LABEL_MAX`] bytes.
pub(super) fn quote(argv: &[CString]) -> String {
    let mut label = String::new();
    for (n, arg) in argv.iter().enumerate() {
        if label.len() >= LABEL_MAX {
            let _ = write!(label, " … ({} arguments)", argv.len());
            break;
        }
        let bytes = arg.as_bytes();
        let shown = bytes.get(..LABEL_MAX).unwrap_or(bytes);
        let separator = if n == 0 { "" } else { " " };
        let cut = if shown.len() < bytes.len() { "…" } else { "" };
        let _ = write!(label, "{separator}\"{}\"{cut}", shown.escape_ascii());
    }
    label
}

/// The first arguments, [`LABEL_MAX`] bytes of them in all; what is not UTF-8 is replaced.
pub(super) fn shown(argv: &[CString]) -> Box<[Box<str>]> {
    let mut left = LABEL_MAX;
    let mut arguments = Vec::new();
    for arg in argv {
        if left == 0 {
            break;
        }
        let bytes = arg.as_bytes();
        let bytes = bytes.get(..left).unwrap_or(bytes);
        // An empty argument counts too, so that the list is bounded.
        left = left.saturating_sub(bytes.len().max(1));
        arguments.push(String::from_utf8_lossy(bytes).into());
    }
    arguments.into()
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

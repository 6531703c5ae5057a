//! The inputs and outputs of a session.

use std::time::Duration;

use sockexec_proto::netstring::TERMINATOR;
use sockexec_proto::request::Request;
use sockexec_proto::{BadRequest, ErrorCode, WindowSize, reply};

use super::TermSig;

/// The limits of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Limits {
    /// From the accepted connection to the complete request. Not longer than `timeout`.
    pub(crate) request_timeout: Option<Duration>,
    /// From when the request has its slot to TERM.
    pub(crate) timeout: Option<Duration>,
    /// From TERM to KILL.
    pub(crate) kill_timeout: Duration,
    /// From the leader's exit to TERM for the processes that still hold its output.
    pub(crate) linger: Option<Duration>,
    pub(crate) termsig: TermSig,
    /// Version 2: how much of a program's input may be held for it, and be unreported to the client, in
    /// bytes.
    pub(crate) window: u64,
}

/// How the leader of the program's group ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ExitStatus {
    Code(u8),
    Signal(i32),
}

/// Why a program could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartError {
    pub(crate) kind: StartErrorKind,
    /// What `reason` is about, if that is not the program: the directory that it was to run in.
    pub(crate) about: Option<Vec<u8>>,
    pub(crate) reason: String,
}

/// What is to blame for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartErrorKind {
    /// The program, or the directory that it was to run in, is not there.
    NotFound,
    /// It is there and cannot be executed.
    NotExecutable,
    /// The daemon may not enter the directory.
    Denied,
    /// The daemon: it got no process, memory, descriptor or terminal.
    Failed,
    /// The daemon: it made the process, and has lost track of it.
    Lost,
}

impl StartErrorKind {
    /// The code for a version 2 client.
    pub(crate) const fn code(self) -> ErrorCode {
        match self {
            Self::NotFound => ErrorCode::NotFound,
            Self::NotExecutable => ErrorCode::NotExecutable,
            Self::Denied => ErrorCode::Denied,
            Self::Failed => ErrorCode::SpawnFailed,
            Self::Lost => ErrorCode::Internal,
        }
    }
}

/// What the driver is to do, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// The request is complete: give it a slot with [`Session::slot`], now or later; if later, say so with
    /// [`Session::has_to_wait`].
    WantSlot,
    /// The client only wanted to know whether the daemon serves.
    Pinged,
    /// Start the program; answer with [`Session::started`] or [`Session::start_failed`].
    Spawn(Box<Request>),
    /// Close the program's standard input, and drop what is held for it.
    CloseStdin,
    /// Tell the program's terminal that its input is at its end; it stays open.
    EndTerminalInput,
    /// Send this signal to the group.
    Signal(i32),
    /// Give the terminal this size.
    Resize(WindowSize),
    /// Report the daemon's status with [`Session::status`].
    TellStatus,
    /// Send TERM and CONT to the group.
    Terminate,
    /// Send KILL to the group, and answer with [`Session::killed`] once it was sent to all its members.
    /// Until then the leader must not be reaped.
    Kill,
    /// Find out whether the group is empty; answer with [`Session::group_is_empty`] or
    /// [`Session::group_is_unknowable`], or not at all while it is not.
    Probe,
    /// Take what is in the streams now, then treat them as ended.
    DrainOutput,
    /// Close the streams without reading them.
    CloseOutput,
    /// The group will not be signalled any more: reap the leader.
    Reap,
    /// Queue these bytes for the client.
    Send(Vec<u8>),
    /// Tell the operator that the request is refused, and why.
    Report(BadRequest),
    /// Once everything queued is sent, end the sending side and answer with [`Session::sent`].
    Finish,
    /// Drop what is queued and close the client's socket.
    CloseClient,
}

/// What a connection without a slot does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stay {
    /// Its request is not complete.
    Request,
    /// Its request waits for a slot.
    Slot,
    /// Its reply is being read, or its client has yet to end its sending.
    Reply,
}

/// What is at the front of the client's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Everything that can be used was consumed.
    NeedMore,
    /// This many bytes (at least 1) are the program's input. Move some to it, then call
    /// [`Session::moved`]; or hold up to [`Session::room_ahead`] of them, then call [`Session::held`].
    Stdin(u64),
    /// This many bytes (at least 1) are not needed. Drop some, then call [`Session::moved`].
    Drop(u64),
}

/// What is to be done with the program's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backpressure {
    /// It is not wanted: read it and drop it.
    Discard,
    /// It must not wait for the client, which may not read before it has sent all of its input. Queue
    /// it, within the spool's limit.
    Spool,
    /// Read it only as fast as the client does.
    Strict,
}

/// What stands around a payload of output on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) header: reply::Header,
}

impl Frame {
    /// No head is longer than this.
    pub(crate) const MAX_HEAD: usize = reply::MAX_HEADER;

    /// The most output that one frame should carry, in bytes.
    ///
    /// A frame of this size is one `sk_buff` of a UNIX socket on Linux (`unix_stream_sendmsg` takes up to
    /// 36 KiB in one), so that it is sent whole or not at all. lua-resty-exec needs that: it waits a
    /// millisecond for the rest of a payload and then loses its place in the stream.
    pub(crate) const MAX_PAYLOAD: usize = 32 << 10;

    /// The same for spliced output in version 1. `splice_to_socket` hands up to 16 pages to the socket at
    /// once, and they become one `sk_buff`: twelve pages for the payload, one each for head and tail, two
    /// to spare as pages may not be full. Version 2 does not promise whole frames, and has larger ones.
    pub(crate) const MAX_SPLICED: usize = 48 << 10;

    /// The most bytes to send at once.
    pub(crate) const MAX_LEN: usize = Self::MAX_HEAD + Self::MAX_PAYLOAD + 1;

    /// How many of the queued `bytes` to send at once: whole frames, within [`Frame::MAX_LEN`] unless one
    /// frame alone is longer. 0 if the rest of the first frame is still to come.
    pub(crate) fn whole(bytes: &[u8]) -> usize {
        reply::whole_pairs(bytes, Self::MAX_LEN)
    }

    pub(crate) fn head(&self) -> &[u8] {
        self.header.as_bytes()
    }

    pub(crate) const TAIL: u8 = TERMINATOR;
}

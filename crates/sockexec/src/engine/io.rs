//! What goes into a session and what comes out of it.

use std::time::Duration;

use sockexec_proto::netstring::TERMINATOR;
use sockexec_proto::request::Request;
use sockexec_proto::{BadRequest, ErrorCode, WindowSize, reply};

use super::TermSig;

/// What is allowed to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Limits {
    /// From the accepted connection to the complete request; not longer than the one below.
    pub(crate) request_timeout: Option<Duration>,
    /// From when the request has its slot to TERM.
    pub(crate) timeout: Option<Duration>,
    /// From TERM to KILL.
    pub(crate) kill_timeout: Duration,
    /// From the leader's exit to TERM for whoever still holds its output.
    pub(crate) linger: Option<Duration>,
    pub(crate) termsig: TermSig,
    /// How much of a program's input may be held for it, and be unreported to the client, in bytes. Version 2.
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
    /// What `reason` is about, where that is not the program: the directory it was to run in.
    pub(crate) about: Option<Vec<u8>>,
    pub(crate) reason: String,
}

/// Who is to blame for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartErrorKind {
    /// The program, or the directory that it was to run in, is not there.
    NotFound,
    /// It is there and cannot be executed.
    NotExecutable,
    /// The directory may not be entered.
    Denied,
    /// The daemon: no process, memory, descriptor or terminal to be had.
    Failed,
    /// The daemon: the process was made, and nothing is known of it any more.
    Lost,
}

impl StartErrorKind {
    /// What a client of version 2 is told.
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
    /// The client wanted to know whether the daemon serves, and nothing else.
    Pinged,
    /// Start the program; answer with [`Session::started`] or [`Session::start_failed`].
    Spawn(Box<Request>),
    /// Close the program's standard input, and drop what is held for it.
    CloseStdin,
    /// Tell the program's terminal that its input is at its end; it stays open.
    EndTerminalInput,
    /// This signal to the group.
    Signal(i32),
    /// The terminal has this size from now on.
    Resize(WindowSize),
    /// Tell of the daemon with [`Session::status`].
    TellStatus,
    /// TERM and CONT to the group.
    Terminate,
    /// KILL to the group; answer with [`Session::killed`] when it was sent to everybody whom that means. Until then the leader must not be
    /// reaped.
    Kill,
    /// Find out whether the group is empty; answer with [`Session::group_is_empty`] or
    /// [`Session::group_is_unknowable`], or not at all while it is not.
    Probe,
    /// Take what is in the streams now, then treat them as ended.
    DrainOutput,
    /// Close the streams without reading them.
    CloseOutput,
    /// Nobody will be signalled any more: reap the leader.
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

/// What a connection does that has no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stay {
    /// Its request is not complete.
    Request,
    /// Its request waits for a slot.
    Slot,
    /// Its reply is being read, or its client is about to end its sending.
    Reply,
}

/// What is at the front of the client's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Everything that can be used was consumed.
    NeedMore,
    /// So many bytes (at least 1) are the program's input. Move some to it, then call [`Session::moved`]; or hold up to
    /// [`Session::room_ahead`] of them, then call [`Session::held`].
    Stdin(u64),
    /// So many bytes (at least 1) are of no use. Drop some, then call [`Session::moved`].
    Drop(u64),
}

/// What is to be done with the program's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backpressure {
    /// Nobody wants it: read and drop it.
    Discard,
    /// It must not wait for the client, which may not read before it has sent all of its input:
    /// queue it, within the spool's limit.
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

    /// The most bytes of output that one frame should carry, in bytes.
    ///
    /// A frame of this size is one `sk_buff` of a UNIX socket on Linux (`unix_stream_sendmsg` takes up to
    /// 36 KiB in one), so that it is sent whole or not at all. lua-resty-exec needs that: it waits a
    /// millisecond for the rest of a payload and then loses its place in the stream.
    pub(crate) const MAX_PAYLOAD: usize = 32 << 10;

    /// The same where the output is spliced, in version 1: `splice_to_socket` hands up to 16 pages to the socket at once, which become one
    /// `sk_buff`: twelve for the payload, one each for head and tail, and two to spare for pages that are not full. Version 2 does without
    /// the promise, and has larger ones.
    pub(crate) const MAX_SPLICED: usize = 48 << 10;

    /// The most bytes to send at once.
    pub(crate) const MAX_LEN: usize = Self::MAX_HEAD + Self::MAX_PAYLOAD + 1;

    /// How many of the queued `bytes` to send at once: whole frames, within [`Frame::MAX_LEN`] unless one alone
    /// is longer; 0 if the rest of the first one is still to come.
    pub(crate) fn whole(bytes: &[u8]) -> usize {
        reply::whole_pairs(bytes, Self::MAX_LEN)
    }

    pub(crate) fn head(&self) -> &[u8] {
        self.header.as_bytes()
    }

    pub(crate) const TAIL: u8 = TERMINATOR;
}

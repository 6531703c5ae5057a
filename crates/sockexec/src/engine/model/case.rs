//! What is fixed for a session, and what can happen to it.

use std::ffi::CString;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use arbitrary::Arbitrary;
use sockexec_proto::request::{self, Event};
use sockexec_proto::{BadRequest, RequestDecoder, Stream, netstring};

use crate::engine::{ExitStatus, Limits, TermSig};

/// A whole session: what a fuzzer's bytes stand for.
#[derive(Debug, Clone, PartialEq, Eq, Arbitrary)]
pub struct Plan {
    /// What is fixed.
    pub setup: Setup,
    /// What happens, and whether the daemon has its turn after it or only after the next.
    pub moves: Vec<(Move, bool)>,
}

/// What is fixed for a session. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Arbitrary)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Setup {
    /// From the accepted connection to TERM.
    pub timeout: Option<u16>,
    /// From TERM to KILL; 0 is taken as 1.
    pub kill_timeout: u8,
    /// From the first empty stream after the leader's exit to TERM.
    pub linger: Option<u8>,
    /// Signals are told by name.
    pub names: bool,
    /// All that the client may send.
    pub request: Vec<Piece>,
    /// What comes of starting the program.
    pub start: Start,
    /// Somebody else in the program's group holds its output.
    pub job: bool,
    /// Somebody who has left the group holds its output.
    pub outsider: bool,
    /// The platform cannot tell whether a group is empty.
    pub unknowable: bool,
    /// How much fits where.
    pub sizes: Sizes,
}

/// A part of a request.
#[derive(Debug, Clone, PartialEq, Eq, Arbitrary)]
pub enum Piece {
    /// The number of arguments and the arguments.
    Exec(Vec<Vec<u8>>),
    /// Standard input of so many bytes; 0 ends it.
    Chunk(u8),
    /// Anything.
    Raw(Vec<u8>),
}

/// What comes of starting the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Start {
    /// It runs at once.
    AtOnce,
    /// It runs when [`Move::Answer`] says so.
    Later,
    /// It cannot be started, which is known at once.
    Fails,
    /// It cannot be started, which is known from the death of what was to become it.
    FailsLate,
}

/// How much fits where, in bytes; 0 is taken as 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub struct Sizes {
    /// A pipe.
    pub pipe: u8,
    /// What the daemon reads at once.
    pub chunk: u8,
    /// What may wait for a client with strict backpressure.
    pub strict: u8,
    /// What may wait for a client that still sends.
    pub spool: u8,
}

/// One of the program's streams of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum To {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How the leader ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Ended {
    /// By itself.
    Code(u8),
    /// By a signal: its number less 1, of 64.
    Signal(u8),
}

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Move {
    /// So many more bytes of the request are sent.
    Send(u8),
    /// The client ends its sending.
    HalfClose,
    /// The client closes both directions.
    Leave,
    /// The client is ready to take so many more bytes.
    Take(u8),
    /// The client takes whatever comes from now on.
    TakeAll,
    /// The system answers whether the program was started.
    Answer,
    /// So many bytes are written to a stream.
    Write(To, u8),
    /// Whoever holds a stream closes it.
    CloseOutput(To),
    /// So many bytes of standard input are read.
    Read(u8),
    /// Nobody will read standard input any more.
    CloseInput,
    /// The leader ends.
    Exit(Ended),
    /// The rest of the group ends.
    EmptyGroup,
    /// So many milliseconds pass.
    Wait(u16),
    /// Time passes until the session's timer.
    WaitForTimer,
    /// The daemon is told to stop; the second time, at once.
    ShutDown,
}

/// A [`Setup`] made ready.
#[derive(Debug, PartialEq, Eq)]
pub struct Case {
    pub(super) limits: Limits,
    pub(super) request: Vec<u8>,
    pub(super) start: Start,
    pub(super) job: bool,
    pub(super) outsider: bool,
    pub(super) unknowable: bool,
    pub(super) pipe: usize,
    pub(super) chunk: usize,
    pub(super) strict: u64,
    pub(super) spool: u64,
}

/// It is the same for all worlds of one search, and so does not tell them apart.
impl Hash for Case {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Case {
    /// Makes `setup` ready.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        let millis = |n: u64| Duration::from_millis(n);
        let mut bytes = Vec::new();
        for piece in &setup.request {
            match piece {
                Piece::Exec(argv) => request::encode_exec(argv, &mut bytes),
                Piece::Chunk(len) => netstring::encode(&vec![bytes.len().to_le_bytes()[0]; (*len).into()], &mut bytes),
                Piece::Raw(raw) => bytes.extend_from_slice(raw),
            }
        }
        let sizes = setup.sizes;
        Self {
            limits: Limits {
                timeout: setup.timeout.map(|n| millis(n.into())),
                kill_timeout: millis(setup.kill_timeout.max(1).into()),
                linger: setup.linger.map(|n| millis(n.into())),
                termsig: if setup.names { TermSig::Name } else { TermSig::Number },
            },
            request: bytes,
            start: setup.start,
            job: setup.job,
            outsider: setup.outsider,
            unknowable: setup.unknowable,
            pipe: sizes.pipe.max(1).into(),
            chunk: sizes.chunk.max(1).into(),
            strict: sizes.strict.max(1).into(),
            spool: sizes.spool.max(sizes.strict).max(1).into(),
        }
    }
}

impl Case {
    /// Whether the request is one of version 1, the only one that is played.
    pub(super) fn is_version_1(&self) -> bool {
        !self.request.starts_with(b"10:protocol=2,")
    }
}

impl From<To> for Stream {
    fn from(to: To) -> Self {
        match to {
            To::Stdout => Self::Stdout,
            To::Stderr => Self::Stderr,
        }
    }
}

impl From<Ended> for ExitStatus {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Code(code) => Self::Code(code),
            Ended::Signal(n) => Self::Signal(i32::from(n % 64) + 1),
        }
    }
}

/// What a client has said.
#[derive(Debug, Default)]
pub(super) struct Understood {
    pub(super) argv: Option<Vec<CString>>,
    pub(super) stdin: Vec<u8>,
    /// Where its standard input ended, in bytes of the request.
    pub(super) end: Option<usize>,
    pub(super) error: Option<BadRequest>,
}

impl Understood {
    /// What `bytes` say, all at once; `ended`: and the client sends no more.
    pub(super) fn of(bytes: &[u8], ended: bool) -> Self {
        let mut decoder = RequestDecoder::new();
        let mut understood = Self::default();
        let mut at = 0;
        loop {
            match decoder.next(bytes.get(at..).unwrap_or_default()) {
                Ok((used, event)) => {
                    at += used;
                    let rest = bytes.get(at..).unwrap_or_default();
                    match event {
                        Event::Exec(argv) => understood.argv = Some(argv),
                        Event::Stdin(len) if !rest.is_empty() => {
                            let payload = rest.get(..netstring::at_most(rest.len(), len)).unwrap_or_default();
                            understood.stdin.extend_from_slice(payload);
                            decoder.advance(payload.len() as u64);
                            at += payload.len();
                        }
                        Event::EndOfStdin => {
                            understood.end = Some(at);
                            return understood;
                        }
                        Event::NeedMore | Event::Stdin(_) => break,
                        // No world is made of it: see `Case::is_version_1`.
                        Event::Start(_) | Event::Status | Event::Signal(_) | Event::WindowSize(_) => return understood,
                    }
                }
                Err(error) => {
                    understood.error = Some(error);
                    return understood;
                }
            }
        }
        if ended {
            match decoder.end_of_file() {
                Ok(()) => understood.end = Some(at),
                Err(error) => understood.error = Some(error),
            }
        }
        understood
    }
}

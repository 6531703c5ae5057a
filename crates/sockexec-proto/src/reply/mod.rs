//! What the daemon answers: pairs of a tag and a payload, the exit pair last.

mod told;

use alloc::vec::Vec;
use core::fmt;

use crate::error::{BadReply, BadReplyKind};
use crate::netstring::{self, Decoder, Token};
use crate::number;
use crate::request::Version;

pub use crate::pair::{Header, MAX_HEADER, encode_pair, whole_pairs};
pub use crate::signal::Signal;
pub use told::{
    ERROR, ErrorCode, Failure, INPUT_CLOSED, Introduction, MAX_ERROR, MIN_WINDOW, PROTOCOL, QUEUED, STARTED, STATUS,
    TAKEN, USAGE, Usage, encode_end_of, encode_error, encode_exit, encode_input_closed, encode_introduction,
    encode_queued, encode_started, encode_taken, encode_usage,
};

/// The most output that one pair carries in version 2, in bytes: what a pipe of 1 MiB holds beside a
/// page for the head and one for the tail.
pub const MAX_OUTPUT: usize = (1 << 20) - 2 * 4096;

/// One of the two streams of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The tag of the stream's pairs.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The tag of an exit code.
pub const EXITCODE: &str = "exitcode";

/// The tag of the signal that ended the program.
pub const TERMSIG: &str = "termsig";

impl Header {
    /// The head of a pair that carries `len` bytes of `stream`.
    #[must_use]
    pub fn new(stream: Stream, len: u64) -> Self {
        let tag: &[u8] = match stream {
            Stream::Stdout => b"6:stdout,",
            Stream::Stderr => b"6:stderr,",
        };
        Self::with_tag(tag, len)
    }
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Exit {
    /// It exited with this code.
    Code(u8),
    /// A signal ended it.
    Signal(Signal),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(Signal::Number(number)) => write!(f, "signal {number}"),
            Self::Signal(Signal::Name(name)) => write!(f, "signal {}", name.escape_ascii()),
        }
    }
}

/// What [`ReplyDecoder::next`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This many bytes (at least 1) of a stream come next. Move some, then call
    /// [`ReplyDecoder::advance`].
    Output(Stream, u64),
    /// This many bytes (at least 1) under an unknown tag come next. Drop some, then call
    /// [`ReplyDecoder::advance`].
    Unknown(u64),
    /// The program's end. 3.1.1 may send output after it; its reply ends with the connection.
    Exit(Exit),
    /// Version 2: the daemon introduces itself, before anything else.
    Introduction(Introduction),
    /// Version 2: this many requests wait for a slot, including this one.
    Queued(u64),
    /// Version 2: this many bytes of standard input have left the daemon since the start.
    Taken(u64),
    /// Version 2: the program has closed its standard input; what is still sent is dropped.
    InputClosed,
    /// Version 2: the program was executed, as the process with this number in the daemon's PID namespace.
    Started(u32),
    /// Version 2: nothing more of this stream will come.
    EndOfOutput(Stream),
    /// Version 2: why there will be no exit status, or why the program was cut short.
    Failure(Failure),
    /// Version 2: the resources that the program used.
    Usage(Usage),
    /// Version 2: this many bytes (at least 1) of the daemon's status, JSON, come next. Move some, then
    /// call [`ReplyDecoder::advance`].
    Status(u64),
    /// Everything was consumed; the rest has not arrived.
    NeedMore,
}

/// The longest tag or exit status that is collected; an unknown tag may not be longer either.
const MAX_COLLECTED: u64 = 64;

/// The longest introduction, and the longest usage. Later versions may add words to them.
const MAX_WORDS: u64 = 4096;

/// How many bytes of an invalid `error` or introduction are kept.
const SHOWN: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Tag,
    /// `empty`: until a length says otherwise.
    Output {
        stream: Stream,
        empty: bool,
    },
    Status,
    ExitCode,
    TermSig,
    Introduction,
    Queued,
    Taken,
    InputClosed,
    Started,
    Error,
    Usage,
    Unknown,
}

impl Phase {
    /// The most bytes that are collected of the payload; `None`: it is not collected.
    const fn limit(self) -> Option<u64> {
        match self {
            Self::Tag
            | Self::ExitCode
            | Self::TermSig
            | Self::Queued
            | Self::Taken
            | Self::InputClosed
            | Self::Started => Some(MAX_COLLECTED),
            Self::Error => Some(MAX_ERROR as u64),
            Self::Introduction | Self::Usage => Some(MAX_WORDS),
            Self::Output { .. } | Self::Status | Self::Unknown => None,
        }
    }
}

/// Reads a reply, cut anywhere.
///
/// It does not collect output. Do not use it again after an error.
#[derive(Debug)]
pub struct ReplyDecoder {
    netstring: Decoder,
    phase: Phase,
    version: Version,
    collected: Vec<u8>,
}

impl Default for ReplyDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplyDecoder {
    /// A decoder at the start of a reply to a version 1 request.
    #[must_use]
    pub const fn new() -> Self {
        Self::of(Version::One)
    }

    /// A decoder at the start of a reply to a request of this version. In version 1 the tags of version 2
    /// are unknown, and empty payloads are skipped.
    #[must_use]
    pub const fn of(version: Version) -> Self {
        Self { netstring: Decoder::new(19), phase: Phase::Tag, version, collected: Vec::new() }
    }

    /// Bytes consumed so far, output included.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.netstring.offset()
    }

    /// Whether the reply may end here: between two pairs.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.phase == Phase::Tag && self.netstring.at_boundary()
    }

    /// Reads from the front of `input`. Returns how many bytes were consumed, and what was found. It
    /// never consumes output.
    ///
    /// # Errors
    /// At the first byte that breaks the protocol.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, Event), BadReply> {
        let mut used = 0;
        loop {
            let (n, token) = self.netstring.next(input.get(used..).unwrap_or_default())?;
            used += n;
            match token {
                Token::NeedMore => return Ok((used, Event::NeedMore)),
                Token::Begin(len) => {
                    if self.phase.limit().is_some_and(|limit| len > limit) {
                        return Err(self.error(BadReplyKind::TooLong));
                    }
                    if let Phase::Output { empty, .. } = &mut self.phase {
                        *empty = len == 0;
                    }
                }
                Token::Payload(len) => match self.phase {
                    Phase::Output { stream, .. } => return Ok((used, Event::Output(stream, len))),
                    Phase::Status => return Ok((used, Event::Status(len))),
                    Phase::Unknown => return Ok((used, Event::Unknown(len))),
                    Phase::Tag
                    | Phase::ExitCode
                    | Phase::TermSig
                    | Phase::Introduction
                    | Phase::Queued
                    | Phase::Taken
                    | Phase::InputClosed
                    | Phase::Started
                    | Phase::Error
                    | Phase::Usage => {
                        let available = input.get(used..).unwrap_or_default();
                        let take = netstring::at_most(available.len(), len);
                        if take == 0 {
                            return Ok((used, Event::NeedMore));
                        }
                        self.collected.extend_from_slice(available.get(..take).unwrap_or_default());
                        self.netstring.advance(take as u64);
                        used += take;
                    }
                },
                Token::End => {
                    if let Some(event) = self.end()? {
                        return Ok((used, event));
                    }
                }
            }
        }
    }

    /// Tells the decoder that `n` bytes of the announced output were taken from the input.
    pub fn advance(&mut self, n: u64) {
        if self.phase.limit().is_none() {
            self.netstring.advance(n);
        }
    }

    fn end(&mut self) -> Result<Option<Event>, BadReply> {
        let mut payload = core::mem::take(&mut self.collected);
        let phase = core::mem::replace(&mut self.phase, Phase::Tag);
        let event = if phase == Phase::Tag {
            self.phase = self.phase_of(&payload);
            Ok(None)
        } else {
            // The comma has been consumed: the payload lies just before it.
            let offset = self.netstring.offset().saturating_sub(1).saturating_sub(payload.len() as u64);
            self.event(phase, &payload).map_err(|kind| BadReply { kind, offset })
        };
        // Keeps the memory for the next tag: an allocation for each pair would be most of the cost of a small one.
        payload.clear();
        self.collected = payload;
        event
    }

    /// What a complete pair says.
    fn event(&self, phase: Phase, payload: &[u8]) -> Result<Option<Event>, BadReplyKind> {
        match phase {
            Phase::Tag | Phase::Status | Phase::Unknown => Ok(None),
            Phase::Output { stream, empty } => {
                let ended = empty && self.version == Version::Two;
                Ok(ended.then_some(Event::EndOfOutput(stream)))
            }
            Phase::ExitCode => match number::decimal(payload) {
                Some(code) => Ok(Some(Event::Exit(Exit::Code(code)))),
                None => Err(BadReplyKind::ExitCode(payload.to_vec())),
            },
            Phase::TermSig => match Signal::parse(payload) {
                Some(signal) => Ok(Some(Event::Exit(Exit::Signal(signal)))),
                None => Err(BadReplyKind::TermSig(payload.to_vec())),
            },
            Phase::Introduction => match Introduction::parse(payload) {
                Some(introduction) => Ok(Some(Event::Introduction(introduction))),
                None => Err(BadReplyKind::Introduction(shown(payload))),
            },
            Phase::Queued => match number::decimal(payload) {
                Some(requests) => Ok(Some(Event::Queued(requests))),
                None => Err(BadReplyKind::Queued(payload.to_vec())),
            },
            Phase::Taken => match number::decimal(payload) {
                Some(bytes) => Ok(Some(Event::Taken(bytes))),
                None => Err(BadReplyKind::Taken(payload.to_vec())),
            },
            Phase::InputClosed => Ok(Some(Event::InputClosed)),
            Phase::Started => match number::decimal(payload) {
                Some(pid) if pid > 0 => Ok(Some(Event::Started(pid))),
                Some(_) | None => Err(BadReplyKind::Started(payload.to_vec())),
            },
            Phase::Error => match Failure::parse(payload) {
                Some(failure) => Ok(Some(Event::Failure(failure))),
                None => Err(BadReplyKind::ErrorCode(shown(payload))),
            },
            Phase::Usage => match Usage::parse(payload) {
                Some(usage) => Ok(Some(Event::Usage(usage))),
                None => Err(BadReplyKind::Usage(payload.to_vec())),
            },
        }
    }

    fn phase_of(&self, tag: &[u8]) -> Phase {
        match (tag, self.version) {
            (b"stdout", _) => Phase::Output { stream: Stream::Stdout, empty: true },
            (b"stderr", _) => Phase::Output { stream: Stream::Stderr, empty: true },
            (b"exitcode", _) => Phase::ExitCode,
            (b"termsig", _) => Phase::TermSig,
            (b"protocol", Version::Two) => Phase::Introduction,
            (b"queued", Version::Two) => Phase::Queued,
            (b"taken", Version::Two) => Phase::Taken,
            (b"input-closed", Version::Two) => Phase::InputClosed,
            (b"started", Version::Two) => Phase::Started,
            (b"error", Version::Two) => Phase::Error,
            (b"usage", Version::Two) => Phase::Usage,
            (b"status", Version::Two) => Phase::Status,
            _ => Phase::Unknown,
        }
    }

    const fn error(&self, kind: BadReplyKind) -> BadReply {
        BadReply { kind, offset: self.netstring.offset() }
    }
}

/// As much of `payload` as an error keeps.
fn shown(payload: &[u8]) -> Vec<u8> {
    payload.get(..SHOWN).unwrap_or(payload).to_vec()
}

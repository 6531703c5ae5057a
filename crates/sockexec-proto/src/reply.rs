//! What the daemon answers: pairs of a tag and a payload, the exit pair last.

use alloc::vec::Vec;
use core::fmt;

use crate::error::{BadReply, BadReplyKind};
use crate::netstring::{self, Decoder, Token};

/// One of the two streams of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The tag of the stream's pairs, as it stands on the wire.
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

/// The longest [`Header`]: `6:stdout,` and the head of a netstring.
pub const MAX_HEADER: usize = 9 + netstring::MAX_HEADER + 1;

/// What precedes a payload of output on the wire, `6:stdout,LEN:`, without an allocation.
/// The payload and [`netstring::TERMINATOR`] follow.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    bytes: [u8; MAX_HEADER],
    len: u8,
}

impl Header {
    /// The head of a pair that carries `len` bytes of `stream`.
    #[must_use]
    pub fn new(stream: Stream, len: u64) -> Self {
        let tag: &[u8] = match stream {
            Stream::Stdout => b"6:stdout,",
            Stream::Stderr => b"6:stderr,",
        };
        let length = netstring::Header::new(len);
        let mut bytes = [0; MAX_HEADER];
        let mut used = 0_u8;
        for (slot, &byte) in bytes.iter_mut().zip(tag.iter().chain(length.as_bytes())) {
            *slot = byte;
            used += 1;
        }
        Self { bytes, len: used }
    }

    /// The bytes to send.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// How many bytes at the front of `bytes` are whole pairs: as many pairs as fit in `max` bytes, but the
/// first one whatever its size; 0 if not even that is complete.
#[must_use]
pub fn whole_pairs(bytes: &[u8], max: usize) -> usize {
    let mut end = 0;
    loop {
        let rest = bytes.get(end..).unwrap_or_default();
        let Some(tag) = netstring::complete_len(rest) else { return end };
        let Some(payload) = netstring::complete_len(rest.get(tag..).unwrap_or_default()) else { return end };
        let next = end + tag + payload;
        if end > 0 && next > max {
            return end;
        }
        end = next;
    }
}

/// Appends a whole pair.
pub fn encode_pair(tag: &str, payload: &[u8], out: &mut Vec<u8>) {
    netstring::encode(tag.as_bytes(), out);
    netstring::encode(payload, out);
}

/// The signal that ended a program, as the daemon tells it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Its number.
    Number(i32),
    /// Its name without `SIG`, as sockexec 3.1.1 sends it (`TERM`).
    Name(Vec<u8>),
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
    /// So many bytes (at least 1) of a stream come next. Move some, then call [`ReplyDecoder::advance`].
    Output(Stream, u64),
    /// So many bytes (at least 1) under a tag that this version does not know come next. Drop some,
    /// then call [`ReplyDecoder::advance`].
    Unknown(u64),
    /// The program's end. 3.1.1 may send output after it; its reply ends with the connection.
    Exit(Exit),
    /// Everything was consumed; the rest has not arrived.
    NeedMore,
}

/// The longest tag or exit status that is collected; an unknown tag may not be longer either.
const MAX_COLLECTED: u64 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Tag,
    Output(Stream),
    ExitCode,
    TermSig,
    Unknown,
}

/// Reads a reply, cut anywhere.
///
/// Output is not collected. After an error the decoder is of no more use.
#[derive(Debug)]
pub struct ReplyDecoder {
    netstring: Decoder,
    phase: Phase,
    collected: Vec<u8>,
}

impl Default for ReplyDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplyDecoder {
    /// A decoder at the start of a reply.
    #[must_use]
    pub const fn new() -> Self {
        Self { netstring: Decoder::new(19), phase: Phase::Tag, collected: Vec::new() }
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

    /// Reads on from the front of `input`: how many bytes were consumed, and what was found. Output
    /// is never consumed here.
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
                    if self.collects() && len > MAX_COLLECTED {
                        return Err(self.error(BadReplyKind::TooLong));
                    }
                }
                Token::Payload(len) => match self.phase {
                    Phase::Output(stream) => return Ok((used, Event::Output(stream, len))),
                    Phase::Unknown => return Ok((used, Event::Unknown(len))),
                    Phase::Tag | Phase::ExitCode | Phase::TermSig => {
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
                    if let Some(exit) = self.end()? {
                        return Ok((used, Event::Exit(exit)));
                    }
                }
            }
        }
    }

    /// Tells the decoder that `n` bytes of the announced output were taken from the input.
    pub fn advance(&mut self, n: u64) {
        if !self.collects() {
            self.netstring.advance(n);
        }
    }

    const fn collects(&self) -> bool {
        matches!(self.phase, Phase::Tag | Phase::ExitCode | Phase::TermSig)
    }

    fn end(&mut self) -> Result<Option<Exit>, BadReply> {
        let collected = self.collected.as_slice();
        let (next, exit) = match self.phase {
            Phase::Tag => (Self::phase_of(collected), None),
            Phase::Output(_) | Phase::Unknown => (Phase::Tag, None),
            Phase::ExitCode => match number(collected).and_then(|n| u8::try_from(n).ok()) {
                Some(code) => (Phase::Tag, Some(Exit::Code(code))),
                None => return Err(self.status_error(BadReplyKind::ExitCode)),
            },
            Phase::TermSig => match number(collected) {
                Some(number) if number > 0 => (Phase::Tag, Some(Exit::Signal(Signal::Number(number)))),
                None if is_name(collected) => (Phase::Tag, Some(Exit::Signal(Signal::Name(collected.to_vec())))),
                Some(_) | None => return Err(self.status_error(BadReplyKind::TermSig)),
            },
        };
        // Its memory stays for the next tag: an allocation for each pair would be most of a small one's cost.
        self.collected.clear();
        self.phase = next;
        Ok(exit)
    }

    fn phase_of(tag: &[u8]) -> Phase {
        match tag {
            b"stdout" => Phase::Output(Stream::Stdout),
            b"stderr" => Phase::Output(Stream::Stderr),
            b"exitcode" => Phase::ExitCode,
            b"termsig" => Phase::TermSig,
            _ => Phase::Unknown,
        }
    }

    fn status_error(&self, kind: fn(Vec<u8>) -> BadReplyKind) -> BadReply {
        let offset = self.netstring.offset() - 1 - self.collected.len() as u64;
        BadReply { kind: kind(self.collected.clone()), offset }
    }

    const fn error(&self, kind: BadReplyKind) -> BadReply {
        BadReply { kind, offset: self.netstring.offset() }
    }
}

/// Names as 3.1.1's library has them: `TERM`, `RTMIN+1`, and `???` for one that it does not know.
/// None begins with a digit or a sign, so a number that is out of range is no name.
fn is_name(bytes: &[u8]) -> bool {
    let follows = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'?');
    bytes.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'?') && bytes.iter().all(follows)
}

fn number(bytes: &[u8]) -> Option<i32> {
    // `parse` alone would accept a sign.
    if !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(bytes).ok()?.parse().ok()
}

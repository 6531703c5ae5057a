//! One driver for all decoders: netstrings, requests and replies, of both versions.
//!
//! It feeds an input in pieces, checks after every call what must always hold, and returns what was
//! seen. The fuzzer includes this file, so it needs nothing but the library.

use std::fmt::{Debug, Display};

use sockexec_proto::error::{BadReplyKind, BadRequestKind};
use sockexec_proto::netstring::{self, Token, at_most};
use sockexec_proto::{BadReply, BadRequest, ReplyDecoder, RequestDecoder, Stream, Version, reply, request};

/// What the driver needs of a decoder.
pub(crate) trait Decoder: Sized {
    type Event: Clone + Debug + PartialEq;
    type Kind: Clone + Debug + PartialEq;
    type Place: Clone + Debug + PartialEq;

    /// Reads from the front of `input`.
    fn read(&mut self, input: &[u8]) -> Found<Self>;

    /// `n` bytes of the payload were taken.
    fn take(&mut self, n: u64);

    /// How many bytes it has consumed.
    fn consumed(&self) -> u64;

    /// What must hold when `event` is found after all that was `seen` before it.
    fn check(&self, _event: &Self::Event, _seen: &[Seen<Self::Event>]) {}

    /// Whether it ignores `rest`, and all that may follow.
    fn ignores(&mut self, _rest: &[u8]) -> bool {
        false
    }

    /// Where it stands when the input ends.
    fn end(self) -> Self::Place;
}

/// How many bytes were consumed, and what was found.
type Found<D> = Result<(usize, Next<<D as Decoder>::Event>), Fault<<D as Decoder>::Kind>>;

/// What a decoder finds.
pub(crate) enum Next<E> {
    /// This many bytes of payload come next.
    Payload(Source, u64),
    Event(E),
    NeedMore,
}

/// What a payload belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Netstring,
    Stdin,
    Output(Stream),
    Status,
    Unknown,
}

/// A part of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen<E> {
    /// A payload that is not collected, its announced length, and as much of it as the input has.
    Payload(Source, u64, Vec<u8>),
    Event(E),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault<K> {
    pub(crate) kind: K,
    pub(crate) offset: u64,
    pub(crate) text: String,
}

impl<K> Fault<K> {
    fn new(error: &impl Display, kind: K, offset: u64) -> Self {
        Self { kind, offset, text: error.to_string() }
    }
}

impl From<netstring::Error> for Fault<netstring::ErrorKind> {
    fn from(error: netstring::Error) -> Self {
        Self::new(&error, error.kind, error.offset)
    }
}

impl From<BadRequest> for Fault<BadRequestKind> {
    fn from(error: BadRequest) -> Self {
        Self::new(&error, error.kind.clone(), error.offset)
    }
}

impl From<BadReply> for Fault<BadReplyKind> {
    fn from(error: BadReply) -> Self {
        Self::new(&error, error.kind.clone(), error.offset)
    }
}

/// What an input says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome<E, P, K> {
    pub(crate) seen: Vec<Seen<E>>,
    /// Where the decoder stands at the end, or why it went no further.
    pub(crate) verdict: Result<P, Fault<K>>,
}

/// The [`Outcome`] of a decoder.
pub(crate) type OutcomeOf<D> = Outcome<<D as Decoder>::Event, <D as Decoder>::Place, <D as Decoder>::Kind>;

/// How an input is fed.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    /// The sizes of the pieces, used in turn until the input is exhausted. One is not 0.
    pub(crate) sizes: Vec<usize>,
    /// The most payload that is taken at once.
    pub(crate) most: usize,
}

impl Cut {
    /// Pieces of these sizes, with all the payload that each has taken at once.
    pub(crate) fn of(sizes: &[usize]) -> Self {
        Self { sizes: sizes.to_vec(), most: usize::MAX }
    }

    /// At least one piece, which may be empty.
    fn pieces<'a>(&'a self, input: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let mut sizes = self.sizes.iter().cycle();
        let mut rest = Some(input);
        std::iter::from_fn(move || {
            let input = rest?;
            let (piece, tail) = input.split_at(input.len().min(*sizes.next()?));
            rest = Some(tail).filter(|tail| !tail.is_empty());
            Some(piece)
        })
    }
}

/// Feeds all of `input`. Returns what it says, and how many bytes the decoder has consumed, even after
/// a fault.
pub(crate) fn drive<D: Decoder>(decoder: D, input: &[u8], cut: &Cut) -> (OutcomeOf<D>, u64) {
    let mut driver = Driver::new(decoder, cut.most);
    let mut fed = 0;
    for piece in cut.pieces(input) {
        fed += piece.len();
        if let Err(fault) = driver.feed(piece) {
            // Not `<`: a length can be at fault for the payload that it announces.
            assert!(fault.offset <= fed as u64, "{fault:?} after {fed} bytes");
            let consumed = driver.decoder.consumed();
            assert!(consumed <= fed as u64, "{consumed} of {fed} bytes consumed");
            return (Outcome { seen: driver.seen, verdict: Err(fault) }, consumed);
        }
    }
    let consumed = driver.decoder.consumed();
    (Outcome { seen: driver.seen, verdict: Ok(driver.decoder.end()) }, consumed)
}

/// A decoder, and what it has found so far.
pub(crate) struct Driver<D: Decoder> {
    pub(crate) decoder: D,
    pub(crate) seen: Vec<Seen<D::Event>>,
    most: usize,
    /// Bytes of the current payload that are still to come.
    left: u64,
    used: u64,
}

impl<D: Decoder> Driver<D> {
    pub(crate) fn new(decoder: D, most: usize) -> Self {
        Self { decoder, seen: Vec::new(), most, left: 0, used: 0 }
    }

    pub(crate) fn feed(&mut self, mut input: &[u8]) -> Result<(), Fault<D::Kind>> {
        loop {
            if self.decoder.ignores(input) {
                assert_eq!(self.decoder.consumed(), self.used, "what comes after the end is not consumed");
                return Ok(());
            }
            let (used, next) = self.decoder.read(input)?;
            assert!(used <= input.len(), "{used} of {} bytes used", input.len());
            input = self.consume(input, used);
            match next {
                Next::NeedMore => {
                    assert_eq!(input, b"", "NeedMore leaves nothing");
                    assert_eq!(self.left, 0, "a payload that was not announced to its end");
                    return Ok(());
                }
                Next::Event(event) => {
                    // This also keeps a decoder that repeats itself from going on for ever.
                    assert!(used > 0, "{event:?} without a byte");
                    assert_eq!(self.left, 0, "{event:?} within a payload");
                    self.decoder.check(&event, &self.seen);
                    self.seen.push(Seen::Event(event));
                }
                Next::Payload(source, next) => {
                    let here = &input[..at_most(input.len().min(self.most), next)];
                    self.payload(source, next, here);
                    if input.is_empty() {
                        return Ok(());
                    }
                    self.decoder.take(here.len() as u64);
                    input = self.consume(input, here.len());
                }
            }
        }
    }

    fn consume<'a>(&mut self, input: &'a [u8], n: usize) -> &'a [u8] {
        self.used += n as u64;
        assert_eq!(self.decoder.consumed(), self.used, "the offset counts what was used and taken");
        &input[n..]
    }

    fn payload(&mut self, source: Source, next: u64, here: &[u8]) {
        assert_ne!(next, 0, "an empty payload is not announced");
        if self.left == 0 {
            self.seen.push(Seen::Payload(source, next, Vec::new()));
            self.left = next;
        }
        assert_eq!(next, self.left, "bytes of the payload yet to come");
        match self.seen.last_mut() {
            Some(Seen::Payload(begun, _, bytes)) => {
                assert_eq!(source, *begun, "a payload does not change its source");
                bytes.extend_from_slice(here);
            }
            Some(Seen::Event(_)) | None => unreachable!("a payload that did not begin"),
        }
        self.left -= here.len() as u64;
    }
}

/// Where a decoder of netstrings stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetstringPlace {
    pub(crate) offset: u64,
    pub(crate) at_boundary: bool,
    pub(crate) remaining: u64,
}

impl Decoder for netstring::Decoder {
    type Event = Token;
    type Kind = netstring::ErrorKind;
    type Place = NetstringPlace;

    fn read(&mut self, input: &[u8]) -> Found<Self> {
        let (used, token) = self.next(input)?;
        let next = match token {
            Token::NeedMore => Next::NeedMore,
            Token::Payload(len) => {
                assert_eq!(len, self.remaining());
                Next::Payload(Source::Netstring, len)
            }
            Token::Begin(_) | Token::End => Next::Event(token),
        };
        Ok((used, next))
    }

    fn take(&mut self, n: u64) {
        self.advance(n);
    }

    fn consumed(&self) -> u64 {
        self.offset()
    }

    fn end(self) -> NetstringPlace {
        NetstringPlace { offset: self.offset(), at_boundary: self.at_boundary(), remaining: self.remaining() }
    }
}

/// Where a decoder of requests stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestPlace {
    /// Bytes consumed: those after the end of the request are not.
    pub(crate) offset: u64,
    pub(crate) version: Version,
    pub(crate) is_ping: bool,
    pub(crate) ended: bool,
    /// What the decoder makes of an end of file here.
    pub(crate) end_of_file: Result<(), Fault<BadRequestKind>>,
}

/// The whole of a ping.
const PING: u64 = b"10:protocol=2,".len() as u64;

/// The shortest first netstring that names a version.
const SHORTEST_VERSION: u64 = b"9:protocol=,".len() as u64;

impl Decoder for RequestDecoder {
    type Event = request::Event;
    type Kind = BadRequestKind;
    type Place = RequestPlace;

    fn read(&mut self, input: &[u8]) -> Found<Self> {
        let (used, event) = self.next(input)?;
        let next = match event {
            request::Event::NeedMore => Next::NeedMore,
            request::Event::Stdin(len) => Next::Payload(Source::Stdin, len),
            request::Event::Exec(_)
            | request::Event::Protocol
            | request::Event::Start(_)
            | request::Event::Status
            | request::Event::EndOfStdin
            | request::Event::Signal(_)
            | request::Event::WindowSize(_) => Next::Event(event),
        };
        Ok((used, next))
    }

    fn take(&mut self, n: u64) {
        self.advance(n);
    }

    fn consumed(&self) -> u64 {
        self.offset()
    }

    fn check(&self, event: &request::Event, seen: &[Seen<request::Event>]) {
        match event {
            request::Event::Protocol => {
                assert_eq!(seen, [], "the version is in the first netstring");
                assert!(self.offset() >= SHORTEST_VERSION, "the first netstring is complete");
                if self.is_ping() {
                    assert_eq!(self.offset(), PING, "a ping is nothing but this");
                }
                assert_eq!(self.version(), Version::Two);
            }
            request::Event::Exec(_) => assert_eq!(self.version(), Version::One, "{event:?}"),
            request::Event::Start(_)
            | request::Event::Status
            | request::Event::Signal(_)
            | request::Event::WindowSize(_) => assert_eq!(self.version(), Version::Two, "{event:?}"),
            request::Event::Stdin(_) | request::Event::EndOfStdin | request::Event::NeedMore => {}
        }
    }

    fn ignores(&mut self, rest: &[u8]) -> bool {
        if self.ended() {
            assert_eq!(self.next(rest), Ok((0, request::Event::EndOfStdin)), "what comes after the end is ignored");
        }
        self.ended()
    }

    fn end(mut self) -> RequestPlace {
        let (offset, version, is_ping, ended) = (self.offset(), self.version(), self.is_ping(), self.ended());
        if is_ping {
            assert_eq!(offset, PING, "a ping is nothing but this");
        }
        let end_of_file = self.end_of_file().map_err(Fault::from);
        assert_eq!(end_of_file.is_ok(), self.ended(), "only an end of file that is accepted ends the request");
        if end_of_file.is_ok() {
            for more in [b"0:,".as_slice(), b"5:stdin,0:,"] {
                assert!(self.ignores(more));
            }
        }
        assert!(end_of_file.is_ok() || !is_ping, "a ping is complete");
        RequestPlace { offset, version, is_ping, ended, end_of_file }
    }
}

/// Where a decoder of replies stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplyPlace {
    pub(crate) offset: u64,
    pub(crate) at_boundary: bool,
}

impl Decoder for ReplyDecoder {
    type Event = reply::Event;
    type Kind = BadReplyKind;
    type Place = ReplyPlace;

    fn read(&mut self, input: &[u8]) -> Found<Self> {
        let (used, event) = self.next(input)?;
        let next = match event {
            reply::Event::NeedMore => Next::NeedMore,
            reply::Event::Output(stream, len) => Next::Payload(Source::Output(stream), len),
            reply::Event::Status(len) => Next::Payload(Source::Status, len),
            reply::Event::Unknown(len) => Next::Payload(Source::Unknown, len),
            reply::Event::Exit(_)
            | reply::Event::Introduction(_)
            | reply::Event::Queued(_)
            | reply::Event::Taken(_)
            | reply::Event::InputClosed
            | reply::Event::Started(_)
            | reply::Event::EndOfOutput(_)
            | reply::Event::Failure(_)
            | reply::Event::Usage(_) => Next::Event(event),
        };
        Ok((used, next))
    }

    fn take(&mut self, n: u64) {
        self.advance(n);
    }

    fn consumed(&self) -> u64 {
        self.offset()
    }

    fn end(self) -> ReplyPlace {
        ReplyPlace { offset: self.offset(), at_boundary: self.at_boundary() }
    }
}

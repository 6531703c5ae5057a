//! Both decoders, of both versions, on arbitrary bytes: however they are split, the same is found in them, and the same fault at the
//! same byte.
#![no_main]

use std::fmt::Debug;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sockexec_proto::netstring::at_most;
use sockexec_proto::{ReplyDecoder, RequestDecoder, Version, reply, request};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    /// The sizes of the pieces, used in turn.
    sizes: Vec<u8>,
    /// The most payload that is taken at once; 0: all that is there.
    taken: u8,
    bytes: &'a [u8],
}

/// What stands in the input, with payloads in one piece.
#[derive(Debug, PartialEq)]
enum Found<E, K> {
    Payload(K, Vec<u8>),
    Other(E),
}

/// All of it, the fault if there is one, the decoder's offset, and whether the input may end there.
type Outcome<E, K, F> = (Vec<Found<E, K>>, Option<F>, u64, bool);

/// What is done next with the bytes at hand.
enum Next<E, K> {
    /// So many bytes of payload come.
    Payload(K, u64),
    Other(E),
    /// Nothing can be done with more bytes either.
    Over,
    NeedMore,
}

trait Decoder: Sized {
    type Event: PartialEq + Debug;
    type Kind: PartialEq + Copy + Debug;
    type Fault: PartialEq + Debug;
    fn start() -> Self;
    fn next(&mut self, input: &[u8]) -> Result<(usize, Next<Self::Event, Self::Kind>), Self::Fault>;
    fn advance(&mut self, n: u64);
    fn offset(&self) -> u64;
    fn may_end(&mut self) -> bool;
    fn fault_at(fault: &Self::Fault) -> u64;
}

/// What asks whether the daemon serves, once the input has ended behind it.
const PING: &[u8] = b"10:protocol=2,";

impl Decoder for RequestDecoder {
    type Event = request::Event;
    type Kind = ();
    type Fault = sockexec_proto::BadRequest;

    fn start() -> Self {
        Self::new()
    }

    fn next(&mut self, input: &[u8]) -> Result<(usize, Next<Self::Event, ()>), Self::Fault> {
        let (used, event) = self.next(input)?;
        let next = match event {
            request::Event::Stdin(len) => Next::Payload((), len),
            request::Event::NeedMore => Next::NeedMore,
            request::Event::EndOfStdin if self.ended() => Next::Over,
            request::Event::Exec(_)
            | request::Event::Protocol
            | request::Event::Start(_)
            | request::Event::Status
            | request::Event::EndOfStdin
            | request::Event::Signal(_)
            | request::Event::WindowSize(_) => Next::Other(event),
        };
        Ok((used, next))
    }

    fn advance(&mut self, n: u64) {
        self.advance(n);
    }

    fn offset(&self) -> u64 {
        self.offset()
    }

    fn may_end(&mut self) -> bool {
        let is_ping = self.is_ping();
        if is_ping {
            assert_eq!(self.offset(), PING.len() as u64, "a ping is nothing but this");
        }
        let may_end = self.end_of_file().is_ok();
        assert_eq!(may_end, self.ended(), "nothing follows the end");
        assert!(may_end || !is_ping, "a ping is whole");
        may_end
    }

    fn fault_at(fault: &Self::Fault) -> u64 {
        fault.offset
    }
}

/// What a payload of a reply is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Payload {
    Output(reply::Stream),
    Status,
    Unknown,
}

/// The decoder of replies to requests of version 1, or 2.
struct Reply<const VERSION: u8>(ReplyDecoder);

impl<const VERSION: u8> Decoder for Reply<VERSION> {
    type Event = reply::Event;
    type Kind = Payload;
    type Fault = sockexec_proto::BadReply;

    fn start() -> Self {
        Self(ReplyDecoder::of(if VERSION == 1 { Version::One } else { Version::Two }))
    }

    fn next(&mut self, input: &[u8]) -> Result<(usize, Next<Self::Event, Self::Kind>), Self::Fault> {
        let (used, event) = self.0.next(input)?;
        let next = match event {
            reply::Event::Output(stream, len) => Next::Payload(Payload::Output(stream), len),
            reply::Event::Unknown(len) => Next::Payload(Payload::Unknown, len),
            reply::Event::Status(len) => Next::Payload(Payload::Status, len),
            reply::Event::NeedMore => Next::NeedMore,
            reply::Event::Exit(_) => Next::Other(event),
            reply::Event::Introduction(_)
            | reply::Event::Queued(_)
            | reply::Event::Taken(_)
            | reply::Event::InputClosed
            | reply::Event::Started(_)
            | reply::Event::EndOfOutput(_)
            | reply::Event::Failure(_)
            | reply::Event::Usage(_) => {
                assert_eq!(VERSION, 2, "{event:?} in version 1");
                Next::Other(event)
            }
        };
        Ok((used, next))
    }

    fn advance(&mut self, n: u64) {
        self.0.advance(n);
    }

    fn offset(&self) -> u64 {
        self.0.offset()
    }

    fn may_end(&mut self) -> bool {
        self.0.at_boundary()
    }

    fn fault_at(fault: &Self::Fault) -> u64 {
        fault.offset
    }
}

fn decode<D: Decoder>(
    bytes: &[u8],
    mut sizes: impl Iterator<Item = usize>,
    most: usize,
) -> Outcome<D::Event, D::Kind, D::Fault> {
    let mut decoder = D::start();
    let mut found = Vec::new();
    // Where the next piece starts, and which bytes of the last one are still to be used.
    let (mut fed, mut used) = (0, 0);
    // The last payload is not complete.
    let mut is_partial = false;
    loop {
        let piece = &bytes[used..fed];
        let (n, next) = match decoder.next(piece) {
            Ok(next) => next,
            Err(fault) => {
                let at = usize::try_from(D::fault_at(&fault)).unwrap();
                // Not `<`: a length may be at fault for the payload that it announces.
                assert!(at <= fed, "a fault at byte {at}, of which {fed} are known");
                return (found, Some(fault), decoder.offset(), false);
            }
        };
        assert!(n <= piece.len(), "{n} of {} bytes used", piece.len());
        used += n;
        assert_eq!(decoder.offset(), used as u64);
        let left = fed - used;
        match next {
            Next::Other(event) => found.push(Found::Other(event)),
            Next::Over => break,
            Next::Payload(kind, len) if left > 0 => {
                assert!(len > 0, "a payload of nothing");
                let n = at_most(left.min(most), len);
                let taken = &bytes[used..used + n];
                match found.last_mut() {
                    Some(Found::Payload(last, all)) if is_partial && *last == kind => all.extend_from_slice(taken),
                    _ => {
                        assert!(!is_partial, "a payload that has become another");
                        found.push(Found::Payload(kind, taken.to_vec()));
                    }
                }
                is_partial = (n as u64) < len;
                decoder.advance(n as u64);
                used += n;
            }
            Next::Payload(..) | Next::NeedMore => {
                assert_eq!(left, 0, "bytes that were neither used nor asked for");
                match sizes.next() {
                    Some(size) if fed < bytes.len() => fed = bytes.len().min(fed + size),
                    _ => break,
                }
            }
        }
    }
    let offset = decoder.offset();
    (found, None, offset, decoder.may_end())
}

fn compare<D: Decoder>(input: &Input<'_>) {
    let whole = decode::<D>(input.bytes, std::iter::repeat(usize::MAX / 2), usize::MAX);
    let bytewise = decode::<D>(input.bytes, std::iter::repeat(1), usize::MAX);
    assert_eq!(whole, bytewise, "byte by byte");
    // Pieces of nothing may come too, and the last size is used for the rest.
    let last = usize::from(input.sizes.last().copied().unwrap_or(7)).max(1);
    let sizes = input.sizes.iter().map(|&size| size.into()).chain(std::iter::repeat(last));
    let most = if input.taken == 0 { usize::MAX } else { input.taken.into() };
    assert_eq!(whole, decode::<D>(input.bytes, sizes, most), "as split");
}

fuzz_target!(|input: Input<'_>| {
    compare::<RequestDecoder>(&input);
    compare::<Reply<1>>(&input);
    compare::<Reply<2>>(&input);
});

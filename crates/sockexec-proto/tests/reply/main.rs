//! Replies, through the public interface: what the daemon writes and what a client reads.

#[path = "../common/mod.rs"]
mod common;
mod naive;
mod version_1;
mod version_2;

use common::drive::{Cut, OutcomeOf, ReplyPlace, Source};
use sockexec_proto::error::BadReplyKind;
use sockexec_proto::reply::{Event, encode_pair};
use sockexec_proto::{BadReply, Exit, ReplyDecoder, Stream, Version};

type Seen = common::drive::Seen<Event>;
type Fault = common::drive::Fault<BadReplyKind>;
type Outcome = OutcomeOf<ReplyDecoder>;

fn drive(version: Version, input: &[u8], cut: &Cut) -> Outcome {
    common::drive::drive(ReplyDecoder::of(version), input, cut).0
}

fn check(version: Version, input: &[u8], expected: &Outcome) {
    common::check(|| ReplyDecoder::of(version), input, expected);
}

/// Asserts that these are whole pairs that say `expected`, whatever follows.
fn check_read(version: Version, input: &[u8], expected: &[Seen]) {
    let read = Outcome { seen: expected.to_vec(), verdict: Ok(place(input.len(), true)) };
    check(version, input, &read);
    let mut more = read;
    more.seen.push(begun(Source::Output(Stream::Stderr), 3, b"ab"));
    more.verdict = Ok(place(input.len() + 13, false));
    check(version, &[input, b"6:stderr,3:ab"].concat(), &more);
}

fn check_refused(version: Version, input: &[u8], refused: &Outcome) {
    common::check_refused(|| ReplyDecoder::of(version), input, refused);
}

fn place(offset: usize, at_boundary: bool) -> ReplyPlace {
    ReplyPlace { offset: offset as u64, at_boundary }
}

fn fault(kind: BadReplyKind, offset: u64) -> Fault {
    Fault::from(BadReply { kind, offset })
}

/// A payload of which the input has only the beginning.
fn begun(source: Source, announced: u64, bytes: &[u8]) -> Seen {
    Seen::Payload(source, announced, bytes.to_vec())
}

fn payload(source: Source, bytes: &[u8]) -> Seen {
    begun(source, bytes.len() as u64, bytes)
}

fn out(bytes: &[u8]) -> Seen {
    payload(Source::Output(Stream::Stdout), bytes)
}

fn code(code: u8) -> Seen {
    Seen::Event(Event::Exit(Exit::Code(code)))
}

fn pair(tag: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_pair(tag, payload, &mut bytes);
    bytes
}

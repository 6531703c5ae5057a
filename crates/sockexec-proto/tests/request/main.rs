//! Requests, through the public interface: what the daemon reads and what a client writes.

#[path = "../common/mod.rs"]
mod common;
mod version_1;
mod version_2;

use std::ffi::CString;

use common::drive::{Cut, OutcomeOf, Source};
use sockexec_proto::error::BadRequestKind;
use sockexec_proto::request::{Argv, Event};
use sockexec_proto::{BadRequest, RequestDecoder};

type Seen = common::drive::Seen<Event>;
type Fault = common::drive::Fault<BadRequestKind>;
type Outcome = OutcomeOf<RequestDecoder>;

fn drive(input: &[u8], cut: &Cut) -> Outcome {
    common::drive::drive(RequestDecoder::new(), input, cut).0
}

fn check(input: &[u8], expected: &Outcome) {
    common::check(RequestDecoder::new, input, expected);
}

fn check_refused(input: &[u8], refused: &Outcome) {
    common::check_refused(RequestDecoder::new, input, refused);
}

fn fault(kind: BadRequestKind, offset: usize) -> Fault {
    Fault::from(BadRequest { kind, offset: offset as u64 })
}

/// No `argument` has a NUL byte.
fn argv(arguments: &[impl AsRef<[u8]>]) -> Argv {
    arguments.iter().map(|argument| CString::new(argument.as_ref()).unwrap_or_default()).collect()
}

/// Standard input of which the input has all.
fn stdin(bytes: &[u8]) -> Seen {
    Seen::Payload(Source::Stdin, bytes.len() as u64, bytes.to_vec())
}

const END_OF_INPUT: Seen = Seen::Event(Event::EndOfStdin);

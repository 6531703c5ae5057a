//! Version 1: output and the exit pair.

mod exits;
mod framing;
mod naive;
mod pairs;
mod properties;
mod streaming;
mod writing;

use sockexec_proto::error::BadReplyKind;
use sockexec_proto::reply::Event;
use sockexec_proto::{Exit, Signal, Stream, Version};

use crate::common::drive::{Cut, Source};
use crate::{Fault, Outcome, Seen, payload};

/// What `input` says, of which this asserts that nothing is of version 2.
fn drive(input: &[u8], cut: &Cut) -> Outcome {
    let outcome = crate::drive(Version::One, input, cut);
    let is_of_version_1 = |seen: &Seen| {
        matches!(seen, Seen::Payload(Source::Output(_) | Source::Unknown, ..) | Seen::Event(Event::Exit(_)))
    };
    assert!(outcome.seen.iter().all(is_of_version_1), "{outcome:?}");
    outcome
}

fn check(input: &[u8], expected: &Outcome) {
    crate::check(Version::One, input, expected);
}

fn check_read(input: &[u8], expected: &[Seen]) {
    crate::check_read(Version::One, input, expected);
}

/// Asserts that `input` is refused at its last byte and not before, whatever follows.
fn check_refused(input: &[u8], kind: BadReplyKind, offset: u64, text: &str) {
    let refused = naive::naive(input);
    assert_eq!(refused.verdict, Err(Fault { kind, offset, text: text.to_owned() }), "\"{}\"", input.escape_ascii());
    crate::check_refused(Version::One, input, &refused);
}

fn err(bytes: &[u8]) -> Seen {
    payload(Source::Output(Stream::Stderr), bytes)
}

fn unknown(bytes: &[u8]) -> Seen {
    payload(Source::Unknown, bytes)
}

fn exit(exit: Exit) -> Seen {
    Seen::Event(Event::Exit(exit))
}

fn signal(number: i32) -> Seen {
    exit(Exit::Signal(Signal::Number(number)))
}

fn name(name: &str) -> Seen {
    exit(Exit::Signal(Signal::Name(name.into())))
}

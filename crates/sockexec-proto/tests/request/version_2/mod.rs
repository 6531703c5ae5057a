//! Version 2: the first netstring, options, the arguments, tagged input.

mod arguments;
mod input;
mod limits;
mod naive;
mod options;
mod properties;
mod versions;
mod writing;

use sockexec_proto::error::BadRequestKind as Kind;
use sockexec_proto::request::{EnvironmentChange, Event, Request};
use sockexec_proto::{Options, Signal, Version, netstring};

use crate::common::drive::{Cut, RequestPlace as Place};
use crate::{Fault, Outcome, Seen, argv, fault};

const HEAD: &[u8] = b"10:protocol=2,";

const PROTOCOL: Seen = Seen::Event(Event::Protocol);

/// `HEAD`, these netstrings and `rest` as it is.
fn input(netstrings: &[&[u8]], rest: &[u8]) -> Vec<u8> {
    let mut bytes = HEAD.to_vec();
    for item in netstrings {
        netstring::encode(item, &mut bytes);
    }
    bytes.extend_from_slice(rest);
    bytes
}

/// The end of `input`, which begins with as much of `HEAD` as it has.
fn place(input: &[u8], ended: bool, end_of_file: Result<(), Fault>) -> Place {
    let version = if input.len() < HEAD.len() { Version::One } else { Version::Two };
    Place { offset: input.len() as u64, version, is_ping: input == HEAD, ended, end_of_file }
}

/// What `input` says after its first netstring, of which this asserts that it is reported.
fn drive(input: &[u8], cut: &Cut) -> Outcome {
    let mut outcome = crate::drive(input, cut);
    let is_reported = outcome.seen.first() == Some(&PROTOCOL);
    assert_eq!(is_reported, input.len() >= HEAD.len(), "\"{}\": {outcome:?}", input.escape_ascii());
    if is_reported {
        outcome.seen.remove(0);
    }
    if let Ok(place) = &outcome.verdict {
        let is_known = if is_reported { Version::Two } else { Version::One };
        assert_eq!((place.version, place.is_ping), (is_known, input == HEAD));
    }
    outcome
}

/// `outcome` with the first netstring before it, if `input` has it.
fn with_protocol(input: &[u8], outcome: &Outcome) -> Outcome {
    let mut outcome = outcome.clone();
    if input.len() >= HEAD.len() {
        outcome.seen.insert(0, PROTOCOL);
    }
    outcome
}

fn check(input: &[u8], expected: &Outcome) {
    crate::check(input, &with_protocol(input, expected));
}

/// Asserts that the bytes are read to their end, that they say `expected`, and that more may follow.
fn check_read(input: &[u8], expected: &[Seen]) {
    let read = Outcome { seen: expected.to_vec(), verdict: Ok(place(input, false, Ok(()))) };
    check(input, &read);
    let mut more = read;
    more.seen.push(Seen::Event(Event::Signal(Signal::Number(1))));
    let input = [input, b"6:signal,1:1,6:signa"].concat();
    more.verdict = Ok(place(&input, false, Err(fault(Kind::UnexpectedEnd, input.len()))));
    check(&input, &more);
}

/// Asserts that `input` is refused at its last byte and not before, whatever follows.
fn check_refused(input: &[u8], seen: &[Seen], kind: &Kind, offset: usize, text: &str) {
    let fault = Fault { kind: kind.clone(), offset: offset as u64, text: format!("{text} at byte {offset}") };
    let refused = Outcome { seen: seen.to_vec(), verdict: Err(fault) };
    crate::check_refused(input, &with_protocol(input, &refused));
}

fn start(options: Options, arguments: &[impl AsRef<[u8]>]) -> Seen {
    Seen::Event(Event::Start(Box::new(Request { options, argv: argv(arguments) })))
}

/// `cat` without options.
fn plain() -> Seen {
    start(Options::default(), &[b"cat"])
}

fn set(name: &[u8], value: &[u8]) -> EnvironmentChange {
    EnvironmentChange::Set(name.to_vec(), value.to_vec())
}

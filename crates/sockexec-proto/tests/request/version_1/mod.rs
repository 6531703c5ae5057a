//! Version 1: the number of arguments, the arguments, standard input in chunks.

mod arguments;
mod framing;
mod limits;
mod naive;
mod properties;
mod stdin;
mod writing;

use sockexec_proto::Version;
use sockexec_proto::error::BadRequestKind;
use sockexec_proto::request::Event;

use crate::common::drive::{RequestPlace as Place, Source};
use crate::{Fault, Seen, argv, fault};

fn place(offset: usize, ended: bool, end_of_file: Result<(), Fault>) -> Place {
    Place { offset: offset as u64, version: Version::One, is_ping: false, ended, end_of_file }
}

fn exec(arguments: &[impl AsRef<[u8]>]) -> Seen {
    Seen::Event(Event::Exec(argv(arguments)))
}

/// Standard input of which the input has only the beginning.
fn begun(announced: u64, bytes: &[u8]) -> Seen {
    Seen::Payload(Source::Stdin, announced, bytes.to_vec())
}

fn early_end(offset: usize) -> Fault {
    let fault = fault(BadRequestKind::UnexpectedEnd, offset);
    assert_eq!(fault.text, format!("request ends early at byte {offset}"));
    fault
}

/// Asserts that `input` is refused at its last byte and not before, whatever follows.
fn check_refused(input: &[u8], kind: BadRequestKind, offset: u64, text: &str) {
    let refused = naive::naive(input);
    assert_eq!(refused.verdict, Err(Fault { kind, offset, text: text.to_owned() }), "\"{}\"", input.escape_ascii());
    crate::check_refused(input, &refused);
}

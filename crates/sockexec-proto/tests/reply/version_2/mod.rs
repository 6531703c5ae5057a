//! Version 2: the other pairs that a daemon sends, and what an empty payload says.

mod naive;
mod pairs;
mod properties;
mod writing;

use std::time::Duration;

use sockexec_proto::error::BadReplyKind as Kind;
use sockexec_proto::reply::Event;
use sockexec_proto::{ErrorCode, Failure, Introduction, Stream, Usage, Version};

use crate::common::drive::Cut;
use crate::{Fault, Outcome, Seen};

fn drive(input: &[u8], cut: &Cut) -> Outcome {
    crate::drive(Version::Two, input, cut)
}

fn check_read(input: &[u8], expected: &[Seen]) {
    crate::check_read(Version::Two, input, expected);
}

/// Asserts that `input` is refused at its last byte and not before, whatever follows.
fn check_refused(input: &[u8], kind: &Kind, offset: u64, text: &str) {
    let fault = Fault { kind: kind.clone(), offset, text: format!("{text} at byte {offset}") };
    crate::check_refused(Version::Two, input, &Outcome { seen: Vec::new(), verdict: Err(fault) });
}

fn end_of(stream: Stream) -> Seen {
    Seen::Event(Event::EndOfOutput(stream))
}

fn started(pid: u32) -> Seen {
    Seen::Event(Event::Started(pid))
}

fn introduction(version: u32, window: u64, options: &[&str]) -> Seen {
    let options = options.iter().map(|name| name.as_bytes().to_vec()).collect();
    Seen::Event(Event::Introduction(Introduction::new(version, window, options)))
}

fn failure(code: ErrorCode, text: &[u8]) -> Seen {
    Seen::Event(Event::Failure(Failure::new(code, text.to_vec())))
}

fn usage(user: u64, system: u64, max_rss_kib: u64) -> Usage {
    Usage::new(Duration::from_micros(user), Duration::from_micros(system), max_rss_kib)
}

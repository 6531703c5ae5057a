//! What a decoder says that has all the input at hand, after a request for a program with a terminal.

use sockexec_proto::error::BadRequestKind as Kind;
use sockexec_proto::request::Event;
use sockexec_proto::{Options, Signal, WindowSize};

use super::{input, place, start};
use crate::common::drive::Source;
use crate::common::naive::{Stop, comma, head, payload};
use crate::{END_OF_INPUT, Outcome, Seen, fault};

/// The request for a program, before its tagged input.
pub(super) fn request() -> Vec<u8> {
    input(&[b"pty=80x24", b"1", b"cat"], b"")
}

/// `bytes` begin with [`request`].
pub(super) fn naive(bytes: &[u8]) -> Outcome {
    let options = Options { pty: Some(WindowSize { columns: 80, rows: 24 }), ..Options::default() };
    let mut seen = vec![start(options, &[b"cat"])];
    let verdict = match naive_input(bytes, request().len(), &mut seen) {
        Ok(()) => Ok(place(bytes, false, Ok(()))),
        Err(Stop::Short) => Ok(place(bytes, false, Err(fault(Kind::UnexpectedEnd, bytes.len())))),
        Err(Stop::Bad(kind, offset)) => Err(fault(kind, usize::try_from(offset).unwrap_or(usize::MAX))),
    };
    Outcome { seen, verdict }
}

/// Reads pairs from `at` on. `Ok`: the last one is complete.
fn naive_input(bytes: &[u8], mut at: usize, seen: &mut Vec<Seen>) -> Result<(), Stop<Kind>> {
    let mut open = true;
    while at < bytes.len() {
        let (len, start) = head(bytes, at, 19, Kind::Netstring)?;
        if len > 64 {
            return Err(Stop::Bad(Kind::TagTooLong, start as u64));
        }
        at = comma(bytes, start, len, Kind::Netstring)?;
        let tag = payload(bytes, start, len);
        let known = match tag {
            b"stdin" if !open => return Err(Stop::Bad(Kind::StdinAfterEnd, start as u64)),
            b"stdin" => None,
            b"signal" => Some("signal"),
            b"winsize" => Some("winsize"),
            _ => return Err(Stop::Bad(Kind::UnknownTag(tag.to_vec()), start as u64)),
        };
        let (len, start) = head(bytes, at, 19, Kind::Netstring)?;
        let payload = payload(bytes, start, len).to_vec();
        let Some(known) = known else {
            if len > 0 {
                seen.push(Seen::Payload(Source::Stdin, len, payload));
            }
            at = comma(bytes, start, len, Kind::Netstring)?;
            if len == 0 {
                open = false;
                seen.push(END_OF_INPUT);
            }
            continue;
        };
        if len > 64 {
            return Err(Stop::Bad(Kind::PayloadTooLong(known), start as u64));
        }
        at = comma(bytes, start, len, Kind::Netstring)?;
        let text = String::from_utf8_lossy(&payload).into_owned();
        let event = if known == "signal" { naive_signal(&text) } else { naive_size(&text) };
        let kind = if known == "signal" { Kind::UnknownSignal(payload) } else { Kind::WindowSize(payload) };
        seen.push(Seen::Event(event.ok_or(Stop::Bad(kind, start as u64))?));
    }
    Ok(())
}

fn naive_signal(text: &str) -> Option<Event> {
    let first = text.chars().next()?;
    if text.chars().all(|c| c.is_ascii_digit()) {
        return text.parse().ok().filter(|&number: &i32| number > 0).map(Signal::Number).map(Event::Signal);
    }
    let name = (first.is_ascii_alphabetic() || first == '?')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-?".contains(c));
    name.then(|| Event::Signal(Signal::Name(text.as_bytes().to_vec())))
}

fn naive_size(text: &str) -> Option<Event> {
    let (columns, rows) = text.split_once('x')?;
    let number = |text: &str| text.chars().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    Some(Event::WindowSize(WindowSize { columns: number(columns)?, rows: number(rows)? }))
}

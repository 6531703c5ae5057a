//! What a decoder says that has the whole reply at hand.

use sockexec_proto::error::BadReplyKind as Kind;
use sockexec_proto::reply::{Event, MIN_WINDOW};
use sockexec_proto::{ErrorCode, Exit, Failure, Introduction, Stream, Usage};

use super::end_of;
use crate::common::drive::Source;
use crate::common::naive::{Stop, comma, payload};
use crate::naive::{pairs, tag};
use crate::{Outcome, Seen, begun};

pub(super) fn naive(input: &[u8]) -> Outcome {
    pairs(input, naive_pair)
}

/// Returns where the pair at `at` ends.
fn naive_pair(input: &[u8], at: usize, seen: &mut Vec<Seen>) -> Result<usize, Stop<Kind>> {
    let (tag, len, start) = tag(input, at)?;
    let bytes = payload(input, start, len).to_vec();
    let (source, limit) = match tag {
        b"stdout" => (Some(Source::Output(Stream::Stdout)), u64::MAX),
        b"stderr" => (Some(Source::Output(Stream::Stderr)), u64::MAX),
        b"status" => (Some(Source::Status), u64::MAX),
        b"exitcode" | b"termsig" | b"started" | b"queued" | b"taken" | b"input-closed" => (None, 64),
        b"protocol" | b"usage" => (None, 4096),
        b"error" => (None, 65_536),
        _ => (Some(Source::Unknown), u64::MAX),
    };
    if len > limit {
        return Err(Stop::Bad(Kind::TooLong, start as u64));
    }
    if let Some(source) = source
        && len > 0
    {
        seen.push(begun(source, len, &bytes));
    }
    let at = comma(input, start, len, Kind::Netstring)?;
    match source {
        Some(Source::Output(stream)) if len == 0 => seen.push(end_of(stream)),
        Some(_) => {}
        None => seen.push(Seen::Event(naive_told(tag, bytes).map_err(|kind| Stop::Bad(kind, start as u64))?)),
    }
    Ok(at)
}

fn naive_told(tag: &[u8], bytes: Vec<u8>) -> Result<Event, Kind> {
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let number = text.chars().all(|c| c.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match tag {
        b"started" => match number.map(u32::try_from) {
            Some(Ok(pid)) if pid > 0 => Ok(Event::Started(pid)),
            _ => Err(Kind::Started(bytes)),
        },
        b"exitcode" => match number.map(u8::try_from) {
            Some(Ok(code)) => Ok(Event::Exit(Exit::Code(code))),
            _ => Err(Kind::ExitCode(bytes)),
        },
        b"error" => {
            let mut parts = bytes.splitn(2, |&byte| byte == b' ');
            let code = parts.next().unwrap_or_default();
            let found = ErrorCode::KNOWN.iter().find(|known| known.to_string().as_bytes() == code);
            let code = match found {
                Some(code) => code.clone(),
                None if code.is_empty() => return Err(Kind::ErrorCode(bytes)),
                None => ErrorCode::Other(code.to_vec()),
            };
            Ok(Event::Failure(Failure::new(code, parts.next().unwrap_or_default().to_vec())))
        }
        b"queued" => number.map(Event::Queued).ok_or(Kind::Queued(bytes)),
        b"taken" => number.map(Event::Taken).ok_or(Kind::Taken(bytes)),
        b"input-closed" => Ok(Event::InputClosed),
        // The generator has only this introduction and this usage, and damaged ones.
        b"protocol" if text == "2" => Ok(Event::Introduction(Introduction::new(2, MIN_WINDOW, vec![]))),
        b"protocol" => Err(Kind::Introduction(bytes)),
        b"usage" if text == "utime=0 stime=0 maxrss=0" => Ok(Event::Usage(Usage::default())),
        b"usage" => Err(Kind::Usage(bytes)),
        _ => Err(Kind::TermSig(bytes)),
    }
}

//! What a decoder says that has the whole reply at hand.

use sockexec_proto::error::BadReplyKind;
use sockexec_proto::{Exit, Signal, Stream};

use super::exit;
use crate::common::drive::Source;
use crate::common::naive::{Stop, comma, payload};
use crate::naive::{pairs, tag};
use crate::{Outcome, Seen, begun};

pub(super) fn naive(input: &[u8]) -> Outcome {
    pairs(input, naive_pair)
}

/// Returns where the pair at `at` ends.
fn naive_pair(input: &[u8], at: usize, seen: &mut Vec<Seen>) -> Result<usize, Stop<BadReplyKind>> {
    let (tag, len, start) = tag(input, at)?;
    let bytes = payload(input, start, len).to_vec();
    let source = match tag {
        b"stdout" => Source::Output(Stream::Stdout),
        b"stderr" => Source::Output(Stream::Stderr),
        b"exitcode" | b"termsig" => {
            if len > 64 {
                return Err(Stop::Bad(BadReplyKind::TooLong, start as u64));
            }
            let at = comma(input, start, len, BadReplyKind::Netstring)?;
            let end = if tag == b"termsig" { naive_termsig(bytes) } else { naive_exitcode(bytes) };
            seen.push(exit(end.map_err(|kind| Stop::Bad(kind, start as u64))?));
            return Ok(at);
        }
        _ => Source::Unknown,
    };
    if len > 0 {
        seen.push(begun(source, len, &bytes));
    }
    comma(input, start, len, BadReplyKind::Netstring)
}

/// The digits without leading zeros, if there are only digits.
fn naive_number(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8(bytes.to_vec()).ok()?;
    let number = text.chars().all(|c| c.is_ascii_digit()) && !text.is_empty();
    number.then(|| text.trim_start_matches('0').to_owned())
}

fn naive_exitcode(bytes: Vec<u8>) -> Result<Exit, BadReplyKind> {
    match naive_number(&bytes) {
        Some(number) if number.is_empty() => Ok(Exit::Code(0)),
        Some(number) => match (1..=255_u8).find(|code| code.to_string() == number) {
            Some(code) => Ok(Exit::Code(code)),
            None => Err(BadReplyKind::ExitCode(bytes)),
        },
        None => Err(BadReplyKind::ExitCode(bytes)),
    }
}

fn naive_termsig(bytes: Vec<u8>) -> Result<Exit, BadReplyKind> {
    let signal = if let Some(number) = naive_number(&bytes) {
        number.parse().ok().filter(|&number: &i32| number > 0).map(Signal::Number)
    } else {
        let allowed = |&byte: &u8| byte.is_ascii_alphanumeric() || b"+-?".contains(&byte);
        let first = bytes.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'?');
        (first && bytes.iter().all(allowed)).then(|| Signal::Name(bytes.clone()))
    };
    signal.map(Exit::Signal).ok_or(BadReplyKind::TermSig(bytes))
}

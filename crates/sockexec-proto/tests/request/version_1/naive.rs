//! What a decoder says that has the whole request at hand.

use sockexec_proto::error::BadRequestKind;

use super::{begun, early_end, exec, place};
use crate::common::naive::{Stop, comma, head, payload};
use crate::{END_OF_INPUT, Outcome, Seen, fault};

pub(super) fn naive(input: &[u8]) -> Outcome {
    let mut seen = Vec::new();
    let stop = naive_exec(input, &mut seen).and_then(|at| naive_stdin(input, at, &mut seen));
    let verdict = match stop {
        Err(Stop::Bad(kind, offset)) => Err(fault(kind, usize::try_from(offset).unwrap_or(usize::MAX))),
        Err(Stop::Short) => Ok(place(input.len(), false, Err(early_end(input.len())))),
        Ok(end) => Ok(place(end, seen.last() == Some(&END_OF_INPUT), Ok(()))),
    };
    Outcome { seen, verdict }
}

type Naive<T> = Result<T, Stop<BadRequestKind>>;

/// Returns where standard input begins.
fn naive_exec(input: &[u8], seen: &mut Vec<Seen>) -> Naive<usize> {
    let (len, start) = head(input, 0, 8, BadRequestKind::Netstring)?;
    if len > 20 {
        return Err(Stop::Bad(BadRequestKind::CountTooLong, start as u64));
    }
    let mut at = comma(input, start, len, BadRequestKind::Netstring)?;
    let text = payload(input, start, len);
    let count = String::from_utf8_lossy(text);
    let count: u128 = match count.parse() {
        Ok(count) if !text.starts_with(b"+") => count,
        Ok(_) | Err(_) => return Err(Stop::Bad(BadRequestKind::CountNotANumber(text.to_vec()), start as u64)),
    };
    if count == 0 {
        return Err(Stop::Bad(BadRequestKind::CountZero, start as u64));
    }
    if count > 65_536 {
        return Err(Stop::Bad(BadRequestKind::TooManyArguments, start as u64));
    }

    let mut argv = Vec::new();
    while (argv.len() as u128) < count {
        let (len, start) = head(input, at, 8, BadRequestKind::Netstring)?;
        let end = start as u64 + len;
        if end >= 4_194_304 {
            return Err(Stop::Bad(BadRequestKind::HeaderTooLong, start as u64));
        }
        at = comma(input, start, len, BadRequestKind::Netstring)?;
        let argument = payload(input, start, len);
        if let Some(nul) = argument.iter().position(|&byte| byte == 0) {
            return Err(Stop::Bad(BadRequestKind::NulByte(argv.len()), (start + nul) as u64));
        }
        argv.push(argument.to_vec());
    }
    seen.push(exec(&argv));
    Ok(at)
}

/// Returns where standard input ends: after the empty netstring, or with the input.
fn naive_stdin(input: &[u8], mut at: usize, seen: &mut Vec<Seen>) -> Naive<usize> {
    while at < input.len() {
        let (len, start) = head(input, at, 19, BadRequestKind::Netstring)?;
        if len > 0 {
            seen.push(begun(len, payload(input, start, len)));
        }
        at = comma(input, start, len, BadRequestKind::Netstring)?;
        if len == 0 {
            seen.push(END_OF_INPUT);
            return Ok(at);
        }
    }
    Ok(at)
}

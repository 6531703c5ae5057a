//! What both versions share of a decoder that has the whole reply at hand.

use sockexec_proto::error::BadReplyKind;

use crate::common::naive::{Stop, comma, head, payload};
use crate::{Outcome, Seen, fault, place};

/// Reads the pair at a position, and returns where it ends.
pub(crate) type Pair = fn(&[u8], usize, &mut Vec<Seen>) -> Result<usize, Stop<BadReplyKind>>;

/// Reads pair after pair.
pub(crate) fn pairs(input: &[u8], pair: Pair) -> Outcome {
    let (mut seen, mut at) = (Vec::new(), 0);
    let stop = loop {
        if at == input.len() {
            break Stop::Short;
        }
        match pair(input, at, &mut seen) {
            Ok(next) => at = next,
            Err(stop) => break stop,
        }
    };
    let verdict = match stop {
        Stop::Short => Ok(place(input.len(), at == input.len())),
        Stop::Bad(kind, offset) => Err(fault(kind, offset)),
    };
    Outcome { seen, verdict }
}

/// The tag at a position, and the length and the start of what follows it.
pub(crate) fn tag(input: &[u8], at: usize) -> Result<(&[u8], u64, usize), Stop<BadReplyKind>> {
    let (len, start) = head(input, at, 19, BadReplyKind::Netstring)?;
    if len > 64 {
        return Err(Stop::Bad(BadReplyKind::TooLong, start as u64));
    }
    let at = comma(input, start, len, BadReplyKind::Netstring)?;
    let tag = payload(input, start, len);
    let (len, start) = head(input, at, 19, BadReplyKind::Netstring)?;
    Ok((tag, len, start))
}

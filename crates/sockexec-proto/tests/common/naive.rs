//! A naive decoder of netstrings: it has all the input at hand, and lists every fault.

use sockexec_proto::netstring::{ErrorKind, MAX_LEN};

/// Why the naive decoder went no further.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop<E> {
    /// The input ends here.
    Short,
    /// The fault, and its offset.
    Bad(E, u64),
}

/// Reads `LEN ":"` at `at`. Returns the length, and where the payload starts.
///
/// It lists every fault that the bytes have and takes the first in the input.
pub(crate) fn head<E>(
    input: &[u8],
    at: usize,
    max_digits: usize,
    framing: fn(ErrorKind) -> E,
) -> Result<(u64, usize), Stop<E>> {
    let rest = &input[at..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = |digits: usize| {
        // A number with too many digits for u128 is over the limit as well.
        String::from_utf8_lossy(&rest[..digits]).parse().unwrap_or(u128::MAX)
    };

    let mut faults = Vec::new();
    if digits > 1 && rest[0] == b'0' {
        faults.push((1, ErrorKind::LeadingZero));
    }
    if digits > max_digits {
        let limit = u8::try_from(max_digits).unwrap_or(u8::MAX);
        faults.push((max_digits, ErrorKind::TooManyDigits(limit)));
    }
    if let Some(few) = (1..=digits).find(|&few| value(few) > u128::from(MAX_LEN)) {
        faults.push((few - 1, ErrorKind::TooLong));
    }
    match rest.get(digits) {
        Some(&byte) if digits == 0 => faults.push((0, ErrorKind::NoLength(byte))),
        Some(&byte) if byte != b':' => faults.push((digits, ErrorKind::NoColon(byte))),
        Some(_) | None => {}
    }

    // Of several at the same place, `min_by_key` takes the first: the order above counts.
    if let Some((index, kind)) = faults.into_iter().min_by_key(|(index, _)| *index) {
        return Err(Stop::Bad(framing(kind), (at + index) as u64));
    }
    if digits == rest.len() {
        return Err(Stop::Short);
    }
    Ok((u64::try_from(value(digits)).unwrap_or(u64::MAX), at + digits + 1))
}

/// As much as the input has of the payload that starts at `start`.
pub(crate) fn payload(input: &[u8], start: usize, len: u64) -> &[u8] {
    let rest = &input[start..];
    &rest[..rest.len().min(usize::try_from(len).unwrap_or(usize::MAX))]
}

/// Reads the comma after the payload that starts at `start`. Returns where the next netstring starts.
pub(crate) fn comma<E>(input: &[u8], start: usize, len: u64, framing: fn(ErrorKind) -> E) -> Result<usize, Stop<E>> {
    let end = usize::try_from(start as u64 + len).unwrap_or(usize::MAX);
    match input.get(end) {
        None => Err(Stop::Short),
        Some(b',') => Ok(end + 1),
        Some(&byte) => Err(Stop::Bad(framing(ErrorKind::NoComma(byte)), end as u64)),
    }
}

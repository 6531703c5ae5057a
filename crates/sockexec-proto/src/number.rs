//! Decimal numbers of the protocol: digits, and one point in a time. No sign, no exponent, no space.

use alloc::format;
use alloc::string::String;
use core::str::FromStr;
use core::time::Duration;

/// The most digits before the point of a time. All such numbers are below `u64::MAX`.
const MAX_SECONDS_DIGITS: u32 = 18;

/// The longest time with that many digits, in whole seconds.
pub(crate) const MAX_SECONDS: u64 = 10_u64.pow(MAX_SECONDS_DIGITS) - 1;

/// A number that consists of digits only. Leading zeros are accepted.
pub(crate) fn decimal<T: FromStr>(bytes: &[u8]) -> Option<T> {
    // `parse` alone would accept a sign.
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(bytes).ok()?.parse().ok()
}

/// A time in seconds: `30`, `0.5`. Fractions of a nanosecond are dropped.
pub(crate) fn parse_seconds(bytes: &[u8]) -> Option<Duration> {
    let point = bytes.iter().position(|&byte| byte == b'.');
    let whole = bytes.get(..point.unwrap_or(bytes.len()))?;
    if whole.len() > MAX_SECONDS_DIGITS as usize {
        return None;
    }
    let seconds = decimal(whole)?;
    let Some(point) = point else { return Some(Duration::from_secs(seconds)) };
    let fraction = bytes.get(point + 1..)?;
    if fraction.is_empty() || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(core::iter::repeat(b'0')).take(9);
    Some(Duration::new(seconds, digits.fold(0, |nanoseconds, digit| nanoseconds * 10 + u32::from(digit - b'0'))))
}

/// A time in seconds with up to `places` (at most 9) digits after the point and no trailing zeros.
/// Further digits are dropped.
pub(crate) fn format_seconds(time: Duration, places: usize) -> String {
    let digits = format!("{:09}", time.subsec_nanos());
    let fraction = digits.get(..places).unwrap_or(&digits).trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}", time.as_secs())
}

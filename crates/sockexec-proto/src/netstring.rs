//! Netstrings: `LEN ":" BYTES ","`, with LEN in decimal, no sign and no leading zero.

use core::fmt;

/// The largest length that is accepted if no smaller limit is set: 2^63 - 1, which fits in the signed
/// 64-bit counts of system calls.
pub const MAX_LEN: u64 = i64::MAX as u64;

/// What follows the payload.
pub const TERMINATOR: u8 = b',';

/// The longest header, `LEN ":"`, of a length up to [`MAX_LEN`]: 19 digits and a colon.
pub const MAX_HEADER: usize = 20;

/// What [`Decoder::next`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// A length and its colon. They announce this many bytes of payload.
    Begin(u64),
    /// This many bytes of payload (at least 1) come next in the input. Take some, then call
    /// [`Decoder::advance`].
    Payload(u64),
    /// The payload and its comma are complete.
    End,
    /// Everything was consumed; the rest has not arrived.
    NeedMore,
}

/// Why bytes are not a netstring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A length was expected, and this byte is not a digit.
    NoLength(u8),
    /// This byte is within a length and is neither a digit nor the colon.
    NoColon(u8),
    /// The length has a leading zero.
    LeadingZero,
    /// The length has more digits than this, the limit here.
    TooManyDigits(u8),
    /// The length is over [`MAX_LEN`].
    TooLong,
    /// This byte stands where the comma after the payload belongs.
    NoComma(u8),
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoLength(byte) => write!(f, "{} where a length was expected", Quoted(byte)),
            Self::NoColon(byte) => write!(f, "{} in a length, where a digit or ':' was expected", Quoted(byte)),
            Self::LeadingZero => f.write_str("length with a leading zero"),
            Self::TooManyDigits(limit) => write!(f, "length of more than {limit} digits"),
            Self::TooLong => write!(f, "length over {MAX_LEN}"),
            Self::NoComma(byte) => write!(f, "{} where ',' was expected after a payload", Quoted(byte)),
        }
    }
}

/// A byte as a message shows it: printable ASCII in quotes, the rest as `byte 0x00`.
struct Quoted(u8);

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_ascii_graphic() || self.0 == b' ' {
            write!(f, "'{}'", char::from(self.0))
        } else {
            write!(f, "byte 0x{:02x}", self.0)
        }
    }
}

/// A fault in the framing, and the offset in the input of the byte that shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// What is wrong.
    pub kind: ErrorKind,
    /// Bytes of the whole input before the one at fault.
    pub offset: u64,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.kind, self.offset)
    }
}

impl core::error::Error for Error {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    Length { value: u64, digits: u8 },
    Payload { remaining: u64 },
    Comma,
}

const START: State = State::Length { value: 0, digits: 0 };

/// An incremental decoder that holds no payload.
///
/// Do not use it again after an error: it no longer knows where a netstring begins.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decoder {
    state: State,
    offset: u64,
    max_digits: u8,
}

impl Decoder {
    /// A decoder that refuses a length of more than `max_digits` digits.
    #[must_use]
    pub const fn new(max_digits: u8) -> Self {
        Self { state: START, offset: 0, max_digits }
    }

    /// Sets how many digits the next lengths may have.
    pub const fn set_max_digits(&mut self, max_digits: u8) {
        self.max_digits = max_digits;
    }

    /// Bytes consumed so far, payloads included.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the input may end here: between two netstrings.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.state == START
    }

    /// Payload bytes of the current netstring that have not been taken yet.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        match self.state {
            State::Payload { remaining } => remaining,
            State::Length { .. } | State::Comma => 0,
        }
    }

    /// Reads framing from the front of `input`. Returns how many bytes were consumed, and what was found.
    /// It never consumes payload.
    ///
    /// # Errors
    /// At the first byte that cannot belong to a netstring.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, Token), Error> {
        match self.state {
            State::Length { value, digits } => self.length(input, value, digits),
            State::Payload { remaining: 0 } | State::Comma => self.comma(input),
            State::Payload { remaining } => Ok((0, Token::Payload(remaining))),
        }
    }

    /// Tells the decoder that `n` bytes of the announced payload were taken from the input. If that is
    /// more than was announced, all of it counts as taken.
    pub fn advance(&mut self, n: u64) {
        if let State::Payload { remaining } = self.state {
            let n = n.min(remaining);
            self.count(n);
            self.state = match remaining - n {
                0 => State::Comma,
                remaining => State::Payload { remaining },
            };
        }
    }

    /// Saturates: two chunks of 2^63 - 1 bytes are legal, and with their framing exceed a u64.
    const fn count(&mut self, n: u64) {
        self.offset = self.offset.saturating_add(n);
    }

    fn length(&mut self, input: &[u8], mut value: u64, mut digits: u8) -> Result<(usize, Token), Error> {
        for (used, &byte) in input.iter().enumerate() {
            match byte {
                b'0'..=b'9' if digits == 1 && value == 0 => return Err(self.error(ErrorKind::LeadingZero)),
                b'0'..=b'9' if digits >= self.max_digits => {
                    return Err(self.error(ErrorKind::TooManyDigits(self.max_digits)));
                }
                b'0'..=b'9' => {
                    value = match value.checked_mul(10).and_then(|v| v.checked_add(u64::from(byte - b'0'))) {
                        Some(value) if value <= MAX_LEN => value,
                        Some(_) | None => return Err(self.error(ErrorKind::TooLong)),
                    };
                    digits += 1;
                }
                b':' if digits > 0 => {
                    self.count(1);
                    self.state = State::Payload { remaining: value };
                    return Ok((used + 1, Token::Begin(value)));
                }
                _ if digits == 0 => return Err(self.error(ErrorKind::NoLength(byte))),
                _ => return Err(self.error(ErrorKind::NoColon(byte))),
            }
            self.count(1);
        }
        self.state = State::Length { value, digits };
        Ok((input.len(), Token::NeedMore))
    }

    fn comma(&mut self, input: &[u8]) -> Result<(usize, Token), Error> {
        match input.first() {
            None => Ok((0, Token::NeedMore)),
            Some(&TERMINATOR) => {
                self.count(1);
                self.state = START;
                Ok((1, Token::End))
            }
            Some(&byte) => Err(self.error(ErrorKind::NoComma(byte))),
        }
    }

    const fn error(&self, kind: ErrorKind) -> Error {
        Error { kind, offset: self.offset }
    }
}

/// How many of `arrived` bytes belong to a payload of which `remaining` are still to come.
#[must_use]
pub fn at_most(arrived: usize, remaining: u64) -> usize {
    usize::try_from(remaining).map_or(arrived, |remaining| remaining.min(arrived))
}

/// Returns the length of the netstring at the front of `bytes`, if it is complete and well-formed.
#[must_use]
pub fn complete_len(bytes: &[u8]) -> Option<usize> {
    let mut decoder = Decoder::new(19);
    let (head, Token::Begin(len)) = decoder.next(bytes).ok()? else { return None };
    let end = head.checked_add(usize::try_from(len).ok()?)?;
    (bytes.get(end) == Some(&TERMINATOR)).then_some(end + 1)
}

/// The head of a netstring, `LEN ":"`, without an allocation.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    bytes: [u8; MAX_HEADER + 1],
    start: u8,
}

impl Header {
    /// The head of a netstring with a payload of `len` bytes.
    #[must_use]
    pub const fn new(len: u64) -> Self {
        // u64::MAX has 20 digits; with the colon that is 21.
        let mut bytes = [b':'; MAX_HEADER + 1];
        let mut start = MAX_HEADER;
        let mut rest = len;
        loop {
            start -= 1;
            let digit = (rest % 10) as u8;
            bytes[start] = b'0' + digit;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "an index below 21 fits in a byte")]
        let start = start as u8;
        Self { bytes, start }
    }

    /// The bytes to send.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(usize::from(self.start)..).unwrap_or_default()
    }
}

/// Appends `payload` as a netstring.
pub fn encode(payload: &[u8], out: &mut alloc::vec::Vec<u8>) {
    out.extend_from_slice(Header::new(payload.len() as u64).as_bytes());
    out.extend_from_slice(payload);
    out.push(TERMINATOR);
}

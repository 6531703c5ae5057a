//! What a client sends: `argc 1*arg *chunk ""`.

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::mem;

use crate::error::{BadRequest, BadRequestKind};
use crate::netstring::{self, Decoder, Token};

/// The most arguments a request may have, the program's name included.
pub const MAX_ARGUMENTS: usize = 65_536;

/// The most bytes that the number of arguments and the arguments may take, framing included (4 MiB).
pub const MAX_HEADER_BYTES: u64 = 4 << 20;

/// The most digits a length may have before the end of the arguments.
pub const MAX_HEADER_DIGITS: u8 = 8;

/// The most digits a length of standard input may have: those of [`netstring::MAX_LEN`].
pub const MAX_STDIN_DIGITS: u8 = 19;

/// The most bytes that the decimal number of arguments may have. 65,536 needs 5; leading zeros are
/// accepted, as sockexec 3.1.1 accepts them.
const MAX_COUNT_BYTES: u64 = 20;

/// The empty netstring, which ends the program's standard input.
pub const END_OF_STDIN: &[u8] = b"0:,";

/// Appends the part of a request that starts the program: the number of arguments and the
/// arguments, the first of which is the program.
///
/// It does not judge: the daemon refuses no arguments, too many, and those that hold a NUL byte.
pub fn encode_exec<A: AsRef<[u8]>>(argv: &[A], out: &mut Vec<u8>) {
    // The length's digits and a colon; as text the count is the header of a netstring less its colon.
    let count = netstring::Header::new(argv.len() as u64);
    let count = count.as_bytes();
    netstring::encode(count.strip_suffix(b":").unwrap_or(count), out);
    for arg in argv {
        netstring::encode(arg.as_ref(), out);
    }
}

/// The head of a chunk of standard input of `len` bytes; the bytes and [`netstring::TERMINATOR`] follow.
///
/// An empty chunk is [`END_OF_STDIN`]: do not send one for a read that found nothing.
#[must_use]
pub const fn chunk_header(len: u64) -> netstring::Header {
    netstring::Header::new(len)
}

/// What [`RequestDecoder::next`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The arguments are complete: start the program, the first of them.
    Exec(Vec<CString>),
    /// So many bytes (at least 1) of standard input come next. Move some, then call
    /// [`RequestDecoder::advance`].
    Stdin(u64),
    /// Standard input is complete; whatever still comes is to be read and dropped.
    EndOfStdin,
    /// Everything was consumed; the rest has not arrived.
    NeedMore,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    /// Within the number of arguments.
    Count { digits: Vec<u8> },
    /// Within the arguments: `missing` are not complete, `current` is what has arrived of the next.
    Arguments { missing: usize, argv: Vec<CString>, current: Vec<u8> },
    /// Standard input; `last`: within the empty netstring that ends it.
    Stdin { last: bool },
    /// After the empty netstring.
    Ended,
}

/// Reads a request, cut anywhere.
///
/// The arguments are collected, within the limits of this module; standard input is not. After
/// an error the decoder is of no more use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestDecoder {
    netstring: Decoder,
    phase: Phase,
}

impl Default for RequestDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestDecoder {
    /// A decoder at the start of a connection.
    #[must_use]
    pub const fn new() -> Self {
        Self { netstring: Decoder::new(MAX_HEADER_DIGITS), phase: Phase::Count { digits: Vec::new() } }
    }

    /// Bytes consumed so far, standard input included.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.netstring.offset()
    }

    /// Whether the end of standard input was read.
    #[must_use]
    pub const fn ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Reads on from the front of `input`: how many bytes were consumed, and what was found. Standard
    /// input is never consumed here.
    ///
    /// # Errors
    /// At the first byte that breaks the protocol or a limit.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, Event), BadRequest> {
        let mut used = 0;
        loop {
            if self.ended() {
                return Ok((used, Event::EndOfStdin));
            }
            let rest = input.get(used..).unwrap_or_default();
            let (n, token) = self.netstring.next(rest)?;
            used += n;
            match token {
                Token::NeedMore => return Ok((used, Event::NeedMore)),
                Token::Begin(len) => self.begin(len)?,
                Token::Payload(len) => {
                    if matches!(self.phase, Phase::Stdin { .. }) {
                        return Ok((used, Event::Stdin(len)));
                    }
                    let available = input.get(used..).unwrap_or_default();
                    if available.is_empty() {
                        return Ok((used, Event::NeedMore));
                    }
                    let take = netstring::at_most(available.len(), len);
                    self.collect(available.get(..take).unwrap_or_default());
                    used += take;
                }
                Token::End => {
                    if let Some(event) = self.end()? {
                        return Ok((used, event));
                    }
                }
            }
        }
    }

    /// Tells the decoder that `n` bytes of standard input were moved. Within the arguments, which it
    /// collects itself, that cannot be, and is ignored.
    pub fn advance(&mut self, n: u64) {
        if matches!(self.phase, Phase::Stdin { .. }) {
            self.netstring.advance(n);
        }
    }

    /// Tells the decoder that the client will send no more, as after `shutdown(SHUT_WR)`. Between two
    /// chunks of standard input this is their end.
    ///
    /// # Errors
    /// [`BadRequestKind::UnexpectedEnd`] anywhere else.
    pub fn end_of_file(&mut self) -> Result<(), BadRequest> {
        match self.phase {
            Phase::Ended => Ok(()),
            Phase::Stdin { .. } if self.netstring.at_boundary() => {
                self.phase = Phase::Ended;
                Ok(())
            }
            Phase::Stdin { .. } | Phase::Count { .. } | Phase::Arguments { .. } => {
                Err(self.error(BadRequestKind::UnexpectedEnd))
            }
        }
    }

    /// The limits, from the announced length alone.
    fn begin(&mut self, len: u64) -> Result<(), BadRequest> {
        match self.phase {
            Phase::Count { .. } if len > MAX_COUNT_BYTES => Err(self.error(BadRequestKind::CountTooLong)),
            Phase::Count { .. } | Phase::Arguments { .. } => {
                // One more for the comma.
                if self.netstring.offset() + len + 1 > MAX_HEADER_BYTES {
                    return Err(self.error(BadRequestKind::HeaderTooLong));
                }
                Ok(())
            }
            Phase::Stdin { .. } => {
                self.phase = Phase::Stdin { last: len == 0 };
                Ok(())
            }
            Phase::Ended => Ok(()),
        }
    }

    fn collect(&mut self, bytes: &[u8]) {
        match &mut self.phase {
            Phase::Count { digits: buffer } | Phase::Arguments { current: buffer, .. } => {
                buffer.extend_from_slice(bytes);
                self.netstring.advance(bytes.len() as u64);
            }
            Phase::Stdin { .. } | Phase::Ended => {}
        }
    }

    fn end(&mut self) -> Result<Option<Event>, BadRequest> {
        match &mut self.phase {
            Phase::Count { digits } => {
                let digits = mem::take(digits);
                let missing = self.count(&digits)?;
                self.phase = Phase::Arguments { missing, argv: Vec::new(), current: Vec::new() };
                Ok(None)
            }
            Phase::Arguments { missing, argv, current } => {
                let bytes = mem::take(current);
                let len = bytes.len();
                match CString::new(bytes) {
                    Ok(argument) => argv.push(argument),
                    Err(error) => {
                        // The comma has been consumed: the argument lies just before it.
                        let start = self.netstring.offset() - 1 - len as u64;
                        return Err(BadRequest {
                            kind: BadRequestKind::NulByte(argv.len()),
                            offset: start + error.nul_position() as u64,
                        });
                    }
                }
                *missing -= 1;
                if *missing > 0 {
                    return Ok(None);
                }
                let argv = mem::take(argv);
                self.phase = Phase::Stdin { last: false };
                self.netstring.set_max_digits(MAX_STDIN_DIGITS);
                Ok(Some(Event::Exec(argv)))
            }
            Phase::Stdin { last: true } => {
                self.phase = Phase::Ended;
                Ok(None)
            }
            Phase::Stdin { last: false } | Phase::Ended => Ok(None),
        }
    }

    fn count(&self, digits: &[u8]) -> Result<usize, BadRequest> {
        let offset = self.netstring.offset() - 1 - digits.len() as u64;
        let error = |kind| BadRequest { kind, offset };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(error(BadRequestKind::CountNotANumber(digits.to_vec())));
        }
        // At most 20 digits, so saturation is all that overflow needs.
        let count =
            digits.iter().fold(0_usize, |n, digit| n.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
        match count {
            0 => Err(error(BadRequestKind::CountZero)),
            1..=MAX_ARGUMENTS => Ok(count),
            _ => Err(error(BadRequestKind::TooManyArguments)),
        }
    }

    const fn error(&self, kind: BadRequestKind) -> BadRequest {
        BadRequest { kind, offset: self.netstring.offset() }
    }
}

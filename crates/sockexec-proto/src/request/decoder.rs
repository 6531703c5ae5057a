//! Reads requests of both versions.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;

use super::argv::Argv;
use super::input::{Request, SIGNAL, WINSIZE, overhead};
use super::options::{self, PROTOCOL, PROTOCOL_NAME, WindowSize};
use super::{MAX_ARGUMENTS, MAX_HEADER_BYTES, MAX_HEADER_DIGITS, MAX_STDIN_DIGITS, Version};
use crate::error::{BadRequest, BadRequestKind};
use crate::netstring::{self, Decoder, Token};
use crate::signal::Signal;

/// The most bytes that the decimal number of arguments may have. 65,536 needs 5; leading zeros are
/// accepted, as sockexec 3.1.1 accepts them.
const MAX_COUNT_BYTES: u64 = 20;

/// The longest tag, signal or size of a terminal that is read, in bytes. Every valid one is much shorter.
const MAX_TAG: u64 = 64;

/// What [`RequestDecoder::next`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The arguments of a version 1 request are complete: start the program, the first of them.
    Exec(Argv),
    /// Version 2, or a later one: the first netstring is complete. The daemon introduces itself.
    Protocol,
    /// The arguments of a version 2 request are complete: start the program.
    Start(Box<Request>),
    /// Version 2: report the daemon's status. Read and drop what still comes.
    Status,
    /// This many bytes (at least 1) of standard input come next. Move some, then call
    /// [`RequestDecoder::advance`].
    Stdin(u64),
    /// Standard input is complete. In version 1, read and drop what still comes. In version 2 this
    /// comes once, and other events may follow.
    EndOfStdin,
    /// Version 2: a signal for the program's process group. If the system has no such signal, the
    /// request is refused with [`RequestDecoder::unknown_signal`].
    Signal(Signal),
    /// Version 2: the program's terminal has a new size.
    WindowSize(WindowSize),
    /// Everything was consumed; the rest has not arrived.
    NeedMore,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    /// Within the first netstring: the number of arguments, or the version.
    Count { digits: Vec<u8> },
    /// After the first netstring of an unknown version, which has this name.
    UnknownVersion(Vec<u8>),
    /// Version 2: within the options, or the number of arguments after them.
    Option { reading: Box<options::Reading>, current: Vec<u8> },
    /// Within the arguments: `missing` are not complete.
    Arguments { missing: usize, argv: Argv, options: Option<Box<options::Reading>> },
    /// Standard input; `last`: within the empty netstring that ends it.
    Stdin { last: bool },
    /// Version 2: within a tag after the arguments, or before it.
    Tag { current: Vec<u8>, accepts: Accepts },
    /// Version 2: within the payload of standard input, or before it; `last`: it is empty.
    TaggedStdin { last: bool, accepts: Accepts },
    /// Version 2: within the payload of a signal or a size, or before it.
    Told { tag: Told, current: Vec<u8>, accepts: Accepts },
    /// After the empty netstring, a request for the status, or the client's end of file.
    Ended,
}

/// What the client may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Accepts {
    /// None: standard input is open.
    no_stdin: Option<NoStdin>,
    window_size: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum NoStdin {
    Ended,
    Descriptors,
}

/// A tag whose payload is collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Told {
    Signal,
    WindowSize,
}

impl Told {
    const fn tag(self) -> &'static str {
        match self {
            Self::Signal => SIGNAL,
            Self::WindowSize => WINSIZE,
        }
    }
}

/// Reads a request of either version, cut anywhere.
///
/// It collects the options and arguments, within the limits of the [module](super), but not standard
/// input. Do not use it again after an error.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestDecoder {
    netstring: Decoder,
    phase: Phase,
    version: Version,
    /// Length of the payload that was complete last, in bytes.
    last_len: u64,
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
        Self {
            netstring: Decoder::new(MAX_HEADER_DIGITS),
            phase: Phase::Count { digits: Vec::new() },
            version: Version::One,
            last_len: 0,
        }
    }

    /// The version that the client speaks: 1 until its first netstring says otherwise.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Whether the version is known: the first netstring is complete.
    #[must_use]
    pub const fn knows_version(&self) -> bool {
        !matches!(self.phase, Phase::Count { .. })
    }

    /// Bytes consumed so far, standard input included.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.netstring.offset()
    }

    /// About how much memory the options and arguments that have arrived take, in bytes. 0 once they
    /// are complete: then the [`Event`] owns them.
    #[must_use]
    pub fn held(&self) -> u64 {
        match &self.phase {
            Phase::Count { .. } => self.offset(),
            Phase::Option { reading, .. } => self.offset() + overhead(&reading.options),
            Phase::Arguments { options, .. } => {
                self.offset() + options.as_ref().map_or(0, |reading| overhead(&reading.options))
            }
            Phase::UnknownVersion(_)
            | Phase::Stdin { .. }
            | Phase::Tag { .. }
            | Phase::TaggedStdin { .. }
            | Phase::Told { .. }
            | Phase::Ended => 0,
        }
    }

    /// Whether the request is over: drop what still comes.
    #[must_use]
    pub const fn ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Reads from the front of `input`. Returns how many bytes were consumed, and what was found. It
    /// never consumes standard input.
    ///
    /// # Errors
    /// At the first byte that breaks the protocol or a limit.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, Event), BadRequest> {
        let mut used = 0;
        loop {
            match &self.phase {
                Phase::Ended => return Ok((used, Event::EndOfStdin)),
                Phase::UnknownVersion(name) => {
                    return Err(self.error_in_last(BadRequestKind::UnknownVersion(name.clone()), PROTOCOL_NAME.len()));
                }
                _ => {}
            }
            let rest = input.get(used..).unwrap_or_default();
            let (n, token) = self.netstring.next(rest)?;
            used += n;
            match token {
                Token::NeedMore => return Ok((used, Event::NeedMore)),
                Token::Begin(len) => self.begin(len)?,
                Token::Payload(len) => {
                    if !self.phase.collects() {
                        return Ok((used, Event::Stdin(len)));
                    }
                    let available = input.get(used..).unwrap_or_default();
                    if available.is_empty() {
                        return Ok((used, Event::NeedMore));
                    }
                    let take = netstring::at_most(available.len(), len);
                    self.phase.collect(available.get(..take).unwrap_or_default());
                    self.netstring.advance(take as u64);
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

    /// Tells the decoder that `n` bytes of standard input were moved. Ignored if no standard input was
    /// announced.
    pub fn advance(&mut self, n: u64) {
        if matches!(self.phase, Phase::Stdin { .. } | Phase::TaggedStdin { .. }) {
            self.netstring.advance(n);
        }
    }

    /// Drops the options and arguments that have arrived: the request is not carried out. Its version stays
    /// known. Nothing else is to be read of it.
    pub fn discard(&mut self) {
        if self.knows_version() {
            self.phase = Phase::Ended;
        }
    }

    /// Whether the request is a ping if it ends here: it has only the first netstring of version 2.
    #[must_use]
    pub fn is_ping(&self) -> bool {
        matches!(&self.phase, Phase::Option { reading, .. } if reading.is_empty()) && self.netstring.at_boundary()
    }

    /// Tells the decoder that the client will send no more, as after `shutdown(SHUT_WR)`. Between two
    /// chunks of standard input, or two pairs, this ends standard input. It also completes a
    /// [ping](Self::is_ping).
    ///
    /// # Errors
    /// [`BadRequestKind::UnexpectedEnd`] anywhere else, and for an unknown version the error that
    /// [`RequestDecoder::next`] would return.
    pub fn end_of_file(&mut self) -> Result<(), BadRequest> {
        if self.is_ping() {
            self.phase = Phase::Ended;
        }
        match &self.phase {
            Phase::UnknownVersion(name) => {
                Err(self.error_in_last(BadRequestKind::UnknownVersion(name.clone()), PROTOCOL_NAME.len()))
            }
            Phase::Ended => Ok(()),
            Phase::Stdin { .. } | Phase::Tag { .. } if self.netstring.at_boundary() => {
                self.phase = Phase::Ended;
                Ok(())
            }
            Phase::Count { .. }
            | Phase::Option { .. }
            | Phase::Arguments { .. }
            | Phase::Stdin { .. }
            | Phase::Tag { .. }
            | Phase::TaggedStdin { .. }
            | Phase::Told { .. } => Err(self.error(BadRequestKind::UnexpectedEnd)),
        }
    }

    /// The error for the signal that [`RequestDecoder::next`] has just returned, if the system does not
    /// have it.
    #[must_use]
    pub fn unknown_signal(&self, signal: &Signal) -> BadRequest {
        let text = match signal {
            Signal::Number(number) => alloc::format!("{number}").into_bytes(),
            Signal::Name(name) => name.clone(),
        };
        self.error_in_last(BadRequestKind::UnknownSignal(text), 0)
    }

    /// Checks the limits when a length is announced, before its payload arrives.
    fn begin(&mut self, len: u64) -> Result<(), BadRequest> {
        self.last_len = len;
        // One more for the comma.
        let header_end = self.netstring.offset().saturating_add(len).saturating_add(1);
        let kind = match &mut self.phase {
            Phase::Count { .. } if len > MAX_COUNT_BYTES => BadRequestKind::CountTooLong,
            Phase::Count { .. } | Phase::Arguments { options: None, .. } if header_end > MAX_HEADER_BYTES => {
                BadRequestKind::HeaderTooLong
            }
            Phase::Option { .. } | Phase::Arguments { options: Some(_), .. } if header_end > MAX_HEADER_BYTES => {
                BadRequestKind::OptionsTooLong
            }
            Phase::Tag { .. } if len > MAX_TAG => BadRequestKind::TagTooLong,
            Phase::Told { tag, .. } if len > MAX_TAG => BadRequestKind::PayloadTooLong(tag.tag()),
            Phase::Stdin { last } | Phase::TaggedStdin { last, .. } => {
                *last = len == 0;
                return Ok(());
            }
            Phase::Count { .. }
            | Phase::UnknownVersion(_)
            | Phase::Option { .. }
            | Phase::Arguments { .. }
            | Phase::Tag { .. }
            | Phase::Told { .. }
            | Phase::Ended => return Ok(()),
        };
        Err(self.error(kind))
    }

    /// A payload is complete.
    fn end(&mut self) -> Result<Option<Event>, BadRequest> {
        match mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Count { digits } if digits.starts_with(PROTOCOL_NAME) => {
                self.version = Version::Two;
                self.phase = if digits == PROTOCOL {
                    Phase::Option { reading: Box::default(), current: Vec::new() }
                } else {
                    Phase::UnknownVersion(digits.get(PROTOCOL_NAME.len()..).unwrap_or_default().to_vec())
                };
                Ok(Some(Event::Protocol))
            }
            Phase::Count { digits } => self.begin_arguments(&digits, None),
            // No option begins with a digit. An empty netstring is taken for a missing number.
            Phase::Option { reading, current } if current.first().is_none_or(u8::is_ascii_digit) => {
                reading.finish()?;
                self.begin_arguments(&current, Some(reading))
            }
            Phase::Option { mut reading, current } => {
                if reading.take(&current, self.last_start())? {
                    return Ok(Some(Event::Status));
                }
                self.phase = Phase::Option { reading, current: Vec::new() };
                Ok(None)
            }
            Phase::Arguments { missing, argv, options } => self.argument(missing, argv, options),
            // The phase stays Ended. Nothing is read of an unknown version.
            Phase::Stdin { last: true } | Phase::UnknownVersion(_) | Phase::Ended => Ok(None),
            Phase::Stdin { last: false } => {
                self.phase = Phase::Stdin { last: false };
                Ok(None)
            }
            Phase::Tag { current, accepts } => {
                self.phase = self.phase_of(current, accepts)?;
                Ok(None)
            }
            Phase::TaggedStdin { last, accepts } => {
                let no_stdin = last.then_some(NoStdin::Ended);
                self.phase = Phase::Tag { current: Vec::new(), accepts: Accepts { no_stdin, ..accepts } };
                Ok(last.then_some(Event::EndOfStdin))
            }
            Phase::Told { tag, current, accepts } => {
                self.phase = Phase::Tag { current: Vec::new(), accepts };
                self.told(tag, current).map(Some)
            }
        }
    }

    fn begin_arguments(
        &mut self,
        digits: &[u8],
        options: Option<Box<options::Reading>>,
    ) -> Result<Option<Event>, BadRequest> {
        let missing = count(digits).map_err(|kind| self.error_in_last(kind, 0))?;
        self.phase = Phase::Arguments { missing, argv: Argv::new(), options };
        Ok(None)
    }

    fn argument(
        &mut self,
        missing: usize,
        mut argv: Argv,
        options: Option<Box<options::Reading>>,
    ) -> Result<Option<Event>, BadRequest> {
        if let Err(nul) = argv.end() {
            return Err(self.error_in_last(BadRequestKind::NulByte(argv.len()), nul));
        }
        if missing > 1 {
            self.phase = Phase::Arguments { missing: missing - 1, argv, options };
            return Ok(None);
        }
        argv.finish();
        self.netstring.set_max_digits(MAX_STDIN_DIGITS);
        let Some(reading) = options else {
            self.phase = Phase::Stdin { last: false };
            return Ok(Some(Event::Exec(argv)));
        };
        let options = reading.options;
        let accepts = Accepts {
            no_stdin: options.descriptors.then_some(NoStdin::Descriptors),
            window_size: options.pty.is_some(),
        };
        self.phase = Phase::Tag { current: Vec::new(), accepts };
        Ok(Some(Event::Start(Box::new(Request { options, argv }))))
    }

    fn phase_of(&self, tag: Vec<u8>, accepts: Accepts) -> Result<Phase, BadRequest> {
        let kind = match (tag.as_slice(), accepts) {
            (b"stdin", Accepts { no_stdin: None, .. }) => return Ok(Phase::TaggedStdin { last: false, accepts }),
            (b"stdin", Accepts { no_stdin: Some(NoStdin::Ended), .. }) => BadRequestKind::StdinAfterEnd,
            (b"stdin", Accepts { no_stdin: Some(NoStdin::Descriptors), .. }) => BadRequestKind::StdinBesideDescriptors,
            (b"signal", _) => return Ok(Phase::Told { tag: Told::Signal, current: Vec::new(), accepts }),
            (b"winsize", Accepts { window_size: true, .. }) => {
                return Ok(Phase::Told { tag: Told::WindowSize, current: Vec::new(), accepts });
            }
            (b"winsize", Accepts { window_size: false, .. }) => BadRequestKind::WindowSizeWithoutPty,
            _ => BadRequestKind::UnknownTag(tag),
        };
        Err(self.error_in_last(kind, 0))
    }

    fn told(&self, tag: Told, payload: Vec<u8>) -> Result<Event, BadRequest> {
        let (event, kind) = match tag {
            Told::Signal => (Signal::parse(&payload).map(Event::Signal), BadRequestKind::UnknownSignal(payload)),
            Told::WindowSize => {
                (WindowSize::parse(&payload).map(Event::WindowSize), BadRequestKind::WindowSize(payload))
            }
        };
        event.ok_or_else(|| self.error_in_last(kind, 0))
    }

    /// The offset of the payload whose comma was consumed last.
    const fn last_start(&self) -> u64 {
        self.netstring.offset().saturating_sub(1).saturating_sub(self.last_len)
    }

    /// A fault at byte `index` of that payload.
    const fn error_in_last(&self, kind: BadRequestKind, index: usize) -> BadRequest {
        BadRequest { kind, offset: self.last_start() + index as u64 }
    }

    const fn error(&self, kind: BadRequestKind) -> BadRequest {
        BadRequest { kind, offset: self.netstring.offset() }
    }
}

impl Phase {
    /// Whether payloads are collected.
    const fn collects(&self) -> bool {
        !matches!(self, Self::UnknownVersion(_) | Self::Stdin { .. } | Self::TaggedStdin { .. } | Self::Ended)
    }

    /// Collects these bytes of a payload.
    fn collect(&mut self, bytes: &[u8]) {
        match self {
            Self::Count { digits: buffer }
            | Self::Option { current: buffer, .. }
            | Self::Tag { current: buffer, .. }
            | Self::Told { current: buffer, .. } => buffer.extend_from_slice(bytes),
            Self::Arguments { argv, .. } => argv.extend(bytes),
            Self::UnknownVersion(_) | Self::Stdin { .. } | Self::TaggedStdin { .. } | Self::Ended => {}
        }
    }
}

fn count(digits: &[u8]) -> Result<usize, BadRequestKind> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BadRequestKind::CountNotANumber(options::shown(digits)));
    }
    if digits.len() as u64 > MAX_COUNT_BYTES {
        return Err(BadRequestKind::CountTooLong);
    }
    // A number that overflows is too large in any case, so saturation will do.
    let count = digits.iter().fold(0_usize, |n, digit| n.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
    match count {
        0 => Err(BadRequestKind::CountZero),
        1..=MAX_ARGUMENTS => Ok(count),
        _ => Err(BadRequestKind::TooManyArguments),
    }
}

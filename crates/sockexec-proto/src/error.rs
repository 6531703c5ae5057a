//! What a peer did wrong, and at which byte.

use alloc::vec::Vec;
use core::fmt;

use crate::{netstring, request};

/// A client's request is invalid. Shown as `REASON at byte N`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BadRequest {
    /// What is wrong.
    pub kind: BadRequestKind,
    /// Bytes of the whole request before the one at fault, counted from 0.
    pub offset: u64,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BadRequestKind {
    /// The framing is broken.
    Netstring(netstring::ErrorKind),
    /// The number of arguments is not a decimal number but these bytes.
    CountNotANumber(Vec<u8>),
    /// The number of arguments is longer than 20 bytes. Found from their length, before they arrive.
    CountTooLong,
    /// The number of arguments is 0: not even a program's name.
    CountZero,
    /// The number of arguments is over [`request::MAX_ARGUMENTS`].
    TooManyArguments,
    /// The count and the arguments, with their framing, come to more than [`request::MAX_HEADER_BYTES`].
    HeaderTooLong,
    /// The argument of this number (0 is the program) holds a NUL byte, which `execve(2)` cannot pass.
    NulByte(usize),
    /// The client's end of file came in the middle of the request, not at the end of a chunk of
    /// standard input.
    UnexpectedEnd,
    /// There is no such version of the protocol. What follows `protocol=`.
    UnknownVersion(Vec<u8>),
    /// Version 2: there are more options than [`request::MAX_OPTIONS`].
    TooManyOptions,
    /// Version 2: the options and the arguments, with their framing, come to more than
    /// [`request::MAX_HEADER_BYTES`].
    OptionsTooLong,
    /// Version 2: there is no option of this name. Its first 64 bytes.
    UnknownOption(Vec<u8>),
    /// Version 2: the option of this name has no value, and needs one.
    OptionNeedsValue(&'static str),
    /// Version 2: the option of this name has a value, and takes none.
    OptionTakesNoValue(&'static str),
    /// Version 2: the value of this option is invalid. Its first 64 bytes.
    OptionValue(&'static str, Vec<u8>),
    /// Version 2: an option that may be given once is given again.
    OptionTwice(&'static str),
    /// Version 2: these two options cannot be combined.
    OptionsExclude(&'static str, &'static str),
    /// Version 2: the first of these options is given without the second, which it needs.
    OptionNeeds(&'static str, &'static str),
    /// Version 2: the option of this name holds a NUL byte.
    NulByteInOption(&'static str),
    /// Version 2: a tag is longer than every known one.
    TagTooLong,
    /// Version 2: there is no such tag.
    UnknownTag(Vec<u8>),
    /// Version 2: the payload under this tag is longer than every valid one.
    PayloadTooLong(&'static str),
    /// Version 2: there is no signal of this name or number.
    UnknownSignal(Vec<u8>),
    /// Version 2: the payload of `winsize` is not `COLSxROWS` but these bytes.
    WindowSize(Vec<u8>),
    /// Version 2: `winsize` for a program without a terminal.
    WindowSizeWithoutPty,
    /// Version 2: `stdin` after its empty payload.
    StdinAfterEnd,
    /// Version 2: `stdin` for a program that reads from a descriptor of its client.
    StdinBesideDescriptors,
    /// Version 2: this many descriptors came with a request that has the option `fds`, which takes three.
    Descriptors(u32),
    /// Version 2: this many descriptors came with a request that does not have the option `fds`.
    StrayDescriptors(u32),
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            BadRequestKind::Netstring(kind) => kind.fmt(f)?,
            BadRequestKind::CountNotANumber(bytes) => {
                write!(f, "number of arguments is not a decimal number: \"{}\"", bytes.escape_ascii())?;
            }
            BadRequestKind::CountTooLong => f.write_str("number of arguments of more than 20 bytes")?,
            BadRequestKind::CountZero => f.write_str("number of arguments is 0")?,
            BadRequestKind::TooManyArguments => write!(f, "more than {} arguments", request::MAX_ARGUMENTS)?,
            BadRequestKind::HeaderTooLong => {
                write!(f, "arguments of more than {} bytes in all", request::MAX_HEADER_BYTES)?;
            }
            BadRequestKind::NulByte(argument) => write!(f, "argument {argument} holds a NUL byte")?,
            BadRequestKind::UnexpectedEnd => f.write_str("request ends early")?,
            BadRequestKind::UnknownVersion(version) => {
                write!(f, "unknown version \"{}\" of the protocol", version.escape_ascii())?;
            }
            BadRequestKind::TooManyOptions => write!(f, "more than {} options", request::MAX_OPTIONS)?,
            BadRequestKind::OptionsTooLong => {
                write!(f, "options and arguments of more than {} bytes in all", request::MAX_HEADER_BYTES)?;
            }
            BadRequestKind::UnknownOption(name) => write!(f, "unknown option \"{}\"", name.escape_ascii())?,
            BadRequestKind::OptionNeedsValue(name) => write!(f, "option {name} needs a value")?,
            BadRequestKind::OptionTakesNoValue(name) => write!(f, "option {name} takes no value")?,
            BadRequestKind::OptionValue(name, value) => {
                write!(f, "invalid value \"{}\" of option {name}", value.escape_ascii())?;
            }
            BadRequestKind::OptionTwice(name) => write!(f, "option {name} given twice")?,
            BadRequestKind::OptionsExclude(one, other) => {
                write!(f, "option {one} cannot be combined with option {other}")?;
            }
            BadRequestKind::OptionNeeds(one, other) => write!(f, "option {one} needs option {other}")?,
            BadRequestKind::NulByteInOption(name) => write!(f, "option {name} holds a NUL byte")?,
            BadRequestKind::TagTooLong => f.write_str("tag too long")?,
            BadRequestKind::UnknownTag(tag) => write!(f, "unknown tag \"{}\"", tag.escape_ascii())?,
            BadRequestKind::PayloadTooLong(tag) => write!(f, "payload of {tag} too long")?,
            BadRequestKind::UnknownSignal(signal) => write!(f, "unknown signal \"{}\"", signal.escape_ascii())?,
            BadRequestKind::WindowSize(size) => write!(f, "bad winsize \"{}\"", size.escape_ascii())?,
            BadRequestKind::WindowSizeWithoutPty => f.write_str("winsize needs option pty")?,
            BadRequestKind::StdinAfterEnd => f.write_str("stdin after its end")?,
            BadRequestKind::StdinBesideDescriptors => f.write_str("stdin cannot be combined with option fds")?,
            BadRequestKind::Descriptors(count) => write!(f, "{count} descriptors, but option fds needs 3")?,
            BadRequestKind::StrayDescriptors(count) => write!(f, "{count} descriptors, but no option fds")?,
        }
        write!(f, " at byte {}", self.offset)
    }
}

/// As `Display`, which shows the bytes at fault as text.
impl fmt::Debug for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BadRequest({self})")
    }
}

impl core::error::Error for BadRequest {}

impl From<netstring::Error> for BadRequest {
    fn from(error: netstring::Error) -> Self {
        Self { kind: BadRequestKind::Netstring(error.kind), offset: error.offset }
    }
}

/// A daemon's reply breaks the protocol. Shown as `REASON at byte N`.
#[derive(Clone, PartialEq, Eq)]
pub struct BadReply {
    /// What is wrong.
    pub kind: BadReplyKind,
    /// Bytes of the whole reply before the one at fault, counted from 0.
    pub offset: u64,
}

/// Why a reply cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadReplyKind {
    /// The framing is broken.
    Netstring(netstring::ErrorKind),
    /// A tag, or a payload that is collected, is longer than every valid one.
    TooLong,
    /// The payload of `exitcode` is not a number from 0 to 255 but these bytes.
    ExitCode(Vec<u8>),
    /// The payload of `termsig` is neither a number nor the name of a signal but these bytes.
    TermSig(Vec<u8>),
    /// Version 2: the payload of `protocol` is not an introduction. Its first 64 bytes.
    Introduction(Vec<u8>),
    /// Version 2: the payload of `queued` is not a number but these bytes.
    Queued(Vec<u8>),
    /// Version 2: the payload of `taken` is not a number but these bytes.
    Taken(Vec<u8>),
    /// Version 2: the payload of `started` is not the number of a process but these bytes.
    Started(Vec<u8>),
    /// Version 2: the payload of `usage` is not a usage but these bytes.
    Usage(Vec<u8>),
    /// Version 2: the payload of `error` does not begin with a code. Its first 64 bytes.
    ErrorCode(Vec<u8>),
}

impl fmt::Display for BadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            BadReplyKind::Netstring(kind) => kind.fmt(f)?,
            BadReplyKind::TooLong => f.write_str("tag or status too long")?,
            BadReplyKind::ExitCode(bytes) => write!(f, "bad exitcode \"{}\"", bytes.escape_ascii())?,
            BadReplyKind::TermSig(bytes) => write!(f, "bad termsig \"{}\"", bytes.escape_ascii())?,
            BadReplyKind::Introduction(bytes) => write!(f, "bad protocol \"{}\"", bytes.escape_ascii())?,
            BadReplyKind::Queued(bytes) => write!(f, "bad queued \"{}\"", bytes.escape_ascii())?,
            BadReplyKind::Taken(bytes) => write!(f, "bad taken \"{}\"", bytes.escape_ascii())?,
            BadReplyKind::Started(bytes) => write!(f, "bad started \"{}\"", bytes.escape_ascii())?,
            BadReplyKind::Usage(bytes) => write!(f, "bad usage \"{}\"", bytes.escape_ascii())?,
            BadReplyKind::ErrorCode(bytes) => write!(f, "bad error \"{}\"", bytes.escape_ascii())?,
        }
        write!(f, " at byte {}", self.offset)
    }
}

/// As `Display`, which shows the bytes at fault as text.
impl fmt::Debug for BadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BadReply({self})")
    }
}

impl core::error::Error for BadReply {}

impl From<netstring::Error> for BadReply {
    fn from(error: netstring::Error) -> Self {
        Self { kind: BadReplyKind::Netstring(error.kind), offset: error.offset }
    }
}

//! What a peer did wrong, and at which byte.

use alloc::vec::Vec;
use core::fmt;

use crate::{netstring, request};

/// A client's request cannot be carried out as it stands. Shown as `REASON at byte N`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
    /// The number of arguments is no decimal number; the bytes that stand there.
    CountNotANumber(Vec<u8>),
    /// The number of arguments is longer than 20 bytes: found from their length, before they arrive.
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
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            BadRequestKind::Netstring(kind) => kind.fmt(f)?,
            BadRequestKind::CountNotANumber(bytes) => {
                write!(f, "number of arguments is no decimal number: \"{}\"", bytes.escape_ascii())?;
            }
            BadRequestKind::CountTooLong => f.write_str("number of arguments of more than 20 bytes")?,
            BadRequestKind::CountZero => f.write_str("number of arguments is 0")?,
            BadRequestKind::TooManyArguments => write!(f, "more than {} arguments", request::MAX_ARGUMENTS)?,
            BadRequestKind::HeaderTooLong => {
                write!(f, "arguments of more than {} bytes in all", request::MAX_HEADER_BYTES)?;
            }
            BadRequestKind::NulByte(argument) => write!(f, "argument {argument} holds a NUL byte")?,
            BadRequestKind::UnexpectedEnd => f.write_str("request ends early")?,
        }
        write!(f, " at byte {}", self.offset)
    }
}

impl core::error::Error for BadRequest {}

impl From<netstring::Error> for BadRequest {
    fn from(error: netstring::Error) -> Self {
        Self { kind: BadRequestKind::Netstring(error.kind), offset: error.offset }
    }
}

/// A daemon's reply breaks the protocol. Shown as `REASON at byte N`.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// A tag or an exit status is longer than any that exists.
    TooLong,
    /// The payload of `exitcode` is no number from 0 to 255; the bytes that stand there.
    ExitCode(Vec<u8>),
    /// The payload of `termsig` is neither a number nor the name of a signal; the bytes that stand there.
    TermSig(Vec<u8>),
}

impl fmt::Display for BadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            BadReplyKind::Netstring(kind) => kind.fmt(f)?,
            BadReplyKind::TooLong => f.write_str("overlong tag or status")?,
            BadReplyKind::ExitCode(bytes) => write!(f, "bad exitcode \"{}\"", bytes.escape_ascii())?,
            BadReplyKind::TermSig(bytes) => write!(f, "bad termsig \"{}\"", bytes.escape_ascii())?,
        }
        write!(f, " at byte {}", self.offset)
    }
}

impl core::error::Error for BadReply {}

impl From<netstring::Error> for BadReply {
    fn from(error: netstring::Error) -> Self {
        Self { kind: BadReplyKind::Netstring(error.kind), offset: error.offset }
    }
}

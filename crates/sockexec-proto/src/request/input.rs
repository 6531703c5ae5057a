//! What a version 2 client sends after the arguments: pairs of a tag and a payload.

use alloc::format;
use alloc::vec::Vec;

use super::argv::Argv;
use super::encode_exec;
use super::options::{Options, PROTOCOL, STATUS, WindowSize};
use crate::netstring;
use crate::pair::{Header, encode_pair};
use crate::signal::Signal;

/// A version 2 request for a program, up to its last argument.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    /// How the program is to run.
    pub options: Options,
    /// The program and its arguments: at least one.
    pub argv: Argv,
}

impl Request {
    /// About how much memory it takes beyond its bytes on the wire, in bytes.
    #[must_use]
    pub fn overhead(&self) -> u64 {
        overhead(&self.options)
    }
}

/// The memory that a change of the environment takes beyond its bytes: two strings in a list with
/// room for more, and the least that their allocations cost. (Arguments share one buffer, where each
/// has one byte more: less than its frame.)
const CHANGE: u64 = 112;

/// The memory that these options take beyond their bytes on the wire.
pub(super) fn overhead(options: &Options) -> u64 {
    options.environment.len() as u64 * CHANGE
}

/// Appends the part of a version 2 request that starts the program, the first of `argv`.
///
/// It does not validate: the daemon refuses invalid options and arguments.
pub fn encode_request<A: AsRef<[u8]>>(options: &Options, argv: &[A], out: &mut Vec<u8>) {
    netstring::encode(PROTOCOL, out);
    options.encode(out);
    encode_exec(argv, out);
}

/// Appends a ping, a version 2 request that asks whether the daemon serves. The end of what the client
/// sends completes it.
pub fn encode_ping(out: &mut Vec<u8>) {
    netstring::encode(PROTOCOL, out);
}

/// Appends a version 2 request for the daemon's status. Nothing follows it.
pub fn encode_status(out: &mut Vec<u8>) {
    netstring::encode(PROTOCOL, out);
    netstring::encode(STATUS.as_bytes(), out);
}

/// The tag of standard input.
pub const STDIN: &str = "stdin";

/// The tag of a signal to the program's process group.
pub const SIGNAL: &str = "signal";

/// The tag of the terminal's new size.
pub const WINSIZE: &str = "winsize";

/// An empty payload of [`STDIN`], which ends the program's standard input.
pub const END_OF_TAGGED_STDIN: &[u8] = b"5:stdin,0:,";

/// The head of a pair of `len` bytes of standard input, `5:stdin,LEN:`. The bytes and
/// [`netstring::TERMINATOR`] follow.
///
/// An empty pair is [`END_OF_TAGGED_STDIN`]: do not send one for a read that found nothing.
#[must_use]
pub fn stdin_header(len: u64) -> Header {
    Header::with_tag(b"5:stdin,", len)
}

/// Appends a signal to the program's process group.
pub fn encode_signal(signal: &Signal, out: &mut Vec<u8>) {
    match signal {
        Signal::Number(number) => encode_pair(SIGNAL, format!("{number}").as_bytes(), out),
        Signal::Name(name) => encode_pair(SIGNAL, name, out),
    }
}

/// Appends a new size of the program's terminal.
pub fn encode_window_size(size: WindowSize, out: &mut Vec<u8>) {
    encode_pair(WINSIZE, format!("{size}").as_bytes(), out);
}

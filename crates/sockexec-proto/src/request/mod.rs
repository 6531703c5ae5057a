//! What a client sends: `argc 1*arg *chunk ""`, or in version 2 `"protocol=2" *option argc 1*arg *( tag payload )`.

mod argv;
mod decoder;
mod input;
mod options;

use alloc::vec::Vec;

use crate::netstring;

pub use argv::{Argv, Iter};
pub use decoder::{Event, RequestDecoder};
pub use input::{
    END_OF_TAGGED_STDIN, Request, SIGNAL, STDIN, WINSIZE, encode_ping, encode_request, encode_signal, encode_status,
    encode_window_size, stdin_header,
};
pub use options::{EnvironmentChange, MAX_OPTIONS, OPTIONS, OptionSpec, Options, PROTOCOL, STATUS, WindowSize};

/// The most arguments a request may have, the program's name included.
pub const MAX_ARGUMENTS: usize = 65_536;

/// The most bytes that everything up to the last argument may take, framing included (4 MiB).
pub const MAX_HEADER_BYTES: u64 = 4 << 20;

/// The most digits a length may have before the end of the arguments.
pub const MAX_HEADER_DIGITS: u8 = 8;

/// The most digits a length of standard input may have: those of [`netstring::MAX_LEN`].
pub const MAX_STDIN_DIGITS: u8 = 19;

/// The empty netstring, which ends the program's standard input.
pub const END_OF_STDIN: &[u8] = b"0:,";

/// Appends the part of a request that starts the program: the number of arguments and the
/// arguments, the first of which is the program.
///
/// It does not validate: the daemon refuses a request without arguments, with too many of them, or
/// with a NUL byte in one.
pub fn encode_exec<A: AsRef<[u8]>>(argv: &[A], out: &mut Vec<u8>) {
    // The header of a netstring without its colon is the number in decimal.
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

/// The version of the protocol that a request is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// It begins with the number of arguments, has not begun, or is not a request.
    One,
    /// It begins with [`PROTOCOL`].
    Two,
}

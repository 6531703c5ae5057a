//! What a version 2 daemon sends besides the program's output: the start, errors, what the program used.

use alloc::format;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::{EXITCODE, Exit, Stream, TERMSIG};
use crate::number;
use crate::pair::encode_pair;
use crate::request::OPTIONS;
use crate::signal::Signal;
use crate::text::Text;

/// The tag of the daemon's [`Introduction`].
pub const PROTOCOL: &str = "protocol";

/// The tag of the number of requests that wait for a slot.
pub const QUEUED: &str = "queued";

/// The tag of the number of bytes of standard input that have left the daemon.
pub const TAKEN: &str = "taken";

/// The tag of a program that has closed its standard input; the payload is empty.
pub const INPUT_CLOSED: &str = "input-closed";

/// The smallest window for standard input, in bytes (64 KiB). A client may send this much before it has
/// read the [`Introduction`].
pub const MIN_WINDOW: u64 = 64 << 10;

/// The tag of the process number of a program that was executed.
pub const STARTED: &str = "started";

/// The tag of an error: why there is no exit status, or why the program was cut short.
pub const ERROR: &str = "error";

/// The tag of the resources that the program used.
pub const USAGE: &str = "usage";

/// The tag of the answer to [`status`](crate::request::STATUS): JSON.
pub const STATUS: &str = "status";

/// The longest payload of [`ERROR`] that is collected, in bytes (64 KiB); longer ones are a fault.
pub const MAX_ERROR: usize = 64 << 10;

/// Why there is no exit status, or why the program was cut short, as a code for programs.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The program, or the directory it was to run in, is not there.
    NotFound,
    /// The program is there and cannot be executed.
    NotExecutable,
    /// The daemon could not start the program: it got no process, memory, descriptor or terminal.
    SpawnFailed,
    /// The request is invalid.
    BadRequest,
    /// The daemon may not enter the directory.
    Denied,
    /// A rule of the operator forbids it.
    Forbidden,
    /// Too many requests wait.
    Busy,
    /// The deadline has come.
    Timeout,
    /// The daemon is shutting down.
    Shutdown,
    /// A fault of the daemon.
    Internal,
    /// The program used more memory than it may.
    OutOfMemory,
    /// The program wrote more than it may.
    OutputLimit,
    /// The program wrote nothing for longer than it may.
    IdleTimeout,
    /// A code that this version does not know.
    Other(Vec<u8>),
}

impl ErrorCode {
    /// All codes that this version knows.
    pub const KNOWN: &'static [Self] = &[
        Self::NotFound,
        Self::NotExecutable,
        Self::SpawnFailed,
        Self::BadRequest,
        Self::Denied,
        Self::Forbidden,
        Self::Busy,
        Self::Timeout,
        Self::Shutdown,
        Self::Internal,
        Self::OutOfMemory,
        Self::OutputLimit,
        Self::IdleTimeout,
    ];

    /// The code, as on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::NotFound => b"not-found",
            Self::NotExecutable => b"not-executable",
            Self::SpawnFailed => b"spawn-failed",
            Self::BadRequest => b"bad-request",
            Self::Denied => b"denied",
            Self::Forbidden => b"forbidden",
            Self::Busy => b"busy",
            Self::Timeout => b"timeout",
            Self::Shutdown => b"shutdown",
            Self::Internal => b"internal",
            Self::OutOfMemory => b"out-of-memory",
            Self::OutputLimit => b"output-limit",
            Self::IdleTimeout => b"idle-timeout",
            Self::Other(code) => code,
        }
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let known = Self::KNOWN.iter().find(|known| known.as_bytes() == bytes);
        known.cloned().unwrap_or_else(|| Self::Other(bytes.to_vec()))
    }
}

/// The code, as on the wire.
impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().escape_ascii().fmt(f)
    }
}

/// How the daemon introduces itself before anything else: `2 window=N options=A,B`.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Introduction {
    /// The version of the protocol that it speaks.
    pub version: u32,
    /// How many bytes of standard input may be unreported; at least [`MIN_WINDOW`].
    pub window: u64,
    /// The names of the options that this client may use.
    pub options: Vec<Vec<u8>>,
}

impl fmt::Debug for Introduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<Text<'_>> = self.options.iter().map(|name| Text(name)).collect();
        let mut shows = f.debug_struct("Introduction");
        shows.field("version", &self.version).field("window", &self.window).field("options", &options).finish()
    }
}

impl Introduction {
    /// An introduction with these fields.
    #[must_use]
    pub const fn new(version: u32, window: u64, options: Vec<Vec<u8>>) -> Self {
        Self { version, window, options }
    }

    /// Whether the client may use the option of this name.
    #[must_use]
    pub fn allows(&self, option: &str) -> bool {
        self.options.iter().any(|name| name == option.as_bytes())
    }

    /// Skips words that later versions may add. A missing word stands for the least that is possible.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let mut words = payload.split(|&byte| byte == b' ');
        let version = number::decimal(words.next()?)?;
        let mut introduction = Self { version, window: MIN_WINDOW, options: Vec::new() };
        for word in words {
            if let Some(window) = word.strip_prefix(b"window=") {
                introduction.window = number::decimal::<u64>(window)?.max(MIN_WINDOW);
            } else if let Some(options) = word.strip_prefix(b"options=") {
                let names = options.split(|&byte| byte == b',').filter(|name| !name.is_empty());
                introduction.options = names.map(<[u8]>::to_vec).collect();
            }
        }
        Some(introduction)
    }
}

/// An `error` pair: `CODE SP TEXT`.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Failure {
    /// For programs.
    pub code: ErrorCode,
    /// For people. Not always UTF-8: there may be a path in it.
    pub text: Vec<u8>,
}

impl Failure {
    /// A failure with these fields.
    #[must_use]
    pub const fn new(code: ErrorCode, text: Vec<u8>) -> Self {
        Self { code, text }
    }

    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let space = payload.iter().position(|&byte| byte == b' ').unwrap_or(payload.len());
        let code = payload.get(..space).filter(|code| !code.is_empty())?;
        let text = payload.get(space + 1..).unwrap_or_default().to_vec();
        Some(Self { code: ErrorCode::from_bytes(code), text })
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("code", &self.code).field("text", &Text(&self.text)).finish()
    }
}

impl core::error::Error for Failure {}

/// `CODE: TEXT`, for a person.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, alloc::string::String::from_utf8_lossy(&self.text))
    }
}

/// The resources that a program used, with its children that it waited for (`getrusage(2)`,
/// `RUSAGE_CHILDREN`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Usage {
    /// Processor time in its own code. On the wire in microseconds at best.
    pub user_time: Duration,
    /// Processor time in the kernel on its behalf.
    pub system_time: Duration,
    /// The most memory that it had at once, in KiB.
    pub max_rss_kib: u64,
}

impl Usage {
    /// These times, and this much memory, in KiB.
    #[must_use]
    pub const fn new(user_time: Duration, system_time: Duration, max_rss_kib: u64) -> Self {
        Self { user_time, system_time, max_rss_kib }
    }

    /// Reads `utime=S stime=S maxrss=KIB`, in any order; other names, which later versions may add, are skipped.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let (mut user_time, mut system_time, mut max_rss_kib) = (None, None, None);
        for item in payload.split(|&byte| byte == b' ') {
            let equals = item.iter().position(|&byte| byte == b'=')?;
            let value = item.get(equals + 1..)?;
            match item.get(..equals)? {
                b"utime" => user_time = Some(number::parse_seconds(value)?),
                b"stime" => system_time = Some(number::parse_seconds(value)?),
                b"maxrss" => max_rss_kib = Some(number::decimal(value)?),
                _ => {}
            }
        }
        Some(Self { user_time: user_time?, system_time: system_time?, max_rss_kib: max_rss_kib? })
    }
}

/// `utime=S stime=S maxrss=KIB`, as on the wire.
impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time| number::format_seconds(time, 6);
        write!(f, "utime={} stime={} maxrss={}", time(self.user_time), time(self.system_time), self.max_rss_kib)
    }
}

/// Appends the introduction of a daemon that speaks version 2, with this window, in bytes, and all options.
pub fn encode_introduction(window: u64, out: &mut Vec<u8>) {
    let mut words = format!("2 window={window} options=");
    for (number, option) in OPTIONS.iter().enumerate() {
        words.push_str(if number == 0 { "" } else { "," });
        words.push_str(option.name);
    }
    encode_pair(PROTOCOL, words.as_bytes(), out);
}

/// Appends the number of requests that wait for a slot.
pub fn encode_queued(requests: u64, out: &mut Vec<u8>) {
    encode_pair(QUEUED, format!("{requests}").as_bytes(), out);
}

/// Appends the number of bytes of standard input that have left the daemon since the start.
pub fn encode_taken(bytes: u64, out: &mut Vec<u8>) {
    encode_pair(TAKEN, format!("{bytes}").as_bytes(), out);
}

/// Appends that the program has closed its standard input.
pub fn encode_input_closed(out: &mut Vec<u8>) {
    encode_pair(INPUT_CLOSED, b"", out);
}

/// Appends that the program was executed, as this process.
pub fn encode_started(pid: u32, out: &mut Vec<u8>) {
    encode_pair(STARTED, format!("{pid}").as_bytes(), out);
}

/// Appends the end of a stream: a pair with an empty payload.
pub fn encode_end_of(stream: Stream, out: &mut Vec<u8>) {
    encode_pair(stream.tag(), b"", out);
}

/// Appends an error: why there is no exit status, or why the program was cut short. `text` is truncated
/// to what [`MAX_ERROR`] allows.
pub fn encode_error(code: &ErrorCode, text: &[u8], out: &mut Vec<u8>) {
    let mut payload = code.as_bytes().to_vec();
    payload.push(b' ');
    payload.extend_from_slice(text);
    payload.truncate(MAX_ERROR);
    encode_pair(ERROR, &payload, out);
}

/// Appends the resources that the program used.
pub fn encode_usage(usage: &Usage, out: &mut Vec<u8>) {
    encode_pair(USAGE, format!("{usage}").as_bytes(), out);
}

/// Appends the exit pair.
pub fn encode_exit(exit: &Exit, out: &mut Vec<u8>) {
    match exit {
        Exit::Code(code) => encode_pair(EXITCODE, format!("{code}").as_bytes(), out),
        Exit::Signal(Signal::Number(number)) => encode_pair(TERMSIG, format!("{number}").as_bytes(), out),
        Exit::Signal(Signal::Name(name)) => encode_pair(TERMSIG, name, out),
    }
}

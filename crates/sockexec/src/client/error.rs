//! Why there is no exit status.

use std::fmt;
use std::io;
use std::path::PathBuf;

use sockexec_proto::{BadReply, ErrorCode, Failure, Stream, Usage};

use super::{ExitStatus, Waiting};

/// Why a program could not be run to its end. The message says what to check.
///
/// A program that ran and failed is not an error but an [`ExitStatus`](super::ExitStatus), and so is one that
/// the daemon could not start (codes 125 to 127, with a line on standard error).
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The argument with this number (0 is the program) contains a NUL byte, which no program can be given.
    InvalidArgument(usize),
    /// An option has an invalid value; the text says what is wrong.
    InvalidOption(&'static str),
    /// No daemon can be reached at this path.
    Connect(PathBuf, io::Error),
    /// The daemon's reply breaks the protocol: what is wrong, and at which byte of the reply.
    Protocol(BadReply),
    /// The connection ended before the program's status, or in the middle of its output.
    #[non_exhaustive]
    Lost {
        /// Bytes of the reply that had come by then, including framing.
        received: u64,
        /// Whether the reply broke off within a pair, so that output is missing.
        within_pair: bool,
        /// The error that ended the connection, unless it was an end of file.
        source: Option<io::Error>,
        /// See [`Error::output`].
        output: Option<Box<PartialOutput>>,
    },
    /// The daemon reported why there is no program, or why it was ended (version 2 of the protocol).
    /// [`Error::kind`] has the reason for programs.
    #[non_exhaustive]
    Failed {
        /// The reason, and the daemon's words.
        failure: Failure,
        /// How the program ended, if there was one and the daemon reported it: after a deadline, for example.
        status: Option<ExitStatus>,
        /// The resources that it used, likewise.
        usage: Option<Usage>,
        /// See [`Error::output`].
        output: Option<Box<PartialOutput>>,
    },
    /// The daemon does not speak version 2 of the protocol, which an option of the [`Command`](super::Command) needs.
    Unsupported,
    /// The daemon did not answer a question in time ([`ping`](super::ping), [`daemon_status`](super::daemon_status)).
    NoAnswer(Waiting),
    /// The program did not start within the time of
    /// [`Command::start_timeout`](super::Command::start_timeout), and what it waited for. The connection was
    /// closed. If the daemon starts the program nevertheless, it ends it at once.
    NotStarted(Waiting),
    /// The time of [`Command::client_timeout`](super::Command::client_timeout) is over. The connection was
    /// closed, so the daemon ends the program.
    TimedOut {
        /// See [`Error::output`].
        output: Option<Box<PartialOutput>>,
    },
    /// [`Child::disconnect`](super::Child::disconnect), or in version 1 of the protocol
    /// [`Child::kill`](super::Child::kill), closed the connection before the status was reported.
    #[non_exhaustive]
    Killed {
        /// See [`Error::output`].
        output: Option<Box<PartialOutput>>,
    },
    /// A signal did not reach the program: see [`Child::signal`](super::Child::signal).
    NotDelivered {
        /// Whether the program or its connection has ended, so that no signal will ever reach it. If not, the
        /// daemon did not read it in time; it will still arrive if the daemon goes on.
        ended: bool,
    },
    /// The source of the program's standard input cannot be read. The connection was closed.
    Stdin(io::Error),
    /// The program's output cannot be written to its destination; `BrokenPipe` if the reader is gone. The
    /// connection was closed.
    Output(Stream, io::Error),
    /// A local resource could not be obtained; the text says which.
    Io(&'static str, io::Error),
}

/// The output of a program whose run failed: see [`Error::output`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartialOutput {
    /// What it wrote to standard output; empty if that went elsewhere.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error; empty if that went elsewhere.
    pub stderr: Vec<u8>,
}

/// Shown as text, and cut if it is long.
impl fmt::Debug for PartialOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |bytes: &[u8]| {
            let dots = if bytes.len() > SHOWN { "…" } else { "" };
            format!("{}{dots}", bytes.get(..SHOWN).unwrap_or(bytes).escape_ascii())
        };
        let mut fields = f.debug_struct("PartialOutput");
        fields.field("stdout", &format_args!("\"{}\"", shown(&self.stdout)));
        fields.field("stderr", &format_args!("\"{}\"", shown(&self.stderr))).finish()
    }
}

/// How many bytes of each stream an error shows.
const SHOWN: usize = 1000;

/// The kind of an error, for programs: see [`Error::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument or an option that cannot be sent, or that the daemon refuses.
    BadRequest,
    /// There is no such program, or no such directory to run it in.
    NotFound,
    /// The program exists but cannot be executed.
    NotExecutable,
    /// The directory may not be entered.
    Denied,
    /// The daemon lacks a resource to start a program: a process, memory, descriptors, a terminal.
    SpawnFailed,
    /// The deadline has passed, be it the daemon's or the client's.
    Timeout,
    /// The daemon is stopping.
    Shutdown,
    /// A rule of the operator forbids it.
    Forbidden,
    /// More requests wait than are allowed; nothing was started.
    Busy,
    /// The program used more memory than is allowed.
    OutOfMemory,
    /// The program wrote more than is allowed.
    OutputLimit,
    /// The program wrote nothing for longer than is allowed.
    IdleTimeout,
    /// An internal error of the daemon, or a reason that this version does not know.
    Internal,
    /// No daemon can be reached.
    Connect,
    /// The daemon does not speak version 2 of the protocol.
    Unsupported,
    /// The daemon did not answer a question in time.
    NoAnswer,
    /// The program did not start in time.
    NotStarted,
    /// The daemon's reply breaks the protocol.
    Protocol,
    /// The connection ended before the program's status.
    Lost,
    /// The program was killed from this side.
    Killed,
    /// A signal did not reach the program.
    NotDelivered,
    /// A descriptor or another resource of this side failed.
    Io,
}

impl Error {
    /// The reason, as a value to match on. The daemon's own reasons exist in version 2 of the protocol only;
    /// in version 1 it reports them by the exit codes 125 to 127.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidArgument(_) | Self::InvalidOption(_) => ErrorKind::BadRequest,
            Self::Failed { failure, .. } => match &failure.code {
                ErrorCode::NotFound => ErrorKind::NotFound,
                ErrorCode::NotExecutable => ErrorKind::NotExecutable,
                ErrorCode::SpawnFailed => ErrorKind::SpawnFailed,
                ErrorCode::BadRequest => ErrorKind::BadRequest,
                ErrorCode::Denied => ErrorKind::Denied,
                ErrorCode::Timeout => ErrorKind::Timeout,
                ErrorCode::Shutdown => ErrorKind::Shutdown,
                ErrorCode::Forbidden => ErrorKind::Forbidden,
                ErrorCode::Busy => ErrorKind::Busy,
                ErrorCode::OutOfMemory => ErrorKind::OutOfMemory,
                ErrorCode::OutputLimit => ErrorKind::OutputLimit,
                ErrorCode::IdleTimeout => ErrorKind::IdleTimeout,
                // The test below finds a new code.
                _ => ErrorKind::Internal,
            },
            Self::Connect(..) => ErrorKind::Connect,
            Self::Unsupported => ErrorKind::Unsupported,
            Self::NoAnswer(_) => ErrorKind::NoAnswer,
            Self::NotStarted(_) => ErrorKind::NotStarted,
            Self::Protocol(_) => ErrorKind::Protocol,
            Self::Lost { .. } => ErrorKind::Lost,
            Self::TimedOut { .. } => ErrorKind::Timeout,
            Self::Killed { .. } => ErrorKind::Killed,
            Self::NotDelivered { .. } => ErrorKind::NotDelivered,
            Self::Stdin(_) | Self::Output(..) | Self::Io(..) => ErrorKind::Io,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidOption(what) => f.write_str(what),
            Self::Failed { failure, .. } => failure.fmt(f),
            Self::Unsupported => {
                f.write_str("the daemon does not speak version 2 of the protocol; is it sockexec 4 or later?")
            }
            Self::NoAnswer(waiting) => write!(f, "no answer in time: {waiting}"),
            Self::NotStarted(waiting) => write!(f, "the program did not start in time: {waiting}"),
            Self::InvalidArgument(0) => f.write_str("the program's name holds a NUL byte"),
            Self::InvalidArgument(number) => write!(f, "argument {number} holds a NUL byte"),
            // Such an error has its advice in it.
            Self::Connect(path, error) if error.raw_os_error().is_none() => {
                write!(f, "cannot connect to {}: {error}", path.display())
            }
            Self::Connect(path, error) => {
                write!(f, "cannot connect to {}: {error}; {}", path.display(), advice(error))
            }
            Self::Protocol(fault) => write!(f, "the daemon's reply breaks the protocol: {fault}"),
            Self::Lost { received, within_pair, source, .. } => {
                f.write_str("the daemon closed the connection ")?;
                match (within_pair, received) {
                    (true, _) => write!(f, "in the middle of its reply, after {received} bytes")?,
                    (false, 0) => f.write_str("without an answer")?,
                    (false, _) => f.write_str("before it reported how the program ended")?,
                }
                match source {
                    Some(error) => write!(f, ": {error}"),
                    None => Ok(()),
                }
            }
            Self::TimedOut { .. } => f.write_str("the time limit was reached before the program's end"),
            Self::Killed { .. } => f.write_str("the connection was closed to end the program"),
            Self::NotDelivered { ended: true } => f.write_str("the signal was not delivered: the program has ended"),
            Self::NotDelivered { ended: false } => {
                f.write_str("the signal was not delivered: the daemon did not read it in time; is it stopped?")
            }
            Self::Stdin(error) => write!(f, "cannot read standard input: {error}"),
            Self::Output(Stream::Stdout, error) => write!(f, "cannot write to standard output: {error}"),
            Self::Output(Stream::Stderr, error) => write!(f, "cannot write to standard error: {error}"),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

/// What to check when a connection is refused.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "does the socket exist, and does a daemon (sockexec) run?",
        io::ErrorKind::PermissionDenied => "may you write to the socket and search its directories?",
        io::ErrorKind::ConnectionRefused => "the file exists, but does a daemon (sockexec) listen on it?",
        _ => "does the socket exist, may you write to it, does a daemon (sockexec) listen on it?",
    }
}

/// Reporters print an error and then its sources. The messages above contain the cause already, so it is not
/// returned as the source: this error's source is that of its cause.
impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(_, error)
            | Self::Stdin(error)
            | Self::Output(_, error)
            | Self::Io(_, error)
            | Self::Lost { source: Some(error), .. } => error.source(),
            Self::Protocol(fault) => fault.source(),
            Self::InvalidArgument(_)
            | Self::InvalidOption(_)
            | Self::Failed { .. }
            | Self::Unsupported
            | Self::NoAnswer(_)
            | Self::NotStarted(_)
            | Self::Lost { source: None, .. }
            | Self::TimedOut { .. }
            | Self::Killed { .. }
            | Self::NotDelivered { .. } => None,
        }
    }
}

/// With the kind that fits best, for functions that return [`io::Error`].
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match (&error, error.kind()) {
            (Error::Connect(_, cause) | Error::Stdin(cause) | Error::Output(_, cause) | Error::Io(_, cause), _) => {
                cause.kind()
            }
            (_, ErrorKind::BadRequest) => io::ErrorKind::InvalidInput,
            (_, ErrorKind::NotFound) => io::ErrorKind::NotFound,
            // As for execve(2): EACCES.
            (_, ErrorKind::NotExecutable | ErrorKind::Denied | ErrorKind::Forbidden) => io::ErrorKind::PermissionDenied,
            (Error::NotDelivered { ended: false }, _)
            | (_, ErrorKind::Timeout | ErrorKind::IdleTimeout | ErrorKind::NoAnswer | ErrorKind::NotStarted) => {
                io::ErrorKind::TimedOut
            }
            (_, ErrorKind::Busy) => io::ErrorKind::ResourceBusy,
            (_, ErrorKind::OutOfMemory) => io::ErrorKind::OutOfMemory,
            (_, ErrorKind::Unsupported) => io::ErrorKind::Unsupported,
            (_, ErrorKind::Protocol) => io::ErrorKind::InvalidData,
            (_, ErrorKind::NotDelivered) => io::ErrorKind::NotConnected,
            (_, ErrorKind::Lost) => io::ErrorKind::UnexpectedEof,
            (_, ErrorKind::Killed | ErrorKind::Shutdown) => io::ErrorKind::ConnectionAborted,
            (
                _,
                ErrorKind::SpawnFailed
                | ErrorKind::OutputLimit
                | ErrorKind::Internal
                | ErrorKind::Connect
                | ErrorKind::Io,
            ) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl From<BadReply> for Error {
    fn from(fault: BadReply) -> Self {
        Self::Protocol(fault)
    }
}

impl Error {
    /// What the program had written by then, if it was collected, as
    /// [`Command::output`](super::Command::output) and
    /// [`Child::wait_with_output`](super::Child::wait_with_output) do. `None` if it had written nothing, and
    /// if this side has failed: such errors say nothing about the program.
    #[must_use]
    pub fn output(&self) -> Option<&PartialOutput> {
        match self {
            Self::Failed { output, .. }
            | Self::Lost { output, .. }
            | Self::TimedOut { output }
            | Self::Killed { output } => output.as_deref(),
            _ => None,
        }
    }

    pub(super) fn with_output(mut self, stdout: Vec<u8>, stderr: Vec<u8>) -> Self {
        if let Self::Failed { output, .. }
        | Self::Lost { output, .. }
        | Self::TimedOut { output }
        | Self::Killed { output } = &mut self
            && !(stdout.is_empty() && stderr.is_empty())
        {
            *output = Some(Box::new(PartialOutput { stdout, stderr }));
        }
        self
    }

    /// The same error again, for a second call.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::InvalidArgument(number) => Self::InvalidArgument(*number),
            Self::InvalidOption(what) => Self::InvalidOption(what),
            Self::Failed { failure, status, usage, .. } => {
                Self::Failed { failure: failure.clone(), status: *status, usage: *usage, output: None }
            }
            Self::Unsupported => Self::Unsupported,
            Self::NoAnswer(waiting) => Self::NoAnswer(*waiting),
            Self::NotStarted(waiting) => Self::NotStarted(*waiting),
            Self::Connect(path, error) => Self::Connect(path.clone(), again(error)),
            Self::Protocol(fault) => Self::Protocol(fault.clone()),
            Self::Lost { received, within_pair, source, .. } => Self::Lost {
                received: *received,
                within_pair: *within_pair,
                source: source.as_ref().map(again),
                output: None,
            },
            Self::TimedOut { .. } => Self::TimedOut { output: None },
            Self::Killed { .. } => Self::Killed { output: None },
            Self::NotDelivered { ended } => Self::NotDelivered { ended: *ended },
            Self::Stdin(error) => Self::Stdin(again(error)),
            Self::Output(stream, error) => Self::Output(*stream, again(error)),
            Self::Io(what, error) => Self::Io(what, again(error)),
        }
    }
}

fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Each known code has a kind of its own; unknown ones count as internal errors of the daemon.
    #[test]
    fn every_code_has_a_kind() {
        let kind = |code: &ErrorCode| {
            let failure = Failure::new(code.clone(), Vec::new());
            Error::Failed { failure, status: None, usage: None, output: None }.kind()
        };
        let kinds: HashSet<ErrorKind> = ErrorCode::KNOWN.iter().map(kind).collect();
        assert_eq!(kinds.len(), ErrorCode::KNOWN.len(), "a code has no ErrorKind of its own (left: kinds): {kinds:?}");
        assert_eq!(kind(&ErrorCode::Other(b"news".to_vec())), ErrorKind::Internal);
        assert_eq!(kind(&ErrorCode::Internal), ErrorKind::Internal);
    }
}

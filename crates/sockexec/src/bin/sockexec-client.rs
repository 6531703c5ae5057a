//! The client's command: arguments, then [`sockexec::Command`], then the program's own end.
//!
//! INT, TERM, HUP and QUIT need no handler. What they do by default is what is wanted: this process
//! dies of them, whereby the kernel closes the connection, and the daemon ends the program. There is no
//! moment in which that does not hold, and where the starter ignores one of them (`nohup`) so does
//! this.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgAction, Parser};
use rustix::process::{Resource, Rlimit, Signal};
use sockexec::{Command, Error, ExitStatus, Stdio};

/// Wrong arguments.
const EXIT_USAGE: u8 = 100;

/// There is no status: no connection, or it was lost.
const EXIT_SYSTEM: u8 = 111;

/// Where the socket is if `-` is given for it.
const SOCKET_VARIABLE: &str = "SOCKEXEC_SOCKET";

/// Run a program through the daemon that listens on a UNIX socket.
///
/// Standard input, output and error are passed through, all at the same time.
#[derive(Debug, Parser)]
#[command(
    name = "sockexec-client",
    version,
    // For `sockexec-client version: X`, as the daemon prints it.
    display_name = "sockexec-client version:",
    override_usage = "sockexec-client [OPTIONS] SOCKET PROGRAM [ARG...]",
    disable_version_flag = true,
    disable_help_flag = true,
    args_override_self = true,
    after_help = AFTER_HELP,
)]
struct Arguments {
    /// Path of the daemon's socket; `-`: what `SOCKEXEC_SOCKET` says.
    // As an OsString: clap would refuse an empty path with a message that does not tell why.
    #[arg(value_name = "SOCKET")]
    socket: OsString,

    /// The program and its arguments; whatever comes after PROGRAM is for it.
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,

    /// Read nothing: the program's standard input is empty.
    #[arg(short = 'n', long)]
    null_stdin: bool,

    /// Print the version and exit.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,

    /// Print this and exit.
    #[arg(short = 'h', long, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

const AFTER_HELP: &str = "\
Environment:
  SOCKEXEC_SOCKET  path of the socket, used where SOCKET is -

Exit status: that of the program; where a signal ended it, this dies of the same signal. 100 wrong
arguments. 111 no daemon can be reached, or it went away before it told the status. 127 (not found),
126 (not executable) and 125 may come from the daemon, with a line on standard error.

Signals: INT, TERM, HUP and QUIT end this and, by closing the connection, the program: its process
group gets TERM, and some seconds later KILL.

Examples:
  sockexec-client /tmp/exec.sock uname -a
  tar -c docs | sockexec-client /tmp/exec.sock sha256sum
  SOCKEXEC_SOCKET=/tmp/exec.sock sockexec-client -n - sh -c 'date; exit 3'";

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            let _ = error.print();
            return ExitCode::from(EXIT_USAGE);
        }
        Err(help) => return exit_after_printing(&help.to_string()),
    };
    let Some(socket) = socket(arguments.socket) else {
        complain(&format!("SOCKET is - and {SOCKET_VARIABLE} is not set; set it to the path of the daemon's socket"));
        return ExitCode::from(EXIT_USAGE);
    };
    let mut words = arguments.command.into_iter();
    let mut command = Command::new(&socket, words.next().unwrap_or_default());
    command.args(words);
    if arguments.null_stdin {
        command.stdin(Stdio::null());
    }
    match command.status() {
        Ok(status) => end_like(status),
        Err(error) => fail(&socket, &error),
    }
}

fn socket(argument: OsString) -> Option<PathBuf> {
    if argument != "-" {
        return Some(argument.into());
    }
    std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Ends this process as the program ended.
fn end_like(status: ExitStatus) -> ExitCode {
    if let Some(code) = status.code() {
        return ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX));
    }
    let Some(signal) = status.signal() else {
        complain("a signal ended the program, and the daemon did not tell which");
        return ExitCode::from(128);
    };
    die_of(signal)
}

/// Dies of a signal, so that the starter sees what it would see of the program itself.
fn die_of(signal: i32) -> ExitCode {
    // The program has dumped its core, if any; one of this would only be in its way.
    let none = Rlimit { current: Some(0), maximum: rustix::process::getrlimit(Resource::Core).maximum };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    // Restores the default, which Rust's runtime (PIPE, SEGV, BUS) or the starter may have changed,
    // unblocks the signal and raises it.
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    // Still here: a signal that it does not know (a real-time one), or takes for harmless (IO).
    let _ = signal_hook::low_level::raise(signal);
    // Nothing dies of this one here. What a shell would show:
    ExitCode::from(u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX))
}

fn fail(socket: &Path, error: &Error) -> ExitCode {
    match error {
        // Whoever read the output has seen enough: as every filter.
        Error::Output(_, cause) if cause.kind() == ErrorKind::BrokenPipe => return die_of(Signal::PIPE.as_raw()),
        Error::InvalidArgument(_) => {
            complain(&error.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
        Error::Connect(..) => complain(&error.to_string()),
        Error::Lost { .. } => {
            complain(&format!("{}: {error}; does the daemon still run, and what does its log say?", socket.display()));
        }
        _ => complain(&format!("{}: {error}", socket.display())),
    }
    ExitCode::from(EXIT_SYSTEM)
}

/// Standard error may be gone; there is nobody else to tell.
fn complain(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "sockexec-client: {message}");
}

fn exit_after_printing(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_SYSTEM),
    }
}

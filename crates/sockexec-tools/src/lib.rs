//! What `sockexec-top` and `sockexec-exporter` share. This crate exists for these programs.
#![forbid(unsafe_code)]

pub mod screen;

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The exit code of wrong arguments.
pub const EXIT_USAGE: u8 = 100;

/// The exit code if the system refuses something, or the daemon does not answer.
pub const EXIT_SYSTEM: u8 = 111;

/// Has the socket's path if SOCKET is `-`.
const SOCKET_VARIABLE: &str = "SOCKEXEC_SOCKET";

/// How long to wait for the daemon's status, the same as in `sockexec-client --status`.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The path of the socket that was given as SOCKET.
///
/// # Errors
/// A message for the user if it is empty, or if it is `-` and `SOCKEXEC_SOCKET` is not set.
pub fn socket(given: OsString) -> Result<PathBuf, String> {
    if given.is_empty() {
        return Err("SOCKET is empty; give the path of the daemon's socket".to_owned());
    }
    if given != "-" {
        return Ok(given.into());
    }
    env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from).ok_or_else(|| {
        format!("SOCKET is - and {SOCKET_VARIABLE} is not set; set it to the path of the daemon's socket")
    })
}

/// Prints clap's text: help and version on standard output with 0, an error on standard error with [`EXIT_USAGE`].
#[must_use]
pub fn exit_with(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    if error.use_stderr() {
        ExitCode::from(EXIT_USAGE)
    } else if printed.is_err() {
        ExitCode::from(EXIT_SYSTEM)
    } else {
        ExitCode::SUCCESS
    }
}

/// Writes one line to standard error. Unlike `eprintln!` it does not panic if that is gone.
pub fn complain(program: &str, words: impl Display) {
    let _ = writeln!(std::io::stderr(), "{program}: {words}");
}

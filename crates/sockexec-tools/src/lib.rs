//! What `sockexec-top` and `sockexec-exporter` share. The programs are what this crate is for.
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

/// The exit code of what the system, or a daemon that does not answer, has refused.
pub const EXIT_SYSTEM: u8 = 111;

/// Where the socket is if `-` is given for it.
const SOCKET_VARIABLE: &str = "SOCKEXEC_SOCKET";

/// How long a daemon may take for its status, as `sockexec-client --status` has it.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The path of the socket that was given as SOCKET.
///
/// # Errors
/// It is empty, or `-` and `SOCKEXEC_SOCKET` is not set: what to say.
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

/// Shows what clap has to say: help and version on standard output with 0, a complaint on standard error with [`EXIT_USAGE`].
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

/// Writes one line to standard error. That it is gone is no reason to panic, as `eprintln!` does.
pub fn complain(program: &str, words: impl Display) {
    let _ = writeln!(std::io::stderr(), "{program}: {words}");
}

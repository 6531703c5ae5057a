//! The arguments and their help.

use std::ffi::OsString;
use std::time::Duration;

use clap::{ArgAction, Parser};

use super::column::Column;

pub(crate) const NAME: &str = "sockexec-top";

/// Show what a daemon does, as a live table in the terminal.
///
/// It asks for the same status as `sockexec-client --status`. It needs version 2 of the protocol: sockexec 4 or later.
#[derive(Debug, Parser)]
#[command(
    name = NAME,
    version,
    // For `sockexec-top version: X`, as the daemon prints it.
    display_name = "sockexec-top version:",
    override_usage = "sockexec-top [OPTIONS] SOCKET",
    disable_version_flag = true,
    disable_help_flag = true,
    args_override_self = true,
    after_help = AFTER_HELP,
)]
pub(crate) struct Arguments {
    /// Path of the daemon's socket. `-` takes it from `SOCKEXEC_SOCKET`.
    #[arg(value_name = "SOCKET")]
    pub(crate) socket: OsString,

    /// Seconds between two updates, 0.1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub(crate) interval: Duration,

    /// Sort by this column.
    #[arg(long, value_name = "COLUMN", default_value = "cpu", hide_possible_values = true)]
    pub(crate) sort: Column,

    /// Reverse the order.
    #[arg(long)]
    pub(crate) reverse: bool,

    /// Print the table once. Needs no terminal.
    #[arg(long)]
    pub(crate) once: bool,

    /// Print the version and exit.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,

    /// Print this and exit.
    #[arg(short = 'h', long, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

pub(crate) const AFTER_HELP: &str = "\
Columns: pid, user, age, cpu, memory, in, out, state, name. Processor time and memory are those of the
program's process group, read from /proc. A column has - if that cannot be read.

Keys: the letters below the table sort it, ? shows the help, ^Z suspends, q quits.

Environment:
  SOCKEXEC_SOCKET  path of the socket, used if SOCKET is -
  NO_COLOR         if set, no colours
  COLUMNS          with --once: the width, if standard output is no terminal

Signals:
  INT, TERM, HUP, QUIT  restore the terminal, and end the program
  CONT                  draw the table again

Exit status:
  0    you have quit, or the table was printed
  100  wrong arguments, or no terminal
  111  the terminal failed; with --once: the daemon does not answer

Examples:
  sockexec-top /run/sockexec/exec.sock
  sockexec-top --once --sort memory /run/sockexec/exec.sock";

pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "must be a number of seconds from 0.1 to 3600".to_owned())
}

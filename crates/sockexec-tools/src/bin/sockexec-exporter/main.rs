//! The metrics of a daemon over HTTP, for Prometheus: the daemon itself never speaks it.
//!
//! One thread does all of it. Each connection is one task with one request and a time limit, so a client that is slow, or silent,
//! holds up nobody, and costs no thread.
#![forbid(unsafe_code)]

mod answer;
mod serve;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{ArgAction, Parser};
use sockexec_tools::{EXIT_SYSTEM, EXIT_USAGE, complain, exit_with, socket};

const NAME: &str = "sockexec-exporter";

/// Serve the metrics of a daemon to Prometheus over HTTP, at /metrics.
///
/// The daemon is asked for each request. It needs version 2 of the protocol: sockexec 4 or later.
#[derive(Debug, Parser)]
#[command(
    name = NAME,
    version,
    // For `sockexec-exporter version: X`, as the daemon prints it.
    display_name = "sockexec-exporter version:",
    override_usage = "sockexec-exporter [--listen ADDRESS:PORT] SOCKET",
    disable_version_flag = true,
    disable_help_flag = true,
    args_override_self = true,
    after_help = AFTER_HELP,
)]
struct Arguments {
    /// Path of the daemon's socket; `-`: what `SOCKEXEC_SOCKET` says.
    #[arg(value_name = "SOCKET")]
    socket: OsString,

    /// Where to listen: an address and a port; port 0 takes a free one, and says which.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9532")]
    listen: SocketAddr,

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

Answers: / and /metrics, by GET and HEAD; 503 and the reason if the daemon does not answer within 5 seconds.
There is no TLS and no login: listen on an address that only Prometheus reaches.

Exit status:
  0    INT or TERM ended it
  100  wrong arguments
  111  it cannot listen";

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit_with(&error),
    };
    let path = match socket(arguments.socket) {
        Ok(path) => path,
        Err(words) => {
            complain(NAME, words);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(NAME, format_args!("cannot start: {error}"));
            return ExitCode::from(EXIT_SYSTEM);
        }
    };
    match runtime.block_on(serve::serve(arguments.listen, path)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(NAME, error);
            ExitCode::from(EXIT_SYSTEM)
        }
    }
}

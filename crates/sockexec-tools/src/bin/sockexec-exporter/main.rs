//! The metrics of a daemon over HTTP, for Prometheus. The daemon itself has no HTTP.
//!
//! One thread does everything. Each connection is a task with one request and a time limit, so a slow or silent
//! client delays no other, and costs no thread.
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
    /// Path of the daemon's socket. `-` takes it from `SOCKEXEC_SOCKET`.
    #[arg(value_name = "SOCKET")]
    socket: OsString,

    /// Address and port to listen on. Port 0 takes a free port; standard error has its number.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9532")]
    listen: SocketAddr,

    /// Print the version and exit.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,

    /// Print this help and exit.
    #[arg(short = 'h', long, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

const AFTER_HELP: &str = "\
Environment:
  SOCKEXEC_SOCKET  path of the socket, used if SOCKET is -

It serves / and /metrics, for GET and HEAD. If the daemon does not answer within 5 seconds, the reply is 503
with the reason. There is no TLS and no login: listen on an address that only Prometheus can reach.

Exit status:
  0    stopped by INT or TERM
  100  wrong arguments
  111  cannot listen";

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

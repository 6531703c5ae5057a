//! The arguments and their help.

use std::ffi::OsString;
use std::net::SocketAddr;

use clap::{ArgAction, Parser};

pub(crate) const NAME: &str = "sockexec-exporter";

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
pub(crate) struct Arguments {
    /// Path of the daemon's socket. `-` takes it from `SOCKEXEC_SOCKET`.
    #[arg(value_name = "SOCKET")]
    pub(crate) socket: OsString,

    /// Address and port to listen on. Port 0 takes a free port; standard error has its number.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9532")]
    pub(crate) listen: SocketAddr,

    /// Print the version and exit.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,

    /// Print this and exit.
    #[arg(short = 'h', long, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

const AFTER_HELP: &str = "\
Answers: the metrics at /metrics and a page with a link at /, by GET and HEAD. 503 and the reason if the
daemon does not answer within 5 seconds.

There is no TLS and no login: listen on an address that only Prometheus can reach.

Environment:
  SOCKEXEC_SOCKET  path of the socket, used if SOCKET is -

Signals:
  INT, TERM  end it, with exit status 0

Exit status:
  0    INT or TERM ended it
  100  wrong arguments
  111  it cannot listen

Examples:
  sockexec-exporter /run/sockexec/exec.sock
  curl http://127.0.0.1:9532/metrics";

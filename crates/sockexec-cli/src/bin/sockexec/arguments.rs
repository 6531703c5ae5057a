//! The command line and its help.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};

/// Listen on a UNIX socket and run the programs that clients ask for.
#[derive(Debug, Parser)]
#[command(
    name = "sockexec",
    // Shown after the name, as 3.1.1 prints it.
    version = concat!("version: ", env!("CARGO_PKG_VERSION")),
    override_usage = "sockexec [OPTIONS] SOCKET\n       sockexec [OPTIONS] --listen-fd N",
    disable_version_flag = true,
    disable_help_flag = true,
    args_override_self = true,
    after_help = AFTER_HELP,
)]
pub(crate) struct Arguments {
    /// Path of the socket, at most 107 bytes. A stale socket there is replaced. Not needed with `--listen-fd`, or if
    /// a service manager passes listening sockets (`LISTEN_FDS`).
    // An OsString: for an empty path clap's own message does not say what is wrong.
    #[arg(value_name = "SOCKET")]
    pub(crate) socket: Option<OsString>,

    /// Take the place of the daemon that listens at SOCKET, once everything else has succeeded. The old daemon
    /// accepts no more clients, and exits when its programs have ended. No client is refused.
    #[arg(long, requires = "socket")]
    pub(crate) replace: bool,

    /// Also accept clients on this listening descriptor, a stream socket of any family. It is neither removed nor
    /// shut down. Can be given more than once.
    #[arg(long, value_name = "N", value_parser = descriptor)]
    pub(crate) listen_fd: Vec<RawFd>,

    /// Write a newline to this descriptor when clients are served, then close it (s6: `notification-fd`). At least 3.
    #[arg(long, value_name = "N", value_parser = descriptor_above_standard)]
    pub(crate) notification_fd: Option<RawFd>,

    /// Number of clients that may wait to be accepted.
    #[arg(short = 'q', long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pub(crate) max_queue: u32,

    /// Number of programs that may run at once. Further requests wait for a slot. Lowered, with a warning, to what
    /// the hard limit of descriptors allows (128 + 6 a program). Programs get the soft limit.
    #[arg(short = 'm', long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pub(crate) max_connections: u32,

    /// Number of programs that one user may run at once, by the uid of the client. Further requests of that user
    /// wait, and those of others pass them [default: no limit].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) max_per_user: Option<u32>,

    /// Number of connections without a slot: the request is incomplete or waits, or the reply is still being read.
    /// Beyond that the user with the most of them loses one. Lowered to what the limit of descriptors leaves (7
    /// each).
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
    pub(crate) max_waiting: u32,

    /// Longest time from connecting to the complete request, never longer than --timeout. 0: as long as --timeout.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) request_timeout: Duration,

    /// Longest time for a program and its reply, from when the request has its slot. Then the program gets TERM. 0:
    /// no limit.
    #[arg(short = 't', long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) timeout: Duration,

    /// Time between TERM and KILL.
    #[arg(short = 'k', long, value_name = "SECONDS", default_value = "10", value_parser = seconds_above_zero)]
    pub(crate) kill_timeout: Duration,

    /// When the daemon gets TERM: time for requests that run, wait or still arrive to finish, before their programs
    /// get TERM. 0: none.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub(crate) drain: Duration,

    /// Permissions of the socket in octal, whatever the umask.
    #[arg(short = 'M', long, value_name = "MODE", default_value = "0660", value_parser = octal)]
    pub(crate) mode: u32,

    /// Owner of the socket file, by name or number. `:GROUP` sets the group alone.
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(crate) owner: Option<String>,

    /// Become this user, by name or number, after the socket is made. Programs run as this user too. Needs root. If
    /// the socket's directory belongs to root, the daemon can neither remove the socket nor make it again; with
    /// another --owner, it cannot make it again. HOME and USER stay.
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,

    /// How long a program's descendants may hold its output open after its exit [default: until --timeout].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) linger: Option<Duration>,

    /// Output kept for a client that still sends input and does not read (suffixes K, M, G). Beyond 1 MiB it goes to
    /// an unnamed file in $TMPDIR or /var/tmp. 0: none, the program waits.
    #[arg(long, value_name = "BYTES", default_value = "1G", value_parser = bytes)]
    pub(crate) spool: u64,

    /// Disk space for the kept output of all clients together. Beyond that programs wait. A tenth of the file system
    /// always stays free.
    #[arg(long, value_name = "BYTES", default_value = "4G", value_parser = bytes)]
    pub(crate) spool_total: u64,

    /// How `termsig` reports the signal that ended a program: 15 or TERM.
    #[arg(long, value_name = "FORM", default_value = "number")]
    pub(crate) termsig: TermSigForm,

    /// What to log on standard error. `warn`: what goes wrong, at most 10 lines a second of each kind. `info`: also
    /// each program that has ended. `debug`: also everything that happens on each connection. Start, reload and stop
    /// are always logged.
    #[arg(long, value_name = "LEVEL", default_value = "warn", overrides_with = "debug")]
    pub(crate) log_level: Threshold,

    /// Same as --log-level debug.
    #[arg(short = 'd', long, overrides_with = "log_level")]
    pub(crate) debug: bool,

    /// Text for people, or JSON with one object a line.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: Format,

    /// Begin each line of text with the time, in UTC. JSON always has it.
    #[arg(long)]
    pub(crate) log_time: bool,

    /// Print the version and exit.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    pub(crate) version: Option<bool>,

    /// Print this help and exit.
    #[arg(short = 'h', long, action = ArgAction::Help)]
    pub(crate) help: Option<bool>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum TermSigForm {
    Number,
    Name,
}

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Threshold {
    Error,
    Warn,
    Info,
    Debug,
}

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

const AFTER_HELP: &str = "\
Signals:
  TERM, INT, QUIT  stop accepting, send TERM to all programs, and KILL after --kill-timeout. Exit when all have
                   ended. A second signal sends KILL at once. With --drain the first signal lets all requests
                   finish, the second one sends TERM, and the third one KILL
  HUP              the same if the daemon was started at a terminal that is gone. Otherwise reload: nothing is
                   re-read yet
  USR1             log the connections, at any log level
  USR2             log the descriptors, at any log level
  Signals that are ignored when the daemon starts (nohup) stay ignored. Programs find all signals at their
  defaults.

As PID 1 of a container the daemon forks once. The parent reaps orphans, passes signals on, and exits as the
daemon does.

Exit status:
  0    stopped by a signal, or another daemon has taken over
  100  wrong arguments
  111  system error

Example:
  sockexec -m 20 -t 30 /tmp/exec.sock
  printf '1:2,5:uname,2:-a,0:,' | nc -U -N /tmp/exec.sock";

impl Arguments {
    /// Reads the command line of this process.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        // So that the message for `-t -1` is about the value of -t, and not about an option -1.
        let command = Self::command().mut_args(|arg| {
            let is_value = !arg.is_positional() && arg.get_action().takes_values();
            arg.allow_negative_numbers(is_value)
        });
        Self::from_arg_matches(&command.try_get_matches()?)
    }

    /// The error if no socket was given.
    pub(crate) fn missing_socket() -> clap::Error {
        let handed_over = match std::env::var_os("LISTEN_FDS") {
            None => "",
            Some(_) => " (LISTEN_FDS is set, but is 0, or LISTEN_PID does not name this process)",
        };
        let words = format!("no socket to listen on: give SOCKET, or --listen-fd N{handed_over}");
        Self::command().error(ErrorKind::MissingRequiredArgument, words)
    }
}

fn descriptor(text: &str) -> Result<RawFd, String> {
    match text.parse() {
        Ok(number @ 0..) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        Ok(_) | Err(_) => Err("must be the number of an open descriptor, such as 0 or 3".to_owned()),
    }
}

fn descriptor_above_standard(text: &str) -> Result<RawFd, String> {
    match descriptor(text)? {
        0..3 => Err("must be at least 3: 0, 1 and 2 are the standard streams".to_owned()),
        number => Ok(number),
    }
}

fn at_least_one(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("must be a whole number from 1 to {}", u32::MAX)),
    }
}

/// More than a hundred years is a mistake.
const MAX_SECONDS: f64 = 4e9;

fn seconds(text: &str) -> Result<Duration, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match text.parse::<f64>() {
        Ok(number) if plain && number <= MAX_SECONDS => {
            Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
        }
        Ok(_) | Err(_) => Err(format!("must be a number of seconds from 0 to {MAX_SECONDS}, such as 30 or 0.5")),
    }
}

fn seconds_above_zero(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("must be more than 0".to_owned()),
        duration => Ok(duration),
    }
}

fn octal(text: &str) -> Result<u32, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match u32::from_str_radix(text, 8) {
        Ok(mode) if digits && mode <= 0o777 => Ok(mode),
        Ok(_) | Err(_) => Err("must be permission bits in octal from 0 to 0777, such as 0660".to_owned()),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (text.get(..text.len() - 1), 1 << 10),
        Some(b'M' | b'm') => (text.get(..text.len() - 1), 1 << 20),
        Some(b'G' | b'g') => (text.get(..text.len() - 1), 1 << 30),
        Some(_) | None => (Some(text), 1_u64),
    };
    number
        .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|number| number.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(unit))
        .filter(|&number| i64::try_from(number).is_ok())
        .ok_or_else(|| "must be a number of bytes, such as 0, 65536, 64K, 512M or 2G".to_owned())
}

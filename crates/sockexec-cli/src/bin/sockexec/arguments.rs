//! The arguments, and what is said of them.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory as _, Parser, ValueEnum};

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
    /// Path of the socket, at most 107 bytes. A stale socket there is replaced. Not needed where a service manager hands
    /// over listening sockets (`LISTEN_FDS`), or with `--listen-fd`.
    // As an OsString: clap would refuse an empty path with a message that does not tell why.
    #[arg(value_name = "SOCKET")]
    pub(crate) socket: Option<OsString>,

    /// Takes the place of a daemon that listens at SOCKET: the last thing that is done when all else has succeeded. That
    /// one accepts no more, and ends when its programs have ended. No client is refused.
    #[arg(long, requires = "socket")]
    pub(crate) replace: bool,

    /// Serves those as well who come to the listening socket that is this descriptor, a stream of any family. It is left
    /// as it is: not removed, not shut down. May be given again.
    #[arg(long, value_name = "N", value_parser = descriptor)]
    pub(crate) listen_fd: Vec<RawFd>,

    /// Writes a newline to this descriptor when clients are served, and closes it (s6: `notification-fd`). At least 3.
    #[arg(long, value_name = "N", value_parser = descriptor_above_standard)]
    pub(crate) notification_fd: Option<RawFd>,

    /// Clients that may wait to be accepted.
    #[arg(short = 'q', long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pub(crate) max_queue: u32,

    /// Programs that may run at once; further requests wait for a slot. Lowered, with a warning, to what the limit of
    /// descriptors allows (128 + 6 a program), the hard one: programs get the soft one.
    #[arg(short = 'm', long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pub(crate) max_connections: u32,

    /// Programs that one user may run at once, by the uid of the client; its further requests wait, and others' pass
    /// them [default: no limit].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) max_per_user: Option<u32>,

    /// Connections without a slot: their request is not complete or waits, or their reply is still being read. When
    /// there are more, the user that has most of them loses one. Lowered to what the limit of descriptors leaves (7
    /// each).
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
    pub(crate) max_waiting: u32,

    /// Longest time from connecting to the complete request, never longer than the time-out. 0: as long as that.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) request_timeout: Duration,

    /// Longest time of a program and its reply, from when the request has its slot; then the program gets TERM. 0: no limit.
    #[arg(short = 't', long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) timeout: Duration,

    /// Time between TERM and KILL.
    #[arg(short = 'k', long, value_name = "SECONDS", default_value = "10", value_parser = seconds_above_zero)]
    pub(crate) kill_timeout: Duration,

    /// After TERM: how long what runs, waits for a slot or still arrives may go on before it gets TERM. 0: not at all.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub(crate) drain: Duration,

    /// Permissions of the socket, in octal, whatever the umask.
    #[arg(short = 'M', long, value_name = "MODE", default_value = "0660", value_parser = octal)]
    pub(crate) mode: u32,

    /// Whom the socket file belongs to, by name or number. `:GROUP` for the group alone.
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(crate) owner: Option<String>,

    /// Becomes that user, by name or number, after the socket is made; programs run as that user as well. As root. The
    /// daemon cannot remove the socket then, or make it again, where the directory is root's. HOME and USER stay.
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,

    /// How long after a program's exit its descendants may hold its output open [default: until the time-out].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) linger: Option<Duration>,

    /// Output kept for a client that does not read while it still sends input (suffixes K, M, G). 0: none, the
    /// program waits. Beyond 1 MiB it goes to a file without a name in $TMPDIR or /var/tmp.
    #[arg(long, value_name = "BYTES", default_value = "1G", value_parser = bytes)]
    pub(crate) spool: u64,

    /// What all of that output together may take of the disk; beyond it programs wait. A tenth of the file system stays
    /// free in any case.
    #[arg(long, value_name = "BYTES", default_value = "4G", value_parser = bytes)]
    pub(crate) spool_total: u64,

    /// How `termsig` tells the signal that ended a program: 15 or TERM.
    #[arg(long, value_name = "FORM", default_value = "number")]
    pub(crate) termsig: TermSigForm,

    /// What is logged on standard error. `warn`: what goes wrong, with at most 10 lines a second of each kind; `info`: each program that
    /// has ended as well; `debug`: what happens on each connection, all of it. Start, reload and stop are always logged.
    #[arg(long, value_name = "LEVEL", default_value = "warn", overrides_with = "debug")]
    pub(crate) log_level: Threshold,

    /// The same as --log-level debug.
    #[arg(short = 'd', long, overrides_with = "log_level")]
    pub(crate) debug: bool,

    /// Lines for a person, or JSON, one object a line.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: Format,

    /// Begin each line of text with the time, in UTC. JSON has it in any case.
    #[arg(long)]
    pub(crate) log_time: bool,

    /// Print the version and exit.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,

    /// Print this and exit.
    #[arg(short = 'h', long, action = ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum TermSigForm {
    Number,
    Name,
}

/// What is logged.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Threshold {
    Error,
    Warn,
    Info,
    Debug,
}

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

const AFTER_HELP: &str = "\
Signals:
  TERM, INT, QUIT  stop accepting, TERM to all programs, KILL after the kill time-out; exit when all have ended
                   (a second one: KILL at once). With --drain the first one lets all that are here finish; the
                   second is what is said here of the first, and the third KILL
  HUP              the same if the daemon was started at a terminal that is gone; otherwise reload: nothing is re-read yet
  USR1             log the connections, whatever the level
  USR2             log the descriptors, whatever the level
  What is ignored when the daemon starts (nohup) stays ignored; programs find all signals at their defaults.

As PID 1, in a container, it forks once: the parent reaps orphans, passes signals on and exits as the daemon does.

Exit status: 0 after one of the first, 100 wrong arguments, 111 system error.

Example:
  sockexec -m 20 -t 30 /tmp/exec.sock
  printf '1:2,5:uname,2:-a,0:,' | nc -U -N /tmp/exec.sock";

impl Arguments {
    /// Those of this process.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        Self::try_parse()
    }

    /// There is no socket: that SOCKET is missing.
    pub(crate) fn missing_socket() -> clap::Error {
        let handed_over = match std::env::var_os("LISTEN_FDS") {
            None => "",
            Some(_) => " (LISTEN_FDS is set, but LISTEN_PID does not name this process)",
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
        0..3 => Err("must be at least 3: 0, 1 and 2 have a meaning of their own".to_owned()),
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

/// More than a hundred years is taken for a mistake.
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

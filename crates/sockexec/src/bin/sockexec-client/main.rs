//! The client's command: arguments, then [`sockexec::Command`], then the program's own end.
//!
//! In version 1 of the protocol INT, TERM, HUP and QUIT need no handler. What they do by default is what is wanted: this process
//! dies of them, whereby the kernel closes the connection, and the daemon ends the program. There is no
//! moment in which that does not hold, and where the starter ignores one of them (`nohup`) so does
//! this. In version 2 they are forwarded: see [`signals`].
#![forbid(unsafe_code)]

mod signals;
mod status;
mod terminal;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{ArgAction, Parser};
use rustix::process::{Resource, Rlimit, Signal};
use sockexec::{Command, Error, ErrorCode, ExitStatus, Failure, Stdio, Usage, Version};
use terminal::RawMode;

/// Wrong arguments.
const EXIT_USAGE: u8 = 100;

/// There is no status: no connection, or it was lost; or the request was refused.
const EXIT_SYSTEM: u8 = 111;

/// The program was cut and nevertheless exited with 0, as timeout(1) has it.
const EXIT_CUT: u8 = 124;

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
    override_usage = "sockexec-client [OPTIONS] SOCKET PROGRAM [ARG...]\n       sockexec-client --status [--json] SOCKET",
    disable_version_flag = true,
    disable_help_flag = true,
    args_override_self = true,
    after_help = AFTER_HELP,
)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
struct Arguments {
    /// Path of the daemon's socket; `-`: what `SOCKEXEC_SOCKET` says.
    // As an OsString: clap would refuse an empty path with a message that does not tell why.
    #[arg(value_name = "SOCKET")]
    socket: OsString,

    /// The program and its arguments; whatever comes after PROGRAM is for it.
    #[arg(
        value_name = "PROGRAM",
        required_unless_present = "status",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,

    /// Read nothing: the program's standard input is empty.
    #[arg(short = 'n', long)]
    null_stdin: bool,

    /// Run the program in this directory; a relative one begins at the daemon's (*).
    #[arg(short = 'C', long, value_name = "DIRECTORY")]
    chdir: Option<PathBuf>,

    /// Set a variable of the program's environment; a NAME alone: as it is here (*).
    #[arg(short = 'e', long, value_name = "NAME[=VALUE]", value_parser = OsStringValueParser::new().try_map(variable))]
    env: Vec<Variable>,

    /// Take a variable out of the program's environment (*).
    #[arg(long, value_name = "NAME", value_parser = OsStringValueParser::new().try_map(name))]
    unset: Vec<OsString>,

    /// Begin with an empty environment, before --unset and --env (*).
    #[arg(long)]
    clear_env: bool,

    /// End the program (TERM, then KILL) when it has run for so long; fractions are fine (*).
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,

    /// Give the program a terminal; ours, if standard input is one, passes keys and size on (*).
    #[arg(short = 't', long, conflicts_with_all = ["pass_fds", "merge_stderr"])]
    tty: bool,

    /// Give the program our standard input, output and error themselves, a file as a file (*).
    #[arg(long, conflicts_with = "merge_stderr")]
    pass_fds: bool,

    /// Standard error goes where standard output goes, in order (*).
    #[arg(long)]
    merge_stderr: bool,

    /// At the end print the time and memory that it took on standard error, as time(1) does (*).
    #[arg(long)]
    usage: bool,

    /// Print what the daemon does, instead of running a program (*).
    #[arg(long, conflicts_with_all = [
        "command", "null_stdin", "chdir", "env", "unset", "clear_env", "timeout", "tty", "pass_fds", "merge_stderr", "usage",
    ])]
    status: bool,

    /// With --status: as JSON.
    // Not by `requires`, which clap leaves out of account where what is required conflicts with what is there: the program.
    #[arg(long)]
    json: bool,

    /// Print the version and exit.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,

    /// Print this and exit.
    #[arg(short = 'h', long, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

const AFTER_HELP: &str = "\
(*) needs version 2 of the protocol: sockexec 4 or later. Without these, any daemon will do.

Environment:
  SOCKEXEC_SOCKET  path of the socket, used where SOCKET is -

Exit status: that of the program. If a signal ended the program, the same signal ends this command.
  100  wrong arguments
  111  no daemon, no answer, a refused request, or the connection was lost
  124  the program exited with 0 after a deadline, a shutdown or another limit had ended it; or its
       status is unknown after a deadline
  125  the daemon could not start the program, or ended it and its status is unknown
  126  the program cannot be executed, or may not
  127  the program or the directory does not exist

Signals: INT, TERM, HUP and QUIT end this and, by closing the connection, the program: its process
group gets TERM, and some seconds later KILL. With an option of (*) they, USR1 and USR2 are
forwarded to the group once the program has started, and this ends when the program does.

Examples:
  sockexec-client /tmp/exec.sock uname -a
  tar -c docs | sockexec-client /tmp/exec.sock sha256sum
  SOCKEXEC_SOCKET=/tmp/exec.sock sockexec-client -n - sh -c 'date; exit 3'";

/// What `--env` says of a variable.
#[derive(Debug, Clone)]
enum Variable {
    Set(OsString, OsString),
    /// As it is here, or not at all.
    Ours(OsString),
}

fn variable(text: OsString) -> Result<Variable, &'static str> {
    let bytes = text.as_bytes();
    match bytes.iter().position(|&byte| byte == b'=') {
        Some(0) => Err("there is no name before the equals sign"),
        Some(equals) => {
            let (name, value) = (bytes.get(..equals), bytes.get(equals + 1..));
            let own = |part: Option<&[u8]>| OsString::from_vec(part.unwrap_or_default().to_vec());
            Ok(Variable::Set(own(name), own(value)))
        }
        None if bytes.is_empty() => Err("there is no name"),
        None => Ok(Variable::Ours(text)),
    }
}

fn name(text: OsString) -> Result<OsString, &'static str> {
    if text.is_empty() || text.as_bytes().contains(&b'=') { Err("this is no name of a variable") } else { Ok(text) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "this is no number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if !time.is_zero() => Ok(time),
        Ok(_) | Err(_) => Err("more than 0 seconds, and fewer than there are, make sense".to_owned()),
    }
}

impl Arguments {
    /// Whether something is asked for that version 1 of the protocol has not.
    fn needs_version_2(&self) -> bool {
        self.chdir.is_some()
            || !self.env.is_empty()
            || !self.unset.is_empty()
            || self.clear_env
            || self.timeout.is_some()
            || self.tty
            || self.pass_fds
            || self.merge_stderr
            || self.usage
    }

    fn command(self, socket: &Path) -> Command {
        let version = if self.needs_version_2() { Version::Two } else { Version::One };
        let mut words = self.command.into_iter();
        let mut command = Command::new(socket, words.next().unwrap_or_default());
        command.args(words).version(version);
        if self.null_stdin {
            command.stdin(Stdio::null());
        }
        if let Some(directory) = self.chdir {
            command.current_dir(directory);
        }
        if self.clear_env {
            command.env_clear();
        }
        for name in self.unset {
            command.env_remove(name);
        }
        for variable in self.env {
            match variable {
                Variable::Set(name, value) => command.env(name, value),
                Variable::Ours(name) => match std::env::var_os(&name) {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                },
            };
        }
        if let Some(timeout) = self.timeout {
            command.deadline(timeout);
        }
        if self.merge_stderr {
            command.stderr_to_stdout();
        }
        if self.pass_fds {
            command.pass_stdio();
        }
        if self.tty {
            command.terminal(terminal::size());
        }
        command
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            let _ = error.print();
            return ExitCode::from(EXIT_USAGE);
        }
        Err(help) => return exit_after_printing(&help.to_string()),
    };
    let Some(socket) = socket(arguments.socket.clone()) else {
        complain(&format!("SOCKET is - and {SOCKET_VARIABLE} is not set; set it to the path of the daemon's socket"));
        return ExitCode::from(EXIT_USAGE);
    };
    if arguments.json && !arguments.status {
        complain("--json is for --status; write it as: sockexec-client --status --json SOCKET");
        return ExitCode::from(EXIT_USAGE);
    }
    if arguments.status {
        return match status::text(&socket, arguments.json) {
            Ok(text) => exit_after_printing(&text),
            Err(error) => fail(&socket, &error),
        };
    }
    if !arguments.needs_version_2() {
        return match arguments.command(&socket).status() {
            Ok(status) => end_like(status),
            Err(error) => fail(&socket, &error),
        };
    }
    let (tty, usage) = (arguments.tty, arguments.usage);
    let run = run(&mut arguments.command(&socket), tty);
    if let (true, Some(cost)) = (usage, run.usage) {
        print_usage(run.time, cost);
    }
    match run.end {
        Ok(status) => end_like(status),
        Err(error) => fail(&socket, &error),
    }
}

/// What came of a program, and what it took.
struct Run {
    end: Result<ExitStatus, Error>,
    usage: Option<Usage>,
    time: Duration,
}

/// Runs a program in version 2: signals go to it, and so do keys if it has a terminal.
fn run(command: &mut Command, tty: bool) -> Run {
    let begin = Instant::now();
    let failed = |error| Run { end: Err(error), usage: None, time: begin.elapsed() };
    // Before the program, so that none of them finds it without us.
    let signals = match signals::Caught::new(tty) {
        Ok(signals) => signals,
        Err(error) => return failed(Error::Io("cannot catch signals", error)),
    };
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return failed(error),
    };
    signals.forward(child.handle());
    if tty {
        // It may have changed since the request was made; only now are changes followed.
        let _ = child.resize(terminal::size());
    }
    // Only for as long as there is a program; restored on every way out of this function, a panic included.
    let raw = tty.then(RawMode::begin);
    let end = child.wait();
    drop(raw);
    Run { end, usage: child.usage(), time: begin.elapsed() }
}

/// As time(1) has it in the portable format, and the memory.
fn print_usage(time: Duration, cost: Usage) {
    let text = format!(
        "real {:.2}\nuser {:.2}\nsys {:.2}\nmaxrss {} KiB\n",
        time.as_secs_f64(),
        cost.user_time.as_secs_f64(),
        cost.system_time.as_secs_f64(),
        cost.max_rss_kib
    );
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
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
        Error::Output(_, cause) if cause.kind() == io::ErrorKind::BrokenPipe => return die_of(Signal::PIPE.as_raw()),
        Error::InvalidArgument(_) | Error::InvalidOption(_) => {
            complain(&error.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
        Error::Connect(..) => complain(&error.to_string()),
        Error::Failed { failure, status, .. } => {
            complain(&failure.to_string());
            return end_after(failure, *status);
        }
        Error::Lost { .. } => {
            complain(&format!("{}: {error}; does the daemon still run, and what does its log say?", socket.display()));
        }
        _ => complain(&format!("{}: {error}", socket.display())),
    }
    ExitCode::from(EXIT_SYSTEM)
}

/// Ends this process after an `error` of the daemon's, as the table in `docs/protocol.md` has it.
fn end_after(failure: &Failure, status: Option<ExitStatus>) -> ExitCode {
    let code = match &failure.code {
        ErrorCode::NotFound => 127,
        ErrorCode::NotExecutable | ErrorCode::Denied | ErrorCode::Forbidden => 126,
        ErrorCode::Busy | ErrorCode::SpawnFailed | ErrorCode::Internal => 125,
        ErrorCode::BadRequest => EXIT_SYSTEM,
        ErrorCode::Timeout
        | ErrorCode::Shutdown
        | ErrorCode::OutOfMemory
        | ErrorCode::OutputLimit
        | ErrorCode::IdleTimeout
        | ErrorCode::Other(_) => match status {
            Some(status) if !status.success() => return end_like(status),
            Some(_) => EXIT_CUT,
            None if failure.code == ErrorCode::Timeout => EXIT_CUT,
            None => 125,
        },
    };
    ExitCode::from(code)
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

//! The command line, and the library's command made from it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};
use sockexec::{Command, Stdio, Version};

use super::terminal::Keys;
use super::{stdin, terminal};

/// Run a program through the daemon that listens on a UNIX socket.
///
/// Standard input, output and error are passed through, all at the same time.
#[derive(Debug, Parser)]
#[command(
    name = "sockexec-client",
    version,
    // For `sockexec-client version: X`, as the daemon prints it.
    display_name = "sockexec-client version:",
    override_usage = "sockexec-client [OPTIONS] SOCKET PROGRAM [ARG...]\n       sockexec-client --status [--format FORMAT] SOCKET\n       \
                      sockexec-client --ping SOCKET",
    disable_version_flag = true,
    disable_help_flag = true,
    args_override_self = true,
    after_help = AFTER_HELP,
)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct Arguments {
    /// Path of the daemon's socket. `-` takes it from `SOCKEXEC_SOCKET`.
    // An OsString: for an empty path clap's own message does not say what is wrong.
    #[arg(value_name = "SOCKET")]
    pub(crate) socket: OsString,

    /// The program and its arguments. Everything after PROGRAM is for the program.
    #[arg(
        value_name = "PROGRAM",
        required_unless_present_any = QUESTIONS.map(|question| question.id),
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,

    /// Read nothing. The program's standard input is empty. A job in the background (`&`) of a terminal needs this:
    /// reading would stop it.
    #[arg(short = 'n', long)]
    null_stdin: bool,

    /// Run the program in this directory. A relative path starts at the daemon's directory (*).
    #[arg(short = 'C', long, value_name = "DIRECTORY")]
    chdir: Option<PathBuf>,

    /// Set a variable in the program's environment. NAME alone copies the client's value (*).
    #[arg(short = 'e', long, value_name = "NAME[=VALUE]", value_parser = OsStringValueParser::new().try_map(variable))]
    env: Vec<Variable>,

    /// Remove a variable from the program's environment (*).
    #[arg(long, value_name = "NAME", value_parser = OsStringValueParser::new().try_map(name))]
    unset: Vec<OsString>,

    /// Start with an empty environment, before --unset and --env (*).
    #[arg(long)]
    clear_env: bool,

    /// End the program after this time, with TERM and then KILL. Fractions are allowed (*).
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    timeout: Option<Duration>,

    /// Give up if the program has not started after this time. Fractions are allowed (*).
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    wait: Option<Duration>,

    /// Give the program a terminal. Your keystrokes and window size are forwarded. -tt works without a terminal here,
    /// too (*).
    #[arg(short = 't', long, action = ArgAction::Count, conflicts_with_all = ["pass_fds", "merge_stderr"])]
    tty: u8,

    /// Pass standard input, output and error themselves to the program. A file stays a file (*).
    #[arg(long, conflicts_with = "merge_stderr")]
    pass_fds: bool,

    /// Send standard error to standard output, in order (*).
    #[arg(long)]
    merge_stderr: bool,

    /// Print the program's time and memory on standard error, as time(1) does (*).
    #[arg(long)]
    pub(crate) usage: bool,

    /// Print what the daemon does. No program is run (*).
    #[arg(long)]
    pub(crate) status: bool,

    /// Format of --status: a table, JSON, or the text format of Prometheus [default: text].
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,

    /// Exit with 0 if the daemon answers, and within a second with 111 if it does not (*).
    #[arg(long)]
    pub(crate) ping: bool,

    /// Print the version and exit.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,

    /// Print this help and exit.
    #[arg(short = 'h', long, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

/// How the status is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for a person.
    Text,
    /// As the daemon sends it.
    Json,
    /// The text format of Prometheus, for the textfile collector of `node_exporter`.
    Prometheus,
}

const AFTER_HELP: &str = "\
(*) needs version 2 of the protocol: sockexec 4 or later. Everything else works with any daemon.

Environment:
  SOCKEXEC_SOCKET  path of the socket, used if SOCKET is -

Exit status: that of the program. If a signal ended the program, the same signal ends this command.
Process 1 of a container cannot die of a signal, and exits with 128 + the signal's number instead.
  100  wrong arguments
  111  no daemon, no answer, a refused request, not started in time, or a lost connection
  124  a deadline, a shutdown or another limit ended the program, which exited with 0; or its status
       is unknown after a deadline
  125  the daemon could not start the program, or ended it and does not know its status
  126  the program cannot be executed, or this is not permitted
  127  the program or the directory does not exist

Signals: INT, TERM, HUP and QUIT end this command. That closes the connection, so the daemon ends the
program: its process group gets TERM, and KILL some seconds later. With an option marked (*) these
signals, USR1 and USR2 are forwarded to the process group once the program has started, and this
command ends when the program does. Three things still end both at once: a second INT, TERM or QUIT
within 5 seconds, a signal that the daemon does not read within a second, and the hang-up of the
terminal.

Terminals: with -t the program has a terminal of the size and kind (TERM) of yours. It gets all your
keys except these, at the start of a line:
  ~.   end this command and the program
  ~^Z  stop this command, as a job
  ~~   send one ~
  ~?   list these keys
With -n your keys stay yours. With -tt and no terminal as standard input, the program's terminal
treats the bytes as keys. While it edits lines, it echoes them, keeps 4095 bytes of a line and drops
the rest, and ^C (byte 3) kills. The end of input becomes ^D. A shell that edits lines itself does
not see the end, and goes on. If KILL ends this command your terminal stays raw: type `stty sane`
and ^J.

Examples:
  sockexec-client /tmp/exec.sock uname -a
  tar -c docs | sockexec-client /tmp/exec.sock sha256sum
  SOCKEXEC_SOCKET=/tmp/exec.sock sockexec-client -n - sh -c 'date; exit 3'";

const NO_TERMINAL: &str = "-t needs a terminal as standard input; use -n for no input, or -tt to send this input as if it were typed: a line \
     then has at most 4095 bytes, and the byte of ^C kills";

/// An option that asks the daemon something instead of running a program.
struct Question {
    id: &'static str,
    /// Arguments that may stand beside it. All others concern a program.
    beside: &'static [&'static str],
}

const QUESTIONS: [Question; 2] =
    [Question { id: "status", beside: &["socket", "format"] }, Question { id: "ping", beside: &["socket"] }];

/// A variable as `--env` gives it.
#[derive(Debug, Clone)]
enum Variable {
    Set(OsString, OsString),
    /// With the client's value; unset if the client has none.
    Ours(OsString),
}

fn variable(text: OsString) -> Result<Variable, &'static str> {
    let bytes = text.as_bytes();
    match bytes.iter().position(|&byte| byte == b'=') {
        Some(0) => Err("the name before the equals sign is missing"),
        Some(equals) => {
            let (name, value) = (bytes.get(..equals), bytes.get(equals + 1..));
            let own = |part: Option<&[u8]>| OsString::from_vec(part.unwrap_or_default().to_vec());
            Ok(Variable::Set(own(name), own(value)))
        }
        None if bytes.is_empty() => Err("the name is empty"),
        None => Ok(Variable::Ours(text)),
    }
}

fn name(text: OsString) -> Result<OsString, &'static str> {
    if text.is_empty() || text.as_bytes().contains(&b'=') {
        Err("the name of a variable must not be empty or contain an equals sign")
    } else {
        Ok(text)
    }
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|time| !time.is_zero()).ok_or("must be a positive number of seconds")
}

/// Refuses options that a question does not use, and `--format` without `--status`.
fn check_questions(command: &mut clap::Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let Some(question) = QUESTIONS.iter().find(|question| is_given(question.id)) else {
        if is_given("format") {
            let message = "--format is for --status; write it as: sockexec-client --status --format json SOCKET";
            return Err(command.error(ErrorKind::MissingRequiredArgument, message));
        }
        return Ok(());
    };
    let is_stray = |id: &str| is_given(id) && id != question.id && !question.beside.contains(&id);
    let stray = command.get_arguments().find(|argument| is_stray(argument.get_id().as_str())).map(ToString::to_string);
    match stray {
        Some(stray) => {
            let message = format!("the argument '--{}' cannot be used with '{stray}'", question.id);
            Err(command.error(ErrorKind::ArgumentConflict, message))
        }
        None => Ok(()),
    }
}

impl Arguments {
    /// Reads the command line.
    ///
    /// # Errors
    /// Wrong arguments. Also the help and the version, which the caller prints.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(std::env::args_os())?;
        check_questions(&mut command, &matches)?;
        let arguments = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        if arguments.tty == 1 && !arguments.null_stdin && !terminal::is_stdin() {
            return Err(command.error(ErrorKind::ArgumentConflict, NO_TERMINAL));
        }
        Ok(arguments)
    }

    /// Which keys this command keeps if the program has a terminal.
    pub(crate) const fn keys(&self) -> Option<Keys> {
        match (self.tty, self.null_stdin) {
            (0, _) => None,
            (_, false) => Some(Keys::None),
            (_, true) => Some(Keys::All),
        }
    }

    /// Whether an option needs version 2 of the protocol.
    pub(crate) const fn needs_version_2(&self) -> bool {
        // No `..`: a new option does not compile until it is decided here.
        let Self {
            socket: _,
            command: _,
            null_stdin: _,
            chdir,
            env,
            unset,
            clear_env,
            timeout,
            wait,
            tty,
            pass_fds,
            merge_stderr,
            usage,
            status,
            format: _,
            ping,
            version: _,
            help: _,
        } = self;
        chdir.is_some()
            || !env.is_empty()
            || !unset.is_empty()
            || *clear_env
            || timeout.is_some()
            || wait.is_some()
            || *tty > 0
            || *pass_fds
            || *merge_stderr
            || *usage
            || *status
            || *ping
    }

    /// Whether this runs a program in version 2.
    pub(crate) const fn runs_in_version_2(&self) -> bool {
        self.needs_version_2() && !self.status && !self.ping
    }

    /// The library's command for the program.
    pub(crate) fn into_command(self, path: &Path) -> Command {
        let needs_version_2 = self.needs_version_2();
        // No `..`, as above.
        let Self {
            socket: _,
            command: words,
            null_stdin,
            chdir,
            env,
            unset,
            clear_env,
            timeout,
            wait,
            tty,
            pass_fds,
            merge_stderr,
            usage: _,
            status: _,
            format: _,
            ping: _,
            version: _,
            help: _,
        } = self;
        let mut words = words.into_iter();
        let mut command = Command::new(path, words.next().unwrap_or_default());
        command.args(words);
        if null_stdin {
            command.stdin(Stdio::null());
        } else if tty > 0 && terminal::is_stdin() {
            // `escapes` forwards the keys.
            command.stdin(Stdio::piped());
        } else if needs_version_2 && let Some(stdin) = stdin::take() {
            command.stdin(stdin);
        }
        if needs_version_2 {
            command.version(Version::Two);
        }
        if let Some(directory) = chdir {
            command.current_dir(directory);
        }
        if clear_env {
            command.env_clear();
        }
        for name in unset {
            command.env_remove(name);
        }
        for variable in env {
            match variable {
                Variable::Set(name, value) => command.env(name, value),
                Variable::Ours(name) => match std::env::var_os(&name) {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                },
            };
        }
        if let Some(timeout) = timeout {
            command.daemon_timeout(timeout);
        }
        if let Some(wait) = wait {
            command.start_timeout(wait);
        }
        if merge_stderr {
            command.stderr_to_stdout();
        }
        if pass_fds {
            command.pass_stdio();
        }
        if tty > 0 {
            command.terminal(terminal::size());
            if let Some(kind) = terminal::kind() {
                command.terminal_type(kind);
            }
            if terminal::is_utf8() {
                command.terminal_utf8();
            }
        }
        command
    }
}

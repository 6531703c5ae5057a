//! The client's command: arguments, then [`sockexec::Command`], then an end like the program's.
//!
//! In version 1 of the protocol INT, TERM, HUP and QUIT keep their default action: this process dies, the kernel
//! closes the connection, and the daemon ends the program. That leaves no race, and signals that the parent
//! ignores (`nohup`) stay ignored. In version 2 they are forwarded, and end this process only if that fails: see
//! [`signals`].
#![forbid(unsafe_code)]

mod arguments;
mod escapes;
mod signals;
mod status;
mod stdin;
mod terminal;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use arguments::{Arguments, Format};
use rustix::process::{Resource, Rlimit, Signal};
use sockexec::{Command, Error, ErrorCode, ExitStatus, Failure, Usage, client};
use terminal::{Keys, RawMode};

/// Wrong arguments.
const EXIT_USAGE: u8 = 100;

/// There is no exit status: no connection, a lost connection, or a refused request.
const EXIT_SYSTEM: u8 = 111;

/// The daemon ended the program, which exited with 0. The code is that of timeout(1).
const EXIT_CUT: u8 = 124;

/// Has the socket's path if SOCKET is `-`.
const SOCKET_VARIABLE: &str = "SOCKEXEC_SOCKET";

/// How long `--ping` waits for the daemon. With everything else that is less than a second.
const PING_PATIENCE: Duration = Duration::from_millis(900);

fn main() -> ExitCode {
    let arguments = match Arguments::read() {
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
    // Signals have no default action in process 1, so version 1 and questions need a handler too.
    if is_init()
        && !arguments.runs_in_version_2()
        && let Err(error) = signals::Caught::new(false)
    {
        return fail(&socket, &Error::Io("cannot catch signals", error));
    }
    if arguments.status {
        return answer(&socket, status::text(&socket, arguments.format.unwrap_or(Format::Text)));
    }
    if arguments.ping {
        return answer(&socket, client::ping(&socket, PING_PATIENCE).map(|()| String::new()));
    }
    if !arguments.needs_version_2() {
        let mut command = arguments.into_command(&socket);
        tell_of_waiting(&mut command, &socket);
        return match command.status() {
            Ok(status) => end_like(status),
            Err(error) => fail(&socket, &error),
        };
    }
    let (keys, usage) = (arguments.keys(), arguments.usage);
    let mut command = arguments.into_command(&socket);
    tell_of_waiting(&mut command, &socket);
    let run = run(command, keys);
    if let (true, Some(cost)) = (usage, run.usage) {
        print_usage(run.time, cost);
    }
    match run.end {
        Ok(status) => end_like(status),
        Err(error) => fail(&socket, &error),
    }
}

/// Reports a wait if standard error is a terminal.
fn tell_of_waiting(command: &mut Command, socket: &Path) {
    if !io::stderr().is_terminal() {
        return;
    }
    let socket = socket.display().to_string();
    command.on_wait(move |waiting| {
        // The terminal may be raw.
        let message = format!("sockexec-client: {socket}: waiting: {waiting}\r\n");
        // On a thread: the terminal may be stopped (`^S`). Without a thread the wait is not reported.
        let tell = move || drop(io::stderr().lock().write_all(message.as_bytes()));
        let _ = thread::Builder::new().name("notice".to_owned()).spawn(tell);
    });
}

/// How a program ended, and what it cost.
struct Run {
    end: Result<ExitStatus, Error>,
    usage: Option<Usage>,
    time: Duration,
}

/// Runs a program in version 2, and forwards signals to it; also keys if it has a terminal. `keys`: those that
/// this command keeps once the program has started.
fn run(mut command: Command, keys: Option<Keys>) -> Run {
    let begin = Instant::now();
    let failed = |error| Run { end: Err(error), usage: None, time: begin.elapsed() };
    // Before the program starts, so that no signal is missed.
    let signals = match signals::Caught::new(keys.is_some()) {
        Ok(signals) => signals,
        Err(error) => return failed(Error::Io("cannot catch signals", error)),
    };
    // Dropped, and so restored, on every way out of this function, also by a panic.
    let raw = keys.map(|keys| RawMode::begin(if keys == Keys::None { Keys::Signals } else { keys }));
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return failed(error),
    };
    // This closes our copy of standard input: see `stdin`.
    drop(command);
    signals.forward(child.handle());
    if let Some(keys) = keys {
        // The size may have changed since the request. From here on changes are forwarded.
        let _ = child.resize(terminal::size());
        terminal::keep(keys);
    }
    if let Some(stdin) = child.stdin.take()
        && let Err(error) = escapes::forward(child.handle(), stdin)
    {
        return failed(Error::Io("cannot start a thread", error));
    }
    let end = child.wait();
    drop(raw);
    Run { end, usage: child.usage(), time: begin.elapsed() }
}

/// In the portable format of time(1), and the memory.
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
        complain("a signal ended the program, and the daemon did not say which");
        return ExitCode::from(128);
    };
    die_of(signal)
}

/// Dies of a signal, so that the parent sees the same as if the program were its child.
fn die_of(signal: i32) -> ExitCode {
    terminal::restore_for_good();
    // The code that a shell would show.
    let code = ExitCode::from(u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX));
    if is_init() {
        return code;
    }
    // The program has dumped its own core. One of this process could replace it.
    let none = Rlimit { current: Some(0), maximum: rustix::process::getrlimit(Resource::Core).maximum };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    // Restores the default action, which Rust's runtime (PIPE, SEGV, BUS) or the parent may have changed,
    // unblocks the signal and raises it.
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    // Still alive: signal-hook does not know the signal (a real-time one), or takes it for harmless (IO).
    let _ = signal_hook::low_level::raise(signal);
    // This signal does not end a process.
    code
}

/// Whether this is process 1 of a container. No signal with its default action ends that, not even its own.
fn is_init() -> bool {
    rustix::process::getpid().is_init()
}

/// Prints the answer to `--status` or `--ping`.
fn answer(socket: &Path, answer: Result<String, Error>) -> ExitCode {
    match answer {
        Ok(text) => exit_after_printing(&text),
        // No program ran, and the code of the error would stand for one.
        Err(error @ Error::Failed { .. }) => {
            complain(&format!("{}: {error}", socket.display()));
            ExitCode::from(EXIT_SYSTEM)
        }
        Err(error) => fail(socket, &error),
    }
}

fn fail(socket: &Path, error: &Error) -> ExitCode {
    match error {
        // The reader of the output has gone. Any filter dies of PIPE then.
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
            complain(&format!("{}: {error}; check whether the daemon still runs, and its log", socket.display()));
        }
        _ => complain(&format!("{}: {error}", socket.display())),
    }
    ExitCode::from(EXIT_SYSTEM)
}

/// Ends this process after an `error` from the daemon, by the table in `docs/protocol.md`.
fn end_after(failure: &Failure, status: Option<ExitStatus>) -> ExitCode {
    let code = match &failure.code {
        ErrorCode::NotFound => 127,
        ErrorCode::NotExecutable | ErrorCode::Denied | ErrorCode::Forbidden => 126,
        ErrorCode::Busy | ErrorCode::SpawnFailed | ErrorCode::Internal => 125,
        ErrorCode::BadRequest => EXIT_SYSTEM,
        // The codes that cut a program. The test of the table fails if it has no row for a new code.
        _ => match status {
            Some(status) if !status.success() => return end_like(status),
            Some(_) => EXIT_CUT,
            None if failure.code == ErrorCode::Timeout => EXIT_CUT,
            None => 125,
        },
    };
    ExitCode::from(code)
}

/// Ignores errors: there is no other place to report them.
fn complain(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "sockexec-client: {message}");
}

fn exit_after_printing(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_SYSTEM),
    }
}

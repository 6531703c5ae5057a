//! The client's command: arguments, then [`sockexec::Command`], then the program's own end.
//!
//! In version 1 of the protocol INT, TERM, HUP and QUIT need no handler. What they do by default is what is wanted: this process
//! dies of them, whereby the kernel closes the connection, and the daemon ends the program. There is no
//! moment in which that does not hold, and where the starter ignores one of them (`nohup`) so does
//! this. In version 2 they are forwarded, and end this process only where that fails: see [`signals`].
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

/// There is no status: no connection, or it was lost; or the request was refused.
const EXIT_SYSTEM: u8 = 111;

/// The program was cut and nevertheless exited with 0, as timeout(1) has it.
const EXIT_CUT: u8 = 124;

/// Where the socket is if `-` is given for it.
const SOCKET_VARIABLE: &str = "SOCKEXEC_SOCKET";

/// How long `--ping` waits for the daemon: with all else less than a second.
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
    // Version 1 and questions need no handler otherwise; in version 2 there is one anyway.
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

/// Where a person looks on, a wait is reported.
fn tell_of_waiting(command: &mut Command, socket: &Path) {
    if !io::stderr().is_terminal() {
        return;
    }
    let socket = socket.display().to_string();
    command.on_wait(move |waiting| {
        // The terminal may be raw.
        let message = format!("sockexec-client: {socket}: waiting: {waiting}\r\n");
        // On a thread, as the terminal may take nothing (`^S`). Without one it is not told.
        let tell = move || drop(io::stderr().lock().write_all(message.as_bytes()));
        let _ = thread::Builder::new().name("notice".to_owned()).spawn(tell);
    });
}

/// What came of a program, and what it took.
struct Run {
    end: Result<ExitStatus, Error>,
    usage: Option<Usage>,
    time: Duration,
}

/// Runs a program in version 2: signals go to it, and so do keys if it has a terminal. `keys`: whose they are once it has started.
fn run(mut command: Command, keys: Option<Keys>) -> Run {
    let begin = Instant::now();
    let failed = |error| Run { end: Err(error), usage: None, time: begin.elapsed() };
    // Before the program, so that none of them finds it without us.
    let signals = match signals::Caught::new(keys.is_some()) {
        Ok(signals) => signals,
        Err(error) => return failed(Error::Io("cannot catch signals", error)),
    };
    // Only for as long as there is a program; restored on every way out of this function, a panic included.
    let raw = keys.map(|keys| RawMode::begin(if keys == Keys::None { Keys::Signals } else { keys }));
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return failed(error),
    };
    // And with it standard input, which the child has now: see `stdin`.
    drop(command);
    signals.forward(child.handle());
    if let Some(keys) = keys {
        // It may have changed since the request was made; only now are changes followed.
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
    terminal::restore_for_good();
    // What a shell would show.
    let code = ExitCode::from(u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX));
    if is_init() {
        return code;
    }
    // The program has dumped its core, if any; one of this would only be in its way.
    let none = Rlimit { current: Some(0), maximum: rustix::process::getrlimit(Resource::Core).maximum };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    // Restores the default, which Rust's runtime (PIPE, SEGV, BUS) or the starter may have changed,
    // unblocks the signal and raises it.
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    // Still here: a signal that it does not know (a real-time one), or takes for harmless (IO).
    let _ = signal_hook::low_level::raise(signal);
    // Nothing dies of this one here.
    code
}

/// Whether this is process 1 of a container: no signal ends it whose action is the default, not even one of its own.
fn is_init() -> bool {
    rustix::process::getpid().is_init()
}

/// What the daemon said of itself, or did not.
fn answer(socket: &Path, answer: Result<String, Error>) -> ExitCode {
    match answer {
        Ok(text) => exit_after_printing(&text),
        // There is no program that its code could be about.
        Err(error @ Error::Failed { .. }) => {
            complain(&format!("{}: {error}", socket.display()));
            ExitCode::from(EXIT_SYSTEM)
        }
        Err(error) => fail(socket, &error),
    }
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
        // Those that cut a program. The test of the table has a row for each code, one that is new as well.
        _ => match status {
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

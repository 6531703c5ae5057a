//! The daemon's command: arguments, then [`sockexec::Daemon`], then an exit code.
#![forbid(unsafe_code)]

mod arguments;
mod log;

use std::io::Write as _;
use std::os::fd::{OwnedFd, RawFd};
use std::process::ExitCode;
use std::str::FromStr;

use arguments::{Arguments, TermSigForm, Threshold};
use sockexec::daemon::{Activation, Builder, IdentityError, Listener, Supervisor};
use sockexec::{Daemon, TermSig, daemon};

/// Wrong arguments.
const EXIT_USAGE: u8 = 100;

/// The system refused something.
const EXIT_SYSTEM: u8 = 111;

fn main() -> ExitCode {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            let _ = error.print();
            return ExitCode::from(EXIT_USAGE);
        }
        Err(help) => return exit_after_printing(&help.to_string()),
    };
    let threshold = if arguments.debug { Threshold::Debug } else { arguments.log_level };
    log::start(threshold, arguments.log_format, arguments.log_time);
    let status = serve(&arguments);
    ::log::logger().flush();
    status
}

fn serve(arguments: &Arguments) -> ExitCode {
    // Before the fork: the variables name this process by its number.
    let supervisor = Supervisor::from_env();
    let activation = match Activation::from_env() {
        Ok(activation) => activation,
        Err(error) => {
            ::log::error!("cannot take the sockets of LISTEN_FDS: {error}");
            return ExitCode::from(EXIT_SYSTEM);
        }
    };
    if arguments.socket.is_none() && arguments.listen_fd.is_empty() && activation.is_empty() {
        let _ = Arguments::missing_socket().print();
        return ExitCode::from(EXIT_USAGE);
    }
    match daemon::leave_init() {
        Ok(None) => {}
        Ok(Some(status)) => return ExitCode::from(status),
        Err(error) => {
            ::log::error!("cannot fork, which PID 1 must do: {error}");
            return ExitCode::from(EXIT_SYSTEM);
        }
    }
    daemon::forget_inheritance();
    match run(arguments, activation, supervisor) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ::log::error!("{error}");
            ExitCode::from(EXIT_SYSTEM)
        }
    }
}

fn run(
    arguments: &Arguments,
    activation: Activation,
    supervisor: Option<Supervisor>,
) -> Result<(), Box<dyn std::error::Error>> {
    // No `..`: a new option does not compile until it is decided here.
    let Arguments {
        socket,
        replace,
        listen_fd,
        notification_fd,
        max_queue,
        max_connections,
        max_per_user,
        max_waiting,
        request_timeout,
        timeout,
        kill_timeout,
        drain,
        mode,
        owner,
        user,
        linger,
        spool,
        spool_total,
        termsig,
        log_level: _,
        debug: _,
        log_format: _,
        log_time: _,
        version: _,
        help: _,
    } = arguments;
    let mut listeners = activation.take()?;
    for &number in listen_fd {
        listeners.push(Listener::from(take("--listen-fd", number)?).numbered(number));
    }
    let notification = notification_fd.map(|number| take("--notification-fd", number)).transpose()?;
    let builder = Daemon::builder()
        .backlog(*max_queue)
        .max_connections(usize::try_from(*max_connections)?)
        .max_waiting(usize::try_from(*max_waiting)?)
        .max_per_user(max_per_user.map(usize::try_from).transpose()?)
        .request_timeout(Some(*request_timeout).filter(|timeout| !timeout.is_zero()))
        .timeout(Some(*timeout).filter(|timeout| !timeout.is_zero()))
        .kill_timeout(*kill_timeout)
        .mode(*mode)
        .owner(find("--owner", owner.as_deref())?)
        .user(find("--user", user.as_deref())?)
        .replace(*replace)
        .linger(*linger)
        .drain(*drain)
        .spool(*spool)
        .spool_total(*spool_total)
        .termsig(match *termsig {
            TermSigForm::Number => TermSig::Number,
            TermSigForm::Name => TermSig::Name,
        })
        .handle_signals(true)
        .supervisor(supervisor)
        .notification(notification)
        .program_descriptors(daemon::raise_descriptor_limit());
    let builder = listeners.into_iter().fold(builder, Builder::listener);
    let daemon = match socket {
        Some(path) => builder.bind(path)?,
        None => builder.build()?,
    };
    Ok(daemon.run()?)
}

/// Takes the descriptor that an option names.
fn take(option: &str, number: RawFd) -> Result<OwnedFd, String> {
    daemon::take_descriptor(number).map_err(|error| format!("{option} {number}: {error}"))
}

/// Looks up the user or group that an option names.
fn find<T: FromStr<Err = IdentityError>>(option: &str, text: Option<&str>) -> Result<Option<T>, String> {
    text.map(|text| text.parse().map_err(|error| format!("{option}: {error}"))).transpose()
}

fn exit_after_printing(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_SYSTEM),
    }
}

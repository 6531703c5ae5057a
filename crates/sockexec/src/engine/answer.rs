//! What the client is told besides the program's output, in its version of the protocol.

use sockexec_proto::{BadRequest, ErrorCode, Exit, Signal, Stream, Usage, Version, reply};

use super::TermSig;
use super::io::{ExitStatus, StartError, StartErrorKind};
use crate::signals;

/// The exit code of a request that failed through no fault of the program.
const EXIT_FAILURE: u8 = 125;

/// The answer to a request whose place another connection needs.
const BUSY: &str = "too many requests wait; nothing was started";

/// The answer to a request that the daemon does not carry out because it is shutting down.
const SHUTDOWN: &str = "the daemon is shutting down; nothing was started";

/// Why a program is cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Cut {
    Deadline,
    Shutdown,
}

/// In place of the program's output and exit: the request is invalid.
pub(super) fn bad_request(version: Version, error: &BadRequest) -> Vec<u8> {
    match version {
        Version::One => in_place_of_output(format!("sockexec: bad request: {error}\n").as_bytes(), EXIT_FAILURE),
        Version::Two => failure(&ErrorCode::BadRequest, error.to_string().as_bytes()),
    }
}

/// In place of the program's output and exit: there is no program.
pub(super) fn cannot_start(version: Version, program: &[u8], error: &StartError) -> Vec<u8> {
    let exit_code = match error.kind {
        StartErrorKind::NotFound => 127,
        StartErrorKind::NotExecutable | StartErrorKind::Denied => 126,
        StartErrorKind::Failed | StartErrorKind::Lost => EXIT_FAILURE,
    };
    let about = error.about.as_deref().unwrap_or(program);
    let text = [about, b": ", error.reason.as_bytes()].concat();
    match version {
        Version::One => in_place_of_output(&[b"sockexec: ", text.as_slice(), b"\n"].concat(), exit_code),
        Version::Two => failure(&error.kind.code(), &text),
    }
}

/// In place of the program's exit and the rest of its output: the daemon has lost them.
pub(super) fn broken(version: Version, program: &[u8], reason: &str) -> Vec<u8> {
    let text = [program, b": ", reason.as_bytes()].concat();
    match version {
        Version::One => in_place_of_output(&[b"sockexec: ", text.as_slice(), b"\n"].concat(), EXIT_FAILURE),
        Version::Two => failure(&ErrorCode::Internal, &text),
    }
}

/// Why a version 2 reply is cut short. `running`: there is, or may be, a program.
pub(super) fn cut(cut: Cut, running: bool) -> Vec<u8> {
    let (code, text) = match (cut, running) {
        (Cut::Deadline, true) => (ErrorCode::Timeout, "the deadline has come; the program is ended"),
        (Cut::Deadline, false) => (ErrorCode::Timeout, "the request was not complete in time"),
        (Cut::Shutdown, true) => (ErrorCode::Shutdown, "the daemon is shutting down; the program is ended"),
        (Cut::Shutdown, false) => (ErrorCode::Shutdown, SHUTDOWN),
    };
    failure(&code, text.as_bytes())
}

/// In place of everything: there will be no program. Version 1 has words only for a shutdown.
pub(super) fn unserved(version: Version, why: Cut) -> Vec<u8> {
    match version {
        Version::One => in_place_of_output(format!("sockexec: {SHUTDOWN}\n").as_bytes(), EXIT_FAILURE),
        Version::Two => cut(why, false),
    }
}

/// In place of everything: another connection needs the place, and nothing was started.
pub(super) fn busy(version: Version) -> Vec<u8> {
    match version {
        Version::One => in_place_of_output(format!("sockexec: {BUSY}\n").as_bytes(), EXIT_FAILURE),
        Version::Two => failure(&ErrorCode::Busy, BUSY.as_bytes()),
    }
}

/// How the daemon introduces itself to a version 2 client that gets this window, in bytes.
pub(super) fn introduction(window: u64) -> Vec<u8> {
    encoded(|out| reply::encode_introduction(window, out))
}

/// This many requests wait for a slot.
pub(super) fn queued(requests: u64) -> Vec<u8> {
    encoded(|out| reply::encode_queued(requests, out))
}

/// This many bytes of standard input have left the daemon.
pub(super) fn taken(bytes: u64) -> Vec<u8> {
    encoded(|out| reply::encode_taken(bytes, out))
}

/// The program has closed its standard input.
pub(super) fn input_closed() -> Vec<u8> {
    encoded(reply::encode_input_closed)
}

/// The program was executed.
pub(super) fn started(pid: u32) -> Vec<u8> {
    encoded(|out| reply::encode_started(pid, out))
}

/// Nothing more of this stream will come.
pub(super) fn end_of(stream: Stream) -> Vec<u8> {
    encoded(|out| reply::encode_end_of(stream, out))
}

/// The answer to a request for the status.
pub(super) fn status(json: &[u8]) -> Vec<u8> {
    encoded(|out| reply::encode_pair(reply::STATUS, json, out))
}

/// How the program ended. In version 2 its resource usage comes before that, if the system reports it.
pub(super) fn ended(version: Version, termsig: TermSig, status: ExitStatus, usage: Option<&Usage>) -> Vec<u8> {
    let exit = match (status, version, termsig) {
        (ExitStatus::Code(code), _, _) => Exit::Code(code),
        (ExitStatus::Signal(number), Version::One, TermSig::Name) => Exit::Signal(named(number)),
        (ExitStatus::Signal(number), Version::One, TermSig::Number) | (ExitStatus::Signal(number), Version::Two, _) => {
            Exit::Signal(Signal::Number(number))
        }
    };
    encoded(|out| {
        if let Some(usage) = usage
            && version == Version::Two
        {
            reply::encode_usage(usage, out);
        }
        reply::encode_exit(&exit, out);
    })
}

/// As version 1 has always done it: two signals that only Linux has go by number.
fn named(number: i32) -> Signal {
    match signals::name(number).filter(|name| !matches!(*name, "PWR" | "STKFLT")) {
        Some(name) => Signal::Name(name.into()),
        None => Signal::Number(number),
    }
}

fn in_place_of_output(text: &[u8], code: u8) -> Vec<u8> {
    encoded(|out| {
        reply::encode_pair(Stream::Stderr.tag(), text, out);
        reply::encode_exit(&Exit::Code(code), out);
    })
}

fn failure(code: &ErrorCode, text: &[u8]) -> Vec<u8> {
    encoded(|out| reply::encode_error(code, text, out))
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    bytes
}

/// The highest number of a signal.
const MAX_SIGNAL: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 64 } else { 31 };

/// The number of a signal that a client names; `None`: there is no such signal.
pub(super) fn signal_number(signal: &Signal) -> Option<i32> {
    match signal {
        Signal::Number(number) => Some(*number).filter(|number| (1..=MAX_SIGNAL).contains(number)),
        Signal::Name(name) => signals::number(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_found_by_number_and_by_name() {
        let name = |name: &str| signal_number(&Signal::Name(name.into()));
        assert_eq!((name("TERM"), name("INT"), name("KILL"), name("HUP")), (Some(15), Some(2), Some(9), Some(1)));
        for unknown in ["", "term", "SIGTERM", "TERMINATE", "15", "CLD"] {
            assert_eq!(name(unknown), None, "{unknown}");
        }
        let number = |number| signal_number(&Signal::Number(number));
        assert_eq!((number(1), number(31), number(0), number(-9)), (Some(1), Some(31), None, None));
        assert_eq!((number(MAX_SIGNAL), number(MAX_SIGNAL + 1)), (Some(MAX_SIGNAL), None));
    }

    #[test]
    fn version_1_names_signals_as_it_always_has() {
        for number in 0..=MAX_SIGNAL + 1 {
            let expected = match signal_hook::low_level::signal_name(number) {
                Some(name) => Signal::Name(name.trim_start_matches("SIG").into()),
                None => Signal::Number(number),
            };
            assert_eq!(named(number), expected);
        }
    }

    /// Version 2 names the cause. Version 1 has three exit codes for it, as a shell has (`docs/protocol.md`).
    #[test]
    fn a_program_that_does_not_start_is_blamed_on_the_right_party() {
        for (kind, exit_code, code) in [
            (StartErrorKind::NotFound, 127, "not-found"),
            (StartErrorKind::NotExecutable, 126, "not-executable"),
            (StartErrorKind::Denied, 126, "denied"),
            (StartErrorKind::Failed, 125, "spawn-failed"),
            (StartErrorKind::Lost, 125, "internal"),
        ] {
            let error = StartError { kind, about: None, reason: "why".into() };
            let one = format!("6:stderr,17:sockexec: a: why\n,8:exitcode,3:{exit_code},");
            assert_eq!(
                cannot_start(Version::One, b"a", &error).escape_ascii().to_string(),
                one.escape_default().to_string()
            );
            let two = format!("{code} a: why");
            let two = format!("5:error,{}:{two},", two.len());
            assert_eq!(cannot_start(Version::Two, b"a", &error).escape_ascii().to_string(), two);
        }
        let about = Some(b"/there".to_vec());
        let error = StartError { kind: StartErrorKind::Denied, about, reason: "why".into() };
        assert_eq!(
            cannot_start(Version::Two, b"a", &error).escape_ascii().to_string(),
            "5:error,18:denied /there: why,"
        );
    }
}

//! How a program ended.

use std::os::unix::process::ExitStatusExt as _;
use std::{fmt, io, process};

use sockexec_proto::{Exit, Signal as Told};

use crate::signals;

/// How a program ended: with an exit code, or by a signal.
///
/// Like [`std::process::ExitStatus`] on UNIX, without what the protocol does not report (whether a core was
/// dumped). Codes 125, 126 and 127 may be the daemon's, which then says why on standard error: it could not
/// start the program, the program is not executable, or was not found.
///
/// The default is success: code 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ExitStatus(Ending);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ending {
    Code(u8),
    /// `None`: a signal whose name has no number here.
    Signal(Option<i32>),
}

impl Default for Ending {
    fn default() -> Self {
        Self::Code(0)
    }
}

impl ExitStatus {
    pub(super) fn new(exit: &Exit) -> Self {
        Self(match exit {
            Exit::Code(code) => Ending::Code(*code),
            Exit::Signal(Told::Number(number)) => Ending::Signal(Some(*number)),
            Exit::Signal(Told::Name(name)) => Ending::Signal(number(name)),
        })
    }

    /// Whether the program exited with code 0.
    #[must_use]
    pub const fn success(self) -> bool {
        matches!(self.0, Ending::Code(0))
    }

    /// The exit code, 0 to 255; `None` if a signal ended the program.
    #[must_use]
    pub const fn code(self) -> Option<i32> {
        match self.0 {
            Ending::Code(code) => Some(code as i32),
            Ending::Signal(_) => None,
        }
    }

    /// The number of the signal that ended the program; `None` if it exited with a code.
    ///
    /// sockexec 3.1.1 reports a name, and `???` for a signal that it does not know (a real-time signal). Then
    /// this is `None`, as [`code`](Self::code) is.
    #[must_use]
    pub const fn signal(self) -> Option<i32> {
        match self.0 {
            Ending::Code(_) => None,
            Ending::Signal(number) => number,
        }
    }

    /// An error unless the program exited with code 0, for `?`.
    ///
    /// # Errors
    /// The program exited with another code, or a signal ended it.
    pub const fn exit_ok(self) -> Result<(), ExitStatusError> {
        if self.success() { Ok(()) } else { Err(ExitStatusError(self)) }
    }

    /// The same as a status of the standard library, for functions that take one. `None`: the signal has no
    /// number here (see [`signal`](Self::signal)), or one beyond what a status can hold (126).
    #[must_use]
    pub fn to_std(self) -> Option<process::ExitStatus> {
        // As wait(2) encodes it: 127 in the low bits is a program that has stopped.
        let raw = match self.0 {
            Ending::Code(code) => i32::from(code) << 8,
            Ending::Signal(Some(number @ 1..=126)) => number,
            Ending::Signal(_) => return None,
        };
        Some(process::ExitStatus::from_raw(raw))
    }
}

/// A program that did not exit with code 0, as an error: [`ExitStatus::exit_ok`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExitStatusError(ExitStatus);

impl ExitStatusError {
    /// The exit code, 1 to 255; `None` if a signal ended the program.
    #[must_use]
    pub const fn code(self) -> Option<i32> {
        self.0.code()
    }

    /// How the program ended.
    #[must_use]
    pub const fn into_status(self) -> ExitStatus {
        self.0
    }
}

impl fmt::Display for ExitStatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the program exited unsuccessfully: {}", self.0)
    }
}

impl std::error::Error for ExitStatusError {}

impl From<ExitStatusError> for ExitStatus {
    fn from(error: ExitStatusError) -> Self {
        error.0
    }
}

/// For functions that return [`io::Error`].
impl From<ExitStatusError> for io::Error {
    fn from(error: ExitStatusError) -> Self {
        Self::other(error)
    }
}

/// As the standard library shows it: `exit status: 1`, `signal: 15 (SIGTERM)`.
impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ending::Code(code) => write!(f, "exit status: {code}"),
            Ending::Signal(None) => f.write_str("signal: unknown"),
            Ending::Signal(Some(number)) => match signals::name(number) {
                Some(name) => write!(f, "signal: {number} (SIG{name})"),
                None => write!(f, "signal: {number}"),
            },
        }
    }
}

/// Other names of the same signals. Which of two 3.1.1 reports depends on how it was built.
const ALIASES: &[(&str, &str)] = &[("IOT", "ABRT"), ("CLD", "CHLD"), ("POLL", "IO")];

fn number(name: &[u8]) -> Option<i32> {
    let alias = ALIASES.iter().find(|(alias, _)| alias.as_bytes() == name);
    signals::number(alias.map_or(name, |(_, name)| name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_signals() {
        let zero = ExitStatus::new(&Exit::Code(0));
        assert!(zero.success());
        assert_eq!((zero.code(), zero.signal(), zero.to_string()), (Some(0), None, "exit status: 0".to_owned()));
        let last = ExitStatus::new(&Exit::Code(255));
        assert!(!last.success());
        assert_eq!((last.code(), last.signal()), (Some(255), None));
        let term = ExitStatus::new(&Exit::Signal(Told::Number(15)));
        assert!(!term.success());
        assert_eq!((term.code(), term.signal()), (None, Some(15)));
        assert_eq!(term.to_string(), "signal: 15 (SIGTERM)");
    }

    /// What the standard library prints, number by number.
    #[test]
    fn shown_as_the_standard_library_does() {
        use std::os::unix::process::ExitStatusExt as _;
        for code in 0..=255_u8 {
            let std = std::process::ExitStatus::from_raw(i32::from(code) << 8);
            assert_eq!(ExitStatus::new(&Exit::Code(code)).to_string(), std.to_string());
        }
        for number in (1..=15).chain([24, 25, 26, 27, 31]) {
            let std = std::process::ExitStatus::from_raw(number);
            assert_eq!(ExitStatus::new(&Exit::Signal(Told::Number(number))).to_string(), std.to_string());
        }
    }

    #[test]
    fn as_the_standard_library_has_it() {
        use std::os::unix::process::ExitStatusExt as _;
        for code in 0..=255_u8 {
            let ours = ExitStatus::new(&Exit::Code(code));
            let std = ours.to_std().unwrap();
            assert_eq!((std.code(), std.signal(), std.success()), (ours.code(), None, ours.success()));
        }
        for number in 1..=126 {
            let std = ExitStatus::new(&Exit::Signal(Told::Number(number))).to_std().unwrap();
            assert_eq!((std.code(), std.signal(), std.core_dumped()), (None, Some(number), false));
            assert_eq!(std.stopped_signal(), None);
        }
        for number in [127, 128, 137, i32::MAX] {
            assert_eq!(ExitStatus::new(&Exit::Signal(Told::Number(number))).to_std(), None);
        }
        assert_eq!(ExitStatus::new(&Exit::Signal(Told::Name(b"???".to_vec()))).to_std(), None);
        assert_eq!(ExitStatus::default().to_std(), Some(process::ExitStatus::default()));
    }

    #[test]
    fn an_error_unless_it_succeeded() {
        assert_eq!(ExitStatus::default().exit_ok(), Ok(()));
        for (exit, words) in [(Exit::Code(3), "exit status: 3"), (Exit::Signal(Told::Number(9)), "signal: 9 (SIGKILL)")]
        {
            let status = ExitStatus::new(&exit);
            let error = status.exit_ok().unwrap_err();
            assert_eq!((error.code(), error.into_status(), ExitStatus::from(error)), (status.code(), status, status));
            assert_eq!(error.to_string(), format!("the program exited unsuccessfully: {words}"));
            assert_eq!(io::Error::from(error).to_string(), error.to_string());
        }
    }

    #[test]
    fn names_of_3_1_1() {
        let told = |name: &str| ExitStatus::new(&Exit::Signal(Told::Name(name.as_bytes().to_vec())));
        for (name, number) in [("TERM", 15), ("KILL", 9), ("IOT", 6), ("ABRT", 6), ("SEGV", 11), ("HUP", 1)] {
            assert_eq!(told(name).signal(), Some(number), "{name}");
        }
        let unknown = told("???");
        assert!(!unknown.success());
        assert_eq!((unknown.code(), unknown.signal()), (None, None));
        assert_eq!(unknown.to_string(), "signal: unknown");
    }
}

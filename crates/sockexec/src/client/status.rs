//! How a program ended.

use std::fmt;

use sockexec_proto::{Exit, Signal as Told};

use crate::signals;

/// How a program ended: with an exit code, or by a signal.
///
/// Like [`std::process::ExitStatus`] on UNIX, less what the protocol does not tell (whether a core was
/// dumped). Codes 125, 126 and 127 may be the daemon's, which then says why on standard error: it could
/// not start the program, the program is not executable, or was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExitStatus(Ending);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ending {
    Code(u8),
    /// `None`: by a signal whose name has no number here.
    Signal(Option<i32>),
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
    /// sockexec 3.1.1 tells a name, and for a signal that it does not know (a real-time signal) `???`:
    /// then this is `None`, as [`code`](Self::code) is.
    #[must_use]
    pub const fn signal(self) -> Option<i32> {
        match self.0 {
            Ending::Code(_) => None,
            Ending::Signal(number) => number,
        }
    }
}

/// As the standard library has it: `exit status: 1`, `signal: 15 (SIGTERM)`.
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

/// Other names of the same signals. Which of two 3.1.1 tells depends on how it was built.
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

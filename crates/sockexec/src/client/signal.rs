//! The signals that a program can be sent.

use std::fmt;
use std::str::FromStr;

use crate::signals;

/// A signal, by its number.
///
/// The named constants have the numbers of the system that this was compiled for. A plain number works too:
/// `child.signal(15)` and `child.signal(Signal::TERM)` are the same.
///
/// ```
/// use sockexec::Signal;
///
/// assert_eq!(Signal::TERM.to_string(), "SIGTERM");
/// assert_eq!("SIGTERM".parse(), Ok(Signal::TERM));
/// assert_eq!(Signal::from_name("TERM"), Some(Signal::TERM));
/// assert_eq!(Signal::from(9).name(), Some("KILL"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

macro_rules! constants {
    ($($(#[$cfg:meta])? $name:ident = $rustix:ident, $what:literal;)*) => {
        impl Signal {$(
            #[doc = $what]
            $(#[$cfg])?
            pub const $name: Self = Self(rustix::process::Signal::$rustix.as_raw());
        )*}

        /// All constants, for the test that none is missing.
        #[cfg(test)]
        const ALL: &[(&str, Signal)] = &[$($(#[$cfg])? (stringify!($name), Signal::$name)),*];
    };
}

constants! {
    ABRT = ABORT, "`SIGABRT`: abort(3) was called.";
    ALRM = ALARM, "`SIGALRM`: a timer of alarm(2) has run out.";
    BUS = BUS, "`SIGBUS`: a bad memory access.";
    CHLD = CHILD, "`SIGCHLD`: a child has stopped or ended.";
    CONT = CONT, "`SIGCONT`: go on after a stop.";
    FPE = FPE, "`SIGFPE`: an arithmetic error.";
    HUP = HUP, "`SIGHUP`: the terminal is gone; daemons often read their configuration again.";
    ILL = ILL, "`SIGILL`: a bad instruction.";
    INT = INT, "`SIGINT`: what `^C` sends.";
    IO = IO, "`SIGIO`: input or output is possible.";
    KILL = KILL, "`SIGKILL`: ends the program, which can neither handle nor ignore it.";
    PIPE = PIPE, "`SIGPIPE`: a write to a pipe that nobody reads.";
    PROF = PROF, "`SIGPROF`: the profiling timer has run out.";
    #[cfg(any(target_os = "linux", target_os = "android"))]
    PWR = POWER, "`SIGPWR`: the power fails. Linux only.";
    QUIT = QUIT, "`SIGQUIT`: what `^\\` sends.";
    SEGV = SEGV, "`SIGSEGV`: an access to memory that does not exist.";
    #[cfg(any(target_os = "linux", target_os = "android"))]
    STKFLT = STKFLT, "`SIGSTKFLT`: a coprocessor's stack fault; unused. Linux only.";
    STOP = STOP, "`SIGSTOP`: stops the program, which can neither handle nor ignore it.";
    SYS = SYS, "`SIGSYS`: a bad system call, or one that a filter refuses.";
    TERM = TERM, "`SIGTERM`: asks the program to end.";
    TRAP = TRAP, "`SIGTRAP`: a breakpoint.";
    TSTP = TSTP, "`SIGTSTP`: what `^Z` sends.";
    TTIN = TTIN, "`SIGTTIN`: a background job reads the terminal.";
    TTOU = TTOU, "`SIGTTOU`: a background job writes to the terminal.";
    URG = URG, "`SIGURG`: urgent data on a socket.";
    USR1 = USR1, "`SIGUSR1`: has the meaning that the program gives it.";
    USR2 = USR2, "`SIGUSR2`: has the meaning that the program gives it.";
    VTALRM = VTALARM, "`SIGVTALRM`: the timer of the program's own processor time has run out.";
    WINCH = WINCH, "`SIGWINCH`: the terminal was resized.";
    XCPU = XCPU, "`SIGXCPU`: more processor time than `RLIMIT_CPU` allows.";
    XFSZ = XFSZ, "`SIGXFSZ`: a larger file than `RLIMIT_FSIZE` allows.";
}

impl Signal {
    /// The signal of this name, with or without `SIG`, in capitals. Real-time signals have numbers only.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        signals::number(name.strip_prefix("SIG").unwrap_or(name).as_bytes()).map(Self)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Its name without `SIG`, if it has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        signals::name(self.0)
    }
}

/// Accepts any number; whether there is such a signal shows when it is sent.
impl From<i32> for Signal {
    fn from(number: i32) -> Self {
        Self(number)
    }
}

impl From<Signal> for i32 {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}

/// Accepts a name with or without `SIG`, or a number above 0.
impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        let number = || text.parse().ok().filter(|&number: &i32| number > 0).map(Self);
        Self::from_name(text).or_else(number).ok_or_else(|| UnknownSignal(text.to_owned()))
    }
}

/// `SIGTERM`, or the number of a signal without a name.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "SIG{name}"),
            None => self.0.fmt(f),
        }
    }
}

/// `Signal(15, SIGTERM)`.
impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuple = f.debug_tuple("Signal");
        tuple.field(&self.0);
        if let Some(name) = self.name() {
            tuple.field(&format_args!("SIG{name}"));
        }
        tuple.finish()
    }
}

/// A text that is neither the name nor the number of a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownSignal(String);

impl fmt::Display for UnknownSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown signal \"{}\"; give its name, such as TERM, or its number", self.0.escape_debug())
    }
}

impl std::error::Error for UnknownSignal {}

#[cfg(test)]
mod tests {
    use super::*;

    /// One constant for each row of the table, and no other.
    #[test]
    fn every_name_has_a_constant() {
        let known: Vec<(&str, i32)> = signals::NAMES.iter().map(|&(name, signal)| (name, signal.as_raw())).collect();
        let constants: Vec<(&str, i32)> = ALL.iter().map(|&(name, signal)| (name, signal.number())).collect();
        assert_eq!(constants, known);
    }

    #[test]
    fn names_and_numbers() {
        for &(name, signal) in ALL {
            for text in [name.to_owned(), format!("SIG{name}"), signal.number().to_string(), signal.to_string()] {
                assert_eq!(text.parse(), Ok(signal), "{text}");
            }
            assert_eq!((Signal::from_name(name), signal.name()), (Some(signal), Some(name)));
        }
        for text in ["", "SIG", "term", "SIGSIGTERM", "0", "-1", "1.5", " 9", "99999999999", "TERM\0"] {
            let error = text.parse::<Signal>().expect_err(text);
            assert!(error.to_string().contains(&format!("{}", text.escape_debug())), "{error}");
        }
        let nameless = Signal::from(64);
        assert_eq!(
            (nameless.name(), nameless.to_string(), format!("{nameless:?}")),
            (None, "64".into(), "Signal(64)".into())
        );
        assert_eq!((format!("{:?}", Signal::KILL), i32::from(Signal::KILL)), ("Signal(9, SIGKILL)".into(), 9));
    }
}

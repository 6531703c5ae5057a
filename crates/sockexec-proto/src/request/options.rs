//! The options, which come before the arguments of a version 2 request.

use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::error::{BadRequest, BadRequestKind};
use crate::netstring;
use crate::number;
use crate::text::Text;

/// The first netstring of a version 2 request. A version 1 request begins with a number.
pub const PROTOCOL: &[u8] = b"protocol=2";

/// How the first netstring of every later version begins.
pub(super) const PROTOCOL_NAME: &[u8] = b"protocol=";

/// The option that asks about the daemon instead of running a program.
pub const STATUS: &str = "status";

/// The most options that a request may have. An option for the environment costs the daemon more than
/// an argument.
pub const MAX_OPTIONS: usize = 4096;

/// How many bytes of an invalid option an error keeps.
pub(super) const SHOWN: usize = 64;

/// The size of a terminal, in characters. 0 stands for an unknown size, as for `TIOCSWINSZ`
/// (`ioctl_tty(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WindowSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

impl WindowSize {
    /// Reads `COLSxROWS`: two decimal numbers from 0 to 65535.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let cross = bytes.iter().position(|&byte| byte == b'x')?;
        let (columns, rows) = (bytes.get(..cross)?, bytes.get(cross + 1..)?);
        Some(Self { columns: number::decimal(columns)?, rows: number::decimal(rows)? })
    }
}

/// `COLSxROWS`, as on the wire.
impl fmt::Display for WindowSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.columns, self.rows)
    }
}

/// A change to the program's environment. Changes are applied in order, starting from the daemon's own
/// environment.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum EnvironmentChange {
    /// `env=NAME=VALUE`: the name has at least one byte and no `=`. Neither has a NUL byte.
    Set(Vec<u8>, Vec<u8>),
    /// `unsetenv=NAME`: the name as above.
    Unset(Vec<u8>),
    /// `clearenv`: removes every variable.
    Clear,
}

impl fmt::Debug for EnvironmentChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(name, value) => f.debug_tuple("Set").field(&Text(name)).field(&Text(value)).finish(),
            Self::Unset(name) => f.debug_tuple("Unset").field(&Text(name)).finish(),
            Self::Clear => f.write_str("Clear"),
        }
    }
}

/// How a version 2 request wants its program to run. The default is what version 1 does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Options {
    /// `cwd=PATH`: the program's working directory; not empty. A relative one begins at the daemon's.
    pub directory: Option<CString>,
    /// `env=NAME=VALUE`, `unsetenv=NAME` and `clearenv`, in their order.
    pub environment: Vec<EnvironmentChange>,
    /// `timeout=SECONDS`: the deadline, counted from when the request got its slot, as the daemon counts
    /// its own. More than 0. Fractions of a nanosecond are dropped. A timeout of 10^18 seconds or more
    /// is not sent.
    pub timeout: Option<Duration>,
    /// `stderr=stdout`: standard error goes where standard output goes.
    pub stderr_to_stdout: bool,
    /// `pty=COLSxROWS`: the program has a terminal of this size.
    pub pty: Option<WindowSize>,
    /// `utf8`: the terminal takes its input for UTF-8 when a line is edited. Needs `pty`.
    pub utf8: bool,
    /// `fds`: the program's standard streams are three descriptors that come with the request (`unix(7)`,
    /// `SCM_RIGHTS`).
    pub descriptors: bool,
}

impl Options {
    /// Appends the options as netstrings. It does not validate: the daemon does.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for spec in OPTIONS {
            (spec.write)(self, out);
        }
    }
}

/// Appends `parts` as one netstring.
fn option(parts: &[&[u8]], out: &mut Vec<u8>) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.extend_from_slice(netstring::Header::new(len as u64).as_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    out.push(netstring::TERMINATOR);
}

/// What the protocol says about one option. [`OPTIONS`] is the only list of them.
#[derive(Debug)]
#[non_exhaustive]
pub struct OptionSpec {
    /// Its name on the wire; no name begins with a digit.
    pub name: &'static str,
    /// A valid example, as on the wire.
    pub example: &'static str,
    /// Whether a value follows the name.
    pub takes_value: bool,
    /// It may be given more than once.
    repeats: bool,
    /// The options that it cannot be combined with.
    excludes: &'static [&'static str],
    /// The option that it needs.
    pub needs: Option<&'static str>,
    /// Whether it is set. Not used for options that repeat.
    is_set: fn(&Options) -> bool,
    /// Sets it from its value. `None`: the value is invalid.
    read: fn(&mut Options, &[u8]) -> Option<()>,
    /// Appends it as a netstring if it is set.
    write: fn(&Options, &mut Vec<u8>),
}

/// All options, in the order in which [`Options::encode`] writes them and the daemon names them.
///
/// `CONTRIBUTING.md` says what else a new one needs.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "cwd",
        example: "cwd=/",
        takes_value: true,
        repeats: false,
        excludes: &[],
        needs: None,
        is_set: |options| options.directory.is_some(),
        read: |options, value| {
            options.directory = Some(CString::new(value).ok().filter(|path| !path.is_empty())?);
            Some(())
        },
        write: |options, out| {
            if let Some(directory) = &options.directory {
                option(&[b"cwd=", directory.as_bytes()], out);
            }
        },
    },
    OptionSpec {
        name: "env",
        example: "env=A=b",
        takes_value: true,
        repeats: true,
        excludes: &[],
        needs: None,
        is_set: |_| false,
        read: |options, value| {
            let equals = value.iter().position(|&byte| byte == b'=').filter(|&at| at > 0)?;
            let (name, value) = (value.get(..equals)?.to_vec(), value.get(equals + 1..)?.to_vec());
            options.environment.push(EnvironmentChange::Set(name, value));
            Some(())
        },
        // Writes `unsetenv` and `clearenv` too, as their order matters.
        write: |options, out| {
            for change in &options.environment {
                match change {
                    EnvironmentChange::Set(name, value) => option(&[b"env=", name, b"=", value], out),
                    EnvironmentChange::Unset(name) => option(&[b"unsetenv=", name], out),
                    EnvironmentChange::Clear => option(&[b"clearenv"], out),
                }
            }
        },
    },
    OptionSpec {
        name: "unsetenv",
        example: "unsetenv=A",
        takes_value: true,
        repeats: true,
        excludes: &[],
        needs: None,
        is_set: |_| false,
        read: |options, value| {
            let name = Some(value).filter(|name| !name.is_empty() && !name.contains(&b'='))?;
            options.environment.push(EnvironmentChange::Unset(name.to_vec()));
            Some(())
        },
        write: |_, _| {},
    },
    OptionSpec {
        name: "clearenv",
        example: "clearenv",
        takes_value: false,
        repeats: true,
        excludes: &[],
        needs: None,
        is_set: |_| false,
        read: |options, _| {
            options.environment.push(EnvironmentChange::Clear);
            Some(())
        },
        write: |_, _| {},
    },
    OptionSpec {
        name: "timeout",
        example: "timeout=1.5",
        takes_value: true,
        repeats: false,
        excludes: &[],
        needs: None,
        is_set: |options| options.timeout.is_some(),
        read: |options, value| {
            options.timeout = Some(number::parse_seconds(value).filter(|timeout| !timeout.is_zero())?);
            Some(())
        },
        write: |options, out| {
            // A timeout too long for the grammar (30 billion years) is not sent.
            if let Some(timeout) = options.timeout.filter(|timeout| timeout.as_secs() <= number::MAX_SECONDS) {
                option(&[b"timeout=", number::format_seconds(timeout, 9).as_bytes()], out);
            }
        },
    },
    OptionSpec {
        name: "stderr",
        example: "stderr=stdout",
        takes_value: true,
        repeats: false,
        excludes: &["fds"],
        needs: None,
        is_set: |options| options.stderr_to_stdout,
        read: |options, value| {
            options.stderr_to_stdout = true;
            (value == b"stdout").then_some(())
        },
        write: |options, out| {
            if options.stderr_to_stdout {
                option(&[b"stderr=stdout"], out);
            }
        },
    },
    OptionSpec {
        name: "pty",
        example: "pty=80x24",
        takes_value: true,
        repeats: false,
        excludes: &["fds"],
        needs: None,
        is_set: |options| options.pty.is_some(),
        read: |options, value| {
            options.pty = Some(WindowSize::parse(value)?);
            Some(())
        },
        write: |options, out| {
            if let Some(size) = options.pty {
                option(&[b"pty=", format!("{size}").as_bytes()], out);
            }
        },
    },
    OptionSpec {
        name: "utf8",
        example: "utf8",
        takes_value: false,
        repeats: false,
        excludes: &[],
        needs: Some("pty"),
        is_set: |options| options.utf8,
        read: |options, _| {
            options.utf8 = true;
            Some(())
        },
        write: |options, out| {
            if options.utf8 {
                option(&[b"utf8"], out);
            }
        },
    },
    OptionSpec {
        name: "fds",
        example: "fds",
        takes_value: false,
        repeats: false,
        excludes: &["pty", "stderr"],
        needs: None,
        is_set: |options| options.descriptors,
        read: |options, _| {
            options.descriptors = true;
            Some(())
        },
        write: |options, out| {
            if options.descriptors {
                option(&[b"fds"], out);
            }
        },
    },
    OptionSpec {
        name: STATUS,
        example: STATUS,
        takes_value: false,
        // It must be the only option. `Reading` sees to that.
        repeats: true,
        excludes: &[],
        needs: None,
        is_set: |_| false,
        read: |_, _| Some(()),
        write: |_, _| {},
    },
];

/// The options read so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Reading {
    pub(super) options: Options,
    /// How many were read.
    count: usize,
    /// The last one, to be named if `status` follows.
    last: Option<&'static str>,
    /// The last one that needs another: its name, the other's, and its offset.
    needing: Option<(&'static str, &'static str, u64)>,
}

impl Reading {
    /// Whether no option was read yet.
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes the option `bytes`, which begins at `start` in the request. Returns whether it is `status`,
    /// which completes the request.
    pub(super) fn take(&mut self, bytes: &[u8], start: u64) -> Result<bool, BadRequest> {
        let at = |kind, index: usize| BadRequest { kind, offset: start + index as u64 };
        let equals = bytes.iter().position(|&byte| byte == b'=');
        let name = bytes.get(..equals.unwrap_or(bytes.len())).unwrap_or_default();
        let Some(spec) = OPTIONS.iter().find(|spec| spec.name.as_bytes() == name) else {
            return Err(at(BadRequestKind::UnknownOption(shown(name)), 0));
        };
        self.count += 1;
        if self.count > MAX_OPTIONS {
            return Err(at(BadRequestKind::TooManyOptions, 0));
        }
        if let Some(nul) = bytes.iter().position(|&byte| byte == 0) {
            return Err(at(BadRequestKind::NulByteInOption(spec.name), nul));
        }
        let value = match equals {
            Some(equals) if spec.takes_value => bytes.get(equals + 1..).unwrap_or_default(),
            Some(equals) => return Err(at(BadRequestKind::OptionTakesNoValue(spec.name), equals)),
            None if spec.takes_value => return Err(at(BadRequestKind::OptionNeedsValue(spec.name), 0)),
            None => &[],
        };
        if !spec.repeats && (spec.is_set)(&self.options) {
            return Err(at(BadRequestKind::OptionTwice(spec.name), 0));
        }
        if (spec.read)(&mut self.options, value).is_none() {
            let value_at = name.len() + usize::from(equals.is_some());
            return Err(at(BadRequestKind::OptionValue(spec.name, shown(value)), value_at));
        }
        if let Some(other) = self.contradicted(spec) {
            return Err(at(BadRequestKind::OptionsExclude(spec.name, other), 0));
        }
        if let Some(other) = spec.needs {
            self.needing = Some((spec.name, other, start));
        }
        self.last = Some(spec.name);
        Ok(spec.name == STATUS)
    }

    /// Checks what can only be checked after the last option.
    pub(super) fn finish(&self) -> Result<(), BadRequest> {
        let Some((name, needed, offset)) = self.needing else { return Ok(()) };
        let is_there = OPTIONS.iter().any(|spec| spec.name == needed && (spec.is_set)(&self.options));
        if is_there { Ok(()) } else { Err(BadRequest { kind: BadRequestKind::OptionNeeds(name, needed), offset }) }
    }

    /// An option that this one cannot be combined with.
    fn contradicted(&self, spec: &OptionSpec) -> Option<&'static str> {
        if spec.name == STATUS {
            return self.last;
        }
        let is_there = |other: &&OptionSpec| spec.excludes.contains(&other.name) && (other.is_set)(&self.options);
        OPTIONS.iter().find(is_there).map(|other| other.name)
    }
}

/// As much of `bytes` as an error keeps.
pub(super) fn shown(bytes: &[u8]) -> Vec<u8> {
    bytes.get(..SHOWN).unwrap_or(bytes).to_vec()
}

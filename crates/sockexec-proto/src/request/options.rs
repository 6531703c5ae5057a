//! What stands before the arguments of a version 2 request.

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

/// What the first netstring of later versions begins with as well.
pub(super) const PROTOCOL_NAME: &[u8] = b"protocol=";

/// The option that asks about the daemon instead of running a program.
pub const STATUS: &str = "status";

/// The most options that a request may have. Each of the environment costs the daemon more than an argument does.
pub const MAX_OPTIONS: usize = 4096;

/// How many bytes of what is wrong are kept in an error.
pub(super) const SHOWN: usize = 64;

/// The size of a terminal, in characters. 0 is allowed and means that it is not known, as for `TIOCSWINSZ`
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

/// A change to the environment that the program gets. They are applied in order, the first of them to the
/// daemon's own environment.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum EnvironmentChange {
    /// `env=NAME=VALUE`: the name has at least one byte and no `=`. Neither has a NUL byte.
    Set(Vec<u8>, Vec<u8>),
    /// `unsetenv=NAME`: as above.
    Unset(Vec<u8>),
    /// `clearenv`: what was there before is gone.
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

/// What a version 2 request may say of how its program is to run. The default is what version 1 does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Options {
    /// `cwd=PATH`: the program's working directory; not empty. A relative one begins at the daemon's.
    pub directory: Option<CString>,
    /// `env=NAME=VALUE`, `unsetenv=NAME` and `clearenv`, in their order.
    pub environment: Vec<EnvironmentChange>,
    /// `timeout=SECONDS`: the deadline, counted as the daemon counts its own, from when the request got its slot; more than 0.
    /// Fractions of a nanosecond are dropped. One of 10^18 seconds or more is not sent.
    pub timeout: Option<Duration>,
    /// `stderr=stdout`: both are one stream.
    pub stderr_to_stdout: bool,
    /// `pty=COLSxROWS`: the program has a terminal of this size.
    pub pty: Option<WindowSize>,
    /// `utf8`: that terminal takes what is typed for UTF-8 when it edits a line. It needs `pty`.
    pub utf8: bool,
    /// `fds`: the program's standard streams are three descriptors that come with the request (`unix(7)`, `SCM_RIGHTS`).
    pub descriptors: bool,
}

impl Options {
    /// Appends the options as netstrings. It does not judge: the daemon does.
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

/// What the protocol says of one option. Whatever else has to know the options takes them from [`OPTIONS`].
#[derive(Debug)]
#[non_exhaustive]
pub struct OptionSpec {
    /// Its name on the wire; no name begins with a digit.
    pub name: &'static str,
    /// One that is valid, as it stands on the wire.
    pub example: &'static str,
    /// Whether a value follows the name.
    pub takes_value: bool,
    /// It may be given more than once.
    repeats: bool,
    /// Options beside which it contradicts itself.
    excludes: &'static [&'static str],
    /// The option without which it makes no sense.
    pub needs: Option<&'static str>,
    /// Whether the options have it; not asked of those that repeat.
    is_set: fn(&Options) -> bool,
    /// Takes its value; `None`: that is invalid.
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
        // With those of the two options below, as their order counts.
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
            // One too long for the grammar (30 billion years) is not sent.
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
        // It stands alone, which is looked after in `Reading`.
        repeats: true,
        excludes: &[],
        needs: None,
        is_set: |_| false,
        read: |_, _| Some(()),
        write: |_, _| {},
    },
];

/// What was read of the options so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Reading {
    pub(super) options: Options,
    /// How many there were.
    count: usize,
    /// The last one, to be named where it may not stand beside another.
    last: Option<&'static str>,
    /// The last one that needs another, the other, and where its name begins.
    needing: Option<(&'static str, &'static str, u64)>,
}

impl Reading {
    /// Whether there were none yet.
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes the option `bytes`, whose first byte is the one at `start` of the request; true: it is `status`, and there is no
    /// more to come.
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

    /// There are no more.
    pub(super) fn finish(&self) -> Result<(), BadRequest> {
        let Some((name, needed, offset)) = self.needing else { return Ok(()) };
        let is_there = OPTIONS.iter().any(|spec| spec.name == needed && (spec.is_set)(&self.options));
        if is_there { Ok(()) } else { Err(BadRequest { kind: BadRequestKind::OptionNeeds(name, needed), offset }) }
    }

    /// The option beside which this one may not stand.
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

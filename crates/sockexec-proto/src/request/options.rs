//! What stands before the arguments of a version 2 request.

use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::error::{BadRequest, BadRequestKind};
use crate::netstring;
use crate::number;

/// The first netstring of a version 2 request. A version 1 request begins with a number.
pub const PROTOCOL: &[u8] = b"protocol=2";

/// The option that asks about the daemon instead of running a program.
pub const STATUS: &[u8] = b"status";

/// The most options that a request may have: as many as arguments.
pub const MAX_OPTIONS: usize = 65_536;

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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EnvironmentChange {
    /// `env=NAME=VALUE`: the name has at least one byte and no `=`. Neither has a NUL byte.
    Set(Vec<u8>, Vec<u8>),
    /// `unsetenv=NAME`: as above.
    Unset(Vec<u8>),
    /// `clearenv`: what was there before is gone.
    Clear,
}

/// What a version 2 request may say of how its program is to run. The default is what version 1 does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Options {
    /// `cwd=PATH`: the program's working directory; not empty. A relative one begins at the daemon's.
    pub directory: Option<CString>,
    /// `env=NAME=VALUE`, `unsetenv=NAME` and `clearenv`, in their order.
    pub environment: Vec<EnvironmentChange>,
    /// `timeout=SECONDS`: the deadline, counted as the daemon counts its own, from the accepted connection; more than 0.
    /// Fractions of a nanosecond are dropped.
    pub timeout: Option<Duration>,
    /// `stderr=stdout`: both are one stream.
    pub stderr_to_stdout: bool,
    /// `pty=COLSxROWS`: the program has a terminal of this size.
    pub pty: Option<WindowSize>,
    /// `fds`: the program's standard streams are three descriptors that come with the request (`unix(7)`, `SCM_RIGHTS`).
    pub descriptors: bool,
}

impl Options {
    /// Appends the options as netstrings. It does not judge: the daemon does.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if let Some(directory) = &self.directory {
            option(b"cwd=", directory.as_bytes(), out);
        }
        for change in &self.environment {
            match change {
                EnvironmentChange::Set(name, value) => {
                    let total = b"env=".len() + name.len() + 1 + value.len();
                    out.extend_from_slice(netstring::Header::new(total as u64).as_bytes());
                    for part in [b"env=", name.as_slice(), b"=", value] {
                        out.extend_from_slice(part);
                    }
                    out.push(netstring::TERMINATOR);
                }
                EnvironmentChange::Unset(name) => option(b"unsetenv=", name, out),
                EnvironmentChange::Clear => option(b"clearenv", b"", out),
            }
        }
        if let Some(timeout) = self.timeout {
            option(b"timeout=", number::format_seconds(timeout, 9).as_bytes(), out);
        }
        if self.stderr_to_stdout {
            option(b"stderr=stdout", b"", out);
        }
        if let Some(size) = self.pty {
            option(b"pty=", format!("{size}").as_bytes(), out);
        }
        if self.descriptors {
            option(b"fds", b"", out);
        }
    }
}

/// Appends `prefix` and `value` as one netstring.
fn option(prefix: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(netstring::Header::new((prefix.len() + value.len()) as u64).as_bytes());
    out.extend_from_slice(prefix);
    out.extend_from_slice(value);
    out.push(netstring::TERMINATOR);
}

/// The names of the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Name {
    Cwd,
    Env,
    Unsetenv,
    Clearenv,
    Timeout,
    Stderr,
    Pty,
    Fds,
    Status,
}

impl Name {
    const ALL: [Self; 9] = [
        Self::Cwd,
        Self::Env,
        Self::Unsetenv,
        Self::Clearenv,
        Self::Timeout,
        Self::Stderr,
        Self::Pty,
        Self::Fds,
        Self::Status,
    ];

    const fn text(self) -> &'static str {
        match self {
            Self::Cwd => "cwd",
            Self::Env => "env",
            Self::Unsetenv => "unsetenv",
            Self::Clearenv => "clearenv",
            Self::Timeout => "timeout",
            Self::Stderr => "stderr",
            Self::Pty => "pty",
            Self::Fds => "fds",
            Self::Status => "status",
        }
    }

    const fn takes_value(self) -> bool {
        match self {
            Self::Cwd | Self::Env | Self::Unsetenv | Self::Timeout | Self::Stderr | Self::Pty => true,
            Self::Clearenv | Self::Fds | Self::Status => false,
        }
    }
}

/// What was read of the options so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Reading {
    pub(super) options: Options,
    /// How many there were.
    count: usize,
    /// The last one, to be named where it may not stand beside another.
    last: Option<Name>,
}

impl Reading {
    /// Takes the option `bytes`, whose first byte is the one at `start` of the request; true: it is `status`, and there is no
    /// more to come.
    pub(super) fn take(&mut self, bytes: &[u8], start: u64) -> Result<bool, BadRequest> {
        let at = |kind, index: usize| BadRequest { kind, offset: start + index as u64 };
        let equals = bytes.iter().position(|&byte| byte == b'=');
        let name = bytes.get(..equals.unwrap_or(bytes.len())).unwrap_or_default();
        let Some(known) = Name::ALL.into_iter().find(|known| known.text().as_bytes() == name) else {
            return Err(at(BadRequestKind::UnknownOption(shown(name)), 0));
        };
        self.count += 1;
        if self.count > MAX_OPTIONS {
            return Err(at(BadRequestKind::TooManyOptions, 0));
        }
        if let Some(nul) = bytes.iter().position(|&byte| byte == 0) {
            return Err(at(BadRequestKind::NulByteInOption(known.text()), nul));
        }
        let value = match equals {
            Some(equals) if known.takes_value() => bytes.get(equals + 1..).unwrap_or_default(),
            Some(equals) => return Err(at(BadRequestKind::OptionTakesNoValue(known.text()), equals)),
            None if known.takes_value() => return Err(at(BadRequestKind::OptionNeedsValue(known.text()), 0)),
            None => &[],
        };
        self.apply(known, value).map_err(|kind| at(kind, name.len() + usize::from(equals.is_some())))?;
        self.check_company(known).map_err(|kind| at(kind, 0))?;
        self.last = Some(known);
        Ok(known == Name::Status)
    }

    fn apply(&mut self, name: Name, value: &[u8]) -> Result<(), BadRequestKind> {
        let options = &mut self.options;
        let wrong = || BadRequestKind::OptionValue(name.text(), shown(value));
        let twice = Err(BadRequestKind::OptionTwice(name.text()));
        match name {
            Name::Cwd if options.directory.is_some() => return twice,
            Name::Cwd if value.is_empty() => return Err(wrong()),
            Name::Cwd => options.directory = Some(CString::new(value).map_err(|_| wrong())?),
            Name::Env => {
                let equals = value.iter().position(|&byte| byte == b'=').filter(|&at| at > 0).ok_or_else(wrong)?;
                let (name, value) = (value.get(..equals), value.get(equals + 1..));
                options.environment.push(EnvironmentChange::Set(
                    name.unwrap_or_default().to_vec(),
                    value.unwrap_or_default().to_vec(),
                ));
            }
            Name::Unsetenv if value.is_empty() || value.contains(&b'=') => return Err(wrong()),
            Name::Unsetenv => options.environment.push(EnvironmentChange::Unset(value.to_vec())),
            Name::Clearenv => options.environment.push(EnvironmentChange::Clear),
            Name::Timeout if options.timeout.is_some() => return twice,
            Name::Timeout => {
                let timeout = number::parse_seconds(value).filter(|timeout| !timeout.is_zero());
                options.timeout = Some(timeout.ok_or_else(wrong)?);
            }
            Name::Stderr if options.stderr_to_stdout => return twice,
            Name::Stderr if value != b"stdout" => return Err(wrong()),
            Name::Stderr => options.stderr_to_stdout = true,
            Name::Pty if options.pty.is_some() => return twice,
            Name::Pty => options.pty = Some(WindowSize::parse(value).ok_or_else(wrong)?),
            Name::Fds if options.descriptors => return twice,
            Name::Fds => options.descriptors = true,
            Name::Status => {}
        }
        Ok(())
    }

    /// Options that contradict each other.
    fn check_company(&self, name: Name) -> Result<(), BadRequestKind> {
        let Options { descriptors, pty, stderr_to_stdout, .. } = &self.options;
        let other = match name {
            Name::Status => self.last,
            Name::Fds if pty.is_some() => Some(Name::Pty),
            Name::Fds if *stderr_to_stdout => Some(Name::Stderr),
            Name::Pty | Name::Stderr if *descriptors => Some(Name::Fds),
            Name::Fds
            | Name::Pty
            | Name::Stderr
            | Name::Cwd
            | Name::Env
            | Name::Unsetenv
            | Name::Clearenv
            | Name::Timeout => None,
        };
        match other {
            Some(other) => Err(BadRequestKind::OptionsExclude(name.text(), other.text())),
            None => Ok(()),
        }
    }
}

/// As much of `bytes` as an error keeps.
pub(super) fn shown(bytes: &[u8]) -> Vec<u8> {
    bytes.get(..SHOWN).unwrap_or(bytes).to_vec()
}

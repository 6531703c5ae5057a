//! What only version 2 of the protocol can ask for.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use sockexec_proto::request::EnvironmentChange;
use sockexec_proto::{Version, WindowSize};

use super::pipes::Pipes;
use super::stdio::{Channel, Kind, Stdio};
use super::{Command, Input, Run};

impl Command {
    /// The version of the protocol to speak. Default: [`Version::One`], until one of these is called, which need the
    /// other: [`current_dir`](Self::current_dir), [`env`](Self::env), [`envs`](Self::envs), [`env_remove`](Self::env_remove),
    /// [`env_clear`](Self::env_clear), [`daemon_timeout`](Self::daemon_timeout), [`start_timeout`](Self::start_timeout), [`stderr_to_stdout`](Self::stderr_to_stdout),
    /// [`terminal`](Self::terminal), [`terminal_type`](Self::terminal_type), [`terminal_utf8`](Self::terminal_utf8),
    /// [`pass_stdio`](Self::pass_stdio).
    ///
    /// Ask for [`Version::Two`] to have the [number](super::Child::id), [signals](super::Child::signal) and
    /// [cost](super::Child::usage) of a program, and errors where version 1 has exit codes (125 to 127). [`Version::One`] after one of
    /// those methods is an [`Error::InvalidOption`](super::Error::InvalidOption) when the program is run.
    pub fn version(&mut self, version: Version) -> &mut Self {
        self.version = version;
        self
    }

    /// The program's working directory; a relative one begins at the daemon's.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        match CString::new(directory.as_ref().as_os_str().as_bytes()) {
            Ok(path) if path.is_empty() => self.refuse("the working directory is empty"),
            Ok(path) => self.options.directory = Some(path),
            Err(_) => self.refuse("the working directory holds a NUL byte"),
        }
        self.in_version_2()
    }

    /// Sets a variable of the program's environment, which without changes is the daemon's. Changes are made in the order of the calls.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        let (name, value) = (name.as_ref().as_bytes(), value.as_ref().as_bytes());
        self.check_name(name);
        if value.contains(&0) {
            self.refuse("the value of an environment variable holds a NUL byte");
        }
        self.options.environment.push(EnvironmentChange::Set(name.to_vec(), value.to_vec()));
        self.in_version_2()
    }

    /// Sets variables of the program's environment.
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, variables: impl IntoIterator<Item = (N, V)>) -> &mut Self {
        for (name, value) in variables {
            self.env(name, value);
        }
        self
    }

    /// Takes a variable out of the program's environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        let name = name.as_ref().as_bytes();
        self.check_name(name);
        self.options.environment.push(EnvironmentChange::Unset(name.to_vec()));
        self.in_version_2()
    }

    /// Takes everything out of the program's environment, the daemon's variables and what was set by then. Without a `PATH` programs are
    /// looked up in `/bin` and `/usr/bin`.
    pub fn env_clear(&mut self) -> &mut Self {
        self.options.environment.push(EnvironmentChange::Clear);
        self.in_version_2()
    }

    /// How long the daemon lets the program run, if its own limit (`-t`) is not shorter. The time that the request waits for its turn
    /// does not count. Then TERM goes to the program's process group, and KILL some seconds later. What the program still writes arrives;
    /// the result is [`Error::Failed`](super::Error::Failed) with [`ErrorKind::Timeout`](super::ErrorKind::Timeout) and the status.
    /// `None`, or 10^18 seconds or more: no limit but the daemon's own. Default `None`.
    ///
    /// The daemon keeps it, and cannot while it is stopped; [`client_timeout`](Self::client_timeout) is kept on this side.
    pub fn daemon_timeout(&mut self, timeout: impl Into<Option<Duration>>) -> &mut Self {
        let timeout = timeout.into();
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            self.refuse("the daemon's timeout is no time at all");
        }
        self.options.timeout = timeout;
        self.in_version_2()
    }

    /// How long the program may take to start, from the attempt to connect: a daemon that is stopped, or has no slot free, is waited
    /// for so long. Then the connection is closed, and the result is [`Error::NotStarted`](super::Error::NotStarted), which says
    /// what was waited for. A daemon that was stopped may still start the program later, and ends it at once. Once the program has
    /// started this limit is over. `None`: no limit, which is the default.
    pub fn start_timeout(&mut self, timeout: impl Into<Option<Duration>>) -> &mut Self {
        self.start_timeout = timeout.into();
        self.in_version_2()
    }

    /// Standard error goes where standard output goes, so that the order between the two is kept; what was said of
    /// [`stderr`](Self::stderr) counts for nothing.
    pub fn stderr_to_stdout(&mut self) -> &mut Self {
        self.options.stderr_to_stdout = true;
        self.in_version_2()
    }

    /// The program has a session of its own and a new terminal of this size for its three streams. All that the terminal says is standard
    /// output; standard input is what a person would type. The end of standard input is `^D`.
    pub fn terminal(&mut self, size: WindowSize) -> &mut Self {
        self.options.pty = Some(size);
        self.in_version_2()
    }

    /// What kind of terminal the [`terminal`](Self::terminal) is, such as `xterm-256color`: the program finds it in the variable
    /// `TERM`. What [`env`](Self::env) and [`env_remove`](Self::env_remove) say of that variable counts more;
    /// [`env_clear`](Self::env_clear) leaves it.
    ///
    /// A daemon that lets its clients set no variables is not asked to. So the daemon introduces itself before the request is
    /// sent, which takes an exchange more. Without a terminal it is an
    /// [`Error::InvalidOption`](super::Error::InvalidOption).
    pub fn terminal_type(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        let name = name.as_ref().as_bytes();
        if name.contains(&0) {
            self.refuse("the kind of the terminal holds a NUL byte");
        }
        self.wishes.terminal_type = Some(name.to_vec());
        self.in_version_2()
    }

    /// The [`terminal`](Self::terminal) takes what is typed for UTF-8 when it edits a line: a backspace erases a character, not a byte
    /// (termios(3), `IUTF8`). A daemon that does not know this is not asked for it, as for [`terminal_type`](Self::terminal_type).
    pub fn terminal_utf8(&mut self) -> &mut Self {
        self.wishes.utf8 = true;
        self.in_version_2()
    }

    /// The program gets the descriptors of its three streams themselves ([`unix(7)`], `SCM_RIGHTS`), as a child in the standard library does: a
    /// file stays a file, a terminal a terminal, and no byte goes through the daemon. [`Stdio::null`] is `/dev/null`, [`Stdio::piped`] a pipe;
    /// so is what [`stdin_bytes`](Self::stdin_bytes) cannot be: bytes of this process, which are refused.
    ///
    /// [`unix(7)`]: https://man7.org/linux/man-pages/man7/unix.7.html
    pub fn pass_stdio(&mut self) -> &mut Self {
        self.options.descriptors = true;
        self.in_version_2()
    }

    fn in_version_2(&mut self) -> &mut Self {
        self.version = Version::Two;
        self
    }

    /// The first complaint stands.
    fn refuse(&mut self, what: &'static str) {
        self.invalid.get_or_insert(what);
    }

    fn check_name(&mut self, name: &[u8]) {
        if name.is_empty() || name.iter().any(|byte| matches!(byte, b'=' | 0)) {
            self.refuse("the name of an environment variable must not be empty, or hold a NUL byte or an equals sign");
        }
    }

    /// What of the options cannot be together.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let options = &self.options;
        if self.version == Version::One
            && (*options != sockexec_proto::Options::default()
                || !self.wishes.is_empty()
                || self.start_timeout.is_some())
        {
            Some("an option needs version 2 of the protocol, and version 1 was asked for")
        } else if options.pty.is_none() && !self.wishes.is_empty() {
            Some("the kind of a terminal needs a terminal")
        } else if options.descriptors && options.pty.is_some() {
            Some("descriptors cannot be passed to a program that gets a terminal")
        } else if options.descriptors && options.stderr_to_stdout {
            Some(
                "with descriptors that are passed, standard error cannot go to standard output: give the same descriptor twice",
            )
        } else if options.descriptors && matches!(self.stdin, Some(Input::Bytes(_))) {
            Some("standard input from memory has no descriptor that could be passed")
        } else {
            None
        }
    }

    /// The program's streams, to be passed; the other ends of pipes go to `pipes`.
    pub(super) fn descriptors(&self, run: Run, pipes: &mut Pipes) -> io::Result<Vec<OwnedFd>> {
        let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        let stdin = match &self.stdin {
            Some(Input::Stdio(stdio)) => &stdio.0,
            Some(Input::Bytes(_)) => &Kind::Null,
            None => run.stdin(),
        };
        let stdin = match stdin.open(Channel::Stdin)? {
            Some(fd) => fd,
            None if matches!(stdin, Kind::Piped) => {
                let (reader, writer) = io::pipe()?;
                pipes.stdin = Some(writer);
                reader.into()
            }
            None => null()?,
        };
        let output = |stdio: Option<&Stdio>, channel, end: &mut Option<io::PipeReader>| {
            let kind = stdio.map_or(run.output(), |stdio| &stdio.0);
            match kind.open(channel)? {
                Some(fd) => Ok(fd),
                None if matches!(kind, Kind::Piped) && !matches!(run, Run::Status) => {
                    let (reader, writer) = io::pipe()?;
                    *end = Some(reader);
                    Ok(OwnedFd::from(writer))
                }
                None => null(),
            }
        };
        let stdout = output(self.stdout.as_ref(), Channel::Stdout, &mut pipes.stdout)?;
        let stderr = output(self.stderr.as_ref(), Channel::Stderr, &mut pipes.stderr)?;
        Ok(vec![stdin, stdout, stderr])
    }
}

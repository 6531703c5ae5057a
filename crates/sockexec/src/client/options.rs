//! Options that need version 2 of the protocol.

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
    /// Ask for [`Version::Two`] to get the [pid](super::Child::id), [signals](super::Child::signal) and
    /// [resource usage](super::Child::usage) of a program, and errors in place of the exit codes 125 to 127
    /// of version 1. [`Version::One`] after one of those methods is an
    /// [`Error::InvalidOption`](super::Error::InvalidOption) when the program is run.
    pub fn version(&mut self, version: Version) -> &mut Self {
        self.version = version;
        self
    }

    /// The program's working directory; a relative path starts at the daemon's.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        match CString::new(directory.as_ref().as_os_str().as_bytes()) {
            Ok(path) if path.is_empty() => self.refuse("the working directory is empty"),
            Ok(path) => self.options.directory = Some(path),
            Err(_) => self.refuse("the working directory holds a NUL byte"),
        }
        self.in_version_2()
    }

    /// Sets a variable in the program's environment, which starts as the daemon's. Changes are made in the
    /// order of the calls.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        let (name, value) = (name.as_ref().as_bytes(), value.as_ref().as_bytes());
        self.check_name(name);
        if value.contains(&0) {
            self.refuse("the value of an environment variable holds a NUL byte");
        }
        self.options.environment.push(EnvironmentChange::Set(name.to_vec(), value.to_vec()));
        self.in_version_2()
    }

    /// Sets variables in the program's environment.
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, variables: impl IntoIterator<Item = (N, V)>) -> &mut Self {
        for (name, value) in variables {
            self.env(name, value);
        }
        self
    }

    /// Removes a variable from the program's environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        let name = name.as_ref().as_bytes();
        self.check_name(name);
        self.options.environment.push(EnvironmentChange::Unset(name.to_vec()));
        self.in_version_2()
    }

    /// Empties the program's environment: of the daemon's variables, and of those set so far. Without a
    /// `PATH`, programs are searched for in `/bin` and `/usr/bin`.
    pub fn env_clear(&mut self) -> &mut Self {
        self.options.environment.push(EnvironmentChange::Clear);
        self.in_version_2()
    }

    /// How long the daemon lets the program run, if its own limit (`-t`) is not shorter. The time that the
    /// request waits for its turn does not count. Then TERM goes to the program's process group, and KILL
    /// some seconds later. What the program still writes arrives. The result is
    /// [`Error::Failed`](super::Error::Failed) with [`ErrorKind::Timeout`](super::ErrorKind::Timeout) and the
    /// status. `None`, or 10^18 seconds or more: no limit but the daemon's own. Default `None`. Zero is an
    /// [`Error::InvalidOption`](super::Error::InvalidOption) when the program is run.
    ///
    /// The daemon keeps this limit, and cannot while it is stopped; this side keeps
    /// [`client_timeout`](Self::client_timeout).
    pub fn daemon_timeout(&mut self, timeout: impl Into<Option<Duration>>) -> &mut Self {
        self.options.timeout = timeout.into();
        self.in_version_2()
    }

    /// How long the program may take to start, from the attempt to connect. The limit covers a daemon that is
    /// stopped, or has no slot free. Then the connection is closed, and the result is
    /// [`Error::NotStarted`](super::Error::NotStarted), which says what was waited for. A daemon that was
    /// stopped may still start the program later, and ends it at once. The limit no longer applies once the
    /// program has started. `None`, the default: no limit. Zero is an
    /// [`Error::InvalidOption`](super::Error::InvalidOption) when the program is run: no daemon could keep it.
    pub fn start_timeout(&mut self, timeout: impl Into<Option<Duration>>) -> &mut Self {
        self.start_timeout = timeout.into();
        self.in_version_2()
    }

    /// Sends standard error to where standard output goes, which keeps the order between the two. Any setting
    /// of [`stderr`](Self::stderr) is ignored.
    pub fn stderr_to_stdout(&mut self) -> &mut Self {
        self.options.stderr_to_stdout = true;
        self.in_version_2()
    }

    /// Gives the program its own session, and a new terminal of this size for its three streams. Everything
    /// that the terminal shows is standard output; standard input is what a person would type. The end of
    /// standard input is `^D`.
    pub fn terminal(&mut self, size: WindowSize) -> &mut Self {
        self.options.pty = Some(size);
        self.in_version_2()
    }

    /// The type of the [`terminal`](Self::terminal), such as `xterm-256color`. The program finds it in the
    /// variable `TERM`. [`env`](Self::env) and [`env_remove`](Self::env_remove) override it for that
    /// variable; [`env_clear`](Self::env_clear) keeps it.
    ///
    /// A daemon whose clients may not set variables is not asked to. So the daemon introduces itself before
    /// the request is sent, which takes one more exchange. Without a terminal this is an
    /// [`Error::InvalidOption`](super::Error::InvalidOption).
    pub fn terminal_type(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        let name = name.as_ref().as_bytes();
        if name.contains(&0) {
            self.refuse("the terminal type holds a NUL byte");
        }
        self.wishes.terminal_type = Some(name.to_vec());
        self.in_version_2()
    }

    /// The [`terminal`](Self::terminal) takes what is typed as UTF-8 when it edits a line: a backspace erases
    /// a character, not a byte (termios(3), `IUTF8`). A daemon that does not know this option is not asked
    /// for it, as for [`terminal_type`](Self::terminal_type).
    pub fn terminal_utf8(&mut self) -> &mut Self {
        self.wishes.utf8 = true;
        self.in_version_2()
    }

    /// Passes the descriptors of its three streams to the program itself ([`unix(7)`], `SCM_RIGHTS`), as the
    /// standard library does for a child: a file stays a file, a terminal a terminal, and no byte goes
    /// through the daemon. [`Stdio::null`] is `/dev/null`, [`Stdio::piped`] a pipe.
    /// [`stdin_bytes`](Self::stdin_bytes) is refused, as bytes in memory have no descriptor.
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

    /// The first complaint wins.
    fn refuse(&mut self, what: &'static str) {
        self.invalid.get_or_insert(what);
    }

    fn check_name(&mut self, name: &[u8]) {
        if name.is_empty() || name.iter().any(|byte| matches!(byte, b'=' | 0)) {
            self.refuse("the name of an environment variable must not be empty, or hold a NUL byte or an equals sign");
        }
    }

    /// A time limit that is zero. As in std's `set_read_timeout`, that is neither "at once" nor "no limit".
    /// Checked when the program is run, as a limit can be removed until then.
    pub(super) fn zero_timeout(&self) -> Option<&'static str> {
        let limits = [
            (self.client_timeout, "the client timeout is zero; give a longer time, or None for no limit"),
            (self.start_timeout, "the start timeout is zero; give a longer time, or None for no limit"),
            (self.options.timeout, "the daemon timeout is zero; give a longer time, or None for no limit"),
        ];
        limits.into_iter().find_map(|(limit, what)| limit.filter(Duration::is_zero).map(|_| what))
    }

    /// Options that contradict each other.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let options = &self.options;
        if self.version == Version::One
            && (*options != sockexec_proto::Options::default()
                || !self.wishes.is_empty()
                || self.start_timeout.is_some())
        {
            Some("an option needs version 2 of the protocol, but version 1 was asked for")
        } else if options.pty.is_none() && !self.wishes.is_empty() {
            Some("a terminal type needs a terminal")
        } else if options.descriptors && options.pty.is_some() {
            Some("descriptors cannot be passed to a program that gets a terminal")
        } else if options.descriptors && options.stderr_to_stdout {
            Some("with passed descriptors, standard error cannot go to standard output: pass the same descriptor twice")
        } else if options.descriptors && matches!(self.stdin, Some(Input::Bytes(_))) {
            Some("standard input from memory has no descriptor to pass")
        } else {
            None
        }
    }

    /// The program's streams to pass; the other ends of pipes go to `pipes`.
    pub(super) fn descriptors(&self, run: Run, pipes: &mut Pipes) -> io::Result<Vec<OwnedFd>> {
        let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        let stdin = match &self.stdin {
            Some(Input::Stdio(stdio)) => &stdio.0,
            Some(Input::Bytes(_)) => &Kind::Null,
            None => run.stdin(),
        };
        let stdin = match stdin.open(Channel::Stdin)? {
            Some(fd) => fd,
            None if matches!(stdin, Kind::Piped) && !matches!(run, Run::Status) => {
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

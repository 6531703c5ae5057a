//! The client: runs programs through a daemon, in the manner of [`std::process`].
//!
//! | [`std::process`] | here | what differs |
//! | --- | --- | --- |
//! | [`Command::new`](std::process::Command::new) | [`Command::new`] | the daemon's socket comes first |
//! | [`Stdio`](std::process::Stdio) | [`Stdio`] | this process reads and writes for the program, which gets the descriptors only after [`Command::pass_stdio`] |
//! | [`Child`](std::process::Child) | [`Child`] | the program ends when this process does; in version 1 of the protocol [`Child::kill`] closes the connection |
//! | [`ExitStatus`](std::process::ExitStatus) | [`ExitStatus`] | `signal` without a trait |
//! | [`io::Error`] | [`Error`] | typed; `?` turns it into an `io::Error` |
//!
//! It speaks version 1 of the protocol, as every daemon does, including 3.1.1, until a method is called that
//! needs [version 2](Version::Two); [`Command::version`] lists them. A daemon without version 2 is detected
//! within two seconds: [`Error::Unsupported`]. A busy daemon is waited for as long as it takes, or as
//! [`Command::client_timeout`] allows.
#![forbid(unsafe_code)]

mod access;
mod child;
mod descriptor;
mod error;
mod options;
mod orders;
mod output;
mod pipes;
#[cfg(feature = "metrics")]
mod prometheus;
mod pump;
mod query;
mod signal;
mod socket;
mod status;
mod stdio;
#[cfg(feature = "tokio")]
pub mod tokio;
mod waiting;
mod wire;
mod wishes;
mod worker;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Cursor};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use descriptor::Descriptor;
use pipes::Pipes;
use pump::{Bytes, Pump, Sink, Source};
use socket::Silence;
use sockexec_proto::Options;
use stdio::{Channel, Kind};
use waiting::{Observer, Patience};
use wire::{Ended, Incoming, Outgoing};
use wishes::Wishes;

pub use access::{CommandArgs, CommandEnvs};
pub use child::{Child, ChildHandle};
pub use error::{Error, ErrorKind, PartialOutput};
pub use pipes::{ChildStderr, ChildStdin, ChildStdout};
#[cfg(feature = "metrics")]
pub use prometheus::prometheus;
pub use query::{daemon_status, ping};
pub use signal::{Signal, UnknownSignal};
pub use sockexec_proto::{BadReply, ErrorCode, Failure, Stream, Usage, Version, WindowSize};
pub use status::{ExitStatus, ExitStatusError};
pub use stdio::Stdio;
pub use waiting::Waiting;

/// What [`Command::output`] returns, as [`std::process::Output`].
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How the program ended.
    pub status: ExitStatus,
    /// All that it wrote to standard output; empty if that went elsewhere.
    pub stdout: Vec<u8>,
    /// All that it wrote to standard error; empty if that went elsewhere.
    pub stderr: Vec<u8>,
    /// The resources that the program used. `None` in version 1 of the protocol, which does not report them,
    /// and if the daemon's system does not.
    pub usage: Option<Usage>,
}

/// A program to be run by a daemon, as [`std::process::Command`]. It can be run more than once.
///
/// The program runs as the daemon's user and, unless something else is set, with its environment and working
/// directory. Its name is searched for in the `PATH` that it gets, unless it contains a slash.
///
/// # Clones
///
/// Unlike the standard library's, a command can be cloned. A clone shares the descriptors that were given to
/// [`stdin`](Self::stdin), [`stdout`](Self::stdout) and [`stderr`](Self::stderr), as a command that is run
/// twice does: two programs that read one file read parts of it, and the reader of a pipe sees its end only
/// once the last clone was dropped. Bytes of [`stdin_bytes`](Self::stdin_bytes) are shared as well, and each
/// program gets all of them.
#[derive(Debug, Clone)]
pub struct Command {
    socket: PathBuf,
    argv: Vec<OsString>,
    stdin: Option<Input>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    client_timeout: Option<Duration>,
    start_timeout: Option<Duration>,
    observer: Observer,
    version: Version,
    options: Options,
    wishes: Wishes,
    /// What is wrong with one of the options, reported when the command is run.
    invalid: Option<&'static str>,
}

#[derive(Debug, Clone)]
enum Input {
    Stdio(Stdio),
    Bytes(Bytes),
}

/// The defaults of the streams, as in the standard library.
#[derive(Debug, Clone, Copy)]
enum Run {
    Output,
    Status,
    Spawn,
}

impl Run {
    const fn stdin(self) -> &'static Kind {
        match self {
            Self::Output => &Kind::Null,
            Self::Status | Self::Spawn => &Kind::Inherit,
        }
    }

    const fn output(self) -> &'static Kind {
        match self {
            Self::Output => &Kind::Piped,
            Self::Status | Self::Spawn => &Kind::Inherit,
        }
    }
}

impl Command {
    /// The program `program`, to be run by the daemon that listens on `socket`.
    pub fn new(socket: impl AsRef<Path>, program: impl AsRef<OsStr>) -> Self {
        Self {
            socket: socket.as_ref().to_owned(),
            argv: vec![program.as_ref().to_owned()],
            stdin: None,
            stdout: None,
            stderr: None,
            client_timeout: None,
            start_timeout: None,
            observer: Observer::default(),
            version: Version::One,
            options: Options::default(),
            wishes: Wishes::default(),
            invalid: None,
        }
    }

    /// Adds an argument.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.argv.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(&mut self, arguments: impl IntoIterator<Item = A>) -> &mut Self {
        self.argv.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Where standard input comes from. Default: nothing for [`output`](Self::output), this process's own
    /// for [`status`](Self::status) and [`spawn`](Self::spawn).
    pub fn stdin(&mut self, stdin: impl Into<Stdio>) -> &mut Self {
        self.stdin = Some(Input::Stdio(stdin.into()));
        self
    }

    /// Standard input is these bytes. (The standard library has no such method. Here nobody has to feed a
    /// pipe, so it works with [`output`](Self::output).)
    pub fn stdin_bytes(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Self {
        // Not a `Stdio`, which could be given to `stdout` as well, where it makes no sense.
        self.stdin = Some(Input::Bytes(Bytes(Arc::new(bytes.into()))));
        self
    }

    /// Where standard output goes. Default: collected for [`output`](Self::output), this process's own
    /// for [`status`](Self::status) and [`spawn`](Self::spawn).
    pub fn stdout(&mut self, stdout: impl Into<Stdio>) -> &mut Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// Where standard error goes. Default: as for [`stdout`](Self::stdout).
    pub fn stderr(&mut self, stderr: impl Into<Stdio>) -> &mut Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// The longest that a run may last, from the attempt to connect to the program's end. Then this side
    /// closes the connection, so that the daemon ends the program, and the result is [`Error::TimedOut`].
    /// `None`: no limit but the daemon's own. Default `None`. Zero is an [`Error::InvalidOption`] when the
    /// program is run.
    ///
    /// The client keeps this limit, so it holds for every daemon, busy or stopped. The daemon keeps
    /// [`daemon_timeout`](Self::daemon_timeout), and reports how the program ended.
    /// [`start_timeout`](Self::start_timeout) no longer applies once the program has started.
    ///
    /// After [`pass_stdio`](Self::pass_stdio), [`output`](Self::output) and
    /// [`Child::wait_with_output`] still read the pipes to their end, which comes when the program and all others
    /// that have them are gone: up to the daemon's `--kill-timeout` later, and not while the daemon is stopped.
    pub fn client_timeout(&mut self, timeout: impl Into<Option<Duration>>) -> &mut Self {
        self.client_timeout = timeout.into();
        self
    }

    /// Calls `tell` if the program has to wait, at most once for each run: when the daemon reports it, or
    /// when the program has not started two seconds after the attempt to connect. In version 1 of the
    /// protocol, only the wait for a connection is reported.
    ///
    /// The thread that serves the program calls it, and waits for it to return.
    pub fn on_wait(&mut self, tell: impl Fn(Waiting) + Send + Sync + 'static) -> &mut Self {
        self.observer = Observer(Some(Arc::new(tell)));
        self
    }

    /// Runs the program to its end and collects its output.
    ///
    /// # Errors
    /// Why there is no status. [`Error::output`] has what the program had written by then.
    pub fn output(&mut self) -> Result<Output, Error> {
        if self.options.descriptors {
            return self.spawn_as(Run::Output)?.wait_with_output();
        }
        let mut pump = self.pump(Run::Output, &mut Pipes::default())?;
        let ended = pump.run();
        Self::collected(ended, pump)
    }

    /// The result of a run, with the output that was kept in memory.
    fn collected(ended: Result<Ended, Error>, pump: Pump) -> Result<Output, Error> {
        let (stdout, stderr) = (pump.stdout.into_bytes(), pump.stderr.into_bytes());
        match ended {
            Ok(Ended { status, usage }) => Ok(Output { status, stdout, stderr, usage }),
            Err(error) => Err(error.with_output(stdout, stderr)),
        }
    }

    /// Runs the program to its end.
    ///
    /// # Errors
    /// Why there is no status.
    pub fn status(&mut self) -> Result<ExitStatus, Error> {
        Ok(self.pump(Run::Status, &mut Pipes::default())?.run()?.status)
    }

    /// Starts the program. In version 2 of the protocol this waits until it was started. In version 1 a
    /// program that could not be started shows in its status, like everything that the daemon reports.
    ///
    /// # Errors
    /// Without a connection, a pipe or a thread nothing was started. In version 2 also what the daemon
    /// reports, such as [`ErrorKind::NotFound`].
    pub fn spawn(&mut self) -> Result<Child, Error> {
        self.spawn_as(Run::Spawn)
    }

    fn spawn_as(&self, run: Run) -> Result<Child, Error> {
        let mut pipes = Pipes::default();
        let mut pump = self.pump(run, &mut pipes)?;
        self.pipe(&mut pump, &mut pipes)?;
        Child::start(pump, pipes)
    }

    /// Connects, and prepares everything else. Nothing is sent yet, so that no program is started in vain.
    /// The other ends of pipes that are passed go to `pipes`.
    fn pump(&self, run: Run, pipes: &mut Pipes) -> Result<Pump, Error> {
        self.check_arguments()?;
        let mut patience = self.patience();
        self.pump_on(socket::connect(&self.socket, &mut patience)?, patience, run, pipes)
    }

    fn pump_on(&self, socket: UnixStream, patience: Patience, run: Run, pipes: &mut Pipes) -> Result<Pump, Error> {
        let mut pump = Pump {
            socket,
            outgoing: Outgoing::new(self.version, &self.options, &self.wishes, &self.argv),
            source: Source::Nothing,
            stdout: Sink::Nothing,
            stderr: Sink::Nothing,
            patience,
            orders: None,
            signals: VecDeque::new(),
            started: None,
            incoming: Incoming::new(self.version),
            blocked: None,
            version: self.version,
            descriptors: Vec::new(),
            silence: Silence::default(),
            killed: false,
        };
        if self.options.descriptors {
            let failed = |error| Error::Io("cannot duplicate a descriptor", error);
            pump.descriptors = self.descriptors(run, pipes).map_err(failed)?;
            return Ok(pump);
        }
        pump.source = self.source(run).map_err(Error::Stdin)?;
        pump.stdout = sink(self.stdout.as_ref(), run, Channel::Stdout).map_err(|e| Error::Output(Stream::Stdout, e))?;
        pump.stderr = sink(self.stderr.as_ref(), run, Channel::Stderr).map_err(|e| Error::Output(Stream::Stderr, e))?;
        Ok(pump)
    }

    /// The limits of a run that begins now.
    fn patience(&self) -> Patience {
        Patience::new(self.client_timeout, self.start_timeout, &self.observer)
    }

    fn check_arguments(&self) -> Result<(), Error> {
        if let Some(what) = self.invalid.or_else(|| self.zero_timeout()).or_else(|| self.contradiction()) {
            return Err(Error::InvalidOption(what));
        }
        match self.argv.iter().position(|argument| argument.as_bytes().contains(&0)) {
            Some(number) => Err(Error::InvalidArgument(number)),
            None => Ok(()),
        }
    }

    fn source(&self, run: Run) -> io::Result<Source> {
        let kind = match &self.stdin {
            Some(Input::Bytes(bytes)) => return Ok(Source::Memory(Cursor::new(bytes.clone()))),
            Some(Input::Stdio(stdio)) => &stdio.0,
            None => run.stdin(),
        };
        Ok(kind.descriptor(Channel::Stdin)?.map_or(Source::Nothing, Source::Descriptor))
    }

    /// Makes the pipes of a [`Child`], unless [others](Self::pass_stdio) are passed.
    fn pipe(&self, pump: &mut Pump, pipes: &mut Pipes) -> Result<(), Error> {
        if self.options.descriptors {
            return Ok(());
        }
        self.make_pipes(pump, pipes).map_err(|error| Error::Io("cannot make a pipe", error))
    }

    fn make_pipes(&self, pump: &mut Pump, pipes: &mut Pipes) -> io::Result<()> {
        if let Some(Input::Stdio(Stdio(Kind::Piped))) = &self.stdin {
            let (reader, writer) = io::pipe()?;
            pump.source = Source::Descriptor(Descriptor::own(reader.into())?);
            pipes.stdin = Some(writer);
        }
        for (stdio, sink, end) in
            [(&self.stdout, &mut pump.stdout, &mut pipes.stdout), (&self.stderr, &mut pump.stderr, &mut pipes.stderr)]
        {
            if let Some(Stdio(Kind::Piped)) = stdio {
                let (reader, writer) = io::pipe()?;
                *sink = Sink::Descriptor(Descriptor::own(writer.into())?);
                *end = Some(reader);
            }
        }
        Ok(())
    }
}

/// Where a stream goes, except for the pipes of a [`Child`].
fn sink(stdio: Option<&Stdio>, run: Run, channel: Channel) -> io::Result<Sink> {
    let kind = stdio.map_or(run.output(), |stdio| &stdio.0);
    match (run, kind) {
        (Run::Output, Kind::Piped) => Ok(Sink::Memory(Vec::new())),
        (_, kind) => Ok(kind.descriptor(channel)?.map_or(Sink::Nothing, Sink::Descriptor)),
    }
}

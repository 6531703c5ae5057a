//! The same for tokio: nothing here blocks the runtime's own threads.
//!
//! ```no_run
//! # async fn example() -> Result<(), sockexec::Error> {
//! use sockexec::tokio::Command;
//!
//! let output = Command::new("/tmp/exec.sock", "uname").arg("-a").output().await?;
//! print!("{}", String::from_utf8_lossy(&output.stdout));
//! # Ok(())
//! # }
//! ```
//!
//! What there is to know beside the documentation of [`sockexec::Command`](crate::Command):
//!
//! - A [`Child`] has no number and takes no signals, and descriptors are not passed: for that there is the blocking
//!   [`sockexec::Child`](crate::Child), in [`spawn_blocking`].
//! - A future that is dropped closes the connection, so the daemon ends the program.
//! - The runtime must have I/O and time enabled.
//! - Descriptors that are given or inherited are read and written on the runtime's threads for blocking
//!   work, as `tokio::io::stdin` is. A read that gets nothing, of a terminal say,
//!   keeps such a thread waiting, and with it the end of the runtime; so do not let programs inherit a
//!   standard input that they do not need.

use std::ffi::OsStr;
use std::future::{Future, pending, poll_fn};
use std::io::{self, Cursor};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use ::tokio::fs::File;
use ::tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use ::tokio::net::UnixStream;
use ::tokio::net::unix::{ReadHalf, WriteHalf, pipe};
use ::tokio::task::{JoinHandle, spawn_blocking};
use sockexec_proto::Stream;

use super::socket::{self, LOOK, Silence};
use super::stdio::{Channel, Kind, Stdio};
use super::wire::{Ended, Incoming, Outgoing, Window};
use super::{Error, ExitStatus, Input, Output, Run, Version, WindowSize};

/// A program to be run by a daemon; [`sockexec::Command`](crate::Command) with asynchronous ways to run it.
/// One can be made from the other.
#[derive(Debug)]
pub struct Command(super::Command);

impl From<super::Command> for Command {
    fn from(command: super::Command) -> Self {
        Self(command)
    }
}

impl Command {
    /// As [`sockexec::Command::new`](crate::Command::new).
    pub fn new(socket: impl AsRef<Path>, program: impl AsRef<OsStr>) -> Self {
        Self(super::Command::new(socket, program))
    }

    /// As [`sockexec::Command::arg`](crate::Command::arg).
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.0.arg(argument);
        self
    }

    /// As [`sockexec::Command::args`](crate::Command::args).
    pub fn args<A: AsRef<OsStr>>(&mut self, arguments: impl IntoIterator<Item = A>) -> &mut Self {
        self.0.args(arguments);
        self
    }

    /// As [`sockexec::Command::stdin`](crate::Command::stdin).
    pub fn stdin(&mut self, stdin: impl Into<Stdio>) -> &mut Self {
        self.0.stdin(stdin);
        self
    }

    /// As [`sockexec::Command::stdin_bytes`](crate::Command::stdin_bytes).
    pub fn stdin_bytes(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.0.stdin_bytes(bytes);
        self
    }

    /// As [`sockexec::Command::stdout`](crate::Command::stdout).
    pub fn stdout(&mut self, stdout: impl Into<Stdio>) -> &mut Self {
        self.0.stdout(stdout);
        self
    }

    /// As [`sockexec::Command::stderr`](crate::Command::stderr).
    pub fn stderr(&mut self, stderr: impl Into<Stdio>) -> &mut Self {
        self.0.stderr(stderr);
        self
    }

    /// As [`sockexec::Command::timeout`](crate::Command::timeout).
    pub fn timeout(&mut self, timeout: Option<Duration>) -> &mut Self {
        self.0.timeout(timeout);
        self
    }

    /// As [`sockexec::Command::version`](crate::Command::version).
    pub fn version(&mut self, version: Version) -> &mut Self {
        self.0.version(version);
        self
    }

    /// As [`sockexec::Command::current_dir`](crate::Command::current_dir).
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.0.current_dir(directory);
        self
    }

    /// As [`sockexec::Command::env`](crate::Command::env).
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.0.env(name, value);
        self
    }

    /// As [`sockexec::Command::envs`](crate::Command::envs).
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, variables: impl IntoIterator<Item = (N, V)>) -> &mut Self {
        self.0.envs(variables);
        self
    }

    /// As [`sockexec::Command::env_remove`](crate::Command::env_remove).
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.0.env_remove(name);
        self
    }

    /// As [`sockexec::Command::env_clear`](crate::Command::env_clear).
    pub fn env_clear(&mut self) -> &mut Self {
        self.0.env_clear();
        self
    }

    /// As [`sockexec::Command::deadline`](crate::Command::deadline).
    pub fn deadline(&mut self, deadline: Duration) -> &mut Self {
        self.0.deadline(deadline);
        self
    }

    /// As [`sockexec::Command::stderr_to_stdout`](crate::Command::stderr_to_stdout).
    pub fn stderr_to_stdout(&mut self) -> &mut Self {
        self.0.stderr_to_stdout();
        self
    }

    /// As [`sockexec::Command::terminal`](crate::Command::terminal).
    pub fn terminal(&mut self, size: WindowSize) -> &mut Self {
        self.0.terminal(size);
        self
    }

    /// As [`sockexec::Command::output`](crate::Command::output).
    ///
    /// # Errors
    /// As there.
    pub async fn output(&mut self) -> Result<Output, Error> {
        let mut pump = self.pump(Run::Output).await?;
        let ended = pump.run().await?;
        let (stdout, stderr) = (pump.stdout.into_bytes(), pump.stderr.into_bytes());
        Ok(Output { status: ended.status, stdout, stderr, usage: ended.usage })
    }

    /// As [`sockexec::Command::status`](crate::Command::status).
    ///
    /// # Errors
    /// As there.
    pub async fn status(&mut self) -> Result<ExitStatus, Error> {
        Ok(self.pump(Run::Status).await?.run().await?.status)
    }

    /// Connects, and starts a task that serves the program.
    ///
    /// # Errors
    /// Without a connection or a pipe nothing was started. Why the program could not be, which
    /// [`sockexec::Command::spawn`](crate::Command::spawn) waits for in version 2, is what [`Child::wait`] returns here.
    pub async fn spawn(&mut self) -> Result<Child, Error> {
        let mut pump = self.pump(Run::Spawn).await?;
        let (mut stdin, mut stdout, mut stderr) = (None, None, None);
        let failed = |error| Error::Io("cannot make a pipe", error);
        if let Some(Input::Stdio(Stdio(Kind::Piped))) = &self.0.stdin {
            let (writer, reader) = pipe::pipe().map_err(failed)?;
            pump.source = Some(Box::new(reader));
            stdin = Some(writer);
        }
        for (stdio, sink, end) in
            [(&self.0.stdout, &mut pump.stdout, &mut stdout), (&self.0.stderr, &mut pump.stderr, &mut stderr)]
        {
            if let Some(Stdio(Kind::Piped)) = stdio {
                let (writer, reader) = pipe::pipe().map_err(failed)?;
                *sink = Sink::Writer(Box::new(writer));
                *end = Some(reader);
            }
        }
        let task = ::tokio::spawn(async move { pump.run().await.map(|ended| ended.status) });
        Ok(Child { stdin, stdout, stderr, task, ended: None })
    }

    /// Connects, with everything else ready.
    async fn pump(&self, run: Run) -> Result<Pump, Error> {
        self.0.check_arguments()?;
        if self.0.options.descriptors {
            return Err(Error::InvalidOption("descriptors are not passed here; the blocking Command does it"));
        }
        let deadline = self.0.ends_at();
        let source = self.source(run).map_err(Error::Stdin)?;
        let stdout =
            sink(self.0.stdout.as_ref(), run, Channel::Stdout).map_err(|error| Error::Output(Stream::Stdout, error))?;
        let stderr =
            sink(self.0.stderr.as_ref(), run, Channel::Stderr).map_err(|error| Error::Output(Stream::Stderr, error))?;
        let path = self.0.socket.clone();
        // A UNIX socket that does not block does not wait for room in the backlog either, but fails; and there
        // is no event to wait for.
        let socket = spawn_blocking(move || socket::connect(&path, deadline))
            .await
            .map_err(|error| Error::Io("cannot connect on another thread", error.into()))??;
        let socket = UnixStream::from_std(socket).map_err(|error| Error::Io("cannot set up the connection", error))?;
        let version = self.0.version;
        let outgoing = Some(Outgoing::new(version, &self.0.options, &self.0.argv));
        Ok(Pump { socket, outgoing, source, stdout, stderr, deadline, version })
    }

    fn source(&self, run: Run) -> io::Result<Option<Reader>> {
        let kind = match &self.0.stdin {
            Some(Input::Bytes(bytes)) => return Ok(Some(Box::new(Cursor::new(bytes.clone())))),
            Some(Input::Stdio(stdio)) => &stdio.0,
            None => run.stdin(),
        };
        Ok(kind.open(Channel::Stdin)?.map(|fd| Box::new(File::from_std(fd.into())) as Reader))
    }
}

fn sink(stdio: Option<&Stdio>, run: Run, channel: Channel) -> io::Result<Sink> {
    let kind = stdio.map_or(run.output(), |stdio| &stdio.0);
    match (run, kind) {
        (Run::Output, Kind::Piped) => Ok(Sink::Memory(Vec::new())),
        (_, kind) => {
            Ok(kind.open(channel)?.map_or(Sink::Nothing, |fd| Sink::Writer(Box::new(File::from_std(fd.into())))))
        }
    }
}

type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// Where a stream of output goes.
enum Sink {
    Nothing,
    Memory(Vec<u8>),
    Writer(Box<dyn AsyncWrite + Send + Unpin>),
}

impl Sink {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Memory(kept) => {
                kept.extend_from_slice(bytes);
                Ok(())
            }
            Self::Writer(writer) => writer.write_all(bytes).await,
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Nothing | Self::Memory(_) => Ok(()),
            Self::Writer(writer) => writer.flush().await,
        }
    }

    fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Memory(kept) => kept,
            Self::Nothing | Self::Writer(_) => Vec::new(),
        }
    }
}

/// One program's run. Dropped, it closes the connection.
struct Pump {
    socket: UnixStream,
    outgoing: Option<Outgoing>,
    source: Option<Reader>,
    stdout: Sink,
    stderr: Sink,
    deadline: Option<Instant>,
    version: Version,
}

impl Pump {
    async fn run(&mut self) -> Result<Ended, Error> {
        let deadline = self.deadline;
        let run = self.both_ways();
        match deadline {
            Some(deadline) => ::tokio::time::timeout_at(deadline.into(), run).await.unwrap_or(Err(Error::TimedOut)),
            None => run.await,
        }
    }

    /// Until the daemon has ended the connection; sending goes on beside it for as long as it can.
    async fn both_ways(&mut self) -> Result<Ended, Error> {
        // Not `into_split`: its writing half would half-close, which 3.1.1 takes for a disconnect.
        let (reader, writer) = self.socket.split();
        let outgoing = self.outgoing.take();
        let incoming = Incoming::new(self.version);
        let window = Mutex::new(incoming.window());
        let mut send = pin!(send(writer, outgoing, self.source.take(), &window));
        let mut receive = pin!(receive(reader, incoming, &mut self.stdout, &mut self.stderr, &window));
        // What is received is seen by the sending half at once, as it is always polled after the other.
        poll_fn(|context| match receive.as_mut().poll(context) {
            Poll::Ready(end) => Poll::Ready(end),
            Poll::Pending => send.as_mut().poll(context).map(Err),
        })
        .await
    }
}

/// Ends only by an error: what makes an end of the run is the end of the reply.
async fn send(
    mut socket: WriteHalf<'_>,
    outgoing: Option<Outgoing>,
    mut source: Option<Reader>,
    window: &Mutex<Window>,
) -> Error {
    let Some(mut outgoing) = outgoing else { return pending().await };
    if source.is_none() {
        outgoing.put_end();
    }
    loop {
        match socket.write_all(outgoing.pending()).await {
            Ok(()) => outgoing.clear(),
            // The daemon takes no more: the program has ended, and the reply that tells so can still be read.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                source = None;
            }
            Err(error) => return Error::Io("cannot send to the daemon", error),
        }
        let Some(reader) = &mut source else { return pending().await };
        match fill(reader, &mut outgoing, window).await {
            Ok(Some(n)) => {
                outgoing.put(n);
                if n == 0 {
                    source = None;
                }
            }
            Ok(None) => source = None,
            Err(error) => return Error::Stdin(error),
        }
    }
}

/// Reads a piece of standard input once there is room for it. `None`: the program has closed it.
async fn fill(reader: &mut Reader, outgoing: &mut Outgoing, window: &Mutex<Window>) -> io::Result<Option<usize>> {
    poll_fn(|context| {
        let window = *lock(window);
        if window.is_closed() {
            return Poll::Ready(Ok(None));
        }
        let room = window.room(outgoing.input());
        if room == 0 {
            return Poll::Pending;
        }
        let mut buffer = ReadBuf::new(outgoing.space(room));
        Pin::new(&mut *reader).poll_read(context, &mut buffer).map_ok(|()| Some(buffer.filled().len()))
    })
    .await
}

/// Nothing panics that holds it.
fn lock(window: &Mutex<Window>) -> MutexGuard<'_, Window> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn receive(
    mut socket: ReadHalf<'_>,
    mut incoming: Incoming,
    stdout: &mut Sink,
    stderr: &mut Sink,
    window: &Mutex<Window>,
) -> Result<Ended, Error> {
    let mut silence = Silence::default();
    let failure = loop {
        match read(&mut socket, &mut incoming, &mut silence).await? {
            Ok(0) => break None,
            Ok(n) => incoming.put(n),
            // See the blocking pump.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break Some(error),
            Err(error) => return Err(Error::Io("cannot read from the daemon", error)),
        }
        loop {
            let next = incoming.next()?.map(|(stream, bytes)| (stream, bytes.len()));
            *lock(window) = incoming.window();
            let Some((stream, len)) = next else { break };
            let sink = match stream {
                Stream::Stdout => &mut *stdout,
                Stream::Stderr => &mut *stderr,
            };
            sink.write(incoming.piece(len)).await.map_err(|error| Error::Output(stream, error))?;
            incoming.consume(len);
        }
    };
    stdout.flush().await.map_err(|error| Error::Output(Stream::Stdout, error))?;
    stderr.flush().await.map_err(|error| Error::Output(Stream::Stderr, error))?;
    incoming.finish(failure)
}

/// Reads a piece of the reply, or gives up a daemon that has read the request and does not introduce itself: it does not know
/// version 2.
async fn read(
    socket: &mut ReadHalf<'_>,
    incoming: &mut Incoming,
    silence: &mut Silence,
) -> Result<io::Result<usize>, Error> {
    while incoming.awaits_introduction() {
        if let Ok(read) = ::tokio::time::timeout(LOOK, socket.read(incoming.space())).await {
            return Ok(read);
        }
        silence.mind(socket.as_ref())?;
    }
    Ok(socket.read(incoming.space()).await)
}

/// A program that was started with [`Command::spawn`], as [`sockexec::Child`](crate::Child).
///
/// Dropping it does not end the program, but the end of the runtime does.
#[derive(Debug)]
pub struct Child {
    /// The writing end of the program's standard input, if it is [`piped`](Stdio::piped). Dropped, it ends it.
    pub stdin: Option<pipe::Sender>,
    /// The reading end of the program's standard output, if it is [`piped`](Stdio::piped).
    pub stdout: Option<pipe::Receiver>,
    /// The reading end of the program's standard error, if it is [`piped`](Stdio::piped).
    pub stderr: Option<pipe::Receiver>,
    task: JoinHandle<Result<ExitStatus, Error>>,
    ended: Option<Result<ExitStatus, Error>>,
}

impl Child {
    /// Closes standard input, if it is still here, and waits for the program's end and the last of its
    /// output. May be dropped and called again.
    ///
    /// # Errors
    /// Why there is no status; the same each time it is asked.
    pub async fn wait(&mut self) -> Result<ExitStatus, Error> {
        drop(self.stdin.take());
        if self.ended.is_none() {
            // A task that was cancelled: by `kill`, or by the end of its runtime, which comes to the same.
            self.ended = Some((&mut self.task).await.unwrap_or(Err(Error::Killed)));
        }
        match &self.ended {
            Some(Ok(status)) => Ok(*status),
            Some(Err(error)) => Err(error.again()),
            None => Err(Error::Killed),
        }
    }

    /// Ends the program, if it has not ended yet, by closing the connection: see
    /// [`sockexec::Child::kill`](crate::Child::kill).
    pub fn kill(&mut self) {
        self.task.abort();
    }
}

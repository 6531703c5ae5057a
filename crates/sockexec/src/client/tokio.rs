//! The client for tokio: nothing here blocks the runtime's own threads.
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
//! In addition to the documentation of [`sockexec::Command`](crate::Command):
//!
//! - Each program is served by a thread of its own, as a blocking [`Child`](crate::Child) is. Nothing of it
//!   runs on the runtime's threads, including those for blocking work. So a standard input that never
//!   delivers anything holds up neither them nor the end of the runtime.
//! - Dropping a future of a [`Command`] closes the connection, so the daemon ends the program, whatever
//!   [`Command::kill_on_drop`] says: that is for a [`Child`], also one that is dropped with the future of its
//!   [`wait_with_output`](Child::wait_with_output).
//! - If the daemon has no room for a connection, it is tried again every few milliseconds. So others that
//!   wait in connect(2), as the blocking [`Command`](crate::Command) does, may come first.
//! - The runtime must have I/O and time enabled.

mod access;
mod handle;
mod pipes;
mod query;

use std::ffi::OsStr;
use std::future::{Future as _, poll_fn};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use ::tokio::io::AsyncReadExt as _;
use ::tokio::net::unix::pipe;
use ::tokio::sync::oneshot::{self, error::TryRecvError};

use super::child::{ChildHandle as Handle, no_thread, on_a_thread};
use super::orders::Tell;
use super::pipes::Pipes;
use super::pump::Pump;
use super::socket;
use super::stdio::Stdio;
use super::waiting::{Patience, Waiting};
use super::wire::Ended;
use super::{Error, ExitStatus, Output, Run, Signal, Usage, Version, WindowSize};

/// How soon to try again if the daemon has no room: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

pub use handle::ChildHandle;
pub use pipes::{ChildStderr, ChildStdin, ChildStdout};
pub use query::{daemon_status, ping};

/// A program to be run by a daemon: [`sockexec::Command`](crate::Command) with asynchronous methods to run
/// it. Each can be made from the other.
#[derive(Debug, Clone)]
pub struct Command(super::Command, OnDrop);

/// What happens to a program whose [`Child`] is dropped.
#[derive(Debug, Clone, Copy, Default)]
enum OnDrop {
    #[default]
    GoesOn,
    Killed,
}

impl Command {
    /// As [`sockexec::Command::new`](crate::Command::new).
    pub fn new(socket: impl AsRef<Path>, program: impl AsRef<OsStr>) -> Self {
        super::Command::new(socket, program).into()
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

    /// As [`sockexec::Command::client_timeout`](crate::Command::client_timeout).
    pub fn client_timeout(&mut self, timeout: impl Into<Option<Duration>>) -> &mut Self {
        self.0.client_timeout(timeout);
        self
    }

    /// As [`sockexec::Command::start_timeout`](crate::Command::start_timeout).
    pub fn start_timeout(&mut self, timeout: impl Into<Option<Duration>>) -> &mut Self {
        self.0.start_timeout(timeout);
        self
    }

    /// As [`sockexec::Command::on_wait`](crate::Command::on_wait).
    pub fn on_wait(&mut self, tell: impl Fn(Waiting) + Send + Sync + 'static) -> &mut Self {
        self.0.on_wait(tell);
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

    /// As [`sockexec::Command::daemon_timeout`](crate::Command::daemon_timeout).
    pub fn daemon_timeout(&mut self, timeout: impl Into<Option<Duration>>) -> &mut Self {
        self.0.daemon_timeout(timeout);
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

    /// As [`sockexec::Command::terminal_type`](crate::Command::terminal_type).
    pub fn terminal_type(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.0.terminal_type(name);
        self
    }

    /// As [`sockexec::Command::terminal_utf8`](crate::Command::terminal_utf8).
    pub fn terminal_utf8(&mut self) -> &mut Self {
        self.0.terminal_utf8();
        self
    }

    /// As [`sockexec::Command::pass_stdio`](crate::Command::pass_stdio).
    pub fn pass_stdio(&mut self) -> &mut Self {
        self.0.pass_stdio();
        self
    }

    /// Whether dropping a [`Child`] while its program runs [kills](Child::start_kill) it, without waiting for
    /// its end. Default: no.
    ///
    /// The same as for tokio's own, except that the program ends with this process in any case.
    pub fn kill_on_drop(&mut self, kill: bool) -> &mut Self {
        self.1 = if kill { OnDrop::Killed } else { OnDrop::GoesOn };
        self
    }

    /// As [`sockexec::Command::output`](crate::Command::output).
    ///
    /// # Errors
    /// As there.
    pub async fn output(&mut self) -> Result<Output, Error> {
        if self.0.options.descriptors {
            let child = self.spawn_as(Run::Output).await?;
            // It does nothing after the program's end.
            let _guard = DisconnectOnDrop(Some(child.handle.clone()));
            return child.wait_with_output().await;
        }
        run(self.pump(Run::Output, &mut Pipes::default()).await?).await
    }

    /// As [`sockexec::Command::status`](crate::Command::status).
    ///
    /// # Errors
    /// As there.
    pub async fn status(&mut self) -> Result<ExitStatus, Error> {
        Ok(run(self.pump(Run::Status, &mut Pipes::default()).await?).await?.status)
    }

    /// As [`sockexec::Command::spawn`](crate::Command::spawn). Dropping the future before it is ready ends
    /// the program.
    ///
    /// # Errors
    /// As there.
    pub async fn spawn(&mut self) -> Result<Child, Error> {
        self.spawn_as(Run::Spawn).await
    }

    async fn spawn_as(&self, run: Run) -> Result<Child, Error> {
        let mut pipes = Pipes::default();
        let mut pump = self.pump(run, &mut pipes).await?;
        self.0.pipe(&mut pump, &mut pipes)?;
        let failed = |error| Error::Io("cannot set up a pipe", error);
        let stdin = pipes.stdin.map(ChildStdin::new).transpose().map_err(failed)?;
        let stdout = pipes.stdout.map(ChildStdout::new).transpose().map_err(failed)?;
        let stderr = pipes.stderr.map(ChildStderr::new).transpose().map_err(failed)?;
        let handle = Handle::to(&mut pump)?;
        let mut guard = DisconnectOnDrop(Some(handle.clone()));
        let (started, has_started) = oneshot::channel();
        pump.started = Some(Tell::new(move |pid| started.send(pid)));
        let (end, mut ended) = oneshot::channel();
        on_a_thread(move || {
            let ended = pump.run();
            drop(pump);
            drop(end.send(ended));
        })?;
        let Ok(pid) = has_started.await else {
            // A status without a program ends up here as well.
            return Err(outcome(&mut ended).await.err().unwrap_or(Error::Unsupported));
        };
        guard.0 = None;
        let on_drop = KillOnDrop(matches!(self.1, OnDrop::Killed).then(|| handle.clone()));
        Ok(Child { _on_drop: on_drop, stdin, stdout, stderr, pid, handle, run: Going::Running(ended) })
    }

    /// Connects, and prepares everything else. Nothing is sent yet.
    async fn pump(&self, run: Run, pipes: &mut Pipes) -> Result<Pump, Error> {
        self.0.check_arguments()?;
        let mut patience = self.0.patience();
        let socket = connect(&self.0.socket, &mut patience).await?;
        self.0.pump_on(socket, patience, run, pipes)
    }
}

/// Connects. No thread waits, so that dropped futures leave none behind.
async fn connect(path: &Path, patience: &mut Patience) -> Result<UnixStream, Error> {
    let (mut pause, longest) = PAUSES;
    loop {
        // Before the limits, as without tokio.
        if let Some(socket) = socket::try_connect(path)? {
            return Ok(socket);
        }
        patience.mind(|| Waiting::Connection)?;
        let left = patience.left()?;
        ::tokio::time::sleep(left.map_or(pause, |left| left.min(pause))).await;
        pause = (pause * 2).min(longest);
    }
}

/// Runs a program to its end. Returns the output that was kept in memory.
async fn run(mut pump: Pump) -> Result<Output, Error> {
    let _guard = DisconnectOnDrop(Some(Handle::to(&mut pump)?));
    let (end, mut ended) = oneshot::channel();
    on_a_thread(move || {
        let ended = pump.run();
        drop(end.send(super::Command::collected(ended, pump)));
    })?;
    outcome(&mut ended).await
}

async fn outcome<T>(ended: &mut oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
    // The pump does not panic; if it did, nothing is known about the program.
    ended.await.unwrap_or_else(|_| Err(no_thread()))
}

/// Closes the connection once nobody waits for the program any more.
struct DisconnectOnDrop(Option<Handle>);

impl Drop for DisconnectOnDrop {
    fn drop(&mut self) {
        if let Some(program) = &self.0 {
            program.disconnect();
        }
    }
}

/// Separate from the [`Child`], so that its pipes can be moved out of it. Does nothing after the program's
/// end.
#[derive(Debug)]
struct KillOnDrop(Option<Handle>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(program) = &self.0 {
            // It cannot fail.
            let _ = program.kill();
        }
    }
}

/// A program that was started with [`Command::spawn`], as [`sockexec::Child`](crate::Child).
///
/// Dropping it does not end the program, unless [`Command::kill_on_drop`] was called. Nor does the end of the
/// runtime, but the end of this process does.
#[derive(Debug)]
pub struct Child {
    /// First, so that the program is killed before it sees its input end.
    _on_drop: KillOnDrop,
    /// The writing end of the program's standard input, if it is [`piped`](Stdio::piped). Dropping it ends
    /// the input.
    pub stdin: Option<ChildStdin>,
    /// The reading end of the program's standard output, if it is [`piped`](Stdio::piped).
    pub stdout: Option<ChildStdout>,
    /// The reading end of the program's standard error, if it is [`piped`](Stdio::piped).
    pub stderr: Option<ChildStderr>,
    pid: Option<u32>,
    handle: Handle,
    run: Going,
}

#[derive(Debug)]
enum Going {
    Running(oneshot::Receiver<Result<Ended, Error>>),
    Ended(Result<Ended, Error>),
}

impl Child {
    /// As [`sockexec::Child::id`](crate::Child::id).
    #[must_use]
    pub const fn id(&self) -> Option<u32> {
        self.pid
    }

    /// Closes standard input, if it is still here, and waits for the program's end and the last of its
    /// output. May be dropped and called again.
    ///
    /// # Errors
    /// Why there is no status; the same error on each call.
    pub async fn wait(&mut self) -> Result<ExitStatus, Error> {
        drop(self.stdin.take());
        if let Going::Running(ended) = &mut self.run {
            self.run = Going::Ended(outcome(ended).await);
        }
        self.ended()
    }

    /// As [`sockexec::Child::try_wait`](crate::Child::try_wait).
    ///
    /// # Errors
    /// As there.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, Error> {
        if let Going::Running(ended) = &mut self.run {
            self.run = Going::Ended(match ended.try_recv() {
                Ok(ended) => ended,
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Closed) => Err(no_thread()),
            });
        }
        self.ended().map(Some)
    }

    fn ended(&self) -> Result<ExitStatus, Error> {
        match &self.run {
            Going::Ended(Ok(ended)) => Ok(ended.status),
            Going::Ended(Err(error)) => Err(error.again()),
            Going::Running(_) => Err(no_thread()),
        }
    }

    /// As [`sockexec::Child::wait_with_output`](crate::Child::wait_with_output).
    ///
    /// # Errors
    /// As there.
    pub async fn wait_with_output(mut self) -> Result<Output, Error> {
        drop(self.stdin.take());
        let (stdout, stderr) = read_both(self.stdout.take(), self.stderr.take())
            .await
            .map_err(|error| Error::Io("cannot read the program's output", error))?;
        let status = match self.wait().await {
            Ok(status) => status,
            Err(error) => return Err(error.with_output(stdout, stderr)),
        };
        Ok(Output { status, stdout, stderr, usage: self.usage() })
    }

    /// As [`sockexec::Child::signal`](crate::Child::signal).
    ///
    /// # Errors
    /// As there.
    pub async fn signal(&self, signal: impl Into<Signal>) -> Result<(), Error> {
        handle::signal(&self.handle, signal.into()).await
    }

    /// As [`sockexec::Child::handle`](crate::Child::handle).
    #[must_use]
    pub fn handle(&self) -> ChildHandle {
        self.handle.clone().into()
    }

    /// As [`sockexec::Child::resize`](crate::Child::resize).
    ///
    /// # Errors
    /// As there.
    pub fn resize(&self, size: WindowSize) -> Result<(), Error> {
        self.handle.resize(size)
    }

    /// As [`sockexec::Child::usage`](crate::Child::usage).
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        match &self.run {
            Going::Ended(Ok(ended)) => ended.usage,
            Going::Ended(Err(Error::Failed { usage, .. })) => *usage,
            Going::Ended(Err(_)) | Going::Running(_) => None,
        }
    }

    /// As [`sockexec::Child::kill`](crate::Child::kill), without waiting for the end.
    ///
    /// # Errors
    /// As there.
    pub fn start_kill(&mut self) -> Result<(), Error> {
        self.handle.kill()
    }

    /// The same, and waits for the end; [`wait`](Self::wait) then returns how the program ended.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait), except [`Error::Killed`], which is the intended result.
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.start_kill()?;
        match self.wait().await {
            Ok(_) | Err(Error::Killed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// As [`sockexec::Child::disconnect`](crate::Child::disconnect).
    pub fn disconnect(&mut self) {
        self.handle.disconnect();
    }
}

/// Reads both at the same time: the program may fill either one while this waits for the other.
async fn read_both(stdout: Option<ChildStdout>, stderr: Option<ChildStderr>) -> io::Result<(Vec<u8>, Vec<u8>)> {
    async fn read(from: Option<pipe::Receiver>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            from.read_to_end(&mut bytes).await?;
        }
        Ok(bytes)
    }
    let mut stdout = pin!(read(stdout.map(ChildStdout::into_inner)));
    let mut stderr = pin!(read(stderr.map(ChildStderr::into_inner)));
    let (mut out, mut err) = (None, None);
    poll_fn(|context| {
        for (bytes, reader) in [(&mut out, &mut stdout), (&mut err, &mut stderr)] {
            if bytes.is_none()
                && let Poll::Ready(read) = reader.as_mut().poll(context)?
            {
                *bytes = Some(read);
            }
        }
        match (out.take(), err.take()) {
            (Some(out), Some(err)) => Poll::Ready(Ok((out, err))),
            unfinished => {
                (out, err) = unfinished;
                Poll::Pending
            }
        }
    })
    .await
}

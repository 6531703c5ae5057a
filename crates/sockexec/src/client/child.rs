//! A program that runs while the caller does something else.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::orders::{self, Order, OrderSender, Tell};
use super::pipes::{ChildStderr, ChildStdin, ChildStdout, Pipes};
use super::pump::Pump;
use super::wire::Ended;
use super::{Error, ExitStatus, Output, Signal, Usage, Version, WindowSize};

/// How long it may take to send a signal. The daemon reads at once unless it is stopped or its system is very
/// busy.
pub(super) const SIGNAL_PATIENCE: Duration = Duration::from_secs(1);

/// A program that was started with [`Command::spawn`](super::Command::spawn), as [`std::process::Child`].
///
/// A thread of this process moves the program's streams between the daemon and the pipes. The two output
/// streams share one connection. So, as with any child, a full pipe that nobody reads stops the other stream
/// as well; [`Child::wait_with_output`] reads both.
/// In version 2 of the protocol a pipe ends when the program has closed the stream, as with any child; in version 1,
/// which does not report that, when the program has ended.
///
/// # Dropping
///
/// As in the standard library, dropping a `Child` does not end the program, and what it still writes to
/// streams that are not pipes of the `Child` arrives. Standard input, if it is a pipe in the `Child`, ends.
/// Output into a pipe whose reader was dropped closes the connection, where it would have raised SIGPIPE.
///
/// Unlike there, the program does not outlive this process: when the process exits, the connection closes,
/// and the daemon ends the program (TERM and CONT to its process group, KILL some seconds later).
#[derive(Debug)]
pub struct Child {
    /// The writing end of the program's standard input, if it is [`piped`](super::Stdio::piped).
    pub stdin: Option<ChildStdin>,
    /// The reading end of the program's standard output, if it is [`piped`](super::Stdio::piped).
    pub stdout: Option<ChildStdout>,
    /// The reading end of the program's standard error, if it is [`piped`](super::Stdio::piped).
    pub stderr: Option<ChildStderr>,
    run: Run,
    pid: Option<u32>,
    handle: ChildHandle,
}

#[derive(Debug)]
enum Run {
    Going(Option<JoinHandle<Result<Ended, Error>>>),
    Ended(Result<Ended, Error>),
}

/// Acts on a program from another thread while [`Child::wait`] has the [`Child`].
#[derive(Debug, Clone)]
pub struct ChildHandle {
    orders: Arc<OrderSender>,
    version: Version,
}

impl ChildHandle {
    /// A handle to the program that this pump will serve. The pump must not run yet.
    pub(super) fn to(pump: &mut Pump) -> Result<Self, Error> {
        let (sender, orders) = orders::channel()?;
        pump.orders = Some(orders);
        Ok(Self { orders: Arc::new(sender), version: pump.version })
    }

    /// As [`Child::kill`].
    ///
    /// # Errors
    /// As there.
    pub fn kill(&self) -> Result<(), Error> {
        self.orders.send(Order::Kill);
        Ok(())
    }

    /// As [`Child::disconnect`].
    pub fn disconnect(&self) {
        self.orders.send(Order::Disconnect);
    }

    /// As [`Child::signal`].
    ///
    /// # Errors
    /// As there.
    pub fn signal(&self, signal: impl Into<Signal>) -> Result<(), Error> {
        let (sent, was_sent) = mpsc::channel();
        self.send_signal(signal.into(), Tell::new(move |()| sent.send(())))?;
        match was_sent.recv_timeout(SIGNAL_PATIENCE) {
            Ok(()) => Ok(()),
            Err(RecvTimeoutError::Timeout) => Err(Error::NotDelivered { ended: false }),
            Err(RecvTimeoutError::Disconnected) => Err(Error::NotDelivered { ended: true }),
        }
    }

    /// As [`Child::resize`].
    ///
    /// # Errors
    /// As there.
    pub fn resize(&self, size: WindowSize) -> Result<(), Error> {
        self.needs_version_2()?;
        self.orders.send(Order::Resize(size));
        Ok(())
    }

    /// Calls `sent` once the signal was sent. If `sent` is dropped, it never will be.
    pub(super) fn send_signal(&self, signal: Signal, sent: Tell<()>) -> Result<(), Error> {
        self.needs_version_2()?;
        if signal.number() <= 0 {
            // The daemon would treat it as a bad request, and end the program.
            return Err(Error::InvalidOption("the number of a signal must be above 0"));
        }
        self.orders.send(Order::Signal(signal, sent));
        Ok(())
    }

    fn needs_version_2(&self) -> Result<(), Error> {
        match self.version {
            Version::One => {
                Err(Error::InvalidOption("this needs version 2 of the protocol; ask for it with Command::version"))
            }
            Version::Two => Ok(()),
        }
    }
}

impl Child {
    pub(super) fn start(mut pump: Pump, pipes: Pipes) -> Result<Self, Error> {
        let handle = ChildHandle::to(&mut pump)?;
        let (started, has_started) = mpsc::channel();
        pump.started = Some(Tell::new(move |pid| started.send(pid)));
        let thread = on_a_thread(move || pump.run())?;
        let Ok(pid) = has_started.recv() else {
            // A status without a program ends up here as well.
            return Err(join(Some(thread)).err().unwrap_or(Error::Unsupported));
        };
        Ok(Self {
            stdin: pipes.stdin.map(ChildStdin),
            stdout: pipes.stdout.map(ChildStdout),
            stderr: pipes.stderr.map(ChildStderr),
            run: Run::Going(Some(thread)),
            pid,
            handle,
        })
    }

    /// The pid of the program's process, in the daemon's PID namespace. `None` in version 1 of the protocol,
    /// which does not report it.
    ///
    /// It is for people and logs: only the daemon knows how long it stands for this program.
    #[must_use]
    pub const fn id(&self) -> Option<u32> {
        self.pid
    }

    /// A handle that acts on the program from another thread.
    #[must_use]
    pub fn handle(&self) -> ChildHandle {
        self.handle.clone()
    }

    /// Sends a signal to the program's process group (with a terminal, the program has a session of its own).
    /// A number above 0 that is no signal ends the program: only the daemon's system knows, and the daemon
    /// refuses the number and with it the connection.
    ///
    /// The signal arrives even if the program does not read its standard input, as no more input is sent than
    /// the daemon has room for. Returns once the signal was sent, which is at once unless the daemon is
    /// stopped. The daemon forwards it, unless it finds that the program has just ended.
    ///
    /// # Errors
    /// [`Error::NotDelivered`]: the program has ended, or the signal could not be sent within a second.
    /// [`Error::InvalidOption`]: the connection uses version 1 of the protocol, which has no signals, or the
    /// number is not above 0.
    pub fn signal(&self, signal: impl Into<Signal>) -> Result<(), Error> {
        self.handle.signal(signal)
    }

    /// Gives the program's [terminal](super::Command::terminal) another size; its foreground process group
    /// gets SIGWINCH. Without a terminal, the daemon treats this as a bad request, and ends the program.
    ///
    /// # Errors
    /// [`Error::InvalidOption`]: the connection uses version 1 of the protocol, which has no terminals.
    pub fn resize(&self, size: WindowSize) -> Result<(), Error> {
        self.handle.resize(size)
    }

    /// The resources that the program and those of its children that it waited for have used, once
    /// [`wait`](Self::wait) or [`try_wait`](Self::try_wait) has seen its end. `None` also in version 1 of the
    /// protocol, and if the daemon's system does not report them.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        match &self.run {
            Run::Ended(Ok(ended)) => ended.usage,
            Run::Ended(Err(Error::Failed { usage, .. })) => *usage,
            Run::Ended(Err(_)) | Run::Going(_) => None,
        }
    }

    /// Closes standard input, if it is still here, and waits for the program's end and the last of its output.
    ///
    /// As with a child of the standard library, pipes that nobody reads can keep the program from ending: see
    /// [`Child::wait_with_output`].
    ///
    /// # Errors
    /// Why there is no status; the same error on each call.
    pub fn wait(&mut self) -> Result<ExitStatus, Error> {
        drop(self.stdin.take());
        if let Run::Going(thread) = &mut self.run {
            self.run = Run::Ended(join(thread.take()));
        }
        self.ended()
    }

    /// The status, if the program has ended and the last of its output was delivered. Does not wait, and
    /// leaves standard input open.
    ///
    /// # Errors
    /// Why there is no status, and never will be.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, Error> {
        if let Run::Going(thread) = &mut self.run {
            if thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
                return Ok(None);
            }
            self.run = Run::Ended(join(thread.take()));
        }
        self.ended().map(Some)
    }

    /// Closes standard input, reads both output streams to their end, if they are pipes that are still here,
    /// and waits for the program.
    ///
    /// # Errors
    /// Why there is no status. [`Error::output`] has what was read until then.
    pub fn wait_with_output(mut self) -> Result<Output, Error> {
        drop(self.stdin.take());
        let (stdout, stderr) = read_both(self.stdout.take(), self.stderr.take())
            .map_err(|error| Error::Io("cannot read the program's output", error))?;
        let status = match self.wait() {
            Ok(status) => status,
            Err(error) => return Err(error.with_output(stdout, stderr)),
        };
        Ok(Output { status, stdout, stderr, usage: self.usage() })
    }

    /// Ends the program, if it has not ended yet, by SIGKILL to its process group, and returns at once.
    /// [`Child::wait`] then returns how it ended, and does not wait for output that nobody reads: the streams
    /// end where they are.
    ///
    /// Version 1 of the protocol has no signals. There this is [`Child::disconnect`].
    ///
    /// # Errors
    /// None. There is a result because the standard library has one.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.handle.kill()
    }

    /// Closes the connection, which ends the program whatever it and the daemon do, in both versions of the
    /// protocol. The daemon sends TERM and CONT to the program's process group, and KILL after its
    /// `--kill-timeout` (10 seconds by default). How the program ended is not reported: [`Child::wait`]
    /// returns [`Error::Killed`], unless the status had come before.
    pub fn disconnect(&mut self) {
        self.handle.disconnect();
    }

    fn ended(&self) -> Result<ExitStatus, Error> {
        match &self.run {
            Run::Ended(Ok(ended)) => Ok(ended.status),
            Run::Ended(Err(error)) => Err(error.again()),
            Run::Going(_) => Err(no_thread()),
        }
    }
}

/// Runs what serves a program on a thread of its own.
pub(super) fn on_a_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Error> {
    let thread = thread::Builder::new().name("sockexec-client".to_owned());
    thread.spawn(run).map_err(|error| Error::Io("cannot start a thread", error))
}

fn join(thread: Option<JoinHandle<Result<Ended, Error>>>) -> Result<Ended, Error> {
    // The pump does not panic; if it did, nothing is known about the program.
    thread.and_then(|thread| thread.join().ok()).unwrap_or_else(|| Err(no_thread()))
}

pub(super) fn no_thread() -> Error {
    Error::Io("the thread that serves the program is gone", io::ErrorKind::Other.into())
}

/// Reads both at the same time: the program may fill either one while this waits for the other.
fn read_both(stdout: Option<ChildStdout>, stderr: Option<ChildStderr>) -> io::Result<(Vec<u8>, Vec<u8>)> {
    fn read(from: Option<impl Read>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match from {
            Some(mut from) => from.read_to_end(&mut bytes).map(|_| bytes),
            None => Ok(bytes),
        }
    }
    if stderr.is_none() {
        return Ok((read(stdout)?, Vec::new()));
    }
    thread::scope(|scope| {
        let stderr = thread::Builder::new().spawn_scoped(scope, || read(stderr))?;
        let stdout = read(stdout);
        let stderr = stderr.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        Ok((stdout?, stderr?))
    })
}

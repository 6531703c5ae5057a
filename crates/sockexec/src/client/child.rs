//! A program that runs while the caller does something else.

use std::io::{self, IoSlice, IoSliceMut, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::pump::Pump;
use super::{Error, ExitStatus, Output};

/// A program that was started with [`Command::spawn`](super::Command::spawn), as [`std::process::Child`].
///
/// A thread of this process moves the program's streams between the daemon and the pipes. The two output
/// streams share one connection, so, as with any child, whoever leaves one of the two pipes unread while it
/// is full stops the other as well; [`Child::wait_with_output`] reads both.
///
/// # Dropping
///
/// As in the standard library, dropping a `Child` does not end the program, and what it still writes to
/// streams that are not pipes of the `Child` arrives. Standard input, if it is a pipe in the `Child`, ends;
/// output into a pipe whose reader was dropped closes the connection, as it would have raised SIGPIPE.
///
/// Unlike there, the program does not outlive this process: when it exits, the connection closes, and the
/// daemon ends the program (TERM and CONT to its process group, KILL some seconds later).
#[derive(Debug)]
pub struct Child {
    /// The writing end of the program's standard input, if it is [`piped`](super::Stdio::piped).
    pub stdin: Option<ChildStdin>,
    /// The reading end of the program's standard output, if it is [`piped`](super::Stdio::piped).
    pub stdout: Option<ChildStdout>,
    /// The reading end of the program's standard error, if it is [`piped`](super::Stdio::piped).
    pub stderr: Option<ChildStderr>,
    run: Run,
}

#[derive(Debug)]
enum Run {
    Going { thread: Option<JoinHandle<Result<ExitStatus, Error>>>, kill: KillSender },
    Ended(Result<ExitStatus, Error>),
}

impl Child {
    pub(super) fn start(mut pump: Pump, pipes: Pipes) -> Result<Self, Error> {
        let (kill, orders) = kill_channel()?;
        pump.kill = Some(orders);
        let thread = thread::Builder::new()
            .name("sockexec-client".to_owned())
            .spawn(move || pump.run())
            .map_err(|error| Error::Io("cannot start a thread", error))?;
        Ok(Self {
            stdin: pipes.stdin.map(ChildStdin),
            stdout: pipes.stdout.map(ChildStdout),
            stderr: pipes.stderr.map(ChildStderr),
            run: Run::Going { thread: Some(thread), kill },
        })
    }

    /// Closes standard input, if it is still here, and waits for the program's end and the last of its output.
    ///
    /// Like a child's in the standard library, pipes that are left unread here can keep the program from
    /// ending: see [`Child::wait_with_output`].
    ///
    /// # Errors
    /// Why there is no status; the same each time it is asked.
    pub fn wait(&mut self) -> Result<ExitStatus, Error> {
        drop(self.stdin.take());
        if let Run::Going { thread, .. } = &mut self.run {
            self.run = Run::Ended(join(thread.take()));
        }
        self.ended()
    }

    /// The status, if the program has ended and the last of its output was delivered; does not wait, and
    /// leaves standard input open.
    ///
    /// # Errors
    /// Why there is no status, and never will be.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, Error> {
        if let Run::Going { thread, .. } = &mut self.run {
            if thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
                return Ok(None);
            }
            self.run = Run::Ended(join(thread.take()));
        }
        self.ended().map(Some)
    }

    /// Closes standard input, reads both output streams to their end, as far as they are pipes that are
    /// still here, and waits for the program.
    ///
    /// # Errors
    /// Why there is no status. What was read until then is lost; to have it, read the pipes yourself.
    pub fn wait_with_output(mut self) -> Result<Output, Error> {
        drop(self.stdin.take());
        let (stdout, stderr) = read_both(self.stdout.take(), self.stderr.take())
            .map_err(|error| Error::Io("cannot read the program's output", error))?;
        let status = self.wait()?;
        Ok(Output { status, stdout, stderr })
    }

    /// Ends the program, if it has not ended yet.
    ///
    /// Version 1 of the protocol has no other way than to close the connection: the daemon then sends TERM
    /// and CONT to the program's process group, and KILL when its `--kill-timeout` (10 seconds, unless it
    /// was told otherwise) is over. How the program ended is not told: [`Child::wait`] returns
    /// [`Error::Killed`], unless the status had come before.
    ///
    /// # Errors
    /// None is known; the result leaves room for a way that can fail.
    pub fn kill(&mut self) -> Result<(), Error> {
        match &mut self.run {
            Run::Going { kill, .. } => kill.send(),
            Run::Ended(_) => Ok(()),
        }
    }

    fn ended(&self) -> Result<ExitStatus, Error> {
        match &self.run {
            Run::Ended(Ok(status)) => Ok(*status),
            Run::Ended(Err(error)) => Err(error.again()),
            Run::Going { .. } => Err(no_thread()),
        }
    }
}

fn join(thread: Option<JoinHandle<Result<ExitStatus, Error>>>) -> Result<ExitStatus, Error> {
    // The pump does not panic; if it did, nothing is known of the program.
    thread.and_then(|thread| thread.join().ok()).unwrap_or_else(|| Err(no_thread()))
}

fn no_thread() -> Error {
    Error::Io("the thread that serves the program is gone", io::ErrorKind::Other.into())
}

/// Reads both at the same time: the program may fill either while the other is waited for.
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

/// The caller's ends of the pipes.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pub(super) stdin: Option<PipeWriter>,
    pub(super) stdout: Option<PipeReader>,
    pub(super) stderr: Option<PipeReader>,
}

/// The pump's end of what [`KillSender`] sends.
#[derive(Debug)]
pub(super) struct KillReceiver(Arc<PipeReader>);

/// A child's hold on its pump: a pipe, so that it is an event like any other.
#[derive(Debug)]
struct KillSender {
    pipe: PipeWriter,
    sent: bool,
    /// Kept, so that to send when the pump is gone raises no SIGPIPE.
    _reader: Arc<PipeReader>,
}

fn kill_channel() -> Result<(KillSender, KillReceiver), Error> {
    let (reader, pipe) = io::pipe().map_err(|error| Error::Io("cannot make a pipe", error))?;
    let reader = Arc::new(reader);
    Ok((KillSender { pipe, sent: false, _reader: Arc::clone(&reader) }, KillReceiver(reader)))
}

impl KillSender {
    fn send(&mut self) -> Result<(), Error> {
        if !self.sent {
            self.pipe.write_all(b"k").map_err(|error| Error::Io("cannot close the connection", error))?;
            self.sent = true;
        }
        Ok(())
    }
}

impl KillReceiver {
    /// Called when there is something to see: whether the order was sent. Otherwise the child is gone.
    pub(super) fn was_sent(&self) -> bool {
        matches!((&*self.0).read(&mut [0]), Ok(1))
    }
}

impl AsFd for KillReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The writing end of a program's standard input. Dropped, it ends it.
#[derive(Debug)]
pub struct ChildStdin(PipeWriter);

impl Write for ChildStdin {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The reading end of a program's standard output.
#[derive(Debug)]
pub struct ChildStdout(PipeReader);

/// The reading end of a program's standard error.
#[derive(Debug)]
pub struct ChildStderr(PipeReader);

macro_rules! read {
    ($($type:ty)*) => {$(
        impl Read for $type {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(buffer)
            }

            fn read_vectored(&mut self, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                self.0.read_vectored(slices)
            }
        }
    )*};
}

read!(ChildStdout ChildStderr);

macro_rules! descriptor {
    ($($type:ty)*) => {$(
        impl AsFd for $type {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }

        impl From<$type> for OwnedFd {
            fn from(from: $type) -> Self {
                from.0.into()
            }
        }
    )*};
}

descriptor!(ChildStdin ChildStdout ChildStderr);

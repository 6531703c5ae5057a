//! A program that runs for a connection: its group and our ends of its pipes.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use sockexec_proto::Stream;

use crate::engine::StartError;
use crate::sys::group::Group;
use crate::sys::spawn::{self, Failure, Spawner, Start};
use crate::sys::splice::{Grown, Splicer};

/// How often a pipe is found full before it is grown.
const TIMES_FULL: u8 = 2;

/// The size of a pipe that was not grown, in bytes (pipe(7)).
pub(crate) const PIPE_SIZE: usize = 64 << 10;

/// One of our ends of a program's pipes.
#[derive(Debug)]
pub(crate) struct Pipe {
    descriptor: OwnedFd,
    registered: bool,
    /// It may be ready: nothing has said EAGAIN since it last was.
    pub(crate) ready: bool,
    /// So much is still taken of it; then it counts as ended.
    pub(crate) left: Option<usize>,
    /// The last read found more than it could take: the stream may be worth splicing.
    pub(crate) big: bool,
    /// How often it was found full.
    full: u8,
    grown: Option<Grown>,
}

impl Pipe {
    fn new(descriptor: OwnedFd) -> Self {
        Self { descriptor, registered: false, ready: true, left: None, big: false, full: 0, grown: None }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Notes that it was found full, and has it grown when that was so twice: a megabyte is pinned only for a stream
    /// that has shown that it is big. True: there is more room now.
    pub(crate) fn found_full(&mut self, splicer: &Splicer) -> bool {
        self.full = self.full.saturating_add(1);
        if self.full == TIMES_FULL {
            self.grown = splicer.grow(&self.descriptor);
        }
        self.full == TIMES_FULL && self.grown.is_some()
    }

    /// Asks to be told, once, when it is ready again.
    ///
    /// Registered only when it was found not to be: many a pipe is never waited for.
    pub(crate) fn wait(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.ready = false;
        if !self.registered {
            registry.register(&mut SourceFd(&self.descriptor.as_raw_fd()), token, interest)?;
            self.registered = true;
        }
        Ok(())
    }

    /// Closes it.
    ///
    /// Deregistered first: a child between clone and exec may hold a copy, and closing ours alone
    /// would leave epoll telling of it (epoll(7), Q6).
    pub(crate) fn close(self, registry: &Registry) {
        if self.registered {
            let _ = registry.deregister(&mut SourceFd(&self.descriptor.as_raw_fd()));
        }
    }
}

/// A started program.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) group: Group,
    pub(crate) stdin: Option<Pipe>,
    pub(crate) stdout: Option<Pipe>,
    pub(crate) stderr: Option<Pipe>,
    program: CString,
    start: Start,
    watched: bool,
}

impl Child {
    /// Starts `argv`.
    ///
    /// # Errors
    /// What the client is told: an exit code as shells have them, and the system's words.
    pub(crate) fn start(spawner: &mut Spawner, argv: Vec<CString>) -> Result<Self, StartError> {
        let program = argv.first().cloned().unwrap_or_default();
        let started = spawner.spawn(argv).map_err(|error| start_error(&program, &error))?;
        Ok(Self {
            program,
            start: started.start,
            group: Group::new(started.leader),
            stdin: Some(Pipe::new(started.stdin)),
            stdout: Some(Pipe::new(started.stdout)),
            stderr: Some(Pipe::new(started.stderr)),
            watched: false,
        })
    }

    /// Why the program was not started after all. To be asked when the leader is dead.
    pub(crate) fn start_error(&self) -> Option<StartError> {
        self.start.error().map(|error| start_error(&self.program, &error))
    }

    pub(crate) fn output(&mut self, stream: Stream) -> &mut Option<Pipe> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Asks to be told when the leader dies.
    ///
    /// # Errors
    /// Where no descriptor tells of that, or none is to be had.
    pub(crate) fn watch_exit(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        if !self.watched {
            let descriptor = self.group.exit_descriptor()?.as_raw_fd();
            registry.register(&mut SourceFd(&descriptor), token, Interest::READABLE)?;
            self.watched = true;
        }
        Ok(())
    }

    /// Closes everything and lets go of the leader.
    pub(crate) fn close(mut self, registry: &Registry) {
        for pipe in [self.stdin.take(), self.stdout.take(), self.stderr.take()].into_iter().flatten() {
            pipe.close(registry);
        }
        if self.watched
            && let Some(descriptor) = self.group.opened_descriptor()
        {
            let _ = registry.deregister(&mut SourceFd(&descriptor.as_raw_fd()));
        }
        self.group.reap();
    }
}

/// Whether an event on a pipe means that something can be done with it.
pub(crate) fn is_readiness(event: &Event) -> bool {
    // HUP alone tells the end of file of a pipe, ERR alone that nobody reads it any more.
    event.is_readable() || event.is_writable() || event.is_read_closed() || event.is_write_closed() || event.is_error()
}

fn start_error(program: &CString, failure: &Failure) -> StartError {
    let error = match failure {
        Failure::Exec(error) => error,
        Failure::Own(error) => return StartError { code: 125, reason: strerror(error) },
    };
    let program = OsStr::from_bytes(program.as_bytes());
    let reason = strerror(error);
    match error.raw_os_error() {
        // The file is there: what is missing is the interpreter that its first line, or its ELF header, names.
        Some(libc::ENOENT) if spawn::is_found(program) => {
            StartError { code: 126, reason: format!("bad interpreter: {reason}") }
        }
        Some(libc::ENOENT | libc::ENOTDIR) => StartError { code: 127, reason },
        // A place in PATH cannot be searched, and the program is in no other.
        Some(libc::EACCES) if !spawn::is_found(program) && !program.as_bytes().contains(&b'/') => {
            StartError { code: 127, reason: strerror(&io::Error::from_raw_os_error(libc::ENOENT)) }
        }
        // What the program cannot be blamed for.
        None | Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => StartError { code: 125, reason },
        Some(_) => StartError { code: 126, reason },
    }
}

/// The system's words for an error, without std's number behind them.
pub(crate) fn strerror(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text.get(..at).unwrap_or(&text).to_owned(),
        None => text,
    }
}

//! A program that runs for a connection: its group and our ends of its pipes.

use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use sockexec_proto::Stream;

use super::chatter::Chatter;
use super::sessions::Work;
use crate::engine::{StartError, StartErrorKind, Time};
use crate::sys::group::Group;
use crate::sys::process;
use crate::sys::spawn::{self, Failure, Order, Spawner, Start};
use crate::sys::splice::{Grown, Splicer};
use crate::sys::terminal;
use crate::sys::transfer::{self, Moved};

/// How often a pipe is found full before it is grown.
const TIMES_FULL: u8 = 2;

/// The size of a pipe that was not grown, in bytes (pipe(7)).
pub(crate) const PIPE_SIZE: usize = 64 << 10;

/// One of our ends of a program's pipes, or of its terminal.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Pipe {
    descriptor: OwnedFd,
    /// It is our end of a terminal, not of a pipe.
    terminal: bool,
    registered: bool,
    /// It may be ready: nothing has failed with EAGAIN since it last was.
    pub(crate) ready: bool,
    /// This much of it is still taken; then it counts as ended.
    pub(crate) left: Option<u32>,
    /// The last read found more than it could take: the stream may be worth splicing.
    pub(crate) big: bool,
    pub(crate) chatter: Chatter,
    /// How often it was found full.
    full: u8,
    grown: Option<Grown>,
}

impl Pipe {
    fn new(descriptor: OwnedFd, terminal: bool) -> Self {
        Self {
            descriptor,
            terminal,
            registered: false,
            ready: true,
            left: None,
            big: false,
            chatter: Chatter::default(),
            full: 0,
            grown: None,
        }
    }

    /// Reads as [`transfer::read`] does.
    ///
    /// EIO is how Linux reports that nobody has the other end of a terminal any more, and that all output
    /// there was read (`n_tty.c`); the BSDs report end of file. No other EIO is an end: what is still there
    /// would be lost silently.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<Moved, Errno> {
        match transfer::read(self.as_fd(), buffer) {
            Err(Errno::IO) if self.terminal && transfer::is_at_its_end(self.as_fd()) => Ok(Moved::End),
            moved => moved,
        }
    }

    /// Writes as [`transfer::write`] does. EIO from a terminal with nobody at its other end is an end too; a
    /// full one fails with EAGAIN for ever.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<Moved, Errno> {
        match transfer::write(self.as_fd(), bytes) {
            Err(Errno::IO) | Ok(Moved::WouldBlock) if self.terminal && transfer::is_hung_up(self.as_fd()) => {
                Ok(Moved::End)
            }
            moved => moved,
        }
    }

    /// Whether bytes may be spliced from and to it.
    pub(crate) fn is_pipe(&self) -> bool {
        !self.terminal
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Notes that it was found full, and grows it the second time: a megabyte is pinned only for a stream
    /// that has shown that it is big. True: there is more room now.
    pub(crate) fn found_full(&mut self, splicer: &Splicer) -> bool {
        self.full = self.full.saturating_add(1);
        if self.full == TIMES_FULL {
            self.grown = splicer.grow(&self.descriptor);
        }
        self.full == TIMES_FULL && self.grown.is_some()
    }

    /// Asks for one event when it is ready again.
    ///
    /// Registered only once it was found not to be ready: many a pipe is never waited for.
    pub(crate) fn wait(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.ready = false;
        if !self.registered {
            registry.register(&mut SourceFd(&self.descriptor.as_raw_fd()), token, interest)?;
            self.registered = true;
        }
        Ok(())
    }

    /// Asks for an event, and keeps what is known about its readiness.
    pub(crate) fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let ready = self.ready;
        let watched = self.wait(registry, token, Interest::READABLE);
        self.ready = ready;
        watched
    }

    /// Lets a chatty stream that is empty for now gather what its program writes. False: it is not chatty,
    /// and must be [waited for](Self::wait).
    pub(crate) fn gather(&mut self, registry: &Registry) -> bool {
        if !self.chatter.emptied() {
            return false;
        }
        self.ready = false;
        // Each write would be an event of its own, and a turn.
        if self.registered {
            let _ = registry.deregister(&mut SourceFd(&self.descriptor.as_raw_fd()));
            self.registered = false;
        }
        true
    }

    /// Gathers no more, and takes what was gathered.
    pub(crate) fn calm(&mut self) {
        self.ready |= self.chatter.calm();
    }

    /// Gathers no more, and is looked at once more: the program has ended.
    pub(crate) fn retire(&mut self) {
        self.chatter.retire();
        self.ready = true;
    }

    /// Closes it.
    ///
    /// Deregistered first: a child between clone and exec may hold a copy, and closing ours alone would leave
    /// epoll reporting it (epoll(7), Q6).
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
    /// At its end once it is known whether the program was executed. A forked process reports through it why
    /// it was not.
    pub(crate) exec: Option<Box<Pipe>>,
    /// The character that ends the terminal's input, and how often it must still be written: twice at most.
    end_of_input: (u8, u8),
    /// The last byte that was written to the terminal.
    last_input: Option<u8>,
    /// The working directory that the request asks for. In a box, as few do and there are many programs.
    directory: Option<Box<CString>>,
    start: Start,
    told: OnceCell<Result<(), i32>>,
    watched: bool,
    /// With a terminal: the work that waits for a look at the members of its session.
    work: Option<Box<Work>>,
}

impl Child {
    /// Starts the program of this name.
    ///
    /// # Errors
    /// What the client is told: who is to blame, and the system's words.
    pub(crate) fn start(spawner: &mut Spawner, order: Order, program: &[u8]) -> Result<Self, StartError> {
        let directory = order.options.directory.clone();
        let started = spawner.spawn(order).map_err(|error| start_error(directory.as_deref(), program, &error))?;
        let ours = started.ours;
        let is_terminal = ours.terminal.is_some();
        let pipe = |descriptor| Pipe::new(descriptor, is_terminal);
        Ok(Self {
            directory: directory.map(Box::new),
            start: started.start,
            told: OnceCell::new(),
            group: Group::new(started.leader, ours.terminal),
            stdin: ours.stdin.map(pipe),
            stdout: ours.stdout.map(pipe),
            stderr: ours.stderr.map(pipe),
            exec: started.exec.map(|descriptor| Box::new(Pipe::new(descriptor, false))),
            end_of_input: (0, 0),
            last_input: None,
            watched: false,
            work: None,
        })
    }

    /// The name of the system call that made its process. Ask before another program is started.
    pub(crate) fn call(&self, spawner: &Spawner) -> &'static str {
        match self.start {
            // A program with a terminal cannot share memory, and is forked whatever the call is otherwise.
            Start::Forked if cfg!(target_os = "linux") => "fork",
            Start::Forked | Start::Shared(_) => spawner.call().name(),
        }
    }

    /// The directory that its request asks for.
    pub(crate) fn directory(&self) -> Option<&CStr> {
        self.directory.as_deref().map(CString::as_c_str)
    }

    /// Why the program was not started after all. Ask once, when the leader is dead.
    pub(crate) fn start_error(&self, program: &[u8]) -> Option<StartError> {
        let failure = match &self.start {
            Start::Shared(outcome) => outcome.error(),
            Start::Forked => self.told().and_then(Result::err).map(spawn::failure_of),
        };
        failure.map(|failure| start_error(self.directory.as_deref().map(CString::as_c_str), program, &failure))
    }

    /// Whether it is known that the program was executed.
    pub(crate) fn is_executed(&self) -> bool {
        match &self.start {
            Start::Shared(outcome) => outcome.has_left() && outcome.error().is_none() && self.group.was_executed(),
            Start::Forked => self.told() == Some(Ok(())) && self.group.was_executed(),
        }
    }

    /// Whether it is known that the program was not and will not be executed: its leader is dead, or about to die.
    pub(crate) fn has_failed(&self) -> bool {
        match &self.start {
            Start::Shared(outcome) => outcome.has_left() && (outcome.error().is_some() || !self.group.was_executed()),
            // In this order: a program that has closed its watch by its exec was executed by then.
            Start::Forked => self.told().is_some_and(|told| told.is_err() || !self.group.was_executed()),
        }
    }

    /// What a forked process has reported about its exec, if it has. (If the launch waits for the exec, there
    /// is nothing to report.)
    fn told(&self) -> Option<Result<(), i32>> {
        if self.told.get().is_none()
            && let Some(told) = self.exec.as_ref().map_or(Some(Ok(())), |exec| spawn::reported(exec.as_fd()))
        {
            let _ = self.told.set(told);
        }
        self.told.get().copied()
    }

    /// These bytes were written to the program's input.
    pub(crate) fn note_input(&mut self, bytes: &[u8]) {
        self.last_input = bytes.last().copied().or(self.last_input);
        self.calm();
    }

    /// Somebody waits for the program's next output.
    pub(crate) fn calm(&mut self) {
        for pipe in self.outputs() {
            pipe.calm();
        }
    }

    /// When to look at a stream that causes no event.
    pub(crate) fn next_look(&self) -> Option<Time> {
        [&self.stdout, &self.stderr].into_iter().flatten().filter_map(|pipe| pipe.chatter.due()).min()
    }

    /// Makes the streams that are due be looked at.
    pub(crate) fn tick(&mut self, now: Time) {
        for pipe in self.outputs() {
            if pipe.chatter.due().is_some_and(|due| due <= now) {
                pipe.ready |= pipe.chatter.look();
            }
        }
    }

    /// The terminal's input has ended, which is what a person would type. In the middle of a line the first
    /// such character only hands over the line (termios(3), VEOF), so a second one follows there.
    pub(crate) fn end_terminal_input(&mut self) {
        if let Some(eof) = self.group.terminal().and_then(terminal::end_of_input) {
            let at_start = self.last_input.is_none_or(|last| last == b'\n' || last == b'\r');
            self.end_of_input = (eof, if at_start { 1 } else { 2 });
        }
    }

    /// Writes what is left of that. True: it must be tried again when the terminal takes more.
    ///
    /// # Errors
    /// The system refuses it.
    pub(crate) fn write_end_of_input(&mut self) -> Result<bool, Errno> {
        let (eof, left) = &mut self.end_of_input;
        let Some(pipe) = self.stdin.as_ref().filter(|_| *left > 0) else { return Ok(false) };
        let bytes = [*eof; 2];
        match pipe.write(bytes.get(..usize::from(*left)).unwrap_or(&bytes))? {
            Moved::Bytes(n) => *left = left.saturating_sub(u8::try_from(n).unwrap_or(u8::MAX)),
            Moved::End => *left = 0,
            Moved::WouldBlock => {}
        }
        Ok(*left > 0)
    }

    pub(crate) fn output(&mut self, stream: Stream) -> &mut Option<Pipe> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Both streams of output, if they are open.
    pub(crate) fn outputs(&mut self) -> impl Iterator<Item = &mut Pipe> {
        [&mut self.stdout, &mut self.stderr].into_iter().flatten()
    }

    /// Asks for an event when the leader dies.
    ///
    /// # Errors
    /// No descriptor can report that, or none is left.
    pub(crate) fn watch_exit(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        if !self.watched {
            if matches!(self.start, Start::Forked) && self.is_executed() {
                // It has nothing more to report, and the descriptor of the exit takes its place.
                self.close_exec(registry);
            }
            let descriptor = self.group.exit_descriptor()?.as_raw_fd();
            registry.register(&mut SourceFd(&descriptor), token, Interest::READABLE)?;
            self.watched = true;
        }
        Ok(())
    }

    /// Closes the watch: it is known whether the program was executed.
    pub(crate) fn close_exec(&mut self, registry: &Registry) {
        if let Some(pipe) = self.exec.take() {
            pipe.close(registry);
        }
    }

    /// The work that waits for a look at the members of its session.
    pub(crate) fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_default()
    }

    /// Takes that work.
    pub(crate) fn take_work(&mut self) -> Work {
        self.work.take().map(|work| *work).unwrap_or_default()
    }

    /// Closes everything and reaps the leader.
    pub(crate) fn close(mut self, registry: &Registry) {
        self.close_exec(registry);
        let pipes = [self.stdin.take(), self.stdout.take(), self.stderr.take()];
        for pipe in pipes.into_iter().flatten() {
            pipe.close(registry);
        }
        self.unwatch_exit(registry);
        self.group.reap();
    }

    /// Closes the descriptor that reports the leader's death: it is dead, and nothing else is asked of it.
    pub(crate) fn unwatch_exit(&mut self, registry: &Registry) {
        if let Some(descriptor) = self.group.take_descriptor()
            && std::mem::take(&mut self.watched)
        {
            let _ = registry.deregister(&mut SourceFd(&descriptor.as_raw_fd()));
        }
    }
}

/// Whether an event on a pipe means that something can be done with it.
pub(crate) fn is_readiness(event: &Event) -> bool {
    // HUP alone reports the end of file of a pipe, ERR alone that nobody reads it any more.
    event.is_readable() || event.is_writable() || event.is_read_closed() || event.is_write_closed() || event.is_error()
}

fn start_error(directory: Option<&CStr>, program: &[u8], failure: &Failure) -> StartError {
    let (kind, about, reason) = match failure {
        Failure::Terminal(error) => (StartErrorKind::Failed, Some(b"terminal (/dev/ptmx)".to_vec()), own_error(error)),
        Failure::Own(error) => (StartErrorKind::Failed, None, own_error(error)),
        Failure::Directory(error) => {
            (directory_error_kind(error), directory.map(|directory| directory.to_bytes().to_vec()), strerror(error))
        }
        Failure::Exec { error, found } => {
            let (kind, reason) = program_error(program, error, *found);
            (kind, None, reason)
        }
    };
    StartError { kind, about, reason }
}

/// Descriptors came with the request, and the kernel could not give them to us.
pub(crate) fn descriptors_lost() -> StartError {
    let limit = process::descriptor_limit().map_or_else(String::new, |limit| format!(" to {limit} descriptors"));
    let reason = format!(
        "descriptors that came with the request were lost: the daemon is limited{limit} (ulimit -n), or a security module forbids it to take them"
    );
    StartError { kind: StartErrorKind::Failed, about: None, reason }
}

/// What the system refused the daemon itself, and which limit was reached.
fn own_error(error: &io::Error) -> String {
    let reason = strerror(error);
    let limit = match error.raw_os_error() {
        // Nothing else that the daemon does for a program fails with it: a terminal that is refused has words
        // of its own.
        Some(libc::EAGAIN) => process::no_more_processes(),
        Some(libc::EMFILE) => match process::descriptor_limit() {
            Some(limit) => format!("the daemon is limited to {limit} descriptors (ulimit -n)"),
            None => return reason,
        },
        Some(libc::ENFILE) => "the system has no more (fs.file-max)".to_owned(),
        None | Some(_) => return reason,
    };
    format!("{reason}: {limit}")
}

fn directory_error_kind(error: &io::Error) -> StartErrorKind {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => StartErrorKind::NotFound,
        Some(libc::EACCES) => StartErrorKind::Denied,
        None | Some(_) => StartErrorKind::Failed,
    }
}

fn program_error(program: &[u8], error: &io::Error, found: bool) -> (StartErrorKind, String) {
    let reason = strerror(error);
    match error.raw_os_error() {
        // The file exists: the interpreter that its first line or its ELF header names is missing.
        Some(libc::ENOENT) if found => (StartErrorKind::NotExecutable, format!("bad interpreter: {reason}")),
        Some(libc::ENOENT | libc::ENOTDIR) => (StartErrorKind::NotFound, reason),
        // A directory of PATH cannot be searched, and the program is in no other.
        Some(libc::EACCES) if !found && !program.contains(&b'/') => {
            (StartErrorKind::NotFound, strerror(&io::Error::from_raw_os_error(libc::ENOENT)))
        }
        // The program is not to blame for these.
        Some(libc::EAGAIN) => (StartErrorKind::Failed, own_error(error)),
        None | Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE) => (StartErrorKind::Failed, reason),
        Some(_) => (StartErrorKind::NotExecutable, reason),
    }
}

/// The system's words for an error, without the number that std appends.
pub(crate) fn strerror(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text.get(..at).unwrap_or(&text).to_owned(),
        None => text,
    }
}

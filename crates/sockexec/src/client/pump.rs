//! Moves standard input to the daemon and output from it, both at the same time, on one thread that waits
//! only in poll(2).
//!
//! Memory is bounded: a piece of standard input is read once the one before it was sent, a piece of the reply
//! once the one before it was written. So a program that does not read stops the writer of its standard
//! input, a program whose output nobody reads is stopped as well, and neither of the two holds up the other.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage};
use sockexec_proto::{Signal as Wire, Stream, Version, request};

use super::descriptor::{Descriptor, NO_SIGNAL};
use super::orders::{Order, Orders, Tell};
use super::socket::{LOOK, Silence, was_read};
use super::waiting::{Patience, Waiting};
use super::wire::{Ended, Incoming, Outgoing};
use super::{Error, Signal};

/// The least that is asked of a descriptor. If it has packets (a pipe with `O_DIRECT`, up to `PIPE_BUF` bytes each),
/// read(2) drops the part of a packet that does not fit.
const PACKET: usize = 4096;

/// Bytes in memory that another run may need again.
#[derive(Clone)]
pub(super) struct Bytes(pub(super) Arc<Vec<u8>>);

/// Shows only their number: they may be many, and secret.
impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Where standard input comes from.
#[derive(Debug)]
pub(super) enum Source {
    Nothing,
    Memory(io::Cursor<Bytes>),
    Descriptor(Descriptor),
}

impl Source {
    /// Whether it can never be read: open only for writing (what `nohup` leaves), a directory, or a terminal
    /// whose foreground belongs to others for good. For a file EIO is a failure.
    fn is_unreadable(&self, error: &io::Error) -> bool {
        let Self::Descriptor(descriptor) = self else { return false };
        match Errno::from_io_error(error) {
            Some(Errno::BADF | Errno::ISDIR) => true,
            Some(Errno::IO) => descriptor.is_terminal(),
            _ => false,
        }
    }
}

/// Where a stream of output goes.
#[derive(Debug)]
pub(super) enum Sink {
    Nothing,
    Memory(Vec<u8>),
    Descriptor(Descriptor),
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Nothing => Ok(bytes.len()),
            Self::Memory(kept) => {
                kept.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            Self::Descriptor(descriptor) => match descriptor.write(bytes) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                other => other,
            },
        }
    }

    const fn descriptor(&self) -> Option<&Descriptor> {
        match self {
            Self::Descriptor(descriptor) => Some(descriptor),
            Self::Nothing | Self::Memory(_) => None,
        }
    }

    /// What was kept in memory.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Memory(kept) => kept,
            Self::Nothing | Self::Descriptor(_) => Vec::new(),
        }
    }
}

/// What poll(2) reported. A hang-up or an error counts, as the next call on the descriptor reports it.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one for each descriptor that is waited for")]
struct Ready {
    orders: bool,
    socket: bool,
    source: bool,
    sink: bool,
}

/// One program's run.
#[derive(Debug)]
pub(super) struct Pump {
    pub(super) socket: UnixStream,
    pub(super) outgoing: Outgoing,
    pub(super) source: Source,
    pub(super) stdout: Sink,
    pub(super) stderr: Sink,
    pub(super) patience: Patience,
    /// The orders of a [`Child`](super::Child).
    pub(super) orders: Option<Orders>,
    /// Signals that were not sent in full yet, each with its last byte's position in all that is sent.
    pub(super) signals: VecDeque<(u64, Tell<()>)>,
    /// Called with the pid of the program's process once it was started, before any of its output is passed
    /// on; in version 1, which does not report it, at once.
    pub(super) started: Option<Tell<Option<u32>>>,
    pub(super) incoming: Incoming,
    /// The stream whose sink had no room.
    pub(super) blocked: Option<Stream>,
    pub(super) version: Version,
    /// The program's own streams, sent with the first bytes of the request.
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) silence: Silence,
    /// The program was killed from this side: output that nobody takes is not waited for.
    pub(super) killed: bool,
}

impl Pump {
    /// Runs until the daemon has ended the connection. Dropped, the pump closes it.
    pub(super) fn run(&mut self) -> Result<Ended, Error> {
        self.begin()?;
        loop {
            if let Some(end) = self.turn()? {
                return end;
            }
        }
    }

    fn begin(&mut self) -> Result<(), Error> {
        if self.version == Version::One
            && let Some(started) = self.started.take()
        {
            started.tell(None);
        }
        if matches!(self.source, Source::Nothing) && self.descriptors.is_empty() {
            // Sent with the request, so that the daemon reads both at once.
            self.outgoing.put_end();
        }
        self.send()
    }

    /// Waits until something can be done, and does it. Returns the result of the run if that was its end.
    fn turn(&mut self) -> Result<Option<Result<Ended, Error>>, Error> {
        self.mind_start()?;
        let ready = self.wait()?;
        if ready.orders {
            self.obey()?;
        }
        // Before any input is taken, as nobody may need it any more.
        if ready.socket && self.blocked.is_none() {
            if let Some(end) = self.receive()? {
                return Ok(Some(end));
            }
            self.deliver()?;
            if let Some(introduction) = self.incoming.introduction() {
                self.outgoing.complete(introduction);
            }
        } else if ready.sink || self.killed && self.blocked.is_some() {
            self.deliver()?;
        }
        self.fill(ready.source)?;
        self.send()?;
        self.mind_silence()?;
        Ok(None)
    }

    /// Waits until something can be done.
    fn wait(&self) -> Result<Ready, Error> {
        let watched: [Option<(BorrowedFd<'_>, PollFlags)>; 4] = [
            self.orders.as_ref().map(|orders| (orders.as_fd(), PollFlags::IN)),
            self.socket_interest().map(|interest| (self.socket.as_fd(), interest)),
            self.wanted_source().map(Descriptor::readable),
            self.blocked_sink().map(Descriptor::writable),
        ];
        let mut fds: Vec<PollFd<'_>> =
            watched.iter().flatten().map(|(fd, interest)| PollFd::from_borrowed_fd(*fd, *interest)).collect();
        loop {
            let timeout = self.time_left()?;
            match rustix::event::poll(&mut fds, timeout.as_ref()) {
                Ok(0) if !self.has_started() => return Ok(Ready::default()),
                // After the timeout or a signal, the remaining time is looked up above.
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => break,
                Err(error) => return Err(Error::Io("cannot wait for input and output", error.into())),
            }
        }
        let mut answers = fds.iter().map(|fd| !fd.revents().is_empty());
        let [orders, socket, source, sink] =
            watched.map(|watched| watched.is_some() && answers.next().unwrap_or_default());
        Ok(Ready { orders, socket, source, sink })
    }

    /// `None`: nothing is wanted of the socket. It is then left out, as its hang-up would be reported again
    /// and again.
    fn socket_interest(&self) -> Option<PollFlags> {
        let mut interest = PollFlags::empty();
        if self.has_to_send() {
            interest |= PollFlags::OUT;
        }
        if self.blocked.is_none() {
            interest |= PollFlags::IN;
        }
        (!interest.is_empty()).then_some(interest)
    }

    fn has_to_send(&self) -> bool {
        !self.outgoing.is_empty() || matches!(self.source, Source::Memory(_)) && self.room() > 0
    }

    fn wanted_source(&self) -> Option<&Descriptor> {
        match &self.source {
            Source::Descriptor(descriptor) if self.room() > 0 => Some(descriptor),
            Source::Descriptor(_) | Source::Nothing | Source::Memory(_) => None,
        }
    }

    /// How many bytes of standard input may be read now. In version 2 none before the program was started:
    /// what nobody can take is left to the next reader.
    fn room(&self) -> usize {
        let room = if self.outgoing.is_empty() { self.incoming.window().room(self.outgoing.input()) } else { 0 };
        // A report brings more: half a window is far more than this.
        if room < PACKET && matches!(self.source, Source::Descriptor(_)) { 0 } else { room }
    }

    fn blocked_sink(&self) -> Option<&Descriptor> {
        match self.blocked? {
            Stream::Stdout => self.stdout.descriptor(),
            Stream::Stderr => self.stderr.descriptor(),
        }
    }

    fn time_left(&self) -> Result<Option<Timespec>, Error> {
        let look = self.incoming.awaits_introduction().then_some(LOOK);
        let left = self.patience.left()?;
        // A time that the system cannot represent is no limit.
        Ok(left.into_iter().chain(look).min().and_then(|time| Timespec::try_from(time).ok()))
    }

    /// Always true in version 1, which does not report it.
    const fn has_started(&self) -> bool {
        matches!(self.version, Version::One) || self.incoming.pid().is_some()
    }

    /// Gives up on a program that takes too long to start, and tells the observer that it has to wait.
    fn mind_start(&mut self) -> Result<(), Error> {
        if self.has_started() {
            self.patience.started();
            return Ok(());
        }
        let Self { patience, incoming, outgoing, socket, .. } = self;
        if let Some(requests) = incoming.queued() {
            patience.notify(Waiting::Slot { requests });
        }
        patience.mind(|| match incoming.queued() {
            Some(requests) => Waiting::Slot { requests },
            None if !incoming.awaits_introduction() => Waiting::Start,
            None if !outgoing.is_empty() => Waiting::Answer { read: Some(false) },
            None => Waiting::Answer { read: was_read(&*socket) },
        })
    }

    fn mind_silence(&mut self) -> Result<(), Error> {
        if !self.incoming.awaits_introduction() {
            return Ok(());
        }
        if !self.outgoing.is_empty() {
            self.silence = Silence::default();
            return Ok(());
        }
        self.silence.mind(&self.socket)
    }

    /// Carries out the orders of the [`Child`](super::Child).
    fn obey(&mut self) -> Result<(), Error> {
        let mut told = Vec::new();
        while let Some(orders) = &mut self.orders {
            match orders.next() {
                Ok(Order::Disconnect) => return Err(Error::Killed { output: None }),
                Ok(Order::Kill) if self.version == Version::One => return Err(Error::Killed { output: None }),
                Ok(Order::Kill) => {
                    self.killed = true;
                    request::encode_signal(&Wire::Number(Signal::KILL.number()), &mut told);
                }
                Ok(Order::Signal(signal, sent)) => {
                    request::encode_signal(&Wire::Number(signal.number()), &mut told);
                    self.signals.push_back((self.outgoing.end() + told.len() as u64, sent));
                }
                Ok(Order::Resize(size)) => request::encode_window_size(size, &mut told),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.orders = None,
            }
        }
        self.outgoing.append(&told);
        Ok(())
    }

    /// Reads a piece of standard input if the one before it was sent.
    fn fill(&mut self, ready: bool) -> Result<(), Error> {
        let room = self.room();
        if room == 0 {
            return Ok(());
        }
        let read = match &mut self.source {
            Source::Memory(bytes) => bytes.read(self.outgoing.space(room)),
            Source::Descriptor(descriptor) if ready => descriptor.read(self.outgoing.space(room)),
            Source::Descriptor(_) | Source::Nothing => return Ok(()),
        };
        match read {
            Ok(n) => {
                self.outgoing.put(n);
                if n == 0 {
                    self.source = Source::Nothing;
                }
                Ok(())
            }
            Err(error) if is_transient(&error) => Ok(()),
            // Treated as closed.
            Err(error) if self.source.is_unreadable(&error) => {
                self.outgoing.put(0);
                self.source = Source::Nothing;
                Ok(())
            }
            Err(error) => Err(Error::Stdin(error)),
        }
    }

    fn send(&mut self) -> Result<(), Error> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        match self.send_pending() {
            Ok(n) => {
                self.outgoing.sent(n);
                self.descriptors.clear();
                while self.signals.front().is_some_and(|(end, _)| *end <= self.outgoing.begin()) {
                    if let Some((_, sent)) = self.signals.pop_front() {
                        sent.tell(());
                    }
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // The daemon takes no more: the program has ended, and the reply that says so can still be read.
            Err(Errno::PIPE | Errno::CONNRESET) => {
                self.outgoing.clear();
                self.signals.clear();
                self.source = Source::Nothing;
            }
            Err(error) => return Err(Error::Io("cannot send to the daemon", error.into())),
        }
        Ok(())
    }

    fn send_pending(&self) -> rustix::io::Result<usize> {
        let bytes = self.outgoing.pending();
        if self.descriptors.is_empty() {
            return rustix::net::send(&self.socket, bytes, NO_SIGNAL);
        }
        let descriptors: Vec<BorrowedFd<'_>> = self.descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        rustix::net::sendmsg(&self.socket, &[io::IoSlice::new(bytes)], &mut control, NO_SIGNAL)
    }

    /// Reads a piece of the reply. Returns the result of the run if that was its end.
    fn receive(&mut self) -> Result<Option<Result<Ended, Error>>, Error> {
        match rustix::net::recv(&self.socket, self.incoming.space(), RecvFlags::empty()) {
            Ok((0, _)) => Ok(Some(self.incoming.finish(None))),
            Ok((n, _)) => {
                self.incoming.put(n);
                Ok(None)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            // Linux reports this after all that was sent, if the daemon has closed with some of our bytes
            // unread. 3.1.1 does so when a program ends while standard input still comes.
            Err(error @ Errno::CONNRESET) => Ok(Some(self.incoming.finish(Some(error.into())))),
            Err(error) => Err(Error::Io("cannot read from the daemon", error.into())),
        }
    }

    /// Writes what has come to its destination, as far as there is room.
    fn deliver(&mut self) -> Result<(), Error> {
        self.tell_started()?;
        self.blocked = None;
        while let Some((stream, bytes)) = self.incoming.next()? {
            let sink = match stream {
                Stream::Stdout => &mut self.stdout,
                Stream::Stderr => &mut self.stderr,
            };
            // Not by `sink()`: the bytes are borrowed as well.
            match sink.write(bytes) {
                Ok(n) => self.incoming.consume(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // A caller that kills the program and then drops its pipe wants it killed: the order came first.
                    self.obey()?;
                    if self.killed {
                        // Cut off here for good, so that the output has no hole.
                        *self.sink(stream) = Sink::Nothing;
                    } else if error.kind() == io::ErrorKind::WouldBlock {
                        self.blocked = Some(stream);
                        break;
                    } else {
                        return Err(Error::Output(stream, error));
                    }
                }
            }
        }
        self.close_ended();
        if self.incoming.window().is_closed() {
            // The writer notices it, as with a pipe whose reader is gone.
            self.source = Source::Nothing;
        }
        Ok(())
    }

    /// Lets go of a pipe whose stream has ended while the program goes on: its reader sees the end of file, as it
    /// would with a child of its own. What was kept in memory stays.
    fn close_ended(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if self.incoming.has_ended(stream) && self.sink(stream).descriptor().is_some() {
                *self.sink(stream) = Sink::Nothing;
            }
        }
    }

    const fn sink(&mut self, stream: Stream) -> &mut Sink {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn tell_started(&mut self) -> Result<(), Error> {
        if self.started.is_some() {
            // What this finds, the next call finds again.
            self.incoming.next()?;
            if let Some(pid) = self.incoming.pid()
                && let Some(started) = self.started.take()
            {
                started.tell(Some(pid));
            }
        }
        Ok(())
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

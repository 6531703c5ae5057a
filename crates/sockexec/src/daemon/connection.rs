//! One connection: carries out what its [`Session`] asks, and tells it what happens.

mod describe;
mod version_2;

use std::cell::RefCell;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use mio::event::Event;
use mio::net::UnixStream;
use mio::{Interest, Registry};
use sockexec_proto::request::Request;
use sockexec_proto::{Stream, Version};

use self::describe::{Credentials, Ended, Seconds, quote, shown};
use super::child::{self, Child, Pipe};
use super::outbox::{Flush, Outbox};
use super::scratch::{CHUNK, Scratch};
use super::status::Totals;
use super::token::{Source, token};
use crate::engine::{Action, Backpressure, Limits, Session, StartError, StartErrorKind, Step, Time, at_most};
use crate::sys::group::Occupancy;
use crate::sys::socket::Peer;
use crate::sys::spawn::{Order, Spawner};
use crate::sys::splice::{Received, SPLICE_MIN, Spliced, Splicer};
use crate::sys::terminal;
use crate::sys::transfer::{self, Moved};

/// How many chunks or frames one stream may move before the others of the connection have their turn.
const CHUNKS_A_ROUND: usize = 8;

/// How many rounds a connection may go before other connections have their turn.
const ROUNDS_A_TURN: usize = 4;

/// Payloads from this size on are sent from where they were read; smaller ones are gathered.
const DIRECT: usize = 16 << 10;

/// How much of what a client sends after its reply is dropped at once before its socket is closed.
const FINAL_DRAIN: usize = 16 * CHUNK;

/// How soon to look again whether the leader has exited, where no descriptor tells (before Linux 5.3,
/// or none is to be had); doubled each time up to the maximum.
const FIRST_EXIT_RETRY: Duration = Duration::from_millis(1);
const MAX_EXIT_RETRY: Duration = Duration::from_millis(64);

/// The most input that is spliced at once, in bytes.
const MAX_INPUT_SPLICE: usize = 1 << 20;

/// Input that comes in smaller pieces than this is not spliced, in bytes.
const MIN_INPUT_SPLICE: usize = 4 << 10;

/// How much is read when only the head of the next chunk is wanted, in bytes: it, and little of what can be spliced.
const HEADER_READ: usize = 16;

/// How the client's next bytes are taken.
enum NextInput {
    /// Some were, or can be now.
    Spliced,
    /// Not now.
    Waiting,
    /// So many bytes are to be read, and no more: the payload behind them will be spliced.
    UpTo(usize),
    /// As much as there is is to be read.
    Anything,
}

/// What a connection needs of the daemon while it is served.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) spawner: &'a RefCell<Spawner>,
    pub(crate) splicer: &'a RefCell<Splicer>,
    pub(crate) totals: &'a Totals,
    /// Whether time is kept well enough for small writes to be gathered.
    pub(crate) gathers: bool,
    pub(crate) now: Time,
}

/// A connection, from `accept(2)` until its client is gone and its program's group is done.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own; which go together is told by enums")]
pub(crate) struct Connection {
    /// Counted from 1 over the daemon's life.
    number: u64,
    slot: usize,
    peer: Option<Peer>,
    accepted: Time,
    /// None: closed.
    socket: Option<UnixStream>,
    readable: bool,
    writable: bool,
    session: Session,
    /// Bytes of the client that nothing could be done with yet: at most a chunk.
    inbox: Vec<u8>,
    /// Much input is there, in big chunks: they may be worth splicing.
    big_input: bool,
    outbox: Outbox,
    /// The sending side is to be ended when the outbox is empty.
    finishing: bool,
    child: Option<Child>,
    /// The leader may have exited: nothing has said otherwise since.
    exit_ready: bool,
    /// When to look again, and how much later the next time, where no descriptor tells of the exit.
    exit_retry: Option<(Time, Duration)>,
    label: Box<str>,
    /// The arguments as the status tells them.
    argv: Box<[Box<str>]>,
    arguments: usize,
    /// Descriptors that came with the request: three at most.
    descriptors: Vec<OwnedFd>,
    /// The client has asked for the daemon's status.
    status_wanted: bool,
    received: u64,
    sent: u64,
    /// Grows with everything that is done, so that it shows when nothing more can be.
    activity: u64,
}

impl Connection {
    pub(crate) fn new(
        number: u64,
        slot: usize,
        socket: UnixStream,
        peer: Option<Peer>,
        limits: Limits,
        outbox: Outbox,
        now: Time,
    ) -> Self {
        log::debug!("connection {number}: accepted{}", Credentials(peer));
        Self {
            number,
            slot,
            peer,
            accepted: now,
            socket: Some(socket),
            readable: true,
            writable: true,
            session: Session::new(limits, now),
            inbox: Vec::new(),
            big_input: false,
            outbox,
            finishing: false,
            child: None,
            exit_ready: true,
            exit_retry: None,
            label: Box::default(),
            argv: Box::default(),
            arguments: 0,
            descriptors: Vec::new(),
            status_wanted: false,
            received: 0,
            sent: 0,
            activity: 0,
        }
    }

    /// Asks to be told of what happens on the socket.
    pub(crate) fn register(&mut self, registry: &Registry) -> std::io::Result<()> {
        match &mut self.socket {
            Some(socket) => {
                registry.register(socket, token(self.slot, Source::Client), Interest::READABLE | Interest::WRITABLE)
            }
            None => Ok(()),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.session.is_over()
    }

    pub(crate) fn holds_slot(&self) -> bool {
        self.session.holds_slot()
    }

    pub(crate) fn next_timer(&self) -> Option<Time> {
        let retry = self.exit_retry.map(|(at, _)| at);
        let look = self.child.as_ref().and_then(Child::next_look);
        self.session.next_timer().into_iter().chain(retry).chain(look).min()
    }

    /// Notes what `event` tells of `source`.
    pub(crate) fn note(&mut self, now: Time, source: Source, event: &Event) {
        let ready = child::is_readiness(event);
        match source {
            Source::Client => {
                self.readable |= event.is_readable() || event.is_read_closed();
                self.writable |= event.is_writable();
                // HUP: both directions are closed, which a half-close is not.
                if event.is_write_closed() || event.is_error() {
                    if self.socket.is_some() {
                        log::debug!("connection {}: client gone", self.number);
                    }
                    self.session.client_gone(now);
                }
            }
            Source::Stdin => self.note_pipe(ready, |child| child.stdin.as_mut()),
            Source::Stdout => self.note_pipe(ready, |child| child.stdout.as_mut()),
            Source::Stderr => self.note_pipe(ready, |child| child.stderr.as_mut()),
            Source::Exit => self.exit_ready = true,
            Source::Exec => {}
        }
    }

    fn note_pipe(&mut self, ready: bool, pipe: impl FnOnce(&mut Child) -> Option<&mut child::Pipe>) {
        if let Some(pipe) = self.child.as_mut().and_then(pipe) {
            pipe.ready |= ready;
        }
    }

    /// Does what is due at `now`; true: among it was the deadline.
    pub(crate) fn tick(&mut self, now: Time) -> bool {
        if self.exit_retry.is_some_and(|(at, _)| at <= now) {
            self.exit_ready = true;
        }
        if let Some(child) = &mut self.child {
            child.tick(now);
        }
        let before = self.session.timed_out();
        self.session.tick(now);
        self.session.timed_out() && !before
    }

    pub(crate) fn shut_down(&mut self, now: Time, at_once: bool) {
        if at_once {
            self.session.shut_down_now(now);
        } else {
            self.session.shut_down(now);
        }
    }

    /// Does what can be done without waiting, within a turn's share; true: there is more.
    pub(crate) fn serve(&mut self, cx: &Context<'_>, scratch: &mut Scratch) -> bool {
        for _ in 0..ROUNDS_A_TURN {
            let before = self.activity;
            self.perform(cx);
            self.pump_request(cx, scratch);
            self.check_exec(cx);
            self.pump_end_of_input(cx);
            self.pump_output(cx, scratch, Stream::Stdout);
            self.pump_output(cx, scratch, Stream::Stderr);
            self.check_exit(cx);
            self.perform(cx);
            // Last, so that the end of the output, the exit pair and the end of the connection go out together.
            self.flush(cx);
            self.perform(cx);
            if self.activity == before || self.is_over() {
                return false;
            }
        }
        true
    }

    /// Closes what is left; the connection is over.
    pub(crate) fn close(mut self, cx: &Context<'_>) {
        self.close_client(cx);
        if let Some(child) = self.child.take() {
            child.close(cx.registry);
        }
        cx.totals.add_bytes(self.received, self.sent);
        log::debug!(
            "connection {}: over after {}, {} bytes in, {} bytes out",
            self.number,
            Seconds(cx.now.saturating_sub(self.accepted)),
            self.received,
            self.sent
        );
    }

    // The session's actions.

    fn perform(&mut self, cx: &Context<'_>) {
        while let Some(action) = self.session.next_action() {
            self.activity += 1;
            match action {
                Action::Spawn(request) => self.spawn(cx, *request),
                Action::Send(bytes) => self.outbox.push(&bytes),
                Action::Report(error) => {
                    log::debug!("connection {}: bad request: {error}", self.number);
                    self.descriptors = Vec::new();
                }
                Action::TellStatus => self.status_wanted = true,
                Action::Finish => self.finishing = true,
                Action::CloseClient => self.close_client(cx),
                Action::CloseStdin
                | Action::EndTerminalInput
                | Action::Signal(_)
                | Action::Resize(_)
                | Action::Terminate
                | Action::Kill
                | Action::Probe
                | Action::DrainOutput
                | Action::CloseOutput
                | Action::Reap => self.perform_on_child(cx, &action),
            }
        }
    }

    fn perform_on_child(&mut self, cx: &Context<'_>, action: &Action) {
        let Some(child) = &mut self.child else { return };
        let leader = child.group.leader();
        match action {
            Action::CloseStdin => {
                if let Some(pipe) = child.stdin.take() {
                    pipe.close(cx.registry);
                }
            }
            Action::EndTerminalInput => child.end_terminal_input(),
            Action::Signal(number) => {
                log::debug!("connection {}: signal {number} to the group of pid {leader}", self.number);
                child.group.send(*number);
            }
            Action::Resize(size) => {
                if let Some(terminal) = child.group.terminal()
                    && let Err(error) = terminal::resize(terminal, *size)
                {
                    log::warn!("connection {}: cannot resize the terminal: {error}", self.number);
                }
            }
            Action::Terminate => {
                log::debug!("connection {}: TERM to the group of pid {leader}", self.number);
                child.group.terminate();
            }
            Action::Kill => {
                log::debug!("connection {}: KILL to the group of pid {leader}", self.number);
                child.group.kill();
                cx.totals.killed();
            }
            Action::Probe => match child.group.occupancy() {
                Occupancy::Empty => self.session.group_is_empty(),
                Occupancy::Occupied => {}
                Occupancy::Unknowable => self.session.group_is_unknowable(),
            },
            Action::DrainOutput => {
                log::debug!("connection {}: taking what is left of the output", self.number);
                for pipe in child.outputs() {
                    pipe.ready = true;
                    pipe.left = Some(transfer::available(pipe.as_fd()));
                }
            }
            Action::CloseOutput => {
                for pipe in [child.stdout.take(), child.stderr.take()].into_iter().flatten() {
                    pipe.close(cx.registry);
                }
            }
            Action::Reap => child.group.reap(),
            Action::Spawn(_)
            | Action::Send(_)
            | Action::Report(_)
            | Action::TellStatus
            | Action::Finish
            | Action::CloseClient => {}
        }
    }

    fn spawn(&mut self, cx: &Context<'_>, request: Request) {
        let Request { argv, options } = request;
        self.label = quote(&argv).into();
        (self.argv, self.arguments) = (shown(&argv), argv.len());
        // Whatever came to a request that does not want it is closed here.
        let descriptors = std::mem::take(&mut self.descriptors);
        let descriptors = if options.descriptors { descriptors.try_into().ok() } else { None };
        let watched = self.session.version() == Version::Two;
        match Child::start(&mut cx.spawner.borrow_mut(), Order { argv, options, descriptors, watched }) {
            Ok(child) => {
                log::debug!("connection {}: started pid {}: {}", self.number, child.group.leader(), self.label);
                self.child = Some(child);
                cx.totals.started();
                self.session.started(cx.now);
            }
            Err(error) => {
                log::debug!("connection {}: cannot start {}: {}", self.number, self.label, error.reason);
                cx.totals.failed();
                self.session.start_failed(&error);
            }
        }
    }

    fn close_client(&mut self, cx: &Context<'_>) {
        let Some(mut socket) = self.socket.take() else { return };
        // A socket that is closed with unread bytes resets the connection, and the client may lose the end
        // of its reply (unix(7) and tcp(7) alike).
        let mut buffer = [0; 4096];
        let mut dropped = 0;
        while dropped < FINAL_DRAIN
            && let Ok(Moved::Bytes(n)) = transfer::receive(&socket, &mut buffer)
        {
            dropped += n;
        }
        let _ = cx.registry.deregister(&mut socket);
        self.outbox.clear();
        self.inbox = Vec::new();
        self.descriptors = Vec::new();
        self.finishing = false;
    }

    // The client.

    fn pump_request(&mut self, cx: &Context<'_>, scratch: &mut Scratch) {
        for _ in 0..CHUNKS_A_ROUND {
            if !self.inbox.is_empty() {
                let mut inbox = std::mem::take(&mut self.inbox);
                let left = self.consume(cx, &inbox);
                if left > 0 && self.socket.is_some() {
                    inbox.drain(..inbox.len() - left);
                    self.inbox = inbox;
                    return;
                }
            }
            if self.socket.is_none() || !self.readable || !self.session.wants_request() {
                return;
            }
            let buffer = match self.next_input(cx) {
                NextInput::Spliced => continue,
                NextInput::Waiting => return,
                NextInput::UpTo(len) => scratch.chunk().get_mut(..len).unwrap_or_default(),
                NextInput::Anything => scratch.chunk(),
            };
            let wanted = buffer.len();
            self.big_input = false;
            let Some(socket) = &self.socket else { return };
            let mut descriptors = Vec::new();
            let received = if self.session.wants_descriptors() {
                transfer::receive_with_descriptors(socket, buffer, &mut descriptors)
            } else {
                transfer::receive(socket, buffer)
            };
            if !descriptors.is_empty() {
                self.take_descriptors(cx, descriptors);
            }
            match received {
                Ok(Moved::Bytes(n)) => {
                    self.activity += 1;
                    self.received += n as u64;
                    let bytes = scratch.chunk().get(..n).unwrap_or_default();
                    let left = self.consume(cx, bytes);
                    self.big_input &= n == wanted || n >= SPLICE_MIN;
                    if self.socket.is_some() {
                        self.inbox = bytes.get(n - left..).unwrap_or_default().to_vec();
                    }
                }
                Ok(Moved::WouldBlock) => self.readable = false,
                Ok(Moved::End) => {
                    self.readable = false;
                    log::debug!("connection {}: client has ended its sending", self.number);
                    self.session.client_ended(cx.now);
                    self.perform(cx);
                }
                Err(error) => {
                    self.readable = false;
                    log::debug!("connection {}: client gone: {error}", self.number);
                    self.session.client_gone(cx.now);
                    self.perform(cx);
                }
            }
        }
    }

    /// Splices input to the program if much of it is known to come, and tells what is to be read otherwise.
    fn next_input(&mut self, cx: &Context<'_>) -> NextInput {
        if !self.big_input || !cx.splicer.borrow().is_enabled() {
            return NextInput::Anything;
        }
        let pipe = self.child.as_mut().and_then(|child| child.stdin.as_mut());
        let (Some(socket), Some(pipe)) = (&self.socket, pipe.filter(|pipe| pipe.is_pipe())) else {
            return NextInput::Anything;
        };
        let len = match self.session.step(cx.now, &[]) {
            (_, Step::Stdin(len)) => at_most(MAX_INPUT_SPLICE, len),
            (_, Step::NeedMore) => 0,
            (_, Step::Drop(_)) => return NextInput::Anything,
        };
        if len < SPLICE_MIN {
            return NextInput::UpTo(len + HEADER_READ);
        }
        if !pipe.ready {
            return NextInput::Waiting;
        }
        let splicer = cx.splicer.borrow();
        match splicer.receive(socket.as_fd(), pipe.as_fd(), len) {
            Received::Bytes(n) => {
                self.activity += 1;
                self.received += n as u64;
                // A client that sends in small pieces is served better by copying: each piece is a page of a pipe.
                self.big_input = n >= MIN_INPUT_SPLICE;
                self.session.moved(n as u64);
                if let Some(child) = &mut self.child {
                    child.calm();
                }
                NextInput::Spliced
            }
            Received::WouldBlock { socket, pipe: full } => {
                self.readable &= !socket;
                if full && pipe.found_full(&splicer) {
                    return NextInput::Spliced;
                }
                if full {
                    self.wait_for_stdin(cx);
                }
                NextInput::Waiting
            }
            // What it means is found by copying.
            Received::SocketEnd | Received::PipeEnd | Received::Unable => {
                self.big_input = false;
                NextInput::Anything
            }
        }
    }

    /// Does with the client's bytes what the session says; how many are left because the program's
    /// input takes no more.
    fn consume(&mut self, cx: &Context<'_>, mut bytes: &[u8]) -> usize {
        loop {
            let (used, step) = self.session.step(cx.now, bytes);
            bytes = bytes.get(used..).unwrap_or_default();
            self.perform(cx);
            let moved = match step {
                Step::NeedMore if used == 0 || bytes.is_empty() => return bytes.len(),
                Step::NeedMore => 0,
                Step::Drop(len) => at_most(bytes.len(), len),
                Step::Stdin(len) => {
                    self.big_input |= len >= SPLICE_MIN as u64;
                    match self.write_stdin(cx, at_most(bytes.len(), len), bytes) {
                        Some(written) => written,
                        None => return bytes.len(),
                    }
                }
            };
            if moved > 0 {
                self.activity += 1;
                self.session.moved(moved as u64);
                bytes = bytes.get(moved..).unwrap_or_default();
            } else if bytes.is_empty() {
                return 0;
            }
        }
    }

    /// Writes up to `len` of `bytes` to the program's input. None: it takes no more for now.
    fn write_stdin(&mut self, cx: &Context<'_>, len: usize, bytes: &[u8]) -> Option<usize> {
        let bytes = bytes.get(..len).unwrap_or_default();
        if bytes.is_empty() {
            return None;
        }
        let moved = match self.child.as_mut().and_then(|child| child.stdin.as_mut()) {
            Some(pipe) if pipe.ready => pipe.write(bytes),
            Some(_) => return None,
            None => Ok(Moved::End),
        };
        match moved {
            Ok(Moved::Bytes(n)) => {
                if let Some(child) = &mut self.child {
                    child.note_input(bytes.get(..n).unwrap_or_default());
                }
                Some(n)
            }
            Ok(Moved::WouldBlock) => {
                self.wait_for_stdin(cx);
                None
            }
            Err(error) => {
                self.give_up(cx, "write to the program", &error.into());
                Some(0)
            }
            Ok(Moved::End) => {
                log::debug!("connection {}: the program reads no more input", self.number);
                self.session.stdin_refused();
                self.perform(cx);
                Some(0)
            }
        }
    }

    fn wait_for_stdin(&mut self, cx: &Context<'_>) {
        let token = token(self.slot, Source::Stdin);
        if let Some(pipe) = self.child.as_mut().and_then(|child| child.stdin.as_mut())
            && let Err(error) = pipe.wait(cx.registry, token, Interest::WRITABLE)
        {
            self.give_up(cx, "wait for the program to read", &error);
        }
    }

    /// The system refuses what the program's streams need: the client is told, and not left with a part of the output
    /// or an exit status that follows from a part of the input.
    fn give_up(&mut self, cx: &Context<'_>, what: &str, error: &std::io::Error) {
        log::warn!("connection {}: cannot {what}: {error}", self.number);
        self.activity += 1;
        self.session.broken(cx.now, &format!("cannot {what}: {}", child::strerror(error)));
        self.perform(cx);
    }

    fn flush(&mut self, cx: &Context<'_>) {
        let mut budget = CHUNKS_A_ROUND * CHUNK;
        let (Some(socket), true) = (&self.socket, self.writable) else { return };
        let before = self.outbox.len();
        let outcome = self.outbox.flush(socket, &mut budget);
        let sent = before - self.outbox.len();
        self.sent += sent;
        self.activity += sent;
        match outcome {
            Flush::Empty if self.finishing => {
                // In the same turn as the exit pair, and not left to close(2): a copy of the socket that a
                // child holds before its exec would keep the connection open, and lua-resty-exec takes an
                // end that comes a millisecond late for a time-out.
                let _ = socket.shutdown(Shutdown::Write);
                self.finishing = false;
                self.activity += 1;
                log::debug!("connection {}: reply complete", self.number);
                self.session.sent(cx.now);
            }
            Flush::Empty | Flush::Budget => {}
            Flush::Blocked => self.writable = false,
            Flush::Broken | Flush::Lost => {
                if outcome == Flush::Broken {
                    log::debug!("connection {}: client gone", self.number);
                }
                self.session.client_gone(cx.now);
                self.activity += 1;
            }
        }
    }

    // The program.

    fn pump_output(&mut self, cx: &Context<'_>, scratch: &mut Scratch, stream: Stream) {
        if self.session.wants_executed() {
            return;
        }
        for _ in 0..CHUNKS_A_ROUND {
            if !self.outbox.has_room(self.session.backpressure()) {
                return;
            }
            let Some(child) = &mut self.child else { return };
            let Some(pipe) = child.output(stream) else { return };
            if !pipe.ready {
                return;
            }
            if pipe.left == Some(0) {
                return self.end_output(cx, stream);
            }
            if pipe.big && pipe.left.is_none() {
                match self.splice_output(cx, stream) {
                    Some(true) => continue,
                    Some(false) => return,
                    None => {}
                }
            }
            let Some(pipe) = self.child.as_mut().and_then(|child| child.output(stream).as_mut()) else { return };
            let buffer = scratch.payload();
            let most = pipe.left.map_or(buffer.len(), |left| left.min(buffer.len()));
            match pipe.read(buffer.get_mut(..most).unwrap_or_default()) {
                Ok(Moved::Bytes(n)) => {
                    if let Some(left) = &mut pipe.left {
                        *left -= n;
                    }
                    pipe.big = n == most && pipe.is_pipe();
                    pipe.chatter.note(n, cx.now);
                    // What was written since would be a frame of its own.
                    let enough = n < most && pipe.left.is_none() && pipe.chatter.is_chatty();
                    let gathers = enough && gather(cx, pipe);
                    self.activity += 1;
                    self.queue(scratch, stream, n);
                    if gathers {
                        return;
                    }
                }
                Ok(Moved::WouldBlock) if pipe.left.is_some() => self.end_output(cx, stream),
                Ok(Moved::WouldBlock) => {
                    self.session.output_is_empty(cx.now);
                    if gather(cx, pipe) {
                        return;
                    }
                    let source = match stream {
                        Stream::Stdout => Source::Stdout,
                        Stream::Stderr => Source::Stderr,
                    };
                    if let Err(error) = pipe.wait(cx.registry, token(self.slot, source), Interest::READABLE) {
                        self.give_up(cx, &format!("wait for {}", stream.tag()), &error);
                        self.end_output(cx, stream);
                    }
                    return;
                }
                Ok(Moved::End) => self.end_output(cx, stream),
                Err(error) => {
                    self.give_up(cx, &format!("read {}", stream.tag()), &error.into());
                    self.end_output(cx, stream);
                }
            }
        }
    }

    /// Splices a big stream to the client. False: the client must read first. None: the bytes are to be copied.
    fn splice_output(&mut self, cx: &Context<'_>, stream: Stream) -> Option<bool> {
        let mut splicer = cx.splicer.borrow_mut();
        if !splicer.is_enabled() {
            return None;
        }
        match self.session.backpressure() {
            Backpressure::Discard => return None,
            // What is read is queued in memory, from where it would be copied: it is better off in the pipe.
            Backpressure::Strict if !self.outbox.is_empty() || !self.writable => return Some(false),
            Backpressure::Spool if !self.outbox.is_empty() || !self.writable => return None,
            Backpressure::Strict | Backpressure::Spool => {}
        }
        let socket = self.socket.as_ref()?;
        let pipe = self.child.as_mut()?.output(stream).as_mut()?;
        let available = transfer::available(pipe.as_fd());
        if available < SPLICE_MIN {
            return None;
        }
        if available >= child::PIPE_SIZE {
            pipe.found_full(&splicer);
        }
        let frame = |len| self.session.output(stream, len);
        match splicer.send(pipe.as_fd(), available, socket.as_fd(), frame) {
            Spliced::Sent(sent) => {
                self.activity += 1;
                self.sent += sent as u64;
                Some(true)
            }
            Spliced::Rest { sent, rest, cut } => {
                self.activity += 1;
                self.sent += sent as u64;
                self.outbox.push_rest(rest, cut);
                Some(true)
            }
            Spliced::WouldBlock => {
                self.writable = false;
                // The program must not wait for a client that may not read yet.
                (self.session.backpressure() == Backpressure::Strict).then_some(false)
            }
            Spliced::End => {
                log::debug!("connection {}: client gone", self.number);
                self.session.client_gone(cx.now);
                self.activity += 1;
                Some(false)
            }
            Spliced::Unable => None,
        }
    }

    /// Queues the `len` bytes in `scratch`, or sends them at once if they are many.
    fn queue(&mut self, scratch: &mut Scratch, stream: Stream, len: usize) {
        let Some(frame) = self.session.output(stream, len) else { return };
        let framed = scratch.framed(&frame, len);
        if len >= DIRECT
            && self.writable
            && let Some(socket) = &self.socket
        {
            let before = self.outbox.len();
            let flushed = self.outbox.flush(socket, &mut (CHUNKS_A_ROUND * CHUNK));
            self.sent += before - self.outbox.len();
            if flushed == Flush::Empty
                && let Moved::Bytes(n) = transfer::send(socket, framed)
            {
                self.sent += n as u64;
                let rest = framed.get(n..).unwrap_or_default();
                return self.outbox.push_rest(rest.to_vec(), rest.len());
            }
        }
        self.outbox.push(framed);
    }

    fn end_output(&mut self, cx: &Context<'_>, stream: Stream) {
        self.activity += 1;
        if let Some(pipe) = self.child.as_mut().and_then(|child| child.output(stream).take()) {
            pipe.close(cx.registry);
        }
        self.session.output_closed(stream);
        self.perform(cx);
    }

    fn check_exit(&mut self, cx: &Context<'_>) {
        let failed = self.session.wants_executed() && self.child.as_ref().is_some_and(Child::has_failed);
        if !self.exit_ready || !(failed || self.session.wants_exit()) {
            return;
        }
        let Some(child) = &mut self.child else { return };
        let status = match child.group.status() {
            Ok(status) => status,
            Err(error) => {
                self.activity += 1;
                log::warn!("connection {}: lost the status of pid {}: {error}", self.number, child.group.leader());
                let reason = format!("exit status lost: {}", child::strerror(&error));
                cx.totals.finished();
                self.session.start_failed(&StartError { kind: StartErrorKind::Lost, about: None, reason });
                return;
            }
        };
        if let Some(status) = status {
            self.activity += 1;
            self.exit_retry = None;
            if let Some(error) = child.start_error() {
                log::debug!("connection {}: cannot start {}: {}", self.number, self.label, error.reason);
                cx.totals.failed_after_all();
                self.session.start_failed(&error);
                return;
            }
            log::debug!("connection {}: pid {} ended: {}", self.number, child.group.leader(), Ended(status));
            cx.totals.finished();
            let usage = if self.session.version() == Version::Two { child.group.usage() } else { None };
            self.session.executed(child.group.leader().unsigned_abs());
            self.session.exited(cx.now, status, usage);
            // What an empty stream means is different now.
            child.outputs().for_each(Pipe::retire);
        } else {
            // Most programs have exited by the time their output has ended; a descriptor is opened only
            // for those that have not.
            self.exit_ready = false;
            self.exit_retry = match child.watch_exit(cx.registry, token(self.slot, Source::Exit)) {
                Ok(()) => None,
                Err(error) => {
                    let wait = self.exit_retry.map_or(FIRST_EXIT_RETRY, |(_, wait)| (wait * 2).min(MAX_EXIT_RETRY));
                    log::debug!("connection {}: cannot watch for the exit: {error}; looking again", self.number);
                    Some((cx.now + wait, wait))
                }
            };
        }
    }
}

/// Leaves a stream alone for a moment, if it is chatty and the time is kept well enough; false: it is to be waited for.
fn gather(cx: &Context<'_>, pipe: &mut Pipe) -> bool {
    let gathers = cx.gathers && pipe.gather(cx.registry);
    if gathers {
        cx.totals.gathered();
    }
    gathers
}

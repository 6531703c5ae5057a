//! One connection: carries out what its [`Session`] asks for, and tells it what happens.

mod actions;
mod ahead;
mod describe;
mod ends;
mod exit;
mod input;
mod output;
mod session;
mod version_2;
mod waiting;

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use mio::event::Event;
use mio::net::UnixStream;
use mio::{Interest, Registry};
use sockexec_proto::{ErrorCode, Stream};

use self::describe::{Arguments, Credentials, Seconds};
use self::input::Input;
use super::child::{self, Child};
use super::clock::Clock;
use super::counts::Counts;
use super::events;
use super::memory::RequestMemory;
use super::outbox::Outbox;
use super::scratch::Scratch;
use super::sessions::Lookout;
use super::slots::Slots;
use super::status::{Late, Totals};
use super::token::{Source, token};
use crate::engine::{Limits, Session, Time};
use crate::sys::foreign::Foreign;
use crate::sys::socket::Peer;
use crate::sys::spawn::Spawner;
use crate::sys::splice::Splicer;

/// How many chunks or frames one stream may move before the connection's others have their turn.
const CHUNKS_A_ROUND: usize = 8;

/// How many rounds a connection may go before other connections have their turn.
const ROUNDS_A_TURN: usize = 4;

/// What a connection needs from the daemon while it is served.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) spawner: &'a RefCell<Spawner>,
    pub(crate) splicer: &'a RefCell<Splicer>,
    pub(crate) slots: &'a Slots,
    pub(crate) memory: &'a RequestMemory,
    pub(crate) lookout: &'a Lookout,
    pub(crate) totals: &'a Totals,
    /// Whether timers are exact enough for small writes to be gathered.
    pub(crate) gathers: bool,
    /// How many connections there are, including this one.
    pub(crate) connections: usize,
    pub(crate) now: Time,
    /// For the current time, as a turn takes its time.
    pub(crate) clock: &'a Clock,
}

/// A connection, from `accept(2)` until its client is gone and its program's group is done.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own; enums have those that go together")]
pub(crate) struct Connection {
    /// Counted from 1 over the daemon's life.
    number: u64,
    slot: usize,
    peer: Option<Peer>,
    /// None: closed.
    socket: Option<UnixStream>,
    readable: bool,
    writable: bool,
    session: Session,
    input: Input,
    /// The end of the client's bytes was read: nothing is in the socket, and nothing can come.
    input_ended: bool,
    outbox: Outbox,
    /// Once this many bytes are sent, the last report of how much input was taken is among them.
    reported_at: u64,
    /// The sending side must be ended when the outbox is empty.
    finishing: bool,
    child: Option<Child>,
    /// Its program has a slot, or its request waits for one.
    has_slot: bool,
    waits: bool,
    /// Its request is left in its socket, for lack of memory.
    paused: bool,
    /// How much of the memory of all its request takes, in bytes.
    held: u64,
    /// When its client last sent some of the request, or some of the reply was last sent.
    moved_at: Time,
    /// Its program has left a group that counts as a leftover.
    is_leftover: bool,
    /// The leader may have exited: nothing has shown otherwise since.
    exit_ready: bool,
    /// The time for the request is over: what has come is read once more before that is reported.
    request_due: bool,
    /// When to check again, if no descriptor reports the exit.
    exit_retry: Option<Time>,
    /// How often that was done.
    exit_retries: u8,
    arguments: Arguments,
    /// When its request was complete, and once its program is started, when that was.
    since: Time,
    /// What the log will say about the program when all is over; `None`: nothing, or it was said.
    to_log: Option<Box<events::Program>>,
    /// Descriptors that came with the request: three at most. None: no descriptors, as for most.
    #[expect(clippy::box_collection, reason = "empty, a Vec is three words in each connection")]
    descriptors: Option<Box<Vec<Foreign>>>,
    /// The client has asked for the daemon's status.
    status_wanted: bool,
    received: u64,
    sent: u64,
    /// Grows with everything that is done, so that it shows when nothing more can be done.
    activity: u64,
}

impl Connection {
    pub(crate) fn new(
        number: u64,
        slot: usize,
        socket: UnixStream,
        peer: Option<Peer>,
        limits: Rc<Limits>,
        outbox: Outbox,
        now: Time,
    ) -> Self {
        log::debug!("connection {number}: accepted{}", Credentials(peer));
        Self {
            number,
            slot,
            peer,
            socket: Some(socket),
            readable: true,
            writable: true,
            session: Session::new(limits, now),
            input: Input::new(),
            input_ended: false,
            outbox,
            reported_at: 0,
            finishing: false,
            child: None,
            has_slot: false,
            waits: false,
            paused: false,
            held: 0,
            moved_at: now,
            is_leftover: false,
            exit_ready: true,
            request_due: false,
            exit_retry: None,
            exit_retries: 0,
            arguments: Arguments::default(),
            since: now,
            to_log: None,
            descriptors: None,
            status_wanted: false,
            received: 0,
            sent: 0,
            activity: 0,
        }
    }

    /// Asks for the events of the socket.
    pub(crate) fn register(&mut self, registry: &Registry) -> std::io::Result<()> {
        match &mut self.socket {
            Some(socket) => {
                registry.register(socket, token(self.slot, Source::Client), Interest::READABLE | Interest::WRITABLE)
            }
            None => Ok(()),
        }
    }

    /// Closes the socket of one that was never served.
    pub(crate) fn abandon(mut self) {
        drop(self.socket.take().map(|socket| Foreign::from(OwnedFd::from(socket))));
    }

    pub(crate) fn is_over(&self) -> bool {
        self.session.is_over()
    }

    pub(crate) fn next_timer(&self) -> Option<Time> {
        let look = self.child.as_ref().and_then(Child::next_look);
        let input = self.next_input_timer();
        self.session.next_timer().into_iter().chain(self.exit_retry).chain(look).chain(input).min()
    }

    /// Tries again to put output on disk that waits for room there; false: none does.
    pub(crate) fn resume_spool(&mut self) -> bool {
        self.outbox.resume()
    }

    /// Its request, which has waited, gets a slot.
    pub(crate) fn take_slot(&mut self, now: Time) {
        log::debug!("connection {}: has a slot", self.number);
        self.waits = false;
        self.has_slot = true;
        self.session.slot(now);
    }

    /// Notes what `event` reports about `source`.
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

    /// Does what is due at `now`. If the deadline was among it: what is late.
    pub(crate) fn tick(&mut self, now: Time) -> Option<Late> {
        // Taken, as it would be due again in each turn.
        if self.exit_retry.take_if(|at| *at <= now).is_some() {
            self.exit_ready = true;
        }
        if let Some(child) = &mut self.child {
            child.tick(now);
        }
        self.input.tick(now);
        if !self.request_due && self.session.request_is_due(now) {
            // The rest may have come while this thread did something else: the readiness of the socket is not
            // known yet, or the connection is new.
            (self.request_due, self.readable) = (true, true);
            return None;
        }
        let late = if self.session.awaits_request() { Late::Request } else { Late::End };
        let before = self.session.timed_out();
        self.session.tick(now);
        if before || !self.session.timed_out() {
            return None;
        }
        self.warn_of_deadline(late);
        Some(late)
    }

    pub(crate) fn shut_down(&mut self, now: Time, at_once: bool, counts: &Counts) {
        if self.session.is_cut_by_shutdown() {
            counts.error(&ErrorCode::Shutdown);
        }
        if at_once {
            self.session.shut_down_now(now);
        } else {
            self.session.shut_down(now);
        }
    }

    /// The daemon is about to end, and waits for the connections that are here.
    pub(crate) fn drain(&mut self, now: Time) {
        self.session.drain(now);
    }

    /// Makes its next turn read its socket, whatever is known about it, if its request is not complete;
    /// false: it is.
    pub(crate) fn reads_once_more(&mut self) -> bool {
        self.readable |= self.session.awaits_request();
        self.session.awaits_request()
    }

    /// Does what can be done without waiting, within a turn's share. True: there is more.
    pub(crate) fn serve(&mut self, cx: &Context<'_>, scratch: &mut Scratch) -> bool {
        let before = (self.received, self.sent);
        let more = self.work(cx, scratch);
        // What comes after the request does not bring it forward.
        if self.sent != before.1 || self.received != before.0 && self.session.awaits_request() {
            self.moved_at = cx.now;
        }
        self.settle_slot(cx);
        self.settle_memory(cx);
        if self.to_log.is_some() && self.session.is_answered() {
            self.log_end();
        }
        more
    }

    fn work(&mut self, cx: &Context<'_>, scratch: &mut Scratch) -> bool {
        for _ in 0..ROUNDS_A_TURN {
            let before = self.activity;
            self.perform(cx);
            let is_long = self.pump_request(cx, scratch);
            self.check_exec(cx);
            self.pump_end_of_input(cx);
            self.pump_output(cx, scratch, Stream::Stdout);
            self.pump_output(cx, scratch, Stream::Stderr);
            self.check_exit(cx);
            self.check_output(cx);
            self.perform(cx);
            // Last, so that the end of the output, the exit pair and the end of the connection go out together.
            self.flush(cx);
            self.perform(cx);
            self.note_stall();
            if self.activity == before || self.is_over() {
                return false;
            }
            if is_long {
                return true;
            }
        }
        true
    }

    /// Closes what is left; the connection is over.
    pub(crate) fn close(mut self, cx: &Context<'_>) {
        self.close_client(cx);
        cx.lookout.forget(self.slot);
        if let Some(child) = self.child.take() {
            child.close(cx.registry);
        }
        cx.totals.add_bytes(self.received, self.sent);
        self.log_end();
        log::debug!(
            "connection {}: over after {}, {} bytes in, {} bytes out",
            self.number,
            Seconds(cx.now.saturating_sub(self.session.accepted())),
            self.received,
            self.sent
        );
    }
}

//! One thread, one poll: events in, connections served in turn, timers, new clients.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::net::UnixListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook_mio::v1_0::Signals;
use slab::Slab;

use super::alarm::Alarm;
use super::connection::{Connection, Context};
use super::listener::SocketFile;
use super::memory::RequestMemory;
use super::outbox::Outbox;
use super::place::{Guard, News, Retiring};
use super::room::{self, Verdict};
use super::scratch::Scratch;
use super::sessions::Lookout;
use super::slots::Slots;
use super::spool::Spools;
use super::status::{LimitsReport, Report, Totals};
use super::token::{self, Target};
use super::{Daemon, Handle, Settings};
use crate::engine::{Limits, Stay, Time};
use crate::sys::closer;
use crate::sys::kernel::{self, Lack};
use crate::sys::process;
use crate::sys::socket;
use crate::sys::spawn::Spawner;
use crate::sys::splice::Splicer;

/// How many events are taken from the kernel at once.
const EVENTS: usize = 256;

/// How many clients are accepted before the others have their turn: one that comes and goes in a loop would
/// otherwise keep the loop to itself.
const ACCEPTS_A_TURN: usize = 64;

/// How soon to accept again after it failed for want of descriptors or memory, if nothing is freed before.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long after a HUP the terminal is looked at once more, and then in twice that time, up to the second. The end of a session sends HUP
/// first, and takes the terminal away after that (`disassociate_ctty` in the kernel).
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_millis(1600);
/// How soon to look at a full waiting room again in which nobody had to go, though one or another of many may have to any moment.
const ROOM_LOOK: Duration = Duration::from_millis(10);

/// What is kept of a connection beside itself.
#[derive(Debug)]
struct Slot {
    connection: Connection,
    /// It is in the queue of those to be served.
    queued: bool,
    /// Its place in the set of timers.
    timer: Option<Time>,
    /// It was turned away, and has its answer or is about to: it has no place in the waiting room.
    leaving: bool,
}

/// What is known of the waiting room while it is full.
#[derive(Debug, Default)]
struct Room {
    /// Connections that were turned away, in that order. They are not closed at once, or what they still send would reset the
    /// connection, and their answer might be lost.
    leaving: VecDeque<usize>,
    /// When to look again who has to go, and what it depends on that nobody had to.
    look_at: Option<Time>,
    seen: Option<(usize, u64, u64)>,
    /// That it is full was logged, and it has not been half empty since.
    complained: bool,
}

/// The listening socket while clients are accepted.
#[derive(Debug)]
struct Listening {
    /// Before the socket: see [`Daemon`].
    file: SocketFile,
    socket: UnixListener,
    /// Somebody may be waiting: accept has not said otherwise since the last event.
    ready: bool,
    /// Not before this.
    retry_at: Option<Time>,
    /// That it fails was logged, and it has not succeeded since.
    complained: bool,
}

pub(super) struct EventLoop {
    settings: Settings,
    limits: Rc<Limits>,
    poll: Poll,
    signals: Option<Signals>,
    had_terminal: bool,
    /// When to look whether the terminal is gone, and in what time after that.
    terminal_look: Option<(Time, Duration)>,
    handle: Handle,
    /// None: shutting down, or another daemon has taken over.
    listening: Option<Listening>,
    place: Guard,
    /// The listening socket before, while somebody may still come to it.
    retiring: Option<Retiring>,
    shutting_down: bool,
    slots: Slab<Slot>,
    /// Connections that have something to do, in the order of their turns.
    turns: VecDeque<usize>,
    timers: BTreeSet<(Time, usize)>,
    programs: Slots,
    room: Room,
    memory: RequestMemory,
    /// When to look whether the request that is read beyond that memory comes.
    lead_look_at: Option<Time>,
    lookout: Lookout,
    accepted: u64,
    turns_made: u64,
    epoch: Instant,
    alarm: Alarm,
    scratch: Scratch,
    spawner: RefCell<Spawner>,
    /// What is missing of the kernel.
    lacks: Vec<Lack>,
    splicer: RefCell<Splicer>,
    /// What all outboxes together keep in memory and on disk.
    spools: Rc<Spools>,
    totals: Totals,
}

impl EventLoop {
    pub(super) fn new(daemon: Daemon) -> io::Result<Self> {
        let Daemon { settings, poll, mut signals, had_terminal, handle, file, socket } = daemon;
        let mut listener = UnixListener::from_std(socket.into());
        poll.registry().register(&mut listener, token::LISTENER, Interest::READABLE)?;
        if let Some(signals) = &mut signals {
            poll.registry().register(signals, token::SIGNALS, Interest::READABLE)?;
        }
        let place = Guard::new(poll.registry(), &file, settings.watches);
        let spools = Rc::new(Spools::new(settings.spool_total, Some(handle.clone())));
        let alarm = Alarm::new(poll.registry());
        let lacks = kernel::lacks();
        if !lacks.is_empty() {
            let meanings: Vec<_> = lacks.iter().map(|lack| lack.meaning).collect();
            log::warn!("the kernel lacks, or a filter refuses: {}", meanings.join("; "));
        }
        let spawner = Spawner::new(settings.spare_descriptors, settings.program_descriptors);
        if let Some(descriptor) = spawner.descriptor() {
            poll.registry().register(&mut SourceFd(&descriptor.as_raw_fd()), token::SPAWNER, Interest::READABLE)?;
        }
        Ok(Self {
            settings,
            limits: Rc::new(settings.limits),
            poll,
            signals,
            had_terminal,
            terminal_look: None,
            handle,
            listening: Some(Listening { socket: listener, file, ready: true, retry_at: None, complained: false }),
            place,
            retiring: None,
            shutting_down: false,
            slots: Slab::new(),
            turns: VecDeque::new(),
            timers: BTreeSet::new(),
            programs: Slots::new(settings.max_connections, settings.max_per_user),
            room: Room::default(),
            memory: RequestMemory::default(),
            lead_look_at: None,
            lookout: Lookout::new(),
            accepted: 0,
            turns_made: 0,
            epoch: Instant::now(),
            alarm,
            scratch: Scratch::new(),
            spawner: RefCell::new(spawner),
            lacks,
            splicer: RefCell::new(Splicer::new()),
            spools,
            totals: Totals::default(),
        })
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        if let Some(listening) = &self.listening {
            log::debug!("listening on {}", listening.file.path().display());
        }
        let mut events = Events::with_capacity(EVENTS);
        while self.listening.is_some() || self.retiring.is_some() || !self.slots.is_empty() {
            let timeout = self.poll_timeout();
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.turn(&events);
        }
        Ok(())
    }

    /// One turn of the loop.
    fn turn(&mut self, events: &Events) {
        self.turns_made += 1;
        let now = self.now();
        for event in events {
            match token::target(event.token()) {
                Some(Target::Connection(slot, source)) => {
                    // An event of this batch may be about a connection that an earlier one ended.
                    if let Some(place) = self.slots.get_mut(slot) {
                        place.connection.note(now, source, event);
                        self.queue(slot);
                    }
                }
                Some(Target::Listener) => {
                    if let Some(listening) = &mut self.listening {
                        listening.ready = true;
                    }
                }
                Some(Target::Signals) => self.take_signals(now),
                Some(Target::Handle) => {
                    for _ in 0..self.handle.take_orders() {
                        self.shut_down(now);
                    }
                }
                Some(Target::Place) => self.place.note(),
                Some(Target::Retiring) => {
                    if let Some(retiring) = &mut self.retiring {
                        retiring.ready = true;
                    }
                }
                // The turn is what it is for.
                Some(Target::Alarm | Target::Spawner) | None => {}
            }
        }
        if self.spools.has_news() {
            self.resume_spools();
        }
        self.run_timers(now);
        // Those that are queued now; one that asks for another turn gets it after the next poll.
        for _ in 0..self.turns.len() {
            if let Some(slot) = self.turns.pop_front() {
                self.serve(now, slot);
            }
        }
        self.look_for_members(now);
        // After all events, so that a place is not given away while one of them may still mean its last holder.
        self.look_at_place(now);
        self.accept(now);
        self.accept_late(now);
        self.give_slots(now);
        self.make_room(now);
        self.read_requests(now);
        self.spawner.borrow_mut().collect();
        closer::retry();
    }

    fn now(&self) -> Time {
        Time::after(self.epoch.elapsed())
    }

    fn poll_timeout(&mut self) -> Option<Duration> {
        // The listener is edge-triggered too: clients that were left for this turn are not told of again.
        let more = self.listening.as_ref().is_some_and(|listening| listening.ready && listening.retry_at.is_none());
        let more = more || self.retiring.as_ref().is_some_and(|retiring| retiring.ready);
        if !self.turns.is_empty() || more && self.has_room() {
            return Some(Duration::ZERO);
        }
        let look = self.spawner.borrow().next_look();
        let accept = self.listening.as_ref().filter(|_| self.has_room()).and_then(|listening| listening.retry_at);
        let timer = self.timers.first().map(|&(time, _)| time);
        let Some(next) = accept.into_iter().chain(timer).chain(self.next_own_timer()).min() else {
            return look;
        };
        // Never a moment too early: the loop would turn for nothing until it is due.
        let left = next.saturating_sub(self.now()).saturating_add(Duration::from_micros(1));
        self.alarm.ring(next, left);
        look.into_iter().chain([left]).min()
    }

    /// When to do something that no connection has asked for.
    fn next_own_timer(&self) -> Option<Time> {
        let look = self.listening.as_ref().and_then(|_| self.place.next_look());
        let close = self.retiring.as_ref().and_then(Retiring::close_at);
        let room = self.room.look_at.into_iter().chain(self.lead_look_at);
        let terminal = self.terminal_look.map(|(at, _)| at);
        terminal.into_iter().chain(look).chain(close).chain(room).chain(self.lookout.due()).min()
    }

    /// How many connections are in the waiting room.
    fn guests(&self) -> usize {
        let others = self.programs.taken() + self.programs.free_leftovers() + self.room.leaving.len();
        self.slots.len().saturating_sub(others)
    }

    /// Whether another connection may come: some more than have a place, so that what one wants is known before another goes for it.
    fn has_room(&self) -> bool {
        self.guests() < self.settings.max_waiting + self.settings.extra
    }

    /// Sees to it that no more connections are in the waiting room than may.
    fn make_room(&mut self, now: Time) {
        loop {
            let over = self.guests().saturating_sub(self.settings.max_waiting);
            // At the end of the daemon nobody comes any more, and those that are here are told why they have to go.
            if over == 0 || self.listening.is_none() {
                (self.room.look_at, self.room.seen) = (None, None);
                self.room.complained &= self.guests() > self.settings.max_waiting / 2;
                return;
            }
            // Nobody had to go, and nothing has come to pass that could change that: do not go through all of them in every turn.
            let seen = Some((self.guests(), self.programs.waits(), self.accepted));
            if self.room.seen == seen && self.room.look_at.is_none_or(|at| at > now) {
                return;
            }
            let guests = self.slots.iter().filter(|(_, place)| !place.leaving);
            let guests = guests.filter_map(|(_, place)| place.connection.guest());
            let newest = |user| self.programs.newest(user).or_else(|| self.memory.newest(user));
            match room::judge(&guests, over, self.settings.extra, now, newest) {
                Verdict::Goes(slot) => {
                    if !std::mem::replace(&mut self.room.complained, true) {
                        let places = self.settings.max_waiting;
                        log::warn!("more than {places} connections wait (--max-waiting): some are turned away");
                    }
                    self.turn_away(now, slot);
                }
                Verdict::Nobody(look_at) => {
                    self.room.look_at = look_at.map(|at| at.max(now + ROOM_LOOK));
                    self.room.seen = seen;
                    return;
                }
            }
        }
    }

    /// Takes a connection's place away.
    fn turn_away(&mut self, now: Time, slot: usize) {
        self.totals.turned_away();
        self.dismiss(now, slot);
        if self.room.leaving.len() > self.settings.extra
            && let Some(&first) = self.room.leaving.front()
        {
            self.dismiss(now, first);
        }
    }

    /// Tells a connection that it has no place, or closes it, if it was told or there is nothing to tell.
    fn dismiss(&mut self, now: Time, slot: usize) {
        let Some(place) = self.slots.get_mut(slot) else { return };
        place.connection.turn_away(now);
        if !std::mem::replace(&mut place.leaving, true) {
            self.room.leaving.push_back(slot);
        }
        self.serve(now, slot);
    }

    /// Lets requests be read on that were left in their sockets, as far as there is memory for them, and one in any case.
    fn read_requests(&mut self, now: Time) {
        self.lead_look_at = None;
        if self.memory.waiting() == 0 {
            return;
        }
        for _ in 0..self.memory.chunks_left() {
            let Some(slot) = self.memory.next() else { return };
            self.read_request(now, slot);
        }
        loop {
            if let Some(slot) = self.memory.choose_lead(|user| self.programs.may_have_more(user)) {
                self.read_request(now, slot);
            }
            let lead = self.memory.lead().and_then(|slot| Some((slot, self.slots.get(slot)?.connection.guest()?)));
            let Some((slot, guest)) = lead.filter(|(_, guest)| guest.stay == Some(Stay::Request)) else { return };
            if self.memory.waiting() == 0 {
                return;
            }
            let look_at = guest.moved_at + room::SILENCE;
            if look_at > now {
                self.lead_look_at = Some(look_at);
                return;
            }
            // The others wait for nothing but its client, which says nothing.
            self.turn_away(now, slot);
        }
    }

    fn read_request(&mut self, now: Time, slot: usize) {
        if let Some(place) = self.slots.get_mut(slot) {
            place.connection.go_on(now);
            self.queue(slot);
        }
    }

    /// Gives the slots that are free to those who wait for one.
    fn give_slots(&mut self, now: Time) {
        while let Some(slot) = self.programs.give() {
            if let Some(place) = self.slots.get_mut(slot) {
                place.connection.take_slot(now);
            }
            self.serve(now, slot);
        }
    }

    /// There is room on disk again: those that wait for it have their turn.
    fn resume_spools(&mut self) {
        let waiting = self.slots.iter_mut().filter_map(|(slot, place)| place.connection.resume_spool().then_some(slot));
        for slot in waiting.collect::<Vec<_>>() {
            self.queue(slot);
        }
    }

    fn queue(&mut self, slot: usize) {
        if let Some(place) = self.slots.get_mut(slot)
            && !place.queued
        {
            place.queued = true;
            self.turns.push_back(slot);
        }
    }

    fn run_timers(&mut self, now: Time) {
        if let Some((_, wait)) = self.terminal_look.take_if(|(at, _)| *at <= now)
            && !self.hang_up(now)
        {
            self.look_at_terminal(now, wait);
        }
        while let Some(&(time, slot)) = self.timers.first()
            && time <= now
        {
            self.timers.pop_first();
            if let Some(place) = self.slots.get_mut(slot) {
                place.timer = None;
                if place.connection.tick(now) {
                    self.totals.timed_out();
                }
                self.queue(slot);
            }
        }
    }

    /// Gives one connection its turn, and draws the consequences.
    fn serve(&mut self, now: Time, slot: usize) {
        let connections = self.slots.len();
        let Some(place) = self.slots.get_mut(slot) else { return };
        place.queued = false;
        let cx = Context {
            registry: self.poll.registry(),
            spawner: &self.spawner,
            splicer: &self.splicer,
            slots: &self.programs,
            memory: &self.memory,
            lookout: &self.lookout,
            totals: &self.totals,
            gathers: self.alarm.is_fine(),
            connections,
            now,
        };
        let again = place.connection.serve(&cx, &mut self.scratch);
        if place.connection.wants_status() {
            let status = self.status(now);
            if let Some(place) = self.slots.get_mut(slot) {
                place.connection.tell_status(&status);
            }
            // At once, so that nobody has to make way for one who only asks. It asks once.
            return self.serve(now, slot);
        }
        if place.connection.is_over() {
            if let Some(timer) = place.timer {
                self.timers.remove(&(timer, slot));
            }
            if place.leaving {
                self.room.leaving.retain(|&leaves| leaves != slot);
            }
            self.slots.remove(slot).connection.close(&cx);
            if let Some(listening) = &mut self.listening {
                // Descriptors were freed.
                listening.retry_at = None;
            }
            return;
        }
        let timer = place.connection.next_timer();
        if timer != place.timer {
            if let Some(old) = place.timer {
                self.timers.remove(&(old, slot));
            }
            if let Some(new) = timer {
                self.timers.insert((new, slot));
            }
            place.timer = timer;
        }
        if again {
            self.queue(slot);
        }
    }

    fn accept(&mut self, now: Time) {
        for _ in 0..ACCEPTS_A_TURN {
            if !self.has_room() {
                return;
            }
            let Some(listening) = &mut self.listening else { return };
            if !listening.ready || listening.retry_at.is_some_and(|at| at > now) {
                return;
            }
            listening.retry_at = None;
            match listening.socket.accept() {
                Ok((socket, _)) => {
                    listening.complained = false;
                    self.admit(now, socket);
                    self.make_room(now);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => listening.ready = false,
                    // That client gave up while it waited (accept(2)).
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    // EMFILE, ENFILE, ENOBUFS, ENOMEM: whoever waits stays in the backlog.
                    _ => {
                        if !listening.complained {
                            log::warn!("cannot accept connections for now: {error}");
                            listening.complained = true;
                        }
                        listening.retry_at = Some(now + ACCEPT_RETRY);
                    }
                },
            }
        }
    }

    /// Looks for the members of all sessions that are to be ended, if it is time to.
    fn look_for_members(&mut self, now: Time) {
        let waiting = self.lookout.take_due(now);
        if waiting.is_empty() {
            return;
        }
        let leader = |slot| self.slots.get(slot).and_then(|place| place.connection.session_leader());
        let leaders: Vec<_> = waiting.iter().filter_map(|&slot| leader(slot)).collect();
        let epoch = self.epoch;
        let all = self.lookout.look(|| Time::after(epoch.elapsed()), &leaders);
        let now = self.now();
        for slot in waiting {
            let Some(place) = self.slots.get_mut(slot) else { continue };
            let leader = place.connection.session_leader();
            let its = |all: &Vec<(_, _)>| -> Vec<_> {
                all.iter().filter(|(of, _)| Some(*of) == leader).map(|&(_, member)| member).collect()
            };
            if place.connection.take_members(now, all.as_ref().map(its).as_deref()) {
                self.lookout.want(slot);
            }
            self.queue(slot);
        }
    }

    /// Sees to it that there is a socket where clients look for one.
    fn look_at_place(&mut self, now: Time) {
        let former = self.retiring.as_ref().map(|retiring| &retiring.file);
        let Some(listening) = &self.listening else { return };
        let (next, stays) = match self.place.look(self.poll.registry(), now, &listening.file, former) {
            News::Nothing => return,
            News::TakenOver => (None, false),
            News::Made { socket, file, moved } => (Some((file, socket)), moved),
            News::Back => (self.retiring.take().map(|former| (former.file, former.socket)), false),
        };
        self.close_retiring(now);
        let registry = self.poll.registry();
        let before = self.listening.take();
        if let Some((file, mut socket)) = next {
            // One that was registered already gets this token now.
            let _ = registry.reregister(&mut socket, token::LISTENER, Interest::READABLE);
            self.place.watch(&file);
            self.listening = Some(Listening { socket, file, ready: true, retry_at: None, complained: false });
        }
        if let Some(Listening { mut socket, file, .. }) = before {
            // Without events it is looked at when it is closed.
            let _ = registry.reregister(&mut socket, token::RETIRING, Interest::READABLE);
            self.retiring = Some(Retiring::new(file, socket, stays, now));
        }
    }

    /// Accepts those that come to a socket without a name, and closes it when nobody does any more.
    fn accept_late(&mut self, now: Time) {
        self.accept_retiring(now, ACCEPTS_A_TURN);
        if self.retiring.as_ref().is_some_and(|retiring| retiring.close_at().is_some_and(|at| at <= now)) {
            self.close_retiring(now);
        }
    }

    fn accept_retiring(&mut self, now: Time, most: usize) {
        for _ in 0..most {
            let has_room = self.has_room();
            let Some(retiring) = self.retiring.as_mut().filter(|retiring| retiring.ready && has_room) else { return };
            match retiring.socket.accept() {
                Ok((socket, _)) => {
                    retiring.accepted();
                    self.admit(now, socket);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    // Nobody waits, or nobody can be let in: it is closed soon.
                    _ => retiring.is_empty(now),
                },
            }
        }
    }

    /// Closes the socket without a name. Those that wait in its backlog are served, as far as there is room.
    fn close_retiring(&mut self, now: Time) {
        if let Some(retiring) = &mut self.retiring {
            retiring.ready = true;
            retiring.shut_down();
            self.accept_retiring(now, usize::MAX);
        }
        if let Some(mut retiring) = self.retiring.take() {
            let _ = self.poll.registry().deregister(&mut retiring.socket);
            socket::close_listener(retiring.socket.into());
        }
    }

    fn admit(&mut self, now: Time, socket: mio::net::UnixStream) {
        self.accepted += 1;
        socket::keep_urgent_in_line(&socket);
        let peer = socket::peer(&socket);
        let entry = self.slots.vacant_entry();
        let slot = entry.key();
        let (limits, spool) = (Rc::clone(&self.limits), self.settings.spool);
        let outbox = Outbox::new(spool, Rc::clone(&self.spools));
        let mut connection = Connection::new(self.accepted, slot, socket, peer, limits, outbox, now);
        if let Err(error) = connection.register(self.poll.registry()) {
            log::warn!("cannot wait for a client: {error}");
            connection.abandon();
            return;
        }
        entry.insert(Slot { connection, queued: false, timer: None, leaving: false });
        // At once: the request is mostly there already.
        self.serve(now, slot);
    }

    fn take_signals(&mut self, now: Time) {
        let pending: Vec<i32> = self.signals.as_mut().map(|signals| signals.pending().collect()).unwrap_or_default();
        for signal in pending {
            match signal {
                SIGTERM | SIGINT | SIGQUIT => self.shut_down(now),
                SIGHUP => self.take_hang_up(now),
                SIGUSR1 => self.print_connections(now),
                SIGUSR2 => self.print_descriptors(now),
                _ => {}
            }
        }
    }

    fn take_hang_up(&mut self, now: Time) {
        if !self.hang_up(now) {
            log::warn!("HUP: there is nothing to reload");
            self.look_at_terminal(now, FIRST_LOOK);
        }
    }

    /// Has the terminal looked at in this time, if there was one and that is soon enough to mean the same HUP.
    fn look_at_terminal(&mut self, now: Time, wait: Duration) {
        self.terminal_look = (self.had_terminal && wait <= LAST_LOOK).then_some((now + wait, wait * 2));
    }

    /// Ends as TERM does if the terminal is gone, or has already: that is the answer.
    ///
    /// Who has sent HUP does not tell: an interactive bash sends it to its jobs when its terminal goes, as kill(1) does to have a daemon
    /// reload.
    fn hang_up(&mut self, now: Time) -> bool {
        let is_gone = self.had_terminal && process::has_lost_terminal();
        // Once: the shell and the kernel may both send HUP, and a second TERM would be KILL.
        if is_gone && !self.shutting_down {
            log::warn!("HUP, and the terminal is gone: shutting down");
            self.shut_down(now);
        }
        is_gone
    }

    /// The first time: no more clients, and TERM to all groups. Again: KILL.
    fn shut_down(&mut self, now: Time) {
        let at_once = std::mem::replace(&mut self.shutting_down, true);
        log::debug!("shutting down{}", if at_once { " at once" } else { "" });
        let sockets = [self.listening.take().map(|it| it.socket), self.retiring.take().map(|it| it.socket)];
        for mut socket in sockets.into_iter().flatten() {
            let _ = self.poll.registry().deregister(&mut socket);
            socket::close_listener(socket.into());
        }
        let slots: Vec<usize> = self.slots.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            if let Some(place) = self.slots.get_mut(slot) {
                place.connection.shut_down(now, at_once);
                self.queue(slot);
            }
        }
    }

    /// What a client is told that asks for the daemon's status: JSON.
    fn status(&self, now: Time) -> Vec<u8> {
        let connections: Vec<_> = self.slots.iter().map(|(_, place)| place.connection.report(now)).collect();
        let live = connections.iter().fold((0, 0), |(in_, out), one| (in_ + one.bytes_in, out + one.bytes_out));
        let Settings {
            limits,
            spool,
            spool_total,
            max_connections,
            max_per_user,
            max_waiting,
            extra: _,
            spare_descriptors: _,
            watches: _,
            program_descriptors: _,
        } = self.settings;
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            uptime: now.saturating_sub(Time::ZERO),
            spawn: self.spawner.borrow().call().name(),
            lacks: self.lacks.iter().map(|lack| lack.name).collect(),
            limits: LimitsReport {
                max_connections,
                max_waiting,
                max_per_user: Some(max_per_user).filter(|&max| max < max_connections),
                request_timeout: limits.request_timeout,
                timeout: limits.timeout,
                kill_timeout: limits.kill_timeout,
                linger: limits.linger,
                spool,
                spool_total,
                window: limits.window,
            },
            totals: self.totals.report(self.accepted, self.programs.waiting(), self.spools.on_disk(), live),
            connections,
        };
        serde_json::to_vec(&report).unwrap_or_else(|error| {
            // Cannot be: every map has strings as keys, and a Vec takes everything.
            log::error!("cannot write the status: {error}");
            b"{}".to_vec()
        })
    }

    fn print_connections(&self, now: Time) {
        let mut text = format!(
            "sockexec: {} of {} slots taken, {} requests wait, {} connections, {} accepted, {} turns of the loop, {} looks for sessions, output gathered {} times\n",
            self.programs.taken(),
            self.settings.max_connections,
            self.programs.waiting(),
            self.slots.len(),
            self.accepted,
            self.turns_made,
            self.lookout.looks(),
            self.totals.gatherings()
        );
        for (_, place) in &self.slots {
            let _ = writeln!(text, "sockexec: {}", place.connection.describe(now));
        }
        print(&text);
    }

    fn print_descriptors(&self, now: Time) {
        let mut text = String::new();
        if let Some(listening) = &self.listening {
            let wait = if self.has_room() { "clients" } else { "a place under --max-waiting" };
            let _ = writeln!(
                text,
                "sockexec: descriptor {}: listening on {}, waits for {wait}",
                listening.socket.as_raw_fd(),
                listening.file.path().display()
            );
        }
        if let Some(retiring) = &self.retiring {
            let _ = writeln!(
                text,
                "sockexec: descriptor {}: listening where it was before, waits for late clients",
                retiring.socket.as_raw_fd()
            );
        }
        for (_, place) in &self.slots {
            let connection = place.connection.describe(now);
            for (descriptor, what) in place.connection.descriptors() {
                let _ = writeln!(text, "sockexec: descriptor {descriptor}: {what}; {connection}");
            }
        }
        print(&text);
    }
}

/// Asked for by a signal, so whatever the level of logging is. Standard error may be gone; that is no
/// reason to stop.
fn print(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

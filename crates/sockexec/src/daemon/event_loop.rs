//! One thread, one poll: events in, connections served in turn, timers, new clients.

mod accept;
mod ending;
mod report;
mod waiting;

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mio::net::UnixListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook_mio::v1_0::Signals;
use slab::Slab;

use self::accept::{Activated, Door, Listening};
use self::ending::{Backlogs, Phase};
use self::waiting::Room;
use super::alarm::Alarm;
use super::clock::Clock;
use super::connection::{Connection, Context};
use super::events::always;
use super::memory::RequestMemory;
use super::place::{Guard, Retiring};
use super::scratch::Scratch;
use super::sessions::Lookout;
use super::slots::Slots;
use super::spool::Spools;
use super::status::Totals;
use super::supervisor::{self, Counts, Notifier};
use super::token::{self, Target};
use super::{Daemon, Handle, Own, Settings, User};
use crate::engine::{Limits, Time};
use crate::sys::closer;
use crate::sys::kernel::{self, Lack};
use crate::sys::process;
use crate::sys::spawn::Spawner;
use crate::sys::splice::Splicer;

/// How many events are taken from the kernel at once.
const EVENTS: usize = 256;

/// How long after a HUP the terminal is checked again; each further check takes twice as long, up to the
/// second value. The end of a session sends HUP first, and takes the terminal away after that
/// (`disassociate_ctty` in the kernel).
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_millis(1600);

/// What the loop keeps for a connection.
#[derive(Debug)]
struct Slot {
    connection: Connection,
    /// It is in the queue for a turn.
    queued: bool,
    /// Its place in the set of timers.
    timer: Option<Time>,
    /// It was turned away, and has its answer or will have it soon: it has no place in the waiting room.
    leaving: bool,
}

pub(super) struct EventLoop {
    settings: Settings,
    limits: Rc<Limits>,
    poll: Poll,
    signals: Option<Signals>,
    had_terminal: bool,
    /// When to check whether the terminal is gone, and how long after that again.
    terminal_look: Option<(Time, Duration)>,
    handle: Handle,
    /// None: the daemon is ending, another one has taken over, or there was none.
    listening: Option<Listening>,
    activated: Vec<Activated>,
    /// For the file of our own socket, if there is one.
    place: Option<Guard>,
    /// The listening socket before, while clients may still come to it.
    retiring: Option<Retiring>,
    phase: Phase,
    backlogs: Backlogs,
    slots: Slab<Slot>,
    /// Connections that have something to do, in the order of their turns.
    turns: VecDeque<usize>,
    /// Files are freed here, as no thread can be started: see [`closer::retry`].
    closes: bool,
    timers: BTreeSet<(Time, usize)>,
    programs: Slots,
    room: Room,
    memory: RequestMemory,
    /// When to check whether the request that is read beyond that memory makes progress.
    lead_look_at: Option<Time>,
    lookout: Lookout,
    accepted: u64,
    turns_made: u64,
    clock: Clock,
    alarm: Alarm,
    scratch: Scratch,
    spawner: RefCell<Spawner>,
    /// The protections that the kernel lacks.
    lacks: Vec<Lack>,
    splicer: RefCell<Splicer>,
    /// What all outboxes together keep in memory and on disk.
    spools: Rc<Spools>,
    totals: Totals,
    /// None: there is no service manager to notify.
    notifier: Option<Box<Notifier>>,
    /// The descriptor that gets a newline when the daemon serves.
    notification: Option<Arc<OwnedFd>>,
}

impl EventLoop {
    pub(super) fn new(daemon: Daemon) -> io::Result<Self> {
        let Daemon { settings, poll, mut signals, had_terminal, handle, own, listeners, notifier, notification, user } =
            daemon;
        let open = |socket: OwnedFd, token| {
            let mut socket = UnixListener::from_std(socket.into());
            poll.registry().register(&mut socket, token, Interest::READABLE).map(|()| Door::new(socket))
        };
        let mut place = own.as_ref().map(|own| Guard::new(poll.registry(), &own.file, settings.watches));
        let mut listening = match own {
            Some(Own { file, socket }) => Some(Listening { file, door: open(socket, token::LISTENER)? }),
            None => None,
        };
        let mut activated = Vec::with_capacity(listeners.len());
        for (index, listener) in listeners.into_iter().enumerate() {
            let description = listener.to_string();
            let door = open(listener.into_socket()?, token::activated(index))?;
            activated.push(Activated { door, description });
        }
        if let Some(signals) = &mut signals {
            poll.registry().register(signals, token::SIGNALS, Interest::READABLE)?;
        }
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
        let refused =
            |user: &User, error: io::Error| io::Error::new(error.kind(), format!("cannot become user {user}: {error}"));
        if let Some(user) = &user {
            user.begin_to_become_it().map_err(|error| refused(user, error))?;
        }
        // Last, when everything else has succeeded: from here on clients come to this daemon.
        if let (Some(listening), Some(place)) = (&mut listening, &mut place) {
            listening.file.take_place().map_err(io::Error::other)?;
            place.settle();
        }
        if let Some(user) = user {
            user.become_it().map_err(|error| refused(&user, error))?;
            if let Some(listening) = &listening {
                listening.file.warn_of_lost_rights();
            }
        }
        Ok(Self {
            settings,
            limits: Rc::new(settings.limits),
            poll,
            signals,
            had_terminal,
            terminal_look: None,
            handle,
            listening,
            activated,
            place,
            retiring: None,
            phase: Phase::Serving,
            backlogs: Backlogs::default(),
            slots: Slab::new(),
            turns: VecDeque::new(),
            closes: false,
            timers: BTreeSet::new(),
            programs: Slots::new(settings.max_connections, settings.max_per_user),
            room: Room::default(),
            memory: RequestMemory::default(),
            lead_look_at: None,
            lookout: Lookout::new(),
            accepted: 0,
            turns_made: 0,
            clock: Clock::new(),
            alarm,
            scratch: Scratch::new(),
            spawner: RefCell::new(spawner),
            lacks,
            splicer: RefCell::new(Splicer::new()),
            spools,
            totals: Totals::default(),
            notifier: notifier.map(Box::new),
            notification,
        })
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        self.begin();
        let mut events = Events::with_capacity(EVENTS);
        while self.goes_on() {
            let timeout = self.poll_timeout();
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.turn(&events);
        }
        always("stop", format_args!("stopped"));
        Ok(())
    }

    /// Whether clients may still come, or are here.
    fn goes_on(&self) -> bool {
        let may_come = self.doors().next().is_some() || self.retiring.is_some() || !self.backlogs.is_empty();
        may_come || !self.slots.is_empty()
    }

    /// Reports that it serves.
    fn begin(&mut self) {
        for place in self.places() {
            always("start", format_args!("listening on {place}"));
        }
        let (now, counts) = (self.now(), self.counts());
        if let Some(notifier) = &mut self.notifier {
            notifier.ready(now, counts);
        }
        if let Some(descriptor) = self.notification.take() {
            supervisor::write_newline(descriptor);
        }
    }

    /// The counts for a service manager.
    fn counts(&self) -> Counts {
        let (running, waiting) = (self.programs.taken(), self.programs.waiting());
        Counts { running, slots: self.settings.max_connections, waiting }
    }

    /// One turn of the loop.
    fn turn(&mut self, events: &Events) {
        self.turns_made += 1;
        let now = self.now();
        let (mut signalled, mut ordered) = (false, false);
        for event in events {
            match token::target(event.token()) {
                Some(Target::Connection(slot, source)) => {
                    // An earlier event of this batch may have ended the connection.
                    if let Some(place) = self.slots.get_mut(slot) {
                        place.connection.note(now, source, event);
                        self.queue(slot);
                    }
                }
                Some(Target::Listener) => {
                    if let Some(listening) = &mut self.listening {
                        listening.door.ready = true;
                    }
                }
                Some(Target::Activated(index)) => {
                    if let Some(activated) = self.activated.get_mut(index) {
                        activated.door.ready = true;
                    }
                }
                Some(Target::Signals) => signalled = true,
                Some(Target::Handle) => ordered = true,
                Some(Target::Place) => {
                    if let Some(place) = &mut self.place {
                        place.note();
                    }
                }
                Some(Target::Retiring) => {
                    if let Some(retiring) = &mut self.retiring {
                        retiring.ready = true;
                    }
                }
                // The turn itself is all that they are for.
                Some(Target::Alarm | Target::Spawner) | None => {}
            }
        }
        // After all events: an order to end admits clients of the backlog, to places whose last holder an
        // event may still mean.
        if signalled {
            self.take_signals(now);
        }
        if ordered {
            for _ in 0..self.handle.take_orders() {
                self.shut_down(now);
            }
        }
        if self.spools.has_news() {
            self.resume_spools();
        }
        self.look_at_drain(now);
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
        self.accept_backlogs(now);
        self.give_slots(now);
        self.make_room(now);
        self.read_requests(now);
        self.spawner.borrow_mut().collect();
        self.closes = closer::retry();
        let counts = self.counts();
        if let Some(notifier) = &mut self.notifier {
            notifier.turn(now, counts);
        }
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn poll_timeout(&mut self) -> Option<Duration> {
        // The listener is edge-triggered too: clients that were left for this turn cause no further event.
        let more = self.doors().any(|door| door.ready && door.retry_at.is_none());
        let more = more || self.retiring.as_ref().is_some_and(|retiring| retiring.ready) || self.backlogs.is_ready();
        if !self.turns.is_empty() || self.closes || more && self.has_room() {
            return Some(Duration::ZERO);
        }
        let look = self.spawner.borrow().next_look();
        let accept = self.doors().filter_map(|door| door.retry_at).chain(self.backlogs.retry_at()).min();
        let accept = accept.filter(|_| self.has_room());
        let timer = self.timers.first().map(|&(time, _)| time);
        let Some(next) = accept.into_iter().chain(timer).chain(self.next_own_timer()).min() else {
            return look;
        };
        // Never too early: the loop would turn for nothing until it is due.
        let left = next.saturating_sub(self.now()).saturating_add(Duration::from_micros(1));
        self.alarm.ring(next, left);
        look.into_iter().chain([left]).min()
    }

    /// The next timer of the loop itself.
    fn next_own_timer(&self) -> Option<Time> {
        let look = self.listening.as_ref().and(self.place.as_ref()).and_then(Guard::next_look);
        let close = self.retiring.as_ref().and_then(Retiring::close_at);
        let drain = if let Phase::Draining(until) = self.phase { Some(until) } else { None };
        let room = self.room.look_at.into_iter().chain(self.lead_look_at);
        let terminal = self.terminal_look.map(|(at, _)| at);
        let notifier = self.notifier.as_ref().and_then(|notifier| notifier.due(self.counts()));
        terminal
            .into_iter()
            .chain(drain)
            .chain(notifier)
            .chain(look)
            .chain(close)
            .chain(room)
            .chain(self.lookout.due())
            .min()
    }

    /// Gives free slots to connections that wait for one.
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
                if let Some(late) = place.connection.tick(now) {
                    self.totals.timed_out(late);
                }
                self.queue(slot);
            }
        }
    }

    /// Gives one connection its turn, and handles what comes of it.
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
            clock: &self.clock,
        };
        let again = place.connection.serve(&cx, &mut self.scratch);
        if place.connection.wants_status() {
            let status = self.status(now);
            if let Some(place) = self.slots.get_mut(slot) {
                place.connection.tell_status(&status);
            }
            // At once, so that nobody must make way for a client that only asks. It asks once.
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
            // Descriptors were freed.
            self.doors_mut().for_each(|door| door.retry_at = None);
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

    /// Looks for the members of all sessions that must be ended, if it is time to.
    fn look_for_members(&mut self, now: Time) {
        let waiting = self.lookout.take_due(now);
        if waiting.is_empty() {
            return;
        }
        let leader = |slot| self.slots.get(slot).and_then(|place| place.connection.session_leader());
        let leaders: Vec<_> = waiting.iter().filter_map(|&slot| leader(slot)).collect();
        let all = self.lookout.look(|| self.clock.now(), &leaders);
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
            always("reload", format_args!("reload: there is nothing to reload yet"));
            let counts = self.counts();
            if let Some(notifier) = &mut self.notifier {
                notifier.reloading(now);
                notifier.ready(now, counts);
            }
            self.look_at_terminal(now, FIRST_LOOK);
        }
    }

    /// Checks the terminal after this time, if there was one and the check would still be about the same HUP.
    fn look_at_terminal(&mut self, now: Time, wait: Duration) {
        self.terminal_look = (self.had_terminal && wait <= LAST_LOOK).then_some((now + wait, wait * 2));
    }

    /// Shuts down as on TERM if the terminal is gone, unless that was done before. Returns whether it is
    /// gone.
    ///
    /// The sender of HUP shows nothing: an interactive bash sends it to its jobs when its terminal goes, as
    /// kill(1) does to make a daemon reload.
    fn hang_up(&mut self, now: Time) -> bool {
        let is_gone = self.had_terminal && process::has_lost_terminal();
        // Once: the shell and the kernel may both send HUP, and a second TERM would be KILL.
        if is_gone && self.phase.is_serving() {
            log::warn!("HUP, and the terminal is gone: shutting down");
            self.shut_down(now);
        }
        is_gone
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn turn(event_loop: &mut EventLoop) {
        let mut events = Events::with_capacity(EVENTS);
        let timeout = event_loop.poll_timeout();
        event_loop.poll.poll(&mut events, timeout).unwrap();
        event_loop.turn(&events);
    }

    /// The poll reports an order to end, and after it a client that has gone. The order ended that client's
    /// connection, the next one of the backlog got its place, and was taken for gone itself.
    #[test]
    fn one_of_the_backlog_is_not_taken_for_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let daemon = Daemon::builder().bind(&path).unwrap();
        let handle = daemon.handle();
        let mut event_loop = EventLoop::new(daemon).unwrap();
        let gone = UnixStream::connect(&path).unwrap();
        while event_loop.slots.is_empty() {
            turn(&mut event_loop);
        }
        // The socket is writable, which is an event, and must not come before the order.
        turn(&mut event_loop);
        handle.shut_down();
        drop(gone);
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"1:1,4:true,0:,").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        while event_loop.goes_on() {
            turn(&mut event_loop);
        }
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        assert!(reply.contains("the daemon is shutting down; nothing was started"), "{reply:?}");
    }
}

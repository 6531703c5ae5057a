//! Accepts clients, even if the socket file has vanished or was replaced.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use mio::Interest;
use mio::net::{UnixListener, UnixStream};

use super::{EventLoop, Slot};
use crate::daemon::connection::Connection;
use crate::daemon::listener::SocketFile;
use crate::daemon::outbox::Outbox;
use crate::daemon::place::{News, Retiring};
use crate::daemon::token;
use crate::engine::Time;
use crate::sys::socket;

/// How many clients are accepted before the others have their turn: one that comes and goes in a loop would
/// otherwise keep the loop to itself.
const ACCEPTS_A_TURN: usize = 64;

/// How soon to accept again after a failure for lack of descriptors or memory, if nothing is freed before.
pub(super) const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A listening socket at which clients are accepted.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) socket: UnixListener,
    /// Only UNIX sockets show who is at the other end.
    is_unix: bool,
    /// Somebody may be waiting: accept has not shown otherwise since the last event.
    pub(super) ready: bool,
    /// No accept before this.
    pub(super) retry_at: Option<Time>,
    /// A failure was logged, and accept has not succeeded since.
    complained: bool,
}

impl Door {
    pub(super) fn new(socket: UnixListener) -> Self {
        let is_unix = socket::is_unix(&socket);
        Self { socket, is_unix, ready: true, retry_at: None, complained: false }
    }
}

/// The daemon's own listening socket.
#[derive(Debug)]
pub(super) struct Listening {
    /// Before the socket: see [`Daemon`](crate::daemon::Daemon).
    pub(super) file: SocketFile,
    pub(super) door: Door,
}

/// A listening socket that was handed over.
#[derive(Debug)]
pub(super) struct Activated {
    pub(super) door: Door,
    /// Where it listens, for people.
    pub(super) description: String,
}

impl EventLoop {
    /// All sockets at which clients are accepted.
    pub(super) fn doors(&self) -> impl Iterator<Item = &Door> {
        self.listening.iter().map(|own| &own.door).chain(self.activated.iter().map(|one| &one.door))
    }

    pub(super) fn doors_mut(&mut self) -> impl Iterator<Item = &mut Door> {
        self.listening.iter_mut().map(|own| &mut own.door).chain(self.activated.iter_mut().map(|one| &mut one.door))
    }

    pub(super) fn accept(&mut self, now: Time) {
        let doors = self.doors().count();
        for n in 0..doors {
            // Each is the first in its turn, or a busy one would take all the room.
            let first = usize::try_from(self.turns_made).unwrap_or_default();
            self.accept_at(now, (first.wrapping_add(n)) % doors);
        }
    }

    fn accept_at(&mut self, now: Time, index: usize) {
        for _ in 0..ACCEPTS_A_TURN {
            let has_room = self.has_room();
            let Some(door) = self.doors_mut().nth(index).filter(|door| door.ready && has_room) else { return };
            if door.retry_at.is_some_and(|at| at > now) {
                return;
            }
            door.retry_at = None;
            match socket::accept(&door.socket) {
                Ok(socket) => {
                    door.complained = false;
                    let is_unix = door.is_unix;
                    self.admit(now, socket, is_unix);
                    self.make_room(now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => door.ready = false,
                // EMFILE, ENFILE, ENOBUFS, ENOMEM: those who wait stay in the backlog.
                Err(error) => {
                    if !door.complained {
                        log::warn!("cannot accept connections for now: {error}");
                        door.complained = true;
                    }
                    door.retry_at = Some(now + ACCEPT_RETRY);
                }
            }
        }
    }

    /// Makes sure that there is a socket where clients look for one.
    pub(super) fn look_at_place(&mut self, now: Time) {
        let former = self.retiring.as_ref().map(|retiring| &retiring.file);
        let (Some(listening), Some(place)) = (&self.listening, &mut self.place) else { return };
        let (next, stays) = match place.look(self.poll.registry(), now, &listening.file, former) {
            News::Nothing => return,
            News::TakenOver => (None, false),
            News::Made { socket, file, moved } => (Some((file, socket)), moved),
            News::Back => (self.retiring.take().map(|former| (former.file, former.socket)), false),
        };
        self.close_retiring(now);
        let registry = self.poll.registry();
        let before = self.listening.take();
        if let Some((file, mut socket)) = next {
            // A socket that was registered before gets this token now.
            let _ = registry.reregister(&mut socket, token::LISTENER, Interest::READABLE);
            if let Some(place) = &mut self.place {
                place.watch(&file);
            }
            self.listening = Some(Listening { file, door: Door::new(socket) });
        }
        if let Some(Listening { file, door: Door { mut socket, .. } }) = before {
            // Without events it is still checked when it is closed.
            let _ = registry.reregister(&mut socket, token::RETIRING, Interest::READABLE);
            self.retiring = Some(Retiring::new(file, socket, stays, now));
        }
        if self.doors().next().is_none()
            && let Some(notifier) = &mut self.notifier
        {
            // Another has taken over, and this one ends when its clients are served.
            notifier.stopping(now);
        }
    }

    /// Accepts clients that come to a socket without a name, and closes it when no more come.
    pub(super) fn accept_late(&mut self, now: Time) {
        self.accept_retiring(now, ACCEPTS_A_TURN);
        if self.retiring.as_ref().is_some_and(|retiring| retiring.close_at().is_some_and(|at| at <= now)) {
            self.close_retiring(now);
        }
    }

    pub(super) fn accept_retiring(&mut self, now: Time, most: usize) {
        for _ in 0..most {
            let has_room = self.has_room();
            let Some(retiring) = self.retiring.as_mut().filter(|retiring| retiring.ready && has_room) else { return };
            match socket::accept(&retiring.socket) {
                Ok(socket) => {
                    retiring.accepted();
                    self.admit(now, socket, true);
                }
                // Nobody waits, or nobody can be admitted: it is closed soon.
                Err(_) => retiring.is_empty(now),
            }
        }
    }

    /// Admits a client. Returns its place, if its events can be had and it is not gone at once.
    pub(super) fn admit(&mut self, now: Time, socket: OwnedFd, is_unix: bool) -> Option<usize> {
        self.accepted += 1;
        socket::keep_urgent_in_line(&socket);
        let peer = if is_unix {
            socket::peer(&socket)
        } else {
            socket::send_at_once(&socket);
            None
        };
        // Whatever its family is, only its descriptor is used.
        let socket = UnixStream::from_std(socket.into());
        let entry = self.slots.vacant_entry();
        let slot = entry.key();
        let (limits, spool) = (Rc::clone(&self.limits), self.settings.spool);
        let outbox = Outbox::new(spool, Rc::clone(&self.spools));
        let mut connection = Connection::new(self.accepted, slot, socket, peer, limits, outbox, now);
        if let Err(error) = connection.register(self.poll.registry()) {
            log::warn!("cannot wait for a client: {error}");
            connection.abandon();
            return None;
        }
        if !self.phase.is_serving() {
            // It comes from a backlog: the others were told when the order to end came.
            connection.drain(now);
        }
        entry.insert(Slot { connection, queued: false, timer: None, leaving: false });
        // At once: the request is usually there already.
        self.serve(now, slot);
        self.slots.contains(slot).then_some(slot)
    }
}

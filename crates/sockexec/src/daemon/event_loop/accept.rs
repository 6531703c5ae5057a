//! Accepting clients, also where the socket file has vanished or been replaced.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use mio::Interest;
use mio::net::UnixListener;

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

/// How soon to accept again after it failed for want of descriptors or memory, if nothing is freed before.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The listening socket while clients are accepted.
#[derive(Debug)]
pub(super) struct Listening {
    /// Before the socket: see [`Daemon`](crate::daemon::Daemon).
    pub(super) file: SocketFile,
    pub(super) socket: UnixListener,
    /// Somebody may be waiting: accept has not said otherwise since the last event.
    pub(super) ready: bool,
    /// Not before this.
    pub(super) retry_at: Option<Time>,
    /// That it fails was logged, and it has not succeeded since.
    pub(super) complained: bool,
}

impl EventLoop {
    pub(super) fn accept(&mut self, now: Time) {
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
                    // EMFILE, ENFILE, ENOBUFS, ENOMEM: those who wait stay in the backlog.
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

    /// Sees to it that there is a socket where clients look for one.
    pub(super) fn look_at_place(&mut self, now: Time) {
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
    pub(super) fn close_retiring(&mut self, now: Time) {
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

    pub(super) fn admit(&mut self, now: Time, socket: mio::net::UnixStream) {
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
}

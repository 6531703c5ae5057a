//! The daemon's end: no more clients come, those that are here may finish for as long as `--drain` says, and
//! what is left is ended.

use std::io;
use std::os::fd::OwnedFd;

use mio::net::UnixListener;

use super::EventLoop;
use super::accept::{ACCEPT_RETRY, Activated, Door, Listening};
use crate::daemon::events::always;
use crate::daemon::listener::SocketFile;
use crate::daemon::place::Retiring;
use crate::engine::Time;
use crate::sys::foreign::Foreign;
use crate::sys::socket;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// Nobody else comes; those that are here may finish until then.
    Draining(Time),
    /// TERM to all programs, and KILL after the kill timeout.
    Ending,
    /// KILL.
    Killing,
}

impl Phase {
    pub(super) const fn is_serving(self) -> bool {
        matches!(self, Self::Serving)
    }

    /// No program is started any more.
    const fn is_ending(self) -> bool {
        matches!(self, Self::Ending | Self::Killing)
    }
}

/// Listening sockets that nobody can connect to any more. Clients that had connected by then are served.
#[derive(Debug, Default)]
pub(super) struct Backlogs {
    sockets: Vec<UnixListener>,
    retry_at: Option<Time>,
}

impl Backlogs {
    pub(super) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// When to try again, if no event will report that it is time to.
    pub(super) const fn retry_at(&self) -> Option<Time> {
        self.retry_at
    }

    /// Whether a client may wait that can be admitted now.
    pub(super) fn is_ready(&self) -> bool {
        !self.sockets.is_empty() && self.retry_at.is_none()
    }
}

impl EventLoop {
    /// An order to end. After the first nobody else comes and, with `--drain`, all that are here may finish.
    /// The second ends that; without `--drain` the first does so as well: TERM to all groups. One more: KILL.
    pub(super) fn shut_down(&mut self, now: Time) {
        match self.phase {
            Phase::Serving => {
                always("stop", format_args!("shutting down, {} programs run", self.programs.taken()));
                if let Some(notifier) = &mut self.notifier {
                    notifier.stopping(now);
                }
                self.close_doors();
                if self.settings.drain.is_zero() {
                    self.end(now);
                } else {
                    self.phase = Phase::Draining(now + self.settings.drain);
                    self.slots.iter_mut().for_each(|(_, place)| place.connection.drain(now));
                    // A connection that only lingers has another deadline now.
                    self.queue_all();
                    self.accept_backlogs(now);
                }
            }
            Phase::Draining(_) => self.end(now),
            Phase::Ending | Phase::Killing => {
                always("stop", format_args!("shutting down at once, {} programs run", self.programs.taken()));
                self.phase = Phase::Killing;
                self.slots
                    .iter_mut()
                    .for_each(|(_, place)| place.connection.shut_down(now, true, self.totals.counts()));
                self.queue_all();
            }
        }
    }

    /// Ends the drain if its time is over.
    pub(super) fn look_at_drain(&mut self, now: Time) {
        if let Phase::Draining(until) = self.phase
            && until <= now
        {
            log::warn!("the time to drain is over: {} connections are ended", self.slots.len());
            self.end(now);
        }
    }

    /// Ends all programs, and tells clients that have none that they will not get one.
    fn end(&mut self, now: Time) {
        self.phase = Phase::Ending;
        self.programs.close();
        for slot in self.every_slot() {
            self.end_connection(now, slot);
        }
        self.accept_backlogs(now);
    }

    fn end_connection(&mut self, now: Time, slot: usize) {
        let Some(place) = self.slots.get_mut(slot) else { return };
        if place.connection.reads_once_more() {
            // Which version it must be answered in may be in its socket, unread.
            self.serve(now, slot);
        }
        if let Some(place) = self.slots.get_mut(slot) {
            place.connection.shut_down(now, false, self.totals.counts());
            self.queue(slot);
        }
    }

    /// All connections by now: what is done with one may end it, or admit another.
    fn every_slot(&self) -> Vec<usize> {
        self.slots.iter().map(|(slot, _)| slot).collect()
    }

    fn queue_all(&mut self) {
        for slot in self.every_slot() {
            self.queue(slot);
        }
    }

    /// Admits nobody any more but those that have connected to a socket of our own. Its file goes first, so
    /// that a client that comes now finds no daemon, or the next one. A socket that was handed over stays
    /// with its owner, and so do all clients that wait there.
    fn close_doors(&mut self) {
        for Activated { door: Door { mut socket, .. }, .. } in self.activated.drain(..) {
            let _ = self.poll.registry().deregister(&mut socket);
            // If nobody else has it, it is closed with what those have sent.
            drop(Foreign::from(OwnedFd::from(socket)));
        }
        if let Some(Listening { file, door }) = self.listening.take() {
            self.close_socket(file, door.socket);
        }
        if let Some(Retiring { file, socket, .. }) = self.retiring.take() {
            self.close_socket(file, socket);
        }
    }

    /// Stops connections to the socket that has lost its place. Clients that have connected are served.
    pub(super) fn close_retiring(&mut self, now: Time) {
        if let Some(Retiring { file, socket, .. }) = self.retiring.take() {
            self.close_socket(file, socket);
            self.accept_backlogs(now);
        }
    }

    fn close_socket(&mut self, file: SocketFile, mut socket: UnixListener) {
        // While the socket is open, nobody takes its file for stale.
        drop(file);
        socket::refuse_clients(&socket);
        let _ = self.poll.registry().deregister(&mut socket);
        self.backlogs.sockets.push(socket);
    }

    /// Admits clients that had connected to a socket that is closed by now, as far as there is room.
    pub(super) fn accept_backlogs(&mut self, now: Time) {
        if self.backlogs.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.backlogs.retry_at = None;
        while let Some(socket) = self.backlogs.sockets.last() {
            if !self.has_room() {
                return;
            }
            match socket::accept(socket) {
                Ok(client) => {
                    if let Some(slot) = self.admit(now, client, true)
                        && self.phase.is_ending()
                    {
                        self.end_connection(now, slot);
                    }
                }
                Err(error) => match error.kind() {
                    // EINVAL, on other systems ECONNABORTED for ever: nobody is left.
                    io::ErrorKind::WouldBlock | io::ErrorKind::InvalidInput | io::ErrorKind::ConnectionAborted => {
                        self.backlogs.sockets.pop();
                    }
                    // No descriptor or no memory: a connection will end soon.
                    _ if !self.slots.is_empty() => {
                        self.backlogs.retry_at = Some(now + ACCEPT_RETRY);
                        return;
                    }
                    _ => {
                        log::warn!("cannot accept some of the clients that wait: {error}");
                        if let Some(socket) = self.backlogs.sockets.pop() {
                            socket::close_listener(socket.into());
                        }
                    }
                },
            }
        }
    }
}

//! A connection without a slot, as others see it: its place in the waiting room, and its request's share of
//! the memory.

use sockexec_proto::ErrorCode;

use super::{Connection, Context};
use crate::daemon::counts::Counts;
use crate::daemon::line::User;
use crate::daemon::room::Guest;
use crate::daemon::scratch::CHUNK;
use crate::engine::{Stay, Time};

impl Connection {
    /// The user that it belongs to.
    pub(crate) fn user(&self) -> User {
        self.peer.map(|peer| peer.uid)
    }

    /// Its state in the waiting room; `None`: it has a slot.
    pub(crate) fn guest(&self) -> Option<Guest> {
        (!self.has_slot).then(|| Guest {
            place: self.slot,
            number: self.number,
            user: self.user(),
            // It does not wait for its client.
            stay: if self.paused { Some(Stay::Slot) } else { self.session.stay() },
            moved_at: self.moved_at,
        })
    }

    /// Its place is needed for another.
    pub(crate) fn turn_away(&mut self, now: Time, counts: &Counts) {
        if self.session.can_be_busy() {
            counts.error(&ErrorCode::Busy);
        }
        log::debug!("connection {}: turned away while it waits for: {}", self.number, self.session.waits_for());
        self.session.turn_away(now);
        // Nobody needs what came with its request.
        self.descriptors = None;
    }

    /// There is memory for its request, which was left in its socket.
    pub(crate) fn go_on(&mut self, now: Time) {
        self.paused = false;
        self.moved_at = now;
        // Its time may have passed meanwhile, and starts anew.
        self.request_due = false;
        self.session.resume(now);
    }

    /// How many more bytes of its request may be read now. 0: none, as all requests together take too much
    /// memory.
    pub(super) fn allowance(&mut self, cx: &Context<'_>) -> usize {
        if !self.session.awaits_request() {
            return usize::MAX;
        }
        self.settle_memory(cx);
        let allowance = cx.memory.allowance(self.slot, self.held);
        if allowance > 0 {
            if self.paused {
                cx.memory.forget(self.user(), self.slot);
                self.go_on(cx.now);
            }
            return allowance;
        }
        let is_there = |socket| rustix::io::ioctl_fionread(socket).is_ok_and(|bytes| bytes > 0);
        if !self.paused && !self.socket.as_ref().is_some_and(is_there) {
            // It waits for its client, whose time runs. At most its end is read, or what has come just now.
            return CHUNK;
        }
        if !self.paused {
            log::debug!("connection {}: its request waits in its socket: those in memory are too big", self.number);
            self.paused = true;
            self.session.pause(cx.now);
            cx.memory.wait(self.user(), self.slot);
        }
        0
    }

    /// Updates what its request takes of the memory of all.
    pub(super) fn settle_memory(&mut self, cx: &Context<'_>) {
        let waits = matches!(self.session.stay(), Some(Stay::Request | Stay::Slot));
        let held = if waits { self.session.memory() + self.input.waiting() } else { 0 };
        if held != self.held {
            cx.memory.change(self.held, held);
            self.held = held;
        }
        if !waits && cx.memory.is_led_by(self.slot) {
            cx.memory.end_lead();
        }
        if self.paused && !self.session.awaits_request() {
            self.paused = false;
            cx.memory.forget(self.user(), self.slot);
        }
    }

    /// Gives back the slot, or the place in the line, that its request no longer needs.
    pub(super) fn settle_slot(&mut self, cx: &Context<'_>) {
        if self.has_slot && !self.session.holds_slot() {
            self.has_slot = false;
            cx.slots.free(self.user());
        }
        let is_leftover = self.session.is_leftover();
        match (std::mem::replace(&mut self.is_leftover, is_leftover), is_leftover) {
            (false, true) => cx.slots.leave(),
            (true, false) => cx.slots.forget_leftover(),
            (false, false) | (true, true) => {}
        }
        if self.waits && !self.session.waits_for_slot() {
            self.waits = false;
            cx.slots.forget(self.user(), self.slot);
        }
    }
}

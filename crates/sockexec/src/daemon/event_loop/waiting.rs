//! The waiting room: which connection must go when it is full, and which request is read when memory is
//! short.

use std::collections::VecDeque;
use std::time::Duration;

use super::EventLoop;
use crate::daemon::room::{self, Verdict};
use crate::engine::{Stay, Time};

/// How soon to check a full waiting room again in which nobody had to go, though one of many connections may
/// have to at any moment.
const ROOM_LOOK: Duration = Duration::from_millis(10);

/// The state of the waiting room while it is full.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Connections that were turned away, in that order. They are not closed at once: what they still send
    /// would reset the connection, and their answer might be lost.
    pub(super) leaving: VecDeque<usize>,
    /// When to check again which must go, and what the last answer depended on.
    pub(super) look_at: Option<Time>,
    pub(super) seen: Option<(usize, u64, u64)>,
    /// It was logged that the room is full, and it has not been half empty since.
    pub(super) complained: bool,
}

impl EventLoop {
    /// How many connections are in the waiting room.
    pub(super) fn guests(&self) -> usize {
        let others = self.programs.taken() + self.programs.free_leftovers() + self.room.leaving.len();
        self.slots.len().saturating_sub(others)
    }

    /// Whether another connection may come. A few more may than have a place, so that it is known what one
    /// wants before another must go for it.
    pub(super) fn has_room(&self) -> bool {
        self.guests() < self.settings.max_waiting.saturating_add(self.settings.extra)
    }

    /// Makes sure that no more connections are in the waiting room than are allowed.
    pub(super) fn make_room(&mut self, now: Time) {
        loop {
            let over = self.guests().saturating_sub(self.settings.max_waiting);
            // At the end of the daemon nobody comes any more, and those that are here are told why they must
            // go. After another daemon has taken over, clients may still come for a while.
            let may_come = self.doors().next().is_some() || self.retiring.is_some();
            if over == 0 || !may_come {
                (self.room.look_at, self.room.seen) = (None, None);
                self.room.complained &= self.guests() > self.settings.max_waiting / 2;
                return;
            }
            // Nobody had to go, and nothing has happened that could change that: do not check all of them in
            // every turn.
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
    pub(super) fn turn_away(&mut self, now: Time, slot: usize) {
        self.totals.turned_away();
        self.dismiss(now, slot);
        if self.room.leaving.len() > self.settings.extra
            && let Some(&first) = self.room.leaving.front()
        {
            self.dismiss(now, first);
        }
    }

    /// Tells a connection that it has no place, or closes it if it was told before or there is nothing to
    /// tell.
    pub(super) fn dismiss(&mut self, now: Time, slot: usize) {
        let Some(place) = self.slots.get_mut(slot) else { return };
        place.connection.turn_away(now, self.totals.counts());
        if !std::mem::replace(&mut place.leaving, true) {
            self.room.leaving.push_back(slot);
        }
        self.serve(now, slot);
    }

    /// Goes on reading requests that were left in their sockets, as far as there is memory for them, and one
    /// in any case.
    pub(super) fn read_requests(&mut self, now: Time) {
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
            // The others wait only for its client, which sends nothing.
            self.turn_away(now, slot);
        }
    }

    pub(super) fn read_request(&mut self, now: Time, slot: usize) {
        if let Some(place) = self.slots.get_mut(slot) {
            place.connection.go_on(now);
            self.queue(slot);
        }
    }
}

//! The memory that requests take which are not complete, or wait for a slot: all of them together.

use std::cell::{Cell, RefCell};

use super::line::{Line, User};
use super::scratch::CHUNK;

/// The most of it, in bytes. Beyond that, requests are left in their sockets, except for one: see
/// [`RequestMemory::lead`].
const MOST: u64 = 64 << 20;

/// This much of a request is always read, in bytes. Small requests do not fill the memory, and a client with
/// a big one must not keep them waiting, nor pings and questions for the status.
const ALWAYS: u64 = 4 << 10;

/// The requests' share of the memory, and the connections whose requests must wait for some of it.
#[derive(Debug, Default)]
pub(crate) struct RequestMemory {
    taken: Cell<u64>,
    /// Connections whose requests are left in their sockets.
    line: RefCell<Line>,
    /// The connection whose request goes on although the memory is full.
    lead: Cell<Option<(User, usize)>>,
}

impl RequestMemory {
    /// How many more bytes may be read of the request of the connection at this place, which keeps `held` in
    /// memory.
    pub(crate) fn allowance(&self, place: usize, held: u64) -> usize {
        if !self.is_full() || self.is_led_by(place) {
            return usize::MAX;
        }
        usize::try_from(ALWAYS.saturating_sub(held)).unwrap_or(usize::MAX)
    }

    /// A request takes `now` bytes instead of `before`.
    pub(crate) fn change(&self, before: u64, now: u64) {
        self.taken.set((self.taken.get() + now).saturating_sub(before));
    }

    /// Puts a connection in the line of those whose requests are left in their sockets.
    pub(crate) fn wait(&self, user: User, place: usize) {
        self.line.borrow_mut().push(user, place);
    }

    /// This connection is no longer in the line.
    pub(crate) fn forget(&self, user: User, place: usize) {
        self.line.borrow_mut().remove(user, place);
    }

    /// The last connection of this user in the line.
    pub(crate) fn newest(&self, user: User) -> Option<usize> {
        self.line.borrow().newest(user)
    }

    /// Takes the next connection out of the line.
    pub(crate) fn next(&self) -> Option<usize> {
        self.line.borrow_mut().next(|_| true).map(|(_, place)| place)
    }

    /// Chooses one of the line, whose request goes on although the memory is full, and takes it out. Its
    /// program must be allowed to run (`may`), and it is the only one until its program runs. So the memory
    /// is exceeded by one request, and the line moves as fast as slots become free. Without it, requests that
    /// never become complete or wait for ever could fill the memory.
    pub(crate) fn choose_lead(&self, may: impl Fn(User) -> bool) -> Option<usize> {
        if self.lead.get().is_some_and(|(user, _)| !may(user)) {
            // It would wait for other programs of its user, and everybody for it.
            self.lead.set(None);
        }
        if self.lead.get().is_some() || !self.is_full() {
            return None;
        }
        let next = self.line.borrow_mut().next(may)?;
        self.lead.set(Some(next));
        Some(next.1)
    }

    /// The place of the connection whose request goes on.
    pub(crate) fn lead(&self) -> Option<usize> {
        self.lead.get().map(|(_, place)| place)
    }

    /// Whether it is the one at this place.
    pub(crate) fn is_led_by(&self, place: usize) -> bool {
        self.lead() == Some(place)
    }

    /// The lead's request has its slot, or is no longer a request.
    pub(crate) fn end_lead(&self) {
        self.lead.set(None);
    }

    /// How many connections are in the line.
    pub(crate) fn waiting(&self) -> usize {
        self.line.borrow().len()
    }

    /// How many connections may read a chunk before the memory is full.
    pub(crate) fn chunks_left(&self) -> usize {
        usize::try_from(MOST.saturating_sub(self.taken.get()).div_ceil(CHUNK as u64)).unwrap_or(usize::MAX)
    }

    fn is_full(&self) -> bool {
        self.taken.get() >= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: User = Some(1);
    const B: User = Some(2);

    #[test]
    fn small_requests_are_read_and_one_that_is_not() {
        let memory = RequestMemory::default();
        assert_eq!((memory.allowance(1, 5 << 20), memory.chunks_left()), (usize::MAX, 1024));
        memory.change(0, MOST);
        assert_eq!([0, 4000, 4096, 5000].map(|held| memory.allowance(1, held)), [4096, 96, 0, 0]);
        assert_eq!(memory.chunks_left(), 0);
        for (user, place) in [(A, 1), (A, 2), (B, 3)] {
            memory.wait(user, place);
        }
        assert_eq!((memory.choose_lead(|_| true), memory.choose_lead(|_| true)), (Some(1), None));
        assert_eq!([1, 2].map(|place| memory.allowance(place, 5000)), [usize::MAX, 0]);
        memory.end_lead();
        assert_eq!((memory.choose_lead(|_| true), memory.waiting()), (Some(3), 1));
        memory.change(1 << 20, 0);
        assert_eq!((memory.allowance(2, 5000), memory.next(), memory.next()), (usize::MAX, Some(2), None));
    }

    /// A lead whose user has as many programs as are allowed is not waited for.
    #[test]
    fn a_lead_that_cannot_run_is_none() {
        let memory = RequestMemory::default();
        memory.change(0, MOST);
        for (user, place) in [(A, 1), (A, 2), (B, 3)] {
            memory.wait(user, place);
        }
        assert_eq!(memory.choose_lead(|_| true), Some(1));
        assert_eq!((memory.choose_lead(|user| user != A), memory.lead()), (Some(3), Some(3)));
        memory.end_lead();
        assert_eq!((memory.choose_lead(|user| user != A), memory.lead()), (None, None));
    }
}

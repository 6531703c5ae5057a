//! Who may run a program now, and who waits for that.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// The slots of a daemon, and the connections that wait for one, in their order.
#[derive(Debug)]
pub(crate) struct Slots {
    /// How many there are.
    max: usize,
    taken: Cell<usize>,
    waiting: RefCell<VecDeque<usize>>,
}

impl Slots {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, taken: Cell::new(0), waiting: RefCell::default() }
    }

    /// Takes a slot, unless all are taken or others wait for one.
    pub(crate) fn take(&self) -> bool {
        let takes = self.waiting.borrow().is_empty() && self.is_one_free();
        if takes {
            self.taken.set(self.taken.get() + 1);
        }
        takes
    }

    /// Puts the connection at this place of the loop behind the others that wait: how many wait now.
    pub(crate) fn wait(&self, place: usize) -> u64 {
        let mut waiting = self.waiting.borrow_mut();
        waiting.push_back(place);
        waiting.len() as u64
    }

    /// Gives a free slot to the connection that has waited longest; `None`: no slot is free, or nobody waits.
    pub(crate) fn give(&self) -> Option<usize> {
        let next = if self.is_one_free() { self.waiting.borrow_mut().pop_front() } else { None };
        if next.is_some() {
            self.taken.set(self.taken.get() + 1);
        }
        next
    }

    /// A slot is free again.
    pub(crate) fn free(&self) {
        self.taken.set(self.taken.get().saturating_sub(1));
    }

    /// This connection waits no longer.
    pub(crate) fn forget(&self, place: usize) {
        self.waiting.borrow_mut().retain(|&waits| waits != place);
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.get()
    }

    /// How many connections wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    fn is_one_free(&self) -> bool {
        self.taken.get() < self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody overtakes, neither one who comes just when a slot is free.
    #[test]
    fn who_has_waited_longest_is_next() {
        let slots = Slots::new(2);
        assert_eq!([slots.take(), slots.take(), slots.take()], [true, true, false]);
        assert_eq!([5, 6, 7].map(|place| slots.wait(place)), [1, 2, 3]);
        assert_eq!(slots.give(), None);
        slots.free();
        assert!(!slots.take(), "others wait");
        slots.forget(5);
        assert_eq!((slots.give(), slots.give(), slots.waiting()), (Some(6), None, 1));
        slots.free();
        slots.free();
        assert_eq!((slots.give(), slots.give(), slots.taken()), (Some(7), None, 1));
        assert!(slots.take());
    }
}

//! Who may run a program now, and who waits for that.

use std::cell::{Cell, RefCell};

use super::line::{Line, User};

/// The slots of a daemon, and the connections that wait for one.
#[derive(Debug)]
pub(crate) struct Slots {
    /// How many there are, and how many of them one user may have.
    max: usize,
    max_per_user: usize,
    taken: Cell<usize>,
    /// Groups that may still have to be sent KILL, and for which no slot was kept.
    leftovers: Cell<usize>,
    /// How many slots each user has, of those who have any, if that is limited. A list, which is short: a
    /// tree would allocate for each program that runs alone.
    users: RefCell<Vec<(User, usize)>>,
    waiting: RefCell<Line>,
    /// How often a connection has begun to wait.
    waits: Cell<u64>,
    /// No slot is given any more.
    closed: Cell<bool>,
    /// A request has waited since a slot was last free and nobody waited for it.
    is_full: Cell<bool>,
}

impl Slots {
    pub(crate) fn new(max: usize, max_per_user: usize) -> Self {
        Self {
            max,
            max_per_user,
            taken: Cell::new(0),
            leftovers: Cell::new(0),
            users: RefCell::default(),
            waiting: RefCell::default(),
            waits: Cell::new(0),
            closed: Cell::new(false),
            is_full: Cell::new(false),
        }
    }

    /// Takes a slot, unless all are taken, the user has as many as it may, or others wait that could have it.
    pub(crate) fn take(&self, user: User) -> bool {
        let may = |user| self.may_have_more(user);
        let takes = self.is_one_free() && may(user) && !self.waiting.borrow().has(may);
        if takes {
            self.count(user);
        }
        takes
    }

    /// Gives no slot any more: the daemon is ending.
    pub(crate) fn close(&self) {
        self.closed.set(true);
    }

    /// Whether no slot is given any more.
    pub(crate) fn are_closed(&self) -> bool {
        self.closed.get()
    }

    /// Puts the connection at this place of the loop behind the others that wait. Returns how many wait now,
    /// of all users.
    pub(crate) fn wait(&self, user: User, place: usize) -> u64 {
        let mut waiting = self.waiting.borrow_mut();
        waiting.push(user, place);
        self.waits.set(self.waits.get() + 1);
        waiting.len() as u64
    }

    /// Gives a free slot to a connection that waits. Users take turns, and one that has as many as it may is
    /// passed over. `None`: no slot is free, or nobody waits who may have it.
    pub(crate) fn give(&self) -> Option<usize> {
        if !self.is_one_free() {
            return None;
        }
        let Some((user, place)) = self.waiting.borrow_mut().next(|user| self.may_have_more(user)) else {
            self.is_full.set(false);
            return None;
        };
        self.count(user);
        Some(place)
    }

    /// Whether all slots are taken, for the first time since one was free and nobody waited for it. Ask this
    /// for a request that has to wait.
    pub(crate) fn begins_to_be_full(&self) -> bool {
        !self.is_one_free() && !self.is_full.replace(true)
    }

    /// A slot of this user's is free again.
    pub(crate) fn free(&self, user: User) {
        self.taken.set(self.taken.get().saturating_sub(1));
        if !self.limits_users() {
            return;
        }
        let mut users = self.users.borrow_mut();
        if let Some(at) = users.iter().position(|(has, _)| *has == user) {
            if let Some((_, count)) = users.get_mut(at).filter(|(_, count)| *count > 1) {
                *count -= 1;
            } else {
                users.swap_remove(at);
            }
        }
    }

    /// A program whose slot is free again has left a group that may still have to be sent KILL. As many of
    /// these as there are slots do not count. Each further one occupies a slot, or clients that come and go
    /// would leave more than there is room for.
    pub(crate) fn leave(&self) {
        self.leftovers.set(self.leftovers.get() + 1);
    }

    /// Such a group is gone, or was sent KILL.
    pub(crate) fn forget_leftover(&self) {
        self.leftovers.set(self.leftovers.get().saturating_sub(1));
    }

    /// This connection no longer waits.
    pub(crate) fn forget(&self, user: User, place: usize) {
        self.waiting.borrow_mut().remove(user, place);
    }

    /// Whether the user may run another program, if there is a slot for it.
    pub(crate) fn may_have_more(&self, user: User) -> bool {
        !self.limits_users() || self.of(user) < self.max_per_user
    }

    /// The request of this user that began to wait last.
    pub(crate) fn newest(&self, user: User) -> Option<usize> {
        self.waiting.borrow().newest(user)
    }

    /// How many slots are taken, by programs and by what they have left.
    pub(crate) fn taken(&self) -> usize {
        self.taken.get() + self.leftovers.get().saturating_sub(self.max)
    }

    /// How many leftovers occupy no slot.
    pub(crate) fn free_leftovers(&self) -> usize {
        self.leftovers.get().min(self.max)
    }

    /// How many connections wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// How often a connection has begun to wait, since the daemon began.
    pub(crate) fn waits(&self) -> u64 {
        self.waits.get()
    }

    fn is_one_free(&self) -> bool {
        !self.closed.get() && self.taken() < self.max
    }

    fn limits_users(&self) -> bool {
        self.max_per_user < self.max
    }

    fn of(&self, user: User) -> usize {
        self.users.borrow().iter().find(|(has, _)| *has == user).map_or(0, |&(_, count)| count)
    }

    fn count(&self, user: User) {
        self.taken.set(self.taken.get() + 1);
        if !self.limits_users() {
            return;
        }
        let mut users = self.users.borrow_mut();
        match users.iter_mut().find(|(has, _)| *has == user) {
            Some((_, count)) => *count += 1,
            None => users.push((user, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: User = Some(1);
    const TWO: User = Some(2);

    /// Nobody overtakes, not even one who comes just when a slot becomes free.
    #[test]
    fn who_has_waited_longest_is_next() {
        let slots = Slots::new(2, 2);
        assert_eq!([slots.take(ONE), slots.take(ONE), slots.take(ONE)], [true, true, false]);
        assert_eq!([5, 6, 7].map(|place| slots.wait(ONE, place)), [1, 2, 3]);
        assert_eq!(slots.give(), None);
        slots.free(ONE);
        assert!(!slots.take(ONE) && !slots.take(TWO), "others wait");
        slots.forget(ONE, 5);
        assert_eq!((slots.give(), slots.give(), slots.waiting()), (Some(6), None, 1));
        slots.free(ONE);
        slots.free(ONE);
        assert_eq!((slots.give(), slots.give(), slots.taken()), (Some(7), None, 1));
        assert!(slots.take(ONE));
    }

    /// A user that has as many as it may waits, and nobody waits because of it.
    #[test]
    fn one_user_has_so_many_and_the_others_have_the_rest() {
        let slots = Slots::new(3, 2);
        assert_eq!([slots.take(ONE), slots.take(ONE), slots.take(ONE)], [true, true, false]);
        assert_eq!((slots.wait(ONE, 10), slots.waits(), slots.newest(ONE)), (1, 1, Some(10)));
        assert_eq!(slots.give(), None, "it has two");
        assert!(slots.take(TWO), "one that waits for itself does not stop the others");
        assert!(!slots.take(TWO), "none is free");
        slots.wait(TWO, 20);
        slots.free(ONE);
        slots.free(TWO);
        assert_eq!((slots.give(), slots.give(), slots.give()), (Some(10), Some(20), None));
        slots.free(TWO);
        assert!(slots.users.borrow().iter().all(|&(user, _)| user == ONE), "who has none costs nothing");
    }

    /// A request that is complete when the daemon ends is not started only to be ended.
    #[test]
    fn at_the_end_there_is_none() {
        let slots = Slots::new(2, 2);
        slots.wait(ONE, 7);
        slots.close();
        assert!(slots.are_closed() && !slots.take(TWO) && slots.give().is_none());
    }

    /// As many leftovers as there are slots occupy none.
    #[test]
    fn leftovers_beyond_the_slots_occupy_some() {
        let slots = Slots::new(2, 2);
        for _ in 0..3 {
            assert!(slots.take(ONE));
            slots.leave();
            slots.free(ONE);
        }
        assert_eq!(slots.free_leftovers(), 2);
        assert_eq!([slots.take(ONE), slots.take(ONE)], [true, false], "one of two is occupied");
        slots.wait(ONE, 7);
        assert_eq!((slots.taken(), slots.give()), (2, None));
        slots.forget_leftover();
        assert_eq!((slots.taken(), slots.give()), (1, Some(7)));
    }
}

//! Connections that wait for something, user by user.

use std::collections::VecDeque;

/// The user of a connection: the uid of its client; `None`: the system does not report it, and all of those
/// count as one.
pub(crate) type User = Option<u32>;

/// Connections in a line, by their places in the loop. Users take turns, and those of one user keep their
/// order. So a thousand of one user do not stand before another's first.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// The user whose turn is next comes first. Each user here has at least one place.
    users: VecDeque<(User, VecDeque<usize>)>,
    len: usize,
}

impl Line {
    /// Puts a connection behind the others of its user.
    pub(crate) fn push(&mut self, user: User, place: usize) {
        self.len += 1;
        match self.of(user) {
            Some(places) => places.push_back(place),
            None => self.users.push_back((user, [place].into())),
        }
    }

    /// This connection no longer waits.
    pub(crate) fn remove(&mut self, user: User, place: usize) {
        let Some(places) = self.of(user) else { return };
        let before = places.len();
        places.retain(|&waits| waits != place);
        let (removed, is_empty) = (before - places.len(), places.is_empty());
        self.len -= removed;
        if is_empty {
            self.users.retain(|(waits, _)| *waits != user);
        }
    }

    /// Takes out the first connection of the user whose turn it is. Users for whom `may` is false are passed
    /// over, and keep their turn.
    pub(crate) fn next(&mut self, may: impl Fn(User) -> bool) -> Option<(User, usize)> {
        let at = self.users.iter().position(|&(user, _)| may(user))?;
        let (user, mut places) = self.users.remove(at)?;
        let place = places.pop_front()?;
        self.len -= 1;
        if !places.is_empty() {
            self.users.push_back((user, places));
        }
        Some((user, place))
    }

    /// Whether a user waits for whom `may` is true.
    pub(crate) fn has(&self, may: impl Fn(User) -> bool) -> bool {
        self.users.iter().any(|&(user, _)| may(user))
    }

    /// The connection of this user that came last.
    pub(crate) fn newest(&self, user: User) -> Option<usize> {
        self.users.iter().find(|(waits, _)| *waits == user).and_then(|(_, places)| places.back().copied())
    }

    /// How many connections wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn of(&mut self, user: User) -> Option<&mut VecDeque<usize>> {
        self.users.iter_mut().find(|(waits, _)| *waits == user).map(|(_, places)| places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(all: &[(User, usize)]) -> Line {
        let mut line = Line::default();
        for &(user, place) in all {
            line.push(user, place);
        }
        line
    }

    fn order(line: &mut Line, may: impl Fn(User) -> bool) -> Vec<usize> {
        std::iter::from_fn(|| line.next(&may)).map(|(_, place)| place).collect()
    }

    #[test]
    fn users_take_turns() {
        let mut all = line(&[(Some(1), 10), (Some(1), 11), (Some(1), 12), (Some(2), 20), (None, 30), (Some(2), 21)]);
        assert_eq!((all.len(), all.newest(Some(1)), all.newest(Some(3))), (6, Some(12), None));
        assert_eq!(order(&mut all, |_| true), [10, 20, 30, 11, 21, 12]);
        assert_eq!(all.len(), 0);
    }

    /// A user that is passed over keeps its turn, and stops nobody.
    #[test]
    fn users_are_passed_over() {
        let mut all = line(&[(Some(1), 10), (Some(2), 20), (Some(2), 21), (Some(1), 11)]);
        assert!(all.has(|user| user == Some(2)) && !all.has(|user| user.is_none()));
        assert_eq!(order(&mut all, |user| user != Some(1)), [20, 21]);
        all.push(Some(2), 22);
        assert_eq!(order(&mut all, |_| true), [10, 22, 11]);
    }

    #[test]
    fn who_leaves_the_line_leaves_no_gap() {
        let mut all = line(&[(Some(1), 10), (Some(2), 20), (Some(1), 11)]);
        all.remove(Some(1), 10);
        all.remove(Some(2), 20);
        all.remove(Some(2), 20);
        all.remove(Some(3), 11);
        assert_eq!((all.len(), order(&mut all, |_| true)), (1, vec![11]));
    }
}

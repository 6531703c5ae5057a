//! The waiting room: the connections without a slot, and which of them must go when there are too many.
//!
//! The kernel's backlog is first in, first out: a client there waits for all before it. So the daemon goes on
//! accepting, and in here a client finds its place, or another makes way for it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::line::User;
use crate::engine::{Stay, Time};

/// A client that has sent no more of its request, or read nothing of its reply, for this long may have to go.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);

/// A connection without a slot, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest {
    /// Its place in the loop.
    pub(crate) place: usize,
    /// Counted over the daemon's life.
    pub(crate) number: u64,
    pub(crate) user: User,
    /// `None`: nothing can be taken from it.
    pub(crate) stay: Option<Stay>,
    /// When its client last sent some of its request, or some of its reply was last sent.
    pub(crate) moved_at: Time,
}

/// The outcome of a look at the room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The connection at this place must go.
    Goes(usize),
    /// Nobody must or may go before something changes, or before this time.
    Nobody(Option<Time>),
}

/// Which of `guests` must go, who are so many `over` those that are allowed. `extra`: how many may be over
/// for a moment.
///
/// It is one of the user with the most places; in a tie, of the user that came last. Of that user's
/// connections it is a request that is not complete and has made no progress for [`SILENCE`]; else the
/// request that began to wait last, which `newest` knows; else the reply of which nothing was read for
/// longest, and for at least that time. It is never another user's.
///
/// Nobody must go for a client that has only just come, and may want nothing but an answer that is given at
/// once. As long as fewer than `extra` are over, they may be those whose request is not complete and who have
/// been silent for less than that time.
pub(crate) fn judge(
    guests: &(impl Iterator<Item = Guest> + Clone),
    over: usize,
    extra: usize,
    now: Time,
    newest: impl FnOnce(User) -> Option<usize>,
) -> Verdict {
    let is_silent = |guest: &Guest| guest.moved_at + SILENCE <= now;
    let movers = || guests.clone().filter(|guest| matches!(guest.stay, Some(Stay::Request | Stay::Reply)));
    let later = movers().filter(|guest| !is_silent(guest)).map(|guest| guest.moved_at + SILENCE).min();
    let fresh = movers().filter(|guest| guest.stay == Some(Stay::Request) && !is_silent(guest)).count();
    if over <= fresh.min(extra.saturating_sub(1)) {
        return Verdict::Nobody(later);
    }
    let Some(user) = who_has_most(guests.clone()) else { return Verdict::Nobody(later) };
    let longest_silent = |stay| {
        let silent = movers().filter(|guest| guest.user == user && guest.stay == Some(stay) && is_silent(guest));
        silent.min_by_key(|guest| (guest.moved_at, guest.number)).map(|guest| guest.place)
    };
    longest_silent(Stay::Request)
        .or_else(|| newest(user))
        .or_else(|| longest_silent(Stay::Reply))
        .map_or(Verdict::Nobody(later), Verdict::Goes)
}

/// The user with the most places; in a tie, the one with the latest connection.
fn who_has_most(guests: impl Iterator<Item = Guest>) -> Option<User> {
    let mut users: BTreeMap<User, (usize, u64)> = BTreeMap::new();
    for guest in guests {
        let (count, latest) = users.entry(guest.user).or_default();
        *count += 1;
        *latest = guest.number.max(*latest);
    }
    users.into_iter().max_by_key(|&(_, places)| places).map(|(user, _)| user)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Option<Stay> = Some(Stay::Request);
    const SLOT: Option<Stay> = Some(Stay::Slot);
    const REPLY: Option<Stay> = Some(Stay::Reply);

    /// Each guest by its user, its state, and how many milliseconds ago it moved, in the order of their
    /// numbers; the moment is 10 s.
    fn judged(guests: &[(u32, Option<Stay>, u64)], over: usize, extra: usize) -> Verdict {
        let now = Time::after(Duration::from_secs(10));
        let all: Vec<Guest> = guests
            .iter()
            .enumerate()
            .map(|(place, &(user, stay, ago))| Guest {
                place,
                number: place as u64 + 1,
                user: Some(user),
                stay,
                moved_at: Time::after(Duration::from_millis(10_000 - ago)),
            })
            .collect();
        let newest = |user| all.iter().rposition(|guest| guest.user == user && guest.stay == Some(Stay::Slot));
        judge(&all.iter().copied(), over, extra, now, newest)
    }

    /// Nobody goes until this many milliseconds from then.
    fn at(millis: u64) -> Verdict {
        Verdict::Nobody(Some(Time::after(Duration::from_millis(10_000 + millis))))
    }

    #[test]
    fn who_has_most_places_loses_one() {
        let three_and_two = [(1, SLOT, 0), (2, SLOT, 0), (1, SLOT, 0), (1, SLOT, 0), (2, SLOT, 0)];
        assert_eq!(judged(&three_and_two, 1, 2), Verdict::Goes(3));
        // In a tie the newcomer's.
        assert_eq!(judged(&[(1, SLOT, 0), (2, SLOT, 0), (2, SLOT, 0), (1, SLOT, 0)], 1, 2), Verdict::Goes(3));
        assert_eq!(judged(&[(1, SLOT, 0), (1, SLOT, 0), (2, SLOT, 0), (2, SLOT, 0)], 1, 2), Verdict::Goes(3));
        // A connection that nothing can be taken from is a place all the same.
        assert_eq!(judged(&[(1, None, 0), (1, SLOT, 0), (1, None, 0), (2, SLOT, 0)], 1, 2), Verdict::Goes(1));
    }

    #[test]
    fn the_silent_go_first_and_those_that_do_not_read_last() {
        let all = [(1, REPLY, 5000), (1, SLOT, 9000), (1, REQUEST, 1500), (1, REQUEST, 2000), (1, SLOT, 0)];
        assert_eq!(judged(&all, 1, 2), Verdict::Goes(3));
        let no_request = [(1, REPLY, 5000), (1, SLOT, 9000), (1, REPLY, 6000), (1, SLOT, 0)];
        assert_eq!(judged(&no_request, 1, 2), Verdict::Goes(3));
        assert_eq!(judged(&[(1, REPLY, 5000), (1, REPLY, 6000), (1, REPLY, 10)], 1, 2), Verdict::Goes(1));
    }

    /// Other users' connections are safe, however silent they are.
    #[test]
    fn where_there_is_none_nobody_goes() {
        assert_eq!(judged(&[(1, REPLY, 400), (1, REPLY, 300), (2, SLOT, 0)], 1, 2), at(600));
        assert_eq!(judged(&[(1, REQUEST, 10), (1, REQUEST, 20), (2, REQUEST, 5000)], 2, 2), at(980));
        assert_eq!(judged(&[(1, None, 0)], 1, 2), Verdict::Nobody(None));
        assert_eq!(judged(&[], 1, 2), Verdict::Nobody(None));
    }

    #[test]
    fn nobody_goes_for_one_who_has_just_come() {
        let one_new = [(1, SLOT, 0), (1, REQUEST, 5000), (1, REQUEST, 200)];
        assert_eq!(judged(&one_new, 1, 2), at(800));
        assert_eq!(judged(&one_new, 1, 1), Verdict::Goes(1), "there is no room for another");
        assert_eq!(judged(&one_new, 2, 9), Verdict::Goes(1), "only one is new");
        let two_new = [(1, SLOT, 0), (1, REQUEST, 100), (1, REQUEST, 200)];
        assert_eq!(judged(&two_new, 2, 3), at(800));
        assert_eq!(judged(&two_new, 2, 2), Verdict::Goes(0));
    }
}

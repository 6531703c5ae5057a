//! Looking for the members of sessions: one look at all processes of the system serves every connection that waits for one.
//!
//! Such a look takes as long as there are processes, and the loop serves nobody meanwhile. So it is made for all at once, and the next one is
//! a while later.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Pid;

use crate::engine::Time;
use crate::sys::session::{self, Member};

/// The next look is so many times as long after one as that one took, so that they take a tenth of the loop's time at most.
const REST: u32 = 10;

/// It is no sooner than this: those that were sent a signal need a moment to die.
const SHORTEST: Duration = Duration::from_millis(10);

/// The same after one that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// What is to be done with the members of a session when they are known.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// TERM, and before that HUP to the group that had the terminal.
    pub(crate) terminate: Option<HangUp>,
    /// KILL, until a look finds nobody: since when, and in how many looks.
    pub(crate) kill: Option<(Time, u32)>,
    /// Learn whether anybody is left.
    pub(crate) probe: bool,
}

/// What a terminal's hang-up means.
#[derive(Debug)]
pub(crate) struct HangUp {
    /// The group that had the terminal.
    pub(crate) foreground: Option<Pid>,
}

/// A session that forks faster than it is killed, or a member that cannot be killed, is given up after so many looks and so long.
const KILL_LOOKS: u32 = 5;
const KILL_TIME: Duration = Duration::from_secs(1);

/// Where there can be no look, it is waited for so long.
const NO_LOOK_TIME: Duration = Duration::from_secs(10);

impl Work {
    /// Whether it was tried often enough to kill a session: since when, in how many looks, and whether the last one told anything.
    pub(crate) fn gives_up(since: Time, looks: u32, told: bool, now: Time) -> bool {
        let most = if told { KILL_TIME } else { NO_LOOK_TIME };
        looks >= KILL_LOOKS && now.saturating_sub(since) >= most
    }
}

/// Who waits for a look, and when there is one.
#[derive(Debug)]
pub(crate) struct Lookout {
    /// The system tells.
    knows: bool,
    /// Not before this.
    next: Time,
    waiting: RefCell<BTreeSet<usize>>,
    looks: u64,
}

impl Lookout {
    pub(crate) fn new() -> Self {
        let knows = session::are_known();
        if !knows {
            log::debug!("/proc does not tell of this PID namespace: of a session only its leader's group is ended");
        }
        Self { knows, next: Time::ZERO, waiting: RefCell::default(), looks: 0 }
    }

    /// Has the connection at this place of the loop told of its session's members; false: nobody knows them.
    pub(crate) fn want(&self, place: usize) -> bool {
        if self.knows {
            self.waiting.borrow_mut().insert(place);
        }
        self.knows
    }

    /// This connection is over.
    pub(crate) fn forget(&self, place: usize) {
        self.waiting.borrow_mut().remove(&place);
    }

    /// When there is a look, if anybody waits for one.
    pub(crate) fn due(&self) -> Option<Time> {
        Some(self.next).filter(|_| !self.waiting.borrow().is_empty())
    }

    /// Those that wait, if it is time for a look. They wait no longer.
    pub(crate) fn take_due(&self, now: Time) -> Vec<usize> {
        let is_due = self.due().is_some_and(|due| due <= now);
        if is_due { self.waiting.take().into_iter().collect() } else { Vec::new() }
    }

    /// Looks: the members of the sessions that these began, with their leader. `None`: it cannot be looked now, for want of a descriptor, say.
    /// `clock`: the loop's.
    pub(crate) fn look(&mut self, clock: impl Fn() -> Time, leaders: &[Pid]) -> Option<Vec<(Pid, Member)>> {
        let begin = clock();
        let members = session::members(leaders);
        let end = clock();
        let shortest = if members.is_some() { SHORTEST } else { AFTER_FAILURE };
        self.looks += 1;
        self.next = end + (end.saturating_sub(begin) * REST).max(shortest);
        members
    }

    /// How often was looked.
    pub(crate) fn looks(&self) -> u64 {
        self.looks
    }
}

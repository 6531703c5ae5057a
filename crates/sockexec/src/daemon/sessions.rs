//! Finds the members of sessions: one look at all processes of the system serves every connection that waits
//! for one.
//!
//! Such a look takes longer the more processes there are, and the loop serves nobody meanwhile. So there is
//! one for all connections, and the next one is a while later.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Pid;

use crate::engine::Time;
use crate::sys::session::{self, Member};

/// The pause after a look is this many times as long as the look, so that looks take a tenth of the loop's
/// time at most.
const REST: u32 = 10;

/// The shortest pause: processes that were sent a signal need a moment to die.
const SHORTEST: Duration = Duration::from_millis(10);

/// The shortest pause after a look that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// What to do with the members of a session once they are known.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// TERM, and before that HUP to the group that had the terminal.
    pub(crate) terminate: Option<HangUp>,
    /// KILL, until a look finds nobody: since when, and how many looks so far.
    pub(crate) kill: Option<(Time, u32)>,
    /// Find out whether anybody is left.
    pub(crate) probe: bool,
}

/// A terminal's hang-up.
#[derive(Debug)]
pub(crate) struct HangUp {
    /// The group that had the terminal.
    pub(crate) foreground: Option<Pid>,
}

/// A session that forks faster than it is killed, or a member that cannot be killed, is given up after this
/// many looks and this time.
const KILL_LOOKS: u32 = 5;
const KILL_TIME: Duration = Duration::from_secs(1);

/// How long to wait if no look is possible.
const NO_LOOK_TIME: Duration = Duration::from_secs(10);

impl Work {
    /// Whether to give up killing a session: since when it is tried, in how many looks, and whether the last
    /// one succeeded.
    pub(crate) fn gives_up(since: Time, looks: u32, told: bool, now: Time) -> bool {
        let most = if told { KILL_TIME } else { NO_LOOK_TIME };
        looks >= KILL_LOOKS && now.saturating_sub(since) >= most
    }
}

/// Who waits for a look, and when the next one is.
#[derive(Debug)]
pub(crate) struct Lookout {
    /// The system shows the members.
    knows: bool,
    /// No look before this.
    next: Time,
    waiting: RefCell<BTreeSet<usize>>,
    looks: u64,
}

impl Lookout {
    pub(crate) fn new() -> Self {
        let knows = session::are_known();
        if !knows {
            log::debug!("/proc does not show this PID namespace: only the leader's group of a session is ended");
        }
        Self { knows, next: Time::ZERO, waiting: RefCell::default(), looks: 0 }
    }

    /// Asks for the members of the session of the connection at this place of the loop; false: nobody knows
    /// them.
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

    /// When the next look is, if anybody waits for one.
    pub(crate) fn due(&self) -> Option<Time> {
        Some(self.next).filter(|_| !self.waiting.borrow().is_empty())
    }

    /// The connections that wait, if it is time for a look. They no longer wait then.
    pub(crate) fn take_due(&self, now: Time) -> Vec<usize> {
        let is_due = self.due().is_some_and(|due| due <= now);
        if is_due { self.waiting.take().into_iter().collect() } else { Vec::new() }
    }

    /// Looks for the members of the sessions that these leaders began, each with its leader. `None`: no look
    /// is possible now, for lack of a descriptor, for example. `clock` is the loop's.
    pub(crate) fn look(&mut self, clock: impl Fn() -> Time, leaders: &[Pid]) -> Option<Vec<(Pid, Member)>> {
        let begin = clock();
        let members = session::members(leaders);
        let end = clock();
        let shortest = if members.is_some() { SHORTEST } else { AFTER_FAILURE };
        self.looks += 1;
        self.next = end + (end.saturating_sub(begin) * REST).max(shortest);
        members
    }

    /// How many looks there were.
    pub(crate) fn looks(&self) -> u64 {
        self.looks
    }
}

//! When something is due.

use std::time::Duration;

use super::{CUT, LAST};
use crate::engine::Time;
use crate::engine::model::world::{Leader, World};

/// The rest of [`LAST`] once the daemon is to end.
const LAST_AT_SHUTDOWN: Duration = Duration::from_millis(250);

/// `docs/gotchas.md`: "at doubling intervals up to a quarter of a second".
const FIRST_PROBE: Duration = Duration::from_millis(2);
const MAX_PROBE: Duration = Duration::from_millis(256);

impl World<'_> {
    /// Until the request is complete: counted from when the connection was accepted. None while it waits.
    /// Once it has its slot: counted from then, the daemon's or that of the request if it is earlier.
    pub(super) fn deadline(&self) -> Option<Time> {
        let limits = self.case.limits;
        match self.record.slot_at {
            // The connection was accepted at the first moment.
            None if self.record.busy || self.record.paused_at.is_some() => None,
            None if !self.record.wants_slot => {
                limits.request_timeout.map(|timeout| Time::after(timeout + self.record.paused))
            }
            None => None,
            Some(slot_at) => {
                let own = if self.speaks_2() { self.understood().options.timeout } else { None };
                [limits.timeout, own].into_iter().flatten().min().map(|timeout| slot_at + timeout)
            }
        }
    }

    /// When KILL is due, if TERM was sent.
    pub(super) fn kill_at(&self) -> Option<Time> {
        let terminated_at = self.record.terminated_at?;
        let at = terminated_at + self.case.limits.kill_timeout;
        Some(self.record.hurried_at.map_or(at, |hurried| at.min(hurried.max(terminated_at))))
    }

    /// Until when a client that has its reply may go on sending.
    pub(super) fn last_moment(&self) -> Option<Time> {
        let sent_at = self.record.sent_at?;
        let at_shutdown = self.record.ordered_at.map(|at| at.max(sent_at) + LAST_AT_SHUTDOWN);
        Some(at_shutdown.map_or(sent_at + LAST, |at| at.min(sent_at + LAST)))
    }

    /// When the daemon knows at the latest that the group, which is empty now, is empty. It probes at
    /// doubling intervals, up to a quarter of a second.
    pub(in crate::engine::model) fn emptiness_noticed_by(&self) -> Option<Time> {
        let asked_first = self.record.terminated_at?.max(self.record.exited_at?);
        let interval = (self.now.saturating_sub(asked_first) + FIRST_PROBE).min(MAX_PROBE);
        Some(self.now + interval).filter(|_| !self.case.unknowable)
    }

    /// When the session must act at the latest, if nothing happens.
    pub(super) fn next_moment(&self) -> Option<Time> {
        let record = &self.record;
        let limits = self.case.limits;
        let mut moments = Vec::new();
        if !record.closed {
            moments.extend([self.deadline().filter(|_| !record.timed_out), record.cut_at, self.last_moment()]);
        }
        if record.started && !record.reaped {
            moments.push(self.kill_at().filter(|_| !record.killed));
            let lingers_from = record.lingers_from.filter(|_| record.terminated_at.is_none());
            moments.push(lingers_from.and_then(|from| Some(from + limits.linger?)));
        }
        moments.into_iter().flatten().min()
    }

    /// When the session is over at the latest, if only time passes.
    pub(in crate::engine::model) fn latest_end(&self) -> Option<Time> {
        let record = &self.record;
        if matches!(self.program.leader, Leader::WithoutSlot | Leader::WithSlot | Leader::Starting | Leader::Answered) {
            return None;
        }
        let client = if record.closed {
            Some(self.now)
        } else {
            // Counted from when the daemon noticed that the time was up.
            let timeout = self.deadline().filter(|_| !record.timed_out);
            let by_deadline = timeout.map(|timeout| timeout + self.case.limits.kill_timeout + CUT);
            [record.cut_at, by_deadline, record.sent_at.map(|at| at + LAST)].into_iter().flatten().min()
        };
        client.max(self.kill_at().filter(|_| client.is_some())).map(|end| end.max(self.now))
    }
}

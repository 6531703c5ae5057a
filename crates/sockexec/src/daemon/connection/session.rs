//! Ending a program's group, and its session if it has a terminal.

use rustix::process::Pid;

use super::{Connection, Context};
use crate::daemon::sessions::{HangUp, Work};
use crate::engine::Time;
use crate::sys::group::Occupancy;
use crate::sys::session::Member;

impl Connection {
    /// Sends TERM: to the group now, to the rest of the session when its members are known.
    pub(super) fn terminate(&mut self, cx: &Context<'_>) {
        let Some(child) = &mut self.child else { return };
        let foreground = child.group.terminate();
        if child.group.session().is_some() && cx.lookout.want(self.slot) {
            child.work().terminate = Some(HangUp { foreground });
        }
    }

    /// Sends KILL in the same way.
    pub(super) fn kill(&mut self, cx: &Context<'_>) {
        let Some(child) = &mut self.child else { return };
        child.group.kill();
        if child.group.session().is_some() && cx.lookout.want(self.slot) {
            *child.work() = Work { kill: Some((cx.now, 0)), ..Work::default() };
        } else {
            self.session.killed(cx.now);
        }
    }

    /// Finds out whether anybody is left.
    pub(super) fn probe(&mut self, cx: &Context<'_>) {
        let Some(child) = &mut self.child else { return };
        if child.group.session().is_some() && cx.lookout.want(self.slot) {
            child.work().probe = true;
            return;
        }
        match child.group.occupancy() {
            Occupancy::Empty => self.session.group_is_empty(),
            Occupancy::Occupied => {}
            Occupancy::Unknowable => {
                // The leader stays unreaped, and its number is enough for KILL.
                child.unwatch_exit(cx.registry);
                self.session.group_is_unknowable();
            }
        }
    }

    /// The leader of the session whose members it waits for.
    pub(crate) fn session_leader(&self) -> Option<Pid> {
        self.child.as_ref().and_then(|child| child.group.session())
    }

    /// Does what has waited for the members of its session: these, without dead ones. `None`: they could not
    /// be listed. True: another look is needed.
    pub(crate) fn take_members(&mut self, now: Time, members: Option<&[Member]>) -> bool {
        let Some(child) = &mut self.child else { return false };
        let Work { terminate, kill, probe } = child.take_work();
        if let (Some(hang_up), Some(members)) = (&terminate, members) {
            child.group.terminate_members(members, hang_up.foreground);
        }
        let mut left = Work { terminate: terminate.filter(|_| members.is_none()), kill: None, probe: false };
        if let Some((since, looks)) = kill {
            // The leader is kept until a look has found nobody else: its number is the session's, and could
            // be a stranger's after that.
            let is_left = members.is_none_or(|members| child.group.kill_members(members));
            if is_left && !Work::gives_up(since, looks + 1, members.is_some(), now) {
                left.kill = Some((since, looks + 1));
            } else {
                self.session.killed(now);
            }
        } else if probe && members.is_some_and(<[Member]>::is_empty) {
            self.session.group_is_empty();
        }
        let again = left.terminate.is_some() || left.kill.is_some();
        if again && let Some(child) = &mut self.child {
            *child.work() = left;
        }
        again
    }
}

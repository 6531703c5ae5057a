//! What an input of the session means for what must follow.

use super::{CUT, LAST};
use crate::engine::Time;
use crate::engine::model::world::{Leader, World};

impl World<'_> {
    /// If the program has a group that may still be signalled, it must be ended.
    pub(in crate::engine::model) fn give_reason(&mut self) {
        if self.record.started && !self.record.reaped {
            self.record.reason = true;
        }
    }

    pub(super) fn cut_by(&mut self, time: Time) {
        self.record.cut_at = Some(self.record.cut_at.map_or(time, |cut| cut.min(time)));
    }

    fn time_is_up(&mut self) {
        self.record.timed_out = true;
        self.give_reason();
        self.cut_by(self.now + self.case.limits.kill_timeout + CUT);
    }

    pub(in crate::engine::model) fn look_at_the_clock(&mut self) {
        let now = self.now;
        let limits = self.case.limits;
        if self.deadline().is_some_and(|deadline| deadline <= now) && !self.record.timed_out {
            self.time_is_up();
        }
        let lingered = |from| limits.linger.is_some_and(|linger| from + linger <= now);
        if self.record.lingers_from.is_some_and(lingered) {
            self.give_reason();
        }
    }

    pub(in crate::engine::model) fn before_order(&mut self) {
        self.time_is_up();
        self.record.ordered_at = self.record.ordered_at.or(Some(self.now));
        if self.record.orders > 1 {
            self.record.hurried_at = Some(self.now);
            self.cut_by(self.now + CUT);
        }
    }

    /// "The place goes to another": only if the connection has no slot.
    pub(in crate::engine::model) fn before_turned_away(&mut self) {
        let record = &self.record;
        if record.closed || self.session.holds_slot() {
            return;
        }
        let asks = !record.told && !record.spawned && self.has_said_version();
        if asks {
            self.record.busy = true;
            self.cut_by(self.now + LAST);
            if self.program.leader == Leader::WithoutSlot {
                self.program.leader = Leader::Absent;
            }
        } else {
            self.record.turned_out = true;
        }
    }

    pub(in crate::engine::model) fn before_started(&mut self) {
        self.record.started = true;
        if self.record.gone || self.record.timed_out {
            self.give_reason();
        }
    }

    pub(in crate::engine::model) fn before_empty(&mut self) {
        let record = &mut self.record;
        if record.status.is_some() && record.terminated_at.is_none() && record.lingers_from.is_none() {
            record.lingers_from = Some(self.now);
        }
    }
}

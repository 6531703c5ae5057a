//! What the session must have asked for at the end of a turn, and of a connection.

use super::DRAIN;
use crate::engine::Time;
use crate::engine::model::world::{Leader, World};
use crate::engine::model::{Violation, ensure};

impl World<'_> {
    /// Checks the end of a turn.
    pub(in crate::engine::model) fn check_turn(&mut self) -> Result<(), Violation> {
        let now = self.now;
        if self.record.kill_seen_at.is_none() && self.kill_at().is_some_and(|at| at <= now) {
            self.record.kill_seen_at = Some(now);
        }
        let record = &self.record;
        let is_due = |time: Option<Time>| time.is_some_and(|time| time <= now);
        ensure!(!record.reason || record.terminated_at.is_some(), "a reason to end the group, and no TERM");
        ensure!(record.reaped || record.killed || !is_due(self.kill_at()), "KILL is due, and not sent");
        let streams_ended = !self.program.stdout.ours && !self.program.stderr.ours;
        let drained_from = if record.killed { record.reached_at } else { record.kill_seen_at };
        ensure!(
            record.drained || streams_ended || !is_due(drained_from.map(|at| at + DRAIN)),
            "the session waits for processes that still hold the output"
        );
        let next = self.next_moment();
        ensure!(
            next.is_none_or(|next| self.session.next_timer().is_some_and(|timer| timer <= next)),
            "no timer is set for what is due at {next:?}"
        );
        if !record.closed {
            ensure!(!record.gone, "the client is gone, and its socket is open");
            ensure!(!record.turned_out, "its place was taken away, and its socket is open");
            ensure!(!record.busy || record.told, "its place was taken away, and it was not told");
            ensure!(!is_due(record.cut_at), "the client's time is up, and its socket is open");
            ensure!(
                !record.timed_out || record.spawned || record.told,
                "time is up for a client that has asked for nothing, and its socket is open"
            );
            ensure!(
                self.last_moment().is_none_or(|last| !self.request_ended() && now < last),
                "the reply is complete, and the client's socket is open"
            );
        }
        if self.program.stdin.ours && !self.record.input_ended {
            let ended = self.record.end_of_file || self.used().end.is_some();
            ensure!(!ended || !self.program.stdin.ahead.is_empty(), "standard input is at its end, and open");
        }
        let is_wrong = self.used().error.is_some();
        ensure!(!is_wrong || record.is_refused() || record.told || record.closed, "a bad request that is not refused");
        self.check_turn_2()?;
        if !record.over {
            self.check_state()?;
        }
        let held = self.client.read - self.client.used;
        ensure!(held <= self.case.chunk, "{held} bytes of the request are kept");
        self.check_slot()
    }

    /// The slot is taken while there is a program, and no longer.
    fn check_slot(&self) -> Result<(), Violation> {
        let record = &self.record;
        let is_there = record.spawned && !record.reaped && !record.start_failed;
        let holds = self.session.holds_slot();
        ensure!(is_there || !holds, "a slot without a program");
        let is_given_up = self.case.unknowable && record.closed;
        ensure!(!is_there || holds || is_given_up, "a slot given away while its program is there");
        let has_ended = matches!(self.program.leader, Leader::Dead(_)) && !self.is_output_held();
        let is_ending = record.terminated_at.is_some() || !record.executed && self.speaks_2();
        ensure!(
            !is_there || !has_ended || is_ending,
            "the program has ended, no process can write any more, and its slot is taken"
        );
        Ok(())
    }

    /// What the log and the status say that the connection waits for.
    pub(super) fn check_state(&self) -> Result<(), Violation> {
        let record = &self.record;
        let is_program_there = record.spawned && !record.reaped && !record.start_failed;
        let streams_ended = !self.program.stdout.ours && !self.program.stderr.ours;
        let expected = match (is_program_there, record.status, record.terminated_at) {
            (false, ..) if record.sent_at.is_some() => "client to end its sending",
            (false, ..) if record.told => "client to read its reply",
            (false, ..) if record.reaped => "output of descendants outside the group",
            (false, ..) if record.wants_slot => "a free slot",
            (false, ..) => "request",
            (true, ..) if !record.started => "start of the program",
            (true, ..) if record.killed => "death after KILL",
            (true, None, Some(_)) => "death after TERM",
            (true, Some(_), Some(_)) => "death of the rest of the group",
            (true, Some(_), None) => "output of descendants",
            (true, None, None) if self.speaks_2() && !record.executed => "exec of the program",
            (true, None, None) if streams_ended => "exit of the program",
            (true, None, None) if self.program.stdin.ours && !record.input_ended => "output or input",
            (true, None, None) => "output",
        };
        let told = self.session.waits_for();
        ensure!(told == expected, "it says that it waits for: {told}, instead of: {expected}");
        Ok(())
    }

    /// Checks a connection before it is forgotten. Standard input may still be open: it is closed with the
    /// connection.
    pub(in crate::engine::model) fn check_over(&self) -> Result<(), Violation> {
        let record = &self.record;
        ensure!(record.closed, "over, and the client's socket is open");
        ensure!(record.reaped || !record.started, "over, and the leader is not reaped");
        ensure!(!self.program.stdout.ours && !self.program.stderr.ours, "over, and an output is open");
        ensure!(!self.session.holds_slot(), "over, and its slot is taken");
        let reasons = record.gone || record.turned_out || record.cut_at.is_some();
        ensure!(reasons || record.sent_at.is_some(), "over without a reason, and the client has no complete reply");
        let ran = !record.start_failed;
        ensure!(!ran || !record.started || record.status.is_some(), "over, and the leader's exit was not seen");
        Ok(())
    }
}

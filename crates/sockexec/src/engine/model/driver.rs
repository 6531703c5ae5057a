//! The daemon's part: what `daemon/connection.rs` and `daemon/event_loop.rs` do with a session, in the
//! same order.

use std::time::Duration;

use sockexec_proto::{Stream, Usage};

use super::case::Start;
use super::world::{Leader, World, pattern};
use super::{Violation, ensure};
use crate::engine::{Action, Backpressure, Frame, StartError, StartErrorKind, Step, at_most};

/// The number of the program's process, its resource usage, and the daemon's status.
pub(super) const PID: u32 = 4711;
pub(super) const USAGE: Usage = Usage::new(Duration::from_millis(1), Duration::from_millis(2), 3);
pub(super) const STATUS: &[u8] = b"{}";

/// How many requests wait, including this one.
pub(super) const QUEUED: u64 = 7;

/// More rounds than the largest case takes. A daemon that needs more is spinning.
const MANY: usize = 100_000;

/// More actions than one input can ask for.
const MANY_ACTIONS: usize = 12;

impl World<'_> {
    /// The daemon learns what has happened, and does what can be done without waiting.
    ///
    /// # Errors
    /// At the first law that is broken.
    pub fn turn(&mut self) -> Result<(), Violation> {
        if self.is_over() {
            return Ok(());
        }
        self.tell()?;
        for _ in 0..16 {
            // Whether or not the session has set a timer.
            self.look_at_the_clock();
            if self.session.next_timer().is_some_and(|timer| timer <= self.now) {
                self.session.tick(self.now);
            }
            self.serve()?;
            if self.record.over || self.session.next_timer().is_none_or(|timer| timer > self.now) {
                // Worlds that differ only in how they came about must be equal.
                self.record.steps = 0;
                return self.check_turn();
            }
        }
        Err(Violation("a timer stays due: the loop spins".into()))
    }

    /// Events, before timers.
    fn tell(&mut self) -> Result<(), Violation> {
        if self.client.gone && !self.record.gone {
            self.record.gone = true;
            self.give_reason();
            self.session.client_gone(self.now);
        }
        while self.record.orders < self.orders {
            self.record.orders += 1;
            self.before_order();
            if self.record.orders == 1 {
                self.session.shut_down(self.now);
            } else {
                self.session.shut_down_now(self.now);
            }
        }
        if std::mem::take(&mut self.record.reaches) {
            self.reach();
        }
        if self.program.leader == Leader::WithSlot {
            self.perform()?;
            self.take_slot();
        }
        if self.program.leader == Leader::Answered {
            self.perform()?;
            self.answer();
        }
        while self.record.turned_away < self.turned_away {
            self.perform()?;
            self.record.turned_away += 1;
            self.before_turned_away();
            self.session.turn_away(self.now);
        }
        Ok(())
    }

    fn serve(&mut self) -> Result<(), Violation> {
        for _ in 0..MANY {
            let before = self.progress();
            self.perform()?;
            self.pump_request()?;
            self.check_exec()?;
            self.pump_output(Stream::Stdout)?;
            self.pump_output(Stream::Stderr)?;
            self.check_exit();
            self.check_output();
            self.perform()?;
            self.flush()?;
            self.perform()?;
            if self.session.is_over() {
                self.record.over = true;
                return self.check_over();
            }
            if self.progress() == before {
                return Ok(());
            }
        }
        Err(Violation("the connection never comes to rest: the loop spins".into()))
    }

    /// Grows with everything that is done.
    fn progress(&self) -> u64 {
        let client = &self.client;
        let counts = [client.read, client.used, self.program.stdin.delivered];
        counts.into_iter().fold(self.record.steps, |sum, n| sum + n as u64)
            + self.program.stdout.read
            + self.program.stderr.read
    }

    fn perform(&mut self) -> Result<(), Violation> {
        let mut actions = 0;
        while let Some(action) = self.session.next_action() {
            actions += 1;
            ensure!(actions <= MANY_ACTIONS, "more than {MANY_ACTIONS} actions for one input");
            self.record.steps += 1;
            self.check_action(&action)?;
            match action {
                Action::WantSlot if self.case.busy => {
                    self.program.leader = Leader::WithoutSlot;
                    self.session.has_to_wait(QUEUED);
                }
                Action::WantSlot => self.take_slot(),
                Action::Spawn(_) => {
                    self.program.leader = Leader::Starting;
                    if self.case.start != Start::Later {
                        self.answer();
                    }
                }
                Action::CloseStdin => {
                    let stdin = &mut self.program.stdin;
                    stdin.ours = false;
                    self.record.dropped += std::mem::take(&mut stdin.ahead).len();
                }
                Action::Kill => {
                    self.program.kill();
                    if !self.case.kills_late {
                        self.reach();
                    }
                }
                Action::Probe => {
                    if self.case.unknowable {
                        self.session.group_is_unknowable();
                    } else if !self.program.others {
                        self.record.empty = true;
                        self.session.group_is_empty();
                    }
                }
                Action::DrainOutput => {
                    for output in [&mut self.program.stdout, &mut self.program.stderr] {
                        output.left = Some(output.held);
                    }
                }
                Action::CloseOutput => {
                    self.program.stdout.ours = false;
                    self.program.stderr.ours = false;
                }
                Action::Send(bytes) => self.client.queued += bytes.len() as u64,
                Action::Finish => self.record.finishing = true,
                Action::CloseClient => {
                    if self.program.leader == Leader::WithoutSlot {
                        self.program.leader = Leader::Absent;
                    }
                    self.client.queued = 0;
                    self.record.finishing = false;
                }
                Action::EndTerminalInput => self.program.stdin.ended = true,
                // The event loop answers between two turns of the connection.
                Action::TellStatus => self.session.status(STATUS),
                Action::Signal(_)
                | Action::Resize(_)
                | Action::Terminate
                | Action::Reap
                | Action::Report(_)
                | Action::Pinged => {}
            }
        }
        Ok(())
    }

    /// KILL was sent to every member.
    fn reach(&mut self) {
        self.record.reached_at = Some(self.now);
        self.session.killed(self.now);
    }

    fn take_slot(&mut self) {
        self.program.leader = Leader::Absent;
        self.record.slot_at = Some(self.now);
        self.session.slot(self.now);
    }

    /// Tells the session whether the program was started.
    fn answer(&mut self) {
        match self.case.start {
            Start::Fails => {
                self.program.leader = Leader::Absent;
                self.record.start_failed = true;
                self.session.start_failed(&start_error());
            }
            Start::AtOnce | Start::Later | Start::FailsLate => {
                let options = self.understood().options;
                self.program.start(self.case, &options);
                self.before_started();
                self.session.started(self.now);
            }
        }
    }

    fn pump_request(&mut self) -> Result<(), Violation> {
        loop {
            self.release()?;
            if self.client.used < self.client.read {
                self.consume()?;
                if self.client.used < self.client.read && !self.record.closed {
                    return Ok(());
                }
            }
            if self.record.closed || self.record.end_of_file || !self.session.wants_request() {
                return Ok(());
            }
            if self.is_left_in_socket() {
                return Ok(());
            }
            let client = &mut self.client;
            if client.read < client.sent {
                if client.read == 0 && self.case.descriptors > 0 {
                    self.session.descriptors(self.case.descriptors as usize);
                }
                client.read = client.sent.min(client.read + self.case.chunk);
            } else if client.half_closed {
                self.record.end_of_file = true;
                self.session.client_ended(self.now);
                self.perform()?;
            } else {
                return Ok(());
            }
        }
    }

    /// Whether there is no memory for what has come of the request.
    fn is_left_in_socket(&mut self) -> bool {
        if !self.session.awaits_request() {
            return false;
        }
        if self.full && self.client.read < self.client.sent {
            self.record.paused_at.get_or_insert(self.now);
            self.session.pause(self.now);
            return true;
        }
        if let Some(paused_at) = self.record.paused_at.take() {
            self.record.paused += self.now.saturating_sub(paused_at);
            self.record.steps += 1;
            self.session.resume(self.now);
        }
        false
    }

    /// Does with the client's bytes what the session says, as far as the program takes its input.
    fn consume(&mut self) -> Result<(), Violation> {
        loop {
            let case = self.case;
            let bytes = case.request.get(self.client.used..self.client.read).unwrap_or_default();
            let (used, step) = self.session.step(self.now, bytes);
            ensure!(used <= bytes.len(), "used {used} of {} bytes", bytes.len());
            self.client.used += used;
            self.perform()?;
            let rest = bytes.get(used..).unwrap_or_default();
            let moved = match step {
                Step::NeedMore if used == 0 || rest.is_empty() => return Ok(()),
                Step::NeedMore => 0,
                Step::Drop(len) => {
                    self.check_drop(len)?;
                    let n = at_most(rest.len(), len);
                    if !self.record.is_refused() {
                        self.record.dropped += n;
                    }
                    n
                }
                Step::Stdin(len) => {
                    let payload = rest.get(..at_most(rest.len(), len)).unwrap_or_default();
                    let written = if self.program.stdin.ahead.is_empty() { self.write_stdin(payload)? } else { None };
                    match written {
                        Some(written) => written,
                        None => match self.hold(payload)? {
                            0 => return Ok(()),
                            held => {
                                self.client.used += held;
                                continue;
                            }
                        },
                    }
                }
            };
            self.client.used += moved;
            if moved > 0 {
                self.session.moved(moved as u64);
            } else if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Holds input that the program does not read yet, as far as allowed.
    fn hold(&mut self, payload: &[u8]) -> Result<usize, Violation> {
        let room = self.session.room_ahead();
        let ahead = self.program.stdin.ahead.len() as u64;
        ensure!(room == 0 || ahead + room == self.case.limits.window, "{room} beside {ahead} bytes that are held");
        let n = if self.case.reads_ahead { at_most(payload.len(), room) } else { 0 };
        if n > 0 {
            self.program.stdin.ahead.extend_from_slice(payload.get(..n).unwrap_or_default());
            self.record.steps += 1;
            self.session.held(n as u64);
        }
        Ok(n)
    }

    /// Writes what is held.
    fn release(&mut self) -> Result<(), Violation> {
        while !self.program.stdin.ahead.is_empty() {
            let bytes = self.program.stdin.ahead.clone();
            let Some(n) = self.write_stdin(&bytes)? else { return Ok(()) };
            // Nothing is left of it if the input was closed.
            let ahead = &mut self.program.stdin.ahead;
            ahead.drain(..n.min(ahead.len()));
            if n > 0 {
                self.record.steps += 1;
                self.session.released(n as u64);
                self.perform()?;
            }
        }
        Ok(())
    }

    /// Writes to the program's input. `None`: it takes no more for now.
    fn write_stdin(&mut self, bytes: &[u8]) -> Result<Option<usize>, Violation> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let capacity = self.case.pipe;
        let stdin = &mut self.program.stdin;
        ensure!(stdin.ours, "input for a program whose input is closed");
        if !stdin.theirs {
            self.record.input_refused = true;
            self.session.stdin_refused();
            self.perform()?;
            return Ok(Some(0));
        }
        let n = bytes.len().min(capacity - stdin.held);
        if n == 0 {
            return Ok(None);
        }
        self.check_input(bytes.get(..n).unwrap_or_default())?;
        self.program.stdin.held += n;
        self.program.stdin.delivered += n;
        Ok(Some(n))
    }

    /// Tells the session when the program was executed. A failed exec shows in the child's death.
    fn check_exec(&mut self) -> Result<(), Violation> {
        if self.session.wants_executed() && self.program.executed && self.case.start != Start::FailsLate {
            self.record.steps += 1;
            self.record.executed = true;
            self.session.executed(PID);
            self.perform()?;
        }
        Ok(())
    }

    fn pump_output(&mut self, stream: Stream) -> Result<(), Violation> {
        if self.session.wants_executed() {
            ensure!(self.waits_for_exec(), "output is not read although the exec is known");
            return Ok(());
        }
        loop {
            let backpressure = self.session.backpressure();
            self.check_backpressure(backpressure)?;
            let room = match backpressure {
                Backpressure::Discard => true,
                Backpressure::Spool => self.client.queued < self.case.spool,
                Backpressure::Strict => self.client.queued < self.case.strict,
            };
            let most = self.case.chunk;
            let output = self.program.output_mut(stream);
            if !room && output.ours {
                self.session.output_stalls();
            }
            if !room || !output.ours {
                return Ok(());
            }
            let n = output.held.min(most).min(output.left.unwrap_or(most));
            if n > 0 {
                output.held -= n;
                output.left = output.left.map(|left| left - n);
                let first = output.read;
                output.read += n as u64;
                let payload: Vec<u8> = (0..n as u64).map(|i| pattern(stream, first + i)).collect();
                self.queue(stream, &payload)?;
            } else if output.left.is_some() || !output.is_held() {
                output.ours = false;
                self.record.steps += 1;
                self.session.output_closed(stream);
                self.perform()?;
            } else {
                self.before_empty();
                self.session.output_is_empty(self.now);
                return Ok(());
            }
        }
    }

    fn queue(&mut self, stream: Stream, payload: &[u8]) -> Result<(), Violation> {
        let frame = self.session.output(stream, payload.len());
        self.check_frame(stream, payload, frame.as_ref().map(Frame::head))?;
        if let Some(frame) = frame {
            self.program.output_mut(stream).framed += payload.len() as u64;
            self.client.queued += (frame.head().len() + payload.len() + 1) as u64;
        }
        Ok(())
    }

    fn check_exit(&mut self) {
        // The event that reports the exec also reports a death before it.
        let is_dead = matches!(self.program.leader, Leader::Dead(_));
        if !(self.session.wants_exit() || self.session.wants_executed() && is_dead) {
            return;
        }
        if let Leader::Dead(status) = self.program.leader {
            self.record.steps += 1;
            if self.case.start == Start::FailsLate {
                self.record.start_failed = true;
                self.session.start_failed(&start_error());
            } else if self.session.wants_executed() && !self.program.executed {
                self.record.start_failed = true;
                self.session.start_failed(&unexecuted());
            } else {
                self.record.executed = true;
                self.session.executed(PID);
                self.record.status = Some(status);
                self.record.exited_at = Some(self.now);
                self.session.exited(self.now, status, Some(USAGE));
            }
        }
    }

    /// Tells the session if no process can write output any more.
    fn check_output(&mut self) {
        if self.session.wants_output_complete() && !self.is_output_held() {
            self.record.steps += 1;
            self.session.output_is_complete();
        }
    }

    /// Whether a process has the other end of an output stream that the daemon has.
    pub(super) fn is_output_held(&self) -> bool {
        [&self.program.stdout, &self.program.stderr].into_iter().any(|output| output.ours && output.is_held())
    }

    fn flush(&mut self) -> Result<(), Violation> {
        if self.record.closed {
            return Ok(());
        }
        self.put_report()?;
        let client = &mut self.client;
        let n = client.queued.min(client.room);
        client.queued -= n;
        client.report = client.report.saturating_sub(n);
        if client.room != u64::MAX {
            client.room -= n;
        }
        self.record.steps += n;
        if client.queued == 0 && self.record.finishing {
            self.record.finishing = false;
            self.record.sent_at = Some(self.now);
            self.record.steps += 1;
            self.session.sent(self.now);
        }
        Ok(())
    }

    /// Queues a report of the input that has left, if no other report is queued.
    fn put_report(&mut self) -> Result<(), Violation> {
        if self.client.report == 0
            && let Some(report) = self.session.report()
        {
            self.record.steps += 1;
            self.check_report(&report)?;
            self.client.queued += report.len() as u64;
            self.client.report = self.client.queued;
        }
        Ok(())
    }
}

/// The error of a program that died before it was executed.
pub(super) fn unexecuted() -> StartError {
    StartError { kind: StartErrorKind::Failed, about: None, reason: "died before".into() }
}

pub(super) fn start_error() -> StartError {
    StartError { kind: StartErrorKind::NotFound, about: None, reason: "No such file or directory".into() }
}

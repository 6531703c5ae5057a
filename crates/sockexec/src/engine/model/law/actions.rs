//! What the session may ask for.

use sockexec_proto::request::Request;

use super::{CUT, DRAIN};
use crate::engine::Action;
use crate::engine::model::world::World;
use crate::engine::model::{Violation, ensure};

impl World<'_> {
    pub(in crate::engine::model) fn check_action(&mut self, action: &Action) -> Result<(), Violation> {
        match action {
            Action::WantSlot => {
                let record = &self.record;
                ensure!(!record.wants_slot && !record.closed && !record.told, "a slot too often or too late");
                ensure!(self.understood().argv.is_some(), "a slot for a request that is not complete");
                self.record.wants_slot = true;
            }
            Action::Pinged => {
                ensure!(self.understood().is_ping && !self.record.told, "no ping");
                ensure!(self.record.introduced, "a ping without an answer");
                // This was the whole reply.
                self.record.told = true;
            }
            Action::Spawn(request) => self.check_spawn(request)?,
            Action::CloseStdin => self.check_close_stdin()?,
            Action::Terminate => {
                self.check_signal("TERM")?;
                ensure!(self.record.reason, "TERM without a reason");
                ensure!(self.record.terminated_at.is_none(), "TERM twice");
                // TERM comes with CONT. A STOP after that would keep the program from acting on TERM.
                let overtaken = self.record.status.is_none() && self.record.signals < self.used().signals.len();
                ensure!(!overtaken, "TERM before a signal that the client has sent before");
                self.record.terminated_at = Some(self.now);
            }
            Action::Kill => {
                self.check_signal("KILL")?;
                ensure!(!self.record.killed, "KILL twice");
                ensure!(self.kill_at().is_some_and(|at| at <= self.now), "KILL before it is due");
                self.record.killed = true;
                // At the end of the turn, a group that obeys is dead.
                if self.record.status.is_none() {
                    self.check_state()?;
                }
            }
            Action::Probe => {
                self.check_signal("a probe")?;
                ensure!(self.record.status.is_some(), "a probe while the leader lives");
                ensure!(
                    self.record.terminated_at.is_some() && !self.record.killed,
                    "a probe without an end to wait for"
                );
            }
            Action::Reap => self.check_reap()?,
            Action::DrainOutput => {
                ensure!(!self.record.drained, "output drained twice");
                let from = if self.record.killed { self.record.reached_at } else { self.kill_at() };
                ensure!(from.is_some_and(|at| at + DRAIN <= self.now), "output drained too early");
                self.record.drained = true;
            }
            Action::CloseOutput => {
                let reaped = self.record.reaped || !self.record.started;
                let unwanted = self.record.closed && reaped || self.record.start_failed;
                ensure!(unwanted, "output closed that is still wanted");
            }
            Action::Send(bytes) if self.speaks_2() => self.check_words_2(bytes)?,
            Action::Send(bytes) => self.check_last_words(bytes)?,
            Action::Report(error) => {
                ensure!(self.understood().error.as_ref() == Some(error), "a false report: {error}");
                if self.record.error_told {
                    self.record.refused_late = true;
                } else {
                    self.record.refused = Some(error.clone());
                }
                if self.record.started {
                    self.give_reason();
                    self.cut_by(self.now + self.case.limits.kill_timeout + CUT);
                }
            }
            Action::Finish => {
                ensure!(self.record.told && !self.record.finish_asked, "Finish too early or twice");
                self.record.finish_asked = true;
            }
            Action::EndTerminalInput => self.check_end_of_terminal_input()?,
            Action::Signal(number) => {
                self.check_signal("a signal of the client's")?;
                ensure!(self.record.executed, "a signal of the client's before the exec");
                self.check_signal_in_order(*number)?;
                self.record.signals += 1;
            }
            Action::Resize(size) => {
                let understood = self.understood();
                ensure!(self.record.started && understood.options.pty.is_some(), "a size without a terminal");
                ensure!(understood.sizes.get(self.record.sizes) == Some(size), "{size}, of {:?}", understood.sizes);
                self.record.sizes += 1;
            }
            Action::TellStatus => {
                ensure!(self.understood().asks_for_status && !self.record.told, "a status that was not asked for");
            }
            Action::CloseClient => {
                ensure!(!self.record.closed, "the client is closed twice");
                ensure!(self.may_close(), "the client is closed too early");
                self.record.closed = true;
            }
        }
        Ok(())
    }

    fn check_spawn(&mut self, request: &Request) -> Result<(), Violation> {
        let argv = &request.argv;
        ensure!(self.understood().options == request.options, "Spawn with other options: {:?}", request.options);
        ensure!(!self.record.spawned && !self.record.closed && !self.record.told, "Spawn too often or too late");
        ensure!(self.record.slot_at.is_some(), "Spawn without a slot");
        ensure!(self.understood().argv.as_ref() == Some(argv), "Spawn of what was not asked for: {argv:?}");
        self.record.spawned = true;
        Ok(())
    }

    fn check_end_of_terminal_input(&mut self) -> Result<(), Violation> {
        let understood = self.understood();
        ensure!(understood.options.pty.is_some(), "the end of a terminal's input for a pipe");
        ensure!(!self.record.input_ended, "the end of a terminal's input twice");
        ensure!(understood.end.is_some(), "the end of a terminal's input that goes on");
        let missing = understood.stdin.len() - self.program.stdin.delivered;
        ensure!(missing == 0, "the end of a terminal's input with {missing} bytes missing");
        self.record.input_ended = true;
        Ok(())
    }

    /// A group is signalled only while its number cannot be another group's.
    fn check_signal(&self, what: &str) -> Result<(), Violation> {
        let record = &self.record;
        ensure!(record.started, "{what} without a program");
        ensure!(!record.reaped && !record.empty, "{what} to a group that is gone");
        Ok(())
    }

    /// A client's signal comes once the daemon has taken the input before it, and keeps its place among the
    /// sizes.
    fn check_signal_in_order(&self, number: i32) -> Result<(), Violation> {
        let (record, stdin) = (&self.record, &self.program.stdin);
        let signals = self.understood().signals;
        let said = signals.get(record.signals).filter(|said| said.number == number);
        let Some(said) = said else { return Err(Violation(format!("signal {number}, of {signals:?}"))) };
        let taken = stdin.delivered + stdin.ahead.len();
        let waited = taken == said.stdin || !stdin.ours && taken < said.stdin;
        ensure!(waited, "signal {number} after {taken} bytes of input, instead of {}", said.stdin);
        ensure!(record.sizes == said.sizes, "signal {number} after {} sizes, instead of {}", record.sizes, said.sizes);
        Ok(())
    }

    fn check_reap(&mut self) -> Result<(), Violation> {
        // Closed, or no process can write any more and the client has not read everything yet.
        let streams_ended = !self.is_output_held();
        let record = &mut self.record;
        ensure!(record.started && !record.reaped, "reaped twice, or without a program");
        ensure!(record.status.is_some() || record.start_failed, "reaped while the leader lives");
        let done = match record.terminated_at {
            None => streams_ended,
            // A member that is left must get KILL.
            Some(_) => record.reached_at.is_some() || record.empty,
        };
        ensure!(done || record.start_failed, "reaped while its group may still have to be signalled");
        record.reaped = true;
        Ok(())
    }

    fn check_close_stdin(&self) -> Result<(), Violation> {
        let record = &self.record;
        ensure!(self.program.stdin.ours, "standard input closed twice");
        let cut = record.input_refused || record.gone || record.is_refused() || record.told || record.start_failed;
        if !cut && !self.record.closed {
            let understood = self.understood();
            ensure!(understood.options.pty.is_none(), "a terminal's input is closed while the program has it");
            ensure!(understood.end.is_some(), "standard input closed before its end");
            let missing = understood.stdin.len() - self.program.stdin.delivered;
            ensure!(missing == 0, "standard input closed with {missing} bytes missing");
        }
        Ok(())
    }

    fn may_close(&self) -> bool {
        let record = &self.record;
        let cut = record.cut_at.is_some_and(|cut| cut <= self.now);
        // Every client whose version is known is told about the shutdown. Version 1 has no words for a request
        // that comes too late.
        let answerable = record.ordered_at.is_some() && self.has_said_version();
        let nothing_asked = record.timed_out && !record.spawned && !record.told && !answerable;
        let done = self.last_moment().is_some_and(|last| self.request_ended() || last <= self.now);
        record.gone || record.turned_out || cut || nothing_asked || done
    }
}

//! The promises of version 2: its words, and what the client must have been told at the end of a turn.

use sockexec_proto::reply::{Event, Exit, Signal};
use sockexec_proto::{ErrorCode, Failure, Stream, Version};

use super::{BUSY, place, read_pairs};
use crate::engine::ExitStatus;
use crate::engine::model::case::Start;
use crate::engine::model::driver::{PID, QUEUED, STATUS, USAGE, start_error, unexecuted};
use crate::engine::model::world::World;
use crate::engine::model::{Violation, ensure};

impl World<'_> {
    /// What version 2 sends between output or in its place.
    pub(super) fn check_words_2(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        ensure!(!self.record.told && !self.record.closed, "words after the end of the reply, or without a client");
        let said = read_words(bytes)?;
        let begun = self.record.introduced || matches!(said.as_slice(), [Event::Introduction(_)]);
        ensure!(begun, "{said:?} before the introduction");
        if said.iter().any(|event| matches!(event, Event::Failure(_))) {
            ensure!(!std::mem::replace(&mut self.record.error_told, true), "two errors");
        }
        let record = &mut self.record;
        match said.as_slice() {
            [Event::Introduction(introduction)] => {
                ensure!(!std::mem::replace(&mut record.introduced, true), "introduced twice");
                ensure!(introduction.version == 2, "version {}", introduction.version);
                // The least window that a client may rely on is larger than all input here.
                Ok(())
            }
            [Event::Queued(QUEUED)] => {
                let true_now = record.wants_slot && record.slot_at.is_none();
                ensure!(true_now && !std::mem::replace(&mut record.queued_told, true), "queued twice, or for nothing");
                Ok(())
            }
            [Event::InputClosed] => {
                ensure!(record.input_refused && record.status.is_none(), "input-closed, and it is not, or too late");
                ensure!(record.started_told, "input-closed before `started`");
                ensure!(!std::mem::replace(&mut record.input_closed_told, true), "input-closed twice");
                Ok(())
            }
            [Event::Started(PID)] => {
                ensure!(record.executed && !record.started_told, "started too early, or twice");
                ensure!(self.program.executed, "started, and it was not executed");
                ensure!(self.program.stdout.framed + self.program.stderr.framed == 0, "started after output");
                record.started_told = true;
                Ok(())
            }
            [Event::EndOfOutput(stream)] => self.check_end_of_output(*stream),
            [Event::Failure(Failure { code, .. })]
                if record.started_told && matches!(code, ErrorCode::Timeout | ErrorCode::Shutdown) =>
            {
                self.check_why(code)
            }
            _ => {
                self.record.told = true;
                self.check_last_words_2(&said)
            }
        }
    }

    /// "N bytes of standard input in all have left the daemon": exactly as many, and at least half a window
    /// more than the last time.
    pub(in crate::engine::model) fn check_report(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        ensure!(!self.record.told && !self.record.closed, "a report after the end of the reply, or without a client");
        ensure!(self.record.started_told && !self.record.input_closed_told, "a report too early, or too late");
        let left = self.left();
        let said = read_words(bytes)?;
        ensure!(said == [Event::Taken(left as u64)], "{said:?}, and {left} bytes of input have left");
        ensure!(left - self.record.reported >= self.half_a_window(), "a report after {}", self.record.reported);
        self.record.reported = left;
        Ok(())
    }

    /// How much input has left the daemon.
    fn left(&self) -> usize {
        self.program.stdin.delivered + self.record.dropped
    }

    fn half_a_window(&self) -> usize {
        usize::try_from(self.case.limits.window / 2).unwrap_or(usize::MAX).max(1)
    }

    fn check_end_of_output(&mut self, stream: Stream) -> Result<(), Violation> {
        let options = self.understood().options;
        let is_one = options.stderr_to_stdout || options.pty.is_some();
        ensure!(
            !(options.descriptors || is_one && stream == Stream::Stderr),
            "the end of a stream that does not exist"
        );
        let output = self.program.output(stream);
        ensure!(!output.ours, "the end of a stream that goes on");
        ensure!(output.framed == output.read, "{} bytes of output lost", output.read - output.framed);
        let left = if self.record.drained { 0 } else { output.held };
        ensure!(left == 0, "{left} bytes of output left in the pipe");
        ensure!(self.record.started_told, "the end of output before `started`");
        ensure!(!std::mem::replace(&mut self.record.ended_told[place(stream)], true), "an end twice");
        Ok(())
    }

    /// The reason must be true.
    fn check_why(&self, code: &ErrorCode) -> Result<(), Violation> {
        let is_true = match code {
            ErrorCode::Shutdown => self.record.ordered_at.is_some(),
            _ => self.deadline().is_some_and(|deadline| deadline <= self.now),
        };
        ensure!(is_true && self.record.timed_out, "{code} is not true");
        Ok(())
    }

    fn check_last_words_2(&mut self, said: &[Event]) -> Result<(), Violation> {
        let record = &self.record;
        let understood = self.understood();
        let failed = |code, text: &[u8]| vec![Event::Failure(Failure::new(code, text.to_vec()))];
        let expected = match (&record.refused, record.status) {
            _ if record.busy => failed(ErrorCode::Busy, BUSY.as_bytes()),
            (Some(error), _) => {
                ensure!(
                    record.started_told == record.executed,
                    "a bad request before it is known whether there is a program"
                );
                failed(ErrorCode::BadRequest, error.to_string().as_bytes())
            }
            (None, _) if record.start_failed => {
                let argv = understood.argv.unwrap_or_default();
                let name = argv.first().map(|name| name.to_bytes().to_vec()).unwrap_or_default();
                let name = name.get(..4096).unwrap_or(&name);
                ensure!(!record.started_told, "a start error after `started`");
                // The first cause counts.
                if record.timed_out {
                    return match said {
                        [Event::Failure(Failure { code, .. })] => self.check_why(code),
                        _ => Err(Violation(format!("{said:?}, and the time is up"))),
                    };
                }
                let (code, error) = match self.case.start {
                    Start::Fails | Start::FailsLate => (ErrorCode::NotFound, start_error()),
                    Start::AtOnce | Start::Later => (ErrorCode::SpawnFailed, unexecuted()),
                };
                failed(code, &[name, b": ", error.reason.as_bytes()].concat())
            }
            (None, Some(status)) => {
                for stream in [&self.program.stdout, &self.program.stderr] {
                    ensure!(!stream.ours, "the exit pair comes before the end of the output");
                }
                let options = &understood.options;
                let streams = match (options.descriptors, options.stderr_to_stdout || options.pty.is_some()) {
                    (true, _) => [false, false],
                    (false, true) => [true, false],
                    (false, false) => [true, true],
                };
                ensure!(record.ended_told == streams, "the ends of {:?} were told", record.ended_told);
                ensure!(record.started_told, "an exit without `started`");
                let exit = match status {
                    ExitStatus::Code(code) => Exit::Code(code),
                    ExitStatus::Signal(number) => Exit::Signal(Signal::Number(number)),
                };
                vec![Event::Usage(USAGE), Event::Exit(exit)]
            }
            // The outcome of the exec is unknown, and the session waits for it no longer.
            (None, None) if record.spawned && record.drained && !record.executed => {
                return match said {
                    [Event::Failure(Failure { code, .. })] => self.check_why(code),
                    _ => Err(Violation(format!("{said:?} before the exec is known"))),
                };
            }
            (None, None) if record.spawned => return Err(Violation(format!("{said:?} before the exit"))),
            (None, None) if understood.asks_for_status && !record.timed_out => {
                vec![Event::Status(STATUS.len() as u64)]
            }
            (None, None) => match said {
                [Event::Failure(Failure { code, .. })] => {
                    self.record.too_late = true;
                    return self.check_why(code);
                }
                [Event::Status(_)] if understood.asks_for_status => return Ok(()),
                _ => return Err(Violation(format!("{said:?} for no reason"))),
            },
        };
        ensure!(said == expected, "{said:?} instead of {expected:?}");
        Ok(())
    }

    pub(super) fn check_turn_2(&self) -> Result<(), Violation> {
        let record = &self.record;
        if !self.speaks_2() {
            let told = record.introduced || record.queued_told || record.input_closed_told || record.reported > 0;
            let version_2 = told || record.started_told || record.ended_told != [false; 2] || record.error_told;
            ensure!(!version_2 && record.signals + record.sizes == 0, "version 2 for a client of version 1");
            return Ok(());
        }
        let understood = self.used();
        if record.started && record.status.is_none() && !record.is_refused() && !record.start_failed {
            ensure!(record.signals == understood.signals.len(), "{} of {:?}", record.signals, understood.signals);
            ensure!(record.sizes == understood.sizes.len(), "of {:?} {} were set", understood.sizes, record.sizes);
        }
        let ahead = self.program.stdin.ahead.len();
        ensure!(ahead as u64 <= self.case.limits.window, "{ahead} bytes of input are held");
        ensure!(ahead == 0 || self.program.stdin.held == self.case.pipe, "input is held that the program would take");
        if record.closed || record.told {
            return Ok(());
        }
        ensure!(record.introduced, "no introduction");
        ensure!(
            record.queued_told == (record.wants_slot && self.case.busy),
            "the client was not told that the request waits"
        );
        ensure!(record.started_told == record.executed, "the client was not told that the program was executed");
        ensure!(
            !record.timed_out || record.error_told || !record.executed,
            "the program is cut short, and the client was not told why"
        );
        ensure!(
            record.input_closed_told || !record.input_refused || record.status.is_some(),
            "the program has closed its input, and the client was not told"
        );
        let is_due = self.left() - record.reported >= self.half_a_window() && !record.input_closed_told;
        ensure!(!is_due || !record.executed || self.client.report > 0, "a report is due, and none is queued");
        for stream in [Stream::Stdout, Stream::Stderr] {
            let output = self.program.output(stream);
            let was_ours = record.started && (output.read > 0 || output.ours || record.ended_told[place(stream)]);
            ensure!(
                output.ours || !was_ours || record.ended_told[place(stream)],
                "the client was not told the end of a stream"
            );
        }
        Ok(())
    }
}

/// Returns the pairs of version 2 in `bytes`, none of which is output.
fn read_words(bytes: &[u8]) -> Result<Vec<Event>, Violation> {
    let mut said = Vec::new();
    for (event, payload) in read_pairs(Version::Two, bytes)? {
        match event {
            Event::Output(..) | Event::Unknown(_) => return Err(Violation(format!("{event:?} from the session"))),
            Event::Status(_) => ensure!(payload == STATUS, "a status that the daemon did not give: {payload:?}"),
            _ => {}
        }
        said.push(event);
    }
    Ok(said)
}

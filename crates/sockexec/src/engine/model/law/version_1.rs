//! The last words of version 1: the exit pair, or a reason and the exit pair.

use sockexec_proto::reply::{Event, Exit, Signal};
use sockexec_proto::{Stream, Version};

use super::{BUSY, SHUTDOWN, name_of, read_pairs};
use crate::engine::model::driver::start_error;
use crate::engine::model::world::World;
use crate::engine::model::{Violation, ensure};
use crate::engine::{ExitStatus, TermSig};

impl World<'_> {
    /// The exit pair, or a reason and the exit pair.
    pub(super) fn check_last_words(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        ensure!(!self.record.told, "the reply is ended twice");
        ensure!(!self.record.closed, "an end of the reply without a client");
        self.record.told = true;
        let said = read_pairs(Version::One, bytes)?;
        let expected = match (&self.record.refused, self.record.status) {
            _ if self.record.busy => failure(BUSY, 125),
            (Some(error), _) => failure(&format!("bad request: {error}"), 125),
            (None, _) if self.record.start_failed => {
                let argv = self.understood().argv.unwrap_or_default();
                let name = argv.first().map(|name| name.to_bytes().to_vec()).unwrap_or_default();
                let error = start_error();
                let mut text = b"sockexec: ".to_vec();
                text.extend_from_slice(name.get(..4096).unwrap_or(&name));
                text.extend_from_slice(format!(": {}\n", error.reason).as_bytes());
                in_place_of_output(text, 127)
            }
            (None, Some(status)) => {
                for stream in [&self.program.stdout, &self.program.stderr] {
                    ensure!(!stream.ours, "the exit pair comes before the end of the output");
                    ensure!(stream.framed == stream.read, "{} bytes of output lost", stream.read - stream.framed);
                    let left = if self.record.drained { 0 } else { stream.held };
                    ensure!(left == 0, "{left} bytes of output left in the pipe");
                }
                vec![(Event::Exit(self.exit_of(status)), vec![])]
            }
            (None, None) if self.record.ordered_at.is_some() && !self.record.spawned => {
                self.record.too_late = true;
                failure(SHUTDOWN, 125)
            }
            (None, None) => return Err(Violation("an exit pair before the exit".into())),
        };
        ensure!(said == expected, "{said:?} instead of {expected:?}");
        Ok(())
    }

    fn exit_of(&self, status: ExitStatus) -> Exit {
        match (status, self.case.limits.termsig) {
            (ExitStatus::Code(code), _) => Exit::Code(code),
            (ExitStatus::Signal(number), TermSig::Number) => Exit::Signal(Signal::Number(number)),
            (ExitStatus::Signal(number), TermSig::Name) => Exit::Signal(match name_of(number) {
                Some(name) => Signal::Name(name.into()),
                None => Signal::Number(number),
            }),
        }
    }
}

/// A reason in the words of the daemon, and an exit code.
fn failure(text: &str, code: u8) -> Vec<(Event, Vec<u8>)> {
    in_place_of_output(format!("sockexec: {text}\n").into_bytes(), code)
}

fn in_place_of_output(text: Vec<u8>, code: u8) -> Vec<(Event, Vec<u8>)> {
    let reason = Event::Output(Stream::Stderr, text.len() as u64);
    vec![(reason, text), (Event::Exit(Exit::Code(code)), vec![])]
}

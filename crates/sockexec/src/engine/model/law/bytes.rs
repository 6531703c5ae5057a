//! Which bytes of input and output are moved, and which are dropped.

use sockexec_proto::reply::Event;
use sockexec_proto::{Stream, Version};

use super::{place, read_pairs};
use crate::engine::Backpressure;
use crate::engine::model::world::World;
use crate::engine::model::{Violation, ensure};

impl World<'_> {
    /// The client's input is dropped only if the program cannot read it.
    pub(in crate::engine::model) fn check_drop(&self, len: u64) -> Result<(), Violation> {
        let unwanted = !self.program.stdin.ours || self.record.is_refused() || self.record.input_ended;
        ensure!(unwanted && len > 0, "{len} bytes of input are dropped that the program may read");
        Ok(())
    }

    /// The program gets what the client sent, in order.
    pub(in crate::engine::model) fn check_input(&self, bytes: &[u8]) -> Result<(), Violation> {
        let understood = self.understood();
        let at = self.program.stdin.delivered;
        let expected = understood.stdin.get(at..at + bytes.len());
        ensure!(expected == Some(bytes), "wrong input at byte {at}: {bytes:?} for {expected:?}");
        Ok(())
    }

    pub(in crate::engine::model) fn check_backpressure(&self, asked: Backpressure) -> Result<(), Violation> {
        let record = &self.record;
        if record.closed || record.told {
            ensure!(asked == Backpressure::Discard, "{asked:?} without a client to send to");
        } else if self.program.stdin.ours && !record.end_of_file && !self.speaks_2() {
            ensure!(asked == Backpressure::Spool, "{asked:?} while the client may be sending");
        } else {
            ensure!(asked == Backpressure::Strict, "{asked:?} while the client only reads");
        }
        Ok(())
    }

    /// Output goes out as it was written, or not at all if the client cannot read it.
    pub(in crate::engine::model) fn check_frame(
        &self,
        stream: Stream,
        payload: &[u8],
        head: Option<&[u8]>,
    ) -> Result<(), Violation> {
        let is_over = self.record.closed || self.record.told;
        let Some(head) = head else {
            ensure!(is_over, "output is dropped that the client may read");
            return Ok(());
        };
        ensure!(!is_over, "output after the end of the reply");
        if self.speaks_2() {
            ensure!(self.record.started_told, "output before `started`");
            ensure!(!self.record.ended_told[place(stream)], "output after the end of its stream");
        }
        let frame = [head, payload, b","].concat();
        let read = read_pairs(Version::One, &frame)?;
        let expected = [(Event::Output(stream, payload.len() as u64), payload.to_vec())];
        ensure!(read == expected, "a frame that says something else: {read:?}");
        Ok(())
    }
}

//! Low descriptor numbers, reserved for programs on their way to exec.
//!
//! clone(2) copies the table of descriptors, and the child closes the copies again: of 1,600 beside 400 programs, which took half of
//! the daemon's rate. A child that shares the table at first (`CLONE_FILES`) and leaves it by
//! `close_range(cut, ~0, CLOSE_RANGE_UNSHARE)` copies only what is below `cut` (Linux 5.9). So its streams have to be below: they are put at
//! numbers that were reserved when the daemon had few others, and stay there until the child has left.
//! Let go of earlier, the child would not have them; later, the end of the output would not be seen, as the daemon is a writer too. So the child
//! tells by an event, and by a mark in the memory that is shared.
//!
//! Rejected: to wait for that (a futex), which costs a third of the rate where there are few descriptors.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{DupFlags, dup3, fcntl_dupfd_cloexec, retry_on_intr};

use super::raw::launch::{Outcome, SharedTable};

/// How many children may share the table at once, which each does for some microseconds. Others copy it whole.
const ROWS: usize = 16;

/// The numbers of one child: its standard streams, and what tells of its exec.
const ROW: usize = 4;

/// How many descriptors this needs.
pub(crate) const DESCRIPTORS: u64 = (ROWS * ROW) as u64 + 1;

/// How soon to look whether a child that was to leave the table has died before: nothing tells of that.
const LOOK: Duration = Duration::from_millis(100);

/// The numbers for one child. What nobody uses is a copy of the eventfd.
#[derive(Debug)]
pub(crate) struct Row([OwnedFd; ROW]);

impl Row {
    /// The child's standard streams.
    pub(crate) fn streams(&self) -> [BorrowedFd<'_>; 3] {
        let [stdin, stdout, stderr, _] = &self.0;
        [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]
    }

    /// What is told of its exec.
    pub(crate) fn watch(&self) -> BorrowedFd<'_> {
        let [.., watch] = &self.0;
        watch.as_fd()
    }

    fn put(&mut self, descriptors: [BorrowedFd<'_>; ROW]) -> io::Result<()> {
        for (descriptor, number) in descriptors.into_iter().zip(&mut self.0) {
            retry_on_intr(|| dup3(descriptor, number, DupFlags::CLOEXEC))?;
        }
        Ok(())
    }
}

/// All rows.
#[derive(Debug)]
pub(crate) struct Reserve {
    /// Children write to it.
    event: OwnedFd,
    cut: RawFd,
    free: Vec<Row>,
    lent: Vec<(Arc<Outcome>, Row)>,
}

impl Reserve {
    /// Reserves the lowest numbers that are free, above those of the standard streams.
    ///
    /// # Errors
    /// Those of eventfd(2) and fcntl(2): no descriptors to be had.
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let mut cut = event.as_raw_fd() + 1;
        let mut reserved = || -> io::Result<OwnedFd> {
            let number = fcntl_dupfd_cloexec(&event, 3)?;
            cut = cut.max(number.as_raw_fd() + 1);
            Ok(number)
        };
        let mut free = Vec::with_capacity(ROWS);
        for _ in 0..ROWS {
            free.push(Row([reserved()?, reserved()?, reserved()?, reserved()?]));
        }
        Ok(Self { event, cut, free, lent: Vec::new() })
    }

    /// Becomes readable when a child has left the table.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// How a child leaves the table.
    pub(crate) fn table(&self) -> SharedTable {
        SharedTable { cut: self.cut, event: self.event.as_raw_fd() }
    }

    /// Puts the descriptors of a child at numbers of its own. `None`: there are none, or the system refuses it.
    pub(crate) fn put(&mut self, streams: [BorrowedFd<'_>; 3], watch: Option<BorrowedFd<'_>>) -> Option<Row> {
        let mut row = self.free.pop()?;
        let [stdin, stdout, stderr] = streams;
        match row.put([stdin, stdout, stderr, watch.unwrap_or(self.event.as_fd())]) {
            Ok(()) => Some(row),
            Err(error) => {
                log::debug!("cannot use the reserved descriptors: {error}");
                self.give_back(row);
                None
            }
        }
    }

    /// Keeps a row until the child has left the table, or is dead.
    pub(crate) fn lend(&mut self, row: Row, child: Arc<Outcome>) {
        self.lent.push((child, row));
    }

    /// Nobody uses it.
    pub(crate) fn give_back(&mut self, mut row: Row) {
        // Refused, the numbers are lost, and what was at them is closed.
        if row.put([self.event.as_fd(); ROW]).is_ok() {
            self.free.push(row);
        }
    }

    /// Takes back what was lent to children that have left the table.
    pub(crate) fn collect(&mut self) {
        let mut at = 0;
        while let Some((child, _)) = self.lent.get(at) {
            if child.has_own_table() {
                let (_, row) = self.lent.swap_remove(at);
                self.give_back(row);
            } else {
                at += 1;
            }
        }
    }

    /// In what time to [collect](Reserve::collect) if nothing happens before.
    pub(crate) fn next_look(&self) -> Option<Duration> {
        (!self.lent.is_empty()).then_some(LOOK)
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        self.collect();
        if !self.lent.is_empty() {
            // Children are still in this table, and go by these numbers: nothing else may come to be there.
            std::mem::forget(std::mem::take(&mut self.lent));
            if let Ok(copy) = self.event.try_clone() {
                std::mem::forget(std::mem::replace(&mut self.event, copy));
            }
        }
    }
}

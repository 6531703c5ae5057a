//! Low descriptor numbers, reserved for children until their exec.
//!
//! clone(2) copies the descriptor table, and the child closes the copies again: 1,600 of them beside 400
//! programs, which took half of the daemon's rate. A child that shares the table at first (`CLONE_FILES`) and
//! leaves it by `close_range(cut, ~0, CLOSE_RANGE_UNSHARE)` copies only what is below `cut` (Linux 5.9). So
//! its streams must be below `cut`. They are put at numbers that were reserved when the daemon had few
//! others, and stay there until the child has left. Released earlier, the child would not have them. Released
//! later, the end of the output would not be seen, as the daemon is a writer too. So the child reports that
//! it has left, by an event and by a mark in the shared memory.
//!
//! Rejected: waiting for that (a futex), which costs a third of the rate if there are few descriptors.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{DupFlags, dup3, fcntl_dupfd_cloexec, retry_on_intr};

use super::raw::launch::{Outcome, SharedTable};

/// How many children may share the table at once, for some microseconds each. Others copy the whole table.
const ROWS: usize = 16;

/// The numbers of one child: its standard streams, and its watch.
const ROW: usize = 4;

/// How many descriptors this needs.
pub(crate) const DESCRIPTORS: u64 = (ROWS * ROW) as u64 + 1;

/// How soon to look whether a child has died before it left the table, as nothing reports that.
const LOOK: Duration = Duration::from_millis(100);

/// The numbers for one child. An unused one is a copy of the eventfd.
#[derive(Debug)]
pub(crate) struct Row([OwnedFd; ROW]);

impl Row {
    /// The child's standard streams.
    pub(crate) fn streams(&self) -> [BorrowedFd<'_>; 3] {
        let [stdin, stdout, stderr, _] = &self.0;
        [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]
    }

    /// The child's end of the watch that shows its exec.
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
    /// Those of eventfd(2) and fcntl(2): no descriptors are left.
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

    /// Puts a child's descriptors at reserved numbers. `None`: none are free, or the system refuses.
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

    /// Takes back a row that no child uses.
    pub(crate) fn give_back(&mut self, mut row: Row) {
        // If this is refused, the numbers are lost, and what was at them is closed.
        if row.put([self.event.as_fd(); ROW]).is_ok() {
            self.free.push(row);
        }
    }

    /// Takes back the rows of children that have left the table.
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

    /// How long to wait at most before the next [collect](Reserve::collect).
    pub(crate) fn next_look(&self) -> Option<Duration> {
        (!self.lent.is_empty()).then_some(LOOK)
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        self.collect();
        if !self.lent.is_empty() {
            // Children are still in this table and use these numbers: nothing else may take them.
            std::mem::forget(std::mem::take(&mut self.lent));
            if let Ok(copy) = self.event.try_clone() {
                std::mem::forget(std::mem::replace(&mut self.event, copy));
            }
        }
    }
}

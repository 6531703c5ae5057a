//! Other systems cannot share a descriptor table with a child for a moment, so nothing is reserved.

use std::convert::Infallible;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::raw::launch::{Outcome, SharedTable};

pub(crate) const DESCRIPTORS: u64 = 0;

/// Cannot exist here.
#[derive(Debug)]
pub(crate) struct Row(Infallible);

impl Row {
    pub(crate) fn streams(&self) -> [BorrowedFd<'_>; 3] {
        match self.0 {}
    }

    pub(crate) fn watch(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

/// Cannot exist here.
#[derive(Debug)]
pub(crate) struct Reserve(Infallible);

impl Reserve {
    /// # Errors
    /// Always.
    pub(crate) fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }

    pub(crate) fn table(&self) -> SharedTable {
        match self.0 {}
    }

    pub(crate) fn put(&mut self, _streams: [BorrowedFd<'_>; 3], _watch: Option<BorrowedFd<'_>>) -> Option<Row> {
        match self.0 {}
    }

    pub(crate) fn lend(&mut self, _row: Row, _child: Arc<Outcome>) {
        match self.0 {}
    }

    pub(crate) fn give_back(&mut self, _row: Row) {
        match self.0 {}
    }

    pub(crate) fn collect(&mut self) {
        match self.0 {}
    }

    pub(crate) fn next_look(&self) -> Option<Duration> {
        match self.0 {}
    }
}

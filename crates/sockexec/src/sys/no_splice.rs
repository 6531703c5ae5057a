//! Systems without splice(2): everything is copied.

use std::os::fd::{AsFd, BorrowedFd};

use crate::engine::Frame;

/// As on Linux.
pub(crate) const SPLICE_MIN: usize = usize::MAX;

/// As on Linux.
#[derive(Debug)]
#[expect(dead_code, reason = "nothing is ever spliced here")]
pub(crate) enum Spliced {
    Sent(usize),
    Rest { sent: usize, rest: Vec<u8>, cut: usize },
    WouldBlock,
    End,
    Unable,
}

/// As on Linux.
#[derive(Debug)]
#[expect(dead_code, reason = "nothing is ever spliced here")]
pub(crate) enum Received {
    Bytes(usize),
    WouldBlock { socket: bool, pipe: bool },
    SocketEnd,
    PipeEnd,
    Unable,
}

/// Does nothing.
#[derive(Debug)]
pub(crate) struct Splicer;

/// Never made.
#[derive(Debug)]
pub(crate) struct Grown;

#[expect(clippy::unused_self, reason = "the interface of the Linux one")]
impl Splicer {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn is_enabled(&self) -> bool {
        false
    }

    pub(crate) fn grow(&self, _pipe: impl AsFd) -> Option<Grown> {
        None
    }

    pub(crate) fn grow_send_buffer(&self, _socket: BorrowedFd<'_>) {}

    pub(crate) fn send(
        &mut self,
        _pipe: BorrowedFd<'_>,
        _available: usize,
        _socket: BorrowedFd<'_>,
        _most: usize,
        _frame: impl Fn(usize) -> Option<Frame>,
    ) -> Spliced {
        Spliced::Unable
    }

    pub(crate) fn receive(&self, _socket: BorrowedFd<'_>, _pipe: BorrowedFd<'_>, _len: usize) -> Received {
        Received::Unable
    }
}

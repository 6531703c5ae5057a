//! `kevent(2)` counts in nanoseconds, so the poll itself is precise enough.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// Does nothing.
#[derive(Debug)]
pub(crate) struct Alarm;

#[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the interface of the Linux one")]
impl Alarm {
    /// # Errors
    /// None.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// # Errors
    /// None.
    pub(crate) fn set(&self, _delay: Duration) -> io::Result<()> {
        Ok(())
    }

    /// There is nothing to register.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        None
    }
}

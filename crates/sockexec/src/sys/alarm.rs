//! A timer that is finer than `epoll_wait(2)`, which counts in milliseconds.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// A descriptor that becomes readable after a delay in microseconds. It can be set again without being read.
#[derive(Debug)]
pub(crate) struct Alarm(OwnedFd);

impl Alarm {
    /// # Errors
    /// Those of `timerfd_create(2)`: EMFILE, ENFILE, ENOMEM.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?))
    }

    /// Makes it ring once after `delay`, which must not be zero, whatever it was set to before.
    ///
    /// # Errors
    /// Those of `timerfd_settime(2)`, none of which can occur here.
    pub(crate) fn set(&self, delay: Duration) -> io::Result<()> {
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let delay = Timespec::try_from(delay).map_err(io::Error::other)?;
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: once, it_value: delay })?;
        Ok(())
    }

    /// The descriptor to register with the poll.
    #[expect(clippy::unnecessary_wraps, reason = "other systems have none")]
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        Some(self.0.as_raw_fd())
    }
}

//! Timers that are due in less than a millisecond, the least that `epoll_wait(2)` waits for.

use std::time::Duration;

use mio::Registry;

use crate::engine::Time;

#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(crate) struct Alarm {
    /// None: there is none to be had, and short timers are late.
    timer: Option<crate::sys::alarm::Alarm>,
    /// What it was last set to.
    set_to: Time,
}

#[cfg(target_os = "linux")]
impl Alarm {
    pub(crate) fn new(registry: &Registry) -> Self {
        let timer = crate::sys::alarm::Alarm::new().and_then(|timer| {
            let descriptor = std::os::fd::AsRawFd::as_raw_fd(&timer);
            let source = &mut mio::unix::SourceFd(&descriptor);
            registry.register(source, super::token::ALARM, mio::Interest::READABLE).map(|()| timer)
        });
        if let Err(error) = &timer {
            log::debug!("no timer for less than a millisecond: {error}");
        }
        Self { timer: timer.ok(), set_to: Time::ZERO }
    }

    /// Whether it keeps time to less than a millisecond.
    pub(crate) fn is_fine(&self) -> bool {
        self.timer.is_some()
    }

    /// Has the loop turn at `at`, in `left`, if the poll itself would be late.
    pub(crate) fn ring(&mut self, at: Time, left: Duration) {
        if left < Duration::from_millis(1)
            && at != self.set_to
            && let Some(timer) = &self.timer
            && timer.set(left).is_ok()
        {
            self.set_to = at;
        }
    }
}

/// `kevent(2)` counts in nanoseconds.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct Alarm;

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unused_self, reason = "as on Linux")]
impl Alarm {
    pub(crate) fn new(_registry: &Registry) -> Self {
        Self
    }

    pub(crate) fn is_fine(&self) -> bool {
        true
    }

    pub(crate) fn ring(&mut self, _at: Time, _left: Duration) {}
}

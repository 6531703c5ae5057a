//! Timers that are due sooner than the poll can report.

use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use super::token;
use crate::engine::Time;
use crate::sys;

/// The loop's timer.
#[derive(Debug)]
pub(crate) struct Alarm {
    /// None: none is available, and short timers are late.
    timer: Option<sys::alarm::Alarm>,
    /// The time that it was last set to.
    set_to: Time,
}

impl Alarm {
    pub(crate) fn new(registry: &Registry) -> Self {
        let timer = sys::alarm::Alarm::new().and_then(|timer| {
            if let Some(descriptor) = timer.descriptor() {
                registry.register(&mut SourceFd(&descriptor), token::ALARM, Interest::READABLE)?;
            }
            Ok(timer)
        });
        if let Err(error) = &timer {
            log::debug!("no timer for less than a millisecond: {error}");
        }
        Self { timer: timer.ok(), set_to: Time::ZERO }
    }

    /// Whether it is exact to less than a millisecond.
    pub(crate) fn is_fine(&self) -> bool {
        self.timer.is_some()
    }

    /// Makes the loop turn at `at`, in `left`, if the poll itself would be late.
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

//! The daemon's clock.

use std::time::Instant;

use crate::engine::Time;

/// Counts from when the daemon began to serve.
#[derive(Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Time {
        Time::after(self.0.elapsed())
    }
}

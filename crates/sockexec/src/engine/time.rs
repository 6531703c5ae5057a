//! Moments.

use std::num::NonZeroU64;
use std::ops::Add;
use std::time::Duration;

/// A moment: how long it is after a fixed one, on a clock that does not step.
///
/// Nanoseconds, which last for 584 years, and one more, so that `Option<Time>` takes eight bytes as well: a connection keeps ten of
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Time(NonZeroU64);

impl Time {
    /// The fixed one.
    pub(crate) const ZERO: Self = Self(NonZeroU64::MIN);

    /// So long after the fixed one.
    pub(crate) fn after(duration: Duration) -> Self {
        Self::ZERO + duration
    }

    /// `None`: it is too far away to come.
    pub(crate) fn checked_add(self, duration: Duration) -> Option<Self> {
        self.0.checked_add(u64::try_from(duration.as_nanos()).ok()?).map(Self)
    }

    /// How long it is after `earlier`; nothing if it is before that.
    pub(crate) fn saturating_sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

/// Ends at the last moment there is.
impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        self.checked_add(duration).unwrap_or(Self(NonZeroU64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn moments_are_as_far_apart_as_they_were_set() {
        let one = Time::after(SECOND);
        assert_eq!((one.saturating_sub(Time::ZERO), Time::ZERO.saturating_sub(one)), (SECOND, Duration::ZERO));
        assert_eq!((one + SECOND).saturating_sub(one), SECOND);
        assert_eq!(one.checked_add(SECOND), Some(one + SECOND));
        assert!(Time::ZERO < one && one < one + Duration::from_nanos(1));
    }

    #[test]
    fn what_is_too_far_away_never_comes() {
        let never = Time::ZERO + Duration::MAX;
        assert_eq!(Time::ZERO.checked_add(Duration::MAX), None);
        assert_eq!(never + SECOND, never);
        assert!(never > Time::after(Duration::from_secs(500 * 365 * 24 * 3600)));
    }

    #[test]
    fn no_moment_takes_no_room() {
        assert_eq!((size_of::<Time>(), size_of::<Option<Time>>()), (8, 8));
    }
}

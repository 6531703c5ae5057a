//! Moments.

use std::num::NonZeroU64;
use std::ops::Add;
use std::time::Duration;

/// A moment, as the time since a fixed one, on a clock that does not step.
///
/// In nanoseconds, which last for 584 years, plus one: so `Option<Time>` takes eight bytes too. A
/// connection keeps ten of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Time(NonZeroU64);

impl Time {
    /// The fixed moment.
    pub(crate) const ZERO: Self = Self(NonZeroU64::MIN);

    /// This long after the fixed moment.
    pub(crate) fn after(duration: Duration) -> Self {
        Self::ZERO + duration
    }

    /// `None`: too far away to come.
    pub(crate) fn checked_add(self, duration: Duration) -> Option<Self> {
        self.0.checked_add(u64::try_from(duration.as_nanos()).ok()?).map(Self)
    }

    /// The time since `earlier`; zero if that is later.
    pub(crate) fn saturating_sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

/// Saturates at the last moment.
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
    fn moments_keep_their_distance() {
        let one = Time::after(SECOND);
        assert_eq!((one.saturating_sub(Time::ZERO), Time::ZERO.saturating_sub(one)), (SECOND, Duration::ZERO));
        assert_eq!((one + SECOND).saturating_sub(one), SECOND);
        assert_eq!(one.checked_add(SECOND), Some(one + SECOND));
        assert!(Time::ZERO < one && one < one + Duration::from_nanos(1));
    }

    #[test]
    fn a_moment_too_far_away_never_comes() {
        let never = Time::ZERO + Duration::MAX;
        assert_eq!(Time::ZERO.checked_add(Duration::MAX), None);
        assert_eq!(never + SECOND, never);
        assert!(never > Time::after(Duration::from_secs(500 * 365 * 24 * 3600)));
    }

    #[test]
    fn an_optional_moment_takes_no_more_room() {
        assert_eq!((size_of::<Time>(), size_of::<Option<Time>>()), (8, 8));
    }
}

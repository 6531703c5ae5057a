//! Limits the lines of one kind in a second, so that a client cannot flood the log.

use std::time::{Duration, Instant};

use super::line::Kind;

/// How many lines of one kind may be written in one second.
const MOST: u32 = 10;

const SECOND: Duration = Duration::from_secs(1);

/// The kinds that were written within the last second. A list, because there are few.
#[derive(Debug, Default)]
pub(super) struct Limits {
    kinds: Vec<Counted>,
}

#[derive(Debug)]
struct Counted {
    kind: Kind,
    since: Instant,
    written: u32,
    left_out: u64,
}

impl Limits {
    /// Whether to write a line of this kind `now`.
    pub(super) fn admit(&mut self, kind: &Kind, now: Instant) -> bool {
        let Some(counted) = self.kinds.iter_mut().find(|counted| counted.kind == *kind) else {
            self.kinds.push(Counted { kind: kind.clone(), since: now, written: 1, left_out: 0 });
            return true;
        };
        let is_admitted = counted.written < MOST;
        if is_admitted {
            counted.written += 1;
        } else {
            counted.left_out += 1;
        }
        is_admitted
    }

    /// Forgets the kinds whose second is over. Returns how many lines of each were left out.
    pub(super) fn take_over(&mut self, now: Instant) -> Vec<(Kind, u64)> {
        let over = |counted: &mut Counted| now.saturating_duration_since(counted.since) >= SECOND;
        let over = self.kinds.extract_if(.., over);
        over.filter(|counted| counted.left_out > 0).map(|counted| (counted.kind, counted.left_out)).collect()
    }

    /// The time until lines that were left out can be reported; `None` if no line was.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let next = self.kinds.iter().filter(|counted| counted.left_out > 0).map(|counted| counted.since).min()?;
        Some((next + SECOND).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_second() {
        let (one, other) = (Kind::Event("one".to_owned()), Kind::Place("module", 7));
        let begin = Instant::now();
        let mut limits = Limits::default();
        assert_eq!((0..25).filter(|_| limits.admit(&one, begin)).count(), 10);
        let half = begin + SECOND / 2;
        assert!(limits.admit(&other, half));
        assert_eq!(limits.wait(half), Some(SECOND / 2));
        assert_eq!(limits.take_over(half), []);
        assert_eq!(limits.take_over(begin + SECOND), [(one.clone(), 15)]);
        // No line of the other kind was left out, so nothing waits for the end of its second.
        assert_eq!(limits.wait(begin + SECOND), None);
        assert!(limits.admit(&one, begin + SECOND));
        assert_eq!(limits.take_over(begin + SECOND * 9), []);
        assert!(limits.kinds.is_empty());
    }
}

//! Input that is held for a program that does not take it, so that what the client has sent after it can be
//! read: a signal, a size.
//!
//! Reading ahead has a price. What is in memory comes before what is still in the socket, so nothing can be
//! spliced, and a client that is faster than the program keeps it so: the share of spliced bytes falls from
//! all to one in a hundred, and the daemon takes three times as long. So it is done only for a program that
//! takes less than a window in 20 ms. With a faster one a signal is at most a window away, and waits no
//! longer than that.

use std::collections::VecDeque;
use std::time::Duration;

use crate::engine::Time;

/// How long a full pipe is watched before input is held, and how often the program's pace is judged.
const PERIOD: Duration = Duration::from_millis(20);

/// The input of a program that does not take it as fast as it comes.
#[derive(Debug)]
pub(super) struct Ahead {
    bytes: VecDeque<u8>,
    window: u64,
    /// When the pace was last judged, and how many bytes the program has taken since.
    since: Time,
    taken: u64,
    /// In the last period it took less than a window.
    slow: bool,
}

impl Ahead {
    /// The program's pipe was found full `now`, for the first time.
    pub(super) fn new(window: u64, now: Time) -> Self {
        Self { bytes: VecDeque::new(), window, since: now, taken: 0, slow: false }
    }

    /// Whether input may be held.
    pub(super) const fn is_slow(&self) -> bool {
        self.slow
    }

    /// Whether some is held.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// When to [judge](Self::judge) the pace, if input is not held already.
    pub(super) fn due(&self) -> Option<Time> {
        (!self.slow).then(|| self.since + PERIOD)
    }

    /// Judges the pace, if a period is over.
    pub(super) fn judge(&mut self, now: Time) {
        if self.since + PERIOD <= now {
            self.begin(now, true);
        }
    }

    /// The program has taken `n` more bytes, held or not.
    pub(super) fn took(&mut self, n: u64, now: Time) {
        self.judge(now);
        self.taken += n;
        if self.taken >= self.window {
            self.begin(now, false);
        }
    }

    const fn begin(&mut self, now: Time, slow: bool) {
        (self.since, self.taken, self.slow) = (now, 0, slow);
    }

    /// Holds these bytes.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// The first of the held bytes, in one piece.
    pub(super) fn front(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    /// This many of them were taken.
    pub(super) fn release(&mut self, n: usize) {
        self.bytes.drain(..n.min(self.bytes.len()));
        if self.bytes.is_empty() {
            // Perhaps nothing more comes for hours.
            self.bytes = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::after(Duration::from_millis(millis))
    }

    /// A page every 15 ms is slow, a window every 19 ms is not.
    #[test]
    fn pace() {
        let mut ahead = Ahead::new(1000, at(0));
        assert!(!ahead.is_slow(), "not before a period is over");
        assert_eq!(ahead.due(), Some(at(20)));
        ahead.took(100, at(15));
        ahead.judge(at(19));
        assert!(!ahead.is_slow());
        ahead.judge(at(20));
        assert!(ahead.is_slow());
        assert_eq!(ahead.due(), None, "it stays so until the program shows that it is fast");
        for page in 2..10 {
            ahead.took(100, at(15 * page));
            assert!(ahead.is_slow());
        }
        ahead.took(500, at(150));
        ahead.took(399, at(151));
        assert!(ahead.is_slow());
        ahead.took(1, at(152));
        assert!(!ahead.is_slow());
        for window in 0..10 {
            ahead.took(1000, at(170 + 19 * window));
            assert!(!ahead.is_slow());
        }
    }

    #[test]
    fn what_is_held_is_released_in_order() {
        let mut ahead = Ahead::new(1000, at(0));
        let bytes: Vec<u8> = (0..=255).cycle().take(3000).collect();
        let mut out = Vec::new();
        for piece in bytes.chunks(70) {
            ahead.hold(piece);
            let front = ahead.front();
            let n = front.len().min(50);
            out.extend_from_slice(&front[..n]);
            ahead.release(n);
        }
        while !ahead.is_empty() {
            let n = ahead.front().len();
            out.extend_from_slice(ahead.front());
            ahead.release(n);
        }
        assert!(out == bytes);
    }
}

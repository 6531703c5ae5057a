//! Finds chatty streams: those with many small writes in quick succession. Read one by one, each write costs
//! a turn of the loop and a frame. So such a stream is left alone for a moment, in which its writes gather in
//! the pipe.

use std::time::Duration;

use crate::engine::Time;

/// How long small writes are gathered. The figure is that of the prototypes (docs/performance.md): a longer
/// time saves little more, and is noticed.
const GATHER: Duration = Duration::from_micros(100);

/// Reads that are no further apart belong together: then at least two writes come in [`GATHER`].
const QUICK: Duration = Duration::from_micros(50);

/// The most that a small read has, in bytes.
const SMALL: usize = 4 << 10;

/// A stream that has more than this in [`GATHER`], in bytes, is no longer chatty but fast, and would soon
/// fill the pipe.
const MUCH: usize = 16 << 10;

/// After this many small reads in quick succession a stream is chatty. So a word and its newline, or a
/// prompt, never wait.
const STREAK: u8 = 8;

/// A stream's habits. Kept small, as a daemon has four of them for each program.
#[derive(Debug, Default)]
pub(crate) struct Chatter {
    /// When something was last read.
    last: Option<Time>,
    streak: u8,
    /// Something was read since the stream was last left alone or found empty.
    found: bool,
    gathering: bool,
    retired: bool,
}

impl Chatter {
    /// This many bytes were read at once.
    pub(crate) fn note(&mut self, n: usize, now: Time) {
        if self.retired {
            return;
        }
        let chatty = self.is_chatty();
        let soon = chatty || self.last.is_some_and(|last| now.saturating_sub(last) <= QUICK);
        self.streak = match (n <= if chatty { MUCH } else { SMALL }, soon) {
            (true, true) => (self.streak + 1).min(STREAK),
            (true, false) => 1,
            (false, _) => 0,
        };
        self.last = Some(now);
        self.found = true;
    }

    pub(crate) fn is_chatty(&self) -> bool {
        self.streak == STREAK
    }

    /// It is empty now, or nearly. True: it is chatty, and must be looked at when it is [due](Self::due).
    pub(crate) fn emptied(&mut self) -> bool {
        if !std::mem::take(&mut self.found) {
            self.streak = 0;
        }
        self.gathering = self.is_chatty();
        self.gathering
    }

    /// When to look at it, if it was left alone.
    pub(crate) fn due(&self) -> Option<Time> {
        self.last.filter(|_| self.gathering).map(|last| last + GATHER)
    }

    /// It is looked at. True: it had been left alone for that.
    pub(crate) fn look(&mut self) -> bool {
        std::mem::take(&mut self.gathering)
    }

    /// Somebody waits for its output: its program was just given input. As [`look`](Self::look).
    pub(crate) fn calm(&mut self) -> bool {
        self.streak = 0;
        self.look()
    }

    /// From here on it matters when it is empty, and it is never left alone: its program has ended, and
    /// descendants may hold it.
    pub(crate) fn retire(&mut self) {
        self.retired = true;
        self.calm();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(n: u64) -> Time {
        Time::after(Duration::from_micros(n))
    }

    /// A read of this many bytes, after which the stream is empty. Returns when it is due.
    fn read(chatter: &mut Chatter, n: usize, now: u64) -> Option<Time> {
        chatter.look();
        if n > 0 {
            chatter.note(n, us(now));
        }
        let gathers = chatter.emptied();
        assert_eq!(gathers, chatter.due().is_some());
        chatter.due()
    }

    /// A chatty stream, and the time.
    fn chatty() -> (Chatter, u64) {
        let mut chatter = Chatter::default();
        let begin = 1000;
        for n in 1..u64::from(STREAK) {
            assert_eq!(read(&mut chatter, 60, begin + n * 20), None);
        }
        let now = begin + u64::from(STREAK) * 20;
        assert_eq!(read(&mut chatter, 60, now), Some(us(now) + GATHER));
        (chatter, now)
    }

    #[test]
    fn it_stays_chatty_while_something_gathers() {
        let (mut chatter, mut now) = chatty();
        for _ in 0..10 {
            // Late, as on a busy machine.
            now += 700;
            assert_eq!(read(&mut chatter, 2000, now), Some(us(now) + GATHER));
        }
        assert_eq!(read(&mut chatter, 0, now + 100), None, "nothing came");
        assert_eq!(read(&mut chatter, 60, now + 110), None, "from the beginning");
    }

    #[test]
    fn reads_of_one_turn_count_each() {
        let mut chatter = Chatter::default();
        for _ in 0..STREAK {
            assert!(!chatter.is_chatty());
            chatter.note(60, us(1000));
        }
        assert!(chatter.emptied());
    }

    #[test]
    fn who_writes_much_is_not_chatty() {
        let (mut chatter, now) = chatty();
        assert_eq!(read(&mut chatter, MUCH + 1, now + 100), None);
        let mut chatter = Chatter::default();
        for n in 0..100 {
            assert_eq!(read(&mut chatter, SMALL + 1, n * 20), None);
        }
    }

    #[test]
    fn who_takes_its_time_is_not_chatty() {
        let mut chatter = Chatter::default();
        for n in 1..100 {
            assert_eq!(read(&mut chatter, 60, n * 51), None);
        }
    }

    #[test]
    fn who_is_waited_for_is_not_chatty() {
        let mut chatter = Chatter::default();
        for n in 0..100 {
            assert_eq!(read(&mut chatter, 60, n * 20), None);
            assert!(!chatter.calm());
        }
        let (mut chatter, _) = chatty();
        assert!(chatter.calm());
        assert_eq!(chatter.due(), None);
    }

    #[test]
    fn who_is_retired_is_not_chatty() {
        let (mut chatter, now) = chatty();
        chatter.retire();
        assert_eq!(chatter.due(), None);
        for n in 0..100 {
            assert_eq!(read(&mut chatter, 60, now + n), None);
        }
    }
}

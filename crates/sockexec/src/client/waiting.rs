//! How long to wait for a program that has not started, and what to report meanwhile.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Error;

/// What a run waits for while the program has not started. The message says what to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Waiting {
    /// The daemon has no room for another connection: its backlog is full.
    Connection,
    /// The connection exists, and the daemon says nothing.
    Answer {
        /// Whether the daemon has read the request. If so, it probably does not speak version 2 of the
        /// protocol. If not, it is stopped. `None`: the system does not report it (other than Linux).
        read: Option<bool>,
    },
    /// The daemon runs as many programs as it may.
    Slot {
        /// How many requests waited when the daemon reported it, including this one.
        requests: u64,
    },
    /// The daemon has answered, but it has neither executed the program nor reported that no slot is free: a
    /// slow file system, perhaps.
    Start,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection => {
                f.write_str("the daemon has no room for another connection; is it stopped, or do too many connect?")
            }
            Self::Answer { read: Some(false) } => f.write_str("the daemon has not read the request; is it stopped?"),
            Self::Answer { read: Some(true) } => f.write_str(
                "the daemon has read the request and says nothing; does it speak version 2 of the protocol (sockexec 4 or later)?",
            ),
            Self::Answer { read: None } => {
                f.write_str("the daemon says nothing; is it stopped, or older than sockexec 4?")
            }
            Self::Slot { requests: 0 | 1 } => f.write_str("all slots are taken, and this request waits for one"),
            Self::Slot { requests } => {
                write!(f, "all slots are taken, and {requests} requests wait for one, this one included")
            }
            Self::Start => f.write_str("the daemon has not executed the program yet; is its file system slow?"),
        }
    }
}

/// When a wait is reported, if the daemon has not reported it before.
const SOON: Duration = Duration::from_secs(2);

/// The callback for a run that has to wait.
#[derive(Clone, Default)]
pub(super) struct Observer(pub(super) Option<Arc<dyn Fn(Waiting) + Send + Sync>>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.0.is_some()).finish()
    }
}

/// The limits of one run.
#[derive(Debug)]
pub(super) struct Patience {
    /// When the program must have ended.
    end: Option<Instant>,
    /// When it must have started.
    start: Option<Instant>,
    /// The observer that has not been told yet that the program waits, and when to tell it.
    notice: Option<(Instant, Observer)>,
}

impl Patience {
    pub(super) fn new(end: Option<Duration>, start: Option<Duration>, observer: &Observer) -> Self {
        let now = Instant::now();
        // A time that the clock cannot represent is no limit.
        let at = |time: Option<Duration>| time.and_then(|time| now.checked_add(time));
        let notice = Some(observer).filter(|observer| observer.0.is_some());
        Self { end: at(end), start: at(start), notice: notice.map(|observer| (now + SOON, observer.clone())) }
    }

    /// Call this again and again until the program has started; it tells the observer when it is time to.
    /// `waiting` is called only if it is needed.
    ///
    /// # Errors
    /// A limit is reached.
    pub(super) fn mind(&mut self, waiting: impl Fn() -> Waiting) -> Result<(), Error> {
        let now = Instant::now();
        self.mind_end(now)?;
        if self.start.is_some_and(|start| start <= now) {
            return Err(Error::NotStarted(waiting()));
        }
        if self.notice.as_ref().is_some_and(|(due, _)| *due <= now) {
            self.notify(waiting());
        }
        Ok(())
    }

    /// The daemon has reported that the run has to wait.
    pub(super) fn notify(&mut self, waiting: Waiting) {
        if let Some((_, Observer(Some(tell)))) = self.notice.take() {
            tell(waiting);
        }
    }

    /// The program has started: from here on only its end is waited for.
    pub(super) fn started(&mut self) {
        (self.start, self.notice) = (None, None);
    }

    /// The time until the next of these.
    ///
    /// # Errors
    /// The program must have ended by now.
    pub(super) fn left(&self) -> Result<Option<Duration>, Error> {
        let now = Instant::now();
        self.mind_end(now)?;
        let notice = self.notice.as_ref().map(|(due, _)| *due);
        let next = [self.end, self.start, notice].into_iter().flatten().min();
        Ok(next.map(|due| due.saturating_duration_since(now)))
    }

    fn mind_end(&self, now: Instant) -> Result<(), Error> {
        if self.end.is_some_and(|end| end <= now) { Err(Error::TimedOut { output: None }) } else { Ok(()) }
    }
}

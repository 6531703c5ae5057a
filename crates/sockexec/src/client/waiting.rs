//! How long a program is waited for before it has started, and what those who wait are told.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Error;

/// What a run waits for while the program has not started; what is shown says what to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Waiting {
    /// The daemon has no room for another connection: its backlog is full.
    Connection,
    /// It is connected, and the daemon says nothing.
    Answer {
        /// Whether the daemon has read the request. If so, it probably does not speak version 2 of the protocol. If not, it is
        /// stopped. `None`: the system does not tell (other than Linux).
        read: Option<bool>,
    },
    /// The daemon runs as many programs as it may.
    Slot {
        /// How many requests waited when the daemon told, this one included.
        requests: u64,
    },
    /// The daemon has answered, and has neither executed the program nor said that there is no slot: a slow file system, perhaps.
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

/// After what time a wait is reported, if the daemon does not say before that it has to wait.
const SOON: Duration = Duration::from_secs(2);

/// What is to be called when a run has to wait.
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
    /// When the program is to have ended.
    end: Option<Instant>,
    /// When it is to have started.
    start: Option<Instant>,
    /// Who is still to be told that it waits, and when.
    notice: Option<(Instant, Observer)>,
}

impl Patience {
    pub(super) fn new(end: Option<Duration>, start: Option<Duration>, observer: &Observer) -> Self {
        let now = Instant::now();
        // A time that the clock does not reach is no limit.
        let at = |time: Option<Duration>| time.and_then(|time| now.checked_add(time));
        let notice = Some(observer).filter(|observer| observer.0.is_some());
        Self { end: at(end), start: at(start), notice: notice.map(|observer| (now + SOON, observer.clone())) }
    }

    /// To be asked again and again until the program has started; tells the observer when it is time to. `waiting` is only asked where that
    /// matters.
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

    /// The daemon has said that the run has to wait.
    pub(super) fn notify(&mut self, waiting: Waiting) {
        if let Some((_, Observer(Some(tell)))) = self.notice.take() {
            tell(waiting);
        }
    }

    /// The program has started: from here on it is only waited for its end.
    pub(super) fn started(&mut self) {
        (self.start, self.notice) = (None, None);
    }

    /// In what time one of this is due.
    ///
    /// # Errors
    /// The program is to have ended by now.
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

//! The log: records of the `log` crate, as lines on standard error.
//!
//! The daemon never waits for the reader of its log. A line goes into a buffer, which a thread writes. If the buffer
//! is full, the line is dropped and counted.
//!
//! Rejected: `O_NONBLOCK` belongs to the open file, and would affect every process that has it open. Opening
//! `/proc/self/fd/2` anew fails for sockets, and the journal is one, and for another user's file (without a thread
//! it is done if it succeeds). Polling before each write is not enough: a terminal that is ready may take one byte
//! and block on the next.

mod limit;
mod line;
mod writer;

use std::sync::{Arc, OnceLock};

use log::{Level, LevelFilter, Log, Metadata, Record};
use sockexec::daemon;

use crate::arguments::{Format, Threshold};

use self::line::Line;
use self::writer::Writer;

/// How lines are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) format: Format,
    /// Whether text begins with the time.
    pub(crate) time: bool,
    /// Whether each line begins with a priority for the journal (sd-daemon(3)).
    pub(crate) priority: bool,
}

struct Logger {
    level: LevelFilter,
    writer: Arc<Writer>,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts the log. No thread runs before the first line.
pub(crate) fn start(threshold: Threshold, format: Format, time: bool) {
    let level = match threshold {
        Threshold::Error => LevelFilter::Error,
        Threshold::Warn => LevelFilter::Warn,
        Threshold::Info => LevelFilter::Info,
        Threshold::Debug => LevelFilter::Debug,
    };
    let style = Style { format, time, priority: is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref()) };
    let logger =
        LOGGER.get_or_init(|| Logger { level, writer: Arc::new(Writer::new(style, level == LevelFilter::Debug)) });
    if log::set_logger(logger).is_ok() {
        // The macros do not even format what is above it.
        log::set_max_level(level);
    }
}

/// Whether standard error is the file whose device and inode `JOURNAL_STREAM` has. The variable alone proves nothing:
/// it outlives redirections (systemd.exec(5)).
fn is_journal(stream: Option<&str>) -> bool {
    let Some((device, inode)) = stream.and_then(|stream| stream.split_once(':')) else { return false };
    let Ok(stat) = rustix::fs::fstat(rustix::stdio::stderr()) else { return false };
    device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino)
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        target == daemon::ALWAYS || metadata.level() <= self.level && is_ours(target)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // `debug` leaves nothing out.
            let is_limited = self.level < LevelFilter::Debug && record.level() <= Level::Warn;
            self.writer.write(&Line::new(record), is_limited);
        }
    }

    fn flush(&self) {
        self.writer.flush();
    }
}

/// Whether a record is from this project. Those of other crates are left out.
fn is_ours(target: &str) -> bool {
    target == "sockexec" || target.starts_with("sockexec::")
}

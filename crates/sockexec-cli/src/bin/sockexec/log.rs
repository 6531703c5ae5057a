//! The log: what the library says through the `log` crate, as lines on standard error.
//!
//! A line never waits for its reader. It goes into a buffer, and a thread writes what is in there; where the buffer is full the line is
//! dropped and counted. Rejected: `O_NONBLOCK`, which belongs to the open file and would reach everybody who has it; to open
//! `/proc/self/fd/2` anew, which fails for sockets, and the journal is one; to poll before each write, as a terminal that is ready
//! takes one byte and waits with the next.

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
    /// Text begins with the time.
    pub(crate) time: bool,
    /// Each line begins with a priority, as the journal takes it (sd-daemon(3)).
    pub(crate) priority: bool,
}

struct Logger {
    level: LevelFilter,
    writer: Arc<Writer>,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Begins to log. Costs no thread before the first line.
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
        // What is above it is not even formatted.
        log::set_max_level(level);
    }
}

/// Whether standard error is what `JOURNAL_STREAM` says, its device and inode: the variable is inherited beyond redirections
/// (systemd.exec(5)).
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
            // With `debug` all of it is wanted.
            let is_limited = self.level < LevelFilter::Debug && record.level() <= Level::Warn;
            self.writer.write(&Line::new(record), is_limited);
        }
    }

    fn flush(&self) {
        self.writer.flush();
    }
}

/// Other crates may log as well, what we know nothing about.
fn is_ours(target: &str) -> bool {
    target == "sockexec" || target.starts_with("sockexec::")
}

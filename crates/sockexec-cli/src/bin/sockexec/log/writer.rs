//! The thread that writes the log. It lives while there are lines to write, and a moment longer.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Style;
use super::limit::Limits;
use super::line::{Kind, Line};

/// How many bytes may wait: some thousand lines, as in a burst with `-d`.
const MOST: usize = 1 << 20;

/// How long the thread waits for another line before it ends. Longer than the second in which lines are counted.
const IDLE: Duration = Duration::from_millis(1500);

/// How long to wait after a thread could not be started. Under a filter of system calls that refuses clone3(2) with
/// EPERM none ever can: `pthread_create(3)` tries clone(2) only after ENOSYS.
const RETRY: Duration = Duration::from_secs(1);

/// How many bytes a ready pipe takes at once and in one piece (`PIPE_BUF`, pipe(7)).
const PIECE: usize = 4096;

/// How long the daemon waits at its end for its last lines to be written.
const LAST: Duration = Duration::from_secs(2);

/// The device number of `/dev/ptmx`, which our end of a terminal has too (pts(4), `devices.txt` of the kernel).
#[cfg(target_os = "linux")]
const PTMX: (u32, u32) = (5, 2);

/// The thread's stack, in bytes. Only what is touched costs memory.
const STACK: usize = 64 << 10;

pub(super) struct Writer {
    style: Style,
    /// Whether the thread, once started, stays.
    stays: bool,
    state: Mutex<State>,
    /// Notified when there are lines to write.
    news: Condvar,
    /// Notified when all lines are written.
    written: Condvar,
}

#[derive(Default)]
struct State {
    /// Whole lines that wait.
    buffer: Vec<u8>,
    /// How many bytes are being written.
    under_way: usize,
    /// Lines that found no room, or could not be written.
    dropped: u64,
    limits: Limits,
    has_thread: bool,
    is_idle: bool,
    /// When a thread could last not be started.
    failed_at: Option<Instant>,
    /// Whether the last line was written only in part.
    is_cut: bool,
}

impl Writer {
    pub(super) fn new(style: Style, stays: bool) -> Self {
        Self { style, stays, state: Mutex::default(), news: Condvar::new(), written: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line. Never waits for its reader.
    pub(super) fn write(self: &Arc<Self>, line: &Line<'_>, is_limited: bool) {
        let mut state = self.lock();
        if is_limited {
            let now = Instant::now();
            self.tell_left_out(&mut state, now);
            if !state.limits.admit(line.kind(), now) {
                return;
            }
        }
        if !state.put(line, self.style) {
            state.dropped += 1;
        }
        if state.is_idle {
            self.news.notify_one();
        } else if !state.has_thread {
            if line.is_start() && !self.stays {
                // No client is served yet, so this may block if standard error cannot be opened anew. A daemon that
                // logs nothing more never has a thread.
                self.write_unaided(&mut state);
                if state.buffer.is_empty() {
                    return;
                }
            }
            if state.failed_at.is_none_or(|at| at.elapsed() >= RETRY) {
                state.has_thread = self.spawn();
                state.failed_at = (!state.has_thread).then(Instant::now);
            }
            if !state.has_thread {
                self.write_unaided(&mut state);
            }
        }
    }

    /// Writes without a thread, as much as standard error takes at once.
    fn write_unaided(&self, state: &mut State) {
        if state.is_cut && state.buffer.first().is_some_and(|&first| first != b'\n') {
            state.buffer.insert(0, b'\n');
        }
        while !state.buffer.is_empty() && is_writable(Duration::ZERO) {
            match write_at_once(piece(&state.buffer)) {
                Ok(n) => {
                    state.is_cut = false;
                    drop(state.buffer.drain(..n));
                }
                Err(Errno::INTR | Errno::AGAIN) => return,
                Err(_) => {
                    let lines = std::mem::take(&mut state.buffer);
                    state.lose(&lines, 0);
                    // A part of the first line may have been written before.
                    state.is_cut = true;
                    return;
                }
            }
            if state.buffer.is_empty() {
                // Frees the memory of a burst.
                state.buffer = Vec::new();
                self.tell_dropped(state);
            }
        }
    }

    /// Starts the thread. False: the system refuses one now.
    fn spawn(self: &Arc<Self>) -> bool {
        let thread = thread::Builder::new().name("log".to_owned()).stack_size(STACK);
        let writer = Arc::clone(self);
        thread.spawn(move || writer.work()).is_ok()
    }

    /// Waits until all is written, but not longer than [`LAST`].
    pub(super) fn flush(&self) {
        let deadline = Instant::now() + LAST;
        let mut state = self.lock();
        // Also for a second that is not over.
        self.tell_left_out(&mut state, deadline);
        self.tell_dropped(&mut state);
        if state.has_thread {
            self.news.notify_one();
        }
        while state.has_thread && state.is_busy() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.written.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if !state.has_thread {
            self.write_unaided(&mut state);
        }
    }

    /// The loop of the thread.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if state.buffer.is_empty() {
                self.written.notify_all();
                let now = Instant::now();
                let wait = state.limits.wait(now).unwrap_or(IDLE);
                state.is_idle = true;
                state = self.news.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                state.is_idle = false;
                self.tell_left_out(&mut state, Instant::now());
                let is_over = Instant::now().saturating_duration_since(now) >= IDLE;
                if state.buffer.is_empty() && is_over && !self.stays && state.limits.wait(now).is_none() {
                    state.has_thread = false;
                    return;
                }
                continue;
            }
            let mut lines = std::mem::take(&mut state.buffer);
            if state.is_cut {
                lines.insert(0, b'\n');
            }
            state.under_way = lines.len();
            drop(state);
            let written = write_all(&lines);
            state = self.lock();
            state.under_way = 0;
            match written {
                Ok(()) => {
                    state.is_cut = false;
                    self.tell_dropped(&mut state);
                }
                Err(written) => state.lose(&lines, written),
            }
        }
    }

    /// Logs how many lines of each kind were left out in a second that is over.
    fn tell_left_out(&self, state: &mut State, now: Instant) {
        for (kind, lines) in state.limits.take_over(now) {
            let what = match kind {
                Kind::Event(event) => format!("lines of the kind {event}"),
                Kind::Place(module, _) => format!("warnings like the last of {module}"),
            };
            if !state.say(self.style, "left-out", format_args!("{lines} more {what} were left out within a second")) {
                state.dropped += lines;
            }
        }
    }

    /// Logs how many lines were dropped, once there is room again.
    fn tell_dropped(&self, state: &mut State) {
        let dropped = state.dropped;
        let why = "standard error did not take them";
        if dropped > 0
            && state.say(self.style, "dropped", format_args!("{dropped} lines of the log were dropped: {why}"))
        {
            state.dropped = 0;
        }
    }
}

impl State {
    /// Appends a line. False: there is no room.
    fn put(&mut self, line: &Line<'_>, style: Style) -> bool {
        let before = self.buffer.len();
        // A full buffer costs no formatting.
        if before + self.under_way >= MOST {
            return false;
        }
        line.format(style, &mut self.buffer);
        let has_room = self.buffer.len() + self.under_way <= MOST;
        if !has_room {
            self.buffer.truncate(before);
        }
        has_room
    }

    /// Appends a line about the log itself. False: there is no room.
    fn say(&mut self, style: Style, event: &str, message: fmt::Arguments<'_>) -> bool {
        self.put(&Line::own(event, message), style)
    }

    /// Counts the lost lines if only `written` bytes could be written. After a cut line, `lines` begins with the newline
    /// that ends it.
    fn lose(&mut self, lines: &[u8], written: usize) {
        let (before, rest) = lines.split_at(written.min(lines.len()));
        let lost = rest.split(|&byte| byte == b'\n').count().saturating_sub(1) as u64;
        self.dropped += lost.saturating_sub(u64::from(self.is_cut && before.is_empty()));
        if let Some(last) = before.last() {
            self.is_cut = *last != b'\n';
        }
    }

    fn is_busy(&self) -> bool {
        !self.buffer.is_empty() || self.under_way > 0
    }
}

/// The first lines that go into a pipe in one piece, so that they do not mix with those of other writers.
fn piece(bytes: &[u8]) -> &[u8] {
    let first = bytes.get(..PIECE).unwrap_or(bytes);
    let end = first.iter().rposition(|&byte| byte == b'\n').map_or(first.len(), |end| end + 1);
    first.get(..end).unwrap_or(first)
}

/// Writes all bytes, however long that takes. The error is how many were written.
fn write_all(mut bytes: &[u8]) -> Result<(), usize> {
    let all = bytes.len();
    while !bytes.is_empty() {
        match rustix::io::write(rustix::stdio::stderr(), piece(bytes)) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Another process that has it open has made it non-blocking.
            Err(Errno::AGAIN) => _ = is_writable(Duration::MAX),
            Err(_) => return Err(all - bytes.len()),
        }
    }
    Ok(())
}

/// Writes what standard error takes without waiting.
///
/// Poll is not enough: a terminal that is ready may take one byte and block on the next, and another process may
/// fill a pipe between poll(2) and write(2). So both are opened anew, and `O_NONBLOCK` belongs to our own open file.
/// Each time: a descriptor that stays would be one less for programs. If that is refused (another user's file, no
/// `/proc`), poll must do. Not our end of a terminal: `/dev/ptmx` opened anew is another terminal, which nobody reads.
#[cfg(target_os = "linux")]
fn write_at_once(bytes: &[u8]) -> Result<usize, Errno> {
    use rustix::fs::{FileType, Mode, OFlags};
    use rustix::net::SendFlags;

    let stderr = rustix::stdio::stderr();
    let stat = rustix::fs::fstat(stderr);
    let is_our_end = stat.is_ok_and(|stat| (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == PTMX);
    match stat.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::Socket) => rustix::net::send(stderr, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
        Ok(kind) if kind == FileType::Fifo || rustix::termios::isatty(stderr) && !is_our_end => {
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            match rustix::fs::open("/proc/self/fd/2", flags, Mode::empty()) {
                Ok(own) => rustix::io::write(own, bytes),
                // A later line finds one.
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Err(Errno::AGAIN),
                Err(_) => rustix::io::write(stderr, bytes),
            }
        }
        Ok(_) | Err(_) => rustix::io::write(stderr, bytes),
    }
}

/// Writes what standard error takes. Only Linux opens a file anew that is open already.
#[cfg(not(target_os = "linux"))]
fn write_at_once(bytes: &[u8]) -> Result<usize, Errno> {
    rustix::io::write(rustix::stdio::stderr(), bytes)
}

/// Whether standard error can be written to, or has failed, within this time.
fn is_writable(patience: Duration) -> bool {
    let stderr = rustix::stdio::stderr();
    let mut polled = [PollFd::new(&stderr, PollFlags::OUT)];
    let patience = Timespec::try_from(patience).ok();
    poll(&mut polled, patience.as_ref()).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_whole_lines_as_far_as_there_are() {
        let line = [&[b'x'; 999][..], b"\n"].concat();
        assert_eq!(piece(&line), line);
        assert_eq!(piece(&line.repeat(4)).len(), 4000);
        assert_eq!(piece(&line.repeat(9)).len(), 4000);
        assert_eq!(piece(b"a\nb"), b"a\n");
        assert_eq!(piece(&[b'x'; 9000]).len(), PIECE);
        assert_eq!(piece(b""), b"");
    }

    #[test]
    fn lines_that_are_lost_are_counted_and_the_one_that_is_cut_is_ended() {
        let mut state = State::default();
        state.lose(b"one\ntwo\nthree\n", 6);
        assert_eq!((state.dropped, state.is_cut), (2, true));
        // These begin with the end of the cut line. Nothing was written.
        state.lose(b"\nfour\n", 0);
        assert_eq!((state.dropped, state.is_cut), (3, true));
        state.lose(b"\nfour\nfive\n", 6);
        assert_eq!((state.dropped, state.is_cut), (4, false));
    }
}

//! Closes what may take long to close, on a few threads that start with the first close and end when nothing
//! is left to do.
//!
//! Two kinds of close take long:
//! - Closing the last descriptor of a socket with `SO_LINGER` waits until its bytes are acknowledged or its
//!   time is up (socket(7)), which is as long as its owner likes. The kernel makes one exception: a thread
//!   that exits does not wait (`PF_EXITING`; the socket lingers without it). So such a socket is closed
//!   twice. A thread with its own descriptor table holds a copy. We close ours, which is then not the last
//!   one, and the end of that thread closes the copy. Nobody waits, so nothing has to be bounded. Rejected:
//!   threads that wait, as a client can occupy any number of them.
//! - Closing a big file without a name frees its blocks. Such a file goes to [`in_pieces`].

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use super::raw::descriptors::leave_table;

/// The most threads. All but one are for closes that wait after all: on a slow disk, or where no thread can
/// have its own table.
const MAX_THREADS: usize = 4;

/// How many of them may work on files, so that sockets do not wait for a slow disk.
const MAX_PIECEMEAL: usize = 2;

/// How long a thread waits for more to do before it ends.
const IDLE: Duration = Duration::from_millis(250);

/// How soon to try again if no thread can be started.
const RETRY: Duration = Duration::from_millis(100);

/// The most sockets that are closed at once.
const BATCH: usize = 256;

/// The stack of a thread, in bytes. Only what is touched costs memory.
const STACK: usize = 64 << 10;

static POOL: Pool = Pool { queue: Mutex::new(Queue::new()), news: Condvar::new() };

/// How many [`Counted`] descriptors are open.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Work is queued, and no thread could be started for it.
static STUCK: AtomicBool = AtomicBool::new(false);

/// No thread can have its own descriptor table.
static SHARED_FOR_GOOD: AtomicBool = AtomicBool::new(false);

/// A descriptor that is counted while it is open. Its fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Counted {
    descriptor: OwnedFd,
    _one: One,
}

#[derive(Debug)]
struct One;

impl Drop for One {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Release);
    }
}

impl From<OwnedFd> for Counted {
    fn from(descriptor: OwnedFd) -> Self {
        COUNT.fetch_add(1, Ordering::Relaxed);
        Self { descriptor, _one: One }
    }
}

impl AsFd for Counted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Counted {
    /// Whether any of them is open.
    pub(super) fn is_there_one() -> bool {
        COUNT.load(Ordering::Acquire) > 0
    }
}

/// Closes a socket, and the sockets that may be queued in it, without waiting.
pub(super) fn close_socket(socket: Counted) {
    POOL.put(|queue| queue.sockets.push(socket));
}

/// Work in pieces, none of which takes long; false: it is done.
pub(crate) type Piecemeal = Box<dyn FnMut() -> bool + Send>;

/// Does this in pieces, one after another.
pub(crate) fn in_pieces(work: Piecemeal) {
    POOL.put(|queue| queue.piecemeal.push_back(work));
}

/// Tries again to start a thread, if none could be started when work came. If none can be started now, does one
/// piece of the work itself; true: more pieces wait. A filter may refuse every thread, and then files would keep
/// the disk for ever. Sockets wait for a thread all the same: one of them could stop the caller for ever.
pub(crate) fn retry() -> bool {
    if !STUCK.swap(false, Ordering::Relaxed) || POOL.lock().is_empty() {
        return false;
    }
    POOL.put(|_| {});
    STUCK.load(Ordering::Relaxed) && POOL.work_here()
}

struct Pool {
    queue: Mutex<Queue>,
    news: Condvar,
}

/// The work, and the threads for it.
struct Queue {
    sockets: Vec<Counted>,
    piecemeal: VecDeque<Piecemeal>,
    /// How many threads exist, how many of them wait for work, and how many are at work in pieces.
    threads: usize,
    idle: usize,
    at_pieces: usize,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("sockets", &self.sockets).field("threads", &self.threads).finish_non_exhaustive()
    }
}

enum Job {
    Sockets(Vec<Counted>),
    Piece(Piecemeal),
}

impl Queue {
    const fn new() -> Self {
        Self { sockets: Vec::new(), piecemeal: VecDeque::new(), threads: 0, idle: 0, at_pieces: 0 }
    }

    fn is_empty(&self) -> bool {
        self.sockets.is_empty() && self.piecemeal.is_empty()
    }

    fn next(&mut self) -> Option<Job> {
        if !self.sockets.is_empty() {
            let most = if SHARED_FOR_GOOD.load(Ordering::Relaxed) { 1 } else { BATCH };
            let batch = self.sockets.len().min(most);
            return Some(Job::Sockets(self.sockets.drain(..batch).collect()));
        }
        if self.at_pieces == MAX_PIECEMEAL {
            return None;
        }
        let piece = self.piecemeal.pop_front()?;
        self.at_pieces += 1;
        Some(Job::Piece(piece))
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&'static self, add: impl FnOnce(&mut Queue)) {
        let mut queue = self.lock();
        add(&mut queue);
        if queue.idle > 0 {
            self.news.notify_one();
        } else if queue.threads < MAX_THREADS {
            match thread("close").spawn(move || self.work()) {
                Ok(_) => queue.threads += 1,
                // Tried again with the next one, and by `retry`. Closing it here could stop everything.
                Err(_) => STUCK.store(queue.threads == 0, Ordering::Relaxed),
            }
        }
    }

    /// Does one piece on this thread; true: more pieces wait.
    fn work_here(&self) -> bool {
        let piece = self.lock().piecemeal.pop_front();
        let Some(mut work) = piece else { return false };
        let work = work().then_some(work);
        let mut queue = self.lock();
        queue.piecemeal.extend(work);
        !queue.piecemeal.is_empty()
    }

    /// The work of a thread.
    fn work(&self) {
        let mut queue = self.lock();
        loop {
            match queue.next() {
                Some(Job::Sockets(sockets)) => {
                    drop(queue);
                    let left = close_without_lingering(sockets);
                    queue = self.lock();
                    if !left.is_empty() {
                        queue.sockets.extend(left);
                        queue = self.news.wait_timeout(queue, RETRY).unwrap_or_else(PoisonError::into_inner).0;
                    }
                }
                Some(Job::Piece(mut work)) => {
                    drop(queue);
                    let work = work().then_some(work);
                    queue = self.lock();
                    queue.at_pieces -= 1;
                    // Behind the others.
                    queue.piecemeal.extend(work);
                }
                None => {
                    queue.idle += 1;
                    let (woken, waited) = self.news.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
                    queue = woken;
                    queue.idle -= 1;
                    if waited.timed_out() && queue.is_empty() {
                        queue.threads -= 1;
                        return;
                    }
                }
            }
        }
    }
}

fn thread(name: &str) -> thread::Builder {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK)
}

/// Closes these sockets. Returns them if no thread can be started for that.
fn close_without_lingering(sockets: Vec<Counted>) -> Vec<Counted> {
    let end = sockets.iter().map(|socket| socket.descriptor.as_raw_fd()).max().map_or(0, |last| last.saturating_add(1));
    if SHARED_FOR_GOOD.load(Ordering::Relaxed) {
        drop(sockets);
        return Vec::new();
    }
    let (tell, told) = mpsc::channel();
    let (keep, kept) = mpsc::channel::<()>();
    let keeper = thread("exit").spawn(move || {
        let _ = tell.send(leave_table(end));
        // Until our caller has closed its own, or this copy would not be the last.
        let _ = kept.recv();
    });
    let Ok(keeper) = keeper else { return sockets };
    if let Ok(Err(error)) = told.recv() {
        log::warn!(
            "no thread can have its own descriptor table ({error}): a lingering socket occupies a thread until it is closed"
        );
        SHARED_FOR_GOOD.store(true, Ordering::Relaxed);
    }
    drop(sockets);
    drop(keep);
    // This bounds the number of threads only: what they hold is closed a moment later.
    let _ = keeper.join();
    Vec::new()
}

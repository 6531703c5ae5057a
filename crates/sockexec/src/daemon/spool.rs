//! Output that waits on disk: a file without a name for each connection that needs one, and a limit for all
//! of them.
//!
//! Threads of [`closer`] give blocks back as the client reads: freeing those of a big file takes long (0.7 s
//! for 4 GiB), and the last close of a file without a name frees all that it has.

use std::cell::Cell;
use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Handle;
use crate::engine::at_most;
use crate::sys::{closer, transfer};

/// The unit in which a file is read back, in bytes.
pub(super) const BLOCK: usize = 32 << 10;

/// What a client has read is freed in pieces of at least this many bytes.
const FREED_AT_ONCE: u64 = 1 << 20;

/// By how many bytes a file is shortened at once before it is closed.
const CUT_AT_ONCE: u64 = 64 << 20;

/// How often the file system is asked how much is free: once for this many bytes.
const CREDIT: u64 = 16 << 20;

/// What is freed begins and ends at a page.
const PAGE: u64 = 4 << 10;

/// What all spools take.
#[derive(Debug)]
pub(super) struct Spools {
    /// In memory, in bytes.
    pub(super) memory: Cell<u64>,
    disk: Arc<Disk>,
    /// This much more may be taken before the file system is asked again.
    credit: Cell<u64>,
    complained: Cell<bool>,
}

/// What they take of the disk. Other threads give blocks back.
#[derive(Debug)]
struct Disk {
    limit: u64,
    taken: AtomicU64,
    /// Some spool was given less than it wanted.
    wanted: AtomicBool,
    /// Woken when there is more.
    handle: Option<Handle>,
}

impl Disk {
    fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::SeqCst);
        if let Some(handle) = self.handle.as_ref().filter(|_| self.wanted.load(Ordering::SeqCst)) {
            handle.wake();
        }
    }
}

impl Spools {
    /// Together they take at most `limit` bytes of the disk, and leave a tenth of its file system free.
    /// `handle` is woken when one that was refused may ask again.
    pub(super) fn new(limit: u64, handle: Option<Handle>) -> Self {
        let disk = Disk { limit, taken: AtomicU64::new(0), wanted: AtomicBool::new(false), handle };
        Self { memory: Cell::default(), disk: Arc::new(disk), credit: Cell::default(), complained: Cell::default() }
    }

    /// How much they take of the disk, in bytes.
    pub(super) fn on_disk(&self) -> u64 {
        self.disk.taken.load(Ordering::SeqCst)
    }

    /// Whether those that were refused may ask again; true once.
    pub(super) fn has_news(&self) -> bool {
        self.disk.wanted.load(Ordering::SeqCst)
            && self.on_disk() < self.disk.limit
            && self.disk.wanted.swap(false, Ordering::SeqCst)
    }

    /// How much more may be taken.
    fn free(&self) -> u64 {
        let within_limit = self.disk.limit.saturating_sub(self.on_disk());
        if within_limit > 0 && self.credit.get() == 0 {
            self.credit.set(beyond_a_tenth().min(CREDIT));
        }
        within_limit.min(self.credit.get())
    }

    /// Takes up to `bytes`, and returns how many.
    fn take(&self, bytes: u64) -> u64 {
        let taken = bytes.min(self.free());
        self.credit.set(self.credit.get() - taken);
        self.disk.taken.fetch_add(taken, Ordering::SeqCst);
        taken
    }

    /// A spool was given less than it wanted, and must ask once more: only what is given back after this is
    /// reported.
    fn note_want(&self) {
        self.disk.wanted.store(true, Ordering::SeqCst);
        if self.free() == 0 && !self.complained.replace(true) {
            let taken = self.on_disk();
            let why = if taken < self.disk.limit {
                "a tenth of the file system stays free"
            } else {
                "--spool-total allows no more"
            };
            log::warn!("spooled output takes {taken} bytes in {}, and {why}: programs wait", directory().display());
        }
    }
}

/// How much is free in the spool's file system beyond a tenth of it, in bytes. If the system does not say,
/// that is no reason to stop.
fn beyond_a_tenth() -> u64 {
    match rustix::fs::statvfs(directory()) {
        Ok(system) if system.f_blocks > 0 => {
            system.f_bavail.saturating_sub(system.f_blocks / 10).saturating_mul(system.f_frsize)
        }
        Ok(_) | Err(_) => u64::MAX,
    }
}

/// A file and what it takes of the disk.
#[derive(Debug)]
struct Held {
    file: File,
    bytes: AtomicU64,
    /// Everything before this position was freed.
    freed: AtomicU64,
    freeing: Mutex<Freeing>,
    /// The file system cannot free a part of a file.
    keeps_all: AtomicBool,
    disk: Arc<Disk>,
}

/// What must be freed.
#[derive(Debug)]
struct Freeing {
    /// Another thread is freeing: nothing from `freed` on may be overwritten.
    is_busy: bool,
    /// Up to this position.
    to: u64,
}

impl Held {
    /// Gives back this many bytes, or as many as are taken.
    fn give_back(&self, bytes: u64) {
        let less = |held: u64| Some(held.saturating_sub(bytes));
        let before = self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).unwrap_or_default();
        self.disk.give_back(bytes.min(before));
    }

    fn freeing(&self) -> MutexGuard<'_, Freeing> {
        self.freeing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees a piece of what was read of a ring of this capacity; true: there is more to free by now.
    fn free(&self, capacity: u64) -> bool {
        let from = self.freed.load(Ordering::Acquire);
        let to = self.freeing().to.min(from + CUT_AT_ONCE);
        let mut at = from;
        while at < to {
            let len = (to - at).min(capacity - at % capacity);
            if transfer::free(&self.file, at % capacity, len).is_err() {
                self.keeps_all.store(true, Ordering::Release);
                break;
            }
            at += len;
        }
        self.freed.store(at, Ordering::Release);
        let mut freeing = self.freeing();
        // If the client reads no further, nothing else calls this again.
        freeing.is_busy = at == to && freeing.to >= at + FREED_AT_ONCE;
        let more = freeing.is_busy;
        drop(freeing);
        // After that, as a ring that is woken looks at it.
        self.give_back(at - from);
        more
    }

    /// Shortens the file by a piece; false: what is left is no more than that, or it cannot be shortened.
    fn cut(&self) -> bool {
        let Ok(len) = self.file.metadata().map(|metadata| metadata.len()) else { return false };
        let left = len.saturating_sub(CUT_AT_ONCE);
        let is_cut = left > 0 && self.file.set_len(left).is_ok();
        if is_cut {
            self.give_back(len - left);
        }
        is_cut
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk.give_back(*self.bytes.get_mut());
    }
}

/// A file that is used as a ring. Positions count all bytes that ever went through it.
#[derive(Debug)]
pub(super) struct Ring {
    held: Arc<Held>,
    read: u64,
    written: u64,
    capacity: u64,
}

impl Ring {
    /// A ring of at most this many bytes; `None`: there may be none now.
    ///
    /// # Errors
    /// From open(2).
    pub(super) fn create(capacity: u64, spools: &Spools) -> io::Result<Option<Self>> {
        if capacity == 0 {
            return Ok(None);
        }
        if spools.free() == 0 {
            spools.note_want();
            if spools.free() == 0 {
                return Ok(None);
            }
        }
        let held = Held {
            file: tempfile::tempfile_in(directory())?,
            bytes: AtomicU64::new(0),
            freed: AtomicU64::new(0),
            freeing: Mutex::new(Freeing { is_busy: false, to: 0 }),
            keeps_all: AtomicBool::new(false),
            disk: Arc::clone(&spools.disk),
        };
        Ok(Some(Self { held: Arc::new(held), read: 0, written: 0, capacity }))
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.held.file.as_fd()
    }

    /// How much is in it, in bytes.
    pub(super) const fn len(&self) -> u64 {
        self.written - self.read
    }

    /// Appends from the front of `bytes`, and returns how many were taken. An error is returned only if none
    /// were.
    pub(super) fn write(&mut self, bytes: &[u8], spools: &Spools) -> io::Result<usize> {
        let mut written = 0;
        let mut has_asked_again = false;
        while written < bytes.len() && self.len() < self.capacity {
            let rest = bytes.get(written..).unwrap_or_default();
            let len = self.reserve(rest.len() as u64, spools);
            if len == 0 {
                if std::mem::replace(&mut has_asked_again, true) {
                    break;
                }
                spools.note_want();
                continue;
            }
            let rest = rest.get(..at_most(rest.len(), len)).unwrap_or_default();
            match self.held.file.write_at(rest, self.written % self.capacity) {
                Ok(0) => break,
                Ok(n) => {
                    written += n;
                    self.written += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if written == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(written)
    }

    /// Takes what is needed of the disk. Returns how many of `len` bytes may be written in one piece.
    fn reserve(&self, len: u64, spools: &Spools) -> u64 {
        let at = self.written % self.capacity;
        let is_busy = self.held.freeing().is_busy;
        let mut freed = self.held.freed.load(Ordering::Acquire);
        let begin = if is_busy { freed } else { self.read };
        let len = len.min((begin + self.capacity).saturating_sub(self.written)).min(self.capacity - at);
        if !is_busy && self.written + len > freed + self.capacity {
            // What was read there is overwritten, so it must not be freed any more.
            freed = self.written + len - self.capacity;
            self.held.freed.store(freed, Ordering::Release);
        }
        let missing = (self.written + len - freed).saturating_sub(self.held.bytes.load(Ordering::Acquire));
        let taken = spools.take(missing);
        self.held.bytes.fetch_add(taken, Ordering::AcqRel);
        len.saturating_sub(missing - taken)
    }

    /// Appends up to a block from the front to `buffer`.
    ///
    /// # Errors
    /// From pread(2).
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let at = self.read % self.capacity;
        let contiguous = self.len().min(self.capacity - at);
        let old = buffer.len();
        buffer.resize(old + at_most(BLOCK, contiguous), 0);
        let block = buffer.get_mut(old..).unwrap_or_default();
        let n = block.len() as u64;
        if let Err(error) = self.held.file.read_exact_at(block, at) {
            buffer.truncate(old);
            return Err(error);
        }
        self.read += n;
        self.free();
        Ok(())
    }

    /// Orders what was read to be freed, if it is much.
    fn free(&self) {
        let held = &self.held;
        let to = self.read - self.read % PAGE;
        if held.keeps_all.load(Ordering::Acquire) || to < held.freed.load(Ordering::Acquire) + FREED_AT_ONCE {
            return;
        }
        let mut freeing = held.freeing();
        freeing.to = to;
        if std::mem::replace(&mut freeing.is_busy, true) {
            return;
        }
        drop(freeing);
        let (held, capacity) = (Arc::clone(held), self.capacity);
        closer::in_pieces(Box::new(move || held.free(capacity)));
    }
}

impl Drop for Ring {
    /// The last close frees the blocks of the file, and may have to wait for the disk.
    fn drop(&mut self) {
        let held = Arc::clone(&self.held);
        closer::in_pieces(Box::new(move || held.cut()));
    }
}

/// `TMPDIR`, else `/var/tmp`, which unlike `/tmp` is not kept in memory (FHS 3.0, 5.15), else what std
/// returns.
pub(super) fn directory() -> PathBuf {
    let var_tmp = PathBuf::from("/var/tmp");
    if env::var_os("TMPDIR").is_none() && var_tmp.is_dir() { var_tmp } else { env::temp_dir() }
}

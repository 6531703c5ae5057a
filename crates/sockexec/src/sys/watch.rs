//! Notices that a file loses its name.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// Room for some events. Those of a file carry no name.
const EVENTS: usize = 1024;

/// A descriptor that becomes readable when the file may have lost its name: by unlink or by a rename over it
/// (both change its link count), or by a rename of its own. It does not notice that a directory above it is
/// renamed.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: OwnedFd,
    watched: Option<i32>,
}

impl Watch {
    /// Watches no file yet.
    ///
    /// # Errors
    /// Those of `inotify_init1(2)`: EMFILE, also for the user's limit of instances (`fs.inotify.max_user_instances`).
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { inotify, watched: None })
    }

    /// Watches the file that is at this path now, instead of the one before.
    ///
    /// # Errors
    /// Those of `inotify_add_watch(2)`: ENOENT, ENOSPC.
    pub(crate) fn watch(&mut self, path: &Path) -> io::Result<()> {
        if let Some(before) = self.watched.take() {
            // Fails if that inode is gone.
            let _ = inotify::remove_watch(&self.inotify, before);
        }
        let flags = WatchFlags::ATTRIB | WatchFlags::MOVE_SELF | WatchFlags::DONT_FOLLOW;
        self.watched = Some(inotify::add_watch(&self.inotify, path, flags)?);
        Ok(())
    }

    /// The descriptor to register with the poll.
    #[expect(clippy::unnecessary_wraps, reason = "other systems have none")]
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        Some(self.inotify.as_raw_fd())
    }

    /// Reads what has come, so that what comes next is an event again. True: the file has another name now.
    pub(crate) fn was_moved(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        let mut events = Reader::new(&self.inotify, &mut buffer);
        let mut moved = false;
        while let Ok(event) = events.next() {
            moved |= Some(event.wd()) == self.watched && event.events().contains(ReadFlags::MOVE_SELF);
        }
        moved
    }
}

//! FIFOs as events. A process that holds one open is alive, and the end of file shows its death.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode};
use rustix::process::{Pid, Signal};

use super::{PATIENCE, eventually};

/// A program that holds a FIFO (step `hold`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder {
    pub(crate) pid: Pid,
    pub(crate) group: Pid,
}

impl Holder {
    /// Kills a program that no daemon kills. Call it while the FIFO shows that the program lives.
    pub(crate) fn kill(self) {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
    }
}

/// A FIFO in the test's directory.
pub(crate) struct Fifo {
    path: PathBuf,
    reader: std::fs::File,
    pending: Vec<u8>,
    ended: bool,
}

impl Fifo {
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        let path = directory.join(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .expect("a FIFO is made");
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let reader = OpenOptions::new().read(true).custom_flags(nonblock).open(&path).expect("a FIFO opens");
        Self { path, reader, pending: Vec::new(), ended: false }
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().expect("a path in UTF-8")
    }

    /// Waits for the next program that reports that it holds this FIFO.
    #[track_caller]
    pub(crate) fn holder(&mut self) -> Holder {
        let line = loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                break self.pending.drain(..=end).collect::<Vec<u8>>();
            }
            assert!(!self.ended, "the holder ended without a word");
            self.read(PATIENCE.as_secs().cast_signed());
        };
        let line = String::from_utf8(line).expect("numbers");
        let pids: Vec<Pid> =
            line.split_whitespace().map(|pid| Pid::from_raw(pid.parse().expect("a pid")).expect("a pid")).collect();
        Holder { pid: pids[0], group: pids[1] }
    }

    /// Waits until no process holds this FIFO any more.
    #[track_caller]
    pub(crate) fn wait_for_death(&mut self) {
        while !self.ended {
            self.read(PATIENCE.as_secs().cast_signed());
        }
    }

    /// Whether a process that has held this FIFO still does.
    #[track_caller]
    pub(crate) fn is_held(&mut self) -> bool {
        self.try_read();
        !self.ended
    }

    /// Whether a program has reported that it holds this FIFO, and [`Fifo::holder`] has not
    /// returned it yet.
    #[track_caller]
    pub(crate) fn was_held(&mut self) -> bool {
        self.try_read();
        !self.pending.is_empty()
    }

    #[track_caller]
    fn read(&mut self, seconds: i64) {
        let mut fds = [PollFd::new(&self.reader, PollFlags::IN)];
        let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let n = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout))).expect("poll");
        assert!(n > 0, "nothing came of {}", self.path.display());
        self.try_read();
    }

    fn try_read(&mut self) {
        let mut buffer = [0; 256];
        match self.reader.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(n) => self.pending.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{}: {error}", self.path.display()),
        }
    }
}

/// A FIFO at which a program waits (step `gate`) until the test opens it.
pub(crate) struct Gate {
    path: PathBuf,
}

impl Gate {
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        let path = directory.join(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .expect("a FIFO is made");
        Self { path }
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().expect("a path in UTF-8")
    }

    /// Waits until the program is at the gate, and lets it through.
    #[track_caller]
    pub(crate) fn open(&self) {
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        // This fails while nobody has the FIFO open to read. There is no event for that.
        eventually("a program at the gate", || {
            OpenOptions::new().write(true).custom_flags(nonblock).open(&self.path).is_ok()
        });
    }
}

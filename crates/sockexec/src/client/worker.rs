//! Calls that may wait, made by a thread of their own, so that the pump does not wait with them.
//!
//! There is no other way to write to a terminal that others have too. poll(2) calls it ready when there is
//! room for one byte, and write(2) waits until it has taken all. `O_NONBLOCK` would be set for everybody.
//! Opening it again for ourselves fails if it belongs to another user (after `su`). The thread never reads
//! more than was asked for, and only what poll(2) has seen.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::descriptor::check_reader;

/// A thread that makes one call after the other on one descriptor.
///
/// If it is dropped during a call, the thread is left behind: only a signal ends such a call, and the
/// descriptor stays open until then.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: Sender<Job>,
    results: Receiver<Done>,
    /// A byte for each result.
    bell: Arc<PipeReader>,
    busy: bool,
}

#[derive(Debug)]
enum Job {
    Read(Vec<u8>),
    Write(Vec<u8>),
}

#[derive(Debug)]
struct Done {
    buffer: Vec<u8>,
    result: io::Result<usize>,
}

impl Worker {
    /// # Errors
    /// No pipe or no thread is available.
    pub(super) fn start(fd: Arc<OwnedFd>, is_pipe: bool) -> io::Result<Self> {
        let (bell, ring) = io::pipe()?;
        rustix::io::ioctl_fionbio(&bell, true)?;
        let bell = Arc::new(bell);
        let (jobs, todo) = mpsc::channel();
        let (done, results) = mpsc::channel();
        // Kept by the thread as well, so that ringing raises no SIGPIPE when nobody listens any more.
        let kept = Arc::clone(&bell);
        let work = move || {
            work(&fd, is_pipe, &todo, &done, &ring);
            drop(kept);
        };
        thread::Builder::new().name("sockexec-client".to_owned()).spawn(work)?;
        Ok(Self { jobs, results, bell, busy: false })
    }

    /// Whether a call has begun whose result was not taken yet.
    pub(super) const fn is_busy(&self) -> bool {
        self.busy
    }

    /// As read(2), in two steps. The first call begins, and returns `WouldBlock`. Once there is [something to
    /// read](AsFd), the next call returns the result.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.busy {
            return self.begin(Job::Read(vec![0; buffer.len()]));
        }
        let done = self.finish()?;
        let n = done.result?;
        // The room for input only grows until it is used, so all of it fits.
        let bytes = done.buffer.get(..n.min(buffer.len())).unwrap_or_default();
        if let Some(place) = buffer.get_mut(..bytes.len()) {
            place.copy_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    /// As write(2), in the same two steps, the second with the same bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.busy {
            return self.begin(Job::Write(bytes.to_vec()));
        }
        self.finish()?.result
    }

    fn begin(&mut self, job: Job) -> io::Result<usize> {
        self.jobs.send(job).map_err(|_| gone())?;
        self.busy = true;
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn finish(&mut self) -> io::Result<Done> {
        (&*self.bell).read_exact(&mut [0])?;
        self.busy = false;
        self.results.recv().map_err(|_| gone())
    }
}

impl AsFd for Worker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that reads or writes for the program is gone")
}

fn work(fd: &OwnedFd, is_pipe: bool, jobs: &Receiver<Job>, results: &Sender<Done>, mut bell: &PipeWriter) {
    for job in jobs {
        let done = match job {
            Job::Read(mut buffer) => {
                let result = patiently(fd, PollFlags::IN, || rustix::io::read(fd, &mut *buffer));
                Done { buffer, result }
            }
            Job::Write(bytes) => {
                let result = patiently(fd, PollFlags::OUT, || {
                    if is_pipe {
                        check_reader(fd)?;
                    }
                    rustix::io::write(fd, &bytes)
                });
                Done { buffer: bytes, result }
            }
        };
        if results.send(done).is_err() || bell.write_all(&[0]).is_err() {
            break;
        }
    }
}

/// Waits even if others have made the descriptor non-blocking.
fn patiently(
    fd: &OwnedFd,
    interest: PollFlags,
    mut call: impl FnMut() -> rustix::io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                // The next call reports what is wrong with it.
                let _ = rustix::event::poll(&mut [PollFd::new(fd, interest)], None);
            }
            other => return Ok(other?),
        }
    }
}

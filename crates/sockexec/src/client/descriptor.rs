//! Reads and writes descriptors without waiting, even if other processes have them too.
//!
//! `O_NONBLOCK` belongs not to a descriptor but to the open file description behind it (fcntl(2)). What a
//! program has as descriptors 0, 1 and 2 it shares with the shell that started it. Setting the flag there
//! would break the shell, and whatever else reads the same terminal or pipe, long after this process has
//! ended. So it is never set on a descriptor that was given to us. Instead:
//!
//! | what it is | how it is kept from waiting |
//! | --- | --- |
//! | a pipe that we made | `O_NONBLOCK`: the two ends of a pipe are two descriptions, so the other one stays as it was |
//! | a socket | `MSG_DONTWAIT` |
//! | a pipe of others, `/dev/null` | `RWF_NOWAIT`, for each call (preadv2(2); pipes support it since Linux 6.5) |
//! | a file | nothing: it is always ready (poll(2)) |
//! | all else: terminals, other devices, pipes without `RWF_NOWAIT` | a thread waits instead (`worker.rs`) |

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FileType;
use rustix::io::Errno;
#[cfg(target_os = "linux")]
use rustix::io::ReadWriteFlags;
use rustix::net::{RecvFlags, SendFlags};

use super::worker::Worker;

/// How a descriptor is kept from waiting.
#[derive(Debug)]
enum Way {
    /// It never waits: a file.
    Plain,
    /// Our end of a pipe that we made: it is non-blocking.
    Own,
    Socket,
    /// Tried with `RWF_NOWAIT`, until that turns out to be unsupported.
    #[cfg(target_os = "linux")]
    NoWait,
    /// A thread waits, from the first call on.
    Waits(Option<Worker>),
}

/// A descriptor that is read or written without waiting.
#[derive(Debug)]
pub(super) struct Descriptor {
    fd: Arc<OwnedFd>,
    way: Way,
    is_pipe: bool,
    /// The system may be able to write to a pipe without SIGPIPE.
    #[cfg(target_os = "linux")]
    may_be_quiet: bool,
}

impl Descriptor {
    /// A descriptor that others may have too.
    pub(super) fn shared(fd: OwnedFd) -> Self {
        let kind = rustix::fs::fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let way = match kind {
            Ok(FileType::RegularFile | FileType::Directory) => Way::Plain,
            Ok(FileType::Socket) => Way::Socket,
            #[cfg(target_os = "linux")]
            Ok(_) | Err(_) => Way::NoWait,
            #[cfg(not(target_os = "linux"))]
            Ok(_) | Err(_) => Way::Waits(None),
        };
        Self::new(fd, way, kind == Ok(FileType::Fifo))
    }

    /// An end of a pipe that nobody else has.
    pub(super) fn own(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self::new(fd, Way::Own, true))
    }

    fn new(fd: OwnedFd, way: Way, is_pipe: bool) -> Self {
        Self {
            fd: Arc::new(fd),
            way,
            is_pipe,
            #[cfg(target_os = "linux")]
            may_be_quiet: true,
        }
    }

    pub(super) fn is_terminal(&self) -> bool {
        rustix::termios::isatty(&*self.fd)
    }

    /// What to wait for with poll(2) before the next [`read`](Self::read).
    pub(super) fn readable(&self) -> (BorrowedFd<'_>, PollFlags) {
        self.event(PollFlags::IN)
    }

    /// What to wait for with poll(2) when [`write`](Self::write) has said that it would block.
    pub(super) fn writable(&self) -> (BorrowedFd<'_>, PollFlags) {
        self.event(PollFlags::OUT)
    }

    fn event(&self, interest: PollFlags) -> (BorrowedFd<'_>, PollFlags) {
        match &self.way {
            Way::Waits(Some(worker)) if worker.is_busy() => (worker.as_fd(), PollFlags::IN),
            _ => (self.fd.as_fd(), interest),
        }
    }

    /// Reads what is there. Call it when poll(2) has reported it as [`readable`](Self::readable).
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.way {
            Way::Plain | Way::Own => Ok(rustix::io::read(&*self.fd, buffer)?),
            Way::Socket => {
                // MSG_TRUNC is not asked for, so both counts are the same.
                let (n, _) = rustix::net::recv(&*self.fd, buffer, RecvFlags::DONTWAIT)?;
                Ok(n)
            }
            #[cfg(target_os = "linux")]
            Way::NoWait => match nowait::read(&self.fd, buffer) {
                Err(error) if nowait::is_unknown(error) => self.worker()?.read(buffer),
                other => Ok(other?),
            },
            Way::Waits(_) => self.worker()?.read(buffer),
        }
    }

    /// Writes as much as there is room for. A pipe whose reader is gone is an error, whatever this process
    /// does with SIGPIPE. After `WouldBlock` call it again with the same bytes, once poll(2) has reported it
    /// as [`writable`](Self::writable).
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.way {
            Way::Plain => Ok(rustix::io::write(&*self.fd, bytes)?),
            #[cfg(target_os = "linux")]
            Way::Own => Ok(self.write_quietly(bytes, ReadWriteFlags::empty())?),
            #[cfg(not(target_os = "linux"))]
            Way::Own => {
                check_reader(&self.fd)?;
                Ok(rustix::io::write(&*self.fd, bytes)?)
            }
            Way::Socket => Ok(rustix::net::send(&*self.fd, bytes, SendFlags::DONTWAIT | NO_SIGNAL)?),
            #[cfg(target_os = "linux")]
            Way::NoWait => match self.write_quietly(bytes, ReadWriteFlags::NOWAIT) {
                Err(error) if nowait::is_unknown(error) => self.worker()?.write(bytes),
                other => Ok(other?),
            },
            Way::Waits(_) => self.worker()?.write(bytes),
        }
    }

    /// With `RWF_NOSIGNAL` (Linux 6.18), or after a check that there is a reader.
    #[cfg(target_os = "linux")]
    fn write_quietly(&mut self, bytes: &[u8], flags: ReadWriteFlags) -> Result<usize, Errno> {
        if self.may_be_quiet {
            match nowait::write(&self.fd, bytes, flags | nowait::NO_SIGNAL) {
                Err(error) if nowait::is_unknown(error) => self.may_be_quiet = false,
                other => return other,
            }
        }
        if self.is_pipe {
            check_reader(&self.fd)?;
        }
        nowait::write(&self.fd, bytes, flags)
    }

    /// From here on a thread waits.
    fn worker(&mut self) -> io::Result<&mut Worker> {
        if !matches!(self.way, Way::Waits(Some(_))) {
            self.way = Way::Waits(Some(Worker::start(Arc::clone(&self.fd), self.is_pipe)?));
        }
        match &mut self.way {
            Way::Waits(Some(worker)) => Ok(worker),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Makes a reader that is gone an error, whatever this process does with SIGPIPE.
#[cfg(not(target_vendor = "apple"))]
pub(super) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
pub(super) const NO_SIGNAL: SendFlags = SendFlags::empty();

/// Reports that nobody reads a pipe any more before a write would, with SIGPIPE. The reader may still go in
/// between, but a thread that cannot block the signal can do no better.
pub(super) fn check_reader(fd: &OwnedFd) -> Result<(), Errno> {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    rustix::event::poll(&mut fds, Some(&Timespec::default()))?;
    let [looked_at] = fds;
    let is_gone = looked_at.revents().intersects(PollFlags::ERR | PollFlags::HUP);
    if is_gone { Err(Errno::PIPE) } else { Ok(()) }
}

/// `RWF_NOWAIT` and the like at the current position, which pipes lack: an offset of -1.
#[cfg(target_os = "linux")]
mod nowait {
    use std::io::{IoSlice, IoSliceMut};
    use std::os::fd::OwnedFd;

    use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};

    /// `RWF_NOSIGNAL`, which rustix does not define yet.
    pub(super) const NO_SIGNAL: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x100);

    /// Whether the flag is what the system refuses.
    pub(super) const fn is_unknown(error: Errno) -> bool {
        matches!(error, Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)
    }

    pub(super) fn read(fd: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
        preadv2(fd, &mut [IoSliceMut::new(buffer)], u64::MAX, ReadWriteFlags::NOWAIT)
    }

    pub(super) fn write(fd: &OwnedFd, bytes: &[u8], flags: ReadWriteFlags) -> Result<usize, Errno> {
        pwritev2(fd, &[IoSlice::new(bytes)], u64::MAX, flags)
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::poll;

    use super::*;

    fn would_block(result: &io::Result<usize>) -> bool {
        matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    fn is_ready((fd, interest): (BorrowedFd<'_>, PollFlags), timeout: Option<Timespec>) -> bool {
        poll(&mut [PollFd::from_borrowed_fd(fd, interest)], timeout.as_ref()).unwrap() > 0
    }

    fn is_ready_now(event: (BorrowedFd<'_>, PollFlags)) -> bool {
        is_ready(event, Some(Timespec::default()))
    }

    /// Never waits, whatever way is used, and leaves the pipe as it was.
    #[test]
    fn pipes_of_others() {
        let (reader, writer) = io::pipe().unwrap();
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        let mut reader = Descriptor::shared(reader.into());
        let mut writer = Descriptor::shared(writer.into());
        check(&mut reader, &mut writer);
        assert_eq!(rustix::fs::fcntl_getfl(&*writer.fd).unwrap(), flags);
    }

    /// As on a system without `RWF_NOWAIT`.
    #[test]
    fn pipes_for_which_a_thread_waits() {
        let (reader, writer) = io::pipe().unwrap();
        let mut reader = Descriptor::new(reader.into(), Way::Waits(None), true);
        let mut writer = Descriptor::new(writer.into(), Way::Waits(None), true);
        check(&mut reader, &mut writer);
    }

    /// A megabyte, with a full pipe and an empty one on the way.
    fn check(reader: &mut Descriptor, writer: &mut Descriptor) {
        let bytes = vec![7; 1 << 20];
        let mut written = 0;
        let mut write = |until_full: bool| {
            while written < bytes.len() {
                match writer.write(&bytes[written..]) {
                    Ok(n) => written += n,
                    result if until_full => {
                        assert!(would_block(&result));
                        break;
                    }
                    result => {
                        assert!(would_block(&result));
                        if !is_ready_now(writer.writable()) {
                            break;
                        }
                    }
                }
            }
            written
        };
        write(true);
        let mut read = 0;
        let mut buffer = vec![0; 1 << 20];
        while read < bytes.len() {
            if is_ready_now(reader.readable()) {
                match reader.read(&mut buffer) {
                    Ok(n) => read += n,
                    result => assert!(would_block(&result)),
                }
            }
            write(false);
        }
        assert_eq!(read, bytes.len());
        assert!(!is_ready_now(reader.readable()));
    }

    /// The read is called although nothing is there, as if another reader was faster: only the thread waits.
    #[test]
    fn a_read_that_waits() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut reader = Descriptor::new(reader.into(), Way::Waits(None), true);
        let mut buffer = [0; 8];
        assert!(would_block(&reader.read(&mut buffer)));
        assert!(!is_ready_now(reader.readable()));
        io::Write::write_all(&mut writer, b"late").unwrap();
        assert!(is_ready(reader.readable(), None));
        assert_eq!(reader.read(&mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"late");
        drop(writer);
        assert!(is_ready(reader.readable(), None));
        assert!(would_block(&reader.read(&mut buffer)));
        assert!(is_ready(reader.readable(), None));
        assert_eq!(reader.read(&mut buffer).unwrap(), 0);
    }

    /// Whatever way is used, and without what Linux 6.18 has.
    #[cfg(target_os = "linux")]
    #[test]
    fn pipes_that_nobody_reads() {
        for quiet in [true, false] {
            for way in [|| Way::Own, || Way::NoWait, || Way::Waits(None)] {
                let (reader, writer) = io::pipe().unwrap();
                let mut writer = Descriptor::new(writer.into(), way(), true);
                writer.may_be_quiet = quiet;
                drop(reader);
                let mut result = writer.write(b"x");
                if would_block(&result) {
                    assert!(is_ready(writer.writable(), None));
                    result = writer.write(b"x");
                }
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            }
        }
    }

    #[test]
    fn sockets() {
        let (one, two) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut one = Descriptor::shared(one.into());
        assert!(would_block(&one.read(&mut [0])));
        assert_eq!(one.write(b"hello").unwrap(), 5);
        drop(two);
        assert_eq!(one.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

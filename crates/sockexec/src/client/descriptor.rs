//! Reading and writing descriptors without waiting, whoever else has them.
//!
//! `O_NONBLOCK` is not a property of a descriptor but of the open file description behind it
//! (fcntl(2)), and what a program has as descriptors 0, 1 and 2 it shares with the shell that started it:
//! set there, it would break the shell and whatever else reads the same terminal or pipe, long after
//! this process. So it is set on nothing that was given to us. Instead:
//!
//! | what it is | how it is kept from waiting |
//! | --- | --- |
//! | a pipe that we made | `O_NONBLOCK`: the two ends of a pipe are two descriptions, so the other stays as it was |
//! | a socket | `MSG_DONTWAIT` |
//! | a pipe of others, `/dev/null` | `RWF_NOWAIT`, for this one call (preadv2(2); pipes have it since Linux 6.5) |
//! | the same, without that | poll(2), then one read, or one write of at most `PIPE_BUF` bytes, for which a pipe that is ready has room. Only somebody else who reads or writes the same pipe between the two can make it wait, and then only for him |
//! | a terminal or other device | likewise |
//! | a file | nothing: it is always ready (poll(2)) |

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// How a descriptor is kept from waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It never waits: a file, or one on which `O_NONBLOCK` is set.
    Plain,
    Socket,
    /// Tried with `RWF_NOWAIT`, until it turns out not to have it.
    #[cfg(target_os = "linux")]
    NoWait,
    /// Only when poll(2) has said that it is ready.
    Polled,
}

/// A descriptor that is read or written without waiting.
#[derive(Debug)]
pub(super) struct Descriptor {
    fd: OwnedFd,
    way: Way,
}

impl Descriptor {
    /// One that others may have too.
    pub(super) fn shared(fd: OwnedFd) -> Self {
        let way = match rustix::fs::fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::RegularFile | FileType::BlockDevice | FileType::Directory) => Way::Plain,
            Ok(FileType::Socket) => Way::Socket,
            #[cfg(target_os = "linux")]
            Ok(_) | Err(_) => Way::NoWait,
            #[cfg(not(target_os = "linux"))]
            Ok(_) | Err(_) => Way::Polled,
        };
        Self { fd, way }
    }

    /// An end of a pipe that nobody else has.
    pub(super) fn own(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd, way: Way::Plain })
    }

    /// Reads what is there; `ready`: poll(2) has just said that something is.
    pub(super) fn read(&mut self, buffer: &mut [u8], ready: bool) -> io::Result<usize> {
        match self.way {
            Way::Plain => Ok(rustix::io::read(&self.fd, buffer)?),
            Way::Socket => {
                // MSG_TRUNC is not asked for, so both counts are the same.
                let (n, _) = rustix::net::recv(&self.fd, buffer, RecvFlags::DONTWAIT)?;
                Ok(n)
            }
            #[cfg(target_os = "linux")]
            Way::NoWait => match nowait::read(&self.fd, buffer) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    self.way = Way::Polled;
                    self.read(buffer, ready)
                }
                other => Ok(other?),
            },
            Way::Polled if ready => Ok(rustix::io::read(&self.fd, buffer)?),
            Way::Polled => Err(Errno::WOULDBLOCK.into()),
        }
    }

    /// Writes what there is room for; `ready`: poll(2) has just said that there is some.
    pub(super) fn write(&mut self, bytes: &[u8], ready: bool) -> io::Result<usize> {
        match self.way {
            Way::Plain => Ok(rustix::io::write(&self.fd, bytes)?),
            Way::Socket => Ok(rustix::net::send(&self.fd, bytes, SendFlags::DONTWAIT | NO_SIGNAL)?),
            #[cfg(target_os = "linux")]
            Way::NoWait => match nowait::write(&self.fd, bytes) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    self.way = Way::Polled;
                    self.write(bytes, ready)
                }
                other => Ok(other?),
            },
            Way::Polled if ready => {
                let piece = bytes.get(..rustix::pipe::PIPE_BUF).unwrap_or(bytes);
                Ok(rustix::io::write(&self.fd, piece)?)
            }
            Way::Polled => Err(Errno::WOULDBLOCK.into()),
        }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A reader that is gone is an error, whatever this process does with SIGPIPE.
#[cfg(not(target_vendor = "apple"))]
pub(super) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
pub(super) const NO_SIGNAL: SendFlags = SendFlags::empty();

/// `RWF_NOWAIT` at the current position, which pipes do not have: an offset of -1.
#[cfg(target_os = "linux")]
mod nowait {
    use std::io::{IoSlice, IoSliceMut};
    use std::os::fd::OwnedFd;

    use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};

    pub(super) fn read(fd: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
        preadv2(fd, &mut [IoSliceMut::new(buffer)], u64::MAX, ReadWriteFlags::NOWAIT)
    }

    pub(super) fn write(fd: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
        pwritev2(fd, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn would_block(result: &io::Result<usize>) -> bool {
        matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Never waits, whatever way is taken; and leaves the pipe as it was.
    #[test]
    fn pipes_of_others() {
        let (reader, writer) = io::pipe().unwrap();
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        let mut reader = Descriptor::shared(reader.into());
        let mut writer = Descriptor::shared(writer.into());
        let mut buffer = vec![0; 1 << 20];
        assert!(would_block(&reader.read(&mut buffer, false)));
        let mut written = 0;
        while let Ok(n) = writer.write(&buffer, is_ready(&writer, rustix::event::PollFlags::OUT)) {
            written += n;
        }
        assert!(written >= 4096, "{written}");
        assert!(would_block(&writer.write(b"x", false)));
        let mut read = 0;
        while let Ok(n) = reader.read(&mut buffer, is_ready(&reader, rustix::event::PollFlags::IN)) {
            read += n;
        }
        assert_eq!(read, written);
        assert_eq!(rustix::fs::fcntl_getfl(&writer).unwrap(), flags);
    }

    fn is_ready(fd: &Descriptor, interest: rustix::event::PollFlags) -> bool {
        let mut fds = [rustix::event::PollFd::new(fd, interest)];
        rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default())).unwrap() > 0
    }

    /// As on a system without `RWF_NOWAIT`: a full pipe is never written to, and one that has room gets no
    /// more than it surely has.
    #[test]
    fn pipes_that_are_polled() {
        let (reader, writer) = io::pipe().unwrap();
        let mut reader = Descriptor { fd: reader.into(), way: Way::Polled };
        let mut writer = Descriptor { fd: writer.into(), way: Way::Polled };
        let bytes = vec![7; 1 << 20];
        assert!(would_block(&writer.write(&bytes, false)));
        let mut written = 0;
        while is_ready(&writer, rustix::event::PollFlags::OUT) {
            assert_eq!(writer.write(&bytes, true).unwrap(), rustix::pipe::PIPE_BUF);
            written += rustix::pipe::PIPE_BUF;
        }
        let mut buffer = vec![0; 1 << 20];
        assert!(would_block(&reader.read(&mut buffer, false)));
        let mut read = 0;
        while is_ready(&reader, rustix::event::PollFlags::IN) {
            read += reader.read(&mut buffer, true).unwrap();
        }
        assert_eq!(read, written);
    }

    #[test]
    fn sockets() {
        let (one, two) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut one = Descriptor::shared(one.into());
        assert!(would_block(&one.read(&mut [0], false)));
        assert_eq!(one.write(b"hello", false).unwrap(), 5);
        drop(two);
        assert_eq!(one.write(b"x", false).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

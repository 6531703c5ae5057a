//! The caller's ends of a program's streams.

use std::io::{self, IoSlice, IoSliceMut, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

/// The caller's ends of the pipes.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pub(super) stdin: Option<PipeWriter>,
    pub(super) stdout: Option<PipeReader>,
    pub(super) stderr: Option<PipeReader>,
}

/// The writing end of a program's standard input. Dropping it ends the input.
///
/// Once the program has ended or, in version 2 of the protocol, has closed its standard input, a write fails
/// with [`BrokenPipe`](io::ErrorKind::BrokenPipe), as for any pipe.
#[derive(Debug)]
pub struct ChildStdin(pub(super) PipeWriter);

/// The reading end of a program's standard output.
#[derive(Debug)]
pub struct ChildStdout(pub(super) PipeReader);

/// The reading end of a program's standard error.
#[derive(Debug)]
pub struct ChildStderr(pub(super) PipeReader);

macro_rules! write {
    ($($type:ty)*) => {$(
        impl Write for $type {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                (&self.0).write(bytes)
            }

            fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
                (&self.0).write_vectored(slices)
            }

            fn flush(&mut self) -> io::Result<()> {
                (&self.0).flush()
            }
        }
    )*};
}

// As in the standard library: only writing works by reference.
write!(ChildStdin & ChildStdin);

macro_rules! read {
    ($($type:ty)*) => {$(
        impl Read for $type {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(buffer)
            }

            fn read_vectored(&mut self, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                self.0.read_vectored(slices)
            }

            fn read_to_end(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
                self.0.read_to_end(bytes)
            }
        }
    )*};
}

read!(ChildStdout ChildStderr);

macro_rules! descriptor {
    ($($type:ident)*) => {$(
        impl AsFd for $type {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }

        impl AsRawFd for $type {
            fn as_raw_fd(&self) -> RawFd {
                self.0.as_raw_fd()
            }
        }

        impl IntoRawFd for $type {
            fn into_raw_fd(self) -> RawFd {
                self.0.into_raw_fd()
            }
        }

        impl From<$type> for OwnedFd {
            fn from(from: $type) -> Self {
                from.0.into()
            }
        }

        /// The descriptor should be a pipe; otherwise reads and writes act as they do on it.
        impl From<OwnedFd> for $type {
            fn from(fd: OwnedFd) -> Self {
                Self(fd.into())
            }
        }
    )*};
}

descriptor!(ChildStdin ChildStdout ChildStderr);

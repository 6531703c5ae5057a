//! The caller's ends of a program's streams.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

use crate::client::Stdio;

/// The writing end of a program's standard input, as [`sockexec::ChildStdin`](crate::ChildStdin).
///
/// Dropping it ends the input. As with tokio's own, `shutdown` does not.
#[derive(Debug)]
pub struct ChildStdin(pipe::Sender);

/// The reading end of a program's standard output, as [`sockexec::ChildStdout`](crate::ChildStdout).
#[derive(Debug)]
pub struct ChildStdout(pipe::Receiver);

/// The reading end of a program's standard error, as [`sockexec::ChildStderr`](crate::ChildStderr).
#[derive(Debug)]
pub struct ChildStderr(pipe::Receiver);

impl AsyncWrite for ChildStdin {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

macro_rules! read {
    ($($type:ty)*) => {$(
        impl $type {
            pub(super) fn into_inner(self) -> pipe::Receiver {
                self.0
            }
        }

        impl AsyncRead for $type {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_read(context, buffer)
            }
        }
    )*};
}

read!(ChildStdout ChildStderr);

macro_rules! descriptor {
    ($($type:ident($end:ident))*) => {$(
        impl $type {
            /// Takes an end of a pipe, which becomes non-blocking.
            pub(super) fn new(end: impl Into<OwnedFd>) -> io::Result<Self> {
                pipe::$end::from_owned_fd(end.into()).map(Self)
            }

            /// The descriptor, which blocks from now on: for another program, or for use without tokio.
            ///
            /// # Errors
            /// Those of fcntl(2).
            pub fn into_owned_fd(self) -> io::Result<OwnedFd> {
                self.0.into_blocking_fd()
            }
        }

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

        /// For another program, like a shell's `|`.
        impl TryFrom<$type> for Stdio {
            type Error = io::Error;

            fn try_from(end: $type) -> io::Result<Self> {
                end.into_owned_fd().map(Self::from)
            }
        }
    )*};
}

descriptor!(ChildStdin(Sender) ChildStdout(Receiver) ChildStderr(Receiver));

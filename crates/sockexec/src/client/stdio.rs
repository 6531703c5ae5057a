//! Where the streams of a program come from and go to.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::descriptor::Descriptor;
use super::pipes::{ChildStderr, ChildStdin, ChildStdout};

/// Where a stream of a program comes from or goes to, as [`std::process::Stdio`].
///
/// The program runs in the daemon and does not get these descriptors themselves, except after
/// [`Command::pass_stdio`](super::Command::pass_stdio): this process reads and writes them for it. They are
/// duplicated, not changed, so they stay blocking for everyone who shares them.
///
/// A clone is the same descriptor, as is that of a [`Command`](super::Command) with it. A pipe is open until
/// the last of them was dropped.
#[derive(Debug, Clone)]
pub struct Stdio(pub(super) Kind);

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Null,
    Piped,
    Inherit,
    /// This stream of this process, whichever stream of the program it is for.
    Own(Channel),
    /// Shared, not duplicated, so that cloning cannot fail.
    Descriptor(Arc<OwnedFd>),
}

impl Stdio {
    /// Nothing: standard input is at its end from the start, and output is read and dropped.
    #[must_use]
    pub const fn null() -> Self {
        Self(Kind::Null)
    }

    /// A pipe. Its other end is in the [`Child`](super::Child), or
    /// [`Command::output`](super::Command::output) collects from it. With
    /// [`Command::status`](super::Command::status), where nobody has the other end, it is the same as
    /// [`Stdio::null`].
    #[must_use]
    pub const fn piped() -> Self {
        Self(Kind::Piped)
    }

    /// The same stream of this process.
    #[must_use]
    pub const fn inherit() -> Self {
        Self(Kind::Inherit)
    }
}

/// One of the three streams.
#[derive(Debug, Clone, Copy)]
pub(super) enum Channel {
    Stdin,
    Stdout,
    Stderr,
}

impl Kind {
    /// A duplicate of the descriptor; `None` for the kinds that have none.
    pub(super) fn open(&self, channel: Channel) -> io::Result<Option<OwnedFd>> {
        match (self, channel) {
            (Self::Null | Self::Piped, _) => Ok(None),
            (Self::Descriptor(fd), _) => fd.try_clone().map(Some),
            (Self::Inherit, Channel::Stdin) | (Self::Own(Channel::Stdin), _) => {
                io::stdin().as_fd().try_clone_to_owned().map(Some)
            }
            (Self::Inherit, Channel::Stdout) | (Self::Own(Channel::Stdout), _) => {
                io::stdout().as_fd().try_clone_to_owned().map(Some)
            }
            (Self::Inherit, Channel::Stderr) | (Self::Own(Channel::Stderr), _) => {
                io::stderr().as_fd().try_clone_to_owned().map(Some)
            }
        }
    }

    /// As [`Kind::open`], ready to be read or written without waiting.
    pub(super) fn descriptor(&self, channel: Channel) -> io::Result<Option<Descriptor>> {
        Ok(self.open(channel)?.map(Descriptor::shared))
    }
}

macro_rules! from_descriptor {
    ($($type:ty)*) => {$(
        impl From<$type> for Stdio {
            fn from(from: $type) -> Self {
                Self(Kind::Descriptor(Arc::new(from.into())))
            }
        }
    )*};
}

from_descriptor! {
    OwnedFd
    File
    PipeReader
    PipeWriter
    std::os::unix::net::UnixStream
    std::process::ChildStdin
    std::process::ChildStdout
    std::process::ChildStderr
    ChildStdin
    ChildStdout
    ChildStderr
}

/// This process's standard output; for a program's standard error, what a shell writes as `2>&1`.
impl From<io::Stdout> for Stdio {
    fn from(_: io::Stdout) -> Self {
        Self(Kind::Own(Channel::Stdout))
    }
}

/// This process's standard error; for a program's standard output, what a shell writes as `>&2`.
impl From<io::Stderr> for Stdio {
    fn from(_: io::Stderr) -> Self {
        Self(Kind::Own(Channel::Stderr))
    }
}

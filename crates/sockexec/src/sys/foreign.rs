//! Descriptors that came from a client, and what closing them may cost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::sockopt::socket_type;

use super::closer::{self, Counted};

/// Whether any is open. A child that copies the descriptor table closes its copies before its exec. If the
/// daemon has closed its own meanwhile, the child is the one that waits.
pub(crate) fn is_any_open() -> bool {
    Counted::is_there_one()
}

/// A client's descriptor. If it is a socket, dropping it closes it without making its owner wait: see
/// [`closer`].
#[derive(Debug)]
pub(crate) struct Foreign(
    /// `Some` until it is dropped.
    Option<Counted>,
);

impl From<OwnedFd> for Foreign {
    fn from(descriptor: OwnedFd) -> Self {
        Self(Some(descriptor.into()))
    }
}

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Some(descriptor) => descriptor.as_fd(),
            None => unreachable!("taken by drop alone"),
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // Whatever it looks like now: others who have the socket may set the option, or queue another socket
        // in it, between a look and the close.
        if let Some(socket) = self.0.take_if(|descriptor| socket_type(descriptor).is_ok()) {
            closer::close_socket(socket);
        }
    }
}

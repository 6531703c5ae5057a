//! Descriptors that came from a client, and what closing them may cost.
//!
//! close(2) of the last descriptor of a socket with `SO_LINGER` waits until what it has sent is acknowledged or its time is up,
//! whatever its `O_NONBLOCK` (socket(7)): a client that lets the daemon make the last close would stop it for everybody. So that is done on a thread of
//! its own. The option itself is left alone, as others may still use the socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::io::ioctl_fionread;
use rustix::net::sockopt::{socket_linger, socket_type};
use rustix::net::{AddressFamily, SocketType, getsockname};

/// The stack of a thread that closes one descriptor, in bytes. Only what is touched costs memory.
const STACK: usize = 64 << 10;

/// How many are open, or are being closed.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Whether any is open. A child that copies the table of descriptors closes its copies by its exec: if the daemon's were closed
/// meanwhile it is the child that waits.
pub(crate) fn is_any_open() -> bool {
    COUNT.load(Ordering::Acquire) > 0
}

/// A descriptor of a client's. Dropped, it is closed without making its owner wait.
#[derive(Debug)]
pub(crate) struct Foreign(
    /// There until it is dropped.
    Option<Open>,
);

/// Its fields are dropped in this order.
#[derive(Debug)]
struct Open {
    descriptor: OwnedFd,
    _counted: Counted,
}

#[derive(Debug)]
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Release);
    }
}

impl From<OwnedFd> for Foreign {
    fn from(descriptor: OwnedFd) -> Self {
        COUNT.fetch_add(1, Ordering::Relaxed);
        Self(Some(Open { descriptor, _counted: Counted }))
    }
}

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Some(open) => open.descriptor.as_fd(),
            None => unreachable!("taken by drop alone"),
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Some(open) = self.0.take_if(|open| may_wait(open.descriptor.as_fd())) {
            let thread = thread::Builder::new().name("close".to_owned()).stack_size(STACK);
            // Where no thread is to be had the closure is dropped here, and the descriptor with it: there is nobody else to close it.
            let _ = thread.spawn(move || drop(open));
        }
    }
}

/// Whether closing it may take long: a socket that lingers, or one of UNIX in which another may be under way, which is closed
/// with it.
fn may_wait(descriptor: BorrowedFd<'_>) -> bool {
    match socket_linger(descriptor) {
        Ok(None) => may_hold_others(descriptor),
        Ok(Some(_)) => true,
        // It is no socket.
        Err(_) => false,
    }
}

/// Whether descriptors may be under way in it. A stream has none without bytes; of the other kinds the system does not tell, nor of the
/// connections that wait to be accepted.
fn may_hold_others(socket: BorrowedFd<'_>) -> bool {
    let is_unix = getsockname(socket).is_ok_and(|address| address.address_family() == AddressFamily::UNIX);
    is_unix && !(socket_type(socket) == Ok(SocketType::STREAM) && ioctl_fionread(socket) == Ok(0))
}

//! Orders to a daemon from other threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::waker::Waker;

/// Gives orders to a running daemon, from any thread.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    orders: AtomicU8,
    waker: Waker,
}

impl Handle {
    pub(super) fn new(waker: Waker) -> Self {
        Self { shared: Arc::new(Shared { orders: AtomicU8::new(0), waker }) }
    }

    /// Does what TERM does: no more clients, TERM to all programs, KILL after the kill timeout. Called again,
    /// KILL at once. With [`Builder::drain`](super::Builder::drain) the first call lets all that are here
    /// finish, and TERM and KILL come with the next two.
    pub fn shut_down(&self) {
        // More than three orders are the same as three.
        let _ = self.shared.orders.fetch_update(Ordering::AcqRel, Ordering::Acquire, |orders| orders.checked_add(1));
        self.wake();
    }

    /// Makes the loop turn once.
    pub(super) fn wake(&self) {
        if let Err(error) = self.shared.waker.wake() {
            log::warn!("cannot wake the daemon: {error}");
        }
    }

    /// How many times [`Handle::shut_down`] was called since this was last called.
    pub(super) fn take_orders(&self) -> u8 {
        self.shared.orders.swap(0, Ordering::AcqRel)
    }
}

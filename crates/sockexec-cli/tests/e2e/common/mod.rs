//! What the tests share: the daemon, its clients, and ways to wait for what they do.

mod client;
mod daemon;
mod fifo;
mod fixture;
mod process;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use client::{Client, Reply, exit_code, pairs, request};
pub(crate) use daemon::{Daemon, Launch, Stopped, binary};
pub(crate) use fifo::{Fifo, Gate};
pub(crate) use fixture::{fixture, steps};
pub(crate) use process::{Process, empty_groups_are_noticed, is_refused, kernel_is_before, wait_for_exit};

/// How long a test waits for what must happen: only a fault takes that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds. For what has no event to wait for.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The file of a socket that is gone. Nobody ever listens on it: a child of another test that has not come to its exec may still hold
/// what is closed here, and a daemon would find it alive.
#[track_caller]
pub(crate) fn stale_socket(path: &Path) {
    let stale = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None);
    rustix::net::bind(stale.expect("a socket"), &rustix::net::SocketAddrUnix::new(path).expect("a path"))
        .expect("a place");
}

//! What the tests share: the daemon, its clients, and ways to wait for what they do.

mod client;
mod daemon;
mod fifo;
mod fixture;
mod process;

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::pattern::Pattern;

pub(crate) use client::{Client, Reply, exit_code, pairs, request, show_pairs};
pub(crate) use daemon::{Daemon, Launch, Stopped, binary};
pub(crate) use fifo::{Fifo, Gate};
pub(crate) use fixture::{fixture, steps, with_stubborn_child};
pub(crate) use process::{Process, empty_groups_are_noticed, is_refused, kernel_is_before, wait_for_exit};

/// How long a test waits for an event. Only a fault takes that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds, where there is no event to wait for.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until a count has become positive and then stays the same over many looks, for longer than a
/// busy machine keeps a thread waiting.
#[track_caller]
pub(crate) fn wait_until_stuck(mut count: impl FnMut() -> u64) {
    let (mut last, mut same) = (0, 0);
    eventually("a count that no longer grows", || {
        let now = count();
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
        same > 200
    });
}

/// Tells the threads of a scope to end, also when the test fails. Otherwise it would wait for them
/// for ever.
pub(crate) struct SetOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The first `len` bytes of the fixture's pattern.
pub(crate) fn pattern(len: u64) -> Vec<u8> {
    let (mut pattern, mut bytes) = (Pattern::new(), Vec::new());
    while pattern.position() < len {
        let piece = pattern.peek(len - pattern.position());
        bytes.extend_from_slice(piece);
        let n = piece.len();
        pattern.advance(n);
    }
    bytes
}

/// Writes a file that can be executed as soon as this returns.
///
/// Another process writes it. A descriptor of this one lives on in a child that another test starts
/// meanwhile, until that child's exec, and the kernel executes no file that anybody has open to
/// write (ETXTBSY).
#[track_caller]
pub(crate) fn write_program(path: &Path, content: &[u8]) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut shell = shell.spawn().expect("a shell");
    shell.stdin.take().expect("a pipe").write_all(content).expect("the shell reads");
    assert!(shell.wait().expect("wait").success(), "{} cannot be written", path.display());
}

/// A socket for [`stale_socket`] and [`full_backlog`].
///
/// Tests run side by side in one process. Without close-on-exec the daemon of another test inherits
/// what this one has open, and keeps it: a socket goes on listening, and the other daemon has fewer
/// descriptors than its test allows.
#[track_caller]
fn unix_socket() -> OwnedFd {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket")
}

/// Leaves the file of a socket that is gone. Nobody ever listens on it: a socket that listened and was
/// closed could live on in a child of another test that has not reached its exec.
#[track_caller]
pub(crate) fn stale_socket(path: &Path) {
    rustix::net::bind(unix_socket(), &SocketAddrUnix::new(path).expect("a path")).expect("a place");
}

/// A listening socket whose backlog is full, and the connection that fills it.
#[track_caller]
pub(crate) fn full_backlog(path: &Path) -> (OwnedFd, UnixStream) {
    let listener = unix_socket();
    rustix::net::bind(&listener, &SocketAddrUnix::new(path).expect("a path")).expect("a place");
    rustix::net::listen(&listener, 0).expect("a socket that listens");
    let first = UnixStream::connect(path).expect("room for one");
    (listener, first)
}

/// The prelude of a daemon whose spools are on a disk of their own of this size, which goes with the
/// daemon. `None`, with a message, where this user may not mount.
pub(crate) fn small_disk(size: &str) -> Option<String> {
    let option = format!("size={size}");
    let unshare = ["-rm", "mount", "-t", "tmpfs", "-o", &option, "none", "/mnt"];
    let status = Command::new("unshare").args(unshare).status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: this user may not mount a small disk");
        return None;
    }
    Some(format!(
        "[ -n \"$MOUNTED\" ] || exec env MOUNTED=1 unshare -rm sh -c 'mount -t tmpfs -o {option} none /mnt && TMPDIR=/mnt exec \"$0\" \"$@\"' \"$0\" \"$@\""
    ))
}

//! The state of this process that its children inherit.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::raw;

/// Leaves the role of PID 1 to a parent, if this process is the first of a PID namespace, as in a container.
/// It forks once. `None`: go on, either as the child or because this process is not PID 1. Otherwise this is
/// PID 1 and the child has ended: exit with this status, which is the child's, or 128 plus the number of the
/// signal that ended it.
///
/// The parent reaps every orphan of the namespace and forwards signals, which the kernel withholds from a PID
/// 1 without handlers. Call this first, in a program that is a daemon and nothing else, before it has another
/// thread.
///
/// # Errors
/// Those of fork(2); EINVAL if there are other threads.
#[cfg(target_os = "linux")]
pub fn leave_init() -> io::Result<Option<u8>> {
    raw::init::fork()
}

/// Does nothing: on other systems no container has its own PID 1.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn leave_init() -> io::Result<Option<u8>> {
    Ok(None)
}

/// Undoes what the daemon's starter may have left, so that programs do not inherit it: blocked signals, an
/// ignored CHLD, and descriptors other than 0, 1 and 2. Other ignored signals stay ignored in this process,
/// as `nohup` requires; programs get their defaults.
///
/// This changes the whole process. Call it at the start of a program that is a daemon and nothing else.
pub fn forget_inheritance() {
    raw::restore_signals();
    raw::close_on_exec_from(3);
}

/// Takes ownership of a descriptor that the starter of this process handed over by its number; `/dev/null`
/// takes the place of 0, 1 and 2.
///
/// # Errors
/// EBADF: no descriptor has this number, or it was taken before.
pub(crate) fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    raw::descriptors::take(number)
}

/// Whether this process ignores the signal of this number.
pub(crate) fn ignores(signal: i32) -> bool {
    raw::is_ignored(signal)
}

/// Whether this process has a controlling terminal.
pub(crate) fn has_terminal() -> bool {
    open_terminal().is_ok()
}

/// Whether the controlling terminal that this process had is gone. Only ENXIO proves it: other errors may
/// mean that no descriptor is left to look with.
pub(crate) fn has_lost_terminal() -> bool {
    open_terminal().is_err_and(|error| error == Errno::NXIO)
}

fn open_terminal() -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open("/dev/tty", flags, Mode::empty())
}

/// A descriptor limit (`RLIMIT_NOFILE`), soft and hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorLimit(pub(super) [u64; 2]);

/// Raises the soft descriptor limit to the hard one. Returns the limit before, for
/// [`Builder::program_descriptors`](crate::daemon::Builder::program_descriptors). `None`: it is as high as it
/// can be, the system refuses, or it is not Linux.
///
/// Many starters set the soft limit to 1024, since programs that use select(2) fail beyond that, and leave it
/// to others to raise it. This changes the whole process. Call it at the start of a program that is a daemon
/// and nothing else.
#[must_use]
pub fn raise_descriptor_limit() -> Option<DescriptorLimit> {
    #[cfg(target_os = "linux")]
    {
        raw::raise_descriptor_limit().map(DescriptorLimit)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Whether CHLD is ignored, so that no child's status can be learned.
pub(crate) fn sigchld_is_ignored() -> bool {
    raw::sigchld_is_ignored()
}

/// How many descriptors this process may have open (the soft `RLIMIT_NOFILE`); `None`: no limit, or it cannot
/// be read, as under a filter of system calls.
#[cfg(target_os = "linux")]
pub(crate) fn descriptor_limit() -> Option<u64> {
    raw::descriptor_limit()
}

/// How many descriptors this process may have open (the soft `RLIMIT_NOFILE`); `None`: no limit.
#[cfg(not(target_os = "linux"))]
pub(crate) fn descriptor_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// The meaning of EAGAIN from clone(2) or fork(2): which limit of processes is reached.
///
/// The kernel does not say which one: the user's (`RLIMIT_NPROC`, which does not bind root), or that of the
/// control group or the system.
#[cfg(target_os = "linux")]
pub(crate) fn no_more_processes() -> String {
    let user = rustix::process::getuid();
    match raw::process_limit().filter(|_| !user.is_root()) {
        Some(limit) => format!(
            "the daemon's user (uid {}) is limited to {limit} processes (ulimit -u), or the daemon's control group is full (pids.max)",
            user.as_raw()
        ),
        None => "the daemon's control group is full (pids.max), or the system is at its limit (kernel.threads-max)"
            .to_owned(),
    }
}

/// The meaning of EAGAIN from fork(2): which limit of processes is reached.
#[cfg(not(target_os = "linux"))]
pub(crate) fn no_more_processes() -> String {
    format!(
        "the limit of processes of the daemon's user (uid {}; ulimit -u), or of the system",
        rustix::process::getuid().as_raw()
    )
}

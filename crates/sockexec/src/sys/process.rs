//! The state of this process that its children inherit.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::raw;

/// Leaves the part of PID 1 to a parent, if this process is the first of a PID namespace, as in a container: it forks once. `None`: go
/// on, as the child or as a process that is not PID 1. Otherwise this is PID 1 when the child has ended: exit with this status, which is
/// the child's, or 128 and the number of the signal that ended it.
///
/// The parent reaps every orphan of the namespace and passes signals on, which the kernel keeps from a PID 1 without a handler for them.
/// To be called first thing by a program that is a daemon and nothing else, before it has another thread.
///
/// # Errors
/// Those of fork(2); EINVAL if there are other threads.
#[cfg(target_os = "linux")]
pub fn leave_init() -> io::Result<Option<u8>> {
    raw::init::fork()
}

/// Does nothing: elsewhere no container has a PID 1 of its own.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn leave_init() -> io::Result<Option<u8>> {
    Ok(None)
}

/// Undoes what the daemon's starter may have left, so that programs do not inherit it: blocked signals, an ignored CHLD, and
/// descriptors other than 0, 1 and 2. Other signals that are ignored stay so in this process, as `nohup` has it; programs find
/// them at their defaults.
///
/// For the start of a program that is a daemon and nothing else: it changes the whole process.
pub fn forget_inheritance() {
    raw::restore_signals();
    raw::close_on_exec_from(3);
}

/// A descriptor that the starter of this process has handed over by its number becomes ours; `/dev/null` takes the place of 0, 1 and 2.
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

/// Whether the controlling terminal that this process had is gone. Nothing but ENXIO says so: there may be no descriptor left to
/// look with.
pub(crate) fn has_lost_terminal() -> bool {
    open_terminal().is_err_and(|error| error == Errno::NXIO)
}

fn open_terminal() -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open("/dev/tty", flags, Mode::empty())
}

/// A limit of descriptors (`RLIMIT_NOFILE`), soft and hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorLimit(pub(super) [u64; 2]);

/// Raises the soft limit of descriptors to the hard one: the limit before, which is for
/// [`Builder::program_descriptors`](crate::daemon::Builder::program_descriptors). `None`: it is as high as it can be, or the system refuses it,
/// or is not Linux.
///
/// Many starters set the soft one to 1024, since programs that use select(2) fail beyond that, and leave it to others to raise it. For the
/// start of a program that is a daemon and nothing else: it changes the whole process.
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

/// How many descriptors this process may have open (the soft `RLIMIT_NOFILE`); `None`: no limit, or none that can be
/// learned, as a filter of system calls may have it.
#[cfg(target_os = "linux")]
pub(crate) fn descriptor_limit() -> Option<u64> {
    raw::descriptor_limit()
}

/// How many descriptors this process may have open (the soft `RLIMIT_NOFILE`); `None`: no limit.
#[cfg(not(target_os = "linux"))]
pub(crate) fn descriptor_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// What an EAGAIN of clone(2) or fork(2) says: whose limit of processes is reached.
///
/// The kernel does not tell which of the two: the user's (`RLIMIT_NPROC`, which does not bind root), or the control group's and
/// the system's.
#[cfg(target_os = "linux")]
pub(crate) fn no_more_processes() -> String {
    let user = rustix::process::getuid();
    match raw::process_limit().filter(|_| !user.is_root()) {
        Some(limit) => format!(
            "the daemon's user (uid {}) may have {limit} processes (ulimit -u), or the daemon's control group has no room (pids.max)",
            user.as_raw()
        ),
        None => {
            "the daemon's control group has no room for another process (pids.max), or the system (kernel.threads-max)"
                .to_owned()
        }
    }
}

/// What an EAGAIN of fork(2) says: whose limit of processes is reached.
#[cfg(not(target_os = "linux"))]
pub(crate) fn no_more_processes() -> String {
    format!(
        "the limit of processes of the daemon's user (uid {}; ulimit -u), or of the system",
        rustix::process::getuid().as_raw()
    )
}

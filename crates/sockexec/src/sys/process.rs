//! The state of this process that its children inherit.

use super::raw;

/// Undoes what the daemon's starter may have left, so that programs do not inherit it: ignored and
/// blocked signals, and descriptors other than 0, 1 and 2.
///
/// For the start of a program that is a daemon and nothing else: it changes the whole process.
pub fn forget_inheritance() {
    raw::restore_signals();
    raw::close_on_exec_from(3);
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

//! System calls that neither std nor rustix wraps. The only unsafe code of the project.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(super) mod clone;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[path = "no_clone.rs"]
pub(super) mod clone;

use std::io;
use std::mem;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

/// The last of Linux's real-time signals; other systems have fewer and refuse the rest with EINVAL.
const MAX_SIGNAL: libc::c_int = 64;

/// Sets every ignored signal but PIPE to its default action and unblocks all.
///
/// Both survive `execve(2)`: a program must not find signals ignored or blocked because of how the
/// daemon was started. PIPE is left to Rust's runtime, which ignores it here and restores it in
/// children. Handlers are left alone too: `execve` resets them.
pub(super) fn restore_signals() {
    for signal in 1..=MAX_SIGNAL {
        if signal == libc::SIGPIPE {
            continue;
        }
        if is_ignored(signal) {
            // SAFETY: as in `action_of`; the default action has no handler. A signal that cannot be changed is refused
            // with EINVAL and stays as it is.
            unsafe {
                let mut default: libc::sigaction = mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const default, std::ptr::null_mut());
            }
        }
    }
    // SAFETY: `set` is initialised by sigemptyset before it is read; the call changes this thread's
    // mask only.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Whether CHLD is ignored, or has `SA_NOCLDWAIT`: then the kernel reaps children by itself, and their status is
/// lost (POSIX, `sigaction`; wait(2), notes).
pub(super) fn sigchld_is_ignored() -> bool {
    let action = action_of(libc::SIGCHLD);
    action.is_some_and(|action| action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0)
}

/// The signals that are ignored: bit n - 1 for signal n.
pub(super) fn ignored_signals() -> u64 {
    (1..=MAX_SIGNAL).filter(|&signal| is_ignored(signal)).fold(0, |set, signal| set | 1 << (signal - 1))
}

fn is_ignored(signal: libc::c_int) -> bool {
    action_of(signal).is_some_and(|action| action.sa_sigaction == libc::SIG_IGN)
}

/// What is done about a signal; `None`: there is no such signal.
fn action_of(signal: libc::c_int) -> Option<libc::sigaction> {
    // SAFETY: `sigaction` is a plain C structure for which all zeroes is a valid value; the call fills it. A number that
    // is no signal is refused with EINVAL.
    unsafe {
        let mut current: libc::sigaction = mem::zeroed();
        (libc::sigaction(signal, std::ptr::null(), &raw mut current) == 0).then_some(current)
    }
}

/// Marks every descriptor from `first` on close-on-exec.
pub(super) fn close_on_exec_from(first: libc::c_int) {
    #[cfg(target_os = "linux")]
    {
        // Linux 5.11; older kernels say ENOSYS or EINVAL.
        const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
        // SAFETY: plain integers; the call touches no memory of ours, and with CLOEXEC closes nothing.
        let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
        if done == 0 {
            return;
        }
    }
    // Descriptors above the soft limit may exist if it was lowered later; 65,536 covers what is met.
    // SAFETY: sysconf only reads a number.
    let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) }.clamp(256, 65_536);
    let limit = libc::c_int::try_from(limit).unwrap_or(65_536);
    for descriptor in first..limit {
        // SAFETY: F_SETFD on a number that is no open descriptor fails with EBADF; on an open one it
        // changes a flag that matters at exec only.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Sends `signal` (0: only asks) to the process group whose leader `pidfd` refers to, also after the
/// leader was reaped: the descriptor pins the identity, so that no other group can be meant even if
/// the number is in use again.
///
/// # Errors
/// ESRCH: nobody is in the group. EPERM: none of them may be signalled. EINVAL, ENOSYS: a kernel
/// before Linux 6.9. Unsupported elsewhere.
#[cfg(target_os = "linux")]
pub(super) fn signal_group_by_pidfd(pidfd: BorrowedFd<'_>, signal: libc::c_int) -> io::Result<()> {
    const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 4;
    // SAFETY: the descriptor is open for the length of the borrow; a null siginfo means that the
    // kernel fills one in as for kill(2).
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            PIDFD_SIGNAL_PROCESS_GROUP,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Elsewhere no descriptor refers to a process.
#[cfg(not(target_os = "linux"))]
pub(super) fn signal_group_by_pidfd(_pidfd: BorrowedFd<'_>, _signal: libc::c_int) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The credentials that the kernel recorded of the peer of a UNIX socket: pid, uid, gid (unix(7),
/// `SO_PEERCRED`). The pid is 0 for a peer in a pid namespace that ours does not see, which is why
/// rustix's wrapper, whose pid cannot be 0, is not used.
#[cfg(target_os = "linux")]
pub(super) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<(libc::pid_t, libc::uid_t, libc::gid_t)> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = libc::socklen_t::try_from(mem::size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: the descriptor is open for the length of the borrow; the kernel writes at most `len` bytes
    // into a structure of that size, and any integers are valid in it.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut len,
        )
    };
    if done == 0 { Ok((credentials.pid, credentials.uid, credentials.gid)) } else { Err(io::Error::last_os_error()) }
}

/// How many bytes of a UNIX socket's send buffer are in use: what the peer has not read, and what the kernel needs
/// around it (unix(7), `SIOCOUTQ`).
#[cfg(target_os = "linux")]
pub(super) fn send_queue(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut queued: libc::c_int = 0;
    // SAFETY: the descriptor is open for the length of the borrow; the kernel writes one int, which `queued` is.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
    if done == 0 { Ok(usize::try_from(queued).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

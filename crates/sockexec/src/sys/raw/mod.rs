//! System calls that neither std nor rustix wraps. The only unsafe code of the project.

#[cfg(target_os = "linux")]
#[cfg_attr(target_arch = "x86_64", path = "arch/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "arch/aarch64.rs")]
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), path = "arch/other.rs")]
mod arch;
#[cfg(target_os = "linux")]
mod child;
pub(super) mod descriptors;
#[cfg(target_os = "linux")]
pub(super) mod init;
#[cfg(target_os = "linux")]
pub(super) mod launch;
#[cfg(not(target_os = "linux"))]
#[path = "no_launch.rs"]
pub(super) mod launch;

use std::io;
use std::mem;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
#[cfg(not(target_os = "linux"))]
use std::os::unix::process::CommandExt as _;
#[cfg(not(target_os = "linux"))]
use std::process::Command;
#[cfg(target_os = "linux")]
use std::ptr;

#[cfg(target_os = "linux")]
use rustix::io::Errno;
#[cfg(target_os = "linux")]
use sockexec_proto::Usage;

#[cfg(target_os = "linux")]
use crate::engine::ExitStatus;

/// The last of Linux's real-time signals; other systems have fewer and refuse the rest with EINVAL.
const MAX_SIGNAL: libc::c_int = 64;

/// Unblocks all signals, and resets CHLD to its default if it is ignored: the kernel would discard exit
/// statuses.
///
/// Other signals that the starter ignored (`nohup`) stay ignored in this process and are reset in its
/// children. `posix_spawn` as std calls it cannot reset them, so there a handler that does nothing takes
/// their place: an exec resets handlers by itself. PIPE stays ignored here, as Rust's runtime sets it, and is
/// reset in children too.
pub(super) fn restore_signals() {
    if is_ignored(libc::SIGCHLD) {
        set_action(libc::SIGCHLD, libc::SIG_DFL);
    }
    #[cfg(not(target_os = "linux"))]
    for signal in (1..=MAX_SIGNAL).filter(|&signal| signal != libc::SIGPIPE && is_ignored(signal)) {
        extern "C" fn nothing(_: libc::c_int) {}
        // With TTOU handled, a background write to a terminal would be retried for ever.
        let stops = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal);
        let handler = nothing as extern "C" fn(libc::c_int);
        set_action(signal, if stops { libc::SIG_DFL } else { handler as libc::sighandler_t });
    }
    // SAFETY: `set` is initialised by sigemptyset before it is read; the call changes this thread's
    // mask only.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Sets the action of a signal: `SIG_DFL`, or the address of a function that takes the number and is safe to
/// run at any moment. A number that is no signal, and a signal whose action cannot change, are left as they
/// are.
fn set_action(signal: libc::c_int, action: libc::sighandler_t) {
    // SAFETY: `sigaction` is a plain C structure for which all zeroes is a valid value; the callers' actions are as said above. It is
    // safe in the child of a fork, too (signal-safety(7)).
    unsafe {
        let mut new: libc::sigaction = mem::zeroed();
        new.sa_sigaction = action;
        new.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &raw const new, std::ptr::null_mut());
    }
}

/// Whether CHLD is ignored, or has `SA_NOCLDWAIT`: in both cases the kernel reaps children itself, and their
/// status is lost (POSIX, `sigaction`; wait(2), notes).
pub(super) fn sigchld_is_ignored() -> bool {
    let action = action_of(libc::SIGCHLD);
    action.is_some_and(|action| action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0)
}

/// The ignored signals: bit n - 1 for signal n.
pub(super) fn ignored_signals() -> u64 {
    (1..=MAX_SIGNAL).filter(|&signal| is_ignored(signal)).fold(0, |set, signal| set | 1 << (signal - 1))
}

/// Whether a signal is ignored.
pub(super) fn is_ignored(signal: libc::c_int) -> bool {
    action_of(signal).is_some_and(|action| action.sa_sigaction == libc::SIG_IGN)
}

/// The current action of a signal; `None` if there is no such signal.
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
        // SAFETY: plain integers; the call touches no memory of ours, and with CLOEXEC closes nothing.
        let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        if done == 0 {
            return;
        }
    }
    // Descriptors above the soft limit may exist if it was lowered later; 65,536 covers those met in
    // practice.
    // SAFETY: sysconf only reads a number.
    let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) }.clamp(256, 65_536);
    let limit = libc::c_int::try_from(limit).unwrap_or(65_536);
    for descriptor in first..limit {
        // SAFETY: F_SETFD on a number that is no open descriptor fails with EBADF; on an open one it
        // changes a flag that matters at exec only.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// The type that names a resource: an enumeration in glibc.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
type Resource = libc::__rlimit_resource_t;
#[cfg(all(target_os = "linux", not(target_env = "gnu")))]
type Resource = libc::c_int;

/// The soft and the hard limit of this process; `None` if the call is refused.
#[cfg(target_os = "linux")]
fn limits(resource: Resource) -> Option<[u64; 2]> {
    // Not getrlimit(3), whose numbers have 32 bits on some systems. Not rustix's wrapper, which panics if it
    // is refused.
    let mut limits = [0_u64; 2];
    // SAFETY: 0 is this process; a null pointer sets nothing; the kernel fills a `struct rlimit64`, which is two
    // integers of 64 bits, the soft limit first, of which any values are valid.
    let done = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, ptr::null::<[u64; 2]>(), limits.as_mut_ptr()) };
    (done == 0).then_some(limits)
}

/// The soft limit of a resource; `None`: infinite, or the call is refused.
#[cfg(target_os = "linux")]
fn soft_limit(resource: Resource) -> Option<u64> {
    limits(resource).map(|[soft, _hard]| soft).filter(|&soft| soft != u64::MAX)
}

/// The soft `RLIMIT_NOFILE`; `None`: infinite, or the call is refused.
#[cfg(target_os = "linux")]
pub(super) fn descriptor_limit() -> Option<u64> {
    soft_limit(libc::RLIMIT_NOFILE)
}

/// The soft `RLIMIT_NPROC`, which counts the processes of a user; `None`: infinite, or the call is refused.
#[cfg(target_os = "linux")]
pub(super) fn process_limit() -> Option<u64> {
    soft_limit(libc::RLIMIT_NPROC)
}

/// Raises the soft `RLIMIT_NOFILE` to the hard one and returns the old pair. `None`: nothing to raise, or
/// refused.
#[cfg(target_os = "linux")]
pub(super) fn raise_descriptor_limit() -> Option<[u64; 2]> {
    let old @ [soft, hard] = limits(libc::RLIMIT_NOFILE)?;
    if soft >= hard {
        return None;
    }
    let new = [hard, hard];
    // SAFETY: 0 is this process; the call reads a `struct rlimit64`, as in `limits`. Null: the old limit is not asked for.
    let set =
        unsafe { libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, new.as_ptr(), ptr::null::<[u64; 2]>()) };
    (set == 0).then_some(old)
}

/// Sends `signal` (0 only checks) to the process group whose leader `pidfd` refers to. This works after the
/// leader was reaped, too: the descriptor pins the identity, so no other group can be meant even if the
/// number is in use again.
///
/// # Errors
/// ESRCH: the group is empty. EPERM: none of its members may be signalled. EINVAL, ENOSYS: the kernel is
/// older than Linux 6.9. `Unsupported` on other systems.
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

/// On other systems no descriptor refers to a process.
#[cfg(not(target_os = "linux"))]
pub(super) fn signal_group_by_pidfd(_pidfd: BorrowedFd<'_>, _signal: libc::c_int) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The credentials that the kernel recorded for the peer of a UNIX socket: pid, uid, gid (unix(7),
/// `SO_PEERCRED`). The pid is 0 for a peer in a pid namespace that ours cannot see, so rustix's wrapper,
/// whose pid cannot be 0, is no option.
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

/// Makes `command` begin a session whose controlling terminal is its descriptor 0. std starts such a command
/// by fork.
#[cfg(not(target_os = "linux"))]
fn begin_session(command: &mut Command) {
    // SAFETY: the closure runs in the child of a fork, after its descriptors are in place, and makes two system calls
    // that are safe there (signal-safety(7)); it allocates nothing, and takes no lock.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            Ok(())
        });
    }
}

/// How the child `pid` ended, and the resources that it and the children it waited for have used; `None` if
/// it has not ended. It is not reaped.
///
/// The system call fills a `rusage`, which neither the C library's function nor rustix offers (waitid(2), "C
/// library/kernel differences").
///
/// # Errors
/// Those of waitid(2), above all ECHILD: something else has reaped it.
#[cfg(target_os = "linux")]
pub(super) fn status_of(pid: libc::pid_t) -> rustix::io::Result<Option<(ExitStatus, Usage)>> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: the kernel fills both structures, for which all zeroes are a valid value, and `si_pid` and `si_status` are what it fills
    // for waitid; 0 as the pid means that no child was found.
    let (pid, code, status, usage) = unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        let mut usage: libc::rusage = mem::zeroed();
        if libc::syscall(libc::SYS_waitid, libc::P_PID, pid, &raw mut info, options, &raw mut usage) != 0 {
            return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
        (info.si_pid(), info.si_code, info.si_status(), usage)
    };
    let time = |time: libc::timeval| {
        use std::time::Duration;
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    let memory = u64::try_from(usage.ru_maxrss).unwrap_or(0);
    let usage = Usage::new(time(usage.ru_utime), time(usage.ru_stime), memory);
    let status = match code {
        // WEXITSTATUS: the kernel keeps eight bits.
        libc::CLD_EXITED => ExitStatus::Code(u8::try_from(status & 0xff).unwrap_or(u8::MAX)),
        _ => ExitStatus::Signal(status),
    };
    Ok((pid != 0).then_some((status, usage)))
}

/// Joins a new session keyring without a name and without keys (session-keyring(7)). Container filters refuse
/// this, and with it all use of keyrings.
#[cfg(target_os = "linux")]
pub(super) fn leave_session_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: an integer, and a null pointer, which is no name; the call reads no memory of ours.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) };
}

/// Sends a signal by its number to a process (`pid` above 0) or to a group (`-pid`). rustix has no real-time
/// signals.
///
/// # Errors
/// Those of kill(2). EINVAL: there is no such signal.
pub(super) fn kill(pid: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: plain integers; the call touches no memory of ours. The caller sees to it that 0 and -1 are not asked for.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The session of the process `pid`. `None`: there is no such process, a security module refuses, or the
/// session began outside our PID namespace (0, which rustix considers impossible).
#[cfg(target_os = "linux")]
pub(super) fn session_of(pid: libc::pid_t) -> Option<libc::pid_t> {
    // SAFETY: a plain integer.
    let session = unsafe { libc::getsid(pid) };
    (session > 0).then_some(session)
}

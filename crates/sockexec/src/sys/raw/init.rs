//! The first process of a PID namespace, as in a container: a parent for the daemon that does what only PID 1
//! can do.
//!
//! Orphans become children of PID 1, which must reap them. The daemon cannot do that itself:
//! `waitid(P_ALL, WNOWAIT)` keeps returning the same leader that it keeps as a zombie, and without `WNOWAIT`
//! it would reap that leader. The kernel also withholds from PID 1 every signal that has no handler. So there
//! are two processes, as with tini(1): this one waits, reaps and forwards signals.

use std::io;
use std::mem;
use std::ptr;

/// Signals that are not forwarded: the death of children, and those that stop background processes of a
/// terminal, as nobody could continue the daemon.
const KEPT: [libc::c_int; 4] = [libc::SIGCHLD, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// Forks, if this is PID 1. Returns `None` in the child, and if this is not PID 1. In PID 1 it returns when
/// the child has ended, with the status to exit with: the child's, or 128 plus its signal.
///
/// # Errors
/// Those of fork(2). EINVAL: there are other threads, which the child would lack.
pub(in crate::sys) fn fork() -> io::Result<Option<u8>> {
    if std::process::id() != 1 {
        return Ok(None);
    }
    // SAFETY: a number; with this flag alone the call changes nothing, and fails with EINVAL where there are other threads. A container may
    // refuse it whatever its flags (EPERM), which says nothing.
    if unsafe { libc::unshare(libc::CLONE_THREAD) } != 0
        && let error = io::Error::last_os_error()
        && error.raw_os_error() == Some(libc::EINVAL)
    {
        return Err(error);
    }
    // If CHLD were ignored, the kernel would reap the daemon as well, and its status would be lost.
    super::set_action(libc::SIGCHLD, libc::SIG_DFL);
    // Before the fork, so that no signal is lost from now on: blocked signals stay pending, even for PID 1.
    let (all, before) = block_all();
    // SAFETY: there is one thread, so that the child is a whole process like this one.
    match unsafe { libc::fork() } {
        -1 => {
            let error = io::Error::last_os_error();
            set_mask(&before);
            Err(error)
        }
        0 => {
            // A group of its own: otherwise a terminal's ^C would reach it twice, and the second means KILL.
            lead_group(0);
            set_mask(&before);
            Ok(None)
        }
        child => {
            lead_group(child);
            Ok(Some(stand_by(child, &all)))
        }
    }
}

/// Reaps children and forwards signals until `child` has ended. Returns its status.
fn stand_by(child: libc::pid_t, all: &libc::sigset_t) -> u8 {
    // What the starter handed over belongs to the child: when the child closes a socket or a pipe, its peer
    // must notice. Before Linux 5.9 this process keeps a copy until the child has ended.
    // SAFETY: plain integers. Nothing of this process, which does no more than wait and signal, has a
    // descriptor beyond 2.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    loop {
        let mut signal = 0;
        // SAFETY: a set that was filled, and an integer of ours.
        if unsafe { libc::sigwait(all, &raw mut signal) } != 0 {
            continue;
        }
        if signal == libc::SIGCHLD {
            // One CHLD may stand for several.
            while let Some((pid, status)) = reap() {
                if pid == child {
                    return status;
                }
            }
        } else if !KEPT.contains(&signal) {
            // The number is still the child's: it is reaped above, and nothing is sent after that.
            let _ = super::kill(child, signal);
        }
    }
}

/// Reaps one child that has ended, if there is one: its pid, and its status as an exit code.
fn reap() -> Option<(libc::pid_t, u8)> {
    let mut status = 0;
    // SAFETY: an integer of ours. The call does not block.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    let code = if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    (pid > 0).then_some((pid, u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Blocks all signals. Returns the set of all, and the mask before.
fn block_all() -> (libc::sigset_t, libc::sigset_t) {
    // SAFETY: sets are plain C structures for which all zeroes is a valid value; the calls fill them, and change this thread's mask only.
    unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        (all, before)
    }
}

fn set_mask(mask: &libc::sigset_t) {
    // SAFETY: a set that the system filled; the call changes this thread's mask only.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, ptr::null_mut()) };
}

/// Makes `process` (0: this one) the leader of its own group. Parent and child both call this, as either may
/// come first.
fn lead_group(process: libc::pid_t) {
    // SAFETY: plain integers.
    unsafe { libc::setpgid(process, process) };
}

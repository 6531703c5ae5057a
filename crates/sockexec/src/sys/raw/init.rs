//! The first process of a PID namespace, as of a container: a parent for the daemon that does what only PID 1 can.
//!
//! Orphans become children of PID 1, which has to reap them. The daemon cannot do that itself: `waitid(P_ALL, WNOWAIT)` goes on
//! returning the same leader that it keeps as a zombie, and without `WNOWAIT` it would reap that leader. And the kernel keeps from PID 1
//! every signal that it has no handler for. So there are two processes, as with tini(1): this one waits, reaps, and passes signals on.

use std::io;
use std::mem;
use std::ptr;

/// Signals that are not passed on: how children tell of themselves, and what a terminal does about processes in the background, which
/// nobody could continue.
const KEPT: [libc::c_int; 4] = [libc::SIGCHLD, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// Forks, if this is PID 1 and it has one thread. `None`: in the child, or this is not PID 1. Else this is PID 1 when the child has ended,
/// and is to exit with this status: the child's, or 128 and the number of its signal.
///
/// # Errors
/// Those of fork(2). EINVAL: there are other threads, of which the child would be without.
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
    // An ignored CHLD would have the kernel reap the daemon as well, and its status be lost.
    super::set_action(libc::SIGCHLD, libc::SIG_DFL);
    // Before the fork, so that none is lost from now on: what is blocked waits, even for PID 1.
    let (all, before) = block_all();
    // SAFETY: there is one thread, so that the child is a whole process like this one.
    match unsafe { libc::fork() } {
        -1 => {
            let error = io::Error::last_os_error();
            set_mask(&before);
            Err(error)
        }
        0 => {
            // A group of its own, or a terminal's ^C would reach it twice, and the second means KILL.
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

/// Reaps and passes signals on until `child` has ended: its status.
fn stand_by(child: libc::pid_t, all: &libc::sigset_t) -> u8 {
    // What the starter has handed over is the child's: a socket that it closes is to be closed, and a pipe to be at its end. Before Linux 5.9
    // this process keeps a copy until the child has ended.
    // SAFETY: plain integers. Nothing of this process, which does no more than wait and signal, has a descriptor beyond 2.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    loop {
        let mut signal = 0;
        // SAFETY: a set that was filled, and an integer of ours.
        if unsafe { libc::sigwait(all, &raw mut signal) } != 0 {
            continue;
        }
        if signal == libc::SIGCHLD {
            // One CHLD may stand for many.
            while let Some((pid, status)) = reap() {
                if pid == child {
                    return status;
                }
            }
        } else if !KEPT.contains(&signal) {
            // Its number is its own: it is reaped above, and nothing is sent after that.
            let _ = super::kill(child, signal);
        }
    }
}

/// A child that has ended, if there is one, and its status for exit(3). It is reaped.
fn reap() -> Option<(libc::pid_t, u8)> {
    let mut status = 0;
    // SAFETY: an integer of ours. The call does not block.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    let code = if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    (pid > 0).then_some((pid, u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Blocks all signals: all of them, and those that were blocked before.
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

/// Makes `process`, 0 for this one, the leader of a group of its own. Parent and child both do: whichever comes first.
fn lead_group(process: libc::pid_t) {
    // SAFETY: plain integers.
    unsafe { libc::setpgid(process, process) };
}

//! A thread's own descriptor table, a socket that refuses descriptors, and descriptors that were handed over.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
#[cfg(target_os = "linux")]
use std::{mem, ptr};

/// `<asm-generic/socket.h>`; one processor family has its own number.
#[cfg(target_os = "linux")]
const SO_PASSRIGHTS: libc::c_int = if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) { 0x5c } else { 83 };

/// Gives this thread its own descriptor table: a copy of at least those below `end`. Its signals are blocked
/// from then on: a handler would write to descriptors that may not be in the copy.
///
/// # Errors
/// Those of `close_range(2)`, or of unshare(2) where that call is missing: ENOSYS, EPERM, ENOMEM. The table
/// then stays shared.
#[cfg(target_os = "linux")]
pub(in crate::sys) fn leave_table(end: RawFd) -> io::Result<()> {
    // SAFETY: `set` is initialised by sigfillset before it is read; the call changes this thread's mask only.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
    }
    let end = libc::c_uint::try_from(end).map_err(io::Error::other)?;
    // SAFETY: plain integers. What is closed is closed in the new table alone, which this thread does not use.
    if unsafe { libc::syscall(libc::SYS_close_range, end, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) } == 0 {
        return Ok(());
    }
    // SAFETY: a plain integer. The new table is a copy.
    if unsafe { libc::unshare(libc::CLONE_FILES) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// On other systems threads share one table.
#[cfg(not(target_os = "linux"))]
pub(in crate::sys) fn leave_table(_end: RawFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes the kernel refuse (EPERM) to send descriptors to this UNIX socket from now on. Those in the queue
/// stay.
///
/// # Errors
/// Those of setsockopt(2): ENOPROTOOPT before Linux 6.16.
#[cfg(target_os = "linux")]
pub(in crate::sys) fn refuse_rights(socket: BorrowedFd<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    let off: libc::c_int = 0;
    let len = libc::socklen_t::try_from(mem::size_of_val(&off)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `len` bytes of `off`, which lives for the length of the call; the descriptor is open for the
    // length of the borrow.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const off).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Other systems have no such option.
#[cfg(not(target_os = "linux"))]
pub(in crate::sys) fn refuse_rights(_socket: BorrowedFd<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Takes ownership of a descriptor that the starter of this process handed over by its number. If it is 0, 1
/// or 2, which belong to the standard library, `/dev/null` takes its place.
///
/// # Errors
/// EBADF: no descriptor has this number, or it was taken before.
pub(in crate::sys) fn take(number: RawFd) -> io::Result<OwnedFd> {
    use std::sync::{Mutex, PoisonError};

    static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: a plain integer; on a number that is no open descriptor the call fails with EBADF, and else it changes
    // nothing but a flag that matters at exec only.
    if taken.contains(&number) || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    if (0..3).contains(&number) {
        // SAFETY: it is open, as was asked above, and nothing closes 0, 1 or 2.
        let given = unsafe { BorrowedFd::borrow_raw(number) };
        let moved = rustix::io::fcntl_dupfd_cloexec(given, 3)?;
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        match number {
            0 => rustix::stdio::dup2_stdin(null)?,
            1 => rustix::stdio::dup2_stdout(null)?,
            _ => rustix::stdio::dup2_stderr(null)?,
        }
        taken.push(number);
        return Ok(moved);
    }
    taken.push(number);
    // SAFETY: it is open, and was not taken before. The numbers that this is asked for are those that the starter of the
    // process names as handed over: nothing in the process has opened them, and so nothing else owns them.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

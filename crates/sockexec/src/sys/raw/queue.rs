//! What a peer has not read: the only system call of the client that no safe library wraps.

use std::os::fd::BorrowedFd;

/// How many bytes of a UNIX socket's send buffer are in use: what the peer has not read, plus the kernel's
/// own overhead (unix(7), `SIOCOUTQ`).
///
/// # Errors
/// Those of `ioctl(2)`: the socket is of another kind.
#[cfg(target_os = "linux")]
pub(crate) fn send_queue(socket: BorrowedFd<'_>) -> std::io::Result<usize> {
    use std::ffi::c_int;

    use rustix::ioctl::{Getter, ioctl};

    // SAFETY: the kernel writes one int for this request, and that is what the getter has room for; the descriptor is
    // open for the length of the borrow.
    let queued = unsafe { ioctl(socket, Getter::<SIOCOUTQ, c_int>::new())? };
    Ok(usize::try_from(queued).unwrap_or(0))
}

/// The same number as `TIOCOUTQ` (`<asm-generic/ioctls.h>`; three processor families have their own).
#[cfg(target_os = "linux")]
const SIOCOUTQ: rustix::ioctl::Opcode = if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
    0x7472
} else if cfg!(any(target_arch = "powerpc", target_arch = "powerpc64", target_arch = "sparc64")) {
    0x4004_7473
} else {
    0x5411
};

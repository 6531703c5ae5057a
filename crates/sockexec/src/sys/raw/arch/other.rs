//! Other processors: no call of ours makes a child that shares memory, so that libc's way to make a system call will do.

use std::ffi::c_long;

// On SPARC the child of clone(2) learns what it is from a second register; on MIPS a set of signals has 16 bytes.
#[cfg(any(
    target_arch = "sparc",
    target_arch = "sparc64",
    target_arch = "mips",
    target_arch = "mips64",
    target_arch = "mips32r6",
    target_arch = "mips64r6"
))]
compile_error!("programs cannot be started on this processor: sys/raw/launch.rs needs another fork for it");

/// Whether [`branch`] works here.
pub(super) const BRANCHES: bool = false;

/// Nobody asks for them.
pub(super) const fn clone_arguments(_flags: usize, _stack: usize, _child_tid: usize) -> [usize; 5] {
    [0; 5]
}

/// A system call: what the kernel returned, a negated errno if it failed.
///
/// # Safety
/// That of the call. It writes `errno`, so a child that shares memory must not make it; there is none here.
pub(super) unsafe fn call(number: isize, arguments: [usize; 4]) -> isize {
    let [a, b, c, d] = arguments;
    // SAFETY: the caller's.
    let result = unsafe { libc::syscall(number as c_long, a, b, c, d) };
    if result == -1 {
        -std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) as isize
    } else {
        isize::try_from(result).unwrap_or(-libc::EIO as isize)
    }
}

/// Not here.
///
/// # Safety
/// None is asked for.
pub(super) unsafe fn branch<T>(
    _number: isize,
    _arguments: [usize; 5],
    _entry: unsafe extern "C" fn(*const T) -> !,
    _argument: *const T,
) -> isize {
    -libc::ENOSYS as isize
}

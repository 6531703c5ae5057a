//! Other processors: no call of ours makes a child that shares memory, so libc's wrapper is good enough.

use std::ffi::c_long;

// On SPARC the child of clone(2) learns that it is the child from a second register; on MIPS a signal set has
// 16 bytes.
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

/// Unused, as [`branch`] always fails here.
pub(super) const fn clone_arguments(_flags: usize, _stack: usize, _child_tid: usize) -> [usize; 5] {
    [0; 5]
}

/// A system call. Returns what the kernel returned: a negated errno on failure.
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

/// Fails with ENOSYS.
///
/// # Safety
/// Nothing is required.
pub(super) unsafe fn branch<T>(
    _number: isize,
    _arguments: [usize; 5],
    _entry: unsafe extern "C" fn(*const T) -> !,
    _argument: *const T,
) -> isize {
    -libc::ENOSYS as isize
}

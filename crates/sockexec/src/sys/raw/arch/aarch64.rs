//! aarch64: the number goes into x8, arguments into x0 to x4; the result comes back in x0. A call changes
//! nothing else (syscall(2)).

use std::arch::asm;

/// Whether [`branch`] works here.
pub(super) const BRANCHES: bool = true;

/// The arguments of clone(2), whose order differs elsewhere (`CONFIG_CLONE_BACKWARDS`). `stack` is its end.
pub(super) const fn clone_arguments(flags: usize, stack: usize, child_tid: usize) -> [usize; 5] {
    [flags, stack, 0, 0, child_tid]
}

/// A system call that leaves `errno` alone. Returns what the kernel returned: a negated errno on failure.
///
/// # Safety
/// That of the call.
pub(super) unsafe fn call(number: isize, arguments: [usize; 4]) -> isize {
    let result: isize;
    let [a, b, c, d] = arguments;
    // SAFETY: the caller's; the kernel changes x0, and memory as the call says.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") a.cast_signed() => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            options(nostack),
        );
    }
    result
}

/// A system call that makes a child on its own stack, which calls `entry` with `argument`. Returns what the
/// kernel returned to the parent.
///
/// # Safety
/// That of the call, which has the child begin on a stack that is its own, whose end is a multiple of 16, and which stays, with all
/// that `entry` uses, for as long as the child shares this memory.
pub(super) unsafe fn branch<T>(
    number: isize,
    arguments: [usize; 5],
    entry: unsafe extern "C" fn(*const T) -> !,
    argument: *const T,
) -> isize {
    let result: isize;
    let [first, second, third, fourth, fifth] = arguments;
    // SAFETY: in the parent the call changes x0 only. The child begins after `svc` with a copy of the registers and with sp at the end of
    // its stack; it touches no memory of this frame, calls `entry` and never comes back. No frame is before its
    // first (x29). The rest is the caller's promise.
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") number,
            inlateout("x0") first.cast_signed() => result,
            in("x1") second,
            in("x2") third,
            in("x3") fourth,
            in("x4") fifth,
            in("x20") argument,
            in("x21") entry,
        );
    }
    result
}

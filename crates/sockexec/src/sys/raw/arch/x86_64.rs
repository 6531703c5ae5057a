//! x86-64: the number goes into rax, arguments into rdi, rsi, rdx, r10 and r8; the result comes back in rax.
//! A call changes rcx and r11 as well (System V ABI, A.2.1).

use std::arch::asm;

/// Whether [`branch`] works here.
pub(super) const BRANCHES: bool = true;

/// The arguments of clone(2), whose order differs elsewhere. `stack` is its end.
pub(super) const fn clone_arguments(flags: usize, stack: usize, child_tid: usize) -> [usize; 5] {
    [flags, stack, 0, child_tid, 0]
}

/// A system call that leaves `errno` alone. Returns what the kernel returned: a negated errno on failure.
///
/// # Safety
/// That of the call.
pub(super) unsafe fn call(number: isize, arguments: [usize; 4]) -> isize {
    let result: isize;
    let [a, b, c, d] = arguments;
    // SAFETY: the caller's; the kernel changes rax, rcx and r11, and memory as the call says.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            lateout("rcx") _,
            lateout("r11") _,
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
    // SAFETY: in the parent the call changes rax, rcx and r11 only, as every system call does. The child begins after `syscall` with a
    // copy of the registers and with rsp at the end of its stack; it touches no memory of this frame, calls `entry` and never
    // comes back. The rest is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            in("r12") argument,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

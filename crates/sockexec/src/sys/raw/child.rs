//! What a child does from its first instruction to its exec, with raw system calls only, and how it reports
//! the outcome. [`super::launch`] lists the rules that it keeps.

#![expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "descriptors, flags and the numbers of signals and calls are small and not negative; no call made here returns more than an int"
)]

use std::ffi::{CStr, c_char, c_int, c_long};
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use super::arch;
use crate::sys::lookup::{self, Refused};
use crate::sys::program::Failure;

/// The size of the kernel's signal set, in bytes.
pub(super) const SIGSET_SIZE: usize = size_of::<u64>();

/// Added to an errno of exec on its way from a child. Larger than every errno, so that it differs from those
/// of earlier steps.
const FROM_EXEC: c_int = 1 << 16;

/// Added to an errno of entering the directory; larger than the codes before.
const IN_DIRECTORY: c_int = 1 << 17;

/// Added to an errno of exec if there was a file to execute; larger than the codes before.
const FOUND: c_int = 1 << 18;

/// The code that reports a failed exec.
fn code_of(Refused { error, found }: Refused) -> c_int {
    if found { FOUND + error } else { FROM_EXEC + error }
}

/// The failure that a code reports.
pub(crate) fn failure_of(code: c_int) -> Failure {
    let error = io::Error::from_raw_os_error;
    match code {
        FOUND.. => Failure::Exec { error: error(code - FOUND), found: true },
        IN_DIRECTORY.. => Failure::Directory(error(code - IN_DIRECTORY)),
        FROM_EXEC.. => Failure::Exec { error: error(code - FROM_EXEC), found: false },
        _ => Failure::Own(error(code)),
    }
}

/// How a child leaves the descriptor table that it shares with this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedTable {
    /// The child keeps the descriptors below this number.
    pub(crate) cut: RawFd,
    /// An eventfd below `cut`, to which the child then writes.
    pub(crate) event: RawFd,
}

/// What the child reports to its parent through the memory that they share.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Not 0 while the child is in our memory; the kernel zeroes it.
    pub(super) alive: AtomicI32,
    /// Not 0 once the child has its own descriptor table.
    apart: AtomicI32,
    /// The code of the step that failed, for [`failure_of`]; 0 if none has.
    error: AtomicI32,
}

impl Outcome {
    /// For a child that is about to be made.
    pub(super) fn new(shares_table: bool) -> Self {
        let apart = AtomicI32::new((!shares_table).into());
        Self { alive: AtomicI32::new(1), apart, error: AtomicI32::new(0) }
    }

    /// Why the program could not be started. Known once the child has exec'd or is dead; `None` until then.
    pub(crate) fn error(&self) -> Option<Failure> {
        match (self.has_left(), self.error.load(Ordering::Acquire)) {
            (true, code @ 1..) => Some(failure_of(code)),
            _ => None,
        }
    }

    /// Whether the child has exec'd or is dead.
    pub(crate) fn has_left(&self) -> bool {
        self.alive.load(Ordering::Acquire) == 0
    }

    /// Whether the child no longer depends on this process's descriptors.
    pub(crate) fn has_own_table(&self) -> bool {
        self.apart.load(Ordering::Acquire) != 0 || self.has_left()
    }
}

/// The instructions for [`child_main`]: pointers into a launch, and descriptors.
pub(super) struct Orders {
    pub(super) stdio: [c_int; 3],
    /// -1 without one.
    pub(super) watch: c_int,
    /// The pid of this process, which must still be the child's parent.
    pub(super) parent: c_int,
    /// The signals to reset to their default: bit n - 1 for signal n.
    pub(super) reset: u64,
    /// Where to search for the program. Null: `argv[0]` is its path.
    pub(super) path: *const c_char,
    pub(super) argv: *const *const c_char,
    pub(super) environment: *const *const c_char,
    /// Null: the parent's directory.
    pub(super) directory: *const c_char,
    pub(super) terminal: bool,
    pub(super) foreign: bool,
    pub(super) shared: Option<SharedTable>,
    /// The program's descriptor limit, soft and hard. `None`: the daemon's.
    pub(super) descriptor_limit: Option<[u64; 2]>,
    /// Null: the memory is not shared.
    pub(super) outcome: *const Outcome,
}

/// The child's code. Raw system calls only.
///
/// # Safety
/// Runs once, in the child, on a stack of its own or in memory of its own; `orders` and all that it points to stay until exec or exit.
pub(super) unsafe extern "C" fn child_main(orders: *const Orders) -> ! {
    // SAFETY: the caller's promise; the system calls get addresses that are valid by it, or null where that is
    // allowed, and descriptors of a table that is the child's own by then.
    unsafe {
        let orders = &*orders;
        let error = prepare(orders);
        let error = if error == 0 { exec(orders) } else { error };
        if let Some(outcome) = orders.outcome.as_ref() {
            outcome.error.store(error, Ordering::Release);
        } else {
            let arguments = |watch: c_int| [watch as usize, (&raw const error) as usize, size_of::<c_int>(), 0];
            // The watch has its old number still, or number 3 already.
            if call(libc::SYS_write, arguments(orders.watch)) < 0 {
                call(libc::SYS_write, arguments(WATCH));
            }
        }
        loop {
            call(libc::SYS_exit_group, [127, 0, 0, 0]);
        }
    }
}

/// The number that the watch gets in the child.
const WATCH: c_int = 3;

/// Everything before exec. Returns 0, or a code for [`failure_of`].
///
/// # Safety
/// As [`child_main`].
unsafe fn prepare(orders: &Orders) -> c_int {
    /// The kernel's own `sigaction`, of at most 32 bytes. All zero: `SIG_DFL`.
    static DEFAULT: [u64; 4] = [0; 4];
    /// The value to add to an eventfd.
    static ONE: u64 = 1;
    /// An empty signal mask: 64 signals, one bit each.
    static NO_SIGNALS: u64 = 0;
    // SAFETY: see `child_main`. The addresses are of statics.
    unsafe {
        // First, so that a signal to the group finds the child as early as possible. A session is a group as
        // well.
        let group = if orders.terminal { libc::SYS_setsid } else { libc::SYS_setpgid };
        let mut error = call(group, [0; 4]).min(0);
        // No program may outlive a killed daemon. The kernel sends the signal when the thread that made the
        // child ends: the loop's thread, which outlives its programs. If it ended before this call, the
        // signal never comes, so look whether the parent is still there.
        error = error.min(call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0]));
        if call(libc::SYS_getppid, [0; 4]) != orders.parent {
            return libc::ESRCH;
        }
        if let Some(shared) = orders.shared {
            // No descriptor was touched so far; from here on each is the child's own.
            let everything_from = [shared.cut as usize, u32::MAX as usize, libc::CLOSE_RANGE_UNSHARE as usize, 0];
            let failed = call(libc::SYS_close_range, everything_from);
            if failed < 0 {
                return failed.wrapping_neg();
            }
            if let Some(outcome) = orders.outcome.as_ref() {
                outcome.apart.store(1, Ordering::Release);
            }
            call(libc::SYS_write, [shared.event as usize, (&raw const ONE) as usize, size_of::<u64>(), 0]);
        }
        let mut signal = 1;
        while signal <= 64 {
            if orders.reset & (1 << (signal - 1)) != 0 {
                call(libc::SYS_rt_sigaction, [signal, (&raw const DEFAULT) as usize, 0, SIGSET_SIZE]);
            }
            signal += 1;
        }
        let how = libc::SIG_SETMASK as usize;
        error = error.min(call(libc::SYS_rt_sigprocmask, [how, (&raw const NO_SIGNALS) as usize, 0, SIGSET_SIZE]));
        let [stdin, stdout, stderr] = orders.stdio;
        error = error.min(call(libc::SYS_dup3, [stdin as usize, 0, 0, 0]));
        error = error.min(call(libc::SYS_dup3, [stdout as usize, 1, 0, 0]));
        error = error.min(call(libc::SYS_dup3, [stderr as usize, 2, 0, 0]));
        let mut first = WATCH;
        if orders.watch >= 0 {
            if orders.watch != WATCH {
                let cloexec = libc::O_CLOEXEC as usize;
                error = error.min(call(libc::SYS_dup3, [orders.watch as usize, WATCH as usize, cloexec, 0]));
            }
            first += 1;
        }
        let mut descriptor = 0;
        while descriptor < 3 && !orders.foreign {
            // The parent wants its own ends non-blocking, and these were made together with them. Clearing
            // the flag here runs on another processor and saves the parent a call.
            error = error.min(call(libc::SYS_fcntl, [descriptor, libc::F_SETFL as usize, 0, 0]));
            descriptor += 1;
        }
        if error < 0 {
            // Before the close below: if a dup3 failed, only the old number is the watch.
            return error.wrapping_neg();
        }
        // The daemon's descriptors go before anything that may take long: others wait for end of file on
        // their pipes.
        call(libc::SYS_close_range, [first as usize, u32::MAX as usize, 0, 0]);
        if let Some(limit) = &orders.descriptor_limit {
            // Limits are not shared with memory, so this leaves the daemon's alone. If it is refused, the
            // program runs with the daemon's limit.
            let limit = (&raw const *limit) as usize;
            call(libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE as usize, limit, 0]);
        }
        if orders.terminal {
            error = call(libc::SYS_ioctl, [0, libc::TIOCSCTTY as usize, 0, 0]);
            if error < 0 {
                return error.wrapping_neg();
            }
        }
        if orders.directory.is_null() {
            return 0;
        }
        match call(libc::SYS_chdir, [orders.directory as usize, 0, 0, 0]).wrapping_neg() {
            0 => 0,
            error => IN_DIRECTORY + error,
        }
    }
}

/// Becomes the program. Returns only on failure, with a code for [`failure_of`].
///
/// # Safety
/// As [`child_main`].
unsafe fn exec(orders: &Orders) -> c_int {
    // SAFETY: see `child_main`; `argv` has a first string, and both arrays end with a null pointer.
    unsafe {
        let name = CStr::from_ptr(*orders.argv);
        let path = if orders.path.is_null() { None } else { Some(CStr::from_ptr(orders.path)) };
        let execve = |file: &CStr| {
            let arguments = [file.as_ptr() as usize, orders.argv as usize, orders.environment as usize, 0];
            call(libc::SYS_execve, arguments).wrapping_neg()
        };
        let exists = |file: &CStr| {
            let from = libc::AT_FDCWD as usize;
            call(libc::SYS_faccessat, [from, file.as_ptr() as usize, libc::F_OK as usize, 0]) == 0
        };
        code_of(lookup::execute(name, path, execve, exists))
    }
}

/// A system call that leaves `errno` alone. Returns what the kernel returned: a negated errno on failure.
///
/// # Safety
/// That of the call.
pub(super) unsafe fn call(number: c_long, arguments: [usize; 4]) -> c_int {
    // SAFETY: the caller's.
    (unsafe { arch::call(number as isize, arguments) }) as c_int
}

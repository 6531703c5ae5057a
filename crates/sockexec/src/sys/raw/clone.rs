//! A child that shares this process's memory until it has exec'd, while this process goes on.
//!
//! fork(2) copies page tables, and `posix_spawn(3)` makes its caller wait for the child's exec. Here the child
//! is made by `clone3` with `CLONE_VM` and without `CLONE_VFORK`: no copy, and exec runs on another processor
//! while the loop serves others. The rules of vfork(2) hold all the same, and for longer. Each one, and why it is kept:
//!
//! | rule | why it holds |
//! | --- | --- |
//! | the child has a stack of its own | [`Stack`], held by [`Launch`] until the child has left our memory |
//! | it must not touch what belongs to a thread: `errno`, thread-local storage, locks, the allocator | [`child_main`] makes raw system calls only, reads what [`Launch`] has prepared, and writes one atomic integer. libc's wrappers would write the parent's `errno` |
//! | memory it uses must stay | [`Launch`] owns it, and is let go only once the kernel has zeroed [`Outcome::alive`] (`CLONE_CHILD_CLEARTID`), which it does when the child leaves our memory by exec or death (`mm_release` in the kernel); if the [`Launcher`] is dropped before that, it is leaked |
//! | no handler of ours may run in it: it would run on this memory | `CLONE_CLEAR_SIGHAND`: every handled signal has its default from the child's first instruction |
//! | ignored signals stay ignored through exec | they were noted when [`Launcher`] was made, and the child sets them to their default |
//! | the mask stays too | the child empties it |
//! | a KILL between clone and exec | the child is gone with its work half done, which has changed nothing of ours: a table that is shared it only leaves, and it writes to no memory but its stack and [`Outcome`]. It shows as an exit by that signal |
//! | the end of this process while children are in flight | the memory lives on until the last of them has left it |
//! | the end of this process after that | the child asks to be killed with its parent (`PR_SET_PDEATHSIG`), then looks whether that is still there |
//! | signals to the group before `setpgid` in the child | the parent calls setpgid(2) as well before it signals ([`super::super::group::Group`]); not for a session of its own, whose setsid(2) would fail after that: until then its leader is signalled by its own number |
//! | a table of descriptors that is shared | only with [`Extras::shared`]: the child touches none before it has left the table, and ends if it cannot. The parent keeps the child's ends open until then ([`super::super::reserve`]) |
//! | descriptors of ours live in the child until exec | all are close-on-exec, and the child makes sure of it; the daemon ends connections by shutdown(2) and deregisters before it closes |
//! | seccomp, old kernels, emulators | `clone3` fails with ENOSYS, EPERM or EINVAL, and the caller takes the portable way |
//!
//! rseq(2) areas and robust futex lists are not inherited by such a child. Until its exec waitid(2) finds it only with
//! `__WALL`, as it sends no signal at its death; after that its exit status is a child's like any other.

#![expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "descriptors, flags and the numbers of signals and calls are small and not negative; no call made here returns more than an int"
)]

use std::arch::asm;
use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::{IN_DIRECTORY, code_of, failure_of};
use crate::sys::lookup;
use crate::sys::spawn::{Failure, Program};

/// The size of a child's stack, in bytes. [`child_main`] needs the length of a path (4 KiB) and a few hundred; nothing else
/// runs on it.
const STACK: usize = 16 << 10;

/// How many stacks are kept for the next children.
const SPARE_STACKS: usize = 16;

/// How many children may be on their way to exec at once: they cost memory, and more of them than there are
/// processors do not come to exec any sooner.
const MAX_IN_FLIGHT: usize = 16;

/// The stack grows down from its end, which must be a multiple of 16 (System V ABI, 3.2.2).
#[repr(C, align(16))]
struct Stack([MaybeUninit<u8>; STACK]);

/// What the child tells its parent through the memory that they share.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Not 0 while the child is in our memory; the kernel zeroes it.
    alive: AtomicI32,
    /// Not 0 once the child has a table of descriptors of its own.
    apart: AtomicI32,
    /// The error of the last step that failed, as [`failure_of`] reads it; 0: none.
    error: AtomicI32,
}

/// What a child may be given beside its arguments and descriptors.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    /// The working directory.
    pub(crate) directory: Option<CString>,
    /// The whole environment, `NAME=VALUE` each, in place of the one that all children have.
    pub(crate) environment: Option<Vec<CString>>,
    /// Descriptor 0 is to be the controlling terminal of a new session.
    pub(crate) terminal: bool,
    /// The descriptors are others' as well: their flags are left alone.
    pub(crate) foreign: bool,
    /// The child shares this process's table of descriptors at first. `None`: it has a copy.
    pub(crate) shared: Option<SharedTable>,
}

/// How a child leaves the table of descriptors that it shares with this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedTable {
    /// It takes along what is below this number.
    pub(crate) cut: RawFd,
    /// An eventfd, below it, to which it then writes.
    pub(crate) event: RawFd,
}

impl Outcome {
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

    /// Whether what this process does with its descriptors is no matter to the child any more.
    pub(crate) fn has_own_table(&self) -> bool {
        self.apart.load(Ordering::Acquire) != 0 || self.has_left()
    }
}

/// What [`child_main`] goes by: pointers into a [`Launch`], and descriptors.
struct Orders {
    stdio: [c_int; 3],
    /// The pid of this process, of which the child is to be a child.
    parent: c_int,
    /// Signals to be set to their default: bit n - 1 for signal n.
    ignored: u64,
    /// Null: the first of `argv` says where the program is.
    path: *const c_char,
    argv: *const *const c_char,
    environment: *const *const c_char,
    /// Null: the parent's.
    directory: *const c_char,
    terminal: bool,
    foreign: bool,
    shared: Option<SharedTable>,
    apart: *const AtomicI32,
    error: *const AtomicI32,
}

/// Everything that one child uses before its exec.
struct Launch {
    outcome: Arc<Outcome>,
    stack: Box<Stack>,
    orders: Box<Orders>,
    program: Program,
    _extras: Extras,
    _arrays: [Vec<*const c_char>; 2],
}

/// The environment of all children, as execve(2) wants it.
struct Environment {
    pointers: Vec<*const c_char>,
    strings: Vec<CString>,
}

/// Starts children, and keeps what they use while they use it.
pub(crate) struct Launcher {
    environment: Environment,
    ignored: u64,
    in_flight: Vec<Launch>,
    spare: Vec<Box<Stack>>,
}

impl Launcher {
    /// Children will have this environment, `NAME=VALUE` each, and of the signals in `ignored` (bit n - 1 for
    /// signal n) the defaults. `None`: not on this system.
    #[expect(clippy::unnecessary_wraps, reason = "elsewhere there is none: no_clone.rs")]
    pub(crate) fn new(environment: Vec<CString>, ignored: u64) -> Option<Self> {
        let environment = Environment { pointers: null_terminated(&environment), strings: environment };
        Some(Self { environment, ignored, in_flight: Vec::new(), spare: Vec::new() })
    }

    /// Whether so many children are on their way that the next program should be started by waiting for it.
    pub(crate) fn is_full(&self) -> bool {
        self.in_flight.len() >= MAX_IN_FLIGHT
    }

    /// A pipe for [`Launcher::launch`]: neither end blocks, neither is inherited.
    #[expect(clippy::unused_self, reason = "elsewhere there is no launcher, and so no need of one: no_clone.rs")]
    pub(crate) fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        Ok(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
    }

    /// Starts a program as the leader of a group of its own,
    /// with `stdio` as descriptors 0, 1 and 2 and no others.
    ///
    /// The descriptors must be above 2, and open until this returns or, with a table that is shared, until the child
    /// [has its own](Outcome::has_own_table); the child makes them block, unless they are foreign. Its pid is returned at once; whether the
    /// exec succeeds shows in the [`Outcome`].
    ///
    /// # Errors
    /// Those of clone(2), and the program again. ENOSYS, EPERM and EINVAL: it will not work here at all.
    pub(crate) fn launch(
        &mut self,
        program: Program,
        stdio: [BorrowedFd<'_>; 3],
        extras: Extras,
    ) -> Result<(Pid, Arc<Outcome>), (io::Error, Program)> {
        let own = extras.environment.as_deref();
        let arrays = [null_terminated(&program.argv), own.map_or_else(Vec::new, null_terminated)];
        let apart = AtomicI32::new(extras.shared.is_none().into());
        let outcome = Arc::new(Outcome { alive: AtomicI32::new(1), apart, error: AtomicI32::new(0) });
        let orders = Box::new(Orders {
            stdio: stdio.map(|descriptor| descriptor.as_raw_fd()),
            parent: std::process::id().cast_signed(),
            ignored: self.ignored,
            path: pointer(program.path.as_deref()),
            argv: arrays[0].as_ptr(),
            environment: if own.is_some() { arrays[1].as_ptr() } else { self.environment.pointers.as_ptr() },
            directory: pointer(extras.directory.as_deref()),
            terminal: extras.terminal,
            foreign: extras.foreign,
            shared: extras.shared,
            apart: &raw const outcome.apart,
            error: &raw const outcome.error,
        });
        let stack = self.spare.pop().unwrap_or_else(|| Box::new(Stack([MaybeUninit::uninit(); STACK])));
        let mut launch =
            Launch { outcome: Arc::clone(&outcome), stack, orders, program, _extras: extras, _arrays: arrays };
        match clone(&mut launch) {
            Ok(pid) => {
                self.in_flight.push(launch);
                Ok((pid, outcome))
            }
            Err(error) => Err((error, launch.program)),
        }
    }

    /// Lets go of what children used that have exec'd or died.
    pub(crate) fn collect(&mut self) {
        for launch in self.in_flight.extract_if(.., |launch| launch.outcome.has_left()) {
            if self.spare.len() < SPARE_STACKS {
                self.spare.push(launch.stack);
            }
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.collect();
        if !self.in_flight.is_empty() {
            // Children are still at work on it.
            mem::forget(mem::take(&mut self.in_flight));
            mem::forget(mem::take(&mut self.environment.pointers));
            mem::forget(mem::take(&mut self.environment.strings));
        }
    }
}

fn pointer(string: Option<&CStr>) -> *const c_char {
    string.map_or(ptr::null(), CStr::as_ptr)
}

fn null_terminated(strings: &[CString]) -> Vec<*const c_char> {
    // The strings are on the heap: their addresses stay when the Vec that holds them is moved.
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// The argument of `clone3(2)`, first version (64 bytes), in the layout of `linux/sched.h`.
#[repr(C)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// Linux 5.5; libc has it as an `int`, which it does not fit.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

fn clone(launch: &mut Launch) -> io::Result<Pid> {
    let table = if launch.orders.shared.is_some() { libc::CLONE_FILES } else { 0 };
    let arguments = CloneArguments {
        flags: CLONE_CLEAR_SIGHAND | (libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID | table) as u64,
        pidfd: 0,
        child_tid: (&raw const launch.outcome.alive) as u64,
        parent_tid: 0,
        // Exec makes it CHLD, which tells a child that died before its exec from one that was executed (`Group::was_executed`).
        exit_signal: 0,
        stack: (&raw mut *launch.stack) as u64,
        stack_size: STACK as u64,
        tls: 0,
    };
    let result: isize;
    // SAFETY: `arguments` is a valid clone_args of the size that is given. In the parent the call changes rax, rcx and
    // r11 only, as every system call does. The child begins after `syscall` with a copy of the registers and with
    // rsp at the end of a stack that is its own and a multiple of 16; it touches no memory of this frame, calls
    // `child_main` with its orders and never comes back. All that those orders point to, and the stack, are
    // owned by `launch`, which the caller keeps until the kernel has zeroed `alive`.
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
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") &raw const arguments,
            in("rsi") size_of::<CloneArguments>(),
            in("r12") &raw const *launch.orders,
            in("r13") child_main as unsafe extern "C" fn(*const Orders) -> !,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    let error = || io::Error::from_raw_os_error(c_int::try_from(-result).unwrap_or(libc::EIO));
    c_int::try_from(result).ok().filter(|&pid| pid > 0).and_then(Pid::from_raw).ok_or_else(error)
}

/// What the child does. Raw system calls only.
///
/// # Safety
/// Runs once, in the child, on a stack of its own; `orders` and all that it points to stay until exec or exit.
unsafe extern "C" fn child_main(orders: *const Orders) -> ! {
    // SAFETY: the caller's promise; the system calls get addresses that are valid by it, or null where that is
    // allowed, and descriptors of a table that is the child's own by then.
    unsafe {
        let orders = &*orders;
        let error = prepare(orders);
        let error = if error == 0 { exec(orders) } else { error };
        (*orders.error).store(error, Ordering::Release);
        loop {
            call(libc::SYS_exit_group, [127, 0, 0, 0]);
        }
    }
}

/// Everything before exec; 0, or a number for [`failure_of`].
///
/// # Safety
/// As [`child_main`].
unsafe fn prepare(orders: &Orders) -> c_int {
    /// The kernel's own `sigaction`: handler, flags, restorer, mask. All zero: `SIG_DFL`.
    static DEFAULT: [u64; 4] = [0; 4];
    /// What is added to an eventfd.
    static ONE: u64 = 1;
    /// An empty mask, 64 signals of a bit each.
    static NO_SIGNALS: u64 = 0;
    const SIGSET_SIZE: usize = size_of::<u64>();
    const CLOSE_RANGE_CLOEXEC: usize = 4;
    // SAFETY: see `child_main`. The addresses are of statics.
    unsafe {
        // First, so that a signal to the group finds it as early as can be. A session is a group as well.
        let group = if orders.terminal { libc::SYS_setsid } else { libc::SYS_setpgid };
        let mut error = call(group, [0; 4]).min(0);
        // Nobody is to run on when the daemon was killed. The signal is sent when the thread that made the child ends:
        // the loop's, which outlives its programs. If that was before this call nobody will be told any more.
        error = error.min(call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0]));
        if call(libc::SYS_getppid, [0; 4]) != orders.parent {
            return libc::ESRCH;
        }
        if let Some(shared) = orders.shared {
            // Up to here no descriptor was touched, from here on each is the child's own.
            let failed = leave(shared);
            if failed < 0 {
                return failed.wrapping_neg();
            }
            (*orders.apart).store(1, Ordering::Release);
            call(libc::SYS_write, [shared.event as usize, (&raw const ONE) as usize, size_of::<u64>(), 0]);
        }
        let mut signal = 1;
        while signal <= 64 {
            if orders.ignored & (1 << (signal - 1)) != 0 {
                call(libc::SYS_rt_sigaction, [signal, (&raw const DEFAULT) as usize, 0, SIGSET_SIZE]);
            }
            signal += 1;
        }
        let how = libc::SIG_SETMASK as usize;
        error = error.min(call(libc::SYS_rt_sigprocmask, [how, (&raw const NO_SIGNALS) as usize, 0, SIGSET_SIZE]));
        let [stdin, stdout, stderr] = orders.stdio;
        error = error.min(call(libc::SYS_dup2, [stdin as usize, 0, 0, 0]));
        error = error.min(call(libc::SYS_dup2, [stdout as usize, 1, 0, 0]));
        error = error.min(call(libc::SYS_dup2, [stderr as usize, 2, 0, 0]));
        let mut descriptor = 0;
        while descriptor < 3 && !orders.foreign {
            // They were made not to block, for the parent's ends; one step less there is one more here, on
            // another processor.
            error = error.min(call(libc::SYS_fcntl, [descriptor, libc::F_SETFL as usize, 0, 0]));
            descriptor += 1;
        }
        // For descriptors that an application around the daemon has without close-on-exec. Linux 5.11; before that
        // it fails, and the daemon's own are close-on-exec anyway.
        call(libc::SYS_close_range, [3, u32::MAX as usize, CLOSE_RANGE_CLOEXEC, 0]);
        if orders.terminal {
            error = error.min(call(libc::SYS_ioctl, [0, libc::TIOCSCTTY as usize, 0, 0]));
        }
        if error < 0 {
            return error.wrapping_neg();
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

/// Makes a table of descriptors for this child alone; 0, or a negated errno.
///
/// # Safety
/// As [`child_main`].
unsafe fn leave(shared: SharedTable) -> c_int {
    const CLOSE_RANGE_UNSHARE: usize = 2;
    // SAFETY: plain integers; the child has a table of its own after that, and what is closed is not in the parent's.
    unsafe {
        match call(libc::SYS_close_range, [shared.cut as usize, u32::MAX as usize, CLOSE_RANGE_UNSHARE, 0]) {
            0 => 0,
            // Before Linux 5.9, or refused. A copy of all does as well, if it takes longer.
            _ => call(libc::SYS_unshare, [libc::CLONE_FILES as usize, 0, 0, 0]),
        }
    }
}

/// Becomes the program; returns only if that cannot be, with a number for [`failure_of`].
///
/// # Safety
/// As [`child_main`].
unsafe fn exec(orders: &Orders) -> c_int {
    // SAFETY: see `child_main`; `argv` has a first string, both arrays end with a null pointer, and the kernel fills `stat`
    // with what it is the size of.
    unsafe {
        let name = CStr::from_ptr(*orders.argv);
        let path = if orders.path.is_null() { None } else { Some(CStr::from_ptr(orders.path)) };
        let execve = |file: &CStr| {
            let arguments = [file.as_ptr() as usize, orders.argv as usize, orders.environment as usize, 0];
            call(libc::SYS_execve, arguments).wrapping_neg()
        };
        let exists = |file: &CStr| {
            let mut stat = MaybeUninit::<libc::stat>::uninit();
            call(libc::SYS_stat, [file.as_ptr() as usize, stat.as_mut_ptr() as usize, 0, 0]) == 0
        };
        code_of(lookup::execute(name, path, execve, exists))
    }
}

/// A system call that leaves `errno` alone: what the kernel returned, a negated errno if it failed.
///
/// # Safety
/// That of the call.
unsafe fn call(number: c_long, arguments: [usize; 4]) -> c_int {
    let result: isize;
    let [a, b, c, d] = arguments;
    // SAFETY: the caller's; the kernel changes rax, rcx and r11, and memory as the call says.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result as c_int
}

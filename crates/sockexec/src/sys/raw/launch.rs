//! Makes a child that becomes a program, with a system call of our own. Nothing here waits for the exec.
//!
//! Three calls can do it. The first that works here is used:
//!
//! | call | where it does not work | what is shared |
//! | --- | --- | --- |
//! | clone3(2) with `CLONE_VM` and `CLONE_CLEAR_SIGHAND` | before Linux 5.5; under the default filter of Docker, containerd and systemd's `RestrictNamespaces=` | the memory |
//! | clone(2) with `CLONE_VM` | on processors without a file in `arch/` | the memory |
//! | clone(2) without flags, which is fork(2) | where a filter refuses clone altogether | nothing: the page tables are copied |
//!
//! fork(2) copies page tables, which costs most of the rate. `posix_spawn(3)` makes its caller wait for the
//! child's exec (`CLONE_VFORK`), so a client could stop the loop with an exec that hangs. With shared memory
//! nothing is copied, and the exec runs on another processor while the loop serves others.
//!
//! A program with a terminal is always forked: until its exec, a signal from the keyboard could end every
//! process that shares the memory, with a core dump (before Linux 5.16 that ends the daemon).
//!
//! With shared memory the rules of vfork(2) apply, and for longer. Each rule, and why it holds:
//!
//! | rule | why it holds |
//! | --- | --- |
//! | the child has its own stack | [`Stack`], held by [`Launch`] until the child has left our memory; a guard page lies below it |
//! | it must not touch what belongs to a thread: `errno`, thread-local storage, locks, the allocator | [`child_main`] makes raw system calls only, reads what [`Launch`] has prepared, and writes two atomic integers. libc's wrappers would write the parent's `errno` |
//! | memory it uses must stay | [`Launch`] owns it until the kernel has zeroed [`Outcome::alive`] (`CLONE_CHILD_CLEARTID`), which happens when the child leaves our memory by exec or death (`mm_release` in the kernel); if the [`Launcher`] is dropped before that, the memory is leaked |
//! | no handler of ours may run in it: it would run on this memory | clone3: `CLONE_CLEAR_SIGHAND`. clone: all signals are blocked around it ([`Blocked`]), and the child resets them before it unblocks them |
//! | a signal before the exec takes its default action | it may end the child, as KILL does (below), and the client is told. Before the child's first call, which makes its group, that includes a signal to the daemon's group. One that dumps core ends all that share the memory before Linux 5.16; but the daemon got it as well, or its sender could have sent it to the daemon |
//! | a KILL between clone and exec | the child leaves its work half done, which changes nothing of ours: it only leaves a shared table, and it writes to no memory but its stack and [`Outcome`] |
//! | the end of this process while children are in flight | the memory lives until the last of them has left it |
//! | a shared descriptor table | only with [`SharedTable`]: the child touches no descriptor before it has left the table, and exits if it cannot leave. The parent keeps the child's ends open until then ([`super::super::reserve`]) |
//!
//! These hold for all three calls:
//!
//! | rule | why it holds |
//! | --- | --- |
//! | ignored signals stay ignored through exec | the child resets them to their default |
//! | the signal mask stays too | the child empties it |
//! | our descriptors live in the child until exec | the child closes all but its own by `close_range(2)`, before anything that may take long: the directory, the search for the program, its exec. Without that call (before Linux 5.9, or refused) they live until the exec, as all are close-on-exec |
//! | the end of this process after the child's start | the child asks to be killed with its parent (`PR_SET_PDEATHSIG`), then checks that the parent is still there |
//! | signals to the group before `setpgid` in the child | the parent calls setpgid(2) too before it signals ([`super::super::group::Group`]). Not for a session of its own, whose setsid(2) would fail after that: until then its leader is signalled by its own number |
//!
//! A child that shares memory inherits no rseq(2) area and no robust futex list. Until its exec waitid(2)
//! finds it only with `__WALL`, as it sends no signal at its death; after that its exit status is like any
//! other child's.

#![expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "descriptors, flags and the numbers of signals and calls are small and not negative; no call made here returns more than an int"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use rustix::process::Pid;

use super::arch;
use super::child::{Orders, SIGSET_SIZE, call, child_main};
pub(crate) use super::child::{Outcome, SharedTable, failure_of};
use crate::sys::program::{Failure, NotMade, Plan};

/// The size of a child's stack, in bytes. [`child_main`] needs the length of a path (4 KiB) and a few hundred
/// bytes; nothing else runs on it.
const STACK: usize = 16 << 10;

/// How many children [`Launcher::collect`] looks at.
const LOOKS: usize = 32;

/// How many stacks are kept for later children.
const SPARE_STACKS: usize = 16;

/// The call that makes children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Clone3,
    /// clone(2) with shared memory.
    Clone,
    Fork,
}

impl Call {
    pub(crate) const ALL: [Self; 3] = [Self::Clone3, Self::Clone, Self::Fork];

    /// The name in the status and the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Clone3 => "clone3",
            Self::Clone => "clone",
            Self::Fork => "fork",
        }
    }

    /// Whether a child shares this process's memory until its exec.
    pub(crate) fn shares_memory(self) -> bool {
        self != Self::Fork
    }

    /// The best call that may work here. No child is needed to find a filter: without arguments clone3 fails
    /// with EINVAL.
    pub(crate) fn best() -> Self {
        if !arch::BRANCHES {
            return Self::Fork;
        }
        // SAFETY: no address and a size of 0: the kernel looks at the size first, and refuses it.
        let refused = unsafe { call(libc::SYS_clone3, [0; 4]) };
        if refused == -libc::EINVAL { Self::Clone3 } else { Self::Clone }
    }

    /// The call to try if this one is not permitted.
    const fn next(self) -> Option<Self> {
        match self {
            Self::Clone3 => Some(Self::Clone),
            Self::Clone => Some(Self::Fork),
            Self::Fork => None,
        }
    }
}

/// What a child is given of this process's descriptors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptors<'a> {
    /// What becomes 0, 1 and 2. All three are above 2.
    pub(crate) streams: [BorrowedFd<'a>; 3],
    /// The write end of a pipe. The child keeps it until its exec, so that its end of file shows the exec. A
    /// forked child also reports through it why there was no exec.
    pub(crate) watch: Option<BorrowedFd<'a>>,
    /// The child shares this process's descriptor table at first. `None`: it has a copy.
    pub(crate) shared: Option<SharedTable>,
}

/// What a forked child has reported through its watch: success, by end of file, or a code for [`failure_of`].
/// `None`: nothing yet. It reports once.
pub(crate) fn reported(watch: BorrowedFd<'_>) -> Option<Result<(), i32>> {
    let mut code = [0; size_of::<c_int>()];
    match rustix::io::retry_on_intr(|| rustix::io::read(watch, &mut code)) {
        Ok(0) => Some(Ok(())),
        Ok(n) if n == code.len() => Some(Err(c_int::from_ne_bytes(code))),
        Ok(_) | Err(_) => None,
    }
}

/// How the outcome of a child is learned.
#[derive(Debug)]
pub(crate) enum Start {
    /// Through shared memory.
    Shared(Arc<Outcome>),
    /// Through its watch, and from the kernel.
    Forked,
}

/// Everything that one child uses before its exec.
struct Launch {
    outcome: Arc<Outcome>,
    stack: Stack,
    /// Not a `Box`: the child reads it through another pointer, which moving a box would invalidate.
    _orders: Rc<Orders>,
    _arrays: [Vec<*const c_char>; 2],
    _plan: Plan,
}

/// The environment of all children, as execve(2) takes it.
struct Environment {
    pointers: Vec<*const c_char>,
    strings: Vec<CString>,
}

/// Makes children, and keeps what they use while they use it.
pub(crate) struct Launcher {
    environment: Environment,
    ignored: u64,
    /// See [`Orders::descriptor_limit`].
    descriptor_limit: Option<[u64; 2]>,
    /// The pid of this process, the children's parent. Asked for once, as that is a system call.
    own_pid: c_int,
    call: Call,
    in_flight: Vec<Launch>,
    /// The next one to look at.
    next: usize,
    spare: Vec<Stack>,
    /// The exit signal of forked children: see [`fork`].
    exit_signal: c_int,
}

impl Launcher {
    /// Whether [`Launcher::launch`] waits for the exec.
    pub(crate) const WAITS: bool = false;

    /// Children are made by `first`, or by the next call that works. They get this environment (`NAME=VALUE`
    /// each), the default for each signal in `ignored` (bit n - 1 for signal n), and this descriptor limit,
    /// soft and hard, or else that of this process.
    pub(crate) fn new(
        environment: Vec<CString>,
        ignored: u64,
        descriptor_limit: Option<[u64; 2]>,
        first: Call,
    ) -> Self {
        let environment =
            Environment { pointers: null_terminated(environment.iter().map(CString::as_c_str)), strings: environment };
        let own_pid = std::process::id().cast_signed();
        Self {
            environment,
            ignored,
            descriptor_limit,
            own_pid,
            call: first,
            in_flight: Vec::new(),
            next: 0,
            spare: Vec::new(),
            exit_signal: 0,
        }
    }

    /// The environment of children.
    pub(crate) fn environment(&self) -> &[CString] {
        &self.environment.strings
    }

    /// The call that is in use.
    pub(crate) fn call(&self) -> Call {
        self.call
    }

    /// Whether a child can leave a shared table as [`SharedTable`] says (Linux 5.9, unless a filter refuses).
    /// For an empty range `close_range(2)` fails with EINVAL.
    pub(crate) fn can_leave_table() -> bool {
        // SAFETY: plain integers, and a range that ends before it begins, which is refused before anything is closed.
        unsafe { call(libc::SYS_close_range, [1, 0, 0, 0]) == -libc::EINVAL }
    }

    /// Whether a child will be forked. It then needs a [watch](Descriptors::watch), and has no use for a
    /// [`SharedTable`].
    pub(crate) fn forks(&self, plan: &Plan) -> bool {
        plan.terminal || self.call == Call::Fork
    }

    /// Starts a program as the leader of its own group, with no descriptors but 0, 1 and 2. Returns its pid
    /// at once.
    ///
    /// The descriptors must stay open until this returns or, with a shared table, until the child [has its
    /// own](Outcome::has_own_table). The child makes its streams blocking, unless they are foreign.
    ///
    /// # Errors
    /// Those of clone(2), and of mmap(2) for a stack.
    pub(crate) fn launch(&mut self, plan: Plan, descriptors: &Descriptors<'_>) -> Result<(Pid, Start), Box<NotMade>> {
        let way = if plan.terminal { Call::Fork } else { self.call };
        let own = plan.environment.as_deref();
        let arrays = [
            null_terminated(&plan.program.argv),
            own.map_or_else(Vec::new, |own| null_terminated(own.iter().map(CString::as_c_str))),
        ];
        let outcome = Arc::new(Outcome::new(descriptors.shared.is_some()));
        let orders = Rc::new(Orders {
            stdio: descriptors.streams.map(|descriptor| descriptor.as_raw_fd()),
            watch: descriptors.watch.map_or(-1, |watch| watch.as_raw_fd()),
            parent: self.own_pid,
            // Handlers must be reset too; clone3 has cleared them already.
            reset: if way == Call::Clone3 { self.ignored } else { u64::MAX },
            path: pointer(plan.program.path.as_deref()),
            argv: arrays[0].as_ptr(),
            environment: if own.is_some() { arrays[1].as_ptr() } else { self.environment.pointers.as_ptr() },
            directory: pointer(plan.directory.as_deref()),
            terminal: plan.terminal,
            foreign: plan.foreign,
            shared: descriptors.shared,
            descriptor_limit: self.descriptor_limit,
            outcome: if way == Call::Fork { ptr::null() } else { Arc::as_ptr(&outcome) },
        });
        let made = match way {
            Call::Fork => {
                let mut made = fork(&orders, self.exit_signal);
                if self.exit_signal == 0 && made.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
                {
                    self.exit_signal = libc::SIGCHLD;
                    made = fork(&orders, self.exit_signal);
                }
                made.map(|pid| (pid, Start::Forked))
            }
            Call::Clone3 | Call::Clone => match self.spare.pop().map_or_else(Stack::new, Ok) {
                Err(error) => Err(error),
                Ok(stack) => {
                    let call = if way == Call::Clone3 { clone3 } else { clone };
                    match call(&orders, &outcome, &stack) {
                        Ok(pid) => {
                            let start = Start::Shared(Arc::clone(&outcome));
                            self.in_flight.push(Launch {
                                outcome,
                                stack,
                                _orders: orders,
                                _arrays: arrays,
                                _plan: plan,
                            });
                            return Ok((pid, start));
                        }
                        Err(error) => {
                            self.spare.push(stack);
                            Err(error)
                        }
                    }
                }
            },
        };
        made.map_err(|error| {
            // Other errors are temporary: no process or no memory for now.
            let for_good =
                matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EACCES | libc::EINVAL));
            let again = match way.next() {
                Some(next) if for_good => {
                    log::debug!("{} is not permitted here: {error}", way.name());
                    self.call = next;
                    Some(plan)
                }
                Some(_) | None => None,
            };
            Box::new(NotMade { failure: Failure::Own(error), again })
        })
    }

    /// Frees what children used that have exec'd or died. Looks at a few per call, as a thousand may be in a
    /// slow exec.
    pub(crate) fn collect(&mut self) {
        for _ in 0..LOOKS {
            if self.next >= self.in_flight.len() {
                self.next = 0;
            }
            match self.in_flight.get(self.next) {
                None => return,
                Some(launch) if launch.outcome.has_left() => {
                    let launch = self.in_flight.swap_remove(self.next);
                    if self.spare.len() < SPARE_STACKS {
                        self.spare.push(launch.stack);
                    }
                }
                Some(_) => self.next += 1,
            }
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.in_flight.retain(|launch| !launch.outcome.has_left());
        if !self.in_flight.is_empty() {
            // Children still use it.
            mem::forget(mem::take(&mut self.in_flight));
            mem::forget(mem::take(&mut self.environment.pointers));
            mem::forget(mem::take(&mut self.environment.strings));
        }
    }
}

fn pointer(string: Option<&CStr>) -> *const c_char {
    string.map_or(ptr::null(), CStr::as_ptr)
}

/// A null-terminated array of pointers to strings. The strings are on the heap, so their addresses stay when
/// their owner moves.
fn null_terminated<'a>(strings: impl IntoIterator<Item = &'a CStr>) -> Vec<*const c_char> {
    strings.into_iter().map(CStr::as_ptr).chain([ptr::null()]).collect()
}

/// A stack for one child, above a guard page: an overflow cannot reach memory of ours.
struct Stack {
    base: *mut c_void,
    /// In bytes, including the guard page.
    len: usize,
}

impl Stack {
    /// # Errors
    /// Those of mmap(2) and mprotect(2).
    fn new() -> io::Result<Self> {
        // SAFETY: sysconf only reads a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(4096) as usize;
        let len = page + STACK.next_multiple_of(page);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: new memory at an address of the kernel's choice, which nobody knows yet.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base, len };
        // SAFETY: its first page, which it is the only one to know.
        if unsafe { libc::mprotect(base, page, libc::PROT_NONE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    /// The end, where the stack begins, as it grows down. A multiple of a page, and so of 16, as both ABIs
    /// require.
    fn top(&self) -> usize {
        self.base as usize + self.len
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: what `new` has mapped, and nobody uses any more: see `Launch`.
        unsafe { libc::munmap(self.base, self.len) };
    }
}

/// Blocks all signals of this thread until it is dropped, including those that libc reserves.
struct Blocked {
    before: u64,
}

impl Blocked {
    /// # Errors
    /// A filter refuses the call.
    fn all() -> io::Result<Self> {
        let (all, mut before) = (u64::MAX, 0_u64);
        let how = libc::SIG_SETMASK as usize;
        let arguments = [how, (&raw const all) as usize, (&raw mut before) as usize, SIGSET_SIZE];
        // SAFETY: the kernel reads one set of this size, and writes the other.
        let failed = unsafe { call(libc::SYS_rt_sigprocmask, arguments) };
        if failed < 0 { Err(io::Error::from_raw_os_error(failed.wrapping_neg())) } else { Ok(Self { before }) }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let arguments = [libc::SIG_SETMASK as usize, (&raw const self.before) as usize, 0, SIGSET_SIZE];
        // SAFETY: the kernel reads one set of this size.
        unsafe { call(libc::SYS_rt_sigprocmask, arguments) };
    }
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

/// Linux 5.5. libc declares it as an `int`, which is too small for it.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// The flags of a child that shares this memory. Their lowest byte, the exit signal, is 0, and exec makes it
/// CHLD. That tells a child that died before its exec from one that was executed (`Group::was_executed`).
fn sharing(orders: &Orders) -> c_int {
    let table = if orders.shared.is_some() { libc::CLONE_FILES } else { 0 };
    libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID | table
}

fn clone3(orders: &Orders, outcome: &Outcome, stack: &Stack) -> io::Result<Pid> {
    let arguments = CloneArguments {
        flags: CLONE_CLEAR_SIGHAND | sharing(orders) as u64,
        pidfd: 0,
        child_tid: (&raw const outcome.alive) as u64,
        parent_tid: 0,
        exit_signal: 0,
        stack: stack.base as u64,
        stack_size: stack.len as u64,
        tls: 0,
    };
    let arguments = [(&raw const arguments) as usize, size_of::<CloneArguments>(), 0, 0, 0];
    // SAFETY: a valid clone_args of the size that is given. All that the orders point to, and the stack, go into a `Launch`, which the
    // launcher keeps until the kernel has zeroed `alive`.
    pid(unsafe { arch::branch(libc::SYS_clone3 as isize, arguments, child_main, orders) })
}

fn clone(orders: &Orders, outcome: &Outcome, stack: &Stack) -> io::Result<Pid> {
    let child_tid = (&raw const outcome.alive) as usize;
    let arguments = arch::clone_arguments(sharing(orders) as usize, stack.top(), child_tid);
    let _blocked = Blocked::all()?;
    // SAFETY: as in `clone3`. No handler runs in the child: all signals are blocked until it has none.
    pid(unsafe { arch::branch(libc::SYS_clone as isize, arguments, child_main, orders) })
}

/// The exit signal is 0, as with the other calls, so that waitid(2) shows whether the child was executed.
/// qemu's emulation of single programs accepts CHLD only; there a child that is killed before its exec counts
/// as executed.
fn fork(orders: &Orders, exit_signal: c_int) -> io::Result<Pid> {
    // If this is refused, a handler of ours may run in the child, on a copy of this memory.
    let _blocked = Blocked::all();
    // SAFETY: without flags but a signal, and without a stack, clone is fork (on s390x, where the stack comes first, only with no signal: there
    // it is refused, as no stack can be at 17). What the child knows is a copy of this memory, on which
    // it does nothing but `child_main`, which never returns, so that locks that other threads held do not matter to it.
    unsafe {
        match libc::syscall(libc::SYS_clone, exit_signal as usize, 0_usize, 0_usize, 0_usize, 0_usize) {
            0 => child_main(orders),
            -1 => Err(io::Error::last_os_error()),
            number => pid(number as isize),
        }
    }
}

/// Reads what the kernel returned: the pid of the child, or a negated errno.
fn pid(result: isize) -> io::Result<Pid> {
    let error = || io::Error::from_raw_os_error(c_int::try_from(-result).unwrap_or(libc::EIO));
    c_int::try_from(result).ok().filter(|&pid| pid > 0).and_then(Pid::from_raw).ok_or_else(error)
}

//! System calls that neither std nor rustix wraps. The only unsafe code of the project.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(super) mod clone;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[path = "no_clone.rs"]
pub(super) mod clone;

#[cfg(target_os = "linux")]
use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::mem;
#[cfg(target_os = "linux")]
use std::mem::MaybeUninit;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
#[cfg(target_os = "linux")]
use std::ptr;

#[cfg(target_os = "linux")]
use rustix::io::Errno;
#[cfg(target_os = "linux")]
use sockexec_proto::Usage;

#[cfg(target_os = "linux")]
use crate::engine::ExitStatus;

#[cfg(target_os = "linux")]
use super::lookup::{self, Refused};
#[cfg(target_os = "linux")]
use super::spawn::{Failure, Program};

/// The last of Linux's real-time signals; other systems have fewer and refuse the rest with EINVAL.
const MAX_SIGNAL: libc::c_int = 64;

/// Sets every ignored signal but PIPE to its default action and unblocks all.
///
/// Both survive `execve(2)`: a program must not find signals ignored or blocked because of how the
/// daemon was started. PIPE is left to Rust's runtime, which ignores it here and restores it in
/// children. Handlers are left alone too: `execve` resets them.
pub(super) fn restore_signals() {
    for signal in 1..=MAX_SIGNAL {
        if signal == libc::SIGPIPE {
            continue;
        }
        if is_ignored(signal) {
            // SAFETY: as in `action_of`; the default action has no handler. A signal that cannot be changed is refused
            // with EINVAL and stays as it is.
            unsafe {
                let mut default: libc::sigaction = mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const default, std::ptr::null_mut());
            }
        }
    }
    // SAFETY: `set` is initialised by sigemptyset before it is read; the call changes this thread's
    // mask only.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Whether CHLD is ignored, or has `SA_NOCLDWAIT`: then the kernel reaps children by itself, and their status is
/// lost (POSIX, `sigaction`; wait(2), notes).
pub(super) fn sigchld_is_ignored() -> bool {
    let action = action_of(libc::SIGCHLD);
    action.is_some_and(|action| action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0)
}

/// The signals that are ignored: bit n - 1 for signal n.
pub(super) fn ignored_signals() -> u64 {
    (1..=MAX_SIGNAL).filter(|&signal| is_ignored(signal)).fold(0, |set, signal| set | 1 << (signal - 1))
}

fn is_ignored(signal: libc::c_int) -> bool {
    action_of(signal).is_some_and(|action| action.sa_sigaction == libc::SIG_IGN)
}

/// What is done about a signal; `None`: there is no such signal.
fn action_of(signal: libc::c_int) -> Option<libc::sigaction> {
    // SAFETY: `sigaction` is a plain C structure for which all zeroes is a valid value; the call fills it. A number that
    // is no signal is refused with EINVAL.
    unsafe {
        let mut current: libc::sigaction = mem::zeroed();
        (libc::sigaction(signal, std::ptr::null(), &raw mut current) == 0).then_some(current)
    }
}

/// Marks every descriptor from `first` on close-on-exec.
pub(super) fn close_on_exec_from(first: libc::c_int) {
    #[cfg(target_os = "linux")]
    {
        // Linux 5.11; older kernels say ENOSYS or EINVAL.
        const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
        // SAFETY: plain integers; the call touches no memory of ours, and with CLOEXEC closes nothing.
        let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
        if done == 0 {
            return;
        }
    }
    // Descriptors above the soft limit may exist if it was lowered later; 65,536 covers what is met.
    // SAFETY: sysconf only reads a number.
    let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) }.clamp(256, 65_536);
    let limit = libc::c_int::try_from(limit).unwrap_or(65_536);
    for descriptor in first..limit {
        // SAFETY: F_SETFD on a number that is no open descriptor fails with EBADF; on an open one it
        // changes a flag that matters at exec only.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// The soft `RLIMIT_NOFILE`; `None`: infinite, or the call is refused. rustix's wrapper would panic then.
#[cfg(target_os = "linux")]
pub(super) fn descriptor_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call fills the structure that it is given.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (done == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Sends `signal` (0: only asks) to the process group whose leader `pidfd` refers to, also after the
/// leader was reaped: the descriptor pins the identity, so that no other group can be meant even if
/// the number is in use again.
///
/// # Errors
/// ESRCH: nobody is in the group. EPERM: none of them may be signalled. EINVAL, ENOSYS: a kernel
/// before Linux 6.9. Unsupported elsewhere.
#[cfg(target_os = "linux")]
pub(super) fn signal_group_by_pidfd(pidfd: BorrowedFd<'_>, signal: libc::c_int) -> io::Result<()> {
    const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 4;
    // SAFETY: the descriptor is open for the length of the borrow; a null siginfo means that the
    // kernel fills one in as for kill(2).
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            PIDFD_SIGNAL_PROCESS_GROUP,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Elsewhere no descriptor refers to a process.
#[cfg(not(target_os = "linux"))]
pub(super) fn signal_group_by_pidfd(_pidfd: BorrowedFd<'_>, _signal: libc::c_int) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The credentials that the kernel recorded of the peer of a UNIX socket: pid, uid, gid (unix(7),
/// `SO_PEERCRED`). The pid is 0 for a peer in a pid namespace that ours does not see, which is why
/// rustix's wrapper, whose pid cannot be 0, is not used.
#[cfg(target_os = "linux")]
pub(super) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<(libc::pid_t, libc::uid_t, libc::gid_t)> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = libc::socklen_t::try_from(mem::size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: the descriptor is open for the length of the borrow; the kernel writes at most `len` bytes
    // into a structure of that size, and any integers are valid in it.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut len,
        )
    };
    if done == 0 { Ok((credentials.pid, credentials.uid, credentials.gid)) } else { Err(io::Error::last_os_error()) }
}

/// What is added to an errno of exec on its way from a child, beyond every errno, to tell it from those of the steps
/// before.
#[cfg(target_os = "linux")]
const FROM_EXEC: i32 = 1 << 16;

/// The same for one of entering the directory, beyond those.
#[cfg(target_os = "linux")]
const IN_DIRECTORY: i32 = 1 << 17;

/// The same for one of exec if a file was there to be executed, beyond those.
#[cfg(target_os = "linux")]
const FOUND: i32 = 1 << 18;

/// Why there was no exec, on its way from a child.
#[cfg(target_os = "linux")]
fn code_of(Refused { error, found }: Refused) -> i32 {
    if found { FOUND + error } else { FROM_EXEC + error }
}

/// What such a number tells.
#[cfg(target_os = "linux")]
fn failure_of(code: i32) -> Failure {
    let error = io::Error::from_raw_os_error;
    match code {
        FOUND.. => Failure::Exec { error: error(code - FOUND), found: true },
        IN_DIRECTORY.. => Failure::Directory(error(code - IN_DIRECTORY)),
        FROM_EXEC.. => Failure::Exec { error: error(code - FROM_EXEC), found: false },
        _ => Failure::Own(error(code)),
    }
}

/// C strings, and the array of pointers to them that the kernel wants.
#[cfg(target_os = "linux")]
struct Strings {
    pointers: Vec<*const c_char>,
    _strings: Vec<CString>,
}

// SAFETY: the pointers are to what the same value owns on the heap and nobody changes.
#[cfg(target_os = "linux")]
unsafe impl Send for Strings {}
// SAFETY: as above.
#[cfg(target_os = "linux")]
unsafe impl Sync for Strings {}

#[cfg(target_os = "linux")]
impl From<Vec<CString>> for Strings {
    fn from(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _strings: strings }
    }
}

/// What a child of fork is to do before it becomes the program, and the program.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) program: Program,
    /// `None`: this process's.
    pub(super) environment: Option<Vec<CString>>,
    pub(super) directory: Option<CString>,
    /// Begin a session, whose controlling terminal is descriptor 0.
    pub(super) terminal: bool,
}

/// Has the child of `command` ask to be killed when the thread that spawns it ends (`PR_SET_PDEATHSIG`), and carry out `plan`.
///
/// To ask needs a moment between fork and exec, and std gives that only at the price of fork(2) in place of
/// `posix_spawn(3)`. The exec is done here as well, because the `execvp(3)` that std would go on to runs a file
/// without a magic number through a shell; and the rest, because std sets the environment after this, and does not tell
/// that it could not enter the directory from anything else. What [`Command::spawn`] then fails with is for [`failure_in_child`].
#[cfg(target_os = "linux")]
pub(super) fn exec_in_child(command: &mut Command, plan: Plan) {
    let parent = std::process::id().cast_signed();
    let Plan { program: Program { argv, path }, environment, directory, terminal } = plan;
    let name = argv.first().cloned().unwrap_or_default();
    let argv = Strings::from(argv);
    let environment = environment.map(Strings::from);
    let exec = move || {
        // Whole: what is moved into the closure is to be what may be sent, not the pointers in it.
        let (argv, environment) = (&argv, environment.as_ref());
        // SAFETY: async-signal-safe calls alone; the arrays end with null pointers. If the parent was gone before prctl
        // nobody will tell of it any more. `environ` is this process's own, and nobody changes it.
        let refused = unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            if terminal && (libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) != 0) {
                return Err(io::Error::last_os_error());
            }
            if let Some(directory) = &directory
                && libc::chdir(directory.as_ptr()) != 0
            {
                return Err(io::Error::from_raw_os_error(IN_DIRECTORY + last_error()));
            }
            let exec = |file: &CStr| {
                let (file, argv) = (file.as_ptr(), argv.pointers.as_ptr());
                match environment {
                    Some(environment) => libc::execve(file, argv, environment.pointers.as_ptr()),
                    None => libc::execv(file, argv),
                };
                last_error()
            };
            let exists = |file: &CStr| {
                let mut stat = MaybeUninit::uninit();
                libc::stat(file.as_ptr(), stat.as_mut_ptr()) == 0
            };
            lookup::execute(&name, path.as_deref(), exec, exists)
        };
        Err(io::Error::from_raw_os_error(code_of(refused)))
    };
    // SAFETY: the closure allocates nothing, takes no lock and makes async-signal-safe calls only.
    unsafe { command.pre_exec(exec) };
}

/// errno.
#[cfg(target_os = "linux")]
fn last_error() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// What [`Command::spawn`] says of a command with [`exec_in_child`].
#[cfg(target_os = "linux")]
pub(super) fn failure_in_child(error: io::Error) -> Failure {
    error.raw_os_error().map_or(Failure::Own(error), failure_of)
}

/// Has `command` begin a session, whose controlling terminal will be its descriptor 0. Such a command is started by fork.
#[cfg(not(target_os = "linux"))]
pub(super) fn begin_session(command: &mut Command) {
    // SAFETY: the closure runs in the child of a fork, after its descriptors are in place, and makes two system calls
    // that are safe there (signal-safety(7)); it allocates nothing, and takes no lock.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            // 0 is in place by now.
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            Ok(())
        });
    }
}

/// How the child `pid` ended, and what it cost with the children that it waited for, if it is dead. It is not reaped.
///
/// waitid(2), "C library/kernel differences": the system call fills a `rusage`, which neither the library's function nor rustix has.
///
/// # Errors
/// Those of waitid(2): ECHILD above all, if somebody else has reaped it.
#[cfg(target_os = "linux")]
pub(super) fn status_of(pid: libc::pid_t) -> rustix::io::Result<Option<(ExitStatus, Usage)>> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: the kernel fills both structures, for which all zeroes are a valid value, and `si_pid` and `si_status` are what it fills
    // for waitid; 0 as the pid means that no child was found.
    let (pid, code, status, usage) = unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        let mut usage: libc::rusage = mem::zeroed();
        if libc::syscall(libc::SYS_waitid, libc::P_PID, pid, &raw mut info, options, &raw mut usage) != 0 {
            return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
        (info.si_pid(), info.si_code, info.si_status(), usage)
    };
    let time = |time: libc::timeval| {
        use std::time::Duration;
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    let usage = Usage {
        user_time: time(usage.ru_utime),
        system_time: time(usage.ru_stime),
        max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    };
    let status = match code {
        // WEXITSTATUS: the kernel keeps eight bits.
        libc::CLD_EXITED => ExitStatus::Code(u8::try_from(status & 0xff).unwrap_or(u8::MAX)),
        _ => ExitStatus::Signal(status),
    };
    Ok((pid != 0).then_some((status, usage)))
}

/// Sends the signal of this number to a process (`pid` above 0) or to the group of the number `-pid`.
///
/// # Errors
/// Those of kill(2); EINVAL: there is no such signal. rustix knows no real-time signals.
pub(super) fn kill(pid: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: plain integers; the call touches no memory of ours. The caller sees to it that 0 and -1 are not asked for.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

//! Starting a program: the one room in which it is decided how.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::process::Pid;

use super::raw;
use super::raw::clone::{Launcher, Outcome};

/// A program that was started, as the leader of a process group of its own, and our ends of its pipes, which
/// do not block.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) leader: Pid,
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) start: Start,
}

/// Why a program was not started.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The system refused the daemon what it needs for it: descriptors, a process, memory.
    Own(io::Error),
    /// `execve(2)` refused the program.
    Exec(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Own(error)
    }
}

/// Whether the exec succeeded.
#[derive(Debug)]
pub(crate) enum Start {
    /// It did.
    Done,
    /// That shows when the leader is dead at the latest.
    InFlight(Arc<Outcome>),
}

impl Start {
    /// Why it did not. To be asked when the leader is dead.
    pub(crate) fn error(&self) -> Option<Failure> {
        match self {
            Self::Done => None,
            Self::InFlight(outcome) => outcome.error(),
        }
    }
}

/// Starts programs: by a child that shares our memory until its exec where that is to be had (see [`raw::clone`]),
/// and with std's `Command` elsewhere.
pub(crate) struct Spawner {
    launcher: Option<Launcher>,
}

impl Spawner {
    /// Programs will have the environment that this process has now. `SOCKEXEC_SPAWN=portable` in it chooses the
    /// portable way, for tests and comparisons.
    pub(crate) fn new() -> Self {
        if env::var_os("SOCKEXEC_SPAWN").as_deref() == Some(OsStr::new("portable")) {
            return Self { launcher: None };
        }
        let environment = env::vars_os().filter_map(|(name, value)| {
            let mut entry = name.as_bytes().to_vec();
            entry.push(b'=');
            entry.extend_from_slice(value.as_bytes());
            CString::new(entry).ok()
        });
        Self { launcher: Launcher::new(environment.collect(), raw::ignored_signals()) }
    }

    /// Starts `argv`, the first of which is looked up in PATH.
    ///
    /// # Errors
    /// Those of pipe(2), clone(2) and, here or later in [`Spawned::start`], execve(2), as the system tells them.
    pub(crate) fn spawn(&mut self, argv: Vec<CString>) -> Result<Spawned, Failure> {
        self.collect();
        let Some(launcher) = self.launcher.as_mut().filter(|launcher| !launcher.is_full()) else {
            return portable(&argv);
        };
        let [stdin, stdout, stderr] = [launcher.pipe()?, launcher.pipe()?, launcher.pipe()?];
        let theirs = [stdin.0.as_fd(), stdout.1.as_fd(), stderr.1.as_fd()];
        if theirs.iter().any(|descriptor| descriptor.as_raw_fd() <= 2) {
            // An application around the daemon has closed one of 0, 1 and 2: dup2 of a descriptor onto itself would
            // leave it close-on-exec.
            return portable(&argv);
        }
        let candidates = candidates(&argv);
        match launcher.launch(argv, candidates, theirs) {
            Ok((pid, outcome)) => Ok(Spawned {
                leader: Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::Other))?,
                stdin: stdin.1,
                stdout: stdout.0,
                stderr: stderr.0,
                start: Start::InFlight(outcome),
            }),
            Err((error, argv)) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EINVAL)) => {
                log::debug!("clone3 is not to be had ({error}): programs are started the portable way");
                self.launcher = None;
                portable(&argv)
            }
            Err((error, _)) => Err(error.into()),
        }
    }

    /// Lets go of what programs needed that have been started by now.
    pub(crate) fn collect(&mut self) {
        if let Some(launcher) = &mut self.launcher {
            launcher.collect();
        }
    }
}

/// Where `execvp(3)` looks for the program of `argv`, in this order.
fn candidates(argv: &[CString]) -> Vec<CString> {
    let Some(program) = argv.first() else { return Vec::new() };
    let name = program.as_bytes();
    if name.is_empty() || name.contains(&b'/') {
        return vec![program.clone()];
    }
    let candidate =
        |directory: PathBuf| CString::new(directory.join(OsStr::from_bytes(name)).as_os_str().as_bytes()).ok();
    env::split_paths(&search_path()).filter_map(candidate).collect()
}

/// PATH, or where glibc looks without it.
fn search_path() -> OsString {
    env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into())
}

/// With std's `Command`: PIPE reset to its default, descriptors other than 0, 1 and 2 closed because all of ours are
/// close-on-exec. It returns when the program has been exec'd or has failed to.
fn portable(argv: &[CString]) -> Result<Spawned, Failure> {
    let mut words = argv.iter().map(|arg| OsStr::from_bytes(arg.as_bytes()));
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = spawn_command(&mut command, argv)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (Some(leader), Some(stdin), Some(stdout), Some(stderr)) =
        (pid, child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        // Cannot be: std gives what was asked for.
        return Err(io::Error::from(io::ErrorKind::Other).into());
    };
    let spawned =
        Spawned { leader, stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into(), start: Start::Done };
    for end in [&spawned.stdin, &spawned.stdout, &spawned.stderr] {
        // A pipe's two ends are two open files: the program's own end goes on blocking.
        if let Err(error) = rustix::fs::fcntl_setfl(end, OFlags::NONBLOCK) {
            // Nobody else knows of it yet.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::Own(error.into()));
        }
    }
    Ok(spawned)
}

/// By fork(2), as nothing else lets the child ask to die with its parent; see [`raw::exec_in_child`].
#[cfg(target_os = "linux")]
fn spawn_command(command: &mut Command, argv: &[CString]) -> Result<Child, Failure> {
    raw::exec_in_child(command, candidates(argv), argv.to_vec());
    command.spawn().map_err(raw::failure_in_child)
}

/// By `posix_spawnp(3)`: no copy of this process's memory, PATH looked up as `execvp(3)` does but without its fallback to
/// a shell. What failed is not told apart: mostly it is the exec.
#[cfg(not(target_os = "linux"))]
fn spawn_command(command: &mut Command, _argv: &[CString]) -> Result<Child, Failure> {
    command.spawn().map_err(Failure::Exec)
}

/// Whether `program` can be found at all, in the places where `execvp(3)` looks.
///
/// What that reports is not to the point in two cases: ENOENT of a script that is there and whose
/// interpreter is not, and EACCES or ENOTDIR of a place in PATH that cannot be searched.
pub(crate) fn is_found(program: &OsStr) -> bool {
    if program.as_bytes().contains(&b'/') {
        return fs::metadata(Path::new(program)).is_ok();
    }
    !program.is_empty() && env::split_paths(&search_path()).any(|directory| directory.join(program).exists())
}

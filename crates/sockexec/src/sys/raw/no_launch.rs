//! Systems other than Linux: std's `Command` makes children, and waits for the exec.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::process::Pid;

use crate::sys::program::{Failure, NotMade, Plan, Program};

/// There is only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    PosixSpawn,
}

impl Call {
    pub(crate) const ALL: [Self; 1] = [Self::PosixSpawn];

    /// The name in the status and the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::PosixSpawn => "posix_spawn",
        }
    }

    /// Whether a child shares this process's memory until its exec: it does, while this process waits.
    #[expect(clippy::unused_self, reason = "on Linux it depends")]
    pub(crate) const fn shares_memory(self) -> bool {
        true
    }

    /// The best that works here.
    pub(crate) const fn best() -> Self {
        Self::PosixSpawn
    }
}

/// What a child is given of this process's descriptors.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "read on Linux only")]
pub(crate) struct Descriptors<'a> {
    /// What becomes 0, 1 and 2.
    pub(crate) streams: [BorrowedFd<'a>; 3],
    /// Unused: the exec is over when the launch is.
    pub(crate) watch: Option<BorrowedFd<'a>>,
    /// Always `None`.
    pub(crate) shared: Option<SharedTable>,
}

/// Cannot exist here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedTable(Infallible);

/// Cannot exist here.
#[derive(Debug)]
pub(crate) struct Outcome(Infallible);

impl Outcome {
    pub(crate) fn error(&self) -> Option<Failure> {
        match self.0 {}
    }

    pub(crate) fn has_left(&self) -> bool {
        match self.0 {}
    }
}

/// No child reports here.
pub(crate) fn reported(_watch: BorrowedFd<'_>) -> Option<Result<(), i32>> {
    None
}

/// No child reports a code here.
pub(crate) fn failure_of(code: i32) -> Failure {
    Failure::Own(io::Error::from_raw_os_error(code))
}

/// How the outcome of a child is learned.
#[derive(Debug)]
pub(crate) enum Start {
    /// Never here.
    #[expect(dead_code, reason = "made on Linux only")]
    Shared(Arc<Outcome>),
    /// `spawn` has returned, so it was executed.
    Forked,
}

/// Makes children.
pub(crate) struct Launcher {
    environment: Vec<CString>,
}

impl Launcher {
    /// Whether [`Launcher::launch`] waits for the exec.
    pub(crate) const WAITS: bool = true;

    /// Children get this environment, `NAME=VALUE` each. Ignored signals stay ignored.
    pub(crate) fn new(
        environment: Vec<CString>,
        _ignored: u64,
        _descriptor_limit: Option<[u64; 2]>,
        _first: Call,
    ) -> Self {
        Self { environment }
    }

    /// The environment of children.
    pub(crate) fn environment(&self) -> &[CString] {
        &self.environment
    }

    /// The call that is in use.
    #[expect(clippy::unused_self, reason = "on Linux it depends")]
    pub(crate) fn call(&self) -> Call {
        Call::PosixSpawn
    }

    /// There is no shared table.
    pub(crate) fn can_leave_table() -> bool {
        false
    }

    /// Whether a child needs a watch: never.
    #[expect(clippy::unused_self, reason = "on Linux it depends")]
    pub(crate) fn forks(&self, _plan: &Plan) -> bool {
        false
    }

    /// Starts a program as the leader of a group of its own.
    ///
    /// Calls `posix_spawnp(3)`: this process's memory is not copied, and PATH is searched as `execvp(3)`
    /// does, but without its fallback to a shell. With a terminal or another PATH, std uses fork(2) and exec.
    /// Of the errors only that of the directory is told apart; most of the others come from the exec.
    ///
    /// # Errors
    /// Those of std's `Command`.
    pub(crate) fn launch(&mut self, plan: Plan, descriptors: &Descriptors<'_>) -> Result<(Pid, Start), Box<NotMade>> {
        let Plan { program, environment, directory, terminal, foreign: _ } = plan;
        let refused = |failure: Failure| Box::new(NotMade { failure, again: None });
        let own = |error: io::Error| refused(Failure::Own(error));
        let mut words = program.argv.iter().map(|arg| os_str(arg));
        let mut command =
            Command::new(words.next().ok_or(io::ErrorKind::InvalidInput).map_err(|kind| own(kind.into()))?);
        command.args(words);
        if terminal {
            super::begin_session(&mut command);
        } else {
            command.process_group(0);
        }
        // These copies are closed before their originals, so theirs is never the last close, which may take
        // long.
        let [stdin, stdout, stderr] = descriptors.streams.map(|end| end.try_clone_to_owned());
        command.stdin(stdin.map_err(own)?).stdout(stdout.map_err(own)?).stderr(stderr.map_err(own)?);
        if let Some(directory) = &directory {
            command.current_dir(os_str(directory));
        }
        command.env_clear();
        for assignment in environment.as_ref().unwrap_or(&self.environment) {
            let bytes = assignment.as_bytes();
            if let Some(at) = bytes.iter().position(|&byte| byte == b'=') {
                let (name, value) = bytes.split_at(at);
                command.env(OsStr::from_bytes(name), OsStr::from_bytes(value.get(1..).unwrap_or_default()));
            }
        }
        let child = command.spawn().map_err(|error| {
            // A directory that can be entered also allows this lookup.
            refused(match directory.as_deref().map(|directory| Path::new(os_str(directory)).join(".").metadata()) {
                Some(Err(_)) => Failure::Directory(error),
                Some(Ok(_)) | None => Failure::Exec { found: is_found(directory.as_deref(), &program), error },
            })
        })?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok((pid.ok_or(io::ErrorKind::Other).map_err(|kind| own(kind.into()))?, Start::Forked))
    }

    /// Nothing is kept here.
    #[expect(clippy::unused_self, reason = "on Linux there is something")]
    pub(crate) fn collect(&mut self) {}
}

fn os_str(string: &CStr) -> &OsStr {
    OsStr::from_bytes(string.to_bytes())
}

/// Whether the program exists at all, if the errno leaves that open.
fn is_found(directory: Option<&CStr>, program: &Program) -> bool {
    let base = directory.map_or_else(PathBuf::new, |directory| os_str(directory).into());
    let Some(name) = program.argv.first().filter(|name| !name.is_empty()) else { return false };
    match &program.path {
        Some(path) => std::env::split_paths(os_str(path)).any(|entry| base.join(entry).join(os_str(name)).exists()),
        None => base.join(os_str(name)).exists(),
    }
}

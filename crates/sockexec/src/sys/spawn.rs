//! Starts a program: what it gets of ours, and how it runs. [`raw::launch`] makes its process.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::fcntl_dupfd_cloexec;
#[cfg(target_os = "linux")]
use rustix::pipe::PipeFlags;
use rustix::process::Pid;
use sockexec_proto::request::{Argv, EnvironmentChange};
use sockexec_proto::{Options, WindowSize};

use super::foreign::{self, Foreign};
use super::process::DescriptorLimit;
pub(crate) use super::program::Failure;
use super::program::{NotMade, Plan, Program};
pub(crate) use super::raw::launch::{Call, Start, failure_of, reported};
use super::raw::launch::{Descriptors, Launcher};
use super::reserve::{self, Reserve};
use super::{raw, terminal};

/// A program to start.
#[derive(Debug)]
pub(crate) struct Order {
    /// The program and its arguments.
    pub(crate) argv: Argv,
    /// How it runs. Deadlines are not handled here.
    pub(crate) options: Options,
    /// Its standard streams, if they are the client's: with [`Options::descriptors`].
    pub(crate) descriptors: Option<[Foreign; 3]>,
    /// Whether to return a descriptor that shows the exec.
    pub(crate) watched: bool,
    /// How many connections the daemon has.
    pub(crate) connections: usize,
}

/// A program that was started as the leader of its own process group, and our ends of its streams, which do
/// not block.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) leader: Pid,
    pub(crate) ours: Ours,
    pub(crate) start: Start,
    /// At its end once the program was executed or has failed to be, or shortly after that: children that are
    /// on their way to an exec at the same time hold copies. `None`: it was executed, or nobody asked.
    pub(crate) exec: Option<OwnedFd>,
}

/// Our ends of a program's streams. A terminal is both input and output.
#[derive(Debug, Default)]
pub(crate) struct Ours {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) terminal: Option<OwnedFd>,
}

/// Starts programs. [`raw::launch`] makes their processes.
pub(crate) struct Spawner {
    launcher: Launcher,
    reserve: Option<Reserve>,
    /// The reserve is used from this many connections on.
    crowd: usize,
}

/// From this many connections on, a child does not copy the daemon's descriptor table: see
/// [`super::reserve`]. With fewer, copying is cheaper.
const CROWD: usize = 64;

/// What a service manager tells the daemon and nobody else (`sd_listen_fds(3)`, `sd_notify(3)`,
/// `sd_watchdog_enabled(3)`). A program that believed it would report a readiness that is not the daemon's
/// or, if process numbers are reused, take descriptors for sockets.
const OURS: [&str; 7] =
    ["LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

impl Spawner {
    /// Whether [`Spawner::spawn`] waits for the exec.
    pub(crate) const WAITS: bool = Launcher::WAITS;

    /// Programs get the environment that this process has now, without what a service manager tells the
    /// daemon in it. [Some](Self::RESERVED_DESCRIPTORS) of the `spare_descriptors` are reserved, if there are
    /// enough.
    ///
    /// Their descriptor limit is `limit`, or that of this process.
    ///
    /// For tests and comparisons, `SOCKEXEC_SPAWN` in the environment chooses the first call to try
    /// (`clone3`, `clone`, `fork`). With `crowd`, what is done for many connections is done for few as well.
    /// A comma separates the two.
    pub(crate) fn new(spare_descriptors: u64, limit: Option<DescriptorLimit>) -> Self {
        let way = env::var_os("SOCKEXEC_SPAWN").unwrap_or_default();
        let mut first = None;
        let mut crowd = CROWD;
        for word in way.as_bytes().split(|&byte| byte == b',').filter(|word| !word.is_empty()) {
            let call = Call::ALL.into_iter().find(|call| call.name().as_bytes() == word);
            match (word, call) {
                (b"crowd", _) => crowd = 0,
                (_, Some(call)) => first = Some(call),
                (word, None) => log::warn!("SOCKEXEC_SPAWN: unknown value: {}", word.escape_ascii()),
            }
        }
        let asked_for = first.is_some();
        let environment = env::vars_os().filter(|(name, _)| !OURS.iter().any(|ours| name == ours));
        let environment = environment.filter_map(|(name, value)| assignment(name.as_bytes(), value.as_bytes()));
        let launcher = Launcher::new(
            environment.collect(),
            raw::ignored_signals(),
            limit.map(|DescriptorLimit(limit)| limit),
            first.unwrap_or_else(Call::best),
        );
        let reserves =
            Launcher::can_leave_table() && launcher.call().shares_memory() && spare_descriptors >= reserve::DESCRIPTORS;
        let reserve = if reserves { Reserve::new().ok() } else { None };
        let spawner = Self { launcher, reserve, crowd };
        if !asked_for {
            spawner.warn_of_fork();
        }
        spawner
    }

    /// How many descriptors are reserved for children that do not copy the table.
    pub(crate) const RESERVED_DESCRIPTORS: u64 = reserve::DESCRIPTORS;

    /// The call that makes processes.
    pub(crate) fn call(&self) -> Call {
        self.launcher.call()
    }

    /// Becomes readable when it is time to [collect](Spawner::collect).
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.reserve.as_ref().map(Reserve::descriptor)
    }

    /// How long to wait at most before the next [collect](Spawner::collect).
    pub(crate) fn next_look(&self) -> Option<Duration> {
        self.reserve.as_ref().and_then(Reserve::next_look)
    }

    /// Starts a program. It is searched for in the PATH that it gets.
    ///
    /// # Errors
    /// Those of pipe(2), `posix_openpt(3)`, clone(2) and, here or later in [`Spawned::start`], chdir(2) and
    /// execve(2).
    pub(crate) fn spawn(&mut self, mut order: Order) -> Result<Spawned, Failure> {
        self.collect();
        let start = self.launcher.environment();
        let argv = std::mem::take(&mut order.argv);
        let program = Program::new(argv, || search_path(&order.options, start))?;
        // Without `..`, so that the compiler asks what to do with a new option.
        let Options { directory, environment: _, timeout: _, stderr_to_stdout, pty, utf8, descriptors: foreign } =
            &order.options;
        let mut plan = Plan {
            program,
            environment: environment(&order.options, start),
            directory: directory.clone(),
            terminal: pty.is_some(),
            foreign: *foreign,
        };
        let (theirs, ours) = match (order.descriptors, *pty) {
            (Some(given), _) => (Theirs::Given(given), Ours::default()),
            (None, Some(size)) => terminal_streams(size, *utf8)?,
            (None, None) => pipes(*stderr_to_stdout)?,
        };
        let moved = above_standard(&theirs)?;
        let streams = moved.as_ref().map_or_else(|| theirs.all(), |moved| moved.each_ref().map(AsFd::as_fd));
        // A client's descriptors are not put at numbers that other children copy: the last process to close
        // one may have to wait. For the same reason children do not copy the whole table while one of them is
        // in it.
        let apart = order.connections >= self.crowd || foreign::is_any_open();
        loop {
            let exec = if order.watched || self.launcher.forks(&plan) { Some(watch_pipe()?) } else { None };
            let watch = exec.as_ref().map(|(_, end)| end.as_fd());
            let shares_table = apart && !plan.foreign && !self.launcher.forks(&plan);
            let reserve = self.reserve.as_mut().filter(|_| shares_table);
            match launch(&mut self.launcher, reserve, plan, streams, watch) {
                Ok((leader, start)) => {
                    return Ok(Spawned { leader, ours, start, exec: exec.map(|(end, _)| end) });
                }
                Err(refused) => match *refused {
                    NotMade { again: Some(again), .. } => {
                        plan = again;
                        self.warn_of_fork();
                    }
                    NotMade { failure, again: None } => return Err(failure),
                },
            }
        }
    }

    fn warn_of_fork(&self) {
        if !self.launcher.call().shares_memory() {
            log::warn!(
                "neither clone3 nor clone with CLONE_VM can be used here: programs are started by fork, which is slower"
            );
        }
    }

    /// Frees what programs needed that have been started by now.
    pub(crate) fn collect(&mut self) {
        self.launcher.collect();
        self.let_go_of_streams();
    }

    /// Closes the copies of programs' own ends that were kept until the children had them.
    pub(crate) fn let_go_of_streams(&mut self) {
        if let Some(reserve) = &mut self.reserve {
            reserve.collect();
        }
    }
}

/// Starts a child with a copy of this process's descriptor table or, with a reserve, without one. Returns its
/// pid and how its outcome is learned.
///
/// # Errors
/// Those of [`Launcher::launch`].
fn launch(
    launcher: &mut Launcher,
    reserve: Option<&mut Reserve>,
    plan: Plan,
    streams: [BorrowedFd<'_>; 3],
    watch: Option<BorrowedFd<'_>>,
) -> Result<(Pid, Start), Box<NotMade>> {
    let reserved = reserve.and_then(|reserve| reserve.put(streams, watch).map(|row| (reserve, row)));
    let Some((reserve, row)) = reserved else {
        return launcher.launch(plan, &Descriptors { streams, watch, shared: None });
    };
    let descriptors =
        Descriptors { streams: row.streams(), watch: watch.map(|_| row.watch()), shared: Some(reserve.table()) };
    let child = launcher.launch(plan, &descriptors);
    match &child {
        Ok((_, Start::Shared(outcome))) => reserve.lend(row, Arc::clone(outcome)),
        Ok((_, Start::Forked)) | Err(_) => reserve.give_back(row),
    }
    child
}

/// The program's own ends: what becomes its descriptors 0, 1 and 2.
#[derive(Debug)]
enum Theirs {
    /// An absent one is the same as the one before.
    Made(OwnedFd, Option<OwnedFd>, Option<OwnedFd>),
    /// Sent by the client.
    Given([Foreign; 3]),
}

impl Theirs {
    fn all(&self) -> [BorrowedFd<'_>; 3] {
        match self {
            Self::Made(stdin, stdout, stderr) => {
                let stdin = stdin.as_fd();
                let stdout = stdout.as_ref().map_or(stdin, AsFd::as_fd);
                [stdin, stdout, stderr.as_ref().map_or(stdout, AsFd::as_fd)]
            }
            Self::Given(all) => all.each_ref().map(AsFd::as_fd),
        }
    }
}

/// Both ends of a pipe for each stream, or of one pipe for both kinds of output.
fn pipes(stderr_to_stdout: bool) -> io::Result<(Theirs, Ours)> {
    let (stdin, ours_in) = pipe()?;
    let (ours_out, stdout) = pipe()?;
    let (ours_err, stderr) = if stderr_to_stdout { (None, None) } else { pipe().map(|(a, b)| (Some(a), Some(b)))? };
    for end in [Some(&ours_in), Some(&ours_out), ours_err.as_ref()].into_iter().flatten() {
        do_not_block(end)?;
    }
    let ours = Ours { stdin: Some(ours_in), stdout: Some(ours_out), stderr: ours_err, terminal: None };
    Ok((Theirs::Made(stdin, Some(stdout), stderr), ours))
}

/// Both ends of a terminal.
fn terminal_streams(size: WindowSize, utf8: bool) -> Result<(Theirs, Ours), Failure> {
    let (ours, theirs) = terminal::open(size, utf8).map_err(Failure::Terminal)?;
    let ours =
        Ours { stdin: Some(ours.try_clone()?), stdout: Some(ours.try_clone()?), stderr: None, terminal: Some(ours) };
    Ok((Theirs::Made(theirs, None, None), ours))
}

/// A pipe, neither end of which is inherited or blocks. A child makes its own end blocking, which saves a
/// call here.
#[cfg(target_os = "linux")]
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
}

/// A pipe whose write end has a number above 2, as the streams go to 0, 1 and 2.
fn watch_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe()?;
    let theirs = if theirs.as_raw_fd() > 2 { theirs } else { fcntl_dupfd_cloexec(theirs, 3)? };
    Ok((ours, theirs))
}

/// [`pipe`] has done it.
#[cfg(target_os = "linux")]
#[expect(clippy::unnecessary_wraps, reason = "on other systems it can fail")]
fn do_not_block(_end: &OwnedFd) -> io::Result<()> {
    Ok(())
}

/// A pipe, neither end of which is inherited.
#[cfg(not(target_os = "linux"))]
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    io::pipe().map(|(reader, writer)| (reader.into(), writer.into()))
}

/// A pipe's two ends are two open files, so the program's own end stays blocking.
#[cfg(not(target_os = "linux"))]
fn do_not_block(end: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fcntl_setfl(end, rustix::fs::OFlags::NONBLOCK)?)
}

/// Copies of the program's ends with numbers above 2, if one of them has another. If the application around
/// the daemon has closed 0, 1 or 2, the child would otherwise overwrite one stream with another.
fn above_standard(theirs: &Theirs) -> io::Result<Option<[OwnedFd; 3]>> {
    let all = theirs.all();
    if all.iter().all(|end| end.as_raw_fd() > 2) {
        return Ok(None);
    }
    let [stdin, stdout, stderr] = all.map(|end| fcntl_dupfd_cloexec(end, 3));
    Ok(Some([stdin?, stdout?, stderr?]))
}

/// The daemon's environment, as it was at the `start`, with the request's changes in order; `None`
/// without changes. It is sorted, and has one value per name: the first, which getenv(3) finds as well.
fn environment(options: &Options, start: &[CString]) -> Option<Vec<CString>> {
    if options.environment.is_empty() {
        return None;
    }
    let mut variables: BTreeMap<&[u8], &[u8]> = start.iter().rev().filter_map(|assignment| parts(assignment)).collect();
    for change in &options.environment {
        match change {
            EnvironmentChange::Set(name, value) => {
                variables.insert(name, value);
            }
            EnvironmentChange::Unset(name) => {
                variables.remove(name.as_slice());
            }
            EnvironmentChange::Clear => variables.clear(),
        }
    }
    Some(variables.iter().filter_map(|(name, value)| assignment(name, value)).collect())
}

/// The PATH that the program gets, or else the one that glibc uses.
fn search_path(options: &Options, start: &[CString]) -> Vec<u8> {
    let path = start.iter().filter_map(|assignment| parts(assignment)).find(|(name, _)| name == b"PATH");
    let path = options.environment.iter().fold(path.map(|(_, value)| value), |path, change| match change {
        EnvironmentChange::Set(name, value) if name == b"PATH" => Some(value),
        EnvironmentChange::Unset(name) if name == b"PATH" => None,
        EnvironmentChange::Clear => None,
        EnvironmentChange::Set(..) | EnvironmentChange::Unset(_) => path,
    });
    path.unwrap_or(b"/bin:/usr/bin").to_vec()
}

/// The name and the value of `NAME=VALUE`. A name may begin with `=`, and contains no other.
fn parts(assignment: &CStr) -> Option<(&[u8], &[u8])> {
    let bytes = assignment.to_bytes();
    let at = bytes.iter().skip(1).position(|&byte| byte == b'=')? + 1;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

/// `NAME=VALUE`, as execve(2) takes it.
fn assignment(name: &[u8], value: &[u8]) -> Option<CString> {
    CString::new([name, b"=", value].concat()).ok()
}

//! Starting a program: the one room in which it is decided how.

use std::collections::BTreeMap;
use std::env;
#[cfg(not(target_os = "linux"))]
use std::ffi::CStr;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
#[cfg(not(target_os = "linux"))]
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::Pid;
use sockexec_proto::Options;
use sockexec_proto::request::EnvironmentChange;

use super::foreign::{self, Foreign};
use super::raw::clone::{Extras, Launcher, Outcome};
use super::reserve::{self, Reserve};
use super::{raw, terminal};

/// A program to be started.
#[derive(Debug)]
pub(crate) struct Order {
    /// The program and its arguments.
    pub(crate) argv: Vec<CString>,
    /// How it is to run. What is said of time is for others.
    pub(crate) options: Options,
    /// Its standard streams, where they are none of ours: with [`Options::descriptors`].
    pub(crate) descriptors: Option<[Foreign; 3]>,
    /// Whether there is to be a descriptor that tells of the exec.
    pub(crate) watched: bool,
    /// How many connections the daemon has.
    pub(crate) connections: usize,
}

/// The longest name of a file, in bytes (limits.h, `NAME_MAX`).
const NAME_MAX: usize = 255;

/// The longest string that execve(2) takes, with its NUL, in bytes (`MAX_ARG_STRLEN` with pages of 4 KiB).
const MAX_ARG_STRLEN: usize = 128 << 10;

/// What is to be executed.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its name and its arguments: never empty.
    pub(crate) argv: Vec<CString>,
    /// The PATH in which it is looked for. `None`: its name says where it is.
    pub(crate) path: Option<CString>,
}

impl Program {
    /// That of an order, which is looked for in the PATH that it gets.
    ///
    /// # Errors
    /// ENAMETOOLONG: there can be no such name. E2BIG: no program can be given such a PATH. Both are found before there is
    /// a child, which would take as long to try it as the client likes.
    fn of(order: &mut Order) -> Result<Self, Failure> {
        let argv = std::mem::take(&mut order.argv);
        let name = argv.first().ok_or(io::ErrorKind::InvalidInput)?;
        let path = Self::path(name.as_bytes(), &order.options)?;
        Ok(Self { argv, path })
    }

    fn path(name: &[u8], options: &Options) -> Result<Option<CString>, Failure> {
        let refuse = |errno| Failure::Exec { error: io::Error::from_raw_os_error(errno), found: false };
        if name.is_empty() || name.contains(&b'/') {
            return Ok(None);
        }
        if name.len() > NAME_MAX {
            return Err(refuse(libc::ENAMETOOLONG));
        }
        let path = search_path(options).into_vec();
        if "PATH=".len() + path.len() >= MAX_ARG_STRLEN {
            return Err(refuse(libc::E2BIG));
        }
        Ok(Some(CString::new(path).map_err(|_| io::ErrorKind::InvalidInput)?))
    }
}

/// A program that was started, as the leader of a process group of its own, and our ends of its streams, which
/// do not block.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) leader: Pid,
    pub(crate) ours: Ours,
    pub(crate) start: Start,
    /// It is at its end once the program was executed or has failed to, or shortly after that: children that are on their way
    /// to an exec at the same time hold copies. `None`: it was, or nobody asked.
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

/// Whether the exec succeeded.
#[derive(Debug)]
pub(crate) enum Start {
    /// It did.
    Done,
    /// That shows when the leader is dead at the latest.
    InFlight(Arc<Outcome>),
}

/// Why a program was not started.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The system refused the daemon what it needs for it: descriptors, a process, memory, a terminal.
    Own(io::Error),
    /// `chdir(2)` refused the directory.
    Directory(io::Error),
    /// `execve(2)` refused the program, or everything that it might have been.
    Exec {
        error: io::Error,
        /// A file of its name is there all the same.
        found: bool,
    },
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Own(error)
    }
}

impl From<io::ErrorKind> for Failure {
    fn from(kind: io::ErrorKind) -> Self {
        io::Error::from(kind).into()
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

impl Start {
    /// Why it did not. To be asked when the leader is dead.
    pub(crate) fn error(&self) -> Option<Failure> {
        match self {
            Self::Done => None,
            Self::InFlight(outcome) => outcome.error(),
        }
    }

    /// Whether it is known.
    pub(crate) fn is_known(&self) -> bool {
        match self {
            Self::Done => true,
            Self::InFlight(outcome) => outcome.has_left(),
        }
    }
}

/// Starts programs: by a child that shares our memory until its exec where that is to be had (see [`raw::clone`]),
/// and with std's `Command` elsewhere.
pub(crate) struct Spawner {
    launcher: Option<Launcher>,
    reserve: Option<Reserve>,
    /// With so many connections it is used.
    crowd: usize,
}

/// With so many connections a child does not copy the daemon's table of descriptors: see [`super::reserve`]. With fewer the copy is cheaper than
/// what that takes.
const CROWD: usize = 64;

impl Spawner {
    /// Programs will have the environment that this process has now. Of `spare_descriptors` some are kept for when there are
    /// many connections, of which there will be `max_connections` at most.
    ///
    /// For tests and comparisons `SOCKEXEC_SPAWN=portable` in the environment chooses the portable way, `SOCKEXEC_SPAWN=crowd` what is done for
    /// many connections, however few there are.
    pub(crate) fn new(max_connections: usize, spare_descriptors: u64) -> Self {
        let way = env::var_os("SOCKEXEC_SPAWN").unwrap_or_default();
        if way == "portable" {
            return Self { launcher: None, reserve: None, crowd: 0 };
        }
        let environment = env::vars_os().filter_map(|(name, value)| assignment(name.as_bytes(), value.as_bytes()));
        let launcher = Launcher::new(environment.collect(), raw::ignored_signals());
        let crowd = if way == "crowd" { 0 } else { CROWD };
        let reserves = launcher.is_some() && max_connections >= crowd && spare_descriptors >= reserve::DESCRIPTORS;
        let reserve = if reserves { Reserve::new().ok() } else { None };
        Self { launcher, reserve, crowd }
    }

    /// How many descriptors are kept for when there are many connections, if there may be so many.
    pub(crate) fn reserved_descriptors(max_connections: usize) -> u64 {
        if max_connections >= CROWD { reserve::DESCRIPTORS } else { 0 }
    }

    /// Whether starting a program now means to wait for its exec.
    pub(crate) fn waits_for_exec(&self) -> bool {
        self.launcher.as_ref().is_none_or(Launcher::is_full)
    }

    /// Becomes readable when it is time to [collect](Spawner::collect).
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.reserve.as_ref().map(Reserve::descriptor)
    }

    /// In what time to [collect](Spawner::collect) if nothing happens before.
    pub(crate) fn next_look(&self) -> Option<Duration> {
        self.reserve.as_ref().and_then(Reserve::next_look)
    }

    /// Starts a program, which is looked up in the PATH that it gets.
    ///
    /// # Errors
    /// Those of pipe(2), `posix_openpt(3)`, clone(2) and, here or later in [`Spawned::start`], chdir(2) and execve(2), as the system
    /// tells them.
    pub(crate) fn spawn(&mut self, mut order: Order) -> Result<Spawned, Failure> {
        let program = Program::of(&mut order)?;
        self.collect();
        let Some(launcher) = self.launcher.as_mut().filter(|launcher| !launcher.is_full()) else {
            return portable(order, program);
        };
        let (theirs, ours) = if let Some(streams) = streams_beside_pipes(&mut order)? {
            streams
        } else {
            let [stdin, stdout, stderr] = [launcher.pipe()?, launcher.pipe()?, launcher.pipe()?];
            let ours = Ours { stdin: Some(stdin.1), stdout: Some(stdout.0), stderr: Some(stderr.0), terminal: None };
            (Theirs::Made(stdin.0, Some(stdout.1), Some(stderr.1)), ours)
        };
        if theirs.all().iter().any(|descriptor| descriptor.as_raw_fd() <= 2) {
            // An application around the daemon has closed one of 0, 1 and 2: dup2 of a descriptor onto itself would
            // leave it close-on-exec.
            return portable_with(&order, program, &theirs, ours);
        }
        let exec = if order.watched { Some(io::pipe()?) } else { None };
        let watch = exec.as_ref().map(|(_, end)| end.as_fd());
        // Without `..`, so that a new option is seen to: here, and for the portable way in `spawn_command`.
        let Options { directory, environment: _, timeout: _, stderr_to_stdout: _, pty: _, descriptors } =
            &order.options;
        let extras = Extras {
            directory: directory.clone(),
            environment: environment(&order.options),
            terminal: ours.terminal.is_some(),
            foreign: *descriptors,
            shared: None,
        };
        // What is a client's is not put where others take it along: who closes it last may have to wait. Nor do they copy the whole
        // table while something of a client's is in it.
        let apart = order.connections >= self.crowd || foreign::is_any_open();
        let reserve = self.reserve.as_mut().filter(|_| apart && !order.options.descriptors);
        match launch(launcher, reserve, program, theirs.all(), watch, extras) {
            Ok((leader, outcome)) => {
                Ok(Spawned { leader, ours, start: Start::InFlight(outcome), exec: exec.map(|(end, _)| end.into()) })
            }
            Err((error, program))
                if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EINVAL)) =>
            {
                log::debug!("clone3 is not to be had ({error}): programs are started the portable way");
                self.launcher = None;
                portable_with(&order, program, &theirs, ours)
            }
            Err((error, _)) => Err(error.into()),
        }
    }

    /// Lets go of what programs needed that have been started by now.
    pub(crate) fn collect(&mut self) {
        if let Some(launcher) = &mut self.launcher {
            launcher.collect();
        }
        self.let_go_of_streams();
    }

    /// Closes the copies of programs' own ends that were kept until the child had them.
    pub(crate) fn let_go_of_streams(&mut self) {
        if let Some(reserve) = &mut self.reserve {
            reserve.collect();
        }
    }
}

/// Starts a child, which takes along `watch` until its exec, with a copy of this process's table of descriptors or, with a reserve, without: its pid
/// and what becomes of it.
///
/// # Errors
/// Those of [`Launcher::launch`].
fn launch(
    launcher: &mut Launcher,
    reserve: Option<&mut Reserve>,
    program: Program,
    streams: [BorrowedFd<'_>; 3],
    watch: Option<BorrowedFd<'_>>,
    extras: Extras,
) -> Result<(Pid, Arc<Outcome>), (io::Error, Program)> {
    let reserved = reserve.and_then(|reserve| reserve.put(streams, watch).map(|row| (reserve, row)));
    let Some((reserve, row)) = reserved else { return launcher.launch(program, streams, extras) };
    let extras = Extras { shared: Some(reserve.table()), ..extras };
    let child = launcher.launch(program, row.streams(), extras);
    match &child {
        Ok((_, outcome)) => reserve.lend(row, Arc::clone(outcome)),
        Err(_) => reserve.give_back(row),
    }
    child
}

/// The program's own ends: what becomes its descriptors 0, 1 and 2.
#[derive(Debug)]
enum Theirs {
    /// One that is not there is the same as the one before.
    Made(OwnedFd, Option<OwnedFd>, Option<OwnedFd>),
    /// By the client.
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

/// Both ends of the streams of a program that has no pipe for each of them.
fn streams_beside_pipes(order: &mut Order) -> Result<Option<(Theirs, Ours)>, Failure> {
    if let Some(given) = order.descriptors.take() {
        return Ok(Some((Theirs::Given(given), Ours::default())));
    }
    if let Some(size) = order.options.pty {
        let (ours, theirs) = terminal::open(size)?;
        let ours = Ours {
            stdin: Some(ours.try_clone()?),
            stdout: Some(ours.try_clone()?),
            stderr: None,
            terminal: Some(ours),
        };
        return Ok(Some((Theirs::Made(theirs, None, None), ours)));
    }
    if order.options.stderr_to_stdout {
        let (stdin, stdout) = (io::pipe()?, io::pipe()?);
        rustix::fs::fcntl_setfl(&stdin.1, OFlags::NONBLOCK)?;
        rustix::fs::fcntl_setfl(&stdout.0, OFlags::NONBLOCK)?;
        let ours = Ours { stdin: Some(stdin.1.into()), stdout: Some(stdout.0.into()), stderr: None, terminal: None };
        return Ok(Some((Theirs::Made(stdin.0.into(), Some(stdout.1.into()), None), ours)));
    }
    Ok(None)
}

/// This process's environment with the request's changes, in order; `None`: there are none. Sorted, and one value for a name,
/// as std's `Command` has it too.
fn environment(options: &Options) -> Option<Vec<CString>> {
    if options.environment.is_empty() {
        return None;
    }
    let mut variables: BTreeMap<_, _> =
        env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
    for change in &options.environment {
        match change {
            EnvironmentChange::Set(name, value) => {
                variables.insert(name.clone(), value.clone());
            }
            EnvironmentChange::Unset(name) => {
                variables.remove(name);
            }
            EnvironmentChange::Clear => variables.clear(),
        }
    }
    Some(variables.iter().filter_map(|(name, value)| assignment(name, value)).collect())
}

/// The PATH that the program gets, or where glibc looks without it.
fn search_path(options: &Options) -> OsString {
    let path = options.environment.iter().fold(env::var_os("PATH"), |path, change| match change {
        EnvironmentChange::Set(name, value) if name == b"PATH" => Some(OsString::from_vec(value.clone())),
        EnvironmentChange::Unset(name) if name == b"PATH" => None,
        EnvironmentChange::Clear => None,
        EnvironmentChange::Set(..) | EnvironmentChange::Unset(_) => path,
    });
    path.unwrap_or_else(|| "/bin:/usr/bin".into())
}

/// `NAME=VALUE`, as execve(2) wants it.
fn assignment(name: &[u8], value: &[u8]) -> Option<CString> {
    CString::new([name, b"=", value].concat()).ok()
}

/// With std's `Command`: PIPE reset to its default, descriptors other than 0, 1 and 2 closed because all of ours are
/// close-on-exec. It returns when the program has been exec'd or has failed to.
fn portable(mut order: Order, program: Program) -> Result<Spawned, Failure> {
    if let Some((theirs, ours)) = streams_beside_pipes(&mut order)? {
        return portable_with(&order, program, &theirs, ours);
    }
    let mut command = command(&order, &program)?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn_command(&mut command, &order, program)?;
    let ours = Ours {
        stdin: child.stdin.take().map(Into::into),
        stdout: child.stdout.take().map(Into::into),
        stderr: child.stderr.take().map(Into::into),
        terminal: None,
    };
    for end in [&ours.stdin, &ours.stdout, &ours.stderr].into_iter().flatten() {
        // A pipe's two ends are two open files: the program's own end goes on blocking.
        if let Err(error) = rustix::fs::fcntl_setfl(end, OFlags::NONBLOCK) {
            // Nobody else knows of it yet.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::Own(error.into()));
        }
    }
    spawned(&child, ours)
}

/// The same, with streams that are there already.
fn portable_with(order: &Order, program: Program, theirs: &Theirs, ours: Ours) -> Result<Spawned, Failure> {
    let mut command = command(order, &program)?;
    if !order.options.descriptors {
        for end in theirs.all() {
            // They were made not to block, for our ends; what is the client's is left as it is.
            rustix::fs::fcntl_setfl(end, rustix::fs::fcntl_getfl(end)? & !OFlags::NONBLOCK)?;
        }
    }
    // Copies, which are closed before those that they were made of: that close may take long.
    let [stdin, stdout, stderr] = theirs.all().map(|end| end.try_clone_to_owned());
    command.stdin(stdin?).stdout(stdout?).stderr(stderr?);
    let child = spawn_command(&mut command, order, program)?;
    spawned(&child, ours)
}

fn command(order: &Order, program: &Program) -> Result<Command, Failure> {
    let mut words = program.argv.iter().map(|arg| OsStr::from_bytes(arg.as_bytes()));
    let mut command = Command::new(words.next().ok_or(io::ErrorKind::InvalidInput)?);
    command.args(words);
    if order.options.pty.is_none() {
        command.process_group(0);
    }
    Ok(command)
}

/// By fork(2), as nothing else lets the child ask to die with its parent; see [`raw::exec_in_child`].
#[cfg(target_os = "linux")]
fn spawn_command(command: &mut Command, order: &Order, program: Program) -> Result<Child, Failure> {
    let plan = raw::Plan {
        program,
        environment: environment(&order.options),
        directory: order.options.directory.clone(),
        terminal: order.options.pty.is_some(),
    };
    raw::exec_in_child(command, plan);
    command.spawn().map_err(raw::failure_in_child)
}

/// By `posix_spawnp(3)`: no copy of this process's memory, PATH looked up as `execvp(3)` does but without its fallback to
/// a shell. With a terminal or another PATH by fork(2) and exec. What failed is not told apart but for the directory: mostly it is
/// the exec.
#[cfg(not(target_os = "linux"))]
fn spawn_command(command: &mut Command, order: &Order, program: Program) -> Result<Child, Failure> {
    let directory = order.options.directory.as_ref().map(|directory| OsStr::from_bytes(directory.as_bytes()));
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    for change in &order.options.environment {
        match change {
            EnvironmentChange::Set(name, value) => command.env(OsStr::from_bytes(name), OsStr::from_bytes(value)),
            EnvironmentChange::Unset(name) => command.env_remove(OsStr::from_bytes(name)),
            EnvironmentChange::Clear => command.env_clear(),
        };
    }
    if order.options.pty.is_some() {
        raw::begin_session(command);
    }
    command.spawn().map_err(|error| {
        // In a directory that can be entered a name can be looked up.
        match directory.map(|directory| Path::new(directory).join(".").metadata()) {
            Some(Err(_)) => Failure::Directory(error),
            Some(Ok(_)) | None => Failure::Exec { found: is_found(order, &program), error },
        }
    })
}

/// Whether the program is to be found at all, where the errno leaves that open.
#[cfg(not(target_os = "linux"))]
fn is_found(order: &Order, program: &Program) -> bool {
    let os_string = |string: &CStr| OsStr::from_bytes(string.to_bytes()).to_owned();
    let base = order.options.directory.as_deref().map_or_else(PathBuf::new, |directory| os_string(directory).into());
    let Some(name) = program.argv.first().filter(|name| !name.is_empty()).map(|name| os_string(name)) else {
        return false;
    };
    match &program.path {
        Some(path) => env::split_paths(&os_string(path)).any(|entry| base.join(entry).join(&name).exists()),
        None => base.join(name).exists(),
    }
}

fn spawned(child: &Child, ours: Ours) -> Result<Spawned, Failure> {
    let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::Other)?;
    Ok(Spawned { leader, ours, start: Start::Done, exec: None })
}

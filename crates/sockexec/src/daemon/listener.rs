//! The socket file: made, replaced when stale, removed when it is still ours.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use libc::O_DIRECTORY;
use rustix::fs::FlockOperation;
use rustix::io::{Errno, retry_on_intr};

use super::identity::Owner;
use crate::sys::socket;

/// The longest path of a UNIX socket: `sun_path` of unix(7) less the NUL at its end. Other systems have 103
/// and report it themselves.
pub const MAX_PATH: usize = 107;

/// How long to wait for another daemon that is making or replacing a socket in the same directory.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// The same for the removal of the file at the end, which others wait for.
const REMOVAL_WAIT: Duration = Duration::from_millis(500);

/// How long to wait for processes that have a socket open on which nobody listens: programs of a daemon that
/// was killed, which die with it or are on their way to exec.
const HELD_WAIT: Duration = Duration::from_secs(2);

/// How often to look meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// Why the daemon cannot listen. The message says what to do about it.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// The path is empty.
    EmptyPath,
    /// The path is longer than [`MAX_PATH`]; the number is its length.
    PathTooLong(PathBuf, usize),
    /// Another daemon listens there.
    InUse(PathBuf),
    /// Something other than a socket is there; the text says what. It was left alone.
    NotASocket(PathBuf, &'static str),
    /// There is a socket, but it cannot be found out whether a daemon listens there.
    Unknown(PathBuf, io::Error),
    /// The socket cannot be made there.
    Create(PathBuf, io::Error),
    /// The socket cannot be given to its owner.
    Owner(PathBuf, io::Error),
    /// This process may not become another user; root may.
    NotRoot,
    /// The socket was made, but cannot take the place of the one that is there.
    Replace(PathBuf, io::Error),
    /// There is nowhere to listen: no path was given, and no socket was handed over.
    NoSocket,
    /// A socket that was handed over cannot be accepted from: which, and why.
    NotAListener(String, &'static str),
    /// The limit of descriptors (`RLIMIT_NOFILE`) is too low to run even one program; the number is the
    /// limit.
    TooFewDescriptors(u64),
    /// SIGCHLD is ignored in this process, so how a program ended could not be learned.
    ChildrenIgnored,
    /// The daemon's own preparations failed: what, and why.
    Setup(&'static str, io::Error),
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EmptyPath => f.write_str("the path of the socket is empty"),
            Self::PathTooLong(path, len) => write!(
                f,
                "{}: path of {len} bytes, longer than the {MAX_PATH} that a UNIX socket can have; use a shorter one",
                path.display()
            ),
            Self::InUse(path) => {
                write!(f, "{}: another daemon listens there; stop it first, or choose another path", path.display())
            }
            Self::NotASocket(path, what) => {
                write!(f, "{}: there is a {what}, not a socket; it was left alone", path.display())
            }
            Self::Unknown(path, error) => {
                write!(f, "{}: cannot find out whether a daemon listens there: {error}", path.display())
            }
            Self::Create(path, error) if error.kind() == io::ErrorKind::NotFound => {
                write!(f, "{}: cannot make the socket: the directory does not exist", path.display())
            }
            Self::Create(path, error) => write!(f, "{}: cannot make the socket: {error}", path.display()),
            Self::Replace(path, error) if error.kind() == io::ErrorKind::PermissionDenied => write!(
                f,
                "{}: cannot take the place of the socket: {error}; in a sticky directory such as /tmp only its owner may",
                path.display()
            ),
            Self::Replace(path, error) => write!(f, "{}: cannot take the place of the socket: {error}", path.display()),
            Self::NoSocket => {
                f.write_str("no socket to listen on: no path was given, and no listening socket was passed")
            }
            Self::NotAListener(which, why) => write!(f, "{which}: clients cannot be accepted there: {why}"),
            Self::Owner(path, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "{}: cannot give the socket to its owner: {error}; only root may give a file away",
                    path.display()
                )
            }
            Self::Owner(path, error) => write!(f, "{}: cannot give the socket to its owner: {error}", path.display()),
            Self::NotRoot => f.write_str("only root may become another user (CAP_SETUID and CAP_SETGID)"),
            Self::TooFewDescriptors(limit) => {
                write!(f, "{limit} descriptors are not enough to run a program; raise the limit (ulimit -n)")
            }
            Self::ChildrenIgnored => {
                f.write_str("SIGCHLD is ignored in this process, so no exit status can be learned")
            }
            Self::Setup(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unknown(_, error)
            | Self::Owner(_, error)
            | Self::Create(_, error)
            | Self::Replace(_, error)
            | Self::Setup(_, error) => Some(error),
            Self::EmptyPath
            | Self::PathTooLong(..)
            | Self::InUse(_)
            | Self::NotASocket(..)
            | Self::NoSocket
            | Self::NotRoot
            | Self::NotAListener(..)
            | Self::TooFewDescriptors(_)
            | Self::ChildrenIgnored => None,
        }
    }
}

/// How a socket is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Making {
    pub(crate) mode: u32,
    pub(crate) backlog: u32,
    /// `None`: the user that makes it.
    pub(crate) owner: Option<Owner>,
}

/// The name of a listening socket in the file system, removed on drop if it is still that socket's.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Where it is until it [takes its place](SocketFile::take_place).
    beside: Option<PathBuf>,
    identity: Option<Identity>,
    making: Making,
    /// The directory from which a relative path starts.
    base: Option<PathBuf>,
}

/// What is at the path of a [`SocketFile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It, or something that cannot be examined.
    Kept,
    /// Nothing.
    Empty,
    /// Another file, of this identity: device and inode.
    Other(Identity),
}

impl SocketFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Logs in one line what this process, which is another user by now, can no longer do, and what helps.
    pub(crate) fn warn_of_lost_rights(&self) {
        use rustix::fs::Access;

        let directory = directory_of(&self.path);
        let (mut removes, mut makes) = (true, true);
        let mut reasons = Vec::new();
        if rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK).is_err() {
            (removes, makes) = (false, false);
            reasons.push(format!("{} is not its own; use a directory of this user", directory.display()));
        } else if self.is_stuck_in(directory) {
            removes = false;
            reasons.push(format!(
                "{} is sticky, so only its owner may remove the socket; name this user in --owner",
                directory.display()
            ));
        }
        if makes && self.making.owner.is_some_and(|owner| !owner.may_be_given()) {
            makes = false;
            reasons.push(
                "only root may give it to its owner; name this user and one of its groups in --owner, or leave that out"
                    .to_owned(),
            );
        }
        let what = match (removes, makes) {
            (true, true) => return,
            (false, false) => "can neither remove the socket when it ends nor make it again if it vanishes",
            (false, true) => "cannot remove the socket when it ends",
            (true, false) => "cannot make the socket again if it vanishes",
        };
        log::warn!("{}: as this user the daemon {what}: {}", self.path.display(), reasons.join("; "));
    }

    /// Whether it is in a sticky directory whose owner is neither this process's user nor the file's.
    fn is_stuck_in(&self, directory: &Path) -> bool {
        let own = rustix::process::geteuid();
        let is_ours = |metadata: &fs::Metadata| own.is_root() || metadata.uid() == own.as_raw();
        let is_sticky = |metadata: &fs::Metadata| metadata.mode() & 0o1000 != 0;
        fs::metadata(directory).is_ok_and(|directory| is_sticky(&directory) && !is_ours(&directory))
            && fs::symlink_metadata(self.location()).is_ok_and(|file| !is_ours(&file))
    }

    /// What is at its path now.
    pub(crate) fn place(&self) -> Place {
        let place = match (self.identity, identity(&self.path)) {
            (Some(made), Ok(found)) if found != made => Place::Other(found),
            // NotADirectory: the directory was replaced by a file.
            (Some(_), Err(error)) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Place::Empty
            }
            (Some(_), Ok(_) | Err(_)) | (None, _) => Place::Kept,
        };
        // An application around the daemon may have changed its directory, so that the path means another
        // place.
        let moved = place != Place::Kept && !self.path.is_absolute() && self.base != env::current_dir().ok();
        if moved { Place::Kept } else { place }
    }

    /// The file that was made: device and inode. No other file has them while its socket is open.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Makes another socket in its place, if that is free or what is there is stale. It does not wait: `None`
    /// means that another process is at work in the directory, and that this must be tried again. With
    /// `insists` it goes on in spite of that process.
    ///
    /// # Errors
    /// As [`listen`]; above all [`BindError::InUse`], if another daemon has taken the place.
    pub(crate) fn listen_again(&self, insists: bool) -> Result<Option<(OwnedFd, Self)>, BindError> {
        let lock = Lock::try_on(&self.path);
        if matches!(lock, Lock::Held) && !insists {
            return Ok(None);
        }
        let made = make(&self.path, self.making, |path| {
            Ok(Some(socket::probe(path)?).filter(|&listener| listener != socket::Listener::Held || insists))
        })?;
        Ok(made.map(|(socket, identity)| (socket, Self::new(self.path.clone(), None, identity, self.making))))
    }

    fn new(path: PathBuf, beside: Option<PathBuf>, identity: Option<Identity>, making: Making) -> Self {
        let base = if path.is_absolute() { None } else { env::current_dir().ok() };
        Self { path, beside, identity, making, base }
    }

    /// Where it is now, unless it was moved.
    pub(crate) fn location(&self) -> &Path {
        self.beside.as_deref().unwrap_or(&self.path)
    }

    /// Puts it in its place, if it was made [beside it](listen_beside): over the socket that is there,
    /// whether or not a daemon listens on it.
    ///
    /// # Errors
    /// [`BindError::NotASocket`]: something else is there, and was left alone. [`BindError::Replace`]:
    /// rename(2) is refused.
    pub(crate) fn take_place(&mut self) -> Result<(), BindError> {
        let Some(beside) = &self.beside else { return Ok(()) };
        // Another daemon that is about to remove its own file has compared it already, and must not remove
        // this one.
        let _lock = lock_directory(&self.path);
        // rename(2) would silently replace a regular file or a link.
        refuse_other_files(&self.path)?;
        fs::rename(beside, &self.path).map_err(|error| BindError::Replace(self.path.clone(), error))?;
        self.beside = None;
        Ok(())
    }

    /// Removes it, if the file at the path is still the one that was made here.
    fn remove(&self) -> io::Result<()> {
        let made = self.identity.ok_or_else(|| io::Error::other("it may not be this daemon's"))?;
        let path = self.location();
        // Where its place was taken, the daemon may still serve, and must not wait.
        if identity(path).is_ok_and(|found| found != made) {
            return Ok(());
        }
        // Between the check and the removal a successor may put its own file there.
        let _lock = Lock::wait_for(&self.path, REMOVAL_WAIT)
            .ok_or_else(|| io::Error::other("another process has locked its directory; the next daemon replaces it"))?;
        match identity(path) {
            Ok(found) if found == made => fs::remove_file(path),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            log::warn!("cannot remove {}: {error}", self.location().display());
        }
    }
}

/// A file: device and inode.
type Identity = (u64, u64);

/// Makes the socket at `path` and listens. A socket that nobody listens on any more is replaced.
pub(crate) fn listen(path: &Path, making: Making) -> Result<(OwnedFd, SocketFile), BindError> {
    check_length(path)?;
    // One at a time: between its bind and its listen another daemon's socket looks stale, and between finding
    // a stale one and removing it a new one may take its place.
    let _lock = lock_directory(path);
    let (socket, identity) = make_insisting(path, making)?;
    Ok((socket, SocketFile::new(path.to_owned(), None, identity, making)))
}

/// Makes the socket beside `path` and listens, to [take its place](SocketFile::take_place) later.
pub(crate) fn listen_beside(path: &Path, making: Making) -> Result<(OwnedFd, SocketFile), BindError> {
    check_length(path)?;
    refuse_other_files(path)?;
    let name = path.file_name().ok_or_else(|| BindError::NotASocket(path.to_owned(), "directory"))?;
    let pid = std::process::id();
    let mut dotted = OsString::from(".");
    dotted.push(name);
    dotted.push(format!(".{pid}"));
    let telling = path.with_file_name(dotted);
    let short = path.with_file_name(format!(".sockexec.{pid}"));
    let fits = |path: &PathBuf| path.as_os_str().len() <= MAX_PATH;
    let _lock = lock_directory(path);
    let (beside, (socket, identity)) = if let Some(beside) = [telling, short.clone()].into_iter().find(fits) {
        let socket = make_insisting(&beside, making)?;
        (beside, socket)
    } else {
        // The path has no room for a longer name; by way of its directory there is room.
        let directory = open_directory(path).map_err(|error| BindError::Create(short.clone(), error))?;
        let address = format!("/proc/self/fd/{}/.sockexec.{pid}", directory.as_raw_fd());
        (short, make_insisting(Path::new(&address), making)?)
    };
    Ok((socket, SocketFile::new(path.to_owned(), Some(beside), identity, making)))
}

fn check_length(path: &Path) -> Result<(), BindError> {
    match path.as_os_str().len() {
        0 => Err(BindError::EmptyPath),
        1..=MAX_PATH => Ok(()),
        len => Err(BindError::PathTooLong(path.to_owned(), len)),
    }
}

/// Refuses anything at `path` that is not a socket.
fn refuse_other_files(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => Ok(()),
        Ok(metadata) => Err(BindError::NotASocket(path.to_owned(), describe(metadata.file_type()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(BindError::Unknown(path.to_owned(), error)),
    }
}

/// Makes the socket, however long other processes hold a stale one.
fn make_insisting(path: &Path, making: Making) -> Result<(OwnedFd, Option<Identity>), BindError> {
    // Only a probe can give up, and this one does not.
    make(path, making, |path| probe(path).map(Some))?.ok_or_else(|| BindError::InUse(path.to_owned()))
}

/// The state of the socket at a path; `None`: do not wait for it.
type Probed = io::Result<Option<socket::Listener>>;

/// Makes the socket, in place of a stale one; `None`: `probe` has given up.
fn make(
    path: &Path,
    making: Making,
    probe: impl Fn(&Path) -> Probed,
) -> Result<Option<(OwnedFd, Option<Identity>)>, BindError> {
    loop {
        match socket::bind(path, making.mode) {
            Ok(socket) => {
                if let Err(error) = open_for_clients(path, &socket, making) {
                    // It was just made, and nobody will ever listen on it.
                    let _ = fs::remove_file(path);
                    return Err(error);
                }
                return Ok(Some((socket, identity(path).ok())));
            }
            Err(error) if error.raw_os_error() == Some(Errno::ADDRINUSE.raw_os_error()) => {
                if !remove_stale(path, &probe)? {
                    return Ok(None);
                }
            }
            Err(error) => return Err(BindError::Create(path.to_owned(), error)),
        }
    }
}

/// Gives the file to its owner, then listens: nobody can connect before that.
fn open_for_clients(path: &Path, socket: &OwnedFd, making: Making) -> Result<(), BindError> {
    if let Some(Owner { uid, gid }) = making.owner {
        socket::give(path, uid, gid).map_err(|error| BindError::Owner(path.to_owned(), error))?;
    }
    socket::listen(socket, making.backlog).map_err(|error| BindError::Create(path.to_owned(), error))
}

/// Removes a socket at `path` on which nobody listens; false: `probe` has given up.
fn remove_stale(path: &Path, probe: impl Fn(&Path) -> Probed) -> Result<bool, BindError> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(BindError::Unknown(path.to_owned(), error)),
    };
    if !kind.is_socket() {
        return Err(BindError::NotASocket(path.to_owned(), describe(kind)));
    }
    match probe(path) {
        Ok(None) => Ok(false),
        Ok(Some(socket::Listener::Alive | socket::Listener::Held)) => Err(BindError::InUse(path.to_owned())),
        Ok(Some(socket::Listener::Absent)) => Ok(true),
        Ok(Some(socket::Listener::Dead)) => {
            log::debug!("{}: replacing a stale socket", path.display());
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BindError::Create(path.to_owned(), error)),
                Ok(()) | Err(_) => Ok(true),
            }
        }
        Err(error) => Err(BindError::Unknown(path.to_owned(), error)),
    }
}

/// The state of the socket at `path`, after a wait for processes that only hold it.
fn probe(path: &Path) -> io::Result<socket::Listener> {
    let give_up = Instant::now() + HELD_WAIT;
    let mut told = false;
    loop {
        let listener = socket::probe(path)?;
        if listener != socket::Listener::Held || Instant::now() >= give_up {
            return Ok(listener);
        }
        if !std::mem::replace(&mut told, true) {
            log::debug!("{}: waiting for processes that still have the socket open", path.display());
        }
        thread::sleep(LOOK);
    }
}

/// An advisory lock on a socket's directory. It only helps: without it the daemon goes on.
enum Lock {
    /// Held until this is dropped.
    Ours { _directory: File },
    /// Another process holds it.
    Held,
    /// There can be no lock: the directory may not be read, or its file system has no locks.
    Absent,
}

impl Lock {
    /// Tries to lock the directory of the socket at `path`.
    fn try_on(path: &Path) -> Self {
        match open_directory(path).and_then(|directory| try_lock(&directory).map(|locked| (directory, locked))) {
            Ok((directory, true)) => Self::Ours { _directory: directory },
            Ok((_, false)) => Self::Held,
            Err(error) => {
                log::debug!("{}: its directory cannot be locked: {error}", path.display());
                Self::Absent
            }
        }
    }
}

impl Lock {
    /// The lock, or that there can be none; `None`: another process still holds it after this time.
    fn wait_for(path: &Path, patience: Duration) -> Option<Self> {
        let give_up = Instant::now() + patience;
        loop {
            match Self::try_on(path) {
                Self::Held if Instant::now() < give_up => thread::sleep(LOOK),
                Self::Held => return None,
                lock => return Some(lock),
            }
        }
    }
}

/// The lock. If another process holds it for long, the daemon goes on without.
fn lock_directory(path: &Path) -> Lock {
    Lock::wait_for(path, LOCK_WAIT).unwrap_or_else(|| {
        log::warn!("{}: another process has locked its directory; going on without the lock", path.display());
        Lock::Absent
    })
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

fn open_directory(path: &Path) -> io::Result<File> {
    // O_DIRECTORY, as opening a FIFO would wait for its writer.
    OpenOptions::new().read(true).custom_flags(O_DIRECTORY).open(directory_of(path))
}

/// Locks it; false: another process has. Any other failure (ENOLCK, EOPNOTSUPP, ENOSYS) would be the same in
/// two seconds.
fn try_lock(directory: &File) -> io::Result<bool> {
    match retry_on_intr(|| rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn describe(kind: FileType) -> &'static str {
    if kind.is_symlink() {
        "symbolic link"
    } else if kind.is_dir() {
        "directory"
    } else if kind.is_file() {
        "regular file"
    } else if kind.is_fifo() {
        "FIFO"
    } else {
        "device"
    }
}

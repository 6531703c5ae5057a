//! The socket file: made, replaced when stale, removed when it is still ours.

use std::env;
use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use libc::O_DIRECTORY;
use rustix::fs::FlockOperation;
use rustix::io::{Errno, retry_on_intr};

use crate::sys::socket;

/// The longest path of a UNIX socket: `sun_path` of unix(7) less the NUL at its end. Other systems
/// have 103 and say so themselves.
pub const MAX_PATH: usize = 107;

/// How long to wait for another daemon that is just making or replacing a socket in the same directory.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// How long to wait for whoever has a socket open on which nobody listens: programs of a daemon that was killed, which die with it or are
/// on their way to exec.
const HELD_WAIT: Duration = Duration::from_secs(2);

/// How often to look meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// Why the daemon cannot listen. What is shown says what to do about it.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// The path is empty.
    EmptyPath,
    /// The path is longer than [`MAX_PATH`]; its length.
    PathTooLong(PathBuf, usize),
    /// Another daemon listens there.
    InUse(PathBuf),
    /// Something that is no socket is there; what it is. It was left alone.
    NotASocket(PathBuf, &'static str),
    /// There is a socket, and whether anybody listens there cannot be found out.
    Unknown(PathBuf, io::Error),
    /// The socket cannot be made there.
    Create(PathBuf, io::Error),
    /// Nowhere to listen: neither was a path given nor a socket handed over.
    NoSocket,
    /// A socket that was handed over cannot be accepted from: which, and why.
    NotAListener(String, &'static str),
    /// So few descriptors (`RLIMIT_NOFILE`) are allowed that not one program could be run; how many are.
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
            Self::NoSocket => f.write_str("no socket to listen on: none was handed over, and there is no path"),
            Self::NotAListener(which, why) => write!(f, "{which}: clients cannot be accepted there: {why}"),
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
            Self::Unknown(_, error) | Self::Create(_, error) | Self::Setup(_, error) => Some(error),
            Self::EmptyPath
            | Self::PathTooLong(..)
            | Self::InUse(_)
            | Self::NotASocket(..)
            | Self::NoSocket
            | Self::NotAListener(..)
            | Self::TooFewDescriptors(_)
            | Self::ChildrenIgnored => None,
        }
    }
}

/// The name of a listening socket in the file system, removed on drop if it is still that socket's.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
    mode: u32,
    backlog: u32,
    /// Where a path that is not absolute begins.
    base: Option<PathBuf>,
}

/// What is at the path of a [`SocketFile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It, or something of which nothing can be found out.
    Kept,
    /// Nothing.
    Empty,
    /// Another file, of this identity: device and inode.
    Other((u64, u64)),
}

impl SocketFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is at its path now.
    pub(crate) fn place(&self) -> Place {
        let place = match (self.identity, identity(&self.path)) {
            (Some(made), Ok(found)) if found != made => Place::Other(found),
            // NotADirectory: a file is where the directory was.
            (Some(_), Err(error)) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Place::Empty
            }
            (Some(_), Ok(_) | Err(_)) | (None, _) => Place::Kept,
        };
        // An application around the daemon may have changed its directory, and the path means another place.
        let moved = place != Place::Kept && !self.path.is_absolute() && self.base != env::current_dir().ok();
        if moved { Place::Kept } else { place }
    }

    /// Which file was made: device and inode. As long as its socket is open no other file has them.
    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        self.identity
    }

    /// Makes another socket in its place, if that is free or what is there is stale. It waits for nobody: `None` means that it is to be tried
    /// again, as somebody else is at work in the directory. With `insists` it is not waited for any longer.
    ///
    /// # Errors
    /// As [`listen`]; [`BindError::InUse`] above all, if another daemon has taken the place.
    pub(crate) fn listen_again(&self, insists: bool) -> Result<Option<(OwnedFd, Self)>, BindError> {
        let lock = Lock::try_on(&self.path);
        if matches!(lock, Lock::Held) && !insists {
            return Ok(None);
        }
        make(&self.path, self.mode, self.backlog, |path| {
            Ok(Some(socket::probe(path)?).filter(|&listener| listener != socket::Listener::Held || insists))
        })
    }

    /// Removes it, if the file at the path is still the one that was made here.
    fn remove(&self) -> io::Result<()> {
        let made = self.identity.ok_or_else(|| io::Error::other("it is not known whether it is this daemon's"))?;
        match identity(&self.path) {
            Ok(found) if found == made => fs::remove_file(&self.path),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Makes the socket at `path` and listens. A socket that nobody listens on any more is replaced.
pub(crate) fn listen(path: &Path, mode: u32, backlog: u32) -> Result<(OwnedFd, SocketFile), BindError> {
    let len = path.as_os_str().len();
    if len == 0 {
        return Err(BindError::EmptyPath);
    }
    if len > MAX_PATH {
        return Err(BindError::PathTooLong(path.to_owned(), len));
    }
    // Between its bind and its listen another daemon's socket looks stale, and between finding a stale
    // one and removing it a new one may take its place: one at a time.
    let _lock = lock_directory(path);
    match make(path, mode, backlog, |path| probe(path).map(Some))? {
        Some(socket) => Ok(socket),
        // It is for the probe to give up, and this one does not.
        None => Err(BindError::InUse(path.to_owned())),
    }
}

/// What is known of a socket at a path; `None`: it is not to be waited for.
type Probed = io::Result<Option<socket::Listener>>;

/// Makes the socket, in place of a stale one; `None`: `probe` has given up.
fn make(
    path: &Path,
    mode: u32,
    backlog: u32,
    probe: impl Fn(&Path) -> Probed,
) -> Result<Option<(OwnedFd, SocketFile)>, BindError> {
    loop {
        match socket::listen(path, mode, backlog) {
            Ok(socket) => {
                let identity = identity(path).ok();
                let base = if path.is_absolute() { None } else { env::current_dir().ok() };
                return Ok(Some((socket, SocketFile { path: path.to_owned(), identity, mode, backlog, base })));
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

/// Makes way if what is at `path` is a socket on which nobody listens; false: `probe` has given up.
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

/// What is known of the socket at `path` once those have had their time who only hold it.
fn probe(path: &Path) -> io::Result<socket::Listener> {
    let give_up = Instant::now() + HELD_WAIT;
    let mut told = false;
    loop {
        let listener = socket::probe(path)?;
        if listener != socket::Listener::Held || Instant::now() >= give_up {
            return Ok(listener);
        }
        if !std::mem::replace(&mut told, true) {
            log::debug!("{}: waiting for whoever still has the socket open", path.display());
        }
        thread::sleep(LOOK);
    }
}

/// An advisory lock on a socket's directory. A help and no more: without it the daemon goes on.
enum Lock {
    /// Held until this is dropped.
    Ours { _directory: File },
    /// By somebody else.
    Held,
    /// No lock can be had: the directory may not be read, or its file system has no locks.
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

/// The lock; where somebody else holds it for long, the daemon goes on without.
fn lock_directory(path: &Path) -> Lock {
    let give_up = Instant::now() + LOCK_WAIT;
    loop {
        match Lock::try_on(path) {
            Lock::Held if Instant::now() < give_up => thread::sleep(LOOK),
            lock => {
                if matches!(lock, Lock::Held) {
                    log::warn!("{}: somebody else has its directory locked; going on without", path.display());
                }
                return lock;
            }
        }
    }
}

fn open_directory(path: &Path) -> io::Result<File> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    // O_DIRECTORY: to open a FIFO would wait for its writer.
    OpenOptions::new().read(true).custom_flags(O_DIRECTORY).open(directory)
}

/// Locks it; false: somebody else has. Any other failure (ENOLCK, EOPNOTSUPP, ENOSYS) would be the same in two seconds.
fn try_lock(directory: &File) -> io::Result<bool> {
    match retry_on_intr(|| rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
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

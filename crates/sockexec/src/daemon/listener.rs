//! The socket file: made, replaced when stale, removed when it is still ours.

use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use libc::O_DIRECTORY;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

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
}

impl SocketFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
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
    loop {
        match socket::listen(path, mode, backlog) {
            Ok(socket) => {
                let file = SocketFile { path: path.to_owned(), identity: identity(path).ok() };
                return Ok((socket, file));
            }
            Err(error) if error.raw_os_error() == Some(Errno::ADDRINUSE.raw_os_error()) => remove_stale(path)?,
            Err(error) => return Err(BindError::Create(path.to_owned(), error)),
        }
    }
}

/// Makes way if what is at `path` is a socket on which nobody listens.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BindError::Unknown(path.to_owned(), error)),
    };
    if !kind.is_socket() {
        return Err(BindError::NotASocket(path.to_owned(), describe(kind)));
    }
    match probe(path) {
        Ok(socket::Listener::Alive | socket::Listener::Held) => Err(BindError::InUse(path.to_owned())),
        Ok(socket::Listener::Absent) => Ok(()),
        Ok(socket::Listener::Dead) => {
            log::debug!("{}: replacing a stale socket", path.display());
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BindError::Create(path.to_owned(), error)),
                Ok(()) | Err(_) => Ok(()),
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

/// An advisory lock on the socket's directory. A help and no more: without permission to read the
/// directory, or where somebody holds the lock for long, the daemon goes on without.
fn lock_directory(path: &Path) -> Option<File> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    // O_DIRECTORY: to open a FIFO would wait for its writer.
    let directory = OpenOptions::new().read(true).custom_flags(O_DIRECTORY).open(directory).ok()?;
    let give_up = Instant::now() + LOCK_WAIT;
    while rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() >= give_up {
            return None;
        }
        thread::sleep(LOOK);
    }
    Some(directory)
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

//! The connection to the daemon.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

use super::Error;
use super::waiting::{Patience, Waiting};

/// How long a daemon that has read a request of version 2 may be silent. One that speaks it introduces itself
/// at once, before it looks for the program; 3.1.1 says nothing.
const SILENCE: Duration = Duration::from_millis(1500);

/// The longest path that a socket can have, in bytes: `sun_path` less its NUL (unix(7)).
const MAX_PATH: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 107 } else { 103 };

/// How often to check whether the daemon has read the request.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Connects. While the daemon has no room in its backlog, waits as long as `patience` lasts.
pub(super) fn connect(path: &Path, patience: &mut Patience) -> Result<UnixStream, Error> {
    // Before any limit counts: one that is over by now would be blamed on a backlog that has room.
    if let Some(socket) = try_connect(path)? {
        return Ok(socket);
    }
    loop {
        patience.mind(|| Waiting::Connection)?;
        let left = patience.left()?;
        match open(path, left) {
            Ok(socket) => {
                let socket = UnixStream::from(socket);
                set_nonblocking(&socket)?;
                return Ok(socket);
            }
            // unix(7): for a socket that waits, only when its send timeout has passed.
            Err(Errno::AGAIN) if left.is_some() => {}
            // A UNIX socket whose connect was interrupted is not connected, and can be tried again.
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(path, errno)),
        }
    }
}

/// Why there is no connection, in better words if the path shows more than the error.
fn failed(path: &Path, errno: Errno) -> Error {
    let len = path.as_os_str().len();
    let error = match errno {
        Errno::NAMETOOLONG if len > MAX_PATH => {
            let words =
                format!("the path is too long: {len} bytes, but a socket's has at most {MAX_PATH}; use a shorter one");
            io::Error::new(io::ErrorKind::InvalidFilename, words)
        }
        // On Linux as for a socket that nobody listens on.
        _ if len == 0 => {
            io::Error::new(io::ErrorKind::InvalidInput, "the path is empty; give that of the daemon's socket")
        }
        Errno::CONNREFUSED => match std::fs::metadata(path).map(|metadata| metadata.file_type()) {
            Ok(kind) if kind.is_dir() => refused("it is a directory; give the path of the socket in it"),
            Ok(kind) if !kind.is_socket() => refused("it is a file, not a socket; give the path of a daemon's socket"),
            Ok(_) | Err(_) => errno.into(),
        },
        errno => errno.into(),
    };
    Error::Connect(path.to_owned(), error)
}

fn refused(words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, words)
}

/// Connects if the daemon has room in its backlog now. No event reports when it has, so a caller that must
/// not wait has to try again.
pub(super) fn try_connect(path: &Path) -> Result<Option<UnixStream>, Error> {
    let connect = || {
        let address = SocketAddrUnix::new(path)?;
        let socket = close_on_exec_socket()?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address)).map(|()| socket)
    };
    match connect() {
        Ok(socket) => Ok(Some(UnixStream::from(socket))),
        Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(failed(path, errno)),
    }
}

/// Waits for at most `left`.
fn open(path: &Path, left: Option<Duration>) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let socket = close_on_exec_socket()?;
    if let Some(left) = left {
        if left.is_zero() {
            return Err(Errno::AGAIN);
        }
        set_socket_timeout(&socket, Timeout::Send, Some(left))?;
    }
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// Close-on-exec, so that no program that this process starts holds the connection open.
fn close_on_exec_socket() -> Result<OwnedFd, Errno> {
    #[cfg(not(target_vendor = "apple"))]
    {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
    }
    #[cfg(target_vendor = "apple")]
    {
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        Ok(socket)
    }
}

fn set_nonblocking(socket: &UnixStream) -> Result<(), Error> {
    socket.set_nonblocking(true).map_err(|error: io::Error| Error::Io("cannot set up the connection", error))
}

/// Since when a daemon has read all that was sent to it, and has been silent.
#[derive(Debug, Default)]
pub(super) struct Silence(Option<Instant>);

impl Silence {
    /// Gives up on a daemon that has read the request and does not introduce itself. One that has not read it
    /// is only busy. Call this every [`LOOK`] until the introduction has come.
    pub(super) fn mind(&mut self, socket: impl AsFd) -> Result<(), Error> {
        if was_read(socket) != Some(true) {
            self.0 = None;
            return Ok(());
        }
        let since = *self.0.get_or_insert_with(Instant::now);
        if since.elapsed() >= SILENCE { Err(Error::Unsupported) } else { Ok(()) }
    }
}

/// Whether the daemon has read everything that was sent. `None` if the system does not report it (other than
/// Linux).
pub(super) fn was_read(socket: impl AsFd) -> Option<bool> {
    #[cfg(target_os = "linux")]
    {
        crate::queue::send_queue(socket.as_fd()).ok().map(|unread| unread == 0)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        None
    }
}

//! UNIX sockets: the listening one and the peer's credentials.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketType};
use rustix::process::Pid;

use super::foreign::Foreign;
use super::transfer;

/// Who connected, as the kernel recorded it at `connect(2)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// 0 for a peer in a pid namespace that ours cannot see.
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Peer {
    /// Whether the peer could stop this process by other means: it runs as root or as the same user.
    pub(crate) fn is_as_mighty(self) -> bool {
        self.uid == 0 || self.uid == rustix::process::geteuid().as_raw()
    }
}

/// The peer at the other end of `socket`, if the system reports it.
#[cfg(target_os = "linux")]
pub(crate) fn peer(socket: impl AsFd) -> Option<Peer> {
    let (pid, uid, gid) = super::raw::peer_credentials(socket.as_fd()).ok()?;
    Some(Peer { pid, uid, gid })
}

/// The peer at the other end of `socket`, if the system reports it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn peer(_socket: impl AsFd) -> Option<Peer> {
    None
}

/// Makes urgent bytes (`MSG_OOB`) arrive in line. Otherwise the kernel would skip them, and close descriptors
/// that came with them, within the call that meets them: see [`super::closer`].
pub(crate) fn keep_urgent_in_line(socket: impl AsFd) {
    // Refused by sockets that have no urgent bytes.
    let _ = rustix::net::sockopt::set_socket_oobinline(socket, true);
}

/// Makes the kernel refuse descriptors that are sent to `socket` from now on (EPERM). Returns how many bytes
/// at most came before that, which may still carry some.
///
/// # Errors
/// This needs Linux 6.16; other systems have no such option.
pub(crate) fn refuse_descriptors(socket: impl AsFd) -> io::Result<u64> {
    super::raw::descriptors::refuse_rights(socket.as_fd())?;
    // A sender checks this and then queues its bytes, all under a lock of our socket (`unix_stream_sendmsg`).
    // The call below takes that lock too, so what was checked before is queued when the queue is measured.
    let _ = rustix::net::getpeername(&socket);
    Ok(rustix::io::ioctl_fionread(socket)?)
}

/// A socket that does not block and is not inherited.
#[cfg(not(target_vendor = "apple"))]
fn stream_socket() -> io::Result<OwnedFd> {
    use rustix::net::SocketFlags;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// A socket that does not block and is not inherited.
///
/// macOS cannot do that in one step: a program that another thread starts in between inherits the socket.
#[cfg(target_vendor = "apple")]
fn stream_socket() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&socket, rustix::fs::OFlags::NONBLOCK)?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o777)
}

/// On other systems the type has 16 bits, which are enough for nine.
#[cfg(not(target_os = "linux"))]
fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(u16::try_from(mode & 0o777).unwrap_or(0))
}

/// A socket at `path`, which must not exist, with exactly the permissions `mode`. It does not listen yet.
///
/// The file is created with them. It gets 0777 less the umask (unix(7)). On Linux `fchmod` before `bind`
/// lowers the 0777, so a default ACL of the directory, which makes the kernel ignore the umask, cannot widen
/// them either. Rejected: `bind` and then `chmod`, which leaves a moment with wider permissions, and follows
/// whatever is at the path by then. The umask belongs to the whole process.
///
/// # Errors
/// Those of bind(2). EADDRINUSE: something is at `path`.
pub(crate) fn bind(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = stream_socket()?;
    let _ = rustix::fs::fchmod(&socket, permissions(mode));
    let umask = rustix::process::umask(permissions(!mode));
    let bound = rustix::net::bind(&socket, &address);
    rustix::process::umask(umask);
    bound?;
    Ok(socket)
}

/// Makes a bound socket listen.
///
/// # Errors
/// Those of listen(2).
pub(crate) fn listen(socket: impl AsFd, backlog: u32) -> io::Result<()> {
    Ok(rustix::net::listen(socket, i32::try_from(backlog).unwrap_or(i32::MAX))?)
}

/// Gives the socket file at `path`, which this process has just made, to a user and a group; `None` leaves
/// that one unchanged.
///
/// The file is opened and checked first. In a directory that others may write to, something else may be there
/// by now, and root would give it to them.
///
/// # Errors
/// Those of open(2) and chown(2). `PermissionDenied`: it is not the file that was made.
#[cfg(target_os = "linux")]
pub(crate) fn give(path: &Path, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    use rustix::fs::{AtFlags, FileType, OFlags};

    let file = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let found = rustix::fs::fstat(&file)?;
    let is_socket = FileType::from_raw_mode(found.st_mode) == FileType::Socket;
    if !is_socket || found.st_nlink != 1 || found.st_uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another process has replaced the file"));
    }
    let (uid, gid) = (uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw));
    Ok(rustix::fs::chownat(&file, "", uid, gid, AtFlags::EMPTY_PATH)?)
}

/// Gives the socket file at `path`, which this process has just made, to a user and a group; `None` leaves
/// that one unchanged.
///
/// # Errors
/// Those of chown(2).
#[cfg(not(target_os = "linux"))]
pub(crate) fn give(path: &Path, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD};

    let (uid, gid) = (uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw));
    Ok(rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// What a descriptor is, for a caller that wants to accept from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acceptor {
    Listens,
    NotASocket,
    NotAStream,
    IsConnected,
    DoesNotListen,
}

/// What this descriptor is, for such a caller.
///
/// # Errors
/// Those of getsockopt(2).
pub(crate) fn acceptor(descriptor: impl AsFd) -> io::Result<Acceptor> {
    match rustix::net::sockopt::socket_type(&descriptor) {
        Ok(SocketType::STREAM) => {}
        Ok(_) => return Ok(Acceptor::NotAStream),
        Err(Errno::NOTSOCK) => return Ok(Acceptor::NotASocket),
        Err(error) => return Err(error.into()),
    }
    if rustix::net::getpeername(&descriptor).is_ok() {
        return Ok(Acceptor::IsConnected);
    }
    // macOS does not report it.
    #[cfg(target_vendor = "apple")]
    let listens = true;
    #[cfg(not(target_vendor = "apple"))]
    let listens = rustix::net::sockopt::socket_acceptconn(&descriptor)?;
    Ok(if listens { Acceptor::Listens } else { Acceptor::DoesNotListen })
}

/// Whether it is a UNIX socket.
pub(crate) fn is_unix(socket: impl AsFd) -> bool {
    rustix::net::getsockname(socket).is_ok_and(|address| address.address_family() == AddressFamily::UNIX)
}

/// The path that a UNIX socket was bound to, if it was.
pub(crate) fn local_path(socket: impl AsFd) -> Option<Vec<u8>> {
    let address = SocketAddrUnix::try_from(rustix::net::getsockname(socket).ok()?).ok()?;
    address.path_bytes().map(<[u8]>::to_vec)
}

/// The address of a socket, for people; `None`: it has none, or one of an unknown family.
pub(crate) fn local_address(socket: impl AsFd) -> Option<String> {
    let address = rustix::net::getsockname(socket).ok()?;
    match address.address_family() {
        AddressFamily::UNIX => {
            let address = SocketAddrUnix::try_from(address).ok()?;
            let path = address.path().map(|path| path.to_string_lossy().into_owned());
            #[cfg(target_os = "linux")]
            let path = path.or_else(|| Some(format!("@{}", address.abstract_name()?.escape_ascii())));
            path
        }
        AddressFamily::INET | AddressFamily::INET6 => {
            std::net::SocketAddr::try_from(address).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

/// The next connection that waits at a listening socket, which must not block. The connection does not block
/// either, and is not inherited.
///
/// # Errors
/// Those of accept(2). `WouldBlock`: none waits. `ConnectionAborted` and `Interrupted`: it says nothing else.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    use rustix::net::SocketFlags;
    Ok(try_again(|| rustix::net::accept_with(&listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK))?)
}

/// The next connection that waits at a listening socket, which must not block. The connection does not block
/// either, and is not inherited.
///
/// # Errors
/// Those of accept(2). `WouldBlock`: none waits. `ConnectionAborted` and `Interrupted`: it says nothing else.
#[cfg(target_vendor = "apple")]
pub(crate) fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    let socket = try_again(|| rustix::net::accept(&listener))?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// Makes a connection of a family other than UNIX send its bytes at once. A reply ends with small pieces,
/// each of which would otherwise wait for the client's acknowledgement of the one before.
pub(crate) fn send_at_once(socket: impl AsFd) {
    // Refused where there is no such delay.
    let _ = rustix::net::sockopt::set_tcp_nodelay(socket, true);
}

/// Makes a listening socket refuse new connections (ECONNREFUSED). Those that wait can still be accepted.
pub(crate) fn refuse_clients(socket: impl AsFd) {
    let _ = rustix::net::shutdown(socket, Shutdown::Read);
}

/// Accepts, also after a client that gave up while it waited (ECONNABORTED), and after a signal (EINTR). Not for
/// ever: FreeBSD says the former of a socket that was shut down, and a filter of system calls may say anything.
fn try_again(mut accept: impl FnMut() -> rustix::io::Result<OwnedFd>) -> rustix::io::Result<OwnedFd> {
    const MOST: usize = 16;
    for _ in 0..MOST {
        match accept() {
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            accepted => return accepted,
        }
    }
    accept()
}

/// Closes a listening socket that does not block, and the connections that nobody has accepted. What they
/// have sent is read first: otherwise it would be closed with them, which may wait ([`super::closer`]).
pub(crate) fn close_listener(socket: OwnedFd) {
    refuse_clients(&socket);
    loop {
        match try_again(|| rustix::net::accept(&socket)) {
            Ok(client) => {
                let is_ready = rustix::io::ioctl_fionbio(&client, true).is_ok();
                keep_urgent_in_line(&client);
                if !is_ready || !transfer::drain(&client) {
                    drop(Foreign::from(client));
                }
            }
            // INVAL: it was shut down, and there are no more.
            Err(Errno::AGAIN | Errno::INVAL) => return,
            Err(_) => break,
        }
    }
    // Somebody may still be in its backlog.
    drop(Foreign::from(socket));
}

/// What a connection attempt shows about the socket at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    /// A process listens.
    Alive,
    /// A process has it open, but it is not known whether it listens: the one that listened is dead, or the
    /// backlog is full.
    Held,
    /// No process listens.
    Dead,
    /// It is gone.
    Absent,
}

/// Checks whether a process listens at `path`.
///
/// # Errors
/// It cannot be checked, above all for lack of permission.
pub(crate) fn probe(path: &Path) -> io::Result<Listener> {
    let address = SocketAddrUnix::new(path)?;
    let socket = stream_socket()?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) if peer(&socket).is_some_and(|peer| is_dead(peer.pid)) => Ok(Listener::Held),
        // PROTOTYPE: it is a datagram socket.
        Ok(()) | Err(Errno::PROTOTYPE | Errno::INPROGRESS) => Ok(Listener::Alive),
        Err(Errno::AGAIN) => Ok(Listener::Held),
        Err(Errno::CONNREFUSED) => Ok(Listener::Dead),
        Err(Errno::NOENT) => Ok(Listener::Absent),
        Err(error) => Err(error.into()),
    }
}

/// Whether that process is gone. Unknown, and so false, for one in a pid namespace that ours cannot see.
fn is_dead(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(Errno::SRCH))
}

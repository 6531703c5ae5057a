//! Listening sockets that another program has made and hands over: a service manager, such as systemd, or a
//! program that binds and then becomes this one, such as `s6-ipcserver-socketbinder`.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use super::Builder;
use super::listener::BindError;
use crate::sys::process;
use crate::sys::socket::{self, Acceptor};

/// The listening sockets that a service manager hands over: `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES`
/// of `sd_listen_fds(3)`.
#[derive(Debug, Default)]
pub struct Activation {
    all: Vec<(RawFd, Option<String>)>,
}

impl Activation {
    /// Reads what the environment says to this process. Nothing is taken yet.
    ///
    /// Call this before [`leave_init`](super::leave_init), as `LISTEN_PID` is the pid of the process before
    /// that. Programs do not see these variables.
    ///
    /// # Errors
    /// The variables are invalid, or there are no such descriptors.
    pub fn from_env() -> io::Result<Self> {
        let named = std::env::var_os("LISTEN_FDNAMES").is_some();
        let all = sd_notify::listen_fds_with_names()?;
        Ok(Self { all: all.map(|(number, name)| (number, Some(name).filter(|_| named))).collect() })
    }

    /// Whether no socket was handed over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Takes the sockets, for [`Builder::listener`].
    ///
    /// # Errors
    /// EBADF: one was taken before.
    pub fn take(self) -> io::Result<Vec<Listener>> {
        let take = |(number, name)| take_descriptor(number).map(|socket| Listener { number, name, ..socket.into() });
        self.all.into_iter().map(take).collect()
    }
}

/// Takes ownership of a descriptor that the starter of this process handed over by its number. `/dev/null`
/// takes the place of 0, 1 and 2.
///
/// Call this at the start of a program that is a daemon and nothing else: nothing in the process may have
/// opened the descriptor, or use it by its number later.
///
/// # Errors
/// EBADF: no descriptor has this number, or it was taken before.
pub fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    process::take_descriptor(number)
}

/// A listening socket that another program has made: of any family, and a stream. It is never shut down, and
/// its file is left alone.
#[derive(Debug, Clone)]
pub struct Listener {
    // Shared, so that a builder can be cloned.
    socket: Arc<OwnedFd>,
    /// The number that it was handed over as.
    number: RawFd,
    name: Option<String>,
}

impl Listener {
    /// Gives it a name for messages.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes messages name it by the number that it was handed over as, if it has another one by now.
    #[must_use]
    pub fn numbered(mut self, number: RawFd) -> Self {
        self.number = number;
        self
    }

    /// Makes sure that connections can be accepted from it without waiting.
    pub(super) fn prepare(&self) -> Result<(), BindError> {
        let refuse = |why| Err(BindError::NotAListener(self.to_string(), why));
        match socket::acceptor(self.socket.as_fd()) {
            Ok(Acceptor::Listens) => {}
            Ok(Acceptor::NotASocket) => return refuse("it is not a socket"),
            Ok(Acceptor::NotAStream) => return refuse("it is not a stream (ListenStream= in a unit for systemd)"),
            Ok(Acceptor::IsConnected) => {
                return refuse("it is a connection, but must be a listening socket (Accept=no in a unit for systemd)");
            }
            Ok(Acceptor::DoesNotListen) => return refuse("nobody has called listen(2) on it"),
            Err(error) => return Err(BindError::Setup("cannot look at a socket that was handed over", error)),
        }
        rustix::io::ioctl_fionbio(&*self.socket, true)
            .map_err(|error| BindError::Setup("cannot prepare a socket that was handed over", error.into()))
    }

    /// The socket, which does not block.
    pub(super) fn into_socket(self) -> io::Result<OwnedFd> {
        // If the builder was cloned, there is another owner.
        Arc::try_unwrap(self.socket).or_else(|shared| shared.try_clone())
    }

    /// Whether it is the UNIX socket at `path`, written the same way.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        socket::is_unix(self.socket.as_fd())
            && socket::local_path(self.socket.as_fd()).is_some_and(|bound| bound == path.as_os_str().as_bytes())
    }
}

impl From<OwnedFd> for Listener {
    fn from(socket: OwnedFd) -> Self {
        let number = socket.as_raw_fd();
        Self { socket: Arc::new(socket), number, name: None }
    }
}

/// For people: its number, its name and where it listens.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "descriptor {}", self.number)?;
        if let Some(name) = &self.name {
            write!(f, " ({})", name.escape_debug())?;
        }
        match socket::local_address(self.socket.as_fd()) {
            Some(address) => write!(f, ", {address}"),
            None => Ok(()),
        }
    }
}

impl Builder {
    /// Serves the clients of this socket as well, which another program has made: [`Activation::take`]
    /// returns those of a service manager. May be called again for further sockets. The socket is made
    /// non-blocking, for all who share it.
    ///
    /// If it is not a UNIX socket, nobody knows who the clients are: together they are one user, their peer
    /// is unknown, they cannot pass descriptors, and one that closes its connection looks like one that has
    /// ended its sending.
    #[must_use]
    pub fn listener(mut self, listener: impl Into<Listener>) -> Self {
        self.listeners.push(listener.into());
        self
    }
}

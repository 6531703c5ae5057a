//! Listening sockets that somebody else has made, and hands over: a service manager, as systemd's sockets, or a program
//! that binds and then becomes this one, as `s6-ipcserver-socketbinder`.

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

/// What a service manager says of the listening sockets that it hands over: `LISTEN_FDS`, `LISTEN_PID` and
/// `LISTEN_FDNAMES` of `sd_listen_fds(3)`.
#[derive(Debug, Default)]
pub struct Activation {
    all: Vec<(RawFd, Option<String>)>,
}

impl Activation {
    /// What the environment says to this process. Nothing is taken yet.
    ///
    /// To be called before [`leave_init`](super::leave_init), as `LISTEN_PID` is the number of the process before that. Programs do not
    /// see these variables.
    ///
    /// # Errors
    /// The variables make no sense, or there are no such descriptors.
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

/// Takes a descriptor that the starter of this process has handed over by its number, which is nobody else's then. `/dev/null` takes the
/// place of 0, 1 and 2.
///
/// For the start of a program that is a daemon and nothing else: nothing in the process may have opened it, or use it by its number later.
///
/// # Errors
/// EBADF: no descriptor has this number, or it was taken before.
pub fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    process::take_descriptor(number)
}

/// A listening socket that somebody else has made: of any family, and a stream. It is never shut down, and what stands in the file
/// system for it is left alone.
#[derive(Debug, Clone)]
pub struct Listener {
    // So that a builder can be cloned.
    socket: Arc<OwnedFd>,
    /// What it was handed over as.
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

    /// Has messages call it by the number that it was handed over as, where that is another one by now.
    #[must_use]
    pub fn numbered(mut self, number: RawFd) -> Self {
        self.number = number;
        self
    }

    /// Sees to it that it can be accepted from, without waiting.
    pub(super) fn prepare(&self) -> Result<(), BindError> {
        let refuse = |why| Err(BindError::NotAListener(self.to_string(), why));
        match socket::acceptor(self.socket.as_fd()) {
            Ok(Acceptor::Listens) => {}
            Ok(Acceptor::NotASocket) => return refuse("it is not a socket"),
            Ok(Acceptor::NotAStream) => return refuse("it is not a stream (ListenStream= in a unit for systemd)"),
            Ok(Acceptor::IsConnected) => {
                return refuse(
                    "it is a connection, where a listening socket is wanted (Accept=no in a unit for systemd)",
                );
            }
            Ok(Acceptor::DoesNotListen) => return refuse("nobody has called listen(2) on it"),
            Err(error) => return Err(BindError::Setup("cannot look at a socket that was handed over", error)),
        }
        rustix::io::ioctl_fionbio(&*self.socket, true)
            .map_err(|error| BindError::Setup("cannot prepare a socket that was handed over", error.into()))
    }

    /// The socket, which does not block.
    pub(super) fn into_socket(self) -> io::Result<OwnedFd> {
        // Where the builder was cloned there is another.
        Arc::try_unwrap(self.socket).or_else(|shared| shared.try_clone())
    }

    /// Whether it is the UNIX socket that is found at `path`, written the same way.
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

/// For people: where it listens, its name and its number.
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
    /// Serves those as well who come to this socket, which somebody else has made: [`Activation::take`] has those of a service manager.
    /// May be called again for further ones. It is made not to block, for all who share it.
    ///
    /// Where it is not a UNIX socket nobody knows who the clients are: together they are one user, their peer is unknown, they cannot pass
    /// descriptors, and one that closes its connection looks like one that has ended its sending.
    #[must_use]
    pub fn listener(mut self, listener: impl Into<Listener>) -> Self {
        self.listeners.push(listener.into());
        self
    }
}

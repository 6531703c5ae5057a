//! The daemon: a listening socket, an event loop, and the programs that run for its clients.
//!
//! The program `sockexec` is a thin shell around this, and an application can run a daemon inside itself:
//!
//! ```
//! use sockexec::{Command, Daemon};
//!
//! let directory = tempfile::tempdir()?;
//! let socket = directory.path().join("exec.sock");
//! let daemon = Daemon::builder().max_connections(10).bind(&socket)?;
//! let handle = daemon.handle();
//! let thread = std::thread::spawn(move || daemon.run());
//!
//! let status = Command::new(&socket, "true").status()?;
//! assert_eq!(status.to_string(), "exit status: 0");
//!
//! handle.shut_down();
//! thread.join().expect("the loop does not panic")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What an application must know:
//!
//! - Programs inherit its environment as it is when [`Daemon::run`] is called, its directory and umask, and
//!   the signals that it ignores later (on systems other than Linux also those that it ignores or blocks by
//!   then).
//! - Nothing else may reap the daemon's children (no `waitpid(-1)`).
//! - If programs must be forked, as those with a terminal always are, the memory of the whole application is
//!   copied, page tables first.
//! - SIGPIPE must be ignored, as Rust's runtime does.
//! - While [`Builder::bind`] runs, and when a socket file that has vanished is made again, the umask of the
//!   process changes for a moment.
//! - The daemon leaves a handler for SIGXFSZ that does nothing, so that a spool that meets `RLIMIT_FSIZE`
//!   does not end the process.
#![forbid(unsafe_code)]

mod activation;
mod alarm;
mod chatter;
mod child;
mod clock;
mod connection;
mod counts;
mod event_loop;
mod events;
mod handle;
mod identity;
mod line;
mod listener;
mod memory;
mod outbox;
mod place;
mod room;
mod scratch;
mod sessions;
mod slots;
mod spool;
mod status;
mod supervisor;
mod token;
mod waker;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mio::Poll;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook_mio::v1_0::Signals;
use sockexec_proto::reply;

use crate::engine::{Limits, TermSig};
use crate::sys::process;
use crate::sys::spawn::Spawner;
use crate::sys::user;
use listener::Making;
use supervisor::Notifier;
use waker::Waker;

pub use crate::sys::process::{DescriptorLimit, forget_inheritance, leave_init, raise_descriptor_limit};
pub use activation::{Activation, Listener, take_descriptor};
pub use events::ALWAYS;
pub use handle::Handle;
pub use identity::{IdentityError, Owner, User};
pub use listener::{BindError, MAX_PATH};
pub use supervisor::Supervisor;

/// Descriptors that one connection may need at once: its socket, three pipes, a spool's file and a process's
/// exit.
const DESCRIPTORS_PER_CONNECTION: u64 = 6;

/// Descriptors that the daemon needs in addition to its connections: 0 to 2, the socket, one that has lost
/// its name, the poll, two for signals, a handle, a timer, two for splicing, the far ends of a program's
/// pipes while it starts, and one that it may have inherited.
const OWN_DESCRIPTORS: u64 = 16;

/// Descriptors that a connection without a slot may need. If its program has ended and its output was not
/// read: the socket, three pipes (or a terminal's three ends and the terminal), and the exit of a process. A
/// request that waits has its socket, and the three that came with it. One more is for connections that have
/// lost their place, and for those that exceed the places for a moment: see [`Settings::extra`].
const DESCRIPTORS_PER_WAITING: u64 = 7;

/// This many connections can be without a slot, if the limit of descriptors allows it: `-m` is lowered for
/// that.
const LEAST_WAITING: u64 = 16;

/// How many connections may exceed the places of the waiting room for a moment, and as many may have lost
/// theirs without being gone yet: an eighth of the places, within these bounds.
const EXTRA: (usize, usize) = (2, 16);

/// The signals that a daemon reacts to if it [handles](Builder::handle_signals) them.
const SIGNALS: [i32; 6] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2];

/// How much input is held for all programs together, in bytes, if that leaves each at least
/// [`reply::MIN_WINDOW`].
const WINDOWS: u64 = 64 << 20;

/// The most that is held for one program, in bytes.
const MAX_WINDOW: u64 = 1 << 20;

/// Settings of a [`Daemon`]; [`Builder::bind`] makes one with them.
#[derive(Debug, Clone)]
pub struct Builder {
    backlog: u32,
    max_connections: usize,
    max_waiting: usize,
    max_per_user: Option<usize>,
    mode: u32,
    owner: Option<Owner>,
    user: Option<User>,
    replace: bool,
    request_timeout: Option<Duration>,
    timeout: Option<Duration>,
    kill_timeout: Duration,
    linger: Option<Duration>,
    drain: Duration,
    spool: u64,
    spool_total: u64,
    termsig: TermSig,
    signals: bool,
    program_descriptors: Option<DescriptorLimit>,
    listeners: Vec<Listener>,
    supervisor: Option<Supervisor>,
    notification: Option<Arc<OwnedFd>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            backlog: 100,
            max_connections: 100,
            max_waiting: 1000,
            max_per_user: None,
            mode: 0o660,
            owner: None,
            user: None,
            replace: false,
            request_timeout: Some(Duration::from_secs(10)),
            timeout: Some(Duration::from_secs(60)),
            kill_timeout: Duration::from_secs(10),
            linger: None,
            drain: Duration::ZERO,
            spool: 1 << 30,
            spool_total: 4 << 30,
            termsig: TermSig::Number,
            signals: false,
            program_descriptors: None,
            listeners: Vec::new(),
            supervisor: None,
            notification: None,
        }
    }
}

impl Builder {
    /// How many connections may wait to be accepted (listen(2); Linux caps it at
    /// `net.core.somaxconn`). Default 100.
    #[must_use]
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// How many programs may run at once; further requests wait for a slot. At least 1; default 100.
    /// Lowered, with a warning, to what `RLIMIT_NOFILE` allows.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// How many connections may be without a slot: their request is not complete, or waits, or their reply is
    /// still being read. If there are more, the user with the most of them loses one: a request that is not
    /// complete and has made no progress for a second, else the last one that waits, else a reply that is not
    /// read. At least 1; default 1000. Lowered to what `RLIMIT_NOFILE` leaves beside
    /// [`max_connections`](Self::max_connections), which is lowered itself so that 16 are left.
    #[must_use]
    pub fn max_waiting(mut self, connections: usize) -> Self {
        self.max_waiting = connections.max(1);
        self
    }

    /// How many programs one user may run at once, by the uid of the client. Further requests of that user
    /// wait, and others' pass them. If the system reports no uid, all clients are one user. At least 1.
    /// `None`: as many as there are slots. Default `None`.
    #[must_use]
    pub fn max_per_user(mut self, programs: Option<usize>) -> Self {
        self.max_per_user = programs.map(|programs| programs.max(1));
        self
    }

    /// Permission bits of the socket file, whatever the umask; bits beyond 0777 are ignored. Default 0660.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o777;
        self
    }

    /// Whether the socket takes the place of one on which another daemon may listen. It is made beside the
    /// path of [`bind`](Self::bind), and renamed when [`Daemon::run`] is called and all else has succeeded.
    /// The other daemon notices, accepts no more clients, and ends when its programs have ended. No client is
    /// refused or cut off. Default: no.
    #[must_use]
    pub fn replace(mut self, replace: bool) -> Self {
        self.replace = replace;
        self
    }

    /// The longest time from the accepted connection to the complete request; then the connection is closed.
    /// `None`, or longer than [`timeout`](Self::timeout): the same as that. Default 10 seconds.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The longest time from when a request has its slot to the end of its reply; then its program gets TERM. `None`: no limit. Default
    /// 60 seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// The time between TERM and KILL. Default 10 seconds.
    #[must_use]
    pub fn kill_timeout(mut self, timeout: Duration) -> Self {
        self.kill_timeout = timeout;
        self
    }

    /// How long after a program's exit its descendants may hold its output open. `None`: until the
    /// [`timeout`](Self::timeout). Default `None`.
    #[must_use]
    pub fn linger(mut self, linger: Option<Duration>) -> Self {
        self.linger = linger;
        self
    }

    /// How long everything that runs, waits for a slot or still arrives may go on after the order to end,
    /// before it is ended. 0: not at all. Default 0.
    #[must_use]
    pub fn drain(mut self, time: Duration) -> Self {
        self.drain = time;
        self
    }

    /// How many bytes of output are kept for a client that is still sending input and does not read. Beyond 1
    /// MiB they go to an unlinked file in `TMPDIR`, or `/var/tmp`. 0: none, and the program waits for the
    /// client. Default 1 GiB.
    #[must_use]
    pub fn spool(mut self, bytes: u64) -> Self {
        self.spool = bytes;
        self
    }

    /// How many bytes all spools together may take on disk; beyond that programs wait for their clients. A
    /// tenth of the file system stays free in any case. Default 4 GiB.
    #[must_use]
    pub fn spool_total(mut self, bytes: u64) -> Self {
        self.spool_total = bytes;
        self
    }

    /// How the signal that ended a program is reported to its client. Default: by its number.
    #[must_use]
    pub fn termsig(mut self, termsig: TermSig) -> Self {
        self.termsig = termsig;
        self
    }

    /// Whether TERM, INT and QUIT to this process shut the daemon down, HUP does so if the controlling
    /// terminal is gone, and USR1 and USR2 make it log its connections and descriptors ([`ALWAYS`]). What
    /// this process ignores when [`bind`](Self::bind) is called stays ignored. The handlers stay when the
    /// daemon is gone. Default: no.
    #[must_use]
    pub fn handle_signals(mut self, handle: bool) -> Self {
        self.signals = handle;
        self
    }

    /// The limit of descriptors (`RLIMIT_NOFILE`) for programs, if this process has another one:
    /// [`raise_descriptor_limit`] returns it. Linux only. `None`: that of this process. Default `None`.
    #[must_use]
    pub fn program_descriptors(mut self, limit: Option<DescriptorLimit>) -> Self {
        self.program_descriptors = limit;
        self
    }

    /// Makes the socket and listens on it, in addition to those that [others have made](Self::listener). If
    /// one of them has this path, it is used, and none is made. A stale socket is replaced; anything else
    /// that exists is left alone.
    ///
    /// # Errors
    /// [`BindError`] says what prevents it.
    pub fn bind(self, path: impl AsRef<Path>) -> Result<Daemon, BindError> {
        self.set_up(Some(path.as_ref()))
    }

    /// Makes a daemon with no socket of its own, which listens on those that [others have
    /// made](Self::listener).
    ///
    /// # Errors
    /// [`BindError`] says what prevents it. [`BindError::NoSocket`]: there is no such socket.
    pub fn build(self) -> Result<Daemon, BindError> {
        if self.listeners.is_empty() {
            return Err(BindError::NoSocket);
        }
        self.set_up(None)
    }

    fn set_up(self, path: Option<&Path>) -> Result<Daemon, BindError> {
        if process::sigchld_is_ignored() {
            return Err(BindError::ChildrenIgnored);
        }
        if let Some(user) = &self.user {
            if !user::may_change() {
                return Err(BindError::NotRoot);
            }
            // With `replace` it is too late after the rename: the other daemon may have noticed, and be about
            // to end.
            if let Some(why) = user.would_keep_rights() {
                return Err(BindError::Setup("cannot become another user", why));
            }
        }
        let limit = process::descriptor_limit();
        let taken = self.listeners.len() as u64 + u64::from(self.supervisor.is_some());
        let max_connections = self.allowed_connections(limit, taken)?;
        let limit = limit.map(|limit| limit.saturating_sub(taken));
        let setup = |what| move |error| BindError::Setup(what, error);
        let poll = Poll::new().map_err(setup("cannot set up the event loop"))?;
        let waker = Waker::new(poll.registry()).map_err(setup("cannot set up the event loop"))?;
        // Before HUP is handled: until then it ends the process.
        let had_terminal = self.signals && process::has_terminal();
        // Before the socket exists: anyone who sees it may send a signal.
        let signals = if self.signals {
            // A signal that the starter ignores stays unheard: nohup, a shell's job in the background.
            let heard = SIGNALS.iter().filter(|&&signal| !process::ignores(signal));
            Some(Signals::new(heard).map_err(setup("cannot handle signals"))?)
        } else {
            None
        };
        // Past RLIMIT_FSIZE a write to a spool's file raises XFSZ, which ends the process by default. It is
        // handled, not ignored: exec resets handlers only, and programs must have the default.
        if !process::ignores(SIGXFSZ) {
            signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(setup("cannot handle signals"))?;
        }
        for listener in &self.listeners {
            listener.prepare()?;
        }
        let own = match path {
            // A service manager has made it, and the unit names it twice.
            Some(path) if self.listeners.iter().any(|listener| listener.is_at(path)) => None,
            Some(path) => {
                let listen = if self.replace { listener::listen_beside } else { listener::listen };
                let making = Making { mode: self.mode, backlog: self.backlog, owner: self.owner };
                let (socket, file) = listen(path, making)?;
                Some(Own { file, socket })
            }
            None => None,
        };
        let spare =
            limit.map_or(u64::MAX, |limit| limit.saturating_sub(descriptors_for(max_connections, LEAST_WAITING)));
        // Not at the expense of those that are reserved for many connections.
        let watches = spare > 0 && spare != Spawner::RESERVED_DESCRIPTORS;
        let spare = spare - u64::from(watches);
        let for_waiting = limit.map(|limit| limit - u64::from(watches));
        let max_waiting = self.max_waiting.min(allowed_waiting(max_connections, for_waiting));
        Ok(Daemon {
            settings: Settings {
                limits: Limits {
                    request_timeout: self.request_timeout.into_iter().chain(self.timeout).min(),
                    timeout: self.timeout,
                    kill_timeout: self.kill_timeout,
                    linger: self.linger,
                    termsig: self.termsig,
                    window: window(max_connections),
                },
                drain: self.drain,
                spool: self.spool,
                spool_total: self.spool_total,
                max_connections,
                max_per_user: self.max_per_user.unwrap_or(usize::MAX),
                max_waiting,
                extra: (max_waiting / 8).clamp(EXTRA.0, EXTRA.1),
                spare_descriptors: spare,
                watches,
                program_descriptors: self.program_descriptors,
            },
            poll,
            had_terminal,
            signals,
            handle: Handle::new(waker),
            own,
            listeners: self.listeners,
            notifier: self.supervisor.and_then(Notifier::new),
            notification: self.notification,
            user: self.user,
        })
    }

    /// The number of programs that the limit of descriptors allows. `taken`: descriptors that the daemon
    /// needs for its starter, in addition to its own.
    fn allowed_connections(&self, limit: Option<u64>, taken: u64) -> Result<usize, BindError> {
        let Some(limit) = limit else { return Ok(self.max_connections) };
        let own = OWN_DESCRIPTORS + taken;
        let allowed = limit.saturating_sub(own + LEAST_WAITING * DESCRIPTORS_PER_WAITING) / DESCRIPTORS_PER_CONNECTION;
        // If so many cannot wait beside half as many programs, there are as few places as slots.
        let allowed = allowed.max(limit.saturating_sub(own) / (2 * DESCRIPTORS_PER_CONNECTION));
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
        if allowed == 0 {
            return Err(BindError::TooFewDescriptors(limit));
        }
        if allowed < self.max_connections {
            log::warn!(
                "a limit of {limit} descriptors (ulimit -n) allows {allowed} programs at once, not {}; \
                 {} would be needed",
                self.max_connections,
                descriptors_for(self.max_connections, LEAST_WAITING).saturating_add(taken),
            );
        }
        Ok(allowed.min(self.max_connections))
    }
}

/// The number of connections without a slot that the limit of descriptors allows beside so many programs.
fn allowed_waiting(max_connections: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return usize::MAX };
    let left = limit.saturating_sub(descriptors_for(max_connections, 0));
    // Nothing is reserved if that would leave less than the least.
    let reserved = Spawner::RESERVED_DESCRIPTORS;
    let left = left.saturating_sub(reserved).max(left.min(LEAST_WAITING * DESCRIPTORS_PER_WAITING));
    usize::try_from(left / DESCRIPTORS_PER_WAITING).unwrap_or(usize::MAX).max(1)
}

/// How much input may be held for each of so many programs, in bytes: `docs/protocol.md`, "The window".
fn window(max_connections: usize) -> u64 {
    (WINDOWS / max_connections as u64).clamp(reply::MIN_WINDOW, MAX_WINDOW)
}

/// How many descriptors the daemon needs for this many programs, and this many connections without a slot.
fn descriptors_for(programs: usize, waiting: u64) -> u64 {
    let programs = (programs as u64).saturating_mul(DESCRIPTORS_PER_CONNECTION);
    programs.saturating_add(OWN_DESCRIPTORS + waiting * DESCRIPTORS_PER_WAITING)
}

/// The settings of the event loop.
#[derive(Debug, Clone, Copy)]
struct Settings {
    limits: Limits,
    drain: Duration,
    spool: u64,
    spool_total: u64,
    max_connections: usize,
    /// How many of those one user may have.
    max_per_user: usize,
    max_waiting: usize,
    /// How many connections may exceed that for a moment; as many may have lost their place without being
    /// gone yet.
    extra: usize,
    /// How many more descriptors the limit allows than that many programs, and the fewest connections without
    /// a slot, need.
    spare_descriptors: u64,
    /// One of the descriptors that the limit allows is for the watch over the socket file.
    watches: bool,
    program_descriptors: Option<DescriptorLimit>,
}

/// A daemon that listens, and serves once it is [run](Daemon::run).
///
/// Dropping it removes and closes the socket.
#[must_use = "nobody is served before `run`"]
pub struct Daemon {
    settings: Settings,
    poll: Poll,
    signals: Option<Signals>,
    /// This process had a controlling terminal, whose loss HUP may report.
    had_terminal: bool,
    handle: Handle,
    own: Option<Own>,
    listeners: Vec<Listener>,
    notifier: Option<Notifier>,
    notification: Option<Arc<OwnedFd>>,
    user: Option<User>,
}

/// A socket of the daemon's own.
struct Own {
    /// Before the socket, so that the name goes first: while the socket is open nobody takes it for stale,
    /// and no other file gets the number of its inode.
    file: listener::SocketFile,
    socket: OwnedFd,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("settings", &self.settings).field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Daemon {
    /// The settings, with the defaults of sockexec 3.1.1.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The path of its own socket; `None`: it has none, and serves those that [others have
    /// made](Builder::listener).
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.own.as_ref().map(|own| own.file.path())
    }

    /// A handle that gives orders to the daemon from another thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves clients until it is told to shut down and the last program has ended.
    ///
    /// # Errors
    /// Only if the event loop itself cannot go on, if with [`Builder::replace`] the socket cannot take its
    /// place (the error contains a [`BindError`]), or if the process cannot become the user of
    /// [`Builder::user`]. An error of one connection ends that one only.
    pub fn run(self) -> io::Result<()> {
        event_loop::EventLoop::new(self)?.run()
    }
}

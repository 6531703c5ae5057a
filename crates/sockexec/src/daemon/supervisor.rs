//! Notifies a service manager: `sd_notify(3)`, and the newline of s6.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::Builder;
use crate::engine::Time;

/// The shortest time between two reports of the number of running programs.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// How soon to send again what could not be sent.
const RETRY: Duration = Duration::from_millis(100);

/// The interval of the watchdog is divided into this many parts while its message cannot be delivered.
const WATCHDOG_RETRIES: u32 = 8;

/// At most this many messages about a change wait for a service manager that does not read; the oldest goes
/// first. Others are not kept.
const MAX_PENDING: usize = 16;

/// A service manager that wants to know the daemon's state: `NOTIFY_SOCKET` of `sd_notify(3)`, and
/// `WATCHDOG_USEC` of
/// `sd_watchdog_enabled(3)`.
#[derive(Debug, Clone)]
pub struct Supervisor {
    address: OsString,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one that the environment names, if any.
    ///
    /// Call this before [`leave_init`](super::leave_init), as `WATCHDOG_PID` is the pid of the process before
    /// that. Programs do not see these variables.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        let address = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())?;
        let watchdog = sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero());
        Some(Self { address, watchdog })
    }
}

impl Builder {
    /// Tells this service manager when the daemon serves (`READY=1`), reloads and stops, how many programs
    /// run (`STATUS=`, at most once a second), and, if the manager asks for it, that the loop is not stuck
    /// (`WATCHDOG=1`, in half of the time that it allows). Default `None`.
    #[must_use]
    pub fn supervisor(mut self, supervisor: Option<Supervisor>) -> Self {
        self.supervisor = supervisor;
        self
    }

    /// Writes a newline to this descriptor when the daemon serves, and then closes it, as s6 expects. Default
    /// `None`.
    #[must_use]
    pub fn notification(mut self, descriptor: Option<OwnedFd>) -> Self {
        self.notification = descriptor.map(Arc::new);
        self
    }
}

/// Writes the newline that reports that the daemon serves.
pub(super) fn write_newline(descriptor: Arc<OwnedFd>) {
    let written = descriptor.try_clone().map(std::fs::File::from).and_then(|mut file| file.write_all(b"\n"));
    if let Err(error) = written {
        log::warn!("cannot write to the notification descriptor: {error}");
    }
    drop(descriptor);
}

/// What the manager is told in addition to start and stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) running: usize,
    pub(super) slots: usize,
    pub(super) waiting: usize,
}

/// Notifies the service manager. Nothing here waits: if the manager does not read, news of a change is kept
/// and sent later.
///
/// So the messages are sent here and not by `sd_notify::notify`. That would wait for a manager that is
/// stopped, and the daemon with it, once ten messages are in its queue (`net.unix.max_dgram_qlen`).
#[derive(Debug)]
pub(super) struct Notifier {
    address: OsString,
    socket: UnixDatagram,
    pending: VecDeque<String>,
    retry_at: Option<Time>,
    /// The daemon serves, and has said so.
    ready: bool,
    stopping: bool,
    told: Option<Counts>,
    status_at: Time,
    /// How often to report that the loop turns, and when next.
    watchdog: Option<(Duration, Time)>,
}

impl Notifier {
    /// `None`, with a warning: it cannot be reached.
    pub(super) fn new(supervisor: Supervisor) -> Option<Self> {
        let Supervisor { address, watchdog } = supervisor;
        match connect(&address) {
            Ok(socket) => Some(Self {
                address,
                socket,
                pending: VecDeque::new(),
                retry_at: None,
                ready: false,
                stopping: false,
                told: None,
                status_at: Time::ZERO,
                // A manager that asks for more than that asks for a loop that does nothing else.
                watchdog: watchdog.map(|interval| ((interval / 2).max(Duration::from_millis(1)), Time::ZERO)),
            }),
            Err(error) => {
                log::warn!("cannot reach the service manager: NOTIFY_SOCKET={}: {error}", address.display());
                None
            }
        }
    }

    /// The daemon serves. Not sent once it is about to end.
    pub(super) fn ready(&mut self, now: Time, counts: Counts) {
        if self.stopping {
            return;
        }
        self.ready = true;
        self.told = Some(counts);
        self.status_at = now + STATUS_INTERVAL;
        self.tell(now, &[NotifyState::Ready, NotifyState::Status(&self.status(counts))]);
    }

    /// The daemon reloads, and [serves](Self::ready) when that is done.
    pub(super) fn reloading(&mut self, now: Time) {
        if self.stopping {
            return;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(moment) => self.tell(now, &[NotifyState::Reloading, moment]),
            Err(error) => log::debug!("no clock for RELOADING=1: {error}"),
        }
    }

    /// The daemon is about to end; reported once.
    pub(super) fn stopping(&mut self, now: Time) {
        if !std::mem::replace(&mut self.stopping, true) {
            // The text of the status has changed.
            self.told = None;
            self.tell(now, &[NotifyState::Stopping]);
        }
    }

    /// Sends what is due at `now`.
    pub(super) fn turn(&mut self, now: Time, counts: Counts) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.flush(now);
        }
        if let Some((interval, due)) = self.watchdog
            && due <= now
        {
            // All services share the manager's queue, which may be full at this moment. After another
            // interval the manager's time would be up, and it would kill a healthy daemon.
            let wait = if self.mention(&[NotifyState::Watchdog]) { interval } else { interval / WATCHDOG_RETRIES };
            self.watchdog = Some((interval, now + wait));
        }
        if self.ready && self.told != Some(counts) && self.status_at <= now {
            self.status_at = now + STATUS_INTERVAL;
            if self.mention(&[NotifyState::Status(&self.status(counts))]) {
                self.told = Some(counts);
            }
        }
    }

    /// When [`Notifier::turn`] has something to send, unless something changes before.
    pub(super) fn due(&self, counts: Counts) -> Option<Time> {
        let status = (self.ready && self.told != Some(counts)).then_some(self.status_at);
        let watchdog = self.watchdog.map(|(_, due)| due);
        status.into_iter().chain(watchdog).chain(self.retry_at).min()
    }

    fn status(&self, Counts { running, slots, waiting }: Counts) -> String {
        let phase = if self.stopping { "stopping: " } else { "" };
        format!("{phase}running: {running} of {slots}, waiting: {waiting}")
    }

    /// Reports a change, now or later.
    fn tell(&mut self, now: Time, states: &[NotifyState<'_>]) {
        if self.pending.len() >= MAX_PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back(message(states));
        self.flush(now);
    }

    /// Sends something that will be sent again, unless it would have to wait; false: it would.
    fn mention(&self, states: &[NotifyState<'_>]) -> bool {
        self.pending.is_empty() && self.send(&message(states)).is_ok()
    }

    fn flush(&mut self, now: Time) {
        while let Some(first) = self.pending.front() {
            match self.send(first) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.retry_at = Some(now + RETRY);
                    return;
                }
                Err(error) => log::debug!("cannot notify the service manager: {error}"),
                Ok(()) => {}
            }
            self.pending.pop_front();
        }
    }

    fn send(&self, message: &str) -> io::Result<()> {
        match self.socket.send(message.as_bytes()) {
            // The manager has made its socket anew.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotConnected) => {
                connect_to(&self.socket, &self.address)?;
                self.socket.send(message.as_bytes()).map(drop)
            }
            sent => sent.map(drop),
        }
    }
}

fn message(states: &[NotifyState<'_>]) -> String {
    states.iter().fold(String::new(), |lines, state| lines + &state.to_string() + "\n")
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    connect_to(&socket, address)?;
    Ok(socket)
}

/// Connects to a path or, after an `@`, to an abstract name.
fn connect_to(socket: &UnixDatagram, address: &OsStr) -> io::Result<()> {
    match address.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt as _;
            socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)
        }
        [b'/', ..] => socket.connect(address),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "unknown kind of address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The manager kills the daemon after twice the interval. Its queue was full at the one moment in which the
    /// daemon reported that it is well, and the next report came when the time was up.
    #[test]
    fn the_watchdog_is_fed_when_the_queue_was_full() {
        let directory = tempfile::tempdir().unwrap();
        let address = directory.path().join("notify");
        let manager = UnixDatagram::bind(&address).unwrap();
        manager.set_nonblocking(true).unwrap();
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        let interval = Duration::from_secs(8);
        let watchdog = Some(2 * interval);
        let mut notifier = Notifier::new(Supervisor { address: address.clone().into(), watchdog }).unwrap();
        let counts = Counts { running: 0, slots: 1, waiting: 0 };
        let mut buffer = [0; 100];
        let mut hear = || manager.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned());
        notifier.turn(Time::ZERO, counts);
        assert_eq!((hear().as_deref(), notifier.due(counts)), (Some("WATCHDOG=1\n"), Some(Time::ZERO + interval)));
        while other.send_to(b"another service", &address).is_ok() {}
        let now = Time::ZERO + interval;
        notifier.turn(now, counts);
        while hear().is_some() {}
        let due = notifier.due(counts).unwrap();
        assert!(due <= now + interval / 2, "{due:?}");
        notifier.turn(due, counts);
        assert_eq!((hear().as_deref(), notifier.due(counts)), (Some("WATCHDOG=1\n"), Some(due + interval)));
    }
}

//! Checks that the socket file is still where it was made, and acts if it is not.

use std::time::Duration;

use mio::net::UnixListener;
use mio::unix::SourceFd;
use mio::{Interest, Registry};

use super::listener::{BindError, Place, SocketFile};
use super::token;
use crate::engine::Time;
use crate::sys;

/// How often to check the path: in turns of the loop that happen anyway, and by itself while the place is
/// lost. Nothing else reports a directory that is renamed or made again.
const LOOK: Duration = Duration::from_secs(1);

/// The same while another process is at work in the directory, and how long to wait for it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the backlog of a socket that has lost its name must be empty before it is closed: a client may
/// have looked the name up before, and connect only now.
const QUIET: Duration = Duration::from_secs(1);

/// It is closed after this time in any case.
const LONGEST: Duration = Duration::from_secs(10);

/// Watches the place of the socket file.
#[derive(Debug)]
pub(crate) struct Guard {
    /// None: there is no watch, and the path must be checked.
    watch: Option<sys::watch::Watch>,
    /// The watched file has another name now.
    moved: bool,
    /// When to look again.
    due: Time,
    lost: Option<Lost>,
}

/// The file is gone, and no other has been made yet.
#[derive(Debug)]
struct Lost {
    since: Time,
    /// The last message, so that it is logged once.
    told: String,
}

/// What has changed about the place.
#[derive(Debug)]
pub(crate) enum News {
    Nothing,
    /// Another socket is at the path, made by this daemon. `moved`: the one before has another name.
    Made {
        socket: UnixListener,
        file: SocketFile,
        moved: bool,
    },
    /// The former socket is there again.
    Back,
    /// Another daemon has taken over.
    TakenOver,
}

impl Guard {
    /// `watches`: whether a descriptor may be used for it.
    pub(crate) fn new(registry: &Registry, file: &SocketFile, watches: bool) -> Self {
        let watch = if watches { sys::watch::Watch::new() } else { Err(std::io::ErrorKind::Unsupported.into()) };
        let watch = watch.and_then(|watch| {
            if let Some(descriptor) = watch.descriptor() {
                registry.register(&mut SourceFd(&descriptor), token::PLACE, Interest::READABLE)?;
            }
            Ok(watch)
        });
        if let Err(error) = &watch {
            log::debug!("no watch reports when {} loses its place: {error}", file.path().display());
        }
        let mut guard = Self { watch: watch.ok(), moved: false, due: Time::ZERO, lost: None };
        guard.watch(file);
        guard
    }

    /// Watches this file from now on.
    pub(crate) fn watch(&mut self, file: &SocketFile) {
        self.moved = false;
        if let Some(watch) = &mut self.watch
            && let Err(error) = watch.watch(file.location())
        {
            // It may be gone already; the next look shows that.
            log::debug!("cannot watch {}: {error}", file.path().display());
        }
    }

    /// The watched file was moved to its place, which is no news.
    ///
    /// It is watched before that. Otherwise a successor that comes between the two would be watched instead,
    /// and never be noticed.
    pub(crate) fn settle(&mut self) {
        self.note();
        self.moved = false;
    }

    /// The watch has news; a look shows what it is.
    pub(crate) fn note(&mut self) {
        self.moved |= self.watch.as_ref().is_some_and(sys::watch::Watch::was_moved);
        self.due = Time::ZERO;
    }

    /// When to look, whatever else happens.
    pub(crate) fn next_look(&self) -> Option<Time> {
        self.lost.as_ref().map(|_| self.due)
    }

    /// Checks the place of `file`, if it is time to. `former`: the file of the socket before, which is still
    /// served.
    pub(crate) fn look(
        &mut self,
        registry: &Registry,
        now: Time,
        file: &SocketFile,
        former: Option<&SocketFile>,
    ) -> News {
        if self.due > now {
            return News::Nothing;
        }
        self.due = now + LOOK;
        match file.place() {
            Place::Kept => {
                if self.lost.take().is_some() {
                    log::warn!("{}: the socket is back", file.path().display());
                }
                News::Nothing
            }
            // It has replaced the one that was made meanwhile.
            Place::Other(found) if former.is_some_and(|former| former.identity() == Some(found)) => {
                log::warn!("{}: the former socket is back", file.path().display());
                self.lost = None;
                News::Back
            }
            place @ (Place::Empty | Place::Other(_)) => self.take_back(registry, now, file, place != Place::Empty),
        }
    }

    /// Makes another socket, if possible. `other`: something is there.
    fn take_back(&mut self, registry: &Registry, now: Time, file: &SocketFile, other: bool) -> News {
        let path = file.path().display();
        let insists = self.lost.as_ref().is_some_and(|lost| lost.since + PATIENCE <= now);
        match file.listen_again(insists) {
            Ok(Some((socket, file))) => {
                let mut socket = UnixListener::from_std(socket.into());
                // Before it is watched: removing the file again would be an event, and the next attempt.
                if let Err(error) = registry.register(&mut socket, token::LISTENER, Interest::READABLE) {
                    return self.complain(
                        now,
                        LOOK,
                        format!("{path}: the socket is gone, and no other can be set up: {error}"),
                    );
                }
                log::warn!("{path}: the socket was gone; listening there again");
                self.lost = None;
                let moved = self.moved;
                self.watch(&file);
                News::Made { socket, file, moved }
            }
            Ok(None) => self.complain(
                now,
                LOOK_AGAIN,
                format!("{path}: the socket is gone, and another process is at work there"),
            ),
            Err(BindError::InUse(_)) => {
                log::warn!("{path}: another daemon listens there now; this one ends when its clients are served");
                News::TakenOver
            }
            // This daemon has become another user (`--user`), and the successor is root's. It could neither
            // reach nor remove what is there.
            Err(BindError::Unknown(_, error)) if other && error.kind() == std::io::ErrorKind::PermissionDenied => {
                log::warn!(
                    "{path}: another socket is there, which this daemon may not connect to; another daemon is assumed to listen there, \
                     and this one ends when its clients are served"
                );
                News::TakenOver
            }
            Err(error) => self.complain(now, LOOK, format!("the socket is gone: {error}")),
        }
    }

    /// It failed now, but may succeed in the time of `again`.
    fn complain(&mut self, now: Time, again: Duration, words: String) -> News {
        self.due = now + again;
        let lost = self.lost.get_or_insert(Lost { since: now, told: String::new() });
        if lost.told != words {
            log::warn!("{words}");
            lost.told = words;
        }
        News::Nothing
    }
}

/// A listening socket that has lost its place. Clients that have found it before are served, and then it is
/// closed. One that was moved stays, as clients find it by its other name.
///
/// Rejected: to accept until EAGAIN and close, which would reset clients that connect in between; and to shut
/// it down first, which would refuse those that have just looked up its name. So it is closed when nobody has
/// come for a while.
#[derive(Debug)]
pub(crate) struct Retiring {
    /// Before the socket: see [`super::Daemon`].
    pub(crate) file: SocketFile,
    pub(crate) socket: UnixListener,
    /// Somebody may be waiting: accept has not shown otherwise since the last event.
    pub(crate) ready: bool,
    empty_since: Option<Time>,
    /// None: it stays open.
    give_up: Option<Time>,
}

impl Retiring {
    pub(crate) fn new(file: SocketFile, socket: UnixListener, stays: bool, now: Time) -> Self {
        let give_up = if stays { None } else { Some(now + LONGEST) };
        Self { file, socket, ready: true, empty_since: None, give_up }
    }

    /// Somebody has come.
    pub(crate) fn accepted(&mut self) {
        self.empty_since = None;
    }

    /// Nobody waits.
    pub(crate) fn is_empty(&mut self, now: Time) {
        self.ready = false;
        self.empty_since.get_or_insert(now);
    }

    /// When to close it, unless somebody comes before.
    pub(crate) fn close_at(&self) -> Option<Time> {
        let give_up = self.give_up?;
        Some(self.empty_since.map_or(give_up, |since| give_up.min(since + QUIET)))
    }
}

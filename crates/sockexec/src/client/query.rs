//! Questions to a daemon: whether it serves, and what it does.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use sockexec_proto::reply::Event;
use sockexec_proto::{ReplyDecoder, Version, netstring, request};

use super::waiting::{Observer, Patience, Waiting};
use super::wire::OPENING;
use super::{Error, socket};

/// The longest reply, in bytes: that of some thousand connections. Anything longer is no status.
const MAX_STATUS: usize = 64 << 20;

/// Asks the daemon that listens on `path` whether it serves. This needs version 2 of the protocol, and no
/// slot. Waits no longer than `timeout`.
///
/// # Errors
/// [`Error::Connect`]: no daemon listens there. [`Error::NoAnswer`]: it does not answer in time, and how far
/// it came. [`Error::Unsupported`], [`Error::Protocol`] and [`Error::Lost`]: it answers something else, or
/// closes the connection; so does a daemon without version 2. [`Error::Failed`]: it refuses. [`Error::Io`]: a
/// local resource could not be obtained. [`Error::InvalidOption`]: `timeout` is zero.
pub fn ping(path: impl AsRef<Path>, timeout: Duration) -> Result<(), Error> {
    let reply = ask(path.as_ref(), timeout, &encoded(request::encode_ping))?;
    read(&reply).map(drop)
}

/// Asks the daemon that listens on `path` for its status: JSON, as `docs/protocol.md` describes it
/// (`status`). Waits no longer than `timeout` for a daemon that is busy, or that does not know version 2 of
/// the protocol.
///
/// # Errors
/// As [`ping`].
pub fn daemon_status(path: impl AsRef<Path>, timeout: Duration) -> Result<String, Error> {
    status(&ask(path.as_ref(), timeout, &encoded(request::encode_status))?)
}

/// Until when an answer is waited for; `None`: the clock does not reach so far.
///
/// # Errors
/// No time at all is refused, as by [`Command`](super::Command).
pub(super) fn limits(timeout: Duration) -> Result<(Option<Instant>, Patience), Error> {
    if timeout.is_zero() {
        return Err(Error::InvalidOption("the time to wait for an answer is zero; give a longer one"));
    }
    Ok((Instant::now().checked_add(timeout), Patience::new(Some(timeout), None, &Observer::default())))
}

pub(super) fn encoded(question: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    question(&mut bytes);
    bytes
}

/// The status in a whole reply.
pub(super) fn status(reply: &[u8]) -> Result<String, Error> {
    let status = read(reply)?;
    if status.is_empty() {
        return Err(Error::Lost { received: reply.len() as u64, within_pair: false, source: None, output: None });
    }
    Ok(String::from_utf8_lossy(&status).into_owned())
}

/// Sends the question, ends the sending, and returns the whole reply.
fn ask(path: &Path, timeout: Duration, question: &[u8]) -> Result<Vec<u8>, Error> {
    let (deadline, mut patience) = limits(timeout)?;
    let socket = socket::connect(path, &mut patience).map_err(unconnected)?;
    let mut reply = Vec::new();
    let exchanged = exchange(&socket, deadline, question, &mut reply);
    answer(exchanged, reply, &socket)
}

/// Why there is no connection to ask on.
pub(super) fn unconnected(error: Error) -> Error {
    match error {
        // The backlog has no room for it.
        Error::TimedOut { .. } => Error::NoAnswer(Waiting::Connection),
        error => error,
    }
}

/// The whole reply, after an exchange with this result.
pub(super) fn answer(exchanged: io::Result<()>, reply: Vec<u8>, socket: impl AsFd) -> Result<Vec<u8>, Error> {
    match exchanged {
        // Linux reports this after all that was sent, if the daemon has left some of the question unread.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Ok(reply),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            let read = if reply.is_empty() { socket::was_read(socket) } else { Some(true) };
            Err(Error::NoAnswer(Waiting::Answer { read }))
        }
        Err(error) => Err(Error::Io("cannot ask the daemon", error)),
        Ok(()) => Ok(reply),
    }
}

/// Sends the question and ends the sending. It is far smaller than what a new connection holds, so this does not wait.
pub(super) fn put(mut socket: &UnixStream, question: &[u8]) -> io::Result<()> {
    socket.write_all(question)?;
    socket.shutdown(Shutdown::Write)
}

fn exchange(
    mut socket: &UnixStream,
    deadline: Option<Instant>,
    question: &[u8],
    reply: &mut Vec<u8>,
) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    put(socket, question)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(left)?;
        match socket.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => reply.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        check_length(reply)?;
    }
}

pub(super) fn check_length(reply: &[u8]) -> io::Result<()> {
    if reply.len() > MAX_STATUS {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the reply is too long for a status"));
    }
    Ok(())
}

/// The status in a whole reply; empty without one.
pub(super) fn read(reply: &[u8]) -> Result<Vec<u8>, Error> {
    let mut decoder = ReplyDecoder::of(Version::Two);
    let mut used = 0;
    let mut status = Vec::new();
    loop {
        let (n, event) = decoder.next(reply.get(used..).unwrap_or_default())?;
        used += n;
        let rest = reply.get(used..).unwrap_or_default();
        match event {
            Event::NeedMore => break,
            Event::Introduction(introduction) if introduction.version < 2 => return Err(Error::Unsupported),
            Event::Failure(failure) if reply.starts_with(OPENING) => {
                return Err(Error::Failed { failure, status: None, usage: None, output: None });
            }
            Event::Status(len) | Event::Unknown(len) | Event::Output(_, len) => {
                let piece = rest.get(..netstring::at_most(rest.len(), len)).unwrap_or_default();
                if piece.is_empty() {
                    break;
                }
                if matches!(event, Event::Status(_)) {
                    status.extend_from_slice(piece);
                }
                decoder.advance(piece.len() as u64);
                used += piece.len();
            }
            Event::Introduction(_)
            | Event::Queued(_)
            | Event::Taken(_)
            | Event::InputClosed
            | Event::Started(_)
            | Event::EndOfOutput(_)
            | Event::Failure(_)
            | Event::Exit(_)
            | Event::Usage(_) => {}
        }
    }
    // A daemon that does not know version 2 answers that this is no request.
    if !reply.is_empty() && !reply.starts_with(OPENING) {
        return Err(Error::Unsupported);
    }
    let within_pair = !decoder.at_boundary();
    if reply.is_empty() || within_pair {
        return Err(Error::Lost { received: reply.len() as u64, within_pair, source: None, output: None });
    }
    Ok(status)
}

//! What a daemon tells of itself.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use sockexec_proto::reply::Event;
use sockexec_proto::{ReplyDecoder, Version, netstring, request};

use super::{Error, socket};

/// The longest that a reply may be, in bytes: some thousand connections. More is no status.
const MAX_STATUS: usize = 64 << 20;

/// Asks the daemon that listens on `path` about itself: its JSON, as `docs/protocol.md` describes it (`status`). Waits no longer than `timeout`,
/// for a daemon that is busy, or that does not know version 2 of the protocol.
///
/// # Errors
/// [`Error::TimedOut`], also of a daemon without version 2 that says nothing, as 3.1.1 does; [`Error::Unsupported`] of one that says so;
/// [`Error::Connect`], [`Error::Protocol`], [`Error::Lost`], [`Error::Io`].
pub fn daemon_status(path: impl AsRef<Path>, timeout: Duration) -> Result<String, Error> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => Error::TimedOut,
        _ => Error::Io("cannot ask the daemon", error),
    };
    let deadline = Instant::now().checked_add(timeout);
    let mut socket = socket::connect(path.as_ref(), deadline)?;
    socket.set_nonblocking(false).map_err(failed)?;
    let mut question = Vec::new();
    request::encode_status(&mut question);
    socket.write_all(&question).map_err(failed)?;
    let mut reply = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Error::TimedOut);
        }
        socket.set_read_timeout(left).map_err(failed)?;
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => reply.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(failed(error)),
        }
        if reply.len() > MAX_STATUS {
            return Err(Error::Io("the daemon's status has no end", std::io::ErrorKind::InvalidData.into()));
        }
    }
    read(&reply)
}

fn read(reply: &[u8]) -> Result<String, Error> {
    let mut decoder = ReplyDecoder::of(Version::Two);
    let mut used = 0;
    let mut status = Vec::new();
    loop {
        let (n, event) = decoder.next(reply.get(used..).unwrap_or_default())?;
        used += n;
        let rest = reply.get(used..).unwrap_or_default();
        match event {
            Event::Status(len) => {
                let piece = rest.get(..netstring::at_most(rest.len(), len)).unwrap_or_default();
                status.extend_from_slice(piece);
                decoder.advance(piece.len() as u64);
                used += piece.len();
                if piece.is_empty() {
                    break;
                }
            }
            Event::Failure(failure) => return Err(Error::Failed { failure, status: None, usage: None }),
            // Of version 1, that the request is none.
            Event::Output(..) | Event::Exit(_) => return Err(Error::Unsupported),
            Event::Unknown(len) => {
                let n = netstring::at_most(rest.len(), len);
                decoder.advance(n as u64);
                used += n;
                if n == 0 {
                    break;
                }
            }
            Event::NeedMore => break,
            Event::Introduction(_)
            | Event::Queued(_)
            | Event::Taken(_)
            | Event::InputClosed
            | Event::Started(_)
            | Event::EndOfOutput(_)
            | Event::Usage(_) => {}
        }
    }
    let within_pair = !decoder.at_boundary();
    if status.is_empty() || within_pair {
        return Err(Error::Lost { received: reply.len() as u64, within_pair, source: None });
    }
    Ok(String::from_utf8_lossy(&status).into_owned())
}

//! Questions to a daemon, as in [`sockexec::client`](crate::client).

use std::io;
use std::path::Path;
use std::time::Duration;

use sockexec_proto::request;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::time::timeout_at;

use super::connect;
use crate::client::{Error, query};

/// As [`sockexec::client::ping`](crate::client::ping).
///
/// # Errors
/// As there.
pub async fn ping(path: impl AsRef<Path>, timeout: Duration) -> Result<(), Error> {
    let reply = ask(path.as_ref(), timeout, &query::encoded(request::encode_ping)).await?;
    query::read(&reply).map(drop)
}

/// As [`sockexec::client::daemon_status`](crate::client::daemon_status).
///
/// # Errors
/// As there.
pub async fn daemon_status(path: impl AsRef<Path>, timeout: Duration) -> Result<String, Error> {
    query::status(&ask(path.as_ref(), timeout, &query::encoded(request::encode_status)).await?)
}

async fn ask(path: &Path, timeout: Duration, question: &[u8]) -> Result<Vec<u8>, Error> {
    let (deadline, mut patience) = query::limits(timeout)?;
    let socket = connect(path, &mut patience).await.map_err(query::unconnected)?;
    // Not by tokio, which writes only once its reactor has had a turn: with a short time the daemon would seem to have read a question that
    // was never sent.
    let sent = query::put(&socket, question);
    let mut socket = UnixStream::from_std(socket).map_err(|error| Error::Io("cannot set up the connection", error))?;
    let mut reply = Vec::new();
    let exchange = async {
        sent?;
        read(&mut socket, &mut reply).await
    };
    let exchanged = match deadline {
        Some(deadline) => timeout_at(deadline.into(), exchange).await.unwrap_or(Err(io::ErrorKind::TimedOut.into())),
        None => exchange.await,
    };
    query::answer(exchanged, reply, &socket)
}

async fn read(socket: &mut UnixStream, reply: &mut Vec<u8>) -> io::Result<()> {
    while socket.read_buf(reply).await? > 0 {
        query::check_length(reply)?;
    }
    Ok(())
}

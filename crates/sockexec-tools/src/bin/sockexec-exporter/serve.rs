//! The listening socket, and its connections.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sockexec_tools::{PATIENCE, complain};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::NAME;
use crate::answer::answer;

/// Connections at a time. Others wait in the kernel's queue. Prometheus needs one.
const CONNECTIONS: usize = 64;

/// How long a connection may last: the daemon's time, and as much for a slow client.
const LIFETIME: Duration = PATIENCE.saturating_mul(2);

/// The smallest buffer that hyper allows. It also limits the head of a request: a longer one is answered with 431.
const BUFFER: usize = 8 << 10;

/// How long to wait if there is no descriptor for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// How many aborted connections in a row need no pause.
const MOST_IN_VAIN: usize = 16;

/// Serves until INT or TERM.
///
/// # Errors
/// A message for the user if it cannot listen there, or cannot catch signals.
pub(crate) async fn serve(address: SocketAddr, socket: PathBuf) -> Result<(), String> {
    let caught = |kind| signal(kind).map_err(|error| format!("cannot catch signals: {error}"));
    let (mut interrupt, mut terminate) = (caught(SignalKind::interrupt())?, caught(SignalKind::terminate())?);
    let listen = |error: io::Error| format!("cannot listen on {address}: {error}");
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    complain(NAME, format_args!("listening on http://{address}/metrics"));
    let (socket, places) = (Arc::new(socket), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            (stream, place) = accept(&listener, &places) => {
                tokio::spawn(connection(stream, Arc::clone(&socket), place));
            }
        }
    }
}

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The only error is a closed semaphore, and nothing closes it.
    let place = Arc::clone(places).acquire_owned().await.ok();
    let mut in_vain = 0;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            // A connection that was aborted before needs no pause. Without a descriptor the loop would spin, and so it
            // would where a filter of system calls says this for ever.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted && in_vain < MOST_IN_VAIN => in_vain += 1,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Serves one request. An error is the client's or the network's, and ends only this connection.
async fn connection(stream: TcpStream, socket: Arc<PathBuf>, _place: Option<OwnedSemaphorePermit>) {
    let service = service_fn(|request| answer(request, &socket));
    // One request each: a connection that is kept alive would hold a place between two scrapes.
    let mut server = http1::Builder::new();
    server.keep_alive(false).half_close(true).max_buf_size(BUFFER);
    let _ = timeout(LIFETIME, server.serve_connection(TokioIo::new(stream), service)).await;
}

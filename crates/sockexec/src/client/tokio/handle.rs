//! Acts on a program while another task waits for it.

use tokio::sync::oneshot;

use crate::client::child::{ChildHandle as Blocking, SIGNAL_PATIENCE};
use crate::client::orders::Tell;
use crate::client::{Error, Signal, WindowSize};

/// Acts on a program from another task while [`Child::wait`](super::Child::wait) has the
/// [`Child`](super::Child), as [`sockexec::ChildHandle`](crate::ChildHandle).
#[derive(Debug, Clone)]
pub struct ChildHandle(Blocking);

impl From<Blocking> for ChildHandle {
    fn from(handle: Blocking) -> Self {
        Self(handle)
    }
}

impl ChildHandle {
    /// As [`sockexec::Child::signal`](crate::Child::signal).
    ///
    /// # Errors
    /// As there.
    pub async fn signal(&self, signal: impl Into<Signal>) -> Result<(), Error> {
        self::signal(&self.0, signal.into()).await
    }

    /// As [`sockexec::Child::resize`](crate::Child::resize).
    ///
    /// # Errors
    /// As there.
    pub fn resize(&self, size: WindowSize) -> Result<(), Error> {
        self.0.resize(size)
    }

    /// As [`sockexec::Child::kill`](crate::Child::kill), without waiting for the end.
    ///
    /// # Errors
    /// As there.
    pub fn start_kill(&self) -> Result<(), Error> {
        self.0.kill()
    }

    /// As [`sockexec::Child::disconnect`](crate::Child::disconnect).
    pub fn disconnect(&self) {
        self.0.disconnect();
    }
}

pub(super) async fn signal(program: &Blocking, signal: Signal) -> Result<(), Error> {
    let (sent, was_sent) = oneshot::channel();
    program.send_signal(signal, Tell::new(move |()| sent.send(())))?;
    match tokio::time::timeout(SIGNAL_PATIENCE, was_sent).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Error::NotDelivered { ended: true }),
        Err(_) => Err(Error::NotDelivered { ended: false }),
    }
}

//! Wakes the event loop from another thread.

use std::io::{self, ErrorKind, Write as _};

use mio::unix::pipe;
use mio::{Interest, Registry};

use super::token;

/// An event of the loop's own.
#[derive(Debug)]
pub(super) enum Waker {
    Event(mio::Waker),
    /// Used if a filter of system calls refuses eventfd(2). Nobody reads from it: each byte is an event.
    Pipe(pipe::Sender, #[expect(dead_code, reason = "held open for the other end")] pipe::Receiver),
}

impl Waker {
    /// # Errors
    /// The system has no descriptor or no memory left.
    pub(super) fn new(registry: &Registry) -> io::Result<Self> {
        match mio::Waker::new(registry, token::HANDLE) {
            Ok(waker) => Ok(Self::Event(waker)),
            Err(error) => {
                log::debug!("no event descriptor ({error}): a pipe takes its place");
                Self::pipe(registry)
            }
        }
    }

    fn pipe(registry: &Registry) -> io::Result<Self> {
        let (sender, mut receiver) = pipe::new()?;
        registry.register(&mut receiver, token::HANDLE, Interest::READABLE)?;
        Ok(Self::Pipe(sender, receiver))
    }

    /// # Errors
    /// Those of write(2), except a full pipe: then it was woken often enough.
    pub(super) fn wake(&self) -> io::Result<()> {
        match self {
            Self::Event(waker) => waker.wake(),
            Self::Pipe(sender, _) => match (&*sender).write(&[0]) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use mio::{Events, Poll};

    use super::*;

    /// Nobody reads the pipe, so each wake-up has to be an event by itself.
    #[test]
    fn a_pipe_wakes_each_time() {
        let mut poll = Poll::new().unwrap();
        let waker = Waker::pipe(poll.registry()).unwrap();
        let mut events = Events::with_capacity(8);
        for _ in 0..3 {
            waker.wake().unwrap();
            poll.poll(&mut events, None).unwrap();
            assert!(events.iter().any(|event| event.token() == token::HANDLE));
        }
    }
}

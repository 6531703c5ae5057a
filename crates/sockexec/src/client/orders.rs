//! What a [`Child`](super::Child) and its handles want of the pump that serves the program: through a pipe, so that it is an
//! event like any other.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::{Error, WindowSize};

/// One of them is so many bytes, far fewer than `PIPE_BUF`: each is written and read whole (pipe(7)).
const LEN: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Close the connection.
    Kill,
    /// Send this signal to the program's process group.
    Signal(i32),
    /// The terminal has this size now.
    Resize(WindowSize),
}

impl Order {
    fn encode(self) -> [u8; LEN] {
        let (kind, [a, b, c, d]) = match self {
            Self::Kill => (b'k', [0; 4]),
            Self::Signal(number) => (b's', number.to_ne_bytes()),
            Self::Resize(WindowSize { columns, rows }) => {
                let ([a, b], [c, d]) = (columns.to_ne_bytes(), rows.to_ne_bytes());
                (b'w', [a, b, c, d])
            }
        };
        [kind, a, b, c, d]
    }

    fn decode([kind, a, b, c, d]: [u8; LEN]) -> Self {
        match kind {
            b's' => Self::Signal(i32::from_ne_bytes([a, b, c, d])),
            b'w' => {
                let (columns, rows) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
                Self::Resize(WindowSize { columns, rows })
            }
            _ => Self::Kill,
        }
    }
}

/// The pump's end.
#[derive(Debug)]
pub(super) struct Orders(Arc<PipeReader>);

/// The child's end.
#[derive(Debug)]
pub(super) struct OrderSender {
    pipe: PipeWriter,
    /// Kept, so that to send when the pump is gone raises no SIGPIPE; and nobody else has it then.
    reader: Arc<PipeReader>,
}

pub(super) fn channel() -> Result<(OrderSender, Orders), Error> {
    let (reader, pipe) = io::pipe().map_err(|error| Error::Io("cannot make a pipe", error))?;
    // The pump is never to wait for it, and neither is whoever sends: both see at once that there is nothing, or no room.
    rustix::io::ioctl_fionbio(&reader, true).map_err(|error| Error::Io("cannot set up a pipe", error.into()))?;
    rustix::io::ioctl_fionbio(&pipe, true).map_err(|error| Error::Io("cannot set up a pipe", error.into()))?;
    let reader = Arc::new(reader);
    Ok((OrderSender { pipe, reader: Arc::clone(&reader) }, Orders(reader)))
}

impl OrderSender {
    /// To a pump that is gone, as the program has ended, it is nothing.
    pub(super) fn send(&self, order: Order) -> Result<(), Error> {
        if Arc::strong_count(&self.reader) == 1 {
            return Ok(());
        }
        (&self.pipe).write_all(&order.encode()).map_err(|error| Error::Io("cannot reach the program", error))
    }
}

impl Orders {
    /// Called when there is something to see. `None`: nobody is left who could want something.
    pub(super) fn next(&mut self) -> Option<Order> {
        let mut order = [0; LEN];
        match (&*self.0).read(&mut order) {
            Ok(LEN) => Some(Order::decode(order)),
            Ok(_) | Err(_) => None,
        }
    }
}

impl AsFd for Orders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_as_they_were_sent() {
        let (sender, mut orders) = channel().unwrap();
        let size = WindowSize { columns: 132, rows: 50 };
        let sent = [Order::Signal(15), Order::Resize(size), Order::Signal(64), Order::Kill];
        for order in sent {
            sender.send(order).unwrap();
        }
        assert_eq!(sent.map(|_| orders.next()), sent.map(Some));
        drop(sender);
        assert_eq!(orders.next(), None);
    }
}

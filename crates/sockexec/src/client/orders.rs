//! What a [`Child`](super::Child) and its handles order from the pump that serves the program. A pipe beside
//! the orders makes each of them an event like any other. It carries nothing but wake-ups, so it does not
//! matter if it is full.

use std::fmt;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};

use super::{Error, Signal, WindowSize};

#[derive(Debug)]
pub(super) enum Order {
    /// Close the connection.
    Disconnect,
    /// Send KILL to the program's process group, and let nothing delay the end. In version 1, which has no
    /// signals, close the connection.
    Kill,
    /// Send this signal to the program's process group, and report when it was sent in full.
    Signal(Signal, Tell<()>),
    /// Give the terminal this size.
    Resize(WindowSize),
}

/// A callback that is called at most once.
pub(super) struct Tell<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Tell<T> {
    /// What `tell` returns is dropped: the receiver may have gone.
    pub(super) fn new<R>(tell: impl FnOnce(T) -> R + Send + 'static) -> Self {
        Self(Box::new(move |what| {
            let _ = tell(what);
        }))
    }

    pub(super) fn tell(self, what: T) {
        (self.0)(what);
    }
}

impl<T> fmt::Debug for Tell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tell").finish_non_exhaustive()
    }
}

/// The pump's end.
#[derive(Debug)]
pub(super) struct Orders {
    orders: Receiver<Order>,
    bell: Arc<PipeReader>,
}

/// The child's end.
#[derive(Debug)]
pub(super) struct OrderSender {
    orders: Sender<Order>,
    bell: PipeWriter,
    /// Kept, so that ringing raises no SIGPIPE when the pump is gone.
    _heard: Arc<PipeReader>,
}

pub(super) fn channel() -> Result<(OrderSender, Orders), Error> {
    let (heard, bell) = io::pipe().map_err(|error| Error::Io("cannot make a pipe", error))?;
    // Neither end may ever wait.
    rustix::io::ioctl_fionbio(&heard, true).map_err(|error| Error::Io("cannot set up a pipe", error.into()))?;
    rustix::io::ioctl_fionbio(&bell, true).map_err(|error| Error::Io("cannot set up a pipe", error.into()))?;
    let (sender, orders) = mpsc::channel();
    let heard = Arc::new(heard);
    Ok((OrderSender { orders: sender, bell, _heard: Arc::clone(&heard) }, Orders { orders, bell: heard }))
}

impl OrderSender {
    /// Does nothing if the pump is gone, as the program has ended then.
    pub(super) fn send(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            // A full pipe rings as well.
            let _ = (&self.bell).write(&[0]);
        }
    }
}

impl Orders {
    /// The next order. Call it when the pipe is readable.
    ///
    /// # Errors
    /// The sender is gone ([`TryRecvError::Disconnected`]), or no message waits.
    pub(super) fn next(&mut self) -> Result<Order, TryRecvError> {
        // Before the check, so that an order that comes after it rings again.
        let _ = (&*self.bell).read(&mut [0; 64]);
        self.orders.try_recv()
    }
}

impl AsFd for Orders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many more orders than a pipe holds.
    #[test]
    fn orders_arrive_as_they_were_sent() {
        let (sender, mut orders) = channel().unwrap();
        for columns in 0..=u16::MAX {
            sender.send(Order::Resize(WindowSize { columns, rows: 24 }));
            sender.send(Order::Kill);
        }
        for columns in 0..=u16::MAX {
            assert!(matches!(orders.next(), Ok(Order::Resize(size)) if size.columns == columns));
            assert!(matches!(orders.next(), Ok(Order::Kill)));
        }
        assert_eq!(orders.next().unwrap_err(), TryRecvError::Empty);
        let (told, was_told) = mpsc::channel();
        sender.send(Order::Signal(Signal::TERM, Tell::new(move |()| told.send(()))));
        drop(sender);
        let Ok(Order::Signal(Signal::TERM, tell)) = orders.next() else { panic!("the signal is lost") };
        tell.tell(());
        was_told.recv().unwrap();
        assert_eq!(orders.next().unwrap_err(), TryRecvError::Disconnected);
    }

    /// The wait for an answer ends without one.
    #[test]
    fn a_pump_that_is_gone() {
        let (sender, orders) = channel().unwrap();
        let (told, was_told) = mpsc::channel();
        let signal = |told: Sender<()>| Order::Signal(Signal::TERM, Tell::new(move |()| told.send(())));
        sender.send(signal(told.clone()));
        drop(orders);
        sender.send(signal(told));
        was_told.recv().unwrap_err();
    }
}

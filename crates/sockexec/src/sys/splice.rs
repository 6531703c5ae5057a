//! Moving the bytes of big streams without copying them, by splice(2).
//!
//! Output goes through a pipe of the daemon's own, in which each frame is assembled: its head is written, the
//! payload is spliced in from the program's pipe, its tail is written. From there each frame goes to the
//! socket by one splice, as one `sk_buff`, so that a client never finds half of one (docs/gotchas.md, "A
//! client that loses its place"). Rejected: sending head, payload and tail one by one, which is as fast, but
//! leaves the client with a head alone whenever the daemon is preempted in between.
//!
//! [`super::transfer`] does the same job by copying, whenever the result here is [`Spliced::Unable`].

use std::cell::Cell;
use std::env;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_send_buffer_size};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};

use super::transfer;
use crate::engine::Frame;
use crate::queue;

/// Below this many bytes copying is as cheap.
pub(crate) const SPLICE_MIN: usize = 32 << 10;

/// Twelve pages of payload, in bytes: what one `sk_buff` is certain to hold beside a head and a tail.
const PAYLOAD: usize = Frame::MAX_SPLICED;

/// The most that such a frame is charged to the socket's queue: payload, head, tail, and the kernel's own
/// overhead.
const CHARGE: usize = PAYLOAD + (2 << 10);

/// How many frames are assembled at once.
const FRAMES: usize = 8;

/// The largest send buffer for a socket that carries a big stream, in bytes: four times the usual 208 KiB.
/// With the usual size, daemon and client wake each other every three frames, and that costs more than all
/// else.
const SEND_BUFFER: usize = 832 << 10;

/// What a big stream's pipe grows to, in bytes: the default of `/proc/sys/fs/pipe-max-size`.
const PIPE_SIZE: usize = 1 << 20;

/// What the daemon's own pipe grows to, in bytes: a page for each part of [`FRAMES`] frames, including heads
/// and tails, and as many again for pages that are not full.
const MIDDLE_SIZE: usize = 1 << 20;

/// The smallest page, in bytes.
const PAGE: usize = 4 << 10;

/// How many pipes may be grown at once. Linux allows this much to a user without `CAP_SYS_RESOURCE`
/// (`/proc/sys/fs/pipe-user-pages-soft`, 64 MiB); root would find no limit.
const MAX_GROWN: usize = 64;

/// How often both ends may be found ready without moving anything before the bytes are copied instead.
const ATTEMPTS: usize = 8;

/// The outcome of an attempt to send output without copying.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Spliced {
    /// This many bytes were sent, including heads and tails.
    Sent(usize),
    /// This many were sent. What else was taken from the pipe must be sent by copying: `rest`, whose first
    /// `cut` bytes finish a frame that was begun.
    Rest { sent: usize, rest: Vec<u8>, cut: usize },
    /// The socket must become writable first. Nothing was taken from the pipe.
    WouldBlock,
    /// Nobody reads from the socket any more.
    End,
    /// It must be copied. Nothing was taken from the pipe.
    Unable,
}

/// The outcome of an attempt to receive input without copying.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// This many bytes, at least 1.
    Bytes(usize),
    /// No bytes: these must become ready first.
    WouldBlock { socket: bool, pipe: bool },
    /// The client will send no more.
    SocketEnd,
    /// Nobody reads from the pipe any more.
    PipeEnd,
    /// It must be copied, which also shows what is wrong.
    Unable,
}

/// Splices where the system can, unless the environment has `SOCKEXEC_TRANSFER=copy`.
#[derive(Debug)]
pub(crate) struct Splicer {
    enabled: bool,
    /// Empty between calls.
    middle: Option<Middle>,
    grown: Rc<Cell<usize>>,
}

/// A grown pipe's share of the limit, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Grown(Rc<Cell<usize>>);

impl Drop for Grown {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Splicer {
    pub(crate) fn new() -> Self {
        let enabled = env::var_os("SOCKEXEC_TRANSFER").as_deref() != Some(OsStr::new("copy"));
        let middle = if enabled { Middle::new().ok() } else { None };
        Self { enabled, middle, grown: Rc::default() }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Enlarges a pipe that was found full. `None`: it stays as it is, which only costs speed.
    pub(crate) fn grow(&self, pipe: impl AsFd) -> Option<Grown> {
        if !self.enabled || self.grown.get() >= MAX_GROWN {
            return None;
        }
        // EPERM: the user has reached the limit (pipe(7)).
        fcntl_setpipe_size(pipe, PIPE_SIZE).ok()?;
        self.grown.set(self.grown.get() + 1);
        Some(Grown(Rc::clone(&self.grown)))
    }

    /// Enlarges a socket's send buffer to four times its size, for a stream whose pipe was
    /// [grown](Splicer::grow). If this is refused, it only costs speed.
    ///
    /// The kernel caps the requested size at `net.core.wmem_max`, then doubles it for its own needs
    /// (socket(7)). The cap is 4 MiB on Linux 6.18 and 208 KiB on older ones, where the buffer only becomes
    /// twice as large.
    #[expect(clippy::unused_self, reason = "the interface of no_splice.rs")]
    pub(crate) fn grow_send_buffer(&self, socket: BorrowedFd<'_>) {
        if let Ok(size) = socket_send_buffer_size(socket)
            && size < SEND_BUFFER
        {
            let _ = set_socket_send_buffer_size(socket, (size * 4).min(SEND_BUFFER) / 2);
        }
    }

    /// Sends some of the `available` bytes of `pipe` to `socket`, in whole frames of at most `most` bytes.
    /// `frame` returns what to put around a payload of a given length.
    pub(crate) fn send(
        &mut self,
        pipe: BorrowedFd<'_>,
        available: usize,
        socket: BorrowedFd<'_>,
        most: usize,
        frame: impl Fn(usize) -> Option<Frame>,
    ) -> Spliced {
        let Some(middle) = &mut self.middle else { return Spliced::Unable };
        let largest = middle.grow();
        let (count, len) = match frames_that_fit(socket) {
            Some(0) => return Spliced::WouldBlock,
            Some(count) if most <= PAYLOAD => (count.min(FRAMES), most),
            // The socket takes a large frame in several pieces.
            Some(count) => (1, most.min(count * PAYLOAD).min(largest)),
            None => return Spliced::Unable,
        };
        match middle.fill(pipe, available, (count, len), frame) {
            Ok(Filled::Frames(lengths)) if lengths.is_empty() => Spliced::Unable,
            Ok(Filled::Frames(lengths)) => {
                let (outcome, error) = middle.pour(&lengths, socket);
                if let Some(error) = error {
                    self.give_up(error);
                }
                outcome
            }
            Ok(Filled::Copied(rest)) => Spliced::Rest { sent: 0, rest, cut: 0 },
            Err(error) => {
                self.give_up(error);
                Spliced::Unable
            }
        }
    }

    /// Moves up to `len` bytes from `socket` to `pipe`.
    pub(crate) fn receive(&self, socket: BorrowedFd<'_>, pipe: BorrowedFd<'_>, len: usize) -> Received {
        if !self.enabled {
            return Received::Unable;
        }
        for _ in 0..ATTEMPTS {
            match move_between(socket, pipe, len) {
                Ok(0) => return Received::SocketEnd,
                Ok(n) => return Received::Bytes(n),
                Err(Errno::PIPE) => return Received::PipeEnd,
                Err(Errno::AGAIN) => match readiness(socket, pipe) {
                    // It became ready after splice had looked.
                    Some((true, true)) => {}
                    Some((socket, pipe)) => return Received::WouldBlock { socket: !socket, pipe: !pipe },
                    None => return Received::Unable,
                },
                Err(_) => return Received::Unable,
            }
        }
        Received::Unable
    }

    /// This kernel, or a filter, refuses to splice: everything is copied from now on.
    fn give_up(&mut self, error: Errno) {
        log::debug!("bytes are copied from now on: splice: {error}");
        self.enabled = false;
        self.middle = None;
    }
}

/// The pipe in which frames are assembled.
#[derive(Debug)]
struct Middle {
    from: OwnedFd,
    to: OwnedFd,
    /// The most payload per frame, in bytes. Set once the pipe has been grown for more than one frame, or
    /// growing was refused. Most daemons never see a big stream.
    largest: Option<usize>,
}

/// The most payload per frame for a pipe of this size, in bytes. One page is for the head, one for the tail,
/// and one more in case the payload does not begin with its page.
fn largest_payload(size: usize) -> usize {
    size.saturating_sub(3 * PAGE).max(PAYLOAD)
}

/// What the middle holds now.
enum Filled {
    /// Frames of these lengths; none if nothing was taken.
    Frames(Vec<usize>),
    /// Nothing: what was taken is here, in whole frames.
    Copied(Vec<u8>),
}

impl Middle {
    fn new() -> Result<Self, Errno> {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { from, to, largest: None })
    }

    /// The most payload per frame, in bytes.
    fn grow(&mut self) -> usize {
        *self.largest.get_or_insert_with(|| {
            // If this is refused, it takes fewer and smaller frames at once.
            let size = fcntl_setpipe_size(&self.to, MIDDLE_SIZE).or_else(|_| fcntl_getpipe_size(&self.to));
            largest_payload(size.unwrap_or_default())
        })
    }

    /// Assembles up to `count` frames of at most `most` bytes from the `available` bytes of `pipe`.
    ///
    /// # Errors
    /// Those of splice(2), before anything was taken from `pipe`.
    fn fill(
        &mut self,
        pipe: BorrowedFd<'_>,
        mut available: usize,
        (count, most): (usize, usize),
        frame: impl Fn(usize) -> Option<Frame>,
    ) -> Result<Filled, Errno> {
        let mut lengths = Vec::with_capacity(count);
        let mut whole = 0;
        while lengths.len() < count && available >= SPLICE_MIN {
            let len = available.min(most);
            let Some(framing) = frame(len) else { break };
            let head = framing.head();
            if !self.put(head) {
                break;
            }
            let mut moved = 0;
            let end = loop {
                match move_between(pipe, self.to.as_fd(), len - moved) {
                    Ok(0) => break Errno::AGAIN,
                    Ok(n) => moved += n,
                    Err(error) => break error,
                }
                if moved == len {
                    break Errno::AGAIN;
                }
            };
            if moved < len || !self.put(&[Frame::TAIL]) {
                // The middle is full of small pieces, or something else reads the program's output from
                // /proc/self/fd/1: the frame's head promises too much.
                let mut bytes = self.drain();
                let payload = bytes.split_off((whole + head.len()).min(bytes.len()));
                bytes.truncate(whole);
                if bytes.is_empty() && payload.is_empty() {
                    // EAGAIN: there is no payload, or no room for it, as in a middle of a single page, which
                    // the head has taken. That would be so the next time as well. Copying shows which it is,
                    // and moves something.
                    return if end == Errno::AGAIN { Ok(Filled::Frames(Vec::new())) } else { Err(end) };
                }
                if let Some(framing) = frame(payload.len()).filter(|_| !payload.is_empty()) {
                    bytes.extend_from_slice(framing.head());
                    bytes.extend_from_slice(&payload);
                    bytes.push(Frame::TAIL);
                }
                return Ok(Filled::Copied(bytes));
            }
            lengths.push(head.len() + len + 1);
            whole += head.len() + len + 1;
            available -= len;
        }
        Ok(Filled::Frames(lengths))
    }

    /// Sends the frames that are in the middle, each by itself, and leaves it empty. The error is that of a
    /// socket that does not take spliced bytes.
    fn pour(&mut self, lengths: &[usize], socket: BorrowedFd<'_>) -> (Spliced, Option<Errno>) {
        let mut sent = 0;
        for &len in lengths {
            let mut left = len;
            while left > 0 {
                let error = match move_between(self.from.as_fd(), socket, left) {
                    Ok(n @ 1..) => {
                        sent += n;
                        left -= n;
                        continue;
                    }
                    Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => {
                        self.drain();
                        return (Spliced::End, None);
                    }
                    // Less room than expected. The client may find half a frame now: the copied rest of a
                    // frame of this size is not always taken whole.
                    Err(Errno::AGAIN) => None,
                    Err(error) => Some(error),
                };
                let cut = if left < len { left } else { 0 };
                return (Spliced::Rest { sent, rest: self.drain(), cut }, error);
            }
        }
        (Spliced::Sent(sent), None)
    }

    /// Writes all of `bytes` or none of them, as they are fewer than `PIPE_BUF` (pipe(7)).
    fn put(&self, bytes: &[u8]) -> bool {
        matches!(transfer::write(&self.to, bytes), Ok(transfer::Moved::Bytes(_)))
    }

    /// Takes everything out of the middle.
    fn drain(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let filled = bytes.len();
            bytes.resize(filled + PAYLOAD, 0);
            let room = bytes.get_mut(filled..).unwrap_or_default();
            match transfer::read(&self.from, room) {
                Ok(transfer::Moved::Bytes(n)) => bytes.truncate(filled + n),
                Ok(transfer::Moved::WouldBlock | transfer::Moved::End) | Err(_) => {
                    bytes.truncate(filled);
                    return bytes;
                }
            }
        }
    }
}

/// How many frames `socket` is certain to take now, as only we add to its queue. 0: an event will report that
/// it is writable, as its queue is above a quarter of the buffer, below which `unix_writable` says so.
/// `None`: the buffer is too small for that, or the system does not report it.
fn frames_that_fit(socket: BorrowedFd<'_>) -> Option<usize> {
    let size = socket_send_buffer_size(socket).ok()?;
    if CHARGE * 4 > size * 3 {
        return None;
    }
    let queued = queue::send_queue(socket).ok()?;
    Some(size.saturating_sub(queued) / CHARGE)
}

fn move_between(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> Result<usize, Errno> {
    retry_on_intr(|| splice(from, None, to, None, len, SpliceFlags::MOVE | SpliceFlags::NONBLOCK))
}

/// Whether `socket` can be read and `pipe` written, or would return an error.
fn readiness(socket: BorrowedFd<'_>, pipe: BorrowedFd<'_>) -> Option<(bool, bool)> {
    let mut both = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&pipe, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    retry_on_intr(|| poll(&mut both, Some(&now))).ok()?;
    let [socket, pipe] = both.map(|end| !end.revents().is_empty());
    Some((socket, pipe))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use sockexec_proto::reply::{self, Stream};

    use super::*;

    /// A middle that may not grow takes smaller frames, and copies none of them.
    #[test]
    fn a_middle_that_may_not_grow() {
        let (output, program) = pipe_with(PipeFlags::NONBLOCK).expect("a pipe");
        fcntl_setpipe_size(&program, PIPE_SIZE).expect("a pipe of the usual largest size");
        let mut middle = Middle::new().expect("a pipe");
        middle.largest = Some(largest_payload(fcntl_getpipe_size(&middle.to).expect("a size")));
        let mut splicer = Splicer { enabled: true, middle: Some(middle), grown: Rc::default() };
        let (mut client, socket) = UnixStream::pair().expect("a pair of sockets");
        let len = 400_000;
        assert!(matches!(transfer::write(&program, &vec![7; len]), Ok(transfer::Moved::Bytes(n)) if n == len));
        let frame = |len| Some(Frame { header: reply::Header::new(Stream::Stdout, len as u64) });
        let outcome = splicer.send(output.as_fd(), len, socket.as_fd(), 1 << 20, frame);
        let Spliced::Sent(sent) = outcome else { panic!("{outcome:?}") };
        assert!(sent > PAYLOAD, "{sent}");
        drop(socket);
        let mut received = Vec::new();
        client.read_to_end(&mut received).expect("what was sent");
        assert_eq!(received.len(), sent);
    }
}

//! What waits to be sent to a client: in memory and, where the contract requires it, in a file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use super::spool::{self, BLOCK, Ring, Spools};
use crate::engine::{Backpressure, Frame};
use crate::sys::transfer::{self, Moved};

/// With strict backpressure a program is not read any further while this much waits.
const STRICT_MAX: u64 = 64 << 10;

/// How much of a spool is kept in memory before a file is used.
const MEMORY_MAX: u64 = 1 << 20;

/// How much all outboxes together keep in memory before each is limited to [`BLOCK`].
const MEMORY_OF_ALL: u64 = 4 << 20;

/// The most that waits in memory behind a file that takes no more.
const TAIL_MAX: usize = 2 * BLOCK;

/// A queue of whole frames: `head`, then what is spilled. It sends them whole, as far as the socket takes
/// them: see [`Frame::MAX_PAYLOAD`].
///
/// The file exists only while it holds something, has no name, and is a ring of at most the spool's limit, so
/// what the client has read makes room. A write to it that fails (a full disk) loses nothing: the bytes stay
/// in memory, and there is no room until the client has read.
#[derive(Debug)]
pub(crate) struct Outbox {
    head: Vec<u8>,
    /// Bytes of `head` that were sent.
    sent: usize,
    /// Where the frames that are being sent end in `head`.
    boundary: usize,
    /// None: nothing is spilled.
    spill: Option<Box<Spill>>,
    /// The most that a spool may hold, in bytes; 0: no spool.
    limit: u64,
    /// A failure to use the file was logged.
    complained: bool,
    memory: Memory,
}

/// What exceeds the head: the file, then `tail`.
#[derive(Debug, Default)]
struct Spill {
    ring: Option<Ring>,
    tail: Vec<u8>,
}

impl Spill {
    fn len(&self) -> u64 {
        self.ring.as_ref().map_or(0, Ring::len) + self.tail.len() as u64
    }
}

/// The outcome of [`Outbox::flush`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Nothing waits.
    Empty,
    /// The socket takes no more for now.
    Blocked,
    /// As much as was allowed was sent; more waits, and could be sent.
    Budget,
    /// The client is gone.
    Broken,
    /// What waited was lost with the spool's file, and this was logged.
    Lost,
}

impl Outbox {
    pub(crate) fn new(limit: u64, spools: Rc<Spools>) -> Self {
        let memory = Memory { spools, ours: 0 };
        Self { head: Vec::new(), sent: 0, boundary: 0, spill: None, limit, complained: false, memory }
    }

    /// The spool's file, while there is one.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.spill.as_ref()?.ring.as_ref().map(Ring::file)
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> u64 {
        (self.head.len() - self.sent) as u64 + self.spill.as_ref().map_or(0, |spill| spill.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a program's output may be read now.
    pub(crate) fn has_room(&self, backpressure: Backpressure) -> bool {
        match backpressure {
            Backpressure::Discard => true,
            Backpressure::Spool if self.limit > 0 => {
                let tail = self.spill.as_ref().map_or(0, |spill| spill.tail.len());
                self.len() < self.limit.max(STRICT_MAX) && tail < TAIL_MAX
            }
            Backpressure::Strict | Backpressure::Spool => self.len() < self.memory.allowed(STRICT_MAX),
        }
    }

    /// Appends `bytes`, which are whole frames, whatever the limits.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let in_memory = self.memory.allowed(MEMORY_MAX.min(self.limit.max(STRICT_MAX)));
        if self.spill.is_none() && self.len() < in_memory {
            self.make_room_in_head(bytes.len());
            self.head.extend_from_slice(bytes);
            self.account();
            return;
        }
        let spill = self.spill.get_or_insert_default();
        spill.tail.extend_from_slice(bytes);
        if spill.tail.len() >= BLOCK {
            self.spill_tail();
        }
        self.account();
    }

    /// Takes the rest of frames whose beginning was sent past the outbox, which is empty. The rest is whole
    /// frames, except for the first `cut` bytes, which finish one that is begun.
    pub(crate) fn push_rest(&mut self, bytes: Vec<u8>, cut: usize) {
        debug_assert!(self.is_empty(), "the rest of a frame behind other frames");
        self.clear_head();
        self.boundary = cut.min(bytes.len());
        self.head = bytes;
        self.account();
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.limit, Rc::clone(&self.memory.spools));
    }

    /// Updates how much memory all spools together take.
    fn account(&mut self) {
        let tail = self.spill.as_ref().map_or(0, |spill| spill.tail.capacity());
        self.memory.set((self.head.capacity() + tail) as u64);
    }

    /// Sends what waits to `socket`, about `budget` bytes at most. Lowers the budget by what was sent.
    pub(crate) fn flush(&mut self, socket: impl AsFd, budget: &mut usize) -> Flush {
        let outcome = self.send(socket, budget);
        self.account();
        outcome
    }

    fn send(&mut self, socket: impl AsFd, budget: &mut usize) -> Flush {
        loop {
            if self.sent == self.boundary {
                match self.next_frames() {
                    Ok(true) => {}
                    Ok(false) => return Flush::Empty,
                    Err(error) => {
                        log::warn!("cannot read back spooled output: {error}");
                        return Flush::Lost;
                    }
                }
            }
            if *budget == 0 {
                return Flush::Budget;
            }
            match transfer::send(socket.as_fd(), self.head.get(self.sent..self.boundary).unwrap_or_default()) {
                Moved::Bytes(n) => {
                    self.sent += n;
                    *budget = budget.saturating_sub(n);
                }
                Moved::WouldBlock => return Flush::Blocked,
                Moved::End => return Flush::Broken,
            }
        }
    }

    /// Finds the next frames to send; false: nothing is left.
    fn next_frames(&mut self) -> io::Result<bool> {
        loop {
            let rest = self.head.get(self.sent..).unwrap_or_default();
            let whole = Frame::whole(rest);
            if whole > 0 {
                self.boundary = self.sent + whole;
                return Ok(true);
            }
            if !self.refill()? {
                if self.is_empty() {
                    // An idle connection keeps no buffer.
                    self.clear_head();
                    return Ok(false);
                }
                // Impossible, as whole frames come in; if it happened, they would be sent as they are.
                self.boundary = self.head.len();
                return Ok(true);
            }
        }
    }

    /// Appends what comes next to the head; false: nothing does.
    fn refill(&mut self) -> io::Result<bool> {
        self.head.drain(..self.sent);
        self.sent = 0;
        self.boundary = 0;
        let Some(spill) = &mut self.spill else { return Ok(false) };
        if let Some(ring) = &mut spill.ring {
            ring.read(&mut self.head)?;
            if ring.len() == 0 {
                spill.ring = None;
            }
        } else {
            self.head.append(&mut spill.tail);
        }
        if spill.len() == 0 {
            self.spill = None;
        }
        Ok(true)
    }

    fn clear_head(&mut self) {
        self.head = Vec::new();
        self.spill = None;
        self.sent = 0;
        self.boundary = 0;
    }

    /// Moves the unsent bytes to the front if appending would otherwise grow the buffer.
    fn make_room_in_head(&mut self, more: usize) {
        if self.sent > 0 && self.head.capacity() - self.head.len() < more {
            self.head.drain(..self.sent);
            self.boundary -= self.sent;
            self.sent = 0;
        }
        if self.head.capacity() - self.head.len() < more {
            // A quarter more, where Vec would double it.
            self.head.reserve_exact(more.max(self.head.len() / 4));
        }
    }

    /// Tries again to write to the file what had no room there; false: nothing waits for that.
    pub(crate) fn resume(&mut self) -> bool {
        let waits = self.spill.as_ref().is_some_and(|spill| spill.tail.len() >= BLOCK);
        if waits {
            self.spill_tail();
            self.account();
        }
        waits
    }

    fn spill_tail(&mut self) {
        let Some(spill) = &mut self.spill else { return };
        let spools = &self.memory.spools;
        let result = match &mut spill.ring {
            Some(ring) => ring.write(&spill.tail, spools),
            None => Ring::create(self.limit, spools).and_then(|ring| {
                let Some(mut ring) = ring else { return Ok(0) };
                let written = ring.write(&spill.tail, spools)?;
                if written > 0 {
                    spill.ring = Some(ring);
                }
                Ok(written)
            }),
        };
        match result {
            Ok(written) if written == spill.tail.len() => spill.tail = Vec::new(),
            Ok(written) => {
                spill.tail.drain(..written);
            }
            Err(error) => {
                if !self.complained {
                    log::warn!("cannot spool output to a file in {}: {error}", spool::directory().display());
                    self.complained = true;
                }
            }
        }
    }
}

/// One spool's share of the memory of all.
#[derive(Debug)]
struct Memory {
    spools: Rc<Spools>,
    ours: u64,
}

impl Memory {
    /// How much of `most` may be used now.
    fn allowed(&self, most: u64) -> u64 {
        if self.spools.memory.get() < MEMORY_OF_ALL { most } else { most.min(BLOCK as u64) }
    }

    fn set(&mut self, ours: u64) {
        let memory = &self.spools.memory;
        memory.set(memory.get() - self.ours + ours);
        self.ours = ours;
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use sockexec_proto::Stream;
    use sockexec_proto::reply::encode_pair;

    use super::*;

    /// Frames whose sizes and bytes follow from a seed; the same seed gives the same frames.
    struct Frames(u64);

    impl Iterator for Frames {
        type Item = Vec<u8>;

        fn next(&mut self) -> Option<Vec<u8>> {
            // Knuth's MMIX generator: any would do.
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let len = usize::try_from(self.0 >> 33).unwrap() % Frame::MAX_PAYLOAD + 1;
            let salt = self.0.to_le_bytes()[3];
            let payload: Vec<u8> = (0..=250_u8).cycle().map(|byte| byte.wrapping_add(salt)).take(len).collect();
            let mut frame = Vec::new();
            encode_pair(Stream::Stdout.tag(), &payload, &mut frame);
            Some(frame)
        }
    }

    fn spools() -> Rc<Spools> {
        Rc::new(Spools::new(u64::MAX, None))
    }

    /// Waits until all that was on disk is given back.
    fn assert_given_back(spools: &Spools) {
        let begin = std::time::Instant::now();
        while spools.on_disk() > 0 {
            assert!(begin.elapsed().as_secs() < 60, "{} bytes are left on disk", spools.on_disk());
            std::thread::yield_now();
        }
    }

    /// Pushes until there is no room, lets the client read `share` bytes of every 8, until `total` bytes went through.
    fn pass_through(limit: u64, disk: u64, total: usize, share: usize) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let spools = Rc::new(Spools::new(disk, None));
        let mut outbox = Outbox::new(limit, Rc::clone(&spools));
        let (mut expected, mut got, mut deepest) = (Vec::new(), Vec::new(), 0);
        let mut frames = Frames(limit);
        let mut buffer = vec![0; 256 << 10];
        while got.len() < total {
            while expected.len() < total && outbox.has_room(Backpressure::Spool) {
                let frame = frames.next().unwrap();
                outbox.push(&frame);
                expected.extend_from_slice(&frame);
            }
            deepest = deepest.max(outbox.len());
            assert!(spools.on_disk() <= disk, "{} bytes on disk", spools.on_disk());
            outbox.resume();
            assert_ne!(outbox.flush(&ours, &mut usize::MAX.clone()), Flush::Broken);
            let len = buffer.len() * share / 8;
            if let Ok(n) = theirs.read(&mut buffer[..len]) {
                got.extend_from_slice(&buffer[..n]);
            }
            if expected.len() >= total && outbox.is_empty() && got.len() == expected.len() {
                break;
            }
        }
        assert!(deepest <= limit.max(STRICT_MAX) + Frame::MAX_LEN as u64, "{deepest} bytes queued");
        assert!(expected.starts_with(&got), "order or bytes were lost after {} bytes", got.len());
        drop(outbox);
        assert_given_back(&spools);
    }

    /// Through the file, around the ring's end many times, and back to memory when the reader has caught up.
    #[test]
    fn what_goes_in_comes_out_in_order() {
        for limit in [0, 1, 70_000, 1 << 20, (1 << 20) + 200_000, 3 << 20] {
            for share in [1, 8] {
                pass_through(limit, u64::MAX, 12 << 20, share);
            }
        }
    }

    /// The same with less disk than the spool may take, or with none at all.
    #[test]
    fn within_what_all_may_take() {
        for disk in [700_000, 0] {
            for limit in [(1 << 20) + 200_000, 3 << 20] {
                pass_through(limit, disk, 12 << 20, 8);
            }
        }
    }

    /// Frames are sent whole: whenever the socket is full, what was sent ends with a frame.
    #[test]
    fn frames_are_not_cut() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut outbox = Outbox::new(8 << 20, spools());
        Frames(7).take(300).for_each(|frame| outbox.push(&frame));
        let mut buffer = vec![0; 1 << 20];
        let mut blocked = 0;
        loop {
            let outcome = outbox.flush(&ours, &mut usize::MAX.clone());
            let mut got = Vec::new();
            while let Ok(n @ 1..) = theirs.read(&mut buffer) {
                got.extend_from_slice(&buffer[..n]);
            }
            assert_eq!(sockexec_proto::reply::whole_pairs(&got, usize::MAX), got.len());
            match outcome {
                Flush::Empty => break,
                Flush::Blocked => blocked += 1,
                Flush::Budget | Flush::Broken | Flush::Lost => unreachable!("{outcome:?}"),
            }
        }
        assert!(blocked > 3, "the socket was never full");
    }

    #[test]
    fn strict_backpressure_allows_little() {
        let mut outbox = Outbox::new(1 << 30, spools());
        let mut frames = Frames(1);
        while outbox.has_room(Backpressure::Strict) {
            outbox.push(&frames.next().unwrap());
        }
        assert!(outbox.len() < STRICT_MAX + Frame::MAX_LEN as u64);
        assert!(outbox.has_room(Backpressure::Spool) && outbox.has_room(Backpressure::Discard));
    }
}

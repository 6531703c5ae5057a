//! What comes from the client: requests, and input on its way to the program.

use std::os::fd::AsFd as _;

use mio::Interest;
use rustix::io::Errno;
use sockexec_proto::Version;

use super::ahead::Ahead;
use super::{CHUNKS_A_ROUND, Connection, Context};
use crate::daemon::child::Child;
use crate::daemon::scratch::{CHUNK, Scratch};
use crate::daemon::token::{Source, token};
use crate::engine::{Step, Time, at_most};
use crate::sys::socket::{self, Peer};
use crate::sys::splice::{Received, SPLICE_MIN};
use crate::sys::transfer::{self, Moved, Passed};

/// The most input that is spliced at once, in bytes.
const MAX_INPUT_SPLICE: usize = 1 << 20;

/// Input that comes in pieces smaller than this is not spliced, in bytes.
const MIN_INPUT_SPLICE: usize = 4 << 10;

/// The most bytes between two chunks: in version 2 a comma, `5:stdin,`, and the longest head.
const MAX_FRAMING: u8 = 29;

/// A guess at the usual number, in bytes: the framing, and little of what can be spliced.
const USUAL_FRAMING: u8 = 16;

/// The input from the client, and what is known about it.
#[derive(Debug)]
pub(super) struct Input {
    /// Bytes that could not be used yet: at most a chunk.
    waiting: Vec<u8>,
    /// Version 2: the pace of a program that does not take its input as fast as it comes, and what is held
    /// for it.
    ahead: Option<Box<Ahead>>,
    /// Much has come, in big chunks: they may be worth splicing.
    big: bool,
    /// A part of the chunk was spliced, so the rest of it is too.
    spliced: bool,
    guard: Guard,
    /// Bytes since the last payload.
    framing: u8,
    /// How many bytes were between the last two payloads, and will be between the next two if all chunks have
    /// one size. This many are read for the next head, and none of what can be spliced: each such byte would
    /// be a write of its own, and wake the program.
    usual_framing: u8,
}

impl Input {
    pub(super) const fn new() -> Self {
        Self {
            waiting: Vec::new(),
            ahead: None,
            big: false,
            spliced: false,
            guard: Guard::Down,
            framing: 0,
            usual_framing: USUAL_FRAMING,
        }
    }

    /// How many bytes could not be used yet.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.is_ahead()
    }

    /// Drops what waits. Input that is held for the program stays, as it was taken.
    pub(super) fn clear(&mut self) {
        self.waiting = Vec::new();
    }

    /// Drops what is held for the program.
    pub(super) fn drop_ahead(&mut self) {
        self.ahead = None;
    }

    /// Whether input is held for the program. Nothing may overtake it.
    fn is_ahead(&self) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| !ahead.is_empty())
    }

    /// Whether input that the program does not take now may be held.
    fn may_hold(&self) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| ahead.is_slow())
    }

    /// Judges the program's pace if it is time to.
    pub(super) fn tick(&mut self, now: Time) {
        if let Some(ahead) = &mut self.ahead {
            ahead.judge(now);
        }
    }

    /// This many bytes were read, and what came with them was taken.
    fn note_received(&mut self, n: usize) {
        if let Guard::Rising(left) = &mut self.guard {
            *left = left.saturating_sub(n as u64);
        }
    }

    /// This many bytes were no payload.
    fn note_framing(&mut self, len: usize) {
        self.framing = self.framing.saturating_add(u8::try_from(len).unwrap_or(u8::MAX));
    }

    /// Payload comes next, and this much is left of the chunk.
    fn note_payload(&mut self, left: u64) {
        if self.framing > 0 {
            self.usual_framing = if self.framing <= MAX_FRAMING { self.framing } else { USUAL_FRAMING };
            self.framing = 0;
            self.spliced = false;
        }
        self.big |= left >= SPLICE_MIN as u64;
    }
}

/// Whether descriptors that come with input are kept from being spliced. The kernel would close them within
/// the call, which may wait for as long as the client likes ([`crate::sys::closer`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// Nothing is spliced yet. Most clients never send enough.
    Down,
    /// No more can come. Some may be in this many next bytes, which are read.
    Rising(u64),
    /// No descriptor is left among the bytes to come, or the client could stop the daemon anyway.
    Up,
    /// The kernel cannot (Linux before 6.16): nothing is spliced.
    Never,
}

/// How to take the client's next bytes.
enum NextInput {
    /// Some were spliced, or can be now.
    Spliced,
    /// Nothing can be taken now.
    Waiting,
    /// Read this many bytes and no more: the payload behind them will be spliced.
    UpTo(usize),
    /// Read as much as there is.
    Anything,
}

impl Connection {
    /// Takes what has come. True: it is a part of a long request, and enough for a turn.
    pub(super) fn pump_request(&mut self, cx: &Context<'_>, scratch: &mut Scratch) -> bool {
        for _ in 0..CHUNKS_A_ROUND {
            self.release(cx);
            if !self.input.waiting.is_empty() {
                let mut waiting = std::mem::take(&mut self.input.waiting);
                let left = self.consume(cx, &waiting);
                if left > 0 && self.socket.is_some() {
                    waiting.drain(..waiting.len() - left);
                    self.input.waiting = waiting;
                    return false;
                }
            }
            if self.socket.is_none() || !self.readable || !self.session.wants_request() {
                return false;
            }
            if self.input.is_ahead() && !self.input.may_hold() {
                // The program takes quickly what is held; then the rest can be spliced.
                return false;
            }
            let allowance = self.allowance(cx);
            if allowance == 0 {
                return false;
            }
            let buffer = match self.next_input(cx) {
                NextInput::Spliced => continue,
                NextInput::Waiting => return false,
                NextInput::UpTo(len) => scratch.chunk().get_mut(..len).unwrap_or_default(),
                NextInput::Anything => {
                    let chunk = scratch.chunk();
                    let most = allowance.min(chunk.len());
                    chunk.get_mut(..most).unwrap_or_default()
                }
            };
            let wanted = buffer.len();
            let Some(socket) = &self.socket else { return false };
            let mut passed = Passed::default();
            let received = transfer::receive(socket, buffer, &mut passed);
            if (passed.lost || !passed.descriptors.is_empty()) && self.session.wants_descriptors() {
                self.take_descriptors(cx, passed);
            }
            match received {
                Ok(Moved::Bytes(n)) => {
                    self.activity += 1;
                    self.received += n as u64;
                    self.input.note_received(n);
                    self.input.big = false;
                    // This may answer what the program has said. Then the program has its ends, and if it has
                    // closed its input, that shows now, and perhaps never again.
                    cx.spawner.borrow_mut().let_go_of_streams();
                    let bytes = scratch.chunk().get(..n).unwrap_or_default();
                    let left = self.consume(cx, bytes);
                    self.input.big &= n == wanted || n >= SPLICE_MIN;
                    if self.socket.is_some() {
                        self.input.waiting = bytes.get(n - left..).unwrap_or_default().to_vec();
                    }
                    // Taking arguments and options apart costs more than moving as many bytes.
                    if n == CHUNK && self.session.wants_descriptors() {
                        return true;
                    }
                }
                Ok(Moved::WouldBlock) => {
                    self.readable = false;
                    if !self.input.is_ahead() {
                        // All that has come was taken.
                        self.input.ahead = None;
                    }
                }
                Ok(Moved::End) => {
                    (self.readable, self.input_ended) = (false, true);
                    log::debug!("connection {}: client has ended its sending", self.number);
                    self.session.client_ended(cx.now);
                    self.perform(cx);
                }
                Err(error) => {
                    self.readable = false;
                    log::debug!("connection {}: client gone: {error}", self.number);
                    self.session.client_gone(cx.now);
                    self.perform(cx);
                }
            }
        }
        false
    }

    /// Splices input to the program if much of it is known to come. Otherwise returns what to read.
    fn next_input(&mut self, cx: &Context<'_>) -> NextInput {
        if !self.input.big || self.input.is_ahead() || !cx.splicer.borrow().is_enabled() {
            return NextInput::Anything;
        }
        let pipe = self.child.as_mut().and_then(|child| child.stdin.as_mut());
        let (Some(socket), Some(pipe)) = (&self.socket, pipe.filter(|pipe| pipe.is_pipe())) else {
            return NextInput::Anything;
        };
        let len = match self.session.step(cx.now, &[]) {
            (_, Step::Stdin(len)) => at_most(MAX_INPUT_SPLICE, len),
            (_, Step::NeedMore) => 0,
            (_, Step::Drop(_)) => return NextInput::Anything,
        };
        if len < if self.input.spliced { MIN_INPUT_SPLICE } else { SPLICE_MIN } {
            return NextInput::UpTo(len + usize::from(self.input.usual_framing));
        }
        if !pipe.ready {
            self.watch_pace(cx.now);
            return if self.input.may_hold() { NextInput::Anything } else { NextInput::Waiting };
        }
        if self.input.guard == Guard::Down {
            self.input.guard = match socket::refuse_descriptors(socket) {
                Ok(queued) => Guard::Rising(queued),
                Err(_) if self.peer.is_some_and(Peer::is_as_mighty) => Guard::Up,
                Err(_) => Guard::Never,
            };
        }
        match self.input.guard {
            Guard::Up | Guard::Rising(0) => {}
            Guard::Rising(left) => return NextInput::UpTo(at_most(CHUNK, left)),
            Guard::Down | Guard::Never => return NextInput::Anything,
        }
        let splicer = cx.splicer.borrow();
        match splicer.receive(socket.as_fd(), pipe.as_fd(), len) {
            Received::Bytes(n) => {
                self.activity += 1;
                self.received += n as u64;
                // Small pieces are better copied: each spliced one takes a page of the pipe.
                self.input.big = n >= MIN_INPUT_SPLICE;
                self.input.spliced = true;
                self.session.moved(n as u64);
                self.note_taken(n as u64, cx.now);
                if let Some(child) = &mut self.child {
                    child.calm();
                }
                NextInput::Spliced
            }
            Received::WouldBlock { socket, pipe: full } => {
                self.readable &= !socket;
                if full && pipe.found_full(&splicer) {
                    return NextInput::Spliced;
                }
                if full {
                    self.wait_for_stdin(cx);
                }
                NextInput::Waiting
            }
            // Copying shows what it means.
            Received::SocketEnd | Received::PipeEnd | Received::Unable => {
                self.input.big = false;
                NextInput::Anything
            }
        }
    }

    /// Does with the client's bytes what the session says. Returns how many are left because the program's
    /// input takes no more.
    fn consume(&mut self, cx: &Context<'_>, mut bytes: &[u8]) -> usize {
        loop {
            let (used, step) = self.session.step(cx.now, bytes);
            bytes = bytes.get(used..).unwrap_or_default();
            self.input.note_framing(used);
            self.perform(cx);
            let moved = match step {
                Step::NeedMore if used == 0 || bytes.is_empty() => return bytes.len(),
                Step::NeedMore => 0,
                Step::Drop(len) => at_most(bytes.len(), len),
                Step::Stdin(len) => {
                    self.input.note_payload(len);
                    let payload = bytes.get(..at_most(bytes.len(), len)).unwrap_or_default();
                    let written = if self.input.is_ahead() { None } else { self.write_stdin(cx, payload) };
                    match written {
                        Some(written) => written,
                        None => match self.hold(payload) {
                            0 => return bytes.len(),
                            held => {
                                bytes = bytes.get(held..).unwrap_or_default();
                                continue;
                            }
                        },
                    }
                }
            };
            if moved > 0 {
                self.activity += 1;
                self.session.moved(moved as u64);
                bytes = bytes.get(moved..).unwrap_or_default();
            } else if bytes.is_empty() {
                return 0;
            }
        }
    }

    /// Holds as much of `payload`, which the program does not take now, as is allowed. Returns how much.
    fn hold(&mut self, payload: &[u8]) -> usize {
        let room = if self.input.may_hold() { self.session.room_ahead() } else { 0 };
        let held = at_most(payload.len(), room);
        if held > 0
            && let Some(ahead) = &mut self.input.ahead
        {
            ahead.hold(payload.get(..held).unwrap_or_default());
            self.activity += 1;
            self.session.held(held as u64);
        }
        held
    }

    /// Writes held input to the program, as far as it takes it.
    fn release(&mut self, cx: &Context<'_>) {
        while let Some(ahead) = self.input.ahead.as_mut().filter(|ahead| !ahead.is_empty()) {
            let outcome = write_to(self.child.as_mut(), ahead.front());
            if let Ok(Some(Moved::Bytes(n))) = outcome {
                ahead.release(n);
            }
            match self.wrote(cx, outcome) {
                Some(n @ 1..) => {
                    self.activity += 1;
                    self.session.released(n as u64);
                    self.perform(cx);
                }
                Some(_) | None => return,
            }
        }
    }

    /// The program has taken this much of its input.
    fn note_taken(&mut self, n: u64, now: Time) {
        if let Some(ahead) = &mut self.input.ahead {
            ahead.took(n, now);
        }
    }

    /// When to judge the pace of a program that does not take its input.
    pub(super) fn next_input_timer(&self) -> Option<Time> {
        let is_full = self.child.as_ref().and_then(|child| child.stdin.as_ref()).is_some_and(|pipe| !pipe.ready);
        self.input.ahead.as_ref().filter(|_| is_full).and_then(|ahead| ahead.due())
    }

    /// Writes some of `bytes` to the program's input. None: it takes no more for now.
    fn write_stdin(&mut self, cx: &Context<'_>, bytes: &[u8]) -> Option<usize> {
        if bytes.is_empty() {
            return None;
        }
        let outcome = write_to(self.child.as_mut(), bytes);
        self.wrote(cx, outcome)
    }

    /// Handles the result of [`write_to`]. Returns how many bytes are done with; `None`: the program takes no
    /// more for now.
    fn wrote(&mut self, cx: &Context<'_>, outcome: Result<Option<Moved>, Errno>) -> Option<usize> {
        match outcome {
            Ok(Some(Moved::Bytes(n))) => {
                self.note_taken(n as u64, cx.now);
                Some(n)
            }
            Ok(None) => {
                self.watch_pace(cx.now);
                None
            }
            Ok(Some(Moved::WouldBlock)) => {
                self.wait_for_stdin(cx);
                None
            }
            Err(error) => {
                self.give_up(cx, "write to the program", &error.into());
                Some(0)
            }
            Ok(Some(Moved::End)) => {
                log::debug!("connection {}: the program reads no more input", self.number);
                self.session.stdin_refused();
                self.perform(cx);
                Some(0)
            }
        }
    }

    /// The program does not take its input now, so its pace is watched from here on.
    fn watch_pace(&mut self, now: Time) {
        if self.input.ahead.is_none() && self.session.version() == Version::Two {
            self.input.ahead = Some(Box::new(Ahead::new(self.session.window(), now)));
        }
    }

    fn wait_for_stdin(&mut self, cx: &Context<'_>) {
        self.watch_pace(cx.now);
        let token = token(self.slot, Source::Stdin);
        if let Some(pipe) = self.child.as_mut().and_then(|child| child.stdin.as_mut())
            && let Err(error) = pipe.wait(cx.registry, token, Interest::WRITABLE)
        {
            self.give_up(cx, "wait for the program to read", &error);
        }
    }
}

/// Writes some of `bytes` to the program's input. `None`: it is known to take no more for now.
fn write_to(child: Option<&mut Child>, bytes: &[u8]) -> Result<Option<Moved>, Errno> {
    let Some(child) = child else { return Ok(Some(Moved::End)) };
    let moved = match &child.stdin {
        Some(pipe) if pipe.ready => pipe.write(bytes)?,
        Some(_) => return Ok(None),
        None => return Ok(Some(Moved::End)),
    };
    if let Moved::Bytes(n) = moved {
        child.note_input(bytes.get(..n).unwrap_or_default());
    }
    Ok(Some(moved))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much is read for the head of the next chunk, after these bytes before the last one.
    fn after(framing: &[usize]) -> u8 {
        let mut input = Input::new();
        for &len in framing {
            input.note_framing(len);
        }
        input.note_payload(1);
        input.usual_framing
    }

    #[test]
    fn the_next_head_is_taken_to_be_as_long_as_the_last() {
        assert_eq!(after(&[b",65536:".len()]), 7);
        assert_eq!(after(&[1, 0, 8, 6]), 15, "in pieces");
        // The whole request, or pairs of another kind: no guess.
        assert_eq!(after(&[4000]), USUAL_FRAMING);
        assert_eq!(after(&[300, 7]), USUAL_FRAMING);
        assert_eq!(after(&[30]), USUAL_FRAMING);
        assert_eq!(after(&[b",5:stdin,9223372036854775807:".len()]), MAX_FRAMING);
    }

    #[test]
    fn the_rest_of_a_spliced_chunk_is_spliced() {
        let mut input = Input::new();
        input.note_framing(7);
        input.note_payload(SPLICE_MIN as u64);
        assert!(input.big && !input.spliced);
        input.spliced = true;
        input.note_payload(5000);
        assert!(input.spliced, "the same chunk");
        input.note_framing(1);
        input.note_framing(6);
        input.note_payload(5000);
        assert!(!input.spliced, "another one");
    }
}

//! What comes from the client: requests, and input on its way to the program.

use std::os::fd::AsFd as _;

use mio::Interest;

use super::{CHUNKS_A_ROUND, Connection, Context};
use crate::daemon::scratch::Scratch;
use crate::daemon::token::{Source, token};
use crate::engine::{Step, at_most};
use crate::sys::splice::{Received, SPLICE_MIN};
use crate::sys::transfer::{self, Moved};

/// The most input that is spliced at once, in bytes.
const MAX_INPUT_SPLICE: usize = 1 << 20;

/// Input that comes in smaller pieces than this is not spliced, in bytes.
const MIN_INPUT_SPLICE: usize = 4 << 10;

/// How much is read when only the head of the next chunk is wanted, in bytes: it, and little of what can be spliced.
const HEADER_READ: usize = 16;

/// How the client's next bytes are taken.
enum NextInput {
    /// Some were, or can be now.
    Spliced,
    /// Not now.
    Waiting,
    /// So many bytes are to be read, and no more: the payload behind them will be spliced.
    UpTo(usize),
    /// As much as there is is to be read.
    Anything,
}

impl Connection {
    pub(super) fn pump_request(&mut self, cx: &Context<'_>, scratch: &mut Scratch) {
        for _ in 0..CHUNKS_A_ROUND {
            if !self.inbox.is_empty() {
                let mut inbox = std::mem::take(&mut self.inbox);
                let left = self.consume(cx, &inbox);
                if left > 0 && self.socket.is_some() {
                    inbox.drain(..inbox.len() - left);
                    self.inbox = inbox;
                    return;
                }
            }
            if self.socket.is_none() || !self.readable || !self.session.wants_request() {
                return;
            }
            let buffer = match self.next_input(cx) {
                NextInput::Spliced => continue,
                NextInput::Waiting => return,
                NextInput::UpTo(len) => scratch.chunk().get_mut(..len).unwrap_or_default(),
                NextInput::Anything => scratch.chunk(),
            };
            let wanted = buffer.len();
            self.big_input = false;
            let Some(socket) = &self.socket else { return };
            let mut descriptors = Vec::new();
            let received = if self.session.wants_descriptors() {
                transfer::receive_with_descriptors(socket, buffer, &mut descriptors)
            } else {
                transfer::receive(socket, buffer)
            };
            if !descriptors.is_empty() {
                self.take_descriptors(cx, descriptors);
            }
            match received {
                Ok(Moved::Bytes(n)) => {
                    self.activity += 1;
                    self.received += n as u64;
                    let bytes = scratch.chunk().get(..n).unwrap_or_default();
                    let left = self.consume(cx, bytes);
                    self.big_input &= n == wanted || n >= SPLICE_MIN;
                    if self.socket.is_some() {
                        self.inbox = bytes.get(n - left..).unwrap_or_default().to_vec();
                    }
                }
                Ok(Moved::WouldBlock) => self.readable = false,
                Ok(Moved::End) => {
                    self.readable = false;
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
    }

    /// Splices input to the program if much of it is known to come, and tells what is to be read otherwise.
    fn next_input(&mut self, cx: &Context<'_>) -> NextInput {
        if !self.big_input || !cx.splicer.borrow().is_enabled() {
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
        if len < SPLICE_MIN {
            return NextInput::UpTo(len + HEADER_READ);
        }
        if !pipe.ready {
            return NextInput::Waiting;
        }
        let splicer = cx.splicer.borrow();
        match splicer.receive(socket.as_fd(), pipe.as_fd(), len) {
            Received::Bytes(n) => {
                self.activity += 1;
                self.received += n as u64;
                // A client that sends in small pieces is served better by copying: each piece is a page of a pipe.
                self.big_input = n >= MIN_INPUT_SPLICE;
                self.session.moved(n as u64);
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
            // What it means is found by copying.
            Received::SocketEnd | Received::PipeEnd | Received::Unable => {
                self.big_input = false;
                NextInput::Anything
            }
        }
    }

    /// Does with the client's bytes what the session says; how many are left because the program's
    /// input takes no more.
    fn consume(&mut self, cx: &Context<'_>, mut bytes: &[u8]) -> usize {
        loop {
            let (used, step) = self.session.step(cx.now, bytes);
            bytes = bytes.get(used..).unwrap_or_default();
            self.perform(cx);
            let moved = match step {
                Step::NeedMore if used == 0 || bytes.is_empty() => return bytes.len(),
                Step::NeedMore => 0,
                Step::Drop(len) => at_most(bytes.len(), len),
                Step::Stdin(len) => {
                    self.big_input |= len >= SPLICE_MIN as u64;
                    match self.write_stdin(cx, at_most(bytes.len(), len), bytes) {
                        Some(written) => written,
                        None => return bytes.len(),
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

    /// Writes up to `len` of `bytes` to the program's input. None: it takes no more for now.
    fn write_stdin(&mut self, cx: &Context<'_>, len: usize, bytes: &[u8]) -> Option<usize> {
        let bytes = bytes.get(..len).unwrap_or_default();
        if bytes.is_empty() {
            return None;
        }
        let moved = match self.child.as_mut().and_then(|child| child.stdin.as_mut()) {
            Some(pipe) if pipe.ready => pipe.write(bytes),
            Some(_) => return None,
            None => Ok(Moved::End),
        };
        match moved {
            Ok(Moved::Bytes(n)) => {
                if let Some(child) = &mut self.child {
                    child.note_input(bytes.get(..n).unwrap_or_default());
                }
                Some(n)
            }
            Ok(Moved::WouldBlock) => {
                self.wait_for_stdin(cx);
                None
            }
            Err(error) => {
                self.give_up(cx, "write to the program", &error.into());
                Some(0)
            }
            Ok(Moved::End) => {
                log::debug!("connection {}: the program reads no more input", self.number);
                self.session.stdin_refused();
                self.perform(cx);
                Some(0)
            }
        }
    }

    fn wait_for_stdin(&mut self, cx: &Context<'_>) {
        let token = token(self.slot, Source::Stdin);
        if let Some(pipe) = self.child.as_mut().and_then(|child| child.stdin.as_mut())
            && let Err(error) = pipe.wait(cx.registry, token, Interest::WRITABLE)
        {
            self.give_up(cx, "wait for the program to read", &error);
        }
    }
}

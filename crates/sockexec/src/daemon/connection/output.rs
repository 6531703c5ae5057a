//! What goes to the client: the program's output, and what the session says.

use std::net::Shutdown;
use std::os::fd::AsFd as _;

use mio::Interest;
use sockexec_proto::Stream;

use super::{CHUNKS_A_ROUND, Connection, Context};
use crate::daemon::child::{self, Pipe};
use crate::daemon::outbox::Flush;
use crate::daemon::scratch::{CHUNK, Scratch};
use crate::daemon::token::{Source, token};
use crate::engine::{Backpressure, at_most};
use crate::sys::splice::{SPLICE_MIN, Spliced};
use crate::sys::transfer::{self, Moved};

/// Payloads from this size on are sent from where they were read; smaller ones are collected.
const DIRECT: usize = 16 << 10;

impl Connection {
    pub(super) fn flush(&mut self, cx: &Context<'_>) {
        let mut budget = CHUNKS_A_ROUND * CHUNK;
        self.put_report();
        self.send(cx, &mut budget);
        // One that became due while another waited to be sent.
        while self.put_report() {
            self.send(cx, &mut budget);
        }
    }

    /// Queues a report of how much input was taken, if one is due and no other waits to be sent.
    fn put_report(&mut self) -> bool {
        if self.reported_at > self.sent || self.socket.is_none() {
            return false;
        }
        let Some(report) = self.session.report() else { return false };
        self.outbox.push(&report);
        self.reported_at = self.sent + self.outbox.len();
        true
    }

    /// Sends what waits, about `budget` bytes at most.
    fn send(&mut self, cx: &Context<'_>, budget: &mut usize) {
        let (Some(socket), true) = (&self.socket, self.writable) else { return };
        let before = self.outbox.len();
        let outcome = self.outbox.flush(socket, budget);
        let sent = before - self.outbox.len();
        self.sent += sent;
        self.activity += sent;
        match outcome {
            Flush::Empty if self.finishing => {
                // In the same turn as the exit pair, and not left to close(2): a copy of the socket that a
                // child holds before its exec would keep the connection open, and lua-resty-exec takes an end
                // that comes a millisecond late for a timeout.
                let closes = self.session.closes_with_reply() && !self.input_ended;
                let _ = socket.shutdown(if closes { Shutdown::Both } else { Shutdown::Write });
                self.finishing = false;
                self.activity += 1;
                log::debug!("connection {}: reply complete", self.number);
                self.session.sent(cx.now);
            }
            Flush::Empty | Flush::Budget => {}
            Flush::Blocked => self.writable = false,
            Flush::Broken | Flush::Lost => {
                if outcome == Flush::Broken {
                    log::debug!("connection {}: client gone", self.number);
                }
                self.session.client_gone(cx.now);
                self.activity += 1;
            }
        }
    }

    pub(super) fn pump_output(&mut self, cx: &Context<'_>, scratch: &mut Scratch, stream: Stream) {
        if self.session.wants_executed() {
            return;
        }
        for _ in 0..CHUNKS_A_ROUND {
            if !self.outbox.has_room(self.session.backpressure()) {
                return;
            }
            let Some(child) = &mut self.child else { return };
            let Some(pipe) = child.output(stream) else { return };
            if !pipe.ready {
                return;
            }
            if pipe.left == Some(0) {
                return self.end_output(cx, stream);
            }
            if pipe.big && pipe.left.is_none() {
                match self.splice_output(cx, stream) {
                    Some(true) => continue,
                    Some(false) => return,
                    None => {}
                }
            }
            let Some(pipe) = self.child.as_mut().and_then(|child| child.output(stream).as_mut()) else { return };
            let buffer = scratch.payload();
            let most = pipe.left.map_or(buffer.len(), |left| at_most(buffer.len(), left.into()));
            match pipe.read(buffer.get_mut(..most).unwrap_or_default()) {
                Ok(Moved::Bytes(n)) => {
                    if let Some(left) = &mut pipe.left {
                        *left = left.saturating_sub(u32::try_from(n).unwrap_or(u32::MAX));
                    }
                    pipe.big = n == most && pipe.is_pipe();
                    pipe.chatter.note(n, cx.now);
                    // What was written since would make a frame of its own.
                    let enough = n < most && pipe.left.is_none() && pipe.chatter.is_chatty();
                    let gathers = enough && gather(cx, pipe);
                    self.activity += 1;
                    self.queue(scratch, stream, n);
                    if gathers {
                        return;
                    }
                }
                Ok(Moved::WouldBlock) if pipe.left.is_some() => self.end_output(cx, stream),
                Ok(Moved::WouldBlock) => {
                    self.session.output_is_empty(cx.now);
                    if gather(cx, pipe) {
                        return;
                    }
                    let source = match stream {
                        Stream::Stdout => Source::Stdout,
                        Stream::Stderr => Source::Stderr,
                    };
                    if let Err(error) = pipe.wait(cx.registry, token(self.slot, source), Interest::READABLE) {
                        self.give_up(cx, &format!("wait for {}", stream.tag()), &error);
                        self.end_output(cx, stream);
                    }
                    return;
                }
                Ok(Moved::End) => self.end_output(cx, stream),
                Err(error) => {
                    self.give_up(cx, &format!("read {}", stream.tag()), &error.into());
                    self.end_output(cx, stream);
                }
            }
        }
    }

    /// If the client does not read, output may stay where it is, but the program's end must still be noticed.
    pub(super) fn note_stall(&mut self) {
        let has_output = self.child.as_mut().is_some_and(|child| child.outputs().next().is_some());
        if !self.writable && has_output && self.session.output_stalls() {
            self.activity += 1;
        }
    }

    /// Splices a big stream to the client. False: the client must read first. `None`: the bytes must be
    /// copied.
    fn splice_output(&mut self, cx: &Context<'_>, stream: Stream) -> Option<bool> {
        let mut splicer = cx.splicer.borrow_mut();
        if !splicer.is_enabled() {
            return None;
        }
        match self.session.backpressure() {
            Backpressure::Discard => return None,
            // If it were read, it would be queued in memory and copied from there, so it stays in the pipe.
            Backpressure::Strict if !self.outbox.is_empty() || !self.writable => return Some(false),
            Backpressure::Spool if !self.outbox.is_empty() || !self.writable => return None,
            Backpressure::Strict | Backpressure::Spool => {}
        }
        let socket = self.socket.as_ref()?;
        let pipe = self.child.as_mut()?.output(stream).as_mut()?;
        let available = transfer::available(pipe.as_fd());
        if available < SPLICE_MIN {
            return None;
        }
        if available >= child::PIPE_SIZE && pipe.found_full(&splicer) {
            splicer.grow_send_buffer(socket.as_fd());
        }
        let frame = |len| self.session.output(stream, len);
        let most = self.session.most_output();
        match splicer.send(pipe.as_fd(), available, socket.as_fd(), most, frame) {
            Spliced::Sent(sent) => {
                self.activity += 1;
                self.sent += sent as u64;
                Some(true)
            }
            Spliced::Rest { sent, rest, cut } => {
                self.activity += 1;
                self.sent += sent as u64;
                self.outbox.push_rest(rest, cut);
                Some(true)
            }
            Spliced::WouldBlock => {
                self.writable = false;
                // The program must not wait for a client that may not read yet.
                (self.session.backpressure() == Backpressure::Strict).then_some(false)
            }
            Spliced::End => {
                log::debug!("connection {}: client gone", self.number);
                self.session.client_gone(cx.now);
                self.activity += 1;
                Some(false)
            }
            Spliced::Unable => None,
        }
    }

    /// Queues the `len` bytes in `scratch`, or sends them at once if they are many.
    fn queue(&mut self, scratch: &mut Scratch, stream: Stream, len: usize) {
        let Some(frame) = self.session.output(stream, len) else { return };
        let framed = scratch.framed(&frame, len);
        if len >= DIRECT
            && self.writable
            && let Some(socket) = &self.socket
        {
            let before = self.outbox.len();
            let flushed = self.outbox.flush(socket, &mut (CHUNKS_A_ROUND * CHUNK));
            self.sent += before - self.outbox.len();
            if flushed == Flush::Empty
                && let Moved::Bytes(n) = transfer::send(socket, framed)
            {
                self.sent += n as u64;
                let rest = framed.get(n..).unwrap_or_default();
                return self.outbox.push_rest(rest.to_vec(), rest.len());
            }
        }
        self.outbox.push(framed);
    }

    fn end_output(&mut self, cx: &Context<'_>, stream: Stream) {
        self.activity += 1;
        if let Some(pipe) = self.child.as_mut().and_then(|child| child.output(stream).take()) {
            pipe.close(cx.registry);
        }
        self.session.output_closed(stream);
        self.perform(cx);
    }
}

/// Leaves a stream alone for a moment, if it is chatty and timers are exact enough; false: it must be waited
/// for.
fn gather(cx: &Context<'_>, pipe: &mut Pipe) -> bool {
    let gathers = cx.gathers && pipe.gather(cx.registry);
    if gathers {
        cx.totals.gathered();
    }
    gathers
}

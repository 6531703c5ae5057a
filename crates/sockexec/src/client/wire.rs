//! Both directions of a connection as buffers: bytes in, bytes out, no descriptor. The blocking pump
//! and the asynchronous one drive the same two.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use sockexec_proto::reply::Event;
use sockexec_proto::{BadReply, Exit, ReplyDecoder, Stream, netstring, request};

use super::{Error, ExitStatus};

/// Bytes that are read at once, of standard input and of the reply: what a pipe holds on Linux.
pub(super) const PIECE: usize = 64 << 10;

/// Room before a piece for the head of its netstring.
const HEAD: usize = netstring::MAX_HEADER;

/// What is to be sent: the request, then one chunk of standard input after the other.
#[derive(Debug)]
pub(super) struct Outgoing {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outgoing {
    /// Starts with what makes the daemon start the program.
    pub(super) fn new(argv: &[OsString]) -> Self {
        let argv: Vec<&[u8]> = argv.iter().map(|argument| argument.as_bytes()).collect();
        let mut buffer = Vec::new();
        request::encode_exec(&argv, &mut buffer);
        let end = buffer.len();
        Self { buffer, start: 0, end }
    }

    /// What is to be sent next.
    pub(super) fn pending(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether everything was sent.
    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// So much of [`Outgoing::pending`] was sent.
    pub(super) fn sent(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Where the next bytes of standard input are to be put; only when everything was sent. Then call
    /// [`Outgoing::put`].
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.buffer.len() != HEAD + PIECE + 1 {
            // The request itself may have been larger.
            self.buffer = vec![0; HEAD + PIECE + 1];
        }
        (self.start, self.end) = (0, 0);
        self.buffer.get_mut(HEAD..HEAD + PIECE).unwrap_or_default()
    }

    /// So many bytes were put into [`Outgoing::space`]; none: standard input is at its end.
    pub(super) fn put(&mut self, n: usize) {
        if n == 0 {
            return self.put_end();
        }
        let header = request::chunk_header(n as u64);
        let header = header.as_bytes();
        let start = HEAD.saturating_sub(header.len());
        if let Some(head) = self.buffer.get_mut(start..HEAD) {
            head.copy_from_slice(header);
        }
        if let Some(last) = self.buffer.get_mut(HEAD + n) {
            *last = netstring::TERMINATOR;
        }
        (self.start, self.end) = (start, HEAD + n + 1);
    }

    /// Appends the end of standard input to what is still to be sent.
    pub(super) fn put_end(&mut self) {
        self.buffer.truncate(self.end);
        self.buffer.extend_from_slice(request::END_OF_STDIN);
        self.end = self.buffer.len();
    }

    /// Drops what is still to be sent.
    pub(super) fn clear(&mut self) {
        self.start = self.end;
    }
}

/// What has come of the reply.
#[derive(Debug)]
pub(super) struct Incoming {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    decoder: ReplyDecoder,
    exit: Option<Exit>,
}

impl Incoming {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; PIECE].into_boxed_slice(), start: 0, end: 0, decoder: ReplyDecoder::new(), exit: None }
    }

    /// Where the next bytes of the reply are to be put; only when [`Incoming::next`] has found nothing
    /// more. Then call [`Incoming::put`].
    pub(super) fn space(&mut self) -> &mut [u8] {
        (self.start, self.end) = (0, 0);
        &mut self.buffer
    }

    /// So many bytes were put into [`Incoming::space`].
    pub(super) fn put(&mut self, n: usize) {
        self.end = n.min(self.buffer.len());
    }

    /// The next piece of output that has arrived. It stays until it is [consumed](Incoming::consume).
    pub(super) fn next(&mut self) -> Result<Option<(Stream, &[u8])>, BadReply> {
        loop {
            let input = self.buffer.get(self.start..self.end).unwrap_or_default();
            let (used, event) = self.decoder.next(input)?;
            self.start += used;
            let arrived = self.end - self.start;
            match event {
                Event::NeedMore => return Ok(None),
                // 3.1.1 may send a second one; the first tells what waitpid(2) told.
                Event::Exit(exit) => {
                    self.exit.get_or_insert(exit);
                }
                Event::Output(..) | Event::Unknown(_) if arrived == 0 => return Ok(None),
                Event::Output(stream, len) => {
                    let piece = self.start..self.start + netstring::at_most(arrived, len);
                    return Ok(self.buffer.get(piece).map(|bytes| (stream, bytes)));
                }
                Event::Unknown(len) | Event::Status(len) => self.consume(netstring::at_most(arrived, len)),
                // Only a decoder of version 2 tells of these.
                Event::Started(_) | Event::EndOfOutput(_) | Event::Failure(_) | Event::Usage(_) => {}
            }
        }
    }

    /// So many bytes of the piece were taken.
    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        self.decoder.advance(n as u64);
    }

    /// What the end of the connection, or the failure that it ended with, makes of it.
    pub(super) fn finish(&mut self, failure: Option<io::Error>) -> Result<ExitStatus, Error> {
        let within_pair = !self.decoder.at_boundary();
        match &self.exit {
            // Output that breaks off is not to pass for all of it, whatever the status.
            Some(exit) if !within_pair => Ok(ExitStatus::new(exit)),
            Some(_) | None => Err(Error::Lost { received: self.decoder.offset(), within_pair, source: failure }),
        }
    }
}

//! Both directions of a connection as buffers: bytes in, bytes out, no descriptor. The blocking pump
//! and the asynchronous one drive the same two.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use sockexec_proto::reply::{self, Event};
use sockexec_proto::{BadReply, Exit, Failure, Options, ReplyDecoder, Stream, Usage, Version, netstring, request};

use super::{Error, ExitStatus};

/// Bytes that are read at once, of standard input and of the reply: what a pipe holds on Linux.
pub(super) const PIECE: usize = 64 << 10;

/// Room before a piece for the head of its netstring, or of its pair.
const HEAD: usize = reply::MAX_HEADER;

/// What is to be sent: the request, then one chunk of standard input after the other.
#[derive(Debug)]
pub(super) struct Outgoing {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    version: Version,
}

impl Outgoing {
    /// Starts with what makes the daemon start the program; `options` are only told in version 2.
    pub(super) fn new(version: Version, options: &Options, argv: &[OsString]) -> Self {
        let argv: Vec<&[u8]> = argv.iter().map(|argument| argument.as_bytes()).collect();
        let mut buffer = Vec::new();
        match version {
            Version::One => request::encode_exec(&argv, &mut buffer),
            Version::Two => request::encode_request(options, &argv, &mut buffer),
        }
        let end = buffer.len();
        Self { buffer, start: 0, end, version }
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
        let (chunk, pair);
        let header = match self.version {
            Version::One => {
                chunk = request::chunk_header(n as u64);
                chunk.as_bytes()
            }
            Version::Two => {
                pair = request::stdin_header(n as u64);
                pair.as_bytes()
            }
        };
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
        let end = match self.version {
            Version::One => request::END_OF_STDIN,
            Version::Two => request::END_OF_TAGGED_STDIN,
        };
        self.append(end);
    }

    /// Appends whole netstrings to what is still to be sent.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.buffer.truncate(self.end);
        self.buffer.extend_from_slice(bytes);
        self.end = self.buffer.len();
    }

    /// Drops what is still to be sent.
    pub(super) fn clear(&mut self) {
        self.start = self.end;
    }
}

/// How a run ended, and what it cost if the daemon tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) usage: Option<Usage>,
}

/// What has come of the reply.
#[derive(Debug)]
pub(super) struct Incoming {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    decoder: ReplyDecoder,
    version: Version,
    pid: Option<u32>,
    /// The first one tells the cause.
    failure: Option<Failure>,
    usage: Option<Usage>,
    exit: Option<Exit>,
    /// What only a daemon says that does not know version 2.
    old: bool,
}

impl Incoming {
    pub(super) fn new(version: Version) -> Self {
        Self {
            buffer: vec![0; PIECE].into_boxed_slice(),
            start: 0,
            end: 0,
            decoder: ReplyDecoder::of(version),
            version,
            pid: None,
            failure: None,
            usage: None,
            exit: None,
            old: false,
        }
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
                    self.old |= !self.is_answered();
                    self.exit.get_or_insert(exit);
                }
                Event::Output(..) | Event::Unknown(_) if arrived == 0 => return Ok(None),
                // Before it has said that the program was started: an answer of version 1, that the request is none.
                Event::Output(_, len) if !self.is_answered() => {
                    self.old = true;
                    self.consume(netstring::at_most(arrived, len));
                }
                Event::Output(stream, len) => {
                    let piece = self.start..self.start + netstring::at_most(arrived, len);
                    return Ok(self.buffer.get(piece).map(|bytes| (stream, bytes)));
                }
                Event::Unknown(len) | Event::Status(len) => self.consume(netstring::at_most(arrived, len)),
                Event::Started(pid) => self.pid = Some(pid),
                Event::Failure(failure) => {
                    self.failure.get_or_insert(failure);
                }
                Event::Usage(usage) => self.usage = Some(usage),
                Event::Introduction(_)
                | Event::Queued(_)
                | Event::Taken(_)
                | Event::InputClosed
                | Event::EndOfOutput(_) => {}
            }
        }
    }

    /// So many bytes of the piece were taken.
    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        self.decoder.advance(n as u64);
    }

    /// Whether the daemon has said what it makes of the request; in version 1 it does not.
    pub(super) const fn is_answered(&self) -> bool {
        matches!(self.version, Version::One) || self.pid.is_some() || self.failure.is_some()
    }

    /// Whether nothing has come yet.
    pub(super) const fn is_silent(&self) -> bool {
        self.decoder.offset() == 0
    }

    /// The number of the program's process, once it was told.
    pub(super) const fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// What the end of the connection, or the failure that it ended with, makes of it.
    pub(super) fn finish(&mut self, failure: Option<io::Error>) -> Result<Ended, Error> {
        if self.old {
            return Err(Error::Unsupported);
        }
        let within_pair = !self.decoder.at_boundary();
        // Output that breaks off is not to pass for all of it, whatever the status.
        let status = self.exit.as_ref().filter(|_| !within_pair).map(ExitStatus::new);
        match (self.failure.take(), status) {
            (Some(failure), status) => Err(Error::Failed { failure, status, usage: self.usage }),
            (None, Some(status)) => Ok(Ended { status, usage: self.usage }),
            (None, None) => Err(Error::Lost { received: self.decoder.offset(), within_pair, source: failure }),
        }
    }
}

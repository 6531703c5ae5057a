//! Both directions of a connection as buffers: bytes in, bytes out, no descriptors.

use std::ffi::OsString;
use std::io;

use sockexec_proto::reply::{self, Event, Introduction};
use sockexec_proto::{Exit, Failure, Options, ReplyDecoder, Stream, Usage, Version, netstring, request};

use super::wishes::{self, Rest, Wishes};
use super::{Error, ExitStatus};

/// The most bytes of the reply that are read at once: what a pipe holds on Linux.
const PIECE: usize = 64 << 10;

/// The most bytes of standard input that are sent at once.
const fn largest_piece(version: Version) -> usize {
    match version {
        Version::One => 64 << 10,
        Version::Two => 128 << 10,
    }
}

/// Room before a piece for the head of its netstring, or of its pair.
const HEAD: usize = reply::MAX_HEADER;

/// How every reply of version 2 begins: with the introduction.
pub(super) const OPENING: &[u8] = b"8:protocol,";

/// What to send: the request, then one chunk of standard input after the other.
#[derive(Debug)]
pub(super) struct Outgoing {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    version: Version,
    /// Bytes of standard input so far.
    input: u64,
    /// Bytes that were sent, or dropped, before [`Outgoing::pending`].
    begin: u64,
    /// What waits for the introduction.
    rest: Option<Box<Rest>>,
}

impl Outgoing {
    /// Starts with what makes the daemon start the program. `options` and `wishes` are sent in version 2
    /// only.
    pub(super) fn new(version: Version, options: &Options, wishes: &Wishes, argv: &[OsString]) -> Self {
        let (buffer, rest) = if wishes.is_empty() {
            (wishes::encode(version, options, argv), None)
        } else {
            (wishes::opening(), Some(Box::new(Rest::new(options, argv, wishes))))
        };
        let end = buffer.len();
        Self { buffer, start: 0, end, version, input: 0, begin: 0, rest }
    }

    /// The introduction has come: sends what waited for it.
    pub(super) fn complete(&mut self, introduction: &Introduction) {
        if let Some(rest) = self.rest.take() {
            self.append(&rest.into_bytes(introduction));
        }
    }

    /// The bytes to send next.
    pub(super) fn pending(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether everything was sent.
    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// This much of [`Outgoing::pending`] was sent.
    pub(super) fn sent(&mut self, n: usize) {
        let n = n.min(self.end - self.start);
        self.start += n;
        self.begin += n as u64;
    }

    /// Where [`Outgoing::pending`] begins in all that is sent.
    pub(super) const fn begin(&self) -> u64 {
        self.begin
    }

    /// Where it ends.
    pub(super) const fn end(&self) -> u64 {
        self.begin + (self.end - self.start) as u64
    }

    /// How many bytes of standard input were [put](Outgoing::put) so far.
    pub(super) const fn input(&self) -> u64 {
        self.input
    }

    /// Where to put the next bytes of standard input, at most `room`. Use it only when everything was sent,
    /// and call [`Outgoing::put`] then.
    pub(super) fn space(&mut self, room: usize) -> &mut [u8] {
        let len = HEAD + largest_piece(self.version) + 1;
        if self.buffer.len() != len {
            // The request itself may have been larger. The system provides zeroed pages only as they are used.
            self.buffer = vec![0; len];
        }
        (self.start, self.end) = (0, 0);
        let end = (HEAD + room).min(len - 1);
        self.buffer.get_mut(HEAD..end).unwrap_or_default()
    }

    /// This many bytes were put into [`Outgoing::space`]; 0: standard input is at its end.
    pub(super) fn put(&mut self, n: usize) {
        if n == 0 {
            return self.put_end();
        }
        self.input += n as u64;
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
        if let Some(rest) = &mut self.rest {
            return rest.behind.extend_from_slice(bytes);
        }
        if self.is_empty() {
            // Without input nothing else makes room: a program that gets signals all day would fill the memory.
            (self.start, self.end) = (0, 0);
        }
        self.buffer.truncate(self.end);
        self.buffer.extend_from_slice(bytes);
        self.end = self.buffer.len();
    }

    /// Drops what is still to be sent.
    pub(super) fn clear(&mut self) {
        self.sent(self.end - self.start);
    }
}

/// How a run ended, and the resources that it used, if the daemon reports them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) usage: Option<Usage>,
}

/// What the daemon has said about standard input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    version: Version,
    /// There is a program that can take it. Assumed in version 1, where the daemon does not say.
    started: bool,
    /// The program has closed it.
    closed: bool,
    /// The program has ended: input that nobody will read is left to the next reader.
    ended: bool,
    /// How many bytes may be unreported.
    size: u64,
    /// How many bytes were reported.
    taken: u64,
}

impl Window {
    const fn new(version: Version) -> Self {
        let started = matches!(version, Version::One);
        Self { version, started, closed: false, ended: false, size: reply::MIN_WINDOW, taken: 0 }
    }

    /// How many bytes the next piece may have after `sent` bytes. 0: none may be read or sent now.
    pub(super) fn room(&self, sent: u64) -> usize {
        let largest = largest_piece(self.version);
        if self.ended {
            return 0;
        }
        match self.version {
            Version::One => largest,
            Version::Two if !self.started || self.closed => 0,
            Version::Two => {
                let unreported = sent.saturating_sub(self.taken);
                let room = self.size.saturating_sub(unreported).min(self.size / 2);
                usize::try_from(room).unwrap_or(largest).min(largest)
            }
        }
    }

    /// Whether the program has closed its standard input: what is still sent is dropped.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }
}

/// The part of the reply that has come.
#[derive(Debug)]
pub(super) struct Incoming {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    decoder: ReplyDecoder,
    version: Version,
    /// How much of [`OPENING`] has come.
    opening: usize,
    /// The reply began differently: the daemon does not know version 2.
    old: bool,
    introduction: Option<Introduction>,
    window: Window,
    queued: Option<u64>,
    pid: Option<u32>,
    failure: Option<Failure>,
    usage: Option<Usage>,
    exit: Option<Exit>,
    /// The streams whose end was reported, in version 2.
    ended: Vec<Stream>,
}

impl Incoming {
    pub(super) fn new(version: Version) -> Self {
        Self {
            buffer: vec![0; PIECE].into_boxed_slice(),
            start: 0,
            end: 0,
            decoder: ReplyDecoder::of(version),
            version,
            opening: 0,
            old: false,
            introduction: None,
            window: Window::new(version),
            queued: None,
            pid: None,
            failure: None,
            usage: None,
            exit: None,
            ended: Vec::new(),
        }
    }

    /// Where to put the next bytes of the reply. Use it only when [`Incoming::next`] has found nothing more,
    /// and call [`Incoming::put`] then.
    pub(super) fn space(&mut self) -> &mut [u8] {
        (self.start, self.end) = (0, 0);
        &mut self.buffer
    }

    /// This many bytes were put into [`Incoming::space`].
    pub(super) fn put(&mut self, n: usize) {
        self.end = n.min(self.buffer.len());
        if self.version == Version::Two {
            let expected = OPENING.get(self.opening..).unwrap_or_default();
            let came = self.buffer.get(..self.end.min(expected.len())).unwrap_or_default();
            self.old |= !expected.starts_with(came);
            self.opening += came.len();
        }
    }

    /// The next piece of output that has arrived. It stays until it is [consumed](Incoming::consume).
    pub(super) fn next(&mut self) -> Result<Option<(Stream, &[u8])>, Error> {
        loop {
            let input = self.buffer.get(self.start..self.end).unwrap_or_default();
            let (used, event) = self.decoder.next(input)?;
            self.start += used;
            let arrived = self.end - self.start;
            match event {
                Event::NeedMore => return Ok(None),
                _ if self.old => return Err(Error::Unsupported),
                Event::Introduction(introduction) => {
                    if introduction.version < 2 {
                        return Err(Error::Unsupported);
                    }
                    self.window.size = introduction.window;
                    self.introduction = Some(introduction);
                }
                // 3.1.1 may send a second one; the first reports what waitpid(2) returned.
                Event::Exit(exit) => {
                    self.window.ended = true;
                    self.exit.get_or_insert(exit);
                }
                Event::Output(..) | Event::Unknown(_) | Event::Status(_) if arrived == 0 => return Ok(None),
                Event::Output(stream, len) => {
                    let piece = self.start..self.start + netstring::at_most(arrived, len);
                    return Ok(self.buffer.get(piece).map(|bytes| (stream, bytes)));
                }
                Event::Unknown(len) | Event::Status(len) => self.consume(netstring::at_most(arrived, len)),
                Event::Started(pid) => {
                    self.pid = Some(pid);
                    self.window.started = true;
                }
                Event::Taken(bytes) => self.window.taken = self.window.taken.max(bytes),
                Event::InputClosed => self.window.closed = true,
                Event::Failure(failure) => {
                    self.failure.get_or_insert(failure);
                }
                Event::Usage(usage) => {
                    self.window.ended = true;
                    self.usage = Some(usage);
                }
                Event::Queued(requests) => self.queued = Some(requests),
                // Sent once for each stream; a daemon that sends more must not take memory.
                Event::EndOfOutput(stream) if self.has_ended(stream) => {}
                Event::EndOfOutput(stream) => self.ended.push(stream),
            }
        }
    }

    /// This many bytes of the piece were taken.
    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        self.decoder.advance(n as u64);
    }

    /// Whether nothing more will come of this stream; always false in version 1, which does not report it.
    pub(super) fn has_ended(&self, stream: Stream) -> bool {
        self.ended.contains(&stream)
    }

    /// Whether it is still unknown if the daemon speaks version 2. In version 1 that does not matter.
    pub(super) const fn awaits_introduction(&self) -> bool {
        matches!(self.version, Version::Two) && self.introduction.is_none()
    }

    /// The daemon's introduction, once it has come.
    pub(super) const fn introduction(&self) -> Option<&Introduction> {
        self.introduction.as_ref()
    }

    /// What the daemon has said about standard input.
    pub(super) const fn window(&self) -> Window {
        self.window
    }

    /// How many requests wait for a slot, if this one does.
    pub(super) const fn queued(&self) -> Option<u64> {
        self.queued
    }

    /// The pid of the program's process, once it was reported.
    pub(super) const fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The result of the run at the end of the connection, or after the failure that ended it.
    pub(super) fn finish(&mut self, failure: Option<io::Error>) -> Result<Ended, Error> {
        if self.old {
            return Err(Error::Unsupported);
        }
        let within_pair = !self.decoder.at_boundary();
        // Output that breaks off must not pass for all of it, whatever the status.
        let status = self.exit.as_ref().filter(|_| !within_pair).map(ExitStatus::new);
        match (self.failure.take(), status) {
            (Some(failure), status) => Err(Error::Failed { failure, status, usage: self.usage, output: None }),
            (None, Some(status)) => Ok(Ended { status, usage: self.usage }),
            (None, None) => {
                Err(Error::Lost { received: self.decoder.offset(), within_pair, source: failure, output: None })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(incoming: &mut Incoming, bytes: &[u8]) {
        incoming.space()[..bytes.len()].copy_from_slice(bytes);
        incoming.put(bytes.len());
    }

    /// The result of a reply that arrives in two pieces, and its output.
    fn run(reply: &[u8], cut: usize) -> (Result<Ended, Error>, Vec<u8>) {
        let (mut incoming, mut output) = (Incoming::new(Version::Two), Vec::new());
        for piece in [&reply[..cut], &reply[cut..]] {
            put(&mut incoming, piece);
            loop {
                match incoming.next() {
                    Ok(Some((_, bytes))) => {
                        output.extend_from_slice(bytes);
                        let n = bytes.len();
                        incoming.consume(n);
                    }
                    Ok(None) => break,
                    Err(error) => return (Err(error), output),
                }
            }
        }
        (incoming.finish(None), output)
    }

    /// Also with a status that nobody has asked for: a decoder that was not advanced past its bytes looped
    /// for ever.
    #[test]
    fn cut_anywhere() {
        let reply = b"8:protocol,19:2 window=70000 x=y,,6:status,2:{},7:started,1:7,6:stdout,2:hi,8:exitcode,1:3,";
        for cut in 0..reply.len() {
            let (ended, output) = run(reply, cut);
            assert_eq!((ended.unwrap().status.code(), output.as_slice()), (Some(3), &b"hi"[..]), "{cut}");
        }
        for reply in [&b"7:started,1:7,8:exitcode,1:3,"[..], b"9:protocols,1:2,8:exitcode,1:3,", b"1:x,0:,"] {
            for cut in 0..reply.len() {
                let (ended, _) = run(reply, cut);
                assert!(matches!(ended, Err(Error::Unsupported)), "{cut}: {ended:?}");
            }
        }
        for cut in 0..6 {
            let (ended, _) = run(b"HTTP/1", cut);
            assert!(matches!(ended, Err(Error::Protocol(_))), "{cut}: {ended:?}");
        }
    }

    /// Signals and sizes take no memory once they were sent. They kept it for as long as there was no input.
    #[test]
    fn what_was_sent_takes_no_memory() {
        let mut outgoing = Outgoing::new(Version::Two, &Options::default(), &Wishes::default(), &["x".into()]);
        for _ in 0..1000 {
            let n = outgoing.pending().len();
            outgoing.sent(n);
            outgoing.append(b"7:winsize,5:80x24,");
        }
        assert_eq!(outgoing.pending(), b"7:winsize,5:80x24,");
        assert!(outgoing.buffer.len() < 100, "{}", outgoing.buffer.len());
    }

    #[test]
    fn room_in_the_window() {
        let mut incoming = Incoming::new(Version::Two);
        let mut room = |bytes: &[u8], sent| {
            put(&mut incoming, bytes);
            assert!(incoming.next().unwrap().is_none());
            incoming.window().room(sent)
        };
        assert_eq!(room(b"8:protocol,15:2 window=100001,", 0), 0);
        assert_eq!(room(b"7:started,1:7,", 0), 50_000);
        assert_eq!(room(b"", 50_000), 50_000);
        assert_eq!(room(b"", 100_000), 1);
        assert_eq!(room(b"", 100_001), 0);
        assert_eq!(room(b"5:taken,5:60000,", 100_001), 50_000);
        assert_eq!(room(b"", 150_000), 10_001);
        // These make no sense: fewer than before, more than was sent.
        assert_eq!(room(b"5:taken,5:50000,", 150_000), 10_001);
        assert_eq!(room(b"5:taken,20:18446744073709551615,", 150_000), 50_000);
        assert_eq!(room(b"12:input-closed,0:,", 150_000), 0);
        for end in [&b"8:exitcode,1:0,"[..], b"7:termsig,1:9,", b"5:usage,27:utime=0 stime=0 maxrss=3604,"] {
            for version in [Version::One, Version::Two] {
                if version == Version::One && end.starts_with(b"5:usage") {
                    continue;
                }
                let mut incoming = Incoming::new(version);
                if version == Version::Two {
                    put(&mut incoming, b"8:protocol,1:2,7:started,1:7,");
                    assert!(incoming.next().unwrap().is_none());
                }
                assert_ne!(incoming.window().room(0), 0);
                put(&mut incoming, end);
                assert!(incoming.next().unwrap().is_none());
                assert_eq!(incoming.window().room(0), 0, "{}", end.escape_ascii());
            }
        }
        assert_eq!(Window::new(Version::One).room(u64::MAX), 65_536);
        let size = |size| Window { started: true, size, ..Window::new(Version::Two) }.room(0);
        assert_eq!((size(1 << 20), size(u64::MAX)), (131_072, 131_072));
    }
}

//! A client of the daemon that checks everything it reads.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::Pid;
use sockexec_proto::reply::Event;
use sockexec_proto::{Exit, ReplyDecoder, Signal, Stream, netstring, request};

use super::PATIENCE;

/// The bytes of a request up to its last argument.
pub(crate) fn request<A: AsRef<[u8]>>(argv: &[A]) -> Vec<u8> {
    let mut bytes = Vec::new();
    request::encode_exec(argv, &mut bytes);
    bytes
}

/// A whole reply.
pub(crate) struct Reply {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// The tag and the payload of the last pair.
    pub(crate) exit: (String, String),
    /// All pairs, as they came.
    pub(crate) pairs: Vec<(String, Vec<u8>)>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_pairs(&self.pairs, f)
    }
}

/// Shows what came on the wire: of each pair the tag, the length and the first 500 bytes.
pub(crate) fn show_pairs(pairs: &[(String, Vec<u8>)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut list = f.debug_list();
    for (tag, payload) in pairs {
        let shown = &payload[..payload.len().min(500)];
        list.entry(&format_args!("{tag} ({}) \"{}\"", payload.len(), shown.escape_ascii()));
    }
    list.finish()
}

impl Reply {
    pub(crate) fn stdout_text(&self) -> &str {
        str::from_utf8(&self.stdout).expect("text")
    }

    pub(crate) fn stderr_text(&self) -> &str {
        str::from_utf8(&self.stderr).expect("text")
    }

    #[track_caller]
    pub(crate) fn code(&self) -> i32 {
        assert_eq!(self.exit.0, "exitcode", "{self:?}");
        self.exit.1.parse().expect("a number")
    }

    /// The signal that ended the program.
    #[track_caller]
    pub(crate) fn signal(&self) -> i32 {
        assert_eq!(self.exit.0, "termsig", "{self:?}");
        self.exit.1.parse().expect("a number")
    }

    /// Parses a reply without the help of the crate under test, and checks its form.
    #[track_caller]
    pub(crate) fn parse(raw: &[u8]) -> Self {
        let pairs = pairs(raw);
        let (last, output) = pairs.split_last().expect("a reply, not a bare close");
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        for (tag, payload) in output {
            assert!(!payload.is_empty(), "an empty payload in {}", raw.escape_ascii());
            match tag.as_str() {
                "stdout" => stdout.extend_from_slice(payload),
                "stderr" => stderr.extend_from_slice(payload),
                _ => panic!("the tag {tag:?} before the last pair of {}", raw.escape_ascii()),
            }
        }
        assert!(matches!(last.0.as_str(), "exitcode" | "termsig"), "no exit pair in {}", raw.escape_ascii());
        let exit = (last.0.clone(), String::from_utf8(last.1.clone()).expect("text"));
        Self { stdout, stderr, exit, pairs }
    }
}

/// Parses whole pairs without the help of the crate under test.
#[track_caller]
pub(crate) fn pairs(raw: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut pairs = Vec::new();
    let mut rest = raw;
    while !rest.is_empty() {
        let (tag, after) = naive_netstring(rest, raw);
        let (payload, after) = naive_netstring(after, raw);
        pairs.push((String::from_utf8(tag.to_vec()).expect("a tag"), payload.to_vec()));
        rest = after;
    }
    pairs
}

#[track_caller]
fn naive_netstring<'a>(bytes: &'a [u8], all: &[u8]) -> (&'a [u8], &'a [u8]) {
    let broken = || format!("no netstring at byte {} of {}", all.len() - bytes.len(), all.escape_ascii());
    let colon = bytes.iter().position(|&byte| byte == b':').unwrap_or_else(|| panic!("{}", broken()));
    let digits = str::from_utf8(&bytes[..colon]).unwrap_or_else(|_| panic!("{}", broken()));
    assert!(digits == "0" || !digits.starts_with('0'), "{}", broken());
    let len: usize = digits.parse().unwrap_or_else(|_| panic!("{}", broken()));
    let end = colon + 1 + len;
    assert_eq!(bytes.get(end), Some(&b','), "{}", broken());
    (&bytes[colon + 1..end], &bytes[end + 1..])
}

/// A connection to the daemon.
pub(crate) struct Client {
    socket: UnixStream,
    /// Bytes that were read and belong to no reply yet.
    raw: Vec<u8>,
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).expect("a daemon to connect to");
        // A daemon that hangs must not hang the test.
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        socket.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        Self { socket, raw: Vec::new() }
    }

    pub(crate) const fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// The daemon's pid, from the kernel.
    pub(crate) fn peer(&self) -> Pid {
        rustix::net::sockopt::socket_peercred(&self.socket).expect("credentials").pid
    }

    /// Sends these bytes as they are.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the daemon takes what is sent");
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes)
    }

    #[track_caller]
    pub(crate) fn exec<A: AsRef<[u8]>>(&mut self, argv: &[A]) {
        self.send(&request(argv));
    }

    /// A chunk of standard input, unless it is empty.
    #[track_caller]
    pub(crate) fn stdin(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.send(request::chunk_header(bytes.len() as u64).as_bytes());
            self.send(bytes);
            self.send(&[netstring::TERMINATOR]);
        }
    }

    #[track_caller]
    pub(crate) fn end_stdin(&mut self) {
        self.send(request::END_OF_STDIN);
    }

    #[track_caller]
    pub(crate) fn half_close(&self) {
        self.socket.shutdown(Shutdown::Write).expect("a half-close");
    }

    /// Reads what is available. 0 at the end.
    #[track_caller]
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        // After a stop of this process or of the machine, the kernel does not restart a call with a
        // timeout (signal(7)).
        loop {
            match self.socket.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read.expect("more of the reply"),
            }
        }
    }

    /// Reads until these bytes have come, framing included.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, words: &str) {
        self.wait_for_times(words, 1);
    }

    /// Reads until these bytes have come this many times, framing included.
    #[track_caller]
    pub(crate) fn wait_for_times(&mut self, words: &str, times: usize) {
        let mut buffer = [0; 4096];
        while self.raw.windows(words.len()).filter(|window| *window == words.as_bytes()).count() < times {
            let n = self.read(&mut buffer);
            assert!(n > 0, "ended without {words:?}: {}", self.raw.escape_ascii());
            self.raw.extend_from_slice(&buffer[..n]);
        }
    }

    /// Reads until the standard output contains these words, in however many pairs it comes. A terminal
    /// passes a line on in two pieces, its text and its end, and the daemon may find only the first.
    #[track_caller]
    pub(crate) fn wait_for_output(&mut self, words: &str) {
        let mut buffer = [0; 4096];
        loop {
            let whole = sockexec_proto::reply::whole_pairs(&self.raw, usize::MAX);
            let stdout = pairs(&self.raw[..whole]).into_iter().filter(|(tag, _)| tag == "stdout");
            let stdout: Vec<u8> = stdout.flat_map(|(_, payload)| payload).collect();
            if stdout.windows(words.len()).any(|window| window == words.as_bytes()) {
                return;
            }
            let n = self.read(&mut buffer);
            assert!(n > 0, "ended without {words:?}: {}", self.raw.escape_ascii());
            self.raw.extend_from_slice(&buffer[..n]);
        }
    }

    /// Sends lines to `cat`, each after the answer to the one before, and reads to its end.
    #[track_caller]
    pub(crate) fn dialogue(mut self, lines: usize) {
        for n in 0..lines {
            let line = format!("line {n};");
            self.stdin(line.as_bytes());
            self.wait_for(&line);
        }
        self.end_stdin();
        assert_eq!(self.reply().code(), 0);
    }

    /// Reads the rest. The connection must end with an end of file.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        if let Err(error) = self.socket.read_to_end(&mut self.raw) {
            panic!("{error} after {}", self.raw.escape_ascii());
        }
        std::mem::take(&mut self.raw)
    }

    /// Reads what has come, from a non-blocking socket. `None` if there may be more.
    pub(crate) fn try_rest(&mut self) -> Option<Vec<u8>> {
        self.socket.read_to_end(&mut self.raw).ok().map(|_| std::mem::take(&mut self.raw))
    }

    /// Reads until the connection ends in any way.
    pub(crate) fn lossy(mut self) -> Vec<u8> {
        match self.socket.read_to_end(&mut self.raw) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("the connection stays: {error}"),
            Ok(_) | Err(_) => self.raw,
        }
    }

    /// Reads the whole reply.
    #[track_caller]
    pub(crate) fn reply(mut self) -> Reply {
        Reply::parse(&self.rest())
    }

    /// Reads until the connection ends in any way, and drops what it reads.
    pub(crate) fn until_gone(self) {
        self.lossy();
    }

    /// Reads the whole reply without keeping it, and passes each piece to `output`.
    #[track_caller]
    pub(crate) fn stream(mut self, mut output: impl FnMut(Stream, &[u8])) -> Exit {
        let mut decoder = ReplyDecoder::new();
        let mut buffer = vec![0; 256 << 10];
        let mut exit = None;
        loop {
            let n = self.read(&mut buffer);
            if n == 0 {
                assert!(decoder.at_boundary(), "the reply ends within a pair");
                return exit.expect("an exit pair");
            }
            let mut input = &buffer[..n];
            while !input.is_empty() {
                assert!(exit.is_none(), "bytes after the exit pair");
                let (used, event) = decoder.next(input).expect("a reply");
                input = &input[used..];
                match event {
                    Event::Output(stream, len) => {
                        let take = usize::try_from(len).unwrap_or(usize::MAX).min(input.len());
                        output(stream, &input[..take]);
                        decoder.advance(take as u64);
                        input = &input[take..];
                    }
                    Event::Exit(found) => exit = Some(found),
                    Event::Unknown(_)
                    | Event::Introduction(_)
                    | Event::Queued(_)
                    | Event::Taken(_)
                    | Event::InputClosed
                    | Event::Started(_)
                    | Event::EndOfOutput(_)
                    | Event::Failure(_)
                    | Event::Usage(_)
                    | Event::Status(_) => panic!("an unknown tag"),
                    Event::NeedMore => {}
                }
            }
        }
    }

    /// Sends bytes until the daemon takes no more for a while. Returns how many it took.
    pub(crate) fn send_until_blocked(&mut self, mut next: impl FnMut() -> Vec<u8>) -> u64 {
        let short = Some(std::time::Duration::from_millis(300));
        self.socket.set_write_timeout(short).expect("a time-out");
        let mut sent = 0;
        let mut bytes = Vec::new();
        loop {
            if bytes.is_empty() {
                bytes = next();
                if bytes.is_empty() {
                    break;
                }
            }
            match self.socket.write(&bytes) {
                Ok(n) => {
                    sent += n as u64;
                    bytes.drain(..n);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error} after {sent} bytes"),
            }
        }
        self.socket.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        sent
    }
}

/// The exit code. A signal fails the test.
#[track_caller]
pub(crate) fn exit_code(exit: &Exit) -> u8 {
    match exit {
        Exit::Code(code) => *code,
        Exit::Signal(Signal::Number(number)) => panic!("signal {number}"),
        Exit::Signal(Signal::Name(name)) => panic!("signal {}", name.escape_ascii()),
    }
}

impl From<UnixStream> for Client {
    fn from(socket: UnixStream) -> Self {
        Self { socket, raw: Vec::new() }
    }
}

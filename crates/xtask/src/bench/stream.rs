//! Big streams in one direction, through a server or a bare pipe.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::pipe::fcntl_setpipe_size;
use sockexec_proto::reply::Event;
use sockexec_proto::request::{chunk_header, stdin_header};
use sockexec_proto::{Exit, ReplyDecoder, Stream, Version};

use super::server::{Server, end_of_stdin, request, start};
use crate::{Result, context};

/// Bytes read at a time, from pipes and from sockets.
const READ: usize = 256 * 1024;

/// Bytes written at a time, to pipes and in netstrings.
const WRITE: usize = 64 * 1024;

/// The most bytes in a pair of version 2, as in our client.
pub(crate) const FRAME: u64 = 128 * 1024;

/// Bytes of output that are kept from its beginning: enough for a number.
const HEAD: usize = 64;

/// A reply, as far as it was read.
#[derive(Debug)]
struct Reply {
    decoder: ReplyDecoder,
    /// Whether output after the exit status is an error.
    exit_is_last: bool,
    exit: Option<Exit>,
    /// Version 2: how many bytes of standard input may be unacknowledged, once that is known.
    window: Option<u64>,
    /// Version 2: how many bytes of standard input are acknowledged.
    taken: u64,
    output: u64,
    /// The beginning of the output.
    head: Vec<u8>,
}

/// Has a server run `argv`, which writes `bytes` bytes. Returns how long that took.
pub(crate) fn out_of_server(server: &Server, argv: &[String], bytes: u64) -> Result<Duration> {
    let started = Instant::now();
    let mut stream = UnixStream::connect(server.socket()).map_err(context("connect"))?;
    stream.write_all(&request(server.contender().version(), argv))?;
    let reply = Reply::of(server).read_to_end(&mut stream)?;
    let elapsed = started.elapsed();
    expect_bytes(reply.output, bytes)?;
    Ok(elapsed)
}

/// Has a server run `argv`, which counts the `bytes` bytes of its standard input. Returns how long that took.
pub(crate) fn into_server(server: &Server, argv: &[String], bytes: u64) -> Result<Duration> {
    let version = server.contender().version();
    let request = start(version, argv);
    let mut reply = Reply::of(server);

    let started = Instant::now();
    let mut stream = UnixStream::connect(server.socket()).map_err(context("connect"))?;
    stream.write_all(&request)?;
    match version {
        Version::One => {
            let chunk = chunk(chunk_header(WRITE as u64).as_bytes(), WRITE);
            for _ in 0..bytes / WRITE as u64 {
                stream.write_all(&chunk)?;
            }
        }
        Version::Two => into_window(&mut stream, &mut reply, bytes)?,
    }
    stream.write_all(end_of_stdin(version))?;
    let reply = reply.read_to_end(&mut stream)?;
    let elapsed = started.elapsed();
    expect_bytes(counted(&reply.head)?, bytes)?;
    Ok(elapsed)
}

/// Sends standard input within the window of version 2. Waits for a report only when the window is full.
fn into_window(stream: &mut UnixStream, reply: &mut Reply, bytes: u64) -> Result<()> {
    let window = loop {
        match reply.window {
            Some(window) => break window,
            None => reply.read_more(stream)?,
        }
    };
    // A power of two that divides the stream, and at most half of the window.
    let frame = FRAME.min(1 << (window / 2).ilog2());
    let chunk = chunk(stdin_header(frame).as_bytes(), usize::try_from(frame)?);
    for sent in (0..bytes).step_by(usize::try_from(frame)?) {
        while sent.saturating_sub(reply.taken) > window - frame {
            reply.read_more(stream)?;
        }
        stream.write_all(&chunk)?;
    }
    Ok(())
}

fn chunk(header: &[u8], len: usize) -> Vec<u8> {
    let mut chunk = header.to_vec();
    chunk.resize(chunk.len() + len, b'x');
    chunk.push(b',');
    chunk
}

/// The same with a server whose single program writes `bytes` bytes, raw and without a status.
pub(crate) fn out_of_socket(server: &Server, bytes: u64) -> Result<Duration> {
    let started = Instant::now();
    let stream = UnixStream::connect(server.socket()).map_err(context("connect"))?;
    let total = count(stream)?;
    let elapsed = started.elapsed();
    expect_bytes(total, bytes)?;
    Ok(elapsed)
}

/// The same with a server whose single program counts the `bytes` bytes of its standard input.
pub(crate) fn into_socket(server: &Server, bytes: u64) -> Result<Duration> {
    let chunk = vec![b'x'; WRITE];
    let started = Instant::now();
    let mut stream = UnixStream::connect(server.socket()).map_err(context("connect"))?;
    for _ in 0..bytes / WRITE as u64 {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut head = Vec::new();
    stream.read_to_end(&mut head)?;
    let elapsed = started.elapsed();
    expect_bytes(counted(&head)?, bytes)?;
    Ok(elapsed)
}

/// The same without a server: `argv` writes into a pipe of `size` bytes.
pub(crate) fn out_of_pipe(argv: &[String], size: usize, bytes: u64) -> Result<Duration> {
    let started = Instant::now();
    let mut child = spawn(argv, |command| command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let total = count(child.stdout.take().map(|pipe| sized(pipe.into(), size)).ok_or("no pipe")??)?;
    finish(child)?;
    let elapsed = started.elapsed();
    expect_bytes(total, bytes)?;
    Ok(elapsed)
}

/// The same without a server: `argv` reads from a pipe of `size` bytes.
pub(crate) fn into_pipe(argv: &[String], size: usize, bytes: u64) -> Result<Duration> {
    let chunk = vec![b'x'; WRITE];
    let started = Instant::now();
    let mut child = spawn(argv, |command| command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let mut pipe = child.stdin.take().map(|pipe| sized(pipe.into(), size)).ok_or("no pipe")??;
    for _ in 0..bytes / WRITE as u64 {
        pipe.write_all(&chunk)?;
    }
    drop(pipe);
    let mut head = Vec::new();
    child.stdout.take().ok_or("no pipe")?.read_to_end(&mut head)?;
    finish(child)?;
    let elapsed = started.elapsed();
    expect_bytes(counted(&head)?, bytes)?;
    Ok(elapsed)
}

/// Reads to the end. Returns the number of bytes.
fn count(mut input: impl Read) -> Result<u64> {
    let mut buffer = vec![0; READ];
    let mut total = 0;
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(total),
            n => total += n as u64,
        }
    }
}

fn spawn(argv: &[String], streams: impl FnOnce(&mut Command) -> &mut Command) -> Result<Child> {
    let (program, arguments) = argv.split_first().ok_or("no program")?;
    let mut command = Command::new(program);
    command.args(arguments);
    streams(&mut command).spawn().map_err(context(program))
}

fn sized(pipe: OwnedFd, size: usize) -> Result<File> {
    fcntl_setpipe_size(&pipe, size).map_err(context(format!("a pipe of {size} bytes")))?;
    Ok(File::from(pipe))
}

fn finish(mut child: Child) -> Result<()> {
    match child.wait()? {
        status if status.success() => Ok(()),
        status => Err(format!("the program at a bare pipe: {status}").into()),
    }
}

/// Whether this is a whole reply in version 2 to a program that writes nothing.
pub(crate) fn expect_quiet(bytes: &[u8]) -> Result<()> {
    let mut reply = Reply::new(Version::Two, true);
    reply.decode(bytes)?;
    reply.ended()?;
    expect_bytes(reply.output, 0)
}

impl Reply {
    const fn new(version: Version, exit_is_last: bool) -> Self {
        let decoder = ReplyDecoder::of(version);
        Self { decoder, exit_is_last, exit: None, window: None, taken: 0, output: 0, head: Vec::new() }
    }

    fn of(server: &Server) -> Self {
        Self::new(server.contender().version(), server.contender().exit_is_last())
    }

    /// Reads more of it, and waits if necessary. The connection must not end yet.
    fn read_more(&mut self, stream: &mut impl Read) -> Result<()> {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer)? {
            0 => self.ended().and(Err("the reply ended before standard input did".into())),
            n => self.decode(buffer.get(..n).unwrap_or_default()),
        }
    }

    /// Reads to the end of the connection. Anything but output and exit code 0 is an error.
    fn read_to_end(mut self, stream: &mut impl Read) -> Result<Self> {
        let mut buffer = vec![0; READ];
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                n => self.decode(buffer.get(..n).unwrap_or_default())?,
            }
        }
        self.ended()?;
        Ok(self)
    }

    /// Checks that it may end here.
    fn ended(&self) -> Result<()> {
        let at = self.decoder.offset();
        match &self.exit {
            Some(Exit::Code(0)) if self.decoder.at_boundary() => Ok(()),
            Some(Exit::Code(0)) => Err(format!("the reply ended within a pair, at byte {at}").into()),
            Some(exit) => Err(format!("the program ended with {exit}").into()),
            None => Err(format!("the reply ended at byte {at}, without an exit status").into()),
        }
    }

    fn decode(&mut self, mut input: &[u8]) -> Result<()> {
        loop {
            let (used, event) = self.decoder.next(input)?;
            input = input.get(used..).unwrap_or_default();
            match event {
                Event::NeedMore => return Ok(()),
                Event::Exit(_) if self.exit.is_some() => return Err("two exit statuses".into()),
                Event::Exit(exit) => self.exit = Some(exit),
                Event::Output(..) if self.exit.is_some() && self.exit_is_last => {
                    return Err("output after the exit status".into());
                }
                Event::Output(..) if input.is_empty() => return Ok(()),
                Event::Output(Stream::Stdout, len) => input = self.take(len, input),
                Event::Output(Stream::Stderr, _) => {
                    return Err(format!("on its standard error: {}", input.escape_ascii()).into());
                }
                Event::Introduction(introduction) => self.window = Some(introduction.window),
                // A build without an introduction has no window.
                Event::Started(_) => self.window = self.window.or(Some(u64::MAX)),
                Event::Taken(bytes) => self.taken = bytes,
                Event::EndOfOutput(_) | Event::Usage(_) => {}
                Event::Failure(failure) => return Err(failure.to_string().into()),
                Event::InputClosed => return Err("the program has closed its standard input".into()),
                Event::Unknown(_) | Event::Queued(_) | Event::Status(_) => {
                    return Err(format!("an unknown tag before byte {}", self.decoder.offset()).into());
                }
            }
        }
    }

    /// Counts up to `len` bytes of output at the front of `input`. Returns the rest.
    fn take<'a>(&mut self, len: u64, input: &'a [u8]) -> &'a [u8] {
        let (output, rest) = input.split_at(input.len().min(usize::try_from(len).unwrap_or(usize::MAX)));
        if self.head.len() < HEAD {
            self.head.extend(output.iter().take(HEAD));
        }
        self.output += output.len() as u64;
        self.decoder.advance(output.len() as u64);
        rest
    }
}

/// What the consumer printed.
fn counted(output: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(output)?;
    text.trim().parse::<u64>().map_err(context(format!("{text:?} is no count of bytes")))
}

fn expect_bytes(got: u64, expected: u64) -> Result<()> {
    if got == expected { Ok(()) } else { Err(format!("{got} bytes came through, not {expected}").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_counted_across_pairs() {
        let mut bytes: &[u8] = b"6:stdout,3:ab\n,6:stdout,2:cd,8:exitcode,1:0,";
        let reply = Reply::new(Version::One, true).read_to_end(&mut bytes).unwrap();
        assert_eq!((reply.output, reply.head.as_slice()), (5, b"ab\ncd".as_slice()));
    }

    #[test]
    fn errors_in_a_reply_are_reported() {
        for (mut bytes, message) in [
            (b"8:exitcode,1:1,".as_slice(), "the program ended with exit code 1"),
            (b"6:stdout,2:ab,", "the reply ended at byte 14, without an exit status"),
            (b"8:exitcode,1:0,6:std", "the reply ended within a pair, at byte 20"),
            (b"8:exitcode,1:0,8:exitcode,1:0,", "two exit statuses"),
            (b"8:exitcode,1:0,6:stdout,1:a,", "output after the exit status"),
            (b"6:stderr,5:oops\n,", r"on its standard error: oops\n,"),
            (b"5:usage,1:x,8:exitcode,1:0,", "an unknown tag before byte 10"),
        ] {
            let error = Reply::new(Version::One, true).read_to_end(&mut bytes).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn output_may_follow_the_exit_status_of_3_1_1() {
        let mut bytes: &[u8] = b"8:exitcode,1:0,6:stdout,1:a,";
        assert_eq!(Reply::new(Version::One, false).read_to_end(&mut bytes).unwrap().output, 1);
    }

    #[test]
    fn a_quiet_reply_of_version_2_is_known() {
        let whole = b"8:protocol,14:2 window=65536,7:started,4:4711,6:stdout,0:,6:stderr,0:,\
            5:usage,26:utime=0.1 stime=0 maxrss=4,8:exitcode,1:0,";
        expect_quiet(whole).unwrap();
        for (bytes, message) in [
            (b"7:started,1:1,6:stdout,1:a,8:exitcode,1:0,".as_slice(), "1 bytes came through, not 0"),
            (b"7:started,1:1,6:stdout,0:,", "the reply ended at byte 26, without an exit status"),
            (b"5:error,6:busy x,", "busy: x"),
            (b"6:queued,1:1,8:exitcode,1:0,", "an unknown tag before byte 13"),
        ] {
            assert_eq!(expect_quiet(bytes).unwrap_err().to_string(), message);
        }
    }

    /// What a client sends if the daemon sends these reports: the result, and the number of bytes.
    fn sent_into(reports: &[u8], bytes: u64) -> (Result<()>, u64) {
        let (mut client, mut daemon) = UnixStream::pair().unwrap();
        daemon.write_all(reports).unwrap();
        daemon.shutdown(Shutdown::Write).unwrap();
        let reader = std::thread::spawn(move || count(daemon).unwrap());
        let sent = into_window(&mut client, &mut Reply::new(Version::Two, true), bytes);
        drop(client);
        (sent, reader.join().unwrap())
    }

    #[test]
    fn no_more_is_sent_than_the_window_has_room_for() {
        let pair = |len: u64| 8 + len.to_string().len() as u64 + 1 + len + 1;
        let (sent, bytes) = sent_into(b"8:protocol,15:2 window=671088,", 1 << 20);
        assert_eq!(sent.unwrap_err().to_string(), "the reply ended at byte 30, without an exit status");
        assert_eq!(bytes, 5 * pair(FRAME));
        let (sent, bytes) = sent_into(b"8:protocol,14:2 window=65536,5:taken,5:32768,", 1 << 20);
        assert!(sent.is_err());
        assert_eq!(bytes, 3 * pair(32768));
        // A build without an introduction has no window.
        let (sent, bytes) = sent_into(b"7:started,1:1,", 1 << 20);
        sent.unwrap();
        assert_eq!(bytes, 8 * pair(FRAME));
    }

    #[test]
    fn the_consumer_prints_a_number() {
        assert_eq!(counted(b"1048576\n").unwrap(), 1_048_576);
        assert!(counted(b"many\n").is_err());
        assert!(expect_bytes(1, 2).is_err());
    }
}

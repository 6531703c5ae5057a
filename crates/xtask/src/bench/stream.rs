//! Big streams: one way through a server, or through a bare pipe.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::pipe::fcntl_setpipe_size;
use sockexec_proto::reply::Event;
use sockexec_proto::request::{END_OF_STDIN, chunk_header, encode_exec};
use sockexec_proto::{Exit, ReplyDecoder, Stream};

use super::server::{Server, request};
use super::{Result, context};

/// What is read at a time, from a pipe and from a socket alike.
const READ: usize = 256 * 1024;

/// What is written at a time, to a pipe and in a netstring alike.
const WRITE: usize = 64 * 1024;

/// How much of the beginning of the output is kept: enough for a number.
const HEAD: usize = 64;

/// What is known of a reply so far.
#[derive(Debug)]
struct Reply {
    decoder: ReplyDecoder,
    /// Whether output after the exit status is an error.
    exit_is_last: bool,
    exit: Option<Exit>,
    output: u64,
    /// The beginning of the output.
    head: Vec<u8>,
}

/// Has a server run `argv`, which writes `bytes` bytes; how long it took.
pub(crate) fn out_of_server(server: &Server, argv: &[String], bytes: u64) -> Result<Duration> {
    let started = Instant::now();
    let mut stream = UnixStream::connect(server.socket()).map_err(context("connect"))?;
    stream.write_all(&request(argv))?;
    let reply = read_reply(&mut stream, server.contender().exit_is_last())?;
    let elapsed = started.elapsed();
    expect_bytes(reply.output, bytes)?;
    Ok(elapsed)
}

/// Has a server run `argv`, which counts the `bytes` bytes that it is sent; how long it took.
pub(crate) fn into_server(server: &Server, argv: &[String], bytes: u64) -> Result<Duration> {
    let mut request = Vec::new();
    encode_exec(argv, &mut request);
    let mut chunk = chunk_header(WRITE as u64).as_bytes().to_vec();
    chunk.resize(chunk.len() + WRITE, b'x');
    chunk.push(b',');

    let started = Instant::now();
    let mut stream = UnixStream::connect(server.socket()).map_err(context("connect"))?;
    stream.write_all(&request)?;
    for _ in 0..bytes / WRITE as u64 {
        stream.write_all(&chunk)?;
    }
    stream.write_all(END_OF_STDIN)?;
    let reply = read_reply(&mut stream, server.contender().exit_is_last())?;
    let elapsed = started.elapsed();
    expect_bytes(counted(&reply.head)?, bytes)?;
    Ok(elapsed)
}

/// The same with a server whose one program writes `bytes` bytes: as they are, without a status.
pub(crate) fn out_of_socket(server: &Server, bytes: u64) -> Result<Duration> {
    let started = Instant::now();
    let stream = UnixStream::connect(server.socket()).map_err(context("connect"))?;
    let total = count(stream)?;
    let elapsed = started.elapsed();
    expect_bytes(total, bytes)?;
    Ok(elapsed)
}

/// The same with a server whose one program counts the `bytes` bytes that it is sent.
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

/// Reads to the end; how many bytes that was.
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

/// Reads to the end of the connection. Anything but output and exit code 0 is an error.
fn read_reply(stream: &mut impl Read, exit_is_last: bool) -> Result<Reply> {
    let mut buffer = vec![0; READ];
    let mut reply = Reply { decoder: ReplyDecoder::new(), exit_is_last, exit: None, output: 0, head: Vec::new() };
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            n => reply.decode(buffer.get(..n).unwrap_or_default())?,
        }
    }
    match &reply.exit {
        Some(Exit::Code(0)) if reply.decoder.at_boundary() => Ok(reply),
        Some(Exit::Code(0)) => Err(format!("the reply ended within a pair, at byte {}", reply.decoder.offset()).into()),
        Some(exit) => Err(format!("the program ended with {exit}").into()),
        None => Err(format!("the reply ended at byte {}, without an exit status", reply.decoder.offset()).into()),
    }
}

impl Reply {
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
                Event::Unknown(_)
                | Event::Introduction(_)
                | Event::Queued(_)
                | Event::Taken(_)
                | Event::InputClosed
                | Event::Started(_)
                | Event::EndOfOutput(_)
                | Event::Failure(_)
                | Event::Usage(_)
                | Event::Status(_) => {
                    return Err(format!("an unknown tag before byte {}", self.decoder.offset()).into());
                }
            }
        }
    }

    /// Counts up to `len` bytes of output at the front of `input`; what follows them.
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
        let reply = read_reply(&mut bytes, true).unwrap();
        assert_eq!((reply.output, reply.head.as_slice()), (5, b"ab\ncd".as_slice()));
    }

    #[test]
    fn what_is_wrong_in_a_reply_is_said() {
        for (mut bytes, message) in [
            (b"8:exitcode,1:1,".as_slice(), "the program ended with exit code 1"),
            (b"6:stdout,2:ab,", "the reply ended at byte 14, without an exit status"),
            (b"8:exitcode,1:0,6:std", "the reply ended within a pair, at byte 20"),
            (b"8:exitcode,1:0,8:exitcode,1:0,", "two exit statuses"),
            (b"8:exitcode,1:0,6:stdout,1:a,", "output after the exit status"),
            (b"6:stderr,5:oops\n,", r"on its standard error: oops\n,"),
            (b"5:usage,1:x,8:exitcode,1:0,", "an unknown tag before byte 10"),
        ] {
            assert_eq!(read_reply(&mut bytes, true).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn output_may_follow_the_exit_status_where_that_is_known() {
        let mut bytes: &[u8] = b"8:exitcode,1:0,6:stdout,1:a,";
        assert_eq!(read_reply(&mut bytes, false).unwrap().output, 1);
    }

    #[test]
    fn the_consumer_prints_a_number() {
        assert_eq!(counted(b"1048576\n").unwrap(), 1_048_576);
        assert!(counted(b"many\n").is_err());
        assert!(expect_bytes(1, 2).is_err());
    }
}

//! One request and its expected answer, for each kind of client.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use sockexec_proto::reply::Event;
use sockexec_proto::{Exit, ReplyDecoder, Signal, Stream, request};

use super::bytes::Bytes;
use crate::{Result, context};

/// Only a fault takes this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// After this time the daemon with a deadline may close the connection of a client that has not read its whole reply:
/// the deadline, the time until KILL, and 2 seconds (docs/protocol.md).
const CUT: Duration = Duration::from_millis(3500);

/// The two daemons under test.
#[derive(Debug, Clone)]
pub(crate) struct Sockets {
    /// Without a time limit.
    pub(crate) steady: std::path::PathBuf,
    /// With a time limit of a second, and KILL half a second after TERM.
    pub(crate) hasty: std::path::PathBuf,
}

/// A request that was answered correctly.
#[derive(Debug)]
pub(crate) struct Done {
    /// How many bytes of input and output went through.
    pub(crate) bytes: u64,
    /// The client had not read everything in the time that the daemon allows, and got no exit pair.
    pub(crate) cut: bool,
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Job {
    /// Output and an exit code.
    Emit { seed: u64, len: u64, errors: u64, code: u8 },
    /// Input that the program checks.
    Absorb { seed: u64, len: u64 },
    /// Input that comes back, read while it is sent.
    Echo { seed: u64, len: u64 },
    /// Input that comes back, read only after all of it was sent.
    EchoLate { seed: u64, len: u64 },
    /// A byte at a time.
    Slow { seed: u64, len: u64 },
    /// Output, and then a signal.
    Die { seed: u64, len: u64 },
    /// No such program.
    Missing,
    /// No request.
    Garbage { seed: u64 },
    /// The client leaves while the program waits (or writes).
    Leave { flood: bool, after: u64 },
    /// The program is ended by its deadline.
    Late { flood: bool },
}

impl Job {
    /// A common job, mostly small.
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let seed = rng.u64(..);
        match rng.u32(0..1000) {
            0..500 => Self::Emit { seed, len: rng.u64(0..64 << 10), errors: rng.u64(0..4096), code: rng.u8(..) },
            500..600 => Self::Echo { seed, len: size(rng, 23) },
            600..680 => Self::Absorb { seed, len: size(rng, 25) },
            680..760 => Self::Emit { seed, len: size(rng, 25), errors: size(rng, 20), code: rng.u8(..) },
            760..800 => Self::EchoLate { seed, len: size(rng, 23) },
            800..830 => Self::Slow { seed, len: rng.u64(0..300) },
            830..880 => Self::Die { seed, len: size(rng, 18) },
            880..910 => Self::Missing,
            910..940 => Self::Garbage { seed },
            940..980 => Self::Leave { flood: rng.bool(), after: size(rng, 20) },
            980..998 => Self::Emit { seed, len: 0, errors: 0, code: 0 },
            _ => Self::Late { flood: rng.bool() },
        }
    }

    /// A big one, up to 1 GB.
    pub(crate) fn random_big(rng: &mut Rng) -> Self {
        let (seed, len) = (rng.u64(..), size(rng, 30).min(1_000_000_000));
        match rng.u32(0..3) {
            0 => Self::Emit { seed, len, errors: 0, code: 0 },
            1 => Self::Absorb { seed, len },
            _ => Self::Echo { seed, len },
        }
    }

    /// The biggest of all.
    pub(crate) const fn biggest(turn: usize) -> Self {
        let (seed, len) = (turn as u64, 1_000_000_000);
        match turn % 3 {
            0 => Self::Emit { seed, len, errors: 0, code: 0 },
            1 => Self::Absorb { seed, len },
            _ => Self::Echo { seed, len },
        }
    }

    /// Runs it, and checks every byte of the answer.
    pub(crate) fn run(self, sockets: &Sockets, program: &str) -> Result<Done> {
        let bytes = match self {
            Self::Emit { seed, len, errors, code } => {
                let words =
                    ["emit".to_owned(), seed.to_string(), len.to_string(), errors.to_string(), code.to_string()];
                let client = Client::exec(&sockets.steady, program, &words)?;
                client.end()?;
                client.expect(Bytes::new(seed, len), Bytes::new(!seed, errors), &Exit::Code(code))?;
                len + errors
            }
            Self::Absorb { seed, len } => {
                let client =
                    Client::exec(&sockets.steady, program, &["absorb".into(), seed.to_string(), len.to_string()])?;
                client.input(Bytes::new(seed, len))?;
                client.expect(nothing(), nothing(), &Exit::Code(0))?;
                len
            }
            Self::Echo { seed, len } => {
                let client = Client::exec(&sockets.steady, program, &["echo".into()])?;
                thread::scope(|scope| -> Result<()> {
                    let sender = scope.spawn(|| client.input(Bytes::new(seed, len)).map_err(|error| error.to_string()));
                    client.expect(Bytes::new(seed, len), nothing(), &Exit::Code(0))?;
                    Ok(sender.join().map_err(|_| "the sender panicked")??)
                })?;
                2 * len
            }
            Self::EchoLate { seed, len } => {
                let client = Client::exec(&sockets.steady, program, &["echo".into()])?;
                client.input(Bytes::new(seed, len))?;
                client.expect(Bytes::new(seed, len), nothing(), &Exit::Code(0))?;
                2 * len
            }
            Self::Slow { seed, len } => slow(sockets, program, seed, len)?,
            Self::Die { seed, len } => {
                let client =
                    Client::exec(&sockets.steady, program, &["die".into(), seed.to_string(), len.to_string()])?;
                client.expect(Bytes::new(seed, len), nothing(), &signal(9))?;
                len
            }
            Self::Missing => {
                let client = Client::exec(&sockets.steady, "/no/such/program", &[])?;
                client.expect_refusal("sockexec: /no/such/program: No such file or directory\n", 127)?
            }
            Self::Garbage { seed } => {
                let client = Client::connect(&sockets.steady)?;
                let mut garbage = vec![b'x'];
                Bytes::new(seed, 100).write_to(&mut garbage)?;
                client.send(&garbage)?;
                client.expect_refusal("sockexec: bad request: ", 125)?
            }
            Self::Leave { flood, after } => {
                let client =
                    Client::exec(&sockets.steady, program, &[if flood { "flood" } else { "wait" }.to_owned()])?;
                let after = if flood { after } else { 0 };
                std::io::copy(&mut (&client.socket).take(after), &mut std::io::sink()).map_err(context("read"))?;
                after
            }
            Self::Late { flood } => return late(sockets, program, flood),
        };
        Ok(Done { bytes, cut: false })
    }
}

/// A size from 0 to `2^bits`. All orders of magnitude are equally likely.
fn size(rng: &mut Rng, bits: u32) -> u64 {
    let bits = rng.u32(0..=bits);
    rng.u64(0..1 << bits)
}

fn late(sockets: &Sockets, program: &str, flood: bool) -> Result<Done> {
    let start = Instant::now();
    let client = Client::exec(&sockets.hasty, program, &[if flood { "flood" } else { "wait" }.to_owned()])?;
    match client.reply(&mut |_, _| true)? {
        (bytes, Some(exit)) if exit == signal(15) => Ok(Done { bytes, cut: false }),
        (bytes, None) if flood && start.elapsed() >= CUT => Ok(Done { bytes, cut: true }),
        (bytes, found) => Err(format!("{found:?} after {bytes} bytes at the deadline").into()),
    }
}

fn slow(sockets: &Sockets, program: &str, seed: u64, len: u64) -> Result<u64> {
    let client = Client::connect(&sockets.steady)?;
    let mut bytes = Vec::new();
    request::encode_exec(&[program, "soak-program", "echo"], &mut bytes);
    let mut input = Vec::new();
    Bytes::new(seed, len).write_to(&mut input)?;
    for byte in &input {
        bytes.extend_from_slice(request::chunk_header(1).as_bytes());
        bytes.extend_from_slice(&[*byte, b',']);
    }
    bytes.extend_from_slice(request::END_OF_STDIN);
    for byte in bytes {
        client.send(&[byte])?;
    }
    client.expect(Bytes::new(seed, len), nothing(), &Exit::Code(0))?;
    Ok(2 * len)
}

fn signal(number: u8) -> Exit {
    Exit::Signal(Signal::Number(number.into()))
}

fn nothing() -> Bytes {
    Bytes::new(0, 0)
}

struct Client {
    socket: UnixStream,
}

impl Client {
    fn connect(path: &Path) -> Result<Self> {
        let socket = UnixStream::connect(path).map_err(context("connect"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket })
    }

    fn exec(path: &Path, program: &str, words: &[String]) -> Result<Self> {
        let client = Self::connect(path)?;
        let mut argv = vec![program.to_owned(), "soak-program".to_owned()];
        argv.extend_from_slice(words);
        let mut bytes = Vec::new();
        request::encode_exec(&argv, &mut bytes);
        client.send(&bytes)?;
        Ok(client)
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        match (&self.socket).write_all(bytes) {
            // The daemon has closed the connection. Its reply decides.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(context("send")),
        }
    }

    fn end(&self) -> Result<()> {
        self.send(request::END_OF_STDIN)
    }

    /// All of the program's input, as one chunk.
    fn input(&self, mut bytes: Bytes) -> Result<()> {
        if bytes.left() > 0 {
            self.send(request::chunk_header(bytes.left()).as_bytes())?;
            bytes.write_to(&self.socket).map_err(context("send"))?;
            self.send(b",")?;
        }
        // The end: by the empty netstring, and by half-close.
        self.end()?;
        self.socket.shutdown(Shutdown::Write).map_err(context("half-close"))
    }

    /// Reads the whole reply, which must be these bytes and this exit.
    fn expect(&self, mut stdout: Bytes, mut stderr: Bytes, exit: &Exit) -> Result<()> {
        let (_, found) = self.reply(&mut |stream, bytes| match stream {
            Stream::Stdout => stdout.check(bytes),
            Stream::Stderr => stderr.check(bytes),
        })?;
        match (stdout.left(), stderr.left()) {
            (0, 0) if found.as_ref() == Some(exit) => Ok(()),
            (0, 0) => Err(format!("ended with {found:?}, not {exit:?}").into()),
            (out, err) => Err(format!("{out} bytes of stdout and {err} of stderr are missing; {found:?}").into()),
        }
    }

    fn expect_refusal(&self, text: &str, code: u8) -> Result<u64> {
        let mut said = Vec::new();
        let (len, exit) = self.reply(&mut |_, bytes| {
            said.extend_from_slice(bytes);
            true
        })?;
        if said.starts_with(text.as_bytes()) && exit == Some(Exit::Code(code)) {
            Ok(len)
        } else {
            Err(format!("\"{}\" and {exit:?}", said.escape_ascii()).into())
        }
    }

    /// Reads the reply to the end of the connection, and passes each piece to `output`. Returns the number of bytes of
    /// output, and the exit if there was one.
    fn reply(&self, output: &mut dyn FnMut(Stream, &[u8]) -> bool) -> Result<(u64, Option<Exit>)> {
        let mut decoder = ReplyDecoder::new();
        let mut buffer = vec![0; 128 << 10];
        let (mut total, mut exit) = (0, None);
        loop {
            let n = (&self.socket).read(&mut buffer).map_err(context("read"))?;
            if n == 0 {
                return match exit {
                    Some(_) if !decoder.at_boundary() => Err("an incomplete netstring after the exit pair".into()),
                    exit => Ok((total, exit)),
                };
            }
            let mut input = buffer.get(..n).unwrap_or_default();
            while !input.is_empty() {
                if exit.is_some() {
                    return Err("bytes after the exit pair".into());
                }
                let (used, event) = decoder.next(input)?;
                input = input.get(used..).unwrap_or_default();
                match event {
                    Event::Output(stream, len) => {
                        let take = usize::try_from(len).unwrap_or(usize::MAX).min(input.len());
                        let (piece, rest) = input.split_at(take);
                        if !output(stream, piece) {
                            return Err(format!("wrong bytes of {} after {total}", stream.tag()).into());
                        }
                        total += take as u64;
                        decoder.advance(take as u64);
                        input = rest;
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
                    | Event::Status(_) => return Err("an unknown tag".into()),
                    Event::NeedMore => {}
                }
            }
        }
    }
}

//! What is fixed for a session, and what can happen to it.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use arbitrary::Arbitrary;
use sockexec_proto::error::BadRequestKind;
use sockexec_proto::request::{self, Argv, Event, Request};
use sockexec_proto::{BadRequest, Options, RequestDecoder, Signal, Stream, Version, WindowSize, netstring};

use super::law::number_of;
use crate::engine::{ExitStatus, Limits, TermSig};

/// A whole session, as made from a fuzzer's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Arbitrary)]
pub struct Plan {
    /// What is fixed.
    pub setup: Setup,
    /// What happens, and whether the daemon has its turn right after it.
    pub moves: Vec<(Move, bool)>,
}

/// What is fixed for a session. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Arbitrary)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Setup {
    /// From the accepted connection to the complete request, if that is not longer than `timeout`.
    pub request_timeout: Option<u16>,
    /// From when the request has its slot to TERM.
    pub timeout: Option<u16>,
    /// From TERM to KILL. 0 counts as 1.
    pub kill_timeout: u8,
    /// From the first empty stream after the leader's exit to TERM.
    pub linger: Option<u8>,
    /// Version 1 names signals.
    pub names: bool,
    /// All that the client may send.
    pub request: Vec<Piece>,
    /// What comes of starting the program.
    pub start: Start,
    /// Another process in the program's group holds its output.
    pub job: bool,
    /// A process that has left the group holds its output.
    pub outsider: bool,
    /// The platform cannot tell whether a group is empty.
    pub unknowable: bool,
    /// How much fits where.
    pub sizes: Sizes,
    /// The program is executed at [`Move::Execute`], and not at once. If it dies before, it never was.
    pub execs_later: bool,
    /// How many descriptors come with the first bytes of the request.
    pub descriptors: u8,
    /// There is no slot until [`Move::GiveSlot`].
    pub busy: bool,
    /// The daemon holds input that the program does not read yet.
    pub reads_ahead: bool,
    /// KILL reaches every member at [`Move::Reach`], and not at once.
    pub kills_late: bool,
}

/// A part of a request.
#[derive(Debug, Clone, PartialEq, Eq, Arbitrary)]
pub enum Piece {
    /// The number of arguments and the arguments.
    Exec(Vec<Vec<u8>>),
    /// Standard input of this many bytes. 0 ends it.
    Chunk(u8),
    /// Anything.
    Raw(Vec<u8>),
    /// Version 2: options, the number of arguments and the arguments.
    Exec2(Vec<Choice>, Vec<Vec<u8>>),
    /// Version 2: a request for the status.
    Status,
    /// Version 2: only its first netstring.
    Ping,
    /// Version 2: standard input of this many bytes. 0 ends it.
    Stdin(u8),
    /// Version 2: a signal by its number.
    Signal(u8),
    /// Version 2: a signal by its name.
    SignalName(Vec<u8>),
    /// Version 2: a new size of the terminal, with as many columns as rows.
    Winsize(u8),
}

/// An option of version 2 that makes a difference here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Choice {
    /// `timeout`, in hundredths of a second. 0 is a bad request.
    Timeout(u8),
    /// `stderr=stdout`.
    Merged,
    /// `pty`.
    Terminal,
    /// `fds`.
    Descriptors,
}

/// What comes of starting the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Start {
    /// It runs at once.
    AtOnce,
    /// It runs at [`Move::Answer`].
    Later,
    /// It cannot be started, which is known at once.
    Fails,
    /// It cannot be started, which is known from the death of the child that was to become it.
    FailsLate,
}

/// How much fits where, in bytes. 0 counts as 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub struct Sizes {
    /// A pipe.
    pub pipe: u8,
    /// The most that the daemon reads at once.
    pub chunk: u8,
    /// The most that may wait for a client with strict backpressure.
    pub strict: u8,
    /// The most that may wait for a client that still sends.
    pub spool: u8,
    /// The window for standard input.
    pub window: u8,
}

/// One of the program's streams of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum To {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How the leader ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Ended {
    /// By itself.
    Code(u8),
    /// By a signal, whose number is this modulo 64, plus 1.
    Signal(u8),
}

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Move {
    /// The client sends this many more bytes of the request.
    Send(u8),
    /// The client ends its sending.
    HalfClose,
    /// The client closes both directions.
    Leave,
    /// The client is ready to take this many more bytes.
    Take(u8),
    /// The client takes everything from now on.
    TakeAll,
    /// The system answers whether the program was started.
    Answer,
    /// This many bytes are written to a stream.
    Write(To, u8),
    /// Every holder of a stream closes it.
    CloseOutput(To),
    /// This many bytes of standard input are read.
    Read(u8),
    /// The readers of standard input close it.
    CloseInput,
    /// The leader ends.
    Exit(Ended),
    /// The rest of the group ends.
    EmptyGroup,
    /// This many milliseconds pass.
    Wait(u16),
    /// Time passes until the session's timer.
    WaitForTimer,
    /// The daemon is told to stop. The second time: at once.
    ShutDown,
    /// The program is executed.
    Execute,
    /// There is a slot for the request.
    GiveSlot,
    /// Another connection needs the place.
    TurnAway,
    /// Requests take so much memory that this one is left in its socket.
    FillMemory,
    /// There is memory again.
    FreeMemory,
    /// KILL has been sent to every member of the group.
    Reach,
}

/// A [`Setup`], ready for use.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Case {
    pub(super) limits: Limits,
    pub(super) request: Vec<u8>,
    pub(super) start: Start,
    pub(super) job: bool,
    pub(super) outsider: bool,
    pub(super) unknowable: bool,
    pub(super) pipe: usize,
    pub(super) chunk: usize,
    pub(super) strict: u64,
    pub(super) spool: u64,
    pub(super) execs_later: bool,
    pub(super) descriptors: u32,
    pub(super) busy: bool,
    pub(super) reads_ahead: bool,
    pub(super) kills_late: bool,
}

/// All worlds of a search have the same case, so it does not tell them apart.
impl Hash for Case {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Case {
    /// Makes `setup` ready for use.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        let millis = |n: u64| Duration::from_millis(n);
        let mut bytes = Vec::new();
        for piece in &setup.request {
            match piece {
                Piece::Exec(argv) => request::encode_exec(argv, &mut bytes),
                Piece::Exec2(choices, argv) => {
                    netstring::encode(request::PROTOCOL, &mut bytes);
                    for choice in choices {
                        choice.encode(&mut bytes);
                    }
                    request::encode_exec(argv, &mut bytes);
                }
                Piece::Status => request::encode_status(&mut bytes),
                Piece::Ping => request::encode_ping(&mut bytes),
                Piece::Stdin(len) => {
                    let payload = vec![bytes.len().to_le_bytes()[0]; (*len).into()];
                    netstring::encode(request::STDIN.as_bytes(), &mut bytes);
                    netstring::encode(&payload, &mut bytes);
                }
                Piece::Signal(number) => request::encode_signal(&Signal::Number((*number).into()), &mut bytes),
                Piece::SignalName(name) => request::encode_signal(&Signal::Name(name.clone()), &mut bytes),
                Piece::Winsize(n) => {
                    let size = WindowSize { columns: (*n).into(), rows: (*n).into() };
                    request::encode_window_size(size, &mut bytes);
                }
                Piece::Chunk(len) => netstring::encode(&vec![bytes.len().to_le_bytes()[0]; (*len).into()], &mut bytes),
                Piece::Raw(raw) => bytes.extend_from_slice(raw),
            }
        }
        let sizes = setup.sizes;
        Self {
            limits: Limits {
                request_timeout: setup.request_timeout.into_iter().chain(setup.timeout).min().map(|n| millis(n.into())),
                timeout: setup.timeout.map(|n| millis(n.into())),
                kill_timeout: millis(setup.kill_timeout.max(1).into()),
                linger: setup.linger.map(|n| millis(n.into())),
                termsig: if setup.names { TermSig::Name } else { TermSig::Number },
                window: sizes.window.max(1).into(),
            },
            request: bytes,
            start: setup.start,
            job: setup.job,
            outsider: setup.outsider,
            unknowable: setup.unknowable,
            pipe: sizes.pipe.max(1).into(),
            chunk: sizes.chunk.max(1).into(),
            strict: sizes.strict.max(1).into(),
            spool: sizes.spool.max(sizes.strict).max(1).into(),
            execs_later: setup.execs_later,
            descriptors: setup.descriptors.into(),
            busy: setup.busy,
            reads_ahead: setup.reads_ahead,
            kills_late: setup.kills_late,
        }
    }
}

impl Choice {
    fn encode(self, out: &mut Vec<u8>) {
        let text = match self {
            Self::Timeout(millis) => format!("timeout={}.{:03}", millis / 100, u16::from(millis % 100) * 10),
            Self::Merged => "stderr=stdout".into(),
            Self::Terminal => "pty=8x2".into(),
            Self::Descriptors => "fds".into(),
        };
        netstring::encode(text.as_bytes(), out);
    }
}

impl From<To> for Stream {
    fn from(to: To) -> Self {
        match to {
            To::Stdout => Self::Stdout,
            To::Stderr => Self::Stderr,
        }
    }
}

impl From<Ended> for ExitStatus {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Code(code) => Self::Code(code),
            Ended::Signal(n) => Self::Signal(i32::from(n % 64) + 1),
        }
    }
}

/// A signal from the client, and what came before it: bytes of standard input, and sizes.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) number: i32,
    pub(super) stdin: usize,
    pub(super) sizes: usize,
}

/// What a client has said.
#[derive(Debug)]
pub(super) struct Understood {
    pub(super) argv: Option<Argv>,
    pub(super) options: Options,
    pub(super) stdin: Vec<u8>,
    /// Where its standard input ended, in bytes of the request.
    pub(super) end: Option<usize>,
    /// The request is over: what still comes is dropped.
    pub(super) over: bool,
    pub(super) asks_for_status: bool,
    /// It wants to know whether the daemon serves.
    pub(super) is_ping: bool,
    pub(super) signals: Vec<Said>,
    pub(super) sizes: Vec<WindowSize>,
    pub(super) error: Option<BadRequest>,
}

impl Understood {
    /// What `bytes` say when read at once, with this many `descriptors`. `ended`: the client sends no more.
    pub(super) fn of(bytes: &[u8], descriptors: u32, ended: bool) -> Self {
        let mut decoder = RequestDecoder::new();
        let mut understood = Self {
            argv: None,
            options: Options::default(),
            stdin: Vec::new(),
            end: None,
            over: false,
            asks_for_status: false,
            is_ping: false,
            signals: Vec::new(),
            sizes: Vec::new(),
            error: None,
        };
        understood.read(&mut decoder, bytes, descriptors, ended);
        understood
    }

    fn read(&mut self, decoder: &mut RequestDecoder, bytes: &[u8], descriptors: u32, ended: bool) {
        let mut at = 0;
        loop {
            let event = match decoder.next(bytes.get(at..).unwrap_or_default()) {
                Ok((used, event)) => {
                    at += used;
                    event
                }
                Err(error) => {
                    self.error = Some(error);
                    return;
                }
            };
            let rest = bytes.get(at..).unwrap_or_default();
            match event {
                Event::Exec(argv) => self.argv = Some(argv),
                Event::Start(request) => {
                    let Request { options, argv } = *request;
                    self.check_descriptors(decoder, options.descriptors, descriptors);
                    if self.error.is_none() {
                        (self.options, self.argv) = (options, Some(argv));
                    }
                }
                Event::Status => {
                    self.check_descriptors(decoder, false, descriptors);
                    self.asks_for_status = self.error.is_none();
                    self.over = true;
                    return;
                }
                Event::Signal(signal) => match number_of(&signal) {
                    Some(number) => {
                        self.signals.push(Said { number, stdin: self.stdin.len(), sizes: self.sizes.len() });
                    }
                    None => self.error = Some(decoder.unknown_signal(&signal)),
                },
                Event::WindowSize(size) => self.sizes.push(size),
                Event::Stdin(len) if !rest.is_empty() => {
                    let payload = rest.get(..netstring::at_most(rest.len(), len)).unwrap_or_default();
                    self.stdin.extend_from_slice(payload);
                    decoder.advance(payload.len() as u64);
                    at += payload.len();
                }
                Event::Protocol => {}
                Event::EndOfStdin => {
                    self.end = Some(at);
                    if decoder.version() == Version::One {
                        self.over = true;
                        return;
                    }
                }
                Event::NeedMore | Event::Stdin(_) => break,
            }
            if self.error.is_some() {
                return;
            }
        }
        if ended {
            let is_ping = decoder.is_ping();
            match decoder.end_of_file() {
                Ok(()) if is_ping => {
                    self.check_descriptors(decoder, false, descriptors);
                    self.is_ping = self.error.is_none();
                    self.end = self.end.or(Some(at));
                    self.over = true;
                }
                Ok(()) => {
                    self.end = self.end.or(Some(at));
                    self.over = true;
                }
                Err(error) => self.error = Some(error),
            }
        }
    }

    fn check_descriptors(&mut self, decoder: &RequestDecoder, wanted: bool, count: u32) {
        let kind = match (wanted, count) {
            (true, 3) | (false, 0) => return,
            (true, count) => BadRequestKind::Descriptors(count),
            (false, count) => BadRequestKind::StrayDescriptors(count),
        };
        self.error = Some(BadRequest { kind, offset: decoder.offset() });
    }
}

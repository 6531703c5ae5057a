//! Version 2 of the protocol, row by row of the two tables in docs/protocol.md: the meaning of each
//! row, and what is refused.

mod beside;
pub(crate) mod descriptors;
mod input;
mod introduction;
mod lingering;
mod options;
mod replies;
mod sessions;
mod starts;
pub(crate) mod status;
mod terminals;
mod window;

use std::fmt;
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, Signal};

use crate::common::{Client, Daemon, pairs, request, show_pairs, steps};

/// A netstring, made without the help of the crate under test.
pub(crate) fn netstring(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [format!("{}:", bytes.len()).as_bytes(), bytes, b","].concat()
}

/// A pair as a client sends it.
fn pair(tag: &str, payload: impl AsRef<[u8]>) -> Vec<u8> {
    [netstring(tag), netstring(payload)].concat()
}

/// The bytes of a request up to its last argument. Without arguments they end with the options.
fn request_2<O: AsRef<[u8]>, A: AsRef<[u8]>>(options: &[O], argv: &[A]) -> Vec<u8> {
    let mut bytes = netstring("protocol=2");
    for option in options {
        bytes.extend(netstring(option));
    }
    if !argv.is_empty() {
        bytes.extend(request(argv));
    }
    bytes
}

/// A connection that speaks version 2.
pub(crate) struct Caller(Client);

impl Caller {
    /// A connection that has sent the options and the arguments.
    #[track_caller]
    pub(crate) fn start<O: AsRef<[u8]>, A: AsRef<[u8]>>(daemon: &Daemon, options: &[O], argv: &[A]) -> Self {
        let mut client = daemon.connect();
        client.send(&request_2(options, argv));
        Self(client)
    }

    /// A connection whose clocks begin when these bytes have been sent. Otherwise a slow machine may
    /// send them too late.
    #[track_caller]
    fn sent_before_it_is_accepted(daemon: &Daemon, bytes: &[u8]) -> Self {
        daemon.stop();
        let mut client = daemon.connect();
        client.send(bytes);
        daemon.signal(Signal::CONT);
        Self(client)
    }

    #[track_caller]
    pub(crate) fn tell(&mut self, tag: &str, payload: impl AsRef<[u8]>) {
        self.0.send(&pair(tag, payload));
    }

    #[track_caller]
    fn stdin(&mut self, bytes: impl AsRef<[u8]>) {
        self.tell("stdin", bytes);
    }

    #[track_caller]
    pub(crate) fn end_stdin(&mut self) {
        self.tell("stdin", "");
    }

    #[track_caller]
    pub(crate) fn wait_for(&mut self, words: &str) {
        self.0.wait_for(words);
    }

    #[track_caller]
    pub(crate) fn reply(mut self) -> Reply2 {
        Reply2::parse(&self.0.rest())
    }
}

/// Runs a program to its end with this input.
#[track_caller]
pub(crate) fn run<O: AsRef<[u8]>, A: AsRef<[u8]>>(daemon: &Daemon, options: &[O], argv: &[A], stdin: &str) -> Reply2 {
    let mut caller = Caller::start(daemon, options, argv);
    if !stdin.is_empty() {
        caller.stdin(stdin);
    }
    caller.end_stdin();
    caller.reply()
}

/// The process number that the daemon logged last, in the log after `position`.
#[track_caller]
fn last_pid(daemon: &Daemon, position: usize) -> Pid {
    daemon.wait_for_log_after(position, "started pid ");
    *daemon.started(position).last().expect("a program")
}

/// No options.
pub(crate) const NONE: &[&str] = &[];

/// A whole reply of version 2.
#[derive(Default)]
pub(crate) struct Reply2 {
    /// The introduction of the daemon.
    introduction: String,
    /// The number of requests that waited.
    queued: Option<u64>,
    /// The reports of how much input was taken, in bytes.
    taken: Vec<u64>,
    input_closed: bool,
    /// The process number of the program.
    started: Option<u32>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The streams whose end was reported, in that order.
    ended: Vec<String>,
    errors: Vec<String>,
    usage: Option<String>,
    status: Option<String>,
    /// The tag and the payload of the exit pair.
    exit: Option<(String, String)>,
    pairs: Vec<(String, Vec<u8>)>,
}

impl fmt::Debug for Reply2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_pairs(&self.pairs, f)
    }
}

impl Reply2 {
    /// Parses a reply and checks its order.
    #[track_caller]
    fn parse(raw: &[u8]) -> Self {
        let mut all = pairs(raw);
        assert!(!all.is_empty(), "a bare close");
        let (tag, introduction) = all.remove(0);
        assert_eq!(tag, "protocol", "the introduction comes first: {}", raw.escape_ascii());
        let introduction = String::from_utf8(introduction).expect("text");
        let mut reply = Self { introduction, pairs: all, ..Self::default() };
        for (tag, payload) in reply.pairs.clone() {
            let text = || String::from_utf8(payload.clone()).expect("text");
            assert!(reply.exit.is_none() && reply.status.is_none(), "{tag} after the end: {reply:?}");
            assert!(reply.usage.is_none() || matches!(tag.as_str(), "exitcode" | "termsig"), "{tag} after usage");
            match tag.as_str() {
                "started" => {
                    assert!(reply.started.is_none() && reply.stdout.is_empty(), "{reply:?}");
                    reply.started = Some(text().parse().expect("a number"));
                }
                "stdout" | "stderr" => {
                    assert!(reply.started.is_some(), "{tag} of a program that was not started: {reply:?}");
                    assert!(!reply.ended.contains(&tag), "{tag} after its end: {reply:?}");
                    if payload.is_empty() {
                        reply.ended.push(tag);
                    } else if tag == "stdout" {
                        reply.stdout.extend(payload);
                    } else {
                        reply.stderr.extend(payload);
                    }
                }
                "queued" => {
                    assert!(reply.queued.is_none() && reply.started.is_none(), "{reply:?}");
                    reply.queued = Some(text().parse().expect("a number"));
                }
                "taken" => {
                    let taken = text().parse().expect("a number");
                    assert!(reply.started.is_some() && !reply.input_closed, "{reply:?}");
                    assert!(reply.taken.last().is_none_or(|&last| last < taken), "{reply:?}");
                    reply.taken.push(taken);
                }
                "input-closed" => {
                    assert!(reply.started.is_some() && !reply.input_closed && payload.is_empty(), "{reply:?}");
                    reply.input_closed = true;
                }
                "error" => {
                    assert!(reply.errors.is_empty(), "two errors: {reply:?}");
                    reply.errors.push(text());
                }
                "usage" => reply.usage = Some(text()),
                "status" => reply.status = Some(text()),
                "exitcode" | "termsig" => reply.exit = Some((tag, text())),
                _ => panic!("the tag {tag:?} in {reply:?}"),
            }
        }
        if reply.exit.is_some() {
            assert!(reply.started.is_some() && reply.usage.is_some(), "{reply:?}");
        }
        reply
    }

    #[track_caller]
    fn stdout_text(&self) -> &str {
        str::from_utf8(&self.stdout).expect("text")
    }

    #[track_caller]
    fn stderr_text(&self) -> &str {
        str::from_utf8(&self.stderr).expect("text")
    }

    #[track_caller]
    pub(crate) fn code(&self) -> i32 {
        match &self.exit {
            Some((tag, code)) if tag == "exitcode" => code.parse().expect("a number"),
            Some(_) | None => panic!("no exit code: {self:?}"),
        }
    }

    /// The signal that ended the program.
    #[track_caller]
    pub(crate) fn signal(&self) -> i32 {
        match &self.exit {
            Some((tag, signal)) if tag == "termsig" => signal.parse().expect("a number"),
            Some(_) | None => panic!("no signal: {self:?}"),
        }
    }

    /// The only `error` of a reply that has nothing else but the introduction.
    #[track_caller]
    pub(crate) fn refusal(&self) -> &str {
        assert_eq!(self.pairs.len(), 1, "{self:?}");
        assert_eq!(self.errors.len(), 1, "{self:?}");
        &self.errors[0]
    }
}

/// Asserts that a descendant which holds the output does not change how the program ends. `before`: the
/// program's first steps.
#[track_caller]
fn assert_a_holder_keeps_the_reply(options: &[&str], before: &str) {
    let daemon = Daemon::start("-k 0.3 --linger 0.2");
    let (mut fifo, gate) = (daemon.fifo("fifo"), daemon.gate("gate"));
    let argv = format!("{before} spawn [ hold {} wait ] out word gate {} exit 6", fifo.path(), gate.path());
    let caller = Caller::start(&daemon, options, &steps(&argv));
    // The time must not be up before the descendant holds anything.
    fifo.holder();
    gate.open();
    let reply = caller.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("word", 6));
    fifo.wait_for_death();
}

/// Asserts that the daemon has as many descriptors as before these tests, and no children.
#[track_caller]
fn assert_clean(daemon: &Daemon, descriptors: usize) {
    crate::common::eventually("descriptors and children as at first", || {
        daemon.process().descriptors() == descriptors && daemon.process().children() == (0, 0)
    });
}

impl From<UnixStream> for Caller {
    fn from(socket: UnixStream) -> Self {
        Self(socket.into())
    }
}

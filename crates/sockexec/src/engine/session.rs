//! The life of one connection. Every transition is in this file.
//!
//! Four machines run side by side: the program, its ending by force, the client, and the reply. Each
//! line below is a transition, and there is no other: the model's `the_diagram_is_true` compares them
//! with those that it sees.
//!
//! ```text
//! Program    Absent     -> Waiting     the request is complete
//!            Waiting    -> Starting    it has a slot
//!            Waiting    -> Absent      withdrawn: the client left, was turned away, or its time was up
//!            Starting   -> Running     its process exists
//!            Starting   -> Absent      it could not be made
//!            Running    -> Exited      the leader of the group is dead, and stays a zombie
//!            Running    -> Over        the exec failed, which may become known late
//!            Exited     -> Over        reaped: the group is empty, or has only jobs in the background
//!
//! Ending     Not        -> Terminated  the client left, the time is up, or the request was bad: TERM
//!            Terminated -> Terminated  the group is probed again for members
//!            Terminated -> Killing     the kill time-out is over: KILL
//!            Terminated -> Killed      the same, when the program is gone already
//!            Killing    -> Killed      KILL was sent to every member
//!            Killed     -> Drained     what is in the pipes is taken, and they are closed
//!
//! Client     Open       -> HalfClosed  it sends no more
//!            Open       -> Closed      it left, or the reply is sent and read
//!            HalfClosed -> Closed      the same
//!
//! Reply      Streaming  -> Finishing   the exit pair, or the error, is queued
//!            Finishing  -> Sent        it is sent
//! ```

use std::collections::VecDeque;
use std::ffi::CStr;
use std::fmt::Debug;
use std::rc::Rc;
use std::time::Duration;

use sockexec_proto::error::BadRequestKind;
use sockexec_proto::request::{Event, Request};
use sockexec_proto::{BadRequest, Options, RequestDecoder, Signal, Stream, Usage, Version, WindowSize, reply};

use super::Time;
use super::answer::{self, Cut};
use super::io::{Action, Backpressure, ExitStatus, Frame, Limits, StartError, Stay, Step};

/// How long after KILL the streams are read until end of file. Then what is in them is taken and they
/// are closed: a process that still holds them has left the group.
const DRAIN_AFTER_KILL: Duration = Duration::from_millis(250);

/// How long after KILL the client may take to read the rest of its reply.
const CUT_AFTER_KILL: Duration = Duration::from_secs(2);

/// How long after its reply is complete what a client still sends is read and dropped.
const LINGER_AFTER_REPLY: Duration = Duration::from_secs(5);

/// The same while the daemon is shutting down.
const LINGER_AT_SHUTDOWN: Duration = Duration::from_millis(250);

/// How long after TERM, once the leader is dead, the group is first probed for members. Doubled each
/// time, up to a quarter of a second: members die in a millisecond or take their time.
const FIRST_PROBE: Duration = Duration::from_millis(2);
const MAX_DOUBLINGS: u8 = 7;

/// How much of a program's name is shown when it cannot be started, in bytes: more than any path has.
const SHOWN_NAME: usize = 4096;

/// The leader of the program's group, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Program {
    Absent,
    /// The request is complete, and has no slot yet.
    Waiting,
    Starting,
    Running,
    /// Dead and not reaped: its number cannot be another group's, so the group may be signalled.
    Exited,
    /// Reaped, and its group is never signalled again.
    Over,
}

/// How far the group's ending has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ending {
    Not,
    Terminated {
        kill_at: Time,
        probe_at: Option<Time>,
        /// How often the group was probed.
        probes: u8,
    },
    /// KILL was ordered, and may not have been sent to every member yet.
    Killing,
    Killed {
        drain_at: Time,
    },
    /// Killed, and its streams are not waited for.
    Drained,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Client {
    Open,
    /// It sends no more, and reads.
    HalfClosed,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reply {
    Streaming,
    /// The exit pair is queued; nothing may follow it.
    Finishing,
    /// The sending side is ended.
    Sent {
        close_at: Time,
    },
}

/// What the program's standard streams are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Streams {
    Pipes,
    /// Standard error goes where standard output goes.
    Merged,
    Terminal,
    /// Descriptors of the client: their bytes do not pass through the daemon.
    Foreign,
}

impl Streams {
    const fn of(options: &Options) -> Self {
        match options {
            Options { descriptors: true, .. } => Self::Foreign,
            Options { pty: Some(_), .. } => Self::Terminal,
            Options { stderr_to_stdout: true, .. } => Self::Merged,
            Options { .. } => Self::Pipes,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stdin {
    Open,
    /// Ended by the client, and some of it is still held.
    Ending,
    /// Ended by the client or closed by the program: what still comes is dropped.
    Closed,
}

/// What has become of a program's input, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Window {
    /// Held for a program that does not read it yet.
    ahead: u64,
    /// Written to the program or dropped, since the start.
    left: u64,
    /// How much of that was reported.
    reported: u64,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own; enums have those that belong together")]
pub(crate) struct Session {
    /// The same for all connections of a daemon.
    limits: Rc<Limits>,
    request: RequestDecoder,
    /// The request broke the protocol, or came too late: what still comes of it is dropped.
    refused: bool,
    program_name: Box<[u8]>,
    program: Program,
    /// The request while it waits for a slot.
    waiting: Option<Box<Request>>,
    /// Version 2: the exec succeeded, and the client was told.
    executed: bool,
    /// Version 2: why the program is cut short. The client is told once it is known what came of the exec.
    withheld: Option<Cut>,
    /// Version 2: an `error` was sent. There is no second one.
    error_told: bool,
    /// What the request's options make of its program's streams.
    streams: Streams,
    status: Option<ExitStatus>,
    usage: Option<Box<Usage>>,
    /// How many descriptors came with the client's bytes.
    descriptors: u32,
    /// Others came too, and were lost on the way.
    descriptors_lost: bool,
    stdin: Stdin,
    /// Version 2 has one. Boxed, so that version 1 does not pay for it: there are many connections.
    window: Option<Box<Window>>,
    /// Version 2: the client was told that the program has closed its input.
    input_closed: bool,
    stdout_open: bool,
    stderr_open: bool,
    /// Output waits because the client does not read.
    stalled: bool,
    /// No process has the other ends of the output streams any more: what is in them is all there will be.
    output_complete: bool,
    ending: Ending,
    client: Client,
    reply: Reply,
    accepted: Time,
    deadline: Option<Time>,
    /// When the daemon began to leave the request in the socket for want of memory. The time for it stands
    /// still.
    paused_at: Option<Time>,
    linger_at: Option<Time>,
    cut_at: Option<Time>,
    shutting_down: bool,
    /// The daemon ends once all replies are complete.
    draining: bool,
    /// The daemon ends at once: KILL follows TERM without waiting.
    at_once: bool,
    /// The deadline came before the reply was complete.
    timed_out: bool,
    /// The platform cannot tell when the group is empty: the slot is free once the leader is dead.
    unknowable: bool,
    /// None: there are no actions, as during most of a connection's life.
    #[expect(clippy::box_collection, reason = "empty, a VecDeque is four words in each connection")]
    actions: Option<Box<VecDeque<Action>>>,
}

impl Session {
    /// A connection that was accepted `now`.
    pub(crate) fn new(limits: Rc<Limits>, now: Time) -> Self {
        let deadline = limits.request_timeout.and_then(|timeout| now.checked_add(timeout));
        Self {
            limits,
            request: RequestDecoder::new(),
            refused: false,
            program_name: Box::default(),
            program: Program::Absent,
            waiting: None,
            executed: false,
            withheld: None,
            error_told: false,
            streams: Streams::Pipes,
            status: None,
            usage: None,
            descriptors: 0,
            descriptors_lost: false,
            stdin: Stdin::Closed,
            window: None,
            input_closed: false,
            stdout_open: false,
            stderr_open: false,
            stalled: false,
            output_complete: false,
            ending: Ending::Not,
            client: Client::Open,
            reply: Reply::Streaming,
            accepted: now,
            deadline,
            paused_at: None,
            linger_at: None,
            cut_at: None,
            shutting_down: false,
            draining: false,
            at_once: false,
            timed_out: false,
            unknowable: false,
            actions: None,
        }
    }

    // What the driver asks.

    /// The next thing to do. After every input, call this until it returns `None`.
    pub(crate) fn next_action(&mut self) -> Option<Action> {
        let action = self.actions.as_mut()?.pop_front();
        if action.is_none() {
            self.actions = None;
        }
        action
    }

    /// When to call [`Session::tick`], unless another input changes that.
    pub(crate) fn next_timer(&self) -> Option<Time> {
        let kill_at = match self.ending {
            Ending::Not | Ending::Killing | Ending::Drained => None,
            Ending::Terminated { kill_at, probe_at, .. } => Some(probe_at.map_or(kill_at, |probe| probe.min(kill_at))),
            Ending::Killed { drain_at } => Some(drain_at),
        };
        let client = if self.client == Client::Closed {
            None
        } else {
            earliest([self.running_deadline(), self.cut_at, self.close_at()])
        };
        earliest([client, self.linger_at, kill_at])
    }

    /// Whether the client's bytes are to be read.
    pub(crate) fn wants_request(&self) -> bool {
        self.client == Client::Open && !self.leaves_input()
    }

    /// Whether what the client has sent after its request is left for now. In version 2 a signal must not
    /// reach a child before its exec: the child begins with copies of the daemon's descriptors, and if it
    /// were stopped before it has closed them, the streams of other clients' programs would stay open.
    fn leaves_input(&self) -> bool {
        matches!(self.program, Program::Waiting | Program::Starting) || self.wants_executed()
    }

    /// What to do with the output now.
    pub(crate) fn backpressure(&self) -> Backpressure {
        match (self.client, self.reply) {
            (Client::Open, Reply::Streaming) if self.stdin == Stdin::Open && self.version() == Version::One => {
                Backpressure::Spool
            }
            (Client::Open | Client::HalfClosed, Reply::Streaming) => Backpressure::Strict,
            (Client::Closed, _) | (_, Reply::Finishing | Reply::Sent { .. }) => Backpressure::Discard,
        }
    }

    /// The version of the protocol that the client speaks: 1 until it says otherwise.
    pub(crate) const fn version(&self) -> Version {
        self.request.version()
    }

    /// The most output that one frame may carry, in bytes.
    pub(crate) const fn most_output(&self) -> usize {
        match self.version() {
            Version::One => Frame::MAX_SPLICED,
            Version::Two => reply::MAX_OUTPUT,
        }
    }

    /// Whether the session must know that the exec succeeded. Answer with [`Session::executed`], or with
    /// [`Session::exited`] or [`Session::start_failed`]. Do not read the output before that.
    pub(crate) fn wants_executed(&self) -> bool {
        self.version() == Version::Two && self.program == Program::Running && !self.executed
    }

    /// When the connection was accepted.
    pub(crate) const fn accepted(&self) -> Time {
        self.accepted
    }

    /// The name of the program, as much of it as the client is told.
    pub(crate) fn program(&self) -> &[u8] {
        &self.program_name
    }

    /// Whether [`Session::descriptors`] must be called for descriptors that come with the client's bytes.
    pub(crate) fn wants_descriptors(&self) -> bool {
        !self.refused && self.program == Program::Absent
    }

    /// Whether the session must know of the leader's exit. Answer with [`Session::exited`] when it comes.
    pub(crate) fn wants_exit(&self) -> bool {
        self.program == Program::Running
            && (self.output_ended() || self.ending != Ending::Not || self.limits.linger.is_some() || self.stalled)
    }

    /// Whether the session must know when no process has the other ends of the output streams any more.
    /// Answer with [`Session::output_is_complete`].
    pub(crate) fn wants_output_complete(&self) -> bool {
        self.program == Program::Exited && self.ending == Ending::Not && self.stalled && !self.output_ended()
    }

    /// Whether the client's socket is closed as soon as its reply is complete.
    pub(crate) fn closes_with_reply(&self) -> bool {
        // The end of a bad request is unknown.
        self.request.ended() && !self.refused || self.client == Client::HalfClosed
    }

    /// Whether the deadline came before the reply was complete.
    pub(crate) const fn timed_out(&self) -> bool {
        self.timed_out
    }

    /// Whether the request did not come in time, and was not answered yet.
    pub(crate) fn request_is_due(&self, now: Time) -> bool {
        self.awaits_request() && self.running_deadline().is_some_and(|time| time <= now)
    }

    /// Whether the request is not complete, and was not answered yet.
    pub(crate) fn awaits_request(&self) -> bool {
        self.stay() == Some(Stay::Request)
    }

    /// What the connection does without a slot. `None`: it has one, or its client is gone.
    pub(crate) fn stay(&self) -> Option<Stay> {
        match (self.client, self.program, self.reply) {
            (Client::Closed, ..) | (_, Program::Starting | Program::Running | Program::Exited, _) => None,
            (_, Program::Waiting, _) => Some(Stay::Slot),
            (_, Program::Absent, Reply::Streaming) => Some(Stay::Request),
            (_, Program::Absent | Program::Over, _) => Some(Stay::Reply),
        }
    }

    /// About how much memory a request takes that is not complete or waits for a slot, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        match self.stay() {
            Some(Stay::Request) => self.request.held(),
            Some(Stay::Slot) => self.request.offset() + self.waiting.as_ref().map_or(0, |request| request.overhead()),
            Some(Stay::Reply) | None => 0,
        }
    }

    /// Whether its program has a slot.
    pub(crate) fn holds_slot(&self) -> bool {
        match self.program {
            Program::Absent | Program::Waiting | Program::Over => false,
            Program::Starting | Program::Running => true,
            Program::Exited => !self.is_leftover(),
        }
    }

    /// Whether it only waits until KILL is due, for a group that the platform cannot probe for members.
    pub(crate) fn is_leftover(&self) -> bool {
        self.program == Program::Exited && self.unknowable && self.client == Client::Closed
    }

    /// Whether its request waits for a slot.
    pub(crate) fn waits_for_slot(&self) -> bool {
        self.program == Program::Waiting
    }

    /// The request while it waits.
    pub(crate) fn waiting_request(&self) -> Option<&Request> {
        self.waiting.as_deref()
    }

    /// How much of a program's input may be held for it, in bytes.
    pub(crate) fn window(&self) -> u64 {
        self.limits.window
    }

    /// How much more of a program's input may be held for it, in bytes.
    pub(crate) fn room_ahead(&self) -> u64 {
        match (&self.window, self.stdin) {
            (Some(window), Stdin::Open) => self.limits.window.saturating_sub(window.ahead),
            (None, _) | (_, Stdin::Ending | Stdin::Closed) => 0,
        }
    }

    /// A report of how much input has left, if one is due. Call this only when no other report waits to be
    /// sent: so there is never more than one for a client that does not read, and it is up to date.
    pub(crate) fn report(&mut self) -> Option<Vec<u8>> {
        let is_wanted = self.reply == Reply::Streaming && self.client != Client::Closed && !self.input_closed;
        let half = (self.limits.window / 2).max(1);
        let window = self.window.as_mut().filter(|_| is_wanted && self.executed)?;
        (window.left - window.reported >= half).then(|| {
            window.reported = window.left;
            answer::taken(window.left)
        })
    }

    /// Whether the whole reply was sent, or there is no client to read it.
    pub(crate) fn is_answered(&self) -> bool {
        self.client == Client::Closed || matches!(self.reply, Reply::Sent { .. })
    }

    /// Whether a shutdown would be the first cause to cut it short.
    pub(crate) fn is_cut_by_shutdown(&self) -> bool {
        !self.shutting_down && self.client != Client::Closed && self.reply == Reply::Streaming && self.cut_at.is_none()
    }

    /// Whether an error that comes now would be the first, and there is a client to tell.
    pub(crate) fn tells_errors(&self) -> bool {
        let told = self.error_told || self.withheld.is_some();
        self.client != Client::Closed && self.reply == Reply::Streaming && !told
    }

    /// When its time is up, unless it is already.
    pub(crate) const fn deadline(&self) -> Option<Time> {
        self.running_deadline()
    }

    /// Whether nothing is left to do, and the connection can be forgotten.
    pub(crate) fn is_over(&self) -> bool {
        self.client == Client::Closed && matches!(self.program, Program::Absent | Program::Over)
    }

    /// What the connection waits for, in words for people.
    pub(crate) fn waits_for(&self) -> &'static str {
        match (self.program, self.ending, self.reply) {
            (Program::Absent, _, Reply::Streaming) => "request",
            (Program::Waiting, _, _) => "a free slot",
            (Program::Running, Ending::Not, _) if self.wants_executed() => "exec of the program",
            (Program::Starting, _, _) => "start of the program",
            (Program::Running | Program::Exited, Ending::Killing | Ending::Killed { .. } | Ending::Drained, _) => {
                "death after KILL"
            }
            (Program::Running, Ending::Terminated { .. }, _) => "death after TERM",
            (Program::Exited, Ending::Terminated { .. }, _) => "death of the rest of the group",
            (Program::Running, Ending::Not, _) if self.output_ended() => "exit of the program",
            (Program::Running, Ending::Not, _) if self.stdin != Stdin::Closed => "output or input",
            (Program::Running, Ending::Not, _) => "output",
            (Program::Exited, Ending::Not, _) => "output of descendants",
            (Program::Over, _, Reply::Streaming) => "output of descendants outside the group",
            (Program::Absent | Program::Over, _, Reply::Finishing) => "client to read its reply",
            (Program::Absent | Program::Over, _, Reply::Sent { .. }) => "client to end its sending",
        }
    }

    // What the client does.

    /// Reads from the front of the client's bytes. Returns how many were consumed, and what follows them.
    pub(crate) fn step(&mut self, now: Time, input: &[u8]) -> (usize, Step) {
        if self.refused {
            return (0, everything(input));
        }
        if self.leaves_input() {
            return (0, Step::NeedMore);
        }
        match self.request.next(input) {
            Ok((used, Event::Exec(argv))) => {
                self.complete(Box::new(Request { options: Options::default(), argv }));
                (used, Step::NeedMore)
            }
            Ok((used, Event::Protocol)) => {
                self.window = Some(Box::default());
                self.send(answer::introduction(self.limits.window));
                // Reads on at once: an unknown version must be refused even if no other byte comes.
                let (more, step) = self.step(now, input.get(used..).unwrap_or_default());
                (used + more, step)
            }
            Ok((used, event @ (Event::Start(_) | Event::Status | Event::Signal(_) | Event::WindowSize(_)))) => {
                if let Err(error) = self.version_2(event) {
                    self.refuse(now, &error);
                }
                self.settle();
                (used, Step::NeedMore)
            }
            Ok((used, Event::Stdin(len))) => match self.stdin {
                Stdin::Open => (used, Step::Stdin(len)),
                Stdin::Ending | Stdin::Closed => (used, Step::Drop(len)),
            },
            Ok((used, Event::EndOfStdin)) => {
                self.end_stdin();
                self.settle();
                let rest = input.get(used..).unwrap_or_default();
                (used, if self.request.ended() { everything(rest) } else { Step::NeedMore })
            }
            Ok((used, Event::NeedMore)) => (used, Step::NeedMore),
            Err(error) => {
                self.refuse(now, &error);
                (0, everything(input))
            }
        }
    }

    /// `n` bytes that [`Session::step`] announced were moved or dropped.
    pub(crate) fn moved(&mut self, n: u64) {
        if !self.refused {
            self.request.advance(n);
            self.leave(n);
        }
    }

    /// `n` bytes of input that [`Session::step`] announced are held for a program that does not read them
    /// yet, within [`Session::room_ahead`].
    pub(crate) fn held(&mut self, n: u64) {
        self.request.advance(n);
        if let Some(window) = &mut self.window {
            window.ahead += n;
        }
    }

    /// `n` of the bytes that were held were written to the program.
    pub(crate) fn released(&mut self, n: u64) {
        if let Some(window) = &mut self.window {
            window.ahead = window.ahead.saturating_sub(n);
        }
        self.leave(n);
        if !self.is_ahead() && self.stdin == Stdin::Ending {
            self.end_stdin();
            self.settle();
        }
    }

    /// The complete request has a slot. Its time runs from now.
    pub(crate) fn slot(&mut self, now: Time) {
        if let Some(request) = self.waiting.take() {
            let timeouts = [self.limits.timeout, request.options.timeout];
            self.deadline = earliest(timeouts.map(|timeout| timeout.and_then(|timeout| now.checked_add(timeout))));
            enter(&mut self.program, Program::Starting);
            self.act(Action::Spawn(request));
        }
    }

    /// There is no slot for the request yet. `requests` wait, including this one.
    pub(crate) fn has_to_wait(&mut self, requests: u64) {
        if self.version() == Version::Two {
            self.send(answer::queued(requests));
        }
    }

    /// What the client sends is left in its socket, for want of memory. The time for its request stands
    /// still until [`Session::resume`].
    pub(crate) fn pause(&mut self, now: Time) {
        if self.awaits_request() {
            self.paused_at.get_or_insert(now);
        }
    }

    /// What the client sends is read again.
    pub(crate) fn resume(&mut self, now: Time) {
        if let Some(paused_at) = self.paused_at.take() {
            let paused = now.saturating_sub(paused_at);
            self.deadline = self.deadline.and_then(|deadline| deadline.checked_add(paused));
        }
    }

    /// Another connection needs its place. A request that is not complete or waits is not carried out, and
    /// its client is told so if its version is known. The rest of a reply is lost, and so is that answer if
    /// this comes again. A connection with a slot keeps it.
    pub(crate) fn turn_away(&mut self, now: Time) {
        if self.stay().is_none() {
            return;
        }
        if self.can_be_busy() {
            self.reject();
            self.deadline = None;
            self.withdraw();
            self.finish_with_error(answer::busy(self.version()));
            self.cut_by(now + LINGER_AFTER_REPLY);
        } else {
            self.close_client();
        }
        self.settle();
    }

    /// Whether a client that is turned away now is told why.
    pub(crate) fn can_be_busy(&self) -> bool {
        match self.stay() {
            Some(Stay::Slot) => true,
            Some(Stay::Request) => self.request.knows_version(),
            Some(Stay::Reply) | None => false,
        }
    }

    /// `count` descriptors came with bytes of the client, which have not been read yet.
    pub(crate) fn descriptors(&mut self, count: usize) {
        self.descriptors = self.descriptors.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Besides, at least one came that the daemon could not take. If the request is right but for that, it goes
    /// on to [`Action::Spawn`], which must fail with the reason.
    pub(crate) fn descriptors_lost(&mut self) {
        self.descriptors(1);
        self.descriptors_lost = true;
    }

    /// The daemon's status, JSON, in answer to [`Action::TellStatus`].
    pub(crate) fn status(&mut self, json: &[u8]) {
        self.finish(answer::status(json));
        self.settle();
    }

    /// The client will send no more, and may still read.
    pub(crate) fn client_ended(&mut self, now: Time) {
        if self.client != Client::Open {
            return;
        }
        enter(&mut self.client, Client::HalfClosed);
        if !self.refused {
            let is_ping = self.request.is_ping();
            match self.request.end_of_file() {
                Ok(()) if is_ping => match self.check_descriptors(false) {
                    Ok(()) => {
                        self.act(Action::Pinged);
                        self.finish(Vec::new());
                    }
                    Err(error) => self.refuse(now, &error),
                },
                Ok(()) => self.end_stdin(),
                // The reply is complete or on its way: an early end changes nothing.
                Err(_) if self.reply != Reply::Streaming => {}
                Err(error) => self.refuse(now, &error),
            }
        }
        self.settle();
    }

    /// The client has closed both directions, or cannot be written to.
    pub(crate) fn client_gone(&mut self, now: Time) {
        if self.client == Client::Closed {
            return;
        }
        self.close_client();
        self.end_program(now);
        // After TERM: a program that ends at the end of its input must be seen to end by the signal.
        self.close_stdin();
        self.settle();
    }

    /// Everything queued was sent and the sending side is ended.
    pub(crate) fn sent(&mut self, now: Time) {
        if self.reply == Reply::Finishing {
            let linger = if self.shutting_down || self.draining { LINGER_AT_SHUTDOWN } else { LINGER_AFTER_REPLY };
            enter(&mut self.reply, Reply::Sent { close_at: now + linger });
            self.settle();
        }
    }

    // What the program does.

    /// The program is running, as the leader of a process group of its own.
    pub(crate) fn started(&mut self, now: Time) {
        enter(&mut self.program, Program::Running);
        self.stdin = if self.streams == Streams::Foreign { Stdin::Closed } else { Stdin::Open };
        self.stdout_open = self.streams != Streams::Foreign;
        self.stderr_open = self.streams == Streams::Pipes;
        // The reason to end the program may have come while it was starting.
        if self.client == Client::Closed || self.cut_at.is_some() {
            self.end_program(now);
        }
        if self.client == Client::Closed {
            self.close_stdin();
        }
        self.settle();
    }

    /// The exec succeeded, as this process.
    pub(crate) fn executed(&mut self, pid: u32) {
        if self.wants_executed() {
            self.executed = true;
            self.send(answer::started(pid));
            if let Some(cut) = self.withheld.take() {
                self.tell(cut);
            }
        }
    }

    /// There is no program, or the daemon has lost track of it. This may become known only from the death of
    /// the child that was to become it.
    pub(crate) fn start_failed(&mut self, error: &StartError) {
        match self.program {
            Program::Starting => enter(&mut self.program, Program::Absent),
            Program::Running => {
                self.reap();
                self.close_stdin();
                self.close_output();
            }
            Program::Absent | Program::Waiting | Program::Exited | Program::Over => return,
        }
        let words = answer::cannot_start(self.version(), &self.program_name, error);
        self.finish_with_error(words);
        self.settle();
    }

    /// The daemon cannot move the program's input or output, or has lost its status, for this reason. The
    /// program is ended, and its output so far is not passed off as complete.
    pub(crate) fn broken(&mut self, now: Time, reason: &str) {
        if self.reply == Reply::Streaming {
            self.finish_with_error(answer::broken(self.version(), &self.program_name, reason));
            self.cut_after_kill(now);
        }
        self.end_program(now);
        self.close_stdin();
        self.settle();
    }

    /// The program, and every process that inherited its standard input, no longer reads it.
    pub(crate) fn stdin_refused(&mut self) {
        if self.version() == Version::Two && self.program == Program::Running && !self.input_closed {
            self.input_closed = true;
            self.send(answer::input_closed());
        }
        self.close_stdin();
    }

    /// `len` bytes of output were read. Returns what to put around them, or `None` to drop them.
    pub(crate) fn output(&self, stream: Stream, len: usize) -> Option<Frame> {
        match self.backpressure() {
            Backpressure::Discard => None,
            Backpressure::Spool | Backpressure::Strict => {
                Some(Frame { header: reply::Header::new(stream, len as u64) })
            }
        }
    }

    /// The stream reached end of file.
    pub(crate) fn output_closed(&mut self, stream: Stream) {
        match stream {
            Stream::Stdout => self.stdout_open = false,
            Stream::Stderr => self.stderr_open = false,
        }
        if self.version() == Version::Two {
            self.send(answer::end_of(stream));
        }
        self.settle();
    }

    /// The leader is dead and not reaped. A version 2 client is told its resource usage.
    pub(crate) fn exited(&mut self, now: Time, status: ExitStatus, usage: Option<Usage>) {
        if self.program != Program::Running {
            return;
        }
        enter(&mut self.program, Program::Exited);
        self.status = Some(status);
        self.usage = usage.map(Box::new);
        if let Ending::Terminated { probe_at, .. } = &mut self.ending {
            *probe_at = Some(now);
        }
        self.settle();
    }

    /// A stream was found empty, and not at its end. Once the leader is dead, descendants hold it.
    pub(crate) fn output_is_empty(&mut self, now: Time) {
        if self.program == Program::Exited && self.ending == Ending::Not && self.linger_at.is_none() {
            self.linger_at = self.limits.linger.and_then(|linger| now.checked_add(linger));
        }
    }

    /// Output cannot be read now, because the client does not read. Returns whether that is new.
    pub(crate) fn output_stalls(&mut self) -> bool {
        !std::mem::replace(&mut self.stalled, true)
    }

    /// No process has the other ends of the output streams any more, but some output is still in them. What
    /// is left in the group is a background job, as if the output had been read to its end.
    pub(crate) fn output_is_complete(&mut self) {
        self.output_complete = true;
        self.settle();
    }

    /// The group has no members left.
    pub(crate) fn group_is_empty(&mut self) {
        if self.program == Program::Exited {
            self.reap();
            self.settle();
        }
    }

    /// Every member of the group was sent KILL. From now on the session waits for their death and the rest
    /// of the output.
    pub(crate) fn killed(&mut self, now: Time) {
        if self.ending == Ending::Killing {
            enter(&mut self.ending, Ending::Killed { drain_at: now + DRAIN_AFTER_KILL });
            self.settle();
        }
    }

    /// This platform cannot tell whether the group has members left.
    pub(crate) fn group_is_unknowable(&mut self) {
        self.unknowable = true;
        if let Ending::Terminated { probe_at, .. } = &mut self.ending {
            *probe_at = None;
        }
    }

    // What the clock and the operator do.

    /// Does what is due at `now`.
    pub(crate) fn tick(&mut self, now: Time) {
        let due = |time: Option<Time>| time.is_some_and(|time| time <= now);
        if due(self.linger_at) {
            self.end_program(now);
        }
        if due(self.running_deadline()) {
            self.deadline = None;
            self.timed_out = self.reply == Reply::Streaming;
            self.time_out(now, Some(Cut::Deadline));
        }
        if let Ending::Terminated { kill_at, probe_at, probes } = self.ending {
            if kill_at <= now {
                self.kill(now);
            } else if due(probe_at) {
                enter(
                    &mut self.ending,
                    Ending::Terminated {
                        kill_at,
                        probe_at: Some(now + FIRST_PROBE * (1 << probes)),
                        probes: (probes + 1).min(MAX_DOUBLINGS),
                    },
                );
                self.act(Action::Probe);
            }
        }
        if let Ending::Killed { drain_at } = self.ending
            && drain_at <= now
        {
            enter(&mut self.ending, Ending::Drained);
            self.act(Action::DrainOutput);
            // What came of the exec may become known too late for the client.
            if self.withheld.is_some() {
                self.finish_with_error(Vec::new());
            }
        }
        if due(self.cut_at) || due(self.close_at()) {
            self.close_client();
        }
        self.settle();
    }

    /// The daemon ends once all replies are complete. It does not wait long for a client that has its reply.
    pub(crate) fn drain(&mut self, now: Time) {
        self.draining = true;
        self.close_soon(now);
    }

    /// The daemon ends: as if the deadline had come, but every client that can be told is told.
    pub(crate) fn shut_down(&mut self, now: Time) {
        let again = std::mem::replace(&mut self.shutting_down, true);
        // Once only: a client whose deadline had come is not told about the shutdown as well.
        let timed_out = std::mem::take(&mut self.deadline).is_none() && self.cut_at.is_some();
        self.time_out(now, if again || timed_out { None } else { Some(Cut::Shutdown) });
        self.close_soon(now);
        self.settle();
    }

    /// The daemon ends at once: KILL without waiting.
    pub(crate) fn shut_down_now(&mut self, now: Time) {
        self.at_once = true;
        self.shut_down(now);
        match self.ending {
            Ending::Terminated { .. } => self.kill(now),
            Ending::Not | Ending::Killing | Ending::Killed { .. } | Ending::Drained => {}
        }
        self.cut_by(now + CUT_AFTER_KILL);
        self.settle();
    }

    // Transitions.

    fn act(&mut self, action: Action) {
        self.actions.get_or_insert_default().push_back(action);
    }

    /// When to stop waiting for the client of a complete reply.
    const fn close_at(&self) -> Option<Time> {
        match self.reply {
            Reply::Streaming | Reply::Finishing => None,
            Reply::Sent { close_at } => Some(close_at),
        }
    }

    /// Shortens the wait for the client of a complete reply.
    fn close_soon(&mut self, now: Time) {
        if let Reply::Sent { close_at } = &mut self.reply {
            *close_at = (*close_at).min(now + LINGER_AT_SHUTDOWN);
        }
    }

    /// The deadline, unless the time stands still.
    const fn running_deadline(&self) -> Option<Time> {
        match self.paused_at {
            None => self.deadline,
            Some(_) => None,
        }
    }

    fn output_ended(&self) -> bool {
        !self.stdout_open && !self.stderr_open
    }

    /// The time of this connection is up. A version 2 client is told why, unless it was told before. Version
    /// 1 has words for it only if the daemon is shutting down and nothing was started.
    fn time_out(&mut self, now: Time, why: Option<Cut>) {
        let has_words = self.version() == Version::Two;
        let unserved = why.filter(|&why| has_words || why == Cut::Shutdown && self.request.knows_version());
        let why = why.filter(|_| has_words);
        match (self.program, self.reply, unserved) {
            (Program::Absent | Program::Waiting, Reply::Streaming, Some(why)) => {
                // The rest of the request may still come.
                self.reject();
                self.withdraw();
                self.finish_with_error(answer::unserved(self.version(), why));
            }
            // A client that has not asked for anything was promised nothing.
            (Program::Absent | Program::Waiting, Reply::Streaming, None) => self.close_client(),
            (Program::Starting | Program::Running | Program::Exited, _, _) => {
                if let Some(why) = why {
                    self.tell(why);
                }
                self.end_program(now);
            }
            (Program::Over, _, _) => {
                if let Some(why) = why {
                    self.tell(why);
                }
            }
            (Program::Absent | Program::Waiting, _, _) => {}
        }
        self.cut_after_kill(now);
    }

    /// Tells a version 2 client why its program is cut short, unless it was told an error before. Withheld
    /// until it is known whether there is a program.
    fn tell(&mut self, cut: Cut) {
        if self.error_told || self.withheld.is_some() {
            return;
        }
        if self.program == Program::Starting || self.wants_executed() {
            self.withheld = Some(cut);
        } else {
            self.error_told = true;
            self.send(answer::cut(cut, true));
        }
    }

    /// Ends the reply with this error, or with the one that is withheld. If an error was sent already, there
    /// is no other.
    fn finish_with_error(&mut self, error: Vec<u8>) {
        let told = std::mem::replace(&mut self.error_told, true);
        match self.withheld.take() {
            Some(first) => self.finish(answer::cut(first, true)),
            None if told => self.finish(Vec::new()),
            None => self.finish(error),
        }
    }

    /// Withdraws a request that waits for a slot.
    fn withdraw(&mut self) {
        if self.program == Program::Waiting {
            enter(&mut self.program, Program::Absent);
            self.waiting = None;
        }
    }

    /// Gives the client until shortly after KILL is due if TERM is sent `now`.
    fn cut_after_kill(&mut self, now: Time) {
        self.cut_by(now + self.limits.kill_timeout + CUT_AFTER_KILL);
    }

    fn cut_by(&mut self, time: Time) {
        self.cut_at = Some(self.cut_at.map_or(time, |cut| cut.min(time)));
    }

    /// TERM now, KILL later; once.
    fn end_program(&mut self, now: Time) {
        self.linger_at = None;
        let probe_at = match self.program {
            // Starting: `started` comes back here if the client is gone by then.
            Program::Absent | Program::Waiting | Program::Starting | Program::Over => return,
            Program::Running => None,
            Program::Exited => Some(now),
        };
        if self.ending != Ending::Not {
            return;
        }
        // Also for a program that was still starting when the order came.
        let kill_at = if self.at_once { now } else { now + self.limits.kill_timeout };
        enter(&mut self.ending, Ending::Terminated { kill_at, probe_at, probes: 0 });
        self.act(Action::Terminate);
    }

    fn kill(&mut self, now: Time) {
        if matches!(self.program, Program::Running | Program::Exited) {
            enter(&mut self.ending, Ending::Killing);
            self.act(Action::Kill);
        } else {
            enter(&mut self.ending, Ending::Killed { drain_at: now + DRAIN_AFTER_KILL });
        }
    }

    fn reap(&mut self) {
        enter(&mut self.program, Program::Over);
        if let Ending::Terminated { probe_at, .. } = &mut self.ending {
            *probe_at = None;
        }
        self.act(Action::Reap);
    }

    fn close_stdin(&mut self) {
        if self.stdin != Stdin::Closed {
            self.stdin = Stdin::Closed;
            let dropped = self.window.as_mut().map_or(0, |window| std::mem::take(&mut window.ahead));
            self.leave(dropped);
            self.act(Action::CloseStdin);
        }
    }

    /// This many bytes of input were written to the program, or dropped.
    fn leave(&mut self, n: u64) {
        if let Some(window) = &mut self.window {
            window.left = window.left.saturating_add(n);
        }
    }

    /// Whether some of the program's input is held.
    fn is_ahead(&self) -> bool {
        self.window.as_ref().is_some_and(|window| window.ahead > 0)
    }

    /// The client has no more input for the program.
    fn end_stdin(&mut self) {
        match self.stdin {
            Stdin::Open | Stdin::Ending if self.is_ahead() => self.stdin = Stdin::Ending,
            Stdin::Open | Stdin::Ending if self.streams == Streams::Terminal => {
                self.stdin = Stdin::Closed;
                self.act(Action::EndTerminalInput);
            }
            Stdin::Open | Stdin::Ending => self.close_stdin(),
            Stdin::Closed => {}
        }
    }

    fn close_client(&mut self) {
        if self.client != Client::Closed {
            enter(&mut self.client, Client::Closed);
            // Nobody is kept waiting any more. Its program, if there is one, is ended without that.
            self.deadline = None;
            self.withdraw();
            self.act(Action::CloseClient);
        }
    }

    /// What still comes of the request is dropped, and so is what has come: its client may stay for seconds,
    /// and nothing counts this memory any more.
    fn reject(&mut self) {
        self.refused = true;
        self.request.discard();
    }

    fn refuse(&mut self, now: Time, error: &BadRequest) {
        self.reject();
        if self.reply == Reply::Streaming {
            self.act(Action::Report(error.clone()));
            if self.error_told {
                // The program is being ended for the first cause, and the client will be told its end.
                self.close_stdin();
                return self.settle();
            }
            self.finish_with_error(answer::bad_request(self.version(), error));
            if self.program != Program::Absent {
                self.cut_after_kill(now);
            }
            self.end_program(now);
            self.close_stdin();
            self.settle();
        }
    }

    /// The request is complete, and waits for a slot.
    fn complete(&mut self, request: Box<Request>) {
        let name = request.argv.first().map(CStr::to_bytes).unwrap_or_default();
        self.program_name = name.get(..SHOWN_NAME).unwrap_or(name).into();
        self.streams = Streams::of(&request.options);
        enter(&mut self.program, Program::Waiting);
        self.waiting = Some(request);
        self.deadline = None;
        self.act(Action::WantSlot);
    }

    /// An event of version 2.
    fn version_2(&mut self, event: Event) -> Result<(), BadRequest> {
        match event {
            Event::Start(request) => {
                self.check_descriptors(request.options.descriptors)?;
                self.complete(request);
            }
            Event::Status => {
                self.check_descriptors(false)?;
                self.act(Action::TellStatus);
            }
            Event::Signal(signal) => self.signal(&signal)?,
            Event::WindowSize(size) => self.resize(size),
            Event::Exec(_) | Event::Protocol | Event::Stdin(_) | Event::EndOfStdin | Event::NeedMore => {}
        }
        Ok(())
    }

    fn check_descriptors(&self, wanted: bool) -> Result<(), BadRequest> {
        let offset = self.request.offset();
        let kind = match (wanted, self.descriptors) {
            (true, 3) | (false, 0) => return Ok(()),
            (true, 1..=2) if self.descriptors_lost => return Ok(()),
            (true, count) => BadRequestKind::Descriptors(count),
            (false, count) => BadRequestKind::StrayDescriptors(count),
        };
        Err(BadRequest { kind, offset })
    }

    fn signal(&mut self, signal: &Signal) -> Result<(), BadRequest> {
        let number = answer::signal_number(signal).ok_or_else(|| self.request.unknown_signal(signal))?;
        // A signal that comes after the program's exit is dropped. Others in the group do not get it either.
        if self.program == Program::Running {
            self.act(Action::Signal(number));
        }
        Ok(())
    }

    fn resize(&mut self, size: WindowSize) {
        if matches!(self.program, Program::Running | Program::Exited) {
            self.act(Action::Resize(size));
        }
    }

    /// Sends something between the pairs of output.
    fn send(&mut self, bytes: Vec<u8>) {
        if self.reply == Reply::Streaming && self.client != Client::Closed {
            self.act(Action::Send(bytes));
        }
    }

    fn finish(&mut self, bytes: Vec<u8>) {
        if self.reply == Reply::Streaming {
            enter(&mut self.reply, Reply::Finishing);
            if self.client != Client::Closed {
                if !bytes.is_empty() {
                    self.act(Action::Send(bytes));
                }
                self.act(Action::Finish);
            }
        }
    }

    /// Draws the conclusions to which several inputs can lead.
    fn settle(&mut self) {
        if let Some(status) = self.status
            && self.output_ended()
        {
            self.finish(answer::ended(self.version(), self.limits.termsig, status, self.usage.as_deref()));
            // The session does not wait for processes that inherited the input: what still comes is dropped.
            self.close_stdin();
        }
        if self.program == Program::Exited {
            match self.ending {
                // What is left in the group has let go of the output: a background job, left alone.
                Ending::Not if self.output_ended() || self.output_complete => self.reap(),
                Ending::Not | Ending::Terminated { .. } | Ending::Killing => {}
                Ending::Killed { .. } | Ending::Drained => self.reap(),
            }
        }
        if let Reply::Sent { .. } = self.reply
            && self.closes_with_reply()
        {
            self.close_client();
        }
        if self.is_over() {
            self.close_output();
        }
    }

    fn close_output(&mut self) {
        if !self.output_ended() {
            self.stdout_open = false;
            self.stderr_open = false;
            self.act(Action::CloseOutput);
        }
    }
}

/// The only way to change one of the four machines.
fn enter<State: Debug>(state: &mut State, next: State) {
    #[cfg(test)]
    diagram::note(state, &next);
    *state = next;
}

/// Drops all of `input`.
fn everything(input: &[u8]) -> Step {
    match input.len() {
        0 => Step::NeedMore,
        len => Step::Drop(len as u64),
    }
}

fn earliest<const N: usize>(times: [Option<Time>; N]) -> Option<Time> {
    times.into_iter().flatten().min()
}

#[cfg(test)]
pub(super) mod diagram;
#[cfg(test)]
mod tests;

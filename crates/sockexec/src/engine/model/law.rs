//! What `docs/protocol.md` promises, told a second time: what may be asked for, and what must have been.

mod version_2;

use std::time::Duration;

use sockexec_proto::reply::{Event, Exit, Signal};
use sockexec_proto::request::Request;
use sockexec_proto::{BadRequest, ReplyDecoder, Stream, netstring};

use super::case::{Start, Understood};
use super::driver::start_error;
use super::world::{Leader, World};
use super::{Violation, ensure};
use crate::engine::{Action, Backpressure, ExitStatus, TermSig, Time};

/// "A quarter of a second after KILL was due."
const DRAIN: Duration = Duration::from_millis(250);
/// "Until 2 seconds after KILL was due."
const CUT: Duration = Duration::from_secs(2);
/// "At most 5 seconds", and what is left of them at the end of the daemon.
const LAST: Duration = Duration::from_secs(5);
const LAST_AT_SHUTDOWN: Duration = Duration::from_millis(250);

/// What a client is told whose place is needed for another.
const BUSY: &str = "too many requests wait; nothing was started";

/// What is said at the end of the daemon of a request that is not carried out.
const SHUTDOWN: &str = "the daemon is shutting down; nothing was started";

/// `docs/gotchas.md`: "at doubling intervals up to a quarter of a second".
const FIRST_PROBE: Duration = Duration::from_millis(2);
const MAX_PROBE: Duration = Duration::from_millis(256);

/// What the session was told, and what it has asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Record {
    /// What was done in this turn and is counted nowhere else.
    pub(super) steps: u64,
    // What it was told.
    /// How often its place was needed for another.
    pub(super) turned_away: u8,
    /// For that its request is not carried out, or its connection closed.
    busy: bool,
    turned_out: bool,
    /// Since when its request is left in its socket, and for how long it was before.
    pub(super) paused_at: Option<Time>,
    pub(super) paused: Duration,
    pub(super) gone: bool,
    pub(super) end_of_file: bool,
    pub(super) orders: u8,
    pub(super) started: bool,
    pub(super) start_failed: bool,
    pub(super) input_refused: bool,
    /// When the request got its slot.
    pub(super) slot_at: Option<Time>,
    pub(super) status: Option<ExitStatus>,
    pub(super) exited_at: Option<Time>,
    /// Nobody is left in the group.
    pub(super) empty: bool,
    pub(super) sent_at: Option<Time>,
    pub(super) finishing: bool,
    pub(super) over: bool,
    /// Since when a stream was found empty after the leader's exit.
    lingers_from: Option<Time>,
    /// The group has to be ended: its client is gone, its time is up, its request is bad, the daemon is to stop.
    reason: bool,
    /// When the client's time is up.
    cut_at: Option<Time>,
    timed_out: bool,
    /// When it was told to stop, and to stop at once.
    ordered_at: Option<Time>,
    hurried_at: Option<Time>,
    // What it has asked for.
    wants_slot: bool,
    spawned: bool,
    pub(super) terminated_at: Option<Time>,
    killed: bool,
    /// KILL is to have reached everybody, and when that was.
    pub(super) reaches: bool,
    pub(super) reached_at: Option<Time>,
    /// When the daemon came to know that KILL was due, whether or not anybody was left for it.
    kill_seen_at: Option<Time>,
    drained: bool,
    reaped: bool,
    refused: Option<BadRequest>,
    /// It was refused after the client had been told another error.
    refused_late: bool,
    /// The last words of the reply are queued: the exit pair, or in version 2 what stands in its place.
    told: bool,
    // Version 2.
    /// It was told that the exec succeeded; it has told so.
    pub(super) executed: bool,
    started_told: bool,
    /// Whose end it has told.
    ended_told: [bool; 2],
    /// It has introduced itself, has told that the request waits, that the program has closed its input.
    introduced: bool,
    queued_told: bool,
    input_closed_told: bool,
    /// It has told an error: there is only one.
    error_told: bool,
    /// How many bytes of input were dropped, and how many it has reported as taken.
    pub(super) dropped: usize,
    reported: usize,
    /// How many of the client's signals and sizes it has passed on.
    signals: usize,
    sizes: usize,
    input_ended: bool,
    /// The time was up before the request was complete, and that was the answer.
    too_late: bool,
    finish_asked: bool,
    pub(super) closed: bool,
}

impl Record {
    /// Nothing that comes of the request any more has a meaning.
    pub(super) const fn is_refused(&self) -> bool {
        self.refused.is_some() || self.refused_late
    }

    /// KILL was ordered, and has not reached everybody.
    pub(super) const fn is_killing(&self) -> bool {
        self.killed && self.reached_at.is_none() && !self.reaches
    }
}

impl World<'_> {
    // What an input means for what has to follow.

    /// The program's group, if there is one that may still be signalled, has to be ended.
    pub(super) fn give_reason(&mut self) {
        if self.record.started && !self.record.reaped {
            self.record.reason = true;
        }
    }

    fn cut_by(&mut self, time: Time) {
        self.record.cut_at = Some(self.record.cut_at.map_or(time, |cut| cut.min(time)));
    }

    fn time_is_up(&mut self) {
        self.record.timed_out = true;
        self.give_reason();
        self.cut_by(self.now + self.case.limits.kill_timeout + CUT);
    }

    pub(super) fn look_at_the_clock(&mut self) {
        let now = self.now;
        let limits = self.case.limits;
        if self.deadline().is_some_and(|deadline| deadline <= now) && !self.record.timed_out {
            self.time_is_up();
        }
        let lingered = |from| limits.linger.is_some_and(|linger| from + linger <= now);
        if self.record.lingers_from.is_some_and(lingered) {
            self.give_reason();
        }
    }

    pub(super) fn before_order(&mut self) {
        self.time_is_up();
        self.record.ordered_at = self.record.ordered_at.or(Some(self.now));
        if self.record.orders > 1 {
            self.record.hurried_at = Some(self.now);
            self.cut_by(self.now + CUT);
        }
    }

    /// "The place goes to another": only of a connection that has no slot.
    pub(super) fn before_turned_away(&mut self) {
        let record = &self.record;
        if record.closed || self.session.holds_slot() {
            return;
        }
        let asks = !record.told && !record.spawned && self.has_said_version();
        if asks {
            self.record.busy = true;
            self.cut_by(self.now + LAST);
            if self.program.leader == Leader::WithoutSlot {
                self.program.leader = Leader::Absent;
            }
        } else {
            self.record.turned_out = true;
        }
    }

    pub(super) fn before_started(&mut self) {
        self.record.started = true;
        if self.record.gone || self.record.timed_out {
            self.give_reason();
        }
    }

    pub(super) fn before_empty(&mut self) {
        let record = &mut self.record;
        if record.status.is_some() && record.terminated_at.is_none() && record.lingers_from.is_none() {
            record.lingers_from = Some(self.now);
        }
    }

    /// Until the request is complete, from when the connection was accepted; none while it waits; then, from its slot on, the daemon's, or
    /// that of the request if it is earlier.
    fn deadline(&self) -> Option<Time> {
        let limits = self.case.limits;
        match self.record.slot_at {
            // It was accepted at the first moment.
            None if self.record.busy || self.record.paused_at.is_some() => None,
            None if !self.record.wants_slot => {
                limits.request_timeout.map(|timeout| Time::after(timeout + self.record.paused))
            }
            None => None,
            Some(slot_at) => {
                let own = if self.speaks_2() { self.understood().options.timeout } else { None };
                [limits.timeout, own].into_iter().flatten().min().map(|timeout| slot_at + timeout)
            }
        }
    }

    /// When KILL is due, if TERM was sent.
    fn kill_at(&self) -> Option<Time> {
        let terminated_at = self.record.terminated_at?;
        let at = terminated_at + self.case.limits.kill_timeout;
        Some(self.record.hurried_at.map_or(at, |hurried| at.min(hurried.max(terminated_at))))
    }

    /// Until when a client that has its reply may go on sending.
    fn last_moment(&self) -> Option<Time> {
        let sent_at = self.record.sent_at?;
        let at_shutdown = self.record.ordered_at.map(|at| at.max(sent_at) + LAST_AT_SHUTDOWN);
        Some(at_shutdown.map_or(sent_at + LAST, |at| at.min(sent_at + LAST)))
    }

    /// By when it is known that the group, which is empty now, is empty: whether it is, is asked at doubling intervals
    /// of up to a quarter of a second.
    pub(super) fn emptiness_noticed_by(&self) -> Option<Time> {
        let asked_first = self.record.terminated_at?.max(self.record.exited_at?);
        let interval = (self.now.saturating_sub(asked_first) + FIRST_PROBE).min(MAX_PROBE);
        Some(self.now + interval).filter(|_| !self.case.unknowable)
    }

    /// When the session has to do something at the latest, if nothing happens.
    fn next_moment(&self) -> Option<Time> {
        let record = &self.record;
        let limits = self.case.limits;
        let mut moments = Vec::new();
        if !record.closed {
            moments.extend([self.deadline().filter(|_| !record.timed_out), record.cut_at, self.last_moment()]);
        }
        if record.started && !record.reaped {
            moments.push(self.kill_at().filter(|_| !record.killed));
            let lingers_from = record.lingers_from.filter(|_| record.terminated_at.is_none());
            moments.push(lingers_from.and_then(|from| Some(from + limits.linger?)));
        }
        moments.into_iter().flatten().min()
    }

    /// When the session is over at the latest, if no more than time passes.
    pub(super) fn latest_end(&self) -> Option<Time> {
        let record = &self.record;
        if matches!(self.program.leader, Leader::WithoutSlot | Leader::WithSlot | Leader::Starting | Leader::Answered) {
            return None;
        }
        let client = if record.closed {
            Some(self.now)
        } else {
            // Counted from when the daemon noticed that it was over.
            let timeout = self.deadline().filter(|_| !record.timed_out);
            let by_deadline = timeout.map(|timeout| timeout + self.case.limits.kill_timeout + CUT);
            [record.cut_at, by_deadline, record.sent_at.map(|at| at + LAST)].into_iter().flatten().min()
        };
        client.max(self.kill_at().filter(|_| client.is_some())).map(|end| end.max(self.now))
    }

    // What may be asked for.

    pub(super) fn check_action(&mut self, action: &Action) -> Result<(), Violation> {
        match action {
            Action::WantSlot => {
                let record = &self.record;
                ensure!(!record.wants_slot && !record.closed && !record.told, "a slot too often or too late");
                ensure!(self.understood().argv.is_some(), "a slot for a request that is not complete");
                self.record.wants_slot = true;
            }
            Action::Pinged => {
                ensure!(self.understood().is_ping && !self.record.told, "no ping");
                ensure!(self.record.introduced, "a ping without an answer");
                // There is no more to say.
                self.record.told = true;
            }
            Action::Spawn(request) => self.check_spawn(request)?,
            Action::CloseStdin => self.check_close_stdin()?,
            Action::Terminate => {
                self.check_signal("TERM")?;
                ensure!(self.record.reason, "TERM without a reason");
                ensure!(self.record.terminated_at.is_none(), "TERM twice");
                // STOP behind CONT would keep the program from acting on TERM.
                let overtaken = self.record.status.is_none() && self.record.signals < self.used().signals.len();
                ensure!(!overtaken, "TERM before a signal that the client has sent before");
                self.record.terminated_at = Some(self.now);
            }
            Action::Kill => {
                self.check_signal("KILL")?;
                ensure!(!self.record.killed, "KILL twice");
                ensure!(self.kill_at().is_some_and(|at| at <= self.now), "KILL before it is due");
                self.record.killed = true;
                // At the end of the turn whoever obeys it is dead.
                if self.record.status.is_none() {
                    self.check_state()?;
                }
            }
            Action::Probe => {
                self.check_signal("a probe")?;
                ensure!(self.record.status.is_some(), "a probe while the leader lives");
                ensure!(
                    self.record.terminated_at.is_some() && !self.record.killed,
                    "a probe without an end to wait for"
                );
            }
            Action::Reap => self.check_reap()?,
            Action::DrainOutput => {
                ensure!(!self.record.drained, "output drained twice");
                let from = if self.record.killed { self.record.reached_at } else { self.kill_at() };
                ensure!(from.is_some_and(|at| at + DRAIN <= self.now), "output drained too early");
                self.record.drained = true;
            }
            Action::CloseOutput => {
                let reaped = self.record.reaped || !self.record.started;
                let unwanted = self.record.closed && reaped || self.record.start_failed;
                ensure!(unwanted, "output closed that is still wanted");
            }
            Action::Send(bytes) if self.speaks_2() => self.check_words_2(bytes)?,
            Action::Send(bytes) => self.check_last_words(bytes)?,
            Action::Report(error) => {
                ensure!(self.understood().error.as_ref() == Some(error), "a false report: {error}");
                if self.record.error_told {
                    self.record.refused_late = true;
                } else {
                    self.record.refused = Some(error.clone());
                }
                if self.record.started {
                    self.give_reason();
                    self.cut_by(self.now + self.case.limits.kill_timeout + CUT);
                }
            }
            Action::Finish => {
                ensure!(self.record.told && !self.record.finish_asked, "Finish too early or twice");
                self.record.finish_asked = true;
            }
            Action::EndTerminalInput => self.check_end_of_terminal_input()?,
            Action::Signal(number) => {
                self.check_signal("a signal of the client's")?;
                ensure!(self.record.executed, "a signal of the client's before the exec");
                self.check_signal_in_order(*number)?;
                self.record.signals += 1;
            }
            Action::Resize(size) => {
                let understood = self.understood();
                ensure!(self.record.started && understood.options.pty.is_some(), "a size without a terminal");
                ensure!(understood.sizes.get(self.record.sizes) == Some(size), "{size}, of {:?}", understood.sizes);
                self.record.sizes += 1;
            }
            Action::TellStatus => {
                ensure!(self.understood().asks_for_status && !self.record.told, "a status that nobody has asked for");
            }
            Action::CloseClient => {
                ensure!(!self.record.closed, "the client is closed twice");
                ensure!(self.may_close(), "the client is closed too early");
                self.record.closed = true;
            }
        }
        Ok(())
    }

    fn check_spawn(&mut self, request: &Request) -> Result<(), Violation> {
        let argv = &request.argv;
        ensure!(self.understood().options == request.options, "Spawn with other options: {:?}", request.options);
        ensure!(!self.record.spawned && !self.record.closed && !self.record.told, "Spawn too often or too late");
        ensure!(self.record.slot_at.is_some(), "Spawn without a slot");
        ensure!(self.understood().argv.as_ref() == Some(argv), "Spawn of what was not asked for: {argv:?}");
        self.record.spawned = true;
        Ok(())
    }

    fn check_end_of_terminal_input(&mut self) -> Result<(), Violation> {
        let understood = self.understood();
        ensure!(understood.options.pty.is_some(), "the end of a terminal's input for a pipe");
        ensure!(!self.record.input_ended, "the end of a terminal's input twice");
        ensure!(understood.end.is_some(), "the end of a terminal's input that goes on");
        let missing = understood.stdin.len() - self.program.stdin.delivered;
        ensure!(missing == 0, "the end of a terminal's input with {missing} bytes missing");
        self.record.input_ended = true;
        Ok(())
    }

    pub(super) fn understood(&self) -> Understood {
        let read = self.case.request.get(..self.client.read).unwrap_or_default();
        Understood::of(read, self.case.descriptors, self.record.end_of_file)
    }

    /// The daemon has read that the client speaks version 2, or a later one.
    fn speaks_2(&self) -> bool {
        let read = self.case.request.get(..self.client.read).unwrap_or_default();
        let first = netstring::complete_len(read).and_then(|len| read.get(..len)).unwrap_or_default();
        // Of a later one too, which is refused. A number has 20 digits at most.
        first.len() <= "20:,".len() + 20
            && first.splitn(2, |&byte| byte == b':').last().is_some_and(|word| word.starts_with(b"protocol="))
    }

    /// What came of the exec is not known.
    pub(super) fn waits_for_exec(&self) -> bool {
        !self.program.executed || self.case.start == Start::FailsLate
    }

    /// A group is signalled only while it cannot be a stranger's.
    fn check_signal(&self, what: &str) -> Result<(), Violation> {
        let record = &self.record;
        ensure!(record.started, "{what} without a program");
        ensure!(!record.reaped && !record.empty, "{what} to a group that is gone");
        Ok(())
    }

    /// The client's signals come when the input before them was taken by the daemon, and keep their order among the sizes.
    fn check_signal_in_order(&self, number: i32) -> Result<(), Violation> {
        let (record, stdin) = (&self.record, &self.program.stdin);
        let signals = self.understood().signals;
        let said = signals.get(record.signals).filter(|said| said.number == number);
        let Some(said) = said else { return Err(Violation(format!("signal {number}, of {signals:?}"))) };
        let taken = stdin.delivered + stdin.ahead.len();
        let waited = taken == said.stdin || !stdin.ours && taken < said.stdin;
        ensure!(waited, "signal {number} after {taken} bytes of input, instead of {}", said.stdin);
        ensure!(record.sizes == said.sizes, "signal {number} after {} sizes, instead of {}", record.sizes, said.sizes);
        Ok(())
    }

    fn check_reap(&mut self) -> Result<(), Violation> {
        // Closed, or nobody can write any more and the client has not read it all yet.
        let streams_ended = !self.is_output_held();
        let record = &mut self.record;
        ensure!(record.started && !record.reaped, "reaped twice, or without a program");
        ensure!(record.status.is_some() || record.start_failed, "reaped while the leader lives");
        let done = match record.terminated_at {
            None => streams_ended,
            // Whoever is left is owed a KILL.
            Some(_) => record.reached_at.is_some() || record.empty,
        };
        ensure!(done || record.start_failed, "reaped while its group may still have to be signalled");
        record.reaped = true;
        Ok(())
    }

    fn check_close_stdin(&self) -> Result<(), Violation> {
        let record = &self.record;
        ensure!(self.program.stdin.ours, "standard input closed twice");
        let cut = record.input_refused || record.gone || record.is_refused() || record.told || record.start_failed;
        if !cut && !self.record.closed {
            let understood = self.understood();
            ensure!(understood.options.pty.is_none(), "a terminal's input is closed while the program has it");
            ensure!(understood.end.is_some(), "standard input closed before its end");
            let missing = understood.stdin.len() - self.program.stdin.delivered;
            ensure!(missing == 0, "standard input closed with {missing} bytes missing");
        }
        Ok(())
    }

    /// The client's input is dropped only if nobody wants it.
    pub(super) fn check_drop(&self, len: u64) -> Result<(), Violation> {
        let unwanted = !self.program.stdin.ours || self.record.is_refused() || self.record.input_ended;
        ensure!(unwanted && len > 0, "{len} bytes of input are dropped that the program may read");
        Ok(())
    }

    /// What the program is given is what the client sent, in order.
    pub(super) fn check_input(&self, bytes: &[u8]) -> Result<(), Violation> {
        let understood = self.understood();
        let at = self.program.stdin.delivered;
        let expected = understood.stdin.get(at..at + bytes.len());
        ensure!(expected == Some(bytes), "wrong input at byte {at}: {bytes:?} for {expected:?}");
        Ok(())
    }

    pub(super) fn check_backpressure(&self, asked: Backpressure) -> Result<(), Violation> {
        let record = &self.record;
        if record.closed || record.told {
            ensure!(asked == Backpressure::Discard, "{asked:?} with nobody to send to");
        } else if self.program.stdin.ours && !record.end_of_file && !self.speaks_2() {
            ensure!(asked == Backpressure::Spool, "{asked:?} while the client may be sending");
        } else {
            ensure!(asked == Backpressure::Strict, "{asked:?} while the client only reads");
        }
        Ok(())
    }

    /// Output goes out as it was written, or, if nobody is there to read it, not at all.
    pub(super) fn check_frame(&self, stream: Stream, payload: &[u8], head: Option<&[u8]>) -> Result<(), Violation> {
        let nobody = self.record.closed || self.record.told;
        let Some(head) = head else {
            ensure!(nobody, "output is dropped that the client may read");
            return Ok(());
        };
        ensure!(!nobody, "output after the end of the reply");
        if self.speaks_2() {
            ensure!(self.record.started_told, "output of a program that was not told of");
            ensure!(!self.record.ended_told[place(stream)], "output after the end of its stream");
        }
        let frame = [head, payload, b","].concat();
        let read = read_reply(&frame)?;
        ensure!(read == ([(stream, payload.to_vec())].into(), None), "a frame that says something else: {read:?}");
        Ok(())
    }

    /// The exit pair, or a reason and the exit pair.
    fn check_last_words(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        ensure!(!self.record.told, "the reply is ended twice");
        ensure!(!self.record.closed, "an end of the reply for nobody");
        self.record.told = true;
        let (output, Some(exit)) = read_reply(bytes)? else {
            return Err(Violation("an end of the reply without an exit pair".into()));
        };
        let expected = match (&self.record.refused, self.record.status) {
            _ if self.record.busy => failure(BUSY, 125),
            (Some(error), _) => failure(&format!("bad request: {error}"), 125),
            (None, _) if self.record.start_failed => {
                let argv = self.understood().argv.unwrap_or_default();
                let name = argv.first().map(|name| name.to_bytes().to_vec()).unwrap_or_default();
                let error = start_error();
                let mut text = b"sockexec: ".to_vec();
                text.extend_from_slice(name.get(..4096).unwrap_or(&name));
                text.extend_from_slice(format!(": {}\n", error.reason).as_bytes());
                (vec![(Stream::Stderr, text)], Exit::Code(127))
            }
            (None, Some(status)) => {
                for stream in [&self.program.stdout, &self.program.stderr] {
                    ensure!(!stream.ours, "the exit pair comes before the end of the output");
                    ensure!(stream.framed == stream.read, "{} bytes of output lost", stream.read - stream.framed);
                    let left = if self.record.drained { 0 } else { stream.held };
                    ensure!(left == 0, "{left} bytes of output left in the pipe");
                }
                (vec![], self.exit_of(status))
            }
            (None, None) if self.record.ordered_at.is_some() && !self.record.spawned => {
                self.record.too_late = true;
                failure(SHUTDOWN, 125)
            }
            (None, None) => return Err(Violation("an exit pair before the exit".into())),
        };
        ensure!((&output, &exit) == (&expected.0, &expected.1), "{output:?} {exit:?} instead of {expected:?}");
        Ok(())
    }

    fn exit_of(&self, status: ExitStatus) -> Exit {
        match (status, self.case.limits.termsig) {
            (ExitStatus::Code(code), _) => Exit::Code(code),
            (ExitStatus::Signal(number), TermSig::Number) => Exit::Signal(Signal::Number(number)),
            (ExitStatus::Signal(number), TermSig::Name) => Exit::Signal(match name_of(number) {
                Some(name) => Signal::Name(name.into()),
                None => Signal::Number(number),
            }),
        }
    }

    fn may_close(&self) -> bool {
        let record = &self.record;
        let cut = record.cut_at.is_some_and(|cut| cut <= self.now);
        // The end of the daemon is told to all who have said in which version; version 1 has no words for a request that comes too late.
        let answerable = record.ordered_at.is_some() && self.has_said_version();
        let nothing_asked = record.timed_out && !record.spawned && !record.told && !answerable;
        let done = self.last_moment().is_some_and(|last| self.request_ended() || last <= self.now);
        record.gone || record.turned_out || cut || nothing_asked || done
    }

    /// The first netstring is complete, and the daemon has read it.
    fn has_said_version(&self) -> bool {
        let used = self.case.request.get(..self.client.used).unwrap_or_default();
        netstring::complete_len(used).is_some()
    }

    /// The client has said that it will send no more, and the daemon has read that.
    fn request_ended(&self) -> bool {
        let understood = self.used();
        // After a bad request nobody knows where it ends, and of one that came too late or had no place nobody looks.
        let read_on = self.record.too_late || self.record.busy;
        self.record.end_of_file || understood.over && understood.error.is_none() && !read_on
    }

    /// What the session has used of the request.
    fn used(&self) -> Understood {
        let used = self.case.request.get(..self.client.used).unwrap_or_default();
        Understood::of(used, self.case.descriptors, false)
    }

    // What must have been asked for.

    /// At the end of a turn.
    pub(super) fn check_turn(&mut self) -> Result<(), Violation> {
        let now = self.now;
        if self.record.kill_seen_at.is_none() && self.kill_at().is_some_and(|at| at <= now) {
            self.record.kill_seen_at = Some(now);
        }
        let record = &self.record;
        let is_due = |time: Option<Time>| time.is_some_and(|time| time <= now);
        ensure!(!record.reason || record.terminated_at.is_some(), "a reason to end the group, and no TERM");
        ensure!(record.reaped || record.killed || !is_due(self.kill_at()), "KILL is due, and not sent");
        let streams_ended = !self.program.stdout.ours && !self.program.stderr.ours;
        let drained_from = if record.killed { record.reached_at } else { record.kill_seen_at };
        ensure!(
            record.drained || streams_ended || !is_due(drained_from.map(|at| at + DRAIN)),
            "whoever still holds the output is waited for"
        );
        let next = self.next_moment();
        ensure!(
            next.is_none_or(|next| self.session.next_timer().is_some_and(|timer| timer <= next)),
            "no timer is set for what is due at {next:?}"
        );
        if !record.closed {
            ensure!(!record.gone, "the client is gone, and its socket is open");
            ensure!(!record.turned_out, "its place was taken away, and its socket is open");
            ensure!(!record.busy || record.told, "its place was taken away, and nobody has told it");
            ensure!(!is_due(record.cut_at), "the client's time is up, and its socket is open");
            ensure!(
                !record.timed_out || record.spawned || record.told,
                "time is up for a client that has asked for nothing, and its socket is open"
            );
            ensure!(
                self.last_moment().is_none_or(|last| !self.request_ended() && now < last),
                "the reply is complete, and the client's socket is open"
            );
        }
        if self.program.stdin.ours && !self.record.input_ended {
            let ended = self.record.end_of_file || self.used().end.is_some();
            ensure!(!ended || !self.program.stdin.ahead.is_empty(), "standard input is at its end, and open");
        }
        let is_wrong = self.used().error.is_some();
        ensure!(!is_wrong || record.is_refused() || record.told || record.closed, "a bad request that is not refused");
        self.check_turn_2()?;
        if !record.over {
            self.check_state()?;
        }
        let held = self.client.read - self.client.used;
        ensure!(held <= self.case.chunk, "{held} bytes of the request are kept");
        self.check_slot()
    }

    /// The slot is taken while there is a program, and no longer.
    fn check_slot(&self) -> Result<(), Violation> {
        let record = &self.record;
        let is_there = record.spawned && !record.reaped && !record.start_failed;
        let holds = self.session.holds_slot();
        ensure!(is_there || !holds, "a slot without a program");
        let is_given_up = self.case.unknowable && record.closed;
        ensure!(!is_there || holds || is_given_up, "a slot given away while its program is there");
        let has_ended = matches!(self.program.leader, Leader::Dead(_)) && !self.is_output_held();
        let is_ending = record.terminated_at.is_some() || !record.executed && self.speaks_2();
        ensure!(
            !is_there || !has_ended || is_ending,
            "the program has ended, nobody can write any more, and its slot is taken"
        );
        Ok(())
    }

    /// What the operator, and whoever asks for the status, is told that the connection waits for.
    fn check_state(&self) -> Result<(), Violation> {
        let record = &self.record;
        let is_program_there = record.spawned && !record.reaped && !record.start_failed;
        let streams_ended = !self.program.stdout.ours && !self.program.stderr.ours;
        let expected = match (is_program_there, record.status, record.terminated_at) {
            (false, ..) if record.sent_at.is_some() => "client to end its sending",
            (false, ..) if record.told => "client to read its reply",
            (false, ..) if record.reaped => "output of descendants outside the group",
            (false, ..) if record.wants_slot => "a free slot",
            (false, ..) => "request",
            (true, ..) if !record.started => "start of the program",
            (true, ..) if record.killed => "death after KILL",
            (true, None, Some(_)) => "death after TERM",
            (true, Some(_), Some(_)) => "death of the rest of the group",
            (true, Some(_), None) => "output of descendants",
            (true, None, None) if self.speaks_2() && !record.executed => "exec of the program",
            (true, None, None) if streams_ended => "exit of the program",
            (true, None, None) if self.program.stdin.ours && !record.input_ended => "output or input",
            (true, None, None) => "output",
        };
        let told = self.session.waits_for();
        ensure!(told == expected, "it is said to wait for: {told}, instead of: {expected}");
        Ok(())
    }

    /// When the connection is forgotten. Standard input may be open still: it is closed with the connection.
    pub(super) fn check_over(&self) -> Result<(), Violation> {
        let record = &self.record;
        ensure!(record.closed, "over, and the client's socket is open");
        ensure!(record.reaped || !record.started, "over, and the leader is not reaped");
        ensure!(!self.program.stdout.ours && !self.program.stderr.ours, "over, and an output is open");
        ensure!(!self.session.holds_slot(), "over, and its slot is taken");
        let reasons = record.gone || record.turned_out || record.cut_at.is_some();
        ensure!(
            reasons || record.sent_at.is_some(),
            "over, and the client, which had all the time it wanted, has no complete reply"
        );
        let ran = !record.start_failed;
        ensure!(!ran || !record.started || record.status.is_some(), "over, and nobody has seen the leader exit");
        Ok(())
    }
}

fn failure(text: &str, code: u8) -> (Vec<(Stream, Vec<u8>)>, Exit) {
    (vec![(Stream::Stderr, format!("sockexec: {text}\n").into_bytes())], Exit::Code(code))
}

const fn place(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// The number of a signal that there is; two names are Linux's own.
pub(super) fn number_of(signal: &Signal) -> Option<i32> {
    match signal {
        Signal::Number(number) => (1..=64).contains(number).then_some(*number),
        Signal::Name(name) if name == b"STKFLT" => Some(16),
        Signal::Name(name) if name == b"PWR" => Some(30),
        Signal::Name(name) => (1..=64).find(|&number| name_of(number).is_some_and(|known| known.as_bytes() == name)),
    }
}

/// As 3.1.1 tells it: without `SIG`. None: a signal without a name, such as the real-time ones.
fn name_of(number: i32) -> Option<&'static str> {
    signal_hook::low_level::signal_name(number).map(|name| name.trim_start_matches("SIG"))
}

/// The pairs of output in `bytes`, and the exit pair behind them; an error if there is anything else.
#[expect(clippy::type_complexity, reason = "a type for this one place would say less")]
fn read_reply(bytes: &[u8]) -> Result<(Vec<(Stream, Vec<u8>)>, Option<Exit>), Violation> {
    let mut decoder = ReplyDecoder::new();
    let mut output: Vec<(Stream, Vec<u8>)> = Vec::new();
    let mut exit = None;
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let (used, event) = decoder.next(rest).map_err(|error| Violation(error.to_string()))?;
        at += used;
        match event {
            Event::Output(stream, len) => {
                ensure!(exit.is_none(), "output after the exit pair");
                let payload = usize::try_from(len).ok().and_then(|len| bytes.get(at..at.checked_add(len)?));
                let Some(payload) = payload else { return Err(Violation("a pair that is not whole".into())) };
                output.push((stream, payload.to_vec()));
                decoder.advance(len);
                at += payload.len();
            }
            Event::Exit(one) => {
                ensure!(exit.is_none(), "two exit pairs");
                exit = Some(one);
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
            | Event::Status(_) => return Err(Violation("a tag that no client knows".into())),
            Event::NeedMore => {
                ensure!(at == bytes.len() && decoder.at_boundary(), "a pair that is not whole");
                return Ok((output, exit));
            }
        }
    }
}

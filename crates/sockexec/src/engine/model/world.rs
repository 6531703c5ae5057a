//! The client, the program, the clock and the operator.

use std::rc::Rc;
use std::time::Duration;

use sockexec_proto::{Options, Stream};

use super::case::{Case, Move, Plan, Start};
use super::law::Record;
use super::{Violation, ensure};
use crate::engine::{ExitStatus, Session, Time};

/// A session and everything around it.
///
/// It counts bytes of output and does not keep them: each byte follows from its place in the stream
/// ([`pattern`]), and what is queued for the client is checked when it is queued.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World<'c> {
    pub(super) case: &'c Case,
    pub(super) session: Session,
    pub(super) now: Time,
    pub(super) client: Client,
    pub(super) program: Program,
    /// How often the daemon was told to stop.
    pub(super) orders: u8,
    /// How often another connection needed the place.
    pub(super) turned_away: u8,
    /// There is no memory for more of the request.
    pub(super) full: bool,
    pub(super) record: Record,
}

/// The client, and the daemon's end of its connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Client {
    /// How much of the request was sent, was read by the daemon, was used by the session.
    pub(super) sent: usize,
    pub(super) read: usize,
    pub(super) used: usize,
    pub(super) half_closed: bool,
    pub(super) gone: bool,
    /// How many more bytes the client takes.
    pub(super) room: u64,
    /// How much waits to be sent to it, and how much of that is up to the end of the last report of input.
    pub(super) queued: u64,
    pub(super) report: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Leader {
    Absent,
    /// It waits for a slot. Or it has one, and the daemon learns that at its next turn.
    WithoutSlot,
    WithSlot,
    /// It was asked for, and the outcome is unknown.
    Starting,
    /// The outcome is known, and the daemon learns it at its next turn.
    Answered,
    Running,
    Dead(ExitStatus),
}

/// The program, and the daemon's ends of its pipes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Program {
    pub(super) leader: Leader,
    /// It was executed, or it is known why it cannot be.
    pub(super) executed: bool,
    /// There are others in its group.
    pub(super) others: bool,
    pub(super) stdin: Input,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Input {
    /// The daemon has its end open; so has a reader.
    pub(super) ours: bool,
    pub(super) theirs: bool,
    /// Bytes that are in the pipe, and that ever were.
    pub(super) held: usize,
    pub(super) delivered: usize,
    /// What the daemon holds for the program.
    pub(super) ahead: Vec<u8>,
    /// It is a terminal's, and was told its end.
    pub(super) ended: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Output {
    /// The daemon has its end open.
    pub(super) ours: bool,
    /// Which others have the other end open.
    pub(super) leader: bool,
    pub(super) job: bool,
    pub(super) outsider: bool,
    /// Bytes that are in the pipe, that were ever read from it, and that were queued for the client.
    pub(super) held: usize,
    pub(super) read: u64,
    pub(super) framed: u64,
    /// How much is still taken of it before it counts as ended.
    pub(super) left: Option<usize>,
}

impl Output {
    pub(super) const fn is_held(&self) -> bool {
        self.leader || self.job || self.outsider
    }
}

impl Program {
    pub(super) const fn output(&self, stream: Stream) -> &Output {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    pub(super) const fn output_mut(&mut self, stream: Stream) -> &mut Output {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Makes the pipes, of which the leader has its ends. `case` says who inherits them, `options` which of
    /// them the daemon has.
    pub(super) fn start(&mut self, case: &Case, options: &Options) {
        self.leader = Leader::Running;
        self.executed = !case.execs_later;
        // A child that dies before its exec has no children and leaves no output.
        let lives = case.start != Start::FailsLate;
        self.others = case.job && lives;
        let ours = !options.descriptors;
        self.stdin = Input { ours, theirs: lives, ..Input::default() };
        for stream in [Stream::Stdout, Stream::Stderr] {
            let is_one = stream == Stream::Stderr && (options.stderr_to_stdout || options.pty.is_some());
            *self.output_mut(stream) = Output {
                ours: ours && !is_one,
                leader: lives,
                job: case.job && lives,
                outsider: case.outsider && lives,
                ..Output::default()
            };
        }
    }

    pub(super) fn exit(&mut self, status: ExitStatus) {
        self.leader = Leader::Dead(status);
        self.stdout.leader = false;
        self.stderr.leader = false;
        self.stdin.theirs = false;
    }

    pub(super) fn empty_group(&mut self) {
        self.others = false;
        self.stdout.job = false;
        self.stderr.job = false;
    }

    /// KILL reaches every member of the group.
    pub(super) fn kill(&mut self) {
        if self.leader == Leader::Running {
            self.exit(ExitStatus::Signal(9));
        }
        self.empty_group();
    }
}

/// The byte at a place of a stream of output.
pub(super) const fn pattern(stream: Stream, place: u64) -> u8 {
    let salt = match stream {
        Stream::Stdout => b'o',
        Stream::Stderr => b'e',
    };
    let byte = (place % 251) as u8;
    byte.wrapping_add(salt)
}

impl<'c> World<'c> {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(case: &'c Case) -> Self {
        let now = Time::ZERO;
        Self {
            case,
            session: Session::new(Rc::new(case.limits), now),
            now,
            client: Client::default(),
            program: Program {
                leader: Leader::Absent,
                executed: false,
                others: false,
                stdin: Input::default(),
                stdout: Output::default(),
                stderr: Output::default(),
            },
            orders: 0,
            turned_away: 0,
            full: false,
            record: Record::default(),
        }
    }

    /// Whether the connection is over and forgotten.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.record.over
    }

    /// Lets `what` happen to the world. Returns whether it could. The daemon learns of it at its next
    /// [`World::turn`].
    pub fn apply(&mut self, what: Move) -> bool {
        let can = self.can(what);
        if can {
            self.happen(what);
        }
        can
    }

    fn can(&self, what: Move) -> bool {
        let client = &self.client;
        let program = &self.program;
        match what {
            Move::Send(n) => n > 0 && !client.half_closed && !client.gone && client.sent < self.case.request.len(),
            Move::HalfClose => !client.half_closed && !client.gone,
            Move::Leave => !client.gone,
            Move::Take(n) => n > 0 && !client.gone && client.room < u64::from(u32::MAX),
            Move::TakeAll => !client.gone && client.room != u64::MAX,
            Move::Answer => program.leader == Leader::Starting,
            Move::Write(to, n) => {
                let output = program.output(to.into());
                n > 0 && output.held < self.case.pipe && output.ours && output.is_held()
            }
            Move::CloseOutput(to) => program.output(to.into()).is_held(),
            Move::Read(n) => n > 0 && program.stdin.held > 0 && program.stdin.theirs,
            Move::CloseInput => program.stdin.theirs,
            Move::Exit(_) => program.leader == Leader::Running,
            Move::EmptyGroup => program.others,
            Move::Wait(n) => n > 0,
            Move::WaitForTimer => self.session.next_timer().is_some_and(|timer| timer > self.now),
            Move::ShutDown => self.orders < 2,
            Move::Execute => program.leader == Leader::Running && !program.executed,
            Move::GiveSlot => program.leader == Leader::WithoutSlot,
            Move::TurnAway => self.turned_away < 2,
            Move::FillMemory => !self.full,
            Move::FreeMemory => self.full,
            Move::Reach => self.record.is_killing(),
        }
    }

    fn happen(&mut self, what: Move) {
        let case = self.case;
        let client = &mut self.client;
        let program = &mut self.program;
        match what {
            Move::Send(n) => client.sent = case.request.len().min(client.sent + usize::from(n)),
            Move::HalfClose => client.half_closed = true,
            Move::Leave => client.gone = true,
            Move::Take(n) => client.room += u64::from(n),
            Move::TakeAll => client.room = u64::MAX,
            Move::Answer => program.leader = Leader::Answered,
            Move::Write(to, n) => {
                let output = program.output_mut(to.into());
                output.held = case.pipe.min(output.held + usize::from(n));
            }
            Move::CloseOutput(to) => {
                let output = program.output_mut(to.into());
                (output.leader, output.job, output.outsider) = (false, false, false);
            }
            Move::Read(n) => program.stdin.held = program.stdin.held.saturating_sub(n.into()),
            Move::CloseInput => program.stdin.theirs = false,
            Move::Exit(ended) => program.exit(ended.into()),
            Move::EmptyGroup => program.empty_group(),
            Move::Wait(n) => self.now = self.now + Duration::from_millis(n.into()),
            Move::WaitForTimer => self.now = self.session.next_timer().unwrap_or(self.now),
            Move::ShutDown => self.orders += 1,
            Move::Execute => program.executed = true,
            Move::GiveSlot => program.leader = Leader::WithSlot,
            Move::TurnAway => self.turned_away += 1,
            Move::FillMemory => self.full = true,
            Move::FreeMemory => self.full = false,
            Move::Reach => self.record.reaches = true,
        }
    }

    /// Lives through a whole plan, then checks that the session ends.
    ///
    /// # Errors
    /// At the first law that is broken.
    pub fn live(&mut self, plan: &Plan) -> Result<(), Violation> {
        self.turn()?;
        for &(what, turn) in &plan.moves {
            if self.is_over() {
                return Ok(());
            }
            self.apply(what);
            if turn {
                self.turn()?;
            }
        }
        self.turn()?;
        self.check_ends()
    }

    /// Checks that the session ends, in two ways: once everything that it waits for has happened, and once
    /// its time is up if that is limited.
    ///
    /// # Errors
    /// If it does not, or breaks a law on the way.
    pub fn check_ends(&self) -> Result<(), Violation> {
        if self.is_over() {
            return Ok(());
        }
        self.clone().let_everything_happen()?;
        self.clone().let_time_pass()
    }

    fn let_everything_happen(&mut self) -> Result<(), Violation> {
        self.apply(Move::TakeAll);
        self.client.half_closed = true;
        self.full = false;
        self.turn()?;
        if self.program.leader == Leader::WithoutSlot {
            self.program.leader = Leader::WithSlot;
            self.turn()?;
        }
        if self.program.leader == Leader::Starting {
            self.program.leader = Leader::Answered;
            self.turn()?;
        }
        if self.program.leader == Leader::Running {
            self.program.executed = true;
            self.program.exit(ExitStatus::Code(0));
        }
        self.program.kill();
        self.program.stdout.outsider = false;
        self.program.stderr.outsider = false;
        self.turn()?;
        // Only members of the group are looked for by the clock.
        ensure!(
            self.is_over() || self.record.terminated_at.is_some(),
            "everything has happened, and the session is not over: {}",
            self.session.waits_for()
        );
        let noticed_by = self.emptiness_noticed_by();
        for _ in 0..32 {
            if self.is_over() {
                return Ok(());
            }
            ensure!(
                self.apply(Move::Reach) || self.apply(Move::WaitForTimer),
                "waits for ever: {}",
                self.session.waits_for()
            );
            ensure!(noticed_by.is_none_or(|by| self.now <= by), "the group is empty, and that was not noticed in time");
            self.turn()?;
        }
        Err(Violation("everything has happened, and many timers, and the session is not over".into()))
    }

    /// Nothing happens, and a process outside the group keeps the output. Only KILL is obeyed.
    fn let_time_pass(&mut self) -> Result<(), Violation> {
        self.turn()?;
        let Some(end) = self.latest_end() else { return Ok(()) };
        while !self.is_over() {
            ensure!(
                self.apply(Move::Reach) || self.apply(Move::WaitForTimer),
                "waits for ever: {}",
                self.session.waits_for()
            );
            ensure!(self.now <= end, "still there at {:?}, after {end:?}: {}", self.now, self.session.waits_for());
            self.turn()?;
        }
        Ok(())
    }
}

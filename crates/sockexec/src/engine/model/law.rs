//! What `docs/protocol.md` promises, stated a second time: what the session may ask for, and what it must
//! have asked for.

mod actions;
mod bytes;
mod inputs;
mod times;
mod turn;
mod version_1;
mod version_2;

use std::time::Duration;

use sockexec_proto::reply::{Event, Signal};
use sockexec_proto::{BadRequest, ReplyDecoder, Stream, Version, netstring};

use super::case::{Start, Understood};
use super::world::World;
use super::{Violation, ensure};
use crate::engine::{ExitStatus, Time};

/// "A quarter of a second after KILL was due."
const DRAIN: Duration = Duration::from_millis(250);

/// "Until 2 seconds after KILL was due."
const CUT: Duration = Duration::from_secs(2);

/// "At most 5 seconds."
const LAST: Duration = Duration::from_secs(5);

/// The answer to a request whose place another connection needs.
const BUSY: &str = "too many requests wait; nothing was started";

/// The answer to a request that the daemon does not carry out because it is shutting down.
const SHUTDOWN: &str = "the daemon is shutting down; nothing was started";

/// What the session was told, and what it has asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Record {
    /// What was done in this turn and is not counted elsewhere.
    pub(super) steps: u64,
    // What it was told.
    /// How often another connection needed its place.
    pub(super) turned_away: u8,
    /// Because of that, its request is not carried out, or its connection is closed.
    busy: bool,
    turned_out: bool,
    /// Since when its request is left in its socket, and how long it was before.
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
    /// The group has no members left.
    pub(super) empty: bool,
    pub(super) sent_at: Option<Time>,
    pub(super) finishing: bool,
    pub(super) over: bool,
    /// When a stream was first found empty after the leader's exit.
    lingers_from: Option<Time>,
    /// The group must be ended: its client is gone, its time is up, its request is bad, or the daemon stops.
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
    /// KILL has reached every member, which the daemon learns at its next turn; and when it learned that.
    pub(super) reaches: bool,
    pub(super) reached_at: Option<Time>,
    /// When the daemon noticed that KILL was due, whether or not the group had members left.
    kill_seen_at: Option<Time>,
    drained: bool,
    reaped: bool,
    refused: Option<BadRequest>,
    /// It was refused after the client had been told another error.
    refused_late: bool,
    /// The last words of the reply are queued: the exit pair, or what version 2 sends in its place.
    told: bool,
    // Version 2.
    /// It was told that the exec succeeded, and has told its client.
    pub(super) executed: bool,
    started_told: bool,
    /// The streams whose end it has told.
    ended_told: [bool; 2],
    /// It has introduced itself, has told that the request waits, and that the program has closed its input.
    introduced: bool,
    queued_told: bool,
    input_closed_told: bool,
    /// It has told an error. There is only one.
    error_told: bool,
    /// How many bytes of input were dropped, and how many it has reported as taken.
    pub(super) dropped: usize,
    reported: usize,
    /// How many of the client's signals and sizes it has passed on.
    signals: usize,
    sizes: usize,
    input_ended: bool,
    /// The time was up before the request was complete, and the client was told that.
    too_late: bool,
    finish_asked: bool,
    pub(super) closed: bool,
}

impl Record {
    /// What still comes of the request is dropped.
    pub(super) const fn is_refused(&self) -> bool {
        self.refused.is_some() || self.refused_late
    }

    /// KILL was ordered, and has not reached every member.
    pub(super) const fn is_killing(&self) -> bool {
        self.killed && self.reached_at.is_none() && !self.reaches
    }
}

impl World<'_> {
    pub(in crate::engine::model) fn understood(&self) -> Understood {
        let read = self.case.request.get(..self.client.read).unwrap_or_default();
        Understood::of(read, self.case.descriptors, self.record.end_of_file)
    }

    /// What the session has used of the request.
    fn used(&self) -> Understood {
        let used = self.case.request.get(..self.client.used).unwrap_or_default();
        Understood::of(used, self.case.descriptors, false)
    }

    /// The daemon has read that the client speaks version 2, or a later one.
    fn speaks_2(&self) -> bool {
        let read = self.case.request.get(..self.client.read).unwrap_or_default();
        let first = netstring::complete_len(read).and_then(|len| read.get(..len)).unwrap_or_default();
        // A later version counts too: it is refused. A number has 20 digits at most.
        first.len() <= "20:,".len() + 20
            && first.splitn(2, |&byte| byte == b':').last().is_some_and(|word| word.starts_with(b"protocol="))
    }

    /// The first netstring is complete, and the daemon has read it.
    fn has_said_version(&self) -> bool {
        let used = self.case.request.get(..self.client.used).unwrap_or_default();
        netstring::complete_len(used).is_some()
    }

    /// The client has said that it will send no more, and the daemon has read that.
    fn request_ended(&self) -> bool {
        let understood = self.used();
        // The end of a bad request is unknown, and a request that came too late or had no place is not read on.
        let read_on = self.record.too_late || self.record.busy;
        self.record.end_of_file || understood.over && understood.error.is_none() && !read_on
    }

    /// The outcome of the exec is unknown.
    pub(in crate::engine::model) fn waits_for_exec(&self) -> bool {
        !self.program.executed || self.case.start == Start::FailsLate
    }
}

const fn place(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// The number of a signal that exists. Linux has two names of its own.
pub(super) fn number_of(signal: &Signal) -> Option<i32> {
    match signal {
        Signal::Number(number) => (1..=64).contains(number).then_some(*number),
        Signal::Name(name) if name == b"STKFLT" => Some(16),
        Signal::Name(name) if name == b"PWR" => Some(30),
        Signal::Name(name) => (1..=64).find(|&number| name_of(number).is_some_and(|known| known.as_bytes() == name)),
    }
}

/// The name that 3.1.1 uses, without `SIG`. `None`: the signal has no name, as the real-time signals.
fn name_of(number: i32) -> Option<&'static str> {
    signal_hook::low_level::signal_name(number).map(|name| name.trim_start_matches("SIG"))
}

/// Returns the pairs in `bytes`, each with its payload if the decoder announces that and does not collect it.
fn read_pairs(version: Version, bytes: &[u8]) -> Result<Vec<(Event, Vec<u8>)>, Violation> {
    let mut decoder = ReplyDecoder::of(version);
    let mut pairs = Vec::new();
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let (used, event) = decoder.next(rest).map_err(|error| Violation(error.to_string()))?;
        at += used;
        let len = match event {
            Event::NeedMore => {
                ensure!(at == bytes.len() && decoder.at_boundary(), "a pair that is not whole");
                return Ok(pairs);
            }
            Event::Output(_, len) | Event::Status(len) | Event::Unknown(len) => len,
            Event::Introduction(_)
            | Event::Queued(_)
            | Event::Taken(_)
            | Event::InputClosed
            | Event::Started(_)
            | Event::EndOfOutput(_)
            | Event::Failure(_)
            | Event::Usage(_)
            | Event::Exit(_) => 0,
        };
        let payload = usize::try_from(len).ok().and_then(|len| bytes.get(at..at.checked_add(len)?));
        let Some(payload) = payload else { return Err(Violation("a pair that is not whole".into())) };
        decoder.advance(len);
        at += payload.len();
        pairs.push((event, payload.to_vec()));
    }
}

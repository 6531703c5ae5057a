//! The daemon's report about itself, as JSON, for clients of version 2 that ask.

use std::cell::Cell;
use std::time::Duration;

use serde::Serialize;
use sockexec_proto::ErrorCode;

use super::counts::Counts;

/// What was missing when its time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// The request.
    Request,
    /// The end of the program, or of its reply.
    End,
}

/// What was counted since the daemon began.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    running: Cell<u64>,
    finished: Cell<u64>,
    failed: Cell<u64>,
    timed_out: Cell<u64>,
    requests_timed_out: Cell<u64>,
    killed: Cell<u64>,
    turned_away: Cell<u64>,
    gatherings: Cell<u64>,
    pings: Cell<u64>,
    /// Of connections that are over.
    received: Cell<u64>,
    sent: Cell<u64>,
    counts: Counts,
}

impl Totals {
    /// What is counted by kind.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A process was made for a program.
    pub(crate) fn started(&self) {
        increase(&self.running, 1);
    }

    /// A program could not be started.
    pub(crate) fn failed(&self) {
        increase(&self.failed, 1);
    }

    /// The same, as its process has reported.
    pub(crate) fn failed_after_all(&self) {
        self.no_longer_running();
        self.failed();
    }

    /// A program has ended.
    pub(crate) fn finished(&self) {
        self.no_longer_running();
        increase(&self.finished, 1);
    }

    /// The deadline of a connection passed before its reply was complete.
    pub(crate) fn timed_out(&self, late: Late) {
        increase(&self.timed_out, 1);
        self.counts.error(&ErrorCode::Timeout);
        if late == Late::Request {
            increase(&self.requests_timed_out, 1);
        }
    }

    /// KILL was sent to a program.
    pub(crate) fn killed(&self) {
        increase(&self.killed, 1);
    }

    /// A connection lost its place to another.
    pub(crate) fn turned_away(&self) {
        increase(&self.turned_away, 1);
    }

    /// A client wanted to know whether the daemon serves.
    pub(crate) fn pinged(&self) {
        increase(&self.pings, 1);
    }

    /// A connection is over.
    pub(crate) fn add_bytes(&self, received: u64, sent: u64) {
        increase(&self.received, received);
        increase(&self.sent, sent);
    }

    /// The totals for the status, with what is so now.
    pub(crate) fn report(&self, now: Now) -> TotalsReport {
        let Now { accepted, connections, slots_taken, waiting, spooled, live } = now;
        TotalsReport {
            accepted,
            connections,
            slots_taken,
            pings: self.pings.get(),
            waiting,
            running: self.running.get(),
            finished: self.finished.get(),
            failed_to_start: self.failed.get(),
            timed_out: self.timed_out.get(),
            killed: self.killed.get(),
            turned_away: self.turned_away.get(),
            bad_requests: self.counts.errors(&ErrorCode::BadRequest),
            forbidden: self.counts.errors(&ErrorCode::Forbidden),
            busy: self.counts.errors(&ErrorCode::Busy),
            requests_timed_out: self.requests_timed_out.get(),
            spooled,
            bytes_in: self.received.get() + live.0,
            bytes_out: self.sent.get() + live.1,
        }
    }

    /// Output of a chatty program was left alone for a moment.
    pub(crate) fn gathered(&self) {
        increase(&self.gatherings, 1);
    }

    /// How often that happened.
    pub(crate) fn gatherings(&self) -> u64 {
        self.gatherings.get()
    }

    fn no_longer_running(&self) {
        self.running.set(self.running.get().saturating_sub(1));
    }
}

/// Current values that the status adds to the totals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) accepted: u64,
    pub(crate) connections: usize,
    pub(crate) slots_taken: usize,
    /// Requests without a slot.
    pub(crate) waiting: usize,
    /// Bytes on disk.
    pub(crate) spooled: u64,
    /// Bytes in and out of the connections that are not over.
    pub(crate) live: (u64, u64),
}

fn increase(counter: &Cell<u64>, by: u64) {
    counter.set(counter.get() + by);
}

/// The whole status. Names and meanings are in `docs/protocol.md`; times are in seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    pub(crate) version: &'static str,
    #[serde(serialize_with = "seconds")]
    pub(crate) uptime: Duration,
    pub(crate) spawn: &'static str,
    pub(crate) lacks: Vec<&'static str>,
    pub(crate) limits: LimitsReport,
    pub(crate) totals: TotalsReport,
    pub(crate) counts: &'a Counts,
    pub(crate) connections: Vec<ConnectionReport>,
}

#[derive(Debug, Serialize)]
pub(crate) struct LimitsReport {
    pub(crate) max_connections: usize,
    pub(crate) max_waiting: usize,
    /// `None`: as many as there are slots.
    pub(crate) max_per_user: Option<usize>,
    #[serde(serialize_with = "optional_seconds")]
    pub(crate) request_timeout: Option<Duration>,
    #[serde(serialize_with = "optional_seconds")]
    pub(crate) timeout: Option<Duration>,
    #[serde(serialize_with = "seconds")]
    pub(crate) kill_timeout: Duration,
    #[serde(serialize_with = "optional_seconds")]
    pub(crate) linger: Option<Duration>,
    pub(crate) spool: u64,
    pub(crate) spool_total: u64,
    pub(crate) window: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct TotalsReport {
    accepted: u64,
    connections: usize,
    slots_taken: usize,
    pings: u64,
    waiting: usize,
    running: u64,
    finished: u64,
    failed_to_start: u64,
    timed_out: u64,
    killed: u64,
    turned_away: u64,
    bad_requests: u64,
    forbidden: u64,
    busy: u64,
    requests_timed_out: u64,
    spooled: u64,
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct ConnectionReport {
    pub(crate) number: u64,
    pub(crate) peer: Option<PeerReport>,
    pub(crate) pid: Option<i32>,
    pub(crate) argv: Vec<String>,
    pub(crate) arguments: u32,
    pub(crate) cwd: Option<String>,
    #[serde(serialize_with = "seconds")]
    pub(crate) age: Duration,
    #[serde(serialize_with = "optional_seconds")]
    pub(crate) running: Option<Duration>,
    #[serde(serialize_with = "optional_seconds")]
    pub(crate) left: Option<Duration>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) state: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct PeerReport {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Rounded to milliseconds.
fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((time.as_secs_f64() * 1e3).round() / 1e3)
}

#[expect(clippy::ref_option, reason = "serde wants a reference")]
fn optional_seconds<S: serde::Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => seconds(time, serializer),
        None => serializer.serialize_none(),
    }
}

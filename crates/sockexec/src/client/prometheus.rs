//! The status in the text format of Prometheus (version 0.0.4).
//!
//! Labels contain fixed words only, those of the daemon's counters. Arguments, users and paths would make
//! endless series, and show readers of the metrics what runs. A daemon that does not count something has no
//! family for it.

use std::fmt::Write as _;

use serde_json::Value;

/// A number of the status as a family without labels.
struct Plain {
    name: &'static str,
    help: &'static str,
    /// Its place in the status.
    at: [&'static str; 2],
}

impl Plain {
    const fn new(name: &'static str, at: [&'static str; 2], help: &'static str) -> Self {
        Self { name, help, at }
    }
}

/// Values that can go down as well.
const GAUGES: [Plain; 9] = [
    Plain::new("sockexec_uptime_seconds", ["uptime", ""], "Time since the daemon began to serve."),
    Plain::new("sockexec_slots", ["limits", "max_connections"], "Programs that may run at once."),
    Plain::new("sockexec_slots_taken", ["totals", "slots_taken"], "Slots that are taken."),
    Plain::new("sockexec_programs_running", ["totals", "running"], "Programs that run."),
    Plain::new("sockexec_requests_waiting", ["totals", "waiting"], "Requests that wait for a slot."),
    Plain::new("sockexec_connections", ["totals", "connections"], "Connections that are open."),
    Plain::new(
        "sockexec_connections_waiting_limit",
        ["limits", "max_waiting"],
        "Connections that may be without a slot.",
    ),
    Plain::new("sockexec_spool_bytes", ["totals", "spooled"], "Spooled output on disk."),
    Plain::new("sockexec_spool_limit_bytes", ["limits", "spool_total"], "Spooled output that may be on disk."),
];

/// Values that only grow.
const COUNTERS: [Plain; 8] = [
    Plain::new("sockexec_connections_accepted_total", ["totals", "accepted"], "Connections that were accepted."),
    Plain::new("sockexec_pings_total", ["totals", "pings"], "Connections that only asked whether the daemon serves."),
    Plain::new("sockexec_programs_finished_total", ["totals", "finished"], "Programs that have ended."),
    Plain::new(
        "sockexec_programs_failed_to_start_total",
        ["totals", "failed_to_start"],
        "Programs that could not be started.",
    ),
    Plain::new(
        "sockexec_deadlines_total",
        ["totals", "timed_out"],
        "Deadlines that passed before the reply was complete.",
    ),
    Plain::new(
        "sockexec_requests_timed_out_total",
        ["totals", "requests_timed_out"],
        "Requests that were not complete in time.",
    ),
    Plain::new("sockexec_programs_killed_total", ["totals", "killed"], "Programs that were sent KILL."),
    Plain::new(
        "sockexec_connections_turned_away_total",
        ["totals", "turned_away"],
        "Connections that lost their place to another.",
    ),
];

/// Counters of the status by kind, as a family with a label.
struct Labelled {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    /// Their place in `counts`.
    at: &'static str,
}

const LABELLED: [Labelled; 4] = [
    Labelled {
        name: "sockexec_programs_started_total",
        help: "Processes that were made for programs, by system call.",
        label: "call",
        at: "started",
    },
    Labelled {
        name: "sockexec_programs_exited_total",
        help: "Programs that have exited, by exit code.",
        label: "code",
        at: "exits",
    },
    Labelled {
        name: "sockexec_programs_signaled_total",
        help: "Programs that a signal ended, by signal.",
        label: "signal",
        at: "signals",
    },
    Labelled {
        name: "sockexec_errors_total",
        help: "Requests and programs that failed or were cut short, by the code of the protocol.",
        label: "code",
        at: "errors",
    },
];

struct Histogram {
    name: &'static str,
    help: &'static str,
    at: &'static str,
}

const HISTOGRAMS: [Histogram; 2] = [
    Histogram {
        name: "sockexec_program_start_seconds",
        help: "Time from the complete request to the process of its program.",
        at: "start_seconds",
    },
    Histogram {
        name: "sockexec_program_run_seconds",
        help: "Time from the start of a program's process to when its end was noticed.",
        at: "run_seconds",
    },
];

/// Converts the daemon's status, as [`daemon_status`](super::daemon_status) returns it, to the text format of
/// Prometheus (version 0.0.4). Times are in seconds, sizes in bytes. `None`: `status` is not JSON.
///
/// Labels contain fixed words only, never arguments, users or paths.
#[must_use]
pub fn prometheus(status: &str) -> Option<String> {
    serde_json::from_str(status).ok().map(|status| text(&status))
}

fn text(status: &Value) -> String {
    let mut out = String::new();
    if let Some(version) = status["version"].as_str() {
        let mut info = Family::new("sockexec_build_info", "gauge", "Version of the daemon.");
        info.sample(&mut out, "", Some(("version", version)), &Value::from(1));
    }
    for (kind, families) in [("gauge", GAUGES.as_slice()), ("counter", &COUNTERS)] {
        for Plain { name, help, at: [first, second] } in families {
            let value = if second.is_empty() { &status[*first] } else { &status[*first][*second] };
            Family::new(name, kind, help).sample(&mut out, "", None, value);
        }
    }
    let mut bytes = Family::new(
        "sockexec_transferred_bytes_total",
        "counter",
        "Bytes of all connections, including framing, by direction as the daemon sees it.",
    );
    for (direction, at) in [("in", "bytes_in"), ("out", "bytes_out")] {
        bytes.sample(&mut out, "", Some(("direction", direction)), &status["totals"][at]);
    }
    let counts = &status["counts"];
    for Labelled { name, help, label, at } in &LABELLED {
        let mut family = Family::new(name, "counter", help);
        for (word, value) in counts[*at].as_object().into_iter().flatten() {
            family.sample(&mut out, "", Some((label, word)), value);
        }
    }
    for Histogram { name, help, at } in &HISTOGRAMS {
        // One that is not whole would be read as one of something else.
        if let Some(buckets) = Buckets::of(&counts[*at]) {
            buckets.write(&mut out, Family::new(name, "histogram", help));
        }
    }
    out
}

/// What a histogram of the status has, whole.
struct Buckets<'a> {
    bounds: &'a [Value],
    counts: Vec<u64>,
    sum: &'a Value,
}

impl<'a> Buckets<'a> {
    fn of(told: &'a Value) -> Option<Self> {
        let bounds = told["bounds"].as_array().filter(|bounds| bounds.iter().all(Value::is_number))?;
        let counts: Option<Vec<u64>> = told["counts"].as_array()?.iter().map(Value::as_u64).collect();
        let counts = counts.filter(|counts| counts.len() == bounds.len() + 1)?;
        Some(Self { bounds, counts, sum: Some(&told["sum"]).filter(|sum| sum.is_number())? })
    }

    /// The status counts each bucket alone; here each one includes all below it.
    fn write(&self, out: &mut String, mut family: Family<'_>) {
        let bounds = self.bounds.iter().map(ToString::to_string).chain(std::iter::once("+Inf".to_owned()));
        let mut below: u64 = 0;
        for (bound, count) in bounds.zip(&self.counts) {
            below = below.saturating_add(*count);
            family.sample(out, "_bucket", Some(("le", &bound)), &below.into());
        }
        family.sample(out, "_sum", None, self.sum);
        family.sample(out, "_count", None, &below.into());
    }
}

/// One family, whose head is written with its first sample, and not at all without one.
struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    help: &'a str,
    has_head: bool,
}

impl<'a> Family<'a> {
    const fn new(name: &'a str, kind: &'a str, help: &'a str) -> Self {
        Self { name, kind, help, has_head: false }
    }

    /// Writes a sample, whose name is the family's with this behind it. What is no number is not known and left out: a counter that is 0
    /// once in a while looks like a daemon that was started again.
    fn sample(&mut self, out: &mut String, suffix: &str, label: Option<(&str, &str)>, value: &Value) {
        if !value.is_number() {
            return;
        }
        let Self { name, kind, help, .. } = self;
        if !std::mem::replace(&mut self.has_head, true) {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        let _ = match label {
            Some((label, word)) => {
                // A version may contain any character.
                let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                writeln!(out, "{name}{suffix}{{{label}=\"{word}\"}} {value}")
            }
            None => writeln!(out, "{name}{suffix} {value}"),
        };
    }
}

//! Counts what becomes of requests and programs, for the status. The counters are fixed arrays, so that
//! counting allocates nothing.

use std::cell::Cell;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap as _, SerializeStruct as _, Serializer};
use sockexec_proto::ErrorCode;

use crate::engine::ExitStatus;
use crate::signals;

/// The calls that start programs, on any system.
const CALLS: [&str; 4] = ["clone3", "clone", "fork", "posix_spawn"];

/// The classes of exit codes: a shell's, and those of [`ErrorCode`]'s failures where a program passes them on.
const CODES: [&str; 6] = ["0", "1-124", "125", "126", "127", "128-255"];

/// The signals that are counted one by one; all others are `other`.
const SIGNALS: [&str; 13] =
    ["ABRT", "ALRM", "BUS", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "other"];

/// The upper bounds of the buckets of a histogram, in seconds; one more bucket has what is above.
const BOUNDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0];

/// What was counted since the daemon began.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    started: Counters<{ CALLS.len() }>,
    exits: Counters<{ CODES.len() }>,
    signals: Counters<{ SIGNALS.len() }>,
    errors: Counters<{ ErrorCode::KNOWN.len() }>,
    /// From the complete request to the clone.
    start_seconds: Histogram,
    /// From there to the end of the program.
    run_seconds: Histogram,
}

impl Counts {
    /// This call made the process of a program, this long after its request was complete.
    pub(crate) fn started(&self, call: &str, after: Duration) {
        self.started.increase(CALLS.iter().position(|name| *name == call));
        self.start_seconds.observe(after);
    }

    /// A program has ended, this long after its start.
    pub(crate) fn ended(&self, status: ExitStatus, after: Duration) {
        match status {
            ExitStatus::Code(code) => self.exits.increase(Some(match code {
                0 => 0,
                1..=124 => 1,
                125 => 2,
                126 => 3,
                127 => 4,
                128.. => 5,
            })),
            ExitStatus::Signal(number) => {
                let name = signals::name(number).unwrap_or("other");
                let index = SIGNALS.iter().position(|known| *known == name);
                self.signals.increase(index.or(Some(SIGNALS.len() - 1)));
            }
        }
        self.run_seconds.observe(after);
    }

    /// This error was reported to a client, in the words of its version.
    pub(crate) fn error(&self, code: &ErrorCode) {
        self.errors.increase(ErrorCode::KNOWN.iter().position(|known| known == code));
    }

    /// How often this error was reported.
    pub(crate) fn errors(&self, code: &ErrorCode) -> u64 {
        let index = ErrorCode::KNOWN.iter().position(|known| known == code);
        index.and_then(|index| self.errors.0.get(index)).map_or(0, Cell::get)
    }
}

/// As `docs/protocol.md` describes it.
impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |code: &'static ErrorCode| str::from_utf8(code.as_bytes()).unwrap_or_default();
        let codes: Vec<&str> = ErrorCode::KNOWN.iter().map(text).collect();
        let mut all = serializer.serialize_struct("Counts", 6)?;
        all.serialize_field("started", &Named(&CALLS, &self.started.0))?;
        all.serialize_field("exits", &Named(&CODES, &self.exits.0))?;
        all.serialize_field("signals", &Named(&SIGNALS, &self.signals.0))?;
        all.serialize_field("errors", &Named(&codes, &self.errors.0))?;
        all.serialize_field("start_seconds", &self.start_seconds)?;
        all.serialize_field("run_seconds", &self.run_seconds)?;
        all.end()
    }
}

#[derive(Debug)]
struct Counters<const N: usize>([Cell<u64>; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self([const { Cell::new(0) }; N])
    }
}

impl<const N: usize> Counters<N> {
    fn increase(&self, index: Option<usize>) {
        if let Some(counter) = index.and_then(|index| self.0.get(index)) {
            counter.set(counter.get() + 1);
        }
    }
}

/// Counters as an object: each name with its count.
struct Named<'a>(&'a [&'a str], &'a [Cell<u64>]);

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, counter) in self.0.iter().zip(self.1) {
            map.serialize_entry(name, &counter.get())?;
        }
        map.end()
    }
}

/// How often something took how long.
#[derive(Debug, Default)]
struct Histogram {
    counts: Counters<{ BOUNDS.len() + 1 }>,
    sum: Cell<Duration>,
}

impl Histogram {
    fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.counts.increase(Some(BOUNDS.partition_point(|&bound| bound < seconds)));
        self.sum.set(self.sum.get().saturating_add(time));
    }
}

/// The counts are those of the buckets alone, not of all below them.
impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = serializer.serialize_struct("Histogram", 3)?;
        all.serialize_field("bounds", &BOUNDS)?;
        all.serialize_field("counts", &self.counts.0.each_ref().map(Cell::get))?;
        all.serialize_field("sum", &((self.sum.get().as_secs_f64() * 1e6).round() / 1e6))?;
        all.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_place() {
        let counts = Counts::default();
        for code in 0..=255 {
            counts.ended(ExitStatus::Code(code), Duration::ZERO);
        }
        for signal in 1..=64 {
            counts.ended(ExitStatus::Signal(signal), Duration::from_secs(1));
        }
        for call in CALLS {
            counts.started(call, Duration::from_micros(500));
            counts.started(call, Duration::from_micros(501));
        }
        for code in ErrorCode::KNOWN {
            counts.error(code);
        }
        let told = serde_json::to_value(&counts).unwrap();
        let exits = serde_json::json!({"0": 1, "1-124": 124, "125": 1, "126": 1, "127": 1, "128-255": 128});
        assert_eq!(told["exits"], exits);
        let signals = told["signals"].as_object().unwrap();
        assert!(signals.iter().all(|(name, count)| *count == if name == "other" { 64 - 12 } else { 1 }), "{signals:?}");
        assert!(told["started"].as_object().unwrap().values().all(|count| *count == 2), "{told}");
        assert!(told["errors"].as_object().unwrap().values().all(|count| *count == 1), "{told}");
        assert_eq!(counts.errors(&ErrorCode::Forbidden), 1);
        let start = &told["start_seconds"];
        assert_eq!((&start["counts"][0], &start["counts"][1]), (&4.into(), &4.into()), "{start}");
        assert_eq!(told["run_seconds"]["sum"], 64.0);
        assert_eq!(told["run_seconds"]["counts"][9], 64);
    }

    #[test]
    fn what_takes_longest_is_in_the_last_bucket() {
        let histogram = Histogram::default();
        histogram.observe(Duration::MAX);
        assert_eq!(histogram.counts.0.last().map(Cell::get), Some(1));
    }
}

//! The goals of the daemon, and whether it reaches them.

use serde::Serialize;

use super::contender::Contender::{Bare, Clone, Fast, Fast2, Fork, Original, Pipe1M};
use super::results::{Kind, Results};

/// One goal.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    /// What is measured.
    pub(crate) what: &'static str,
    /// The figure to reach.
    pub(crate) limit: Limit,
    /// The figure, if it was measured.
    pub(crate) measured: Option<f64>,
    /// The row that measures it.
    pub(crate) row: &'static str,
}

/// A bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    /// More is better.
    AtLeast(f64),
    /// Less is better.
    AtMost(f64),
}

impl Goal {
    /// Whether it was reached.
    pub(crate) fn met(&self) -> Option<bool> {
        self.measured.map(|measured| match self.limit {
            Limit::AtLeast(limit) => measured >= limit,
            Limit::AtMost(limit) => measured <= limit,
        })
    }
}

/// All goals. Memory is a goal of the static build only.
pub(crate) fn goals(results: &Results, static_build: bool) -> Vec<Goal> {
    use Limit::{AtLeast, AtMost};
    let rate = |row, base| results.ratio(Kind::Rate, row, Fast, base);
    let by = |who| results.ratio(Kind::Rate, "small-16", who, Bare);
    let late = results.ratio(Kind::Latency, "true-16 p99", Fast, Bare);
    let bytes = |row, who| results.ratio(Kind::Bytes, row, who, Pipe1M);
    let cpu = |row| results.median(Kind::BytesCpu, row, Fast);
    let memory = |row| results.median(Kind::Memory, row, Fast).filter(|_| static_build);
    let goal = |what, row, limit, measured| Goal { what, limit, measured, row };
    vec![
        goal("small program, one at a time, of bare", "small-1", AtLeast(0.8), rate("small-1", Bare)),
        goal("small program, 16 at a time, of bare", "small-16", AtLeast(1.6), rate("small-16", Bare)),
        goal("the same where clone3 is refused, with clone", "small-16", AtLeast(1.4), by(Clone)),
        goal("the same where only fork is left", "small-16", AtLeast(0.9), by(Fork)),
        goal("small program, 64 at a time, of bare", "small-64", AtLeast(1.5), rate("small-64", Bare)),
        goal("small program, 16 at a time, of 3.1.1", "small-16", AtLeast(2.0), rate("small-16", Original)),
        goal("small program, 64 at a time, of 3.1.1", "small-64", AtLeast(2.0), rate("small-64", Original)),
        goal("/bin/true, 16 at a time, of bare", "true-16", AtLeast(1.1), rate("true-16", Bare)),
        goal("the same, latency p99, of bare", "true-16", AtMost(1.3), late),
        cpu_a_program(results),
        goal("stdout, of a bare pipe of 1 MiB", "stdout", AtLeast(0.95), bytes("stdout", Fast)),
        goal("stdin, of a bare pipe of 1 MiB", "stdin", AtLeast(0.95), bytes("stdin", Fast)),
        goal("stdin in version 2, of a bare pipe of 1 MiB", "stdin", AtLeast(0.95), bytes("stdin", Fast2)),
        goal("daemon CPU for stdout, s/GB", "stdout", AtMost(0.12), cpu("stdout")),
        goal("daemon CPU for stdin, s/GB", "stdin", AtMost(0.2), cpu("stdin")),
        goal(
            "rate beside 400 running programs, of the rate alone",
            "beside",
            AtLeast(0.97),
            results.median(Kind::Beside, "beside", Fast),
        ),
        goal("memory idle, static build, KB", "memory", AtMost(1100.0), memory("idle")),
        goal("memory of each running program, static build, KB", "memory", AtMost(1.0), memory("each of them")),
    ]
}

/// The goal was 55 us on a machine where 3.1.1 takes 83. If 3.1.1 is measured too, the goal is the ratio of the two,
/// which does not depend on the machine.
fn cpu_a_program(results: &Results) -> Goal {
    let row = "small-16";
    match results.ratio(Kind::Cpu, row, Fast, Original) {
        None => Goal {
            what: "daemon CPU a program, 16 at a time, us",
            limit: Limit::AtMost(55.0),
            measured: results.median(Kind::Cpu, row, Fast),
            row,
        },
        measured => Goal {
            what: "daemon CPU a program, 16 at a time, of 3.1.1 (55 us where it takes 83)",
            limit: Limit::AtMost(0.66),
            measured,
            row,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(goals: &'a [Goal], what: &str) -> &'a Goal {
        goals.iter().find(|goal| goal.what.starts_with(what)).unwrap()
    }

    #[test]
    fn goals_are_met_missed_or_not_measured() {
        let mut results = Results::default();
        for (contender, rate) in [(Bare, 1000.0), (Fast, 1600.0), (Original, 900.0)] {
            results.record(Kind::Rate, "small-16", contender, rate);
        }
        results.record(Kind::Cpu, "small-16", Fast, 50.0);
        results.record(Kind::Memory, "idle", Fast, 700.0);
        let dynamic = goals(&results, false);
        assert_eq!(found(&dynamic, "small program, 16 at a time, of bare").met(), Some(true));
        assert_eq!(found(&dynamic, "small program, 16 at a time, of 3.1.1").met(), Some(false));
        assert_eq!(found(&dynamic, "small program, 64 at a time, of bare").met(), None);
        assert_eq!(found(&dynamic, "daemon CPU a program").limit, Limit::AtMost(55.0));
        assert_eq!(found(&dynamic, "memory idle").met(), None);
        assert_eq!(found(&goals(&results, true), "memory idle").met(), Some(true));

        results.record(Kind::Cpu, "small-16", Original, 100.0);
        let beside_original = goals(&results, false);
        assert_eq!(found(&beside_original, "daemon CPU a program").limit, Limit::AtMost(0.66));
        assert_eq!(found(&beside_original, "daemon CPU a program").met(), Some(true));
    }
}

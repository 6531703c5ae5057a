//! Programs without a server: the base of all comparisons.

use std::collections::VecDeque;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::load::Outcome;
use crate::{Result, context};

/// Runs `loops` loops side by side. Each keeps `at_a_time` programs `argv` running for `time`.
pub(crate) fn run(argv: &[String], loops: usize, at_a_time: usize, time: Duration) -> Result<Outcome> {
    let started = Instant::now();
    let latencies = thread::scope(|scope| {
        let threads: Vec<_> = (0..loops)
            // As text, because errors are not `Send`.
            .map(|_| scope.spawn(|| spawn_loop(argv, at_a_time, time).map_err(|error| error.to_string())))
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| "the bare loop panicked".to_owned())??);
        }
        Ok::<_, String>(all)
    })?;
    Ok(Outcome { elapsed: started.elapsed(), latencies })
}

/// Starts programs with three pipes and waits for the oldest whenever `at_a_time` of them run.
fn spawn_loop(argv: &[String], at_a_time: usize, time: Duration) -> Result<Vec<Duration>> {
    let deadline = Instant::now() + time;
    let mut running = VecDeque::with_capacity(at_a_time);
    let mut latencies = Vec::new();
    while Instant::now() < deadline {
        if running.len() == at_a_time {
            latencies.extend(finish(&mut running)?);
        }
        running.push_back((Instant::now(), spawn(argv)?));
    }
    while let Some(latency) = finish(&mut running)? {
        latencies.push(latency);
    }
    Ok(latencies)
}

/// By `posix_spawn`, which std uses for a command that needs no more than this.
fn spawn(argv: &[String]) -> Result<Child> {
    let (program, arguments) = argv.split_first().ok_or("no program")?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(context(program))
}

fn finish(running: &mut VecDeque<(Instant, Child)>) -> Result<Option<Duration>> {
    let Some((started, mut child)) = running.pop_front() else { return Ok(None) };
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("a program in a loop: {status}").into());
    }
    Ok(Some(started.elapsed()))
}

//! The rounds: every experiment with every contender, over and over.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::contender::{Contender, find};
use super::crowd::Crowd;
use super::experiment::Experiment;
use super::program::{Program, Programs};
use super::results::{Kind, Results};
use super::server::Server;
use super::stats::float;
use super::{Result, bare, proc, stream};

/// Programs that run while the rate beside them is measured.
const BESIDE: usize = 400;

/// Programs that run while memory is measured.
const MANY: usize = 1000;

/// How many programs at a time where the rate beside others is measured.
const AT_A_TIME: usize = 16;

/// The chatty program: 300,000 lines of 66 bytes.
const LINE: usize = 66;
const LINES: u64 = 300_000;

/// What a producer of a big stream writes at a time.
const CHUNK: usize = 128 * 1024;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Rounds, of which medians are taken.
    pub(crate) rounds: usize,
    /// How long programs are run for one figure.
    pub(crate) slice: Duration,
    /// The length of a big stream: a multiple of 64 KiB.
    pub(crate) bytes: u64,
    /// After this no new experiment is begun, once each has been done.
    pub(crate) limit: Duration,
}

/// The benchmark, running.
pub(crate) struct Bench {
    effort: Effort,
    programs: Programs,
    daemon: PathBuf,
    original: Option<PathBuf>,
    missing: Vec<Contender>,
    /// Those that have been started, with the program that they run if they run only one.
    servers: Vec<(Contender, Option<Program>, Server)>,
    results: Results,
}

impl Bench {
    /// Of the given binaries; what else is missing is said.
    pub(crate) fn new(effort: Effort, programs: Programs, daemon: PathBuf, original: Option<PathBuf>) -> Self {
        let mut missing = Vec::new();
        if original.is_none() {
            say!("bench: without 3.1.1: give its binary with --original PATH\n");
            missing.push(Contender::Original);
        }
        for contender in [Contender::Socat, Contender::S6] {
            if let Some(command) = contender.needs().filter(|command| find(command).is_none()) {
                say!("bench: without {command}: it is not installed\n");
                missing.push(contender);
            }
        }
        Self { effort, programs, daemon, original, missing, servers: Vec::new(), results: Results::default() }
    }

    /// Does all experiments, round by round.
    pub(crate) fn run(mut self, experiments: &[Experiment]) -> Result<Results> {
        let started = Instant::now();
        for round in 0..self.effort.rounds {
            for &experiment in experiments.iter().filter(|experiment| round == 0 || !experiment.once()) {
                if round > 0 && started.elapsed() > self.effort.limit {
                    say!("bench: time is up in round {} of {}\n", round + 1, self.effort.rounds);
                    return Ok(self.results);
                }
                let name = experiment.name();
                say!(
                    "bench: {:>3} s, round {} of {}, {name}:",
                    started.elapsed().as_secs(),
                    round + 1,
                    self.effort.rounds
                );
                self.experiment(round, experiment, &name)?;
                say!("\n");
            }
        }
        Ok(self.results)
    }

    fn experiment(&mut self, round: usize, experiment: Experiment, name: &str) -> Result<()> {
        let mut contenders = experiment.contenders().to_vec();
        contenders.retain(|contender| !self.missing.contains(contender));
        // Nobody is always the first after a pause, or always behind the same other one.
        let first = round % contenders.len().max(1);
        contenders.rotate_left(first);
        for contender in contenders {
            match self.figure(name, experiment, contender) {
                Ok(figure) => say!("  {} {figure:.*}", contender.name(), usize::from(figure < 10.0) * 2),
                // A peer's fault is told and its figure left out. Ours ends the benchmark.
                Err(error) if contender.is_peer() => {
                    say!("\nbench: left out: {error}\nbench:");
                    self.give_up(contender);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the servers of a contender, so that the next figure is that of a fresh one. Without any there was none that
    /// could be started, and it is not tried again.
    fn give_up(&mut self, contender: Contender) {
        let before = self.servers.len();
        self.servers.retain(|(who, _, _)| *who != contender);
        if self.servers.len() == before {
            self.missing.push(contender);
        }
    }

    fn figure(&mut self, name: &str, experiment: Experiment, contender: Contender) -> Result<f64> {
        match experiment {
            Experiment::Rate(program, at_a_time) => self.rate(name, contender, program, at_a_time),
            Experiment::Stdout => self.output(name, contender, self.effort.bytes, CHUNK),
            Experiment::Chatty => self.output(name, contender, LINES * LINE as u64, LINE),
            Experiment::Stdin => self.input(name, contender),
            Experiment::Memory => self.memory(contender),
            Experiment::Beside => self.beside(name, contender),
        }
    }

    fn rate(&mut self, row: &str, contender: Contender, program: Program, at_a_time: usize) -> Result<f64> {
        let path = self.programs.path(program).to_path_buf();
        let slice = self.effort.slice;
        let mut outcome = match contender {
            Contender::Bare => bare::run(&path, 1, at_a_time, slice)?,
            Contender::Bare2 => bare::run(&path, 2, at_a_time, slice)?,
            _ => {
                let server = self.server(contender, program)?;
                let before = proc::cpu(server.pid())?;
                let outcome = server.load(&path, at_a_time, slice)?;
                let used = proc::cpu(server.pid())?.saturating_sub(before);
                // The others do their work in children, which cannot be told from the programs.
                if contender.speaks_netstrings() {
                    let each = used.as_secs_f64() * 1e6 / float(outcome.programs());
                    self.results.record(Kind::Cpu, row, contender, each);
                }
                outcome
            }
        };
        for percent in [50, 99] {
            if let Some(latency) = outcome.percentile(percent) {
                self.results.record(Kind::Latency, &format!("{row} p{percent}"), contender, latency);
            }
        }
        self.results.record(Kind::Rate, row, contender, outcome.rate());
        Ok(outcome.rate())
    }

    fn output(&mut self, row: &str, contender: Contender, bytes: u64, chunk: usize) -> Result<f64> {
        let argv = self.programs.producer(bytes, chunk)?;
        if let Some(size) = pipe_size(contender) {
            let time = stream::out_of_pipe(&argv, size, bytes)?;
            return Ok(self.record_bytes(row, contender, bytes, time, None));
        }
        self.through_server(row, contender, bytes, |server| stream::out_of_server(server, &argv, bytes))
    }

    fn input(&mut self, row: &str, contender: Contender) -> Result<f64> {
        let argv = self.programs.consumer()?;
        let bytes = self.effort.bytes;
        if let Some(size) = pipe_size(contender) {
            let time = stream::into_pipe(&argv, size, bytes)?;
            return Ok(self.record_bytes(row, contender, bytes, time, None));
        }
        self.through_server(row, contender, bytes, |server| stream::into_server(server, &argv, bytes))
    }

    fn through_server(
        &mut self,
        row: &str,
        contender: Contender,
        bytes: u64,
        transfer: impl FnOnce(&Server) -> Result<Duration>,
    ) -> Result<f64> {
        let server = self.server(contender, Program::Small)?;
        let before = proc::cpu(server.pid())?;
        let time = transfer(server).map_err(|error| server.blame(&error.to_string()))?;
        let used = proc::cpu(server.pid())?.saturating_sub(before);
        Ok(self.record_bytes(row, contender, bytes, time, Some(used)))
    }

    fn record_bytes(&mut self, row: &str, who: Contender, bytes: u64, time: Duration, cpu: Option<Duration>) -> f64 {
        let rate = float(bytes) / 1e6 / time.as_secs_f64();
        self.results.record(Kind::Bytes, row, who, rate);
        if let Some(cpu) = cpu {
            self.results.record(Kind::BytesCpu, row, who, cpu.as_secs_f64() / (float(bytes) / 1e9));
        }
        rate
    }

    /// In a daemon of its own: one that has worked keeps memory.
    fn memory(&mut self, contender: Contender) -> Result<f64> {
        let small = self.programs.path(Program::Small);
        let server = Server::start(contender, self.binary(contender), small)?;
        let idle = proc::resident(server.pid())?;
        let crowd = self.crowd(&server, MANY)?;
        let busy = proc::resident(server.pid())?;
        crowd.leave().map_err(|error| server.blame(&error.to_string()))?;
        let each = (float(busy) - float(idle)) / 1024.0 / float(MANY as u64);
        for (row, kilobytes) in
            [("idle", float(idle) / 1024.0), ("1000 running", float(busy) / 1024.0), ("each of them", each)]
        {
            self.results.record(Kind::Memory, row, contender, kilobytes);
        }
        Ok(float(busy) / 1024.0)
    }

    fn beside(&mut self, row: &str, contender: Contender) -> Result<f64> {
        let path = self.programs.path(Program::Small).to_path_buf();
        let slice = self.effort.slice;
        self.server(contender, Program::Small)?;
        let server = self.started(contender, None).ok_or("no server")?;
        let before = server.load(&path, AT_A_TIME, slice)?.rate();
        let crowd = self.crowd(server, BESIDE)?;
        let beside = server.load(&path, AT_A_TIME, slice)?.rate();
        crowd.leave().map_err(|error| server.blame(&error.to_string()))?;
        let after = server.load(&path, AT_A_TIME, slice)?.rate();
        // Alone before and after: a machine that gets slower or faster meanwhile does not count.
        let part = beside / f64::midpoint(before, after);
        self.results.record(Kind::Beside, row, contender, part);
        Ok(part)
    }

    fn crowd(&self, server: &Server, size: usize) -> Result<Crowd> {
        let argv = self.programs.waiting()?;
        Crowd::gather(&server.socket(), &argv, size).map_err(|error| server.blame(&error.to_string()).into())
    }

    fn binary(&self, contender: Contender) -> Option<&Path> {
        match contender {
            Contender::Fast | Contender::Portable => Some(&self.daemon),
            Contender::Original => self.original.as_deref(),
            _ => None,
        }
    }

    /// The server of a contender that can run `program`: started if it is not running yet.
    fn server(&mut self, contender: Contender, program: Program) -> Result<&Server> {
        let only = Some(program).filter(|_| !contender.speaks_netstrings());
        if self.started(contender, only).is_none() {
            let server = Server::start(contender, self.binary(contender), self.programs.path(program))?;
            self.servers.push((contender, only, server));
        }
        Ok(self.started(contender, only).ok_or("no server")?)
    }

    fn started(&self, contender: Contender, only: Option<Program>) -> Option<&Server> {
        let wanted = self.servers.iter().find(|(who, what, _)| (*who, *what) == (contender, only));
        wanted.map(|(_, _, server)| server)
    }
}

/// The size of the pipe if the contender is one.
fn pipe_size(contender: Contender) -> Option<usize> {
    match contender {
        Contender::Pipe64K => Some(64 << 10),
        Contender::Pipe1M => Some(1 << 20),
        _ => None,
    }
}

//! The rounds: every experiment with every contender, over and over.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::contender::{Contender, find};
use super::crowd::Crowd;
use super::experiment::Experiment;
use super::program::{Program, Programs};
use super::results::{Kind, Results};
use super::server::Server;
use super::ssh::Ssh;
use super::stats::float;
use super::{Result, bare, proc, stream};

/// Programs that run while the rate beside them is measured.
const BESIDE: usize = 400;

/// Programs that run while memory is measured.
const MANY: usize = 1000;

/// Programs at a time while the rate beside others is measured.
const AT_A_TIME: usize = 16;

/// The chatty program: 300,000 lines of 66 bytes.
const LINE: usize = 66;
const LINES: u64 = 300_000;

/// What a producer of a big stream writes at a time.
const CHUNK: usize = 128 * 1024;

/// Sizes of the pipes that streams are compared with: a pipe's default, and the most that an ordinary user can set.
const PIPE: usize = 64 << 10;
const BIG_PIPE: usize = 1 << 20;

/// How long and how often to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Rounds. Figures are their medians.
    pub(crate) rounds: usize,
    /// How long programs run for one figure.
    pub(crate) slice: Duration,
    /// The length of a big stream: a multiple of 128 KiB.
    pub(crate) bytes: u64,
    /// No new experiment begins after this time, once each has been done.
    pub(crate) limit: Duration,
}

/// The daemons.
#[derive(Debug)]
pub(crate) struct Binaries {
    /// The one under test.
    pub(crate) daemon: PathBuf,
    /// Another build of it.
    pub(crate) other: Option<PathBuf>,
    /// sockexec 3.1.1.
    pub(crate) original: Option<PathBuf>,
}

/// The benchmark, running.
pub(crate) struct Bench {
    effort: Effort,
    programs: Programs,
    daemon: PathBuf,
    other: Option<PathBuf>,
    original: Option<PathBuf>,
    missing: Vec<Contender>,
    /// Running servers. Those that run a single program have its arguments.
    servers: Vec<(Contender, Option<Vec<String>>, Server)>,
    ssh: Option<Ssh>,
    results: Results,
}

impl Bench {
    /// Measures the given binaries, and only the contenders in `only` if that names any. Reports other missing ones.
    pub(crate) fn new(effort: Effort, programs: Programs, binaries: Binaries, only: &[Contender]) -> Self {
        let Binaries { daemon, other, original } = binaries;
        let (servers, results) = (Vec::new(), Results::default());
        let mut missing = Contender::ALL.to_vec();
        missing.retain(|contender| !only.is_empty() && !only.contains(contender));
        if other.is_none() {
            // Not reported: hardly anybody has one.
            missing.extend([Contender::Other, Contender::Other2]);
        }
        let mut bench = Self { effort, programs, daemon, other, original, missing, servers, ssh: None, results };
        if bench.original.is_none() {
            bench.leave_out(Contender::Original, "--original PATH gives its binary");
        }
        for contender in [Contender::Socat, Contender::S6, Contender::Ssh] {
            if let Some(command) = contender.needs().iter().find(|command| find(command).is_none()) {
                bench.leave_out(contender, &format!("{command} is not installed"));
            }
        }
        bench
    }

    fn leave_out(&mut self, contender: Contender, reason: &str) {
        if self.missing.contains(&contender) {
            return;
        }
        say!("bench: left out: {}: {reason}\n", contender.name());
        self.results.leave_out(contender, reason);
        self.missing.push(contender);
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
        // So none is always the first after a pause, or always behind the same other one.
        let first = round % contenders.len().max(1);
        contenders.rotate_left(first);
        for contender in contenders {
            match self.figure(name, experiment, contender) {
                Ok(figure) => say!("  {} {figure:.*}", contender.name(), usize::from(figure < 10.0) * 2),
                // A fault of a peer is reported, and its figure left out. A fault of ours ends the benchmark.
                Err(error) if contender.is_peer() => {
                    say!("\n");
                    self.give_up(contender, name, &error.to_string());
                    say!("bench:");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the servers of a contender, so that the next figure is that of a fresh one. A contender
    /// without servers could not start one, and is left out from here on.
    fn give_up(&mut self, contender: Contender, row: &str, error: &str) {
        let before = self.servers.len();
        self.servers.retain(|(who, _, _)| *who != contender);
        let connected = contender == Contender::Ssh && self.ssh.take().is_some();
        if self.servers.len() == before && !connected {
            return self.leave_out(contender, error);
        }
        say!("bench: left out of {row}: {error}\n");
        self.results.leave_out(contender, &format!("once of {row}: {error}"));
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
        let argv = self.programs.argv(program)?;
        let slice = self.effort.slice;
        let mut outcome = match contender {
            Contender::Bare => bare::run(&argv, 1, at_a_time, slice)?,
            Contender::Bare2 => bare::run(&argv, 2, at_a_time, slice)?,
            Contender::Ssh => bare::run(&self.ssh()?.client(&argv)?, 1, at_a_time, slice)?,
            _ => {
                let server = self.server(contender, &argv)?;
                let before = proc::cpu(server.pid())?;
                let outcome = server.load(&argv, at_a_time, slice)?;
                let used = proc::cpu(server.pid())?.saturating_sub(before);
                // The others work in children, which cannot be distinguished from the programs.
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
        let time = match contender {
            Contender::Pipe64K => stream::out_of_pipe(&argv, PIPE, bytes)?,
            Contender::Pipe1M => stream::out_of_pipe(&argv, BIG_PIPE, bytes)?,
            Contender::Ssh => stream::out_of_pipe(&self.ssh()?.client(&argv)?, PIPE, bytes)?,
            _ if contender.has_one_program() => stream::out_of_socket(self.server(contender, &argv)?, bytes)?,
            _ => {
                let transfer = |server: &Server| stream::out_of_server(server, &argv, bytes);
                return self.through_server(row, contender, bytes, transfer);
            }
        };
        Ok(self.record_bytes(row, contender, bytes, time, None))
    }

    fn input(&mut self, row: &str, contender: Contender) -> Result<f64> {
        let argv = self.programs.consumer()?;
        let bytes = self.effort.bytes;
        let time = match contender {
            Contender::Pipe64K => stream::into_pipe(&argv, PIPE, bytes)?,
            Contender::Pipe1M => stream::into_pipe(&argv, BIG_PIPE, bytes)?,
            Contender::Ssh => stream::into_pipe(&self.ssh()?.client(&argv)?, PIPE, bytes)?,
            _ if contender.has_one_program() => stream::into_socket(self.server(contender, &argv)?, bytes)?,
            _ => {
                let transfer = |server: &Server| stream::into_server(server, &argv, bytes);
                return self.through_server(row, contender, bytes, transfer);
            }
        };
        Ok(self.record_bytes(row, contender, bytes, time, None))
    }

    fn through_server(
        &mut self,
        row: &str,
        contender: Contender,
        bytes: u64,
        transfer: impl FnOnce(&Server) -> Result<Duration>,
    ) -> Result<f64> {
        let server = self.server(contender, &[])?;
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

    /// In a fresh daemon: one that has worked keeps memory.
    fn memory(&mut self, contender: Contender) -> Result<f64> {
        let server = Server::start(contender, self.binary(contender), &[])?;
        server.load(&self.programs.argv(Program::Small)?, 1, Duration::ZERO)?;
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
        let argv = self.programs.argv(Program::Small)?;
        let slice = self.effort.slice;
        self.server(contender, &[])?;
        let server = self.started(contender, None).ok_or("no server")?;
        let before = server.load(&argv, AT_A_TIME, slice)?.rate();
        let crowd = self.crowd(server, BESIDE)?;
        let beside = server.load(&argv, AT_A_TIME, slice)?.rate();
        crowd.leave().map_err(|error| server.blame(&error.to_string()))?;
        let after = server.load(&argv, AT_A_TIME, slice)?.rate();
        // Alone before and after, so that a machine that becomes slower or faster meanwhile does not matter.
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
            Contender::Fast | Contender::Fast2 | Contender::Clone | Contender::Fork => Some(&self.daemon),
            Contender::Other | Contender::Other2 => self.other.as_deref(),
            Contender::Original => self.original.as_deref(),
            _ => None,
        }
    }

    /// The server of a contender that can run `argv`. Starts it if it is not running yet.
    fn server(&mut self, contender: Contender, argv: &[String]) -> Result<&Server> {
        let only = contender.has_one_program().then_some(argv);
        if self.started(contender, only).is_none() {
            let server = Server::start(contender, self.binary(contender), argv)?;
            self.servers.push((contender, only.map(<[String]>::to_vec), server));
        }
        Ok(self.started(contender, only).ok_or("no server")?)
    }

    fn started(&self, contender: Contender, only: Option<&[String]>) -> Option<&Server> {
        let wanted = self.servers.iter().find(|(who, what, _)| (*who, what.as_deref()) == (contender, only));
        wanted.map(|(_, _, server)| server)
    }

    /// The connection for ssh, which is made on first use.
    fn ssh(&mut self) -> Result<&Ssh> {
        if self.ssh.is_none() {
            self.ssh = Some(Ssh::start()?);
        }
        Ok(self.ssh.as_ref().ok_or("no connection")?)
    }
}

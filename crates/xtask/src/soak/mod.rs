//! `xtask soak`: a mixed load for as long as you like. Every byte is checked where it arrives, and what the daemon uses
//! must not grow.

mod bytes;
mod job;
mod program;
mod watch;

use std::fmt::Write as _;
use std::fs::File;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use fastrand::Rng;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::bench::daemon;
use crate::{Result, context};
use job::{Job, Sockets};
pub(crate) use program::{Act, act};
use watch::Rest;

/// Checkpoints in a run, at which all clients stop for a measurement.
const CHECKPOINTS: u32 = 12;

/// Programs in a row whose processor time is measured at a checkpoint.
const PROBES: u32 = 300;

/// The factor by which that may grow: it depends on the other users of the machine too.
const PROBE_GROWTH: f64 = 2.5;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Length of the run.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,

    /// Clients at a time.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,

    /// Seed of the load. The same seed gives each client the same jobs [default: random, printed at the start].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Use this binary in place of the release build of the workspace.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// The help below the options.
pub(crate) const AFTER_HELP: &str = "\
Clients make random requests, one after another: output and exit codes, input that the program checks, input that
comes back (read meanwhile, or only afterwards), a byte at a time, deaths by signals, programs that do not exist,
garbage, clients that leave, deadlines; and one client at a time with up to 1 GB. Every byte is compared where it
arrives. A dozen times all clients stop: memory, descriptors, children, processor time at rest and the cost of a
program must be as at first. The run ends with a table. The exit status is 0 if all was well.";

/// Makes glibc's allocator return free blocks of waiting output to the kernel (mallopt(3), `M_MMAP_THRESHOLD`).
/// Otherwise it keeps a varying part of up to 4 MiB, which would hide a leak. Other allocators ignore the variable.
const GIVE_BACK: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=32768");

/// A daemon under load.
struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    fn start(binary: &Path, directory: &Path, name: &str, options: &[&str]) -> Result<Self> {
        let socket = directory.join(name);
        let log = File::create(directory.join(format!("{name}.log")))?;
        let mut command = Command::new(binary);
        command.env(GIVE_BACK.0, GIVE_BACK.1);
        command.args(options).arg(&socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(context(binary.display()))?;
        let daemon = Self { child, socket };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(&daemon.socket).is_err() {
            if Instant::now() > deadline {
                return Err("the daemon does not listen".into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(daemon)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends TERM. The daemon must exit with 0, and leave no socket.
    fn stop(mut self) -> Result<()> {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        if !status.success() || self.socket.exists() {
            return Err(format!("after TERM: {status}, socket left: {}", self.socket.exists()).into());
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// State that the clients share.
struct Load {
    sockets: Sockets,
    program: String,
    /// Held by a client while it is served; a checkpoint takes it from all.
    going: RwLock<()>,
    over: AtomicBool,
    jobs: AtomicU64,
    bytes: AtomicU64,
    /// Clients that were too slow for their deadline.
    cut: AtomicU64,
    fault: Mutex<Option<String>>,
}

impl Load {
    fn fail(&self, what: String) {
        self.over.store(true, Ordering::Release);
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
    }

    fn take_fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn client(&self, seed: u64, mut next: impl FnMut(&mut Rng) -> Job) {
        let mut rng = Rng::with_seed(seed);
        while !self.over.load(Ordering::Acquire) {
            let job = next(&mut rng);
            let going = self.going.read().unwrap_or_else(PoisonError::into_inner);
            match job.run(&self.sockets, &self.program) {
                Ok(done) => {
                    self.jobs.fetch_add(1, Ordering::Relaxed);
                    self.bytes.fetch_add(done.bytes, Ordering::Relaxed);
                    self.cut.fetch_add(done.cut.into(), Ordering::Relaxed);
                }
                Err(error) => self.fail(format!("{job:?}: {error}")),
            }
            drop(going);
            // If the lock were taken again at once, a checkpoint would never get it.
            thread::yield_now();
        }
    }
}

/// One row of the table at the end.
struct Checkpoint {
    at: Duration,
    jobs: u64,
    gigabytes: f64,
    steady: Rest,
    hasty: Rest,
    /// Processor time of the daemon for a program that does nothing.
    probe: Duration,
}

/// The whole command.
pub(crate) fn soak(options: &Options) -> Result<()> {
    let binary = match &options.binary {
        Some(binary) => binary.canonicalize().map_err(context(binary.display()))?,
        None => daemon::build(None)?,
    };
    let directory = TempDir::with_prefix("sockexec-soak.")?;
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    let steady = Daemon::start(&binary, directory.path(), "steady", &["-t", "0", "-k", "1", "-m", "120"])?;
    let hasty = Daemon::start(&binary, directory.path(), "hasty", &["-t", "1", "-k", "0.5", "-m", "40"])?;
    say!("soak: {} minutes, {} clients and a big one, seed {seed}\n", options.minutes, options.clients);
    let program = std::env::current_exe()?.into_os_string().into_string().map_err(|_| "a path that is not UTF-8")?;
    let load = Load {
        sockets: Sockets { steady: steady.socket.clone(), hasty: hasty.socket.clone() },
        program,
        going: RwLock::new(()),
        over: AtomicBool::new(false),
        jobs: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        cut: AtomicU64::new(0),
        fault: Mutex::new(None),
    };
    let mut checkpoints = Vec::new();
    thread::scope(|scope| {
        for client in 0..options.clients {
            let load = &load;
            scope.spawn(move || load.client(seed.wrapping_add(client.into()), Job::random));
        }
        scope.spawn(|| {
            let mut turn = 0;
            load.client(!seed, |rng| {
                turn += 1;
                // One of the biggest of each kind at first, and another now and then.
                if turn <= 3 || turn % 50 == 0 { Job::biggest(turn) } else { Job::random_big(rng) }
            });
        });
        let watched = watch(&load, (&steady, &hasty), options.minutes, &mut checkpoints);
        if let Some(fault) = watched.err().map(|error| error.to_string()).or_else(|| creep(&checkpoints)) {
            load.fail(fault);
        }
        load.over.store(true, Ordering::Release);
    });
    print!("{}", table(&checkpoints));
    println!("\nsoak: {} clients were too slow for their deadline", load.cut.load(Ordering::Relaxed));
    if let Some(fault) = load.take_fault() {
        let logs = ["steady", "hasty"]
            .map(|name| std::fs::read_to_string(directory.path().join(format!("{name}.log"))).unwrap_or_default());
        return Err(format!("{fault}\n{}", logs.concat()).into());
    }
    steady.stop()?;
    hasty.stop()
}

/// Reports progress, and stops the clients for checkpoints, until the time is up or there is a fault.
fn watch(load: &Load, daemons: (&Daemon, &Daemon), minutes: u32, checkpoints: &mut Vec<Checkpoint>) -> Result<()> {
    let start = Instant::now();
    let length = Duration::from_secs(60) * minutes;
    // The first one comes soon, once each kind of job has run: later ones are compared with it.
    let mut due = length / (4 * CHECKPOINTS);
    // Progress: twice a second on a terminal, every half a minute in a file.
    let every = Duration::from_millis(if std::io::stderr().is_terminal() { 500 } else { 30_000 });
    let mut told = Duration::ZERO;
    while !load.over.load(Ordering::Acquire) {
        thread::sleep(Duration::from_millis(500));
        let elapsed = start.elapsed();
        if elapsed >= told {
            told = elapsed + every;
            progress(load, daemons.0.pid(), elapsed, length)?;
        }
        if elapsed >= due || elapsed >= length {
            due += length / CHECKPOINTS;
            let checkpoint = look(load, daemons, elapsed)?;
            let fault = checkpoints.first().and_then(|first| compare(&checkpoint, first));
            checkpoints.push(checkpoint);
            if let Some(fault) = fault {
                return Err(fault.into());
            }
        }
        if elapsed >= length {
            break;
        }
    }
    Ok(())
}

fn progress(load: &Load, pid: u32, elapsed: Duration, length: Duration) -> Result<()> {
    let (children, zombies) = watch::children(pid)?;
    let (before, after) = if std::io::stderr().is_terminal() { ("\r", "   ") } else { ("", "\n") };
    say!(
        "{before}soak: {:4} of {} s, {} requests, {:.1} GB, {} KiB, {} descriptors, {children} children, {zombies} of them \
         zombies{after}",
        elapsed.as_secs(),
        length.as_secs(),
        load.jobs.load(Ordering::Relaxed),
        gigabytes(load),
        watch::anonymous(pid)? >> 10,
        watch::descriptors(pid)?,
    );
    Ok(())
}

/// Stops all clients, and measures.
fn look(load: &Load, (steady, hasty): (&Daemon, &Daemon), at: Duration) -> Result<Checkpoint> {
    let _all = load.going.write().unwrap_or_else(PoisonError::into_inner);
    let probe = probe(load, steady)?;
    Ok(Checkpoint {
        at,
        jobs: load.jobs.load(Ordering::Relaxed),
        gigabytes: gigabytes(load),
        steady: Rest::of(steady.pid())?,
        hasty: Rest::of(hasty.pid())?,
        probe,
    })
}

/// Processor time of the daemon for a program.
fn probe(load: &Load, daemon: &Daemon) -> Result<Duration> {
    let before = crate::bench::proc::cpu(daemon.pid())?;
    for _ in 0..PROBES {
        Job::Emit { seed: 0, len: 100, errors: 0, code: 0 }.run(&load.sockets, &load.program)?;
    }
    Ok(crate::bench::proc::cpu(daemon.pid())?.saturating_sub(before) / PROBES)
}

fn compare(checkpoint: &Checkpoint, first: &Checkpoint) -> Option<String> {
    let slower = checkpoint.probe.as_secs_f64() / first.probe.as_secs_f64();
    checkpoint
        .steady
        .fault(&first.steady)
        .or_else(|| checkpoint.hasty.fault(&first.hasty))
        .or_else(|| (slower > PROBE_GROWTH).then(|| format!("a program costs {slower:.1} times what it did at first")))
}

fn creep(checkpoints: &[Checkpoint]) -> Option<String> {
    let memory = |of: fn(&Checkpoint) -> u64| watch::creep(&checkpoints.iter().map(of).collect::<Vec<_>>());
    memory(|checkpoint| checkpoint.steady.memory).or_else(|| memory(|checkpoint| checkpoint.hasty.memory))
}

#[expect(clippy::cast_precision_loss, reason = "for show")]
fn gigabytes(load: &Load) -> f64 {
    load.bytes.load(Ordering::Relaxed) as f64 / 1e9
}

fn table(checkpoints: &[Checkpoint]) -> String {
    let mut text = String::from(
        "\n| after s | requests | GB | memory KiB | with -t 1 | descriptors | with -t 1 | CPU at rest ms/s | \
         CPU a program us | CPU s |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for Checkpoint { at, jobs, gigabytes, steady, hasty, probe } in checkpoints {
        let _ = writeln!(
            text,
            "| {} | {jobs} | {gigabytes:.1} | {} | {} | {} | {} | {:.2} | {} | {:.1} |",
            at.as_secs(),
            steady.memory >> 10,
            hasty.memory >> 10,
            steady.descriptors,
            hasty.descriptors,
            (steady.idle + hasty.idle).as_secs_f64() * 1000.0,
            probe.as_micros(),
            (steady.cpu + hasty.cpu).as_secs_f64(),
        );
    }
    text
}

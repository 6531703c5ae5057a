//! `xtask bench`: the daemon beside a bare loop, bare pipes and its peers.

mod bare;
pub(crate) mod contender;
mod crowd;
pub(crate) mod daemon;
mod experiment;
mod goals;
mod load;
mod plot;
pub(crate) mod proc;
pub(crate) mod program;
mod report;
mod results;
mod run;
mod server;
mod ssh;
mod stats;
mod stream;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rustix::process::{Resource, getrlimit, setrlimit};

use contender::Contender;
use run::{Bench, Binaries, Effort};

use crate::{Result, context};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Few and short rounds, done within a minute. The figures are rough.
    #[arg(long)]
    pub(crate) quick: bool,

    /// Measure sockexec 3.1.1 too, with the binary at PATH.
    #[arg(long, value_name = "PATH")]
    pub(crate) original: Option<PathBuf>,

    /// Measure another build of the daemon too, with the binary at PATH, and compare.
    #[arg(long, value_name = "PATH")]
    pub(crate) other: Option<PathBuf>,

    /// Measure only these contenders, separated by commas [default: all].
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = contender::named)]
    pub(crate) only: Vec<Contender>,

    /// Write bench.json and bench.svg into this directory [default: target/bench].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// Also write the goals and the figures into this document, between its marks, and the plot beside it.
    #[arg(long, value_name = "FILE")]
    pub(crate) document: Option<PathBuf>,

    /// Rounds. Figures are their medians [default: 7, with --quick 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: Option<u16>,

    /// Build the daemon for this target. The goals for memory are those of a static build, such as
    /// x86_64-unknown-linux-musl.
    #[arg(long, value_name = "TRIPLE")]
    pub(crate) target: Option<String>,

    /// What to measure [default: everything].
    #[arg(value_name = "ROW")]
    pub(crate) rows: Vec<String>,
}

/// The help below the options.
pub(crate) const AFTER_HELP: &str = "\
Rows:
  small-1 small-16 small-64   a small static program, 1, 16 or 64 at a time: programs a second, latency from
                              connect to the end of the connection, CPU time of the daemon for each
  true-1 true-16 true-64      the same with /bin/true
  stdout stdin                a big stream out of a program, and into one: MB/s, CPU time of the daemon
  chatty                      300,000 lines of 66 bytes out of a program
  memory                      resident memory of the daemon, idle and with 1000 programs running
  beside                      the rate beside 400 running programs, as part of the rate alone
`small` and `true` name all three of their rows.

Contenders:
  bare, bare2         a loop of posix_spawn, three pipes and wait, without a server; two such loops side by side
  pipe 64K, pipe 1M   the same stream through a bare pipe of that size
  fast, clone, fork   the daemon as it is, and with SOCKEXEC_SPAWN=clone and =fork. Other variables that you set
                      apply to all (SOCKEXEC_TRANSFER=copy); SOCKEXEC_SPAWN=crowd applies to `fast`
  fast v2             the daemon, asked in version 2 of the protocol, with -m 100. Standard input is sent in frames
                      of 128 KiB (at most half the window, rounded down to a power of two), within the window
  other, other v2     with --other: another build, in the same two ways. A build without an introduction has no
                      window
  3.1.1               with --original
  socat, s6-ipcserver if installed; they run one program without a request, report no exit status, and pass a
                      socket pair (socat copies, with a buffer of 64 KiB) or the socket itself in place of three
                      pipes
  ssh                 if installed: a client for each program, all on one connection that exists beforehand, to a
                      server of its own on 127.0.0.1; a shell starts the program, and bytes are encrypted

Figures are medians over the rounds, in which all contenders take turns. A ratio is the median of the rounds'
ratios. The load comes from one thread on the same machine, and takes its share of the processors.
Tables go to standard output, progress to standard error.

Examples:
  cargo xtask bench --quick
  cargo xtask bench --rounds 11 small stdout
  cargo xtask bench --other PATH --only 'fast v2,other v2' small-1 stdin
  cargo xtask bench --target x86_64-unknown-linux-musl memory
  cargo xtask bench --target x86_64-unknown-linux-musl --original PATH --document docs/performance.md";

/// Measures, prints and writes what was asked for.
pub(crate) fn bench(options: Options) -> Result<()> {
    let experiments = experiment::select(&options.rows)?;
    let whole =
        |path: Option<PathBuf>| path.map(|path| path.canonicalize().map_err(context(path.display()))).transpose();
    let (other, original) = (whole(options.other)?, whole(options.original)?);
    let out = options.out.unwrap_or_else(|| crate::workspace().join("target/bench"));
    fs::create_dir_all(&out).map_err(context(out.display()))?;
    let daemon = daemon::build(options.target.as_deref())?;
    raise_limit_of_descriptors()?;

    let directory = tempfile::Builder::new().prefix("sockexec-bench.").tempdir()?;
    let programs = program::Programs::prepare(directory.path())?;
    let effort = effort(options.quick, options.rounds);
    let busy = proc::busy()?;
    if busy > 0.1 {
        // A loop that waits for each start loses its turn each time. So the figures of `bare` fall most.
        say!(
            "bench: {:.0} % of the processors are in use already: bare will be too slow, and ratios too high\n",
            busy * 100.0
        );
    }
    let results =
        Bench::new(effort, programs, Binaries { daemon, other, original }, &options.only).run(&experiments)?;

    let static_build = options.target.is_some_and(|target| target.contains("musl"));
    let goals = goals::goals(&results, static_build);
    let document = report::document(&results, &goals, effort, busy);
    let (json, svg) = (out.join("bench.json"), out.join("bench.svg"));
    fs::write(&json, format!("{document:#}\n")).map_err(context(json.display()))?;
    plot::write(&svg, &results)?;
    say!("bench: wrote {} and {}\n", json.display(), svg.display());
    let text = format!("{}\n{}", report::goal_table(&goals), report::tables(&results));
    if let Some(path) = options.document {
        let old = fs::read_to_string(&path).map_err(context(path.display()))?;
        let new =
            report::replace(&old, &text).ok_or_else(|| format!("{}: no marks for the figures", path.display()))?;
        fs::write(&path, new).map_err(context(path.display()))?;
        plot::write(&path.with_file_name("bench.svg"), &results)?;
    }
    // Last, and without a panic: the reader may have gone, and the temporary files must still be removed.
    std::io::stdout().write_all(text.as_bytes()).map_err(context("standard output"))
}

fn effort(quick: bool, rounds: Option<u16>) -> Effort {
    let rounds = rounds.map(usize::from);
    if quick {
        let (slice, limit) = (Duration::from_millis(100), Duration::from_secs(45));
        Effort { rounds: rounds.unwrap_or(3), slice, bytes: 128 << 20, limit }
    } else {
        Effort { rounds: rounds.unwrap_or(7), slice: Duration::from_secs(1), bytes: 1 << 30, limit: Duration::MAX }
    }
}

/// 1000 running programs take 1000 connections here, and up to 5000 descriptors in a daemon, which inherits the limit.
fn raise_limit_of_descriptors() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).map_err(context("the limit of open files"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_whole_chunks() {
        for quick in [false, true] {
            assert_eq!(effort(quick, Some(1)).bytes % stream::FRAME, 0);
        }
    }
}

//! Chores of this workspace: `cargo xtask --help` lists them.
#![forbid(unsafe_code)]

/// `eprint!` without its panic if standard error is gone: that would abort a release build, and leave servers behind.
macro_rules! say {
    ($($argument:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!($($argument)*));
    }};
}

#[cfg(target_os = "linux")]
mod bench;
mod demo;
mod dist;
#[cfg(test)]
mod links;
mod rooms;
#[cfg(target_os = "linux")]
mod soak;
mod touched;

use std::error::Error;
use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An error ends a chore, and is printed.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Puts before an error what it is about.
fn context<E: Display>(what: impl Display) -> impl FnOnce(E) -> Box<dyn Error> {
    move |error| format!("{what}: {error}").into()
}

/// The root of this workspace.
fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package)
}

/// Chores of this workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Measure the daemon beside a bare loop, bare pipes and its peers.
    #[cfg(target_os = "linux")]
    #[command(after_help = bench::AFTER_HELP)]
    Bench(bench::Options),
    /// Load the daemon with requests of all kinds for a long time. Check every byte and what the daemon uses.
    #[cfg(target_os = "linux")]
    #[command(after_help = soak::AFTER_HELP)]
    Soak(soak::Options),
    /// Run the tests of the files that were touched, mostly within a minute or two.
    Test(touched::Options),
    /// Draw docs/demo.svg, a terminal session with a real daemon, and docs/top.svg, what sockexec-top shows.
    Demo,
    /// Make manual pages, completions and packages in target/dist.
    #[command(after_help = dist::AFTER_HELP)]
    Dist(dist::Options),
    /// Print which part of the source imports which, as a graph for dot(1): docs/architecture.dot.
    Rooms,
    /// The program that the soak has the daemon run.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    SoakProgram {
        #[command(subcommand)]
        act: soak::Act,
    },
    /// Write BYTES bytes to standard output, CHUNK at a time.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Produce {
        bytes: u64,
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        chunk: u32,
    },
    /// Count the bytes of standard input.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Consume,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "\nxtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<ExitCode> {
    match chore {
        #[cfg(target_os = "linux")]
        Chore::Bench(options) => bench::bench(options)?,
        #[cfg(target_os = "linux")]
        Chore::Soak(options) => soak::soak(&options)?,
        Chore::Test(options) => touched::test(&options)?,
        Chore::Demo => demo::demo()?,
        Chore::Dist(options) => dist::dist(&options)?,
        Chore::Rooms => std::io::stdout().write_all(rooms::graph()?.as_bytes())?,
        #[cfg(target_os = "linux")]
        Chore::SoakProgram { act } => return soak::act(act),
        #[cfg(target_os = "linux")]
        Chore::Produce { bytes, chunk } => bench::program::produce(bytes, usize::try_from(chunk)?)?,
        #[cfg(target_os = "linux")]
        Chore::Consume => bench::program::consume()?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use bench::contender::Contender;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        let parsed =
            Arguments::try_parse_from(["xtask", "bench", "--quick", "--rounds", "2", "small", "stdin"]).unwrap();
        let Chore::Bench(options) = parsed.command else { panic!("not the benchmark") };
        assert!(options.quick);
        assert_eq!((options.rounds, options.rows), (Some(2), vec!["small".to_owned(), "stdin".to_owned()]));
        let parsed = Arguments::try_parse_from(["xtask", "bench", "--only", "fast v2,bare"]).unwrap();
        let Chore::Bench(options) = parsed.command else { panic!("not the benchmark") };
        assert_eq!(options.only, [Contender::Fast2, Contender::Bare]);
        assert!(Arguments::try_parse_from(["xtask", "bench", "--only", "fastest"]).is_err());
        assert!(Arguments::try_parse_from(["xtask", "bench", "--rounds", "0"]).is_err());
        assert!(Arguments::try_parse_from(["xtask", "produce", "10", "0"]).is_err());
    }
}

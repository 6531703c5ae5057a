//! The program that the daemon runs in the soak: a hidden command of xtask.

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use rustix::stdio;

use super::bytes::Bytes;
use crate::Result;

/// The longest wait of a program, so that a fault leaves none behind for ever.
const GIVE_UP: Duration = Duration::from_secs(600);

/// What the program does.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub(crate) enum Act {
    /// Write LEN bytes that follow from SEED to stdout, as many more to stderr as ERRORS says, and exit with CODE.
    Emit { seed: u64, len: u64, errors: u64, code: u8 },
    /// Read stdin to its end, and exit with 0 if it was the LEN bytes that follow from SEED.
    Absorb { seed: u64, len: u64 },
    /// Copy stdin to stdout.
    Echo,
    /// Write without end.
    Flood,
    /// Wait to be ended.
    Wait,
    /// Write LEN bytes that follow from SEED, and die of KILL.
    Die { seed: u64, len: u64 },
}

/// Runs the program.
pub(crate) fn act(act: Act) -> Result<ExitCode> {
    // Not std's, which buffers lines and takes a lock.
    let (stdout, stderr) = (Descriptor(stdio::stdout()), Descriptor(stdio::stderr()));
    match act {
        Act::Emit { seed, len, errors, code } => {
            Bytes::new(seed, len).write_to(stdout)?;
            Bytes::new(!seed, errors).write_to(stderr)?;
            return Ok(ExitCode::from(code));
        }
        Act::Absorb { seed, len } => {
            let right = Bytes::new(seed, len).read_from(io::stdin().lock())?;
            return Ok(if right { ExitCode::SUCCESS } else { ExitCode::from(33) });
        }
        Act::Echo => {
            io::copy(&mut io::stdin().lock(), &mut Descriptor(stdio::stdout()))?;
        }
        Act::Flood => Bytes::new(0, u64::MAX).write_to(stdout)?,
        Act::Wait => thread::sleep(GIVE_UP),
        Act::Die { seed, len } => {
            Bytes::new(seed, len).write_to(stdout)?;
            rustix::process::kill_process(rustix::process::getpid(), Signal::KILL)?;
            thread::sleep(GIVE_UP);
        }
    }
    Ok(ExitCode::SUCCESS)
}

struct Descriptor(std::os::fd::BorrowedFd<'static>);

impl io::Write for Descriptor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(self.0, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

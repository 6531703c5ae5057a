//! Signals that this process gets and the program is to have.

use std::{fs, io, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;
use sockexec::ChildHandle;

use crate::terminal;

const FORWARDED: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// From here on signals are kept for the program instead of ending this process.
pub(crate) struct Caught(Signals);

impl Caught {
    /// `tty`: the program has a terminal, which follows the size of ours.
    ///
    /// # Errors
    /// From `sigaction(2)` or for want of descriptors.
    pub(crate) fn new(tty: bool) -> io::Result<Self> {
        let ignored = ignored();
        // What the starter ignores stays ignored (`nohup`): a handler would undo that.
        let forwarded = FORWARDED.into_iter().filter(|&signal| ignored & bit(signal) == 0);
        Ok(Self(Signals::new(forwarded.chain(tty.then_some(SIGWINCH)))?))
    }

    /// Passes them on for as long as this process lives.
    pub(crate) fn forward(self, program: ChildHandle) {
        let Self(mut signals) = self;
        // The thread ends with the process. It cannot be started: then nothing is forwarded, and the program ends by itself.
        let _ = thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                let _ = match signal {
                    SIGWINCH => program.resize(terminal::size()),
                    signal => program.signal(signal),
                };
            }
        });
    }
}

/// The signals that this process ignores, as the bits of `SigIgn` in `/proc/self/status` (proc(5)). Without that file none are taken to be.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

fn bit(signal: i32) -> u64 {
    u32::try_from(signal - 1).ok().and_then(|shift| 1_u64.checked_shl(shift)).unwrap_or_default()
}

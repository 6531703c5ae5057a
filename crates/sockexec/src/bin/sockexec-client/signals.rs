//! Signals that this process gets and the program is to have.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;
use sockexec::ChildHandle;

use crate::terminal;

const FORWARDED: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Signals that no longer end this process by themselves. Until there is a program they do, by our own hand: the closed connection tells
/// the daemon, and nobody waits in vain for a daemon that is busy.
pub(crate) struct Caught {
    /// What they go to.
    program: Arc<Mutex<Option<ChildHandle>>>,
}

impl Caught {
    /// `tty`: the program has a terminal, which follows the size of ours.
    ///
    /// # Errors
    /// From `sigaction(2)`, or for want of descriptors or threads.
    pub(crate) fn new(tty: bool) -> io::Result<Self> {
        let ignored = ignored();
        // What the starter ignores stays ignored (`nohup`): a handler would undo that.
        let forwarded = FORWARDED.into_iter().filter(|&signal| ignored & bit(signal) == 0);
        let mut signals = Signals::new(forwarded.chain(tty.then_some(SIGWINCH)))?;
        let program = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&program);
        // The thread ends with the process.
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                pass_on(signal, &shared);
            }
        })?;
        Ok(Self { program })
    }

    /// From here on they are for this program.
    pub(crate) fn forward(&self, program: ChildHandle) {
        *lock(&self.program) = Some(program);
    }
}

fn pass_on(signal: i32, program: &Mutex<Option<ChildHandle>>) {
    // Held to the end: either the program gets it, or there is none and will be none.
    let program = lock(program);
    // An error: the program has ended, and so does this process.
    let _ = match (&*program, signal) {
        (Some(program), SIGWINCH) => program.resize(terminal::size()),
        (Some(program), signal) => program.signal(signal),
        (None, SIGWINCH) => Ok(()),
        (None, signal) => {
            crate::die_of(signal);
            Ok(())
        }
    };
}

/// Nothing panics that holds it.
fn lock(program: &Mutex<Option<ChildHandle>>) -> MutexGuard<'_, Option<ChildHandle>> {
    program.lock().unwrap_or_else(PoisonError::into_inner)
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

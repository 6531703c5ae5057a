//! Signals that this process gets and the program is to have.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io, thread};

use nix::sys::signal::{SigSet, Signal};
use sockexec::ChildHandle;

use crate::terminal;

const FORWARDED: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

/// Signals that no longer end this process by themselves. Until there is a program they do, by our own hand: the closed connection tells
/// the daemon, and nobody waits in vain for a daemon that is busy.
///
/// Blocked and waited for (sigwait(3)), not handled: signal-hook's handler swallows what comes between sigaction(2) and its own
/// bookkeeping, a window of microseconds that a test met.
pub(crate) struct Caught {
    /// What they go to.
    program: Arc<Mutex<Option<ChildHandle>>>,
}

impl Caught {
    /// To be called before this process has other threads, which inherit what is blocked. `tty`: the program has a terminal, which follows
    /// the size of ours.
    ///
    /// # Errors
    /// For want of a thread.
    pub(crate) fn new(tty: bool) -> io::Result<Self> {
        let ignored = ignored();
        // What the starter ignores stays ignored (`nohup`): blocked, it would be queued all the same.
        let forwarded = FORWARDED.into_iter().filter(|&signal| ignored & bit(signal) == 0);
        let signals: SigSet = forwarded.chain(tty.then_some(Signal::SIGWINCH)).collect();
        signals.thread_block()?;
        let program = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&program);
        // The thread ends with the process.
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            loop {
                // EINTR only where the system lets sigwait(3) have it.
                if let Ok(signal) = signals.wait() {
                    pass_on(signal, &shared);
                }
            }
        })?;
        Ok(Self { program })
    }

    /// From here on they are for this program.
    pub(crate) fn forward(&self, program: ChildHandle) {
        *lock(&self.program) = Some(program);
    }
}

fn pass_on(signal: Signal, program: &Mutex<Option<ChildHandle>>) {
    // Held to the end: either the program gets it, or there is none and will be none.
    let program = lock(program);
    // An error: the program has ended, and so does this process.
    let _ = match (&*program, signal) {
        (Some(program), Signal::SIGWINCH) => program.resize(terminal::size()),
        (Some(program), signal) => program.signal(signal as i32),
        (None, Signal::SIGWINCH) => Ok(()),
        (None, signal) => {
            crate::die_of(signal as i32);
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

fn bit(signal: Signal) -> u64 {
    1_u64.checked_shl(signal as u32 - 1).unwrap_or_default()
}

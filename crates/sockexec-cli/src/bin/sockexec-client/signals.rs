//! Signals that this process forwards to the program.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, process, thread};

use nix::sys::signal::{SigSet, Signal};
use rustix::io::Errno;
use sockexec::{ChildHandle, Error};

use crate::terminal;

const FORWARDED: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

/// Signals about our own terminal, handled while the program has one.
const OF_TERMINALS: [Signal; 3] = [Signal::SIGWINCH, Signal::SIGTSTP, Signal::SIGCONT];

/// Another INT, TERM or QUIT within this time after a forwarded one ends this command.
const AGAIN: Duration = Duration::from_secs(5);

/// After HUP: the pause between looks at whether the terminal is gone, and their number. If the shell that leads
/// the session exits, HUP comes a moment before the terminal goes.
const LOOKS: (Duration, u32) = (Duration::from_millis(50), 40);

/// Signals that this process takes itself. Before the program has started they still end this process: the daemon
/// sees the closed connection, and no user is stuck with a busy daemon. They also end it if forwarding does not
/// help: the program ignores them, it has ended and its descendants go on, or the daemon is stopped.
///
/// They are blocked and taken by sigwait(3). Rejected: signal-hook's handler loses a signal between sigaction(2)
/// and its own bookkeeping, a window of microseconds that a test hit.
pub(crate) struct Caught {
    /// The program that gets them.
    program: Arc<Mutex<Option<ChildHandle>>>,
}

impl Caught {
    /// Call this before other threads start, as they inherit the mask. With `tty` the program has a terminal, which
    /// follows the size of ours, and ours leaves raw mode while this process is stopped.
    ///
    /// # Errors
    /// If the signals cannot be blocked, or no thread can be started.
    pub(crate) fn new(tty: bool) -> io::Result<Self> {
        let ignored = ignored();
        // Signals that the parent ignores stay ignored (`nohup`). If blocked, they would be queued nevertheless.
        let of_terminals = OF_TERMINALS.into_iter().filter(|_| tty);
        let signals: SigSet =
            FORWARDED.into_iter().chain(of_terminals).filter(|&signal| ignored & bit(signal) == 0).collect();
        signals.thread_block()?;
        let program = Arc::new(Mutex::new(None));
        let mut forwarder =
            Forwarder { program: Arc::clone(&program), has_terminal: File::open(TERMINAL).is_ok(), last: None };
        // The thread ends with the process.
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            loop {
                // Some systems let sigwait(3) fail with EINTR.
                if let Ok(signal) = signals.wait() {
                    forwarder.take(signal);
                }
            }
        })?;
        Ok(Self { program })
    }

    /// Forwards them to this program from here on.
    pub(crate) fn forward(&self, program: ChildHandle) {
        *lock(&self.program) = Some(program);
    }
}

struct Forwarder {
    program: Arc<Mutex<Option<ChildHandle>>>,
    has_terminal: bool,
    /// When INT, TERM or QUIT was last forwarded.
    last: Option<Instant>,
}

impl Forwarder {
    fn take(&mut self, signal: Signal) {
        // Held while this process dies: either the program gets the signal, or no program ever starts.
        let guard = lock(&self.program);
        match (&*guard, signal) {
            (_, Signal::SIGTSTP) => {
                drop(guard);
                stop();
            }
            (program, Signal::SIGCONT | Signal::SIGWINCH) => {
                if signal == Signal::SIGCONT {
                    terminal::resume();
                }
                if let Some(program) = program {
                    let _ = program.resize(terminal::size());
                }
            }
            (None, signal) => end(signal),
            (Some(_), Signal::SIGINT | Signal::SIGTERM | Signal::SIGQUIT) if is_again(self.last) => end(signal),
            (Some(program), signal) => {
                let is_last_word = matches!(signal, Signal::SIGINT | Signal::SIGTERM | Signal::SIGQUIT);
                if is_last_word {
                    self.last = Some(Instant::now());
                }
                let (program, has_terminal) = (program.clone(), self.has_terminal);
                // On a thread: a stopped daemon makes it wait, and the next signal must not.
                let forward = move || deliver(&program, signal, has_terminal);
                if thread::Builder::new().name("signal".to_owned()).spawn(forward).is_err() && is_last_word {
                    end(signal);
                }
            }
        }
    }
}

/// Leaves raw mode and stops this process, as TSTP does by default. CONT sets raw mode again. (STOP cannot be
/// caught: the shell sets its own modes after it.)
fn stop() {
    terminal::pause();
    let tstp: SigSet = std::iter::once(Signal::SIGTSTP).collect();
    // Not STOP: by TSTP the kernel does not stop an orphaned process group, which nothing could continue (setpgid(2)).
    let _ = nix::sys::signal::raise(Signal::SIGTSTP);
    let _ = tstp.thread_unblock();
    let _ = tstp.thread_block();
    // Also if the kernel did not stop it.
    terminal::resume();
}

fn is_again(last: Option<Instant>) -> bool {
    last.is_some_and(|last| last.elapsed() < AGAIN)
}

fn deliver(program: &ChildHandle, signal: Signal, has_terminal: bool) {
    let result = program.signal(signal as i32);
    match signal {
        Signal::SIGHUP if has_terminal => {
            let (pause, times) = LOOKS;
            for _ in 0..times {
                if is_gone() {
                    end(signal);
                }
                thread::sleep(pause);
            }
        }
        // If it was not delivered because the program has ended, this process ends by itself.
        Signal::SIGINT | Signal::SIGTERM | Signal::SIGQUIT
            if matches!(result, Err(Error::NotDelivered { ended: false })) =>
        {
            end(signal);
        }
        _ => {}
    }
}

/// The terminal that controls this process, whatever its streams are.
const TERMINAL: &str = "/dev/tty";

/// Whether the controlling terminal has hung up. HUP alone does not prove it: `kill -HUP` sends it too, and
/// interactive shells send it to their jobs.
fn is_gone() -> bool {
    File::open(TERMINAL).is_err_and(|error| error.raw_os_error() == Some(Errno::NXIO.raw_os_error()))
}

/// Dies of the signal: the kernel closes the connection, and the daemon ends the program.
fn end(signal: Signal) -> ! {
    let _ = crate::die_of(signal as i32);
    process::exit(128 + signal as i32)
}

/// Nothing panics while it holds this lock.
fn lock(program: &Mutex<Option<ChildHandle>>) -> MutexGuard<'_, Option<ChildHandle>> {
    program.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The signals that this process ignores, as the bits of `SigIgn` in `/proc/self/status` (proc(5)); none if that
/// cannot be read.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

fn bit(signal: Signal) -> u64 {
    1_u64.checked_shl(signal as u32 - 1).unwrap_or_default()
}

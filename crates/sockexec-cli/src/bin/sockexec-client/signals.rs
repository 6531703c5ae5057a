//! Signals that this process gets and the program is to have.

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

/// What our own terminal needs while the program has one.
const OF_TERMINALS: [Signal; 3] = [Signal::SIGWINCH, Signal::SIGTSTP, Signal::SIGCONT];

/// Within this time after one that was forwarded, another INT, TERM or QUIT is for us.
const AGAIN: Duration = Duration::from_secs(5);

/// How often, and how many times, to look after HUP whether the terminal is gone. Where the shell that leads the session exits, HUP
/// comes a moment earlier than that.
const LOOKS: (Duration, u32) = (Duration::from_millis(50), 40);

/// Signals that no longer end this process by themselves. Until there is a program they do, by our own hand: the closed connection tells
/// the daemon, and nobody waits in vain for a daemon that is busy. And they do where forwarding is of no use: the program ignores them, or
/// has ended while something else of it goes on, or the daemon is stopped.
///
/// Blocked and waited for (sigwait(3)), not handled: signal-hook's handler swallows what comes between sigaction(2) and its own
/// bookkeeping, a window of microseconds that a test met.
pub(crate) struct Caught {
    /// What they go to.
    program: Arc<Mutex<Option<ChildHandle>>>,
}

impl Caught {
    /// To be called before this process has other threads, which inherit what is blocked. `tty`: the program has a terminal, which follows
    /// the size of ours, and ours is not raw while this process is stopped.
    ///
    /// # Errors
    /// For want of a thread.
    pub(crate) fn new(tty: bool) -> io::Result<Self> {
        let ignored = ignored();
        // What the starter ignores stays ignored (`nohup`): blocked, it would be queued all the same.
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
                // EINTR only where the system lets sigwait(3) have it.
                if let Ok(signal) = signals.wait() {
                    forwarder.take(signal);
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

struct Forwarder {
    program: Arc<Mutex<Option<ChildHandle>>>,
    has_terminal: bool,
    /// When INT, TERM or QUIT was last forwarded.
    last: Option<Instant>,
}

impl Forwarder {
    fn take(&mut self, signal: Signal) {
        // Held while this process dies: either the program gets it, or there is no program, and never will be.
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
                // On a thread, as a daemon that is stopped keeps it waiting, and the next signal is not to wait.
                let forward = move || deliver(&program, signal, has_terminal);
                if thread::Builder::new().name("signal".to_owned()).spawn(forward).is_err() && is_last_word {
                    end(signal);
                }
            }
        }
    }
}

/// Stops this process, as TSTP does by default, and not with a terminal that is raw. CONT, which follows, makes it raw again. (After
/// STOP, which nobody hears, the shell has set the modes that it likes.)
fn stop() {
    terminal::pause();
    let tstp: SigSet = std::iter::once(Signal::SIGTSTP).collect();
    // Raised here and not by STOP: where nobody could continue this process (it is orphaned, setpgid(2)), the kernel does not stop it.
    let _ = nix::sys::signal::raise(Signal::SIGTSTP);
    let _ = tstp.thread_unblock();
    let _ = tstp.thread_block();
    // Also if it was not stopped.
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
        // Where it was not delivered as the program has ended, so does this process.
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

/// Whether the terminal that controlled this process has hung up. By HUP alone that cannot be told from a `kill -HUP`: an interactive
/// shell sends it itself, to its jobs.
fn is_gone() -> bool {
    File::open(TERMINAL).is_err_and(|error| error.raw_os_error() == Some(Errno::NXIO.raw_os_error()))
}

/// The kernel closes the connection, and the daemon ends the program.
fn end(signal: Signal) -> ! {
    let _ = crate::die_of(signal as i32);
    process::exit(128 + signal as i32)
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

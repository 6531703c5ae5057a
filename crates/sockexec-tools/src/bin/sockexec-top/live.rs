//! The live table: keys, signals and answers from the daemon, as they arrive.
//!
//! A thread asks the daemon: a stopped daemon, or a slow user database, must not hold up the keys.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};
use std::{env, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, getpid, kill_process};
use rustix::stdio::{stdin, stdout};
use rustix::termios::tcgetwinsize;
use sockexec_tools::screen::{self, Screen};

use crate::keys::{self, orders};
use crate::snapshot::{Snapshot, Source};
use crate::table::Order;
use crate::view::View;

/// What has ended the table.
#[derive(Debug)]
pub(crate) enum Ended {
    Quit,
    Signal(i32),
}

/// Signals that end the table.
const ENDING: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];

/// How long the loop may take to end after a signal.
const GRACE: Duration = Duration::from_secs(2);

/// Signals that have arrived, and the pipe that wakes the loop.
struct Woken {
    pipe: UnixStream,
    /// One of [`ENDING`], or 0.
    ending: Arc<AtomicUsize>,
    continued: Arc<AtomicUsize>,
}

impl Woken {
    fn new(waker: &UnixStream, pipe: UnixStream) -> io::Result<Self> {
        let woken = Self { pipe, ending: Arc::default(), continued: Arc::default() };
        woken.pipe.set_nonblocking(true)?;
        let catch = |signal: Signal, told: Option<&Arc<AtomicUsize>>| {
            let number = signal.as_raw();
            // Before the pipe, so that the loop finds it set when it wakes.
            if let Some(told) = told {
                signal_hook::flag::register_usize(number, Arc::clone(told), number.unsigned_abs() as usize)?;
            }
            signal_hook::low_level::pipe::register(number, waker.try_clone()?)?;
            io::Result::Ok(())
        };
        for signal in ENDING {
            catch(signal, Some(&woken.ending))?;
        }
        catch(Signal::CONT, Some(&woken.continued))?;
        catch(Signal::WINCH, None)?;
        Ok(woken)
    }

    fn drain(&self) {
        let mut bytes = [0; 256];
        while (&self.pipe).read(&mut bytes).is_ok_and(|n| n > 0) {}
    }
}

/// Ends this process after a signal if the loop does not: a terminal whose reader has stopped (a connection that
/// hangs) makes it wait in write(2). Otherwise only KILL would end it.
fn end_if_stuck(ending: Arc<AtomicUsize>) -> io::Result<()> {
    let (mut pipe, waker) = UnixStream::pair()?;
    waker.set_nonblocking(true)?;
    for signal in ENDING {
        signal_hook::low_level::pipe::register(signal.as_raw(), waker.try_clone()?)?;
    }
    // The thread ends with the process.
    let watch = move || {
        if pipe.read_exact(&mut [0]).is_ok() {
            thread::sleep(GRACE);
            screen::restore_modes();
            let _ = signal_in(&ending).map(signal_hook::low_level::emulate_default_handler);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(watch).map(drop)
}

/// Shows the table until a key or a signal ends it.
///
/// # Errors
/// From the terminal.
pub(crate) fn run(source: Source, order: Order, interval: Duration) -> io::Result<Ended> {
    let size = tcgetwinsize(stdout())?;
    if size.ws_col == 0 || size.ws_row == 0 {
        return Err(io::Error::other("its size is unknown; `stty cols 80 rows 24` sets it"));
    }
    let (pipe, waker) = UnixStream::pair()?;
    waker.set_nonblocking(true)?;
    let woken = Woken::new(&waker, pipe)?;
    // After it, so that the thread finds which signal it was.
    end_if_stuck(Arc::clone(&woken.ending))?;
    let (questions, asked) = mpsc::channel();
    let (answers, answered) = mpsc::channel();
    let view = View::new(source.socket(), order, env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    // It is not joined: it may still wait for the daemon when this ends.
    thread::Builder::new().name("daemon".to_owned()).spawn(move || ask(source, &asked, &answers, &waker))?;
    let screen = Screen::new()?;
    let ending = Arc::clone(&woken.ending);
    let live = Live { screen, view, woken, questions, answered, interval, due: Some(Instant::now()) };
    match live.run() {
        // A terminal that hangs up fails and sends HUP. The signal is the cause.
        Err(error) => signal_in(&ending).map(Ended::Signal).ok_or(error),
        ended => ended,
    }
}

/// The signal of [`ENDING`] that has arrived.
fn signal_in(ending: &AtomicUsize) -> Option<i32> {
    i32::try_from(ending.load(SeqCst)).ok().filter(|signal| *signal != 0)
}

/// Asks the daemon once for each message in `asked`.
fn ask(mut source: Source, asked: &Receiver<()>, answers: &Sender<Result<Snapshot, String>>, mut waker: &UnixStream) {
    while asked.recv().is_ok() {
        if answers.send(source.snapshot()).is_err() {
            return;
        }
        // If the pipe is full, the loop wakes anyway.
        let _ = waker.write(b"!");
    }
}

struct Live {
    screen: Screen,
    view: View,
    woken: Woken,
    questions: Sender<()>,
    answered: Receiver<Result<Snapshot, String>>,
    interval: Duration,
    /// When to ask next; `None` while an answer is awaited.
    due: Option<Instant>,
}

impl Live {
    fn run(mut self) -> io::Result<Ended> {
        loop {
            if self.due.is_some_and(|due| due <= Instant::now()) {
                let _ = self.questions.send(());
                self.due = None;
            }
            self.screen.draw(|frame| self.view.draw(frame))?;
            let typed = self.wait()?;
            self.woken.drain();
            if let Some(signal) = signal_in(&self.woken.ending) {
                return Ok(Ended::Signal(signal));
            }
            if self.woken.continued.swap(0, SeqCst) != 0 {
                self.screen.resume()?;
            }
            self.take_answers()?;
            for order in orders(&typed) {
                match order {
                    keys::Order::Quit => return Ok(Ended::Quit),
                    keys::Order::Suspend => self.suspend()?,
                    keys::Order::Redraw => self.screen.redraw()?,
                    order => self.view.obey(order),
                }
            }
        }
    }

    /// Waits for a key, a signal, an answer or the time to ask. Returns what was typed.
    fn wait(&self) -> io::Result<Vec<u8>> {
        let left = self.due.map(|due| due.saturating_duration_since(Instant::now()));
        // Also while an answer is awaited: how long there was none is on the screen.
        let left = Timespec::try_from(left.unwrap_or(self.interval)).map_err(io::Error::other)?;
        let keyboard = stdin();
        let mut ready = [PollFd::new(&keyboard, PollFlags::IN), PollFd::new(&self.woken.pipe, PollFlags::IN)];
        match poll(&mut ready, Some(&left)) {
            // A signal: its byte is in the pipe.
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            other => other?,
        };
        if ready[0].revents().is_empty() {
            return Ok(Vec::new());
        }
        let mut bytes = [0; 256];
        match rustix::io::read(keyboard, &mut bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => Ok(bytes.get(..n).unwrap_or_default().to_vec()),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_answers(&mut self) -> io::Result<()> {
        loop {
            match self.answered.try_recv() {
                Ok(answer) => {
                    self.view.told(answer);
                    self.due = Instant::now().checked_add(self.interval);
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    return Err(io::Error::other("the thread that asks the daemon has ended"));
                }
            }
        }
    }

    /// Stops this process, as a shell expects after `^Z`.
    fn suspend(&mut self) -> io::Result<()> {
        self.screen.suspend()?;
        // This returns after CONT; at once in an orphaned process group, which the kernel does not stop.
        kill_process(getpid(), Signal::TSTP)?;
        self.screen.resume()
    }
}

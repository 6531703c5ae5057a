//! Output to a terminal whose reader has stopped (`^S`, a viewer that hangs): a write to it waits,
//! and the client must not.
//!
//! poll(2) reports a terminal as ready if it has room for one byte, and write(2) waits until it has
//! taken everything.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::OptionalActions;
use sockexec::{Command, Error, ExitStatus, Stdio, Version};

use super::library::command;
use super::{bare, wait};
use crate::common::{Daemon, PATIENCE, Process, eventually, steps};

/// Both ends of a terminal.
pub(super) fn terminal() -> (File, File) {
    // Close-on-exec, or the client would have it too, and the terminal would never hang up.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).expect("a terminal");
    rustix::pty::grantpt(&master).expect("a terminal");
    rustix::pty::unlockpt(&master).expect("a terminal");
    let name = rustix::pty::ptsname(&master, Vec::new()).expect("a name").into_string().expect("UTF-8");
    // Not the controlling terminal of this process.
    let flags = OFlags::NOCTTY.bits().cast_signed();
    let terminal = File::options().read(true).write(true).custom_flags(flags).open(name).expect("a terminal");
    (master.into(), terminal)
}

pub(super) fn make_raw(terminal: &File) {
    let mut raw = rustix::termios::tcgetattr(terminal).expect("settings");
    raw.make_raw();
    rustix::termios::tcsetattr(terminal, OptionalActions::Now, &raw).expect("settings");
}

/// Runs it on a thread, so that a test that would never end fails.
#[track_caller]
pub(super) fn in_time<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || drop(sender.send(run())));
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("never came: {what}"))
}

/// Runs a program that floods a terminal that nobody reads, with a limit of time.
#[track_caller]
fn assert_a_time_limit_ends(run: fn(Command) -> Result<ExitStatus, Error>) {
    let daemon = Daemon::start("-t 0");
    // On a slow machine the time may be up before the program is there. Then the test tries again with
    // more.
    let is_done = [500, 5000, 20_000].iter().any(|&millis| {
        let (_master, terminal) = terminal();
        make_raw(&terminal);
        let mut life = daemon.fifo(&format!("life{millis}"));
        let mut flood = command(&daemon, &format!("hold {} flood", life.path()));
        flood.stdin(Stdio::null()).stdout(terminal).client_timeout(Duration::from_millis(millis));
        let result = in_time("the time limit", move || run(flood));
        assert!(matches!(result, Err(Error::TimedOut { .. })), "{result:?}");
        let is_there = life.was_held();
        if is_there {
            life.wait_for_death();
        }
        is_there
    });
    assert!(is_done, "each time was up before the program was there");
}

#[test]
fn a_time_limit_ends_a_stuck_write() {
    assert_a_time_limit_ends(|mut flood| flood.status());
}

#[test]
fn a_time_limit_ends_a_stuck_write_with_tokio() {
    // Including the end of the runtime.
    assert_a_time_limit_ends(|flood| {
        super::futures::runtime().block_on(sockexec::tokio::Command::from(flood).status())
    });
}

/// `kill` and signals work meanwhile, and so does input.
#[test]
fn kill_signals_and_input_work_meanwhile() {
    let daemon = Daemon::start("-t 0");
    for signal in [None, Some(15)] {
        let (_master, terminal) = terminal();
        make_raw(&terminal);
        let name = format!("life{signal:?}");
        let mut life = daemon.fifo(&name);
        let gate = daemon.gate(&format!("gate{signal:?}"));
        // `spawn [ flood ]` writes to the terminal, and only that process is stuck.
        let words = format!("hold {} spawn [ flood ] read 300000 gate {} wait", life.path(), gate.path());
        let mut command = command(&daemon, &words);
        command.version(Version::Two).stdin(Stdio::piped()).stdout(terminal).client_timeout(None);
        let mut child = in_time("the program", move || command.spawn()).expect("it starts");
        life.holder();
        daemon.process().wait_until_blocked();
        // More than pipes and sockets hold, so it arrives only if the client moves it.
        let mut stdin = child.stdin.take().expect("a pipe");
        in_time("input", move || std::io::Write::write_all(&mut stdin, &vec![b'x'; 300_000])).expect("it reads");
        in_time("a program that has read it", move || gate.open());
        match signal {
            None => child.kill().expect("it is told"),
            Some(signal) => child.signal(signal).expect("it is sent"),
        }
        life.wait_for_death();
        // Its unwritten output does not delay it.
        child.kill().expect("it is told");
        let status = in_time("the end", move || child.wait()).expect("a status");
        assert_eq!(status.signal(), signal.or(Some(9)));
    }
}

/// A signal to the command reaches the program, and a second one ends the command.
#[test]
fn a_second_signal_ends_the_command() {
    let daemon = Daemon::start("-t 0");
    let (_master, terminal) = terminal();
    make_raw(&terminal);
    let mut life = daemon.fifo("life");
    let mut command = bare(&daemon);
    command.arg("--usage").arg(daemon.socket()).args(steps(&format!("hold {} flood", life.path())));
    command.stdout(terminal);
    let mut child = command.spawn().expect("the client starts");
    life.holder();
    // Some of the flood has come, so the command knows the program.
    Process::of(&child).wait_until_blocked();
    daemon.process().wait_until_blocked();
    eventually("a client that waits for its program", || Process::of(&child).is_asleep());
    let kill = || rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).expect("it lives");
    kill();
    life.wait_for_death();
    kill();
    assert_eq!(wait(&mut child).signal(), Some(Signal::TERM.as_raw()));
}

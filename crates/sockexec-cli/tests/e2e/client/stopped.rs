//! The command forwards signals in version 2 instead of dying of them. It can be ended all the
//! same.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use rustix::termios::{LocalModes, tcgetattr};

use super::fake::{EXIT, Fake, INTRODUCTION, STARTED};
use super::terminals::terminal;
use super::{bare, wait};
use crate::common::{Daemon, Process, eventually, fixture, steps};

/// The program's output, in bytes.
const READY: &[u8] = b"6:stdout,5:ready,";

/// `sockexec-client --usage SOCKET FIXTURE STEPS`.
fn version_2(daemon: &Daemon, words: &str) -> Command {
    let mut command = bare(daemon);
    command.arg("--usage").arg(daemon.socket()).args(steps(words));
    command
}

#[track_caller]
fn kill(child: &Child, signal: Signal) {
    rustix::process::kill_process(Pid::from_child(child), signal).expect("it lives");
}

/// Waits until the client has shown the program's `ready`, and forwards signals. Its first thread
/// knows the program before that, hands it over, and sleeps only when it waits for the end.
#[track_caller]
fn wait_until_it_forwards(child: &mut Child) {
    let mut ready = [0; 5];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("the program is ready");
    assert_eq!(&ready, b"ready");
    eventually("a client that waits for its program", || Process::of(child).is_asleep());
}

/// Waits until the daemon has got a signal from this client.
#[track_caller]
fn wait_for_forwarded(daemon: &Daemon, signal: Signal) {
    daemon.wait_for_log(&format!("signal {} to the group", signal.as_raw()));
}

/// `sh -c 'trap "" INT TERM HUP QUIT; sleep 100'`: the second signal ends the client, and the
/// closed connection ends the program.
#[test]
fn a_second_signal_ends_the_client() {
    for signals in [
        [Signal::TERM, Signal::TERM],
        [Signal::INT, Signal::INT],
        [Signal::QUIT, Signal::TERM],
        [Signal::TERM, Signal::QUIT],
    ] {
        let daemon = Daemon::start("-t 0 -k 0.1");
        let mut life = daemon.fifo("life");
        let words = format!("ignore INT TERM HUP QUIT ; hold {} out ready wait", life.path());
        let mut child = version_2(&daemon, &words).spawn().expect("the client starts");
        wait_until_it_forwards(&mut child);
        kill(&child, signals[0]);
        wait_for_forwarded(&daemon, signals[0]);
        assert!(life.is_held());
        kill(&child, signals[1]);
        assert_eq!(wait(&mut child).signal(), Some(signals[1].as_raw()));
        life.wait_for_death();
    }
}

/// The reader of standard output has stopped, so the rest of the reply never arrives.
#[test]
fn a_second_signal_ends_a_client_whose_output_nobody_reads() {
    let daemon = Daemon::start("-t 0 -k 0.1");
    let mut life = daemon.fifo("life");
    let words = format!("hold {} out ready flood", life.path());
    let mut child = version_2(&daemon, &words).spawn().expect("the client starts");
    wait_until_it_forwards(&mut child);
    Process::of(&child).wait_until_blocked();
    daemon.process().wait_until_blocked();
    kill(&child, Signal::INT);
    life.wait_for_death();
    kill(&child, Signal::INT);
    assert_eq!(wait(&mut child).signal(), Some(Signal::INT.as_raw()));
}

/// The program has ended, and a descendant holds its output. The daemon has no program to signal.
#[test]
fn a_second_signal_ends_a_client_whose_program_lingers() {
    let daemon = Daemon::start("-t 0 -k 0.1 --linger 100");
    let (mut life, mut leader) = (daemon.fifo("life"), daemon.fifo("leader"));
    let words = format!("hold {} spawn [ ignore INT ; hold {} wait ] out ready exit 0", leader.path(), life.path());
    let mut child = version_2(&daemon, &words).spawn().expect("the client starts");
    wait_until_it_forwards(&mut child);
    leader.wait_for_death();
    life.holder();
    kill(&child, Signal::INT);
    eventually("the signal was taken", || !Process::of(&child).has_pending(Signal::INT));
    kill(&child, Signal::INT);
    assert_eq!(wait(&mut child).signal(), Some(Signal::INT.as_raw()));
    life.wait_for_death();
}

/// A stopped daemon forwards nothing.
#[test]
fn a_second_signal_ends_a_client_of_a_stopped_daemon() {
    let daemon = Daemon::start("-t 0");
    let mut life = daemon.fifo("life");
    let words = format!("hold {} out ready wait", life.path());
    let mut child = version_2(&daemon, &words).spawn().expect("the client starts");
    wait_until_it_forwards(&mut child);
    rustix::process::kill_process(daemon.process().0, Signal::STOP).expect("it lives");
    eventually("the daemon stops", || daemon.process().is_stopped());
    kill(&child, Signal::INT);
    eventually("the signal was taken", || !Process::of(&child).has_pending(Signal::INT));
    kill(&child, Signal::TERM);
    let status = wait(&mut child);
    rustix::process::kill_process(daemon.process().0, Signal::CONT).expect("it lives");
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
    life.wait_for_death();
}

/// The socket is full and does not even take the signal, so the first one ends the client.
#[test]
fn one_signal_ends_a_client_whose_socket_is_full() {
    let (full, is_full) = mpsc::channel();
    let fake = Fake::new(move |mut peer| {
        peer.request();
        peer.say(&[b"8:protocol,17:2 window=10000000,", STARTED, READY].concat());
        full.send(()).expect("the test waits");
        peer.wait_for_the_end();
    });
    let mut command = Command::new(fixture());
    command.args(["exec", env!("CARGO_BIN_EXE_sockexec-client"), "--usage"]).arg(fake.socket()).arg("program");
    let mut yes = Command::new("yes").stdout(Stdio::piped()).spawn().expect("it starts");
    command.stdin(yes.stdout.take().expect("a pipe"));
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the client starts");
    drop(command);
    wait_until_it_forwards(&mut child);
    is_full.recv().expect("the daemon waits");
    // The pipe is full too. If it had room, it would wake the client.
    let (feeder, client) = (Process::of(&yes), Process::of(&child));
    let mut looks = 0;
    eventually("a full socket", || {
        let written = feeder.written();
        let is_stuck = written > 0
            && feeder.is_asleep()
            && client.is_all_asleep()
            && feeder.is_asleep()
            && feeder.written() == written;
        // The threads are not looked at in one moment, so one look may be mistaken.
        looks = if is_stuck { looks + 1 } else { 0 };
        looks > 20
    });
    kill(&child, Signal::INT);
    assert_eq!(wait(&mut child).signal(), Some(Signal::INT.as_raw()));
    fake.join();
    assert_eq!(wait(&mut yes).signal(), Some(Signal::PIPE.as_raw()));
}

/// HUP, USR1 and USR2 never end the client. After more than five seconds INT counts as a first one
/// again.
#[test]
fn some_signals_are_always_forwarded() {
    let (order, orders) = mpsc::channel();
    let fake = Fake::new(move |mut peer| {
        peer.request();
        assert!(peer.pair().1.is_empty());
        peer.say(&[INTRODUCTION, STARTED, READY].concat());
        for signal in
            [Signal::HUP, Signal::HUP, Signal::USR1, Signal::USR1, Signal::USR2, Signal::USR2, Signal::INT, Signal::INT]
        {
            assert_eq!(peer.pair(), ("signal".to_owned(), signal.as_raw().to_string().into_bytes()));
            order.send(()).expect("the test waits");
        }
        peer.say(EXIT);
    });
    let mut command = Command::new(fixture());
    command.args(["exec", env!("CARGO_BIN_EXE_sockexec-client"), "-n", "--usage"]).arg(fake.socket()).arg("program");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the client starts");
    wait_until_it_forwards(&mut child);
    for signal in [Signal::HUP, Signal::HUP, Signal::USR1, Signal::USR1, Signal::USR2, Signal::USR2, Signal::INT] {
        kill(&child, signal);
        orders.recv().expect("it is forwarded");
    }
    // This tests the time itself. A longer time is as good.
    thread::sleep(Duration::from_millis(5100));
    kill(&child, Signal::INT);
    orders.recv().expect("it is forwarded");
    assert!(wait(&mut child).success());
    fake.join();
}

/// A client whose terminal hangs up ends, whatever its program does about HUP.
#[test]
fn the_client_ends_with_its_terminal() {
    let daemon = Daemon::start("-t 0 -k 0.1");
    for option in ["--usage", "-t"] {
        let mut life = daemon.fifo(&format!("life{option}"));
        let (master, terminal) = terminal();
        let mut command = Command::new(fixture());
        command.args(["setsid", "ctty", "exec", env!("CARGO_BIN_EXE_sockexec-client"), option]);
        command
            .arg(daemon.socket())
            .args(steps(&format!("ignore INT TERM HUP QUIT ; hold {} out ready wait", life.path())));
        command.stdin(terminal).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the client starts");
        drop(command);
        wait_until_it_forwards(&mut child);
        // A HUP that somebody sends goes to the program.
        kill(&child, Signal::HUP);
        wait_for_forwarded(&daemon, Signal::HUP);
        assert!(life.is_held());
        drop(master);
        assert_eq!(wait(&mut child).signal(), Some(Signal::HUP.as_raw()), "{option}");
        life.wait_for_death();
    }
}

/// The shell that leads the session exits and loses its terminal. HUP comes a moment before that.
#[test]
fn the_client_ends_with_its_session() {
    let daemon = Daemon::start("-t 0 -k 0.1");
    let (mut life, gate) = (daemon.fifo("life"), daemon.gate("gate"));
    let (_master, terminal) = terminal();
    let mut leader = Command::new(fixture());
    leader.args(["setsid", "ctty", "spawn", "[", "exec", env!("CARGO_BIN_EXE_sockexec-client"), "--usage"]);
    leader.arg(daemon.socket()).args(steps(&format!("ignore INT TERM HUP QUIT ; hold {} out ready wait", life.path())));
    leader.args(["]", "gate", gate.path()]);
    leader.stdin(terminal).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut leader_process = leader.spawn().expect("the leader starts");
    let mut stdout = leader_process.stdout.take().expect("a pipe");
    stdout.read_exact(&mut [0; 5]).expect("the program is ready");
    gate.open();
    assert!(wait(&mut leader_process).success());
    life.wait_for_death();
}

/// The terminal is restored even if something other than the program's end ends the client.
#[test]
fn the_terminal_is_restored() {
    let daemon = Daemon::start("-t 0 -k 0.1");
    let mut life = daemon.fifo("life");
    let (_master, terminal) = terminal();
    let ours: File = terminal.try_clone().expect("a duplicate");
    let modes = || tcgetattr(&ours).expect("modes").local_modes & (LocalModes::ICANON | LocalModes::ECHO);
    let before = modes();
    let mut command = bare(&daemon);
    command.arg("-t").arg(daemon.socket());
    command.args(steps(&format!("ignore INT TERM HUP QUIT ; hold {} out ready wait", life.path())));
    command.stdin(terminal);
    let mut child = command.spawn().expect("the client starts");
    wait_until_it_forwards(&mut child);
    eventually("raw mode", || modes().is_empty());
    kill(&child, Signal::TERM);
    wait_for_forwarded(&daemon, Signal::TERM);
    kill(&child, Signal::TERM);
    assert_eq!(wait(&mut child).signal(), Some(Signal::TERM.as_raw()));
    assert_eq!(modes(), before);
    life.wait_for_death();
}

//! HUP: a terminal that goes, a daemon that is to outlive it, and one that is asked to reload.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::OFlags;
use rustix::process::Signal;
use rustix::pty::OpenptFlags;

use crate::common::{Daemon, Launch, eventually, steps};
use crate::programs::ignoring;

/// Without a terminal HUP means to reload, and there is nothing to reload.
#[test]
fn without_a_terminal_it_is_logged_and_nothing_else() {
    // The tests may be run at a terminal.
    let mut daemon = Launch::default().quiet().prelude("exec setsid \"$0\" \"$@\"").start();
    for _ in 0..2 {
        let position = daemon.log_position();
        daemon.signal(Signal::HUP);
        daemon.wait_for_log_after(position, "sockexec: reload: there is nothing to reload yet");
        daemon.assert_serves();
    }
    assert_eq!(daemon.terminate().status.code(), Some(0));
}

/// `nohup sockexec S &` died of HUP, as the daemon itself undid what nohup had done.
#[test]
fn nohup() {
    let mut daemon = Launch::default().quiet().prelude("exec nohup \"$0\" \"$@\"").start();
    daemon.signal(Signal::HUP);
    daemon.assert_serves();
    let stopped = daemon.terminate();
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    assert!(!stopped.stderr.contains("HUP"), "{stopped:?}");
}

/// What is ignored has no effect, whatever it would mean: a shell's job in the background ignores INT and QUIT.
#[test]
fn what_the_starter_ignores_is_not_heard() {
    let Some(launch) = ignoring("--ignore-signal=INT,QUIT,USR1", 1 << 1 | 1 << 2 | 1 << 9) else { return };
    let mut daemon = launch.start();
    for signal in [Signal::INT, Signal::QUIT, Signal::USR1] {
        daemon.signal(signal);
        daemon.assert_serves();
    }
    let stopped = daemon.terminate();
    assert_eq!(stopped.status.code(), Some(0));
    assert!(!stopped.stderr.contains("slots taken"), "{stopped:?}");
}

/// Our end of a terminal, and a launch for which it is the controlling one. `leader`: what leads its session, before the daemon.
fn at_a_terminal(leader: &str) -> (OwnedFd, Launch) {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let prelude = format!("exec setsid --ctty {leader} \"$0\" \"$@\" <{name}");
    (ours, Launch::default().quiet().options("-t 0 -k 100").prelude(&prelude))
}

/// Its terminal hangs up: programs get TERM and their clients what they say then, and the socket goes. While the terminal is there a HUP is
/// only logged.
#[test]
fn a_terminal_that_hangs_up() {
    let (terminal, launch) = at_a_terminal("");
    let mut daemon = launch.start();
    daemon.signal(Signal::HUP);
    daemon.wait_for_log("nothing to reload");
    daemon.assert_serves();
    let mut client = daemon.exec(&steps("spawn [ wait ] ignore TERM ; out ready reap out last-words exit 7"));
    client.wait_for("ready");
    drop(terminal);
    let reply = client.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("readylast-words", 7));
    let stopped = daemon.wait_for_groups();
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    assert!(stopped.stderr.contains("the terminal is gone"), "{stopped:?}");
    assert!(!daemon.socket().exists());
}

/// The shell that has started it goes, and its session with it: HUP comes a moment before the terminal is taken away, so it is looked at
/// twice.
#[test]
fn the_end_of_the_session() {
    for _ in 0..20 {
        // A shell that is not replaced by its last command.
        let (terminal, launch) = at_a_terminal("sh -c '\"$0\" \"$@\"; exit'");
        let mut daemon = launch.start();
        daemon.kill();
        eventually("no socket", || !daemon.socket().exists());
        drop(terminal);
    }
}

/// A second HUP, of the kernel beside that of the shell, is not a second TERM.
#[test]
fn many_at_once_are_one() {
    let (terminal, launch) = at_a_terminal("");
    let mut daemon = launch.start();
    let gate = daemon.gate("gate");
    let argv = format!("spawn [ wait ] ignore TERM ; out ready reap out asked gate {} exit 3", gate.path());
    let mut client = daemon.exec(&steps(&argv));
    client.wait_for("ready");
    drop(terminal);
    client.wait_for("asked");
    daemon.signal(Signal::HUP);
    // What was told before is taken before.
    daemon.signal(Signal::USR1);
    daemon.wait_for_log("slots taken");
    gate.open();
    assert_eq!(client.reply().code(), 3);
    assert_eq!(daemon.wait_for_groups().status.code(), Some(0));
}

/// A daemon of a session without a terminal has none to lose, even where it can open one.
#[test]
fn another_terminal_is_none_of_its_business() {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let held = OpenOptions::new().read(true).custom_flags(OFlags::NOCTTY.bits().cast_signed()).open(&name).unwrap();
    let mut daemon: Daemon = Launch::default().quiet().prelude(&format!("exec setsid \"$0\" \"$@\" <{name}")).start();
    drop((ours, held));
    daemon.signal(Signal::HUP);
    daemon.wait_for_log("nothing to reload");
    daemon.assert_serves();
}

//! HUP: a terminal that goes away, a daemon that should outlive it, and a request to reload.

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
    // The tests may run at a terminal.
    let mut daemon = Launch::default().quiet().prelude("exec setsid \"$0\" \"$@\"").start();
    for _ in 0..2 {
        let position = daemon.log_position();
        daemon.signal(Signal::HUP);
        daemon.wait_for_log_after(position, "sockexec: reload: there is nothing to reload yet");
        daemon.assert_serves();
    }
    assert_eq!(daemon.terminate().status.code(), Some(0));
}

/// `nohup sockexec S &` used to die of HUP, because the daemon undid what nohup had set.
#[test]
fn nohup_lets_the_daemon_outlive_its_terminal() {
    let mut daemon = Launch::default().quiet().prelude("exec nohup \"$0\" \"$@\"").start();
    daemon.signal(Signal::HUP);
    daemon.assert_serves();
    let stopped = daemon.terminate();
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    assert!(!stopped.stderr.contains("HUP"), "{stopped:?}");
}

/// An ignored signal has no effect. A shell's background job ignores INT and QUIT.
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

/// Our end of a terminal, and a launch for which it is the controlling one. `leader` runs first,
/// and leads the session.
fn at_a_terminal(leader: &str) -> (OwnedFd, Launch) {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let prelude = format!("exec setsid --ctty {leader} \"$0\" \"$@\" <{name}");
    (ours, Launch::default().quiet().options("-t 0 -k 100").prelude(&prelude))
}

/// Its terminal hangs up: programs get TERM, their clients get the last output, and the socket
/// goes. While the terminal is there, HUP is only logged.
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

/// The shell that started the daemon ends, and so does its session. HUP comes a moment before the
/// terminal is taken away, so the daemon looks twice.
#[test]
fn the_end_of_the_session_ends_the_daemon() {
    for _ in 0..20 {
        // With a second command the shell does not exec the first.
        let (terminal, launch) = at_a_terminal("sh -c '\"$0\" \"$@\"; exit'");
        let mut daemon = launch.start();
        daemon.kill();
        eventually("no socket", || !daemon.socket().exists());
        drop(terminal);
    }
}

/// A second HUP, from the kernel besides the shell's, is not a second TERM.
#[test]
fn many_hang_ups_at_once_are_one() {
    let (terminal, launch) = at_a_terminal("");
    let mut daemon = launch.start();
    let gate = daemon.gate("gate");
    let argv = format!("spawn [ wait ] ignore TERM ; out ready reap out asked gate {} exit 3", gate.path());
    let mut client = daemon.exec(&steps(&argv));
    client.wait_for("ready");
    drop(terminal);
    client.wait_for("asked");
    daemon.signal(Signal::HUP);
    // What was queued before is handled before.
    daemon.signal(Signal::USR1);
    daemon.wait_for_log("slots taken");
    gate.open();
    assert_eq!(client.reply().code(), 3);
    assert_eq!(daemon.wait_for_groups().status.code(), Some(0));
}

/// A daemon whose session has no terminal cannot lose one, even if it could open one.
#[test]
fn another_terminal_does_not_matter() {
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

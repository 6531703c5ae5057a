//! The daemon as the first process of a PID namespace, such as a container's. It is two processes:
//! the parent reaps orphans and passes signals on.

use std::fs;
use std::os::fd::OwnedFd;
use std::process::Command;

use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;

use crate::common::{Daemon, Launch, Process, eventually, steps};

/// The launch of a daemon as PID 1 of a namespace with a /proc of its own, which ends with
/// unshare(1). unshare runs under `before`.
fn as_pid_1(before: &str) -> Option<Launch> {
    const UNSHARE: &str = "unshare --pid --fork --kill-child --mount-proc";
    let probe = Command::new("sh").args(["-c", &format!("{UNSHARE} true")]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no PID namespace of one's own here (unshare --pid)");
        return None;
    }
    Some(Launch::default().prelude(&format!("exec {before} {UNSHARE} \"$0\" \"$@\"")))
}

#[track_caller]
pub(crate) fn only_child(process: Process) -> Process {
    let pid = process.0.as_raw_pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("a file of /proc");
    let mut pids = children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().expect("a number")));
    let only = pids.next().flatten().expect("a child");
    assert_eq!(pids.next(), None, "{children}");
    Process(only)
}

/// PID 1 of the daemon's namespace, a child of unshare(1), and the daemon.
fn both(daemon: &Daemon) -> (Process, Process) {
    let init = only_child(daemon.process());
    (init, only_child(init))
}

fn send(process: Process, signal: Signal) {
    rustix::process::kill_process(process.0, signal).expect("it is there");
}

/// Ends the daemon through PID 1, because unshare(1) does not pass signals on.
#[track_caller]
fn end(daemon: &mut Daemon) {
    send(both(daemon).0, Signal::TERM);
    assert_eq!(daemon.wait().status.code(), Some(0));
}

/// All of 50 orphans used to stay as zombies. A dead leader that is kept hid them from a look at
/// all children.
#[test]
fn orphans_are_reaped_beside_a_leader_that_is_kept() {
    let Some(launch) = as_pid_1("") else { return };
    let mut daemon = launch.options("-t 0").start();
    let (init, server) = both(&daemon);
    let mut life = daemon.fifo("life");
    // The leader is dead, and kept because its group may still be signalled.
    let kept = daemon.exec(&steps(&format!("spawn [ hold {} wait ] close 1 close 2 exit 3", life.path())));
    life.holder();
    eventually("a zombie that is kept", || server.children() == (1, 1));
    let script = "for i in $(seq 50); do (sleep 0.01 & :) ; done";
    assert_eq!(daemon.run(&["sh", "-c", script], b"").code(), 0);
    // The daemon, and the holder, whose parent is dead.
    eventually("no orphan that was not reaped", || init.children() == (2, 0));
    eventually("no child but the one that is kept", || server.children() == (1, 1));
    daemon.assert_serves();
    drop(kept);
    life.wait_for_death();
    eventually("nobody but the daemon", || init.children() == (1, 0));
    end(&mut daemon);
}

/// A member of the group that dies as an orphan must not hold the slot until KILL is due.
#[test]
fn a_dead_orphan_holds_no_slot() {
    let Some(launch) = as_pid_1("") else { return };
    let mut daemon = launch.options("-t 0 -k 1000").start();
    let mut life = daemon.fifo("life");
    let client = daemon.exec(&steps(&format!("spawn [ hold {} wait ] exit 0", life.path())));
    life.holder();
    drop(client);
    life.wait_for_death();
    daemon.wait_for_log("connection 1: over");
    end(&mut daemon);
}

/// The kernel drops the signals that PID 1 does not handle. The parent passes them on, once.
#[test]
fn signals_are_passed_on() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let Some(launch) = as_pid_1("") else { return };
        let mut daemon = launch.options("-t 0 -k 1000").start();
        let (init, _) = both(&daemon);
        send(init, Signal::USR1);
        daemon.wait_for_log("slots taken");
        send(init, Signal::HUP);
        daemon.wait_for_log("nothing to reload");
        let gate = daemon.gate("gate");
        let argv = format!("spawn [ wait ] ignore TERM ; out ready reap out asked gate {} exit 3", gate.path());
        let mut client = daemon.exec(&steps(&argv));
        client.wait_for("ready");
        send(init, signal);
        client.wait_for("asked");
        assert!(!daemon.has_ended());
        gate.open();
        assert_eq!(client.reply().code(), 3);
        assert_eq!(daemon.wait().status.code(), Some(0));
        assert!(!daemon.socket().exists());
    }
}

/// A key of a terminal signals its foreground group. If the daemon were in that group too, one INT
/// would arrive twice and mean KILL.
#[test]
fn a_key_is_one_signal() {
    let (ours, name) = terminal();
    let Some(launch) = as_pid_1(&format!("<{name} setsid --ctty")) else { return };
    let mut daemon = launch.options("-t 0 -k 1000").start();
    let gate = daemon.gate("gate");
    let argv = format!("spawn [ wait ] ignore TERM ; out ready reap out asked gate {} exit 3", gate.path());
    let mut client = daemon.exec(&steps(&argv));
    client.wait_for("ready");
    rustix::io::write(&ours, b"\x03").unwrap();
    client.wait_for("asked");
    let position = daemon.log_position();
    send(both(&daemon).0, Signal::USR1);
    daemon.wait_for_log_after(position, "slots taken");
    gate.open();
    assert_eq!(client.reply().code(), 3);
    let log = daemon.log_text();
    assert!(log.contains("shutting down") && !log.contains("shutting down at once"), "{log}");
    assert_eq!(daemon.wait().status.code(), Some(0));
}

/// Our end of a terminal, and the name of the other end.
fn terminal() -> (OwnedFd, String) {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    (ours, name)
}

/// The exit status is the daemon's, or 128 plus the signal that ended it. PID 1 itself reports
/// errors from before the daemon exists.
#[test]
fn the_exit_status_is_the_daemons() {
    let Some(launch) = as_pid_1("") else { return };
    let mut daemon = launch.start();
    send(both(&daemon).1, Signal::KILL);
    assert_eq!(daemon.wait().status.code(), Some(128 + 9));
    for (arguments, code, words) in [
        (["-M", "0600", "/nowhere/sock"], 111, "the directory does not exist"),
        (["-M", "nonsense", "sock"], 100, "octal"),
        (["-M", "0600", "--version"], 0, ""),
    ] {
        let stopped = as_pid_1("").expect("as above").arguments(&arguments).run();
        assert_eq!(stopped.status.code(), Some(code), "{stopped:?}");
        assert!(stopped.stderr.contains(words), "{stopped:?}");
    }
}

/// The /proc of another namespace shows strangers under the same numbers, and they used to get HUP.
/// It counts as absent now, and the daemon ends the group that it knows.
#[test]
fn strangers_in_the_proc_of_another_namespace_get_no_signal() {
    if as_pid_1("").is_none() {
        return;
    }
    let prelude = "exec unshare --pid --fork --kill-child \"$0\" \"$@\"";
    let mut daemon = Launch::default().options("-t 0 -k 0.2").prelude(prelude).start();
    daemon.wait_for_log("/proc does not show this PID namespace");
    let (mut own, mut other) = (daemon.fifo("own"), daemon.fifo("other"));
    let mut stranger = daemon.exec(&steps(&format!("hold {} cat", other.path())));
    other.holder();
    let mut client = daemon.connect();
    client.send(b"10:protocol=2,9:pty=80x24,");
    client.exec(&steps(&format!("ignore HUP TERM ; hold {} out ready wait", own.path())));
    client.wait_for("ready");
    own.holder();
    drop(client);
    own.wait_for_death();
    daemon.wait_for_log("connection 2: over");
    assert!(other.is_held());
    stranger.end_stdin();
    assert_eq!(stranger.reply().code(), 0);
    end(&mut daemon);
}

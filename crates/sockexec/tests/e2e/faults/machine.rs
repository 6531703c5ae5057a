//! The machine says no: limits, places that are missing, a daemon that is stopped. One that is killed: `killed.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::{Client, Daemon, Launch, eventually, fixture, steps};

/// The ways to start a program; all are to behave the same.
const WAYS: [&str; 3] = ["fast", "crowd", "portable"];

// A daemon that is stopped.

/// Stopped and continued amid its work: nobody notices but by the time it takes.
#[test]
fn stopped_and_continued_under_load() {
    let mut daemon = Daemon::start("-t 0");
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let daemon = &daemon;
                scope.spawn(move || {
                    for n in 0..50 {
                        let text = format!("{worker} {n}");
                        let reply = daemon.run(&steps("verify"), &crate::faults::scenario::pattern(70_000));
                        assert_eq!(reply.stdout_text(), "ok 70000\n");
                        assert_eq!(daemon.run(&["printf", "%s", &text], b"").stdout_text(), text);
                    }
                })
            })
            .collect();
        let process = daemon.process();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            daemon.signal(Signal::STOP);
            eventually("a stopped daemon", || process.is_stopped());
            daemon.signal(Signal::CONT);
            thread::sleep(Duration::from_millis(10));
        }
    });
    daemon.assert_serves();
}

/// A deadline that passes while the daemon is stopped is kept as soon as it goes on.
#[test]
fn a_deadline_that_passes_while_the_daemon_is_stopped() {
    let mut daemon = Daemon::start("-t 1 -k 100");
    let mut client = daemon.exec(&steps("out ready wait"));
    client.wait_for("ready");
    daemon.signal(Signal::STOP);
    // Time itself is what must pass.
    thread::sleep(Duration::from_millis(1200));
    daemon.signal(Signal::CONT);
    assert_eq!(client.reply().signal(), 15);
    daemon.assert_serves();
}

// Limits and places.

/// What a user needs who is not the one that runs the tests: copies that can be reached, in a directory that is theirs.
const STRANGER: u32 = 54_321;

/// A launch as a user whom nobody else is; `None`, and a word on that, where that is not permitted.
fn as_stranger(before: &str) -> Option<Launch> {
    let probe = Command::new("setpriv").args(["--reuid=54321", "--regid=54321", "--clear-groups", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) || !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: no other user can be taken on here (setpriv, root)");
        return None;
    }
    let launch = Launch::default().prelude(&format!(
        "cp \"$0\" daemon; chown {STRANGER} .; set -- ./daemon \"$@\"; \
         exec {before} setpriv --reuid={STRANGER} --regid={STRANGER} --clear-groups \"$@\""
    ));
    fs::set_permissions(launch.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    Some(launch.options("-t 0 -M 0666"))
}

/// `RLIMIT_NPROC`: 125 and the reason, and the next is served when there is room again.
#[test]
fn no_more_processes() {
    let Some(launch) = as_stranger("prlimit --nproc=5") else { return };
    let daemon = launch.start();
    let sleepers: Vec<Client> = (0..4).map(|_| daemon.exec(&["sh", "-c", "echo ready; read x"])).collect();
    let mut held = Vec::new();
    for mut client in sleepers {
        client.wait_for("ready");
        held.push(client);
    }
    for _ in 0..20 {
        let reply = daemon.run(&["true"], b"");
        assert_eq!((reply.code(), reply.stderr_text()), (125, "sockexec: true: Resource temporarily unavailable\n"));
    }
    for mut client in held {
        client.stdin(b"\n");
        client.end_stdin();
        assert_eq!(client.reply().code(), 0);
    }
    assert_eq!(daemon.run(&["true"], b"").code(), 0);
}

/// The directory of the socket becomes read-only: the daemon serves, and its end is as good as it can be.
#[test]
fn a_directory_that_becomes_read_only() {
    let Some(launch) = as_stranger("") else { return };
    let mut daemon = launch.start();
    let directory = daemon.directory().to_owned();
    let become_mode = |mode| fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
    std::os::unix::fs::chown(&directory, Some(0), Some(0)).unwrap();
    become_mode(0o555);
    assert_eq!(daemon.run(&["printf", "x"], b"").stdout_text(), "x");
    let stopped = daemon.terminate();
    assert_eq!(stopped.status.code(), Some(0));
    assert!(stopped.stderr.contains("cannot remove"), "{}", stopped.stderr);
    become_mode(0o755);
}

/// A socket on a file system that is read-only, or full, is refused with the reason.
#[test]
fn no_place_for_a_socket() {
    for (options, reason) in [("ro", "Read-only file system"), ("nr_inodes=1", "No space left on device")] {
        let Some(launch) = in_mount_namespace(&format!("mkdir there; mount -t tmpfs -o {options} none there")) else {
            return;
        };
        let stopped = launch.socket("there/sock").run();
        assert_eq!(stopped.status.code(), Some(111), "{stopped:?}");
        assert!(stopped.stderr.contains(reason), "{}", stopped.stderr);
    }
}

/// A launch with mounts of its own; `None`, and a word on that, where they are not permitted.
fn in_mount_namespace(before: &str) -> Option<Launch> {
    let probe = Command::new("unshare").args(["--mount", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no mounts of one's own here (unshare --mount)");
        return None;
    }
    Some(
        Launch::default()
            .prelude(&format!("exec unshare --mount sh -c '{before} || exit 9\nexec \"$0\" \"$@\"' \"$0\" \"$@\"")),
    )
}

/// `/proc` is a help to people, and to nothing else.
#[test]
fn without_proc() {
    for way in WAYS {
        let Some(launch) = in_mount_namespace("mount -t tmpfs none /proc") else { return };
        let mut daemon = launch.env("SOCKEXEC_SPAWN", way).options("-k 0.3").start();
        daemon.assert_serves();
        let mut client = daemon.exec(&["sh", "-c", "ls /proc; echo listed; exec sleep 100"]);
        client.wait_for("6:stdout,7:listed\n,");
        drop(client);
        daemon.assert_serves();
        assert_eq!(daemon.terminate().status.code(), Some(0));
    }
}

/// The address space of a small machine: programs do not share it, and the daemon needs little.
#[test]
fn little_address_space() {
    for way in WAYS {
        let launch = Launch::default().options("-t 0").env("SOCKEXEC_SPAWN", way);
        let mut daemon = launch.prelude("ulimit -v 65536").start();
        for _ in 0..20 {
            daemon.assert_serves();
        }
        let reply = daemon.run(&steps("cat"), &crate::faults::scenario::pattern(5_000_000));
        assert_eq!((reply.stdout.len(), reply.code()), (5_000_000, 0));
    }
}

/// The disk under the log is full: what cannot be said is not said.
#[test]
fn a_log_that_takes_nothing() {
    for target in ["/dev/full", "&-"] {
        let mut daemon = Launch::default().quiet().options("-d").prelude(&format!("exec 2>{target}")).start();
        daemon.assert_serves();
        assert_eq!(daemon.run(&["no-such-program"], b"").code(), 127);
        daemon.signal(Signal::USR1);
        daemon.signal(Signal::USR2);
        daemon.assert_serves();
        assert_eq!(daemon.terminate().status.code(), Some(0));
    }
}

/// An empty PATH finds nothing, a path is none of its business, and `.` is what an empty place in it means (POSIX).
#[test]
fn an_empty_path() {
    for way in WAYS {
        let mut daemon = Launch::default().env("PATH", "").env("SOCKEXEC_SPAWN", way).start();
        assert_eq!(daemon.run(&["true"], b"").code(), 127);
        daemon.assert_serves();
        std::os::unix::fs::symlink(fixture(), daemon.directory().join("here")).unwrap();
        assert_eq!(daemon.run(&["here", "exit", "5"], b"").code(), 5);
    }
}

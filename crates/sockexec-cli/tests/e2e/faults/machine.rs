//! The machine refuses: limits, missing places, a clock that is stepped, a daemon that is stopped.
//! Killed daemons are in `killed.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::common::{Client, Daemon, Launch, eventually, fixture, steps};

/// The ways to start a program. All must behave the same.
const WAYS: [&str; 4] = ["clone3", "crowd", "clone", "fork"];

// A daemon that is stopped.

/// The daemon is stopped and continued while it works. Clients notice only the delay.
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
                        let reply = daemon.run(&steps("verify"), &crate::common::pattern(70_000));
                        assert_eq!(reply.stdout_text(), "ok 70000\n");
                        assert_eq!(daemon.run(&["printf", "%s", &text], b"").stdout_text(), text);
                    }
                })
            })
            .collect();
        let process = daemon.process();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            daemon.stop();
            eventually("a stopped daemon", || process.is_stopped());
            daemon.signal(Signal::CONT);
            thread::sleep(Duration::from_millis(10));
        }
    });
    daemon.assert_serves();
}

/// A deadline that passes while the daemon is stopped takes effect as soon as it continues.
#[test]
fn a_deadline_that_passes_while_the_daemon_is_stopped() {
    // Time enough for a busy machine to start the program and stop the daemon.
    let mut daemon = Daemon::start("-t 5 -k 100");
    let mut client = daemon.exec(&steps("out ready wait"));
    client.wait_for("ready");
    daemon.stop();
    // Time itself must pass here.
    thread::sleep(Duration::from_millis(5200));
    daemon.signal(Signal::CONT);
    assert_eq!(client.reply().signal(), 15);
    daemon.assert_serves();
}

// A clock that is stepped.

const DAY: i64 = 24 * 60 * 60;

/// A time of day for a daemon and its programs. It comes from libfaketime, which replaces functions
/// of the C library, among them the `clock_gettime` that std calls. The machine's clock is
/// unchanged.
struct Clock {
    library: String,
    directory: TempDir,
}

impl Clock {
    /// `None`, with a message, where there is no libfaketime.
    fn new() -> Option<Self> {
        // Only the command knows where its library is.
        let probe = Command::new("faketime").args(["-f", "+0", "printenv", "LD_PRELOAD"]).output();
        let library = match probe {
            Ok(output) if output.status.success() => String::from_utf8(output.stdout).expect("text").trim().to_owned(),
            Ok(output) => return skip(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => return skip(&format!("faketime: {error}")),
        };
        let clock = Self { library, directory: tempfile::tempdir().expect("a directory") };
        clock.set(0);
        Some(clock)
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("clock")
    }

    fn set(&self, seconds: i64) {
        let new = self.directory.path().join("new");
        fs::write(&new, format!("{seconds:+}\n")).expect("a file");
        // The new time takes effect at once: every call reads it.
        fs::rename(new, self.file()).expect("a file");
    }

    /// From now on the time is `seconds` ahead of the machine's, or behind. A program of the daemon
    /// must see that.
    #[track_caller]
    fn step(&self, daemon: &Daemon, seconds: i64) {
        self.set(seconds);
        let without = Command::new(fixture()).arg("clock").output().expect("the fixture runs").stdout;
        let real: i64 = str::from_utf8(&without).expect("text").trim().parse().expect("a number");
        let seen: i64 = daemon.run(&steps("clock"), b"").stdout_text().trim().parse().expect("a number");
        assert!((seen - real - seconds).abs() < DAY / 2, "{seen} where {real} and {seconds} were to be");
    }

    /// Starts a daemon that uses this time of day, and if `monotonic` also this monotonic clock.
    /// `None`, with a message, where the daemon's build does not load the library.
    fn start(&self, options: &str, monotonic: bool) -> Option<Daemon> {
        let mut launch = Launch::default().options(options);
        for name in ["DONT_FAKE_MONOTONIC", "FAKETIME_DONT_FAKE_MONOTONIC"] {
            launch = launch.env(name, if monotonic { "0" } else { "1" });
        }
        launch = launch.env("FAKETIME_TIMESTAMP_FILE", self.file()).env("FAKETIME_NO_CACHE", "1");
        let daemon = launch.env("NO_FAKE_STAT", "1").env("LD_PRELOAD", &self.library).start();
        if daemon.process().has_mapped("libfaketime") {
            Some(daemon)
        } else {
            skip("libfaketime is not taken in (a static daemon?)")
        }
    }
}

fn skip<T>(reason: &str) -> Option<T> {
    eprintln!("SKIPPED: no clock can be stepped here: {}", reason.trim());
    None
}

/// A day ahead and a day back: no deadline comes early, and running programs run on.
#[test]
fn a_clock_that_is_stepped_brings_no_deadline() {
    let Some(clock) = Clock::new() else { return };
    let Some(mut daemon) = clock.start("-t 3600 -k 100 --linger 3600", false) else { return };
    let mut client = daemon.exec(&steps("out ready cat"));
    client.wait_for("ready");
    // An input that has not ended, and a program that lingers: each has a deadline of its own.
    let mut life = daemon.fifo("life");
    let mut lingerer = daemon.exec(&steps(&format!("spawn [ hold {} cat ] out left exit 3", life.path())));
    lingerer.wait_for("left");
    life.holder();
    for (n, days) in [1, 0, -1, 1, -1, 0].into_iter().enumerate() {
        clock.step(&daemon, days * DAY);
        let word = format!("step {n};");
        client.stdin(word.as_bytes());
        client.wait_for(&word);
        daemon.assert_serves();
        assert!(life.is_held());
    }
    client.end_stdin();
    assert_eq!(client.reply().code(), 0);
    lingerer.end_stdin();
    assert_eq!(lingerer.reply().code(), 3);
    assert_eq!(daemon.terminate().status.code(), Some(0));
}

/// A day back, before TERM and before KILL: both come in time, not a day late.
#[test]
fn a_clock_that_is_stepped_puts_no_deadline_off() {
    let Some(clock) = Clock::new() else { return };
    // What comes before each of the two must be done in that time, on a busy machine too.
    let Some(mut daemon) = clock.start("-t 6 -k 3", false) else { return };
    let mut client = daemon.exec(&steps("ignore TERM ; out ready wait"));
    client.wait_for("ready");
    clock.step(&daemon, -DAY);
    daemon.wait_for_log("TERM to the group");
    clock.step(&daemon, -2 * DAY);
    assert_eq!(client.reply().signal(), 9);
    daemon.assert_serves();
}

/// The two tests above do test something: if the daemon's monotonic clock is stepped too, its
/// deadlines come.
#[test]
fn a_monotonic_clock_that_is_stepped_brings_deadlines() {
    let Some(clock) = Clock::new() else { return };
    let Some(daemon) = clock.start("-t 3600 -k 100", true) else { return };
    let mut client = daemon.exec(&steps("out ready cat"));
    client.wait_for("ready");
    // The program that reads the clock also wakes the daemon.
    clock.step(&daemon, DAY);
    assert_eq!(client.reply().signal(), 15);
}

// Limits and places.

/// A user that nobody else is, not even a test beside this one, in this process or in another: all
/// processes of a user count for its limit.
fn stranger() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    20_000 + std::process::id() % 10_000 * 4 + COUNT.fetch_add(1, Ordering::Relaxed) % 4
}

/// A launch as that user, with a copy of the daemon in a directory that the user can reach. `None`,
/// with a message, where that is not permitted.
fn as_stranger(uid: u32, before: &str) -> Option<Launch> {
    let user = format!("setpriv --reuid={uid} --regid={uid} --clear-groups");
    let probe = Command::new("sh").args(["-c", &format!("{user} true")]).output();
    if !probe.is_ok_and(|output| output.status.success()) || !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: no other user can be taken on here (setpriv, root)");
        return None;
    }
    let launch = Launch::default()
        .prelude(&format!("cp \"$0\" daemon; chown {uid} .; set -- ./daemon \"$@\"; exec {before} {user} \"$@\""));
    fs::set_permissions(launch.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    Some(launch.options("-t 0 -M 0666"))
}

/// `RLIMIT_NPROC`: the reply is 125 and a reason that names the limit and its user. When there is
/// room again, the next program starts.
#[test]
fn no_more_processes() {
    let uid = stranger();
    let Some(launch) = as_stranger(uid, "prlimit --nproc=5") else { return };
    // With `-d` the log's thread is one of the five.
    let daemon = launch.quiet().start();
    let sleepers: Vec<Client> = (0..4).map(|_| daemon.exec(&["sh", "-c", "echo ready; read x"])).collect();
    let mut held = Vec::new();
    for mut client in sleepers {
        client.wait_for("ready");
        held.push(client);
    }
    for _ in 0..20 {
        let reply = daemon.run(&["true"], b"");
        let words = format!(
            "sockexec: true: Resource temporarily unavailable: the daemon's user (uid {uid}) is limited to 5 \
             processes (ulimit -u), or the daemon's control group is full (pids.max)\n"
        );
        assert_eq!((reply.code(), reply.stderr_text()), (125, words.as_str()));
    }
    for mut client in held {
        client.stdin(b"\n");
        client.end_stdin();
        assert_eq!(client.reply().code(), 0);
    }
    assert_eq!(daemon.run(&["true"], b"").code(), 0);
}

/// The directory of the socket becomes read-only. The daemon goes on serving, and ends as well as
/// it can.
#[test]
fn a_directory_that_becomes_read_only() {
    let Some(launch) = as_stranger(stranger(), "") else { return };
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

/// A socket on a read-only or full file system is refused with the reason.
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

/// A launch with mounts of its own. `None`, with a message, where that is not permitted.
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

/// Only people need `/proc`.
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
        let reply = daemon.run(&steps("cat"), &crate::common::pattern(5_000_000));
        assert_eq!((reply.stdout.len(), reply.code()), (5_000_000, 0));
    }
}

/// The disk under the log is full: those lines are lost.
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

/// The disk becomes full in the middle of a line. Once there is room, the log goes on.
#[test]
fn a_log_on_a_disk_that_becomes_full() {
    const SIZE: u64 = 8 << 10;
    let mount = format!("mkdir there && mount -t tmpfs -o size={SIZE} none there && exec 2>>there/log");
    let Some(launch) = in_mount_namespace(&mount) else { return };
    let mut daemon = launch.quiet().options("-d").start();
    // In the daemon's mounts, not in ours.
    let log = format!("/proc/{}/root{}/there/log", daemon.process().0.as_raw_pid(), daemon.directory().display());
    let text = || fs::read_to_string(&log).expect("the log");
    for _ in 0..100 {
        assert_eq!(daemon.run(&["no-such-program"], b"").code(), 127);
        daemon.assert_serves();
    }
    eventually("a full disk", || text().len() as u64 == SIZE);
    fs::write(&log, "").expect("the log");
    assert_eq!(daemon.run(&["no-such-program"], b"").code(), 127);
    eventually("a line in the log", || text().contains("cannot start \"no-such-program\": "));
    // It comes after the end of the line that was cut.
    assert!(text().lines().all(|line| line.is_empty() || line.starts_with("sockexec: ")), "{}", text());
    assert_eq!(daemon.terminate().status.code(), Some(0));
}

/// An empty PATH finds nothing and does not affect a path. An empty element is the working
/// directory (POSIX).
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

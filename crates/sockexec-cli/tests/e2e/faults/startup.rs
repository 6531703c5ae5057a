//! A call fails while the daemon starts. The daemon must serve all the same, or end at once with a
//! failure and a reason. It must leave no socket on which nobody listens.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::scenario::{Outcome, Scenario, within};
use super::strace::{self, Fault};
use super::{Effort, Row, Table};
use crate::common::{Daemon, Launch, eventually, pairs, request};

/// What each call of the start can fail with. `mmap` and `rt_sigaction` are missing: before `main`
/// they belong to the dynamic linker and the runtime, which end the process.
const ERRORS: &[(&str, &[&str])] = &[
    ("bind", &["EACCES", "EADDRINUSE", "ENOSPC", "EROFS", "ENOMEM"]),
    ("close_range", &["ENOSYS", "EINVAL"]),
    ("epoll_create1", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("epoll_ctl", &["ENOSPC", "ENOMEM"]),
    ("eventfd2", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("fchmod", &["EINVAL", "EPERM"]),
    ("fcntl", &["EINVAL", "EMFILE"]),
    ("flock", &["EAGAIN", "ENOLCK", "EINTR"]),
    ("inotify_add_watch", &["ENOENT", "ENOSPC", "EACCES"]),
    ("inotify_init1", &["EMFILE", "ENFILE", "ENOMEM", "ENOSYS"]),
    ("listen", &["EADDRINUSE", "EOPNOTSUPP"]),
    ("openat", &["EMFILE", "ENFILE", "EACCES", "ENOMEM"]),
    ("pipe2", &["EMFILE", "ENFILE"]),
    ("poll", &["ENOMEM", "EINTR"]),
    ("prlimit64", &["EPERM"]),
    ("rt_sigprocmask", &["EINVAL"]),
    ("sigaltstack", &["ENOMEM"]),
    ("socket", &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EACCES"]),
    ("socketpair", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("statx", &["EACCES", "ENOMEM"]),
    ("timerfd_create", &["EMFILE", "ENFILE", "ENOMEM"]),
    // Calls of its end, which is part of the test.
    ("unlink", &["EACCES", "EROFS", "EIO"]),
];

const STARTUP: Scenario = Scenario {
    name: "startup",
    story: "the daemon's start, from its first instruction on",
    options: "",
    calls: &[],
    never: &[],
    play: |_, _| Outcome::Served,
};

#[test]
fn startup() {
    if !strace::is_usable() {
        return;
    }
    let effort = Effort::asked_for();
    let counts = discover();
    let mut table = Table::default();
    for &(call, errors) in ERRORS {
        let count = counts.get(call).copied().unwrap_or(0);
        for error in errors {
            for n in 1..=count.min(effort.occurrences.max(3)) {
                let fault = Fault { call, error, when: n.to_string() };
                let outcome = case(&fault);
                table.add(fault, outcome);
            }
        }
    }
    table.write(&STARTUP);
    table.assert_right();
    assert!(table.rows.iter().any(|Row { outcomes, .. }| outcomes.keys().any(|it| matches!(it, Outcome::Told(_)))));
}

/// Runs it under an strace that is not its parent, so that the daemon is the test's own child.
fn traced(arguments: &str) -> (Launch, std::path::PathBuf) {
    let launch = Launch::default().quiet();
    let log = launch.directory().join("strace");
    let prelude = format!("exec strace -D -s 0 -o {} {arguments} \"$0\" \"$@\"", log.display());
    (launch.prelude(&prelude), log)
}

/// The daemon finds out at its start what the kernel lacks, and reports it in the log, once, and in
/// the status.
#[test]
fn what_the_kernel_lacks() {
    if !strace::is_usable() {
        return;
    }
    let told = |arguments: &str| {
        let (launch, _) = traced(arguments);
        let mut daemon = launch.start();
        daemon.assert_serves();
        let mut client = daemon.connect();
        client.send(b"10:protocol=2,6:status,");
        let pairs = pairs(&client.rest());
        let (_, status) = pairs.last().expect("a status");
        let status: serde_json::Value = serde_json::from_slice(status).expect("JSON");
        (status["lacks"].clone(), daemon.terminate().stderr)
    };
    let (here, _) = told("-e trace=none");
    for (call, error, name) in [
        ("close_range", "ENOSYS", "close_range"),
        ("close_range", "EPERM", "close_range"),
        ("pidfd_open", "ENOSYS", "pidfd"),
        ("pidfd_send_signal", "EINVAL", "pidfd-group"),
        ("pidfd_send_signal", "EPERM", "pidfd-group"),
        ("setsockopt", "ENOPROTOOPT", "passrights"),
        ("readlink", "ENOENT", "proc"),
    ] {
        let (lacks, log) = told(&format!("-e trace={call} -e inject={call}:error={error}:when=1+"));
        let lacks = lacks.as_array().expect("a list");
        assert!(lacks.iter().any(|lack| lack == name), "{call} {error}: {lacks:?}");
        // More may be missing as a consequence, but nothing comes back.
        assert!(
            here.as_array().expect("a list").iter().all(|lack| lacks.contains(lack) || name == "pidfd"),
            "{lacks:?}"
        );
        assert_eq!(log.matches("the kernel lacks, or a filter refuses").count(), 1, "{log}");
    }
}

fn discover() -> BTreeMap<String, usize> {
    let (launch, log) = traced("");
    let mut daemon = launch.start();
    daemon.terminate();
    // strace is no child of this process, and may write its last lines after the daemon's end.
    let text = || fs::read_to_string(&log).expect("the log of strace");
    eventually("the end of the log", || text().contains("+++ exited with"));
    let mut counts = BTreeMap::new();
    for line in text().lines() {
        if let Some(call) = strace::call(line) {
            *counts.entry(call.to_owned()).or_insert(0) += 1;
        }
    }
    counts
}

fn case(fault: &Fault<'_>) -> Outcome {
    let (launch, _) = traced(&format!("-e trace={} {}", fault.call, fault.arguments().join(" ")));
    let mut daemon = launch.spawn();
    if within(Duration::from_secs(30), || daemon.has_ended() || serves(daemon.socket())) && !daemon.has_ended() {
        daemon.assert_serves();
        let stopped = daemon.terminate();
        return match stopped.status.code() {
            Some(0) if !daemon.socket().exists() => Outcome::Served,
            Some(0) if stopped.stderr.contains("cannot remove") => {
                Outcome::Told("served; at its end the socket is left, with a warning".into())
            }
            _ => Outcome::Wrong(format!("{stopped:?} after TERM, socket left: {}", daemon.socket().exists())),
        };
    }
    ended(&mut daemon)
}

fn ended(daemon: &mut Daemon) -> Outcome {
    let socket = daemon.socket().to_owned();
    let stopped = daemon.wait();
    let line = stopped.stderr.lines().last().unwrap_or_default().to_owned();
    // The path of the socket differs from run to run.
    let line = line.replace(&format!("{}", socket.display()), "SOCKET");
    match stopped.status.code() {
        _ if line.starts_with("strace: ") => Outcome::Wrong(line),
        _ if socket.exists() => Outcome::Wrong(format!("the socket is left: {stopped:?}")),
        Some(code) if code != 0 && !line.is_empty() => Outcome::Told(format!("exit {code}, \"{line}\"")),
        _ => Outcome::Wrong(format!("{stopped:?}")),
    }
}

/// Whether the daemon answers. A connection alone is no proof: the backlog of a daemon that is
/// about to end takes one too.
fn serves(socket: &Path) -> bool {
    let mut answer = Vec::new();
    let Ok(mut socket) = UnixStream::connect(socket) else { return false };
    let _ = socket.write_all(&request(&["true"]));
    let _ = socket.read_to_end(&mut answer);
    answer == b"8:exitcode,1:0,"
}

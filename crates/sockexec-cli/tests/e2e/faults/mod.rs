//! The kernel fails. While a connection goes through a short life, each system call of the daemon
//! fails with each error that it can have, at each of its occurrences. Afterwards the daemon must
//! still serve. The client must have the right answer, an error that says what went wrong, or the
//! end of the connection. No descriptor, child or slot may be lost.
//!
//! [`ERRORS`] is the table to extend: a call of the daemon that is not in it fails the tests. A
//! normal run covers the first occurrences of the calls that a scenario is made for.
//! `SOCKEXEC_FAULTS=all` covers all occurrences of all calls, and some of a call made more than
//! [`EVERY`] times. `SOCKEXEC_FAULTS=N` covers the first N. Each scenario writes a table, and its
//! row of a summary, to `target/tmp/faults/`. `just faults all` puts them together.
//!
//! strace suppresses a call that it makes fail. That matters for close(2), which on Linux closes
//! the descriptor whatever it returns. Here the descriptor stays open, and a peer that waits for
//! its end waits for the deadline.

mod crowd;
mod machine;
pub(crate) mod scenario;
#[cfg(target_os = "linux")]
mod short;
mod startup;
pub(crate) mod strace;
mod version_2;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fs, thread};

use crate::common::{Client, Daemon, Launch, steps};
use scenario::{ALL, ECHO, FLOW, HOLDER, LATE, OPTIONS, Outcome, PIECES, SPOOL, Scenario, VANISH, footprint, within};
use strace::{Fault, Strace, Whom};

/// What each call can fail with: the errors of its manual page that a daemon can meet, and EPERM or
/// ENOSYS where known filters (seccomp) refuse the call.
const ERRORS: &[(&str, &[&str])] = &[
    ("accept4", &["ECONNABORTED", "EINTR", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EPERM", "EPROTO"]),
    // It reports a failure by the old end of the heap, not by an error (brk(2), notes).
    ("brk", &["retval=0"]),
    ("chdir", &["ENOMEM", "EIO"]),
    ("clone", &["EAGAIN", "ENOMEM"]),
    ("clone3", &["EAGAIN", "ENOMEM", "ENOSYS", "EPERM", "EINVAL"]),
    ("close", &["EINTR", "EIO"]),
    ("close_range", &["ENOSYS", "EINVAL"]),
    ("dup2", &["EMFILE", "EBUSY", "EINTR"]),
    ("dup3", &["EMFILE", "EBUSY", "EINTR"]),
    ("epoll_ctl", &["ENOSPC", "ENOMEM"]),
    ("epoll_wait", &["EINTR"]),
    ("execve", &["ENOMEM", "E2BIG", "EIO", "EMFILE", "ENFILE", "EAGAIN", "EACCES"]),
    ("fallocate", &["ENOSPC", "EOPNOTSUPP", "EINTR"]),
    ("fcntl", &["EPERM", "EINVAL"]),
    ("fork", &["EAGAIN", "ENOMEM"]),
    ("fstat", &["ENOMEM"]),
    ("ftruncate", &["ENOSPC", "EIO", "EINTR"]),
    ("futex", &["EINTR"]),
    ("getdents64", &["ENOENT", "EINVAL"]),
    ("getpeername", &["ENOTCONN", "ENOBUFS"]),
    ("getppid", &[]),
    ("getsid", &["ESRCH", "EPERM"]),
    ("getsockopt", &["ENOBUFS", "EPERM"]),
    ("ioctl", &["EINVAL", "ENOTTY"]),
    ("kill", &["EPERM", "ESRCH"]),
    ("lseek", &["EINVAL"]),
    ("mmap", &["ENOMEM"]),
    ("mprotect", &["ENOMEM"]),
    ("mremap", &["ENOMEM"]),
    ("munmap", &["ENOMEM"]),
    ("newfstatat", &["ENOMEM"]),
    ("open", &["EMFILE", "ENFILE", "ENOSPC", "EROFS", "EACCES", "ENOMEM"]),
    ("openat", &["EMFILE", "ENFILE", "ENOSPC", "EROFS", "EACCES", "ENOMEM"]),
    ("pidfd_open", &["EMFILE", "ENFILE", "ENOSYS", "EPERM", "ENOMEM"]),
    ("pidfd_send_signal", &["EPERM", "ESRCH", "EINVAL", "ENOSYS"]),
    ("pipe2", &["EMFILE", "ENFILE"]),
    ("poll", &["EINTR", "ENOMEM"]),
    ("ppoll", &["EINTR", "ENOMEM"]),
    ("prlimit64", &[]),
    ("prctl", &["EPERM", "ENOSYS"]),
    ("pread64", &["EIO", "EINTR"]),
    ("pwrite64", &["ENOSPC", "EDQUOT", "EIO", "EFBIG", "EINTR"]),
    ("read", &["EINTR", "EIO", "ENOMEM"]),
    ("recvfrom", &["EINTR", "ECONNRESET", "ENOMEM"]),
    ("recvmsg", &["EINTR", "ECONNRESET", "ENOMEM"]),
    ("rt_sigaction", &["EINVAL"]),
    ("rt_sigprocmask", &["EINVAL"]),
    ("sendmsg", &["EINTR", "EPIPE", "ENOBUFS", "ENOMEM"]),
    ("sendto", &["EINTR", "EPIPE", "ECONNRESET", "ENOBUFS", "ENOMEM"]),
    ("setpgid", &["EPERM", "EACCES", "ESRCH"]),
    ("setsid", &["EPERM"]),
    ("setsockopt", &["EINVAL", "ENOMEM", "ENOPROTOOPT"]),
    ("shutdown", &["ENOTCONN"]),
    ("socketpair", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("splice", &["EAGAIN", "EINVAL", "ENOMEM", "EINTR", "EIO", "EPIPE"]),
    ("statfs", &["EACCES", "EIO", "ENOSYS"]),
    ("statx", &["EACCES", "ENOMEM"]),
    ("tee", &["EINVAL", "ENOMEM", "EINTR"]),
    ("timerfd_create", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("timerfd_settime", &["EINVAL"]),
    ("unlink", &["EROFS", "EACCES", "EIO"]),
    ("unlinkat", &["EROFS", "EACCES", "EIO"]),
    ("vfork", &["EAGAIN", "ENOMEM"]),
    ("wait4", &["EINTR", "ECHILD"]),
    ("waitid", &["EINTR", "ECHILD"]),
    // Not EPIPE, which would be wrong for a program that still reads.
    ("write", &["EINTR", "EIO", "ENOMEM", "ENOSPC"]),
    // Calls that never fail, or only in ways that a program cannot cause. Listed so that they are
    // known.
    ("clock_gettime", &[]),
    ("exit", &[]),
    ("exit_group", &[]),
    ("getpid", &[]),
    ("getrandom", &[]),
    ("gettid", &[]),
    ("madvise", &[]),
    ("restart_syscall", &[]),
    ("rt_sigreturn", &[]),
];

/// How often a call fails in a row, in cases of that kind. It ends, because strace that detaches
/// from a process in a call that it makes fail leaves an ENOSYS that no kernel would give.
const IN_A_ROW: usize = 5;

/// A call made more often than this in one life fails only at its first, its last and some other
/// occurrences. 3000 small writes make each call as often, and a search for the members of a
/// session opens a file for each process of the machine.
const EVERY: usize = 200;

/// The cases of a run: occurrences of a call, and calls.
#[derive(Clone, Copy)]
struct Effort {
    occurrences: usize,
    all_calls: bool,
}

impl Effort {
    fn asked_for() -> Self {
        match env::var("SOCKEXEC_FAULTS").as_deref() {
            Err(_) => Self { occurrences: 2, all_calls: false },
            Ok("all") => Self { occurrences: usize::MAX, all_calls: true },
            Ok(number) => {
                Self { occurrences: number.parse().expect("SOCKEXEC_FAULTS: `all` or a number"), all_calls: true }
            }
        }
    }
}

#[test]
fn echo() {
    run(&ECHO, None, Whom::Daemon);
}

#[test]
fn spool() {
    run(&SPOOL, None, Whom::Daemon);
}

#[test]
fn flow() {
    run(&FLOW, None, Whom::Daemon);
}

#[test]
fn pieces() {
    run(&PIECES, None, Whom::Daemon);
}

#[test]
fn late() {
    run(&LATE, None, Whom::Daemon);
}

#[test]
fn vanish() {
    run(&VANISH, None, Whom::Daemon);
}

#[test]
fn holder() {
    run(&HOLDER, None, Whom::Daemon);
}

/// The other calls that make a child.
#[test]
fn clone() {
    const CLONE: Scenario = Scenario {
        name: "clone",
        story: "as `echo`, with SOCKEXEC_SPAWN=clone",
        calls: &["clone", "rt_sigprocmask", "mmap", "mprotect"],
        ..ECHO
    };
    run(&CLONE, Some("clone"), Whom::Daemon);
}

#[test]
fn fork() {
    const FORK: Scenario = Scenario {
        name: "fork",
        story: "as `echo`, with SOCKEXEC_SPAWN=fork",
        calls: &["clone", "rt_sigprocmask", "pipe2", "read", "waitid"],
        ..ECHO
    };
    run(&FORK, Some("fork"), Whom::Daemon);
}

/// A call fails in the child, between clone and exec.
#[test]
fn child() {
    run(&CHILD, None, Whom::Children);
}

/// The same in a child that was forked, which shares no memory to report it in.
#[test]
fn fork_child() {
    run(&Scenario { name: "fork-child", ..CHILD }, Some("fork"), Whom::Children);
}

const CHILD: Scenario = Scenario {
    name: "child",
    story: "as `echo`, the failing call is made by the child between clone and exec",
    options: "",
    calls: &["setpgid", "rt_sigprocmask", "dup3", "close_range", "prctl", "execve"],
    never: &[],
    play: ECHO.play,
};

/// Asserts that every call of a scenario has a row. If you add a call, add what it can fail with.
fn assert_known(calls: &BTreeMap<String, usize>) {
    let unknown: Vec<_> = calls.keys().filter(|call| !ERRORS.iter().any(|(name, _)| name == call)).collect();
    assert!(unknown.is_empty(), "not in the table of calls and their errors: {unknown:?}");
}

fn run(scenario: &Scenario, spawn: Option<&str>, whom: Whom) {
    if !strace::is_usable() {
        return;
    }
    scenario::prepare();
    let effort = Effort::asked_for();
    let counts = discover(scenario, spawn, whom);
    let mut table = Table::default();
    for &(call, errors) in ERRORS {
        let Some(&count) = counts.get(call) else { continue };
        let is_ours = scenario.calls.contains(&call);
        // Tracing children sees too much, because their programs are not ours.
        if scenario.never.contains(&call) || !is_ours && (whom == Whom::Children || !effort.all_calls) {
            continue;
        }
        for error in errors {
            let occurrences = effort.occurrences.max(match call {
                // The first epoll_ctl is the client's. The first calls of fcntl are assertions of
                // std in debug builds. splice builds at least one frame before it sends one.
                "write" | "splice" | "epoll_ctl" | "fcntl" => 6,
                // First come its own descriptors, then those of others.
                "dup3" => 8,
                // The third opens the program's end of a terminal. There is another way to open it.
                "ioctl" => 3,
                _ => 0,
            });
            let single = to_try(count).take_while(|&n| n <= occurrences).map(|n| n.to_string());
            for when in single.chain([format!("1..{IN_A_ROW}")]) {
                let fault = Fault { call, error, when };
                if let Some(outcome) = case(scenario, spawn, whom, &fault) {
                    table.add(fault, outcome);
                }
            }
        }
    }
    table.write(scenario);
    table.assert_right();
}

/// The occurrences to try of a call that is made `count` times, unless only the first are tried.
fn to_try(count: usize) -> impl Iterator<Item = usize> {
    const FIRST: usize = 40;
    const BETWEEN: usize = 20;
    const LAST: usize = 10;
    (1..=count).filter(move |n| count <= EVERY || *n <= FIRST || *n > count - LAST || n % (count / BETWEEN) == 0)
}

#[test]
fn of_many_occurrences_some_are_tried() {
    assert_eq!(to_try(3).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(to_try(EVERY).count(), EVERY);
    let some: Vec<_> = to_try(3000).collect();
    assert_eq!(some.len(), 40 + 20 + 9);
    assert_eq!((some[39], some[40], some[41], some[58], some[68]), (40, 150, 300, 2850, 3000));
}

fn launch(scenario: &Scenario, spawn: Option<&str>) -> Daemon {
    // Set for all of them, because the two ways make different calls and have scenarios of their
    // own.
    let way = spawn.unwrap_or("fast");
    Launch::default().options(OPTIONS).options(scenario.options).env("SOCKEXEC_SPAWN", way).start()
}

fn discover(scenario: &Scenario, spawn: Option<&str>, whom: Whom) -> BTreeMap<String, usize> {
    let daemon = launch(scenario, spawn);
    let strace = Strace::count(daemon.process(), whom);
    let outcome = (scenario.play)(&daemon, daemon.directory());
    let (calls, _) = strace.detach();
    assert!(!matches!(outcome, Outcome::Wrong(_)), "{}: {outcome}, and nothing had failed", scenario.name);
    if whom == Whom::Daemon {
        assert_known(&calls);
    }
    calls
}

/// Plays the scenario with one fault. `None` if the call was not made that often.
fn case(scenario: &Scenario, spawn: Option<&str>, whom: Whom, fault: &Fault<'_>) -> Option<Outcome> {
    let mut daemon = launch(scenario, spawn);
    let before = footprint(daemon.process());
    let strace = Strace::inject(daemon.process(), whom, fault);
    let over = AtomicBool::new(false);
    let (outcome, injected) = thread::scope(|scope| {
        let player = scope.spawn(|| {
            let outcome = (scenario.play)(&daemon, daemon.directory());
            over.store(true, Ordering::Release);
            outcome
        });
        within(Duration::from_secs(60), || over.load(Ordering::Acquire));
        // The daemon still closes the connection. If strace left it in a call that is made to fail,
        // it would get ENOSYS, and that failure would not be counted.
        let mut asleep = 0;
        within(Duration::from_secs(5), || {
            asleep = if daemon.process().is_asleep() { asleep + 1 } else { 0 };
            asleep > 5
        });
        let (_, injected) = strace.detach();
        (player.join().unwrap_or_else(|_| Outcome::Wrong("the test itself failed".into())), injected)
    });
    if injected == 0 {
        return None;
    }
    // What a suppressed close(2) leaves, and a waitid(2) that denies a child that exists.
    let left = match (fault.call, fault.error) {
        ("close", _) => (before.0 + injected, before.1),
        ("waitid", "ECHILD") => (before.0, before.1 + 1),
        _ => before,
    };
    match aftermath(&mut daemon, before, left) {
        // The program is responsible only for what came of its exec.
        Ok(()) => match &outcome {
            Outcome::Told(what)
                if fault.call != "execve"
                    && !["125", "spawn-failed", "internal", "timeout"].iter().any(|ours| what.starts_with(ours)) =>
            {
                Some(Outcome::Wrong(format!("not the daemon's own fault: {outcome}")))
            }
            _ => Some(outcome),
        },
        Err(fault) => Some(Outcome::Wrong(format!("{fault}; client: {outcome}"))),
    }
}

/// What must hold afterwards, whatever failed.
fn aftermath(daemon: &mut Daemon, before: (usize, usize), at_most: (usize, usize)) -> Result<(), String> {
    if daemon.has_ended() {
        return Err(format!("the daemon ended: {}", daemon.log_text()));
    }
    let serves = catch_unwind(AssertUnwindSafe(|| {
        daemon.assert_serves();
        // As many at once as `-m` allows.
        let mut clients: Vec<Client> = (0..3).map(|_| daemon.exec(&steps("out ready cat"))).collect();
        for client in &mut clients {
            client.wait_for("ready");
        }
        for mut client in clients {
            client.end_stdin();
            assert_eq!(client.reply().code(), 0);
        }
    }));
    if serves.is_err() {
        return Err("an honest client is not served afterwards".into());
    }
    let process = daemon.process();
    let mut now = footprint(process);
    // What is left of a connection goes at its deadline (`OPTIONS`), 4.6 seconds later at most.
    let settled = within(Duration::from_secs(30), || {
        now = footprint(process);
        now.0 <= at_most.0 && now.1 <= at_most.1
    });
    if settled { Ok(()) } else { Err(format!("descriptors and children: {before:?} before, {now:?} after")) }
}

/// What happened: for each call and error the outcomes, and at which occurrences.
#[derive(Default)]
struct Table {
    rows: Vec<Row>,
}

struct Row {
    call: String,
    error: String,
    outcomes: BTreeMap<Outcome, Vec<String>>,
}

impl Table {
    fn add(&mut self, fault: Fault<'_>, outcome: Outcome) {
        if self.rows.last().is_none_or(|last| last.call != fault.call || last.error != fault.error) {
            let (call, error) = (fault.call.to_owned(), fault.error.to_owned());
            self.rows.push(Row { call, error, outcomes: BTreeMap::new() });
        }
        if let Some(row) = self.rows.last_mut() {
            row.outcomes.entry(outcome).or_default().push(fault.when);
        }
    }

    /// Writes the scenario's table, and its row of the summary.
    fn write(&self, scenario: &Scenario) {
        let mut text = format!(
            "\n**{}**: {}\n\n| call | error | at | what happened |\n| --- | --- | --- | --- |\n",
            scenario.name, scenario.story
        );
        for Row { call, error, outcomes } in &self.rows {
            for (outcome, when) in outcomes {
                let _ = writeln!(text, "| {call} | {error} | {} | {outcome} |", occurrences(when));
            }
        }
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join(format!("{}.md", scenario.name)), &text).expect("a file");
        fs::write(directory.join(format!("{}.row", scenario.name)), self.row(scenario.name)).expect("a file");
        println!("{text}");
    }

    /// The number of cases, and how many had each of the outcomes that the summary counts.
    fn row(&self, name: &str) -> String {
        let mut counts = [0; 6];
        for (outcome, when) in self.rows.iter().flat_map(|row| &row.outcomes) {
            let column = match outcome {
                Outcome::Served => 0,
                Outcome::Told(_) => 1,
                Outcome::Ended(_) => 2,
                Outcome::Closed => 3,
                Outcome::Gone => 4,
                Outcome::LivesOn => 5,
                Outcome::Wrong(_) => continue,
            };
            counts[column] += when.len();
        }
        let cases: usize = counts.iter().sum();
        let mut row = format!("| `{name}` | {cases} |");
        for count in counts {
            let _ = write!(row, " {count} |");
        }
        row + "\n"
    }

    fn assert_right(&self) {
        assert!(!self.rows.is_empty(), "nothing was made to fail");
        let wrong = self.rows.iter().flat_map(|Row { call, error, outcomes }| {
            let wrong = outcomes.iter().filter(|(outcome, _)| matches!(outcome, Outcome::Wrong(_)));
            wrong.map(move |(outcome, when)| format!("{call} {error} at {}: {outcome}", occurrences(when)))
        });
        let wrong: Vec<_> = wrong.collect();
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }
}

/// `1, 2, 3, 5, 1..5` becomes `1-3, 5, 5 in a row`.
fn occurrences(when: &[String]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for n in when.iter().filter_map(|when| when.parse().ok()) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => ranges.push((n, n)),
        }
    }
    let mut texts: Vec<String> =
        ranges.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    if when.iter().any(|when| when.contains("..")) {
        texts.push(format!("{IN_A_ROW} in a row"));
    }
    texts.join(", ")
}

#[test]
fn occurrences_are_ranges() {
    let when = ["1", "2", "3", "5", "1..5"].map(str::to_owned);
    assert_eq!(occurrences(&when), "1-3, 5, 5 in a row");
    assert_eq!(occurrences(&when[4..]), "5 in a row");
}

#[test]
fn scenarios_name_calls_of_the_table() {
    for scenario in ALL.iter().chain(&version_2::ALL).chain([&CHILD, &crowd::CROWD]) {
        for call in scenario.calls {
            assert!(ERRORS.iter().any(|(name, _)| name == call), "{}: {call}", scenario.name);
        }
    }
}

//! The daemon starts programs without waiting for any of them, whichever call makes their
//! processes.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::common::{Client, Daemon, Launch, eventually, is_refused, pairs, steps};
use crate::faults::strace::{self, Fault, Strace, Whom};

/// The calls, and the way beside many connections.
const WAYS: [&str; 5] = ["clone3", "clone", "fork", "crowd", "clone,crowd"];

/// A program whose exec takes as long as its owner likes. Another process holds a lease on its file
/// (fcntl(2), `F_SETLEASE`), and the kernel waits until the lease is given up, for at most 45
/// seconds (`/proc/sys/fs/lease-break-time`).
struct Leased {
    path: PathBuf,
    holder: Child,
    /// Closing it gives up the lease.
    _stdin: ChildStdin,
}

impl Leased {
    /// `None` if there is no python3, or the file system has no leases.
    fn new(daemon: &Daemon) -> Option<Self> {
        const HOLD: &str = "import fcntl, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open(sys.argv[1])
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
sys.stdin.read()";
        let path = daemon.directory().join("leased");
        // Not by this process, whose descriptors live on in children of other tests until their exec:
        // a file that anybody else has open gets no lease.
        let copied = Command::new("cp").arg("/bin/true").arg(&path).status();
        assert!(copied.is_ok_and(|status| status.success()), "no copy of /bin/true");
        let mut command = Command::new("python3");
        command.args(["-c", HOLD]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut holder) = command.spawn() else {
            println!("SKIPPED: no python3 to hold a lease with");
            return None;
        };
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        if line.is_empty() {
            println!("SKIPPED: no lease can be held here");
            holder.wait().expect("wait");
            return None;
        }
        let stdin = holder.stdin.take().expect("a pipe");
        Some(Self { path, holder, _stdin: stdin })
    }

    fn argv(&self) -> [&str; 1] {
        [self.path.to_str().expect("text")]
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn start(way: &str, options: &str) -> Daemon {
    Launch::default().options(options).env("SOCKEXEC_SPAWN", way).start()
}

fn has_said_nothing(client: &Client) -> bool {
    rustix::io::ioctl_fionread(client.socket()) == Ok(0)
}

/// With 16 slow execs everybody used to wait with the 17th, 8 and 20 seconds in some runs.
#[test]
fn slow_execs_stop_nobody() {
    if is_refused("close_range") {
        eprintln!(
            "SKIPPED: without close_range a slow exec keeps the ends of others' pipes, as the daemon says in its log"
        );
        return;
    }
    for way in WAYS {
        let mut daemon = start(way, "-m 60 -t 0");
        let Some(leased) = Leased::new(&daemon) else { return };
        let mut before = daemon.exec(&steps("out ready cat out end"));
        before.wait_for("ready");
        let slow: Vec<Client> = (0..40).map(|_| daemon.exec(&leased.argv())).collect();
        daemon.assert_serves();
        // None of the slow programs has a copy of its input any more. Otherwise it would not end.
        before.stdin(b"words");
        before.end_stdin();
        assert_eq!(before.reply().stdout_text(), "readywordsend", "{way}");
        eventually("all under way", || daemon.process().children().0 == 40);
        assert!(slow.iter().all(has_said_nothing), "{way}: no exec was slow");
        daemon.assert_idle("execs take long");
        drop(slow);
        eventually("all gone", || daemon.process().children() == (0, 0));
        daemon.assert_serves();
    }
}

/// A program that was not executed has nothing to clean up. KILL at once frees its slot, where TERM
/// would have to wait for `-k`.
#[test]
fn what_was_not_executed_is_killed_at_once() {
    for way in WAYS {
        let daemon = start(way, "-m 1 -t 0 -k 1000");
        let Some(leased) = Leased::new(&daemon) else { return };
        let slow = daemon.exec(&leased.argv());
        daemon.wait_for_log("started pid");
        drop(slow);
        assert_eq!(daemon.run(&steps("out next"), b"").stdout_text(), "next", "{way}");
        daemon.wait_for_log("which was not executed");
        let log = daemon.whole_log();
        assert!(!log.contains("TERM to"), "{way}: {log}");
        // Version 2 reports that there was no program: there is no `started`.
        let mut slow = daemon.connect();
        let argv = leased.argv()[0].as_bytes();
        slow.send(b"10:protocol=2,11:timeout=0.2,1:1,");
        slow.send(format!("{}:", argv.len()).as_bytes());
        slow.send(argv);
        slow.send(b",");
        let reply = pairs(&slow.rest());
        let tags: Vec<&str> = reply.iter().map(|(tag, _)| tag.as_str()).collect();
        assert_eq!(tags, ["protocol", "error"], "{way}: {reply:?}");
    }
}

/// The call that the status reports.
fn call(daemon: &Daemon) -> String {
    let mut client = daemon.connect();
    client.send(b"10:protocol=2,6:status,");
    let said = pairs(&client.rest());
    let (_, status) = said.last().expect("a status");
    let status: Value = serde_json::from_slice(status).expect("JSON");
    status["spawn"].as_str().expect("a name").to_owned()
}

/// A filter refuses clone3 with any of these errors, an old kernel with ENOSYS, and one without the
/// flag with EINVAL.
#[test]
fn where_clone3_is_refused_clone_is_used() {
    if !strace::is_usable() {
        return;
    }
    for error in ["EPERM", "EACCES", "ENOSYS", "EINVAL"] {
        let mut daemon = start("clone3", "");
        let fault = Fault { call: "clone3", error, when: "1+".into() };
        let strace = Strace::inject(daemon.process(), Whom::Daemon, &fault);
        assert_eq!(call(&daemon), "clone3");
        daemon.assert_serves();
        daemon.assert_serves();
        let (calls, _) = strace.detach();
        assert_eq!((calls["clone3"], call(&daemon).as_str()), (1, "clone"), "{error}");
        let log = daemon.whole_log();
        assert!(!log.lines().any(|line| line.contains("warning") && !line.contains("the kernel lacks")), "{log}");
    }
}

/// If only fork is left, the operator is told once.
#[test]
fn where_all_but_fork_is_refused_fork_is_used() {
    if !strace::is_usable() {
        return;
    }
    let mut daemon = start("clone3", "");
    let faults = [("clone3", "EPERM", "1+"), ("clone", "EPERM", "1")].map(|(call, error, when)| Fault {
        call,
        error,
        when: when.into(),
    });
    let strace = Strace::inject_all(daemon.process(), Whom::Daemon, &faults);
    daemon.assert_serves();
    daemon.assert_serves();
    strace.detach();
    daemon.assert_serves();
    assert_eq!(call(&daemon), "fork");
    let log = daemon.whole_log();
    assert_eq!(log.matches("programs are started by fork").count(), 1, "{log}");
}

/// For a moment there is no process. That client is told, and the call is tried again.
#[test]
fn what_is_refused_for_a_moment_is_tried_again() {
    if !strace::is_usable() {
        return;
    }
    for (way, name) in [("clone3", "clone3"), ("clone", "clone"), ("fork", "clone")] {
        for error in ["EAGAIN", "ENOMEM", "EBUSY"] {
            let mut daemon = start(way, "");
            let fault = Fault { call: name, error, when: "1".into() };
            let strace = Strace::inject(daemon.process(), Whom::Daemon, &fault);
            assert_eq!(daemon.run(&steps("out words"), b"").code(), 125, "{way} {error}");
            daemon.assert_serves();
            strace.detach();
            // Under Docker's filter the next call is refused for good.
            if std::env::var_os("SOCKEXEC_FILTER").is_none() {
                assert_eq!(call(&daemon), way, "{error}");
            }
        }
    }
}

/// A signal from the keyboard with a core dump ends all processes that share the memory. So a
/// program with a terminal never shares it.
#[test]
fn a_program_with_a_terminal_is_forked() {
    if !strace::is_usable() {
        return;
    }
    let daemon = start("clone3", "");
    let strace = Strace::count(daemon.process(), Whom::Daemon);
    let mut client = daemon.connect();
    client.send(b"10:protocol=2,9:pty=80x24,1:1,3:tty,");
    client.wait_for("8:exitcode,1:0,");
    let (calls, _) = strace.detach();
    assert!(calls.contains_key("clone") && !calls.contains_key("clone3"), "{calls:?}");
    assert_eq!(call(&daemon), "clone3");
}

/// Until its exec a child may share the daemon's memory, and a handler of the daemon's that ran in it would do its work for a signal that was
/// not the daemon's: it would reload, report or end. The signal comes to the child where it shares the memory, and blocks what it
/// inherited. It ends what is not a program yet, and its client is told.
#[test]
fn no_handler_of_the_daemon_runs_in_a_child() {
    if !strace::is_usable() {
        return;
    }
    for way in WAYS {
        for signal in ["HUP", "USR1", "USR2", "INT", "TERM"] {
            let mut daemon = start(way, "-t 0");
            daemon.assert_serves();
            let error = format!("signal={signal}");
            // The first call that a child alone makes.
            let fault = Fault { call: "getppid", error: &error, when: "1".into() };
            let strace = Strace::inject(daemon.process(), Whom::Children, &fault);
            let position = daemon.log_position();
            let mut client = daemon.connect();
            client.send(b"10:protocol=2,");
            client.exec(&steps("out words"));
            let rest = client.rest();
            let reply = String::from_utf8_lossy(&rest);
            assert!(reply.contains("spawn-failed") && reply.contains("came before it was executed"), "{way}: {reply}");
            strace.detach();
            // Whatever a handler had noted, the loop has looked at by then.
            daemon.assert_serves();
            daemon.wait_for_log_after(position, "exit code 0");
            let log = daemon.log_text().split_off(position);
            for words in ["reload", "slots taken", "descriptor ", "shutting down"] {
                assert!(!log.contains(words), "{way}, {signal}: {words}: {log}");
            }
        }
    }
}

/// Signals to the daemon's process group, in which a child is until it has made a group of its own. The daemon handles its own, and lives;
/// each program either runs to its end or was ended before its exec, which its client is told.
#[test]
fn a_storm_of_signals_to_the_group() {
    for way in WAYS {
        let launch = Launch::default().quiet().options("-t 0 -m 8").env("SOCKEXEC_SPAWN", way);
        let mut daemon = launch.prelude("exec setsid \"$0\" \"$@\"").start();
        let group = daemon.process().0;
        let storm = Storm::over(group);
        let mut ran = 0;
        for _ in 0..100 {
            let mut client = daemon.connect();
            client.send(b"10:protocol=2,");
            client.exec(&steps("out words"));
            let rest = client.rest();
            let reply = String::from_utf8_lossy(&rest);
            if reply.contains("spawn-failed") {
                assert!(reply.contains("came before it was executed"), "{way}: {reply}");
            } else {
                assert!(reply.contains("5:words,") && reply.contains("8:exitcode,1:0,"), "{way}: {reply}");
                ran += 1;
            }
        }
        drop(storm);
        println!("{way}: {ran} of 100 ran");
        daemon.assert_serves();
        assert_eq!(daemon.terminate().status.code(), Some(0), "{way}");
    }
}

/// Signals to a process group, until this is dropped.
struct Storm {
    goes_on: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    fn over(group: Pid) -> Self {
        let goes_on = Arc::new(AtomicBool::new(true));
        let storm = Arc::clone(&goes_on);
        let thread = std::thread::spawn(move || {
            while storm.load(Ordering::Relaxed) {
                for signal in [Signal::HUP, Signal::USR2] {
                    rustix::process::kill_process_group(group, signal).expect("the daemon is there");
                    std::thread::yield_now();
                }
                // On an emulated processor signals without a pause keep the daemon in its handlers for seconds, and once
                // for a minute. A pause as long as a start takes still finds children before their exec.
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        });
        Self { goes_on, thread: Some(thread) }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.goes_on.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the daemon's group is gone");
        }
    }
}

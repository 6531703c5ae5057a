//! `started` and `error` are true, whatever happens between a clone and its exec.

use rustix::process::Signal;

use super::status::status;
use super::{Caller, NONE, Reply2, netstring, request_2, run};
use crate::common::{Daemon, Launch, Process, steps};
use crate::faults::strace::{self, Fault, Strace, Whom};

/// The deadline comes at any moment of the start. There is one error, and `started` comes before it
/// only if it is true.
#[test]
fn a_deadline_between_clone_and_exec_is_one_error() {
    let mut daemon = Daemon::start("-k 0.2");
    let mut seen = [0; 3];
    for n in 0..300_u32 {
        let timeout = format!("timeout=0.{:06}", 1 + n * 7);
        let reply = run(&daemon, &[&timeout], &["/no/such/program"], "");
        assert_eq!((reply.started, &reply.exit, reply.errors.len()), (None, &None, 1), "{timeout}: {reply:?}");
        let error = &reply.errors[0];
        assert!(error.starts_with("timeout ") || error.starts_with("not-found "), "{reply:?}");
        let reply = run(&daemon, &[&timeout], &["/bin/sleep", "100"], "");
        assert_eq!(reply.errors.len(), 1, "{timeout}: {reply:?}");
        let tags: Vec<&str> = reply.pairs.iter().map(|(tag, _)| tag.as_str()).collect();
        if reply.started.is_some() {
            assert!(tags.starts_with(&["started", "error"]), "{timeout}: {reply:?}");
            // KILL is sent to a program that was not executed yet, and may find it executed.
            assert!([9, 15].contains(&reply.signal()), "{timeout}: {reply:?}");
            seen[0] += 1;
        } else {
            assert_eq!(tags, ["error"], "{timeout}: {reply:?}");
            seen[1] += 1;
        }
        seen[2] += 1;
    }
    println!("{seen:?}");
    assert_eq!(seen[2], 300);
    daemon.assert_serves();
}

/// A client whose program is stopped before its exec.
struct Stopped {
    daemon: Daemon,
    caller: Caller,
    program: Process,
    /// Kept, because strace must not detach between the signal and the stop: the process might run
    /// on.
    strace: Strace,
}

/// `None` if no call can be made to fail here.
fn stopped_before_exec(options: &str, request: &[u8]) -> Option<Stopped> {
    if !strace::is_usable() {
        return None;
    }
    let (daemon, caller, strace, position) = stopping_before_exec(options, request);
    strace.wait_for_stops(1);
    daemon.wait_for_log_after(position, "started pid");
    let program = Process(*daemon.started(position).first().expect("a program"));
    Some(Stopped { daemon, caller, program, strace })
}

/// A client whose program will stop before its exec, and the daemon's log so far.
fn stopping_before_exec(options: &str, request: &[u8]) -> (Daemon, Caller, Strace, usize) {
    let daemon = Launch::default().options(options).start();
    let mut client = daemon.connect();
    // By now the daemon knows this client, and is idle.
    run(&daemon, NONE, &steps("exit 0"), "");
    daemon.wait_for_log("over after");
    let position = daemon.log_position();
    // The daemon itself does not make this call, and the child makes it early, while it has all
    // copies.
    let fault = Fault { call: "getppid", error: "signal=STOP", when: "1".into() };
    let strace = Strace::inject(daemon.process(), Whom::Children, &fault);
    client.send(request);
    (daemon, Caller(client), strace, position)
}

fn kill(program: Process, signal: Signal) {
    rustix::process::kill_process(program.0, signal).expect("it is there");
}

/// KILL before the exec: there was no program.
#[test]
fn a_program_killed_before_its_exec_never_started() {
    let request = request_2(NONE, &["/bin/true"]);
    let Some(Stopped { mut daemon, mut caller, program, strace }) = stopped_before_exec("-t 0", &request) else {
        return;
    };
    caller.wait_for("8:protocol,");
    kill(program, Signal::KILL);
    let reply = caller.reply();
    assert_eq!(reply.refusal(), "spawn-failed /bin/true: signal 9 came before it was executed");
    // It would stop the next program too.
    drop(strace);
    daemon.assert_serves();
    assert_eq!(daemon.terminate().status.code(), Some(0));
}

/// The same in version 1, which reports the signal as always.
#[test]
fn a_program_killed_before_its_exec_has_its_signal_in_version_1() {
    let request = crate::common::request(&["/bin/true"]);
    let Some(Stopped { daemon: _daemon, mut caller, program, strace }) = stopped_before_exec("-t 0", &request) else {
        return;
    };
    kill(program, Signal::KILL);
    assert_eq!(caller.0.rest(), b"7:termsig,1:9,");
    drop(strace);
}

/// The deadline comes while the exec hangs. The daemon reports nothing before the exec's result is
/// known.
#[test]
fn a_deadline_while_the_exec_hangs_is_reported_later() {
    if !strace::is_usable() {
        return;
    }
    // Under strace the process may not have come that far when the deadline comes. Then the test tries
    // again with more time.
    let is_done = ["timeout=0.5", "timeout=5", "timeout=25"].iter().any(|timeout| {
        let request = request_2(&[timeout], &["/bin/true"]);
        let (daemon, caller, strace, _) = stopping_before_exec("-t 0 -k 30", &request);
        let reply = caller.reply();
        assert_eq!(reply.refusal(), "timeout the deadline has come; the program is ended");
        // What follows from it, a program that KILL has ended before its exec, was counted as an error of its
        // own.
        let errors = &status(&daemon)["counts"]["errors"];
        assert_eq!((&errors["timeout"], &errors["spawn-failed"]), (&1.into(), &0.into()), "{errors}");
        strace.stops() == 1
    });
    assert!(is_done, "each deadline came before the process had stopped");
    // The same when the daemon ends.
    let request = request_2(NONE, &["/bin/true"]);
    let Some(Stopped { mut daemon, caller, strace, .. }) = stopped_before_exec("-t 0 -k 30", &request) else { return };
    daemon.signal(Signal::TERM);
    assert_eq!(caller.reply().refusal(), "shutdown the daemon is shutting down; the program is ended");
    assert_eq!(daemon.wait().status.code(), Some(0));
    drop(strace);
}

/// What the client sends behind its request stays unread until the exec, and then comes in order.
#[test]
fn nothing_is_read_before_the_exec() {
    let behind = [netstring("stdin"), netstring("a"), netstring("signal"), netstring("USR1")].concat();
    let request = [request_2(NONE, &steps("cat")), behind].concat();
    let Some(Stopped { daemon, mut caller, program, strace }) = stopped_before_exec("-t 0", &request) else { return };
    caller.wait_for("8:protocol,");
    daemon.assert_idle("a program has stopped before its exec");
    kill(program, Signal::CONT);
    let reply: Reply2 = caller.reply();
    assert_eq!(reply.signal(), Signal::USR1.as_raw(), "{reply:?}");
    drop(strace);
}

/// A second cause after the first one is not reported.
#[test]
fn one_error_is_all() {
    let daemon = Daemon::start("-k 30");
    let argv = ["/bin/sh", "-c", "trap 'read x; echo $x; exit 5' TERM; echo ready; while :; do sleep 0.01; done"];
    // Long enough for the shell to set its trap, on a machine that is busy.
    let mut caller = Caller::start(&daemon, &["timeout=5"], &argv);
    caller.wait_for("ready");
    caller.wait_for("5:error,");
    // A bad request, while the program is being ended for another reason.
    caller.tell("wat", "");
    let reply = caller.reply();
    assert_eq!(reply.errors, ["timeout the deadline has come; the program is ended"]);
    assert_eq!(reply.code(), 5, "{reply:?}");
    daemon.wait_for_log("bad request: unknown tag");
}

//! With many connections a program begins in the daemon's own table of descriptors, and takes only
//! a few along when it leaves that table (`sys/reserve.rs`). Until then the daemon keeps the
//! program's ends of its streams. These tests interrupt that.

use super::scenario::{ECHO, Scenario, footprint, prepare};
use super::strace::{self, Fault, Strace, Whom};
use super::{CHILD, run};
use crate::common::{Client, Daemon, Launch, Process, Reply, eventually, fixture, steps};

pub(super) const CROWD: Scenario = Scenario {
    name: "crowd",
    story: "as `echo`, as for many connections",
    calls: &["clone3", "dup3", "close"],
    ..ECHO
};

#[test]
fn crowd() {
    run(&CROWD, Some("crowd"), Whom::Daemon);
}

#[test]
fn crowd_child() {
    const STORY: &str = "as `child`, with a table of descriptors that is the daemon's at first";
    run(&Scenario { name: "crowd-child", story: STORY, ..CHILD }, Some("crowd"), Whom::Children);
}

fn launch() -> Daemon {
    prepare();
    Launch::default().options("-m 40 -t 0 -k 0.3").env("SOCKEXEC_SPAWN", "crowd").start()
}

fn fault<'a>(call: &'a str, error: &'a str) -> Fault<'a> {
    Fault { call, error, when: "1".into() }
}

/// Injects faults between clone and exec. Returns the client's reply. The daemon must be as before,
/// and serve others.
fn play(faults: &[Fault<'_>]) -> Option<Reply> {
    if !strace::is_usable() {
        return None;
    }
    let mut daemon = launch();
    let before = footprint(daemon.process());
    let strace = Strace::inject_all(daemon.process(), Whom::Children, faults);
    let mut client = daemon.exec(&steps("out words err note cat"));
    client.end_stdin();
    let reply = client.reply();
    let (calls, _) = strace.detach();
    assert!(faults.iter().all(|fault| calls.contains_key(fault.call)), "not all of it failed: {calls:?}");
    daemon.assert_serves();
    eventually("the descriptors and children of before", || footprint(daemon.process()) == before);
    Some(reply)
}

/// The child must not go on: it would change the daemon's descriptors instead of its own.
#[test]
fn a_child_that_cannot_leave_the_table_ends() {
    let Some(reply) = play(&[fault("close_range", "EPERM")]) else { return };
    assert_eq!((reply.stdout_text(), reply.code()), ("", 125));
    assert!(reply.stderr_text().ends_with(": Operation not permitted\n"), "{reply:?}");
}

/// No event reports that: the ends that the daemon keeps for the program keep its streams open.
#[test]
fn a_child_killed_before_it_left_is_reported() {
    let Some(reply) = play(&[fault("close_range", "signal=KILL")]) else { return };
    assert_eq!((reply.stdout_text(), reply.stderr_text(), reply.signal()), ("", "", 9));
}

/// The event that should report it is lost.
#[test]
fn a_lost_event_loses_no_end() {
    let Some(reply) = play(&[fault("write", "EAGAIN")]) else { return };
    assert_eq!((reply.stdout_text(), reply.stderr_text(), reply.code()), ("words", "note", 0));
}

/// More programs stop half-way than there are reserved descriptors. The daemon serves others and
/// does not spin. When the programs are continued, each does its work.
#[test]
fn many_programs_that_stop_half_way_stop_nobody_else() {
    if !strace::is_usable() {
        return;
    }
    let mut daemon = launch();
    let before = footprint(daemon.process());
    let strace = Strace::inject(daemon.process(), Whom::Children, &fault("close_range", "signal=STOP"));
    // Programs for which no number is left copy the table, and stop when they close their copies.
    let clients: Vec<Client> = (0..20).map(|_| daemon.exec(&steps("out words cat"))).collect();
    let stopped = |daemon: &Daemon| -> Vec<Process> {
        daemon.started(0).into_iter().map(Process).filter(|process| process.is_stopped()).collect()
    };
    // Only strace reports that a traced process has stopped.
    strace.wait_for_stops(20);
    strace.detach();
    eventually("programs that have stopped", || stopped(&daemon).len() == 20);
    let stopped = stopped(&daemon);
    daemon.assert_serves();
    daemon.assert_idle("programs have stopped half-way");
    for process in stopped {
        rustix::process::kill_process(process.0, rustix::process::Signal::CONT).unwrap();
    }
    for mut client in clients {
        client.end_stdin();
        let reply = client.reply();
        assert_eq!((reply.stdout_text(), reply.code()), ("words", 0));
    }
    daemon.assert_serves();
    eventually("the descriptors and children of before", || footprint(daemon.process()) == before);
}

/// The answer to a program's output may come in the turn of the loop that started the program. By
/// then the daemon must not have a copy of the program's input, or it would write what nobody
/// reads.
#[test]
fn an_answer_that_comes_at_once() {
    if !strace::is_usable() {
        return;
    }
    let daemon = launch();
    // The program has written before the daemon goes on, and the client has answered before the
    // daemon reads again.
    let delay = |call| Fault { call, error: "delay_exit=200000", when: "1+".into() };
    let strace = Strace::inject_all(daemon.process(), Whom::Daemon, &[delay("clone3"), delay("sendto")]);
    let mut client = daemon.connect();
    client.send(b"10:protocol=2,1:6,");
    for word in [fixture(), "close", "0", "out", "closed", "wait"] {
        client.send(format!("{}:{word},", word.len()).as_bytes());
    }
    client.wait_for("closed");
    client.send(b"5:stdin,5:words,");
    client.wait_for("12:input-closed,0:,");
    strace.detach();
}

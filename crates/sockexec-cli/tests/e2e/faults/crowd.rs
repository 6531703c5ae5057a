//! With many connections a program begins in the daemon's own table of descriptors, and takes along but a few when it leaves it (`sys/reserve.rs`). The
//! daemon keeps the program's ends of its streams until then. Here something comes in between.

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

/// What a client is told whose program met these faults between clone and exec; the daemon is as before, and all others are
/// served.
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

/// It must not go on: what it would do with its descriptors it would do to the daemon's.
#[test]
fn a_table_that_cannot_be_left() {
    let Some(reply) = play(&[fault("close_range", "EPERM")]) else { return };
    assert_eq!((reply.stdout_text(), reply.code()), ("", 125));
    assert!(reply.stderr_text().ends_with(": Operation not permitted\n"), "{reply:?}");
}

/// Nothing tells of that: the ends that the daemon keeps for it keep its streams open.
#[test]
fn killed_before_it_left() {
    let Some(reply) = play(&[fault("close_range", "signal=KILL")]) else { return };
    assert_eq!((reply.stdout_text(), reply.stderr_text(), reply.signal()), ("", "", 9));
}

/// The event that is to tell is lost.
#[test]
fn an_event_that_is_lost() {
    let Some(reply) = play(&[fault("write", "EAGAIN")]) else { return };
    assert_eq!((reply.stdout_text(), reply.stderr_text(), reply.code()), ("words", "note", 0));
}

/// More programs than there are reserved descriptors stop half-way. Others are served beside them, the daemon does not spin, and when
/// they are continued each does what it was to do.
#[test]
fn many_that_stop_half_way() {
    if !strace::is_usable() {
        return;
    }
    let mut daemon = launch();
    let before = footprint(daemon.process());
    let strace = Strace::inject(daemon.process(), Whom::Children, &fault("close_range", "signal=STOP"));
    // Those for which no number is left copy the table, and stop when they close their copies.
    let clients: Vec<Client> = (0..20).map(|_| daemon.exec(&steps("out words cat"))).collect();
    let stopped = |daemon: &Daemon| -> Vec<Process> {
        daemon.started(0).into_iter().map(Process).filter(|process| process.is_stopped()).collect()
    };
    // Of a process that is traced strace alone tells that it has stopped.
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

/// The answer to what the program said may come within the turn of the loop that started it. By then the daemon has no copy of
/// the program's input any more, or what nobody reads would be written all the same.
#[test]
fn an_answer_that_comes_at_once() {
    if !strace::is_usable() {
        return;
    }
    let daemon = launch();
    // The program has spoken before the daemon goes on, and the client has answered before it reads again.
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

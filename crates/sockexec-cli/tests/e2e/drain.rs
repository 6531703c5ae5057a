//! `--drain`: what has arrived when the daemon is told to end may finish. The other clients are
//! told why not.

use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use crate::common::{Client, Daemon, Launch, Reply, eventually, pairs, request, steps};

const WORDS: &str = "sockexec: the daemon is shutting down; nothing was started\n";

#[track_caller]
fn assert_told(reply: &Reply) {
    assert_eq!((reply.stderr_text(), reply.code()), (WORDS, 125), "{reply:?}");
}

/// Sends TERM, and waits until the daemon has noticed it.
fn begin(daemon: &Daemon) {
    daemon.signal(Signal::TERM);
    daemon.wait_for_log("shutting down");
    eventually("no socket", || !daemon.socket().exists());
}

/// What runs, what waits for a slot, and a request that is still arriving.
#[test]
fn what_has_arrived_may_finish() {
    let mut daemon = Daemon::start("-t 0 -m 1 -k 1000 --drain 1000");
    let mut runs = daemon.exec(&steps("out ready cat"));
    runs.wait_for("ready");
    let waits = daemon.exec(&steps("out waited exit 3"));
    daemon.wait_for_log("connection 2: waits for a slot");
    let mut arrives = daemon.connect();
    let whole = request(&steps("out arrived exit 4"));
    arrives.send(&whole[..10]);
    daemon.wait_for_log("connection 3: accepted");
    begin(&daemon);
    assert!(UnixStream::connect(daemon.socket()).is_err());
    arrives.send(&whole[10..]);
    runs.stdin(b" and done");
    runs.end_stdin();
    assert_eq!(runs.reply().stdout_text(), "ready and done");
    let reply = waits.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("waited", 3));
    let reply = arrives.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("arrived", 4));
    assert_eq!(daemon.wait().status.code(), Some(0));
}

/// Clients that had connected when the socket went used to be reset. They are served, as far as
/// there is room.
#[test]
fn the_backlog_is_served() {
    for room in ["", "--max-waiting 1"] {
        let mut daemon = Daemon::start(&format!("-t 0 -m 2 -k 1000 --drain 1000 {room}"));
        daemon.stop();
        let waiting: Vec<Client> = (0..50).map(|n| daemon.exec(&steps(&format!("exit {n}")))).collect();
        daemon.signal(Signal::TERM);
        daemon.signal(Signal::CONT);
        for (n, client) in (0..).zip(waiting) {
            let reply = client.reply();
            if room.is_empty() {
                assert_eq!(reply.code(), n);
            } else if reply.code() != n {
                // This client made way for another.
                assert!(reply.code() == 125 && reply.stderr_text().contains("too many requests wait"), "{reply:?}");
            }
        }
        assert_eq!(daemon.wait().status.code(), Some(0));
        assert!(!daemon.socket().exists());
    }
}

/// Without a drain, clients in the backlog are told that the daemon ends, and no program starts
/// only to be ended. Only clients that have not named their version are closed without a word.
#[test]
fn without_a_drain_the_backlog_is_told() {
    let mut daemon = Daemon::start("-t 0 -k 1000 -m 1");
    // The client has the slot. Otherwise a connection that poll reported before the signal may come
    // first.
    let mut runs = daemon.exec(&steps("out ready wait"));
    runs.wait_for("ready");
    daemon.stop();
    let mark = daemon.directory().join("mark");
    let touch = ["touch", mark.to_str().unwrap()];
    let one: Vec<Client> = (0..20).map(|_| daemon.exec(&touch)).collect();
    let mut two = daemon.connect();
    two.send(b"10:protocol=2,");
    two.exec(&touch);
    let mut begun = daemon.connect();
    begun.send(b"1:2,5:tou");
    let mut nothing = daemon.connect();
    nothing.send(b"1:");
    let silent = daemon.connect();
    daemon.signal(Signal::TERM);
    daemon.signal(Signal::CONT);
    for client in one {
        assert_told(&client.reply());
    }
    assert_told(&begun.reply());
    let told = pairs(&two.rest());
    let (tag, words) = told.last().unwrap();
    assert_eq!(
        (tag.as_str(), words.as_slice()),
        ("error", b"shutdown the daemon is shutting down; nothing was started".as_slice())
    );
    assert!(told.iter().all(|(tag, _)| tag != "started"), "{told:?}");
    assert_eq!((nothing.lossy(), silent.lossy()), (vec![], vec![]));
    assert_eq!(daemon.wait().status.code(), Some(0));
    assert!(!mark.exists());
}

/// When its time is over, a drain ends as if there was none: programs get TERM, and waiting clients
/// are told.
#[test]
fn the_time_of_a_drain_is_limited() {
    let mut daemon = Daemon::start("-t 0 -m 1 -k 1000 --drain 0.3");
    let mut runs = daemon.exec(&steps("out ready wait"));
    runs.wait_for("ready");
    let waits = daemon.exec(&steps("out never"));
    let mut two = daemon.connect();
    two.send(b"10:protocol=2,");
    two.exec(&["true"]);
    daemon.wait_for_log("connection 3: waits for a slot");
    let mut part = daemon.connect();
    part.send(b"1:2,");
    assert_eq!(daemon.terminate().status.code(), Some(0));
    daemon.wait_for_log("warning: the time to drain is over");
    assert_eq!(runs.reply().signal(), 15);
    assert_told(&waits.reply());
    assert_told(&part.reply());
    assert!(two.rest().ends_with(b"5:error,57:shutdown the daemon is shutting down; nothing was started,"));
}

/// The second TERM ends the drain, and the third means KILL.
#[test]
fn the_second_term_ends_the_drain_and_the_third_kills() {
    let mut daemon = Daemon::start("-t 0 -m 1 -k 1000 --drain 1000");
    let argv = "spawn [ wait ] ignore TERM ; out ready reap out asked wait";
    let mut runs = daemon.exec(&steps(argv));
    runs.wait_for("ready");
    let waits = daemon.exec(&steps("out never"));
    daemon.wait_for_log("connection 2: waits for a slot");
    begin(&daemon);
    // Nothing has happened to the program.
    daemon.assert_idle("it drains");
    daemon.signal(Signal::INT);
    runs.wait_for("asked");
    assert_told(&waits.reply());
    assert!(!daemon.has_ended());
    daemon.signal(Signal::TERM);
    assert_eq!(runs.reply().signal(), 9);
    assert_eq!(daemon.wait().status.code(), Some(0));
}

/// The daemon does not wait for a client that has its whole reply, nor for ever for one that does
/// not send its request.
#[test]
fn clients_that_stay_do_not_delay_the_end() {
    let mut daemon = Daemon::start("-t 0 -k 1000 --request-timeout 0.5 --drain 1000");
    let mut done = daemon.exec(&steps("exit 3"));
    done.wait_for("exitcode");
    let silent = daemon.connect();
    let start = std::time::Instant::now();
    assert_eq!(daemon.terminate().status.code(), Some(0));
    assert!(start.elapsed() < std::time::Duration::from_secs(4), "{:?}", start.elapsed());
    silent.until_gone();
}

/// Nor does it wait for a client that was in the backlog when the drain began. Such a client used
/// to be let in after the others had been told to drain, and delayed the end by five seconds.
#[test]
fn clients_of_the_backlog_do_not_delay_the_end() {
    let mut daemon = Daemon::start("-t 0 -k 1000 --drain 1000");
    daemon.stop();
    // More than the daemon accepts in one turn, so that some are left when it sees the signal.
    let mut staying: Vec<Client> = (0..70).map(|_| daemon.exec(&steps("exit 3"))).collect();
    daemon.signal(Signal::TERM);
    daemon.signal(Signal::CONT);
    for client in &mut staying {
        client.wait_for("exitcode");
    }
    let start = std::time::Instant::now();
    assert_eq!(daemon.wait().status.code(), Some(0));
    assert!(start.elapsed() < std::time::Duration::from_secs(4), "{:?}", start.elapsed());
}

/// A socket that was handed over belongs to the successor, with the clients that wait there.
#[test]
fn the_backlog_of_a_socket_handed_over_is_left() {
    let launch = Launch::default();
    let path = launch.directory().join("given");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let launch = launch.socket(&path).without_socket().options("-t 0 --drain 1000 --listen-fd 0");
    let mut daemon = launch.stream(listener.try_clone().unwrap()).start();
    let mut runs = daemon.exec(&steps("out ready cat"));
    runs.wait_for("ready");
    daemon.stop();
    let waiting: Vec<Client> = (0..20).map(|n| daemon.exec(&steps(&format!("exit {n}")))).collect();
    daemon.signal(Signal::TERM);
    daemon.signal(Signal::CONT);
    daemon.wait_for_log("shutting down");
    let late = daemon.exec(&steps("exit 42"));
    let next = Launch::default().socket(&path).without_socket().options("--listen-fd 0");
    let _next = next.stream(listener).start();
    for (n, client) in (0..).zip(waiting) {
        assert_eq!(client.reply().code(), n);
    }
    assert_eq!(late.reply().code(), 42);
    // The first daemon keeps its clients.
    assert!(!daemon.has_ended());
    runs.end_stdin();
    assert_eq!(runs.reply().code(), 0);
    assert_eq!(daemon.wait().status.code(), Some(0));
}

//! Slots: who has one, who waits for one, and whose time runs meanwhile.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Client, Daemon, Launch, eventually, pairs, steps};
use crate::version_2::netstring;

/// The bytes of a request of either version up to its last argument.
pub(crate) fn request(version: u8, argv: &[String]) -> Vec<u8> {
    let begin = if version == 2 { netstring("protocol=2") } else { Vec::new() };
    [begin, crate::common::request(argv)].concat()
}

#[track_caller]
pub(crate) fn start(daemon: &Daemon, version: u8, words: &str) -> Client {
    let mut client = daemon.connect();
    client.send(&request(version, &steps(words)));
    client
}

#[track_caller]
pub(crate) fn exit_of(client: &mut Client) -> (String, Vec<u8>) {
    let raw = client.rest();
    pairs(&raw).pop().unwrap_or_else(|| panic!("a bare close"))
}

#[track_caller]
pub(crate) fn status(daemon: &Daemon) -> Value {
    let mut client = daemon.connect();
    client.send(&[netstring("protocol=2"), netstring("status")].concat());
    let (tag, json) = exit_of(&mut client);
    assert_eq!(tag, "status");
    serde_json::from_slice(&json).expect("JSON")
}

pub(crate) fn waiting(daemon: &Daemon) -> u64 {
    status(daemon)["totals"]["waiting"].as_u64().expect("a number")
}

/// Two programs have the only slot until their deadlines, one after the other, and the next wait for
/// it twice as long as they themselves may take. None of them is late, because the time runs from
/// the slot. Status and ping are answered meanwhile.
#[test]
fn waiting_takes_no_time_from_the_program() {
    for version in [1, 2] {
        // Each of them, and all that is done while the first runs, has these seconds.
        let daemon = Daemon::start("-m 1 -t 5 --request-timeout 4");
        let mut first = start(&daemon, version, "wait");
        daemon.wait_for_log("started pid");
        let mut second = start(&daemon, version, "wait");
        let clients: Vec<Client> = (0..8).map(|_| start(&daemon, version, "exit 3")).collect();
        eventually("nine that wait", || waiting(&daemon) == 9);
        let mut ping = daemon.connect();
        ping.send(&netstring("protocol=2"));
        ping.half_close();
        assert_eq!(exit_of(&mut ping).0, "protocol");
        assert_eq!(status(&daemon)["totals"]["running"], 1);
        for client in [&mut first, &mut second] {
            assert_eq!(exit_of(client), ("termsig".to_owned(), b"15".to_vec()), "version {version}");
        }
        for mut client in clients {
            assert_eq!(exit_of(&mut client), ("exitcode".to_owned(), b"3".to_vec()), "version {version}");
        }
        assert_eq!(status(&daemon)["totals"]["timed_out"], 2);
    }
}

/// Once, and in version 2 only.
#[test]
fn a_client_that_waits_is_told() {
    let daemon = Daemon::start("-m 1 -t 0");
    let mut running = start(&daemon, 1, "out ready cat");
    running.wait_for("ready");
    let mut waiting: Vec<Client> = Vec::new();
    for n in 1..=3 {
        let mut client = start(&daemon, 2, &format!("out {n}"));
        client.wait_for(&format!("6:queued,1:{n},"));
        waiting.push(client);
    }
    let old = start(&daemon, 1, "out old");
    eventually("four that wait", || self::waiting(&daemon) == 4);
    // The operator sees the requests that wait.
    let told = status(&daemon);
    let all = told["connections"].as_array().expect("connections");
    let listed: Vec<&Value> = all.iter().filter(|it| it["state"] == "a free slot").map(|it| &it["argv"]).collect();
    running.end_stdin();
    assert_eq!(running.reply().code(), 0);
    for mut client in waiting {
        let raw = client.rest();
        let told: Vec<_> = pairs(&raw).into_iter().filter(|(tag, _)| tag == "queued").collect();
        assert_eq!(told.len(), 1, "{}", raw.escape_ascii());
    }
    assert_eq!(old.reply().pairs.len(), 2);
    assert!(listed.contains(&&serde_json::json!(steps("out 2"))), "{listed:?}");
    assert_eq!(self::waiting(&daemon), 0);
}

/// The order is that in which the requests were complete.
#[test]
fn the_first_to_wait_is_the_first_to_be_served() {
    let daemon = Daemon::start("-m 1 -t 0 --request-timeout 0");
    let mut running = start(&daemon, 1, "out ready cat");
    running.wait_for("ready");
    // It connects first and completes its request last.
    let mut late = daemon.connect();
    late.send(b"1:2,");
    let log = daemon.directory().join("log");
    let append = |n: u32| vec!["/bin/sh".to_owned(), "-c".to_owned(), format!("echo {n} >>{}", log.display())];
    let mut clients = Vec::new();
    for n in 0..20_u32 {
        let mut client = daemon.connect();
        client.send(&request(if n % 2 == 0 { 1 } else { 2 }, &append(n)));
        eventually("one more that waits", || waiting(&daemon) == u64::from(n) + 1);
        clients.push(client);
    }
    late.send(&request(1, &append(20))[b"1:3,".len()..]);
    drop(late);
    // Some give up.
    for n in [3, 4, 11] {
        clients[n] = daemon.connect();
    }
    eventually("those that gave up are forgotten", || waiting(&daemon) == 17);
    running.end_stdin();
    assert_eq!(running.reply().code(), 0);
    for (n, mut client) in clients.into_iter().enumerate() {
        if ![3, 4, 11].contains(&n) {
            assert_eq!(exit_of(&mut client).1, b"0");
        }
    }
    let served = std::fs::read_to_string(&log).expect("a log");
    let expected: Vec<String> = (0..20).filter(|n| ![3, 4, 11].contains(n)).map(|n: i32| n.to_string()).collect();
    assert_eq!(served.lines().collect::<Vec<_>>(), expected);
}

/// A client that does not read its reply used to keep its slot, for ever if there was no deadline.
#[test]
fn a_client_that_does_not_read_keeps_no_slot() {
    for version in [1, 2] {
        let mut daemon = Launch::default().options("-m 1 -t 0 --spool 0").start();
        // More than the socket takes (180,000 bytes), so that some stays in the pipe, and less than
        // both hold.
        let lazy = start(&daemon, version, "write-out 200000 err last exit 6");
        lazy.half_close();
        daemon.assert_serves();
        eventually("two programs that have ended", || {
            let totals = &status(&daemon)["totals"];
            (&totals["running"], &totals["finished"]) == (&0.into(), &2.into())
        });
        // The client gets its reply whenever it likes.
        let mut lazy = lazy;
        let said = pairs(&lazy.rest());
        let output: usize = said.iter().filter(|(tag, _)| tag == "stdout").map(|(_, payload)| payload.len()).sum();
        assert_eq!((output, said.last().unwrap().1.as_slice()), (200_000, b"6".as_slice()));
    }
}

/// While a process can still write, the group is not done, and the slot is taken. A client that
/// does not read changes nothing.
#[test]
fn a_descendant_that_holds_the_output_keeps_the_slot() {
    for version in [1, 2] {
        let daemon = Daemon::start("-m 1 -t 0 --spool 0");
        let mut life = daemon.fifo("life");
        let words = format!("spawn [ hold {} wait ] write-out 200000 exit 6", life.path());
        let mut lazy = start(&daemon, version, &words);
        lazy.half_close();
        let holder = life.holder();
        // A zombie whether or not the daemon has looked, which depends on how much the socket
        // takes.
        eventually("the end of the leader", || {
            std::fs::read_to_string(format!("/proc/{}/stat", holder.group.as_raw_pid()))
                .is_ok_and(|stat| stat.contains(") Z "))
        });
        let next = start(&daemon, 1, "out next");
        eventually("one that waits", || waiting(&daemon) == 1);
        daemon.assert_idle("a descendant holds the output, and the client does not read");
        assert_eq!(waiting(&daemon), 1);
        holder.kill();
        assert_eq!(next.reply().stdout_text(), "next");
        assert_eq!(exit_of(&mut lazy).1, b"6", "version {version}");
    }
}

/// A request that came in time is served even if the daemon could not read it until later.
#[test]
fn a_request_that_came_in_time_is_served() {
    let daemon = Daemon::start("-t 0 --request-timeout 3");
    let mut clients = [daemon.connect(), daemon.connect()];
    // Both are accepted, because the status came after them.
    status(&daemon);
    daemon.stop();
    for (client, version) in clients.iter_mut().zip([1, 2]) {
        client.send(&request(version, &steps("exit 3")));
    }
    // Longer than the time for the request, however much longer.
    std::thread::sleep(Duration::from_millis(3500));
    daemon.signal(Signal::CONT);
    for mut client in clients {
        client.half_close();
        let (tag, code) = exit_of(&mut client);
        assert!(["exitcode", "exit"].contains(&tag.as_str()), "{tag}: {}", String::from_utf8_lossy(&code));
        assert!(String::from_utf8_lossy(&code).starts_with('3'), "{}", String::from_utf8_lossy(&code));
    }
}

/// Connects and sends these bytes within that time. A busy machine may need more than one attempt.
#[track_caller]
fn send_within(limit: Duration, daemon: &Daemon, bytes: &[u8]) -> Client {
    loop {
        let begin = Instant::now();
        let mut client = daemon.connect();
        let sent = client.try_send(bytes);
        // The daemon's clock begins when it accepts the client, which is later.
        if begin.elapsed() < limit {
            sent.expect("the daemon takes what comes in time");
            return client;
        }
    }
}

/// `--request-timeout` limits the request, and `-t` the program. The first is never longer than the
/// second.
#[test]
fn a_request_has_a_time_of_its_own() {
    const LIMIT: Duration = Duration::from_millis(300);
    for (options, longer) in [
        ("--request-timeout 0.3", true),
        ("-t 0.3", false),
        ("-t 0.3 --request-timeout 0", false),
        ("-t 0 --request-timeout 0.3", true),
    ] {
        let daemon = Daemon::start(options);
        let mut silent = daemon.connect();
        assert_eq!(silent.rest(), b"", "{options}");
        let mut slow = send_within(LIMIT, &daemon, &[netstring("protocol=2"), netstring("cwd=/")].concat());
        assert_eq!(exit_of(&mut slow), ("error".to_owned(), b"timeout the request was not complete in time".to_vec()));
        // A program has more time, if `-t` allows it.
        let sleep = request(2, &["/bin/sleep".to_owned(), "0.6".to_owned()]);
        let mut client = send_within(LIMIT, &daemon, &sleep);
        let (tag, text) = exit_of(&mut client);
        // On a busy machine the deadline may come before the program was executed.
        let is_late = tag == "termsig" || tag == "error" && text.starts_with(b"timeout the deadline");
        let is_right = if longer { tag == "exitcode" } else { is_late };
        assert!(is_right, "{options}: {tag} {}", text.escape_ascii());
    }
}

/// The daemon ends. Waiting clients are told, and no more programs start.
#[test]
fn waiting_clients_learn_of_the_daemons_end() {
    let mut daemon = Daemon::start("-m 1 -t 0 -k 0.2");
    let mut running = start(&daemon, 1, "out ready cat");
    running.wait_for("ready");
    let (mut one, mut two) = (start(&daemon, 1, "out never"), start(&daemon, 2, "out never"));
    two.wait_for("queued");
    eventually("two that wait", || waiting(&daemon) == 2);
    daemon.signal(Signal::TERM);
    let words = "the daemon is shutting down; nothing was started";
    let told = format!("6:stderr,59:sockexec: {words}\n,8:exitcode,3:125,");
    assert_eq!(one.rest().escape_ascii().to_string(), told.escape_default().to_string());
    assert_eq!(exit_of(&mut two), ("error".to_owned(), format!("shutdown {words}").into_bytes()));
    assert_eq!(daemon.wait().status.code(), Some(0));
    assert_eq!(daemon.log_text().matches("started pid").count(), 1);
}

/// Clients come, wait and leave in every way, beside others that are served. No slot is lost.
#[test]
fn no_slot_is_lost() {
    const LIMIT: Duration = Duration::from_millis(200);
    let mut daemon = Daemon::start("-m 2 -t 60 -k 0.1 --request-timeout 0.2");
    let start = |daemon: &Daemon, version, words: &str| send_within(LIMIT, daemon, &request(version, &steps(words)));
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let daemon = &daemon;
            scope.spawn(move || {
                for n in 0..60_u32 {
                    let version = if (n + thread).is_multiple_of(2) { 1 } else { 2 };
                    match (n * 7 + thread) % 6 {
                        0 => drop(start(daemon, version, "wait")),
                        1 => {
                            let request = request(version, &["no-such-program".to_owned()]);
                            exit_of(&mut send_within(LIMIT, daemon, &request));
                        }
                        2 => {
                            let mut client = daemon.connect();
                            let _ = client.try_send(b"junk");
                        }
                        3 => {
                            let mut client = start(daemon, version, "write-out 100000 exit 1");
                            client.half_close();
                            exit_of(&mut client);
                        }
                        4 => drop(daemon.connect()),
                        _ => assert_eq!(exit_of(&mut start(daemon, version, "exit 2")).1, b"2"),
                    }
                }
            });
        }
    });
    // As many as there are slots run at once, and one more waits.
    let lives = ["one", "two"].map(|name| daemon.fifo(name));
    let running: Vec<Client> =
        lives.iter().map(|life| start(&daemon, 1, &format!("hold {} wait", life.path()))).collect();
    for mut life in lives {
        life.holder();
    }
    eventually("quiet", || status(&daemon)["totals"]["running"] == 2 && waiting(&daemon) == 0);
    drop(running);
    daemon.assert_serves();
    eventually("nothing is left", || daemon.process().children() == (0, 0));
}

/// Before Linux 6.9 nobody can know whether a group is empty whose client has vanished. Its slot is
/// free when the leader is dead, and a zombie waits until KILL is due. Each used to keep a
/// descriptor that no limit counted, so 95 clients a second used up 1,024 descriptors. Now they
/// keep none, and those beyond `-m` take a slot each.
#[test]
fn what_clients_leave_on_an_older_kernel_takes_slots() {
    use crate::faults::strace::{self, Fault, Strace, Whom};
    if !strace::is_usable() {
        return;
    }
    let mut daemon = Daemon::start("-m 3 -t 0 -k 1000");
    daemon.assert_serves();
    daemon.wait_for_log("connection 1: over");
    let descriptors = daemon.process().descriptors();
    // A kernel without PIDFD_SIGNAL_PROCESS_GROUP.
    let fault = Fault { call: "pidfd_send_signal", error: "EINVAL", when: "1+".into() };
    let strace = Strace::inject(daemon.process(), Whom::Daemon, &fault);
    for (left, taken) in [(1, 0), (2, 0), (3, 0), (4, 1), (5, 2), (6, 3)] {
        let position = daemon.log_position();
        let mut client = daemon.exec(&steps("out ready wait"));
        client.wait_for("ready");
        drop(client);
        daemon.wait_for_log_after(position, "ended: signal 15");
        // The zombie keeps the number of its group, and nothing else is left.
        eventually("no descriptor", || daemon.process().descriptors() == descriptors);
        assert_eq!(daemon.process().children(), (left, left));
        // The daemon may be about to look for members.
        eventually("so many slots", || {
            let position = daemon.log_position();
            daemon.signal(Signal::USR1);
            daemon.wait_for_log_after(position, " times\n");
            daemon.log_text().split_off(position).contains(&format!("{taken} of 3 slots taken"))
        });
    }
    let position = daemon.log_position();
    let waits = daemon.exec(&steps("out never"));
    daemon.wait_for_log_after(position, "waits for a slot");
    strace.detach();
    // KILL is due at once.
    daemon.signal(Signal::TERM);
    daemon.signal(Signal::INT);
    assert_eq!(daemon.wait().status.code(), Some(0));
    waits.until_gone();
}

/// The slots are free once what the clients have left was sent KILL.
#[test]
fn kill_frees_the_slots_on_an_older_kernel() {
    use crate::faults::strace::{self, Fault, Strace, Whom};
    if !strace::is_usable() {
        return;
    }
    let daemon = Daemon::start("-m 1 -t 0 -k 0.5");
    let fault = Fault { call: "pidfd_send_signal", error: "EINVAL", when: "1+".into() };
    let strace = Strace::inject(daemon.process(), Whom::Daemon, &fault);
    for _ in 0..5 {
        let position = daemon.log_position();
        let mut client = daemon.exec(&steps("out ready wait"));
        client.wait_for("ready");
        drop(client);
        daemon.wait_for_log_after(position, "ended: signal 15");
    }
    eventually("nobody is left", || daemon.process().children() == (0, 0));
    assert_eq!(daemon.run(&steps("exit 3"), b"").code(), 3);
    strace.detach();
}

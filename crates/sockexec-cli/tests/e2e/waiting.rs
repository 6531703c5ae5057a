//! The waiting room: who is in it, who must leave when it is full, and whose turn is next.

use std::fs::{self, Permissions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::Uid;

use crate::common::{Client, Daemon, Launch, eventually, pairs, steps};
use crate::slots::{exit_of, request, start, status, waiting};
use crate::version_2::{descriptors, netstring};

/// The answer to a client of version 1 that had to leave.
pub(crate) const BUSY: &str = "sockexec: too many requests wait; nothing was started\n";

/// The same in version 2.
const BUSY_2: &str = "busy too many requests wait; nothing was started";

/// A daemon with one slot, which is taken, and a room of this size. Input of that client ends its
/// program.
fn full(options: &str) -> (Daemon, Client) {
    let daemon = Daemon::start(&format!("-m 1 -t 0 --request-timeout 0 {options}"));
    let mut running = start(&daemon, 1, "out ready cat");
    running.wait_for("ready");
    (daemon, running)
}

/// A client whose request waits for a slot. The log shows it. A question for the status would be in
/// the room itself, and if that is full, somebody would have to leave before the question arrives.
#[track_caller]
fn waits(daemon: &Daemon, version: u8, words: &str) -> Client {
    let position = daemon.log_position();
    let client = start(daemon, version, words);
    daemon.wait_for_log_after(position, "waits for a slot");
    client
}

fn turned_away(daemon: &Daemon) -> u64 {
    status(daemon)["totals"]["turned_away"].as_u64().expect("a number")
}

#[track_caller]
fn assert_busy(client: &mut Client) {
    let said = pairs(&client.rest());
    let text = |n: usize| (said[n].0.as_str(), str::from_utf8(&said[n].1).expect("text"));
    match said.last().expect("an answer").0.as_str() {
        "error" => assert_eq!(text(said.len() - 1), ("error", BUSY_2)),
        _ => assert_eq!((said.len(), text(0), text(1)), (2, ("stderr", BUSY), ("exitcode", "125"))),
    }
}

/// A hundred silent clients used to keep everybody out for `--request-timeout` seconds, again and
/// again.
#[test]
fn silent_clients_keep_nobody_out() {
    let mut daemon = Daemon::start("-t 0 --request-timeout 0 --max-waiting 50");
    let silent: Vec<Client> = (0..100).map(|_| daemon.connect()).collect();
    daemon.assert_serves();
    // The clients beyond the room were closed without a word, because nobody knows which version
    // they speak.
    let gone = silent.into_iter().filter_map(|mut client| {
        client.socket().set_nonblocking(true).expect("a mode");
        (client.try_rest() == Some(Vec::new())).then_some(())
    });
    assert!(gone.count() >= 100 - 50 - 6, "fifty have places, and six may be more for a moment");
}

/// When programs used to take all slots, nobody could ask why.
#[test]
fn a_question_is_answered_and_takes_no_place() {
    let (daemon, mut running) = full("--max-waiting 2");
    let mut clients = [waits(&daemon, 1, "out one"), waits(&daemon, 2, "out two")];
    for _ in 0..20 {
        let mut ping = daemon.connect();
        daemon.wait_for_log("accepted");
        ping.send(&netstring("protocol=2"));
        ping.half_close();
        assert_eq!(exit_of(&mut ping).0, "protocol");
        assert_eq!(turned_away(&daemon), 0);
    }
    running.end_stdin();
    assert_eq!(running.reply().code(), 0);
    for client in &mut clients {
        assert_eq!(exit_of(client).1, b"0");
    }
}

/// Of one user's clients, a silent one must leave first, then the one that came last.
#[test]
fn the_silent_and_the_latest_leave_a_full_room() {
    for version in [1, 2] {
        let (mut daemon, mut running) = full("--max-waiting 3");
        let mut silent = daemon.connect();
        let mut half = daemon.connect();
        half.send(&request(version, &steps("out half"))[..20]);
        let mut one = waits(&daemon, version, "out one");
        // They have a second each to send something.
        let mut two = waits(&daemon, version, "out two");
        assert_eq!(silent.rest(), b"");
        let mut three = waits(&daemon, version, "out three");
        assert_busy(&mut half);
        assert_eq!(turned_away(&daemon), 2);
        for version in [1, 2] {
            // What it still sends does not destroy its answer.
            let mut late = start(&daemon, version, "cat");
            let _ = late.try_send(&vec![b'x'; 100_000]);
            assert_busy(&mut late);
        }
        let told = status(&daemon);
        assert_eq!((&told["totals"]["turned_away"], &told["totals"]["waiting"]), (&4.into(), &3.into()), "{told}");
        // It is logged once, and what is logged at the end comes after it.
        daemon.wait_for_log("connection 3: turned away");
        let log = daemon.whole_log();
        assert_eq!(log.matches("more than 3 connections wait (--max-waiting)").count(), 1, "{log}");
        running.end_stdin();
        assert_eq!(running.reply().code(), 0);
        for client in [&mut one, &mut two, &mut three] {
            assert_eq!(exit_of(client).1, b"0");
        }
        daemon.assert_serves();
    }
}

/// A reply that nobody reads has a place too, and can lose it. One that a client is reading does
/// not.
#[test]
fn replies_that_nobody_reads_lose_their_places() {
    let mut daemon = Daemon::start("-m 1 -t 0 --max-waiting 2");
    // More than the socket takes. The rest stays in the daemon.
    let lazy = |n: u64| {
        let client = start(&daemon, 1, "write-out 600000 exit 6");
        eventually("the end of the program", || status(&daemon)["totals"]["finished"] == n);
        client
    };
    let (first, second, third) = (lazy(1), lazy(2), lazy(3));
    daemon.wait_for_log("connection 1: turned away");
    let first = { first }.lossy();
    assert!(first.len() > 100_000 && !first.ends_with(b"8:exitcode,1:6,"), "{} bytes", first.len());
    for client in [second, third] {
        let reply = client.reply();
        assert_eq!((reply.stdout.len(), reply.code()), (600_000, 6));
    }
    assert_eq!(turned_away(&daemon), 1);
    daemon.assert_serves();
}

/// Clients that had to leave get time to read that, and still do not pile up.
#[test]
fn clients_turned_away_do_not_pile_up() {
    let (daemon, _running) = full("--max-waiting 4");
    let _waiting = [1, 2, 1, 2].map(|version| waits(&daemon, version, "out word"));
    daemon.process().wait_until_blocked();
    let before = daemon.process().descriptors();
    let mut late: Vec<Client> = (0..100).map(|n| start(&daemon, 1 + n % 2, "cat")).collect();
    late.iter_mut().for_each(assert_busy);
    // Two that were told, and two that may be too many.
    let after = daemon.process().descriptors();
    assert!(after <= before + 4, "{before} descriptors, and then {after}");
    assert_eq!(turned_away(&daemon), 100);
    daemon.assert_idle("nothing but those that wait");
}

/// Requests with descriptors wait like others, and there are descriptors for all of them.
#[test]
fn requests_with_descriptors_wait_like_others() {
    let mut daemon = Launch::default().options("-m 2 -t 0").prelude("ulimit -n 256").start();
    let mut running = [1, 2].map(|version| start(&daemon, version, "out ready cat"));
    for client in &mut running {
        client.wait_for("ready");
    }
    let null = fs::File::options().read(true).write(true).open("/dev/null").expect("a device");
    let request = [netstring("protocol=2"), netstring("fds"), crate::common::request(&steps("exit 3"))].concat();
    let places = status(&daemon)["limits"]["max_waiting"].as_u64().expect("a number");
    assert_eq!(places, 23);
    let mut clients: Vec<Client> = (0..places)
        .map(|_| {
            let client = daemon.connect();
            descriptors::send_from(&client, &request, &[null.as_fd(), null.as_fd(), null.as_fd()]);
            client
        })
        .collect();
    eventually("all that wait", || waiting(&daemon) == places);
    let mut late = daemon.connect();
    descriptors::send_from(&late, &request, &[null.as_fd(), null.as_fd(), null.as_fd()]);
    assert_busy(&mut late);
    let [one, two] = &mut running;
    one.end_stdin();
    two.send(b"5:stdin,0:,");
    for client in &mut clients {
        assert_eq!(exit_of(client), ("exitcode".to_owned(), b"3".to_vec()));
    }
    let log = daemon.terminate().stderr;
    assert!(!log.contains("cannot"), "{log}");
}

// Users.

/// A daemon to which every user can connect. `None`, with a message: only root can act as several
/// users.
fn open_to_all(options: &str) -> Option<Daemon> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can be several users");
        return None;
    }
    let daemon = Daemon::start(&format!("-t 0 -M 666 {options}"));
    fs::set_permissions(daemon.directory(), Permissions::from_mode(0o755)).expect("permissions");
    Some(daemon)
}

/// A connection of the user with this uid.
#[track_caller]
fn connect_as(daemon: &Daemon, uid: u32) -> Client {
    let connect = || {
        // On Linux each thread has a user, and the kernel records that of the thread that connects.
        rustix::thread::set_thread_res_uid(None, Uid::from_raw(uid), None).expect("root may");
        Client::connect(daemon.socket())
    };
    thread::scope(|scope| scope.spawn(connect).join().expect("a connection"))
}

#[track_caller]
fn start_as(daemon: &Daemon, uid: u32, version: u8, words: &str) -> Client {
    let mut client = connect_as(daemon, uid);
    client.send(&request(version, &steps(words)));
    client
}

#[track_caller]
fn waits_as(daemon: &Daemon, uid: u32, words: &str) -> Client {
    let before = waiting(daemon);
    let client = start_as(daemon, uid, 2, words);
    eventually("one more that waits", || waiting(daemon) == before + 1);
    client
}

/// One user fills the room. It makes way for the others until they have as many places.
#[test]
fn the_user_with_most_places_makes_way() {
    let Some(daemon) = open_to_all("-m 1 --max-waiting 4") else { return };
    let mut running = start_as(&daemon, 2001, 1, "out ready cat");
    running.wait_for("ready");
    let mut ones: Vec<Client> = (0..4).map(|_| waits_as(&daemon, 2001, "exit 1")).collect();
    let twos = [start_as(&daemon, 2002, 2, "exit 2"), start_as(&daemon, 2002, 2, "exit 2")];
    for _ in 0..2 {
        assert_busy(&mut ones.pop().expect("four"));
    }
    // In a tie the newcomer's user loses.
    assert_busy(&mut start_as(&daemon, 2002, 1, "exit 2"));
    assert_busy(&mut start_as(&daemon, 2001, 1, "exit 1"));
    assert_eq!((waiting(&daemon), turned_away(&daemon)), (4, 4));
    running.end_stdin();
    assert_eq!(running.reply().code(), 0);
    for (clients, code) in [(ones, b"1"), (twos.into(), b"2")] {
        for mut client in clients {
            assert_eq!(exit_of(&mut client).1, code);
        }
    }
}

/// One user's hundred requests do not delay another user's single one.
#[test]
fn users_have_slots_in_turn() {
    let Some(daemon) = open_to_all("-m 1") else { return };
    let mut running = start_as(&daemon, 2001, 1, "out ready cat");
    running.wait_for("ready");
    let log = daemon.directory().join("log");
    let mut clients = Vec::new();
    for (uid, name) in [(2001, "a1"), (2001, "a2"), (2001, "a3"), (2002, "b1"), (2003, "c1"), (2002, "b2")] {
        let before = waiting(&daemon);
        let mut client = connect_as(&daemon, uid);
        let append = format!("echo {name} >>{}", log.display());
        client.send(&request(1, &["/bin/sh".to_owned(), "-c".to_owned(), append]));
        eventually("one more that waits", || waiting(&daemon) == before + 1);
        clients.push(client);
    }
    running.end_stdin();
    assert_eq!(running.reply().code(), 0);
    for client in &mut clients {
        assert_eq!(exit_of(client).1, b"0");
    }
    let served = fs::read_to_string(&log).expect("a log");
    assert_eq!(served.lines().collect::<Vec<_>>(), ["a1", "b1", "c1", "a2", "b2", "a3"]);
}

/// A user with as many programs as it may have waits, while others get slots.
#[test]
fn the_programs_of_one_user_are_limited() {
    let Some(daemon) = open_to_all("-m 3 --max-per-user 1") else { return };
    assert_eq!(status(&daemon)["limits"]["max_per_user"], 1);
    let mut running = start_as(&daemon, 2001, 1, "out ready cat");
    running.wait_for("ready");
    let mut second = waits_as(&daemon, 2001, "exit 1");
    assert_eq!(start_as(&daemon, 2002, 1, "exit 2").reply().code(), 2);
    let mut other = start_as(&daemon, 2003, 1, "out ready cat");
    other.wait_for("ready");
    assert_eq!(start_as(&daemon, 2002, 1, "exit 2").reply().code(), 2);
    assert_eq!((waiting(&daemon), status(&daemon)["totals"]["running"].as_u64()), (1, Some(2)));
    running.end_stdin();
    assert_eq!(running.reply().code(), 0);
    assert_eq!(exit_of(&mut second).1, b"1");
    other.end_stdin();
    assert_eq!(other.reply().code(), 0);
}

/// The same for the single user of an unprivileged test. A limit as high as the number of slots has
/// no effect.
#[test]
fn one_user_is_limited_although_slots_are_free() {
    let daemon = Daemon::start("-m 5 -t 0 --max-per-user 2");
    let mut running = [(); 2].map(|()| start(&daemon, 1, "out ready cat"));
    for client in &mut running {
        client.wait_for("ready");
    }
    let mut third = waits(&daemon, 2, "exit 3");
    running[0].end_stdin();
    assert_eq!(exit_of(&mut third).1, b"3");
    running[1].end_stdin();
    let daemon = Daemon::start("-m 2 --max-per-user 2");
    assert!(status(&daemon)["limits"]["max_per_user"].is_null());
}

// Memory.

/// A request of about 1.9 MB, which Linux still takes as arguments.
fn big(version: u8, words: &str) -> Arc<Vec<u8>> {
    let mut argv = steps(words);
    argv.extend(vec!["x".repeat(100_000); 19]);
    Arc::new(request(version, &argv))
}

/// Clients that send the request and read the answer, each on a thread, because the daemon may
/// leave the request in the socket.
fn send_all(daemon: &Daemon, request: &Arc<Vec<u8>>, clients: usize) -> Vec<thread::JoinHandle<Vec<u8>>> {
    let send = |_| {
        let (mut client, request) = (daemon.connect(), Arc::clone(request));
        thread::spawn(move || {
            client.send(&request);
            client.rest()
        })
    };
    (0..clients).map(send).collect()
}

/// The number of requests that are left in their sockets.
fn left(daemon: &Daemon) -> usize {
    let told = status(daemon);
    let all = told["connections"].as_array().expect("connections");
    all.iter().filter(|it| it["state"] == "memory for its request").count()
}

/// A thousand of the largest requests used to take 5 GB.
#[test]
fn requests_that_wait_share_a_limit_of_memory() {
    let (daemon, mut running) = full("--max-waiting 400");
    let before = daemon.process().peak_kib();
    let clients = send_all(&daemon, &big(1, "exit 3"), 100);
    eventually("as many in memory as there is room for, and the others in their sockets", || {
        waiting(&daemon) + left(&daemon) as u64 == 100
    });
    // At most 34, and the one that may always go on. Fewer if parts of other requests fill the
    // memory.
    let (in_memory, left) = (waiting(&daemon), left(&daemon));
    assert!((1..=36).contains(&in_memory) && left >= 64, "{in_memory} and {left}");
    daemon.assert_idle("requests that are left in their sockets");
    let peak = daemon.process().peak_kib() - before;
    assert!(peak < 90 << 10, "{peak} KiB");
    // A small request is answered, or waits in memory.
    let mut small = waits(&daemon, 2, "exit 4");
    running.end_stdin();
    assert_eq!(running.reply().code(), 0);
    for client in clients {
        let raw = client.join().expect("a reply");
        assert_eq!(pairs(&raw).pop().expect("an end").1, b"3", "{}", raw.escape_ascii());
    }
    assert_eq!(exit_of(&mut small).1, b"4");
    let peak = daemon.process().peak_kib() - before;
    assert!(peak < 90 << 10, "{peak} KiB");
}

/// Requests that will never be complete may fill the memory. Then one of those in the sockets goes
/// on, and then the next.
#[test]
fn half_requests_keep_nobody_out() {
    let daemon = Daemon::start("-t 0 --request-timeout 0");
    let whole = big(2, "exit 3");
    let half = Arc::new(whole[..whole.len() - 1].to_vec());
    let halves = send_all(&daemon, &half, 37);
    eventually("some that are left", || left(&daemon) > 0);
    let clients = send_all(&daemon, &whole, 3);
    for client in clients {
        let raw = client.join().expect("a reply");
        assert_eq!(pairs(&raw).pop().expect("an end").1, b"3", "{}", raw.escape_ascii());
    }
    // Those that went on and then sent nothing for a second have lost their places. Some of the
    // others never had to.
    assert!(turned_away(&daemon) < 10);
    drop(daemon);
    for half in halves {
        let said = pairs(&half.join().expect("an end"));
        let last = said.last().expect("an introduction");
        assert!(last.0 == "protocol" || last.1 == BUSY_2.as_bytes() || last.1.starts_with(b"shutdown"), "{last:?}");
    }
}

/// A request that is left in its socket gets its time when it is read.
#[test]
fn the_time_of_a_request_stands_still_in_its_socket() {
    const LIMIT: u64 = 4;
    let daemon = Daemon::start(&format!("-m 1 -t 0 --request-timeout {LIMIT}"));
    let mut running = start(&daemon, 1, "out ready cat");
    running.wait_for("ready");
    let (request, mut clients) = (big(2, "exit 3"), Vec::new());
    // One at a time: a busy machine needs longer than the limit for all of them.
    for n in 1..=38 {
        clients.append(&mut send_all(&daemon, &request, 1));
        eventually("one more in memory or in its socket", || waiting(&daemon) + left(&daemon) as u64 == n);
    }
    // Longer than the time for a request, however much longer.
    thread::sleep(Duration::from_millis(LIMIT * 1000 + 500));
    assert!(left(&daemon) > 0);
    running.end_stdin();
    assert_eq!(running.reply().code(), 0);
    for client in clients {
        let raw = client.join().expect("a reply");
        assert_eq!(pairs(&raw).pop().expect("an end").1, b"3", "{}", raw.escape_ascii());
    }
    assert_eq!(status(&daemon)["totals"]["timed_out"], 0);
}

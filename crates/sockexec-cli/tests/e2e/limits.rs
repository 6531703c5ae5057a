//! How many programs at a time, how few descriptors, and what an idle daemon costs.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit, Signal};

use crate::common::{Client, Daemon, Launch, SetOnDrop, eventually, is_refused, steps};
use crate::slots::status;
use crate::waiting::BUSY;

/// Raises the limit of descriptors for a test that is many clients itself.
pub(crate) fn raise_own_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(4096).min(4096);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        rustix::process::setrlimit(Resource::Nofile, raised).expect("within the hard limit");
    }
}

/// In 3.1.1 `-m 2` admitted 3 clients, and the rest were accepted and closed at once.
#[test]
fn no_more_than_m_at_a_time_and_the_rest_wait() {
    let daemon = Daemon::start("-m 2 -t 0");
    let (mut one, mut two) = (daemon.fifo("one"), daemon.fifo("two"));
    let first = daemon.exec(&steps(&format!("hold {} wait", one.path())));
    let second = daemon.exec(&steps(&format!("hold {} wait", two.path())));
    one.holder();
    two.holder();
    let mut waiting: Vec<Client> = (0..20).map(|n| daemon.exec(&steps(&format!("exit {n}")))).collect();
    // Long enough for a daemon that would serve them.
    daemon.assert_idle("two run, twenty wait");
    assert_eq!(daemon.process().children().0, 2);
    let last = waiting.pop();
    drop(first);
    for (n, client) in waiting.into_iter().enumerate() {
        assert_eq!(usize::try_from(client.reply().code()).unwrap(), n);
    }
    drop(second);
    assert_eq!(last.expect("the twentieth").reply().code(), 19);
}

/// Slots become free again and again, also when clients leave before they are served.
#[test]
fn clients_that_leave_the_backlog_free_their_slots() {
    let mut daemon = Daemon::start("-m 1 -t 0");
    let mut life = daemon.fifo("life");
    let first = daemon.exec(&steps(&format!("hold {} wait", life.path())));
    life.holder();
    for _ in 0..30 {
        drop(daemon.exec(&steps("out never")));
    }
    let last = daemon.exec(&steps("out last"));
    drop(first);
    assert_eq!(last.reply().stdout_text(), "last");
    daemon.assert_serves();
}

/// Descriptors are reserved if the limit leaves some, never at the expense of `-m`.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[test]
fn descriptors_are_reserved_for_a_crowd() {
    if is_refused("close_range") {
        eprintln!("SKIPPED: no child can leave the daemon's table without close_range, so none are reserved");
        return;
    }
    let descriptors = |options: &str, limit: &str| {
        // The tests may run with other ways to start programs, which reserve none, or always.
        let launch = Launch::default().options(options).env("SOCKEXEC_SPAWN", "clone3");
        let daemon = launch.prelude(&format!("ulimit -n {limit}")).start();
        let log = daemon.whole_log();
        assert!(!log.contains("descriptors (ulimit"), "{log}");
        daemon.process().descriptors()
    };
    // No descriptor for a watch of the socket file either.
    let few = descriptors("-m 100", "728");
    for options in ["-m 10", "-m 100"] {
        let many = descriptors(options, "1024");
        assert!(few + 65 <= many && many < few + 80, "{few}, {many}");
    }
}

/// The daemon raises its own limit of descriptors. Programs get the limit that its starter had,
/// whichever way they are started.
#[test]
fn the_soft_limit_is_for_programs_and_the_hard_one_for_the_daemon() {
    for way in ["", "clone3", "clone", "fork", "crowd"] {
        let launch = Launch::default().options("-m 100 -t 0").env("SOCKEXEC_SPAWN", way);
        let mut daemon = launch.prelude("ulimit -S -n 100; ulimit -H -n 5000").start();
        let limits = format!("/proc/{}/limits", daemon.process().0.as_raw_pid());
        let limits = std::fs::read_to_string(limits).expect("the limits of a child");
        let own = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit of descriptors");
        assert_eq!(own.split_whitespace().take(2).collect::<Vec<_>>(), ["5000", "5000"], "{way}");
        for option in [None, Some("pty=80x24"), Some("stderr=stdout")] {
            let mut client = daemon.connect();
            let words = [Some("protocol=2"), option].into_iter().flatten().map(crate::version_2::netstring);
            client.send(&words.collect::<Vec<_>>().concat());
            client.send(&crate::common::request(&["sh", "-c", "ulimit -S -n; ulimit -H -n"]));
            let raw = client.rest();
            let said: Vec<u8> = crate::common::pairs(&raw)
                .into_iter()
                .filter(|(tag, _)| tag == "stdout")
                .flat_map(|(_, payload)| payload)
                .collect();
            let said = String::from_utf8_lossy(&said);
            assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["100", "5000"], "{way} {option:?}");
        }
        let log = daemon.whole_log();
        assert!(!log.contains("warning: a limit"), "{log}");
        daemon.assert_serves();
    }
}

/// `-m 100` with 64 descriptors: the daemon says so, serves as many as it can, and tells the others
/// that it cannot.
#[test]
fn few_descriptors_serve_few_clients() {
    let mut daemon = Launch::default().options("-m 100 -t 0").prelude("ulimit -n 64").start();
    daemon.wait_for_log("warning: ");
    let log = daemon.log_text().to_lowercase();
    assert!(log.contains("warning") && log.contains("64") && log.contains("100"), "{log}");
    let clients: Vec<Client> = (0..100).map(|n| daemon.exec(&steps(&format!("cat exit {n}")))).collect();
    daemon.assert_idle("a hundred clients with 64 descriptors");
    let mut served = 0;
    for (n, mut client) in (0..).zip(clients) {
        let _ = client.try_send(b"1:x,0:,");
        let reply = client.reply();
        if reply.stderr.is_empty() {
            assert_eq!((reply.stdout_text(), reply.code()), ("x", n));
            served += 1;
        } else {
            assert_eq!((reply.stderr_text(), reply.code()), (BUSY, 125));
        }
    }
    assert_eq!(served, 4 + 3, "four slots, and three places for those that wait");
    // An older kernel, or a filter around the daemon, causes other lines.
    let log = daemon.whole_log();
    let has_other_cause = |line: &str| line.contains("the kernel lacks") || line.contains("not permitted");
    assert!(!log.lines().any(|line| line.contains("cannot") && !has_other_cause(line)), "{log}");
    daemon.assert_serves();
}

/// With the fewest possible descriptors, one client at a time is served. With one less, the daemon
/// says what to do.
#[test]
fn the_fewest_descriptors_serve_one_client() {
    let mut daemon = Launch::default().options("-m 100").quiet().prelude("ulimit -n 28").start();
    daemon.wait_for_log("allows 1 programs at once");
    daemon.assert_serves();
    let stopped = Launch::default().quiet().prelude("ulimit -n 27").run();
    assert_eq!(stopped.status.code(), Some(111), "{stopped:?}");
    let expected = "27 descriptors are not enough to run a program; raise the limit (ulimit -n)";
    assert!(stopped.stderr.contains(expected), "{stopped:?}");
}

/// The warning comes without `-d`, and only if the limit is too low.
#[test]
fn the_warning_about_descriptors_needs_no_debug_option() {
    let mut daemon = Launch::default().options("-m 100").quiet().prelude("ulimit -n 64").start();
    daemon.assert_serves();
    daemon.wait_for_log("64");
    let mut daemon = Launch::default().options("-m 4").quiet().prelude("ulimit -n 64").start();
    daemon.assert_serves();
    assert_eq!(daemon.terminate().complaints(), "");
}

/// Spools need descriptors too, but not those promised to the slots.
#[test]
fn few_descriptors_and_many_spools() {
    let mut daemon = Launch::default().options("-m 100 -t 0").prelude("ulimit -n 200").start();
    let len = 3_000_000;
    let mut clients: Vec<Client> = (0..13).map(|_| daemon.exec(&steps(&format!("write-out {len}")))).collect();
    for mut client in clients.drain(..) {
        client.end_stdin();
        let reply = client.reply();
        assert_eq!((reply.stdout.len(), reply.code()), (len, 0));
    }
    daemon.assert_serves();
}

/// With `--linger` each program has a descriptor for its exit besides its spool's, the most that
/// one can need.
#[test]
fn few_descriptors_and_everything_at_once() {
    let mut daemon = Launch::default().options("-m 100 -t 0 --linger 50").prelude("ulimit -n 202").start();
    let len = 3_000_000;
    let clients: Vec<Client> = (0..13).map(|_| daemon.exec(&steps(&format!("write-out {len}")))).collect();
    for mut client in clients {
        client.end_stdin();
        let reply = client.reply();
        assert_eq!((reply.stderr_text(), reply.stdout.len(), reply.code()), ("", len, 0));
    }
    daemon.assert_serves();
}

/// Clients that connect and close as fast as they can used to keep the loop busy. Other clients
/// waited seconds for each answer, and TERM did too. How long an answer takes depends on the
/// machine. How many clients are accepted in a turn of the loop does not.
#[test]
fn a_client_is_served_beside_a_flood_of_connections() {
    const ACCEPTS_A_TURN: u64 = 64;
    let mut daemon = Daemon::start("-t 0");
    let mut client = daemon.exec(&steps("cat"));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // It is refused while the backlog is full, which does not matter here.
                    drop(UnixStream::connect(daemon.socket()));
                }
            });
        }
        let _end = SetOnDrop(&over);
        for n in 0..200 {
            let text = format!("<{n}>");
            client.stdin(text.as_bytes());
            client.wait_for(&text);
        }
    });
    let accepted = status(&daemon)["totals"]["accepted"].as_u64().expect("a number");
    let turns = daemon.turns().0;
    assert!(accepted <= turns * ACCEPTS_A_TURN, "{accepted} clients in {turns} turns");
    client.end_stdin();
    assert_eq!(client.reply().code(), 0);
    assert!(daemon.terminate().status.success());
}

/// In 3.1.1, beside 400 busy clients, 6 of 800 answers were wrong.
#[test]
fn eight_hundred_served_beside_four_hundred_busy() {
    raise_own_limit();
    let daemon = Launch::default().options("-m 500 -q 1000 -t 0").prelude("ulimit -n $(ulimit -H -n) || :").start();
    let busy: Vec<Client> = (0..400).map(|_| daemon.exec(&["cat"])).collect();
    thread::scope(|scope| {
        for worker in 0..4 {
            let daemon = &daemon;
            scope.spawn(move || {
                for n in 0..200 {
                    let text = format!("{worker} {n}");
                    let reply = daemon.run(&["printf", "%s", &text], b"");
                    assert_eq!((reply.stdout_text(), reply.code()), (text.as_str(), 0));
                }
            });
        }
    });
    for (n, mut client) in busy.into_iter().enumerate() {
        let text = format!("still {n}");
        client.stdin(text.as_bytes());
        client.end_stdin();
        assert_eq!(client.reply().stdout_text(), text);
    }
}

/// More clients at once than the backlog and the slots hold. They wait in connect(2), and all are
/// served.
#[test]
fn a_flood_of_clients_over_a_short_backlog() {
    let daemon = Daemon::start("-m 3 -q 1 -t 0");
    thread::scope(|scope| {
        for n in 0..40 {
            let daemon = &daemon;
            scope.spawn(move || {
                let text = format!("number {n}");
                assert_eq!(daemon.run(&["printf", "%s", &text], b"").stdout_text(), text);
            });
        }
    });
}

/// `-q` is the length of the queue of a daemon that does not accept. Later clients wait in
/// connect(2), or get EAGAIN if they are non-blocking.
#[test]
fn the_queue_has_the_requested_length() {
    for queue in [1, 5, 50] {
        let daemon = Daemon::start(&format!("-q {queue}"));
        daemon.stop();
        let address = SocketAddrUnix::new(daemon.socket()).unwrap();
        let mut clients = Vec::new();
        let error = loop {
            // Close-on-exec, or a daemon that another test starts now has up to 51 descriptors less.
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let client = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
            match rustix::net::connect(&client, &address) {
                Ok(()) => clients.push(client),
                Err(error) => break error,
            }
        };
        assert_eq!(error, rustix::io::Errno::AGAIN);
        // Linux admits one more than asked for.
        assert!((queue..=queue + 1).contains(&clients.len()), "-q {queue}: {}", clients.len());
        daemon.signal(Signal::CONT);
    }
}

/// Sets the soft limit of descriptors of a running daemon.
pub(crate) fn limit_descriptors(daemon: &Daemon, descriptors: u64) {
    let pid = Some(daemon.process().0);
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    rustix::process::prlimit(pid, Resource::Nofile, Rlimit { current: Some(descriptors), maximum })
        .expect("the limit of a child");
}

/// A failure of the daemon is 125, with its reason. Here no descriptor is left for the pipes.
#[test]
fn no_descriptors_for_a_program_is_125() {
    let mut daemon = Daemon::start("-t 0");
    let before = daemon.process().descriptors();
    let mut client = daemon.connect();
    client.send(b"1:1,");
    eventually("an accepted connection", || daemon.process().descriptors() > before);
    limit_descriptors(&daemon, 3);
    client.send(b"4:true,");
    let reply = client.reply();
    // Each C library has its own words for the error.
    let error = rustix::io::Errno::MFILE.to_string();
    let reason = error.split(" (os error").next().unwrap();
    let words = format!("sockexec: true: {reason}: the daemon is limited to 3 descriptors (ulimit -n)\n");
    assert_eq!((reply.stderr_text(), reply.code()), (&words[..], 125));
    limit_descriptors(&daemon, 1000);
    daemon.assert_serves();
}

/// Nothing can be accepted. The daemon neither spins on the event nor floods the log. Waiting
/// clients are served when there are descriptors again.
#[test]
fn no_descriptors_to_accept_with() {
    let mut daemon = Daemon::start("-t 0");
    daemon.assert_serves();
    limit_descriptors(&daemon, 3);
    let position = daemon.log_position();
    let waiting: Vec<Client> = (0..10).map(|n| daemon.exec(&steps(&format!("exit {n}")))).collect();
    daemon.wait_for_log_after(position, "cannot accept");
    daemon.assert_idle("ten wait, and none can be accepted");
    let said = daemon.whole_log()[position..].matches("cannot accept").count();
    assert!(said <= 3, "the same was said {said} times");
    limit_descriptors(&daemon, 1000);
    for (n, client) in (0..).zip(waiting) {
        assert_eq!(client.reply().code(), n);
    }
    daemon.assert_serves();
}

// A daemon spins if an event is reported again and again and nothing handles it.

#[track_caller]
fn assert_idle_after(steps_of: &str, state: &str, options: &str, act: impl FnOnce(&mut Client)) {
    let daemon = Daemon::start(options);
    let mut client = daemon.exec(&steps(steps_of));
    client.wait_for("ready");
    act(&mut client);
    // First everything comes to rest: no child writes, and no tick passes.
    daemon.process().wait_until_blocked();
    daemon.assert_idle(state);
}

#[test]
fn idle_with_nobody() {
    let mut daemon = Daemon::start("");
    daemon.assert_serves();
    daemon.assert_idle("nobody is connected");
}

#[test]
fn idle_with_silent_clients() {
    let daemon = Daemon::start("-t 0");
    let silent = daemon.connect();
    let mut half = daemon.connect();
    half.send(b"1:2,5:una");
    daemon.assert_idle("no request, and half of one");
    drop((silent, half));
}

#[test]
fn idle_with_a_program_that_waits() {
    assert_idle_after("out ready wait", "a program that waits", "-t 0", |_| {});
}

#[test]
fn idle_with_a_half_closed_client() {
    assert_idle_after("out ready wait", "a half-closed client", "-t 0", |client| client.half_close());
}

#[test]
fn idle_with_stdin_ended_and_bytes_after_it() {
    assert_idle_after("out ready wait", "bytes after the end of stdin", "-t 0", |client| {
        client.end_stdin();
        client.send(b"more");
        client.half_close();
    });
}

#[test]
fn idle_with_a_program_that_gave_up_stdin() {
    assert_idle_after("close 0 out ready wait", "stdin closed by the program", "-t 0", |client| {
        client.stdin(b"nobody reads this");
    });
}

#[test]
fn idle_with_a_program_that_gave_up_all_streams() {
    assert_idle_after("out ready close 0 close 1 close 2 wait", "all streams closed", "-t 0", |_| {});
}

#[test]
fn idle_with_stdin_full() {
    assert_idle_after("out ready wait", "stdin full", "-t 0", |client| {
        client.send(b"100000000:");
        client.send_until_blocked(|| vec![b'x'; 65_536]);
    });
}

#[test]
fn idle_with_output_full() {
    assert_idle_after("out ready write-out 9000000 wait", "output full", "-t 0 --spool 0", |_| {});
    assert_idle_after("out ready write-out 9000000 wait", "spool full", "-t 0 --spool 2000000", |_| {});
    assert_idle_after("out ready write-out 9000000 wait", "spool in use", "-t 0", |_| {});
}

#[test]
fn idle_with_output_full_and_half_closed() {
    assert_idle_after("out ready write-out 9000000 wait", "output full", "-t 0", |client| client.half_close());
}

#[test]
fn idle_with_a_holder_after_the_leaders_exit() {
    assert_idle_after("out ready spawn [ wait ]", "a holder of the output", "-t 0", |_| {});
    assert_idle_after("out ready spawn [ wait ]", "a holder, half-closed", "-t 0", |client| client.half_close());
}

#[test]
fn idle_with_a_client_that_does_not_close_after_the_end() {
    assert_idle_after("out ready", "the client keeps its end", "-t 0", |client| client.wait_for("exitcode"));
}

/// TERM was sent, and KILL is far away.
#[test]
fn idle_while_a_program_is_given_time_to_end() {
    let daemon = Daemon::start("-t 0 -k 100");
    let mut life = daemon.fifo("life");
    let client = daemon.exec(&steps(&format!("ignore TERM ; hold {} wait", life.path())));
    life.holder();
    let position = daemon.log_position();
    drop(client);
    // The daemon logs something when it sees the client's end.
    eventually("a word on the client's end", || daemon.log_position() > position);
    daemon.assert_idle("between TERM and KILL");
    assert!(life.is_held());
}

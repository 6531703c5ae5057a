//! The socket file vanishes, or another file takes its place.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::fs::FlockOperation;
use rustix::process::Signal;

use crate::common::{Client, Daemon, Launch, eventually, stale_socket, steps};
use crate::faults::strace;

/// A file system without locks used to delay the start by two seconds, with 200 attempts to lock.
#[test]
fn a_file_system_without_locks_does_not_delay_the_start() {
    if !strace::is_usable() {
        return;
    }
    for error in ["EOPNOTSUPP", "ENOLCK", "ENOSYS"] {
        let launch = Launch::default();
        let log = launch.directory().join("strace");
        let inject = format!("-e trace=flock -e inject=flock:error={error}");
        let prelude = format!("exec strace -D -s 0 -o {} {inject} \"$0\" \"$@\"", log.display());
        let mut daemon = launch.prelude(&prelude).start();
        daemon.assert_serves();
        daemon.wait_for_log("its directory cannot be locked");
        assert_eq!(daemon.terminate().status.code(), Some(0));
        let calls = fs::read_to_string(log).expect("the log of strace");
        // Once for the file, and once for its removal.
        assert_eq!(calls.matches("flock(").count(), 2, "{error}: {calls}");
    }
}

/// The daemon does not wait for ever for a lock that somebody keeps, and says so.
#[test]
fn a_lock_that_somebody_keeps_is_not_waited_for() {
    let launch = Launch::default().quiet();
    let directory = File::open(launch.directory()).unwrap();
    rustix::fs::flock(&directory, FlockOperation::LockExclusive).unwrap();
    let mut daemon = launch.start();
    daemon.wait_for_log("another process has locked its directory");
    daemon.assert_serves();
}

/// A cleaner of old files, or a careless user. An idle daemon notices, and goes on serving clients
/// that had connected before.
#[test]
fn a_file_that_is_removed_is_made_again() {
    let mut daemon = Launch::default().quiet().options("-t 0 -M 0640").start();
    let mut before = daemon.exec(&steps("out ready cat"));
    before.wait_for("ready");
    for _ in 0..3 {
        let position = daemon.log_position();
        fs::remove_file(daemon.socket()).unwrap();
        daemon.wait_for_log_after(position, "warning: ");
        daemon.wait_for_log_after(position, "sock: the socket was gone; listening there again");
        assert_eq!(fs::symlink_metadata(daemon.socket()).unwrap().permissions().mode() & 0o777, 0o640);
        daemon.assert_serves();
    }
    before.stdin(b" and done");
    before.end_stdin();
    assert_eq!(before.reply().stdout_text(), "ready and done");
    eventually("one socket", || sockets(&daemon) == (1, 0));
    daemon.assert_idle("its socket file was made again");
    assert_eq!(daemon.terminate().status.code(), Some(0));
    assert!(!daemon.socket().exists());
}

/// The number of listening sockets, in their place and elsewhere, from the answer to USR2.
fn sockets(daemon: &Daemon) -> (usize, usize) {
    let position = daemon.log_position();
    daemon.signal(Signal::USR2);
    daemon.wait_for_log_after(position, "sockexec: descriptor ");
    // The answer to USR1 comes after that of USR2.
    daemon.signal(Signal::USR1);
    daemon.wait_for_log_after(position, " times\n");
    let log = daemon.log_text().split_off(position);
    (log.matches("listening on ").count(), log.matches("listening where it was before").count())
}

/// A moved file works under its other name: clients that connect there are served.
#[test]
fn a_file_that_is_moved_still_works() {
    let mut daemon = Launch::default().quiet().start();
    let elsewhere = daemon.directory().join("elsewhere");
    // The daemon is stopped, so that they wait in the backlog of the socket that loses its name.
    daemon.stop();
    let waiting: Vec<Client> = (0..20).map(|n| daemon.exec(&steps(&format!("exit {n}")))).collect();
    fs::rename(daemon.socket(), &elsewhere).unwrap();
    let mut late = Client::connect(&elsewhere);
    daemon.signal(Signal::CONT);
    daemon.wait_for_log("listening there again");
    late.exec(&steps("exit 42"));
    for (n, client) in (0..).zip(waiting) {
        assert_eq!(client.reply().code(), n);
    }
    assert_eq!(late.reply().code(), 42);
    daemon.assert_serves();
    daemon.assert_idle("it listens at two places");
    // After its other name is gone, or the file is removed again, no path leads to it.
    fs::remove_file(daemon.socket()).unwrap();
    eventually("a socket that is closed", || UnixStream::connect(&elsewhere).is_err());
    daemon.assert_serves();
    assert_eq!(daemon.terminate().status.code(), Some(0));
}

/// The file is moved away and back, over the socket that was made meanwhile.
#[test]
fn a_file_that_comes_back_is_used_again() {
    let mut daemon = Launch::default().quiet().start();
    let elsewhere = daemon.directory().join("elsewhere");
    fs::rename(daemon.socket(), &elsewhere).unwrap();
    daemon.wait_for_log("listening there again");
    assert_eq!(sockets(&daemon), (1, 1));
    fs::rename(&elsewhere, daemon.socket()).unwrap();
    daemon.wait_for_log("the former socket is back");
    eventually("one socket", || sockets(&daemon) == (1, 0));
    daemon.assert_serves();
    assert_eq!(daemon.terminate().status.code(), Some(0));
    assert!(!daemon.socket().exists());
}

/// `rm -r DIR; mkdir DIR`: there is no place until the directory exists, and no event for that.
#[test]
fn a_directory_that_is_made_again_gets_its_socket() {
    let launch = Launch::default().quiet().options("-t 0");
    let directory = launch.directory().join("there");
    fs::create_dir(&directory).unwrap();
    let mut daemon = launch.socket(directory.join("sock")).start();
    let mut before = daemon.exec(&steps("out ready cat"));
    before.wait_for("ready");
    // Otherwise the file would be back before the directory is empty.
    daemon.stop();
    fs::remove_dir_all(&directory).unwrap();
    daemon.signal(Signal::CONT);
    daemon.wait_for_log("the socket is gone: ");
    daemon.wait_for_log("the directory does not exist");
    daemon.assert_idle("there is no directory for its socket");
    fs::create_dir(&directory).unwrap();
    daemon.wait_for_log("listening there again");
    daemon.assert_serves();
    before.end_stdin();
    assert_eq!(before.reply().stdout_text(), "ready");
    assert_eq!(daemon.whole_log().matches("does not exist").count(), 1);
}

/// Has the daemon look until it listens again. The file is no proof: bind(2) makes it, before
/// listen(2).
fn listens_again(daemon: &mut Daemon) {
    eventually("a socket", || {
        daemon.signal(Signal::USR1);
        daemon.log_text().contains("listening there again")
    });
}

/// No event reports a renamed directory, or any file without a watch. The daemon finds out when it
/// next wakes.
#[test]
fn what_no_event_reports_is_found_later() {
    let launch = Launch::default().quiet().options("-m 1").prelude("ulimit -n 28");
    let mut daemon = launch.start();
    fs::remove_file(daemon.socket()).unwrap();
    listens_again(&mut daemon);
    daemon.assert_serves();
    let launch = Launch::default().quiet();
    let [directory, renamed] = ["there", "renamed"].map(|name| launch.directory().join(name));
    fs::create_dir(&directory).unwrap();
    let mut daemon = launch.socket(directory.join("sock")).start();
    fs::rename(&directory, &renamed).unwrap();
    fs::create_dir(&directory).unwrap();
    listens_again(&mut daemon);
    daemon.assert_serves();
}

/// Anything but a socket is left alone, and the place is taken when it is free. A stale socket is
/// replaced.
#[test]
fn something_else_in_its_place_is_left_alone() {
    let mut daemon = Launch::default().quiet().start();
    let other = daemon.directory().join("other");
    fs::write(&other, "words").unwrap();
    fs::rename(&other, daemon.socket()).unwrap();
    daemon.wait_for_log("there is a regular file, not a socket");
    assert_eq!(fs::read_to_string(daemon.socket()).unwrap(), "words");
    fs::remove_file(daemon.socket()).unwrap();
    daemon.wait_for_log("listening there again");
    daemon.assert_serves();
    stale_socket(&other);
    let position = daemon.log_position();
    fs::rename(&other, daemon.socket()).unwrap();
    daemon.wait_for_log_after(position, "listening there again");
    daemon.assert_serves();
    assert_eq!(daemon.terminate().status.code(), Some(0));
    assert!(!daemon.socket().exists());
}

/// A second daemon takes the place by rename(2). No client is refused or cut. The first daemon
/// serves its clients and ends, and the second one's file stays.
#[test]
fn another_daemon_takes_over() {
    let mut first = Launch::default().quiet().options("-t 0").start();
    let beside = first.directory().join("beside");
    let mut second = Launch::default().quiet().socket(&beside).start();
    let mut long = first.exec(&steps("out ready cat"));
    long.wait_for("ready");
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let socket = first.socket().to_owned();
    thread::scope(|scope| {
        let clients = scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let mut client = Client::connect(&socket);
                client.exec(&["true"]);
                client.end_stdin();
                assert_eq!(client.reply().code(), 0);
                served.fetch_add(1, Ordering::Release);
            }
        });
        eventually("clients that are served", || served.load(Ordering::Acquire) > 0 || clients.is_finished());
        fs::rename(&beside, &socket).unwrap();
        first.wait_for_log("another daemon listens there now");
        eventually("a socket that is closed", || sockets(&first) == (0, 0));
        over.store(true, Ordering::Release);
        clients.join().unwrap();
    });
    // One client is left.
    assert!(!first.has_ended());
    long.stdin(b" and done");
    long.end_stdin();
    assert_eq!(long.reply().stdout_text(), "ready and done");
    let stopped = first.wait();
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    let mut client = Client::connect(&socket);
    client.exec(&steps("exit 5"));
    assert_eq!(client.reply().code(), 5);
    assert_eq!(second.terminate().status.code(), Some(0));
}

/// A daemon that was replaced still handles its first TERM as a TERM.
#[test]
fn a_daemon_that_was_replaced_ends_at_term() {
    let mut first = Launch::default().quiet().options("-t 0 -k 1000").start();
    let beside = first.directory().join("beside");
    let second = Launch::default().quiet().socket(&beside).start();
    let mut client = first.exec(&steps("spawn [ wait ] ignore TERM ; out ready reap out asked exit 3"));
    client.wait_for("ready");
    fs::rename(&beside, first.socket()).unwrap();
    first.wait_for_log("another daemon listens there now");
    assert_eq!(first.terminate().status.code(), Some(0));
    let reply = client.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("readyasked", 3));
    assert!(first.socket().exists());
    drop(second);
}

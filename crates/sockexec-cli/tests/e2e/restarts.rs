//! A daemon takes another's place and no client notices: with `--replace`, and with a socket that
//! outlives both.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, thread};

use rustix::fs::FlockOperation;
use rustix::process::Signal;

use crate::common::{Client, Daemon, Launch, eventually, steps};

/// The number of requests during [`RESTARTS`] restarts. `SOCKEXEC_REQUESTS` sets another one.
const REQUESTS: usize = 2000;
const RESTARTS: usize = 10;
const THREADS: usize = 4;

/// A launch that replaces the daemon that listens there.
fn successor(socket: &Path) -> Launch {
    Launch::default().options("-t 0 --replace").socket(socket)
}

/// The names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn a_daemon_replaces_another() {
    let mut first = Launch::default().options("-t 0").quiet().start();
    let mut long = first.exec(&steps("out ready cat"));
    long.wait_for("ready");
    let mut second = successor(first.socket()).options("-M 0604").start();
    second.assert_serves();
    assert_eq!(second.connect().peer(), second.process().0);
    first.wait_for_log("another daemon listens there now; this one ends when its clients are served");
    assert_eq!(names(first.directory()), ["sock"]);
    assert_eq!(fs::metadata(first.socket()).unwrap().permissions().mode() & 0o777, 0o604);
    assert!(!first.has_ended(), "it has a program");
    long.stdin(b" and done");
    long.end_stdin();
    assert_eq!(long.reply().stdout_text(), "ready and done");
    assert_eq!(first.wait().status.code(), Some(0));
    second.assert_serves();
    second.assert_idle("it has taken another's place");
    // It notices the loss of its file, as any daemon does.
    fs::remove_file(second.socket()).unwrap();
    second.wait_for_log("listening there again");
    second.assert_serves();
    assert_eq!(second.terminate().status.code(), Some(0));
    assert!(names(first.directory()).is_empty());
}

/// The hard link stands for a client that looked the path up before the rename and connects after
/// it.
#[test]
fn a_client_that_looked_the_path_up_before_is_served() {
    let mut first = Daemon::start("-t 0");
    let late = first.directory().join("late");
    fs::hard_link(first.socket(), &late).unwrap();
    first.stop();
    let waiting: Vec<Client> = (0..20).map(|n| first.exec(&steps(&format!("exit {n}")))).collect();
    let mut second = successor(first.socket()).start();
    let mut client = Client::connect(&late);
    first.signal(Signal::CONT);
    client.exec(&steps("exit 42"));
    for (n, client) in (0..).zip(waiting) {
        assert_eq!(client.reply().code(), n);
    }
    assert_eq!(client.reply().code(), 42);
    assert_eq!(first.wait().status.code(), Some(0));
    assert!(UnixStream::connect(&late).is_err());
    second.assert_serves();
}

/// If nobody listens, it is an ordinary start.
#[test]
fn a_free_place_is_taken() {
    let launch = Launch::default();
    let path = launch.directory().join("sock");
    drop(UnixListener::bind(&path).unwrap());
    let mut daemon = launch.options("--replace").start();
    daemon.assert_serves();
    assert_eq!(daemon.terminate().status.code(), Some(0));
    let mut daemon = Launch::default().options("--replace").socket("sock").start();
    daemon.assert_serves();
    assert_eq!(names(daemon.directory()), ["sock"]);
    assert_eq!(daemon.terminate().status.code(), Some(0));
}

/// rename(2) would replace a file or a link silently.
#[test]
fn anything_but_a_socket_is_left_alone() {
    for (what, make) in [
        ("regular file", &(|path: &Path| fs::write(path, "words").unwrap()) as &dyn Fn(&Path)),
        ("symbolic link", &|path| symlink("/nowhere", path).unwrap()),
        ("directory", &|path| fs::create_dir(path).unwrap()),
    ] {
        let launch = Launch::default().options("--replace").quiet();
        make(&launch.directory().join("sock"));
        let directory = launch.directory().to_owned();
        let mut daemon = launch.spawn();
        let stopped = daemon.wait();
        assert_eq!(stopped.status.code(), Some(111), "{stopped:?}");
        assert!(stopped.stderr.contains(&format!("there is a {what}, not a socket")), "{stopped:?}");
        assert_eq!(names(&directory), ["sock"]);
        let kind = fs::symlink_metadata(directory.join("sock")).unwrap().file_type();
        assert!(kind.is_file() || kind.is_symlink() || kind.is_dir());
    }
}

/// A path of 107 bytes leaves no room for a longer name beside it.
#[test]
fn a_path_without_room_is_replaced_or_refused() {
    let launch = Launch::default();
    let directory = launch.directory().to_owned();
    let room = 107 - directory.as_os_str().len() - 1;
    // A short name in a deep directory, and a long name.
    let deep = directory.join("d".repeat(room - 2));
    fs::create_dir(&deep).unwrap();
    for path in [deep.join("s"), directory.join("n".repeat(room))] {
        assert_eq!(path.as_os_str().len(), 107);
        let mut first = Launch::default().socket(&path).start();
        let mut second = successor(&path).start();
        second.assert_serves();
        assert_eq!(first.wait().status.code(), Some(0));
        assert_eq!(second.terminate().status.code(), Some(0));
        assert!(!path.exists());
    }
    assert!(names(&deep).is_empty());
}

/// A successor that cannot start changes nothing.
#[test]
fn a_successor_that_fails_changes_nothing() {
    let mut first = Daemon::start("");
    let stopped = successor(first.socket()).options("--notification-fd 9").quiet().run();
    assert_eq!(stopped.status.code(), Some(111), "{stopped:?}");
    first.assert_serves();
    assert_eq!(first.connect().peer(), first.process().0);
    assert_eq!(names(first.directory()), ["sock"]);
    let stopped = Launch::default().arguments(&["--replace", "--listen-fd", "0"]).run();
    assert_eq!(stopped.status.code(), Some(100), "{stopped:?}");
}

/// Between its look and its removal, a daemon that ends might remove its successor's file. So it
/// locks the directory for both, and without the lock removes nothing.
#[test]
fn a_daemon_that_ends_without_the_lock_removes_nothing() {
    let mut daemon = Daemon::start("");
    let directory = File::open(daemon.directory()).unwrap();
    rustix::fs::flock(&directory, FlockOperation::LockExclusive).unwrap();
    let stopped = daemon.terminate();
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    assert!(stopped.stderr.contains("another process has locked its directory"), "{stopped:?}");
    assert!(daemon.socket().exists());
}

/// What it left alone was another's. It waited for the lock all the same, half a second in which it served
/// nobody, and then complained.
#[test]
fn a_daemon_that_was_replaced_needs_no_lock() {
    let mut first = Launch::default().start();
    let mut second = successor(first.socket()).start();
    let directory = File::open(first.directory()).unwrap();
    rustix::fs::flock(&directory, FlockOperation::LockExclusive).unwrap();
    let stopped = first.wait();
    assert_eq!(stopped.status.code(), Some(0));
    assert!(!stopped.stderr.contains("has locked its directory"), "{stopped:?}");
    drop(directory);
    second.assert_serves();
}

/// Of two that take over, the last one wins and the others end.
#[test]
fn the_last_of_many_successors_wins() {
    // Not the first daemon's directory, which goes with it.
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("sock");
    let mut all = vec![Launch::default().options("-t 0").socket(&socket).start()];
    all.extend((0..5).map(|_| successor(&socket).spawn()));
    eventually("one that is left", || {
        all.retain_mut(|daemon| !daemon.has_ended());
        all.len() == 1
    });
    let last = all.pop().expect("one");
    let mut client = Client::connect(&socket);
    client.exec(&steps("exit 5"));
    assert_eq!((client.peer(), client.reply().code()), (last.process().0, 5));
    assert_eq!(names(socket.parent().unwrap()), ["sock"]);
}

/// Several threads send request after request, and `restart` is called after each tenth of them.
/// Each client must get its own answer.
fn restart_under_load(socket: &Path, mut restart: impl FnMut()) {
    let requests = env::var("SOCKEXEC_REQUESTS").ok().map_or(REQUESTS, |number| number.parse().expect("a number"));
    let (asked, served) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let n = asked.fetch_add(1, Ordering::Relaxed);
                        if n >= requests {
                            return;
                        }
                        let mut client = Client::connect(socket);
                        client.exec(&["printf", "%s", &n.to_string()]);
                        client.end_stdin();
                        let reply = client.reply();
                        assert_eq!((reply.stdout_text(), reply.code()), (n.to_string().as_str(), 0), "{reply:?}");
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for n in 1..=RESTARTS {
            let goal = requests * n / (RESTARTS + 1);
            eventually("clients that go on", || {
                let failed = clients.iter().any(thread::ScopedJoinHandle::is_finished);
                served.load(Ordering::Relaxed) >= goal || failed
            });
            restart();
        }
    });
    assert_eq!(served.load(Ordering::Relaxed), requests);
}

#[test]
fn ten_replacements_under_load_lose_no_request() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("sock");
    let mut daemons = vec![Launch::default().options("-t 0").socket(&socket).start()];
    restart_under_load(&socket, || daemons.push(successor(&socket).start()));
    let mut last = daemons.pop().expect("the last one");
    for mut daemon in daemons {
        let stopped = daemon.wait();
        assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    }
    last.assert_serves();
}

#[test]
fn ten_restarts_of_a_kept_socket_lose_no_request() {
    let launch = Launch::default();
    let path = launch.directory().join("given");
    let listener = UnixListener::bind(&path).unwrap();
    let start = || {
        let launch = Launch::default().socket(&path).without_socket().options("-t 0 --drain 1000 --listen-fd 0");
        launch.stream(listener.try_clone().unwrap()).start()
    };
    let mut daemons = vec![start()];
    restart_under_load(&path, || {
        daemons.last().expect("one").signal(Signal::TERM);
        daemons.push(start());
    });
    let mut last = daemons.pop().expect("the last one");
    for mut daemon in daemons {
        let stopped = daemon.wait();
        assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    }
    last.assert_serves();
}

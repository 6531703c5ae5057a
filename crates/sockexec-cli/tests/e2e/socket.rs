//! The file of the socket: who may connect, which file it replaces, and who removes it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::common::{Client, Daemon, Launch, Stopped, eventually, stale_socket, steps};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

#[track_caller]
fn assert_refused(stopped: &Stopped, words: &[&str]) {
    assert_eq!(stopped.status.code(), Some(111), "{stopped:?}");
    let said = stopped.stderr.to_lowercase();
    assert!(words.iter().any(|word| said.contains(word)), "none of {words:?} in {stopped:?}");
    assert!(said.contains("sock"), "it does not name the path: {stopped:?}");
}

#[test]
fn the_mode_is_exact_whatever_the_umask() {
    for umask in ["000", "022", "077", "777"] {
        for (option, expected) in [("", 0o660), ("-M 0600", 0o600), ("-M 666", 0o666), ("--mode 0777", 0o777)] {
            let prelude = format!("umask {umask}");
            let daemon = Launch::default().options(option).prelude(&prelude).start();
            assert_eq!(mode(daemon.socket()), expected, "umask {umask} {option}");
        }
    }
}

/// Between bind(2) and chmod(2) a socket could be open to all. A watcher that looks all the time
/// must never see that.
#[test]
fn the_mode_is_never_more_open() {
    for _ in 0..15 {
        let launch = Launch::default().options("-M 0600").prelude("umask 000");
        let path = launch.directory().join("sock");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut worst = 0;
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(metadata) = fs::symlink_metadata(&path) {
                        worst |= metadata.mode() & 0o7777;
                    }
                }
                worst
            });
            let daemon = launch.start();
            stop.store(true, Ordering::Relaxed);
            let worst = watcher.join().unwrap();
            assert_eq!(worst & !0o600, 0, "{worst:o}");
            drop(daemon);
        });
    }
}

#[test]
fn the_mode_does_not_reach_programs() {
    let daemon = Launch::default().options("-M 0600").prelude("umask 027").start();
    assert_eq!(daemon.run(&steps("umask"), b"").stdout_text(), "027\n");
}

/// 3.1.1 failed with EADDRINUSE after a KILL.
#[test]
fn a_stale_socket_is_replaced() {
    let mut first = Daemon::start("");
    first.assert_serves();
    first.kill();
    assert!(exists(first.socket()));
    let mut second = Launch::default().socket(first.socket()).start();
    second.assert_serves();
    assert!(second.terminate().status.success());
    assert!(!exists(first.socket()));
}

/// A killed daemon leaves programs that have not reached their exec, and these have its socket open
/// for a moment. A successor started at once was told that another daemon listens there. Here a job
/// has the socket for as long as the test wants.
#[test]
fn a_socket_that_somebody_still_has_open_is_replaced_when_it_is_closed() {
    let keeper = Daemon::start("");
    let (mut life, gate) = (keeper.fifo("life"), keeper.gate("gate"));
    let path = keeper.directory().join("other");
    let job = format!("close 0 close 1 close 2 setsid hold {} gate {}", life.path(), gate.path());
    let listener = format!("listen {} spawn [ {job} ]", path.display());
    assert_eq!(keeper.run(&steps(&listener), b"").code(), 0);
    life.holder();

    let stopped = Launch::default().socket(&path).run();
    assert_refused(&stopped, &["listen"]);
    assert!(exists(&path));

    let mut daemon = Launch::default().socket(&path).spawn();
    daemon.wait_for_log("waiting for processes that still have the socket open");
    gate.open();
    daemon.wait_for_log("listening");
    daemon.assert_serves();
    life.wait_for_death();
}

#[test]
fn a_stale_socket_of_another_mode_is_replaced() {
    let launch = Launch::default().options("-M 0640");
    let path = launch.directory().join("sock");
    stale_socket(&path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let mut daemon = launch.start();
    assert_eq!(mode(&path), 0o640);
    daemon.assert_serves();
}

#[test]
fn a_socket_whose_daemon_lives_is_refused() {
    let mut first = Daemon::start("");
    let stopped = Launch::default().socket(first.socket()).run();
    assert_refused(&stopped, &["in use", "already", "running", "listen", "alive", "lives"]);
    first.assert_serves();
    assert!(first.terminate().status.success());
}

/// Without the permission to connect nobody can know whether a daemon listens there. The socket
/// does not count as stale, even if its directory may be written.
#[test]
fn a_socket_that_may_not_be_connected_to_is_left_alone() {
    // Root may connect to anything.
    let prelude = "[ $(id -u) != 0 ] || exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" \"$@\"";
    let launch = Launch::default().quiet().prelude(prelude);
    let path = launch.directory().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(launch.directory(), fs::Permissions::from_mode(0o777)).unwrap();
    let stopped = launch.run();
    if stopped.stderr.contains("setpriv: not found") {
        eprintln!("SKIPPED: no setpriv to be another user");
        return;
    }
    assert_refused(&stopped, &["cannot find out whether a daemon listens there"]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    UnixStream::connect(&path).expect("the socket that was there");
    drop(listener);
}

/// Two daemons start on a stale socket at the same time. One of them serves, and its file is there.
#[test]
fn of_two_that_start_at_once_one_serves() {
    for _ in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        stale_socket(&path);
        let (mut one, mut two) = (Launch::default().socket(&path).spawn(), Launch::default().socket(&path).spawn());
        eventually("one that serves and one that gave up", || {
            one.has_ended() != two.has_ended() && UnixStream::connect(&path).is_ok()
        });
        let survivor = if one.has_ended() { &mut two } else { &mut one };
        survivor.assert_serves();
    }
}

/// A daemon serves, but its backlog is full and connecting fails with EAGAIN.
#[test]
fn a_socket_with_a_full_backlog_is_refused() {
    let launch = Launch::default();
    let path = launch.directory().join("sock");
    let address = SocketAddrUnix::new(&path).unwrap();
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = || rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    let listener = socket();
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let mut clients = Vec::new();
    loop {
        let client = socket();
        match rustix::net::connect(&client, &address) {
            Ok(()) => clients.push(client),
            Err(rustix::io::Errno::AGAIN) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let before = fs::symlink_metadata(&path).unwrap().ino();
    let stopped = launch.run();
    assert_refused(&stopped, &["in use", "already", "running", "listen", "live"]);
    assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), before);
}

#[test]
fn a_file_is_refused_and_left_alone() {
    let launch = Launch::default();
    let path = launch.directory().join("sock");
    fs::write(&path, "precious").unwrap();
    let stopped = launch.run();
    assert_refused(&stopped, &["not a socket", "no socket", "file"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_directory_is_refused_and_left_alone() {
    let launch = Launch::default();
    let path = launch.directory().join("sock");
    fs::create_dir(&path).unwrap();
    let stopped = launch.run();
    assert_refused(&stopped, &["not a socket", "no socket", "directory"]);
    assert!(fs::symlink_metadata(&path).unwrap().is_dir());
}

#[test]
fn a_fifo_and_a_datagram_socket_are_refused_and_left_alone() {
    let launch = Launch::default();
    let path = launch.directory().join("sock");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let stopped = launch.run();
    assert_refused(&stopped, &["not a socket", "no socket", "fifo"]);
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());

    let launch = Launch::default();
    let path = launch.directory().join("sock");
    let datagrams = UnixDatagram::bind(&path).unwrap();
    let stopped = launch.run();
    assert_refused(&stopped, &["socket", "listens"]);
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"still there", &path).unwrap();
    drop(datagrams);
}

/// To nothing, to a file, to a stale socket, to a live one: the daemon does not follow a link.
#[test]
fn a_symbolic_link_is_refused_and_left_alone() {
    let live = Daemon::start("");
    for target in ["nothing", "file", "stale", "live"] {
        let launch = Launch::default();
        let path = launch.directory().join("sock");
        let target = match target {
            "live" => live.socket().to_owned(),
            name => launch.directory().join(name),
        };
        fs::write(launch.directory().join("file"), "precious").unwrap();
        stale_socket(&launch.directory().join("stale"));
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let stopped = launch.run();
        assert_refused(&stopped, &["not a socket", "no socket", "link"]);
        assert_eq!(fs::read_link(&path).unwrap(), target);
        assert_eq!(exists(&target), !target.ends_with("nothing"));
    }
}

#[test]
fn the_file_is_removed_at_the_end() {
    let mut daemon = Daemon::start("");
    assert!(fs::symlink_metadata(daemon.socket()).unwrap().file_type().is_socket());
    assert!(daemon.terminate().status.success());
    assert!(!exists(daemon.socket()));
}

/// What has taken our place belongs to somebody else.
#[test]
fn a_file_that_is_not_ours_is_not_removed() {
    // In one step: the daemon would take a free place again.
    let mut daemon = Daemon::start("");
    let other = daemon.directory().join("other");
    fs::write(&other, "precious").unwrap();
    fs::rename(&other, daemon.socket()).unwrap();
    assert!(daemon.terminate().status.success());
    assert_eq!(fs::read_to_string(daemon.socket()).unwrap(), "precious");

    let mut daemon = Daemon::start("");
    let other = daemon.directory().join("other");
    let _other = UnixListener::bind(&other).unwrap();
    fs::rename(&other, daemon.socket()).unwrap();
    assert!(daemon.terminate().status.success());
    assert!(exists(daemon.socket()));
}

#[test]
fn a_socket_that_somebody_removed_is_no_error() {
    let mut daemon = Daemon::start("");
    fs::remove_file(daemon.socket()).unwrap();
    assert!(daemon.terminate().status.success());
}

#[test]
fn a_path_of_107_bytes_works_and_one_of_108_does_not() {
    let launch = Launch::default();
    let room = 107 - launch.directory().as_os_str().len() - 1;
    let longest = launch.directory().join("s".repeat(room));
    assert_eq!(longest.as_os_str().len(), 107);
    let mut daemon = launch.socket(&longest).start();
    daemon.assert_serves();
    assert!(daemon.terminate().status.success());
    assert!(!exists(&longest));

    let launch = Launch::default();
    let room = 108 - launch.directory().as_os_str().len() - 1;
    let longer = launch.directory().join("s".repeat(room));
    let stopped = launch.socket(&longer).run();
    assert!(matches!(stopped.status.code(), Some(100 | 111)), "{stopped:?}");
    assert!(stopped.stderr.contains("107"), "{stopped:?}");
}

#[test]
fn a_relative_path_works() {
    let mut daemon = Launch::default().socket("relative").start();
    daemon.assert_serves();
    assert!(daemon.terminate().status.success());
    assert!(!exists(&daemon.directory().join("relative")));
}

#[test]
fn an_empty_path_is_refused() {
    let stopped = Launch::default().socket("").run();
    assert!(matches!(stopped.status.code(), Some(100 | 111)), "{stopped:?}");
    assert!(stopped.stderr.contains("the path of the socket is empty"), "{stopped:?}");
}

#[test]
fn a_missing_directory_is_reported() {
    let launch = Launch::default();
    let path = launch.directory().join("no/such/sock");
    let stopped = launch.socket(&path).run();
    assert_refused(&stopped, &["no such file or directory", "does not exist"]);
    assert!(stopped.stderr.contains(path.to_str().unwrap()), "{stopped:?}");
}

/// A client that was connected when the file went is served to its end.
#[test]
fn connections_outlive_the_file() {
    let daemon = Daemon::start("");
    let mut client: Client = daemon.exec(&steps("out ready cat"));
    client.wait_for("ready");
    fs::remove_file(daemon.socket()).unwrap();
    client.stdin(b" still");
    client.end_stdin();
    assert_eq!(client.reply().stdout_text(), "ready still");
}

//! Listening sockets handed over by a service manager, or by the program that becomes the daemon.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Command;

use rustix::process::Signal;

use crate::common::{Client, Daemon, Launch, eventually, pairs, steps};
use crate::version_2::status::status;

/// What systemd(1) does: descriptor 3 and the variables. The socket comes as the standard input
/// that the test sets.
const FROM_STDIN: &str = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=web.socket";

/// The same with two sockets. The second comes as standard output.
const FROM_BOTH: &str = "exec 3<&0 4>&1 </dev/null >/dev/null; export LISTEN_FDS=2 LISTEN_PID=$$";

/// A launch with a socket that the test hands over besides the one of the directory, and that
/// socket.
fn given() -> (Launch, UnixListener) {
    let launch = Launch::default();
    let path = launch.directory().join("given");
    let listener = UnixListener::bind(&path).unwrap();
    (launch.socket(path).without_socket(), listener)
}

fn tcp() -> (TcpListener, impl Fn() -> Client) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, move || Client::from(UnixStream::from(OwnedFd::from(TcpStream::connect(address).unwrap()))))
}

/// The socket outlives the daemon. Its file does not change, and the next daemon serves the clients
/// that come in between.
#[test]
fn a_socket_that_outlives_its_daemons() {
    let (launch, listener) = given();
    fs::set_permissions(launch.directory().join("given"), fs::Permissions::from_mode(0o604)).unwrap();
    let mut daemon = launch.prelude(FROM_STDIN).stream(listener.try_clone().unwrap()).start();
    daemon.wait_for_log("listening on descriptor 3 (web.socket), ");
    daemon.assert_serves();
    daemon.assert_idle("a socket was handed over");
    daemon.signal(Signal::USR2);
    daemon.wait_for_log("given, waits for clients");
    assert_eq!(daemon.terminate().status.code(), Some(0));
    assert_eq!(fs::metadata(daemon.socket()).unwrap().permissions().mode() & 0o777, 0o604);
    let mut between = daemon.connect();
    between.exec(&steps("exit 5"));
    let second =
        Launch::default().socket(daemon.socket()).without_socket().prelude(FROM_STDIN).stream(listener).start();
    assert_eq!(between.reply().code(), 5);
    drop(second);
}

/// Programs must not get the manager's variables and descriptors: one might report READY=1, or take
/// descriptor 3 for a socket.
#[test]
fn programs_see_nothing_of_the_handover() {
    let (launch, listener) = given();
    let launch = launch.prelude(FROM_STDIN).stream(listener);
    let launch = launch.env("LISTEN_PIDFDID", "7").env("NOTIFY_SOCKET", "/nowhere").env("WATCHDOG_USEC", "1");
    let daemon = launch.env("WATCHDOG_PID", "1").env("LISTEN_ADDRESS", "the program's own").start();
    let reply = daemon.run(&["env"], b"");
    for name in ["LISTEN_FDS=", "LISTEN_PID", "LISTEN_FDNAMES=", "NOTIFY_SOCKET=", "WATCHDOG_"] {
        assert!(!reply.stdout_text().contains(name), "{name}: {}", reply.stdout_text());
    }
    assert!(reply.stdout_text().contains("LISTEN_ADDRESS=the program's own"), "{}", reply.stdout_text());
    let fds = daemon.run(&steps("fds"), b"");
    assert_eq!(fds.stdout_text().lines().count(), 3, "{}", fds.stdout_text());
}

/// Several sockets of two families, besides one of the daemon's own.
#[test]
fn several_sockets_are_served() {
    let (tcp, connect) = tcp();
    let launch = Launch::default();
    let path = launch.directory().join("given");
    let unix = UnixListener::bind(&path).unwrap();
    let mut daemon = launch.prelude(FROM_BOTH).stream(unix).stream(tcp).start();
    for n in 0..20 {
        for mut client in [Client::connect(&path), connect(), daemon.connect()] {
            client.exec(&steps(&format!("exit {n}")));
            assert_eq!(client.reply().code(), n);
        }
    }
    daemon.assert_idle("it listens at three places");
    assert_eq!(daemon.terminate().status.code(), Some(0));
    assert!(path.exists() && !daemon.socket().exists());
}

/// With another family the kernel does not report who the client is, and no descriptors come.
#[test]
fn clients_of_another_family_are_unknown() {
    let (tcp, connect) = tcp();
    let daemon = Launch::default().options("-t 0 --listen-fd 0").stream(tcp).start();
    let mut client = connect();
    client.exec(&steps("out ready cat"));
    client.wait_for("ready");
    let told = status(&daemon);
    let is_its = |one: &&serde_json::Value| !one["pid"].is_null();
    let its = told["connections"].as_array().unwrap().iter().find(is_its).expect("a program");
    assert!(its["peer"].is_null(), "{told}");
    client.stdin(b" and done");
    client.end_stdin();
    assert_eq!(client.reply().stdout_text(), "ready and done");
    let mut client = connect();
    client.send(b"10:protocol=2,3:fds,1:1,4:true,");
    let refused = client.rest();
    let words = "bad-request 0 descriptors, but option fds needs 3";
    assert!(refused.escape_ascii().to_string().contains(words), "{}", refused.escape_ascii());
}

/// There a close looks like a half-close. The program's input ends, and its next output ends the
/// program.
#[test]
fn a_close_of_another_family_looks_like_a_half_close() {
    let (tcp, connect) = tcp();
    let daemon = Launch::default().options("-t 0 -k 1000 --listen-fd 0").stream(tcp).start();
    let (mut life, gate) = (daemon.fifo("life"), daemon.gate("gate"));
    let mut client = connect();
    client.exec(&steps(&format!("hold {} out ready cat gate {} flood", life.path(), gate.path())));
    client.wait_for("ready");
    let program = life.holder();
    drop(client);
    daemon.wait_for_log("client has ended its sending");
    assert!(life.is_held(), "{program:?} was ended");
    gate.open();
    life.wait_for_death();
    daemon.wait_for_log("connection 1: over");
}

/// Much data in both directions, which a UNIX socket moves by splice(2).
#[test]
fn big_streams_of_another_family_are_whole() {
    let (tcp, connect) = tcp();
    let _daemon = Launch::default().options("-t 0 --listen-fd 0").stream(tcp).start();
    let mut client = connect();
    client.send(b"10:protocol=2,");
    client.exec(&["sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' Q"]);
    let pairs = pairs(&client.rest());
    let output = pairs.iter().filter(|(tag, _)| tag == "stdout").flat_map(|(_, payload)| payload);
    assert!(output.clone().count() == 20_000_000 && output.clone().all(|&byte| byte == b'Q'));
    let mut client = connect();
    client.exec(&["wc", "-c"]);
    let mut other = client.socket().try_clone().unwrap();
    let chunk = vec![b'y'; 10_000_000];
    client.stdin(&chunk);
    other.write_all(b"0:,").unwrap();
    assert_eq!(client.reply().stdout_text().trim(), "10000000");
}

/// A unit may name the path in both of its files.
#[test]
fn the_path_of_a_socket_handed_over_may_be_named() {
    let launch = Launch::default();
    let path = launch.directory().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut daemon = launch.prelude(FROM_STDIN).stream(listener.try_clone().unwrap()).start();
    daemon.assert_serves();
    daemon.assert_idle("it was handed over");
    assert_eq!(daemon.terminate().status.code(), Some(0));
    assert!(path.exists());
}

/// Whatever is not a listening stream is refused, with advice.
#[test]
fn what_cannot_accept_is_refused() {
    let assert_refused = |launch: Launch, words: &str| {
        let stopped = launch.quiet().without_socket().run();
        assert_eq!(stopped.status.code(), Some(111), "{stopped:?}");
        assert!(stopped.stderr.contains(words), "{words:?}: {stopped:?}");
    };
    let own = || Launch::default().options("--listen-fd 0");
    assert_refused(own(), "it is not a socket");
    let (one, _other) = UnixStream::pair().unwrap();
    assert_refused(own().stream(one), "it is a connection");
    assert_refused(own().stream(UnixDatagram::unbound().unwrap()), "it is not a stream");
    let (unix, stream) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
    let bound = rustix::net::socket_with(unix, stream, rustix::net::SocketFlags::CLOEXEC, None).unwrap();
    assert_refused(own().stream(bound), "nobody has called listen(2)");
    assert_refused(Launch::default().options("--listen-fd 9"), "--listen-fd 9: Bad file descriptor");
    let (launch, listener) = given();
    let twice = launch.options("--listen-fd 0 --listen-fd 0").stream(listener);
    assert_refused(twice, "--listen-fd 0: Bad file descriptor");
    assert_refused(Launch::default().prelude("export LISTEN_FDS=1 LISTEN_PID=$$; exec 3<&-"), "LISTEN_FDS: ");
    assert_refused(Launch::default().prelude("export LISTEN_FDS=x LISTEN_PID=$$"), "LISTEN_FDS: ");
}

/// Sockets meant for another process, such as a program that a service starts, are left alone.
#[test]
fn sockets_handed_to_another_process_are_left_alone() {
    let launch = Launch::default().env("LISTEN_FDS", "1").env("LISTEN_PID", "1").quiet();
    let stopped = launch.without_socket().run();
    assert_eq!(stopped.status.code(), Some(100), "{stopped:?}");
    assert!(stopped.stderr.contains("LISTEN_PID does not name this process"), "{stopped:?}");
    let mut daemon = Launch::default().env("LISTEN_FDS", "1").env("LISTEN_PID", "1").start();
    daemon.assert_serves();
}

/// The variable names the process before the fork, and its parent keeps no copy.
#[test]
fn sockets_may_be_handed_to_pid_1() {
    let prelude = "exec unshare --pid --fork --kill-child --mount-proc sh -c \
                   'exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"' \"$0\" \"$@\"";
    let probe = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no PID namespace of one's own here (unshare --pid)");
        return;
    }
    let (launch, listener) = given();
    let mut daemon = launch.prelude(prelude).stream(listener).start();
    daemon.assert_serves();
    let init = crate::pid_1::only_child(daemon.process());
    let open = |descriptor: &str| fs::exists(format!("/proc/{}/fd/{descriptor}", init.0.as_raw_pid())).unwrap();
    eventually("a parent without the socket", || !open("3"));
    assert!(open("2"));
    rustix::process::kill_process(init.0, Signal::TERM).unwrap();
    assert_eq!(daemon.wait().status.code(), Some(0));
}

#[test]
fn under_systemd_socket_activate() {
    if !Command::new("systemd-socket-activate").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no systemd-socket-activate here");
        return;
    }
    let launch = Launch::default();
    let path = launch.directory().join("given");
    let prelude = format!("exec systemd-socket-activate -l {} --fdname web \"$0\" \"$@\"", path.display());
    // It waits for a first client, and then becomes the daemon.
    let mut daemon: Daemon = launch.socket(&path).without_socket().quiet().prelude(&prelude).start();
    daemon.assert_serves();
    assert_eq!(daemon.terminate().status.code(), Some(0));
}

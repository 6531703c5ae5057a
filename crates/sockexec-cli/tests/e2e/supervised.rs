//! What a supervisor learns: the lines of `sd_notify(3)`, s6's newline, and a line for a person at
//! a terminal.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use rustix::process::Signal;
use rustix::pty::OpenptFlags;

use crate::common::{Launch, PATIENCE, eventually, steps};

/// A service manager, as a daemon sees it.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    /// A manager, and the launch of a daemon below it, without a terminal whose end a HUP might
    /// mean.
    fn new() -> (Self, Launch) {
        let launch = Launch::default().prelude("exec setsid \"$0\" \"$@\"");
        let path = launch.directory().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let launch = launch.env("NOTIFY_SOCKET", &path).without_env("WATCHDOG_USEC").without_env("WATCHDOG_PID");
        (Self { socket }, launch)
    }

    #[track_caller]
    fn hear(&self) -> String {
        let mut buffer = [0; 4096];
        let n = self.socket.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..n].to_vec()).expect("text")
    }

    /// The messages up to the one with these words.
    #[track_caller]
    fn hear_until(&self, words: &str) -> Vec<String> {
        let mut heard = Vec::new();
        while !heard.last().is_some_and(|last: &String| last.contains(words)) {
            heard.push(self.hear());
        }
        heard
    }
}

const READY: &str = "READY=1\nSTATUS=running: 0 of 100, waiting: 0\n";

#[test]
fn from_its_readiness_to_its_end() {
    let (manager, launch) = Manager::new();
    let mut daemon = launch.options("-t 0").quiet().spawn();
    assert_eq!(manager.hear(), READY);
    // By then it serves.
    let mut client = daemon.exec(&steps("out ready cat"));
    client.wait_for("ready");
    assert_eq!(manager.hear(), "STATUS=running: 1 of 100, waiting: 0\n");
    client.end_stdin();
    assert_eq!(client.reply().code(), 0);
    assert_eq!(manager.hear(), "STATUS=running: 0 of 100, waiting: 0\n");
    daemon.assert_idle("it is supervised");
    let mut client = daemon.exec(&steps("spawn [ wait ] ignore TERM ; out ready reap out asked cat"));
    client.wait_for("ready");
    manager.hear_until("STATUS=running: 1 of 100");
    daemon.signal(Signal::TERM);
    assert_eq!(manager.hear(), "STOPPING=1\n");
    client.wait_for("asked");
    assert_eq!(manager.hear(), "STATUS=stopping: running: 1 of 100, waiting: 0\n");
    client.end_stdin();
    assert_eq!(client.reply().code(), 0);
    assert_eq!(daemon.wait().status.code(), Some(0));
}

/// A busy daemon reports once a second, and its last report is correct.
#[test]
fn the_status_is_reported_once_a_second() {
    let (manager, launch) = Manager::new();
    let daemon = launch.options("-m 1").quiet().spawn();
    manager.hear_until("READY=1");
    let begin = Instant::now();
    let mut told = Vec::new();
    while told.len() < 3 {
        assert_eq!(daemon.run(&["true"], b"").code(), 0);
        manager.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        if let Ok(n) = manager.socket.recv(&mut buffer) {
            told.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
        }
    }
    let most = begin.elapsed().as_secs() + 2;
    assert!(told.len() as u64 <= most, "{told:?} in {:?}", begin.elapsed());
    assert!(told.iter().all(|message| message.starts_with("STATUS=")), "{told:?}");
    manager.socket.set_nonblocking(false).unwrap();
    let mut running = daemon.exec(&steps("out ready cat"));
    running.wait_for("ready");
    let waiting = daemon.exec(&steps("exit 3"));
    manager.hear_until("STATUS=running: 1 of 1, waiting: 1");
    running.end_stdin();
    assert_eq!((running.reply().code(), waiting.reply().code()), (0, 3));
    manager.hear_until("STATUS=running: 0 of 1, waiting: 0");
    daemon.assert_idle("it has told all");
}

/// `Type=notify-reload` waits for both messages. The manager also sleeps for a moment after its
/// HUP.
#[test]
fn a_reload_is_reported() {
    let (manager, launch) = Manager::new();
    let daemon = launch.quiet().spawn();
    assert_eq!(manager.hear(), READY);
    daemon.signal(Signal::HUP);
    let heard = manager.hear();
    let moment = heard.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.trim_end().parse().ok());
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let moment: f64 = moment.unwrap_or_else(|| panic!("{heard:?}"));
    assert!(moment > 0.0 && moment / 1e6 <= uptime + 1.0, "{moment} at {uptime}");
    assert_eq!(manager.hear(), READY);
}

/// The loop itself reports that it turns, twice in the time that the manager allows. It does not if
/// the time is for another process.
#[test]
fn the_watchdog_is_fed() {
    let (manager, launch) = Manager::new();
    let begin = Instant::now();
    let daemon = launch.env("WATCHDOG_USEC", "200000").quiet().spawn();
    manager.hear_until("READY=1");
    for _ in 0..5 {
        manager.hear_until("WATCHDOG=1\n");
    }
    let turns = daemon.turns().0;
    assert!(u128::from(turns) <= begin.elapsed().as_millis() / 100 + 20, "{turns} turns in {:?}", begin.elapsed());
    // A loop that does not turn reports nothing.
    daemon.stop();
    manager.socket.set_nonblocking(true).unwrap();
    while manager.socket.recv(&mut [0; 4096]).is_ok() {}
    manager.socket.set_nonblocking(false).unwrap();
    let short = Some(std::time::Duration::from_millis(500));
    manager.socket.set_read_timeout(short).unwrap();
    assert!(manager.socket.recv(&mut [0; 4096]).is_err());
    manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    daemon.signal(Signal::CONT);
    manager.hear_until("WATCHDOG=1\n");
    let (manager, launch) = Manager::new();
    let daemon = launch.env("WATCHDOG_USEC", "200000").env("WATCHDOG_PID", "1").quiet().spawn();
    manager.hear_until("READY=1");
    daemon.assert_idle("the watchdog is another's");
}

/// A drain may take longer than the time that the manager allows.
#[test]
fn the_watchdog_is_fed_while_it_drains() {
    let (manager, launch) = Manager::new();
    let mut daemon = launch.options("-t 0 --drain 1000").env("WATCHDOG_USEC", "200000").quiet().spawn();
    manager.hear_until("READY=1");
    let mut client = daemon.exec(&steps("out ready cat"));
    client.wait_for("ready");
    daemon.signal(Signal::TERM);
    manager.hear_until("STOPPING=1\n");
    for _ in 0..5 {
        manager.hear_until("WATCHDOG=1\n");
    }
    client.end_stdin();
    assert_eq!(client.reply().code(), 0);
    assert_eq!(daemon.wait().status.code(), Some(0));
}

/// A manager that does not read delays nobody, and gets the last messages when it reads again.
#[test]
fn a_manager_that_does_not_read_delays_nobody() {
    let (manager, launch) = Manager::new();
    let mut daemon = launch.quiet().start();
    for n in 1..=100 {
        daemon.signal(Signal::HUP);
        eventually("a reload", || daemon.log_text().matches("nothing to reload").count() == n);
    }
    daemon.assert_serves();
    daemon.signal(Signal::TERM);
    let stopped = daemon.wait();
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    assert!(manager.hear().contains("READY=1"));
    // While the daemon runs, it sends later what it could not send.
    let (manager, launch) = Manager::new();
    let daemon = launch.options("-t 0").quiet().start();
    for n in 1..=100 {
        daemon.signal(Signal::HUP);
        eventually("a reload", || daemon.log_text().matches("nothing to reload").count() == n);
    }
    let mut client = daemon.exec(&steps("out ready cat"));
    client.wait_for("ready");
    manager.hear_until("STATUS=running: 1 of 100");
    drop(client);
}

/// An abstract address, as older versions of systemd use, and addresses where nobody listens.
#[test]
fn other_addresses_work_or_are_ignored() {
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("sockexec-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let daemon = Launch::default().env("NOTIFY_SOCKET", format!("@{name}")).spawn();
        let mut buffer = [0; 100];
        let n = socket.recv(&mut buffer).unwrap();
        assert_eq!(str::from_utf8(&buffer[..n]), Ok(READY));
        drop(daemon);
    }
    for address in ["/nowhere/notify", "vsock:2:1234"] {
        let mut daemon = Launch::default().quiet().env("NOTIFY_SOCKET", address).start();
        daemon.wait_for_log(&format!("warning: cannot reach the service manager: NOTIFY_SOCKET={address}: "));
        daemon.assert_serves();
    }
}

/// A newline and the end of the pipe, although the daemon and its programs live.
#[test]
fn the_notification_descriptor_gets_a_newline_and_its_end() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let launch = Launch::default().options("--notification-fd 5").quiet().prelude("exec 5>&0 </dev/null");
    let mut daemon = launch.stream(writer).spawn();
    let mut heard = Vec::new();
    reader.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"\n");
    daemon.assert_serves();
    // A closed descriptor is reported before there is a socket. One that nobody reads does not end
    // the daemon.
    let stopped = Launch::default().options("--notification-fd 5").quiet().run();
    assert_eq!(stopped.status.code(), Some(111), "{stopped:?}");
    assert!(stopped.stderr.contains("--notification-fd 5: Bad file descriptor"), "{stopped:?}");
    // Not a pipe of this process: until its exec, a child of another test would have the reading end as well.
    let nobody = "mkfifo pipe && exec 4<>pipe 5>pipe 4>&-";
    let mut daemon = Launch::default().options("--notification-fd 5").quiet().prelude(nobody).start();
    daemon.wait_for_log("warning: cannot write to the notification descriptor");
    daemon.assert_serves();
}

/// A person who starts the daemon sees that it has begun. A log file gets no such line.
#[test]
fn at_a_terminal_the_daemon_shows_where_it_listens() {
    let ours: OwnedFd = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let daemon = Launch::default().quiet().prelude(&format!("exec 2>{name}")).spawn();
    let mut terminal = BufReader::new(std::fs::File::from(ours));
    let wanted = format!("sockexec: listening on {}", daemon.socket().display());
    let mut line = String::new();
    // Lines about what the kernel lacks may come first.
    while line.trim_end() != wanted {
        line.clear();
        assert!(terminal.read_line(&mut line).unwrap() > 0, "its end");
    }
    drop(daemon);
}

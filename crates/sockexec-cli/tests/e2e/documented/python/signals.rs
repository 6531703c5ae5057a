//! Signals that the client forwards, or that end it.

use std::io::{Cursor, ErrorKind};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::Signal;

use super::{PythonClient, begin, pair};
use crate::common::{Daemon, eventually, pattern, steps, wait_for_exit, wait_until_stuck};

/// INT ends a program that does not read its endless input, whether or not anybody reads its
/// output.
#[test]
fn a_signal_passes_input_that_is_stuck() {
    let Some(client) = PythonClient::new() else { return };
    for then in ["wait", "flood"] {
        let daemon = Daemon::start("-t 0");
        let mut running = client.start(&daemon, &steps(&format!("out ready {then}")));
        let (count, writer) = running.feed(std::io::repeat(b'x'));
        running.wait_for("ready");
        wait_until_stuck(|| count.load(Ordering::Relaxed));
        running.signal(Signal::INT);
        daemon.wait_for_log("ended: signal 2");
        while !running.read(1 << 16).is_empty() {}
        assert_eq!(running.end(), (130, String::new()));
        assert_eq!(writer.join().unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
        daemon.wait_for_log("over after");
        assert!(!daemon.whole_log().contains("bad request"));
    }
}

/// USR1 again and again, while input is stuck and while it flows. The program ignores it.
#[test]
fn signals_pass_among_input() {
    const LEN: u64 = 10_000_000;
    let Some(client) = PythonClient::new() else { return };
    let daemon = Daemon::start("-t 0");
    let gate = daemon.gate("gate");
    let argv = format!("narrow ignore USR1 ; out ready gate {} verify", gate.path());
    let mut running = client.start(&daemon, &steps(&argv));
    running.wait_for("ready");
    let (count, writer) = running.feed(Cursor::new(pattern(LEN)));
    wait_until_stuck(|| count.load(Ordering::Relaxed));
    running.signal(Signal::USR1);
    gate.open();
    for n in 1..=100 {
        eventually("more input", || count.load(Ordering::Relaxed) >= LEN / 100 * n || writer.is_finished());
        running.signal(Signal::USR1);
    }
    running.wait_for(&format!("ok {LEN}\n"));
    assert_eq!(running.end(), (0, String::new()));
    writer.join().unwrap().unwrap();
    daemon.wait_for_log("over after");
    assert!(!daemon.whole_log().contains("bad request"));
}

/// A full socket takes no signal, so the first signal ends the client.
#[test]
fn one_signal_ends_a_client_whose_socket_is_full() {
    const CHANCES: usize = 5;
    let Some(client) = PythonClient::new() else { return };
    for _ in 0..CHANCES {
        let (mut running, mut socket) = client.start_with_us(Stdio::piped());
        begin(&mut running, &mut socket, 1 << 30);
        let (count, writer) = running.feed(std::io::repeat(b'x'));
        wait_until_stuck(|| count.load(Ordering::Relaxed));
        running.signal(Signal::TERM);
        if wait_for_exit(&mut running.0, Duration::from_secs(10)).is_some() {
            assert_eq!(running.end(), (143, String::new()));
            assert!(writer.join().expect("no panic").is_err());
            return;
        }
        // A client that waits for a processor looks stuck too. Then its socket had room, and took the signal.
        while pair(&mut socket) != ("signal".into(), b"TERM".into()) {}
    }
    panic!("the socket took all of {CHANCES} signals");
}

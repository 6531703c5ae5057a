//! The window for standard input. Signals arrive whatever the program does not read, nothing is
//! lost or out of order, and memory is limited.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::introduction::window;
use super::{Caller, NONE, Reply2, pair, request_2, run};
use crate::common::{Daemon, Launch, PATIENCE, eventually, pairs, steps};
use crate::pattern::Pattern;

/// A client that counts as the document says: it reads reports while it writes.
struct Counter {
    socket: UnixStream,
    raw: Vec<u8>,
    window: usize,
    sent: usize,
    taken: usize,
}

impl Counter {
    #[track_caller]
    fn start<A: AsRef<[u8]>>(daemon: &Daemon, options: &[&str], argv: &[A]) -> Self {
        let mut socket = UnixStream::connect(daemon.socket()).expect("a daemon");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        socket.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        socket.write_all(&request_2(options, argv)).expect("a request");
        let mut counter = Self { socket, raw: Vec::new(), window: 0, sent: 0, taken: 0 };
        counter.wait_for("7:started,");
        let introduction = String::from_utf8(pairs_so_far(&counter.raw)[0].1.clone()).expect("text");
        counter.window = window(&introduction);
        counter
    }

    /// Reads what comes within this time. False if nothing came.
    fn read(&mut self, patience: Duration) -> bool {
        self.socket.set_read_timeout(Some(patience)).expect("a time-out");
        let mut buffer = [0; 4096];
        match self.socket.read(&mut buffer) {
            Ok(n) => {
                assert!(n > 0, "the end: {}", self.raw.escape_ascii());
                self.raw.extend_from_slice(&buffer[..n]);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
            Err(error) => panic!("{error}"),
        }
        if let Some((_, last)) = pairs_so_far(&self.raw).into_iter().rfind(|(tag, _)| tag == "taken") {
            self.taken = String::from_utf8(last).expect("text").parse().expect("a number");
        }
        true
    }

    fn room(&self) -> usize {
        self.window - (self.sent - self.taken)
    }

    /// Sends input until no report makes more room. Returns how many bytes it sent.
    #[track_caller]
    fn fill(&mut self) -> usize {
        loop {
            let len = self.room().min(self.window / 2).min(128 << 10);
            if len > 0 {
                self.socket.write_all(&pair("stdin", vec![b'x'; len])).expect("a window that is open");
                self.sent += len;
            } else if !self.read(Duration::from_millis(300)) {
                return self.sent;
            }
        }
    }

    /// Reads until these words have come.
    #[track_caller]
    fn wait_for(&mut self, words: &str) {
        while !String::from_utf8_lossy(&self.raw).contains(words) {
            assert!(self.read(PATIENCE), "no {words}");
        }
    }

    #[track_caller]
    fn signal(&mut self, name: &str) {
        self.socket.write_all(&pair("signal", name)).expect("a daemon that reads");
    }

    #[track_caller]
    fn reply(mut self) -> Reply2 {
        self.socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        self.socket.read_to_end(&mut self.raw).expect("an orderly end");
        Reply2::parse(&self.raw)
    }
}

/// The whole pairs at the front.
fn pairs_so_far(raw: &[u8]) -> Vec<(String, Vec<u8>)> {
    pairs(&raw[..sockexec_proto::reply::whole_pairs(raw, usize::MAX)])
}

/// Values of `-m` that make the window the smallest, the largest, and one in between.
const WINDOWS: [&str; 3] = ["-m 1024 -t 0", "-m 100 -t 0", "-m 1 -t 0"];

fn daemon(options: &str, transfer: &str) -> Daemon {
    Launch::default().options(options).env("SOCKEXEC_TRANSFER", transfer).prelude("ulimit -n $(ulimit -Hn)").start()
}

#[test]
fn a_signal_passes_input_that_nobody_reads() {
    for options in WINDOWS {
        for transfer in ["splice", "copy"] {
            let daemon = daemon(options, transfer);
            let mut counter = Counter::start(&daemon, &[], &steps("out ready wait"));
            let sent = counter.fill();
            assert!(sent >= counter.window, "{sent}");
            counter.signal("INT");
            assert_eq!(counter.reply().signal(), Signal::INT.as_raw(), "{options}, {transfer}");
            daemon.wait_for_log("over after");
        }
    }
}

/// A page every 15 ms never stops for long, and used to delay a signal for seconds. The goal is 100
/// ms; a loaded machine has more time.
#[test]
fn a_signal_passes_input_that_is_read_slowly() {
    let daemon = daemon("-m 100 -t 0", "splice");
    let mut counter = Counter::start(&daemon, &[], &steps("out ready sip 4096 15"));
    // Much more than the program reads while this is sent.
    for _ in 0..8 {
        let len = counter.room().min(counter.window / 2);
        if len > 0 {
            counter.socket.write_all(&pair("stdin", vec![b'x'; len])).expect("a window that is open");
            counter.sent += len;
        } else if !counter.read(Duration::from_millis(300)) {
            break;
        }
    }
    let begin = Instant::now();
    counter.signal("INT");
    assert_eq!(counter.reply().signal(), Signal::INT.as_raw());
    println!("after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn a_signal_and_a_size_pass_input_that_a_terminal_does_not_take() {
    let daemon = daemon("-m 100 -t 0", "splice");
    let script = "stty raw -echo; trap 'stty size; exit 3' USR1; echo ready; while :; do sleep 0.01; done";
    let mut counter = Counter::start(&daemon, &["pty=80x24"], &["/bin/sh", "-c", script]);
    counter.wait_for("ready");
    counter.fill();
    counter.socket.write_all(&pair("winsize", "132x50")).expect("a daemon that reads");
    counter.signal("USR1");
    let reply = counter.reply();
    assert!(reply.stdout_text().contains("50 132"), "{reply:?}");
    assert_eq!(reply.code(), 3);
}

/// What a slow program gets is what was sent, to the last byte, and the end after it, whatever
/// overtakes it.
#[test]
fn held_input_stays_in_order() {
    const LEN: usize = 3_000_000;
    for transfer in ["splice", "copy"] {
        let daemon = daemon("-m 100 -t 0", transfer);
        let gate = daemon.gate("gate");
        let argv = steps(&format!("ignore USR1 ; out ready gate {} verify exit 7", gate.path()));
        let mut counter = Counter::start(&daemon, &[], &argv);
        // Before that the signal would end it.
        counter.wait_for("ready");
        let mut pattern = Pattern::new();
        let mut gate = Some(gate);
        while pattern.position() < LEN as u64 {
            let len = counter.room().min(50_000).min(LEN - usize::try_from(pattern.position()).unwrap());
            if len > 0 {
                let mut bytes = Vec::new();
                while bytes.len() < len {
                    let piece = pattern.peek((len - bytes.len()) as u64);
                    bytes.extend_from_slice(piece);
                    let n = piece.len();
                    pattern.advance(n);
                }
                counter.socket.write_all(&pair("stdin", &bytes)).expect("a window that is open");
                counter.sent += len;
                counter.signal("USR1");
            } else if !counter.read(Duration::from_millis(300)) {
                // Now the daemon holds all that it may.
                if let Some(gate) = gate.take() {
                    gate.open();
                }
            }
        }
        counter.socket.write_all(b"5:stdin,0:,").expect("a daemon that reads");
        drop(gate);
        let reply = counter.reply();
        assert_eq!(reply.stdout_text(), format!("readyok {LEN}\n"), "{transfer}");
        assert_eq!(reply.code(), 7);
        assert!(reply.taken.last().is_some_and(|&last| last <= LEN as u64), "{reply:?}");
    }
}

/// A half-close and the end of input wait for what is held.
#[test]
fn the_end_comes_after_what_is_held() {
    for half_close in [false, true] {
        let daemon = daemon("-m 100 -t 0", "splice");
        let gate = daemon.gate("gate");
        let argv = steps(&format!("narrow out ready gate {} cat exit 2", gate.path()));
        let mut caller = Caller::start(&daemon, NONE, &argv);
        caller.wait_for("ready");
        let bytes = "0123456789".repeat(30_000);
        caller.stdin(&bytes);
        if half_close {
            caller.0.half_close();
        } else {
            caller.end_stdin();
        }
        // By the time it is served, the input has been read and held, or will be. The runs cover
        // both.
        run(&daemon, NONE, &steps("exit 0"), "");
        gate.open();
        let reply = caller.reply();
        assert!(reply.stdout_text().ends_with(&bytes) && reply.code() == 2, "{reply:?}");
        assert!(!reply.input_closed);
    }
}

/// A client that does not count is stopped. The daemon keeps a window and a little more for it.
#[test]
fn a_client_that_does_not_count_is_stopped() {
    for transfer in ["splice", "copy"] {
        let daemon = daemon("-m 100 -t 0", transfer);
        let gate = daemon.gate("gate");
        let argv = steps(&format!("out ready gate {} verify", gate.path()));
        let mut caller = Caller::start(&daemon, NONE, &argv);
        caller.wait_for("ready");
        let mut pattern = Pattern::new();
        let mut next = || {
            let bytes = pattern.peek(60_000).to_vec();
            pattern.advance(bytes.len());
            pair("stdin", bytes)
        };
        let sent = caller.0.send_until_blocked(&mut next);
        assert!(sent < 4_000_000, "{sent} bytes of input are kept");
        let peak = daemon.process().peak_kib();
        assert!(peak < 40_000, "{peak} KiB");
        drop(gate);
        // A frame was cut where it was blocked, so the client can only leave.
        drop(caller);
        daemon.wait_for_log("over after");
    }
}

/// At most one report waits to be sent, and the last one is complete.
#[test]
fn one_report_waits_for_a_client_that_does_not_read() {
    const LEN: usize = 60_000_000;
    let daemon = daemon("-m 1024 -t 0", "copy");
    let mut caller = Caller::start(&daemon, NONE, &steps("verify wait"));
    let before = daemon.process().peak_kib();
    let mut pattern = Pattern::new();
    while pattern.position() < LEN as u64 {
        let bytes = pattern.peek((LEN as u64 - pattern.position()).min(30_000)).to_vec();
        caller.stdin(&bytes);
        pattern.advance(bytes.len());
    }
    caller.end_stdin();
    let grown = daemon.process().peak_kib() - before;
    caller.wait_for(&format!("ok {LEN}\n"));
    // Its last report comes before the end.
    caller.tell("signal", "TERM");
    let reply = caller.reply();
    let half = 65_536 / 2;
    assert!(reply.taken.len() < LEN / half, "{} reports", reply.taken.len());
    assert!(reply.taken.last().is_some_and(|&last| last > (LEN - half) as u64), "{:?}", reply.taken.last());
    assert!(grown < 4_000, "{grown} KiB");
}

/// Small inputs are not reported. A report comes when half a window has gone.
#[test]
fn a_report_comes_with_each_half_window() {
    let daemon = daemon("-m 1024 -t 0", "splice");
    let reply = run(&daemon, NONE, &steps("verify"), "");
    assert_eq!(reply.taken, [0; 0]);
    for (len, reports) in [(32_767, 0), (32_768, 1), (65_535, 1)] {
        let mut caller = Caller::start(&daemon, NONE, &steps("verify"));
        caller.wait_for("started");
        let mut pattern = Pattern::new();
        while pattern.position() < len {
            let bytes = pattern.peek((len - pattern.position()).min(1000)).to_vec();
            caller.stdin(&bytes);
            pattern.advance(bytes.len());
        }
        caller.end_stdin();
        let reply = caller.reply();
        assert_eq!((reply.taken.len(), reply.code()), (reports, 0), "{len}: {reply:?}");
        assert!(reply.taken.iter().all(|&taken| taken >= 32_768), "{reply:?}");
    }
}

/// It is reported once, and what still comes is dropped.
#[test]
fn a_program_that_closes_its_input_is_reported() {
    let daemon = daemon("-m 100 -t 0", "splice");
    let mut caller = Caller::start(&daemon, NONE, &steps("close 0 out closed wait"));
    caller.wait_for("closed");
    caller.stdin("a");
    caller.wait_for("12:input-closed,0:,");
    for _ in 0..100 {
        caller.stdin(vec![b'x'; 60_000]);
    }
    let peak = daemon.process().peak_kib();
    assert!(peak < 40_000, "{peak} KiB");
    caller.tell("signal", "TERM");
    let reply = caller.reply();
    assert!(reply.input_closed && reply.taken.is_empty(), "{reply:?}");
    assert_eq!(reply.signal(), 15);
}

/// If the pipe is full, the daemon sees that the other end is gone.
#[test]
fn a_program_that_closes_a_full_input_is_reported() {
    for transfer in ["splice", "copy"] {
        let daemon = daemon("-m 100 -t 0", transfer);
        let gate = daemon.gate("gate");
        let argv = steps(&format!("out ready gate {} close 0 wait", gate.path()));
        let mut counter = Counter::start(&daemon, &[], &argv);
        counter.fill();
        gate.open();
        counter.wait_for("12:input-closed,0:,");
        counter.signal("TERM");
        let reply = counter.reply();
        assert_eq!((reply.signal(), reply.input_closed), (15, true), "{transfer}");
    }
}

/// Not for an input that nobody feeds, and not after the program's end.
#[test]
fn an_input_that_nobody_feeds_is_not_reported() {
    let daemon = daemon("-m 100 -t 0", "splice");
    let reply = run(&daemon, NONE, &steps("close 0 out words exit 3"), "");
    assert_eq!((reply.input_closed, reply.code()), (false, 3), "{reply:?}");
    // The leader is gone, which the daemon knows. A child without input holds the output.
    let daemon = Daemon::start("-t 0 --linger 50");
    let mut life = daemon.fifo("life");
    let argv = steps(&format!("spawn [ close 0 hold {} wait ] exit 4", life.path()));
    let mut caller = Caller::start(&daemon, NONE, &argv);
    let holder = life.holder();
    daemon.wait_for_log("ended: exit code 4");
    caller.stdin("word");
    // The daemon reads the same client's next words after these.
    caller.end_stdin();
    run(&daemon, NONE, &steps("exit 0"), "");
    holder.kill();
    let reply = caller.reply();
    assert_eq!((reply.input_closed, reply.code()), (false, 4), "{reply:?}");
}

/// Frames are as large as the socket takes at once, and no larger than the document says.
#[test]
fn large_frames_fill_the_socket() {
    const LEN: usize = 20_000_000;
    let daemon = daemon("-t 0", "splice");
    let mut caller = Caller::start(&daemon, NONE, &steps(&format!("write-out {LEN}")));
    caller.end_stdin();
    let reply = caller.reply();
    let largest = reply.pairs.iter().filter(|(tag, _)| tag == "stdout").map(|(_, payload)| payload.len()).max();
    assert!((48 << 10..=1_040_384).contains(&largest.expect("output")), "{largest:?}");
    let mut pattern = Pattern::new();
    assert_eq!(reply.stdout.len(), LEN);
    for piece in reply.stdout.chunks(4096) {
        let mut at = 0;
        while at < piece.len() {
            let expected = pattern.peek((piece.len() - at) as u64);
            let n = expected.len();
            assert!(piece[at..at + n] == *expected, "wrong at {}", pattern.position());
            pattern.advance(n);
            at += n;
        }
    }
    eventually("the end of that", || !daemon.log_text().is_empty());
}

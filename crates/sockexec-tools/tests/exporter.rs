//! `sockexec-exporter` from outside, with a real daemon.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests, and what they share")]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use common::{PATIENCE, Running, bare, client, complains, eventually, run};
use rustix::process::{Pid, Signal, kill_process};

const EXPORTER: &str = env!("CARGO_BIN_EXE_sockexec-exporter");

/// How many connections the exporter takes at a time.
const CONNECTIONS: usize = 64;

/// A running exporter, on its own port.
struct Exporter {
    child: Child,
    address: String,
    // Kept open, so that the exporter can write to it.
    _stderr: BufReader<ChildStderr>,
}

impl Exporter {
    fn start(socket: &Path) -> Self {
        Self::start_by(bare(EXPORTER), socket)
    }

    fn start_by(mut command: Command, socket: &Path) -> Self {
        command.args(["--listen", "127.0.0.1:0"]).arg(socket).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("a line");
        let address = line.trim_end().strip_prefix("sockexec-exporter: listening on http://");
        let address = address.and_then(|rest| rest.strip_suffix("/metrics")).unwrap_or_else(|| panic!("{line:?}"));
        Self { address: address.to_owned(), child, _stderr: stderr }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        stream
    }

    /// Makes a request. Returns head and body of the answer.
    #[track_caller]
    fn ask(&self, method: &str, path: &str) -> (String, String) {
        let mut stream = self.connect();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        answer(stream)
    }
}

#[track_caller]
fn answer(mut stream: TcpStream) -> (String, String) {
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("an answer");
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {reply:?}"));
    (head.to_owned(), body.to_owned())
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn assert_answer(answer: &(String, String), status: &str, header: &str) {
    assert!(answer.0.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer:?}");
    assert!(answer.0.to_lowercase().contains(header), "{answer:?}");
}

/// All lines in their order, samples without their values.
fn without_numbers(metrics: &str) -> Vec<&str> {
    metrics.lines().map(|line| if line.starts_with('#') { line } else { line.rsplit_once(' ').unwrap().0 }).collect()
}

#[test]
fn the_same_as_the_client() {
    let daemon = Running::start();
    assert_eq!(daemon.command("sh").args(["-c", "exit 3"]).status().unwrap().code(), Some(3));
    let exporter = Exporter::start(&daemon.socket());
    let told = exporter.ask("GET", "/metrics");
    assert_answer(&told, "200 OK", "content-type: text/plain; version=0.0.4; charset=utf-8");
    assert!(told.1.contains("\nsockexec_programs_exited_total{code=\"1-124\"} 1\n"), "{}", told.1);
    let mut command = bare(client().to_str().unwrap());
    command.args(["--status", "--format", "prometheus"]).arg(daemon.socket());
    let (code, metrics, complaint) = run(command);
    assert_eq!((code, complaint.as_str()), (0, ""));
    assert_eq!(without_numbers(&told.1), without_numbers(&metrics));
}

#[test]
fn promtool_has_nothing_to_say() {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("SKIPPED: there is no promtool (Debian: prometheus)");
        return;
    };
    let daemon = Running::start();
    let exporter = Exporter::start(&daemon.socket());
    let (_, metrics) = exporter.ask("GET", "/metrics");
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn other_requests() {
    let daemon = Running::start();
    let exporter = Exporter::start(&daemon.socket());
    let index = exporter.ask("GET", "/");
    assert_answer(&index, "200 OK", "content-type: text/html");
    assert!(index.1.contains("href=\"/metrics\""), "{index:?}");
    assert_answer(&exporter.ask("GET", "/metrics?x=y"), "200 OK", "version=0.0.4");
    assert_answer(&exporter.ask("GET", "/metric"), "404 Not Found", "text/plain");
    assert_answer(&exporter.ask("POST", "/missing"), "404 Not Found", "text/plain");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_answer(&exporter.ask(method, "/metrics"), "405 Method Not Allowed", "allow: get, head");
    }
    for path in ["/", "/metrics"] {
        let head = exporter.ask("HEAD", path);
        assert_answer(&head, "200 OK", "content-length: ");
        assert!(head.1.is_empty() && !head.0.to_lowercase().contains("content-length: 0"), "{head:?}");
    }
    // Garbage that is not HTTP, and a head without an end.
    let mut stream = exporter.connect();
    stream.write_all(b"\x00\xff garbage\r\n\r\n").unwrap();
    assert_answer(&answer(stream), "400 Bad Request", "");
    let mut stream = exporter.connect();
    // The exporter closes with unread bytes, which may cut the answer short.
    let _ = write!(stream, "GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(1 << 20));
    let mut reply = String::new();
    let read = stream.read_to_string(&mut reply);
    assert!(reply.starts_with("HTTP/1.1 431 ") || read.is_err(), "{reply:?}");
    // A client that half-closes still gets its answer.
    let mut stream = exporter.connect();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.0 200 OK\r\n") && reply.contains("sockexec_uptime_seconds "), "{reply:?}");
}

/// The exporter asks the daemon each time, so the daemon may start later, stop and start again.
#[test]
fn a_daemon_that_is_away() {
    let mut daemon = Running::start();
    daemon.end();
    let exporter = Exporter::start(&daemon.socket());
    for path in ["/metrics", "/"] {
        let told = exporter.ask("GET", path);
        let expected = if path == "/" { "200 OK" } else { "503 Service Unavailable" };
        assert_answer(&told, expected, "");
        // The socket file may be left behind if another process holds the directory's lock.
        assert_eq!(told.1.contains("cannot connect to "), path == "/metrics", "{told:?}");
    }
    daemon.begin();
    assert_answer(&exporter.ask("GET", "/metrics"), "200 OK", "");
    daemon.end();
    assert_answer(&exporter.ask("HEAD", "/metrics"), "503 Service Unavailable", "content-length: ");
}

/// A daemon that accepts and stays silent holds up only its own question.
#[test]
fn a_daemon_that_is_silent() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let exporter = Exporter::start(&socket);
    let mut waiting = exporter.connect();
    write!(waiting, "GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let (silent, _) = listener.accept().unwrap();
    assert_answer(&exporter.ask("GET", "/"), "200 OK", "");
    assert_answer(&answer(waiting), "503 Service Unavailable", "");
    drop(silent);
}

/// As many clients as there are places, each with half a request: they cost no thread, and their places become free.
#[test]
fn slow_clients_stop_nobody() {
    let daemon = Running::start();
    let exporter = Exporter::start(&daemon.socket());
    let slow = |_| {
        let mut stream = exporter.connect();
        stream.write_all(b"GET /met").unwrap();
        stream
    };
    let mut held: Vec<TcpStream> = (1..CONNECTIONS).map(slow).collect();
    assert_answer(&exporter.ask("GET", "/metrics"), "200 OK", "");
    if let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", exporter.child.id())) {
        assert_eq!(tasks.count(), 1, "threads");
    }
    // One of them completes its request meanwhile.
    let mut one = held.pop().unwrap();
    one.write_all(b"rics HTTP/1.1\r\n\r\n").unwrap();
    assert_answer(&answer(one), "200 OK", "");
    held.extend((held.len()..CONNECTIONS).map(slow));
    // All places are taken: this request waits until the others' time is up.
    assert_answer(&exporter.ask("GET", "/metrics"), "200 OK", "");
    assert_eq!(held.pop().unwrap().read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn signals_end_it() {
    let daemon = Running::start();
    for signal in [Signal::TERM, Signal::INT] {
        let mut exporter = Exporter::start(&daemon.socket());
        let _slow = exporter.connect();
        kill_process(Pid::from_child(&exporter.child), signal).unwrap();
        assert_eq!(exporter.child.wait().unwrap().code(), Some(0), "{signal:?}");
    }
}

#[test]
fn wrong_arguments() {
    complains(EXPORTER, &[], 100, "SOCKET");
    complains(EXPORTER, &[""], 100, "SOCKET is empty");
    complains(EXPORTER, &["-"], 100, "SOCKEXEC_SOCKET is not set");
    complains(EXPORTER, &["a", "b"], 100, "unexpected argument 'b'");
    complains(EXPORTER, &["--port", "1", "a"], 100, "--port");
    for address in ["", "1", "localhost", "127.0.0.1", "127.0.0.1:65536", "::1:1"] {
        complains(EXPORTER, &["--listen", address, "a"], 100, "--listen");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    complains(EXPORTER, &["--listen", &address, "a"], 111, &format!("cannot listen on {address}: "));
    let mut command = bare(EXPORTER);
    command.arg("--version");
    assert_eq!(run(command), (0, format!("sockexec-exporter version: {}\n", env!("CARGO_PKG_VERSION")), String::new()));
}

/// accept(2) that says ECONNABORTED for ever: the exporter took a whole processor.
#[test]
fn clients_that_give_up_for_ever() {
    if !Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: strace is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let mut command = bare("strace");
    command.args(["-D", "-f", "-qq", "-e", "trace=accept4", "-e", "inject=accept4:error=ECONNABORTED", "-o"]);
    command.arg(&trace).arg(EXPORTER);
    let exporter = Exporter::start_by(command, Path::new("/nowhere"));
    let _client = exporter.connect();
    let calls = || fs::read_to_string(&trace).unwrap_or_default().matches("ECONNABORTED").count();
    eventually("many attempts", || calls() > 20);
    // The time begins first: a thread that waits for a processor between the two would make it too short.
    let begin = Instant::now();
    let before = calls();
    eventually("more of them", || calls() >= before + 3);
    // There were thousands a second. Two pauses are between three attempts, and a busy machine only makes them longer.
    assert!(begin.elapsed() >= Duration::from_millis(100), "{} attempts in {:?}", calls() - before, begin.elapsed());
}

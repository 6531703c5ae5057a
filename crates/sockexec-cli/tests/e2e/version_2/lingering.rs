//! Sockets that linger. The close(2) of the last descriptor of such a socket waits until its bytes
//! are acknowledged or its time is up (socket(7)), even if the socket is non-blocking. A client
//! that let the daemon make that call used to stop it for everybody, for as long as the client
//! liked.

use std::ffi::OsStr;
use std::io::{PipeReader, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};

use super::descriptors::{send, try_send};
use super::{Caller, assert_clean, last_pid, netstring, request_2};
use crate::common::{Daemon, Launch, PATIENCE, eventually, fixture, kernel_is_before, request, steps};
use crate::faults::strace::{self, Fault, Strace, Whom};

/// The ways to pass it: by itself, in the queue of a UNIX socket, which does not linger itself, and
/// with an urgent byte, which the kernel skips.
const WAYS: [&str; 3] = ["plain", "queued", "urgent"];

/// A client that has passed a socket that lingers and has closed its own descriptor. The daemon is
/// stopped meanwhile, so it has the last one. The client is a process of its own: other tests of
/// this process start programs, which copy whatever is open here.
struct Passer(Child);

impl Passer {
    /// A client that sends the bytes with `count` descriptors and does the `before` steps. Then the
    /// daemon goes on, and the client does the `after` steps.
    #[track_caller]
    fn start(daemon: &Daemon, way: &str, bytes: &[u8], count: usize, before: &str, after: &str) -> Self {
        let mut command = Command::new(fixture());
        command.arg("pass").arg(daemon.socket()).arg(way).arg(OsStr::from_bytes(bytes)).arg(count.to_string());
        Self::run(daemon, command, before, after)
    }

    /// A client that sends these bytes, and passes the socket behind them.
    #[track_caller]
    fn behind(daemon: &Daemon, first: &[u8], way: &str) -> Self {
        let mut command = Command::new(fixture());
        command.arg("say").arg(daemon.socket()).arg(OsStr::from_bytes(first));
        command.arg("pass").arg(daemon.socket()).arg(way).args(["x", "1"]);
        Self::run(daemon, command, "", "")
    }

    #[track_caller]
    fn run(daemon: &Daemon, mut command: Command, before: &str, after: &str) -> Self {
        daemon.stop();
        command.args(before.split_whitespace()).args(["out", "sent"]).args(after.split_whitespace()).arg("wait");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut sent = [0; 4];
        let read = child.stdout.as_mut().unwrap().read_exact(&mut sent);
        daemon.signal(Signal::CONT);
        read.unwrap();
        Self(child)
    }

    /// A client that reads its answer. Returns the whole answer.
    #[track_caller]
    fn answer(daemon: &Daemon, way: &str, bytes: &[u8], count: usize) -> (Self, String) {
        let mut passer = Self::start(daemon, way, bytes, count, "", "answer hang-up close 1");
        let mut answer = String::new();
        passer.0.stdout.as_mut().unwrap().read_to_string(&mut answer).unwrap();
        (passer, answer)
    }
}

impl Drop for Passer {
    /// The peer goes with it, and so does the linger.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn threads(daemon: &Daemon) -> usize {
    daemon.process().threads()
}

/// Asserts that the loop turns, without starting a program.
#[track_caller]
fn assert_answers(daemon: &Daemon) {
    let mut caller = Caller(daemon.connect());
    caller.0.send(&netstring("protocol=2"));
    caller.0.half_close();
    caller.wait_for("8:protocol,");
    caller.0.until_gone();
}

/// Asserts that the daemon has closed the socket and nobody waits, while the socket's peer still
/// does not read.
#[track_caller]
fn assert_nobody_waits(daemon: &mut Daemon, descriptors: usize) {
    assert_answers(daemon);
    // A program started before that has a copy, and its exec would wait.
    assert_clean(daemon, descriptors);
    eventually("no thread but the first", || threads(daemon) == 1);
    daemon.assert_serves();
}

/// Whatever is wrong with the request, in both versions.
#[test]
fn a_bad_request_stops_nobody() {
    let mut daemon = Daemon::start("");
    let descriptors = daemon.process().descriptors();
    let too_many = [request_2::<_, &str>(&["fds"], &[]), b"wat".to_vec()].concat();
    let unwanted = request_2(&["cwd=/"], &["/bin/true"]);
    for way in WAYS {
        for (bytes, count) in [(&b"1x"[..], 1), (&too_many, 4), (&unwanted, 1)] {
            let (_passer, answer) = Passer::answer(&daemon, way, bytes, count);
            assert!(answer.contains("bad request") || answer.contains("bad-request"), "{answer}");
            assert_nobody_waits(&mut daemon, descriptors);
        }
    }
}

/// The client leaves before the daemon has read the descriptor, or after. The daemon's own end does
/// not wait either.
#[test]
fn a_client_that_leaves_stops_nobody() {
    let mut daemon = Daemon::start("");
    let descriptors = daemon.process().descriptors();
    for way in WAYS {
        let position = daemon.log_position();
        let gate = daemon.gate(way);
        let after = format!("gate {} hang-up", gate.path());
        let passer = Passer::start(&daemon, way, b"1", 1, "", &after);
        daemon.wait_for_log_after(position, "1 descriptors came");
        gate.open();
        assert_nobody_waits(&mut daemon, descriptors);
        drop(passer);
        let _passer = Passer::start(&daemon, way, b"1", 1, "hang-up", "");
        assert_nobody_waits(&mut daemon, descriptors);
    }
    let _passer = Passer::start(&daemon, "plain", b"1", 1, "hang-up", "");
    assert_eq!(daemon.terminate().status.code(), Some(0));
}

/// However many there are. A thread used to wait for each: 901 threads after 300 connections, until
/// no process could be made.
#[test]
fn many_at_once_stop_nobody() {
    const MANY: usize = 20;
    let mut daemon = Daemon::start("");
    let descriptors = daemon.process().descriptors();
    let mut most = 0;
    let passers: Vec<_> = (0..MANY)
        .map(|n| {
            let passer = Passer::start(&daemon, WAYS[n % WAYS.len()], b"1", 1, "hang-up", "");
            assert_answers(&daemon);
            most = most.max(threads(&daemon));
            passer
        })
        .collect();
    assert!(most < 10, "{most} threads");
    assert_nobody_waits(&mut daemon, descriptors);
    drop(passers);
}

/// Clients wait in the backlog of a daemon that ends, and closes what they have sent with its own
/// socket.
#[test]
fn in_the_backlog_they_do_not_delay_the_end() {
    let mut daemon = Daemon::start("--max-waiting 1 -t 0");
    let mut silent = daemon.connect();
    silent.send(b"1:2,");
    daemon.wait_for_log("connection 1: accepted");
    let _passer = Passer::start(&daemon, "plain", b"1", 1, "", "");
    assert_eq!(daemon.terminate().status.code(), Some(0));
}

/// A request of version 1, for a program that reads all of its input.
fn request_of_cat() -> Vec<u8> {
    [&request(&["/bin/cat"])[..], b"1000000:"].concat()
}

/// Behind the request nobody expects descriptors. The kernel used to close them within recv(2) or
/// splice(2).
#[test]
fn behind_the_request_they_stop_nobody() {
    let mut launch = Launch::default().options("-t 0 -k 0.2");
    if kernel_is_before(6, 16) {
        // The daemon trusts its own user, and splices its input. Another user's input is handled
        // like this.
        launch = launch.env("SOCKEXEC_TRANSFER", "copy");
    }
    let mut daemon = launch.start();
    let descriptors = daemon.process().descriptors();
    for way in WAYS {
        // A short input is read. Of a long one the rest is spliced.
        for len in [0, 100_000] {
            let first = [request_of_cat(), vec![b'x'; len]].concat();
            let passer = Passer::behind(&daemon, &first, way);
            assert_answers(&daemon);
            drop(passer);
            assert_nobody_waits(&mut daemon, descriptors);
        }
    }
}

/// Once input is spliced, the client can send no more descriptors, if the kernel can refuse them.
#[cfg(target_os = "linux")]
#[test]
fn none_can_come_where_input_is_spliced() {
    if kernel_is_before(6, 16) {
        eprintln!("SKIPPED: no SO_PASSRIGHTS before Linux 6.16");
        return;
    }
    let daemon = Launch::default().options("-t 0").without_env("SOCKEXEC_TRANSFER").start();
    let mut caller = Caller(daemon.connect());
    caller.0.send(&request_of_cat());
    caller.0.send(&vec![b'x'; 300_000]);
    let null = std::fs::File::open("/dev/null").unwrap();
    let mut sent = 0;
    eventually("EPERM", || match try_send(&caller.0, b"x", &[null.as_fd()]) {
        Ok(n) => {
            sent += n;
            false
        }
        Err(error) => error == rustix::io::Errno::PERM,
    });
    // What came before is ordinary input.
    caller.0.send(&vec![b'x'; 1_000_000 - 300_000 - sent]);
    caller.0.send(b",");
    caller.0.end_stdin();
    assert_eq!(caller.0.reply().stdout, vec![b'x'; 1_000_000]);
}

/// A program that has ended, or did not exist, before the daemon lets go of its copies, for each
/// way to start one.
#[test]
fn a_program_that_ends_at_once_leaves_nothing() {
    for spawn in ["", "crowd", "clone", "fork"] {
        let mut daemon = Launch::default().options("-m 40").env("SOCKEXEC_SPAWN", spawn).start();
        let descriptors = daemon.process().descriptors();
        // Only one byte is urgent.
        for way in ["plain", "queued"] {
            for (program, expected) in [("/bin/true", "8:exitcode,1:0,"), ("/nowhere/nope", "not-found")] {
                let (passer, answer) = Passer::answer(&daemon, way, &request_2(&["fds"], &[program]), 3);
                assert!(answer.contains(expected), "{answer}");
                assert_nobody_waits(&mut daemon, descriptors);
                drop(passer);
            }
        }
    }
}

/// A program that is stopped between clone and exec, with the copies of the daemon's descriptors
/// that it has by then.
struct HalfWay {
    caller: Caller,
    program: Pid,
    strace: Strace,
}

impl HalfWay {
    #[track_caller]
    fn start(daemon: &Daemon, start: impl FnOnce(&mut Caller)) -> Self {
        let stop = Fault { call: "close_range", error: "signal=STOP", when: "1".into() };
        let strace = Strace::inject(daemon.process(), Whom::Children, &stop);
        let position = daemon.log_position();
        let mut caller = Caller(daemon.connect());
        start(&mut caller);
        strace.wait_for_stops(1);
        Self { caller, program: last_pid(daemon, position), strace }
    }

    /// Lets it go on and do its work.
    #[track_caller]
    fn go_on(mut self) {
        self.strace.detach();
        let _ = rustix::process::kill_process(self.program, Signal::CONT);
        self.caller.0.end_stdin();
        assert_eq!(self.caller.0.rest(), b"6:stdout,5:words,8:exitcode,1:0,");
    }
}

/// Asserts that nobody has the other end of the pipe.
#[track_caller]
fn assert_at_end(pipe: &PipeReader) {
    let mut ends = [PollFd::new(pipe, PollFlags::IN)];
    let patience = Timespec::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut ends, Some(&patience)), Ok(1), "somebody has a copy");
}

/// A program that starts while the daemon has another client's descriptor takes no copy of it. Its
/// exec would have to close the copy, and wait in the daemon's place.
#[test]
fn programs_of_others_get_no_copy() {
    if !strace::is_usable() {
        return;
    }
    let daemon = Launch::default().options("-t 0").without_env("SOCKEXEC_SPAWN").start();
    let (end, passed) = std::io::pipe().unwrap();
    let holder = Caller(daemon.connect());
    send(&holder, b"1", &[passed.as_fd()]);
    drop(passed);
    daemon.wait_for_log("1 descriptors came");
    let program = HalfWay::start(&daemon, |caller| caller.0.exec(&steps("out words")));
    drop(holder);
    assert_at_end(&end);
    program.go_on();
}

/// Version 1 has no use for descriptors. The daemon closes them before it starts the program, so
/// that no process has a copy, even where the child copies the whole table.
#[test]
fn unwanted_ones_are_closed_first() {
    if !strace::is_usable() {
        return;
    }
    let daemon = Launch::default().options("-t 0 -m 40").without_env("SOCKEXEC_SPAWN").start();
    let (end, passed) = std::io::pipe().unwrap();
    let start = |caller: &mut Caller| send(caller, &request(&steps("out words")), &[passed.as_fd()]);
    let program = HalfWay::start(&daemon, start);
    drop(passed);
    assert_at_end(&end);
    program.go_on();
}

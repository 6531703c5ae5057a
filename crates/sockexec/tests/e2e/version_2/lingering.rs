//! Sockets that linger: close(2) of the last descriptor of one waits until its bytes are acknowledged or its time is up (socket(7)), also where it does
//! not block otherwise. A client that let the daemon make that call stopped it for everybody, for as long as the client liked.

use std::ffi::OsStr;
use std::io::{PipeReader, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};

use super::descriptors::send;
use super::{Caller, assert_clean, last_pid, request_2};
use crate::common::{Daemon, Launch, PATIENCE, eventually, fixture, request, steps};
use crate::faults::strace::{self, Fault, Strace, Whom};

/// The ways in which it is passed: by itself, and in the queue of a UNIX socket, which does not linger itself.
const WAYS: [&str; 2] = ["plain", "queued"];

/// A client that has passed a socket that lingers, and has closed its own: the daemon had the last one then, as it was stopped meanwhile. A process of
/// its own, as the other tests of this one start programs, which have copies of whatever is open here.
struct Passer(Child);

impl Passer {
    /// One that sends the bytes, with so many descriptors, does the `before` steps, lets the daemon go on, and does the steps `after`.
    #[track_caller]
    fn start(daemon: &Daemon, way: &str, bytes: &[u8], count: usize, before: &str, after: &str) -> Self {
        daemon.signal(Signal::STOP);
        eventually("a daemon that has stopped", || daemon.process().is_stopped());
        let mut command = Command::new(fixture());
        command.arg("pass").arg(daemon.socket()).arg(way).arg(OsStr::from_bytes(bytes)).arg(count.to_string());
        command.args(before.split_whitespace()).args(["out", "sent"]).args(after.split_whitespace()).arg("wait");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut sent = [0; 4];
        let read = child.stdout.as_mut().unwrap().read_exact(&mut sent);
        daemon.signal(Signal::CONT);
        read.unwrap();
        Self(child)
    }

    /// One that reads what it is told: all of that.
    #[track_caller]
    fn answer(daemon: &Daemon, way: &str, bytes: &[u8], count: usize) -> (Self, String) {
        let mut passer = Self::start(daemon, way, bytes, count, "", "answer hang-up close 1");
        let mut answer = String::new();
        passer.0.stdout.as_mut().unwrap().read_to_string(&mut answer).unwrap();
        (passer, answer)
    }
}

impl Drop for Passer {
    /// With it goes the peer, and the linger is over.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn threads(daemon: &Daemon) -> u64 {
    daemon.process().status_kib("Threads:")
}

/// The daemon has closed one and not waited for it; others are served meanwhile. Nothing is left when it is over.
#[track_caller]
fn assert_serves_meanwhile(daemon: &mut Daemon, descriptors: usize, passer: Passer) {
    eventually("a thread that waits in its stead", || threads(daemon) == 2);
    // In this order: a program that is forked would have a copy before the thread has begun to close it.
    assert_clean(daemon, descriptors);
    daemon.assert_serves();
    assert_eq!(threads(daemon), 2, "it is over already, so that nothing was seen");
    drop(passer);
    eventually("the end of it", || threads(daemon) == 1);
    daemon.assert_serves();
}

/// Whatever is wrong with the request, and in whatever version it is.
#[test]
fn a_bad_request() {
    let mut daemon = Daemon::start("");
    let descriptors = daemon.process().descriptors();
    let too_many = [request_2::<_, &str>(&["fds"], &[]), b"wat".to_vec()].concat();
    let unwanted = request_2(&["cwd=/"], &["/bin/true"]);
    for way in WAYS {
        for (bytes, count) in [(&b"1x"[..], 1), (&too_many, 4), (&unwanted, 1)] {
            let (passer, answer) = Passer::answer(&daemon, way, bytes, count);
            assert!(answer.contains("bad request") || answer.contains("bad-request"), "{answer}");
            assert_serves_meanwhile(&mut daemon, descriptors, passer);
        }
    }
    // One that does not linger needs no thread, nor does one of UNIX with nothing in it.
    let (one, other) = UnixStream::pair().unwrap();
    let caller = Caller(daemon.connect());
    send(&caller, b"1x", &[one.as_fd()]);
    caller.0.until_gone();
    assert_clean(&daemon, descriptors);
    assert_eq!(threads(&daemon), 1);
    drop(other);
}

/// Whether the daemon has taken the descriptor before, or finds the client gone. Nor does its own end wait for that.
#[test]
fn a_client_that_goes() {
    let mut daemon = Daemon::start("");
    let descriptors = daemon.process().descriptors();
    for way in WAYS {
        let position = daemon.log_position();
        let gate = daemon.gate(way);
        let after = format!("gate {} hang-up", gate.path());
        let passer = Passer::start(&daemon, way, b"1", 1, "", &after);
        daemon.wait_for_log_after(position, "1 descriptors came");
        gate.open();
        assert_serves_meanwhile(&mut daemon, descriptors, passer);
        let passer = Passer::start(&daemon, way, b"1", 1, "hang-up", "");
        assert_serves_meanwhile(&mut daemon, descriptors, passer);
    }
    let _passer = Passer::start(&daemon, "plain", b"1", 1, "hang-up", "");
    eventually("a thread that waits in its stead", || threads(&daemon) == 2);
    assert_eq!(daemon.terminate().status.code(), Some(0));
}

/// A program that has ended, or was not there, before the daemon lets go of its copies, in each of the ways to start one.
#[test]
fn a_program_that_ends_at_once() {
    for spawn in ["", "crowd", "clone", "fork"] {
        let mut daemon = Launch::default().options("-m 40").env("SOCKEXEC_SPAWN", spawn).start();
        let descriptors = daemon.process().descriptors();
        for way in WAYS {
            for (program, expected) in [("/bin/true", "8:exitcode,1:0,"), ("/nowhere/nope", "not-found")] {
                let (passer, answer) = Passer::answer(&daemon, way, &request_2(&["fds"], &[program]), 3);
                assert!(answer.contains(expected), "{answer}");
                // Where the program was the last to have it nobody waits: a process that exits does not.
                assert_clean(&daemon, descriptors);
                daemon.assert_serves();
                drop(passer);
                eventually("nobody who waits", || threads(&daemon) == 1);
            }
        }
    }
}

/// A program that is stopped between clone and exec, with whatever it has of the daemon's descriptors by then.
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

    /// It goes on, and does what it was to do.
    #[track_caller]
    fn go_on(mut self) {
        self.strace.detach();
        let _ = rustix::process::kill_process(self.program, Signal::CONT);
        self.caller.0.end_stdin();
        assert_eq!(self.caller.0.rest(), b"6:stdout,5:words,8:exitcode,1:0,");
    }
}

/// Nobody has the other end of the pipe any more.
#[track_caller]
fn assert_at_end(pipe: &PipeReader) {
    let mut ends = [PollFd::new(pipe, PollFlags::IN)];
    let patience = Timespec::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut ends, Some(&patience)), Ok(1), "somebody has a copy");
}

/// A program that is started while a descriptor of another client's is there takes no copy along: its exec would have to close that, and wait
/// in the daemon's stead.
#[test]
fn programs_of_others_have_no_copy() {
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

/// In version 1 nobody asks for descriptors. They are closed before the program is started, so that not even what becomes the program has a copy, not
/// where it copies the daemon's whole table.
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

//! Sockets that linger: close(2) of the last descriptor of one waits until its bytes are acknowledged or its time is up (socket(7)), also where it does
//! not block otherwise. A client that let the daemon make that call stopped it for everybody, for as long as the client liked.

use std::fs::File;
use std::io::{ErrorKind, PipeReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Pid, Signal};

use super::descriptors::send;
use super::{Caller, assert_clean, last_pid, request_2};
use crate::common::{Client, Daemon, Launch, PATIENCE, Process, eventually, request, steps};
use crate::faults::strace::{self, Fault, Strace, Whom};

/// Longer than a test waits for an answer.
const LINGER: Duration = Duration::from_secs(300);

/// A socket whose last close takes [`LINGER`], and the peer that must read, or go, for it to be over earlier.
fn lingering() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    set_socket_linger(&socket, Some(LINGER)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let bytes = vec![0; 1 << 16];
    loop {
        match socket.write(&bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (socket.into(), peer),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A UNIX socket, which does not linger itself, and in whose queue one is under way that does.
fn holder_of_one() -> (OwnedFd, TcpStream) {
    let (socket, peer) = lingering();
    let (sender, holder) = UnixStream::pair().unwrap();
    send(&Caller(Client::from(sender)), b"x", &[socket.as_fd()]);
    (holder.into(), peer)
}

/// While the daemon is stopped the client sends its bytes, closes what it has sent with the first of them, and does what
/// else it does: the daemon has the last of the descriptors then.
#[track_caller]
fn leave_with(
    daemon: &Daemon,
    bytes: &[u8],
    passed: Vec<OwnedFd>,
    then: impl FnOnce(Caller) -> Option<Caller>,
) -> Option<Caller> {
    daemon.signal(Signal::STOP);
    eventually("a daemon that has stopped", || daemon.process().is_stopped());
    let caller = Caller(daemon.connect());
    let borrowed: Vec<BorrowedFd<'_>> = passed.iter().map(|descriptor| descriptor.as_fd()).collect();
    send(&caller, bytes, &borrowed);
    drop(passed);
    let caller = then(caller);
    daemon.signal(Signal::CONT);
    caller
}

fn threads(daemon: &Daemon) -> u64 {
    daemon.process().status_kib("Threads:")
}

/// The daemon has closed one and not waited for it; others are served meanwhile. Nothing is left when it is over.
#[track_caller]
fn assert_serves_meanwhile(daemon: &mut Daemon, descriptors: usize, peer: TcpStream) {
    assert_clean(daemon, descriptors);
    eventually("a thread that waits in its stead", || threads(daemon) == 2);
    daemon.assert_serves();
    assert_eq!(threads(daemon), 2, "it is over already, so that nothing was seen");
    drop(peer);
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
    for make in [lingering, holder_of_one] {
        for (bytes, count) in [(&b"1x"[..], 1), (&too_many, 4), (&unwanted, 1)] {
            let (socket, peer) = make();
            let passed = (0..count - 1).map(|_| File::open("/dev/null").unwrap().into()).chain([socket]).collect();
            let mut caller = leave_with(&daemon, bytes, passed, Some).unwrap();
            let reply = caller.0.rest();
            let text = String::from_utf8_lossy(&reply);
            assert!(text.contains("bad request") || text.contains("bad-request"), "{text}");
            drop(caller);
            assert_serves_meanwhile(&mut daemon, descriptors, peer);
        }
    }
    // One that does not linger needs no thread, nor does one of UNIX with nothing in it.
    let (one, other) = UnixStream::pair().unwrap();
    leave_with(&daemon, b"1x", vec![one.into()], Some).unwrap().0.until_gone();
    assert_clean(&daemon, descriptors);
    assert_eq!(threads(&daemon), 1);
    drop(other);
}

/// Whether the daemon has taken the descriptor before, or finds the client gone. Nor does its own end wait for that.
#[test]
fn a_client_that_goes() {
    let mut daemon = Daemon::start("");
    let descriptors = daemon.process().descriptors();
    for make in [lingering, holder_of_one] {
        let (socket, peer) = make();
        let position = daemon.log_position();
        let caller = leave_with(&daemon, b"1", vec![socket], Some);
        daemon.wait_for_log_after(position, "1 descriptors came");
        drop(caller);
        assert_serves_meanwhile(&mut daemon, descriptors, peer);
        let (socket, peer) = make();
        assert!(leave_with(&daemon, b"1", vec![socket], |_| None).is_none());
        assert_serves_meanwhile(&mut daemon, descriptors, peer);
    }
    let (socket, _peer) = lingering();
    assert!(leave_with(&daemon, b"1", vec![socket], |_| None).is_none());
    eventually("a thread that waits in its stead", || threads(&daemon) == 2);
    assert_eq!(daemon.terminate().status.code(), Some(0));
}

/// A program that has ended, or was not there, before the daemon lets go of its copies, in each of the ways to start one.
#[test]
fn a_program_that_ends_at_once() {
    for way in ["", "portable", "crowd"] {
        let mut daemon = Launch::default().options("-m 40").env("SOCKEXEC_SPAWN", way).start();
        let descriptors = daemon.process().descriptors();
        for make in [lingering, holder_of_one] {
            for (program, expected) in [("/bin/true", "8:exitcode,1:0,"), ("/nowhere/nope", "not-found")] {
                let (socket, peer) = make();
                let null = || OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
                let passed = vec![null(), socket, null()];
                let bytes = request_2(&["fds"], &[program]);
                let mut caller = leave_with(&daemon, &bytes, passed, Some).unwrap();
                let reply = caller.0.rest();
                assert!(
                    reply.windows(expected.len()).any(|part| part == expected.as_bytes()),
                    "{}",
                    reply.escape_ascii()
                );
                drop(caller);
                // Where the program was the last to have it nobody waits: a process that exits does not.
                assert_clean(&daemon, descriptors);
                daemon.assert_serves();
                drop(peer);
                eventually("nobody who waits", || threads(&daemon) == 1);
            }
        }
    }
}

/// Starts a program that stops between clone and exec, with whatever it has of the daemon's descriptors by then.
#[track_caller]
fn start_stopped(daemon: &Daemon, start: impl FnOnce(&mut Caller)) -> (Caller, Process) {
    let stop = Fault { call: "close_range", error: "signal=STOP", when: "1".into() };
    let strace = Strace::inject(daemon.process(), Whom::Children, &stop);
    let position = daemon.log_position();
    let mut caller = Caller(daemon.connect());
    start(&mut caller);
    strace.wait_for_calls(1);
    strace.detach();
    let program = Process(Pid::from_raw(last_pid(daemon, position)).unwrap());
    eventually("a program that has stopped", || program.is_stopped());
    (caller, program)
}

/// It goes on, and does what it was to do.
#[track_caller]
fn assert_goes_on(mut caller: Caller, program: Process) {
    rustix::process::kill_process(program.0, Signal::CONT).unwrap();
    caller.0.end_stdin();
    assert_eq!(caller.0.rest(), b"6:stdout,5:words,8:exitcode,1:0,");
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
    let (caller, program) = start_stopped(&daemon, |caller| caller.0.exec(&steps("out words")));
    drop(holder);
    assert_at_end(&end);
    assert_goes_on(caller, program);
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
    let (caller, program) =
        start_stopped(&daemon, |caller| send(caller, &request(&steps("out words")), &[passed.as_fd()]));
    drop(passed);
    assert_at_end(&end);
    assert_goes_on(caller, program);
}

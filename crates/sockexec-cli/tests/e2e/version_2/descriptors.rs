//! Programs whose standard streams are descriptors of the client.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, IoSlice, Read as _, Seek as _, SeekFrom, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::{Caller, NONE, assert_clean, pair, request_2, run};
use crate::common::{Client, Daemon, eventually, steps};
use crate::limits::limit_descriptors;

/// Sends the bytes, and with the first of them the descriptors.
#[track_caller]
pub(super) fn send(caller: &Caller, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    send_from(&caller.0, bytes, descriptors);
}

/// The same for a connection.
#[track_caller]
pub(crate) fn send_from(client: &Client, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    assert_eq!(try_send(client, bytes, descriptors).unwrap(), bytes.len());
}

/// The same where it may fail. Returns how many bytes were sent.
#[track_caller]
pub(super) fn try_send(client: &Client, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    rustix::net::sendmsg(client.socket(), &[IoSlice::new(bytes)], &mut control, SendFlags::empty())
}

#[track_caller]
fn start(daemon: &Daemon, options: &[&str], argv: &[String], descriptors: &[BorrowedFd<'_>]) -> Caller {
    let caller = Caller(daemon.connect());
    send(&caller, &request_2(options, argv), descriptors);
    caller
}

fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").unwrap().into()
}

/// A file stays a file. The program uses its offset, and no byte goes through the daemon.
#[test]
fn files_stay_files() {
    let daemon = Daemon::start("");
    let path = |name: &str| daemon.directory().join(name).canonicalize().unwrap();
    fs::write(daemon.directory().join("in"), "skipped input").unwrap();
    let mut input = File::open(path("in")).unwrap();
    input.seek(SeekFrom::Start(8)).unwrap();
    let mut output = File::create_new(daemon.directory().join("out")).unwrap();
    output.write_all(b"before ").unwrap();
    let errors = File::create_new(daemon.directory().join("err")).unwrap();
    let argv = steps("cat err word fds exit 3");
    let caller = start(&daemon, &["fds"], &argv, &[input.as_fd(), output.as_fd(), errors.as_fd()]);
    let reply = caller.reply();
    let tags: Vec<&str> = reply.pairs.iter().map(|(tag, _)| tag.as_str()).collect();
    assert_eq!((tags.as_slice(), reply.code()), (&["started", "usage", "exitcode"][..], 3), "{reply:?}");
    assert_eq!(fs::read_to_string(path("err")).unwrap(), "word");
    let written = fs::read_to_string(path("out")).unwrap();
    let places = ["in", "out", "err"].map(|name| path(name).display().to_string());
    let expected = format!("before input0 {}\n1 {}\n2 {}\n", places[0], places[1], places[2]);
    assert_eq!(written, expected, "three descriptors, each where it belongs, and no other");
    // The offset is shared, as with a child of one's own.
    assert_eq!(input.stream_position().unwrap(), 13);
}

/// A pipe ends when the program does: the daemon keeps no copy of the client's descriptors.
#[test]
fn pipes_end_with_the_program() {
    let daemon = Daemon::start("");
    let descriptors = daemon.process().descriptors();
    let (input, mut feed) = std::io::pipe().unwrap();
    let (mut drain, output) = std::io::pipe().unwrap();
    let argv = steps("cat close 1 close 0 out nowhere err nowhere wait");
    let mut caller = start(&daemon, &["fds"], &argv, &[input.as_fd(), output.as_fd(), null().as_fd()]);
    drop((input, output));
    caller.wait_for("started");
    feed.write_all(b"through the pipe").unwrap();
    drop(feed);
    let mut text = String::new();
    drain.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through the pipe");
    caller.tell("signal", "TERM");
    assert_eq!(caller.reply().signal(), 15);
    assert_clean(&daemon, descriptors);
}

/// A terminal stays the client's terminal, and does not control the program.
#[test]
fn terminals_stay_the_clients() {
    let daemon = Daemon::start("");
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let theirs = rustix::fs::open(&name, flags, rustix::fs::Mode::empty()).unwrap();
    let argv = ["tty".to_owned()];
    let reply = start(&daemon, &["fds"], &argv, &[theirs.as_fd(), theirs.as_fd(), theirs.as_fd()]).reply();
    assert_eq!(reply.code(), 0);
    // A terminal passes a line on in pieces: its text, and then its end.
    let mut line = String::new();
    BufReader::new(File::from(ours)).read_line(&mut line).unwrap();
    assert_eq!(line, format!("{}\r\n", name.to_str().unwrap()));
}

/// The flags of the client's descriptor stay as they are, because others may share it.
#[test]
fn flags_are_left_alone() {
    let daemon = Daemon::start("");
    let (drain, output) = std::io::pipe().unwrap();
    let nonblock = rustix::fs::OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(&output, nonblock).unwrap();
    let argv = ["/bin/true".to_owned()];
    assert_eq!(start(&daemon, &["fds"], &argv, &[null().as_fd(), output.as_fd(), output.as_fd()]).reply().code(), 0);
    assert!(rustix::fs::fcntl_getfl(&output).unwrap().contains(nonblock));
    drop(drain);
}

/// The other options, a missing program, and the deadline.
#[test]
fn other_options_still_work() {
    let daemon = Daemon::start("-k 0.3");
    let (mut drain, output) = std::io::pipe().unwrap();
    let argv = ["/bin/sh", "-c", "pwd; echo $A"].map(str::to_owned);
    let all: [OwnedFd; 3] = [null(), output.try_clone().unwrap().into(), output.into()];
    let borrowed = [all[0].as_fd(), all[1].as_fd(), all[2].as_fd()];
    assert_eq!(start(&daemon, &["cwd=/", "env=A=b", "fds"], &argv, &borrowed).reply().code(), 0);
    let mut buffer = [0; 100];
    let n = drain.read(&mut buffer).unwrap();
    assert_eq!(str::from_utf8(&buffer[..n]).unwrap(), "/\nb\n");
    let refused = start(&daemon, &["fds"], &["nope".to_owned()], &borrowed).reply();
    assert_eq!(refused.refusal(), "not-found nope: No such file or directory");
    let refused = start(&daemon, &["fds", "cwd=/nowhere"], &argv, &borrowed).reply();
    assert_eq!(refused.refusal(), "not-found /nowhere: No such file or directory");
    // If the deadline comes before the exec, no exit pair follows. Then the test tries again with more
    // time.
    let mut replies = ["timeout=0.3", "timeout=3", "timeout=30"]
        .iter()
        .map(|timeout| start(&daemon, &["fds", timeout], &steps("wait"), &borrowed).reply());
    let late = replies.find(|reply| reply.exit.is_some()).expect("a program that is there in time");
    // KILL is for one that was not executed yet, and may find it executed.
    assert!([9, 15].contains(&late.signal()) && late.errors.len() == 1, "{late:?}");
}

/// A client that leaves takes its program with it, even if others hold its streams.
#[test]
fn a_client_that_leaves_ends_its_program() {
    let daemon = Daemon::start("-k 0.2");
    let descriptors = daemon.process().descriptors();
    let mut fifo = daemon.fifo("fifo");
    let argv = steps(&format!("spawn [ ignore TERM ; hold {} wait ] wait", fifo.path()));
    let null = null();
    let caller = start(&daemon, &["fds"], &argv, &[null.as_fd(), null.as_fd(), null.as_fd()]);
    fifo.holder();
    drop(caller);
    fifo.wait_for_death();
    assert_clean(&daemon, descriptors);
}

/// More or fewer than three, or three that come too late, are a bad request. None of them stays
/// open.
#[test]
fn too_many_or_too_few_are_refused() {
    let mut daemon = Daemon::start("");
    let descriptors = daemon.process().descriptors();
    let null = null();
    let argv = ["/bin/true".to_owned()];
    for count in [1, 2, 4, 5, 253] {
        let many = vec![null.as_fd(); count];
        let reply = start(&daemon, &["fds"], &argv, &many).reply();
        let expected = format!("bad-request {count} descriptors, but option fds needs 3 at byte ");
        assert!(reply.refusal().starts_with(&expected), "{reply:?}");
        assert_clean(&daemon, descriptors);
    }
    assert!(
        run(&daemon, &["fds"], &argv, "")
            .refusal()
            .starts_with("bad-request 0 descriptors, but option fds needs 3 at byte ")
    );
    let three = [null.as_fd(); 3];
    // Three in all, at any bytes of the request; and three more in the middle of it.
    let bytes = request_2(&["fds"], &argv);
    let (begin, rest) = bytes.split_at(7);
    for (first, second, is_right) in
        [(0, 3, true), (1, 2, true), (2, 1, true), (3, 0, true), (3, 3, false), (0, 4, false)]
    {
        let mut caller = Caller(daemon.connect());
        for (bytes, count) in [(begin, first), (rest, second)] {
            match count {
                0 => caller.0.send(bytes),
                count => send(&caller, bytes, three.get(..count).unwrap_or(&[null.as_fd(); 4])),
            }
        }
        let reply = caller.reply();
        if is_right {
            assert_eq!(reply.code(), 0, "{first} {second}");
        } else {
            assert!(reply.refusal().starts_with(&format!("bad-request {} descriptors, ", first + second)), "{reply:?}");
        }
        assert_clean(&daemon, descriptors);
    }
    // A connection that lives on does not hold the surplus ones meanwhile.
    let position = daemon.log_position();
    let caller = Caller(daemon.connect());
    send(&caller, &request_2::<_, &str>(&["fds"], &[]), &[null.as_fd(); 100]);
    daemon.wait_for_log_after(position, " descriptors came");
    eventually("descriptors that are closed", || daemon.process().descriptors() <= descriptors + 4);
    drop(caller);
    assert_clean(&daemon, descriptors);
    daemon.assert_serves();
}

#[test]
fn without_the_option_they_are_refused() {
    let mut daemon = Daemon::start("");
    let descriptors = daemon.process().descriptors();
    let null = null();
    let three = [null.as_fd(); 3];
    for options in [&[][..], &["cwd=/"], &["pty=80x24"], &["status"]] {
        let argv: &[String] = if options == ["status"] { &[] } else { &["/bin/true".to_owned()] };
        let reply = start(&daemon, options, argv, &three).reply();
        assert!(reply.refusal().starts_with("bad-request 3 descriptors, but no option fds at byte "), "{reply:?}");
    }
    // Version 1 does not report them, and closes them all the same.
    let mut caller = Caller(daemon.connect());
    send(&caller, b"1:1,8:/bin/cat,3:abc,0:,", &three);
    assert_eq!(caller.0.rest(), b"6:stdout,3:abc,8:exitcode,1:0,");
    assert_clean(&daemon, descriptors);
    daemon.assert_serves();
}

/// After the request they have no meaning, and are closed as they come.
#[test]
fn beside_input_they_are_closed() {
    let daemon = Daemon::start("");
    let null = null();
    let mut caller = Caller::start(&daemon, NONE, &steps("out ready cat"));
    caller.wait_for("ready");
    let descriptors = daemon.process().descriptors();
    for _ in 0..50 {
        send(&caller, &pair("stdin", "word "), &[null.as_fd(); 7]);
    }
    caller.wait_for("word ");
    eventually("none of them kept", || daemon.process().descriptors() <= descriptors);
    caller.end_stdin();
    let reply = caller.reply();
    assert_eq!((reply.stdout_text(), reply.code()), (format!("ready{}", "word ".repeat(50)).as_str(), 0));
}

/// The daemon no longer handles the program's input.
#[test]
fn stdin_beside_descriptors_is_refused() {
    let daemon = Daemon::start("-k 0.2");
    let null = null();
    let three = [null.as_fd(); 3];
    for payload in ["x", ""] {
        let mut caller = start(&daemon, &["fds"], &steps("wait"), &three);
        caller.stdin(payload);
        let reply = caller.reply();
        assert!(
            reply.errors[0].starts_with("bad-request stdin cannot be combined with option fds at byte "),
            "{reply:?}"
        );
    }
    // Here a half-close is neither an end of input nor a disconnect.
    let caller = start(&daemon, &["fds"], &steps("exit 5"), &three);
    caller.0.half_close();
    assert_eq!(caller.reply().code(), 5);
}

/// They used to stay open until the client left, or for five seconds.
#[test]
fn none_stay_open_after_a_request_that_came_too_late() {
    let mut daemon = Daemon::start("-t 0 --request-timeout 0.2");
    let descriptors = daemon.process().descriptors();
    let null = null();
    let caller = Caller(daemon.connect());
    send(&caller, b"10:protocol=2,3:fds,", &[null.as_fd(); 3]);
    daemon.wait_for_log("reply complete");
    assert_eq!(daemon.process().descriptors(), descriptors + 1, "the socket");
    assert!(caller.reply().refusal().starts_with("timeout "));
    assert_clean(&daemon, descriptors);
    daemon.assert_serves();
}

/// A daemon that has no descriptors left for those of the client says that, and not that the
/// request is wrong.
#[test]
fn without_room_for_them_the_daemon_is_to_blame() {
    let mut daemon = Daemon::start("-t 0");
    let descriptors = daemon.process().descriptors();
    let null = null();
    let argv = ["/bin/true".to_owned()];
    // All of them are lost, or two, or one.
    for room in 0..3 {
        for (options, expected) in [
            (
                &["fds"][..],
                "spawn-failed /bin/true: descriptors that came with the request were lost: the daemon is limited to ",
            ),
            (&[], &format!("bad-request {} descriptors, but no option fds at byte ", room + 1)),
        ] {
            let position = daemon.log_position();
            let caller = Caller(daemon.connect());
            eventually("an accepted connection", || daemon.process().descriptors() > descriptors);
            let directory = format!("/proc/{}/fd", daemon.process().0.as_raw_pid());
            let is_free = |number: &u64| !fs::exists(format!("{directory}/{number}")).unwrap();
            limit_descriptors(&daemon, (0..).filter(is_free).nth(room).unwrap());
            send(&caller, &request_2(options, &argv), &[null.as_fd(); 3]);
            let reply = caller.reply();
            limit_descriptors(&daemon, 1000);
            assert!(reply.refusal().starts_with(expected), "{room}: {reply:?}");
            if expected.starts_with("spawn-failed") {
                daemon.wait_for_log_after(position, "exit={\"error\":\"spawn-failed\"}");
            }
            assert_clean(&daemon, descriptors);
        }
    }
    daemon.assert_serves();
}

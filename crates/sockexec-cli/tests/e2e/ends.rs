//! How a connection ends if its program does not: the client leaves, or the time is up.

mod linger;

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use sockexec_proto::Stream;

use crate::common::{
    Client, Daemon, Fifo, Process, empty_groups_are_noticed, eventually, exit_code, request, steps, with_stubborn_child,
};

/// A deadline that comes soon, for tests in which no program has to be ready before it.
const SHORT: &str = "-m 1 -t 2 -k 0.3";

/// Runs a test with `-m 1` and a deadline that must find its program ready. The test returns false if
/// it did not, as on a slow machine, and is tried again with more time.
#[track_caller]
fn at_the_deadline(kill_timeout: &str, attempt: impl Fn(&mut Daemon) -> bool) {
    let is_done = ["1", "5", "25"].iter().any(|deadline| {
        let mut daemon = Daemon::start(&format!("-m 1 -t {deadline} -k {kill_timeout}"));
        let is_done = attempt(&mut daemon);
        assert_slot_is_free(&mut daemon);
        is_done
    });
    assert!(is_done, "each deadline found a program that was not ready");
}

/// Asserts that a slot is free again: with `-m 1` nobody else is served before.
#[track_caller]
fn assert_slot_is_free(daemon: &mut Daemon) {
    // On a slow machine the deadline may cut this program too.
    eventually("a program that is served", || daemon.run(&steps("out served"), b"").stdout == b"served");
    assert!(!daemon.has_ended());
    assert_no_children(daemon);
}

/// If nothing else pins its group's number, a leader stays a zombie until KILL is due.
#[track_caller]
fn assert_no_children(daemon: &Daemon) {
    eventually("no child and no zombie", || {
        let (all, zombies) = daemon.process().children();
        all == if empty_groups_are_noticed() { 0 } else { zombies }
    });
}

/// A program that does the steps, and whose FIFO shows that it lives.
#[track_caller]
fn start(daemon: &Daemon, life: &mut Fifo, before: &str, after: &str) -> (Client, Process) {
    let client = daemon.exec(&steps(&format!("{before} hold {} {after}", life.path())));
    let holder = life.holder();
    (client, Process(holder.pid))
}

// The client leaves.

#[test]
fn a_client_that_leaves_ends_its_program() {
    let daemon = Daemon::start("-t 0 -k 100");
    let mut life = daemon.fifo("life");
    let (client, _) = start(&daemon, &mut life, "", "wait");
    drop(client);
    life.wait_for_death();
    assert_no_children(&daemon);
}

/// TERM is a request. KILL follows after `-k` seconds.
#[test]
fn a_program_that_ignores_term_is_killed() {
    let daemon = Daemon::start("-t 0 -k 0.2");
    let mut life = daemon.fifo("life");
    let (client, _) = start(&daemon, &mut life, "ignore TERM ;", "wait");
    drop(client);
    life.wait_for_death();
    assert_no_children(&daemon);
}

/// A stopped program handles TERM only once it runs, so CONT must follow.
#[test]
fn a_client_that_leaves_ends_a_stopped_program() {
    let daemon = Daemon::start("-t 0 -k 100");
    let mut life = daemon.fifo("life");
    let (client, program) = start(&daemon, &mut life, "", "stop wait");
    eventually("a stopped program", || program.is_stopped());
    drop(client);
    life.wait_for_death();
    assert_no_children(&daemon);
}

/// In 3.1.1 a grandchild survived the client's disconnect.
#[test]
fn a_client_that_leaves_ends_the_whole_group() {
    let daemon = Daemon::start("-t 0 -k 100");
    let (mut leader, mut child) = (daemon.fifo("leader"), daemon.fifo("child"));
    let argv = format!("spawn [ close 0 close 1 close 2 hold {} wait ] hold {} wait", child.path(), leader.path());
    let client = daemon.exec(&steps(&argv));
    assert_eq!(child.holder().group, leader.holder().group);
    drop(client);
    leader.wait_for_death();
    child.wait_for_death();
}

/// The leader ends at TERM and its child does not. The leader's exit must neither cancel the KILL
/// nor free the pid that names the group before that.
#[test]
fn the_kill_reaches_the_group_of_a_leader_that_is_gone() {
    let daemon = Daemon::start("-t 0 -k 0.3");
    let (mut leader, mut child) = (daemon.fifo("leader"), daemon.fifo("child"));
    let client = daemon.exec(&with_stubborn_child(&leader, &child));
    let (group, member) = (leader.holder(), child.holder());
    assert_eq!(group.pid, member.group);
    drop(client);
    leader.wait_for_death();
    child.wait_for_death();
    assert_no_children(&daemon);
}

/// The same where the child holds the output open, which keeps the connection too.
#[test]
fn the_kill_reaches_a_child_that_holds_the_output() {
    let daemon = Daemon::start("-t 0 -k 0.3");
    let (mut leader, mut child) = (daemon.fifo("leader"), daemon.fifo("child"));
    let argv = format!("spawn [ ignore TERM ; hold {} wait ] hold {} wait", child.path(), leader.path());
    let client = daemon.exec(&steps(&argv));
    child.holder();
    leader.holder();
    drop(client);
    leader.wait_for_death();
    child.wait_for_death();
    assert_no_children(&daemon);
}

/// The leader has exited, and a member of its group holds the output. Then the client leaves.
#[test]
fn a_client_that_leaves_after_the_leader_ends_the_group() {
    let daemon = Daemon::start("-t 0 -k 100");
    let mut child = daemon.fifo("child");
    let mut client = daemon.exec(&steps(&format!("out ready spawn [ hold {} wait ]", child.path())));
    let holder = child.holder();
    client.wait_for("ready");
    eventually("the leader's exit", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", holder.group.as_raw_pid()));
        stat.map_or(true, |stat| stat.contains(") Z "))
    });
    drop(client);
    child.wait_for_death();
    assert_no_children(&daemon);
}

/// A process that left the group and holds the output must not keep the connection of a client that
/// has gone.
#[test]
fn a_client_that_leaves_is_not_kept_by_a_holder_outside_the_group() {
    let mut daemon = Daemon::start("-m 1 -t 0 -k 0.3");
    let mut child = daemon.fifo("child");
    let argv = format!("spawn [ setsid hold {} wait ] wait", child.path());
    let client = daemon.exec(&steps(&argv));
    let holder = child.holder();
    drop(client);
    assert_slot_is_free(&mut daemon);
    assert!(child.is_held(), "a group that is not ours was signalled");
    holder.kill();
    child.wait_for_death();
}

/// The program blocks in a write: nobody reads, and the socket is full.
#[test]
fn a_client_that_leaves_output_unread_ends_its_program() {
    let daemon = Daemon::start("-t 0 -k 100 --spool 0");
    let mut life = daemon.fifo("life");
    let (client, program) = start(&daemon, &mut life, "", "flood");
    program.wait_until_blocked();
    drop(client);
    life.wait_for_death();
    assert_no_children(&daemon);
}

/// The program's stdin is full, and more waits in the socket. Reading cannot find the end of file
/// behind that.
#[test]
fn a_client_that_leaves_while_stdin_is_blocked_ends_its_program() {
    let daemon = Daemon::start("-t 0 -k 100");
    let mut life = daemon.fifo("life");
    let (mut client, _) = start(&daemon, &mut life, "", "wait");
    client.send(b"100000000:");
    client.send_until_blocked(|| vec![b'x'; 65_536]);
    drop(client);
    life.wait_for_death();
    assert_no_children(&daemon);
}

/// A half-close is not a disconnect. Closing after it is.
#[test]
fn a_half_closed_client_that_leaves_ends_its_program() {
    let daemon = Daemon::start("-t 0 -k 100");
    let mut life = daemon.fifo("life");
    let (mut client, _) = start(&daemon, &mut life, "", "out ready cat out at wait");
    client.half_close();
    client.wait_for("ready");
    // The program has seen the end of its stdin, and lives.
    client.wait_for("at");
    assert!(life.is_held());
    drop(client);
    life.wait_for_death();
    assert_no_children(&daemon);
}

/// The same after an empty netstring as the end of stdin.
#[test]
fn a_client_that_leaves_after_the_end_of_stdin_ends_its_program() {
    let daemon = Daemon::start("-t 0 -k 100");
    let mut life = daemon.fifo("life");
    let (mut client, _) = start(&daemon, &mut life, "", "cat out ready wait");
    client.end_stdin();
    client.wait_for("ready");
    drop(client);
    life.wait_for_death();
    assert_no_children(&daemon);
}

/// Stray bytes after the end of stdin hide the end of file behind them.
#[test]
fn a_client_that_leaves_bytes_behind_the_end_of_stdin_ends_its_program() {
    let daemon = Daemon::start("-t 0 -k 100");
    let mut life = daemon.fifo("life");
    let (mut client, _) = start(&daemon, &mut life, "", "cat out ready wait");
    client.end_stdin();
    client.wait_for("ready");
    client.send(&vec![b'x'; 1 << 20]);
    drop(client);
    life.wait_for_death();
}

#[test]
fn a_slot_is_free_only_when_its_program_is_dead() {
    let mut daemon = Daemon::start("-m 1 -t 0 -k 0.5");
    for n in 0..3 {
        let mut life = daemon.fifo(&format!("life{n}"));
        let (client, _) = start(&daemon, &mut life, "ignore TERM ;", "wait");
        let mut next = daemon.exec(&steps("out served"));
        drop(client);
        next.wait_for("served");
        assert!(!life.is_held(), "served beside a program that lives");
        assert_eq!(next.reply().code(), 0);
    }
    daemon.assert_serves();
}

// The time is up.

/// A connection without a program is closed.
#[test]
fn deadline_without_a_request() {
    let mut daemon = Daemon::start(SHORT);
    let mut client = daemon.connect();
    assert_eq!(client.rest().escape_ascii().to_string(), "");
    assert_slot_is_free(&mut daemon);
}

#[test]
fn deadline_with_half_a_request() {
    let mut daemon = Daemon::start(SHORT);
    let mut client = daemon.connect();
    client.send(b"1:2,5:una");
    assert_eq!(client.rest().escape_ascii().to_string(), "");
    assert_slot_is_free(&mut daemon);
}

/// The deadline counts from the start of the connection, not from its last byte.
#[test]
fn deadline_with_a_byte_now_and_then() {
    let mut daemon = Daemon::start(SHORT);
    let mut client = daemon.connect();
    client.send(b"1:2,1000000:");
    let pace = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    loop {
        let mut fds = [PollFd::from_borrowed_fd(client.socket().as_fd(), PollFlags::IN)];
        let ended = rustix::event::poll(&mut fds, Some(&pace)).unwrap() > 0;
        if ended || client.try_send(b"x").is_err() {
            break;
        }
    }
    client.until_gone();
    assert_slot_is_free(&mut daemon);
}

/// The output so far and the exit pair still reach the client.
#[test]
fn deadline_of_a_running_program() {
    at_the_deadline("0.3", |daemon| {
        let reply = daemon.exec(&steps("out before wait")).reply();
        let is_ready = reply.stdout_text() == "before";
        // KILL is for a process that has not become its program yet.
        assert!(reply.signal() == 15 || !is_ready, "{reply:?}");
        is_ready
    });
}

#[test]
fn deadline_of_a_program_that_ignores_term() {
    at_the_deadline("0.3", |daemon| {
        let reply = daemon.exec(&steps("ignore TERM ; out before wait")).reply();
        let is_ready = reply.stdout_text() == "before";
        assert!(reply.signal() == 9 || !is_ready, "{reply:?}");
        is_ready
    });
}

/// The program's input stays open. At its end `cat` would exit with 0, and its client could not
/// tell a cut reply from a whole one.
#[test]
fn deadline_does_not_end_the_input() {
    at_the_deadline("0.3", |daemon| {
        let reply = daemon.exec(&steps("ignore TERM ; out before cat")).reply();
        let is_ready = reply.stdout_text() == "before";
        assert!(reply.signal() == 9 || !is_ready, "{reply:?}");
        is_ready
    });
}

/// The program handles TERM. Its last words and its own exit code arrive.
#[test]
fn deadline_of_a_program_with_last_words() {
    at_the_deadline("100", |daemon| {
        let reply = daemon.exec(&steps("spawn [ wait ] ignore TERM ; out before reap out after exit 7")).reply();
        let is_ready = reply.stdout_text().starts_with("before");
        assert!(!is_ready || (reply.stdout_text(), reply.code()) == ("beforeafter", 7), "{reply:?}");
        is_ready
    });
}

#[test]
fn deadline_of_a_stopped_program() {
    at_the_deadline("100", |daemon| {
        let reply = daemon.exec(&steps("out before stop wait")).reply();
        let is_ready = reply.stdout_text() == "before";
        assert!(reply.signal() == 15 || !is_ready, "{reply:?}");
        is_ready
    });
}

/// In 3.1.1 a grandchild that held stdout kept the connection open for ever. The status is the
/// leader's.
#[test]
fn deadline_with_a_holder_in_the_group() {
    deadline_with_a_holder("", |_, _| ());
}

/// The same with a holder that ignores TERM.
#[test]
fn deadline_with_a_holder_that_ignores_term() {
    deadline_with_a_holder("ignore TERM ;", |_, _| ());
}

/// The leader exits with 5. Its child holds the output, and begins with the steps `before`. `after` looks at it once the reply
/// is over.
#[track_caller]
fn deadline_with_a_holder(before: &str, after: impl Fn(&mut Daemon, &mut Fifo)) {
    at_the_deadline("0.3", |daemon| {
        let mut child = daemon.fifo("child");
        let argv = format!("out before spawn [ {before} hold {} wait ] exit 5", child.path());
        let reply = daemon.exec(&steps(&argv)).reply();
        let is_ready = child.was_held();
        if is_ready {
            assert_eq!((reply.stdout_text(), reply.code()), ("before", 5));
            after(daemon, &mut child);
            child.wait_for_death();
        }
        is_ready
    });
}

/// The daemon may not signal a process that left the group. Such a process does not keep the
/// connection beyond the deadline plus `-k`.
#[test]
fn deadline_with_a_holder_outside_of_the_group() {
    for leaves in ["setsid", "setpgid"] {
        deadline_with_a_holder(leaves, |daemon, child| {
            let holder = child.holder();
            assert_eq!(holder.pid, holder.group);
            assert!(child.is_held(), "a group that is not ours was signalled");
            assert_slot_is_free(daemon);
            holder.kill();
        });
    }
}

/// What a holder writes before the deadline is still output.
#[test]
fn output_goes_on_after_the_leaders_exit() {
    let daemon = Daemon::start("-t 0");
    let gate = daemon.gate("gate");
    let mut client = daemon.exec(&steps(&format!("out one spawn [ gate {} out two ] exit 3", gate.path())));
    client.wait_for("one");
    gate.open();
    let reply = client.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("onetwo", 3));
}

/// A child that holds no output delays nothing: the exit pair comes at the leader's exit.
#[test]
fn a_child_that_holds_nothing_does_not_delay_the_end() {
    let daemon = Daemon::start("-t 0");
    let mut child = daemon.fifo("child");
    let argv = format!("spawn [ close 0 close 1 close 2 hold {} wait ] out done exit 2", child.path());
    let client = daemon.exec(&steps(&argv));
    child.holder();
    let reply = client.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("done", 2));
}

/// The client does not read. When the time is up, the spool, the socket and the pipe are full.
#[test]
fn deadline_of_output_that_nobody_reads() {
    for spool in ["0", "3000000", "1000000000"] {
        let mut daemon = Daemon::start(&format!("{SHORT} --spool {spool}"));
        let client = daemon.exec(&steps("flood"));
        assert_slot_is_free(&mut daemon);
        drop(client);
    }
}

/// The program has ended, and the client never reads the rest of its output.
#[test]
fn deadline_of_a_finished_program_with_output_never_read() {
    let mut daemon = Daemon::start(SHORT);
    let client = daemon.exec(&steps("write-out 3000000"));
    assert_slot_is_free(&mut daemon);
    drop(client);
}

/// The reply is complete, and the client neither closes nor stops sending.
#[test]
fn a_client_that_sends_for_ever_after_the_end() {
    let mut daemon = Daemon::start("-m 1 -t 30");
    let mut client = daemon.exec(&steps("out done"));
    client.wait_for("exitcode");
    let mut daemon_serves = std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let bytes = vec![b'x'; 65_536];
            client.send(b"9000000000000000000:");
            // Until the daemon ends the connection.
            while client.try_send(&bytes).is_ok() {}
        });
        assert_slot_is_free(&mut daemon);
        sender.join().expect("the sender is cut off");
        daemon
    });
    daemon_serves.assert_serves();
}

/// The reply is complete, and the client does nothing with its connection.
#[test]
fn a_client_that_stays_after_the_end() {
    let mut daemon = Daemon::start("-m 1 -t 30");
    let mut client = daemon.exec(&steps("out done"));
    client.wait_for("exitcode");
    assert_slot_is_free(&mut daemon);
    drop(client);
}

/// A slow reader's time counts too, but what it was promised within that time is whole.
#[test]
fn without_a_deadline_a_slow_reader_gets_all() {
    let daemon = Daemon::start("-m 1 -t 0");
    let len = 20 << 20;
    let mut life = daemon.fifo("life");
    let (mut client, program) = start(&daemon, &mut life, "", &format!("write-out {len}"));
    client.end_stdin();
    program.wait_until_blocked();
    let mut total = 0;
    let exit = client.stream(|stream, bytes| {
        assert_eq!(stream, Stream::Stdout);
        total += bytes.len();
    });
    assert_eq!((total, exit_code(&exit)), (len, 0));
}

/// A holder outside the group writes faster than it is read. The reply must end all the same: after
/// KILL the daemon reads what is there at that moment.
#[test]
fn a_holder_that_floods_does_not_delay_the_end() {
    // Time enough to leave the group, on a slow machine too.
    let daemon = Daemon::start("-t 6 -k 0.3");
    let mut child = daemon.fifo("child");
    let argv = format!("spawn [ setsid hold {} flood ] exit 5", child.path());
    let mut client = daemon.connect();
    // In one piece: the output is spooled until the end of the input is known.
    client.send(&[request(&steps(&argv)), b"0:,".to_vec()].concat());
    child.holder();
    // Not read until then: the socket and the pipe are full.
    daemon.wait_for_log("taking what is left of the output");
    let reply = client.reply();
    assert_eq!(reply.code(), 5);
    assert!(reply.stdout.len() < 2 << 20, "{} bytes", reply.stdout.len());
}

/// What is in the pipe when the time is up was written in time, so it arrives.
#[test]
fn deadline_with_a_full_pipe() {
    for steps_of in
        ["write-out 65536 wait", "ignore TERM ; write-out 65536 wait", "spawn [ setsid wait ] write-out 65536"]
    {
        at_the_deadline("0.3", |daemon| {
            let reply = daemon.exec(&steps(steps_of)).reply();
            assert!([0, 65_536].contains(&reply.stdout.len()), "{steps_of}: {} bytes", reply.stdout.len());
            !reply.stdout.is_empty()
        });
    }
}

/// `-k` counts from the first TERM. A client that leaves after the deadline does not restart it,
/// and the deadline of a client that has left has no effect.
#[test]
fn a_client_that_leaves_after_the_deadline() {
    // Time enough for the program to be ready, on a slow machine too.
    let mut daemon = Daemon::start("-m 1 -t 6 -k 1");
    let mut life = daemon.fifo("life");
    let (mut client, _) = start(&daemon, &mut life, "spawn [ wait ] ignore TERM ;", "reap out asked wait");
    client.wait_for("asked");
    drop(client);
    life.wait_for_death();
    assert_slot_is_free(&mut daemon);
}

/// The request came in time and the program never started, so no deadline is left.
#[test]
fn a_client_that_leaves_before_its_program_starts() {
    let mut daemon = Daemon::start("-m 1");
    for _ in 0..200 {
        let mut client = daemon.connect();
        client.send(&request(&["true"]));
        drop(client);
    }
    assert_slot_is_free(&mut daemon);
}

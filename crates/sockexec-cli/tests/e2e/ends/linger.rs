//! `--linger`: how long processes that hold the output are waited for after the leader's exit.

use super::assert_slot_is_free;
use crate::common::{Daemon, Launch, steps};

/// `--linger` limits the wait for processes that hold the output after the leader's exit. The leader
/// waits for its child, which might not hold anything yet when the time is up.
#[test]
fn ends_the_wait_for_a_holder() {
    let mut daemon = Daemon::start("-m 1 -t 0 -k 0.3 --linger 0.3");
    let (mut child, gate) = (daemon.fifo("child"), daemon.gate("gate"));
    let argv = format!("out before spawn [ hold {} wait ] gate {} exit 5", child.path(), gate.path());
    let client = daemon.exec(&steps(&argv));
    child.holder();
    gate.open();
    let reply = client.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("before", 5));
    child.wait_for_death();
    // Outside the group, too.
    let mut child = daemon.fifo("stranger");
    let argv = format!("out before spawn [ setsid hold {} wait ] gate {} exit 6", child.path(), gate.path());
    let client = daemon.exec(&steps(&argv));
    let holder = child.holder();
    gate.open();
    let reply = client.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("before", 6));
    assert!(child.is_held(), "a group that is not ours was signalled");
    assert_slot_is_free(&mut daemon);
    holder.kill();
}

/// `--linger` is a limit for descendants that hold the output. It must not run only because the
/// client has not read the output yet.
#[test]
fn does_not_cut_the_reply_of_a_slow_reader() {
    // What the client does not read stays in the program's pipe if it is spliced, and the pipe may
    // be too small for the program to exit. Copied output is queued.
    let daemon = Launch::default().options("-t 0 -k 0.1 --linger 0.1").env("SOCKEXEC_TRANSFER", "copy").start();
    let mut slow = daemon.exec(&steps("write-out 330000 exit 8"));
    slow.end_stdin();
    daemon.wait_for_log("ended: exit code 8");
    // Another client's lingering descendant serves as the clock. Its whole end takes far less than
    // this.
    for _ in 0..2 {
        let reply = daemon.exec(&steps("spawn [ ignore TERM ; wait ] exit 5")).reply();
        assert_eq!(reply.code(), 5);
    }
    let reply = slow.reply();
    assert_eq!((reply.stdout.len(), reply.code()), (330_000, 8));
}

/// `--linger` is no deadline for a leader that runs.
#[test]
fn does_not_touch_a_leader_that_runs() {
    let daemon = Daemon::start("-t 0 --linger 0.01");
    let gate = daemon.gate("gate");
    let mut client = daemon.exec(&steps(&format!("out one spawn [ exit 0 ] reap gate {} out two", gate.path())));
    client.wait_for("one");
    gate.open();
    let reply = client.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("onetwo", 0));
}

/// `--linger 0` waits for no holder, and still loses nothing that the program has written.
#[test]
fn of_zero_loses_nothing() {
    let daemon = Daemon::start("-t 0 --linger 0");
    for _ in 0..50 {
        let reply = daemon.run(&steps("write-out 200000 write-err 60000 exit 3"), b"");
        assert_eq!((reply.stdout.len(), reply.stderr.len(), reply.code()), (200_000, 60_000, 3));
    }
}

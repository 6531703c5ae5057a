//! The daemon's own end, and what its other signals print.

use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use crate::common::{Daemon, Launch, eventually, is_refused, steps, with_stubborn_child};

#[test]
fn term_int_and_quit_end_an_idle_daemon() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut daemon = Daemon::start("");
        daemon.assert_serves();
        daemon.signal(signal);
        let stopped = daemon.wait();
        assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
        assert!(!daemon.socket().exists());
    }
}

/// The programs are ended, and their clients learn how.
#[test]
fn programs_end_and_clients_learn_how() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut daemon = Daemon::start("-t 0 -k 100");
        let mut clients: Vec<_> = (0..10).map(|_| daemon.exec(&steps("out before wait"))).collect();
        for client in &mut clients {
            client.wait_for("before");
        }
        daemon.signal(signal);
        for client in clients {
            let reply = client.reply();
            assert_eq!((reply.stdout_text(), reply.signal()), ("before", 15));
        }
        assert_eq!(daemon.wait_for_groups().status.code(), Some(0));
    }
}

/// The daemon waits a moment for a client that has its reply and stays, not the usual five seconds.
#[test]
fn clients_that_stay_do_not_hold_it_up() {
    let mut daemon = Daemon::start("-t 0 -k 100");
    let mut early = daemon.exec(&steps("exit 3"));
    let mut late = daemon.exec(&steps("out before wait"));
    early.wait_for("exitcode");
    late.wait_for("before");
    let start = std::time::Instant::now();
    daemon.signal(Signal::TERM);
    late.wait_for("termsig");
    assert_eq!(daemon.wait_for_groups().status.code(), Some(0));
    assert!(start.elapsed() < std::time::Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(late.reply().signal(), 15);
}

/// A program's output after TERM and its own exit code still reach the client.
#[test]
fn last_words_are_delivered() {
    let mut daemon = Daemon::start("-t 0 -k 100");
    let mut client = daemon.exec(&steps("spawn [ wait ] ignore TERM ; out ready reap write-out 300000 exit 7"));
    client.wait_for("ready");
    daemon.signal(Signal::TERM);
    let reply = client.reply();
    assert_eq!((reply.stdout.len(), reply.code()), (300_005, 7));
    assert_eq!(daemon.wait_for_groups().status.code(), Some(0));
}

/// In 3.1.1 children and grandchildren survived the daemon's TERM.
#[test]
fn nobody_survives() {
    let mut daemon = Daemon::start("-t 0 -k 0.3");
    let (mut leader, mut child) = (daemon.fifo("leader"), daemon.fifo("child"));
    let client = daemon.exec(&with_stubborn_child(&leader, &child));
    leader.holder();
    child.holder();
    let stopped = daemon.terminate();
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    leader.wait_for_death();
    child.wait_for_death();
    assert_eq!(client.reply().signal(), 15);
}

#[test]
fn a_program_that_ignores_term_is_killed() {
    let mut daemon = Daemon::start("-t 0 -k 0.3");
    let mut client = daemon.exec(&steps("ignore TERM ; out ready wait"));
    client.wait_for("ready");
    daemon.signal(Signal::TERM);
    assert_eq!(client.reply().signal(), 9);
    assert_eq!(daemon.wait().status.code(), Some(0));
}

#[test]
fn a_stopped_program_is_ended() {
    let mut daemon = Daemon::start("-t 0 -k 100");
    let mut client = daemon.exec(&steps("out ready stop wait"));
    client.wait_for("ready");
    daemon.signal(Signal::TERM);
    assert_eq!(client.reply().signal(), 15);
    assert_eq!(daemon.wait_for_groups().status.code(), Some(0));
}

/// The socket goes at once, before the last program ends. A client must not wait for nothing.
#[test]
fn no_more_clients_are_accepted() {
    let mut daemon = Daemon::start("-t 0 -k 1000");
    let gate = daemon.gate("gate");
    let argv = format!("spawn [ wait ] ignore TERM ; out ready reap out asked gate {} out done", gate.path());
    let mut client = daemon.exec(&steps(&argv));
    client.wait_for("ready");
    daemon.signal(Signal::TERM);
    client.wait_for("asked");
    eventually("no socket", || !daemon.socket().exists());
    assert!(UnixStream::connect(daemon.socket()).is_err());
    // The program takes its time to end.
    gate.open();
    let reply = client.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("readyaskeddone", 0));
    assert_eq!(daemon.wait_for_groups().status.code(), Some(0));
}

/// A second TERM or INT kills.
#[test]
fn a_second_signal_kills_at_once() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::TERM, Signal::INT), (Signal::QUIT, Signal::QUIT)] {
        let mut daemon = Daemon::start("-t 0 -k 1000");
        let mut client = daemon.exec(&steps("spawn [ wait ] ignore TERM ; out ready reap out asked wait"));
        client.wait_for("ready");
        daemon.signal(first);
        client.wait_for("asked");
        daemon.signal(second);
        assert_eq!(client.reply().signal(), 9);
        assert_eq!(daemon.wait().status.code(), Some(0));
    }
}

/// No request, half of one, a reply that is complete, a client in the backlog: the daemon waits for
/// none of them.
#[test]
fn connections_without_a_program_do_not_delay_the_end() {
    let mut daemon = Daemon::start("-t 0 -k 100 -m 4");
    let silent = daemon.connect();
    let mut half = daemon.connect();
    half.send(b"1:2,5:una");
    let mut done = daemon.exec(&steps("out done"));
    done.wait_for("exitcode");
    let mut busy = daemon.exec(&steps("out ready wait"));
    busy.wait_for("ready");
    let waiting: Vec<_> = (0..5).map(|_| daemon.exec(&steps("out never"))).collect();
    daemon.signal(Signal::TERM);
    silent.until_gone();
    half.until_gone();
    assert_eq!(busy.reply().signal(), 15);
    for client in waiting {
        client.until_gone();
    }
    assert_eq!(daemon.wait_for_groups().status.code(), Some(0));
}

/// A client that does not read cannot keep the daemon beyond `-k`.
#[test]
fn a_client_that_does_not_read_does_not_delay_the_end_for_ever() {
    for spool in ["0", "100000000"] {
        let mut daemon = Daemon::start(&format!("-t 0 -k 0.3 --spool {spool}"));
        let mut life = daemon.fifo("life");
        let client = daemon.exec(&steps(&format!("hold {} write-out 50000000 wait", life.path())));
        crate::common::Process(life.holder().pid).wait_until_blocked();
        assert_eq!(daemon.terminate().status.code(), Some(0));
        life.wait_for_death();
        drop(client);
    }
}

/// A process outside the group that holds the output is left alone, and does not delay the end for
/// ever.
#[test]
fn a_holder_outside_the_group_does_not_delay_the_end_for_ever() {
    let mut daemon = Daemon::start("-t 0 -k 0.3");
    let (mut leader, mut child) = (daemon.fifo("leader"), daemon.fifo("child"));
    let argv = format!("spawn [ setsid hold {} wait ] hold {} exit 4", child.path(), leader.path());
    let client = daemon.exec(&steps(&argv));
    let holder = child.holder();
    // TERM must not end the leader.
    leader.wait_for_death();
    assert_eq!(daemon.terminate().status.code(), Some(0));
    assert_eq!(client.reply().code(), 4);
    assert!(child.is_held(), "a group that is not ours was signalled");
    holder.kill();
}

/// USR1 and USR2 print the connections and the descriptors, even without `-d`.
#[test]
fn usr1_and_usr2_print_what_goes_on() {
    for signal in [Signal::USR1, Signal::USR2] {
        let mut daemon = Launch::default().quiet().options("-t 0").start();
        let mut life = daemon.fifo("life");
        let mut client = daemon.exec(&steps(&format!("hold {} out ready cat", life.path())));
        client.wait_for("ready");
        let program = life.holder();
        let silent = daemon.connect();
        daemon.signal(signal);
        daemon.wait_for_log(&program.pid.as_raw_pid().to_string());
        daemon.wait_for_log("sockexec-fixture");
        // Printing changes nothing.
        daemon.assert_serves();
        client.end_stdin();
        assert_eq!(client.reply().code(), 0);
        drop(silent);
        let stopped = daemon.terminate();
        assert_eq!(stopped.status.code(), Some(0));
    }
}

/// USR2 prints what each descriptor is, and what it waits for.
#[test]
fn usr2_prints_what_each_descriptor_waits_for() {
    // Spliced bytes wait in the kernel, and copied ones in the daemon.
    for transfer in ["splice", "copy"] {
        tell_what_each_descriptor_waits_for(transfer);
    }
}

fn tell_what_each_descriptor_waits_for(transfer: &str) {
    let daemon = Launch::default().options("-t 0").env("SOCKEXEC_TRANSFER", transfer).start();
    let assert_told = |words: &str| {
        eventually(words, || {
            daemon.signal(Signal::USR2);
            daemon.log_text().contains(words)
        });
    };
    let mut client = daemon.exec(&steps("out ready cat"));
    client.wait_for("ready");
    assert_told(": client, waits for input;");
    assert_told(": stdin, waits for nothing;");
    assert_told(": stdout, waits for output;");
    // The program does not read its input: the socket and the pipe are full.
    let mut sends = daemon.exec(&steps("wait"));
    sends.send(b"100000000:");
    sends.send_until_blocked(|| vec![b'x'; 65_536]);
    assert_told(": stdin, waits for room for input;");
    assert_told(": client, waits for nothing;");
    // The client does not read the output, which is more than the socket takes: once before and
    // once after the end of its input.
    let does_not_read = daemon.exec(&steps("write-out 3000000"));
    assert_told(": client, waits for input, room for output;");
    assert_told(": spool, waits for the client to read;");
    let only_reads = daemon.exec(&steps("flood"));
    only_reads.half_close();
    assert_told(": client, waits for room for output;");
    assert_told(": stdout, waits for the client to read;");
    let says_no_more = daemon.exec(&steps("close 1 close 2 wait"));
    // With no descriptor for it, the daemon polls.
    if !is_refused("pidfd_open") {
        assert_told(": process, waits for its exit;");
    }
    let mut on_a_terminal = daemon.connect();
    on_a_terminal.send(b"10:protocol=2,9:pty=80x24,");
    on_a_terminal.exec(&steps("wait"));
    assert_told(": terminal, waits for nothing;");
    drop((sends, does_not_read, only_reads, says_no_more, on_a_terminal));
    client.end_stdin();
    assert_eq!(client.reply().code(), 0);
}

/// Many signals while the daemon works: none interrupts a call for good or gets lost.
#[test]
fn signals_interrupt_no_call() {
    let mut daemon = Launch::default().quiet().start();
    for n in 0..100 {
        daemon.signal(if n % 2 == 0 { Signal::USR1 } else { Signal::USR2 });
        daemon.assert_serves();
    }
    assert_eq!(daemon.terminate().status.code(), Some(0));
}

/// The daemon notices the end of these clients when it writes. SIGPIPE must not end it.
#[test]
fn clients_that_vanish_do_not_end_the_daemon() {
    let mut daemon = Daemon::start("-k 0.2");
    for _ in 0..100 {
        drop(daemon.exec(&["printf", "hello"]));
        drop(daemon.exec(&["cat"]));
    }
    daemon.assert_serves();
}

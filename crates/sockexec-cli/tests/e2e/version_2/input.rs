//! What a client sends after the arguments.

use rustix::process::Signal;

use super::{Caller, NONE, assert_clean, last_pid, run};
use crate::common::{Daemon, Launch, Process, eventually, fixture, steps};
use crate::pattern::Pattern;
use crate::streams::{BIG, TAILS, TORN_TAILS, reads_the_tail_and_waits, reads_the_tail_late, send_and_half_close};

#[test]
fn stdin_reaches_the_program() {
    let daemon = Daemon::start("");
    let mut caller = Caller::start(&daemon, NONE, &steps("cat out done"));
    for piece in ["one ", "two ", "0:,5:stdin,"] {
        caller.stdin(piece);
    }
    caller.wait_for("0:,5:stdin,");
    caller.end_stdin();
    let reply = caller.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("one two 0:,5:stdin,done", 0));
}

/// A half-close between two pairs is the end of the input, as in version 1.
#[test]
fn a_half_close_ends_stdin() {
    let daemon = Daemon::start("");
    let mut caller = Caller::start(&daemon, NONE, &steps("cat out done"));
    caller.stdin("word ");
    caller.0.half_close();
    let reply = caller.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("word done", 0));
}

/// The same together with the end of a big pair, for a program that does not read. The end comes
/// after the last byte.
#[test]
fn a_half_close_right_behind_a_big_pair_ends_it() {
    for transfer in ["splice", "copy"] {
        let mut daemon = Launch::default().options("-t 0").env("SOCKEXEC_TRANSFER", transfer).start();
        for len in TAILS {
            let gate = daemon.gate(&format!("gate{len}"));
            let mut caller = Caller::start(&daemon, NONE, &reads_the_tail_late(&gate));
            let tail = send_and_half_close(&mut caller.0, "5:stdin,", len, 0);
            // Connections that come later are served later. So the daemon has done all it can with
            // the tail.
            daemon.assert_serves();
            gate.open();
            let reply = caller.reply();
            assert_eq!((reply.stderr_text(), reply.code()), ("ready", 3), "{transfer}, {len}: {reply:?}");
            assert!(reply.stdout == tail, "{transfer}: {} of {len} bytes", reply.stdout.len());
        }
    }
}

/// Without the comma, or without bytes before it, the end is within a pair, however much of it was
/// spliced.
#[test]
fn a_half_close_within_a_big_pair_is_a_bad_request() {
    for transfer in ["splice", "copy"] {
        let daemon = Launch::default().options("-t 0").env("SOCKEXEC_TRANSFER", transfer).start();
        for (len, missing) in TORN_TAILS {
            let mut life = daemon.fifo(&format!("life{len}-{missing}"));
            let argv = reads_the_tail_and_waits(&life);
            let mut caller = Caller::start(&daemon, NONE, &argv);
            life.holder();
            let tail = send_and_half_close(&mut caller.0, "5:stdin,", len, missing);
            let reply = caller.reply();
            let head = super::request_2(NONE, &argv).len() + format!("5:stdin,{}:", BIG + len).len();
            let expected = format!("bad-request request ends early at byte {}", head + BIG + len + 1 - missing);
            assert_eq!((reply.errors.as_slice(), &reply.exit), ([expected].as_slice(), &None), "{transfer}: {reply:?}");
            assert!(tail.starts_with(&reply.stdout), "{transfer}: {} bytes", reply.stdout.len());
            life.wait_for_death();
        }
    }
}

/// Signals and sizes may follow the end of the input, because the connection goes on.
#[test]
fn the_end_of_stdin_is_not_the_end_of_the_request() {
    let daemon = Daemon::start("");
    let mut caller = Caller::start(&daemon, NONE, &steps("cat out ready wait"));
    caller.end_stdin();
    caller.wait_for("ready");
    caller.tell("signal", "USR1");
    assert_eq!(caller.reply().signal(), 10);
}

/// A program may join the group of its own child (setpgid(2)). Then nobody is left in the group
/// that the daemon made. The signal goes to the program's own number, and not to others in that
/// group.
#[test]
fn a_signal_reaches_a_program_that_has_left_its_group() {
    let daemon = Daemon::start("-t 0");
    let mut life = daemon.fifo("life");
    let argv = format!("spawn [ setpgid close 0 close 1 close 2 hold {} wait ] read 1 join ids wait", life.path());
    let mut caller = Caller::start(&daemon, NONE, &steps(&argv));
    let other = life.holder();
    assert_eq!(other.pid, other.group);
    caller.stdin("x");
    caller.wait_for(&format!("{} {}\n", last_pid(&daemon, 0).as_raw_pid(), other.group.as_raw_pid()));
    caller.tell("signal", "TERM");
    assert_eq!(caller.reply().signal(), 15);
    assert!(life.is_held(), "a group that is not ours was signalled");
    other.kill();
    life.wait_for_death();
}

/// Both directions at once, many times what any buffer takes.
#[test]
fn much_input_arrives() {
    const LEN: usize = 30_000_000;
    let daemon = Daemon::start("");
    let mut caller = Caller::start(&daemon, NONE, &steps("verify"));
    let mut pattern = Pattern::new();
    while pattern.position() < LEN as u64 {
        let bytes = pattern.peek(LEN as u64 - pattern.position()).to_vec();
        caller.stdin(&bytes);
        pattern.advance(bytes.len());
    }
    caller.end_stdin();
    let reply = caller.reply();
    assert_eq!((reply.stdout_text(), reply.code()), (format!("ok {LEN}\n").as_str(), 0));
}

/// A program that does not read stops the client. If it has closed its input, the rest is dropped.
#[test]
fn input_that_nobody_reads_stops_the_client() {
    let daemon = Daemon::start("");
    let gate = daemon.gate("gate");
    let mut caller = Caller::start(&daemon, NONE, &steps(&format!("gate {} close 0 out closed exit 6", gate.path())));
    let chunk = super::pair("stdin", vec![b'x'; 60_000]);
    let mut left = 5_000_000 / chunk.len();
    let sent = caller.0.send_until_blocked(|| {
        left -= 1;
        if left == 0 { Vec::new() } else { chunk.clone() }
    });
    assert!(sent < 4_000_000, "{sent} bytes of input are kept for a program that does not read");
    gate.open();
    let reply = caller.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("closed", 6));
}

/// There is no spool: a client that does not read stops the program, whether or not it has ended
/// its input.
#[test]
fn output_that_nobody_reads_stops_the_program() {
    let daemon = Daemon::start("");
    let caller = Caller::start(&daemon, NONE, &steps("flood"));
    Process(last_pid(&daemon, 0)).wait_until_blocked();
    let peak = daemon.process().peak_kib();
    assert!(peak < 40_000, "{peak} KiB");
    drop(caller);
    daemon.wait_for_log("over after");
}

/// By name and by number, to the whole group.
#[test]
fn signals_reach_the_group() {
    let daemon = Daemon::start("");
    for (payload, number) in [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("TERM", 15),
        ("15", 15),
        ("9", 9),
        ("34", 34),
        ("64", 64),
    ] {
        let mut fifo = daemon.fifo(&format!("fifo-{payload}"));
        let argv = steps(&format!("spawn [ hold {} exec /bin/sleep 100 ] exec /bin/sleep 100", fifo.path()));
        let mut caller = Caller::start(&daemon, NONE, &argv);
        let member = fifo.holder();
        // By now both have become sleep, so the signal handling of the fixture's library does not
        // matter.
        for pid in [member.pid, member.group] {
            let comm = format!("/proc/{}/comm", pid.as_raw_pid());
            eventually("sleep", || std::fs::read_to_string(&comm).is_ok_and(|comm| comm == "sleep\n"));
        }
        caller.tell("signal", payload);
        let reply = caller.reply();
        assert_eq!((reply.signal(), reply.errors.len()), (number, 0), "{payload}");
        eventually("the death of the other member", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", member.pid.as_raw_pid()));
            stat.map_or(true, |stat| stat.contains(") Z "))
        });
    }
}

#[test]
fn stop_and_continue_reach_the_group() {
    let daemon = Daemon::start("");
    let mut caller = Caller::start(&daemon, NONE, &steps("ids cat"));
    caller.wait_for("\n");
    let program = Process(last_pid(&daemon, 0));
    caller.tell("signal", "STOP");
    eventually("a program that is stopped", || program.is_stopped());
    caller.stdin("after");
    caller.tell("signal", "CONT");
    caller.end_stdin();
    let reply = caller.reply();
    assert!(reply.stdout_text().ends_with("after"), "{reply:?}");
    assert_eq!(reply.code(), 0);
}

/// A signal to a program that has ended does nothing, even if somebody in its group still holds the
/// output.
#[test]
fn a_signal_to_a_program_that_has_ended_does_nothing() {
    let daemon = Daemon::start("");
    let mut fifo = daemon.fifo("fifo");
    let argv = steps(&format!("spawn [ hold {} cat out last ] exit 7", fifo.path()));
    let mut caller = Caller::start(&daemon, NONE, &argv);
    let holder = fifo.holder();
    // A zombie: the daemon has not looked, because the output goes on.
    eventually("the end of the leader", || {
        std::fs::read_to_string(format!("/proc/{}/stat", holder.group.as_raw_pid()))
            .is_ok_and(|stat| stat.contains(") Z "))
    });
    for signal in ["TERM", "KILL", "15"] {
        caller.tell("signal", signal);
    }
    caller.stdin("input ");
    caller.wait_for("input ");
    assert!(fifo.is_held(), "a signal for the program reached what is left in its group");
    caller.end_stdin();
    let reply = caller.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("input last", 7));
    // The same where the daemon waits for the end, and knows of it.
    let daemon = Daemon::start("--linger 50");
    let mut fifo = daemon.fifo("fifo");
    let argv = steps(&format!("spawn [ hold {} cat out last ] exit 7", fifo.path()));
    let mut caller = Caller::start(&daemon, NONE, &argv);
    fifo.holder();
    daemon.wait_for_log("ended: exit code 7");
    caller.tell("signal", "TERM");
    caller.stdin("input ");
    caller.wait_for("input ");
    assert!(fifo.is_held(), "a signal for the program reached what is left in its group");
    caller.end_stdin();
    assert_eq!(caller.reply().code(), 7);
    // And after the whole reply, while the client is still there.
    let mut caller = Caller::start(&daemon, NONE, &steps("exit 8"));
    caller.wait_for("8:exitcode,1:8,");
    let _ = caller.0.try_send(&super::pair("signal", "TERM"));
    assert_eq!(caller.reply().code(), 8);
}

/// A signal that comes with the request reaches the program at whatever point it is.
#[test]
fn a_signal_may_come_with_the_request() {
    let daemon = Daemon::start("");
    for _ in 0..100 {
        let mut bytes = super::request_2(NONE, &["/bin/sleep", "100"]);
        bytes.extend(super::pair("signal", "TERM"));
        let mut client = daemon.connect();
        client.send(&bytes);
        assert_eq!(Caller(client).reply().signal(), 15);
    }
}

/// A request for the fixture whose exec takes its time, because PATH has many directories without
/// it, and what is sent right behind it.
fn slow_exec(steps_: &str, behind: &[(&str, &str)]) -> Vec<u8> {
    let (directory, name) = fixture().rsplit_once('/').expect("a path");
    let places = "/nowhere/at/all:".repeat(2000);
    let argv: Vec<String> = std::iter::once(name).chain(steps_.split_whitespace()).map(str::to_owned).collect();
    let request = super::request_2(&[format!("env=PATH={places}{directory}")], &argv);
    behind.iter().fold(request, |bytes, (tag, payload)| [bytes, super::pair(tag, payload)].concat())
}

/// Until its exec a program has copies of all of the daemon's descriptors, among them the ends of
/// other clients' pipes. A STOP that came with the request used to stop it there. A client that had
/// ended the input of a `cat` then waited for ever for the end of its output.
#[test]
fn a_program_that_is_stopped_at_once_stops_nobody_else() {
    let mut daemon = Daemon::start("-t 0");
    let descriptors = daemon.process().descriptors();
    for stop in ["STOP", "19"] {
        let mut other = daemon.exec(&steps("cat out done"));
        other.stdin(b"hello ");
        other.wait_for("hello ");
        let position = daemon.log_position();
        let mut client = daemon.connect();
        client.send(&slow_exec("out words cat", &[("signal", stop)]));
        let mut caller = Caller(client);
        // Before the clone there is no process that could hold the pipes of others.
        daemon.wait_for_log_after(position, "\"out\" \"words\" \"cat\"");
        let program = Process(last_pid(&daemon, 0));
        other.end_stdin();
        let reply = other.reply();
        assert_eq!((reply.stdout_text(), reply.code()), ("hello done", 0));
        caller.wait_for("started");
        eventually("a program that is stopped", || program.is_stopped());
        daemon.assert_serves();
        caller.tell("signal", "CONT");
        caller.end_stdin();
        let reply = caller.reply();
        assert_eq!((reply.stdout_text(), reply.code()), ("words", 0));
    }
    assert_clean(&daemon, descriptors);
}

/// A signal that waits for the exec keeps its place behind the input before it, and what follows
/// waits too.
#[test]
fn what_is_sent_at_once_keeps_its_order() {
    let daemon = Daemon::start("-t 0");
    let descriptors = daemon.process().descriptors();
    let behind = [("stdin", "one "), ("signal", "STOP"), ("stdin", "two "), ("signal", "CONT"), ("stdin", "")];
    let mut client = daemon.connect();
    client.send(&slow_exec("cat", &behind));
    let reply = Caller(client).reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("one two ", 0));
    // A half-close loses nothing behind the signal, and does not make it well-formed.
    let mut client = daemon.connect();
    client.send(&slow_exec("cat", &[("signal", "CONT"), ("stdin", "words")]));
    client.half_close();
    assert_eq!(Caller(client).reply().stdout_text(), "words");
    let mut client = daemon.connect();
    client.send(&slow_exec("wait", &[("signal", "CONT"), ("signal", "WAT")]));
    assert!(Caller(client).reply().errors[0].starts_with("bad-request unknown signal \"WAT\""));
    // The first of two signals ends it.
    let mut client = daemon.connect();
    client.send(&slow_exec("wait", &[("signal", "KILL"), ("signal", "TERM")]));
    assert_eq!(Caller(client).reply().signal(), 9);
    assert_clean(&daemon, descriptors);
}

/// Without an exec the signal does nothing. A client that leaves before the exec, the deadline, and
/// the end of the daemon work as usual.
#[test]
fn a_signal_without_an_exec_does_nothing() {
    let mut daemon = Daemon::start("-t 0 -k 30");
    let descriptors = daemon.process().descriptors();
    for signal in ["STOP", "KILL"] {
        let mut client = daemon.connect();
        let bytes = super::request_2(NONE, &["no-such-program"]);
        client.send(&[bytes, super::pair("signal", signal), super::pair("signal", "CONT")].concat());
        assert_eq!(Caller(client).reply().refusal(), "not-found no-such-program: No such file or directory");
        let position = daemon.log_position();
        let mut client = daemon.connect();
        client.send(&slow_exec("wait", &[("signal", signal)]));
        daemon.wait_for_log_after(position, "\"sockexec-fixture\" \"wait\"");
        drop(client);
        assert_clean(&daemon, descriptors);
    }
    let mut client = daemon.connect();
    let position = daemon.log_position();
    client.send(&slow_exec("wait", &[("signal", "STOP")]));
    daemon.wait_for_log_after(position, "\"sockexec-fixture\" \"wait\"");
    // TERM reaches it before or after its exec, and STOP does not delay it.
    assert_eq!(daemon.terminate().status.code(), Some(0));
}

/// Invalid input ends the connection as a disconnect would, and the error names it.
#[test]
fn bad_input_ends_the_connection() {
    let daemon = Daemon::start("-k 0.2");
    let descriptors = daemon.process().descriptors();
    let long = "x".repeat(65);
    let shown: [(&str, &str, &str); 17] = [
        ("signal", "FOO", "unknown signal \"FOO\""),
        ("signal", "SIGTERM", "unknown signal \"SIGTERM\""),
        ("signal", "term", "unknown signal \"term\""),
        ("signal", "0", "unknown signal \"0\""),
        ("signal", "65", "unknown signal \"65\""),
        ("signal", "-15", "unknown signal \"-15\""),
        ("signal", "", "unknown signal \"\""),
        ("signal", &long, "payload of signal too long"),
        ("wat", "", "unknown tag \"wat\""),
        ("", "", "unknown tag \"\""),
        ("stdout", "x", "unknown tag \"stdout\""),
        ("STDIN", "x", "unknown tag \"STDIN\""),
        (&long, "", "tag too long"),
        ("winsize", "80x24", "winsize needs option pty"),
        ("winsize", "80", "winsize"),
        ("stdin", "", ""),
        ("st\0in", "", "unknown tag \"st\\x00in\""),
    ];
    for (number, (tag, payload, expected)) in shown.into_iter().enumerate() {
        let mut fifo = daemon.fifo(&format!("fifo-{number}"));
        let argv = steps(&format!("spawn [ ignore TERM ; hold {} wait ] out word wait", fifo.path()));
        let mut caller = Caller::start(&daemon, NONE, &argv);
        fifo.holder();
        caller.wait_for("word");
        caller.tell(tag, payload);
        if tag == "stdin" {
            caller.stdin("more");
        }
        let reply = caller.reply();
        let expected = if tag == "stdin" { "stdin after its end" } else { expected };
        let error = reply.errors.first().unwrap_or_else(|| panic!("{tag} {payload}: {reply:?}"));
        assert!(
            error.starts_with(&format!("bad-request {expected}")) && error.contains(" at byte "),
            "{tag} {payload}: {error}"
        );
        assert_eq!((reply.stdout_text(), &reply.exit, reply.errors.len()), ("word", &None, 1), "{reply:?}");
        // TERM, and KILL for a program that ignores it.
        fifo.wait_for_death();
    }
    assert_clean(&daemon, descriptors);
}

/// The end comes within a pair.
#[test]
fn a_half_close_within_a_pair_is_a_bad_request() {
    let daemon = Daemon::start("-k 0.2");
    for bytes in ["5:std", "5:stdin,", "5:stdin,10:abc", "6:signal,4:TERM"] {
        let mut caller = Caller::start(&daemon, NONE, &steps("out word wait"));
        caller.wait_for("word");
        caller.0.send(bytes.as_bytes());
        caller.0.half_close();
        let reply = caller.reply();
        assert!(reply.errors[0].starts_with("bad-request request ends early at byte "), "{reply:?}");
    }
    for bytes in ["10:prot", "10:protocol=2,5", "10:protocol=2,5:cwd=/,", "10:protocol=2,1:2,4:true,"] {
        let mut client = daemon.connect();
        client.send(bytes.as_bytes());
        client.half_close();
        let raw = client.rest();
        let text = String::from_utf8_lossy(&raw);
        assert!(text.contains("request ends early at byte"), "{text}");
        // Before the first netstring is complete, nobody knows the version.
        assert_eq!(text.starts_with("6:stderr,"), bytes == "10:prot", "{text}");
    }
}

/// A client that leaves takes its program with it.
#[test]
fn a_client_that_leaves_ends_its_program() {
    let daemon = Daemon::start("-k 0.2");
    let descriptors = daemon.process().descriptors();
    for options in [&[][..], &["stderr=stdout"], &["timeout=30"], &["cwd=/", "clearenv"]] {
        let mut fifo = daemon.fifo(&format!("fifo-{}", options.len() + options.concat().len()));
        let argv = steps(&format!("spawn [ ignore TERM ; hold {} wait ] out word wait", fifo.path()));
        let mut caller = Caller::start(&daemon, options, &argv);
        fifo.holder();
        caller.wait_for("word");
        drop(caller);
        fifo.wait_for_death();
    }
    assert_clean(&daemon, descriptors);
}

#[test]
fn kill_by_the_client() {
    let daemon = Daemon::start("-k 30");
    let mut caller = Caller::start(&daemon, NONE, &steps("ignore TERM INT ; out ready wait"));
    caller.wait_for("ready");
    caller.tell("signal", "TERM");
    caller.tell("signal", "2");
    caller.tell("signal", Signal::KILL.as_raw().to_string());
    assert_eq!(caller.reply().signal(), 9);
    assert_eq!(run(&daemon, NONE, &steps("cat"), "fine").stdout_text(), "fine");
}

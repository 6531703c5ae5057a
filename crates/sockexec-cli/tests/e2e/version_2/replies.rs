//! What the daemon sends.

use std::fs;

use rustix::process::Signal;

use super::{Caller, NONE, Reply2, assert_a_holder_keeps_the_reply, last_pid, netstring, request_2, run};
use crate::common::{Daemon, Launch, eventually, steps, write_program};
use crate::faults::strace::{self, Fault, Strace, Whom};

/// The tags of a reply. Consecutive pairs of output count once.
fn order(reply: &Reply2) -> Vec<String> {
    let mut tags: Vec<String> = reply
        .pairs
        .iter()
        .map(|(tag, payload)| {
            let is_end = payload.is_empty() && matches!(tag.as_str(), "stdout" | "stderr");
            if is_end { format!("end of {tag}") } else { tag.clone() }
        })
        .collect();
    tags.dedup();
    tags
}

/// `started` with the program's own number, output, the end of each stream, the cost, and the exit
/// pair.
#[test]
fn a_whole_reply_is_in_order() {
    let daemon = Daemon::start("");
    let reply = run(&daemon, NONE, &steps("ids cat exit 7"), "input");
    let pid = reply.started.unwrap();
    assert_eq!((reply.stdout_text(), reply.code()), (format!("{pid} {pid}\ninput").as_str(), 7));
    let tags = order(&reply);
    assert_eq!((tags[0].as_str(), tags[1].as_str()), ("started", "stdout"));
    assert_eq!(tags[tags.len() - 2..], ["usage", "exitcode"]);
    let mut ended = reply.ended.clone();
    ended.sort();
    assert_eq!(ended, ["stderr", "stdout"]);
}

/// `started` comes before any output, and before the program does anything visible. A client that
/// waits for it need not read on.
#[test]
fn started_comes_before_any_output() {
    let daemon = Daemon::start("");
    let mut caller = Caller::start(&daemon, NONE, &steps("cat"));
    caller.wait_for("7:started,");
    caller.end_stdin();
    assert_eq!(caller.reply().code(), 0);
}

/// The end of a stream comes when the stream ends, not with the end of the program.
#[test]
fn the_end_of_a_stream_comes_while_the_program_runs() {
    let daemon = Daemon::start("");
    let mut caller = Caller::start(&daemon, NONE, &steps("out word close 1 cat err end"));
    caller.wait_for("6:stdout,0:,");
    caller.end_stdin();
    let reply = caller.reply();
    assert_eq!((reply.stdout_text(), reply.stderr_text(), reply.code()), ("word", "end", 0));
    assert_eq!(reply.ended, ["stdout", "stderr"]);
}

#[test]
fn exit_codes_and_signals() {
    let daemon = Daemon::start("");
    for code in [0, 1, 126, 127, 255] {
        let reply = run(&daemon, NONE, &steps(&format!("exit {code}")), "");
        assert_eq!((reply.code(), reply.errors.len()), (code, 0));
    }
    for signal in [1, 9, 11, 15, 40] {
        assert_eq!(run(&daemon, NONE, &steps(&format!("die {signal}")), "").signal(), signal);
    }
    // Those codes are for clients of version 1.
    let daemon = Daemon::start("--termsig name");
    assert_eq!(run(&daemon, NONE, &steps("die 15"), "").signal(), 15);
}

/// The reason for having no program, with the code first.
#[test]
fn programs_that_cannot_start_are_explained() {
    let mut daemon = Daemon::start("");
    let path = |name: &str| daemon.directory().join(name).display().to_string();
    fs::write(path("file"), "no program").unwrap();
    write_program(path("script").as_ref(), b"#!/nowhere/interpreter\n");
    for (program, expected) in [
        ("no-such-program", "not-found no-such-program: No such file or directory".to_owned()),
        ("./no-such-program", "not-found ./no-such-program: No such file or directory".to_owned()),
        ("", "not-found : No such file or directory".to_owned()),
        (&path("file"), format!("not-executable {}: Permission denied", path("file"))),
        (&path(""), format!("not-executable {}: Permission denied", path(""))),
        (&path("script"), format!("not-executable {}: bad interpreter: No such file or directory", path("script"))),
    ] {
        assert_eq!(run(&daemon, NONE, &[program], "").refusal(), expected);
    }
    daemon.assert_serves();
}

/// A program's name need not be text. It is reported as it is, or a part of it if it is long.
#[test]
fn names_that_are_no_text_are_reported() {
    let daemon = Daemon::start("");
    let mut caller = Caller::start(&daemon, NONE, &[b"\xff\xfe".as_slice()]);
    let raw = caller.0.rest();
    assert!(raw.ends_with(&netstring_pair(b"not-found \xff\xfe: No such file or directory")), "{}", raw.escape_ascii());
    let long = "n".repeat(100_000);
    let reply = run(&daemon, NONE, &[long.as_str()], "");
    let error = reply.refusal();
    // glibc's message, and musl's.
    let is_too_long = error.ends_with(": File name too long") || error.ends_with(": Filename too long");
    assert!(error.starts_with("not-executable nnnn") && is_too_long, "{error}");
    assert!(error.len() < 5000, "{} bytes", error.len());
}

fn netstring_pair(payload: &[u8]) -> Vec<u8> {
    [netstring("error"), netstring(payload)].concat()
}

/// A shortage of the daemon is not the program's fault.
#[test]
fn a_daemon_that_cannot_start_programs_says_so() {
    if !strace::is_usable() {
        return;
    }
    let mut daemon = Daemon::start("");
    for call in ["clone3", "clone", "fork", "vfork"] {
        let fault = Fault { call, error: "EAGAIN", when: "1+".into() };
        let strace = Strace::inject(daemon.process(), Whom::Daemon, &fault);
        let reply = run(&daemon, NONE, &["/bin/true"], "");
        let (_, injected) = strace.detach();
        if injected == 0 {
            assert_eq!(reply.code(), 0, "{call}");
        } else {
            let refusal = reply.refusal();
            let words = "spawn-failed /bin/true: Resource temporarily unavailable: the daemon's ";
            assert!(refusal.starts_with(words) && refusal.contains("pids.max"), "{call}: {refusal}");
        }
    }
    daemon.assert_serves();
}

/// The daemon loses the output. A part of it must not look like all of it.
#[test]
fn a_daemon_that_cannot_read_the_output_says_so() {
    if !strace::is_usable() {
        return;
    }
    let mut daemon = Daemon::start("-k 0.3");
    let mut caller = Caller::start(&daemon, NONE, &steps("out before cat out after wait"));
    caller.wait_for("before");
    let fault = Fault { call: "read", error: "EIO", when: "1+".into() };
    let strace = Strace::inject(daemon.process(), Whom::Daemon, &fault);
    caller.end_stdin();
    let reply = caller.reply();
    strace.detach();
    assert_eq!(reply.errors.len(), 1, "{reply:?}");
    let error = &reply.errors[0];
    assert!(error.starts_with("internal ") && error.contains("cannot read std"), "{error}");
    assert!(error.ends_with("Input/output error"), "{error}");
    assert_eq!(reply.exit, None);
    daemon.assert_serves();
}

#[test]
fn a_request_that_is_too_late_is_refused() {
    let daemon = Daemon::start("-t 1");
    let bytes = [request_2::<_, &str>(&["cwd=/"], &[]), b"1:3,2:ls,".to_vec()].concat();
    let caller = Caller::sent_before_it_is_accepted(&daemon, &bytes);
    assert_eq!(caller.reply().refusal(), "timeout the request was not complete in time");
    // Before the first netstring nobody knows in which version to answer.
    let mut silent = daemon.connect();
    assert_eq!(silent.rest(), b"");
}

/// The rest of a request came after its deadline had been reported, and the program used to start
/// all the same.
#[test]
fn the_rest_of_a_late_request_starts_nothing() {
    let daemon = Daemon::start("-t 1 -k 0.2");
    let bytes = request_2(NONE, &steps("wait"));
    let (begin, rest) = bytes.split_at(bytes.len() - 3);
    let mut caller = Caller::sent_before_it_is_accepted(&daemon, begin);
    caller.wait_for("5:error,");
    caller.0.send(rest);
    assert_eq!(caller.reply().refusal(), "timeout the request was not complete in time");
    daemon.wait_for_log("over after");
    assert!(!daemon.whole_log().contains("started pid"), "a program was started for a request that was refused");
}

/// The daemon ends. The client of a running program learns why it was ended, and gets its last
/// output and its end. The client of an unfinished request is answered too.
#[test]
fn shutdown_is_explained() {
    let mut daemon = Daemon::start("");
    let argv = ["/bin/sh", "-c", "trap 'echo last words; exit 5' TERM; echo ready; while :; do sleep 0.05; done"];
    let mut caller = Caller::start(&daemon, NONE, &argv);
    caller.wait_for("ready");
    let mut early = Caller::start(&daemon, &["cwd=/"], &[] as &[&str]);
    early.0.send(b"1:2,2:ls,");
    daemon.wait_for_log("connection 2: accepted");
    // The daemon reads these bytes before it sees the signal: it has served a third connection,
    // which came later.
    assert_eq!(run(&daemon, NONE, &steps("exit 2"), "").code(), 2);
    let log = daemon.log_position();
    daemon.signal(Signal::TERM);
    daemon.wait_for_log_after(log, "shutting down");
    let reply = caller.reply();
    assert_eq!(reply.errors, ["shutdown the daemon is shutting down; the program is ended"]);
    assert_eq!((reply.stdout_text(), reply.code()), ("ready\nlast words\n", 5));
    assert_eq!(early.reply().refusal(), "shutdown the daemon is shutting down; nothing was started");
    assert!(daemon.wait().status.success());
}

/// A value of `usage`, in seconds or KiB.
#[track_caller]
fn cost(reply: &Reply2, name: &str) -> f64 {
    let usage = reply.usage.as_deref().unwrap();
    let names: Vec<&str> = usage.split(' ').map(|item| item.split_once('=').unwrap().0).collect();
    assert_eq!(names, ["utime", "stime", "maxrss"], "{usage}");
    let value = usage.split(' ').find_map(|item| item.strip_prefix(name)?.strip_prefix('=')).unwrap();
    value.parse().unwrap()
}

/// The costs of the program, and of those of its children that it waited for.
#[test]
fn usage() {
    let daemon = Daemon::start("");
    let loop_ = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    let waited = format!("sh -c '{loop_}'; exit 3");
    for script in [loop_, waited.as_str()] {
        let reply = run(&daemon, NONE, &["/bin/sh", "-c", script], "");
        assert!(cost(&reply, "utime") > 0.01, "{reply:?}");
        assert!(cost(&reply, "stime") >= 0.0 && cost(&reply, "maxrss") > 500.0, "{reply:?}");
    }
    let cheap = run(&daemon, NONE, &["/bin/true"], "");
    assert!(cost(&cheap, "utime") + cost(&cheap, "stime") < 1.0, "{cheap:?}");
    // Allocates 100 MB at once.
    if let Ok(python) = std::process::Command::new("python3").arg("--version").output()
        && python.status.success()
    {
        let reply = run(&daemon, NONE, &["python3", "-c", "b'x' * 100_000_000"], "");
        assert!(cost(&reply, "maxrss") > 95_000.0, "{reply:?}");
    } else {
        println!("SKIPPED: no python3 to be a big program");
    }
}

/// A descendant holds the output. The leader's true status comes at the end of the output.
#[test]
fn descendants_that_hold_the_output_do_not_change_the_status() {
    assert_a_holder_keeps_the_reply(NONE, "");
}

/// When `started` arrives, the program was executed, and its number is that of an existing process.
/// That it does not come earlier is tested by
/// `faults::version_2::an_exec_that_cannot_be_waited_for`.
#[test]
fn started_names_the_process() {
    let daemon = Daemon::start("");
    for way in [&[][..], &["pty=80x24"], &["stderr=stdout"], &["clearenv", "env=PATH=/bin:/usr/bin"]] {
        let position = daemon.log_position();
        let mut caller = Caller::start(&daemon, way, &["sleep", "100"]);
        caller.wait_for("7:started,");
        // The log takes another way, and comes later.
        let pid = last_pid(&daemon, position);
        // In execve(2) the process first leaves the daemon's memory for good, and gets its name at
        // the end.
        let comm = format!("/proc/{}/comm", pid.as_raw_pid());
        eventually("the program's name", || fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n"));
        caller.tell("signal", "KILL");
        let reply = caller.reply();
        assert_eq!(reply.started, Some(pid.as_raw_pid().unsigned_abs()));
    }
    eventually("all are gone", || daemon.process().children() == (0, 0));
}

/// Without the calls that only Linux has, the answers are the same.
#[test]
fn fork_and_copying_give_the_same_answers() {
    let daemon = Launch::default().env("SOCKEXEC_SPAWN", "fork").env("SOCKEXEC_TRANSFER", "copy").start();
    assert_eq!(
        run(&daemon, &["cwd=/nowhere"], &["true"], "").refusal(),
        "not-found /nowhere: No such file or directory"
    );
    assert_eq!(run(&daemon, NONE, &["nope"], "").refusal(), "not-found nope: No such file or directory");
    let options = ["cwd=/", "clearenv", "env=A=1", "stderr=stdout"];
    let reply = run(&daemon, &options, &["/bin/sh", "-c", "pwd; echo $A; echo $HOME-; cat >&2"], "end");
    assert_eq!((reply.stdout_text(), reply.code()), ("/\n1\n-\nend", 0));
    let reply = run(&daemon, &["pty=33x44"], &["stty", "size"], "");
    assert_eq!((reply.stdout_text(), reply.code()), ("44 33\r\n", 0));
}

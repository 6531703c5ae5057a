//! The log: what appears at which level, in which form, and that it never delays the daemon.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Instant;

use rustix::fs::OFlags;
use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Daemon, Launch, eventually, steps};
use crate::version_2::{Caller, run};

/// The lines of each kind that the log lets through in a second.
const A_SECOND: usize = 10;

/// The lines that the daemon has logged, as JSON.
fn lines(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"))).collect()
}

/// A daemon that logs JSON at `info`.
fn at_info() -> Daemon {
    Launch::default().quiet().options("--log-level info --log-format json").start()
}

/// Waits for the line about a finished program whose arguments contain this word.
#[track_caller]
fn finished(daemon: &Daemon, word: &str) -> Value {
    let mut found = None;
    eventually(&format!("the line of {word}"), || {
        let log = daemon.log_text();
        let whole = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
        let of_it = |line: &Value| line["event"] == "finished" && line["argv"].to_string().contains(word);
        found = lines(whole).into_iter().find(of_it);
        found.is_some()
    });
    found.expect("a line")
}

#[test]
fn each_finished_program_has_a_line() {
    let mut daemon = at_info();
    // In one piece: the line counts what was read until the program had ended, and that may be before the
    // end of input is sent.
    let request = [&crate::common::request(&steps("out one exit 3"))[..], b"0:,"].concat();
    let mut client = daemon.connect();
    client.send(&request);
    assert_eq!(client.reply().code(), 3);
    let one = finished(&daemon, "one");
    let names: Vec<&str> = one.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "time",
        "level",
        "event",
        "connection",
        "uid",
        "peer_pid",
        "argv",
        "pid",
        "exit",
        "seconds",
        "cpu_seconds",
        "max_rss_bytes",
        "bytes_in",
        "bytes_out",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected, "{one}");
    assert_eq!((&one["level"], &one["exit"]), (&"info".into(), &serde_json::json!({"code": 3})));
    assert_eq!(one["uid"].as_u64(), Some(rustix::process::getuid().as_raw().into()));
    assert_eq!(one["peer_pid"].as_u64(), Some(std::process::id().into()));
    assert_eq!(one["argv"], serde_json::json!(steps("out one exit 3")));
    assert!(one["pid"].as_u64() > Some(1) && one["max_rss_bytes"].as_u64() > Some(100_000), "{one}");
    assert!(one["cpu_seconds"].as_f64() >= Some(0.0) && one["seconds"].as_f64() < Some(60.0), "{one}");
    assert_eq!(one["bytes_in"].as_u64(), Some(request.len() as u64), "{one}");
    assert_eq!(one["bytes_out"].as_u64(), Some("6:stdout,3:one,8:exitcode,1:3,".len() as u64), "{one}");

    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let options = [format!("env=TRACEPARENT={traceparent}"), "env=SECRET=hidden".to_owned()];
    assert_eq!(run(&daemon, &options, &steps("out two die 9"), "").signal(), 9);
    let two = finished(&daemon, "two");
    assert_eq!((&two["exit"], &two["traceparent"]), (&serde_json::json!({"signal": 9}), &traceparent.into()));
    assert_eq!(daemon.run(&["no-such-program"], b"").code(), 127);
    let three = finished(&daemon, "no-such-program");
    assert_eq!(three["exit"], serde_json::json!({"error": "not-found"}), "{three}");
    let log = daemon.terminate().stderr;
    assert!(!log.contains("hidden"), "{log}");
}

/// A program whose client has gone has its line too, once its exit status is known.
#[test]
fn a_program_whose_client_is_gone_has_a_line() {
    let daemon = at_info();
    let mut client = daemon.exec(&steps("out ready wait"));
    client.wait_for("ready");
    drop(client);
    assert_eq!(finished(&daemon, "ready")["exit"], serde_json::json!({"signal": 15}));
}

/// Text has the same words. At the default level a program has no line.
#[test]
fn the_same_in_text() {
    let daemon = Launch::default().quiet().options("--log-level info").start();
    assert_eq!(daemon.run(&steps("exit 3"), b"").code(), 3);
    daemon.wait_for_log(" bytes_out=");
    let log = daemon.log_text();
    let line = log.lines().find(|line| line.starts_with("sockexec: finished connection=")).expect("a line");
    let argv = serde_json::to_string(&steps("exit 3")).unwrap();
    for word in [&format!(" argv={argv} pid="), " exit={\"code\":3} seconds=", " cpu_seconds=", " max_rss_bytes="] {
        assert!(line.contains(word), "no {word} in {line}");
    }

    let mut daemon = Launch::default().quiet().start();
    assert_eq!(daemon.run(&steps("exit 3"), b"").code(), 3);
    let stopped = daemon.terminate();
    let said: Vec<&str> = stopped.stderr.lines().collect();
    let [listening, down, stopped_] = said.as_slice() else { panic!("{stopped:?}") };
    assert!(listening.starts_with("sockexec: listening on "), "{stopped:?}");
    assert!(down.starts_with("sockexec: shutting down") && *stopped_ == "sockexec: stopped", "{stopped:?}");
}

/// A failure is a warning, and does not appear at `error`.
#[test]
fn failures_are_warnings() {
    let upset = |daemon: &Daemon| {
        assert_eq!(daemon.run(&["no-such-program"], b"").code(), 127);
        let mut client = daemon.connect();
        client.send(b"abc");
        client.until_gone();
        run(daemon, &["timeout=0.1"], &steps("out late wait"), "");
    };
    let daemon = Launch::default().quiet().start();
    upset(&daemon);
    let me = std::process::id();
    for words in [
        &format!("warning: connection 2 from pid {me} uid "),
        ": cannot start \"no-such-program\": No such file or directory",
        ": bad request: no digit where a length was expected at byte 0",
        ": the deadline of pid ",
    ] {
        daemon.wait_for_log(words);
    }
    let mut daemon = Launch::default().quiet().options("--log-level error").start();
    upset(&daemon);
    let stopped = daemon.terminate();
    assert!(!stopped.stderr.contains("warning"), "{stopped:?}");
    assert!(stopped.stderr.contains("listening on ") && stopped.stderr.contains("stopped"), "{stopped:?}");
}

/// A request that does not come in time names its client.
#[test]
fn a_late_request_names_its_client() {
    let daemon = Launch::default().quiet().options("--request-timeout 0.1").start();
    let client = daemon.connect();
    client.until_gone();
    daemon.wait_for_log(": the request was not complete in time");
}

/// That all slots are taken is logged once, until one is free and nobody waits for it.
#[test]
fn taken_slots_are_logged_once_each_time() {
    let mut daemon = Launch::default().options("-m 1 -t 0").start();
    for times in 1..=2 {
        let gate = daemon.gate(&format!("gate{times}"));
        let first = daemon.exec(&steps(&format!("gate {}", gate.path())));
        let mut others = Vec::new();
        for number in 1..=3 {
            others.push(daemon.exec(&steps("out served")));
            eventually("a request that waits", || {
                daemon.log_text().matches("waits for a slot").count() == 3 * (times - 1) + number
            });
        }
        gate.open();
        for mut client in std::iter::once(first).chain(others) {
            client.end_stdin();
            assert_eq!(client.reply().code(), 0);
        }
        // By now the loop has turned.
        daemon.turns();
    }
    let stopped = daemon.terminate();
    let said = "warning: all 1 slots are taken (-m); 1 requests wait for one";
    assert_eq!(stopped.stderr.matches(said).count(), 2, "{stopped:?}");
    assert_eq!(stopped.stderr.matches("slots are taken").count(), 2, "{stopped:?}");
}

/// A client that floods the log gets ten lines a second, and a line that counts the others.
#[test]
fn a_flood_is_counted() {
    const MANY: usize = 1000;
    let mut daemon = Launch::default().quiet().start();
    let begin = Instant::now();
    for _ in 0..MANY {
        let mut client = daemon.connect();
        let _ = client.try_send(b"abc");
        client.until_gone();
    }
    // Another kind of line is not held back.
    assert_eq!(daemon.run(&["no-such-program"], b"").code(), 127);
    daemon.wait_for_log("cannot start \"no-such-program\"");
    // Nothing more is logged, and the count comes all the same.
    daemon.wait_for_log(" more lines of the kind bad-request were left out within a second");
    let log = daemon.terminate().stderr;
    let written = log.matches(": bad request: ").count();
    let number = |line: &str| line.strip_prefix("sockexec: warning: ")?.split(" more lines").next()?.parse().ok();
    let left_out: Vec<usize> =
        log.lines().filter(|line| line.contains("bad-request were left out")).filter_map(number).collect();
    assert_eq!(written + left_out.iter().sum::<usize>(), MANY, "{log}");
    // On a machine that stands still for a while, all lines of a second may be written.
    let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap() + 2;
    assert!(written <= A_SECOND * seconds, "{written} lines in {seconds} s, {left_out:?} left out");
}

/// Whatever a client sends, a line stays a line: its bytes neither end it nor reach the terminal.
#[test]
fn control_characters_are_escaped() {
    let evil = "x\n<0>forged\r\x1b[31m\x7f\u{85}\u{2028}\u{202e}";
    for format in ["text", "json"] {
        let options = format!("--log-level debug --log-format {format}");
        let launch = Launch::default().quiet();
        let socket = launch.directory().join("a\nb\x1b");
        let mut daemon = launch.socket(socket).options(&options).start();
        assert_eq!(daemon.run(&[evil], b"").code(), 127);
        let directory = format!("cwd={evil}");
        run(&daemon, &[directory.as_str()], &["true", evil], "").refusal();
        run(&daemon, &[format!("env=={evil}").as_str()], &["true"], "");
        daemon.signal(Signal::USR1);
        daemon.wait_for_log(" times");
        let log = daemon.terminate().stderr;
        let is_raw = |c: char| c != '\n' && (c.is_control() || "\u{2028}\u{202e}".contains(c));
        assert!(!log.contains(is_raw), "{log:?}");
        for line in log.lines() {
            assert!(line.starts_with(if format == "text" { "sockexec: " } else { "{\"time\":" }), "{line:?}");
        }
        assert!(log.contains("forged") && log.contains("listening on"), "{log}");
        if format == "json" {
            let lines = lines(&log);
            let failed = lines.iter().find(|line| line["event"] == "finished").expect("a line");
            assert_eq!(failed["argv"][0], evil, "{failed}");
        }
    }
}

/// Neither a program's input, nor a bad request, nor an environment is logged.
#[test]
fn no_secrets_are_logged() {
    const SECRET: &str = "hunter2";
    let mut daemon = Daemon::start("");
    assert_eq!(daemon.run(&steps("cat"), SECRET.as_bytes()).stdout_text(), SECRET);
    let variable = format!("env=PASSWORD={SECRET}");
    assert_eq!(run(&daemon, &[&variable], &steps("exit 3"), SECRET).code(), 3);
    for option in
        [format!("env=={SECRET}"), format!("TRACEPARENT={SECRET}"), format!("timeout={SECRET}"), SECRET.to_owned()]
    {
        run(&daemon, &[&option], &["true"], "").refusal();
    }
    run(&daemon, &[format!("env=TRACEPARENT={SECRET}")], &steps("exit 3"), "");
    let mut caller = Caller::start(&daemon, crate::version_2::NONE, &steps("out ready cat"));
    caller.wait_for("ready");
    caller.tell(SECRET, SECRET);
    caller.reply();
    let mut client = daemon.connect();
    let _ = client.try_send(format!("{SECRET}:").as_bytes());
    client.until_gone();
    let log = daemon.terminate().stderr;
    assert!(log.matches("bad request").count() >= 6 && !log.contains(SECRET), "{log}");
    assert!(!log.contains("'h'"), "a byte of it: {log}");
}

/// With `--log-time` a line of text begins with the time. JSON always has it.
#[test]
fn lines_have_times() {
    let shape = |time: &str| -> String { time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect() };
    let mut daemon = Launch::default().quiet().options("--log-time").start();
    for line in daemon.terminate().stderr.lines() {
        let (time, rest) = line.split_once(' ').expect("a time");
        assert_eq!(shape(time), "0000-00-00T00:00:00.000Z");
        assert!(rest.starts_with("sockexec: "), "{line}");
    }
    let mut daemon = Launch::default().quiet().options("--log-format json").start();
    for line in lines(&daemon.terminate().stderr) {
        assert_eq!(shape(line["time"].as_str().expect("a time")), "0000-00-00T00:00:00.000Z");
    }
}

/// If standard error is the journal, by its device and inode, lines begin with their priority.
#[test]
fn lines_for_the_journal_have_priorities() {
    let numbers = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2); export JOURNAL_STREAM";
    let mut daemon = Launch::default().prelude(numbers).start();
    assert_eq!(daemon.run(&["no-such-program"], b"").code(), 127);
    let log = daemon.terminate().stderr;
    for priority in ["<6>sockexec: listening on", "<4>sockexec: warning: connection 1", "<7>sockexec: connection 1: "] {
        assert!(log.lines().any(|line| line.starts_with(priority)), "no {priority} in {log}");
    }
    assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
    for other in ["8:12345", "", "x", "1", ":"] {
        let mut daemon = Launch::default().quiet().env("JOURNAL_STREAM", other).start();
        let log = daemon.terminate().stderr;
        assert!(log.starts_with("sockexec: listening on"), "{log}");
    }
}

#[test]
fn the_last_level_counts() {
    for (options, is_debug) in
        [("-d --log-level warn", false), ("--log-level warn -d", true), ("--log-level debug", true)]
    {
        let mut daemon = Launch::default().quiet().options(options).start();
        daemon.assert_serves();
        assert_eq!(daemon.terminate().stderr.contains("started pid"), is_debug, "{options}");
    }
}

/// Nobody reads standard error, until it is full. All clients are served all the same. When it is
/// read again, the log reports how much is missing.
#[test]
fn a_stopped_reader() {
    let launch = Launch::default();
    let log = fifo(&launch);
    nobody_reads(launch, log);
}

#[test]
fn a_stopped_terminal() {
    nobody_reads(Launch::default(), terminal());
}

/// The same where a filter refuses threads: after EPERM of clone3, `pthread_create(3)` does not try
/// another call.
#[cfg(target_os = "linux")]
#[test]
fn a_stopped_reader_and_no_threads() {
    if crate::filters::are_permitted() {
        let launch = Launch::default().filter("clone3=EPERM");
        let log = fifo(&launch);
        nobody_reads(launch, log);
    }
}

/// A terminal is ready when it takes a byte, and then write(2) waited with the rest, and everybody with it.
#[cfg(target_os = "linux")]
#[test]
fn a_stopped_terminal_and_no_threads() {
    if crate::filters::are_permitted() {
        nobody_reads(Launch::default().filter("clone3=EPERM"), terminal());
    }
}

/// A socket, as the journal's is.
#[cfg(target_os = "linux")]
#[test]
fn a_stopped_socket_and_no_threads() {
    if crate::filters::are_permitted() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let log = (File::from(std::os::fd::OwnedFd::from(ours)), "exec 2>&0 0</dev/null".to_owned());
        nobody_reads(Launch::default().stream(theirs).filter("clone3=EPERM"), log);
    }
}

/// Our end of a terminal cannot be opened anew: that makes another terminal. The lines went there, and were lost: the first ones
/// always, as the loop writes those itself, and all of them where there is no thread.
#[cfg(target_os = "linux")]
#[test]
fn a_log_that_is_our_end_of_a_terminal() {
    for filter in [None, Some("clone3=EPERM")] {
        if filter.is_some() && !crate::filters::are_permitted() {
            return;
        }
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let ours = rustix::pty::openpt(flags | rustix::pty::OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::unlockpt(&ours).unwrap();
        let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
        let custom = (OFlags::NOCTTY | OFlags::NONBLOCK).bits().cast_signed();
        let mut theirs =
            File::options().read(true).write(true).custom_flags(custom).open(name.to_str().unwrap()).unwrap();
        // We keep it as well: what is not read when the last one is closed is lost.
        let launch = Launch::default().quiet().stream(ours.try_clone().unwrap()).prelude("exec 2>&0 0</dev/null");
        let mut daemon = filter.into_iter().fold(launch, Launch::filter).spawn();
        eventually("a socket", || std::os::unix::net::UnixStream::connect(daemon.socket()).is_ok());
        assert_eq!(daemon.run(&["no-such-program"], b"").code(), 127);
        assert!(daemon.terminate().status.success());
        let mut log = Vec::new();
        // One line at a time, until the last.
        let _ = theirs.read_to_end(&mut log);
        let log = String::from_utf8_lossy(&log);
        for words in ["listening on ", "cannot start \"no-such-program\"", "stopped"] {
            assert!(log.contains(words), "{filter:?}: no {words} in {log:?}");
        }
    }
}

/// Where a log goes: what reads it without waiting, and how a shell opens it.
type Reader = (File, String);

fn fifo(launch: &Launch) -> Reader {
    let path = launch.directory().join("log");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    (File::options().read(true).custom_flags(nonblock).open(&path).unwrap(), "exec 2>log".to_owned())
}

fn terminal() -> Reader {
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    rustix::io::ioctl_fionbio(&ours, true).unwrap();
    let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    (File::from(ours), format!("exec 2>{name}"))
}

#[track_caller]
fn nobody_reads(launch: Launch, (mut reader, prelude): Reader) {
    let mut daemon = launch.prelude(&prelude).spawn();
    eventually("a socket", || std::os::unix::net::UnixStream::connect(daemon.socket()).is_ok());
    // About 900 bytes of log each, more than a pipe and the daemon's buffer hold.
    let name = "x".repeat(255);
    for _ in 0..1500 {
        assert_eq!(daemon.run(&[&name], b"").code(), 127);
    }
    daemon.assert_serves();
    daemon.signal(Signal::USR1);
    daemon.assert_serves();
    let mut log = Vec::new();
    eventually("the number of lines that were dropped", || {
        // Without a thread the next line writes what waits.
        daemon.signal(Signal::USR1);
        let _ = reader.read_to_end(&mut log);
        String::from_utf8_lossy(&log).contains(" lines of the log were dropped: standard error did not take them")
    });
    // The last line may still be coming.
    let whole = log.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    for line in String::from_utf8_lossy(&log[..whole]).lines() {
        assert!(line.starts_with("sockexec: "), "{line:?}");
    }
    daemon.assert_serves();
    // And with no reader at all.
    drop(reader);
    daemon.assert_serves();
    assert!(daemon.terminate().status.success());
}

/// At every level.
#[test]
fn start_reload_and_stop_are_always_logged() {
    let launch = Launch::default().quiet().prelude("exec setsid \"$0\" \"$@\"");
    let mut daemon = launch.options("--log-level error --log-format json").start();
    daemon.signal(Signal::HUP);
    daemon.wait_for_log("\"event\":\"reload\"");
    daemon.assert_serves();
    let lines = lines(&daemon.terminate().stderr);
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().expect("an event")).collect();
    assert_eq!(events, ["start", "reload", "stop", "stop"], "{lines:?}");
    assert!(lines.iter().all(|line| line["level"] == "info" && line["message"].is_string()), "{lines:?}");
}

/// A full disk or a closed log does not stop the daemon.
#[test]
fn a_log_that_fails_stops_nobody() {
    for prelude in ["exec 2>/dev/full", "exec 2>&-", "exec 2</dev/null"] {
        let mut daemon = Launch::default().prelude(prelude).spawn();
        eventually("a socket", || std::os::unix::net::UnixStream::connect(daemon.socket()).is_ok());
        for _ in 0..20 {
            daemon.assert_serves();
        }
        assert!(daemon.terminate().status.success(), "{prelude}");
    }
}

/// The thread that writes exists only while there is something to write.
#[cfg(target_os = "linux")]
#[test]
fn no_thread_while_nothing_is_logged() {
    let daemon = Launch::default().quiet().start();
    let tasks = format!("/proc/{}/task", daemon.process().0);
    let one_thread = || std::fs::read_dir(&tasks).unwrap().count() == 1;
    eventually("one thread", one_thread);
    assert_eq!(daemon.run(&["no-such-program"], b"").code(), 127);
    daemon.wait_for_log("cannot start");
    eventually("one thread", one_thread);
}

/// The last line is written before the daemon ends.
#[test]
fn the_last_words_are_written() {
    let stopped = Launch::default().socket("/nowhere/at/all").quiet().run();
    assert_eq!(stopped.status.code(), Some(111));
    assert!(stopped.stderr.contains("/nowhere/at/all"), "{stopped:?}");
    let stopped = Launch::default().socket("/nowhere/at/all").quiet().options("--log-format json").run();
    let lines = lines(&stopped.stderr);
    assert!(lines.len() == 1 && lines[0]["level"] == "error" && lines[0]["message"].is_string(), "{stopped:?}");
}

//! Programs with a terminal.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, OptionalActions};

use super::{Caller, NONE, Reply2, assert_a_holder_keeps_the_reply, assert_clean, last_pid, run};
use crate::common::{Daemon, eventually, fixture, steps};

const PTY: &[&str] = &["pty=80x24"];

/// Whether a program exists. If not, says so.
fn is_installed(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        println!("SKIPPED: no {program} to drive");
    }
    found
}

/// The fields of /proc/PID/stat from the state on: state, parent, group, session, terminal, and the
/// terminal's foreground group.
fn stat(pid: i32) -> Option<(String, Vec<i32>)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?.to_owned();
    Some((state, fields.take(5).map(|field| field.parse().expect("a number")).collect()))
}

fn child_named(parent: i32, name: &str) -> Option<i32> {
    fs::read_dir("/proc").expect("/proc").flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let (_, numbers) = stat(pid)?;
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        (numbers[0] == parent && comm.trim_end() == name).then_some(pid)
    })
}

/// `count` lines, each with its number.
fn lines(prefix: &str, count: usize) -> String {
    (1..=count).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "{prefix}{n}");
        text
    })
}

#[test]
fn the_size_and_the_name() {
    let daemon = Daemon::start("");
    let reply = run(&daemon, &["pty=132x50"], &["stty", "size"], "");
    assert_eq!((reply.stdout_text(), reply.code()), ("50 132\r\n", 0));
    let reply = run(&daemon, &["pty=0x0"], &["stty", "size"], "");
    assert_eq!((reply.stdout_text(), reply.code()), ("0 0\r\n", 0));
    let reply = run(&daemon, PTY, &["tty"], "");
    assert!(reply.stdout_text().starts_with("/dev/pts/"), "{reply:?}");
    assert_eq!(reply.ended, ["stdout"], "output is all stdout");
    // Without the option there is no terminal.
    let reply = run(&daemon, NONE, &["tty"], "");
    assert_eq!((reply.stdout_text(), reply.code()), ("not a tty\n", 1));
}

/// The program leads a session of its own, and the terminal controls it: `/dev/tty` is the
/// terminal. It has its three descriptors and no more.
#[test]
fn the_program_leads_a_session() {
    let daemon = Daemon::start("");
    let mut caller = Caller::start(&daemon, PTY, &steps("ids fds out ready cat"));
    caller.wait_for("ready");
    let pid = last_pid(&daemon, 0).as_raw_pid();
    let (_, numbers) = stat(pid).unwrap();
    assert_eq!((numbers[1], numbers[2], numbers[4]), (pid, pid, pid), "group, session, foreground group");
    assert_ne!(numbers[3], 0, "a controlling terminal");
    caller.end_stdin();
    let reply = caller.reply();
    let lines: Vec<&str> = reply.stdout_text().lines().collect();
    assert_eq!(lines[0], format!("{pid} {pid}"));
    let places: Vec<(&str, &str)> = lines[1..4].iter().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!([places[0].0, places[1].0, places[2].0], ["0", "1", "2"]);
    assert!(places.iter().all(|(_, target)| target.starts_with("/dev/pts/") && *target == places[0].1), "{lines:?}");
    assert_eq!((lines[4], reply.code()), ("ready", 0));
    let reply = run(&daemon, PTY, &["/bin/sh", "-c", "echo word >/dev/tty; echo other >&2"], "");
    assert_eq!(reply.stdout_text(), "word\r\nother\r\n");
}

/// With all other options.
#[test]
fn other_options_still_work() {
    let daemon = Daemon::start("");
    let options = ["pty=80x24", "cwd=/", "clearenv", "env=TERM=dumb", "timeout=30", "stderr=stdout"];
    let reply = run(&daemon, &options, &["/bin/sh", "-c", "pwd; echo $TERM; stty size >&2"], "");
    assert_eq!((reply.stdout_text(), reply.code()), ("/\r\ndumb\r\n24 80\r\n", 0));
    assert_eq!(
        run(&daemon, &["pty=1x1", "cwd=/nowhere"], &["tty"], "").refusal(),
        "not-found /nowhere: No such file or directory"
    );
    assert_eq!(run(&daemon, PTY, &["nope"], "").refusal(), "not-found nope: No such file or directory");
}

/// The end of standard input is what a person types: once at the beginning of a line, twice within
/// one. The connection and the terminal go on.
#[test]
fn the_end_of_input_is_a_key() {
    let daemon = Daemon::start("");
    for (input, expected) in [("", "done"), ("line\n", "line\r\nline\r\ndone"), ("part", "partpartdone")] {
        let reply = run(&daemon, PTY, &steps("cat out done"), input);
        assert_eq!((reply.stdout_text(), reply.code()), (expected, 0), "{input:?}");
    }
    // More than the terminal takes at once, for a program that reads late.
    let gate = daemon.gate("gate");
    let argv = ["/bin/sh", "-c", &format!("stty -echo; echo ready; cat {}; wc -c", gate.path())];
    let mut caller = Caller::start(&daemon, PTY, &argv);
    caller.wait_for("ready");
    // The daemon reads ahead what the terminal does not take.
    let line = format!("{}\n", "x".repeat(999));
    for _ in 0..100 {
        caller.stdin(&line);
    }
    gate.open();
    caller.end_stdin();
    let reply = caller.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("ready\r\n100000\r\n", 0));
}

/// The first bytes of a full terminal: more than the kernel keeps ready for the reader, so that
/// none of the rest moves on.
const FIRST: usize = 8192;

/// How many bytes of short lines a terminal takes if nobody reads.
fn capacity() -> usize {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    rustix::fs::fcntl_setfl(&ours, OFlags::RDWR | OFlags::NONBLOCK).unwrap();
    let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
    let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut modes = rustix::termios::tcgetattr(&theirs).unwrap();
    modes.local_modes.remove(LocalModes::ECHO);
    rustix::termios::tcsetattr(&theirs, OptionalActions::Now, &modes).unwrap();
    let text = short_lines(1 << 20);
    assert_eq!(rustix::io::write(&ours, &text[..FIRST]), Ok(FIRST));
    eventually("as much as the reader can be given", || {
        rustix::io::ioctl_fionread(&theirs).is_ok_and(|ready| ready > 4000)
    });
    let mut taken = FIRST;
    while let Ok(n) = rustix::io::write(&ours, &text[taken..]) {
        taken += n;
    }
    taken
}

fn short_lines(len: usize) -> Vec<u8> {
    let mut text = b"0123456\n".repeat(len / 8 + 1);
    text.truncate(len);
    text[len - 1] = b'\n';
    text
}

/// Sends `len` bytes of short lines, and their end, to a program that does not read them.
#[track_caller]
fn fill(daemon: &mut Daemon, caller: &mut Caller, len: usize) {
    let text = short_lines(len);
    caller.stdin(&text[..FIRST]);
    // Connections that come later are served later. So the terminal has what it takes.
    daemon.assert_serves();
    caller.stdin(&text[FIRST..]);
    caller.end_stdin();
    daemon.assert_serves();
}

/// A terminal that is full to the last byte, or almost. The end of the input, or one more byte,
/// waits until the program reads, and is not lost.
#[test]
fn a_full_terminal_delays_the_end_of_input() {
    let mut daemon = Daemon::start("");
    let capacity = capacity();
    for len in [capacity - 1, capacity, capacity + 1] {
        let gate = daemon.gate(&format!("gate{len}"));
        let argv = ["/bin/sh", "-c", &format!("stty -echo; echo ready; cat {}; wc -c", gate.path())];
        let mut caller = Caller::start(&daemon, PTY, &argv);
        caller.wait_for("ready");
        fill(&mut daemon, &mut caller, len);
        gate.open();
        let reply = caller.reply();
        assert_eq!((reply.stdout_text(), reply.code()), (format!("ready\r\n{len}\r\n").as_str(), 0));
    }
}

/// The terminal hangs up while the end of its input, or a byte before that, waits for room that
/// will never be: when the program ends, or when it closes the terminal and goes on.
#[test]
fn a_full_terminal_that_hangs_up() {
    let mut daemon = Daemon::start("");
    let descriptors = daemon.process().descriptors();
    let capacity = capacity();
    for len in [capacity, capacity + 1] {
        for goes_on in [false, true] {
            let [gate, last] = ["gate", "last"].map(|name| daemon.gate(&format!("{name}-{len}-{goes_on}")));
            let then = if goes_on { format!("exec <&- >&- 2>&-; : <{};", last.path()) } else { String::new() };
            let script = format!("stty -echo; echo ready; : <{}; {then} exit 3", gate.path());
            let mut caller = Caller::start(&daemon, PTY, &["/bin/sh", "-c", &script]);
            caller.wait_for("ready");
            fill(&mut daemon, &mut caller, len);
            gate.open();
            if goes_on {
                caller.wait_for("6:stdout,0:,");
                daemon.assert_idle("a terminal with pending input has hung up");
                last.open();
            }
            let reply = caller.reply();
            assert_eq!((reply.stdout_text(), reply.code()), ("ready\r\n", 3), "{len}, {goes_on}: {reply:?}");
            assert_eq!((reply.ended.as_slice(), reply.errors.len()), (["stdout".to_owned()].as_slice(), 0));
            assert_clean(&daemon, descriptors);
        }
    }
}

#[test]
fn much_output_is_whole() {
    let daemon = Daemon::start("");
    let reply = run(&daemon, PTY, &["/bin/sh", "-c", "stty -opost; exec seq 1 300000"], "");
    assert_eq!(reply.code(), 0);
    let expected: String = lines("", 300_000);
    assert!(reply.stdout == expected.as_bytes(), "{} of {} bytes", reply.stdout.len(), expected.len());
}

/// Both the size and its signal: WINCH to the foreground group.
#[test]
fn window_changes_reach_the_foreground() {
    let daemon = Daemon::start("");
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done";
    let mut caller = Caller::start(&daemon, PTY, &["/bin/sh", "-c", script]);
    caller.wait_for("ready");
    for (size, expected) in [("100x50", "50 100\r\n"), ("0x0", "0 0\r\n"), ("65535x1", "1 65535\r\n")] {
        caller.tell("winsize", size);
        caller.0.wait_for_output(expected);
    }
    caller.tell("winsize", "nonsense");
    let reply = caller.reply();
    assert!(reply.errors[0].starts_with("bad-request bad winsize \"nonsense\" at byte "), "{reply:?}");
    for size in ["", "1", "1x", "x1", "1x1x1", "-1x1", "65536x1", " 1x1"] {
        let mut caller = Caller::start(&daemon, PTY, &steps("wait"));
        caller.tell("winsize", size);
        let reply = caller.reply();
        assert!(reply.errors[0].starts_with(&format!("bad-request bad winsize \"{size}\" at byte ")), "{reply:?}");
    }
}

/// The program has ended. The size still applies to the terminal, which a background job may have.
#[test]
fn a_size_after_the_end_of_the_program_still_counts() {
    // With it the daemon waits for the end of the program, although the output goes on.
    let mut daemon = Daemon::start("-t 0 --linger 1000");
    let descriptors = daemon.process().descriptors();
    let gate = daemon.gate("gate");
    // It ignores HUP, which the kernel sends to the foreground group when a session's leader ends.
    let script = format!("trap '' HUP; {{ : <{}; stty size <&1; }} & echo ready; exit 6", gate.path());
    let mut caller = Caller::start(&daemon, PTY, &["/bin/sh", "-c", &script]);
    caller.wait_for("ready");
    daemon.wait_for_log("ended: exit code 6");
    caller.tell("winsize", "132x50");
    // Connections that come later are served later. So the terminal has its size.
    daemon.assert_serves();
    gate.open();
    let reply = caller.reply();
    assert_eq!((reply.stdout_text(), reply.code(), reply.errors.len()), ("ready\r\n50 132\r\n", 6, 0), "{reply:?}");
    assert_clean(&daemon, descriptors);
}

/// The system refuses a new size. The terminal keeps the old one, and everything goes on.
#[test]
fn a_size_that_the_system_refuses_changes_nothing() {
    use crate::faults::strace::{self, Fault, Strace, Whom};
    if !strace::is_usable() {
        return;
    }
    let daemon = Daemon::start("-t 0");
    let script = "stty -echo; echo ready; read x; stty size; read x; stty size";
    let mut caller = Caller::start(&daemon, PTY, &["/bin/sh", "-c", script]);
    caller.wait_for("ready");
    let fault = Fault { call: "ioctl", error: "EINVAL", when: "1+".into() };
    let strace = Strace::inject(daemon.process(), Whom::Daemon, &fault);
    caller.tell("winsize", "100x40");
    daemon.wait_for_log("cannot resize the terminal: Invalid argument");
    strace.detach();
    caller.stdin("\n");
    caller.0.wait_for_output("24 80\r\n");
    caller.tell("winsize", "132x50");
    caller.stdin("\n");
    let reply = caller.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("ready\r\n24 80\r\n50 132\r\n", 0));
    assert!(reply.errors.is_empty(), "{reply:?}");
}

/// A terminal's keys are signals to its foreground group. The client's `signal` goes there too if
/// the program leads it.
#[test]
fn keys_and_signals_reach_the_foreground() {
    let daemon = Daemon::start("");
    for (key, signal) in [("\x03", 2), ("\x1c", 3)] {
        let mut caller = Caller::start(&daemon, PTY, &steps("out ready exec sleep 100"));
        caller.wait_for("ready");
        eventually("sleep", || {
            fs::read_to_string(format!("/proc/{}/comm", last_pid(&daemon, 0).as_raw_pid()))
                .is_ok_and(|it| it == "sleep\n")
        });
        caller.stdin(key);
        assert_eq!(caller.reply().signal(), signal);
    }
    let mut caller = Caller::start(&daemon, PTY, &steps("out ready wait"));
    caller.wait_for("ready");
    caller.tell("signal", "KILL");
    assert_eq!(caller.reply().signal(), 9);
}

#[test]
fn vi_works() {
    if !is_installed("vi") {
        return;
    }
    let daemon = Daemon::start("");
    let file = daemon.directory().join("file");
    let options = ["pty=80x24", "env=TERM=xterm", "env=HOME=/nowhere", "unsetenv=EXINIT"];
    let mut caller = Caller::start(&daemon, &options, &["vi", file.to_str().unwrap()]);
    // The last line of the screen.
    caller.wait_for("file\"");
    caller.stdin("ihello, terminal\x1b");
    caller.wait_for("hello, terminal");
    caller.stdin(":wq\r");
    let reply = caller.reply();
    assert_eq!(reply.code(), 0, "{reply:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "hello, terminal\n");
}

#[test]
fn less_works() {
    if !is_installed("less") {
        return;
    }
    let daemon = Daemon::start("");
    let file = daemon.directory().join("file");
    fs::write(&file, lines("line ", 100)).unwrap();
    let options = ["pty=80x24", "env=TERM=xterm", "unsetenv=LESS"];
    let mut caller = Caller::start(&daemon, &options, &["less", file.to_str().unwrap()]);
    // A screen of 24 lines, and not a line more.
    caller.wait_for("line 23");
    caller.stdin("G");
    caller.wait_for("line 100");
    caller.stdin("q");
    let reply = caller.reply();
    assert_eq!(reply.code(), 0, "{reply:?}");
    assert!(!reply.stdout_text().contains("line 50"), "it was no terminal: {reply:?}");
}

/// A shell at a terminal, as a person uses it.
struct Shell {
    caller: Caller,
    pid: i32,
    prompts: usize,
}

impl Shell {
    /// `None` if there is no shell with job control.
    fn start(daemon: &Daemon) -> Option<Self> {
        if !is_installed("bash") {
            return None;
        }
        let options = ["pty=80x24", "env=PS1=<prompt>", "env=TERM=dumb", "unsetenv=PROMPT_COMMAND", "env=HISTFILE="];
        let caller = Caller::start(daemon, &options, &["bash", "--norc", "--noprofile", "--noediting", "-i"]);
        let mut shell = Self { caller, pid: last_pid(daemon, 0).as_raw_pid(), prompts: 0 };
        shell.prompt();
        Some(shell)
    }

    /// Waits for the next prompt.
    #[track_caller]
    fn prompt(&mut self) {
        self.prompts += 1;
        self.caller.0.wait_for_times("<prompt>", self.prompts);
    }

    #[track_caller]
    fn type_line(&mut self, line: &str) {
        self.caller.stdin(format!("{line}\n"));
    }

    /// Waits until the foreground group is that of a child with this name, which sleeps. Returns
    /// its number.
    #[track_caller]
    fn foreground(&self, name: &str) -> i32 {
        let mut found = None;
        eventually("a job in the foreground", || {
            found = child_named(self.pid, name);
            found.and_then(stat).is_some_and(|(state, numbers)| state == "S" && numbers[4] == numbers[1])
        });
        found.unwrap()
    }

    #[track_caller]
    fn end(mut self) -> Reply2 {
        self.type_line("exit 3");
        self.caller.reply()
    }
}

/// ^Z, `fg`, ^C.
#[test]
fn job_control_works() {
    let daemon = Daemon::start("");
    let Some(mut shell) = Shell::start(&daemon) else { return };
    shell.type_line("sleep 100");
    let sleep = shell.foreground("sleep");
    shell.caller.stdin("\x1a");
    shell.prompt();
    assert_eq!(stat(sleep).unwrap().0, "T", "stopped");
    shell.type_line("jobs");
    shell.caller.wait_for("Stopped");
    shell.prompt();
    shell.type_line("fg");
    assert_eq!(shell.foreground("sleep"), sleep, "the same one goes on");
    shell.caller.stdin("\x03");
    shell.prompt();
    assert!(stat(sleep).is_none_or(|(state, _)| state == "Z"), "ended by ^C");
    shell.type_line("echo status-$?");
    shell.caller.wait_for("status-130");
    shell.prompt();
    let reply = shell.end();
    assert!(reply.stdout_text().contains("Stopped"), "{reply:?}");
    assert_eq!((reply.code(), reply.errors.len()), (3, 0));
}

/// A client that leaves is a terminal that hangs up: HUP to the foreground group, then TERM, and
/// KILL to every process left in the session, whatever its group: background jobs, stopped ones,
/// those that ignore HUP and TERM. A process with a session of its own is left alone.
#[test]
fn hang_up() {
    let daemon = Daemon::start("-k 0.5");
    let descriptors = daemon.process().descriptors();
    let mut fifos: Vec<_> = ["front", "back", "stubborn", "stopped"].map(|name| daemon.fifo(name)).into();
    let mut own = daemon.fifo("own");
    let fixture = fixture();
    let Some(mut shell) = Shell::start(&daemon) else { return };
    for line in [
        format!("{fixture} hold {} wait &", fifos[1].path()),
        format!("{fixture} ignore HUP TERM INT ';' hold {} wait &", fifos[2].path()),
        format!("{fixture} hold {} stop wait &", fifos[3].path()),
        format!("{fixture} spawn [ setsid hold {} wait ]", own.path()),
    ] {
        shell.type_line(&line);
        shell.prompt();
    }
    shell.type_line(&format!("{fixture} hold {} wait", fifos[0].path()));
    let mut groups: Vec<i32> = fifos.iter_mut().map(|fifo| fifo.holder().group.as_raw_pid()).collect();
    groups.push(shell.pid);
    groups.sort_unstable();
    groups.dedup();
    assert_eq!(groups.len(), 5, "each job is a group of its own");
    let outsider = own.holder();
    drop(shell);
    for fifo in &mut fifos {
        fifo.wait_for_death();
    }
    assert!(own.is_held(), "who has a session of its own is signalled");
    outsider.kill();
    assert_clean(&daemon, descriptors);
}

/// The foreground group gets HUP before TERM, as programs expect of a terminal that hangs up.
#[test]
fn hang_up_comes_first() {
    let daemon = Daemon::start("-k 30");
    let file = daemon.directory().join("heard");
    let script = format!(
        "trap 'echo hup >>{0}' HUP; trap 'echo term >>{0}; exit' TERM; echo ready; while :; do sleep 0.02; done",
        file.display()
    );
    let mut caller = Caller::start(&daemon, PTY, &["/bin/sh", "-c", &script]);
    caller.wait_for("ready");
    drop(caller);
    daemon.wait_for_log("over after");
    assert_eq!(fs::read_to_string(&file).unwrap(), "hup\nterm\n");
}

/// The deadline and a bad request end a session in the same way.
#[test]
fn each_end_of_a_session_ends_its_jobs() {
    let daemon = Daemon::start("-t 0 -k 0.3");
    let descriptors = daemon.process().descriptors();
    assert!(ends_a_stubborn_job(&daemon, None));
    // A slow machine may have no job yet when the deadline comes.
    assert!(
        ["timeout=0.5", "timeout=5", "timeout=50"].iter().any(|&timeout| ends_a_stubborn_job(&daemon, Some(timeout)))
    );
    assert_clean(&daemon, descriptors);
}

/// Whether a shell's job that ignores HUP and TERM ends with the session, by this deadline or by a
/// bad request. False if the deadline came before the job.
#[track_caller]
fn ends_a_stubborn_job(daemon: &Daemon, timeout: Option<&str>) -> bool {
    let mut fifo = daemon.fifo(timeout.unwrap_or("bad"));
    let script = format!("set -m; {} ignore HUP TERM ';' hold {} wait & echo ready; sleep 100", fixture(), fifo.path());
    let options: Vec<&str> = ["pty=80x24"].into_iter().chain(timeout).collect();
    let mut caller = Caller::start(daemon, &options, &["/bin/bash", "-c", &script]);
    let expected = if timeout.is_some() {
        "timeout "
    } else {
        fifo.holder();
        caller.tell("wat", "");
        "bad-request "
    };
    let reply = caller.reply();
    assert!(reply.errors[0].starts_with(expected), "{reply:?}");
    if timeout.is_some() && !fifo.was_held() {
        return false;
    }
    fifo.wait_for_death();
    true
}

/// A shell has ended, and its background job holds the terminal. As with pipes, the reply goes on.
#[test]
fn a_background_job_that_holds_the_terminal_keeps_the_reply() {
    // It ignores HUP, which the kernel sends to the foreground group when a session's leader ends.
    assert_a_holder_keeps_the_reply(PTY, "ignore HUP ;");
}

/// A shortage of terminals is not the program's fault.
#[test]
fn a_shortage_of_terminals_is_the_daemons() {
    use crate::faults::strace::{self, Fault, Strace, Whom};
    if !strace::is_usable() {
        return;
    }
    let mut daemon = Daemon::start("");
    let descriptors = daemon.process().descriptors();
    // Too many terminals, and none at all: a container without /dev/ptmx.
    for (error, words) in [("ENOSPC", "no terminal is left (kernel.pty.max)"), ("ENOENT", "No such file or directory")]
    {
        let fault = Fault { call: "open,openat", error, when: "1+".into() };
        let strace = Strace::inject(daemon.process(), Whom::Daemon, &fault);
        let reply = run(&daemon, PTY, &["tty"], "");
        strace.detach();
        assert_eq!(reply.refusal(), format!("spawn-failed terminal (/dev/ptmx): {words}"));
    }
    assert_eq!(run(&daemon, PTY, &["tty"], "").code(), 0);
    daemon.assert_serves();
    assert_clean(&daemon, descriptors);
}

/// The daemon is killed. The kernel kills the leader, and hangs up the terminal, whose other end
/// has gone.
#[test]
fn a_killed_daemon_hangs_up_its_terminals() {
    let mut daemon = Daemon::start("");
    let mut fifo = daemon.fifo("fifo");
    let mut caller = Caller::start(&daemon, PTY, &steps(&format!("hold {} wait", fifo.path())));
    fifo.holder();
    caller.wait_for("started");
    daemon.kill();
    fifo.wait_for_death();
}

//! How the command ends: as its program does, with its reader, by a signal, or without a daemon.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal};

use super::terminals::{in_time, terminal};
use super::{assert_lost, bare, client, fixture_client, run, text, wait};
use crate::common::{Daemon, fixture, steps};

#[test]
fn every_exit_code_is_the_commands() {
    let daemon = Daemon::start("");
    for code in 0..=255 {
        let output = run(fixture_client(&daemon, &format!("exit {code}")));
        assert_eq!(output.status.code(), Some(code));
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
    }
}

/// The numbers of all signals that end a program, including the real-time ones. 32 and 33 belong to
/// the C library.
fn terminating_signals() -> impl Iterator<Item = i32> {
    let spared = [Signal::CHILD, Signal::CONT, Signal::STOP, Signal::TSTP, Signal::TTIN, Signal::TTOU];
    let ignored = [Signal::URG, Signal::WINCH];
    let harmless: Vec<i32> = spared.into_iter().chain(ignored).map(Signal::as_raw).collect();
    (1..=31).chain(34..=64).filter(move |number| !harmless.contains(number))
}

#[test]
fn every_signal_is_the_commands() {
    let daemon = Daemon::start("");
    for signal in terminating_signals() {
        let output = run(fixture_client(&daemon, &format!("out last die {signal}")));
        assert_eq!(output.status.signal(), Some(signal));
        assert!(!output.status.core_dumped());
        assert_eq!((text(&output.stdout), text(&output.stderr)), ("last", ""));
    }
}

/// A daemon that sends names, as 3.1.1 does.
#[test]
fn every_signal_may_come_as_a_name() {
    let daemon = Daemon::start("--termsig name");
    for signal in terminating_signals().filter(|&signal| signal < 32) {
        let output = run(fixture_client(&daemon, &format!("die {signal}")));
        assert_eq!(output.status.signal(), Some(signal), "{}", text(&output.stderr));
    }
}

/// The command, which replaces a shell that has run `prelude`.
fn after(daemon: &Daemon, prelude: &str, words: &str) -> Command {
    let inner = fixture_client(daemon, words);
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(format!("{prelude}; exec \"$0\" \"$@\"")).arg(inner.get_program()).args(inner.get_args());
    shell.current_dir(daemon.directory());
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

/// The program may dump core. A dump of the client would only confuse.
#[test]
fn the_client_dumps_no_core() {
    let daemon = Daemon::start("");
    for signal in [Signal::QUIT, Signal::ABORT, Signal::SEGV, Signal::BUS] {
        let output = run(after(&daemon, "ulimit -S -c $(ulimit -H -c)", &format!("die {}", signal.as_raw())));
        assert_eq!(output.status.signal(), Some(signal.as_raw()));
        assert!(!output.status.core_dumped());
    }
}

/// The client dies of its program's signal even if its starter ignores that signal.
#[test]
fn signals_that_the_starter_ignores_still_end_the_client() {
    let daemon = Daemon::start("");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::PIPE, Signal::USR1] {
        let output = run(after(&daemon, &format!("trap '' {}", signal.as_raw()), &format!("die {}", signal.as_raw())));
        assert_eq!(output.status.signal(), Some(signal.as_raw()));
    }
}

/// `… | head -1`: like every filter the client dies of PIPE without a message, and its program ends
/// too.
#[test]
fn the_client_ends_with_the_reader_of_its_output() {
    let daemon = Daemon::start("");
    for words in ["flood", "write-err 1 write-out 100000000"] {
        let mut life = daemon.fifo(&words[..5]);
        let mut child = fixture_client(&daemon, &format!("hold {} {words}", life.path())).spawn().expect("it starts");
        life.holder();
        let mut stdout = child.stdout.take().expect("a pipe");
        stdout.read_exact(&mut [0; 1000]).expect("the first lines");
        drop(stdout);
        let status = wait(&mut child);
        assert_eq!(status.signal(), Some(Signal::PIPE.as_raw()));
        let mut message = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut message).expect("text");
        assert!(!message.contains("sockexec"), "{message}");
        life.wait_for_death();
    }
}

/// The client reports output that it cannot write, here to a full disk.
#[test]
fn output_that_cannot_be_written_is_reported() {
    let daemon = Daemon::start("");
    let mut command = fixture_client(&daemon, "out x");
    command.stdout(File::options().write(true).open("/dev/full").expect("/dev/full"));
    let output = run(command);
    assert_lost(&output, daemon.socket(), "standard output");
}

/// `nohup sockexec-client S PROGRAM` at a terminal used to fail. Input that cannot be read counts
/// as ended, like closed input.
#[test]
fn input_that_cannot_be_read_has_ended() {
    let daemon = Daemon::start("");
    for option in ["--", "--usage"] {
        for unreadable in [
            File::options().write(true).open("/dev/null").expect("a device"),
            File::create(daemon.directory().join("file")).expect("a file"),
            File::open("/").expect("a directory"),
        ] {
            let mut command = bare(&daemon);
            command.arg(option).arg(daemon.socket()).args(steps("verify")).stdin(unreadable);
            let output = run(command);
            assert_eq!((text(&output.stdout), output.status.code()), ("ok 0\n", Some(0)), "{}", text(&output.stderr));
        }
    }
}

/// Nor can a terminal whose foreground is another group's for good: reading it fails with EIO for
/// an orphaned background group.
#[test]
fn a_terminal_of_another_group_has_ended() {
    let daemon = Daemon::start("");
    for option in ["--", "--usage"] {
        let mut orphaned = daemon.fifo(&format!("orphaned{option}"));
        let (begin, end) = (daemon.gate(&format!("begin{option}")), daemon.gate(&format!("end{option}")));
        let (mut master, terminal) = terminal();
        let mut leader = Command::new(fixture());
        // It is orphaned because its parent has gone, and the session's leader keeps the
        // foreground.
        leader.args(["setsid", "ctty", "spawn", "[", "spawn", "[", "setpgid", "gate", begin.path()]);
        leader.args(["exec", env!("CARGO_BIN_EXE_sockexec-client"), option]);
        leader.arg(daemon.socket()).args(steps("verify"));
        leader.args(["]", "]", "reap", "hold", orphaned.path(), "gate", end.path()]);
        leader.stdin(terminal).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut leader = leader.spawn().expect("it starts");
        orphaned.holder();
        begin.open();
        // It fails only once there is something to read.
        master.write_all(b"typed\n").expect("typing");
        let mut stdout = leader.stdout.take().expect("a pipe");
        let answer = in_time("the program's answer", move || {
            let mut answer = [0; 5];
            stdout.read_exact(&mut answer).map(|()| answer)
        });
        assert_eq!(&answer.expect("an answer"), b"ok 0\n");
        end.open();
        let output = leader.wait_with_output().expect("it ends");
        assert!(!text(&output.stderr).contains("sockexec-client"), "{}", text(&output.stderr));
    }
}

/// `unshare -pf --mount-proc sockexec-client …`. `None`, with a message, where that is not
/// permitted.
fn as_init(daemon: &Daemon, option: &str, words: &str) -> Option<Command> {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["-pf", "--mount-proc"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        unshare
    };
    if !unshare().arg("true").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: unshare(1) is not there, or may not make a PID namespace");
        return None;
    }
    let mut command = unshare();
    command.arg(env!("CARGO_BIN_EXE_sockexec-client")).arg(option).arg(daemon.socket()).args(steps(words));
    Some(command)
}

/// By default no signal ends process 1 of a container, so the client exits as a shell would report
/// it.
#[test]
fn process_1_exits_as_a_shell_would() {
    let daemon = Daemon::start("-t 0");
    for option in ["-n", "--usage"] {
        for signal in [Signal::TERM, Signal::KILL, Signal::SEGV] {
            let Some(command) = as_init(&daemon, option, &format!("die {}", signal.as_raw())) else { return };
            let output = run(command);
            assert_eq!(output.status.code(), Some(128 + signal.as_raw()), "{option}: {}", text(&output.stderr));
        }
        // And by signals to the client itself.
        for signal in [Signal::TERM, Signal::INT] {
            let mut life = daemon.fifo(&format!("{option}{}", signal.as_raw()));
            let Some(mut command) = as_init(&daemon, option, &format!("hold {} wait", life.path())) else { return };
            let mut child = command.spawn().expect("it starts");
            life.holder();
            let children = format!("/proc/{0}/task/{0}/children", child.id());
            let client = std::fs::read_to_string(children).expect("a file of /proc");
            let client = Pid::from_raw(client.trim().parse().expect("one child")).expect("a pid");
            rustix::process::kill_process(client, signal).expect("it lives");
            assert_eq!(wait(&mut child).code(), Some(128 + signal.as_raw()), "{option}");
            life.wait_for_death();
        }
    }
}

/// INT, TERM, HUP, QUIT, and KILL, which the client cannot catch: the program ends too.
#[test]
fn a_signal_to_the_client_ends_the_program() {
    let daemon = Daemon::start("-t 0");
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::KILL] {
        let mut life = daemon.fifo(&signal.as_raw().to_string());
        let mut command = after(&daemon, "ulimit -c 0", &format!("hold {} wait", life.path()));
        let mut child = command.spawn().expect("the client starts");
        life.holder();
        rustix::process::kill_process(Pid::from_child(&child), signal).expect("it is there");
        assert_eq!(wait(&mut child).signal(), Some(signal.as_raw()));
        life.wait_for_death();
    }
}

/// The same while bytes flow both ways, for a program that ignores TERM. KILL ends it.
#[test]
fn a_signal_to_a_busy_client_ends_a_stubborn_program() {
    let daemon = Daemon::start("-t 0 -k 0.1");
    for signal in [Signal::INT, Signal::TERM] {
        let mut life = daemon.fifo(&signal.as_raw().to_string());
        let mut command = fixture_client(&daemon, &format!("ignore TERM INT ; hold {} flood", life.path()));
        let mut child = command.spawn().expect("the client starts");
        life.holder();
        let mut stdout = child.stdout.take().expect("a pipe");
        stdout.read_exact(&mut vec![0; 100_000]).expect("some of the flood");
        rustix::process::kill_process(Pid::from_child(&child), signal).expect("it is there");
        assert_eq!(wait(&mut child).signal(), Some(signal.as_raw()));
        life.wait_for_death();
    }
}

/// The daemon is killed in the middle of a stream, or while nothing flows.
#[test]
fn a_killed_daemon_is_reported() {
    let mut daemon = Daemon::start("-t 0");
    let mut busy = fixture_client(&daemon, "flood").spawn().expect("the client starts");
    let mut life = daemon.fifo("life");
    let idle = fixture_client(&daemon, &format!("hold {} wait", life.path())).spawn().expect("the client starts");
    let holder = life.holder();
    let mut stdout = busy.stdout.take().expect("a pipe");
    stdout.read_exact(&mut vec![0; 1 << 20]).expect("some of the flood");
    daemon.kill();
    stdout.read_to_end(&mut Vec::new()).expect("the rest");
    drop(stdout);
    assert_lost(&busy.wait_with_output().expect("wait"), daemon.socket(), "check whether the daemon still runs");
    let output = idle.wait_with_output().expect("wait");
    assert_lost(&output, daemon.socket(), "check whether the daemon still runs");
    assert!(text(&output.stderr).contains("without an answer"), "{}", text(&output.stderr));
    // KILL left the daemon no time to do that.
    holder.kill();
    life.wait_for_death();
}

/// A daemon that is told to end still gives its clients their replies.
#[test]
fn a_daemon_that_ends_sends_its_replies() {
    let mut daemon = Daemon::start("-t 0");
    let mut life = daemon.fifo("life");
    let child = fixture_client(&daemon, &format!("out so-far hold {} wait", life.path())).spawn().expect("it starts");
    life.holder();
    daemon.terminate();
    let output = child.wait_with_output().expect("wait");
    assert_eq!((text(&output.stdout), output.status.signal()), ("so-far", Some(Signal::TERM.as_raw())));
}

/// A hundred at once, more than the daemon serves at a time, each with its own input, output and
/// exit code.
#[test]
fn a_hundred_clients_get_their_replies() {
    let daemon = Daemon::start("-m 30 -q 10");
    let clients: Vec<_> = (0..100)
        .map(|n| {
            let mut argv = steps("cat err");
            argv.extend([format!("err {n}"), "exit".to_owned(), n.to_string()]);
            let mut command = client(&daemon, &argv);
            let input = daemon.directory().join(format!("in-{n}"));
            std::fs::write(&input, format!("input {n} ").repeat(20_000)).expect("a file");
            command.stdin(File::open(&input).expect("a file"));
            std::thread::spawn(move || run(command))
        })
        .collect();
    for (n, client) in (0..).zip(clients) {
        let output = client.join().expect("no panic");
        assert_eq!(text(&output.stderr), format!("err {n}"));
        assert!(text(&output.stdout) == format!("input {n} ").repeat(20_000));
        assert_eq!(output.status.code(), Some(n));
    }
}

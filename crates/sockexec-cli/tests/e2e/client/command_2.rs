//! The command's options of version 2.

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::fake::Fake;
use super::forgotten::flags;
use super::{assert_lost, bare, run, text, wait};
use crate::common::{Daemon, eventually, steps};
use crate::version_2::status::status;

/// `sockexec-client OPTIONS SOCKET FIXTURE STEPS`.
fn with(daemon: &Daemon, options: &str, words: &str) -> Command {
    let mut command = bare(daemon);
    command.args(options.split_whitespace()).arg(daemon.socket()).args(steps(words));
    command
}

fn output(daemon: &Daemon, options: &str, words: &str) -> (String, String, Option<i32>) {
    let output = run(with(daemon, options, words));
    (text(&output.stdout).to_owned(), text(&output.stderr).to_owned(), output.status.code())
}

#[test]
fn directory_and_environment() {
    let daemon = Daemon::start("");
    let stdout = |options, words| output(&daemon, options, words).0;
    for option in ["-C /usr", "--chdir /usr", "--chdir=/usr"] {
        assert_eq!(stdout(option, "cwd"), "/usr\n");
    }
    assert_eq!(stdout("-e A=1 --env B=x=y -e C=", "env A env B env C"), "1\nx=y\n\n");
    assert_eq!(stdout("--unset PATH", "env PATH"), "");
    assert_eq!(stdout("-e A=1 --clear-env", "env A env PATH"), "1\n");
    let mut ours = with(&daemon, "-e OURS -e NOBODYS", "env OURS env NOBODYS");
    assert_eq!(
        text(
            &run({
                ours.env("OURS", "here").env_remove("NOBODYS");
                ours
            })
            .stdout
        ),
        "here\n"
    );
    let (_, message, code) = output(&daemon, "-C /nowhere", "cwd");
    assert_eq!(code, Some(127), "{message}");
    assert!(message.contains("/nowhere"), "{message}");
}

#[test]
fn time_streams_and_costs() {
    let daemon = Daemon::start("-t 0");
    // On a slow machine the first deadline may come before the exec. Then there is no status, which is 124.
    let mut all = ["1", "5", "25"].iter().map(|time| run(with(&daemon, &format!("--timeout {time}"), "wait")));
    let ended = all.find(|ended| ended.status.code() != Some(124)).expect("a program that is there in time");
    // KILL is for a program that was not executed yet, and may find it executed.
    assert!([Some(9), Some(15)].contains(&ended.status.signal()), "{ended:?}");
    assert!(text(&ended.stderr).contains("timeout"), "{}", text(&ended.stderr));
    assert_eq!(output(&daemon, "--merge-stderr", "out a err b out c"), ("abc".to_owned(), String::new(), Some(0)));
    let (_, usage, code) = output(&daemon, "--usage", "exit 3");
    assert_eq!(code, Some(3));
    let words: Vec<&str> = usage.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(cfg!(not(target_os = "linux")) || words == ["real", "user", "sys", "maxrss"], "{usage}");
}

#[test]
fn files_stay_files() {
    let daemon = Daemon::start("");
    let path = daemon.directory().join("out");
    let mut command = with(&daemon, "--pass-fds", "fds");
    command.stdout(std::fs::File::create(&path).expect("a file"));
    assert!(run(command).status.success());
    let descriptors = std::fs::read_to_string(&path).expect("a file");
    assert!(descriptors.contains(&format!("1 {}", path.display())), "{descriptors}");
}

#[test]
fn wrong_options() {
    let daemon = Daemon::start("");
    let cases = [
        ("-e =x", "name"),
        ("--unset A=B", "name"),
        ("--timeout 0", "seconds"),
        ("--timeout soon", "positive number"),
        ("--timeout=-1", "seconds"),
        ("--tty --pass-fds", "--pass-fds"),
        ("--pass-fds --merge-stderr", "--merge-stderr"),
        ("--format json", "--status"),
        ("--status --format xml", "xml"),
        ("-C=", "DIRECTORY"),
    ];
    for (options, word) in cases {
        let (stdout, message, code) = output(&daemon, options, "exit 0");
        assert_eq!((stdout.as_str(), code), ("", Some(100)), "{options}: {message}");
        assert!(message.contains(word), "{options}: no {word:?} in {message}");
    }
}

/// A question stands alone. Every other option is refused, and the message names both.
#[test]
fn a_question_stands_alone() {
    let daemon = Daemon::start("");
    let refuse = |arguments: &[&str], words: [&str; 2]| {
        let mut command = bare(&daemon);
        command.args(arguments).arg(daemon.socket());
        let output = run(command);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(100), ""), "{arguments:?}");
        for word in words {
            assert!(text(&output.stderr).contains(word), "no {word:?} in {}", text(&output.stderr));
        }
    };
    for (question, beside) in [("--status", "--format"), ("--ping", "none")] {
        let allowed = [question, beside, "--version", "--help"];
        for (flag, takes_value) in flags().into_iter().filter(|(flag, _)| !allowed.contains(&flag.as_str())) {
            let value = match flag.as_str() {
                "--format" => "=json",
                _ if takes_value => "=1",
                _ => "",
            };
            refuse(&[&format!("{flag}{value}"), question], [question, &flag]);
        }
        let output = run(with(&daemon, question, "exit 0"));
        assert_eq!(output.status.code(), Some(100), "{question} with a program");
    }
}

fn spawn(mut command: Command) -> Child {
    command.spawn().expect("the client starts")
}

fn kill(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    rustix::process::kill_process(pid, signal).expect("it lives");
}

/// Each signal ends the program, and the client ends the same way.
#[test]
fn signals_are_forwarded() {
    let daemon = Daemon::start("-t 0");
    for (n, signal) in
        [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2].into_iter().enumerate()
    {
        let mut life = daemon.fifo(&format!("life{n}"));
        let mut child = spawn(with(&daemon, "--usage", &format!("hold {} wait", life.path())));
        life.holder();
        kill(&child, signal);
        assert_eq!(wait(&mut child).signal(), Some(signal.as_raw()));
        life.wait_for_death();
    }
}

/// There is no program yet to get the signal: the daemon has no slot for it, or does not answer.
#[test]
fn signals_before_there_is_a_program() {
    let mut daemon = Daemon::start("-t 0 -m 1 --linger 0.1");
    let mut running = daemon.exec(&steps("out ready cat"));
    running.wait_for("ready");
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2] {
        let mut child = spawn(with(&daemon, "--usage", "out never"));
        eventually("the client blocks them", || blocks(&child, signal));
        kill(&child, signal);
        assert_eq!(wait(&mut child).signal(), Some(signal.as_raw()));
    }
    running.end_stdin();
    assert_eq!(running.reply().code(), 0);
    daemon.assert_serves();
}

/// Whether a process blocks a signal (proc(5), `SigBlk`).
fn blocks(child: &Child, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it lives");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("a line");
    u64::from_str_radix(mask.trim(), 16).expect("a mask") & (1 << (signal.as_raw() - 1)) != 0
}

/// With too few descriptors either nothing starts, or all goes well. The client used to make the
/// last descriptor after the request, so the program ran for nobody.
#[test]
fn too_few_descriptors() {
    let daemon = Daemon::start("-t 0");
    let mut succeeded = 0;
    for limit in 3..24 {
        let position = daemon.log_position();
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_sockexec-client")]);
        shell.arg("--usage").arg(daemon.socket()).args(steps("out ran"));
        let output = run({
            shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            shell
        });
        if output.status.success() {
            assert_eq!(text(&output.stdout), "ran");
            succeeded += 1;
        } else {
            // The daemon may not have read the request yet. It serves the question, which comes
            // later, after that.
            eventually("the end of the connection", || status(&daemon)["connections"].as_array().unwrap().len() == 1);
            let log = daemon.whole_log().split_off(position);
            assert!(!log.contains("started pid"), "{limit}: {}", text(&output.stderr));
        }
    }
    assert!((1..21).contains(&succeeded), "{succeeded}");
}

/// `nohup`: signals that the starter ignores are not forwarded either.
#[test]
fn ignored_signals_stay_ignored() {
    let daemon = Daemon::start("-t 0");
    let mut life = daemon.fifo("life");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_sockexec-client"), "--usage"]);
    shell.arg(daemon.socket()).args(steps(&format!("hold {} wait", life.path())));
    let mut child = spawn({
        shell.stdin(Stdio::null());
        shell
    });
    life.holder();
    kill(&child, Signal::HUP);
    kill(&child, Signal::TERM);
    // Without that, both would be forwarded in this order.
    assert_eq!(wait(&mut child).signal(), Some(Signal::TERM.as_raw()));
}

#[test]
fn a_silent_daemon_is_given_up() {
    for (options, words) in [(&["-n", "--usage"][..], "version 2"), (&["--status"], "the daemon has read the request")]
    {
        let fake = Fake::new(|mut peer| {
            peer.until(b"10:protocol=2,");
            peer.read_to_the_end();
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_sockexec-client"));
        command.args(options).arg(fake.socket());
        if options != ["--status"] {
            command.arg("true");
        }
        assert_lost(&run(command), &fake.socket(), words);
        fake.join();
    }
}

#[test]
fn a_status_for_people_and_for_programs() {
    let daemon = Daemon::start("-t 0");
    let mut running = daemon.exec(&steps("out ready wait"));
    running.wait_for("ready");
    let ask = |options: &[&str]| {
        let mut command = bare(&daemon);
        command.args(options).arg(daemon.socket());
        let output = run(command);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).to_owned()
    };
    let table = ask(&["--status"]);
    for word in ["running 1,", "NUMBER", "ready wait"] {
        assert!(table.contains(word), "no {word:?} in {table}");
    }
    let json: serde_json::Value = serde_json::from_str(&ask(&["--status", "--format", "json"])).expect("JSON");
    assert_eq!(json["totals"]["running"], 1);
}

/// The program has the size of our terminal and its changes, and gets every key. Afterwards our
/// terminal is as before.
#[test]
fn the_programs_terminal_is_like_our_own() {
    let daemon = Daemon::start("-t 0");
    let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&main).expect("a terminal");
    unlockpt(&main).expect("a terminal");
    let size = |columns, rows| Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&main, size(132, 50)).expect("a size");
    let name = ptsname(&main, Vec::new()).expect("a name").into_string().expect("a name");
    let open = || std::fs::File::options().read(true).write(true).open(&name).expect("a terminal");
    let terminal = open();
    let modes = || tcgetattr(&terminal).expect("modes").local_modes & (LocalModes::ICANON | LocalModes::ECHO);
    let before = modes();
    assert!(before.contains(LocalModes::ICANON));
    let mut command = bare(&daemon);
    command.arg("-t").arg(daemon.socket());
    // `exec`: a shell may swallow ^C between the start of a child and its exec.
    let resized = "until test \"$(stty size)\" = '25 80'; do sleep 0.01; done; echo resized";
    command.args(["sh", "-c", &format!("stty -echo; stty size; {resized}; read x; echo got $x; exec sleep 100")]);
    command.stdin(open()).stdout(open());
    let mut child = spawn(command);
    let mut main = std::fs::File::from(main);
    let mut keys = main.try_clone().expect("a terminal");
    let mut seen = String::new();
    let mut expect = |word: &str| {
        while !seen.contains(word) {
            let mut bytes = [0; 100];
            let n = main.read(&mut bytes).expect("the terminal says something");
            seen.push_str(text(&bytes[..n]));
        }
        seen.clear();
    };
    // Our own terminal does not convert the program's `\r\n` again.
    expect("50 132\r\n");
    eventually("raw mode", || modes().is_empty());
    tcsetwinsize(&terminal, size(80, 25)).expect("a size");
    // The terminal does not control the client, so the kernel sends no signal.
    kill(&child, Signal::WINCH);
    expect("resized\r\n");
    keys.write_all(b"word\n").expect("keys");
    expect("got word\r\n");
    // ^C is a key for the program, and does not end the client.
    keys.write_all(b"\x03").expect("keys");
    assert_eq!(wait(&mut child).signal(), Some(Signal::INT.as_raw()));
    assert_eq!(modes(), before);
}

//! `-t`: our own terminal and the program's, seen from the keyboard.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, OutputModes, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize,
};

use super::fake::{EXIT, Fake, INTRODUCTION, STARTED};
use super::terminals::terminal;
use super::{bare, run, text, wait};
use crate::common::{Daemon, PATIENCE, Process, eventually, fixture, steps};

/// The introduction of a daemon with these options.
fn introduction(options: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let words = format!("2 window=65536 options={options}");
    sockexec_proto::reply::encode_pair("protocol", words.as_bytes(), &mut bytes);
    bytes
}

/// A person at a terminal.
pub(super) struct Person {
    master: File,
    terminal: File,
    seen: String,
}

impl Person {
    pub(super) fn new() -> Self {
        let (master, terminal) = terminal();
        Self { master, terminal, seen: String::new() }
    }

    /// `options` come before SOCKET.
    fn client(&self, daemon: &Daemon, options: &str) -> Command {
        let mut command = bare(daemon);
        command.args(options.split_whitespace()).arg(daemon.socket());
        self.sit_at(&mut command);
        command
    }

    pub(super) fn sit_at(&self, command: &mut Command) {
        let terminal = || self.terminal.try_clone().expect("a terminal");
        command.stdin(terminal()).stdout(terminal()).stderr(terminal());
    }

    fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("a keyboard");
    }

    /// Waits until the terminal shows this. Returns what it showed before.
    #[track_caller]
    pub(super) fn sees(&mut self, words: &str) -> String {
        loop {
            if let Some(at) = self.seen.find(words) {
                let before = self.seen[..at].to_owned();
                self.seen.drain(..at + words.len());
                return before;
            }
            let mut bytes = [0; 1000];
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            let timeout = Timespec::try_from(PATIENCE).expect("a time");
            let n = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout))).expect("poll");
            assert_eq!(n, 1, "never shown: {words:?}, but {:?}", self.seen);
            let n = self.master.read(&mut bytes).expect("the terminal shows something");
            self.seen.push_str(text(&bytes[..n]));
        }
    }

    /// Fills the terminal, so that nothing more is shown until somebody reads. poll(2) cannot tell:
    /// it reports a terminal as full while somebody writes.
    fn fill(&self) {
        let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits().cast_signed();
        // A separate open file, so that the client's stays as it is.
        let path = format!("/proc/self/fd/{}", self.terminal.as_raw_fd());
        let mut terminal = File::options().write(true).custom_flags(flags).open(path).expect("a terminal");
        while terminal.write(b"x").is_ok() {}
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.terminal).expect("modes")
    }

    fn is_raw(&self) -> bool {
        !self.modes().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    fn set_modes(&self, modes: &Termios) {
        tcsetattr(&self.terminal, OptionalActions::Now, modes).expect("modes");
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.terminal, size).expect("a size");
    }
}

#[track_caller]
fn kill(child: &Child, signal: Signal) {
    rustix::process::kill_process(Pid::from_child(child), signal).expect("it lives");
}

/// Without it `clear` and every editor failed.
#[test]
fn the_program_learns_the_kind_of_the_terminal() {
    let daemon = Daemon::start("");
    let cases = [
        ("-t", "strange"),
        ("-t --clear-env", "strange"),
        ("-t -e TERM=mine", "mine"),
        ("-t --clear-env -e TERM=mine", "mine"),
        ("-t --clear-env --unset TERM", ""),
    ];
    for (options, expected) in cases {
        let mut person = Person::new();
        let mut command = person.client(&daemon, options);
        command.env("TERM", "strange").args(["/bin/sh", "-c", "echo \"<$(/usr/bin/env | grep ^TERM=)>\""]);
        let mut child = command.spawn().expect("the client starts");
        let shown = person.sees("\r\n");
        let expected = if expected.is_empty() { "<>".to_owned() } else { format!("<TERM={expected}>") };
        // dash as sh sets no variables of its own.
        assert_eq!(shown, expected, "{options}");
        assert!(wait(&mut child).success());
    }
}

/// Backspace used to take one byte of an `ä` from the line.
#[test]
fn backspace_takes_characters_of_two_bytes() {
    let daemon = Daemon::start("");
    for (utf8, expected) in [(true, "iutf8\r\n"), (false, "-iutf8\r\n")] {
        let mut person = Person::new();
        let mut modes = person.modes();
        modes.input_modes.set(InputModes::IUTF8, utf8);
        person.set_modes(&modes);
        let mut command = person.client(&daemon, "-t");
        command.args(["sh", "-c", "stty -a | grep -o -e '-*iutf8'"]);
        let mut child = command.spawn().expect("the client starts");
        assert_eq!(person.sees(expected), "");
        assert!(wait(&mut child).success());
    }
}

/// The client sends an option only to a daemon that allows it.
#[test]
fn only_allowed_options_are_sent() {
    let cases = [
        ("pty", &["pty=80x24"][..]),
        ("env,pty", &["env=TERM=strange", "pty=80x24"]),
        ("pty,utf8", &["pty=80x24", "utf8"]),
        ("env,pty,utf8", &["env=TERM=strange", "pty=80x24", "utf8"]),
    ];
    for (allowed, expected) in cases {
        let person = Person::new();
        let mut modes = person.modes();
        modes.input_modes |= InputModes::IUTF8;
        person.set_modes(&modes);
        person.resize(80, 24);
        let (sent, options) = mpsc::channel();
        let fake = Fake::new(move |mut peer| {
            peer.until(b"10:protocol=2,");
            peer.say(&introduction(allowed));
            sent.send(peer.options()).expect("the test waits");
            peer.say(&[STARTED, EXIT].concat());
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_sockexec-client"));
        command.arg("-t").arg(fake.socket()).arg("program").env("TERM", "strange");
        person.sit_at(&mut command);
        assert!(wait(&mut command.spawn().expect("the client starts")).success());
        fake.join();
        assert_eq!(options.recv().expect("a request"), expected);
    }
}

/// Only a terminal sends keys. Of 10,001 bytes from a pipe 4,096 arrived, and a `^C` among them
/// killed the program.
#[test]
fn without_a_terminal_it_is_refused() {
    let daemon = Daemon::start("");
    let with = |options: &str| {
        let mut command = bare(&daemon);
        command.args(options.split_whitespace()).arg(daemon.socket()).args(steps("out ran"));
        run(command)
    };
    for options in ["-t", "--tty", "-t --usage"] {
        let output = with(options);
        assert_eq!((text(&output.stdout), output.status.code()), ("", Some(100)), "{options}");
        for word in ["-tt", "-n", "terminal"] {
            assert!(text(&output.stderr).contains(word), "no {word:?} in {}", text(&output.stderr));
        }
    }
    for options in ["-tt", "-t -t", "--tty --tty", "-n -t", "-nt", "-ttn", "-ttt"] {
        let output = with(options);
        assert_eq!((text(&output.stdout), output.status.code()), ("ran", Some(0)), "{options}: {output:?}");
    }
}

/// `-tt`: bytes are keys. The end of input ends the line that is edited.
#[test]
fn bytes_may_be_keys() {
    let daemon = Daemon::start("");
    let mut command = bare(&daemon);
    command.arg("-tt").arg(daemon.socket()).args(["sh", "-c", "stty -echo; echo up; cat"]).stdin(Stdio::piped());
    let mut child = command.spawn().expect("the client starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut up = [0; 4];
    stdout.read_exact(&mut up).expect("the program is there");
    // No escapes, because nobody types.
    child.stdin.take().expect("a pipe").write_all(b"~.one\n~.two\n").expect("it reads");
    let mut shown = String::new();
    stdout.read_to_string(&mut shown).expect("text");
    assert_eq!((&up, shown.as_str()), (b"up\r\n", "~.one\r\n~.two\r\n"));
    assert!(wait(&mut child).success());
}

/// Output used to come before raw mode, and was shown with `\r\r\n`. So the daemon learns of a
/// program only after raw mode is set.
#[test]
fn raw_mode_comes_before_the_request() {
    let person = Person::new();
    let before = person.modes();
    let watched = person.terminal.try_clone().expect("a terminal");
    let fake = Fake::new(move |mut peer| {
        peer.until(b"10:protocol=2,");
        let modes = tcgetattr(&watched).expect("modes");
        assert!(!modes.output_modes.contains(OutputModes::OPOST), "{modes:?}");
        // Nobody else could handle ^C yet.
        assert!(modes.local_modes.contains(LocalModes::ISIG), "{modes:?}");
        peer.say(&introduction("pty"));
        peer.options();
        peer.say(&[STARTED, EXIT].concat());
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockexec-client"));
    command.arg("-t").arg(fake.socket()).arg("program").env("TERM", "strange");
    person.sit_at(&mut command);
    assert!(wait(&mut command.spawn().expect("the client starts")).success());
    fake.join();
    assert_eq!(format!("{:?}", person.modes()), format!("{before:?}"));
}

/// `^C` ends a client that waits for the daemon, and restores the terminal.
#[test]
fn an_interrupt_before_the_start_restores_the_terminal() {
    let mut person = Person::new();
    let before = format!("{:?}", person.modes());
    let (asked, was_asked) = mpsc::channel();
    let fake = Fake::new(move |mut peer| {
        peer.until(b"10:protocol=2,");
        peer.say(INTRODUCTION);
        // The client has read that, so its end is no reset.
        peer.options();
        asked.send(()).expect("the test waits");
        peer.wait_for_the_end();
    });
    // The terminal controls the client.
    let mut command = Command::new(fixture());
    command
        .args(["setsid", "ctty", "exec", env!("CARGO_BIN_EXE_sockexec-client"), "-t"])
        .arg(fake.socket())
        .arg("program")
        .env("TERM", "strange");
    person.sit_at(&mut command);
    let mut child = command.spawn().expect("the client starts");
    was_asked.recv().expect("a request");
    person.types("\x03");
    assert_eq!(wait(&mut child).signal(), Some(Signal::INT.as_raw()));
    fake.join();
    assert_eq!(format!("{:?}", person.modes()), before);
}

/// `~.` ends the client although the program reads no keys. The other escapes work too.
#[test]
fn escapes_work() {
    let daemon = Daemon::start("-t 0 -k 0.1");
    let mut person = Person::new();
    let before = format!("{:?}", person.modes());
    let mut life = daemon.fifo("life");
    let mut command = person.client(&daemon, "-t");
    command.args(steps(&format!("ignore HUP INT TERM ; hold {} out up read 9 out got9; wait", life.path())));
    let mut child = command.spawn().expect("the client starts");
    person.sees("up");
    person.types("~~.a~.b\r");
    // The program's terminal echoes the program's keys.
    person.sees("~.a~.b\r\n");
    person.types("~?");
    person.sees("~^Z");
    assert!(life.is_held());
    // Within the line that is edited.
    person.types("~x\r");
    person.sees("~x");
    person.sees("got9");
    person.types("~.");
    person.sees("~.");
    assert_eq!(wait(&mut child).code(), Some(111));
    life.wait_for_death();
    person.sees("the connection was closed to end the program");
    assert_eq!(format!("{:?}", person.modes()), before);
}

/// `~.` at a terminal that takes no more output, such as a connection that hangs. The echo used to
/// wait for room, and the program went on.
#[test]
fn an_escape_ends_a_client_whose_terminal_is_stuck() {
    let daemon = Daemon::start("-t 0 -k 0.1");
    let mut person = Person::new();
    let mut life = daemon.fifo("life");
    let mut command = person.client(&daemon, "-t");
    command.args(steps(&format!("hold {} out up wait", life.path())));
    let mut child = command.spawn().expect("the client starts");
    person.sees("up");
    person.fill();
    person.types("~.");
    life.wait_for_death();
    // The client prints its message, and ends once that is read.
    person.sees("the connection was closed to end the program");
    assert_eq!(wait(&mut child).code(), Some(111));
}

/// Starts the client as a shell starts a job: in a group of its own, with a parent that could
/// continue it.
fn job(command: &mut Command) -> Child {
    command.process_group(0).spawn().expect("the client starts")
}

const RESIZED: &str = "stty -echo; echo up; until test \"$(stty size)\" = '25 81'; do sleep 0.01; done; echo resized; read x; echo got $x";

/// `kill -STOP` and `fg`, `kill -TSTP`, `~^Z`: raw mode and the size are set again, and TSTP leaves
/// the terminal as it was.
#[test]
fn stopped_and_continued() {
    let daemon = Daemon::start("-t 0");
    for way in ["STOP", "TSTP", "~^Z"] {
        let mut person = Person::new();
        person.resize(80, 24);
        let before = person.modes();
        let mut child = job(person.client(&daemon, "-t").args(["sh", "-c", RESIZED]));
        person.sees("up\r\n");
        eventually("raw mode", || person.is_raw());
        match way {
            "STOP" => kill(&child, Signal::STOP),
            "TSTP" => kill(&child, Signal::TSTP),
            _ => person.types("~\x1a"),
        }
        eventually("the client stops", || Process::of(&child).is_stopped());
        if way == "STOP" {
            // As a shell does.
            person.set_modes(&before);
        }
        assert_eq!(format!("{:?}", person.modes()), format!("{before:?}"), "{way}");
        person.resize(81, 25);
        kill(&child, Signal::CONT);
        person.sees("resized\r\n");
        eventually("raw mode", || person.is_raw());
        person.types("word\n");
        person.sees("got word\r\n");
        assert!(wait(&mut child).success());
        assert_eq!(format!("{:?}", person.modes()), format!("{before:?}"), "{way}");
    }
}

/// `-n`: no keys are forwarded, so the terminal stays as it is. In raw mode `^C` would have no
/// effect.
#[test]
fn without_input_keys_stay_here() {
    let daemon = Daemon::start("-t 0");
    let mut person = Person::new();
    let before = person.modes();
    let mut life = daemon.fifo("life");
    let mut command = Command::new(fixture());
    command.args(["setsid", "ctty", "exec", env!("CARGO_BIN_EXE_sockexec-client"), "-nt"]).arg(daemon.socket());
    command.args(steps(&format!("hold {} out up wait", life.path()))).current_dir(daemon.directory());
    person.sit_at(&mut command);
    let mut child = command.spawn().expect("the client starts");
    person.sees("up");
    let modes = person.modes();
    assert_eq!(modes.local_modes, before.local_modes);
    assert!(!modes.output_modes.contains(OutputModes::OPOST));
    eventually("a client that waits for its program", || Process::of(&child).is_asleep());
    person.types("\x03");
    assert_eq!(wait(&mut child).signal(), Some(Signal::INT.as_raw()));
    life.wait_for_death();
}

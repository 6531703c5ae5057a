//! `sockexec-top` from outside, with a real daemon: printed, and on a terminal.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "tests, and what they share")]

mod common;

use std::env;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::Instant;

use common::{PATIENCE, Running, bare, complains, eventually, run};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use sockexec::{Stdio, Version};
use sockexec_tools::screen::Screen;

const TOP: &str = env!("CARGO_BIN_EXE_sockexec-top");

/// The table as `--once` prints it.
#[track_caller]
fn once(daemon: &Running, options: &[&str]) -> String {
    let mut command = bare(TOP);
    command.arg("--once").args(options).arg(daemon.socket());
    let (code, stdout, stderr) = run(command);
    assert_eq!((code, stderr.as_str()), (0, ""));
    stdout
}

/// The words of the row whose arguments end like this.
fn row(table: &str, end: &str) -> Option<Vec<String>> {
    let line = table.lines().find(|line| line.ends_with(end))?;
    Some(line.split_whitespace().map(str::to_owned).collect())
}

/// The user who runs the tests.
fn me() -> String {
    let output = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
}

/// Runs `cat`, and returns when it has echoed 3000 bytes.
fn cat(daemon: &Running, argument: &str) -> sockexec::Child {
    let mut cat = daemon.command("sh");
    // Version 2 has the number of the process.
    cat.version(Version::Two);
    cat.args(["-c", "cat", argument]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut cat = cat.spawn().expect("it starts");
    cat.stdin.as_mut().unwrap().write_all(&[b'x'; 3000]).unwrap();
    cat.stdout.as_mut().unwrap().read_exact(&mut [0; 3000]).unwrap();
    cat
}

#[test]
fn printed_once() {
    let daemon = Running::start();
    let cat = cat(&daemon, "a \u{1b}[31m");
    let table = once(&daemon, &[]);
    let heads: Vec<&str> = table.lines().nth(3).unwrap().split_whitespace().collect();
    assert_eq!(heads, ["PID", "USER", "AGE", "CPU%↓", "MEM", "IN", "OUT", "STATE", "ARGUMENTS"]);
    assert!(table.starts_with(&format!("sockexec {}, up ", env!("CARGO_PKG_VERSION"))), "{table}");
    assert!(table.contains("; 1 running, 0 waiting, 1 of "), "{table}");
    let row = row(&table, "sh -c cat a \\u{1b}[31m").unwrap_or_else(|| panic!("{table}"));
    let user: String = me().chars().take(8).collect();
    assert_eq!((row[0].as_str(), row[1].as_str()), (cat.id().unwrap().to_string().as_str(), user.as_str()), "{table}");
    assert!(row[2].ends_with('s'), "{table}");
    // The 3000 bytes, and a few of the protocol.
    assert!(row[5].starts_with("3.") && row[6].starts_with("3."), "{table}");
    assert_eq!(row[7..9], ["output", "or"], "{table}");
    if cfg!(target_os = "linux") {
        assert!(row[3].parse::<f64>().is_ok(), "CPU of a program of our own: {table}");
        assert_ne!(row[4], "-", "memory of a program of our own: {table}");
    }
    // The connection that asks has no row.
    assert_eq!(table.lines().count(), 5, "{table}");
    drop(cat);
    eventually("an empty table", || once(&daemon, &[]).lines().count() == 4);
}

/// The work of the program's child counts.
#[cfg(target_os = "linux")]
#[test]
fn processor_time_of_the_group() {
    let daemon = Running::start();
    let mut busy = daemon.command("sh");
    busy.args(["-c", "(while :; do :; done); :", "busy"]).stdin(Stdio::null()).stdout(Stdio::null());
    let _busy = busy.spawn().unwrap();
    let mut idle = daemon.command("sh");
    let _idle = idle.args(["-c", "read line", "idle"]).stdin(Stdio::piped()).spawn().unwrap();
    let cpu = |table: &str, end: &str| row(table, end).and_then(|row| row[3].parse::<f64>().ok());
    let last = |table: &str| table.lines().last().unwrap().split_whitespace().last().unwrap().to_owned();
    // The start of a program costs time too: for a moment the idle one may be the busier.
    eventually("work", || {
        let table = once(&daemon, &[]);
        cpu(&table, "busy").is_some_and(|percent| percent > 1.0) && last(&table) == "idle"
    });
    eventually("the reverse", || last(&once(&daemon, &["--reverse"])) == "busy");
    assert_eq!(last(&once(&daemon, &["--sort", "name"])), "idle");
}

#[test]
fn the_width_of_what_is_printed() {
    let daemon = Running::start();
    let long = "x".repeat(200);
    let _cat = cat(&daemon, &long);
    assert!(once(&daemon, &[]).lines().any(|line| line.ends_with(&long)));
    let mut command = bare(TOP);
    command.args(["--once"]).arg(daemon.socket()).env("COLUMNS", "80");
    let (_, table, _) = run(command);
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(table.lines().any(|line| line.contains(" sh -c cat xx") && line.ends_with('…')), "{table}");
}

#[test]
fn wrong_arguments() {
    complains(TOP, &[], 100, "SOCKET");
    complains(TOP, &[""], 100, "SOCKET is empty");
    complains(TOP, &["-"], 100, "SOCKEXEC_SOCKET is not set");
    complains(TOP, &["a", "b"], 100, "unexpected argument 'b'");
    complains(TOP, &["--interval", "0", "a"], 100, "must be a number of seconds from 0.1 to 3600");
    complains(TOP, &["--sort", "colour", "a"], 100, "colour");
    complains(TOP, &["a"], 100, "--once prints the table without one");
    complains(TOP, &["--once", "/nowhere/sock"], 111, "/nowhere/sock: No such file or directory");
    let mut command = bare(TOP);
    command.arg("--version");
    assert_eq!(run(command), (0, format!("sockexec-top version: {}\n", env!("CARGO_PKG_VERSION")), String::new()));
}

/// A person at a terminal of 80 columns, and what the screen shows.
struct Person {
    master: File,
    terminal: File,
    screen: vt100::Parser,
}

impl Person {
    fn new() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).expect("a terminal");
        rustix::pty::grantpt(&master).expect("a terminal");
        rustix::pty::unlockpt(&master).expect("a terminal");
        let name = rustix::pty::ptsname(&master, Vec::new()).expect("a name").into_string().expect("UTF-8");
        // It must not become the controlling terminal of this process.
        let flags = OFlags::NOCTTY.bits().cast_signed();
        let terminal = File::options().read(true).write(true).custom_flags(flags).open(name).expect("a terminal");
        let person = Self { master: master.into(), terminal, screen: vt100::Parser::new(24, 80, 0) };
        person.resize(80, 24);
        person
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.terminal, size).expect("a size");
    }

    fn starts(&self, command: &mut Command) -> Child {
        let terminal = || self.terminal.try_clone().expect("a terminal");
        command.stdin(terminal()).stdout(terminal()).stderr(terminal()).spawn().expect("it starts")
    }

    fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("a keyboard");
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.terminal).expect("modes")
    }

    fn is_raw(&self) -> bool {
        !self.modes().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// The lines of the screen.
    fn lines(&self) -> Vec<String> {
        self.screen.screen().rows(0, 80).map(|line| line.trim_end().to_owned()).collect()
    }

    /// Waits until the screen shows this.
    #[track_caller]
    fn sees(&mut self, what: &str, mut shown: impl FnMut(&[String]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !shown(&self.lines()) {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).unwrap();
            let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
            let n = rustix::io::retry_on_intr(|| poll(&mut ready, Some(&left))).expect("poll");
            assert_eq!(n, 1, "never shown: {what}, but {:#?}", self.lines());
            let mut bytes = [0; 4096];
            let n = self.master.read(&mut bytes).expect("the terminal shows something");
            self.screen.process(&bytes[..n]);
        }
    }

    /// Waits for its end, after which everything that it wrote can be read.
    #[track_caller]
    fn sees_end(&mut self, child: &mut Child) -> ExitStatus {
        let mut status = None;
        eventually("its end", || {
            status = child.try_wait().expect("a child");
            status.is_some()
        });
        self.sees("the usual screen", |_| true);
        loop {
            let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
            if poll(&mut ready, Some(&Timespec::default())).expect("poll") == 0 {
                return status.unwrap();
            }
            let mut bytes = [0; 4096];
            let n = self.master.read(&mut bytes).expect("the rest");
            self.screen.process(&bytes[..n]);
        }
    }

    /// The terminal is as it was.
    #[track_caller]
    fn assert_restored(&self, before: &Termios) {
        let now = self.modes();
        assert_eq!(
            (now.local_modes, now.input_modes, now.output_modes),
            (before.local_modes, before.input_modes, before.output_modes)
        );
        let screen = self.screen.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor(), "{:#?}", self.lines());
    }
}

fn has(lines: &[String], words: &str) -> bool {
    lines.iter().any(|line| line.contains(words))
}

/// The number of the line that has these words.
fn place(lines: &[String], words: &str) -> Option<usize> {
    lines.iter().position(|line| line.contains(words))
}

fn top(daemon: &Running) -> Command {
    let mut command = bare(TOP);
    command.args(["--interval", "0.1"]).arg(daemon.socket());
    command
}

#[test]
fn drawn_sorted_and_left() {
    let daemon = Running::start();
    let _first = cat(&daemon, "aaa");
    let _second = cat(&daemon, "bbb");
    let mut person = Person::new();
    let before = person.modes();
    let mut child = person.starts(&mut top(&daemon));
    person.sees("both programs", |lines| has(lines, "cat aaa") && has(lines, "cat bbb"));
    assert!(person.is_raw() && person.screen.screen().alternate_screen() && person.screen.screen().hide_cursor());
    let lines = person.lines();
    assert!(lines[0].contains("; 2 running, "), "{lines:#?}");
    assert!(lines[3].contains("CPU%↓") && lines[3].ends_with("ARGUMENTS"), "{lines:#?}");
    // It is drawn last, and may come in another piece.
    person.sees("the keys", |lines| lines[23].starts_with("q quit  ? help"));
    person.types("n");
    person.sees("a, then b", |lines| has(lines, "ARGUMENTS↑") && place(lines, "cat aaa") < place(lines, "cat bbb"));
    person.types("r");
    person.sees("b, then a", |lines| has(lines, "ARGUMENTS↓") && place(lines, "cat aaa") > place(lines, "cat bbb"));
    person.types("?");
    person.sees("the help", |lines| has(lines, "Sort by a column:") && !has(lines, "cat aaa"));
    person.types("?");
    person.sees("no help", |lines| !has(lines, "Sort by a column:") && has(lines, "cat aaa"));
    // A new program is shown without a key.
    let third = cat(&daemon, "ccc");
    person.sees("the third", |lines| has(lines, "cat ccc"));
    drop(third);
    person.sees("that it has ended", |lines| !has(lines, "cat ccc"));
    person.types("q");
    assert_eq!(person.sees_end(&mut child).code(), Some(0));
    person.assert_restored(&before);
}

#[test]
fn the_size_changes() {
    let daemon = Running::start();
    let _cat = cat(&daemon, "aaa");
    let mut person = Person::new();
    let mut child = person.starts(bare(TOP).args(["--interval", "3600"]).arg(daemon.socket()));
    person.sees("the program", |lines| has(lines, "cat aaa"));
    person.resize(80, 10);
    // It is not the controlling terminal of `sockexec-top`, so the kernel sends no WINCH.
    kill_process(Pid::from_child(&child), Signal::WINCH).unwrap();
    person.sees("the last line", |lines| lines[9].starts_with("q quit"));
    person.types("\x03");
    assert_eq!(person.sees_end(&mut child).code(), Some(0));
}

#[test]
fn signals_that_end_it() {
    let daemon = Running::start();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut person = Person::new();
        let before = person.modes();
        let mut child = person.starts(&mut top(&daemon));
        person.sees("the table", |lines| has(lines, "ARGUMENTS"));
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(person.sees_end(&mut child).signal(), Some(signal.as_raw()));
        person.assert_restored(&before);
    }
}

/// It waits in write(2) for a terminal that takes no more. Only KILL used to end it there.
#[test]
fn signals_end_it_while_the_terminal_takes_nothing() {
    let daemon = Running::start();
    let mut person = Person::new();
    let before = person.modes();
    let mut child = person.starts(&mut top(&daemon));
    person.sees("the table", |lines| has(lines, "ARGUMENTS"));
    // Nobody reads from here on. ^L makes it draw everything again.
    let (mut last, mut same) = (0, 0);
    eventually("a full terminal", || {
        person.types("\x0c");
        let now = rustix::io::ioctl_fionread(&person.master).expect("a terminal");
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same > 50
    });
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut status = None;
    eventually("its end", || {
        status = child.try_wait().expect("a child");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.signal()), Some(Signal::TERM.as_raw()));
    assert_eq!(person.modes().local_modes, before.local_modes);
}

/// A shell sets its own modes while `sockexec-top` is stopped.
#[test]
fn stopped_and_continued() {
    let daemon = Running::start();
    let mut person = Person::new();
    let before = person.modes();
    let mut child = person.starts(&mut top(&daemon));
    person.sees("the table", |lines| has(lines, "ARGUMENTS"));
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    let stopped = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::UNTRACED)).unwrap();
    assert!(stopped.is_some_and(|(_, status)| status.stopped()));
    tcsetattr(&person.terminal, OptionalActions::Now, &before).unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    eventually("raw mode", || person.is_raw());
    // It redraws everything, also what has not changed; and again after ^L.
    for key in ["\x0c", "q"] {
        person.screen.process(b"\x1b[2J");
        assert!(!has(&person.lines(), "ARGUMENTS"));
        person.sees("the table again", |lines| has(lines, "ARGUMENTS"));
        person.types(key);
    }
    assert_eq!(person.sees_end(&mut child).code(), Some(0));
    person.assert_restored(&before);
}

#[test]
fn a_daemon_that_goes_away() {
    let mut daemon = Running::start();
    let first = cat(&daemon, "aaa");
    let mut person = Person::new();
    let before = person.modes();
    let mut child = person.starts(&mut top(&daemon));
    person.sees("the program", |lines| has(lines, "cat aaa"));
    daemon.end();
    drop(first);
    person.sees("that it is gone", |lines| has(lines, "no answer for ") && !has(lines, "cat aaa"));
    daemon.begin();
    let _second = cat(&daemon, "bbb");
    person.sees("the next one's", |lines| has(lines, "cat bbb") && !has(lines, "no answer for "));
    person.types("q");
    assert_eq!(person.sees_end(&mut child).code(), Some(0));
    person.assert_restored(&before);
}

/// A daemon that accepts and stays silent: keys work meanwhile.
#[test]
fn a_daemon_that_is_silent() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut person = Person::new();
    let mut child = person.starts(bare(TOP).arg(&socket));
    // On a slow machine the missing answer may already be reported.
    person.sees("whom it asks", |lines| lines[2].starts_with("asking /") || lines[2].starts_with("no answer for "));
    person.types("u");
    person.sees("the order", |lines| has(lines, "USER↑"));
    person.sees("the reason", |lines| lines[2].starts_with("no answer for "));
    person.types("q");
    assert_eq!(person.sees_end(&mut child).code(), Some(0));
}

/// In a release build a panic drops nothing. This test runs itself in a process at a terminal, and panics there.
#[test]
fn a_panic() {
    const INSIDE: &str = "SOCKEXEC_TEST_PANICS";
    if env::var_os(INSIDE).is_some() {
        let screen = Screen::new().unwrap();
        std::mem::forget(screen);
        panic!("on purpose");
    }
    let mut person = Person::new();
    let before = person.modes();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "a_panic", "--nocapture"]).env(INSIDE, "1").env("RUST_BACKTRACE", "0");
    let mut child = person.starts(&mut command);
    assert!(!person.sees_end(&mut child).success());
    person.assert_restored(&before);
    assert!(has(&person.lines(), "on purpose"), "on the usual screen: {:#?}", person.lines());
}

#[test]
fn terminals_that_will_not_do() {
    let mut person = Person::new();
    let before = person.modes();
    let mut child = person.starts(bare(TOP).arg("/nowhere").env("TERM", "dumb"));
    assert_eq!(person.sees_end(&mut child).code(), Some(100));
    assert!(has(&person.lines(), "TERM is dumb"), "{:#?}", person.lines());
    person.resize(0, 0);
    let mut child = person.starts(bare(TOP).arg("/nowhere"));
    assert_eq!(person.sees_end(&mut child).code(), Some(111));
    assert!(has(&person.lines(), "its size is unknown"), "{:#?}", person.lines());
    person.assert_restored(&before);
}

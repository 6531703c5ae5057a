//! Standard input that others share: what comes after the program's end is left to the next reader.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::fake::{Fake, INTRODUCTION, STARTED};
use super::wait;
use crate::common::{Process, eventually, fixture};

/// The end of a program and input come at the same time, so the client finds both. It used to read
/// the input first.
#[track_caller]
fn check(option: &str, opening: Vec<u8>, exit: &'static [u8]) {
    let (end, ends) = mpsc::channel();
    let (ended, has_ended) = mpsc::channel();
    let fake = Fake::new(move |mut peer| {
        peer.until(b"7:program,");
        peer.say(&[&opening, &b"6:stdout,5:ready,"[..]].concat());
        ends.recv().expect("the test goes on");
        peer.say(exit);
        ended.send(()).expect("the test waits");
        // Only time can show that nothing happens.
        assert!(peer.is_quiet(Duration::from_millis(500)), "input for nobody");
    });
    let (mut input, mut feeder) = std::io::pipe().expect("a pipe");
    let mut command = Command::new(fixture());
    command.args(["exec", env!("CARGO_BIN_EXE_sockexec-client"), option]).arg(fake.socket()).arg("program");
    command.stdin(input.try_clone().expect("a duplicate")).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the client starts");
    drop(command);
    let mut ready = [0; 5];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("the program is ready");
    let client = Process::of(&child);
    eventually("a client that waits", || client.is_all_asleep());
    let kill = |signal| rustix::process::kill_process(Pid::from_child(&child), signal).expect("it lives");
    kill(Signal::STOP);
    eventually("the client stops", || client.is_stopped());
    end.send(()).expect("the daemon waits");
    has_ended.recv().expect("the daemon has said it");
    feeder.write_all(b"the next reader's bytes").expect("room");
    kill(Signal::CONT);
    fake.join();
    assert!(wait(&mut child).success());
    drop(feeder);
    let mut rest = String::new();
    input.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "the next reader's bytes", "{option}");
}

#[test]
fn input_after_the_end_is_left_in_version_2() {
    let exits: [&[u8]; 2] = [
        b"6:stdout,0:,6:stderr,0:,8:exitcode,1:0,",
        b"6:stdout,0:,6:stderr,0:,5:usage,27:utime=0 stime=0 maxrss=3604,8:exitcode,1:0,",
    ];
    for exit in exits {
        check("--usage", [INTRODUCTION, STARTED].concat(), exit);
    }
}

#[test]
fn input_after_the_end_is_left_in_version_1() {
    check("--", Vec::new(), b"8:exitcode,1:0,");
}

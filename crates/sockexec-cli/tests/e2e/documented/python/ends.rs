//! How the client ends, and with which status.

use std::io::{Cursor, Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use super::{PythonClient, Running, tell};
use crate::common::{Daemon, Process, eventually, steps};

/// It does what the document says of it.
#[test]
fn a_program_runs_and_ends() {
    let Some(client) = PythonClient::new() else { return };
    let daemon = Daemon::start("");
    let run = |argv: &[&str], input: &str| {
        let mut running = client.start(&daemon, argv);
        let (_, writer) = running.feed(Cursor::new(input.to_owned()));
        let mut stdout = Vec::new();
        loop {
            let bytes = running.read(1 << 16);
            if bytes.is_empty() {
                break;
            }
            stdout.extend(bytes);
        }
        let (status, stderr) = running.end();
        let _ = writer.join().unwrap();
        (String::from_utf8(stdout).expect("text"), stderr, status)
    };
    assert_eq!(run(&["sh", "-c", "tr a-z A-Z; exit 3"], "word"), ("WORD".into(), String::new(), 3));
    assert_eq!(run(&["pwd"], ""), ("/usr\n".into(), String::new(), 0));
    assert_eq!(run(&["sh", "-c", "echo oops >&2; kill -9 $$"], ""), (String::new(), "oops\n".into(), 137));
    let refused = run(&["nope"], "");
    assert_eq!(refused, (String::new(), "not-found nope: No such file or directory\n".into(), 127));
    let big = "0123456789".repeat(500_000);
    assert_eq!(run(&["cat"], &big), (big, String::new(), 0));
}

/// Every reply has its exit status, while the client's own input stays open and silent.
#[test]
fn every_reply_has_its_status() {
    const INTRODUCTION: &str = "8:protocol,24:2 new window=65536 other,";
    let Some(client) = PythonClient::new() else { return };
    for (said, status) in [
        ("7:started,1:1,3:new,3:2:x,8:exitcode,1:7,", 7),
        ("7:started,1:1,5:usage,0:,7:termsig,2:15,", 143),
        // With an exit pair the client exits as the program did, but with 124 in place of 0.
        ("7:started,1:1,5:error,9:timeout x,8:exitcode,1:0,", 124),
        ("7:started,1:1,5:error,10:shutdown x,8:exitcode,1:0,", 124),
        ("7:started,1:1,5:error,14:output-limit x,8:exitcode,1:3,", 3),
        ("7:started,1:1,5:error,5:new x,7:termsig,1:9,", 137),
        ("5:error,11:not-found x,", 127),
        ("5:error,16:not-executable x,", 126),
        ("5:error,8:denied x,", 126),
        ("5:error,11:forbidden x,", 126),
        ("5:error,6:busy x,", 125),
        ("5:error,14:spawn-failed x,", 125),
        ("5:error,13:bad-request x,", 111),
        ("7:started,1:1,5:error,10:internal x,", 125),
        ("5:error,9:timeout x,", 124),
        ("5:error,10:shutdown x,", 125),
        ("5:error,5:new x,", 125),
        // The daemon is gone, perhaps in the middle of a pair.
        ("", 111),
        ("7:started,1:1,", 111),
        ("7:started,1:1,8:exitcode,", 111),
        ("7:started,1:1,8:exitcode,2:1", 111),
    ] {
        let (mut running, mut socket) = client.start_with_us(Stdio::piped());
        socket.get_mut().write_all([INTRODUCTION, said].concat().as_bytes()).unwrap();
        drop(socket);
        let (found, stderr) = running.end();
        assert_eq!((found, !stderr.is_empty()), (status, said.contains("error") || status == 111), "{said}: {stderr}");
    }
    // No introduction: nothing at all, version 1, or another protocol.
    for said in
        ["", "6:stderr,3:bad,8:exitcode,3:125,", "7:started,1:1,8:exitcode,1:0,", "HTTP/1.1 400 Bad Request\r\n"]
    {
        let (mut running, mut socket) = client.start_with_us(Stdio::piped());
        socket.get_mut().write_all(said.as_bytes()).unwrap();
        drop(socket);
        assert_eq!(running.end().0, 111, "{said}");
    }
    // A silent daemon, and no daemon.
    let (mut running, socket) = client.start_with_us(Stdio::piped());
    assert_eq!(running.end().0, 111);
    drop(socket);
    let mut command = client.command(Path::new("/nowhere/sock"), &["word"]);
    assert_eq!(Running(command.spawn().unwrap()).end().0, 111);
    // INT and TERM end the client while its program has not started.
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (mut running, mut socket) = client.start_with_us(Stdio::piped());
        tell(&mut socket, "protocol", "2 window=65536 options=");
        tell(&mut socket, "queued", "1");
        running.signal(signal);
        assert_eq!(running.end(), (status, String::new()));
        // The client sends nothing more. It has not read all that we sent, so the read may fail
        // with a reset.
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert_eq!(rest, b"");
    }
}

/// A program that ignores INT and TERM, or a daemon that is stopped, used to keep the client alive.
#[test]
fn a_second_signal_ends_the_client() {
    let Some(client) = PythonClient::new() else { return };
    for is_stopped in [false, true] {
        for (first, second, status) in [(Signal::INT, Signal::INT, 130), (Signal::TERM, Signal::INT, 130)] {
            let daemon = Daemon::start("-t 0 -k 0.1");
            let mut life = daemon.fifo("life");
            let argv = format!("ignore INT TERM ; hold {} out ready wait", life.path());
            let mut running = client.start(&daemon, &steps(&argv));
            running.wait_for("ready");
            if is_stopped {
                daemon.stop();
            }
            running.signal(first);
            if is_stopped {
                eventually("the signal was taken", || !Process::of(&running.0).has_pending(first));
            } else {
                daemon.wait_for_log(&format!("signal {} to the group", first.as_raw()));
                assert!(life.is_held());
            }
            running.signal(second);
            assert_eq!(running.end(), (status, String::new()));
            daemon.signal(Signal::CONT);
            life.wait_for_death();
        }
    }
}

/// When nobody reads its output any more, the client ends as a filter does, and its program with
/// it.
#[test]
fn the_client_ends_with_the_reader_of_its_output() {
    let Some(client) = PythonClient::new() else { return };
    let daemon = Daemon::start("-t 0");
    let mut running = client.start(&daemon, &steps("flood"));
    running.read(1000);
    drop(running.0.stdout.take());
    assert_eq!(running.end(), (128 + 13, String::new()));
    daemon.wait_for_log("over after");
}

//! Standard input of the client.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::process::Stdio;

use rustix::process::Signal;

use super::{PythonClient, begin, pair, tell};
use crate::common::{Daemon, eventually, pattern, steps, wait_until_stuck};

/// The client sends as much as the window takes and lets signals pass. It sends nothing once the
/// program has closed its input.
#[test]
fn input_fits_the_window() {
    let Some(client) = PythonClient::new() else { return };
    let (mut running, mut socket) = client.start_with_us(Stdio::piped());
    let (_, writer) = running.feed(std::io::repeat(b'x'));
    begin(&mut running, &mut socket, 65_536);
    let mut sent = 0;
    for taken in [0, 32_768, 65_536, 100_001, 200_001] {
        if taken > 0 {
            tell(&mut socket, "taken", &taken.to_string());
        }
        while sent < taken + 65_536 {
            let (tag, payload) = pair(&mut socket);
            assert!(tag == "stdin" && (1..=32_768).contains(&payload.len()), "{tag} with {} bytes", payload.len());
            sent += payload.len();
        }
        assert_eq!(sent, taken + 65_536);
        // The next pair is the signal, so no input came before it.
        running.signal(Signal::USR1);
        assert_eq!(pair(&mut socket), ("signal".into(), b"USR1".into()));
    }
    tell(&mut socket, "input-closed", "");
    eventually("the end of the writer", || writer.is_finished());
    assert_eq!(writer.join().unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
    running.signal(Signal::TERM);
    assert_eq!(pair(&mut socket), ("signal".into(), b"TERM".into()));
    tell(&mut socket, "exitcode", "3");
    assert_eq!(running.end(), (3, String::new()));
}

/// A signal that arrives in the middle of a pair is sent after it. It used to be written into the
/// pair.
#[test]
fn a_signal_does_not_cut_a_pair() {
    const WINDOW: usize = 1 << 20;
    let Some(client) = PythonClient::new() else { return };
    let input = pattern(2_500_000);
    // From a file the client sends the largest pairs that are allowed, more than a socket holds.
    let path = client.directory.path().join("input");
    fs::write(&path, &input).unwrap();
    let (mut running, mut socket) = client.start_with_us(File::open(&path).unwrap());
    begin(&mut running, &mut socket, WINDOW);
    let (mut found, mut has_ended, mut sent, mut signals) = (Vec::new(), false, 0, 0);
    while !has_ended || signals < sent {
        if sent < 2 && found.len() == sent * WINDOW {
            wait_until_stuck(|| rustix::io::ioctl_fionread(socket.get_ref()).unwrap());
            running.signal(Signal::USR1);
            sent += 1;
        }
        match pair(&mut socket) {
            (tag, payload) if tag == "stdin" && !has_ended => {
                has_ended = payload.is_empty();
                found.extend(payload);
            }
            other => {
                assert_eq!(other, ("signal".into(), b"USR1".into()));
                signals += 1;
            }
        }
        if found.len() == sent * WINDOW {
            tell(&mut socket, "taken", &found.len().to_string());
        }
    }
    assert!(found == input);
    tell(&mut socket, "exitcode", "0");
    assert_eq!(running.end(), (0, String::new()));
}

/// A process that feeds the client for ever learns that the program has closed its input.
#[test]
fn the_feeder_learns_that_the_program_has_closed_its_input() {
    let Some(client) = PythonClient::new() else { return };
    let daemon = Daemon::start("-t 0");
    let gate = daemon.gate("gate");
    let mut running = client.start(&daemon, &steps(&format!("out ready close 0 gate {} exit 6", gate.path())));
    running.wait_for("ready");
    let (_, writer) = running.feed(std::io::repeat(b'x'));
    eventually("the end of the writer", || writer.is_finished());
    assert_eq!(writer.join().unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
    gate.open();
    assert_eq!(running.end(), (6, String::new()));
    // The client sends neither what it reads after that nor the end of it.
    let (mut running, mut socket) = client.start_with_us(Stdio::piped());
    begin(&mut running, &mut socket, 65_536);
    let mut stdin = running.0.stdin.take().expect("a pipe");
    stdin.write_all(b"one").unwrap();
    assert_eq!(pair(&mut socket), ("stdin".into(), b"one".into()));
    tell(&mut socket, "input-closed", "");
    tell(&mut socket, "stdout", "after");
    running.wait_for("after");
    eventually("a pipe that nobody reads", || stdin.write_all(b"two").is_err());
    running.signal(Signal::TERM);
    assert_eq!(pair(&mut socket), ("signal".into(), b"TERM".into()));
    tell(&mut socket, "exitcode", "0");
    assert_eq!(running.end(), (0, String::new()));
}

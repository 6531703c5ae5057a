//! A half-close is the end of stdin, and nothing more.

use super::{assert_pattern, send_pattern};
use crate::common::{Client, Daemon, Fifo, Gate, Launch, pattern, request, steps};

/// 3.1.1 took a half-close for a disconnect: `printf … | socat - UNIX:…` never got an answer.
#[test]
fn a_half_close_is_the_end_of_stdin() {
    let daemon = Daemon::start("");
    let mut client = daemon.exec(&steps("cat exit 9"));
    client.stdin(b"all of it");
    client.half_close();
    let reply = client.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("all of it", 9));
    // Also right after the arguments, and after the end of stdin, where it adds nothing.
    let client = daemon.exec(&steps("cat exit 9"));
    client.half_close();
    assert_eq!(client.reply().code(), 9);
    let mut client = daemon.exec(&steps("cat exit 9"));
    client.end_stdin();
    client.half_close();
    assert_eq!(client.reply().code(), 9);
}

/// Megabytes go each way before and after the half-close.
#[test]
fn a_half_close_loses_nothing_on_its_way() {
    let daemon = Daemon::start("");
    let len = 30 << 20;
    let mut client = daemon.exec(&steps("cat"));
    send_pattern(&mut client, len);
    client.half_close();
    assert_pattern(client, len);
}

/// The part of a big chunk that the program reads as it arrives, in bytes.
pub(crate) const BIG: usize = 2_000_000;

/// Lengths of the rest, the tail, in bytes. All of it waits in the socket.
pub(crate) const TAILS: [usize; 4] = [0, 1, 20_000, 100_000];

/// A program that reads all but the tail at once, and the tail when the gate opens. Until then its
/// pipe takes one page of it.
pub(crate) fn reads_the_tail_late(gate: &Gate) -> Vec<String> {
    steps(&format!("read {BIG} narrow err ready gate {} cat exit 3", gate.path()))
}

/// Lengths of tails, and how many bytes are missing at the end, the comma among them.
pub(crate) const TORN_TAILS: [(usize, usize); 5] = [(0, 1), (1, 1), (1, 2), (100_000, 1), (100_000, 50_000)];

/// A program that reads whatever arrives of the tail, and does not end by itself.
pub(crate) fn reads_the_tail_and_waits(life: &Fifo) -> Vec<String> {
    steps(&format!("hold {} read {BIG} narrow err ready cat wait", life.path()))
}

/// Sends a big chunk and half-closes right behind it. The last `missing` bytes are not sent.
/// Returns the tail.
#[track_caller]
pub(crate) fn send_and_half_close(client: &mut Client, tag: &str, tail: usize, missing: usize) -> Vec<u8> {
    let mut bytes = pattern((BIG + tail) as u64);
    client.send(format!("{tag}{}:", bytes.len()).as_bytes());
    client.send(&bytes[..BIG]);
    client.wait_for("ready");
    bytes.push(b',');
    client.send(&bytes[BIG..bytes.len() - missing]);
    client.half_close();
    bytes[BIG..BIG + tail].to_vec()
}

/// A half-close arrives together with the end of a big chunk, for a program that does not read. The
/// end of the input comes after the last byte.
#[test]
fn a_half_close_right_behind_a_big_chunk_ends_it() {
    for transfer in ["splice", "copy"] {
        let mut daemon = Launch::default().options("-t 0").env("SOCKEXEC_TRANSFER", transfer).start();
        for len in TAILS {
            let gate = daemon.gate(&format!("gate{len}"));
            let mut client = daemon.exec(&reads_the_tail_late(&gate));
            let tail = send_and_half_close(&mut client, "", len, 0);
            // The daemon serves a later connection later, so by now it has done all it can with the
            // tail.
            daemon.assert_serves();
            gate.open();
            let reply = client.reply();
            assert_eq!((reply.stderr_text(), reply.code()), ("ready", 3), "{transfer}, {len}: {reply:?}");
            assert!(reply.stdout == tail, "{transfer}: {} of {len} bytes", reply.stdout.len());
        }
    }
}

/// The same without the comma, or without bytes before it: the request ends early, however much of
/// it was spliced.
#[test]
fn a_half_close_within_a_big_chunk_is_a_bad_request() {
    for transfer in ["splice", "copy"] {
        let daemon = Launch::default().options("-t 0").env("SOCKEXEC_TRANSFER", transfer).start();
        for (len, missing) in TORN_TAILS {
            let mut life = daemon.fifo(&format!("life{len}-{missing}"));
            let argv = reads_the_tail_and_waits(&life);
            let mut client = daemon.exec(&argv);
            life.holder();
            let tail = send_and_half_close(&mut client, "", len, missing);
            let reply = client.reply();
            let end = request(&argv).len() + format!("{}:", BIG + len).len() + BIG + len + 1 - missing;
            let expected = format!("readysockexec: bad request: request ends early at byte {end}\n");
            assert_eq!((reply.stderr_text(), reply.code()), (expected.as_str(), 125), "{transfer}: {reply:?}");
            assert!(tail.starts_with(&reply.stdout), "{transfer}: {} bytes", reply.stdout.len());
            life.wait_for_death();
        }
    }
}

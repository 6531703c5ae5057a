//! Programs that write little and often. Their writes are gathered for a moment, unless somebody
//! waits for an answer.

use std::time::Instant;

use crate::common::{Daemon, eventually, exit_code, pairs, steps};
use crate::pattern::Pattern;

/// The length of each write, about a line.
const PIECE: usize = 66;

/// If the daemon has a processor to itself, each write costs a turn and a frame, about one in ten
/// microseconds. On a busy machine the daemon is late, and gathers writes anyway.
#[test]
fn many_small_writes_are_few_turns() {
    let pieces = 30_000;
    let daemon = Daemon::start("");
    let before = daemon.turns().0;
    let begin = Instant::now();
    let raw = daemon.exec(&steps(&format!("write-pieces {} {PIECE}", pieces * PIECE))).rest();
    let elapsed = begin.elapsed();
    let made = daemon.turns().0 - before;
    let frames = pairs(&raw);
    let output: Vec<u8> =
        frames.iter().filter(|(tag, _)| tag == "stdout").flat_map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(output.len(), pieces * PIECE);
    assert!(Pattern::new().check(&output));
    // One turn in 100 us while the program writes, and after each pause the turns until it counts
    // as chatty again.
    let most = 200 + u64::try_from(elapsed.as_micros()).expect("a short time") / 30;
    println!("{made} turns, {} frames, {elapsed:?}", frames.len());
    assert!(made <= most, "{made} turns in {elapsed:?}");
    assert!(frames.len() as u64 <= most, "{} frames in {elapsed:?}", frames.len());
}

/// Each answer is small and soon follows the last, but a client waits for it.
#[test]
fn answers_are_not_gathered() {
    let daemon = Daemon::start("");
    daemon.exec(&steps("cat")).dialogue(500);
    assert_eq!(daemon.turns().1, 0);
}

/// No event reports what comes while the daemon gathers. It must find the last write all the same.
#[test]
fn the_last_of_a_burst_arrives() {
    let daemon = Daemon::start("");
    let bursts = 40;
    let one = format!("write-pieces {} {PIECE} out burst-end read 1", 100 * PIECE);
    let mut client = daemon.exec(&steps(&vec![one; bursts].join(" ")));
    for n in 1..=bursts {
        client.wait_for_times("burst-end", n);
        client.stdin(b"x");
    }
    client.end_stdin();
    assert_eq!(client.reply().code(), 0);
}

/// A descendant that goes on writing gets no more time for it than a silent one.
#[test]
fn a_chatty_descendant_does_not_linger() {
    let daemon = Daemon::start("-t 0 -k 0.1 --linger 0.1");
    for _ in 0..5 {
        let step = format!("spawn [ write-pieces {} {PIECE} wait ] exit 3", PIECE * 1_000_000_000);
        assert_eq!(exit_code(&daemon.exec(&steps(&step)).stream(|_, _| {})), 3);
    }
    eventually("all are gone", || daemon.process().children() == (0, 0));
}

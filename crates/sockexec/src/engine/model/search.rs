//! Every state of a session that can be reached with a small alphabet of moves.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};

use super::world::Output;
use super::*;
use crate::engine::session::diagram;

/// How many moves the daemon may miss before its turn: two events in one batch of the poll.
const MISSED: u8 = 2;

/// How many moves deep to look: until nothing new is found. Miri is some thousand times slower.
const DEPTH: usize = if cfg!(miri) { 2 } else { usize::MAX };

/// The result of a search.
#[derive(Debug, Default)]
struct Found {
    states: usize,
    transitions: usize,
    over: usize,
    deepest: usize,
}

/// A state, and how it was reached.
struct Node<'c> {
    world: World<'c>,
    missed: u8,
    depth: usize,
    /// The index of the step that led here.
    step: Option<usize>,
}

/// A move, whether the daemon had its turn after it, and the step before it.
type Step = (Move, bool, Option<usize>);

/// Goes through all states, the nearest first: a violation comes with the shortest way to it.
///
/// It tells states apart by a hash of 64 bits. With a million states, two are taken for one in one search
/// of 37 million.
fn search(case: &Case, alphabet: &[Move]) -> Found {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    let mut steps: Vec<Step> = Vec::new();
    let mut queue = VecDeque::new();
    let mut first = World::new(case);
    first.turn().unwrap();
    queue.push_back(Node { world: first, missed: 0, depth: 0, step: None });
    while let Some(node) = queue.pop_front() {
        found.states += 1;
        found.deepest = found.deepest.max(node.depth);
        if node.world.is_over() {
            found.over += 1;
            continue;
        }
        if let Err(violation) = node.world.check_ends() {
            panic!("{violation}, after {:?}", way(&steps, node.step));
        }
        if node.depth == DEPTH {
            continue;
        }
        for &what in alphabet {
            let mut missed = node.world.clone();
            if !missed.apply(what) || !is_small(&missed) {
                continue;
            }
            for turn in [true, false] {
                if !turn && node.missed + 1 >= MISSED {
                    continue;
                }
                found.transitions += 1;
                steps.push((what, turn, node.step));
                let mut world = missed.clone();
                if turn && let Err(violation) = world.turn() {
                    panic!("{violation}, after {:?}", way(&steps, Some(steps.len() - 1)));
                }
                let missed = if turn { 0 } else { node.missed + 1 };
                let mut hasher = DefaultHasher::new();
                (&world, missed).hash(&mut hasher);
                if seen.insert(hasher.finish()) {
                    queue.push_back(Node { world, missed, depth: node.depth + 1, step: Some(steps.len() - 1) });
                }
            }
        }
    }
    found
}

fn way(steps: &[Step], mut at: Option<usize>) -> Vec<(Move, bool)> {
    let mut way = Vec::new();
    while let Some((what, turn, before)) = at.map(|at| steps[at]) {
        way.push((what, turn));
        at = before;
    }
    way.reverse();
    way
}

/// Each further byte multiplies the states. Two bytes of each stream are enough to change places or get
/// lost, and two frames to wait for a client.
fn is_small(world: &World<'_>) -> bool {
    let written = |output: &Output| output.read + output.held as u64;
    let outputs = [&world.program.stdout, &world.program.stderr];
    let room = world.client.room;
    outputs.into_iter().all(|output| written(output) <= 2) && (room <= 2 * FRAME || room == u64::MAX)
}

/// The length of a frame with one byte of output: `6:stdout,1:x,`.
const FRAME: u64 = 13;

fn setup() -> Setup {
    Setup {
        request_timeout: None,
        timeout: Some(20),
        kill_timeout: 5,
        linger: None,
        names: false,
        request: vec![Piece::Exec(vec![b"a".into()]), Piece::Chunk(2), Piece::Chunk(0)],
        start: Start::AtOnce,
        job: false,
        outsider: false,
        unknowable: false,
        sizes: Sizes { pipe: 1, chunk: 32, strict: 1, spool: 14, window: 2 },
        execs_later: false,
        descriptors: 0,
        busy: false,
        reads_ahead: false,
        kills_late: false,
    }
}

fn explore(name: &str, setup: &Setup, alphabet: &[Move]) {
    let found = search(&Case::new(setup), alphabet);
    println!(
        "{name}: {} states, {} of them over, {} transitions, at most {} moves deep",
        found.states, found.over, found.transitions, found.deepest
    );
    assert!(cfg!(miri) || found.over > 1 && found.states > 100, "{found:?}");
}

/// How a program ends, and what may outlive it: in its group, outside it, both.
#[test]
#[cfg_attr(miri, ignore = "takes many minutes; all_flows must do")]
fn all_endings() {
    let alphabet = [
        Move::Send(8),
        Move::HalfClose,
        Move::Leave,
        Move::TakeAll,
        Move::CloseOutput(To::Stdout),
        Move::Exit(Ended::Code(3)),
        Move::EmptyGroup,
        Move::WaitForTimer,
        Move::ShutDown,
        Move::Reach,
    ];
    for (job, outsider, unknowable) in
        [(false, false, false), (true, false, false), (true, false, true), (false, true, false), (true, true, true)]
    {
        for (linger, kills_late) in [(None, false), (Some(3), false), (None, true)] {
            let setup = Setup { linger, job, outsider, unknowable, kills_late, ..setup() };
            let name = format!(
                "job {job}, outsider {outsider}, unknowable {unknowable}, linger {linger:?}, KILL late {kills_late}"
            );
            explore(&name, &setup, &alphabet);
        }
    }
}

/// How a program starts or fails to, and requests that are bad before or after its start.
#[test]
#[cfg_attr(miri, ignore = "takes many minutes; all_flows must do")]
fn all_beginnings() {
    let alphabet = [
        Move::Send(8),
        Move::Send(3),
        Move::HalfClose,
        Move::Leave,
        Move::TakeAll,
        Move::Answer,
        Move::Exit(Ended::Signal(9)),
        Move::WaitForTimer,
        Move::ShutDown,
    ];
    let exec = || Piece::Exec(vec![b"a".into()]);
    for start in [Start::AtOnce, Start::Later, Start::Fails, Start::FailsLate] {
        for (what, request) in [
            ("whole", vec![exec(), Piece::Chunk(0)]),
            ("bad at once", vec![Piece::Raw(b"x".into())]),
            ("bad later", vec![exec(), Piece::Raw(b"1:x;".into())]),
            ("too long", vec![exec(), Piece::Chunk(0), Piece::Raw(b"more".into())]),
        ] {
            for timeout in [Some(20), None] {
                let setup = Setup { timeout, request: request.clone(), start, ..setup() };
                explore(&format!("start {start:?}, request {what}, timeout {timeout:?}"), &setup, &alphabet);
            }
        }
    }
}

/// How bytes flow: a client that reads a frame at a time, pipes that hold a byte.
#[test]
fn all_flows() {
    let alphabet = [
        Move::Send(8),
        Move::Send(1),
        Move::HalfClose,
        Move::Take(13),
        Move::Write(To::Stdout, 1),
        Move::Write(To::Stderr, 1),
        Move::CloseOutput(To::Stdout),
        Move::Read(1),
        Move::CloseInput,
        Move::Exit(Ended::Code(0)),
    ];
    let setup = Setup { timeout: None, ..setup() };
    explore("flows", &setup, &alphabet);
}

/// Version 2: each kind of streams, with an exec that is known at once, is known later, or fails; and
/// signals.
#[test]
#[cfg_attr(miri, ignore = "takes minutes; all_flows and random_sessions must do")]
fn all_of_version_2() {
    let alphabet = [
        Move::Send(25),
        Move::HalfClose,
        Move::Leave,
        Move::TakeAll,
        Move::CloseOutput(To::Stdout),
        Move::Execute,
        Move::Exit(Ended::Code(3)),
        Move::WaitForTimer,
        Move::ShutDown,
    ];
    let argv = || vec![b"a".to_vec()];
    for (what, choices) in [
        ("merged", vec![Choice::Merged]),
        ("a terminal", vec![Choice::Terminal]),
        ("descriptors", vec![Choice::Descriptors]),
    ] {
        let descriptors = if choices == [Choice::Descriptors] { 3 } else { 0 };
        for (start, execs_later, job) in
            [(Start::AtOnce, false, true), (Start::AtOnce, true, false), (Start::FailsLate, true, false)]
        {
            let mut choices = choices.clone();
            choices.push(Choice::Timeout(1));
            let rest = if descriptors == 3 {
                vec![Piece::Signal(15)]
            } else {
                vec![Piece::Signal(2), Piece::Stdin(1), Piece::Stdin(0)]
            };
            let request = [vec![Piece::Exec2(choices, argv())], rest].concat();
            let setup = Setup { request, start, job, execs_later, descriptors, ..setup() };
            explore(&format!("{what}, {start:?}, execs later {execs_later}, job {job}"), &setup, &alphabet);
        }
    }
}

/// Version 2: requests that start no program, or are bad.
#[test]
#[cfg_attr(miri, ignore = "takes minutes; all_flows and random_sessions must do")]
fn all_requests_of_version_2() {
    let alphabet = [
        Move::Send(14),
        Move::HalfClose,
        Move::Leave,
        Move::TakeAll,
        Move::Exit(Ended::Code(0)),
        Move::WaitForTimer,
        Move::ShutDown,
    ];
    let exec = |choices: &[Choice]| Piece::Exec2(choices.to_vec(), vec![b"a".to_vec()]);
    for (what, request, descriptors) in [
        ("ping", vec![Piece::Ping], 0),
        ("ping with descriptors", vec![Piece::Ping], 1),
        ("status", vec![Piece::Status], 0),
        ("status, and more", vec![Piece::Status, Piece::Raw(b"more".into())], 0),
        ("status with descriptors", vec![Piece::Status], 1),
        ("too few descriptors", vec![exec(&[Choice::Descriptors])], 2),
        ("stray descriptors", vec![exec(&[])], 3),
        ("input beside descriptors", vec![exec(&[Choice::Descriptors]), Piece::Stdin(1)], 3),
        ("options that exclude each other", vec![exec(&[Choice::Descriptors, Choice::Terminal])], 3),
        ("no time", vec![exec(&[Choice::Timeout(0)])], 0),
        ("input after its end", vec![exec(&[]), Piece::Stdin(0), Piece::Stdin(1)], 0),
        ("no such signal", vec![exec(&[]), Piece::SignalName(b"WAT".into())], 0),
        ("a size", vec![exec(&[Choice::Terminal]), Piece::Winsize(9), Piece::Stdin(0), Piece::Winsize(0)], 0),
        ("a size without a terminal", vec![exec(&[]), Piece::Winsize(9)], 0),
        ("no such tag", vec![exec(&[Choice::Merged]), Piece::Raw(b"3:wat,0:,".into())], 0),
        ("none of the two versions", vec![Piece::Raw(b"10:protocol=3,".into())], 0),
    ] {
        let setup = Setup { request, descriptors, ..setup() };
        explore(what, &setup, &alphabet);
    }
}

/// A request that waits for its slot, in both versions, and what can happen before and after it has one.
#[test]
#[cfg_attr(miri, ignore = "takes minutes; all_flows and random_sessions must do")]
fn all_waits() {
    let alphabet = [
        Move::Send(14),
        Move::HalfClose,
        Move::Leave,
        Move::TakeAll,
        Move::GiveSlot,
        Move::Write(To::Stdout, 1),
        Move::CloseOutput(To::Stdout),
        Move::Exit(Ended::Code(3)),
        Move::WaitForTimer,
        Move::ShutDown,
    ];
    let one = vec![Piece::Exec(vec![b"a".into()]), Piece::Chunk(1), Piece::Chunk(0)];
    let two = vec![Piece::Exec2(vec![Choice::Merged, Choice::Timeout(1)], vec![b"a".into()]), Piece::Stdin(0)];
    for (version, request) in [(1, one), (2, two)] {
        for start in [Start::AtOnce, Start::FailsLate] {
            let setup = Setup { request_timeout: Some(7), request: request.clone(), start, busy: true, ..setup() };
            explore(&format!("version {version}, {start:?}"), &setup, &alphabet);
        }
    }
}

/// A connection whose place another one needs at any time, in both versions, and a request for which there
/// is no memory for a while.
#[test]
#[cfg_attr(miri, ignore = "takes minutes; all_flows and random_sessions must do")]
fn all_who_are_turned_away() {
    let alphabet = [
        Move::Send(9),
        Move::HalfClose,
        Move::Leave,
        Move::TakeAll,
        Move::GiveSlot,
        Move::TurnAway,
        Move::FillMemory,
        Move::FreeMemory,
        Move::Exit(Ended::Code(3)),
        Move::WaitForTimer,
        Move::ShutDown,
    ];
    let one = vec![Piece::Exec(vec![b"abcdef".into()]), Piece::Chunk(0)];
    let two = vec![Piece::Exec2(vec![Choice::Merged], vec![b"a".into()]), Piece::Stdin(0)];
    for (version, request, busy) in [(1, one.clone(), false), (1, one, true), (2, two, true)] {
        let setup = Setup { request_timeout: Some(7), request, busy, ..setup() };
        explore(&format!("version {version}, busy {busy}"), &setup, &alphabet);
    }
}

/// Input for a program that reads a byte at a time or not at all, with a signal or a size behind it, and a
/// client that reads its reports or does not. The daemon holds the input, or makes the client wait.
#[test]
#[cfg_attr(miri, ignore = "takes minutes; all_flows and random_sessions must do")]
fn all_windows() {
    let alphabet = [
        Move::Send(13),
        Move::HalfClose,
        Move::Leave,
        Move::ShutDown,
        Move::TakeAll,
        Move::Read(1),
        Move::CloseInput,
        Move::Exit(Ended::Code(0)),
    ];
    for (what, choice, behind) in
        [("a pipe", Choice::Merged, Piece::Signal(2)), ("a terminal", Choice::Terminal, Piece::Winsize(9))]
    {
        for reads_ahead in [false, true] {
            let exec = Piece::Exec2(vec![choice], vec![b"a".to_vec()]);
            let request = vec![exec, Piece::Stdin(3), behind.clone(), Piece::Stdin(1), Piece::Stdin(0)];
            let setup = Setup { timeout: None, request, reads_ahead, ..setup() };
            explore(&format!("{what}, reads ahead {reads_ahead}"), &setup, &alphabet);
        }
    }
}

/// Every transition at the head of `session.rs` happens, and no other.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn the_diagram_is_true() {
    let alphabet = [
        Move::Send(14),
        Move::HalfClose,
        Move::Leave,
        Move::TakeAll,
        Move::GiveSlot,
        Move::CloseOutput(To::Stdout),
        Move::Execute,
        Move::Exit(Ended::Code(3)),
        Move::EmptyGroup,
        Move::WaitForTimer,
        Move::ShutDown,
        Move::Reach,
    ];
    let one = vec![Piece::Exec(vec![b"a".into()]), Piece::Chunk(0)];
    let two = vec![Piece::Exec2(vec![Choice::Merged], vec![b"a".into()]), Piece::Stdin(0)];
    let seen = diagram::watch(|| {
        for (request, start, execs_later) in
            [(one.clone(), Start::AtOnce, false), (one, Start::Fails, false), (two, Start::FailsLate, true)]
        {
            for (busy, job, kills_late) in [(true, false, false), (false, true, true)] {
                let setup = Setup { request: request.clone(), start, execs_later, busy, job, kills_late, ..setup() };
                explore(&format!("{start:?}, busy {busy}, job {job}"), &setup, &alphabet);
            }
        }
    });
    let drawn = diagram::drawn();
    assert!(drawn.len() > 15, "{drawn:?}");
    let missing: Vec<_> = drawn.difference(&seen).collect();
    let new: Vec<_> = seen.difference(&drawn).collect();
    assert!(missing.is_empty() && new.is_empty(), "drawn but never seen: {missing:?}; seen but not drawn: {new:?}");
}

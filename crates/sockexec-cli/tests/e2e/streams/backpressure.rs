//! A peer that does not read stops the sender, and costs the daemon no memory.

use std::fs;
use std::io::Read as _;
use std::net::Shutdown;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{LARGE, assert_memory, assert_pattern, send_pattern};
use crate::common::{Client, Daemon, Launch, Process, eventually, small_disk, steps};

/// In 3.1.1, 400 MB of unread output took 393 MB of the daemon's memory. Here the program waits for
/// the client, which has ended its stdin.
#[test]
fn unread_output_stops_the_program() {
    let daemon = Daemon::start("-t 0");
    let mut life = daemon.fifo("life");
    let mut client = daemon.exec(&steps(&format!("hold {} write-out {LARGE}", life.path())));
    client.end_stdin();
    let program = Process(life.holder().pid);
    program.wait_until_blocked();
    assert!(life.is_held(), "the program wrote all of it");
    assert!(program.written() < 8 << 20, "{} bytes went somewhere", program.written());
    assert_memory(&daemon);
    assert_pattern(client, LARGE);
    assert_memory(&daemon);
}

/// The same before the end of stdin, with no spool.
#[test]
fn without_a_spool_unread_output_stops_the_program() {
    let daemon = Daemon::start("-t 0 --spool 0");
    let mut life = daemon.fifo("life");
    let mut client = daemon.exec(&steps(&format!("hold {} write-out {LARGE}", life.path())));
    let program = Process(life.holder().pid);
    program.wait_until_blocked();
    assert!(life.is_held(), "the program wrote all of it");
    assert!(program.written() < 8 << 20, "{} bytes went somewhere", program.written());
    assert_memory(&daemon);
    client.end_stdin();
    assert_pattern(client, LARGE);
    assert_memory(&daemon);
}

/// A full spool stops the program too. What it holds comes in order, before what follows.
#[test]
fn a_full_spool_stops_the_program() {
    let daemon = Daemon::start("-t 0 --spool 10000000");
    let len = 100 << 20;
    let mut life = daemon.fifo("life");
    let mut client = daemon.exec(&steps(&format!("hold {} write-out {len}", life.path())));
    let program = Process(life.holder().pid);
    program.wait_until_blocked();
    assert!(life.is_held(), "the program wrote all of it");
    let written = program.written();
    assert!((8 << 20..24 << 20).contains(&written), "{written} bytes went somewhere");
    assert_memory(&daemon);
    client.end_stdin();
    assert_pattern(client, len);
    assert_memory(&daemon);
}

/// The client of the nginx module sends all of stdin before it reads a byte. With strict
/// backpressure both sides would wait for ever, so the output goes to the spool.
#[test]
fn all_of_stdin_is_sent_before_a_byte_is_read() {
    let daemon = Daemon::start("-t 0");
    let mut client = daemon.exec(&steps("cat"));
    send_pattern(&mut client, LARGE);
    client.end_stdin();
    assert_memory(&daemon);
    assert_pattern(client, LARGE);
    assert_memory(&daemon);
}

/// What a client leaves unread in a spool goes with its connection.
#[test]
fn a_spool_ends_with_its_client() {
    let mut daemon = Daemon::start("-t 0");
    // Counted before any client: the daemon may see a client's end later than the client its reply.
    let before = daemon.process().descriptors();
    for _ in 0..3 {
        let mut life = daemon.fifo("life");
        let client = daemon.exec(&steps(&format!("hold {} write-out {}", life.path(), 50 << 20)));
        life.holder();
        life.wait_for_death();
        drop(client);
        fs::remove_file(life.path()).unwrap();
    }
    eventually("no descriptor of a spool left", || daemon.process().descriptors() == before);
    daemon.assert_serves();
}

/// Asserts that a spool that cannot grow stops the program and loses nothing.
#[track_caller]
fn assert_spool_gives_up_gently(mut daemon: Daemon) {
    let len = 20 << 20;
    let mut life = daemon.fifo("life");
    let mut client = daemon.exec(&steps(&format!("hold {} write-out {len}", life.path())));
    let program = Process(life.holder().pid);
    program.wait_until_blocked();
    assert!(life.is_held(), "the program wrote all of it");
    daemon.assert_serves();
    client.end_stdin();
    assert_pattern(client, len);
    assert_memory(&daemon);
    assert!(daemon.terminate().status.success());
}

/// The disk under the spool is full. The program waits until the client reads.
#[test]
fn a_full_disk_stops_the_program() {
    let Some(prelude) = small_disk("4m") else { return };
    assert_spool_gives_up_gently(Launch::default().options("-t 0").prelude(&prelude).start());
}

#[test]
fn no_place_for_a_spool_stops_the_program() {
    assert_spool_gives_up_gently(Launch::default().options("-t 0").env("TMPDIR", "/no/such/directory").start());
}

/// Beyond `RLIMIT_FSIZE` write(2) does not just fail: SIGXFSZ ends a program that does not expect
/// it.
#[test]
fn a_limit_on_the_size_of_files_stops_the_program() {
    assert_spool_gives_up_gently(Launch::default().options("-t 0").prelude("ulimit -f 8192").start());
}

/// A bound for each client is not enough. Eighty clients that do not read fit into the same 16 MiB.
#[test]
fn many_spools_share_the_memory() {
    let daemon = Launch::default().options("-t 0 -m 100").prelude("ulimit -n $(ulimit -H -n) || :").start();
    let len = 2_000_000;
    let clients: Vec<Client> = (0..80).map(|_| daemon.exec(&steps(&format!("write-out {len}")))).collect();
    // Nobody reads any of it. Each program ends because the daemon has taken all of its output.
    for n in 1..=80 {
        eventually("the end of one more", || daemon.log_text().matches("ended: exit code 0").count() >= n);
    }
    assert_memory(&daemon);
    for mut client in clients {
        client.end_stdin();
        assert_pattern(client, len);
    }
    assert_memory(&daemon);
}

/// The median of the times that 20 small requests take.
fn median_of_small_requests(daemon: &Daemon) -> Duration {
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let begin = Instant::now();
            assert_eq!(daemon.run(&steps("out small"), b"").stdout_text(), "small");
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// One client reads without end, and the others still get their turns.
#[test]
fn a_flood_does_not_starve_others() {
    // A machine that has less time for the test during the flood than before it makes the others
    // slow, too. A daemon that starves them fails all chances.
    const CHANCES: usize = 5;
    let daemon = Daemon::start("-t 0 -k 1");
    let found: Vec<String> = (0..CHANCES).map_while(|_| serve_beside_a_flood(&daemon).err()).collect();
    assert!(found.len() < CHANCES, "{found:?}");
    assert_memory(&daemon);
}

/// If others have to wait much longer than without a flood, says how long.
#[track_caller]
fn serve_beside_a_flood(daemon: &Daemon) -> Result<(), String> {
    let idle = median_of_small_requests(daemon);
    let flood = daemon.exec(&steps("flood"));
    let socket = flood.socket().try_clone().expect("a second descriptor");
    let (begins, has_begun) = mpsc::channel();
    let reader = thread::spawn(move || {
        let (mut buffer, mut total) = (vec![0; 256 << 10], 0_u64);
        while let Ok(n @ 1..) = flood.socket().read(&mut buffer) {
            if total == 0 {
                begins.send(()).expect("the test waits");
            }
            total += n as u64;
        }
        total
    });
    has_begun.recv().expect("a flood");
    let beside = median_of_small_requests(daemon);
    socket.shutdown(Shutdown::Both).expect("a close");
    let pulled = reader.join().expect("no panic");
    assert!(pulled > 0);
    let found = format!("{idle:?} idle, {beside:?} beside a flood of {} MB", pulled / 1_000_000);
    println!("{found}");
    // Three times as long is fine. On a loaded machine four processes want two processors, and the
    // scheduler adds its own delay.
    if beside <= 3 * idle + Duration::from_millis(100) { Ok(()) } else { Err(found) }
}

//! Output on disk: the limit for all clients together, and how its files go.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::common::{Client, Daemon, Fifo, Launch, Process, eventually, pairs, steps};
use crate::faults::strace::{self, Fault, Strace, Whom};
use crate::filters;
use crate::pattern::Pattern;
use crate::version_2::status::status;

/// What a spool holds in memory, what the socket and the pipe hold, and rounding. The test data is
/// much more, in bytes.
const BESIDE: u64 = 4 << 20;

/// The bytes that the daemon reports on disk.
fn spooled(daemon: &Daemon) -> u64 {
    status(daemon)["totals"]["spooled"].as_u64().expect("a number")
}

/// The bytes that the file system reports there.
fn on_disk(daemon: &Daemon) -> u64 {
    let directory = format!("/proc/{}/fd", daemon.process().0.as_raw_pid());
    let entries = fs::read_dir(directory).unwrap().flatten();
    let files = entries.filter_map(|entry| fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file));
    files.map(|file| file.blocks() * 512).sum()
}

/// A program that writes `len` bytes to a client that does not read and has not ended its input.
#[track_caller]
fn start(daemon: &Daemon, name: &str, len: u64) -> (Client, Process, Fifo) {
    let mut life = daemon.fifo(name);
    let client = daemon.exec(&steps(&format!("hold {} write-out {len}", life.path())));
    let program = Process(life.holder().pid);
    (client, program, life)
}

#[track_caller]
fn assert_pattern(mut client: Client, len: u64) {
    client.end_stdin();
    let mut pattern = Pattern::new();
    client.stream(|_, bytes| assert!(pattern.check(bytes), "wrong after {}", pattern.position()));
    assert_eq!(pattern.position(), len);
}

/// With a limit for each client and none for all, one client filled the disk. What one client gives
/// back goes to another, which nothing else would wake.
#[test]
fn all_have_a_limit_together() {
    let (total, len) = (8 << 20, 40 << 20);
    let daemon = Launch::default().options("-t 0 --spool-total 8M").without_env("TMPDIR").start();
    let mut clients = ["one", "two", "three"].map(|name| start(&daemon, name, len));
    for (_, program, _) in &clients {
        program.wait_until_blocked();
    }
    assert!((total - (1 << 20)..=total).contains(&spooled(&daemon)), "{}", spooled(&daemon));
    assert!(on_disk(&daemon) <= total + (1 << 20), "{}", on_disk(&daemon));
    assert_eq!(status(&daemon)["limits"]["spool_total"], total);
    daemon.wait_for_log("and --spool-total allows no more: programs wait");
    daemon.assert_idle("three wait for a place on disk");
    // The client with the most goes.
    clients.sort_by_key(|(_, program, _)| program.written());
    let [two, three, most] = clients;
    let before = two.1.written() + three.1.written();
    drop(most);
    eventually("others that go on", || two.1.written() + three.1.written() > before + (1 << 20));
    two.1.wait_until_blocked();
    three.1.wait_until_blocked();
    assert!(spooled(&daemon) <= total, "{}", spooled(&daemon));
    assert_pattern(two.0, len);
    assert_pattern(three.0, len);
    eventually("nothing on disk", || spooled(&daemon) == 0);
}

/// The daemon gives space back as the client reads, not only at the end.
#[test]
fn what_is_read_is_given_back() {
    assert_read_is_given_back(Launch::default());
}

/// glibc has no threads where a filter answers EPERM to clone3: it tries clone only after ENOSYS. What
/// needs a thread was never freed, until the limit for all was reached and programs waited for ever.
#[test]
fn without_threads_the_loop_gives_it_back() {
    if filters::are_permitted() {
        assert_read_is_given_back(Launch::default().filter("clone3=EPERM"));
    }
}

#[track_caller]
fn assert_read_is_given_back(launch: Launch) {
    let len = 40 << 20;
    let daemon = launch.options("-t 0 -k 0.2").without_env("TMPDIR").start();
    let (client, _, mut life) = start(&daemon, "life", len);
    life.wait_for_death();
    // Only now has the daemon taken all of it.
    daemon.wait_for_log("ended: exit code 0");
    let all = spooled(&daemon);
    assert!((len - BESIDE..=len).contains(&all), "{all}");
    let mut some = vec![0; 20 << 20];
    std::io::Read::read_exact(&mut client.socket(), &mut some).unwrap();
    eventually("half of it on disk", || {
        let now = spooled(&daemon);
        now <= all - (16 << 20) && on_disk(&daemon) <= now + (1 << 20)
    });
    drop(client);
    // First without a question, each of which would turn the loop.
    eventually("nothing in the file system", || on_disk(&daemon) == 0);
    eventually("nothing on disk", || spooled(&daemon) == 0);
}

/// A ring that goes round many times within a small limit: each byte comes once, and the limit
/// holds.
#[test]
fn a_spool_goes_round_within_its_limit() {
    let daemon = Launch::default().options("-t 0 --spool 3000001 --spool-total 2M").without_env("TMPDIR").start();
    let len: u64 = 60 << 20;
    let client = daemon.exec(&steps(&format!("write-out {len}")));
    let mut pattern = Pattern::new();
    let mut most = 0;
    let mut pieces = 0;
    // The client reads all the time, and ends its input only after this many bytes.
    let mut socket = client.socket().try_clone().unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut got = Vec::new();
    while pattern.position() < len {
        let n = std::io::Read::read(&mut socket, &mut buffer).unwrap();
        assert!(n > 0, "ended after {}", pattern.position());
        got.extend_from_slice(&buffer[..n]);
        let whole = sockexec_proto::reply::whole_pairs(&got, usize::MAX);
        for (tag, bytes) in pairs(&got[..whole]) {
            assert!(tag == "exitcode" || pattern.check(&bytes), "wrong after {}", pattern.position());
        }
        got.drain(..whole);
        pieces += 1;
        if pieces % 16 == 0 {
            most = most.max(spooled(&daemon));
        }
    }
    assert_eq!(pattern.position(), len);
    assert!(most <= 2 << 20, "{most}");
    eventually("nothing on disk", || spooled(&daemon) == 0);
}

/// The last close of a big file frees its blocks, and everybody waited for that: 17 s for a hundred
/// clients. Another thread shortens the file first.
#[test]
fn nobody_waits_for_a_big_file_to_go() {
    if !strace::is_usable() {
        return;
    }
    let mut daemon = Daemon::start("-t 0");
    let descriptors = daemon.process().descriptors();
    let (client, _, mut life) = start(&daemon, "life", 200 << 20);
    life.wait_for_death();
    daemon.wait_for_log("ended: exit code 0");
    let slow = Fault { call: "ftruncate", error: "delay_enter=300000000", when: "1+".into() };
    let strace = Strace::inject(daemon.process(), Whom::Children, &slow);
    drop(client);
    eventually("a thread that waits", || daemon.process().threads() == 2);
    daemon.assert_serves();
    assert!(spooled(&daemon) > 100 << 20, "{}", spooled(&daemon));
    strace.detach();
    eventually("nothing on disk", || spooled(&daemon) == 0);
    eventually("no thread but the first", || daemon.process().threads() == 1);
    eventually("descriptors as at first", || daemon.process().descriptors() == descriptors);
}

/// A tenth of the file system stays free for others, whatever the limit is.
#[test]
fn a_tenth_of_the_file_system_stays_free() {
    let Some(prelude) = crate::common::small_disk("40m") else { return };
    let mut daemon = Launch::default().options("-t 0").prelude(&prelude).start();
    let (client, program, _life) = start(&daemon, "life", 100 << 20);
    program.wait_until_blocked();
    let disk = format!("/proc/{}/root/mnt", daemon.process().0.as_raw_pid());
    let disk = rustix::fs::statvfs(disk).unwrap();
    let (free, all) = (disk.f_bavail, disk.f_blocks);
    assert!(free * 10 >= all && free * 5 < all, "{free} of {all} blocks are free");
    daemon.wait_for_log("and a tenth of the file system stays free: programs wait");
    assert_pattern(client, 100 << 20);
    daemon.assert_serves();
}

//! Many programs and one daemon. None of them may leave anything behind.

use crate::common::{Client, Daemon, eventually, steps};

/// More than ten thousand programs, eight at a time. Most are ordinary, some fail to start, and the
/// clients of some leave.
#[test]
fn ten_thousand_programs_leave_nothing() {
    let mut daemon = Daemon::start("-k 1");
    rounds(&daemon, 100);
    let first = settled(&mut daemon);
    rounds(&daemon, 5000);
    let mut before = settled(&mut daemon);
    // The allocator's holes stop growing at some point. Losing 4 bytes a program would not.
    for _ in 0..8 {
        rounds(&daemon, 5000);
        let after = settled(&mut daemon);
        assert_eq!(first.descriptors, after.descriptors);
        assert_eq!(after.children, (0, 0));
        if after.anonymous_kib <= before.anonymous_kib + 16 {
            return;
        }
        before = after;
    }
    panic!("memory grows on and on: {first:?}, {before:?}");
}

#[derive(Debug)]
struct Footprint {
    descriptors: usize,
    children: (usize, usize),
    anonymous_kib: u64,
}

fn settled(daemon: &mut Daemon) -> Footprint {
    daemon.assert_serves();
    let process = daemon.process();
    eventually("no child and no zombie", || process.children() == (0, 0));
    // The last connections close when the daemon sees their clients' ends.
    process.wait_until_blocked();
    Footprint {
        descriptors: process.descriptors(),
        children: process.children(),
        anonymous_kib: process.status_kib("RssAnon:"),
    }
}

fn rounds(daemon: &Daemon, programs: usize) {
    for round in 0..programs / 8 {
        let clients: Vec<Client> = (0..8).map(|n| daemon.exec(&program(round + n))).collect();
        for (n, mut client) in clients.into_iter().enumerate() {
            match (round + n) % 16 {
                7 => drop(client),
                15 => assert_eq!(client.reply().code(), 127),
                _ => {
                    client.end_stdin();
                    let reply = client.reply();
                    assert_eq!((reply.stdout_text(), reply.code()), ("x", 0));
                }
            }
        }
    }
}

fn program(n: usize) -> Vec<String> {
    match n % 16 {
        3 => steps("out x cat"),
        15 => vec!["no-such-program".to_owned()],
        _ => vec!["printf".to_owned(), "x".to_owned()],
    }
}

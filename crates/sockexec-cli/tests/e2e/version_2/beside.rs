//! Clients of version 1 beside those of version 2.

use std::thread;

use super::{Caller, NONE, netstring, pair, request_2};
use crate::common::{Daemon, request, steps};

/// Requests of version 1, and their replies to the byte.
fn exchanges() -> Vec<(Vec<u8>, &'static str)> {
    let request = |argv: &str, stdin: &str| {
        let stdin = if stdin.is_empty() { Vec::new() } else { netstring(stdin) };
        [request(&steps(argv)), stdin, netstring("")].concat()
    };
    vec![
        (request("cat", "hello"), "6:stdout,5:hello,8:exitcode,1:0,"),
        (request("err word exit 3", ""), "6:stderr,4:word,8:exitcode,1:3,"),
        (request("die 9", ""), "7:termsig,1:9,"),
        (b"1:1,4:nope,0:,".to_vec(), "6:stderr,42:sockexec: nope: No such file or directory\n,8:exitcode,3:127,"),
        (
            b"1:x,".to_vec(),
            "6:stderr,82:sockexec: bad request: number of arguments is not a decimal number: \"x\" at byte 2\n,8:exitcode,3:125,",
        ),
    ]
}

/// Clients of version 1 see not one byte of difference, whatever a hundred others do meanwhile.
#[test]
fn version_1_is_the_same_beside_a_hundred_of_version_2() {
    let daemon = Daemon::start("-m 200 -t 0 -k 0.2");
    let alone: Vec<Vec<u8>> = exchanges().iter().map(|(request, _)| exchange(&daemon, request)).collect();
    for ((_, expected), found) in exchanges().iter().zip(&alone) {
        assert_eq!(String::from_utf8_lossy(found), *expected);
    }
    // A hundred that stay: terminals, merged streams, deadlines, programs that flood and that wait.
    let kinds: [(&[&str], &str); 5] = [
        (&[], "out ready cat"),
        (&["pty=80x24"], "out ready cat"),
        (&["stderr=stdout", "cwd=/"], "err ready cat"),
        (&["timeout=5000", "clearenv", "env=A=b"], "out ready cat"),
        (&[], "out ready flood"),
    ];
    let mut others: Vec<Caller> = Vec::new();
    for n in 0..100 {
        let (options, argv) = kinds[n % kinds.len()];
        let mut caller = Caller::start(&daemon, options, &steps(argv));
        caller.wait_for("ready");
        others.push(caller);
    }
    thread::scope(|scope| {
        // As many that come and go: status, signals, bad requests.
        scope.spawn(|| {
            for n in 0..100 {
                let mut client = daemon.connect();
                match n % 4 {
                    0 => client.send(&request_2::<_, &str>(&["status"], &[])),
                    1 => client.send(&[request_2(NONE, &steps("wait")), pair("signal", "TERM")].concat()),
                    2 => client.send(&[request_2(NONE, &steps("wait")), pair("wat", "")].concat()),
                    _ => client.send(&request_2(&["wat"], &steps("wait"))),
                }
                assert!(!Caller(client).reply().pairs.is_empty());
            }
        });
        for _ in 0..20 {
            for ((request, _), expected) in exchanges().iter().zip(&alone) {
                let found = exchange(&daemon, request);
                assert_eq!(found.escape_ascii().to_string(), expected.escape_ascii().to_string());
            }
        }
    });
    for (n, mut caller) in others.into_iter().enumerate() {
        if n % kinds.len() == 4 {
            continue;
        }
        caller.stdin("still here\n");
        caller.end_stdin();
        let reply = caller.reply();
        assert!(reply.stdout_text().contains("still here"), "{n}: {reply:?}");
        assert_eq!(reply.code(), 0);
    }
}

#[track_caller]
fn exchange(daemon: &Daemon, request: &[u8]) -> Vec<u8> {
    let mut client = daemon.connect();
    client.send(request);
    client.rest()
}

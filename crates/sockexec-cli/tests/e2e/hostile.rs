//! Many hostile clients, and an honest one beside them whose answers are checked byte by byte.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::{Daemon, Launch, eventually, pattern, request, steps};
use crate::limits::raise_own_limit;
use crate::version_2::status::status;

/// Runs `hostile` beside an honest client. Afterwards the daemon must be as before.
#[track_caller]
fn beside_an_honest_client(options: &str, hostile: impl FnOnce(&Daemon) + Send) {
    raise_own_limit();
    let launch = Launch::default().quiet().options(options);
    let mut daemon = launch.prelude("ulimit -n $(ulimit -H -n) || :").start();
    daemon.assert_serves();
    let process = daemon.process();
    eventually("no child", || process.children() == (0, 0));
    process.wait_until_blocked();
    let before = process.descriptors();
    let over = AtomicBool::new(false);
    let answers = thread::scope(|scope| {
        let honest = scope.spawn(|| {
            let bytes = pattern(100_000);
            let mut answers = 0;
            while !over.load(Ordering::Acquire) || answers < 3 {
                let reply = daemon.run(&steps("err honest cat"), &bytes);
                assert!(reply.stdout == bytes, "{} bytes of 100000", reply.stdout.len());
                assert_eq!((reply.stderr_text(), reply.code()), ("honest", 0));
                answers += 1;
            }
            answers
        });
        // The honest client runs to its end even if the others fail.
        let outcome = catch_unwind(AssertUnwindSafe(|| hostile(&daemon)));
        over.store(true, Ordering::Release);
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
        honest.join().expect("honest answers")
    });
    println!("{answers} honest answers");
    daemon.assert_serves();
    eventually("nothing left of them", || process.children() == (0, 0) && process.descriptors() <= before);
    assert_eq!(daemon.terminate().status.code(), Some(0));
}

fn connect(daemon: &Daemon) -> UnixStream {
    let socket = UnixStream::connect(daemon.socket()).expect("a daemon to connect to");
    socket.set_read_timeout(Some(crate::common::PATIENCE)).expect("a time-out");
    socket
}

/// 90 unfinished requests of 65,535 arguments of one byte each used to take 279 MB.
#[test]
fn many_short_arguments_take_little_memory() {
    let daemon = Daemon::start("-t 0 --request-timeout 0");
    let request = ["5:65536,".to_owned(), "1:a,".repeat(65_535)].concat();
    let clients: Vec<_> = (0..90)
        .map(|_| {
            let mut client = daemon.connect();
            client.send(request.as_bytes());
            client
        })
        .collect();
    let all = u64::try_from(90 * request.len()).unwrap();
    eventually("all of it taken", || status(&daemon)["totals"]["bytes_in"].as_u64().is_some_and(|bytes| bytes >= all));
    assert!(daemon.process().peak_kib() < 64 << 10, "{} KiB", daemon.process().peak_kib());
    for mut client in clients.into_iter().take(2) {
        client.send(b"9:/bin/true,");
        let reply = client.reply();
        assert!(reply.stderr_text().contains("sockexec: a: "), "{reply:?}");
    }
}

/// Parsing 65,000 arguments takes milliseconds. They arrive at once, and others get their turns
/// between pieces of 64 KiB.
#[test]
fn many_arguments_in_one_write_delay_nobody() {
    let daemon = Daemon::start("-t 0");
    let before = daemon.turns().0;
    daemon.stop();
    let mut socket = connect(&daemon);
    // All of it must fit into the socket's queue. Linux allows twice 208 KiB everywhere.
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, 1 << 20).expect("a size");
    socket.set_nonblocking(true).expect("a mode");
    // The error is at the end of the request, so the answer shows that the daemon has read all of
    // it.
    let bytes = ["5:65536,".to_owned(), "3:abc,".repeat(65_000), "x".to_owned()].concat();
    socket.write_all(bytes.as_bytes()).expect("room for it");
    socket.set_nonblocking(false).expect("a mode");
    daemon.signal(Signal::CONT);
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("bad request"), "{answer}");
    // If all is read in one turn, it takes two to four turns, including those for the connection's
    // begin and end.
    let made = daemon.turns().0 - before;
    assert!(made > bytes.len() as u64 >> 16, "{made} turns for {} bytes", bytes.len());
}

/// Clients that send nothing, or half a request, or that start a program and then send no input.
#[test]
fn two_thousand_half_open_connections_hurt_nobody() {
    beside_an_honest_client("-t 0 -k 1 -m 2200 -q 4000", |daemon| {
        let whole = request(&["cat"]);
        let clients: Vec<UnixStream> = (0..2000)
            .map(|n| {
                let mut socket = connect(daemon);
                // One in forty starts a program.
                let len = if n % 40 == 0 { whole.len() } else { n % whole.len() };
                socket.write_all(&whole[..len]).expect("the daemon reads");
                socket
            })
            .collect();
        drop(clients);
    });
}

/// More clients than slots, until their time for a request is over. The honest client, whose requests
/// have the same time, gets its turn.
#[test]
fn half_open_connections_on_every_slot_hurt_nobody() {
    beside_an_honest_client("-t 0 --request-timeout 3 -m 8", |daemon| {
        let clients: Vec<UnixStream> = (0..40).map(|_| connect(daemon)).collect();
        for mut client in clients {
            // The connection is closed without a word, because nothing was asked.
            let mut told = Vec::new();
            assert_eq!(client.read_to_end(&mut told).expect("an end"), 0, "{}", told.escape_ascii());
        }
    });
}

/// A thousand clients at once send a byte at a time. Each is served.
#[test]
fn a_thousand_clients_may_send_a_byte_at_a_time() {
    // A busy machine may need more than a second for a byte of each, and ten for all. There are places
    // enough, so none must go because it is silent.
    beside_an_honest_client("-t 0 -m 1100 -q 2000 --request-timeout 0 --max-waiting 1100", |daemon| {
        let bytes = [request(&["printf", "x"]).as_slice(), b"0:,"].concat();
        let mut clients: Vec<UnixStream> = (0..1000).map(|_| connect(daemon)).collect();
        for byte in &bytes {
            for client in &mut clients {
                client.write_all(&[*byte]).expect("the daemon reads");
            }
        }
        for mut client in clients {
            let mut reply = Vec::new();
            client.read_to_end(&mut reply).expect("an answer");
            assert_eq!(reply, b"6:stdout,1:x,8:exitcode,1:0,");
        }
    });
}

/// Some send for ever to programs that do not read. The others read nothing from programs that
/// write for ever.
#[test]
fn floods_in_both_directions() {
    beside_an_honest_client("-t 0 -k 0.3 -m 200 --spool 2M", |daemon| {
        let mut clients = Vec::new();
        for n in 0..60 {
            let mut socket = connect(daemon);
            socket.set_write_timeout(Some(Duration::from_millis(50))).expect("a time-out");
            socket.write_all(&request(&steps(["wait", "flood", "close 0 flood"][n % 3]))).expect("the daemon reads");
            let _ = socket.write_all(b"9000000000000:");
            clients.push(socket);
        }
        let block = vec![b'x'; 1 << 16];
        for _ in 0..5 {
            for client in &mut clients {
                // Until nothing more fits.
                let _ = client.write(&block);
            }
        }
    });
}

/// Garbage of every kind. Each client gets its answer.
#[test]
fn two_thousand_clients_with_garbage_are_answered() {
    beside_an_honest_client("-t 0 -m 50", |daemon| {
        let rubbish: [&[u8]; 8] = [
            b"GET / HTTP/1.0\r\n\r\n",
            b":",
            b"0:,",
            b"1:0,",
            b"99999999999:",
            b"1:1,3:cat,x",
            b"\0\0\0\0",
            b"1:1,3:a\0b,",
        ];
        for n in 0..2000 {
            let mut socket = connect(daemon);
            socket.write_all(rubbish[n % rubbish.len()]).expect("the daemon reads");
            let mut reply = Vec::new();
            socket.read_to_end(&mut reply).expect("an answer");
            let text = String::from_utf8_lossy(&reply);
            assert!(text.contains("bad request") && text.ends_with("8:exitcode,3:125,"), "{text}");
        }
    });
}

/// Clients that vanish after each byte of a request and of its answer.
#[test]
fn three_thousand_clients_that_vanish_leave_nothing() {
    beside_an_honest_client("-t 0 -k 0.3 -m 50", |daemon| {
        let whole = [request(&steps("out answer cat")).as_slice(), b"5:input,0:,"].concat();
        for n in 0..3000 {
            let mut socket = connect(daemon);
            let sent = n % (whole.len() + 20);
            socket.write_all(&whole[..sent.min(whole.len())]).expect("the daemon reads");
            if sent > whole.len() {
                let mut part = vec![0; sent - whole.len()];
                socket.read_exact(&mut part).expect("a part of the answer");
            }
        }
    });
}

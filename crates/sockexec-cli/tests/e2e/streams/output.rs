//! Output: whole, in order, and the exit pair once and last.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::process::Command;

use sockexec_proto::Stream;
use sockexec_proto::reply::whole_pairs;

use super::assert_pattern;
use crate::common::{Client, Daemon, Launch, eventually, exit_code, kernel_is_before, steps};
use crate::pattern::Pattern;

/// In 3.1.1 the exit pair came before the output in 143 of 300 runs.
#[test]
fn the_exit_pair_is_last_300_times() {
    let daemon = Daemon::start("");
    for _ in 0..300 {
        let reply = daemon.run(&["printf", "hello"], b"");
        assert_eq!((reply.stdout_text(), reply.code()), ("hello", 0));
    }
}

/// The same for several programs at a time, so that one turn of the loop sees ends and output of
/// many.
#[test]
fn the_exit_pair_is_last_beside_others() {
    let daemon = Daemon::start("");
    for _ in 0..20 {
        let clients: Vec<Client> = (0..16).map(|n| daemon.exec(&["printf", "%s", &n.to_string()])).collect();
        for (n, client) in clients.into_iter().enumerate() {
            let reply = client.reply();
            assert_eq!((reply.stdout_text(), reply.code()), (n.to_string().as_str(), 0));
        }
    }
}

/// Output that still fills the pipe when the program exits is read to its end.
#[test]
fn output_of_many_sizes_is_whole() {
    let daemon = Daemon::start("");
    for len in [1, 2, 4095, 4096, 4097, 65_535, 65_536, 65_537, 99_999, 1 << 20, 3_000_001] {
        for step in ["write-out", "write-err"] {
            let reply = daemon.run(&steps(&format!("{step} {len}")), b"");
            let (stream, other) =
                if step == "write-out" { (&reply.stdout, &reply.stderr) } else { (&reply.stderr, &reply.stdout) };
            assert!(Pattern::new().check(stream), "{step} {len}");
            assert_eq!((stream.len(), other.len(), reply.code()), (len, 0, 0), "{step}");
        }
    }
}

/// The pages of the pipe are not full, and the pieces fit no frame.
#[test]
fn output_in_pieces_is_whole() {
    let daemon = Daemon::start("");
    for piece in [1000, 2049, 4095, 4097, 48 << 10, 65_000] {
        assert_pattern(daemon.exec(&steps(&format!("write-pieces 10000000 {piece}"))), 10_000_000);
    }
}

/// A pipe with `O_DIRECT` keeps separate writes apart. So a frame has many pieces, more than one
/// call puts together.
#[cfg(target_os = "linux")]
#[test]
fn output_in_packets_is_whole() {
    let daemon = Daemon::start("");
    for piece in [100, 1000, 4096] {
        assert_pattern(daemon.exec(&steps(&format!("packets write-pieces 4000000 {piece}"))), 4_000_000);
    }
}

/// A frame's head promises bytes that are gone when the frame is put together.
#[cfg(target_os = "linux")]
#[test]
fn a_program_may_read_its_own_output() {
    let daemon = Daemon::start("");
    for _ in 0..10 {
        let reply = daemon.run(&steps("spawn [ steal 4000000 ] write-out 8000000"), b"");
        assert_eq!((reply.code(), reply.stderr_text()), (0, ""));
        assert!((4_000_000..=8_000_000).contains(&reply.stdout.len()), "{}", reply.stdout.len());
    }
}

/// lua-resty-exec waits a millisecond for the rest of a payload, and then loses its place. So
/// whatever a client finds in the socket ends with a frame, no matter how fast it reads.
#[cfg(target_os = "linux")]
#[test]
fn what_was_sent_ends_with_a_frame() {
    let mut launch = Launch::default();
    if kernel_is_before(6, 5) {
        // There each splice(2) moves one page, and a client on another processor may be faster than
        // the call.
        launch = launch.env("SOCKEXEC_TRANSFER", "copy");
    }
    let daemon = launch.start();
    let mut client = daemon.exec(&steps("write-out 30000000"));
    client.end_stdin();
    let mut socket = client.socket();
    socket.set_nonblocking(true).unwrap();
    let (mut bytes, mut output, mut waits) = (Vec::new(), 0, 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                assert_eq!(whole_pairs(&bytes, usize::MAX), bytes.len(), "half a frame after {output} bytes");
                output += bytes.len();
                bytes.clear();
                waits += 1;
                wait_until_readable(socket);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(waits > 10 && output + bytes.len() > 30_000_000, "{waits} waits, {output} bytes");
}

#[cfg(target_os = "linux")]
fn wait_until_readable(socket: &UnixStream) {
    use rustix::event::{PollFd, PollFlags, poll};
    poll(&mut [PollFd::new(socket, PollFlags::IN)], None).unwrap();
}

/// Big streams are spliced both ways, and copied where splicing is not possible. How much of a
/// stream is read before it counts as big depends on timing. On a loaded machine the daemon often
/// finds the pipe half full, and copies that.
#[cfg(target_os = "linux")]
#[test]
fn big_streams_are_spliced() {
    let chunk: Vec<u8> = (0..=250).cycle().take(251 * 400).collect();
    let len = chunk.len() as u64 * 1000;
    for (transfer, expected) in [("splice", 0..len), ("copy", len..len + len / 2)] {
        let daemon = Launch::default().env("SOCKEXEC_TRANSFER", transfer).start();
        let before = daemon.process().copied("rchar");
        let mut client = daemon.exec(&steps(&format!("write-out {len}")));
        // Otherwise the part that a slow client has not read goes through the spool's file, and is
        // copied twice.
        client.end_stdin();
        assert_pattern(client, len);
        let copied = daemon.process().copied("rchar") - before;
        assert!(expected.contains(&copied), "{transfer}: {copied} bytes of output were copied");

        let before = daemon.process().copied("wchar");
        let mut client = daemon.exec(&steps("verify"));
        (0..1000).for_each(|_| client.stdin(&chunk));
        client.end_stdin();
        assert_eq!(client.reply().stdout_text(), format!("ok {len}\n"));
        let copied = daemon.process().copied("wchar") - before;
        assert!(expected.contains(&copied), "{transfer}: {copied} bytes of input were copied");
    }
}

/// Two large streams at once: neither loses bytes or waits for the other.
#[test]
fn two_large_streams_are_whole() {
    let daemon = Daemon::start("");
    let len = 20 << 20;
    let client = {
        let mut client = daemon.exec(&steps(&format!("spawn [ write-err {len} ] write-out {len} reap")));
        client.end_stdin();
        client
    };
    let (mut out, mut err) = (Pattern::new(), Pattern::new());
    let exit = client.stream(|stream, bytes| {
        let pattern = if stream == Stream::Stdout { &mut out } else { &mut err };
        assert!(pattern.check(bytes), "{stream:?}: wrong after {} bytes", pattern.position());
    });
    assert_eq!((out.position(), err.position(), exit_code(&exit)), (len, len, 0));
}

/// A closed stream is not the program's end.
#[test]
fn the_program_closes_its_output_early() {
    let daemon = Daemon::start("");
    for closed in ["close 1", "close 2", "close 1 close 2"] {
        let gate = daemon.gate(closed);
        let mut argv = steps(&format!("out a err b {closed} gate"));
        argv.push(gate.path().to_owned());
        argv.extend(["exit".to_owned(), "8".to_owned()]);
        let mut client = daemon.exec(&argv);
        client.end_stdin();
        gate.open();
        let reply = client.reply();
        assert_eq!((reply.stdout_text(), reply.stderr_text(), reply.code()), ("a", "b", 8), "{closed}");
    }
}

/// A client with a timeout of its own takes a late end of the stream for a failure. The end must
/// follow the exit pair in the same turn of the loop, before it waits for events again.
#[test]
fn the_end_follows_the_exit_pair_at_once() {
    let traceable = Command::new("strace").args(["-D", "-qq", "-o", "/dev/null", "true"]).status();
    if !traceable.is_ok_and(|status| status.success()) {
        eprintln!("skipped: strace(1) is missing or may not trace");
        return;
    }
    let prelude = "exec strace -D -qq -s 200 -o trace \"$0\" \"$@\"";
    let mut daemon = Launch::default().prelude(prelude).start();
    for _ in 0..40 {
        assert_eq!(daemon.run(&["true"], b"").code(), 0);
    }
    let trace = daemon.directory().join("trace");
    assert!(daemon.terminate().status.success());
    let mut ends = 0;
    eventually("the end of the trace", || fs::read_to_string(&trace).unwrap().contains("exit_group("));
    let trace = fs::read_to_string(&trace).unwrap();
    let mut lines = trace.lines();
    while let Some(line) = lines.next() {
        if !line.contains("8:exitcode,") || line.starts_with("read") || line.starts_with("recv") {
            continue;
        }
        let next = lines
            .by_ref()
            .find(|line| {
                ["shutdown(", "epoll_", "poll(", "ppoll(", "select("].iter().any(|call| line.starts_with(call))
            })
            .unwrap_or_default();
        let is_end = next.starts_with("shutdown(") || next.starts_with("epoll_ctl(");
        assert!(is_end, "{line}\nis followed by\n{next}");
        ends += 1;
    }
    assert_eq!(ends, 40, "{trace}");
}

//! Requests and replies: what is accepted, in whatever pieces it comes, and what is refused.

use sockexec_proto::RequestDecoder;
use sockexec_proto::request::Event;

use crate::common::{Client, Daemon, Process, request, steps};
use crate::pattern::Pattern;

/// The example of the manual, byte for byte.
#[test]
fn the_smallest_request() {
    let daemon = Daemon::start("");
    let mut client = daemon.connect();
    client.send(b"1:2,5:uname,2:-a,0:,");
    let reply = client.reply();
    assert!(reply.stdout.starts_with(b"Linux ") || !reply.stdout.is_empty(), "{reply:?}");
    assert_eq!(reply.exit, ("exitcode".to_owned(), "0".to_owned()));
}

#[test]
fn the_reply_is_pairs_the_exit_pair_last() {
    let daemon = Daemon::start("");
    let reply = daemon.run(&steps("out hello exit 7"), b"");
    assert_eq!(reply.pairs, [("stdout".into(), b"hello".to_vec()), ("exitcode".into(), b"7".to_vec())]);
}

#[test]
fn both_streams_are_kept_apart() {
    let daemon = Daemon::start("");
    let reply = daemon.run(&steps("out a err b out c err d"), b"");
    assert_eq!((reply.stdout_text(), reply.stderr_text(), reply.code()), ("ac", "bd", 0));
}

/// The program starts at the last argument's comma, before any stdin.
#[test]
fn the_program_starts_before_stdin() {
    let daemon = Daemon::start("");
    let mut client = daemon.exec(&steps("out ready cat"));
    client.wait_for("5:ready");
    client.stdin(b"later");
    client.end_stdin();
    assert_eq!(client.reply().stdout, b"readylater");
}

/// With 3.1.1, stdin and arguments that came in fragments were corrupted, or misread and not
/// answered.
#[test]
fn a_request_may_come_byte_by_byte() {
    let daemon = Daemon::start("");
    let mut bytes = request(&steps("args one two"));
    bytes.extend_from_slice(b"5:stdin,0:,");
    let mut client = daemon.connect();
    for byte in bytes {
        // The program may end before its stdin does. The daemon reads the rest all the same.
        client.send(&[byte]);
    }
    let reply = client.reply();
    assert!(reply.stdout.ends_with(b"\0args\0one\0two\0"), "{reply:?}");
}

/// Stdin makes 60 round trips, cut at different places each time.
#[test]
fn stdin_in_fragments_comes_back_whole() {
    let daemon = Daemon::start("");
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    for trip in 0..60 {
        let mut wire = request(&steps("cat"));
        let mut sent = Vec::new();
        for _ in 0..=random(6) {
            let chunk = Pattern::new().peek(1 + random(3000) as u64).to_vec();
            wire.extend_from_slice(format!("{}:", chunk.len()).as_bytes());
            wire.extend_from_slice(&chunk);
            wire.push(b',');
            sent.extend_from_slice(&chunk);
        }
        wire.extend_from_slice(b"0:,");
        let mut client = daemon.connect();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(1 + random(700)));
            client.send(piece);
            rest = after;
        }
        let reply = client.reply();
        assert!(reply.stdout == sent, "round trip {trip}: {} of {} bytes", reply.stdout.len(), sent.len());
        assert_eq!(reply.code(), 0);
    }
}

/// With 3.1.1, bytes after the end of stdin reached the program.
#[test]
fn bytes_after_the_end_of_stdin_are_dropped() {
    let daemon = Daemon::start("");
    for tail in [&b"6:hidden,0:,"[..], b"not a netstring", b"99999999999999999999:", b"0:,0:,0:,", b"\0\0\0"] {
        let mut client = daemon.exec(&steps("cat"));
        client.stdin(b"seen");
        client.send(&[b"0:,", tail].concat());
        // The reply may be complete by now. Then the daemon takes no more, and still nothing is refused.
        let _ = client.try_send(tail);
        let reply = client.reply();
        assert_eq!((reply.stdout_text(), reply.stderr_text(), reply.code()), ("seen", "", 0), "{tail:?}");
    }
}

/// Leading zeros of the number of arguments are ignored.
#[test]
fn odd_but_legal_numbers_are_accepted() {
    let daemon = Daemon::start("");
    for count in ["3:003", "20:00000000000000000003", "1:3"] {
        let mut client = daemon.connect();
        client.send(format!("{count},").as_bytes());
        let whole = request(&steps("exit 5"));
        client.send(&whole[4..]);
        client.end_stdin();
        assert_eq!(client.reply().code(), 5, "{count}");
    }
}

#[test]
fn arguments_are_opaque_bytes() {
    let daemon = Daemon::start("");
    let all: Vec<u8> = (1..=255).collect();
    let argv: Vec<&[u8]> =
        vec![crate::common::fixture().as_bytes(), b"args", b"", b" ", b"$HOME", b"a b\n", &all, b"1:x,", b""];
    let reply = daemon.run(&argv, b"");
    let expected: Vec<u8> = argv.iter().flat_map(|arg| [arg, &b"\0"[..]].concat()).collect();
    assert!(reply.stdout == expected, "{reply:?}");
}

/// The kernel takes an argument of 100 KiB, and it needs more than one read.
#[test]
fn a_long_argument_and_many_arguments_arrive() {
    let daemon = Daemon::start("");
    let long = vec![b'x'; 100 << 10];
    let mut argv: Vec<Vec<u8>> = steps("args").into_iter().map(String::into_bytes).collect();
    argv.push(long.clone());
    argv.extend((0..5000).map(|n| format!("argument {n}").into_bytes()));
    let reply = daemon.run(&argv, b"");
    let printed: Vec<&[u8]> = reply.stdout.split(|&byte| byte == 0).collect();
    assert_eq!(printed.len(), argv.len() + 1);
    assert!(printed[2] == long);
    assert_eq!(printed[argv.len() - 1], b"argument 4999");
}

/// Requests that their bytes alone show to be wrong, without an end of file.
fn bad_requests() -> Vec<(String, Vec<u8>)> {
    let mut cases: Vec<(String, Vec<u8>)> = [
        "abc",
        "GET / HTTP/1.0\r\n\r\n",
        "99999999999:x",
        ":",
        ",",
        ":,",
        " 1:2,",
        "-1:x,",
        "+1:2,",
        "\n",
        "\0",
        "x",
        "1x",
        "1 :2,",
        "1;2,",
        "01:2,",
        "00:,",
        "000000001:2,",
        "0:,",
        "1:0,",
        "2:00,",
        "1:a,",
        "2:-1,",
        "2:+1,",
        "3:1.5,",
        "1: ,",
        "3:0x2,",
        "2: 2,",
        "2:2 ,",
        "1:\0,",
        "8:protocol,",
        "20:18446744073709551616,",
        "20:99999999999999999999,",
        "21:",
        "1:22",
        "1:2;",
        "1:2:",
        "1:2,,",
        "1:2,x",
        "1:2,-1:",
        "1:2,1:ab",
        "1:2,01:a,",
        "1:2,999999999",
        "1:2,99999999:",
        "1:2,4194304:",
        "5:65537,",
        "6:100000,",
        "19:9223372036854775807,",
        "1:1,3:a\0b,",
        "1:1,1:\0,",
        "1:2,4:true,2:\0x,",
        "1:2,4:true\n",
        "1:2\n",
        "4:true,",
        "1:1, 4:true,",
        "{\"cmd\":[\"true\"]}",
        "\u{16}\u{3}\u{1}",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "4294967296:",
        "4294967295:",
        "8388608:",
    ]
    .iter()
    .map(|case| ((*case).to_owned(), case.as_bytes().to_vec()))
    .collect();
    cases.push(("a byte that is not ASCII".into(), vec![0xff]));
    cases.push(("all bytes".into(), (0..=255).collect()));
    cases.push(("digits without an end".into(), vec![b'1'; 100_000]));
    cases.push(("zeros without an end".into(), vec![b'0'; 100_000]));
    let mut late = request(&["true"; 1000]);
    late.pop();
    late.push(b'!');
    cases.push(("the last comma of a thousand arguments".into(), late));
    let mut large = b"1:9,".to_vec();
    for _ in 0..4 {
        large.extend_from_slice(b"1048576:");
        large.extend_from_slice(&vec![b'x'; 1 << 20]);
        large.push(b',');
    }
    cases.push(("more than 4 MiB of arguments".into(), large));
    cases
}

/// The answer that the daemon must give.
fn refusal(bytes: &[u8], end_of_file: bool) -> String {
    let mut decoder = RequestDecoder::new();
    let mut rest = bytes;
    let error = loop {
        match decoder.next(rest) {
            Err(error) => break error,
            Ok((_, Event::NeedMore)) if end_of_file => {
                break decoder.end_of_file().expect_err("a request that ends early");
            }
            Ok((used, Event::Stdin(len))) => {
                let take = (rest.len() - used).min(usize::try_from(len).unwrap());
                decoder.advance(take as u64);
                rest = &rest[used + take..];
            }
            Ok((used, Event::Exec(_))) => rest = &rest[used..],
            Ok((_, event)) => panic!("{event:?} in {}", bytes.escape_ascii()),
        }
    };
    format!("sockexec: bad request: {error}\n")
}

#[track_caller]
fn assert_refused(client: Client, expected: &str, case: &str) {
    let reply = client.reply();
    assert_eq!(reply.stderr_text(), expected, "{case:?}");
    assert_eq!((reply.code(), reply.stdout_text()), (125, ""), "{case:?}");
}

/// With 3.1.1, a first read of `1`, `abc` or `GET / HTTP/1.0` killed the daemon. An invalid number
/// of arguments, or 0, was not answered until the deadline.
#[test]
fn bad_requests_are_answered_and_hurt_nobody_else() {
    let mut daemon = Daemon::start("");
    let own = daemon.process().0;
    for (case, bytes) in bad_requests() {
        let mut client = daemon.connect();
        assert_eq!(client.peer(), own);
        // The answer may come, and the connection end, before the last byte is sent.
        let _ = client.try_send(&bytes);
        assert_refused(client, &refusal(&bytes, false), &case);
        daemon.assert_serves();
    }
}

/// The operator sees who sent a bad request, and what is wrong with it, but not its bytes.
#[test]
fn bad_requests_are_logged() {
    let daemon = Daemon::start("");
    let mut client = daemon.connect();
    client.send(b"abc");
    daemon.wait_for_log(&format!("warning: connection 1 from pid {} uid ", std::process::id()));
    daemon.wait_for_log(": bad request: no digit where a length was expected at byte 0");
}

/// The same with a write for each byte. The error is found at the same byte.
#[test]
fn bad_requests_may_come_byte_by_byte() {
    let mut daemon = Daemon::start("");
    for (case, bytes) in bad_requests().into_iter().filter(|(_, bytes)| bytes.len() < 1000) {
        let mut client = daemon.connect();
        for byte in &bytes {
            if client.try_send(&[*byte]).is_err() {
                break;
            }
        }
        assert_refused(client, &refusal(&bytes, false), &case);
    }
    daemon.assert_serves();
}

/// A program runs beside each bad client, and must not notice.
#[test]
fn a_bad_request_ends_only_its_own_connection() {
    let daemon = Daemon::start("");
    let mut honest = daemon.exec(&steps("out ready cat"));
    honest.wait_for("ready");
    for (_, bytes) in bad_requests() {
        let mut client = daemon.connect();
        let _ = client.try_send(&bytes);
        client.until_gone();
    }
    honest.stdin(b" and well");
    honest.end_stdin();
    assert_eq!(honest.reply().stdout, b"ready and well");
}

/// 3.1.1 died of less than one netstring. Each beginning of a request, with nothing after it, is a
/// request that ends early.
#[test]
fn requests_cut_short_are_refused() {
    let mut daemon = Daemon::start("");
    let whole = b"1:2,5:uname,2:-a,";
    for len in 1..whole.len() {
        let bytes = &whole[..len];
        let mut client = daemon.connect();
        client.send(bytes);
        client.half_close();
        assert_refused(client, &refusal(bytes, true), &bytes.escape_ascii().to_string());
    }
    daemon.assert_serves();
}

/// A port scanner, or a test whether the socket lives. It asks for nothing, so the answer does not
/// matter. It must end, and disturb nobody.
#[test]
fn a_connection_without_a_byte_ends() {
    let mut daemon = Daemon::start("");
    for _ in 0..50 {
        let client = daemon.connect();
        client.half_close();
        client.until_gone();
        drop(daemon.connect());
    }
    daemon.assert_serves();
}

/// The framing of stdin breaks while the program runs. The program ends with the connection.
#[test]
fn bad_stdin_ends_the_program() {
    let mut daemon = Daemon::start("");
    for (n, bytes) in
        ["x", "3:abcd", "01:a,", "99999999999999999999:", "9223372036854775808:", "-1:,"].iter().enumerate()
    {
        let mut life = daemon.fifo(&format!("life{n}"));
        let mut client = daemon.exec(&steps(&format!("hold {} wait", life.path())));
        life.holder();
        let _ = client.try_send(bytes.as_bytes());
        let mut all = request(&steps(&format!("hold {} wait", life.path())));
        all.extend_from_slice(bytes.as_bytes());
        let reply = client.reply();
        assert_eq!(reply.stderr_text(), refusal(&all, false), "{bytes:?}");
        assert_eq!(reply.code(), 125, "{bytes:?}");
        life.wait_for_death();
    }
    daemon.assert_serves();
}

/// A half-close within a chunk is no end of stdin: part of the data is missing, and nobody must
/// take the rest for all of it.
#[test]
fn half_close_within_a_chunk_is_a_bad_request() {
    let mut daemon = Daemon::start("");
    for bytes in ["5:abc", "5:abcde", "5", "5:"] {
        let mut life = daemon.fifo(&format!("life of {bytes}"));
        let mut argv = steps("hold");
        argv.push(life.path().to_owned());
        argv.push("cat".to_owned());
        let mut client = daemon.exec(&argv);
        life.holder();
        client.send(bytes.as_bytes());
        client.half_close();
        let reply = client.reply();
        assert!(reply.stderr_text().contains("bad request"), "{bytes:?}: {reply:?}");
        assert_eq!(reply.code(), 125, "{bytes:?}");
        life.wait_for_death();
    }
    daemon.assert_serves();
}

/// Lengths that are announced and never come cost nothing. They must not be allocated.
#[test]
fn announced_lengths_cost_no_memory() {
    let mut daemon = Daemon::start("");
    daemon.assert_serves();
    let before = daemon.process().peak_kib();
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = daemon.connect();
        client.send(b"1:2,4194000:");
        clients.push(client);
        let mut client = daemon.exec(&steps("cat"));
        client.send(b"9223372036854775807:some");
        client.wait_for("4:some");
        clients.push(client);
    }
    let grown = daemon.process().peak_kib() - before;
    assert!(grown < 8 << 10, "{grown} KiB");
}

/// The process that was started serves every client: it did not crash and come back.
#[test]
fn clients_may_vanish_at_every_byte() {
    let mut daemon = Daemon::start("");
    let own: Process = daemon.process();
    let mut whole = request(&steps("out x cat"));
    whole.extend_from_slice(b"3:abc,0:,rest");
    for len in 0..whole.len() {
        let mut client = daemon.connect();
        assert_eq!(client.peer(), own.0);
        client.send(&whole[..len]);
        drop(client);
    }
    daemon.assert_serves();
}

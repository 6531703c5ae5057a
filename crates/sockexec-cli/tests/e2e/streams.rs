//! Bytes on their way: order, size, and who waits for whom.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sockexec_proto::Stream;
use sockexec_proto::reply::whole_pairs;

use crate::common::{
    Client, Daemon, Fifo, Gate, Launch, Process, eventually, exit_code, kernel_is_before, request, steps,
};
use crate::faults::scenario::pattern;
use crate::pattern::Pattern;

/// More than any buffer between the two ends, a hundred times.
const LARGE: u64 = 400 << 20;

/// What the whole daemon may ever have in memory, in KiB.
const MEMORY: u64 = 16 << 10;

/// 2: of 300 runs 143 had the exit pair before the output.
#[test]
fn the_exit_pair_is_last_300_times() {
    let daemon = Daemon::start("");
    for _ in 0..300 {
        let reply = daemon.run(&["printf", "hello"], b"");
        assert_eq!((reply.stdout_text(), reply.code()), ("hello", 0));
    }
}

/// 2, with several at a time, so that ends and outputs of many are seen in one turn.
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

/// Output that fills the pipe when the program exits is read to its end.
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

/// Pages of the pipe that are not full, in pieces that fit no frame.
#[test]
fn output_in_pieces_of_many_sizes_is_whole() {
    let daemon = Daemon::start("");
    for piece in [1000, 2049, 4095, 4097, 48 << 10, 65_000] {
        assert_pattern(daemon.exec(&steps(&format!("write-pieces 10000000 {piece}"))), 10_000_000);
    }
}

/// A pipe with `O_DIRECT` keeps apart what was written apart: many pieces in one frame, more than are put together
/// at once.
#[cfg(target_os = "linux")]
#[test]
fn output_in_packets_is_whole() {
    let daemon = Daemon::start("");
    for piece in [100, 1000, 4096] {
        assert_pattern(daemon.exec(&steps(&format!("packets write-pieces 4000000 {piece}"))), 4_000_000);
    }
}

/// What a frame's head has promised is not there any more when the frame is put together.
#[cfg(target_os = "linux")]
#[test]
fn a_program_that_reads_its_own_output() {
    let daemon = Daemon::start("");
    for _ in 0..10 {
        let reply = daemon.run(&steps("spawn [ steal 4000000 ] write-out 8000000"), b"");
        assert_eq!((reply.code(), reply.stderr_text()), (0, ""));
        assert!((4_000_000..=8_000_000).contains(&reply.stdout.len()), "{}", reply.stdout.len());
    }
}

/// lua-resty-exec waits a millisecond for the rest of a payload, and then loses its place: whatever a client finds
/// ends with a frame, whether it reads fast, slowly or not at all for a while.
#[cfg(target_os = "linux")]
#[test]
fn what_was_sent_ends_with_a_frame() {
    let mut launch = Launch::default();
    if kernel_is_before(6, 5) {
        // What is spliced comes a page at a time there, and a client on another processor may be faster than the call.
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

/// Big streams are spliced both ways, and copied where splicing is not to be had. How much of a stream shows that it
/// is big depends on who is faster: on a loaded machine the daemon may find a pipe half full most of the time, which is copied.
#[cfg(target_os = "linux")]
#[test]
fn big_streams_are_spliced() {
    let chunk: Vec<u8> = (0..=250).cycle().take(251 * 400).collect();
    let len = chunk.len() as u64 * 1000;
    for (transfer, expected) in [("splice", 0..len), ("copy", len..len + len / 2)] {
        let daemon = Launch::default().env("SOCKEXEC_TRANSFER", transfer).start();
        let before = daemon.process().copied("rchar");
        let mut client = daemon.exec(&steps(&format!("write-out {len}")));
        // Or what a slow client has not read goes through the spool's file, and is copied twice.
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

/// Asserts that the rest of the reply is so much of the pattern, and code 0.
#[track_caller]
fn assert_pattern(client: Client, len: u64) {
    let mut pattern = Pattern::new();
    let exit = client.stream(|stream, bytes| {
        assert_eq!(stream, Stream::Stdout);
        assert!(pattern.check(bytes), "wrong after {} bytes", pattern.position());
    });
    assert_eq!((pattern.position(), exit_code(&exit)), (len, 0));
}

#[track_caller]
fn assert_memory(daemon: &Daemon) {
    let peak = daemon.process().peak_kib();
    assert!(peak < MEMORY, "the daemon had {peak} KiB");
}

/// Both streams at once, each large: neither is lost or waits for the other.
#[test]
fn two_large_streams_at_once() {
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

/// 4: 400 MB of unread output were 393 MB of the daemon's memory. After the end of stdin the program
/// waits for a client that does not read.
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

/// The same before the end of stdin, where there is no spool.
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

/// A spool that is full stops the program too, and what it holds is in order with what follows.
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

/// The client of the nginx module sends all of stdin before it reads a byte: strict backpressure
/// would have both wait for ever, so output goes to the spool.
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
    // Before any client: the end of one may be seen later than its reply.
    let before = daemon.process().descriptors();
    for _ in 0..3 {
        let mut life = daemon.fifo("life");
        let client = daemon.exec(&steps(&format!("hold {} write-out {}", life.path(), 50 << 20)));
        life.holder();
        life.wait_for_death();
        drop(client);
        std::fs::remove_file(life.path()).unwrap();
    }
    crate::common::eventually("no descriptor of a spool left", || daemon.process().descriptors() == before);
    daemon.assert_serves();
}

/// Asserts that a spool that cannot grow stops the program, and loses nothing.
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

/// "A full disk or a full spool only stops the program until the client reads."
#[test]
fn a_full_disk_stops_the_program() {
    let Some(prelude) = small_disk("4m") else { return };
    assert_spool_gives_up_gently(Launch::default().options("-t 0").prelude(&prelude).start());
}

/// What a daemon is started with for spools on a disk of this size, which is its alone, and goes with it.
pub(crate) fn small_disk(size: &str) -> Option<String> {
    let option = format!("size={size}");
    let unshare = ["-rm", "mount", "-t", "tmpfs", "-o", &option, "none", "/mnt"];
    let status = std::process::Command::new("unshare").args(unshare).status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user may not mount a small disk");
        return None;
    }
    Some(format!(
        "[ -n \"$MOUNTED\" ] || exec env MOUNTED=1 unshare -rm sh -c 'mount -t tmpfs -o {option} none /mnt && TMPDIR=/mnt exec \"$0\" \"$@\"' \"$0\" \"$@\""
    ))
}

#[test]
fn no_place_for_a_spool_stops_the_program() {
    assert_spool_gives_up_gently(Launch::default().options("-t 0").env("TMPDIR", "/no/such/directory").start());
}

/// Past `RLIMIT_FSIZE` a write(2) does not only fail: SIGXFSZ ends who does not expect it.
#[test]
fn a_limit_on_the_size_of_files_stops_the_program() {
    assert_spool_gives_up_gently(Launch::default().options("-t 0").prelude("ulimit -f 8192").start());
}

/// As one netstring, as a client that knows the length beforehand does it.
fn send_pattern(client: &mut Client, len: u64) {
    client.send(format!("{len}:").as_bytes());
    let mut pattern = Pattern::new();
    while pattern.position() < len {
        let bytes = pattern.peek(len - pattern.position()).to_vec();
        client.send(&bytes);
        pattern.advance(bytes.len());
    }
    client.send(b",");
}

/// A connection of two ends of ours: one sends while the other reads.
fn halves(daemon: &Daemon, argv: &[String]) -> (Client, UnixStream) {
    let client = daemon.exec(argv);
    let other = client.socket().try_clone().expect("a second descriptor");
    (client, other)
}

/// A single netstring of 400 MB is streamed, not collected.
#[test]
fn one_netstring_of_any_length() {
    let daemon = Daemon::start("-t 0");
    let mut client = daemon.exec(&steps("verify"));
    send_pattern(&mut client, LARGE);
    client.end_stdin();
    assert_eq!(client.reply().stdout_text(), format!("ok {LARGE}\n"));
    assert_memory(&daemon);
}

/// Both ways at once, the client reading meanwhile.
#[test]
fn large_both_ways_at_once() {
    let daemon = Daemon::start("-t 0");
    let (reader, writer) = halves(&daemon, &steps("cat"));
    let writer = thread::spawn(move || {
        let mut client = Client::from(writer);
        send_pattern(&mut client, LARGE);
        client.end_stdin();
    });
    assert_pattern(reader, LARGE);
    writer.join().expect("all was sent");
    assert_memory(&daemon);
}

/// Bounded for each is not enough: a hundred clients that do not read are within the same 16 MiB.
#[test]
fn many_spools_share_the_memory() {
    let daemon = Launch::default().options("-t 0 -m 100").prelude("ulimit -n $(ulimit -H -n) || :").start();
    let len = 4_000_000;
    let clients: Vec<Client> = (0..80).map(|_| daemon.exec(&steps(&format!("write-out {len}")))).collect();
    // Not one of them is read; each program ends because all of its output was taken.
    eventually("the end of the programs", || daemon.log_text().matches("ended: exit code 0").count() == 80);
    assert_memory(&daemon);
    for mut client in clients {
        client.end_stdin();
        assert_pattern(client, len);
    }
    assert_memory(&daemon);
}

/// A background job has the input and does not read it; the program has exited. What the client still sends is dropped,
/// and it gets its answer: it waited, and then had EPIPE and half a reply.
#[test]
fn a_job_that_inherited_the_input_is_not_waited_for() {
    let daemon = Daemon::start("-t 0");
    let mut job = daemon.fifo("job");
    let argv = format!("spawn [ close 1 close 2 hold {} wait ] write-out 1000000 exit 3", job.path());
    let mut client = daemon.exec(&steps(&argv));
    let holder = job.holder();
    client.stdin(&vec![b'x'; 4 << 20]);
    client.end_stdin();
    let reply = client.reply();
    assert_eq!((reply.stdout.len(), reply.code()), (1_000_000, 3));
    assert!(job.is_held(), "the job was waited for");
    holder.kill();
}

/// 4: 400 MB of stdin for a program that does not read. The sender waits; then all of it arrives.
#[test]
fn a_program_that_does_not_read_stops_the_sender() {
    let daemon = Daemon::start("-t 0");
    let gate = daemon.gate("gate");
    let mut client = daemon.exec(&steps(&format!("gate {} verify", gate.path())));
    client.send(format!("{LARGE}:").as_bytes());
    let mut pattern = Pattern::new();
    let sent = client.send_until_blocked(|| {
        let bytes = pattern.peek(LARGE - pattern.position()).to_vec();
        pattern.advance(bytes.len());
        bytes
    });
    assert!(sent < 8 << 20, "the daemon took {sent} bytes");
    assert_memory(&daemon);
    gate.open();
    let mut pattern = Pattern::new();
    while pattern.position() < sent {
        let len = pattern.peek(sent - pattern.position()).len();
        pattern.advance(len);
    }
    while pattern.position() < LARGE {
        let bytes = pattern.peek(LARGE - pattern.position()).to_vec();
        client.send(&bytes);
        pattern.advance(bytes.len());
    }
    client.send(b",");
    client.end_stdin();
    assert_eq!(client.reply().stdout_text(), format!("ok {LARGE}\n"));
    assert_memory(&daemon);
}

/// 3: the program exits while stdin comes: of 300 clients 143 saw EPIPE, 116 ECONNRESET, 46 two exit
/// pairs. Each is to be able to send all it has, then read its answer.
#[test]
fn the_program_exits_while_stdin_comes_300_times() {
    let daemon = Daemon::start("");
    let mut stdin = request(&steps("read 1 out done exit 3"));
    stdin.extend_from_slice(b"300000:");
    stdin.extend_from_slice(&vec![b'x'; 300_000]);
    stdin.extend_from_slice(b",0:,");
    for _ in 0..300 {
        let mut client = daemon.connect();
        for piece in stdin.chunks(20_000) {
            client.send(piece);
        }
        let reply = client.reply();
        assert_eq!((reply.stdout_text(), reply.code()), ("done", 3));
    }
}

/// 3: the same with a reader and a sender at the same time, as a client with two threads has it.
#[test]
fn the_exit_pair_comes_while_the_client_still_sends() {
    let daemon = Daemon::start("");
    for _ in 0..50 {
        let (reader, mut writer) = halves(&daemon, &steps("out first read 70000 out done exit 4"));
        let sender = thread::spawn(move || {
            use std::io::Write;
            writer.write_all(b"2000000:")?;
            writer.write_all(&vec![b'x'; 2_000_000])?;
            writer.write_all(b",0:,")
        });
        let reply = reader.reply();
        assert_eq!((reply.stdout_text(), reply.code()), ("firstdone", 4));
        sender.join().expect("no panic").expect("all of stdin is taken");
    }
}

/// The program gives stdin up early and goes on: its output and its status are still told.
#[test]
fn the_program_closes_stdin_early() {
    let daemon = Daemon::start("");
    let stdin = vec![b'x'; 2 << 20];
    for _ in 0..20 {
        let mut client = daemon.exec(&steps("close 0 out closed write-out 100000 exit 6"));
        client.wait_for("closed");
        client.stdin(&stdin);
        client.end_stdin();
        let reply = client.reply();
        assert!(Pattern::new().check(&reply.stdout[6..]));
        assert_eq!((reply.stdout.len(), reply.code()), (100_006, 6));
    }
}

/// The streams end one by one; neither is taken for the program's end.
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

/// 8: a half-close was taken for a disconnect; `printf … | socat - UNIX:…` never got an answer.
#[test]
fn half_close_is_the_end_of_stdin() {
    let daemon = Daemon::start("");
    let mut client = daemon.exec(&steps("cat exit 9"));
    client.stdin(b"all of it");
    client.half_close();
    let reply = client.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("all of it", 9));
    // Right after the arguments, and after the end of stdin, where it says nothing new.
    let client = daemon.exec(&steps("cat exit 9"));
    client.half_close();
    assert_eq!(client.reply().code(), 9);
    let mut client = daemon.exec(&steps("cat exit 9"));
    client.end_stdin();
    client.half_close();
    assert_eq!(client.reply().code(), 9);
}

/// With megabytes each way before and after the half-close.
#[test]
fn half_close_with_much_on_its_way() {
    let daemon = Daemon::start("");
    let len = 30 << 20;
    let mut client = daemon.exec(&steps("cat"));
    send_pattern(&mut client, len);
    client.half_close();
    assert_pattern(client, len);
}

/// How much of a big chunk is read as it comes.
pub(crate) const BIG: usize = 2_000_000;

/// How much of it comes after that, in bytes: all of it waits in the socket then.
pub(crate) const TAILS: [usize; 4] = [0, 1, 20_000, 100_000];

/// A program that reads all but the tail, and that when the gate opens; its pipe takes a page by then.
pub(crate) fn reads_the_tail_late(gate: &Gate) -> Vec<String> {
    steps(&format!("read {BIG} narrow err ready gate {} cat exit 3", gate.path()))
}

/// Of a tail so many bytes, and how many are missing at its end, the comma among them.
pub(crate) const TORN_TAILS: [(usize, usize); 5] = [(0, 1), (1, 1), (1, 2), (100_000, 1), (100_000, 50_000)];

/// One that reads what comes of the tail, and does not end by itself.
pub(crate) fn reads_the_tail_and_waits(life: &Fifo) -> Vec<String> {
    steps(&format!("hold {} read {BIG} narrow err ready cat wait", life.path()))
}

/// A big chunk with that much of a tail, and a half-close right behind it, or where `missing` bytes of its end are missing: the tail.
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

/// A half-close together with the end of a big chunk for a program that does not read: the end of the input, which comes after the
/// last byte.
#[test]
fn half_close_right_behind_a_big_chunk() {
    for transfer in ["splice", "copy"] {
        let mut daemon = Launch::default().options("-t 0").env("SOCKEXEC_TRANSFER", transfer).start();
        for len in TAILS {
            let gate = daemon.gate(&format!("gate{len}"));
            let mut client = daemon.exec(&reads_the_tail_late(&gate));
            let tail = send_and_half_close(&mut client, "", len, 0);
            // Whoever comes later is served later: by then the daemon has done with the tail what can be done.
            daemon.assert_serves();
            gate.open();
            let reply = client.reply();
            assert_eq!((reply.stderr_text(), reply.code()), ("ready", 3), "{transfer}, {len}: {reply:?}");
            assert!(reply.stdout == tail, "{transfer}: {} of {len} bytes", reply.stdout.len());
        }
    }
}

/// The same without the comma, or without bytes before it: a request that ends early, however much was spliced before.
#[test]
fn half_close_within_a_big_chunk() {
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

/// One client pulls without end; the others have their turns.
#[test]
fn a_flood_does_not_starve_others() {
    let daemon = Daemon::start("-t 0 -k 1");
    let idle = median_of_small_requests(&daemon);
    let flood = daemon.exec(&steps("flood"));
    let socket = flood.socket().try_clone().expect("a second descriptor");
    let (begins, has_begun) = mpsc::channel();
    let reader = thread::spawn(move || {
        use std::io::Read;
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
    let beside = median_of_small_requests(&daemon);
    socket.shutdown(std::net::Shutdown::Both).expect("a close");
    let pulled = reader.join().expect("no panic");
    println!("{idle:?} idle, {beside:?} beside a flood of {} MB", pulled / 1_000_000);
    assert!(pulled > 0);
    // Three times; what a loaded machine adds is the scheduler's, for four processes want two processors then.
    assert!(beside <= 3 * idle + Duration::from_millis(100), "{idle:?} idle, {beside:?} beside a flood");
    assert_memory(&daemon);
}

/// Chunk by chunk, each answered before the next is sent: nothing is held back.
#[test]
fn a_dialogue() {
    let daemon = Daemon::start("");
    daemon.exec(&steps("cat")).dialogue(200);
}

/// 15: a client with a time-out of its own takes a late end of the stream for a failure. The end must
/// follow the exit pair in the same turn of the loop: no waiting for events comes in between.
#[test]
fn the_end_follows_the_exit_pair_at_once() {
    let traceable = std::process::Command::new("strace").args(["-D", "-qq", "-o", "/dev/null", "true"]).status();
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
    crate::common::eventually("the end of the trace", || {
        std::fs::read_to_string(&trace).unwrap().contains("exit_group(")
    });
    let trace = std::fs::read_to_string(&trace).unwrap();
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

//! Bytes on their way through the daemon: their order, their volume, and who waits for whom.

mod backpressure;
mod half_close;
mod input;
mod output;

use std::os::unix::net::UnixStream;

use sockexec_proto::Stream;

use crate::common::{Client, Daemon, exit_code};
use crate::pattern::Pattern;

pub(crate) use half_close::{
    BIG, TAILS, TORN_TAILS, reads_the_tail_and_waits, reads_the_tail_late, send_and_half_close,
};

/// A hundred times more than any buffer between the two ends, in bytes.
const LARGE: u64 = 400 << 20;

/// The most memory that the whole daemon may ever have, in KiB.
const MEMORY: u64 = 16 << 10;

/// Asserts that the rest of the reply is `len` bytes of the pattern on stdout, and exit code 0.
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

/// Sends `len` bytes of the pattern as one netstring, as a client does that knows the length.
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

/// A client, and a second descriptor of its socket, so that one can send while the other reads.
fn halves(daemon: &Daemon, argv: &[String]) -> (Client, UnixStream) {
    let client = daemon.exec(argv);
    let other = client.socket().try_clone().expect("a second descriptor");
    (client, other)
}

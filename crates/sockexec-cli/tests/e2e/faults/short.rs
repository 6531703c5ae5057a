//! Writes that take less than was given. strace can only say so, and the bytes would be lost: here the kernel has no room,
//! so that writes are cut short again and again, at many places of a frame.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt;

use super::scenario::pattern;
use crate::common::{Client, Daemon, Launch, steps};

/// Bytes of input, which come back as output.
const LEN: usize = 400_000;

/// A connection of which the daemon's end takes so many bytes at a time, and some more; the least that Linux has is less
/// than 5 KiB. `None`, and a word on that, where one may not have another process's descriptor.
fn connect(daemon: &Daemon, size: usize) -> Option<Client> {
    let position = daemon.log_position();
    let client = daemon.connect();
    daemon.wait_for_log_after(position, "accepted");
    let sockets: Vec<OwnedFd> = match daemon.process().sockets() {
        Ok(sockets) => sockets,
        Err(error) => return skip("sockets", error),
    };
    // Which of them it is does not matter: the others send next to nothing.
    for socket in sockets {
        sockopt::set_socket_send_buffer_size(&socket, size).expect("a size");
    }
    Some(client)
}

#[track_caller]
fn skip<T>(what: &str, error: Errno) -> Option<T> {
    assert!(matches!(error, Errno::PERM | Errno::NOSYS), "pidfd_getfd: {error}");
    eprintln!("SKIPPED: the daemon's {what} cannot be made small here: pidfd_getfd: {error}");
    None
}

/// Frames of 32 KiB and more for a socket that has no room for one, and input for a pipe of a page.
#[test]
fn a_socket_and_a_pipe_that_are_small() {
    let bytes = pattern(LEN as u64);
    for transfer in ["splice", "copy"] {
        let mut daemon = Launch::default().options("-t 0").env("SOCKEXEC_TRANSFER", transfer).start();
        for size in [1, 3000, 10_000, 17_001, 30_000, 50_000] {
            let Some(mut client) = connect(&daemon, size) else { return };
            client.exec(&steps("narrow err narrow cat err done"));
            // Input that is in the pipe already would not let it shrink.
            client.wait_for("narrow");
            client.stdin(&bytes);
            client.end_stdin();
            let reply = client.reply();
            assert!(reply.stdout == bytes, "{transfer}, {size}: {} bytes of {LEN}", reply.stdout.len());
            assert_eq!((reply.stderr_text(), reply.code()), ("narrowdone", 0));

            let Some(mut client) = connect(&daemon, size) else { return };
            // Read as it comes, and not kept for later: the program is stopped until there is room.
            client.exec(&steps(&format!("write-out {LEN} err done exit 3")));
            client.end_stdin();
            let reply = client.reply();
            assert!(reply.stdout == bytes, "{transfer}, {size}: {} bytes of {LEN}", reply.stdout.len());
            assert_eq!((reply.stderr_text(), reply.code()), ("done", 3));
        }
        daemon.assert_serves();
    }
}

/// The pipe in which the daemon puts the frames of a big stream together may have a single page: Linux before 5.14 gives a user no more who has many pipes
/// (`pipe-user-pages-soft`). The head of a frame took it, nothing more went in, and the daemon tried the same again and again.
#[test]
fn a_pipe_of_the_daemons_own_that_is_small() {
    let mut daemon = Launch::default().options("-t 0").env("SOCKEXEC_TRANSFER", "splice").start();
    // So much that it is to be spliced at some time, however daemon and program take turns.
    let bytes = pattern(20_000_000);
    let len = bytes.len();
    for is_small in [false, true] {
        let before = daemon.process().copied("rchar");
        let mut client = daemon.exec(&steps(&format!("write-out {len} err done exit 3")));
        client.end_stdin();
        let reply = client.reply();
        assert!(reply.stdout == bytes, "{} bytes of {len}", reply.stdout.len());
        assert_eq!((reply.stderr_text(), reply.code()), ("done", 3));
        let copied = daemon.process().copied("rchar") - before;
        assert_eq!(copied >= len as u64, is_small, "{copied} bytes of {len} were copied");
        if !is_small {
            // It grows at its first use, and only then.
            let pipes = match daemon.process().own_pipes() {
                Ok(pipes) => pipes,
                Err(error) => return skip("pipes", error).unwrap_or_default(),
            };
            assert!(!pipes.is_empty(), "it has no pipe of its own");
            for pipe in pipes {
                rustix::pipe::fcntl_setpipe_size(&pipe, 1).expect("a size");
            }
        }
    }
    daemon.assert_serves();
}

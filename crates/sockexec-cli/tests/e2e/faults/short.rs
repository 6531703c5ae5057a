//! Writes that take less than they were given. strace can only claim that, and the bytes would be
//! lost. Here the kernel has no room, so writes are cut again and again, at many places of a frame.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt;

use crate::common::{Client, Daemon, Launch, pattern, steps};

const LEN: usize = 400_000;

/// A connection whose daemon's end takes about `size` bytes at a time; Linux's minimum is below 5
/// KiB. `None`, with a message, where another process's descriptor may not be duplicated.
fn connect(daemon: &Daemon, size: usize) -> Option<Client> {
    let position = daemon.log_position();
    let client = daemon.connect();
    daemon.wait_for_log_after(position, "accepted");
    let sockets: Vec<OwnedFd> = match daemon.process().sockets() {
        Ok(sockets) => sockets,
        Err(error) => return skip("sockets", error),
    };
    // Which socket it is does not matter: the others send next to nothing.
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

/// Frames of 32 KiB and more meet a socket without room for one, and input meets a pipe of one
/// page.
#[test]
fn a_socket_and_a_pipe_that_are_small() {
    let bytes = pattern(LEN as u64);
    for transfer in ["splice", "copy"] {
        let mut daemon = Launch::default().options("-t 0").env("SOCKEXEC_TRANSFER", transfer).start();
        for size in [1, 3000, 10_000, 17_001, 30_000, 50_000] {
            let Some(mut client) = connect(&daemon, size) else { return };
            client.exec(&steps("narrow err narrow cat err done"));
            // A pipe that already holds input would not shrink.
            client.wait_for("narrow");
            client.stdin(&bytes);
            client.end_stdin();
            let reply = client.reply();
            assert!(reply.stdout == bytes, "{transfer}, {size}: {} bytes of {LEN}", reply.stdout.len());
            assert_eq!((reply.stderr_text(), reply.code()), ("narrowdone", 0));

            let Some(mut client) = connect(&daemon, size) else { return };
            // The daemon reads output only as the socket takes it. The program waits until there is
            // room.
            client.exec(&steps(&format!("write-out {LEN} err done exit 3")));
            client.end_stdin();
            let reply = client.reply();
            assert!(reply.stdout == bytes, "{transfer}, {size}: {} bytes of {LEN}", reply.stdout.len());
            assert_eq!((reply.stderr_text(), reply.code()), ("done", 3));
        }
        daemon.assert_serves();
    }
}

/// The daemon puts the frames of a big stream together in a pipe, which may have a single page.
/// Linux before 5.14 gives no more to a user with many pipes (`pipe-user-pages-soft`). The head of
/// a frame filled that page, nothing else fitted, and the daemon tried the same again and again.
#[test]
fn a_pipe_of_the_daemons_own_that_is_small() {
    let mut daemon = Launch::default().options("-t 0").env("SOCKEXEC_TRANSFER", "splice").start();
    // Enough for splicing to begin at some point, however the daemon and the program take turns.
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
            // The pipe grows at its first use, and only then.
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

//! Our own standard input.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::stdio::dup2_stdin;

/// Takes it away from descriptor 0, so that the library closes the last of it when the program has closed its own: the process that feeds it
/// gets SIGPIPE then, as from the program itself. `None`: it stays where it is, as it is a terminal, whose modes are set there, or for
/// want of a descriptor.
pub(crate) fn take() -> Option<OwnedFd> {
    let stdin = io::stdin();
    if rustix::termios::isatty(&stdin) {
        return None;
    }
    let null = File::open("/dev/null").ok()?;
    let taken = stdin.as_fd().try_clone_to_owned().ok()?;
    dup2_stdin(&null).ok()?;
    Some(taken)
}

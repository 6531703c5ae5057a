//! Our own standard input.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::stdio::dup2_stdin;

/// Moves it away from descriptor 0, so that the library has the only copy and closes it when the program closes its
/// input. The process that feeds it gets SIGPIPE then, as from the program itself. `None`: it stays at descriptor 0,
/// because it is a terminal, whose modes are set there, or because no descriptor is left.
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

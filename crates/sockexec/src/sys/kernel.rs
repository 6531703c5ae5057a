//! Protections between clients that the kernel lacks, or that a filter of system calls refuses.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::net::{AddressFamily, SocketType};

use super::raw::launch::Launcher;
use super::{raw, session};

/// A missing protection, and what follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lack {
    /// The name in the status.
    pub(crate) name: &'static str,
    /// For the log: the version of Linux that has it, and what differs without it.
    pub(crate) meaning: &'static str,
}

/// All protections that are missing here. The checks change nothing.
pub(crate) fn lacks() -> Vec<Lack> {
    let mut lacks = Vec::new();
    if cfg!(not(target_os = "linux")) {
        return lacks;
    }
    if !Launcher::can_leave_table() {
        lacks.push(Lack {
            name: "close_range",
            meaning: "close_range (Linux 5.9): a program that is slow to start keeps the ends of other clients' pipes open, \
                      and with many programs each start takes longer",
        });
    }
    match own_pidfd() {
        None => lacks.push(Lack {
            name: "pidfd",
            meaning: "pidfd_open (Linux 5.3): the exit of a program that has ended its output is seen up to 64 ms late",
        }),
        Some(pidfd) if !signals_groups(pidfd.as_fd()) => lacks.push(Lack {
            name: "pidfd-group",
            meaning: "signals to groups by a pidfd (Linux 6.9): when a program is ended, the daemon cannot see whether its \
                      group is empty, so the group gets KILL when -k has passed, and may hold a slot until then",
        }),
        Some(_) => {}
    }
    if !refuses_descriptors() {
        lacks.push(Lack {
            name: "passrights",
            meaning: "SO_PASSRIGHTS (Linux 6.16): input from clients of other users is copied, as descriptors may come with \
                      spliced bytes",
        });
    }
    if !session::are_known() {
        lacks.push(Lack {
            name: "proc",
            meaning: "a /proc of this PID namespace: processes that a program with a terminal moves to other groups of its \
                      session are not ended with it",
        });
    }
    lacks
}

/// Whether a UNIX socket can be made to refuse descriptors. If no socket can be made now, that is unknown and
/// counts as yes.
fn refuses_descriptors() -> bool {
    rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)
        .map_or(true, |socket| raw::descriptors::refuse_rights(socket.as_fd()).is_ok())
}

/// Whether the system accepts signals for groups by pidfd. ESRCH counts as yes: this process may lead no
/// group.
fn signals_groups(own: BorrowedFd<'_>) -> bool {
    raw::signal_group_by_pidfd(own, 0).map_or_else(|error| error.raw_os_error() == Some(libc::ESRCH), |()| true)
}

#[cfg(target_os = "linux")]
fn own_pidfd() -> Option<std::os::fd::OwnedFd> {
    rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn own_pidfd() -> Option<std::os::fd::OwnedFd> {
    None
}

//! What the kernel, or a filter of system calls, withholds of what protects clients from each other.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::net::{AddressFamily, SocketType};

use super::raw::launch::Launcher;
use super::{raw, session};

/// Something that is not there, and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lack {
    /// As the status has it.
    pub(crate) name: &'static str,
    /// For the log: since which version of Linux it is there, and what is different without it.
    pub(crate) meaning: &'static str,
}

/// All that is missing here. Asked in ways that change nothing.
pub(crate) fn lacks() -> Vec<Lack> {
    let mut lacks = Vec::new();
    if cfg!(not(target_os = "linux")) {
        return lacks;
    }
    if !Launcher::can_leave_table() {
        lacks.push(Lack {
            name: "close_range",
            meaning: "close_range (Linux 5.9): a program that is slow to start keeps the ends of other clients' pipes open, \
                      and beside many programs each start takes longer",
        });
    }
    match own_pidfd() {
        None => lacks.push(Lack {
            name: "pidfd",
            meaning: "pidfd_open (Linux 5.3): the exit of a program that has ended its output is seen up to 64 ms late",
        }),
        Some(pidfd) if !signals_groups(pidfd.as_fd()) => lacks.push(Lack {
            name: "pidfd-group",
            meaning: "signals to groups by a pidfd (Linux 6.9): what a program leaves in its group when it is ended is not \
                      seen to be gone, and gets KILL when -k has passed, its slot taken or not",
        }),
        Some(_) => {}
    }
    if !refuses_descriptors() {
        lacks.push(Lack {
            name: "passrights",
            meaning: "SO_PASSRIGHTS (Linux 6.16): input of clients of other users is copied, as descriptors may come with what \
                      is spliced",
        });
    }
    if !session::are_known() {
        lacks.push(Lack {
            name: "proc",
            meaning: "a /proc of this PID namespace: what a program with a terminal moves to other groups of its session is \
                      not ended with it",
        });
    }
    lacks
}

/// Whether a UNIX socket can be told to refuse descriptors. If none can be made for the moment, that is not known, and not a lack.
fn refuses_descriptors() -> bool {
    rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)
        .map_or(true, |socket| raw::descriptors::refuse_rights(socket.as_fd()).is_ok())
}

/// Whether the system takes signals for groups: this process may lead none, which is ESRCH.
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

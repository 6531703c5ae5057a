//! A program's process group: signals to it that never reach a stranger, and the wait for its leader.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use sockexec_proto::Usage;

use super::session::{self, Member};
use super::{raw, terminal};
use crate::engine::ExitStatus;

/// With it waitid(2) also finds children that were not executed.
#[cfg(target_os = "linux")]
const ANY_CHILD: WaitIdOptions = WaitIdOptions::from_bits_retain(libc::__WALL.cast_unsigned());
#[cfg(not(target_os = "linux"))]
const ANY_CHILD: WaitIdOptions = WaitIdOptions::empty();

/// Whether any process is left in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occupancy {
    Empty,
    Occupied,
    /// The platform cannot tell.
    Unknowable,
}

/// The process group of one program, led by our child.
///
/// While the leader is not reaped its pid, and with it the group's number, cannot be given to anyone
/// else, so signals go by number. After that they go by a descriptor that pins the identity
/// (`PIDFD_SIGNAL_PROCESS_GROUP`, Linux 6.9), or not at all.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Pid,
    pidfd: Option<OwnedFd>,
    reaped: bool,
    /// Set if the leader begins its own session as well: our end of that session's terminal.
    terminal: Option<OwnedFd>,
}

impl Group {
    /// The group led by `leader`, a child of this process that nobody else reaps. With a terminal it leads a
    /// session.
    pub(crate) fn new(leader: Pid, terminal: Option<OwnedFd>) -> Self {
        Self { leader, pidfd: None, reaped: false, terminal }
    }

    /// Our end of the session's terminal.
    pub(crate) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn leader(&self) -> i32 {
        self.leader.as_raw_nonzero().get()
    }

    /// Sends TERM, and CONT so that a stopped program can act on it. A session first gets what a terminal's
    /// hang-up sends: HUP to its foreground group and to its leader. Returns the foreground group, as the
    /// other groups of the session must be [looked for](Group::terminate_members).
    pub(crate) fn terminate(&self) -> Option<Pid> {
        let foreground = self.terminal().and_then(terminal::foreground);
        if self.terminal.is_some() {
            if foreground == Some(self.leader) {
                self.signal(Signal::HUP);
            } else if !self.reaped {
                let _ = rustix::process::kill_process(self.leader, Signal::HUP);
            }
        }
        for signal in [Signal::TERM, Signal::CONT] {
            self.signal(signal);
        }
        foreground
    }

    /// Sends the same to the members of the session whose group is not the leader's.
    pub(crate) fn terminate_members(&self, members: &[Member], foreground: Option<Pid>) {
        for member in members.iter().filter(|member| member.group != self.leader) {
            if Some(member.group) == foreground {
                session::signal(self.leader, *member, Signal::HUP);
            }
        }
        for signal in [Signal::TERM, Signal::CONT] {
            for member in members.iter().filter(|member| member.group != self.leader) {
                session::signal(self.leader, *member, signal);
            }
        }
    }

    /// Sends KILL to `members` of the session, in whatever group they are. Returns whether there are any.
    pub(crate) fn kill_members(&self, members: &[Member]) -> bool {
        for member in members {
            session::signal(self.leader, *member, Signal::KILL);
        }
        !members.is_empty()
    }

    /// The leader of a session whose members must be looked for, while its number cannot belong to another
    /// process.
    pub(crate) fn session(&self) -> Option<Pid> {
        Some(self.leader).filter(|_| self.terminal.is_some() && !self.reaped)
    }

    /// Sends a signal that the client asked for, by its number.
    pub(crate) fn send(&self, signal: i32) {
        if !self.reaped {
            self.make_group();
            let leader = self.leader();
            if raw::kill(-leader, signal).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH)) {
                let _ = raw::kill(leader, signal);
            }
        }
    }

    /// Sends KILL to the group, and to a leader that has moved to another one. The other groups of a session
    /// get none.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
        if !self.reaped {
            let _ = rustix::process::kill_process(self.leader, Signal::KILL);
        }
    }

    /// Sends a signal to the group. One that cannot be delivered (ESRCH, or EPERM for a program that changed
    /// its user) has no remedy here: the caller goes by what it sees of the program.
    fn signal(&self, signal: Signal) {
        if !self.reaped {
            self.make_group();
            if rustix::process::kill_process_group(self.leader, signal) == Err(Errno::SRCH) {
                // The leader has moved to another group of its session and left its own empty.
                let _ = rustix::process::kill_process(self.leader, signal);
            }
        } else if let Some(pidfd) = &self.pidfd {
            let _ = raw::signal_group_by_pidfd(pidfd.as_fd(), signal.as_raw());
        }
    }

    fn make_group(&self) {
        // The child does this first, but it may not have got that far. Once it has exec'd, the call fails and
        // is not needed (setpgid(2), EACCES). Not for a session: a group leader could not begin one any more
        // (setsid(2)).
        if self.terminal.is_none() {
            let _ = rustix::process::setpgid(Some(self.leader), Some(self.leader));
        }
    }

    /// The leader's status, if it is dead; it stays unreaped.
    ///
    /// # Errors
    /// ECHILD if something else in this process reaps our children, or CHLD has come to be ignored. From then
    /// on nothing is signalled by number, as the number may be a stranger's.
    pub(crate) fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.wait(WaitIdOptions::NOWAIT | ANY_CHILD);
        self.reaped |= status.is_err();
        Ok(status?.as_ref().map(exit_status))
    }

    /// The same, and the resources that the leader and the children it waited for have used, if the system
    /// reports them.
    ///
    /// # Errors
    /// As [`Group::status`].
    pub(crate) fn status_and_usage(&mut self) -> io::Result<Option<(ExitStatus, Option<Usage>)>> {
        #[cfg(target_os = "linux")]
        {
            let leader = self.leader();
            let ended = rustix::io::retry_on_intr(|| raw::status_of(leader));
            self.reaped |= ended.is_err();
            Ok(ended?.map(|(status, usage)| (status, Some(usage))))
        }
        #[cfg(not(target_os = "linux"))]
        Ok(self.status()?.map(|status| (status, None)))
    }

    /// Whether the leader was executed, dead or alive.
    ///
    /// A child is made to send no signal at its death. Exec changes that to CHLD once it cannot fail any more
    /// (`de_thread` in the kernel), and before the child leaves our memory. Without `__WALL`, waitid(2) finds
    /// only children that send CHLD. (On other systems only executed children are known.)
    pub(crate) fn was_executed(&self) -> bool {
        self.reaped || !matches!(self.wait(WaitIdOptions::NOWAIT), Err(Errno::CHILD))
    }

    /// Whether the leader exists and was not executed.
    pub(crate) fn awaits_exec(&mut self) -> bool {
        // First, as a leader that something else has reaped is not found either.
        self.status().is_ok() && !self.was_executed()
    }

    fn wait(&self, options: WaitIdOptions) -> Result<Option<WaitIdStatus>, Errno> {
        let options = options | WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(self.leader), options))
    }

    /// A descriptor that becomes readable when the leader dies; an error if there can be none (before Linux
    /// 5.3, or refused by a filter).
    pub(crate) fn exit_descriptor(&mut self) -> io::Result<BorrowedFd<'_>> {
        if self.pidfd.is_none() {
            self.pidfd = Some(open_pidfd(self.leader)?);
        }
        self.pidfd.as_ref().map(AsFd::as_fd).ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// The descriptor of [`Group::exit_descriptor`], if it was opened.
    pub(crate) fn opened_descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Takes the descriptor of [`Group::exit_descriptor`], if it was opened. Once the leader is reaped, the
    /// group can be signalled only through it.
    pub(crate) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.pidfd.take()
    }

    /// Whether any process is left, once the leader is dead. Not for a session: see [`session::members`].
    ///
    /// An unreaped leader counts as a member, so it must be reaped first. That is done only once the kernel
    /// has shown that it accepts the pinned identity. A dead member that its own parent (or init) has not
    /// reaped counts as well.
    pub(crate) fn occupancy(&mut self) -> Occupancy {
        if self.session().is_some() {
            // The leader's number is the session's. It stays until no other process is left in the session,
            // and to see that, the system's processes must be looked at.
            return Occupancy::Unknowable;
        }
        if !self.reaped {
            let Ok(pidfd) = self.exit_descriptor() else { return Occupancy::Unknowable };
            match raw::signal_group_by_pidfd(pidfd, 0) {
                Ok(()) => {}
                // The leader died in another group and left its own empty.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(_) => return Occupancy::Unknowable,
            }
            self.reap();
        }
        let Some(pidfd) = &self.pidfd else { return Occupancy::Unknowable };
        match raw::signal_group_by_pidfd(pidfd.as_fd(), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Occupancy::Empty,
            Ok(()) | Err(_) => Occupancy::Occupied,
        }
    }

    /// Reaps the dead leader.
    pub(crate) fn reap(&mut self) {
        if !self.reaped {
            let _ = self.wait(ANY_CHILD);
            self.reaped = true;
        }
    }
}

#[cfg(target_os = "linux")]
fn open_pidfd(pid: Pid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

#[cfg(not(target_os = "linux"))]
fn open_pidfd(_pid: Pid) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    if let Some(code) = status.exit_status() {
        // WEXITSTATUS: the kernel keeps eight bits.
        ExitStatus::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
    } else {
        ExitStatus::Signal(status.terminating_signal().unwrap_or_default())
    }
}

//! The processes of a session: those that a terminal's hang-up concerns.

use rustix::process::{Pid, Signal};

#[cfg(target_os = "linux")]
use super::raw;

/// Room for the names of a thousand processes, in bytes.
#[cfg(target_os = "linux")]
const ENTRIES: usize = 32 << 10;

/// A process of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) pid: Pid,
    /// Its process group.
    pub(crate) group: Pid,
}

/// Whether `/proc` shows the processes that this one can name. It may be absent, or belong to another PID
/// namespace, whose numbers mean other processes.
#[cfg(target_os = "linux")]
pub(crate) fn are_known() -> bool {
    let this = std::fs::read_link("/proc/self").ok();
    this.as_deref().and_then(std::path::Path::to_str) == Some(std::process::id().to_string().as_str())
}

/// On other systems only the leader's own group is known.
#[cfg(not(target_os = "linux"))]
pub(crate) fn are_known() -> bool {
    false
}

/// The living processes in the sessions that `leaders` began, each with its leader, from one look at the
/// processes of the system. `None`: they cannot be listed now.
///
/// A leader must not be reaped: while it exists, dead or alive, no other session gets its number.
#[cfg(target_os = "linux")]
pub(crate) fn members(leaders: &[Pid]) -> Option<Vec<(Pid, Member)>> {
    use rustix::fs::{Mode, OFlags, RawDir};
    let mut members = Vec::new();
    // Not std's, which considers an error of close(2) impossible, and panics.
    let proc = rustix::fs::open("/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut buffer = Vec::with_capacity(ENTRIES);
    let mut entries = RawDir::new(&proc, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.ok()?;
        let Some(pid) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // Most are in none of these sessions, and a call shows that sooner than a file.
        let session = raw::session_of(pid.as_raw_pid()).and_then(Pid::from_raw);
        let Some(&leader) = leaders.iter().find(|&&leader| Some(leader) == session) else { continue };
        if let Some((group, session)) = group_and_session(pid)
            && session == leader
        {
            members.push((leader, Member { pid, group }));
        }
    }
    Some(members)
}

/// None are known here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn members(_leaders: &[Pid]) -> Option<Vec<(Pid, Member)>> {
    None
}

/// Group and session of a process; `None`: it is dead, or one of them is outside our PID namespace.
///
/// Not by getsid(2), which returns 0 for a session outside the namespace: `rustix` takes that for a PID,
/// which it is not.
#[cfg(target_os = "linux")]
fn group_and_session(pid: Pid) -> Option<(Pid, Pid)> {
    parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Group and session of a process that is not dead (`proc_pid_stat(5)`). The name, in parentheses, may hold anything.
#[cfg(target_os = "linux")]
fn parse_stat(stat: &[u8]) -> Option<(Pid, Pid)> {
    let end_of_name = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end_of_name + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let mut pid = || Pid::from_raw(fields.next()?.parse().ok()?);
    let _parent = pid();
    Some((pid()?, pid()?))
}

/// Sends `signal` to `member`, if it is still in the session that `leader` began.
///
/// The descriptor is opened before the session of that number is checked once more. So the signal reaches a
/// process of the session or none, even if the number was given away.
#[cfg(target_os = "linux")]
pub(crate) fn signal(leader: Pid, member: Member, signal: Signal) {
    use rustix::process::{PidfdFlags, kill_process, pidfd_open, pidfd_send_signal};
    let pidfd = pidfd_open(member.pid, PidfdFlags::empty());
    if raw::session_of(member.pid.as_raw_pid()) != Some(leader.as_raw_pid()) {
        return;
    }
    // A process that changed its user cannot be signalled (EPERM); one that is gone needs no signal (ESRCH).
    let _ = match pidfd {
        Ok(pidfd) => pidfd_send_signal(pidfd, signal),
        // Before Linux 5.3, or no descriptor is left: a moment remains in which the number may be given away.
        Err(_) => kill_process(member.pid, signal),
    };
}

/// No members are known here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn signal(_leader: Pid, _member: Member, _signal: Signal) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_skipped() {
        let pid = |number| Pid::from_raw(number).unwrap();
        assert_eq!(parse_stat(b"12 (a b) S 1 34 56 0 -1"), Some((pid(34), pid(56))));
        assert_eq!(parse_stat(b"12 () R 9 9 9) S 0 34 56 0"), Some((pid(34), pid(56))));
        assert_eq!(parse_stat(b"12 (\xff) S 1 34 56"), Some((pid(34), pid(56))));
        assert_eq!(parse_stat(b"12 (a) Z 1 34 56 0"), None);
        // A kernel thread, and truncated lines.
        assert_eq!(parse_stat(b"2 (kthreadd) S 0 0 0 0"), None);
        for bytes in [b"".as_slice(), b"12", b"12 (a", b"12 (a)", b"12 (a) S", b"12 (a) S 1 34"] {
            assert_eq!(parse_stat(bytes), None);
        }
    }
}

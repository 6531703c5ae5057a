//! What /proc shows of the daemon and of the programs.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
#[cfg(target_os = "linux")]
use rustix::process::PidfdGetfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::PATIENCE;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) Pid);

impl Process {
    pub(crate) fn of(child: &Child) -> Self {
        Self(Pid::from_child(child))
    }

    fn file(self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.0.as_raw_pid())).expect("a file of /proc")
    }

    /// A number in /proc/PID/status, in KiB if it is memory.
    pub(crate) fn status_kib(self, field: &str) -> u64 {
        let status = self.file("status");
        let line = status.lines().find(|line| line.starts_with(field)).expect("a field of status");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    }

    /// The number of threads without the one that writes the log.
    pub(crate) fn threads(self) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.as_raw_pid())).expect("a directory of /proc");
        // A thread that has just ended has no name.
        let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name != "log\n").count()
    }

    /// The signals that it ignores: bit n - 1 stands for signal n.
    pub(crate) fn ignored_signals(self) -> u64 {
        let status = self.file("status");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        u64::from_str_radix(mask.expect("a mask").trim(), 16).expect("a mask")
    }

    /// The most memory that it ever had, in KiB.
    pub(crate) fn peak_kib(self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// The bytes that it has moved by read(2), `rchar`, or write(2), `wchar`. Those moved by
    /// splice(2) or by calls for sockets do not count.
    #[cfg(target_os = "linux")]
    pub(crate) fn copied(self, call: &str) -> u64 {
        let io = self.file("io");
        let count = io.lines().find_map(|line| line.strip_prefix(call)?.strip_prefix(": "));
        count.and_then(|count| count.parse().ok()).expect("a count in /proc/PID/io")
    }

    /// The fields of /proc/PID/stat after the name. The first is the state.
    fn stat(self) -> Vec<String> {
        let stat = self.file("stat");
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        fields.split_whitespace().map(str::to_owned).collect()
    }

    /// Processor time in ticks of 10 ms.
    pub(crate) fn ticks(self) -> u64 {
        let stat = self.stat();
        stat[11].parse::<u64>().expect("utime") + stat[12].parse::<u64>().expect("stime")
    }

    pub(crate) fn is_stopped(self) -> bool {
        self.stat()[0] == "T"
    }

    /// Whether its first thread sleeps.
    pub(crate) fn is_asleep(self) -> bool {
        self.stat()[0] == "S"
    }

    /// Whether all of its threads sleep.
    pub(crate) fn is_all_asleep(self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.as_raw_pid())).expect("a directory of /proc");
        tasks.flatten().all(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with('S'))
        })
    }

    /// Whether a file with this in its name is mapped into its memory.
    pub(crate) fn has_mapped(self, name: &str) -> bool {
        self.file("maps").contains(name)
    }

    /// Whether this signal is pending (proc(5), `ShdPnd`).
    pub(crate) fn has_pending(self, signal: Signal) -> bool {
        let status = self.file("status");
        let mask = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).expect("a line");
        u64::from_str_radix(mask.trim(), 16).expect("a mask") & (1 << (signal.as_raw() - 1)) != 0
    }

    pub(crate) fn is_traced(self) -> bool {
        self.status_kib("TracerPid:") != 0
    }

    /// The bytes that it has written, to anything.
    pub(crate) fn written(self) -> u64 {
        let io = self.file("io");
        let line = io.lines().find(|line| line.starts_with("wchar:")).expect("wchar");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    }

    pub(crate) fn descriptors(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0.as_raw_pid())).expect("a directory of /proc").count()
    }

    /// Duplicates of its sockets.
    ///
    /// # Errors
    /// Those of `pidfd_getfd(2)`: EPERM, ENOSYS.
    #[cfg(target_os = "linux")]
    pub(crate) fn sockets(self) -> rustix::io::Result<Vec<OwnedFd>> {
        Ok(self.duplicates("socket:")?.into_iter().map(|(_, socket)| socket).collect())
    }

    /// Duplicates of one end of each pipe of which it has both ends.
    #[cfg(target_os = "linux")]
    pub(crate) fn own_pipes(self) -> rustix::io::Result<Vec<OwnedFd>> {
        let mut ends = self.duplicates("pipe:")?;
        ends.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut pipes = Vec::new();
        let mut last = String::new();
        for (name, end) in ends {
            if name == last {
                pipes.push(end);
            }
            last = name;
        }
        Ok(pipes)
    }

    /// Duplicates of its descriptors of one kind, and their names in `/proc`.
    #[cfg(target_os = "linux")]
    fn duplicates(self, kind: &str) -> rustix::io::Result<Vec<(String, OwnedFd)>> {
        let pidfd = rustix::process::pidfd_open(self.0, PidfdFlags::empty())?;
        let directory = fs::read_dir(format!("/proc/{}/fd", self.0.as_raw_pid())).expect("a directory of /proc");
        let named = directory.flatten().filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
            Some((target, entry.file_name().to_string_lossy().parse().expect("a number")))
        });
        let of_kind = named.filter(|(target, _)| target.starts_with(kind));
        let mut duplicates = Vec::new();
        for (target, number) in of_kind {
            match rustix::process::pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()) {
                // The daemon closes descriptors of earlier clients meanwhile, and may give a number
                // to something else.
                Err(Errno::BADF) => {}
                duplicate => {
                    let duplicate = duplicate?;
                    let own = format!("/proc/self/fd/{}", duplicate.as_raw_fd());
                    if fs::read_link(own).expect("an open descriptor").to_string_lossy() == target {
                        duplicates.push((target, duplicate));
                    }
                }
            }
        }
        Ok(duplicates)
    }

    /// The number of its children, and of zombies among them.
    pub(crate) fn children(self) -> (usize, usize) {
        let mut counts = (0, 0);
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            // Processes come and go meanwhile.
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((_, fields)) = stat.rsplit_once(')') else { continue };
            let mut fields = fields.split_whitespace();
            let (state, parent) = (fields.next(), fields.next());
            if parent.and_then(|pid| pid.parse().ok()) == Some(self.0.as_raw_pid()) {
                counts.0 += 1;
                counts.1 += usize::from(state == Some("Z"));
            }
        }
        counts
    }

    /// Whether it can do nothing before something happens: it neither wants a processor nor waits
    /// for a disk.
    fn is_at_rest(self) -> bool {
        !["R", "D"].contains(&self.stat()[0].as_str())
    }

    /// Waits until it has written nothing over many looks, because its reader has stopped it. If it
    /// is never stopped, its end stops the count.
    ///
    /// Where a daemon is the reader, that is its parent. One that only waits for a processor or a
    /// disk has stopped nobody: it goes on later.
    #[track_caller]
    pub(crate) fn wait_until_blocked(self) {
        let parent = self.stat()[1].parse().ok().and_then(Pid::from_raw);
        // This process is the parent of daemons, and runs now.
        let reader = parent.filter(|&parent| parent != rustix::process::getpid()).map(Self);
        let (mut last, mut same) = (0, 0);
        super::eventually("a program that is stopped by its reader", || {
            let now = self.written();
            let is_at_rest = self.is_at_rest() && reader.is_none_or(Self::is_at_rest);
            same = if now == last && is_at_rest { same + 1 } else { 0 };
            last = now;
            same > 50
        });
    }
}

/// Waits for the end of a child, for at most `patience`. `None` if it still lives.
pub(crate) fn wait_for_exit(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    if let Some(status) = child.try_wait().expect("wait") {
        return Some(status);
    }
    let pidfd: OwnedFd = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("pidfd");
    let timeout = Timespec::try_from(patience).expect("a time");
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    match rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout))).expect("poll") {
        0 => None,
        _ => Some(child.wait().expect("wait")),
    }
}

impl Process {
    /// Whether it does next to nothing for a while. If not, says what it does. Only time can show
    /// that nothing happens: a loop that spins burns most of a core, and an idle one not a tick.
    #[track_caller]
    pub(super) fn look_idle(self) -> Result<(), String> {
        const WINDOW: Duration = Duration::from_millis(600);
        let pidfd = rustix::process::pidfd_open(self.0, PidfdFlags::empty()).expect("pidfd");
        let before = self.ticks();
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let timeout = Timespec::try_from(WINDOW.min(PATIENCE)).expect("a time");
        let n = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout))).expect("poll");
        assert_eq!(n, 0, "the daemon ended");
        let spent = self.ticks() - before;
        if spent <= 6 { Ok(()) } else { Err(format!("{spent} ticks of processor time in {WINDOW:?}")) }
    }
}

/// Whether this is a Linux older than that version.
pub(crate) fn kernel_is_before(major: u32, minor: u32) -> bool {
    let Ok(release) = fs::read_to_string("/proc/sys/kernel/osrelease") else { return false };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    (numbers.next(), numbers.next()) < (Some(major), Some(minor))
}

/// Whether the filter around all daemons, `SOCKEXEC_FILTER`, refuses this call.
pub(crate) fn is_refused(call: &str) -> bool {
    let rules = std::env::var("SOCKEXEC_FILTER").map_or("", |name| crate::filters::rules(&name));
    rules.split(',').any(|rule| rule.trim_start().split('=').next() == Some(call))
}

/// Whether the daemon learns that a program's group is empty. It takes a pidfd of the group, which
/// Linux has since 6.9 and a filter may refuse. Elsewhere a leader stays a zombie until KILL is due
/// (gotchas, "Is anybody left in the group?").
pub(crate) fn empty_groups_are_noticed() -> bool {
    !is_refused("pidfd_send_signal") && !kernel_is_before(6, 9)
}

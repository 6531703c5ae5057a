//! Processor time and memory of a program's process group, from Linux's /proc. Elsewhere they are unknown.

use std::collections::HashMap;
use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::time::{ClockId, clock_gettime};

/// By how many seconds two measurements of one program's age may differ.
const TOLERANCE: f64 = 2.0;

/// The members of a process group, zombies included.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Group {
    /// Processor time in seconds, with that of the children that they have waited for.
    pub(crate) cpu: f64,
    /// Resident memory in bytes. Shared pages count once for each member.
    pub(crate) memory: u64,
    /// Age of its leader in seconds.
    age: Option<f64>,
}

/// All visible process groups, by number.
#[derive(Debug, Default)]
pub(crate) struct Groups(HashMap<i32, Group>);

impl Groups {
    pub(crate) fn read() -> Self {
        let mut groups = Self::default();
        let Some(uptime) = uptime() else { return groups };
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let Some(pid) = pid else { continue };
            // It fails if the process has gone, or may not be read.
            if let Ok(stat) = fs::read_to_string(entry.path().join("stat")) {
                groups.add(pid, &stat, uptime);
            }
        }
        groups
    }

    fn add(&mut self, pid: i32, stat: &str, uptime: f64) -> Option<()> {
        // The name before it may contain any character, also parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let ticks = clock_ticks_per_second();
        let group = self.0.entry(fields.get(2)?.parse().ok()?).or_default();
        let used: u64 = (11..=14).filter_map(number).sum();
        group.cpu += seconds(used, ticks);
        group.memory += number(21)?.saturating_mul(page_size() as u64);
        let leads = fields.get(2)?.parse() == Ok(pid);
        if leads {
            group.age = Some(uptime - seconds(number(19)?, ticks));
        }
        Some(())
    }

    /// The group that process `pid` leads, if its age is `running` seconds, or up to `older` seconds more.
    ///
    /// `None` if there is no such group, or it belongs to another process: the daemon may be in another PID
    /// namespace, where the number stands for a different process, or the number was used again.
    ///
    /// `older` is there because the daemon's clock stands still while the machine is suspended.
    pub(crate) fn of(&self, pid: i32, running: f64, older: f64) -> Option<&Group> {
        let group = self.0.get(&pid)?;
        let range = running - TOLERANCE..=running + TOLERANCE + older;
        range.contains(&group.age?).then_some(group)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a time that is shown")]
fn seconds(ticks: u64, per_second: u64) -> f64 {
    ticks as f64 / per_second.max(1) as f64
}

fn uptime() -> Option<f64> {
    fs::read_to_string("/proc/uptime").ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// How long the machine was suspended since its start, in seconds.
#[cfg(target_os = "linux")]
pub(crate) fn suspended() -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a time of years at most")]
    let now = |clock| {
        let now = clock_gettime(clock);
        now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
    };
    (now(ClockId::Boottime) - now(ClockId::Monotonic)).max(0.0)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn suspended() -> f64 {
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of /proc/PID/stat: its group, four times of a second each, its start a second after the machine's, and one page.
    fn stat(name: &str, group: i32) -> String {
        let hz = clock_ticks_per_second();
        format!("1 ({name}) S 1 {group} 1 0 -1 0 0 0 0 0 {hz} {hz} {hz} {hz} 20 0 1 0 {hz} 1000 1 0 0")
    }

    #[test]
    fn members_are_added_up_and_strangers_are_not_shown() {
        let mut groups = Groups::default();
        groups.add(7, &stat("a) S 9 9 (b", 7), 11.0).unwrap();
        groups.add(8, &stat("child", 7), 11.0).unwrap();
        groups.add(9, &stat("without its leader", 6), 11.0).unwrap();
        assert!(groups.add(10, "10 (cut short) S 1", 11.0).is_none());
        let found = groups.of(7, 9.5, 0.0).unwrap();
        assert_eq!((found.cpu.round(), found.memory), (8.0, 2 * page_size() as u64));
        assert_eq!(groups.of(7, 1.0, 0.0), None, "it began before: another's");
        assert_eq!(groups.of(7, 99.0, 0.0), None, "it began after: another's");
        assert!(groups.of(7, 1.0, 10.0).is_some(), "the machine was suspended for nine seconds of them");
        assert_eq!(groups.of(6, 10.0, 0.0), None, "without a leader its age is unknown");
        assert_eq!(groups.of(5, 10.0, 0.0), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_there() {
        let group = rustix::process::getpgrp().as_raw_pid();
        let groups = Groups::read();
        assert!(groups.0.get(&group).is_some_and(|found| found.memory > 0), "{groups:?}");
    }
}

//! What a daemon uses: while it works, to be shown, and at rest, where it must stay the same.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::proc;
use crate::{Result, context};

/// How long a daemon may take to come to rest after the last request.
const REST: Duration = Duration::from_secs(20);

/// How long a daemon at rest is measured.
const WINDOW: Duration = Duration::from_secs(1);

/// Processor time that a daemon may use in [`WINDOW`].
const IDLE_CPU: Duration = Duration::from_millis(5);

/// By how many bytes memory may have grown since the first checkpoint: holes of the allocator, and tables that have
/// grown for the largest number of clients.
const GROWTH: u64 = 1 << 20;

/// By how many bytes the maximum of the second half may exceed that of the first. A leak of 100 bytes a request
/// exceeds this after 2,700 requests.
const CREEP: u64 = 256 << 10;

/// A daemon at rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest {
    /// Anonymous resident memory in bytes.
    pub(crate) memory: u64,
    pub(crate) descriptors: usize,
    /// Processor time in [`WINDOW`].
    pub(crate) idle: Duration,
    /// Processor time since it was started.
    pub(crate) cpu: Duration,
}

impl Rest {
    /// Waits until the daemon has no children, and measures it.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let deadline = Instant::now() + REST;
        loop {
            let (children, zombies) = children(pid)?;
            if children == 0 {
                break;
            }
            if Instant::now() > deadline {
                return Err(format!("{children} children are left, {zombies} of them zombies, and nothing runs").into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        // The daemon drops clients that have left at the next turn of its loop.
        thread::sleep(Duration::from_millis(300));
        let before = proc::cpu(pid)?;
        thread::sleep(WINDOW);
        let cpu = proc::cpu(pid)?;
        Ok(Self { memory: anonymous(pid)?, descriptors: descriptors(pid)?, idle: cpu.saturating_sub(before), cpu })
    }

    /// What has grown more than it may, if something has.
    pub(crate) fn fault(&self, first: &Self) -> Option<String> {
        if self.descriptors != first.descriptors {
            return Some(format!("{} descriptors at rest, {} at first", self.descriptors, first.descriptors));
        }
        if self.idle > IDLE_CPU {
            return Some(format!("{:?} of processor time in {WINDOW:?} at rest", self.idle));
        }
        if self.memory > first.memory + GROWTH {
            return Some(format!("{} KiB at rest, {} KiB at first", self.memory >> 10, first.memory >> 10));
        }
        None
    }
}

/// Whether memory has crept up from the first half of the checkpoints to the second.
pub(crate) fn creep(memory: &[u64]) -> Option<String> {
    let (first, second) = memory.split_at(memory.len() / 2);
    let (first, second) = (first.iter().max()?, second.iter().max()?);
    (*second > first + CREEP)
        .then(|| format!("{} KiB at rest in the second half, {} KiB in the first", second >> 10, first >> 10))
}

/// Anonymous resident memory, in bytes.
pub(crate) fn anonymous(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(context(&path))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kilobytes.ok_or_else(|| format!("{path}: no RssAnon"))? << 10)
}

/// Open descriptors.
pub(crate) fn descriptors(pid: u32) -> Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path).map_err(context(&path))?.count())
}

/// Children, and how many of them are zombies.
pub(crate) fn children(pid: u32) -> Result<(usize, usize)> {
    let (mut children, mut zombies) = (0, 0);
    for entry in fs::read_dir("/proc").map_err(context("/proc"))?.flatten() {
        // Processes may end meanwhile.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, fields)) = stat.rsplit_once(')') else { continue };
        let mut fields = fields.split_whitespace();
        let (state, parent) = (fields.next(), fields.next());
        if parent.and_then(|parent| parent.parse().ok()) == Some(pid) {
            children += 1;
            zombies += usize::from(state == Some("Z"));
        }
    }
    Ok((children, zombies))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Rest = Rest { memory: 4 << 20, descriptors: 10, idle: Duration::ZERO, cpu: Duration::from_secs(1) };

    #[test]
    fn what_is_not_flat_is_a_fault() {
        assert_eq!(Rest { memory: 4 << 20, ..FIRST }.fault(&FIRST), None);
        assert!(Rest { memory: 6 << 20, ..FIRST }.fault(&FIRST).is_some());
        assert!(Rest { descriptors: 11, ..FIRST }.fault(&FIRST).is_some());
        assert!(Rest { idle: Duration::from_millis(6), ..FIRST }.fault(&FIRST).is_some());
    }

    #[test]
    fn what_creeps_is_a_fault() {
        assert_eq!(creep(&[400 << 10, 500 << 10, 500 << 10, 700 << 10]), None);
        assert!(creep(&[400 << 10, 500 << 10, 500 << 10, 800 << 10]).is_some());
        assert_eq!(creep(&[4 << 20]), None);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let pid = std::process::id();
        assert!(anonymous(pid).unwrap() > 0);
        assert!(descriptors(pid).unwrap() > 2);
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        assert!(children(pid).unwrap().0 > 0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

//! Figures of a process from `/proc`.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::stats::float;
use crate::{Result, context};

/// CPU time of the threads of a process, without that of its children.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    // Not utime and stime of /proc/PID/stat: those are in hundredths of a second.
    let mut total = Duration::ZERO;
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).map_err(context(&tasks))? {
        let path = task?.path().join("schedstat");
        let text = match fs::read_to_string(&path) {
            // The thread has ended since.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::SRCH)) => continue,
            text => text.map_err(context(path.display()))?,
        };
        total += on_cpu(&text).ok_or_else(|| format!("{}: no number of nanoseconds in {text:?}", path.display()))?;
    }
    Ok(total)
}

/// Resident memory of a process in bytes.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(context(&path))?;
    Ok(vm_rss(&text).ok_or_else(|| format!("{path}: no VmRSS"))?)
}

/// Which part of the processors is in use for a moment, from 0 to 1.
pub(crate) fn busy() -> Result<f64> {
    let read = || fs::read_to_string("/proc/stat").map_err(context("/proc/stat"));
    let before = read()?;
    thread::sleep(Duration::from_millis(300));
    Ok(busy_between(&before, &read()?).ok_or("/proc/stat: no figures of all processors")?)
}

fn busy_between(before: &str, after: &str) -> Option<f64> {
    let ((idle_before, all_before), (idle_after, all_after)) = (idle_and_all(before)?, idle_and_all(after)?);
    let all = all_after.checked_sub(all_before).filter(|&all| all > 0)?;
    Some(1.0 - float(idle_after.saturating_sub(idle_before).min(all)) / float(all))
}

/// stat: user, nice, system, idle, iowait and more, in hundredths of a second.
fn idle_and_all(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    // The first eight: the time of guests is part of user and nice.
    let figures: Vec<u64> = line.split_whitespace().take(8).map_while(|figure| figure.parse().ok()).collect();
    Some((figures.get(3)? + figures.get(4)?, figures.iter().sum()))
}

/// schedstat: nanoseconds on a processor, nanoseconds waiting for one, turns.
fn on_cpu(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn vm_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_begins_with_the_time_on_a_processor() {
        assert_eq!(on_cpu("1234567 89 10\n"), Some(Duration::from_nanos(1_234_567)));
        assert_eq!(on_cpu("\n"), None);
    }

    #[test]
    fn resident_memory_is_in_kilobytes() {
        assert_eq!(vm_rss("VmHWM:\t    2000 kB\nVmRSS:\t     850 kB\nThreads:\t1\n"), Some(850 * 1024));
        assert_eq!(vm_rss("Name:\tzombie\n"), None);
    }

    #[test]
    fn busy_is_what_is_not_idle() {
        let before = "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n";
        let after = "cpu  140 0 120 730 110 0 0 0 5 0\ncpu0 1 2 3\n";
        assert_eq!(busy_between(before, after), Some(0.6));
        assert_eq!(busy_between(before, before), None);
        assert_eq!(busy_between("intr 1\n", after), None);
    }

    #[test]
    fn this_process_has_figures() {
        assert!(cpu(std::process::id()).is_ok());
        assert!(resident(std::process::id()).is_ok_and(|bytes| bytes > 0));
    }
}

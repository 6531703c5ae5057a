//! All supervisors in `packaging/` must wait longer than `--drain` and `--kill-timeout` together.
//! Otherwise they kill programs that the daemon would have let finish.

/// The daemon's default time between TERM and KILL.
const KILL_TIMEOUT: u32 = 10;
/// The time that the daemon itself needs to end.
const MARGIN: u32 = 2;

const FILES: &[(&str, &str)] = &[
    ("s6 run", include_str!("../../../../../packaging/s6/sockexec/run")),
    ("runit run", include_str!("../../../../../packaging/runit/sockexec/run")),
    ("supervisor", include_str!("../../../../../packaging/supervisor/sockexec.conf")),
    ("systemd", include_str!("../../../../../packaging/systemd/sockexec.service")),
    ("openrc", include_str!("../../../../../packaging/openrc/sockexec")),
    ("launchd", include_str!("../../../../../packaging/launchd/org.sockexec.plist")),
];

fn shipped(name: &str) -> &'static str {
    FILES.iter().find(|(own, _)| *own == name).expect(name).1
}

/// The largest number after these words, with any markup in between.
#[track_caller]
fn number(text: &str, words: &str) -> u32 {
    let numbers = text.split(words).skip(1).filter_map(|rest| {
        let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
        digits.split(|c: char| !c.is_ascii_digit()).next().and_then(|number| number.parse().ok())
    });
    numbers.max().unwrap_or_else(|| panic!("no number behind {words:?} in {text}"))
}

#[test]
fn supervisors_are_more_patient_than_the_daemon() {
    let s6 = include_str!("../../../../../packaging/s6/sockexec/timeout-kill");
    let seconds = |name: &str, words: &str| number(shipped(name), words);
    for (name, patience) in [
        ("s6 run", s6.trim().parse::<u32>().unwrap() / 1000),
        // A comment: only `sv` knows how long it waits.
        ("runit run", seconds("runit run", "sv -w")),
        ("supervisor", seconds("supervisor", "stopwaitsecs=")),
        ("systemd", seconds("systemd", "TimeoutStopSec=")),
        ("openrc", seconds("openrc", "TERM/")),
        ("launchd", seconds("launchd", "<key>ExitTimeOut</key>")),
    ] {
        assert!(!shipped(name).contains(" -k "), "{name} has a time of its own");
        let needed = seconds(name, "--drain") + KILL_TIMEOUT + MARGIN;
        assert!(patience >= needed, "{name}: {patience} s of {needed}");
    }
}

/// A daemon that a slow disk stops for a while must not be killed in the middle of a drain.
#[test]
fn the_watchdog_is_longer_than_what_a_disk_may_take() {
    assert!(number(shipped("systemd"), "WatchdogSec=") >= 60);
}

//! The search for the members of sessions: what it costs others, and what it must not miss.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal};

use super::{Caller, assert_clean};
use crate::common::{Daemon, eventually, steps};

const PTY: &[&str] = &["pty=80x24"];

/// The shortest time between two searches.
const SHORTEST: Duration = Duration::from_millis(10);

/// How often the daemon has searched, from the answer to USR1.
#[track_caller]
fn looks(daemon: &Daemon) -> u128 {
    let position = daemon.log_position();
    daemon.signal(Signal::USR1);
    daemon.wait_for_log_after(position, " times\n");
    let log = daemon.log_text().split_off(position);
    let (before, _) = log.split_once(" looks for sessions").expect("a number of looks");
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// A program with a terminal, and a job of it in a group of its own that ignores the signals that
/// end others.
fn with_a_stubborn_job(daemon: &Daemon, fifo: &str) -> Caller {
    let job = format!("spawn [ setpgid ignore HUP TERM ; hold {fifo} wait ]");
    Caller::start(daemon, PTY, &steps(&format!("{job} out ready wait")))
}

/// Each end of a session used to read all of /proc by itself while there was a member. Forty at
/// once stopped the daemon for seconds. One search serves all, and the next one comes a while
/// later.
#[test]
fn one_search_serves_all() {
    let mut daemon = Daemon::start("-t 0 -k 1000");
    let mut life = daemon.fifo("life");
    let mut callers: Vec<Caller> = (0..40).map(|_| with_a_stubborn_job(&daemon, life.path())).collect();
    for caller in &mut callers {
        caller.wait_for("ready");
        life.holder();
    }
    assert_eq!(looks(&daemon), 0);
    let begin = Instant::now();
    daemon.signal(Signal::TERM);
    eventually("the end of all leaders", || daemon.log_text().matches("ended: signal ").count() == 40);
    let made = looks(&daemon);
    let most = 1 + begin.elapsed().as_millis() / SHORTEST.as_millis();
    assert!((1..=most).contains(&made), "{made} looks, at most {most}");
    // One search after the other looks for all members that are left.
    let begin = Instant::now();
    eventually("more looks", || looks(&daemon) >= made + 5);
    let again = looks(&daemon) - made;
    let most = 2 + begin.elapsed().as_millis() / SHORTEST.as_millis();
    assert!(again <= most, "{again} looks, at most {most}");
    assert!(life.is_held());
    // KILL is due at once.
    daemon.signal(Signal::TERM);
    life.wait_for_death();
    assert_eq!(daemon.wait().status.code(), Some(0));
}

/// The search fails just when KILL is due. The daemon keeps the leader, whose number the session
/// has, until a search succeeds, and forgets no member.
#[test]
fn a_search_that_fails_is_repeated() {
    let daemon = Daemon::start("-t 0 -k 0.2");
    let descriptors = daemon.process().descriptors();
    let limit = |descriptors| {
        let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: Some(descriptors), maximum };
        rustix::process::prlimit(Some(daemon.process().0), Resource::Nofile, limit).expect("the limit of a child");
    };
    let mut life = daemon.fifo("life");
    let mut caller = with_a_stubborn_job(&daemon, life.path());
    caller.wait_for("ready");
    life.holder();
    limit(3);
    drop(caller);
    daemon.wait_for_log("KILL to the group");
    let before = looks(&daemon);
    eventually("a look that fails", || looks(&daemon) > before);
    // On a slow machine it dies of KILL only now.
    eventually("a leader that is dead, and kept", || daemon.process().children() == (1, 1));
    assert!(life.is_held());
    limit(1000);
    life.wait_for_death();
    assert_clean(&daemon, descriptors);
}

/// A member appears while the session is being killed.
#[test]
fn a_job_that_forks_while_it_is_killed_is_killed() {
    let daemon = Daemon::start("-t 0 -k 0.2");
    let descriptors = daemon.process().descriptors();
    let mut life = daemon.fifo("life");
    // Jobs in groups of their own that start one process after the other.
    let script = format!(
        "trap '' HUP TERM; set -m; exec 3>{}; f() {{ while :; do sleep 0.05; done & }}; echo ready; f; f; f; wait",
        life.path()
    );
    let mut caller = Caller::start(&daemon, PTY, &["bash", "-c", &script]);
    caller.wait_for("ready");
    drop(caller);
    daemon.wait_for_log("over after");
    life.wait_for_death();
    assert_clean(&daemon, descriptors);
}

//! `packaging/runit` under runsv(8).

use super::{Place, Supervisor, has};
use crate::common::eventually;

/// How long a command waits that the test waits for.
const SV: [&str; 3] = ["sv", "-w", "60"];

/// A service directory with the shipped files, and its supervisor. The service is down.
fn service(place: &Place, name: &str) -> Supervisor {
    let run = include_str!("../../../../../packaging/runit/sockexec/run");
    let check = include_str!("../../../../../packaging/runit/sockexec/check");
    place.program(&format!("{name}/run"), &place.adapted(run));
    place.program(&format!("{name}/check"), &place.adapted(check));
    place.program(&format!("{name}/finish"), &format!("echo \"$1 $2\" >{}/ended", place.path().display()));
    place.file(&format!("{name}/down"), "");
    let supervisor = place.supervisor(&["runsv", name]);
    eventually("a supervisor", || sv(place, "status", name).starts_with("down"));
    supervisor
}

/// The output of `sv`, whatever its exit status.
fn sv(place: &Place, command: &str, name: &str) -> String {
    let name = place.path().join(name);
    let output = place.ask(&["sv", "-w", "1", command, name.to_str().expect("UTF-8")]);
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_life_under_runit() {
    if !has("runsv", "") {
        return;
    }
    let place = Place::new("--drain 1000 ");
    let mut supervisor = service(&place, "sockexec");
    let path = place.path().join("sockexec");
    let path = path.to_str().expect("UTF-8");
    sv(&place, "up", "sockexec");
    eventually("a process", || sv(&place, "status", "sockexec").starts_with("run: "));
    // It runs, and `check` reports that it does not serve yet.
    let said = sv(&place, "check", "sockexec");
    assert!(said.starts_with("timeout: run: "), "{said}");
    place.gate.open();
    place.tell(&[&SV[..], &["check", path]].concat());
    // Once `check` succeeds, the daemon serves: there is no look at the socket in between.
    place.assert_serves();
    place.kill_the_daemon();
    place.restart(&[&SV[..], &["restart", path]].concat());
    assert!(supervisor.terminate().success());
    assert!(!place.socket().exists());
}

#[test]
fn a_stop_under_runit() {
    if !has("runsv", "") {
        return;
    }
    let place = Place::new("--drain 1 -k 1 ");
    let _supervisor = service(&place, "sockexec");
    let path = place.path().join("sockexec");
    let path = path.to_str().expect("UTF-8");
    sv(&place, "up", "sockexec");
    place.gate.open();
    place.tell(&[&SV[..], &["check", path]].concat());
    place.stop(&[&SV[..], &["stop", path]].concat());
    assert_eq!(std::fs::read_to_string(place.path().join("ended")).unwrap(), "0 0\n");
}

/// Two services use one path. The second takes over, and the first is not started again.
#[test]
fn a_second_service_takes_over_under_runit() {
    if !has("runsv", "") {
        return;
    }
    let place = Place::new("--drain 1000 ");
    let _supervisors = ["a", "b"].map(|name| service(&place, name));
    sv(&place, "up", "a");
    place.gate.open();
    let path = |name: &str| place.path().join(name).to_str().expect("UTF-8").to_owned();
    place.tell(&[&SV[..], &["check", &path("a")]].concat());
    let mut names = ["a", "b"];
    place.restart_under_load(|| {
        let [old, new] = names;
        place.tell(&["sv", "once", &path(old)]);
        place.tell(&[&SV[..], &["start", &path(new)]].concat());
        eventually("the end of the first", || sv(&place, "status", old).starts_with("down"));
        names.reverse();
    });
}

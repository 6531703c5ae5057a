//! `packaging/s6` under s6-supervise(1).

use super::{Place, Supervisor, has};
use crate::common::eventually;

/// A service directory with the shipped files, and its supervisor. The service is down.
fn service(place: &Place, name: &str) -> Supervisor {
    let run = include_str!("../../../../../packaging/s6/sockexec/run");
    place.program(&format!("{name}/run"), &place.adapted(run));
    let files = [
        ("notification-fd", include_str!("../../../../../packaging/s6/sockexec/notification-fd")),
        ("timeout-kill", include_str!("../../../../../packaging/s6/sockexec/timeout-kill")),
    ];
    for (file, text) in files {
        place.file(&format!("{name}/{file}"), text);
    }
    let finish = include_str!("../../../../../packaging/s6/sockexec/finish");
    place.program(&format!("{name}/finish"), finish);
    place.file(&format!("{name}/down"), "");
    let supervisor = place.supervisor(&["s6-supervise", name]);
    eventually("a supervisor", || place.ask(&["s6-svok", name]).status.success());
    supervisor
}

#[test]
fn a_life_under_s6() {
    if !has("s6-supervise", "") {
        return;
    }
    let place = Place::new("--drain 1000 ");
    let mut supervisor = service(&place, "sockexec");
    let ready = || place.tell(&["s6-svstat", "-o", "up,ready", "sockexec"]);
    // It is up and not ready yet. s6 knows the difference.
    place.tell(&["s6-svc", "-wu", "-u", "sockexec"]);
    assert_eq!(ready(), "true false");
    let mut wait = place.command(&["s6-svwait", "-U", "-t", "60000", "sockexec"]).spawn().unwrap();
    assert!(wait.try_wait().unwrap().is_none());
    place.gate.open();
    assert!(wait.wait().unwrap().success());
    // Once it is ready, the daemon serves: there is no look at the socket in between.
    place.assert_serves();
    assert_eq!(ready(), "true true");
    place.kill_the_daemon();
    // After KILL s6 may not have seen the readiness yet. A restart before that would wait for the
    // next one.
    place.tell(&["s6-svwait", "-U", "sockexec"]);
    place.restart(&["s6-svc", "-wR", "-r", "sockexec"]);
    assert!(supervisor.terminate().success());
    assert!(!place.socket().exists());
}

#[test]
fn a_stop_under_s6() {
    if !has("s6-supervise", "") {
        return;
    }
    let place = Place::new("--drain 1 -k 1 ");
    let _supervisor = service(&place, "sockexec");
    place.tell(&["s6-svc", "-u", "sockexec"]);
    place.gate.open();
    place.tell(&["s6-svwait", "-U", "sockexec"]);
    place.stop(&["s6-svc", "-wD", "-d", "sockexec"]);
    assert_eq!(place.tell(&["s6-svstat", "-o", "exitcode,signal", "sockexec"]), "0 NA");
}

/// Two services use one path. The second takes over, and the first is not started again.
#[test]
fn a_second_service_takes_over_under_s6() {
    if !has("s6-supervise", "") {
        return;
    }
    let place = Place::new("--drain 1000 ");
    let _supervisors = ["a", "b"].map(|name| service(&place, name));
    place.tell(&["s6-svc", "-u", "a"]);
    place.gate.open();
    place.tell(&["s6-svwait", "-U", "a"]);
    let mut names = ["a", "b"];
    place.restart_under_load(|| {
        let [old, new] = names;
        place.tell(&["s6-svc", "-O", old]);
        place.tell(&["s6-svc", "-wU", "-u", new]);
        place.tell(&["s6-svwait", "-D", old]);
        names.reverse();
    });
}

#[test]
fn wrong_options_under_s6_are_not_retried() {
    if !has("s6-supervise", "") {
        return;
    }
    let place = Place::new("--drain soon ");
    let _supervisor = service(&place, "sockexec");
    place.tell(&["s6-svc", "-u", "sockexec"]);
    place.gate.open();
    eventually("a service that is given up", || {
        place.tell(&["s6-svstat", "-o", "up,wantedup,exitcode", "sockexec"]) == "false false 100"
    });
    assert_eq!(place.log().matches("invalid value").count(), 1, "{}", place.log());
}

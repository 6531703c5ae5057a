//! `packaging/supervisor` under supervisord(1).

use super::{Place, Supervisor, has};
use crate::common::eventually;

/// Starts supervisord with a program of each name, from the shipped file. None of them runs yet.
fn services(place: &Place, names: &[&str]) -> Supervisor {
    let shipped = place.adapted(include_str!("../../../../../packaging/supervisor/sockexec.conf"));
    for name in names {
        let own = shipped.replace("[program:sockexec]", &format!("[program:{name}]\nautostart=false"));
        place.file(&format!("conf.d/{name}.conf"), &own);
    }
    let directory = place.path().display();
    let main = format!(
        "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={directory}/pid\n\
         childlogdir={directory}\n\
         [unix_http_server]\nfile={directory}/control\n\
         [supervisorctl]\nserverurl=unix://{directory}/control\n\
         [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
         [include]\nfiles = {directory}/conf.d/*.conf\n"
    );
    place.file("supervisord.conf", &main);
    let supervisor = place.supervisor(&["supervisord", "-c", "supervisord.conf"]);
    eventually("a supervisor", || {
        place.path().join("control").exists() && ctl(place, "pid", "").starts_with(char::is_numeric)
    });
    supervisor
}

const CTL: [&str; 3] = ["supervisorctl", "-c", "supervisord.conf"];

/// The output of supervisorctl, whatever its exit status.
fn ctl(place: &Place, command: &str, name: &str) -> String {
    let mut words = CTL.to_vec();
    words.push(command);
    if !name.is_empty() {
        words.push(name);
    }
    String::from_utf8(place.ask(&words).stdout).expect("text")
}

fn start(place: &Place, name: &str) {
    std::thread::scope(|scope| {
        let started = scope.spawn(|| place.tell(&[&CTL[..], &["start", name]].concat()));
        place.gate.open();
        assert_eq!(started.join().expect("it starts"), format!("{name}: started"));
    });
    // The second of `startsecs` may have passed at the gate.
    eventually("a socket", || std::os::unix::net::UnixStream::connect(place.socket()).is_ok());
}

#[test]
fn a_life_under_supervisor() {
    if !has("supervisord", "-v") {
        return;
    }
    let place = Place::new("--drain 1000 ");
    let mut supervisor = services(&place, &["sockexec"]);
    start(&place, "sockexec");
    assert!(ctl(&place, "status", "sockexec").contains("RUNNING"));
    place.assert_serves();
    place.kill_the_daemon();
    place.restart(&[&CTL[..], &["restart", "sockexec"]].concat());
    assert!(supervisor.terminate().success());
    assert!(!place.socket().exists());
}

#[test]
fn a_stop_under_supervisor() {
    if !has("supervisord", "-v") {
        return;
    }
    let place = Place::new("--drain 1 -k 1 ");
    let _supervisor = services(&place, &["sockexec"]);
    start(&place, "sockexec");
    let stop = [&CTL[..], &["stop", "sockexec"]].concat();
    // Its daemons have a log of their own.
    let mut files = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().path());
    let own = files.find(|path| path.to_string_lossy().contains("sockexec-stdout")).expect("a log of the daemon");
    place.stop(&stop);
    assert!(place.log().contains("stopped: sockexec (exit status 0)"), "{}", place.log());
    assert!(std::fs::read_to_string(own).unwrap().contains("sockexec: stopped"));
}

/// Two programs use one path. The second takes over. The first ends with 0 and is not started
/// again.
#[test]
fn a_second_program_takes_over_under_supervisor() {
    if !has("supervisord", "-v") {
        return;
    }
    let place = Place::new("--drain 1000 ");
    let _supervisor = services(&place, &["a", "b"]);
    start(&place, "a");
    let mut names = ["a", "b"];
    place.restart_under_load(|| {
        let [old, new] = names;
        place.tell(&[&CTL[..], &["start", new]].concat());
        eventually("the end of the first", || ctl(&place, "status", old).contains("EXITED"));
        names.reverse();
    });
}

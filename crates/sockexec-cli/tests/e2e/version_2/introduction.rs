//! The daemon's introduction, and pings.

use serde_json::Value;
use sockexec_proto::request;

use super::{Caller, NONE, netstring, request_2, run};
use crate::common::{Daemon, eventually, pairs, steps};

/// The window in the introduction, in bytes.
#[track_caller]
pub(super) fn window(introduction: &str) -> usize {
    let word = introduction.split(' ').find_map(|word| word.strip_prefix("window=")).expect("a window");
    word.parse().expect("a number")
}

#[test]
fn it_names_the_version_the_window_and_the_options() {
    for (options, window) in
        [("", 671_088), ("-m 1", 1 << 20), ("-m 64", 1 << 20), ("-m 65", 1_032_444), ("-m 1024", 65_536)]
    {
        // As many descriptors as that takes.
        let daemon = crate::common::Launch::default().options(options).prelude("ulimit -n $(ulimit -Hn)").start();
        let names: Vec<&str> = request::OPTIONS.iter().map(|option| option.name).collect();
        let expected = format!("2 window={window} options={}", names.join(","));
        assert_eq!(run(&daemon, NONE, &steps("exit 0"), "").introduction, expected, "{options}");
    }
}

/// It comes as soon as the first netstring is complete: not a byte earlier, whatever follows.
#[test]
fn it_comes_first_and_at_once() {
    let daemon = Daemon::start("");
    let mut client = daemon.connect();
    for byte in b"10:protocol=2" {
        client.send(&[*byte]);
    }
    // Connections that come later are served later. So the daemon has read these bytes.
    run(&daemon, NONE, &steps("exit 0"), "");
    assert_eq!(rustix::io::ioctl_fionread(client.socket()), Ok(0));
    client.send(b",");
    client.wait_for("8:protocol,");
    for wrong in ["3:wat,", "x", "6:status,", "9:timeout=x,", "1:0,"] {
        let mut client = daemon.connect();
        client.send(&[netstring("protocol=2"), wrong.into()].concat());
        let said = pairs(&client.rest());
        let tags: Vec<&str> = said.iter().map(|(tag, _)| tag.as_str()).collect();
        assert_eq!(tags, ["protocol", if wrong == "6:status," { "status" } else { "error" }], "{wrong}");
    }
}

#[test]
fn another_version_gets_the_introduction_and_is_refused() {
    let daemon = Daemon::start("");
    for version in ["1", "3", "", "2.1", "02", "99999999999"] {
        let mut caller = Caller(daemon.connect());
        caller.0.send(&netstring(format!("protocol={version}")));
        let reply = caller.reply();
        let at = format!("{}:protocol=", "protocol=".len() + version.len()).len();
        let expected = format!("bad-request unknown version \"{version}\" of the protocol at byte {at}");
        assert_eq!(reply.refusal(), expected);
        assert!(reply.introduction.starts_with("2 "), "{}", reply.introduction);
    }
}

#[track_caller]
fn ping(daemon: &Daemon) -> Vec<(String, Vec<u8>)> {
    let mut client = daemon.connect();
    client.send(&netstring("protocol=2"));
    client.half_close();
    pairs(&client.rest())
}

/// The introduction is the whole answer, even if all slots are taken. Pings are counted separately.
#[test]
fn a_ping_gets_the_introduction() {
    let daemon = Daemon::start("-m 1 -t 0");
    let mut running = Caller::start(&daemon, NONE, &steps("out ready cat"));
    running.wait_for("ready");
    for _ in 0..3 {
        let said = ping(&daemon);
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0].0, "protocol");
    }
    let mut asker = Caller::start(&daemon, &["status"], &[] as &[&str]);
    let status = std::mem::take(&mut Caller(std::mem::replace(&mut asker.0, daemon.connect())).reply().status);
    let status: Value = serde_json::from_str(&status.expect("a status")).expect("JSON");
    assert_eq!((status["totals"]["pings"].as_u64(), status["totals"]["accepted"].as_u64()), (Some(3), Some(5)));
    assert_eq!(status["totals"]["timed_out"].as_u64(), Some(0));
    running.end_stdin();
    assert_eq!(running.reply().code(), 0);
    // A write for each byte changes nothing.
    let mut client = daemon.connect();
    for byte in netstring("protocol=2") {
        client.send(&[byte]);
    }
    client.half_close();
    assert_eq!(pairs(&client.rest()).len(), 1);
    // A ping with something behind it is not a ping.
    let mut client = daemon.connect();
    client.send(&request_2(&["clearenv"], &[] as &[&str]));
    client.half_close();
    assert_eq!(pairs(&client.rest()).len(), 2);
}

/// A client that vanishes after its ping, or sends it and does not end, costs nothing in the long
/// run.
#[test]
fn pings_leave_nothing() {
    let daemon = Daemon::start("--request-timeout 1");
    let descriptors = daemon.process().descriptors();
    for _ in 0..50 {
        let mut client = daemon.connect();
        let _ = client.try_send(&netstring("protocol=2"));
        client.half_close();
    }
    let silent = Caller::sent_before_it_is_accepted(&daemon, &netstring("protocol=2"));
    assert_eq!(silent.reply().refusal(), "timeout the request was not complete in time");
    eventually("nothing is left", || daemon.process().descriptors() == descriptors);
}

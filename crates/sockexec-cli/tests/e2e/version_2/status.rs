//! What the daemon reports about itself.

use rustix::process::getpid;
use serde_json::Value;

use super::{Caller, NONE, run};
use crate::common::{Daemon, Launch, eventually, steps};

#[track_caller]
pub(crate) fn status(daemon: &Daemon) -> Value {
    let reply = Caller::start(daemon, &["status"], &[] as &[&str]).reply();
    assert_eq!(reply.pairs.len(), 1, "{reply:?}");
    serde_json::from_str(reply.status.as_deref().expect("a status")).expect("JSON")
}

/// The connections other than the one that asks and those that are about to end.
fn live(status: &Value) -> Vec<&Value> {
    let connections = status["connections"].as_array().unwrap();
    connections.iter().filter(|it| !it["pid"].is_null()).collect()
}

#[test]
fn limits_and_version() {
    let daemon = Daemon::start("-m 7 -t 1.5 -k 0.25 --linger 3 --spool 12345");
    let told = status(&daemon);
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert!(told["uptime"].as_f64().unwrap() < 60.0);
    let limits = &told["limits"];
    assert_eq!((limits["max_connections"].as_u64(), limits["spool"].as_u64()), (Some(7), Some(12345)));
    assert_eq!((limits["timeout"].as_f64(), limits["kill_timeout"].as_f64()), (Some(1.5), Some(0.25)));
    assert_eq!(limits["linger"].as_f64(), Some(3.0));
    let told = status(&Daemon::start("-t 0"));
    assert!(told["limits"]["timeout"].is_null() && told["limits"]["linger"].is_null(), "{told}");
}

#[test]
fn totals() {
    let daemon = Daemon::start("-k 0.2");
    assert_eq!(run(&daemon, NONE, &steps("write-out 100000"), "").code(), 0);
    assert_eq!(daemon.run(&steps("exit 3"), b"").code(), 3);
    run(&daemon, NONE, &["nope"], "");
    run(&daemon, &["cwd=/nowhere"], &["true"], "");
    // Time enough for the exec. 15 if the deadline came before the program had ignored TERM.
    let signal = run(&daemon, &["timeout=5"], &steps("ignore TERM ; wait"), "").signal();
    assert!([9, 15].contains(&signal), "{signal}");
    let mut running = Caller::start(&daemon, NONE, &steps("out ready cat"));
    running.wait_for("ready");
    let count = |told: &Value, name: &str| told["totals"][name].as_u64().unwrap();
    let mut told = status(&daemon);
    // A connection counts as over a moment after its client has seen its end.
    eventually("quiet", || {
        told = status(&daemon);
        live(&told).len() == 1
    });
    assert_eq!(
        (count(&told, "running"), count(&told, "finished"), count(&told, "failed_to_start")),
        (1, 3, 2),
        "{told}"
    );
    assert_eq!((count(&told, "timed_out"), count(&told, "killed")), (1, u64::from(signal == 9)), "{told}");
    assert!(count(&told, "accepted") >= 7, "{told}");
    assert!((100_000..200_000).contains(&count(&told, "bytes_out")), "{told}");
    assert!((100..10_000).contains(&count(&told, "bytes_in")), "{told}");
    running.end_stdin();
    assert_eq!(running.reply().code(), 0);
    eventually("the end of that", || count(&status(&daemon), "finished") == 4);
}

#[test]
fn connections() {
    let daemon = Daemon::start("");
    let mut first = Caller::start(&daemon, NONE, &steps("out ready cat"));
    first.wait_for("ready");
    let argv = steps("out ready cat");
    let mut bytes: Vec<Vec<u8>> = argv.iter().map(|arg| arg.clone().into_bytes()).collect();
    bytes[2] = b"\xff\"\n".to_vec();
    let mut second = Caller::start(&daemon, NONE, &bytes);
    second.wait_for("3:");
    let silent = daemon.connect();
    daemon.wait_for_log("connection 3: accepted");
    let told = status(&daemon);
    let all = told["connections"].as_array().unwrap();
    assert_eq!(all.len(), 4, "{told}");
    let numbers: Vec<u64> = all.iter().map(|it| it["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    for connection in all {
        assert_eq!(connection["peer"]["pid"].as_i64(), Some(getpid().as_raw_pid().into()));
        assert_eq!(connection["peer"]["uid"].as_u64(), Some(rustix::process::getuid().as_raw().into()));
        assert!(connection["age"].as_f64().unwrap() < 60.0);
        assert!(connection["state"].as_str().is_some_and(|state| !state.is_empty()));
    }
    assert_eq!(all[0]["argv"], serde_json::json!(argv));
    assert_eq!(all[0]["arguments"].as_u64(), Some(4));
    assert!(all[1]["argv"][2].as_str().unwrap().contains("\"\n"), "{told}");
    assert!(all[0]["bytes_in"].as_u64() > Some(20) && all[0]["bytes_out"].as_u64() > Some(20), "{told}");
    assert_eq!(all[0]["state"], "output or input");
    assert_eq!((all[2]["state"].as_str(), all[2]["pid"].is_null()), (Some("request"), true));
    drop(silent);
    first.end_stdin();
    let reply = first.reply();
    assert_eq!(all[0]["pid"].as_u64(), reply.started.map(u64::from));
    second.end_stdin();
    second.reply();
}

/// What a connection waits for, in words, for each state that a client and a program can hold.
#[test]
fn each_state_has_its_words() {
    let assert_state = |daemon: &Daemon, state: &str| {
        // The first connection stays. The others ask.
        eventually(state, || status(daemon)["connections"][0]["state"] == state);
    };

    let daemon = Daemon::start("-t 0");
    let mut only_reads = Caller::start(&daemon, NONE, &steps("cat out ready wait"));
    only_reads.end_stdin();
    only_reads.wait_for("ready");
    assert_state(&daemon, "output");

    let daemon = Daemon::start("-t 0");
    let _says_no_more = Caller::start(&daemon, NONE, &steps("close 1 close 2 wait"));
    assert_state(&daemon, "exit of the program");

    // With `--linger` the daemon learns of the exit although the output goes on.
    let daemon = Daemon::start("-t 0 --linger 1000");
    let _leaves_a_child = Caller::start(&daemon, NONE, &steps("spawn [ wait ] exit 0"));
    assert_state(&daemon, "output of descendants");

    let daemon = Daemon::start("-t 0 -k 1000");
    let mut ignores = Caller::start(&daemon, NONE, &steps("ignore TERM ; out ready wait"));
    ignores.wait_for("ready");
    drop(ignores);
    assert_state(&daemon, "death after TERM");

    let daemon = Daemon::start("-t 0 -k 1000");
    let mut child_ignores = Caller::start(&daemon, NONE, &steps("spawn [ ignore TERM ; out ready wait ] wait"));
    child_ignores.wait_for("ready");
    drop(child_ignores);
    assert_state(&daemon, "death of the rest of the group");

    // More than the socket takes. The rest waits in the daemon.
    let daemon = Daemon::start("-t 0");
    let _does_not_read = daemon.exec(&steps("write-out 3000000"));
    assert_state(&daemon, "client to read its reply");

    // The state is short, so the test asks again if it missed the moment.
    eventually("client to end its sending", || {
        let mut client = daemon.exec(&steps("out done"));
        client.wait_for("exitcode");
        let told = status(&daemon);
        told["connections"].as_array().unwrap().iter().any(|it| it["state"] == "client to end its sending")
    });
}

/// However much a client has sent, the status shows a limited part.
#[test]
fn many_and_long_arguments_are_cut() {
    let daemon = Daemon::start("");
    let mut caller =
        Caller::start(&daemon, NONE, &[steps("out ready cat exit 0"), vec!["x".repeat(100_000); 20]].concat());
    caller.wait_for("ready");
    let told = status(&daemon);
    let live = live(&told);
    assert_eq!(live[0]["arguments"].as_u64(), Some(26));
    assert!(told.to_string().len() < 20_000, "{} bytes", told.to_string().len());
    drop(caller);
}

/// Many clients ask a daemon again and again.
#[test]
fn frequent_questions_cost_nothing_that_stays() {
    let mut daemon = Launch::default().options("-m 500").quiet().start();
    let callers: Vec<Caller> = (0..200).map(|_| Caller::start(&daemon, &["status"], &[] as &[&str])).collect();
    for caller in callers {
        assert!(caller.reply().status.is_some());
    }
    daemon.assert_serves();
}

/// Nothing may come with the question, and what follows is dropped.
#[test]
fn a_question_stands_alone() {
    let mut daemon = Daemon::start("");
    for options in [&["cwd=/", "status"][..], &["clearenv", "status"]] {
        let reply = Caller::start(&daemon, options, &[] as &[&str]).reply();
        assert!(reply.refusal().starts_with("bad-request option status cannot be combined with option "), "{reply:?}");
    }
    let reply = Caller::start(&daemon, &["status", "cwd=/"], &["true"]).reply();
    assert!(reply.status.is_some(), "{reply:?}");
    daemon.assert_serves();
}

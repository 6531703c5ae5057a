//! The status as a table and for Prometheus, and its counters.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use sockexec_proto::reply;

use super::fake::{Fake, INTRODUCTION};
use super::{bare, run, text};
use crate::common::{Daemon, Launch, eventually, steps};
use crate::version_2::status::status;

/// Prints the status in this format.
#[track_caller]
fn ask(daemon: &Daemon, format: &str) -> String {
    let mut command = bare(daemon);
    command.args(["--status", "--format", format]).arg(daemon.socket());
    let output = run(command);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    text(&output.stdout).to_owned()
}

/// A daemon that has met everything and is idle.
fn experienced() -> Daemon {
    let daemon = Launch::default().options("-m 1 -k 0.2 --request-timeout 3 -t 0").start();
    let silent = daemon.connect();
    for code in [0, 0, 1, 125, 126, 127, 255] {
        assert_eq!(daemon.run(&steps(&format!("exit {code}")), b"").code(), code);
    }
    assert_eq!(daemon.run(&steps("die 11"), b"").signal(), 11);
    assert_eq!(daemon.run(&["no-such-program"], b"").code(), 127);
    assert_eq!(daemon.run(&["/etc/passwd"], b"").code(), 126);
    let mut client = daemon.connect();
    client.send(b"abc");
    client.until_gone();
    silent.until_gone();
    let mut client = daemon.exec(&steps("ignore TERM ; out ready wait"));
    client.wait_for("ready");
    drop(client);
    eventually("rest", || status(&daemon)["totals"]["connections"] == 1);
    daemon
}

/// A family: its type, and each sample by name and labels.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: BTreeMap<String, f64>,
}

/// Parses the text format strictly.
#[track_caller]
fn families(metrics: &str) -> BTreeMap<String, Family> {
    assert!(metrics.ends_with('\n'), "{metrics:?}");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut current = String::new();
    for line in metrics.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect("words");
            assert!(words.ends_with('.') && helped.insert(name.to_owned()), "{line}");
            name.clone_into(&mut current);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert_eq!(name, current, "the type stands behind the words");
            assert!(["gauge", "counter", "histogram"].contains(&kind), "{line}");
            let family = families.entry(name.to_owned()).or_default();
            assert!(family.kind.is_empty(), "{name} twice");
            kind.clone_into(&mut family.kind);
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a value");
            let name = sample.split('{').next().unwrap();
            let family = families.get_mut(&current).expect("a type before the samples");
            let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{current}{part}"));
            let is_its = if family.kind == "histogram" { parts.contains(&name.to_owned()) } else { name == current };
            assert!(is_its, "{line} among {current}");
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(family.samples.insert(sample.to_owned(), value).is_none(), "{line} twice");
        }
    }
    families
}

#[expect(clippy::float_cmp, reason = "they are whole numbers")]
#[test]
fn metrics() {
    let daemon = experienced();
    let metrics = ask(&daemon, "prometheus");
    let families = families(&metrics);
    for (name, Family { kind, samples }) in &families {
        assert!(name.starts_with("sockexec_") && !samples.is_empty(), "{name}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        assert!(samples.values().all(|value| *value >= 0.0 && value.is_finite()), "{name}");
        if kind == "histogram" {
            assert!(name.ends_with("_seconds"), "{name}");
            let count = samples[&format!("{name}_count")];
            let mut buckets: Vec<(f64, f64)> = Vec::new();
            for (sample, value) in samples {
                if let Some((_, bound)) = sample.split_once("{le=\"") {
                    buckets.push((bound.trim_end_matches("\"}").parse().expect("a bound"), *value));
                }
            }
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{buckets:?}");
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name}");
        }
    }
    let value = |family: &str, sample: &str| families[family].samples[&format!("{family}{sample}")];
    let sum = |family: &str| families[family].samples.values().sum::<f64>();
    for (code, count) in [("0", 2.0), ("1-124", 1.0), ("125", 1.0), ("126", 1.0), ("127", 1.0), ("128-255", 1.0)] {
        assert_eq!(value("sockexec_programs_exited_total", &format!("{{code=\"{code}\"}}")), count, "{code}");
    }
    assert_eq!(value("sockexec_programs_signaled_total", "{signal=\"SEGV\"}"), 1.0);
    assert_eq!(value("sockexec_programs_signaled_total", "{signal=\"KILL\"}"), 1.0);
    for (code, count) in
        [("not-found", 1.0), ("not-executable", 1.0), ("bad-request", 1.0), ("timeout", 1.0), ("busy", 0.0)]
    {
        assert_eq!(value("sockexec_errors_total", &format!("{{code=\"{code}\"}}")), count, "{code}");
    }
    // The sums are right. Programs that have ended have exited or died of a signal, and each is in
    // the histogram.
    let finished = value("sockexec_programs_finished_total", "");
    assert_eq!(finished, 9.0);
    assert_eq!(sum("sockexec_programs_exited_total") + sum("sockexec_programs_signaled_total"), finished);
    assert_eq!(value("sockexec_program_run_seconds", "_count"), finished);
    let started = sum("sockexec_programs_started_total");
    assert_eq!(value("sockexec_program_start_seconds", "_count"), started);
    // A program that cannot be executed has a process first.
    assert_eq!(started, finished + value("sockexec_programs_failed_to_start_total", ""));
    assert!(value("sockexec_program_run_seconds", "_sum") >= 0.2, "{metrics}");
    assert_eq!(value("sockexec_requests_timed_out_total", ""), 1.0);
    assert_eq!(value("sockexec_programs_killed_total", ""), 1.0);
    assert_eq!(value("sockexec_build_info", &format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1.0);
    assert_eq!((value("sockexec_slots", ""), value("sockexec_slots_taken", "")), (1.0, 0.0));
    assert!(value("sockexec_transferred_bytes_total", "{direction=\"in\"}") > 100.0, "{metrics}");
    // Never what clients send.
    for word in ["no-such-program", "passwd", "sockexec-fixture"] {
        assert!(!metrics.contains(word), "{metrics}");
    }
}

#[test]
fn promtool_has_nothing_to_say() {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("SKIPPED: there is no promtool (Debian: prometheus)");
        return;
    };
    let metrics = ask(&experienced(), "prometheus");
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), said), (Some(0), ("", "")), "{metrics}");
}

/// Each column of a row of the table, by its heading.
fn cells(table: &str, number: &str) -> BTreeMap<String, String> {
    let mut lines = table.lines().skip_while(|line| !line.starts_with("NUMBER"));
    let heads = lines.next().expect("heads");
    let row: Vec<char> =
        lines.find(|line| line.split_whitespace().next() == Some(number)).expect("a row").chars().collect();
    let names: Vec<&str> = heads.split_whitespace().collect();
    let starts: Vec<usize> = names.iter().map(|name| heads.find(name).unwrap()).collect();
    let ends = starts.iter().skip(1).copied().chain([usize::MAX]);
    let cell = |start: usize, end: usize| row.iter().take(end).skip(start).collect::<String>().trim().to_owned();
    names
        .iter()
        .zip(starts.iter().zip(ends))
        .map(|(name, (&start, end))| ((*name).to_owned(), cell(start, end)))
        .collect()
}

#[test]
fn the_table() {
    let daemon = Launch::default().options("-m 1 -t 1000").start();
    let mut running = crate::version_2::Caller::start(&daemon, &["cwd=/usr"], &steps("out ready cat"));
    running.wait_for("ready");
    let _waiting = crate::version_2::Caller::start(&daemon, &["cwd=/etc"], &["true"]);
    daemon.wait_for_log("connection 2: waits for a slot");
    let table = ask(&daemon, "text");
    for words in [
        "1 of 1 slots taken, running 1, waiting 1",
        "refused: bad requests 0, forbidden 0, busy 0, turned away 0, requests timed out 0",
    ] {
        assert!(table.contains(words), "no {words:?} in {table}");
    }
    let one = cells(&table, "1");
    let uid = rustix::process::getuid().as_raw().to_string();
    assert_eq!(
        (&one["UID"], &one["PEER"], one["CWD"].as_str()),
        (&uid, &std::process::id().to_string(), "/usr"),
        "{table}"
    );
    assert!(one["START"].ends_with(" ago") && one["PID"].parse::<u32>().is_ok(), "{table}");
    let left: f64 = one["LEFT"].parse().expect("seconds");
    assert!((100.0..=1000.0).contains(&left), "{table}");
    assert!(one["ARGV"].ends_with("out ready cat"), "{table}");
    let two = cells(&table, "2");
    assert_eq!(
        (two["STATE"].as_str(), two["CWD"].as_str(), two["PID"].as_str()),
        ("a free slot", "/etc", "-"),
        "{table}"
    );
    assert_eq!((two["START"].as_str(), two["LEFT"].as_str()), ("-", "-"), "{table}");
    // The answer to USR1 has the same order and the same number.
    let position = daemon.log_position();
    daemon.signal(rustix::process::Signal::USR1);
    daemon.wait_for_log_after(position, "waits for: a free slot");
    let log = daemon.log_text().split_off(position);
    assert!(log.contains("1 of 1 slots taken, 1 requests wait"), "{log}");
    let at = |words: &str| log.find(words).unwrap_or_else(|| panic!("no {words} in {log}"));
    assert!(at("sockexec: connection 1 ") < at("sockexec: connection 2 "), "{log}");
}

/// Connections come and go, and their places are reused. The list is in the order of their numbers
/// all the same.
#[test]
fn connections_are_sorted_by_number() {
    let daemon = Daemon::start("-t 0");
    let mut clients: Vec<_> = (0..6).map(|_| daemon.exec(&steps("out ready cat"))).collect();
    for client in &mut clients {
        client.wait_for("ready");
    }
    // Places are reused, the last one freed first.
    for at in [4, 2, 0] {
        let mut client = clients.remove(at);
        client.end_stdin();
        assert_eq!(client.reply().code(), 0);
        let live = clients.len() + 1;
        eventually("its end", || status(&daemon)["totals"]["connections"] == live);
    }
    let mut more: Vec<_> = (0..3).map(|_| daemon.exec(&steps("out ready cat"))).collect();
    for client in &mut more {
        client.wait_for("ready");
    }
    let told = status(&daemon);
    let numbers: Vec<u64> =
        told["connections"].as_array().unwrap().iter().map(|it| it["number"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted() && numbers.len() >= 6, "{numbers:?}");
    let position = daemon.log_position();
    daemon.signal(rustix::process::Signal::USR1);
    daemon.wait_for_log_after(position, &format!("sockexec: connection {} from", numbers[5]));
    let log = daemon.log_text().split_off(position);
    let listed = log.lines().filter(|line| line.contains(": age "));
    let listed: Vec<u64> = listed.filter_map(|line| line.split_whitespace().nth(2)?.parse().ok()).collect();
    assert!(listed.is_sorted() && listed.len() >= 6, "{log}");
}

/// A daemon that answers every question for its status with this.
fn asked(said: Vec<u8>) -> Fake {
    Fake::new(move |mut peer| {
        peer.until(b"10:protocol=2,6:status,");
        peer.say(&said);
    })
}

/// A peer in a PID namespace that the daemon does not see has the number 0.
#[test]
fn a_peer_without_a_number() {
    let json =
        r#"{"version":"1","connections":[{"number":7,"peer":{"pid":0,"uid":33,"gid":33},"pid":1,"argv":["x"]}]}"#;
    let mut said = INTRODUCTION.to_vec();
    reply::encode_pair(reply::STATUS, json.as_bytes(), &mut said);
    let fake = asked(said);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockexec-client"));
    command.arg("--status").arg(fake.socket());
    let output = run(command);
    fake.join();
    let row = cells(text(&output.stdout), "7");
    assert_eq!((row["PEER"].as_str(), row["UID"].as_str()), ("-", "33"), "{}", text(&output.stdout));
}

/// What a daemon with this status has for Prometheus.
#[track_caller]
fn metrics_of(status: &str) -> String {
    let mut said = INTRODUCTION.to_vec();
    reply::encode_pair(reply::STATUS, status.as_bytes(), &mut said);
    let fake = asked(said);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockexec-client"));
    command.args(["--status", "--format", "prometheus"]).arg(fake.socket());
    let output = run(command);
    fake.join();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    text(&output.stdout).to_owned()
}

/// An older daemon gets only the families that it can fill.
#[test]
fn metrics_of_a_daemon_that_does_not_count() {
    let metrics = metrics_of(
        r#"{"version":"4 \"\\","uptime":1.5,"totals":{"accepted":3,"bytes_in":1,"bytes_out":2},"connections":[]}"#,
    );
    let families = families(&metrics);
    assert!(!families.contains_key("sockexec_errors_total"), "{metrics}");
    assert!(metrics.contains("\nsockexec_connections_accepted_total 3\n"), "{metrics}");
    assert!(metrics.contains("sockexec_build_info{version=\"4 \\\"\\\\\"} 1\n"), "{metrics}");
    assert!(metrics.contains("sockexec_transferred_bytes_total{direction=\"out\"} 2\n"), "{metrics}");
}

/// What the status does not tell is left out: a counter that falls to 0 means that the daemon was started again. The bytes were 0 without
/// `totals`, and so was any member that was no number.
#[test]
fn what_is_not_known_is_left_out() {
    let version = "# HELP sockexec_build_info Version of the daemon.\n# TYPE sockexec_build_info gauge\n\
                   sockexec_build_info{version=\"9\"} 1\n";
    for (status, expected) in [
        (r#"{"version":"9"}"#, version),
        (r#"{"version":"9","totals":null,"counts":7,"limits":[]}"#, version),
        (r#"{"version":"9","totals":{"bytes_in":null,"bytes_out":"many","accepted":[]}}"#, version),
        (r#"{"version":"9","counts":{"exits":{},"errors":[1],"signals":{"9":"once"}}}"#, version),
        (r#"{"version":"9","counts":{"run_seconds":{}}}"#, version),
        (r#"{"version":"9","counts":{"run_seconds":{"bounds":[1],"counts":[1,2]}}}"#, version),
        (r#"{"version":"9","counts":{"run_seconds":{"bounds":[1],"counts":[1],"sum":0.5}}}"#, version),
        (r#"{"version":"9","counts":{"run_seconds":{"bounds":[1],"counts":[1,-2],"sum":0.5}}}"#, version),
        ("{}", ""),
        ("[]", ""),
    ] {
        assert_eq!(metrics_of(status), expected, "{status}");
    }
    let metrics = metrics_of(
        r#"{"totals":{"bytes_in":5},"counts":{"exits":{"0":2,"125":null},"run_seconds":{"bounds":[1],"counts":[1,2],"sum":0.5}}}"#,
    );
    let samples: Vec<&str> = metrics.lines().filter(|line| !line.starts_with('#')).collect();
    let expected = [
        "sockexec_transferred_bytes_total{direction=\"in\"} 5",
        "sockexec_programs_exited_total{code=\"0\"} 2",
        "sockexec_program_run_seconds_bucket{le=\"1\"} 1",
        "sockexec_program_run_seconds_bucket{le=\"+Inf\"} 3",
        "sockexec_program_run_seconds_sum 0.5",
        "sockexec_program_run_seconds_count 3",
    ];
    assert_eq!(samples, expected, "{metrics}");
    families(&metrics);
}

/// Clients that are refused for lack of room are counted.
#[test]
fn refusals_are_counted() {
    let daemon = Launch::default().options("-m 1 --max-waiting 1 -t 0").start();
    let mut running = daemon.exec(&steps("out ready cat"));
    running.wait_for("ready");
    let clients: Vec<_> = (0..12).map(|_| daemon.exec(&["true"])).collect();
    eventually("a refusal", || {
        let told = status(&daemon);
        let count = |name: &str| told["totals"][name].as_u64().unwrap();
        count("busy") >= 3 && count("turned_away") >= count("busy") && count("busy") == told["counts"]["errors"]["busy"]
    });
    drop(clients);
}

//! The options of a request.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::{Duration, Instant};

use sockexec_proto::request::{OPTIONS, OptionSpec};

use super::{Caller, NONE, netstring, request_2, run};
use crate::common::{Daemon, Launch, fixture, steps};

#[test]
fn without_options_it_runs_as_in_version_1() {
    let mut daemon = Launch::default().env("WORD", "from the daemon").start();
    let reply = run(&daemon, NONE, &steps("cwd env WORD err word exit 3"), "");
    let directory = daemon.directory().canonicalize().unwrap();
    assert_eq!(reply.stdout_text(), format!("{}\nfrom the daemon\n", directory.display()));
    assert_eq!((reply.stderr_text(), reply.code()), ("word", 3));
    daemon.assert_serves();
}

#[test]
fn cwd_is_the_programs_directory() {
    let daemon = Daemon::start("");
    let directory = daemon.directory().canonicalize().unwrap();
    fs::create_dir(directory.join("inner")).unwrap();
    fs::create_dir(directory.join("strange \u{e4}\n=")).unwrap();
    let absolute = format!("cwd={}", directory.join("inner").display());
    for (option, name) in
        [(absolute.as_str(), "inner"), ("cwd=inner", "inner"), ("cwd=strange \u{e4}\n=", "strange \u{e4}\n=")]
    {
        let reply = run(&daemon, &[option], &steps("cwd"), "");
        assert_eq!((reply.stdout_text(), reply.code()), (format!("{}\n", directory.join(name).display()).as_str(), 0));
    }
    // The daemon's own directory does not change.
    assert_eq!(run(&daemon, NONE, &steps("cwd"), "").stdout_text(), format!("{}\n", directory.display()));
}

/// A name that contains a slash, and a relative element of PATH, are looked up there.
#[test]
fn a_relative_program_is_looked_up_in_cwd() {
    let daemon = Daemon::start("");
    let inner = daemon.directory().join("inner");
    fs::create_dir(&inner).unwrap();
    symlink(fixture(), inner.join("program")).unwrap();
    for (options, program) in [(&["cwd=inner"][..], "./program"), (&["cwd=inner", "env=PATH=."], "program")] {
        let reply = run(&daemon, options, &[program, "out", "ran"], "");
        assert_eq!((reply.stdout_text(), reply.code()), ("ran", 0), "{options:?}");
    }
    assert_eq!(run(&daemon, NONE, &["./program"], "").refusal(), "not-found ./program: No such file or directory");
}

#[test]
fn a_directory_that_cannot_be_entered_is_an_error() {
    let prelude = "[ $(id -u) != 0 ] || ! command -v setpriv || exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" \"$@\"";
    let launch = Launch::default().prelude(prelude);
    // As another user the daemon has to make its socket there.
    fs::set_permissions(launch.directory(), Permissions::from_mode(0o777)).unwrap();
    let mut daemon = launch.start();
    let closed = daemon.directory().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
    fs::write(daemon.directory().join("file"), "").unwrap();
    let mut cases = vec![
        ("/nowhere/at/all", "not-found /nowhere/at/all: No such file or directory"),
        ("file", "not-found file: Not a directory"),
    ];
    if daemon.process().status_kib("Uid:") == 0 {
        eprintln!("SKIPPED: no setpriv to be another user, and to root nothing is closed");
    } else {
        cases.push(("closed", "denied closed: Permission denied"));
    }
    for (directory, expected) in cases {
        let option = format!("cwd={directory}");
        assert_eq!(run(&daemon, &[option], &["/bin/true"], "").refusal(), expected);
    }
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    daemon.assert_serves();
}

/// The whole environment, sorted.
#[track_caller]
fn environment(daemon: &Daemon, options: &[&str]) -> Vec<String> {
    let reply = run(daemon, options, &["/usr/bin/env"], "");
    assert_eq!(reply.code(), 0, "{reply:?}");
    let mut variables: Vec<String> = reply.stdout_text().lines().map(str::to_owned).collect();
    variables.sort();
    variables
}

#[test]
fn env_unsetenv_and_clearenv_apply_in_order() {
    let daemon = Launch::default().env("A", "daemon's").env("B", "daemon's").start();
    let own = environment(&daemon, &[]);
    assert!(own.contains(&"A=daemon's".into()) && own.contains(&"B=daemon's".into()));

    let changed = environment(&daemon, &["env=A=x=y ", "unsetenv=B", "env=NEW=", "unsetenv=NEVER"]);
    let mut expected: Vec<String> =
        own.iter().filter(|it| !it.starts_with("A=") && !it.starts_with("B=")).cloned().collect();
    expected.extend(["A=x=y ".into(), "NEW=".into()]);
    expected.sort();
    assert_eq!(changed, expected);

    // In order: each option applies to the result of the one before.
    assert_eq!(environment(&daemon, &["env=A=1", "clearenv", "env=B=2", "env=C=3", "unsetenv=C", "env=B=4"]), ["B=4"]);
    assert_eq!(environment(&daemon, &["clearenv"]), Vec::<String>::new());
    assert_eq!(
        environment(&daemon, &["env=A=1", "unsetenv=A", "env=A=2"]).iter().filter(|it| it.starts_with("A=")).count(),
        1
    );
    // The daemon's own environment does not change.
    assert_eq!(environment(&daemon, &[]), own);
}

/// As with `env PATH=... program`, the program is looked up in the PATH that it gets.
#[test]
fn the_program_is_looked_up_in_its_own_path() {
    let daemon = Daemon::start("");
    symlink(fixture(), daemon.directory().join("only-here")).unwrap();
    let path = format!("env=PATH=/nowhere:{}", daemon.directory().display());
    let reply = run(&daemon, &[path.as_str()], &["only-here", "env", "PATH"], "");
    assert_eq!(reply.stdout_text(), format!("{}\n", path.strip_prefix("env=PATH=").unwrap()));
    for options in [&["env=PATH=/nowhere"][..], &[path.as_str(), "clearenv"], &[path.as_str(), "unsetenv=PATH"]] {
        let refusal = run(&daemon, options, &["only-here"], "");
        assert_eq!(refusal.refusal(), "not-found only-here: No such file or directory", "{options:?}");
    }
    // Without PATH, in the default directories.
    assert_eq!(run(&daemon, &["clearenv"], &["true"], "").code(), 0);
    assert_eq!(
        run(&daemon, &["env=PATH=/nowhere"], &["true"], "").refusal(),
        "not-found true: No such file or directory"
    );
}

const TIMED_OUT: &str = "timeout the deadline has come; the program is ended";

/// The client chooses the length of the name and of PATH. Neither costs the daemon memory or delays
/// its other clients: the child searches, and the daemon refuses a request that no program can have
/// before there is a child.
#[test]
fn a_path_of_very_many_directories() {
    let mut daemon = Daemon::start("");
    daemon.assert_serves();
    let before = daemon.process().peak_kib();
    let refusal = |path: &str, name: &str| {
        run(&daemon, &[format!("env=PATH={path}")], &[name], "").refusal().replace(name, "NAME")
    };
    let (longest, longer) = ("n".repeat(255), "n".repeat(256));
    assert_eq!(refusal(&"a:".repeat(60_000), &longest), "not-found NAME: No such file or directory");
    assert_eq!(refusal(&"a:".repeat(70_000), &longest), "not-executable NAME: Argument list too long");
    assert_eq!(refusal(&"a:".repeat(400), &longer), "not-executable NAME: File name too long");
    assert!(refusal(&"a:".repeat(400), &"n".repeat(1 << 20)).ends_with(": File name too long"));
    let grown = daemon.process().peak_kib() - before;
    assert!(grown < 8 << 10, "{grown} KiB");
    daemon.assert_serves();
}

#[test]
fn timeout() {
    let daemon = Daemon::start("-t 60 -k 30");
    // A slow machine may not have the whole group when the deadline comes. Then the test tries again
    // with more time.
    let is_done = ["0.75", "5", "20"].iter().any(|timeout| {
        let mut fifo = daemon.fifo(timeout);
        let begun = Instant::now();
        let argv = steps(&format!("spawn [ hold {} wait ] out word wait", fifo.path()));
        let mut caller = Caller::start(&daemon, &[format!("timeout={timeout}")], &argv);
        caller.end_stdin();
        let reply = caller.reply();
        let least = Duration::from_secs_f64(timeout.parse().unwrap());
        // Long before KILL would be due.
        assert!((least..least + Duration::from_secs(25)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        assert_eq!(reply.errors, [TIMED_OUT]);
        let is_ready = reply.stdout_text() == "word" && fifo.was_held();
        if is_ready {
            assert_eq!(reply.signal(), 15, "{reply:?}");
            // The whole group ends.
            fifo.wait_for_death();
        }
        is_ready
    });
    assert!(is_done, "each deadline found a group that was not ready");
    // A program that ends in time is not affected.
    assert_eq!(run(&daemon, &["timeout=50"], &steps("exit 4"), "").code(), 4);
}

#[test]
fn after_timeout_comes_kill() {
    let daemon = Daemon::start("-k 0.2");
    // On a slow machine TERM may come before it is ignored. Then the test tries again with more
    // time.
    let argv = steps("ignore TERM ; out ready wait");
    let mut replies =
        ["timeout=0.2", "timeout=4", "timeout=40"].iter().map(|&timeout| run(&daemon, &[timeout], &argv, ""));
    let reply = replies.find(|reply| reply.stdout_text() == "ready").expect("a program that is there in time");
    assert_eq!((reply.errors, reply.exit), (vec![TIMED_OUT.into()], Some(("termsig".into(), "9".into()))));
}

/// A request may ask for less time than the daemon gives, but not for more.
#[test]
fn timeout_is_never_later_than_the_daemons() {
    let daemon = Daemon::start("-t 0.5 -k 20");
    let begun = Instant::now();
    // The deadline may come before the exec. Then no exit pair follows.
    let reply = run(&daemon, &["timeout=999999999999999999"], &steps("wait"), "");
    assert_eq!(reply.errors, [TIMED_OUT]);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    // Without a deadline of the daemon, the request's counts.
    let daemon = Daemon::start("-t 0");
    assert_eq!(run(&daemon, &["timeout=0.1"], &steps("wait"), "").errors, [TIMED_OUT]);
}

/// With one stream a reader gets the words in the order in which they were written.
#[test]
fn stderr_to_stdout() {
    let daemon = Daemon::start("");
    let mut argv = vec![fixture().to_owned()];
    let mut expected = String::new();
    for n in 0..100 {
        argv.extend(["out".into(), format!("o{n} "), "err".into(), format!("e{n} ")]);
        let _ = write!(expected, "o{n} e{n} ");
    }
    let reply = run(&daemon, &["stderr=stdout"], &argv, "");
    assert_eq!((reply.stdout_text(), reply.stderr_text(), reply.code()), (expected.as_str(), "", 0));
    assert_eq!(reply.ended, ["stdout"], "there is no other stream");
    let reply = run(&daemon, &["stderr=stdout"], &steps("write-out 300000 write-err 300000 cat"), "end");
    assert_eq!((reply.stdout.len(), reply.code()), (600_003, 0));
}

/// Every wrong option is refused, with the reason and the byte. None is ignored.
#[test]
fn bad_options_are_refused() {
    let mut daemon = Daemon::start("");
    let table: &[(&[&str], &str)] = &[
        (&["wat"], "unknown option \"wat\" at byte 16"),
        (&["wat=1"], "unknown option \"wat\" at byte 16"),
        (&["CWD=/"], "unknown option \"CWD\" at byte 16"),
        (&["cwd"], "option cwd needs a value at byte 16"),
        (&["cwd="], "invalid value \"\" of option cwd at byte 20"),
        (&["cwd=/", "cwd=/"], "option cwd given twice at byte 24"),
        (&["cwd=/\0"], "option cwd holds a NUL byte at byte 21"),
        (&["env"], "option env needs a value at byte 16"),
        (&["env=A"], "invalid value \"A\" of option env at byte 20"),
        (&["env==x"], "invalid value \"=x\" of option env at byte 20"),
        (&["env=A=\0"], "option env holds a NUL byte at byte 22"),
        (&["unsetenv"], "option unsetenv needs a value at byte 16"),
        (&["unsetenv="], "invalid value \"\" of option unsetenv at byte 25"),
        (&["unsetenv=A=1"], "invalid value \"A=1\" of option unsetenv at byte 26"),
        (&["clearenv=1"], "option clearenv takes no value at byte 25"),
        (&["timeout"], "option timeout needs a value at byte 16"),
        (&["timeout=0"], "invalid value \"0\" of option timeout at byte 24"),
        (&["timeout=-1"], "invalid value \"-1\" of option timeout at byte 25"),
        (&["timeout=1e3"], "invalid value \"1e3\" of option timeout at byte 25"),
        (&["timeout=1."], "invalid value \"1.\" of option timeout at byte 25"),
        (&["timeout=1", "timeout=1"], "option timeout given twice at byte 28"),
        (&["stderr"], "option stderr needs a value at byte 16"),
        (&["stderr=null"], "invalid value \"null\" of option stderr at byte 24"),
        (&["stderr=stdout", "stderr=stdout"], "option stderr given twice at byte 34"),
        (&["pty"], "option pty needs a value at byte 16"),
        (&["pty=80"], "invalid value \"80\" of option pty at byte 20"),
        (&["pty=80x"], "invalid value \"80x\" of option pty at byte 20"),
        (&["pty=80x65536"], "invalid value \"80x65536\" of option pty at byte 21"),
        (&["pty=80x24", "pty=80x24"], "option pty given twice at byte 28"),
        (&["utf8=1"], "option utf8 takes no value at byte 20"),
        (&["fds=3"], "option fds takes no value at byte 19"),
        (&["fds", "fds"], "option fds given twice at byte 22"),
        (&["fds", "pty=80x24"], "option pty cannot be combined with option fds at byte 22"),
        (&["stderr=stdout", "fds"], "option fds cannot be combined with option stderr at byte 33"),
        (&["status=1"], "option status takes no value at byte 22"),
        (&["cwd=/", "status"], "option status cannot be combined with option cwd at byte 24"),
    ];
    let mut wrong = Vec::new();
    for (options, expected) in table {
        let mut caller = Caller(daemon.connect());
        caller.0.send(&request_2(options, &["/bin/true"]));
        let reply = caller.reply();
        if reply.refusal() != format!("bad-request {expected}") {
            wrong.push(format!("{options:?}: {:?} instead of {expected:?}", reply.refusal()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    daemon.assert_serves();
    for OptionSpec { name, takes_value, .. } in OPTIONS {
        let words = if *takes_value { format!("of option {name} at") } else { format!("option {name} takes no value") };
        let is_there = table.iter().any(|(_, expected)| expected.contains(&words));
        assert!(is_there, "`table` of this test needs a row \"... {words}\"");
    }
}

/// Wrong arguments of version 2 have an answer of version 2.
#[test]
fn bad_arguments_are_refused() {
    let mut daemon = Daemon::start("");
    for (bytes, expected) in [
        ("1:0,", "number of arguments is 0 at byte 16"),
        ("0:,", "number of arguments is not a decimal number: \"\" at byte 16"),
        ("2:1x,", "number of arguments is not a decimal number: \"1x\" at byte 16"),
        ("5:65537,", "more than 65536 arguments at byte 16"),
        ("1:1,3:a\0b,", "argument 0 holds a NUL byte at byte 21"),
        ("8:99999999,", "number of arguments"),
        ("x", "length"),
    ] {
        let mut caller = Caller(daemon.connect());
        caller.0.send(&[netstring("protocol=2").as_slice(), bytes.as_bytes()].concat());
        let reply = caller.reply();
        let words = reply.refusal().strip_prefix("bad-request ").unwrap_or_else(|| panic!("{reply:?}"));
        let is_expected = words == expected || !expected.contains(" at byte") && words.contains(expected);
        assert!(
            is_expected || bytes == "8:99999999," && words.starts_with("more than 65536 arguments"),
            "{bytes:?}: {words}"
        );
    }
    // The length alone shows it.
    let mut caller = Caller(daemon.connect());
    caller.0.send(&[netstring("protocol=2").as_slice(), b"7:4194304:"].concat());
    assert!(caller.reply().refusal().starts_with("bad-request "));
    let mut caller = Caller(daemon.connect());
    caller.0.send(&[netstring("protocol=2").as_slice(), b"4194304:"].concat());
    assert_eq!(
        caller.reply().refusal(),
        "bad-request options and arguments of more than 4194304 bytes in all at byte 22"
    );
    daemon.assert_serves();
}

#[test]
fn many_options() {
    let mut daemon = Daemon::start("");
    let most: Vec<String> = (0..4096).map(|n| format!("env=N{n}=")).collect();
    assert_eq!(run(&daemon, &most, &steps("env N7 exit 5"), "").code(), 5);
    let mut caller = Caller(daemon.connect());
    let too_many: Vec<&str> = std::iter::repeat_n("clearenv", 4097).collect();
    caller.0.send(&request_2(&too_many, &["/bin/true"]));
    assert!(caller.reply().refusal().starts_with("bad-request more than 4096 options at byte "));
    daemon.assert_serves();
}

/// A request means the same wherever it is cut.
#[test]
fn a_request_may_come_in_single_bytes() {
    let daemon = Daemon::start("");
    let options = ["cwd=/", "clearenv", "env=A=b", "timeout=30.5", "stderr=stdout"];
    let mut bytes = request_2(&options, &steps("cwd env A err word cat"));
    bytes.extend(super::pair("stdin", "input"));
    bytes.extend(super::pair("stdin", ""));
    let mut caller = Caller(daemon.connect());
    for byte in bytes {
        caller.0.send(&[byte]);
    }
    let reply = caller.reply();
    assert_eq!((reply.stdout_text(), reply.code()), ("/\nb\nwordinput", 0));
}

//! Options, and messages about wrong ones.

use std::os::unix::fs::PermissionsExt;

use crate::common::{Daemon, Launch, Stopped, steps};

/// Runs the daemon with these arguments only.
#[track_caller]
fn run(arguments: &[&str]) -> Stopped {
    Launch::default().arguments(arguments).run()
}

#[test]
fn version() {
    for option in ["-v", "--version", "-dv"] {
        let stopped = run(&[option]);
        assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
        assert_eq!(stopped.stdout, format!("sockexec version: {}\n", env!("CARGO_PKG_VERSION")));
        assert_eq!(stopped.stderr, "");
    }
}

/// An option that 3.1.1 does not have is in compatibility.md and in CHANGELOG.md.
#[test]
fn new_options_are_in_the_documents() {
    let file = |path: &str| {
        let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let documents = ["CHANGELOG.md", "docs/compatibility.md"].map(|path| (path, file(path)));
    let help = run(&["--help"]).stdout;
    // The options of 3.1.1 have a letter first.
    let new: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("      --")).collect();
    assert!(new.len() > 10, "{help}");
    for line in new {
        let option = format!("`--{}`", line.split_whitespace().next().expect("a name"));
        for (path, document) in &documents {
            let bare = option.trim_end_matches('`');
            assert!(document.contains(&option) || document.contains(&format!("{bare} ")), "{option} is not in {path}");
        }
    }
}

#[test]
fn help_names_every_option() {
    for option in ["-h", "--help"] {
        let stopped = run(&[option]);
        assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
        for word in [
            "-v",
            "-h",
            "-d",
            "-q",
            "-m",
            "-t",
            "-k",
            "-M",
            "--version",
            "--help",
            "--debug",
            "--max-queue",
            "--max-connections",
            "--timeout",
            "--kill-timeout",
            "--mode",
            "--linger",
            "--drain",
            "--owner",
            "--user",
            "--replace",
            "--listen-fd",
            "--notification-fd",
            "--spool",
            "--spool-total",
            "--termsig",
            "--log-level",
            "--log-format",
            "--log-time",
        ] {
            assert!(stopped.stdout.contains(word), "no {word} in {}", stopped.stdout);
        }
    }
}

/// Exit code 100, nothing on stdout, and a message that names what is wrong.
#[test]
fn usage_errors() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "usage"),
        (&["-x", "sock"], "-x"),
        (&["--no-such-option", "sock"], "--no-such-option"),
        (&["sock", "another"], "another"),
        (&["-q"], "-q"),
        (&["-q", "0", "sock"], "0"),
        (&["-q", "many", "sock"], "many"),
        (&["-q", "-1", "sock"], "-1"),
        (&["-m", "0", "sock"], "0"),
        (&["-m", "1.5", "sock"], "1.5"),
        (&["-m", "99999999999999999999", "sock"], "99999999999999999999"),
        (&["-t", "soon", "sock"], "soon"),
        (&["-t", "-1", "sock"], "-1"),
        (&["-t", "nan", "sock"], "nan"),
        (&["-t", "inf", "sock"], "inf"),
        (&["-t", "", "sock"], "-t"),
        (&["-k", "0", "sock"], "0"),
        (&["-k", "x", "sock"], "x"),
        (&["-M", "8", "sock"], "8"),
        (&["-M", "rw", "sock"], "rw"),
        (&["-M", "77777", "sock"], "77777"),
        (&["--linger", "x", "sock"], "x"),
        (&["--linger", "-1", "sock"], "-1"),
        (&["--spool", "x", "sock"], "x"),
        (&["--spool", "-1", "sock"], "-1"),
        (&["--spool-total", "x", "sock"], "x"),
        (&["--termsig", "maybe", "sock"], "maybe"),
        (&["--termsig"], "--termsig"),
        (&["--drain", "soon", "sock"], "soon"),
        (&["--listen-fd"], "--listen-fd"),
        (&["--notification-fd", "2", "sock"], "at least 3"),
        (&["--listen-fd", "three"], "three"),
        (&["--listen-fd", "-1"], "-1"),
        (&["--listen-fd", "+1"], "+1"),
        (&["--log-level", "loud", "sock"], "loud"),
        (&["--log-format", "xml", "sock"], "xml"),
        (&["--max-per-user", "0", "sock"], "at least 1"),
        (&["--max-waiting", "0", "sock"], "at least 1"),
        (&["--request-timeout", "soon", "sock"], "soon"),
    ];
    for (arguments, word) in cases {
        let stopped = run(arguments);
        assert_eq!(stopped.status.code(), Some(100), "{arguments:?}: {stopped:?}");
        assert_eq!(stopped.stdout, "", "{arguments:?}");
        assert!(stopped.stderr.to_lowercase().contains(&word.to_lowercase()), "{arguments:?}: {}", stopped.stderr);
        let helps = ["Usage: ", "usage: ", "--help"].iter().any(|word| stopped.stderr.contains(word));
        assert!(helps, "nothing on how it is written right: {}", stopped.stderr);
        // The value is wrong. It is no option -1.
        let is_about_the_value = stopped.stderr.contains("invalid value '-1'");
        assert_eq!(arguments.get(1) == Some(&"-1"), is_about_the_value, "{arguments:?}: {}", stopped.stderr);
    }
    let help = run(&["--help"]).stdout;
    let with_value: Vec<&str> =
        help.lines().filter_map(|line| line.trim_start().split_once(" <")).map(|it| it.0).collect();
    assert!(with_value.len() > 15, "{help}");
    // The system knows which of their values are wrong: `users`.
    let untested = with_value.iter().filter(|names| !["--owner", "--user"].contains(names)).filter(|names| {
        let is_it = |word: &str| names.split(", ").any(|name| name == word);
        !cases.iter().any(|(arguments, _)| arguments.first().is_some_and(|word| is_it(word)))
    });
    let untested: Vec<_> = untested.collect();
    assert!(untested.is_empty(), "`cases` of this test needs a row with a wrong value of each of {untested:?}");
}

/// Every option of 3.1.1 in each form that getopt takes, and the new ones. The deadline must not come first on
/// a busy machine.
#[test]
fn every_option_is_taken() {
    for options in [
        "-q 1 -m 1 -t 100 -k 1 -M 600",
        "-q1 -m1 -t100 -k1 -M0600",
        "--max-queue 7 --max-connections 7 --timeout 30 --kill-timeout 5 --mode 0600",
        "--max-queue=7 --max-connections=7 --timeout=30 --kill-timeout=5 --mode=0600",
        "-t 0 -k 0.5",
        "-t 100.5 --linger 1.5 --spool 0 --termsig number",
        "--linger 1 --spool 1073741824 --spool-total 4K --termsig name",
        "--log-level info --log-format json --log-time",
        "-m 3 --",
    ] {
        let mut daemon = Launch::default().options(options).start();
        daemon.assert_serves();
        assert!(daemon.terminate().status.success(), "{options}");
    }
}

/// As in getopt: a wrapper's options come first, and its user's after them.
#[test]
fn of_options_given_twice_the_last_counts() {
    let options = "-t 1 -m 0600 -m 1 -M 0666 -M 0600 -k 1 -k 2 -q 1 -q 9 --timeout 0 -d --debug";
    let mut daemon = Launch::default().options(options).start();
    daemon.assert_serves();
    let mode = std::fs::metadata(daemon.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert!(daemon.terminate().status.success());
}

/// Without `-d`, and with nothing wrong, the daemon reports only its start and end.
#[test]
fn without_debugging_it_is_quiet() {
    let mut daemon = Launch::default().quiet().start();
    daemon.assert_serves();
    let stopped = daemon.terminate();
    assert_eq!((stopped.stdout.as_str(), stopped.complaints().as_str()), ("", ""));
    assert!(stopped.stderr.contains("listening on "), "{stopped:?}");
}

/// The life of every connection: the client, its program, and how that ended.
#[test]
fn debugging_shows_the_life_of_a_connection() {
    let daemon = Daemon::start("");
    let mut argv = steps("exit 7");
    argv.push("an argument\n".to_owned());
    assert_eq!(daemon.run(&argv, b"").code(), 7);
    for word in [
        std::process::id().to_string(),
        rustix::process::getuid().as_raw().to_string(),
        rustix::process::getgid().as_raw().to_string(),
        "sockexec-fixture".to_owned(),
        // Quoted, so that a client's newline does not make a line of the log.
        "\"an argument\\n\"".to_owned(),
    ] {
        daemon.wait_for_log(&word);
    }
    for line in daemon.log_text().lines() {
        assert!(line.starts_with("sockexec: "), "{line:?}");
    }
}

/// It stays in the foreground, so that a supervisor knows it.
#[test]
fn it_is_the_process_that_was_started() {
    let daemon = Daemon::start("");
    assert_eq!(daemon.connect().peer(), daemon.process().0);
}

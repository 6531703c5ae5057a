//! What a program finds when it starts, and what the client learns when it does not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::{Daemon, Launch, Reply, fixture, steps, write_program};
use crate::limits::raise_own_limit;

#[track_caller]
fn assert_not_started(reply: &Reply, program: &str, code: i32) {
    let stderr = reply.stderr_text();
    assert!(stderr.starts_with(&format!("sockexec: {program}: ")), "{reply:?}");
    assert!(stderr.ends_with('\n') && stderr.matches('\n').count() == 1, "{reply:?}");
    assert_eq!((reply.code(), reply.stdout_text()), (code, ""), "{reply:?}");
}

fn file(path: &Path, content: &[u8], mode: u32) -> String {
    write_program(path, content);
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// 3.1.1 closed the connection without a word, which clients took for a timeout.
#[test]
fn not_found_is_127() {
    let mut daemon = Daemon::start("");
    for program in ["no-such-program", "/no/such/program", "./no-such-program", ""] {
        assert_not_started(&daemon.run(&[program], b""), program, 127);
    }
    daemon.assert_serves();
}

#[test]
fn not_executable_is_126() {
    let mut daemon = Daemon::start("");
    let directory = daemon.directory().to_owned();
    let data = file(&directory.join("data"), b"just text\n", 0o644);
    assert_not_started(&daemon.run(&[&data], b""), &data, 126);
    let directory = directory.to_str().unwrap();
    assert_not_started(&daemon.run(&[directory], b""), directory, 126);
    daemon.assert_serves();
}

/// execvp(3) passes a file without a magic number to /bin/sh. There is no shell here.
#[test]
fn a_script_without_interpreter_is_126() {
    let daemon = Daemon::start("");
    let script = file(&daemon.directory().join("script"), b"echo a shell ran this\n", 0o755);
    assert_not_started(&daemon.run(&[&script], b""), &script, 126);
    let empty = file(&daemon.directory().join("empty"), b"", 0o755);
    assert_not_started(&daemon.run(&[&empty], b""), &empty, 126);
}

/// execve(2) reports ENOENT for the interpreter, although the file exists.
#[test]
fn a_missing_interpreter_is_126() {
    let daemon = Daemon::start("");
    let script = file(&daemon.directory().join("script"), b"#!/no/such/interpreter\n", 0o755);
    assert_not_started(&daemon.run(&[&script], b""), &script, 126);
}

#[test]
fn a_script_with_its_interpreter_runs() {
    let daemon = Daemon::start("");
    let content = format!("#!{} out\n", fixture());
    let script = file(&daemon.directory().join("script"), content.as_bytes(), 0o755);
    assert_eq!(daemon.run(&[&script], b"").stdout_text(), script);
}

/// The kernel refuses an argument over 128 KiB. 3.1.1 did not answer at all.
#[test]
fn arguments_too_long_for_the_kernel_are_126() {
    let mut daemon = Daemon::start("");
    let reply = daemon.run(&["true", &"x".repeat(200 << 10)], b"");
    assert_not_started(&reply, "true", 126);
    let reply = daemon.run(&vec!["x".repeat(100 << 10); 35], b"");
    assert_eq!(reply.exit.0, "exitcode", "{:?}", reply.exit);
    daemon.assert_serves();
}

/// A message about a long name, or one of odd bytes, is still a line, and the daemon lives.
#[test]
fn impossible_names_are_answered() {
    let mut daemon = Daemon::start("");
    let reply = daemon.run(&["x".repeat(100_000)], b"");
    assert!(matches!(reply.code(), 126 | 127), "{:?}", reply.exit);
    assert!(!reply.stderr.is_empty());
    let reply = daemon.run(&[b"\xff\n\x1b[2J".as_slice()], b"");
    assert_eq!(reply.code(), 127, "{reply:?}");
    let reply = daemon.run(&["/etc/passwd/x"], b"");
    assert!(matches!(reply.code(), 126 | 127), "{reply:?}");
    daemon.assert_serves();
}

/// Stdin for a program that did not start is read and dropped.
#[test]
fn stdin_for_a_program_that_does_not_start_is_dropped() {
    let daemon = Daemon::start("");
    let stdin = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        assert_not_started(&daemon.run(&["no-such-program"], &stdin), "no-such-program", 127);
    }
}

/// PATH works as in execvp(3): in order, and skipping files that may not be executed, which are
/// reported only if nothing better follows. An empty element is the working directory.
#[test]
fn path_is_searched_as_execvp_does() {
    let launch = Launch::default();
    let root = launch.directory().to_owned();
    for name in ["a", "b"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    let script = |text: &str| format!("#!{} out {text} args\n", fixture()).into_bytes();
    // On Linux an interpreter line has only one argument. The text shows which file ran.
    file(&root.join("a/forbidden"), &script("a"), 0o644);
    file(&root.join("a/twice"), format!("#!{}\n", fixture()).as_bytes(), 0o644);
    std::os::unix::fs::symlink(fixture(), root.join("b/twice")).unwrap();
    std::os::unix::fs::symlink(fixture(), root.join("here")).unwrap();
    fs::create_dir(root.join("a/directory")).unwrap();
    let path = format!("/no/such/directory:{0}/a:{0}/b:", root.display());
    let daemon = launch.env("PATH", path).start();
    assert_eq!(daemon.run(&["twice", "out", "found"], b"").stdout_text(), "found");
    assert_eq!(daemon.run(&["here", "out", "found"], b"").stdout_text(), "found");
    assert_not_started(&daemon.run(&["forbidden"], b""), "forbidden", 126);
    assert_not_started(&daemon.run(&["directory"], b""), "directory", 126);
    assert_not_started(&daemon.run(&["nowhere"], b""), "nowhere", 127);
    // With a slash there is no search.
    assert_eq!(daemon.run(&["b/twice", "out", "found"], b"").stdout_text(), "found");
    assert_eq!(daemon.run(&["./here", "out", "found"], b"").stdout_text(), "found");
}

/// PATH names a file, or a directory that may not be searched. The program is not there, and only
/// that matters. execvp(3) reports the place instead (ENOTDIR, EACCES).
#[test]
fn places_that_cannot_be_searched_are_skipped() {
    let launch = Launch::default();
    let file = file(&launch.directory().join("file"), b"", 0o755);
    for path in [format!("{file}:/usr/bin:/bin"), format!("/usr/bin:/bin:{file}")] {
        let daemon = Launch::default().env("PATH", path).start();
        assert_not_started(&daemon.run(&["no-such-program"], b""), "no-such-program", 127);
        assert_eq!(daemon.run(&["true"], b"").code(), 0);
    }

    let closed = launch.directory().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(launch.directory(), fs::Permissions::from_mode(0o777)).unwrap();
    // For root every directory is open.
    let prelude = "[ $(id -u) != 0 ] || ! command -v setpriv || exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" \"$@\"";
    let path = format!("/usr/bin:/bin:{}", closed.display());
    let daemon = launch.prelude(prelude).env("PATH", path).start();
    assert_not_started(&daemon.run(&["no-such-program"], b""), "no-such-program", 127);
    assert_eq!(daemon.run(&["true"], b"").code(), 0);
}

/// Without PATH the system's default directories are searched.
#[test]
fn without_path_the_default_directories_are_searched() {
    let daemon = Launch::default().without_env("PATH").start();
    assert_eq!(daemon.run(&["true"], b"").code(), 0);
}

#[test]
fn the_program_has_its_own_name_and_nothing_more() {
    let daemon = Daemon::start("");
    let reply = daemon.run(&steps("args"), b"");
    assert_eq!(reply.stdout_text(), format!("{}\0args\0", fixture()));
}

/// Some ways to start programs let the child share the daemon's memory. Then the arguments must
/// stay in it until the exec, whatever the daemon does meanwhile.
#[test]
fn many_at_once_each_with_its_own_arguments() {
    let daemon = Daemon::start("-t 0");
    let mut clients = Vec::new();
    for n in 0..60_u8 {
        let mut argv = steps("args");
        argv.extend((0..40).map(|m| char::from(b'a' + (n + m) % 26).to_string().repeat(2500)));
        let mut client = daemon.exec(&argv);
        client.end_stdin();
        clients.push((argv, client));
    }
    for (argv, client) in clients {
        let expected = argv.join("\0") + "\0";
        assert!(client.reply().stdout_text() == expected, "the arguments of another");
    }
}

#[test]
fn environment_directory_and_umask_are_the_daemons() {
    let launch = Launch::default().env("SOCKEXEC_TEST", "a value").without_env("HOME").prelude("umask 051");
    let directory = launch.directory().canonicalize().unwrap();
    let daemon = launch.start();
    let reply = daemon.run(&steps("env SOCKEXEC_TEST env HOME umask cwd"), b"");
    assert_eq!(reply.stdout_text(), format!("a value\n051\n{}\n", directory.display()));
}

/// Its own group lets the daemon end the program with its children, and nobody else.
#[test]
fn a_program_leads_a_group_of_its_own() {
    let daemon = Daemon::start("");
    let reply = daemon.run(&steps("ids"), b"");
    let ids: Vec<&str> = reply.stdout_text().split_whitespace().collect();
    assert_eq!(ids[0], ids[1], "{reply:?}");
    let own = daemon.process().0.as_raw_pid().to_string();
    assert_ne!(ids[1], own, "{reply:?}");
}

fn descriptors(reply: &Reply) -> Vec<String> {
    let mut numbers: Vec<String> =
        reply.stdout_text().lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    numbers.sort();
    numbers
}

/// In 3.1.1 programs inherited the listening socket, other clients' sockets, and the ends of other
/// programs' pipes.
#[test]
fn descriptors_0_1_2_and_nothing_else() {
    raise_own_limit();
    // With many connections a program does not start with a copy of the daemon's descriptors.
    for many in [8, 100] {
        let daemon = Daemon::start("-m 200");
        let mut others: Vec<_> = (0..many).map(|_| daemon.exec(&steps("out ready cat"))).collect();
        for other in &mut others {
            other.wait_for("ready");
        }
        for _ in 0..20 {
            let reply = daemon.run(&steps("fds"), b"");
            assert_eq!(descriptors(&reply), ["0", "1", "2"], "beside {many}: {reply:?}");
        }
        for mut other in others {
            other.end_stdin();
            assert_eq!(other.reply().code(), 0);
        }
    }
}

/// In 3.1.1 an unrelated program held the other end of `cat`'s stdin, so end of file came only when
/// that program exited.
#[test]
fn end_of_file_does_not_wait_for_strangers() {
    let daemon = Daemon::start("");
    let mut client = daemon.exec(&steps("out ready cat"));
    client.wait_for("ready");
    let mut life = daemon.fifo("life");
    let _stranger = daemon.exec(&steps(&format!("hold {} wait", life.path())));
    life.holder();
    client.end_stdin();
    assert_eq!(client.reply().stdout, b"ready");
    assert!(life.is_held(), "the stranger ended first");
}

/// The daemon's inherited descriptors stay in the daemon.
#[test]
fn descriptors_that_the_daemon_inherited_stay_there() {
    let prelude = "exec 3</etc/passwd 4>inherited 5<. 6>&4 7</dev/null 8<&3 9<&3";
    let daemon = Launch::default().prelude(prelude).start();
    for _ in 0..5 {
        let reply = daemon.run(&steps("fds"), b"");
        assert_eq!(descriptors(&reply), ["0", "1", "2"], "{reply:?}");
    }
}

/// If 0, 1 and 2 are free, the first descriptors that a daemon opens get those numbers. Then a
/// socket or a pipe becomes a program's stderr, or a log line ends up in a client's stream.
#[test]
fn standard_descriptors_may_be_closed_at_the_start() {
    for closed in ["exec <&-", "exec >&-", "exec 2>&-", "exec <&- >&-", "exec >&- 2>&-", "exec <&- >&- 2>&-"] {
        // Its stderr may be closed, so there is no log to wait for.
        let daemon = Launch::default().prelude(closed).quiet().start();
        let reply = daemon.run(&steps("out out err err cat"), b" and in");
        assert_eq!((reply.stdout_text(), reply.stderr_text()), ("out and in", "err"), "{closed}");
        let reply = daemon.run(&steps("fds"), b"");
        assert_eq!(descriptors(&reply), ["0", "1", "2"], "{closed}: {reply:?}");
        assert_eq!(daemon.run(&["no-such-program"], b"").code(), 127, "{closed}");
    }
}

/// 32 and 33 belong to the C library, which nobody can change.
const OF_THE_LIBRARY: u64 = 0b11 << 31;

/// The signal masks in `/proc/PID/status`. The program must not be the fixture, whose run-time
/// library changes some.
#[track_caller]
fn signal_masks(status: &str) -> Vec<(&str, u64)> {
    let mask = |line| {
        let (name, mask) = str::split_once(line, ':')?;
        let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
        ["SigBlk", "SigIgn", "SigCgt"].contains(&name).then_some((name, mask))
    };
    let masks: Vec<_> = status.lines().filter_map(mask).collect();
    assert_eq!(masks.len(), 3, "{status}");
    masks
}

#[track_caller]
fn assert_default_signals(daemon: &Daemon) {
    let reply = daemon.run(&["cat", "/proc/self/status"], b"");
    for (name, mask) in signal_masks(reply.stdout_text()) {
        assert_eq!(mask & !OF_THE_LIBRARY, 0, "{name} {mask:#x}");
    }
}

/// The launch of a daemon with these signals ignored, by an option of env(1). A shell's trap does
/// not work: dash keeps CHLD for itself, so the daemon would not inherit it. `None`, with a
/// message, where env(1) has no such option.
pub(crate) fn ignoring(option: &str, expected: u64) -> Option<Launch> {
    let shown = std::process::Command::new("env").args([option, "cat", "/proc/self/status"]).output();
    let shown = shown.expect("env starts");
    if !shown.status.success() {
        eprintln!("SKIPPED: this system's env(1) has no --ignore-signal");
        return None;
    }
    for (name, mask) in signal_masks(str::from_utf8(&shown.stdout).expect("text")) {
        assert!(name != "SigIgn" || mask & expected == expected, "not ignored: {:#x}", expected & !mask);
    }
    Some(Launch::default().prelude(&format!("exec env {option} \"$0\" \"$@\"")))
}

#[test]
fn signals_are_default_and_unblocked() {
    assert_default_signals(&Daemon::start(""));
}

/// nohup, a shell's background job, a supervisor: programs would inherit what they ignore.
#[test]
fn signals_that_the_daemon_ignores_are_default_in_programs() {
    // All but KILL and STOP.
    let all = !(OF_THE_LIBRARY | 1 << 8 | 1 << 18);
    for way in ["fast", "crowd", "portable"] {
        let Some(launch) = ignoring("--ignore-signal", all) else { return };
        let mut daemon = launch.env("SOCKEXEC_SPAWN", way).start();
        assert_default_signals(&daemon);
        // The daemon leaves them as its starter set them, except CHLD, without which it learns no
        // exit status.
        let expected = all & !(1 << 16);
        assert_eq!(daemon.process().ignored_signals() & all, expected);
        daemon.kill();
    }
}

#[test]
fn signals_that_the_starter_blocked_are_unblocked() {
    let works = std::process::Command::new("env").args(["--block-signal=TERM", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this system's env(1) has no --block-signal");
        return;
    }
    let prelude = "exec env --block-signal \"$0\" \"$@\"";
    let mut daemon = Launch::default().prelude(prelude).start();
    assert_default_signals(&daemon);
    assert_eq!(daemon.run(&steps("die 15"), b"").signal(), 15);
    // The daemon itself still handles its signals.
    assert!(daemon.terminate().status.success());
}

/// If CHLD is ignored, the kernel reaps children by itself, and their statuses are lost.
#[test]
fn a_daemon_started_with_chld_ignored_still_knows_statuses() {
    let Some(launch) = ignoring("--ignore-signal=CHLD", 1 << 16) else { return };
    let daemon = launch.start();
    assert_eq!(daemon.run(&steps("exit 42"), b"").code(), 42);
    assert_eq!(daemon.run(&steps("die 9"), b"").signal(), 9);
}

#[test]
fn every_exit_code_arrives() {
    let daemon = Daemon::start("");
    for code in 0..=255 {
        assert_eq!(daemon.run(&steps(&format!("exit {code}")), b"").code(), code);
    }
}

/// In 3.1.1 `termsig` was a name, although its manual said a number and its clients parsed one.
#[test]
fn every_signal_that_ends_a_program_arrives() {
    let daemon = Daemon::start("");
    // Not those that stop a process, or do nothing by default.
    for signal in (1..=31).filter(|signal| ![17, 18, 19, 20, 21, 22, 23, 28].contains(signal)).chain([34, 50, 64]) {
        assert_eq!(daemon.run(&steps(&format!("die {signal}")), b"").signal(), signal);
    }
}

/// The name as 3.1.1 sends it, for clients that rely on it.
#[test]
fn termsig_by_name() {
    let daemon = Daemon::start("--termsig name");
    for (number, name) in [(15, "TERM"), (9, "KILL"), (1, "HUP"), (11, "SEGV"), (10, "USR1"), (13, "PIPE")] {
        let reply = daemon.run(&steps(&format!("die {number}")), b"");
        assert_eq!(reply.exit, ("termsig".to_owned(), name.to_owned()));
    }
    assert_eq!(daemon.run(&steps("exit 3"), b"").code(), 3);
    let daemon = Daemon::start("--termsig number");
    assert_eq!(daemon.run(&steps("die 15"), b"").exit, ("termsig".to_owned(), "15".to_owned()));
}

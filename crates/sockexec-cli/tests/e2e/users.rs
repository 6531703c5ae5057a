//! `--owner` and `--user`: who owns the socket, and which user the daemon becomes. These tests need
//! root.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use rustix::process::{Pid, Signal};

use crate::common::{Client, Daemon, Launch, Process, eventually};

/// A user and a group other than root's, and a supplementary group.
const UID: u32 = 65_533;
const GID: u32 = 65_532;

/// A launch in a directory that others may enter. `None` if this is not root.
fn as_root() -> Option<Launch> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: not root");
        return None;
    }
    let launch = Launch::default();
    fs::set_permissions(launch.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    Some(launch)
}

/// A field of `/proc/PID/status`.
#[track_caller]
fn status_of(process: Process, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", process.0.as_raw_pid())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect(field);
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The pid of the daemon's nth program, once it has begun.
#[track_caller]
fn started(daemon: &Daemon, n: usize, client: &mut Client) -> Pid {
    client.wait_for("ready");
    // The log may come later than the program's output.
    eventually("the start in the log", || daemon.started(0).len() == n);
    *daemon.started(0).last().expect("a program")
}

/// Whether it lives. In a container whose first process takes nobody's status, one that has lost its daemon stays
/// a zombie.
fn is_there(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with('Z'))
}

#[test]
fn the_file_belongs_to_its_owner() {
    for (owner, uid, gid) in [("65533:65532", UID, GID), ("65533", UID, 0), (":65532", 0, GID), ("root:root", 0, 0)] {
        for option in ["", "--replace"] {
            let Some(launch) = as_root() else { return };
            let mut daemon = launch.options(&format!("-M 0640 {option} --owner {owner}")).start();
            let assert_owned = |daemon: &Daemon| {
                let found = fs::symlink_metadata(daemon.socket()).unwrap();
                assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (uid, gid, 0o640), "{owner}");
            };
            assert_owned(&daemon);
            daemon.assert_serves();
            // Made again, it belongs to the same.
            fs::remove_file(daemon.socket()).unwrap();
            daemon.wait_for_log("listening there again");
            assert_owned(&daemon);
            assert_eq!(daemon.terminate().status.code(), Some(0));
        }
    }
}

#[test]
fn unknown_users_are_refused() {
    for (options, words) in [
        ("--owner no-such-user", "--owner: unknown user \"no-such-user\""),
        ("--owner root:no-such-group", "--owner: unknown group \"no-such-group\""),
        ("--owner a:b:c", "--owner: \"a:b:c\" must be USER"),
        ("--user no-such-user", "--user: unknown user \"no-such-user\""),
        ("--user 3999999", "--user: user 3999999 has no name, so its group is not known; write 3999999:GROUP"),
        ("--user :0", "--user: \":0\" must be USER"),
    ] {
        let launch = Launch::default().options(options).quiet();
        let socket = launch.directory().join("sock");
        let stopped = launch.run();
        assert_eq!(stopped.status.code(), Some(111), "{stopped:?}");
        assert!(stopped.stderr.contains(words), "{words:?}: {stopped:?}");
        assert!(!socket.exists());
    }
}

/// No id, group or capability of root's is left. Programs run as the daemon does.
#[test]
fn it_becomes_the_user_for_good() {
    for (user, uid, gid, groups) in
        [("65533:65532", UID, GID, "65532".to_owned()), ("nobody", 65_534, 65_534, "65534".to_owned())]
    {
        let Some(launch) = as_root() else { return };
        let daemon = launch.options(&format!("-t 0 --user {user}")).start();
        let process = daemon.process();
        assert_eq!(status_of(process, "Uid"), [uid.to_string().as_str(); 4].join(" "));
        assert_eq!(status_of(process, "Gid"), [gid.to_string().as_str(); 4].join(" "));
        assert_eq!(status_of(process, "Groups"), groups);
        for rights in ["CapEff", "CapPrm", "CapAmb"] {
            assert_eq!(status_of(process, rights).trim_matches('0'), "", "{rights}");
        }
        let reply = daemon.run(&["sh", "-c", "id -u; id -g; id -G"], b"");
        assert_eq!(reply.stdout_text(), format!("{uid}\n{gid}\n{groups}\n"));
        // At a terminal too, where the program is forked.
        let mut client = daemon.connect();
        client.send(b"10:protocol=2,9:pty=80x24,1:2,2:id,2:-u,");
        client.wait_for_output(&format!("{uid}\r\n"));
    }
}

/// TERM, KILL and the daemon's own death reach programs as before.
#[test]
fn signals_reach_its_programs() {
    let Some(launch) = as_root() else { return };
    let mut daemon = launch.options("-t 0 -k 0.2 --user 65533:65532").start();
    let argv = ["sh", "-c", "echo ready; exec sleep 1000"];
    let mut client = daemon.exec(&argv);
    let pid = started(&daemon, 1, &mut client);
    drop(client);
    eventually("a program that has ended", || !is_there(pid));
    let mut client = daemon.exec(&["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]);
    let pid = started(&daemon, 2, &mut client);
    drop(client);
    eventually("a program that was killed", || !is_there(pid));
    let mut client = daemon.connect();
    client.send(b"10:protocol=2,");
    client.exec(&argv);
    started(&daemon, 3, &mut client);
    client.send(b"6:signal,3:INT,");
    client.wait_for("7:termsig,1:2,");
    let mut client = daemon.exec(&argv);
    let pid = started(&daemon, 4, &mut client);
    daemon.kill();
    eventually("a program that has died with its daemon", || !is_there(pid));
}

/// In root's directory the daemon can neither remove its socket nor make it again, and says so. A
/// successor started as root can do both.
#[test]
fn in_a_directory_of_roots_it_leaves_its_socket() {
    let Some(launch) = as_root() else { return };
    let mut daemon = launch.quiet().options("-t 0 --user 65533:65532").start();
    daemon.wait_for_log("warning: ");
    daemon.wait_for_log("as this user the daemon can neither remove the socket when it ends nor make it again");
    daemon.assert_serves();
    let mut second = Launch::default().options("-t 0 --replace --user 65533:65532").socket(daemon.socket()).start();
    second.assert_serves();
    assert_eq!(daemon.wait().status.code(), Some(0));
    let stopped = second.terminate();
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    assert!(stopped.stderr.contains("cannot remove "), "{stopped:?}");
    // What it has left is stale.
    let mut third = Launch::default().options("-t 0 --user 65533:65532").socket(daemon.socket()).start();
    third.assert_serves();
    let mut running = third.exec(&["sh", "-c", "echo ready; cat"]);
    running.wait_for("ready");
    fs::remove_file(third.socket()).unwrap();
    third.wait_for_log("the socket is gone: ");
    third.wait_for_log("cannot make the socket: Permission denied");
    running.end_stdin();
    assert_eq!(running.reply().code(), 0);
    third.assert_idle("it cannot make its socket again");
}

/// In a directory of its own it can do both.
#[test]
fn in_a_directory_of_its_own_it_removes_its_socket() {
    let Some(launch) = as_root() else { return };
    let directory = launch.directory().join("own");
    fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&directory, Some(UID), Some(GID)).unwrap();
    let socket = directory.join("sock");
    let mut daemon = launch.quiet().socket(&socket).options("--owner 65533:65532 --user 65533:65532").start();
    daemon.assert_serves();
    assert_eq!(fs::symlink_metadata(&socket).unwrap().uid(), UID);
    fs::remove_file(&socket).unwrap();
    daemon.wait_for_log("listening there again");
    daemon.assert_serves();
    let stopped = daemon.terminate();
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    assert!(!socket.exists());
    assert!(!stopped.stderr.contains("neither remove"), "{stopped:?}");
}

/// Only root may give its socket to another user. The daemon is no longer root when the socket
/// vanishes, so the start says so.
#[test]
fn an_owner_that_it_cannot_give_its_socket_to() {
    const AGAIN: &str = "as this user the daemon cannot make the socket again if it vanishes";
    for (owner, is_warned) in
        [("65531", true), (":65531", true), ("0:65532", true), (":65532", false), ("65533", false)]
    {
        let Some(launch) = as_root() else { return };
        let directory = launch.directory().join("own");
        fs::create_dir(&directory).unwrap();
        std::os::unix::fs::chown(&directory, Some(UID), Some(GID)).unwrap();
        let options = format!("-t 0 --user 65533:65532 --owner {owner}");
        let mut daemon = launch.quiet().socket(directory.join("sock")).options(&options).start();
        daemon.assert_serves();
        fs::remove_file(daemon.socket()).unwrap();
        if is_warned {
            daemon.wait_for_log("the socket is gone: ");
            daemon.wait_for_log("cannot give the socket to its owner: ");
        } else {
            daemon.wait_for_log("listening there again");
            daemon.assert_serves();
            let found = fs::symlink_metadata(daemon.socket()).unwrap();
            assert_eq!((found.uid(), found.gid()), (UID, GID), "{owner}");
        }
        let stopped = daemon.terminate();
        assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
        let warnings: Vec<&str> = stopped.stderr.lines().filter(|line| line.contains("as this user")).collect();
        assert_eq!(warnings.len(), usize::from(is_warned), "{owner}: {stopped:?}");
        for words in [AGAIN, "only root may give it to its owner", "--owner"] {
            assert!(warnings.iter().all(|line| line.contains(words)), "{owner}: no {words} in {warnings:?}");
        }
    }
}

/// Everybody may write to the directory, but only a file's owner may remove it there.
#[test]
fn in_a_sticky_directory() {
    for (owner, is_warned) in [("65533:65532", false), ("root", true)] {
        let Some(launch) = as_root() else { return };
        let directory = launch.directory().join("sticky");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o1777)).unwrap();
        let options = format!("-t 0 --user 65533:65532 --owner {owner}");
        let mut daemon = launch.quiet().socket(directory.join("sock")).options(&options).start();
        daemon.assert_serves();
        let stopped = daemon.terminate();
        assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
        assert_eq!(daemon.socket().exists(), is_warned, "{stopped:?}");
        let words = "as this user the daemon can neither remove the socket when it ends nor make it again";
        assert_eq!(stopped.stderr.matches(words).count(), usize::from(is_warned), "{stopped:?}");
    }
}

/// Without the privileges the daemon fails before it makes a socket, and the daemon that listens
/// there goes on.
#[test]
fn without_privileges_it_refuses_to_start() {
    let Some(launch) = as_root() else { return };
    let setpriv = std::process::Command::new("setpriv").arg("--version").output();
    if !setpriv.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no setpriv here");
        return;
    }
    let mut first = launch.start();
    let mut refusals = vec![
        ("setpriv --inh-caps=-setuid,-setgid --bounding-set=-setuid,-setgid", "only root may become another user"),
        // It used to fail after it had taken the place. The first daemon had often noticed that,
        // and ended.
        ("setpriv --securebits=+no_setuid_fixup", "root's capabilities, as its securebits have no_setuid_fixup"),
        // Its securebits were blamed, although they were not the cause.
        (
            "setpriv --reuid 65531 --regid 65531 --clear-groups --inh-caps=+setuid,+setgid --ambient-caps=+setuid,+setgid",
            "this process is not root's, so the kernel would leave it its capabilities",
        ),
        (
            "setpriv --reuid 65531 --regid 65531 --clear-groups --inh-caps=+setuid --ambient-caps=+setuid",
            "only root may become another user (CAP_SETUID and CAP_SETGID)",
        ),
    ];
    let unshare = std::process::Command::new("unshare").args(["--map-root-user", "true"]).output();
    if unshare.is_ok_and(|output| output.status.success()) {
        // The process has one user, and may not change its groups.
        refusals.push(("unshare --map-root-user", "cannot become user 65533:65532: "));
    }
    for (way, words) in refusals {
        let next = Launch::default().options("--replace --user 65533:65532").socket(first.socket()).quiet();
        let before = fs::symlink_metadata(first.socket()).unwrap().ino();
        fs::set_permissions(next.directory(), fs::Permissions::from_mode(0o755)).unwrap();
        // A copy, where another user finds it as well.
        let stopped = next.prelude(&format!("cp \"$0\" daemon; exec {way} ./daemon \"$@\"")).run();
        assert_eq!(stopped.status.code(), Some(111), "{stopped:?}");
        assert!(stopped.stderr.contains(words), "{stopped:?}");
        first.assert_serves();
        assert_eq!(first.connect().peer(), first.process().0);
        assert_eq!(fs::symlink_metadata(first.socket()).unwrap().ino(), before, "it had to make its socket again");
    }
    first.signal(Signal::TERM);
    assert_eq!(first.wait().status.code(), Some(0));
}

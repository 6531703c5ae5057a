//! A killed daemon: what happens to its programs, and to the next daemon.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::common::{Daemon, Launch, Process, SetOnDrop, eventually, request, steps};

/// The ways to start a program. All must behave the same.
const WAYS: [&str; 4] = ["clone3", "crowd", "clone", "fork"];

/// With 3.1.1 programs outlived a killed daemon, and even its TERM. A killed daemon cannot send
/// TERM and later KILL. So the kernel kills each program, whatever it ignores.
#[test]
fn programs_die_with_a_daemon_that_is_killed() {
    for way in WAYS {
        let mut daemon = Launch::default().options("-t 0").env("SOCKEXEC_SPAWN", way).start();
        let mut lives = Vec::new();
        let mut clients = Vec::new();
        for (name, first) in [("plain", ""), ("deaf", "ignore TERM HUP INT ;"), ("stopped", "")] {
            let mut life = daemon.fifo(name);
            let last = if name == "stopped" { "stop" } else { "wait" };
            clients.push(daemon.exec(&steps(&format!("{first} hold {} {last} wait", life.path()))));
            let holder = life.holder();
            if name == "stopped" {
                let process = Process(holder.pid);
                eventually("a stopped program", || process.is_stopped());
            }
            lives.push(life);
        }
        daemon.kill();
        for life in &mut lives {
            life.wait_for_death();
        }
        // No exit pair: nobody knew how they ended.
        for client in clients {
            client.until_gone();
        }
    }
}

/// Descendants are not the daemon's children, and no signal reaches them. Their input ends, and
/// their next output fails with PIPE.
#[test]
fn descendants_of_a_daemon_that_is_killed_lose_their_streams() {
    for way in WAYS {
        let mut daemon = Launch::default().options("-t 0 --spool 0").env("SOCKEXEC_SPAWN", way).start();
        let (mut reader, mut writer) = (daemon.fifo("reader"), daemon.fifo("writer"));
        let input = daemon.exec(&steps(&format!("spawn [ hold {} cat ] wait", reader.path())));
        let output = daemon.exec(&steps(&format!("spawn [ hold {} flood ] wait", writer.path())));
        reader.holder();
        writer.holder();
        daemon.kill();
        reader.wait_for_death();
        writer.wait_for_death();
        drop((input, output));
    }
}

/// A background job is no child of the daemon. What a program leaves behind on purpose stays.
#[test]
fn background_jobs_outlive_a_daemon_that_is_killed() {
    let mut daemon = Daemon::start("-t 0");
    let mut life = daemon.fifo("life");
    let job = format!("spawn [ close 0 close 1 close 2 setsid hold {} wait ] exit 3", life.path());
    assert_eq!(daemon.exec(&steps(&job)).reply().code(), 3);
    let job = life.holder();
    daemon.kill();
    assert!(life.is_held());
    job.kill();
}

/// Under load each client gets a correct and whole answer or none. No program is left, and the next
/// daemon takes the place at once.
#[test]
fn killed_under_load_and_started_again() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("sock");
    for round in 0..5 {
        let mut daemon = Launch::default().options("-t 0").socket(&socket).start();
        let (served, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let mut life = daemon.fifo("life");
        let _holder = daemon.exec(&steps(&format!("hold {} wait", life.path())));
        life.holder();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        if ask(&socket) {
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            let _end = SetOnDrop(&over);
            eventually("a few answers", || served.load(Ordering::Relaxed) > 10 * round);
            daemon.kill();
        });
        life.wait_for_death();
        assert!(socket.exists(), "a daemon that is killed cannot tidy up");
    }
    Launch::default().socket(&socket).start().assert_serves();
}

/// Whether an answer came. If so, it must be correct.
fn ask(socket: &Path) -> bool {
    let Ok(mut socket) = UnixStream::connect(socket) else { return false };
    let mut answer = Vec::new();
    let _ = socket.write_all(&request(&["printf", "%s", "right"]));
    let _ = socket.read_to_end(&mut answer);
    let whole = b"6:stdout,5:right,8:exitcode,1:0,";
    assert!(whole.starts_with(&answer), "{}", answer.escape_ascii());
    answer == whole
}

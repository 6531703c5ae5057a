//! The files of `packaging/` under the supervisors that they are for: s6, runit and supervisor.
//! systemd's own tools check its units.
//!
//! The shipped files are used as they are, except for paths, the user and, where a test says so,
//! times. As root the daemon becomes another user, as in production.

mod runit;
mod s6;
mod supervisor;
mod systemd;
mod times;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::common::{Client, Fifo, Gate, PATIENCE, Process, binary, eventually, steps, wait_for_exit, write_program};

/// The user that the daemon becomes, in place of `sockexec`.
const UID: u32 = 65_533;
const GID: u32 = 65_532;

/// A program that runs until it is told to end. TERM is enough.
const RUNS: &str = "out ready cat";

/// Whether a tool works here. Tests that need it are skipped if not. Without an argument the tools end with an
/// error. With one they succeed, unless what they are written in or their modules are missing.
fn has(tool: &str, argument: &str) -> bool {
    let mut probe = Command::new(tool);
    let status = probe.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let has = status.is_ok_and(|status| argument.is_empty() || status.success());
    if !has {
        eprintln!("SKIPPED: {tool} {argument} does not work here");
    }
    has
}

/// A directory in place of a machine's root, with the directory of the socket and one of the
/// programs.
struct Place {
    directory: TempDir,
    gate: Gate,
    drain: &'static str,
}

impl Place {
    /// A place whose daemons have these options in place of `--drain 20`. The first daemon waits at
    /// a gate.
    fn new(drain: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The user that the daemon becomes must be able to enter it.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let gate = Gate::new(directory.path(), "gate");
        let place = Self { directory, gate, drain };
        let once = format!("if [ -p {0} ]; then : <{0}; rm {0}; fi", place.gate.path());
        let client = Path::new(env!("CARGO_BIN_EXE_sockexec-client"));
        place.program("bin/sockexec", &format!("{once}\nexec '{}' \"$@\"", binary().display()));
        place.program("bin/sockexec-client", &format!("exec '{}' \"$@\"", client.display()));
        place
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn socket(&self) -> PathBuf {
        self.path().join("run/exec.sock")
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.file(name, "");
        write_program(&path, format!("#!/bin/sh\n{script}\n").as_bytes());
        path
    }

    /// A shipped file with this place's paths, user and times.
    #[track_caller]
    fn adapted(&self, shipped: &str) -> String {
        let root = rustix::process::geteuid().is_root();
        let ids = format!("{UID}:{GID}");
        let own = format!("-o {} -g {}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let other = format!("-o {UID} -g {GID}");
        let became = format!("--user {ids} --owner {ids}");
        let mut text = shipped.to_owned();
        for (from, to) in [
            ("--user sockexec --owner sockexec:sockexec", if root { &*became } else { "" }),
            ("-o sockexec -g sockexec", if root { &*other } else { &*own }),
            ("--drain 20 ", self.drain),
            ("/run/sockexec", self.path().join("run").to_str().expect("UTF-8")),
        ] {
            // `check` has only the path.
            assert!(text.contains(from) || !text.contains("--drain"), "no {from:?} in {shipped}");
            text = text.replace(from, to);
        }
        text
    }

    /// A program of the supervisor, or our client, with pipes for both outputs.
    fn command(&self, words: &[&str]) -> Command {
        let mut path = self.path().join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("PATH", path).current_dir(self.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end. What it prints must fit into a pipe.
    #[track_caller]
    fn ask(&self, words: &[&str]) -> Output {
        let mut child = self.command(words).spawn().expect("it starts");
        if wait_for_exit(&mut child, PATIENCE).is_none() {
            let _ = child.kill();
            panic!("{words:?} does not end: {:?}\n{}", child.wait_with_output(), self.log());
        }
        child.wait_with_output().expect("its output")
    }

    /// Runs a command, which must succeed. Returns its output.
    #[track_caller]
    fn tell(&self, words: &[&str]) -> String {
        let output = self.ask(words);
        assert!(output.status.success(), "{words:?}: {output:?}\n{}", self.log());
        String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
    }

    /// What the supervisor and its daemons have printed.
    fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// Starts a supervisor. Its output, and that of all that it starts, goes to the log.
    fn supervisor(&self, words: &[&str]) -> Supervisor {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path().join("log")).unwrap();
        let mut command = self.command(words);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Supervisor { child: command.spawn().expect("a supervisor"), place: self.path().to_owned() }
    }

    #[track_caller]
    fn connect(&self) -> Client {
        Client::connect(&self.socket())
    }

    /// A program that has begun.
    #[track_caller]
    fn begin(&self, words: &str) -> Client {
        let mut client = self.connect();
        client.exec(&steps(words));
        client.wait_for("ready");
        client
    }

    /// Asserts that the shipped client runs a program at the first try, as the daemon's user.
    #[track_caller]
    fn assert_serves(&self) {
        let socket = self.socket();
        let said = self.tell(&["sockexec-client", socket.to_str().expect("UTF-8"), "id", "-u"]);
        let root = rustix::process::geteuid().is_root();
        assert_eq!(said, if root { UID } else { rustix::process::geteuid().as_raw() }.to_string());
    }

    #[track_caller]
    fn daemon(&self) -> Pid {
        self.connect().peer()
    }

    /// Waits until TERM has reached the daemon, which removes the socket.
    #[track_caller]
    fn wait_until_it_drains(&self) {
        eventually("a daemon that drains", || !self.socket().exists());
    }

    /// A FIFO that programs of the daemon's user may open.
    fn fifo(&self, name: &str) -> Fifo {
        let fifo = Fifo::new(self.path(), name);
        fs::set_permissions(fifo.path(), fs::Permissions::from_mode(0o666)).unwrap();
        fifo
    }

    /// Kills the daemon, which leaves a stale socket. The supervisor starts another daemon, which
    /// takes it.
    #[track_caller]
    fn kill_the_daemon(&self) {
        let killed = self.daemon();
        rustix::process::kill_process(killed, Signal::KILL).unwrap();
        eventually("a daemon in its place", || {
            let Ok(socket) = UnixStream::connect(self.socket()) else { return false };
            rustix::net::sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.pid != killed)
        });
        self.assert_serves();
    }

    /// Restarts the service. A program that runs meanwhile runs to its end, and nobody kills it.
    /// The command `restart` may wait.
    #[track_caller]
    fn restart(&self, restart: &[&str]) {
        let old = self.daemon();
        let mut running = self.begin(RUNS);
        let mut restart = self.command(restart).spawn().unwrap();
        self.wait_until_it_drains();
        running.stdin(b" and done");
        running.end_stdin();
        let reply = running.reply();
        assert_eq!((reply.stdout_text(), reply.code()), ("ready and done", 0), "{reply:?}");
        let status = wait_for_exit(&mut restart, PATIENCE).expect("the restart ends");
        assert!(status.success(), "{status}: {}", self.log());
        eventually("a new daemon", || UnixStream::connect(self.socket()).is_ok());
        assert_ne!(self.daemon(), old);
        self.assert_serves();
    }

    /// Stops the service. A program and its child that ignore TERM get all the time that the daemon
    /// gives them. When `stop` has ended, both are gone.
    #[track_caller]
    fn stop(&self, stop: &[&str]) {
        let daemon = Process(self.daemon());
        let (mut life, mut child) = (self.fifo("life"), self.fifo("child"));
        let steps = format!(
            "spawn [ ignore TERM ; hold {} wait ] ignore TERM ; hold {} out ready wait",
            child.path(),
            life.path()
        );
        let client = self.begin(&steps);
        life.holder();
        child.holder();
        self.tell(stop);
        // The daemon sent KILL. The supervisor's KILL would have cut the reply.
        let reply = client.reply();
        assert_eq!(reply.signal(), Signal::KILL.as_raw(), "{reply:?}");
        life.wait_for_death();
        child.wait_for_death();
        eventually("the daemon's end", || rustix::process::test_kill_process(daemon.0).is_err());
        assert!(!self.socket().exists());
        assert!(self.log().contains("stopped"), "{}", self.log());
    }

    /// Clients send requests all the time while `restart` is called several times. Each of them is
    /// served.
    fn restart_under_load(&self, mut restart: impl FnMut()) {
        const THREADS: usize = 2;
        let over = AtomicBool::new(false);
        let socket = self.socket();
        let ask = || {
            let mut served = 0;
            while !over.load(Ordering::Relaxed) {
                let mut client = Client::connect(&socket);
                client.exec(&["printf", "%s", &served.to_string()]);
                client.end_stdin();
                let reply = client.reply();
                assert_eq!((reply.stdout_text(), reply.code()), (served.to_string().as_str(), 0), "{reply:?}");
                served += 1;
            }
            served
        };
        thread::scope(|scope| {
            /// The clients end even if the test fails.
            struct Over<'a>(&'a AtomicBool);
            impl Drop for Over<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
            let clients: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
            let end = Over(&over);
            let mut daemon = self.daemon();
            for _ in 0..2 {
                restart();
                let next = self.daemon();
                assert_ne!(next, daemon);
                daemon = next;
            }
            drop(end);
            for client in clients {
                assert!(client.join().expect("all are served") > 0);
            }
        });
    }
}

/// A supervisor's process. When it is dropped, it ends with its daemon.
struct Supervisor {
    child: Child,
    place: PathBuf,
}

impl Supervisor {
    /// Sends TERM. The supervisor stops the service and ends.
    #[track_caller]
    fn terminate(&mut self) -> ExitStatus {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        wait_for_exit(&mut self.child, PATIENCE).expect("its end")
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("log:\n{}", fs::read_to_string(self.place.join("log")).unwrap_or_default());
        }
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
            if wait_for_exit(&mut self.child, PATIENCE).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

//! What the tests share: a daemon, and ways to wait.
#![allow(dead_code, reason = "each test crate uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, fs, io};

use sockexec::Daemon;
use sockexec::daemon::Handle;
use tempfile::TempDir;

/// How long a test waits for an event. Only a fault takes that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon within this process. It can end and begin again.
pub(crate) struct Running {
    directory: TempDir,
    daemon: Option<(Handle, JoinHandle<io::Result<()>>)>,
}

impl Running {
    pub(crate) fn start() -> Self {
        let mut running = Self { directory: tempfile::tempdir().expect("a directory"), daemon: None };
        running.begin();
        running
    }

    pub(crate) fn begin(&mut self) {
        let daemon = Daemon::builder().timeout(None).bind(self.socket()).expect("a daemon");
        let handle = daemon.handle();
        self.daemon = Some((handle, thread::spawn(move || daemon.run())));
    }

    pub(crate) fn end(&mut self) {
        if let Some((handle, thread)) = self.daemon.take() {
            // The second call sends KILL to programs that still run.
            handle.shut_down();
            handle.shut_down();
            thread.join().expect("no panic").expect("a daemon that ends well");
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("sock")
    }

    pub(crate) fn command(&self, program: &str) -> sockexec::Command {
        sockexec::Command::new(self.socket(), program)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until `condition` holds, if there is no event to wait for.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A program of this crate, without the variables that it reads.
pub(crate) fn bare(program: &str) -> Command {
    let mut command = Command::new(program);
    for name in ["SOCKEXEC_SOCKET", "NO_COLOR", "COLUMNS"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).env("TERM", "xterm");
    command
}

#[track_caller]
pub(crate) fn run(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit code"), text(stdout), text(stderr))
}

/// Checks the exit code and a word of the message after wrong arguments.
#[track_caller]
pub(crate) fn complains(program: &str, arguments: &[&str], code: i32, word: &str) {
    let mut command = bare(program);
    command.args(arguments);
    let (exit, stdout, stderr) = run(command);
    assert_eq!((exit, stdout.as_str()), (code, ""), "{arguments:?}: {stderr}");
    assert!(stderr.contains(word), "{arguments:?}: {stderr}");
}

/// `sockexec-client` of another package: cargo builds it only for that package's own tests.
pub(crate) fn client() -> PathBuf {
    let own = env::current_exe().expect("own path");
    let profile = own.parent().and_then(Path::parent).expect("the directory of the profile");
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("sockexec-cli");
    let client = profile.join("sockexec-client");
    if is_old(&client, &package.join("src")) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--bin", "sockexec-client", "--manifest-path"]).arg(package.join("Cargo.toml"));
        cargo.arg("--target-dir").arg(profile.parent().expect("the target directory"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success(), "the client does not build");
    }
    client
}

#[expect(clippy::disallowed_types, reason = "times of files")]
fn is_old(binary: &Path, sources: &Path) -> bool {
    fn newest(path: &Path) -> Option<std::time::SystemTime> {
        let own = fs::metadata(path).and_then(|it| it.modified()).ok();
        let inner = fs::read_dir(path).into_iter().flatten().flatten().filter_map(|entry| newest(&entry.path())).max();
        own.max(inner)
    }
    newest(binary) < newest(sources)
}

//! strace(1) on a running daemon: counts its calls, and makes some fail.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal};

use crate::common::{Process, eventually};

/// Whether strace exists and may trace a process. If not, the reason is printed once, and the tests
/// that need it are skipped.
pub(crate) fn is_usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| {
        let probe = Command::new("strace").args(["-e", "inject=getppid:error=EPERM", "true"]).output();
        let fault = match probe {
            Ok(output) if output.status.success() => return true,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        eprintln!("SKIPPED: no call can be made to fail, as strace cannot be used here: {fault}");
        false
    })
}

/// Which processes to trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The daemon's only thread.
    Daemon,
    /// Also its children, from their first instruction.
    Children,
}

/// A failure: `call` fails with `error` at its `when`th call (`3`), or at several (`1..5`). `error`
/// may also be `retval=VALUE`, a value to return, or `signal=SIGNAL`, a signal to get.
#[derive(Debug, Clone)]
pub(crate) struct Fault<'a> {
    pub(crate) call: &'a str,
    pub(crate) error: &'a str,
    pub(crate) when: String,
}

impl Fault<'_> {
    pub(crate) fn arguments(&self) -> [String; 2] {
        let Self { call, error, when } = self;
        let error = if error.contains('=') { (*error).to_owned() } else { format!("error={error}") };
        ["-e".into(), format!("inject={call}:{error}:when={when}")]
    }
}

/// An strace that traces a process.
pub(crate) struct Strace {
    child: Child,
    injected: Arc<AtomicUsize>,
    seen: Arc<AtomicUsize>,
    stopped: Arc<AtomicUsize>,
    reader: Option<JoinHandle<BTreeMap<String, usize>>>,
}

impl Strace {
    /// Counts every call.
    pub(crate) fn count(process: Process, whom: Whom) -> Self {
        Self::attach(process, whom, &[])
    }

    /// Makes one call fail.
    pub(crate) fn inject(process: Process, whom: Whom, fault: &Fault<'_>) -> Self {
        Self::inject_all(process, whom, std::slice::from_ref(fault))
    }

    /// Makes several calls fail.
    pub(crate) fn inject_all(process: Process, whom: Whom, faults: &[Fault<'_>]) -> Self {
        let calls: Vec<_> = faults.iter().map(|fault| fault.call).collect();
        let mut arguments = vec!["-e".to_owned(), format!("trace={}", calls.join(","))];
        arguments.extend(faults.iter().flat_map(Fault::arguments));
        Self::attach(process, whom, &arguments)
    }

    fn attach(process: Process, whom: Whom, arguments: &[String]) -> Self {
        let mut command = Command::new("strace");
        if whom == Whom::Children {
            command.arg("-f");
        }
        command.args(["-e", "signal=STOP", "-s", "0"]).args(arguments);
        command.args(["-p", &process.0.as_raw_pid().to_string()]);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("strace");
        let [injected, seen, stopped] = [const { AtomicUsize::new(0) }; 3].map(Arc::new);
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut first = String::new();
        stderr.read_line(&mut first).expect("a line of strace");
        assert!(first.contains("attached"), "strace: {first}");
        let reader = thread::spawn({
            let (injected, seen, stopped) = (Arc::clone(&injected), Arc::clone(&seen), Arc::clone(&stopped));
            move || read(stderr, &injected, &seen, &stopped)
        });
        // strace prints that before it is true, so ask the kernel.
        eventually("a process that is traced", || process.is_traced());
        Self { child, injected, seen, stopped, reader: Some(reader) }
    }

    /// Waits until `count` of the traced calls were made.
    #[track_caller]
    pub(crate) fn wait_for_calls(&self, count: usize) {
        eventually("calls that are traced", || self.seen.load(Ordering::Acquire) >= count);
    }

    /// Waits until `count` processes have stopped for an injected STOP. If strace detaches between
    /// the signal and the stop, the process may run on.
    #[track_caller]
    pub(crate) fn wait_for_stops(&self, count: usize) {
        eventually("processes that stop", || self.stops() >= count);
    }

    /// How many processes have stopped for an injected STOP.
    pub(crate) fn stops(&self) -> usize {
        self.stopped.load(Ordering::Acquire)
    }

    /// Detaches. Returns how often each call was made, and how many failed.
    pub(crate) fn detach(mut self) -> (BTreeMap<String, usize>, usize) {
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::INT);
        let calls = self.reader.take().expect("not yet joined").join().expect("no panic");
        self.child.wait().expect("wait");
        (calls, self.injected.load(Ordering::Acquire))
    }
}

impl Drop for Strace {
    /// A test that fails must leave no strace behind. Without its tracer the daemon goes on.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(
    stderr: BufReader<ChildStderr>,
    injected: &AtomicUsize,
    seen: &AtomicUsize,
    stopped: &AtomicUsize,
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in stderr.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        if line.contains("(INJECTED)") {
            injected.fetch_add(1, Ordering::AcqRel);
        }
        if line.ends_with("--- stopped by SIGSTOP ---") {
            stopped.fetch_add(1, Ordering::AcqRel);
        }
        if let Some(call) = call(&line) {
            *counts.entry(call.to_owned()).or_insert(0) += 1;
            seen.fetch_add(1, Ordering::AcqRel);
        }
    }
    counts
}

/// `close(3) = 0` and `[pid 12] close(3) = 0` are `close`.
pub(crate) fn call(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("[pid ") {
        Some(rest) => rest.split_once("] ")?.1,
        None => line,
    };
    let (name, _) = line.split_once('(')?;
    let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    (is_name && !name.is_empty()).then_some(name)
}

#[test]
fn calls_are_told_from_other_lines() {
    assert_eq!(call("close(3) = 0"), Some("close"));
    assert_eq!(call("[pid    12] clone3({flags=CLONE_VM}, 64) = 7"), Some("clone3"));
    assert_eq!(call("strace: Process 12 attached"), None);
    assert_eq!(call("--- SIGCHLD {si_signo=SIGCHLD} ---"), None);
    assert_eq!(call("[pid 12] --- stopped by SIGSTOP ---"), None);
    assert_eq!(call("<... read resumed>\"\", 0) = 0"), None);
}

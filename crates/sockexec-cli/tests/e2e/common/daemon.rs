//! The daemon under test.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::{
    Client, Fifo, Gate, PATIENCE, Process, Reply, empty_groups_are_noticed, eventually, fixture, wait_for_exit,
};

pub(crate) fn binary() -> OsString {
    env::var_os("SOCKEXEC_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_sockexec").into())
}

/// A daemon goes on ignoring what the tests were started to ignore, as in a shell's background job.
/// So this process gets a handler that does nothing: the processes that it starts have the default.
fn undo_ignoring() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        let ignored = Process(rustix::process::getpid()).ignored_signals();
        for signal in (1..=31).filter(|&signal| ignored & 1 << (signal - 1) != 0) {
            // The call fails for the signals that no program may catch.
            if ![Signal::PIPE, Signal::CHILD].map(Signal::as_raw).contains(&signal) {
                let _ = signal_hook::flag::register(signal, Arc::default());
            }
        }
    });
}

/// How to start a daemon.
pub(crate) struct Launch {
    options: Vec<String>,
    prelude: Option<String>,
    filter: Option<String>,
    environment: Vec<(OsString, Option<OsString>)>,
    directory: Arc<TempDir>,
    socket: PathBuf,
    debug: bool,
    bare: bool,
    streams: Vec<Arc<OwnedFd>>,
}

impl Default for Launch {
    fn default() -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let socket = directory.path().join("sock");
        Self {
            options: Vec::new(),
            prelude: None,
            filter: env::var("SOCKEXEC_FILTER").ok().map(|name| crate::filters::rules(&name).to_owned()),
            environment: Vec::new(),
            directory,
            socket,
            debug: true,
            bare: false,
            streams: Vec::new(),
        }
    }
}

impl Launch {
    /// Options separated by blanks, as in a shell.
    pub(crate) fn options(mut self, options: &str) -> Self {
        self.options.extend(options.split_whitespace().map(str::to_owned));
        self
    }

    /// These arguments and no others, not even a socket.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.options.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self.bare = true;
        self.quiet()
    }

    /// What a shell does before it becomes the daemon: `ulimit`, `umask`, `trap`, descriptors.
    pub(crate) fn prelude(mut self, prelude: &str) -> Self {
        self.prelude = Some(prelude.to_owned());
        self
    }

    /// System calls that the daemon and its programs are refused, written as for the fixture's step
    /// `filter`.
    pub(crate) fn filter(mut self, rules: &str) -> Self {
        self.filter = Some(rules.to_owned());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), Some(value.into())));
        self
    }

    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.environment.push((name.into(), None));
        self
    }

    /// Without `-d`, so that it logs only warnings and errors.
    pub(crate) const fn quiet(mut self) -> Self {
        self.debug = false;
        self
    }

    /// With no socket of its own. Tests connect to the one that [`Launch::socket`] names.
    pub(crate) const fn without_socket(mut self) -> Self {
        self.bare = true;
        self
    }

    /// The daemon's standard input; the second time, its standard output.
    pub(crate) fn stream(mut self, stream: impl Into<OwnedFd>) -> Self {
        self.streams.push(Arc::new(stream.into()));
        self
    }

    pub(crate) fn socket(mut self, socket: impl Into<PathBuf>) -> Self {
        self.socket = socket.into();
        self
    }

    /// The test's directory, which is also the daemon's working directory. It goes with the daemon.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self) -> Command {
        undo_ignoring();
        let mut words = Vec::new();
        if let Some(prelude) = &self.prelude {
            words.extend(["/bin/sh", "-c", &format!("{prelude}\nexec \"$0\" \"$@\"")].map(OsString::from));
        }
        if let Some(rules) = &self.filter {
            words.extend([fixture(), "filter", rules, "become"].map(OsString::from));
        }
        words.push(binary());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.current_dir(self.directory.path());
        // Before the others, so that the last of them may be `--`.
        if self.debug {
            command.arg("-d");
        }
        command.args(&self.options);
        if !self.bare {
            command.arg(&self.socket);
        }
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut streams = self.streams.iter().map(|stream| stream.try_clone().expect("a descriptor"));
        if let Some(stdin) = streams.next() {
            command.stdin(stdin);
        }
        if let Some(stdout) = streams.next() {
            command.stdout(stdout);
        }
        command
    }

    /// Starts it and waits until it serves.
    #[track_caller]
    pub(crate) fn start(self) -> Daemon {
        let debug = self.debug && env::var_os("SOCKEXEC_BINARY").is_none();
        let mut daemon = self.spawn();
        if debug {
            daemon.wait_for_log("listening");
        } else {
            // It logs nothing, so the socket shows when it serves. A stale one refuses.
            daemon.wait_for_socket();
        }
        daemon
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn(self) -> Daemon {
        let mut child = self.command().spawn().expect("the daemon starts");
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("a pipe");
        let reader = thread::spawn({
            let log = Arc::clone(&log);
            move || log.fill(stderr)
        });
        let socket = self.directory.path().join(&self.socket);
        Daemon { child, log, reader: Some(reader), socket, directory: self.directory }
    }

    /// Starts a daemon that must end by itself, and waits for that.
    #[track_caller]
    pub(crate) fn run(self) -> Stopped {
        self.spawn().wait()
    }
}

/// A daemon that has ended.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Kept so that the test can look at what the daemon has left.
    _directory: Arc<TempDir>,
}

impl Stopped {
    /// Standard error without the usual lines and those about the kernel, which differ between
    /// machines.
    pub(crate) fn complaints(&self) -> String {
        let usual = [
            "sockexec: listening on ",
            "sockexec: shutting down",
            "sockexec: stopped",
            "the kernel lacks",
            "started by fork",
        ];
        let is_usual = |line: &&str| usual.iter().any(|words| line.contains(words));
        self.stderr.split_inclusive('\n').filter(|line| !is_usual(line)).collect()
    }
}

/// The lines that the daemon has logged.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    news: Condvar,
}

#[derive(Default)]
struct LogState {
    text: String,
    ended: bool,
}

impl Log {
    /// A test that panics while it holds the lock leaves the log intact.
    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, stderr: ChildStderr) {
        let mut stderr = BufReader::new(stderr);
        loop {
            let mut line = Vec::new();
            let n = stderr.read_until(b'\n', &mut line).unwrap_or(0);
            let mut state = self.lock();
            state.text.push_str(&String::from_utf8_lossy(&line));
            state.ended = n == 0;
            self.news.notify_all();
            if state.ended {
                return;
            }
        }
    }
}

/// A daemon and its directory. When it is dropped, the daemon and its programs are killed.
pub(crate) struct Daemon {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    socket: PathBuf,
    directory: Arc<TempDir>,
}

impl Daemon {
    /// Starts a daemon with these options.
    #[track_caller]
    pub(crate) fn start(options: &str) -> Self {
        Launch::default().options(options).start()
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_some()
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn fifo(&self, name: &str) -> Fifo {
        Fifo::new(self.directory(), name)
    }

    pub(crate) fn gate(&self, name: &str) -> Gate {
        Gate::new(self.directory(), name)
    }

    pub(crate) fn process(&self) -> Process {
        Process::of(&self.child)
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.socket)
    }

    /// A connection that has sent a request up to its last argument.
    #[track_caller]
    pub(crate) fn exec<A: AsRef<[u8]>>(&self, argv: &[A]) -> Client {
        let mut client = self.connect();
        client.exec(argv);
        client
    }

    /// Runs a program to its end. It sends all of `stdin` before it reads a byte.
    #[track_caller]
    pub(crate) fn run<A: AsRef<[u8]>>(&self, argv: &[A], stdin: &[u8]) -> Reply {
        let mut client = self.exec(argv);
        client.stdin(stdin);
        client.end_stdin();
        client.reply()
    }

    /// Asserts that the daemon lives and serves another client.
    #[track_caller]
    pub(crate) fn assert_serves(&mut self) {
        let reply = self.run(&super::steps("out honest cat"), b" client");
        assert_eq!((reply.stdout_text(), reply.code()), ("honest client", 0), "{reply:?}");
        assert!(self.child.try_wait().expect("wait").is_none(), "the daemon ended");
    }

    fn wait_for_socket(&mut self) {
        eventually("a socket that can be connected to", || {
            if let Some(status) = self.child.try_wait().expect("wait") {
                panic!("the daemon ended: {status}; {}", self.log_text());
            }
            UnixStream::connect(&self.socket).is_ok()
        });
    }

    pub(crate) fn log_text(&self) -> String {
        self.log.lock().text.clone()
    }

    /// The length of the log now, for [`Daemon::wait_for_log_after`].
    pub(crate) fn log_position(&self) -> usize {
        self.log.lock().text.len()
    }

    #[track_caller]
    pub(crate) fn wait_for_log(&self, words: &str) {
        self.wait_for_log_after(0, words);
    }

    /// Waits until the log contains the words after `position`.
    #[track_caller]
    pub(crate) fn wait_for_log_after(&self, position: usize, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.log.lock();
        while !state.text.get(position..).unwrap_or_default().contains(words) {
            assert!(!state.ended, "the log ended without {words:?}:\n{}", state.text);
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{words:?} was never logged:\n{}", state.text);
            state = self.log.news.wait_timeout(state, left).expect("no panic").0;
        }
    }

    /// The log with every line about what the daemon has done so far. A thread writes the log, so
    /// [`Daemon::log_text`] may lack the last lines, and a line missing there may still come. The
    /// answer to USR1 is queued behind all of them.
    #[track_caller]
    pub(crate) fn whole_log(&self) -> String {
        let position = self.log_position();
        self.signal(Signal::USR1);
        self.wait_for_log_after(position, " times\n");
        self.log_text()
    }

    /// The programs that the log after `position` names as started, in that order.
    pub(crate) fn started(&self, position: usize) -> Vec<Pid> {
        let log = self.log_text().split_off(position);
        let number = |rest: &str| Pid::from_raw(rest.split(':').next()?.parse().ok()?);
        log.split("started pid ").skip(1).filter_map(number).collect()
    }

    /// How often the loop has turned, and how often output was gathered, from the answer to USR1.
    #[track_caller]
    pub(crate) fn turns(&self) -> (u64, u64) {
        let position = self.log_position();
        let log = self.whole_log();
        let line = log[position..].lines().find(|line| line.ends_with(" times")).expect("a line").to_owned();
        let number = |before: &str, after: &str| {
            let rest = &line[line.find(before).expect(before) + before.len()..];
            rest[..rest.find(after).expect(after)].parse().expect("a number")
        };
        (number("accepted, ", " turns"), number("gathered ", " times"))
    }

    /// Asserts that the daemon does next to nothing for a while. On a busy machine a loop that
    /// spins gets little processor time, but its turns show. On a slow machine the daemon may still
    /// be busy with what came before, so it gets more than one chance. A loop that spins fails all
    /// of them.
    #[track_caller]
    pub(crate) fn assert_idle(&self, state: &str) {
        const CHANCES: usize = 5;
        let found: Vec<String> = (0..CHANCES).map_while(|_| self.look_idle().err()).collect();
        assert!(found.len() < CHANCES, "{found:?}, doing nothing: {state}");
    }

    #[track_caller]
    fn look_idle(&self) -> Result<(), String> {
        let (before, begin) = (self.turns().0, Instant::now());
        self.process().look_idle()?;
        let made = self.turns().0 - before;
        // What it polls, it polls at most ten times a second. One turn is for USR1.
        let most = 5 + u64::try_from(begin.elapsed().as_millis()).expect("a short time") / 50;
        if made <= most { Ok(()) } else { Err(format!("{made} turns of the loop")) }
    }

    /// Stops the daemon, and waits until it is stopped. Until then it might notice what the test
    /// does next.
    #[track_caller]
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        eventually("a stopped daemon", || self.process().is_stopped());
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.process().0, signal).expect("the daemon is there");
    }

    /// Waits for it to end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Stopped {
        let Some(status) = wait_for_exit(&mut self.child, PATIENCE) else {
            panic!("the daemon does not end; its log:\n{}", self.log_text());
        };
        self.reader.take().expect("not yet waited for").join().expect("no panic");
        let mut stdout = String::new();
        if let Some(pipe) = &mut self.child.stdout {
            pipe.read_to_string(&mut stdout).expect("text");
        }
        Stopped { status, stdout, stderr: self.log_text(), _directory: Arc::clone(&self.directory) }
    }

    /// Sends TERM and waits for it to end.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> Stopped {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for the end of a daemon that was told to stop and whose programs have ended. Where it
    /// cannot know that their groups are empty, it would wait until KILL is due. A second signal
    /// makes that now.
    #[track_caller]
    pub(crate) fn wait_for_groups(&mut self) -> Stopped {
        if !empty_groups_are_noticed() {
            self.signal(Signal::TERM);
        }
        self.wait()
    }

    /// Kills it, which leaves what a crash leaves. The directory stays until the value is dropped.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the daemon is there");
        self.child.wait().expect("wait");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("log of the daemon:\n{}", self.log_text());
        }
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // The second signal makes it kill its programs at once. If that fails, another test
            // finds out.
            self.signal(Signal::TERM);
            self.signal(Signal::INT);
            if wait_for_exit(&mut self.child, Duration::from_secs(5)).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

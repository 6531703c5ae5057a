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

/// The program under test.
pub(crate) fn binary() -> OsString {
    env::var_os("SOCKEXEC_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_sockexec").into())
}

/// What the runner of the tests has had ignored (a shell's job in the background), a daemon would go on ignoring. A handler that does
/// nothing is the same to the tests, and the default to what they start.
fn undo_ignoring() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        let ignored = Process(rustix::process::getpid()).ignored_signals();
        for signal in (1..=31).filter(|&signal| ignored & 1 << (signal - 1) != 0) {
            // Refused for those that no program may catch.
            if ![Signal::PIPE, Signal::CHILD].map(Signal::as_raw).contains(&signal) {
                let _ = signal_hook::flag::register(signal, Arc::default());
            }
        }
    });
}

/// How a daemon is started.
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
    /// Options as a shell's user writes them, separated by blanks.
    pub(crate) fn options(mut self, options: &str) -> Self {
        self.options.extend(options.split_whitespace().map(str::to_owned));
        self
    }

    /// These arguments and nothing else, not even a socket.
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

    /// System calls that are refused to the daemon and its programs, as the fixture's step `filter` has them.
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

    /// Without `-d`: it logs warnings and errors only.
    pub(crate) const fn quiet(mut self) -> Self {
        self.debug = false;
        self
    }

    /// No socket of its own; tests connect to the one that [`Launch::socket`] names.
    pub(crate) const fn without_socket(mut self) -> Self {
        self.bare = true;
        self
    }

    /// This is its standard input; given again, its standard output.
    pub(crate) fn stream(mut self, stream: impl Into<OwnedFd>) -> Self {
        self.streams.push(Arc::new(stream.into()));
        self
    }

    pub(crate) fn socket(mut self, socket: impl Into<PathBuf>) -> Self {
        self.socket = socket.into();
        self
    }

    /// The directory of the test, removed with the daemon; also its working directory.
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
        // First, so that `--` may be the last of the options.
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
            // Nothing is said: the socket must be tried. One that is stale refuses.
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

    /// Starts one that is to end by itself, and waits for that.
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
    /// What it left is there to be looked at.
    _directory: Arc<TempDir>,
}

impl Stopped {
    /// Standard error without what is always said, and without what the daemon says of the kernel, which is not the same everywhere.
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

/// Lines that the daemon has logged.
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
    /// A test that panics while it looks leaves the log as it is.
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

/// A daemon, with its directory. Dropped, it is killed with all that it runs.
pub(crate) struct Daemon {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    socket: PathBuf,
    directory: Arc<TempDir>,
}

impl Daemon {
    /// One with these options, serving.
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

    /// A connection that has sent the arguments.
    #[track_caller]
    pub(crate) fn exec<A: AsRef<[u8]>>(&self, argv: &[A]) -> Client {
        let mut client = self.connect();
        client.exec(argv);
        client
    }

    /// Runs a program to its end: all of `stdin` is sent before a byte is read.
    #[track_caller]
    pub(crate) fn run<A: AsRef<[u8]>>(&self, argv: &[A], stdin: &[u8]) -> Reply {
        let mut client = self.exec(argv);
        client.stdin(stdin);
        client.end_stdin();
        client.reply()
    }

    /// Asserts that the daemon lives and does for others what it should.
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

    /// Where the log is now, for [`Daemon::wait_for_log_after`].
    pub(crate) fn log_position(&self) -> usize {
        self.log.lock().text.len()
    }

    #[track_caller]
    pub(crate) fn wait_for_log(&self, words: &str) {
        self.wait_for_log_after(0, words);
    }

    /// Waits until the log has the words in its part after `position`.
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

    /// The programs that it has logged as started behind a position of its log, in that order.
    pub(crate) fn started(&self, position: usize) -> Vec<Pid> {
        let log = self.log_text().split_off(position);
        let number = |rest: &str| Pid::from_raw(rest.split(':').next()?.parse().ok()?);
        log.split("started pid ").skip(1).filter_map(number).collect()
    }

    /// Turns of the loop so far, and how often output was gathered, as USR1 tells them.
    #[track_caller]
    pub(crate) fn turns(&self) -> (u64, u64) {
        let position = self.log_position();
        self.signal(Signal::USR1);
        self.wait_for_log_after(position, " times\n");
        let log = self.log_text();
        let line = log[position..].lines().find(|line| line.ends_with(" times")).expect("a line").to_owned();
        let number = |before: &str, after: &str| {
            let rest = &line[line.find(before).expect(before) + before.len()..];
            rest[..rest.find(after).expect(after)].parse().expect("a number")
        };
        (number("accepted, ", " turns"), number("gathered ", " times"))
    }

    /// Asserts that it does (next to) nothing for a while. On a busy machine one that spins gets little of the processor, and shows by
    /// how often it turns. On a slow one it may still be busy with what came before, so it has more than one chance; a loop that spins
    /// uses none of them.
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
        // What it looks at again it looks at ten times a second at most; a turn is for USR1.
        let most = 5 + u64::try_from(begin.elapsed().as_millis()).expect("a short time") / 50;
        if made <= most { Ok(()) } else { Err(format!("{made} turns of the loop")) }
    }

    /// Stops it, and waits until that has taken hold: before, it may still see something of what comes next.
    #[track_caller]
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        eventually("a stopped daemon", || self.process().is_stopped());
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.process().0, signal).expect("the daemon is there");
    }

    /// Waits for its end.
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

    /// TERM, and its end.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> Stopped {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Its end, when it was told to stop and its programs have ended. Where it cannot know that nobody is left in their groups it
    /// would wait until KILL is due; a second signal makes that now.
    #[track_caller]
    pub(crate) fn wait_for_groups(&mut self) -> Stopped {
        if !empty_groups_are_noticed() {
            self.signal(Signal::TERM);
        }
        self.wait()
    }

    /// KILL: what is left is what a crash leaves. The directory stays until the value is dropped.
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
            // The second makes it kill its programs at once. A fault here is not this test's.
            self.signal(Signal::TERM);
            self.signal(Signal::INT);
            if wait_for_exit(&mut self.child, Duration::from_secs(5)).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

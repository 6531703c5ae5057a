//! The client in Python that the document shows.

mod ends;
mod input;
mod output;
mod signals;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::document;
use crate::common::{Daemon, PATIENCE, eventually, fixture, wait_for_exit};

/// The client, as it stands in the document.
struct PythonClient {
    python: String,
    directory: TempDir,
}

impl PythonClient {
    /// `None` if there is no python3 to run it with.
    fn new() -> Option<Self> {
        let document = document();
        let (_, rest) = document.split_once("```python\n").expect("a client");
        let (source, _) = rest.split_once("```").expect("its end");
        // The `python3` in PATH may be a wrapper script that takes longer than the client itself.
        let Ok(found) = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output() else {
            println!("SKIPPED: no python3 to run it with");
            return None;
        };
        let python = String::from_utf8(found.stdout).expect("a path").trim().to_owned();
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("client.py"), source).unwrap();
        Some(Self { python, directory })
    }

    /// The fixture execs the client, so that it ignores no signal that the tests were started to
    /// ignore.
    fn command(&self, socket: &Path, argv: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(fixture());
        command.args(["exec", &self.python]).arg(self.directory.path().join("client.py")).arg(socket).args(argv);
        command.current_dir("/usr").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, daemon: &Daemon, argv: &[impl AsRef<OsStr>]) -> Running {
        Running(self.command(daemon.socket(), argv).spawn().expect("it starts"))
    }

    /// A client that takes the test for its daemon, and has sent the request for the program
    /// `word`.
    fn start_with_us(&self, stdin: impl Into<Stdio>) -> (Running, BufReader<UnixStream>) {
        let path = self.directory.path().join("sock");
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let running = Running(self.command(&path, &["word"]).stdin(stdin).spawn().expect("it starts"));
        let mut accepted = None;
        eventually("a client", || {
            accepted = listener.accept().ok();
            accepted.is_some()
        });
        let (socket, _) = accepted.expect("a client");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut socket = BufReader::new(socket);
        let words: Vec<Vec<u8>> = (0..4).map(|_| netstring(&mut socket)).collect();
        assert_eq!(words, [&b"protocol=2"[..], b"cwd=/usr", b"1", b"word"]);
        (running, socket)
    }
}

/// A client that runs. Dropped, it is killed.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Writes the input to the client's stdin on a thread. Returns a count of the bytes taken, and
    /// the result of the last write.
    fn feed(&mut self, mut input: impl Read + Send + 'static) -> (Arc<AtomicU64>, JoinHandle<std::io::Result<()>>) {
        let mut stdin = self.0.stdin.take().expect("a pipe");
        let count = Arc::new(AtomicU64::new(0));
        let fed = Arc::clone(&count);
        let writer = thread::spawn(move || {
            let mut buffer = vec![0; 10_000];
            loop {
                let n = input.read(&mut buffer)?;
                if n == 0 {
                    return Ok(());
                }
                stdin.write_all(&buffer[..n])?;
                fed.fetch_add(n as u64, Ordering::Relaxed);
            }
        });
        (count, writer)
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.0), signal).expect("it is there");
    }

    /// The next output, at most `max` bytes. Empty at the end.
    #[track_caller]
    fn read(&mut self, max: usize) -> Vec<u8> {
        let stdout = self.0.stdout.as_mut().expect("a pipe");
        let timeout = Timespec::try_from(PATIENCE).unwrap();
        let mut fds = [PollFd::new(stdout, PollFlags::IN)];
        let n = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout))).expect("poll");
        assert!(n > 0, "no output, and no end of it");
        let mut bytes = vec![0; max];
        let n = stdout.read(&mut bytes).unwrap();
        bytes.truncate(n);
        bytes
    }

    #[track_caller]
    fn wait_for(&mut self, words: &str) {
        let mut found = Vec::new();
        while found.len() < words.len() {
            let bytes = self.read(words.len() - found.len());
            assert!(!bytes.is_empty(), "ended with {}", self.errors());
            found.extend(bytes);
        }
        assert_eq!(found, words.as_bytes());
    }

    /// The number of bytes of output that nobody has read yet.
    fn unread(&self) -> u64 {
        rustix::io::ioctl_fionread(self.0.stdout.as_ref().expect("a pipe")).expect("a pipe's")
    }

    /// All of standard error. The client must have ended.
    fn errors(&mut self) -> String {
        let mut text = String::new();
        self.0.stderr.take().expect("a pipe").read_to_string(&mut text).expect("text");
        text
    }

    /// Waits for the client to end. Returns its exit status and its standard error.
    #[track_caller]
    fn end(&mut self) -> (i32, String) {
        let status = wait_for_exit(&mut self.0, PATIENCE).expect("its end");
        (status.code().expect("no signal ends it"), self.errors())
    }

    /// Whether a descriptor is non-blocking, which everybody who shares it would see.
    fn is_non_blocking(&self, descriptor: u8) -> bool {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{descriptor}", self.0.id())).expect("a descriptor");
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags").trim();
        u32::from_str_radix(flags, 8).expect("octal") & OFlags::NONBLOCK.bits() != 0
    }
}

/// Reads a netstring without the help of the crate under test.
#[track_caller]
fn netstring(reader: &mut impl BufRead) -> Vec<u8> {
    let mut length = Vec::new();
    reader.read_until(b':', &mut length).expect("a length");
    assert_eq!(length.pop(), Some(b':'));
    let length: usize = str::from_utf8(&length).ok().and_then(|length| length.parse().ok()).expect("a length");
    let mut bytes = vec![0; length + 1];
    reader.read_exact(&mut bytes).expect("bytes");
    assert_eq!(bytes.pop(), Some(b','), "no comma after {} bytes", bytes.len());
    bytes
}

#[track_caller]
fn tell(socket: &mut BufReader<UnixStream>, tag: &str, payload: &str) {
    let words = [tag, payload].map(crate::version_2::netstring).concat();
    socket.get_mut().write_all(&words).expect("it reads");
}

/// Has the client learn that its program runs, and waits for it.
#[track_caller]
fn begin(running: &mut Running, socket: &mut BufReader<UnixStream>, window: usize) {
    tell(socket, "protocol", &format!("2 window={window} options=cwd,env"));
    tell(socket, "started", "1");
    tell(socket, "stdout", "ready");
    running.wait_for("ready");
}

#[track_caller]
fn pair(reader: &mut impl BufRead) -> (String, Vec<u8>) {
    (String::from_utf8(netstring(reader)).expect("a tag"), netstring(reader))
}

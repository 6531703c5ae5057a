//! Fake daemons. Each serves one client as the test says, even in ways that no real daemon would.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use tempfile::TempDir;

use crate::common::PATIENCE;

/// The introduction of a daemon with the smallest window.
pub(super) const INTRODUCTION: &[u8] = b"8:protocol,14:2 window=65536,";

/// What a daemon sends once the program runs.
pub(super) const STARTED: &[u8] = b"7:started,4:4711,";

/// What it sends when the program has exited with 0.
pub(super) const EXIT: &[u8] = b"6:stdout,0:,6:stderr,0:,8:exitcode,1:0,";

pub(super) struct Fake {
    directory: TempDir,
    thread: JoinHandle<()>,
}

impl Fake {
    /// Listens. `play` serves the one client.
    pub(super) fn new(play: impl FnOnce(Peer) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("sock")).expect("a socket");
        let thread = thread::spawn(move || {
            let (client, _) = listener.accept().expect("a client");
            client.set_read_timeout(Some(PATIENCE)).expect("a time-out");
            client.set_write_timeout(Some(PATIENCE)).expect("a time-out");
            play(Peer(client));
        });
        Self { directory, thread }
    }

    /// Answers a version 2 request without input with these bytes.
    pub(super) fn saying(reply: &[u8]) -> Self {
        let reply = reply.to_vec();
        Self::new(move |mut peer| {
            peer.request();
            assert_eq!(peer.pair(), ("stdin".to_owned(), Vec::new()));
            peer.say(&reply);
        })
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join("sock")
    }

    /// Waits until it has played its part.
    #[track_caller]
    pub(super) fn join(self) {
        self.thread.join().expect("the client does what it should");
    }
}

/// The daemon's side of the connection.
pub(super) struct Peer(UnixStream);

impl Peer {
    pub(super) fn say(&mut self, bytes: &[u8]) {
        self.try_say(bytes).expect("the client reads");
    }

    pub(super) fn try_say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).expect("the client says more");
        byte[0]
    }

    /// Reads up to and including these bytes.
    pub(super) fn until(&mut self, end: &[u8]) {
        let mut read = Vec::new();
        while !read.ends_with(end) {
            read.push(self.byte());
        }
    }

    pub(super) fn netstring(&mut self) -> Vec<u8> {
        let mut len = 0;
        loop {
            match self.byte() {
                b':' => break,
                digit => len = len * 10 + usize::from(digit - b'0'),
            }
        }
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload).expect("a payload");
        assert_eq!(self.byte(), b',');
        payload
    }

    /// Reads a version 2 request up to its last argument. Returns the options.
    pub(super) fn request(&mut self) -> Vec<String> {
        assert_eq!(self.netstring(), b"protocol=2");
        self.options()
    }

    /// Reads the rest of a request. Returns the options.
    pub(super) fn options(&mut self) -> Vec<String> {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        let mut options = Vec::new();
        let count = loop {
            let word = text(self.netstring());
            match word.parse() {
                Ok(count) => break count,
                Err(_) => options.push(word),
            }
        };
        for _ in 0..count {
            self.netstring();
        }
        options
    }

    pub(super) fn pair(&mut self) -> (String, Vec<u8>) {
        let tag = String::from_utf8(self.netstring()).expect("a tag");
        (tag, self.netstring())
    }

    /// Reads to the end of what the client sends. A client that leaves before it has read
    /// everything resets the connection.
    pub(super) fn drain(&mut self) {
        match std::io::copy(&mut self.0, &mut std::io::sink()) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            end => drop(end.expect("the client's end")),
        }
    }

    /// Reads until the client has closed the connection.
    pub(super) fn read_to_the_end(&mut self) {
        self.drain();
        // A half-close does not count.
        self.wait_for_the_end();
    }

    /// Waits, without reading, until the client has closed the connection.
    pub(super) fn wait_for_the_end(&self) {
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        let timeout = Timespec::try_from(PATIENCE).expect("a time");
        let n = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout))).expect("poll");
        assert_eq!(n, 1, "the client stays");
    }

    /// Whether the client neither sends anything nor leaves during this time. Only time can show
    /// that nothing happens.
    pub(super) fn is_quiet(&self, time: Duration) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let timeout = Timespec::try_from(time).expect("a time");
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout))).expect("poll") == 0
    }
}

//! The examples of docs/protocol.md, run as they stand there.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Cursor, ErrorKind, IoSlice, Read, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use sockexec_proto::{ErrorCode, reply, request};
use tempfile::TempDir;

use crate::common::{Client, Daemon, PATIENCE, Process, eventually, fixture, pairs, steps, wait_for_exit};
use crate::pattern::Pattern;

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol.md");
    fs::read_to_string(path).expect("docs/protocol.md")
}

/// What one side says, one line after the other.
#[derive(Debug, PartialEq)]
enum Line {
    Client {
        with_descriptors: bool,
        bytes: Vec<u8>,
        /// And ends its sending.
        ends: bool,
    },
    Daemon(Vec<u8>),
}

/// The bytes that a line stands for.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, char == '\\') {
            // `<5 times x>`
            ('<', false) if text.contains(" times ") => {
                let repeated: String = chars.by_ref().take_while(|&char| char != '>').collect();
                let (times, what) = repeated.split_once(" times ").expect("so many times what");
                bytes.extend(what.repeat(times.parse().expect("a number")).as_bytes());
            }
            (_, false) => bytes.extend(char.to_string().as_bytes()),
            (_, true) => match chars.next() {
                Some('n') => bytes.push(b'\n'),
                Some('r') => bytes.push(b'\r'),
                Some('x') => {
                    let digits: String = chars.by_ref().take(2).collect();
                    bytes.push(u8::from_str_radix(&digits, 16).expect("two digits"));
                }
                other => panic!("\\{other:?} in {text}"),
            },
        }
    }
    bytes
}

/// The examples, in their order: indented lines that begin with `>` or `<`, up to one that does not.
fn examples(document: &str) -> Vec<Vec<Line>> {
    let mut examples = Vec::new();
    let mut example = Vec::new();
    for line in document.lines().chain([""]) {
        if let Some(text) = line.strip_prefix("    > ") {
            let (with_descriptors, text) = match text.strip_prefix("[/dev/null, FILE, FILE] ") {
                Some(text) => (true, text),
                None => (false, text),
            };
            let (text, ends) = match text.strip_suffix(" EOF") {
                Some(text) => (text, true),
                None => (text, false),
            };
            example.push(Line::Client { with_descriptors, bytes: unescape(text), ends });
        } else if let Some(text) = line.strip_prefix("    < ") {
            example.push(Line::Daemon(unescape(text)));
        } else if !example.is_empty() {
            examples.push(std::mem::take(&mut example));
        }
    }
    examples
}

/// A reply with what differs from run to run taken out: numbers of processes and costs, reports of input, and how output is cut into
/// pairs, or which of two streams is told first. The introduction is looked at by itself, as most examples leave it out.
#[derive(Debug, Default, PartialEq)]
struct Gist {
    taken: bool,
    stdout: String,
    stderr: String,
    ended: Vec<String>,
    others: Vec<(String, String)>,
}

impl Gist {
    #[track_caller]
    fn of(raw: &[u8]) -> Self {
        let mut gist = Self::default();
        for (tag, payload) in pairs(raw) {
            let text = String::from_utf8(payload).expect("text");
            match tag.as_str() {
                "protocol" => {}
                "taken" => {
                    assert!(text.parse::<u64>().is_ok(), "{text}");
                    gist.taken = true;
                }
                "stdout" | "stderr" if text.is_empty() => gist.ended.push(tag),
                "stdout" => gist.stdout.push_str(&text),
                "stderr" => gist.stderr.push_str(&text),
                "started" => {
                    assert!(text.parse::<u32>().is_ok(), "{text}");
                    gist.others.push((tag, "PID".into()));
                }
                "usage" => {
                    let names: Vec<&str> = text
                        .split(' ')
                        .map(|item| {
                            let (name, value) = item.split_once('=').expect("name=value");
                            assert!(value.parse::<f64>().is_ok(), "{text}");
                            name
                        })
                        .collect();
                    gist.others.push((tag, names.join(" ")));
                }
                _ => gist.others.push((tag, text)),
            }
        }
        gist.ended.sort();
        gist
    }
}

#[track_caller]
fn send(daemon: &Daemon, client: &mut Client, bytes: &[u8], with_descriptors: bool) {
    if !with_descriptors {
        return client.send(bytes);
    }
    let null = File::open("/dev/null").unwrap();
    let file = File::create(daemon.directory().join("FILE")).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [null.as_fd(), file.as_fd(), file.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    rustix::net::sendmsg(client.socket(), &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
}

#[test]
fn examples_of_the_document() {
    let daemon = Daemon::start("");
    let document = document();
    let examples = examples(&document);
    assert!(examples.len() >= 22, "{} examples", examples.len());
    let is_said = |example: &[Line], tag: &str| {
        let said = |line: &Line| matches!(line, Line::Daemon(bytes) if pairs(bytes).iter().any(|pair| pair.0 == tag));
        example.iter().any(said)
    };
    for example in &examples {
        if is_said(example, "queued") {
            let busy = Daemon::start("-m 1");
            let mut other = busy.exec(&steps("out ready cat"));
            other.wait_for("ready");
            play(&busy, example, move |client| {
                client.wait_for("6:queued,");
                drop(other);
            });
        } else {
            play(&daemon, example, |_| {});
        }
    }
    assert_eq!(fs::read_to_string(daemon.directory().join("FILE")).unwrap(), "hello\n");
}

/// Plays the client's part; `at_last`: when all of it was sent.
fn play(daemon: &Daemon, example: &[Line], at_last: impl FnOnce(&mut Client)) {
    let mut client = daemon.connect();
    let mut expected = Vec::new();
    let mut last_words: Option<String> = None;
    for line in example {
        match line {
            Line::Client { with_descriptors, bytes, ends } => {
                if let Some(words) = last_words.take() {
                    client.wait_for(&words);
                }
                send(daemon, &mut client, bytes, *with_descriptors);
                if *ends {
                    client.half_close();
                }
            }
            Line::Daemon(bytes) => {
                let said = pairs(bytes);
                let (tag, payload) = said.last().expect("a pair");
                last_words = Some(if tag == "started" || payload.is_empty() {
                    format!("{}:{tag},", tag.len())
                } else {
                    String::from_utf8_lossy(payload).into_owned()
                });
                expected.extend_from_slice(bytes);
            }
        }
    }
    at_last(&mut client);
    // A client that has no more to say, as `nc -N`; with input that was not ended it would wait.
    let raw = client.rest();
    assert_eq!(Gist::of(&raw), Gist::of(&expected), "{example:?}");
    let introduction = |raw| pairs(raw).into_iter().find(|(tag, _)| tag == "protocol");
    let is_version_2 =
        matches!(example.first(), Some(Line::Client { bytes, .. }) if bytes.starts_with(b"10:protocol="));
    assert_eq!(pairs(&raw).first().is_some_and(|(tag, _)| tag == "protocol"), is_version_2, "{example:?}");
    if let Some(shown) = introduction(&expected) {
        assert_eq!(introduction(&raw), Some(shown));
    }
}

/// Every option, tag and code of an error has an example, or is in one.
#[test]
fn nothing_is_without_an_example() {
    let document = document();
    let examples = examples(&document);
    let said = |is_client: bool| -> Vec<String> {
        let lines = examples.iter().flatten();
        let bytes = lines.filter_map(|line| match line {
            Line::Client { bytes, .. } if is_client => Some(bytes),
            Line::Daemon(bytes) if !is_client => Some(bytes),
            Line::Client { .. } | Line::Daemon(_) => None,
        });
        bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    };
    let (client, daemon) = (said(true).concat(), said(false).concat());
    let options = request::OPTIONS.iter().filter(|option| option.name != request::STATUS);
    for option in options {
        let words = format!(":{}{}", option.name, if option.takes_value { "=" } else { "," });
        assert!(client.contains(&words), "no example of the option {}", option.name);
    }
    for tag in [request::STDIN, request::SIGNAL, request::WINSIZE] {
        assert!(client.contains(&format!(":{tag},")), "no example of {tag}");
    }
    for tag in [
        reply::PROTOCOL,
        reply::QUEUED,
        reply::STARTED,
        "stdout",
        "stderr",
        reply::TAKEN,
        reply::INPUT_CLOSED,
        reply::ERROR,
        reply::USAGE,
        reply::EXITCODE,
        reply::TERMSIG,
    ] {
        assert!(daemon.contains(&format!(":{tag},")), "no example of {tag}");
        let row = format!("`{tag}`");
        assert!(document.lines().any(|line| line.starts_with('|') && line.contains(&row)), "{tag} is in no table");
    }
    for code in ErrorCode::KNOWN {
        assert!(document.contains(&format!("| `{code}` |")), "{code} is not in the table");
    }
}

/// The names in `value` and below, and what kind of thing each is.
fn shape(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                shape(member, &format!("{path}.{name}"), found);
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| shape(element, &format!("{path}[]"), found)),
        Value::Null => {}
        Value::Bool(_) => found.push(format!("{path}: boolean")),
        Value::Number(_) => found.push(format!("{path}: number")),
        Value::String(_) => found.push(format!("{path}: string")),
    }
    found.sort();
    found.dedup();
}

/// The status has the members that the document shows, and no others.
#[test]
fn the_members_of_the_status() {
    let document = document();
    let (_, rest) = document.split_once("```json\n").expect("an example");
    let (json, _) = rest.split_once("```").expect("its end");
    let mut documented = Vec::new();
    shape(&serde_json::from_str(json).expect("JSON"), "", &mut documented);
    let daemon = Daemon::start("");
    let mut running = daemon.connect();
    running.send(b"10:protocol=2,8:cwd=/usr,1:2,5:sleep,3:100,");
    running.wait_for("7:started,");
    let mut client = daemon.connect();
    client.send(b"10:protocol=2,6:status,");
    let said = pairs(&client.rest());
    let [(protocol, _), (tag, payload)] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(protocol, reply::PROTOCOL);
    let mut found = Vec::new();
    shape(&serde_json::from_slice(payload).expect("JSON"), "", &mut found);
    // What the kernel lacks is nothing on a new one.
    for list in [&mut found, &mut documented] {
        list.retain(|member| member != ".lacks[]: string");
    }
    assert!(payload.windows(8).any(|words| words == b"\"lacks\":"));
    assert_eq!((tag.as_str(), found), ("status", documented));
}

/// The client in Python, as it stands in the document.
struct PythonClient {
    python: String,
    directory: TempDir,
}

impl PythonClient {
    /// None: there is no python3 to run it with.
    fn new() -> Option<Self> {
        let document = document();
        let (_, rest) = document.split_once("```python\n").expect("a client");
        let (source, _) = rest.split_once("```").expect("its end");
        // What is found by its name may be a script that looks for it, which takes longer than the client.
        let Ok(found) = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output() else {
            println!("SKIPPED: no python3 to run it with");
            return None;
        };
        let python = String::from_utf8(found.stdout).expect("a path").trim().to_owned();
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("client.py"), source).unwrap();
        Some(Self { python, directory })
    }

    /// The fixture becomes it, so that no signal is ignored because it is for the tests.
    fn command(&self, socket: &Path, argv: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(fixture());
        command.args(["exec", &self.python]).arg(self.directory.path().join("client.py")).arg(socket).args(argv);
        command.current_dir("/usr").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, daemon: &Daemon, argv: &[impl AsRef<OsStr>]) -> Running {
        Running(self.command(daemon.socket(), argv).spawn().expect("it starts"))
    }

    /// One that takes the test for the daemon, and has sent its request for the program `word`.
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
    /// Feeds it, and counts what it takes, until it takes no more: how the writing ended.
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

    /// The next of its output, at most so much; nothing: the end.
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

    /// How much of its output waits to be read.
    fn unread(&self) -> u64 {
        rustix::io::ioctl_fionread(self.0.stdout.as_ref().expect("a pipe")).expect("a pipe's")
    }

    /// What it has said on standard error, once it has ended.
    fn errors(&mut self) -> String {
        let mut text = String::new();
        self.0.stderr.take().expect("a pipe").read_to_string(&mut text).expect("text");
        text
    }

    /// Waits for its end: the exit status, and what it has said on standard error.
    #[track_caller]
    fn end(&mut self) -> (i32, String) {
        let status = wait_for_exit(&mut self.0, PATIENCE).expect("its end");
        (status.code().expect("no signal ends it"), self.errors())
    }

    /// Whether a descriptor was made non-blocking, for all others that have it too.
    fn is_non_blocking(&self, descriptor: u8) -> bool {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{descriptor}", self.0.id())).expect("a descriptor");
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags").trim();
        u32::from_str_radix(flags, 8).expect("octal") & OFlags::NONBLOCK.bits() != 0
    }
}

/// Waits until a count has grown to something and then stays the same over many looks.
#[track_caller]
fn wait_until_stuck(mut count: impl FnMut() -> u64) {
    let (mut last, mut same) = (0, 0);
    eventually("a count that no longer grows", || {
        let now = count();
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
        same > 50
    });
}

/// So many bytes of the fixture's pattern.
fn pattern(len: u64) -> Vec<u8> {
    let mut pattern = Pattern::new();
    let mut bytes = Vec::new();
    while pattern.position() < len {
        bytes.extend_from_slice(pattern.peek(len - pattern.position()));
        pattern.advance(bytes.len() - usize::try_from(pattern.position()).unwrap());
    }
    bytes
}

/// One that arrives, taken apart without the help of the crate under test.
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

/// The program runs, and the client knows it.
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

/// The client in Python does what is said of it.
#[test]
fn the_client_in_python() {
    let Some(client) = PythonClient::new() else { return };
    let daemon = Daemon::start("");
    let run = |argv: &[&str], input: &str| {
        let mut running = client.start(&daemon, argv);
        let (_, writer) = running.feed(Cursor::new(input.to_owned()));
        let mut stdout = Vec::new();
        loop {
            let bytes = running.read(1 << 16);
            if bytes.is_empty() {
                break;
            }
            stdout.extend(bytes);
        }
        let (status, stderr) = running.end();
        let _ = writer.join().unwrap();
        (String::from_utf8(stdout).expect("text"), stderr, status)
    };
    assert_eq!(run(&["sh", "-c", "tr a-z A-Z; exit 3"], "word"), ("WORD".into(), String::new(), 3));
    assert_eq!(run(&["pwd"], ""), ("/usr\n".into(), String::new(), 0));
    assert_eq!(run(&["sh", "-c", "echo oops >&2; kill -9 $$"], ""), (String::new(), "oops\n".into(), 137));
    let refused = run(&["nope"], "");
    assert_eq!(refused, (String::new(), "not-found nope: No such file or directory\n".into(), 127));
    let big = "0123456789".repeat(500_000);
    assert_eq!(run(&["cat"], &big), (big, String::new(), 0));
}

/// How it ends, whatever the daemon says, while its own input stays open and silent.
#[test]
fn the_client_in_python_ends() {
    const INTRODUCTION: &str = "8:protocol,24:2 new window=65536 other,";
    let Some(client) = PythonClient::new() else { return };
    for (said, status) in [
        ("7:started,1:1,3:new,3:2:x,8:exitcode,1:7,", 7),
        ("7:started,1:1,5:usage,0:,7:termsig,2:15,", 143),
        // Its status where there is an exit pair, and 124 for 0.
        ("7:started,1:1,5:error,9:timeout x,8:exitcode,1:0,", 124),
        ("7:started,1:1,5:error,10:shutdown x,8:exitcode,1:0,", 124),
        ("7:started,1:1,5:error,14:output-limit x,8:exitcode,1:3,", 3),
        ("7:started,1:1,5:error,5:new x,7:termsig,1:9,", 137),
        ("5:error,11:not-found x,", 127),
        ("5:error,16:not-executable x,", 126),
        ("5:error,8:denied x,", 126),
        ("5:error,11:forbidden x,", 126),
        ("5:error,6:busy x,", 125),
        ("5:error,14:spawn-failed x,", 125),
        ("5:error,13:bad-request x,", 111),
        ("7:started,1:1,5:error,10:internal x,", 125),
        ("5:error,9:timeout x,", 124),
        ("5:error,10:shutdown x,", 125),
        ("5:error,5:new x,", 125),
        // The daemon is gone, also in the middle of a pair.
        ("", 111),
        ("7:started,1:1,", 111),
        ("7:started,1:1,8:exitcode,", 111),
        ("7:started,1:1,8:exitcode,2:1", 111),
    ] {
        let (mut running, mut socket) = client.start_with_us(Stdio::piped());
        socket.get_mut().write_all([INTRODUCTION, said].concat().as_bytes()).unwrap();
        drop(socket);
        let (found, stderr) = running.end();
        assert_eq!((found, !stderr.is_empty()), (status, said.contains("error") || status == 111), "{said}: {stderr}");
    }
    // No introduction: an end, version 1, something else.
    for said in
        ["", "6:stderr,3:bad,8:exitcode,3:125,", "7:started,1:1,8:exitcode,1:0,", "HTTP/1.1 400 Bad Request\r\n"]
    {
        let (mut running, mut socket) = client.start_with_us(Stdio::piped());
        socket.get_mut().write_all(said.as_bytes()).unwrap();
        drop(socket);
        assert_eq!(running.end().0, 111, "{said}");
    }
    // Silence, and nobody at all.
    let (mut running, socket) = client.start_with_us(Stdio::piped());
    assert_eq!(running.end().0, 111);
    drop(socket);
    let mut command = client.command(Path::new("/nowhere/sock"), &["word"]);
    assert_eq!(Running(command.spawn().unwrap()).end().0, 111);
    // As long as the program does not run, INT and TERM give up.
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (mut running, mut socket) = client.start_with_us(Stdio::piped());
        tell(&mut socket, "protocol", "2 window=65536 options=");
        tell(&mut socket, "queued", "1");
        running.signal(signal);
        assert_eq!(running.end(), (status, String::new()));
        // It says nothing more; a reset: it has not read what we said.
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert_eq!(rest, b"");
    }
}

/// It sends as much as the window takes, signals beside it, and nothing once the program has closed its input.
#[test]
fn the_client_in_python_counts_its_input() {
    let Some(client) = PythonClient::new() else { return };
    let (mut running, mut socket) = client.start_with_us(Stdio::piped());
    let (_, writer) = running.feed(std::io::repeat(b'x'));
    begin(&mut running, &mut socket, 65_536);
    let mut sent = 0;
    for taken in [0, 32_768, 65_536, 100_001, 200_001] {
        if taken > 0 {
            tell(&mut socket, "taken", &taken.to_string());
        }
        while sent < taken + 65_536 {
            let (tag, payload) = pair(&mut socket);
            assert!(tag == "stdin" && (1..=32_768).contains(&payload.len()), "{tag} with {} bytes", payload.len());
            sent += payload.len();
        }
        assert_eq!(sent, taken + 65_536);
        // What comes next shows that it stands still.
        running.signal(Signal::USR1);
        assert_eq!(pair(&mut socket), ("signal".into(), b"USR1".into()));
    }
    tell(&mut socket, "input-closed", "");
    eventually("the end of the writer", || writer.is_finished());
    assert_eq!(writer.join().unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
    running.signal(Signal::TERM);
    assert_eq!(pair(&mut socket), ("signal".into(), b"TERM".into()));
    tell(&mut socket, "exitcode", "3");
    assert_eq!(running.end(), (3, String::new()));
}

/// A signal that comes in the middle of a pair is sent behind it. It was written into it once.
#[test]
fn the_client_in_python_keeps_its_pairs_whole() {
    const WINDOW: usize = 1 << 20;
    let Some(client) = PythonClient::new() else { return };
    let input = pattern(2_500_000);
    // Of a file it sends pairs as large as they may be, which is more than a socket holds.
    let path = client.directory.path().join("input");
    fs::write(&path, &input).unwrap();
    let (mut running, mut socket) = client.start_with_us(File::open(&path).unwrap());
    begin(&mut running, &mut socket, WINDOW);
    let (mut found, mut has_ended, mut sent, mut signals) = (Vec::new(), false, 0, 0);
    while !has_ended || signals < sent {
        if sent < 2 && found.len() == sent * WINDOW {
            wait_until_stuck(|| rustix::io::ioctl_fionread(socket.get_ref()).unwrap());
            running.signal(Signal::USR1);
            sent += 1;
        }
        match pair(&mut socket) {
            (tag, payload) if tag == "stdin" && !has_ended => {
                has_ended = payload.is_empty();
                found.extend(payload);
            }
            other => {
                assert_eq!(other, ("signal".into(), b"USR1".into()));
                signals += 1;
            }
        }
        if found.len() == sent * WINDOW {
            tell(&mut socket, "taken", &found.len().to_string());
        }
    }
    assert!(found == input);
    tell(&mut socket, "exitcode", "0");
    assert_eq!(running.end(), (0, String::new()));
}

/// INT ends a program that does not read its input, of which there is more than anything holds; also while nobody reads its output.
#[test]
fn the_client_in_python_sends_signals_while_its_input_is_stuck() {
    let Some(client) = PythonClient::new() else { return };
    for then in ["wait", "flood"] {
        let daemon = Daemon::start("-t 0");
        let mut running = client.start(&daemon, &steps(&format!("out ready {then}")));
        let (count, writer) = running.feed(std::io::repeat(b'x'));
        running.wait_for("ready");
        wait_until_stuck(|| count.load(Ordering::Relaxed));
        running.signal(Signal::INT);
        daemon.wait_for_log("ended: signal 2");
        while !running.read(1 << 16).is_empty() {}
        assert_eq!(running.end(), (130, String::new()));
        assert_eq!(writer.join().unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
        daemon.wait_for_log("over after");
        assert!(!daemon.log_text().contains("bad request"));
    }
}

/// USR1 again and again, while its input is stuck and while it goes on, to a program that does not mind.
#[test]
fn the_client_in_python_sends_signals_among_its_input() {
    const LEN: u64 = 10_000_000;
    let Some(client) = PythonClient::new() else { return };
    let daemon = Daemon::start("-t 0");
    let gate = daemon.gate("gate");
    let argv = format!("narrow ignore USR1 ; out ready gate {} verify", gate.path());
    let mut running = client.start(&daemon, &steps(&argv));
    running.wait_for("ready");
    let (count, writer) = running.feed(Cursor::new(pattern(LEN)));
    wait_until_stuck(|| count.load(Ordering::Relaxed));
    running.signal(Signal::USR1);
    gate.open();
    for n in 1..=100 {
        eventually("more input", || count.load(Ordering::Relaxed) >= LEN / 100 * n || writer.is_finished());
        running.signal(Signal::USR1);
    }
    running.wait_for(&format!("ok {LEN}\n"));
    assert_eq!(running.end(), (0, String::new()));
    writer.join().unwrap().unwrap();
    daemon.wait_for_log("over after");
    assert!(!daemon.log_text().contains("bad request"));
}

/// The reader of its output is slow, and signals come while it writes. What write(2) left over was lost once.
#[test]
fn the_client_in_python_writes_all_of_the_output() {
    let Some(client) = PythonClient::new() else { return };
    let input = pattern(5_000_000);
    for is_non_blocking in [false, true] {
        let daemon = Daemon::start("-t 0");
        let (reader, writer) = std::io::pipe().unwrap();
        if is_non_blocking {
            rustix::fs::fcntl_setfl(&writer, OFlags::WRONLY | OFlags::NONBLOCK).unwrap();
        }
        let mut command = client.command(daemon.socket(), &steps("ignore USR1 ; out ready cat"));
        let mut running = Running(command.stdout(writer).spawn().unwrap());
        drop(command);
        running.0.stdout = Some(OwnedFd::from(reader).into());
        running.wait_for("ready");
        let (_, feeder) = running.feed(Cursor::new(input.clone()));
        wait_until_stuck(|| running.unread());
        for descriptor in 0..3 {
            assert_eq!(running.is_non_blocking(descriptor), is_non_blocking && descriptor == 1, "{descriptor}");
        }
        let mut output = Vec::new();
        for n in 0_u32.. {
            // The first in the middle of a write, the others wherever it is. It has much left to write.
            if n.is_multiple_of(50) && output.len() < input.len() / 2 {
                running.signal(Signal::USR1);
            }
            let bytes = running.read(1000);
            if bytes.is_empty() {
                break;
            }
            output.extend(bytes);
        }
        assert_eq!(running.end(), (0, String::new()));
        assert!(output == input, "{} of {} bytes", output.len(), input.len());
        feeder.join().unwrap().unwrap();
    }
}

/// A program that ignores INT and TERM could not be ended, and a daemon that is stopped could not either.
#[test]
fn the_client_in_python_can_be_stopped() {
    let Some(client) = PythonClient::new() else { return };
    for is_stopped in [false, true] {
        for (first, second, status) in [(Signal::INT, Signal::INT, 130), (Signal::TERM, Signal::INT, 130)] {
            let daemon = Daemon::start("-t 0 -k 0.1");
            let mut life = daemon.fifo("life");
            let argv = format!("ignore INT TERM ; hold {} out ready wait", life.path());
            let mut running = client.start(&daemon, &steps(&argv));
            running.wait_for("ready");
            if is_stopped {
                daemon.stop();
            }
            running.signal(first);
            if is_stopped {
                eventually("the signal was taken", || !Process::of(&running.0).has_pending(first));
            } else {
                daemon.wait_for_log(&format!("signal {} to the group", first.as_raw()));
                assert!(life.is_held());
            }
            running.signal(second);
            assert_eq!(running.end(), (status, String::new()));
            daemon.signal(Signal::CONT);
            life.wait_for_death();
        }
    }
}

/// A socket that is full takes no signal: one is enough.
#[test]
fn the_client_in_python_does_not_wait_for_a_full_socket() {
    let Some(client) = PythonClient::new() else { return };
    let (mut running, mut socket) = client.start_with_us(Stdio::piped());
    begin(&mut running, &mut socket, 1 << 30);
    let (count, writer) = running.feed(std::io::repeat(b'x'));
    wait_until_stuck(|| count.load(Ordering::Relaxed));
    running.signal(Signal::TERM);
    assert_eq!(running.end(), (143, String::new()));
    assert!(writer.join().expect("no panic").is_err());
}

/// If nobody reads its output any more it ends as a filter does, and the program with it.
#[test]
fn the_client_in_python_ends_with_the_reader_of_its_output() {
    let Some(client) = PythonClient::new() else { return };
    let daemon = Daemon::start("-t 0");
    let mut running = client.start(&daemon, &steps("flood"));
    running.read(1000);
    drop(running.0.stdout.take());
    assert_eq!(running.end(), (128 + 13, String::new()));
    daemon.wait_for_log("over after");
}

/// A process that feeds it for ever learns that the program has closed its input.
#[test]
fn the_client_in_python_stops_its_input() {
    let Some(client) = PythonClient::new() else { return };
    let daemon = Daemon::start("-t 0");
    let gate = daemon.gate("gate");
    let mut running = client.start(&daemon, &steps(&format!("out ready close 0 gate {} exit 6", gate.path())));
    running.wait_for("ready");
    let (_, writer) = running.feed(std::io::repeat(b'x'));
    eventually("the end of the writer", || writer.is_finished());
    assert_eq!(writer.join().unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
    gate.open();
    assert_eq!(running.end(), (6, String::new()));
    // What it reads later is not sent, nor is its end.
    let (mut running, mut socket) = client.start_with_us(Stdio::piped());
    begin(&mut running, &mut socket, 65_536);
    let mut stdin = running.0.stdin.take().expect("a pipe");
    stdin.write_all(b"one").unwrap();
    assert_eq!(pair(&mut socket), ("stdin".into(), b"one".into()));
    tell(&mut socket, "input-closed", "");
    tell(&mut socket, "stdout", "after");
    running.wait_for("after");
    eventually("a pipe that nobody reads", || stdin.write_all(b"two").is_err());
    running.signal(Signal::TERM);
    assert_eq!(pair(&mut socket), ("signal".into(), b"TERM".into()));
    tell(&mut socket, "exitcode", "0");
    assert_eq!(running.end(), (0, String::new()));
}

/// What is not documented by an example: that each option is told of as new, and that the fuzzers know it.
#[test]
fn every_option_is_in_the_changelog_and_the_dictionary() {
    let file = |path: &str| fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))).expect("a file");
    let (changes, dictionary) = (file("CHANGELOG.md"), file("fuzz/decode.dict"));
    for option in request::OPTIONS {
        let name = option.name;
        assert!(changes.contains(&format!("`{name}`")), "CHANGELOG.md does not have the option `{name}`");
        let word = format!(":{name}{}", if option.takes_value { "=" } else { "," });
        assert!(dictionary.contains(&word), "fuzz/decode.dict has no netstring of the option {name}");
    }
}

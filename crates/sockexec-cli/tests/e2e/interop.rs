//! Clients of other authors. The documents must be enough to write one.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::{Daemon, Reply, steps};

/// Whether the tool works here. If not, says so.
fn has(tool: &str, arguments: &[&str]) -> bool {
    let status = Command::new(tool).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let works = status.is_ok_and(|status| status.success());
    if !works {
        eprintln!("skipped: {tool} {} does not work here", arguments.join(" "));
    }
    works
}

fn feed(command: &mut Command, bytes: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the tool starts");
    child.stdin.take().expect("a pipe").write_all(bytes).expect("the tool reads");
    child.wait_with_output().expect("wait")
}

/// The one-liners of the manual. Without `-t` socat waits half a second for the answer, and then ends with 0.
#[test]
fn socat() {
    if !has("socat", &["-V"]) {
        return;
    }
    let daemon = Daemon::start("");
    let address = format!("UNIX-CONNECT:{}", daemon.socket().display());
    let ask = |bytes| feed(Command::new("socat").args(["-t", "60", "-", &address]), bytes);
    let output = ask(b"1:2,5:uname,2:-a,0:,");
    assert_eq!(Reply::parse(&output.stdout).code(), 0);
    // Without an empty netstring the half-close alone is the end of stdin. 3.1.1 did not know that.
    let output = ask(b"1:1,3:cat,5:hello,");
    let reply = Reply::parse(&output.stdout);
    assert_eq!((reply.stdout_text(), reply.code()), ("hello", 0));
}

#[test]
fn netcat() {
    let daemon = Daemon::start("");
    let help = Command::new("nc").arg("-h").output();
    let knows = |option: &str| {
        help.as_ref().is_ok_and(|help| {
            [&help.stdout, &help.stderr].iter().any(|it| String::from_utf8_lossy(it).contains(option))
        })
    };
    // Not every netcat can use UNIX sockets or shut down its sending side.
    if !knows("OpenBSD") {
        eprintln!("skipped: nc is missing or another one");
        return;
    }
    let output = feed(Command::new("nc").args(["-U", "-N"]).arg(daemon.socket()), b"1:2,5:uname,2:-a,0:,");
    assert_eq!(Reply::parse(&output.stdout).code(), 0);
}

/// pynetstring, an independent implementation of the framing: its encoder makes requests, and its
/// streaming decoder reads replies.
const PYTHON: &str = r#"
import socket, sys, pynetstring

def run(argv, stdin):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(60)
    client.connect(sys.argv[1])
    header = [str(len(argv)).encode(), *argv]
    client.sendall(b"".join(pynetstring.encode(header)))
    for chunk in stdin:
        client.sendall(pynetstring.encode(chunk))
    client.sendall(pynetstring.encode(b""))
    decoder, strings = pynetstring.Decoder(), []
    while True:
        data = client.recv(1000)
        if not data:
            break
        strings += decoder.feed(data)
    assert not decoder.pending() if hasattr(decoder, "pending") else True
    assert len(strings) % 2 == 0, strings
    pairs = list(zip(strings[::2], strings[1::2]))
    out = b"".join(p for t, p in pairs if t == b"stdout")
    err = b"".join(p for t, p in pairs if t == b"stderr")
    assert [t for t, _ in pairs if t in (b"exitcode", b"termsig")] == [pairs[-1][0]], pairs
    return out, err, pairs[-1]

fixture = sys.argv[2].encode()
out, err, end = run([b"uname", b"-a"], [])
assert out and not err and end == (b"exitcode", b"0"), (out, err, end)
out, err, end = run([fixture, b"cat", b"err", b"oops", b"exit", b"3"], [b"one ", b"two", b"\0\xff,:"])
assert (out, err, end) == (b"one two\0\xff,:", b"oops", (b"exitcode", b"3")), (out, err, end)
big = bytes(range(256)) * 12000
out, err, end = run([fixture, b"cat"], [big])
assert out == big and not err and end == (b"exitcode", b"0"), (len(out), err, end)
out, err, end = run([fixture, b"die", b"15"], [])
assert end == (b"termsig", b"15"), end
out, err, end = run([b"no-such-program"], [])
assert err.startswith(b"sockexec: no-such-program: ") and end == (b"exitcode", b"127"), (err, end)
print("well")
"#;

#[test]
fn pynetstring() {
    if !has("python3", &["-c", "import pynetstring"]) {
        return;
    }
    let daemon = Daemon::start("");
    let fixture = steps("").remove(0);
    let output = Command::new("python3")
        .args(["-c", PYTHON])
        .args([daemon.socket(), Path::new(&fixture)])
        .output()
        .expect("python3 starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "well\n", "{}", String::from_utf8_lossy(&output.stderr));
}

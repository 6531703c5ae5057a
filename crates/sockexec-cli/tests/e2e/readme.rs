//! The README: each command in it is run and says what it shows, each piece of code works. What cannot be run here is
//! in [`EXCEPTIONS`].

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::Daemon;

/// The beginning of a command or of a piece of code that is not run, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("sockexec /tmp/exec.sock", "the daemon itself: each test has its own, on its own socket"),
    ("cargo run --release -- /tmp/exec.sock", "the daemon itself, and a release build"),
    ("cargo test --workspace", "this very command"),
    ("cargo run --release --package sockexec --features daemon", ".ci/run runs it"),
    ("docker run", "needs Docker, and a host with systemd"),
    ("location /thumbnail", "needs OpenResty and lua-resty-exec"),
    ("# /etc/systemd/system/", "compared with packaging/systemd, by `the_units_are_the_packaged_ones`"),
];

fn file(path: &str) -> String {
    let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn is_exception(code: &str) -> bool {
    EXCEPTIONS.iter().any(|(beginning, _)| code.starts_with(beginning))
}

/// A piece of the README that is set as code: its language, `indented` or what follows the fence, and its text.
fn pieces() -> Vec<(String, String)> {
    let readme = file("README.md");
    let mut pieces: Vec<(String, String)> = Vec::new();
    let mut fenced = false;
    for line in readme.lines() {
        match line.strip_prefix("```") {
            Some(_) if fenced => fenced = false,
            Some(language) => {
                fenced = true;
                pieces.push((language.to_owned(), String::new()));
            }
            None if fenced => {
                let (_, text) = pieces.last_mut().expect("a piece");
                *text += line;
                *text += "\n";
            }
            None => {
                if let Some(command) = line.strip_prefix("    ") {
                    pieces.push(("indented".to_owned(), format!("{command}\n")));
                }
            }
        }
    }
    pieces
}

fn pieces_of(language: &str) -> Vec<String> {
    let pieces: Vec<String> = pieces().into_iter().filter(|(own, _)| own == language).map(|(_, text)| text).collect();
    assert!(!pieces.is_empty(), "the README has no code in {language}");
    pieces
}

/// The command in a shell that finds our programs, on this daemon; both of its outputs together.
fn shell(command: &str, daemon: &Daemon) -> String {
    let programs = Path::new(env!("CARGO_BIN_EXE_sockexec-client")).parent().expect("a directory").to_owned();
    let mut path = programs.into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let socket = daemon.socket().display().to_string();
    let script = format!("exec 2>&1\n{}", command.replace("/tmp/exec.sock", &socket));
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).env("PATH", path).stdin(Stdio::null()).current_dir(daemon.directory());
    let output = shell.output().expect("a shell");
    String::from_utf8_lossy(&output.stdout).replace(&socket, "/tmp/exec.sock")
}

fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let has = !matches!(found, Err(error) if error.kind() == io::ErrorKind::NotFound);
    if !has {
        eprintln!("SKIPPED: {tool} is not installed");
    }
    has
}

#[test]
fn commands_say_what_is_shown() {
    let daemon = Daemon::start("");
    let mut run = 0;
    for session in pieces_of("console") {
        let session = format!("\n{session}");
        for step in session.split("\n$ ").skip(1) {
            let (command, expected) = step.split_once('\n').unwrap_or((step, ""));
            if is_exception(command) || command.contains("nc -U") && !has("nc") {
                continue;
            }
            run += 1;
            assert_eq!(shell(command, &daemon).trim_end(), expected.trim_end(), "{command}");
        }
    }
    assert!(run >= 7, "only {run} commands were found");
}

/// What is not run is at least known: a new command needs a reason.
#[test]
fn what_is_not_run_has_a_reason() {
    for (language, text) in pieces() {
        let first = text.lines().next().unwrap_or_default();
        match language.as_str() {
            "console" | "python" | "rust" => {}
            "indented" | "sh" | "nginx" | "ini" => assert!(is_exception(first), "{language}: {first}"),
            _ => panic!("code in {language}, which no test knows: {first}"),
        }
    }
    let readme = file("README.md");
    for (beginning, _) in EXCEPTIONS {
        assert!(readme.contains(beginning), "an exception for what is not in the README: {beginning}");
    }
}

#[test]
fn the_python_application_answers() {
    if !has("python3") {
        return;
    }
    let daemon = Daemon::start("");
    let [code] = pieces_of("python").try_into().expect("one piece of Python");
    let code = code.replace("/run/sockexec/exec.sock", &daemon.socket().display().to_string());
    let check = "
path = 'SOCKET'
answer = []
body = application({}, lambda status, headers: answer.append(status))
print(answer, b''.join(body))
print(run(path, 'cat', stdin=b'x' * 100_000) == (0, b'x' * 100_000, b''))
print(run(path, 'sh', '-c', 'echo oops >&2; kill -TERM $$'))
print(run(path, 'no-such-program')[0])
# A daemon that goes away: the function went round for ever, and took all memory.
import threading
server = socket.socket(socket.AF_UNIX)
server.bind(path + '.cut')
server.listen()
def cut():
    connection = server.accept()[0]
    connection.recv(1000)
    connection.sendall(b'6:stdout,2:hi,')
    connection.close()
threading.Thread(target=cut).start()
try:
    run(path + '.cut', 'true')
except EOFError as error:
    print(error)
";
    let program = code + &check.replace("SOCKET", &daemon.socket().display().to_string());
    // A limit, so that a loop which takes memory is a failure and no trouble for the machine.
    let limited = ["-c", "ulimit -v 1000000; exec python3 -c \"$0\"", &program];
    let output = Command::new("sh").args(limited).output().expect("Python");
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = "['200 OK'] b'Linux\\n'\nTrue\n(-15, b'', b'oops\\n')\n127\nthe daemon closed the connection\n";
    assert_eq!(said, expected, "{}", String::from_utf8_lossy(&output.stderr));
}

/// The code of the README, but for the socket's path.
fn rust(socket: &Path) -> Result<(), sockexec::Error> {
    let output = sockexec::Command::new(socket, "uname").arg("-a").output()?;
    println!("{}: {}", output.status, String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[test]
fn the_rust_code_works() {
    rust(Daemon::start("").socket()).unwrap();
    let [code] = pieces_of("rust").try_into().expect("one piece of Rust");
    for line in code.replace("\"/tmp/exec.sock\"", "socket").lines() {
        assert!(include_str!("readme.rs").contains(line), "{line}");
    }
}

#[test]
fn the_units_are_the_packaged_ones() {
    for unit in pieces_of("ini") {
        let (name, settings) = unit.split_once('\n').expect("a comment first");
        let name = name.rsplit('/').next().expect("a file's name");
        let packaged = file(&format!("packaging/systemd/{name}"));
        for line in settings.lines().filter(|line| !line.is_empty()) {
            assert!(packaged.lines().any(|own| own.starts_with(line)), "{name}: {line}");
        }
    }
}

/// Every document that a file of the packages names is there: one was named that never was.
#[test]
fn the_packages_name_documents_that_exist() {
    fn named(directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                named(&path, found);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            let names = text.split("docs/").skip(1).filter_map(|rest| rest.split_once(".md"));
            found.extend(names.map(|(name, _)| format!("docs/{name}.md")));
        }
    }
    let mut found = vec!["README.md".to_owned()];
    named(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging")), &mut found);
    for document in found {
        file(&document);
    }
}

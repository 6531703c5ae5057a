//! The README and docs/operations.md: each command in them runs and prints what they show, and each
//! piece of code works. The document's list has a reason for what cannot run here.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::Daemon;

/// A document whose commands are tried.
struct Document {
    path: &'static str,
    /// Its socket. The socket of the test's daemon replaces it.
    socket: &'static str,
    /// The beginning of each command or piece of code that does not run, and why.
    exceptions: &'static [(&'static str, &'static str)],
    /// The least number of commands that run.
    least: usize,
}

const README: Document = Document {
    path: "README.md",
    socket: "/tmp/exec.sock",
    exceptions: &[
        ("sockexec /tmp/exec.sock", "the daemon itself: each test has its own, on its own socket"),
        ("cargo run --release -- /tmp/exec.sock", "the daemon itself, and a release build"),
        ("cargo test --workspace", "this very command"),
        ("cargo run --release --package sockexec --features daemon", ".ci/run runs it"),
        ("docker run", "needs Docker, and a printer"),
        ("location /thumbnail", "needs OpenResty and lua-resty-exec"),
        ("# /etc/systemd/system/", "compared with packaging/systemd, by `the_units_are_the_packaged_ones`"),
        ("// /etc/polkit-1/rules.d/", "needs polkit; `the_rule_for_polkit_grants_one_action` asks it"),
    ],
    least: 7,
};

const OPERATIONS: Document = Document {
    path: "docs/operations.md",
    socket: "/run/sockexec/exec.sock",
    exceptions: &[
        ("cargo build --release &&", "a release build; it installs into the system"),
        ("systemd-sysusers", "makes a user of the system"),
        ("usermod", "changes a user of the system"),
        ("install -m 644 packaging/systemd/", "installs into the system"),
        ("systemctl", "needs systemd as process 1"),
        ("SOCKEXEC_OPTIONS=", "a file that systemd reads"),
        ("cp -R packaging/s6/", "installs into the system; `units::s6` has the files"),
        ("s6-svwait", "needs the installed service; `units::s6::a_life_under_s6` does it"),
        ("s6-svc", "`units::s6::a_second_service_takes_over_under_s6` does it"),
        ("cp -R packaging/runit/", "installs into the system; `units::runit` has the files"),
        ("sv check", "needs the installed service; `units::runit::a_life_under_runit` does it"),
        ("sv once", "`units::runit::a_second_service_takes_over_under_runit` does it"),
        ("cp packaging/supervisor/", "installs into the system; `units::supervisor` has the file"),
        ("supervisorctl start", "`units::supervisor::a_second_program_takes_over_under_supervisor` does it"),
        ("journalctl", "needs systemd's journal"),
        ("kill -TERM", "PID stands for a number"),
        ("pkill", "would reach the daemons of other tests"),
    ],
    least: 12,
};

fn file(path: &str) -> String {
    let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl Document {
    fn is_exception(&self, code: &str) -> bool {
        self.exceptions.iter().any(|(beginning, _)| code.starts_with(beginning))
    }

    /// Its pieces of code: the language, `indented` or what follows the fence, and the text.
    fn pieces(&self) -> Vec<(String, String)> {
        let text = file(self.path);
        let mut pieces: Vec<(String, String)> = Vec::new();
        let mut fenced = false;
        for line in text.lines() {
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

    fn pieces_of(&self, language: &str) -> Vec<String> {
        let pieces = self.pieces().into_iter().filter(|(own, _)| own == language);
        let pieces: Vec<String> = pieces.map(|(_, text)| text).collect();
        assert!(!pieces.is_empty(), "{} has no code in {language}", self.path);
        pieces
    }

    /// The commands of its sessions, and what each prints.
    fn steps(&self) -> Vec<(String, String)> {
        let mut steps = Vec::new();
        for session in self.pieces_of("console") {
            for step in format!("\n{session}").split("\n$ ").skip(1) {
                let (command, expected) = step.split_once('\n').unwrap_or((step, ""));
                steps.push((command.to_owned(), expected.trim_end().to_owned()));
            }
        }
        steps
    }

    fn assert_commands_say_what_is_shown(&self) {
        let daemon = Daemon::start("");
        let mut run = 0;
        for (command, expected) in self.steps() {
            if self.is_exception(&command) || command.contains("nc -U") && !has("nc") {
                continue;
            }
            run += 1;
            let said = self.shell(&command, &daemon);
            assert!(is_like(said.trim_end(), &expected), "$ {command}\n{said}\nis not what is shown:\n{expected}");
        }
        assert!(run >= self.least, "only {run} commands were found in {}", self.path);
    }

    /// Every piece of code that does not run has a reason.
    fn assert_what_is_not_run_has_a_reason(&self) {
        for (language, text) in self.pieces() {
            let first = text.lines().next().unwrap_or_default();
            match language.as_str() {
                "console" | "python" | "rust" => {}
                "indented" | "sh" | "nginx" | "ini" | "js" => assert!(self.is_exception(first), "{language}: {first}"),
                _ => panic!("code in {language}, which no test knows: {first}"),
            }
        }
        let text = file(self.path);
        for (beginning, _) in self.exceptions {
            assert!(text.contains(beginning), "an exception for what is not in {}: {beginning}", self.path);
        }
    }

    /// Runs the command in a shell that finds our programs, on this daemon. Returns both outputs
    /// together.
    fn shell(&self, command: &str, daemon: &Daemon) -> String {
        let programs = Path::new(env!("CARGO_BIN_EXE_sockexec-client")).parent().expect("a directory").to_owned();
        let mut path = programs.into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let socket = daemon.socket().display().to_string();
        let script = format!("exec 2>&1\n{}", command.replace(self.socket, &socket));
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).env("PATH", path).stdin(Stdio::null()).current_dir(daemon.directory());
        let output = shell.output().expect("a shell");
        String::from_utf8_lossy(&output.stdout).replace(&socket, self.socket)
    }
}

/// Whether that was printed. `…` stands for anything, including several lines.
fn is_like(said: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = parts.next().and_then(|first| said.strip_prefix(first)) else { return false };
    let mut last = None;
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
        last = Some(part);
    }
    // The last part must be at the end, wherever it was found first.
    last.map_or(rest.is_empty(), |last| said.ends_with(last))
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
    README.assert_commands_say_what_is_shown();
}

#[test]
fn operations_say_what_is_shown() {
    OPERATIONS.assert_commands_say_what_is_shown();
}

#[test]
fn what_is_not_run_has_a_reason() {
    README.assert_what_is_not_run_has_a_reason();
    OPERATIONS.assert_what_is_not_run_has_a_reason();
}

#[test]
fn an_ellipsis_stands_for_anything() {
    for (said, expected, like) in [
        ("one", "one", true),
        ("one two", "one", false),
        ("one two three", "one … three", true),
        ("one two three four", "one … three", false),
        ("a x a", "…a", true),
        ("", "…", true),
        ("two", "one…", false),
    ] {
        assert_eq!(is_like(said, expected), like, "{said:?} as {expected:?}");
    }
}

#[test]
fn the_python_application_answers() {
    if !has("python3") {
        return;
    }
    let daemon = Daemon::start("");
    let [code] = README.pieces_of("python").try_into().expect("one piece of Python");
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
    // A limit makes a runaway loop fail instead of taking the machine's memory.
    let limited = ["-c", "ulimit -v 1000000; exec python3 -c \"$0\"", &program];
    let output = Command::new("sh").args(limited).output().expect("Python");
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = "['200 OK'] b'Linux\\n'\nTrue\n(-15, b'', b'oops\\n')\n127\nthe daemon closed the connection\n";
    assert_eq!(said, expected, "{}", String::from_utf8_lossy(&output.stderr));
}

/// The README's code, with another path of the socket.
fn rust(socket: &Path) -> Result<(), sockexec::Error> {
    let output = sockexec::Command::new(socket, "uname").arg("-a").output()?;
    println!("{}: {}", output.status, String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[test]
fn the_rust_code_works() {
    rust(Daemon::start("").socket()).unwrap();
    let [code] = README.pieces_of("rust").try_into().expect("one piece of Rust");
    for line in code.replace("\"/tmp/exec.sock\"", "socket").lines() {
        assert!(include_str!("readme.rs").contains(line), "{line}");
    }
}

#[test]
fn the_units_are_the_packaged_ones() {
    for unit in README.pieces_of("ini") {
        let (name, settings) = unit.split_once('\n').expect("a comment first");
        let name = name.rsplit('/').next().expect("a file's name");
        let packaged = file(&format!("packaging/systemd/{name}"));
        for line in settings.lines().filter(|line| !line.is_empty()) {
            assert!(packaged.lines().any(|own| own.starts_with(line)), "{name}: {line}");
        }
    }
}

/// node runs the rule in place of polkit's engine: it says yes to that action, and to no other.
#[test]
fn the_rule_for_polkit_grants_one_action() {
    if !has("node") {
        return;
    }
    let [rule] = README.pieces_of("js").try_into().expect("one rule");
    let program = format!(
        "
let rule;
const polkit = {{ addRule: (added) => {{ rule = added; }}, Result: {{ YES: 'yes', NO: 'no' }} }};
{rule}
const asked = (user, id, unit, verb) => rule({{ id, lookup: (name) => ({{ unit, verb }})[name] }}, {{ user }}) ?? 'not asked';
const id = 'org.freedesktop.systemd1.manage-units';
console.log(asked('sockexec', id, 'nginx.service', 'reload'));
console.log(asked('www-data', id, 'nginx.service', 'reload'));
console.log(asked('sockexec', 'org.freedesktop.systemd1.manage-unit-files', 'nginx.service', 'reload'));
console.log(asked('sockexec', id, 'ssh.service', 'reload'));
console.log(asked('sockexec', id, 'nginx.service', 'stop'));
"
    );
    let output = Command::new("node").args(["-e", &program]).output().expect("node");
    let said = String::from_utf8_lossy(&output.stdout);
    let no = "not asked\n".repeat(4);
    assert_eq!(said, format!("yes\n{no}"), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Every document that a file of a package names exists. One of them named a document that never
/// did.
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

//! `cargo xtask demo`: a terminal session with a real daemon, as docs/demo.svg, and its programs in `sockexec-top`, as docs/top.svg.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Result, context, workspace};

/// The commands that are typed. `$S` stands for the socket's path.
const STEPS: &[&str] = &[
    "printf '1:2,5:uname,2:-s,0:,' | nc -U -N $S",
    "echo 'some input' | sockexec-client $S tr a-z A-Z",
    "sockexec-client $S sh -c 'echo oops >&2; exit 3'; echo \"exit status $?\"",
    "sockexec-client -C /srv -e LANG=C --usage $S pwd",
    "sockexec-client $S no-such-program; echo \"exit status $?\"",
    "sockexec-client -n $S sleep 60 & sleep 1; sockexec-client --status $S; kill $!",
];

/// Programs for the picture of `sockexec-top`, which does not show how they start: one works, the others wait.
const PROGRAMS: &str = "{ yes | sockexec-client $S gzip -9 & \
    sockexec-client -n $S sh -c 'sleep 2600; echo done' & \
    sleep 9 | sockexec-client -C / $S cat & \
    sockexec-client -n $S tail -f /etc/passwd & } >/dev/null 2>&1; sleep 2";

/// The command for that picture. `COLUMNS` is [`WIDTH`].
const TOP: &str = "sockexec-top --once $S";

/// The path that the pictures show for the socket.
const SOCKET: &str = "/tmp/exec.sock";

/// Lines of a picture are cut to this width, in characters.
const WIDTH: usize = 108;

const FONT_SIZE: usize = 13;
const LINE_HEIGHT: usize = 18;
const MARGIN: usize = 14;

/// Runs the sessions, and draws them.
pub(crate) fn demo() -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .current_dir(workspace())
        .args(["build", "--package", "sockexec-cli", "--package", "sockexec-tools"])
        .status()?;
    if !built.success() {
        return Err("the programs do not build".into());
    }
    let directory = tempfile::Builder::new().prefix("sockexec-demo.").tempdir()?;
    let socket = directory.path().join("exec.sock");
    let programs = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), Into::into).join("debug");
    let mut daemon = Command::new(programs.join("sockexec")).arg(&socket).spawn().map_err(context("sockexec"))?;
    let pictures = pictures(&socket, &programs);
    // Our child, not reaped yet: no other process can have its number.
    let ended = Command::new("kill").arg(daemon.id().to_string()).status();
    daemon.wait()?;
    ended?;
    for (name, lines) in pictures? {
        let path = workspace().join("docs").join(name);
        fs::write(&path, picture(&lines)).map_err(context(path.display()))?;
    }
    Ok(())
}

/// The lines of each picture, by its name.
fn pictures(socket: &Path, programs: &Path) -> Result<[(&'static str, Vec<String>); 2]> {
    let session = session(socket, programs)?;
    // The programs end with the daemon. They do not hold the shell's standard output open.
    let mut lines = vec![format!("$ {}", TOP.replace("$S", SOCKET))];
    lines.extend(typed(&format!("{PROGRAMS}; exec 2>&1; {TOP}"), socket, programs)?);
    Ok([("demo.svg", session), ("top.svg", lines)])
}

/// What a terminal would show: lines that were typed begin with `$ `.
fn session(socket: &Path, programs: &Path) -> Result<Vec<String>> {
    // Wait until the daemon answers. It closes the connection of a client that sends nothing.
    let begun = std::time::Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(mut stream) => {
                stream.shutdown(std::net::Shutdown::Write)?;
                stream.read_to_end(&mut Vec::new())?;
                break;
            }
            Err(error) if begun.elapsed().as_secs() > 10 => return Err(context("the daemon")(error)),
            Err(_) => std::thread::yield_now(),
        }
    }
    let mut lines = Vec::new();
    for step in STEPS {
        lines.push(format!("$ {}", step.replace("$S", SOCKET)));
        lines.extend(typed(&format!("exec 2>&1; {step}"), socket, programs)?);
    }
    Ok(lines)
}

/// What a shell prints for this command.
fn typed(line: &str, socket: &Path, programs: &Path) -> Result<Vec<String>> {
    let mut path = programs.as_os_str().to_owned();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(line).env("S", socket).env("PATH", &path).env("COLUMNS", WIDTH.to_string());
    let output = shell.stdin(Stdio::null()).output().map_err(context("sh"))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn picture(lines: &[String]) -> String {
    // Wide enough for any fixed-width font: most letters are 0.6 times as wide as their size.
    let width = WIDTH * FONT_SIZE * 61 / 100 + 2 * MARGIN;
    let height = lines.len() * LINE_HEIGHT + 2 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"ui-monospace, monospace\" font-size=\"{FONT_SIZE}\" xml:space=\"preserve\">\n\
         <!-- Made by `cargo xtask demo`. -->\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#1d1f21\"/>\n"
    );
    for (index, line) in lines.iter().enumerate() {
        let y = MARGIN + index * LINE_HEIGHT + FONT_SIZE;
        let fill = if line.starts_with("$ ") { "#8abeb7" } else { "#c5c8c6" };
        let text: String = line.chars().take(WIDTH).collect();
        let _ = writeln!(svg, "<text x=\"{MARGIN}\" y=\"{y}\" fill=\"{fill}\">{}</text>", escaped(&text));
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_special_is_escaped_and_long_lines_are_cut() {
        let svg = picture(&["$ a <b> & c".to_owned(), "x".repeat(WIDTH + 1)]);
        assert!(svg.contains(">$ a &lt;b&gt; &amp; c</text>"));
        assert!(svg.contains(&"x".repeat(WIDTH)) && !svg.contains(&"x".repeat(WIDTH + 1)));
    }
}

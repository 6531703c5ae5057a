//! `packaging/systemd/sockexec-exporter.service`, as far as systemd's tools tell without a systemd that has booted the machine, and
//! the command line in it.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "tests, and what they share")]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use common::{PATIENCE, Running, bare};

const UNIT: &str = include_str!("../../../packaging/systemd/sockexec-exporter.service");
const DEFAULT: &str = include_str!("../../../packaging/debian/tools/default");
const EXPORTER: &str = env!("CARGO_BIN_EXE_sockexec-exporter");

/// The exposure that `systemd-analyze security` may find, times ten. It is 15 with systemd 252; other versions count differently.
const EXPOSURE: u32 = 20;

/// What `systemd-analyze` says of a unit with the program that was built, and whether it ended well. `None`: it is not installed.
fn analyze(arguments: &[&str], unit: &str) -> Option<(bool, String)> {
    let directory = tempfile::tempdir().unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/sockexec-exporter "));
    let program = fs::canonicalize(EXPORTER).unwrap();
    let path = directory.path().join("sockexec-exporter.service");
    fs::write(&path, unit.replace("/usr/bin/sockexec-exporter", program.to_str().expect("UTF-8"))).unwrap();
    let Ok(output) = Command::new("systemd-analyze").args(arguments).arg(path).output() else {
        eprintln!("SKIPPED: systemd-analyze is not installed");
        return None;
    };
    Some((output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()))
}

#[test]
fn the_unit_is_right() {
    let Some(said) = analyze(&["verify", "--man=no"], UNIT) else { return };
    assert_eq!(said, (true, String::new()));
    // It looks closely enough to be asked.
    let said = analyze(&["verify", "--man=no"], &UNIT.replace("Restart=on-failure", "Restart=often"));
    assert!(said.is_some_and(|(_, said)| said.contains("often")));
}

#[test]
fn the_service_is_hardened() {
    let threshold = format!("--threshold={EXPOSURE}");
    let arguments = ["security", "--offline=true", "--no-pager", &threshold];
    let Some((good, said)) = analyze(&arguments, UNIT) else { return };
    assert!(good, "{said}");
    let fewer = analyze(&arguments, &UNIT.replace("CapabilityBoundingSet=\n", ""));
    assert!(fewer.is_some_and(|(good, _)| !good));
}

/// The values of an option that may stand there more than once.
fn values<'a>(option: &str) -> impl Iterator<Item = &'a str> {
    UNIT.lines().filter_map(move |line| line.strip_prefix(option))
}

/// The command line serves, with the options and the socket that `/etc/default` gives it.
#[test]
fn the_command_line_serves() {
    // Both variables are those of the shipped file.
    for variable in ["SOCKEXEC_EXPORTER_OPTIONS", "SOCKEXEC_SOCKET"] {
        assert!(DEFAULT.contains(&format!("#{variable}=")), "{variable}");
    }
    let environment: Vec<_> = values("Environment=").collect();
    assert_eq!(environment, ["SOCKEXEC_SOCKET=/run/sockexec/exec.sock"]);
    let [line] = values("ExecStart=").collect::<Vec<_>>().try_into().expect("one command line");
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("/usr/bin/sockexec-exporter"));

    let daemon = Running::start();
    let mut command = bare(EXPORTER);
    for word in words {
        match word {
            "$SOCKEXEC_EXPORTER_OPTIONS" => command.args(["--listen", "127.0.0.1:0"]),
            word => command.arg(word),
        };
    }
    let mut exporter = command.env("SOCKEXEC_SOCKET", daemon.socket()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(exporter.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    let address = said.trim_end().strip_prefix("sockexec-exporter: listening on http://");
    let address = address.and_then(|rest| rest.strip_suffix("/metrics"));
    let answer = address.map(ask);
    let _ = exporter.kill();
    exporter.wait().unwrap();
    let answer = answer.unwrap_or_else(|| panic!("{said:?}")).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("sockexec_slots 100"), "{answer}");
}

fn ask(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

//! The servers under test. They listen on temporary sockets, and end when dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sockexec_proto::request::{END_OF_STDIN, END_OF_TAGGED_STDIN, encode_exec, encode_request};
use sockexec_proto::{Options, Version};
use tempfile::TempDir;

use super::contender::Contender;
use super::load::{Expected, Load};
use crate::{Result, context};

/// Connections that a server must take: the largest experiment has 1000 running programs.
const CONNECTIONS: &str = "1100";

/// Programs at a time of a server that is asked in version 2: the default. More would make the window for standard
/// input smaller, and version 2 runs fewer than 100.
const VERSION_2: &str = "100";

/// How long a server may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server, running.
#[derive(Debug)]
pub(crate) struct Server {
    contender: Contender,
    child: Child,
    directory: TempDir,
}

impl Server {
    /// Starts a contender and waits until it listens. `daemon` is the binary of contenders that speak the protocol. The
    /// others run only `argv`.
    pub(crate) fn start(contender: Contender, daemon: Option<&Path>, argv: &[String]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("sockexec-bench.").tempdir()?;
        let log = File::create(directory.path().join("log"))?;
        let child = command(contender, daemon, argv, &directory.path().join("sock"))?
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(context(contender.name()))?;
        let mut server = Self { contender, child, directory };
        server.wait_until_it_listens()?;
        Ok(server)
    }

    /// The contender that it is.
    pub(crate) const fn contender(&self) -> Contender {
        self.contender
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("sock")
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs `argv` again and again, `at_a_time` at a time.
    pub(crate) fn load(&self, argv: &[String], at_a_time: usize, time: Duration) -> Result<super::load::Outcome> {
        let netstrings = self.contender.speaks_netstrings();
        let version = self.contender.version();
        let request = if netstrings { request(version, argv) } else { Vec::new() };
        let reply = match version {
            Version::Two => Expected::Quiet,
            Version::One => Expected::Exactly(if netstrings { b"8:exitcode,1:0," } else { b"" }),
        };
        let load = Load { socket: &self.socket(), request: &request, reply, at_a_time, time };
        load.run().map_err(|error| self.blame(&error.to_string()).into())
    }

    /// An error with the server's name and the last lines of its log.
    pub(crate) fn blame(&self, error: &str) -> String {
        format!("{}: {error}{}", self.contender.name(), last_lines(&self.directory.path().join("log")))
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // Not by connecting: some would run their program, and its unread stream would disturb the measurement.
        while !listens(&self.socket())? {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.blame(&format!("ended at once, {status}")).into());
            }
            if Instant::now() > deadline {
                return Err(self.blame("does not listen").into());
            }
            // No event that all servers share shows that they listen.
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = end(&mut self.child) {
            say!("xtask: {}: cannot be ended: {error}\n", self.contender.name());
        }
    }
}

/// Ends a process by TERM, or by KILL if it takes too long, and waits for it.
pub(crate) fn end(child: &mut Child) -> Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    kill_process(Pid::from_child(child), Signal::TERM)?;
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The last lines of a program's log, to append to an error.
pub(crate) fn last_lines(log: &Path) -> String {
    let log = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(5));
    last.flat_map(|line| ["\n  it said: ", line]).collect()
}

/// Whether a process listens at `socket`: the kernel's list has the flag `SO_ACCEPTCON` there (proc(5)).
fn listens(socket: &Path) -> Result<bool> {
    let list = fs::read_to_string("/proc/net/unix").map_err(context("/proc/net/unix"))?;
    Ok(is_listed(&list, &socket.display().to_string()))
}

/// The columns are number, references, protocol, flags, type, state, inode and path.
fn is_listed(list: &str, socket: &str) -> bool {
    list.lines().any(|line| {
        let mut fields = line.split_whitespace();
        fields.nth(3) == Some("00010000") && fields.nth(3) == Some(socket)
    })
}

/// The part of a request that starts the program.
pub(crate) fn start(version: Version, argv: &[String]) -> Vec<u8> {
    let mut request = Vec::new();
    match version {
        Version::One => encode_exec(argv, &mut request),
        Version::Two => encode_request(&Options::default(), argv, &mut request),
    }
    request
}

/// What ends the program's standard input.
pub(crate) const fn end_of_stdin(version: Version) -> &'static [u8] {
    match version {
        Version::One => END_OF_STDIN,
        Version::Two => END_OF_TAGGED_STDIN,
    }
}

/// A whole request without input.
pub(crate) fn request(version: Version, argv: &[String]) -> Vec<u8> {
    let mut request = start(version, argv);
    request.extend_from_slice(end_of_stdin(version));
    request
}

fn command(contender: Contender, daemon: Option<&Path>, argv: &[String], socket: &Path) -> Result<Command> {
    Ok(match contender {
        Contender::Fast
        | Contender::Fast2
        | Contender::Clone
        | Contender::Fork
        | Contender::Other
        | Contender::Other2
        | Contender::Original => {
            let binary = daemon.ok_or_else(|| format!("{}: no binary", contender.name()))?;
            let mut command = Command::new(binary);
            let slots = if contender.version() == Version::Two { VERSION_2 } else { CONNECTIONS };
            command.args(["-m", slots, "-q", CONNECTIONS, "-t", "86400", "-k", "5"]).arg(socket);
            // Otherwise the environment decides, so that its ways can be compared.
            if matches!(contender, Contender::Clone | Contender::Fork) {
                command.env("SOCKEXEC_SPAWN", contender.name());
            }
            command
        }
        Contender::Socat => {
            let mut command = Command::new("socat");
            // By default it gives the other direction half a second after the end of one, and has a buffer of 8 KiB.
            command.args(["-t", "60", "-b", "65536"]);
            command.arg(format!("UNIX-LISTEN:{},fork,backlog={CONNECTIONS}", socket.display()));
            command.arg(format!("EXEC:{}", argv.join(" ")));
            command
        }
        Contender::S6 => {
            let mut command = Command::new("s6-ipcserver");
            command.args(["-c", CONNECTIONS, "-C", CONNECTIONS, "-b", CONNECTIONS]).arg(socket).args(argv);
            command
        }
        Contender::Bare | Contender::Bare2 | Contender::Pipe64K | Contender::Pipe1M | Contender::Ssh => {
            return Err(format!("{} does not listen on a UNIX socket", contender.name()).into());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_listed() {
        let list = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 19042 /tmp/a/sock\n\
                    0000000000000000: 00000003 00000000 00000000 0001 03 19043 /tmp/b/sock\n\
                    0000000000000000: 00000003 00000000 00000000 0001 03 19044\n";
        assert!(is_listed(list, "/tmp/a/sock"));
        assert!(!is_listed(list, "/tmp/b/sock"));
        assert!(!is_listed(list, "/tmp/a"));
        assert!(!is_listed("", "/tmp/a/sock"));
    }

    #[test]
    fn what_a_program_said_last_is_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "1\n2\n3\n4\n5\n6\n").unwrap();
        assert_eq!(last_lines(file.path()).matches("it said").count(), 5);
        assert!(last_lines(file.path()).ends_with("it said: 6"));
        assert_eq!(last_lines(Path::new("/nonexistent")), "");
    }
}

//! The servers under test: started on temporary sockets, ended when dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sockexec_proto::request::{END_OF_STDIN, encode_exec};
use tempfile::TempDir;

use super::contender::Contender;
use super::load::Load;
use super::{Result, context};

/// Connections that a server must take: the largest experiment has 1000 programs running.
const CONNECTIONS: &str = "1100";

/// How long a server may take until it serves, and until it has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server, running.
#[derive(Debug)]
pub(crate) struct Server {
    contender: Contender,
    child: Child,
    directory: TempDir,
}

impl Server {
    /// Starts a contender and waits until it has run `program` once. `daemon` is the binary of those that speak the
    /// protocol; the others run `program` and nothing else.
    pub(crate) fn start(contender: Contender, daemon: Option<&Path>, program: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("sockexec-bench.").tempdir()?;
        let log = File::create(directory.path().join("log"))?;
        let child = command(contender, daemon, program, &directory.path().join("sock"))?
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(context(contender.name()))?;
        let mut server = Self { contender, child, directory };
        server.wait_until_it_serves(program)?;
        Ok(server)
    }

    /// Who it is.
    pub(crate) const fn contender(&self) -> Contender {
        self.contender
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("sock")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs `program` again and again, `at_a_time` at a time.
    pub(crate) fn load(&self, program: &Path, at_a_time: usize, time: Duration) -> Result<super::load::Outcome> {
        let request = if self.contender.speaks_netstrings() {
            request(&[program.to_str().unwrap_or_default()])
        } else {
            Vec::new()
        };
        let reply: &[u8] = if self.contender.speaks_netstrings() { b"8:exitcode,1:0," } else { b"" };
        let load = Load { socket: &self.socket(), request: &request, reply, at_a_time, time };
        load.run().map_err(|error| self.blame(&error.to_string()).into())
    }

    /// An error with the server's name and the last that it said.
    pub(crate) fn blame(&self, error: &str) -> String {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let mut text = format!("{}: {error}", self.contender.name());
        let lines: Vec<_> = log.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(5)) {
            text.push_str("\n  it said: ");
            text.push_str(line);
        }
        text
    }

    fn wait_until_it_serves(&mut self, program: &Path) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.blame(&format!("ended at once, {status}")).into());
            }
            if Instant::now() > deadline {
                return Err(self.blame("does not listen").into());
            }
            // There is no event common to all servers that tells that they listen.
            thread::sleep(Duration::from_millis(5));
        }
        self.load(program, 1, Duration::ZERO).map(drop)
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            say!("xtask: {}: cannot be ended: {error}\n", self.contender.name());
        }
    }
}

/// A whole request without input.
pub(crate) fn request(argv: &[&str]) -> Vec<u8> {
    let mut request = Vec::new();
    encode_exec(argv, &mut request);
    request.extend_from_slice(END_OF_STDIN);
    request
}

fn command(contender: Contender, daemon: Option<&Path>, program: &Path, socket: &Path) -> Result<Command> {
    Ok(match contender {
        Contender::Fast | Contender::Portable | Contender::Original => {
            let binary = daemon.ok_or_else(|| format!("{}: no binary", contender.name()))?;
            let mut command = Command::new(binary);
            command.args(["-m", CONNECTIONS, "-q", CONNECTIONS, "-t", "86400", "-k", "5"]).arg(socket);
            command.env_remove("SOCKEXEC_SPAWN");
            if contender == Contender::Portable {
                command.env("SOCKEXEC_SPAWN", "portable");
            }
            command
        }
        Contender::Socat => {
            let mut command = Command::new("socat");
            command.arg(format!("UNIX-LISTEN:{},fork,backlog={CONNECTIONS}", socket.display()));
            command.arg(format!("EXEC:{}", program.display()));
            command
        }
        Contender::S6 => {
            let mut command = Command::new("s6-ipcserver");
            command.args(["-c", CONNECTIONS, "-C", CONNECTIONS, "-b", CONNECTIONS]).args([socket, program]);
            command
        }
        Contender::Bare | Contender::Bare2 | Contender::Pipe64K | Contender::Pipe1M => {
            return Err(format!("{} is no server", contender.name()).into());
        }
    })
}

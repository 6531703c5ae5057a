//! `ssh`, used to have programs run by another process: a server of our own on the loopback interface, and one
//! connection for all programs, which exists before the measurement.

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::contender::find;
use super::server::{end, last_lines};
use crate::{Result, context};

/// How long connecting may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The directory of the unprivileged half of Debian's sshd if root starts it. The service makes it at its start.
const EMPTY: &str = "/run/sshd";

/// A server and a connection to it. Keys, configurations and sockets are in a temporary directory. Files of the user
/// and of the system are neither read nor changed.
#[derive(Debug)]
pub(crate) struct Ssh {
    directory: TempDir,
    /// The server, then the process that holds the connection.
    children: Vec<Child>,
    empty: Option<PathBuf>,
}

impl Ssh {
    /// Starts both, and returns when programs can be run.
    pub(crate) fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("sockexec-bench.").tempdir()?;
        let mut ssh = Self { directory, children: Vec::new(), empty: None };
        ssh.connect().map_err(|error| format!("ssh: {error}{}", last_lines(&ssh.path("log"))))?;
        Ok(ssh)
    }

    /// The arguments of a client that runs `argv` and ends as it does. As always with ssh a shell starts it, so `argv`
    /// must not contain characters that are special to a shell.
    pub(crate) fn client(&self, argv: &[String]) -> Result<Vec<String>> {
        let configuration = self.path("client");
        let configuration = configuration.to_str().ok_or("a temporary directory that is not UTF-8")?;
        let client = ["ssh", "-F", configuration, "bench"].map(str::to_owned);
        Ok(client.into_iter().chain(argv.iter().cloned()).collect())
    }

    fn connect(&mut self) -> Result<()> {
        for key in ["host", "user"] {
            self.make_key(key)?;
        }
        // Free a moment ago. If another process takes it before sshd does, sshd fails, and ssh is left out.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        self.configure(port)?;
        if rustix::process::geteuid().is_root() && !Path::new(EMPTY).exists() {
            fs::create_dir(EMPTY).map_err(context(EMPTY))?;
            fs::set_permissions(EMPTY, Permissions::from_mode(0o755))?;
            self.empty = Some(EMPTY.into());
        }
        // By its full path: it executes itself again.
        let server = find("sshd").ok_or("sshd is not installed")?;
        let configuration = self.path("server");
        self.spawn(Command::new(server).args(["-D", "-e", "-f"]).arg(configuration))?;
        let deadline = Instant::now() + PATIENCE;
        self.until(deadline, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        let configuration = self.path("client");
        self.spawn(Command::new("ssh").arg("-F").arg(configuration).args(["-M", "-N", "bench"]))?;
        let control = self.path("control");
        self.until(deadline, || control.exists())
    }

    fn make_key(&self, name: &str) -> Result<()> {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(self.path(name));
        let status = command.stdin(Stdio::null()).status().map_err(context("ssh-keygen"))?;
        if status.success() { Ok(()) } else { Err(format!("ssh-keygen: {status}").into()) }
    }

    fn configure(&self, port: u16) -> Result<()> {
        let directory = self.directory.path().display();
        // HOME, because bash reads ~/.bashrc when sshd starts it, and the user's must not be measured.
        let server = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {directory}/host\nAuthorizedKeysFile {directory}/user.pub\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nPrintMotd no\nMaxSessions 1000\nLogLevel ERROR\n\
             SetEnv HOME={directory}\n"
        );
        let client = format!(
            "Host bench\nHostName 127.0.0.1\nPort {port}\nIdentityFile {directory}/user\nIdentitiesOnly yes\n\
             UserKnownHostsFile {directory}/known\nGlobalKnownHostsFile none\nStrictHostKeyChecking yes\nBatchMode yes\n\
             ControlPath {directory}/control\nLogLevel ERROR\n"
        );
        let key = fs::read_to_string(self.path("host.pub"))?;
        for (name, text) in [("server", server), ("client", client), ("known", format!("[127.0.0.1]:{port} {key}"))] {
            fs::write(self.path(name), text)?;
        }
        Ok(())
    }

    fn spawn(&mut self, command: &mut Command) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.path("log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        self.children.push(child.map_err(context(command.get_program().display()))?);
        Ok(())
    }

    /// Polls for a condition without an event, as long as all children live.
    fn until(&mut self, deadline: Instant, done: impl Fn() -> bool) -> Result<()> {
        while !done() {
            for child in &mut self.children {
                if let Some(status) = child.try_wait()? {
                    return Err(format!("ended at once, {status}").into());
                }
            }
            if Instant::now() > deadline {
                return Err("no connection".into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        // The connection first, which ends the server's process for it.
        for child in self.children.iter_mut().rev() {
            if let Err(error) = end(child) {
                say!("xtask: ssh: cannot be ended: {error}\n");
            }
        }
        if let Some(empty) = &self.empty {
            let _ = fs::remove_dir(empty);
        }
    }
}

//! The contenders: what is measured side by side.

use std::env;
use std::path::PathBuf;

use sockexec_proto::Version;

/// A contender, in the order of the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    /// A loop of `posix_spawn`, three pipes and wait; no server.
    Bare,
    /// Two such loops side by side.
    Bare2,
    /// The same producer or consumer through a pipe of 64 KiB; no server.
    Pipe64K,
    /// A pipe of 1 MiB.
    Pipe1M,
    /// Our daemon.
    Fast,
    /// Our daemon, asked in version 2 of the protocol.
    Fast2,
    /// Our daemon with `SOCKEXEC_SPAWN=clone`, its way if clone3 is refused.
    Clone,
    /// Our daemon with `SOCKEXEC_SPAWN=fork`.
    Fork,
    /// Another build of our daemon.
    Other,
    /// That build, asked in version 2.
    Other2,
    /// sockexec 3.1.1.
    Original,
    /// `socat UNIX-LISTEN:…,fork EXEC:…`
    Socat,
    /// `s6-ipcserver`
    S6,
    /// A `sshd` of our own on the loopback interface, and its client on one connection for all programs.
    Ssh,
}

impl Contender {
    /// All of them.
    pub(crate) const ALL: [Self; 14] = [
        Self::Bare,
        Self::Bare2,
        Self::Pipe64K,
        Self::Pipe1M,
        Self::Fast,
        Self::Fast2,
        Self::Clone,
        Self::Fork,
        Self::Other,
        Self::Other2,
        Self::Original,
        Self::Socat,
        Self::S6,
        Self::Ssh,
    ];

    /// The head of its column.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Bare2 => "bare2",
            Self::Pipe64K => "pipe 64K",
            Self::Pipe1M => "pipe 1M",
            Self::Fast => "fast",
            Self::Fast2 => "fast v2",
            Self::Clone => "clone",
            Self::Fork => "fork",
            Self::Other => "other",
            Self::Other2 => "other v2",
            Self::Original => "3.1.1",
            Self::Socat => "socat",
            Self::S6 => "s6-ipcserver",
            Self::Ssh => "ssh",
        }
    }

    /// Whether it takes requests, on a UNIX socket.
    pub(crate) const fn speaks_netstrings(self) -> bool {
        matches!(
            self,
            Self::Fast | Self::Fast2 | Self::Clone | Self::Fork | Self::Other | Self::Other2 | Self::Original
        )
    }

    /// The version of the protocol in which it is asked.
    pub(crate) const fn version(self) -> Version {
        match self {
            Self::Fast2 | Self::Other2 => Version::Two,
            _ => Version::One,
        }
    }

    /// Whether it runs the same program for every connection.
    pub(crate) const fn has_one_program(self) -> bool {
        matches!(self, Self::Socat | Self::S6)
    }

    /// Whether it sends the exit status last. 3.1.1 sends it as soon as the program has ended, even if it has not read
    /// all output.
    pub(crate) fn exit_is_last(self) -> bool {
        self != Self::Original
    }

    /// Whether it is another project's program.
    pub(crate) const fn is_peer(self) -> bool {
        matches!(self, Self::Original | Self::Socat | Self::S6 | Self::Ssh)
    }

    /// The commands that it needs.
    pub(crate) const fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Socat => &["socat"],
            Self::S6 => &["s6-ipcserver"],
            Self::Ssh => &["sshd", "ssh", "ssh-keygen"],
            _ => &[],
        }
    }
}

/// The contender of this name.
pub(crate) fn named(name: &str) -> Result<Contender, String> {
    Contender::ALL
        .into_iter()
        .find(|contender| contender.name() == name)
        .ok_or_else(|| format!("unknown contender; known are {}", Contender::ALL.map(Contender::name).join(", ")))
}

/// The path of `command`, from PATH or a directory of administrators' commands, which a user's PATH may lack.
pub(crate) fn find(command: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let administrators = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let candidate = |directory: PathBuf| directory.join(command);
    env::split_paths(&path).chain(administrators).map(candidate).find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_on_the_path() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-command-anywhere"), None);
    }
}

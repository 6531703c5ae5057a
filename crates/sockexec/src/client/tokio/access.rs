//! What was set on a command, and the blocking one that it is made of.

use std::ffi::OsStr;
use std::path::Path;

use super::Command;
use crate::client::{CommandArgs, CommandEnvs};

impl Command {
    /// As [`sockexec::Command::get_socket`](crate::Command::get_socket).
    #[must_use]
    pub fn get_socket(&self) -> &Path {
        self.0.get_socket()
    }

    /// As [`sockexec::Command::get_program`](crate::Command::get_program).
    #[must_use]
    pub fn get_program(&self) -> &OsStr {
        self.0.get_program()
    }

    /// As [`sockexec::Command::get_args`](crate::Command::get_args).
    #[must_use]
    pub fn get_args(&self) -> CommandArgs<'_> {
        self.0.get_args()
    }

    /// As [`sockexec::Command::get_envs`](crate::Command::get_envs).
    #[must_use]
    pub fn get_envs(&self) -> CommandEnvs<'_> {
        self.0.get_envs()
    }

    /// As [`sockexec::Command::get_current_dir`](crate::Command::get_current_dir).
    #[must_use]
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.0.get_current_dir()
    }
}

impl From<crate::Command> for Command {
    fn from(command: crate::Command) -> Self {
        Self(command, super::OnDrop::default())
    }
}

/// The setting of [`kill_on_drop`](Command::kill_on_drop) is lost.
impl From<Command> for crate::Command {
    fn from(command: Command) -> Self {
        command.0
    }
}

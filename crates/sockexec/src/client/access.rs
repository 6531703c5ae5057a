//! What was set on a command, as the standard library returns it.

use std::collections::{BTreeMap, btree_map};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::slice;

use sockexec_proto::request::EnvironmentChange;

use super::Command;

impl Command {
    /// The daemon's socket.
    #[must_use]
    pub fn get_socket(&self) -> &Path {
        &self.socket
    }

    /// The program.
    #[must_use]
    pub fn get_program(&self) -> &OsStr {
        self.argv.first().map(OsString::as_os_str).unwrap_or_default()
    }

    /// The arguments, without the program.
    #[must_use]
    pub fn get_args(&self) -> CommandArgs<'_> {
        CommandArgs(self.argv.get(1..).unwrap_or_default().iter())
    }

    /// The changes to the program's environment, by name: a value that is set, or `None` for a variable that
    /// is removed. [`env_clear`](Self::env_clear) removes the changes before it, and is not listed itself.
    #[must_use]
    pub fn get_envs(&self) -> CommandEnvs<'_> {
        let mut changes = BTreeMap::new();
        let mut is_cleared = false;
        for change in &self.options.environment {
            match change {
                EnvironmentChange::Set(name, value) => {
                    changes.insert(OsStr::from_bytes(name), Some(OsStr::from_bytes(value)));
                }
                EnvironmentChange::Unset(name) if is_cleared => {
                    changes.remove(OsStr::from_bytes(name));
                }
                EnvironmentChange::Unset(name) => {
                    changes.insert(OsStr::from_bytes(name), None);
                }
                EnvironmentChange::Clear => {
                    is_cleared = true;
                    changes.clear();
                }
            }
        }
        CommandEnvs(changes.into_iter())
    }

    /// The program's working directory, if it was [set](Self::current_dir).
    #[must_use]
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.options.directory.as_ref().map(|path| Path::new(OsStr::from_bytes(path.to_bytes())))
    }
}

/// The arguments of a [`Command`], as [`std::process::CommandArgs`]: see [`Command::get_args`].
#[derive(Clone)]
pub struct CommandArgs<'a>(slice::Iter<'a, OsString>);

impl<'a> Iterator for CommandArgs<'a> {
    type Item = &'a OsStr;

    fn next(&mut self) -> Option<&'a OsStr> {
        self.0.next().map(OsString::as_os_str)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for CommandArgs<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(OsString::as_os_str)
    }
}

impl ExactSizeIterator for CommandArgs<'_> {}

impl fmt::Debug for CommandArgs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// The changes of a [`Command`]'s environment, as [`std::process::CommandEnvs`]: see [`Command::get_envs`].
#[derive(Debug)]
pub struct CommandEnvs<'a>(btree_map::IntoIter<&'a OsStr, Option<&'a OsStr>>);

impl<'a> Iterator for CommandEnvs<'a> {
    type Item = (&'a OsStr, Option<&'a OsStr>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for CommandEnvs<'_> {}

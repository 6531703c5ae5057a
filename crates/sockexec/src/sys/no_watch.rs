//! Nothing here reports that a file loses its name, so the daemon must look.

use std::io;
use std::os::fd::RawFd;
use std::path::Path;

/// Does nothing.
#[derive(Debug)]
pub(crate) struct Watch;

#[expect(clippy::unused_self, reason = "the interface of the Linux one")]
impl Watch {
    /// # Errors
    /// Always.
    pub(crate) fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// # Errors
    /// Always.
    pub(crate) fn watch(&mut self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// There is nothing to register.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        None
    }

    /// Unknown here.
    pub(crate) fn was_moved(&self) -> bool {
        false
    }
}

//! Where no child that shares memory can be made: systems other than Linux, processors other than x86-64.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::process::Pid;

use crate::sys::spawn::{Failure, Program};

/// There is none.
#[derive(Debug)]
pub(crate) struct Outcome(Infallible);

impl Outcome {
    pub(crate) fn error(&self) -> Option<Failure> {
        match self.0 {}
    }

    pub(crate) fn has_left(&self) -> bool {
        match self.0 {}
    }

    #[expect(dead_code, reason = "there is no reserve that asks")]
    pub(crate) fn has_own_table(&self) -> bool {
        match self.0 {}
    }
}

/// What a child may be given beside its arguments and descriptors: read by nobody here.
#[derive(Debug, Default)]
#[expect(dead_code, reason = "there is no launcher that reads it")]
pub(crate) struct Extras {
    pub(crate) directory: Option<CString>,
    pub(crate) environment: Option<Vec<CString>>,
    pub(crate) terminal: bool,
    pub(crate) foreign: bool,
    pub(crate) shared: Option<SharedTable>,
}

/// There is none.
#[derive(Debug)]
pub(crate) struct SharedTable(Infallible);

/// There is none.
pub(crate) struct Launcher(Infallible);

impl Launcher {
    pub(crate) fn new(_environment: Vec<CString>, _ignored: u64) -> Option<Self> {
        None
    }

    pub(crate) fn is_full(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        match self.0 {}
    }

    pub(crate) fn launch(
        &mut self,
        _program: Program,
        _stdio: [BorrowedFd<'_>; 3],
        _extras: Extras,
    ) -> Result<(Pid, Arc<Outcome>), (io::Error, Program)> {
        match self.0 {}
    }

    pub(crate) fn collect(&mut self) {
        match self.0 {}
    }
}

//! What to execute, and why it was not executed.

use std::ffi::CString;
use std::io;

use sockexec_proto::request::Argv;

/// The longest name of a file, in bytes (limits.h, `NAME_MAX`).
const NAME_MAX: usize = 255;

/// The longest string that execve(2) takes, with its NUL, in bytes (`MAX_ARG_STRLEN` with pages of 4 KiB).
const MAX_ARG_STRLEN: usize = 128 << 10;

/// The program to execute.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its name and its arguments; never empty.
    pub(crate) argv: Argv,
    /// The PATH to search. `None`: the name is used as it is.
    pub(crate) path: Option<CString>,
}

impl Program {
    /// The program that `argv` names. It is searched for in the PATH that it gets.
    ///
    /// # Errors
    /// ENAMETOOLONG: no file can have such a name. E2BIG: no program can be given such a PATH. Both are found
    /// before there is a child, which would spend as much time on them as the client likes.
    pub(crate) fn new(argv: Argv, path: impl FnOnce() -> Vec<u8>) -> Result<Self, Failure> {
        let name = argv.first().ok_or(io::ErrorKind::InvalidInput)?.to_bytes();
        let refuse = |errno| Failure::Exec { error: io::Error::from_raw_os_error(errno), found: false };
        if name.is_empty() || name.contains(&b'/') {
            return Ok(Self { argv, path: None });
        }
        if name.len() > NAME_MAX {
            return Err(refuse(libc::ENAMETOOLONG));
        }
        let path = path();
        if "PATH=".len() + path.len() >= MAX_ARG_STRLEN {
            return Err(refuse(libc::E2BIG));
        }
        let path = CString::new(path).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self { argv, path: Some(path) })
    }
}

/// A program, and the state of its process before the exec.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) program: Program,
    /// The whole environment, `NAME=VALUE` each. `None`: the daemon's, as it was at its start.
    pub(crate) environment: Option<Vec<CString>>,
    /// The working directory. `None`: this process's.
    pub(crate) directory: Option<CString>,
    /// Descriptor 0 becomes the controlling terminal of a new session.
    pub(crate) terminal: bool,
    /// Others have these descriptors as well, so their flags are left alone.
    pub(crate) foreign: bool,
}

/// No child was made or, if the launch waits for the exec, none was executed.
#[derive(Debug)]
pub(crate) struct NotMade {
    pub(crate) failure: Failure,
    /// `Some`: the call that was tried is not permitted here, and will not be tried again; the next one may work.
    pub(crate) again: Option<Plan>,
}

/// Why a program was not started.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The system refused what the daemon needs: descriptors, a process, memory.
    Own(io::Error),
    /// The system refused a terminal.
    Terminal(io::Error),
    /// `chdir(2)` refused the directory.
    Directory(io::Error),
    /// `execve(2)` refused the program, or every file that it may stand for.
    Exec {
        error: io::Error,
        /// A file of its name exists all the same.
        found: bool,
    },
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Own(error)
    }
}

impl From<io::ErrorKind> for Failure {
    fn from(kind: io::ErrorKind) -> Self {
        io::Error::from(kind).into()
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

//! The search for a program, as execvp(3) does it.
//!
//! It runs in the child, by the child's rules: nothing here allocates, takes a lock or panics. So the name
//! and the PATH that a client chooses, up to a megabyte each, cost the daemon no memory and no time.

use std::ffi::{CStr, c_int};
use std::ops::ControlFlow;

/// The longest path that a system call takes on Linux, with its NUL, in bytes.
const PATH_MAX: usize = 4096;

/// Why no file could be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    /// The errno of execve(2) to report.
    pub(super) error: c_int,
    /// Whether a file of that name exists all the same. Looked for if the errno leaves that open: ENOENT may
    /// be about the interpreter of a script, EACCES about a directory that cannot be searched.
    pub(super) found: bool,
}

/// Tries the files that `name` may stand for. `exec` returns only on failure, with an errno, and so does
/// this. `exists` says whether there is such a file.
pub(super) fn execute(
    name: &CStr,
    path: Option<&CStr>,
    mut exec: impl FnMut(&CStr) -> c_int,
    mut exists: impl FnMut(&CStr) -> bool,
) -> Refused {
    let mut error = libc::ENOENT;
    let other = candidates(name, path, |file| match exec(file) {
        // Found, but it may not be executed. Another may follow; if none does, this error counts.
        libc::EACCES => {
            error = libc::EACCES;
            ControlFlow::Continue(())
        }
        next @ (libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT) => {
            if error != libc::EACCES {
                error = next;
            }
            ControlFlow::Continue(())
        }
        other => ControlFlow::Break(other),
    });
    if let ControlFlow::Break(error) = other {
        return Refused { error, found: true };
    }
    let in_doubt = matches!(error, libc::ENOENT | libc::EACCES);
    let is_there = |file: &CStr| if exists(file) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    Refused { error, found: in_doubt && candidates(name, path, is_there).is_break() }
}

/// Visits the files that `name` may stand for: the name itself or, with a PATH, one in each of its
/// directories, where an empty one is the working directory. A path that is too long for any system call is
/// skipped, as by execvp(3).
fn candidates<B>(name: &CStr, path: Option<&CStr>, mut visit: impl FnMut(&CStr) -> ControlFlow<B>) -> ControlFlow<B> {
    let Some(path) = path else { return visit(name) };
    let mut room = [0; PATH_MAX];
    for directory in path.to_bytes().split(|&byte| byte == b':') {
        let slash: &[u8] = if directory.last().is_none_or(|&last| last == b'/') { b"" } else { b"/" };
        if let Some(file) = join(&mut room, [directory, slash, name.to_bytes_with_nul()]) {
            visit(file)?;
        }
    }
    ControlFlow::Continue(())
}

/// Joins the parts, of which the last ends with a NUL; `None`: they do not fit.
fn join<'a>(room: &'a mut [u8], parts: [&[u8]; 3]) -> Option<&'a CStr> {
    let mut rest = &mut *room;
    for part in parts {
        let (here, behind) = rest.split_at_mut_checked(part.len())?;
        here.copy_from_slice(part);
        rest = behind;
    }
    CStr::from_bytes_until_nul(room).ok()
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    fn all(name: &CStr, path: Option<&CStr>) -> Vec<CString> {
        let mut all = Vec::new();
        let _ = candidates(name, path, |file| {
            all.push(file.to_owned());
            ControlFlow::<()>::Continue(())
        });
        all
    }

    #[test]
    fn a_name_is_looked_for_in_each_directory() {
        assert_eq!(all(c"true", Some(c"/bin:/usr/bin/::a")), [c"/bin/true", c"/usr/bin/true", c"true", c"a/true"]);
        assert_eq!(all(c"true", Some(c"")), [c"true"]);
        assert_eq!(all(c"a/true", None), [c"a/true"]);
    }

    #[test]
    fn what_is_too_long_is_left_out() {
        let directory = "a".repeat(PATH_MAX - "/true\0".len());
        let path = CString::new(format!("{directory}a:{directory}:/bin")).unwrap();
        assert_eq!(
            all(c"true", Some(&path)),
            [CString::new(format!("{directory}/true")).unwrap(), c"/bin/true".into()]
        );
    }

    /// The outcome if the files fail with these errors, in this order.
    fn refused(errors: &[c_int], there: usize) -> Refused {
        let path = CString::new((0..errors.len()).map(|n| n.to_string()).collect::<Vec<_>>().join(":")).unwrap();
        let number = |file: &CStr| file.to_str().unwrap().trim_end_matches("/x").parse::<usize>().unwrap();
        execute(c"x", Some(&path), |file| errors[number(file)], |file| number(file) == there)
    }

    #[test]
    fn the_error_that_counts() {
        const NOBODY: usize = 100;
        let error = |errors| refused(errors, NOBODY).error;
        assert_eq!(error(&[libc::ENOENT, libc::ENOTDIR]), libc::ENOTDIR);
        assert_eq!(error(&[libc::EACCES, libc::ENOENT]), libc::EACCES);
        assert_eq!(error(&[libc::ENOENT, libc::ENOEXEC, libc::EACCES]), libc::ENOEXEC);
    }

    #[test]
    fn whether_it_is_there() {
        assert!(refused(&[libc::ENOENT, libc::ENOENT], 1).found);
        assert!(!refused(&[libc::ENOENT, libc::EACCES], 2).found);
        assert!(refused(&[libc::EACCES, libc::ENOENT], 0).found);
    }
}

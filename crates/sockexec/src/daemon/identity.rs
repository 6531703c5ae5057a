//! Users and groups: who owns the socket file, and who the daemon becomes.

use std::fmt;
use std::str::FromStr;

use nix::unistd;

use super::Builder;
use crate::sys::user;

/// The owner of the socket file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// The user that the daemon becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
    /// All of its groups.
    groups: Vec<u32>,
}

/// Why a user or a group was not found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdentityError {
    /// It is not written as `USER`, `USER:GROUP` or, for an owner, `:GROUP`.
    Malformed(String),
    /// There is no such user.
    NoUser(String),
    /// There is no such group.
    NoGroup(String),
    /// The user is a number without a name, so its group must be given.
    GroupNeeded(u32),
    /// The users or groups of the system cannot be looked up: which, and why.
    Lookup(String, String),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text) => write!(f, "{text:?} must be USER or USER:GROUP"),
            Self::NoUser(name) => write!(f, "unknown user {name:?}; give a known name or a number"),
            Self::NoGroup(name) => write!(f, "unknown group {name:?}; give a known name or a number"),
            Self::GroupNeeded(uid) => {
                write!(f, "user {uid} has no name, so its group is not known; write {uid}:GROUP")
            }
            Self::Lookup(name, error) => write!(f, "{name:?} cannot be looked up: {error}"),
        }
    }
}

impl std::error::Error for IdentityError {}

/// `USER`, `USER:GROUP` or `:GROUP`, as for chown(1): names or numbers.
impl FromStr for Owner {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let (user, group) = halves(text)?;
        let uid = user.map(|user| find_user(user).map(|(uid, _)| uid)).transpose()?;
        Ok(Self { uid, gid: group.map(find_group).transpose()? })
    }
}

/// `USER` or `USER:GROUP`: names or numbers. Without a group it is the user's own. The user's further groups
/// are added.
impl FromStr for User {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let (user, group) = halves(text)?;
        let (uid, entry) = find_user(user.ok_or_else(|| IdentityError::Malformed(text.to_owned()))?)?;
        let gid = match (group, &entry) {
            (Some(group), _) => find_group(group)?,
            (None, Some(entry)) => entry.gid.as_raw(),
            (None, None) => return Err(IdentityError::GroupNeeded(uid)),
        };
        let groups = match entry {
            Some(entry) => groups_of(&entry.name, gid)?,
            None => vec![gid],
        };
        Ok(Self { uid, gid, groups })
    }
}

impl Owner {
    /// Whether this process may give its own file to that user and group: root may, others to themselves and their groups alone (chown(2)).
    pub(super) fn may_be_given(self) -> bool {
        let own = rustix::process::geteuid();
        let is_member = |gid: u32| {
            rustix::process::getegid().as_raw() == gid
                || rustix::process::getgroups().is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == gid))
        };
        own.is_root() || self.uid.is_none_or(|uid| uid == own.as_raw()) && self.gid.is_none_or(is_member)
    }
}

impl User {
    /// Why this process would keep rights of root, if it would.
    pub(super) fn would_keep_rights(&self) -> Option<std::io::Error> {
        if self.uid == 0 { None } else { user::would_keep_rights() }
    }

    /// Does the part of that which may be refused, and keeps root's rights.
    pub(super) fn begin_to_become_it(&self) -> std::io::Result<()> {
        user::begin_to_become(self.uid, self.gid, &self.groups)
    }

    /// Becomes it for good.
    pub(super) fn become_it(&self) -> std::io::Result<()> {
        user::become_user(self.uid, self.gid, &self.groups)
    }
}

/// The numbers, for people.
impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// The parts before and after the colon.
fn halves(text: &str) -> Result<(Option<&str>, Option<&str>), IdentityError> {
    let malformed = || IdentityError::Malformed(text.to_owned());
    match text.split_once(':') {
        _ if text.contains('\0') => Err(malformed()),
        None if text.is_empty() => Err(malformed()),
        None => Ok((Some(text), None)),
        Some((_, group)) if group.is_empty() || group.contains(':') => Err(malformed()),
        Some((user, group)) => Ok((Some(user).filter(|user| !user.is_empty()), Some(group))),
    }
}

/// A number that a user or a group can have; the last one means "none" to the kernel.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number| plain && number != u32::MAX)
}

fn find_user(text: &str) -> Result<(u32, Option<unistd::User>), IdentityError> {
    let lookup = |error: nix::Error| IdentityError::Lookup(text.to_owned(), error.desc().to_owned());
    // A name first, as POSIX requires for chown(1).
    if let Some(entry) = unistd::User::from_name(text).map_err(lookup)? {
        return Ok((entry.uid.as_raw(), Some(entry)));
    }
    let uid = number(text).ok_or_else(|| IdentityError::NoUser(text.to_owned()))?;
    Ok((uid, unistd::User::from_uid(uid.into()).map_err(lookup)?))
}

fn find_group(text: &str) -> Result<u32, IdentityError> {
    let lookup = |error: nix::Error| IdentityError::Lookup(text.to_owned(), error.desc().to_owned());
    match unistd::Group::from_name(text).map_err(lookup)? {
        Some(entry) => Ok(entry.gid.as_raw()),
        None => number(text).ok_or_else(|| IdentityError::NoGroup(text.to_owned())),
    }
}

#[cfg(not(target_vendor = "apple"))]
fn groups_of(name: &str, gid: u32) -> Result<Vec<u32>, IdentityError> {
    let malformed = |_| IdentityError::Malformed(name.to_owned());
    let lookup = |error: nix::Error| IdentityError::Lookup(name.to_owned(), error.desc().to_owned());
    let groups = unistd::getgrouplist(&std::ffi::CString::new(name).map_err(malformed)?, gid.into()).map_err(lookup)?;
    Ok(groups.into_iter().map(unistd::Gid::as_raw).collect())
}

/// On this system another service has the groups of a user.
#[cfg(target_vendor = "apple")]
fn groups_of(_name: &str, gid: u32) -> Result<Vec<u32>, IdentityError> {
    Ok(vec![gid])
}

impl Builder {
    /// The owner of the socket file. `None`: the user that makes it. Default `None`.
    #[must_use]
    pub fn owner(mut self, owner: Option<Owner>) -> Self {
        self.owner = owner;
        self
    }

    /// Becomes this user for good when [`Daemon::run`](super::Daemon::run) is called, after everything that
    /// needs root. This takes root. The whole process does it, with all its threads. Programs run as that
    /// user as well.
    ///
    /// The daemon can then no longer remove its socket, or make it again, if the directory is not the user's.
    /// It cannot make the socket again either if its [owner](Self::owner) is another. `HOME` and `USER` in the
    /// environment stay as they were. Default `None`.
    #[must_use]
    pub fn user(mut self, user: Option<User>) -> Self {
        self.user = user;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_written_as_for_chown() {
        assert_eq!("12:34".parse(), Ok(Owner { uid: Some(12), gid: Some(34) }));
        assert_eq!(":34".parse(), Ok(Owner { uid: None, gid: Some(34) }));
        assert_eq!("root".parse(), Ok(Owner { uid: Some(0), gid: None }));
        for text in ["", ":", "1:", "1:2:3", "a\0b"] {
            assert_eq!(text.parse::<Owner>(), Err(IdentityError::Malformed(text.to_owned())));
        }
        assert_eq!("no such".parse::<Owner>(), Err(IdentityError::NoUser("no such".to_owned())));
        assert_eq!("-1".parse::<Owner>(), Err(IdentityError::NoUser("-1".to_owned())));
        assert_eq!("4294967295".parse::<Owner>(), Err(IdentityError::NoUser("4294967295".to_owned())));
        assert_eq!("0:no such".parse::<Owner>(), Err(IdentityError::NoGroup("no such".to_owned())));
    }

    #[test]
    fn a_user_has_groups() {
        let root = "root".parse::<User>().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0));
        assert_eq!("3999999:7".parse(), Ok(User { uid: 3_999_999, gid: 7, groups: vec![7] }));
        assert_eq!("3999999".parse::<User>(), Err(IdentityError::GroupNeeded(3_999_999)));
        assert_eq!(":7".parse::<User>(), Err(IdentityError::Malformed(":7".to_owned())));
    }
}

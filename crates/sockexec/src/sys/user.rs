//! Becoming another user.

use std::io;

use nix::unistd::{self, Gid, Uid};

/// Whether this process may become another user. If the system does not say, root may.
#[cfg(target_os = "linux")]
pub(crate) fn may_change() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};

    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
    capabilities(None).map_or_else(|_| Uid::effective().is_root(), |sets| sets.effective.contains(needed))
}

/// Whether this process may become another user.
#[cfg(not(target_os = "linux"))]
pub(crate) fn may_change() -> bool {
    Uid::effective().is_root()
}

/// Why capabilities would stay with this process if it [became](become_user) a user other than root, if they
/// would. The kernel takes them only from a process that was root, and not even then if its securebits say so
/// (`cap_emulate_setxuid`).
///
/// Rejected: dropping them by capset(2), which changes the calling thread alone; the log may have its own.
#[cfg(target_os = "linux")]
pub(crate) fn would_keep_rights() -> Option<io::Error> {
    use rustix::thread::{CapabilitiesSecureBits, capabilities_secure_bits};

    let was_root =
        unistd::getresuid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved].contains(&Uid::from_raw(0)));
    if !was_root {
        return Some(rights_are_kept(
            "this process is not root's, so the kernel would leave it its capabilities, CAP_SETUID among them; start it as root",
        ));
    }
    let keeping = CapabilitiesSecureBits::NO_SETUID_FIXUP | CapabilitiesSecureBits::KEEP_CAPS;
    capabilities_secure_bits().is_ok_and(|bits| bits.intersects(keeping)).then(|| {
        rights_are_kept(
            "the kernel would leave this process root's capabilities, as its securebits have no_setuid_fixup or keep_caps; start it without them",
        )
    })
}

/// Other systems do not say so beforehand.
#[cfg(not(target_os = "linux"))]
pub(crate) const fn would_keep_rights() -> Option<io::Error> {
    None
}

fn rights_are_kept(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// Does every part of [`become_user`] that a system may refuse (an id that the user namespace lacks,
/// setgroups(2) in it). Root's rights stay until then, as the effective user does.
///
/// # Errors
/// Those of setgroups(2), setresgid(2) and setresuid(2).
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn begin_to_become(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    let (uid, gid, as_it_is) = (Uid::from_raw(uid), Gid::from_raw(gid), Uid::from_raw(u32::MAX));
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    unistd::setgroups(&groups)?;
    unistd::setresgid(gid, gid, gid)?;
    unistd::setresuid(uid, as_it_is, as_it_is)?;
    Ok(())
}

/// On this system no part of it can be done before the rest.
///
/// # Errors
/// None.
#[cfg(target_vendor = "apple")]
pub(crate) fn begin_to_become(_uid: u32, _gid: u32, _groups: &[u32]) -> io::Result<()> {
    Ok(())
}

/// Becomes this user, with this group and these supplementary groups, for good. All threads of this process
/// do.
///
/// # Errors
/// Those of setgroups(2), setresgid(2) and setresuid(2). `PermissionDenied`: there would be a way back.
pub(crate) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    // Root's session keyring may hold keys, which programs would get as well.
    #[cfg(target_os = "linux")]
    super::raw::leave_session_keyring();
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    set_ids(uid, gid, &groups)?;
    if uid.is_root() || !keeps_rights() {
        return Ok(());
    }
    Err(rights_are_kept("the system has left this process rights of root's"))
}

#[cfg(not(target_vendor = "apple"))]
fn set_ids(uid: Uid, gid: Gid, groups: &[Gid]) -> io::Result<()> {
    unistd::setgroups(groups)?;
    unistd::setresgid(gid, gid, gid)?;
    unistd::setresuid(uid, uid, uid)?;
    Ok(())
}

/// For root, each of these calls sets all three ids.
#[cfg(target_vendor = "apple")]
fn set_ids(uid: Uid, gid: Gid, _groups: &[Gid]) -> io::Result<()> {
    unistd::setgid(gid)?;
    unistd::setuid(uid)?;
    Ok(())
}

/// Whether this process still has any right of root.
#[cfg(target_os = "linux")]
fn keeps_rights() -> bool {
    use rustix::thread::capabilities;

    capabilities(None).is_ok_and(|sets| !sets.permitted.is_empty())
}

/// Whether this process can regain root's rights.
#[cfg(not(target_os = "linux"))]
fn keeps_rights() -> bool {
    unistd::setuid(Uid::from_raw(0)).is_ok()
}

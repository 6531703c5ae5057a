//! Pseudo-terminals.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, SpecialCodeIndex, Winsize};
use sockexec_proto::WindowSize;

/// Both ends of a new terminal of this size: ours, which does not block, and the program's. With `utf8` its
/// lines are UTF-8. Neither end is inherited or becomes the controlling terminal of this process.
///
/// # Errors
/// Those of `posix_openpt(3)`. Its EAGAIN (on Linux ENOSPC) becomes words, as it would look like a limit of
/// processes: `/proc/sys/kernel/pty/max` limits the number of terminals.
pub(crate) fn open(size: WindowSize, utf8: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    #[cfg(any(target_os = "linux", target_os = "freebsd"))]
    let flags = flags | OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags).map_err(|error| match error {
        Errno::AGAIN => io::Error::other("no terminal is left (kernel.pty.max)"),
        error => error.into(),
    })?;
    // Set again for systems whose openpt has no such flag.
    rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&ours, OFlags::RDWR | OFlags::NONBLOCK)?;
    rustix::pty::grantpt(&ours)?;
    rustix::pty::unlockpt(&ours)?;
    resize(&ours, size)?;
    let theirs = open_peer(&ours)?;
    if utf8 {
        edit_characters(&theirs)?;
    }
    Ok((ours, theirs))
}

/// Makes a backspace erase a whole character of UTF-8, not one byte of it (termios(3), `IUTF8`).
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn edit_characters(terminal: &OwnedFd) -> io::Result<()> {
    let mut modes = rustix::termios::tcgetattr(terminal)?;
    modes.input_modes |= rustix::termios::InputModes::IUTF8;
    Ok(rustix::termios::tcsetattr(terminal, rustix::termios::OptionalActions::Now, &modes)?)
}

/// This system has no such mode.
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn edit_characters(_: &OwnedFd) -> io::Result<()> {
    Ok(())
}

/// By ioctl (Linux 4.13), as the name may refer to another terminal if another devpts is mounted
/// (`ioctl_tty(2)`, `TIOCGPTPEER`).
#[cfg(target_os = "linux")]
fn open_peer(ours: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    rustix::pty::ioctl_tiocgptpeer(ours, flags).or_else(|_| open_peer_by_name(ours))
}

#[cfg(not(target_os = "linux"))]
fn open_peer(ours: &OwnedFd) -> io::Result<OwnedFd> {
    open_peer_by_name(ours)
}

fn open_peer_by_name(ours: &OwnedFd) -> io::Result<OwnedFd> {
    let name = rustix::pty::ptsname(ours, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(name, flags, rustix::fs::Mode::empty())?)
}

/// Gives the terminal a new size. If it differs, the kernel sends WINCH to the foreground group.
///
/// # Errors
/// Those of `TIOCSWINSZ` (`ioctl_tty(2)`).
pub(crate) fn resize(terminal: impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = Winsize { ws_col: size.columns, ws_row: size.rows, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// What a person would type to end the input: the terminal's VEOF, by default ^D. `None` if the terminal does
/// not edit lines (termios(3), `ICANON`).
pub(crate) fn end_of_input(terminal: impl AsFd) -> Option<u8> {
    let modes = rustix::termios::tcgetattr(terminal).ok()?;
    let eof = modes.special_codes[SpecialCodeIndex::VEOF];
    // 0 is _POSIX_VDISABLE on Linux, 255 on the BSDs.
    (modes.local_modes.contains(LocalModes::ICANON) && eof != 0 && eof != u8::MAX).then_some(eof)
}

/// The process group that the terminal's keys reach, if there is one.
pub(crate) fn foreground(terminal: impl AsFd) -> Option<Pid> {
    rustix::termios::tcgetpgrp(terminal).ok()
}

//! Moves bytes between descriptors and memory. How that is done is decided here alone.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, Shutdown};

use super::foreign::Foreign;

/// The most descriptors that one message can carry on Linux (unix(7), `SCM_MAX_FD`).
const MAX_DESCRIPTORS: usize = 253;

/// How much of what a client sends after its reply is dropped before its socket is closed, in bytes.
const FINAL_DRAIN: usize = 1 << 20;

/// The outcome of an attempt to move bytes without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// This many bytes, at least 1.
    Bytes(usize),
    /// No bytes: the descriptor must become ready first.
    WouldBlock,
    /// No bytes, ever again: end of file, or nobody at the other end.
    End,
}

/// Reads from a pipe. An error is not its end: there may be more in it.
pub(crate) fn read(pipe: impl AsFd, buffer: &mut [u8]) -> Result<Moved, Errno> {
    match retry_on_intr(|| rustix::io::read(pipe.as_fd(), &mut *buffer)) {
        Err(error) if error != Errno::AGAIN => Err(error),
        result => Ok(moved(result)),
    }
}

/// How many bytes are in a pipe now.
pub(crate) fn available(pipe: impl AsFd) -> usize {
    rustix::io::ioctl_fionread(pipe).ok().and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
}

/// Whether nobody has the other end any more.
pub(crate) fn is_hung_up(descriptor: impl AsFd) -> bool {
    events(descriptor).contains(PollFlags::HUP)
}

/// Whether nobody has the other end any more, and nothing is left to read.
pub(crate) fn is_at_its_end(descriptor: impl AsFd) -> bool {
    let events = events(descriptor);
    events.contains(PollFlags::HUP) && !events.contains(PollFlags::IN)
}

/// The current events: IN, HUP, ERR.
fn events(descriptor: impl AsFd) -> PollFlags {
    let mut descriptors = [PollFd::new(&descriptor, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match retry_on_intr(|| rustix::event::poll(&mut descriptors, Some(&at_once))) {
        Ok(_) => descriptors[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

/// Writes to a pipe. PIPE must be ignored, as Rust's runtime does. An error (Linux: ENOMEM, if no further
/// page is available) does not mean that nobody reads it any more.
pub(crate) fn write(pipe: impl AsFd, bytes: &[u8]) -> Result<Moved, Errno> {
    match retry_on_intr(|| rustix::io::write(pipe.as_fd(), bytes)) {
        Err(error) if error != Errno::AGAIN && error != Errno::PIPE => Err(error),
        result => Ok(moved(result)),
    }
}

/// The descriptors that came with bytes.
#[derive(Default)]
pub(crate) struct Passed {
    pub(crate) descriptors: Vec<Foreign>,
    /// Others came too, and the kernel could not give them to us: we have no more (`RLIMIT_NOFILE`), or a security
    /// module forbids it (recvmsg(2), `MSG_CTRUNC`). It does not say how many they were.
    pub(crate) lost: bool,
}

/// Reads from a socket, and adds the descriptors that came with the bytes to `passed`. Programs do not inherit
/// them.
///
/// Also used where no descriptors are wanted: with recv(2) the kernel would close them within the call, which
/// may wait ([`super::closer`]).
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8], passed: &mut Passed) -> Result<Moved, Errno> {
    #[cfg(not(target_vendor = "apple"))]
    let flags = RecvFlags::CMSG_CLOEXEC;
    #[cfg(target_vendor = "apple")]
    let flags = RecvFlags::empty();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        let buffers = &mut [IoSliceMut::new(&mut *buffer)];
        rustix::net::recvmsg(socket.as_fd(), buffers, &mut control, flags)
    });
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            passed.descriptors.extend(sent.map(Foreign::from));
        }
    }
    // The buffer has room for as many as one message can carry.
    passed.lost |= received.as_ref().is_ok_and(|message| message.flags.contains(ReturnFlags::CTRUNC));
    #[cfg(target_vendor = "apple")]
    for descriptor in &passed.descriptors {
        let _ = rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC);
    }
    let received = match received {
        // A filter of system calls refuses recvmsg. The bytes still arrive; the kernel closes descriptors
        // that came with them.
        Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => {
            retry_on_intr(|| rustix::net::recv(socket.as_fd(), &mut *buffer, RecvFlags::empty())).map(|(n, _)| n)
        }
        received => received.map(|message| message.bytes),
    };
    match received {
        // A reset is not end of file: the client is gone, and has not just finished sending.
        Err(error) if error != Errno::AGAIN => Err(error),
        result => Ok(moved(result)),
    }
}

/// Drops what has come on a socket that is about to be closed, and stops more from coming. True: closing it
/// waits for nothing. False: it holds more than is dropped at once, and perhaps descriptors.
///
/// Closing a socket with unread bytes resets the connection, and the client may lose the end of its reply
/// (unix(7) and tcp(7) alike).
pub(crate) fn drain(socket: impl AsFd) -> bool {
    let mut buffer = [0; 4096];
    let (mut dropped, mut tries) = (0, 0);
    while dropped < FINAL_DRAIN && tries < 3 {
        match receive(&socket, &mut buffer, &mut Passed::default()) {
            Ok(Moved::Bytes(n)) => dropped += n,
            Ok(Moved::End) => return true,
            Ok(Moved::WouldBlock) => {
                tries += 1;
                // Bytes that arrived between this and the close would be closed with it.
                let _ = rustix::net::shutdown(&socket, Shutdown::Read);
            }
            // A reset is reported once, and then the end.
            Err(_) => tries += 1,
        }
    }
    false
}

/// Frees the blocks of a part of a file, which then reads as zeroes.
///
/// # Errors
/// Those of fallocate(2): OPNOTSUPP where the file system cannot.
#[cfg(target_os = "linux")]
pub(crate) fn free(file: impl AsFd, at: u64, len: u64) -> Result<(), Errno> {
    use rustix::fs::FallocateFlags;

    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    retry_on_intr(|| rustix::fs::fallocate(file.as_fd(), flags, at, len))
}

/// Other systems have their own ways, or none.
#[cfg(not(target_os = "linux"))]
pub(crate) fn free(_file: impl AsFd, _at: u64, _len: u64) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// Writes to a socket. PIPE must be ignored here too: not every system has a flag against it.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8]) -> Moved {
    moved(retry_on_intr(|| rustix::net::send(socket.as_fd(), bytes, SendFlags::empty())))
}

fn moved(result: Result<usize, Errno>) -> Moved {
    match result {
        Ok(0) => Moved::End,
        Ok(n) => Moved::Bytes(n),
        Err(Errno::AGAIN) => Moved::WouldBlock,
        Err(_) => Moved::End,
    }
}

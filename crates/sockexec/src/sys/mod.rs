//! The system: spawning, signalling and waiting, sockets, the movement of bytes.
//!
//! Each file is one room behind a plain interface, so that a faster way of doing the same finds its
//! place there: [`spawn`] for starting programs, [`transfer`] for moving bytes. What only Linux has is
//! used here and nowhere else, with a portable way beside it.

pub(crate) mod group;
pub(crate) mod process;
#[expect(unsafe_code, reason = "system calls that no safe library wraps; each block argues its soundness")]
mod raw;
pub(crate) mod socket;
pub(crate) mod spawn;
pub(crate) mod transfer;

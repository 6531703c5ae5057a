//! The system: starting programs, signals and waiting, sockets, the movement of bytes.
//!
//! Each file covers one subject behind a plain interface, so that a faster way has its place: [`spawn`]
//! starts programs, [`transfer`] moves bytes, and [`splice`] moves many of them. What only Linux has is used
//! here and nowhere else, with a portable way beside it.

#[cfg(target_os = "linux")]
pub(crate) mod alarm;
#[cfg(not(target_os = "linux"))]
#[path = "no_alarm.rs"]
pub(crate) mod alarm;
pub(crate) mod closer;
pub(crate) mod foreign;
pub(crate) mod group;
pub(crate) mod kernel;
#[cfg(target_os = "linux")]
mod lookup;
pub(crate) mod process;
mod program;
#[expect(unsafe_code, reason = "system calls that no safe library wraps; each block argues its soundness")]
mod raw;
#[cfg(target_os = "linux")]
pub(crate) mod reserve;
#[cfg(not(target_os = "linux"))]
#[path = "no_reserve.rs"]
pub(crate) mod reserve;
pub(crate) mod session;
pub(crate) mod socket;
pub(crate) mod spawn;
#[cfg(target_os = "linux")]
pub(crate) mod splice;
#[cfg(not(target_os = "linux"))]
#[path = "no_splice.rs"]
pub(crate) mod splice;
pub(crate) mod terminal;
pub(crate) mod transfer;
pub(crate) mod user;
#[cfg(target_os = "linux")]
pub(crate) mod watch;
#[cfg(not(target_os = "linux"))]
#[path = "no_watch.rs"]
pub(crate) mod watch;

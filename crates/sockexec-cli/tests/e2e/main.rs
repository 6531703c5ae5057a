//! End-to-end tests: the built daemon on a real socket, with a test program of our own.
//!
//! This is one crate, so that it links once and its tests run side by side. Each test has its own
//! daemon and directory. No test sleeps and hopes: each waits for an event (a line of the log, the
//! end of a stream, the death of a process that held a FIFO open). Deadlines only make a fault fail
//! instead of hang.
//!
//! `SOCKEXEC_BINARY` names another build of the daemon for the suite. `SOCKEXEC_FILTER` names a
//! filter of system calls to put around it, from `filters`.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by panicking where that is not so"
)]

mod activation;
mod chatty;
mod client;
mod command_line;
mod common;
mod documented;
mod drain;
mod ends;
mod faults;
#[cfg(target_os = "linux")]
mod filters;
mod hang_ups;
mod hostile;
mod interop;
mod killed;
mod launch;
mod limits;
mod log;
#[path = "../fixture/pattern.rs"]
mod pattern;
mod pid_1;
mod place;
mod programs;
mod protocol;
mod readme;
mod restarts;
mod shutdown;
mod slots;
mod soak;
mod socket;
mod spool;
mod streams;
mod supervised;
mod units;
mod users;
mod version_2;
mod waiting;

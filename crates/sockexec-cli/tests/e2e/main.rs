//! The daemon, end to end: the built binary on a real socket, with a program of our own.
//!
//! One test crate, so that it is linked once and its tests run side by side; each test has its own
//! daemon and its own directory. Nothing here sleeps and hopes: a test waits for an event (a line of
//! the log, the end of a stream, the death of a process seen through a FIFO that it held open).
//! Deadlines are only there so that a fault fails and does not hang.
//!
//! `SOCKEXEC_BINARY` names another build of the daemon to run the suite against; `SOCKEXEC_FILTER` a filter of system calls
//! around it, by its name in `filters`.
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

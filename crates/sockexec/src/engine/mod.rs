//! One connection as a state machine: inputs go in, actions come out.
//!
//! Nothing here makes a system call, reads a clock or knows a descriptor. The driver of a [`Session`]
//! tells it what happened and when, then carries out the [`Action`]s that it asks for. Payloads never
//! pass through it: it says how many bytes may be moved, and frames them.
#![forbid(unsafe_code)]

pub(crate) use sockexec_proto::netstring::at_most;

mod answer;
mod io;
#[cfg(any(test, fuzzing))]
pub mod model;
mod session;
mod time;

pub(crate) use io::{Action, Backpressure, ExitStatus, Frame, Limits, StartError, StartErrorKind, Stay, Step};
pub(crate) use session::Session;
pub(crate) use time::Time;

/// How a version 1 client learns the signal that ended a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TermSig {
    /// Its number in decimal (`15`), which is what the published clients parse.
    #[default]
    Number,
    /// Its name without `SIG` (`TERM`), as sockexec 3.1.1 sends it.
    Name,
}

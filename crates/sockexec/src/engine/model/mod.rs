//! A world for a [`Session`](super::Session) to live in, and the laws that it has to keep there.
//!
//! The engine is pure, so everything around it can be played: a client that sends, reads, half-closes and goes
//! whenever it likes, a program with descendants that hold its output, the clock, the operator. [`World`] plays
//! all that, does the daemon's part as `daemon/connection.rs` does it, and holds every action and every turn
//! against `docs/protocol.md`, of which `law.rs` is a second telling that shares no code with the engine.
//!
//! It is written once and used three times:
//!
//! | who | where | what |
//! | --- | --- | --- |
//! | the search | `search.rs` | every state that can be reached with a small alphabet of [`Move`]s |
//! | the tests | `tests.rs` | random [`Plan`]s, and the fuzzer's corpus |
//! | the fuzzer | `fuzz/fuzz_targets/session.rs` | [`Plan`]s that are looked for by coverage |
//!
//! To extend it: what a client, a program or an operator can newly do is a [`Move`] (`case.rs`, and what it does to
//! the world in `world.rs`); a new action or input of the session is answered or given in `driver.rs`; what the
//! protocol promises about it goes into `law.rs`; and into the alphabet of `search.rs`.
//!
//! Compiled for this crate's own tests and with `--cfg fuzzing`, which cargo-fuzz sets; no part of the library.

mod case;
mod driver;
mod law;
#[cfg(test)]
mod search;
#[cfg(test)]
mod tests;
mod world;

use std::fmt;

pub use case::{Case, Choice, Ended, Move, Piece, Plan, Setup, Sizes, Start, To};
pub use world::World;

/// The session, or the world, did what must not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub(crate) String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the violation unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::engine::model::Violation(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;

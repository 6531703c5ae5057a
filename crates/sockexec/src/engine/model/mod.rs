//! A world for a [`Session`](super::Session) to live in, and the laws that it must keep there.
//!
//! The engine is pure, so a test can play everything around it: a client that sends, reads, half-closes
//! and goes at any time, a program with descendants that hold its output, the clock, the operator.
//! [`World`] plays all that and does the daemon's part, as `daemon/connection.rs` does it. It checks every
//! action and every turn against `docs/protocol.md`, which `law.rs` states a second time and without code
//! of the engine.
//!
//! It has three users:
//!
//! | user | where | what |
//! | --- | --- | --- |
//! | the search | `search.rs` | every state that can be reached with a small alphabet of [`Move`]s |
//! | the tests | `tests.rs` | random [`Plan`]s, and the fuzzer's corpus |
//! | the fuzzer | `fuzz/fuzz_targets/session.rs` | [`Plan`]s found by coverage |
//!
//! To extend it:
//!
//! - What a client, a program or an operator can newly do is a [`Move`] in `case.rs`. `world.rs` has what it
//!   does to the world, and the alphabets of `search.rs` need it.
//! - `driver.rs` carries out a new action of the session, or gives it a new input.
//! - What the protocol promises about it goes into `law.rs` or a file of `law/`.
//!
//! It is compiled for this crate's own tests and with `--cfg fuzzing`, which cargo-fuzz sets. It is not
//! part of the library.

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

/// The session, or the world, did something that must not happen.
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

//! Signals as both sides name them.

use alloc::vec::Vec;
use core::fmt;

use crate::number;
use crate::text::Text;

/// A signal, by its number or by its name without `SIG`. The system knows which names exist, and their
/// numbers.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Its number.
    Number(i32),
    /// Its name without `SIG` (`TERM`). Of all daemons only sockexec 3.1.1 sends it.
    Name(Vec<u8>),
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => f.debug_tuple("Number").field(number).finish(),
            Self::Name(name) => f.debug_tuple("Name").field(&Text(name)).finish(),
        }
    }
}

impl Signal {
    /// Reads a number above 0, or what may be a name.
    ///
    /// The names are those of 3.1.1's library: `TERM`, `RTMIN+1`, and `???` for an unknown signal. They
    /// do not begin with a digit or a sign, so a number that is out of range is not a name.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        match number::decimal(bytes) {
            Some(number) if number > 0 => Some(Self::Number(number)),
            Some(_) => None,
            None => is_name(bytes).then(|| Self::Name(bytes.to_vec())),
        }
    }
}

fn is_name(bytes: &[u8]) -> bool {
    let follows = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'?');
    bytes.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'?') && bytes.iter().all(follows)
}

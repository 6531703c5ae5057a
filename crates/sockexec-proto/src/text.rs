//! Bytes, shown to people.

use core::fmt;

/// Shows bytes as text in quotes, where `Debug` of a `Vec<u8>` shows numbers.
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

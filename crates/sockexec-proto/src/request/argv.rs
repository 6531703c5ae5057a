//! A program's name and its arguments, in one piece of memory.

use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt;

/// The program and its arguments: C strings, one behind the other in one buffer.
///
/// A request may have [`MAX_ARGUMENTS`](super::MAX_ARGUMENTS) of a byte each. As many strings of their own would take 40 bytes each and more, and a
/// call of the allocator.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Argv {
    /// Each ended by NUL, but for the rest, which is not complete.
    bytes: Vec<u8>,
    /// Up to here all are complete.
    complete: usize,
    count: usize,
}

impl Argv {
    /// None yet.
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), complete: 0, count: 0 }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first of them, the program.
    #[must_use]
    pub fn first(&self) -> Option<&CStr> {
        self.iter().next()
    }

    /// All of them.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.as_bytes())
    }

    /// All of them, each with the NUL at its end, and nothing between.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.complete).unwrap_or_default()
    }

    /// Appends to the one that is not complete.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        if self.bytes.capacity() - self.bytes.len() < bytes.len() {
            // A quarter more, where Vec would double it: many connections may have one each that does not go on.
            self.bytes.reserve_exact(bytes.len().max(self.bytes.len() / 4));
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The one that is not complete is.
    ///
    /// # Errors
    /// Where in it there is a NUL.
    pub(super) fn end(&mut self) -> Result<(), usize> {
        let current = self.bytes.get(self.complete..).unwrap_or_default();
        if let Some(nul) = current.iter().position(|&byte| byte == 0) {
            return Err(nul);
        }
        self.extend(&[0]);
        self.complete = self.bytes.len();
        self.count += 1;
        Ok(())
    }

    /// There is no more to come.
    pub(super) fn finish(&mut self) {
        self.bytes.shrink_to_fit();
    }
}

impl fmt::Debug for Argv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<S: AsRef<CStr>> FromIterator<S> for Argv {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut argv = Self::new();
        for string in strings {
            argv.bytes.extend_from_slice(string.as_ref().to_bytes_with_nul());
            argv.count += 1;
        }
        argv.complete = argv.bytes.len();
        argv
    }
}

impl<'a> IntoIterator for &'a Argv {
    type Item = &'a CStr;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// What [`Argv::iter`] returns.
#[derive(Debug, Clone)]
pub struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = &'a CStr;

    fn next(&mut self) -> Option<&'a CStr> {
        let string = CStr::from_bytes_until_nul(self.0).ok()?;
        self.0 = self.0.get(string.to_bytes_with_nul().len()..).unwrap_or_default();
        Some(string)
    }
}

//! A program's name and its arguments, in one piece of memory.

use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt;

/// The program and its arguments: C strings, one after the other in one buffer.
///
/// A request may have [`MAX_ARGUMENTS`](super::MAX_ARGUMENTS) of one byte each. As a string of its
/// own, each would take at least 40 bytes and an allocation.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Argv {
    /// Complete strings, each with its NUL, then as much as has arrived of the next one.
    bytes: Vec<u8>,
    /// How many of the bytes belong to complete strings.
    complete: usize,
    count: usize,
}

impl Argv {
    /// No strings.
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), complete: 0, count: 0 }
    }

    /// The number of strings.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no strings.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first string: the program.
    #[must_use]
    pub fn first(&self) -> Option<&CStr> {
        self.iter().next()
    }

    /// All strings.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.as_bytes())
    }

    /// All strings, each with its NUL, and nothing between them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.complete).unwrap_or_default()
    }

    /// Appends to the string that is not complete.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        if self.bytes.capacity() - self.bytes.len() < bytes.len() {
            // A quarter more; Vec would double. Many connections may each hold a request that never goes on.
            self.bytes.reserve_exact(bytes.len().max(self.bytes.len() / 4));
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Completes the current string.
    ///
    /// # Errors
    /// The place of a NUL byte in it.
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

    /// Gives back the memory that is not needed, as no more will come.
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

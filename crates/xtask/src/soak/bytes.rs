//! Bytes that both ends make from the same seed, so that neither must keep them for a comparison.

use std::io::{self, Read, Write};

use fastrand::Rng;

/// Bytes made at a time.
const BLOCK: usize = 64 << 10;

/// A stream of bytes, of which `left` are left.
pub(crate) struct Bytes {
    rng: Rng,
    block: Vec<u8>,
    at: usize,
    left: u64,
}

impl Bytes {
    /// The first `len` bytes of the stream that follows from `seed`.
    pub(crate) fn new(seed: u64, len: u64) -> Self {
        Self { rng: Rng::with_seed(seed), block: vec![0; BLOCK], at: BLOCK, left: len }
    }

    /// How many are left.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// The next bytes: at least one and at most `max`; empty at the end. Call [`Bytes::advance`] afterwards.
    pub(crate) fn peek(&mut self, max: usize) -> &[u8] {
        if self.at == BLOCK && self.left > 0 {
            self.rng.fill(&mut self.block);
            self.at = 0;
        }
        let len = max.min(BLOCK - self.at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.block.get(self.at..self.at + len).unwrap_or_default()
    }

    /// Moves on by `n` of the bytes from [`Bytes::peek`].
    pub(crate) fn advance(&mut self, n: usize) {
        self.at += n;
        self.left -= n as u64;
    }

    /// Whether `data` comes next. Moves on as far as it does.
    pub(crate) fn check(&mut self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            let expected = self.peek(data.len());
            let n = expected.len();
            if n == 0 || data.get(..n) != Some(expected) {
                return false;
            }
            self.advance(n);
            data = data.get(n..).unwrap_or_default();
        }
        true
    }

    /// Writes all that is left.
    pub(crate) fn write_to(&mut self, mut out: impl Write) -> io::Result<()> {
        while self.left > 0 {
            let n = out.write(self.peek(BLOCK))?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.advance(n);
        }
        Ok(())
    }

    /// Reads to the end of `input`. Returns whether it was exactly what is left.
    pub(crate) fn read_from(&mut self, mut input: impl Read) -> io::Result<bool> {
        let mut buffer = vec![0; BLOCK];
        loop {
            match input.read(&mut buffer)? {
                0 => return Ok(self.left == 0),
                n if !self.check(buffer.get(..n).unwrap_or_default()) => return Ok(false),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_shows_and_so_does_a_missing_byte() {
        for len in [0, 1, 65_535, 65_536, 65_537, 200_000] {
            let mut bytes = Vec::new();
            Bytes::new(7, len).write_to(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, len);
            assert!(Bytes::new(7, len).read_from(&bytes[..]).unwrap());
            assert!(!Bytes::new(7, len + 1).read_from(&bytes[..]).unwrap());
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
                assert!(!Bytes::new(7, len).read_from(&bytes[..]).unwrap());
                assert!(!Bytes::new(7, len - 1).read_from(&bytes[..]).unwrap());
            }
        }
    }
}

//! Pairs of a tag and a payload. Replies consist of them; so does, in version 2, what a client sends
//! after the arguments.

use alloc::vec::Vec;

use crate::netstring;

/// The longest [`Header`]: `6:stdout,` and the head of a netstring.
pub const MAX_HEADER: usize = 9 + netstring::MAX_HEADER + 1;

/// What precedes a payload that is streamed, such as `6:stdout,LEN:`, without an allocation.
/// The payload and [`netstring::TERMINATOR`] follow.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    bytes: [u8; MAX_HEADER],
    len: u8,
}

impl Header {
    /// The tag as a netstring, at most 9 bytes, and the head of a payload of `len` bytes.
    pub(crate) fn with_tag(tag: &[u8], len: u64) -> Self {
        let length = netstring::Header::new(len);
        let mut bytes = [0; MAX_HEADER];
        let mut used = 0_u8;
        for (slot, &byte) in bytes.iter_mut().zip(tag.iter().chain(length.as_bytes())) {
            *slot = byte;
            used += 1;
        }
        Self { bytes, len: used }
    }

    /// The bytes to send.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Returns how many bytes at the front of `bytes` are whole pairs: as many as fit in `max` bytes, and
/// the first one whatever its size. 0 if the first one is not complete.
#[must_use]
pub fn whole_pairs(bytes: &[u8], max: usize) -> usize {
    let mut end = 0;
    loop {
        let rest = bytes.get(end..).unwrap_or_default();
        let Some(tag) = netstring::complete_len(rest) else { return end };
        let Some(payload) = netstring::complete_len(rest.get(tag..).unwrap_or_default()) else { return end };
        let next = end + tag + payload;
        if end > 0 && next > max {
            return end;
        }
        end = next;
    }
}

/// Appends a whole pair.
pub fn encode_pair(tag: &str, payload: &[u8], out: &mut Vec<u8>) {
    netstring::encode(tag.as_bytes(), out);
    netstring::encode(payload, out);
}

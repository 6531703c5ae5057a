//! The buffer for bytes that are copied.

use crate::engine::Frame;

/// How much of a request is read at once.
pub(crate) const CHUNK: usize = 64 << 10;

/// The one buffer of the daemon into which everything is read. It has room for a frame's head, a chunk and a
/// frame's tail, so that a framed chunk can be sent as it is.
#[derive(Debug)]
pub(crate) struct Scratch(Box<[u8]>);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(vec![0; Frame::MAX_HEAD + CHUNK + 1].into_boxed_slice())
    }

    pub(crate) fn chunk(&mut self) -> &mut [u8] {
        self.0.get_mut(Frame::MAX_HEAD..Frame::MAX_HEAD + CHUNK).unwrap_or_default()
    }

    /// The part of the chunk that goes into one frame.
    pub(crate) fn payload(&mut self) -> &mut [u8] {
        self.chunk().get_mut(..Frame::MAX_PAYLOAD).unwrap_or_default()
    }

    /// Puts `frame` around the first `len` bytes of the chunk.
    pub(crate) fn framed(&mut self, frame: &Frame, len: usize) -> &[u8] {
        let head = frame.head();
        let start = Frame::MAX_HEAD - head.len();
        let end = Frame::MAX_HEAD + len;
        if let Some(place) = self.0.get_mut(start..Frame::MAX_HEAD) {
            place.copy_from_slice(head);
        }
        if let Some(place) = self.0.get_mut(end) {
            *place = Frame::TAIL;
        }
        self.0.get(start..=end).unwrap_or_default()
    }
}

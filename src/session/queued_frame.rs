//! Encoded frames that wait outside of the send buffer.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::config::ZERO_COPY_BYTES_MIN;
use crate::wire::FrameSink;

/// Bytes of one frame, or its unsent rest. Large parts are kept by handle.
#[derive(Debug, Default)]
pub(super) struct QueuedFrame {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    remaining: usize,
}

impl QueuedFrame {
    /// Encodes a frame with `put`, which returns its length.
    pub(super) fn of(put: impl FnOnce(&mut Self) -> usize) -> Self {
        let mut frame = Self::default();
        let frame_bytes = put(&mut frame);
        debug_assert_eq!(frame.remaining, frame_bytes, "a frame says how long it is");
        frame.seal();
        frame
    }

    /// Number of bytes left.
    pub(super) fn len(&self) -> usize {
        self.remaining
    }

    /// Writes at most `count` of the next bytes into `out`.
    pub(super) fn write_to(&mut self, mut count: usize, out: &mut impl FrameSink) {
        count = count.min(self.remaining);
        self.remaining -= count;
        while count > 0 {
            let mut piece = self.pieces.pop_front().expect("the pieces make up the remaining bytes");
            if piece.len() > count {
                // Splitting a handle shares the bytes, so a large payload is never copied into its
                // chunks.
                self.pieces.push_front(piece.split_off(count));
            }
            count -= piece.len();
            out.put_bytes(&piece);
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }
}

impl FrameSink for QueuedFrame {
    fn put_slice(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.remaining += bytes.len();
    }

    fn put_bytes(&mut self, bytes: &Bytes) {
        if bytes.len() < ZERO_COPY_BYTES_MIN {
            return self.put_slice(bytes);
        }
        self.seal();
        self.pieces.push_back(bytes.clone());
        self.remaining += bytes.len();
    }
}

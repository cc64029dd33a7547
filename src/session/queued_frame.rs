//! A frame that is written down apart, because it cannot go out at once.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::config::ZERO_COPY_BYTES_MIN;
use crate::wire::FrameSink;

/// The bytes of one frame, or what is left of it. Large parts are kept by handle.
#[derive(Debug, Default)]
pub(super) struct QueuedFrame {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    remaining: usize,
}

impl QueuedFrame {
    /// The frame that `put` writes.
    pub(super) fn of(put: impl FnOnce(&mut Self) -> usize) -> Self {
        let mut parcel = Self::default();
        let frame_bytes = put(&mut parcel);
        debug_assert_eq!(parcel.remaining, frame_bytes, "a frame says how long it is");
        parcel.seal();
        parcel
    }

    /// How many bytes are left.
    pub(super) fn len(&self) -> usize {
        self.remaining
    }

    /// Writes the next bytes, up to `count`, into `out`; and says how many.
    pub(super) fn write_to(&mut self, mut count: usize, out: &mut impl FrameSink) {
        count = count.min(self.remaining);
        self.remaining -= count;
        while count > 0 {
            let mut piece = self.pieces.pop_front().expect("the pieces make up the remaining bytes");
            if piece.len() > count {
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

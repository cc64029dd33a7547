//! Bytes between a session and its socket.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Bytes that a writer has taken from a session and not written yet.
///
/// The session shares the bytes and retains them until the peer acknowledges them: nothing is
/// copied. As a [`Buf`] a batch can be written with vectored I/O.
#[derive(Debug, Default)]
pub struct WriteBatch {
    pieces: VecDeque<Bytes>,
    remaining: usize,
}

impl WriteBatch {
    /// Drops the unwritten bytes.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.remaining = 0;
    }

    pub(crate) fn push(&mut self, piece: Bytes) {
        self.remaining += piece.len();
        self.pieces.push_back(piece);
    }
}

impl Buf for WriteBatch {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        // As many pieces as there are slices: the rest goes out with the next write.
        let filled = slices.iter_mut().zip(&self.pieces);
        filled.map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    /// # Panics
    ///
    /// When fewer than `count` bytes remain.
    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advanced by {count} of {} bytes", self.remaining);
        self.remaining -= count;
        while count > 0 {
            let front = self.pieces.front_mut().expect("the pieces make up the remaining bytes");
            if front.len() > count {
                return front.advance(count);
            }
            count -= front.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(property_tests::cases(64))]

        #[test]
        fn batch_yields_its_bytes_in_order_with_any_write_sizes(
            lengths in proptest::collection::vec(1_usize..30, 0..9),
            steps in proptest::collection::vec(1_usize..40, 1..9),
        ) {
            let (mut batch, mut bytes) = (WriteBatch::default(), Vec::new());
            for (at, length) in lengths.into_iter().enumerate() {
                let piece: Vec<u8> = (0..length).map(|byte| (byte + at) as u8).collect();
                bytes.extend_from_slice(&piece);
                batch.push(piece.into());
            }
            let mut written = Vec::new();
            for step in steps.iter().cycle() {
                let mut slices = [IoSlice::new(&[]); 16];
                let filled = batch.chunks_vectored(&mut slices);
                let rest: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                prop_assert_eq!(&rest[..], &bytes[written.len()..]);
                prop_assert!(rest.starts_with(batch.chunk()));
                if !batch.has_remaining() {
                    break;
                }
                let step = (*step).min(rest.len());
                written.extend_from_slice(&rest[..step]);
                batch.advance(step);
            }
            prop_assert_eq!(written, bytes);
        }
    }
}

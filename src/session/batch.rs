//! Bytes on their way to the socket.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::config::{COPIED_BYTES_MAX, SCRATCH_BYTES_KEPT};
use crate::wire::FrameSink;

/// Whole frames to be written in order; the writer's side of a session's queue.
///
/// Small parts lie one behind the other in one buffer, large ones where they were. As a [`Buf`]
/// it can be written vectored; an empty one keeps its memory for the next frames.
#[derive(Debug, Default)]
pub struct Batch {
    segments: VecDeque<Segment>,
    small: Vec<u8>,
    /// How many bytes of `small` are written.
    small_written: usize,
    remaining: usize,
}

#[derive(Debug)]
enum Segment {
    /// So many of the next bytes of `small`.
    Small(usize),
    Large(Bytes),
}

impl Batch {
    /// Drops what is not written.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.remaining = 0;
        self.reuse_small();
    }

    /// Makes `small` empty, and gives its memory back if one burst made it large.
    fn reuse_small(&mut self) {
        self.small_written = 0;
        self.small.clear();
        self.small.shrink_to(SCRATCH_BYTES_KEPT);
    }
}

impl FrameSink for Batch {
    fn put_slice(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.small.extend_from_slice(bytes);
        self.remaining += bytes.len();
        match self.segments.back_mut() {
            Some(Segment::Small(length)) => *length += bytes.len(),
            _ => self.segments.push_back(Segment::Small(bytes.len())),
        }
    }

    fn put_bytes(&mut self, bytes: &Bytes) {
        if bytes.len() < COPIED_BYTES_MAX {
            return self.put_slice(bytes);
        }
        self.segments.push_back(Segment::Large(bytes.clone()));
        self.remaining += bytes.len();
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        match self.segments.front() {
            Some(Segment::Small(length)) => &self.small[self.small_written..][..*length],
            Some(Segment::Large(bytes)) => bytes,
            None => &[],
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut small = &self.small[self.small_written..];
        let mut filled = 0;
        for (slice, segment) in slices.iter_mut().zip(&self.segments) {
            *slice = IoSlice::new(match segment {
                Segment::Small(length) => {
                    let (bytes, rest) = small.split_at(*length);
                    small = rest;
                    bytes
                }
                Segment::Large(bytes) => bytes,
            });
            filled += 1;
        }
        filled
    }

    /// # Panics
    ///
    /// When there are fewer than `count` bytes.
    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advanced by {count} of {} bytes", self.remaining);
        self.remaining -= count;
        while count > 0 {
            let front = self.segments.front_mut().expect("the segments make up the remaining bytes");
            let step = match front {
                Segment::Small(length) => {
                    let step = count.min(*length);
                    *length -= step;
                    self.small_written += step;
                    step
                }
                Segment::Large(bytes) => {
                    let step = count.min(bytes.len());
                    bytes.advance(step);
                    step
                }
            };
            if matches!(front, Segment::Small(0))
                || matches!(front, Segment::Large(bytes) if bytes.is_empty())
            {
                self.segments.pop_front();
            }
            count -= step;
        }
        if self.remaining == 0 {
            self.reuse_small();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A batch of pieces of these lengths, every other one by handle, and the bytes in it.
    fn batch_of(lengths: &[usize]) -> (Batch, Vec<u8>) {
        let mut batch = Batch::default();
        let mut bytes = Vec::new();
        for (at, length) in lengths.iter().enumerate() {
            let piece: Vec<u8> = (0..*length).map(|byte| (byte + at) as u8).collect();
            bytes.extend_from_slice(&piece);
            if at % 2 == 0 {
                batch.put_slice(&piece);
            } else {
                batch.put_bytes(&piece.into());
            }
        }
        (batch, bytes)
    }

    #[test]
    fn large_bytes_are_kept_by_handle() {
        let large = Bytes::from(vec![1; COPIED_BYTES_MAX]);
        let mut batch = Batch::default();
        batch.put_slice(b"before");
        batch.put_bytes(&large);
        batch.put_slice(b"after");
        assert_eq!(batch.remaining(), 6 + COPIED_BYTES_MAX + 5);

        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(batch.chunks_vectored(&mut slices), 3);
        assert_eq!(slices[1].as_ptr(), large.as_ptr());
        assert_eq!((&*slices[0], &*slices[2]), (&b"before"[..], &b"after"[..]));
    }

    #[test]
    fn written_batch_uses_its_memory_again_unless_it_grew_large() {
        let (mut batch, _) = batch_of(&[100]);
        let before = batch.small.as_ptr();
        batch.advance(100);
        batch.put_slice(&[1; 100]);
        assert_eq!((batch.small.as_ptr(), batch.small.len()), (before, 100));

        batch.put_slice(&vec![0; 2 * SCRATCH_BYTES_KEPT]);
        batch.clear();
        assert!(!batch.has_remaining());
        assert!(batch.small.capacity() <= SCRATCH_BYTES_KEPT);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn batch_gives_its_bytes_in_order_however_they_are_written(
            lengths in proptest::collection::vec(prop_oneof![0_usize..9, Just(COPIED_BYTES_MAX)], 0..9),
            steps in proptest::collection::vec(1_usize..20_000, 1..9),
        ) {
            let (mut batch, bytes) = batch_of(&lengths);
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

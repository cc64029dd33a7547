//! Buffer pool for large frames, each of which is read into its own buffer.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Length in bytes from which a frame has its own buffer. Copying a shorter one costs less than a
/// read.
pub(super) const LARGE_BYTES: usize = 32 << 10;

/// Bytes that are read after a large frame, to see the length of the next one. The rest of that one
/// can be read in place. One or two small frames may be complete in it.
pub(super) const PEEK_BYTES: usize = 256;

/// Bytes of buffers that are kept while large frames follow each other.
const POOL_BYTES_MAX: usize = 8 << 20;

/// Buffers of the last large frames, for reuse when no part of them is referenced.
///
/// Fresh memory of that size comes from the operating system page by page, which costs as much as
/// copying the frame.
#[derive(Debug, Default)]
pub(super) struct LargeFramePool {
    last: VecDeque<Bytes>,
    bytes: usize,
}

impl LargeFramePool {
    /// Returns a buffer for a frame of `frame_bytes` bytes.
    pub(super) fn take(&mut self, frame_bytes: usize) -> BytesMut {
        // The newest first: among the free buffers it is the most likely to be cached.
        for at in (0..self.last.len()).rev() {
            // A buffer of more than twice the size is left for larger frames. A payload of an
            // earlier frame may still reference one that fits.
            let fits = (frame_bytes..=2 * frame_bytes).contains(&self.last[at].len());
            if !fits || !self.last[at].is_unique() {
                continue;
            }
            let Some(frame) = self.last.remove(at) else { break };
            self.bytes -= frame.len();
            if let Ok(mut memory) = frame.try_into_mut() {
                memory.clear();
                return memory;
            }
        }
        BytesMut::with_capacity(frame_bytes)
    }

    /// Keeps the buffer of a large frame for reuse.
    pub(super) fn keep(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.last.push_back(frame);
        while self.bytes > POOL_BYTES_MAX
            && let Some(oldest) = self.last.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }

    /// Releases all buffers: no large frame follows.
    pub(super) fn clear(&mut self) {
        if !self.last.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_reused_when_it_is_no_longer_referenced() {
        let mut large = LargeFramePool::default();
        let mut memory = large.take(LARGE_BYTES);
        memory.resize(LARGE_BYTES, 7);
        let (frame, at) = (memory.freeze(), large.bytes);
        let (place, payload) = (frame.as_ptr(), frame.slice(10..));
        large.keep(frame);
        assert_ne!(large.take(LARGE_BYTES).as_ptr(), place, "{payload:?} is in use");
        drop(payload);
        assert_ne!(large.take(2 * LARGE_BYTES).as_ptr(), place, "it is too short");
        assert_ne!(large.take(LARGE_BYTES / 3).as_ptr(), place, "it would waste memory");
        let again = large.take(LARGE_BYTES);
        assert_eq!((again.as_ptr(), again.len(), large.bytes), (place, 0, at));
    }

    #[test]
    fn the_pool_has_a_limit() {
        let mut large = LargeFramePool::default();
        for _ in 0..100 {
            large.keep(Bytes::from(vec![0; 1 << 20]));
            assert!(large.bytes <= POOL_BYTES_MAX && large.last.len() << 20 == large.bytes);
        }
        large.clear();
        assert_eq!((large.bytes, large.last.len()), (0, 0));
    }
}

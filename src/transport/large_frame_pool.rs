//! Memory for frames that are read one by one, since they are large.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Frames from here on have memory of their own. For shorter ones a copy costs less than a read.
pub(super) const LARGE_BYTES: usize = 32 << 10;

/// Behind a large frame so much is read of the next one, to see how long it is: the rest can then be
/// read to where it stays. A small frame or two may be in it whole.
pub(super) const PEEK_BYTES: usize = 256;

/// How much memory is kept for more large frames while they come one behind the other.
const POOL_BYTES_MAX: usize = 8 << 20;

/// The memory of the last large frames, to be used again once nobody has a part of them any more.
///
/// Fresh memory of that size comes from the operating system, page by page, which costs as much as to
/// copy it.
#[derive(Debug, Default)]
pub(super) struct LargeFramePool {
    last: VecDeque<Bytes>,
    bytes: usize,
}

impl LargeFramePool {
    /// Memory for a frame of so many bytes.
    pub(super) fn take(&mut self, frame_bytes: usize) -> BytesMut {
        // The newest first: of the memory that is free it is the likeliest to be in a cache.
        for at in (0..self.last.len()).rev() {
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

    /// Keeps the memory of a large frame in view.
    pub(super) fn keep(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.last.push_back(frame);
        while self.bytes > POOL_BYTES_MAX
            && let Some(oldest) = self.last.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }

    /// No large frame follows.
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
    fn memory_is_used_again_once_nobody_has_a_part_of_it() {
        let mut large = LargeFramePool::default();
        let mut memory = large.take(LARGE_BYTES);
        memory.resize(LARGE_BYTES, 7);
        let (frame, at) = (memory.freeze(), large.bytes);
        let (place, payload) = (frame.as_ptr(), frame.slice(10..));
        large.keep(frame);
        assert_ne!(large.take(LARGE_BYTES).as_ptr(), place, "{payload:?} is in use");
        drop(payload);
        assert_ne!(large.take(2 * LARGE_BYTES).as_ptr(), place, "it is too short");
        assert_ne!(large.take(LARGE_BYTES / 3).as_ptr(), place, "it would keep much for little");
        let again = large.take(LARGE_BYTES);
        assert_eq!((again.as_ptr(), again.len(), large.bytes), (place, 0, at));
    }

    #[test]
    fn what_is_kept_has_a_limit() {
        let mut large = LargeFramePool::default();
        for _ in 0..100 {
            large.keep(Bytes::from(vec![0; 1 << 20]));
            assert!(large.bytes <= POOL_BYTES_MAX && large.last.len() << 20 == large.bytes);
        }
        large.clear();
        assert_eq!((large.bytes, large.last.len()), (0, 0));
    }
}

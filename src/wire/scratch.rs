//! The buffer that a message is encoded into.

use std::cell::Cell;
use std::io;
use std::ops::Range;

use crate::config::ENCODE_BUFFER_RETAINED_BYTES;

thread_local! {
    pub(super) static ENCODE_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Bytes that are encoded in place: most calls and replies take fewer.
pub(super) const STACK_BUFFER_BYTES: usize = 64;

/// Bytes in place, or in the thread's buffer once there are more. Stores up to `limit` bytes and counts all
/// of them.
#[derive(Debug)]
pub(super) struct Scratch {
    stack: [u8; STACK_BUFFER_BYTES],
    /// Taken from the thread when it is needed.
    more: Option<Vec<u8>>,
    size: usize,
    limit: usize,
}

impl Scratch {
    #[inline]
    pub(super) fn new(limit: usize) -> Self {
        Self { stack: [0; STACK_BUFFER_BYTES], more: None, size: 0, limit }
    }

    /// Bytes written so far, also beyond the limit.
    #[inline]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The bytes written, if they are within the limit.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.more {
            None => &self.stack[..self.size],
            Some(bytes) => bytes,
        }
    }

    /// Bytes to be overwritten; `None` where they are beyond the limit and not stored.
    #[inline]
    pub(super) fn written_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        match &mut self.more {
            None if range.end <= self.size => self.stack.get_mut(range),
            None => None,
            Some(bytes) => bytes.get_mut(range),
        }
    }

    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let size = self.size.saturating_add(bytes.len());
        match self.stack.get_mut(self.size..size) {
            Some(place) if size <= self.limit => place.copy_from_slice(bytes),
            _ => self.put_more(bytes, size),
        }
        self.size = size;
    }

    /// Writes what does not fit in place.
    fn put_more(&mut self, bytes: &[u8], size: usize) {
        if size > self.limit {
            return;
        }
        let here = &self.stack[..self.size.min(STACK_BUFFER_BYTES)];
        let more = self.more.get_or_insert_with(|| {
            let mut kept = ENCODE_BUFFER.take();
            kept.extend_from_slice(here);
            kept
        });
        if size > more.capacity() {
            // By doubling, but never beyond the limit.
            let doubled = more.capacity().saturating_mul(2).min(self.limit);
            more.reserve_exact(doubled.max(size) - more.len());
        }
        more.extend_from_slice(bytes);
    }
}

impl io::Write for Scratch {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes);
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Scratch {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut bytes) = self.more.take()
            && bytes.capacity() <= ENCODE_BUFFER_RETAINED_BYTES
        {
            bytes.clear();
            ENCODE_BUFFER.set(bytes);
        }
    }
}

//! Buffer into which a message is encoded.

use std::cell::Cell;
use std::io;
use std::ops::Range;

use crate::config::ENCODE_BUFFER_RETAINED_BYTES;

thread_local! {
    pub(super) static ENCODE_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Bytes of a message that are encoded on the stack, which is enough for most calls and replies.
pub(super) const STACK_BUFFER_BYTES: usize = 64;

/// Growable buffer: on the stack first, in the thread's heap buffer beyond. It stores at most
/// `limit` bytes, but counts all of them.
#[derive(Debug)]
pub(super) struct Scratch {
    stack: [u8; STACK_BUFFER_BYTES],
    /// Heap buffer, taken from the thread when the stack buffer is full.
    heap: Option<Vec<u8>>,
    size: usize,
    limit: usize,
}

impl Scratch {
    #[inline]
    pub(super) fn new(limit: usize) -> Self {
        Self { stack: [0; STACK_BUFFER_BYTES], heap: None, size: 0, limit }
    }

    /// Number of bytes written so far, including those beyond the limit.
    #[inline]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Returns the bytes written, if they are within the limit.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.heap {
            None => &self.stack[..self.size],
            Some(bytes) => bytes,
        }
    }

    /// Returns written bytes for overwriting; `None` if they are beyond the limit and not stored.
    #[inline]
    pub(super) fn written_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        match &mut self.heap {
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
            _ => self.put_on_heap(bytes, size),
        }
        self.size = size;
    }

    /// Writes a byte, and more bytes behind it.
    #[inline]
    pub(super) fn put_behind(&mut self, first: u8, bytes: &[u8]) {
        let size = self.size.saturating_add(1 + bytes.len());
        match &mut self.heap {
            Some(heap) if size <= self.limit && size <= heap.capacity() => {
                heap.push(first);
                heap.extend_from_slice(bytes);
                self.size = size;
            }
            _ => {
                self.put(&[first]);
                self.put(bytes);
            }
        }
    }

    /// Writes bytes that do not fit on the stack.
    fn put_on_heap(&mut self, bytes: &[u8], size: usize) {
        // Bytes beyond the limit are counted, so that the error can name the full size, but not
        // stored.
        if size > self.limit {
            return;
        }
        let stack = &self.stack[..self.size.min(STACK_BUFFER_BYTES)];
        let heap = self.heap.get_or_insert_with(|| {
            // Taken out of the cell, not borrowed: a value that is encoded inside of another one
            // finds the cell empty, and allocates.
            let mut kept = ENCODE_BUFFER.take();
            kept.extend_from_slice(stack);
            kept
        });
        if size > heap.capacity() {
            // `Vec` alone would double beyond the limit, and so allocate up to twice the largest
            // message.
            let doubled = heap.capacity().saturating_mul(2).min(self.limit);
            heap.reserve_exact(doubled.max(size) - heap.len());
        }
        heap.extend_from_slice(bytes);
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
        // A buffer that grew for one large message is freed, or every thread would keep one.
        if let Some(mut bytes) = self.heap.take()
            && bytes.capacity() <= ENCODE_BUFFER_RETAINED_BYTES
        {
            bytes.clear();
            ENCODE_BUFFER.set(bytes);
        }
    }
}

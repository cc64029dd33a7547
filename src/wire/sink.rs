//! Destinations of encoded frames.

use bytes::{Bytes, BytesMut};

/// Destination of encoded frames. Small parts are copied; large ones may be kept by handle.
pub trait FrameSink {
    /// Appends a copy of `bytes`.
    fn put_slice(&mut self, bytes: &[u8]);

    /// Appends a copy of the first `length` bytes.
    ///
    /// A sink that can truncate overrides it: copying all `N` bytes inlines to a few stores, while
    /// a copy of `length` bytes calls `memcpy`.
    fn put_padded<const N: usize>(&mut self, bytes: &[u8; N], length: usize) {
        self.put_slice(&bytes[..length]);
    }

    /// Appends `bytes`, by handle where the sink can.
    fn put_bytes(&mut self, bytes: &Bytes);
}

impl FrameSink for BytesMut {
    fn put_slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_bytes(&mut self, bytes: &Bytes) {
        self.extend_from_slice(bytes);
    }
}

/// Encoder of fields, all of them big endian.
pub(super) trait Fields: FrameSink {
    fn put_u8(&mut self, value: u8) {
        self.put_slice(&[value]);
    }

    fn put_u16(&mut self, value: u16) {
        self.put_slice(&value.to_be_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.put_slice(&value.to_be_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.put_slice(&value.to_be_bytes());
    }
}

impl<S: FrameSink + ?Sized> Fields for S {}

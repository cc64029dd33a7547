//! The frames that a peer has not acknowledged: what is to be written, and to be written again.

use std::collections::VecDeque;
use std::mem;

use bytes::{Buf, Bytes, BytesMut};

use super::WriteBatch;
use crate::config::ZERO_COPY_BYTES_MIN;
use crate::wire::FrameSink;

/// How much room for small frames is made at once.
const TAIL_BYTES: usize = 16 << 10;

/// A place in the stream of all bytes that were ever put into a log.
pub(super) type Position = u64;

/// Sequenced frames in the order in which they go out, from the oldest that is not acknowledged on.
///
/// Small frames lie one behind the other in shared buffers, large payloads where they were. The
/// writer gets handles to the same bytes. A new link begins at the oldest frame again.
#[derive(Debug, Default)]
pub(super) struct SendBuffer {
    pieces: VecDeque<Bytes>,
    /// Frames that no writer has seen.
    open_buffer: BytesMut,
    /// The length of each frame that is kept.
    frames: FrameLengths,
    /// How many frames the peer has: the number of the oldest that is kept.
    acknowledged: u64,
    /// Where the oldest frame begins.
    start: Position,
    /// Where the newest ends.
    end: Position,
    /// How far the writer of this link has taken it, also in pieces.
    handed_out: Position,
    handed_out_pieces: usize,
    /// How far a writer ever took it, on any link.
    handed_out_max: Position,
    /// How far the kernel has it, on this link.
    written: Position,
    /// How far a kernel ever had it, on any link.
    written_max: Position,
    /// Where the tells end that no kernel has had whole.
    unwritten_tells: VecDeque<Position>,
    /// Set when frames were dropped: the next is numbered as the peer counts.
    cleared: bool,
}

impl SendBuffer {
    /// Appends the frame that `put` writes, and whose length it returns; gives where it ends.
    #[inline]
    pub(super) fn push(&mut self, put: impl FnOnce(&mut Self) -> usize) -> Position {
        let frame_bytes = put(self);
        self.frames.push(frame_bytes);
        self.end += frame_bytes as u64;
        self.end
    }

    /// The frame that ends here is a one-way message: its loss is to be counted.
    pub(super) fn count_tell(&mut self, end: Position) {
        self.unwritten_tells.push_back(end);
    }

    /// Where the newest frame ends: all bytes that were ever put into it.
    pub(super) fn end(&self) -> Position {
        self.end
    }

    /// All bytes that are kept.
    pub(super) fn bytes(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// The bytes that no kernel has on this link.
    pub(super) fn unwritten(&self) -> usize {
        (self.end - self.written) as usize
    }

    /// Whether the writer has bytes to take.
    pub(super) fn has_untaken(&self) -> bool {
        self.handed_out < self.end
    }

    /// Adds to the batch what it has not got yet.
    pub(super) fn drain_into(&mut self, batch: &mut WriteBatch) {
        self.seal();
        for piece in self.pieces.range(self.handed_out_pieces..) {
            batch.push(piece.clone());
        }
        self.handed_out_pieces = self.pieces.len();
        self.handed_out = self.end;
        self.handed_out_max = self.end;
    }

    /// Notes that the kernel has so many bytes more.
    pub(super) fn on_written(&mut self, bytes: usize) {
        self.written = self.handed_out.min(self.written + bytes as u64);
        self.advance_written_max(self.written);
    }

    fn advance_written_max(&mut self, position: Position) {
        self.written_max = self.written_max.max(position);
        while self.unwritten_tells.front().is_some_and(|end| *end <= self.written_max) {
            self.unwritten_tells.pop_front();
        }
    }

    /// Whether a kernel ever had the whole of the frame that ends here.
    pub(super) fn was_written(&self, end: Position) -> bool {
        end <= self.written_max
    }

    /// Lets go of the frames that the peer has: the first `received` of all.
    ///
    /// `false` if it cannot have so many or had more already.
    #[must_use]
    pub(super) fn acknowledge(&mut self, received: u64) -> bool {
        self.trim(received, self.handed_out)
    }

    /// The same, of the frames up to a place.
    fn trim(&mut self, received: u64, until: Position) -> bool {
        let Some(count) = received.checked_sub(self.acknowledged) else { return false };
        let Some(bytes) = self.frames.bytes(count).filter(|bytes| self.start + bytes <= until) else {
            return false;
        };
        self.frames.remove(count);
        self.acknowledged = received;
        self.start += bytes;
        self.written = self.written.max(self.start);
        self.advance_written_max(self.start);
        self.release(bytes as usize);
        true
    }

    /// Whether the peer has acknowledged more than that.
    pub(super) fn has_acknowledged_more_than(&self, received: u64) -> bool {
        !self.cleared && received < self.acknowledged
    }

    /// Gives back the memory of the oldest bytes.
    fn release(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let front = self.pieces.front_mut().expect("what was taken is in pieces");
            if front.len() > bytes {
                return front.advance(bytes);
            }
            bytes -= front.len();
            self.pieces.pop_front();
            // The writer of this link may have taken less than the one before.
            self.handed_out_pieces = self.handed_out_pieces.saturating_sub(1);
        }
    }

    /// The link is gone. With `unsure` everything that its writer took may have been written.
    pub(super) fn on_detach(&mut self, unsure: bool) {
        if unsure {
            self.advance_written_max(self.handed_out);
        }
        self.written = self.start;
    }

    /// A new link begins, to a peer that has received so many frames. `false` if it cannot have.
    ///
    /// It may have received them on any of the links before.
    #[must_use]
    pub(super) fn on_attach(&mut self, received: u64) -> bool {
        if mem::take(&mut self.cleared) {
            debug_assert!(self.frames.is_empty(), "nothing is kept between a loss and the next link");
            self.acknowledged = received;
        } else if !self.trim(received, self.handed_out_max) {
            return false;
        }
        self.handed_out = self.start;
        self.handed_out_pieces = 0;
        self.written = self.start;
        true
    }

    /// Drops everything; gives how many one-way messages no kernel has had whole.
    pub(super) fn clear(&mut self) -> u64 {
        let lost = self.unwritten_tells.len() as u64;
        *self = Self {
            acknowledged: self.acknowledged,
            start: self.end,
            end: self.end,
            handed_out: self.end,
            handed_out_max: self.end,
            written: self.end,
            written_max: self.written_max,
            cleared: true,
            ..Self::default()
        };
        lost
    }

    fn seal(&mut self) {
        if !self.open_buffer.is_empty() {
            self.pieces.push_back(self.open_buffer.split().freeze());
        }
    }
}

/// The lengths of frames in their order. Many in a row are often of one length.
#[derive(Debug, Default)]
struct FrameLengths {
    /// Frames of one length each, and the newest of all apart: they are at hand for the next.
    rows: VecDeque<LengthRun>,
    last: LengthRun,
}

/// So many frames of so many bytes each. In eight bytes: where no two frames in a row have one length there
/// is one for each, beside frames of thirty bytes.
#[derive(Clone, Copy, Debug, Default)]
struct LengthRun {
    frames: u32,
    bytes: u32,
}

impl FrameLengths {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.last.frames == 0
    }

    #[inline(always)]
    fn push(&mut self, frame_bytes: usize) {
        if self.last.bytes == frame_bytes as u32 && self.last.frames < u32::MAX {
            self.last.frames += 1;
        } else {
            self.start_run(frame_bytes);
        }
    }

    #[inline(never)]
    fn start_run(&mut self, frame_bytes: usize) {
        let before = mem::replace(&mut self.last, LengthRun { frames: 1, bytes: frame_bytes as u32 });
        if before.frames > 0 {
            self.rows.push_back(before);
        }
    }

    /// The bytes of the first so many frames; none if there are not so many.
    fn bytes(&self, mut count: u64) -> Option<u64> {
        let mut sum = 0;
        for row in self.rows.iter().chain([&self.last]) {
            let taken = count.min(row.frames.into());
            sum += taken * u64::from(row.bytes);
            count -= taken;
            if count == 0 {
                break;
            }
        }
        (count == 0).then_some(sum)
    }

    /// Removes the first so many.
    fn remove(&mut self, mut count: u64) {
        while count > 0 {
            let row = self.rows.front_mut().unwrap_or(&mut self.last);
            let taken = count.min(row.frames.into());
            row.frames -= taken as u32;
            count -= taken;
            if row.frames == 0 && self.rows.pop_front().is_none() {
                break;
            }
        }
    }
}

impl FrameSink for SendBuffer {
    #[inline]
    fn put_slice(&mut self, bytes: &[u8]) {
        if self.open_buffer.capacity() - self.open_buffer.len() < bytes.len() {
            self.open_buffer.reserve(bytes.len().max(TAIL_BYTES));
        }
        self.open_buffer.extend_from_slice(bytes);
    }

    #[inline]
    fn put_padded<const N: usize>(&mut self, bytes: &[u8; N], length: usize) {
        let end = self.open_buffer.len() + length;
        self.put_slice(bytes);
        self.open_buffer.truncate(end);
    }

    fn put_bytes(&mut self, bytes: &Bytes) {
        if bytes.len() < ZERO_COPY_BYTES_MIN {
            return self.put_slice(bytes);
        }
        self.seal();
        self.pieces.push_back(bytes.clone());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lengths_are_as_if_each_were_kept(steps in prop::collection::vec((0_u8..3, 1_usize..4, 0_u64..9), 0..200)) {
            let (mut lengths, mut each) = (FrameLengths::default(), VecDeque::<u64>::new());
            for (what, length, count) in steps {
                if what > 0 {
                    lengths.push(length);
                    each.push_back(length as u64);
                } else {
                    let expected = (count as usize <= each.len()).then(|| each.range(..count as usize).sum::<u64>());
                    prop_assert_eq!(lengths.bytes(count), expected);
                    if expected.is_some() {
                        lengths.remove(count);
                        each.drain(..count as usize);
                    }
                }
                prop_assert_eq!(lengths.is_empty(), each.is_empty());
                prop_assert_eq!(lengths.bytes(each.len() as u64), Some(each.iter().sum()));
                prop_assert_eq!(lengths.bytes(each.len() as u64 + 1), None);
            }
        }
    }
}

//! Retransmission buffer: frames that the peer has not acknowledged.

use std::collections::VecDeque;
use std::mem;

use bytes::{Buf, Bytes, BytesMut};

use super::WriteBatch;
use crate::config::ZERO_COPY_BYTES_MIN;
use crate::wire::FrameSink;

/// Bytes that are allocated for small frames at a time.
const OPEN_BUFFER_BYTES: usize = 16 << 10;

/// Offset in the stream of all bytes ever appended to a send buffer.
pub(super) type StreamOffset = u64;

/// Sequenced frames in sending order, from the oldest unacknowledged one on.
///
/// Small frames share buffers; large payloads are kept by handle. The writer gets handles to the
/// same bytes. A new link starts again at the oldest frame.
///
/// ```text
///             the peer   kernel     writer
///             has it     has it     has it
///   ----------|----------|----------|----------|
///           start     written  handed_out     end
///
/// of this link:   start <= written <= handed_out <= end
/// of all links:  written_max <= handed_out_max <= end
/// ```
///
/// `handed_out_max` bounds what a peer can have received, and `written_max` what a call may have
/// reached: both include earlier links, whose bytes may still arrive.
#[derive(Debug, Default)]
pub(super) struct SendBuffer {
    pieces: VecDeque<Bytes>,
    /// Frames that no writer holds yet. Freezing it makes it the last of `pieces`.
    open_buffer: BytesMut,
    /// Length of each retained frame.
    frames: FrameLengths,
    /// Frames appended so far, over all links and sessions.
    appended: u64,
    /// Frames that the peer has acknowledged, which is the sequence number of the oldest retained
    /// frame.
    acknowledged: u64,
    /// Start of the oldest retained frame.
    start: StreamOffset,
    /// End of the newest frame.
    end: StreamOffset,
    /// End of the bytes that the writer of this link has taken.
    handed_out: StreamOffset,
    handed_out_pieces: usize,
    /// Highest `handed_out` of any link.
    handed_out_max: StreamOffset,
    /// End of the bytes that the kernel has accepted on this link.
    written: StreamOffset,
    /// Highest `written` of any link.
    written_max: StreamOffset,
    /// Ends of the one-way messages that no kernel has accepted as a whole.
    unwritten_tells: VecDeque<StreamOffset>,
    /// Set when frames were dropped: the next link takes the sequence number from the peer.
    cleared: bool,
}

impl SendBuffer {
    /// Appends the frame that `put` writes and whose length it returns. Returns the frame's end.
    #[inline]
    pub(super) fn push(&mut self, put: impl FnOnce(&mut Self) -> usize) -> StreamOffset {
        let frame_bytes = put(self);
        self.frames.push(frame_bytes);
        self.appended += 1;
        self.end += frame_bytes as u64;
        self.end
    }

    /// Marks the frame that ends here as a one-way message, whose loss must be counted.
    pub(super) fn count_tell(&mut self, end: StreamOffset) {
        self.unwritten_tells.push_back(end);
    }

    /// End of the newest frame.
    pub(super) fn end(&self) -> StreamOffset {
        self.end
    }

    /// Empty buffer for a peer that is forgotten. The count of appended frames continues, since a writer
    /// may compare it with an earlier one.
    pub(super) fn of_next_peer(&self) -> Self {
        Self { appended: self.appended, ..Self::default() }
    }

    /// Frames appended so far.
    pub(super) fn appended(&self) -> u64 {
        self.appended
    }

    /// Retained bytes.
    pub(super) fn bytes(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Bytes that the kernel has not accepted on this link.
    pub(super) fn unwritten(&self) -> usize {
        (self.end - self.written) as usize
    }

    /// Returns whether the writer has bytes to take.
    pub(super) fn has_untaken(&self) -> bool {
        self.handed_out < self.end
    }

    /// Appends all bytes to `batch` that the writer has not taken.
    pub(super) fn drain_into(&mut self, batch: &mut WriteBatch) {
        // Freezing shares the filled part of the allocation with the writer. Later frames are
        // appended to the rest of it, without a copy.
        self.seal();
        for piece in self.pieces.range(self.handed_out_pieces..) {
            batch.push(piece.clone());
        }
        self.handed_out_pieces = self.pieces.len();
        self.handed_out = self.end;
        self.handed_out_max = self.end;
        self.check_invariants();
    }

    /// Records that the kernel has accepted `bytes` more.
    pub(super) fn on_written(&mut self, bytes: usize) {
        // A report that arrives after its link was replaced must not count bytes that this link
        // never took.
        self.written = self.handed_out.min(self.written + bytes as u64);
        self.advance_written_max(self.written);
        self.check_invariants();
    }

    fn advance_written_max(&mut self, position: StreamOffset) {
        self.written_max = self.written_max.max(position);
        while self.unwritten_tells.front().is_some_and(|end| *end <= self.written_max) {
            self.unwritten_tells.pop_front();
        }
    }

    /// Returns whether any kernel has accepted the whole frame that ends here.
    pub(super) fn was_written(&self, end: StreamOffset) -> bool {
        end <= self.written_max
    }

    /// Releases the frames that the peer has received: the first `received` of all.
    ///
    /// `false` if the peer cannot have received them, or has acknowledged more before.
    #[must_use]
    pub(super) fn acknowledge(&mut self, received: u64) -> bool {
        self.trim(received, self.handed_out)
    }

    /// Releases the first `received` frames, which must end at `until` or before.
    fn trim(&mut self, received: u64, until: StreamOffset) -> bool {
        let Some(count) = received.checked_sub(self.acknowledged) else { return false };
        let Some(bytes) = self.frames.bytes(count).filter(|bytes| self.start + bytes <= until) else {
            return false;
        };
        self.frames.remove(count);
        self.acknowledged = received;
        self.start += bytes;
        // An acknowledged frame was written, even if the writer has not reported so yet.
        self.written = self.written.max(self.start);
        self.advance_written_max(self.start);
        self.release(bytes as usize);
        self.check_invariants();
        true
    }

    /// Returns whether the peer has acknowledged more than `received` frames.
    pub(super) fn has_acknowledged_more_than(&self, received: u64) -> bool {
        !self.cleared && received < self.acknowledged
    }

    /// Frees the memory of the oldest bytes.
    fn release(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let front = self.pieces.front_mut().expect("what was taken is in pieces");
            if front.len() > bytes {
                return front.advance(bytes);
            }
            bytes -= front.len();
            self.pieces.pop_front();
            // The writer of this link may have taken fewer pieces than that of the previous one.
            self.handed_out_pieces = self.handed_out_pieces.saturating_sub(1);
        }
    }

    /// Detaches the link. With `unsure` all bytes that its writer took count as written.
    pub(super) fn on_detach(&mut self, unsure: bool) {
        if unsure {
            self.advance_written_max(self.handed_out);
        }
        self.written = self.start;
    }

    /// Starts a new link to a peer that has received `received` frames. `false` if it cannot have.
    ///
    /// It may have received them on any earlier link.
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
        self.check_invariants();
        true
    }

    /// Drops everything, and returns the number of one-way messages that no kernel has accepted.
    pub(super) fn clear(&mut self) -> u64 {
        let lost = self.unwritten_tells.len() as u64;
        *self = Self {
            acknowledged: self.acknowledged,
            appended: self.appended,
            start: self.end,
            end: self.end,
            handed_out: self.end,
            handed_out_max: self.end,
            written: self.end,
            written_max: self.written_max,
            // The peer may have received any of the dropped frames. Only its next handshake says
            // how many.
            cleared: true,
            ..Self::default()
        };
        lost
    }

    /// Checks the order of the offsets in debug builds; see [`SendBuffer`].
    fn check_invariants(&self) {
        debug_assert!(self.start <= self.written && self.written <= self.handed_out.max(self.start));
        debug_assert!(self.handed_out <= self.handed_out_max && self.written_max <= self.handed_out_max);
        debug_assert!(self.handed_out_max <= self.end, "no writer takes more than was appended");
    }

    fn seal(&mut self) {
        if !self.open_buffer.is_empty() {
            self.pieces.push_back(self.open_buffer.split().freeze());
        }
    }
}

/// Run-length encoded lengths of the retained frames: neighbours often have the same length.
#[derive(Debug, Default)]
struct FrameLengths {
    /// All runs but the newest, which stays at hand for the next frame.
    runs: VecDeque<LengthRun>,
    last: LengthRun,
}

/// Run of `frames` frames of `bytes` bytes each.
///
/// Eight bytes: with no two equal neighbours there is one run for each frame of, say, 30 bytes.
#[derive(Clone, Copy, Debug, Default)]
struct LengthRun {
    frames: u32,
    bytes: u32,
}

impl FrameLengths {
    fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.last.frames == 0
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
            self.runs.push_back(before);
        }
    }

    /// Bytes of the first `count` frames; `None` if there are fewer.
    fn bytes(&self, mut count: u64) -> Option<u64> {
        let mut sum = 0;
        for run in self.runs.iter().chain([&self.last]) {
            let taken = count.min(run.frames.into());
            sum += taken * u64::from(run.bytes);
            count -= taken;
            if count == 0 {
                break;
            }
        }
        (count == 0).then_some(sum)
    }

    /// Removes the first `count` frames.
    fn remove(&mut self, mut count: u64) {
        while count > 0 {
            let run = self.runs.front_mut().unwrap_or(&mut self.last);
            let taken = count.min(run.frames.into());
            run.frames -= taken as u32;
            count -= taken;
            if run.frames == 0 && self.runs.pop_front().is_none() {
                break;
            }
        }
    }
}

impl FrameSink for SendBuffer {
    #[inline]
    fn put_slice(&mut self, bytes: &[u8]) {
        if self.open_buffer.capacity() - self.open_buffer.len() < bytes.len() {
            // One allocation for many frames, as most frames are much smaller.
            self.open_buffer.reserve(bytes.len().max(OPEN_BUFFER_BYTES));
        }
        self.open_buffer.extend_from_slice(bytes);
    }

    #[inline]
    fn put_padded<const N: usize>(&mut self, bytes: &[u8; N], length: usize) {
        // The copy has a constant length, which compiles to a few stores. Truncating is cheaper
        // than calling `memcpy` with the exact length.
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
    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn run_lengths_equal_a_list_of_lengths(steps in prop::collection::vec((0_u8..3, 1_usize..4, 0_u64..9), 0..200)) {
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

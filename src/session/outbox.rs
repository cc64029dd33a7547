//! What waits to be written, and how far the writing is.

use std::collections::VecDeque;
use std::mem;

use bytes::Buf;

use super::Batch;
use crate::id::CallId;
use crate::wire::FrameSink;

/// The frames that are queued or taken by the writer, and not wholly with the kernel yet.
///
/// Positions are in the stream of all bytes ever queued, so that it does not matter which of
/// them the writer has taken.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: Batch,
    /// The unwritten frames, the oldest in front.
    frames: VecDeque<Queued>,
    /// Where the last queued frame ends.
    queued: u64,
    /// How far the writer has taken the stream.
    taken: u64,
    /// How far the kernel has the stream.
    written: u64,
    next_number: FrameNumber,
}

/// The place of a frame in the order of all frames ever queued.
pub(super) type FrameNumber = u64;

#[derive(Clone, Copy, Debug)]
struct Queued {
    number: FrameNumber,
    content: Content,
    end: u64,
}

/// What a queued frame is, as far as its loss means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Content {
    Call(CallId),
    Tell,
    /// An answer or a goodbye: whoever misses it sees the link go.
    Other,
}

impl Outbox {
    /// Queues the frame that `put` writes, and whose length it returns.
    pub(super) fn push(&mut self, content: Content, put: impl FnOnce(&mut Batch) -> usize) -> FrameNumber {
        let number = self.next_number;
        self.next_number += 1;
        self.queued += put(&mut self.queue) as u64;
        self.frames.push_back(Queued { number, content, end: self.queued });
        number
    }

    /// The bytes that the kernel does not have, whether the writer has taken them or not.
    pub(super) fn bytes(&self) -> usize {
        (self.queued - self.written) as usize
    }

    /// Whether the writer has bytes to take.
    pub(super) fn has_queued(&self) -> bool {
        self.queue.has_remaining()
    }

    /// Swaps the queue with an empty batch.
    pub(super) fn take(&mut self, batch: &mut Batch) {
        debug_assert!(!batch.has_remaining(), "the last batch is written before the next is taken");
        if !batch.has_remaining() {
            mem::swap(&mut self.queue, batch);
            self.taken = self.queued;
        }
    }

    /// Notes that the kernel has so many bytes more.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written = self.queued.min(self.written + bytes as u64);
        while self.frames.front().is_some_and(|frame| frame.end <= self.written) {
            self.frames.pop_front();
        }
    }

    /// Counts as written what the writer has taken: it may be with the kernel already.
    pub(super) fn doubt_taken(&mut self) {
        self.wrote(self.taken.saturating_sub(self.written) as usize);
    }

    /// Whether the kernel has the whole of this frame.
    pub(super) fn is_written(&self, number: FrameNumber) -> bool {
        self.frames.front().is_none_or(|oldest| number < oldest.number)
    }

    /// Drops the frames that `keep` does not want. Nothing may be taken or partly written.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(Content, usize) -> bool) {
        debug_assert_eq!(self.queue.remaining(), self.bytes(), "every unwritten byte is in the queue");
        let mut queue = mem::take(&mut self.queue);
        let mut start = self.written;
        self.queued = self.written;
        for frame in mem::take(&mut self.frames) {
            let bytes = (frame.end - start) as usize;
            start = frame.end;
            if keep(frame.content, bytes) {
                self.queue.put_bytes(&queue.copy_to_bytes(bytes));
                self.queued += bytes as u64;
                self.frames.push_back(Queued { end: self.queued, ..frame });
            } else {
                queue.advance(bytes);
            }
        }
    }

    /// Drops everything and returns how many tells were not wholly written.
    pub(super) fn clear(&mut self) -> u64 {
        let tells = self.frames.iter().filter(|frame| frame.content == Content::Tell).count();
        self.frames.clear();
        self.queue.clear();
        self.written = self.queued;
        self.taken = self.queued;
        tells as u64
    }
}

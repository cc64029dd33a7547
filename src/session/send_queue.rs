//! Queue of the messages to one actor that wait for credit.
//!
//! ```text
//! entries   | number, call, bytes | number, call, bytes | number, call, apart | ...
//! blocks    [ frame | frame | frame ... ][ frame | frame ...          ]
//! apart     ( number, frame of its own )
//! ```
//!
//! Small frames share blocks: a tell of 33 bytes takes 80 bytes of memory, against 335 in a buffer
//! of its own. The accounting includes each frame, its entry, and the queue itself while it is not
//! empty, so that the budget follows the resident memory.

use std::collections::VecDeque;

use bytes::Bytes;

use super::calls::MessageKind;
use super::queued_frame::QueuedFrame;
use crate::config::{QUEUE_OVERHEAD_BYTES, QUEUED_CALL_OVERHEAD_BYTES, QUEUED_OVERHEAD_BYTES};
use crate::id::CallId;
use crate::wire::FrameSink;

/// Length from which a frame has a buffer of its own. In a block, the unused end would be large.
const APART_BYTES: usize = 4 << 10;

/// Largest block of small frames in bytes. The first blocks of a queue are smaller.
const BLOCK_BYTES_MAX: usize = 16 << 10;

/// Smallest block of small frames in bytes.
const BLOCK_BYTES_MIN: usize = 256;

/// Number of entries for which a shrinking queue keeps its memory.
const ENTRIES_KEPT: usize = 64;

/// Queued messages of one actor, in sending order.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    /// Entries in order. The first one is never a removed one.
    entries: VecDeque<QueuedEntry>,
    blocks: VecDeque<Block>,
    apart: VecDeque<(u64, QueuedFrame)>,
    /// Number of removed entries that are still in `entries`.
    removed: usize,
    /// Unread bytes in the blocks, including those of removed frames.
    block_bytes: usize,
    removed_bytes: usize,
    /// Bytes that the messages are accounted with.
    queued_bytes: usize,
}

/// Queued message. Its frame is the next one in the blocks, or in `apart`.
#[derive(Clone, Copy, Debug)]
struct QueuedEntry {
    number: u64,
    call: CallId,
    /// Length of a frame in a block; 0 for one apart.
    bytes: u32,
    kind: EntryKind,
    apart: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryKind {
    Call,
    Tell,
    Removed,
}

const _: () = assert!(size_of::<QueuedEntry>() == 24, "each queued message has an entry");

/// Description of a queued message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) number: u64,
    pub(super) content: MessageKind,
    pub(super) frame_bytes: usize,
}

/// Bytes that a message is accounted with, without its queue.
pub(super) fn queued_cost(content: MessageKind, frame_bytes: usize) -> usize {
    let overhead = match content {
        MessageKind::Call(_) => QUEUED_CALL_OVERHEAD_BYTES,
        MessageKind::Tell | MessageKind::Other => QUEUED_OVERHEAD_BYTES,
    };
    frame_bytes.saturating_add(overhead)
}

impl SendQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that the messages and the queue are accounted with.
    pub(super) fn counted_bytes(&self) -> usize {
        if self.is_empty() { 0 } else { QUEUE_OVERHEAD_BYTES + self.queued_bytes }
    }

    /// Queues the frame of `frame_bytes` bytes that `put` writes.
    pub(super) fn push(
        &mut self,
        number: u64,
        content: MessageKind,
        frame_bytes: usize,
        put: impl FnOnce(FrameOut<'_>) -> usize,
    ) {
        let (kind, call) = match content {
            MessageKind::Call(call) => (EntryKind::Call, call),
            MessageKind::Tell | MessageKind::Other => (EntryKind::Tell, CallId(0)),
        };
        // A large frame keeps handles of its payloads, which a block would copy.
        let apart = frame_bytes >= APART_BYTES;
        if apart {
            self.apart.push_back((number, QueuedFrame::of(|frame| put(FrameOut::Apart(frame)))));
        } else {
            let block = self.block_for(frame_bytes);
            let before = block.bytes.len();
            put(FrameOut::Block(block));
            debug_assert_eq!(block.bytes.len() - before, frame_bytes, "a frame says how long it is");
            self.block_bytes += frame_bytes;
        }
        let bytes = if apart { 0 } else { frame_bytes as u32 };
        self.entries.push_back(QueuedEntry { number, call, bytes, kind, apart });
        self.queued_bytes += queued_cost(content, frame_bytes);
    }

    /// Returns a block with space for a frame of `frame_bytes`.
    ///
    /// Blocks grow with the queue, so that at most about half of a short queue's memory is unused.
    fn block_for(&mut self, frame_bytes: usize) -> &mut Block {
        let fits = |block: &Block| block.bytes.capacity() - block.bytes.len() >= frame_bytes;
        if !self.blocks.back().is_some_and(fits) {
            // Doubling: a block is as large as all queued frames together, within the limits.
            let capacity = self.block_bytes.clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX).max(frame_bytes);
            self.blocks.push_back(Block { bytes: Vec::with_capacity(capacity), read: 0 });
        }
        self.blocks.back_mut().expect("a block was pushed if there was none")
    }

    /// Head of the queue.
    pub(super) fn front(&self) -> Option<Queued> {
        let entry = self.entries.front()?;
        let frame_bytes = match (entry.apart, self.apart.front()) {
            (true, Some((_, frame))) => frame.len(),
            _ => entry.bytes as usize,
        };
        Some(Queued { number: entry.number, content: entry.content(), frame_bytes })
    }

    /// Removes the head, and writes its frame to `out`.
    pub(super) fn pop_into(&mut self, out: &mut impl FrameSink) -> usize {
        let Some(entry) = self.pop_entry() else { return 0 };
        if !entry.apart {
            self.read_block(entry.bytes as usize, |bytes| out.put_slice(bytes));
            return self.settle_pop(entry, entry.bytes as usize);
        }
        let Some((_, mut frame)) = self.apart.pop_front() else { return 0 };
        let frame_bytes = frame.len();
        frame.write_to(frame_bytes, out);
        self.settle_pop(entry, frame_bytes)
    }

    /// Removes the head, whose frame is apart.
    pub(super) fn pop_apart(&mut self) -> Option<QueuedFrame> {
        let entry = self.pop_entry()?;
        let (_, frame) = self.apart.pop_front()?;
        self.settle_pop(entry, frame.len());
        Some(frame)
    }

    fn pop_entry(&mut self) -> Option<QueuedEntry> {
        self.entries.pop_front()
    }

    fn settle_pop(&mut self, entry: QueuedEntry, frame_bytes: usize) -> usize {
        self.queued_bytes -= queued_cost(entry.content(), frame_bytes);
        self.drop_removed_front();
        frame_bytes
    }

    /// Reads the next `count` bytes of the blocks. A frame never spans two blocks.
    fn read_block(&mut self, count: usize, read: impl FnOnce(&[u8])) {
        let Some(block) = self.blocks.front_mut() else { return };
        let end = block.read + count;
        read(&block.bytes[block.read..end]);
        block.read = end;
        self.block_bytes -= count;
        if block.read == block.bytes.len() {
            self.blocks.pop_front();
        }
    }

    /// Drops removed entries at the front, and frees unused memory. Each removed message causes at
    /// most one copy of another.
    fn drop_removed_front(&mut self) {
        while let Some(entry) = self.entries.front().filter(|entry| entry.kind == EntryKind::Removed).copied()
        {
            self.entries.pop_front();
            self.removed -= 1;
            if !entry.apart {
                self.removed_bytes -= entry.bytes as usize;
                self.read_block(entry.bytes as usize, |_| ());
            }
        }
        let (len, capacity) = (self.entries.len(), self.entries.capacity());
        // A burst must not determine the memory of the queue for the rest of its life. The factor
        // of four prevents shrinking and growing in turn.
        if capacity > ENTRIES_KEPT && len < capacity / 4 {
            self.entries.shrink_to((2 * len).max(ENTRIES_KEPT));
        }
        // Removed messages may occupy at most as much memory as queued ones.
        if self.removed > len / 2 || self.removed_bytes > self.block_bytes / 2 {
            self.compact();
        }
    }

    /// Removes the message of that number without sending it.
    pub(super) fn remove(&mut self, number: u64) {
        // Queue ids ascend, so both lists can be searched by them.
        let Ok(at) = self.entries.binary_search_by_key(&number, |entry| entry.number) else { return };
        let entry = &mut self.entries[at];
        let content = entry.content();
        // The entry is only marked: its frame lies between others in a block, and is skipped when
        // its turn comes.
        if std::mem::replace(&mut entry.kind, EntryKind::Removed) == EntryKind::Removed {
            return;
        }
        let mut frame_bytes = entry.bytes as usize;
        if entry.apart {
            if let Ok(at) = self.apart.binary_search_by_key(&number, |(number, _)| *number)
                && let Some((_, frame)) = self.apart.remove(at)
            {
                frame_bytes = frame.len();
            }
        } else {
            self.removed_bytes += frame_bytes;
        }
        self.removed += 1;
        self.queued_bytes -= queued_cost(content, frame_bytes);
        self.drop_removed_front();
    }

    /// Copies the queued messages into new blocks.
    fn compact(&mut self) {
        let mut old = std::mem::take(self);
        self.apart = std::mem::take(&mut old.apart);
        self.queued_bytes = old.queued_bytes;
        for entry in std::mem::take(&mut old.entries) {
            if entry.kind == EntryKind::Removed {
                if !entry.apart {
                    old.read_block(entry.bytes as usize, |_| ());
                }
                continue;
            }
            self.entries.push_back(entry);
            if !entry.apart {
                let count = entry.bytes as usize;
                let block = self.block_for(count);
                old.read_block(count, |bytes| block.bytes.extend_from_slice(bytes));
                self.block_bytes += count;
            }
        }
    }

    /// Removes all messages with frames longer than `frame_bytes_max`, in order.
    pub(super) fn remove_longer_than(&mut self, frame_bytes_max: usize) -> Vec<Queued> {
        let longer: Vec<_> = self.iter().filter(|queued| queued.frame_bytes > frame_bytes_max).collect();
        longer.iter().for_each(|queued| self.remove(queued.number));
        longer
    }

    /// Queued messages, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Queued> {
        let mut apart = self.apart.iter();
        self.entries.iter().filter(|entry| entry.kind != EntryKind::Removed).map(move |entry| {
            let frame_bytes = match entry.apart {
                true => apart.next().map_or(0, |(_, frame)| frame.len()),
                false => entry.bytes as usize,
            };
            Queued { number: entry.number, content: entry.content(), frame_bytes }
        })
    }
}

impl QueuedEntry {
    fn content(&self) -> MessageKind {
        match self.kind {
            EntryKind::Call => MessageKind::Call(self.call),
            EntryKind::Tell | EntryKind::Removed => MessageKind::Tell,
        }
    }
}

/// Consecutive small frames, and the number of bytes read.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Vec<u8>,
    read: usize,
}

/// Destination of the frame of a queued message.
pub(super) enum FrameOut<'a> {
    Block(&'a mut Block),
    Apart(&'a mut QueuedFrame),
}

impl FrameSink for FrameOut<'_> {
    fn put_slice(&mut self, bytes: &[u8]) {
        match self {
            Self::Block(block) => block.bytes.extend_from_slice(bytes),
            Self::Apart(frame) => frame.put_slice(bytes),
        }
    }

    fn put_bytes(&mut self, bytes: &Bytes) {
        match self {
            Self::Block(block) => block.bytes.extend_from_slice(bytes),
            Self::Apart(frame) => frame.put_bytes(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::property_tests;
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;

    fn frame(number: u64, bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at as u64 * 7 + number) as u8).collect()
    }

    fn push(queue: &mut SendQueue, number: u64, call: bool, bytes: usize) -> Queued {
        let content = if call { MessageKind::Call(CallId(number)) } else { MessageKind::Tell };
        queue.push(number, content, bytes, |mut out| {
            out.put_slice(&frame(number, bytes));
            bytes
        });
        Queued { number, content, frame_bytes: bytes }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(bool, usize),
        Pop,
        Remove(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = prop_oneof![8 => 1_usize..100, 2 => 100_usize..3000, 1 => 4000_usize..40_000];
        prop_oneof![
            5 => (any::<bool>(), bytes).prop_map(|(call, bytes)| Step::Push(call, bytes)),
            2 => Just(Step::Pop),
            3 => any::<prop::sample::Index>().prop_map(Step::Remove),
        ]
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn messages_leave_in_order_except_removed_ones(
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let (mut queue, mut model) = (SendQueue::default(), VecDeque::new());
            for (number, step) in (1..).zip(steps) {
                match step {
                    Step::Push(call, bytes) => model.push_back(push(&mut queue, number, call, bytes)),
                    Step::Pop => {
                        let expected = model.pop_front();
                        prop_assert_eq!(queue.front(), expected);
                        let mut out = BytesMut::new();
                        let written = queue.pop_into(&mut out);
                        prop_assert_eq!(written, expected.map_or(0, |queued| queued.frame_bytes));
                        prop_assert_eq!(&out[..], expected.map_or(vec![], |it| frame(it.number, it.frame_bytes)));
                    }
                    Step::Remove(at) if !model.is_empty() => {
                        let removed = model.remove(at.index(model.len())).unwrap();
                        queue.remove(removed.number);
                        queue.remove(removed.number);
                    }
                    Step::Remove(_) => queue.remove(number),
                }
                let counted = model.iter().map(|it| queued_cost(it.content, it.frame_bytes)).sum::<usize>();
                let of_queue = if model.is_empty() { 0 } else { QUEUE_OVERHEAD_BYTES };
                prop_assert_eq!(queue.counted_bytes(), of_queue + counted);
                prop_assert_eq!(queue.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
                prop_assert!(queue.removed <= queue.entries.len().div_ceil(2));
            }
        }
    }

    #[test]
    fn a_frame_longer_than_a_new_limit_is_removed() {
        let mut queue = SendQueue::default();
        let all: Vec<_> = (1..)
            .zip([10, 9000, 20, 5000])
            .map(|(number, bytes)| push(&mut queue, number, true, bytes))
            .collect();
        assert_eq!(queue.remove_longer_than(4999), [all[1], all[3]]);
        assert_eq!(queue.iter().collect::<Vec<_>>(), [all[0], all[2]]);
        assert_eq!(queue.remove_longer_than(0).len(), 2);
        assert!(queue.is_empty() && queue.counted_bytes() == 0 && queue.blocks.is_empty());
    }

    #[test]
    fn a_queue_of_small_messages_uses_about_the_accounted_memory() {
        for bytes in [29, 61, 1000] {
            let mut queue = SendQueue::default();
            for number in 0..20_000 {
                push(&mut queue, number, false, bytes);
            }
            let blocks: usize = queue.blocks.iter().map(|block| block.bytes.capacity()).sum();
            let resident = blocks + queue.entries.capacity() * size_of::<QueuedEntry>();
            let counted = queue.counted_bytes();
            assert!((counted / 2..=2 * counted).contains(&resident), "{bytes}: {resident} of {counted}");
        }
    }
}

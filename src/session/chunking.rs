//! Large frames on their way in chunks, several at a time.

use std::collections::VecDeque;

use bytes::BytesMut;
use rustc_hash::FxHashMap;

use super::calls::Content;
use super::queued_frame::QueuedFrame;
use super::send_buffer::{Position, SendBuffer};
use crate::config::CHUNKED_SENDS_MAX;
use crate::id::{CallId, Target};
use crate::wire::{CHUNK_HEADER_BYTES, Chunk, ChunkHeader, FrameSink};

/// The large frames that are not wholly in the log. Those under way take turns, chunk by chunk.
#[derive(Debug, Default)]
pub(super) struct ChunkedSends {
    active: VecDeque<ChunkedSend>,
    waiting: VecDeque<ChunkedSend>,
    last_message: u64,
    bytes: usize,
}

#[derive(Debug)]
struct ChunkedSend {
    message: u64,
    content: Content,
    /// The actor that gets nothing else meanwhile; none for a reply.
    target: Option<Target>,
    frame_bytes: usize,
    /// What is not in the log.
    frame: QueuedFrame,
    state: State,
}

impl ChunkedSend {
    fn done(&self, end: Option<Position>) -> ChunkedSendDone {
        ChunkedSendDone { content: self.content, target: self.target, frame_bytes: self.frame_bytes, end }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Started,
    /// Begun, and not wanted any more.
    Abandoned,
}

/// A frame that has left its lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkedSendDone {
    pub(super) content: Content,
    pub(super) target: Option<Target>,
    pub(super) frame_bytes: usize,
    /// Where its last chunk ends; `None` if it was abandoned.
    pub(super) end: Option<Position>,
}

impl ChunkedSends {
    /// Takes a frame that is to go out in chunks.
    pub(super) fn push(&mut self, content: Content, target: Option<Target>, parcel: QueuedFrame) {
        self.last_message += 1;
        let frame_bytes = parcel.len();
        self.bytes += frame_bytes;
        let message = self.last_message;
        let lane = ChunkedSend { message, content, target, frame_bytes, frame: parcel, state: State::Fresh };
        if self.active.len() < CHUNKED_SENDS_MAX {
            self.active.push_back(lane);
        } else {
            self.waiting.push_back(lane);
        }
    }

    /// The bytes that are not in the log.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// How many one-way messages are here.
    pub(super) fn tells(&self) -> u64 {
        let tells = self.active.iter().chain(&self.waiting).filter(|lane| lane.content == Content::Tell);
        tells.count() as u64
    }

    /// Writes the next chunk, of the frame whose turn it is. Tells if that frame has left.
    pub(super) fn write_chunk(
        &mut self,
        log: &mut SendBuffer,
        chunk_bytes: usize,
    ) -> Option<ChunkedSendDone> {
        let mut lane = self.active.pop_front()?;
        let count = lane.frame.len().min(chunk_bytes - CHUNK_HEADER_BYTES);
        let header = ChunkHeader {
            message: lane.message,
            first: (lane.state == State::Fresh).then_some(lane.frame.len() as u32),
            last: lane.state != State::Abandoned && count == lane.frame.len(),
            abandoned: lane.state == State::Abandoned,
        };
        let end = log.push(|out| {
            let frame_bytes = header.put(count, out);
            lane.frame.write_to(count, out);
            frame_bytes
        });
        self.bytes -= count;
        if header.last || header.abandoned {
            self.active.extend(self.waiting.pop_front());
            return Some(lane.done(header.last.then_some(end)));
        }
        lane.state = State::Started;
        self.active.push_back(lane);
        None
    }

    /// Nobody wants this call any more. Gives what has left for it: the peer never hears of a frame
    /// of which no chunk was written.
    pub(super) fn abandon(&mut self, call: CallId) -> Option<ChunkedSendDone> {
        let wanted =
            |lane: &ChunkedSend| lane.content == Content::Call(call) && lane.state != State::Abandoned;
        if let Some(at) = self.waiting.iter().position(wanted) {
            let lane = self.waiting.remove(at)?;
            self.bytes -= lane.frame.len();
            return Some(lane.done(None));
        }
        let at = self.active.iter().position(wanted)?;
        let lane = &mut self.active[at];
        if lane.state == State::Fresh {
            let lane = self.active.remove(at)?;
            self.active.extend(self.waiting.pop_front());
            self.bytes -= lane.frame.len();
            return Some(lane.done(None));
        }
        lane.state = State::Abandoned;
        self.bytes -= lane.frame.len();
        lane.frame = QueuedFrame::default();
        None
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Self { last_message: self.last_message, ..Self::default() };
    }
}

/// How much memory is reserved at once for a frame that comes in chunks; it doubles behind that.
const ASSEMBLY_BYTES_RESERVED: usize = 4 << 20;

/// Frames of which chunks have come and not the last.
#[derive(Debug, Default)]
pub(super) struct Reassembler {
    open: FxHashMap<u64, PartialFrame>,
}

#[derive(Debug)]
struct PartialFrame {
    frame_bytes: usize,
    bytes: BytesMut,
}

impl Reassembler {
    /// Takes a chunk; gives the bytes of the whole frame if it was the last.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn take(
        &mut self,
        chunk: &Chunk,
        frame_bytes_max: usize,
    ) -> Result<Option<BytesMut>, &'static str> {
        if let Some(frame_bytes) = chunk.first {
            let frame_bytes = frame_bytes as usize;
            if frame_bytes > frame_bytes_max {
                return Err("its frame is over the limit");
            }
            if self.open.len() >= CHUNKED_SENDS_MAX {
                return Err("too many frames are under way in chunks");
            }
            // What is not written to yet costs no memory, whatever the peer has announced.
            let bytes = BytesMut::with_capacity(frame_bytes.min(ASSEMBLY_BYTES_RESERVED));
            let unfinished = PartialFrame { frame_bytes, bytes };
            if self.open.insert(chunk.message, unfinished).is_some() {
                return Err("its frame has begun already");
            }
        }
        if chunk.abandoned {
            return match self.open.remove(&chunk.message) {
                Some(_) => Ok(None),
                None => Err("its frame has not begun"),
            };
        }
        let Some(unfinished) = self.open.get_mut(&chunk.message) else {
            return Err("its frame has not begun");
        };
        if chunk.bytes.len() > unfinished.frame_bytes - unfinished.bytes.len() {
            return Err("it is longer than the rest of its frame");
        }
        unfinished.bytes.put_slice(&chunk.bytes);
        if !chunk.last {
            return Ok(None);
        }
        match self.open.remove(&chunk.message) {
            Some(whole) if whole.bytes.len() == whole.frame_bytes => Ok(Some(whole.bytes)),
            _ => Err("it is the last, and its frame is not whole"),
        }
    }

    /// Drops what is unfinished.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }
}

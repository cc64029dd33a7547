//! Sending and reassembly of large frames in chunks, several frames at a time.

use std::collections::VecDeque;

use bytes::BytesMut;
use rustc_hash::FxHashMap;

use super::calls::MessageKind;
use super::queued_frame::QueuedFrame;
use super::send_buffer::{SendBuffer, StreamOffset};
use crate::config::CHUNKED_SENDS_MAX;
use crate::id::{CallId, Target};
use crate::wire::{CHUNK_HEADER_BYTES, Chunk, ChunkHeader, FrameSink};

/// Large frames that are not completely in the send buffer. The active ones alternate chunk by
/// chunk.
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
    content: MessageKind,
    /// Actor that receives nothing else meanwhile, as its messages are ordered; `None` for a reply.
    target: Option<Target>,
    frame_bytes: usize,
    /// Bytes that are not in the send buffer yet.
    frame: QueuedFrame,
    state: ChunkState,
}

impl ChunkedSend {
    fn done(&self, end: Option<StreamOffset>) -> ChunkedSendDone {
        ChunkedSendDone { content: self.content, target: self.target, frame_bytes: self.frame_bytes, end }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    Fresh,
    Started,
    /// Started, and cancelled since: a chunk with the abandon flag follows.
    Abandoned,
}

/// Chunked frame that has left [`ChunkedSends`].
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkedSendDone {
    pub(super) content: MessageKind,
    pub(super) target: Option<Target>,
    pub(super) frame_bytes: usize,
    /// End of its last chunk in the send buffer; `None` if it was abandoned.
    pub(super) end: Option<StreamOffset>,
}

impl ChunkedSends {
    /// Adds a frame that must be sent in chunks.
    pub(super) fn push(&mut self, content: MessageKind, target: Option<Target>, frame: QueuedFrame) {
        self.last_message += 1;
        let frame_bytes = frame.len();
        self.bytes += frame_bytes;
        let message = self.last_message;
        let send = ChunkedSend { message, content, target, frame_bytes, frame, state: ChunkState::Fresh };
        if self.active.len() < CHUNKED_SENDS_MAX {
            // Bounded: the peer needs memory for each frame that is being reassembled.
            self.active.push_back(send);
        } else {
            self.waiting.push_back(send);
        }
    }

    /// Bytes that are not in the send buffer yet.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// Number of one-way messages.
    pub(super) fn tells(&self) -> u64 {
        let tells = self.active.iter().chain(&self.waiting).filter(|send| send.content == MessageKind::Tell);
        tells.count() as u64
    }

    /// Writes the next chunk of the next frame. Returns the frame if that chunk was its last.
    pub(super) fn write_chunk(
        &mut self,
        buffer: &mut SendBuffer,
        chunk_bytes: usize,
    ) -> Option<ChunkedSendDone> {
        let mut send = self.active.pop_front()?;
        let count = send.frame.len().min(chunk_bytes - CHUNK_HEADER_BYTES);
        let header = ChunkHeader {
            message: send.message,
            first: (send.state == ChunkState::Fresh).then_some(send.frame.len() as u32),
            last: send.state != ChunkState::Abandoned && count == send.frame.len(),
            abandoned: send.state == ChunkState::Abandoned,
        };
        let end = buffer.push(|out| {
            let frame_bytes = header.put(count, out);
            send.frame.write_to(count, out);
            frame_bytes
        });
        self.bytes -= count;
        if header.last || header.abandoned {
            self.active.extend(self.waiting.pop_front());
            return Some(send.done(header.last.then_some(end)));
        }
        send.state = ChunkState::Started;
        self.active.push_back(send);
        None
    }

    /// Cancels a chunked call. Returns its frame if no chunk was written: the peer never learns of
    /// it.
    pub(super) fn abandon(&mut self, call: CallId) -> Option<ChunkedSendDone> {
        // A retry has the id of its first attempt. If that one is abandoned but not finished, it
        // must not be found again.
        let wanted = |send: &ChunkedSend| {
            send.content == MessageKind::Call(call) && send.state != ChunkState::Abandoned
        };
        if let Some(at) = self.waiting.iter().position(wanted) {
            let send = self.waiting.remove(at)?;
            self.bytes -= send.frame.len();
            return Some(send.done(None));
        }
        let at = self.active.iter().position(wanted)?;
        let send = &mut self.active[at];
        if send.state == ChunkState::Fresh {
            let send = self.active.remove(at)?;
            self.active.extend(self.waiting.pop_front());
            self.bytes -= send.frame.len();
            return Some(send.done(None));
        }
        send.state = ChunkState::Abandoned;
        // The buffered rest is freed now; the abandon flag is sent when the frame has its next
        // turn.
        self.bytes -= send.frame.len();
        send.frame = QueuedFrame::default();
        None
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Self { last_message: self.last_message, ..Self::default() };
    }
}

/// Bytes that are reserved for a chunked frame before its data arrives.
const ASSEMBLY_BYTES_RESERVED: usize = 4 << 20;

/// Frames of which some chunks have arrived.
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
    /// Adds a chunk. Returns the bytes of the whole frame if it was the last one.
    ///
    /// # Errors
    ///
    /// Description of the mistake in the chunk.
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
                return Err("too many chunked frames are open");
            }
            // Reserving by the announced length would let a peer allocate memory without sending
            // data.
            let bytes = BytesMut::with_capacity(frame_bytes.min(ASSEMBLY_BYTES_RESERVED));
            let partial = PartialFrame { frame_bytes, bytes };
            if self.open.insert(chunk.message, partial).is_some() {
                return Err("its frame has already started");
            }
        }
        if chunk.abandoned {
            return match self.open.remove(&chunk.message) {
                Some(_) => Ok(None),
                None => Err("its frame has not started"),
            };
        }
        let Some(partial) = self.open.get_mut(&chunk.message) else {
            return Err("its frame has not started");
        };
        if chunk.bytes.len() > partial.frame_bytes - partial.bytes.len() {
            return Err("it is longer than the rest of its frame");
        }
        partial.bytes.put_slice(&chunk.bytes);
        if !chunk.last {
            return Ok(None);
        }
        match self.open.remove(&chunk.message) {
            Some(whole) if whole.bytes.len() == whole.frame_bytes => Ok(Some(whole.bytes)),
            _ => Err("it is the last, but its frame is incomplete"),
        }
    }

    /// Drops the incomplete frames.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }
}

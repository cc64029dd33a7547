//! Frames on their way from the session to the link.

use super::{CallStage, Session};
use crate::config::{ACK_PIGGYBACK_INTERVAL, CHUNK_BURST_BYTES};
use crate::session::WriteBatch;
use crate::session::calls::MessageKind;
use crate::session::chunking::ChunkedSendDone;
use crate::wire::Ack;

impl<T> Session<T> {
    /// Moves the bytes to write next into `batch`, which must be empty.
    ///
    /// Without a link there are none.
    pub fn take_outgoing(&mut self, batch: &mut WriteBatch) {
        if !self.has_outgoing() {
            return;
        }
        debug_assert!(self.is_ack_due(), "received frames have no ACK scheduled");
        // Before the frames: the ACK is tiny, and the peer frees memory with it.
        if self.inbound.ack_now || self.inbound.ack_piggyback {
            self.put_ack(batch);
        }
        self.write_chunks();
        self.send_buffer.drain_into(batch);
    }

    fn is_ack_due(&self) -> bool {
        let inbound = &self.inbound;
        inbound.received == inbound.acked || inbound.ack_now || inbound.ack_due.is_some()
    }

    fn put_ack(&mut self, batch: &mut WriteBatch) {
        let ack = Ack { received: self.inbound.received };
        // Not part of the send buffer: an ACK that is lost with its link is replaced by the next
        // handshake.
        self.unsequenced_handed_out += ack.put(&mut self.unsequenced);
        batch.push(self.unsequenced.split().freeze());
        self.ack_sent();
    }

    /// Marks everything received so far as acknowledged.
    pub(super) fn ack_sent(&mut self) {
        self.inbound.acked = self.inbound.received;
        self.inbound.unacked_bytes = 0;
        self.inbound.ack_due = None;
        self.inbound.ack_now = false;
        self.inbound.ack_piggyback = false;
        self.inbound.piggyback_after =
            self.inbound.last_received_at.map(|received_at| received_at + ACK_PIGGYBACK_INTERVAL);
    }

    /// Moves at most one burst of chunks into the send buffer.
    fn write_chunks(&mut self) {
        // The protocol allows no chunk after a goodbye.
        if self.is_closing() {
            return;
        }
        // Bounded, so that messages submitted meanwhile are interleaved with the chunks instead of
        // waiting behind a whole frame.
        let until = self.send_buffer.bytes() + CHUNK_BURST_BYTES;
        while !self.chunked.is_empty() && self.send_buffer.bytes() < until {
            if let Some(done) = self.chunked.write_chunk(&mut self.send_buffer, self.limits.chunk_bytes) {
                self.chunked_send_done(done);
            }
        }
        self.send_queued();
        self.send_goodbye_if_idle();
    }

    /// Accounts for a chunked frame that is complete in the send buffer, or was abandoned.
    pub(super) fn chunked_send_done(&mut self, done: ChunkedSendDone) {
        match (done.content, done.end) {
            (MessageKind::Call(call), Some(end)) => self.calls.set_stage(call, CallStage::Sent(end)),
            (MessageKind::Tell, Some(end)) => self.send_buffer.count_tell(end),
            (_, _) => {}
        }
        let Some(target) = done.target else { return };
        // The receiver charges a chunked frame when its last chunk arrives: one that was abandoned
        // never used its window.
        if done.end.is_none() {
            self.flows.refund(target, done.frame_bytes);
        }
        self.flows.chunking_done(target);
        self.waiters.touch(target);
    }

    /// Records that the kernel has accepted `bytes` more of the bytes taken.
    pub fn on_written(&mut self, bytes: usize) {
        // ACKs are written before the frames of their batch, so the first bytes written are theirs.
        let unsequenced = bytes.min(self.unsequenced_handed_out);
        self.unsequenced_handed_out -= unsequenced;
        self.send_buffer.on_written(bytes - unsequenced);
    }

    /// Returns whether there are bytes to take.
    #[must_use]
    pub fn has_outgoing(&self) -> bool {
        let chunks = !self.chunked.is_empty() && !self.is_closing();
        // `ack_piggyback` is missing on purpose: alone it is no reason to write.
        self.attached && (self.send_buffer.has_untaken() || chunks || self.inbound.ack_now)
    }

    /// Bytes in flight: not written, or not acknowledged. Queued messages are not included.
    #[must_use]
    pub fn outgoing_bytes(&self) -> usize {
        self.send_buffer.bytes() + self.chunked.bytes()
    }

    /// Bytes in flight that no kernel has on this link. After a goodbye, chunks are no longer sent.
    #[must_use]
    pub fn unwritten_bytes(&self) -> usize {
        let chunks = if self.is_closing() { 0 } else { self.chunked.bytes() };
        self.send_buffer.unwritten() + chunks
    }

    /// Frames that were ever ready to be written, each counted once.
    #[must_use]
    pub fn frames_appended(&self) -> u64 {
        self.send_buffer.appended()
    }

    /// Bytes that are queued for an actor's credit, or for a link.
    #[must_use]
    pub fn send_queue_bytes(&self) -> usize {
        self.flows.queued_bytes()
    }
}

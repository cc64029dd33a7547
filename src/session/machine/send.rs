//! What the link takes.

use super::{CallStage, Session};
use crate::config::{ACK_PIGGYBACK_INTERVAL, CHUNK_BURST_BYTES};
use crate::session::WriteBatch;
use crate::session::calls::Content;
use crate::session::chunking::ChunkedSendDone;
use crate::wire::Ack;

impl<T> Session<T> {
    /// Adds to `batch`, which is to be empty, what is to be written next.
    ///
    /// Without a link there is nothing to take.
    pub fn take_outgoing(&mut self, batch: &mut WriteBatch) {
        if !self.has_outgoing() {
            return;
        }
        debug_assert!(self.is_ack_due(), "frames have come, and no acknowledgement is owed for them");
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
        self.unsequenced_handed_out += ack.put(&mut self.unsequenced);
        batch.push(self.unsequenced.split().freeze());
        self.ack_sent();
    }

    /// The peer is being told of all that has come.
    pub(super) fn ack_sent(&mut self) {
        self.inbound.acked = self.inbound.received;
        self.inbound.unacked_bytes = 0;
        self.inbound.ack_due = None;
        self.inbound.ack_now = false;
        self.inbound.ack_piggyback = false;
        self.inbound.piggyback_after =
            self.inbound.last_received_at.map(|came| came + ACK_PIGGYBACK_INTERVAL);
    }

    /// Puts as many chunks into the log as are to go out at once.
    fn write_chunks(&mut self) {
        if self.is_closing() {
            return;
        }
        let until = self.send_buffer.bytes() + CHUNK_BURST_BYTES;
        while !self.chunked.is_empty() && self.send_buffer.bytes() < until {
            if let Some(left) = self.chunked.write_chunk(&mut self.send_buffer, self.limits.chunk_bytes) {
                self.chunked_send_done(left);
            }
        }
        self.send_queued();
        self.say_goodbye_if_idle();
    }

    /// A large frame is wholly in the log, or will never be.
    pub(super) fn chunked_send_done(&mut self, left: ChunkedSendDone) {
        match (left.content, left.end) {
            (Content::Call(call), Some(end)) => self.calls.set_stage(call, CallStage::Sent(end)),
            (Content::Tell, Some(end)) => self.send_buffer.count_tell(end),
            (_, _) => {}
        }
        let Some(target) = left.target else { return };
        if left.end.is_none() {
            self.flows.refund(target, left.frame_bytes);
        }
        self.flows.chunking_done(target);
        self.waiters.touch(target);
    }

    /// Notes that the kernel has so many bytes more of what was taken.
    pub fn on_written(&mut self, bytes: usize) {
        let unnumbered = bytes.min(self.unsequenced_handed_out);
        self.unsequenced_handed_out -= unnumbered;
        self.send_buffer.on_written(bytes - unnumbered);
    }

    /// Whether there are bytes to take.
    #[must_use]
    pub fn has_outgoing(&self) -> bool {
        let chunks = !self.chunked.is_empty() && !self.is_closing();
        self.attached && (self.send_buffer.has_untaken() || chunks || self.inbound.ack_now)
    }

    /// The bytes on their way: not written, or not acknowledged. What is parked is not among them.
    #[must_use]
    pub fn outgoing_bytes(&self) -> usize {
        self.send_buffer.bytes() + self.chunked.bytes()
    }

    /// The bytes on their way that no kernel has on this link. Behind a goodbye nothing is on its way.
    #[must_use]
    pub fn unwritten_bytes(&self) -> usize {
        let chunks = if self.is_closing() { 0 } else { self.chunked.bytes() };
        self.send_buffer.unwritten() + chunks
    }

    /// The bytes that wait for an actor's credit, or for a link.
    #[must_use]
    pub fn parked_bytes(&self) -> usize {
        self.flows.parked_bytes()
    }
}

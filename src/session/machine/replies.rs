//! Ending the peer's calls, and giving back what its messages took.

use super::{QueuedFrame, Session};
use crate::config::FAILURE_TEXT_CHARS_MAX;
use crate::id::{CallId, Target};
use crate::session::CreditCharge;
use crate::session::calls::Content;
use crate::wire::{CallFailure, Credit, Encoded, Failure, FrameSink, Reply};

impl<T> Session<T> {
    /// Ends a call of the peer with its reply, whatever waits to be written.
    ///
    /// A reply over the frame limit becomes a failure that says so. Returns whether the call was
    /// open: if it was cancelled, or the session was reset since, nothing is sent.
    pub fn reply(&mut self, call: CallId, body: Encoded<'_>) -> bool {
        let (size, limit) = (Reply::frame_bytes(body), self.frame_bytes_max);
        if size > limit {
            return self.fail(call, &CallFailure::ReplyTooLarge { size: size as u64, limit: limit as u64 });
        }
        if self.inbound.dedup.is_running(call) {
            self.cache_reply(call, body);
        }
        if !self.close_inbound_call(call) {
            return false;
        }
        if size > self.limits.chunk_bytes {
            self.reply_in_chunks(call, body);
        } else {
            self.send_buffer.push(|out| Reply::put(call, body, out));
        }
        self.say_goodbye_if_idle();
        true
    }

    #[inline(never)]
    fn reply_in_chunks(&mut self, call: CallId, body: Encoded<'_>) {
        self.chunked.push(Content::Other, None, QueuedFrame::of(|out| Reply::put(call, body, out)));
    }

    /// The end of a call that may be made again, which is kept.
    #[inline(never)]
    fn cache_reply(&mut self, call: CallId, body: Encoded<'_>) {
        let mut frame = bytes::BytesMut::with_capacity(Reply::frame_bytes(body));
        Reply::put(call, body, &mut frame);
        self.inbound.dedup.store_reply(call, frame.freeze());
    }

    /// Ends a call of the peer without a reply, whatever waits to be written.
    ///
    /// Returns whether the call was open: if it was cancelled, or the session was reset since,
    /// nothing is sent.
    pub fn fail(&mut self, call: CallId, failure: &CallFailure) -> bool {
        if self.inbound.dedup.is_running(call) {
            if failure.handler_ran() {
                let mut frame = bytes::BytesMut::new();
                Failure::put(call, &self.truncated(failure), &mut frame);
                self.inbound.dedup.store_reply(call, frame.freeze());
            } else {
                self.inbound.dedup.forget(call);
            }
        }
        if !self.close_inbound_call(call) {
            return false;
        }
        self.put_failure(call, failure);
        self.say_goodbye_if_idle();
        true
    }

    /// Sends the end that a repeated call had when it came first.
    pub(super) fn resend_cached_reply(&mut self, frame: &bytes::Bytes) {
        if frame.len() > self.limits.chunk_bytes {
            let put = |out: &mut QueuedFrame| {
                out.put_bytes(frame);
                frame.len()
            };
            self.chunked.push(Content::Other, None, QueuedFrame::of(put));
        } else {
            self.send_buffer.push(|out| {
                out.put_bytes(frame);
                frame.len()
            });
        }
    }

    /// Takes a call of the peer off the books; says whether it was still owed an end.
    #[inline(always)]
    fn close_inbound_call(&mut self, call: CallId) -> bool {
        self.inbound.calls.remove(call).is_some() || {
            // It may be one that was cancelled.
            self.inbound.cancelled.remove(&call);
            false
        }
    }

    /// Whether the peer has cancelled this call of its own, and its handler is not done with.
    #[must_use]
    pub fn is_cancelled(&self, call: CallId) -> bool {
        self.inbound.cancelled.contains(&call)
    }

    /// How many calls of the peer are cancelled whose handlers are not done with.
    #[must_use]
    pub fn cancelled_calls(&self) -> usize {
        self.inbound.cancelled.len()
    }

    pub(super) fn put_failure(&mut self, call: CallId, failure: &CallFailure) {
        let short = self.truncated(failure);
        self.send_buffer.push(|out| Failure::put(call, &short, out));
    }

    /// A failure has two texts at most, and a character four bytes at most: half of what a frame
    /// may have for both leaves more than enough for the rest. It is never in chunks.
    fn truncated(&self, failure: &CallFailure) -> CallFailure {
        failure.clone().truncated_to(
            (self.frame_bytes_max.min(self.limits.chunk_bytes) / 16).min(FAILURE_TEXT_CHARS_MAX),
        )
    }

    /// A message is handled: its handler has begun, or it was dropped. Gives back what it took of
    /// its actor's window. Returns whether the peer is to be told of it now.
    #[inline(always)]
    pub fn release_credit(&mut self, claim: CreditCharge) -> bool {
        if claim.epoch != self.inbound.epoch {
            return false;
        }
        let withhold = self.send_buffer.bytes() > self.limits.outgoing_bytes_max;
        let owed = self.inbound.flows.release(claim.target, claim.bytes, withhold);
        owed.inspect(|bytes| self.put_credit(claim.target, *bytes)).is_some()
    }

    /// Gives back what was withheld while the peer had too much to read: replies are outside of all
    /// budgets, and a peer that does not take them is not to make more calls.
    pub(super) fn release_deferred_credit(&mut self) {
        if self.send_buffer.bytes() <= self.limits.outgoing_bytes_max {
            for (target, bytes) in self.inbound.flows.take_deferred() {
                self.put_credit(target, bytes);
            }
        }
    }

    pub(super) fn put_credit(&mut self, target: Target, bytes: u64) {
        self.send_buffer.push(|out| Credit { target, bytes }.put(out));
    }
}

//! Outcomes of the peer's calls, and the credit of its messages.

use super::{QueuedFrame, Session};
use crate::config::FAILURE_TEXT_CHARS_MAX;
use crate::id::{CallId, Target};
use crate::session::CreditCharge;
use crate::session::calls::MessageKind;
use crate::session::dedup::CachedOutcome;
use crate::wire::{CallFailure, Credit, Encoded, Failure, FrameSink, Reply, ShortSlice, ShortWords};

impl<T> Session<T> {
    /// Ends a call of the peer with its reply. The budgets do not apply.
    ///
    /// A reply over the frame limit becomes a [`CallFailure::ReplyTooLarge`]. Returns whether the
    /// call was open: after a cancellation or a reset nothing is sent.
    pub fn reply(&mut self, call: CallId, body: Encoded<'_>) -> bool {
        let (size, limit) = (Reply::frame_bytes(body), self.frame_bytes_max);
        if size > limit {
            return self.fail(call, &CallFailure::ReplyTooLarge { size: size as u64, limit: limit as u64 });
        }
        // Cached even if the call was cancelled meanwhile: a retry must find this reply instead of
        // running the handler again.
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
        self.send_goodbye_if_idle();
        true
    }

    #[inline(never)]
    fn reply_in_chunks(&mut self, call: CallId, body: Encoded<'_>) {
        self.chunked.push(MessageKind::Other, None, QueuedFrame::of(|out| Reply::put(call, body, out)));
    }

    /// Stores the reply of a retryable call, for the peer's next attempt.
    #[inline(never)]
    fn cache_reply(&mut self, call: CallId, body: Encoded<'_>) {
        let outcome = match ShortSlice::new(body.message) {
            Some(short) if body.attachments.is_empty() => {
                CachedOutcome::Short(ShortWords::from(short).into())
            }
            _ => {
                let mut frame = bytes::BytesMut::with_capacity(Reply::frame_bytes(body));
                Reply::put(call, body, &mut frame);
                CachedOutcome::Frame(frame.freeze())
            }
        };
        self.inbound.dedup.store(call, outcome);
    }

    /// Ends a call of the peer without a reply. The budgets do not apply.
    ///
    /// Returns whether the call was open: after a cancellation or a reset nothing is sent.
    pub fn fail(&mut self, call: CallId, failure: &CallFailure) -> bool {
        if self.inbound.dedup.is_running(call) {
            // A retry after a failure without a handler run may succeed, so only the others are
            // cached.
            if failure.handler_ran() {
                let mut frame = bytes::BytesMut::new();
                Failure::put(call, &self.truncated(failure), &mut frame);
                self.inbound.dedup.store(call, CachedOutcome::Frame(frame.freeze()));
            } else {
                self.inbound.dedup.forget(call);
            }
        }
        if !self.close_inbound_call(call) {
            return false;
        }
        self.put_failure(call, failure);
        self.send_goodbye_if_idle();
        true
    }

    /// Sends the cached outcome of a retried call again.
    pub(super) fn resend_cached_outcome(&mut self, call: CallId, outcome: &CachedOutcome) {
        let frame = match outcome {
            CachedOutcome::Short(body) => {
                self.send_buffer.push(|out| Reply::put(call, Encoded::of(body), out));
                return;
            }
            CachedOutcome::Frame(frame) => frame,
        };
        if frame.len() > self.limits.chunk_bytes {
            let put = |out: &mut QueuedFrame| {
                out.put_bytes(frame);
                frame.len()
            };
            self.chunked.push(MessageKind::Other, None, QueuedFrame::of(put));
        } else {
            self.send_buffer.push(|out| {
                out.put_bytes(frame);
                frame.len()
            });
        }
    }

    /// Removes an inbound call. Returns whether it had no outcome yet.
    #[inline(always)]
    fn close_inbound_call(&mut self, call: CallId) -> bool {
        self.inbound.calls.remove(call).is_some() || {
            // A cancelled call ends here, too: its reply has no receiver.
            self.inbound.cancelled.remove(&call);
            false
        }
    }

    /// Returns whether the peer has cancelled this call and its handler still runs.
    #[must_use]
    pub fn is_cancelled(&self, call: CallId) -> bool {
        self.inbound.cancelled.contains(&call)
    }

    /// Number of the peer's calls that are cancelled and whose handlers still run.
    #[must_use]
    pub fn cancelled_calls(&self) -> usize {
        self.inbound.cancelled.len()
    }

    pub(super) fn put_failure(&mut self, call: CallId, failure: &CallFailure) {
        let short = self.truncated(failure);
        self.send_buffer.push(|out| Failure::put(call, &short, out));
    }

    /// Cuts the texts of a failure so that its frame is never chunked: a failure has at most two
    /// texts of four bytes a character, and half of the frame limit is left for both.
    fn truncated(&self, failure: &CallFailure) -> CallFailure {
        failure.clone().truncated_to(
            (self.frame_bytes_max.min(self.limits.chunk_bytes) / 16).min(FAILURE_TEXT_CHARS_MAX),
        )
    }

    /// Releases the window bytes of a message whose handler has started, or that was dropped.
    /// Returns whether a Credit frame was queued.
    #[inline(always)]
    pub fn release_credit(&mut self, charge: CreditCharge) -> bool {
        if charge.epoch != self.inbound.epoch {
            return false;
        }
        let defer = self.send_buffer.bytes() > self.limits.outgoing_bytes_max;
        let owed = self.inbound.flows.release(charge.target, charge.bytes, defer);
        owed.inspect(|bytes| self.put_credit(charge.target, *bytes)).is_some()
    }

    /// Returns the credit that was deferred while the send buffer was over its limit.
    ///
    /// Replies are outside of all budgets. A peer that does not read its replies gets no credit for
    /// more calls, which bounds the replies that accumulate for it.
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

//! Handling of the frames that the peer sends.

use std::time::{Duration, Instant};

use super::{CallStage, Session};
use crate::config::{ACK_DELAY, InjectedBug, MESSAGE_OVERHEAD_BYTES};
use crate::id::{CallId, Target};
use crate::session::dedup::DuplicateState;
use crate::session::{CallError, CreditCharge, Event, Events, SessionError};
use crate::wire::{
    Ack, CallFailure, CallHeader, Cancel, Credit, Failure, Frame, FrameKind, Goodbye, IncomingBody, Reply,
    Schemas, TellHeader, Watermark,
};

impl<T> Session<T> {
    /// Handles the peer's next frame.
    ///
    /// The outcome of a call that is not open is dropped: the call may have timed out or been
    /// cancelled.
    ///
    /// # Errors
    ///
    /// When the peer violates the protocol. Close the link, then call `reset`.
    pub fn receive(
        &mut self,
        now: Instant,
        frame: Frame,
        events: &mut impl Events<T>,
    ) -> Result<(), SessionError> {
        self.check_expected(frame.kind())?;
        if frame.is_sequenced() {
            self.count_received(retained_bytes(&frame));
            self.schedule_ack(now);
        }
        self.on_frame(now, frame, events)
    }

    /// Handles a Call frame of `frame_bytes` bytes, without its ACK.
    ///
    /// Otherwise the same as [`receive`](Self::receive). The caller must call
    /// [`schedule_ack`](Self::schedule_ack) once for all frames of one read.
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive).
    #[inline(always)]
    pub fn receive_call(
        &mut self,
        now: Instant,
        call: CallHeader,
        frame_bytes: usize,
        body: impl IncomingBody,
        events: &mut impl Events<T>,
    ) -> Result<(), SessionError> {
        self.check_expected(FrameKind::Call)?;
        self.count_received(frame_bytes);
        self.on_call(now, call, frame_bytes, body, events)
    }

    /// Handles a Tell frame of `frame_bytes` bytes; see [`receive_call`](Self::receive_call).
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive).
    #[inline(always)]
    pub fn receive_tell(
        &mut self,
        tell: TellHeader,
        frame_bytes: usize,
        body: impl IncomingBody,
        events: &mut impl Events<T>,
    ) -> Result<(), SessionError> {
        self.check_expected(FrameKind::Tell)?;
        self.count_received(frame_bytes);
        self.on_tell(tell, frame_bytes, body, events)
    }

    /// Handles a Reply frame of `frame_bytes` bytes; see [`receive_call`](Self::receive_call).
    ///
    /// Returns the slot of the call if it was open, instead of an event.
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive).
    #[inline(always)]
    pub fn receive_reply(&mut self, call: CallId, frame_bytes: usize) -> Result<Option<T>, SessionError> {
        self.check_expected(FrameKind::Reply)?;
        self.count_received(frame_bytes);
        Ok(self.complete_call(call))
    }

    #[inline(always)]
    fn check_expected(&self, kind: FrameKind) -> Result<(), SessionError> {
        if !self.attached {
            return Err(SessionError::Detached { kind });
        }
        if self.peer_closing && !allowed_after_goodbye(kind) {
            return Err(SessionError::AfterGoodbye { kind });
        }
        Ok(())
    }

    /// Counts a sequenced frame, which the peer retains until it is acknowledged.
    #[inline(always)]
    fn count_received(&mut self, bytes: usize) {
        self.inbound.received += 1;
        self.inbound.unacked_bytes += bytes;
    }

    /// Schedules the ACK of the frames received by `now`.
    pub fn schedule_ack(&mut self, now: Instant) {
        let inbound = &mut self.inbound;
        if inbound.received == inbound.acked {
            return;
        }
        // `ack_bytes` is at most a quarter of the peer's send buffer: a full one rejects messages.
        inbound.ack_now |= inbound.unacked_bytes >= inbound.ack_bytes;
        inbound.ack_piggyback |= inbound.unacked_bytes >= inbound.ack_bytes / 4
            || inbound.piggyback_after.is_none_or(|until| until <= now);
        inbound.last_received_at = Some(now);
        if inbound.ack_due.is_none() {
            inbound.ack_due = Some(now + ACK_DELAY);
        }
    }

    fn on_frame(
        &mut self,
        now: Instant,
        frame: Frame,
        events: &mut impl Events<T>,
    ) -> Result<(), SessionError> {
        match frame {
            Frame::Call(call) => {
                let (header, frame_bytes) = (call.header(), call.frame_bytes());
                return self.on_call(now, header, frame_bytes, call.body, events);
            }
            Frame::Tell(tell) => {
                let (header, frame_bytes) = (tell.header(), tell.frame_bytes());
                return self.on_tell(header, frame_bytes, tell.body, events);
            }
            Frame::Reply(Reply { call, body }) => {
                if let Some(call_slot) = self.complete_call(call) {
                    events.push(Event::Replied { call_slot, body });
                }
            }
            Frame::Failure(Failure { call, failure }) => {
                let failure = CallError::Remote(failure);
                if let Some(call_slot) = self.complete_call(call) {
                    events.push(Event::Failed { call_slot, failure });
                }
            }
            Frame::Cancel(Cancel { call }) => self.on_cancel(call, events),
            Frame::Ack(Ack { received }) => {
                if !self.acknowledge(received) {
                    return Err(SessionError::Ack { received });
                }
                // Acknowledged bytes free capacity on the link, and end the reason to defer credit.
                self.release_deferred_credit();
                self.send_queued();
            }
            Frame::Credit(Credit { target, bytes }) => {
                if !self.flows.add_credit(target, bytes) {
                    return Err(SessionError::Credit { target, bytes });
                }
                self.waiters.touch(target);
                self.send_queued();
                self.send_goodbye_if_idle();
            }
            Frame::Chunk(chunk) => {
                let limit = self.limits.frame_bytes_max;
                let taken = self.inbound.assembly.take(&chunk, limit);
                let whole = taken.map_err(|what| SessionError::Chunk { what })?;
                let Some(bytes) = whole else { return Ok(()) };
                let frame = Frame::parse(bytes, limit)?;
                return match frame.kind() {
                    // No other kind can be large. A chunk inside of chunks would let the peer
                    // control the recursion depth of this function.
                    FrameKind::Call | FrameKind::Tell | FrameKind::Reply => self.on_frame(now, frame, events),
                    kind => Err(SessionError::UnexpectedFrame { kind }),
                };
            }
            Frame::Watermark(Watermark { call }) => self.inbound.dedup.advance_watermark(call),
            Frame::Schemas(Schemas { body }) if !self.inbound.schemas_received => {
                self.inbound.schemas_received = true;
                events.push(Event::Schemas { body });
            }
            Frame::Goodbye(Goodbye { reason }) => {
                self.peer_closing = true;
                self.wake_all_waiters();
                // The peer waits with closing its link until all of its frames are acknowledged: a
                // delayed ACK would delay that by `ACK_DELAY`.
                self.inbound.ack_now = true;
                events.push(Event::PeerClosing { reason });
            }
            frame => return Err(SessionError::UnexpectedFrame { kind: frame.kind() }),
        }
        Ok(())
    }

    /// Releases the frames that the peer has received. Returns `false` if it cannot have received
    /// them.
    fn acknowledge(&mut self, received: u64) -> bool {
        // The simulation injects this bug to prove that its checks detect it.
        let early = self.limits.injected_bug == Some(InjectedBug::EarlyAck);
        (early && self.send_buffer.acknowledge(received + 1)) || self.send_buffer.acknowledge(received)
    }

    /// Removes a call with its outcome. If it was the last one of a closing side, the goodbye
    /// follows.
    #[inline(always)]
    fn complete_call(&mut self, call: CallId) -> Option<T> {
        let open = self.calls.remove(call);
        if let Some(open) = &open
            && !matches!(open.stage, CallStage::Sent(_))
        {
            // The outcome belongs to an earlier attempt, and the peer has received nothing of this
            // one. The queued attempt is withdrawn, or the peer would execute it, or replay its
            // reply, for no caller.
            self.cancel_at_peer(call, open.stage);
        }
        self.send_goodbye_if_idle();
        open.map(|open| open.call_slot)
    }

    #[inline(always)]
    fn on_call(
        &mut self,
        now: Instant,
        header: CallHeader,
        frame_bytes: usize,
        body: impl IncomingBody,
        events: &mut impl Events<T>,
    ) -> Result<(), SessionError> {
        let CallHeader { call, target, message, timeout_ms, low_watermark: watermark } = header;
        // Before anything else: without credit the message is a violation, whatever would become of
        // it.
        let charge = self.charge(target, frame_bytes)?;
        // While the handler of a cancelled call runs, its late reply would be taken as that of the
        // new call.
        let cancelled = &self.inbound.cancelled;
        let twice = watermark.is_none() && !cancelled.is_empty() && cancelled.contains(&call);
        if twice || !self.inbound.calls.insert(call, || ()) {
            return Err(SessionError::CallTwice { call });
        }
        // The credit must return here, as no handler takes this message.
        if self.closing.is_some() {
            self.inbound.calls.remove(call);
            self.release_credit(charge);
            self.put_failure(call, &CallFailure::Closing);
            return Ok(());
        }
        if let Some(watermark) = watermark {
            self.inbound.dedup.advance_watermark(watermark);
            if let Some(known) = self.inbound.dedup.observe(call) {
                self.inbound.calls.remove(call);
                self.release_credit(charge);
                self.replay_reply(call, known);
                return Ok(());
            }
        }
        // The wire carries the remaining time instead of an instant, as the clocks of two hosts
        // differ.
        let deadline = (timeout_ms > 0).then(|| now + Duration::from_millis(timeout_ms.into()));
        events.call(call, (target, message), deadline, body, charge);
        Ok(())
    }

    /// Answers a retry of a call that was received before with its first outcome, now or later.
    fn replay_reply(&mut self, call: CallId, known: DuplicateState) {
        match known {
            DuplicateState::Running => {
                // The first attempt was cancelled but its handler still runs: its reply now belongs
                // to the retry.
                self.inbound.cancelled.remove(&call);
                let _ = self.inbound.calls.insert(call, || ());
            }
            DuplicateState::Ended(outcome) => self.resend_cached_outcome(call, &outcome),
            DuplicateState::Lost => self.put_failure(call, &CallFailure::NoReply),
        }
    }

    #[inline(always)]
    fn on_tell(
        &mut self,
        header: TellHeader,
        frame_bytes: usize,
        body: impl IncomingBody,
        events: &mut impl Events<T>,
    ) -> Result<(), SessionError> {
        let TellHeader { target, message } = header;
        let charge = self.charge(target, frame_bytes)?;
        events.tell((target, message), body, charge);
        Ok(())
    }

    /// Charges a message to its actor's window, for which the peer must have credit.
    #[inline(always)]
    fn charge(&mut self, target: Target, frame_bytes: usize) -> Result<CreditCharge, SessionError> {
        // Actors come and go: idle flows of stopped actors would stay in the table for ever.
        if self.inbound.flows.needs_sweep() {
            for (target, owed) in self.inbound.flows.sweep() {
                self.put_credit(target, owed);
            }
        }
        let bytes = self.inbound.flows.cost(frame_bytes);
        if !self.inbound.flows.accept(target, bytes) {
            return Err(SessionError::NoCredit { target });
        }
        Ok(CreditCharge { target, bytes, epoch: self.inbound.epoch })
    }

    /// Handles a Cancel frame: a call that was not delivered to its actor yet is dropped.
    fn on_cancel(&mut self, cancelled: CallId, events: &mut impl Events<T>) {
        if self.inbound.calls.remove(cancelled).is_none() {
            // The reply and the Cancel frame crossed.
            return;
        }
        // The call is still in the batch of this read: no actor has seen it, and its credit returns
        // now. Its handler never ran, so a retry must not be answered from the cache.
        if let Some(charge) = events.cancel_undelivered(cancelled) {
            if self.limits.injected_bug != Some(InjectedBug::LostCredit) {
                self.release_credit(charge);
            }
            self.inbound.dedup.forget(cancelled);
        } else {
            self.inbound.cancelled.insert(cancelled);
            events.push(Event::Cancelled { call: cancelled });
        }
        self.send_goodbye_if_idle();
    }
}

/// Approximate bytes that a frame occupies in the peer's send buffer.
fn retained_bytes(frame: &Frame) -> usize {
    match frame {
        Frame::Call(call) => call.frame_bytes(),
        Frame::Tell(tell) => tell.frame_bytes(),
        Frame::Reply(reply) => Reply::frame_bytes(reply.body.as_encoded()),
        Frame::Chunk(chunk) => chunk.bytes.len(),
        _ => MESSAGE_OVERHEAD_BYTES,
    }
}

/// Returns whether a peer that has sent its goodbye may still send such a frame.
fn allowed_after_goodbye(kind: FrameKind) -> bool {
    matches!(
        kind,
        FrameKind::Reply | FrameKind::Failure | FrameKind::Cancel | FrameKind::Ack | FrameKind::Credit
    )
}

//! What a link brings: that it is there, the peer's frames, and its end.

use std::time::{Duration, Instant};

use super::{Session, Written};
use crate::id::CallId;
use crate::session::outbox::Content;
use crate::session::{Event, Failed, LinkLoss, SessionError};
use crate::wire::{Call, CallFailure, Cancel, Failure, Frame, FrameKind, Goodbye, Reply, Tell};

impl<T> Session<T> {
    /// Notes that a link is there, whose peer accepts frames of so many bytes.
    ///
    /// Messages that were queued and are over the peer's limit are not sent; this is told with
    /// the next events, for which the timer is due at once.
    pub fn attach(&mut self, now: Instant, peer_frame_bytes_max: usize) {
        self.attached = true;
        self.frame_bytes_max = self.limits.frame_bytes_max.min(peer_frame_bytes_max);
        if self.frame_bytes_max < self.limits.frame_bytes_max {
            self.drop_too_large(now);
        }
        self.say_goodbye_if_idle();
    }

    fn drop_too_large(&mut self, now: Instant) {
        let limit = self.frame_bytes_max;
        let mut too_large = Vec::new();
        self.outbox.retain(|content, bytes| {
            if bytes > limit {
                too_large.push((content, bytes));
            }
            bytes <= limit
        });
        let mut events = Vec::new();
        let mut tells = 0;
        for (content, bytes) in too_large {
            match content {
                Content::Call(call) => {
                    let text =
                        format!("it accepts frames of {limit} bytes at most, and the call takes {bytes}");
                    let failure = Failed::NotDelivered(LinkLoss::Unreachable(text));
                    events.extend(self.end(call).map(|ticket| Event::Failed { ticket, failure }));
                }
                Content::Tell => tells += 1,
                Content::Other => {}
            }
        }
        events.extend((tells > 0).then_some(Event::DeadLetters { count: tells }));
        if !events.is_empty() {
            self.untold = Some((now, events));
        }
    }

    /// Notes that the link is gone: every open call ends, and everything queued is dropped.
    ///
    /// The writer's [`Batch`](crate::session::Batch) is of no use afterwards.
    pub fn detach(&mut self, loss: LinkLoss, known: Written, events: &mut Vec<Event<T>>) {
        self.tell_untold(events);
        if known == Written::Unsure {
            self.outbox.doubt_taken();
        }
        for open in self.calls.take_all() {
            let failure = if self.outbox.is_written(open.frame) {
                Failed::OutcomeUnknown(loss.clone())
            } else {
                Failed::NotDelivered(loss.clone())
            };
            events.push(Event::Failed { ticket: open.ticket, failure });
        }
        let count = self.outbox.clear();
        if count > 0 {
            events.push(Event::DeadLetters { count });
        }
        self.inbound.clear();
        self.cancelled.clear();
        self.attached = false;
        self.peer_left = false;
        self.frame_bytes_max = self.limits.frame_bytes_max;
        if let Some(leaving) = &mut self.leaving {
            leaving.said = false;
        }
    }

    /// Takes the peer's next frame.
    ///
    /// An end of a call that is not open is dropped: the caller may have given up meanwhile.
    ///
    /// # Errors
    ///
    /// When the peer breaks the protocol. Close the link then, and `detach`.
    pub fn receive(
        &mut self,
        now: Instant,
        frame: Frame,
        events: &mut Vec<Event<T>>,
    ) -> Result<(), SessionError> {
        let kind = frame.kind();
        if !self.attached {
            return Err(SessionError::Detached { kind });
        }
        if self.peer_left && !matches!(kind, FrameKind::Reply | FrameKind::Failure | FrameKind::Cancel) {
            return Err(SessionError::AfterGoodbye { kind });
        }
        self.tell_untold(events);
        match frame {
            Frame::Call(call) => return self.receive_call(now, call, events),
            Frame::Tell(Tell { target, message, body }) => events.push(Event::Tell { target, message, body }),
            Frame::Reply(Reply { call, body }) => {
                events.extend(self.end(call).map(|ticket| Event::Replied { ticket, body }));
            }
            Frame::Failure(Failure { call, failure }) => {
                let failure = Failed::ByPeer(failure);
                events.extend(self.end(call).map(|ticket| Event::Failed { ticket, failure }));
            }
            Frame::Cancel(Cancel { call }) => self.receive_cancel(call, events),
            Frame::Goodbye(Goodbye { reason }) => {
                self.peer_left = true;
                events.push(Event::PeerLeaves { reason });
            }
            Frame::Hello(_)
            | Frame::Challenge(_)
            | Frame::Proof(_)
            | Frame::Welcome(_)
            | Frame::Refused(_) => {
                return Err(SessionError::Handshake { kind });
            }
        }
        Ok(())
    }

    fn receive_call(
        &mut self,
        now: Instant,
        call: Call,
        events: &mut Vec<Event<T>>,
    ) -> Result<(), SessionError> {
        let Call { call, target, message, timeout_ms, body } = call;
        // Until the handler of a cancelled call is done with, its answer would end the new call.
        if self.inbound.contains(&call) || self.cancelled.contains(&call) {
            return Err(SessionError::CallTwice { call });
        }
        if self.leaving.is_some() {
            self.put_failure(call, &CallFailure::Closing);
            return Ok(());
        }
        self.inbound.insert(call);
        let deadline = (timeout_ms > 0).then(|| now + Duration::from_millis(timeout_ms.into()));
        events.push(Event::Call { call, target, message, deadline, body });
        Ok(())
    }

    /// A call that has not been handed over yet never will be.
    fn receive_cancel(&mut self, cancelled: CallId, events: &mut Vec<Event<T>>) {
        if !self.inbound.remove(&cancelled) {
            // It was answered before the peer's word came.
            return;
        }
        let unseen = |event: &Event<T>| matches!(event, Event::Call { call, .. } if *call == cancelled);
        if let Some(at) = events.iter().rposition(unseen) {
            events.remove(at);
        } else {
            self.cancelled.insert(cancelled);
            events.push(Event::Cancelled { call: cancelled });
        }
        self.say_goodbye_if_idle();
    }

    pub(super) fn tell_untold(&mut self, events: &mut Vec<Event<T>>) {
        if let Some((_, untold)) = self.untold.take() {
            events.extend(untold);
        }
    }
}

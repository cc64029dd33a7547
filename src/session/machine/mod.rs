//! The session of two hosts that have proved themselves: calls, tells and their ends.

mod incoming;
mod leaving;

use std::time::Instant;

use rustc_hash::FxHashSet;

use self::leaving::Leaving;
use super::calls::Calls;
use super::outbox::{Content, Outbox};
use super::{Batch, Event, Failed, Rejected};
use crate::config::{FRAME_BYTES_MAX, OUTGOING_BYTES_MAX};
use crate::id::{CallId, Target, TypeHash};
use crate::wire::{CallFailure, CallHeader, Cancel, Encoded, Failure, Reply, TellHeader};

/// What a session may hold and send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// How many bytes may wait to be written before messages are rejected.
    pub outgoing_bytes_max: usize,
    /// The longest frame, in bytes; that of the peer holds too while a link is there.
    pub frame_bytes_max: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { outgoing_bytes_max: OUTGOING_BYTES_MAX, frame_bytes_max: FRAME_BYTES_MAX }
    }
}

/// What this host and one peer have open with each other.
///
/// ```text
///            attach                 goodbye said or heard
/// detached ---------> attached ----------------------------> closing
///    ^                   |                                      |
///    +---------------- detach: every open call ends ------------+
/// ```
///
/// Messages may be queued while it is detached; they are written when a link is there. `T` is the
/// ticket of an open call, which comes back with the call's one end.
#[derive(Debug)]
pub struct Session<T> {
    limits: SessionLimits,
    /// The limit of both sides while a link is there, else that of this side.
    frame_bytes_max: usize,
    attached: bool,
    calls: Calls<T>,
    inbound: FxHashSet<CallId>,
    /// Calls of the peer that it has cancelled, and whose handler has not been done with yet.
    cancelled: FxHashSet<CallId>,
    outbox: Outbox,
    leaving: Option<Leaving>,
    peer_left: bool,
    /// What attaching brought about, and when; told with the next events.
    untold: Option<(Instant, Vec<Event<T>>)>,
}

/// What is known, when a link ends, about the bytes that its writer had taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The writer itself says that the link ended, and has told all that the kernel has.
    Told,
    /// The writer may be about to tell of more: everything that it took may have been written.
    Unsure,
}

/// Making calls and tells.
impl<T> Session<T> {
    /// A session without a link.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        Self {
            limits,
            frame_bytes_max: limits.frame_bytes_max,
            attached: false,
            calls: Calls::new(),
            inbound: FxHashSet::default(),
            cancelled: FxHashSet::default(),
            outbox: Outbox::default(),
            leaving: None,
            peer_left: false,
            untold: None,
        }
    }

    /// Queues a call. Its end comes as [`Event::Replied`] or [`Event::Failed`] with the ticket.
    ///
    /// # Errors
    ///
    /// When there is no room now, when the frame is too large, or when either side leaves. The
    /// ticket comes back.
    pub fn call(
        &mut self,
        now: Instant,
        target: Target,
        message: TypeHash,
        deadline: Option<Instant>,
        body: Encoded<'_>,
        ticket: T,
    ) -> Result<CallId, (Rejected, T)> {
        if let Err(rejected) = self.check(CallHeader::frame_bytes(body)) {
            return Err((rejected, ticket));
        }
        let call = self.calls.next_id();
        let timeout_ms = deadline.map_or(0, |deadline| remaining_ms(now, deadline));
        let header = CallHeader { call, target, message, timeout_ms };
        let frame = self.outbox.push(Content::Call(call), |out| header.put(body, out));
        self.calls.insert(call, frame, deadline, ticket);
        Ok(call)
    }

    /// Queues a message that has no reply.
    ///
    /// # Errors
    ///
    /// When there is no room now, when the frame is too large, or when either side leaves.
    pub fn tell(&mut self, target: Target, message: TypeHash, body: Encoded<'_>) -> Result<(), Rejected> {
        self.check(TellHeader::frame_bytes(body))?;
        self.outbox.push(Content::Tell, |out| TellHeader { target, message }.put(body, out));
        Ok(())
    }

    /// Whether a message of so many bytes may be queued.
    fn check(&self, frame_bytes: usize) -> Result<(), Rejected> {
        if self.leaving.is_some() || self.peer_left {
            return Err(Rejected::Closing);
        }
        if frame_bytes > self.frame_bytes_max {
            return Err(Rejected::TooLarge { size: frame_bytes, limit: self.frame_bytes_max });
        }
        if self.has_room_for(frame_bytes) {
            return Ok(());
        }
        Err(Rejected::Full {
            size: frame_bytes,
            waiting: self.outgoing_bytes(),
            limit: self.limits.outgoing_bytes_max,
        })
    }

    /// Gives a call's ticket back: nobody waits for it any more, and its end is not told.
    ///
    /// The peer is told, so that the call does not begin, or go on, there. Without a link the call
    /// is taken out of the queue.
    pub fn forget(&mut self, call: CallId) -> Option<T> {
        let ticket = self.end(call)?;
        if self.attached {
            self.put_cancel(call);
        } else {
            self.outbox.retain(|content, _| content != Content::Call(call));
        }
        Some(ticket)
    }

    fn put_cancel(&mut self, call: CallId) {
        self.outbox.push(Content::Other, |out| Cancel { call }.put(out));
    }

    /// Ends a call, and says goodbye behind the last if this side leaves.
    fn end(&mut self, call: CallId) -> Option<T> {
        let open = self.calls.remove(call);
        self.say_goodbye_if_idle();
        open.map(|open| open.ticket)
    }
}

/// Answering the peer's calls.
impl<T> Session<T> {
    /// Ends a call of the peer with its reply, whatever waits to be written.
    ///
    /// A reply over the frame limit becomes a failure that says so. Returns whether the call was
    /// open: if it was cancelled, or the link it came over is gone, nothing is sent.
    pub fn reply(&mut self, call: CallId, body: Encoded<'_>) -> bool {
        let (size, limit) = (Reply::frame_bytes(body), self.frame_bytes_max);
        if size > limit {
            return self.fail(call, &CallFailure::ReplyTooLarge { size: size as u64, limit: limit as u64 });
        }
        if !self.conclude(call) {
            return false;
        }
        self.outbox.push(Content::Other, |out| Reply::put(call, body, out));
        self.say_goodbye_if_idle();
        true
    }

    /// Ends a call of the peer without a reply, whatever waits to be written.
    ///
    /// Returns whether the call was open: if it was cancelled, or the link it came over is gone,
    /// nothing is sent.
    pub fn fail(&mut self, call: CallId, failure: &CallFailure) -> bool {
        if !self.conclude(call) {
            return false;
        }
        self.put_failure(call, failure);
        self.say_goodbye_if_idle();
        true
    }

    /// Takes a call of the peer off the books; says whether it was still owed an end.
    fn conclude(&mut self, call: CallId) -> bool {
        self.inbound.remove(&call) || {
            self.cancelled.remove(&call);
            false
        }
    }

    /// Whether the peer has cancelled this call of its own, and its handler is not done with.
    #[must_use]
    pub fn is_cancelled(&self, call: CallId) -> bool {
        self.cancelled.contains(&call)
    }

    /// How many calls of the peer are cancelled whose handlers are not done with.
    #[must_use]
    pub fn cancelled_calls(&self) -> usize {
        self.cancelled.len()
    }

    fn put_failure(&mut self, call: CallId, failure: &CallFailure) {
        // A failure has two texts at most, and a character four bytes at most: half the frame
        // limit for both leaves more than enough for the rest.
        let short = failure.clone().with_texts_of(self.frame_bytes_max / 16);
        self.outbox.push(Content::Other, |out| Failure::put(call, &short, out));
    }
}

/// What the link takes.
impl<T> Session<T> {
    /// Moves everything queued into `batch`, which is to be empty, by a swap.
    ///
    /// Without a link there is nothing to take.
    pub fn take_outgoing(&mut self, batch: &mut Batch) {
        if self.attached {
            self.outbox.take(batch);
        }
    }

    /// Notes that the kernel has so many bytes more of what was taken.
    pub fn wrote(&mut self, bytes: usize) {
        self.outbox.wrote(bytes);
    }

    /// Whether there are bytes to take.
    #[must_use]
    pub fn has_outgoing(&self) -> bool {
        self.attached && self.outbox.has_queued()
    }

    /// The bytes that wait to be written, those taken but not written included.
    #[must_use]
    pub fn outgoing_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// Whether a frame of so many bytes would be taken now, as far as the budget goes.
    ///
    /// One frame always fits, or a frame above the budget could never be sent.
    #[must_use]
    pub fn has_room_for(&self, frame_bytes: usize) -> bool {
        let waiting = self.outgoing_bytes();
        waiting == 0 || waiting.saturating_add(frame_bytes) <= self.limits.outgoing_bytes_max
    }
}

/// Time and counts.
impl<T> Session<T> {
    /// When [`on_timeout`](Self::on_timeout) is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let untold = self.untold.as_ref().map(|(since, _)| *since);
        untold.into_iter().chain(self.calls.deadline()).min()
    }

    /// Ends the calls whose time is up.
    ///
    /// Without a link their frames are taken out of the queue. With one they may be written
    /// already or go out yet; the peer is told that nobody waits any more.
    pub fn on_timeout(&mut self, now: Instant, events: &mut Vec<Event<T>>) {
        self.tell_untold(events);
        let mut unsent = FxHashSet::default();
        while let Some((call, open)) = self.calls.pop_expired(now) {
            if self.attached {
                self.put_cancel(call);
            } else {
                unsent.insert(Content::Call(call));
            }
            let failure = Failed::TimedOut { written: self.attached };
            events.push(Event::Failed { ticket: open.ticket, failure });
        }
        if !unsent.is_empty() {
            self.outbox.retain(|content, _| !unsent.contains(&content));
        }
        self.say_goodbye_if_idle();
    }

    /// How many calls made here wait for their end.
    #[must_use]
    pub fn open_calls(&self) -> usize {
        self.calls.len()
    }

    /// How many calls of the peer are not answered.
    #[must_use]
    pub fn inbound_calls(&self) -> usize {
        self.inbound.len()
    }
}

/// The milliseconds until `deadline`, rounded up; at least one, since none means no deadline.
fn remaining_ms(now: Instant, deadline: Instant) -> u32 {
    let remaining = deadline.saturating_duration_since(now).as_nanos().div_ceil(1_000_000);
    u32::try_from(remaining).unwrap_or(u32::MAX).max(1)
}

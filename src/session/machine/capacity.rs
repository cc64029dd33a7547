//! Capacity for messages: the budgets, and the senders that wait for them.

use std::time::Instant;

use super::{Admission, Session};
use crate::config;
use crate::id::Target;
use crate::session::Rejected;
use crate::session::calls::MessageKind;
use crate::session::waiters::{Budget, Capacity, Waiter, WaiterId};

/// Head of a line of messages, and the total of bytes sent when it became the head.
///
/// Replies are outside of all budgets but occupy the link. The head waits only for what was in
/// flight before it; if it also waited for later replies, a steady stream of them could starve it.
pub(super) type LineHead<N> = Option<(N, u64)>;

/// Kind of sender that needs capacity.
#[derive(Clone, Copy, Debug)]
pub(super) enum Requester {
    /// A new message.
    Newcomer,
    /// A new message that may pass the waiters of its actor.
    Passing,
    /// The first waiter of an actor.
    Candidate(WaiterId),
    /// A waiter that sends, with the budget in which its capacity was reserved.
    InTurn(Option<Budget>),
}

/// Bytes that a message occupies on the link, and in a queue.
#[derive(Clone, Copy, Debug)]
struct Size {
    frame_bytes: usize,
    queued: usize,
}

impl<T> Session<T> {
    /// Returns how a message of `frame_bytes` is admitted. One that is sent now is charged to its
    /// flow.
    #[inline(always)]
    pub(super) fn admit(
        &mut self,
        target: Target,
        frame_bytes: usize,
        is_call: bool,
    ) -> Result<Admission, Rejected> {
        if self.is_closing() || self.closing.is_some() {
            return Err(Rejected::Closing);
        }
        if frame_bytes > self.frame_bytes_max {
            return Err(Rejected::TooLarge { size: frame_bytes, limit: self.frame_bytes_max });
        }
        // The cheap conditions of the common case, in an order that charges the flow last: a charge
        // must not be undone. Everything else is decided out of line.
        if self.outgoing_bytes().saturating_add(frame_bytes) <= self.capacity_bytes
            && self.attached
            && self.calls.len() < self.limits.calls_open_max
            && !self.flows.has_blocked()
            && self.flows.charge(target, frame_bytes, frame_bytes > self.limits.chunk_bytes)
        {
            return Ok(Admission::SendNow);
        }
        self.admit_slow(target, frame_bytes, is_call)
    }

    #[inline(never)]
    fn admit_slow(
        &mut self,
        target: Target,
        frame_bytes: usize,
        is_call: bool,
    ) -> Result<Admission, Rejected> {
        let size = self.size_of(target, frame_bytes, is_call);
        match self.capacity_for(target, size, self.requester) {
            Capacity::Free(Budget::Queues, _) => Ok(Admission::Queue),
            Capacity::Free(Budget::Link, _) => {
                let charged = self.flows.charge(target, frame_bytes, frame_bytes > self.limits.chunk_bytes);
                debug_assert!(charged, "it has credit");
                Ok(Admission::SendNow)
            }
            short => {
                let (waiting, limit) = self.exhausted_budget(target, size, short);
                Err(Rejected::Full { size: frame_bytes, waiting, limit })
            }
        }
    }

    fn size_of(&self, target: Target, frame_bytes: usize, is_call: bool) -> Size {
        let content = if is_call { MessageKind::Call(crate::id::CallId(0)) } else { MessageKind::Tell };
        Size { frame_bytes, queued: self.flows.queued_cost(target, content, frame_bytes) }
    }

    /// Returns whether the link and the flow of this actor would accept a message now: no link,
    /// credit or blocked message is missing.
    fn can_send_now(&self, target: Target, frame_bytes: usize) -> bool {
        self.attached && !self.flows.has_blocked() && self.flows.may_send(target, frame_bytes)
    }

    /// Returns the budget in which the message has capacity, or in which it has none.
    ///
    /// A message always fits into an empty budget: one larger than the limit could never be sent
    /// otherwise.
    fn capacity_for(&self, target: Target, size: Size, requester: Requester) -> Capacity {
        let is_newcomer = matches!(requester, Requester::Newcomer);
        if is_newcomer && self.waiters.keeps_out(target) {
            return Capacity::ShortForTarget;
        }
        // An open call occupies memory until its outcome, so their number is limited like bytes
        // are.
        let out_of_calls = self.calls.len() >= self.limits.calls_open_max;
        // First come, first served: nothing may pass a waiter in the line of the budget that it
        // needs.
        let passes = |budget| match requester {
            Requester::Newcomer | Requester::Passing => self.waiters.any_in_line(budget),
            Requester::Candidate(number) => {
                self.waiters.first_in_line(budget).is_some_and(|first| first < number)
            }
            Requester::InTurn(_) => false,
        };
        if self.can_send_now(target, size.frame_bytes) {
            let ahead = match requester {
                // A waiter in its turn has reserved its bytes. Frames that were sent since must not
                // take them.
                Requester::InTurn(Some(Budget::Link)) => 0,
                Requester::Candidate(number) => self.ahead_of(number) + self.waiters.reserved(Budget::Link),
                _ => self.outgoing_bytes() + self.waiters.reserved(Budget::Link),
            };
            let fits = ahead == 0 || ahead.saturating_add(size.frame_bytes) <= self.limits.outgoing_bytes_max;
            return match fits && !out_of_calls && !passes(Budget::Link) {
                true => Capacity::Free(Budget::Link, size.frame_bytes),
                false => Capacity::Short(Budget::Link),
            };
        }
        // The limit of the actor comes first: a slow actor fills its own queue, and not the budget
        // of all.
        let for_target = self.flows.queued_bytes_for(target) + self.waiters.reserved_for(target);
        if for_target > 0 && for_target.saturating_add(size.queued) > self.send_queue_bytes_max() {
            return Capacity::ShortForTarget;
        }
        let for_all = self.flows.queued_bytes() + self.waiters.reserved(Budget::Queues);
        let fits = for_all == 0 || for_all.saturating_add(size.queued) <= self.limits.outgoing_bytes_max;
        match fits && !out_of_calls && !passes(Budget::Queues) {
            true => Capacity::Free(Budget::Queues, size.queued),
            false => Capacity::Short(Budget::Queues),
        }
    }

    /// Bytes in flight ahead of a waiter.
    fn ahead_of(&self, number: WaiterId) -> usize {
        let since = match self.first_waiter {
            Some((first, mark)) if first == number => self.sent_bytes().saturating_sub(mark),
            _ => 0,
        };
        self.outgoing_bytes().saturating_sub(usize::try_from(since).unwrap_or(usize::MAX))
    }

    /// Total of bytes ever sent, with chunked messages as a whole.
    fn sent_bytes(&self) -> u64 {
        self.send_buffer.end() + self.chunked.bytes() as u64
    }

    /// Occupied bytes and limit of the budget that has no capacity, including the overhead of the
    /// message.
    fn exhausted_budget(&self, target: Target, size: Size, short: Capacity) -> (usize, usize) {
        let (calls, outgoing_max) = (self.calls.len(), self.limits.outgoing_bytes_max);
        let overhead = size.queued - size.frame_bytes;
        if calls >= self.limits.calls_open_max {
            return (calls, self.limits.calls_open_max);
        }
        match short {
            Capacity::Short(Budget::Link) => (self.outgoing_bytes(), outgoing_max),
            Capacity::Short(Budget::Queues) => (self.flows.queued_bytes() + overhead, outgoing_max),
            _ => {
                let waiting = self.flows.queued_bytes_for(target) + self.waiters.waiting_bytes(target);
                (waiting + overhead, self.send_queue_bytes_max())
            }
        }
    }

    fn send_queue_bytes_max(&self) -> usize {
        self.limits.send_queue_bytes_max.min(self.limits.outgoing_bytes_max)
    }

    /// Returns whether the budgets have capacity for a message with a frame of `frame_bytes`.
    #[must_use]
    pub fn has_room_for(&self, target: Target, frame_bytes: usize, is_call: bool) -> bool {
        matches!(
            self.capacity_for(target, self.size_of(target, frame_bytes, is_call), Requester::Newcomer),
            Capacity::Free(..)
        )
    }

    /// Returns the bytes queued for an actor if they are over the back-pressure threshold. Senders
    /// that can wait should do so. Without a link there is no credit to wait for, so the result is
    /// `None`.
    #[must_use]
    pub fn over_soft_limit(&self, target: Target) -> Option<usize> {
        if !self.attached || self.flows.queued_bytes() == 0 {
            return None;
        }
        Some(self.flows.queued_bytes_for(target)).filter(|waiting| *waiting > config::TELL_BACKPRESSURE_BYTES)
    }

    /// Sends queued messages while there is credit and capacity on the link.
    pub(super) fn send_queued(&mut self) {
        if !self.attached || self.is_closing() {
            return;
        }
        let chunk_bytes = self.limits.chunk_bytes;
        // Reserved bytes belong to waiters that are woken already.
        let limit = self.limits.outgoing_bytes_max.saturating_sub(self.waiters.reserved(Budget::Link));
        let waited = self.flows.has_blocked();
        loop {
            let (waiting, sent) = (self.outgoing_bytes(), self.sent_bytes());
            let first = &mut self.first_queued;
            let next = self.flows.pop_sendable(chunk_bytes, |queued| {
                let fits = |ahead: usize| ahead == 0 || ahead.saturating_add(queued.frame_bytes) <= limit;
                let mark = match *first {
                    Some((number, mark)) if number == queued.number => mark,
                    _ => first.insert((queued.number, sent)).1,
                };
                // Frames that were sent since this message became the head do not count. Replies
                // need no credit, and could otherwise keep it waiting for ever.
                fits(waiting) || fits(waiting.saturating_sub((sent.saturating_sub(mark)) as usize))
            });
            let Some((target, queued)) = next else {
                if waited && !self.flows.has_blocked() {
                    // Messages to actors with credit go out now, and need no capacity in the queues.
                    self.waiters.touch_line(Budget::Queues);
                }
                return;
            };
            self.send_from_queue(target, queued.content, queued.frame_bytes);
            self.waiters.ease(target);
        }
    }

    fn send_from_queue(&mut self, target: Target, content: MessageKind, frame_bytes: usize) {
        if frame_bytes > self.limits.chunk_bytes {
            let Some(frame) = self.flows.take_next_apart(target) else { return };
            self.chunked.push(content, Some(target), frame);
            if let MessageKind::Call(call) = content {
                self.calls.set_stage(call, super::CallStage::Chunking);
            }
            return;
        }
        let flows = &mut self.flows;
        let end = self.send_buffer.push(|out| flows.take_next(target, out));
        match content {
            MessageKind::Call(call) => self.calls.set_stage(call, super::CallStage::Sent(end)),
            MessageKind::Tell => self.send_buffer.count_tell(end),
            MessageKind::Other => {}
        }
    }
}

/// Waiting for capacity.
impl<T> Session<T> {
    /// Adds a waiter for a message that was rejected as [`Rejected::Full`]. With an earlier id it
    /// resumes that position in the line. Call [`serve`](Self::serve) afterwards.
    pub fn line_up(&mut self, target: Target, waiter: Waiter, again: Option<WaiterId>) -> WaiterId {
        self.waiters.line_up(target, waiter, again)
    }

    /// Lets messages to an actor pass its waiters, until [`end_turn`](Self::end_turn). Use it for
    /// messages that need nothing but capacity.
    ///
    /// The first waiter must [spare the queue](Waiter::spares_queue) and have capacity: it only
    /// waits for queued messages to be sent, or for the turn of an earlier waiter on another
    /// thread. A call can therefore be sent on its first poll, whatever tells are waiting.
    pub fn begin_passing(&mut self, target: Target) -> bool {
        let may_pass = self.waiters.first(target).is_some_and(|(number, first)| {
            let size = self.size_of(target, first.frame_bytes, first.is_call);
            first.spares_queue
                && matches!(self.capacity_for(target, size, Requester::Candidate(number)), Capacity::Free(..))
        });
        if may_pass {
            self.requester = Requester::Passing;
            self.flows.set_waited_for(target, false);
        }
        may_pass
    }

    /// Returns whether any sender waits for capacity for a message to that actor.
    #[must_use]
    pub fn is_waited_for(&self, target: Target) -> bool {
        self.waiters.any_for(target)
    }

    /// Returns whether any sender waits, so that [`serve`](Self::serve) has something to do.
    #[must_use]
    #[inline]
    pub fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// Returns whether a waiter may try to send again.
    #[must_use]
    pub fn has_turn(&self, number: WaiterId) -> bool {
        self.waiters.has_turn(number)
    }

    /// Removes a waiter. Call [`serve`](Self::serve) afterwards.
    pub fn stop_waiting(&mut self, number: WaiterId) {
        self.waiters.leave(number);
    }

    /// Starts the turn of a waiter: until [`end_turn`](Self::end_turn) messages to its actor pass
    /// all waiters.
    pub fn begin_turn(&mut self, number: WaiterId, target: Target) {
        let budget = self.waiters.leave(number).and_then(|(_, budget)| budget);
        self.requester = Requester::InTurn(budget);
        self.flows.set_waited_for(target, false);
        self.waiters.touch(target);
    }

    /// Ends the turn of a waiter that has sent, or waits again. Call [`serve`](Self::serve)
    /// afterwards.
    pub fn end_turn(&mut self, target: Target) {
        self.requester = Requester::Newcomer;
        self.flows.set_waited_for(target, self.waiters.keeps_out(target));
    }

    /// Grants capacity to waiters, in their order. Returns the waiters to wake.
    pub fn serve(&mut self, now: Instant) -> Vec<WaiterId> {
        while let Some(target) = self.waiters.next_touched() {
            self.serve_target(now, target);
        }
        // Granting from one budget may move a message between them, so the link is checked again at
        // the end.
        for budget in [Budget::Link, Budget::Queues, Budget::Link] {
            while let Some(first) = self.waiters.first_in_line(budget)
                && let Some(target) = self.waiters.first_target(budget)
            {
                self.serve_target(now, target);
                // The head has not got its capacity, so no other may have it either.
                if self.waiters.first_in_line(budget) == Some(first) {
                    break;
                }
            }
        }
        let first = self.waiters.first_in_line(Budget::Link);
        if self.first_waiter.map(|(number, _)| number) != first {
            self.first_waiter = first.map(|number| (number, self.sent_bytes()));
        }
        self.update_capacity();
        self.waiters.take_woken()
    }

    fn serve_target(&mut self, now: Instant, target: Target) {
        let capacity = self.waiters.candidate(target).map(|(number, waiter)| {
            let spares_queue = waiter.spares_queue && !self.waiters.is_eased(target, number);
            if spares_queue && self.over_soft_limit(target).is_some() {
                return Capacity::ShortForTarget;
            }
            let size = self.size_of(target, waiter.frame_bytes, waiter.is_call);
            self.capacity_for(target, size, Requester::Candidate(number))
        });
        self.waiters.grant_or_line_up(now, target, capacity);
        self.flows.set_waited_for(target, self.waiters.keeps_out(target));
    }

    /// Sets the link capacity of new messages: none while a waiter is in line for the link.
    fn update_capacity(&mut self) {
        let limit = self.limits.outgoing_bytes_max;
        self.capacity_bytes = match self.waiters.any_in_line(Budget::Link) {
            true => 0,
            false => limit.saturating_sub(self.waiters.reserved(Budget::Link)),
        };
    }

    /// Lets every waiter try again: the session was cleared, or accepts no more messages.
    pub(super) fn wake_all_waiters(&mut self) {
        self.waiters.clear();
        self.first_waiter = None;
        self.first_queued = None;
        self.update_capacity();
    }
}

//! Senders that wait for capacity, in the order of their arrival.
//!
//! Three budgets can be exhausted: the queue of one actor, all queues together, and the link. Each
//! waiter waits for one of them at a time. The first waiter of an actor is its candidate;
//! candidates for a shared budget form one line, ordered by their ids.
//!
//! ```text
//!              capacity for the candidate               sends
//!   waiting ──────────────────────────▶ granted ──────────────▶ gone
//!      ▲                                   │ no capacity after all│
//!      └───────────────────────────────────┼──────────────────────┘
//!                                          └─ RESERVED_FOR ──▶ gone, waits again under its id
//! ```
//!
//! A grant reserves the capacity, so that no new message takes it before the waiter is polled. An
//! actor has one grant at a time: wake-ups that race between threads would change the order
//! otherwise.
//!
//! Invariant: nothing that needs a shared budget passes a candidate that waits for it, and nothing
//! to an actor passes a waiter of that actor without a grant. One exception: a message that needs
//! nothing but capacity passes the waiters of its actor if the first of them [spares the
//! queue](Waiter::spares_queue) and has capacity.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use rustc_hash::FxHashMap;

use crate::config::RESERVED_FOR;
use crate::id::Target;

/// Id of a waiter. Lower ids arrived earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// Budget that a message would be charged to, shared by all actors of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Budget {
    /// Unacknowledged bytes on the link.
    Link,
    /// Messages that are queued for credit.
    Queues,
}

/// Result of a capacity check for a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capacity {
    /// Bytes available in that budget.
    Free(Budget, usize),
    /// The budget is exhausted.
    Short(Budget),
    /// The queue of the waiter's own actor is full.
    ShortForTarget,
}

/// All waiters of one peer.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    queues: FxHashMap<Target, ActorQueue>,
    targets: FxHashMap<WaiterId, Target>,
    for_link: BTreeSet<(WaiterId, Target)>,
    for_queues: BTreeSet<(WaiterId, Target)>,
    reserved: Reserved,
    /// Expiry times of grants, the earliest first. Grants that were used meanwhile remain in it.
    ends: VecDeque<(Instant, WaiterId)>,
    /// Actors whose candidates must be checked again.
    touched: Vec<Target>,
    /// Waiters with a new grant, to be woken.
    woken: Vec<WaiterId>,
    last: u64,
}

/// Bytes that are granted and not used yet.
#[derive(Clone, Copy, Debug, Default)]
struct Reserved {
    link: usize,
    queues: usize,
}

/// Waiters of one actor.
#[derive(Debug, Default)]
struct ActorQueue {
    waiting: BTreeMap<WaiterId, Waiter>,
    /// Bytes of the frames that wait.
    waiting_bytes: usize,
    granted: Option<Grant>,
    /// The waiter that no longer [spares the queue](Waiter::spares_queue).
    eased: Option<WaiterId>,
    /// Line in which the candidate is.
    lined_up: Option<(WaiterId, Budget)>,
}

/// Message that a waiter is going to send.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    /// Length of the frame in bytes.
    pub frame_bytes: usize,
    /// Set for a call, which takes a slot of the open calls as well.
    pub is_call: bool,
    /// Set if the sender also waits while [many messages](crate::config::TELL_BACKPRESSURE_BYTES)
    /// are queued for the actor, until one of them is sent.
    pub spares_queue: bool,
}

/// Reservation of bytes for a waiter that was woken.
#[derive(Clone, Copy, Debug)]
struct Grant {
    number: WaiterId,
    budget: Budget,
    bytes: usize,
    ends: Instant,
}

impl Waiters {
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.woken.is_empty()
    }

    /// Adds a waiter behind the present ones, or at the position of its earlier id.
    pub(super) fn line_up(&mut self, target: Target, waiter: Waiter, again: Option<WaiterId>) -> WaiterId {
        let number = again.unwrap_or_else(|| self.next_number());
        self.targets.insert(number, target);
        let queue = self.queues.entry(target).or_default();
        queue.waiting_bytes += waiter.frame_bytes;
        queue.waiting.insert(number, waiter);
        self.touch(target);
        number
    }

    fn next_number(&mut self) -> WaiterId {
        self.last += 1;
        WaiterId(self.last)
    }

    /// Lets the first waiter of an actor stop sparing the queue: a message of the queue was sent.
    pub(super) fn ease(&mut self, target: Target) {
        let Some(queue) = self.queues.get_mut(&target) else { return };
        queue.eased = queue.waiting.first_key_value().map(|(number, _)| *number);
        self.touch(target);
    }

    /// Returns whether a waiter proceeds although many messages are queued for its actor.
    pub(super) fn is_eased(&self, target: Target, number: WaiterId) -> bool {
        self.queues.get(&target).is_some_and(|queue| queue.eased == Some(number))
    }

    /// Returns whether this waiter may send. A waiter that was removed may always try.
    pub(super) fn has_turn(&self, number: WaiterId) -> bool {
        let Some(target) = self.targets.get(&number) else { return true };
        self.queues.get(target).is_some_and(|queue| queue.has_granted(number))
    }

    /// Removes a waiter that sends, or gives up. Returns the budget in which it had a reservation.
    // The reservation is returned before the next candidate is checked, so that it can be granted
    // again.
    pub(super) fn leave(&mut self, number: WaiterId) -> Option<(Target, Option<Budget>)> {
        let target = self.targets.remove(&number)?;
        let queue = self.queues.get_mut(&target)?;
        queue.remove(number);
        let granted = queue.granted.take_if(|grant| grant.number == number);
        if let Some(Grant { budget, bytes, .. }) = granted {
            *self.reserved.of(budget) -= bytes;
        }
        self.touch(target);
        Some((target, granted.map(|grant| grant.budget)))
    }

    /// Requests a check of an actor's candidate: its queue, its credit or its waiters have changed.
    pub(super) fn touch(&mut self, target: Target) {
        // The same actor is often touched several times in a row, by each frame of a batch.
        if self.queues.contains_key(&target) && self.touched.last() != Some(&target) {
            // Only noted here. Several changes of one frame are then served by one check of the
            // candidate.
            self.touched.push(target);
        }
    }

    /// Requests a check of all candidates in the line of a budget.
    pub(super) fn touch_line(&mut self, budget: Budget) {
        let targets: Vec<_> = self.line(budget).iter().map(|(_, target)| *target).collect();
        self.touched.extend(targets);
    }

    /// Requests a check of all candidates: a link was attached or detached.
    pub(super) fn touch_all(&mut self) {
        self.touched.extend(self.queues.keys());
    }

    /// Wakes all waiters: the session was cleared.
    pub(super) fn clear(&mut self) {
        let last = self.last;
        let mut woken = std::mem::take(&mut self.woken);
        woken.extend(std::mem::take(self).targets.into_keys());
        // The map is unordered, but waiters are woken in the order of their arrival.
        woken.sort_unstable();
        *self = Self { last, woken, ..Self::default() };
    }

    /// Returns whether a message to this actor would pass one of its waiters.
    pub(super) fn keeps_out(&self, target: Target) -> bool {
        self.queues.get(&target).is_some_and(|queue| !queue.waiting.is_empty())
    }

    /// Returns whether a sender waits for this actor, or has a grant for it.
    pub(super) fn any_for(&self, target: Target) -> bool {
        self.queues.contains_key(&target)
    }

    /// Bytes of the messages that wait for this actor.
    pub(super) fn waiting_bytes(&self, target: Target) -> usize {
        self.queues.get(&target).map_or(0, |queue| queue.waiting_bytes)
    }

    /// Returns whether a candidate waits for this budget.
    pub(super) fn any_in_line(&self, budget: Budget) -> bool {
        !self.line(budget).is_empty()
    }

    /// First candidate for this budget.
    pub(super) fn first_in_line(&self, budget: Budget) -> Option<WaiterId> {
        self.line(budget).first().map(|(number, _)| *number)
    }

    /// Bytes that are reserved in this budget.
    pub(super) fn reserved(&self, budget: Budget) -> usize {
        match budget {
            Budget::Link => self.reserved.link,
            Budget::Queues => self.reserved.queues,
        }
    }

    /// Bytes that are reserved in the queue of this actor.
    pub(super) fn reserved_for(&self, target: Target) -> usize {
        match self.queues.get(&target).and_then(|queue| queue.granted) {
            Some(Grant { budget: Budget::Queues, bytes, .. }) => bytes,
            _ => 0,
        }
    }

    fn line(&self, budget: Budget) -> &BTreeSet<(WaiterId, Target)> {
        match budget {
            Budget::Link => &self.for_link,
            Budget::Queues => &self.for_queues,
        }
    }

    fn line_mut(&mut self, budget: Budget) -> &mut BTreeSet<(WaiterId, Target)> {
        match budget {
            Budget::Link => &mut self.for_link,
            Budget::Queues => &mut self.for_queues,
        }
    }

    /// Removes an actor whose candidate must be checked.
    pub(super) fn next_touched(&mut self) -> Option<Target> {
        self.touched.pop()
    }

    /// First waiter of an actor that has no grant.
    pub(super) fn first(&self, target: Target) -> Option<(WaiterId, Waiter)> {
        let (number, waiter) = self.queues.get(&target)?.waiting.first_key_value()?;
        Some((*number, *waiter))
    }

    /// Waiter of an actor that may be granted next: its first one, unless another has a grant.
    pub(super) fn candidate(&self, target: Target) -> Option<(WaiterId, Waiter)> {
        self.first(target).filter(|_| self.queues.get(&target).is_some_and(|queue| queue.granted.is_none()))
    }

    /// Actor of the first candidate for a budget.
    pub(super) fn first_target(&self, budget: Budget) -> Option<Target> {
        self.line(budget).first().map(|(_, target)| *target)
    }

    /// Grants the candidate of an actor its capacity, or puts it into the line of a budget.
    pub(super) fn grant_or_line_up(&mut self, now: Instant, target: Target, capacity: Option<Capacity>) {
        let candidate = self.candidate(target);
        let Some(queue) = self.queues.get_mut(&target) else { return };
        // It leaves its line in any case: the candidate may be another one by now, or need another
        // budget.
        if let Some((number, budget)) = queue.lined_up.take() {
            self.line_mut(budget).remove(&(number, target));
        }
        let Some(queue) = self.queues.get_mut(&target) else { return };
        match (candidate, capacity) {
            (Some((number, _)), Some(Capacity::Free(budget, bytes))) => {
                queue.remove(number);
                let ends = now + RESERVED_FOR;
                queue.granted = Some(Grant { number, budget, bytes, ends });
                *self.reserved.of(budget) += bytes;
                // All grants last equally long, so the queue stays sorted by time.
                self.ends.push_back((ends, number));
                self.woken.push(number);
            }
            (Some((number, _)), Some(Capacity::Short(budget))) => {
                queue.lined_up = Some((number, budget));
                self.line_mut(budget).insert((number, target));
            }
            _ if queue.waiting.is_empty() && queue.granted.is_none() => {
                self.queues.remove(&target);
            }
            _ => {}
        }
    }

    /// Expiry of the next grant.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.front().map(|(end, _)| *end)
    }

    /// Ends the expired grants. Their waiters wait again when they are polled.
    pub(super) fn end_grants(&mut self, now: Instant) {
        while let Some((end, number)) = self.ends.front().copied()
            // Grants that were used are removed with the expired ones. Otherwise `next_end` would
            // request a timeout for each.
            && (end <= now || !self.targets.contains_key(&number))
        {
            self.ends.pop_front();
            let granted = self.targets.get(&number).and_then(|target| self.queues.get(target));
            // A waiter may have waited again since, under the same id, and have a later grant.
            if granted.is_some_and(|queue| queue.has_granted(number) && queue.grant_ends(now)) {
                self.leave(number);
            }
        }
    }

    /// Removes and returns the waiters to wake.
    pub(super) fn take_woken(&mut self) -> Vec<WaiterId> {
        std::mem::take(&mut self.woken)
    }
}

impl ActorQueue {
    fn remove(&mut self, number: WaiterId) {
        self.waiting_bytes -= self.waiting.remove(&number).map_or(0, |waiter| waiter.frame_bytes);
    }

    fn has_granted(&self, number: WaiterId) -> bool {
        self.granted.is_some_and(|grant| grant.number == number)
    }

    fn grant_ends(&self, now: Instant) -> bool {
        self.granted.is_some_and(|grant| grant.ends <= now)
    }
}

impl Reserved {
    fn of(&mut self, budget: Budget) -> &mut usize {
        match budget {
            Budget::Link => &mut self.link,
            Budget::Queues => &mut self.queues,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_that_waits_again_keeps_its_second_grant_for_the_full_time() {
        let (mut waiters, now) = (Waiters::default(), Instant::now());
        let target = Target::HOST;
        let waiter = Waiter { frame_bytes: 10, is_call: true, spares_queue: false };
        let capacity = Some(Capacity::Free(Budget::Link, 10));
        let number = waiters.line_up(target, waiter, None);
        waiters.grant_or_line_up(now, target, capacity);
        // The capacity is gone: the waiter resumes its position, and gets another grant a moment
        // later.
        waiters.leave(number);
        assert_eq!(waiters.line_up(target, waiter, Some(number)), number);
        let again = now + RESERVED_FOR / 2;
        waiters.grant_or_line_up(again, target, capacity);
        waiters.end_grants(now + RESERVED_FOR);
        assert_eq!((waiters.reserved(Budget::Link), waiters.next_end()), (10, Some(again + RESERVED_FOR)));
        waiters.end_grants(again + RESERVED_FOR);
        assert_eq!((waiters.reserved(Budget::Link), waiters.next_end()), (0, None));
    }
}

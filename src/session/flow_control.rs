//! Credit-based flow control between two hosts, per actor.
//!
//! A flow is the sequence of messages from one host to one actor of the other. The receiver grants
//! each flow the same window of bytes.
//!
//! ```text
//! sender                                  receiver
//! charge: in_flight += cost  --message--> accept:  accepted += cost
//!                                         release: accepted -= cost, releasable += cost
//! add_credit: in_flight -= n <--Credit n- (from a quarter of the window on)
//! ```
//!
//! A message without credit is queued at the sender. It then uses no capacity of the link and none
//! at the receiver, so an actor that handles nothing slows no other. Frames other than messages to
//! actors need no credit.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::calls::MessageKind;
use super::flow_table::FlowTable;
use super::queued_frame::QueuedFrame;
use super::send_queue::{FrameOut, Queued, SendQueue, queued_cost};
use crate::config::{MESSAGE_OVERHEAD_BYTES, QUEUE_OVERHEAD_BYTES};
use crate::id::Target;
use crate::wire::FrameSink;

/// Number of flows at which idle ones are searched for.
const SWEEP_AT: usize = 1024;

/// Bytes of a window that a message occupies: at most half the window.
///
/// The largest message must pass while the receiver still accumulates a quarter of the window
/// before it returns credit.
#[inline]
pub(super) fn cost(frame_bytes: usize, window: u64) -> u64 {
    ((frame_bytes + MESSAGE_OVERHEAD_BYTES) as u64).min(window / 2)
}

/// Flows to the peer's actors.
#[derive(Debug, Default)]
pub(super) struct SendFlows {
    flows: FlowTable<SendFlow>,
    /// Bytes that the peer grants each flow; 0 before the first link.
    window: u64,
    /// Flows whose head has credit but is blocked by the link, each at most once.
    ready: VecDeque<Target>,
    queued_bytes: usize,
    last_queue_id: u64,
    /// Actor of each queued call by queue id: a queued call may be cancelled.
    target_of: FxHashMap<u64, Target>,
}

/// Flow to one actor.
#[derive(Debug, Default)]
struct SendFlow {
    in_flight_bytes: u64,
    /// Reasons why a new message must not be sent, as bits; mostly none, so that one test decides.
    closed: u8,
    /// Set while the flow is in [`SendFlows::ready`].
    ready: bool,
    /// Queued messages; `None` if there are none, which saves an idle flow the memory.
    queue: Option<Box<SendQueue>>,
}

/// A large message is being sent in chunks: later ones must not overtake it.
const CHUNKING: u8 = 1;

/// Messages are queued.
const QUEUED: u8 = 2;

/// Senders wait for capacity in the queue.
const WAITED_FOR: u8 = 4;

impl SendFlow {
    /// Returns whether the head of the queue may be sent, or a new message if none is queued.
    ///
    /// Without a window nothing may be sent, whatever its cost.
    fn may_send(&self, cost: u64, window: u64) -> bool {
        window > 0 && self.closed & CHUNKING == 0 && self.in_flight_bytes + cost <= window
    }

    fn is_idle(&self) -> bool {
        self.in_flight_bytes == 0 && self.closed == 0
    }

    fn set(&mut self, bit: u8, is_set: bool) {
        self.closed = if is_set { self.closed | bit } else { self.closed & !bit };
    }

    fn front(&self) -> Option<Queued> {
        self.queue.as_ref()?.front()
    }

    fn counted_bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.counted_bytes())
    }

    /// Changes the queue, and drops it if it is empty afterwards.
    fn with_queue<R>(&mut self, change: impl FnOnce(&mut SendQueue) -> R) -> Option<R> {
        let queue = self.queue.as_mut()?;
        let changed = change(queue);
        // An empty queue would still occupy two deques and a block, for every actor that was once
        // slow.
        if queue.is_empty() {
            self.queue = None;
            self.set(QUEUED, false);
        }
        Some(changed)
    }
}

impl SendFlows {
    /// Sets the window that the peer grants. It is the same on every link of a session.
    pub(super) fn set_window(&mut self, window: u64) {
        self.window = window;
    }

    /// Bytes that all queued messages and their queues are accounted with.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Bytes that are charged and not returned, over all flows.
    #[inline]
    pub(super) fn charged(&self) -> u64 {
        self.flows.values().map(|flow| flow.in_flight_bytes).sum()
    }

    /// Returns whether the flow would let a message of this length pass now.
    pub(super) fn may_send(&self, target: Target, frame_bytes: usize) -> bool {
        let cost = cost(frame_bytes, self.window);
        match self.flows.get(target) {
            None => cost <= self.window && self.window > 0,
            Some(flow) => flow.closed & QUEUED == 0 && flow.may_send(cost, self.window),
        }
    }

    /// Charges a message that is sent now, or returns `false` if its flow makes it wait.
    #[must_use]
    #[inline(always)]
    pub(super) fn charge(&mut self, target: Target, frame_bytes: usize, in_chunks: bool) -> bool {
        let cost = cost(frame_bytes, self.window);
        // No link was attached yet. Without this test a cost of zero would pass, and create a flow.
        if self.window == 0 {
            return false;
        }
        let flow = self.flows.get_or_insert(target);
        if flow.closed != 0 || flow.in_flight_bytes + cost > self.window {
            return false;
        }
        flow.in_flight_bytes += cost;
        flow.set(CHUNKING, in_chunks);
        true
    }

    /// Bytes that one more queued message would be accounted with. The first message of an actor
    /// includes its queue.
    pub(super) fn queued_cost(&self, target: Target, content: MessageKind, frame_bytes: usize) -> usize {
        let has_queue = self.flows.get(target).is_some_and(|flow| flow.queue.is_some());
        let of_queue = if has_queue { 0 } else { QUEUE_OVERHEAD_BYTES };
        queued_cost(content, frame_bytes).saturating_add(of_queue)
    }

    /// Bytes that the queued messages of this actor, and their queue, are accounted with.
    pub(super) fn queued_bytes_for(&self, target: Target) -> usize {
        self.flows.get(target).map_or(0, SendFlow::counted_bytes)
    }

    /// Sets whether senders wait for capacity in the queue of this actor: no message may pass them.
    pub(super) fn set_waited_for(&mut self, target: Target, is_waited_for: bool) {
        if is_waited_for {
            return self.flows.get_or_insert(target).set(WAITED_FOR, true);
        }
        if let Some(flow) = self.flows.get_mut(target) {
            flow.set(WAITED_FOR, false);
            self.retire_or_schedule(target);
        }
    }

    /// Queues a message whose frame `put` writes, and returns its queue id.
    pub(super) fn enqueue(
        &mut self,
        target: Target,
        content: MessageKind,
        frame_bytes: usize,
        put: impl FnOnce(FrameOut<'_>) -> usize,
    ) -> u64 {
        self.last_queue_id += 1;
        let flow = self.flows.get_or_insert(target);
        // The message waits only for others that are blocked by the link, so nothing would mark its
        // flow as ready later.
        let first = flow.queue.is_none();
        let has_credit = first && flow.may_send(cost(frame_bytes, self.window), self.window);
        flow.set(QUEUED, true);
        let before = flow.counted_bytes();
        flow.queue.get_or_insert_default().push(self.last_queue_id, content, frame_bytes, put);
        self.queued_bytes += flow.counted_bytes() - before;
        // Only calls can be cancelled, so tells need no entry.
        if let MessageKind::Call(_) = content {
            self.target_of.insert(self.last_queue_id, target);
        }
        if has_credit && self.has_blocked() {
            self.make_ready(target);
        }
        self.last_queue_id
    }

    /// Removes a queued call, and returns its actor.
    pub(super) fn remove_queued(&mut self, number: u64) -> Option<Target> {
        let target = self.target_of.remove(&number)?;
        self.take_from_queue(target, |queue| queue.remove(number))?;
        self.retire_or_schedule(target);
        Some(target)
    }

    /// Removes all queued messages that are longer than the peer accepts.
    pub(super) fn remove_oversized(&mut self, frame_bytes_max: usize) -> Vec<Queued> {
        let mut longer = Vec::new();
        for flow in self.flows.values_mut() {
            let before = flow.counted_bytes();
            longer.extend(
                flow.with_queue(|queue| queue.remove_longer_than(frame_bytes_max)).unwrap_or_default(),
            );
            self.queued_bytes -= before - flow.counted_bytes();
        }
        self.flows.take_if(SendFlow::is_idle);
        // `pop_sendable` stops at a target without a flow, which would block all flows behind it.
        self.ready.retain(|target| self.flows.contains(*target));
        for queued in &longer {
            self.target_of.remove(&queued.number);
        }
        // The table is unordered, but failures are reported in the order of submission.
        longer.sort_unstable_by_key(|queued| queued.number);
        longer
    }

    /// Returns whether messages with credit wait for the link: new ones must not pass them.
    pub(super) fn has_blocked(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Number of queued one-way messages.
    pub(super) fn queued_tells(&self) -> u64 {
        let queued =
            self.flows.values().filter_map(|flow| flow.queue.as_ref()).flat_map(|queue| queue.iter());
        queued.filter(|queued| queued.content == MessageKind::Tell).count() as u64
    }

    /// Marks every flow with a sendable head as ready, the oldest head first: a link is attached.
    pub(super) fn make_all_ready(&mut self) {
        let waiting = self.flows.iter().filter_map(|(target, flow)| Some((flow.front()?.number, target)));
        let mut waiting: Vec<_> = waiting.collect();
        // By queue id, so that the order of submission holds across actors on the next link as
        // well.
        waiting.sort_unstable();
        for (_, target) in waiting {
            self.make_ready(target);
        }
    }

    fn make_ready(&mut self, target: Target) {
        let window = self.window;
        if let Some(flow) = self.flows.get_mut(target)
            && !flow.ready
            && let Some(front) = flow.front()
            && flow.may_send(cost(front.frame_bytes, window), window)
        {
            flow.ready = true;
            self.ready.push_back(target);
        }
    }

    /// Charges the next queued message that has credit, if `fits` accepts it for the link. Take it
    /// with [`take_next`](Self::take_next). Behind one over `chunk_bytes` the flow waits for the
    /// last chunk.
    pub(super) fn pop_sendable(
        &mut self,
        chunk_bytes: usize,
        fits: impl FnOnce(Queued) -> bool,
    ) -> Option<(Target, Queued)> {
        while let Some(&target) = self.ready.front() {
            let flow = self.flows.get_mut(target)?;
            let may_go = flow.front().map(|queued| (queued, cost(queued.frame_bytes, self.window)));
            // Earlier messages of the flow may have used its credit since it was marked.
            let Some((queued, cost)) = may_go.filter(|(_, cost)| flow.may_send(*cost, self.window)) else {
                flow.ready = false;
                self.ready.pop_front();
                continue;
            };
            // The link is used in order: passing a large message by smaller ones would starve it.
            if !fits(queued) {
                return None;
            }
            flow.in_flight_bytes += cost;
            flow.set(CHUNKING, queued.frame_bytes > chunk_bytes);
            if let MessageKind::Call(_) = queued.content {
                self.target_of.remove(&queued.number);
            }
            return Some((target, queued));
        }
        None
    }

    /// Removes the message that [`pop_sendable`](Self::pop_sendable) returned, and writes its
    /// frame.
    pub(super) fn take_next(&mut self, target: Target, out: &mut impl FrameSink) -> usize {
        self.take_from_queue(target, |queue| queue.pop_into(out)).unwrap_or(0)
    }

    /// The same for a message that is sent in chunks.
    pub(super) fn take_next_apart(&mut self, target: Target) -> Option<QueuedFrame> {
        self.take_from_queue(target, SendQueue::pop_apart)?
    }

    fn take_from_queue<R>(&mut self, target: Target, take: impl FnOnce(&mut SendQueue) -> R) -> Option<R> {
        let flow = self.flows.get_mut(target)?;
        let before = flow.counted_bytes();
        let taken = flow.with_queue(take);
        self.queued_bytes -= before - flow.counted_bytes();
        taken
    }

    /// Reopens a flow whose chunked message is complete or abandoned.
    pub(super) fn chunking_done(&mut self, target: Target) {
        if let Some(flow) = self.flows.get_mut(target) {
            flow.set(CHUNKING, false);
            self.retire_or_schedule(target);
        }
    }

    /// Returns bytes to a flow. `false` if they were never charged.
    #[must_use]
    pub(super) fn add_credit(&mut self, target: Target, bytes: u64) -> bool {
        let Some(flow) = self.flows.get_mut(target) else { return false };
        let Some(charged) = flow.in_flight_bytes.checked_sub(bytes) else { return false };
        flow.in_flight_bytes = charged;
        self.retire_or_schedule(target);
        true
    }

    /// Refunds a message that was never sent as a whole: the receiver has not accounted for it.
    pub(super) fn refund(&mut self, target: Target, frame_bytes: usize) {
        let cost = cost(frame_bytes, self.window);
        if let Some(flow) = self.flows.get_mut(target) {
            flow.in_flight_bytes = flow.in_flight_bytes.saturating_sub(cost);
        }
    }

    /// Removes a flow that has become idle, or marks it ready if its head may be sent.
    fn retire_or_schedule(&mut self, target: Target) {
        if self.flows.get(target).is_some_and(SendFlow::is_idle) {
            if self.flows.remove(target).is_some_and(|flow| flow.ready) {
                self.ready.retain(|ready| *ready != target);
            }
        } else {
            self.make_ready(target);
        }
    }

    /// Clears all charges: the receiver has dropped its half. Queued messages stay.
    pub(super) fn restart(&mut self) {
        self.ready.clear();
        for flow in self.flows.values_mut() {
            (flow.in_flight_bytes, flow.ready) = (0, false);
            // The chunks are dropped, and all waiters are woken. Only queued messages remain.
            flow.closed &= QUEUED;
        }
        self.flows.take_if(SendFlow::is_idle);
    }

    /// Clears everything. Queue ids stay unique.
    pub(super) fn clear(&mut self) {
        *self = Self { window: self.window, last_queue_id: self.last_queue_id, ..Self::default() };
    }
}

/// Flows from the peer to the local actors.
#[derive(Debug)]
pub(super) struct ReceiveFlows {
    flows: FlowTable<ReceiveFlow>,
    /// Bytes that each flow is granted.
    window: u64,
    sweep_at: usize,
    /// Flows with a quarter of their window to return, while returning is deferred.
    deferred: Vec<Target>,
}

#[derive(Debug, Default)]
struct ReceiveFlow {
    /// Bytes of messages that are accepted and not handled.
    accepted: u64,
    /// Bytes of handled messages that are not returned to the sender yet.
    releasable: u64,
}

impl ReceiveFlows {
    pub(super) fn new(window: u64) -> Self {
        Self { flows: FlowTable::default(), window, sweep_at: SWEEP_AT, deferred: Vec::new() }
    }

    /// Bytes of a window that a message of this length occupies.
    #[inline]
    pub(super) fn cost(&self, frame_bytes: usize) -> u64 {
        cost(frame_bytes, self.window)
    }

    /// Accepts a message. `false` if the sender had no credit for it.
    #[must_use]
    #[inline]
    pub(super) fn accept(&mut self, target: Target, cost: u64) -> bool {
        let flow = self.flows.get_or_insert(target);
        flow.accepted += cost;
        // Bytes that are not returned yet count as well, since the sender still has them charged.
        flow.accepted + flow.releasable <= self.window
    }

    /// Releases a handled message. Returns the bytes to return to the sender, once they are a
    /// quarter of the window. With `defer` they are deferred instead.
    #[inline(always)]
    pub(super) fn release(&mut self, target: Target, cost: u64, defer: bool) -> Option<u64> {
        let flow = self.flows.get_mut(target)?;
        flow.accepted -= cost.min(flow.accepted);
        // A Credit frame for each message would double the frames of small tells. A quarter leaves
        // the sender three quarters to work with meanwhile.
        let (enough, before) = (self.window / 4, flow.releasable);
        flow.releasable += cost;
        if flow.releasable < enough {
            return None;
        }
        if defer {
            // Each flow is listed at most once.
            if before < enough {
                self.deferred.push(target);
            }
            return None;
        }
        let owed = std::mem::take(&mut flow.releasable);
        // An idle flow with nothing to return equals a new one, so it is dropped. The peer does the
        // same.
        if flow.accepted == 0 {
            self.flows.remove(target);
        }
        Some(owed)
    }

    /// Removes the deferred credit of each flow.
    pub(super) fn take_deferred(&mut self) -> Vec<(Target, u64)> {
        let mut owed = Vec::new();
        for target in std::mem::take(&mut self.deferred) {
            let Some(flow) = self.flows.get_mut(target) else { continue };
            owed.extend((flow.releasable > 0).then(|| (target, std::mem::take(&mut flow.releasable))));
            if flow.accepted == 0 {
                self.flows.remove(target);
            }
        }
        owed
    }

    /// Returns whether there are enough flows to search for idle ones.
    pub(super) fn needs_sweep(&self) -> bool {
        self.flows.len() >= self.sweep_at
    }

    /// Removes the idle flows, and returns the credit that each of them owes.
    #[cold]
    pub(super) fn sweep(&mut self) -> Vec<(Target, u64)> {
        let resting = self.flows.take_if(|flow| flow.accepted == 0).into_iter();
        let mut owed: Vec<_> = resting.map(|(target, flow)| (target, flow.releasable)).collect();
        owed.sort_unstable();
        // Doubled, so that the cost of sweeps stays proportional to the flows that were added.
        self.sweep_at = (2 * self.flows.len()).max(SWEEP_AT);
        owed
    }

    /// Bytes of the windows that unhandled messages occupy.
    pub(super) fn accepted(&self) -> u64 {
        self.flows.values().map(|flow| flow.accepted).sum()
    }

    /// Bytes of the windows that are free and not returned.
    pub(super) fn owed(&self) -> u64 {
        self.flows.values().map(|flow| flow.releasable).sum()
    }

    /// Clears everything.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.window);
    }
}

#[cfg(test)]
mod tests;

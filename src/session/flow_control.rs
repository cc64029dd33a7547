//! Credit: how much each actor has taken on and not handled yet.
//!
//! A flow is what goes from one host to one actor of the other. The receiver grants each flow the
//! same window of bytes. A message is charged to it when it goes out, and given back when its
//! handler begins or it is dropped. What has no credit is parked at the sender: it uses no room of
//! the link and none at the receiver, so that an actor that handles nothing slows no other.
//! Nothing but messages to actors needs credit.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::calls::Content;
use super::flow_table::FlowTable;
use super::queued_frame::QueuedFrame;
use super::send_queue::{FrameOut, Queued, SendQueue, queued_cost};
use crate::config::{MESSAGE_OVERHEAD_BYTES, QUEUE_OVERHEAD_BYTES};
use crate::id::Target;
use crate::wire::FrameSink;

/// How many flows there are before those are looked for that rest.
const SWEEP_AT: usize = 1024;

/// What a message takes of a window. Half of it at most, so that the largest one passes even while
/// the receiver has yet to give back what it gathers.
#[inline]
pub(super) fn cost(frame_bytes: usize, window: u64) -> u64 {
    ((frame_bytes + MESSAGE_OVERHEAD_BYTES) as u64).min(window / 2)
}

/// The flows to the peer's actors.
#[derive(Debug, Default)]
pub(super) struct SendFlows {
    flows: FlowTable<SendFlow>,
    /// What the peer grants each flow; 0 before it was ever heard of.
    window: u64,
    /// Flows whose parked messages may go on, each once.
    ready: VecDeque<Target>,
    queued_bytes: usize,
    last_queue_id: u64,
    /// Whose the parked calls are, by their numbers: they may be taken back.
    target_of: FxHashMap<u64, Target>,
}

/// One of them.
#[derive(Debug, Default)]
struct SendFlow {
    in_flight_bytes: u64,
    /// Why a message that comes now may not go out, as bits; mostly nothing.
    closed: u8,
    /// Whether it is in the list of those that may go on.
    ready: bool,
    /// Messages that wait; none if there are none.
    queue: Option<Box<SendQueue>>,
}

/// A large message is on its way in chunks: others wait behind it.
const CHUNKING: u8 = 1;

/// Messages are queued.
const QUEUED: u8 = 2;

/// Senders wait for room in the queue.
const WAITED_FOR: u8 = 4;

impl SendFlow {
    /// Whether the first message in the queue may be sent, or one that comes now if none is queued.
    /// Nothing may be sent without a window, whatever it costs.
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

    /// Changes the queue, and drops it if it is empty behind that.
    fn with_queue<R>(&mut self, change: impl FnOnce(&mut SendQueue) -> R) -> Option<R> {
        let queue = self.queue.as_mut()?;
        let changed = change(queue);
        if queue.is_empty() {
            self.queue = None;
            self.set(QUEUED, false);
        }
        Some(changed)
    }
}

impl SendFlows {
    /// What the peer grants. It is the same on every link of a session.
    pub(super) fn set_window(&mut self, window: u64) {
        self.window = window;
    }

    /// What all messages that are parked count, and their queues.
    pub(super) fn parked_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// What the flows owe: charged, and not given back.
    #[inline]
    pub(super) fn charged(&self) -> u64 {
        self.flows.values().map(|flow| flow.in_flight_bytes).sum()
    }

    /// Whether a message of that length would go out at once, as far as its flow is concerned.
    pub(super) fn may_send(&self, target: Target, frame_bytes: usize) -> bool {
        let cost = cost(frame_bytes, self.window);
        match self.flows.get(target) {
            None => cost <= self.window && self.window > 0,
            Some(flow) => flow.closed & QUEUED == 0 && flow.may_send(cost, self.window),
        }
    }

    /// Charges a message that goes out, in chunks if it is so large. `false` if it has to wait, as far as
    /// its flow is concerned.
    #[must_use]
    #[inline(always)]
    pub(super) fn charge(&mut self, target: Target, frame_bytes: usize, in_chunks: bool) -> bool {
        let cost = cost(frame_bytes, self.window);
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

    /// What one more parked message counts, with the queue that it needs if it is the first of its actor.
    pub(super) fn queued_cost(&self, target: Target, content: Content, frame_bytes: usize) -> usize {
        let has_queue = self.flows.get(target).is_some_and(|flow| flow.queue.is_some());
        let of_queue = if has_queue { 0 } else { QUEUE_OVERHEAD_BYTES };
        queued_cost(content, frame_bytes).saturating_add(of_queue)
    }

    /// What the messages for this actor that are parked count, and their queue.
    pub(super) fn queued_bytes_for(&self, target: Target) -> usize {
        self.flows.get(target).map_or(0, SendFlow::counted_bytes)
    }

    /// Whether senders wait for room in the queue of this actor: nothing passes them.
    pub(super) fn set_waited_for(&mut self, target: Target, is_waited_for: bool) {
        if is_waited_for {
            return self.flows.get_or_insert(target).set(WAITED_FOR, true);
        }
        if let Some(flow) = self.flows.get_mut(target) {
            flow.set(WAITED_FOR, false);
            self.retire_or_schedule(target);
        }
    }

    /// Parks a message whose frame `put` writes, and gives its number.
    pub(super) fn enqueue(
        &mut self,
        target: Target,
        content: Content,
        frame_bytes: usize,
        put: impl FnOnce(FrameOut<'_>) -> usize,
    ) -> u64 {
        self.last_queue_id += 1;
        let flow = self.flows.get_or_insert(target);
        // It waits for room behind others, and not for credit.
        let first = flow.queue.is_none();
        let has_credit = first && flow.may_send(cost(frame_bytes, self.window), self.window);
        flow.set(QUEUED, true);
        let before = flow.counted_bytes();
        flow.queue.get_or_insert_default().push(self.last_queue_id, content, frame_bytes, put);
        self.queued_bytes += flow.counted_bytes() - before;
        if let Content::Call(_) = content {
            self.target_of.insert(self.last_queue_id, target);
        }
        if has_credit && self.has_blocked() {
            self.make_ready(target);
        }
        self.last_queue_id
    }

    /// Takes a parked call out; gives whose it was.
    pub(super) fn remove_queued(&mut self, number: u64) -> Option<Target> {
        let target = self.target_of.remove(&number)?;
        self.take_from_queue(target, |queue| queue.remove(number))?;
        self.retire_or_schedule(target);
        Some(target)
    }

    /// Takes out all parked messages that are longer than the peer accepts.
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
        self.ready.retain(|target| self.flows.contains(*target));
        for queued in &longer {
            self.target_of.remove(&queued.number);
        }
        longer.sort_unstable_by_key(|queued| queued.number);
        longer
    }

    /// Whether messages that have credit wait for room on the link: others go behind them.
    pub(super) fn has_blocked(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many one-way messages are parked.
    pub(super) fn queued_tells(&self) -> u64 {
        let queued =
            self.flows.values().filter_map(|flow| flow.queue.as_ref()).flat_map(|queue| queue.iter());
        queued.filter(|queued| queued.content == Content::Tell).count() as u64
    }

    /// Every flow that has parked messages may go on, the longest waiting first: a link is there.
    pub(super) fn make_all_ready(&mut self) {
        let waiting = self.flows.iter().filter_map(|(target, flow)| Some((flow.front()?.number, target)));
        let mut waiting: Vec<_> = waiting.collect();
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

    /// Charges the next parked message that has credit, if `fits` says that the link has room for it; it
    /// is to be taken next. Behind one over `chunk_bytes` the flow waits for the last chunk.
    pub(super) fn pop_sendable(
        &mut self,
        chunk_bytes: usize,
        fits: impl FnOnce(Queued) -> bool,
    ) -> Option<(Target, Queued)> {
        while let Some(&target) = self.ready.front() {
            let flow = self.flows.get_mut(target)?;
            let may_go = flow.front().map(|queued| (queued, cost(queued.frame_bytes, self.window)));
            let Some((queued, cost)) = may_go.filter(|(_, cost)| flow.may_send(*cost, self.window)) else {
                flow.ready = false;
                self.ready.pop_front();
                continue;
            };
            if !fits(queued) {
                return None;
            }
            flow.in_flight_bytes += cost;
            flow.set(CHUNKING, queued.frame_bytes > chunk_bytes);
            if let Content::Call(_) = queued.content {
                self.target_of.remove(&queued.number);
            }
            return Some((target, queued));
        }
        None
    }

    /// Takes the message that [`next`](Self::next) gave: writes its frame.
    pub(super) fn take_next(&mut self, target: Target, out: &mut impl FrameSink) -> usize {
        self.take_from_queue(target, |queue| queue.pop_into(out)).unwrap_or(0)
    }

    /// The same of a large message.
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

    /// The large message is out, or abandoned.
    pub(super) fn chunking_done(&mut self, target: Target) {
        if let Some(flow) = self.flows.get_mut(target) {
            flow.set(CHUNKING, false);
            self.retire_or_schedule(target);
        }
    }

    /// The receiver gives bytes of a window back. `false` if it never had them.
    #[must_use]
    pub(super) fn add_credit(&mut self, target: Target, bytes: u64) -> bool {
        let Some(flow) = self.flows.get_mut(target) else { return false };
        let Some(charged) = flow.in_flight_bytes.checked_sub(bytes) else { return false };
        flow.in_flight_bytes = charged;
        self.retire_or_schedule(target);
        true
    }

    /// A message that was charged never went out whole: the receiver knows nothing of it.
    pub(super) fn refund(&mut self, target: Target, frame_bytes: usize) {
        let cost = cost(frame_bytes, self.window);
        if let Some(flow) = self.flows.get_mut(target) {
            flow.in_flight_bytes = flow.in_flight_bytes.saturating_sub(cost);
        }
    }

    /// A flow has less to do than before: it is forgotten, or its next message may go out.
    fn retire_or_schedule(&mut self, target: Target) {
        if self.flows.get(target).is_some_and(SendFlow::is_idle) {
            if self.flows.remove(target).is_some_and(|flow| flow.ready) {
                self.ready.retain(|ready| *ready != target);
            }
        } else {
            self.make_ready(target);
        }
    }

    /// Takes back what was charged: the receiver has dropped all that it had. What is parked stays.
    pub(super) fn restart(&mut self) {
        self.ready.clear();
        for flow in self.flows.values_mut() {
            (flow.in_flight_bytes, flow.ready) = (0, false);
            flow.closed &= QUEUED;
        }
        self.flows.take_if(SendFlow::is_idle);
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Self { window: self.window, last_queue_id: self.last_queue_id, ..Self::default() };
    }
}

/// The flows from the peer to the actors here.
#[derive(Debug)]
pub(super) struct ReceiveFlows {
    flows: FlowTable<ReceiveFlow>,
    /// What each flow is granted.
    window: u64,
    sweep_at: usize,
    /// Flows that are owed enough, and are not told yet.
    deferred: Vec<Target>,
}

#[derive(Debug, Default)]
struct ReceiveFlow {
    /// Of messages that are accepted and not handled.
    accepted: u64,
    /// Of messages that are handled, and that the sender has not been told of.
    releasable: u64,
}

impl ReceiveFlows {
    pub(super) fn new(window: u64) -> Self {
        Self { flows: FlowTable::default(), window, sweep_at: SWEEP_AT, deferred: Vec::new() }
    }

    /// What a message of that length takes.
    #[inline]
    pub(super) fn cost(&self, frame_bytes: usize) -> u64 {
        cost(frame_bytes, self.window)
    }

    /// Takes a message on. `false` if the sender had no credit for it.
    #[must_use]
    #[inline]
    pub(super) fn accept(&mut self, target: Target, cost: u64) -> bool {
        let flow = self.flows.get_or_insert(target);
        flow.accepted += cost;
        flow.accepted + flow.releasable <= self.window
    }

    /// A message is handled. Tells how much is to be given back, if it is enough by now; `withhold`
    /// keeps that for later.
    #[inline(always)]
    pub(super) fn release(&mut self, target: Target, cost: u64, withhold: bool) -> Option<u64> {
        let flow = self.flows.get_mut(target)?;
        flow.accepted -= cost.min(flow.accepted);
        let (enough, before) = (self.window / 4, flow.releasable);
        flow.releasable += cost;
        if flow.releasable < enough {
            return None;
        }
        if withhold {
            if before < enough {
                self.deferred.push(target);
            }
            return None;
        }
        let owed = std::mem::take(&mut flow.releasable);
        if flow.accepted == 0 {
            self.flows.remove(target);
        }
        Some(owed)
    }

    /// What was withheld, for each flow.
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

    /// Whether there are so many flows that those at rest should be looked for.
    pub(super) fn needs_sweep(&self) -> bool {
        self.flows.len() >= self.sweep_at
    }

    /// What the flows at rest are owed: they are forgotten.
    #[cold]
    pub(super) fn sweep(&mut self) -> Vec<(Target, u64)> {
        let resting = self.flows.take_if(|flow| flow.accepted == 0).into_iter();
        let mut owed: Vec<_> = resting.map(|(target, flow)| (target, flow.releasable)).collect();
        owed.sort_unstable();
        self.sweep_at = (2 * self.flows.len()).max(SWEEP_AT);
        owed
    }

    /// Bytes of windows that are taken by unhandled messages.
    pub(super) fn accepted(&self) -> u64 {
        self.flows.values().map(|flow| flow.accepted).sum()
    }

    /// Bytes of windows that are to be given back.
    pub(super) fn owed(&self) -> u64 {
        self.flows.values().map(|flow| flow.releasable).sum()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ActorId, ActorIncarnation, CallId};

    const ONE: Target = Target { actor: ActorId(1), incarnation: ActorIncarnation(0) };
    const OTHER: Target = Target { actor: ActorId(2), incarnation: ActorIncarnation(0) };

    fn park(flows: &mut SendFlows, target: Target, content: Content) -> u64 {
        flows.enqueue(target, content, 7, |mut out| {
            out.put_slice(b"message");
            7
        })
    }

    #[test]
    fn nothing_goes_out_before_there_is_a_window() {
        let mut flows = SendFlows::default();
        let number = park(&mut flows, ONE, Content::Call(CallId(1)));
        flows.make_all_ready();
        assert!(flows.pop_sendable(1 << 10, |_| true).is_none());
        park(&mut flows, ONE, Content::Tell);
        flows.remove_queued(number);
        assert!(!flows.may_send(ONE, 7) && !flows.charge(ONE, 7, false));
        assert!(!flows.may_send(OTHER, 7) && !flows.charge(OTHER, 7, false));
        let counted = QUEUE_OVERHEAD_BYTES + queued_cost(Content::Tell, 7);
        assert_eq!((flows.parked_bytes(), flows.charged()), (counted, 0));
    }

    #[test]
    fn a_flow_that_was_forgotten_keeps_no_other_from_going_on() {
        let mut flows = SendFlows::default();
        flows.set_window(1 << 10);
        assert!(flows.charge(ONE, 1 << 10, false));
        assert!(flows.charge(ONE, 1 << 10, false));
        let number = park(&mut flows, ONE, Content::Call(CallId(1)));
        assert!(flows.add_credit(ONE, 1 << 10), "its next message may go out");
        flows.remove_queued(number);
        park(&mut flows, OTHER, Content::Tell);
        flows.make_all_ready();
        let next = flows.pop_sendable(1 << 10, |_| true).map(|(target, _)| target);
        assert_eq!(next, Some(OTHER));
        assert_eq!(flows.take_next(OTHER, &mut bytes::BytesMut::new()), 7);
        assert!(flows.pop_sendable(1 << 10, |_| true).is_none());
        assert_eq!((flows.flows.len(), flows.target_of.len()), (1, 0), "what is at rest is forgotten");
    }
}

//! Statistics of handlers: messages handled, and sampled times, for each pair of actor type and message type.
//!
//! The statistics live as long as the process, which has one host with actors if it is a worker. Their number
//! is bounded by [`HANDLER_STATS_MAX`]; the pairs beyond share [`OTHER`].
//!
//! Cost on the path of a message:
//!
//! ```text
//!   each message         a comparison and a decrement, in registers
//!   each drain, or 16    two additions here, two to the actor's own counts, all without contention
//!   each 16th message    two reads of the clock, two additions in the histogram, and an offer to the recorder of spans
//! ```
//!
//! A message after one that took [`HANDLER_SLOW_MIN`] costs the same as a 16th message. An offer that is not taken is
//! three loads and two additions; see `observe::span_recorder`.

use std::collections::hash_map::Entry;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::config::{HANDLER_SAMPLE_INTERVAL, HANDLER_SLOW_MIN, HANDLER_STATS_MAX};
use crate::id::TypeHash;
use crate::lock::Mutex;
use crate::observe::{Percentiles, SPANS, TimeHistogram, Work};

/// Name of the actor type and the message type of the pairs beyond [`HANDLER_STATS_MAX`].
const OTHER_NAME: &str = "other";

/// Statistics of the pairs beyond [`HANDLER_STATS_MAX`].
static OTHER: HandlerStats = HandlerStats::new(OTHER_NAME, OTHER_NAME);

/// Statistics by the hashes of the two names.
static ALL: LazyLock<Mutex<FxHashMap<(TypeHash, TypeHash), &'static HandlerStats>>> =
    LazyLock::new(Mutex::default);

/// Statistics of one message type at one actor type, of all actors of the process.
///
/// A sampled time covers the decoding of the message, the handler, and the encoding of a reply that is
/// available when the handler returns. It does not cover a future that the handler returns.
#[derive(Debug)]
pub struct HandlerStats {
    actor: &'static str,
    message: &'static str,
    handled: AtomicU64,
    /// Messages in mailboxes. Signed, since threads may subtract before the addition is visible.
    waiting: AtomicI64,
    /// Messages until the next sample.
    until_sample: AtomicU32,
    times: TimeHistogram,
}

/// Values of a [`HandlerStats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HandlerCounts {
    pub(crate) actor: &'static str,
    pub(crate) message: &'static str,
    pub(crate) handled: u64,
    pub(crate) times: Option<Percentiles>,
}

// Relaxed throughout: the counters are statistics, and guard no memory.
impl HandlerStats {
    const fn new(actor: &'static str, message: &'static str) -> Self {
        Self {
            actor,
            message,
            handled: AtomicU64::new(0),
            waiting: AtomicI64::new(0),
            until_sample: AtomicU32::new(0),
            times: TimeHistogram::new(),
        }
    }

    /// Statistics of a pair, created on the first request.
    pub(super) fn of(actor: &'static str, message: &'static str) -> &'static Self {
        let mut all = ALL.lock();
        let pairs = all.len();
        match all.entry((TypeHash::of(actor), TypeHash::of(message))) {
            Entry::Occupied(known) => known.get(),
            Entry::Vacant(_) if pairs >= HANDLER_STATS_MAX => &OTHER,
            // Leaked once for each registration of the executable: a mailbox then needs no count of references.
            Entry::Vacant(new) => new.insert(Box::leak(Box::new(Self::new(actor, message)))),
        }
    }

    /// Statistics of the pairs without statistics of their own.
    pub(crate) fn other() -> &'static Self {
        &OTHER
    }

    /// Counts messages that were queued in a mailbox.
    pub(super) fn queued(&self, messages: usize) {
        self.waiting.fetch_add(signed(messages), Ordering::Relaxed);
    }

    /// Counts messages that left a mailbox without being handled.
    pub(super) fn rejected(&self, messages: usize) {
        self.waiting.fetch_sub(signed(messages), Ordering::Relaxed);
    }

    fn handled(&self, messages: u32) {
        self.handled.fetch_add(messages.into(), Ordering::Relaxed);
        self.waiting.fetch_sub(messages.into(), Ordering::Relaxed);
    }

    /// Counts a message of the same host, and returns the time of its start if it is to be sampled.
    pub(super) fn begin_local(&self) -> Option<Instant> {
        self.handled.fetch_add(1, Ordering::Relaxed);
        let left = self.until_sample.load(Ordering::Relaxed);
        if left > 0 {
            self.until_sample.store(left - 1, Ordering::Relaxed);
            return None;
        }
        Some(Instant::now())
    }

    /// Ends a sample of a message of the same host.
    pub(super) fn end_local(&self, started_at: Instant) {
        self.until_sample.store(self.sample(started_at), Ordering::Relaxed);
    }

    /// Records a sample; returns the number of messages until the next one.
    fn sample(&self, started_at: Instant) -> u32 {
        let time = started_at.elapsed();
        self.times.record(time);
        SPANS.offer(Work::Message { actor: self.actor, message: self.message }, started_at, time);
        interval_after(time)
    }

    fn counts(&self) -> HandlerCounts {
        HandlerCounts {
            actor: self.actor,
            message: self.message,
            handled: self.handled.load(Ordering::Relaxed),
            times: self.times.percentiles(),
        }
    }
}

/// Number of messages that are not sampled after one that took `time`.
///
/// A slow message can afford the reads of the clock, and slow messages are few: each is sampled.
fn interval_after(time: Duration) -> u32 {
    if time >= HANDLER_SLOW_MIN { 0 } else { HANDLER_SAMPLE_INTERVAL - 1 }
}

fn signed(messages: usize) -> i64 {
    i64::try_from(messages).unwrap_or(i64::MAX)
}

/// Counts of all pairs that have handled messages, and the number of messages in mailboxes.
pub(crate) fn handler_counts() -> (Vec<HandlerCounts>, u64) {
    let all = ALL.lock();
    let pairs = || all.values().copied().chain([&OTHER]);
    let waiting: i64 = pairs().map(|stats| stats.waiting.load(Ordering::Relaxed)).sum();
    let counts = pairs().map(HandlerStats::counts).filter(|counts| counts.handled > 0).collect();
    (counts, u64::try_from(waiting).unwrap_or(0))
}

/// Messages that a drain has handled and not yet added to the statistics.
#[derive(Debug, Default)]
pub(super) struct DrainTally {
    stats: Option<&'static HandlerStats>,
    handled: u32,
    until_sample: u32,
}

/// Number of messages after which a drain adds its tally to the statistics.
///
/// A handler that blocks in the middle of a drain leaves at most 15 earlier messages uncounted.
const TALLY_MAX: u32 = 16;

impl DrainTally {
    /// Counts a message of this pair that is about to be handled; returns the time of its start if it is to be
    /// sampled.
    ///
    /// It is counted before its handler runs, which may panic.
    #[inline(always)]
    pub(super) fn begin(&mut self, stats: &'static HandlerStats) -> Option<Instant> {
        if self.stats.is_none_or(|current| !std::ptr::eq(current, stats)) {
            self.until_sample = stats.until_sample.load(Ordering::Relaxed);
            self.stats = Some(stats);
        }
        self.handled += 1;
        if self.until_sample > 0 {
            self.until_sample -= 1;
            return None;
        }
        Some(Instant::now())
    }

    /// True if the tally must be published before a message of this pair.
    #[inline(always)]
    pub(super) fn is_of_another(&self, stats: &'static HandlerStats) -> bool {
        self.handled > 0 && self.stats.is_some_and(|current| !std::ptr::eq(current, stats))
    }

    /// Ends a message; returns true if the tally is full.
    #[inline(always)]
    pub(super) fn end(&mut self, sampled: Option<Instant>) -> bool {
        if let (Some(started_at), Some(stats)) = (sampled, self.stats) {
            self.until_sample = stats.sample(started_at);
        }
        self.handled >= TALLY_MAX
    }

    /// Adds the tally to the statistics, and returns the number of messages in it.
    pub(super) fn publish(&mut self) -> u32 {
        let handled = std::mem::take(&mut self.handled);
        if let Some(stats) = self.stats.filter(|_| handled > 0) {
            stats.handled(handled);
            stats.until_sample.store(self.until_sample, Ordering::Relaxed);
        }
        handled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(actor: &str) -> HandlerCounts {
        let (all, _) = handler_counts();
        *all.iter().find(|counts| counts.actor == actor).expect("the actor has handled messages")
    }

    #[test]
    fn drain_counts_each_message_and_samples_some() {
        let stats = HandlerStats::of("drain", "Message");
        stats.queued(40);
        let (mut tally, mut samples, mut published) = (DrainTally::default(), 0, 0);
        for _ in 0..40 {
            let sampled = tally.begin(stats);
            samples += u32::from(sampled.is_some());
            if tally.end(sampled) {
                published += tally.publish();
            }
        }
        published += tally.publish();
        assert_eq!((published, tally.publish(), counts("drain").handled), (40, 0, 40));
        assert_eq!(stats.waiting.load(Ordering::Relaxed), 0);
        // A pause of the machine may make a message slow, and the next one is sampled then.
        assert!((3..40).contains(&samples), "{samples} of 40 messages were sampled");
        assert!(counts("drain").times.is_some());
    }

    #[test]
    fn slow_messages_are_all_sampled_and_quick_ones_seldom() {
        assert_eq!(interval_after(HANDLER_SLOW_MIN), 0);
        assert_eq!(interval_after(HANDLER_SLOW_MIN / 2), HANDLER_SAMPLE_INTERVAL - 1);
    }

    #[test]
    fn a_pair_has_one_entry_for_all_hosts_of_the_process() {
        let [one, other] = [(); 2].map(|()| HandlerStats::of("shared", "Message"));
        assert!(std::ptr::eq(one, other) && !std::ptr::eq(one, HandlerStats::of("shared", "Other")));
    }
}

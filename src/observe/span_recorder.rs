//! Recorder of spans: when a handler or a task began, and how long it took, for a chosen few.
//!
//! The spans of a process wait here for its next report of statistics. Their number is bounded by
//! [`SPANS_PER_REPORT_MAX`]; the rest is counted. Nothing is recorded before [`SpanRecorder::start`], which only
//! workers of nodes call.
//!
//! Two budgets keep the chosen spans apart in time, so that they represent the whole interval:
//!
//! ```text
//!   quick handlers            one in SPAN_QUICK_INTERVAL
//!   tasks, slow handlers      one in SPAN_COARSE_INTERVAL, and SPAN_COARSE_BURST at once after a pause
//! ```
//! On one thread, a run of tasks that each take longer than their interval is therefore complete.
//!
//! Cost, beside the reads of the clock that statistics need anyway:
//!
//! ```text
//!   each message              none
//!   each timed message, task  three loads, a comparison, and one addition to a counter if it is left out
//!   each chosen one           a mutex, and a clone of the lane
//!   each one for which        a mutex: the pace goes on while a report is late
//!     there is no room
//! ```
//! A thread without a lane has no spans.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::lane::Lane;
use crate::config::{
    SPAN_COARSE_BURST, SPAN_COARSE_INTERVAL, SPAN_COARSE_MIN, SPAN_QUICK_INTERVAL, SPANS_PER_REPORT_MAX,
};
use crate::lock::Mutex;

/// Recorder of this process.
pub(crate) static SPANS: SpanRecorder = SpanRecorder::new();

/// Work that a span is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// Handler of a message.
    Message { actor: &'static str, message: &'static str },
    /// Task of a function.
    Task { function: &'static str },
}

/// Handler or task that was chosen.
#[derive(Clone, Debug)]
pub(crate) struct RecordedSpan {
    pub(crate) work: Work,
    pub(crate) started_at: Instant,
    pub(crate) time: Duration,
    pub(crate) lane: Lane,
}

/// Recorder of the spans of a process.
#[derive(Debug)]
pub(crate) struct SpanRecorder {
    /// Start of the recorder; empty while nothing reads the spans.
    origin: OnceLock<Instant>,
    quick: Pace,
    coarse: Pace,
    left_out: AtomicU64,
    chosen: Mutex<Vec<RecordedSpan>>,
}

/// Pace of the spans of one kind, by the generic cell rate algorithm (ITU-T I.371).
#[derive(Debug)]
struct Pace {
    /// Time from which on the next span is on time, in microseconds after the recorder's start.
    next_us: AtomicU64,
    interval_us: u64,
    /// Time by which a span may be early.
    tolerance_us: u64,
}

impl Pace {
    const fn new(interval: Duration, burst: u32) -> Self {
        let interval_us = interval.as_micros() as u64;
        Self { next_us: AtomicU64::new(0), interval_us, tolerance_us: interval_us * burst as u64 }
    }

    // Relaxed: a thread that sees an old value checks again under the lock.
    fn allows(&self, end_us: u64) -> bool {
        end_us + self.tolerance_us >= self.next_us.load(Ordering::Relaxed)
    }

    fn advance(&self, end_us: u64) {
        let next_us = self.next_us.load(Ordering::Relaxed).max(end_us) + self.interval_us;
        self.next_us.store(next_us, Ordering::Relaxed);
    }
}

impl SpanRecorder {
    const fn new() -> Self {
        Self {
            origin: OnceLock::new(),
            quick: Pace::new(SPAN_QUICK_INTERVAL, 0),
            coarse: Pace::new(SPAN_COARSE_INTERVAL, SPAN_COARSE_BURST),
            left_out: AtomicU64::new(0),
            chosen: Mutex::new(Vec::new()),
        }
    }

    /// Begins to record.
    pub(crate) fn start(&self) {
        self.origin.get_or_init(Instant::now);
    }

    /// Records a handler or a task that has just ended, if it is to be chosen.
    #[inline]
    pub(crate) fn offer(&self, work: Work, started_at: Instant, time: Duration) {
        let Some(origin) = self.origin.get() else { return };
        let pace = match work {
            Work::Message { .. } if time < SPAN_COARSE_MIN => &self.quick,
            _ => &self.coarse,
        };
        let end_us = micros(started_at.saturating_duration_since(*origin).saturating_add(time));
        if !pace.allows(end_us) || !self.record(pace, end_us, RecordedWork { work, started_at, time }) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records a span that is on time. Returns false if it is left out.
    #[cold]
    fn record(&self, pace: &Pace, end_us: u64, recorded: RecordedWork) -> bool {
        let is_recorded = Lane::with_this_thread(|lane| {
            let mut chosen = self.chosen.lock();
            if !pace.allows(end_us) {
                return false;
            }
            // Also without room. Otherwise each later span would take the lock.
            pace.advance(end_us);
            let has_room = chosen.len() < SPANS_PER_REPORT_MAX;
            if has_room {
                let RecordedWork { work, started_at, time } = recorded;
                chosen.push(RecordedSpan { work, started_at, time, lane: lane.clone() });
            }
            has_room
        });
        is_recorded == Some(true)
    }

    /// Takes the spans since the last call, in the order of their ends, and the number of those that were left out.
    pub(crate) fn take(&self) -> (Vec<RecordedSpan>, u64) {
        let chosen = std::mem::take(&mut *self.chosen.lock());
        (chosen, self.left_out.swap(0, Ordering::Relaxed))
    }
}

/// Work with its time, before it has a lane.
struct RecordedWork {
    work: Work,
    started_at: Instant,
    time: Duration,
}

fn micros(time: Duration) -> u64 {
    // Half of the range, so that sums do not overflow.
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::property_tests;

    const QUICK: Work = Work::Message { actor: "a", message: "m" };
    const TASK: Work = Work::Task { function: "f" };

    /// Started recorder, and its start.
    fn started() -> (SpanRecorder, Instant) {
        let recorder = SpanRecorder::new();
        recorder.start();
        let origin = *recorder.origin.get().unwrap();
        (recorder, origin)
    }

    fn ends_us(spans: &[RecordedSpan], origin: Instant) -> Vec<u64> {
        spans.iter().map(|span| micros(span.started_at + span.time - origin)).collect()
    }

    #[test]
    fn nothing_is_recorded_before_the_start() {
        let recorder = SpanRecorder::new();
        recorder.offer(TASK, Instant::now(), Duration::from_secs(1));
        let (chosen, left_out) = recorder.take();
        assert_eq!((chosen.len(), left_out), (0, 0));
    }

    #[test]
    fn long_tasks_are_all_recorded_between_many_quick_messages() {
        let (recorder, origin) = started();
        let mut now = origin;
        for _ in 0..40 {
            recorder.offer(TASK, now, Duration::from_millis(20));
            now += Duration::from_millis(20);
            for _ in 0..100 {
                recorder.offer(QUICK, now, Duration::from_micros(50));
                now += Duration::from_micros(50);
            }
        }
        let (chosen, left_out) = recorder.take();
        let tasks = chosen.iter().filter(|span| span.work == TASK).count();
        assert_eq!((tasks, chosen.len() as u64 + left_out), (40, 40 * 101));
        assert!((30..=64).contains(&(chosen.len() - tasks)), "{} messages", chosen.len() - tasks);
        assert_eq!(recorder.take().0.len(), 0);
    }

    #[test]
    fn slow_messages_count_as_tasks_do() {
        let (recorder, origin) = started();
        recorder.offer(QUICK, origin, Duration::from_micros(10));
        // Within the interval of quick messages.
        recorder.offer(QUICK, origin + Duration::from_micros(10), SPAN_COARSE_MIN);
        assert_eq!(recorder.take().0.len(), 2);
    }

    #[test]
    fn pace_goes_on_while_there_is_no_room() {
        let (recorder, origin) = started();
        let mut now = origin;
        let mut offer = |work, time| {
            recorder.offer(work, now, time);
            now += time;
        };
        (0..2 * SPANS_PER_REPORT_MAX).for_each(|_| offer(TASK, SPAN_COARSE_INTERVAL));
        // Of those in a moment at most one takes the lock, and the others are ahead of the pace.
        (0..1000).for_each(|_| offer(QUICK, Duration::ZERO));
        let end_us = micros(now - origin);
        assert!(!recorder.quick.allows(end_us));
        let burst = SPAN_COARSE_BURST as usize + 1;
        (0..burst).for_each(|_| recorder.offer(TASK, now, Duration::ZERO));
        assert!(!recorder.coarse.allows(end_us));
        let (chosen, left_out) = recorder.take();
        let offered = 2 * SPANS_PER_REPORT_MAX + 1000 + burst;
        assert_eq!((chosen.len(), left_out), (SPANS_PER_REPORT_MAX, (offered - SPANS_PER_REPORT_MAX) as u64));
    }

    proptest! {
        #![proptest_config(property_tests::cases(64))]

        #[test]
        fn budget_holds_and_choices_are_spread(
            times in prop::collection::vec((0_u64..3000, any::<bool>()), 1..3000),
            report_at in 0_usize..3000,
        ) {
            let (recorder, origin) = started();
            let (mut now, mut all, mut left_out) = (origin, Vec::new(), 0);
            let offered = times.len() as u64;
            let mut take = |recorder: &SpanRecorder| {
                let (chosen, more) = recorder.take();
                left_out += more;
                assert!(chosen.len() <= SPANS_PER_REPORT_MAX);
                all.extend(chosen);
            };
            for (number, (us, is_task)) in times.into_iter().enumerate() {
                if number == report_at {
                    take(&recorder);
                }
                let time = Duration::from_micros(us);
                recorder.offer(if is_task { TASK } else { QUICK }, now, time);
                now += time;
            }
            take(&recorder);
            prop_assert_eq!(all.len() as u64 + left_out, offered);
            let is_coarse = |span: &RecordedSpan| span.work == TASK || span.time >= SPAN_COARSE_MIN;
            let (coarse, quick): (Vec<_>, Vec<_>) = all.into_iter().partition(is_coarse);
            let quick = ends_us(&quick, origin);
            for pair in quick.windows(2) {
                prop_assert!(pair[1] - pair[0] >= micros(SPAN_QUICK_INTERVAL));
            }
            // Within any time the coarse ones are at most a burst and one for each interval.
            let (coarse, burst) = (ends_us(&coarse, origin), SPAN_COARSE_BURST as usize + 1);
            for pair in coarse.windows(burst + 1) {
                prop_assert!(pair[burst] - pair[0] >= micros(SPAN_COARSE_INTERVAL));
            }
            let whole = micros(now - origin) / micros(SPAN_COARSE_INTERVAL);
            prop_assert!(coarse.len() as u64 <= whole + burst as u64);
        }
    }
}

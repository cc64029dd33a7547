//! Spans of the jobs' timelines, as the workers report them.
//!
//! They are not part of the cluster's state: they decide nothing, change no version, and have a lock of their own.
//! Everything is bounded, whatever an agent or a worker sends. When a job is over its bound, a random half of its spans
//! is dropped, and half as many are kept from then on. A long job is therefore shown from its start to its end.
//!
//! Each span has a random rank. Those whose rank is a multiple of a power of two are kept. Every second one would not
//! do: of two workers that report in turn it keeps one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use crate::cluster::model::{JobId, JobSpans, Span, SpanLane, SpanName, WorkerId, WorkerSpans, mix};
use crate::config::{
    TIMELINE_LANES_MAX, TIMELINE_NAME_BYTES_MAX, TIMELINE_NAMES_MAX, TIMELINE_SPANS_MAX, TIMELINES_MAX,
    TIMELINES_SPANS_MAX,
};

/// Function name of the spans whose name found no room.
const OTHER: &str = "other";

/// Number of spans for which one without a lane counts.
///
/// About 300 such spans release lanes. With 1 the timeline would have a gap as long as the time of 20,000 spans.
const REFUSED_WEIGHT: usize = 64;

/// Number of spans that a timeline has room for first.
const SPANS_GROWTH_MIN: usize = 64;

/// Spans of all jobs.
#[derive(Debug, Default)]
pub(super) struct Timelines(Mutex<TimelineStore>);

#[derive(Debug, Default)]
struct TimelineStore {
    jobs: FxHashMap<JobId, Timeline>,
    /// Number of spans of all jobs.
    spans: usize,
    /// Number of reports so far.
    reports: u64,
}

/// Spans of one job.
#[derive(Debug)]
struct Timeline {
    /// Names with their positions, in the order in which they came.
    names: FxHashMap<SpanName, u16>,
    name_bytes: usize,
    lanes: Vec<SpanLane>,
    lane_positions: FxHashMap<(WorkerId, u16), u16>,
    spans: Vec<KeptSpan>,
    /// Number of reported spans of which about one is kept, a power of two.
    stride: u32,
    /// Number of chosen spans since the last thinning that found no lane.
    refused: usize,
    reported: u64,
    left_out: u64,
    /// Number of the last report, by which the oldest timeline is found.
    last_report: u64,
}

/// Span with its rank, which takes no more memory than a [`Span`].
#[derive(Clone, Copy, Debug)]
struct KeptSpan {
    start_us: u64,
    duration_us: u64,
    name: u16,
    /// Position in the list of lanes.
    lane: u16,
    rank: u32,
}

const _: () = assert!(size_of::<KeptSpan>() == size_of::<Span>(), "the rank is in the padding");

impl From<&KeptSpan> for Span {
    fn from(kept: &KeptSpan) -> Self {
        Self::from((kept.start_us, kept.duration_us, kept.name, kept.lane))
    }
}

impl Timelines {
    /// Adds the spans of a worker.
    pub(super) fn add(&self, job: JobId, worker: WorkerId, mut spans: WorkerSpans) {
        spans.bound();
        self.lock().add(job, worker, spans);
    }

    /// Spans of a job, by their start.
    pub(super) fn of(&self, job: JobId) -> JobSpans {
        let mut spans = self.lock().jobs.get(&job).map_or_else(JobSpans::default, Timeline::copy);
        // Without the lock, for which agents wait.
        spans.spans.sort_unstable_by_key(|span| (span.start_us, span.lane));
        spans
    }

    fn lock(&self) -> MutexGuard<'_, TimelineStore> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TimelineStore {
    fn add(&mut self, job: JobId, worker: WorkerId, spans: WorkerSpans) {
        self.reports += 1;
        let timeline = self.jobs.entry(job).or_default();
        timeline.last_report = self.reports;
        let before = timeline.spans.len();
        timeline.add(worker, spans);
        self.spans = self.spans - before + timeline.spans.len();
        // The job that has just reported has the latest number, so others go first, and it alone fits.
        while self.jobs.len() > TIMELINES_MAX || self.spans > TIMELINES_SPANS_MAX {
            let oldest = self.jobs.iter().min_by_key(|(_, timeline)| timeline.last_report);
            let Some(oldest) = oldest.map(|(job, _)| *job) else { break };
            self.spans -= self.jobs.remove(&oldest).map_or(0, |timeline| timeline.spans.len());
        }
    }
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            names: FxHashMap::default(),
            name_bytes: 0,
            lanes: Vec::new(),
            lane_positions: FxHashMap::default(),
            spans: Vec::new(),
            stride: 1,
            refused: 0,
            reported: 0,
            left_out: 0,
            last_report: 0,
        }
    }
}

impl Timeline {
    fn add(&mut self, worker: WorkerId, report: WorkerSpans) {
        let WorkerSpans { left_out, names, lanes, spans } = report;
        self.left_out = self.left_out.saturating_add(left_out);
        let threads: FxHashMap<u16, String> = lanes.into_iter().collect();
        // By their positions in the report.
        let names: Vec<u16> = names.into_iter().map(|name| self.name(name)).collect();
        for span in spans {
            let name = names.get(usize::from(span.name));
            let is_kept = name.is_some_and(|name| self.push(worker, Span { name: *name, ..span }, &threads));
            self.left_out = self.left_out.saturating_add(u64::from(!is_kept));
        }
    }

    /// Adds a span, whose lane is the number of a thread. Returns false if it is left out.
    fn push(&mut self, worker: WorkerId, span: Span, threads: &FxHashMap<u16, String>) -> bool {
        // By the order of arrival: from what workers send, one of them could choose its ranks. Half of the hash is
        // enough for 2^32 times the maximum.
        let rank = mix(self.reported) as u32;
        self.reported += 1;
        if !rank.is_multiple_of(self.stride) {
            return false;
        }
        // Those without a lane count, too. Otherwise nothing would be thinned, and no lane released, once all
        // workers that have a lane were replaced.
        if self.spans.len() + self.refused * REFUSED_WEIGHT >= TIMELINE_SPANS_MAX {
            self.thin();
            if !rank.is_multiple_of(self.stride) || self.spans.len() >= TIMELINE_SPANS_MAX {
                return false;
            }
        }
        let Some(lane) = self.lane(worker, span.lane, threads) else {
            self.refused += 1;
            return false;
        };
        let count = self.spans.len();
        if count == self.spans.capacity() {
            // The vector's own growth may take twice the maximum.
            self.spans.reserve_exact(count.max(SPANS_GROWTH_MIN).min(TIMELINE_SPANS_MAX - count));
        }
        let Span { start_us, duration_us, name, .. } = span;
        self.spans.push(KeptSpan { start_us, duration_us, name, lane, rank });
        true
    }

    /// Drops about half of the spans, and keeps half as many of the later ones.
    fn thin(&mut self) {
        // At the largest stride one in 2^31 is kept, and further ones are left out.
        self.stride = self.stride.checked_mul(2).unwrap_or(self.stride);
        let (before, stride) = (self.spans.len(), self.stride);
        self.spans.retain(|span| span.rank.is_multiple_of(stride));
        self.spans.shrink_to_fit();
        self.left_out = self.left_out.saturating_add((before - self.spans.len()) as u64);
        self.refused = 0;
        self.release_lanes();
    }

    /// Removes the lanes that no span has any more.
    fn release_lanes(&mut self) {
        let mut is_used = vec![false; self.lanes.len()];
        self.spans.iter().for_each(|span| is_used[usize::from(span.lane)] = true);
        let mut next = 0;
        let positions: Vec<u16> = is_used
            .iter()
            .map(|is_used| {
                let position = next;
                next += u16::from(*is_used);
                position
            })
            .collect();
        self.spans.iter_mut().for_each(|span| span.lane = positions[usize::from(span.lane)]);
        let mut old = 0;
        self.lanes.retain(|_| {
            old += 1;
            is_used[old - 1]
        });
        self.lane_positions.retain(|_, lane| {
            let old = usize::from(*lane);
            *lane = positions[old];
            is_used[old]
        });
    }

    /// Position of a name, which is new or known.
    fn name(&mut self, mut name: SpanName) -> u16 {
        if let Some(at) = self.names.get(&name) {
            return *at;
        }
        // A worker that invents names must not use up the head's memory.
        let is_full = self.names.len() >= TIMELINE_NAMES_MAX
            || self.name_bytes + name.bytes() > TIMELINE_NAME_BYTES_MAX;
        if is_full {
            name = SpanName::Task { function: OTHER.to_owned() };
        }
        let bytes = name.bytes();
        // Fits: there are at most `TIMELINE_NAMES_MAX` names, and `other`.
        let next = self.names.len() as u16;
        let at = *self.names.entry(name).or_insert(next);
        self.name_bytes += if at == next { bytes } else { 0 };
        at
    }

    /// Position of a lane; `None` if it is new, and there are too many.
    fn lane(&mut self, worker: WorkerId, number: u16, threads: &FxHashMap<u16, String>) -> Option<u16> {
        let at = self.lane_positions.get(&(worker, number)).copied();
        if at.is_some() || self.lanes.len() >= TIMELINE_LANES_MAX {
            return at;
        }
        // Fits: there are at most `TIMELINE_LANES_MAX` lanes.
        let at = self.lanes.len() as u16;
        let thread = threads.get(&number).cloned().unwrap_or_default();
        self.lanes.push(SpanLane { worker_id: worker, number, thread });
        self.lane_positions.insert((worker, number), at);
        Some(at)
    }

    fn copy(&self) -> JobSpans {
        let mut names: Vec<_> = self.names.iter().collect();
        names.sort_unstable_by_key(|(_, at)| **at);
        let names = names.into_iter().map(|(name, _)| name.clone()).collect();
        let mut copy = JobSpans::default();
        (copy.names, copy.lanes) = (names, self.lanes.clone());
        (copy.spans, copy.left_out) = (self.spans.iter().map(Span::from).collect(), self.left_out);
        copy
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{ACTOR_NAME_BYTES_MAX, SPANS_PER_REPORT_MAX};
    use crate::property_tests;

    fn task(function: &str) -> SpanName {
        SpanName::Task { function: function.to_owned() }
    }

    /// Report of a worker: spans that begin at these times.
    fn report(starts: std::ops::Range<u64>) -> WorkerSpans {
        WorkerSpans {
            names: vec![task("f")],
            lanes: vec![(0, "roadshow-tasks".to_owned())],
            spans: starts.map(|start_us| Span::from((start_us, 5, 0, 0))).collect(),
            ..WorkerSpans::default()
        }
    }

    #[test]
    fn spans_of_workers_have_their_names_and_lanes() {
        let timelines = Timelines::default();
        timelines.add(JobId(1), WorkerId(2), report(10..12));
        let mut second = report(5..6);
        second.names.insert(0, task("g"));
        timelines.add(JobId(1), WorkerId(1), second);
        let spans = timelines.of(JobId(1));
        assert_eq!(spans.names, [task("f"), task("g")]);
        let shown: Vec<_> = spans
            .spans
            .iter()
            .map(|span| (span.start_us, span.name, spans.lanes[usize::from(span.lane)].worker_id.0))
            .collect();
        assert_eq!(shown, [(5, 1, 1), (10, 0, 2), (11, 0, 2)]);
        assert_eq!(timelines.of(JobId(2)), JobSpans::default());
    }

    #[test]
    fn long_job_is_shown_from_its_start_to_its_end() {
        let timelines = Timelines::default();
        let (reports, each) = (1000, SPANS_PER_REPORT_MAX as u64);
        for number in 0..reports {
            timelines.add(JobId(1), WorkerId(1), report(number * each..(number + 1) * each));
        }
        let spans = timelines.of(JobId(1));
        let count = spans.spans.len();
        assert!((TIMELINE_SPANS_MAX / 2..=TIMELINE_SPANS_MAX).contains(&count), "{count} spans");
        assert_eq!(count as u64 + spans.left_out, reports * each);
        // Even: each tenth of the time has a tenth of the spans.
        for tenth in 0..10 {
            let (from, to) = (reports * each * tenth / 10, reports * each * (tenth + 1) / 10);
            let within = spans.spans.iter().filter(|span| (from..to).contains(&span.start_us)).count();
            assert!(within.abs_diff(count / 10) <= count / 100, "{within} of {count} spans in tenth {tenth}");
        }
    }

    #[test]
    fn workers_and_names_in_turn_all_remain() {
        let timelines = Timelines::default();
        let sent = 5 * TIMELINE_SPANS_MAX as u64;
        for at in 0..sent / 4 {
            for worker in 1..=2 {
                // Two functions in turn.
                let mut report = report(at * 10..at * 10 + 2);
                report.names.push(task("g"));
                report.spans[1].name = 1;
                timelines.add(JobId(1), WorkerId(worker), report);
            }
        }
        let spans = timelines.of(JobId(1));
        let mut counts = FxHashMap::<_, usize>::default();
        for span in &spans.spans {
            *counts.entry((spans.lanes[usize::from(span.lane)].worker_id, span.name)).or_default() += 1;
        }
        let count = spans.spans.len();
        assert_eq!((count as u64 + spans.left_out, counts.len()), (sent, 4));
        for (of, number) in counts {
            assert!(number.abs_diff(count / 4) <= count / 40, "{number} of {count} spans have {of:?}");
        }
    }

    #[test]
    fn replaced_workers_make_room_for_lanes() {
        let timelines = Timelines::default();
        let workers = 30 * TIMELINE_LANES_MAX as u64;
        for worker in 0..workers {
            timelines.add(JobId(1), WorkerId(worker), report(worker * 10..worker * 10 + 2));
        }
        let spans = timelines.of(JobId(1));
        assert!(spans.lanes.len() <= TIMELINE_LANES_MAX);
        let of_last = spans.lanes.iter().filter(|lane| lane.worker_id.0 >= workers / 10 * 9).count();
        assert!(of_last > 0, "the last workers are in the timeline");
        for span in &spans.spans {
            let worker = spans.lanes[usize::from(span.lane)].worker_id.0;
            assert_eq!(span.start_us / 10, worker, "the span is on a lane of its worker");
        }
        assert_eq!(spans.spans.len() as u64 + spans.left_out, 2 * workers);
    }

    #[test]
    fn memory_of_a_job_is_that_of_its_largest_number_of_spans() {
        let timelines = Timelines::default();
        let each = SPANS_PER_REPORT_MAX as u64;
        for number in 0..2 * TIMELINE_SPANS_MAX as u64 / each {
            timelines.add(JobId(1), WorkerId(1), report(number * each..(number + 1) * each));
            let capacity = timelines.lock().jobs[&JobId(1)].spans.capacity();
            assert!(capacity <= TIMELINE_SPANS_MAX, "room for {capacity} spans");
        }
    }

    #[test]
    fn job_without_reports_for_longest_makes_room() {
        let timelines = Timelines::default();
        let fill = |job| {
            // As many whole reports as fit.
            let starts =
                (0..(TIMELINE_SPANS_MAX - SPANS_PER_REPORT_MAX) as u64).step_by(SPANS_PER_REPORT_MAX);
            starts.for_each(|at| {
                timelines.add(JobId(job), WorkerId(1), report(at..at + SPANS_PER_REPORT_MAX as u64))
            });
        };
        (1..=10).for_each(fill);
        timelines.add(JobId(1), WorkerId(1), report(0..1));
        (11..=20).for_each(fill);
        assert!(timelines.lock().spans <= TIMELINES_SPANS_MAX);
        assert_eq!(timelines.of(JobId(2)), JobSpans::default(), "it was the oldest");
        for job in 21..=200 {
            timelines.add(JobId(job), WorkerId(1), report(0..1));
        }
        let store = timelines.lock();
        assert_eq!((store.jobs.len(), store.jobs.contains_key(&JobId(1))), (TIMELINES_MAX, false));
        assert_eq!(store.spans, store.jobs.values().map(|timeline| timeline.spans.len()).sum::<usize>());
    }

    #[test]
    fn invented_names_and_workers_are_bounded() {
        let timelines = Timelines::default();
        for number in 0..2 * TIMELINE_LANES_MAX as u64 {
            let mut report = report(number..number + 1);
            report.names = vec![task(&format!("{number:0>ACTOR_NAME_BYTES_MAX$}"))];
            report.lanes = vec![(0, "n".repeat(1000))];
            timelines.add(JobId(1), WorkerId(number), report);
        }
        let spans = timelines.of(JobId(1));
        let bytes: usize = spans.names.iter().map(SpanName::bytes).sum();
        assert!(
            spans.names.len() <= TIMELINE_NAMES_MAX + 1 && bytes <= TIMELINE_NAME_BYTES_MAX + OTHER.len()
        );
        assert_eq!(spans.names.last(), Some(&task(OTHER)));
        let lanes = TIMELINE_LANES_MAX / 2..=TIMELINE_LANES_MAX;
        assert!(lanes.contains(&spans.lanes.len()), "{} lanes", spans.lanes.len());
        // Each worker has one span.
        let left_out = (2 * TIMELINE_LANES_MAX - spans.lanes.len()) as u64;
        assert_eq!((spans.spans.len(), spans.left_out), (spans.lanes.len(), left_out));
    }

    proptest! {
        #![proptest_config(property_tests::cases(64))]

        #[test]
        fn any_report_keeps_positions_valid(
            reports in prop::collection::vec(
                (
                    0_u32..4, 0_u64..4, any::<u64>(),
                    prop::collection::vec("[a-c]{0,3}", 0..40),
                    prop::collection::vec((any::<u16>(), "[a-c]{0,40}"), 0..4),
                    prop::collection::vec((any::<u64>(), any::<u64>(), 0_u16..50, 0_u16..80), 0..400),
                ),
                0..12,
            )
        ) {
            let timelines = Timelines::default();
            let mut sent = 0_u64;
            for (job, worker, left_out, names, lanes, spans) in reports {
                sent = sent.saturating_add(left_out).saturating_add(spans.len() as u64);
                let names = names.iter().map(|name| task(name)).collect();
                let spans = spans.into_iter().map(Span::from).collect();
                let report = WorkerSpans { left_out, names, lanes, spans };
                timelines.add(JobId(job), WorkerId(worker), report);
            }
            let mut counted = 0_u64;
            for job in 0..4 {
                let spans = timelines.of(JobId(job));
                prop_assert!(spans.spans.len() <= TIMELINE_SPANS_MAX);
                for span in &spans.spans {
                    prop_assert!(usize::from(span.name) < spans.names.len());
                    prop_assert!(usize::from(span.lane) < spans.lanes.len());
                }
                counted = counted.saturating_add(spans.left_out).saturating_add(spans.spans.len() as u64);
            }
            prop_assert_eq!(counted, sent);
        }
    }
}

//! Spans of the node's workers that wait for the next request to the head.
//!
//! Spans are samples: those of a request that fails are lost, and so are those that find no room. They are counted as
//! left out. The memory is bounded while the head is away.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cluster::model::{Span, WorkerId, WorkerSpans};
use crate::config::{
    SPAN_REPORTS_QUEUED_MAX, SPANS_QUEUED_BYTES_MAX, SPANS_REQUEST_BYTES_MAX, SPANS_REQUEST_MAX,
};

/// Part of the queue's bytes that only counts may take: those of some thousand workers.
const COUNTS_BYTES_MAX: usize = SPANS_QUEUED_BYTES_MAX / 16;

/// Queue of reports with spans, oldest first.
#[derive(Debug, Default)]
pub(super) struct SpanQueue(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    reports: VecDeque<(WorkerId, WorkerSpans)>,
    /// Bytes of the reports, about.
    bytes: usize,
}

impl SpanQueue {
    /// Adds a report. Without room for it, its spans are counted as left out.
    pub(super) fn push(&self, worker: WorkerId, mut report: WorkerSpans) {
        report.bound();
        let mut queue = self.lock();
        let bytes = report.bytes();
        let own = queue.reports.iter().filter(|(of, _)| *of == worker).count();
        // A worker that reports all the time must not take the room of the others.
        if own >= SPAN_REPORTS_QUEUED_MAX || queue.bytes + bytes > SPANS_QUEUED_BYTES_MAX - COUNTS_BYTES_MAX {
            queue.count(worker, timed(&report));
        } else {
            queue.push(worker, report);
        }
    }

    /// Takes the reports of the next request: at most [`SPANS_REQUEST_MAX`] spans, the longest ones. Empty if nothing
    /// waits.
    pub(super) fn take(&self) -> (Vec<(WorkerId, WorkerSpans)>, UnackedSpans<'_>) {
        let mut taken = Vec::new();
        {
            let mut queue = self.lock();
            let mut bytes = 0;
            while let Some((_, report)) = queue.reports.front()
                && bytes + report.bytes() <= SPANS_REQUEST_BYTES_MAX
            {
                bytes += report.bytes();
                taken.extend(queue.reports.pop_front());
            }
            queue.bytes = queue.reports.iter().map(|(_, report)| report.bytes()).sum();
        }
        keep_longest(&mut taken, SPANS_REQUEST_MAX);
        let mut counts = BTreeMap::<_, u64>::new();
        for (worker, report) in &taken {
            let count = counts.entry(*worker).or_default();
            *count = count.saturating_add(timed(report));
        }
        (taken, UnackedSpans { queue: self, counts })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, worker: WorkerId, report: WorkerSpans) {
        self.bytes += report.bytes();
        self.reports.push_back((worker, report));
    }

    /// Counts spans of a worker as left out, in its last report or in one without spans.
    fn count(&mut self, worker: WorkerId, lost: u64) {
        if let Some((_, last)) = self.reports.iter_mut().rev().find(|(of, _)| *of == worker) {
            last.left_out = last.left_out.saturating_add(lost);
            return;
        }
        let report = WorkerSpans { left_out: lost, ..WorkerSpans::default() };
        if self.bytes + report.bytes() <= SPANS_QUEUED_BYTES_MAX {
            self.push(worker, report);
        }
    }
}

/// Request with spans that the head has not answered. When it is dropped, its spans count as left out.
///
/// If the head has read the request and only its answer is lost, they are counted although the head has them.
#[derive(Debug)]
pub(super) struct UnackedSpans<'a> {
    queue: &'a SpanQueue,
    /// Number of handlers and tasks that the request stands for, by worker.
    counts: BTreeMap<WorkerId, u64>,
}

impl UnackedSpans<'_> {
    /// Notes that the head has answered.
    pub(super) fn ack(mut self) {
        self.counts.clear();
    }
}

impl Drop for UnackedSpans<'_> {
    fn drop(&mut self) {
        let mut queue = self.queue.lock();
        for (worker, lost) in std::mem::take(&mut self.counts) {
            queue.count(worker, lost);
        }
    }
}

/// Number of handlers and tasks that a report stands for.
fn timed(report: &WorkerSpans) -> u64 {
    report.left_out.saturating_add(report.spans.len() as u64)
}

/// Keeps the longest spans of all reports, at most `max`.
///
/// An even choice would show threads as idle that run one long task after the other.
fn keep_longest(reports: &mut [(WorkerId, WorkerSpans)], max: usize) {
    let all = || reports.iter().flat_map(|(_, report)| &report.spans);
    let count = all().count();
    if count <= max {
        return;
    }
    let mut times: Vec<u64> = all().map(|span: &Span| span.duration_us).collect();
    // The shortest time that stays, and the number of spans of this time that have room.
    let (longer, shortest, _) = times.select_nth_unstable_by(max - 1, |one, other| other.cmp(one));
    let shortest = *shortest;
    let mut equal = max - longer.iter().filter(|time| **time > shortest).count();
    for (_, report) in reports {
        let before = report.spans.len();
        report.spans.retain(|span| {
            let is_equal = span.duration_us == shortest && equal > 0;
            equal -= usize::from(is_equal);
            is_equal || span.duration_us > shortest
        });
        report.spans.shrink_to_fit();
        report.left_out = report.left_out.saturating_add((before - report.spans.len()) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::model::SpanName;
    use crate::config::{ACTOR_NAME_BYTES_MAX, SPAN_NAMES_PER_MESSAGE_MAX, SPANS_PER_REPORT_MAX};

    fn report(count: usize, duration_us: u64) -> WorkerSpans {
        let span = Span::from((1, duration_us, 0, 0));
        let names = vec![SpanName::Task { function: "f".to_owned() }];
        WorkerSpans { names, spans: vec![span; count], ..WorkerSpans::default() }
    }

    fn count(taken: &[(WorkerId, WorkerSpans)]) -> (usize, u64) {
        let spans = taken.iter().map(|(_, report)| report.spans.len()).sum();
        (spans, taken.iter().map(|(_, report)| report.left_out).sum())
    }

    /// Reports of a request that the head answers.
    fn taken(queue: &SpanQueue) -> Vec<(WorkerId, WorkerSpans)> {
        let (taken, unacked) = queue.take();
        unacked.ack();
        taken
    }

    #[test]
    fn spans_of_a_failed_request_are_counted() {
        let queue = SpanQueue::default();
        queue.push(WorkerId(1), report(10, 1));
        queue.push(WorkerId(1), WorkerSpans { left_out: 5, ..report(10, 1) });
        queue.push(WorkerId(2), report(3, 1));
        let (request, unacked) = queue.take();
        assert_eq!(count(&request), (23, 5));
        queue.push(WorkerId(2), report(4, 1));
        drop(unacked);
        let request = taken(&queue);
        assert_eq!(request.iter().map(|(worker, _)| worker.0).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(count(&request), (4, 28));
        assert!(taken(&queue).is_empty() && queue.lock().bytes == 0);
    }

    #[test]
    fn worker_without_a_queued_report_is_counted_while_the_queue_is_full() {
        let queue = SpanQueue::default();
        // More than fit, of which those without room are counted.
        let pushed = 3 * SPANS_QUEUED_BYTES_MAX / (SPANS_PER_REPORT_MAX * size_of::<Span>());
        for worker in 0..pushed as u64 {
            queue.push(WorkerId(worker), report(SPANS_PER_REPORT_MAX, 1));
        }
        assert!(queue.lock().bytes <= SPANS_QUEUED_BYTES_MAX);
        let mut all = 0;
        loop {
            let taken = taken(&queue);
            if taken.is_empty() {
                break;
            }
            let (spans, left_out) = count(&taken);
            all += spans as u64 + left_out;
        }
        assert_eq!(all, (pushed * SPANS_PER_REPORT_MAX) as u64);
    }

    #[test]
    fn request_has_the_longest_spans_and_counts_the_others() {
        let queue = SpanQueue::default();
        for worker in 1..=8 {
            queue.push(WorkerId(worker), report(SPANS_PER_REPORT_MAX, worker));
        }
        let taken = taken(&queue);
        let all = 8 * SPANS_PER_REPORT_MAX;
        assert_eq!(count(&taken), (SPANS_REQUEST_MAX, (all - SPANS_REQUEST_MAX) as u64));
        let of_longest = taken.iter().filter(|(worker, _)| worker.0 > 4);
        assert!(of_longest.into_iter().all(|(_, report)| report.spans.len() == SPANS_PER_REPORT_MAX));
        assert!(taken.iter().all(|(_, report)| report.spans.capacity() == report.spans.len()));
        assert!(queue.take().0.is_empty() && queue.lock().bytes == 0);
    }

    #[test]
    fn spans_of_equal_length_are_bounded_too() {
        let queue = SpanQueue::default();
        (1..=8).for_each(|worker| queue.push(WorkerId(worker), report(SPANS_PER_REPORT_MAX, 5)));
        assert_eq!(count(&taken(&queue)).0, SPANS_REQUEST_MAX);
    }

    #[test]
    fn worker_that_reports_all_the_time_leaves_room_for_others() {
        let queue = SpanQueue::default();
        (0..100).for_each(|_| queue.push(WorkerId(1), report(10, 1)));
        queue.push(WorkerId(2), report(10, 1));
        let taken = taken(&queue);
        let of_first = taken.iter().filter(|(worker, _)| *worker == WorkerId(1)).count();
        assert_eq!((of_first, taken.len()), (SPAN_REPORTS_QUEUED_MAX, SPAN_REPORTS_QUEUED_MAX + 1));
        assert_eq!(count(&taken), (90, 920));
    }

    #[test]
    fn memory_and_requests_are_bounded_while_the_head_is_away() {
        let queue = SpanQueue::default();
        let function = "n".repeat(2 * ACTOR_NAME_BYTES_MAX);
        let names = vec![SpanName::Message { class: function.clone(), message: function }; 100];
        for worker in 0..10_000 {
            let mut report = report(2 * SPANS_PER_REPORT_MAX, 1);
            report.names.clone_from(&names);
            queue.push(WorkerId(worker % 1000), report);
        }
        assert!(queue.lock().bytes <= SPANS_QUEUED_BYTES_MAX);
        let taken = taken(&queue);
        let with_spans = taken.iter().filter(|(_, report)| !report.spans.is_empty());
        assert!(with_spans.into_iter().all(|(_, report)| report.names.len() == SPAN_NAMES_PER_MESSAGE_MAX));
        let bytes: usize = taken.iter().map(|(_, report)| report.bytes()).sum();
        assert!(bytes <= SPANS_REQUEST_BYTES_MAX && count(&taken).0 == SPANS_REQUEST_MAX);
    }
}

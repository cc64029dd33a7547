//! Messages with the spans that the recorder of the process has chosen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use rustc_hash::FxHashMap;

use crate::cluster::model::{Span, SpanName, WorkerSpans, cut};
use crate::cluster::protocol::worker::WorkerMessage;
use crate::config::{ACTOR_NAME_BYTES_MAX, SPAN_LANE_NAME_BYTES_MAX, SPAN_NAMES_PER_MESSAGE_MAX};
use crate::observe::{RecordedSpan, SPANS, Work};

/// Distance of two reads of one clock within which the read of the other is close enough.
const CLOCK_GAP_MAX: Duration = Duration::from_micros(50);

/// Maximum number of reads of both clocks for a report. A thread that is preempted in each of them takes the best.
const CLOCK_READS_MAX: usize = 8;

/// Maximum overlap of two spans of a lane that is an error of the reads. A longer one is a clock that was set back.
const OVERLAP_US_MAX: u64 = 10_000;

/// Takes the spans since the last report.
pub(super) fn taken(ends: &mut LaneEnds) -> Vec<WorkerMessage> {
    let (spans, left_out) = SPANS.take();
    let mut messages = messages(&spans, left_out, Clock::now());
    messages.iter_mut().flat_map(|message| &mut message.spans).for_each(|span| ends.separate(span));
    messages.into_iter().map(WorkerMessage::Spans).collect()
}

/// Time by both clocks. It is read anew for each report, so that times follow the clock of the machine.
#[derive(Clone, Copy, Debug)]
struct Clock {
    at: Instant,
    since_1970: Duration,
}

impl Clock {
    fn now() -> Self {
        Self::closest(|| {
            let before = Instant::now();
            let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            [(before, since_1970), (Instant::now(), since_1970)]
        })
    }

    /// Chooses of some reads the one that took the least time, during which the thread was not preempted.
    fn closest(mut read: impl FnMut() -> [(Instant, Duration); 2]) -> Self {
        let (mut best, mut gap) = Self::between(read());
        for _ in 1..CLOCK_READS_MAX {
            if gap <= CLOCK_GAP_MAX {
                break;
            }
            let (clock, its_gap) = Self::between(read());
            if its_gap < gap {
                (best, gap) = (clock, its_gap);
            }
        }
        best
    }

    fn between([(before, since_1970), (after, _)]: [(Instant, Duration); 2]) -> (Self, Duration) {
        let gap = after.saturating_duration_since(before);
        (Self { at: before + gap / 2, since_1970 }, gap)
    }

    fn micros(self, time: Instant) -> u64 {
        micros(self.since_1970.saturating_sub(self.at.saturating_duration_since(time)))
    }
}

/// Ends of the last spans of the lanes, by which spans of one lane never overlap.
///
/// Each report has its own reads of the clocks, which differ by some microseconds.
#[derive(Debug, Default)]
pub(super) struct LaneEnds(BTreeMap<u16, u64>);

impl LaneEnds {
    /// Moves a span behind the last one of its lane, if it overlaps it.
    fn separate(&mut self, span: &mut Span) {
        // Bounded by the number of lanes.
        let end_us = self.0.entry(span.lane).or_default();
        if end_us.saturating_sub(span.start_us) <= OVERLAP_US_MAX {
            span.start_us = span.start_us.max(*end_us);
        }
        *end_us = span.start_us.saturating_add(span.duration_us);
    }
}

/// Spans in parts that each fit a message.
fn messages(spans: &[RecordedSpan], left_out: u64, clock: Clock) -> Vec<WorkerSpans> {
    let mut messages = Vec::new();
    let mut part = Part::default();
    for span in spans {
        if part.is_full_for(span.work) {
            messages.push(std::mem::take(&mut part).finish());
        }
        part.add(span, clock);
    }
    part.spans.left_out = left_out;
    if left_out > 0 || !part.spans.spans.is_empty() {
        messages.push(part.finish());
    }
    messages
}

/// Part that is being filled.
#[derive(Default)]
struct Part {
    spans: WorkerSpans,
    names: FxHashMap<Work, u16>,
    lanes: BTreeMap<u16, String>,
}

impl Part {
    fn is_full_for(&self, work: Work) -> bool {
        self.names.len() >= SPAN_NAMES_PER_MESSAGE_MAX && !self.names.contains_key(&work)
    }

    fn add(&mut self, recorded: &RecordedSpan, clock: Clock) {
        let RecordedSpan { work, started_at, time, lane } = recorded;
        // Fits: a part has at most `SPAN_NAMES_PER_MESSAGE_MAX` names.
        let next = self.names.len() as u16;
        let name = *self.names.entry(*work).or_insert_with(|| {
            self.spans.names.push(name_of(*work));
            next
        });
        self.lanes.entry(lane.number).or_insert_with(|| bounded(&lane.thread, SPAN_LANE_NAME_BYTES_MAX));
        let (start_us, duration_us) = (clock.micros(*started_at), micros(*time));
        self.spans.spans.push(Span::from((start_us, duration_us, name, lane.number)));
    }

    fn finish(self) -> WorkerSpans {
        WorkerSpans { lanes: self.lanes.into_iter().collect(), ..self.spans }
    }
}

fn name_of(work: Work) -> SpanName {
    let named = |name| bounded(name, ACTOR_NAME_BYTES_MAX);
    match work {
        Work::Message { actor, message } => {
            SpanName::Message { class: named(actor), message: named(message) }
        }
        Work::Task { function } => SpanName::Task { function: named(function) },
    }
}

fn bounded(text: &str, bytes_max: usize) -> String {
    let mut text = text.to_owned();
    cut(&mut text, bytes_max);
    text
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::protocol::worker;
    use crate::config::{SPAN_LANES_MAX, SPANS_PER_REPORT_MAX};
    use crate::observe::Lane;

    fn clock() -> Clock {
        Clock { at: Instant::now(), since_1970: Duration::from_secs(1_800_000_000) }
    }

    /// Recorded span of a function with a long name.
    fn recorded(number: usize, clock: Clock) -> RecordedSpan {
        let function = format!("{number:0>width$}", width = 2 * ACTOR_NAME_BYTES_MAX).leak();
        let lane = Lane { number: (number % SPAN_LANES_MAX) as u16, thread: "t".repeat(100).into() };
        let work = Work::Message { actor: function, message: function };
        RecordedSpan { work, started_at: clock.at - Duration::from_micros(5), time: Duration::MAX, lane }
    }

    #[test]
    fn longest_messages_fit_and_have_all_spans() {
        let clock = clock();
        let spans: Vec<_> = (0..SPANS_PER_REPORT_MAX).map(|number| recorded(number, clock)).collect();
        let messages = messages(&spans, 7, clock);
        assert_eq!(messages.len(), SPANS_PER_REPORT_MAX / SPAN_NAMES_PER_MESSAGE_MAX);
        let count: usize = messages.iter().map(|message| message.spans.len()).sum();
        let left_out: u64 = messages.iter().map(|message| message.left_out).sum();
        assert_eq!((count, left_out), (SPANS_PER_REPORT_MAX, 7));
        for message in messages {
            #[cfg(feature = "cli")]
            {
                let mut bounded = message.clone();
                bounded.bound();
                assert_eq!(bounded, message, "an agent cuts nothing");
            }
            worker::encode(&WorkerMessage::Spans(message)).expect("the report fits a message");
        }
        // All spans under few names.
        let few = (0..SPANS_PER_REPORT_MAX).map(|at| spans[at % SPAN_NAMES_PER_MESSAGE_MAX].clone());
        let messages = super::messages(&few.collect::<Vec<_>>(), u64::MAX, clock);
        let [message] = &messages[..] else { panic!("one message") };
        worker::encode(&WorkerMessage::Spans(message.clone())).expect("the report fits a message");
    }

    #[test]
    fn clocks_are_those_of_the_closest_reads() {
        let start = Instant::now();
        // Times of the read's begin, of the other clock, and of the read's end.
        let read = |reads: &[(u64, u64, u64)]| {
            let mut reads = reads.iter();
            let clock = Clock::closest(|| {
                let (before, since_1970, after) = reads.next().expect("no further read");
                [before, after]
                    .map(|us| (start + Duration::from_micros(*us), Duration::from_micros(*since_1970)))
            });
            (micros(clock.at - start), micros(clock.since_1970), reads.count())
        };
        assert_eq!(read(&[(0, 1010, 20), (0, 0, 0)]), (10, 1010, 1), "the first is close enough");
        assert_eq!(read(&[(0, 1000, 5000), (5000, 6001, 5002), (0, 0, 0)]), (5001, 6001, 1));
        let preempted: Vec<_> = (1..=CLOCK_READS_MAX as u64).map(|at| (0, at, 10_000 - at)).collect();
        assert_eq!(read(&preempted).1, CLOCK_READS_MAX as u64, "the best of the reads");
        let clock = Clock::now();
        assert!(clock.at <= Instant::now());
    }

    #[test]
    fn spans_of_a_lane_do_not_overlap() {
        let mut ends = LaneEnds::default();
        let mut separated = |start_us, duration_us, lane| {
            let mut span = Span::from((start_us, duration_us, 0, lane));
            ends.separate(&mut span);
            (span.start_us, span.duration_us)
        };
        assert_eq!(separated(100_000, 50, 0), (100_000, 50));
        assert_eq!(separated(100_040, 20, 0), (100_050, 20), "the report has another read of the clock");
        assert_eq!(separated(100_060, 5, 0), (100_070, 5));
        assert_eq!(separated(100_060, 5, 1), (100_060, 5), "another lane");
        assert_eq!(separated(50_000, 5, 0), (50_000, 5), "the clock was set back");
        assert_eq!(separated(50_003, u64::MAX, 0), (50_005, u64::MAX));
    }

    #[test]
    fn times_are_those_of_the_clock_and_an_idle_worker_sends_nothing() {
        let clock = clock();
        let span = messages(&[recorded(1, clock)], 0, clock)[0].spans[0];
        assert_eq!(span.start_us, 1_800_000_000_000_000 - 5);
        assert_eq!(messages(&[], 0, clock), []);
        assert_eq!(messages(&[], 3, clock)[0].left_out, 3);
    }
}

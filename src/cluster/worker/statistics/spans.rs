//! Messages with the spans that the recorder of the process has chosen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use rustc_hash::FxHashMap;

use crate::cluster::model::{Span, SpanName, WorkerSpans, cut};
use crate::cluster::protocol::worker::WorkerMessage;
use crate::config::{ACTOR_NAME_BYTES_MAX, SPAN_LANE_NAME_BYTES_MAX, SPAN_NAMES_PER_MESSAGE_MAX};
use crate::observe::{RecordedSpan, SPANS, Work};

/// Takes the spans since the last report.
pub(super) fn taken() -> Vec<WorkerMessage> {
    let (spans, left_out) = SPANS.take();
    let clock =
        Clock { at: Instant::now(), since_1970: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default() };
    messages(&spans, left_out, clock).into_iter().map(WorkerMessage::Spans).collect()
}

/// Time by both clocks. It is read anew for each report, so that times follow the clock of the machine.
#[derive(Clone, Copy)]
struct Clock {
    at: Instant,
    since_1970: Duration,
}

impl Clock {
    fn micros(self, time: Instant) -> u64 {
        micros(self.since_1970.saturating_sub(self.at.saturating_duration_since(time)))
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
        self.lanes.insert(lane.number, bounded(&lane.thread, SPAN_LANE_NAME_BYTES_MAX));
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
    fn times_are_those_of_the_clock_and_an_idle_worker_sends_nothing() {
        let clock = clock();
        let span = messages(&[recorded(1, clock)], 0, clock)[0].spans[0];
        assert_eq!(span.start_us, 1_800_000_000_000_000 - 5);
        assert_eq!(messages(&[], 0, clock), []);
        assert_eq!(messages(&[], 3, clock)[0].left_out, 3);
    }
}

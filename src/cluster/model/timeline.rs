//! Spans of a job's timeline, as workers report them and the head keeps them.

use serde::{Deserialize, Serialize};

use super::WorkerId;
#[cfg(feature = "cli")]
use super::cut;
#[cfg(feature = "cli")]
use crate::config::{
    ACTOR_NAME_BYTES_MAX, SPAN_LANE_NAME_BYTES_MAX, SPAN_LANES_MAX, SPAN_NAMES_PER_MESSAGE_MAX,
    SPANS_PER_REPORT_MAX,
};

/// Handler or task that ran for a time on a thread.
///
/// Encoded without the names of the fields, which would triple its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u16, u16)", into = "(u64, u64, u16, u16)")]
#[non_exhaustive]
pub struct Span {
    /// Start by the clock of the worker's machine, in microseconds since 1970.
    pub start_us: u64,
    /// Time until the end, in microseconds.
    pub duration_us: u64,
    /// Position of the name in the list of names.
    pub name: u16,
    /// Lane: in a report of a worker the number of its thread, in [`JobSpans`] a position in the list of lanes.
    pub lane: u16,
}

impl From<(u64, u64, u16, u16)> for Span {
    fn from((start_us, duration_us, name, lane): (u64, u64, u16, u16)) -> Self {
        Self { start_us, duration_us, name, lane }
    }
}

impl From<Span> for (u64, u64, u16, u16) {
    fn from(Span { start_us, duration_us, name, lane }: Span) -> Self {
        (start_us, duration_us, name, lane)
    }
}

/// Name of the work in a span.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SpanName {
    /// Message of a type, handled by an actor of a class.
    Message {
        /// Type name of the actor.
        class: String,
        /// Type name of the message.
        message: String,
    },
    /// Task of a function.
    Task {
        /// Name of the function.
        function: String,
    },
}

impl SpanName {
    /// Name without the modules of its paths, such as `Counter: Add` or `square`.
    #[must_use]
    pub fn short(&self) -> String {
        match self {
            Self::Message { class, message } => format!("{}: {}", short_path(class), short_path(message)),
            Self::Task { function } => short_path(function),
        }
    }

    /// Length of its texts in bytes.
    #[cfg(feature = "cli")]
    pub(in crate::cluster) fn bytes(&self) -> usize {
        match self {
            Self::Message { class, message } => class.len() + message.len(),
            Self::Task { function } => function.len(),
        }
    }

    #[cfg(feature = "cli")]
    fn bound(&mut self) {
        match self {
            Self::Message { class, message } => {
                cut(class, ACTOR_NAME_BYTES_MAX);
                cut(message, ACTOR_NAME_BYTES_MAX);
            }
            Self::Task { function } => cut(function, ACTOR_NAME_BYTES_MAX),
        }
    }
}

/// Path of a type or a function without modules: `words::Node<std::string::String>` is `Node<String>`.
fn short_path(path: &str) -> String {
    let mut short = String::with_capacity(path.len());
    let mut rest = path;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        if let Some(inner) = behind.strip_prefix("::").filter(|_| !word.is_empty()) {
            rest = inner;
            continue;
        }
        short.push_str(word);
        let next = behind.chars().next();
        short.extend(next);
        rest = &behind[next.map_or(0, char::len_utf8)..];
    }
    short
}

/// Spans of a worker since its last report, or a part of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSpans {
    /// Number of timed handlers and tasks that were left out.
    pub(in crate::cluster) left_out: u64,
    pub(in crate::cluster) names: Vec<SpanName>,
    /// Numbers and names of the threads.
    pub(in crate::cluster) lanes: Vec<(u16, String)>,
    pub(in crate::cluster) spans: Vec<Span>,
}

#[cfg(feature = "cli")]
impl WorkerSpans {
    /// Cuts everything to its limit, and drops spans without a name: a worker may send anything.
    ///
    /// The memory of what is cut is released, so that [`Self::bytes`] are those that the report takes.
    pub(in crate::cluster) fn bound(&mut self) {
        self.names.truncate(SPAN_NAMES_PER_MESSAGE_MAX);
        self.names.shrink_to_fit();
        self.names.iter_mut().for_each(SpanName::bound);
        self.lanes.truncate(SPAN_LANES_MAX);
        self.lanes.retain(|(number, _)| usize::from(*number) < SPAN_LANES_MAX);
        self.lanes.shrink_to_fit();
        self.lanes.iter_mut().for_each(|(_, thread)| cut(thread, SPAN_LANE_NAME_BYTES_MAX));
        let sent = self.spans.len();
        let names = self.names.len();
        self.spans.retain(|span| usize::from(span.name) < names && usize::from(span.lane) < SPAN_LANES_MAX);
        self.spans.truncate(SPANS_PER_REPORT_MAX);
        self.spans.shrink_to_fit();
        self.left_out = self.left_out.saturating_add((sent - self.spans.len()) as u64);
    }

    /// Bytes that it takes in memory, about.
    pub(in crate::cluster) fn bytes(&self) -> usize {
        let names: usize = self.names.iter().map(|name| size_of::<SpanName>() + name.bytes()).sum();
        let lanes: usize =
            self.lanes.iter().map(|(_, thread)| size_of::<(u16, String)>() + thread.len()).sum();
        size_of::<Self>() + names + lanes + self.spans.len() * size_of::<Span>()
    }
}

/// Thread of a worker in the timeline of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanLane {
    /// Worker of the thread.
    pub worker_id: WorkerId,
    /// Number of the thread in the worker. A later thread may have the number of one that has ended.
    pub number: u16,
    /// Name of the thread.
    pub thread: String,
}

/// Spans that the head keeps of a job: a random choice of what its workers have reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobSpans {
    /// Names of the spans.
    pub names: Vec<SpanName>,
    /// Lanes of the spans. Spans of one lane do not overlap.
    pub lanes: Vec<SpanLane>,
    /// Spans by their start.
    pub spans: Vec<Span>,
    /// Number of timed handlers and tasks that are not among the spans.
    pub left_out: u64,
}

impl JobSpans {
    /// Leaves out random spans, so that at most `max` remain. A second call with the same spans leaves out the same.
    ///
    /// Each n-th one would not do: of functions that take turns it might keep only one.
    pub fn thin(&mut self, max: usize) {
        let count = self.spans.len();
        if count <= max {
            return;
        }
        // By their times, so that a picture of a running job changes little from call to call.
        let rank = |at: usize, span: &Span| (mix(span.start_us ^ mix(span.duration_us)), at);
        let mut ranks: Vec<_> = self.spans.iter().enumerate().map(|(at, span)| rank(at, span)).collect();
        let (_, first_left_out, _) = ranks.select_nth_unstable(max);
        let (first_left_out, mut at) = (*first_left_out, 0);
        self.spans.retain(|span| {
            at += 1;
            rank(at - 1, span) < first_left_out
        });
        self.left_out = self.left_out.saturating_add((count - max) as u64);
    }
}

/// Hash of a number: the mixing function of SplitMix64 (Steele, Lea, Flood, 2014).
pub(in crate::cluster) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(function: &str) -> SpanName {
        SpanName::Task { function: function.to_owned() }
    }

    fn span(start_us: u64, duration_us: u64) -> Span {
        Span { start_us, duration_us, name: 0, lane: 0 }
    }

    #[test]
    fn short_names_have_no_modules() {
        assert_eq!(task("a::b::Node<alloc::string::String>").short(), "Node<String>");
        assert_eq!(task("square").short(), "square");
        assert_eq!(task("<a::B as c::D>::e::").short(), "<B as D>::");
        let (class, message) = ("app::Counter".to_owned(), "app::Add".to_owned());
        assert_eq!(SpanName::Message { class, message }.short(), "Counter: Add");
        assert_eq!(task("ä::::ü ::").short(), "::ü ::");
    }

    #[cfg(feature = "cli")]
    #[test]
    fn invalid_parts_of_a_report_are_cut() {
        let long = "ü".repeat(ACTOR_NAME_BYTES_MAX);
        let mut report = WorkerSpans {
            left_out: u64::MAX,
            names: vec![task(&long); 2 * SPAN_NAMES_PER_MESSAGE_MAX],
            lanes: vec![(0, long.clone()), (u16::MAX, String::new())],
            spans: (0..600).map(|name| Span { name, ..span(1, u64::MAX) }).collect(),
        };
        report.spans.push(Span { lane: u16::MAX, ..span(1, 1) });
        report.bound();
        assert_eq!((report.names.len(), report.spans.len()), (SPAN_NAMES_PER_MESSAGE_MAX, 32));
        assert_eq!(report.lanes, [(0, "ü".repeat(SPAN_LANE_NAME_BYTES_MAX / 2))]);
        assert!(report.names[0].bytes() <= ACTOR_NAME_BYTES_MAX && report.left_out == u64::MAX);
        report.spans = vec![span(1, 1); 2 * SPANS_PER_REPORT_MAX];
        report.bound();
        assert_eq!(report.spans.len(), SPANS_PER_REPORT_MAX);
    }

    #[cfg(feature = "cli")]
    #[test]
    fn cut_report_takes_no_more_memory_than_it_counts() {
        let long = "n".repeat(20 * ACTOR_NAME_BYTES_MAX);
        let name = SpanName::Message { class: long.clone(), message: long.clone() };
        let mut report = WorkerSpans {
            names: vec![name; 2 * SPAN_NAMES_PER_MESSAGE_MAX],
            lanes: vec![(0, long); 2 * SPAN_LANES_MAX],
            spans: vec![span(1, 1); 100 * SPANS_PER_REPORT_MAX],
            left_out: 0,
        };
        report.bound();
        let names: usize = report
            .names
            .iter()
            .map(|name| match name {
                SpanName::Message { class, message } => class.capacity() + message.capacity(),
                SpanName::Task { function } => function.capacity(),
            })
            .sum();
        let lanes: usize = report.lanes.iter().map(|(_, thread)| thread.capacity()).sum();
        let taken = size_of::<WorkerSpans>()
            + names
            + lanes
            + report.names.capacity() * size_of::<SpanName>()
            + report.lanes.capacity() * size_of::<(u16, String)>()
            + report.spans.capacity() * size_of::<Span>();
        assert_eq!(taken, report.bytes());
    }

    #[test]
    fn thinned_spans_are_from_the_whole_time() {
        let mut spans = JobSpans { spans: (0..1000).map(|at| span(at, 1)).collect(), ..JobSpans::default() };
        let mut again = spans.clone();
        spans.thin(500);
        assert_eq!((spans.spans.len(), spans.left_out), (500, 500));
        assert!(spans.spans.is_sorted_by_key(|span| span.start_us));
        for tenth in 0..10 {
            let within = spans.spans.iter().filter(|span| span.start_us / 100 == tenth).count();
            assert!((30..=70).contains(&within), "{within} spans in tenth {tenth}");
        }
        again.thin(500);
        assert_eq!(again, spans);
        again.thin(500);
        assert_eq!(again, spans, "they are few enough");
    }

    #[test]
    fn functions_that_take_turns_all_remain() {
        for functions in 2..=5 {
            let spans = (0..1000).map(|at| Span { name: (at % functions) as u16, ..span(at * 1000, 1000) });
            let mut spans = JobSpans { spans: spans.collect(), ..JobSpans::default() };
            spans.thin(1000 / functions as usize);
            for name in 0..functions as u16 {
                let count = spans.spans.iter().filter(|span| span.name == name).count();
                let even = 1000 / (functions * functions) as usize;
                assert!((even / 2..=even * 2).contains(&count), "{count} of function {name} of {functions}");
            }
        }
    }

    #[test]
    fn equal_spans_are_bounded_too() {
        let mut spans = JobSpans { spans: vec![span(1, 1); 100], ..JobSpans::default() };
        spans.thin(7);
        assert_eq!((spans.spans.len(), spans.left_out), (7, 93));
        spans.thin(0);
        assert_eq!((spans.spans.len(), spans.left_out), (0, 100));
    }
}

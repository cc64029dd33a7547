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
    pub(in crate::cluster) fn bound(&mut self) {
        self.names.truncate(SPAN_NAMES_PER_MESSAGE_MAX);
        self.names.iter_mut().for_each(SpanName::bound);
        self.lanes.truncate(SPAN_LANES_MAX);
        self.lanes.retain(|(number, _)| usize::from(*number) < SPAN_LANES_MAX);
        self.lanes.iter_mut().for_each(|(_, thread)| cut(thread, SPAN_LANE_NAME_BYTES_MAX));
        let sent = self.spans.len();
        let names = self.names.len();
        self.spans.retain(|span| usize::from(span.name) < names && usize::from(span.lane) < SPAN_LANES_MAX);
        self.spans.truncate(SPANS_PER_REPORT_MAX);
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

/// Spans that the head keeps of a job: an even choice of what its workers have reported.
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
    /// Leaves out spans evenly, so that at most `max` remain.
    pub fn thin(&mut self, max: usize) {
        let count = self.spans.len();
        if count > max {
            self.spans = (0..max).map(|at| self.spans[at * count / max]).collect();
            self.left_out = self.left_out.saturating_add((count - max) as u64);
        }
    }
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

    #[test]
    fn thinned_spans_are_from_the_whole_time() {
        let mut spans = JobSpans { spans: (0..1000).map(|at| span(at, 1)).collect(), ..JobSpans::default() };
        spans.thin(10);
        let starts: Vec<_> = spans.spans.iter().map(|span| span.start_us).collect();
        assert_eq!((starts, spans.left_out), ((0..10).map(|at| at * 100).collect(), 990));
    }
}

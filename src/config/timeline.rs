//! Limits of the timelines of jobs: of what workers record, of the reports of it, and of what the head keeps.

use std::time::Duration;

/// Run time from which on a handler is recorded like a task, with its own part of the budget.
///
/// Such a handler is visible in a timeline of some seconds. A thread runs at most a thousand of them in a second.
pub const SPAN_COARSE_MIN: Duration = Duration::from_millis(1);

/// Shortest time between the ends of two recorded quick handlers of a worker.
///
/// About 60 in a second show which messages a worker handles, whatever their number.
pub const SPAN_QUICK_INTERVAL: Duration = Duration::from_millis(16);

/// Shortest time between the ends of two recorded tasks or slow handlers of a worker, beyond a burst.
///
/// A thread whose tasks take longer than this has all of them in the timeline.
pub const SPAN_COARSE_INTERVAL: Duration = Duration::from_millis(8);

/// Tasks and slow handlers that a worker records at once after a pause.
pub const SPAN_COARSE_BURST: u32 = 64;

/// Maximum number of spans that wait in a worker for its next report.
///
/// Those of one second by the three limits above, which are 253. A report that is late leaves the rest out.
pub const SPANS_PER_REPORT_MAX: usize = 256;

/// Maximum number of names in one message of a worker with spans, each of two texts of at most
/// [`ACTOR_NAME_BYTES_MAX`](super::ACTOR_NAME_BYTES_MAX) bytes. With the spans they fit 64 KiB.
pub const SPAN_NAMES_PER_MESSAGE_MAX: usize = 32;

/// Maximum number of threads of a worker with a lane; spans of further ones are left out.
///
/// A worker has a thread for actors, one for tasks, and those of functions that run in parallel.
pub const SPAN_LANES_MAX: usize = 64;

/// Maximum bytes of the name of a thread, as far as Linux shows one with some room.
pub const SPAN_LANE_NAME_BYTES_MAX: usize = 32;

/// Maximum number of messages with spans of one worker that wait in its agent, for the next request.
///
/// A report is one such message, unless it has many names.
pub const SPAN_REPORTS_QUEUED_MAX: usize = 8;

/// Maximum bytes of spans that wait in an agent: those of a large node for a few seconds.
pub const SPANS_QUEUED_BYTES_MAX: usize = 8 << 20;

/// Maximum bytes of spans in one request of an agent, a fraction of the longest frame.
pub const SPANS_REQUEST_BYTES_MAX: usize = 2 << 20;

/// Maximum number of spans of a node in one request, one in each interval; the shortest are left out.
///
/// A span takes about 20 bytes there, so a hundred nodes with this number send the head 2 MB in a second.
pub const SPANS_REQUEST_MAX: usize = 1024;

/// Maximum number of spans that the head keeps of one job; then a random half is left out.
///
/// About as many as a wide screen shows on ten lanes. They take 24 bytes each.
pub const TIMELINE_SPANS_MAX: usize = 20_000;

/// Maximum number of spans that the head keeps of all jobs; the job whose last span is the oldest loses all of its.
pub const TIMELINES_SPANS_MAX: usize = 200_000;

/// Maximum number of jobs of which the head keeps spans.
pub const TIMELINES_MAX: usize = 100;

/// Maximum number of names of messages and functions in a timeline; further ones are `other`.
pub const TIMELINE_NAMES_MAX: usize = 1024;

/// Maximum bytes of these names. Programs have tens of names of some tens of bytes.
pub const TIMELINE_NAME_BYTES_MAX: usize = 64 << 10;

/// Maximum number of lanes in a timeline, each a thread of a worker; spans of further ones are left out.
///
/// Lanes that have no span any more make room when the spans are thinned.
pub const TIMELINE_LANES_MAX: usize = 4096;

/// Maximum number of spans in the report of a job, randomly chosen. They take about 30 bytes each in the file.
pub const REPORT_SPANS_MAX: usize = 5000;

//! Limits of the head's dashboard: its server, its log-in, and its history.

use std::time::Duration;

/// Default TCP port of the dashboard; the same as Ray's.
pub const DASHBOARD_PORT: u16 = 8265;

/// Maximum number of open connections to the dashboard; further ones wait in the accept queue.
///
/// A browser opens at most six, of which one is its event stream.
pub const DASHBOARD_CONNECTIONS_MAX: usize = 256;

/// Maximum number of dashboard requests that are handled at one time; one more is refused.
///
/// A page loads two or three things at a time, and a list of 10,000 actors takes some milliseconds.
pub const DASHBOARD_REQUESTS_MAX: usize = 32;

/// Maximum size of a request body of the dashboard, in bytes; the longest has a token.
pub const DASHBOARD_BODY_BYTES_MAX: usize = 64 << 10;

/// Timeout for the head of a request to the dashboard, and for a TLS handshake.
pub const DASHBOARD_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for which the dashboard keeps an idle connection.
pub const DASHBOARD_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Timeout of one dashboard request.
///
/// The slowest reads logs of a node, with timeouts of 5 s to dial and 10 s for a reply.
pub const DASHBOARD_REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum number of clients of the dashboard's event stream; one more is refused.
pub const DASHBOARD_STREAMS_MAX: usize = 64;

/// Maximum number of events queued for one client of the event stream; a slower client is disconnected.
///
/// A client that reads is at most one behind. The queue holds 8 s of changes and samples.
pub const DASHBOARD_STREAM_QUEUE_MAX: usize = 32;

/// Interval in which the event stream checks for changed rows, and thus its maximum rate of change events.
pub const DASHBOARD_CHANGE_INTERVAL: Duration = Duration::from_millis(250);

/// Interval of the comment line that keeps an event stream open.
pub const DASHBOARD_STREAM_HEARTBEAT: Duration = Duration::from_secs(15);

/// Maximum number of log downloads at one time; each holds one part of a log.
pub const DASHBOARD_DOWNLOADS_MAX: usize = 4;

/// Maximum bytes of one downloaded log: a log grows at most to its rotation, and may be rotated meanwhile.
pub const DASHBOARD_DOWNLOAD_BYTES_MAX: u64 = 32 << 20;

/// Maximum number of sessions of logged-in browsers; one more ends the oldest.
pub const DASHBOARD_SESSIONS_MAX: usize = 256;

/// Lifetime of a session: a working day.
pub const DASHBOARD_SESSION_VALID: Duration = Duration::from_secs(12 * 60 * 60);

/// Lifetime of a log-in link.
pub const DASHBOARD_TICKET_VALID: Duration = Duration::from_secs(10 * 60);

/// Maximum number of unused log-in links; one more ends the oldest.
pub const DASHBOARD_TICKETS_MAX: usize = 16;

/// Period in which failed log-ins are counted.
pub const DASHBOARD_LOGIN_PERIOD: Duration = Duration::from_secs(60);

/// Maximum number of failed log-ins from one address in a period; more are refused unread.
///
/// The token cannot be guessed at any rate. The limit bounds noise in the log and work for the head.
pub const DASHBOARD_LOGINS_FAILED_MAX: u32 = 10;

/// Maximum number of failed log-ins from all addresses in a period.
pub const DASHBOARD_LOGINS_FAILED_ALL_MAX: u32 = 100;

/// Interval of the samples of the dashboard's history, and of its `sample` events.
pub const HISTORY_SAMPLE_INTERVAL: Duration = Duration::from_secs(2);

/// Maximum number of nodes that the history has series of; for further nodes it has only the cluster's sums.
///
/// With 2,130 points of 4 bytes a node's six series take 51 KB. All nodes take 3.3 MB, and the cluster 128 KB.
pub const HISTORY_NODES_MAX: usize = 64;

/// Maximum number of workers whose message counts are sampled; the message rate is of these.
///
/// Their rows take the dashboard's thread 20 ms for each sample.
pub const HISTORY_WORKERS_MAX: usize = 4000;

/// Interval in which the history is written to disk.
pub const HISTORY_FLUSH_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum number of values of one label in `/metrics`; further ones are counted under `other`.
pub const METRIC_LABELS_MAX: usize = 100;

/// Maximum number of rows that a sorted list keeps to find its page: the sum of offset and limit.
///
/// With names of the maximum length they take 10 MB while the list is made.
pub const LIST_SORTED_MAX: usize = 20_000;

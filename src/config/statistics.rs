//! Limits of what processes count, of the reports of it, and of the head's log of events.

use std::time::Duration;

/// Maximum number of pairs of actor type and message type with statistics of their own.
///
/// The pairs beyond share one entry. Programs have tens; an entry takes 400 bytes.
pub const HANDLER_STATS_MAX: usize = 1024;

/// Messages of a pair of actor type and message type of which the handler of one is timed.
///
/// The two reads of the clock are shared out among as many messages.
pub const HANDLER_SAMPLE_INTERVAL: u32 = 16;

/// Time of a handler after which the next message of its pair is timed, too.
///
/// The reads of the clock are a small part of such a handler.
pub const HANDLER_SLOW_MIN: Duration = Duration::from_micros(20);

/// Interval of a worker's reports of its statistics, and of an agent's reports of them to the head.
///
/// A report contains only what has changed, so it costs nothing for the actors that are idle.
pub const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of actors in one report of a worker: 25 bytes each, in a message of at most 64 KiB.
pub const REPORTED_ACTORS_MAX: usize = 2000;

/// Maximum number of message types in one report of a worker, each with two names of at most
/// [`ACTOR_NAME_BYTES_MAX`](super::ACTOR_NAME_BYTES_MAX) bytes, in a message of at most 64 KiB.
pub const REPORTED_MESSAGES_MAX: usize = 48;

/// Maximum number of actors and messages in one request of an agent with statistics.
///
/// The head merges them under the lock of its state, in less than a millisecond.
pub const STATISTICS_REQUEST_MAX: usize = 4096;

/// Maximum number of requests with statistics that an agent sends in one interval; the rest follows in the next.
pub const STATISTICS_REQUESTS_PER_INTERVAL_MAX: usize = 32;

/// Maximum number of pairs of actor type and message type that the head counts for one worker.
///
/// A worker has [`HANDLER_STATS_MAX`] of them, and one for the rest.
pub const MESSAGE_NAMES_MAX: usize = HANDLER_STATS_MAX + 1;

/// Maximum number of events in the head's log; the oldest are dropped.
///
/// They cover the events of a bad night in less than a megabyte.
pub const EVENTS_MAX: usize = 1000;

/// Maximum number of deaths of actors among these events.
///
/// A job whose actors panic one after the other must not displace the death of a node.
pub const ACTOR_EVENTS_MAX: usize = 500;

/// Maximum number of events about the actors that die with one worker; the event of the worker counts all.
pub const ACTOR_EVENTS_PER_WORKER_MAX: usize = 10;

/// Maximum bytes of the text of an event.
pub const EVENT_TEXT_BYTES_MAX: usize = 512;

/// Maximum number of pairs of class and message that the head keeps of a worker that has ended, the most frequent.
pub const ENDED_MESSAGES_MAX: usize = 64;

//! Limits of durable actors.

use std::time::Duration;

/// Maximum size of one stored decision, in bytes: events, reply and messages together.
///
/// A record travels in one frame with others.
pub const STATE_RECORD_BYTES_MAX: usize = 16 << 20;

/// Bytes of records that are stored together, and of one part of a snapshot.
///
/// Sending them takes several round trips' time, so larger groups would only delay the first reply.
pub const STATE_GROUP_BYTES_MAX: usize = 4 << 20;

/// Maximum size of an encoded snapshot, in bytes.
///
/// It is in memory twice while it is made, and the actor's state besides.
pub const STATE_SNAPSHOT_BYTES_MAX: usize = 1 << 30;

/// Bytes of records after which the first snapshot is made.
///
/// Replay takes some tens of milliseconds then.
pub const SNAPSHOT_LOG_BYTES_MIN: u64 = 1 << 20;

/// Number of copies of a state, on as many nodes, if there are enough.
pub const STATE_COPIES: u8 = 2;

/// Time without an answer after which a holder is replaced, if another one remains.
///
/// A process that the kernel does not run for a second is rare; a node that is lost blocks callers for that long.
pub const STATE_HOLDER_TIMEOUT: Duration = Duration::from_millis(1500);

/// Maximum memory that the states of one job take at a holder, in bytes.
///
/// An agent that runs out of memory takes its whole node with it.
pub const STATES_PER_JOB_BYTES_MAX: u64 = 4 << 30;

/// Shortest and longest interval in which an actor with too few copies looks for another holder. It doubles.
///
/// On a cluster of one node all durable actors look, and none finds one.
pub const STATE_REPAIR_INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Pause before a request to the holder of a state is repeated.
pub const STATE_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Maximum number of messages that a durable actor has on their way to others, one to each.
pub const OUTBOX_IN_FLIGHT_MAX: usize = 64;

/// Time for which a durable actor keeps the replies to calls with keys of the user, and what it knows of callers.
pub const KEYS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Maximum number of keys of the user that a durable actor keeps.
pub const ANSWERED_KEYS_MAX: usize = 1 << 16;

/// Maximum number of callers whose last calls a durable actor keeps.
pub const ANSWERED_CALLERS_MAX: usize = 1 << 16;

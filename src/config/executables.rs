//! Limits of the executables of jobs: their upload by drivers, the fetch from node to node, and the store.

use std::time::Duration;

/// Time that an agent may take to write one piece of an executable.
pub const EXECUTABLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of nodes to which a driver uploads its executable concurrently.
///
/// The others fetch it from nodes that have it. With two, one slow node delays no other.
pub const EXECUTABLES_SENT_AT_ONCE: usize = 2;

/// Time without another piece after which a node that is sent an executable is slow: another node is sent it, too.
///
/// A piece in that time is 1.7 Mbit/s. Once a node has the executable, slow ones fetch the rest there, so the driver
/// still sends two copies and parts of others.
pub const EXECUTABLE_SEND_STALL: Duration = Duration::from_secs(5);

/// Slow nodes that a driver sends its executable to, beside [`EXECUTABLES_SENT_AT_ONCE`] others.
///
/// If the driver's own link is slow, all are: four pieces within [`EXECUTABLE_TIMEOUT`] are 1.1 Mbit/s.
pub const EXECUTABLES_SENT_SLOWLY_MAX: usize = 2;

/// Interval at which a driver looks at the progress of a copy that it sends.
pub const EXECUTABLE_SEND_LOOK: Duration = Duration::from_millis(500);

/// Pause before a node asks for an executable again when the source serves others: the first, which doubles up to
/// the second. A random half of it is left out.
pub const EXECUTABLE_BUSY_DELAY_MIN: Duration = Duration::from_millis(100);
/// The longest such pause.
pub const EXECUTABLE_BUSY_DELAY_MAX: Duration = Duration::from_secs(2);

/// Sum of a node's pauses after which a source that serves others counts as one that fails.
///
/// Programs of other drivers have the source's places until then: at 10 Mbit/s two such take 30 MiB in that time.
pub const EXECUTABLE_BUSY_WAIT_MAX: Duration = Duration::from_secs(30);

/// Time for which a starting driver looks for a node that has its executable, before it uploads any copy.
///
/// Nodes reply from memory, or read a large file once. A silent node delays the start no longer than
/// this.
pub const EXECUTABLE_LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of nodes that fetch one driver's executable from the same node concurrently.
///
/// With two, the number of nodes that have it triples in each round of two transfers.
pub const EXECUTABLE_FETCHES_PER_NODE: usize = 2;

/// Maximum number of nodes from which a node tries to fetch an executable before the driver uploads it.
///
/// Each attempt may cost [`EXECUTABLE_FETCH_TIMEOUT`].
pub const EXECUTABLE_SOURCES_TRIED_MAX: usize = 3;

/// Failed fetches by different nodes after which a node no longer serves as a source.
///
/// A single failure may be due to the fetching node.
pub const EXECUTABLE_SOURCE_FAILURES_MAX: usize = 2;

/// Timeout of one piece of an executable that a node fetches from another.
///
/// Over a link of 10 Mbit/s that two nodes share, a piece takes less than two seconds. A slower source is
/// no faster than the driver.
pub const EXECUTABLE_FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for which a node fetches pieces before it reports to the driver, which then lets it continue.
///
/// With [`EXECUTABLE_FETCH_TIMEOUT`] for the last piece it stays well below [`EXECUTABLE_TIMEOUT`].
pub const EXECUTABLE_FETCH_TURN: Duration = Duration::from_secs(5);

/// Maximum number of executables that a node fetches concurrently; each has one piece in memory.
pub const EXECUTABLE_FETCHES_MAX: usize = 16;

/// Maximum number of nodes that a node serves executables to concurrently; each has one piece in memory.
///
/// It is twice [`EXECUTABLE_FETCHES_PER_NODE`], enough for two drivers with different programs.
pub const EXECUTABLE_PEERS_SERVED_MAX: usize = 4;

/// Time without a request after which a fetching node loses its slot.
///
/// Between two pieces it writes the first one, and may report to its driver.
pub const EXECUTABLE_PEER_IDLE: Duration = Duration::from_secs(10);

/// Largest executable that a node accepts, in bytes.
///
/// A large program with full debug symbols has some hundred megabytes.
pub const EXECUTABLE_BYTES_MAX: u64 = 1 << 30;

/// Maximum bytes of executables that a node stores, incomplete uploads included.
///
/// Some ten large ones, or hundreds of small ones, so that yesterday's program need not be uploaded
/// again.
pub const EXECUTABLES_BYTES_MAX: u64 = 4 << 30;

/// Maximum number of executables that a node stores, however small.
///
/// The eviction scans all of them.
pub const EXECUTABLES_MAX: usize = 256;

/// Bytes of an executable in one message.
///
/// The message is one piece on the wire, and a millisecond of work for the node that writes it.
pub const EXECUTABLE_CHUNK_BYTES: usize = 1 << 20;

/// Time without progress after which an incomplete upload may be evicted to free space.
///
/// It is longer than a driver takes to reconnect after its link broke.
pub const UPLOAD_IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

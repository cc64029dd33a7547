//! Limits of the message layer and of clusters, each a named constant with its reason.
//!
//! [`Limits`] holds those that a program may set. Its default is the constants.

mod cluster;
mod dashboard;
mod durable;
mod executables;
mod reports;
mod statistics;
mod timeline;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use cluster::*;
pub use dashboard::*;
pub use durable::*;
pub use executables::*;
pub use reports::*;
pub use statistics::*;
pub use timeline::*;

// Limits on the path of a message, and where a sender or a peer waits:
//
//     sender ─▶ queue of the actor ─▶ send buffer ─▶ socket ─▶ read ─▶ actor's queue ─▶ handler
//               SEND_QUEUE_BYTES_MAX  OUTGOING_        │       READ_    WINDOW_BYTES     BATCH_*
//               (credit is used up)   BYTES_MAX        │       BUDGET_  (not handled)
//                                     (unacked)        │       BYTES
//                              CHUNK_BYTES, CHUNK_BURST_BYTES
//
// A receiver never stops reading its socket: acknowledgements and credit must not wait behind
// messages. Memory is therefore bounded by the windows, and not by TCP's flow control.

/// Longest frame after the handshake, in bytes, header included.
///
/// The word list of a long book fits into one message. A few hundred peers that each announce such a
/// frame cannot exhaust a machine.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// Longest frame before a peer is authenticated, in bytes.
///
/// The longest handshake frame is a refusal with its reason, about 300 bytes.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 512;

/// Timeout of the whole handshake.
///
/// The handshake takes two round trips on the dialling host and one on the accepting host. Five seconds
/// suffice for an intercontinental link with packet loss, and bound the resources that a silent peer can
/// hold.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of open handshakes of a listener; one more cancels the oldest.
///
/// At 512 bytes each they take less than a megabyte, however slow the peers are.
pub const HANDSHAKES_OPEN_MAX: usize = 256;

/// Pause of the accept loop after the operating system failed to accept a connection.
///
/// The usual cause is a lack of file descriptors, which an immediate retry would meet again.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Timeout of one attempt to connect.
///
/// It also bounds the time for a first link, and the wait for a peer without a known address to connect.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum bytes in flight to one host: unwritten or unacknowledged.
///
/// It keeps a fast network busy while the writing thread is descheduled for tens of milliseconds. A
/// sender beyond it waits, or gets its message back. The same number of bytes may wait separately for the
/// credit of the receiving actors.
pub const OUTGOING_BYTES_MAX: usize = 64 << 20;

/// Credit of one actor for each peer, in bytes of unhandled messages.
///
/// Some thousand small messages. With a link delay of a few milliseconds an actor never waits for its
/// next message, and a slow actor costs its host little memory.
pub const WINDOW_BYTES: usize = 1 << 20;

/// Smallest credit window, in bytes; with less, a small message would wait for the previous one.
pub const WINDOW_BYTES_MIN: usize = 1 << 10;

/// Bytes that a message is charged in addition to its frame.
///
/// They stand for the decoded message in the actor's mailbox, however small it is.
pub const MESSAGE_OVERHEAD_BYTES: usize = 256;

/// Maximum bytes queued at a sender for the credit of one actor, bookkeeping included.
///
/// Several windows, so that a burst is queued without waiting. It is a fraction of the total, so that one
/// actor that handles nothing leaves capacity for the others.
pub const SEND_QUEUE_BYTES_MAX: usize = 8 << 20;

/// Bytes that a queued one-way message is charged in addition to its frame.
///
/// An entry of 24 bytes in a deque of up to twice its length, and a share of the unused end of a block.
pub const QUEUED_OVERHEAD_BYTES: usize = 64;

/// Bytes that a queued call is charged in addition to its frame.
///
/// The overhead of a one-way message, an index entry, the open call and its reply slot.
pub const QUEUED_CALL_OVERHEAD_BYTES: usize = 320;

/// Bytes that an actor's queue is charged while it holds any message, however small.
///
/// A queue is a box, the first entries of two deques and the first block of frames. With its entry in the
/// flow table, one small message takes about 800 bytes.
pub const QUEUE_OVERHEAD_BYTES: usize = 640;

/// Time for which capacity is reserved for a woken waiter that has not taken it.
///
/// A waiter on a busy thread runs within that time. A future that is held and not polled must not block
/// others: a task that holds one and awaits another would deadlock.
pub const RESERVED_FOR: Duration = Duration::from_millis(20);

/// Bytes queued for the credit of one actor at which `tell` begins to wait.
///
/// Some hundred small messages are ready when credit arrives. A longer queue gains nothing for a sender
/// that can wait.
pub const TELL_BACKPRESSURE_BYTES: usize = 16 << 10;

/// Maximum number of open calls of a session; a further call waits for one to end.
///
/// A call takes about 200 bytes on each side, so a million takes a few hundred megabytes.
pub const CALLS_OPEN_MAX: usize = 1 << 20;

/// Longest frame that is written in one piece, in bytes; longer frames are split into chunks of this
/// size.
///
/// A frame in one piece is read into its own buffer, where its payloads stay. Chunks have to be
/// reassembled, which costs a copy. A payload of one mebibyte still fits into one piece with its header.
/// At 10 Gbit/s such a frame takes a millisecond, no more than the kernel's buffers hold: that is the
/// delay of a small message to another actor behind a large one.
pub const CHUNK_BYTES: usize = (1 << 20) + (64 << 10);

/// Smallest configurable chunk, in bytes.
///
/// At least half of such a chunk is content, and a failure reply fits into one piece.
pub const CHUNK_BYTES_MIN: usize = 4 << 10;

/// Largest configurable chunk, in bytes.
///
/// The send buffer stores the length of a frame in 32 bits, and the longest frame needs one bit more.
pub const CHUNK_BYTES_MAX: usize = 1 << 30;

/// Maximum number of concurrent chunked frames in one direction of a link; others are queued.
///
/// The receiver reassembles as many frames concurrently, so the number bounds its memory.
pub const CHUNKED_SENDS_MAX: usize = 16;

/// Maximum bytes of chunks that the writer takes in one batch.
///
/// The writer sends in order. Larger batches delay the frames behind them, smaller ones cost more system
/// calls.
pub const CHUNK_BURST_BYTES: usize = 256 << 10;

/// Unacknowledged bytes that force an ACK, or a quarter of the sender's budget if that is less.
pub const ACK_BYTES: usize = 64 << 10;

/// Maximum delay of an ACK.
///
/// Most ACKs then share a write with a reply, while the sender retains little data for retransmission.
pub const ACK_DELAY: Duration = Duration::from_millis(25);

/// Minimum time between two piggybacked ACKs, unless a quarter of [`ACK_BYTES`] has been received.
///
/// An ACK in each batch would cost every single call one extra frame and one extra buffer in both
/// directions.
pub const ACK_PIGGYBACK_INTERVAL: Duration = Duration::from_millis(5);

/// Maximum bytes of replies in the dedup cache, for each peer.
///
/// Beyond it the oldest replies are dropped, and a retry of such a call fails because its reply is lost.
pub const DEDUP_CACHE_BYTES_MAX: usize = 16 << 20;

/// Bytes that a cached reply is charged in addition to its content.
///
/// They cover its entries in a tree and a queue, and the handle of its buffer.
pub const KEPT_REPLY_OVERHEAD_BYTES: usize = 128;

/// Maximum number of call outcomes in the dedup cache, for each peer.
///
/// An open call retains the outcomes of all later calls. At most this many calls may complete before the
/// oldest outcome is dropped.
pub const DEDUP_CACHE_ENTRIES_MAX: usize = 64 << 10;

/// Delay of the second attempt to restore a link; the delay doubles with each attempt.
pub const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(10);

/// Maximum delay between two attempts to restore a link.
///
/// A peer that becomes reachable is found within that time. An attempt costs a few packets.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(2);

/// Time for which a dial that has authenticated the peer makes this host refuse the peer's own dial.
///
/// A host whose dial was refused for that reason waits as long for the other's dial. The welcome follows
/// the proof after one round trip.
pub const CROSSED_TIMEOUT: Duration = Duration::from_secs(1);

/// Consecutive refused connections that end a session with a host on this machine.
///
/// The attempts are 10 and 20 ms apart. In that time the parent of the process reports its exit, so that
/// callers get that cause instead of a refused connection.
pub const REFUSED_CONNECTS_MAX: u32 = 3;

/// Interval of the heartbeats that the dialling side of a link sends.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum heartbeat interval, and half the maximum heartbeat timeout; effectively never.
///
/// Longer durations could overflow an instant.
pub const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Silence of a peer after which its link is cut and restored.
///
/// Three heartbeat intervals: a link survives the loss of one heartbeat in a short outage. The timeout
/// must be longer than the interval.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(15);

/// Smallest payload that is queued by handle and written from its own buffer, in bytes.
///
/// A copy of 16 KiB takes about a microsecond, as much as one more element of a vectored write.
pub const ZERO_COPY_BYTES_MIN: usize = 16 << 10;

/// Maximum number of attachments of a message, in addition to its MessagePack part.
///
/// The frame header counts them in 16 bits.
pub const ATTACHMENTS_MAX: usize = u16::MAX as usize;

/// Maximum nesting depth of the values in a message.
///
/// A level takes some kilobytes of stack in a debug build, on both sides. Threads of handlers and tasks
/// have at least [`STACK_BYTES_MIN`] unless the program sets less, and I/O threads have two megabytes.
pub const MESSAGE_DEPTH_MAX: usize = 128;

/// Time that a shutdown waits for open calls and unwritten bytes.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of the last frame on a link: the goodbye to a peer that has not drained, or the last ACK to a
/// closing peer.
///
/// A link that is not stuck accepts it immediately.
pub const GOODBYE_TIMEOUT: Duration = Duration::from_millis(100);

/// Minimum buffer of one read of a socket, in bytes.
pub const READ_BYTES: usize = 64 << 10;

/// Maximum unread bytes in one direction of a link in memory.
///
/// It equals the window of TCP without scaling, which is small enough for tests to exercise backpressure.
pub const MEMORY_LINK_BYTES_MAX: usize = 64 << 10;

/// Minimum number of messages from a peer that an actor handles before replies are sent, if as many are
/// queued.
///
/// Sixteen replies outweigh one system call on each side.
pub const BATCH_MESSAGES_MIN: usize = 16;

/// Maximum number of messages from a peer that an actor handles before replies are sent.
pub const BATCH_MESSAGES_MAX: usize = 256;

/// [`BATCH_MESSAGES_MAX`] for a peer on the same core.
///
/// The peer cannot process replies while this host occupies the core.
pub const BATCH_MESSAGES_SAME_CORE: usize = 1024;

/// Bytes that a link reads before actors run, even if more input is available.
///
/// The peer then gets the first replies, and prepares its next messages, while the rest is read.
pub const READ_BUDGET_BYTES: usize = 128 << 10;

/// [`READ_BUDGET_BYTES`] for a peer on the same core.
///
/// The peer cannot process replies while this host occupies the core. Four large messages are answered by
/// one write that wakes the peer once. The budget is tens of thousands of small messages.
pub const READ_BUDGET_BYTES_SAME_CORE: usize = 1 << 20;

/// Time that a link's thread polls for input before it sleeps, if the peer runs on another core.
///
/// More than a round trip in which both sides sleep, some 140 µs on a virtual machine. With 100 µs neither
/// side polled long enough to find the other one awake.
pub const BUSY_POLL: Duration = Duration::from_micros(200);

/// Part of the nearest memory limit, in per cent, beyond which a worker takes no new actors and tasks.
///
/// The rest is for the actors that run already, and for the replies to their callers. With 100 a worker takes work until
/// the kernel kills it.
pub const MEMORY_PERCENT_MAX: u8 = 95;

/// Time for which a worker goes by one reading of the memory in use.
///
/// A reading opens several files of the kernel. A burst of small tasks must not pay for one each.
pub const MEMORY_SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum of [`Limits::busy_poll`].
pub const BUSY_POLL_MAX: Duration = Duration::from_millis(1);

/// Consecutive samples that must find the peer on this core before the larger budgets apply.
///
/// A single sample may be wrong; a quarter of them are if a link sends much and receives little.
pub const SAME_CORE_SAMPLES_MIN: u32 = 4;

/// Time after which a request fails that is polled again within one synchronous handler or task.
///
/// Such a handler blocks the thread that would read its reply. Handlers that poll stored futures and
/// return finish long before. A program with this mistake waits no longer than for a slow reply.
pub const BLOCKED_AFTER: Duration = Duration::from_millis(50);

/// Time budget of one actor before its replies are sent and other actors of its thread run.
///
/// The clock is checked after 1, 2, 4 and 8 messages and then every 16. An actor may overrun the budget
/// by a factor of two, or by 16 messages.
pub const BATCH_TIME_MAX: Duration = Duration::from_micros(500);

/// Maximum number of unaccepted links in memory of a listener; a further dial waits.
///
/// It equals the backlog that tokio requests for a TCP listener.
pub const MEMORY_BACKLOG_MAX: usize = 1024;

/// Bytes of a thread's encode buffer that are retained between two messages.
///
/// One large message must not pin its size on every thread that ever sent one.
pub const ENCODE_BUFFER_RETAINED_BYTES: usize = 1 << 20;

/// Maximum number of characters of a failure text on the wire.
///
/// A panic message with its source location fits, and a panic cannot send megabytes.
pub const FAILURE_TEXT_CHARS_MAX: usize = 4096;

/// Initial number of tasks in flight for each host of a bulk run.
///
/// One runs while the next is queued behind it. More would queue behind a long task while other hosts are
/// idle.
pub const TASKS_IN_FLIGHT_MIN: usize = 2;

/// Maximum number of tasks in flight for each host, reached with short tasks.
pub const TASKS_IN_FLIGHT_MAX: usize = 256;

/// Number of ended actors whose ends a host keeps, the last ones, for watches that begin later.
///
/// A watch usually begins soon after its actor was spawned. With [`END_TEXT_BYTES_MAX`] they take four megabytes at
/// most.
pub const ENDED_ACTORS_MAX: usize = 1024;

/// Longest text of an end that is kept for watches, in bytes; the rest is cut.
///
/// The texts of panics and of refused spawns come from programs.
pub const END_TEXT_BYTES_MAX: usize = 4096;

/// Number of ended hosts whose ends each process of a cluster keeps, the last ones.
///
/// An actor's end is looked up here when its host has ended. A worker has two hosts. On a cluster of nodes the
/// head knows more.
pub const ENDED_HOSTS_MAX: usize = 1024;

/// Maximum number of links of a host's actors; one more is refused.
///
/// A link is a task and an open call. Without a limit any peer could request them without end.
pub const LINKS_MAX: usize = 65_536;

/// Delay before a watch that has lost its session calls the actor's host again; it doubles with each failure.
pub const WATCH_RETRY_MIN: Duration = Duration::from_millis(10);

/// Maximum delay between two attempts of a watch.
///
/// It bounds the time from the news of an end to the watcher, if no session fails with it.
pub const WATCH_RETRY_MAX: Duration = Duration::from_secs(1);

/// Time for which a watch waits for news of a host that neither this process nor the cluster knows.
///
/// A process learns of new workers some milliseconds after the driver does.
pub const UNKNOWN_HOST_GRACE: Duration = Duration::from_secs(2);

/// Maximum number of ended workers that a local cluster lists, the last ones.
pub const ENDED_WORKERS_MAX: usize = 256;

/// Time for which a worker that ends waits for the export of its last spans.
///
/// It is well within the time after which its parent kills it.
pub const TRACE_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Default number of further runs of a task whose worker ended before its result arrived.
///
/// A worker or two may be lost to a machine. A task that loses four is probably what ends them.
pub const TASK_RETRIES: u32 = 3;

/// Number of attempts to reach a worker for a task that has not run.
///
/// A worker that has just ended is still in the list of some process.
pub const TASK_ATTEMPTS_MAX: u32 = 10;

/// Number of attempts in a row that workers refuse for want of memory, for a task without a timeout.
///
/// At the delays below they take several seconds, in which other actors and tasks may end. Each worker that is left
/// gets one attempt at least.
pub const TASK_REFUSALS_MAX: u32 = 50;

/// Delay after the first of these attempts; it doubles with each, up to [`TASK_ATTEMPT_DELAY_MAX`].
///
/// A process learns of a worker's end within milliseconds.
pub const TASK_ATTEMPT_DELAY: Duration = Duration::from_millis(2);

/// Longest delay between two attempts.
///
/// All attempts together take about a second.
pub const TASK_ATTEMPT_DELAY_MAX: Duration = Duration::from_millis(200);

/// Time for which a task or a spawn waits for a worker while none is left and ended ones are replaced.
///
/// A new worker is ready within a second, unless workers crash at their start.
pub const NEXT_WORKER_TIMEOUT: Duration = Duration::from_secs(10);

/// Round trip below which a task counts as short, since communication then dominates its cost.
pub const SHORT_TASK_MAX: Duration = Duration::from_millis(1);

/// Consecutive short tasks of one function after which the next is expected to be short, and results are
/// batched.
pub const SHORT_TASK_STREAK_MIN: u32 = 8;

/// Time for which short tasks of one function run back to back before their results are sent.
///
/// The results of some hundred empty tasks leave in one write. A result is delayed by this time, and by
/// one longer task behind it.
pub const TASK_BATCH_TIME: Duration = Duration::from_micros(50);

/// Maximum number of workers of a local cluster.
///
/// Each is a process of several threads. A larger number is a typing error on any machine.
pub const WORKERS_MAX: usize = 1024;

/// Time from the start of a worker process until it accepts calls.
///
/// It usually takes ten milliseconds. The rest is for a machine that swaps or starts hundreds of workers.
pub const WORKER_START_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that a worker may take to exit after a request to stop, before it is killed.
pub const WORKER_STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Bug that a simulation injects into its hosts to prove that it is detected; no program has one.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedBug {
    /// An additional frame than received is acknowledged.
    EarlyAck,
    /// A call that is cancelled before its actor takes it keeps its credit charge.
    LostCredit,
    /// Frames that were in flight when a session was dropped are written to the next link.
    ResendAfterClose,
    /// A host that removes a peer begins the next session with it in the first generation.
    LostGeneration,
    /// A stop overtakes the queued messages of the actor.
    OvertakingStop,
    /// The head does not end the actors of a node that is lost.
    ForgottenActors,
    /// An agent drops the events that occur while it joins the head.
    LostWorkerEnd,
    /// The head accepts the heartbeats of a node that it has declared dead.
    StaleHeartbeat,
    /// The head does not answer the watchers of an actor that ended.
    LostTermination,
    /// The children of a parent that restarts go on.
    OrphanedChildren,
    /// The report of the end of an earlier incarnation ends the present one.
    StaleIncarnation,
    /// The head commands the start of an incarnation before its record is durable.
    UnflushedStart,
    /// A restarted head forgets the kills that had no effect yet.
    ForgottenKill,
    /// The head restarts exclusive actors without a wait for the leases that it has granted.
    IgnoredLease,
}

/// Limits of one host that a program may set.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use roadshow::Limits;
///
/// let mut limits = Limits::default();
/// limits.heartbeat_timeout = Duration::from_secs(60);
/// limits.send_queue_bytes_max = 32 << 20;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// Longest frame in bytes, header included, from 512 to 4 GiB; see [`FRAME_BYTES_MAX`].
    pub frame_bytes_max: usize,
    /// Maximum bytes in flight to one host; see [`OUTGOING_BYTES_MAX`].
    pub outgoing_bytes_max: usize,
    /// Credit of an actor for each peer, in bytes of unhandled messages; see [`WINDOW_BYTES`].
    pub window_bytes: usize,
    /// Maximum bytes queued for the credit of one actor; see [`SEND_QUEUE_BYTES_MAX`].
    pub send_queue_bytes_max: usize,
    /// Longest frame in bytes that is written in one piece, from 4 KiB to 1 GiB; see [`CHUNK_BYTES`].
    pub chunk_bytes: usize,
    /// Timeout of a handshake; see [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// Maximum number of open handshakes; see [`HANDSHAKES_OPEN_MAX`].
    pub handshakes_open_max: usize,
    /// Timeout of one attempt to connect; see [`CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// Interval of the heartbeats that the dialling side sends; see [`HEARTBEAT_INTERVAL`].
    pub heartbeat_interval: Duration,
    /// Silence after which a link is restored, at least twice
    /// [`heartbeat_interval`](Self::heartbeat_interval); see [`HEARTBEAT_TIMEOUT`].
    pub heartbeat_timeout: Duration,
    /// Time that a shutdown waits for open calls and unwritten bytes; see [`DRAIN_TIMEOUT`].
    pub drain_timeout: Duration,
    /// Time that a thread polls for the next message before it sleeps, at most 1 ms, zero for never; see
    /// [`BUSY_POLL`].
    pub busy_poll: Duration,
    /// Part of the nearest memory limit, in per cent, beyond which a worker takes no new actors and tasks; 100 for
    /// any; see [`MEMORY_PERCENT_MAX`].
    pub memory_percent_max: u8,
    #[doc(hidden)]
    #[serde(skip)]
    pub injected_bug: Option<InjectedBug>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: FRAME_BYTES_MAX,
            outgoing_bytes_max: OUTGOING_BYTES_MAX,
            window_bytes: WINDOW_BYTES,
            send_queue_bytes_max: SEND_QUEUE_BYTES_MAX,
            chunk_bytes: CHUNK_BYTES,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            handshakes_open_max: HANDSHAKES_OPEN_MAX,
            connect_timeout: CONNECT_TIMEOUT,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            heartbeat_timeout: HEARTBEAT_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
            busy_poll: BUSY_POLL,
            memory_percent_max: MEMORY_PERCENT_MAX,
            injected_bug: None,
        }
    }
}

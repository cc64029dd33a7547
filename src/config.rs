//! Limits of the message layer and of clusters, as named constants with their reasons.
//!
//! [`Limits`] carries those that a program may set; its default is the constants.

mod cluster;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use cluster::*;

/// The longest frame after the handshake, in bytes, header included.
///
/// Large enough for the word list of a long book in one message, small enough that
/// a few hundred peers that each announce one cannot exhaust a machine.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// The longest frame before a peer has proved itself, in bytes.
///
/// The longest handshake frame is a refusal with its reason, at most some 300 bytes.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 512;

/// How long a peer may take for the whole handshake.
///
/// Four messages: two round trips for the host that dials, one for the host that accepts. Five seconds are
/// enough for a link around the world under loss, and bound the resources that a silent peer can hold.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Handshakes that a listener has open at once; for one more, the oldest is given up.
///
/// With 512 bytes each they cost less than a megabyte, however slow the peers are.
pub const HANDSHAKES_OPEN_MAX: usize = 256;

/// How long to wait when the operating system has no room for another connection.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// How long one attempt to connect may take.
///
/// A first link is tried for as long, and the dial of a peer that listens nowhere is awaited for as long.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many bytes may be on their way to one host: not written, or not acknowledged.
///
/// Enough to keep a fast network busy while the writing thread is descheduled for some
/// tens of milliseconds; a sender beyond it waits, or gets its message back. As many bytes may
/// wait besides for the credit of the actors that they are for.
pub const OUTGOING_BYTES_MAX: usize = 64 << 20;

/// How many bytes of messages that are not handled yet one actor takes from each peer.
///
/// Some thousand small messages: enough that an actor never waits for its next message while a
/// link is some milliseconds long, and so few that a slow actor costs its host next to nothing.
pub const WINDOW_BYTES: usize = 1 << 20;

/// The least window: with less than this a small message would wait for the one before it.
pub const WINDOW_BYTES_MIN: usize = 1 << 10;

/// What a message costs of a window beside its frame's bytes: what it takes in memory decoded,
/// in the actor's mailbox, however small it is.
pub const MESSAGE_OVERHEAD_BYTES: usize = 256;

/// How many bytes may wait at a sender for the credit of one actor, what is kept beside each message
/// included.
///
/// Several windows, so that a burst is taken without waiting; a fraction of what may wait in all,
/// so that one actor that handles nothing leaves room for the others.
pub const SEND_QUEUE_BYTES_MAX: usize = 8 << 20;

/// What a queued one-way message counts beside its frame: an entry of 24 bytes in a deque that may have
/// grown to twice its length, and its share of the unused end of a block.
pub const QUEUED_OVERHEAD_BYTES: usize = 64;

/// What a queued call counts beside its frame: what a one-way message counts, an entry in an index by
/// number, the open call, and the slot of its reply.
pub const QUEUED_CALL_OVERHEAD_BYTES: usize = 320;

/// What the queue of an actor counts while any message is in it, however small.
///
/// A queue is a box, the first places of two deques, and the first block of frames. With its entry in the
/// table of flows, one small message takes about 800 bytes.
pub const QUEUE_OVERHEAD_BYTES: usize = 640;

/// How long room is reserved for a waiter that was woken and does not take it.
///
/// A waiter on a busy thread comes to it in less. One whose future is held and not polled must not keep
/// the room from others, or a task that holds one and awaits another would wait for ever.
pub const RESERVED_FOR: Duration = Duration::from_millis(20);

/// How many bytes wait for the credit of one actor before `tell` waits, too.
///
/// Some hundred small messages are there when credit comes; whoever can wait gains nothing by adding to
/// them.
pub const TELL_BACKPRESSURE_BYTES: usize = 16 << 10;

/// Calls that one session has open at most; a further one waits until one has ended.
///
/// Each takes some 200 bytes here and there, so a million is a few hundred megabytes.
pub const CALLS_OPEN_MAX: usize = 1 << 20;

/// The longest frame that is written in one piece; longer ones are cut into chunks of as much, with
/// what a chunk has before its bytes.
///
/// A frame in one piece is read into memory of its own, where its payloads stay; chunks have to be put
/// together, which costs a copy. A mebibyte with what goes along with it is in one piece. At ten
/// gigabits a second that takes a millisecond, no more than what a kernel's buffers hold: so long does
/// a small message to another actor wait for a large one.
pub const CHUNK_BYTES: usize = (1 << 20) + (64 << 10);

/// The shortest chunk that can be asked for: half of it is content at least, and a failure is in one
/// piece.
pub const CHUNK_BYTES_MIN: usize = 4 << 10;

/// The longest chunk that can be asked for.
///
/// The send buffer keeps the length of a frame in 32 bits, and the longest frame has one bit more.
pub const CHUNK_BYTES_MAX: usize = 1 << 30;

/// Frames in chunks that one direction of a link has under way at once; others wait their turn.
///
/// The receiver holds as many unfinished ones, so the number bounds what it has to hold.
pub const CHUNKED_SENDS_MAX: usize = 16;

/// How many bytes of chunks are handed to the writer at once.
///
/// What it has taken goes out in order: the more, the longer the way for what comes after; the
/// less, the more system calls.
pub const CHUNK_BURST_BYTES: usize = 256 << 10;

/// After so many bytes at most a receiver says what it has; after a quarter of the sender's budget
/// if that is less.
pub const ACK_BYTES: usize = 64 << 10;

/// After so long at most a receiver says what it has.
///
/// Long enough that most acknowledgements travel with a reply, short enough that what is kept for
/// sending again is little.
pub const ACK_DELAY: Duration = Duration::from_millis(25);

/// An acknowledgement travels with what is written anyway once a frame has come so long after the last
/// one that was acknowledged before, or a quarter of [`ACK_BYTES`] has come.
///
/// With each batch it would be a frame and a piece more to write and to read, for a call alone both ways.
pub const ACK_PIGGYBACK_INTERVAL: Duration = Duration::from_millis(5);

/// How many bytes of replies are kept, for each peer, in case their calls are repeated.
///
/// Beyond it the oldest are dropped, and a repeated call of theirs learns that its reply is lost.
pub const DEDUP_CACHE_BYTES_MAX: usize = 16 << 20;

/// What a kept reply counts beside its bytes: its entry in a tree and in a queue, and the handle of its
/// buffer.
pub const KEPT_REPLY_OVERHEAD_BYTES: usize = 128;

/// How many ends of calls are kept, for each peer, in case the calls are repeated.
///
/// A call that stays open keeps the ends of all later ones; this is how many may pass it before the
/// oldest of them is dropped.
pub const DEDUP_CACHE_ENTRIES_MAX: usize = 64 << 10;

/// How long after the first failed attempt to restore a link the next is made; it doubles from
/// attempt to attempt.
pub const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(10);

/// How long two attempts to restore a link lie apart at most.
///
/// A peer that is reachable again is found within that time; an attempt costs a few packets.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(2);

/// Time for which a dial that has reached the peer makes this host refuse the peer's own dial.
///
/// A host whose dial was refused for that waits for the other's for as long. The welcome follows the
/// proof after one round trip.
pub const CROSSED_TIMEOUT: Duration = Duration::from_secs(1);

/// How many refused connections in a row end a session with a host of this machine.
///
/// They lie 10 and 20 milliseconds apart: whoever watches the process knows by then how it ended, and
/// callers hear that rather than of a refused connection.
pub const REFUSED_CONNECTS_MAX: u32 = 3;

/// How often the side that dialled a link asks whether the other is there.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// The longest time between two heartbeats, and after which a link is given up: as good as never.
///
/// Longer ones could not be added to an instant.
pub const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A link whose peer has been silent for so long is cut and made anew.
///
/// Three heartbeats: one may be lost in a short outage without the link paying for it. It has to be
/// longer than the time between two of them.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(15);

/// From this size on a payload is queued by handle and written where it lies, not copied.
///
/// A copy of 16 KiB costs about a microsecond, as much as one more element of a vectored write.
pub const ZERO_COPY_BYTES_MIN: usize = 16 << 10;

/// How many attachments one message may carry beside its MessagePack part.
///
/// The frame header counts them in 16 bits.
pub const ATTACHMENTS_MAX: usize = u16::MAX as usize;

/// How many levels of values within values a message may have.
///
/// Each takes some kilobytes of stack in a debug build, on either side. Threads of handlers and tasks have
/// [`STACK_BYTES_MIN`] at least unless the program asks for less, and I/O threads two megabytes.
pub const MESSAGE_DEPTH_MAX: usize = 128;

/// How long a host that shuts down waits for open calls and unwritten bytes.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a last word may take: the goodbye to a peer that has not drained, and the last
/// acknowledgement to one that leaves.
///
/// A link that is not stuck takes it at once.
pub const GOODBYE_TIMEOUT: Duration = Duration::from_millis(100);

/// How many bytes one read of a socket asks for at least.
pub const READ_BYTES: usize = 64 << 10;

/// How many bytes one direction of a link in memory holds that nobody has read.
///
/// The window of a TCP without scaling: small, so that tests meet backpressure.
pub const MEMORY_LINK_BYTES_MAX: usize = 64 << 10;

/// So many messages of a peer an actor handles at least before the answers so far leave, if as many wait.
///
/// So many answers are worth a system call here and one there.
pub const BATCH_MESSAGES_MIN: usize = 16;

/// So many messages of a peer an actor handles at most before the answers so far leave.
pub const BATCH_MESSAGES_MAX: usize = 256;

/// The same where the peer runs on the same core, and could do nothing with them yet.
pub const BATCH_MESSAGES_SAME_CORE: usize = 1024;

/// After so many bytes that a link has read the actors have their turn, though there may be more to read: the
/// other side is to have the first answers, and make the next messages, while the rest is read.
pub const READ_BUDGET_BYTES: usize = 128 << 10;

/// The same where the peer runs on the same core, and could do nothing with the answers yet: four large
/// messages are answered by one write and wake the other side once. It is tens of thousands of small ones.
pub const READ_BUDGET_BYTES_SAME_CORE: usize = 1 << 20;

/// So many looks in a row have to find the peer on this core, before turns are as long as on a shared one.
///
/// One may be wrong, a quarter of them where much is sent and little comes.
pub const SAME_CORE_SAMPLES_MIN: u32 = 4;

/// Time after which a request that is polled again within one synchronous handler or task has failed.
///
/// Such a handler blocks the thread that would read the answer. Handlers that poll what they keep, and return,
/// are through with it long before; whoever made the mistake waits no longer than for a slow answer.
pub const BLOCKED_AFTER: Duration = Duration::from_millis(50);

/// After so long an actor's answers leave, and other actors of its thread have their turn.
///
/// It is looked at the clock after 1, 2, 4 and 8 messages and after every 16, so a turn takes at most
/// twice as long as this, or 16 messages longer.
pub const BATCH_TIME_MAX: Duration = Duration::from_micros(500);

/// Links in memory that a listener has not accepted yet; a dial beyond them waits.
///
/// What tokio asks of the operating system for a TCP listener.
pub const MEMORY_BACKLOG_MAX: usize = 1024;

/// How many bytes of a thread's encoding buffer are kept between two messages.
///
/// One large message must not pin its size on every thread that ever sent one.
pub const ENCODE_BUFFER_RETAINED_BYTES: usize = 1 << 20;

/// How many characters of a failure's text travel to the caller.
///
/// Enough for a panic's message and its place; a panic must not be able to send a book.
pub const FAILURE_TEXT_CHARS_MAX: usize = 4096;

/// Tasks under way for each host when many are run at once, to begin with.
///
/// One runs and the next is there when it ends; more would queue behind a long one while other
/// hosts have nothing to do.
pub const TASKS_IN_FLIGHT_MIN: usize = 2;

/// Tasks under way for each host at most, when they turn out to be short.
pub const TASKS_IN_FLIGHT_MAX: usize = 256;

/// A task that comes back sooner than this is short: the way there and back weighs as much.
pub const SHORT_TASK_MAX: Duration = Duration::from_millis(1);

/// So many tasks of one function in a row have to be short before the next is expected to be, too, and
/// the results wait for it.
pub const SHORT_TASK_STREAK_MIN: u32 = 8;

/// How long short tasks of one function run one behind the other before their results leave.
///
/// The results of some hundred empty tasks go out at once. They are late by that, and by the task
/// behind them if it turns out to be longer than those before it.
pub const TASK_BATCH_TIME: Duration = Duration::from_micros(50);

/// Workers of a local cluster at most.
///
/// Each is a process of several threads; a number beyond it is a slip of the pen on any machine.
pub const WORKERS_MAX: usize = 1024;

/// How long a worker process may take from its start until it can be called.
///
/// It takes some ten milliseconds; the rest is for a machine that swaps or starts hundreds.
pub const WORKER_START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a worker may take to end after it was asked to, before it is killed.
pub const WORKER_STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A bug that a simulation plants in its hosts, to see that it finds it. No program has one.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedBug {
    /// One frame more is taken for acknowledged than was.
    EarlyAck,
    /// A call that is cancelled before its actor has it keeps its part of the window.
    LostCredit,
    /// What a session had under way when it was dropped is written to the next link.
    ResendAfterClose,
    /// A host that forgets another begins its next session with it in the generation of the first.
    LostGeneration,
    /// A stop overtakes the messages that wait for the actor.
    OvertakingStop,
}

/// The limits of one host that a program may set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// The longest frame, in bytes, header included; from 512 to 4 GiB. See [`FRAME_BYTES_MAX`].
    pub frame_bytes_max: usize,
    /// How many bytes may be on their way to one host; see [`OUTGOING_BYTES_MAX`].
    pub outgoing_bytes_max: usize,
    /// How many bytes of unhandled messages an actor takes from each peer; see [`WINDOW_BYTES`].
    pub window_bytes: usize,
    /// How many bytes may wait here for the credit of one actor; see [`SEND_QUEUE_BYTES_MAX`].
    pub send_queue_bytes_max: usize,
    /// The longest frame that is written in one piece, from 4 KiB to 1 GiB; see [`CHUNK_BYTES`].
    pub chunk_bytes: usize,
    /// How long a peer may take for the handshake; see [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// Handshakes open at once; see [`HANDSHAKES_OPEN_MAX`].
    pub handshakes_open_max: usize,
    /// How long one attempt to connect may take; see [`CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// How often the side that dialled a link asks for the other; see [`HEARTBEAT_INTERVAL`].
    pub heartbeat_interval: Duration,
    /// After how long a silence a link is made anew, twice [`heartbeat_interval`](Self::heartbeat_interval)
    /// at least; see [`HEARTBEAT_TIMEOUT`].
    pub heartbeat_timeout: Duration,
    /// How long a shutdown waits for open calls and unwritten bytes; see [`DRAIN_TIMEOUT`].
    pub drain_timeout: Duration,
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
            injected_bug: None,
        }
    }
}

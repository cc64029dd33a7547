//! Limits of a cluster of nodes: certificates, token RPC, leases and logs.

use std::time::Duration;

/// Validity of a process's certificate, from its issue.
///
/// It bounds the use of a stolen key, since there is no revocation. A head may be down for most of a day
/// before certificates expire.
pub const CERTIFICATE_VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// Maximum age of a certificate before the process requests the next one.
///
/// A third of the validity, and then a third of the remainder: several attempts can fail before it
/// expires.
pub const CERTIFICATE_RENEW_FRACTION: Duration = Duration::from_secs(8 * 60 * 60);

/// Minimum time between two requests for the next certificate.
pub const CERTIFICATE_RENEWAL_BACKOFF: Duration = Duration::from_secs(1);

/// Time by which a certificate's validity precedes its issue, to tolerate clock skew in a cluster.
pub const CERTIFICATE_SKEW: Duration = Duration::from_secs(60 * 60);

/// Validity of a cluster's CA certificate. It lasts as long as the cluster and is never renewed.
pub const AUTHORITY_VALID: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Maximum number of hosts in one certificate.
///
/// A worker has two hosts, all other processes have one; the rest is spare. A host takes two names in the
/// certificate.
pub const CERTIFIED_HOSTS_MAX: usize = 16;

/// Longest request of a token RPC client before it is authenticated, in bytes.
///
/// A proof takes about fifty.
pub const TOKEN_RPC_UNAUTHENTICATED_BYTES_MAX: usize = 4 << 10;

/// Longest request of an authenticated token RPC client, in bytes: a mebibyte of an executable with its
/// header.
pub const TOKEN_RPC_REQUEST_BYTES_MAX: usize = 2 << 20;

/// Longest token RPC reply, in bytes.
///
/// A list of some hundred thousand actors fits.
pub const TOKEN_RPC_REPLY_BYTES_MAX: usize = 64 << 20;

/// Maximum number of rows of a list in one reply.
///
/// That is more than a terminal shows, and a millisecond of work for the head.
pub const LIST_ROWS_MAX: usize = 1000;

/// Bytes of list rows in one reply, beyond which no further row is added.
///
/// A row has some hundred bytes, at most some thousand, so [`LIST_ROWS_MAX`] usually applies first.
pub const LIST_BYTES_MAX: usize = 4 << 20;

/// Table rows that one request scans under the head's lock before other requests run.
///
/// A row costs about 10 ns to count, 100 ns to match against filters and a microsecond to list. With
/// [`LIST_ROWS_MAX`] listed rows that is 1.4 ms at most.
pub const LIST_SLICE_ROWS: usize = 4096;

/// Maximum number of filters in one list request.
pub const LIST_FILTERS_MAX: usize = 16;

/// Maximum number of rows returned for an ambiguous id prefix, and for each other meaning of the text.
///
/// An unambiguous prefix has one match. Of several, the user interface shows three.
pub const LIST_MEANT_MAX: usize = 4;

/// Maximum number of actor classes or task functions in one summary reply.
///
/// The rest, in order of name, is omitted and counted. Programs have tens. With names of
/// [`ACTOR_NAME_BYTES_MAX`] bytes the reply takes 6 MB.
pub const SUMMARY_ROWS_MAX: usize = 10_000;

/// Maximum number of pending actors whose reasons are reported; the others are counted.
///
/// The reasons repeat long before.
pub const WAITING_REPORTED_MAX: usize = 100;

/// Maximum number of authenticated token RPC connections; one more is refused.
///
/// Each is an operator's command, or a process that enrols for some milliseconds.
pub const TOKEN_RPC_CONNECTIONS_MAX: usize = 256;

/// Time without a request after which a token RPC connection is closed.
///
/// No client pauses as long between two requests.
pub const TOKEN_RPC_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum number of accepted connections that await a host, the token RPC server or a process; one more
/// is closed.
///
/// The receiver takes microseconds for each.
pub const HANDOFF_QUEUE_MAX: usize = 64;

/// Timeout of the handoff of a connection to another process; the connection is then closed.
///
/// A running process takes microseconds, a stopped one never accepts it. The dialling side would soon
/// time out and retry.
pub const HANDOFF_TIMEOUT: Duration = Duration::from_secs(2);

/// Send buffer of a worker's control socket, in bytes.
///
/// The kernel charges about a kilobyte for a passed connection, so about sixty fit before more are queued
/// here. All processes of a user share one limit on file descriptors in flight, which a stopped process
/// must not exhaust.
pub const CONTROL_SOCKET_BUFFER_BYTES: usize = 32 << 10;

/// Time for which a host keeps the session of a disconnected peer whose address it does not know.
///
/// It is several lease times, so a peer that is away for longer has been declared dead.
pub const INBOUND_PEER_EXPIRY: Duration = Duration::from_secs(60);

/// Interval in which agents and drivers renew their leases at the head.
///
/// A small part of [`NODE_UNREACHABLE_AFTER`], so that several renewals may be late or lost.
pub const LEASE_RENEW_INTERVAL: Duration = Duration::from_millis(500);

/// Interval in which an agent adds the usage of its machine to a heartbeat.
///
/// A measurement reads files of each process of the node's jobs, so it is rarer than heartbeats are.
pub const USAGE_INTERVAL: Duration = Duration::from_secs(1);

/// Time after which a connection to the head breaks that has unacknowledged bytes (`TCP_USER_TIMEOUT`).
///
/// TCP doubles the pause between retransmissions, so a connection may be silent after an outage for as long as during
/// it. One that breaks is dialled again immediately. A peer that is alive but busy does not break it, since its kernel
/// acknowledges. On a path that dropped all packets for 350 of each 500 ms, a node died within a minute without this
/// limit, and did not with it.
pub const HEAD_LINK_TIMEOUT: Duration = Duration::from_secs(1);

/// Timeout of a request to the head, and of a command from the head to a member.
///
/// Both sides reply from memory. After the timeout the sender reconnects.
pub const HEAD_RPC_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for which a starting node tries to reach its head.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for which a stopping node waits until the head has received its leave message.
pub const LEAVE_TIMEOUT: Duration = Duration::from_millis(300);

/// Initial interval between two attempts to reach an unreachable head. It doubles with each attempt.
pub const REJOIN_DELAY_MIN: Duration = Duration::from_millis(10);

/// Maximum interval between two attempts to reach an unreachable head.
///
/// It bounds the time until a member rejoins after an outage. The head's node can bear the load of
/// thousands of members that retry at this rate.
pub const REJOIN_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Maximum bytes of output queued for a driver's terminal. A larger piece is queued alone.
///
/// It is several seconds of what a person can read, and what a slow terminal shows in a moment.
pub const OUTPUT_WAITING_BYTES_MAX: u32 = 4 << 20;

/// Maximum number of pieces of output queued for a driver's terminal; a piece is one read of a pipe.
pub const TERMINAL_QUEUE_MAX: usize = 64;

/// Maximum number of pieces of output that await labels and deduplication, which take microseconds.
pub const LOG_DEDUP_QUEUE_MAX: usize = 16;

/// Time for which workers of a local cluster wait for a stuck terminal before lines are dropped.
///
/// A slow terminal accepts some output in that time, and nothing is dropped.
pub const OUTPUT_STALL_MAX: Duration = Duration::from_secs(1);

/// Time for which a shutdown waits until the workers' output is on the terminal.
///
/// Agents reply in milliseconds. Only a terminal that does not read takes longer.
pub const OUTPUT_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Part of [`OUTPUT_FLUSH_TIMEOUT`] that agents may take to send the last lines.
///
/// The terminal has the rest: a silent node does not cost lines that the driver already has.
pub const OUTPUT_AGENTS_TIMEOUT: Duration = Duration::from_millis(1500);

/// Time for which an agent waits until the driver has the last lines of a job's workers.
///
/// It is shorter than the driver's own wait, so that the agent's reply arrives before that ends.
pub const OUTPUT_SENT_TIMEOUT: Duration = Duration::from_secs(1);

/// [`OUTPUT_FLUSH_TIMEOUT`] for a cluster that is dropped, since the drop blocks its thread.
pub const OUTPUT_DROP_TIMEOUT: Duration = Duration::from_millis(500);

/// Longest line of a local cluster's worker, in bytes; a longer one is split.
///
/// A JSON document fits. Each stream of a worker has a buffer of that size while it prints such a line.
pub const OUTPUT_LINE_BYTES_MAX: usize = 1 << 20;

/// Time that the driver of a submitted job may take to exit after a request to stop.
pub const DRIVER_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of commands queued for one agent, or of job events for one driver; beyond it a member
/// misses some and has to rejoin.
pub const COMMAND_QUEUE_MAX: usize = 4096;

/// Maximum number of job events queued in a driver.
pub const JOB_EVENT_QUEUE_MAX: usize = 1024;

/// Maximum number of uids that a node may use for its jobs.
///
/// It is the usual number in a Linux container. The search for a free uid may scan all of them.
pub const WORKER_UIDS_MAX: u32 = 65_536;

/// Time for which a new job waits for a uid while the processes of an ended job are killed.
///
/// The kill takes milliseconds. The upload of the executable has a longer timeout.
pub const WORKER_UID_TIMEOUT: Duration = Duration::from_secs(5);

/// Size at which a log file is rotated, in bytes.
///
/// An editor can open it, and a hundred workers with all retained files fill some gigabytes.
pub const LOG_FILE_BYTES_MAX: u64 = 16 << 20;

/// Number of rotated log files that are kept for each stream.
pub const LOG_FILES_KEPT: u64 = 3;

/// Interval in which a node applies the retention of its log files.
pub const LOG_RETENTION_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum bytes of logs of ended processes that a node keeps.
pub const LOGS_BYTES_MAX: u64 = 4 << 30;

/// Maximum number of log files of ended processes that a node keeps.
///
/// A directory of this size is listed in about ten milliseconds. One job a minute, with 64 printing
/// workers each, fills it in an hour.
pub const LOGS_FILES_MAX: usize = 10_000;

/// Maximum number of log files that a node lists in one reply: some megabytes with the longest names.
pub const LOGS_LISTED_MAX: usize = 10_000;

/// Longest line on the driver's terminal, in bytes; the rest of it is in the log alone.
///
/// That fills some hundred lines of a terminal, more than can be read there.
pub const LOG_LINE_BYTES_MAX: usize = 16 << 10;

/// Time after which an unterminated line is shown as it is, and again whenever it has changed.
///
/// A progress bar is current within a second. A line that is printed in several pieces is complete long
/// before.
pub const LOG_UNFINISHED_AFTER: Duration = Duration::from_millis(600);

/// Maximum bytes of an unterminated line that are shown, taken from its end.
///
/// Prompts and progress bars are short.
pub const LOG_UNFINISHED_BYTES_MAX: usize = 1 << 10;

// Path of a worker's output, with the limit of each queue. A full queue stops the reads, so that the
// process blocks on its pipe. After LOG_STALL_MAX its output is dropped and counted instead.
//
//     pipe ─▶ read (LOG_READ_BYTES) ─┬─▶ LOG_READS_QUEUED_MAX ─▶ log file
//                                    └─▶ LOG_LINES_QUEUED_MAX ─▶ driver
//     driver: LOG_DEDUP_QUEUE_MAX ─▶ dedup ─▶ TERMINAL_QUEUE_MAX ─▶ terminal

/// Bytes of a process's output that one read takes: the capacity of a pipe.
pub const LOG_READ_BYTES: usize = 64 << 10;

/// Maximum number of reads of one stream queued for the disk: one megabyte.
pub const LOG_READS_QUEUED_MAX: usize = 16;

/// Maximum number of reads whose lines are queued for display, for each process.
///
/// While they are queued, output collects in the pipe and arrives in fewer, larger reads.
pub const LOG_LINES_QUEUED_MAX: usize = 64;

/// Time for which a slow disk or display may block a printing process, before its output is dropped and
/// counted.
///
/// A burst passes within that time.
pub const LOG_STALL_MAX: Duration = Duration::from_millis(100);

/// Time for which output is read after its process has exited, while a child of it still holds the pipe.
pub const LOG_GRACE: Duration = Duration::from_millis(250);

/// Maximum bytes that are read after [`LOG_GRACE`] while more is available: the largest capacity of a
/// pipe.
pub const LOG_FLUSH_BYTES_MAX: usize = 1 << 20;

/// Bytes of a log that a reader gets in one reply.
pub const LOG_PART_BYTES_MAX: usize = 1 << 20;

/// Time window in which equal lines of several processes are shown once, and then counted.
pub const LOG_DEDUP_WINDOW: Duration = Duration::from_secs(5);

/// Longest line that is deduplicated, in bytes; a longer one is always shown.
///
/// Long lines of several processes are rarely equal. The stored texts take 4 MiB at most.
pub const LOG_DEDUP_LINE_BYTES_MAX: usize = 4 << 10;

/// Maximum number of distinct texts that the log dedup stores.
///
/// A program that prints more of them in a few seconds repeats little.
pub const LOG_DEDUP_ENTRIES_MAX: usize = 1024;

/// Maximum number of counts that the log dedup stores, one for each process and text.
///
/// Some hundred processes that print the same hundred texts take a megabyte.
pub const LOG_DEDUP_COUNTS_MAX: usize = 1 << 15;

// Times of the lease protocol. Each must be well below the next, or a delay becomes a death:
//
//     TICK_EVERY                                             0.25 s
//     LEASE_RENEW_INTERVAL = CLOCK_GAP_MAX                    0.5 s
//     HEAD_LINK_TIMEOUT = REJOIN_BACKOFF_MAX                    1 s
//     HEAD_RPC_TIMEOUT                                          2 s
//     NODE_UNREACHABLE_AFTER = REJOIN_GAP_MAX                   3 s
//     NODE_LEASE = JOB_LEASE: death of a silent member         10 s
//     INBOUND_PEER_EXPIRY: its session is dropped              60 s
//     REJOIN_MAX: end of the wait after a start of the head   120 s

/// Time since the last heartbeat of a node after which it is unreachable: it gets no new actors and tasks.
///
/// Six renewals, since a busy machine may be late with some. What runs there is left alone until [`NODE_LEASE`].
pub const NODE_UNREACHABLE_AFTER: Duration = Duration::from_secs(3);

/// Smallest time after which a node may be unreachable: four renewals.
pub const NODE_UNREACHABLE_AFTER_MIN: Duration = Duration::from_secs(2);

/// Parts of the silence that makes a node unreachable, of which the last is no part of the node's lease.
///
/// Of the remaining tenth, half is left to handlers that run when the lease ends, and half covers clocks that drift
/// apart: 5 % is far above what those of two machines do.
pub const LEASE_MARGIN_PARTS: u32 = 10;

/// Lease of a node: time since its last heartbeat after which it is dead, with all that runs there.
///
/// It is the time in which callers wait for the actors of a machine that lost power. The last renewal may precede an
/// outage by [`LEASE_RENEW_INTERVAL`]. After an outage of some seconds the next attempt to connect may be two seconds
/// away, since TCP repeats its first packet after one second and after three. So an outage of 7 s is survived.
pub const NODE_LEASE: Duration = Duration::from_secs(10);

/// Largest lease of nodes and drivers: below [`INBOUND_PEER_EXPIRY`], after which a session is dropped.
pub const NODE_LEASE_MAX: Duration = Duration::from_secs(50);

/// Maximum time between two rejoins after a start of the head, while they keep it busy.
///
/// Leases do not end meanwhile. A member that is there repeats its attempt within [`REJOIN_BACKOFF_MAX`] and
/// [`HEAD_RPC_TIMEOUT`].
pub const REJOIN_GAP_MAX: Duration = Duration::from_secs(3);

/// Maximum time after a start of the head in which it declares no member dead, while others rejoin.
pub const REJOIN_MAX: Duration = Duration::from_secs(120);

/// Lease of a driver. A thread that runs no user code renews it.
pub const JOB_LEASE: Duration = NODE_LEASE;

/// Time after its submission in which a job's driver must be started, or the job fails.
///
/// The node has the executable by then, so only two requests are missing. A submitter that sends neither
/// has exited.
pub const SUBMITTED_LEASE: Duration = Duration::from_secs(30);

/// Time after the end of its request in which an actor with an assignment may start; for a detached one, after the end
/// of its job.
///
/// The spawning process may exit as soon as the actor runs, before the node has reported it to the head. A request that
/// timed out may still be on its way to the worker, or be dropped on it.
/// A second is plenty for that report. An actor that is not reported in this time is dead, and its
/// assignment is released.
pub const START_LEASE: Duration = Duration::from_secs(10);

/// Time that the constructor of a killed actor may take before the actor is listed as dead.
///
/// The request to create it may never have reached its worker: the head cannot tell that from a slow
/// constructor, and must not hold its name and resources for ever.
pub const KILL_LEASE: Duration = Duration::from_secs(60);

/// Maximum size of the encoded arguments of an actor that is restarted, in bytes.
///
/// The control plane keeps them, and writes them to its disk. Larger data belongs in the actor's first message, or
/// in a file that the arguments name.
pub const RECIPE_BYTES_MAX: usize = 1 << 20;

/// Maximum total size of the recipes of one job, in bytes: 64 actors with the largest arguments.
pub const RECIPES_PER_JOB_BYTES_MAX: usize = 64 << 20;

/// Time for which calls to a replaced or ended incarnation wait for its last replies.
///
/// They are under way in a socket, or were written when the actor ended.
pub const LAST_REPLIES_TIMEOUT: Duration = Duration::from_millis(100);

/// Number of an actor's failures within the period that the control plane counts.
///
/// A policy that allows more has no limit: 8 KiB for each actor, however often it fails.
pub const RESTART_FAILURES_COUNTED_MAX: usize = 1000;

/// Interval of the control plane's ticks while any lease is held.
///
/// It is the delay with which an expired lease is noticed.
pub const TICK_EVERY: Duration = Duration::from_millis(250);

/// Gap between two events of the control plane from which it concludes that it did not run.
///
/// The silence was then its own, and leases are extended by the gap without one tick. It is two ticks: a gap of one
/// second must not count against [`NODE_UNREACHABLE_AFTER`].
pub const CLOCK_GAP_MAX: Duration = Duration::from_millis(500);

/// Later placements after which a node is reserved for a pending actor.
///
/// Small actors may overtake a large one while capacity for it could become free by chance. More than
/// this many show that it does not.
pub const RESERVE_AFTER_PASSED: u64 = 100;

/// Wait after which a node is reserved for a pending actor, however few have overtaken it.
pub const RESERVE_AFTER: Duration = Duration::from_secs(10);

/// Maximum time for which a node is reserved for an actor.
///
/// The node's free capacity is unused meanwhile. Most actors that end do so within that time. Those that
/// last longer may belong to the pending actor's own program, and then a longer reservation would not help.
pub const RESERVATION_MAX: Duration = Duration::from_secs(60);

/// Pause between two reservations for the same actor: a node accepts all work for at least half of the
/// time.
pub const RESERVE_AGAIN_AFTER: Duration = RESERVATION_MAX;

/// Maximum number of concurrent reservations, and of searches for one after each event.
///
/// A search scans each node that could ever take the actor.
pub const RESERVATIONS_MAX: usize = 64;

/// Maximum number of requests that wait for the end of a node or a job; one more is refused, and repeated later.
///
/// Each is an open call and a task of the head. Programs have a few.
pub const WATCHERS_MAX: usize = 16_384;

/// Maximum number of ended jobs kept for lists, and of dead nodes, workers and actors each; the oldest
/// are deleted.
///
/// They cover the events of a bad night in less than a megabyte.
pub const HISTORY_MAX: usize = 1000;

/// Consecutive failed worker starts after which a node starts no more for a job, or for a detached actor.
///
/// An executable that did not start three times does not start the fourth time.
pub const WORKER_STARTS_FAILED_MAX: u32 = 3;

/// Uptime below which the exit of a worker counts as a crash at start, which delays the next start.
///
/// A broken program fails in its first calls, and a worker that runs for longer costs little to restart.
pub const WORKER_STABLE_AFTER: Duration = Duration::from_secs(10);

/// Age from which a worker that is killed, but not for want of memory, does not count as crashed.
///
/// A kill by others is no reason to wait. A program that kills itself does so in its first calls.
pub const WORKER_KILLED_AFTER: Duration = Duration::from_millis(50);

/// Number of workers killed from outside in a row, none of them stable, that are replaced immediately.
pub const WORKER_KILLS_MAX: u32 = 8;

/// Delay of the next worker after more kills than that.
///
/// It bounds the rate of starts.
pub const WORKER_KILLED_DELAY: Duration = Duration::from_millis(200);

/// Delay of a job's next worker after two consecutive crashes at start; it doubles with each further one.
pub const WORKER_RESTART_BACKOFF: Duration = Duration::from_secs(1);

/// Maximum delay of a job's next worker.
///
/// One start a minute is no load, and a job recovers within a minute of the fault's end.
pub const WORKER_RESTART_DELAY_MAX: Duration = Duration::from_secs(60);

/// Number of job ids allocated between two writes of the watermark to the head's disk.
///
/// A restarted head skips up to two such blocks, so that no id is reused even if the last write was lost.
/// A new job waits for the disk in any case; the block bounds a burst.
pub const JOB_ID_BLOCK: u32 = 100;
/// Number of worker ids allocated between two writes, as [`JOB_ID_BLOCK`].
///
/// A worker's start does not wait for the disk: more processes than a block cannot start while the disk
/// is stuck.
pub const WORKER_ID_BLOCK: u64 = 100_000;
/// Number of actor ids allocated between two writes, as [`JOB_ID_BLOCK`].
///
/// They last for seconds of the fastest spawning, so that a slow commit delays no actor.
pub const ACTOR_ID_BLOCK: u64 = 1_000_000;

/// Maximum bytes of an actor's name, of its type's name and of its namespace.
///
/// They appear in tables and in one line of a terminal.
pub const ACTOR_NAME_BYTES_MAX: usize = 512;

/// Maximum number of resources, and of labels, that an actor may request.
pub const ACTOR_CONSTRAINTS_MAX: usize = 64;

/// Maximum number of actor types that the head tracks by name. Further types are listed under the last
/// one.
pub const CLASSES_MAX: usize = 1 << 16;

/// Maximum number of task functions that the head counts by name for one worker.
pub const TASK_NAMES_MAX: usize = 1 << 12;

/// Maximum bytes of a job's command line, and of each other text about a job.
pub const JOB_TEXT_BYTES_MAX: usize = 4096;

/// Smallest default stack of a thread that runs handlers or tasks, in bytes: that of `main` on most
/// machines.
///
/// A stack reserves address space; memory is allocated as it is used.
pub const STACK_BYTES_MIN: usize = 8 << 20;

/// Stack of such a thread if that of `main` is unlimited, in bytes.
///
/// It is eight times the usual, and a thousand workers still fit into the address space of a machine.
pub const STACK_BYTES_UNLIMITED: usize = 64 << 20;

/// Smallest configurable stack, in bytes: the library's own frames and some of the program's.
pub const STACK_BYTES_LEAST: usize = 256 << 10;

/// Largest configurable stack, in bytes.
///
/// A larger value is a mistake in the unit: such stacks do not fit into the address space.
pub const STACK_BYTES_MAX: usize = match usize::BITS {
    64.. => 64 << 30,
    _ => 1 << 30,
};

/// Time for which the exit of a worker waits for the exit of its killed descendants.
///
/// The kernel takes milliseconds, except for a process in uninterruptible sleep.
pub const DESCENDANTS_END_TIMEOUT: Duration = Duration::from_secs(2);

/// Time after which the next address of a name is tried in parallel to a silent one.
///
/// The value follows RFC 8305: longer than most round trips, and too short for a person to notice.
pub const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

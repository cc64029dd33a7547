//! The limits of a cluster of nodes: its trust, its desks, its leases, its files.

use std::time::Duration;

/// How long a process's certificate is valid from when it was issued.
///
/// A lost key is of use for no longer, since nothing is ever revoked; and a head may be away for most of a
/// day before its cluster is hurt.
pub const CERTIFICATE_VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// After so long at most a process asks for its next certificate.
///
/// A third of its life, and then of what is left of it: several attempts can fail before the old one has expired.
pub const CERTIFICATE_RENEW_FRACTION: Duration = Duration::from_secs(8 * 60 * 60);

/// The shortest time between two attempts to get the next certificate.
pub const CERTIFICATE_RENEWAL_BACKOFF: Duration = Duration::from_secs(1);

/// How far before its issue a certificate is valid: so much may clocks of one cluster differ.
pub const CERTIFICATE_SKEW: Duration = Duration::from_secs(60 * 60);

/// How long a cluster's authority is valid. It lives as long as its cluster; nobody renews it.
pub const AUTHORITY_VALID: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Hosts that one certificate is for at most.
///
/// A worker has two, all others have one; the rest is room. Each is two names in the certificate.
pub const CERTIFIED_HOSTS_MAX: usize = 16;

/// The longest request at a desk before its sender has proved that it knows the secret, in bytes.
///
/// A proof has some fifty.
pub const TOKEN_RPC_UNAUTHENTICATED_BYTES_MAX: usize = 4 << 10;

/// The longest request at a desk, in bytes: a mebibyte of an executable, and what goes with it.
pub const TOKEN_RPC_REQUEST_BYTES_MAX: usize = 2 << 20;

/// The longest reply of a desk, in bytes.
///
/// A list of some hundred thousand actors.
pub const TOKEN_RPC_REPLY_BYTES_MAX: usize = 64 << 20;

/// Rows of a list in one reply.
///
/// More than a terminal shows, and a millisecond's work for the head.
pub const LIST_ROWS_MAX: usize = 1000;

/// Bytes of the rows of a list in one reply, beyond which no further row is added.
///
/// Rows have some hundred bytes and some thousand at most, so it is the rows that are bounded as a rule.
pub const LIST_BYTES_MAX: usize = 4 << 20;

/// Rows of a table that are looked at under the head's lock, for one request, before others have their turn.
///
/// A row costs some 10 ns to count, some 100 ns to compare with filters and a microsecond to list: that is a
/// millisecond at most, with [`LIST_ROWS_MAX`] rows that are listed.
pub const LIST_SLICE_ROWS: usize = 4096;

/// Filters of one request for a list.
pub const LIST_FILTERS_MAX: usize = 16;

/// Rows that are told of those whose ids begin with a text, and of as many for each other meaning of it.
///
/// One that is clear is one; of several, people are shown three.
pub const LIST_MEANT_MAX: usize = 4;

/// Classes of actors, or functions of tasks, that are counted in one reply. Those behind them, in the order of
/// their names, are left out and counted.
///
/// Programs have some tens. With names of [`ACTOR_NAME_BYTES_MAX`] they are 6 MB.
pub const SUMMARY_ROWS_MAX: usize = 10_000;

/// Actors that wait for a place of which the reasons are told.
///
/// What there is to see is seen by then, and the others are counted.
pub const WAITING_TOLD_MAX: usize = 100;

/// Connections that a desk has open at once of those who have proved themselves; one more is refused.
///
/// Each is an operator's tool at work, or a process that enrols, which takes some milliseconds.
pub const TOKEN_RPC_CONNECTIONS_MAX: usize = 256;

/// A connection on which nothing is asked for so long is closed.
///
/// Longer than any tool pauses between two requests.
pub const TOKEN_RPC_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections that wait at a node for a host, a desk or a process to take them; one more is closed.
///
/// Whoever takes them needs microseconds for each.
pub const HANDOFF_QUEUE_MAX: usize = 64;

/// How long a process may take to accept a connection that its node passes on; then it is closed.
///
/// One that runs needs microseconds, and one that is stopped takes none. Whoever dialled would give up
/// soon after, and tries again.
pub const HANDOFF_TIMEOUT: Duration = Duration::from_secs(2);

/// How many bytes of what a process is told over its lifeline may be on their way.
///
/// The system counts a connection with about a kilobyte: some sixty, before more of them wait here. All
/// processes of a user have one bound on files that are on their way, so a stopped one must not use it up.
pub const CONTROL_SOCKET_BUFFER_BYTES: usize = 32 << 10;

/// How long a host of a cluster keeps what it has open with one that came by itself and is away.
///
/// Several times the leases: whoever is away for longer is dead by then.
pub const INBOUND_PEER_EXPIRY: Duration = Duration::from_secs(60);

/// How often agents and drivers say to the head that they are there.
///
/// Several times in the time after which they are taken for gone, so that one that is late is no death.
pub const LEASE_RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// How long the head, or a member that it tells something, may take for an answer.
///
/// All of them answer from memory; behind this the other side is looked for anew.
pub const HEAD_RPC_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a node that starts looks for its head.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a node that ends waits for the head to hear of it.
pub const LEAVE_TIMEOUT: Duration = Duration::from_millis(300);

/// First distance between the starts of two attempts to find a head that is away. It doubles each time.
pub const REJOIN_DELAY_MIN: Duration = Duration::from_millis(10);

/// Longest distance between the starts of two attempts to find a head that is away.
///
/// Short, since after an outage a member is back within it; long enough that thousands of members are a load
/// that the head's node can bear.
pub const REJOIN_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Bytes of output that wait for a driver's terminal. A piece that is larger waits alone.
///
/// Some seconds of what a person can follow, and as much as a slow terminal shows in a moment.
pub const OUTPUT_WAITING_BYTES_MAX: u32 = 4 << 20;

/// Pieces of output that wait for a driver's terminal, however short they are; a piece is one read of a pipe.
pub const TERMINAL_QUEUE_MAX: usize = 64;

/// Pieces of output that wait to be labelled and folded, which takes microseconds.
pub const OUTPUT_UNFOLDED_MAX: usize = 16;

/// How long a local cluster's workers wait for a terminal that takes nothing, before lines are dropped.
///
/// A terminal that is slow takes something in that time, and then nothing is dropped.
pub const OUTPUT_STALL_MAX: Duration = Duration::from_secs(1);

/// How long a shutdown waits until what workers have printed is on the terminal.
///
/// Agents answer in milliseconds; only a terminal that does not read takes longer.
pub const OUTPUT_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// How much of that time agents may take to send the last lines.
///
/// The terminal has the rest to itself: a node that is silent costs no line that the driver has.
pub const OUTPUT_AGENTS_TIMEOUT: Duration = Duration::from_millis(1500);

/// How long an agent waits until the last lines of a job's workers are with the driver.
///
/// It answers before its driver gives it up.
pub const OUTPUT_SENT_TIMEOUT: Duration = Duration::from_secs(1);

/// The same for a cluster that is dropped, which holds up the thread that drops it.
pub const OUTPUT_DROP_TIMEOUT: Duration = Duration::from_millis(500);

/// The longest line of a local cluster's worker, in bytes; a longer one is broken into several.
///
/// A document of JSON fits. Each stream of a worker has a buffer of that size while it prints such a line.
pub const OUTPUT_LINE_BYTES_MAX: usize = 1 << 20;

/// How often a worker tells how many tasks it has run.
pub const TASK_STATS_INTERVAL: Duration = Duration::from_millis(500);

/// How long the driver of a submitted job may take to end after it was asked to.
pub const DRIVER_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Orders to one agent, or news for one driver, that wait for their turn; a member that is further
/// behind misses some.
pub const COMMAND_QUEUE_MAX: usize = 4096;

/// News and lines of output that wait for a driver to take them.
pub const JOB_EVENT_QUEUE_MAX: usize = 1024;

/// How long an agent may take to write a piece of an executable.
pub const EXECUTABLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Nodes that a driver sends its executable to at the same time.
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

/// Time for which a driver that starts looks for a node that has its executable, before it sends any copy.
///
/// Nodes answer from memory, or read a large file once. One that is silent holds up the start for no longer.
pub const EXECUTABLE_LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Nodes that one driver has fetch its executable from the same node at the same time.
///
/// With two the number of nodes that have it triples in each round, and a round takes two transfers.
pub const EXECUTABLE_FETCHES_PER_NODE: usize = 2;

/// Nodes from which a node tries to fetch an executable before the driver sends it.
///
/// Each may cost a node [`EXECUTABLE_FETCH_TIMEOUT`].
pub const EXECUTABLE_SOURCES_TRIED_MAX: usize = 3;

/// Fetches by different nodes that may fail at a node before no other is told to fetch there.
///
/// One failure may be due to the node that fetched.
pub const EXECUTABLE_SOURCE_FAILURES_MAX: usize = 2;

/// Time for one piece of an executable that a node fetches from another.
///
/// Over a link of 10 Mbit/s that two nodes share a piece takes less than two seconds. From a slower node it comes
/// no sooner than from the driver.
pub const EXECUTABLE_FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for which a node fetches pieces before it reports to the driver, which then has it go on.
///
/// With [`EXECUTABLE_FETCH_TIMEOUT`] for the last piece well below [`EXECUTABLE_TIMEOUT`].
pub const EXECUTABLE_FETCH_TURN: Duration = Duration::from_secs(5);

/// Executables that a node fetches from others at the same time; each has a piece in memory.
pub const EXECUTABLE_FETCHES_MAX: usize = 16;

/// Nodes that a node serves executables to at the same time; each has a piece in memory.
///
/// More than one driver asks of it: two such, of different programs, find room.
pub const EXECUTABLE_PEERS_SERVED_MAX: usize = 4;

/// Time without a request after which a node loses its place.
///
/// Between two pieces it writes the first, and may report to its driver.
pub const EXECUTABLE_PEER_IDLE: Duration = Duration::from_secs(10);

/// The largest executable that a node takes.
///
/// A large program with all of its debugging symbols has some hundred megabytes.
pub const EXECUTABLE_BYTES_MAX: u64 = 1 << 30;

/// How many bytes of executables a node keeps, with those that are still on their way.
///
/// Some ten large ones and hundreds of small ones: who runs yesterday's program again need not send it.
pub const EXECUTABLES_BYTES_MAX: u64 = 4 << 30;

/// How many executables a node keeps at most, however small they are: it looks through all of them for
/// the one to give up.
pub const EXECUTABLES_MAX: usize = 256;

/// How many uids a node may have for its jobs.
///
/// As many as a container of Linux usually has. All of them may be looked at for one that is free.
pub const WORKER_UIDS_MAX: u32 = 65_536;

/// How long a new job waits for a uid, while processes of a job that is over are being ended.
///
/// That takes milliseconds. Whoever sends the job's executable waits for longer.
pub const WORKER_UID_TIMEOUT: Duration = Duration::from_secs(5);

/// How many bytes of an executable travel in one message.
///
/// In one piece on the wire, and a millisecond's work for the node that writes it.
pub const EXECUTABLE_CHUNK_BYTES: usize = 1 << 20;

/// After so long without another byte, an executable on its way may be given up for want of room.
///
/// Longer than it takes a driver to come back after its link broke.
pub const UPLOAD_IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How long a log may get before it is put aside and another is begun, in bytes.
///
/// An editor opens it, and a hundred workers with all that they keep fill some gigabytes.
pub const LOG_FILE_BYTES_MAX: u64 = 16 << 20;

/// How many logs of each stream are kept beside the one that is written.
pub const LOG_FILES_KEPT: u64 = 3;

/// How often a node looks whether it keeps too much of them.
pub const LOG_RETENTION_INTERVAL: Duration = Duration::from_secs(60);

/// How many bytes of logs a node keeps of processes that have ended.
pub const LOGS_BYTES_MAX: u64 = 4 << 30;

/// How many files of logs a node keeps of processes that have ended.
///
/// A directory of so many is listed in some ten milliseconds. They are those of an hour in which a job with
/// 64 workers that print starts each minute.
pub const LOGS_FILES_MAX: usize = 10_000;

/// How many logs of a node are told at once: some megabytes at most, with the longest of names.
pub const LOGS_LISTED_MAX: usize = 10_000;

/// The longest line that goes to the driver's terminal, in bytes; the rest of it is in the log alone.
///
/// Some hundred lines of a terminal: more of it nobody reads there.
pub const LOG_LINE_BYTES_MAX: usize = 16 << 10;

/// A line that has no end after that time is shown as it stands, and again as often as it has changed.
///
/// A reader sees the state of a progress bar within a second; a line that is printed in several pieces is
/// complete long before.
pub const LOG_UNFINISHED_AFTER: Duration = Duration::from_millis(600);

/// How much of a line without an end is shown, in bytes: the last of it.
///
/// Prompts and progress bars are short.
pub const LOG_UNFINISHED_BYTES_MAX: usize = 1 << 10;

/// How many bytes of a process's output are read at once: what a pipe holds.
pub const LOG_READ_BYTES: usize = 64 << 10;

/// How many reads of one stream may wait for the disk: a megabyte, at most.
pub const LOG_READS_QUEUED_MAX: usize = 16;

/// How many reads' lines of one process may wait for whoever shows them.
///
/// While they wait, what the process prints gathers in its pipe and comes in fewer, larger reads.
pub const LOG_LINES_QUEUED_MAX: usize = 64;

/// How long a process that prints may be held up by a slow disk, or by whoever shows its lines, before
/// what it prints is dropped and counted.
///
/// A burst passes within that time.
pub const LOG_STALL_MAX: Duration = Duration::from_millis(100);

/// How long output is awaited after its process has ended, when a process that it has started still
/// holds the pipe.
pub const LOG_GRACE: Duration = Duration::from_millis(250);

/// How much output is read after that time, as long as more is there: all that a pipe can hold.
pub const LOG_FLUSH_BYTES_MAX: usize = 1 << 20;

/// How many bytes of a log are read at once by those who look at it.
pub const LOG_PART_BYTES_MAX: usize = 1 << 20;

/// Lines of several processes with the same text within that time are shown once, and then counted.
pub const LOG_DEDUP_WINDOW: Duration = Duration::from_secs(5);

/// The longest line that is folded, in bytes; a longer one is always shown.
///
/// Long lines of several processes are seldom equal, and remembered texts take 4 MiB at most.
pub const FOLDED_LINE_BYTES_MAX: usize = 4 << 10;

/// How many different texts are remembered, so that they are shown once.
///
/// A program that prints more of them in a few seconds repeats little.
pub const LOG_DEDUP_ENTRIES_MAX: usize = 1024;

/// How many counts are kept of those texts, one for each process that has printed the text.
///
/// Some hundred processes that print the same hundred texts; it is a megabyte.
pub const FOLDED_COUNTS_MAX: usize = 1 << 15;

/// Outage that costs a node or a driver nothing.
///
/// Several beats of its agent: a busy machine may miss some. It is how long the actors of a machine that
/// has lost power stay in their callers' way, with [`LEASE_GRACE`].
pub const NODE_LEASE: Duration = Duration::from_secs(10);

/// Time that the head waits for a member beyond its lease: the last beat may have come [`LEASE_RENEW_INTERVAL`] before
/// an outage, and the first one after it comes within [`REJOIN_BACKOFF_MAX`] and the round trips of a new link.
pub const LEASE_GRACE: Duration = Duration::from_secs(3);

/// Longest time after a start of the head in which it gives up no member, as long as others come back.
pub const RETURN_MAX: Duration = Duration::from_secs(120);

/// The lease of a driver. A thread that runs no user code beats for it.
pub const JOB_LEASE: Duration = NODE_LEASE;

/// How long after its submission a job fails if nobody has had its driver started.
///
/// The executable is with the node by then, so only two requests lie between; whoever makes none has ended.
pub const SUBMITTED_LEASE: Duration = Duration::from_secs(30);

/// How long after the end of its job a detached actor may take to begin.
///
/// Whoever spawned it may know that it has begun, and end, before its node has said so. A second is plenty
/// for that, and a place that nobody took up is kept for no longer than this.
pub const START_LEASE: Duration = Duration::from_secs(10);

/// How often the control plane is to be told that time has passed, as long as somebody holds a lease.
pub const TICK_EVERY: Duration = Duration::from_secs(1);

/// When the control plane was told nothing for so long, it was not running: the silence was its own, and
/// leases last that much longer.
///
/// Several ticks, which a loaded machine may delay.
pub const CLOCK_GAP_MAX: Duration = Duration::from_secs(3);

/// Later placements after which a node is reserved for an actor that waits for room.
///
/// Small actors pass a large one while room for it gathers by chance; more than this many show that it does
/// not.
pub const RESERVE_AFTER_PASSED: u64 = 100;

/// Wait after which a node is reserved for an actor, however few have passed it.
pub const RESERVE_AFTER: Duration = Duration::from_secs(10);

/// Longest time for which a node is reserved for an actor.
///
/// What is free of the node is used by none meanwhile. Most actors that end at all end in that time; those
/// that do not may be what the waiting actor's program waits for.
pub const RESERVATION_MAX: Duration = Duration::from_secs(60);

/// Rest between two reservations for the same actor: at least half of the time a node takes all that fits.
pub const RESERVE_AGAIN_AFTER: Duration = RESERVATION_MAX;

/// Nodes that are reserved at the same time, and as many searches for one after each event.
///
/// A search looks at each node that could ever take the actor.
pub const RESERVATIONS_MAX: usize = 64;

/// How many ended jobs are kept for lists, and as many dead nodes, workers and actors; the oldest are
/// forgotten.
///
/// What somebody looks for after a bad night, in less than a megabyte.
pub const HISTORY_MAX: usize = 1000;

/// So many workers in a row that never worked are enough: no more are started for that job on that node,
/// nor for that detached actor.
///
/// An executable that does not start here does not start the fourth time.
pub const WORKER_STARTS_FAILED_MAX: u32 = 3;

/// A worker that ends within so long of getting ready has crashed at its start, and is no reason to start
/// the next at once.
///
/// A program that is broken breaks in its first calls, and one that lives for so long costs little to start.
pub const WORKER_STABLE_AFTER: Duration = Duration::from_secs(10);

/// How long a node waits with a job's next worker when two in a row have crashed at their start; twice as
/// long after each further one.
pub const WORKER_RESTART_BACKOFF: Duration = Duration::from_secs(1);

/// The longest such wait.
///
/// A start every minute is no load, and a fault that has passed is not waited out for longer.
pub const WORKER_RESTART_DELAY_MAX: Duration = Duration::from_secs(60);

/// Numbers of jobs that are given between two writes of the bound to the head's disk.
///
/// A head that starts anew skips up to two such blocks, so that no number is given twice even if the last
/// write was lost. A new job waits for the disk in any case; a block bounds a burst of them.
pub const JOB_ID_BLOCK: u32 = 100;
/// Numbers of workers between two writes, as [`JOB_ID_BLOCK`]. A worker's start does not wait for the
/// disk: a block is more than processes start while a disk takes nothing.
pub const WORKER_ID_BLOCK: u64 = 100_000;
/// Numbers of actors between two writes, as [`JOB_ID_BLOCK`]: seconds of the fastest spawning, so that a
/// slow commit delays none.
pub const ACTOR_ID_BLOCK: u64 = 1_000_000;

/// How many bytes the name of an actor, of its type and of its namespace may have.
///
/// They stand in tables and in one line of a terminal.
pub const ACTOR_NAME_BYTES_MAX: usize = 512;

/// How many resources, and how many labels, an actor may ask for.
pub const ACTOR_CONSTRAINTS_MAX: usize = 64;

/// Names of actor types that the head remembers. What has another name is listed under the last one.
pub const CLASSES_MAX: usize = 1 << 16;

/// Names of tasks that the head counts for one worker.
pub const TASK_NAMES_MAX: usize = 1 << 12;

/// Bytes that the head keeps of a job's command line, and of each other text about a job.
pub const JOB_TEXT_BYTES_MAX: usize = 4096;

/// The smallest default stack of a thread that runs handlers or tasks: what `main` has on most machines.
///
/// A stack is address space; memory is taken as far as it is used.
pub const STACK_BYTES_MIN: usize = 8 << 20;

/// The stack of such a thread where that of `main` has no limit.
///
/// Eight times the usual, and a thousand workers still fit a machine's address space.
pub const STACK_BYTES_UNLIMITED: usize = 64 << 20;

/// The smallest stack that may be asked for: the library's own frames, and some of the program's.
pub const STACK_BYTES_LEAST: usize = 256 << 10;

/// The largest stack that may be asked for.
///
/// A larger value is a mistaken unit: such stacks do not fit the address space.
pub const STACK_BYTES_MAX: usize = match usize::BITS {
    64.. => 64 << 30,
    _ => 1 << 30,
};

/// How long the end of a worker waits for the end of what it has started, which was killed.
///
/// It takes milliseconds; only a process that is stuck in the kernel takes longer.
pub const OFFSPRING_END_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one address of a name may be silent before the next is tried beside it.
///
/// As RFC 8305 has it: longer than most ways are, and no wait that a person notices.
pub const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

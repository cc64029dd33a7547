//! Record of a run: the messages sent, their outcomes, and the guarantees that they violate.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use roadshow::{NotDelivered, OutcomeUnknown, Payload, SendError};
use tokio::time::Instant;

/// Number of a message; numbers of one stream ascend.
pub(crate) type Op = u64;

/// Stream of messages from one sender to one actor: its number, and the incarnation of the actor's host.
pub(crate) type Stream = (u64, u64);

/// Maximum time of an operation beyond its timeout: timers tick in milliseconds.
const LATE_MAX: Duration = Duration::from_millis(5);

/// Kind of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendKind {
    Tell,
    DoSend,
    TrySend,
    Send,
    Retry,
    Task,
    Spawn,
    Stop,
}

/// State of an actor when a message was sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    /// Alive: its messages arrive unless a session ends.
    Alive,
    /// Perhaps stopped, by another host or with an unknown outcome.
    MayStop,
    /// Stopped: no later message is handled.
    Stopped,
}

/// Message and its outcome.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) kind: SendKind,
    /// Sending and receiving host, by their index.
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Stream in which the order is guaranteed; `None` without a guarantee.
    pub(crate) stream: Option<Stream>,
    /// State of the target actor when the message was sent.
    pub(crate) actor: Actor,
    /// Timeout of the message, counted from `since`.
    pub(crate) limit: Option<Duration>,
    since: Instant,
    end: Option<End>,
    started: u32,
    /// Number of times that it may start.
    starts_max: u32,
}

impl Sent {
    pub(crate) fn new(kind: SendKind, from: usize, to: usize) -> Self {
        let since = Instant::now();
        Self {
            kind,
            from,
            to,
            stream: None,
            actor: Actor::Alive,
            limit: None,
            since,
            end: None,
            started: 0,
            starts_max: 1,
        }
    }

    pub(crate) fn in_stream(self, stream: Stream, actor: Actor) -> Self {
        Self { stream: Some(stream), actor, ..self }
    }

    /// Allows it to run again that many times.
    pub(crate) fn with_retries(self, retries: u32) -> Self {
        Self { starts_max: 1 + retries, ..self }
    }

    pub(crate) fn within(self, limit: Option<Duration>) -> Self {
        Self { limit, ..self }
    }
}

/// Outcome of a message for its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Sent one way; the sender gets no further outcome.
    Sent,
    /// Dropped by the sending host, and counted.
    DeadLetter,
    Answered(Op),
    /// Cancelled: the caller dropped its future.
    Dropped,
    Failed(SendError),
}

/// All events of one run.
#[derive(Debug)]
pub(crate) struct Record {
    since: Instant,
    sent: RefCell<BTreeMap<Op, Sent>>,
    last: Cell<Op>,
    /// Last started message of each stream.
    heads: RefCell<BTreeMap<Stream, Op>>,
    violations: RefCell<Vec<String>>,
    log: RefCell<Vec<String>>,
    /// Pairs of hosts whose sessions may have ended.
    disturbed: RefCell<BTreeSet<[usize; 2]>>,
}

/// Returns the content of a payload with this message number and length.
pub(crate) fn content(op: Op, bytes: usize) -> Payload {
    Payload::from((0..bytes).map(|at| (op as usize + at) as u8).collect::<Vec<_>>())
}

impl Record {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            sent: RefCell::default(),
            last: Cell::new(0),
            heads: RefCell::default(),
            violations: RefCell::default(),
            log: RefCell::default(),
            disturbed: RefCell::default(),
        }
    }

    pub(crate) fn note(&self, what: impl std::fmt::Display) {
        let at = self.since.elapsed().as_micros();
        tracing::debug!(at, "{what}");
        self.log.borrow_mut().push(format!("{at:>9} {what}"));
    }

    pub(crate) fn violation(&self, what: impl std::fmt::Display) {
        self.note(format_args!("VIOLATION {what}"));
        self.violations.borrow_mut().push(what.to_string());
    }

    /// Marks a pair of hosts whose sessions may end from now on.
    pub(crate) fn disturb(&self, one: usize, other: usize) {
        self.disturbed.borrow_mut().insert([one.min(other), one.max(other)]);
    }

    fn is_disturbed(&self, sent: &Sent) -> bool {
        self.disturbed.borrow().contains(&[sent.from.min(sent.to), sent.from.max(sent.to)])
    }

    /// Records a message that is about to be sent.
    pub(crate) fn send(&self, sent: Sent) -> Op {
        // One counter for all streams, so that a number names one message.
        let op = self.last.get() + 1;
        self.last.set(op);
        self.note(format_args!("{op} {:?} {}->{}", sent.kind, sent.from, sent.to));
        self.sent.borrow_mut().insert(op, sent);
        op
    }

    /// Records the outcome of a message.
    pub(crate) fn end(&self, op: Op, end: End) {
        match &end {
            // Errors contain host ids, which are equal in every run of a seed.
            End::Failed(error) => self.note(format_args!("{op} failed: {error}")),
            other => self.note(format_args!("{op} {other:?}")),
        }
        let (late, first) = {
            let mut all = self.sent.borrow_mut();
            let Some(sent) = all.get_mut(&op) else { return };
            // A timeout is a promise, also while links are broken.
            let late = sent.limit.filter(|limit| sent.since.elapsed() > *limit + LATE_MAX);
            (late.map(|limit| (sent.kind, limit, sent.since.elapsed())), sent.end.replace(end))
        };
        if let Some((kind, limit, took)) = late {
            self.violation(format_args!("{op} {kind:?} had {limit:?} and took {took:?}"));
        }
        if let Some(first) = first {
            self.violation(format_args!("{op} ended twice, first with {first:?}"));
        }
    }

    /// Returns the number of spawns so far.
    pub(crate) fn spawned(&self) -> usize {
        self.sent.borrow().values().filter(|sent| sent.kind == SendKind::Spawn).count()
    }

    pub(crate) fn answer(&self, op: Op, answer: Result<Op, SendError>) {
        self.end(op, answer.map_or_else(End::Failed, End::Answered));
    }

    /// Records the start of a handler, and checks the content of its message.
    pub(crate) fn started(&self, op: Op, is_intact: bool) {
        self.note(format_args!("{op} started"));
        if !is_intact {
            self.violation(format_args!("{op} arrived with other content"));
        }
        let mut all = self.sent.borrow_mut();
        let Some(sent) = all.get_mut(&op) else { return };
        sent.started += 1;
        let (kind, started, stream, starts_max) = (sent.kind, sent.started, sent.stream, sent.starts_max);
        // A violation borrows the record again.
        drop(all);
        if started > starts_max {
            self.violation(format_args!("{op} {kind:?} started {started} times"));
        }
        if let Some(stream) = stream {
            let before = self.heads.borrow_mut().insert(stream, op).unwrap_or(0);
            // Numbers ascend in a stream, so a higher one before means another order.
            if before > op {
                self.violation(format_args!("{op} was started after {before} of its stream"));
            }
        }
    }

    /// Checks every message, after all hosts are idle.
    pub(crate) fn check_all(&self, dead_letters: u64) {
        let all = self.sent.borrow().clone();
        for (op, sent) in &all {
            if let Err(what) = self.check_one(*op, sent) {
                self.violation(format_args!("{op} {:?} {}->{}: {what}", sent.kind, sent.from, sent.to));
            }
        }
        let is_lost = |sent: &&Sent| {
            matches!(sent.end, Some(End::Sent | End::DeadLetter))
                && sent.started == 0
                && sent.kind != SendKind::Stop
        };
        let lost = all.values().filter(is_lost).count() as u64;
        // After an end of a session, the receiver may have lost messages without a count.
        if self.disturbed.borrow().is_empty() && lost != dead_letters {
            self.violation(format_args!("{lost} messages were lost, {dead_letters} are counted"));
        }
    }

    fn check_one(&self, op: Op, sent: &Sent) -> Result<(), String> {
        let started = sent.started > 0;
        if started && sent.actor == Actor::Stopped {
            return Err("handled by an actor that had stopped".into());
        }
        match &sent.end {
            None => Err("it has no outcome".into()),
            Some(End::Answered(answer)) if *answer != op => Err(format!("the answer of {answer}")),
            Some(End::Answered(_)) if !started && sent.kind != SendKind::Stop => {
                Err("answered but never started".into())
            }
            Some(End::DeadLetter) if started => Err("a dead letter, but started".into()),
            Some(End::Sent) if !started && sent.actor == Actor::Alive && !self.is_disturbed(sent) => {
                Err("accepted but never started".into())
            }
            Some(End::Failed(SendError::NotDelivered(reason))) if started => {
                Err(format!("not delivered ({reason}), but started"))
            }
            Some(End::Failed(error)) if !self.is_disturbed(sent) => is_excused(error, sent),
            // Between disturbed hosts, every error is permitted.
            Some(_) => Ok(()),
        }
    }

    pub(crate) fn into_parts(self) -> (Vec<String>, Vec<String>) {
        (self.log.into_inner(), self.violations.into_inner())
    }
}

/// Checks that a message may fail with this error although only links broke.
fn is_excused(error: &SendError, sent: &Sent) -> Result<(), String> {
    use NotDelivered::{ActorStopped, Closing, Expired, NoSuchActor, UnknownHost, Unreachable};
    use OutcomeUnknown::{NoReply, SessionLost, TimedOut};
    match error {
        SendError::NotDelivered(ActorStopped | NoSuchActor) | SendError::OutcomeUnknown(NoReply)
            if sent.actor != Actor::Alive =>
        {
            Ok(())
        }
        SendError::NotDelivered(ActorStopped | NoSuchActor) => {
            Err(format!("its actor is alive, but it failed: {error}"))
        }
        SendError::NotDelivered(Unreachable { .. } | UnknownHost { .. } | Closing)
        | SendError::OutcomeUnknown(SessionLost { .. } | NoReply)
        | SendError::Panicked { .. } => Err(format!("only links broke, but it failed: {error}")),
        SendError::NotDelivered(Expired) | SendError::OutcomeUnknown(TimedOut) if sent.limit.is_none() => {
            Err(format!("it had no timeout, but it failed: {error}"))
        }
        _ => Ok(()),
    }
}

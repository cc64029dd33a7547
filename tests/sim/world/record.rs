//! The record of a run: what was sent, what became of it, and the promises that this breaks.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use roadshow::{NotDelivered, OutcomeUnknown, Payload, SendError};
use tokio::time::Instant;

/// The number of a message; messages of one stream have rising numbers.
pub(crate) type Op = u64;

/// What one sender sends to one actor: the stream, and the life of the actor's host.
pub(crate) type Stream = (u64, u64);

/// Time that an operation may take beyond its own limit: timers tick in milliseconds.
const LATE_MAX: Duration = Duration::from_millis(5);

/// How a message was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Tell,
    DoSend,
    TrySend,
    Send,
    Retry,
    Task,
    Spawn,
    Stop,
}

/// What an actor was told to do before a message to it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    /// To live: its messages arrive unless a session ends.
    Lives,
    /// Perhaps to stop, by another host or with an unknown outcome.
    MayStop,
    /// To stop, and it has: no later message begins.
    Stopped,
}

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) way: Way,
    /// Hosts, by their place.
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// The stream within which the order is promised; none if it is not.
    pub(crate) stream: Option<Stream>,
    /// What is known of the actor that it was sent to.
    pub(crate) actor: Actor,
    /// The time limit that its sender gave, counted from `since`.
    pub(crate) limit: Option<Duration>,
    since: Instant,
    end: Option<End>,
    begun: u32,
}

impl Sent {
    pub(crate) fn new(way: Way, from: usize, to: usize) -> Self {
        let since = Instant::now();
        Self { way, from, to, stream: None, actor: Actor::Lives, limit: None, since, end: None, begun: 0 }
    }

    pub(crate) fn in_stream(self, stream: Stream, actor: Actor) -> Self {
        Self { stream: Some(stream), actor, ..self }
    }

    pub(crate) fn within(self, limit: Option<Duration>) -> Self {
        Self { limit, ..self }
    }
}

/// What the sender learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is on its way, and the sender learns no more.
    Sent,
    /// The sending host dropped it and counted it.
    DeadLetter,
    Answered(Op),
    /// The caller dropped its future.
    Dropped,
    Failed(SendError),
}

/// Everything that happened in one run.
#[derive(Debug)]
pub(crate) struct Record {
    since: Instant,
    sent: RefCell<BTreeMap<Op, Sent>>,
    last: Cell<Op>,
    /// The last message of each stream that was begun.
    heads: RefCell<BTreeMap<Stream, Op>>,
    violations: RefCell<Vec<String>>,
    log: RefCell<Vec<String>>,
    /// Pairs of hosts whose sessions with each other may have ended.
    disturbed: RefCell<BTreeSet<[usize; 2]>>,
}

/// What a payload of that message and length holds.
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

    /// Sessions between these two hosts may end from here on.
    pub(crate) fn disturb(&self, one: usize, other: usize) {
        self.disturbed.borrow_mut().insert([one.min(other), one.max(other)]);
    }

    fn is_disturbed(&self, sent: &Sent) -> bool {
        self.disturbed.borrow().contains(&[sent.from.min(sent.to), sent.from.max(sent.to)])
    }

    /// A message is about to be sent.
    pub(crate) fn send(&self, sent: Sent) -> Op {
        let op = self.last.get() + 1;
        self.last.set(op);
        self.note(format_args!("{op} {:?} {}->{}", sent.way, sent.from, sent.to));
        self.sent.borrow_mut().insert(op, sent);
        op
    }

    /// The sender learned this.
    pub(crate) fn end(&self, op: Op, end: End) {
        match &end {
            // Host numbers are in the text of some errors, and the same in every run.
            End::Failed(error) => self.note(format_args!("{op} failed: {error}")),
            other => self.note(format_args!("{op} {other:?}")),
        }
        let (late, first) = {
            let mut all = self.sent.borrow_mut();
            let Some(sent) = all.get_mut(&op) else { return };
            let late = sent.limit.filter(|limit| sent.since.elapsed() > *limit + LATE_MAX);
            (late.map(|limit| (sent.way, limit, sent.since.elapsed())), sent.end.replace(end))
        };
        if let Some((way, limit, took)) = late {
            self.violation(format_args!("{op} {way:?} had {limit:?} and took {took:?}"));
        }
        if let Some(first) = first {
            self.violation(format_args!("{op} ended twice, first with {first:?}"));
        }
    }

    /// Actors that were to be spawned so far.
    pub(crate) fn spawned(&self) -> usize {
        self.sent.borrow().values().filter(|sent| sent.way == Way::Spawn).count()
    }

    pub(crate) fn answer(&self, op: Op, answer: Result<Op, SendError>) {
        self.end(op, answer.map_or_else(End::Failed, End::Answered));
    }

    /// A handler began, and the message had the content that was sent, or another.
    pub(crate) fn begun(&self, op: Op, is_intact: bool) {
        self.note(format_args!("{op} begun"));
        if !is_intact {
            self.violation(format_args!("{op} came with other content"));
        }
        let mut all = self.sent.borrow_mut();
        let Some(sent) = all.get_mut(&op) else { return };
        sent.begun += 1;
        let (way, begun, stream) = (sent.way, sent.begun, sent.stream);
        drop(all);
        if begun > 1 {
            self.violation(format_args!("{op} {way:?} was begun {begun} times"));
        }
        if let Some(stream) = stream {
            let before = self.heads.borrow_mut().insert(stream, op).unwrap_or(0);
            if before > op {
                self.violation(format_args!("{op} was begun after {before} of its stream"));
            }
        }
    }

    /// Judges every message, when all is quiet.
    pub(crate) fn judge(&self, dead_letters: u64) {
        let all = self.sent.borrow().clone();
        for (op, sent) in &all {
            if let Err(what) = self.judge_one(*op, sent) {
                self.violation(format_args!("{op} {:?} {}->{}: {what}", sent.way, sent.from, sent.to));
            }
        }
        let is_lost = |sent: &&Sent| {
            matches!(sent.end, Some(End::Sent | End::DeadLetter)) && sent.begun == 0 && sent.way != Way::Stop
        };
        let lost = all.values().filter(is_lost).count() as u64;
        if self.disturbed.borrow().is_empty() && lost != dead_letters {
            self.violation(format_args!("{lost} messages were lost, and {dead_letters} are counted"));
        }
    }

    fn judge_one(&self, op: Op, sent: &Sent) -> Result<(), String> {
        let begun = sent.begun > 0;
        if begun && sent.actor == Actor::Stopped {
            return Err("begun by an actor that had stopped".into());
        }
        match &sent.end {
            None => Err("it has no end".into()),
            Some(End::Answered(answer)) if *answer != op => Err(format!("the answer of {answer}")),
            Some(End::Answered(_)) if !begun && sent.way != Way::Stop => {
                Err("answered, and never begun".into())
            }
            Some(End::DeadLetter) if begun => Err("a dead letter, and begun".into()),
            Some(End::Sent) if !begun && sent.actor == Actor::Lives && !self.is_disturbed(sent) => {
                Err("accepted, and never begun".into())
            }
            Some(End::Failed(SendError::NotDelivered(why))) if begun => {
                Err(format!("not delivered ({why}), and begun"))
            }
            Some(End::Failed(error)) if !self.is_disturbed(sent) => is_excused(error, sent),
            Some(_) => Ok(()),
        }
    }

    pub(crate) fn into_parts(self) -> (Vec<String>, Vec<String>) {
        (self.log.into_inner(), self.violations.into_inner())
    }
}

/// Checks that a message may fail so where links only broke.
fn is_excused(error: &SendError, sent: &Sent) -> Result<(), String> {
    use NotDelivered::{ActorStopped, Closing, Expired, NoSuchActor, UnknownHost, Unreachable};
    use OutcomeUnknown::{LinkLost, NoReply, TimedOut};
    match error {
        SendError::NotDelivered(ActorStopped | NoSuchActor) | SendError::OutcomeUnknown(NoReply)
            if sent.actor != Actor::Lives =>
        {
            Ok(())
        }
        SendError::NotDelivered(ActorStopped | NoSuchActor) => {
            Err(format!("its actor lives, and it failed: {error}"))
        }
        SendError::NotDelivered(Unreachable { .. } | UnknownHost { .. } | Closing)
        | SendError::OutcomeUnknown(LinkLost { .. } | NoReply)
        | SendError::Panicked { .. } => Err(format!("links only broke, and it failed: {error}")),
        SendError::NotDelivered(Expired) | SendError::OutcomeUnknown(TimedOut) if sent.limit.is_none() => {
            Err(format!("it had no time limit, and it failed: {error}"))
        }
        _ => Ok(()),
    }
}

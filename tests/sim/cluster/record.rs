//! Record of a run: operations of the drivers, their outcomes, and the guarantees that they violate.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use roadshow::internals::id::HostUid;
use roadshow::internals::session::DisconnectReason;
use roadshow::sim::{Journal, World};
use roadshow::{End as ActorEnd, NotDelivered, OutcomeUnknown, SendError};

use super::lives::Lives;
use super::script::Severity;

/// Number of an operation; numbers of one stream ascend.
pub(crate) type Op = u64;

/// Kind of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Spawn,
    Call,
    Tell,
    Retry,
    Task,
    Find,
    Kill,
    Fail,
    Watch,
}

/// Operation of a driver.
#[derive(Clone, Debug)]
struct Sent {
    kind: Kind,
    /// Number of the driver's run.
    driver: u64,
    /// Messages through one address, in order.
    stream: Option<u64>,
    /// Number of times that it may start.
    starts_max: u32,
    /// Set if a failure is no violation: the operation has a timeout, or its actor is stopped.
    may_fail: bool,
    started: u32,
    end: Option<End>,
}

/// Outcome of an operation for its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The expected answer.
    Answered,
    /// Sent one way; the sender gets no further outcome.
    Sent,
    /// The caller dropped its future.
    Dropped,
    /// Failed, and certainly not run.
    NotRun(String),
    /// Failed, and perhaps run.
    Unknown(String),
}

/// All operations of one run.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) journal: Journal,
    pub(crate) lives: Lives,
    severity: Severity,
    sent: RefCell<BTreeMap<Op, Sent>>,
    last: Cell<Op>,
    /// Last started operation of each stream at each incarnation of an actor.
    heads: RefCell<BTreeMap<(u64, u64), Op>>,
    /// Last operation that was sent before a stream was told of its actor's end.
    deaths: RefCell<BTreeMap<u64, Op>>,
    /// Streams to managed actors, whose addresses outlive the ends of incarnations.
    managed: RefCell<BTreeSet<u64>>,
}

impl Record {
    pub(crate) fn new(world: &Rc<World>, severity: Severity) -> Self {
        Self {
            journal: world.journal().clone(),
            lives: Lives::new(world, severity),
            severity,
            sent: RefCell::default(),
            last: Cell::new(0),
            heads: RefCell::default(),
            deaths: RefCell::default(),
            managed: RefCell::default(),
        }
    }

    pub(crate) fn note(&self, what: impl fmt::Display) {
        self.journal.note(what);
    }

    pub(crate) fn violation(&self, what: impl fmt::Display) {
        self.journal.violation(what);
    }

    /// Draws a number for a stream.
    pub(crate) fn number(&self) -> u64 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    /// Records an operation that is about to be sent.
    pub(crate) fn send(
        &self,
        kind: Kind,
        driver: u64,
        stream: Option<u64>,
        may_fail: bool,
        starts_max: u32,
    ) -> Op {
        let op = self.number();
        self.note(format_args!("{op} {kind:?} by {driver} in {stream:?}"));
        let sent = Sent { kind, driver, stream, starts_max, may_fail, started: 0, end: None };
        self.sent.borrow_mut().insert(op, sent);
        op
    }

    /// Allows an operation to fail, since its actor is being stopped.
    pub(crate) fn excuse_stream(&self, stream: u64) {
        let mut all = self.sent.borrow_mut();
        let of_stream = all.values_mut().filter(|sent| sent.stream == Some(stream));
        of_stream.for_each(|sent| sent.may_fail = true);
    }

    /// Allows the open operations of a driver to fail, since it ends.
    pub(crate) fn excuse_driver(&self, driver: u64) {
        self.lives.leave(driver);
        let mut all = self.sent.borrow_mut();
        let open = all.values_mut().filter(|sent| sent.driver == driver && sent.end.is_none());
        open.for_each(|sent| sent.may_fail = true);
    }

    /// Records the outcome of an operation.
    pub(crate) fn end(&self, op: Op, end: End) {
        self.note(format_args!("{op} {end:?}"));
        let mut all = self.sent.borrow_mut();
        let Some(sent) = all.get_mut(&op) else { return };
        let first = sent.end.replace(end);
        drop(all);
        if let Some(first) = first {
            self.violation(format_args!("{op} ended twice, first with {first:?}"));
        }
    }

    /// Records the outcome of a message.
    pub(crate) fn answer(&self, op: Op, answer: Result<Op, SendError>) {
        match answer {
            Ok(answer) => {
                self.end(op, End::Answered);
                if answer != op {
                    self.violation(format_args!("{op} got the answer of {answer}"));
                }
            }
            Err(error) => {
                let ended = self.stream_of(op).filter(|stream| !self.managed.borrow().contains(stream));
                if let (true, Some(stream)) = (reports_death(&error), ended) {
                    let last = self.last.get();
                    self.deaths.borrow_mut().entry(stream).or_insert(last);
                }
                // A silence of 3 s moves an actor, and an absence that ends nothing may last so long.
                let is_restart = matches!(error, SendError::OutcomeUnknown(OutcomeUnknown::Restarted));
                if let Some(sent) = self.sent.borrow_mut().get_mut(&op).filter(|_| is_restart) {
                    sent.may_fail |= self.severity > Severity::Calm;
                }
                self.end(op, of_send(&error));
            }
        }
    }

    /// Records the creation of an incarnation by an operation that spawns an actor.
    pub(crate) fn created(&self, op: Op, incarnation: u64, host: HostUid, parent: Option<u64>) {
        self.started(op, incarnation);
        if let Some(parent) = parent {
            self.note(format_args!("{incarnation} is a child of {parent}"));
        }
        self.lives.created(op, incarnation, host, parent);
    }

    /// Records that an incarnation runs.
    pub(crate) fn acts(&self, incarnation: u64) {
        if let Err(what) = self.lives.check_handles(incarnation) {
            self.violation(what);
        }
    }

    /// Records the end of an incarnation.
    pub(crate) fn dropped(&self, incarnation: u64) {
        self.note(format_args!("{incarnation} ended"));
        self.lives.dropped(incarnation);
    }

    /// Records the outcome of the watch of an actor.
    pub(crate) fn watch_resolved(&self, op: Op, actor: Op, end: &ActorEnd) {
        self.note(format_args!("{op} learns the end of {actor}, {:?}: {end}", end.reason));
        self.end(op, End::Answered);
        if let Err(what) = self.lives.check_end(actor, end) {
            self.violation(format_args!("{op} {what}"));
        }
    }

    /// Checks whether an operation has no outcome yet.
    pub(crate) fn is_open(&self, op: Op) -> bool {
        self.sent.borrow().get(&op).is_some_and(|sent| sent.end.is_none())
    }

    fn stream_of(&self, op: Op) -> Option<u64> {
        self.sent.borrow().get(&op)?.stream
    }

    /// Records the start of a handler, of a constructor or of a task.
    pub(crate) fn started(&self, op: Op, incarnation: u64) {
        self.note(format_args!("{op} started at {incarnation}"));
        let mut all = self.sent.borrow_mut();
        let Some(sent) = all.get_mut(&op) else { return };
        sent.started += 1;
        let (started, starts_max, stream, kind) = (sent.started, sent.starts_max, sent.stream, sent.kind);
        drop(all);
        if started > starts_max {
            self.violation(format_args!("{op} {kind:?} started {started} times"));
        }
        if let Err(what) = self.lives.check_handles(incarnation) {
            self.violation(format_args!("{op}: {what}"));
        }
        let Some(stream) = stream else { return };
        if self.deaths.borrow().get(&stream).is_some_and(|last| op > *last) {
            self.violation(format_args!("{op} was handled by an actor whose end had been reported"));
        }
        // A retried call gives up its place in the order.
        if kind != Kind::Retry {
            let before = self.heads.borrow_mut().insert((incarnation, stream), op).unwrap_or(0);
            if before > op {
                self.violation(format_args!("{op} was started after {before} of its stream"));
            }
        }
    }

    /// Marks a stream as one to a managed actor.
    pub(crate) fn is_managed(&self, stream: u64) {
        self.managed.borrow_mut().insert(stream);
    }

    /// Operations without an outcome. Those of killed drivers fail, too: in this process they are still awaited.
    pub(crate) fn open(&self) -> Vec<(Op, Kind)> {
        let all = self.sent.borrow();
        let open = all.iter().filter(|(_, sent)| sent.end.is_none());
        open.map(|(op, sent)| (*op, sent.kind)).collect()
    }

    /// Checks every operation, after all have ended.
    pub(crate) fn check_all(&self) {
        let all = self.sent.borrow().clone();
        for (op, sent) in &all {
            if let Err(what) = self.check_one(sent) {
                self.violation(format_args!("{op} {:?} by {}: {what}", sent.kind, sent.driver));
            }
        }
    }

    fn check_one(&self, sent: &Sent) -> Result<(), String> {
        let runs = !matches!(sent.kind, Kind::Find | Kind::Kill | Kind::Watch);
        match &sent.end {
            Some(End::Answered) if runs && sent.started == 0 => Err("answered, and never started".to_owned()),
            // Of a task, an attempt before the last may have run.
            Some(End::NotRun(why)) if sent.started > 0 && sent.kind != Kind::Task => {
                Err(format!("failed without an effect ({why}), but started"))
            }
            Some(End::NotRun(why) | End::Unknown(why))
                if self.severity <= Severity::Breaks && !sent.may_fail =>
            {
                Err(format!("nothing ended, but it failed: {why}"))
            }
            _ => Ok(()),
        }
    }
}

/// Checks whether an error says that the actor or its host has ended.
fn reports_death(error: &SendError) -> bool {
    let is_down = |reason: &DisconnectReason| matches!(reason, DisconnectReason::HostDown(_));
    match error {
        SendError::NotDelivered(NotDelivered::ActorStopped | NotDelivered::NoSuchActor) => true,
        SendError::NotDelivered(NotDelivered::Unreachable { reason, .. })
        | SendError::OutcomeUnknown(OutcomeUnknown::SessionLost { reason, .. }) => is_down(reason),
        _ => false,
    }
}

pub(crate) fn of_send(error: &SendError) -> End {
    match error {
        SendError::NotDelivered(reason) => End::NotRun(reason.to_string()),
        other => End::Unknown(other.to_string()),
    }
}

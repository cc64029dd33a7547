//! What was sent, what became of it, and what that says about the promises.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use roadshow::{NotDelivered, OutcomeUnknown, Payload, SendError};
use tokio::time::Instant;

/// The number of a message; messages of one stream have rising numbers.
pub(crate) type Op = u64;

/// What one sender sends to one actor: the stream, and the life of the actor's host.
pub(crate) type Stream = (u64, u64);

/// How a message was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Tell,
    DoSend,
    TrySend,
    Send,
    Retry,
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
    pub(crate) end: Option<End>,
    begun: u32,
}

/// What the sender learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing, and it was to learn nothing.
    Sent,
    Answered(Op),
    /// It lost interest.
    Dropped,
    Failed(SendError),
}

/// All that happened.
#[derive(Debug)]
pub(crate) struct Record {
    since: Instant,
    sent: RefCell<BTreeMap<Op, Sent>>,
    last: Cell<Op>,
    /// The last message of each stream that was begun.
    heads: RefCell<BTreeMap<Stream, Op>>,
    violations: RefCell<Vec<String>>,
    log: RefCell<Vec<String>>,
    /// Hosts that refused connections, or died: sessions with them may have ended.
    disturbed: RefCell<Vec<bool>>,
}

/// What a payload of that message and length holds.
pub(crate) fn content(op: Op, bytes: usize) -> Payload {
    Payload::from((0..bytes).map(|at| (op as usize + at) as u8).collect::<Vec<_>>())
}

impl Record {
    pub(crate) fn new(hosts: usize) -> Self {
        Self {
            since: Instant::now(),
            sent: RefCell::default(),
            last: Cell::new(0),
            heads: RefCell::default(),
            violations: RefCell::default(),
            log: RefCell::default(),
            disturbed: RefCell::new(vec![false; hosts]),
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

    /// Sessions with this host may end from here on.
    pub(crate) fn disturb(&self, host: usize) {
        self.disturbed.borrow_mut()[host] = true;
    }

    fn is_disturbed(&self, sent: &Sent) -> bool {
        let disturbed = self.disturbed.borrow();
        disturbed[sent.from] || disturbed[sent.to]
    }

    /// A message is about to be sent.
    pub(crate) fn send(&self, way: Way, from: usize, to: usize, stream: Option<Stream>) -> Op {
        let op = self.last.get() + 1;
        self.last.set(op);
        self.note(format_args!("{op} {way:?} {from}->{to}"));
        self.sent.borrow_mut().insert(op, Sent { way, from, to, stream, end: None, begun: 0 });
        op
    }

    /// The sender learned this.
    pub(crate) fn end(&self, op: Op, end: End) {
        match &end {
            // Host numbers are in the text of some errors, and the same in every run.
            End::Failed(error) => self.note(format_args!("{op} failed: {error}")),
            other => self.note(format_args!("{op} {other:?}")),
        }
        let twice = self.sent.borrow_mut().get_mut(&op).and_then(|sent| sent.end.replace(end));
        if let Some(first) = twice {
            self.violation(format_args!("{op} ended twice, first with {first:?}"));
        }
    }

    /// A handler began.
    pub(crate) fn begun(&self, op: Op, payload: &Payload) {
        self.note(format_args!("{op} begun"));
        if *payload != content(op, payload.len()) {
            self.violation(format_args!("{op} came with other content"));
        }
        let mut all = self.sent.borrow_mut();
        let Some(sent) = all.get_mut(&op) else { return };
        sent.begun += 1;
        let (begun, stream) = (sent.begun, sent.stream);
        drop(all);
        if begun > 1 {
            self.violation(format_args!("{op} was begun {begun} times"));
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
        let one_way = |sent: &&Sent| sent.end == Some(End::Sent) && sent.begun == 0;
        let one_way = all.values().filter(one_way).count() as u64;
        if !self.disturbed.borrow().contains(&true) && one_way != dead_letters {
            self.violation(format_args!("{one_way} messages were lost, and {dead_letters} are counted"));
        }
    }

    fn judge_one(&self, op: Op, sent: &Sent) -> Result<(), String> {
        let begun = sent.begun > 0;
        match &sent.end {
            None => Err("it has no end".into()),
            Some(End::Answered(answer)) if *answer != op => Err(format!("the answer of {answer}")),
            Some(End::Answered(_)) if !begun => Err("answered, and never begun".into()),
            Some(End::Sent) if sent.way == Way::Tell && !begun && !self.is_disturbed(sent) => {
                Err("accepted, and never begun".into())
            }
            Some(End::Failed(SendError::NotDelivered(why))) if begun => {
                Err(format!("not delivered ({why}), and begun"))
            }
            Some(End::Failed(error)) if !self.is_disturbed(sent) && ended_by_its_session(error) => {
                Err(format!("links only broke, and it failed: {error}"))
            }
            Some(_) => Ok(()),
        }
    }

    pub(crate) fn into_parts(self) -> (Vec<String>, Vec<String>) {
        (self.log.into_inner(), self.violations.into_inner())
    }
}

/// Whether the message failed because a session ended.
fn ended_by_its_session(error: &SendError) -> bool {
    matches!(
        error,
        SendError::NotDelivered(NotDelivered::Unreachable { .. } | NotDelivered::Closing)
            | SendError::OutcomeUnknown(OutcomeUnknown::LinkLost { .. } | OutcomeUnknown::NoReply)
            | SendError::Panicked { .. }
    )
}

//! Actors and task of the simulation; each records the start of its handlers.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::{Rc, Weak};
use std::time::Duration;

use roadshow::prelude::*;

use super::record::{Op, Record, content};

thread_local! {
    /// Record of the run on this thread, for actors and tasks that are created without one.
    static RECORD: RefCell<Weak<Record>> = const { RefCell::new(Weak::new()) };
}

/// Makes `record` the one in which spawned actors and tasks of this thread record.
pub(crate) fn set_record(record: &Rc<Record>) {
    RECORD.set(Rc::downgrade(record));
}

fn record() -> Rc<Record> {
    RECORD.with_borrow(Weak::upgrade).expect("a run is active")
}

/// Records each message when its handler starts.
#[derive(RemoteActor)]
#[remote(handles(Note, Entry, Letter, Errand))]
pub(crate) struct Ledger {
    record: Rc<Record>,
    /// Pauses the actor and its mailbox after each message.
    slow: bool,
}

impl Ledger {
    pub(crate) fn new(record: &Rc<Record>, slow: bool) -> Self {
        Self { record: Rc::clone(record), slow }
    }

    fn pause(&self, pause_ms: u64, ctx: &mut Context<Self>) {
        if self.slow {
            // A pause makes messages wait at their senders, so that windows and queues fill.
            let pause = tokio::time::sleep(Duration::from_millis(pause_ms));
            ctx.wait(actix::fut::wrap_future(pause));
        }
    }
}

impl Actor for Ledger {
    type Context = Context<Self>;
}

impl Spawn for Ledger {
    /// Number of the spawn, whether the actor is slow, and padding.
    type Args = (Op, bool, Payload);
    type Error = Infallible;

    fn spawn((op, slow, padding): Self::Args, _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        let record = record();
        record.started(op, padding == content(op, padding.len()));
        Ok(Self { record, slow })
    }
}

/// Message of a few bytes.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Op")]
pub(crate) struct Note(pub(crate) Op);

/// Message with a payload, handled synchronously.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Op")]
pub(crate) struct Entry {
    pub(crate) op: Op,
    pub(crate) pause_ms: u64,
    pub(crate) content: Payload,
}

/// Message without a payload, of varied shapes.
#[derive(PartialEq, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Op")]
pub(crate) struct Letter {
    op: Op,
    bytes: usize,
    text: String,
    pages: Vec<(u16, Option<i64>)>,
    shape: Shape,
}

/// Recursive value.
#[derive(PartialEq, RemoteData, Serialize, Deserialize)]
pub(crate) enum Shape {
    Dot,
    Ring(Box<Self>),
    Row(Vec<Self>),
    Named { name: String, inner: Option<Box<Self>> },
}

/// Message that is answered by a future.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Op")]
pub(crate) struct Errand {
    pub(crate) op: Op,
    pub(crate) takes_ms: u64,
    pub(crate) content: Payload,
}

impl Letter {
    /// Creates the letter with this number, of about `bytes` bytes.
    pub(crate) fn new(op: Op, bytes: usize) -> Self {
        let pages = (0..bytes as u64 / 32).map(|page| (page as u16, (page % 3 > 0).then_some(op as i64)));
        // Derived from the number, so that the receiver can build the same value and compare.
        let shape = (0..op % 12).fold(Shape::Dot, |inner, level| match level % 3 {
            0 => Shape::Ring(Box::new(inner)),
            1 => Shape::Row(vec![Shape::Dot, inner]),
            _ => Shape::Named { name: level.to_string(), inner: Some(Box::new(inner)) },
        });
        Self { op, bytes, text: "letter ".repeat(bytes / 14), pages: pages.collect(), shape }
    }

    fn is_intact(&self) -> bool {
        *self == Self::new(self.op, self.bytes)
    }
}

impl Handler<Note> for Ledger {
    type Result = MessageResult<Note>;

    fn handle(&mut self, Note(op): Note, ctx: &mut Context<Self>) -> MessageResult<Note> {
        self.record.started(op, true);
        self.pause(op % 8, ctx);
        MessageResult(op)
    }
}

impl Handler<Entry> for Ledger {
    type Result = MessageResult<Entry>;

    fn handle(&mut self, entry: Entry, ctx: &mut Context<Self>) -> MessageResult<Entry> {
        self.record.started(entry.op, entry.content == content(entry.op, entry.content.len()));
        self.pause(entry.pause_ms, ctx);
        MessageResult(entry.op)
    }
}

impl Handler<Letter> for Ledger {
    type Result = MessageResult<Letter>;

    fn handle(&mut self, letter: Letter, ctx: &mut Context<Self>) -> MessageResult<Letter> {
        self.record.started(letter.op, letter.is_intact());
        self.pause(letter.op % 16, ctx);
        MessageResult(letter.op)
    }
}

impl Handler<Errand> for Ledger {
    type Result = ResponseFuture<Op>;

    fn handle(&mut self, errand: Errand, _: &mut Context<Self>) -> ResponseFuture<Op> {
        self.record.started(errand.op, errand.content == content(errand.op, errand.content.len()));
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(errand.takes_ms)).await;
            errand.op
        })
    }
}

/// Task that records its start.
#[roadshow::task]
pub(crate) fn chore(op: Op, padding: Payload) -> Op {
    record().started(op, padding == content(op, padding.len()));
    op
}

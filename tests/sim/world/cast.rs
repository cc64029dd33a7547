//! The actors and the task of the simulation: they note what they begin to handle.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::{Rc, Weak};
use std::time::Duration;

use roadshow::prelude::*;

use super::record::{Op, Record, content};

thread_local! {
    /// The record of the run on this thread, for what comes to life without one.
    static RECORD: RefCell<Weak<Record>> = const { RefCell::new(Weak::new()) };
}

/// Makes `record` the one that spawned actors and tasks of this thread note in.
pub(crate) fn note_in(record: &Rc<Record>) {
    RECORD.set(Rc::downgrade(record));
}

fn record() -> Rc<Record> {
    RECORD.with_borrow(Weak::upgrade).expect("a run is under way")
}

/// Notes each message as it begins to handle it.
#[derive(RemoteActor)]
#[remote(handles(Note, Entry, Letter, Errand))]
pub(crate) struct Ledger {
    record: Rc<Record>,
    /// Rests after each message, and handles nothing meanwhile.
    slow: bool,
}

impl Ledger {
    pub(crate) fn new(record: &Rc<Record>, slow: bool) -> Self {
        Self { record: Rc::clone(record), slow }
    }

    fn rest(&self, rest_ms: u64, ctx: &mut Context<Self>) {
        if self.slow {
            let rest = tokio::time::sleep(Duration::from_millis(rest_ms));
            ctx.wait(actix::fut::wrap_future(rest));
        }
    }
}

impl Actor for Ledger {
    type Context = Context<Self>;
}

impl Spawn for Ledger {
    /// The number of its spawn, whether it is slow, and ballast.
    type Args = (Op, bool, Payload);
    type Error = Infallible;

    fn spawn((op, slow, ballast): Self::Args, _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        let record = record();
        record.begun(op, ballast == content(op, ballast.len()));
        Ok(Self { record, slow })
    }
}

/// A message of a few bytes.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Op")]
pub(crate) struct Note(pub(crate) Op);

/// A message with a payload, handled at once.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Op")]
pub(crate) struct Entry {
    pub(crate) op: Op,
    pub(crate) rest_ms: u64,
    pub(crate) content: Payload,
}

/// A message without a payload, of many shapes.
#[derive(PartialEq, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Op")]
pub(crate) struct Letter {
    op: Op,
    bytes: usize,
    text: String,
    pages: Vec<(u16, Option<i64>)>,
    shape: Shape,
}

/// A value that holds itself.
#[derive(PartialEq, RemoteData, Serialize, Deserialize)]
pub(crate) enum Shape {
    Dot,
    Ring(Box<Self>),
    Row(Vec<Self>),
    Named { name: String, inner: Option<Box<Self>> },
}

/// An entry that is answered by a future.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Op")]
pub(crate) struct Errand {
    pub(crate) op: Op,
    pub(crate) takes_ms: u64,
    pub(crate) content: Payload,
}

impl Letter {
    /// The letter of that number, which has about so many bytes.
    pub(crate) fn new(op: Op, bytes: usize) -> Self {
        let pages = (0..bytes as u64 / 32).map(|page| (page as u16, (page % 3 > 0).then_some(op as i64)));
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
        self.record.begun(op, true);
        self.rest(op % 8, ctx);
        MessageResult(op)
    }
}

impl Handler<Entry> for Ledger {
    type Result = MessageResult<Entry>;

    fn handle(&mut self, entry: Entry, ctx: &mut Context<Self>) -> MessageResult<Entry> {
        self.record.begun(entry.op, entry.content == content(entry.op, entry.content.len()));
        self.rest(entry.rest_ms, ctx);
        MessageResult(entry.op)
    }
}

impl Handler<Letter> for Ledger {
    type Result = MessageResult<Letter>;

    fn handle(&mut self, letter: Letter, ctx: &mut Context<Self>) -> MessageResult<Letter> {
        self.record.begun(letter.op, letter.is_intact());
        self.rest(letter.op % 16, ctx);
        MessageResult(letter.op)
    }
}

impl Handler<Errand> for Ledger {
    type Result = ResponseFuture<Op>;

    fn handle(&mut self, errand: Errand, _: &mut Context<Self>) -> ResponseFuture<Op> {
        self.record.begun(errand.op, errand.content == content(errand.op, errand.content.len()));
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(errand.takes_ms)).await;
            errand.op
        })
    }
}

/// A task that is noted as it begins.
#[roadshow::task]
pub(crate) fn chore(op: Op, ballast: Payload) -> Op {
    record().begun(op, ballast == content(op, ballast.len()));
    op
}

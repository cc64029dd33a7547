//! Actors and tasks of the workload. They log what they handle.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::{Rc, Weak};
use std::time::Duration;

use roadshow::internals::id::HostUid;
use roadshow::prelude::*;
use roadshow::sim::World;

use super::record::{Op, Record};

thread_local! {
    /// Run on this thread, for actors and tasks, which the library creates.
    static RUN: RefCell<(Weak<World>, Weak<Record>)> = const { RefCell::new((Weak::new(), Weak::new())) };
}

/// Makes this the run in which actors and tasks of this thread log.
pub(crate) fn set_run(world: &Rc<World>, record: &Rc<Record>) {
    RUN.set((Rc::downgrade(world), Rc::downgrade(record)));
}

/// Record of the run, unless the process of this host has ended: a killed one handles nothing more.
fn record_at(host: Option<HostUid>) -> Option<Rc<Record>> {
    RUN.with_borrow(|(world, record)| {
        let world = world.upgrade()?;
        let runs = host.is_none_or(|host| world.is_running(host));
        if runs { record.upgrade() } else { None }
    })
}

/// Logs each message that it handles.
#[derive(RemoteActor)]
#[remote(handles(Note, Errand))]
pub(crate) struct Counter {
    /// Number of its incarnation, drawn when it is created.
    incarnation: u64,
    host: HostUid,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Spawn for Counter {
    type Args = Op;
    type Error = Infallible;

    fn spawn(number: Op, at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        let host = at.address().host();
        let mut incarnation = 0;
        if let Some(record) = record_at(Some(host)) {
            incarnation = record.number();
            record.started(number, incarnation);
        }
        Ok(Self { incarnation, host })
    }
}

impl Counter {
    fn log_start(&self, op: Op) {
        if let Some(record) = record_at(Some(self.host)) {
            record.started(op, self.incarnation);
        }
    }
}

/// Message that is answered immediately.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Op")]
pub(crate) struct Note(pub(crate) Op);

impl Handler<Note> for Counter {
    type Result = MessageResult<Note>;

    fn handle(&mut self, Note(op): Note, _: &mut Context<Self>) -> MessageResult<Note> {
        self.log_start(op);
        MessageResult(op)
    }
}

/// Message that is answered by a future.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Op")]
pub(crate) struct Errand {
    pub(crate) op: Op,
    pub(crate) takes_ms: u64,
}

impl Handler<Errand> for Counter {
    type Result = ResponseFuture<Op>;

    fn handle(&mut self, Errand { op, takes_ms }: Errand, _: &mut Context<Self>) -> ResponseFuture<Op> {
        self.log_start(op);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(takes_ms)).await;
            op
        })
    }
}

/// Task with a result that shows which arguments it got.
#[roadshow::task]
pub(crate) fn triple(op: Op) -> Op {
    if let Some(record) = record_at(None) {
        record.started(op, 0);
    }
    3 * op
}

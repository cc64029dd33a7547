//! Actors and tasks of the workload. They log what they handle.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::{Rc, Weak};
use std::time::Duration;

use roadshow::internals::id::HostUid;
use roadshow::prelude::*;
use roadshow::sim::World;
use roadshow::{ClusterRef, Supervision};

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
#[remote(handles(Note, Errand, Fail, Bear))]
pub(crate) struct Counter {
    /// Number of its incarnation, drawn when it is created.
    incarnation: u64,
    host: HostUid,
    /// Its cluster and its address, if it spawns children.
    family: Option<(ClusterRef, RemoteAddr<Self>)>,
    is_exclusive: bool,
}

/// Arguments of a counter.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Seed {
    op: Op,
    /// Incarnation that spawns it as a child.
    parent: Option<u64>,
    is_parent: bool,
    is_exclusive: bool,
}

impl Seed {
    pub(crate) fn of(op: Op) -> Self {
        Self { op, parent: None, is_parent: false, is_exclusive: false }
    }

    pub(crate) fn parent(op: Op) -> Self {
        Self { is_parent: true, ..Self::of(op) }
    }

    pub(crate) fn exclusive(op: Op) -> Self {
        Self { is_exclusive: true, ..Self::of(op) }
    }
}

/// Failures of a member of a tree after which it goes on.
pub(crate) const FAILURES_MAX: u32 = 3;

/// Policy of the members of trees: a short back-off, so that runs reach many restarts.
pub(crate) fn policy() -> Restart {
    Restart::on_failure().at_most(FAILURES_MAX).backoff(Duration::from_millis(10)..Duration::from_millis(200))
}

/// Interval in which an exclusive actor acts by itself.
const ACTS_EVERY: Duration = Duration::from_millis(250);

impl Actor for Counter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if self.is_exclusive {
            ctx.run_interval(ACTS_EVERY, |actor, _| {
                if let Some(record) = record_at(Some(actor.host)) {
                    record.acts(actor.incarnation);
                }
            });
        }
    }
}

impl Spawn for Counter {
    type Args = Seed;
    type Error = Infallible;

    fn spawn(seed: Seed, at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        let host = at.address().host();
        let mut incarnation = 0;
        if let Some(record) = record_at(Some(host)) {
            incarnation = record.number();
            record.created(seed.op, incarnation, host, seed.parent);
        }
        let family = seed.is_parent.then(|| (at.cluster().clone(), at.address()));
        Ok(Self { incarnation, host, family, is_exclusive: seed.is_exclusive })
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // The actors of a killed process are dropped in this one.
        if let Some(record) = record_at(Some(self.host)) {
            record.dropped(self.incarnation);
        }
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

/// Message that makes its handler panic.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Op")]
pub(crate) struct Fail(pub(crate) Op);

impl Handler<Fail> for Counter {
    type Result = MessageResult<Fail>;

    fn handle(&mut self, Fail(op): Fail, _: &mut Context<Self>) -> MessageResult<Fail> {
        self.log_start(op);
        // Not `panic!`, which prints each one.
        std::panic::resume_unwind(Box::new("asked to fail"))
    }
}

/// Message that makes a parent spawn a child.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<RemoteAddr<Counter>, String>")]
pub(crate) struct Bear {
    pub(crate) op: Op,
    /// Operation that spawns the child.
    pub(crate) child: Op,
}

impl Handler<Bear> for Counter {
    type Result = ResponseFuture<Result<RemoteAddr<Self>, String>>;

    fn handle(&mut self, Bear { op, child }: Bear, _: &mut Context<Self>) -> Self::Result {
        self.log_start(op);
        let (family, parent) = (self.family.clone(), Some(self.incarnation));
        Box::pin(async move {
            let Some((cluster, address)) = family else { return Err("it is no parent".to_owned()) };
            let seed = Seed { parent, ..Seed::of(child) };
            let request = cluster.spawn::<Self>(seed).restart(policy()).child_of(&address);
            request.await.map_err(|error| error.to_string())
        })
    }
}

/// Strategy of all parents.
pub(crate) const SUPERVISION: Supervision = Supervision::OneForAll;

/// Task with a result that shows which arguments it got.
#[roadshow::task]
pub(crate) fn triple(op: Op) -> Op {
    if let Some(record) = record_at(None) {
        record.started(op, 0);
    }
    3 * op
}

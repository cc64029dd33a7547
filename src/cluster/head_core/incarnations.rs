//! Starts and stops of incarnations, and removals of states, each sent once the records before it are durable.
//!
//! If the head and the worker ended between a start and its record, the restarted head would give the same number to
//! another incarnation. If the head ended between the stop of an incarnation that is replaced and the record of the
//! next one, the restarted head would take the stop for the end of the actor. If it ended between the removal of a state
//! and the record of its actor's end, the restarted head would restart an actor whose state is gone. No other command
//! waits: a spawn of a plain actor has no record, and a kill is final.
//!
//! ```text
//!   Action::StartActor, --> held --> flushed() --> still wanted? --> Outbox
//!   StopIncarnation,         ^           | the disk takes no writes
//!   RemoveState              '-----------'
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::HeadCore;
use crate::background;
use crate::cluster::control_plane::state::ControlEvent;
use crate::cluster::model::{ActorKey, ActorLocation, NodeId, WorkerId};
use crate::cluster::protocol::AgentCommand;
use crate::config::InjectedBug;
use crate::spec::{Recipe, StateKey};

/// Pause before the disk is tried again. The store retries once a second.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Start of an incarnation, as the state has commanded it.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub(super) node: NodeId,
    pub(super) worker: WorkerId,
    pub(super) actor: ActorKey,
    pub(super) at: ActorLocation,
    pub(super) recipe: Arc<Recipe>,
    /// Start of the node's lease, of an exclusive actor.
    pub(super) lease: Option<u64>,
}

/// Stop of an incarnation that its actor has left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stop {
    pub(super) node: NodeId,
    pub(super) worker: WorkerId,
    pub(super) at: ActorLocation,
}

/// Commands that wait for the disk.
#[derive(Debug, Default)]
pub(super) struct HeldCommands {
    batch: Batch,
    /// True while a task waits for the disk.
    is_flushing: bool,
}

#[derive(Debug, Default)]
struct Batch {
    /// The latest of each actor, so there are no more than managed actors.
    starts: BTreeMap<ActorKey, Start>,
    /// No more than incarnations that were started.
    stops: BTreeSet<Stop>,
    /// No more than copies of the states of actors that have ended.
    removals: BTreeSet<(NodeId, StateKey)>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.starts.is_empty() && self.stops.is_empty() && self.removals.is_empty()
    }
}

impl HeadCore {
    /// Sends a start once all writes so far are durable.
    pub(super) fn start_when_durable(self: &Arc<Self>, start: Start) {
        // Read from the host: the caller holds the lock of the state.
        if self.host.limits().injected_bug == Some(InjectedBug::UnflushedStart) {
            return self.send_start(&start);
        }
        self.hold(|batch| drop(batch.starts.insert(start.actor, start)));
    }

    /// Sends a stop once all writes so far are durable.
    pub(super) fn stop_when_durable(self: &Arc<Self>, stop: Stop) {
        self.hold(|batch| {
            batch.stops.insert(stop);
        });
    }

    /// Sends the removal of a state once all writes so far are durable.
    pub(super) fn remove_when_durable(self: &Arc<Self>, key: StateKey, nodes: &[NodeId]) {
        self.hold(|batch| batch.removals.extend(nodes.iter().map(|node| (*node, key))));
    }

    fn hold(self: &Arc<Self>, add: impl FnOnce(&mut Batch)) {
        let mut held = self.held();
        add(&mut held.batch);
        if !std::mem::replace(&mut held.is_flushing, true) {
            background::spawn_on(self.host.io(), send_durable(Arc::downgrade(self)));
        }
    }

    fn held(&self) -> MutexGuard<'_, HeldCommands> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the commands that wait; `None`, and the task ends, if there are none.
    fn take_batch(&self) -> Option<Batch> {
        let mut held = self.held();
        held.is_flushing = !held.batch.is_empty();
        held.is_flushing.then(|| std::mem::take(&mut held.batch))
    }

    /// Returns commands whose records are not durable. A later start of the same actor replaces it.
    fn return_batch(&self, batch: Batch) {
        let mut held = self.held();
        for (actor, start) in batch.starts {
            held.batch.starts.entry(actor).or_insert(start);
        }
        held.batch.stops.extend(batch.stops);
        held.batch.removals.extend(batch.removals);
    }

    /// Refuses the requests for actors that would be created for the first time: their callers need not wait.
    fn refuse_first(&self, batch: &Batch, why: &str) {
        for start in batch.starts.values() {
            let (actor, at, why) = (start.actor, start.at, why.to_owned());
            self.control.apply(ControlEvent::StartNotPersisted { actor, at, why });
        }
    }

    /// Sends the stops and removals, and the starts that are still wanted: the actor may have been killed, or have lost
    /// its worker, meanwhile.
    fn send_batch(&self, batch: &Batch) {
        // Under the lock of the state, as all commands: a stop of the actor is not overtaken by its start.
        self.control.read(|state| {
            batch.stops.iter().for_each(|stop| self.send_stop(*stop));
            for (node, key) in &batch.removals {
                self.send_command(*node, AgentCommand::RemoveState { key: *key });
            }
            let wanted = batch.starts.values().filter(|it| state.awaits_start(it.actor, it.worker, it.at));
            wanted.for_each(|start| self.send_start(start));
        });
    }

    fn send_start(&self, start: &Start) {
        let (worker, at, recipe) = (start.worker, start.at, (*start.recipe).clone());
        self.send_command(start.node, AgentCommand::StartActor { worker, at, recipe, lease: start.lease });
    }

    fn send_stop(&self, Stop { node, worker, at }: Stop) {
        self.send_command(node, AgentCommand::StopActor { worker, at });
    }
}

/// Sends the commands that wait, each behind a write of all records before it, until none waits or the head ends.
async fn send_durable(core: Weak<HeadCore>) {
    while let Some((batch, flushed)) =
        core.upgrade().and_then(|core| Some((core.take_batch()?, (core.flushed)())))
    {
        let flushed = flushed.await;
        let Some(core) = core.upgrade() else { return };
        match flushed {
            Ok(()) => core.send_batch(&batch),
            Err(why) => {
                core.refuse_first(&batch, &why);
                core.return_batch(batch);
                drop(core);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

//! Starts of managed actors, each sent once the record of its incarnation is durable.
//!
//! If the head and the worker ended between a start and its record, the restarted head would give the same number to
//! another incarnation. No other command waits: a spawn of a plain actor has no record.
//!
//! ```text
//!   Action::StartActor --> waiting --> flushed() --> still wanted? --> Outbox
//!                             ^            | the disk takes no writes
//!                             '------------'
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::HeadCore;
use crate::background;
use crate::cluster::model::{ActorKey, ActorLocation, NodeId, WorkerId};
use crate::cluster::protocol::AgentCommand;
use crate::config::InjectedBug;
use crate::spec::Recipe;

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
}

/// Starts that wait for the disk: the latest of each actor, so there are no more than managed actors.
#[derive(Debug, Default)]
pub(super) struct Starts {
    waiting: BTreeMap<ActorKey, Start>,
    /// True while a task waits for the disk.
    is_flushing: bool,
}

impl HeadCore {
    /// Sends a start once all writes so far are durable.
    pub(super) fn start_when_durable(self: &Arc<Self>, start: Start) {
        // Read from the host: the caller holds the lock of the state.
        if self.host.limits().injected_bug == Some(InjectedBug::UnflushedStart) {
            return self.send_start(&start);
        }
        let mut starts = self.starts();
        starts.waiting.insert(start.actor, start);
        if !std::mem::replace(&mut starts.is_flushing, true) {
            background::spawn_on(self.host.io(), send_durable(Arc::downgrade(self)));
        }
    }

    fn starts(&self) -> MutexGuard<'_, Starts> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the starts that wait; `None`, and the task ends, if there are none.
    fn take_starts(&self) -> Option<BTreeMap<ActorKey, Start>> {
        let mut starts = self.starts();
        starts.is_flushing = !starts.waiting.is_empty();
        starts.is_flushing.then(|| std::mem::take(&mut starts.waiting))
    }

    /// Returns starts whose records are not durable. A later one of the same actor replaces it.
    fn return_starts(&self, batch: BTreeMap<ActorKey, Start>) {
        let mut starts = self.starts();
        for (actor, start) in batch {
            starts.waiting.entry(actor).or_insert(start);
        }
    }

    /// Sends those that are still wanted: the actor may have been killed, or have lost its worker, meanwhile.
    fn send_starts(&self, batch: &BTreeMap<ActorKey, Start>) {
        // Under the lock of the state, as all commands: a stop of the actor is not overtaken by its start.
        self.control.read(|state| {
            let wanted = batch.values().filter(|it| state.awaits_start(it.actor, it.worker, it.at));
            wanted.for_each(|start| self.send_start(start));
        });
    }

    fn send_start(&self, start: &Start) {
        let (worker, at, recipe) = (start.worker, start.at, (*start.recipe).clone());
        self.send_command(start.node, AgentCommand::StartActor { worker, at, recipe });
    }
}

/// Sends the starts that wait, each behind a write of all records before it, until none waits or the head ends.
async fn send_durable(core: Weak<HeadCore>) {
    while let Some((batch, flushed)) =
        core.upgrade().and_then(|core| Some((core.take_starts()?, (core.flushed)())))
    {
        let flushed = flushed.await;
        let Some(core) = core.upgrade() else { return };
        match flushed {
            Ok(()) => core.send_starts(&batch),
            Err(_) => {
                core.return_starts(batch);
                drop(core);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

//! Placement of the simulation: each actor and each task is placed where its sender has chosen.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use roadshow::internals::host::{Assignment, Host, Placement, PlacementResult, TaskSlot};
use roadshow::internals::id::HostUid;
use roadshow::internals::spec::ActorSpec;

/// Placement that uses the host chosen last.
#[derive(Debug)]
pub(crate) struct Chosen {
    host: Mutex<HostUid>,
    taken: Arc<AtomicUsize>,
}

impl Chosen {
    pub(crate) fn new(host: HostUid) -> Self {
        Self { host: Mutex::new(host), taken: Arc::default() }
    }

    /// Chooses a host for the next placement. The request has to be polled next, before another sender
    /// chooses.
    pub(crate) fn choose(&self, host: HostUid) {
        // The run has one thread, so a lock is never contended; the trait requires `Sync`.
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = host;
    }

    fn host(&self) -> HostUid {
        *self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Placement for Chosen {
    fn place_actor(&self, _: &Host, _: &'static str, _: Option<&ActorSpec>) -> PlacementResult {
        PlacementResult::Now(Ok(Assignment { host: self.host(), actor: None, alive: None }))
    }

    fn place_task(&self, _avoided: &[HostUid]) -> Option<TaskSlot> {
        Some(TaskSlot::take(self.host(), Arc::clone(&self.taken)))
    }

    fn task_hosts(&self) -> usize {
        1
    }
}

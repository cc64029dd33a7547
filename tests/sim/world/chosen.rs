//! The placement of the simulation: each actor and each task goes where its sender has chosen.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use roadshow::internals::host::{Assignment, Host, Placement, PlacementResult, TaskSlot};
use roadshow::internals::id::HostUid;
use roadshow::internals::spec::ActorSpec;

/// The host that the next actor or task goes to.
#[derive(Debug)]
pub(crate) struct Chosen {
    host: Mutex<HostUid>,
    taken: Arc<AtomicUsize>,
}

impl Chosen {
    pub(crate) fn new(host: HostUid) -> Self {
        Self { host: Mutex::new(host), taken: Arc::default() }
    }

    /// Chooses a host; it stands until something is placed, so what is placed is to be polled next.
    pub(crate) fn choose(&self, host: HostUid) {
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

    fn place_task(&self) -> Option<TaskSlot> {
        Some(TaskSlot::take(self.host(), Arc::clone(&self.taken)))
    }

    fn task_hosts(&self) -> usize {
        1
    }
}

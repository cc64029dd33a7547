//! Holder of the states of durable actors: a service that keeps records and snapshots, and refuses earlier
//! configurations.
//!
//! It knows nothing of what the records mean. Each agent has one. A local cluster has one in the driver's process, on a
//! host of its own on the I/O thread: neither the driver's own code nor its messages delay it.

mod log;
mod memory;

use crate::cluster::authorization;
use crate::durable::protocol::{StateRequest, StateResult};
use crate::host::Host;
use crate::host::entropy::random_u64;
use crate::lock::Mutex;
use crate::registry::{Inbound, decode};
use crate::spec::{HolderId, StateKey};
use crate::wire::CallFailure;
pub use memory::MemoryStates;

/// Holder that keeps states in the memory of its process.
#[derive(Debug)]
pub(super) struct Holder {
    id: HolderId,
    states: Mutex<MemoryStates>,
}

impl Holder {
    pub(super) fn new() -> Self {
        Self { id: HolderId(random_u64()), states: Mutex::default() }
    }

    pub(super) fn id(&self) -> HolderId {
        self.id
    }

    /// Serves a request of an actor's host.
    pub(super) fn serve(&self, host: &Host, inbound: Inbound) {
        let from = inbound.from();
        let (body, _, mut responder) = inbound.into_parts::<StateResult>();
        let request = match decode::<StateRequest>(&body) {
            Ok(request) => request,
            Err(failure) => return responder.fail(failure),
        };
        if let Err(text) = authorization::check_worker(host, from, request.key().job) {
            return responder.fail(CallFailure::Refused { text });
        }
        responder.start();
        let result = self.states.lock().handle(request);
        responder.reply(result);
    }

    /// Actors with a state here.
    #[cfg(any(feature = "cli", feature = "sim"))]
    pub(super) fn keys(&self) -> Vec<StateKey> {
        self.states.lock().keys()
    }

    /// Removes the state of an actor that has ended for good.
    pub(super) fn remove(&self, key: StateKey) {
        // Dropped without the lock: it may be large.
        let removed = self.states.lock().remove(key);
        drop(removed);
    }

    /// Removes the states of a job that has ended.
    #[cfg(any(feature = "cli", feature = "sim"))]
    pub(super) fn remove_job(&self, job: crate::spec::JobId) {
        let removed = self.states.lock().remove_job(job);
        drop(removed);
    }
}

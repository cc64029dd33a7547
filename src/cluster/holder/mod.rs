//! Holder of the states of durable actors: a service that keeps records and snapshots, and refuses earlier epochs.
//!
//! It knows nothing of what the records mean. A local cluster has one, in the driver's process, with a host of its own
//! on the I/O thread: neither the driver's own code nor its messages delay it.

mod memory;

use crate::durable::protocol::{StateRequest, StateResult};
use crate::host::Host;
use crate::lock::Mutex;
use crate::registry::{Inbound, decode};
use crate::spec::ActorKey;
use memory::MemoryStates;

/// Holder that keeps states in the memory of its process.
#[derive(Debug, Default)]
pub(super) struct Holder {
    states: Mutex<MemoryStates>,
}

impl Holder {
    /// Serves a request of an actor's host.
    pub(super) fn serve(&self, _: &Host, inbound: Inbound) {
        let (body, _, mut responder) = inbound.into_parts::<StateResult>();
        match decode::<StateRequest>(&body) {
            Ok(request) => {
                responder.start();
                let result = self.states.lock().handle(request);
                responder.reply(result);
            }
            Err(failure) => responder.fail(failure),
        }
    }

    /// Removes the state of an actor that has ended for good.
    pub(super) fn remove(&self, actor: ActorKey) {
        // Dropped without the lock: it may be large.
        let removed = self.states.lock().remove(actor);
        drop(removed);
    }
}

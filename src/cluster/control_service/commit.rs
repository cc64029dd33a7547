//! Replies that wait for the disk: other processes act on them, and a restarted head must know what they say.

use std::sync::Arc;
use std::time::Duration;

use super::client::{REQUESTER_GONE, assigned_actor};
use super::{ControlPlane, ControlResult};
use crate::background;
use crate::cluster::control_plane::state::{ControlError, ControlEvent, ControlReply, RequestId, Ticket};
use crate::cluster::model::ActorKey;
use crate::host::Host;
use crate::registry::Responder;

/// Pause before a disk that takes no writes is tried again.
const DISK_RETRY_PAUSE: Duration = Duration::from_secs(1);

impl ControlPlane {
    /// Gives up a request, which may be one to an earlier incarnation of the head. If it has created an actor, the reply
    /// waits until the kill is durable: the requester repeats the request until it has the reply.
    pub(super) fn abandon(self: &Arc<Self>, host: &Host, id: RequestId, responder: Responder<ControlResult>) {
        let has_actor = self.read(|state| state.is_requested(id));
        self.apply(ControlEvent::Abandoned { id });
        let Some(persistence) = self.persistence.as_ref().filter(|_| has_actor) else {
            return responder.reply(Ok(ControlReply::Done));
        };
        let durable = persistence();
        background::spawn_on(host.io(), async move {
            let durable = durable.await;
            responder.reply(durable.map(|()| ControlReply::Done).map_err(ControlError::NotPersisted));
        });
    }

    /// Kills an actor. The reply waits until the kill of an actor with a record is durable: a restarted head would
    /// restart the actor otherwise.
    pub(in crate::cluster) async fn kill(
        self: Arc<Self>,
        actor: ActorKey,
        kill: impl FnOnce(Ticket) -> ControlEvent,
    ) -> ControlResult {
        let is_recorded = self.read(|state| state.is_recorded(actor));
        let reply = Arc::clone(&self).ask(kill).await?;
        match self.persistence.as_ref().filter(|_| is_recorded) {
            Some(persistence) => persistence().await.map(|()| reply).map_err(ControlError::NotPersisted),
            None => Ok(reply),
        }
    }

    /// Returns the final end of an actor once the head cannot restart it any more: its record is deleted for good.
    pub(super) async fn end_when_durable(&self, reply: ControlResult) -> ControlResult {
        let is_end = matches!(reply, Ok(ControlReply::End(_) | ControlReply::Gone(_)));
        if let Some(persistence) = self.persistence.as_ref().filter(|_| is_end) {
            while persistence().await.is_err() {
                tokio::time::sleep(DISK_RETRY_PAUSE).await;
            }
        }
        reply
    }

    /// Returns a placement once its actor's record is durable.
    ///
    /// The requester may rely on the actor's name, and on the actor surviving a restart of the head.
    pub(super) async fn commit_placement(self: Arc<Self>, reply: ControlReply) -> ControlResult {
        // The record of a managed actor was durable before its start was commanded.
        let assigned = assigned_actor(&reply).filter(|_| !matches!(reply, ControlReply::Created { .. }));
        let Some((persistence, actor)) = self.persistence.as_ref().zip(assigned) else {
            return Ok(reply);
        };
        // The guard releases the assignment if this future is dropped while the disk is busy.
        let mut assignment =
            AssignmentGuard { control: &self, actor, cause: REQUESTER_GONE.to_owned(), committed: false };
        match persistence().await {
            Ok(()) => {
                assignment.committed = true;
                Ok(reply)
            }
            Err(why) => {
                let error = ControlError::NotPersisted(why);
                assignment.cause = error.to_string();
                Err(error)
            }
        }
    }

    /// Waits until everything requested so far is on the disk: other processes act on it.
    pub(super) async fn persisted(&self) -> Result<(), ControlError> {
        match &self.persistence {
            Some(persistence) => persistence().await.map_err(ControlError::NotPersisted),
            None => Ok(()),
        }
    }
}

/// Assignment that has not been delivered; dropped before that, it is released.
struct AssignmentGuard<'a> {
    control: &'a ControlPlane,
    actor: ActorKey,
    cause: String,
    committed: bool,
}

impl Drop for AssignmentGuard<'_> {
    fn drop(&mut self) {
        if !self.committed {
            let cause = std::mem::take(&mut self.cause);
            self.control.apply(ControlEvent::SpawnCancelled { actor: self.actor, cause });
        }
    }
}

//! Cancellable placement requests to the head.
//!
//! A requester that cancels cannot know whether the head has assigned a worker in the meantime: the reply
//! may be on its way. The call therefore stays open while the cancellation is sent:
//!
//! ```text
//!   requester              head
//!      | ---- Place(7) ----> |            the head has not answered: it answers with an error,
//!      | ---- Cancel(7) ---> |            and holds nothing
//!      |                     |
//!      | <---- Placed ------ |            the head has answered before: the reply arrives,
//!      | --- SpawnFailed --> |            and the requester returns the assignment
//! ```
//!
//! In both cases no resources stay allocated. The head remembers a request only until it has answered it.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::{CONTROL, ControlRequest, ControlResult};
use crate::background;
use crate::cluster::control_plane::state::{ControlError, ControlReply};
use crate::cluster::model::ActorKey;
use crate::config::HEAD_RPC_TIMEOUT;
use crate::host::{Host, SendError};
use crate::id::HostUid;
use crate::lock::{Locked, Mutex};
use crate::remote::call_host;

type PendingReply = Pin<Box<dyn Future<Output = Result<ControlResult, SendError>> + Send>>;

/// Future of a placement request; dropped before it is ready, it cancels the request.
pub(in crate::cluster) struct PlacementCall {
    head: HostUid,
    host: Host,
    number: u64,
    pending_reply: Option<PendingReply>,
}

impl PlacementCall {
    pub(in crate::cluster) fn new(head: HostUid, host: Host, number: u64, request: ControlRequest) -> Self {
        let local_host = host.clone();
        let pending_reply =
            Box::pin(async move { call_host(&local_host, head, CONTROL, request, None).await });
        Self { head, host, number, pending_reply: Some(pending_reply) }
    }
}

impl Future for PlacementCall {
    type Output = Result<ControlResult, SendError>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let pending_reply = self.pending_reply.as_mut().expect("a future is polled until it is ready");
        let reply = ready!(pending_reply.as_mut().poll(task));
        self.pending_reply = None;
        Poll::Ready(reply)
    }
}

impl Drop for PlacementCall {
    fn drop(&mut self) {
        if let Some(pending_reply) = self.pending_reply.take() {
            // The task that drops the request may end now, so the cancellation runs on its own.
            let (head, host, number) = (self.head, self.host.clone(), self.number);
            background::spawn_on(self.host.io(), cancel(head, host, number, pending_reply));
        }
    }
}

/// Cancels a request, and returns an assignment that arrives nevertheless.
async fn cancel(head: HostUid, host: Host, number: u64, pending_reply: PendingReply) {
    let cancelling = async {
        loop {
            // Repeated, because the calls may be reordered: the request waits for credit, and can arrive
            // after its cancellation, which then finds nothing to cancel.
            let request = ControlRequest::Cancel { number };
            let acked: Result<ControlResult, _> = call_host(&host, head, CONTROL, request, None).await;
            if acked.is_err() {
                // If the cancellation cannot reach the head, neither can the request.
                return;
            }
            tokio::time::sleep(HEAD_RPC_TIMEOUT).await;
        }
    };
    let reply = tokio::select! {
        biased;
        reply = pending_reply => reply,
        () = cancelling => return,
    };
    if let Some(actor) = reply.ok().and_then(|reply| assigned_actor(&reply.ok()?)) {
        let why = REQUESTER_GONE.to_owned();
        // If the head is unreachable, it releases the assignment when the job ends.
        let acked: Result<ControlResult, _> =
            call_host(&host, head, CONTROL, ControlRequest::SpawnFailed { actor, why }, None).await;
        drop(acked);
    }
}

/// Cause of the end of an actor whose requester is gone.
pub(in crate::cluster) const REQUESTER_GONE: &str = "its request was cancelled";

/// New actor in a reply, of which only the requester knows.
pub(in crate::cluster) fn assigned_actor(reply: &ControlReply) -> Option<ActorKey> {
    match reply {
        ControlReply::Placed { actor, alive: None, .. } | ControlReply::Created { actor, .. } => Some(*actor),
        _ => None,
    }
}

/// Requesting host, and its number of the request.
type RequestKey = (HostUid, u64);

/// Unanswered requests of other hosts. Clones share the same map.
#[derive(Clone, Debug, Default)]
pub(in crate::cluster) struct PendingRequests(Arc<Mutex<FxHashMap<RequestKey, oneshot::Sender<()>>>>);

impl PendingRequests {
    /// Registers a request until the returned guard is dropped.
    pub(in crate::cluster) fn begin(&self, from: HostUid, number: u64) -> CancellableRequest {
        let (cancel_signal, cancelled) = oneshot::channel();
        let key = (from, number);
        self.lock().insert(key, cancel_signal);
        CancellableRequest { requests: self.clone(), key, cancelled }
    }

    /// Cancels a request, if it is still unanswered.
    pub(in crate::cluster) fn cancel(&self, from: HostUid, number: u64) {
        if let Some(cancel_signal) = self.lock().remove(&(from, number)) {
            // Fails if the reply is being sent at this moment.
            let _ = cancel_signal.send(());
        }
    }

    fn lock(&self) -> Locked<'_, FxHashMap<RequestKey, oneshot::Sender<()>>> {
        self.0.lock()
    }
}

/// Registered request.
#[derive(Debug)]
pub(in crate::cluster) struct CancellableRequest {
    requests: PendingRequests,
    key: RequestKey,
    cancelled: oneshot::Receiver<()>,
}

impl CancellableRequest {
    /// Returns the reply, or an error if the request is cancelled first.
    pub(in crate::cluster) async fn or_cancelled(
        mut self,
        reply: impl Future<Output = ControlResult>,
    ) -> ControlResult {
        tokio::select! {
            biased;
            // A reply that is ready wins over the cancellation; the requester returns what it holds.
            reply = reply => reply,
            Ok(()) = &mut self.cancelled => Err(ControlError::Unknown("the request was cancelled".to_owned())),
        }
    }
}

impl Drop for CancellableRequest {
    fn drop(&mut self) {
        self.requests.lock().remove(&self.key);
    }
}

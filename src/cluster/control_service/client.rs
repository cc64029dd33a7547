//! Questions for a place that are put to another host, and are given up before there is an answer.
//!
//! Whoever gives one up does not know whether the head has given a place meanwhile: the answer may be on its
//! way. So the call stays open, and the head is told. Either it has given the place before it hears of that,
//! and the answer that still comes is given back, or it gives none, and says so. Nothing is held for nobody
//! in either case, and the head remembers a question no longer than until it has answered.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::{CONTROL, ControlRequest, Reply};
use crate::cluster::control_plane::state::{Answer, ControlError};
use crate::cluster::model::ActorKey;
use crate::config::HEAD_RPC_TIMEOUT;
use crate::host::{Host, SendError};
use crate::id::HostUid;
use crate::lock::{Locked, Mutex};
use crate::remote::call_host;

type PendingReply = Pin<Box<dyn Future<Output = Result<Reply, SendError>> + Send>>;

/// A question for a place, of this number; the future of its answer. Dropped before that it is withdrawn.
pub(in crate::cluster) struct PlacementCall {
    head: HostUid,
    host: Host,
    number: u64,
    asked: Option<PendingReply>,
}

impl PlacementCall {
    pub(in crate::cluster) fn new(head: HostUid, host: Host, number: u64, request: ControlRequest) -> Self {
        let here = host.clone();
        let asked = Box::pin(async move { call_host(&here, head, CONTROL, request, None).await });
        Self { head, host, number, asked: Some(asked) }
    }
}

impl Future for PlacementCall {
    type Output = Result<Reply, SendError>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let asked = self.asked.as_mut().expect("a future is polled until it is ready");
        let answer = ready!(asked.as_mut().poll(task));
        self.asked = None;
        Poll::Ready(answer)
    }
}

impl Drop for PlacementCall {
    fn drop(&mut self) {
        if let Some(asked) = self.asked.take() {
            let (head, host, number) = (self.head, self.host.clone(), self.number);
            self.host.io().spawn(cancel(head, host, number, asked));
        }
    }
}

/// Withdraws a question, and gives back what comes all the same.
async fn cancel(head: HostUid, host: Host, number: u64, asked: PendingReply) {
    let withdrawing = async {
        loop {
            // The question itself may have waited for room, and come behind this.
            let withdraw = ControlRequest::Cancel { number };
            let told: Result<Reply, _> = call_host(&host, head, CONTROL, withdraw, None).await;
            if told.is_err() {
                // Nor has the question a way to the head any more.
                return;
            }
            tokio::time::sleep(HEAD_RPC_TIMEOUT).await;
        }
    };
    let answer = tokio::select! {
        biased;
        answer = asked => answer,
        () = withdrawing => return,
    };
    if let Some(actor) = answer.ok().and_then(|answer| assigned_actor(&answer.ok()?)) {
        let why = REQUESTER_GONE.to_owned();
        // A head that cannot be told any more learns of it when the job ends.
        let told: Result<Reply, _> =
            call_host(&host, head, CONTROL, ControlRequest::SpawnFailed { actor, why }, None).await;
        drop(told);
    }
}

/// Why a place is free again that nobody has taken.
pub(in crate::cluster) const REQUESTER_GONE: &str = "nobody waits for it any more";

/// The actor that an answer has a place for.
pub(in crate::cluster) fn assigned_actor(answer: &Answer) -> Option<ActorKey> {
    match answer {
        Answer::Placed { actor, alive: None, .. } => Some(*actor),
        _ => None,
    }
}

/// Who has asked, and the number that he gave the question.
type RequestKey = (HostUid, u64);

/// The questions of other hosts that have no answer yet. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(in crate::cluster) struct PendingRequests(Arc<Mutex<FxHashMap<RequestKey, oneshot::Sender<()>>>>);

impl PendingRequests {
    /// Takes note of one, until what is returned is dropped.
    pub(in crate::cluster) fn begin(&self, from: HostUid, number: u64) -> CancellableRequest {
        let (withdraw, withdrawn) = oneshot::channel();
        let question = (from, number);
        self.lock().insert(question, withdraw);
        CancellableRequest { open: self.clone(), question, withdrawn }
    }

    /// Whoever asked does not wait any more.
    pub(in crate::cluster) fn cancel(&self, from: HostUid, number: u64) {
        if let Some(withdraw) = self.lock().remove(&(from, number)) {
            // Nobody hears it where it is just being answered.
            let _ = withdraw.send(());
        }
    }

    fn lock(&self) -> Locked<'_, FxHashMap<RequestKey, oneshot::Sender<()>>> {
        self.0.lock()
    }
}

/// A question that has no answer yet.
#[derive(Debug)]
pub(in crate::cluster) struct CancellableRequest {
    open: PendingRequests,
    question: RequestKey,
    withdrawn: oneshot::Receiver<()>,
}

impl CancellableRequest {
    /// The answer, unless the question is withdrawn before.
    pub(in crate::cluster) async fn or_cancelled(mut self, answer: impl Future<Output = Reply>) -> Reply {
        tokio::select! {
            biased;
            answer = answer => answer,
            Ok(()) = &mut self.withdrawn => Err(ControlError::Unknown("the question was withdrawn".to_owned())),
        }
    }
}

impl Drop for CancellableRequest {
    fn drop(&mut self) {
        self.open.lock().remove(&self.question);
    }
}

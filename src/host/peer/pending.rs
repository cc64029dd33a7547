//! A call under way.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::{Peer, Ticket};
use crate::host::error::SendError;
use crate::id::CallId;
use crate::session::{Failed, LinkLoss};
use crate::wire::Body;

/// A call under way; the future of its answer. Dropping it cancels the call.
pub(crate) struct Pending {
    pub(super) peer: Arc<Peer>,
    pub(super) call: CallId,
    pub(super) ticket: Ticket,
    pub(super) ended: bool,
}

impl Pending {
    /// The call's number, under which it may be repeated if it was made so.
    pub(crate) fn call(&self) -> CallId {
        self.call
    }

    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }
}

impl Future for Pending {
    type Output = Result<Body, SendError>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        // A caller whose answers are all there lets the link write what it has made meanwhile.
        ready!(pin!(tokio::task::coop::consume_budget()).poll(task));
        let mut old = None;
        let polled = self.peer.lock().answers.poll(self.ticket, task, &mut old);
        drop(old);
        let outcome = ready!(polled);
        self.ended = true;
        // The session ends every call; one without a word was polled again after its end.
        let outcome = outcome.unwrap_or(Err(Failed::OutcomeUnknown(LinkLoss::Shutdown)));
        Poll::Ready(outcome.map_err(|failed| SendError::failed(self.peer.identity, failed)))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.ended {
            let mut state = self.peer.lock();
            let slot = state.answers.close(self.ticket);
            if state.session.forget(self.call).is_some() {
                // The last call of a session that leaves may have been this one.
                state.ring_if_outgoing();
            }
            drop(state);
            drop(slot);
            self.peer.progress.notify_waiters();
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("peer", &self.peer.identity).field("call", &self.call).finish()
    }
}

//! A call under way.

use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::reply_slots::{Outcome, Slot};
use super::{Peer, SlotId};
use crate::host::error::SendError;
use crate::session::{CallError, DisconnectReason};
use crate::wire::Body;

/// A call under way, for who knows its peer in any case. It is to be polled until it ends, or
/// [`abandoned`](Self::abandon).
///
/// The slot of its answer knows which call it is, so that this is one word, which is moved in a register.
#[derive(Debug)]
#[must_use = "the answer waits for somebody to take it"]
pub(crate) struct OpenCall {
    /// [`ENDED`] once nothing is to be done for it.
    ticket: u64,
}

/// No ticket is so large.
const ENDED: u64 = u64::MAX;

impl OpenCall {
    pub(super) fn new(SlotId(ticket): SlotId) -> Self {
        Self { ticket: ticket.into() }
    }

    #[inline]
    fn ticket(&self) -> Option<SlotId> {
        u32::try_from(self.ticket).ok().map(SlotId)
    }

    /// Gives the answer to `answered` once it is there, to be read or taken: to move it would cost more
    /// than to decode it. Or why there will be none to `failed`.
    ///
    /// # Panics
    ///
    /// When it has been there before, or the call was abandoned.
    #[inline(always)]
    pub(crate) fn poll<R>(
        &mut self,
        peer: &Peer,
        task: &mut Context<'_>,
        answered: impl FnOnce(&mut Body) -> R,
        failed: impl FnOnce(CallError) -> R,
    ) -> Poll<R> {
        let ticket = self.ticket().expect("a call is not polled after it has ended");
        // A caller whose answers are all there lets the link write what it has made meanwhile.
        let budget = match peer.batching.consumes_budget() {
            true => Some(ready!(tokio::task::coop::poll_proceed(task))),
            false => None,
        };
        let mut old = None;
        let polled = peer.lock().answers.poll(ticket, task, &mut old);
        drop(old);
        let outcome = ready!(polled);
        if let Some(budget) = budget {
            budget.made_progress();
        }
        self.ticket = ENDED;
        let (mut short, mut long);
        let body: &mut Body = match outcome {
            Outcome::Answered(body) => {
                // It has no memory of its own, and nobody puts anything in its place: nothing is to be dropped.
                short = ManuallyDrop::new(body.into());
                &mut short
            }
            Outcome::LargeReply(body) => {
                long = body;
                &mut long
            }
            // The session ends every call with a word.
            Outcome::Failed(why) => {
                let why = why.map_or(CallError::OutcomeUnknown(DisconnectReason::Shutdown), |why| *why);
                return Poll::Ready(failed(why));
            }
        };
        Poll::Ready(answered(body))
    }

    /// Whether nothing more is to be done for it.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.ticket == ENDED
    }

    /// Cancels the call, unless it has ended.
    pub(crate) fn cancel(&mut self, peer: &Peer) {
        let Some(ticket) = self.ticket() else { return };
        self.ticket = ENDED;
        let mut state = peer.lock();
        let slot = state.answers.close(ticket);
        if let Some(Slot::Waiting { call, .. }) = slot
            && state.session.cancel(call).is_some()
        {
            // The last call of a session that leaves may have been this one.
            state.notify_writer_if_pending();
        }
        peer.serve_and_unlock(state);
        drop(slot);
        peer.progress.notify_waiters();
    }
}

/// A call under way; the future of its answer. Dropping it cancels the call.
pub(crate) struct Pending {
    peer: Arc<Peer>,
    open: OpenCall,
}

impl Pending {
    pub(crate) fn new(peer: &Arc<Peer>, open: OpenCall) -> Self {
        Self { peer: Arc::clone(peer), open }
    }
}

impl Future for Pending {
    type Output = Result<Body, SendError>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { peer, open } = self.get_mut();
        let failed = |why| Err(SendError::failed(peer.identity, why));
        open.poll(peer, task, |body| Ok(std::mem::take(body)), failed)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.open.cancel(&self.peer);
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("peer", &self.peer.identity).field("open", &self.open).finish()
    }
}

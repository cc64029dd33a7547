//! Runner of an actor: the task that drives it on its host.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use actix::dev::ContextFut;
use actix::{ActorContext, Context};

use crate::host::{ActorEnd, Host};
use crate::id::Target;
use crate::observe::log;
use crate::registry::{self, LeaseHolder, RemoteActor, RunningHolder, panics};
use crate::spec::{ActorKey, End, EndReason};

/// Runner of an actor on this host, from its start to its end for any cause.
///
/// actix drives the actor; this future observes its end. It catches a panic outside of a delivery (in
/// `started`, a timer, a future of the actor's own). The actor's open calls are then dropped where their
/// responders find the panic's text. No code of the actor but its `Drop` runs then.
pub(super) struct ActorRunner<A: RemoteActor> {
    pub(super) future: Option<ContextFut<A, Context<A>>>,
    pub(super) host: Host,
    pub(super) target: Target,
    /// Cluster-wide id of the actor, if the cluster tracks it.
    pub(super) key: Option<ActorKey>,
    /// Holder of the lease of an exclusive actor.
    pub(super) holder: Option<Arc<LeaseHolder>>,
}

/// Cause of an actor's end, as its runner sees it.
enum EndCause {
    Stopped,
    Panicked(String),
    ThreadEnded,
    LeaseExpired,
}

impl<A: RemoteActor> Future for ActorRunner<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(future) = &mut this.future else { return Poll::Ready(()) };
        // Held to the end of this poll, and so while the actor is dropped.
        let mut running = None;
        if let Some(holder) = &this.holder {
            holder.register(task);
            running = holder.enter();
            if running.is_none() {
                this.end(EndCause::LeaseExpired);
                return Poll::Ready(());
            }
        }
        let cause = match panics::catch(|| Pin::new(future).poll(task)) {
            Ok(Poll::Pending) if running.as_ref().is_some_and(RunningHolder::is_over) => {
                EndCause::LeaseExpired
            }
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => EndCause::Stopped,
            Err(text) => EndCause::Panicked(text),
        };
        this.end(cause);
        Poll::Ready(())
    }
}

impl<A: RemoteActor> ActorRunner<A> {
    fn end(&mut self, cause: EndCause) {
        let end = match &cause {
            EndCause::Panicked(text) => Some(Box::new(registry::panicked(text))),
            EndCause::Stopped => registry::requested_stop(),
            EndCause::LeaseExpired => Some(Box::new(registry::lease_expired())),
            EndCause::ThreadEnded => None,
        };
        // First, so that senders see a stopped actor while the rest runs.
        let counts = match cause {
            EndCause::ThreadEnded => self.host.actors().end_with_thread(self.target),
            _ => self.host.actors().end(self.target, end.clone()),
        };
        // The process probably ends as well, and is the cause.
        let no_end = || match cause {
            EndCause::ThreadEnded => End::new(EndReason::Unknown, "its thread ended"),
            _ => registry::stopped(),
        };
        let ended = ActorEnd {
            incarnation: self.target.incarnation,
            end: end.map_or_else(no_end, |end| *end),
            handled: counts.map_or(0, |counts| counts.handled),
        };
        if self.holder.is_some() {
            // With the report the next incarnation may begin.
            self.drop_actor(cause);
            self.report(ended);
        } else {
            // Dropped last, since the drop runs user code that may take long.
            self.report(ended);
            self.drop_actor(cause);
        }
    }

    fn report(&self, ended: ActorEnd) {
        if let (Some(key), Some(observer)) = (self.key, self.host.lifecycle_observer()) {
            observer.actor_stopped(key, ended);
        }
    }

    fn drop_actor(&mut self, cause: EndCause) {
        let mut future = self.future.take();
        if let (EndCause::Panicked(_) | EndCause::LeaseExpired, Some(future)) = (&cause, &mut future) {
            // Without this, dropping the future would make actix run the actor once more.
            future.ctx().terminate();
        }
        let drop_actor = || {
            if let Err(text) = panics::catch(|| drop(future)) {
                log::warn!(actor = A::NAME, text, "an actor panicked while it was dropped");
            }
        };
        match cause {
            EndCause::Panicked(text) => {
                log::warn!(actor = A::NAME, text, "an actor panicked and has stopped");
                panics::with_panic_text(text, drop_actor);
            }
            EndCause::LeaseExpired => {
                log::warn!(actor = A::NAME, "the lease of an exclusive actor has run out, and it has ended");
                drop_actor();
            }
            EndCause::Stopped | EndCause::ThreadEnded => drop_actor(),
        }
    }
}

/// The actor is in its context, which actix moves freely.
impl<A: RemoteActor> Unpin for ActorRunner<A> {}

impl<A: RemoteActor> Drop for ActorRunner<A> {
    fn drop(&mut self) {
        // The arbiter has ended while the actor was running.
        if self.future.is_some() {
            self.end(EndCause::ThreadEnded);
        }
    }
}

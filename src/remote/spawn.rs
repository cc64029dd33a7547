//! Actors that come to life on another host, and end there.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context as TaskContext, Poll};

use actix::dev::ContextFut;
use actix::{ActorContext, AsyncContext, Context};
use rustc_hash::FxHashMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::oneshot;

use super::addr::RemoteAddr;
use super::ask::ask_last;
use super::cluster_ref::ClusterRef;
use crate::host::{Host, NotDelivered, OutcomeUnknown, PlacementError, SendError};
use crate::id::{Target, TypeHash};
use crate::observe::log;
use crate::registry::{Inbound, RemoteActor, Responder, STOP, panics, synchronous};
use crate::spec::{ActorKey, ActorLocation};
use crate::wire::CallFailure;

/// How an actor comes to life on another host: from arguments that can travel.
#[diagnostic::on_unimplemented(
    message = "actor `{Self}` cannot be spawned from afar: it does not implement `Spawn`",
    note = "implement `Spawn` for it, or say `#[remote(local)]` if it is only started where it lives"
)]
pub trait Spawn: RemoteActor {
    /// What it is made from.
    type Args: Serialize + DeserializeOwned + Send + 'static;
    /// Why it may refuse; the text is what the spawner sees.
    type Error: fmt::Display;

    /// Makes the actor, on the host and the thread where it will live.
    ///
    /// # Errors
    ///
    /// The spawner gets the text of an error as [`SpawnError::Refused`].
    fn spawn(args: Self::Args, at: &SpawnContext<Self>) -> Result<Self, Self::Error>;
}

/// Where an actor comes to life.
#[derive(Debug)]
pub struct SpawnContext<A> {
    address: RemoteAddr<A>,
    cluster: ClusterRef,
}

impl<A: RemoteActor> SpawnContext<A> {
    /// The address that the actor will have.
    #[must_use]
    pub fn address(&self) -> RemoteAddr<A> {
        self.address.clone()
    }

    /// The cluster that it will live in, to spawn others and to run tasks.
    #[must_use]
    pub fn cluster(&self) -> &ClusterRef {
        &self.cluster
    }
}

/// Why an actor was not spawned.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnError {
    /// There is no worker left to spawn on.
    #[error("cannot spawn {actor}: no worker is left in the cluster")]
    NoWorker {
        /// The actor's type.
        actor: &'static str,
    },
    /// The cluster gives it no place. Nothing was started.
    #[error("cannot spawn {actor}: {reason}")]
    Placement {
        /// The actor's type.
        actor: &'static str,
        /// Why.
        reason: PlacementError,
    },
    /// It was given no place in time. Nothing was started.
    #[error("cannot spawn {actor}: it had no place in time; give it longer, or ask for less")]
    PlacementTimedOut {
        /// The actor's type.
        actor: &'static str,
    },
    /// The actor's own `spawn` refused.
    #[error("{actor} refused to start: {text}")]
    Refused {
        /// The actor's type.
        actor: &'static str,
        /// The text of its error.
        text: String,
    },
    /// The actor's own `spawn` panicked.
    #[error("{actor} panicked while it started: {text}")]
    Panicked {
        /// The actor's type.
        actor: &'static str,
        /// The panic's text and place.
        text: String,
    },
    /// The request reached nobody: spawning again is safe.
    #[error("cannot spawn {actor}: {reason}")]
    NotDelivered {
        /// The actor's type.
        actor: &'static str,
        /// Why.
        reason: NotDelivered,
    },
    /// The request was sent and not answered: the actor may have started, and has no address here.
    #[error("cannot tell whether {actor} was spawned: {reason}")]
    OutcomeUnknown {
        /// The actor's type.
        actor: &'static str,
        /// Why.
        reason: OutcomeUnknown,
    },
}

impl SpawnError {
    pub(super) fn not_placed<A: RemoteActor>(reason: PlacementError) -> Self {
        match reason {
            PlacementError::NoWorker => Self::NoWorker { actor: A::NAME },
            reason => Self::Placement { actor: A::NAME, reason },
        }
    }

    pub(super) fn of<A: RemoteActor>(error: SendError) -> Self {
        let actor = A::NAME;
        match error {
            SendError::NotDelivered(NotDelivered::Refused { text }) => Self::Refused { actor, text },
            SendError::NotDelivered(reason) => Self::NotDelivered { actor, reason },
            SendError::OutcomeUnknown(reason) => Self::OutcomeUnknown { actor, reason },
            SendError::Panicked { text } => Self::Panicked { actor, text },
        }
    }
}

/// That an actor type can be spawned from afar; registered by the derive of `RemoteActor`.
#[derive(Clone, Copy)]
pub struct SpawnRegistration {
    hash: TypeHash,
    spawn: SpawnHere,
}

/// Makes an actor on this host from its arguments, and answers with where it is.
type SpawnHere = fn(&Host, Inbound);

inventory::collect!(SpawnRegistration);

impl SpawnRegistration {
    /// Registers `A`.
    #[must_use]
    pub const fn of<A: Spawn>() -> Self {
        Self { hash: A::HASH, spawn: spawn_here::<A> }
    }
}

impl fmt::Debug for SpawnRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnRegistration").field("actor", &self.hash).finish_non_exhaustive()
    }
}

/// Stops an actor, wherever it lives, behind all messages that this host sent to it before. An actor
/// that has stopped already is no error.
///
/// The stop is a call in the actor's own flow, or an item of the actor's own mailbox on this host. A
/// call to the host would overtake messages that are in chunks or wait for credit.
///
/// # Errors
///
/// As any call: [`SendError`].
pub(crate) async fn stop_on_host(here: &Host, actor: ActorLocation) -> Result<(), SendError> {
    let stopped = if actor.host == here.identity() {
        stop_here(here, actor.target).await
    } else {
        ask_last(here, actor.host, actor.target, STOP).await
    };
    match stopped {
        Err(SendError::NotDelivered(NotDelivered::ActorStopped)) => Ok(()),
        outcome => outcome,
    }
}

async fn stop_here(host: &Host, target: Target) -> Result<(), SendError> {
    let (reply, stopped) = oneshot::channel();
    host.actors().find(target)?.stop(Responder::local(reply));
    // Dropped without an answer, the mailbox has closed.
    Ok(stopped.await.unwrap_or(Err(CallFailure::ActorStopped))?)
}

/// What a host of actors does when it is called itself: it spawns them.
pub fn actor_services(host: &Host, service: TypeHash, inbound: Inbound) {
    static SPAWNABLE: LazyLock<FxHashMap<TypeHash, SpawnHere>> = LazyLock::new(|| {
        inventory::iter::<SpawnRegistration>.into_iter().map(|it| (it.hash, it.spawn)).collect()
    });
    match SPAWNABLE.get(&service) {
        Some(spawn) => spawn(host, inbound),
        None => inbound.fail(&CallFailure::NotHandled {
            actor: "this executable".to_owned(),
            message: format!("spawning {}", host.registry().name_of(service)),
        }),
    }
}

fn spawn_here<A: Spawn>(host: &Host, inbound: Inbound) {
    let (body, deadline, mut responder) = inbound.into_parts::<Target>();
    let order = crate::registry::decode::<(Option<ActorKey>, A::Args)>(&body);
    let (key, args) = match order {
        Ok(order) => order,
        Err(failure) => return responder.fail(failure),
    };
    // What the cluster has kept for it is free again. Whoever asked may not wait any more.
    let unborn = |why: &str| {
        if let (Some(key), Some(lives)) = (key, host.lives()) {
            lives.actor_stopped(key, why);
        }
    };
    if responder.is_expired_or_cancelled(deadline) {
        unborn("whoever spawned it waits no more");
        return responder.fail(CallFailure::Expired);
    }
    if actix_rt::Arbiter::try_current().is_none() {
        let text = "this host runs no actix arbiter, so no actor can live on it".to_owned();
        return responder.fail(CallFailure::Refused { text });
    }
    if let (None, Some(lives)) = (key, host.lives()) {
        lives.named(A::NAME);
    }
    let target = host.actors().reserve();
    let context = Context::new();
    // Reachable from now on: it may send to itself, or have others do so, before it lives.
    host.register_actor(target, context.address());
    let at = SpawnContext {
        address: RemoteAddr::new(host.identity(), target, host),
        cluster: ClusterRef::new(host.clone()),
    };
    responder.start();
    let spawned = || panics::catch(|| A::spawn(args, &at).map_err(|error| error.to_string()));
    match synchronous::call(spawned) {
        Ok(Ok(actor)) => {
            let future = Some(context.into_future(actor));
            if let (Some(key), Some(lives)) = (key, host.lives()) {
                lives.actor_started(key, A::NAME, ActorLocation { host: host.identity(), target });
            }
            actix_rt::spawn(ActorRunner { future, host: host.clone(), target, key });
            responder.answer(target);
        }
        Ok(Err(text)) => {
            host.actors().remove(target);
            unborn(&text);
            responder.fail(CallFailure::Refused { text });
        }
        Err(text) => {
            host.actors().remove(target);
            unborn(&text);
            responder.fail(CallFailure::Panicked { text });
        }
    }
}

/// An actor's life on this host, from its start to its end by whatever cause.
///
/// actix drives the actor; this future sees it end. A panic that the delivery could not catch (in
/// `started`, a timer, a future of the actor's own) is caught here, so that what the actor had open
/// is dropped in order and learns the panic's text. No code of the actor but its `Drop` runs then.
struct ActorRunner<A: RemoteActor> {
    future: Option<ContextFut<A, Context<A>>>,
    host: Host,
    target: Target,
    /// What the cluster calls it, if it keeps account of it.
    key: Option<ActorKey>,
}

impl<A: RemoteActor> Future for ActorRunner<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(future) = &mut this.future else { return Poll::Ready(()) };
        let text = match panics::catch(|| Pin::new(future).poll(task)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => None,
            Err(text) => Some(text),
        };
        this.end(text);
        Poll::Ready(())
    }
}

impl<A: RemoteActor> ActorRunner<A> {
    fn end(&mut self, panic: Option<String>) {
        self.host.actors().remove(self.target);
        if let (Some(key), Some(lives)) = (self.key, self.host.lives()) {
            match &panic {
                Some(text) => lives.actor_stopped(key, &format!("it panicked: {text}")),
                None => lives.actor_stopped(key, "it stopped"),
            }
        }
        let mut future = self.future.take();
        if let (Some(_), Some(future)) = (&panic, &mut future) {
            // Or actix would run the torn actor once more while it is dropped.
            future.ctx().terminate();
        }
        let bury = || {
            if let Err(text) = panics::catch(|| drop(future)) {
                log::warn!(actor = A::NAME, text, "an actor panicked while it was dropped");
            }
        };
        match panic {
            Some(text) => {
                log::warn!(actor = A::NAME, text, "an actor panicked and has stopped");
                panics::with_panic_text(text, bury);
            }
            None => bury(),
        }
    }
}

/// The actor lives in its context, which actix moves freely.
impl<A: RemoteActor> Unpin for ActorRunner<A> {}

impl<A: RemoteActor> Drop for ActorRunner<A> {
    fn drop(&mut self) {
        if self.future.is_some() {
            self.end(None);
        }
    }
}

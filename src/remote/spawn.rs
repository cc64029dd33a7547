//! Spawning and stopping of actors on other hosts.

use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use actix::{AsyncContext, Context};
use rustc_hash::FxHashMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::oneshot;

use super::addr::RemoteAddr;
use super::ask::{call_last, call_service};
use super::cluster_ref::ClusterRef;
use super::runner::ActorRunner;
use super::watch;
use crate::host::{
    ActorEnd, DisconnectReason, Host, NotDelivered, OutcomeUnknown, PlacementError, SendError,
};
use crate::id::{ActorIncarnation, Target, TypeHash};
use crate::observe::log;
use crate::registry::{self, Inbound, LeaseHolder, RemoteActor, Responder, STOP, panics, synchronous};
use crate::spec::{ActorKey, ActorLocation, End, EndReason, LeaseGrant, Recipe};
use crate::wire::CallFailure;

/// Actor that can be created on another host, from serializable arguments.
#[diagnostic::on_unimplemented(
    message = "actor `{Self}` cannot be spawned remotely: it does not implement `Spawn`",
    note = "implement `Spawn` for it, or add `#[remote(local)]` if it is only started on its own host"
)]
pub trait Spawn: RemoteActor {
    /// Arguments of `spawn`.
    type Args: Serialize + DeserializeOwned + Send + 'static;
    /// Error of a refusal; the spawner sees its text.
    type Error: fmt::Display;

    /// Creates the actor, on the host and the thread that will run it.
    ///
    /// # Errors
    ///
    /// The spawner gets the text of an error as [`SpawnError::Refused`].
    fn spawn(args: Self::Args, at: &SpawnContext<Self>) -> Result<Self, Self::Error>;
}

/// Environment of an actor that is being created.
///
/// # Examples
///
/// ```
#[doc = include_str!("counter_example.txt")]
/// // An actor that spawns others keeps the cluster of its context.
/// #[derive(RemoteActor)]
/// #[remote(handles(Grow))]
/// struct Team(ClusterRef);
///
/// impl Actor for Team {
///     type Context = Context<Self>;
/// }
///
/// impl Spawn for Team {
///     type Args = ();
///     type Error = Infallible;
///     fn spawn((): (), at: &SpawnContext<Self>) -> Result<Self, Infallible> {
///         Ok(Self(at.cluster().clone()))
///     }
/// }
///
/// #[derive(Message, RemoteMessage, Serialize, Deserialize)]
/// #[rtype(result = "Result<RemoteAddr<Counter>, String>")]
/// struct Grow;
///
/// impl Handler<Grow> for Team {
///     type Result = ResponseFuture<Result<RemoteAddr<Counter>, String>>;
///     fn handle(&mut self, Grow: Grow, _: &mut Context<Self>) -> Self::Result {
///         let spawning = self.0.spawn::<Counter>(40);
///         Box::pin(async move { spawning.await.map_err(|error| error.to_string()) })
///     }
/// }
///
/// let team = cluster.spawn::<Team>(()).await?;
/// let member = team.send(Grow).await?.map_err(std::io::Error::other)?;
/// assert_eq!(member.send(Add(2)).await?, 42);
/// # cluster.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SpawnContext<A> {
    address: RemoteAddr<A>,
    incarnation: ActorIncarnation,
    cluster: ClusterRef,
}

impl<A: RemoteActor> SpawnContext<A> {
    /// Future address of the actor.
    #[must_use]
    pub fn address(&self) -> RemoteAddr<A> {
        self.address.clone()
    }

    /// Number of this incarnation of a restartable actor, which grows with each restart; 0 for any other actor.
    ///
    /// It is a fencing token: what keeps effects of the actor outside of the cluster, such as a file or a database,
    /// refuses those with a lower number than the highest that it has seen. Of an
    /// [exclusive](crate::Restart::exclusive) actor no two incarnations have the same number.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.incarnation.0
    }

    /// Cluster of the actor, for spawning others and running tasks.
    #[must_use]
    pub fn cluster(&self) -> &ClusterRef {
        &self.cluster
    }
}

/// Reason why an actor was not spawned.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnError {
    /// No worker is left to spawn on.
    #[error("cannot spawn {actor}: no worker is left in the cluster")]
    NoWorker {
        /// Type of the actor.
        actor: &'static str,
    },
    /// The cluster did not assign a host. Nothing was started.
    #[error("cannot spawn {actor}: {reason}")]
    Placement {
        /// Type of the actor.
        actor: &'static str,
        /// Reason of the refusal.
        reason: PlacementError,
    },
    /// No host was assigned within the timeout. Nothing was started.
    #[error(
        "cannot spawn {actor}: no host was assigned in time; raise the timeout, or request fewer resources"
    )]
    PlacementTimedOut {
        /// Type of the actor.
        actor: &'static str,
    },
    /// The actor's own `spawn` refused.
    #[error("{actor} refused to start: {text}")]
    Refused {
        /// Type of the actor.
        actor: &'static str,
        /// Text of the error.
        text: String,
    },
    /// The actor's own `spawn` panicked.
    #[error("{actor} panicked while it started: {text}")]
    Panicked {
        /// Type of the actor.
        actor: &'static str,
        /// Text and source location of the panic.
        text: String,
    },
    /// The request reached no host: spawning again is safe.
    #[error("cannot spawn {actor}: {reason}")]
    NotDelivered {
        /// Type of the actor.
        actor: &'static str,
        /// Reason why the request was not delivered.
        reason: NotDelivered,
    },
    /// The request was sent without a reply: the actor may run, and has no address here.
    #[error("cannot tell whether {actor} was spawned: {reason}")]
    OutcomeUnknown {
        /// Type of the actor.
        actor: &'static str,
        /// Reason why the outcome is unknown.
        reason: OutcomeUnknown,
    },
}

impl SpawnError {
    pub(super) fn placement<A: RemoteActor>(reason: PlacementError) -> Self {
        match reason {
            PlacementError::NoWorker => Self::NoWorker { actor: A::NAME },
            PlacementError::Refused { text } => Self::Refused { actor: A::NAME, text },
            PlacementError::LowMemory { text } => {
                Self::NotDelivered { actor: A::NAME, reason: NotDelivered::LowMemory { text } }
            }
            PlacementError::Panicked { text } => Self::Panicked { actor: A::NAME, text },
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

/// Registration of an actor type for remote spawning, submitted by the derive of `RemoteActor`.
#[derive(Clone, Copy)]
pub struct SpawnRegistration {
    hash: TypeHash,
    spawn: SpawnHere,
    start: StartHere,
}

/// Function that creates an actor on this host from its arguments, and replies with its target.
type SpawnHere = fn(&Host, Inbound);

/// Function that creates an incarnation of a managed actor on this host, and replies with its target.
type StartHere = fn(&Host, StartActor, Responder<Target>);

/// Service of workers that creates an incarnation of a managed actor.
const START_ACTOR: TypeHash = TypeHash::of("roadshow::StartActor");

/// Incarnation to create.
#[derive(Debug, Serialize, Deserialize)]
struct StartActor {
    target: Target,
    recipe: Recipe,
    /// Lease of the node, for an exclusive actor of a cluster of nodes.
    lease: Option<LeaseGrant>,
}

inventory::collect!(SpawnRegistration);

impl SpawnRegistration {
    /// Registers `A`.
    #[must_use]
    pub const fn of<A: Spawn>() -> Self {
        Self { hash: A::HASH, spawn: spawn_here::<A>, start: start_here::<A> }
    }
}

impl fmt::Debug for SpawnRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnRegistration").field("actor", &self.hash).finish_non_exhaustive()
    }
}

/// Stops an actor on any host, behind all messages that this host has sent to it before.
///
/// An actor that has already stopped is not an error. The stop is a call in the actor's own flow, or an
/// entry of its own mailbox on this host. A call to the host would overtake messages that are sent in
/// chunks or wait for credit.
///
/// # Errors
///
/// As any call: [`SendError`].
pub(crate) async fn stop_on_host(here: &Host, actor: ActorLocation) -> Result<(), SendError> {
    match stop_incarnation(here, actor).await {
        Err(SendError::NotDelivered(NotDelivered::ActorStopped)) => Ok(()),
        outcome => outcome,
    }
}

/// [`stop_on_host`] with an error for an incarnation that has ended already.
pub(super) async fn stop_incarnation(here: &Host, actor: ActorLocation) -> Result<(), SendError> {
    match actor.host == here.identity() {
        true => stop_here(here, actor.target).await,
        false => call_last(here, actor.host, actor.target, STOP).await,
    }
}

async fn stop_here(host: &Host, target: Target) -> Result<(), SendError> {
    let (reply, stopped) = oneshot::channel();
    let end = registry::stopped_by(host.identity());
    host.actors().find(target)?.stop(Responder::local(reply), end);
    // Dropped without a reply: the mailbox has closed.
    Ok(stopped.await.unwrap_or(Err(CallFailure::ActorStopped))?)
}

/// Services of a host that runs actors: spawning, watching and linking them.
pub fn actor_services(host: &Host, service: TypeHash, inbound: Inbound) {
    // Built on first use: the registrations of all linked crates are collected at run time.
    static SPAWNABLE: LazyLock<FxHashMap<TypeHash, SpawnRegistration>> =
        LazyLock::new(|| inventory::iter::<SpawnRegistration>.into_iter().map(|it| (it.hash, *it)).collect());
    match SPAWNABLE.get(&service) {
        Some(spawnable) => (spawnable.spawn)(host, inbound),
        None if service == START_ACTOR => start_incarnation_here(host, inbound, &SPAWNABLE),
        None if service == watch::WATCH => watch::serve_watch(host, inbound),
        None if service == watch::LINK => watch::serve_link(host, inbound),
        None => inbound.fail(&CallFailure::NotHandled {
            actor: "this executable".to_owned(),
            message: format!("spawning {}", host.registry().name_of(service)),
        }),
    }
}

fn spawn_here<A: Spawn>(host: &Host, inbound: Inbound) {
    let (body, deadline, responder) = inbound.into_parts::<Target>();
    let request = registry::decode::<(Option<ActorKey>, A::Args)>(&body);
    let (key, args) = match request {
        Ok(request) => request,
        Err(failure) => return responder.fail(failure),
    };
    if responder.is_expired_or_cancelled(deadline) {
        let end = End::new(EndReason::Killed, "its spawner has cancelled the request");
        report_failure(host, key, ActorIncarnation(0), end);
        return responder.fail(CallFailure::Expired);
    }
    create::<A>(host, host.actors().reserve(), key, args, responder, None);
}

/// Creates an incarnation of a managed actor, unless it exists.
fn start_here<A: Spawn>(host: &Host, start: StartActor, mut responder: Responder<Target>) {
    let StartActor { target, recipe, lease } = start;
    let key = target.actor.managed_number().map(ActorKey);
    if let Some(other) = host.actors().any_incarnation(target.actor) {
        match other.incarnation().cmp(&target.incarnation) {
            // A repeated command.
            Ordering::Equal => {
                responder.start();
                return responder.reply(target);
            }
            Ordering::Greater => {
                let text = "a later incarnation of the actor runs here".to_owned();
                return responder.fail(CallFailure::Refused { text });
            }
            // It was replaced while this worker could not be reached.
            Ordering::Less => {
                let end = End::new(EndReason::Evicted, "a later incarnation replaces it");
                other.stop(Responder::discard(host.as_reply_path()), Box::new(end));
            }
        }
    }
    // It runs user code.
    let decoded = panics::catch(|| recipe.args::<A::Args>().map_err(|error| error.to_string()));
    match decoded.and_then(|decoded| decoded) {
        Ok(args) => create::<A>(host, target, key, args, responder, lease),
        Err(error) => {
            let text = format!("its arguments cannot be decoded: {error}");
            report_failure(host, key, target.incarnation, End::new(EndReason::Refused, text.as_str()));
            responder.fail(CallFailure::Refused { text });
        }
    }
}

fn start_incarnation_here(host: &Host, inbound: Inbound, spawnable: &FxHashMap<TypeHash, SpawnRegistration>) {
    let (body, _, responder) = inbound.into_parts::<Target>();
    let start = match registry::decode::<StartActor>(&body) {
        Ok(start) => start,
        Err(failure) => return responder.fail(failure),
    };
    match spawnable.get(&start.recipe.kind) {
        Some(spawnable) => (spawnable.start)(host, start, responder),
        None => {
            let text = format!("this executable has no actor {}", host.registry().name_of(start.recipe.kind));
            let key = start.target.actor.managed_number().map(ActorKey);
            let end = End::new(EndReason::Refused, text.as_str());
            report_failure(host, key, start.target.incarnation, end);
            responder.fail(CallFailure::Refused { text });
        }
    }
}

/// Pause before a command that a worker has not answered is repeated.
const START_RETRY_DELAY: Duration = Duration::from_millis(500);

/// Outcome of the command to create an incarnation.
#[derive(Debug)]
pub(crate) enum StartOutcome {
    /// The worker reports the start or its failure, or the end of the worker is reported.
    Answered,
    /// The lease had run out as the command arrived: nothing was created, and nothing is reported.
    LeaseExpired,
    /// The command cannot be sent at all. This end is to be reported.
    NotSent(ActorEnd),
}

/// Creates an incarnation of a managed actor on a worker.
///
/// A lost command is repeated until the worker has answered it, or has ended.
pub(crate) async fn start_incarnation(
    here: &Host,
    at: ActorLocation,
    recipe: Recipe,
    lease: Option<LeaseGrant>,
) -> StartOutcome {
    let mut start = StartActor { target: at.target, recipe, lease };
    loop {
        let host = Target::HOST;
        let started = call_service::<_, Target>(here, at.host, host, START_ACTOR, &mut start, None).await;
        let reason = match started {
            Ok(_) | Err(SendError::Panicked { .. }) => return StartOutcome::Answered,
            Err(error) if here.is_closing() || has_host_ended(&error) => return StartOutcome::Answered,
            Err(SendError::NotDelivered(NotDelivered::Refused { .. } | NotDelivered::LowMemory { .. })) => {
                return StartOutcome::Answered;
            }
            Err(SendError::NotDelivered(NotDelivered::ActorStopped)) => return StartOutcome::LeaseExpired,
            Err(SendError::NotDelivered(NotDelivered::Unreachable { .. } | NotDelivered::Closing))
            | Err(SendError::OutcomeUnknown(_)) => {
                tokio::time::sleep(START_RETRY_DELAY).await;
                continue;
            }
            Err(SendError::NotDelivered(reason)) => reason,
        };
        log::warn!(?at, %reason, "cannot create an actor");
        let end = End::new(EndReason::Unknown, format!("it could not be created: {reason}"));
        return StartOutcome::NotSent(ActorEnd { incarnation: at.target.incarnation, end, handled: 0 });
    }
}

/// True if the receiver's process has ended, which its parent reports.
fn has_host_ended(error: &SendError) -> bool {
    match error {
        SendError::NotDelivered(NotDelivered::UnknownHost { .. } | NotDelivered::StaleHost { .. }) => true,
        SendError::NotDelivered(NotDelivered::Unreachable { reason, .. })
        | SendError::OutcomeUnknown(OutcomeUnknown::SessionLost { reason, .. }) => {
            matches!(reason, DisconnectReason::HostDown(_))
        }
        _ => false,
    }
}

/// Releases the cluster's assignment. The spawner may have gone, so it cannot be left to it.
fn report_failure(host: &Host, key: Option<ActorKey>, incarnation: ActorIncarnation, end: End) {
    if let (Some(key), Some(observer)) = (key, host.lifecycle_observer()) {
        observer.actor_stopped(key, ActorEnd { incarnation, end, handled: 0 });
    }
}

/// Creates an actor under a reserved target.
fn create<A: Spawn>(
    host: &Host,
    target: Target,
    key: Option<ActorKey>,
    args: A::Args,
    mut responder: Responder<Target>,
    lease: Option<LeaseGrant>,
) {
    // `actix_rt::spawn` below would panic.
    if actix_rt::Arbiter::try_current().is_none() {
        let text = "this host runs no actix arbiter, so it cannot run actors".to_owned();
        return responder.fail(CallFailure::Refused { text });
    }
    if let Err(failure) = host.admit_work(Instant::now()) {
        let end = End::new(EndReason::LowMemory, failure.to_string());
        report_failure(host, key, target.incarnation, end);
        return responder.fail(failure);
    }
    if let (None, Some(observer)) = (key, host.lifecycle_observer()) {
        observer.named(A::NAME);
    }
    let holder = lease.map(|grant| host.lease(grant).map(|lease| lease.join()));
    // Held to the end of the constructor.
    let running = holder.as_ref().map(|holder| holder.as_ref().and_then(LeaseHolder::enter));
    if let Some(None) = running {
        // Not reported: the command may be repeated under the next lease, for the same incarnation.
        return responder.fail(CallFailure::ActorStopped);
    }
    let holder = holder.flatten();
    if holder.is_some() && !host.admit_exclusive(target) {
        // A repeated command: this incarnation has ended, and its end is reported.
        responder.start();
        return responder.reply(target);
    }
    let context = Context::new();
    // Registered before `spawn`, since the actor may send its own address to others from there.
    let lease = holder.as_ref().map(|holder| Arc::clone(holder.lease()));
    host.register_actor(target, context.address(), true, key, lease);
    let at = SpawnContext {
        address: RemoteAddr::new(host.identity(), target, host),
        incarnation: target.incarnation,
        cluster: ClusterRef::new(host.clone()),
    };
    responder.start();
    let spawned = || panics::catch(|| A::spawn(args, &at).map_err(|error| error.to_string()));
    match synchronous::call(spawned) {
        Ok(Ok(actor)) => {
            let future = Some(context.into_future(actor));
            if let (Some(key), Some(observer)) = (key, host.lifecycle_observer()) {
                observer.actor_started(key, A::NAME, ActorLocation { host: host.identity(), target });
            }
            let runner = ActorRunner { future, host: host.clone(), target, key, holder: holder.clone() };
            actix_rt::spawn(crate::background::inherit(runner));
            responder.reply(target);
        }
        Ok(Err(text)) => {
            let end = End::new(EndReason::Refused, text.clone());
            host.actors().end(target, Some(Box::new(end.clone())));
            report_failure(host, key, target.incarnation, end);
            responder.fail(CallFailure::Refused { text });
        }
        Err(text) => {
            let end = registry::panicked(&text);
            host.actors().end(target, Some(Box::new(end)));
            report_failure(host, key, target.incarnation, End::new(EndReason::Panicked, text.as_str()));
            responder.fail(CallFailure::Panicked { text });
        }
    }
}

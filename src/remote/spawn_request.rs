//! An actor that is about to be spawned, with what its spawner wishes.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use super::addr::RemoteAddr;
use super::ask::call_host;
use super::spawn::{Spawn, SpawnError};
use crate::host::{Assignment, Host, Placement, PlacementResult, SendError, deadline_in};
use crate::id::Target;
use crate::spec::{ActorKey, ActorSpec, Lifetime, NodeId, Resources, Strategy};

/// An actor about to be spawned; awaiting it spawns it and gives its address.
///
/// Without wishes it goes to the next worker. With any, the cluster keeps account of it by name, by what
/// it holds of its node, or beyond the end of its job; where nothing has room now it waits.
///
/// # Cancel safety
///
/// Dropped before it was polled it spawns nothing; dropped later the actor may start all the same. A place that
/// it has not heard of by then is given back.
///
/// # Examples
///
/// ```
/// use std::convert::Infallible;
///
/// use roadshow::prelude::*;
///
/// #[derive(RemoteActor)]
/// struct Index;
///
/// impl Actor for Index {
///     type Context = Context<Self>;
/// }
///
/// impl Spawn for Index {
///     type Args = ();
///     type Error = Infallible;
///     fn spawn((): (), _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
///         Ok(Index)
///     }
/// }
///
/// # #[roadshow::main]
/// # async fn main() -> Result<(), roadshow::Error> {
/// let cluster = Cluster::in_process(2).await?;
/// let index = cluster.spawn::<Index>(()).name("index").await?;
/// let found: RemoteAddr<Index> = cluster.actor("index").await?;
/// assert_eq!(found, index);
/// cluster.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "an actor is spawned when the request is awaited"]
pub struct SpawnRequest<A: Spawn> {
    host: Host,
    args: A::Args,
    timeout: Option<Duration>,
    spec: Option<Box<ActorSpec>>,
}

impl<A: Spawn> SpawnRequest<A> {
    pub(super) fn new(host: Host, args: A::Args) -> Self {
        Self { host, args, timeout: None, spec: None }
    }

    /// Gives up after `timeout`, counted from the first poll.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Gives it a name, by which the job finds it with [`ClusterRef::actor`](crate::ClusterRef::actor).
    ///
    /// A name has one living owner in its namespace.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.with_spec(|spec| spec.name = Some(name.into()))
    }

    /// Puts its name into a namespace that other jobs can look into; by default a job has its own.
    pub fn namespace(self, namespace: impl Into<String>) -> Self {
        self.with_spec(|spec| spec.namespace = namespace.into())
    }

    /// Takes the living actor of that name if there is one.
    pub fn get_if_exists(self) -> Self {
        self.with_spec(|spec| spec.get_if_exists = true)
    }

    /// What it holds of its node as long as it lives, beside what it was given before.
    ///
    /// Of a resource that was given before, the later amount counts.
    pub fn resources(self, resources: Resources) -> Self {
        self.with_spec(|spec| spec.resources.0.extend(resources.0))
    }

    /// Processors of its node that it holds as long as it lives; the resource [`Resources::CPU`].
    pub fn num_cpus(self, cpus: f64) -> Self {
        self.with_spec(|spec| spec.resources = std::mem::take(&mut spec.resources).with(Resources::CPU, cpus))
    }

    /// How nodes are picked.
    pub fn strategy(self, strategy: Strategy) -> Self {
        self.with_spec(|spec| spec.strategy = strategy)
    }

    /// The one node that it may live on.
    pub fn node(self, node: NodeId) -> Self {
        self.with_spec(|spec| spec.node = Some(node))
    }

    /// A label that its node has to have.
    pub fn label(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.with_spec(|spec| drop(spec.labels.insert(name.into(), value.into())))
    }

    /// How long it lives.
    pub fn lifetime(self, lifetime: Lifetime) -> Self {
        self.with_spec(|spec| spec.lifetime = lifetime)
    }

    fn with_spec(mut self, wish: impl FnOnce(&mut ActorSpec)) -> Self {
        wish(self.spec.get_or_insert_with(Box::default));
        self
    }

    async fn run(self) -> Result<RemoteAddr<A>, SpawnError> {
        let Self { host, args, timeout, spec: wishes } = self;
        let deadline = timeout.and_then(deadline_in);
        let placement = host.placement().ok_or(SpawnError::NoWorker { actor: A::NAME })?;
        let placing = match placement.place_actor(&host, A::NAME, wishes.as_deref()) {
            PlacementResult::Now(placed) => placed,
            PlacementResult::Later(placing) => match deadline {
                None => placing.await,
                Some(deadline) => tokio::time::timeout_at(deadline.into(), placing)
                    .await
                    .map_err(|_| SpawnError::PlacementTimedOut { actor: A::NAME })?,
            },
        };
        let Assignment { host: there, actor, alive } = placing.map_err(SpawnError::not_placed::<A>)?;
        if let Some(target) = alive {
            return Ok(RemoteAddr::new(there, target, &host));
        }
        let mut place = PlacementGuard { placement: &*placement, host: &host, actor };
        let answer: Result<Target, SendError> =
            call_host(&host, there, A::HASH, (actor, args), deadline).await;
        match answer {
            Ok(target) => {
                place.actor = None;
                Ok(RemoteAddr::new(there, target, &host))
            }
            Err(error) => {
                match error {
                    // The actor may live, and its worker says so.
                    SendError::OutcomeUnknown(_) => place.actor = None,
                    _ => place.release(&error.to_string()),
                }
                Err(SpawnError::of::<A>(error))
            }
        }
    }
}

/// The place of an actor that has yet to come to life. Dropped before that, it is given up.
struct PlacementGuard<'a> {
    placement: &'a dyn Placement,
    host: &'a Host,
    actor: Option<ActorKey>,
}

impl PlacementGuard<'_> {
    fn release(&mut self, why: &str) {
        if let Some(actor) = self.actor.take() {
            self.placement.spawn_failed(self.host, actor, why);
        }
    }
}

impl Drop for PlacementGuard<'_> {
    fn drop(&mut self) {
        self.release("nobody waits for it any more");
    }
}

impl<A: Spawn> IntoFuture for SpawnRequest<A> {
    type Output = Result<RemoteAddr<A>, SpawnError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<A: Spawn> fmt::Debug for SpawnRequest<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnRequest")
            .field("actor", &A::NAME)
            .field("wishes", &self.spec)
            .finish_non_exhaustive()
    }
}

//! Request to spawn an actor, with its constraints.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::addr::RemoteAddr;
use super::ask::call_host;
use super::spawn::{Spawn, SpawnError};
use crate::host::{
    Assignment, Host, OutcomeUnknown, Placement, PlacementError, PlacementResult, SendError, deadline_in,
};
use crate::id::Target;
use crate::registry::RemoteActor;
use crate::spec::{ActorKey, ActorSpec, Lifetime, NodeId, Recipe, Resources, Restart, Strategy, Supervision};

/// Request to spawn an actor; awaiting it spawns the actor and returns its address.
///
/// Without constraints the actor goes to the next worker. With any, the cluster tracks it by name, by its
/// share of a node's resources, or beyond the end of its job. It waits while no node has capacity.
///
/// # Errors
///
/// Awaiting it returns a [`SpawnError`], which says whether an actor may have started.
///
/// # Cancel safety
///
/// Dropping the request before its first poll spawns nothing. After that the actor may still start. An
/// assignment that has not arrived by then is released.
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

    /// Cancels the request after `timeout`, counted from the first poll.
    ///
    /// # Errors
    ///
    /// [`SpawnError::PlacementTimedOut`] if the cluster has assigned no worker by then. Later,
    /// [`SpawnError::NotDelivered`] if it is certain that no actor started, otherwise
    /// [`SpawnError::OutcomeUnknown`]. An actor with a [`restart`](Self::restart) policy may have been created by then,
    /// which is always the latter; the cluster ends it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    #[doc = include_str!("counter_example.txt")]
    /// let spawned = cluster.spawn::<Counter>(40).num_cpus(1e6).timeout(Duration::from_millis(1)).await;
    /// assert!(spawned.is_err());
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets a name, by which the job finds the actor with
    /// [`ClusterRef::actor`](crate::ClusterRef::actor).
    ///
    /// A name has a single live owner in its namespace.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.with_spec(|spec| spec.name = Some(name.into()))
    }

    /// Sets a namespace that other jobs can search; by default a job has its own.
    pub fn namespace(self, namespace: impl Into<String>) -> Self {
        self.with_spec(|spec| spec.namespace = namespace.into())
    }

    /// Returns the live actor with the name, if there is one.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("counter_example.txt")]
    /// let first = cluster.spawn::<Counter>(40).name("total").get_if_exists().await?;
    /// let second = cluster.spawn::<Counter>(0).name("total").get_if_exists().await?;
    /// assert_eq!(first, second);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_if_exists(self) -> Self {
        self.with_spec(|spec| spec.get_if_exists = true)
    }

    /// Adds resources that the actor holds of its node during its lifetime.
    ///
    /// A later amount of the same resource replaces an earlier one.
    pub fn resources(self, resources: Resources) -> Self {
        self.with_spec(|spec| spec.resources.0.extend(resources.0))
    }

    /// Sets the CPUs that the actor holds of its node during its lifetime, as resource
    /// [`Resources::CPU`].
    pub fn num_cpus(self, cpus: f64) -> Self {
        self.with_spec(|spec| spec.resources = std::mem::take(&mut spec.resources).with(Resources::CPU, cpus))
    }

    /// Sets the strategy that selects the node.
    pub fn strategy(self, strategy: Strategy) -> Self {
        self.with_spec(|spec| spec.strategy = strategy)
    }

    /// Restricts the actor to a node.
    pub fn node(self, node: NodeId) -> Self {
        self.with_spec(|spec| spec.node = Some(node))
    }

    /// Requires a label of the node.
    pub fn label(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.with_spec(|spec| drop(spec.labels.insert(name.into(), value.into())))
    }

    /// Restarts the actor after failures, and when its worker or its node is lost.
    ///
    /// The actor becomes a *managed* one: its address outlives its incarnations. Each incarnation is created from the
    /// arguments of this request, and starts without the state of the earlier one. The cluster keeps the encoded
    /// arguments, of at most a mebibyte. What an incarnation has not begun to handle goes to the next one; a call that
    /// may have run ends as [`OutcomeUnknown`](crate::OutcomeUnknown).
    ///
    /// # Errors
    ///
    /// [`SpawnError::Placement`] if the arguments are too large, or with [`Lifetime::Detached`].
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("counter_example.txt")]
    /// let counter = cluster.spawn::<Counter>(40).restart(roadshow::Restart::on_failure()).await?;
    /// assert_eq!(counter.send(Add(2)).await?, 42);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn restart(self, policy: Restart) -> Self {
        self.with_spec(|spec| spec.restart = Some(policy))
    }

    /// Makes the actor a child of `parent`, which spawns it: it ends with the parent's present incarnation.
    ///
    /// The next incarnation of the parent spawns its own children. A child that fails more often than its policy
    /// allows fails its parent. Both have a [`restart`](Self::restart) policy; with `at_most(0)` it never restarts.
    ///
    /// # Errors
    ///
    /// [`SpawnError::Placement`] if the parent is not restartable, or has been restarted or ended.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("counter_example.txt")]
    /// use roadshow::Restart;
    ///
    /// let parent = cluster.spawn::<Counter>(0).restart(Restart::on_failure()).await?;
    /// let child = cluster.spawn::<Counter>(40).restart(Restart::on_failure()).child_of(&parent).await?;
    /// parent.stop().await?;
    /// // The child ends a moment later.
    /// while child.send(Add(2)).await.is_ok() {}
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn child_of<P: RemoteActor>(self, parent: &RemoteAddr<P>) -> Self {
        let target = parent.target_as_parent();
        // The control plane refuses a parent that it does not know, such as this one.
        let number = target.actor.managed_number().unwrap_or_default();
        self.with_spec(|spec| spec.parent = Some((ActorKey(number), target.incarnation)))
    }

    /// Sets the strategy by which the actor's own children restart together.
    pub fn supervise(self, supervision: Supervision) -> Self {
        self.with_spec(|spec| spec.supervision = supervision)
    }

    /// Fails the job if the actor fails more often than its [`restart`](Self::restart) policy allows.
    ///
    /// The message of the job names the actor that began it. Calls of the job then fail.
    pub fn essential(self) -> Self {
        self.with_spec(|spec| spec.essential = true)
    }

    /// Sets the lifetime of the actor.
    pub fn lifetime(self, lifetime: Lifetime) -> Self {
        self.with_spec(|spec| spec.lifetime = lifetime)
    }

    fn with_spec(mut self, set: impl FnOnce(&mut ActorSpec)) -> Self {
        set(self.spec.get_or_insert_with(Box::default));
        self
    }

    async fn run(self) -> Result<RemoteAddr<A>, SpawnError> {
        let Self { host, args, timeout, spec } = self;
        // A single deadline covers placement and spawn.
        let deadline = timeout.and_then(deadline_in);
        let placement = host.placement().ok_or(SpawnError::NoWorker { actor: A::NAME })?;
        if let Some(spec) = spec.as_deref().filter(|spec| spec.is_managed()) {
            return run_managed(&*placement, &host, spec.clone(), args, deadline).await;
        }
        let place = || match placement.place_actor(&host, A::NAME, spec.as_deref()) {
            PlacementResult::Now(Err(PlacementError::NoWorker)) => None,
            placed => Some(placed),
        };
        let Some(placed) = placement.with_worker(&host, deadline, place).await else {
            let is_late = deadline.is_some_and(|deadline| deadline <= tokio::time::Instant::now().into_std());
            let actor = A::NAME;
            return Err(match is_late {
                true => SpawnError::PlacementTimedOut { actor },
                false => SpawnError::NoWorker { actor },
            });
        };
        let assigned = match placed {
            PlacementResult::Now(placed) => placed,
            PlacementResult::Later(assigned) => match deadline {
                None => assigned.await,
                Some(deadline) => tokio::time::timeout_at(deadline.into(), assigned)
                    .await
                    .map_err(|_| SpawnError::PlacementTimedOut { actor: A::NAME })?,
            },
        };
        let Assignment { host: there, actor, alive } = assigned.map_err(SpawnError::placement::<A>)?;
        // An existing actor satisfies `get_if_exists`, so there is nothing to spawn.
        if let Some(target) = alive {
            return Ok(RemoteAddr::new(there, target, &host));
        }
        // From here on, dropping this future must release the assignment.
        let mut assignment = PlacementGuard { placement: &*placement, host: &host, actor };
        let reply: Result<Target, SendError> =
            call_host(&host, there, A::HASH, (actor, args), deadline).await;
        match reply {
            Ok(target) => {
                assignment.actor = None;
                Ok(RemoteAddr::new(there, target, &host))
            }
            Err(error) => {
                match error {
                    SendError::OutcomeUnknown(_) => assignment.give_up(),
                    _ => assignment.release(&error.to_string()),
                }
                Err(SpawnError::of::<A>(error))
            }
        }
    }
}

/// Creates a managed actor: the cluster creates each of its incarnations, the first one included.
async fn run_managed<A: Spawn>(
    placement: &dyn Placement,
    host: &Host,
    spec: ActorSpec,
    args: A::Args,
    deadline: Option<Instant>,
) -> Result<RemoteAddr<A>, SpawnError> {
    let recipe = Recipe::new(A::HASH, &args, host.limits().frame_bytes_max);
    // It may be large, and the recipe holds a copy.
    drop(args);
    let recipe = recipe.map_err(|error| SpawnError::NotDelivered { actor: A::NAME, reason: error.into() })?;
    let placed = placement.place_managed(host, A::NAME, spec, recipe);
    let placed = match deadline {
        None => placed.await,
        Some(deadline) => tokio::time::timeout_at(deadline.into(), placed)
            .await
            .map_err(|_| unknown::<A>(OutcomeUnknown::TimedOut))?,
    };
    let at = placed.map_err(|reason| match reason {
        PlacementError::Head { text } => unknown::<A>(OutcomeUnknown::Other { text }),
        reason => SpawnError::placement::<A>(reason),
    })?;
    Ok(RemoteAddr::new(at.host, at.target, host))
}

/// Error of a request that may have created an incarnation. The cluster ends the actor: its requester has no address.
fn unknown<A: Spawn>(reason: OutcomeUnknown) -> SpawnError {
    SpawnError::OutcomeUnknown { actor: A::NAME, reason }
}

/// Assignment of an actor that has not started. Dropping it releases the assignment.
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

    /// The actor may be live, and its worker reports it then. One whose request was cancelled on its way is never
    /// reported.
    fn give_up(&mut self) {
        if let Some(actor) = self.actor.take() {
            self.placement.spawn_given_up(self.host, actor);
        }
    }
}

impl Drop for PlacementGuard<'_> {
    fn drop(&mut self) {
        self.release("its spawner has cancelled the request");
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
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

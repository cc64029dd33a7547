//! Spawning of durable actors.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::actor::DurableActor;
use super::addr::DurableAddr;
use super::protocol::Durability;
use super::{Durable, DurableState};
use crate::host::Host;
use crate::remote::{ClusterRef, FindError, SpawnError, SpawnRequest};
use crate::spec::{NodeId, Resources, Restart, Strategy};

/// Arguments of a durable actor, with its options.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct DurableArgs<S: Durable> {
    pub(super) args: S::Args,
    pub(super) durability: Durability,
}

impl<S: Durable> fmt::Debug for DurableArgs<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableArgs").field("durability", &self.durability).finish_non_exhaustive()
    }
}

/// Request to spawn a durable actor; awaiting it spawns the actor and returns its address.
///
/// The actor restarts after each failure, without a limit unless [`restart`](Self::restart) sets one. The request
/// returns when the actor's process has it; its first message waits until the state is stored.
///
/// # Errors
///
/// Awaiting it returns a [`SpawnError`]. [`SpawnError::Placement`] on a cluster of nodes, which keeps no state of actors
/// in this version.
///
/// # Cancel safety
///
/// As [`SpawnRequest`].
#[must_use = "an actor is spawned when the request is awaited"]
pub struct DurableSpawn<S: Durable> {
    host: Host,
    args: S::Args,
    durability: Durability,
    set: Vec<SetOption<S>>,
}

/// Option of the request behind it.
type SetOption<S> = Box<dyn FnOnce(SpawnRequest<DurableActor<S>>) -> SpawnRequest<DurableActor<S>> + Send>;

impl<S: Durable> DurableSpawn<S> {
    fn new(host: Host, args: S::Args) -> Self {
        let policy = Restart::on_failure().at_most(u32::MAX);
        Self { host, args, durability: Durability::default(), set: Vec::new() }.restart(policy)
    }

    /// Stores each group of events on the disk before its replies leave, with a synchronising write.
    ///
    /// It needs a directory for the cluster's state
    /// ([`ClusterBuilder::state_dir`](crate::ClusterBuilder::state_dir)).
    pub fn sync(mut self) -> Self {
        self.durability = Durability::Synced;
        self
    }

    /// Sets the policy of restarts.
    pub fn restart(self, policy: Restart) -> Self {
        self.with(move |request| request.restart(policy))
    }

    /// As [`SpawnRequest::name`].
    pub fn name(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.with(move |request| request.name(name))
    }

    /// As [`SpawnRequest::get_if_exists`].
    pub fn get_if_exists(self) -> Self {
        self.with(SpawnRequest::get_if_exists)
    }

    /// As [`SpawnRequest::resources`].
    pub fn resources(self, resources: Resources) -> Self {
        self.with(move |request| request.resources(resources))
    }

    /// As [`SpawnRequest::strategy`].
    pub fn strategy(self, strategy: Strategy) -> Self {
        self.with(move |request| request.strategy(strategy))
    }

    /// As [`SpawnRequest::node`].
    pub fn node(self, node: NodeId) -> Self {
        self.with(move |request| request.node(node))
    }

    /// As [`SpawnRequest::timeout`].
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(move |request| request.timeout(timeout))
    }

    fn with(
        mut self,
        set: impl FnOnce(SpawnRequest<DurableActor<S>>) -> SpawnRequest<DurableActor<S>> + Send + 'static,
    ) -> Self {
        self.set.push(Box::new(set));
        self
    }

    async fn run(self) -> Result<DurableAddr<S>, SpawnError> {
        let Self { host, args, durability, set } = self;
        let actor = S::NAME;
        // An error here is one for the spawner. Later it would end the actor.
        let placement = host.placement().ok_or(SpawnError::NoWorker { actor })?;
        let holder = placement.state_holder(&host, None).await;
        holder.map_err(|reason| SpawnError::Placement { actor, reason })?;
        let cluster = ClusterRef::new(host);
        let request = cluster.spawn::<DurableActor<S>>(DurableArgs { args, durability });
        let request = set.into_iter().fold(request, |request, set| set(request));
        Ok(DurableAddr::new(request.await?))
    }
}

impl<S: Durable> IntoFuture for DurableSpawn<S> {
    type Output = Result<DurableAddr<S>, SpawnError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<S: Durable> fmt::Debug for DurableSpawn<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableSpawn")
            .field("actor", &<S as DurableState>::NAME)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

impl ClusterRef {
    /// Spawns a [durable](Durable) actor.
    ///
    /// # Errors
    ///
    /// The request returns a [`SpawnError`].
    ///
    /// # Cancel safety
    ///
    /// See [`DurableSpawn`].
    pub fn spawn_durable<S: Durable>(&self, args: S::Args) -> DurableSpawn<S> {
        DurableSpawn::new(self.host.clone(), args)
    }

    /// Finds the durable actor with a name in this job's namespace.
    ///
    /// # Errors
    ///
    /// [`FindError`], as [`ClusterRef::actor`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn durable_actor<S: Durable>(&self, name: &str) -> Result<DurableAddr<S>, FindError> {
        self.actor::<DurableActor<S>>(name).await.map(DurableAddr::new)
    }
}

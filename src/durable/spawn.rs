//! Spawning of durable actors.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::num::NonZeroU8;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::actor::DurableActor;
use super::addr::DurableAddr;
use super::{Durable, DurableState};
use crate::config::STATE_COPIES;
use crate::host::Host;
use crate::remote::{ClusterRef, FindError, SpawnError, SpawnRequest};
use crate::spec::{Copies, NodeId, Resources, Restart, Strategy};

/// Arguments of a durable actor, with its options.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct DurableArgs<S: Durable> {
    pub(super) args: S::Args,
    pub(super) copies: Copies,
}

impl<S: Durable> fmt::Debug for DurableArgs<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableArgs").field("copies", &self.copies).finish_non_exhaustive()
    }
}

/// Request to spawn a durable actor; awaiting it spawns the actor and returns its address.
///
/// The actor restarts after each failure, without a limit unless [`restart`](Self::restart) sets one. The request
/// returns when the actor's process has it; its first message waits until the state is stored.
///
/// # Errors
///
/// Awaiting it returns a [`SpawnError`]: [`SpawnError::Placement`] if the cluster has too few nodes for the
/// [required copies](Self::copies).
///
/// # Cancel safety
///
/// As [`SpawnRequest`].
#[must_use = "an actor is spawned when the request is awaited"]
pub struct DurableSpawn<S: Durable> {
    host: Host,
    args: S::Args,
    copies: Copies,
    set: Vec<SetOption<S>>,
}

/// Option of the request behind it.
type SetOption<S> = Box<dyn FnOnce(SpawnRequest<DurableActor<S>>) -> SpawnRequest<DurableActor<S>> + Send>;

impl<S: Durable> DurableSpawn<S> {
    fn new(host: Host, args: S::Args) -> Self {
        let policy = Restart::on_failure().at_most(u32::MAX);
        Self { host, args, copies: Copies { wanted: STATE_COPIES, is_required: false }, set: Vec::new() }
            .restart(policy)
    }

    /// Requires a number of copies of the state, each on a node of its own: the actor serves nothing with fewer.
    ///
    /// Without it there are two, or one while no second node can be reached. A local cluster has one node.
    pub fn copies(mut self, copies: NonZeroU8) -> Self {
        self.copies = Copies { wanted: copies.get(), is_required: true };
        self
    }

    /// Sets the policy of restarts. An actor that has used it up ends for good, with its state.
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
        let Self { host, args, copies, set } = self;
        let actor = S::NAME;
        // An error here is one for the spawner. Later it would end the actor.
        let placement = host.placement().ok_or(SpawnError::NoWorker { actor })?;
        let checked = placement.check_holders(&host, copies).await;
        checked.map_err(|reason| SpawnError::Placement { actor, reason })?;
        let cluster = ClusterRef::new(host);
        let request = cluster.spawn::<DurableActor<S>>(DurableArgs { args, copies });
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
            .field("copies", &self.copies)
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

//! The cluster as seen from anywhere in it.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use actix::Addr;

use super::addr::RemoteAddr;
use super::address::ask_host;
use super::recipient::RemoteRecipient;
use super::spawn::{Spawn, SpawnError};
use crate::host::{Host, SendError, deadline_in};
use crate::id::Target;
use crate::observe::HostSnapshot;
use crate::registry::{RemoteActor, RemoteMessage};

/// A reference to the cluster: cheap to clone, for actors and functions that use the cluster
/// without owning it.
///
/// The driver has it from `Cluster`, a remote actor from its `SpawnContext`.
#[derive(Clone)]
pub struct ClusterRef {
    pub(crate) host: Host,
}

impl ClusterRef {
    /// The cluster that `host` is a member of.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self { host }
    }

    /// Spawns an actor on one of the workers, which take turns.
    ///
    /// # Errors
    ///
    /// The request gives a [`SpawnError`].
    pub fn spawn<A: Spawn>(&self, args: A::Args) -> SpawnRequest<A> {
        SpawnRequest { host: self.host.clone(), args, timeout: None }
    }

    /// Makes an actor that was started here reachable from the whole cluster.
    ///
    /// The address keeps the actor alive until it stops itself or is stopped by address.
    #[must_use]
    pub fn serve<A: RemoteActor>(&self, addr: Addr<A>) -> RemoteAddr<A> {
        let target = self.host.actors().reserve();
        self.host.reach(target, addr);
        RemoteAddr::new(self.host.identity(), target, &self.host)
    }

    /// Binds an address that was decoded outside of the cluster's messages.
    #[must_use]
    pub fn bind<A: RemoteActor>(&self, addr: &RemoteAddr<A>) -> RemoteAddr<A> {
        RemoteAddr::of(addr.address().bind(&self.host))
    }

    /// Binds a recipient that was decoded outside of the cluster's messages.
    #[must_use]
    pub fn bind_recipient<M: RemoteMessage>(&self, recipient: &RemoteRecipient<M>) -> RemoteRecipient<M> {
        RemoteRecipient::new(recipient.address().bind(&self.host))
    }

    /// What can be seen of this process's part of the cluster now.
    #[must_use]
    pub fn snapshot(&self) -> HostSnapshot {
        self.host.snapshot()
    }
}

impl fmt::Debug for ClusterRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterRef").field("host", &self.host.identity()).finish()
    }
}

/// An actor about to be spawned; awaiting it spawns it and gives its address.
///
/// # Cancel safety
///
/// Dropped before it was polled it spawns nothing; dropped later the actor may start all the same.
#[must_use = "an actor is spawned when the request is awaited"]
pub struct SpawnRequest<A: Spawn> {
    host: Host,
    args: A::Args,
    timeout: Option<Duration>,
}

impl<A: Spawn> SpawnRequest<A> {
    /// Gives up after `timeout`, counted from the first poll.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    async fn run(self) -> Result<RemoteAddr<A>, SpawnError> {
        let there = self.host.placement().and_then(|placement| placement.place_actor());
        let there = there.ok_or(SpawnError::NoWorker { actor: A::NAME })?;
        let deadline = self.timeout.and_then(deadline_in);
        let answer: Result<Target, SendError> =
            ask_host(&self.host, there, A::HASH, self.args, deadline).await;
        let target = answer.map_err(SpawnError::of::<A>)?;
        Ok(RemoteAddr::new(there, target, &self.host))
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
        f.debug_struct("SpawnRequest").field("actor", &A::NAME).finish_non_exhaustive()
    }
}

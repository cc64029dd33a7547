//! The cluster as seen from anywhere in it.

use std::fmt;

use actix::Addr;
use thiserror::Error;

use super::addr::RemoteAddr;
use super::recipient::RemoteRecipient;
use super::spawn::Spawn;
use super::spawn_request::SpawnRequest;
use crate::host::{Host, PlacementError};
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

    /// Spawns an actor on a worker: the next in turn in a local cluster, on a cluster of nodes one that the head
    /// chooses.
    ///
    /// # Errors
    ///
    /// The request gives a [`SpawnError`](crate::SpawnError).
    pub fn spawn<A: Spawn>(&self, args: A::Args) -> SpawnRequest<A> {
        SpawnRequest::new(self.host.clone(), args)
    }

    /// The living actor of that name in this job's namespace.
    ///
    /// # Errors
    ///
    /// [`FindError`] if there is none, it is of another type, or the cluster's head does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn actor<A: RemoteActor>(&self, name: &str) -> Result<RemoteAddr<A>, FindError> {
        self.find(None, name).await
    }

    /// The living actor of that name in another namespace.
    ///
    /// # Errors
    ///
    /// As [`ClusterRef::actor`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn actor_in<A: RemoteActor>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<RemoteAddr<A>, FindError> {
        self.find(Some(namespace), name).await
    }

    async fn find<A: RemoteActor>(
        &self,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<RemoteAddr<A>, FindError> {
        let placement = self.host.placement().ok_or(PlacementError::NoWorker)?;
        let (class, at) = placement.find_actor(&self.host, namespace, name).await?;
        if class != A::NAME {
            return Err(FindError::OtherType { name: name.to_owned(), actor: A::NAME, class });
        }
        Ok(RemoteAddr::new(at.host, at.target, &self.host))
    }

    /// Makes an actor that was started here reachable from the whole cluster.
    ///
    /// The address keeps the actor alive until it stops itself or is stopped by address.
    #[must_use]
    pub fn register<A: RemoteActor>(&self, addr: Addr<A>) -> RemoteAddr<A> {
        let target = self.host.actors().reserve();
        self.host.register_actor(target, addr);
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

/// Why an actor was not found by its name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FindError {
    /// The cluster does not give it.
    #[error(transparent)]
    NotFound(#[from] PlacementError),
    /// It is of another type.
    #[error("the actor {name:?} is no {actor}: it is a {class}")]
    OtherType {
        /// The name.
        name: String,
        /// The type that was asked for.
        actor: &'static str,
        /// The type that it has.
        class: String,
    },
}

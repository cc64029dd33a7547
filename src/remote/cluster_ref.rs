//! Reference to the cluster, available on all of its hosts.

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

/// Reference to the cluster, cheap to clone, for actors and functions that do not own it.
///
/// The driver gets it from `Cluster`, a remote actor from its `SpawnContext`.
#[derive(Clone)]
pub struct ClusterRef {
    pub(crate) host: Host,
}

impl ClusterRef {
    /// Creates a reference to the cluster that `host` is a member of.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self { host }
    }

    /// Spawns an actor on a worker.
    ///
    /// In a local cluster the workers take turns; in a cluster of nodes the head selects one.
    ///
    /// # Errors
    ///
    /// The request returns a [`SpawnError`](crate::SpawnError).
    ///
    /// # Cancel safety
    ///
    /// See [`SpawnRequest`].
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("counter_example.txt")]
    /// let counter: RemoteAddr<Counter> = cluster.spawn::<Counter>(40).await?;
    /// assert_eq!(counter.send(Add(2)).await?, 42);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn<A: Spawn>(&self, args: A::Args) -> SpawnRequest<A> {
        SpawnRequest::new(self.host.clone(), args)
    }

    /// Finds the live actor with a name in this job's namespace.
    ///
    /// # Errors
    ///
    /// [`FindError`] if there is none, if it has another type, or if the cluster's head does not reply.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("counter_example.txt")]
    /// let counter = cluster.spawn::<Counter>(40).name("total").await?;
    /// let found: RemoteAddr<Counter> = cluster.actor("total").await?;
    /// assert_eq!(found, counter);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn actor<A: RemoteActor>(&self, name: &str) -> Result<RemoteAddr<A>, FindError> {
        self.find(None, name).await
    }

    /// Finds the live actor with a name in another namespace.
    ///
    /// # Errors
    ///
    /// [`FindError`], as [`ClusterRef::actor`].
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
        // Otherwise only the first message would fail, with a less specific error.
        if class != A::NAME {
            return Err(FindError::OtherType { name: name.to_owned(), actor: A::NAME, class });
        }
        Ok(RemoteAddr::new(at.host, at.target, &self.host))
    }

    /// Makes an actor that was started here reachable from the whole cluster.
    ///
    /// The address keeps the actor alive until it stops itself or is stopped by address.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("counter_example.txt")]
    /// let here: Addr<Counter> = Counter(40).start();
    /// let counter: RemoteAddr<Counter> = cluster.register(here);
    /// assert_eq!(counter.send(Add(2)).await?, 42);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn register<A: RemoteActor>(&self, addr: Addr<A>) -> RemoteAddr<A> {
        let target = self.host.actors().reserve();
        self.host.register_actor(target, addr, false, None, None);
        RemoteAddr::new(self.host.identity(), target, &self.host)
    }

    /// Binds an address that was decoded outside of the cluster's messages.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("counter_example.txt")]
    /// # let counter = cluster.spawn::<Counter>(40).await?;
    /// let text = serde_json::to_string(&counter).map_err(std::io::Error::from)?;
    /// let read: RemoteAddr<Counter> = serde_json::from_str(&text).map_err(std::io::Error::from)?;
    /// assert!(read.send(Add(1)).await.is_err());
    /// assert_eq!(cluster.bind(&read).send(Add(2)).await?, 42);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn bind<A: RemoteActor>(&self, addr: &RemoteAddr<A>) -> RemoteAddr<A> {
        RemoteAddr::of(addr.address().bind(&self.host))
    }

    /// Binds a recipient that was decoded outside of the cluster's messages.
    #[must_use]
    pub fn bind_recipient<M: RemoteMessage>(&self, recipient: &RemoteRecipient<M>) -> RemoteRecipient<M> {
        RemoteRecipient::new(recipient.address().bind(&self.host))
    }

    /// Snapshot of this process's part of the cluster.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("counter_example.txt")]
    /// # let counter = cluster.spawn::<Counter>(40).await?;
    /// counter.stop().await?;
    /// counter.do_send(Add(2));
    /// let lost = cluster.snapshot().dead_letters;
    /// println!("{lost} messages had no receiver, as far as this process knows");
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
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

/// Reason why an actor was not found by its name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FindError {
    /// The cluster has no such actor, or did not reply.
    #[error(transparent)]
    NotFound(#[from] PlacementError),
    /// The actor has another type.
    #[error("the actor {name:?} is not a {actor}: it is a {class}")]
    OtherType {
        /// Name of the actor.
        name: String,
        /// Requested type.
        actor: &'static str,
        /// Actual type.
        class: String,
    },
}

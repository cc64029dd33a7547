//! Typed address of an actor.

use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::address::Address;
use super::recipient::RemoteRecipient;
use super::request::{Request, TrySendError};
use crate::host::{Host, NotDelivered, SendError};
use crate::id::{ActorId, HostUid, Target};
use crate::registry::{HandledBy, RemoteActor};
use crate::spec::ActorLocation;

/// Address of an actor on any host of the cluster.
///
/// It corresponds to actix's `Addr`, and may be sent inside messages. An address that is decoded from a
/// message is bound to the receiver's host. One that is decoded elsewhere (from a file, say) is unbound
/// until [`ClusterRef::bind`](crate::ClusterRef::bind), and sends nothing before.
///
/// Messages from one host to one actor are handled in the order in which they were sent. To an actor on
/// the same host a message is moved, unless it is restartable; to any other it is serialized.
pub struct RemoteAddr<A> {
    address: Address,
    // A function type, so that the address is `Send` and `Sync` for every actor type.
    actor: PhantomData<fn() -> A>,
}

impl<A: RemoteActor> RemoteAddr<A> {
    pub(crate) fn new(host: HostUid, target: Target, here: &Host) -> Self {
        Self::of(Address::new(ActorLocation { host, target }, Some(here.clone())))
    }

    pub(super) fn of(address: Address) -> Self {
        Self { address, actor: PhantomData }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a message and waits for the reply.
    ///
    /// # Errors
    ///
    /// The request returns a [`SendError`], which says whether the message may be sent again.
    ///
    /// # Cancel safety
    ///
    /// See [`Request`].
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("counter_example.txt")]
    /// # let counter = cluster.spawn::<Counter>(40).await?;
    /// assert_eq!(counter.send(Add(2)).await?, 42);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send<M: HandledBy<A>>(&self, message: M) -> Request<M> {
        self.address.send(message)
    }

    /// Sends a one-way message, and waits while the queue is full.
    ///
    /// It also yields when the task's budget of tokio is used up. Once it returns, the message is queued
    /// in order and is lost only with the session. The outcome is not reported: if the actor has stopped,
    /// the message is a dead letter.
    ///
    /// # Errors
    ///
    /// [`NotDelivered`] if the message cannot be queued at all.
    ///
    /// # Cancel safety
    ///
    /// A future dropped before it is ready has sent nothing.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("counter_example.txt")]
    /// # let counter = cluster.spawn::<Counter>(40).await?;
    /// counter.tell(Add(1)).await?;
    /// counter.tell(Add(1)).await?;
    /// // This host sends it later, so the actor handles it later.
    /// assert_eq!(counter.send(Add(0)).await?, 42);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "the message is sent when the future is awaited"]
    pub fn tell<M: HandledBy<A>>(
        &self,
        message: M,
    ) -> impl Future<Output = Result<(), NotDelivered>> + Send + use<A, M> {
        // Cloned, so that the future does not borrow the address.
        let address = self.address.clone();
        async move { address.tell(message).await }
    }

    /// Sends a one-way message without waiting.
    ///
    /// actix's `do_send` grows the mailbox without bound. This one has limits for the bytes in flight to
    /// the host and for those queued for the actor; beyond them the message is a dead letter.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("counter_example.txt")]
    /// # let counter = cluster.spawn::<Counter>(40).await?;
    /// counter.do_send(Add(2));
    /// assert_eq!(counter.send(Add(0)).await?, 42);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn do_send<M: HandledBy<A>>(&self, message: M) {
        self.address.do_send(message);
    }

    /// Sends a message immediately, or returns it.
    ///
    /// The returned request is queued already; awaiting it returns the reply.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the message, if it cannot be queued immediately.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("counter_example.txt")]
    /// # let counter = cluster.spawn::<Counter>(40).await?;
    /// match counter.try_send(Add(2)) {
    ///     Ok(request) => assert_eq!(request.await?, 42),
    ///     Err(error) => println!("{} was not sent: {}", error.message.0, error.reason),
    /// }
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[inline(always)]
    pub fn try_send<M: HandledBy<A>>(&self, message: M) -> Result<Request<M>, TrySendError<M>> {
        self.address.try_send(message)
    }

    /// Stops the actor behind everything that this host has sent to it before.
    ///
    /// That includes each `do_send` and `tell` that has returned, and each `send` that was polled. The
    /// stop waits for capacity and credit as a message does. It returns when the actor processes it, like
    /// `ctx.stop()`; later messages fail as not delivered. An actor that has already stopped is not an
    /// error.
    ///
    /// # Errors
    ///
    /// [`SendError`] if the host cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// A future dropped after its first poll may stop the actor or not.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("counter_example.txt")]
    /// # let counter = cluster.spawn::<Counter>(40).await?;
    /// counter.stop().await?;
    /// let late = counter.send(Add(2)).await;
    /// assert!(late.is_err_and(|error| error.is_not_delivered()));
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop(&self) -> impl Future<Output = Result<(), SendError>> + Send + use<A> {
        let address = self.address.clone();
        async move { address.stop().await }
    }

    /// Returns `false` once this host knows that the actor or its host is down, and for an unbound
    /// address.
    ///
    /// It sends no message: an actor that has stopped may count as connected until a message to it fails.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.address.connected()
    }

    /// The same address for a single message type, without the actor's type.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("counter_example.txt")]
    /// # let counter = cluster.spawn::<Counter>(40).await?;
    /// let adder: RemoteRecipient<Add> = counter.recipient();
    /// assert_eq!(adder.send(Add(2)).await?, 42);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn recipient<M: HandledBy<A>>(&self) -> RemoteRecipient<M> {
        RemoteRecipient::new(self.address.clone())
    }

    /// Location of the actor, in the incarnation that this address names.
    pub(crate) fn location(&self) -> ActorLocation {
        self.address.location
    }

    /// Target of the actor as a parent: the incarnation that runs here if it is one of this host, and otherwise the
    /// latest known one.
    pub(super) fn target_as_parent(&self) -> Target {
        let is_here = self.address.here().is_ok_and(|here| here.identity() == self.address.location.host);
        if is_here { self.address.location.target } else { self.address.present().target }
    }

    /// Host of the actor, in its latest known incarnation.
    #[must_use]
    pub fn host(&self) -> HostUid {
        self.address.present().host
    }

    /// Id of the actor on its host; that of a restartable actor is the same on each.
    #[must_use]
    pub fn actor(&self) -> ActorId {
        self.address.location.target.actor
    }
}

impl<A> Clone for RemoteAddr<A> {
    fn clone(&self) -> Self {
        Self { address: self.address.clone(), actor: PhantomData }
    }
}

impl<A> PartialEq for RemoteAddr<A> {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl<A> Eq for RemoteAddr<A> {}

impl<A> Hash for RemoteAddr<A> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address.hash(state);
    }
}

impl<A: RemoteActor> fmt::Display for RemoteAddr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = A::NAME.rsplit("::").next().unwrap_or(A::NAME);
        write!(f, "{name}@{:?}", self.address)
    }
}

impl<A> fmt::Debug for RemoteAddr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteAddr({:?})", self.address)
    }
}

impl<A> Serialize for RemoteAddr<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.address.serialize(serializer)
    }
}

impl<'de, A> Deserialize<'de> for RemoteAddr<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { address: Address::deserialize(deserializer)?, actor: PhantomData })
    }
}

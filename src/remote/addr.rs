//! The address of an actor, typed.

use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::address::Address;
use super::recipient::RemoteRecipient;
use super::request::{Request, TrySendError};
use super::spawn::stop_on_host;
use crate::host::{Host, NotDelivered, SendError};
use crate::id::{ActorId, HostUid, Target};
use crate::registry::{HandledBy, RemoteActor};
use crate::spec::ActorLocation;

/// The address of an actor, wherever in the cluster it lives.
///
/// It is what `Addr` is in actix, and may travel inside messages: one that is decoded from a
/// message is bound to the receiver's host. One that is decoded elsewhere (from a file, say) is
/// unbound until [`ClusterRef::bind`](crate::ClusterRef::bind), and sends nothing before.
///
/// Messages from one host to one actor are handled in the order in which they were sent. To an
/// actor on this very host a message moves as it is; to any other it is serialized.
pub struct RemoteAddr<A> {
    address: Address,
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

    /// Sends a message and waits for the answer.
    ///
    /// # Errors
    ///
    /// The request gives a [`SendError`], which tells whether the message may be sent again.
    ///
    /// # Cancel safety
    ///
    /// See [`Request`].
    pub fn send<M: HandledBy<A>>(&self, message: M) -> Request<M> {
        self.address.send(message)
    }

    /// Sends a message one way, waiting for room if there is none, and for its task's next turn if that has
    /// used up tokio's budget for this one.
    ///
    /// Once it returns, the message is queued, in order behind those before it, and lost only with
    /// the session. What becomes of it is not reported: if the actor has stopped it is a dead letter.
    ///
    /// # Errors
    ///
    /// [`NotDelivered`] if it cannot be put on its way at all.
    ///
    /// # Cancel safety
    ///
    /// A future dropped before it is ready has sent nothing.
    #[must_use = "a message is told when the future is awaited"]
    pub fn tell<M: HandledBy<A>>(
        &self,
        message: M,
    ) -> impl Future<Output = Result<(), NotDelivered>> + Send + use<A, M> {
        let address = self.address.clone();
        async move { address.tell(message).await }
    }

    /// Sends a message one way and never waits.
    ///
    /// Where actix's `do_send` grows the mailbox without bound, this one has budgets, for what is on
    /// its way to the host and for what waits for the actor: beyond them the message is a dead letter.
    pub fn do_send<M: HandledBy<A>>(&self, message: M) {
        self.address.do_send(message);
    }

    /// Sends a message now or gives it back.
    ///
    /// The request that it returns is under way already; awaiting it gives the answer.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the message, if it cannot be queued at once.
    #[inline(always)]
    pub fn try_send<M: HandledBy<A>>(&self, message: M) -> Result<Request<M>, TrySendError<M>> {
        self.address.try_send(message)
    }

    /// Stops the actor behind everything that this host has sent to it before.
    ///
    /// That is each `do_send` and `tell` that has returned, and each `send` that was polled. The stop
    /// waits for room and credit as a message does. Returns when the actor comes to it, as to
    /// `ctx.stop()`; messages behind it fail as not delivered. An actor that has stopped already is no
    /// error.
    ///
    /// # Errors
    ///
    /// [`SendError`] if the host cannot be told.
    ///
    /// # Cancel safety
    ///
    /// A future dropped after its first poll may stop the actor or not.
    pub fn stop(&self) -> impl Future<Output = Result<(), SendError>> + Send + use<A> {
        let address = self.address.clone();
        async move { stop_on_host(address.here()?, address.location).await }
    }

    /// `false` once this host knows that the actor or its host is gone, and for an unbound address.
    ///
    /// It asks nobody: an actor that has stopped may count as connected until a message to it fails.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.address.connected()
    }

    /// The same address for one message type only, without the actor's type.
    #[must_use]
    pub fn recipient<M: HandledBy<A>>(&self) -> RemoteRecipient<M> {
        RemoteRecipient::new(self.address.clone())
    }

    /// The host that the actor lives on.
    #[must_use]
    pub fn host(&self) -> HostUid {
        self.address.location.host
    }

    /// The actor's id on its host.
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

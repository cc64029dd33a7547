//! Address of an actor of any type that handles a given message.

use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::address::Address;
use super::request::{Request, TrySendError};
use crate::host::NotDelivered;
use crate::registry::RemoteMessage;

/// Address for one message type, independent of the actor's type, like actix's `Recipient`.
///
/// Its methods are those of [`RemoteAddr`](crate::RemoteAddr).
pub struct RemoteRecipient<M> {
    address: Address,
    // A function type, so that the recipient is `Send` and `Sync` for every message type.
    message: PhantomData<fn(M)>,
}

impl<M: RemoteMessage> RemoteRecipient<M> {
    pub(super) fn new(address: Address) -> Self {
        Self { address, message: PhantomData }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a message and waits for the reply, as [`RemoteAddr::send`](crate::RemoteAddr::send).
    ///
    /// # Errors
    ///
    /// The request returns a [`SendError`](crate::SendError).
    ///
    /// # Cancel safety
    ///
    /// See [`Request`].
    pub fn send(&self, message: M) -> Request<M> {
        self.address.send(message)
    }

    /// Sends a one-way message, as [`RemoteAddr::tell`](crate::RemoteAddr::tell).
    ///
    /// # Errors
    ///
    /// [`NotDelivered`] if the message cannot be queued at all.
    ///
    /// # Cancel safety
    ///
    /// A future dropped before it is ready has sent nothing.
    #[must_use = "the message is sent when the future is awaited"]
    pub fn tell(&self, message: M) -> impl Future<Output = Result<(), NotDelivered>> + Send + use<M> {
        let address = self.address.clone();
        async move { address.tell(message).await }
    }

    /// Sends a one-way message without waiting, as [`RemoteAddr::do_send`](crate::RemoteAddr::do_send).
    pub fn do_send(&self, message: M) {
        self.address.do_send(message);
    }

    /// Sends a message immediately or returns it, as
    /// [`RemoteAddr::try_send`](crate::RemoteAddr::try_send).
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the message, if it cannot be queued immediately.
    pub fn try_send(&self, message: M) -> Result<Request<M>, TrySendError<M>> {
        self.address.try_send(message)
    }

    /// Returns the known state of the actor, as [`RemoteAddr::connected`](crate::RemoteAddr::connected).
    #[must_use]
    pub fn connected(&self) -> bool {
        self.address.connected()
    }
}

impl<M> Clone for RemoteRecipient<M> {
    fn clone(&self) -> Self {
        Self { address: self.address.clone(), message: PhantomData }
    }
}

impl<M> PartialEq for RemoteRecipient<M> {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl<M> Eq for RemoteRecipient<M> {}

impl<M> Hash for RemoteRecipient<M> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address.hash(state);
    }
}

impl<M> fmt::Debug for RemoteRecipient<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteRecipient({:?})", self.address)
    }
}

impl<M> Serialize for RemoteRecipient<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.address.serialize(serializer)
    }
}

impl<'de, M> Deserialize<'de> for RemoteRecipient<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { address: Address::deserialize(deserializer)?, message: PhantomData })
    }
}

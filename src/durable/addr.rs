//! Address of a durable actor, and calls to it.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::actor::DurableActor;
use super::answered::{CallerId, Key};
use super::{Decide, Durable};
use crate::host::entropy::random_u64;
use crate::host::{NotDelivered, SendError};
use crate::id::TypeHash;
use crate::lock::Mutex;
use crate::registry::RemoteMessage;
use crate::registry::schema::SchemaCollector;
use crate::remote::{RemoteAddr, Request, Retry};
use crate::spec::ActorLocation;

/// Address of a durable actor, which outlives its incarnations.
///
/// It may be sent inside messages, and be kept in the states of durable actors.
pub struct DurableAddr<S: Durable> {
    address: RemoteAddr<DurableActor<S>>,
    caller: Arc<Caller>,
}

impl<S: Durable> DurableAddr<S> {
    pub(super) fn new(address: RemoteAddr<DurableActor<S>>) -> Self {
        Self { address, caller: Arc::default() }
    }

    pub(super) fn location(&self) -> ActorLocation {
        self.address.location()
    }

    /// Sends a message and waits for the reply, which comes after the message's events are stored.
    ///
    /// # Errors
    ///
    /// The request returns a [`SendError`], which says whether the message may be sent again. With
    /// [`retry`](DurableRequest::retry) the library does that.
    ///
    /// # Cancel safety
    ///
    /// Dropping the request before its first poll sends nothing. Dropping it later may leave the message decided or
    /// not.
    pub fn send<M: RemoteMessage>(&self, message: M) -> DurableRequest<S, M>
    where
        S: Decide<M>,
    {
        DurableRequest {
            to: self.clone(),
            options: Options { retry: None, timeout: None, key: None },
            state: State::Unsent(Some(message)),
        }
    }

    /// Stops the actor behind everything that this host has sent to it before. Its state is removed.
    ///
    /// # Errors
    ///
    /// [`SendError`] if the actor cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// A future dropped after its first poll may stop the actor or not.
    pub fn stop(&self) -> impl Future<Output = Result<(), SendError>> + Send + use<S> {
        self.address.stop()
    }

    /// Address of the actor that runs the state, for watches and links.
    #[must_use]
    pub fn actor(&self) -> &RemoteAddr<DurableActor<S>> {
        &self.address
    }
}

impl<S: Durable> Clone for DurableAddr<S> {
    fn clone(&self) -> Self {
        Self { address: self.address.clone(), caller: Arc::clone(&self.caller) }
    }
}

impl<S: Durable> PartialEq for DurableAddr<S> {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl<S: Durable> Eq for DurableAddr<S> {}

impl<S: Durable> fmt::Debug for DurableAddr<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableAddr({})", self.address)
    }
}

impl<S: Durable> Serialize for DurableAddr<S> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        self.address.serialize(serializer)
    }
}

impl<'de, S: Durable> Deserialize<'de> for DurableAddr<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RemoteAddr::deserialize(deserializer).map(Self::new)
    }
}

/// Use of an address by one process, over all clones. It numbers the calls that may be repeated.
#[derive(Debug, Default)]
struct Caller(Mutex<CallerState>);

#[derive(Debug, Default)]
struct CallerState {
    id: Option<CallerId>,
    next: u64,
    open: BTreeSet<u64>,
}

impl Caller {
    /// Begins a call.
    fn begin(self: &Arc<Self>) -> (Key, OpenNumber) {
        let mut state = self.0.lock();
        // A second number of zero stands for durable actors.
        let caller = *state.id.get_or_insert_with(|| CallerId(random_u64(), random_u64() | 1));
        let number = state.next;
        state.next += 1;
        state.open.insert(number);
        let lowest_open = state.open.first().copied().unwrap_or(number);
        (Key::Numbered { caller, number, lowest_open }, OpenNumber { caller: Arc::clone(self), number })
    }
}

/// Number of a call that may still be repeated.
struct OpenNumber {
    caller: Arc<Caller>,
    number: u64,
}

impl Drop for OpenNumber {
    fn drop(&mut self) {
        self.caller.0.lock().open.remove(&self.number);
    }
}

/// Key by which a durable actor recognises a call of a program that has been restarted.
///
/// It has at most 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallKey(String);

impl CallKey {
    /// Length of the longest key, in bytes.
    pub const BYTES_MAX: usize = 128;
}

impl<T: Into<String>> From<T> for CallKey {
    fn from(key: T) -> Self {
        Self(key.into())
    }
}

/// Call to a durable actor; awaiting it sends the message and returns the reply.
#[must_use = "a request does nothing unless it is awaited"]
pub struct DurableRequest<S: Durable, M: RemoteMessage> {
    to: DurableAddr<S>,
    options: Options,
    state: State<M>,
}

struct Options {
    retry: Option<Retry>,
    timeout: Option<Duration>,
    key: Option<CallKey>,
}

enum State<M: RemoteMessage> {
    Unsent(Option<M>),
    Sent { request: Request<KeyedMessage<M>>, _open: Option<OpenNumber> },
}

impl<S: Decide<M>, M: RemoteMessage> DurableRequest<S, M> {
    /// Fails the call after `timeout`, counted from the first poll.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Repeats the call when its outcome is unknown, also at the next incarnation of the actor.
    ///
    /// The message is decided once, however often it is sent: the actor stores the reply with the events, and answers a
    /// repeated call with it.
    pub fn retry(mut self, policy: Retry) -> Self {
        self.options.retry = Some(policy.across_restarts());
        self
    }

    /// Sets a key. A later call with the same key and the same message type gets the reply of the first one.
    ///
    /// It serves programs that repeat a call after they were restarted themselves. An actor keeps the last 65,536 keys
    /// for 24 hours. After that a call with the key is decided again.
    ///
    /// # Errors
    ///
    /// [`NotDelivered::Refused`] if the key has been used for a message of another type, or is too long.
    pub fn key(mut self, key: impl Into<CallKey>) -> Self {
        self.options.key = Some(key.into());
        self
    }

    fn begin(to: &DurableAddr<S>, options: &mut Options, message: M) -> State<M> {
        let (key, open) = match options.key.take() {
            Some(CallKey(name)) => (Some(Key::Named(name)), None),
            None if options.retry.is_some() => {
                let (key, open) = to.caller.begin();
                (Some(key), Some(open))
            }
            None => (None, None),
        };
        let mut request = to.address.send(KeyedMessage { key, message });
        if let Some(policy) = options.retry {
            request = request.retry(policy);
        }
        if let Some(timeout) = options.timeout {
            request = request.timeout(timeout);
        }
        State::Sent { request, _open: open }
    }
}

impl<S: Decide<M>, M: RemoteMessage> Future for DurableRequest<S, M> {
    type Output = Result<M::Result, SendError>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let State::Unsent(message) = &mut this.state {
            let message = message.take().expect("a request is not polled again after a panic");
            if let Some(CallKey(name)) = &this.options.key
                && name.len() > CallKey::BYTES_MAX
            {
                let text =
                    format!("the key has {} bytes, over the limit of {}", name.len(), CallKey::BYTES_MAX);
                return Poll::Ready(Err(NotDelivered::Refused { text }.into()));
            }
            this.state = Self::begin(&this.to, &mut this.options, message);
        }
        let State::Sent { request, .. } = &mut this.state else { return Poll::Pending };
        Pin::new(request).poll(task)
    }
}

/// The message is moved, and never pinned.
impl<S: Durable, M: RemoteMessage> Unpin for DurableRequest<S, M> {}

impl<S: Durable, M: RemoteMessage> fmt::Debug for DurableRequest<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableRequest")
            .field("to", &self.to)
            .field("message", &M::NAME)
            .finish_non_exhaustive()
    }
}

/// Message with the key of its call.
#[derive(Serialize, Deserialize)]
#[serde(bound = "M: Serialize + DeserializeOwned")]
pub struct KeyedMessage<M> {
    pub(super) key: Option<Key>,
    pub(super) message: M,
}

impl<M: Message> Message for KeyedMessage<M> {
    type Result = M::Result;
}

impl<M: RemoteMessage> RemoteMessage for KeyedMessage<M> {
    const NAME: &'static str = M::NAME;
    const HASH: TypeHash = M::HASH;
    const SCHEMA: &'static str = M::SCHEMA;

    fn collect_schemas(parts: &mut SchemaCollector) {
        M::collect_schemas(parts);
    }
}

impl<M> fmt::Debug for KeyedMessage<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedMessage").field("key", &self.key).finish_non_exhaustive()
    }
}

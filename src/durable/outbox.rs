//! Messages from a durable actor to others, sent until their receivers have handled them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::actor::DurableActor;
use super::addr::{DurableAddr, KeyedMessage};
use super::answered::{CallerId, Key};
use super::{Decide, DurableState, flat};
use crate::host::{Host, NotDelivered, SendError, decode_context};
use crate::id::{ActorId, TypeHash};
use crate::observe::log;
use crate::registry::RemoteMessage;
use crate::remote::{RemoteAddr, Retry};
use crate::spec::{ActorKey, ActorLocation};
use crate::wire::{EncodeError, Payload};

/// Message to another durable actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Send {
    to: ActorLocation,
    receiver: TypeHash,
    message: TypeHash,
    bytes: Payload,
}

impl Send {
    pub(super) fn new<T: Decide<M>, M: RemoteMessage>(
        to: &DurableAddr<T>,
        message: M,
        limit: usize,
    ) -> Result<Self, EncodeError> {
        let bytes = flat::encode(&message, limit)?.into();
        Ok(Self { to: to.location(), receiver: TypeHash::of(T::NAME), message: M::HASH, bytes })
    }
}

/// Messages that are not known to be handled. A part of the state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Outbox {
    /// By number, from the oldest.
    pending: BTreeMap<u64, Send>,
    /// Number of the next message.
    next: u64,
}

impl Outbox {
    /// Adds the messages of a decision, and removes those that are handled.
    pub(super) fn apply(&mut self, sends: &[Send], handled: &[u64]) {
        for send in sends {
            self.pending.insert(self.next, send.clone());
            self.next += 1;
        }
        for number in handled {
            self.pending.remove(number);
        }
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    fn lowest_open(&self) -> u64 {
        self.pending.first_key_value().map_or(self.next, |(number, _)| *number)
    }
}

/// Deliveries of an outbox: one message at a time to each receiver, in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    /// Messages below it wait at their receivers' queues, or were handled.
    released: u64,
    queues: FxHashMap<ActorId, VecDeque<u64>>,
    /// Receivers with a message on its way.
    busy: BTreeSet<ActorId>,
    /// Messages that were handled, and are not recorded yet.
    handled: Vec<u64>,
}

/// Message that is handled, or that no receiver is left for.
pub(super) type Delivered = (u64, ActorId);

/// Delivery of a message.
pub(super) type DeliveryFuture = Pin<Box<dyn Future<Output = Delivered> + std::marker::Send>>;

impl Deliveries {
    /// Releases the messages below a number: their records are stored.
    pub(super) fn release(&mut self, outbox: &Outbox, below: u64) {
        for (number, send) in outbox.pending.range(self.released..below) {
            self.queues.entry(send.to.target.actor).or_default().push_back(*number);
        }
        self.released = self.released.max(below);
    }

    /// Next message whose receiver has none on its way.
    pub(super) fn next(&mut self, outbox: &Outbox, from: ActorKey, host: &Host) -> Option<DeliveryFuture> {
        let (&receiver, queue) =
            self.queues.iter_mut().find(|(receiver, _)| !self.busy.contains(receiver))?;
        let number = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&receiver);
        }
        let send = outbox.pending.get(&number)?.clone();
        self.busy.insert(receiver);
        let key = Key::Numbered { caller: CallerId(from.0, 0), number, lowest_open: outbox.lowest_open() };
        Some(Box::pin(deliver(host.clone(), send, key, number)))
    }

    pub(super) fn on_delivered(&mut self, (number, receiver): Delivered) {
        self.busy.remove(&receiver);
        self.handled.push(number);
    }

    /// Takes the numbers of handled messages that are not recorded yet.
    pub(super) fn take_handled(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.handled)
    }

    /// Takes back numbers whose record could not be stored.
    pub(super) fn put_handled_back(&mut self, handled: Vec<u64>) {
        self.handled.extend(handled);
    }

    pub(super) fn has_handled(&self) -> bool {
        !self.handled.is_empty()
    }
}

/// Shortest and longest pause before a message is sent again. It doubles.
///
/// A receiver that panics over the message loses an incarnation each time, so the longest pause is long.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// Sends a message until it is handled.
async fn deliver(host: Host, send: Send, key: Key, number: u64) -> Delivered {
    let receiver = send.to.target.actor;
    let Some(sender) = SENDERS.get(&(send.receiver, send.message)) else {
        log::warn!(receiver = %send.receiver, "this executable has no such durable actor: a message to it is dropped");
        return (number, receiver);
    };
    let (mut delay, delay_max) = RETRY_DELAYS;
    loop {
        match sender(&host, &send, key.clone()).await {
            Ok(()) => return (number, receiver),
            Err(error) if is_final(&error) => {
                log::warn!(to = ?send.to, %error, "a message of a durable actor is dropped");
                return (number, receiver);
            }
            Err(_) => tokio::time::sleep(delay).await,
        }
        delay = delay.saturating_mul(2).min(delay_max);
    }
}

/// Checks whether an error shows that the receiver will never handle the message.
fn is_final(error: &SendError) -> bool {
    matches!(
        error,
        SendError::NotDelivered(
            NotDelivered::ActorEnded { .. }
                | NotDelivered::Mismatch { .. }
                | NotDelivered::NotHandled { .. }
                | NotDelivered::Undecodable { .. }
                | NotDelivered::Refused { .. }
        )
    )
}

/// Sender of one type of message to one type of durable actor, submitted by the derive of `Durable`.
#[derive(Clone, Copy)]
pub struct OutboxRegistration {
    receiver: TypeHash,
    message: TypeHash,
    send: SendFn,
}

/// Function that decodes a message and sends it.
type SendFn = fn(&Host, &Send, Key) -> Sending;

type Sending = Pin<Box<dyn Future<Output = Result<(), SendError>> + std::marker::Send>>;

static SENDERS: LazyLock<FxHashMap<(TypeHash, TypeHash), SendFn>> = LazyLock::new(|| {
    inventory::iter::<OutboxRegistration>.into_iter().map(|it| ((it.receiver, it.message), it.send)).collect()
});

inventory::collect!(OutboxRegistration);

impl OutboxRegistration {
    /// Registers messages `M` to a `T`.
    #[must_use]
    pub const fn of<T: Decide<M>, M: RemoteMessage>() -> Self {
        Self { receiver: TypeHash::of(<T as DurableState>::NAME), message: M::HASH, send: send::<T, M> }
    }
}

impl fmt::Debug for OutboxRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboxRegistration")
            .field("receiver", &self.receiver)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

fn send<T: Decide<M>, M: RemoteMessage>(host: &Host, send: &Send, key: Key) -> Sending {
    let bytes = Bytes::from(send.bytes.clone());
    let message = decode_context::within(host, || flat::decode::<M>(bytes));
    let to = RemoteAddr::<DurableActor<T>>::new(send.to.host, send.to.target, host);
    Box::pin(async move {
        let message = message.map_err(|error| NotDelivered::Undecodable { text: error.to_string() })?;
        // The key makes the repetition safe.
        let retry = Retry::default().across_restarts();
        to.send(KeyedMessage { key: Some(key), message }).retry(retry).await.map(drop)
    })
}

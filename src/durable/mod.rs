//! Durable actors: their state changes only by events, which are stored before an effect is visible.
//!
//! ```text
//!   message --> decide(&self) --> events, reply, sends
//!                                    |  apply(&mut self) at once, so the next decide sees them
//!                                    v
//!               open group --append--> holder            one append in flight, the next group fills meanwhile
//!                                        | stored
//!                                        v
//!               replies and sends of the group leave
//! ```
//! | file | contents |
//! |---|---|
//! | `decision` | events and messages of one decision |
//! | `actor` | [`DurableActor`], which runs a [`Durable`] state as an actor; its recovery |
//! | `journal` | groups of records and what waits for them, without input and output |
//! | `answered` | replies to calls that may be repeated |
//! | `outbox` | messages to other durable actors, sent until they are handled |
//! | `record` | what is stored of a decision, and a snapshot |
//! | `writer` | the part of the actor that waits for the store and for other actors |
//! | `store` | requests to the holder of the state |
//! | `protocol` | these requests |
//! | `addr`, `spawn` | the user's handles |
//!
//! Invariants:
//!
//! - Nothing leaves before its group and all earlier ones are stored: no reply, no message of the outbox. A reply
//!   without events waits in the same way, so that a replaced incarnation answers nothing from a state that is stale.
//! - Holders refuse appends of an earlier configuration, and each incarnation begins one. A refused append ends the
//!   incarnation.
//! - Replay calls `apply` alone.

mod actor;
mod addr;
mod answered;
mod decision;
pub(crate) mod flat;
mod journal;
mod outbox;
pub(crate) mod protocol;
mod record;
mod spawn;
mod store;
mod writer;

use serde::Serialize;
use serde::de::DeserializeOwned;

use addr::KeyedMessage;

use crate::registry::{Registration, RemoteMessage};

pub use actor::DurableActor;
pub use addr::{CallKey, DurableAddr, DurableRequest};
pub use decision::Decision;
pub use outbox::OutboxRegistration;
pub use spawn::DurableSpawn;

/// State of an actor that outlives the actor's incarnations.
///
/// The state changes only by events. [`Decide::decide`] turns a message into events and a reply, and
/// [`apply`](Self::apply) changes the state by one event. Events are stored before the reply leaves. When the actor's
/// worker ends, the next incarnation applies the stored events again, and has every event whose effect was visible.
///
/// `apply` must compute the same from the same state and event: no clock, no random numbers, no input. `decide` may do
/// all of that.
///
/// Derive it beside serde's traits and list the messages that the actor decides.
///
/// # Examples
///
/// ```
/// use roadshow::prelude::*;
/// use roadshow::{Decide, Decision, Durable};
///
/// #[derive(Clone, Serialize, Deserialize, Durable)]
/// #[remote(decides(Add, Total))]
/// struct Counter(u64);
///
/// #[derive(Serialize, Deserialize)]
/// struct Added(u64);
///
/// impl Durable for Counter {
///     type Args = u64;
///     type Event = Added;
///     fn create(start: u64) -> Self {
///         Self(start)
///     }
///     fn apply(&mut self, Added(n): &Added) {
///         self.0 += n;
///     }
/// }
///
/// #[derive(Message, RemoteMessage, Serialize, Deserialize)]
/// #[rtype(result = "()")]
/// struct Add(u64);
///
/// impl Decide<Add> for Counter {
///     fn decide(&self, Add(n): Add, decision: &mut Decision<Self>) {
///         decision.record(Added(n));
///     }
/// }
///
/// #[derive(Message, RemoteMessage, Serialize, Deserialize)]
/// #[rtype(result = "u64")]
/// struct Total;
///
/// impl Decide<Total> for Counter {
///     fn decide(&self, Total: Total, _: &mut Decision<Self>) -> u64 {
///         self.0
///     }
/// }
///
/// # #[roadshow::main]
/// # async fn main() -> Result<(), roadshow::Error> {
/// let cluster = Cluster::in_process(2).await?;
/// let counter = cluster.spawn_durable::<Counter>(40).await?;
/// counter.send(Add(2)).retry(Retry::default()).await?;
/// assert_eq!(counter.send(Total).await?, 42);
/// cluster.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub trait Durable: DurableState {
    /// Arguments of `create`.
    type Args: Serialize + DeserializeOwned + Send + 'static;
    /// Change of the state.
    type Event: Serialize + DeserializeOwned + Send + 'static;

    /// Creates the state, which is stored before the first message is handled.
    ///
    /// It is called again only if the actor's process ends before that.
    fn create(args: Self::Args) -> Self;

    /// Changes the state by an event.
    ///
    /// A panic in it ends the incarnation, and the event is not stored.
    fn apply(&mut self, event: &Self::Event);
}

/// Part of [`Durable`] that its derive implements.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the state of a durable actor",
    note = "derive it and list the messages: `#[derive(Clone, Serialize, Deserialize, Durable)] #[remote(decides(..))]`"
)]
pub trait DurableState: Clone + Serialize + DeserializeOwned + Send + 'static {
    /// Name by which all processes know the actor type.
    const NAME: &'static str;
}

/// Decision of a durable actor about one type of message.
#[diagnostic::on_unimplemented(
    message = "durable actor `{Self}` does not decide message `{M}`",
    note = "list it: `#[remote(decides({M}))]` on `{Self}`, and implement `Decide<{M}>`"
)]
pub trait Decide<M: RemoteMessage>: Durable {
    /// Decides about a message: adds events to the decision, and returns the reply.
    ///
    /// The events are applied after it returns. Without an event the state stays as it is. A panic fails the call,
    /// changes nothing, and ends the incarnation.
    fn decide(&self, message: M, decision: &mut Decision<Self>) -> M::Result;
}

/// Registration of a state's decision about a message, submitted by the derive of `Durable`.
#[must_use]
pub const fn durable_handler<S: Decide<M>, M: RemoteMessage>() -> Registration {
    Registration::handler::<DurableActor<S>, KeyedMessage<M>>()
}

//! Registry of remote message types and tasks, and delivery from bytes to a handler.
//!
//! The macros register every (actor, message) pair and every task at link time (crate `inventory`).
//! Nothing is registered by hand, and a worker has the same registrations as its driver.
//! [`Registry::collect`] gathers them once for each host and rejects colliding names.
//!
//! Owns the traits that the macros implement, the generated delivery, the obligation to reply, and the
//! comparison of declarations between two executables.
//! Knows neither links nor hosts: a reply leaves through [`ReplyPath`].

mod attachment;
mod batch;
mod delivery;
mod handler_stats;
mod lease;
mod mailbox;
mod mailbox_counts;
pub mod panics;
mod responder;
pub mod response;
pub mod schema;
mod schema_table;
pub(crate) mod synchronous;

use std::any::Any;
use std::fmt;

use actix::{Actor, Context, Handler, Message};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::id::TypeHash;

pub use attachment::Attachment;
pub(crate) use attachment::{note_stop, panicked, requested_stop, stopped};
pub use batch::MessageBatch;
pub use delivery::{ControlMessage, Delivery};
pub(crate) use delivery::{STOP, decode, stop, stopped_by};
pub use handler_stats::HandlerStats;
pub(crate) use handler_stats::{HandlerCounts, handler_counts};
pub(crate) use lease::{Lease, LeaseClock, LeaseHolder, RunningHolder, lease_expired};
pub use mailbox::{DecodeScope, DrainRequest, ErasedMailbox, HostContext, Mailbox};
pub use mailbox_counts::ActorCounts;
pub use responder::{Inbound, LocalReply, PackedCharge, ReplyPath, Responder};
pub use schema_table::SchemaTable;

use schema::SchemaCollector;
use schema_table::Declaration;

/// Message that can be sent to an actor of another process.
///
/// Derive it beside actix's `Message`; the message and its result must be serializable.
///
/// Two executables that are built from different sources compare their declarations of messages. A
/// message with different declarations is refused as
/// [`NotDelivered::Mismatch`](crate::NotDelivered::Mismatch), and all others work. The comparison covers
/// the *fingerprint*:
///
/// - [`SCHEMA`](Self::SCHEMA): the names and types of the message's fields or variants and the type of
///   its result, as written in the source, and serde's attributes.
/// - The same for each type named in there that derives [`RemoteData`], also within `Vec<..>` and tuples,
///   and recursively for the types that those name.
///
/// It does not cover nested types that do not derive `RemoteData`, the code of a hand-written `Serialize`
/// or `Deserialize`, or the type behind an alias: if `type Cents = u64` becomes `u32`, the fingerprint
/// stays. A type argument in capitals alone, as in `Matrix<ROWS>`, is treated as a constant.
///
/// # Examples
///
/// An implementation by hand needs only the name. Nothing is compared then:
///
/// ```
/// use roadshow::prelude::*;
///
/// #[derive(Message, Serialize, Deserialize)]
/// #[rtype(result = "()")]
/// struct Ping;
///
/// impl RemoteMessage for Ping {
///     const NAME: &'static str = "app::Ping";
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent to another process: it is not a remote message",
    note = "derive it: `#[derive(Message, RemoteMessage, Serialize, Deserialize)]` with `#[rtype(result = \"..\")]`"
)]
pub trait RemoteMessage:
    Message<Result: Serialize + DeserializeOwned + Send + 'static> + Serialize + DeserializeOwned + Send + 'static
{
    /// Name by which both sides know the message: its path, or the value of `#[remote(name = "..")]`.
    const NAME: &'static str;
    /// Hash of the name, which is sent.
    const HASH: TypeHash = TypeHash::of(Self::NAME);
    /// The message and its result as written in the source; empty if unknown.
    ///
    /// An unknown schema is not compared.
    const SCHEMA: &'static str = "";

    /// Adds the schemas of the types that it names.
    #[doc(hidden)]
    fn collect_schemas(_parts: &mut SchemaCollector) {}
}

/// Actor that can be reached from another process.
///
/// Derive it and list the messages: `#[derive(RemoteActor)] #[remote(handles(Add, Total))]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a remote actor",
    note = "derive it and list its messages: `#[derive(RemoteActor)] #[remote(handles(..))]`"
)]
pub trait RemoteActor: Actor<Context = Context<Self>> + Handler<ControlMessage> {
    /// Name by which both sides know the actor type.
    const NAME: &'static str;
    /// Hash of the name, which is sent.
    const HASH: TypeHash = TypeHash::of(Self::NAME);
}

/// Marks a message that an actor handles remotely; implemented by the derive of `RemoteActor`.
#[diagnostic::on_unimplemented(
    message = "actor `{Self}` does not handle message `{M}` remotely",
    note = "list it: `#[remote(handles({M}))]` on `{Self}`, and implement `Handler<{M}>`"
)]
pub trait Handles<M: RemoteMessage>: RemoteActor + Handler<M> + Handler<Delivery<M>> {}

/// Message that actor `A` handles remotely: [`Handles`] with the roles reversed.
///
/// Senders are bounded by this and not by `A: Handles<M>`. That bound would let the compiler infer the
/// message from the actor's list, and report errors about anything but the missing entry.
pub trait HandledBy<A>: RemoteMessage {}

impl<A: Handles<M>, M: RemoteMessage> HandledBy<A> for M {}

/// Data type inside messages, whose name and shape both sides should agree on.
///
/// Derive it for nested types. A message's fingerprint, which two executables compare (see
/// [`RemoteMessage`]), then covers this type: its name, its fields or variants with their types as
/// written, serde's attributes, and each type named in there that derives `RemoteData`. Adding or
/// removing the derive changes the fingerprint.
pub trait RemoteData {
    /// Name of the type.
    const NAME: &'static str;
    /// Fields or variants as written in the source.
    const SCHEMA: &'static str;

    /// Adds the schemas of the types that it names.
    #[doc(hidden)]
    fn collect_schemas(_parts: &mut SchemaCollector) {}
}

/// Function that can run in another process; implemented by `#[roadshow::task]`.
///
/// Two executables compare the types of its arguments and its result like those of a message; see
/// [`RemoteMessage`] for the details. The arguments' names, the attribute's options and the function's
/// body are not compared.
pub trait TaskFn: 'static {
    /// Arguments, as a tuple.
    type Args: Serialize + DeserializeOwned + Send + 'static;
    /// Return type.
    type Output: Serialize + DeserializeOwned + Send + 'static;
    /// Name by which both sides know the function.
    const NAME: &'static str;
    /// Hash of the name, which is sent.
    const HASH: TypeHash = TypeHash::of(Self::NAME);
    /// Number of concurrent calls in one worker; `None` runs them one at a time with all other tasks.
    const PARALLEL: Option<usize>;
    /// Types of the arguments and the result as written in the source; empty if unknown.
    const SCHEMA: &'static str = "";

    /// Adds the schemas of the types that it names.
    #[doc(hidden)]
    fn collect_schemas(_parts: &mut SchemaCollector) {}

    /// Calls the function.
    fn call(args: Self::Args) -> Self::Output;
}

/// Function that queues messages in the [`Mailbox`] of an actor.
pub type Deliver = fn(&dyn ErasedMailbox, MessageBatch, &'static HandlerStats);

/// Function that moves the [`Delivery`] in a slot (an `Option<Delivery<M>>`) into an actor's actix
/// mailbox.
///
/// With `true` it does so only if the mailbox has capacity, and leaves the delivery in the slot
/// otherwise.
pub type DeliverLocal =
    fn(&dyn ErasedMailbox, &mut dyn Any, bool, &'static HandlerStats) -> Result<(), MailboxError>;

/// Reason why a mailbox did not accept a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MailboxError {
    /// The mailbox is full.
    #[error("the mailbox is full")]
    Full,
    /// The actor has stopped.
    #[error("the actor has stopped")]
    Closed,
}

/// Function that decodes a task's arguments, runs it and replies; returns true if it had a result.
type TaskRunner = fn(Inbound) -> bool;

/// Registration by one of the macros.
#[derive(Clone, Copy)]
pub struct Registration(RegistrationKind);

#[derive(Clone, Copy)]
enum RegistrationKind {
    Actor { name: &'static str },
    Handler { actor: &'static str, message: &'static str, handler: DeliveryFunctions, declare: Declare },
    Task { name: &'static str, task: TaskEntry, declare: Declare },
}

/// Function that returns the declaration of a message or a task.
type Declare = fn() -> Declaration;

/// Functions that deliver one message type to one actor type, from another host and from the same.
type DeliveryFunctions = (Deliver, DeliverLocal);

/// Delivery of one message type to one actor type.
#[derive(Clone, Copy, Debug)]
pub struct HandlerEntry {
    /// Delivers encoded messages from another host.
    pub deliver: Deliver,
    /// Delivers a message from the same host as it is.
    pub deliver_local: DeliverLocal,
    /// Statistics of the handler.
    pub stats: &'static HandlerStats,
}

/// Registered task.
#[derive(Clone, Copy, Debug)]
pub struct TaskEntry {
    /// Name of the function.
    pub name: &'static str,
    /// Runs the task.
    pub run: TaskRunner,
    /// Number of concurrent calls; see [`TaskFn::PARALLEL`].
    pub parallel: Option<usize>,
}

// Collected at link time: a worker runs the same executable, and so has the same entries.
inventory::collect!(Registration);

impl Registration {
    /// Registers an actor type under its name.
    #[must_use]
    pub const fn actor<A: RemoteActor>() -> Self {
        Self(RegistrationKind::Actor { name: A::NAME })
    }

    /// Registers that `A` handles `M` remotely.
    #[must_use]
    pub const fn handler<A: Handles<M>, M: RemoteMessage>() -> Self {
        let handler: DeliveryFunctions = (delivery::deliver::<A, M>, delivery::deliver_local::<A, M>);
        let declare = Declaration::of_message::<M>;
        Self(RegistrationKind::Handler { actor: A::NAME, message: M::NAME, handler, declare })
    }

    /// Registers a task.
    #[must_use]
    pub const fn task<F: TaskFn>() -> Self {
        let task = TaskEntry { name: F::NAME, run: delivery::run_task::<F>, parallel: F::PARALLEL };
        Self(RegistrationKind::Task { name: F::NAME, task, declare: Declaration::of_task::<F> })
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RegistrationKind::Actor { name } => write!(f, "actor {name}"),
            RegistrationKind::Handler { actor, message, .. } => write!(f, "{message} for {actor}"),
            RegistrationKind::Task { name, .. } => write!(f, "task {name}"),
        }
    }
}

/// Remote actors, messages and tasks of this executable.
#[derive(Debug, Default)]
pub struct Registry {
    actors: FxHashSet<TypeHash>,
    handlers: FxHashMap<(TypeHash, TypeHash), HandlerEntry>,
    tasks: FxHashMap<TypeHash, TaskEntry>,
    names: FxHashMap<TypeHash, &'static str>,
    table: SchemaTable,
    digest: u64,
}

/// Collision of two registrations.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryError {
    /// Two names have the same hash.
    #[error(
        "the names {one:?} and {other:?} have the same 64-bit hash; rename one with #[remote(name = \"..\")], \
         or #[roadshow::task(name = \"..\")] for a task"
    )]
    Collision {
        /// First name.
        one: &'static str,
        /// Second name.
        other: &'static str,
    },
    /// Two registrations have the same name.
    #[error(
        "{name:?} is registered twice; give one of the two another name with #[remote(name = \"..\")], \
         or #[roadshow::task(name = \"..\")] for a task"
    )]
    Duplicate {
        /// Name, or `message for actor`.
        name: String,
    },
}

impl Registry {
    /// Collects the registrations of this executable.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] when two names collide.
    pub fn collect() -> Result<Self, RegistryError> {
        Self::of(inventory::iter::<Registration>.into_iter().copied())
    }

    fn of(registrations: impl IntoIterator<Item = Registration>) -> Result<Self, RegistryError> {
        let mut registry = Self::default();
        for registration in registrations {
            registry.add(registration)?;
        }
        // Computed once, since each handshake compares it.
        registry.digest = registry.table.digest();
        Ok(registry)
    }

    fn add(&mut self, registration: Registration) -> Result<(), RegistryError> {
        let replaced = match registration.0 {
            RegistrationKind::Actor { name } => {
                let hash = self.name(name)?;
                !self.actors.insert(hash)
            }
            RegistrationKind::Handler { actor, message, handler, declare } => {
                self.table.add(message, declare());
                let pair = (self.name(actor)?, self.name(message)?);
                let (deliver, deliver_local) = handler;
                let stats = HandlerStats::of(actor, message);
                self.handlers.insert(pair, HandlerEntry { deliver, deliver_local, stats }).is_some()
            }
            RegistrationKind::Task { name, task, declare } => {
                self.table.add(name, declare());
                let hash = self.name(name)?;
                self.tasks.insert(hash, task).is_some()
            }
        };
        if replaced { Err(RegistryError::Duplicate { name: format!("{registration:?}") }) } else { Ok(()) }
    }

    fn name(&mut self, name: &'static str) -> Result<TypeHash, RegistryError> {
        let hash = TypeHash::of(name);
        // Names are sent as hashes, so two names with one hash would deliver to the wrong handler.
        match *self.names.entry(hash).or_insert(name) {
            known if known == name => Ok(hash),
            known => Err(RegistryError::Collision { one: known, other: name }),
        }
    }

    /// Delivery of `message` to `actor`; `None` if the actor does not list it.
    #[must_use]
    pub fn handler(&self, actor: TypeHash, message: TypeHash) -> Option<HandlerEntry> {
        self.handlers.get(&(actor, message)).copied()
    }

    /// Task with that name.
    #[must_use]
    pub fn task(&self, name: TypeHash) -> Option<TaskEntry> {
        self.tasks.get(&name).copied()
    }

    /// All messages and tasks with their declarations.
    #[must_use]
    pub fn table(&self) -> &SchemaTable {
        &self.table
    }

    /// Hash of the table, equal for equal tables on every machine.
    ///
    /// Hosts with equal digests have equal declarations, and skip the comparison.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Messages and tasks of both executables whose declarations differ, each with a text for the caller.
    ///
    /// `theirs` is the table of the sender. A text is short, whatever that table contains.
    #[must_use]
    pub fn compare(&self, theirs: &SchemaTable) -> FxHashMap<TypeHash, String> {
        let differences = self.table.differences(theirs).map(|(name, difference)| {
            let hash = TypeHash::of(name);
            // Messages and tasks share the table of names.
            let kind = if self.tasks.contains_key(&hash) { "task" } else { "message" };
            (hash, format!("{kind} `{name}` is declared differently: {difference}"))
        });
        differences.collect()
    }

    /// Name behind a hash, or the hash if this executable does not know it.
    #[must_use]
    pub fn name_of(&self, hash: TypeHash) -> String {
        self.names.get(&hash).map_or_else(|| format!("type {hash}"), ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &'static str) -> Registration {
        let task = TaskEntry { name, run: |_| false, parallel: None };
        Registration(RegistrationKind::Task { name, task, declare: Declaration::default })
    }

    fn handler(actor: &'static str, message: &'static str) -> Registration {
        let handler: DeliveryFunctions = (|_, _, _| {}, |_, _, _, _| Ok(()));
        Registration(RegistrationKind::Handler { actor, message, handler, declare: Declaration::default })
    }

    #[test]
    fn one_message_may_go_to_many_actors() {
        let registry = Registry::of([handler("a", "m"), handler("b", "m")]).unwrap();
        assert!(registry.handler(TypeHash::of("b"), TypeHash::of("m")).is_some());
        assert!(registry.handler(TypeHash::of("b"), TypeHash::of("a")).is_none());
        assert_eq!(registry.name_of(TypeHash::of("m")), "m");
    }

    #[test]
    fn a_duplicate_name_is_rejected() {
        let twice = Registry::of([task("t"), task("t")]).unwrap_err();
        assert_eq!(twice, RegistryError::Duplicate { name: "task t".into() });
        let twice = Registry::of([handler("a", "m"), handler("a", "m")]).unwrap_err();
        assert!(twice.to_string().contains("m for a"), "{twice}");
    }

    #[test]
    fn two_actor_types_with_one_name_are_rejected() {
        let actor = Registration(RegistrationKind::Actor { name: "a" });
        let twice = Registry::of([actor, actor]).unwrap_err();
        assert_eq!(twice, RegistryError::Duplicate { name: "actor a".into() });
    }

    #[test]
    fn differing_declarations_are_reported_by_their_hash() {
        struct Here;
        struct There;

        impl TaskFn for Here {
            type Args = ();
            type Output = u64;
            const NAME: &'static str = "t";
            const PARALLEL: Option<usize> = None;
            const SCHEMA: &'static str = "fn()->u64";

            fn call((): ()) -> u64 {
                1
            }
        }

        impl TaskFn for There {
            type Args = ();
            type Output = u32;
            const NAME: &'static str = "t";
            const PARALLEL: Option<usize> = None;
            const SCHEMA: &'static str = "fn()->u32";

            fn call((): ()) -> u32 {
                1
            }
        }

        let same = [handler("a", "m"), task("only here or there")];
        let here = Registry::of([Registration::task::<Here>()].into_iter().chain(same)).unwrap();
        let there = Registry::of([handler("a", "m"), Registration::task::<There>()]).unwrap();
        assert_ne!(here.digest(), there.digest());
        let text = "task `t` is declared differently: \
                    `fn()->u64` at the receiver, `fn()->u32` at the sender";
        assert_eq!(here.compare(there.table()), [(TypeHash::of("t"), text.to_owned())].into_iter().collect());
        assert!(here.compare(here.table()).is_empty());
    }

    #[test]
    fn the_digest_does_not_depend_on_the_order_of_registration() {
        let one = Registry::of([handler("a", "m"), task("t"), handler("b", "n")]).unwrap();
        let other = Registry::of([handler("b", "n"), handler("a", "m"), task("t")]).unwrap();
        assert_eq!((one.digest(), one.table()), (other.digest(), other.table()));
    }

    #[test]
    fn two_names_with_one_hash_are_rejected() {
        // No two names with the same FNV-1a hash are known, so the test injects the collision.
        let mut registry = Registry::default();
        registry.names.insert(TypeHash::of("t"), "other");
        let error = registry.add(task("t")).unwrap_err();
        assert_eq!(error, RegistryError::Collision { one: "other", other: "t" });
    }
}

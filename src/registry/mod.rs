//! From a message's bytes to a handler: which types can travel, and how each is delivered.
//!
//! The macros register every (actor, message) pair and every task at link time (crate
//! `inventory`), so that nothing is registered by hand and a worker knows what its driver knows.
//! [`Registry::collect`] gathers them once a host and refuses names that collide.
//!
//! Owns the traits that the macros implement, the generated delivery, the duty to answer, and how two
//! executables declare the same message differently.
//! Knows neither links nor hosts: an answer leaves through [`ReplyPath`].

mod batch;
mod delivery;
mod mailbox;
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

pub use batch::MessageBatch;
pub use delivery::{ControlMessage, Delivery};
pub(crate) use delivery::{STOP, decode, stop};
pub use mailbox::{DecodeScope, DrainRequest, ErasedMailbox, HostContext, Mailbox};
pub use responder::{CreditCharge, Inbound, LocalReply, ReplyPath, Responder};
pub use schema_table::SchemaTable;

use schema::SchemaCollector;
use schema_table::Declaration;

/// A message that can travel to an actor of another process.
///
/// Derive it beside actix's `Message`; the message and its result must be serializable.
///
/// Two executables that are built from different sources compare how they declare their messages. One
/// that they declare differently is refused as
/// [`NotDelivered::Mismatch`](crate::NotDelivered::Mismatch), and all others go on. What is compared
/// is the *fingerprint*:
///
/// - [`SCHEMA`](Self::SCHEMA): the names and types of the message's fields or variants and the type
///   of its result, as they are written, and serde's attributes.
/// - The same of each type named in there that derives [`RemoteData`], also within `Vec<..>`, tuples
///   and the like, and of each that is named in those.
///
/// It does not see nested types that do not derive `RemoteData`, what a hand-written `Serialize` or
/// `Deserialize` does, or the type behind an alias that is written otherwise: `type Cents = u64` can
/// become `u32` and the fingerprint stays. An argument of a type that is written in capitals alone,
/// as in `Matrix<ROWS>`, is taken for a constant and not looked into.
///
/// # Examples
///
/// An implementation by hand needs no more than the name. Then nothing is compared:
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
    message = "`{Self}` cannot travel: it is no remote message",
    note = "derive it: `#[derive(Message, RemoteMessage, Serialize, Deserialize)]` with `#[rtype(result = \"..\")]`"
)]
pub trait RemoteMessage:
    Message<Result: Serialize + DeserializeOwned + Send + 'static> + Serialize + DeserializeOwned + Send + 'static
{
    /// The name that both sides know the message by: its path, or what `#[remote(name = "..")]` says.
    const NAME: &'static str;
    /// The hash of the name, which travels.
    const HASH: TypeHash = TypeHash::of(Self::NAME);
    /// The message and its result as written in the source; empty if that is not known.
    ///
    /// What is not known is not compared.
    const SCHEMA: &'static str = "";

    /// Adds the schemas of the types that it names.
    #[doc(hidden)]
    fn collect_schemas(_parts: &mut SchemaCollector) {}
}

/// An actor that can be reached from another process.
///
/// Derive it and list the messages: `#[derive(RemoteActor)] #[remote(handles(Add, Total))]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no remote actor",
    note = "derive it and list its messages: `#[derive(RemoteActor)] #[remote(handles(..))]`"
)]
pub trait RemoteActor: Actor<Context = Context<Self>> + Handler<ControlMessage> {
    /// The name that both sides know the actor type by.
    const NAME: &'static str;
    /// The hash of the name, which travels.
    const HASH: TypeHash = TypeHash::of(Self::NAME);
}

/// Says that an actor answers a message from afar; implemented by the derive of `RemoteActor`.
#[diagnostic::on_unimplemented(
    message = "actor `{Self}` does not take message `{M}` from afar",
    note = "list it: `#[remote(handles({M}))]` on `{Self}`, and implement `Handler<{M}>`"
)]
pub trait Handles<M: RemoteMessage>: RemoteActor + Handler<M> + Handler<Delivery<M>> {}

/// A message that actor `A` takes from afar: the same as [`Handles`], said of the message.
///
/// What sends is bounded by this and not by `A: Handles<M>`, which would let the compiler conclude
/// the message from the actor's list, and complain of anything but what is missing in it.
pub trait HandledBy<A>: RemoteMessage {}

impl<A: Handles<M>, M: RemoteMessage> HandledBy<A> for M {}

/// A data type inside messages whose name and shape both sides should agree on.
///
/// Derive it for nested types. A message's fingerprint, which two executables compare (see
/// [`RemoteMessage`]), then covers this type, too: its name, its fields or variants with their types as
/// written, serde's attributes, and each type named in there that derives `RemoteData`. To begin or
/// cease to derive it changes the fingerprint.
pub trait RemoteData {
    /// The type's name.
    const NAME: &'static str;
    /// The type's fields or variants as written in the source.
    const SCHEMA: &'static str;

    /// Adds the schemas of the types that it names.
    #[doc(hidden)]
    fn collect_schemas(_parts: &mut SchemaCollector) {}
}

/// A function that can run in another process; implemented by `#[roadshow::task]`.
///
/// Two executables compare the types of its arguments and of its result as they do a message's: see
/// [`RemoteMessage`] for what that covers and what not. The arguments' names, the attribute's options
/// and what the function does take no part.
pub trait TaskFn: 'static {
    /// The arguments, as a tuple.
    type Args: Serialize + DeserializeOwned + Send + 'static;
    /// What it returns.
    type Output: Serialize + DeserializeOwned + Send + 'static;
    /// The name that both sides know the function by.
    const NAME: &'static str;
    /// The hash of the name, which travels.
    const HASH: TypeHash = TypeHash::of(Self::NAME);
    /// How many run side by side in one worker; `None` runs them one at a time with all other tasks.
    const PARALLEL: Option<usize>;
    /// The types of the arguments and of the result as written in the source; empty if not known.
    const SCHEMA: &'static str = "";

    /// Adds the schemas of the types that it names.
    #[doc(hidden)]
    fn collect_schemas(_parts: &mut SchemaCollector) {}

    /// Calls the function.
    fn call(args: Self::Args) -> Self::Output;
}

/// Puts messages into the [`Mailbox`] of an actor.
pub type Deliver = fn(&dyn ErasedMailbox, MessageBatch);

/// Moves the [`Delivery`] in the slot (an `Option<Delivery<M>>`) into actix's mailbox of an actor. With
/// `true` only if that has room: else it stays in the slot.
pub type DeliverLocal = fn(&dyn ErasedMailbox, &mut dyn Any, bool) -> Result<(), MailboxError>;

/// Why a mailbox did not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MailboxError {
    /// It has no room now.
    #[error("the mailbox is full")]
    Full,
    /// Its actor has stopped.
    #[error("the actor has stopped")]
    Closed,
}

/// Decodes a task's arguments, runs it and answers; says whether there was a result.
type RunTask = fn(Inbound) -> bool;

/// One thing that the macros register.
#[derive(Clone, Copy)]
pub struct Registration(RegistrationKind);

#[derive(Clone, Copy)]
enum RegistrationKind {
    Actor { name: &'static str },
    Handler { actor: &'static str, message: &'static str, handler: HandlerEntry, declare: Declare },
    Task { name: &'static str, task: TaskEntry, declare: Declare },
}

/// Says how a message or a task is declared.
type Declare = fn() -> Declaration;

/// How one message type reaches one actor type.
#[derive(Clone, Copy, Debug)]
pub struct HandlerEntry {
    /// From another host: encoded.
    pub deliver: Deliver,
    /// From the same host: as it is.
    pub put: DeliverLocal,
}

/// A registered task.
#[derive(Clone, Copy, Debug)]
pub struct TaskEntry {
    /// Runs it.
    pub run: RunTask,
    /// See [`TaskFn::PARALLEL`].
    pub parallel: Option<usize>,
}

inventory::collect!(Registration);

impl Registration {
    /// Registers an actor type under its name.
    #[must_use]
    pub const fn actor<A: RemoteActor>() -> Self {
        Self(RegistrationKind::Actor { name: A::NAME })
    }

    /// Registers that `A` takes `M` from afar.
    #[must_use]
    pub const fn handler<A: Handles<M>, M: RemoteMessage>() -> Self {
        let handler =
            HandlerEntry { deliver: delivery::deliver::<A, M>, put: delivery::deliver_local::<A, M> };
        let declare = Declaration::of_message::<M>;
        Self(RegistrationKind::Handler { actor: A::NAME, message: M::NAME, handler, declare })
    }

    /// Registers a task.
    #[must_use]
    pub const fn task<F: TaskFn>() -> Self {
        let task = TaskEntry { run: delivery::run_task::<F>, parallel: F::PARALLEL };
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

/// What this executable can be asked for.
#[derive(Debug, Default)]
pub struct Registry {
    actors: FxHashSet<TypeHash>,
    handlers: FxHashMap<(TypeHash, TypeHash), HandlerEntry>,
    tasks: FxHashMap<TypeHash, TaskEntry>,
    names: FxHashMap<TypeHash, &'static str>,
    table: SchemaTable,
    digest: u64,
}

/// Two registrations cannot be told apart.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryError {
    /// Two names have the same hash.
    #[error(
        "the names {one:?} and {other:?} have the same 64-bit hash; rename one with #[remote(name = \"..\")], \
         or #[roadshow::task(name = \"..\")] for a task"
    )]
    Collision {
        /// One name.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// One name stands for two registrations.
    #[error(
        "{name:?} is registered twice; give one of the two another name with #[remote(name = \"..\")], \
         or #[roadshow::task(name = \"..\")] for a task"
    )]
    Duplicate {
        /// The name, or `message for actor`.
        name: String,
    },
}

impl Registry {
    /// Gathers what the macros of this executable registered.
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
                self.handlers.insert(pair, handler).is_some()
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
        match *self.names.entry(hash).or_insert(name) {
            known if known == name => Ok(hash),
            known => Err(RegistryError::Collision { one: known, other: name }),
        }
    }

    /// How `message` reaches `actor`; `None` if the actor does not list it.
    #[must_use]
    pub fn handler(&self, actor: TypeHash, message: TypeHash) -> Option<HandlerEntry> {
        self.handlers.get(&(actor, message)).copied()
    }

    /// The task of that name.
    #[must_use]
    pub fn task(&self, name: TypeHash) -> Option<TaskEntry> {
        self.tasks.get(&name).copied()
    }

    /// Everything that can be asked for, with how it is declared.
    #[must_use]
    pub fn table(&self) -> &SchemaTable {
        &self.table
    }

    /// The table's hash, the same for the same table on every machine.
    ///
    /// Hosts with one digest declare everything alike, and need not compare.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The messages and tasks that both executables have and declare differently, each with a text
    /// for the caller, in which `theirs` is the sender's table.
    ///
    /// A text is short whatever the other table says.
    #[must_use]
    pub fn compare(&self, theirs: &SchemaTable) -> FxHashMap<TypeHash, String> {
        let differences = self.table.differences(theirs).map(|(name, difference)| {
            let hash = TypeHash::of(name);
            let kind = if self.tasks.contains_key(&hash) { "task" } else { "message" };
            (hash, format!("{kind} `{name}` is declared differently: {difference}"))
        });
        differences.collect()
    }

    /// The name behind a hash, or the hash where this executable does not know it.
    #[must_use]
    pub fn name_of(&self, hash: TypeHash) -> String {
        self.names.get(&hash).map_or_else(|| format!("type {hash}"), ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &'static str) -> Registration {
        let task = TaskEntry { run: |_| false, parallel: None };
        Registration(RegistrationKind::Task { name, task, declare: Declaration::default })
    }

    fn handler(actor: &'static str, message: &'static str) -> Registration {
        let handler = HandlerEntry { deliver: |_, _| {}, put: |_, _, _| Ok(()) };
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
    fn a_name_registered_twice_is_refused() {
        let twice = Registry::of([task("t"), task("t")]).unwrap_err();
        assert_eq!(twice, RegistryError::Duplicate { name: "task t".into() });
        let twice = Registry::of([handler("a", "m"), handler("a", "m")]).unwrap_err();
        assert!(twice.to_string().contains("m for a"), "{twice}");
    }

    #[test]
    fn two_actor_types_of_one_name_are_refused() {
        let actor = Registration(RegistrationKind::Actor { name: "a" });
        let twice = Registry::of([actor, actor]).unwrap_err();
        assert_eq!(twice, RegistryError::Duplicate { name: "actor a".into() });
    }

    #[test]
    fn what_two_executables_declare_differently_is_told_by_its_hash() {
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
        let told = "task `t` is declared differently: \
                    `fn()->u64` at the receiver, `fn()->u32` at the sender";
        assert_eq!(here.compare(there.table()), [(TypeHash::of("t"), told.to_owned())].into_iter().collect());
        assert!(here.compare(here.table()).is_empty());
    }

    #[test]
    fn the_digest_does_not_depend_on_the_order_of_registration() {
        let one = Registry::of([handler("a", "m"), task("t"), handler("b", "n")]).unwrap();
        let other = Registry::of([handler("b", "n"), handler("a", "m"), task("t")]).unwrap();
        assert_eq!((one.digest(), one.table()), (other.digest(), other.table()));
    }

    #[test]
    fn two_names_with_one_hash_are_refused() {
        // No two names with one FNV-1a hash are at hand: plant the collision in the table of names.
        let mut registry = Registry::default();
        registry.names.insert(TypeHash::of("t"), "other");
        let error = registry.add(task("t")).unwrap_err();
        assert_eq!(error, RegistryError::Collision { one: "other", other: "t" });
    }
}

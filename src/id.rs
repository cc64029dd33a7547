//! Identities of hosts, actors, calls and links.
//!
//! All are numbers in newtypes, so that one kind cannot be mistaken for another. This module does not
//! know how they are sent or looked up.

mod trace;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use trace::{InvalidTraceContext, TraceContext};

/// Defines an id: a number in a newtype, shown in the format of the literal. Its attributes state the encoding.
macro_rules! define_id {
    ($(#[$attribute:meta])* $name:ident($inner:ty), $shown:literal) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $shown, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}
pub(crate) use define_id;

define_id! {
    /// Host id: random, or assigned by the cluster.
    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    HostId(u64), "{:016x}"
}
define_id! {
    /// Incarnation of a host. A host that restarts under its id has another incarnation.
    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    Incarnation(u64), "{:x}"
}
define_id! {
    /// Actor id within a host. It is never reused in one incarnation of the host.
    ///
    /// That of a managed actor, which is restarted, is made from its id in the cluster, and is the same on every host.
    ///
    /// [`ActorId::HOST`] is the host itself, which spawns and stops actors. Tasks are calls to
    /// [`ActorId::TASKS`].
    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    ActorId(u64), "{}"
}
define_id! {
    /// Incarnation of an actor: a restarted actor keeps its id and gets the next one.
    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    ActorIncarnation(u32), "{}"
}
define_id! {
    /// Call id, unique among the open calls of its sender on one session.
    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    CallId(u64), "{}"
}
define_id! {
    /// Id of an attempt to connect, drawn at random by the dialling side. Zero means no link.
    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    LinkId(u64), "{:016x}"
}
define_id! {
    /// Stable 64-bit hash of the name of an actor type, a message type or a task.
    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    TypeHash(u64), "{:016x}"
}

impl HostId {
    /// Head of a cluster of nodes. All other hosts have random ids.
    pub const HEAD: Self = Self(1);
}

impl ActorId {
    /// The host itself.
    pub const HOST: Self = Self(0);
    /// Tasks of a host, which have a flow of their own: queued tasks do not delay other calls to the
    /// host.
    pub const TASKS: Self = Self(u64::MAX);

    /// Bits of the ids of managed actors. No host counts its own actors this far, and [`ActorId::TASKS`] has one more.
    const MANAGED: u64 = 0b10 << 62;
    const KIND: u64 = 0b11 << 62;

    /// Id of a managed actor, from its number in the cluster. `None` for a number that no cluster reaches.
    #[must_use]
    pub const fn managed(number: u64) -> Option<Self> {
        if number & Self::KIND == 0 { Some(Self(Self::MANAGED | number)) } else { None }
    }

    /// Number of a managed actor in the cluster; `None` for any other actor.
    #[must_use]
    pub const fn managed_number(self) -> Option<u64> {
        if self.0 & Self::KIND == Self::MANAGED { Some(self.0 & !Self::KIND) } else { None }
    }
}

impl LinkId {
    /// Absence of a link.
    pub const NONE: Self = Self(0);
}

impl TypeHash {
    /// Hashes a name with 64-bit FNV-1a, at compile time if the name is a constant.
    ///
    /// FNV-1a is in the public domain, by Fowler, Noll and Vo. It is stable across builds and machines,
    /// unlike the standard library's hashers.
    ///
    /// # Examples
    ///
    /// ```
    /// use roadshow::internals::id::TypeHash;
    ///
    /// assert_eq!(TypeHash::of(""), TypeHash(0xcbf2_9ce4_8422_2325));
    /// assert_eq!(TypeHash::of("a"), TypeHash(0xaf63_dc4c_8601_ec8c));
    /// ```
    #[must_use]
    pub const fn of(name: &str) -> Self {
        let bytes = name.as_bytes();
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut at = 0;
        // `for` loops are not allowed in a const fn.
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            at += 1;
        }
        Self(hash)
    }
}

/// Host in one of its incarnations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostUid {
    /// Host id.
    pub host: HostId,
    /// Incarnation of the host.
    pub incarnation: Incarnation,
}

impl HostUid {
    /// Smallest encoding of a value that contains a host identity, in bytes.
    ///
    /// The id is random with 64 bits and the incarnation counts microseconds since 1970, so neither has a
    /// short encoding.
    pub const ENCODED_BYTES_MIN: usize = 12;
}

impl fmt::Display for HostUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.host, self.incarnation)
    }
}

/// Actor of a given host, in one of its incarnations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// Actor id.
    pub actor: ActorId,
    /// Incarnation of the actor.
    pub incarnation: ActorIncarnation,
}

impl Target {
    /// The host itself.
    pub const HOST: Self = Self { actor: ActorId::HOST, incarnation: ActorIncarnation(0) };
    /// Tasks of a host.
    pub const TASKS: Self = Self { actor: ActorId::TASKS, incarnation: ActorIncarnation(0) };
}

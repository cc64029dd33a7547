//! Identities: who a host is, which of its lives is meant, which actor, which call.
//!
//! All of them are plain numbers in newtypes, so that none can stand in for another.
//! Nothing here knows how they are sent or looked up.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $shown:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
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

number! {
    /// One host: drawn at random when the host is made, or given by the cluster.
    HostId(u64), "{:016x}"
}
number! {
    /// One life of a host. A host that starts again under its id has another incarnation.
    Incarnation(u64), "{:x}"
}
number! {
    /// One actor of a host. Never given twice in one incarnation of the host.
    ///
    /// [`ActorId::HOST`] is the host itself: what it spawns and stops is asked of it, and what it runs as
    /// tasks of [`ActorId::TASKS`].
    ActorId(u64), "{}"
}
number! {
    /// One life of an actor: a restarted actor keeps its id and gets the next incarnation.
    ActorIncarnation(u32), "{}"
}
number! {
    /// One call, unique among the calls that its sender has open on one session.
    CallId(u64), "{}"
}
number! {
    /// One attempt to connect, drawn at random by the side that dials. Zero is no link.
    LinkId(u64), "{:016x}"
}
number! {
    /// The stable 64-bit hash of the name of an actor type, a message type or a task.
    TypeHash(u64), "{:016x}"
}

impl HostId {
    /// The head of a cluster of nodes. All other hosts have ids that are drawn at random.
    pub const HEAD: Self = Self(1);
}

impl ActorId {
    /// The host itself.
    pub const HOST: Self = Self(0);
    /// The tasks of a host, which stand for an actor of their own: what they take on at once is no
    /// concern of what else the host is asked for.
    pub const TASKS: Self = Self(u64::MAX);
}

impl LinkId {
    /// No link at all.
    pub const NONE: Self = Self(0);
}

impl TypeHash {
    /// Hashes a name with 64-bit FNV-1a, at compile time where the name is a constant.
    ///
    /// FNV-1a is public domain, by Fowler, Noll and Vo; it is stable across builds and machines,
    /// which the standard library's hashers are not.
    ///
    /// # Examples
    ///
    /// ```
    /// use roadshow::id::TypeHash;
    ///
    /// assert_eq!(TypeHash::of(""), TypeHash(0xcbf2_9ce4_8422_2325));
    /// assert_eq!(TypeHash::of("a"), TypeHash(0xaf63_dc4c_8601_ec8c));
    /// ```
    #[must_use]
    pub const fn of(name: &str) -> Self {
        let bytes = name.as_bytes();
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut at = 0;
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            at += 1;
        }
        Self(hash)
    }
}

/// A host in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostUid {
    /// The host.
    pub host: HostId,
    /// Its life.
    pub incarnation: Incarnation,
}

impl HostUid {
    /// No value of fewer bytes has an identity in it, in whatever form: a host's number is random, of 64
    /// bits, and an incarnation counts microseconds since 1970.
    pub const ENCODED_BYTES_MIN: usize = 12;
}

impl fmt::Display for HostUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.host, self.incarnation)
    }
}

/// An actor of a host that is known already, in one of the actor's lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// The actor.
    pub actor: ActorId,
    /// Its life.
    pub incarnation: ActorIncarnation,
}

impl Target {
    /// The host itself.
    pub const HOST: Self = Self { actor: ActorId::HOST, incarnation: ActorIncarnation(0) };
    /// The tasks of a host.
    pub const TASKS: Self = Self { actor: ActorId::TASKS, incarnation: ActorIncarnation(0) };
}

//! What an actor that is to be spawned may ask for, and the names of what a cluster consists of.
//!
//! Plain data and no rule: what is made of it is the cluster's.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{HostUid, Target};

macro_rules! key {
    ($(#[$doc:meta])* $name:ident($inner:ty), $shown:literal) => {
        $(#[$doc])*
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

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                <$inner>::from_str_radix(text, 16).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let key = deserializer.deserialize_any(KeyVisitor)?;
                <$inner>::try_from(key).map(Self).map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Reads a key in either form: as the number that it is, or as hexadecimal text.
struct KeyVisitor;

impl serde::de::Visitor<'_> for KeyVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or its hexadecimal digits as text")
    }

    fn visit_u64<E: serde::de::Error>(self, key: u64) -> Result<u64, E> {
        Ok(key)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
        u64::from_str_radix(text, 16).map_err(E::custom)
    }
}

key! {
    /// A node: one machine of the cluster, or one agent where several share a machine. It is also the id
    /// of the agent's host.
    NodeId(u64), "{:016x}"
}
key! {
    /// A job: one driver's work. Counted from 1 by the head, and never given twice by a cluster.
    JobId(u32), "{:08x}"
}
key! {
    /// A worker process. Given by the head when it has one started.
    WorkerId(u64), "{:016x}"
}
key! {
    /// An actor of the cluster, from the moment that somebody asked for it. Never given twice.
    ActorKey(u64), "{:016x}"
}

/// An amount of a resource, in ten-thousandths: half a GPU can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub struct Quantity(pub u64);

impl Quantity {
    /// How many parts make up one.
    pub const ONE: u64 = 10_000;
}

impl From<f64> for Quantity {
    /// Negative amounts and what is no number become nothing.
    fn from(amount: f64) -> Self {
        // A cast from a float saturates.
        Self((amount * Self::ONE as f64).round() as u64)
    }
}

impl From<Quantity> for f64 {
    fn from(quantity: Quantity) -> Self {
        quantity.0 as Self / Quantity::ONE as Self
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&f64::from(*self), f)
    }
}

/// Amounts of logical resources by name: `cpu`, `memory` in bytes, and whatever else a node is said to have.
///
/// They are counted and not enforced: a node admits work as long as the amounts last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Resources(pub BTreeMap<String, Quantity>);

impl Resources {
    /// The name of processors, in cores.
    pub const CPU: &'static str = "cpu";
    /// The name of memory, in bytes.
    pub const MEMORY: &'static str = "memory";

    /// None at all.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// These, and so much of one more.
    #[must_use]
    pub fn with(mut self, name: &str, amount: f64) -> Self {
        self.0.insert(name.to_owned(), Quantity::from(amount));
        self
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (at, (name, quantity)) in self.0.iter().enumerate() {
            write!(f, "{}{name} {quantity}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Names and values that say what a node is, such as `zone=a`.
pub type Labels = BTreeMap<String, String>;

/// How work is laid out over the nodes that can take it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Strategy {
    /// Nodes take turns.
    #[default]
    Spread,
    /// The first node that still has room, so that others stay free.
    Pack,
}

/// How long an actor lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Lifetime {
    /// No longer than the job that asked for it.
    #[default]
    Job,
    /// Until it stops or is killed.
    Detached,
}

/// What an actor is to be, and where it may live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorSpec {
    /// The name of its type.
    pub class: String,
    /// The name by which others find it, if it has one.
    pub name: Option<String>,
    /// Names are unique within a namespace.
    pub namespace: String,
    /// What it holds of its node as long as it lives.
    pub resources: Resources,
    /// How nodes are picked.
    pub strategy: Strategy,
    /// The one node that it may live on.
    pub node: Option<NodeId>,
    /// What its node has to be labelled with.
    pub labels: Labels,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Whether the living actor of that name will do.
    pub get_if_exists: bool,
}

impl ActorSpec {
    /// Whether the control plane has to know the actor also when it has ended and was started again: it has
    /// a name, or a life of its own, or something of its node.
    pub(crate) fn is_durable(&self) -> bool {
        let takes_any = self.resources.0.values().any(|amount| amount.0 > 0);
        self.name.is_some() || self.lifetime == Lifetime::Detached || takes_any
    }
}

/// Where an actor lives: its host, and the actor there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActorLocation {
    /// The host.
    pub host: HostUid,
    /// The actor on it.
    pub target: Target,
}

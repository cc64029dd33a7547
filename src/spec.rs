//! Specification of an actor to spawn, and the ids of a cluster's objects.
//!
//! Plain data without rules: the cluster interprets it.

mod end;
mod lease;
mod restart;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{ActorIncarnation, HostUid, Target, define_id};

pub use end::{End, EndReason};
pub(crate) use lease::{LeaseGrant, LeaseTime};
pub use restart::{Recipe, Restart, RestartPlace, Supervision};
pub use state::{Copies, HolderAddress, HolderPlan, HolderRequest, StateKey};

/// Reads and encodes an id that people see: hexadecimal digits as text, and a number in compact formats.
macro_rules! impl_hex_text {
    ($name:ident($inner:ty)) => {
        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                <$inner>::from_str_radix(text, 16).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // As text, since numbers in JSON lose precision above 2^53.
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // Self-describing formats only: JSON has the text, MessagePack the number.
                let id = deserializer.deserialize_any(IdVisitor)?;
                <$inner>::try_from(id).map(Self).map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Deserializer of an id from either form: the number, or its hexadecimal text.
struct IdVisitor;

impl serde::de::Visitor<'_> for IdVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or its hexadecimal digits as text")
    }

    fn visit_u64<E: serde::de::Error>(self, id: u64) -> Result<u64, E> {
        Ok(id)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
        u64::from_str_radix(text, 16).map_err(E::custom)
    }
}

define_id! {
    /// Node id: a machine of the cluster, or an agent where several share a machine. It is also the id of
    /// the agent's host.
    NodeId(u64), "{:016x}"
}
impl_hex_text!(NodeId(u64));
define_id! {
    /// Job id: the work of one driver. The head counts jobs from 1 and never reuses an id.
    JobId(u32), "{:08x}"
}
impl_hex_text!(JobId(u32));
define_id! {
    /// Worker id: a worker process. The head assigns it when it requests the start.
    WorkerId(u64), "{:016x}"
}
impl_hex_text!(WorkerId(u64));
define_id! {
    /// Event id in the head's log.
    EventId(u64), "{:016x}"
}
impl_hex_text!(EventId(u64));

define_id! {
    /// Actor id in the cluster, assigned with the first request for the actor and never reused.
    ActorKey(u64), "{:016x}"
}
impl_hex_text!(ActorKey(u64));

define_id! {
    /// Id of a holder of the states of durable actors. It outlives restarts of its process if its states do.
    HolderId(u64), "{:016x}"
}
impl_hex_text!(HolderId(u64));

/// Amount of a resource in ten-thousandths, so that fractions such as half a GPU are possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub struct Quantity(pub u64);

impl Quantity {
    /// Number of parts in one unit.
    pub const ONE: u64 = 10_000;
}

impl From<f64> for Quantity {
    /// Negative amounts and NaN become zero.
    fn from(amount: f64) -> Self {
        // A cast from a float saturates, and maps NaN to zero.
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

/// Amounts of logical resources by name: `cpu`, `memory` in bytes, and any others that nodes are
/// configured with.
///
/// They are accounted and not enforced: a node admits work while the amounts last.
///
/// # Examples
///
/// ```
/// use roadshow::Resources;
///
/// let needs = Resources::none().with(Resources::CPU, 0.5).with("gpu", 1.0);
/// assert_eq!(needs.to_string(), "cpu 0.5, gpu 1");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Resources(pub BTreeMap<String, Quantity>);

impl Resources {
    /// Name of the CPU resource, in cores.
    pub const CPU: &'static str = "cpu";
    /// Name of the memory resource, in bytes.
    pub const MEMORY: &'static str = "memory";

    /// Creates an empty set.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds an amount of a resource, which replaces an earlier one.
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

/// Names and values that describe a node, such as `zone=a`.
pub type Labels = BTreeMap<String, String>;

/// Strategy that distributes work over the eligible nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Strategy {
    /// Eligible nodes take turns.
    #[default]
    Spread,
    /// The first node with capacity, so that others stay free.
    Pack,
}

/// Lifetime of an actor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Lifetime {
    /// Ends with the job that spawned the actor.
    #[default]
    Job,
    /// Lasts until the actor stops or is killed.
    Detached,
}

/// Type and constraints of an actor to spawn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorSpec {
    /// Name of the actor's type.
    pub class: String,
    /// Name by which others find the actor, if it has one.
    pub name: Option<String>,
    /// Namespace, in which names are unique.
    pub namespace: String,
    /// Resources that the actor holds of its node during its lifetime.
    pub resources: Resources,
    /// Strategy that selects the node.
    pub strategy: Strategy,
    /// Required node, if any.
    pub node: Option<NodeId>,
    /// Node on which it must not be placed, if any: that of its last incarnation.
    pub avoided: Option<NodeId>,
    /// Required labels of the node.
    pub labels: Labels,
    /// Lifetime of the actor.
    pub lifetime: Lifetime,
    /// Return the live actor with the name instead of a new one.
    pub get_if_exists: bool,
    /// Policy of restarts; `None` for an actor with a single incarnation.
    pub restart: Option<Restart>,
    /// Parent with which the actor ends, in the incarnation that requests it.
    pub parent: Option<(ActorKey, ActorIncarnation)>,
    /// Strategy for the actor's own children.
    pub supervision: Supervision,
    /// The job fails if the actor fails for good.
    pub essential: bool,
}

impl ActorSpec {
    /// True if only the control plane can create the actor, which it refuses without a policy.
    pub(crate) fn is_managed(&self) -> bool {
        self.restart.is_some() || self.parent.is_some() || self.essential
    }

    /// True if a restarted head must know the actor: it has a name, is detached, holds resources, or is restarted.
    pub(crate) fn is_durable(&self) -> bool {
        let takes_any = self.resources.0.values().any(|amount| amount.0 > 0);
        self.name.is_some() || self.lifetime == Lifetime::Detached || takes_any || self.restart.is_some()
    }
}

/// Location of an actor: its host and its target there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActorLocation {
    /// Host of the actor.
    pub host: HostUid,
    /// Actor on the host.
    pub target: Target,
}

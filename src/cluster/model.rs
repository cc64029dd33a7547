//! What a cluster consists of, as plain data: what the head keeps, agents report and people see.
//!
//! Owns the words (node, job, worker, actor, resources) and their states. Knows no process, no socket
//! and no rule: those are in `state`, `schedule` and the processes' own modules.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{Identity, Target};

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
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    <$inner>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// A worker, as others reach it: its two hosts, and where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The host of its actors.
    pub actors: Identity,
    /// Where that is reached.
    pub actors_at: SocketAddr,
    /// The host of its tasks.
    pub tasks: Identity,
    /// Where that is reached.
    pub tasks_at: SocketAddr,
}

/// Where an actor lives: its host, and the actor there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ActorPlace {
    /// The host.
    pub host: Identity,
    /// The actor on it.
    pub target: Target,
}

/// What a node says of itself when it joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// The agent's host; its id is the node's.
    pub agent: Identity,
    /// Where all hosts of the node are reached.
    pub address: SocketAddr,
    /// What the machine is called.
    pub hostname: String,
    /// The agent's process.
    pub pid: u32,
    /// Whether the head runs on it.
    pub is_head: bool,
    /// What it has for work.
    pub resources: Resources,
    /// What it is labelled with.
    pub labels: Labels,
    /// How many workers it runs for each job; none if it takes no work.
    pub workers: u32,
    /// What its executables must be built for, such as `x86_64-linux-gnu`.
    pub platform: String,
    /// Where its files are.
    pub session_dir: String,
}

impl NodeFacts {
    /// The node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(self.agent.host.0)
    }
}

/// What a driver says of its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFacts {
    /// The program and its arguments.
    pub entrypoint: String,
    /// The machine that the driver runs on.
    pub hostname: String,
    /// The driver's process; 0 before it runs.
    pub pid: u32,
    /// The driver's host; none before it runs.
    pub driver: Option<Identity>,
    /// The namespace of its names.
    pub namespace: String,
    /// The node whose agent runs the driver, if the job was submitted.
    pub runs_on: Option<NodeId>,
}

/// What has become of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NodeState {
    /// It works.
    Alive,
    /// It works, and takes nothing new.
    Draining,
    /// It has left, or was not heard of for too long.
    Dead,
}

/// What has become of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobState {
    /// Submitted; its driver has not reported yet.
    Pending,
    /// Its driver runs.
    Running,
    /// Ended because somebody stopped it.
    Stopped,
    /// Its driver has ended in order.
    Succeeded,
    /// Its driver has failed, or is gone.
    Failed,
}

impl JobState {
    /// Whether it goes on.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }
}

/// What has become of an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ActorState {
    /// Asked for; it waits for a place, or is being made there.
    PendingCreation,
    /// It lives.
    Alive,
    /// It is being made anew after a failure.
    Restarting,
    /// It has ended.
    Dead,
}

/// What has become of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkerState {
    /// Its agent is to start it.
    Starting,
    /// It works.
    Alive,
    /// It has ended.
    Dead,
}

/// How many tasks of one function are in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCount {
    /// The function.
    pub name: String,
    /// Accepted, and not begun.
    pub queued: u64,
    /// Under way.
    pub running: u64,
    /// Ended with a result.
    pub finished: u64,
    /// Ended by a panic, or could not begin.
    pub failed: u64,
}

/// A node, as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeInfo {
    /// The node.
    pub node_id: NodeId,
    /// What has become of it.
    pub state: NodeState,
    /// Where it is reached.
    pub address: SocketAddr,
    /// What the machine is called.
    pub hostname: String,
    /// The agent's process.
    pub pid: u32,
    /// Whether the head runs on it.
    pub is_head: bool,
    /// All that it has.
    pub resources: Resources,
    /// What of that is not taken.
    pub available: Resources,
    /// What it is labelled with.
    pub labels: Labels,
    /// How many worker processes run on it.
    pub workers: usize,
    /// How many actors live on it.
    pub actors: usize,
    /// Where its files are.
    pub session_dir: String,
    /// When it joined, in milliseconds since 1970.
    pub started_ms: u64,
    /// Why it is dead, if it is.
    pub cause: Option<String>,
}

/// A job, as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobInfo {
    /// The job.
    pub job_id: JobId,
    /// What has become of it.
    pub state: JobState,
    /// The program and its arguments.
    pub entrypoint: String,
    /// The machine that the driver runs on.
    pub hostname: String,
    /// The driver's process; 0 before it runs.
    pub pid: u32,
    /// The node whose agent runs the driver, if the job was submitted.
    pub runs_on: Option<NodeId>,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended, if it has.
    pub ended_ms: Option<u64>,
    /// What its driver ended with, if that is known.
    pub exit_code: Option<i32>,
    /// How it ended, in words.
    pub message: Option<String>,
}

/// An actor, as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ActorInfo {
    /// The actor.
    pub actor_id: ActorKey,
    /// The name of its type.
    pub class: String,
    /// What has become of it.
    pub state: ActorState,
    /// The job that asked for it.
    pub job_id: JobId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The namespace of its name.
    pub namespace: String,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// What it holds of its node.
    pub resources: Resources,
    /// The node that it lives on.
    pub node_id: Option<NodeId>,
    /// The worker that it lives in.
    pub worker_id: Option<WorkerId>,
    /// That worker's process.
    pub pid: Option<u32>,
    /// Why it still waits, or how it ended.
    pub cause: Option<String>,
}

/// A worker, as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerSummary {
    /// The worker.
    pub worker_id: WorkerId,
    /// What has become of it.
    pub state: WorkerState,
    /// The job that it works for.
    pub job_id: JobId,
    /// The node that it runs on.
    pub node_id: NodeId,
    /// Its process; 0 before it runs.
    pub pid: u32,
    /// How many actors live in it.
    pub actors: usize,
    /// The one detached actor that it is for, if so.
    pub detached: Option<ActorKey>,
    /// How it ended, if it has.
    pub cause: Option<String>,
}

/// The tasks of one function on one worker, as people see them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskInfo {
    /// The job that they are of.
    pub job_id: JobId,
    /// The worker.
    pub worker_id: WorkerId,
    /// The node that it runs on.
    pub node_id: NodeId,
    /// How many are in which state.
    #[serde(flatten)]
    pub count: TaskCount,
}

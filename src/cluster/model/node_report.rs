//! What an agent says of its node when it joins or rejoins.

use serde::{Deserialize, Serialize};

use crate::cluster::model::{ActorKey, JobId, NodeDescriptor, TaskCount, WorkerAddress, WorkerId};
use crate::spec::ActorLocation;

/// What an agent says when it joins: itself, and what already runs there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cluster) struct NodeReport {
    pub(in crate::cluster) facts: NodeDescriptor,
    pub(in crate::cluster) workers: Vec<WorkerReport>,
    /// The jobs whose executables are kept for them.
    pub(in crate::cluster) jobs: Vec<JobId>,
    /// The submitted jobs whose drivers run.
    pub(in crate::cluster) drivers: Vec<JobId>,
}

impl NodeReport {
    /// A node that nothing runs on.
    pub(in crate::cluster) fn idle(facts: NodeDescriptor) -> Self {
        Self { facts, workers: Vec::new(), jobs: Vec::new(), drivers: Vec::new() }
    }
}

/// A worker that runs when its agent joins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cluster) struct WorkerReport {
    pub(in crate::cluster) worker: WorkerId,
    pub(in crate::cluster) job: JobId,
    pub(in crate::cluster) detached: Option<ActorKey>,
    /// None before it is ready.
    pub(in crate::cluster) member: Option<WorkerAddress>,
    pub(in crate::cluster) pid: u32,
    /// Whether a signal has stopped it.
    pub(in crate::cluster) suspended: bool,
    /// The actors that live in it, with the names of their types.
    pub(in crate::cluster) actors: Vec<(ActorKey, String, ActorLocation)>,
    /// How many tasks it has had, by function.
    pub(in crate::cluster) tasks: Vec<TaskCount>,
}

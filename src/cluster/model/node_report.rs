//! Report of a node's state, which its agent sends when it joins or rejoins.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::model::{ActorKey, JobId, NodeDescriptor, TaskCount, WorkerAddress, WorkerId};
use crate::id::ActorIncarnation;
use crate::spec::{ActorLocation, End, HolderAddress, HolderId, StateKey};

/// Description of the node, and everything that already runs on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cluster) struct NodeReport {
    pub(in crate::cluster) descriptor: NodeDescriptor,
    pub(in crate::cluster) workers: Vec<WorkerReport>,
    /// Jobs whose executables the node has pinned.
    pub(in crate::cluster) jobs: Vec<JobId>,
    /// Submitted jobs whose drivers run on the node.
    pub(in crate::cluster) drivers: Vec<JobId>,
    /// Last ends of actors that the head has not acknowledged. Without them an actor that has stopped would count as
    /// lost, and be restarted.
    pub(in crate::cluster) ended: Vec<(ActorKey, ActorIncarnation, End)>,
    /// Last ends of workers that the head has not acknowledged.
    #[serde(default)]
    pub(in crate::cluster) ended_workers: Vec<EndedWorker>,
    /// Holder of states that the agent runs.
    pub(in crate::cluster) holder: Option<HolderId>,
    /// States that it has. The node may have missed the ends of their actors.
    pub(in crate::cluster) states: Vec<StateKey>,
}

/// Worker that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cluster) struct EndedWorker {
    pub(in crate::cluster) worker: WorkerId,
    pub(in crate::cluster) end: End,
    /// True if something outside the worker has killed it.
    pub(in crate::cluster) killed: bool,
}

impl NodeReport {
    /// Report of a node on which nothing runs.
    pub(in crate::cluster) fn idle(descriptor: NodeDescriptor) -> Self {
        Self {
            descriptor,
            workers: Vec::new(),
            jobs: Vec::new(),
            drivers: Vec::new(),
            ended: Vec::new(),
            ended_workers: Vec::new(),
            holder: None,
            states: Vec::new(),
        }
    }

    /// Holder of the node, on the agent's own host.
    pub(in crate::cluster) fn holder_address(&self) -> Option<HolderAddress> {
        let NodeDescriptor { agent, address, .. } = self.descriptor;
        self.holder.map(|holder| HolderAddress { holder, host: agent, at: address })
    }
}

/// Worker that already runs when its agent joins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cluster) struct WorkerReport {
    pub(in crate::cluster) worker: WorkerId,
    pub(in crate::cluster) job: JobId,
    pub(in crate::cluster) detached: Option<ActorKey>,
    /// Addresses of the worker's hosts; `None` before the worker is ready.
    pub(in crate::cluster) member: Option<WorkerAddress>,
    pub(in crate::cluster) pid: u32,
    /// True while a signal has stopped the process.
    pub(in crate::cluster) suspended: bool,
    /// Actors alive in the worker, with their type names.
    pub(in crate::cluster) actors: Vec<(ActorKey, String, ActorLocation)>,
    /// Task counts of the worker, by function.
    pub(in crate::cluster) tasks: Vec<TaskCount>,
}

/// Renewal of a node's lease, counted by the agent from the moment at which it sent the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cluster) struct LeaseRenewal {
    /// Time at which the lease began: it differs after each gap in which the head may have replaced actors.
    pub(in crate::cluster) since: u64,
    pub(in crate::cluster) length: Duration,
    /// Time after the end of the lease for which the head waits at least, beside the drift of the clocks.
    pub(in crate::cluster) grace: Duration,
}

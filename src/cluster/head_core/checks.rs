//! Checks of what an agent may report: only about its own node.

use crate::cluster::control_plane::state::ClusterState;
use crate::cluster::model::NodeId;
use crate::cluster::protocol::NodeEvent;
use crate::cluster::protocol::worker::ActorEvent;
use crate::id::{HostId, HostUid};

/// Rejects events about workers, actors or drivers of another node. Events about unknown ids are accepted.
pub(in crate::cluster) fn check_event(
    state: &ClusterState,
    node: NodeId,
    event: &NodeEvent,
) -> Result<(), String> {
    let of_worker = match event {
        NodeEvent::WorkerReady { worker, member, .. } => {
            check_owned_by(state, node, &[member.actors, member.tasks])?;
            Some(*worker)
        }
        NodeEvent::WorkerEnded { worker, .. }
        | NodeEvent::WorkerSuspended { worker, .. }
        | NodeEvent::Actor { worker, .. }
        | NodeEvent::Tasks { worker, .. } => Some(*worker),
        NodeEvent::DriverStarted { job } | NodeEvent::DriverExited { job, .. } => {
            return match state.job_descriptor(*job) {
                Some(descriptor) if descriptor.runs_on != Some(node) => {
                    Err(format!("the driver of job {job} does not run on this node"))
                }
                _ => Ok(()),
            };
        }
        NodeEvent::ExecutablePinned { .. } => None,
    };
    if let Some(worker) = of_worker
        && state.node_of_worker(worker).is_some_and(|runs_on| runs_on != node)
    {
        return Err(format!("worker {worker} does not run on this node"));
    }
    if let NodeEvent::Actor { worker, event: ActorEvent::Stopped { actor, .. } } = event
        && state.worker_of_actor(*actor).is_some_and(|lives_in| lives_in != *worker)
    {
        return Err(format!("actor {actor} does not run on that worker"));
    }
    Ok(())
}

/// Checks that the hosts are unclaimed, or belong to a worker of this node.
pub(in crate::cluster) fn check_owned_by(
    state: &ClusterState,
    node: NodeId,
    hosts: &[HostUid],
) -> Result<(), String> {
    for host in hosts {
        let holder = state.owner_of_host(host.host);
        let runs_here = |worker| state.worker(worker).is_some_and(|(runs_on, _)| runs_on == node);
        let is_own = holder == Some(*host) && state.worker_of(*host).is_some_and(runs_here);
        if host.host == HostId::HEAD || (holder.is_some() && !is_own) {
            return Err(format!("host {} belongs to another process of the cluster", host.host));
        }
    }
    Ok(())
}

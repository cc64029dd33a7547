//! Overview of a cluster, as `roadshow status --json` and the dashboard show it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use super::client::{Admin, AdminError, AdminTransport};
use crate::cluster::listing::Query;
use crate::cluster::model::{
    Alert, EventInfo, JobInfo, NodeInfo, NodeState, PendingActor, Quantity, RestartCounts,
};

/// Number of events in the overview.
const EVENTS: usize = 3;

/// Overview of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// Address of the head, as the client reaches it; `None` in the head's own process.
    pub address: Option<SocketAddr>,
    /// Version of the head's state: it grows whenever rows may have changed, but for statistics.
    pub snapshot: u64,
    /// Time by the head's clock, in milliseconds since 1970.
    pub time_ms: u64,
    /// Nodes of the cluster, dead ones included while they are listed.
    pub nodes: Vec<NodeInfo>,
    /// Resources of the nodes that are not dead.
    pub resources: BTreeMap<String, ResourceUsage>,
    /// Number of jobs by state.
    pub jobs: BTreeMap<String, usize>,
    /// Pending actors that have waited longest.
    pub waiting: Vec<PendingActor>,
    /// Number of all pending actors.
    pub waiting_count: usize,
    /// Number of restarts of actors.
    pub restarts: RestartCounts,
    /// Alerts that an operator should handle.
    pub alerts: Vec<Alert>,
    /// Latest events, the newest first.
    pub events: Vec<EventInfo>,
}

/// Used and total amount of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ResourceUsage {
    /// Amount that actors hold.
    pub used: Quantity,
    /// Amount that the nodes offer.
    pub total: Quantity,
}

impl ClusterStatus {
    /// Requests the overview from a head.
    ///
    /// # Errors
    ///
    /// [`AdminError`] from the server, or if no reply arrives.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: drop the connection together with the future, and connect again.
    pub async fn read<E: AdminTransport>(
        head: &mut Admin<E>,
        address: Option<SocketAddr>,
    ) -> Result<Self, AdminError> {
        // First: the rows are at least as new as the number says.
        let (snapshot, time_ms) = head.snapshot().await?;
        let nodes = head.all::<NodeInfo>(Vec::new()).await?;
        let jobs = head.all::<JobInfo>(Vec::new()).await?;
        let ((waiting, waiting_count), alerts) = (head.waiting().await?, head.alerts().await?);
        let restarts = head.restarts().await?;
        let events = head.page(Query { limit: EVENTS, ..Query::filtered(Vec::new()) }).await?.rows;
        let (resources, jobs) = (usage(&nodes), states(&jobs));
        Ok(Self {
            address,
            snapshot,
            time_ms,
            resources,
            jobs,
            nodes,
            waiting,
            waiting_count,
            restarts,
            alerts,
            events,
        })
    }
}

fn usage(nodes: &[NodeInfo]) -> BTreeMap<String, ResourceUsage> {
    let mut sum: BTreeMap<String, ResourceUsage> = BTreeMap::new();
    // Actors of a rejoining node keep their resources, so the node counts.
    for node in nodes.iter().filter(|node| node.state != NodeState::Dead) {
        for (resource, total) in &node.resources.0 {
            let available = node.available.0.get(resource).copied().unwrap_or_default();
            let usage = sum.entry(resource.clone()).or_default();
            usage.total.0 += total.0;
            usage.used.0 += total.0.saturating_sub(available.0);
        }
    }
    sum
}

fn states(jobs: &[JobInfo]) -> BTreeMap<String, usize> {
    let mut states = BTreeMap::new();
    for job in jobs {
        *states.entry(job.state.word().to_owned()).or_default() += 1;
    }
    states
}

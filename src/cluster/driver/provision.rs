//! Provisioning of nodes: the node gets the executable, and its agent and the head the job's settings.
//!
//! ```text
//!   Stat: the node has all of it? --yes--> Launch (agent starts workers) --> NodeProvisioned (head places on it)
//!     | no                                   ^
//!     '--> deliver: fetch from a node, or copy of the driver's
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

use super::delivery::{Carrier, deliver};
use super::sources::{NodeSource, TransferOutcome, TransferTally};
use super::{DriverShared, InitialNodes, StartupProgress};
use crate::cluster::error::ClusterError;
use crate::cluster::model::NodeDescriptor;
use crate::cluster::protocol::{
    EXECUTABLE, ExecutableReply, ExecutableRequest, FetchCommand, JobRequest, JobSpec,
};
use crate::config::{
    EXECUTABLE_CHUNK_BYTES, EXECUTABLE_LOOK_TIMEOUT, EXECUTABLE_TIMEOUT, NODE_LEASE, WORKER_START_TIMEOUT,
};
use crate::host::deadline_in;
use crate::observe::log;
use crate::remote::call_host;

/// Provisions the nodes that are there, and waits until their workers are ready.
///
/// A node that cannot be used is logged. It is an error if no node can.
pub(super) async fn provision_initial_nodes(
    shared: &Arc<DriverShared>,
    found: InitialNodes,
) -> Result<(), ClusterError> {
    let working: Vec<_> = found.nodes.iter().filter(|descriptor| descriptor.workers > 0).collect();
    if working.is_empty() {
        return match found.rejoining {
            true => wait_for_rejoin(shared).await,
            false => Err(ClusterError::NoNodes { address: shared.view().head_at }),
        };
    }
    // A silent node delays the start by this time only; after it, nodes count as lacking the executable.
    drop(tokio::time::timeout(EXECUTABLE_LOOK_TIMEOUT, find_source(shared, &working)).await);
    let provisioned = join_all(working.iter().map(|descriptor| provision(shared, descriptor))).await;
    let (mut usable, mut failure) = (Vec::new(), None);
    for (&descriptor, provisioned) in working.iter().zip(provisioned) {
        match provisioned {
            Ok(()) => usable.push(descriptor),
            Err(why) => {
                log::warn!(node = %descriptor.id(), why, "the node cannot run this job's workers");
                failure = Some(format!("node {}: {why}", descriptor.id()));
            }
        }
    }
    log_tally(shared);
    if let (true, Some(why)) = (usable.is_empty(), failure) {
        return Err(ClusterError::NotProvisioned { why });
    }
    let expected: u32 = usable.iter().map(|descriptor| descriptor.workers).sum();
    let mut progress = shared.startup.subscribe();
    let all = progress.wait_for(|progress| progress.ready + progress.failed >= expected);
    // Workers that are not ready in time may still join later, as long as one is ready now.
    drop(tokio::time::timeout(WORKER_START_TIMEOUT, all).await);
    let progress = shared.startup.borrow().clone();
    match progress.ready {
        0 => Err(ClusterError::NotProvisioned {
            why: progress
                .last_failure
                .unwrap_or_else(|| format!("no worker was ready within {WORKER_START_TIMEOUT:?}")),
        }),
        _ => Ok(()),
    }
}

/// Asks all nodes for the executable, until the first one has it.
///
/// With one such node the driver need not send any copy. Without this step, nodes that lack the executable and answer
/// sooner would be sent one.
async fn find_source(shared: &Arc<DriverShared>, nodes: &[&NodeDescriptor]) {
    let mut requests: FuturesUnordered<_> = nodes
        .iter()
        .map(|descriptor| async move {
            shared.control.add_peer(descriptor.agent, descriptor.address);
            (descriptor, stored_bytes(shared, descriptor).await)
        })
        .collect();
    while let Some((descriptor, found)) = requests.next().await {
        if found.is_ok_and(|bytes| bytes == shared.executable.size()) {
            return shared.sources.add(NodeSource { agent: descriptor.agent, address: descriptor.address });
        }
    }
}

/// Logs how the nodes got the executable since the start of the job.
pub(super) fn log_tally(shared: &DriverShared) {
    let TransferTally { had, sent, fetched, sent_bytes } = shared.sources.tally();
    log::info!(had, sent, fetched, sent_bytes, "the executable is on the nodes that can be used");
}

/// Waits until a node has rejoined the restarted head and has a ready worker. The head announces such a node like a new
/// one, so the event loop provisions it.
async fn wait_for_rejoin(shared: &Arc<DriverShared>) -> Result<(), ClusterError> {
    log::warn!("the head has restarted, waiting for nodes to rejoin");
    let mut progress = shared.startup.subscribe();
    let one =
        progress.wait_for(|progress| progress.ready + progress.failed > 0 || progress.refused.is_some());
    drop(tokio::time::timeout(NODE_LEASE + WORKER_START_TIMEOUT, one).await);
    let StartupProgress { ready, last_failure, refused, .. } = shared.startup.borrow().clone();
    match last_failure.or(refused) {
        _ if ready > 0 => Ok(()),
        Some(why) => Err(ClusterError::NotProvisioned { why }),
        None => Err(ClusterError::NoNodes { address: shared.view().head_at }),
    }
}

/// Provisions one node, and reports it to the head.
pub(super) async fn provision(shared: &Arc<DriverShared>, descriptor: &NodeDescriptor) -> Result<(), String> {
    shared.control.add_peer(descriptor.agent, descriptor.address);
    // Registered before the transfer: output and events of its workers come as soon as they start.
    shared.view().agents.insert(descriptor.id(), descriptor.agent);
    let provisioned = try_provision(shared, descriptor).await;
    if provisioned.is_err() {
        shared.forget_agent(descriptor.agent);
    }
    provisioned
}

async fn try_provision(shared: &Arc<DriverShared>, descriptor: &NodeDescriptor) -> Result<(), String> {
    // The agent before the head: once the head knows of the node, it may have a worker started there.
    provide(shared, descriptor).await?;
    let launch = ExecutableRequest::Launch(JobSpec {
        job: shared.job,
        digest: shared.executable.digest(),
        arguments: shared.launch.arguments.clone(),
        environment: shared.launch.environment.clone(),
        limits: shared.launch.limits.clone(),
        stack_bytes: shared.launch.stack_bytes,
        driver: shared.control.identity(),
    });
    ask(shared, descriptor, launch).await?;
    let reported = shared.ask(JobRequest::NodeProvisioned { job: shared.job, node: descriptor.id() }).await;
    reported.map_err(|error| error.to_string())?.map_err(|denied| denied.to_string())?;
    Ok(())
}

/// Delivers the executable to a node unless it is there. From then on other nodes may fetch it there.
async fn provide(shared: &Arc<DriverShared>, descriptor: &NodeDescriptor) -> Result<(), String> {
    let node = NodeSource { agent: descriptor.agent, address: descriptor.address };
    if stored_bytes(shared, descriptor).await? == shared.executable.size() {
        shared.sources.add_existing(node);
        return Ok(());
    }
    deliver(&shared.sources, node, &NodeCarrier { shared, descriptor }).await
}

/// Carrier of the executable to one node, by calls to its agent.
struct NodeCarrier<'a> {
    shared: &'a Arc<DriverShared>,
    descriptor: &'a NodeDescriptor,
}

impl Carrier for NodeCarrier<'_> {
    async fn fetch(&self, source: NodeSource) -> Result<TransferOutcome, String> {
        fetch(self.shared, self.descriptor, source).await
    }

    async fn send(&self, pieces: &AtomicU64) -> Result<(), String> {
        send(self.shared, self.descriptor, pieces).await
    }
}

/// Has the node fetch the executable from another one while that makes progress. An error is a failure of the node
/// itself.
async fn fetch(
    shared: &DriverShared,
    descriptor: &NodeDescriptor,
    source: NodeSource,
) -> Result<TransferOutcome, String> {
    let (digest, size) = (shared.executable.digest(), shared.executable.size());
    let mut progress = None;
    // A call is limited in time, so a large executable takes several: each continues where the last one ended.
    let (outcome, why) = loop {
        let wanted = FetchCommand { digest, size, from: source.agent, at: source.address };
        match ask(shared, descriptor, ExecutableRequest::Fetch(wanted)).await? {
            ExecutableReply::Stat(bytes) if bytes == size => return Ok(TransferOutcome::Done),
            ExecutableReply::Stat(bytes) if progress.is_none_or(|before| before < bytes) => {
                progress = Some(bytes)
            }
            ExecutableReply::Stat(_) => {
                break (TransferOutcome::Failed, "the source sends nothing more".to_owned());
            }
            ExecutableReply::Busy => {
                break (TransferOutcome::Busy, "the source serves other nodes".to_owned());
            }
            ExecutableReply::NotFetched { text } => break (TransferOutcome::Failed, text),
            ExecutableReply::Wrong { text } => break (TransferOutcome::Wrong, text),
            other => return Err(format!("the node sent an unexpected reply: {other:?}")),
        }
    };
    let (node, from) = (descriptor.id(), source.agent.host);
    match outcome {
        TransferOutcome::Busy => log::debug!(%node, %from, why, "the executable will be requested again"),
        TransferOutcome::Wrong => {
            log::warn!(%node, %from, why, "a node has a damaged copy of the executable; trying another source");
        }
        _ => {
            log::info!(%node, %from, why, "the executable was not fetched from a node; trying another source")
        }
    }
    Ok(outcome)
}

/// Sends the node the part of the executable that it lacks, and counts the pieces that it has accepted.
async fn send(
    shared: &Arc<DriverShared>,
    descriptor: &NodeDescriptor,
    pieces: &AtomicU64,
) -> Result<(), String> {
    let (digest, size) = (shared.executable.digest(), shared.executable.size());
    let mut stored = stored_bytes(shared, descriptor).await?;
    // The present part may come from a node with a damaged copy. If the digest is wrong, everything is sent once more.
    let mut is_all_own = stored == 0;
    while stored < size {
        let driver = Arc::clone(shared);
        let bytes = tokio::task::spawn_blocking(move || {
            driver.executable.read(stored, EXECUTABLE_CHUNK_BYTES).map_err(|error| error.to_string())
        });
        let bytes = bytes.await.map_err(|error| error.to_string())??;
        shared.sources.sent_bytes(bytes.len());
        let write = ExecutableRequest::Write { digest, size, offset: stored, bytes: bytes.into() };
        stored = match ask(shared, descriptor, write).await? {
            ExecutableReply::Stat(more) if more > stored => more,
            ExecutableReply::Stat(more) => {
                return Err(format!(
                    "the node has {more} bytes of the executable after it accepted {stored}"
                ));
            }
            ExecutableReply::Wrong { .. } if !is_all_own => {
                is_all_own = true;
                0
            }
            ExecutableReply::Wrong { text } => return Err(text),
            other => return Err(format!("the node sent an unexpected reply: {other:?}")),
        };
        pieces.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Number of bytes of the executable that the node has.
async fn stored_bytes(shared: &DriverShared, descriptor: &NodeDescriptor) -> Result<u64, String> {
    let (digest, size) = (shared.executable.digest(), shared.executable.size());
    let platform = shared.executable.platform().to_string();
    match ask(shared, descriptor, ExecutableRequest::Stat { digest, size, platform }).await? {
        ExecutableReply::Stat(bytes) => Ok(bytes),
        other => Err(format!("the node sent an unexpected reply: {other:?}")),
    }
}

/// Sends a node's agent a request about the executable.
async fn ask(
    shared: &DriverShared,
    descriptor: &NodeDescriptor,
    request: ExecutableRequest,
) -> Result<ExecutableReply, String> {
    let deadline = deadline_in(EXECUTABLE_TIMEOUT);
    match call_host(&shared.control, descriptor.agent, EXECUTABLE, request, deadline).await {
        Ok(ExecutableReply::Failed { text }) => Err(text),
        Ok(reply) => Ok(reply),
        Err(error) => Err(error.to_string()),
    }
}

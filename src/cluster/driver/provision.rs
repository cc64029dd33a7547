//! The driver's executable on its way to the nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

use super::delivery::{Carrier, deliver};
use super::sources::{Outcome, Source, Tally};
use super::{InitialNodes, Shared, StartupProgress};
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

/// Equips the nodes that there are, and waits until their workers are ready.
///
/// A node that cannot be used is told of; it is an error if none can.
pub(super) async fn provision_initial_nodes(
    shared: &Arc<Shared>,
    found: InitialNodes,
) -> Result<(), ClusterError> {
    let working: Vec<_> = found.nodes.iter().filter(|facts| facts.workers > 0).collect();
    if working.is_empty() {
        return match found.rejoining {
            true => wait_for_rejoin(shared).await,
            false => Err(ClusterError::NoNodes { address: shared.standing().head_at }),
        };
    }
    // Behind that time nodes are taken not to have it.
    drop(tokio::time::timeout(EXECUTABLE_LOOK_TIMEOUT, find_source(shared, &working)).await);
    let equipped = join_all(working.iter().map(|facts| provision(shared, facts))).await;
    let (mut usable, mut failure) = (Vec::new(), None);
    for (&facts, equipped) in working.iter().zip(equipped) {
        match equipped {
            Ok(()) => usable.push(facts),
            Err(why) => {
                log::warn!(node = %facts.id(), why, "a node cannot be used for this job");
                failure = Some(format!("node {}: {why}", facts.id()));
            }
        }
    }
    log_tally(shared);
    if let (true, Some(why)) = (usable.is_empty(), failure) {
        return Err(ClusterError::NotProvisioned { why });
    }
    let expected: u32 = usable.iter().map(|facts| facts.workers).sum();
    let mut settled = shared.startup.subscribe();
    let all = settled.wait_for(|settled| settled.ready + settled.failed >= expected);
    // What is not there in time may come later.
    drop(tokio::time::timeout(WORKER_START_TIMEOUT, all).await);
    let settled = shared.startup.borrow().clone();
    match settled.ready {
        0 => Err(ClusterError::NotProvisioned {
            why: settled
                .last_failure
                .unwrap_or_else(|| format!("no worker was ready within {WORKER_START_TIMEOUT:?}")),
        }),
        _ => Ok(()),
    }
}

/// Looks for a node that has the executable from before, and gives up the look at the first: with it no copy of the
/// driver is needed. Those that answer sooner than it does would be sent one otherwise.
async fn find_source(shared: &Arc<Shared>, nodes: &[&NodeDescriptor]) {
    let mut looks: FuturesUnordered<_> = nodes
        .iter()
        .map(|facts| async move {
            shared.control.add_peer(facts.agent, facts.address);
            (facts, have(shared, facts).await)
        })
        .collect();
    while let Some((facts, found)) = looks.next().await {
        if found.is_ok_and(|bytes| bytes == shared.executable.size()) {
            return shared.sources.add(Source { agent: facts.agent, address: facts.address });
        }
    }
}

/// Logs how the nodes got the executable, since the job began.
pub(super) fn log_tally(shared: &Shared) {
    let Tally { had, sent, fetched, sent_bytes } = shared.sources.tally();
    log::info!(had, sent, fetched, sent_bytes, "the executable is on the nodes that can be used");
}

/// Waits until a node is back that was there before the head was started again, and a worker is ready there.
/// The driver is told of the node as of any other that comes.
async fn wait_for_rejoin(shared: &Arc<Shared>) -> Result<(), ClusterError> {
    log::warn!("the head was started again, and no node is back yet; they are waited for");
    let mut settled = shared.startup.subscribe();
    let one = settled.wait_for(|settled| settled.ready + settled.failed > 0 || settled.refused.is_some());
    drop(tokio::time::timeout(NODE_LEASE + WORKER_START_TIMEOUT, one).await);
    let StartupProgress { ready, last_failure, refused, .. } = shared.startup.borrow().clone();
    match last_failure.or(refused) {
        _ if ready > 0 => Ok(()),
        Some(why) => Err(ClusterError::NotProvisioned { why }),
        None => Err(ClusterError::NoNodes { address: shared.standing().head_at }),
    }
}

/// Sees to it that a node has the executable, and tells the head.
pub(super) async fn provision(shared: &Arc<Shared>, facts: &NodeDescriptor) -> Result<(), String> {
    shared.control.add_peer(facts.agent, facts.address);
    shared.standing().agents.insert(facts.id(), facts.agent);
    let equipped = try_to_equip(shared, facts).await;
    if equipped.is_err() {
        shared.forget_agent(facts.agent);
    }
    equipped
}

async fn try_to_equip(shared: &Arc<Shared>, facts: &NodeDescriptor) -> Result<(), String> {
    provide(shared, facts).await?;
    let launch = ExecutableRequest::Launch(JobSpec {
        job: shared.job,
        digest: shared.executable.digest(),
        arguments: shared.launch.arguments.clone(),
        environment: shared.launch.environment.clone(),
        limits: shared.launch.limits.clone(),
        stack_bytes: shared.launch.stack_bytes,
        driver: shared.control.identity(),
    });
    ask(shared, facts, launch).await?;
    let told = shared.ask(JobRequest::NodeProvisioned { job: shared.job, node: facts.id() }).await;
    told.map_err(|error| error.to_string())?.map_err(|denied| denied.to_string())?;
    Ok(())
}

/// Sees to it that all of the executable is on the node: has it fetched from nodes that have it, or sends it. From
/// then on others may fetch it there.
async fn provide(shared: &Arc<Shared>, facts: &NodeDescriptor) -> Result<(), String> {
    let node = Source { agent: facts.agent, address: facts.address };
    if have(shared, facts).await? == shared.executable.size() {
        shared.sources.stored_bytes(node);
        return Ok(());
    }
    deliver(&shared.sources, node, &Route { shared, facts }).await
}

/// The way of the executable to one node.
struct Route<'a> {
    shared: &'a Arc<Shared>,
    facts: &'a NodeDescriptor,
}

impl Carrier for Route<'_> {
    async fn fetch(&self, source: Source) -> Result<Outcome, String> {
        fetch(self.shared, self.facts, source).await
    }

    async fn send(&self, pieces: &AtomicU64) -> Result<(), String> {
        send(self.shared, self.facts, pieces).await
    }
}

/// Has the node fetch the executable from another, as long as that makes progress. An error is the node's own.
async fn fetch(shared: &Shared, facts: &NodeDescriptor, source: Source) -> Result<Outcome, String> {
    let (digest, size) = (shared.executable.digest(), shared.executable.size());
    let mut have = None;
    let (outcome, why) = loop {
        let wanted = FetchCommand { digest, size, from: source.agent, at: source.address };
        match ask(shared, facts, ExecutableRequest::Fetch(wanted)).await? {
            ExecutableReply::Stat(bytes) if bytes == size => return Ok(Outcome::Done),
            ExecutableReply::Stat(bytes) if have.is_none_or(|before| before < bytes) => have = Some(bytes),
            ExecutableReply::Stat(_) => break (Outcome::Failed, "nothing comes any more".to_owned()),
            ExecutableReply::Busy => break (Outcome::Busy, "it serves others".to_owned()),
            ExecutableReply::NotFetched { text } => break (Outcome::Failed, text),
            ExecutableReply::Wrong { text } => break (Outcome::Wrong, text),
            other => return Err(format!("the node answered {other:?}")),
        }
    };
    let (node, from) = (facts.id(), source.agent.host);
    match outcome {
        Outcome::Busy => log::debug!(%node, %from, why, "the executable is asked for again"),
        Outcome::Wrong => {
            log::warn!(%node, %from, why, "a node has a damaged copy of the executable; it will come from elsewhere");
        }
        _ => {
            log::info!(%node, %from, why, "the executable was not fetched from a node; it will come from elsewhere")
        }
    }
    Ok(outcome)
}

/// Sends what the node has not got of the executable; counts the pieces that the node has taken.
async fn send(shared: &Arc<Shared>, facts: &NodeDescriptor, pieces: &AtomicU64) -> Result<(), String> {
    let (digest, size) = (shared.executable.digest(), shared.executable.size());
    let mut have = have(shared, facts).await?;
    // What is there may be of a node that had a damaged one.
    let mut is_all_own = have == 0;
    while have < size {
        let reading = Arc::clone(shared);
        let bytes = tokio::task::spawn_blocking(move || {
            reading.executable.read(have, EXECUTABLE_CHUNK_BYTES).map_err(|error| error.to_string())
        });
        let bytes = bytes.await.map_err(|error| error.to_string())??;
        shared.sources.sent_bytes(bytes.len());
        let put = ExecutableRequest::Write { digest, size, offset: have, bytes: bytes.into() };
        have = match ask(shared, facts, put).await? {
            ExecutableReply::Stat(more) if more > have => more,
            ExecutableReply::Stat(more) => {
                return Err(format!("the node has {more} bytes of the executable after it was sent {have}"));
            }
            ExecutableReply::Wrong { .. } if !is_all_own => {
                is_all_own = true;
                0
            }
            ExecutableReply::Wrong { text } => return Err(text),
            other => return Err(format!("the node answered {other:?}")),
        };
        pieces.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// The number of bytes of the executable that the node has.
async fn have(shared: &Shared, facts: &NodeDescriptor) -> Result<u64, String> {
    let (digest, size) = (shared.executable.digest(), shared.executable.size());
    let platform = shared.executable.platform().to_string();
    match ask(shared, facts, ExecutableRequest::Stat { digest, size, platform }).await? {
        ExecutableReply::Stat(bytes) => Ok(bytes),
        other => Err(format!("the node answered {other:?}")),
    }
}

async fn ask(
    shared: &Shared,
    facts: &NodeDescriptor,
    request: ExecutableRequest,
) -> Result<ExecutableReply, String> {
    let deadline = deadline_in(EXECUTABLE_TIMEOUT);
    match call_host(&shared.control, facts.agent, EXECUTABLE, request, deadline).await {
        Ok(ExecutableReply::Failed { text }) => Err(text),
        Ok(reply) => Ok(reply),
        Err(error) => Err(error.to_string()),
    }
}

//! The driver's executable on its way to the nodes.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{Found, Settled, Shared};
use crate::cluster::ClusterError;
use crate::cluster::model::NodeFacts;
use crate::cluster::protocol::{EXECUTABLE, ExecutableReply, ExecutableRequest, JobLaunch, JobRequest};
use crate::config::{EXECUTABLE_CHUNK_BYTES, EXECUTABLE_TIMEOUT, NODE_LEASE, WORKER_START_TIMEOUT};
use crate::host::deadline_in;
use crate::observe::log;
use crate::remote::ask_host;

/// Equips the nodes that there are, and waits until their workers are ready.
///
/// A node that cannot be used is told of; it is an error if none can.
pub(super) async fn equip_first(shared: &Arc<Shared>, found: Found) -> Result<(), ClusterError> {
    let working: Vec<_> = found.nodes.iter().filter(|facts| facts.workers > 0).collect();
    if working.is_empty() {
        return match found.awaited {
            true => wait_for_one(shared).await,
            false => Err(ClusterError::NoNodes { address: shared.standing().head_at }),
        };
    }
    let equipped = join_all(working.iter().map(|facts| equip(shared, facts))).await;
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
    if let (true, Some(why)) = (usable.is_empty(), failure) {
        return Err(ClusterError::NotEquipped { why });
    }
    let expected: u32 = usable.iter().map(|facts| facts.workers).sum();
    let mut settled = shared.settled.subscribe();
    let all = settled.wait_for(|settled| settled.ready + settled.failed >= expected);
    // What is not there in time may come later.
    drop(tokio::time::timeout(WORKER_START_TIMEOUT, all).await);
    let settled = shared.settled.borrow().clone();
    match settled.ready {
        0 => Err(ClusterError::NotEquipped {
            why: settled
                .last_failure
                .unwrap_or_else(|| format!("no worker was ready within {WORKER_START_TIMEOUT:?}")),
        }),
        _ => Ok(()),
    }
}

/// Waits until a node is back that was there before the head was started again, and a worker is ready there.
/// The driver is told of the node as of any other that comes.
async fn wait_for_one(shared: &Arc<Shared>) -> Result<(), ClusterError> {
    log::warn!("the head was started again, and no node is back yet; they are waited for");
    let mut settled = shared.settled.subscribe();
    let one = settled.wait_for(|settled| settled.ready + settled.failed > 0 || settled.refused.is_some());
    drop(tokio::time::timeout(NODE_LEASE + WORKER_START_TIMEOUT, one).await);
    let Settled { ready, last_failure, refused, .. } = shared.settled.borrow().clone();
    match last_failure.or(refused) {
        _ if ready > 0 => Ok(()),
        Some(why) => Err(ClusterError::NotEquipped { why }),
        None => Err(ClusterError::NoNodes { address: shared.standing().head_at }),
    }
}

/// Sees to it that a node has the executable, and tells the head.
pub(super) async fn equip(shared: &Arc<Shared>, facts: &NodeFacts) -> Result<(), String> {
    shared.control.introduce(facts.agent, facts.address);
    shared.standing().agents.insert(facts.id(), facts.agent);
    let equipped = try_to_equip(shared, facts).await;
    if equipped.is_err() {
        shared.standing().forget_agent(facts.agent);
    }
    equipped
}

async fn try_to_equip(shared: &Arc<Shared>, facts: &NodeFacts) -> Result<(), String> {
    send(shared, facts).await?;
    let launch = ExecutableRequest::Launch(JobLaunch {
        job: shared.job,
        digest: shared.executable.digest(),
        arguments: shared.launch.arguments.clone(),
        environment: shared.launch.environment.clone(),
        limits: shared.launch.limits.clone(),
        stack_bytes: shared.launch.stack_bytes,
        driver: shared.control.identity(),
    });
    ask(shared, facts, launch).await?;
    let told = shared.ask(JobRequest::Equipped { job: shared.job, node: facts.id() }).await;
    told.map_err(|error| error.to_string())?.map_err(|denied| denied.to_string())?;
    Ok(())
}

/// Sends what the node has not got of the executable.
async fn send(shared: &Arc<Shared>, facts: &NodeFacts) -> Result<(), String> {
    let (digest, size) = (shared.executable.digest(), shared.executable.size());
    let platform = shared.executable.platform().to_string();
    let mut have = had(ask(shared, facts, ExecutableRequest::Have { digest, size, platform }).await?)?;
    if have == size {
        return Ok(());
    }
    // A piece has half a minute: on a slow network few nodes at a time get theirs.
    let _place = shared.sending.acquire().await.map_err(|error| error.to_string())?;
    while have < size {
        let reading = Arc::clone(shared);
        let bytes = tokio::task::spawn_blocking(move || {
            reading.executable.read(have, EXECUTABLE_CHUNK_BYTES).map_err(|error| error.to_string())
        });
        let bytes = bytes.await.map_err(|error| error.to_string())??;
        let put = ExecutableRequest::Put { digest, size, offset: have, bytes: bytes.into() };
        let more = had(ask(shared, facts, put).await?)?;
        if more <= have {
            return Err(format!("the node has {more} bytes of the executable after it was sent {have}"));
        }
        have = more;
    }
    Ok(())
}

fn had(reply: ExecutableReply) -> Result<u64, String> {
    match reply {
        ExecutableReply::Have(bytes) => Ok(bytes),
        other => Err(format!("the node answered {other:?}")),
    }
}

async fn ask(
    shared: &Shared,
    facts: &NodeFacts,
    request: ExecutableRequest,
) -> Result<ExecutableReply, String> {
    let deadline = deadline_in(EXECUTABLE_TIMEOUT);
    match ask_host(&shared.control, facts.agent, EXECUTABLE, request, deadline).await {
        Ok(ExecutableReply::Failed { text }) => Err(text),
        Ok(reply) => Ok(reply),
        Err(error) => Err(error.to_string()),
    }
}

//! Membership of the agent in its cluster: enrolment, joining, heartbeats, and rejoining.
//!
//! ```text
//!            Join: Done          head silent, replaced,
//!  enrolled ────────────▶ in session ──────────────────▶ lost
//!    │  ▲                              or "unknown"       │
//!    │  └────────── find_head, after a back-off ◀─────────┘
//!    └─▶ the agent ends, if the head rejects the first Join
//! ```

use std::convert::Infallible;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Agent;
use super::disk_usage::DiskUsage;
use crate::cluster::backoff::Backoff;
use crate::cluster::daemon::error::DaemonError;
use crate::cluster::daemon::handoff::HeadConnections;
use crate::cluster::host_info;
use crate::cluster::protocol::{NODE, NodeReply, NodeRequest};
use crate::cluster::security::enrol;
use crate::cluster::security::enrol::{Rejoined, Renewal};
use crate::cluster::security::token_rpc::{Enrolment, TokenRpcError};
use crate::cluster::security::{Claims, Token};
use crate::config::{
    HEAD_RPC_TIMEOUT, JOIN_TIMEOUT, LEASE_RENEW_INTERVAL, LEAVE_TIMEOUT, STATISTICS_INTERVAL,
    STATISTICS_REQUESTS_PER_INTERVAL_MAX, USAGE_INTERVAL,
};
use crate::host::{SendError, deadline_in};
use crate::id::HostUid;
use crate::remote::call_host;
use crate::spec::NodeId;
use crate::transport::{Credentials, Role};

/// Pause before the end of a driver is reported again that the head could not write to disk.
const NOT_PERSISTED_PAUSE: Duration = Duration::from_secs(1);

/// Claims of an agent's certificate.
pub(super) fn claims(identity: HostUid) -> Claims {
    let node = Some(NodeId(identity.host.0));
    Claims { role: Role::Agent, hosts: vec![identity], job: None, node }
}

/// Enrols for the first time at one of these addresses. It retries, since the head may still be starting.
pub(super) async fn enrol_with_retry(
    token: &Token,
    heads: &[SocketAddr],
    identity: HostUid,
) -> Result<(SocketAddr, Credentials, HostUid), DaemonError> {
    let until = Instant::now() + JOIN_TIMEOUT;
    let mut backoff = Backoff::new();
    loop {
        match enrol::enrol(heads, token, &claims(identity)).await {
            Ok((head_at, Enrolment { credentials, head, cluster })) => {
                tracing::info!(%head, %head_at, cluster, "enrolled");
                return Ok((head_at, credentials, head));
            }
            Err(error) if error.is_final() => return Err(DaemonError::Refused(error.to_string())),
            Err(error) if Instant::now() > until => {
                return Err(DaemonError::Unreachable(error.to_string()));
            }
            Err(_) => backoff.pause().await,
        }
    }
}

/// Joins the head, and rejoins whenever it was lost. `joined` gets the result of the first join.
///
/// A restarted head on this node is noticed when it connects to the agent; one on another node by its silence.
pub(super) async fn membership_loop(
    agent: Arc<Agent>,
    mut heads: HeadConnections,
    joined: oneshot::Sender<Result<(), DaemonError>>,
) {
    let mut joined = Some(joined);
    let mut backoff = Backoff::new();
    let mut last_logged = [String::new(), String::new()];
    loop {
        let (began, mut has_joined) = (Instant::now(), false);
        let why = tokio::select! {
            ended = run_session(&agent, &mut joined, &mut has_joined) => match ended { Err(why) => why },
            () = heads.next() => RejoinReason::Replaced,
        };
        if let Some(notify) = joined.take_if(|_| why.is_final()) {
            // The receiver is gone if the agent is shutting down.
            let _ = notify.send(Err(DaemonError::Refused(why.to_string())));
            return;
        }
        // A session that outlived a heartbeat interval was healthy. A shorter one does not reset the back-off,
        // else a head that accepts and forgets the node would be flooded with joins.
        if (has_joined && began.elapsed() > LEASE_RENEW_INTERVAL) || matches!(why, RejoinReason::Replaced) {
            backoff = Backoff::new();
            last_logged = Default::default();
        }
        let [lost, not_enrolled] = &mut last_logged;
        if differs_from_last(lost, &why) {
            tracing::warn!(head = %agent.head_at(), %why, "lost contact with the head, rejoining");
        }
        backoff.pause().await;
        match find_head(&agent, Renewal::IfStale).await {
            // The head answers the token RPC, so it is alive. Without a redial the silent link would wait for
            // the next TCP retransmission, which may take minutes.
            Ok(()) if matches!(why, RejoinReason::Lost(_)) => {
                agent.head().into_iter().for_each(|head| agent.host.redial(head));
            }
            Ok(()) => {}
            Err(why) if differs_from_last(not_enrolled, &why) => {
                tracing::warn!(head = %agent.head_at(), %why, "the head does not enrol this node, retrying");
            }
            Err(_) => {}
        }
    }
}

/// Returns true if a reason differs from the one that was logged last, and records it.
fn differs_from_last(last: &mut String, why: &impl Display) -> bool {
    let why = why.to_string();
    let differs = *last != why;
    *last = why;
    differs
}

/// Reason that a session with the head has ended.
#[derive(Debug, thiserror::Error)]
enum RejoinReason {
    #[error(transparent)]
    Lost(#[from] SendError),
    #[error("the head does not know this node any more, and gets a new report")]
    Unknown,
    #[error("another head has connected to this node")]
    Replaced,
    #[error("the head rejects this node: {0}")]
    Failed(String),
}

impl RejoinReason {
    fn is_final(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// Joins the head, then sends heartbeats and events until the head is lost.
async fn run_session(
    agent: &Arc<Agent>,
    joined: &mut Option<oneshot::Sender<Result<(), DaemonError>>>,
    has_joined: &mut bool,
) -> Result<Infallible, RejoinReason> {
    renew(agent, NodeRequest::Join(Box::new(agent.report()))).await?;
    *has_joined = true;
    agent.statistics.mark_all_changed();
    if let Some(joined) = joined.take() {
        // The receiver is gone if the agent is shutting down.
        let _ = joined.send(Ok(()));
    }
    let node = agent.host.identity();
    let mut interval = tokio::time::interval(LEASE_RENEW_INTERVAL);
    // An agent that was suspended must not send the missed heartbeats in a burst.
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval.reset();
    let (disk, session_dir) = (DiskUsage::default(), Path::new(&agent.descriptor.session_dir));
    // Begins a measurement, for the first heartbeat.
    disk.latest(session_dir);
    let heartbeats = async {
        // They do not wait for each other: a reply that is late must not delay the next renewal. Each has a timeout,
        // so only a few are open.
        let mut unanswered = FuturesUnordered::new();
        let mut usage_due = Instant::now();
        loop {
            tokio::select! {
                _ = interval.tick() => {
                    let usage = (usage_due <= Instant::now()).then(|| {
                        usage_due = Instant::now() + USAGE_INTERVAL;
                        host_info::usage(agent.workers.pids().into_iter(), disk.latest(session_dir))
                    });
                    unanswered.push(renew(agent, NodeRequest::Heartbeat { node, usage }));
                }
                Some(renewed) = unanswered.next() => renewed?,
            }
        }
    };
    let events = async {
        loop {
            let batch = agent.events.next().await;
            let reply = ask(agent, NodeRequest::Events { node, events: batch.events() }).await?;
            match reply {
                NodeReply::NotPersisted => {
                    // The process or the actor is gone, so only this queue can report its end again.
                    batch.ack_except_ends();
                    tokio::time::sleep(NOT_PERSISTED_PAUSE).await;
                }
                _ => batch.ack(),
            }
        }
    };
    tokio::select! {
        lost = heartbeats => lost,
        lost = events => lost,
        lost = send_statistics(agent) => lost,
    }
}

/// Sends the head the statistics of workers that have changed and their spans, in each interval, until it is lost.
async fn send_statistics(agent: &Agent) -> Result<Infallible, RejoinReason> {
    let node = agent.host.identity();
    let mut interval = tokio::time::interval(STATISTICS_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        // A worker that reports faster than the head answers must not keep the head busy.
        for _ in 0..STATISTICS_REQUESTS_PER_INTERVAL_MAX {
            let workers = agent.statistics.take_changed();
            if workers.is_empty() {
                break;
            }
            ask(agent, NodeRequest::Statistics { node, workers }).await?;
        }
        let (workers, unacked) = agent.spans.take();
        if !workers.is_empty() {
            ask(agent, NodeRequest::Spans { node, workers }).await?;
        }
        // Also if there were none. An error, or the end of the session meanwhile, drops it.
        unacked.ack();
    }
}

/// Sends a request that renews the node's lease, and passes the lease on to the workers that need it.
async fn renew(agent: &Agent, request: NodeRequest) -> Result<(), RejoinReason> {
    let sent = agent.lease.now();
    if let NodeReply::Renewed(renewal) = ask(agent, request).await? {
        agent.workers.pass_on(agent.lease.renewed(sent, renewal));
    }
    Ok(())
}

/// Sends a request to the head, with the timeout of a head RPC.
async fn ask(agent: &Agent, request: NodeRequest) -> Result<NodeReply, RejoinReason> {
    let head = agent.head().ok_or(RejoinReason::Unknown)?;
    let deadline = deadline_in(HEAD_RPC_TIMEOUT);
    match call_host(&agent.host, head, NODE, request, deadline).await? {
        NodeReply::Unknown => Err(RejoinReason::Unknown),
        NodeReply::Failed { text } => Err(RejoinReason::Failed(text)),
        reply => Ok(reply),
    }
}

/// Rejoins the head at enrolment level: learns its current incarnation and address, and renews the certificate if
/// needed.
pub(super) async fn find_head(agent: &Agent, renewal: Renewal) -> Result<(), TokenRpcError> {
    let identity = agent.host.identity();
    let (claims, credentials) = (claims(identity), &agent.credentials);
    let last = agent.head_at();
    let back = enrol::rejoin(&agent.heads, last, &agent.token, &claims, credentials, renewal);
    let Rejoined { head_at, head, .. } = back.await?;
    agent.host.supersede(head, head_at);
    // Only on a change: the announcement is a call to each worker.
    if agent.head() != Some(head) || last != head_at {
        agent.set_head(head, head_at);
        agent.workers.announce_head(agent, head);
    }
    Ok(())
}

/// Notifies the head that the node leaves, within a short timeout.
pub(super) async fn leave(agent: &Agent, cause: &str) {
    let Some(head) = agent.head() else { return };
    let request = NodeRequest::Leave { node: agent.host.identity(), cause: cause.to_owned() };
    let notified: Result<NodeReply, _> =
        call_host(&agent.host, head, NODE, request, deadline_in(LEAVE_TIMEOUT)).await;
    if let Err(error) = notified {
        tracing::debug!(%error, "cannot notify the head that this node leaves");
    }
}

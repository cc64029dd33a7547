//! The agent's place in its cluster: enrolled with the head, joined, and there.

use std::convert::Infallible;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Agent;
use crate::cluster::backoff::Backoff;
use crate::cluster::daemon::error::DaemonError;
use crate::cluster::daemon::handoff::HeadConnections;
use crate::cluster::host_info;
use crate::cluster::protocol::{NODE, NodeReply, NodeRequest};
use crate::cluster::security::enrol;
use crate::cluster::security::enrol::{Rejoined, Renewal};
use crate::cluster::security::token_rpc::{Enrolment, TokenRpcError};
use crate::cluster::security::{Claims, Token};
use crate::config::{HEAD_RPC_TIMEOUT, JOIN_TIMEOUT, LEASE_RENEW_INTERVAL, LEAVE_TIMEOUT};
use crate::host::{SendError, deadline_in};
use crate::id::HostUid;
use crate::remote::call_host;
use crate::spec::NodeId;
use crate::transport::{Credentials, Role};

/// Pause before an end of a driver that the head could not keep is reported again.
const NOT_KEPT_PAUSE: Duration = Duration::from_secs(1);

/// What an agent's certificate is to say.
pub(super) fn claims(identity: HostUid) -> Claims {
    let node = Some(NodeId(identity.host.0));
    Claims { role: Role::Agent, hosts: vec![identity], job: None, node }
}

/// Enrols for the first time, at one of these addresses: a head that is only starting is waited for.
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

/// Joins the head, and again whenever it was gone. `joined` hears of the first time.
///
/// A head that was started again on this node is heard of as it comes; one elsewhere by its silence.
pub(super) async fn membership_loop(
    agent: Arc<Agent>,
    mut heads: HeadConnections,
    joined: oneshot::Sender<Result<(), DaemonError>>,
) {
    let mut joined = Some(joined);
    let mut backoff = Backoff::new();
    let mut told = [String::new(), String::new()];
    loop {
        let (began, mut was_in) = (Instant::now(), false);
        let why = tokio::select! {
            stayed = run_session(&agent, &mut joined, &mut was_in) => match stayed { Err(why) => why },
            () = heads.next() => RejoinReason::Replaced,
        };
        if let Some(tell) = joined.take_if(|_| why.is_final()) {
            // Nobody waits if the agent is being ended.
            let _ = tell.send(Err(DaemonError::Refused(why.to_string())));
            return;
        }
        if (was_in && began.elapsed() > LEASE_RENEW_INTERVAL) || matches!(why, RejoinReason::Replaced) {
            backoff = Backoff::new();
            told = Default::default();
        }
        let [away, not_enrolled] = &mut told;
        if differs_from_last(away, &why) {
            tracing::warn!(head = %agent.head_at(), %why, "this node is not with its head; it joins again");
        }
        backoff.pause().await;
        match find_head(&agent, Renewal::IfStale).await {
            // The head answers at its desk. A link that has been silent would have to wait for TCP.
            Ok(()) if matches!(why, RejoinReason::Lost(_)) => {
                agent.head().into_iter().for_each(|head| agent.host.redial(head));
            }
            Ok(()) => {}
            Err(why) if differs_from_last(not_enrolled, &why) => {
                tracing::warn!(head = %agent.head_at(), %why, "the head does not enrol this node");
            }
            Err(_) => {}
        }
    }
}

/// Whether it is another reason than the one that was told last.
fn differs_from_last(told: &mut String, why: &impl Display) -> bool {
    let why = why.to_string();
    let is_news = *told != why;
    *told = why;
    is_news
}

/// Why the agent is not joined any longer.
#[derive(Debug, thiserror::Error)]
enum RejoinReason {
    #[error(transparent)]
    Lost(#[from] SendError),
    #[error("it has lost track of this node, and is told anew what is here")]
    Unknown,
    #[error("another has come in its place")]
    Replaced,
    #[error("it says: {0}")]
    Failed(String),
}

impl RejoinReason {
    fn is_final(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// Joins, and reports until the head is gone.
async fn run_session(
    agent: &Arc<Agent>,
    joined: &mut Option<oneshot::Sender<Result<(), DaemonError>>>,
    was_in: &mut bool,
) -> Result<Infallible, RejoinReason> {
    ask(agent, NodeRequest::Join(agent.report())).await?;
    *was_in = true;
    if let Some(joined) = joined.take() {
        // Nobody waits if the agent is being ended.
        let _ = joined.send(Ok(()));
    }
    let node = agent.host.identity();
    let mut beat = tokio::time::interval(LEASE_RENEW_INTERVAL);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    beat.reset();
    let beats = async {
        loop {
            beat.tick().await;
            let usage = host_info::usage(agent.workers.pids().into_iter());
            ask(agent, NodeRequest::Heartbeat { node, usage }).await?;
        }
    };
    let events = async {
        loop {
            let batch = agent.events.next().await;
            let reply = ask(agent, NodeRequest::Events { node, events: batch.events() }).await?;
            match reply {
                NodeReply::NotPersisted => {
                    batch.told_but_ends_of_drivers();
                    tokio::time::sleep(NOT_KEPT_PAUSE).await;
                }
                _ => batch.ack(),
            }
        }
    };
    tokio::select! {
        away = beats => away,
        away = events => away,
    }
}

/// Asks the head, as long as it is worth while.
async fn ask(agent: &Agent, request: NodeRequest) -> Result<NodeReply, RejoinReason> {
    let head = agent.head().ok_or(RejoinReason::Unknown)?;
    let deadline = deadline_in(HEAD_RPC_TIMEOUT);
    match call_host(&agent.host, head, NODE, request, deadline).await? {
        NodeReply::Unknown => Err(RejoinReason::Unknown),
        NodeReply::Failed { text } => Err(RejoinReason::Failed(text)),
        reply => Ok(reply),
    }
}

/// Comes back to the head in the life that it has now, with another certificate if one is needed.
pub(super) async fn find_head(agent: &Agent, renewal: Renewal) -> Result<(), TokenRpcError> {
    let identity = agent.host.identity();
    let (claims, credentials) = (claims(identity), &agent.credentials);
    let last = agent.head_at();
    let back = enrol::rejoin(&agent.heads, last, &agent.token, &claims, credentials, renewal);
    let Rejoined { head_at, head, .. } = back.await?;
    agent.host.supersede(head, head_at);
    if agent.head() != Some(head) || last != head_at {
        agent.set_head(head, head_at);
        agent.workers.announce_head(agent, head);
    }
    Ok(())
}

/// Tells the head that the node leaves, if it can be told soon.
pub(super) async fn leave(agent: &Agent, cause: &str) {
    let Some(head) = agent.head() else { return };
    let request = NodeRequest::Leave { node: agent.host.identity(), cause: cause.to_owned() };
    let told: Result<NodeReply, _> =
        call_host(&agent.host, head, NODE, request, deadline_in(LEAVE_TIMEOUT)).await;
    if let Err(error) = told {
        tracing::debug!(%error, "the head was not told that this node leaves");
    }
}

//! Membership of a simulated agent: it finds the head, joins, renews its lease and reports its events.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::{Agent, head_address, workers};
use crate::cluster::backoff::Backoff;
use crate::cluster::model::Usage;
use crate::cluster::protocol::{NODE, NodeReply, NodeRequest};
use crate::cluster::sim::network::Machine;
use crate::config::{HEAD_RPC_TIMEOUT, InjectedBug, LEASE_RENEW_INTERVAL};
use crate::host::{SendError, deadline_in};
use crate::remote::call_host;

/// Time limit of an attempt to find the head.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);

/// Reason that a session with the head has ended.
#[derive(Debug)]
enum RejoinReason {
    Lost(SendError),
    Unknown,
    Failed(String),
}

/// Joins the head, and rejoins whenever it was lost.
pub(super) async fn membership_loop(agent: Arc<Agent>) {
    let mut backoff = Backoff::new();
    loop {
        let began = Instant::now();
        let was_lost = match find_head(&agent).await {
            true => match run_session(&agent).await {
                Err(RejoinReason::Lost(error)) => {
                    agent.note(format_args!("lost the head: {error}"));
                    true
                }
                Err(RejoinReason::Unknown) => {
                    agent.note("is unknown to the head");
                    false
                }
                Err(RejoinReason::Failed(text)) => {
                    agent
                        .shared
                        .journal
                        .violation(format_args!("the head rejects {}: {text}", agent.machine));
                    false
                }
                Ok(never) => match never {},
            },
            false => true,
        };
        if began.elapsed() > LEASE_RENEW_INTERVAL {
            backoff = Backoff::new();
        }
        backoff.pause().await;
        if was_lost && let Some(head) = agent.head() {
            // A silent link would wait for the next retransmission.
            agent.host.redial(head);
        }
    }
}

impl Agent {
    fn note(&self, what: impl std::fmt::Display) {
        self.shared.journal.note(format_args!("agent of {} {what}", self.machine));
    }
}

/// Learns the present incarnation of the head, as a rejoin over the token RPC does.
async fn find_head(agent: &Agent) -> bool {
    let round_trip = agent.shared.network.round_trip(agent.machine, Machine::Head);
    if tokio::time::timeout(FIND_TIMEOUT, round_trip).await.is_err() {
        return false;
    }
    let Some(head) = agent.shared.head_identity() else { return false };
    agent.host.supersede(head, head_address());
    let before = agent.lock(&agent.head).replace(head);
    if before != Some(head) {
        workers::announce_head(agent, head);
    }
    true
}

/// Joins the head, then sends heartbeats and events until the head is lost.
async fn run_session(agent: &Arc<Agent>) -> Result<Infallible, RejoinReason> {
    renew(agent, NodeRequest::Join(Box::new(agent.report()))).await?;
    if agent.shared.plan.injected_bug == Some(InjectedBug::LostWorkerEnd) {
        agent.events.lose();
    }
    agent.note("has joined");
    agent.has_joined.store(true, Ordering::Relaxed);
    let node = agent.host.identity();
    let mut interval = tokio::time::interval(LEASE_RENEW_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval.reset();
    let heartbeats = async {
        loop {
            interval.tick().await;
            renew(agent, NodeRequest::Heartbeat { node, usage: Some(Usage::default()) }).await?;
        }
    };
    let events = async {
        loop {
            let batch = agent.events.next().await;
            match ask(agent, NodeRequest::Events { node, events: batch.events() }).await? {
                NodeReply::NotPersisted => batch.ack_except_ends(),
                _ => batch.ack(),
            }
        }
    };
    tokio::select! {
        biased;
        lost = heartbeats => lost,
        lost = events => lost,
    }
}

/// Sends a request that renews the node's lease, and passes the lease on to the workers that need it.
async fn renew(agent: &Agent, request: NodeRequest) -> Result<(), RejoinReason> {
    let sent = agent.lease.now();
    if let NodeReply::Renewed(renewal) = ask(agent, request).await? {
        workers::pass_on(agent, agent.lease.renewed(sent, renewal));
    }
    Ok(())
}

/// Sends a request to the head, with the timeout of a head RPC.
async fn ask(agent: &Agent, request: NodeRequest) -> Result<NodeReply, RejoinReason> {
    let head = agent.head().ok_or(RejoinReason::Unknown)?;
    let deadline = deadline_in(HEAD_RPC_TIMEOUT);
    match call_host(&agent.host, head, NODE, request, deadline).await.map_err(RejoinReason::Lost)? {
        NodeReply::Unknown => Err(RejoinReason::Unknown),
        NodeReply::Failed { text } => Err(RejoinReason::Failed(text)),
        reply => Ok(reply),
    }
}

/// Requests the certificate of a worker, which simulated links do not need: the head checks the request.
pub(super) async fn sign(agent: &Agent, request: NodeRequest) -> Result<(), String> {
    match ask(agent, request).await {
        Ok(_) => Ok(()),
        Err(RejoinReason::Lost(error)) => Err(error.to_string()),
        Err(RejoinReason::Unknown) => Err("the head does not know this node".to_owned()),
        Err(RejoinReason::Failed(text)) => Err(text),
    }
}

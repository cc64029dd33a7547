//! Requests of agents.

use std::sync::Arc;

use super::{HeadCore, checks};
use crate::background;
use crate::cluster::control_plane::state::ControlEvent;
use crate::cluster::model::{ActorCount, NodeId, WorkerReport, WorkerStatistics};
use crate::cluster::protocol::worker::ActorEvent;
use crate::cluster::protocol::{NodeEvent, NodeReply, NodeRequest};
use crate::config::InjectedBug;
use crate::id::HostUid;
use crate::registry::{Inbound, decode};

impl HeadCore {
    /// Serves a request of an agent by a function that handles it.
    pub(in crate::cluster) fn serve_node(
        self: &Arc<Self>,
        inbound: Inbound,
        handle: impl FnOnce(HostUid, NodeRequest) -> NodeReply,
    ) {
        let from = inbound.from();
        let (body, _, mut responder) = inbound.into_parts::<NodeReply>();
        let request = match decode::<NodeRequest>(&body) {
            Ok(request) => request,
            Err(failure) => return responder.fail(failure),
        };
        responder.start();
        let waits_for_disk = self.reports_end(&request);
        let reply = handle(from, request);
        if !waits_for_disk || !matches!(reply, NodeReply::Done) {
            return responder.reply(reply);
        }
        // The agent drops its record of such an end when the head acknowledges it. If the head were killed between
        // the acknowledgement and the disk, the job would never end, and an actor that was stopped would restart.
        let core = Arc::clone(self);
        background::spawn(async move {
            let stored = (core.flushed)().await;
            responder.reply(stored.map_or(NodeReply::NotPersisted, |()| NodeReply::Done));
        });
    }

    /// Checks for the end of a driver or a managed actor in a request.
    fn reports_end(&self, request: &NodeRequest) -> bool {
        let NodeRequest::Events { events, .. } = request else { return false };
        events.iter().any(|event| match event {
            NodeEvent::DriverExited { .. } => true,
            NodeEvent::Actor { event: ActorEvent::Stopped { actor, .. }, .. } => {
                self.control.read(|state| state.is_managed(*actor))
            }
            _ => false,
        })
    }

    /// Handles a request of an agent, which may only report about its own node.
    pub(in crate::cluster) fn handle_node_request(&self, from: HostUid, request: NodeRequest) -> NodeReply {
        match request {
            NodeRequest::Join(mut report) => {
                if report.descriptor.agent != from {
                    return NodeReply::Failed { text: "an agent can join only for itself".to_owned() };
                }
                let node = report.descriptor.id();
                // Single workers are rejected and not the report, else the node could never join.
                report.workers.retain(|worker| self.accepts_worker_report(node, worker));
                if let Some(earlier) = self.outbox().set_agent(report.descriptor.id(), from) {
                    self.host.forget(earlier);
                }
                tracing::info!(node = %report.descriptor.id(), address = %report.descriptor.address, "a node has joined");
                self.control.apply(ControlEvent::NodeJoined(*report));
                self.renewed(from)
            }
            _ if !self.accepts(from, &request) => NodeReply::Unknown,
            // `Unknown` makes the agent rejoin, with its whole state in both directions.
            NodeRequest::Heartbeat { .. } if self.outbox().take_lagging(from) => NodeReply::Unknown,
            NodeRequest::Heartbeat { usage, .. } => {
                if let Some(usage) = usage {
                    self.outbox().set_usage(NodeId(from.host.0), usage);
                }
                self.control.apply(ControlEvent::NodeHeartbeat { node: from });
                self.renewed(from)
            }
            NodeRequest::Statistics { workers, .. } => {
                let node = NodeId(from.host.0);
                for (worker, statistics) in workers {
                    // Unknown workers are ignored by the state.
                    if self.control.read(|state| state.node_of_worker(worker)) == Some(node) {
                        self.control.apply(ControlEvent::Statistics { worker, statistics });
                    }
                }
                NodeReply::Done
            }
            NodeRequest::Events { events, .. } => {
                let node = NodeId(from.host.0);
                // An invalid event does not fail the batch: the agent would send the same batch again for ever.
                for event in events {
                    match self.control.read(|state| checks::check_event(state, node, &event)) {
                        Ok(()) => self.apply_node_event(node, event),
                        Err(text) => {
                            tracing::warn!(%node, text, "rejected an event that does not match the node's own workers")
                        }
                    }
                }
                NodeReply::Done
            }
            NodeRequest::Leave { cause, .. } => {
                self.control.apply(ControlEvent::NodeLeft { node: from, cause });
                NodeReply::Done
            }
            NodeRequest::Spans { .. }
            | NodeRequest::SignCertificate { .. }
            | NodeRequest::SignDriver { .. } => {
                NodeReply::Failed { text: "this head neither signs certificates nor keeps spans".to_owned() }
            }
        }
    }

    /// Answers a request that has renewed the lease of a node.
    fn renewed(&self, agent: HostUid) -> NodeReply {
        self.control.read(|state| state.lease(agent)).map_or(NodeReply::Done, NodeReply::Renewed)
    }

    /// Returns true for a request of a member, which the state has not declared dead.
    fn accepts(&self, from: HostUid, request: &NodeRequest) -> bool {
        let (is_member, bug) = self.control.read(|state| (state.is_member(from), state.injected_bug()));
        let is_heartbeat = matches!(request, NodeRequest::Heartbeat { .. });
        is_member || (is_heartbeat && bug == Some(InjectedBug::StaleHeartbeat))
    }

    /// Returns true if a worker in a join report can belong to its node.
    fn accepts_worker_report(&self, node: NodeId, report: &WorkerReport) -> bool {
        let Some(member) = report.member else { return true };
        let ready = NodeEvent::WorkerReady { worker: report.worker, member, pid: report.pid };
        let checked = self.control.read(|state| checks::check_event(state, node, &ready));
        checked.inspect_err(|text| tracing::warn!(%node, text, "rejected a worker in a join report")).is_ok()
    }

    fn apply_node_event(&self, node: NodeId, event: NodeEvent) {
        self.control.apply(match event {
            NodeEvent::WorkerReady { worker, member, pid } => {
                ControlEvent::WorkerReady { worker, member, pid }
            }
            NodeEvent::WorkerEnded { worker, end, killed } => {
                ControlEvent::WorkerEnded { worker, end, killed }
            }
            NodeEvent::WorkerSuspended { worker, suspended } => {
                ControlEvent::WorkerSuspended { worker, suspended }
            }
            NodeEvent::Actor { worker, event: ActorEvent::Started { actor, at, .. } } => {
                ControlEvent::ActorStarted { actor, worker, at }
            }
            NodeEvent::Actor { worker, event: ActorEvent::Stopped { actor, incarnation, end, handled } } => {
                // The row of the ended actor keeps its last count. That is zero if the actor ended with its host,
                // or has handled nothing.
                if handled > 0 {
                    let actors = vec![ActorCount { actor, handled, mailbox: 0 }];
                    let statistics = WorkerStatistics { actors, ..WorkerStatistics::default() };
                    self.control.apply(ControlEvent::Statistics { worker, statistics });
                }
                ControlEvent::ActorEnded { actor, incarnation, end }
            }
            NodeEvent::Tasks { worker, counts } => ControlEvent::TaskCounts { worker, counts },
            NodeEvent::ExecutablePinned { job } => ControlEvent::ExecutablePinned { job, node },
            NodeEvent::DriverStarted { job } => ControlEvent::DriverStarted { job, node },
            NodeEvent::DriverExited { job, state, exit_code, message } => {
                ControlEvent::JobEnded { job, state, exit_code, message }
            }
        });
    }
}

//! Services of the head: requests of agents and drivers, and placement requests from everywhere.

use std::sync::{Arc, Weak};

use super::{Head, HeadCell, certificates};
use crate::cluster::authorization;
use crate::cluster::control_plane::state::{ControlError, ControlEvent, ControlReply};
use crate::cluster::control_service::{CONTROL, ControlResult};
use crate::cluster::model::{ActorCount, JobId, JobState, NodeId, WorkerReport, WorkerStatistics};
use crate::cluster::protocol::worker::ActorEvent;
use crate::cluster::protocol::{JOB, JobRequest, NODE, NodeEvent, NodeReply, NodeRequest};
use crate::cluster::security::ONE_JOB;
use crate::host::HostServices;
use crate::id::{HostId, HostUid};
use crate::registry::{Inbound, Responder, decode};
use crate::wire::CallFailure;

/// Handler of the calls to the head's host.
pub(super) fn host_services(cell: HeadCell) -> HostServices {
    Box::new(move |host, service, inbound| {
        let Some(head) = cell.get().and_then(Weak::upgrade) else {
            return inbound.fail(&CallFailure::ActorStopped);
        };
        if let Err(refused) = authorization::check(host, service, &inbound) {
            return inbound.fail(&refused);
        }
        match service {
            CONTROL => head.control.serve(host, inbound),
            NODE => handle_node(&head, inbound),
            JOB => handle_job(&head, inbound),
            _ => {
                let message = host.registry().name_of(service);
                inbound.fail(&CallFailure::NotHandled { actor: "the head".to_owned(), message });
            }
        }
    })
}

/// Handles a request of an agent.
fn handle_node(head: &Arc<Head>, inbound: Inbound) {
    let from = inbound.from();
    let (body, _, mut responder) = inbound.into_parts::<NodeReply>();
    let request = match decode::<NodeRequest>(&body) {
        Ok(request) => request,
        Err(failure) => return responder.fail(failure),
    };
    responder.start();
    let ends_a_driver = matches!(&request, NodeRequest::Events { events, .. }
        if events.iter().any(|event| matches!(event, NodeEvent::DriverExited { .. })));
    let reply = head.handle_node_request(from, request);
    if !ends_a_driver || !matches!(reply, NodeReply::Done) {
        return responder.reply(reply);
    }
    // The agent drops its record of a driver's end when the head acknowledges it. If the head were killed between
    // the acknowledgement and the disk, the job would never end.
    let head = Arc::clone(head);
    tokio::spawn(async move {
        let stored = head.store.flushed().await;
        responder.reply(stored.map_or(NodeReply::NotPersisted, |()| NodeReply::Done));
    });
}

/// Handles a request of a driver.
fn handle_job(head: &Arc<Head>, inbound: Inbound) {
    let from = inbound.from();
    let (body, _, mut responder) = inbound.into_parts::<ControlResult>();
    let request = match decode::<JobRequest>(&body) {
        Ok(request) => request,
        Err(failure) => return responder.fail(failure),
    };
    // A small request keeps its credit until the reply. Only the start and the end of a job can be larger, and return
    // it here, before they wait for the disk. These are bounded by the driver, which has a few of them open at most.
    responder.start();
    let head = Arc::clone(head);
    tokio::spawn(async move { answer_job(&head, from, request, responder).await });
}

async fn answer_job(head: &Head, from: HostUid, request: JobRequest, responder: Responder<ControlResult>) {
    responder.reply(head.handle_job_request(from, request).await);
}

impl Head {
    /// Handles a request of an agent, which may only report about its own node.
    fn handle_node_request(&self, from: HostUid, request: NodeRequest) -> NodeReply {
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
                self.control.apply(ControlEvent::NodeJoined(report));
                NodeReply::Done
            }
            NodeRequest::SignCertificate { job, hosts, request, .. } => {
                self.sign_worker(from, job, hosts, &request)
            }
            NodeRequest::SignDriver { job, hosts, request, .. } => {
                self.sign_driver(from, job, hosts, &request)
            }
            _ if !self.control.read(|state| state.is_member(from)) => NodeReply::Unknown,
            // `Unknown` makes the agent rejoin, with its whole state in both directions.
            NodeRequest::Heartbeat { .. } if self.outbox().take_lagging(from) => NodeReply::Unknown,
            NodeRequest::Heartbeat { usage, .. } => {
                if let Some(usage) = usage {
                    self.outbox().set_usage(NodeId(from.host.0), usage);
                }
                self.control.apply(ControlEvent::NodeHeartbeat { node: from });
                NodeReply::Done
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
            NodeRequest::Spans { workers, .. } => {
                let node = NodeId(from.host.0);
                for (worker, spans) in workers {
                    // As for statistics, a node reports its own workers only.
                    let placed = self.control.read(|state| state.any_worker(worker));
                    if let Some((_, job)) = placed.filter(|(on, _)| *on == node) {
                        self.timelines.add(job, worker, spans);
                    }
                }
                NodeReply::Done
            }
            NodeRequest::Events { events, .. } => {
                let node = NodeId(from.host.0);
                // An invalid event does not fail the batch: the agent would send the same batch again for ever.
                for event in events {
                    match self.control.read(|state| certificates::check_event(state, node, &event)) {
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
        }
    }

    /// Returns true if a worker in a join report can belong to its node.
    fn accepts_worker_report(&self, node: NodeId, report: &WorkerReport) -> bool {
        let Some(member) = report.member else { return true };
        let ready = NodeEvent::WorkerReady { worker: report.worker, member, pid: report.pid };
        let checked = self.control.read(|state| certificates::check_event(state, node, &ready));
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

    async fn handle_job_request(&self, from: HostUid, request: JobRequest) -> ControlResult {
        match request {
            JobRequest::Start { descriptor, .. } if descriptor.driver != Some(from) => {
                Err(ControlError::Unknown("a driver can start a job only for itself".to_owned()))
            }
            JobRequest::Start { job, .. } if !self.may_start(from, job) => {
                Err(ControlError::Unknown("this driver was enrolled for another job".to_owned()))
            }
            JobRequest::Start { descriptor, .. } if self.is_claimed(descriptor.user_host) => Err(
                ControlError::Unknown("a driver's host belongs to another process of the cluster".to_owned()),
            ),
            JobRequest::Start { job, descriptor } => {
                let control = Arc::clone(&self.control);
                // Before the reply is computed: an event after that reply must make the driver lag.
                if let Some(job) = job {
                    self.outbox().reset_driver(job, from);
                }
                let reply =
                    control.ask(|ticket| ControlEvent::JobStarted { ticket, job, descriptor }).await?;
                // The job may have ended meanwhile. It has no events any more, and an entry would never be removed.
                if let ControlReply::Job { job, .. } = &reply
                    && self.is_open(*job)
                {
                    self.outbox().set_driver(*job, from);
                }
                if let (ControlReply::Job { job, .. }, None) = (&reply, job) {
                    self.persist_job(*job).await?;
                }
                Ok(reply)
            }
            JobRequest::Heartbeat { job }
            | JobRequest::NodeProvisioned { job, .. }
            | JobRequest::End { job, .. }
                if self.has_another_driver(job, from) =>
            {
                Err(ControlError::Unknown(format!("job {job} has another driver")))
            }
            JobRequest::Heartbeat { job } => {
                self.control.apply(ControlEvent::JobHeartbeat { job });
                self.check_open(job)?;
                match self.outbox().take_lagging(from) {
                    true => Err(ControlError::Unknown(
                        "the driver has missed events of its job, and must rejoin".to_owned(),
                    )),
                    false => Ok(ControlReply::Done),
                }
            }
            JobRequest::NodeProvisioned { job, node } => {
                self.control.apply(ControlEvent::NodeProvisioned { job, node });
                Ok(ControlReply::Done)
            }
            JobRequest::End { job, state, message } => {
                let submitted =
                    self.control.read(|it| it.job_descriptor(job).is_some_and(|it| it.runs_on.is_some()));
                self.control.apply(match submitted {
                    true => ControlEvent::DriverLeft { job, why: message },
                    false => ControlEvent::JobEnded { job, state, exit_code: None, message },
                });
                // A disk error does not reopen the job: its driver exits anyway.
                let _ = self.store.flushed().await;
                Ok(ControlReply::Done)
            }
        }
    }

    /// Waits until a new job is on disk, since its id must survive a restart of the head once a driver has it. A job
    /// that cannot be stored fails.
    pub(super) async fn persist_job(&self, job: JobId) -> Result<(), ControlError> {
        let Err(why) = self.store.flushed().await else { return Ok(()) };
        let denied = ControlError::NotPersisted(why);
        let (exit_code, message) = (None, denied.to_string());
        self.control.apply(ControlEvent::JobEnded { job, state: JobState::Failed, exit_code, message });
        Err(denied)
    }

    /// Returns true if an open job belongs to another driver. A driver may only report about its own job.
    fn has_another_driver(&self, job: JobId, from: HostUid) -> bool {
        self.is_open(job) && self.control.read(|state| state.driver(job)) != Some(from)
    }

    /// Returns true if a driver may start a job. A driver that its node's agent has enrolled may start only its own.
    fn may_start(&self, driver: HostUid, job: Option<JobId>) -> bool {
        match job {
            Some(job) => authorization::check_job(&self.host, driver, job).is_ok(),
            None => {
                authorization::check_known(&self.host, driver).is_ok()
                    && self.host.is_certified(driver, ONE_JOB) != Some(true)
            }
        }
    }

    /// Returns true if a host belongs to a process with another incarnation than this one.
    fn is_claimed(&self, host: Option<HostUid>) -> bool {
        host.is_some_and(|host| {
            let holder = self.control.read(|state| state.owner_of_host(host.host));
            host.host == HostId::HEAD || holder.is_some_and(|holder| holder != host)
        })
    }

    fn is_open(&self, job: JobId) -> bool {
        self.control.read(|state| state.job_state(job).is_some_and(JobState::is_open))
    }

    /// Rejects a request for a job that has ended, or that this head does not know.
    fn check_open(&self, job: JobId) -> ControlResult {
        match self.is_open(job) {
            true => Ok(ControlReply::Done),
            false => Err(ControlError::JobEnded(format!("the head has recorded the end of job {job}"))),
        }
    }
}

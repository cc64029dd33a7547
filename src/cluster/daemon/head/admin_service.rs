//! Admin service of the head: answers operators over the token RPC.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Head;
use crate::cluster::admin::{AdminReply, AdminRequest, Submission};
use crate::cluster::control_plane::state::{ClusterState, ControlError, ControlEvent, ControlReply};
use crate::cluster::daemon::token_rpc_server::TokenService;
use crate::cluster::model::{JobDescriptor, JobId, JobState, NodeDescriptor, NodeState};
use crate::cluster::security::Claims;
use crate::cluster::security::token_rpc::{Enrolled, Returned};
use crate::config::{HEAD_RPC_TIMEOUT, WAITING_REPORTED_MAX};
use crate::transport::Certificate;

/// Polling interval while the agent of the head's node has not joined.
const OWN_NODE_PAUSE: Duration = Duration::from_millis(20);

/// Token RPC service of the head. It holds a weak reference, since the server outlives the head at shutdown.
#[derive(Debug)]
pub(super) struct HeadAdminService(Weak<Head>);

impl HeadAdminService {
    pub(super) fn of(head: &Arc<Head>) -> Self {
        Self(Arc::downgrade(head))
    }
}

impl TokenService for HeadAdminService {
    type Request = AdminRequest;
    type Reply = AdminReply;

    async fn reply(&self, request: AdminRequest) -> AdminReply {
        match self.0.upgrade() {
            Some(head) => head.reply(request).await,
            None => failed("the head is ending"),
        }
    }

    async fn enrol(
        &self,
        csr: Vec<u8>,
        claims: Claims,
        presented: Option<&Certificate>,
    ) -> Result<Enrolled, String> {
        let head = self.0.upgrade().ok_or("the head is ending")?;
        head.enrol(&csr, &claims, presented)
    }

    async fn readmit(&self, claims: Claims, presented: &Certificate) -> Result<Returned, String> {
        let head = self.0.upgrade().ok_or("the head is ending")?;
        head.readmit(&claims, presented)
    }
}

impl Head {
    pub(super) async fn reply(&self, request: AdminRequest) -> AdminReply {
        let control = &self.control;
        match request {
            AdminRequest::List { of, query } => self.list(of, &query).await,
            AdminRequest::Classes => AdminReply::Classes(self.classes().await),
            AdminRequest::Functions { part } => AdminReply::Functions(self.functions(part).await),
            AdminRequest::PendingActors => control.read(|state| AdminReply::PendingActors {
                first: state.waiting(WAITING_REPORTED_MAX),
                count: state.waiting_count(),
            }),
            AdminRequest::Restarts => AdminReply::Restarts(control.read(ClusterState::restart_counts)),
            AdminRequest::Snapshot => AdminReply::Snapshot {
                version: control.read(ClusterState::version),
                time_ms: control.now_ms(),
            },
            AdminRequest::Spans { job } => match control.read(|state| state.job_state(job)) {
                None => unknown(format!("no job {job}; see `roadshow job list`")),
                Some(_) => AdminReply::Spans(self.timelines.of(job)),
            },
            AdminRequest::Alerts => AdminReply::Alerts(control.read(|state| state.alerts())),
            AdminRequest::Kill { actor } => {
                let kill = |ticket| ControlEvent::Kill { ticket, actor };
                let killed = Arc::clone(control).kill(actor, kill).await;
                killed.map_or_else(denied, |_| AdminReply::Done)
            }
            AdminRequest::KillWorkerOf { actor } => {
                let kill = |ticket| ControlEvent::KillWorkerOf { ticket, actor };
                let killed = Arc::clone(control).kill(actor, kill).await;
                killed.map_or_else(denied, |_| AdminReply::Done)
            }
            AdminRequest::Drain { node } => {
                let (known, own) = control.read(|state| (state.node_state(node), state.is_own(node)));
                if known.is_none_or(|state| state == NodeState::Dead) {
                    return unknown(format!("no living node {node}; see `roadshow list nodes`"));
                }
                if own {
                    return failed("the head's own node cannot be drained: the head would end with it");
                }
                control.apply(ControlEvent::NodeDrain { node });
                AdminReply::Done
            }
            AdminRequest::StopJob { job } => self.stop(job).await,
            AdminRequest::DashboardLink => match self.dashboard.get() {
                Some(dashboard) => AdminReply::DashboardLink { link: dashboard.link() },
                None => failed("the head serves no dashboard; restart it with --include-dashboard 1"),
            },
            AdminRequest::Submit(submission) => self.submit(&submission).await,
            _ => {
                failed("this request is for a node's agent, not for the head; send it to the node's address")
            }
        }
    }

    /// Stops a job, and replies once the stop is on disk.
    async fn stop(&self, job: JobId) -> AdminReply {
        match self.control.read(|state| state.job_state(job)) {
            None => unknown(format!("no job {job}; see `roadshow job list`")),
            Some(state) if !state.is_open() => failed(&format!("job {job} has ended already")),
            Some(_) => {
                self.control.apply(ControlEvent::JobEnded {
                    job,
                    state: JobState::Stopped,
                    exit_code: None,
                    message: "an operator stopped it".to_owned(),
                });
                match self.store.flushed().await {
                    Ok(()) => AdminReply::Done,
                    Err(why) => failed(&format!(
                        "job {job} has stopped, but a restarted head would not know: {}",
                        ControlError::NotPersisted(why)
                    )),
                }
            }
        }
    }

    /// Returns the head's own node. After a start of the head, its agent may need a moment to rejoin.
    async fn own_node(&self) -> Option<NodeDescriptor> {
        let until = Instant::now() + HEAD_RPC_TIMEOUT;
        loop {
            let node = self.control.read(ClusterState::own_node);
            if node.is_some() || Instant::now() >= until {
                return node;
            }
            tokio::time::sleep(OWN_NODE_PAUSE).await;
        }
    }

    /// Allocates the id of a job, and assigns its driver to the head's own node.
    async fn submit(&self, submission: &Submission) -> AdminReply {
        let Some(node) = self.own_node().await else {
            return failed(
                "the head's own node has not joined, so no node can run the driver; restart its agent",
            );
        };
        // The entrypoint is only for display, so arguments that are not UTF-8 may lose characters.
        let mut entrypoint = submission.program.to_string_lossy().into_owned();
        for arg in &submission.args {
            entrypoint.push(' ');
            entrypoint.push_str(&arg.to_string_lossy());
        }
        let descriptor = JobDescriptor {
            entrypoint,
            hostname: node.hostname.clone(),
            pid: 0,
            driver: None,
            user_host: None,
            namespace: String::new(),
            runs_on: Some(node.id()),
        };
        let submitted =
            Arc::clone(&self.control).ask(|ticket| ControlEvent::JobSubmitted { ticket, descriptor }).await;
        match submitted {
            // The command uses the id from now on, so the id must survive a restart of the head.
            Ok(ControlReply::Job { job, .. }) => match self.core.persist_job(job).await {
                Ok(()) => AdminReply::Submitted { job, node: node.id(), address: node.address },
                Err(error) => denied(error),
            },
            Ok(_) => failed("the control plane returned an unexpected reply"),
            Err(error) => denied(error),
        }
    }
}

fn denied(denied: ControlError) -> AdminReply {
    AdminReply::Failed { unknown: matches!(denied, ControlError::Unknown(_)), text: denied.to_string() }
}

fn unknown(text: String) -> AdminReply {
    AdminReply::Failed { text, unknown: true }
}

pub(super) fn failed(text: &str) -> AdminReply {
    AdminReply::Failed { text: text.to_owned(), unknown: false }
}

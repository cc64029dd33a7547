//! What operators ask at the head's desk.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Head;
use crate::cluster::admin::{AdminReply, AdminRequest, Submission};
use crate::cluster::control_plane::state::{Answer, ControlError, Event, State};
use crate::cluster::daemon::token_rpc_server::TokenService;
use crate::cluster::model::{JobDescriptor, JobId, JobState, NodeDescriptor, NodeState};
use crate::cluster::security::Claims;
use crate::cluster::security::token_rpc::{Enrolled, Returned};
use crate::config::{HEAD_RPC_TIMEOUT, WAITING_TOLD_MAX};
use crate::transport::Certificate;

/// Pause between two looks for the head's own node.
const OWN_NODE_PAUSE: Duration = Duration::from_millis(20);

/// What the head's desk answers.
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

    async fn answer(&self, request: AdminRequest) -> AdminReply {
        match self.0.upgrade() {
            Some(head) => head.answer(request).await,
            None => failed("the head is ending"),
        }
    }

    async fn enrol(
        &self,
        csr: Vec<u8>,
        claims: Claims,
        shown: Option<&Certificate>,
    ) -> Result<Enrolled, String> {
        let head = self.0.upgrade().ok_or("the head is ending")?;
        head.enrol(&csr, &claims, shown)
    }

    async fn take_back(&self, claims: Claims, shown: &Certificate) -> Result<Returned, String> {
        let head = self.0.upgrade().ok_or("the head is ending")?;
        head.take_back(&claims, shown)
    }
}

impl Head {
    async fn answer(&self, request: AdminRequest) -> AdminReply {
        let control = &self.control;
        match request {
            AdminRequest::List { of, query } => self.list(of, &query).await,
            AdminRequest::Classes => AdminReply::Classes(self.classes().await),
            AdminRequest::Functions { part } => AdminReply::Functions(self.functions(part).await),
            AdminRequest::PendingActors => control.read(|state| AdminReply::PendingActors {
                first: state.waiting(WAITING_TOLD_MAX),
                count: state.waiting_count(),
            }),
            AdminRequest::Alerts => AdminReply::Alerts(control.read(|state| state.alerts())),
            AdminRequest::Kill { actor } => {
                let killed = Arc::clone(control).ask(|ticket| Event::Kill { ticket, actor }).await;
                killed.map_or_else(denied, |_| AdminReply::Done)
            }
            AdminRequest::KillWorkerOf { actor } => {
                let killed = Arc::clone(control).ask(|ticket| Event::KillWorkerOf { ticket, actor }).await;
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
                control.apply(Event::NodeDrain { node });
                AdminReply::Done
            }
            AdminRequest::StopJob { job } => self.stop(job).await,
            AdminRequest::Submit(submission) => self.submit(&submission).await,
            _ => failed("this is asked of a node's agent, and not of the head"),
        }
    }

    /// Stops a job. The answer waits until that is on disk.
    async fn stop(&self, job: JobId) -> AdminReply {
        match self.control.read(|state| state.job_state(job)) {
            None => unknown(format!("no job {job}; see `roadshow job list`")),
            Some(state) if !state.is_open() => failed(&format!("job {job} is over already")),
            Some(_) => {
                self.control.apply(Event::JobEnded {
                    job,
                    state: JobState::Stopped,
                    exit_code: None,
                    message: "an operator stopped it".to_owned(),
                });
                match self.store.flushed().await {
                    Ok(()) => AdminReply::Done,
                    Err(why) => failed(&format!(
                        "job {job} is stopped, but a head that is started anew would not know: {}",
                        ControlError::NotPersisted(why)
                    )),
                }
            }
        }
    }

    /// The head's own node. After a start of the head its agent may take a moment to come back.
    async fn own_node(&self) -> Option<NodeDescriptor> {
        let until = Instant::now() + HEAD_RPC_TIMEOUT;
        loop {
            let node = self.control.read(State::own_node);
            if node.is_some() || Instant::now() >= until {
                return node;
            }
            tokio::time::sleep(OWN_NODE_PAUSE).await;
        }
    }

    /// Gives a job its number, and says which node will run its driver: the head's own.
    async fn submit(&self, submission: &Submission) -> AdminReply {
        let Some(node) = self.own_node().await else {
            return failed("the head's own node is not there to run the driver; start its agent again");
        };
        // For lists: what is not text in it is shown as well as it can be.
        let mut entrypoint = submission.program.to_string_lossy().into_owned();
        for arg in &submission.args {
            entrypoint.push(' ');
            entrypoint.push_str(&arg.to_string_lossy());
        }
        let facts = JobDescriptor {
            entrypoint,
            hostname: node.hostname.clone(),
            pid: 0,
            driver: None,
            user_host: None,
            namespace: String::new(),
            runs_on: Some(node.id()),
        };
        let submitted = Arc::clone(&self.control).ask(|ticket| Event::JobSubmitted { ticket, facts }).await;
        match submitted {
            Ok(Answer::Job { job, .. }) => match self.persist_job(job).await {
                Ok(()) => AdminReply::Submitted { job, node: node.id(), address: node.address },
                Err(error) => denied(error),
            },
            Ok(_) => failed("the control plane gave another answer"),
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

//! The driver's word to the head that it lives, and its way back when the head was away.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Shared, events};
use crate::cluster::backoff::Backoff;
use crate::cluster::control_plane::state::{Answer, ControlError, JobEvent};
use crate::cluster::model::JobState;
use crate::cluster::protocol::JobRequest;
use crate::cluster::protocol::MembershipUpdate;
use crate::cluster::security::Claims;
use crate::cluster::security::enrol::{Back, Renewal};
use crate::cluster::security::token_rpc::TokenRpcError;
use crate::config::{JOB_LEASE, LEASE_RENEW_INTERVAL, NODE_LEASE};
use crate::observe::log;
use crate::transport::Role;

/// Says every while that the driver is there; comes back when the head was gone.
pub(super) async fn heartbeat_loop(shared: Arc<Shared>) {
    // By the clock on the wall, which goes on while the machine sleeps.
    let due = || SystemTime::now() + shared.credentials.renew_after();
    let mut renewal = due();
    loop {
        tokio::time::sleep(LEASE_RENEW_INTERVAL).await;
        match shared.ask(JobRequest::Heartbeat { job: shared.job }).await {
            Ok(Ok(_)) if SystemTime::now() < renewal => continue,
            Ok(Ok(_)) => {
                // The head is there, and is to hear the next beat whatever becomes of this.
                match try_rejoin(&shared, Link::Answers).await {
                    Ok(_) => {}
                    Err(RejoinError::JobEnded(why)) => return on_job_ended(&shared, why),
                    Err(RejoinError::Retry(why)) => {
                        log::warn!(why, "the driver's certificate was not renewed")
                    }
                }
                renewal = due();
                continue;
            }
            Ok(Err(ControlError::JobEnded(why))) => return on_job_ended(&shared, why),
            Ok(Err(denied)) => log::warn!(%denied, "the head does not take the driver's word"),
            Err(error) => log::warn!(%error, "the head is away; it is looked for"),
        }
        match rejoin(&shared).await {
            Ok(Renewed::Yes) => renewal = due(),
            Ok(Renewed::No) => {}
            Err(why) => return on_job_ended(&shared, why),
        }
    }
}

fn on_job_ended(shared: &Arc<Shared>, why: String) {
    events::on_job_event(shared, JobEvent::Stopped { why });
}

/// Whether the driver has another certificate than before.
enum Renewed {
    Yes,
    No,
}

/// Finds the head and takes up the job with it, however long that takes. An error is that the job is over.
async fn rejoin(shared: &Arc<Shared>) -> Result<Renewed, String> {
    let mut backoff = Backoff::new();
    let mut told = String::new();
    loop {
        match try_rejoin(shared, Link::Silent).await {
            Ok(renewed) => return Ok(renewed),
            Err(RejoinError::JobEnded(why)) => return Err(why),
            Err(RejoinError::Retry(why)) if why == told => {}
            // Each reason once: it may be that the cluster does not take this driver any more.
            Err(RejoinError::Retry(why)) => {
                log::warn!(why, "the driver cannot come back to the head yet");
                told = why;
            }
        }
        backoff.pause().await;
    }
}

/// Tells the head that the job is over. One that was just started again is looked for, as long as it would
/// wait for this driver.
pub(super) async fn report_end(shared: &Arc<Shared>, state: JobState, message: &str) -> Result<(), String> {
    let mut why = "it did not answer".to_owned();
    let mut backoff = Backoff::new();
    let telling = async {
        loop {
            let end = JobRequest::End { job: shared.job, state, message: message.to_owned() };
            match shared.ask(end).await {
                Ok(_) => return,
                Err(error) => why = error.to_string(),
            }
            backoff.pause().await;
            // Where it is not found, the next try says so.
            if find_head(shared, Renewal::IfStale).await.is_ok() {
                shared.control.redial(shared.head());
            }
        }
    };
    tokio::time::timeout(JOB_LEASE, telling).await.map_err(|_| why)
}

enum RejoinError {
    Retry(String),
    JobEnded(String),
}

/// Finds the head in the life that it has now; gives whether that is another one.
async fn find_head(shared: &Shared, renewal: Renewal) -> Result<(bool, Renewed), TokenRpcError> {
    let hosts = vec![shared.control.identity(), shared.host.identity()];
    let claims = Claims { role: Role::Driver, hosts, job: None, node: None };
    let (heads, last) = (&shared.heads, shared.standing().head_at);
    let back = shared.admission.rejoin(heads, last, &claims, &shared.credentials, renewal);
    let Back { head_at, head, renewed } = back.await?;
    shared.control.supersede(head, head_at);
    let mut standing = shared.standing();
    standing.head_at = head_at;
    let before = std::mem::replace(&mut standing.head, head);
    Ok((before != head, if renewed { Renewed::Yes } else { Renewed::No }))
}

/// State of the link to the head when a driver comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    /// The driver wants its next certificate.
    Answers,
    Silent,
}

async fn try_rejoin(shared: &Arc<Shared>, link: Link) -> Result<Renewed, RejoinError> {
    let still = |error: &dyn std::fmt::Display| RejoinError::Retry(error.to_string());
    let renewal = match link {
        Link::Answers => Renewal::Due,
        Link::Silent => Renewal::IfStale,
    };
    let (is_new, renewed) = find_head(shared, renewal).await.map_err(|error| still(&error))?;
    if link == Link::Silent {
        shared.control.redial(shared.head());
    }
    let before = events::live_workers(shared);
    match shared.ask(start_again(shared)).await {
        Ok(Ok(Answer::Job { nodes, workers, all_rejoined, .. })) => {
            // Agents tell the workers.
            shared.members.apply(&MembershipUpdate::Head(shared.head_info()), &shared.host);
            // Of nodes that are not back it does not know the workers.
            if is_new || !all_rejoined {
                schedule_reconcile(shared);
            } else {
                events::remove_unlisted(shared, before, &workers);
            }
            events::reconcile(shared, nodes, workers);
            Ok(renewed)
        }
        Ok(Err(ControlError::JobEnded(why) | ControlError::Unknown(why))) => Err(RejoinError::JobEnded(why)),
        Ok(other) => Err(RejoinError::Retry(format!("it answered {other:?}"))),
        Err(error) => Err(still(&error)),
    }
}

/// Says that the driver is back; the answer has what the job has by now.
fn start_again(shared: &Shared) -> JobRequest {
    JobRequest::Start { job: Some(shared.job), facts: shared.facts.clone() }
}

/// Looks once more when all nodes that live have come back to a head that was started again.
fn schedule_reconcile(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        tokio::time::sleep(NODE_LEASE + LEASE_RENEW_INTERVAL).await;
        let before = events::live_workers(&shared);
        if let Ok(Ok(Answer::Job { workers, .. })) = shared.ask(start_again(&shared)).await {
            events::remove_unlisted(&shared, before, &workers);
        }
    });
}

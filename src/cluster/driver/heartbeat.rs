//! Heartbeats of the driver to the head, and its way back to a head that was unreachable or restarted.
//!
//! ```text
//!              heartbeat acked
//!             .---------------.
//!             v               |   certificate due
//!   +-------> alive ----------+------------------> renew over the present link, stay alive
//!   |          | call fails, or the head does not know the driver
//!   |          v
//!   +------ rejoining   find the head, present the certificate, start the job again; retry with back-off
//!   rejoined   | the head says that the job has ended
//!              v
//!            ended      every worker is marked down, and the loop returns
//! ```

use std::sync::Arc;
use std::time::SystemTime;

use super::{DriverShared, events};
use crate::background;
use crate::cluster::backoff::Backoff;
use crate::cluster::control_plane::state::{ControlError, ControlReply, JobEvent};
use crate::cluster::model::JobState;
use crate::cluster::protocol::JobRequest;
use crate::cluster::protocol::MembershipUpdate;
use crate::cluster::security::Claims;
use crate::cluster::security::enrol::{Rejoined, Renewal};
use crate::cluster::security::token_rpc::TokenRpcError;
use crate::config::{JOB_LEASE, LEASE_RENEW_INTERVAL, NODE_LEASE};
use crate::observe::log;
use crate::transport::Role;

/// Renews the job's lease until the job has ended; rejoins the head when it was unreachable.
pub(super) async fn heartbeat_loop(shared: Arc<DriverShared>) {
    // Wall clock time, since certificates expire while the machine is suspended and monotonic clocks stand still.
    let due = || SystemTime::now() + shared.credentials.renew_after();
    let mut renewal = due();
    loop {
        tokio::time::sleep(LEASE_RENEW_INTERVAL).await;
        match shared.ask(JobRequest::Heartbeat { job: shared.job }).await {
            Ok(Ok(_)) if SystemTime::now() < renewal => continue,
            Ok(Ok(_)) => {
                // The head answers, so a failed renewal is no reason to stop the heartbeats: try again later.
                match try_rejoin(&shared, HeadLink::Up).await {
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
            Ok(Err(denied)) => log::warn!(%denied, "the head rejected the heartbeat, rejoining"),
            Err(error) => log::warn!(%error, "lost contact with the head, rejoining"),
        }
        match rejoin(&shared).await {
            Ok(Renewed::Yes) => renewal = due(),
            Ok(Renewed::No) => {}
            Err(why) => return on_job_ended(&shared, why),
        }
    }
}

fn on_job_ended(shared: &Arc<DriverShared>, why: String) {
    events::on_job_event(shared, JobEvent::Stopped { why });
}

/// Result of a rejoin: the driver has another certificate than before, or not.
enum Renewed {
    Yes,
    No,
}

/// Finds the head and resumes the job, however long that takes. Fails with the cause if the job has ended.
async fn rejoin(shared: &Arc<DriverShared>) -> Result<Renewed, String> {
    let mut backoff = Backoff::new();
    let mut logged = String::new();
    loop {
        match try_rejoin(shared, HeadLink::Down).await {
            Ok(renewed) => return Ok(renewed),
            Err(RejoinError::JobEnded(why)) => return Err(why),
            Err(RejoinError::Retry(why)) if why == logged => {}
            // Each reason is logged once: a head that rejects this driver for good would fill the log otherwise.
            Err(RejoinError::Retry(why)) => {
                log::warn!(why, "cannot rejoin the head yet, retrying");
                logged = why;
            }
        }
        backoff.pause().await;
    }
}

/// Reports the end of the job to the head. A head that restarts meanwhile is searched for during the job's lease,
/// which is how long it would wait for this driver.
pub(super) async fn report_end(
    shared: &Arc<DriverShared>,
    state: JobState,
    message: &str,
) -> Result<(), String> {
    let mut why = "it did not answer".to_owned();
    let mut backoff = Backoff::new();
    let reporting = async {
        loop {
            let end = JobRequest::End { job: shared.job, state, message: message.to_owned() };
            match shared.ask(end).await {
                Ok(_) => return,
                Err(error) => why = error.to_string(),
            }
            backoff.pause().await;
            // An error shows again when the next attempt calls the head.
            if find_head(shared, Renewal::IfStale).await.is_ok() {
                shared.control.redial(shared.head());
            }
        }
    };
    tokio::time::timeout(JOB_LEASE, reporting).await.map_err(|_| why)
}

/// Failure of one attempt to rejoin.
enum RejoinError {
    /// Transient or unknown; the next attempt may succeed.
    Retry(String),
    /// The head has ended the job.
    JobEnded(String),
}

/// Finds the present incarnation of the head; returns true if it is another one than before.
async fn find_head(shared: &DriverShared, renewal: Renewal) -> Result<(bool, Renewed), TokenRpcError> {
    let hosts = vec![shared.control.identity(), shared.host.identity()];
    let claims = Claims { role: Role::Driver, hosts, job: None, node: None };
    let (heads, last) = (&shared.heads, shared.view().head_at);
    let back = shared.admission.rejoin(heads, last, &claims, &shared.credentials, renewal);
    let Rejoined { head_at, head, renewed } = back.await?;
    shared.control.supersede(head, head_at);
    let mut view = shared.view();
    view.head_at = head_at;
    let before = std::mem::replace(&mut view.head, head);
    Ok((before != head, if renewed { Renewed::Yes } else { Renewed::No }))
}

/// State of the link to the head when a driver rejoins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HeadLink {
    /// The head answers; the driver rejoins only to renew its certificate.
    Up,
    /// The head does not answer.
    Down,
}

/// Makes one attempt to rejoin the head.
async fn try_rejoin(shared: &Arc<DriverShared>, link: HeadLink) -> Result<Renewed, RejoinError> {
    let retry = |error: &dyn std::fmt::Display| RejoinError::Retry(error.to_string());
    let renewal = match link {
        HeadLink::Up => Renewal::Due,
        HeadLink::Down => Renewal::IfStale,
    };
    let (is_new, renewed) = find_head(shared, renewal).await.map_err(|error| retry(&error))?;
    // The old link may be half open. TCP would notice only after many retransmissions, so it is replaced now.
    if link == HeadLink::Down {
        shared.control.redial(shared.head());
    }
    // Taken before the head is asked: a worker that starts meanwhile must not count as unlisted.
    let before = events::live_workers(shared);
    match shared.ask(start_again(shared)).await {
        Ok(Ok(ControlReply::Job { nodes, workers, all_rejoined, .. })) => {
            // Only this process's view is updated here; the agents tell their workers.
            shared.members.apply(&MembershipUpdate::Head(shared.head_info()), &shared.host);
            // A head whose nodes have not all rejoined does not know their workers yet. Their absence from the
            // list proves nothing, so the comparison is repeated once the node leases have expired.
            if is_new || !all_rejoined {
                schedule_reconcile(shared);
            } else {
                events::remove_unlisted(shared, before, &workers);
            }
            events::reconcile(shared, nodes, workers);
            Ok(renewed)
        }
        Ok(Err(ControlError::JobEnded(why) | ControlError::Unknown(why))) => Err(RejoinError::JobEnded(why)),
        Ok(other) => Err(RejoinError::Retry(format!("the head sent an unexpected reply: {other:?}"))),
        Err(error) => Err(retry(&error)),
    }
}

/// Request that resumes the job; the head answers with the job's present nodes and workers.
fn start_again(shared: &DriverShared) -> JobRequest {
    JobRequest::Start { job: Some(shared.job), descriptor: shared.descriptor.clone() }
}

/// Compares the workers with the head's list once every node has rejoined it, or is dead.
fn schedule_reconcile(shared: &Arc<DriverShared>) {
    let shared = Arc::clone(shared);
    background::spawn(async move {
        loop {
            tokio::time::sleep(NODE_LEASE + LEASE_RENEW_INTERVAL).await;
            let before = events::live_workers(&shared);
            match shared.ask(start_again(&shared)).await {
                // The head has a longer lease than the default, or members still rejoin.
                Ok(Ok(ControlReply::Job { all_rejoined: false, .. })) => {}
                Ok(Ok(ControlReply::Job { workers, .. })) => {
                    return events::remove_unlisted(&shared, before, &workers);
                }
                // The next rejoin compares again.
                _ => return,
            }
        }
    });
}

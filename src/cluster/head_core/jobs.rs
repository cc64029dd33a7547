//! Requests of drivers.

use std::sync::Arc;

use super::HeadCore;
use crate::background;
use crate::cluster::authorization;
use crate::cluster::control_plane::state::{ControlError, ControlEvent, ControlReply};
use crate::cluster::control_service::ControlResult;
use crate::cluster::model::{JobId, JobState};
use crate::cluster::protocol::JobRequest;
use crate::cluster::security::ONE_JOB;
use crate::id::{HostId, HostUid};
use crate::registry::{Inbound, decode};

impl HeadCore {
    /// Serves a request of a driver.
    pub(in crate::cluster) fn serve_job(self: &Arc<Self>, inbound: Inbound) {
        let from = inbound.from();
        let (body, _, mut responder) = inbound.into_parts::<ControlResult>();
        let request = match decode::<JobRequest>(&body) {
            Ok(request) => request,
            Err(failure) => return responder.fail(failure),
        };
        // A small request keeps its credit until the reply. Only the start and the end of a job can be larger, and
        // return it here, before they wait for the disk. These are bounded by the driver, which has a few of them
        // open at most.
        responder.start();
        let core = Arc::clone(self);
        background::spawn(async move { responder.reply(core.handle_job_request(from, request).await) });
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
                let _ = (self.flushed)().await;
                Ok(ControlReply::Done)
            }
        }
    }

    /// Waits until a new job is on disk, since its id must survive a restart of the head once a driver has it. A job
    /// that cannot be stored fails.
    pub(in crate::cluster) async fn persist_job(&self, job: JobId) -> Result<(), ControlError> {
        let Err(why) = (self.flushed)().await else { return Ok(()) };
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

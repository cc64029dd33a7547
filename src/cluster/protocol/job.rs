//! Requests of drivers to the head, and the specification of a job's workers.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use crate::cluster::executable::Digest;
use crate::cluster::model::{JobDescriptor, JobId, JobState, NodeId};
use crate::config::Limits;
use crate::id::{HostUid, TypeHash};

/// Service of the head that receives requests of drivers.
pub(in crate::cluster) const JOB: TypeHash = TypeHash::of("roadshow::Job");

/// Service of drivers that receives events from the head.
pub(in crate::cluster) const JOB_EVENT: TypeHash = TypeHash::of("roadshow::JobEvent");

/// Request of a driver to the head. The reply is a [`ControlResult`](crate::cluster::control_service::ControlResult).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) enum JobRequest {
    /// Registers the driver; `job` is set if it has an id from its submission, or from before a reconnect.
    Start { job: Option<JobId>, descriptor: JobDescriptor },
    /// Renews the driver's lease.
    Heartbeat { job: JobId },
    /// Reports that a node has the job's executable.
    NodeProvisioned { job: JobId, node: NodeId },
    /// Reports the end of the job.
    End { job: JobId, state: JobState, message: String },
}

/// Specification from which agents start the workers of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) struct JobSpec {
    pub(in crate::cluster) job: JobId,
    pub(in crate::cluster) digest: Digest,
    /// Arguments that make the executable run as a worker.
    pub(in crate::cluster) arguments: Vec<String>,
    /// Variables that are added to the environment that the agent sets.
    pub(in crate::cluster) environment: Variables,
    pub(in crate::cluster) limits: Limits,
    /// Stack size of each thread that runs handlers or tasks, in bytes.
    pub(in crate::cluster) stack_bytes: usize,
    /// Driver that owns the job and receives the output of its workers.
    pub(in crate::cluster) driver: HostUid,
}

/// Checks whether a variable must not be passed on: another process could join the cluster with it.
pub(in crate::cluster) fn is_secret(variable: &str) -> bool {
    // The prefix also covers `ROADSHOW_TOKEN_FILE`.
    variable.starts_with("ROADSHOW_TOKEN")
}

/// Environment variables: names and values.
pub(crate) type Variables = Vec<(OsString, OsString)>;

//! Requests of drivers to the head, events of the head for drivers, and how a job's workers are started.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use crate::cluster::executable::Digest;
use crate::cluster::model::{JobDescriptor, JobId, JobState, NodeId};
use crate::config::Limits;
use crate::id::{HostUid, TypeHash};

/// What drivers ask of the head.
pub(in crate::cluster) const JOB: TypeHash = TypeHash::of("roadshow::Job");

/// What the head tells drivers.
pub(in crate::cluster) const JOB_EVENT: TypeHash = TypeHash::of("roadshow::JobEvent");

/// From a driver to the head. The reply is a [`control::Reply`](super::control_service::Reply).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) enum JobRequest {
    /// It has come, or is back: then with its number.
    Start { job: Option<JobId>, facts: JobDescriptor },
    /// It is there.
    Heartbeat { job: JobId },
    /// A node has its executable.
    NodeProvisioned { job: JobId, node: NodeId },
    /// It has ended.
    End { job: JobId, state: JobState, message: String },
}

/// How the workers of a job are started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cluster) struct JobSpec {
    pub(in crate::cluster) job: JobId,
    pub(in crate::cluster) digest: Digest,
    /// Arguments by which the executable runs as a worker.
    pub(in crate::cluster) arguments: Vec<String>,
    /// What its environment has beside what an agent gives to each.
    pub(in crate::cluster) environment: Variables,
    pub(in crate::cluster) limits: Limits,
    /// The stack of each thread that runs handlers or tasks.
    pub(in crate::cluster) stack_bytes: usize,
    /// Whose the job is, and who is sent what the workers write.
    pub(in crate::cluster) driver: HostUid,
}

/// Whether a variable of an environment is for no other process: it would let that join the cluster.
pub(in crate::cluster) fn is_secret(variable: &str) -> bool {
    variable.starts_with("ROADSHOW_TOKEN")
}

/// Variables of an environment: names and values.
pub(crate) type Variables = Vec<(OsString, OsString)>;

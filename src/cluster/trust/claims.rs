//! What a certificate says of a process.

use serde::{Deserialize, Serialize};

use crate::cluster::model::{JobId, NodeId};
use crate::id::Identity;
use crate::transport::{Role, host_name, host_name_as};

/// What a process is, for an authority to certify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// What it is.
    pub role: Role,
    /// Its hosts, each in its present life.
    pub hosts: Vec<Identity>,
    /// The job that it works for, if it works for one.
    pub job: Option<JobId>,
    /// The node that it is on, or is the agent of.
    pub node: Option<NodeId>,
}

impl Claims {
    /// The names that a certificate has for them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let Self { role, hosts, job, node } = self;
        let mut names = vec![role.name()];
        names.extend(hosts.iter().flat_map(|host| [host_name(*host), host_name_as(*host, *role)]));
        names.extend(job.map(|job| job_name(job, *role)));
        names.extend(node.map(|node| node_name(node, *role)));
        names
    }
}

/// The name that certificates of a job's processes have.
#[must_use]
pub fn job_name(job: JobId, role: Role) -> String {
    format!("j{job}.{}", role.name())
}

/// The name that certificates of a node's processes have.
#[must_use]
pub fn node_name(node: NodeId, role: Role) -> String {
    format!("n{node}.{}", role.name())
}

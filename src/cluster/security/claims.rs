//! What a certificate says of a process.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cluster::model::{JobId, NodeId};
use crate::config::CERTIFIED_HOSTS_MAX;
use crate::id::{HostId, HostUid};
use crate::transport::{Role, host_name, host_name_as};

/// What a process is, for an authority to certify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// What it is.
    pub role: Role,
    /// Its hosts, each in its present life.
    pub hosts: Vec<HostUid>,
    /// The job that it works for, if it works for one.
    pub job: Option<JobId>,
    /// The node that it is on, or is the agent of.
    pub node: Option<NodeId>,
}

impl Claims {
    /// The names that a certificate has for them.
    #[must_use]
    pub(crate) fn names(&self) -> Vec<String> {
        let Self { role, hosts, job, node } = self;
        let mut names = vec![role.name()];
        names.extend(hosts.iter().flat_map(|host| [host_name(*host), host_name_as(*host, *role)]));
        names.extend(job.map(|job| job_name(job, *role)));
        if job.is_some() && *role == Role::Driver {
            names.push(ONE_JOB.to_owned());
        }
        names.extend(node.map(|node| node_name(node, *role)));
        names
    }

    /// Whether a process that has nothing but the token may claim this of itself.
    ///
    /// # Errors
    ///
    /// [`ClaimsError`] if only the cluster itself makes such processes, or the claims are of no use.
    pub(crate) fn check_claimable(&self) -> Result<(), ClaimsError> {
        if matches!(self.role, Role::Head | Role::Worker) {
            return Err(ClaimsError::Role { role: self.role });
        }
        if self.hosts.iter().any(|host| host.host == HostId::HEAD) {
            return Err(ClaimsError::Head);
        }
        let count = self.hosts.len();
        if count == 0 || count > CERTIFIED_HOSTS_MAX {
            return Err(ClaimsError::Hosts { count });
        }
        Ok(())
    }
}

/// Claims that are not certified.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum ClaimsError {
    /// Nobody becomes that by the token alone.
    #[error("a token lets agents and drivers into the cluster, and no {role}")]
    Role {
        /// What was claimed.
        role: Role,
    },
    /// Somebody else is the head.
    #[error("host {} is the head, and nobody else can be", HostId::HEAD)]
    Head,
    /// A certificate is for some hosts, and not for very many.
    #[error("a certificate was asked for {count} hosts; it is for 1 to {CERTIFIED_HOSTS_MAX}")]
    Hosts {
        /// For how many.
        count: usize,
    },
}

/// The name that the certificate of a driver has that may speak of one job alone.
pub(crate) const ONE_JOB: &str = "one-job.driver.roadshow";

/// The name that certificates of a job's processes have.
#[must_use]
pub(crate) fn job_name(job: JobId, role: Role) -> String {
    format!("j{job}.{}", role.name())
}

/// The name that certificates of a node's processes have.
#[must_use]
pub(crate) fn node_name(node: NodeId, role: Role) -> String {
    format!("n{node}.{}", role.name())
}

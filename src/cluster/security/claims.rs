//! Claims of a process that its certificate attests.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cluster::model::{JobId, NodeId};
use crate::config::CERTIFIED_HOSTS_MAX;
use crate::id::{HostId, HostUid};
use crate::transport::{Role, host_name, host_name_as};

/// Role, hosts, job and node of a process, for the authority to certify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// Role in the cluster.
    pub role: Role,
    /// Hosts of the process, each with its incarnation.
    pub hosts: Vec<HostUid>,
    /// Job that the process works for, if any.
    pub job: Option<JobId>,
    /// Node that the process runs on, or is the agent of.
    pub node: Option<NodeId>,
}

impl Claims {
    /// DNS names that express the claims in a certificate.
    #[must_use]
    pub(crate) fn names(&self) -> Vec<String> {
        let Self { role, hosts, job, node } = self;
        let mut names = vec![role.name()];
        // A dialler knows the host but not its role, an authorization check needs both: hence two names a host.
        names.extend(hosts.iter().flat_map(|host| [host_name(*host), host_name_as(*host, *role)]));
        names.extend(job.map(|job| job_name(job, *role)));
        // Such a driver enrolled through its node's agent, without the token. Without this name it could speak
        // for every job of the cluster.
        if job.is_some() && *role == Role::Driver {
            names.push(ONE_JOB.to_owned());
        }
        names.extend(node.map(|node| node_name(node, *role)));
        names
    }

    /// Checks that a process may claim this with nothing but the token.
    ///
    /// # Errors
    ///
    /// [`ClaimsError`] if the role is one that only the cluster itself assigns, or the hosts are not acceptable.
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

/// Claims that the authority does not certify.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum ClaimsError {
    /// The token does not grant this role.
    #[error("a token lets agents and drivers into the cluster, and no {role}")]
    Role {
        /// Claimed role.
        role: Role,
    },
    /// The host id is reserved for the head.
    #[error("host {} is the head, and a token does not grant that", HostId::HEAD)]
    Head,
    /// The number of hosts is zero or above the limit.
    #[error("a certificate was asked for {count} hosts; it is for 1 to {CERTIFIED_HOSTS_MAX}")]
    Hosts {
        /// Number of claimed hosts.
        count: usize,
    },
}

/// Certificate name that restricts a driver to the one job of its certificate.
pub(crate) const ONE_JOB: &str = "one-job.driver.roadshow";

/// Certificate name of the processes of a job.
#[must_use]
pub(crate) fn job_name(job: JobId, role: Role) -> String {
    format!("j{job}.{}", role.name())
}

/// Certificate name of the processes of a node.
#[must_use]
pub(crate) fn node_name(node: NodeId, role: Role) -> String {
    format!("n{node}.{}", role.name())
}

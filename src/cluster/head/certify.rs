//! Certificates that the head issues: to agents and drivers who enrol, and to the workers of its nodes.

use super::Head;
use crate::cluster::desk::Enrolled;
use crate::cluster::model::{JobId, NodeId};
use crate::cluster::protocol::NodeReply;
use crate::cluster::trust::Claims;
use crate::id::Identity;
use crate::transport::Role;

impl Head {
    /// Certifies an agent or a driver that has shown the token.
    ///
    /// Who has the token may claim any host that is not the head's: a host's life is drawn by its process,
    /// and nobody else can name the one that comes.
    pub(super) fn enrol(&self, csr: &[u8], claims: &Claims) -> Result<Enrolled, String> {
        claims.check_claimable().map_err(|error| error.to_string())?;
        let chain = self.authority.issue(csr, claims).map_err(|error| error.to_string())?;
        Ok(Enrolled { chain, head: self.host.identity(), cluster: self.authority.name() })
    }

    /// Certifies a worker for the agent that starts it.
    pub(super) fn sign_worker(
        &self,
        agent: Identity,
        job: JobId,
        hosts: [Identity; 2],
        request: &[u8],
    ) -> NodeReply {
        if !self.control.read(|state| state.is_member(agent)) {
            return NodeReply::Unknown;
        }
        let node = Some(NodeId(agent.host.0));
        let claims = Claims { role: Role::Worker, hosts: hosts.to_vec(), job: Some(job), node };
        match self.authority.issue(request, &claims) {
            Ok(chain) => NodeReply::Signed { chain },
            Err(error) => NodeReply::Failed { text: error.to_string() },
        }
    }
}

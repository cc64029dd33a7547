//! Certificates that the head issues: to agents and drivers who enrol, and to the workers of its nodes.

use super::Head;
use crate::cluster::model::{JobId, NodeId};
use crate::cluster::protocol::NodeReply;
use crate::cluster::trust::Claims;
use crate::id::Identity;
use crate::transport::Role;

impl Head {
    /// Certifies a worker for the agent that starts it.
    pub(super) fn sign_worker(
        &self,
        agent: Identity,
        job: JobId,
        hosts: [Identity; 2],
        request: &[u8],
    ) -> NodeReply {
        if !self.control.read(|state| state.is_alive(agent)) {
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

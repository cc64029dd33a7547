//! Certificates of a node's processes: requested from the head, and renewed before they expire.

use std::sync::Arc;

use super::{Agent, join};
use crate::cluster::model::JobId;
use crate::cluster::protocol::{NODE, NodeReply, NodeRequest};
use crate::cluster::security::CertificateRequest;
use crate::cluster::security::enrol::Renewal;
use crate::config::HEAD_RPC_TIMEOUT;
use crate::host::deadline_in;
use crate::id::HostUid;
use crate::remote::call_host;
use crate::transport::Credentials;

impl Agent {
    /// Has the head certify a worker.
    pub(super) async fn sign(&self, job: JobId, hosts: [HostUid; 2]) -> Result<Credentials, String> {
        // The key is created here and goes to the worker; the head sees only the request.
        let request = CertificateRequest::new().map_err(|error| error.to_string())?;
        let head = self.head().ok_or("the head is not known")?;
        let asked = NodeRequest::SignCertificate {
            node: self.host.identity(),
            job,
            hosts,
            request: request.csr().to_vec(),
        };
        let reply = call_host(&self.host, head, NODE, asked, deadline_in(HEAD_RPC_TIMEOUT)).await;
        match reply.map_err(|error| format!("the head did not certify the worker: {error}"))? {
            NodeReply::Signed { chain } => request.credentials(chain).map_err(|error| error.to_string()),
            NodeReply::Failed { text } => Err(format!("the head did not certify the worker: {text}")),
            other => Err(format!("the head did not certify the worker: unexpected reply {other:?}")),
        }
    }
}

/// Renews the certificates of the agent and its workers, long before they expire.
pub(super) async fn renew_loop(agent: Arc<Agent>) {
    loop {
        // One timer for all: the workers' certificates are younger than the agent's.
        agent.credentials.wait_for_renewal().await;
        if let Err(error) = join::find_head(&agent, Renewal::Due).await {
            // The next turn comes long before the certificate expires.
            tracing::warn!(%error, "cannot renew this node's certificate, retrying");
        }
        for (job, hosts, control_socket) in agent.workers.certificate_holders() {
            match agent.sign(job, hosts).await {
                Ok(credentials) => {
                    // A suspended worker does not read its socket, and must not delay the others.
                    let renewed = tokio::time::timeout(HEAD_RPC_TIMEOUT, control_socket.renew(&credentials));
                    if !matches!(renewed.await, Ok(Ok(()))) {
                        tracing::debug!(%job, "a worker did not accept its new certificate");
                    }
                }
                Err(error) => tracing::warn!(error, "cannot renew a worker's certificate, retrying"),
            }
        }
    }
}

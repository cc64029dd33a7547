//! Enrolment of a submitted driver that runs as another user than its agent, and therefore has no token.
//!
//! The driver connects to a socket that only its user can open. The agent accepts requests only from the driver's own
//! process, and has the head certify the driver for its job.

use std::convert::Infallible;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::Agent;
use super::accounts::Account;
use crate::cluster::model::JobId;
use crate::cluster::protocol::worker;
use crate::cluster::protocol::{NODE, NodeReply, NodeRequest};
use crate::cluster::security::enrol::{EnrolReply, EnrolRequest};
use crate::config::{ACCEPT_BACKOFF, HEAD_RPC_TIMEOUT};
use crate::host::deadline_in;
use crate::remote::call_host;

/// Socket through which a driver enrols.
#[derive(Debug)]
pub(super) struct EnrolmentSocket {
    listener: UnixListener,
    uid: u32,
}

impl EnrolmentSocket {
    /// Listens for the driver of a job. Call it within a runtime.
    pub(super) fn listen(account: &Account) -> Result<Self, String> {
        let uid = account.user().uid;
        let listen = || {
            let path = account.socket();
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&path)?;
            // The group before the mode: in the other order the agent's group could connect for a moment.
            chown(&path, None, Some(account.user().gid))?;
            std::fs::set_permissions(&path, Permissions::from_mode(0o660))?;
            Ok(Self { listener, uid })
        };
        listen().map_err(|error| format!("cannot create the socket through which the driver enrols: {error}"))
    }
}

/// Serves the driver with this process id, one request after the other, until the future is dropped.
pub(super) async fn serve(
    agent: &Agent,
    job: JobId,
    pid: Option<u32>,
    socket: Option<EnrolmentSocket>,
) -> Infallible {
    let (Some(EnrolmentSocket { listener, uid }), Some(pid)) = (socket, pid) else {
        return std::future::pending().await;
    };
    loop {
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                tracing::warn!(%job, %error, "cannot accept the driver");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let peer = connection.peer_cred();
        // Processes of one user share the socket, but a certificate is for one process: the pid of the peer decides.
        if !peer.is_ok_and(|peer| {
            peer.uid() == uid && peer.pid().and_then(|pid| pid.try_into().ok()) == Some(pid)
        }) {
            tracing::warn!(%job, "rejected an enrolment by a process that is not the driver");
            continue;
        }
        // A driver that does not send or does not read is abandoned.
        if let Ok(Err(error)) = timeout(2 * HEAD_RPC_TIMEOUT, answer(agent, job, connection)).await {
            tracing::debug!(%job, %error, "cannot answer the driver");
        }
    }
}

async fn answer(agent: &Agent, job: JobId, mut connection: UnixStream) -> io::Result<()> {
    let mut length = [0; 4];
    connection.read_exact(&mut length).await?;
    // The length comes from user code, so it is bounded before it is allocated.
    let mut body = vec![0; worker::validate_length(length)?];
    connection.read_exact(&mut body).await?;
    let request: EnrolRequest = worker::decode(&body)?;
    let reply = agent.sign_driver(job, request).await;
    let reply = reply.unwrap_or_else(|text| EnrolReply::Failed { text });
    connection.write_all(&worker::encode(&reply)?).await
}

impl Agent {
    /// Has the head certify the driver of a job.
    async fn sign_driver(&self, job: JobId, request: EnrolRequest) -> Result<EnrolReply, String> {
        let head = self.head().ok_or("the head is not known")?;
        let EnrolRequest { hosts, csr } = request;
        let asked = NodeRequest::SignDriver { node: self.host.identity(), job, hosts, request: csr };
        let reply = call_host(&self.host, head, NODE, asked, deadline_in(HEAD_RPC_TIMEOUT)).await;
        match reply.map_err(|error| format!("the head did not certify the driver: {error}"))? {
            NodeReply::Signed { chain } => {
                let secret = *self.token.session_secret().as_bytes();
                Ok(EnrolReply::Enrolled { chain, head, head_at: self.head_at(), secret })
            }
            NodeReply::Failed { text } => Err(format!("the head did not certify the driver: {text}")),
            NodeReply::Unknown => {
                Err("the head has restarted, and this node has not rejoined yet".to_owned())
            }
            other => Err(format!("the head did not certify the driver: unexpected reply {other:?}")),
        }
    }
}

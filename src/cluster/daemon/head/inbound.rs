//! Receives the connections that the agent of the head's node hands off.

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::Head;
use crate::cluster::control_plane::state::ControlEvent;
use crate::cluster::daemon::handoff::{self, TOKEN_RPC};
use crate::cluster::launch::control_socket::ControlSocket;
use crate::id::HostId;

/// Longest pause between two attempts to connect to the agent.
const CONNECT_PAUSE_MAX: Duration = Duration::from_millis(100);

/// Queues for the connections that the agent hands off.
#[derive(Debug)]
pub(super) struct InboundConnections {
    pub(super) head: Weak<Head>,
    pub(super) host_queue: mpsc::Sender<TcpStream>,
    pub(super) token_rpc_queue: mpsc::Sender<TcpStream>,
}

impl InboundConnections {
    /// Connects to the agent, reconnects whenever the socket closes, and receives its connections.
    pub(super) async fn receive_loop(self, path: PathBuf) {
        let mut delay = Duration::from_millis(1);
        loop {
            match self.receive_connections(&path).await {
                Ok(()) => delay = Duration::from_millis(1),
                Err(error) => {
                    tracing::debug!(%error, path = %path.display(), "cannot connect to the agent's socket")
                }
            }
            tokio::time::sleep(delay).await;
            // Short at first: the agent listens moments after the head is ready.
            delay = (2 * delay).min(CONNECT_PAUSE_MAX);
        }
    }

    /// Receives connections until the agent closes the socket. An error means that the agent is not there.
    ///
    /// Only the user of this head can write to the socket. The agent names itself first, so the state knows which
    /// node is the head's own.
    async fn receive_connections(&self, path: &Path) -> io::Result<()> {
        let mut socket = UnixStream::connect(path).await?;
        let agent = handoff::read_identity(&mut socket).await?;
        if let Some(head) = self.head.upgrade() {
            head.control.apply(ControlEvent::OwnAgent { agent });
        }
        let socket = ControlSocket::new(socket);
        loop {
            match socket.receive_connection().await {
                Ok((_, None)) => {
                    tracing::warn!(
                        "too many open files: a connection was lost; raise the limit of open files"
                    )
                }
                // A full queue closes the connection instead of blocking this loop, and its dialler retries.
                Ok((HostId::HEAD, Some(connection))) => drop(self.host_queue.try_send(connection)),
                Ok((TOKEN_RPC, Some(connection))) => drop(self.token_rpc_queue.try_send(connection)),
                Ok((host, Some(_))) => {
                    tracing::warn!(%host, "closed a connection for a host that does not run here")
                }
                Err(_) => return Ok(()),
            }
        }
    }
}

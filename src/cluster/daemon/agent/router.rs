//! Routes the accepted connections of a node to the agent, a worker or the head.

use std::net::TcpStream;
use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Agent;
use super::acceptor::ConnectionRouter;
use crate::cluster::daemon::handoff::{HandoffError, HeadConnections, HeadSocket, TOKEN_RPC, pass};
use crate::id::HostId;
use crate::transport::Route;

/// Router of a node: its agent, its workers, and the head if that runs on this node.
#[derive(Debug)]
pub(super) struct NodeRouter {
    own: HostId,
    agent_queue: mpsc::Sender<TcpStream>,
    head: Option<HeadSocket>,
    agent: OnceLock<Weak<Agent>>,
    token_rpc_queue: mpsc::Sender<TcpStream>,
    closing: CancellationToken,
}

impl NodeRouter {
    /// Creates the router with the queues of the agent's own host and of its token RPC server.
    pub(super) fn new(
        own: HostId,
        agent_queue: mpsc::Sender<TcpStream>,
        token_rpc_queue: mpsc::Sender<TcpStream>,
        head: Option<HeadSocket>,
    ) -> Self {
        Self {
            own,
            agent_queue,
            token_rpc_queue,
            head,
            agent: OnceLock::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Sets the agent, whose workers can be reached from now on.
    ///
    /// The acceptor must run before the agent exists: the agent enrols first, and a head on the same node is
    /// reached through the acceptor. Until then connections for workers are closed.
    pub(super) fn serve(&self, agent: &Arc<Agent>) {
        let _ = self.agent.set(Arc::downgrade(agent));
    }

    /// Returns the token that is cancelled when the acceptor must stop.
    pub(super) fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Subscribes to the heads that connect from now on.
    pub(super) fn heads(&self) -> HeadConnections {
        self.head.as_ref().map_or_else(HeadConnections::none, HeadSocket::heads)
    }

    pub(super) fn close(&self) {
        self.closing.cancel();
    }
}

impl ConnectionRouter for NodeRouter {
    fn route(&self, route: Route, connection: TcpStream) -> Result<(), HandoffError> {
        // `try_send`: waiting for a full queue would delay the connections of all other processes.
        let admitted = match route {
            Route::Host(host) if host == self.own => self.agent_queue.try_send(connection),
            Route::AgentTokenRpc => self.token_rpc_queue.try_send(connection),
            Route::HeadTokenRpc => return self.to_head(TOKEN_RPC, connection),
            Route::Host(HostId::HEAD) => return self.to_head(HostId::HEAD, connection),
            Route::Host(host) => {
                let agent = self.agent.get().and_then(Weak::upgrade);
                let control_socket =
                    agent.and_then(|agent| agent.workers.route_to(host)).ok_or(HandoffError::Unknown)?;
                return pass(control_socket, host, connection);
            }
        };
        admitted.map_err(|_| HandoffError::Full)
    }
}

impl NodeRouter {
    fn to_head(&self, host: HostId, connection: TcpStream) -> Result<(), HandoffError> {
        self.head.as_ref().ok_or(HandoffError::Unknown)?.pass(host, connection)
    }
}

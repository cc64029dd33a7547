//! To whom of a node the door leads.

use std::net::TcpStream;
use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Agent;
use super::acceptor::ConnectionRouter;
use crate::cluster::daemon::handoff::{HandoffError, HeadConnections, HeadSocket, TOKEN_RPC, pass};
use crate::id::HostId;
use crate::transport::Route;

/// The agent, its workers, and the head if it is on this node.
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
    /// The rooms, with doors to the agent's own host and its desk.
    pub(super) fn new(
        own: HostId,
        agent_queue: mpsc::Sender<TcpStream>,
        desk: mpsc::Sender<TcpStream>,
        head: Option<HeadSocket>,
    ) -> Self {
        Self {
            own,
            agent_queue,
            token_rpc_queue: desk,
            head,
            agent: OnceLock::new(),
            closing: CancellationToken::new(),
        }
    }

    /// From now on there are workers.
    pub(super) fn serve(&self, agent: &Arc<Agent>) {
        // It was not set before.
        let _ = self.agent.set(Arc::downgrade(agent));
    }

    /// Is cancelled when the door is to close.
    pub(super) fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// The heads that come from now on.
    pub(super) fn heads(&self) -> HeadConnections {
        self.head.as_ref().map_or_else(HeadConnections::none, HeadSocket::heads)
    }

    pub(super) fn close(&self) {
        self.closing.cancel();
    }
}

impl ConnectionRouter for NodeRouter {
    fn route(&self, route: Route, connection: TcpStream) -> Result<(), HandoffError> {
        let admitted = match route {
            Route::Host(host) if host == self.own => self.agent_queue.try_send(connection),
            Route::AgentTokenRpc => self.token_rpc_queue.try_send(connection),
            Route::HeadTokenRpc => return self.to_head(TOKEN_RPC, connection),
            Route::Host(HostId::HEAD) => return self.to_head(HostId::HEAD, connection),
            Route::Host(host) => {
                let agent = self.agent.get().and_then(Weak::upgrade);
                let lifeline =
                    agent.and_then(|agent| agent.workers.route_to(host)).ok_or(HandoffError::Unknown)?;
                return pass(lifeline, host, connection);
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

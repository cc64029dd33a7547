//! To whom of a node the door leads.

use std::io;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Agent;
use crate::cluster::door::{ConnectionRouter, HandoffError};
use crate::cluster::process::ControlSocket;
use crate::config::{ACCEPT_BACKOFF, HANDOFF_TIMEOUT};
use crate::id::{HostId, HostUid};
use crate::transport::Route;

/// What stands for the head's desk where a connection is passed to the head's process.
pub(in crate::cluster) const TOKEN_RPC: HostId = HostId(0);

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
        self.head.as_ref().map_or(HeadConnections(None), HeadSocket::heads)
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

/// Passes a connection on. Where that fails, whoever dialled sees it end, and tries again.
fn pass(lifeline: Arc<ControlSocket>, host: HostId, connection: TcpStream) -> Result<(), HandoffError> {
    let place = lifeline.reserve_handoff().ok_or(HandoffError::Full)?;
    tokio::spawn(async move {
        match timeout(HANDOFF_TIMEOUT, lifeline.send_connection(host, &connection)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%host, %error, "a connection could not be passed on"),
            Err(_) => {
                tracing::warn!(%host, "a connection was closed: its process takes none; is it stopped?")
            }
        }
        drop(place);
    });
    Ok(())
}

/// The head's process, on the other end of a socket in the session's directory.
///
/// The latest that has connected is the head; there is none until one has.
#[derive(Debug)]
pub(super) struct HeadSocket(watch::Receiver<Option<Arc<ControlSocket>>>);

impl HeadSocket {
    /// Listens for the head, and names this agent to it. The socket is this user's alone.
    pub(super) fn listen(path: &Path, own: HostUid) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let (room, head) = watch::channel(None);
        tokio::spawn(accept(listener, own, room));
        Ok(Self(head))
    }

    /// Waits until the head is there.
    pub(super) fn wait_connected(&self) -> impl Future<Output = ()> + use<> {
        let mut head = self.0.clone();
        async move {
            // Nobody comes any more when the listener has failed; then the head is not found.
            let _ = head.wait_for(Option::is_some).await;
        }
    }

    fn heads(&self) -> HeadConnections {
        let mut heads = self.0.clone();
        heads.mark_unchanged();
        HeadConnections(Some(heads))
    }

    fn pass(&self, host: HostId, connection: TcpStream) -> Result<(), HandoffError> {
        let head = self.0.borrow().clone();
        pass(head.ok_or(HandoffError::Unknown)?, host, connection)
    }
}

/// The heads that come to this node, one after the other.
#[derive(Debug)]
pub(super) struct HeadConnections(Option<watch::Receiver<Option<Arc<ControlSocket>>>>);

impl HeadConnections {
    /// Waits until another one has come; for ever on a node without a head.
    pub(super) async fn next(&mut self) {
        if let Some(heads) = &mut self.0
            && heads.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

async fn accept(listener: UnixListener, own: HostUid, room: watch::Sender<Option<Arc<ControlSocket>>>) {
    loop {
        let mut socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "cannot accept the head");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        if is_of_this_user(&socket) && name_itself(&mut socket, own).await.is_ok() {
            room.send_replace(Some(Arc::new(ControlSocket::new(socket))));
        }
    }
}

/// Writes host and incarnation. They fit the empty buffer of the socket, so nothing waits.
async fn name_itself(socket: &mut UnixStream, own: HostUid) -> io::Result<()> {
    socket.write_u64(own.host.0).await?;
    socket.write_u64(own.incarnation.0).await
}

fn is_of_this_user(socket: &UnixStream) -> bool {
    let own = rustix::process::getuid().as_raw();
    socket.peer_cred().is_ok_and(|peer| peer.uid() == own)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream as StdUnixStream;

    use super::*;
    use crate::cluster::passing;
    use crate::config::HANDOFF_QUEUE_MAX;

    const HOST: HostId = HostId(7);

    /// A process at the other end of a lifeline.
    fn process() -> (Arc<ControlSocket>, StdUnixStream) {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Arc::new(ControlSocket::new(UnixStream::from_std(ours).unwrap())), theirs)
    }

    /// What it finds, once it looks: how many connections.
    fn taken(process: &StdUnixStream) -> usize {
        let mut count = 0;
        loop {
            let mut byte = [0];
            match passing::receive(process, &mut byte) {
                Ok((1, Some(_))) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return count,
                other => panic!("{other:?}"),
            }
            let mut host = [0; 8];
            assert_eq!((byte, io::Read::read(&mut &*process, &mut host).unwrap()), ([b'c'], 8));
            assert_eq!(u64::from_be_bytes(host), HOST.0);
            count += 1;
        }
    }

    /// Passes connections on until there is no room for more.
    async fn fill(lifeline: &Arc<ControlSocket>, connection: &TcpStream) -> usize {
        for count in 0..1000 {
            let pass = || pass(Arc::clone(lifeline), HOST, connection.try_clone().unwrap());
            if pass().is_err() {
                // Those that wait may only have had no turn yet.
                tokio::time::sleep(HANDOFF_TIMEOUT / 100).await;
                if pass().is_err() {
                    return count;
                }
            }
        }
        panic!("there is no end to what waits");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_stopped_process_does_not_take_is_closed_and_holds_up_nobody_else() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stopped, there) = process();
        let on_their_way = fill(&stopped, &connection).await - HANDOFF_QUEUE_MAX;
        assert!((1..2 * HANDOFF_QUEUE_MAX).contains(&on_their_way), "{on_their_way} are on their way");
        assert_eq!(
            pass(Arc::clone(&stopped), HOST, connection.try_clone().unwrap()),
            Err(HandoffError::Full)
        );

        let (other, runs) = process();
        pass(Arc::clone(&other), HOST, connection.try_clone().unwrap()).unwrap();
        while taken(&runs) == 0 {
            tokio::task::yield_now().await;
        }

        // Those that wait are closed in time, and make room for others.
        tokio::time::sleep(HANDOFF_TIMEOUT * 2).await;
        assert_eq!(fill(&stopped, &connection).await, HANDOFF_QUEUE_MAX);
        tokio::time::sleep(HANDOFF_TIMEOUT * 2).await;
        // When it goes on it finds those that were on their way, and what comes from then on.
        assert_eq!(taken(&there), on_their_way);
        pass(Arc::clone(&stopped), HOST, connection).unwrap();
        while taken(&there) == 0 {
            tokio::task::yield_now().await;
        }
    }
}

//! Connections that the agent of the head's node hands over to the head, through a unix socket.
//!
//! The socket is in the session's directory and belongs to the agent's user. The agent writes its identity
//! first; then each connection follows with the host that it is for. A connection that cannot be handed over
//! is closed: the peer that dialled it sees the end, and dials again.

use std::io;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cluster::launch::control_socket::ControlSocket;
use crate::config::{ACCEPT_BACKOFF, HANDOFF_TIMEOUT};
use crate::id::{HostId, HostUid, Incarnation};
/// Stands for the head's token RPC server where a connection is handed over.
pub(super) const TOKEN_RPC: HostId = HostId(0);

/// Nobody takes a connection.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum HandoffError {
    /// There is no such host or desk on the node.
    #[error("it is not on this node, or has ended")]
    Unknown,
    /// Too many wait there.
    #[error("too many connections wait for it")]
    Full,
}

/// Passes a connection on. Where that fails, whoever dialled sees it end, and tries again.
pub(super) fn pass(
    lifeline: Arc<ControlSocket>,
    host: HostId,
    connection: TcpStream,
) -> Result<(), HandoffError> {
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

    pub(super) fn heads(&self) -> HeadConnections {
        let mut heads = self.0.clone();
        heads.mark_unchanged();
        HeadConnections(Some(heads))
    }

    pub(super) fn pass(&self, host: HostId, connection: TcpStream) -> Result<(), HandoffError> {
        let head = self.0.borrow().clone();
        pass(head.ok_or(HandoffError::Unknown)?, host, connection)
    }
}

/// The heads that come to this node, one after the other.
#[derive(Debug)]
pub(super) struct HeadConnections(Option<watch::Receiver<Option<Arc<ControlSocket>>>>);

impl HeadConnections {
    /// On a node without a head: none ever connects.
    pub(super) fn none() -> Self {
        Self(None)
    }

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
        if is_of_this_user(&socket) && write_identity(&mut socket, own).await.is_ok() {
            room.send_replace(Some(Arc::new(ControlSocket::new(socket))));
        }
    }
}

/// Writes host and incarnation. They fit the empty buffer of the socket, so nothing waits.
async fn write_identity(socket: &mut UnixStream, own: HostUid) -> io::Result<()> {
    socket.write_u64(own.host.0).await?;
    socket.write_u64(own.incarnation.0).await
}

fn is_of_this_user(socket: &UnixStream) -> bool {
    let own = rustix::process::getuid().as_raw();
    socket.peer_cred().is_ok_and(|peer| peer.uid() == own)
}

/// The first bytes on the socket: host and incarnation of the agent.
pub(super) async fn read_identity(socket: &mut UnixStream) -> io::Result<HostUid> {
    let host = HostId(socket.read_u64().await?);
    Ok(HostUid { host, incarnation: Incarnation(socket.read_u64().await?) })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream as StdUnixStream;

    use super::*;
    use crate::cluster::launch::fd_passing;
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
            match fd_passing::receive(process, &mut byte) {
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

//! Handoff of connections: the agent accepts them, and passes each over a unix socket to a worker or the head.
//!
//! The socket to the head is in the session directory and belongs to the agent's user. The agent first writes its
//! identity, then one message a connection: its file descriptor (SCM_RIGHTS) and the host that it is for. A
//! connection that cannot be handed off is closed: its dialler sees the end and dials again.

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

/// Destination id of the head's token RPC server, which is not a host. No host has the id 0.
pub(super) const TOKEN_RPC: HostId = HostId(0);

/// Reason that a connection cannot be handed off.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum HandoffError {
    /// No such host or server runs on the node.
    #[error("its process does not run on this node, or has ended")]
    Unknown,
    /// The queue of the destination is full.
    #[error("too many connections wait for its process")]
    Full,
}

/// Hands a connection off in the background. On failure it is closed, and its dialler retries.
pub(super) fn pass(
    control_socket: Arc<ControlSocket>,
    host: HostId,
    connection: TcpStream,
) -> Result<(), HandoffError> {
    let slot = control_socket.reserve_handoff().ok_or(HandoffError::Full)?;
    // In a task: a suspended process does not read its socket, and must not block the acceptor.
    tokio::spawn(async move {
        match timeout(HANDOFF_TIMEOUT, control_socket.send_connection(host, &connection)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%host, %error, "cannot hand off a connection"),
            Err(_) => {
                tracing::warn!(%host, "closed a connection: its process takes none; is it stopped?")
            }
        }
        drop(slot);
    });
    Ok(())
}

/// Connection to the head's process, over a socket in the session directory.
///
/// The process that connected last is the head. Before the first connection there is no head.
#[derive(Debug)]
pub(super) struct HeadSocket(watch::Receiver<Option<Arc<ControlSocket>>>);

impl HeadSocket {
    /// Listens for the head, and sends this agent's identity to it. Only the agent's user can connect.
    pub(super) fn listen(path: &Path, own: HostUid) -> io::Result<Self> {
        // The socket file of a killed agent would make `bind` fail.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let (connected, head) = watch::channel(None);
        tokio::spawn(accept(listener, own, connected));
        Ok(Self(head))
    }

    /// Waits until the head has connected.
    pub(super) fn wait_connected(&self) -> impl Future<Output = ()> + use<> {
        let mut head = self.0.clone();
        async move {
            // The channel closes if the listener's task ends. The caller's attempt to enrol then reports that no
            // head is there.
            let _ = head.wait_for(Option::is_some).await;
        }
    }

    pub(super) fn heads(&self) -> HeadConnections {
        let mut heads = self.0.clone();
        // The head that is connected now is not a new one.
        heads.mark_unchanged();
        HeadConnections(Some(heads))
    }

    pub(super) fn pass(&self, host: HostId, connection: TcpStream) -> Result<(), HandoffError> {
        let head = self.0.borrow().clone();
        pass(head.ok_or(HandoffError::Unknown)?, host, connection)
    }
}

/// Successive connections of heads on this node: a new one means that the head has restarted.
#[derive(Debug)]
pub(super) struct HeadConnections(Option<watch::Receiver<Option<Arc<ControlSocket>>>>);

impl HeadConnections {
    /// Creates the value for a node without a head, which never yields.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Waits until another head connects. On a node without a head it waits for ever.
    pub(super) async fn next(&mut self) {
        if let Some(heads) = &mut self.0
            && heads.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

async fn accept(listener: UnixListener, own: HostUid, connected: watch::Sender<Option<Arc<ControlSocket>>>) {
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
            connected.send_replace(Some(Arc::new(ControlSocket::new(socket))));
        }
    }
}

/// Writes host and incarnation, 16 bytes that fit into the empty buffer of the socket: the write never blocks.
async fn write_identity(socket: &mut UnixStream, own: HostUid) -> io::Result<()> {
    socket.write_u64(own.host.0).await?;
    socket.write_u64(own.incarnation.0).await
}

// The mode of the socket file keeps other users out, except root and except in the moment between `bind` and
// `set_permissions`.
fn is_of_this_user(socket: &UnixStream) -> bool {
    let own = rustix::process::getuid().as_raw();
    socket.peer_cred().is_ok_and(|peer| peer.uid() == own)
}

/// Reads host and incarnation of the agent, the first bytes on the socket.
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

    /// Control socket, and the process end of it.
    fn process() -> (Arc<ControlSocket>, StdUnixStream) {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Arc::new(ControlSocket::new(UnixStream::from_std(ours).unwrap())), theirs)
    }

    /// Receives all connections that are ready, and returns their number.
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

    /// Hands off connections until the queue is full, and returns their number.
    async fn fill(control_socket: &Arc<ControlSocket>, connection: &TcpStream) -> usize {
        for count in 0..1000 {
            let pass = || pass(Arc::clone(control_socket), HOST, connection.try_clone().unwrap());
            if pass().is_err() {
                // A task that was spawned a moment ago may not have run yet.
                tokio::time::sleep(HANDOFF_TIMEOUT / 100).await;
                if pass().is_err() {
                    return count;
                }
            }
        }
        panic!("the queue is unbounded");
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_a_stopped_process_does_not_take_are_closed_and_block_no_other() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stopped, there) = process();
        let in_flight = fill(&stopped, &connection).await - HANDOFF_QUEUE_MAX;
        assert!((1..2 * HANDOFF_QUEUE_MAX).contains(&in_flight), "{in_flight} are in flight");
        assert_eq!(
            pass(Arc::clone(&stopped), HOST, connection.try_clone().unwrap()),
            Err(HandoffError::Full)
        );

        let (other, runs) = process();
        pass(Arc::clone(&other), HOST, connection.try_clone().unwrap()).unwrap();
        while taken(&runs) == 0 {
            tokio::task::yield_now().await;
        }

        // Queued connections are closed after the timeout, and free their slots.
        tokio::time::sleep(HANDOFF_TIMEOUT * 2).await;
        assert_eq!(fill(&stopped, &connection).await, HANDOFF_QUEUE_MAX);
        tokio::time::sleep(HANDOFF_TIMEOUT * 2).await;
        // A process that continues finds the connections in its socket's buffer, and later ones.
        assert_eq!(taken(&there), in_flight);
        pass(Arc::clone(&stopped), HOST, connection).unwrap();
        while taken(&there) == 0 {
            tokio::task::yield_now().await;
        }
    }
}

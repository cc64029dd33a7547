//! To whom of a node the door leads.

use std::io;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Agent;
use crate::cluster::door::{NoRoom, Rooms};
use crate::cluster::process::Lifeline;
use crate::config::ACCEPT_PAUSE;
use crate::id::HostId;
use crate::transport::Route;

/// What stands for the head's desk where a connection is passed to the head's process.
pub(in crate::cluster) const DESK: HostId = HostId(0);

/// The agent, its workers, and the head if it is on this node.
#[derive(Debug)]
pub(super) struct NodeRooms {
    own: HostId,
    own_door: mpsc::Sender<TcpStream>,
    head: Option<HeadRoom>,
    agent: OnceLock<Weak<Agent>>,
    desk: mpsc::Sender<TcpStream>,
    closing: CancellationToken,
}

impl NodeRooms {
    /// The rooms, with doors to the agent's own host and its desk.
    pub(super) fn new(
        own: HostId,
        own_door: mpsc::Sender<TcpStream>,
        desk: mpsc::Sender<TcpStream>,
        head: Option<HeadRoom>,
    ) -> Self {
        Self { own, own_door, desk, head, agent: OnceLock::new(), closing: CancellationToken::new() }
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

    pub(super) fn close(&self) {
        self.closing.cancel();
    }
}

impl Rooms for NodeRooms {
    fn admit(&self, route: Route, connection: TcpStream) -> Result<(), NoRoom> {
        let admitted = match route {
            Route::Host(host) if host == self.own => self.own_door.try_send(connection),
            Route::AgentDesk => self.desk.try_send(connection),
            Route::HeadDesk => return self.to_head(DESK, connection),
            Route::Host(HostId::HEAD) => return self.to_head(HostId::HEAD, connection),
            Route::Host(host) => {
                let agent = self.agent.get().and_then(Weak::upgrade);
                let lifeline = agent.and_then(|agent| agent.workers.door_of(host)).ok_or(NoRoom::Unknown)?;
                pass(lifeline, host, connection);
                return Ok(());
            }
        };
        admitted.map_err(|_| NoRoom::Full)
    }
}

impl NodeRooms {
    fn to_head(&self, host: HostId, connection: TcpStream) -> Result<(), NoRoom> {
        let head = self.head.as_ref().ok_or(NoRoom::Unknown)?;
        if head.pass(host, connection) { Ok(()) } else { Err(NoRoom::Unknown) }
    }
}

/// Passes a connection on. Where that fails, whoever dialled sees it end, and tries again.
fn pass(lifeline: Arc<Lifeline>, host: HostId, connection: TcpStream) {
    tokio::spawn(async move {
        if let Err(error) = lifeline.pass(host, &connection).await {
            tracing::debug!(%host, %error, "a connection could not be passed on");
        }
    });
}

/// The head's process, on the other end of a socket in the session's directory.
///
/// The latest that has connected is the head; there is none until one has.
#[derive(Debug)]
pub(super) struct HeadRoom(watch::Receiver<Option<Arc<Lifeline>>>);

impl HeadRoom {
    /// Listens for the head. The socket is this user's alone.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let (room, head) = watch::channel(None);
        tokio::spawn(accept(listener, room));
        Ok(Self(head))
    }

    /// Waits until the head is there.
    pub(super) fn occupied(&self) -> impl Future<Output = ()> + use<> {
        let mut head = self.0.clone();
        async move {
            // Nobody comes any more when the listener has failed; then the head is not found.
            let _ = head.wait_for(Option::is_some).await;
        }
    }

    fn pass(&self, host: HostId, connection: TcpStream) -> bool {
        let head = self.0.borrow().clone();
        let Some(head) = head else { return false };
        pass(head, host, connection);
        true
    }
}

async fn accept(listener: UnixListener, room: watch::Sender<Option<Arc<Lifeline>>>) {
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "cannot accept the head");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if is_of_this_user(&socket) {
            room.send_replace(Some(Arc::new(Lifeline::new(socket))));
        }
    }
}

fn is_of_this_user(socket: &UnixStream) -> bool {
    let own = rustix::process::getuid().as_raw();
    socket.peer_cred().is_ok_and(|peer| peer.uid() == own)
}

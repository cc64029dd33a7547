//! The head's end of the socket over which its node's agent passes it connections.

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::Head;
use crate::cluster::control_plane::state::Event;
use crate::cluster::daemon::handoff::{self, TOKEN_RPC};
use crate::cluster::launch::control_socket::ControlSocket;
use crate::id::HostId;

/// Longest pause between two attempts to connect to the agent.
const CONNECT_PAUSE_MAX: Duration = Duration::from_millis(100);

/// Destinations of the connections that the agent passes.
#[derive(Debug)]
pub(super) struct Doorway {
    pub(super) head: Weak<Head>,
    pub(super) door: mpsc::Sender<TcpStream>,
    pub(super) desk: mpsc::Sender<TcpStream>,
}

impl Doorway {
    /// Connects to the agent, and again after each end of the socket; takes what it passes.
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
            delay = (2 * delay).min(CONNECT_PAUSE_MAX);
        }
    }

    /// Takes connections until the agent is gone. An error is that it was not there.
    ///
    /// The socket is the user's alone, and the agent first names itself on it: its node is the head's own.
    async fn receive_connections(&self, path: &Path) -> io::Result<()> {
        let mut socket = UnixStream::connect(path).await?;
        let agent = handoff::read_identity(&mut socket).await?;
        if let Some(head) = self.head.upgrade() {
            head.control.apply(Event::OwnAgent { agent });
        }
        let (agent, door, desk) = (ControlSocket::new(socket), &self.door, &self.desk);
        loop {
            match agent.receive_connection().await {
                Ok((_, None)) => {
                    tracing::warn!("too many files are open: a connection was lost; raise the limit")
                }
                // Where there is no room it is closed, and whoever dialled tries again.
                Ok((HostId::HEAD, Some(connection))) => drop(door.try_send(connection)),
                Ok((TOKEN_RPC, Some(connection))) => drop(desk.try_send(connection)),
                Ok((host, Some(_))) => {
                    tracing::warn!(%host, "a connection was passed on that is for nobody here")
                }
                Err(_) => return Ok(()),
            }
        }
    }
}

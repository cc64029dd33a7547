//! The head's end of the socket over which its node's agent passes it connections.

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::cluster::agent::DESK;
use crate::cluster::process::Lifeline;
use crate::config::REJOIN_DELAY_MAX;
use crate::id::HostId;

/// Connects to the agent, and again whenever that was gone; takes what it passes.
pub(super) async fn keep_open(path: PathBuf, door: mpsc::Sender<TcpStream>, desk: mpsc::Sender<TcpStream>) {
    let mut delay = Duration::from_millis(1);
    loop {
        match take_all(&path, &door, &desk).await {
            Ok(()) => delay = Duration::from_millis(1),
            Err(error) => tracing::debug!(%error, path = %path.display(), "the agent's socket is not there"),
        }
        tokio::time::sleep(delay).await;
        delay = (2 * delay).min(REJOIN_DELAY_MAX);
    }
}

/// Takes connections until the agent is gone. An error is that it was not there.
async fn take_all(
    path: &Path,
    door: &mpsc::Sender<TcpStream>,
    desk: &mpsc::Sender<TcpStream>,
) -> io::Result<()> {
    let agent = Lifeline::new(UnixStream::connect(path).await?);
    loop {
        match agent.passed().await {
            Ok((_, None)) => {
                tracing::warn!("too many files are open: a connection was lost; raise the limit")
            }
            // Where there is no room it is closed, and whoever dialled tries again.
            Ok((HostId::HEAD, Some(connection))) => drop(door.try_send(connection)),
            Ok((DESK, Some(connection))) => drop(desk.try_send(connection)),
            Ok((host, Some(_))) => {
                tracing::warn!(%host, "a connection was passed on that is for nobody here")
            }
            Err(_) => return Ok(()),
        }
    }
}

//! The head's end of the socket over which its node's agent passes it connections.

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::cluster::bootstrap::PASS;
use crate::cluster::passing;
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
    let socket = UnixStream::connect(path).await?;
    loop {
        match take(&socket).await {
            // Where there is no room it is closed, and whoever dialled tries again.
            Ok((_, None)) => {
                tracing::warn!("too many files are open: a connection was lost; raise the limit")
            }
            Ok((HostId::HEAD, Some(connection))) => drop(door.try_send(connection)),
            Ok((_, Some(connection))) => drop(desk.try_send(connection)),
            Err(_) => return Ok(()),
        }
    }
}

async fn take(socket: &UnixStream) -> io::Result<(HostId, Option<TcpStream>)> {
    let mut message = [0; 9];
    let (count, fd) =
        socket.async_io(Interest::READABLE, || passing::receive(socket, &mut message[..1])).await?;
    if count != 1 || message[0] != PASS {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut read = 1;
    while read < message.len() {
        socket.readable().await?;
        match socket.try_read(&mut message[read..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let mut host = [0; 8];
    host.copy_from_slice(&message[1..]);
    Ok((HostId(u64::from_be_bytes(host)), fd.map(TcpStream::from)))
}

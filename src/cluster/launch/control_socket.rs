//! Parent's end of a worker's control socket: reports of the worker, and connections handed to it.
//!
//! Closing it ends the worker, whatever the cause of the close.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::cluster::launch::fd_passing;
use crate::cluster::protocol::worker;
use crate::cluster::protocol::worker::{HANDOFF, RENEW, Report};
use crate::config;
use crate::id::HostId;
use crate::observe::log;
use crate::transport::Credentials;

/// How long the last reports of a worker that has ended may take to be read.
const FINAL_REPORTS_TIMEOUT: Duration = Duration::from_millis(500);

/// Reports of a worker, as they are read; the last one may be the reason for its end.
#[derive(Debug)]
pub(crate) struct Reports {
    reading: JoinHandle<Option<String>>,
}

impl Reports {
    /// Reports that `reading` passes on until the worker ends.
    pub(super) fn new(reading: JoinHandle<Option<String>>) -> Self {
        Self { reading }
    }

    /// Waits for the last report of a worker that has ended; gives the reason that it has told.
    pub(crate) async fn last(self) -> Option<String> {
        // A process that the worker has started may still have the socket.
        tokio::time::timeout(FINAL_REPORTS_TIMEOUT, self.reading).await.ok()?.ok()?
    }
}

/// The parent's end of the socket pair. The worker ends when it closes.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    socket: UnixStream,
    /// What is written is not mixed with what another writes. Whether a message was left half written.
    write_lock: AsyncMutex<bool>,
    /// For connections that are to be passed on.
    #[cfg(feature = "cli")]
    handoff_slots: Arc<Semaphore>,
}

impl ControlSocket {
    pub(crate) fn new(socket: UnixStream) -> Self {
        if let Err(error) = set_socket_send_buffer_size(&socket, config::CONTROL_SOCKET_BUFFER_BYTES) {
            log::debug!(%error, "a lifeline has the buffer that the system gives it");
        }
        Self {
            socket,
            write_lock: AsyncMutex::new(false),
            #[cfg(feature = "cli")]
            handoff_slots: Arc::new(Semaphore::new(config::HANDOFF_QUEUE_MAX)),
        }
    }

    /// Writes all of a message. When the future is dropped in the middle of it, nothing more can be written.
    pub(super) async fn write(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut torn = self.write_lock.lock().await;
        if *torn {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "a message was left half written"));
        }
        let mut fd = fd;
        let mut left = bytes;
        while !left.is_empty() {
            let sent =
                self.socket.async_io(Interest::WRITABLE, || fd_passing::send(&self.socket, left, fd)).await?;
            fd = None;
            left = &left[sent..];
            *torn = !left.is_empty();
        }
        Ok(())
    }

    async fn read_exact(&self, buffer: &mut [u8]) -> io::Result<()> {
        let mut read = 0;
        while read < buffer.len() {
            self.socket.readable().await?;
            match self.socket.try_read(&mut buffer[read..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next connection that the other side passes on, and for whom; without it if this process has too
    /// many files open.
    #[cfg(feature = "cli")]
    pub(crate) async fn receive_connection(&self) -> io::Result<(HostId, Option<std::net::TcpStream>)> {
        let mut byte = [0];
        let receive = || fd_passing::receive(&self.socket, &mut byte);
        let (count, fd) = self.socket.async_io(Interest::READABLE, receive).await?;
        if count == 0 || byte[0] != HANDOFF {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut host = [0; 8];
        self.read_exact(&mut host).await?;
        Ok((HostId(u64::from_be_bytes(host)), fd.map(std::net::TcpStream::from)))
    }

    pub(super) async fn report(&self) -> io::Result<Report> {
        let mut length = [0; 4];
        self.read_exact(&mut length).await?;
        let mut body = vec![0; worker::validate_length(length)?];
        self.read_exact(&mut body).await?;
        worker::decode(&body)
    }

    /// Gives the worker a certificate to use from now on.
    pub(crate) async fn renew(&self, credentials: &Credentials) -> io::Result<()> {
        let mut message = vec![RENEW];
        message.extend(worker::encode(credentials)?);
        self.write(&message, None).await
    }

    /// A place for a connection that is to be passed on, unless too many wait already.
    #[cfg(feature = "cli")]
    pub(crate) fn reserve_handoff(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.handoff_slots).try_acquire_owned().ok()
    }

    /// Passes a connection to one of the process's hosts. It waits for as long as the process takes nothing.
    #[cfg(feature = "cli")]
    pub(crate) async fn send_connection(
        &self,
        host: HostId,
        connection: &std::net::TcpStream,
    ) -> io::Result<()> {
        let mut message = [HANDOFF; 9];
        message[1..].copy_from_slice(&host.0.to_be_bytes());
        self.write(&message, Some(connection.as_fd())).await
    }
}

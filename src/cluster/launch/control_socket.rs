//! Parent's end of a worker's control socket: commands to the worker, connections handed to it, and its reports.
//!
//! When the parent's end closes, for whatever cause, the worker ends.

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
use crate::cluster::protocol::worker::{HANDOFF, LEASE, RENEW, WorkerMessage};
use crate::config;
use crate::id::HostId;
use crate::observe::log;
use crate::spec::{End, EndReason, LeaseGrant};
use crate::transport::Credentials;

/// Time to read the last reports of a worker that has ended.
const FINAL_REPORTS_TIMEOUT: Duration = Duration::from_millis(500);

/// Reports of a worker while they are read; the last one may be the cause of its end.
#[derive(Debug)]
pub(crate) struct Reports {
    reader: JoinHandle<Option<String>>,
}

impl Reports {
    /// Wraps the task that reads reports until the worker ends, and that returns the last failure.
    pub(super) fn new(reader: JoinHandle<Option<String>>) -> Self {
        Self { reader }
    }

    /// Waits for the last report of an ended worker; returns the cause that the worker reported, if any.
    pub(crate) async fn last(self) -> Option<End> {
        // A descendant of the worker may hold its end of the socket open, so end of file may never come.
        let text = tokio::time::timeout(FINAL_REPORTS_TIMEOUT, self.reader).await.ok()?.ok()??;
        // A worker that reports its own failure exits with this code.
        Some(End::new(EndReason::Exited(1), text))
    }
}

/// Parent's end of the socket pair.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    socket: UnixStream,
    /// Serialises messages. True if a message was cancelled half written: the worker would take the next one for
    /// its rest, so nothing can follow it.
    write_lock: AsyncMutex<bool>,
    /// Permit for a lease that waits to be written.
    lease_slot: Semaphore,
    /// Permits for connections that wait to be handed over.
    #[cfg(feature = "cli")]
    handoff_slots: Arc<Semaphore>,
}

impl ControlSocket {
    pub(crate) fn new(socket: UnixStream) -> Self {
        // Bounds the descriptors in flight to a stopped worker. The kernel limits their number for all processes of
        // the user together, and one worker must not use it up.
        if let Err(error) = set_socket_send_buffer_size(&socket, config::CONTROL_SOCKET_BUFFER_BYTES) {
            log::debug!(%error, "cannot set the send buffer of a control socket; it keeps the default size");
        }
        Self {
            socket,
            write_lock: AsyncMutex::new(false),
            lease_slot: Semaphore::new(1),
            #[cfg(feature = "cli")]
            handoff_slots: Arc::new(Semaphore::new(config::HANDOFF_QUEUE_MAX)),
        }
    }

    /// Writes a whole message. If the future is dropped half-way, every later write fails.
    pub(super) async fn write(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut half_written = self.write_lock.lock().await;
        if *half_written {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "a message was left half written"));
        }
        let mut fd = fd;
        let mut left = bytes;
        while !left.is_empty() {
            let sent =
                self.socket.async_io(Interest::WRITABLE, || fd_passing::send(&self.socket, left, fd)).await?;
            // The descriptor travels with the first byte that was sent.
            fd = None;
            left = &left[sent..];
            // Recorded before the next await, at which the future may be dropped.
            *half_written = !left.is_empty();
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

    /// Receives the next connection that the peer hands over, and the host it is for. The connection is missing if
    /// this process has reached its limit of open files.
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

    /// Reads the next report.
    pub(super) async fn report(&self) -> io::Result<WorkerMessage> {
        let mut length = [0; 4];
        self.read_exact(&mut length).await?;
        let mut body = vec![0; worker::validate_length(length)?];
        self.read_exact(&mut body).await?;
        worker::decode(&body)
    }

    /// Sends the worker a certificate to use from now on.
    pub(crate) async fn renew(&self, credentials: &Credentials) -> io::Result<()> {
        let mut message = vec![RENEW];
        message.extend(worker::encode(credentials)?);
        self.write(&message, None).await
    }

    /// Passes the lease of the node on to the worker.
    ///
    /// While the worker does not read, an earlier grant may wait to be written. This one is dropped then.
    pub(crate) async fn send_lease(&self, grant: LeaseGrant) -> io::Result<()> {
        let Ok(_only) = self.lease_slot.try_acquire() else { return Ok(()) };
        let mut message = vec![LEASE];
        message.extend(worker::encode(&grant)?);
        self.write(&message, None).await
    }

    /// Reserves a place for a connection to hand over; `None` if too many wait already.
    #[cfg(feature = "cli")]
    pub(crate) fn reserve_handoff(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.handoff_slots).try_acquire_owned().ok()
    }

    /// Hands a connection to one of the worker's hosts; waits while the worker reads nothing.
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

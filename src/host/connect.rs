//! Setup of links: accept, dial, and the handshake of both.
//!
//! All of it runs on the process's I/O thread, never on one that runs handlers, so that busy actors delay
//! no handshake. Only handshake frames are parsed until a peer has proved that it knows the cluster's
//! secret.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio_util::codec::Encoder;
use tokio_util::sync::CancellationToken;

use super::heartbeat::{HEARTBEAT_FRAME_BYTES_MAX, LinkMonitor};
use super::link_driver::LinkDriver;
use super::peer::{FailureVerdict, LinkGuard, Peer};
use super::unauthenticated::UnauthenticatedConnections;
use super::{HostShared, random_nonce};
use crate::config::ACCEPT_BACKOFF;
use crate::id::{HostUid, LinkId};
use crate::observe::{Chain, log};
use crate::session::{
    DialAttempt, DisconnectReason, Handshake, HandshakeConfig, HandshakeError, ProvenPeer, Step,
};
use crate::transport::{Certificate, FrameReader, Incoming, Link, Listener, ReadError, Role, explained};
use crate::wire::{Frame, FrameCodec, Purpose, Refusal, Resume, SessionParameters};

/// Timeout for writing a refusal, which the peer need not read.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Accept loop; it ends when the host closes or is dropped.
pub(super) async fn accept(
    host: Weak<HostShared>,
    closing: CancellationToken,
    open_max: usize,
    mut listener: Box<dyn Listener>,
) {
    let mut unauthenticated = UnauthenticatedConnections::default();
    loop {
        let accepted = tokio::select! {
            // A closing host must not accept a connection that is ready, too.
            biased;
            () = closing.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(incoming) => {
                // Held for this connection only, so that the loop does not keep a dropped host.
                let Some(host) = host.upgrade() else { break };
                let (source, rejections) = (incoming.source, Arc::clone(&host));
                if let Err(over_limit) =
                    unauthenticated.spawn(source, open_max, accept_handshake(host, incoming))
                {
                    rejections.rejections.record(&over_limit);
                }
            }
            Err(error) => {
                let error = explained(error);
                log::warn!(%error, address = %listener.address(), "cannot accept a connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Runs the handshake of an accepted connection.
async fn accept_handshake(host: Arc<HostShared>, incoming: Incoming) {
    let handshake = Handshake::accept(now(), config(&host), random_nonce());
    let established = tokio::select! {
        biased;
        () = host.closed.cancelled() => return,
        // The deadline also covers TLS, in which a silent peer could hold the connection as well.
        established = tokio::time::timeout_at(handshake.deadline().into(), incoming) => established,
    };
    let link = match established {
        Ok(Ok(link)) => link,
        Ok(Err(error)) => return host.rejections.record(&Chain(&error)),
        Err(_) => return host.rejections.record(&handshake.timed_out()),
    };
    let mut pending = PendingHandshake { handshake, frames: FrameReader::handshake(link) };
    let outcome = tokio::select! {
        biased;
        () = host.closed.cancelled() => return,
        outcome = pending.authenticate(|| true) => outcome,
    };
    let proven = match outcome {
        Ok(proven) => proven,
        Err(error) => {
            host.rejections.record(&Chain(&error));
            // The handshake itself succeeded, so it has no refusal to send yet.
            if matches!(error, HandshakeIoError::Certificate { .. }) {
                pending.handshake.refuse(Refusal::Certificate, &error.to_string());
            }
            return pending.write_refusal().await;
        }
    };
    let accepted = match proven.purpose {
        Purpose::Link => accept_link(&host, &proven, &mut pending).await,
        Purpose::Heartbeat => accept_heartbeat(&host, &proven, &mut pending).await,
    };
    match accepted {
        Ok(Some(Accepted::Link(guard))) => pending.hand_over(&host, guard),
        Ok(Some(Accepted::Heartbeat(watched))) => {
            // In a task of its own: this one counts as an open handshake.
            crate::background::spawn(watched.echo_heartbeats(pending.into_frames(HEARTBEAT_FRAME_BYTES_MAX)));
        }
        Ok(None) => {}
        Err((reason, text)) => {
            log::debug!(peer = %proven.identity, ?reason, text, "refused a proven peer");
            pending.handshake.refuse(reason, &text);
            pending.write_refusal().await;
        }
    }
}

/// Outcome of an accepted handshake; `None` in its place if the link broke before the welcome.
enum Accepted {
    Link(LinkGuard),
    Heartbeat(LinkMonitor),
}

async fn accept_link(
    host: &Arc<HostShared>,
    proven: &ProvenPeer,
    pending: &mut PendingHandshake,
) -> Result<Option<Accepted>, (Refusal, String)> {
    let certificate = pending.certificate(proven.identity);
    let (guard, resume) = host.peers.of(host, proven.identity)?.accept_link(proven, certificate)?;
    pending.handshake.admit(resume);
    Ok(match pending.write().await {
        Ok(()) => Some(Accepted::Link(guard)),
        Err(error) => {
            guard.end(DisconnectReason::Io(error.to_string()));
            None
        }
    })
}

async fn accept_heartbeat(
    host: &Arc<HostShared>,
    proven: &ProvenPeer,
    pending: &mut PendingHandshake,
) -> Result<Option<Accepted>, (Refusal, String)> {
    let peer = host.peers.get(proven.identity.host);
    let up =
        // A heartbeat belongs to one link. Refused as stale, the peer drops a link that no longer
        // exists here.
        peer.as_ref().filter(|peer| peer.identity() == proven.identity).and_then(|it| it.link(proven.link));
    let (Some(peer), Some(up)) = (peer, up) else {
        return Err((Refusal::Stale, "there is no such link".into()));
    };
    // A heartbeat connection carries no session.
    pending.handshake.admit(Resume::default());
    let welcomed = pending.write().await.is_ok();
    Ok(welcomed.then(|| Accepted::Heartbeat(LinkMonitor::new(host, &peer, &up))))
}

/// Single attempt to connect to a peer.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) peer: Arc<Peer>,
    pub(super) attempt: LinkId,
    pub(super) address: SocketAddr,
    /// Delay before the attempt.
    pub(super) delay: Duration,
}

/// Reason for a failed dial.
enum DialError {
    /// The peer's own dial wins.
    Crossed,
    /// The dial is no longer current.
    Abandoned,
    Lost(DisconnectReason, FailureVerdict),
}

impl Dial {
    /// Dials, and brings up the link or reports the failure to the peer's state.
    ///
    /// During the delay it holds no strong reference to the host, so that a dropped host makes no further
    /// attempts.
    pub(super) async fn run(self, host: Weak<HostShared>, cancel: CancellationToken) {
        let dialing = async {
            if !self.delay.is_zero() {
                tokio::time::sleep(self.delay).await;
            }
            let host = host.upgrade()?;
            let outcome = self.dial(&host).await;
            Some((host, outcome))
        };
        let dialed = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            dialed = dialing => dialed,
        };
        let Some((host, outcome)) = dialed else { return };
        match outcome {
            Ok((pending, proven)) => {
                let certificate = pending.certificate(proven.identity);
                if let Some(guard) = self.peer.on_connected(&proven, certificate) {
                    pending.hand_over(&host, guard);
                }
            }
            Err(DialError::Crossed) => self.peer.on_simultaneous_open(self.attempt),
            Err(DialError::Abandoned) => {}
            Err(DialError::Lost(loss, verdict)) => self.peer.on_connect_failed(self.attempt, loss, verdict),
        }
    }

    async fn dial(&self, host: &HostShared) -> Result<(PendingHandshake, ProvenPeer), DialError> {
        // The attempt may have been cancelled during its delay.
        let Some((replaces, resume)) = self.peer.begin_dial(self.attempt) else {
            return Err(DialError::Abandoned);
        };
        let (to, link) = (self.peer.identity(), self.attempt);
        let attempt = DialAttempt { to, purpose: Purpose::Link, link, replaces, resume };
        let reached = || self.peer.reached(self.attempt);
        connect(host, self.address, attempt, reached).await.map_err(|error| match error {
            ConnectError::Abandoned => DialError::Abandoned,
            ConnectError::Refused { reason: Refusal::SimultaneousOpen, .. } => DialError::Crossed,
            ConnectError::Refused { reason, proven, why } => {
                DialError::Lost(DisconnectReason::Unreachable(why), classify_refusal(reason, proven))
            }
            ConnectError::Unreachable(why, verdict) => {
                DialError::Lost(DisconnectReason::Unreachable(why), verdict)
            }
        })
    }
}

/// Reason for a failed connection to a host.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The acceptor refused, possibly after it was authenticated.
    Refused {
        reason: Refusal,
        proven: bool,
        why: String,
    },
    Unreachable(String, FailureVerdict),
    /// The acceptor was reached, and the dial is no longer current.
    Abandoned,
}

/// Connects and runs the handshake.
///
/// `reached` runs when the acceptor is authenticated, before this side proves its identity, and returns
/// false to stop.
pub(super) async fn connect(
    host: &HostShared,
    address: SocketAddr,
    attempt: DialAttempt,
    reached: impl FnMut() -> bool + Send,
) -> Result<(PendingHandshake, ProvenPeer), ConnectError> {
    // The address is part of every reason, since a host may have had several.
    let unreachable = |why: String, verdict| ConnectError::Unreachable(format!("{address}: {why}"), verdict);
    let limit = host.limits.connect_timeout;
    let link = tokio::time::timeout(limit, host.transport.connect(address, attempt.to))
        .await
        .map_err(|_| unreachable(format!("no connection within {limit:?}"), FailureVerdict::None))?
        .map_err(|error| {
            let verdict = classify_io_error(host, address, &error);
            unreachable(explained(error).to_string(), verdict)
        })?;
    let handshake = Handshake::connect(now(), config(host), attempt, random_nonce());
    let mut pending = PendingHandshake { handshake, frames: FrameReader::handshake(link) };
    match pending.authenticate(reached).await {
        Ok(proven) => Ok((pending, proven)),
        Err(HandshakeIoError::Abandoned) => Err(ConnectError::Abandoned),
        Err(HandshakeIoError::Handshake(error @ HandshakeError::Refused { reason, proven, .. })) => {
            Err(ConnectError::Refused { reason, proven, why: format!("{address}: {}", Chain(&error)) })
        }
        Err(error) => Err(unreachable(Chain(&error).to_string(), classify_handshake_error(&error))),
    }
}

/// Verdict about a peer from a failed connection.
fn classify_io_error(host: &HostShared, address: SocketAddr, error: &io::Error) -> FailureVerdict {
    match error.kind() {
        io::ErrorKind::ConnectionRefused if host.transport.refusal_means_host_down(address) => {
            FailureVerdict::HostDown
        }
        // TLS reports a rejected certificate of either side as invalid data.
        io::ErrorKind::InvalidData => FailureVerdict::Rejected,
        _ => FailureVerdict::None,
    }
}

fn classify_refusal(reason: Refusal, proven: bool) -> FailureVerdict {
    match reason {
        // Temporary conditions.
        Refusal::SimultaneousOpen | Refusal::Busy | Refusal::Stale => FailureVerdict::None,
        // Only an authenticated peer can end a session. Otherwise any process on the port could do so.
        Refusal::Closing | Refusal::WrongHost if proven => FailureVerdict::SessionEnded,
        _ => FailureVerdict::Rejected,
    }
}

/// Verdict about a peer from a failed handshake.
fn classify_handshake_error(error: &HandshakeIoError) -> FailureVerdict {
    match error {
        HandshakeIoError::Handshake(HandshakeError::TimedOut) => FailureVerdict::None,
        // The connection was established before the peer rejected this side's certificate.
        HandshakeIoError::Read(ReadError::Io(error)) | HandshakeIoError::Write(error)
            if error.kind() == io::ErrorKind::InvalidData =>
        {
            FailureVerdict::Rejected
        }
        HandshakeIoError::Read(ReadError::Io(_) | ReadError::Closed) | HandshakeIoError::Write(_) => {
            FailureVerdict::None
        }
        HandshakeIoError::Handshake(_) | HandshakeIoError::Read(ReadError::Wire(_)) => {
            FailureVerdict::Rejected
        }
        HandshakeIoError::Certificate { .. } => FailureVerdict::Rejected,
        HandshakeIoError::Abandoned => FailureVerdict::None,
    }
}

/// Link whose peer is not authenticated yet.
pub(super) struct PendingHandshake {
    handshake: Handshake,
    frames: FrameReader<Box<dyn Link>>,
}

#[derive(Debug, thiserror::Error)]
enum HandshakeIoError {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] io::Error),
    /// The peer knows the secret, but has the certificate of another host.
    #[error("the link's certificate is not for host {host}; a host needs one of its own")]
    Certificate { host: HostUid },
    #[error("the link is not wanted any more")]
    Abandoned,
}

impl PendingHandshake {
    /// Runs the handshake until the peer is authenticated: the acceptor up to its decision, the initiator
    /// through the peer's.
    ///
    /// `goes_on` runs between the peer's first frame and this side's next one.
    async fn authenticate(
        &mut self,
        goes_on: impl FnMut() -> bool + Send,
    ) -> Result<ProvenPeer, HandshakeIoError> {
        let deadline = self.handshake.deadline();
        let Ok(outcome) = tokio::time::timeout_at(deadline.into(), self.exchange_frames(goes_on)).await
        else {
            return Err(self.handshake.timed_out().into());
        };
        let proven = outcome?;
        let host = proven.identity;
        if self.link().certificate().is_some() && self.certificate(host).is_none() {
            return Err(HandshakeIoError::Certificate { host });
        }
        Ok(proven)
    }

    /// Role and certificate of a link that has one.
    fn certificate(&self, host: HostUid) -> Option<(Role, Certificate)> {
        let certificate = self.link().certificate()?;
        Some((certificate.role_of(host)?, certificate.clone()))
    }

    fn link(&self) -> &dyn Link {
        &**self.frames.get_ref()
    }

    async fn exchange_frames(
        &mut self,
        mut goes_on: impl FnMut() -> bool + Send,
    ) -> Result<ProvenPeer, HandshakeIoError> {
        loop {
            self.write().await?;
            let frame = self.frames.next().await?;
            match self.handshake.receive(now(), frame)? {
                Step::Continue if goes_on() => {}
                Step::Continue => return Err(HandshakeIoError::Abandoned),
                Step::Proven(proven) | Step::Established(proven) => return Ok(proven),
            }
        }
    }

    async fn write(&mut self) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        while let Some(frame) = self.handshake.poll_transmit() {
            put(frame, &mut bytes)?;
        }
        let link = self.frames.get_mut();
        link.write_all(&bytes).await?;
        link.flush().await
    }

    /// Writes the refusal of the handshake, if any; the peer need not read it.
    async fn write_refusal(&mut self) {
        let refusal = async {
            self.write().await?;
            self.frames.get_mut().shutdown().await
        };
        // The connection ends in either case.
        let _ = tokio::time::timeout(REFUSAL_TIMEOUT, refusal).await;
    }

    /// The link, for frames after the handshake.
    pub(super) fn into_frames(self, frame_bytes_max: usize) -> FrameReader<Box<dyn Link>> {
        let (link, leftover) = self.frames.into_parts();
        FrameReader::established(link, frame_bytes_max, leftover)
    }

    /// Moves the link to the thread that drives it.
    fn hand_over(self, host: &HostShared, guard: LinkGuard) {
        let (link, leftover) = self.frames.into_parts();
        // The socket is registered with this thread's reactor, and moves to another one.
        match link.detach() {
            Ok(link) => {
                let frame_bytes_max = host.limits.frame_bytes_max;
                // If that thread has ended, the guard is dropped, which ends the link.
                host.executor.spawn(LinkDriver { guard, link, leftover, frame_bytes_max }.run());
            }
            Err(error) => guard.end(DisconnectReason::Io(error.to_string())),
        }
    }
}

fn put(frame: Frame, bytes: &mut BytesMut) -> io::Result<()> {
    FrameCodec::handshake().encode(frame, bytes).map_err(io::Error::other)
}

fn config(host: &HostShared) -> HandshakeConfig {
    HandshakeConfig {
        local: host.identity,
        secret: host.secret.clone(),
        terms: SessionParameters {
            frame_bytes_max: host.limits.frame_bytes_max as u64,
            outgoing_bytes_max: host.limits.outgoing_bytes_max as u64,
            window_bytes: host.limits.window_bytes as u64,
            schema: host.registry.digest(),
        },
        timeout: host.limits.handshake_timeout,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

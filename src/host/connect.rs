//! How links come about: accepting, dialling, and the handshake that either must pass.
//!
//! All of it runs on the process's I/O thread, never on one that runs handlers, so that a peer is
//! admitted or refused in time whatever the actors compute. Nothing but handshake frames is parsed
//! until a peer has proved that it knows the cluster's secret.

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
use super::{Shared, random_nonce};
use crate::config::ACCEPT_BACKOFF;
use crate::id::{HostUid, LinkId};
use crate::observe::{Chain, log};
use crate::session::{
    DialAttempt, DisconnectReason, Handshake, HandshakeConfig, HandshakeError, ProvenPeer, Step,
};
use crate::transport::{Certificate, FrameReader, Incoming, Link, Listener, ReadError, Role, explained};
use crate::wire::{Frame, FrameCodec, Purpose, Refusal, Resume, SessionParameters};

/// How long a refusal may take to be written: the peer need not read it.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Accepts links until the host closes, or nobody has it any more.
pub(super) async fn accept(
    host: Weak<Shared>,
    closing: CancellationToken,
    open_max: usize,
    mut listener: Box<dyn Listener>,
) {
    let mut strangers = UnauthenticatedConnections::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = closing.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(arrival) => {
                let Some(host) = host.upgrade() else { break };
                let (source, refusals) = (arrival.source, Arc::clone(&host));
                if let Err(crowded) = strangers.spawn(source, open_max, accept_handshake(host, arrival)) {
                    refusals.refusals.record(&crowded);
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

/// Shakes hands with whoever connected.
async fn accept_handshake(host: Arc<Shared>, arrival: Incoming) {
    let handshake = Handshake::accept(now(), config(&host), random_nonce());
    let established = tokio::select! {
        biased;
        () = host.closed.cancelled() => return,
        established = tokio::time::timeout_at(handshake.deadline().into(), arrival) => established,
    };
    let link = match established {
        Ok(Ok(link)) => link,
        Ok(Err(error)) => return host.refusals.record(&Chain(&error)),
        Err(_) => return host.refusals.record(&handshake.timed_out()),
    };
    let mut shaking = PendingHandshake { handshake, frames: FrameReader::handshake(link) };
    let outcome = tokio::select! {
        biased;
        () = host.closed.cancelled() => return,
        outcome = shaking.authenticate(|| true) => outcome,
    };
    let proven = match outcome {
        Ok(proven) => proven,
        Err(error) => {
            host.refusals.record(&Chain(&error));
            if matches!(error, HandshakeIoError::Certificate { .. }) {
                shaking.handshake.refuse(Refusal::Certificate, &error.to_string());
            }
            return shaking.write_refusal().await;
        }
    };
    let taken = match proven.purpose {
        Purpose::Link => accept_link(&host, &proven, &mut shaking).await,
        Purpose::Heartbeat => accept_heartbeat(&host, &proven, &mut shaking).await,
    };
    match taken {
        Ok(Some(Accepted::Link(lease))) => shaking.hand_over(&host, lease),
        Ok(Some(Accepted::Heartbeat(watched))) => {
            // Not here: this task counts as a handshake that is open.
            tokio::spawn(watched.echo_heartbeats(shaking.into_frames(HEARTBEAT_FRAME_BYTES_MAX)));
        }
        Ok(None) => {}
        Err((reason, text)) => {
            log::debug!(peer = %proven.identity, ?reason, text, "refused a proven peer");
            shaking.handshake.refuse(reason, &text);
            shaking.write_refusal().await;
        }
    }
}

/// What a proven peer gets. Nothing if its link broke before it heard of that.
enum Accepted {
    Link(LinkGuard),
    Heartbeat(LinkMonitor),
}

async fn accept_link(
    host: &Arc<Shared>,
    proven: &ProvenPeer,
    shaking: &mut PendingHandshake,
) -> Result<Option<Accepted>, (Refusal, String)> {
    let certificate = shaking.certificate(proven.identity);
    let (lease, resume) = host.peers.of(host, proven.identity)?.accept_link(proven, certificate)?;
    shaking.handshake.admit(resume);
    Ok(match shaking.write().await {
        Ok(()) => Some(Accepted::Link(lease)),
        Err(error) => {
            lease.end(DisconnectReason::Io(error.to_string()));
            None
        }
    })
}

async fn accept_heartbeat(
    host: &Arc<Shared>,
    proven: &ProvenPeer,
    shaking: &mut PendingHandshake,
) -> Result<Option<Accepted>, (Refusal, String)> {
    let peer = host.peers.get(proven.identity.host);
    let up =
        peer.as_ref().filter(|peer| peer.identity() == proven.identity).and_then(|it| it.link(proven.link));
    let (Some(peer), Some(up)) = (peer, up) else {
        return Err((Refusal::Stale, "there is no such link".into()));
    };
    shaking.handshake.admit(Resume::default());
    let welcomed = shaking.write().await.is_ok();
    Ok(welcomed.then(|| Accepted::Heartbeat(LinkMonitor::new(host, &peer, &up))))
}

/// One attempt to reach a peer.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) peer: Arc<Peer>,
    pub(super) attempt: LinkId,
    pub(super) address: SocketAddr,
    /// How long to wait first.
    pub(super) delay: Duration,
}

/// Why a dial came to nothing.
enum DialError {
    /// The peer's own dial is under way, and wins.
    Crossed,
    /// It is not wanted any more.
    Abandoned,
    Lost(DisconnectReason, FailureVerdict),
}

impl Dial {
    /// Dials, and raises the link or reports the failure to the peer's state.
    ///
    /// While it waits it does not keep the host: one that nobody has any more tries no further.
    pub(super) async fn run(self, host: Weak<Shared>, abandon: CancellationToken) {
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
            () = abandon.cancelled() => return,
            dialed = dialing => dialed,
        };
        let Some((host, outcome)) = dialed else { return };
        match outcome {
            Ok((shaking, proven)) => {
                let certificate = shaking.certificate(proven.identity);
                if let Some(lease) = self.peer.on_connected(&proven, certificate) {
                    shaking.hand_over(&host, lease);
                }
            }
            Err(DialError::Crossed) => self.peer.on_simultaneous_open(self.attempt),
            Err(DialError::Abandoned) => {}
            Err(DialError::Lost(loss, evidence)) => self.peer.on_connect_failed(self.attempt, loss, evidence),
        }
    }

    async fn dial(&self, host: &Shared) -> Result<(PendingHandshake, ProvenPeer), DialError> {
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
            ConnectError::Unreachable(why, evidence) => {
                DialError::Lost(DisconnectReason::Unreachable(why), evidence)
            }
        })
    }
}

/// Why a host could not be reached.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// Whoever listens refused, and may have proved itself before.
    Refused {
        reason: Refusal,
        proven: bool,
        why: String,
    },
    Unreachable(String, FailureVerdict),
    /// It was there, and is not wanted any more.
    Abandoned,
}

/// Connects and shakes hands. `reached` is told when the host has proved itself, before this one does, and says
/// whether to go on.
pub(super) async fn connect(
    host: &Shared,
    address: SocketAddr,
    attempt: DialAttempt,
    reached: impl FnMut() -> bool + Send,
) -> Result<(PendingHandshake, ProvenPeer), ConnectError> {
    let unreachable =
        |why: String, evidence| ConnectError::Unreachable(format!("{address}: {why}"), evidence);
    let limit = host.limits.connect_timeout;
    let link = tokio::time::timeout(limit, host.transport.connect(address, attempt.to))
        .await
        .map_err(|_| unreachable(format!("no connection within {limit:?}"), FailureVerdict::None))?
        .map_err(|error| {
            let evidence = classify_io_error(host, address, &error);
            unreachable(explained(error).to_string(), evidence)
        })?;
    let handshake = Handshake::connect(now(), config(host), attempt, random_nonce());
    let mut shaking = PendingHandshake { handshake, frames: FrameReader::handshake(link) };
    match shaking.authenticate(reached).await {
        Ok(proven) => Ok((shaking, proven)),
        Err(HandshakeIoError::Abandoned) => Err(ConnectError::Abandoned),
        Err(HandshakeIoError::Handshake(error @ HandshakeError::Refused { reason, proven, .. })) => {
            Err(ConnectError::Refused { reason, proven, why: format!("{address}: {}", Chain(&error)) })
        }
        Err(error) => Err(unreachable(Chain(&error).to_string(), classify_handshake_error(&error))),
    }
}

/// What a connection that could not be made says about the peer.
fn classify_io_error(host: &Shared, address: SocketAddr, error: &io::Error) -> FailureVerdict {
    match error.kind() {
        io::ErrorKind::ConnectionRefused if host.transport.refusal_means_host_down(address) => {
            FailureVerdict::HostDown
        }
        // One side does not take the other's certificate.
        io::ErrorKind::InvalidData => FailureVerdict::Rejected,
        _ => FailureVerdict::None,
    }
}

fn classify_refusal(reason: Refusal, proven: bool) -> FailureVerdict {
    match reason {
        Refusal::SimultaneousOpen | Refusal::Busy | Refusal::Stale => FailureVerdict::None,
        Refusal::Closing | Refusal::WrongHost if proven => FailureVerdict::SessionEnded,
        _ => FailureVerdict::Rejected,
    }
}

/// What a handshake that came to nothing says about the peer.
fn classify_handshake_error(error: &HandshakeIoError) -> FailureVerdict {
    match error {
        HandshakeIoError::Handshake(HandshakeError::TimedOut) => FailureVerdict::None,
        // The link was there, and then the other side did not take this one's certificate.
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

/// A link whose peer has yet to prove itself.
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
    /// The peer knows the secret, and its certificate is that of another.
    #[error("the link's certificate is not for host {host}; a host needs one of its own")]
    Certificate { host: HostUid },
    #[error("the link is not wanted any more")]
    Abandoned,
}

impl PendingHandshake {
    /// Runs the handshake to the point where the peer is proven: as acceptor before its decision,
    /// as initiator after the peer's. `goes_on` is asked between the peer's first frame and this side's next.
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

    /// The certificate of a link that has one, and what it says that its host is.
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

    /// Writes the reason of a refusal, if the handshake has one; the peer need not stay to read it.
    async fn write_refusal(&mut self) {
        let farewell = async {
            self.write().await?;
            self.frames.get_mut().shutdown().await
        };
        // The connection ends in either case.
        let _ = tokio::time::timeout(REFUSAL_TIMEOUT, farewell).await;
    }

    /// The link, for frames behind the handshake.
    pub(super) fn into_frames(self, frame_bytes_max: usize) -> FrameReader<Box<dyn Link>> {
        let (link, leftover) = self.frames.into_parts();
        FrameReader::established(link, frame_bytes_max, leftover)
    }

    /// Moves the link to the thread that serves it.
    fn hand_over(self, host: &Shared, lease: LinkGuard) {
        let (link, leftover) = self.frames.into_parts();
        match link.detach() {
            Ok(link) => {
                let frame_bytes_max = host.limits.frame_bytes_max;
                // Where that thread has ended, the lease is dropped, and that ends the link.
                host.executor.spawn(LinkDriver { lease, link, leftover, frame_bytes_max }.run());
            }
            Err(error) => lease.end(DisconnectReason::Io(error.to_string())),
        }
    }
}

fn put(frame: Frame, bytes: &mut BytesMut) -> io::Result<()> {
    FrameCodec::handshake().encode(frame, bytes).map_err(io::Error::other)
}

fn config(host: &Shared) -> HandshakeConfig {
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

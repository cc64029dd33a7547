//! Liveness of a link's peer, checked on threads that run no handlers.
//!
//! A link is read on the thread of its host's actors, so silence on it may only mean that a handler
//! computes. The dialling side therefore opens a second connection for heartbeats, which both sides serve
//! on their I/O threads. A link whose peer is silent for
//! [`Limits::heartbeat_timeout`](crate::config::Limits::heartbeat_timeout) is cut and restored. That is a
//! verdict about the network path, not about the peer.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::HostShared;
use super::connect::{self, ConnectError};
use super::peer::{ActiveLink, Peer};
use crate::id::LinkId;
use crate::observe::log;
use crate::session::{DialAttempt, DisconnectReason};
use crate::transport::expiry::wait_until;
use crate::transport::{FrameReader, Link, ReadError};
use crate::wire::{Frame, Heartbeat, Purpose, Refusal, Resume};

/// Longest frame of a heartbeat connection, in bytes; only heartbeats are valid on it.
pub(super) const HEARTBEAT_FRAME_BYTES_MAX: usize = 64;

/// Link and its peer, as the heartbeat tasks see them.
#[derive(Clone)]
pub(super) struct LinkMonitor {
    pub(super) peer: Arc<Peer>,
    pub(super) up: Arc<ActiveLink>,
    interval: Duration,
    timeout: Duration,
}

impl LinkMonitor {
    pub(super) fn new(host: &HostShared, peer: &Arc<Peer>, up: &Arc<ActiveLink>) -> Self {
        Self {
            peer: Arc::clone(peer),
            up: Arc::clone(up),
            interval: host.limits.heartbeat_interval,
            timeout: host.limits.heartbeat_timeout,
        }
    }

    /// Cuts the link after silence, or when the peer's certificate expires.
    pub(super) async fn watch(self, expires: Option<SystemTime>) {
        // The first heartbeat is sent only after an interval.
        self.up.touch(Instant::now() + self.interval);
        let silence = async {
            loop {
                // Computed after each sleep, during which a sign of life may have arrived.
                let silent_at = self.up.heard() + self.timeout;
                if silent_at <= Instant::now() {
                    return;
                }
                tokio::time::sleep_until(silent_at).await;
            }
        };
        let lost = async {
            tokio::select! {
                () = silence => DisconnectReason::HeartbeatTimeout { after: self.timeout },
                () = wait_expiry(expires) => DisconnectReason::CertificateExpired,
            }
        };
        if let Some(loss) = self.while_up(lost).await {
            self.peer.force_disconnect(self.up.id(), &loss);
        }
    }

    /// Sends heartbeats over a connection of their own while the link is up; runs on the dialling side.
    pub(super) async fn send_heartbeats(self, address: SocketAddr) {
        let asking = async {
            loop {
                tokio::time::sleep(self.interval).await;
                match self.open(address).await {
                    Ok(mut frames) => while self.exchange(&mut frames).await.is_ok() {},
                    // An unauthenticated host must not be able to end a link.
                    Err(ConnectError::Refused { reason: Refusal::Stale, proven: true, .. }) => return,
                    // Retried; if it keeps failing, the silence cuts the link.
                    Err(error) => {
                        log::debug!(peer = %self.peer.identity(), ?error, "cannot open a heartbeat connection")
                    }
                }
            }
        };
        // The loop ends only if the authenticated peer does not have the link.
        if self.while_up(asking).await.is_some() {
            let text = "the peer no longer has the link".to_owned();
            self.peer.force_disconnect(self.up.id(), &DisconnectReason::Io(text));
        }
    }

    async fn open(&self, address: SocketAddr) -> Result<FrameReader<Box<dyn Link>>, ConnectError> {
        let Some(host) = self.peer.host() else {
            let why = "this host has ended".into();
            return Err(ConnectError::Refused { reason: Refusal::Closing, proven: false, why });
        };
        let attempt = DialAttempt {
            to: self.peer.identity(),
            purpose: Purpose::Heartbeat,
            link: self.up.id(),
            replaces: LinkId::NONE,
            // A heartbeat connection carries no session.
            resume: Resume::default(),
        };
        let (pending, _) = connect::connect(&host.shared, address, attempt, || true).await?;
        Ok(pending.into_frames(HEARTBEAT_FRAME_BYTES_MAX))
    }

    /// Exchanges one heartbeat, and waits for the interval.
    async fn exchange(&self, frames: &mut FrameReader<Box<dyn Link>>) -> Result<(), ReadError> {
        send_heartbeat(frames).await?;
        self.receive_heartbeat(frames).await?;
        tokio::time::sleep(self.interval).await;
        Ok(())
    }

    /// Echoes the peer's heartbeats until the connection ends or a later one replaces it.
    pub(super) async fn echo_heartbeats(self, mut frames: FrameReader<Box<dyn Link>>) {
        let ended = self.up.replace_heartbeat();
        let replying = async {
            while self.receive_heartbeat(&mut frames).await.is_ok()
                && send_heartbeat(&mut frames).await.is_ok()
            {}
        };
        tokio::select! {
            biased;
            () = ended.cancelled() => {}
            () = replying => {}
        }
    }

    async fn receive_heartbeat(&self, frames: &mut FrameReader<Box<dyn Link>>) -> Result<(), ReadError> {
        match frames.next().await? {
            Frame::Heartbeat(Heartbeat) => {
                self.up.touch(Instant::now());
                Ok(())
            }
            _ => Err(ReadError::Closed),
        }
    }

    /// Output of a future, or `None` if the link ends first.
    async fn while_up<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.up.closed.cancelled() => None,
            output = future => Some(output),
        }
    }
}

/// Waits until a certificate expires.
async fn wait_expiry(expires: Option<SystemTime>) {
    match expires {
        Some(expires) => wait_until(expires).await,
        None => std::future::pending().await,
    }
}

async fn send_heartbeat(frames: &mut FrameReader<Box<dyn Link>>) -> std::io::Result<()> {
    let mut bytes = BytesMut::new();
    Heartbeat.put(&mut bytes);
    let link = frames.get_mut();
    link.write_all(&bytes).await?;
    link.flush().await
}

//! Whether the other side of a link lives: asked and answered on threads that run no handler.
//!
//! A link is read on the thread of its host's actors, so silence on it may only mean that a handler
//! computes. The side that dialled the link therefore opens a second one for heartbeats, which both
//! sides serve on their I/O threads. A link of whose peer nothing was heard for
//! [`Limits::heartbeat_timeout`](crate::config::Limits::heartbeat_timeout) is cut, and made anew: that is
//! no verdict on the peer, only on the way to it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::Shared;
use super::connect::{self, ConnectError};
use super::peer::{ActiveLink, Peer};
use crate::id::LinkId;
use crate::observe::log;
use crate::session::{DialAttempt, DisconnectReason};
use crate::transport::expiry::wait_until;
use crate::transport::{FrameReader, Link, ReadError};
use crate::wire::{Frame, Heartbeat, Purpose, Refusal, Resume};

/// Nothing but heartbeats comes on a pulse.
pub(super) const HEARTBEAT_FRAME_BYTES_MAX: usize = 64;

/// A link, and whose it is.
#[derive(Clone)]
pub(super) struct LinkMonitor {
    pub(super) peer: Arc<Peer>,
    pub(super) up: Arc<ActiveLink>,
    interval: Duration,
    timeout: Duration,
}

impl LinkMonitor {
    pub(super) fn new(host: &Shared, peer: &Arc<Peer>, up: &Arc<ActiveLink>) -> Self {
        Self {
            peer: Arc::clone(peer),
            up: Arc::clone(up),
            interval: host.limits.heartbeat_interval,
            timeout: host.limits.heartbeat_timeout,
        }
    }

    /// Cuts the link when nothing was heard for too long, or what the peer has shown for itself has ended.
    pub(super) async fn watch(self, expires: Option<SystemTime>) {
        // The first heartbeat comes after a while.
        self.up.touch(Instant::now() + self.interval);
        let silence = async {
            loop {
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

    /// Asks the peer, over a link of its own, until the one it is for is gone. To be called by the
    /// side that dialled.
    pub(super) async fn send_heartbeats(self, address: SocketAddr) {
        let asking = async {
            loop {
                tokio::time::sleep(self.interval).await;
                match self.open(address).await {
                    Ok(mut frames) => while self.exchange(&mut frames).await.is_ok() {},
                    // Before it has proved itself anybody may say so.
                    Err(ConnectError::Refused { reason: Refusal::Stale, proven: true, .. }) => return,
                    // It is tried again; when that has failed for long enough the link is cut.
                    Err(error) => log::debug!(peer = %self.peer.identity(), ?error, "no pulse"),
                }
            }
        };
        if self.while_up(asking).await.is_some() {
            let text = "the peer has the link no more".to_owned();
            self.peer.force_disconnect(self.up.id(), &DisconnectReason::Io(text));
        }
    }

    async fn open(&self, address: SocketAddr) -> Result<FrameReader<Box<dyn Link>>, ConnectError> {
        let Some(host) = self.peer.host() else {
            let why = "this host is gone".into();
            return Err(ConnectError::Refused { reason: Refusal::Closing, proven: false, why });
        };
        let attempt = DialAttempt {
            to: self.peer.identity(),
            purpose: Purpose::Heartbeat,
            link: self.up.id(),
            replaces: LinkId::NONE,
            resume: Resume::default(),
        };
        let (shaking, _) = connect::connect(&host.shared, address, attempt, || true).await?;
        Ok(shaking.into_frames(HEARTBEAT_FRAME_BYTES_MAX))
    }

    /// Asks once, and rests.
    async fn exchange(&self, frames: &mut FrameReader<Box<dyn Link>>) -> Result<(), ReadError> {
        send_heartbeat(frames).await?;
        self.receive_heartbeat(frames).await?;
        tokio::time::sleep(self.interval).await;
        Ok(())
    }

    /// Answers the peer's heartbeats as long as they come, and no later pulse takes the place of this.
    pub(super) async fn echo_heartbeats(self, mut frames: FrameReader<Box<dyn Link>>) {
        let ended = self.up.replace_heartbeat();
        let answering = async {
            while self.receive_heartbeat(&mut frames).await.is_ok()
                && send_heartbeat(&mut frames).await.is_ok()
            {}
        };
        tokio::select! {
            biased;
            () = ended.cancelled() => {}
            () = answering => {}
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

    /// What a future gives, unless the link ends before.
    async fn while_up<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.up.closed.cancelled() => None,
            output = future => Some(output),
        }
    }
}

/// Waits until a certificate has ended.
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

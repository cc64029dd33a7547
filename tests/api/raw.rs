//! Scripted peer that speaks the protocol frame by frame.

use std::time::Instant;

use bytes::BytesMut;
use roadshow::RemoteAddr;
use roadshow::internals::host::fresh_identity;
use roadshow::internals::id::{ActorId, ActorIncarnation, HostUid, LinkId, Target};
use roadshow::internals::registry::Registry;
use roadshow::internals::session::{
    DialAttempt, Handshake, HandshakeConfig, HandshakeError, ProvenPeer, Secret, Step,
};
use roadshow::internals::transport::FrameReader;
use roadshow::internals::wire::{self, Ack, Body, Frame, Purpose, Refusal, Resume, SessionParameters};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::hosts::{LOOPBACK, PATIENCE, SECRET, TestHost};

const FRAME_BYTES_MAX: usize = 64 << 20;

/// Established link of a scripted peer.
pub(crate) struct Raw {
    /// Identity and parameters that the host has proven.
    pub(crate) peer: ProvenPeer,
    frames: FrameReader<TcpStream>,
    received: u64,
}

impl Raw {
    /// Dials a host as an unknown peer with the right secret.
    pub(crate) async fn connect(site: &TestHost) -> Self {
        Self::connect_with(site, SECRET).await.unwrap()
    }

    pub(crate) async fn connect_with(site: &TestHost, secret: [u8; 32]) -> Result<Self, HandshakeError> {
        Self::dial(site, config(fresh_identity(), secret), attempt(site)).await
    }

    /// Dials a host as `identity`, with the number of the link and the position in the session.
    pub(crate) async fn connect_at(site: &TestHost, identity: HostUid, link: u64, resume: Resume) -> Self {
        // Number 0 is no link, as for the first one.
        let replaces = LinkId(link - 1);
        let attempt = DialAttempt { link: LinkId(link), replaces, resume, ..attempt(site) };
        Self::dial(site, config(identity, SECRET), attempt).await.unwrap()
    }

    async fn dial(
        site: &TestHost,
        me: HandshakeConfig,
        attempt: DialAttempt,
    ) -> Result<Self, HandshakeError> {
        let stream = TcpStream::connect(site.address()).await.unwrap();
        let handshake = Handshake::connect(Instant::now(), me, attempt, [1; 32]);
        Self::shake(stream, handshake, attempt.resume).await
    }

    /// Completes a handshake, and returns all bytes that this side sent, for a replay.
    pub(crate) async fn recorded_handshake(site: &TestHost) -> Vec<u8> {
        let me = config(fresh_identity(), SECRET);
        let mut handshake = Handshake::connect(Instant::now(), me, attempt(site), [1; 32]);
        let mut frames = FrameReader::handshake(TcpStream::connect(site.address()).await.unwrap());
        let mut sent = BytesMut::new();
        loop {
            let mut bytes = BytesMut::new();
            while let Some(frame) = handshake.poll_transmit() {
                frame.put(&mut bytes);
            }
            frames.get_mut().write_all(&bytes).await.unwrap();
            sent.extend_from_slice(&bytes);
            if let Step::Established(_) =
                handshake.receive(Instant::now(), frames.next().await.unwrap()).unwrap()
            {
                return sent.to_vec();
            }
        }
    }

    /// Listens as a host that `site` may dial.
    pub(crate) async fn listen_for(site: &TestHost) -> (TcpListener, HostUid) {
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let identity = fresh_identity();
        site.host.add_peer(identity, listener.local_addr().unwrap());
        (listener, identity)
    }

    /// Accepts the link of a host that dials `identity`, at the start of a session.
    pub(crate) async fn accept(listener: &TcpListener, identity: HostUid) -> Self {
        Self::accept_at(listener, identity, Resume::default()).await
    }

    /// Accepts the link of a host that dials `identity`, at a position in the session.
    pub(crate) async fn accept_at(listener: &TcpListener, identity: HostUid, resume: Resume) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let handshake = Handshake::accept(Instant::now(), config(identity, SECRET), [2; 32]);
        Self::shake(stream, handshake, resume).await.unwrap()
    }

    /// Refuses the link of a host that dials `identity`; returns the host's attempt.
    pub(crate) async fn refuse(listener: &TcpListener, identity: HostUid, reason: Refusal) -> ProvenPeer {
        let (stream, _) = listener.accept().await.unwrap();
        let mut frames = FrameReader::handshake(stream);
        let mut handshake = Handshake::accept(Instant::now(), config(identity, SECRET), [2; 32]);
        loop {
            put(frames.get_mut(), &mut handshake).await;
            let frame = frames.next().await.unwrap();
            if let Step::Proven(peer) = handshake.receive(Instant::now(), frame).unwrap() {
                // The peer has proved itself, so the host has to believe this refusal.
                handshake.refuse(reason, "by hand");
                put(frames.get_mut(), &mut handshake).await;
                return peer;
            }
        }
    }

    /// Accepts the connection of a host that dials `identity`, proves itself, and never answers the host's
    /// proof.
    pub(crate) async fn hang(listener: &TcpListener, identity: HostUid) -> TcpStream {
        let (stream, _) = listener.accept().await.unwrap();
        let mut frames = FrameReader::handshake(stream);
        let mut handshake = Handshake::accept(Instant::now(), config(identity, SECRET), [2; 32]);
        loop {
            put(frames.get_mut(), &mut handshake).await;
            let frame = frames.next().await.unwrap();
            if let Step::Proven(_) = handshake.receive(Instant::now(), frame).unwrap() {
                // The caller keeps the stream open; its drop would end the dial.
                return frames.into_parts().0;
            }
        }
    }

    /// Refuses the next connection without any proof.
    pub(crate) async fn refuse_unproven(listener: &TcpListener, reason: Refusal, text: &str) {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Written by hand: the library does not send a refusal with such a text.
        let mut frame = vec![0, 0, 0, 5 + text.len() as u8, 5, 0, 0, 0, reason.number()];
        frame.extend_from_slice(text.as_bytes());
        // An error means that the host has closed the connection; the next read reports it.
        let _ = stream.write_all(&frame).await;
        let _ = stream.shutdown().await;
    }

    /// Dials a host as `identity`, for a first link.
    pub(crate) async fn try_connect(site: &TestHost, identity: HostUid) -> Result<Self, HandshakeError> {
        Self::dial(site, config(identity, SECRET), attempt(site)).await
    }

    async fn shake(
        stream: TcpStream,
        mut handshake: Handshake,
        resume: Resume,
    ) -> Result<Self, HandshakeError> {
        let mut frames = FrameReader::handshake(stream);
        loop {
            put(frames.get_mut(), &mut handshake).await;
            let Ok(frame) = frames.next().await else { return Err(handshake.timed_out()) };
            let peer = match handshake.receive(Instant::now(), frame)? {
                Step::Continue => continue,
                // Only the accepting side has this step: it decides before the link is open.
                Step::Proven(peer) => {
                    handshake.admit(resume);
                    put(frames.get_mut(), &mut handshake).await;
                    peer
                }
                Step::Established(peer) => peer,
            };
            // The host may have sent frames in the same packet as the end of its handshake.
            let (stream, leftover) = frames.into_parts();
            let frames = FrameReader::established(stream, FRAME_BYTES_MAX, leftover);
            return Ok(Self { peer, frames, received: resume.received });
        }
    }

    /// Returns the next frame of any kind without an ACK; `None` after the host has closed the link.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        self.frames.next().await.ok()
    }

    /// Returns the next sequenced frame and acknowledges it; `None` after the host has closed the link.
    pub(crate) async fn read(&mut self) -> Option<Frame> {
        loop {
            let frame = self.frames.next().await.ok()?;
            // Heartbeats, acks and credits have no number and are not part of the script.
            if frame.is_sequenced() {
                self.received += 1;
                let mut ack = BytesMut::new();
                Ack { received: self.received }.put(&mut ack);
                // An error means that the host has closed the link; the next read reports it.
                let _ = self.frames.get_mut().write_all(&ack).await;
                return Some(frame);
            }
        }
    }

    pub(crate) async fn write(&mut self, frame: Frame) {
        self.write_all([frame]).await;
    }

    /// Writes several frames in one write, so that the host reads them in one batch.
    pub(crate) async fn write_all(&mut self, frames: impl IntoIterator<Item = Frame>) {
        let mut bytes = BytesMut::new();
        for frame in frames {
            frame.put(&mut bytes);
        }
        self.frames.get_mut().write_all(&bytes).await.unwrap();
    }

    pub(crate) fn target_of<A: roadshow::RemoteActor>(addr: &RemoteAddr<A>) -> Target {
        Target { actor: addr.actor(), incarnation: ActorIncarnation(0) }
    }

    /// Returns the unbound address of an actor that need not exist.
    pub(crate) fn addr_of<A: roadshow::RemoteActor>(host: HostUid, actor: u64) -> RemoteAddr<A> {
        // The fields of an address are private, so it is made through its serialized form.
        #[derive(Serialize)]
        struct AddressFields {
            host: HostUid,
            target: Target,
        }
        let target = Target { actor: ActorId(actor), incarnation: ActorIncarnation(0) };
        serde_json::from_value(serde_json::to_value(AddressFields { host, target }).unwrap()).unwrap()
    }
}

fn config(me: HostUid, secret: [u8; 32]) -> HandshakeConfig {
    let secret = Secret::from_bytes(secret);
    let terms = SessionParameters {
        frame_bytes_max: FRAME_BYTES_MAX as u64,
        outgoing_bytes_max: 64 << 20,
        window_bytes: 1 << 20,
        // Peers with other declarations would get mismatch errors.
        schema: Registry::collect().unwrap().digest(),
    };
    HandshakeConfig { local: me, secret, terms, timeout: PATIENCE }
}

/// Returns the attempt of a first link to a host.
fn attempt(site: &TestHost) -> DialAttempt {
    DialAttempt {
        to: site.identity(),
        purpose: Purpose::Link,
        link: LinkId(1),
        replaces: LinkId::NONE,
        resume: Resume::default(),
    }
}

async fn put(stream: &mut TcpStream, handshake: &mut Handshake) {
    let mut bytes = BytesMut::new();
    while let Some(frame) = handshake.poll_transmit() {
        frame.put(&mut bytes);
    }
    // An error means that the host has closed the connection; the next read reports it.
    let _ = stream.write_all(&bytes).await;
}

/// Encodes a value as the body of a message.
pub(crate) fn body_of(value: &impl Serialize) -> Body {
    wire::encode(value, FRAME_BYTES_MAX, |body| Body {
        message: body.message.into(),
        attachments: body.attachments.into(),
        trace: None,
    })
    .unwrap()
}

//! Handshakes with somebody in between, who has everything but the secret.
//!
//! Host A dials host B twice, B dials A once, and each of them accepts twice. Input: steps, in which
//! the one in between hands a frame that was sent to anybody, as it is or changed, sends frames of
//! its own, or lets time pass. Whatever it does, nobody takes a peer for one that it is not.

#![no_main]

use std::time::{Duration, Instant};

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use roadshow::id::{HostId, Identity, Incarnation, LinkId};
use roadshow::session::{Handshake, HandshakeConfig, HandshakeError, ProvenPeer, Secret, Step};
use roadshow::wire::{Frame, FrameCodec, Refusal};
use roadshow_fuzz::Script;
use tokio_util::codec::{Decoder, Encoder};

const A: Identity = Identity { host: HostId(1), incarnation: Incarnation(1) };
const B: Identity = Identity { host: HostId(2), incarnation: Incarnation(1) };

/// The side that dials, whom it wants, and the link that it replaces.
const DIALLERS: [(Identity, Identity, LinkId); 3] =
    [(A, B, LinkId::NONE), (A, B, LinkId(100)), (B, A, LinkId::NONE)];
const LISTENERS: [Identity; 4] = [B, B, A, A];

/// How many frames the one in between remembers.
const SEEN_MAX: usize = 64;

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let mut world = World::new(&mut script);
    while !script.is_over() {
        world.step(&mut script);
    }
});

/// One end of a connection that the one in between holds the other end of.
struct End {
    me: Identity,
    /// Whom it dials, and the link: of a dialler alone.
    dials: Option<(Identity, LinkId, LinkId)>,
    frame_bytes_max: usize,
    handshake: Handshake,
    /// Whom it takes the peer for, from when it does.
    peer: Option<ProvenPeer>,
    admitted: bool,
    over: bool,
}

struct World {
    now: Instant,
    ends: Vec<End>,
    /// The frames that have been sent, as bytes.
    seen: Vec<BytesMut>,
}

impl World {
    fn new(script: &mut Script<'_>) -> Self {
        let now = Instant::now();
        let mut ends = Vec::new();
        let mut config = |me| {
            let frame_bytes_max = 512 + usize::from(script.short());
            let timeout = Duration::from_millis(1 + u64::from(script.byte()));
            HandshakeConfig { me, secret: Secret::from_bytes([7; 32]), frame_bytes_max, timeout }
        };
        for (at, (me, to, replaces)) in DIALLERS.into_iter().enumerate() {
            let config = config(me);
            let (frame_bytes_max, link) = (config.frame_bytes_max, LinkId(1 + at as u64));
            let handshake = Handshake::connect(now, config, to, link, replaces, [at as u8; 32]);
            ends.push(End::new(me, Some((to, link, replaces)), frame_bytes_max, handshake));
        }
        for (at, me) in LISTENERS.into_iter().enumerate() {
            let config = config(me);
            let frame_bytes_max = config.frame_bytes_max;
            let handshake = Handshake::accept(now, config, [10 + at as u8; 32]);
            ends.push(End::new(me, None, frame_bytes_max, handshake));
        }
        let mut world = Self { now, ends, seen: Vec::new() };
        for at in 0..world.ends.len() {
            world.transmit(at);
        }
        world
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let step = script.byte();
        let to = script.one_of(self.ends.len());
        match step % 8 {
            0..=3 => {
                let frame = self.seen_frame(script);
                self.deliver(to, frame);
            }
            4 => {
                // The same with some bytes changed.
                let mut frame = self.seen_frame(script);
                for _ in 0..=script.one_of(4) {
                    let (at, by) = (script.one_of(frame.len()), script.byte());
                    if let Some(byte) = frame.get_mut(at) {
                        *byte ^= by;
                    }
                }
                self.deliver(to, frame);
            }
            5 => {
                let length = script.byte();
                let frame = BytesMut::from(script.bytes(length.into()));
                self.deliver(to, frame);
            }
            6 => self.now += Duration::from_millis(u64::from(script.byte()) / 16),
            _ => self.decide(to, script.byte()),
        }
    }

    fn seen_frame(&self, script: &mut Script<'_>) -> BytesMut {
        self.seen.get(script.one_of(self.seen.len())).cloned().unwrap_or_default()
    }

    fn deliver(&mut self, to: usize, mut stream: BytesMut) {
        let mut codec = FrameCodec::handshake();
        while let Ok(Some(frame)) = codec.decode(&mut stream) {
            self.receive(to, frame);
        }
    }

    fn receive(&mut self, to: usize, frame: Frame) {
        let end = &mut self.ends[to];
        let late = self.now >= end.handshake.deadline();
        match end.handshake.receive(self.now, frame) {
            Err(err) => {
                assert!(late || !matches!(err, HandshakeError::TimedOut));
                end.over = !late || end.over;
            }
            Ok(step) => {
                assert!(!late && !end.over, "{step:?} after the end");
                match step {
                    Step::Continue => {}
                    Step::Proven(peer) | Step::Established(peer) => {
                        assert_eq!(end.dials.is_some(), matches!(step, Step::Established(_)));
                        assert_eq!(end.peer.replace(peer), None, "a peer proves itself once");
                        self.check(to, peer);
                    }
                }
            }
        }
        self.transmit(to);
    }

    /// The host's decision about a peer that has proved itself, which it takes at most once.
    fn decide(&mut self, at: usize, decision: u8) {
        let end = &mut self.ends[at];
        if end.dials.is_some() || end.over {
            return;
        }
        let Some(peer) = end.peer.filter(|_| !end.admitted) else { return };
        end.over = true;
        if decision.is_multiple_of(2) {
            end.admitted = true;
            assert_eq!(end.handshake.admit(), peer);
        } else {
            let text = "é".repeat(decision.into());
            end.handshake.refuse(Refusal::from_number(decision), &text);
        }
        self.transmit(at);
    }

    /// What `end` has to say is seen by the one in between, and by nobody else.
    fn transmit(&mut self, at: usize) {
        let mut codec = FrameCodec::handshake();
        while let Some(frame) = self.ends[at].handshake.poll_transmit() {
            let mut bytes = BytesMut::new();
            codec.encode(frame.clone(), &mut bytes).expect("its own frames keep the limit");
            let read = codec.decode(&mut bytes.clone()).expect("they are in order").expect("and whole");
            assert_eq!(read.kind(), frame.kind());
            if self.seen.len() < SEEN_MAX {
                self.seen.push(bytes);
            }
        }
    }

    /// Whom `end` takes for its peer is one who took part in this very handshake.
    fn check(&self, at: usize, peer: ProvenPeer) {
        let end = &self.ends[at];
        let limit_with = |other: &End| other.frame_bytes_max.min(end.frame_bytes_max);
        match end.dials {
            Some((to, link, replaces)) => {
                assert_eq!((peer.identity, peer.link, peer.replaces), (to, link, replaces));
                let listeners = self.ends.iter().filter(|other| other.dials.is_none() && other.me == to);
                assert!({ listeners }.any(|other| limit_with(other) == peer.frame_bytes_max));
            }
            None => {
                let said = Some((end.me, peer.link, peer.replaces));
                let dialler = self.ends.iter().find(|other| other.me == peer.identity && other.dials == said);
                let dialler = dialler.expect("nobody else knows the secret");
                assert_eq!(limit_with(dialler), peer.frame_bytes_max);
                let same = self.ends.iter().filter(|other| {
                    other.dials.is_none() && other.peer.is_some_and(|other| other.link == peer.link)
                });
                assert_eq!(same.count(), 1, "one attempt proves itself to one listener");
            }
        }
    }
}

impl End {
    fn new(
        me: Identity,
        dials: Option<(Identity, LinkId, LinkId)>,
        frame_bytes_max: usize,
        handshake: Handshake,
    ) -> Self {
        Self { me, dials, frame_bytes_max, handshake, peer: None, admitted: false, over: false }
    }
}

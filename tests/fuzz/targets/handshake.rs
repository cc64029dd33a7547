//! Handshakes with an attacker in the middle who knows everything except the secret.
//!
//! Host A dials host B twice, B dials A once, and each of them accepts twice. Input: the parameters and the
//! timeout of each end, then steps. In a step the attacker delivers a recorded frame unchanged or modified,
//! sends arbitrary bytes, or lets time advance. Whatever the attacker does, no end accepts a peer with a
//! wrong identity or with parameters that the peer did not send. Only the listener's position in the
//! session is unproven, since the welcome carries no proof.

#![no_main]

use std::time::{Duration, Instant};

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use roadshow::internals::config::{HANDSHAKE_FRAME_BYTES_MAX, WINDOW_BYTES_MIN};
use roadshow::internals::id::{HostId, HostUid, Incarnation, LinkId};
use roadshow::internals::session::{
    DialAttempt, Handshake, HandshakeConfig, HandshakeError, ProvenPeer, Secret, Step,
};
use roadshow::internals::wire::{Frame, FrameCodec, Purpose, Refusal, Resume, SessionParameters};
use roadshow_fuzz::Script;
use tokio_util::codec::{Decoder, Encoder};

const A: HostUid = HostUid { host: HostId(1), incarnation: Incarnation(1) };
const B: HostUid = HostUid { host: HostId(2), incarnation: Incarnation(1) };

/// Dialling ends, each with its attempt.
const DIALLERS: [(HostUid, DialAttempt); 3] = [
    (
        A,
        DialAttempt { to: B, purpose: Purpose::Link, link: LinkId(1), replaces: LinkId::NONE, resume: FRESH },
    ),
    (
        A,
        DialAttempt {
            to: B,
            purpose: Purpose::Heartbeat,
            link: LinkId(1),
            replaces: LinkId::NONE,
            resume: FRESH,
        },
    ),
    (B, DialAttempt { to: A, purpose: Purpose::Link, link: LinkId(2), replaces: LinkId(100), resume: LATER }),
];
const FRESH: Resume = Resume { generation: 0, epoch: 0, peer_generation: 0, received: 0 };
const LATER: Resume = Resume { generation: 2, epoch: 1, peer_generation: 3, received: 7 };
const LISTENERS: [HostUid; 4] = [B, B, A, A];

/// Maximum number of frames that the attacker records.
const SEEN_MAX: usize = 64;

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let mut world = World::new(&mut script);
    while !script.is_over() {
        world.step(&mut script);
    }
});

/// The end of a connection whose other end is the attacker.
struct End {
    me: HostUid,
    /// Attempt of a dialler; `None` for a listener.
    dials: Option<DialAttempt>,
    terms: SessionParameters,
    handshake: Handshake,
    /// Set after the first valid frame of the peer.
    is_answered: bool,
    /// Identity that the peer has proven.
    peer: Option<ProvenPeer>,
    admitted: bool,
    over: bool,
}

struct World {
    now: Instant,
    ends: Vec<End>,
    /// Encoded frames that the ends have sent.
    seen: Vec<BytesMut>,
}

impl World {
    fn new(script: &mut Script<'_>) -> Self {
        let now = Instant::now();
        let mut ends = Vec::new();
        // The script may give each end other parameters, so that a mix-up shows.
        let mut config = |me| {
            let terms = SessionParameters {
                // Some values are below the minimum, and must be rejected.
                frame_bytes_max: HANDSHAKE_FRAME_BYTES_MAX as u64 - 16 + u64::from(script.short()),
                outgoing_bytes_max: script.byte().into(),
                window_bytes: WINDOW_BYTES_MIN as u64 - 16 + u64::from(script.short()),
                schema: script.byte().into(),
            };
            let timeout = Duration::from_millis(1 + u64::from(script.byte()));
            HandshakeConfig { local: me, secret: Secret::from_bytes([7; 32]), terms, timeout }
        };
        for (at, (me, attempt)) in DIALLERS.into_iter().enumerate() {
            let config = config(me);
            let terms = config.terms;
            let handshake = Handshake::connect(now, config, attempt, [at as u8; 32]);
            ends.push(End::new(me, Some(attempt), terms, handshake));
        }
        for (at, me) in LISTENERS.into_iter().enumerate() {
            let config = config(me);
            let terms = config.terms;
            let handshake = Handshake::accept(now, config, [10 + at as u8; 32]);
            ends.push(End::new(me, None, terms, handshake));
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
            // Unchanged frames are the most frequent: without them no handshake would get far.
            0..=3 => {
                let frame = self.seen_frame(script);
                self.deliver(to, frame);
            }
            4 => {
                // Also modified copies of recorded frames.
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
            // Small steps, so that a handshake can complete within its timeout.
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
        // Read before the frame: a step may change the state.
        let late = self.now >= end.handshake.deadline();
        let welcome = if let Frame::Welcome(welcome) = &frame { Some(welcome.resume) } else { None };
        match end.handshake.receive(self.now, frame) {
            Err(err) => {
                assert!(late || !matches!(err, HandshakeError::TimedOut));
                if let HandshakeError::Refused { proven, .. } = err {
                    assert_eq!(proven, end.is_answered, "only a refusal of an answering peer is proven");
                }
                end.over = !late || end.over;
            }
            Ok(step) => {
                assert!(!late && !end.over, "{step:?} after the end");
                match step {
                    Step::Continue => end.is_answered = true,
                    Step::Proven(peer) | Step::Established(peer) => {
                        assert_eq!(end.dials.is_some(), matches!(step, Step::Established(_)));
                        assert_eq!(end.peer.replace(peer), None, "a peer proves itself once");
                        assert!(welcome.is_none_or(|resume| resume == peer.resume));
                        self.check(to, peer);
                    }
                }
            }
        }
        self.transmit(to);
    }

    /// Applies the host's decision about a proven peer, at most once for each end.
    fn decide(&mut self, at: usize, decision: u8) {
        let end = &mut self.ends[at];
        if end.dials.is_some() || end.over {
            return;
        }
        let Some(peer) = end.peer.filter(|_| !end.admitted) else { return };
        end.over = true;
        if decision.is_multiple_of(2) {
            end.admitted = true;
            let resume = Resume { epoch: decision.into(), received: at as u64, ..Resume::default() };
            assert_eq!(end.handshake.admit(resume), peer);
        } else {
            // Two bytes each, so that a text cut within a character would show.
            let text = "é".repeat(decision.into());
            end.handshake.refuse(Refusal::from_number(decision), &text);
        }
        self.transmit(at);
    }

    /// Records the outgoing frames of an end. Only the attacker sees them.
    fn transmit(&mut self, at: usize) {
        let mut codec = FrameCodec::handshake();
        while let Some(frame) = self.ends[at].handshake.poll_transmit() {
            let mut bytes = BytesMut::new();
            codec.encode(frame.clone(), &mut bytes).expect("its own frames keep the limit");
            let read = codec.decode(&mut bytes.clone()).expect("they are valid").expect("and complete");
            assert_eq!(read.kind(), frame.kind());
            if self.seen.len() < SEEN_MAX {
                self.seen.push(bytes);
            }
        }
    }

    /// Checks that the proven peer of an end took part in this very handshake.
    fn check(&self, at: usize, peer: ProvenPeer) {
        let end = &self.ends[at];
        assert!(peer.terms.frame_bytes_max >= HANDSHAKE_FRAME_BYTES_MAX as u64);
        assert!(peer.terms.window_bytes >= WINDOW_BYTES_MIN as u64);
        match end.dials {
            Some(attempt) => {
                let said = DialAttempt { resume: attempt.resume, ..attempt_of(peer.identity, &peer) };
                assert_eq!(said, attempt);
                let listeners =
                    self.ends.iter().filter(|other| other.dials.is_none() && other.me == attempt.to);
                // A frame may be delivered to either listener of a host, so one match is enough.
                assert!({ listeners }.any(|other| other.terms == peer.terms));
            }
            None => {
                let said = Some(attempt_of(end.me, &peer));
                let mut diallers =
                    self.ends.iter().filter(|other| other.me == peer.identity && other.dials == said);
                let dialler = diallers.next().expect("only a dialler knows the secret");
                assert_eq!(dialler.terms, peer.terms);
                let same = self.ends.iter().filter(|other| {
                    let same = |other: ProvenPeer| said == Some(attempt_of(end.me, &other));
                    other.dials.is_none() && other.me == end.me && other.peer.is_some_and(same)
                });
                assert_eq!(same.count(), 1, "one attempt proves itself to one listener");
            }
        }
    }
}

/// Returns the attempt that a peer has proven towards `to`.
fn attempt_of(to: HostUid, peer: &ProvenPeer) -> DialAttempt {
    let ProvenPeer { purpose, link, replaces, resume, .. } = *peer;
    DialAttempt { to, purpose, link, replaces, resume }
}

impl End {
    fn new(me: HostUid, dials: Option<DialAttempt>, terms: SessionParameters, handshake: Handshake) -> Self {
        Self { me, dials, terms, handshake, is_answered: false, peer: None, admitted: false, over: false }
    }
}

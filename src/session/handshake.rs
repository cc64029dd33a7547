//! How two hosts prove to each other who they are, before anything else is said.
//!
//! ```text
//!  initiator                                   acceptor
//!     | -- hello: who I am, whom I want, nonce -> |   version? this host?
//!     | <- challenge: who I am, nonce, proof ---- |
//!     |   the host that I want? proof holds?      |
//!     | -- proof ------------------------------>  |   proof holds? then the host decides
//!     | <- welcome, or refused ------------------ |
//! ```
//!
//! A proof is an HMAC-SHA256 (RFC 2104) with the cluster's secret, over a label of the side that
//! proves, the bytes of the hello, and the bytes of the challenge before its proof. So it covers
//! both nonces, both identities, the link, both terms, the versions and where the initiator is in
//! the session: none of them can be changed on the way, and no proof fits another handshake or the
//! other side. Where the acceptor is, in the welcome, is not covered.

use std::collections::VecDeque;
use std::mem;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::HandshakeError;
use super::secret::{Secret, Side};
use crate::config::{HANDSHAKE_FRAME_BYTES_MAX, WINDOW_BYTES_MIN};
use crate::id::{HostUid, LinkId};
use crate::wire::{
    Challenge, Frame, Hello, Proof, Purpose, Refusal, Refused, Resume, SessionParameters, VERSION, Welcome,
};

/// A longer timeout is cut to this: no handshake needs a day, and no instant overflows by one.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What a handshake knows of its own side.
#[derive(Clone, Debug)]
pub struct HandshakeConfig {
    /// This host.
    pub local: HostUid,
    /// The cluster's secret.
    pub secret: Secret,
    /// What this side accepts.
    pub terms: SessionParameters,
    /// How long the peer may take for all of it.
    pub timeout: Duration,
}

/// What the side that dials wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialAttempt {
    /// Whom it wants to reach.
    pub to: HostUid,
    /// What for.
    pub purpose: Purpose,
    /// The number of the attempt; for a pulse that of the link that it is for.
    pub link: LinkId,
    /// The link that this one is to stand in for, or [`LinkId::NONE`].
    pub replaces: LinkId,
    /// Where its half of the session is.
    pub resume: Resume,
}

/// One attempt of two hosts to prove themselves to each other, seen from one side.
///
/// Feed it the peer's frames, write what [`poll_transmit`](Self::poll_transmit) gives after each
/// call, and give up at its [`deadline`](Self::deadline). After an error write what is left to
/// transmit (a listener says why it refuses) and close the connection.
#[derive(Debug)]
pub struct Handshake {
    config: HandshakeConfig,
    deadline: Instant,
    state: State,
    outgoing: VecDeque<Frame>,
}

/// How far a handshake is.
///
/// ```text
/// initiator: AwaitingChallenge --challenge--> AwaitingWelcome --welcome--> Over (established)
/// acceptor:  AwaitingHello --hello--> AwaitingProof --proof--> Proven --admit, refuse--> Over
/// any state: --refused, error--> Over
/// ```
#[derive(Debug)]
enum State {
    AwaitingChallenge { hello: Hello },
    AwaitingWelcome { peer: ProvenPeer },
    AwaitingHello { nonce: [u8; 32] },
    AwaitingProof { peer: ProvenPeer, transcript: BytesMut },
    Proven { peer: ProvenPeer },
    Over,
}

/// What a frame of the peer led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The peer is to say more.
    Continue,
    /// Acceptor: the peer has proved itself; `admit` or `refuse` it.
    Proven(ProvenPeer),
    /// Initiator: the link is established.
    Established(ProvenPeer),
}

/// A peer that knows the cluster's secret, and what was agreed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvenPeer {
    /// The peer.
    pub identity: HostUid,
    /// What the link is for.
    pub purpose: Purpose,
    /// The initiator's number for this link.
    pub link: LinkId,
    /// The link that this one is to stand in for, or [`LinkId::NONE`].
    pub replaces: LinkId,
    /// What the peer accepts.
    pub terms: SessionParameters,
    /// Where the peer is in the session.
    pub resume: Resume,
}

impl Handshake {
    /// The side that dialled. The nonce is to be random.
    #[must_use]
    pub fn connect(now: Instant, config: HandshakeConfig, attempt: DialAttempt, nonce: [u8; 32]) -> Self {
        let DialAttempt { to, purpose, link, replaces, resume } = attempt;
        let (from, terms) = (config.local, config.terms);
        let hello = Hello { version: VERSION, from, to, link, replaces, purpose, terms, resume, nonce };
        let mut handshake = Self::new(now, config, State::AwaitingChallenge { hello: hello.clone() });
        handshake.outgoing.push_back(Frame::Hello(Box::new(hello)));
        handshake
    }

    /// The side that listens. The nonce is to be random.
    #[must_use]
    pub fn accept(now: Instant, config: HandshakeConfig, nonce: [u8; 32]) -> Self {
        Self::new(now, config, State::AwaitingHello { nonce })
    }

    fn new(now: Instant, config: HandshakeConfig, state: State) -> Self {
        let deadline = now + config.timeout.min(TIMEOUT_MAX);
        Self { config, deadline, state, outgoing: VecDeque::new() }
    }

    /// Takes the peer's next frame.
    ///
    /// # Errors
    ///
    /// When the peer is late, is not who it should be, does not know the secret, refuses, or
    /// sends a frame out of order. The handshake is over then.
    pub fn receive(&mut self, now: Instant, frame: Frame) -> Result<Step, HandshakeError> {
        if now >= self.deadline {
            return Err(self.timed_out());
        }
        match (mem::replace(&mut self.state, State::Over), frame) {
            (State::AwaitingHello { nonce }, Frame::Hello(hello)) => self.receive_hello(&hello, nonce),
            (State::AwaitingProof { peer, transcript }, Frame::Proof(proof)) => {
                self.receive_proof(peer, &transcript, &proof)
            }
            (State::AwaitingChallenge { hello }, Frame::Challenge(challenge)) => {
                self.receive_challenge(&hello, &challenge)
            }
            (State::AwaitingWelcome { peer }, Frame::Welcome(Welcome { resume })) => {
                Ok(Step::Established(ProvenPeer { resume, ..peer }))
            }
            (
                state @ (State::AwaitingChallenge { .. } | State::AwaitingWelcome { .. }),
                Frame::Refused(it),
            ) => {
                let proven = matches!(state, State::AwaitingWelcome { .. });
                Err(HandshakeError::Refused { reason: it.reason, text: it.text, proven })
            }
            (state, frame) => {
                let err = HandshakeError::Unexpected { kind: frame.kind() };
                match state {
                    State::AwaitingHello { .. } | State::AwaitingProof { .. } | State::Proven { .. } => {
                        self.refused(Refusal::Malformed, err)
                    }
                    State::AwaitingChallenge { .. } | State::AwaitingWelcome { .. } | State::Over => Err(err),
                }
            }
        }
    }

    fn receive_hello(&mut self, hello: &Hello, nonce: [u8; 32]) -> Result<Step, HandshakeError> {
        let me = self.config.local;
        if hello.version != VERSION {
            let err = HandshakeError::Version { theirs: hello.version, ours: VERSION };
            return self.refused(Refusal::Version, err);
        }
        if hello.to != me {
            return self
                .refused(Refusal::WrongHost, HandshakeError::WrongHost { wanted: hello.to, here: me });
        }
        if hello.from == me {
            return self.refused(Refusal::Malformed, HandshakeError::ReflectedChallenge);
        }
        let peer = match peer(hello.from, hello, hello.terms) {
            Ok(peer) => peer,
            Err(err) => return self.refused(Refusal::Malformed, err),
        };
        let terms = self.config.terms;
        let mut challenge = Challenge { version: VERSION, from: me, terms, nonce, proof: [0; 32] };
        let transcript = transcript(hello, &challenge);
        challenge.proof = self.config.secret.prove(Side::Acceptor, &transcript);
        self.outgoing.push_back(Frame::Challenge(challenge));
        self.state = State::AwaitingProof { peer, transcript };
        Ok(Step::Continue)
    }

    fn receive_challenge(&mut self, hello: &Hello, challenge: &Challenge) -> Result<Step, HandshakeError> {
        if challenge.version != VERSION {
            return Err(HandshakeError::Version { theirs: challenge.version, ours: VERSION });
        }
        if challenge.from == self.config.local {
            return Err(HandshakeError::ReflectedChallenge);
        }
        if challenge.from != hello.to {
            return Err(HandshakeError::WrongHost { wanted: hello.to, here: challenge.from });
        }
        let peer = peer(challenge.from, hello, challenge.terms)?;
        let transcript = transcript(hello, challenge);
        if !self.config.secret.verify(Side::Acceptor, &transcript, &challenge.proof) {
            return Err(HandshakeError::WrongSecret);
        }
        let proof = self.config.secret.prove(Side::Initiator, &transcript);
        self.outgoing.push_back(Frame::Proof(Proof { proof }));
        self.state = State::AwaitingWelcome { peer };
        Ok(Step::Continue)
    }

    fn receive_proof(
        &mut self,
        peer: ProvenPeer,
        transcript: &[u8],
        proof: &Proof,
    ) -> Result<Step, HandshakeError> {
        if !self.config.secret.verify(Side::Initiator, transcript, &proof.proof) {
            return self.refused(Refusal::Secret, HandshakeError::WrongSecret);
        }
        self.state = State::Proven { peer };
        Ok(Step::Proven(peer))
    }

    fn refused(&mut self, reason: Refusal, err: HandshakeError) -> Result<Step, HandshakeError> {
        self.refuse(reason, &err.to_string());
        Err(err)
    }

    /// Acceptor: takes the peer that has proved itself, and queues the welcome, which says where
    /// this side's half of the session is.
    ///
    /// # Panics
    ///
    /// When no peer has proved itself, or when it was admitted or refused already.
    pub fn admit(&mut self, resume: Resume) -> ProvenPeer {
        let State::Proven { peer } = mem::replace(&mut self.state, State::Over) else {
            panic!("only a peer that has proved itself is admitted, and once");
        };
        self.outgoing.push_back(Frame::Welcome(Welcome { resume }));
        peer
    }

    /// Acceptor: does not want the peer, and queues why.
    pub fn refuse(&mut self, reason: Refusal, text: &str) {
        self.state = State::Over;
        self.outgoing.push_back(Frame::Refused(Refused { reason, text: text.to_owned() }));
    }

    /// The next frame to write.
    pub fn poll_transmit(&mut self) -> Option<Frame> {
        self.outgoing.pop_front()
    }

    /// When to give up.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What to report after giving up at the deadline.
    #[must_use]
    pub fn timed_out(&self) -> HandshakeError {
        HandshakeError::TimedOut
    }
}

/// The peer that says this of itself, if frames can be exchanged with it.
fn peer(identity: HostUid, hello: &Hello, terms: SessionParameters) -> Result<ProvenPeer, HandshakeError> {
    let (theirs, least) = (terms.frame_bytes_max, HANDSHAKE_FRAME_BYTES_MAX);
    if theirs < least as u64 {
        return Err(HandshakeError::FrameLimit { theirs, least });
    }
    if terms.window_bytes < WINDOW_BYTES_MIN as u64 {
        return Err(HandshakeError::Window { theirs: terms.window_bytes, least: WINDOW_BYTES_MIN });
    }
    let Hello { purpose, link, replaces, resume, .. } = *hello;
    Ok(ProvenPeer { identity, purpose, link, replaces, terms, resume })
}

/// Everything that both sides have said before the first proof.
fn transcript(hello: &Hello, challenge: &Challenge) -> BytesMut {
    let mut transcript = BytesMut::new();
    hello.put(&mut transcript);
    transcript.extend_from_slice(&challenge.unproven());
    transcript
}

#[cfg(test)]
mod tests;

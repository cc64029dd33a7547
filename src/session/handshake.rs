//! Mutual authentication of two hosts, which precedes everything else on a link.
//!
//! ```text
//! initiator                                      acceptor
//!    | -- Hello: own and wanted identity, nonce --> |   version? own identity?
//!    | <- Challenge: own identity, nonce, proof --- |
//!    |   wanted identity? proof valid?              |
//!    | -- Proof ----------------------------------> |   proof valid? then the host decides
//!    | <- Welcome, or Refused --------------------- |
//! ```
//!
//! A proof is an HMAC-SHA256 (RFC 2104) under the cluster's secret. It covers a label of the
//! proving side, the bytes of the Hello, and the bytes of the Challenge before its proof. So it
//! covers both nonces, both identities, the link id, both parameter sets, the versions, and the
//! initiator's position in the session. None of them can be modified in transit, and no proof is
//! valid for another handshake or for the other side. The acceptor's position, in the Welcome, is
//! not covered.

use std::collections::VecDeque;
use std::mem;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::HandshakeError;
use super::secret::{ProvingSide, Secret};
use crate::config::{HANDSHAKE_FRAME_BYTES_MAX, WINDOW_BYTES_MIN};
use crate::id::{HostUid, LinkId};
use crate::wire::{
    Challenge, Frame, Hello, Proof, Purpose, Refusal, Refused, Resume, SessionParameters, VERSION, Welcome,
};

/// Upper limit of the handshake timeout, at which `now + timeout` cannot overflow.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Configuration of the local side of a handshake.
#[derive(Clone, Debug)]
pub struct HandshakeConfig {
    /// Identity of this host.
    pub local: HostUid,
    /// The cluster's secret.
    pub secret: Secret,
    /// Session parameters of this side.
    pub terms: SessionParameters,
    /// Time limit for the whole handshake.
    pub timeout: Duration,
}

/// Parameters of a dial attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialAttempt {
    /// Host to reach.
    pub to: HostUid,
    /// Purpose of the link.
    pub purpose: Purpose,
    /// Id of the attempt; for a heartbeat link, the id of the link that it accompanies.
    pub link: LinkId,
    /// Link that this one replaces, or [`LinkId::NONE`].
    pub replaces: LinkId,
    /// Position of this side in the session.
    pub resume: Resume,
}

/// Handshake state machine of one side.
///
/// Feed it the peer's frames. After each call write what [`poll_transmit`](Self::poll_transmit)
/// returns. Abort at the [`deadline`](Self::deadline). After an error write the remaining frames (a
/// listener sends its reason) and close the connection.
#[derive(Debug)]
pub struct Handshake {
    config: HandshakeConfig,
    deadline: Instant,
    state: HandshakeState,
    outgoing: VecDeque<Frame>,
}

/// State of a handshake.
///
/// ```text
/// initiator: AwaitingChallenge --challenge--> AwaitingWelcome --welcome--> Over (established)
/// acceptor:  AwaitingHello --hello--> AwaitingProof --proof--> Proven --admit, refuse--> Over
/// any state: --refused, error--> Over
/// ```
#[derive(Debug)]
enum HandshakeState {
    AwaitingChallenge { hello: Hello },
    AwaitingWelcome { peer: ProvenPeer },
    AwaitingHello { nonce: [u8; 32] },
    AwaitingProof { peer: ProvenPeer, transcript: BytesMut },
    Proven { peer: ProvenPeer },
    Over,
}

/// Result of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The handshake continues with another frame of the peer.
    Continue,
    /// Acceptor: the peer is authenticated; `admit` or `refuse` it.
    Proven(ProvenPeer),
    /// Initiator: the link is established.
    Established(ProvenPeer),
}

/// Authenticated peer and the negotiated properties of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvenPeer {
    /// Identity of the peer.
    pub identity: HostUid,
    /// Purpose of the link.
    pub purpose: Purpose,
    /// Id that the initiator gave this link.
    pub link: LinkId,
    /// Link that this one replaces, or [`LinkId::NONE`].
    pub replaces: LinkId,
    /// Session parameters of the peer.
    pub terms: SessionParameters,
    /// Position of the peer in the session.
    pub resume: Resume,
}

impl Handshake {
    /// Starts a handshake as initiator. The nonce must be random.
    #[must_use]
    pub fn connect(now: Instant, config: HandshakeConfig, attempt: DialAttempt, nonce: [u8; 32]) -> Self {
        let DialAttempt { to, purpose, link, replaces, resume } = attempt;
        let (from, terms) = (config.local, config.terms);
        let hello = Hello { version: VERSION, from, to, link, replaces, purpose, terms, resume, nonce };
        let mut handshake =
            Self::new(now, config, HandshakeState::AwaitingChallenge { hello: hello.clone() });
        handshake.outgoing.push_back(Frame::Hello(Box::new(hello)));
        handshake
    }

    /// Starts a handshake as acceptor. The nonce must be random.
    #[must_use]
    pub fn accept(now: Instant, config: HandshakeConfig, nonce: [u8; 32]) -> Self {
        Self::new(now, config, HandshakeState::AwaitingHello { nonce })
    }

    fn new(now: Instant, config: HandshakeConfig, state: HandshakeState) -> Self {
        let deadline = now + config.timeout.min(TIMEOUT_MAX);
        Self { config, deadline, state, outgoing: VecDeque::new() }
    }

    /// Handles the peer's next frame.
    ///
    /// # Errors
    ///
    /// When the peer exceeds the timeout, has an unexpected identity or another secret, refuses the
    /// link, or sends a frame that this state does not allow. The handshake is over in all of these
    /// cases.
    pub fn receive(&mut self, now: Instant, frame: Frame) -> Result<Step, HandshakeError> {
        // One deadline for the whole handshake: a peer that sends a frame now and then must not
        // keep its place.
        if now >= self.deadline {
            return Err(self.timed_out());
        }
        // Every path that does not set a new state leaves the handshake over, errors included.
        match (mem::replace(&mut self.state, HandshakeState::Over), frame) {
            (HandshakeState::AwaitingHello { nonce }, Frame::Hello(hello)) => {
                self.receive_hello(&hello, nonce)
            }
            (HandshakeState::AwaitingProof { peer, transcript }, Frame::Proof(proof)) => {
                self.receive_proof(peer, &transcript, &proof)
            }
            (HandshakeState::AwaitingChallenge { hello }, Frame::Challenge(challenge)) => {
                self.receive_challenge(&hello, &challenge)
            }
            (HandshakeState::AwaitingWelcome { peer }, Frame::Welcome(Welcome { resume })) => {
                Ok(Step::Established(ProvenPeer { resume, ..peer }))
            }
            (
                state @ (HandshakeState::AwaitingChallenge { .. } | HandshakeState::AwaitingWelcome { .. }),
                Frame::Refused(it),
            ) => {
                // Before its proof the acceptor is a stranger: a spoofed Refused must not count as
                // evidence.
                let proven = matches!(state, HandshakeState::AwaitingWelcome { .. });
                Err(HandshakeError::Refused { reason: it.reason, text: it.text, proven })
            }
            (state, frame) => {
                let err = HandshakeError::Unexpected { kind: frame.kind() };
                match state {
                    HandshakeState::AwaitingHello { .. }
                    | HandshakeState::AwaitingProof { .. }
                    | HandshakeState::Proven { .. } => self.refused(Refusal::Malformed, err),
                    // The initiator does not explain itself: it owes a peer without a proof no
                    // information.
                    HandshakeState::AwaitingChallenge { .. }
                    | HandshakeState::AwaitingWelcome { .. }
                    | HandshakeState::Over => Err(err),
                }
            }
        }
    }

    fn receive_hello(&mut self, hello: &Hello, nonce: [u8; 32]) -> Result<Step, HandshakeError> {
        let me = self.config.local;
        // The version comes first: in another one the later fields may have another meaning.
        if hello.version != VERSION {
            let err = HandshakeError::Version { theirs: hello.version, ours: VERSION };
            return self.refused(Refusal::Version, err);
        }
        // A peer that means another host gets no proof computed for it.
        if hello.to != me {
            return self
                .refused(Refusal::WrongHost, HandshakeError::WrongHost { wanted: hello.to, here: me });
        }
        // A reflected Hello would make this host authenticate itself to an attacker that has no
        // secret.
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
        // The acceptor proves itself first: an initiator that reached a stranger's port then
        // reveals nothing that is computed with the secret.
        challenge.proof = self.config.secret.prove(ProvingSide::Acceptor, &transcript);
        self.outgoing.push_back(Frame::Challenge(challenge));
        self.state = HandshakeState::AwaitingProof { peer, transcript };
        Ok(Step::Continue)
    }

    fn receive_challenge(&mut self, hello: &Hello, challenge: &Challenge) -> Result<Step, HandshakeError> {
        // The cheap checks precede the HMAC.
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
        if !self.config.secret.verify(ProvingSide::Acceptor, &transcript, &challenge.proof) {
            return Err(HandshakeError::WrongSecret);
        }
        let proof = self.config.secret.prove(ProvingSide::Initiator, &transcript);
        self.outgoing.push_back(Frame::Proof(Proof { proof }));
        self.state = HandshakeState::AwaitingWelcome { peer };
        Ok(Step::Continue)
    }

    fn receive_proof(
        &mut self,
        peer: ProvenPeer,
        transcript: &[u8],
        proof: &Proof,
    ) -> Result<Step, HandshakeError> {
        if !self.config.secret.verify(ProvingSide::Initiator, transcript, &proof.proof) {
            return self.refused(Refusal::Secret, HandshakeError::WrongSecret);
        }
        self.state = HandshakeState::Proven { peer };
        Ok(Step::Proven(peer))
    }

    fn refused(&mut self, reason: Refusal, err: HandshakeError) -> Result<Step, HandshakeError> {
        self.refuse(reason, &err.to_string());
        Err(err)
    }

    /// Acceptor: admits the authenticated peer, and queues the Welcome with this side's position.
    ///
    /// # Panics
    ///
    /// When no peer is authenticated, or when it was admitted or refused before.
    pub fn admit(&mut self, resume: Resume) -> ProvenPeer {
        let HandshakeState::Proven { peer } = mem::replace(&mut self.state, HandshakeState::Over) else {
            panic!("only an authenticated peer is admitted, and only once");
        };
        self.outgoing.push_back(Frame::Welcome(Welcome { resume }));
        peer
    }

    /// Acceptor: refuses the peer, and queues the reason.
    pub fn refuse(&mut self, reason: Refusal, text: &str) {
        self.state = HandshakeState::Over;
        self.outgoing.push_back(Frame::Refused(Refused { reason, text: text.to_owned() }));
    }

    /// Returns the next frame to write.
    pub fn poll_transmit(&mut self) -> Option<Frame> {
        self.outgoing.pop_front()
    }

    /// Time at which to abort.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns the error to report after the deadline.
    #[must_use]
    pub fn timed_out(&self) -> HandshakeError {
        HandshakeError::TimedOut
    }
}

/// Returns the peer with this identity, if frames can be exchanged with it.
fn peer(identity: HostUid, hello: &Hello, terms: SessionParameters) -> Result<ProvenPeer, HandshakeError> {
    let (theirs, least) = (terms.frame_bytes_max, HANDSHAKE_FRAME_BYTES_MAX);
    // With a smaller limit not even the failure of a call could be sent to the peer.
    if theirs < least as u64 {
        return Err(HandshakeError::FrameLimit { theirs, least });
    }
    if terms.window_bytes < WINDOW_BYTES_MIN as u64 {
        return Err(HandshakeError::Window { theirs: terms.window_bytes, least: WINDOW_BYTES_MIN });
    }
    let Hello { purpose, link, replaces, resume, .. } = *hello;
    Ok(ProvenPeer { identity, purpose, link, replaces, terms, resume })
}

/// Bytes that both sides have sent before the first proof.
fn transcript(hello: &Hello, challenge: &Challenge) -> BytesMut {
    let mut transcript = BytesMut::new();
    hello.put(&mut transcript);
    transcript.extend_from_slice(&challenge.unproven());
    transcript
}

#[cfg(test)]
mod tests;

//! Both sides of a handshake, and an attacker between them.

use super::*;
use crate::id::{HostId, Incarnation};
use crate::wire::{FrameKind, Goodbye};

const LINK: LinkId = LinkId(5);
const REPLACES: LinkId = LinkId(4);
const INITIATOR: HostUid = HostUid { host: HostId(1), incarnation: Incarnation(10) };
const ACCEPTOR: HostUid = HostUid { host: HostId(2), incarnation: Incarnation(20) };

/// Session parameters of both sides.
const TERMS: SessionParameters = SessionParameters {
    frame_bytes_max: 4096,
    outgoing_bytes_max: 1 << 20,
    window_bytes: 1 << 16,
    schema: 3,
};

/// Positions of the initiator and of the acceptor in their session.
const INITIATOR_RESUME: Resume = Resume { generation: 3, epoch: 1, peer_generation: 4, received: 10 };
const ACCEPTOR_RESUME: Resume = Resume { generation: 4, epoch: 2, peer_generation: 3, received: 20 };

fn config(me: HostUid) -> HandshakeConfig {
    let secret = Secret::from_bytes([7; 32]);
    HandshakeConfig { local: me, secret, terms: TERMS, timeout: Duration::from_secs(5) }
}

/// Both sides of one handshake, with an optional attacker between them.
struct Pair {
    now: Instant,
    initiator: Handshake,
    acceptor: Handshake,
    transmitted: Vec<Frame>,
}

/// Result of a handshake for each side.
#[derive(Debug)]
struct Outcome {
    initiator: Result<Step, HandshakeError>,
    acceptor: Result<Step, HandshakeError>,
}

impl Pair {
    fn new(dialler: HandshakeConfig, to: HostUid, listener: HandshakeConfig) -> Self {
        let now = Instant::now();
        let purpose = Purpose::Link;
        let attempt = DialAttempt { to, purpose, link: LINK, replaces: REPLACES, resume: INITIATOR_RESUME };
        let initiator = Handshake::connect(now, dialler, attempt, [1; 32]);
        let acceptor = Handshake::accept(now, listener, [2; 32]);
        Self { now, initiator, acceptor, transmitted: Vec::new() }
    }

    fn usual() -> Self {
        Self::new(config(INITIATOR), ACCEPTOR, config(ACCEPTOR))
    }

    /// Delivers all frames, each modified by `tamper`, and admits an authenticated peer.
    fn run(&mut self, mut tamper: impl FnMut(&mut Frame)) -> Outcome {
        let mut outcome = Outcome { initiator: Ok(Step::Continue), acceptor: Ok(Step::Continue) };
        loop {
            if let Some(mut frame) = self.initiator.poll_transmit() {
                tamper(&mut frame);
                self.transmitted.push(frame.clone());
                if outcome.acceptor.is_ok() {
                    outcome.acceptor = self.acceptor.receive(self.now, frame);
                }
                if let Ok(Step::Proven(peer)) = outcome.acceptor {
                    assert_eq!(self.acceptor.admit(ACCEPTOR_RESUME), peer);
                }
            } else if let Some(mut frame) = self.acceptor.poll_transmit() {
                tamper(&mut frame);
                self.transmitted.push(frame.clone());
                if outcome.initiator.is_ok() {
                    outcome.initiator = self.initiator.receive(self.now, frame);
                }
            } else {
                return outcome;
            }
        }
    }
}

fn untouched(_: &mut Frame) {}

#[track_caller]
fn check_refused(outcome: Outcome, want: Refusal) -> HandshakeError {
    let Err(HandshakeError::Refused { reason, text, .. }) = outcome.initiator else { panic!("{outcome:?}") };
    let err = outcome.acceptor.unwrap_err();
    assert_eq!((reason, text), (want, err.to_string()));
    err
}

#[test]
fn hosts_of_one_cluster_agree() {
    let mut listener = config(ACCEPTOR);
    let terms = SessionParameters { frame_bytes_max: 1024, ..TERMS };
    listener.terms = terms;
    let outcome = Pair::new(config(INITIATOR), ACCEPTOR, listener).run(untouched);

    let peer = |identity, terms, resume| ProvenPeer {
        identity,
        purpose: Purpose::Link,
        link: LINK,
        replaces: REPLACES,
        terms,
        resume,
    };
    assert_eq!(outcome.initiator.unwrap(), Step::Established(peer(ACCEPTOR, terms, ACCEPTOR_RESUME)));
    assert_eq!(outcome.acceptor.unwrap(), Step::Proven(peer(INITIATOR, TERMS, INITIATOR_RESUME)));
}

#[test]
fn initiator_rejects_an_acceptor_without_the_secret() {
    let mut pair = Pair::usual();
    pair.acceptor.config.secret = Secret::from_bytes([8; 32]);
    let outcome = pair.run(untouched);

    assert!(matches!(outcome.initiator, Err(HandshakeError::WrongSecret)));
    assert_eq!(pair.transmitted.len(), 2, "a listener that is not proven gets no proof");
    assert_eq!(outcome.acceptor.unwrap(), Step::Continue);
}

#[test]
fn acceptor_refuses_an_initiator_without_the_secret() {
    let outcome = Pair::usual().run(|frame| {
        if let Frame::Proof(proof) = frame {
            proof.proof[31] ^= 1;
        }
    });
    assert!(matches!(check_refused(outcome, Refusal::Secret), HandshakeError::WrongSecret));
}

#[test]
fn acceptor_refuses_another_host_or_incarnation_before_it_sends_a_proof() {
    let restarted = HostUid { incarnation: Incarnation(19), ..ACCEPTOR };
    let host = HostUid { host: HostId(3), ..ACCEPTOR };
    // A restarted process has the same host id: only the incarnation tells it apart.
    for to in [restarted, host] {
        let mut pair = Pair::new(config(INITIATOR), to, config(ACCEPTOR));
        let err = check_refused(pair.run(untouched), Refusal::WrongHost);
        assert!(matches!(err, HandshakeError::WrongHost { wanted, here: ACCEPTOR } if wanted == to));
        assert_eq!(pair.transmitted.len(), 2);
    }
}

#[test]
fn both_sides_refuse_another_version() {
    let outcome = Pair::usual().run(|frame| {
        if let Frame::Hello(hello) = frame {
            hello.version = VERSION + 1;
        }
    });
    let err = check_refused(outcome, Refusal::Version);
    assert!(matches!(err, HandshakeError::Version { theirs: 3, ours: VERSION }));

    let outcome = Pair::usual().run(|frame| {
        if let Frame::Challenge(challenge) = frame {
            challenge.version = VERSION + 1;
        }
    });
    assert!(matches!(outcome.initiator, Err(HandshakeError::Version { theirs: 3, ours: VERSION })));
}

#[test]
fn host_refuses_its_own_identity() {
    let outcome = Pair::new(config(ACCEPTOR), ACCEPTOR, config(ACCEPTOR)).run(untouched);
    assert!(matches!(check_refused(outcome, Refusal::Malformed), HandshakeError::ReflectedChallenge));
}

#[test]
fn initiator_rejects_its_own_frames_when_reflected() {
    let mut pair = Pair::usual();
    let hello = pair.initiator.poll_transmit().unwrap();
    let err = pair.initiator.receive(pair.now, hello).unwrap_err();
    assert!(matches!(err, HandshakeError::Unexpected { kind: FrameKind::Hello }));

    let outcome = Pair::usual().run(|frame| {
        if let Frame::Challenge(challenge) = frame {
            challenge.from = INITIATOR;
        }
    });
    assert!(matches!(outcome.initiator, Err(HandshakeError::ReflectedChallenge)));
}

#[test]
fn acceptor_rejects_its_own_proof_when_reflected() {
    let mut acceptors = None;
    let outcome = Pair::usual().run(|frame| match frame {
        Frame::Challenge(challenge) => acceptors = Some(challenge.proof),
        Frame::Proof(proof) => proof.proof = acceptors.unwrap(),
        _ => {}
    });
    check_refused(outcome, Refusal::Secret);
}

#[test]
fn initiator_rejects_a_host_other_than_the_one_dialled() {
    let other = HostUid { host: HostId(3), ..ACCEPTOR };
    let outcome = Pair::usual().run(|frame| {
        if let Frame::Challenge(challenge) = frame {
            challenge.from = other;
        }
    });
    let Err(HandshakeError::WrongHost { wanted: ACCEPTOR, here }) = outcome.initiator else {
        panic!("{outcome:?}");
    };
    assert_eq!(here, other);
}

#[test]
fn any_modified_field_invalidates_the_proof() {
    // One change for each field that the transcript covers, and that the earlier checks let pass.
    let changes: [fn(&mut Frame); 13] = [
        |frame| {
            if let Frame::Hello(hello) = frame {
                hello.from.host.0 += 1
            }
        },
        |frame| {
            if let Frame::Hello(hello) = frame {
                hello.from.incarnation.0 += 1
            }
        },
        |frame| {
            if let Frame::Hello(hello) = frame {
                hello.link.0 += 1
            }
        },
        |frame| {
            if let Frame::Hello(hello) = frame {
                hello.replaces.0 += 1
            }
        },
        |frame| {
            if let Frame::Hello(hello) = frame {
                hello.terms.frame_bytes_max += 1
            }
        },
        |frame| {
            if let Frame::Hello(hello) = frame {
                hello.terms.window_bytes += 1
            }
        },
        |frame| {
            if let Frame::Hello(hello) = frame {
                hello.purpose = Purpose::Heartbeat
            }
        },
        |frame| {
            if let Frame::Hello(hello) = frame {
                hello.resume.received += 1
            }
        },
        |frame| {
            if let Frame::Hello(hello) = frame {
                hello.resume.epoch += 1
            }
        },
        |frame| {
            if let Frame::Hello(hello) = frame {
                hello.nonce[0] ^= 1
            }
        },
        |frame| {
            if let Frame::Challenge(challenge) = frame {
                challenge.terms.frame_bytes_max += 1
            }
        },
        |frame| {
            if let Frame::Challenge(challenge) = frame {
                challenge.terms.schema += 1
            }
        },
        |frame| {
            if let Frame::Challenge(challenge) = frame {
                challenge.nonce[31] ^= 1
            }
        },
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let outcome = Pair::usual().run(change);
        assert!(matches!(outcome.initiator, Err(HandshakeError::WrongSecret)), "{at}: {outcome:?}");
        assert!(matches!(outcome.acceptor, Ok(Step::Continue)), "{at}: {outcome:?}");
    }
}

#[test]
fn proof_of_one_handshake_is_invalid_in_another() {
    let mut recorded = Pair::usual();
    recorded.run(untouched).initiator.unwrap();
    let [hello, _, proof, _] = &recorded.transmitted[..] else { panic!("{:?}", recorded.transmitted) };

    // Another nonce, as every acceptor draws its own.
    let mut acceptor = Handshake::accept(recorded.now, config(ACCEPTOR), [3; 32]);
    assert_eq!(acceptor.receive(recorded.now, hello.clone()).unwrap(), Step::Continue);
    let err = acceptor.receive(recorded.now, proof.clone()).unwrap_err();
    assert!(matches!(err, HandshakeError::WrongSecret));
}

#[test]
fn late_peer_times_out() {
    let mut pair = Pair::usual();
    assert_eq!(pair.acceptor.deadline(), pair.now + Duration::from_secs(5));
    pair.now = pair.acceptor.deadline();
    let outcome = pair.run(untouched);
    assert!(matches!(outcome.acceptor, Err(HandshakeError::TimedOut)));
}

#[test]
fn maximal_timeout_does_not_overflow() {
    // An `Instant` plus this would panic.
    let timeout = Duration::MAX;
    let handshake =
        Handshake::accept(Instant::now(), HandshakeConfig { timeout, ..config(ACCEPTOR) }, [2; 32]);
    assert!(matches!(handshake.timed_out(), HandshakeError::TimedOut));
}

#[test]
fn frames_out_of_order_are_refused() {
    let frames =
        [Frame::Proof(Proof { proof: [0; 32] }), Frame::Welcome(Welcome { resume: ACCEPTOR_RESUME })];
    for frame in frames {
        let mut acceptor = Pair::usual().acceptor;
        let err = acceptor.receive(Instant::now(), frame).unwrap_err();
        assert!(matches!(err, HandshakeError::Unexpected { .. }));
        let Some(Frame::Refused(refused)) = acceptor.poll_transmit() else { panic!("no reason is sent") };
        assert_eq!(refused.reason, Refusal::Malformed);
    }
    let mut initiator = Pair::usual().initiator;
    initiator.poll_transmit();
    let goodbye = Frame::Goodbye(Goodbye { reason: String::new() });
    assert!(initiator.receive(Instant::now(), goodbye).is_err());
    assert_eq!(initiator.poll_transmit(), None);
}

#[test]
fn peer_with_too_small_a_frame_limit_is_refused() {
    let mut dialler = config(INITIATOR);
    dialler.terms.frame_bytes_max = 511;
    let outcome = Pair::new(dialler, ACCEPTOR, config(ACCEPTOR)).run(untouched);
    let err = check_refused(outcome, Refusal::Malformed);
    assert!(matches!(err, HandshakeError::FrameLimit { theirs: 511, least: 512 }));
}

#[test]
fn peer_with_too_small_a_window_is_refused() {
    let mut dialler = config(INITIATOR);
    dialler.terms.window_bytes = 1023;
    let outcome = Pair::new(dialler, ACCEPTOR, config(ACCEPTOR)).run(untouched);
    let err = check_refused(outcome, Refusal::Malformed);
    assert!(matches!(err, HandshakeError::Window { theirs: 1023, least: WINDOW_BYTES_MIN }));
}

#[test]
fn authenticated_peer_may_be_refused() {
    let mut pair = Pair::usual();
    let hello = pair.initiator.poll_transmit().unwrap();
    pair.acceptor.receive(pair.now, hello).unwrap();
    pair.initiator.receive(pair.now, pair.acceptor.poll_transmit().unwrap()).unwrap();
    let step = pair.acceptor.receive(pair.now, pair.initiator.poll_transmit().unwrap()).unwrap();
    assert!(matches!(step, Step::Proven(ProvenPeer { identity: INITIATOR, .. })));

    pair.acceptor.refuse(Refusal::SimultaneousOpen, "the other link stays");
    let err = pair.initiator.receive(pair.now, pair.acceptor.poll_transmit().unwrap()).unwrap_err();
    assert!(matches!(err, HandshakeError::Refused { proven: true, .. }));
    assert_eq!(err.to_string(), "the peer refused the link (simultaneous dials): the other link stays");
}

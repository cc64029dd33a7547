//! Crossed dials: hosts that dial each other, with a dial that hangs.

use std::time::Duration;

use roadshow::internals::host::fresh_identity;
use roadshow::internals::id::{HostId, HostUid};
use roadshow::internals::session::{DisconnectReason, HandshakeError};
use roadshow::internals::wire::Refusal;
use roadshow::prelude::*;
use roadshow::{NotDelivered, OutcomeUnknown, Request, SendError};
use tokio::net::TcpListener;

use crate::fixtures::{Add, Clerk, Hold, Note, Notes, Release};
use crate::hosts::{LOOPBACK, Pair, Plan, TestHost, poll_once, run, until};
use crate::proxy::{Cut, Proxy};
use crate::raw::Raw;

async fn host(id: u64) -> TestHost {
    Plan { identity: HostUid { host: HostId(id), ..fresh_identity() }, ..Plan::default() }.start().await
}

#[test]
fn a_host_whose_own_dial_hangs_accepts_the_link_of_the_peer_whichever_has_the_lower_id() {
    run(async {
        // The lower id decides crossed dials, so both orders are tested.
        for (id, other_id) in [(1, 2), (2, 1)] {
            let (dialler, peer) = (host(id).await, host(other_id).await);
            // Accepts connections and sends nothing, so the dial hangs in the handshake.
            let silent = TcpListener::bind(LOOPBACK).await.unwrap();
            dialler.host.add_peer(peer.identity(), silent.local_addr().unwrap());
            peer.knows(&dialler);
            let waits = dialler.cluster.bind(&peer.serve(Clerk::default)).try_send(Add(7)).unwrap();
            let _hanging = silent.accept().await.unwrap();
            let clerk = peer.cluster.bind(&dialler.serve(Clerk::default));
            // Far below the timeout of a dial: the answer must not wait for it.
            let answer = tokio::time::timeout(Duration::from_secs(3), clerk.send(Add(1))).await;
            assert_eq!(answer, Ok(Ok(1)));
            assert_eq!(waits.await, Ok(7), "the call queued for the dial is sent over that link");
        }
    });
}

#[test]
fn a_dial_that_hangs_after_the_peer_s_proof_delays_the_peer_s_own_dial_only_briefly() {
    run(async {
        let site = host(1).await;
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let peer = HostUid { host: HostId(2), ..fresh_identity() };
        site.host.add_peer(peer, listener.local_addr().unwrap());
        let mut call = site.cluster.bind(&Raw::addr_of::<Clerk>(peer, 1)).send(Add(1));
        assert!(poll_once(&mut call).await.is_pending());
        // The peer proves itself but never answers the host's own proof, so the dial stays half open.
        let _hanging = Raw::hang(&listener, peer).await;
        // The half-open dial still wins: its peer has proved its identity.
        let rejected = Raw::try_connect(&site, peer).await.map(|_| ()).unwrap_err();
        assert!(
            matches!(rejected, HandshakeError::Refused { reason: Refusal::SimultaneousOpen, .. }),
            "{rejected}"
        );
        let mut link = loop {
            match Raw::try_connect(&site, peer).await {
                Ok(link) => break link,
                Err(HandshakeError::Refused { reason: Refusal::SimultaneousOpen, .. }) => {
                    // The host lets the other dial succeed once its own has hung for too long.
                    tokio::task::yield_now().await
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert!(link.read().await.is_some(), "the call arrives over the new link");
    });
}

/// Sends `Add(1)` until it is answered, and checks the sum.
///
/// A host whose peer has just forgotten it dials immediately. If the host forgets the peer only after that,
/// the calls that the peer has sent over the new link end with [`DisconnectReason::Forgotten`].
async fn add_one(clerk: &RemoteAddr<Clerk>, mut request: Request<Add>, sum: &mut u64) {
    let mut unknown = 0;
    let answer = loop {
        match request.await {
            Ok(answer) => break answer,
            Err(SendError::NotDelivered(NotDelivered::Unreachable {
                reason: DisconnectReason::Forgotten,
                ..
            })) => {}
            Err(SendError::OutcomeUnknown(OutcomeUnknown::SessionLost {
                reason: DisconnectReason::Forgotten,
                ..
            })) => {
                // The call may have run, so the sum is known only within a range.
                unknown += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
        request = clerk.send(Add(1));
    };
    assert!((*sum + 1..=*sum + 1 + unknown).contains(&answer), "{answer} after {sum}, {unknown} unknown");
    *sum = answer;
}

#[test]
fn simultaneous_dials_lose_and_duplicate_no_message() {
    run(async {
        let pair = Pair::start().await;
        let (clerk, back) = (pair.serve(Clerk::default), pair.here.serve(Clerk::default));
        let back = pair.there.cluster.bind(&back);
        let (mut sum, mut sum_back) = (0, 0);
        // Many rounds, because the order of the two dials differs from run to run.
        for round in 0..50 {
            let (one, other) = (clerk.try_send(Add(1)).unwrap(), back.try_send(Add(1)).unwrap());
            add_one(&clerk, one, &mut sum).await;
            add_one(&back, other, &mut sum_back).await;
            clerk.do_send(Note(round as u32));
            assert_eq!(clerk.send(Notes).await.unwrap().len(), round as usize + 1);
            // Without state on either side, the next messages cause two dials at the same time.
            pair.here.host.forget(pair.there.identity());
            pair.there.host.forget(pair.here.identity());
            pair.here.knows(&pair.there);
            pair.there.knows(&pair.here);
        }
    });
}

#[test]
fn the_accepting_side_dials_back_to_deliver_an_answer() {
    run(async {
        let (pair, proxy) = Proxy::between(roadshow::Limits::default()).await;
        pair.there.knows(&pair.here);
        let clerk = pair.serve(Clerk::default);
        let call = clerk.try_send(Hold(1)).unwrap();
        let there = pair.there.cluster.bind(&clerk);
        // The call is being handled, so its answer is all that is missing.
        while there.send(Notes).await.unwrap().is_empty() {}
        // The dialling side's route stays blocked, so only the accepting side can restore the link.
        proxy.go_down(Cut::Reset);
        until(|| proxy.rejected() > 0 || pair.here.linked(&pair.there)).await;
        assert_eq!(there.send(Release(1)).await, Ok(true));
        assert_eq!(call.await, Ok(1));
    });
}

#[test]
fn the_text_of_an_unauthenticated_refusal_is_shown_without_control_characters() {
    run(async {
        let site = TestHost::start().await;
        let (listener, identity) = Raw::listen_for(&site).await;
        let call = site.cluster.bind(&Raw::addr_of::<Clerk>(identity, 1)).try_send(Add(1)).unwrap();
        // A terminal would interpret these sequences. The sender has proved nothing, so anyone can send
        // them.
        Raw::refuse_unproven(&listener, Refusal::Busy, "\x1b]0;title\x07\x1b[2J").await;
        drop(listener);
        let error = call.await.unwrap_err();
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
        assert!(!matches!(error, roadshow::SendError::OutcomeUnknown(_)), "{error}");
    });
}

//! Deadlines: the caller's error when time is up, and the handlers that never start.

use std::time::Duration;

use roadshow::Request;
use roadshow::internals::host::{NotDelivered, OutcomeUnknown};
use roadshow::internals::id::CallId;
use roadshow::internals::wire::{Call, CallFailure, Frame};
use roadshow::prelude::*;

use crate::fixtures::{Add, Block, Clerk, Hold, Note, Notes};
use crate::hosts::{Gate, Pair, TestHost, run, until, wait_at_least};
use crate::raw::{Raw, body_of};

#[test]
fn a_call_that_is_not_answered_in_time_has_an_unknown_outcome() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        clerk.send(Add(1)).await.unwrap();
        let error = clerk.send(Hold(1)).timeout(Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error, SendError::OutcomeUnknown(OutcomeUnknown::TimedOut));
        assert!(error.is_timeout());
        // A late answer must not be taken for the answer of a later call.
        assert_eq!(clerk.send(Hold(2)).timeout(Duration::from_millis(5)).await, Err(error));
        assert_eq!(clerk.send(Add(1)).await, Ok(2));
        assert_eq!(pair.here.calls_open(), 0);
        assert!(clerk.connected());
    });
}

/// Blocks an actor on its own thread, while its host's links are still read.
async fn block_on_other_thread(
    pair: &Pair,
    other: &TestHost,
    gate: &Gate,
) -> (RemoteAddr<Clerk>, Request<Block>) {
    let clerk = Clerk::at(gate);
    let addr = Clerk::start_in_arbiter(&other.arbiter, move |_| clerk());
    let clerk = pair.here.cluster.bind(&pair.there.cluster.register(addr));
    let blocked = clerk.try_send(Block).unwrap();
    gate.reached_by(1).await;
    (clerk, blocked)
}

#[test]
fn a_handler_that_could_only_start_after_the_deadline_never_starts() {
    run(async {
        let (pair, other, gate) = (Pair::start().await, TestHost::start().await, Gate::default());
        let (clerk, blocked) = block_on_other_thread(&pair, &other, &gate).await;
        let late = clerk.send(Note(1)).timeout(Duration::from_millis(5)).await.unwrap_err();
        assert!(late.is_timeout(), "{late}");
        // A link is read in order: with this reply, the other side has read the call and its cancellation.
        assert_eq!(pair.serve(Clerk::default).send(Add(1)).await, Ok(1));
        gate.open();
        assert_eq!(blocked.await, Ok(()));
        assert_eq!(clerk.send(Notes).await, Ok(vec![]));
    });
}

#[test]
fn a_host_reports_a_call_that_expired_before_its_handler_started() {
    run(async {
        let (pair, other, gate) = (Pair::start().await, TestHost::start().await, Gate::default());
        let (clerk, blocked) = block_on_other_thread(&pair, &other, &gate).await;
        let mut raw = Raw::connect(&pair.there).await;
        let (target, call) = (Raw::target_of(&clerk), CallId(9));
        let body = body_of(&Note(9));
        raw.write(Frame::Call(Call {
            call,
            target,
            message: Note::HASH,
            timeout_ms: 1,
            low_watermark: None,
            body,
        }))
        .await;
        // Both calls are in the mailbox now, and the deadline passes there.
        until(|| pair.there.host.snapshot().peers.iter().all(|peer| peer.calls_accepted == 1)).await;
        wait_at_least(Duration::from_millis(2)).await;
        gate.open();
        blocked.await.unwrap();
        assert!(
            matches!(raw.read().await, Some(Frame::Failure(failed)) if failed.failure == CallFailure::Expired)
        );
        assert_eq!(clerk.send(Notes).await, Ok(vec![]));
    });
}

#[test]
fn an_expired_call_that_was_never_written_is_not_delivered() {
    run(async {
        let site = TestHost::start().await;
        // The listener accepts no connection, so the handshake never starts and the call is never written.
        let (listener, identity) = Raw::listen_for(&site).await;
        let clerk: RemoteAddr<Clerk> = site.cluster.bind(&Raw::addr_of(identity, 1));
        let error = clerk.send(Note(1)).timeout(Duration::from_millis(5)).await.unwrap_err();
        assert_eq!(error, SendError::NotDelivered(NotDelivered::Expired));
        drop(listener);
    });
}

#[test]
fn deadlines_hold_for_an_actor_on_the_same_host_too() {
    run(async {
        let site = TestHost::start().await;
        let gate = Gate::default();
        let clerk = site.serve(Clerk::at(&gate));
        let blocked = clerk.try_send(Block).unwrap();
        gate.reached_by(1).await;
        let error = clerk.send(Note(1)).timeout(Duration::from_millis(5)).await.unwrap_err();
        assert_eq!(error, SendError::OutcomeUnknown(OutcomeUnknown::TimedOut));
        gate.open();
        blocked.await.unwrap();
        assert_eq!(clerk.send(Notes).await, Ok(vec![]));
    });
}

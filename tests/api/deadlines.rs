//! Deadlines: what a caller learns when its time is up, and what the other side never begins.

use std::time::Duration;

use roadshow::Request;
use roadshow::host::{NotDelivered, OutcomeUnknown};
use roadshow::id::CallId;
use roadshow::prelude::*;
use roadshow::wire::{Call, CallFailure, Frame};

use crate::cast::{Add, Block, Clerk, Hold, Note, Notes};
use crate::hosts::{Gate, Pair, TestHost, let_pass, run, until};
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
        // The late answer disturbs nobody.
        assert_eq!(clerk.send(Hold(2)).timeout(Duration::from_millis(5)).await, Err(error));
        assert_eq!(clerk.send(Add(1)).await, Ok(2));
        assert_eq!(pair.here.calls_open(), 0);
        assert!(clerk.connected());
    });
}

/// An actor that is held up at a gate on a thread of its own, while its host's links are read.
async fn held_up_aside(pair: &Pair, aside: &TestHost, gate: &Gate) -> (RemoteAddr<Clerk>, Request<Block>) {
    let clerk = Clerk::at(gate);
    let addr = Clerk::start_in_arbiter(&aside.arbiter, move |_| clerk());
    let clerk = pair.here.cluster.bind(&pair.there.cluster.register(addr));
    let blocked = clerk.try_send(Block).unwrap();
    gate.reached_by(1).await;
    (clerk, blocked)
}

#[test]
fn a_handler_that_could_only_begin_after_the_deadline_never_does() {
    run(async {
        let (pair, aside, gate) = (Pair::start().await, TestHost::start().await, Gate::default());
        let (clerk, blocked) = held_up_aside(&pair, &aside, &gate).await;
        let late = clerk.send(Note(1)).timeout(Duration::from_millis(5)).await.unwrap_err();
        assert!(late.is_timeout(), "{late}");
        until(|| pair.here.host.snapshot().peers[0].unwritten_bytes == 0).await;
        gate.open();
        assert_eq!(blocked.await, Ok(()));
        assert_eq!(clerk.send(Notes).await, Ok(vec![]));
    });
}

#[test]
fn a_host_says_that_the_time_was_up_before_the_handler_began() {
    run(async {
        let (pair, aside, gate) = (Pair::start().await, TestHost::start().await, Gate::default());
        let (clerk, blocked) = held_up_aside(&pair, &aside, &gate).await;
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
        until(|| pair.there.host.snapshot().peers.iter().all(|peer| peer.calls_accepted == 1)).await;
        let_pass(Duration::from_millis(2)).await;
        gate.open();
        blocked.await.unwrap();
        assert!(
            matches!(raw.read().await, Some(Frame::Failure(failed)) if failed.failure == CallFailure::Expired)
        );
        assert_eq!(clerk.send(Notes).await, Ok(vec![]));
    });
}

#[test]
fn a_call_that_was_never_written_is_known_to_be_undone_when_its_time_is_up() {
    run(async {
        let site = TestHost::start().await;
        // It accepts no connection, and the kernel lets nobody wait for ever.
        let (listener, identity) = Raw::listen_for(&site).await;
        let clerk: RemoteAddr<Clerk> = site.cluster.bind(&Raw::addr_of(identity, 1));
        let error = clerk.send(Note(1)).timeout(Duration::from_millis(5)).await.unwrap_err();
        assert_eq!(error, SendError::NotDelivered(NotDelivered::Expired));
        drop(listener);
    });
}

#[test]
fn an_actor_on_the_same_host_keeps_deadlines_too() {
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

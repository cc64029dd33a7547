//! Calls and one-way messages from one host to another: order, deadlines, and what a caller learns.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use roadshow::host::{NotDelivered, OutcomeUnknown};
use roadshow::id::CallId;
use roadshow::prelude::*;
use roadshow::wire::{Call, CallFailure, Frame};

use crate::cast::{Add, Block, Clerk, Hold, Note, Notes, Release};
use crate::hosts::{Gate, Pair, Site, run, until};
use crate::raw::{Raw, body_of};

/// Polls once: a request is sent by its first poll.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|task| Poll::Ready(Pin::new(&mut *future).poll(task))).await
}

#[test]
fn a_send_gives_the_typed_reply() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        assert_eq!(clerk.send(Add(40)).await, Ok(40));
        assert_eq!(clerk.send(Add(2)).await, Ok(42));
    });
}

#[test]
fn a_spawned_actor_answers_at_the_address_that_the_spawner_got() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.here.cluster.spawn::<Clerk>(()).await.unwrap();
        assert_eq!(clerk.host(), pair.there.identity());
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        assert_eq!(pair.there.host.snapshot().actors, 1);
    });
}

#[test]
fn ten_thousand_messages_of_all_kinds_arrive_in_the_order_in_which_they_were_sent() {
    const MESSAGES: u32 = 10_000;
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        let mut requests = Vec::new();
        for number in 0..MESSAGES {
            match number % 4 {
                0 => clerk.tell(Note(number)).await.unwrap(),
                1 => clerk.do_send(Note(number)),
                2 => requests.push(clerk.try_send(Note(number)).unwrap()),
                _ => {
                    let mut request = clerk.send(Note(number));
                    assert!(poll_once(&mut request).await.is_pending());
                    requests.push(request);
                }
            }
        }
        try_join_all(requests).await.unwrap();
        assert!(clerk.send(Notes).await.unwrap().into_iter().eq(0..MESSAGES));
    });
}

#[test]
fn thousands_of_calls_at_once_get_each_its_own_reply() {
    const CALLS: u32 = 3_000;
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        let calls = (0..CALLS).map(|number| {
            let clerk = clerk.clone();
            actix_rt::spawn(async move { clerk.send(Hold(number)).await })
        });
        let calls: Vec<_> = calls.collect();
        until(|| pair.there.host.snapshot().peers[0].calls_accepted == CALLS as usize).await;
        join_all((0..CALLS).map(|number| clerk.send(Release(number)))).await;
        for (number, call) in (0..CALLS).zip(calls) {
            assert_eq!(call.await.unwrap(), Ok(number));
        }
        assert_eq!(pair.here.calls_open(), 0);
    });
}

#[test]
fn replies_come_in_the_order_in_which_they_are_given() {
    const CALLS: u32 = 20;
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        let mut calls: Vec<_> = (0..CALLS).map(|number| clerk.try_send(Hold(number)).unwrap()).collect();
        for number in (0..CALLS).rev() {
            assert_eq!(clerk.send(Release(number)).await, Ok(true));
            assert_eq!(calls.pop().unwrap().await, Ok(number));
            if let Some(earlier) = calls.last_mut() {
                assert!(poll_once(earlier).await.is_pending());
            }
        }
    });
}

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
        clerk.send(Release(1)).await.unwrap();
        assert_eq!(clerk.send(Add(1)).await, Ok(2));
        assert_eq!(pair.here.calls_open(), 0);
        assert!(clerk.connected());
    });
}

#[test]
fn a_handler_that_could_only_begin_after_the_deadline_never_does() {
    run(async {
        let pair = Pair::start().await;
        let gate = Gate::default();
        let clerk = pair.serve(Clerk::at(&gate));
        let blocked = clerk.try_send(Block).unwrap();
        gate.reached_by(1).await;
        let late = clerk.send(Note(1)).timeout(Duration::from_millis(5)).await.unwrap_err();
        assert!(late.is_timeout(), "{late}");
        gate.open();
        assert_eq!(blocked.await, Ok(()));
        assert_eq!(clerk.send(Notes).await, Ok(vec![]));
    });
}

#[test]
fn a_host_says_that_a_handler_had_not_begun_when_the_time_was_up() {
    run(async {
        let site = Site::start().await;
        let gate = Gate::default();
        let clerk = site.serve(Clerk::at(&gate));
        let mut raw = Raw::connect(&site).await;
        let call = |number, timeout_ms, message, body| {
            let (target, call) = (Raw::target_of(&clerk), CallId(number));
            Frame::Call(Call { call, target, message, timeout_ms, body })
        };
        raw.write(call(1, 0, Block::HASH, body_of(&Block))).await;
        gate.reached_by(1).await;
        // The thread that reads the link is held up, too: time runs from when the frame is read.
        raw.write(call(2, 1, Note::HASH, body_of(&Note(2)))).await;
        gate.open();
        assert!(matches!(raw.read().await, Some(Frame::Reply(reply)) if reply.call == CallId(1)));
        // It is read and handled by one thread: whether a millisecond passes between is open.
        match raw.read().await {
            Some(Frame::Failure(failed)) => assert_eq!(failed.failure, CallFailure::Expired),
            Some(Frame::Reply(reply)) => assert_eq!(reply.call, CallId(2)),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn the_deadline_runs_while_a_message_waits_in_the_mailbox() {
    run(async {
        let pair = Pair::start().await;
        let gate = Gate::default();
        // Its own thread: the link goes on being read while the actor is held up.
        let aside = Site::start().await;
        let addr = Clerk::start_in_arbiter(&aside.arbiter, {
            let clerk = Clerk::at(&gate);
            move |_| clerk()
        });
        let clerk = pair.here.cluster.bind(&pair.there.cluster.serve(addr));
        let blocked = clerk.try_send(Block).unwrap();
        gate.reached_by(1).await;
        let mut raw = Raw::connect(&pair.there).await;
        let (target, call) = (Raw::target_of(&clerk), CallId(9));
        raw.write(Frame::Call(Call { call, target, message: Note::HASH, timeout_ms: 1, body: body_of(&Note(9)) })).await;
        until(|| pair.there.host.snapshot().peers.iter().all(|peer| peer.calls_accepted == 1)).await;
        // One millisecond after the frame was taken in.
        tokio::time::interval(Duration::from_millis(2)).tick().await;
        let error = clerk.send(Note(1)).timeout(Duration::from_millis(3)).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        gate.open();
        blocked.await.unwrap();
        assert!(matches!(raw.read().await, Some(Frame::Failure(failed)) if failed.failure == CallFailure::Expired));
        assert_eq!(clerk.send(Notes).await, Ok(vec![]));
    });
}

#[test]
fn a_request_that_is_dropped_unpolled_sends_nothing() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        drop(clerk.send(Note(1)));
        drop(clerk.tell(Note(2)));
        assert_eq!(clerk.send(Notes).await, Ok(vec![]));
    });
}

#[test]
fn a_request_that_is_dropped_under_way_gives_up_its_answer_only() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        let mut request = clerk.send(Hold(1));
        assert!(poll_once(&mut request).await.is_pending());
        assert_eq!(pair.here.calls_open(), 1);
        drop(request);
        assert_eq!(pair.here.calls_open(), 0);
        drop(clerk.try_send(Note(2)).unwrap());
        assert_eq!(clerk.send(Notes).await, Ok(vec![1, 2]));
        assert_eq!(clerk.send(Release(1)).await, Ok(true));
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
    });
}

#[test]
fn try_send_gives_the_message_back_when_nobody_can_take_it() {
    run(async {
        let pair = Pair::start().await;
        let stranger = Site::start().await;
        let clerk = pair.here.cluster.bind(&stranger.serve(Clerk::default));
        let error = clerk.try_send(Note(7)).unwrap_err();
        assert_eq!(error.reason, NotDelivered::UnknownHost { host: stranger.identity() });
        assert_eq!(error.message, Note(7));
    });
}

#[test]
fn a_recipient_reaches_actors_of_different_types() {
    run(async {
        let pair = Pair::start().await;
        let (clerk, parrot) = (pair.serve(Clerk::default), pair.serve(|| Parrot));
        let recipients = [clerk.recipient::<Add>(), parrot.recipient::<Add>()];
        let answers = join_all(recipients.iter().map(|to| to.send(Add(3)))).await;
        assert_eq!(answers, [Ok(3), Ok(300)]);
        assert_ne!(recipients[0], recipients[1]);
        recipients[0].do_send(Add(1));
        recipients[0].tell(Add(1)).await.unwrap();
        assert_eq!(recipients[0].try_send(Add(1)).unwrap().await, Ok(6));
    });
}

#[test]
fn an_actor_served_here_is_called_back_by_its_address_in_a_message() {
    run(async {
        let pair = Pair::start().await;
        let here = pair.here.serve(Clerk::default);
        let parrot = pair.serve(|| Parrot);
        let answer = parrot.send(CallBack { whom: here.recipient(), addr: here.clone() }).await;
        assert_eq!(answer, Ok(Ok(5)));
        assert_eq!(here.send(Notes).await, Ok(vec![1, 2]));
    });
}

#[test]
fn an_address_in_an_answer_is_bound_to_the_caller() {
    run(async {
        let pair = Pair::start().await;
        let parrot = pair.serve(|| Parrot);
        let child = parrot.send(Beget(pair.there.cluster.serve_marker())).await.unwrap().unwrap();
        assert_eq!(child.send(Add(2)).await, Ok(2));
    });
}

//! Calls and one-way messages from one host to another: answers, order and cancellation.

use std::task::Poll;

use futures_util::future::{join_all, try_join_all};
use roadshow::NotDelivered;

use crate::fixtures::{Add, Clerk, Hold, Note, Notes, Release, Twin};
use crate::hosts::{Pair, TestHost, poll_once, run, until};

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
            // All kinds share one order, also in any mixture.
            match number % 4 {
                0 => clerk.tell(Note(number)).await.unwrap(),
                1 => clerk.do_send(Note(number)),
                2 => requests.push(clerk.try_send(Note(number)).unwrap()),
                _ => {
                    let mut request = clerk.send(Note(number));
                    // A request is sent at its first poll.
                    match poll_once(&mut request).await {
                        Poll::Pending => requests.push(request),
                        Poll::Ready(answer) => answer.unwrap(),
                    }
                }
            }
        }
        try_join_all(requests).await.unwrap();
        assert!(clerk.send(Notes).await.unwrap().into_iter().eq(0..MESSAGES));
    });
}

#[test]
fn each_of_thousands_of_concurrent_calls_gets_its_own_reply() {
    const CALLS: u32 = 3_000;
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        let calls = (0..CALLS).map(|number| {
            let clerk = clerk.clone();
            actix_rt::spawn(async move { clerk.send(Hold(number)).await })
        });
        let calls: Vec<_> = calls.collect();
        // All calls are accepted before the first is released, so that they are really open at the same
        // time.
        until(|| pair.there.host.snapshot().peers[0].calls_accepted == CALLS as usize).await;
        join_all((0..CALLS).map(|number| clerk.send(Release(number)))).await;
        for (number, call) in (0..CALLS).zip(calls) {
            assert_eq!(call.await.unwrap(), Ok(number));
        }
        assert_eq!(pair.here.calls_open(), 0);
    });
}

#[test]
fn replies_arrive_in_the_order_in_which_they_are_given() {
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
fn a_request_that_is_dropped_before_its_first_poll_sends_nothing() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        // A future without a poll has no effect, as usual in Rust.
        drop(clerk.send(Note(1)));
        drop(clerk.tell(Note(2)));
        assert_eq!(clerk.send(Notes).await, Ok(vec![]));
    });
}

#[test]
fn a_request_that_is_dropped_after_its_first_poll_is_not_open_any_more() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        let mut request = clerk.send(Hold(1));
        assert!(poll_once(&mut request).await.is_pending());
        assert_eq!(pair.here.calls_open(), 1);
        drop(request);
        assert_eq!(pair.here.calls_open(), 0);
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
    });
}

#[test]
fn try_send_returns_the_message_for_an_unknown_host() {
    run(async {
        let pair = Pair::start().await;
        let unknown = TestHost::start().await;
        let clerk = pair.here.cluster.bind(&unknown.serve(Clerk::default));
        let error = clerk.try_send(Note(7)).unwrap_err();
        assert_eq!(error.reason, NotDelivered::UnknownHost { host: unknown.identity() });
        assert_eq!(error.message, Note(7));
    });
}

#[test]
fn a_recipient_reaches_actors_of_different_types() {
    run(async {
        let pair = Pair::start().await;
        let (clerk, twin) = (pair.serve(Clerk::default), pair.serve(|| Twin));
        let recipients = [clerk.recipient::<Add>(), twin.recipient::<Add>()];
        let answers = join_all(recipients.iter().map(|to| to.send(Add(3)))).await;
        assert_eq!(answers, [Ok(3), Ok(6)]);
        assert_ne!(recipients[0], recipients[1]);
        // All ways of sending, also through a recipient. The sum shows that each arrived.
        recipients[0].do_send(Add(1));
        recipients[0].tell(Add(1)).await.unwrap();
        assert_eq!(recipients[0].try_send(Add(1)).unwrap().await, Ok(6));
    });
}

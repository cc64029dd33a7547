//! Links that break under sessions that survive: messages in flight arrive once and in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::{join, try_join_all};
use roadshow::Limits;
use roadshow::OutcomeUnknown;
use roadshow::prelude::*;

use crate::fixtures::{Add, Clerk, Hold, Note, Notes, Release};
use crate::hosts::{Pair, limits, run, until};
use crate::proxy::{Cut, Direction, Proxy, links};
use crate::recorder::{Book, Entry, Recorder, entries_of};

/// Sends entries in order, every fifth of them one way, and counts the answered ones.
async fn send_entries(
    ledger: &RemoteAddr<Recorder>,
    entries: u32,
    answered: &AtomicU32,
) -> Result<(), SendError> {
    let mut in_flight = VecDeque::new();
    for number in 0..entries {
        let entry = Entry::new(0, number);
        match number % 5 {
            // One-way messages share the order with calls, but have no answer that would show a loss.
            4 => ledger.tell(entry).await?,
            _ => in_flight.push_back((number, ledger.try_send(entry).unwrap())),
        }
        // Calls in flight at every break: a break without them would test nothing.
        while in_flight.len() > 64 || (number == entries - 1 && !in_flight.is_empty()) {
            let (number, call) = in_flight.pop_front().unwrap();
            // A lost or duplicated entry would shift all later answers.
            assert_eq!(call.await?, number);
            answered.fetch_add(1, Ordering::SeqCst);
        }
    }
    Ok(())
}

/// Breaks the link `breaks` times in different ways, each time after a share of the calls is answered.
async fn break_often(pair: &Pair, proxies: &[Proxy], breaks: u32, answered: &AtomicU32, calls: u32) {
    for number in 0..breaks {
        let due = (number + 1) * calls / (breaks + 1);
        let linked = || links(&pair.here, &pair.there) > number.into();
        until(|| answered.load(Ordering::SeqCst) >= due && linked()).await;
        // A reset discards unread bytes, and a finish does not. Both have to be survived.
        let cut = if number % 4 < 2 { Cut::Reset } else { Cut::Finish };
        // Every tenth break lasts until both sides have failed to dial, so that the back-off is covered
        // too.
        if number % 10 == 9 {
            let rejected = || proxies.iter().map(Proxy::rejected).sum::<usize>();
            let before = rejected();
            proxies.iter().for_each(|proxy| proxy.go_down(cut));
            until(|| rejected() > before + 1).await;
            proxies.iter().for_each(Proxy::heal);
        } else {
            proxies.iter().for_each(|proxy| proxy.cut(cut));
        }
    }
}

/// Two hosts send entries to each other while links break, and both ledgers are complete in the end.
async fn ledgers_are_complete(pair: &Pair, proxies: &[Proxy], breaks: u32, entries: u32) {
    let ledgers = [pair.serve(Recorder::quick), pair.there.cluster.bind(&pair.here.serve(Recorder::quick))];
    assert_eq!(ledgers[0].send(Book).await, Ok(vec![]), "the hosts have a link");
    let answered = AtomicU32::new(0);
    let send = try_join_all(ledgers.iter().map(|ledger| send_entries(ledger, entries, &answered)));
    let breaks = break_often(pair, proxies, breaks, &answered, 2 * entries / 5 * 4);
    join(send, breaks).await.0.unwrap();
    for ledger in ledgers {
        let book = ledger.send(Book).await.unwrap();
        assert!(entries_of(0, &book).into_iter().eq(0..entries));
    }
    // A leaked call would stay in memory forever.
    assert_eq!((pair.here.calls_open(), pair.there.calls_open()), (0, 0));
    assert_eq!((pair.here.dead_letters(), pair.there.dead_letters()), (0, 0));
}

#[test]
fn ten_thousand_calls_are_handled_once_and_in_order_while_the_link_breaks_a_hundred_times() {
    run(async {
        let (pair, proxy) = Proxy::between(Limits::default()).await;
        ledgers_are_complete(&pair, &[proxy], 100, 6_250).await;
        // Each break has to cost exactly one new link.
        assert_eq!(links(&pair.here, &pair.there), 101);
    });
}

#[test]
fn breaks_cost_no_call_when_both_hosts_may_dial() {
    run(async {
        let (pair, proxy) = Proxy::between(Limits::default()).await;
        let other = Proxy::before(&pair.here);
        other.introduce(&pair.here, &pair.there);
        ledgers_are_complete(&pair, &[proxy, other], 30, 1_500).await;
    });
}

/// Limits under which a silent link is given up soon.
fn short_timeouts() -> Limits {
    limits(|limits| {
        limits.heartbeat_interval = Duration::from_millis(50);
        limits.heartbeat_timeout = Duration::from_millis(200);
        limits.handshake_timeout = Duration::from_millis(300);
    })
}

#[test]
fn a_silent_network_ends_the_link_and_no_call() {
    const CALLS: u32 = 20;
    run(async {
        // A network may lose the bytes of one direction only.
        for held in [&[Direction::Forth][..], &[Direction::Back], &[Direction::Forth, Direction::Back]] {
            let (pair, proxy) = Proxy::between(short_timeouts()).await;
            let clerk = pair.serve(Clerk::default);
            let call = |number| clerk.try_send(Hold(number)).unwrap();
            let mut calls: Vec<_> = (0..CALLS).map(call).collect();
            assert_eq!(clerk.send(Notes).await.unwrap().len(), CALLS as usize);
            held.iter().for_each(|direction| proxy.hold(*direction));
            calls.extend((CALLS..2 * CALLS).map(call));
            until(|| !pair.here.linked(&pair.there)).await;
            calls.extend((2 * CALLS..3 * CALLS).map(call));
            proxy.heal();
            // Released in reverse order: an answer must find its call by its id, and not by its position.
            for number in (0..3 * CALLS).rev() {
                assert_eq!(clerk.send(Release(number)).await, Ok(true), "{held:?}");
            }
            assert!(try_join_all(calls).await.unwrap().into_iter().eq(0..3 * CALLS));
            assert!(clerk.send(Notes).await.unwrap().into_iter().eq(0..3 * CALLS));
            assert!(links(&pair.here, &pair.there) > 1);
        }
    });
}

#[test]
fn a_call_that_expires_before_the_link_is_back_is_never_handled() {
    run(async {
        let (pair, proxy) = Proxy::between(short_timeouts()).await;
        let clerk = pair.serve(Clerk::default);
        assert_eq!(clerk.send(Notes).await, Ok(vec![]));
        proxy.hold(Direction::Forth);
        let mut calls = vec![actix_rt::spawn(clerk.send(Note(1)).timeout(Duration::from_millis(20)))];
        until(|| !pair.here.linked(&pair.there) && !pair.there.linked(&pair.here)).await;
        calls.push(actix_rt::spawn(clerk.send(Note(2)).timeout(Duration::from_millis(20))));
        for call in calls {
            assert!(call.await.unwrap().unwrap_err().is_timeout());
        }
        proxy.heal();
        clerk.send(Note(3)).await.unwrap();
        assert_eq!(clerk.send(Notes).await, Ok(vec![3]));
    });
}

#[test]
fn a_refusing_port_ends_the_session_and_the_next_one_starts_empty() {
    run(async {
        let (pair, proxy) = Proxy::between(Limits::default()).await;
        let near = pair.there.serve(Clerk::default);
        let clerk = pair.here.cluster.bind(&near);
        let held = clerk.try_send(Hold(1)).unwrap();
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]));
        // A refusal on loopback proves that the process has ended, so the session ends, too.
        proxy.refuse();
        until(|| !pair.here.linked(&pair.there)).await;
        let queued = clerk.try_send(Add(100)).unwrap();
        clerk.do_send(Note(2));
        let (held, queued) = (held.await.unwrap_err(), queued.await.unwrap_err());
        // The held call was received, and the queued one was never written.
        assert!(matches!(held, SendError::OutcomeUnknown(OutcomeUnknown::SessionLost { .. })), "{held}");
        assert!(queued.is_not_delivered(), "{queued}");
        until(|| pair.here.dead_letters() == 1).await;
        proxy.heal();
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        assert_eq!(near.send(Release(1)).await, Ok(true));
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]));
        assert_eq!((links(&pair.here, &pair.there), pair.here.calls_open()), (2, 0));
    });
}

/// The network drops all bytes of the old link, and neither end notices: TCP would retransmit for minutes.
#[test]
fn a_silent_link_is_redialled_and_its_messages_in_flight_are_handled_once() {
    run(async {
        let (pair, proxy) = Proxy::between(Limits::default()).await;
        let clerk = pair.serve(Clerk::default);
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        proxy.hold(Direction::Forth);
        proxy.hold(Direction::Back);
        let call = actix_rt::spawn(clerk.send(Add(2)));
        until(|| pair.here.host.snapshot().peers[0].calls_open == 1).await;
        let there = pair.there.identity();
        pair.here.host.add_peer(there, pair.there.host.address().unwrap());
        // An agent redials its head in this way, before a heartbeat times out.
        pair.here.host.redial(there);
        let answer = tokio::time::timeout(Duration::from_secs(10), call).await;
        assert_eq!(answer.expect("before a heartbeat times out").unwrap(), Ok(3));
        assert_eq!(clerk.send(Add(0)).await, Ok(3));
    });
}

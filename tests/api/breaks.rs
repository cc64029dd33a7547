//! Links that break, and sessions that go on: what was under way arrives once, and in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::{join, try_join_all};
use roadshow::Limits;
use roadshow::host::OutcomeUnknown;
use roadshow::prelude::*;

use crate::cast::{Add, Clerk, Hold, Note, Notes, Release};
use crate::hosts::{Pair, limits, run, until};
use crate::ledger::{Book, Entry, Ledger, entries_of};
use crate::proxy::{Cut, Direction, Proxy, links};

/// Sends entries in order, every fifth of them one way, and counts those that are answered.
async fn keep_book(ledger: &RemoteAddr<Ledger>, entries: u32, answered: &AtomicU32) -> Result<(), SendError> {
    let mut under_way = VecDeque::new();
    for number in 0..entries {
        let entry = Entry::new(0, number);
        match number % 5 {
            4 => ledger.tell(entry).await?,
            _ => under_way.push_back((number, ledger.try_send(entry).unwrap())),
        }
        while under_way.len() > 64 || (number == entries - 1 && !under_way.is_empty()) {
            let (number, call) = under_way.pop_front().unwrap();
            // One entry lost or made twice, and it is another's answer.
            assert_eq!(call.await?, number);
            answered.fetch_add(1, Ordering::SeqCst);
        }
    }
    Ok(())
}

/// Breaks the link as often, in every way, whenever some calls more have been answered over it.
async fn break_often(pair: &Pair, proxies: &[Proxy], breaks: u32, answered: &AtomicU32, calls: u32) {
    for number in 0..breaks {
        let due = (number + 1) * calls / (breaks + 1);
        let linked = || links(&pair.here, &pair.there) > number.into();
        until(|| answered.load(Ordering::SeqCst) >= due && linked()).await;
        let cut = if number % 4 < 2 { Cut::Reset } else { Cut::Finish };
        if number % 10 == 9 {
            let turned_away = || proxies.iter().map(Proxy::turned_away).sum::<usize>();
            let before = turned_away();
            proxies.iter().for_each(|proxy| proxy.go_down(cut));
            until(|| turned_away() > before + 1).await;
            proxies.iter().for_each(Proxy::heal);
        } else {
            proxies.iter().for_each(|proxy| proxy.cut(cut));
        }
    }
}

/// Two hosts keep each other's books meanwhile, and nothing is wrong with them in the end.
async fn books_are_right(pair: &Pair, proxies: &[Proxy], breaks: u32, entries: u32) {
    let ledgers = [pair.serve(Ledger::quick), pair.there.cluster.bind(&pair.here.serve(Ledger::quick))];
    assert_eq!(ledgers[0].send(Book).await, Ok(vec![]), "the hosts are acquainted");
    let answered = AtomicU32::new(0);
    let keep = try_join_all(ledgers.iter().map(|ledger| keep_book(ledger, entries, &answered)));
    let breaks = break_often(pair, proxies, breaks, &answered, 2 * entries / 5 * 4);
    join(keep, breaks).await.0.unwrap();
    for ledger in ledgers {
        let book = ledger.send(Book).await.unwrap();
        assert!(entries_of(0, &book).into_iter().eq(0..entries));
    }
    assert_eq!((pair.here.calls_open(), pair.there.calls_open()), (0, 0));
    assert_eq!((pair.here.dead_letters(), pair.there.dead_letters()), (0, 0));
}

#[test]
fn ten_thousand_calls_are_each_handled_once_and_in_order_while_their_link_breaks_a_hundred_times() {
    run(async {
        let (pair, proxy) = Proxy::between(Limits::default()).await;
        books_are_right(&pair, &[proxy], 100, 6_250).await;
        assert_eq!(links(&pair.here, &pair.there), 101);
    });
}

#[test]
fn breaks_cost_no_call_when_both_hosts_may_dial() {
    run(async {
        let (pair, proxy) = Proxy::between(Limits::default()).await;
        let other = Proxy::before(&pair.here);
        other.introduce(&pair.here, &pair.there);
        books_are_right(&pair, &[proxy, other], 30, 1_500).await;
    });
}

/// A silent link does not last.
fn impatient() -> Limits {
    limits(|limits| {
        limits.heartbeat_interval = Duration::from_millis(50);
        limits.heartbeat_timeout = Duration::from_millis(200);
        limits.handshake_timeout = Duration::from_millis(300);
    })
}

#[test]
fn a_way_on_which_nothing_comes_through_ends_the_link_and_no_call() {
    const CALLS: u32 = 20;
    run(async {
        for held in [&[Direction::Forth][..], &[Direction::Back], &[Direction::Forth, Direction::Back]] {
            let (pair, proxy) = Proxy::between(impatient()).await;
            let clerk = pair.serve(Clerk::default);
            let call = |number| clerk.try_send(Hold(number)).unwrap();
            let mut calls: Vec<_> = (0..CALLS).map(call).collect();
            assert_eq!(clerk.send(Notes).await.unwrap().len(), CALLS as usize);
            held.iter().for_each(|direction| proxy.hold(*direction));
            calls.extend((CALLS..2 * CALLS).map(call));
            until(|| !pair.here.linked(&pair.there)).await;
            calls.extend((2 * CALLS..3 * CALLS).map(call));
            proxy.heal();
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
fn a_call_whose_time_is_up_before_the_link_is_back_never_begins() {
    run(async {
        let (pair, proxy) = Proxy::between(impatient()).await;
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
fn a_port_that_refuses_ends_the_session_and_the_next_one_begins_with_nothing() {
    run(async {
        let (pair, proxy) = Proxy::between(Limits::default()).await;
        let near = pair.there.serve(Clerk::default);
        let clerk = pair.here.cluster.bind(&near);
        let held = clerk.try_send(Hold(1)).unwrap();
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]));
        proxy.refuse();
        until(|| !pair.here.linked(&pair.there)).await;
        let queued = clerk.try_send(Add(100)).unwrap();
        clerk.do_send(Note(2));
        let (held, queued) = (held.await.unwrap_err(), queued.await.unwrap_err());
        assert!(matches!(held, SendError::OutcomeUnknown(OutcomeUnknown::LinkLost { .. })), "{held}");
        assert!(queued.is_not_delivered(), "{queued}");
        until(|| pair.here.dead_letters() == 1).await;
        proxy.heal();
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        assert_eq!(near.send(Release(1)).await, Ok(true));
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]));
        assert_eq!((links(&pair.here, &pair.there), pair.here.calls_open()), (2, 0));
    });
}

/// The way of the old link drops all bytes, and its ends do not know: TCP would send again for long.
#[test]
fn a_silent_link_is_dialled_anew_and_what_was_under_way_on_it_is_handled_once() {
    run(async {
        let (pair, proxy) = Proxy::between(Limits::default()).await;
        let clerk = pair.serve(Clerk::default);
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        proxy.hold(Direction::Forth);
        proxy.hold(Direction::Back);
        let waits = actix_rt::spawn(clerk.send(Add(2)));
        until(|| pair.here.host.snapshot().peers[0].calls_open == 1).await;
        let there = pair.there.identity();
        pair.here.host.add_peer(there, pair.there.host.address().unwrap());
        pair.here.host.redial(there);
        let answer = tokio::time::timeout(Duration::from_secs(10), waits).await;
        assert_eq!(answer.expect("before the heartbeats find out").unwrap(), Ok(3));
        assert_eq!(clerk.send(Add(0)).await, Ok(3));
    });
}

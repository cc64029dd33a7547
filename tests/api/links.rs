//! Links between hosts: made on demand, one a pair, drained at the end, and lost without losing count.

use std::time::Duration;

use futures_util::future::{join, join_all};
use roadshow::host::NotDelivered;
use roadshow::id::CallId;
use roadshow::prelude::*;
use roadshow::wire::{Call, Frame, Reply, Resume};
use tokio::net::TcpListener;

use crate::cast::{Add, Clerk, Hold, Note, Notes, Release};
use crate::hosts::{LOOPBACK, Pair, Plan, TestHost, limits, poll_once, run, until};
use crate::raw::{Raw, body_of};

/// Connections that are established to the ports of these hosts.
fn connections_to(sites: [&TestHost; 2]) -> usize {
    let ports = sites.map(|site| format!(":{:04X}", site.address().port()));
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let established = table.lines().filter_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, _remote, state) = (columns.next()?, columns.next()?, columns.next()?);
        (state == "01" && ports.iter().any(|port| local.ends_with(port))).then_some(())
    });
    established.count()
}

#[test]
fn a_link_is_made_by_the_first_message() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        assert!(!pair.here.linked(&pair.there) && clerk.connected());
        clerk.tell(Note(1)).await.unwrap();
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]));
        assert!(pair.here.linked(&pair.there) && pair.there.linked(&pair.here));
    });
}

#[test]
fn two_hosts_that_dial_each_other_at_once_end_with_one_link_and_lose_no_call() {
    const ROUNDS: usize = 200;
    const CALLS: u64 = 10;
    run(async {
        let [one, other] = [actix_rt::Arbiter::new(), actix_rt::Arbiter::new()];
        let [here, there] = [one.handle(), other.handle()];
        for round in 0..ROUNDS {
            let plan = |arbiter| Plan { arbiter: Some(arbiter), ..Plan::default() };
            let pair = Pair::of(plan(here.clone()), plan(there.clone())).await;
            let to_there = pair.serve(Clerk::default);
            let to_here = pair.there.cluster.bind(&pair.here.serve(Clerk::default));
            let calls = |clerk: RemoteAddr<Clerk>| async move {
                join_all((0..CALLS).map(|_| clerk.send(Add(1)))).await
            };
            let (mut there, mut here) = join(calls(to_there.clone()), calls(to_here.clone())).await;
            there.extend(calls(to_there).await);
            here.extend(calls(to_here).await);
            let expected: Vec<_> = (1..=2 * CALLS).map(Ok).collect();
            assert_eq!((there, here), (expected.clone(), expected), "round {round}");
            until(|| connections_to([&pair.here, &pair.there]) == 1).await;
        }
        one.stop();
        other.stop();
    });
}

#[test]
fn a_host_that_nobody_listens_for_answers_over_the_link_that_it_has() {
    run(async {
        let patience = Duration::from_millis(20);
        let plan = Plan { limits: limits(|limits| limits.connect_timeout = patience), ..Plan::default() };
        let (here, there) = (TestHost::start().await, plan.start().await);
        let clerk = there.cluster.bind(&here.serve(Clerk::default));
        let unknown = NotDelivered::UnknownHost { host: here.identity() };
        assert_eq!(clerk.send(Add(1)).await, Err(unknown.into()));
        here.knows(&there);
        assert_eq!(here.cluster.bind(&there.serve(Clerk::default)).send(Add(1)).await, Ok(1));
        // Told by nobody where it listens, and reached all the same.
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        here.host.abort();
        until(|| !there.linked(&here)).await;
        // It may come back. As long as nobody knows better, a call waits as long as its caller does.
        let error = clerk.send(Add(1)).timeout(patience).await.unwrap_err();
        assert_eq!(error, NotDelivered::Expired.into());
        let mut waiting = clerk.send(Add(1));
        assert!(poll_once(&mut waiting).await.is_pending());
        there.host.mark_peer_down(here.identity(), "its lifeline ended");
        let error = waiting.await.unwrap_err();
        assert!(error.is_not_delivered() && error.to_string().contains("its lifeline ended"), "{error}");
    });
}

#[test]
fn a_host_that_shuts_down_answers_the_calls_that_it_has_and_takes_no_more() {
    run(async {
        let pair = Pair::start().await;
        let near = pair.there.serve(Clerk::default);
        let clerk = pair.here.cluster.bind(&near);
        let held = clerk.try_send(Hold(1)).unwrap();
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]));
        let shutdown = pair.there.host.shutdown("the test is over");
        let goes_on = async {
            let refused = loop {
                if let Err(error) = clerk.send(Add(1)).await {
                    break error;
                }
            };
            assert_eq!(refused, NotDelivered::Closing.into());
            near.send(Release(1)).await.unwrap();
            assert_eq!(held.await, Ok(1));
        };
        join(shutdown, goes_on).await;
        assert!(clerk.send(Add(1)).await.unwrap_err().is_not_delivered());
        assert_eq!(pair.here.dead_letters(), 0);
    });
}

#[test]
fn a_host_that_shuts_down_gets_out_what_it_has_told_and_hears_the_answers_that_it_awaits() {
    run(async {
        let pair = Pair::start().await;
        let near = pair.there.serve(Clerk::default);
        let clerk = pair.here.cluster.bind(&near);
        let held = clerk.try_send(Hold(7)).unwrap();
        for number in 0..1000 {
            clerk.do_send(Note(number));
        }
        while !near.send(Notes).await.unwrap().contains(&7) {}
        let mut shutdown = Box::pin(pair.here.host.shutdown("the test is over"));
        assert!(poll_once(&mut shutdown).await.is_pending());
        assert_eq!(clerk.try_send(Note(0)).unwrap_err().reason, NotDelivered::Closing);
        assert_eq!(near.send(Release(7)).await, Ok(true));
        shutdown.await;
        assert_eq!(held.await, Ok(7));
        until(|| !pair.there.linked(&pair.here)).await;
        // They are there, and some may wait for the actor's next turn.
        while near.send(Notes).await.unwrap().len() < 1001 {}
    });
}

#[test]
fn a_host_that_cannot_be_reached_fails_the_call_at_once_and_safely() {
    run(async {
        let site = TestHost::start().await;
        let nobody = TestHost::start().await;
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let free = listener.local_addr().unwrap();
        drop(listener);
        site.host.add_peer(nobody.identity(), free);
        let clerk = site.cluster.bind(&nobody.serve(Clerk::default));
        let error = clerk.send(Add(1)).await.unwrap_err();
        assert!(matches!(error, SendError::NotDelivered(NotDelivered::Unreachable { .. })), "{error}");
        assert!(error.to_string().contains(&free.to_string()), "{error}");
        clerk.do_send(Note(1));
        until(|| site.dead_letters() == 1).await;
        // It comes up, and the same address works.
        site.knows(&nobody);
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
    });
}

#[test]
fn hosts_of_different_secrets_do_not_link_and_say_why() {
    run(async {
        let pair = Pair::of(Plan::default(), Plan { secret: [9; 32], ..Plan::default() }).await;
        let to_there = pair.serve(Clerk::default);
        let to_here = pair.there.cluster.bind(&pair.here.serve(Clerk::default));
        for clerk in [to_there, to_here] {
            let error = clerk.send(Add(1)).await.unwrap_err();
            assert!(matches!(error, SendError::NotDelivered(NotDelivered::Unreachable { .. })), "{error}");
            assert!(error.to_string().contains("secret of this cluster"), "{error}");
        }
        assert!(!pair.here.linked(&pair.there) && !pair.there.linked(&pair.here));
    });
}

fn call_of(frame: Option<Frame>) -> Call {
    match frame {
        Some(Frame::Call(call)) => call,
        other => panic!("{other:?}"),
    }
}

#[test]
fn calls_that_a_lost_link_did_not_bring_are_written_again_to_the_next() {
    run(async {
        let site = TestHost::start().await;
        let (listener, identity) = Raw::listen_for(&site).await;
        let clerk: RemoteAddr<Clerk> = site.cluster.bind(&Raw::addr_of(identity, 1));
        let (first, second) = (clerk.try_send(Add(1)).unwrap(), clerk.try_send(Add(2)).unwrap());
        let mut raw = Raw::accept(&listener, identity).await;
        let had = call_of(raw.read().await);
        drop(raw);
        let mut raw =
            Raw::accept_at(&listener, identity, Resume { epoch: 0, received: 1, ..Resume::default() }).await;
        let again = call_of(raw.read().await);
        assert_ne!(again.call, had.call, "what the peer has had is not written again");
        raw.write(Frame::Reply(Reply { call: again.call, body: body_of(&2) })).await;
        raw.write(Frame::Reply(Reply { call: had.call, body: body_of(&1) })).await;
        assert_eq!((first.await, second.await), (Ok(1), Ok(2)));
    });
}

#[test]
fn calls_are_in_doubt_when_the_peer_has_dropped_its_half_of_the_session() {
    run(async {
        let site = TestHost::start().await;
        let (listener, identity) = Raw::listen_for(&site).await;
        let clerk: RemoteAddr<Clerk> = site.cluster.bind(&Raw::addr_of(identity, 1));
        let call = clerk.try_send(Add(1)).unwrap();
        let mut raw = Raw::accept(&listener, identity).await;
        call_of(raw.read().await);
        drop(raw);
        let mut raw =
            Raw::accept_at(&listener, identity, Resume { epoch: 1, received: 1, ..Resume::default() }).await;
        let in_doubt = call.await.unwrap_err();
        assert!(
            in_doubt.is_outcome_unknown() && in_doubt.to_string().contains("reset the session"),
            "{in_doubt}"
        );
        let next = clerk.try_send(Add(2)).unwrap();
        let called = call_of(raw.read().await);
        raw.write(Frame::Reply(Reply { call: called.call, body: body_of(&2) })).await;
        assert_eq!(next.await, Ok(2));
    });
}

#[test]
fn a_host_that_ends_without_a_word_leaves_its_open_calls_in_doubt() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        let held = clerk.try_send(Hold(1)).unwrap();
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]));
        pair.there.host.abort();
        assert!(held.await.unwrap_err().is_outcome_unknown());
        assert!(clerk.send(Add(1)).await.unwrap_err().is_not_delivered());
        assert_eq!(pair.here.calls_open(), 0);
    });
}

#[test]
fn a_host_that_is_known_to_have_ended_fails_everything_with_the_cause() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        let held = clerk.try_send(Hold(1)).unwrap();
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]));
        pair.here.host.mark_peer_down(pair.there.identity(), "killed by signal 9");
        let in_doubt = held.await.unwrap_err();
        assert!(in_doubt.is_outcome_unknown() && in_doubt.to_string().contains("signal 9"), "{in_doubt}");
        assert!(!clerk.connected());
        let safe = clerk.send(Add(1)).await.unwrap_err();
        assert!(safe.is_not_delivered() && safe.to_string().contains("signal 9"), "{safe}");
        assert!(clerk.tell(Note(1)).await.is_err());
    });
}

#[test]
fn a_proven_peer_that_breaks_the_protocol_loses_its_link_alone() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        let held = clerk.try_send(Hold(1)).unwrap();
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]));
        let mut raw = Raw::connect(&pair.there).await;
        let target = Raw::target_of(&clerk);
        let body = body_of(&Hold(2));
        let call = Frame::Call(Call {
            call: CallId(1),
            target,
            message: Hold::HASH,
            timeout_ms: 0,
            low_watermark: None,
            body,
        });
        raw.write_all([call.clone(), call]).await;
        assert!(raw.read().await.is_none(), "a call that comes twice ends the link");
        assert_eq!(clerk.send(Release(1)).await, Ok(true));
        assert_eq!(held.await, Ok(1));
        // The first of the two was valid, and was handled.
        assert_eq!(clerk.send(Notes).await, Ok(vec![1, 2]));
    });
}

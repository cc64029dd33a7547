//! Links between hosts: opened on demand, one for each pair, drained at shutdown, and replaced after a
//! loss.

use std::time::Duration;

use futures_util::future::{join, join_all};
use roadshow::NotDelivered;
use roadshow::internals::id::CallId;
use roadshow::internals::wire::{Call, Frame, Reply, Resume};
use roadshow::prelude::*;
use tokio::net::TcpListener;

use crate::fixtures::{Add, Clerk, Hold, Note, Notes, Release};
use crate::hosts::{LOOPBACK, Pair, Plan, TestHost, limits, poll_once, run, until};
use crate::raw::{Raw, body_of};

/// Counts the established connections to the ports of these hosts.
fn connections_to(sites: [&TestHost; 2]) -> usize {
    // The table of the kernel has ports in hexadecimal.
    let ports = sites.map(|site| format!(":{:04X}", site.address().port()));
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let established = table.lines().filter_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, _remote, state) = (columns.next()?, columns.next()?, columns.next()?);
        // State 01 is ESTABLISHED. Only the accepting end has the listening port as its local one.
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
fn simultaneous_dials_end_with_one_link_and_lose_no_call() {
    // Many rounds, because the order of the two dials differs from run to run.
    const ROUNDS: usize = 200;
    const CALLS: u64 = 10;
    run(async {
        // The two actor threads are shared by all rounds: 400 threads would take longer than the test.
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
            // The losing connection is closed after the other one has taken over.
            until(|| connections_to([&pair.here, &pair.there]) == 1).await;
        }
        one.stop();
        other.stop();
    });
}

#[test]
fn a_host_without_the_peer_s_address_answers_over_the_existing_link() {
    run(async {
        let timeout = Duration::from_millis(20);
        let plan = Plan { limits: limits(|limits| limits.connect_timeout = timeout), ..Plan::default() };
        let (here, there) = (TestHost::start().await, plan.start().await);
        let clerk = there.cluster.bind(&here.serve(Clerk::default));
        let unknown = NotDelivered::UnknownHost { host: here.identity() };
        assert_eq!(clerk.send(Add(1)).await, Err(unknown.into()));
        here.knows(&there);
        assert_eq!(here.cluster.bind(&there.serve(Clerk::default)).send(Add(1)).await, Ok(1));
        // The far host has no address of the near one, and uses the link that the near one dialled.
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        here.host.abort();
        until(|| !there.linked(&here)).await;
        // The peer may reconnect. Until it is known to be down, a call waits until its timeout.
        let error = clerk.send(Add(1)).timeout(timeout).await.unwrap_err();
        assert_eq!(error, NotDelivered::Expired.into());
        let mut waiting = clerk.send(Add(1));
        assert!(poll_once(&mut waiting).await.is_pending());
        there.host.mark_peer_down(here.identity(), "its control socket closed");
        let error = waiting.await.unwrap_err();
        assert!(
            error.is_not_delivered() && error.to_string().contains("its control socket closed"),
            "{error}"
        );
    });
}

#[test]
fn a_host_that_shuts_down_answers_its_open_calls_and_accepts_no_more() {
    run(async {
        let pair = Pair::start().await;
        let near = pair.there.serve(Clerk::default);
        let clerk = pair.here.cluster.bind(&near);
        let held = clerk.try_send(Hold(1)).unwrap();
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]));
        let shutdown = pair.there.host.shutdown("the test is over");
        let calls = async {
            // The close frame may arrive after a few more calls.
            let rejected = loop {
                if let Err(error) = clerk.send(Add(1)).await {
                    break error;
                }
            };
            assert_eq!(rejected, NotDelivered::Closing.into());
            near.send(Release(1)).await.unwrap();
            assert_eq!(held.await, Ok(1));
        };
        join(shutdown, calls).await;
        assert!(clerk.send(Add(1)).await.unwrap_err().is_not_delivered());
        assert_eq!(pair.here.dead_letters(), 0);
    });
}

#[test]
fn a_host_that_shuts_down_sends_its_one_way_messages_and_awaits_its_answers() {
    run(async {
        let pair = Pair::start().await;
        let near = pair.there.serve(Clerk::default);
        let clerk = pair.here.cluster.bind(&near);
        let held = clerk.try_send(Hold(7)).unwrap();
        for number in 0..1000 {
            clerk.do_send(Note(number));
        }
        // The held call has arrived, so its answer is owed.
        while !near.send(Notes).await.unwrap().contains(&7) {}
        let mut shutdown = Box::pin(pair.here.host.shutdown("the test is over"));
        assert!(poll_once(&mut shutdown).await.is_pending());
        assert_eq!(clerk.try_send(Note(0)).unwrap_err().reason, NotDelivered::Closing);
        assert_eq!(near.send(Release(7)).await, Ok(true));
        shutdown.await;
        assert_eq!(held.await, Ok(7));
        until(|| !pair.there.linked(&pair.here)).await;
        // The messages have arrived, but some may still wait in the actor's mailbox.
        while near.send(Notes).await.unwrap().len() < 1001 {}
    });
}

#[test]
fn an_unreachable_host_fails_the_call_immediately_as_not_delivered() {
    run(async {
        let site = TestHost::start().await;
        let unreachable = TestHost::start().await;
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let free = listener.local_addr().unwrap();
        // Nothing listens on this port now, and no other test gets it soon.
        drop(listener);
        site.host.add_peer(unreachable.identity(), free);
        let clerk = site.cluster.bind(&unreachable.serve(Clerk::default));
        let error = clerk.send(Add(1)).await.unwrap_err();
        assert!(matches!(error, SendError::NotDelivered(NotDelivered::Unreachable { .. })), "{error}");
        // The address tells the user which host is missing.
        assert!(error.to_string().contains(&free.to_string()), "{error}");
        clerk.do_send(Note(1));
        until(|| site.dead_letters() == 1).await;
        // The host becomes reachable, and the same address works.
        site.knows(&unreachable);
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
    });
}

#[test]
fn hosts_with_different_secrets_open_no_link_and_name_the_cause() {
    run(async {
        let pair = Pair::of(Plan::default(), Plan { secret: [9; 32], ..Plan::default() }).await;
        let to_there = pair.serve(Clerk::default);
        let to_here = pair.there.cluster.bind(&pair.here.serve(Clerk::default));
        // Either side may detect the wrong secret first.
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
fn calls_not_received_over_a_lost_link_are_retransmitted_over_the_next() {
    run(async {
        let site = TestHost::start().await;
        let (listener, identity) = Raw::listen_for(&site).await;
        let clerk: RemoteAddr<Clerk> = site.cluster.bind(&Raw::addr_of(identity, 1));
        let (first, second) = (clerk.try_send(Add(1)).unwrap(), clerk.try_send(Add(2)).unwrap());
        let mut raw = Raw::accept(&listener, identity).await;
        let received = call_of(raw.read().await);
        drop(raw);
        let mut raw =
            // The peer confirms the first call, so only the second is lost.
            Raw::accept_at(&listener, identity, Resume { epoch: 0, received: 1, ..Resume::default() }).await;
        let again = call_of(raw.read().await);
        assert_ne!(again.call, received.call, "what the peer has received is not written again");
        raw.write(Frame::Reply(Reply { call: again.call, body: body_of(&2) })).await;
        raw.write(Frame::Reply(Reply { call: received.call, body: body_of(&1) })).await;
        assert_eq!((first.await, second.await), (Ok(1), Ok(2)));
    });
}

#[test]
fn calls_have_an_unknown_outcome_after_the_peer_reset_the_session() {
    run(async {
        let site = TestHost::start().await;
        let (listener, identity) = Raw::listen_for(&site).await;
        let clerk: RemoteAddr<Clerk> = site.cluster.bind(&Raw::addr_of(identity, 1));
        let call = clerk.try_send(Add(1)).unwrap();
        let mut raw = Raw::accept(&listener, identity).await;
        call_of(raw.read().await);
        drop(raw);
        let mut raw =
            // A new epoch: the peer has lost its state, and the call may have run before.
            Raw::accept_at(&listener, identity, Resume { epoch: 1, received: 1, ..Resume::default() }).await;
        let unknown = call.await.unwrap_err();
        assert!(
            unknown.is_outcome_unknown() && unknown.to_string().contains("reset the session"),
            "{unknown}"
        );
        let next = clerk.try_send(Add(2)).unwrap();
        let called = call_of(raw.read().await);
        raw.write(Frame::Reply(Reply { call: called.call, body: body_of(&2) })).await;
        assert_eq!(next.await, Ok(2));
    });
}

#[test]
fn open_calls_have_an_unknown_outcome_after_their_host_ends_without_a_goodbye() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        let held = clerk.try_send(Hold(1)).unwrap();
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]));
        // Without a close frame, as after a crash.
        pair.there.host.abort();
        assert!(held.await.unwrap_err().is_outcome_unknown());
        assert!(clerk.send(Add(1)).await.unwrap_err().is_not_delivered());
        assert_eq!(pair.here.calls_open(), 0);
    });
}

#[test]
fn all_calls_to_a_host_that_is_down_fail_with_the_cause() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        let held = clerk.try_send(Hold(1)).unwrap();
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]));
        pair.here.host.mark_peer_down(pair.there.identity(), "killed by signal 9");
        let unknown = held.await.unwrap_err();
        assert!(unknown.is_outcome_unknown() && unknown.to_string().contains("signal 9"), "{unknown}");
        assert!(!clerk.connected());
        let rejected = clerk.send(Add(1)).await.unwrap_err();
        assert!(rejected.is_not_delivered() && rejected.to_string().contains("signal 9"), "{rejected}");
        assert!(clerk.tell(Note(1)).await.is_err());
    });
}

#[test]
fn a_protocol_error_of_a_proven_peer_ends_only_its_own_link() {
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
        // Both in one batch, so that the host has read the first when it meets the second.
        raw.write_all([call.clone(), call]).await;
        assert!(raw.read().await.is_none(), "a duplicate call ends the link");
        assert_eq!(clerk.send(Release(1)).await, Ok(true));
        assert_eq!(held.await, Ok(1));
        // The first of the two was valid, and is handled although the second ended the link.
        assert_eq!(clerk.send(Notes).await, Ok(vec![1, 2]));
    });
}

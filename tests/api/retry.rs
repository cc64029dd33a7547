//! Calls with a retry policy: retried after a session loss, handled once, and failed in the end.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join;
use futures_util::{StreamExt, TryFutureExt, TryStreamExt, stream};
use roadshow::Limits;
use roadshow::internals::host::{NotDelivered, OutcomeUnknown, fresh_identity};
use roadshow::internals::id::{CallId, HostUid};
use roadshow::internals::wire::{Call, Frame, Reply, Resume, Watermark};
use roadshow::prelude::*;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::fixtures::{Add, Clerk, Hold, Note, Notes, Release};
use crate::hosts::{LOOPBACK, PATIENCE, TestHost, run, until};
use crate::proxy::{Proxy, links};
use crate::raw::{Raw, body_of};
use crate::recorder::{Book, Entry, Recorder, entries_of};

const SOON: Duration = Duration::from_millis(1);

/// Delay longer than any test.
const NEVER: Duration = PATIENCE.saturating_mul(10);

/// Scripted peer that resets its session with every link.
struct ResettingPeer {
    site: TestHost,
    listener: TcpListener,
    identity: HostUid,
    links: u32,
}

impl ResettingPeer {
    async fn start() -> Self {
        let site = TestHost::start().await;
        let (listener, identity) = Raw::listen_for(&site).await;
        Self { site, listener, identity, links: 0 }
    }

    /// Returns the address of one of the peer's actors.
    fn clerk(&self) -> RemoteAddr<Clerk> {
        self.site.cluster.bind(&Raw::addr_of(self.identity, 1))
    }

    /// Calls the peer with a retry policy.
    fn call(&self, policy: Retry) -> JoinHandle<Result<u64, SendError>> {
        actix_rt::spawn(self.clerk().send(Add(1)).retry(policy))
    }

    /// Accepts the next link.
    async fn link(&mut self) -> Raw {
        // Another epoch for each link tells the host that the session is lost.
        let resume = Resume { epoch: self.links, received: 0, ..Resume::default() };
        self.links += 1;
        Raw::accept_at(&self.listener, self.identity, resume).await
    }

    /// Accepts the next link, and returns the call received over it.
    async fn receive_call(&mut self) -> (Call, Raw) {
        let mut link = self.link().await;
        let call = call_of(link.read().await);
        (call, link)
    }

    /// Receives the call over the next link, and then breaks the link.
    async fn receive_and_break(&mut self) -> Call {
        let (call, _link) = self.receive_call().await;
        call
    }
}

fn call_of(frame: Option<Frame>) -> Call {
    match frame {
        Some(Frame::Call(call)) => call,
        other => panic!("{other:?}"),
    }
}

fn answer(call: &Call) -> Frame {
    Frame::Reply(Reply { call: call.call, body: body_of(&1) })
}

#[test]
fn a_call_with_a_policy_is_retried_under_its_id_after_a_session_loss() {
    run(async {
        let mut peer = ResettingPeer::start().await;
        let request = peer.call(Retry::times(3).delay(SOON));
        let first = peer.receive_and_break().await;
        // No earlier call is open, so the watermark is the call itself.
        assert_eq!(first.low_watermark, Some(first.call));
        for _ in 0..2 {
            // The same id and content: the receiver recognizes a call that it has handled.
            assert_eq!(peer.receive_and_break().await, first);
        }
        let (last, mut link) = peer.receive_call().await;
        assert_eq!(last, first);
        link.write(answer(&last)).await;
        assert_eq!(request.await.unwrap(), Ok(1));
        // The answered call cannot be retried any more, so the watermark passes it.
        let watermark = Watermark { call: CallId(first.call.0 + 1) };
        assert_eq!(link.read().await, Some(Frame::Watermark(watermark)));
    });
}

#[test]
fn a_call_without_a_policy_has_an_unknown_outcome_after_a_session_loss() {
    run(async {
        let mut peer = ResettingPeer::start().await;
        let request = peer.clerk().try_send(Add(1)).unwrap();
        let first = peer.receive_and_break().await;
        assert_eq!(first.low_watermark, None);
        let mut link = peer.link().await;
        let error = request.await.unwrap_err();
        assert!(matches!(error, SendError::OutcomeUnknown(OutcomeUnknown::SessionLost { .. })), "{error}");
        let next = peer.clerk().try_send(Add(2)).unwrap();
        let call = call_of(link.read().await);
        assert_ne!((call.call, &call.body), (first.call, &first.body), "the first call is not retried");
        link.write(answer(&call)).await;
        assert_eq!(next.await, Ok(1));
    });
}

#[test]
fn a_call_that_is_lost_in_every_attempt_has_an_unknown_outcome() {
    run(async {
        let mut peer = ResettingPeer::start().await;
        let request = peer.call(Retry::times(2).delay(SOON));
        let calls =
            // The first attempt and two retries.
            [peer.receive_and_break().await, peer.receive_and_break().await, peer.receive_and_break().await];
        let mut link = peer.link().await;
        let error = request.await.unwrap().unwrap_err();
        assert!(error.is_outcome_unknown() && error.to_string().contains("reset the session"), "{error}");
        let watermark = Watermark { call: CallId(calls[0].call.0 + 1) };
        assert_eq!(link.read().await, Some(Frame::Watermark(watermark)));
    });
}

#[test]
fn a_call_to_an_unreachable_host_succeeds_once_the_host_is_reachable() {
    run(async {
        let (site, late) = (TestHost::start().await, TestHost::start().await);
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        site.host.add_peer(late.identity(), listener.local_addr().unwrap());
        drop(listener);
        let clerk = site.cluster.bind(&late.serve(Clerk::default));
        let failed = clerk.send(Add(1)).retry(Retry::times(2).delay(SOON)).await.unwrap_err();
        assert!(
            matches!(failed, SendError::NotDelivered(NotDelivered::Unreachable { .. })),
            "it was never sent: {failed}"
        );
        let request = actix_rt::spawn(clerk.send(Add(1)).retry(Retry::times(10).delay(SOON)));
        // Its failure shows that at least one dial was refused.
        clerk.do_send(Note(1));
        until(|| site.dead_letters() == 1).await;
        site.knows(&late);
        assert_eq!(request.await.unwrap(), Ok(1));
    });
}

#[test]
fn a_host_that_is_down_is_not_called_again() {
    run(async {
        // The host goes down while the call is open, and while it waits for its next attempt.
        for lost in [false, true] {
            let mut peer = ResettingPeer::start().await;
            let request = peer.call(Retry::times(3).delay(NEVER));
            let (_, mut link) = peer.receive_call().await;
            if lost {
                drop(link);
                link = peer.link().await;
                until(|| peer.site.calls_open() == 0).await;
            }
            peer.site.host.mark_peer_down(peer.identity, "killed by signal 9");
            let error = request.await.unwrap().unwrap_err();
            assert!(error.is_outcome_unknown() && error.to_string().contains("signal 9"), "{error}");
            assert_eq!(link.read().await, None);
        }
    });
}

#[test]
fn a_host_that_ends_fails_its_own_calls() {
    run(async {
        let mut peer = ResettingPeer::start().await;
        let request = peer.call(Retry::times(3).delay(NEVER));
        peer.receive_and_break().await;
        let _link = peer.link().await;
        until(|| peer.site.calls_open() == 0).await;
        peer.site.host.abort();
        assert!(request.await.unwrap().unwrap_err().is_outcome_unknown());
    });
}

#[test]
fn a_call_fails_when_it_expires_between_two_attempts() {
    const TIMEOUT: Duration = Duration::from_millis(50);
    run(async {
        let policy = Retry::times(3).delay(NEVER);
        let mut peer = ResettingPeer::start().await;
        let request = actix_rt::spawn(peer.clerk().send(Add(1)).retry(policy).timeout(TIMEOUT));
        let call = peer.receive_and_break().await;
        // The frame has the remaining time and not the whole.
        assert!((1..=50).contains(&call.timeout_ms));
        let _link = peer.link().await;
        let error = request.await.unwrap().unwrap_err();
        assert_eq!(error, SendError::OutcomeUnknown(OutcomeUnknown::TimedOut));
        assert_eq!(peer.site.calls_open(), 0);

        // A call that was never sent cannot have been handled.
        let mut unreachable = ResettingPeer::start().await;
        // The new listener has another port, so nothing accepts at the address that the host dials.
        unreachable.listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let error = unreachable.clerk().send(Add(1)).retry(policy).timeout(TIMEOUT).await.unwrap_err();
        assert_eq!(error, SendError::NotDelivered(NotDelivered::Expired));
    });
}

#[test]
fn calls_with_a_policy_are_handled_once_although_sessions_are_lost() {
    const CALLS: u32 = 1_000;
    const LOSSES: u32 = 10;
    run(async {
        let (pair, proxy) = Proxy::between(Limits::default()).await;
        let (ledger, clerk) = (pair.serve(Recorder::quick), pair.serve(Clerk::default));
        let answered = AtomicU32::new(0);
        let policy = Retry::times(20).delay(SOON);
        let calls = stream::iter(0..CALLS).map(Ok::<_, SendError>).try_for_each_concurrent(50, |number| {
            let call = ledger.send(Entry::new(0, number)).retry(policy);
            call.map_ok(|_| {
                answered.fetch_add(1, Ordering::SeqCst);
            })
        });
        let losses = async {
            for number in 1..=LOSSES {
                let due = number * CALLS / (LOSSES + 1);
                until(|| answered.load(Ordering::SeqCst) >= due && pair.here.linked(&pair.there)).await;
                // A held call without a policy: its failure shows that the session is lost.
                let lost = clerk.try_send(Hold(number)).unwrap();
                proxy.refuse();
                assert!(lost.await.is_err());
                proxy.heal();
            }
        };
        join(calls, losses).await.0.unwrap();
        assert_eq!(answered.load(Ordering::SeqCst), CALLS);
        let mut entries = entries_of(0, &ledger.send(Book).await.unwrap());
        // Retried calls may arrive after later ones.
        entries.sort_unstable();
        assert!(entries.into_iter().eq(0..CALLS));
        assert_eq!(links(&pair.here, &pair.there), u64::from(LOSSES) + 1);
    });
}

/// Scripted caller that resets its session with every link.
struct ScriptedCaller {
    site: TestHost,
    near: RemoteAddr<Clerk>,
    identity: HostUid,
    links: u64,
}

impl ScriptedCaller {
    async fn start() -> Self {
        let site = TestHost::start().await;
        let near = site.serve(Clerk::default);
        Self { site, near, identity: fresh_identity(), links: 0 }
    }

    /// Sends calls over a new link.
    async fn call(&mut self, calls: impl IntoIterator<Item = Call>) -> Raw {
        let resume = Resume { epoch: self.links as u32, received: 0, ..Resume::default() };
        self.links += 1;
        let mut link = Raw::connect_at(&self.site, self.identity, self.links, resume).await;
        link.write_all(calls.into_iter().map(Frame::Call)).await;
        link
    }

    /// Returns a retryable call whose id is also the watermark.
    fn retryable<M: RemoteMessage>(&self, number: u64, message: M) -> Call {
        Call {
            call: CallId(number),
            target: Raw::target_of(&self.near),
            message: M::HASH,
            timeout_ms: 0,
            low_watermark: Some(CallId(number)),
            body: body_of(&message),
        }
    }
}

#[test]
fn a_retried_call_is_handled_once_and_gets_the_same_answer() {
    run(async {
        let mut caller = ScriptedCaller::start().await;
        let call = caller.retryable(1, Add(1));
        for _ in 0..3 {
            let mut link = caller.call([call.clone()]).await;
            assert_eq!(link.read().await, Some(answer(&call)));
        }
        assert_eq!(caller.near.send(Add(1)).await, Ok(2));
        // A call below the watermark is forgotten, so its id is accepted as a new call.
        let watermark = Frame::Watermark(Watermark { call: CallId(2) });
        let mut link = caller.call([]).await;
        link.write_all([watermark, Frame::Call(call)]).await;
        // The answer shows that the call was handled.
        link.read().await.unwrap();
        assert_eq!(caller.near.send(Add(1)).await, Ok(4));
    });
}

#[test]
fn a_call_that_is_retried_while_its_handler_runs_is_answered_once() {
    run(async {
        let mut caller = ScriptedCaller::start().await;
        let call = caller.retryable(1, Hold(7));
        for _ in 0..3 {
            drop(caller.call([call.clone()]).await);
        }
        let mut link = caller.call([call.clone()]).await;
        let accepted = || caller.site.host.snapshot().peers[0].calls_accepted;
        let linked = || caller.site.host.snapshot().peers[0].links == 4;
        until(|| linked() && accepted() == 1).await;
        while !caller.near.send(Release(7)).await.unwrap() {}
        let reply = Reply { call: call.call, body: body_of(&7) };
        assert_eq!(link.read().await, Some(Frame::Reply(reply)));
        assert_eq!(caller.near.send(Notes).await, Ok(vec![7]));
        assert_eq!(accepted(), 0);
    });
}

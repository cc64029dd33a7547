//! Calls with a policy: made again when their session is lost, handled once, and given up in the end.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join;
use futures_util::{StreamExt, TryFutureExt, TryStreamExt, stream};
use roadshow::Limits;
use roadshow::host::{NotDelivered, OutcomeUnknown, fresh_identity};
use roadshow::id::{CallId, HostUid};
use roadshow::prelude::*;
use roadshow::wire::{Call, Frame, Reply, Resume, Watermark};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::cast::{Add, Clerk, Hold, Note, Notes, Release};
use crate::hosts::{LOOPBACK, PATIENCE, TestHost, run, until};
use crate::ledger::{Book, Entry, Ledger, entries_of};
use crate::proxy::{Proxy, links};
use crate::raw::{Raw, body_of};

const SOON: Duration = Duration::from_millis(1);

/// Longer than any test takes.
const NEVER: Duration = PATIENCE.saturating_mul(10);

/// A peer by hand that forgets its session with every link.
struct Forgetful {
    site: TestHost,
    listener: TcpListener,
    identity: HostUid,
    links: u32,
}

impl Forgetful {
    async fn start() -> Self {
        let site = TestHost::start().await;
        let (listener, identity) = Raw::listen_for(&site).await;
        Self { site, listener, identity, links: 0 }
    }

    /// The address of one of its actors.
    fn clerk(&self) -> RemoteAddr<Clerk> {
        self.site.cluster.bind(&Raw::addr_of(self.identity, 1))
    }

    /// Calls it, if necessary again.
    fn call(&self, policy: Retry) -> JoinHandle<Result<u64, SendError>> {
        actix_rt::spawn(self.clerk().send(Add(1)).retry(policy))
    }

    /// The next link.
    async fn link(&mut self) -> Raw {
        let resume = Resume { epoch: self.links, received: 0, ..Resume::default() };
        self.links += 1;
        Raw::accept_at(&self.listener, self.identity, resume).await
    }

    /// The call that comes over the next link, and the link.
    async fn called(&mut self) -> (Call, Raw) {
        let mut link = self.link().await;
        let call = call_of(link.read().await);
        (call, link)
    }

    /// The call that comes over the next link, which breaks.
    async fn loses(&mut self) -> Call {
        let (call, _link) = self.called().await;
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
fn a_call_with_a_policy_is_made_again_under_its_number_when_its_session_was_lost() {
    run(async {
        let mut peer = Forgetful::start().await;
        let request = peer.call(Retry::times(3).delay(SOON));
        let first = peer.loses().await;
        assert_eq!(first.low_watermark, Some(first.call));
        for _ in 0..2 {
            assert_eq!(peer.loses().await, first);
        }
        let (last, mut link) = peer.called().await;
        assert_eq!(last, first);
        link.write(answer(&last)).await;
        assert_eq!(request.await.unwrap(), Ok(1));
        // It will not be made again.
        let floor = Watermark { call: CallId(first.call.0 + 1) };
        assert_eq!(link.read().await, Some(Frame::Watermark(floor)));
    });
}

#[test]
fn a_call_without_a_policy_is_in_doubt_when_its_session_was_lost() {
    run(async {
        let mut peer = Forgetful::start().await;
        let request = peer.clerk().try_send(Add(1)).unwrap();
        let first = peer.loses().await;
        assert_eq!(first.low_watermark, None);
        let mut link = peer.link().await;
        let error = request.await.unwrap_err();
        assert!(matches!(error, SendError::OutcomeUnknown(OutcomeUnknown::LinkLost { .. })), "{error}");
        let next = peer.clerk().try_send(Add(2)).unwrap();
        let call = call_of(link.read().await);
        assert_ne!((call.call, &call.body), (first.call, &first.body), "the first does not come again");
        link.write(answer(&call)).await;
        assert_eq!(next.await, Ok(1));
    });
}

#[test]
fn a_call_that_was_lost_each_time_is_in_doubt() {
    run(async {
        let mut peer = Forgetful::start().await;
        let request = peer.call(Retry::times(2).delay(SOON));
        let calls = [peer.loses().await, peer.loses().await, peer.loses().await];
        let mut link = peer.link().await;
        let error = request.await.unwrap().unwrap_err();
        assert!(error.is_outcome_unknown() && error.to_string().contains("reset the session"), "{error}");
        let floor = Watermark { call: CallId(calls[0].call.0 + 1) };
        assert_eq!(link.read().await, Some(Frame::Watermark(floor)));
    });
}

#[test]
fn a_call_to_a_host_that_cannot_be_reached_is_made_when_it_can() {
    run(async {
        let (site, late) = (TestHost::start().await, TestHost::start().await);
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        site.host.add_peer(late.identity(), listener.local_addr().unwrap());
        drop(listener);
        let clerk = site.cluster.bind(&late.serve(Clerk::default));
        let given_up = clerk.send(Add(1)).retry(Retry::times(2).delay(SOON)).await.unwrap_err();
        assert!(
            matches!(given_up, SendError::NotDelivered(NotDelivered::Unreachable { .. })),
            "it was never on its way: {given_up}"
        );
        let request = actix_rt::spawn(clerk.send(Add(1)).retry(Retry::times(10).delay(SOON)));
        clerk.do_send(Note(1));
        until(|| site.dead_letters() == 1).await;
        site.knows(&late);
        assert_eq!(request.await.unwrap(), Ok(1));
    });
}

#[test]
fn a_host_that_is_known_to_have_ended_is_not_called_again() {
    run(async {
        // While a call waits for its answer, and while it waits to be made again.
        for lost in [false, true] {
            let mut peer = Forgetful::start().await;
            let request = peer.call(Retry::times(3).delay(NEVER));
            let (_, mut link) = peer.called().await;
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
fn a_host_that_ends_gives_its_own_calls_up() {
    run(async {
        let mut peer = Forgetful::start().await;
        let request = peer.call(Retry::times(3).delay(NEVER));
        peer.loses().await;
        let _link = peer.link().await;
        until(|| peer.site.calls_open() == 0).await;
        peer.site.host.abort();
        assert!(request.await.unwrap().unwrap_err().is_outcome_unknown());
    });
}

#[test]
fn a_call_is_given_up_when_its_time_is_over_between_two_attempts() {
    const TIMEOUT: Duration = Duration::from_millis(50);
    run(async {
        let policy = Retry::times(3).delay(NEVER);
        let mut peer = Forgetful::start().await;
        let request = actix_rt::spawn(peer.clerk().send(Add(1)).retry(policy).timeout(TIMEOUT));
        let call = peer.loses().await;
        assert!((1..=50).contains(&call.timeout_ms));
        let _link = peer.link().await;
        let error = request.await.unwrap().unwrap_err();
        assert_eq!(error, SendError::OutcomeUnknown(OutcomeUnknown::TimedOut));
        assert_eq!(peer.site.calls_open(), 0);

        // One that never was on its way is known to be undone.
        let mut nobody = Forgetful::start().await;
        nobody.listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let error = nobody.clerk().send(Add(1)).retry(policy).timeout(TIMEOUT).await.unwrap_err();
        assert_eq!(error, SendError::NotDelivered(NotDelivered::Expired));
    });
}

#[test]
fn calls_with_a_policy_are_each_handled_once_while_their_sessions_are_lost() {
    const CALLS: u32 = 1_000;
    const LOSSES: u32 = 10;
    run(async {
        let (pair, proxy) = Proxy::between(Limits::default()).await;
        let (ledger, clerk) = (pair.serve(Ledger::quick), pair.serve(Clerk::default));
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
                let lost = clerk.try_send(Hold(number)).unwrap();
                proxy.refuse();
                assert!(lost.await.is_err());
                proxy.heal();
            }
        };
        join(calls, losses).await.0.unwrap();
        assert_eq!(answered.load(Ordering::SeqCst), CALLS);
        let mut entries = entries_of(0, &ledger.send(Book).await.unwrap());
        entries.sort_unstable();
        assert!(entries.into_iter().eq(0..CALLS));
        assert_eq!(links(&pair.here, &pair.there), u64::from(LOSSES) + 1);
    });
}

/// A caller by hand that forgets its session with every link.
struct Caller {
    site: TestHost,
    near: RemoteAddr<Clerk>,
    identity: HostUid,
    links: u64,
}

impl Caller {
    async fn start() -> Self {
        let site = TestHost::start().await;
        let near = site.serve(Clerk::default);
        Self { site, near, identity: fresh_identity(), links: 0 }
    }

    /// Makes calls over a new link.
    async fn call(&mut self, calls: impl IntoIterator<Item = Call>) -> Raw {
        let resume = Resume { epoch: self.links as u32, received: 0, ..Resume::default() };
        self.links += 1;
        let mut link = Raw::connect_at(&self.site, self.identity, self.links, resume).await;
        link.write_all(calls.into_iter().map(Frame::Call)).await;
        link
    }

    /// A call that may come again, and that is the lowest of those.
    fn repeatable<M: RemoteMessage>(&self, number: u64, message: M) -> Call {
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
fn a_call_that_comes_again_is_handled_once_and_has_the_answer_that_it_had() {
    run(async {
        let mut caller = Caller::start().await;
        let call = caller.repeatable(1, Add(1));
        for _ in 0..3 {
            let mut link = caller.call([call.clone()]).await;
            assert_eq!(link.read().await, Some(answer(&call)));
        }
        assert_eq!(caller.near.send(Add(1)).await, Ok(2));
        // One that will not come again is forgotten: its number stands for another call.
        let floor = Frame::Watermark(Watermark { call: CallId(2) });
        let mut link = caller.call([]).await;
        link.write_all([floor, Frame::Call(call)]).await;
        link.read().await.unwrap();
        assert_eq!(caller.near.send(Add(1)).await, Ok(4));
    });
}

#[test]
fn a_call_that_comes_again_while_its_handler_is_at_it_is_answered_once() {
    run(async {
        let mut caller = Caller::start().await;
        let call = caller.repeatable(1, Hold(7));
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

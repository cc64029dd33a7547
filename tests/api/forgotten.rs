//! Hosts that forget a peer which is alive and reconnects.

use std::time::Duration;

use bytes::BytesMut;
use roadshow::Limits;
use roadshow::internals::host::{NotDelivered, OutcomeUnknown};
use roadshow::internals::session::DisconnectReason;
use roadshow::internals::wire::{Challenge, Resume, SessionParameters, VERSION, Welcome};
use roadshow::prelude::*;
use tokio::runtime::{Builder, Handle};

use crate::fixtures::{Add, Clerk, Hold, Note, Notes, Release};
use crate::hosts::{Pair, Plan, TestHost, run, until};
use crate::proxy::{Cut, Direction, Proxy};

/// Starts a driver and a worker: only the driver can dial, through the proxy.
async fn driver_and_worker() -> (Pair, Proxy) {
    Proxy::between(Limits::default()).await
}

/// Makes the worker lose its link and forget the driver, and then restores the network.
async fn forget_and_reconnect(pair: &Pair, proxy: &Proxy) {
    proxy.go_down(Cut::Reset);
    until(|| !pair.there.linked(&pair.here)).await;
    // A message that the driver sends before it sees the break is in flight, and fails with the reset.
    until(|| !pair.here.linked(&pair.there)).await;
    pair.there.host.forget(pair.here.identity());
    assert!(pair.there.host.snapshot().peers.is_empty());
    proxy.heal();
}

fn is_forgotten(error: &SendError) -> bool {
    matches!(
        error,
        SendError::NotDelivered(NotDelivered::Unreachable { reason: DisconnectReason::Forgotten, .. })
            | SendError::OutcomeUnknown(OutcomeUnknown::SessionLost {
                reason: DisconnectReason::Forgotten,
                ..
            })
    )
}

#[test]
fn a_retried_call_runs_once_although_the_receiver_forgot_it_and_ends_with_an_unknown_outcome() {
    run(async {
        let (pair, proxy) = driver_and_worker().await;
        let clerk = pair.serve(Clerk::default);
        let call =
            actix_rt::spawn(clerk.send(Hold(1)).retry(Retry::times(5).delay(Duration::from_millis(1))));
        let there = pair.there.cluster.bind(&clerk);
        while there.send(Notes).await.unwrap().is_empty() {}
        forget_and_reconnect(&pair, &proxy).await;
        let error = call.await.unwrap().unwrap_err();
        assert!(error.is_outcome_unknown() && is_forgotten(&error), "{error}");
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]), "it was handled once");
        assert_eq!(there.send(Release(1)).await, Ok(true));
        // Retries work with the new session, too.
        assert_eq!(clerk.send(Add(1)).retry(Retry::default()).await, Ok(1));
    });
}

#[test]
fn unacked_one_way_messages_are_handled_once_although_the_receiver_forgot_them() {
    run(async {
        let (pair, proxy) = driver_and_worker().await;
        let clerk = pair.serve(Clerk::default);
        // Exactly the bytes of the handshake: one more would let an ACK through.
        proxy.hold(Direction::Back);
        proxy.let_through(Direction::Back, handshake_bytes(pair.there.identity()));
        for number in 1..=3 {
            clerk.do_send(Note(number));
        }
        let there = pair.there.cluster.bind(&clerk);
        while there.send(Notes).await.unwrap().len() < 3 {}
        forget_and_reconnect(&pair, &proxy).await;
        // A later message shows that the order continues after the reset.
        clerk.do_send(Note(4));
        assert_eq!(clerk.send(Notes).await, Ok(vec![1, 2, 3, 4]));
    });
}

/// Returns the length of an acceptor's handshake frames, in bytes.
fn handshake_bytes(from: roadshow::internals::id::HostUid) -> u64 {
    let terms = SessionParameters { frame_bytes_max: 0, outgoing_bytes_max: 0, window_bytes: 0, schema: 0 };
    let challenge = Challenge { version: VERSION, from, terms, nonce: [0; 32], proof: [0; 32] };
    let mut bytes = BytesMut::new();
    (challenge.put(&mut bytes) + Welcome { resume: Resume::default() }.put(&mut bytes)) as u64
}

#[test]
fn messages_queued_during_a_partition_arrive_at_a_host_that_forgot_the_sender() {
    run(async {
        let (pair, proxy) = driver_and_worker().await;
        let clerk = pair.serve(Clerk::default);
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        proxy.go_down(Cut::Reset);
        until(|| !pair.here.linked(&pair.there)).await;
        clerk.do_send(Note(1));
        let call = clerk.try_send(Add(1)).unwrap();
        forget_and_reconnect(&pair, &proxy).await;
        assert_eq!(call.await, Ok(2), "no message was in flight, so the reset is not reported");
        assert_eq!(clerk.send(Notes).await, Ok(vec![1]));
        assert_eq!((pair.here.dead_letters(), pair.there.dead_letters()), (0, 0));
    });
}

#[test]
fn addresses_of_a_forgotten_host_work_after_it_reconnects() {
    run(async {
        let (pair, proxy) = driver_and_worker().await;
        let clerk = pair.serve(Clerk::default);
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        // Two addresses that the worker has of an actor of the driver: one used before the reset, one not.
        let of_driver = pair.here.serve(Clerk::default);
        let [used, unused] = [(); 2].map(|()| pair.there.cluster.bind(&of_driver));
        assert_eq!(used.send(Add(1)).await, Ok(1));
        forget_and_reconnect(&pair, &proxy).await;
        let unknown = unused.send(Add(1)).await.unwrap_err();
        assert!(matches!(unknown, SendError::NotDelivered(NotDelivered::UnknownHost { .. })), "{unknown}");
        // The host reconnects without any notice to the addresses, which have to look it up again.
        assert_eq!(clerk.send(Add(1)).await, Ok(2));
        assert_eq!((used.send(Add(1)).await, unused.send(Add(1)).await), (Ok(2), Ok(3)));
        assert!(used.connected() && unused.connected());
    });
}

#[test]
fn calls_to_an_expired_inbound_peer_do_not_report_its_end() {
    run(async {
        let (pair, proxy) = driver_and_worker().await;
        let clerk = pair.serve(Clerk::default);
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        let of_driver = pair.here.serve(Clerk::default);
        let held = pair.there.cluster.bind(&of_driver).try_send(Hold(1)).unwrap();
        // The call has arrived, so its outcome is unknown afterwards.
        while of_driver.send(Notes).await.unwrap().is_empty() {}
        proxy.go_down(Cut::Finish);
        pair.there.host.expire_inbound_peers(Duration::from_millis(20));
        let error = held.await.unwrap_err();
        assert!(error.is_outcome_unknown() && is_forgotten(&error), "{error}");
        assert!(pair.there.host.snapshot().peers.is_empty());
        proxy.heal();
        assert_eq!(clerk.send(Add(1)).await, Ok(2));
        assert_eq!(of_driver.send(Notes).await, Ok(vec![1]));
    });
}

#[test]
fn calls_to_a_forgotten_host_fail_once_it_is_known_to_be_down() {
    run(async {
        let (pair, _proxy) = driver_and_worker().await;
        let clerk = pair.serve(Clerk::default);
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        let host = pair.there.identity();
        pair.there.host.abort();
        pair.here.host.forget(host);
        let call = actix_rt::spawn(clerk.send(Add(1)));
        // The call starts before the end is known.
        tokio::task::yield_now().await;
        pair.here.host.mark_peer_down(host, "killed by signal 9");
        for outcome in [call.await.unwrap(), clerk.send(Add(1)).await] {
            let gone = DisconnectReason::HostDown("killed by signal 9".into());
            assert_eq!(outcome, Err(NotDelivered::Unreachable { host, reason: gone }.into()));
        }
    });
}

#[test]
fn a_host_that_both_sides_forgot_is_treated_as_new() {
    run(async {
        let (pair, proxy) = driver_and_worker().await;
        let clerk = pair.serve(Clerk::default);
        for round in 1..=3 {
            assert_eq!(clerk.send(Add(1)).retry(Retry::default()).await, Ok(round));
            pair.here.host.forget(pair.there.identity());
            pair.there.host.forget(pair.here.identity());
            proxy.introduce(&pair.there, &pair.here);
        }
        assert_eq!(clerk.send(Add(1)).await, Ok(4));
    });
}

/// Runtime for the links of one test, on a separate thread: its tasks can be counted without those of other
/// tests.
struct Io {
    handle: Handle,
    end: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Io {
    fn new() -> Self {
        let (end, ended) = tokio::sync::oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(ended));
        Self { handle, end: Some(end) }
    }

    fn tasks(&self) -> usize {
        self.handle.metrics().num_alive_tasks()
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // An error means that the thread has ended already.
        let _ = self.end.take().map(|end| end.send(()));
    }
}

/// Sends different kinds of calls, so that both sides have deadlines, kept replies and open calls.
async fn call_from(here: &TestHost, there: &RemoteAddr<Clerk>) {
    let clerk = here.cluster.bind(there);
    clerk.send(Add(1)).timeout(Duration::from_secs(50)).retry(Retry::default()).await.unwrap();
    // A cancelled call leaves state on both sides for a moment.
    drop(clerk.try_send(Hold(1)).unwrap());
    clerk.send(Notes).await.unwrap();
}

#[test]
fn forgotten_hosts_leave_no_task_behind() {
    run(async {
        let io = Io::new();
        let there = Plan { io: io.handle.clone(), ..Plan::default() }.start().await;
        let clerk = there.serve(Clerk::default);
        let of_driver = TestHost::start().await;
        let before = io.tasks();
        let mut addresses = Vec::new();
        for _ in 0..20 {
            let here = TestHost::start().await;
            here.knows(&there);
            call_from(&here, &clerk).await;
            // An address outlives its host, and must not keep a task alive.
            let back = there.cluster.bind(&here.serve(Clerk::default));
            back.send(Add(1)).timeout(Duration::from_secs(50)).await.unwrap();
            addresses.push(back);
            here.host.abort();
        }
        drop(of_driver);
        there.host.expire_inbound_peers(Duration::from_millis(10));
        // One task remains: the one that expires inbound peers.
        until(|| there.host.snapshot().peers.is_empty() && io.tasks() <= before + 1).await;
        for back in addresses {
            assert!(back.send(Add(1)).timeout(Duration::from_millis(1)).await.is_err());
        }
        until(|| io.tasks() <= before + 1).await;
    });
}

#[test]
fn replaced_incarnations_leave_no_task_behind() {
    run(async {
        let io = Io::new();
        let there = Plan { io: io.handle.clone(), ..Plan::default() }.start().await;
        let clerk = there.serve(Clerk::default);
        let before = io.tasks();
        let mut identity = roadshow::internals::host::fresh_identity();
        for _ in 0..20 {
            identity.incarnation.0 += 1;
            let here = Plan { identity, ..Plan::default() }.start().await;
            here.knows(&there);
            call_from(&here, &clerk).await;
        }
        // Each incarnation replaces the one before.
        assert_eq!(there.host.snapshot().peers.len(), 1);
        there.host.mark_peer_down(identity, "it was killed");
        until(|| io.tasks() <= before).await;
    });
}

//! Stops are ordered behind everything that the same sender sent to the actor before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use roadshow::Limits;
use roadshow::prelude::*;

use crate::hosts::{Gate, Pair, TestHost, limits, poll_once, run};

/// Actor that counts its messages; the count outlives it, and a gate can block it.
#[derive(RemoteActor)]
#[remote(local, handles(Count, Wait))]
struct Counter {
    handled: Arc<AtomicUsize>,
    gate: Gate,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Count(Payload);

impl Handler<Count> for Counter {
    type Result = ();

    fn handle(&mut self, _: Count, _: &mut Context<Self>) {
        self.handled.fetch_add(1, Ordering::SeqCst);
    }
}

/// Blocks the thread until the gate opens.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Wait;

impl Handler<Wait> for Counter {
    type Result = ();

    fn handle(&mut self, _: Wait, _: &mut Context<Self>) {
        self.gate.pass();
    }
}

/// Count and gate of an actor, shared with its test.
#[derive(Default)]
struct Observed {
    handled: Arc<AtomicUsize>,
    gate: Gate,
}

impl Observed {
    fn counter(&self) -> impl FnOnce() -> Counter + Send + use<> {
        let (handled, gate) = (Arc::clone(&self.handled), self.gate.clone());
        move || Counter { handled, gate }
    }

    fn handled(&self) -> usize {
        self.handled.load(Ordering::SeqCst)
    }
}

/// Limits with chunks of 4 KiB, and a window of a dozen small messages.
fn narrow() -> Limits {
    limits(|limits| {
        limits.chunk_bytes = 4 << 10;
        limits.window_bytes = 4 << 10;
    })
}

fn of_bytes(bytes: usize) -> Count {
    Count(vec![0; bytes].into())
}

#[test]
fn a_stop_stays_behind_a_message_sent_in_chunks() {
    run(async {
        let (pair, observed) = (Pair::with(narrow()).await, Observed::default());
        let counter = pair.serve(observed.counter());
        // Opens the link, so that the chunks do not wait for a handshake.
        counter.send(of_bytes(1)).await.unwrap();
        counter.tell(of_bytes(4 << 20)).await.unwrap();
        counter.stop().await.unwrap();
        // The end of the actor is known, so the count is final.
        assert_eq!(observed.handled(), 2);
    });
}

#[test]
fn a_stop_stays_behind_messages_that_wait_for_credit() {
    const BURST: usize = 2000;
    run(async {
        let (pair, observed) = (Pair::with(narrow()).await, Observed::default());
        let counter = pair.serve(observed.counter());
        let blocked = counter.try_send(Wait).unwrap();
        observed.gate.reached_by(1).await;
        // Half of the messages through a recipient: it shares the order with its address.
        let recipient = counter.recipient::<Count>();
        (0..BURST / 2).for_each(|_| counter.do_send(of_bytes(100)));
        (0..BURST / 2).for_each(|_| recipient.do_send(of_bytes(100)));
        let mut stop = Box::pin(counter.stop());
        assert!(poll_once(&mut stop).await.is_pending());
        // Sent after the stop, so it must not be handled.
        counter.do_send(of_bytes(100));
        observed.gate.open();
        stop.await.unwrap();
        blocked.await.unwrap();
        assert_eq!(observed.handled(), BURST);
    });
}

#[test]
fn a_stop_stays_behind_local_messages_while_a_batch_is_drained() {
    run(async {
        let (pair, observed) = (Pair::start().await, Observed::default());
        let near = pair.there.serve(observed.counter());
        let far = pair.here.cluster.bind(&near);
        // The gate blocks the actor within a batch of remote messages; local messages that arrive now join
        // that batch.
        let blocked = far.try_send(Wait).unwrap();
        observed.gate.reached_by(1).await;
        let first = near.try_send(of_bytes(1)).unwrap();
        let mut stop = Box::pin(near.stop());
        assert!(poll_once(&mut stop).await.is_pending());
        observed.gate.open();
        assert_eq!(first.await, Ok(()));
        stop.await.unwrap();
        blocked.await.unwrap();
        assert_eq!(observed.handled(), 1);
    });
}

#[test]
fn a_second_stop_is_no_error_and_a_stop_of_an_unknown_actor_is_one() {
    run(async {
        let (site, observed) = (TestHost::start().await, Observed::default());
        let counter = site.serve(observed.counter());
        for _ in 0..2 {
            assert_eq!(counter.stop().await, Ok(()));
        }
        let unknown = crate::raw::Raw::addr_of::<Counter>(site.identity(), 99);
        let error = site.cluster.bind(&unknown).stop().await;
        assert_eq!(error, Err(roadshow::NotDelivered::NoSuchActor.into()));
    });
}

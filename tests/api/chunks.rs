//! Large messages are sent in chunks, and other messages are interleaved with them.

use std::future::Future;

use roadshow::Limits;
use roadshow::prelude::*;

use crate::fixtures::{Add, Clerk, Echo};
use crate::hosts::{PATIENCE, Pair, limits, poll_once, run, until};
use crate::proxy::{Cut, Direction, Proxy, links};
use crate::recorder::{Book, Entry, Recorder};

// Many chunks, and far more than the buffers of the sockets hold.
const LARGE: usize = 32 << 20;

/// Limits without heartbeats: on a slow network they are delayed as well, and would end the link.
fn no_heartbeats() -> Limits {
    limits(|limits| limits.heartbeat_interval = 2 * PATIENCE)
}

/// Two hosts with a link over a network that has stopped, and two actors behind it.
struct SlowNetwork {
    pair: Pair,
    proxy: Proxy,
    ledger: RemoteAddr<Recorder>,
    clerk: RemoteAddr<Clerk>,
}

impl SlowNetwork {
    async fn start() -> Self {
        let (pair, proxy) = Proxy::between(no_heartbeats()).await;
        let (ledger, clerk) = (pair.serve(Recorder::quick), pair.serve(Clerk::default));
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        proxy.hold(Direction::Forth);
        Self { pair, proxy, ledger, clerk }
    }

    /// Lets bytes through in small steps until `bytes` more have passed.
    async fn let_bytes_through(&self, direction: Direction, bytes: usize) {
        let end = self.proxy.passed(direction) + bytes as u64;
        until(|| {
            // Small steps, so that the hosts cannot send much more than the test intends.
            self.proxy.let_through(direction, 64 << 10);
            self.proxy.passed(direction) >= end
        })
        .await;
    }

    /// Lets bytes through in small steps until a call is answered.
    async fn run_until<T>(&self, answered: impl Future<Output = T>) -> T {
        tokio::select! {
            answer = answered => answer,
            () = self.let_bytes_through(Direction::Forth, usize::MAX >> 1) => unreachable!("more bytes than any test sends"),
        }
    }
}

#[test]
fn small_calls_to_other_actors_are_answered_while_a_large_one_is_being_sent() {
    run(async {
        let slow = SlowNetwork::start().await;
        let before = slow.proxy.passed(Direction::Forth);
        let mut large = slow.ledger.try_send(Entry::with(0, 0, LARGE)).unwrap();
        slow.let_bytes_through(Direction::Forth, LARGE / 8).await;
        for sum in 2..5 {
            assert_eq!(slow.run_until(slow.clerk.send(Add(1))).await, Ok(sum));
            assert!(poll_once(&mut large).await.is_pending());
        }
        let passed = slow.proxy.passed(Direction::Forth) - before;
        // The answers came before the end of the large message.
        assert!(passed < LARGE as u64, "{passed}");
        assert_eq!(slow.run_until(large).await, Ok(0));
    });
}

#[test]
fn a_small_message_stays_behind_a_large_one_to_the_same_actor() {
    run(async {
        let slow = SlowNetwork::start().await;
        let large = slow.ledger.try_send(Entry::with(0, 0, LARGE)).unwrap();
        slow.let_bytes_through(Direction::Forth, LARGE / 8).await;
        let small = slow.ledger.try_send(Entry::new(0, 1)).unwrap();
        // A one-way message must not overtake either.
        slow.ledger.do_send(Entry::new(0, 2));
        assert_eq!(slow.run_until(small).await, Ok(1));
        assert_eq!(large.await, Ok(0));
        slow.proxy.heal();
        assert_eq!(slow.ledger.send(Book).await, Ok(vec![(0, 0), (0, 1), (0, 2)]));
    });
}

#[test]
fn a_large_call_that_is_dropped_half_way_is_never_handled_and_releases_its_credit() {
    run(async {
        let (pair, proxy) = Proxy::between(no_heartbeats()).await;
        let ledger = pair.serve(Recorder::quick);
        proxy.hold(Direction::Forth);
        let mut large = ledger.send(Entry::with(0, 0, LARGE));
        assert!(poll_once(&mut large).await.is_pending());
        let slow = SlowNetwork { clerk: pair.serve(Clerk::default), pair, proxy, ledger };
        slow.let_bytes_through(Direction::Forth, LARGE / 2).await;
        let near = || slow.pair.here.host.snapshot().peers.remove(0);
        assert!(near().charged_bytes > 0);
        drop(large);
        // The rest of a cancelled message must not use the network.
        let passed = slow.proxy.passed(Direction::Forth);
        slow.proxy.heal();
        until(|| near().charged_bytes == 0 && near().outgoing_bytes == 0).await;
        let passed = slow.proxy.passed(Direction::Forth) - passed;
        assert!(passed < LARGE as u64 / 2, "{passed} bytes of the rest were sent");
        let far = slow.pair.there.host.snapshot().peers.remove(0);
        assert_eq!((far.accepted_bytes, far.owed_bytes), (0, 0));
        assert_eq!(slow.ledger.send(Entry::new(0, 1)).await, Ok(0));
        assert_eq!(slow.ledger.send(Book).await, Ok(vec![(0, 1)]));
    });
}

#[test]
fn a_large_message_and_its_large_answer_survive_repeated_breaks_of_the_link() {
    run(async {
        let slow = SlowNetwork::start().await;
        // The bytes differ, so that exchanged or repeated chunks would show.
        let content: Vec<u8> = (0..LARGE / 2).map(|at| (at / 7) as u8).collect();
        let mut echo = slow.clerk.try_send(Echo(content.clone().into())).unwrap();
        // First the message and then its answer is interrupted in the middle.
        for direction in [Direction::Forth, Direction::Back] {
            slow.proxy.heal();
            slow.proxy.hold(direction);
            for _ in 0..7 {
                slow.let_bytes_through(direction, LARGE / 16).await;
                assert!(poll_once(&mut echo).await.is_pending());
                let link = links(&slow.pair.here, &slow.pair.there);
                slow.proxy.cut(Cut::Reset);
                // The handshake of the next link needs some bytes over the same stopped network.
                until(|| {
                    slow.proxy.let_through(direction, 1 << 10);
                    links(&slow.pair.here, &slow.pair.there) > link
                })
                .await;
            }
        }
        slow.proxy.heal();
        assert!(echo.await.unwrap()[..] == content);
    });
}

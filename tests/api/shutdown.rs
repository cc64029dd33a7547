//! Hosts that shut down, in virtual time: owed answers arrive, and nothing remains of the host.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, System};
use roadshow::internals::host::{Executor, Host, HostConfig, NotDelivered, fresh_identity};
use roadshow::internals::remote::actor_services;
use roadshow::internals::session::Secret;
use roadshow::internals::transport::{Memory, Transport};
use roadshow::{ClusterRef, Limits, RemoteAddr};
use tokio::runtime::{Builder, Handle};
use tokio::time::{Instant, sleep};

use crate::fixtures::{Add, Clerk, Hold, Note, Notes, Release};
use crate::hosts::{SECRET, limits, poll_once};

const ONE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const THREE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const MS: Duration = Duration::from_millis(1);

fn paused<T>(test: impl Future<Output = T>) -> T {
    // With a paused clock, minutes of timeouts take no time.
    let runtime = || Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    System::with_tokio_rt(runtime).block_on(test)
}

async fn start(transport: Arc<dyn Transport>, ip: Ipv4Addr, limits: Limits) -> Host {
    let config = HostConfig {
        identity: fresh_identity(),
        secret: Secret::from_bytes(SECRET),
        limits,
        transport,
        listen: Some((ip, 0).into()),
        io: Handle::current(),
        executor: Executor::here_or(&Handle::current()),
        services: Box::new(actor_services),
    };
    Host::start(config).await.unwrap()
}

async fn at(network: &Memory, ip: Ipv4Addr) -> Host {
    start(Arc::new(network.at(ip)), ip, Limits::default()).await
}

/// Starts an actor on one host, and binds its address on the other.
fn clerk(here: &Host, there: &Host) -> (RemoteAddr<Clerk>, RemoteAddr<Clerk>) {
    here.add_peer(there.identity(), there.address().unwrap());
    let near = ClusterRef::new(there.clone()).register(Clerk::default().start());
    (ClusterRef::new(here.clone()).bind(&near), near)
}

#[test]
fn a_host_that_shuts_down_during_a_break_delivers_its_answers_over_the_next_link() {
    paused(async {
        let network = Memory::new(1);
        let (here, there) = (at(&network, ONE).await, at(&network, TWO).await);
        let (far, near) = clerk(&here, &there);
        let mut held = far.send(Hold(7));
        assert!(poll_once(&mut held).await.is_pending());
        while near.send(Notes).await.unwrap().is_empty() {
            sleep(MS).await;
        }
        network.partition(ONE, TWO);
        // The answer is given while there is no link.
        assert_eq!(network.cut(ONE, TWO), 1);
        near.send(Release(7)).await.unwrap();
        let shutdown = {
            let there = there.clone();
            actix_rt::spawn(async move { there.shutdown("the test is over").await })
        };
        // Within the drain timeout, so the host still waits for a link.
        sleep(500 * MS).await;
        network.heal_all();
        assert_eq!(held.await, Ok(7));
        shutdown.await.unwrap();
        here.abort();
    });
}

#[test]
fn a_host_that_shuts_down_waits_until_its_one_way_messages_are_acked() {
    paused(async {
        let network = Memory::new(2);
        let (here, there) = (at(&network, ONE).await, at(&network, TWO).await);
        let (far, near) = clerk(&here, &there);
        assert_eq!(far.send(Add(1)).await, Ok(1));
        // Slow enough that the messages are on the network when the shutdown starts.
        network.latency(300 * MS..=300 * MS);
        for number in 0..10 {
            far.tell(Note(number)).await.unwrap();
        }
        let since = Instant::now();
        here.shutdown("the test is over").await;
        assert_eq!(near.send(Notes).await.unwrap().len(), 10);
        assert!(
            since.elapsed() < 1000 * MS,
            "one round trip, and not the whole drain timeout: {:?}",
            since.elapsed()
        );
        there.abort();
    });
}

#[test]
fn a_host_that_shuts_down_accepts_no_new_peer() {
    paused(async {
        let network = Memory::new(3);
        let (here, there, late) =
            (at(&network, ONE).await, at(&network, TWO).await, at(&network, THREE).await);
        let (far, near) = clerk(&here, &there);
        let (from_late, _) = clerk(&late, &there);
        let mut held = far.send(Hold(1));
        assert!(poll_once(&mut held).await.is_pending());
        while near.send(Notes).await.unwrap().is_empty() {
            sleep(MS).await;
        }
        let shutdown = {
            let there = there.clone();
            actix_rt::spawn(async move { there.shutdown("the test is over").await })
        };
        // The shutdown has to start before the late host dials.
        sleep(MS).await;
        let rejected = from_late.send(Add(1)).await.unwrap_err();
        assert!(rejected.is_not_delivered() && rejected.to_string().contains("shutting down"), "{rejected}");
        assert_eq!(far.send(Add(1)).await, Err(NotDelivered::Closing.into()));
        near.send(Release(1)).await.unwrap();
        assert_eq!(held.await, Ok(1));
        shutdown.await.unwrap();
        here.abort();
        late.abort();
    });
}

#[test]
fn a_dropped_host_leaves_nothing_behind() {
    for cut_off in [false, true] {
        paused(async {
            let network = Memory::new(4);
            let transport: Arc<dyn Transport> = Arc::new(network.at(ONE));
            // The transport is kept alive by every part of the host, so it shows any leftover.
            let left = Arc::downgrade(&transport);
            let (here, there) = (start(transport, ONE, Limits::default()).await, at(&network, TWO).await);
            let (far, _) = clerk(&here, &there);
            assert_eq!(far.send(Add(1)).await, Ok(1));
            if cut_off {
                network.partition(TWO, ONE);
                network.cut(ONE, TWO);
                sleep(MS).await;
            }
            drop((far, here));
            // Longer than every timer of the host, so that its tasks have had time to end.
            sleep(Duration::from_secs(60)).await;
            assert!(left.upgrade().is_none(), "cut off: {cut_off}");
            there.abort();
        });
    }
}

#[test]
fn heartbeats_can_be_disabled() {
    paused(async {
        let network = Memory::new(5);
        let never = limits(|limits| {
            limits.heartbeat_interval = Duration::MAX;
            limits.heartbeat_timeout = Duration::MAX;
        });
        let here = start(Arc::new(network.at(ONE)), ONE, never.clone()).await;
        let there = start(Arc::new(network.at(TWO)), TWO, never).await;
        let (far, _) = clerk(&here, &there);
        assert_eq!(far.send(Add(1)).await, Ok(1));
        // A day: no other timer may end an idle link.
        sleep(Duration::from_secs(24 * 60 * 60)).await;
        assert_eq!(far.send(Add(1)).await, Ok(2));
        assert_eq!(here.snapshot().peers[0].links, 1);
        here.abort();
        there.abort();
    });
}

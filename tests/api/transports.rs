//! The suite that every transport has to pass, and the faults of the in-memory transport.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use actix::{Actor, System};
use futures_util::future::{join, join_all};
use roadshow::ClusterRef;
use roadshow::internals::host::{Executor, Host, HostConfig, fresh_identity};
use roadshow::internals::remote::actor_services;
use roadshow::internals::session::Secret;
use roadshow::internals::transport::{Link, Listener, Memory, Tcp, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Handle};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, timeout};

use crate::fixtures::{Add, Clerk};
use crate::hosts::{LOOPBACK, PATIENCE, SECRET, poll_once};

const ONE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const SECOND: Duration = Duration::from_secs(1);

type Ends = (Box<dyn Link>, Box<dyn Link>);

#[tokio::test]
async fn tcp_passes_the_suite() {
    passes_the_suite(&Tcp).await;
}

#[tokio::test]
async fn memory_passes_the_suite() {
    passes_the_suite(&Memory::new(1)).await;
}

#[tokio::test]
async fn memory_passes_the_suite_with_latency() {
    let network = Memory::new(2);
    network.latency(Duration::ZERO..=Duration::from_millis(3));
    passes_the_suite(&network).await;
}

/// Checks the properties that the layers above rely on.
async fn passes_the_suite(transport: &dyn Transport) {
    bytes_arrive_in_order_both_ways(transport).await;
    a_writer_waits_for_a_slow_reader(transport).await;
    a_link_can_move_to_another_thread(transport).await;
    a_shutdown_of_one_direction_leaves_the_other_open(transport).await;
    a_dropped_end_is_detected_by_the_other(transport).await;
    connecting_without_a_listener_is_refused(transport).await;
    many_links_are_independent(transport).await;
    a_dropped_accept_loses_no_link(transport).await;
    a_dropped_connect_affects_no_other(transport).await;
}

async fn bytes_arrive_in_order_both_ways(transport: &dyn Transport) {
    let (near, far) = link(transport).await;
    let (near_sends, far_sends) = (pattern(1 << 20, 1), pattern(1 << 20, 2));
    let exchange = |link: Box<dyn Link>, sent: Vec<u8>| async move {
        let (mut reader, mut writer) = link.into_split();
        let write = async move {
            // A length that matches no buffer size, so that writes end at arbitrary offsets.
            for part in sent.chunks(10_007) {
                writer.write_all(part).await.unwrap();
            }
        };
        let mut received = Vec::new();
        let (read, ()) = join(reader.read_to_end(&mut received), write).await;
        read.unwrap();
        received
    };
    let exchanges = join(exchange(near, near_sends.clone()), exchange(far, far_sends.clone()));
    let (near_received, far_received) = in_time(exchanges).await;
    assert!(near_received == far_sends && far_received == near_sends);
}

async fn a_writer_waits_for_a_slow_reader(transport: &dyn Transport) {
    const ENDLESS: usize = 256 << 20;
    let (mut near, mut far) = link(transport).await;
    let part = vec![7; 32 << 10];
    let mut written = 0;
    while let Poll::Ready(taken) = poll_once(&mut pin!(unconstrained(near.write(&part)))).await {
        written += taken.unwrap();
        assert!(written < ENDLESS, "a writer without a reader waits");
    }
    let rest = async {
        near.write_all(&part).await.unwrap();
        near.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (read, ()) = in_time(join(far.read_to_end(&mut received), rest)).await;
    assert_eq!(read.unwrap(), written + part.len());
}

async fn a_link_can_move_to_another_thread(transport: &dyn Transport) {
    let (mut near, mut far) = link(transport).await;
    near.write_all(b"before").await.unwrap();
    let mut before = [0; 6];
    in_time(far.read_exact(&mut before)).await.unwrap();
    let far = far.detach().unwrap();
    let there = thread::spawn(move || {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let (mut reader, mut writer) = far.attach().unwrap().into_split();
            in_time(tokio::io::copy(&mut reader, &mut writer)).await.unwrap()
        })
    });
    let near = near.detach().unwrap().attach().unwrap();
    let (mut reader, mut writer) = near.into_split();
    let sent = pattern(300_000, 3);
    let mut received = Vec::new();
    let write = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let (read, ()) = in_time(join(reader.read_to_end(&mut received), write)).await;
    read.unwrap();
    assert!(received == sent && &before == b"before");
    assert_eq!(there.join().unwrap(), sent.len() as u64);
}

async fn a_shutdown_of_one_direction_leaves_the_other_open(transport: &dyn Transport) {
    let (mut near, mut far) = link(transport).await;
    near.write_all(b"last bytes").await.unwrap();
    near.shutdown().await.unwrap();
    let mut received = String::new();
    in_time(far.read_to_string(&mut received)).await.unwrap();
    assert_eq!((received.as_str(), far.read(&mut [0]).await.unwrap()), ("last bytes", 0));
    far.write_all(&[42]).await.unwrap();
    assert_eq!(in_time(near.read_u8()).await.unwrap(), 42);
    assert_eq!(near.write_all(&[1]).await.unwrap_err().kind(), ErrorKind::BrokenPipe);

    let (near, mut far) = link(transport).await;
    let (mut reader, writer) = near.into_split();
    drop(writer);
    assert_eq!(in_time(far.read(&mut [0])).await.unwrap(), 0);
    far.write_all(&[43]).await.unwrap();
    assert_eq!(in_time(reader.read_u8()).await.unwrap(), 43);
}

async fn a_dropped_end_is_detected_by_the_other(transport: &dyn Transport) {
    let (near, mut far) = link(transport).await;
    drop(near);
    assert_eq!(in_time(far.read(&mut [0])).await.unwrap(), 0);
    assert!(is_break(&in_time(write_until_error(&mut *far)).await));

    // Unread bytes make a close a reset, since the peer must not believe that they were read.
    let (mut near, mut far) = link(transport).await;
    far.write_all(&[1, 2]).await.unwrap();
    in_time(near.read_u8()).await.unwrap();
    drop(near);
    let error = in_time(far.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

async fn connecting_without_a_listener_is_refused(transport: &dyn Transport) {
    let listener = transport.listen(LOOPBACK).await.unwrap();
    let address = listener.address();
    assert_ne!(address.port(), 0);
    assert_eq!(transport.listen(address).await.unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(listener);
    let refused = in_time(transport.connect(address, fresh_identity())).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let (mut near, mut far) = link_to(transport, &mut *transport.listen(address).await.unwrap()).await;
    near.write_all(&[1]).await.unwrap();
    assert_eq!(in_time(far.read_u8()).await.unwrap(), 1);
}

async fn many_links_are_independent(transport: &dyn Transport) {
    const LINKS: u32 = 200;
    let mut listener = transport.listen(LOOPBACK).await.unwrap();
    let address = listener.address();
    let answer = async {
        let mut served = Vec::new();
        for _ in 0..LINKS {
            let mut link = listener.accept().await.unwrap().await.unwrap();
            served.push(async move {
                let number = link.read_u32().await.unwrap();
                link.write_u32(number + 1).await.unwrap();
            });
        }
        join_all(served).await;
    };
    let ask = join_all((0..LINKS).map(|number| async move {
        let mut link = transport.connect(address, fresh_identity()).await.unwrap();
        link.write_u32(number).await.unwrap();
        link.read_u32().await.unwrap()
    }));
    let (answers, ()) = in_time(join(ask, answer)).await;
    assert!(answers.into_iter().eq(1..=LINKS));
}

async fn a_dropped_accept_loses_no_link(transport: &dyn Transport) {
    let mut listener = transport.listen(LOOPBACK).await.unwrap();
    assert!(poll_once(&mut listener.accept()).await.is_pending());
    let mut near = in_time(transport.connect(listener.address(), fresh_identity())).await.unwrap();
    near.write_all(&[5]).await.unwrap();
    let mut far = in_time(listener.accept()).await.unwrap().await.unwrap();
    assert_eq!(in_time(far.read_u8()).await.unwrap(), 5);
}

async fn a_dropped_connect_affects_no_other(transport: &dyn Transport) {
    let mut listener = transport.listen(LOOPBACK).await.unwrap();
    for _ in 0..3 {
        drop(poll_once(&mut transport.connect(listener.address(), fresh_identity())).await);
    }
    let connect = async {
        let mut near = transport.connect(listener.address(), fresh_identity()).await.unwrap();
        near.write_all(&[6]).await.unwrap();
        near
    };
    let _near = in_time(connect).await;
    let serve = async {
        // The connections that were dropped before reach their end.
        while listener.accept().await.unwrap().await.unwrap().read_u8().await.ok() != Some(6) {}
    };
    in_time(serve).await;
}

#[tokio::test(start_paused = true)]
async fn bytes_and_dials_take_the_configured_latency() {
    let network = Memory::new(3);
    let mut listener = network.listen((TWO, 0).into()).await.unwrap();
    network.latency(SECOND..=2 * SECOND);
    let (dialled, ends) = timed(link_to(&network.at(ONE), &mut *listener)).await;
    assert_within(dialled, 2 * SECOND..=4 * SECOND);
    let (mut near, mut far) = ends;
    near.write_all(&[1]).await.unwrap();
    let (took, byte) = timed(far.read_u8()).await;
    assert_eq!(byte.unwrap(), 1);
    assert_within(took, SECOND..=2 * SECOND);
    drop(near);
    let (took, end) = timed(far.read(&mut [0])).await;
    assert_eq!(end.unwrap(), 0);
    assert_within(took, SECOND..=2 * SECOND);
}

/// Returns the order in which numbered pairs arrive that were written together, each on its own link.
async fn arrivals(seed: u64) -> Vec<(u8, u8)> {
    let network = Memory::new(seed);
    network.latency(Duration::from_millis(1)..=SECOND);
    let mut ends = Vec::new();
    for _ in 0..20 {
        ends.push(link(&network).await);
    }
    let (sender, mut received) = tokio::sync::mpsc::channel(64);
    for (number, (mut near, mut far)) in (0..).zip(ends) {
        near.write_all(&[0]).await.unwrap();
        near.write_all(&[1]).await.unwrap();
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Ok(count) = far.read_u8().await {
                sender.send((number, count)).await.unwrap();
            }
            drop(near);
        });
    }
    let mut order = Vec::new();
    while order.len() < 40 {
        order.push(received.recv().await.unwrap());
    }
    order
}

#[tokio::test(start_paused = true)]
async fn the_seed_decides_the_order_of_links_and_bytes_within_a_link_keep_theirs() {
    let order = arrivals(1).await;
    assert_eq!(order, arrivals(1).await);
    assert_ne!(order, arrivals(2).await);
    let firsts: Vec<_> = order.iter().filter(|(_, count)| *count == 0).collect();
    assert!(!firsts.is_sorted(), "{order:?}");
    for link in 0..20 {
        let counts = order.iter().filter(|(number, _)| *number == link).map(|(_, count)| count);
        assert!(counts.eq(&[0, 1]), "link {link} in {order:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_resets_the_links_between_two_addresses_and_no_others() {
    let network = Memory::new(4);
    let mut listener = network.listen((TWO, 0).into()).await.unwrap();
    let (mut near, mut far) = link_to(&network.at(ONE), &mut *listener).await;
    let (mut other, mut untouched) = link_to(&network, &mut *listener).await;
    near.write_all(b"lost").await.unwrap();
    let waiting = async {
        let mut reading = pin!(near.read_u8());
        assert!(poll_once(&mut reading).await.is_pending());
        assert_eq!(network.cut(TWO, ONE), 1);
        reading.await.unwrap_err()
    };
    assert_eq!(waiting.await.kind(), ErrorKind::ConnectionReset);
    assert_eq!(far.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(far.write(&[1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    other.write_all(&[1]).await.unwrap();
    assert_eq!(untouched.read_u8().await.unwrap(), 1);
    drop((near, far));
    link_to(&network.at(ONE), &mut *listener).await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_holds_one_direction_until_it_is_healed() {
    let network = Memory::new(5);
    let mut listener = network.listen((TWO, 0).into()).await.unwrap();
    let (mut near, mut far) = link_to(&network.at(ONE), &mut *listener).await;
    network.partition(ONE, TWO);
    near.write_all(b"held").await.unwrap();
    let mut held = [0; 4];
    let hour = 3600 * SECOND;
    assert!(timeout(hour, far.read_exact(&mut held)).await.is_err());
    far.write_all(&[9]).await.unwrap();
    assert_eq!(near.read_u8().await.unwrap(), 9);
    // A dial from either side waits, and succeeds after the partition is healed.
    assert!(timeout(hour, network.at(ONE).connect(listener.address(), fresh_identity())).await.is_err());
    let (here, mut back) = (network.listen((ONE, 0).into()).await.unwrap(), network.at(TWO));
    let mut dial = back.connect(here.address(), fresh_identity());
    assert!(timeout(hour, &mut dial).await.is_err());
    network.heal(TWO, ONE);
    dial.await.unwrap();
    far.read_exact(&mut held).await.unwrap();
    assert_eq!(&held, b"held");
    back = network.at(ONE);
    back.connect(listener.address(), fresh_identity()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_host_is_not_detected_through_a_partition() {
    let network = Memory::new(6);
    let mut listener = network.listen((TWO, 0).into()).await.unwrap();
    let (near, mut far) = link_to(&network.at(ONE), &mut *listener).await;
    network.partition(ONE, TWO);
    drop(near);
    assert!(timeout(SECOND, far.read(&mut [0])).await.is_err());
    assert!(timeout(SECOND, write_until_error(&mut *far)).await.is_err(), "the writer only fills its buffer");
    network.heal_all();
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    assert!(is_break(&write_until_error(&mut *far).await));
}

#[tokio::test(start_paused = true)]
async fn two_ends_that_wait_for_buffer_space_do_not_wake_each_other() {
    let network = Memory::new(7);
    let (near, far) = link(&network).await;
    network.latency(SECOND..=SECOND);
    // Each end reads only when it cannot write. Bytes in transit free no space yet, so both ends have to
    // sleep.
    let busy = |link: Box<dyn Link>| async move {
        let (mut reader, mut writer) = link.into_split();
        let mut written = 0;
        let mut turn = [0; 1024];
        while written < 200 << 10 {
            tokio::select! {
                biased;
                bytes = writer.write(&[0; 1024]) => written += bytes.unwrap(),
                bytes = reader.read(&mut turn) => drop(bytes.unwrap()),
            }
        }
    };
    timeout(60 * SECOND, join(busy(near), busy(far))).await.expect("the clock advances");
}

#[tokio::test(start_paused = true)]
async fn a_refused_listener_is_unreachable_until_it_is_healed() {
    let network = Memory::new(7);
    let mut listener = network.listen((TWO, 0).into()).await.unwrap();
    network.refuse(listener.address());
    let error = network.connect(listener.address(), fresh_identity()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    network.heal_all();
    link_to(&network, &mut *listener).await;
}

#[test]
fn hosts_call_each_other_over_memory_in_paused_time() {
    let runtime = || Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    System::with_tokio_rt(runtime).block_on(async {
        let network = Memory::new(8);
        let [here, there] = [start_host(&network, ONE).await, start_host(&network, TWO).await];
        here.add_peer(there.identity(), there.address().unwrap());
        let far = ClusterRef::new(there.clone()).register(Clerk::default().start());
        let clerk = ClusterRef::new(here.clone()).bind(&far);
        network.latency(SECOND / 10..=SECOND / 5);
        assert_eq!(clerk.send(Add(1)).await, Ok(1));
        let (took, sum) = timed(clerk.send(Add(1))).await;
        assert_eq!(sum, Ok(2));
        assert_within(took, SECOND / 5..=2 * SECOND / 5);
        network.partition(ONE, TWO);
        let (took, timed_out) = timed(clerk.send(Add(1)).timeout(3600 * SECOND)).await;
        assert!(timed_out.is_err() && took >= 3600 * SECOND);
        network.heal(ONE, TWO);
        assert_eq!(clerk.send(Add(1)).await, Ok(3), "the call that timed out is cancelled before it starts");
        here.abort();
        there.abort();
    });
}

async fn start_host(network: &Memory, ip: Ipv4Addr) -> Host {
    let config = HostConfig {
        identity: fresh_identity(),
        secret: Secret::from_bytes(SECRET),
        limits: roadshow::Limits::default(),
        transport: Arc::new(network.at(ip)),
        listen: Some((ip, 0).into()),
        io: Handle::current(),
        executor: Executor::here_or(&Handle::current()),
        services: Box::new(actor_services),
    };
    Host::start(config).await.unwrap()
}

async fn link(transport: &dyn Transport) -> Ends {
    link_to(transport, &mut *transport.listen(LOOPBACK).await.unwrap()).await
}

async fn link_to(transport: &dyn Transport, listener: &mut dyn Listener) -> Ends {
    let address: SocketAddr = listener.address();
    let (near, far) = join(transport.connect(address, fresh_identity()), listener.accept()).await;
    (near.unwrap(), far.unwrap().await.unwrap())
}

/// Returns bytes whose period fits no buffer size, so that a loss would shift them.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ seed).collect()
}

/// Writes until a write fails.
async fn write_until_error(link: &mut dyn Link) -> io::Error {
    loop {
        if let Err(error) = link.write_all(&[0; 1024]).await {
            return error;
        }
        tokio::task::yield_now().await;
    }
}

fn is_break(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("the operation ends in time")
}

async fn timed<F: IntoFuture>(future: F) -> (Duration, F::Output) {
    let since = Instant::now();
    let output = future.await;
    (since.elapsed(), output)
}

#[track_caller]
fn assert_within(took: Duration, range: RangeInclusive<Duration>) {
    // Each of several timers may fire one tick late.
    let range = *range.start()..=*range.end() + Duration::from_millis(10);
    assert!(range.contains(&took), "{took:?} is not in {range:?}");
}

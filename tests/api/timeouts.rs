//! Timeouts: an operation with a timeout keeps it whatever it waits for; one without can be dropped.
//!
//! Nothing in these tests completes by itself: an operation that ignored its timeout would wait until the
//! test fails. `docs/sending.md` has the table of operations.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{Future, IntoFuture, pending};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use roadshow::internals::host::{
    Assignment, Host, LookupFuture, NotDelivered, Placement, PlacementResult, TaskSlot,
};
use roadshow::internals::id::HostUid;
use roadshow::internals::spec::ActorSpec;
use roadshow::prelude::*;
use roadshow::{Limits, SpawnError, TaskError};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::hosts::{PATIENCE, Plan, TestHost, limits, poll_once, run};
use crate::raw::Raw;

const SOON: Duration = Duration::from_millis(10);

/// Actor with large arguments and large messages.
#[derive(RemoteActor)]
#[remote(handles(Much))]
struct Glutton;

impl Actor for Glutton {
    type Context = Context<Self>;
}

impl Spawn for Glutton {
    type Args = Payload;
    type Error = Infallible;

    fn spawn(_: Payload, _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Much(Payload);

impl Handler<Much> for Glutton {
    type Result = ();

    fn handle(&mut self, _: Much, _: &mut Context<Self>) {}
}

#[roadshow::task]
fn measure(much: Payload) -> usize {
    much.len()
}

fn much() -> Payload {
    // A queue of 8 KiB takes one of these, and a second one waits.
    vec![1; 6 << 10].into()
}

/// Placement of everything on one host; without a host every placement stays pending.
#[derive(Debug)]
struct Everything {
    to: Option<HostUid>,
    tasks: Arc<AtomicUsize>,
}

impl Placement for Everything {
    fn place_actor(&self, _: &Host, _: &'static str, _: Option<&ActorSpec>) -> PlacementResult {
        match self.to {
            Some(host) => PlacementResult::Now(Ok(Assignment { host, actor: None, alive: None })),
            // As while the head cannot be reached.
            None => PlacementResult::Later(Box::pin(pending())),
        }
    }

    fn find_actor(&self, _: &Host, _: Option<&str>, _: &str) -> LookupFuture {
        Box::pin(pending())
    }

    fn place_task(&self, _avoided: &[HostUid]) -> Option<TaskSlot> {
        self.to.map(|host| TaskSlot::take(host, Arc::clone(&self.tasks)))
    }

    fn task_hosts(&self) -> usize {
        1
    }
}

/// Host whose work is placed on a known peer that accepts no link. Everything waits, first for the
/// connection, and then for capacity: each target's queue takes one large message.
struct StuckHost {
    site: TestHost,
    addr: RemoteAddr<Glutton>,
    _listener: TcpListener,
}

impl StuckHost {
    async fn without_a_link() -> Self {
        let site = Plan { limits: wait_for_links(), ..Plan::default() }.start().await;
        // The listener accepts no connection, so the dial never completes.
        let (listener, identity) = Raw::listen_for(&site).await;
        site.host.set_placement(Arc::new(Everything { to: Some(identity), tasks: Arc::default() }));
        let addr = site.cluster.bind(&Raw::addr_of(identity, 1));
        Self { site, addr, _listener: listener }
    }
}

/// Limits under which a first link is awaited longer than a test runs, and a queue takes one message.
fn wait_for_links() -> Limits {
    limits(|limits| {
        limits.connect_timeout = 2 * PATIENCE;
        limits.handshake_timeout = 2 * PATIENCE;
        limits.send_queue_bytes_max = 8 << 10;
    })
}

async fn expect_error<T: Debug, E: Debug>(
    what: &str,
    operation: impl IntoFuture<Output = Result<T, E>>,
) -> E {
    match operation.await {
        Err(error) => error,
        Ok(value) => panic!("{what} has completed with {value:?}"),
    }
}

/// Checks every operation with a timeout, and its error.
async fn check_all_timeouts(StuckHost { site, addr, .. }: &StuckHost) {
    let expired = SendError::NotDelivered(NotDelivered::Expired);
    let recipient = addr.recipient::<Much>();
    assert_eq!(expect_error("send", addr.send(Much(much())).timeout(SOON)).await, expired);
    assert_eq!(expect_error("send", recipient.send(Much(much())).timeout(SOON)).await, expired);
    let retried = addr.send(Much(much())).retry(Retry::default()).timeout(SOON);
    assert_eq!(expect_error("send with retry", retried).await, expired);
    let error = expect_error("spawn", site.cluster.spawn::<Glutton>(much()).timeout(SOON)).await;
    let is_expired = matches!(error, SpawnError::NotDelivered { reason: NotDelivered::Expired, .. });
    assert!(is_expired, "{error}");
    let error = expect_error("run", site.cluster.run(measure::task(much())).timeout(SOON)).await;
    let is_expired = matches!(error, TaskError::NotDelivered { reason: NotDelivered::Expired, .. });
    assert!(is_expired, "{error}");
}

/// Checks that an operation without a timeout is still waiting; dropping it cancels it.
async fn expect_waiting<T>(what: &str, operation: impl Future<Output = T>) {
    assert!(timeout(SOON, operation).await.is_err(), "{what} has completed");
}

#[test]
fn operations_keep_their_timeout_while_they_wait_for_a_first_link() {
    run(async {
        let stuck = StuckHost::without_a_link().await;
        check_all_timeouts(&stuck).await;
        let sent = stuck.addr.try_send(Much(much())).unwrap().timeout(SOON);
        assert!(expect_error("try_send", sent).await.is_timeout());
        assert_eq!(stuck.site.calls_open(), 0);
    });
}

#[test]
fn operations_keep_their_timeout_while_they_wait_for_capacity() {
    run(async {
        let stuck = StuckHost::without_a_link().await;
        let StuckHost { site, addr, .. } = &stuck;
        let mut sent = Box::pin(addr.send(Much(much())));
        // Spawns and tasks have separate targets, so each queue is filled.
        let mut spawned = site.cluster.spawn::<Glutton>(much()).into_future();
        let mut ran = site.cluster.run(measure::task(much())).into_future();
        assert!(poll_once(&mut sent).await.is_pending());
        assert!(poll_once(&mut spawned).await.is_pending());
        assert!(poll_once(&mut ran).await.is_pending());
        let full = addr.try_send(Much(much())).unwrap_err();
        assert!(matches!(full.reason, NotDelivered::Full { .. }), "{full}");
        check_all_timeouts(&stuck).await;
        expect_waiting("tell", addr.tell(Much(much()))).await;
        expect_waiting("tell", addr.recipient::<Much>().tell(Much(much()))).await;
        let tasks = (0..3).map(|_| measure::task(much()));
        expect_waiting("run_all", site.cluster.run_all(tasks).into_future()).await;
        assert_eq!(site.calls_open(), 3, "a dropped operation leaves nothing behind");
        assert_eq!(site.dead_letters(), 0);
    });
}

#[test]
fn operations_keep_their_timeout_while_they_wait_for_placement_or_the_head() {
    run(async {
        let site = TestHost::start().await;
        site.host.set_placement(Arc::new(Everything { to: None, tasks: Arc::default() }));
        let error = expect_error("spawn", site.cluster.spawn::<Glutton>(much()).timeout(SOON)).await;
        assert!(matches!(error, SpawnError::PlacementTimedOut { .. }), "{error}");
        expect_waiting("spawn", site.cluster.spawn::<Glutton>(much()).into_future()).await;
        expect_waiting("actor", site.cluster.actor::<Glutton>("name")).await;
        expect_waiting("actor_in", site.cluster.actor_in::<Glutton>("namespace", "name")).await;
    });
}

#[test]
fn a_stop_waits_and_is_cancelled_with_its_future() {
    run(async {
        let stuck = StuckHost::without_a_link().await;
        let mut stop = pin!(stuck.addr.stop());
        expect_waiting("stop", stop.as_mut()).await;
        assert_eq!(stuck.site.calls_open(), 1);
        // The dropped future takes its stop back, so the number of open calls does not grow.
        expect_waiting("stop", stuck.addr.stop()).await;
        assert_eq!(stuck.site.calls_open(), 1);
    });
}

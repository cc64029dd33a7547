//! Time: whatever has a timeout keeps it, whatever it waits for; what has none can be dropped.
//!
//! Nothing here ever goes on by itself: an operation that forgot its time would wait for as long as the
//! test may last. The table of what takes time is in `docs/sending.md`.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{Future, IntoFuture, pending};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use roadshow::host::{Assignment, Host, LookupFuture, NotDelivered, Placement, PlacementResult, TaskSlot};
use roadshow::id::HostUid;
use roadshow::prelude::*;
use roadshow::spec::ActorSpec;
use roadshow::{Limits, SpawnError, TaskError};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::hosts::{PATIENCE, Plan, TestHost, limits, poll_once, run};
use crate::raw::Raw;

const SOON: Duration = Duration::from_millis(10);

/// Is spawned from much, and takes much.
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
    vec![1; 6 << 10].into()
}

/// Where everything goes; with nobody, everything waits for a place.
#[derive(Debug)]
struct Everything {
    to: Option<HostUid>,
    tasks: Arc<AtomicUsize>,
}

impl Placement for Everything {
    fn place_actor(&self, _: &Host, _: &'static str, _: Option<&ActorSpec>) -> PlacementResult {
        match self.to {
            Some(host) => PlacementResult::Now(Ok(Assignment { host, actor: None, alive: None })),
            None => PlacementResult::Later(Box::pin(pending())),
        }
    }

    fn find_actor(&self, _: &Host, _: Option<&str>, _: &str) -> LookupFuture {
        Box::pin(pending())
    }

    fn place_task(&self) -> Option<TaskSlot> {
        self.to.map(|host| TaskSlot::take(host, Arc::clone(&self.tasks)))
    }

    fn task_hosts(&self) -> usize {
        1
    }
}

/// A host whose work goes to another that is known, and that takes no link: first for its connection, then
/// for room for one large message at each target, everything waits.
struct Waiting {
    site: TestHost,
    addr: RemoteAddr<Glutton>,
    _listener: TcpListener,
}

impl Waiting {
    async fn for_a_link() -> Self {
        let site = Plan { limits: patient(), ..Plan::default() }.start().await;
        // It accepts no connection, and the kernel lets nobody wait for ever.
        let (listener, identity) = Raw::listen_for(&site).await;
        site.host.set_placement(Arc::new(Everything { to: Some(identity), tasks: Arc::default() }));
        let addr = site.cluster.bind(&Raw::addr_of(identity, 1));
        Self { site, addr, _listener: listener }
    }
}

/// A first link is waited for as long as a test may last, and one message at a time has room.
fn patient() -> Limits {
    limits(|limits| {
        limits.connect_timeout = 2 * PATIENCE;
        limits.handshake_timeout = 2 * PATIENCE;
        limits.send_queue_bytes_max = 8 << 10;
    })
}

async fn gives_up<T: Debug, E: Debug>(what: &str, waits: impl IntoFuture<Output = Result<T, E>>) -> E {
    match waits.await {
        Err(error) => error,
        Ok(value) => panic!("{what} has ended, with {value:?}"),
    }
}

/// All that has a timeout, and what is said when that is over.
async fn all_give_up(Waiting { site, addr, .. }: &Waiting) {
    let expired = SendError::NotDelivered(NotDelivered::Expired);
    let recipient = addr.recipient::<Much>();
    assert_eq!(gives_up("send", addr.send(Much(much())).timeout(SOON)).await, expired);
    assert_eq!(gives_up("send", recipient.send(Much(much())).timeout(SOON)).await, expired);
    let retried = addr.send(Much(much())).retry(Retry::default()).timeout(SOON);
    assert_eq!(gives_up("send with retry", retried).await, expired);
    let error = gives_up("spawn", site.cluster.spawn::<Glutton>(much()).timeout(SOON)).await;
    let is_expired = matches!(error, SpawnError::NotDelivered { reason: NotDelivered::Expired, .. });
    assert!(is_expired, "{error}");
    let error = gives_up("run", site.cluster.run(measure::task(much())).timeout(SOON)).await;
    let is_expired = matches!(error, TaskError::NotDelivered { reason: NotDelivered::Expired, .. });
    assert!(is_expired, "{error}");
}

/// What has no timeout waits, and is withdrawn when it is dropped.
async fn waits<T>(what: &str, operation: impl Future<Output = T>) {
    assert!(timeout(SOON, operation).await.is_err(), "{what} has ended");
}

#[test]
fn whatever_has_a_timeout_keeps_it_while_it_waits_for_a_first_link() {
    run(async {
        let waiting = Waiting::for_a_link().await;
        all_give_up(&waiting).await;
        let under_way = waiting.addr.try_send(Much(much())).unwrap().timeout(SOON);
        assert!(gives_up("try_send", under_way).await.is_timeout());
        assert_eq!(waiting.site.calls_open(), 0);
    });
}

#[test]
fn whatever_has_a_timeout_keeps_it_while_it_waits_for_room() {
    run(async {
        let waiting = Waiting::for_a_link().await;
        let Waiting { site, addr, .. } = &waiting;
        let mut sent = Box::pin(addr.send(Much(much())));
        let mut spawned = site.cluster.spawn::<Glutton>(much()).into_future();
        let mut ran = site.cluster.run(measure::task(much())).into_future();
        assert!(poll_once(&mut sent).await.is_pending());
        assert!(poll_once(&mut spawned).await.is_pending());
        assert!(poll_once(&mut ran).await.is_pending());
        let full = addr.try_send(Much(much())).unwrap_err();
        assert!(matches!(full.reason, NotDelivered::Full { .. }), "{full}");
        all_give_up(&waiting).await;
        waits("tell", addr.tell(Much(much()))).await;
        waits("tell", addr.recipient::<Much>().tell(Much(much()))).await;
        let tasks = (0..3).map(|_| measure::task(much()));
        waits("run_all", site.cluster.run_all(tasks).into_future()).await;
        assert_eq!(site.calls_open(), 3, "what was dropped has left nothing behind");
        assert_eq!(site.dead_letters(), 0);
    });
}

#[test]
fn whatever_has_a_timeout_keeps_it_while_it_waits_for_a_place_or_for_the_head() {
    run(async {
        let site = TestHost::start().await;
        site.host.set_placement(Arc::new(Everything { to: None, tasks: Arc::default() }));
        let error = gives_up("spawn", site.cluster.spawn::<Glutton>(much()).timeout(SOON)).await;
        assert!(matches!(error, SpawnError::PlacementTimedOut { .. }), "{error}");
        waits("spawn", site.cluster.spawn::<Glutton>(much()).into_future()).await;
        waits("actor", site.cluster.actor::<Glutton>("name")).await;
        waits("actor_in", site.cluster.actor_in::<Glutton>("namespace", "name")).await;
    });
}

#[test]
fn a_stop_waits_and_is_withdrawn_with_its_future() {
    run(async {
        let waiting = Waiting::for_a_link().await;
        let mut stop = pin!(waiting.addr.stop());
        waits("stop", stop.as_mut()).await;
        assert_eq!(waiting.site.calls_open(), 1);
        waits("stop", waiting.addr.stop()).await;
        assert_eq!(waiting.site.calls_open(), 1);
    });
}

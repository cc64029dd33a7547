//! A store with real hosts as its holders, and a control plane of a few lines.

use std::future::ready;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;

use super::*;
use crate::cluster::MemoryStates;
use crate::durable::protocol::Position;
use crate::host::{
    Executor, HostConfig, KillFuture, Placement, PlacementResult, PlanFuture, TaskSlot, fresh_identity,
};
use crate::id::HostUid;
use crate::registry::decode;
use crate::session::Secret;
use crate::spec::{ActorSpec, JobId};
use crate::transport::Tcp;
use crate::wire::CallFailure;

const ACTOR: ActorKey = ActorKey(7);
const KEY: StateKey = StateKey { job: JobId(1), actor: ACTOR };

/// Starts a host that handles requests about states.
async fn start(handle: impl Fn(StateRequest) -> Option<StateResult> + Send + Sync + 'static) -> Host {
    let config = HostConfig {
        identity: fresh_identity(),
        secret: Secret::from_bytes([7; 32]),
        limits: crate::Limits::default(),
        transport: Arc::new(Tcp),
        listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        io: Handle::current(),
        executor: Executor::Runtime(Handle::current()),
        services: Box::new(move |_, service, inbound| {
            assert_eq!(service, STATE);
            let (body, _, responder) = inbound.into_parts::<StateResult>();
            match handle(decode(&body).unwrap()) {
                Some(result) => responder.reply(result),
                None => responder.fail(CallFailure::NoReply),
            }
        }),
    };
    Host::start(config).await.unwrap()
}

/// Holder that may be away.
struct TestHolder {
    host: Host,
    states: Arc<Mutex<MemoryStates>>,
    is_away: Arc<AtomicBool>,
    id: HolderId,
}

impl TestHolder {
    async fn start(id: u64) -> Self {
        let (states, is_away) = (Arc::<Mutex<MemoryStates>>::default(), Arc::<AtomicBool>::default());
        let (kept, away) = (Arc::clone(&states), Arc::clone(&is_away));
        let host =
            start(move |request| (!away.load(Ordering::SeqCst)).then(|| kept.lock().handle(request))).await;
        Self { host, states, is_away, id: HolderId(id) }
    }

    fn goes_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    fn seal(&self, number: u64) -> Result<Position, StateError> {
        match self.states.lock().handle(StateRequest::Seal { key: KEY, number })? {
            StateReply::Sealed(position) => Ok(position),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for TestHolder {
    fn drop(&mut self) {
        self.host.abort();
    }
}

/// Control plane that knows holders by their order of preference.
#[derive(Debug, Default)]
struct TestHead(Mutex<HeadState>);

#[derive(Debug, Default)]
struct HeadState {
    known: Vec<HolderAddress>,
    number: u64,
    active: Vec<HolderId>,
    proposed: Vec<HolderId>,
    incarnation: Option<ActorIncarnation>,
}

impl Placement for TestHead {
    fn place_actor(&self, _: &Host, _: &'static str, _: Option<&ActorSpec>) -> PlacementResult {
        unreachable!("these tests place nothing")
    }

    fn place_task(&self, _: &[HostUid]) -> Option<TaskSlot> {
        None
    }

    fn task_hosts(&self) -> usize {
        0
    }

    fn check_holders(&self, _: &Host, copies: Copies) -> KillFuture {
        let is_possible = self.0.lock().known.len() >= usize::from(copies.wanted);
        let refused = || PlacementError::Infeasible { text: "too few nodes".to_owned() };
        Box::pin(ready(is_possible.then_some(()).ok_or_else(refused)))
    }

    fn propose_holders(&self, host: &Host, request: HolderRequest) -> PlanFuture {
        Box::pin(ready(self.0.lock().propose(host, &request)))
    }

    fn activate_holders(&self, _: &Host, _: ActorKey, by: ActorIncarnation, number: u64) -> KillFuture {
        Box::pin(ready(self.0.lock().activate(by, number)))
    }
}

impl HeadState {
    fn check(&self, by: ActorIncarnation) -> Result<(), PlacementError> {
        let refused = || PlacementError::Unknown { text: "it is replaced".to_owned() };
        (Some(by) == self.incarnation).then_some(()).ok_or_else(refused)
    }

    fn propose(
        &mut self,
        host: &Host,
        request: &HolderRequest,
    ) -> Result<Option<HolderPlan>, PlacementError> {
        self.check(request.incarnation)?;
        let trusted = self.known.iter().filter(|known| !request.suspects.contains(&known.holder));
        let holders: Vec<_> = trusted.take(request.copies.wanted.into()).copied().collect();
        if request.only_if_better && holders.len() <= self.active.len() {
            return Ok(None);
        }
        self.known.iter().for_each(|known| host.add_peer(known.host, known.at));
        self.number += 1;
        self.proposed = holders.iter().map(|holder| holder.holder).collect();
        let sources = self.known.iter().filter(|known| self.active.contains(&known.holder));
        Ok(Some(HolderPlan {
            key: KEY,
            number: self.number,
            sources: sources.copied().collect(),
            is_first: self.active.is_empty(),
            is_complete: holders.len() >= usize::from(request.copies.wanted),
            holders,
        }))
    }

    fn activate(&mut self, by: ActorIncarnation, number: u64) -> Result<(), PlacementError> {
        self.check(by)?;
        assert_eq!(number, self.number);
        self.active.clone_from(&self.proposed);
        Ok(())
    }
}

/// Host of an actor, with its control plane.
struct TestActor {
    host: Host,
    head: Arc<TestHead>,
}

impl TestActor {
    async fn start(holders: &[&TestHolder]) -> Self {
        let (host, head) = (start(|_| None).await, Arc::<TestHead>::default());
        host.set_placement(Arc::clone(&head) as _);
        let this = Self { host, head };
        holders.iter().for_each(|holder| this.knows(holder));
        this
    }

    fn knows(&self, TestHolder { host, id, .. }: &TestHolder) {
        let address = HolderAddress { holder: *id, host: host.identity(), at: host.address().unwrap() };
        self.head.0.lock().known.push(address);
    }

    /// Begins an incarnation; returns what it reads.
    async fn incarnation(&self, number: u32) -> (Store, StateLog) {
        let incarnation = ActorIncarnation(number);
        self.head.0.lock().incarnation = Some(incarnation);
        let store =
            Store::new(self.host.clone(), ACTOR, incarnation, Copies { wanted: 2, is_required: false });
        let log = store.open(|| Ok(vec![Bytes::from_static(b"created")])).await.unwrap();
        (store, log)
    }
}

impl Drop for TestActor {
    fn drop(&mut self) {
        self.host.abort();
    }
}

fn group(first: u64, records: &[&'static str]) -> Group {
    Group { first, records: records.iter().map(|record| Bytes::from_static(record.as_bytes())).collect() }
}

#[tokio::test]
async fn what_is_stored_is_there_when_either_holder_is_lost() {
    for lost in [0, 1] {
        let holders = [TestHolder::start(1).await, TestHolder::start(2).await];
        let actor = TestActor::start(&[&holders[0], &holders[1]]).await;
        let (store, log) = actor.incarnation(0).await;
        assert_eq!((log.snapshot, log.records), (vec![Bytes::from_static(b"created")], Vec::<Bytes>::new()));
        assert!(store.is_complete());
        store.clone().append(group(0, &["a", "b"])).await.unwrap();
        holders[lost].goes_away(true);
        // It goes on with the other one.
        store.clone().append(group(2, &["c"])).await.unwrap();
        assert!(!store.is_complete());
        let (_, log) = actor.incarnation(1).await;
        assert_eq!(log.records, ["a", "b", "c"]);
        // The earlier incarnation stores nothing, and answers no read.
        for records in [&["d"][..], &[]] {
            let refused = store.clone().append(group(3, records)).await.unwrap_err();
            assert!(matches!(refused, StoreError::Fenced), "{refused}");
        }
        // The lost holder is back, with what it had, and gets the rest.
        holders[lost].goes_away(false);
        let (store, log) = actor.incarnation(2).await;
        assert_eq!(log.records, ["a", "b", "c"]);
        assert!(store.is_complete());
        let number = actor.head.0.lock().number;
        let position = Position { complete_in: number, next: 3 };
        assert_eq!([0, 1].map(|holder| holders[holder].seal(number)), [Ok(position), Ok(position)]);
    }
}

#[tokio::test]
async fn a_search_for_a_copy_that_finds_a_silent_holder_does_not_stop_the_appends() {
    let (holder, silent) = (TestHolder::start(1).await, TestHolder::start(2).await);
    let actor = TestActor::start(&[&holder]).await;
    let (store, _) = actor.incarnation(0).await;
    assert!(!store.is_complete() && !store.clone().can_repair().await);
    store.clone().append(group(0, &["a"])).await.unwrap();
    silent.goes_away(true);
    actor.knows(&silent);
    assert!(store.clone().can_repair().await);
    store.clone().repair().await.unwrap();
    assert!(!store.is_complete());
    store.clone().append(group(1, &["b"])).await.unwrap();
    silent.goes_away(false);
    store.clone().repair().await.unwrap();
    assert!(store.is_complete());
    store.append(group(2, &["c"])).await.unwrap();
    holder.goes_away(true);
    assert_eq!(actor.incarnation(1).await.1.records, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_snapshot_that_a_change_of_the_holders_overtakes_is_dropped() {
    let holder = TestHolder::start(1).await;
    let actor = TestActor::start(&[&holder]).await;
    let (store, _) = actor.incarnation(0).await;
    store.clone().append(group(0, &["a", "b"])).await.unwrap();
    store.clone().snapshot(1, vec![Bytes::from_static(b"one")]).await.unwrap();
    // As the first step of a change does.
    holder.seal(actor.head.0.lock().number + 1).unwrap();
    store.clone().snapshot(2, vec![Bytes::from_static(b"two")]).await.unwrap();
    let (_, log) = actor.incarnation(1).await;
    assert_eq!((log.snapshot, log.first), (vec![Bytes::from_static(b"one")], 1));
    assert_eq!(log.records, ["b"]);
}

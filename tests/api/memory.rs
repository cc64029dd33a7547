//! Workers with little memory left: new actors and tasks are refused, and go on elsewhere or later.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use roadshow::internals::host::{MemoryUse, Placement, PlacementResult, TaskSlot};
use roadshow::internals::id::HostUid;
use roadshow::internals::spec::ActorSpec;
use roadshow::prelude::*;
use roadshow::{InProcess, NotDelivered, Restart};

use crate::hosts::{Pair, Plan, TestHost, limits, run};

#[roadshow::task]
fn square(n: u64) -> u64 {
    n * n
}

#[roadshow::task(parallel = 2)]
fn square_in_pool(n: u64) -> u64 {
    n * n
}

#[derive(RemoteActor)]
#[remote(handles(Add))]
struct Counter(u64);

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Spawn for Counter {
    type Args = u64;
    type Error = Infallible;

    fn spawn(start: u64, _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self(start))
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
struct Add(u64);

impl Handler<Add> for Counter {
    type Result = u64;

    fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> u64 {
        self.0 += n;
        self.0
    }
}

/// Memory of a host: the per cent in use, which are full at first, and the number of readings.
#[derive(Clone, Debug)]
struct Memory(Arc<(AtomicU64, AtomicUsize)>);

impl Memory {
    /// Gives a host this memory, which has room after a number of readings.
    fn of(host: &TestHost, full_for: usize) -> Self {
        let memory = Self(Arc::new((AtomicU64::new(99), AtomicUsize::new(0))));
        let Self(shared) = memory.clone();
        host.host.set_memory_reader(Box::new(move || {
            let readings = shared.1.fetch_add(1, Ordering::SeqCst) + 1;
            if readings > full_for {
                shared.0.store(50, Ordering::SeqCst);
            }
            let used = shared.0.load(Ordering::SeqCst) << 20;
            Some(MemoryUse { used, limit: 100 << 20, limited: "the test".to_owned() })
        }));
        memory
    }

    fn set(&self, percent: u64) {
        self.0.0.store(percent, Ordering::SeqCst);
    }

    fn readings(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

/// Places tasks on the first host that is not avoided.
#[derive(Debug)]
struct InOrder(Vec<HostUid>);

impl Placement for InOrder {
    fn place_actor(
        &self,
        _: &roadshow::internals::host::Host,
        _: &'static str,
        _: Option<&ActorSpec>,
    ) -> PlacementResult {
        unreachable!("these tests place tasks alone")
    }

    fn place_task(&self, avoided: &[HostUid]) -> Option<TaskSlot> {
        let host = self.0.iter().find(|host| !avoided.contains(host)).or(self.0.first())?;
        Some(TaskSlot::take(*host, Arc::default()))
    }

    fn task_hosts(&self) -> usize {
        self.0.len()
    }
}

/// Starts a host that sends tasks, and as many that run them.
async fn task_hosts<const N: usize>() -> (TestHost, [TestHost; N]) {
    let here = TestHost::start().await;
    let mut there = Vec::new();
    for _ in 0..N {
        there.push(Plan::of_tasks().start().await);
    }
    there.iter().for_each(|there| here.knows(there));
    here.host.set_placement(Arc::new(InOrder(there.iter().map(TestHost::identity).collect())));
    (here, there.try_into().unwrap_or_else(|_| unreachable!("as many hosts were started")))
}

#[test]
fn spawn_on_a_full_worker_fails_with_the_cause_and_succeeds_once_there_is_room() {
    run(async {
        let Pair { here, there } = Pair::start().await;
        let old = here.cluster.spawn::<Counter>(1).await.unwrap();
        let memory = Memory::of(&there, usize::MAX);
        let error = here.cluster.spawn::<Counter>(0).await.unwrap_err();
        let SpawnError::NotDelivered { reason: NotDelivered::LowMemory { text }, .. } = &error else {
            panic!("{error}");
        };
        for part in [&there.identity().to_string(), "99 MiB of the 100 MiB of the test", "95 %"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(error.to_string().contains(text));
        // Messages to existing actors ask for no reading.
        let readings = memory.readings();
        assert_eq!(old.send(Add(2)).await, Ok(3));
        assert_eq!(memory.readings(), readings);
        memory.set(95);
        let spawned = loop {
            match here.cluster.spawn::<Counter>(40).await {
                Ok(spawned) => break spawned,
                Err(error) => assert!(error.to_string().contains("99 MiB"), "{error}"),
            }
        };
        assert_eq!(spawned.send(Add(2)).await, Ok(42));
    });
}

#[test]
fn refused_task_goes_to_another_worker() {
    run(async {
        let (here, [full, other]) = task_hosts().await;
        let memory = Memory::of(&full, usize::MAX);
        // Without a further run: no worker was lost.
        assert_eq!(here.cluster.run(square::task(7)).retries(0).await, Ok(49));
        assert_eq!(here.cluster.run(square_in_pool::task(8)).retries(0).await, Ok(64));
        assert!(memory.readings() > 0);
        let squares = here.cluster.run_all((0..100).map(square::task)).await.unwrap();
        assert_eq!(squares, (0..100).map(|n| n * n).collect::<Vec<_>>());
        drop((full, other));
    });
}

#[test]
fn task_is_repeated_until_a_full_worker_has_room() {
    run(async {
        let (here, [there]) = task_hosts().await;
        let memory = Memory::of(&there, 2);
        assert_eq!(here.cluster.run(square::task(7)).retries(0).await, Ok(49));
        assert_eq!(memory.readings(), 3);
    });
}

#[test]
fn task_without_room_until_its_deadline_fails_with_the_cause() {
    run(async {
        let (here, [there]) = task_hosts().await;
        let _memory = Memory::of(&there, usize::MAX);
        for ran in [
            here.cluster.run(square::task(7)).timeout(Duration::from_millis(50)).await,
            here.cluster.run(square_in_pool::task(7)).timeout(Duration::from_millis(50)).await,
        ] {
            let error = ran.unwrap_err();
            // On a slow machine the deadline may pass before the refusal arrives.
            assert!(
                matches!(error, TaskError::NotDelivered { .. } | TaskError::OutcomeUnknown { .. }),
                "{error}"
            );
        }
    });
}

#[test]
fn task_without_a_deadline_ends_after_a_bounded_number_of_refusals() {
    run(async {
        let (here, [there]) = task_hosts().await;
        let memory = Memory::of(&there, usize::MAX);
        let error = here.cluster.run(square::task(7)).await.unwrap_err();
        let TaskError::NotDelivered { reason: NotDelivered::LowMemory { text }, .. } = &error else {
            panic!("{error}");
        };
        assert!(text.contains("99 MiB of the 100 MiB of the test"), "{text}");
        assert!(memory.readings() > 1);
    });
}

#[test]
fn workers_of_a_cluster_take_nothing_new_beyond_the_limit() {
    run(async {
        let none = limits(|limits| limits.memory_percent_max = 0);
        let cluster =
            Cluster::builder().workers(2).limits(none).in_process(InProcess::Tcp).start().await.unwrap();
        let is_low = |error: &SpawnError| {
            matches!(error, SpawnError::NotDelivered { reason: NotDelivered::LowMemory { .. }, .. })
        };
        let plain = cluster.spawn::<Counter>(0).await.unwrap_err();
        assert!(is_low(&plain), "{plain}");
        // The name is free again after each refusal.
        for _ in 0..2 {
            let named = cluster.spawn::<Counter>(0).name("counter").await.unwrap_err();
            assert!(is_low(&named), "{named}");
        }
        let managed = cluster.spawn::<Counter>(0).restart(Restart::on_failure()).await.unwrap_err();
        assert!(is_low(&managed), "{managed}");
        let task = cluster.run(square::task(7)).timeout(Duration::from_millis(200)).await.unwrap_err();
        assert!(task.to_string().contains("square"), "{task}");
        assert!(cluster.workers().iter().all(|worker| worker.ended.is_none()));
        cluster.shutdown().await.unwrap();
    });
}

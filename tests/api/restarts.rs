//! Actors that are restarted: their addresses outlive incarnations, and each message has one outcome.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::time::Duration;

use roadshow::prelude::*;
use roadshow::{NotDelivered, PlacementError};

use crate::hosts::{Gate, PATIENCE, run, until};

/// Number of incarnations of each counter so far, by its id.
static CREATED: LazyLock<Mutex<HashMap<u32, u32>>> = LazyLock::new(Mutex::default);

/// Gates that handlers pass, by the id of their counter.
static GATES: LazyLock<Mutex<HashMap<u32, Gate>>> = LazyLock::new(Mutex::default);

fn created(id: u32) -> u32 {
    CREATED.lock().unwrap().get(&id).copied().unwrap_or_default()
}

fn gate(id: u32) -> Gate {
    GATES.lock().unwrap().entry(id).or_default().clone()
}

/// Counter that fails on demand.
#[derive(RemoteActor)]
#[remote(handles(Add, Fail, Incarnation, Wait, Leave, Forward))]
struct Counter {
    id: u32,
    incarnation: u32,
    total: u64,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

/// Arguments of a counter.
#[derive(Clone, Serialize, Deserialize)]
struct Args {
    id: u32,
    /// First incarnation that refuses to start.
    refuses_from: u32,
    ballast: Payload,
}

fn args(id: u32) -> Args {
    Args { id, refuses_from: u32::MAX, ballast: Payload::default() }
}

impl Spawn for Counter {
    type Args = Args;
    type Error = String;

    fn spawn(args: Args, _at: &SpawnContext<Self>) -> Result<Self, String> {
        let mut created = CREATED.lock().unwrap();
        let incarnation = created.entry(args.id).or_default();
        *incarnation += 1;
        match *incarnation < args.refuses_from {
            true => Ok(Self { id: args.id, incarnation: *incarnation, total: 0 }),
            false => Err("it does not like it here".to_owned()),
        }
    }
}

/// Adds, and returns the sum.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
struct Add(u64);

impl Handler<Add> for Counter {
    type Result = u64;

    fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> u64 {
        self.total += n;
        self.total
    }
}

/// Makes the handler panic.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Fail;

impl Handler<Fail> for Counter {
    type Result = ();

    fn handle(&mut self, Fail: Fail, _: &mut Context<Self>) {
        panic!("asked to fail");
    }
}

/// Returns the number of the incarnation, from 1.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u32")]
struct Incarnation;

impl Handler<Incarnation> for Counter {
    type Result = u32;

    fn handle(&mut self, _: Incarnation, _: &mut Context<Self>) -> u32 {
        self.incarnation
    }
}

/// Holds the actor at its gate, and makes it panic then.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Wait;

impl Handler<Wait> for Counter {
    type Result = ();

    fn handle(&mut self, _: Wait, _: &mut Context<Self>) {
        gate(self.id).pass();
        panic!("after the gate");
    }
}

/// Stops the actor from inside.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Leave;

impl Handler<Leave> for Counter {
    type Result = ();

    fn handle(&mut self, _: Leave, context: &mut Context<Self>) {
        context.stop();
    }
}

/// Lets another counter add, and returns its sum.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<u64, String>")]
struct Forward(RemoteAddr<Counter>, u64);

impl Handler<Forward> for Counter {
    type Result = ResponseFuture<Result<u64, String>>;

    fn handle(&mut self, Forward(to, n): Forward, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async move { to.send(Add(n)).await.map_err(|error| error.to_string()) })
    }
}

fn soon() -> Restart {
    Restart::on_failure().backoff(Duration::from_millis(1)..Duration::from_millis(5))
}

#[test]
fn restarted_actor_answers_at_its_old_address_without_its_state() {
    run(async {
        let cluster = Cluster::in_process(2).await.unwrap();
        let counter = cluster.spawn::<Counter>(args(1)).restart(soon()).await.unwrap();
        assert_eq!(counter.send(Add(5)).await, Ok(5));
        assert!(
            matches!(counter.send(Fail).await, Err(SendError::Panicked { text }) if text.contains("asked"))
        );
        // Both the address that has seen the panic and a copy that was decoded elsewhere.
        assert_eq!(counter.send(Add(2)).await, Ok(2));
        assert_eq!(counter.send(Incarnation).await, Ok(2));
        let other = cluster.spawn::<Counter>(args(2)).await.unwrap();
        assert_eq!(other.send(Forward(counter.clone(), 1)).await, Ok(Ok(3)));
        counter.do_send(Fail);
        assert_eq!(other.send(Forward(counter.clone(), 1)).await, Ok(Ok(1)));
        assert_eq!(created(1), 3);
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn messages_behind_a_panic_go_to_the_next_incarnation() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let counter = cluster.spawn::<Counter>(args(3)).restart(soon()).await.unwrap();
        let (gate, address) = (gate(3), counter.clone());
        let failing = actix_rt::spawn(async move { address.send(Wait).await });
        gate.reached_by(1).await;
        // Queued behind the handler that will panic.
        let waiting: Vec<_> = (0..10).map(|_| counter.try_send(Add(1)).unwrap()).collect();
        gate.open();
        assert!(matches!(failing.await.unwrap(), Err(SendError::Panicked { .. })));
        let mut sums = Vec::new();
        for call in waiting {
            sums.push(call.await.unwrap());
        }
        sums.sort_unstable();
        assert_eq!(sums, (1..=10).collect::<Vec<_>>());
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn actor_that_fails_too_often_ends_for_good_with_the_true_cause() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let policy = soon().at_most(2).within(Duration::from_secs(600));
        let counter = cluster.spawn::<Counter>(args(4)).restart(policy).name("fragile").await.unwrap();
        for _ in 0..3 {
            assert!(matches!(counter.send(Fail).await, Err(SendError::Panicked { .. })));
        }
        let error = counter.send(Add(1)).await.unwrap_err();
        let SendError::NotDelivered(NotDelivered::ActorEnded { text }) = &error else { panic!("{error}") };
        assert!(text.contains("asked to fail") && text.contains("more than 2 times"), "{text}");
        assert!(!counter.connected());
        assert_eq!(created(4), 3);
        // The name is free again.
        cluster.spawn::<Counter>(args(5)).name("fragile").await.unwrap();
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn stop_of_an_actor_is_final_from_inside_and_outside() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let counter = cluster.spawn::<Counter>(args(6)).restart(soon()).await.unwrap();
        counter.send(Leave).await.unwrap();
        let error = counter.send(Add(1)).await.unwrap_err();
        assert!(matches!(error, SendError::NotDelivered(NotDelivered::ActorEnded { .. })), "{error}");
        let other = cluster.spawn::<Counter>(args(7)).restart(soon()).name("other").await.unwrap();
        other.stop().await.unwrap();
        let error = other.send(Add(1)).await.unwrap_err();
        assert!(matches!(error, SendError::NotDelivered(NotDelivered::ActorEnded { .. })), "{error}");
        other.stop().await.unwrap();
        let third = cluster.spawn::<Counter>(args(8)).restart(soon()).name("third").await.unwrap();
        let key = cluster
            .actors()
            .await
            .unwrap()
            .iter()
            .find(|it| it.name.as_deref() == Some("third"))
            .unwrap()
            .actor_id;
        cluster.kill(key).await.unwrap();
        // The kill overtakes no message that the actor has received.
        let error = loop {
            if let Err(error) = third.send(Add(1)).await {
                break error;
            }
        };
        assert!(matches!(error, SendError::NotDelivered(NotDelivered::ActorEnded { .. })), "{error}");
        assert_eq!([6, 7, 8].map(created), [1, 1, 1]);
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn error_of_the_first_spawn_reaches_the_spawner_and_later_ones_count_as_failures() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let refused = cluster.spawn::<Counter>(Args { refuses_from: 1, ..args(9) }).restart(soon()).await;
        assert!(matches!(refused, Err(SpawnError::Refused { text, .. }) if text.contains("does not like")));
        assert_eq!(created(9), 1);
        let policy = soon().at_most(3);
        let counter =
            cluster.spawn::<Counter>(Args { refuses_from: 2, ..args(10) }).restart(policy).await.unwrap();
        counter.send(Fail).await.unwrap_err();
        let error = counter.send(Add(1)).await.unwrap_err();
        assert!(
            matches!(&error, SendError::NotDelivered(NotDelivered::ActorEnded { text }) if text.contains("does not like")),
            "{error}"
        );
        assert_eq!(created(10), 4);
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn call_fails_fast_while_its_actor_restarts_if_it_is_told_to() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let slow = Restart::on_failure().backoff(Duration::from_secs(3600)..Duration::from_secs(3600));
        let counter = cluster.spawn::<Counter>(args(11)).restart(slow).await.unwrap();
        counter.send(Fail).await.unwrap_err();
        let error = counter.send(Add(1)).fail_fast().await.unwrap_err();
        assert!(error.is_not_delivered(), "{error}");
        let error = counter.send(Add(1)).fail_fast().await.unwrap_err();
        assert_eq!(error, NotDelivered::Restarting.into());
        let Err(refused) = counter.try_send(Add(1)) else { panic!("it restarts") };
        assert_eq!((refused.message.0, refused.reason), (1, NotDelivered::Restarting));
        let late = counter.send(Add(1)).timeout(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(late, NotDelivered::Expired.into());
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn too_large_arguments_are_refused_with_their_size() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let large = Args { ballast: vec![0; 2 << 20].into(), ..args(13) };
        let refused = cluster.spawn::<Counter>(large).restart(soon()).await.unwrap_err();
        let SpawnError::Placement { reason: PlacementError::Infeasible { text }, .. } = &refused else {
            panic!("{refused}")
        };
        assert!(text.contains("1048576 are allowed"), "{text}");
        let mut detached = cluster.spawn::<Counter>(args(13)).restart(soon());
        detached = detached.timeout(PATIENCE);
        detached.await.unwrap();
        until(|| created(13) == 1).await;
        cluster.shutdown().await.unwrap();
    });
}

//! Panics in user code: the caller receives the text, and every other actor and call is unaffected.

use std::time::Duration;

use bytes::Bytes;
use roadshow::internals::host::{NotDelivered, OutcomeUnknown};
use roadshow::internals::wire::Payload;
use roadshow::prelude::*;
use serde::de::Error as _;
use serde::{Deserializer, Serializer};
use tokio::task::yield_now;

use crate::fixtures::{Add, Block, Clerk, Hold, Release};
use crate::hosts::{Gate, Pair, Plan, TestHost, run, until};

/// Actor that panics at the points given by its faults.
#[derive(RemoteActor)]
#[remote(handles(
    Panic,
    InFuture,
    InActorFuture,
    InAtomicResponse,
    InSpawnedFuture,
    InTimer,
    InReply,
    InMessage,
    Wait,
    Pid
))]
struct Fragile(Vec<Fault>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Fault {
    Spawn,
    Reject,
    Started,
    Stopped,
}

impl Actor for Fragile {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        assert!(!self.0.contains(&Fault::Started), "boom in started");
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        assert!(!self.0.contains(&Fault::Stopped), "boom in stopped");
    }
}

impl Spawn for Fragile {
    type Args = Vec<Fault>;
    type Error = String;

    fn spawn(faults: Vec<Fault>, _at: &SpawnContext<Self>) -> Result<Self, String> {
        assert!(!faults.contains(&Fault::Spawn), "boom in spawn");
        if faults.contains(&Fault::Reject) { Err("not today".to_owned()) } else { Ok(Self(faults)) }
    }
}

/// Panics in the handler.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Panic;

impl Handler<Panic> for Fragile {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Context<Self>) {
        panic!("boom in handle");
    }
}

/// Panics in the handler's future, before or after its first suspension.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct InFuture {
    waits: bool,
}

impl Handler<InFuture> for Fragile {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, InFuture { waits }: InFuture, _: &mut Context<Self>) -> ResponseFuture<()> {
        Box::pin(blow_up(waits))
    }
}

async fn blow_up(waits: bool) {
    if waits {
        yield_now().await;
    }
    panic!("boom in a future");
}

/// Panics in the handler's actor future, before or after its first suspension.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct InActorFuture {
    waits: bool,
}

impl Handler<InActorFuture> for Fragile {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, InActorFuture { waits }: InActorFuture, _: &mut Context<Self>) -> Self::Result {
        Box::pin(blow_up(waits).into_actor(self))
    }
}

/// Panics in an atomic response, before or after its first suspension.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct InAtomicResponse {
    waits: bool,
}

impl Handler<InAtomicResponse> for Fragile {
    type Result = AtomicResponse<Self, ()>;

    fn handle(
        &mut self,
        InAtomicResponse { waits }: InAtomicResponse,
        _: &mut Context<Self>,
    ) -> Self::Result {
        AtomicResponse::new(Box::pin(blow_up(waits).into_actor(self)))
    }
}

/// Answers, and then panics in a future that the actor has spawned.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct InSpawnedFuture;

impl Handler<InSpawnedFuture> for Fragile {
    type Result = ();

    fn handle(&mut self, _: InSpawnedFuture, ctx: &mut Context<Self>) {
        ctx.spawn(blow_up(true).into_actor(self));
    }
}

/// Answers, and then panics in a timer of the actor.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct InTimer;

impl Handler<InTimer> for Fragile {
    type Result = ();

    fn handle(&mut self, _: InTimer, ctx: &mut Context<Self>) {
        // Later than the answer, so the panic belongs to no call.
        ctx.run_later(Duration::from_millis(1), |_, _| panic!("boom in a timer"));
    }
}

/// Value whose serialization panics.
struct Explosive;

impl Serialize for Explosive {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("boom in serialize");
    }
}

impl<'de> Deserialize<'de> for Explosive {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("no test sends one"))
    }
}

/// Is answered with a value whose serialization panics.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Explosive")]
struct InReply;

impl Handler<InReply> for Fragile {
    type Result = MessageResult<InReply>;

    fn handle(&mut self, _: InReply, _: &mut Context<Self>) -> MessageResult<InReply> {
        MessageResult(Explosive)
    }
}

/// Message whose deserialization panics.
#[derive(Message, RemoteMessage, Serialize)]
#[rtype(result = "()")]
struct InMessage;

impl<'de> Deserialize<'de> for InMessage {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("boom in deserialize");
    }
}

impl Handler<InMessage> for Fragile {
    type Result = ();

    fn handle(&mut self, _: InMessage, _: &mut Context<Self>) {}
}

/// Request that is never answered while the actor is alive.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Wait;

impl Handler<Wait> for Fragile {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Wait, _: &mut Context<Self>) -> Self::Result {
        Box::pin(std::future::pending().into_actor(self))
    }
}

/// Returns the process of the actor.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u32")]
struct Pid;

impl Handler<Pid> for Fragile {
    type Result = u32;

    fn handle(&mut self, _: Pid, _: &mut Context<Self>) -> u32 {
        std::process::id()
    }
}

#[roadshow::task]
fn fail(text: String) -> u32 {
    panic!("boom in a task: {text}");
}

#[roadshow::task]
fn process() -> u32 {
    std::process::id()
}

/// Outcomes of the calls to a panicking actor: an open one, the panicking one, and a queued one.
struct PanicOutcomes {
    open: SendError,
    panicking: Result<(), SendError>,
    queued: SendError,
}

/// Lets an actor panic by a message. Another actor on the same thread keeps a call open over the same link,
/// and answers it after the panic.
async fn panic_outcomes<M: RemoteMessage<Result = ()>>(
    faults: Vec<Fault>,
    take: fn(&RemoteAddr<Fragile>) -> RemoteRecipient<M>,
    message: M,
) -> PanicOutcomes {
    let pair = Pair::start().await;
    let gate = Gate::default();
    let neighbour = pair.serve(Clerk::at(&gate));
    let held = neighbour.try_send(Hold(1)).unwrap();
    let fragile = pair.here.cluster.spawn::<Fragile>(faults).await.unwrap();
    let blocked = neighbour.try_send(Block).unwrap();
    gate.reached_by(1).await;
    // All three calls are in the socket before the gate opens, so that they are read in one batch.
    let open = fragile.try_send(Wait).unwrap();
    let panicking = take(&fragile).try_send(message).unwrap();
    let queued = fragile.try_send(Wait).unwrap();
    until(|| pair.here.host.snapshot().peers[0].unwritten_bytes == 0).await;
    gate.open();
    blocked.await.unwrap();
    let (open, panicking, queued) = (open.await.unwrap_err(), panicking.await, queued.await.unwrap_err());

    // The caller knows now that the actor has ended, so its address reports it as well.
    assert_eq!(fragile.send(Wait).await, Err(NotDelivered::ActorStopped.into()));
    assert!(!fragile.connected());
    assert_eq!(neighbour.send(Add(1)).await, Ok(1));
    assert_eq!(neighbour.send(Release(1)).await, Ok(true));
    assert_eq!(held.await, Ok(1));
    // Only the neighbour remains.
    until(|| pair.there.host.snapshot().actors == 1).await;
    PanicOutcomes { open, panicking, queued }
}

#[track_caller]
fn assert_panicked<T: std::fmt::Debug>(outcome: Result<T, SendError>, with: &str) {
    match outcome {
        Err(SendError::Panicked { text }) => {
            // The file name is part of the panic's location.
            assert!(text.contains(with) && text.contains("panics.rs"), "{text}")
        }
        other => panic!("{other:?}"),
    }
}

/// Checks the outcome of the queued call, which may have started before the future was polled.
#[track_caller]
fn assert_undelivered_or_panicked(queued: SendError, with: &str) {
    if queued != NotDelivered::ActorStopped.into() {
        assert_panicked(Err::<(), _>(queued), with);
    }
}

#[test]
fn a_panic_in_a_handler_fails_its_call_with_the_text_and_queued_calls_as_not_delivered() {
    run(async {
        let PanicOutcomes { open, panicking, queued } =
            panic_outcomes(vec![], RemoteAddr::recipient, Panic).await;
        assert_panicked(panicking, "boom in handle");
        assert_eq!(queued, NotDelivered::ActorStopped.into());
        assert_panicked(Err::<(), _>(open), "boom in handle");
    });
}

#[test]
fn a_panic_in_a_handler_s_future_fails_its_call_with_the_text() {
    run(async {
        for waits in [false, true] {
            let PanicOutcomes { open, panicking, queued } =
                panic_outcomes(vec![], RemoteAddr::recipient, InFuture { waits }).await;
            assert_panicked(panicking, "boom in a future");
            assert_panicked(Err::<(), _>(open), "boom in a future");
            assert_undelivered_or_panicked(queued, "boom in a future");
        }
    });
}

#[test]
fn a_panic_in_a_handler_s_actor_future_fails_its_call_with_the_text() {
    run(async {
        for waits in [false, true] {
            let PanicOutcomes { open, panicking, queued } =
                panic_outcomes(vec![], RemoteAddr::recipient, InActorFuture { waits }).await;
            assert_panicked(panicking, "boom in a future");
            assert_panicked(Err::<(), _>(open), "boom in a future");
            assert_undelivered_or_panicked(queued, "boom in a future");
        }
    });
}

#[test]
fn a_panic_in_an_atomic_response_fails_its_call_with_the_text_and_queued_calls_as_not_delivered() {
    run(async {
        for waits in [false, true] {
            let PanicOutcomes { open, panicking, queued } =
                panic_outcomes(vec![], RemoteAddr::recipient, InAtomicResponse { waits }).await;
            assert_panicked(panicking, "boom in a future");
            assert_panicked(Err::<(), _>(open), "boom in a future");
            assert_eq!(queued, NotDelivered::ActorStopped.into());
        }
    });
}

#[test]
fn a_panic_in_a_spawned_future_of_an_actor_fails_its_open_calls() {
    run(async {
        let PanicOutcomes { open, panicking, queued } =
            panic_outcomes(vec![], RemoteAddr::recipient, InSpawnedFuture).await;
        assert_eq!(panicking, Ok(()));
        assert_panicked(Err::<(), _>(open), "boom in a future");
        assert_undelivered_or_panicked(queued, "boom in a future");
    });
}

#[test]
fn a_panic_in_a_timer_fails_the_actor_s_open_calls() {
    run(async {
        let PanicOutcomes { open, panicking, queued } =
            panic_outcomes(vec![], RemoteAddr::recipient, InTimer).await;
        assert_eq!(panicking, Ok(()));
        assert_panicked(Err::<(), _>(open), "boom in a timer");
        assert_undelivered_or_panicked(queued, "boom in a timer");
    });
}

#[test]
fn a_second_panic_while_an_actor_stops_affects_no_other() {
    run(async {
        assert_panicked(
            panic_outcomes(vec![Fault::Stopped], RemoteAddr::recipient, Panic).await.panicking,
            "boom in handle",
        );
        assert_panicked(
            panic_outcomes(vec![Fault::Stopped], RemoteAddr::recipient, InFuture { waits: true })
                .await
                .panicking,
            "boom in a future",
        );
        let atomic = InAtomicResponse { waits: true };
        assert_panicked(
            panic_outcomes(vec![Fault::Stopped], RemoteAddr::recipient, atomic).await.panicking,
            "boom in a future",
        );
        assert_panicked(
            Err::<(), _>(panic_outcomes(vec![Fault::Stopped], RemoteAddr::recipient, InTimer).await.open),
            "boom in a timer",
        );
    });
}

#[test]
fn a_panic_in_started_stops_the_actor_before_its_first_message() {
    run(async {
        let pair = Pair::start().await;
        let fragile = pair.here.cluster.spawn::<Fragile>(vec![Fault::Started]).await.unwrap();
        assert_eq!(fragile.send(Pid).await, Err(NotDelivered::ActorStopped.into()));
        until(|| pair.there.host.snapshot().actors == 0).await;
        assert_eq!(pair.serve(Clerk::default).send(Add(1)).await, Ok(1));
    });
}

#[test]
fn a_panic_in_stopped_ends_only_its_actor() {
    run(async {
        let pair = Pair::start().await;
        let neighbour = pair.here.cluster.spawn::<Clerk>(()).await.unwrap();
        let fragile = pair.here.cluster.spawn::<Fragile>(vec![Fault::Stopped]).await.unwrap();
        let open = fragile.try_send(Wait).unwrap();
        assert_eq!(fragile.stop().await, Ok(()));
        assert_panicked(open.await, "boom in stopped");
        assert_eq!(fragile.send(Pid).await, Err(NotDelivered::ActorStopped.into()));
        assert_eq!(neighbour.send(Add(1)).await, Ok(1));
    });
}

#[test]
fn a_panic_in_spawn_reaches_the_spawner_with_its_text() {
    run(async {
        let pair = Pair::start().await;
        match pair.here.cluster.spawn::<Fragile>(vec![Fault::Spawn]).await {
            Err(SpawnError::Panicked { actor, text }) => {
                assert!(text.contains("boom in spawn") && actor.ends_with("Fragile"), "{actor}: {text}");
            }
            other => panic!("{other:?}"),
        }
        let rejected = pair.here.cluster.spawn::<Fragile>(vec![Fault::Reject]).await.unwrap_err();
        assert!(rejected.to_string().ends_with("Fragile refused to start: not today"), "{rejected}");
        assert_eq!(pair.there.host.snapshot().actors, 0);
        assert!(pair.here.cluster.spawn::<Fragile>(vec![]).await.is_ok());
    });
}

#[test]
fn a_panic_in_the_serialization_of_a_reply_fails_that_call_only() {
    run(async {
        let pair = Pair::start().await;
        let fragile = pair.here.cluster.spawn::<Fragile>(vec![]).await.unwrap();
        match fragile.send(InReply).await.map(|Explosive| ()) {
            Err(SendError::OutcomeUnknown(OutcomeUnknown::ReplyUnencodable { text })) => {
                assert!(text.contains("boom in serialize"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fragile.send(Pid).await, Ok(std::process::id()));
        assert!(fragile.connected());
    });
}

#[test]
fn a_panic_in_the_deserialization_of_a_message_fails_that_call_only() {
    run(async {
        let pair = Pair::start().await;
        let fragile = pair.here.cluster.spawn::<Fragile>(vec![]).await.unwrap();
        match fragile.send(InMessage).await {
            Err(SendError::NotDelivered(NotDelivered::Undecodable { text })) => {
                assert!(text.contains("boom in deserialize"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        // A one-way message has no caller, so it counts as a dead letter.
        fragile.do_send(InMessage);
        assert_eq!(fragile.send(Pid).await, Ok(std::process::id()));
        assert_eq!(pair.there.dead_letters(), 1);
    });
}

#[test]
fn a_panic_in_a_task_is_its_error_and_the_next_task_runs() {
    run(async {
        let (here, there) = (TestHost::start().await, Plan::of_tasks().start().await);
        here.knows(&there);
        here.places_on(&there);
        match here.cluster.run(fail::task("x".to_owned())).await {
            Err(TaskError::Panicked { task, text }) => {
                assert!(text.contains("boom in a task: x") && task.ends_with("fail"), "{task}: {text}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(here.cluster.run(process::task()).await, Ok(std::process::id()));
    });
}

#[test]
fn a_worker_process_survives_panics_of_its_actors_and_tasks() {
    run(async {
        let cluster = Cluster::local(1).await.unwrap();
        let pid = cluster.workers()[0].pid;
        // An actor that must outlive all panics of its process.
        let witness = cluster.spawn::<Fragile>(vec![]).await.unwrap();
        for faults in [vec![], vec![Fault::Stopped]] {
            assert_panicked(
                cluster.spawn::<Fragile>(faults.clone()).await.unwrap().send(Panic).await,
                "boom in handle",
            );
            let fragile = cluster.spawn::<Fragile>(faults).await.unwrap();
            let open = fragile.try_send(Wait).unwrap();
            fragile.do_send(InTimer);
            assert_panicked(open.await, "boom in a timer");
        }
        cluster.spawn::<Fragile>(vec![Fault::Started]).await.unwrap().send(Pid).await.unwrap_err();
        cluster.spawn::<Fragile>(vec![Fault::Spawn]).await.unwrap_err();
        cluster.run(fail::task("x".to_owned())).await.unwrap_err();
        assert_eq!(witness.send(Pid).await, Ok(pid));
        assert_eq!(cluster.run(process::task()).await, Ok(pid));
        cluster.shutdown().await.unwrap();
    });
}

/// Bytes whose owner panics when it is dropped.
struct PanickingOwner;

impl AsRef<[u8]> for PanickingOwner {
    fn as_ref(&self) -> &[u8] {
        b"trap"
    }
}

impl Drop for PanickingOwner {
    fn drop(&mut self) {
        panic!("boom in an owner");
    }
}

/// Answer with such bytes; they are dropped after it is encoded.
#[derive(Debug)]
struct Trap;

impl Serialize for Trap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Payload::from(Bytes::from_owner(PanickingOwner)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Trap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Payload::deserialize(deserializer).map(|_| Self)
    }
}

#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<Trap, String>")]
struct GiveTrap;

#[derive(Debug, RemoteActor)]
#[remote(local, handles(GiveTrap))]
struct Trapper;

impl Actor for Trapper {
    type Context = Context<Self>;
}

impl Handler<GiveTrap> for Trapper {
    type Result = Result<Trap, String>;

    fn handle(&mut self, _: GiveTrap, _: &mut Context<Self>) -> Self::Result {
        Ok(Trap)
    }
}

#[test]
fn a_panic_after_an_encoded_answer_returns_no_credit_twice() {
    run(async {
        let pair = Pair::start().await;
        let trapper = pair.serve(|| Trapper);
        // Repeated, so that a small error in the count becomes visible.
        for _ in 0..20 {
            assert!(trapper.send(GiveTrap).await.unwrap().is_ok());
        }
        let (here, there) = (pair.here.host.snapshot(), pair.there.host.snapshot());
        // A second return of the same credit would make the two sides' counts differ.
        let given = there.peers[0].accepted_bytes + there.peers[0].owed_bytes;
        assert_eq!(here.peers[0].charged_bytes, given);
    });
}

//! Panics, from wherever user code can panic: the caller hears the text, and nobody else is hurt.

use std::time::Duration;

use bytes::Bytes;
use roadshow::host::{NotDelivered, OutcomeUnknown};
use roadshow::prelude::*;
use roadshow::wire::Payload;
use serde::de::Error as _;
use serde::{Deserializer, Serializer};
use tokio::task::yield_now;

use crate::cast::{Add, Block, Clerk, Hold, Release};
use crate::hosts::{Gate, Pair, Plan, TestHost, run, until};

/// Panics where it is told to.
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
    Refuse,
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
        if faults.contains(&Fault::Refuse) { Err("not today".to_owned()) } else { Ok(Self(faults)) }
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

/// Panics in the handler's future, before or after it has waited.
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

/// Panics in the handler's future with the actor, before or after it has waited.
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

/// Panics in an atomic response, before or after it has waited.
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

/// Leaves a future behind in the actor that panics; it is answered before.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct InSpawnedFuture;

impl Handler<InSpawnedFuture> for Fragile {
    type Result = ();

    fn handle(&mut self, _: InSpawnedFuture, ctx: &mut Context<Self>) {
        ctx.spawn(blow_up(true).into_actor(self));
    }
}

/// Leaves a timer behind that panics; it is answered before.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct InTimer;

impl Handler<InTimer> for Fragile {
    type Result = ();

    fn handle(&mut self, _: InTimer, ctx: &mut Context<Self>) {
        ctx.run_later(Duration::from_millis(1), |_, _| panic!("boom in a timer"));
    }
}

/// A value whose serialization panics.
struct Explosive;

impl Serialize for Explosive {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("boom in serialize");
    }
}

impl<'de> Deserialize<'de> for Explosive {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("nobody sends one"))
    }
}

/// Is answered with what cannot be serialized.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Explosive")]
struct InReply;

impl Handler<InReply> for Fragile {
    type Result = MessageResult<InReply>;

    fn handle(&mut self, _: InReply, _: &mut Context<Self>) -> MessageResult<InReply> {
        MessageResult(Explosive)
    }
}

/// A message whose deserialization panics.
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

/// Is never answered while the actor lives.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Wait;

impl Handler<Wait> for Fragile {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Wait, _: &mut Context<Self>) -> Self::Result {
        Box::pin(std::future::pending().into_actor(self))
    }
}

/// The process that the actor lives in.
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

/// What the calls learn that a panicking actor had: one under way, the one at fault, one queued.
struct Aftermath {
    open: SendError,
    guilty: Result<(), SendError>,
    queued: SendError,
}

/// Lets an actor of these faults panic by a message, beside another actor on the same thread that goes
/// on with a call which it has open over the same link.
async fn aftermath<M: RemoteMessage<Result = ()>>(
    faults: Vec<Fault>,
    take: fn(&RemoteAddr<Fragile>) -> RemoteRecipient<M>,
    message: M,
) -> Aftermath {
    let pair = Pair::start().await;
    let gate = Gate::default();
    let neighbour = pair.serve(Clerk::at(&gate));
    let held = neighbour.try_send(Hold(1)).unwrap();
    let fragile = pair.here.cluster.spawn::<Fragile>(faults).await.unwrap();
    let blocked = neighbour.try_send(Block).unwrap();
    gate.reached_by(1).await;
    // All three are read at once when the gate opens.
    let open = fragile.try_send(Wait).unwrap();
    let guilty = take(&fragile).try_send(message).unwrap();
    let queued = fragile.try_send(Wait).unwrap();
    until(|| pair.here.host.snapshot().peers[0].unwritten_bytes == 0).await;
    gate.open();
    blocked.await.unwrap();
    let (open, guilty, queued) = (open.await.unwrap_err(), guilty.await, queued.await.unwrap_err());

    assert_eq!(fragile.send(Wait).await, Err(NotDelivered::ActorStopped.into()));
    assert!(!fragile.connected());
    assert_eq!(neighbour.send(Add(1)).await, Ok(1));
    assert_eq!(neighbour.send(Release(1)).await, Ok(true));
    assert_eq!(held.await, Ok(1));
    until(|| pair.there.host.snapshot().actors == 1).await;
    Aftermath { open, guilty, queued }
}

#[track_caller]
fn panicked<T: std::fmt::Debug>(outcome: Result<T, SendError>, with: &str) {
    match outcome {
        Err(SendError::Panicked { text }) => {
            assert!(text.contains(with) && text.contains("panics.rs"), "{text}")
        }
        other => panic!("{other:?}"),
    }
}

/// What was queued behind may have been begun before the future was polled.
#[track_caller]
fn undelivered_or_begun(queued: SendError, with: &str) {
    if queued != NotDelivered::ActorStopped.into() {
        panicked(Err::<(), _>(queued), with);
    }
}

#[test]
fn a_panic_in_a_handler_fails_its_call_with_the_text_and_those_behind_it_as_undelivered() {
    run(async {
        let Aftermath { open, guilty, queued } = aftermath(vec![], RemoteAddr::recipient, Panic).await;
        panicked(guilty, "boom in handle");
        assert_eq!(queued, NotDelivered::ActorStopped.into());
        panicked(Err::<(), _>(open), "boom in handle");
    });
}

#[test]
fn a_panic_in_a_handler_s_future_fails_its_call_with_the_text() {
    run(async {
        for waits in [false, true] {
            let Aftermath { open, guilty, queued } =
                aftermath(vec![], RemoteAddr::recipient, InFuture { waits }).await;
            panicked(guilty, "boom in a future");
            panicked(Err::<(), _>(open), "boom in a future");
            undelivered_or_begun(queued, "boom in a future");
        }
    });
}

#[test]
fn a_panic_in_a_handler_s_future_with_the_actor_fails_its_call_with_the_text() {
    run(async {
        for waits in [false, true] {
            let Aftermath { open, guilty, queued } =
                aftermath(vec![], RemoteAddr::recipient, InActorFuture { waits }).await;
            panicked(guilty, "boom in a future");
            panicked(Err::<(), _>(open), "boom in a future");
            undelivered_or_begun(queued, "boom in a future");
        }
    });
}

#[test]
fn a_panic_in_an_atomic_response_fails_its_call_with_the_text_and_those_behind_it_as_undelivered() {
    run(async {
        for waits in [false, true] {
            let Aftermath { open, guilty, queued } =
                aftermath(vec![], RemoteAddr::recipient, InAtomicResponse { waits }).await;
            panicked(guilty, "boom in a future");
            panicked(Err::<(), _>(open), "boom in a future");
            assert_eq!(queued, NotDelivered::ActorStopped.into());
        }
    });
}

#[test]
fn a_panic_in_a_future_of_the_actor_s_own_fails_the_calls_that_it_had_begun() {
    run(async {
        let Aftermath { open, guilty, queued } =
            aftermath(vec![], RemoteAddr::recipient, InSpawnedFuture).await;
        assert_eq!(guilty, Ok(()));
        panicked(Err::<(), _>(open), "boom in a future");
        undelivered_or_begun(queued, "boom in a future");
    });
}

#[test]
fn a_panic_in_a_timer_fails_the_calls_that_the_actor_had_begun() {
    run(async {
        let Aftermath { open, guilty, queued } = aftermath(vec![], RemoteAddr::recipient, InTimer).await;
        assert_eq!(guilty, Ok(()));
        panicked(Err::<(), _>(open), "boom in a timer");
        undelivered_or_begun(queued, "boom in a timer");
    });
}

#[test]
fn an_actor_that_panics_again_while_it_stops_hurts_nobody_either() {
    run(async {
        panicked(
            aftermath(vec![Fault::Stopped], RemoteAddr::recipient, Panic).await.guilty,
            "boom in handle",
        );
        panicked(
            aftermath(vec![Fault::Stopped], RemoteAddr::recipient, InFuture { waits: true }).await.guilty,
            "boom in a future",
        );
        let atomic = InAtomicResponse { waits: true };
        panicked(
            aftermath(vec![Fault::Stopped], RemoteAddr::recipient, atomic).await.guilty,
            "boom in a future",
        );
        panicked(
            Err::<(), _>(aftermath(vec![Fault::Stopped], RemoteAddr::recipient, InTimer).await.open),
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
fn a_panic_in_stopped_is_the_end_of_its_actor_alone() {
    run(async {
        let pair = Pair::start().await;
        let neighbour = pair.here.cluster.spawn::<Clerk>(()).await.unwrap();
        let fragile = pair.here.cluster.spawn::<Fragile>(vec![Fault::Stopped]).await.unwrap();
        let open = fragile.try_send(Wait).unwrap();
        assert_eq!(fragile.stop().await, Ok(()));
        panicked(open.await, "boom in stopped");
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
        let refused = pair.here.cluster.spawn::<Fragile>(vec![Fault::Refuse]).await.unwrap_err();
        assert!(refused.to_string().ends_with("Fragile refused to start: not today"), "{refused}");
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
fn a_worker_process_outlives_the_panics_in_it() {
    run(async {
        let cluster = Cluster::local(1).await.unwrap();
        let pid = cluster.workers()[0].pid;
        let witness = cluster.spawn::<Fragile>(vec![]).await.unwrap();
        for faults in [vec![], vec![Fault::Stopped]] {
            panicked(
                cluster.spawn::<Fragile>(faults.clone()).await.unwrap().send(Panic).await,
                "boom in handle",
            );
            let fragile = cluster.spawn::<Fragile>(faults).await.unwrap();
            let open = fragile.try_send(Wait).unwrap();
            fragile.do_send(InTimer);
            panicked(open.await, "boom in a timer");
        }
        cluster.spawn::<Fragile>(vec![Fault::Started]).await.unwrap().send(Pid).await.unwrap_err();
        cluster.spawn::<Fragile>(vec![Fault::Spawn]).await.unwrap_err();
        cluster.run(fail::task("x".to_owned())).await.unwrap_err();
        assert_eq!(witness.send(Pid).await, Ok(pid));
        assert_eq!(cluster.run(process::task()).await, Ok(pid));
        cluster.shutdown().await.unwrap();
    });
}

/// Bytes whose owner panics when they are dropped.
struct Booby;

impl AsRef<[u8]> for Booby {
    fn as_ref(&self) -> &[u8] {
        b"trap"
    }
}

impl Drop for Booby {
    fn drop(&mut self) {
        panic!("boom in an owner");
    }
}

/// An answer with such bytes, which nobody has once it is encoded.
#[derive(Debug)]
struct Trap;

impl Serialize for Trap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Payload::from(Bytes::from_owner(Booby)).serialize(serializer)
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
fn a_panic_behind_an_answer_that_is_out_gives_no_credit_back_twice() {
    run(async {
        let pair = Pair::start().await;
        let trapper = pair.serve(|| Trapper);
        for _ in 0..20 {
            assert!(trapper.send(GiveTrap).await.unwrap().is_ok());
        }
        let (here, there) = (pair.here.host.snapshot(), pair.there.host.snapshot());
        let given = there.peers[0].accepted_bytes + there.peers[0].owed_bytes;
        assert_eq!(here.peers[0].charged_bytes, given);
    });
}

//! Addresses: values that are sent, compare, bind, and report the end of their actor.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use roadshow::NotDelivered;
use roadshow::internals::id::{HostUid, Incarnation};
use roadshow::prelude::*;
use serde::{Deserializer, Serializer};

use crate::fixtures::{Add, Block, Clerk, Note, Notes, Twin};
use crate::hosts::{Gate, Pair, Plan, TestHost, poll_once, run, until};
use crate::raw::Raw;

/// Actor that spawns others from its own host.
#[derive(RemoteActor)]
#[remote(handles(CallBack, SpawnChild))]
struct Parent {
    cluster: ClusterRef,
    own: RemoteAddr<Self>,
}

impl Actor for Parent {
    type Context = Context<Self>;
}

impl Spawn for Parent {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self { cluster: at.cluster().clone(), own: at.address() })
    }
}

/// Sends two one-way notes to the recipient and adds at the address; returns the sum.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<u64, String>")]
struct CallBack {
    tell: RemoteRecipient<Note>,
    ask: RemoteAddr<Clerk>,
}

impl Handler<CallBack> for Parent {
    type Result = ResponseFuture<Result<u64, String>>;

    fn handle(&mut self, CallBack { tell, ask }: CallBack, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async move {
            tell.do_send(Note(1));
            tell.tell(Note(2)).await.map_err(|err| err.to_string())?;
            ask.send(Add(5)).await.map_err(|err| err.to_string())
        })
    }
}

/// Spawns a clerk; returns the parent's address and the child's.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<(RemoteAddr<Parent>, RemoteAddr<Clerk>), String>")]
struct SpawnChild;

impl Handler<SpawnChild> for Parent {
    type Result = ResponseFuture<Result<(RemoteAddr<Self>, RemoteAddr<Clerk>), String>>;

    fn handle(&mut self, _: SpawnChild, _: &mut Context<Self>) -> Self::Result {
        let (cluster, own) = (self.cluster.clone(), self.own.clone());
        Box::pin(async move {
            let child = cluster.spawn::<Clerk>(()).await.map_err(|err| err.to_string())?;
            Ok((own, child))
        })
    }
}

#[test]
fn an_actor_served_here_is_called_back_by_its_address_in_a_message() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.here.serve(Clerk::default);
        let parent = pair.here.cluster.spawn::<Parent>(()).await.unwrap();
        let answer = parent.send(CallBack { tell: clerk.recipient(), ask: clerk.clone() }).await;
        assert_eq!(answer, Ok(Ok(5)));
        assert_eq!(clerk.send(Notes).await, Ok(vec![1, 2]));
    });
}

#[test]
fn a_remote_actor_spawns_others_and_answers_with_their_addresses() {
    run(async {
        let pair = Pair::start().await;
        let parent = pair.here.cluster.spawn::<Parent>(()).await.unwrap();
        let (own, child) = parent.send(SpawnChild).await.unwrap().unwrap();
        assert_eq!(own, parent);
        // The parent lives on the far host, and `Pair` places what that host spawns on the near one.
        assert_eq!(child.host(), pair.here.identity());
        assert_eq!(child.send(Add(2)).await, Ok(2));
    });
}

#[test]
fn addresses_of_one_actor_are_equal_wherever_they_are_bound() {
    run(async {
        let pair = Pair::start().await;
        let there = pair.there.serve(Clerk::default);
        let here = pair.here.cluster.bind(&there);
        let other = pair.serve(Clerk::default);
        assert_eq!(here, there);
        assert_ne!(here, other);
        // Equal addresses must have equal hashes, too.
        assert_eq!(HashSet::from([here.clone(), there, other]).len(), 2);
        assert_eq!(here.to_string(), format!("Clerk@{}/{}", pair.there.identity(), here.actor()));
        assert_eq!(here.recipient::<Add>(), here.clone().recipient::<Add>());
    });
}

#[test]
fn an_unbound_address_sends_nothing() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        let text = serde_json::to_string(&clerk).unwrap();
        // Outside of a cluster there is no host that an address could be bound to.
        let unbound: RemoteAddr<Clerk> = serde_json::from_str(&text).unwrap();
        assert_eq!(unbound, clerk);
        assert!(!unbound.connected());
        let error = unbound.send(Add(1)).await.unwrap_err();
        assert_eq!(error, SendError::NotDelivered(NotDelivered::Unbound));
        assert!(error.to_string().contains("cluster.bind"), "{error}");
        assert_eq!(unbound.tell(Note(1)).await, Err(NotDelivered::Unbound));
        assert_eq!(unbound.try_send(Note(2)).unwrap_err().message, Note(2));
        assert_eq!(unbound.stop().await, Err(NotDelivered::Unbound.into()));
        unbound.do_send(Note(3));

        let bound = pair.here.cluster.bind(&unbound);
        assert!(bound.connected());
        assert_eq!(bound.send(Add(1)).await, Ok(1));
        let recipient = serde_json::from_str::<RemoteRecipient<Add>>(&text).unwrap();
        assert_eq!(pair.here.cluster.bind_recipient(&recipient).send(Add(1)).await, Ok(2));
        assert_eq!(bound.send(Notes).await, Ok(vec![]));
    });
}

static SERIALIZED: AtomicUsize = AtomicUsize::new(0);

/// Value that counts its serializations and deserializations.
// A box has a stable address, which shows whether the value was moved.
struct Counted(Box<u32>);

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        SERIALIZED.fetch_add(1, Ordering::SeqCst);
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SERIALIZED.fetch_add(1, Ordering::SeqCst);
        Box::deserialize(deserializer).map(Self)
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Counted")]
struct Bounce(Counted);

#[derive(RemoteActor)]
#[remote(local, handles(Bounce))]
struct Wall;

impl Actor for Wall {
    type Context = Context<Self>;
}

impl Handler<Bounce> for Wall {
    type Result = MessageResult<Bounce>;

    fn handle(&mut self, Bounce(ball): Bounce, _: &mut Context<Self>) -> MessageResult<Bounce> {
        MessageResult(ball)
    }
}

#[test]
fn a_message_to_an_actor_of_the_same_host_is_moved_without_serialization() {
    run(async {
        let pair = Pair::start().await;
        let wall = pair.there.serve(|| Wall);
        let ball = Box::new(7);
        let pointer: *const u32 = &*ball;
        let back = wall.send(Bounce(Counted(ball))).await.unwrap();
        assert!(std::ptr::eq(&*back.0, pointer));
        wall.tell(Bounce(Counted(Box::new(1)))).await.unwrap();
        wall.do_send(Bounce(Counted(Box::new(1))));
        wall.try_send(Bounce(Counted(Box::new(1)))).unwrap().await.unwrap();
        assert_eq!(SERIALIZED.load(Ordering::SeqCst), 0);

        let remote = pair.here.cluster.bind(&wall);
        assert_eq!(*remote.send(Bounce(back)).await.unwrap().0, 7);
        // Two serializations and two deserializations: of the message and of its reply.
        assert_eq!(SERIALIZED.load(Ordering::SeqCst), 4);
    });
}

#[test]
fn a_stopped_actor_handles_earlier_messages_and_no_later_ones() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.here.cluster.spawn::<Clerk>(()).await.unwrap();
        let before = clerk.try_send(Add(1)).unwrap();
        let stop = clerk.stop();
        assert_eq!(stop.await, Ok(()));
        assert_eq!(before.await, Ok(1));
        assert!(clerk.connected(), "an address learns of the end from a failed message");
        let error = clerk.send(Add(1)).await.unwrap_err();
        assert_eq!(error, SendError::NotDelivered(NotDelivered::ActorStopped));
        assert!(!clerk.connected());
        assert_eq!(clerk.stop().await, Ok(()), "stopping twice is no error");
        // The actor ends on its own thread, after the stop is answered.
        until(|| pair.there.host.snapshot().actors == 0).await;
    });
}

#[test]
fn a_send_to_a_stopped_actor_of_the_same_host_reports_the_stop() {
    run(async {
        let site = TestHost::start().await;
        site.places_on(&site);
        // The end is reported either by `try_send` itself or by its request: the actor may still be
        // stopping.
        for clerk in [site.cluster.spawn::<Clerk>(()).await.unwrap(), site.serve(Clerk::default)] {
            assert!(clerk.connected());
            assert_eq!(clerk.send(Add(1)).await, Ok(1));
            clerk.stop().await.unwrap();
            let stopped = NotDelivered::ActorStopped;
            assert_eq!(clerk.send(Add(1)).await, Err(stopped.clone().into()));
            assert!(!clerk.connected());
            match clerk.try_send(Note(1)) {
                Err(error) => assert_eq!((error.reason, error.message), (stopped, Note(1))),
                Ok(request) => assert_eq!(request.await, Err(stopped.into())),
            }
        }
    });
}

#[test]
fn a_one_way_message_to_a_stopped_actor_is_a_dead_letter() {
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.here.cluster.spawn::<Clerk>(()).await.unwrap();
        clerk.stop().await.unwrap();
        clerk.send(Add(1)).await.unwrap_err();
        clerk.do_send(Note(1));
        clerk.tell(Note(2)).await.unwrap();
        until(|| pair.there.dead_letters() == 2).await;
        // An actor that never existed counts like one that has ended.
        let unknown = pair.here.cluster.bind(&Raw::addr_of::<Clerk>(pair.there.identity(), 99));
        assert_eq!(unknown.send(Add(1)).await, Err(NotDelivered::NoSuchActor.into()));
        unknown.do_send(Note(3));
        until(|| pair.there.dead_letters() == 3).await;
        assert_eq!(pair.here.dead_letters(), 0);
    });
}

#[test]
fn messages_queued_after_a_stop_are_not_delivered() {
    run(async {
        let pair = Pair::start().await;
        let gate = Gate::default();
        let clerk = pair.serve(Clerk::at(&gate));
        // The blocked handler keeps the actor's thread busy, so the order of the mailbox decides.
        let blocked = clerk.try_send(Block).unwrap();
        gate.reached_by(1).await;
        let before = clerk.try_send(Add(1)).unwrap();
        // Polled once, so that the stop is sent before the next message.
        let mut stop = Box::pin(clerk.stop());
        assert!(poll_once(&mut stop).await.is_pending());
        let after = clerk.try_send(Add(1)).unwrap();
        gate.open();
        assert_eq!(blocked.await, Ok(()));
        assert_eq!(before.await, Ok(1));
        assert_eq!(stop.await, Ok(()));
        assert_eq!(after.await, Err(NotDelivered::ActorStopped.into()));
    });
}

#[test]
fn an_address_of_an_earlier_incarnation_of_a_host_is_stale() {
    run(async {
        let here = TestHost::start().await;
        let first = TestHost::start().await;
        here.knows(&first);
        let old = here.cluster.bind(&first.serve(Clerk::default));
        assert_eq!(old.send(Add(1)).await, Ok(1));
        let HostUid { host, incarnation } = first.identity();
        drop(first);
        // A restarted host has the same id and a later incarnation.
        let identity = HostUid { host, incarnation: Incarnation(incarnation.0 + 1) };
        let second = Plan { identity, ..Plan::default() }.start().await;
        here.knows(&second);
        let new = here.cluster.bind(&second.serve(Clerk::default));
        let stale = NotDelivered::StaleHost { host: old.host() };
        assert_eq!(here.cluster.bind(&old).send(Add(1)).await, Err(stale.into()));
        assert!(old.send(Add(1)).await.unwrap_err().is_not_delivered());
        assert!(!old.connected());
        assert_eq!(new.send(Add(1)).await, Ok(1), "the new actor has not seen the old one's messages");
    });
}

#[test]
fn a_restarted_host_rejects_calls_for_its_earlier_incarnation() {
    run(async {
        let here = TestHost::start().await;
        let now = TestHost::start().await;
        let clerk = now.serve(Clerk::default);
        let HostUid { host, incarnation } = now.identity();
        // The peer is known under its earlier incarnation at the same address, as after an unnoticed
        // restart.
        let before = HostUid { host, incarnation: Incarnation(incarnation.0 - 1) };
        here.host.add_peer(before, now.address());
        let old: RemoteAddr<Clerk> = here.cluster.bind(&Raw::addr_of(before, clerk.actor().0));
        let error = old.send(Note(1)).await.unwrap_err();
        assert!(matches!(error, SendError::NotDelivered(NotDelivered::Unreachable { .. })), "{error}");
        // The text has to distinguish a wrong host from a missing one.
        assert!(error.to_string().contains("another host"), "{error}");
        assert_eq!(clerk.send(Notes).await, Ok(vec![]));
    });
}

#[test]
fn a_message_that_the_actor_does_not_handle_is_rejected_by_name() {
    run(async {
        let pair = Pair::start().await;
        let twin = pair.serve(|| Twin);
        let text = serde_json::to_string(&twin).unwrap();
        // The check must work for remote and for local messages.
        for cluster in [&pair.here.cluster, &pair.there.cluster] {
            let wrong = cluster.bind(&serde_json::from_str::<RemoteAddr<Clerk>>(&text).unwrap());
            let (actor, message) = (<Twin as RemoteActor>::NAME.to_owned(), Note::NAME.to_owned());
            let rejected = NotDelivered::NotHandled { actor, message };
            assert_eq!(wrong.send(Note(1)).await, Err(rejected.into()));
            assert_eq!(wrong.send(Add(1)).await, Ok(2), "a message that both handle is accepted");
        }
    });
}

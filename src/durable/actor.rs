//! Actor that runs a durable state: recovery, decisions, and the end.

use std::fmt;

use actix::dev::{MessageResponse, OneshotSender};
use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Running};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::addr::KeyedMessage;
use super::answered::{Answer, Found, Key};
use super::decision::Decision;
use super::journal::Journal;
use super::outbox::{Deliveries, DeliveryFuture};
use super::record::{Record, Snapshot};
use super::spawn::DurableArgs;
use super::store::{StateLog, Store, StoreError};
use super::writer::Writer;
use super::{Decide, Durable, DurableState, flat};
use crate::host::entropy::unix_time;
use crate::host::{Host, decode_context};
use crate::id::ActorIncarnation;
use crate::observe::log;
use crate::registry::{
    self, ControlMessage, Delivery, Handles, RemoteActor, RemoteMessage, Responder, panics,
};
use crate::remote::{Spawn, SpawnContext};
use crate::spec::{ActorKey, End, EndReason};
use crate::wire::CallFailure;

/// Actor that runs a [`Durable`] state.
///
/// It is spawned by [`ClusterRef::spawn_durable`](crate::ClusterRef::spawn_durable).
pub struct DurableActor<S: Durable> {
    host: Host,
    key: ActorKey,
    incarnation: ActorIncarnation,
    /// Until the state is there.
    args: Option<DurableArgs<S>>,
    pub(super) serving: Option<Serving<S>>,
    /// End of the actor, once it is decided: it stops when nothing waits for the store any more.
    pub(super) ending: Option<Box<End>>,
}

/// Parts of an actor that has its state.
pub(super) struct Serving<S: Durable> {
    pub(super) snapshot: Snapshot<S>,
    pub(super) journal: Journal<Waiter>,
    pub(super) deliveries: Deliveries,
    pub(super) store: Store,
}

/// Replies and messages that wait until records are stored.
pub(super) enum Waiter {
    Reply(Box<dyn HeldReply>),
    /// Messages of the outbox below this number.
    Sends(u64),
}

/// Reply that waits.
pub(super) trait HeldReply: Send {
    fn release(self: Box<Self>);
    /// Fails the call: its records may be stored or not.
    fn fail(self: Box<Self>);
}

struct Held<R> {
    responder: Responder<R>,
    value: R,
}

impl<R> HeldReply for Held<R>
where
    R: Serialize + DeserializeOwned + Send + 'static,
{
    fn release(self: Box<Self>) {
        self.responder.reply(self.value);
    }

    fn fail(self: Box<Self>) {
        // With a retry the call goes on to the next incarnation, which knows whether it was decided.
        self.responder.fail(CallFailure::IncarnationEnded);
    }
}

/// Outcome of a message, before it is stored.
pub struct Outcome<R>(OutcomeKind<R>);

enum OutcomeKind<R> {
    Decided(R),
    Failed(CallFailure),
}

impl<R> fmt::Debug for Outcome<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outcome")
    }
}

impl<S: Decide<M>, M: RemoteMessage> MessageResponse<DurableActor<S>, KeyedMessage<M>>
    for Outcome<M::Result>
{
    /// The actor's `Addr` does not leave the library, which sends deliveries alone.
    fn handle(self, _: &mut Context<DurableActor<S>>, _: Option<OneshotSender<M::Result>>) {}
}

impl<S: Durable> Serving<S> {
    /// Applies a record, and adds it to the journal.
    pub(super) fn commit(&mut self, record: &Record<S::Event>, bytes: Bytes) {
        // First: a panic in `apply` ends the incarnation, and its event must not be stored.
        self.snapshot.apply(record);
        self.journal.add(bytes);
        if !record.2.is_empty() {
            self.journal.hold(Waiter::Sends(self.snapshot.outbox.next()));
        }
    }

    /// Next message of the outbox that can be sent.
    pub(super) fn next_delivery(&mut self) -> Option<DeliveryFuture> {
        let (from, host) = (self.store.actor(), self.store.host().clone());
        self.deliveries.next(&self.snapshot.outbox, from, &host)
    }

    /// Decides about a message; the reply must not leave before the journal has stored it.
    fn decide<M: RemoteMessage>(&mut self, key: Option<Key>, message: M) -> Result<M::Result, CallFailure>
    where
        S: Decide<M>,
    {
        let refused = |text: &str| CallFailure::Refused { text: text.to_owned() };
        if let Some(key) = &key {
            match self.snapshot.answered.find(key, M::HASH) {
                Found::New => {}
                Found::Answered(reply) => {
                    let decoded = decode_context::within(self.store.host(), || flat::decode(reply));
                    return decoded
                        .map_err(|error| CallFailure::ReplyUnencodable { text: error.to_string() });
                }
                Found::Expired => return Err(refused("the reply to this key is no longer kept")),
                Found::OtherMessage => return Err(refused("the key belongs to a message of another type")),
            }
        }
        let record_bytes_max = self.store.record_bytes_max();
        let mut decision = Decision::new(record_bytes_max);
        let reply = self.snapshot.state.decide(message, &mut decision);
        let unencodable =
            |error| CallFailure::Refused { text: format!("the decision cannot be stored: {error}") };
        let (events, sends) = decision.into_parts().map_err(unencodable)?;
        // What changes nothing may be decided again.
        if events.is_empty() && sends.is_empty() {
            return Ok(reply);
        }
        let answer = match key {
            None => None,
            Some(key) => {
                let reply = flat::encode(&reply, record_bytes_max).map_err(unencodable)?.into();
                Some(Answer { key, message: M::HASH, reply, at_secs: unix_time().as_secs() })
            }
        };
        let record = Record(events, answer, sends, self.deliveries.take_handled());
        match flat::encode(&record, record_bytes_max) {
            Ok(bytes) => {
                self.commit(&record, bytes);
                Ok(reply)
            }
            Err(error) => {
                self.deliveries.put_handled_back(record.3);
                Err(unencodable(error))
            }
        }
    }
}

impl<S: Durable> DurableActor<S> {
    /// Ends the actor once nothing waits for the store.
    pub(super) fn end(&mut self, end: End, ctx: &mut Context<Self>) {
        self.ending = Some(Box::new(end));
        ctx.stop();
    }

    /// Ends the actor, since the store has refused it.
    pub(super) fn end_by(&mut self, error: StoreError, ctx: &mut Context<Self>) {
        self.fail_waiters();
        let text = error.to_string();
        let end = match error {
            // The report of a replaced incarnation has no effect. If this one is present after all, the actor restarts:
            // any other reason would end it for good, with its state.
            StoreError::Fenced | StoreError::Closing => End::new(EndReason::Unknown, text),
            StoreError::Failed(_) => {
                log::error!(actor = S::NAME, key = %self.key, text, "a durable actor ends");
                End::new(EndReason::StateFailed, text)
            }
        };
        self.end(end, ctx);
    }

    fn fail_waiters(&mut self) {
        let Some(serving) = &mut self.serving else { return };
        for waiter in serving.journal.end() {
            if let Waiter::Reply(reply) = waiter {
                reply.fail();
            }
        }
    }

    fn has_waiters(&self) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.journal.has_unstored())
    }

    fn hold(&mut self, reply: Box<dyn HeldReply>) {
        match &mut self.serving {
            Some(serving) => serving.journal.hold(Waiter::Reply(reply)),
            None => reply.fail(),
        }
    }
}

/// Number of records that are replayed in one turn.
const REPLAY_TURN: u64 = 1024;

/// Reads the state of an actor, or creates it.
async fn recover<S: Durable>(
    host: Host,
    key: ActorKey,
    incarnation: ActorIncarnation,
    args: DurableArgs<S>,
) -> Result<Serving<S>, StoreError> {
    let DurableArgs { args, copies } = args;
    let store = Store::new(host.clone(), key, incarnation, copies);
    let create = || {
        let created = panics::catch(|| S::create(args))?;
        Snapshot::new(created).encode_parts(store.group_bytes_max())
    };
    let StateLog { snapshot: parts, first, records } = store.open(create).await?;
    let mut snapshot =
        decode_context::within(&host, || Snapshot::decode_parts(parts)).map_err(StoreError::Failed)?;
    let (mut next, mut bytes) = (first, 0);
    for record in records {
        bytes += record.len() as u64;
        replay(&host, &mut snapshot, record)
            .map_err(|text| StoreError::Failed(format!("record {next} of its state: {text}")))?;
        next += 1;
        // Other actors of the thread go on meanwhile.
        if next % REPLAY_TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut deliveries = Deliveries::default();
    deliveries.release(&snapshot.outbox, snapshot.outbox.next());
    Ok(Serving { snapshot, journal: Journal::new(next, bytes), deliveries, store })
}

fn replay<S: Durable>(host: &Host, snapshot: &mut Snapshot<S>, record: Bytes) -> Result<(), String> {
    let apply = || {
        let record: Record<S::Event> = flat::decode(record).map_err(|error| error.to_string())?;
        snapshot.apply(&record);
        Ok(())
    };
    decode_context::within(host, || panics::catch(std::panic::AssertUnwindSafe(apply)))?
}

impl<S: Durable> Actor for DurableActor<S> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let Some(args) = self.args.take() else { return };
        let recovery = recover(self.host.clone(), self.key, self.incarnation, args).into_actor(self);
        // Messages wait meanwhile.
        ctx.wait(recovery.map(|recovered, actor, ctx| match recovered {
            Ok(serving) => {
                actor.serving = Some(serving);
                ctx.spawn(Writer::default());
            }
            Err(error) => actor.end_by(error, ctx),
        }));
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        if self.ending.is_none() {
            let stopped = || Box::new(registry::stopped());
            self.ending = Some(registry::requested_stop().unwrap_or_else(stopped));
        }
        if self.has_waiters() {
            // The writer stops the actor later.
            return Running::Continue;
        }
        registry::note_stop(self.ending.clone().unwrap_or_else(|| Box::new(registry::stopped())));
        Running::Stop
    }
}

/// actix moves an actor freely; nothing in it is pinned.
impl<S: Durable> Unpin for DurableActor<S> {}

impl<S: Durable> Drop for DurableActor<S> {
    fn drop(&mut self) {
        self.fail_waiters();
    }
}

impl<S: Durable> RemoteActor for DurableActor<S> {
    const NAME: &'static str = <S as DurableState>::NAME;
}

impl<S: Durable> Spawn for DurableActor<S> {
    type Args = DurableArgs<S>;
    type Error = String;

    fn spawn(args: DurableArgs<S>, at: &SpawnContext<Self>) -> Result<Self, String> {
        let target = at.address().location().target;
        let number = target.actor.managed_number().ok_or("a durable actor needs a restart policy")?;
        Ok(Self {
            host: at.cluster().host.clone(),
            key: ActorKey(number),
            incarnation: target.incarnation,
            args: Some(args),
            serving: None,
            ending: None,
        })
    }
}

impl<S: Durable> Handler<ControlMessage> for DurableActor<S> {
    type Result = ();

    fn handle(&mut self, control: ControlMessage, ctx: &mut Context<Self>) {
        control.apply(self, ctx);
    }
}

impl<S: Decide<M>, M: RemoteMessage> Handler<KeyedMessage<M>> for DurableActor<S> {
    type Result = Outcome<M::Result>;

    fn handle(&mut self, message: KeyedMessage<M>, _: &mut Context<Self>) -> Self::Result {
        let KeyedMessage { key, message } = message;
        Outcome(match &mut self.serving {
            Some(serving) if self.ending.is_none() => match serving.decide(key, message) {
                Ok(reply) => OutcomeKind::Decided(reply),
                Err(failure) => OutcomeKind::Failed(failure),
            },
            _ => OutcomeKind::Failed(CallFailure::ActorStopped),
        })
    }
}

impl<S: Decide<M>, M: RemoteMessage> Handles<KeyedMessage<M>> for DurableActor<S> {}

impl<S: Decide<M>, M: RemoteMessage> Handler<Delivery<KeyedMessage<M>>> for DurableActor<S> {
    type Result = ();

    fn handle(&mut self, delivery: Delivery<KeyedMessage<M>>, ctx: &mut Context<Self>) {
        let mut held = None::<Box<dyn HeldReply>>;
        delivery.run(self, ctx, |Outcome(outcome), responder, _| match outcome {
            OutcomeKind::Decided(value) => {
                held = Some(Box::new(Held { responder: responder.take(), value }));
            }
            OutcomeKind::Failed(failure) => responder.take().fail(failure),
        });
        if let Some(held) = held {
            self.hold(held);
        }
    }
}

impl<S: Durable> fmt::Debug for DurableActor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableActor")
            .field("key", &self.key)
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}

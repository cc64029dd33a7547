//! Untyped address: the location of an actor, and the local host that sends to it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::oneshot;

use super::managed::{evidence, evidence_of, located};
use super::payload_hint;
use super::request::{ReplySource, Request, TrySendError};
use super::spawn::{stop_incarnation, stop_on_host};
use crate::host::blocked::unless_deadlock;
use crate::host::peer::{Peer, QueuePosition, Retryable, Waiter};
use crate::host::routes::{Route, RouteState};
use crate::host::{Deadline, Host, NotDelivered, OutcomeUnknown, PlacementError, SendError, decode_context};
use crate::id::HostUid;
use crate::lock::Mutex;
use crate::observe::{log, trace};
use crate::registry::{Delivery, MailboxError, RemoteMessage, Responder, synchronous};
use crate::spec::{ActorKey, ActorLocation};
use crate::wire::{self, Body, CallFailure, MessageBody};

/// Location of an actor, and its binding to a host if it has one.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) location: ActorLocation,
    bound: Option<Arc<BoundAddress>>,
}

/// Location as seen from a host, shared by the clones of an address.
pub(super) struct BoundAddress {
    pub(super) location: ActorLocation,
    pub(super) local_host: Host,
    peer: OnceLock<Arc<Peer>>,
    /// Set on evidence that the actor has stopped for good.
    dead: AtomicBool,
    /// Of the address of a managed actor, as a program has it; `None` for any other, and for a location that it
    /// led to.
    managed: Option<Box<ManagedAddress>>,
}

/// Managed part of an address.
struct ManagedAddress {
    route: Arc<Route>,
    /// Latest location, if it is another than that of the address.
    present: Mutex<Option<Arc<BoundAddress>>>,
}

impl Address {
    pub(crate) fn new(location: ActorLocation, here: Option<Host>) -> Self {
        let bound = here.map(|here| {
            let managed = here.route(location);
            let managed = managed.map(|route| Box::new(ManagedAddress { route, present: Mutex::default() }));
            Arc::new(BoundAddress { managed, ..BoundAddress::new(location, here) })
        });
        Self { location, bound }
    }

    /// The same location, bound to `host`.
    pub(crate) fn bind(&self, host: &Host) -> Self {
        Self::new(self.location, Some(host.clone()))
    }

    /// Latest known location.
    pub(super) fn present(&self) -> ActorLocation {
        let route = self.bound.as_ref().and_then(|bound| bound.route());
        route.and_then(|route| route.present().ok()).unwrap_or(self.location)
    }

    pub(crate) fn connected(&self) -> bool {
        let Some(bound) = &self.bound else { return false };
        if let Some(route) = bound.route() {
            return !matches!(route.state(), RouteState::Ended(_));
        }
        let reachable = match bound.local_host.identity() == self.location.host {
            // On this host the table knows the answer, so no evidence is needed.
            true => bound.local_host.actors().find(self.location.target).is_ok(),
            false => bound.peer().is_ok_and(|peer| !peer.is_down()),
        };
        reachable && !bound.dead.load(Ordering::Relaxed)
    }

    pub(crate) fn send<M: RemoteMessage>(&self, message: M) -> Request<M> {
        match &self.bound {
            Some(bound) if bound.managed.is_none() => Request::new(Arc::clone(bound), message),
            Some(bound) => Request::managed(bound, message),
            None => Request::failed(NotDelivered::Unbound.into()),
        }
    }

    pub(crate) async fn tell<M: RemoteMessage>(&self, message: M) -> Result<(), NotDelivered> {
        let mut slot = Some(message);
        let Some((bound, route)) = self.bound.as_ref().and_then(|bound| Some((bound, bound.route()?))) else {
            return self.tell_incarnation(&mut slot).await;
        };
        loop {
            let at = located(Arc::clone(route)).await?;
            let present = Self { location: at, bound: Some(bound.at(at)) };
            // Boxed: the future of a message to any other actor is moved often.
            let told = Box::pin(present.tell_incarnation(&mut slot)).await;
            let Err(reason) = told else { return Ok(()) };
            let evidence = evidence_of(&reason).filter(|_| !bound.local_host.is_closing());
            let Some(evidence) = evidence else { return Err(reason) };
            route.report(&bound.local_host, at, evidence);
        }
    }

    /// [`tell`](Self::tell) to the location of the address. The message stays in the slot on failure.
    async fn tell_incarnation<M: RemoteMessage>(&self, slot: &mut Option<M>) -> Result<(), NotDelivered> {
        // In a synchronous handler a `tell` waits only for capacity, where a deadlock is detected. The
        // blocked thread would neither release credit nor wake a task whose budget is used up.
        let patient = synchronous::running().is_none();
        if patient
            && let Some(peer) = self.bound.as_ref().and_then(|bound| bound.known_peer())
            && peer.consumes_budget()
        {
            // Yields when the budget is used up, so that the link writes and the peer can work in
            // parallel.
            tokio::task::coop::consume_budget().await;
        }
        let mut position: Option<QueuePosition> = None;
        loop {
            match self.post(slot, patient, position.as_ref()) {
                Err(NotDelivered::Full { size, .. }) => {
                    let peer = self.peer()?;
                    let waiter = Waiter { frame_bytes: size, is_call: false, spares_queue: patient };
                    let enqueue = || peer.enqueue_waiter(self.location.target, waiter);
                    let granted = position.get_or_insert_with(enqueue).granted();
                    unless_deadlock(self.here()?, granted).await.map_err(|_| NotDelivered::Deadlock)?;
                }
                outcome => return outcome,
            }
        }
    }

    /// Stops the actor behind everything that this host has sent to it before.
    pub(crate) async fn stop(&self) -> Result<(), SendError> {
        let here = self.here()?;
        let Some(route) = self.bound()?.route() else { return stop_on_host(here, self.location).await };
        let failed = match route.state() {
            RouteState::Ended(_) => return Ok(()),
            RouteState::Searching => None,
            RouteState::At(at) => stop_incarnation(here, at).await.err().map(|error| (at, error)),
        };
        if let Some((at, error)) = failed {
            match evidence(&error).filter(|_| !here.is_closing()) {
                Some(evidence) => route.report(here, at, evidence),
                None => return Err(error),
            }
        }
        // Between two incarnations no host can stop it. Also of one that has taken the stop the control plane must
        // know: it would restart the actor if the host ended before its report.
        let (Some(placement), Some(number)) = (here.placement(), self.location.target.actor.managed_number())
        else {
            return Ok(());
        };
        match placement.kill(here, ActorKey(number)).await {
            Ok(()) | Err(PlacementError::Unknown { .. } | PlacementError::JobEnded { .. }) => Ok(()),
            Err(error) => Err(OutcomeUnknown::Other { text: error.to_string() }.into()),
        }
    }

    pub(crate) fn do_send<M: RemoteMessage>(&self, message: M) {
        if let Err(error) = self.post_present(message) {
            log::debug!(to = ?self, message = M::NAME, %error, "a one-way message was not delivered");
            if let Some(bound) = &self.bound {
                bound.local_host.count_dead_letter();
            }
        }
    }

    #[inline(always)]
    pub(crate) fn try_send<M: RemoteMessage>(&self, message: M) -> Result<Request<M>, TrySendError<M>> {
        let Some(bound) = &self.bound else {
            return Err(TrySendError { message, reason: NotDelivered::Unbound });
        };
        if bound.managed.is_some() {
            return Request::try_managed(bound, message);
        }
        let mut slot = Some(message);
        match bound.call(&mut slot, None, &mut Retryable::Never, true) {
            Ok(reply) => {
                // Dropping the message runs user code. If that panics, the request is dropped and cancels
                // its call.
                let request = Request::sent(Arc::clone(bound), reply);
                drop(slot);
                Ok(request)
            }
            Err(reason) => match slot {
                Some(message) => Err(TrySendError { message, reason: *reason }),
                // The mailbox closed in between and dropped the message.
                None => Ok(Request::failed(reason)),
            },
        }
    }

    /// Queues a one-way message immediately, for the present incarnation of a managed actor.
    fn post_present<M: RemoteMessage>(&self, message: M) -> Result<(), NotDelivered> {
        let Some((bound, route)) = self.bound.as_ref().and_then(|bound| Some((bound, bound.route()?))) else {
            return self.post(&mut Some(message), false, None);
        };
        let at = route.present()?;
        let present = Self { location: at, bound: Some(bound.at(at)) };
        let posted = present.post(&mut Some(message), false, None);
        if let Some(evidence) = posted.as_ref().err().and_then(evidence_of) {
            route.report(&bound.local_host, at, evidence);
        }
        posted
    }

    /// Queues a one-way message, which stays in the slot on failure.
    ///
    /// A `patient` sender can wait. One that has waited passes its queue position.
    fn post<M: RemoteMessage>(
        &self,
        slot: &mut Option<M>,
        patient: bool,
        position: Option<&QueuePosition>,
    ) -> Result<(), NotDelivered> {
        let bound = self.bound()?;
        if bound.local_host.identity() == self.location.host {
            if bound.is_managed() {
                return bound.tell_own(slot);
            }
            let responder = Responder::discard(bound.local_host.as_reply_path());
            return bound.deliver_local(slot, None, responder, false);
        }
        let peer = bound.peer()?;
        let message = slot.as_ref().expect("a slot is posted while it is full");
        let trace = trace::current();
        wire::encode_message(message, peer.body_bytes_max(), |body| {
            payload_hint::check::<M>(body);
            let body = MessageBody { encoded: body, trace: trace.as_ref() };
            match position {
                None => peer.tell(self.location.target, M::HASH, body, patient),
                Some(position) => peer.tell_in_turn(position, M::HASH, body),
            }
        })?
    }

    fn bound(&self) -> Result<&Arc<BoundAddress>, NotDelivered> {
        match &self.bound {
            Some(bound) => Ok(bound),
            None => Err(NotDelivered::Unbound),
        }
    }

    /// The peer of the address.
    fn peer(&self) -> Result<&Arc<Peer>, NotDelivered> {
        self.bound()?.peer()
    }

    /// The local host that the address is bound to.
    pub(super) fn here(&self) -> Result<&Host, NotDelivered> {
        Ok(&self.bound()?.local_host)
    }
}

/// Decodes a reply in the current decode context. The value takes the payloads out of the body.
#[inline]
pub(super) fn decode_reply<T: DeserializeOwned>(body: &mut Body) -> Result<T, Box<SendError>> {
    wire::decode_taking(&body.message, Some(&mut body.attachments)).map_err(|error| {
        let undecodable = OutcomeUnknown::ReplyUndecodable { text: error.to_string() };
        Box::new(undecodable.into())
    })
}

fn not_delivered(failure: CallFailure) -> NotDelivered {
    match SendError::from(failure) {
        SendError::NotDelivered(reason) => reason,
        _ => NotDelivered::ActorStopped,
    }
}

impl BoundAddress {
    fn new(location: ActorLocation, local_host: Host) -> Self {
        Self { location, local_host, peer: OnceLock::new(), dead: AtomicBool::new(false), managed: None }
    }

    /// Route to the managed actor of the address, if it is one.
    pub(super) fn route(&self) -> Option<&Arc<Route>> {
        self.managed.as_ref().map(|managed| &managed.route)
    }

    /// True for a managed actor, also at a location that its address led to.
    fn is_managed(&self) -> bool {
        self.location.target.actor.managed_number().is_some()
    }

    /// The same address at another location of its managed actor.
    pub(super) fn at(self: &Arc<Self>, location: ActorLocation) -> Arc<Self> {
        let Some(managed) = self.managed.as_ref().filter(|_| location != self.location) else {
            return Arc::clone(self);
        };
        let mut present = managed.present.lock();
        match &*present {
            Some(known) if known.location == location => Arc::clone(known),
            _ => Arc::clone(present.insert(Arc::new(Self::new(location, self.local_host.clone())))),
        }
    }

    /// Calls a managed actor of this host. The message stays with the caller.
    fn call_own<M: RemoteMessage>(
        &self,
        slot: &Option<M>,
        deadline: Option<Instant>,
    ) -> Result<ReplySource<M::Result>, Box<NotDelivered>> {
        let message = slot.as_ref().expect("a slot is called with while it is full");
        let trace = trace::current();
        let reply = wire::encode_message(message, self.local_host.limits().frame_bytes_max, |body| {
            let body = MessageBody { encoded: body, trace: trace.as_ref() };
            self.local_host.call_own_actor(self.location.target, M::HASH, deadline, body)
        });
        Ok(ReplySource::Own(Box::new(reply.map_err(NotDelivered::from)?)))
    }

    /// Sends a managed actor of this host a one-way message, which stays in the slot on failure.
    fn tell_own<M: RemoteMessage>(&self, slot: &mut Option<M>) -> Result<(), NotDelivered> {
        let message = slot.as_ref().expect("a slot is posted while it is full");
        let trace = trace::current();
        let told = wire::encode_message(message, self.local_host.limits().frame_bytes_max, |body| {
            let body = MessageBody { encoded: body, trace: trace.as_ref() };
            self.local_host.tell_own_actor(self.location.target, M::HASH, body)
        });
        told.map_err(NotDelivered::from)?.map_err(not_delivered)?;
        *slot = None;
        Ok(())
    }

    /// Sends a call. The message stays in the slot on failure, or if the call may be retried.
    ///
    /// `repeat` is updated to identify the next attempt.
    #[inline]
    pub(super) fn call<M: RemoteMessage>(
        &self,
        slot: &mut Option<M>,
        deadline: Option<Deadline>,
        repeat: &mut Retryable,
        only_if_room: bool,
    ) -> Result<ReplySource<M::Result>, Box<NotDelivered>> {
        match self.known_peer() {
            Some(peer) => self.call_peer(peer, slot, deadline, repeat),
            None => self.call_slow(slot, deadline, repeat, only_if_room),
        }
    }

    /// [`call`](Self::call) without a known peer, which an actor on the same host never has.
    #[inline(never)]
    fn call_slow<M: RemoteMessage>(
        &self,
        slot: &mut Option<M>,
        deadline: Option<Deadline>,
        repeat: &mut Retryable,
        only_if_room: bool,
    ) -> Result<ReplySource<M::Result>, Box<NotDelivered>> {
        if self.local_host.identity() == self.location.host {
            let deadline = deadline.map(|deadline| deadline.at);
            if self.is_managed() {
                return self.call_own(slot, deadline);
            }
            let (sender, reply) = oneshot::channel();
            self.deliver_local(slot, deadline, Responder::local(sender), only_if_room)?;
            return Ok(ReplySource::Local(reply));
        }
        self.call_peer(self.peer()?, slot, deadline, repeat)
    }

    #[inline]
    fn call_peer<M: RemoteMessage>(
        &self,
        peer: &Arc<Peer>,
        slot: &Option<M>,
        deadline: Option<Deadline>,
        repeat: &mut Retryable,
    ) -> Result<ReplySource<M::Result>, Box<NotDelivered>> {
        let message = slot.as_ref().expect("a slot is called with while it is full");
        let trace = trace::current();
        let open = wire::encode_message(message, peer.body_bytes_max(), |body| {
            payload_hint::check::<M>(body);
            let body = MessageBody { encoded: body, trace: trace.as_ref() };
            peer.call(self.location.target, M::HASH, deadline, repeat, body)
        });
        Ok(ReplySource::Remote(open.map_err(NotDelivered::from)??))
    }

    /// [`call`](Self::call) with reserved capacity.
    #[inline(never)]
    pub(super) fn call_in_turn<M: RemoteMessage>(
        &self,
        position: &QueuePosition,
        slot: &Option<M>,
        deadline: Option<Deadline>,
        repeat: &mut Retryable,
    ) -> Result<ReplySource<M::Result>, Box<NotDelivered>> {
        let peer = self.peer()?;
        let message = slot.as_ref().expect("a slot is called with while it is full");
        let trace = trace::current();
        let open = wire::encode_message(message, peer.body_bytes_max(), |body| {
            let body = MessageBody { encoded: body, trace: trace.as_ref() };
            peer.call_in_turn(position, M::HASH, deadline, repeat, body)
        });
        Ok(ReplySource::Remote(open.map_err(NotDelivered::from)??))
    }

    /// Delivers on the same host, where the message moves without being encoded.
    fn deliver_local<M: RemoteMessage>(
        &self,
        slot: &mut Option<M>,
        deadline: Option<Instant>,
        responder: Responder<M::Result>,
        only_if_room: bool,
    ) -> Result<(), NotDelivered> {
        let find = || -> Result<_, CallFailure> {
            let mailbox = self.local_host.actors().find(self.location.target)?;
            let handler = self.local_host.registry().handler(mailbox.kind(), M::HASH);
            let handler = handler.ok_or_else(|| CallFailure::NotHandled {
                actor: mailbox.name().to_owned(),
                message: M::NAME.to_owned(),
            })?;
            Ok((mailbox, handler))
        };
        let (mailbox, handler) = match find() {
            Ok(found) => found,
            Err(failure) => {
                // The sender gets the error and the message back, so nothing is left to answer.
                responder.disarm();
                return Err(not_delivered(failure));
            }
        };
        let message = slot.take().expect("a slot is delivered while it is full");
        let trace = trace::current().map(Box::new);
        let mut delivery = Some(Delivery::new(message, deadline, responder, trace));
        let delivered = (handler.deliver_local)(&*mailbox, &mut delivery, only_if_room, handler.stats);
        *slot = delivery.map(Delivery::into_message);
        delivered.map_err(|error| match error {
            MailboxError::Full => NotDelivered::MailboxFull,
            MailboxError::Closed => NotDelivered::ActorStopped,
        })
    }

    /// Decodes a reply on the caller's thread; addresses in it bind to the caller's host.
    #[inline(always)]
    pub(super) fn decode<T: DeserializeOwned>(&self, body: &mut Body) -> Result<T, Box<SendError>> {
        if body.message.len() < HostUid::ENCODED_BYTES_MIN {
            return decode_reply(body);
        }
        decode_context::within(&self.local_host, || decode_reply(body))
    }

    /// Records the evidence about the actor in an error.
    pub(super) fn observe_error(&self, error: &SendError) {
        use NotDelivered::{ActorStopped, NoSuchActor, StaleHost};
        let stopped = match error {
            SendError::Panicked { .. } => true,
            SendError::NotDelivered(reason) => {
                // An unknown host may still be added.
                matches!(reason, ActorStopped | NoSuchActor | StaleHost { .. })
            }
            SendError::OutcomeUnknown(_) => false,
        };
        if stopped {
            self.dead.store(true, Ordering::Relaxed);
        }
    }

    /// The peer, looked up on first use.
    #[inline]
    pub(super) fn peer(&self) -> Result<&Arc<Peer>, NotDelivered> {
        if let Some(peer) = self.peer.get() {
            return Ok(peer);
        }
        let peer = self.local_host.peer(self.location.host)?;
        // Concurrent look-ups find the same peer.
        Ok(self.peer.get_or_init(|| peer))
    }

    /// The peer, if a message was sent to it before.
    #[inline]
    pub(super) fn known_peer(&self) -> Option<&Arc<Peer>> {
        self.peer.get()
    }
}

impl PartialEq for Address {
    /// Addresses of a managed actor are equal whatever incarnations they were made for.
    fn eq(&self, other: &Self) -> bool {
        let (actor, other_actor) = (self.location.target.actor, other.location.target.actor);
        match actor.managed_number() {
            Some(_) => actor == other_actor,
            None => self.location == other.location,
        }
    }
}

impl Eq for Address {}

impl std::hash::Hash for Address {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match self.location.target.actor.managed_number() {
            Some(number) => number.hash(state),
            None => self.location.hash(state),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.location.host, self.location.target.actor)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.location.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Address {
    /// Binds to the host that is decoding on this thread, if any.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(ActorLocation::deserialize(deserializer)?, decode_context::current()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ActorId, ActorIncarnation, HostId, Incarnation, Target};

    #[test]
    fn no_encoded_address_is_shorter_than_the_bound_for_decoding_without_a_host() {
        let host = HostUid { host: HostId(0), incarnation: Incarnation(0) };
        let target = Target { actor: ActorId(0), incarnation: ActorIncarnation(0) };
        let address = Address::new(ActorLocation { host, target }, None);
        let bytes = wire::encode(&address, usize::MAX, |body| body.len()).unwrap();
        assert!(bytes >= HostUid::ENCODED_BYTES_MIN, "{bytes} bytes");
    }
}

//! An address without its types: which actor of which host, and the way there.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::oneshot;

use super::request::{Answer, Request, TrySendError};
use crate::host::blocked::unless_deadlock;
use crate::host::peer::{Peer, Place, Retryable, Waiter};
use crate::host::{Host, NotDelivered, OutcomeUnknown, SendError, decode_context};
use crate::id::HostUid;
use crate::observe::log;
use crate::registry::{Delivery, MailboxError, RemoteMessage, Responder, synchronous};
use crate::spec::ActorLocation;
use crate::wire::{self, Body, CallFailure};

/// A place, and the host that leads there.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) location: ActorLocation,
    bound: Option<Arc<BoundAddress>>,
}

/// A place as seen from a host.
pub(super) struct BoundAddress {
    pub(super) location: ActorLocation,
    pub(super) local_host: Host,
    peer: OnceLock<Arc<Peer>>,
    /// Set on evidence that the actor is gone for good.
    dead: AtomicBool,
}

impl Address {
    pub(crate) fn new(place: ActorLocation, here: Option<Host>) -> Self {
        let bound = here.map(|here| {
            Arc::new(BoundAddress {
                location: place,
                local_host: here,
                peer: OnceLock::new(),
                dead: AtomicBool::new(false),
            })
        });
        Self { location: place, bound }
    }

    /// The same place as seen from `host`.
    pub(crate) fn bind(&self, host: &Host) -> Self {
        Self::new(self.location, Some(host.clone()))
    }

    pub(crate) fn connected(&self) -> bool {
        let Some(bound) = &self.bound else { return false };
        let reachable = match bound.local_host.identity() == self.location.host {
            true => bound.local_host.actors().find(self.location.target).is_ok(),
            false => bound.peer().is_ok_and(|peer| !peer.is_gone()),
        };
        reachable && !bound.dead.load(Ordering::Relaxed)
    }

    pub(crate) fn send<M: RemoteMessage>(&self, message: M) -> Request<M> {
        match &self.bound {
            Some(bound) => Request::new(Arc::clone(bound), message),
            None => Request::failed(NotDelivered::Unbound.into()),
        }
    }

    pub(crate) async fn tell<M: RemoteMessage>(&self, message: M) -> Result<(), NotDelivered> {
        let mut slot = Some(message);
        // Within a synchronous handler a `tell` waits for nothing but room, where a deadlock is detected: a thread
        // that blocks gives no credit, and does not run what wakes a task whose budget is used up.
        let patient = synchronous::running().is_none();
        if patient
            && let Some(peer) = self.bound.as_ref().and_then(|bound| bound.known_peer())
            && peer.consumes_budget()
        {
            tokio::task::coop::consume_budget().await;
        }
        let mut place: Option<Place> = None;
        loop {
            match self.post(&mut slot, patient, place.as_ref()) {
                Err(NotDelivered::Full { size, .. }) => {
                    let peer = self.peer()?;
                    let waiter = Waiter { frame_bytes: size, is_call: false, spares_queue: patient };
                    let lined_up = || peer.line_up(self.location.target, waiter);
                    let turn = place.get_or_insert_with(lined_up).turn();
                    unless_deadlock(self.here()?, turn).await.map_err(|_| NotDelivered::Deadlock)?;
                }
                outcome => return outcome,
            }
        }
    }

    pub(crate) fn do_send<M: RemoteMessage>(&self, message: M) {
        if let Err(error) = self.post(&mut Some(message), false, None) {
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
        let mut slot = Some(message);
        match bound.call(&mut slot, None, &mut Retryable::Never, true) {
            Ok(answer) => {
                // Dropping the message runs user code; if that panics the request goes, and its call with it.
                let request = Request::sent(Arc::clone(bound), answer);
                drop(slot);
                Ok(request)
            }
            Err(reason) => match slot {
                Some(message) => Err(TrySendError { message, reason: *reason }),
                // The mailbox closed in between and took the message with it.
                None => Ok(Request::failed(reason)),
            },
        }
    }

    /// Posts a one-way message; it stays in the slot when nobody took it. `patient` is for who can wait, a
    /// place in the line for who has waited.
    fn post<M: RemoteMessage>(
        &self,
        slot: &mut Option<M>,
        patient: bool,
        place: Option<&Place>,
    ) -> Result<(), NotDelivered> {
        let bound = self.bound()?;
        if bound.local_host.identity() == self.location.host {
            let responder = Responder::nobody(bound.local_host.as_reply_path());
            return bound.deliver_local(slot, None, responder, false);
        }
        let peer = bound.peer()?;
        let message = slot.as_ref().expect("a slot is posted while it is full");
        wire::encode_message(message, peer.body_bytes_max(), |body| match place {
            None => peer.tell(self.location.target, M::HASH, body, patient),
            Some(place) => peer.tell_in_turn(place, M::HASH, body),
        })?
    }

    fn bound(&self) -> Result<&Arc<BoundAddress>, NotDelivered> {
        match &self.bound {
            Some(bound) => Ok(bound),
            None => Err(NotDelivered::Unbound),
        }
    }

    /// The host there.
    fn peer(&self) -> Result<&Arc<Peer>, NotDelivered> {
        self.bound()?.peer()
    }

    /// The host that leads there.
    pub(super) fn here(&self) -> Result<&Host, NotDelivered> {
        Ok(&self.bound()?.local_host)
    }
}

/// Decodes an answer under the scope that is current.
#[inline]
pub(super) fn decode_answer<T: DeserializeOwned>(body: &Body) -> Result<T, Box<SendError>> {
    wire::decode(body).map_err(|error| {
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
    /// Makes a call; the message stays in the slot when nobody took it, or it may be made again. Then
    /// `repeat` is left as what the next attempt is.
    #[inline]
    pub(super) fn call<M: RemoteMessage>(
        &self,
        slot: &mut Option<M>,
        deadline: Option<Instant>,
        repeat: &mut Retryable,
        only_if_room: bool,
    ) -> Result<Answer<M::Result>, Box<NotDelivered>> {
        match self.known_peer() {
            Some(peer) => self.call_peer(peer, slot, deadline, repeat),
            None => self.call_slow(slot, deadline, repeat, only_if_room),
        }
    }

    /// As [`call`](Self::call), where no peer is known: none is needed on the same host.
    #[inline(never)]
    fn call_slow<M: RemoteMessage>(
        &self,
        slot: &mut Option<M>,
        deadline: Option<Instant>,
        repeat: &mut Retryable,
        only_if_room: bool,
    ) -> Result<Answer<M::Result>, Box<NotDelivered>> {
        if self.local_host.identity() == self.location.host {
            let (reply, answer) = oneshot::channel();
            self.deliver_local(slot, deadline, Responder::local(reply), only_if_room)?;
            return Ok(Answer::Local(answer));
        }
        self.call_peer(self.peer()?, slot, deadline, repeat)
    }

    #[inline]
    fn call_peer<M: RemoteMessage>(
        &self,
        peer: &Arc<Peer>,
        slot: &Option<M>,
        deadline: Option<Instant>,
        repeat: &mut Retryable,
    ) -> Result<Answer<M::Result>, Box<NotDelivered>> {
        let message = slot.as_ref().expect("a slot is called with while it is full");
        let open = wire::encode_message(message, peer.body_bytes_max(), |body| {
            peer.call(self.location.target, M::HASH, deadline, repeat, body)
        });
        Ok(Answer::Remote(open.map_err(NotDelivered::from)??))
    }

    /// Makes a call as [`call`](Self::call), at its place in the line for room.
    #[inline(never)]
    pub(super) fn call_in_turn<M: RemoteMessage>(
        &self,
        place: &Place,
        slot: &Option<M>,
        deadline: Option<Instant>,
        repeat: &mut Retryable,
    ) -> Result<Answer<M::Result>, Box<NotDelivered>> {
        let peer = self.peer()?;
        let message = slot.as_ref().expect("a slot is called with while it is full");
        let open = wire::encode_message(message, peer.body_bytes_max(), |body| {
            peer.call_in_turn(place, M::HASH, deadline, repeat, body)
        });
        Ok(Answer::Remote(open.map_err(NotDelivered::from)??))
    }

    /// The short cut on the same host: the message moves as it is.
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
                responder.disarm();
                return Err(not_delivered(failure));
            }
        };
        let message = slot.take().expect("a slot is put while it is full");
        let mut delivery = Some(Delivery::new(message, deadline, responder));
        let put = (handler.put)(&*mailbox, &mut delivery, only_if_room);
        *slot = delivery.map(Delivery::into_message);
        put.map_err(|error| match error {
            MailboxError::Full => NotDelivered::MailboxFull,
            MailboxError::Closed => NotDelivered::ActorStopped,
        })
    }

    /// Decodes an answer, on the caller's thread; addresses in it bind to the caller's host.
    #[inline(always)]
    pub(super) fn decode<T: DeserializeOwned>(&self, body: &Body) -> Result<T, Box<SendError>> {
        if body.message.len() < HostUid::ENCODED_BYTES_MIN {
            return decode_answer(body);
        }
        decode_context::within(&self.local_host, || decode_answer(body))
    }

    /// Takes an error as evidence about the actor.
    pub(super) fn observe_error(&self, error: &SendError) {
        use NotDelivered::{ActorStopped, NoSuchActor, StaleHost};
        let gone = match error {
            SendError::Panicked { .. } => true,
            SendError::NotDelivered(reason) => {
                // A host that is not known may be yet.
                matches!(reason, ActorStopped | NoSuchActor | StaleHost { .. })
            }
            SendError::OutcomeUnknown(_) => false,
        };
        if gone {
            self.dead.store(true, Ordering::Relaxed);
        }
    }

    /// The host there.
    #[inline]
    pub(super) fn peer(&self) -> Result<&Arc<Peer>, NotDelivered> {
        if let Some(peer) = self.peer.get() {
            return Ok(peer);
        }
        let peer = self.local_host.peer(self.location.host)?;
        Ok(self.peer.get_or_init(|| peer))
    }

    /// The host there, once a message was sent to it.
    #[inline]
    pub(super) fn known_peer(&self) -> Option<&Arc<Peer>> {
        self.peer.get()
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.location == other.location
    }
}

impl Eq for Address {}

impl std::hash::Hash for Address {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.location.hash(state);
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
    /// Binds to the host that is decoding; unbound where none is.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(ActorLocation::deserialize(deserializer)?, decode_context::current()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ActorId, ActorIncarnation, HostId, Incarnation, Target};

    #[test]
    fn no_address_is_so_short_that_it_would_be_decoded_without_a_host() {
        let host = HostUid { host: HostId(0), incarnation: Incarnation(0) };
        let target = Target { actor: ActorId(0), incarnation: ActorIncarnation(0) };
        let address = Address::new(ActorLocation { host, target }, None);
        let bytes = wire::encode(&address, usize::MAX, |body| body.len()).unwrap();
        assert!(bytes >= HostUid::ENCODED_BYTES_MIN, "{bytes} bytes");
    }
}

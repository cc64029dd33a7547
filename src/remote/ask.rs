//! Calls to a host itself, or to what stands for no actor there.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout_at;

use super::address::decode_answer;
use super::args::{Args, Shared, Value};
use crate::host::blocked::unless_deadlock;
use crate::host::peer::{OpenCall, Peer, Pending, Place, Retryable, Waiter};
use crate::host::{Host, NotDelivered, OutcomeUnknown, SendError, decode_context};
use crate::id::{HostUid, Target, TypeHash};
use crate::wire::Body;

/// Calls a service of a host itself.
///
/// # Errors
///
/// As any call: [`SendError`].
pub(crate) async fn call_host<T, R>(
    here: &Host,
    there: HostUid,
    service: TypeHash,
    args: T,
    deadline: Option<Instant>,
) -> Result<R, SendError>
where
    T: Serialize + DeserializeOwned + Send,
    R: DeserializeOwned,
{
    call_service(here, there, Target::HOST, service, args, deadline).await
}

/// Calls a service of a host itself with what other hosts are told as well.
///
/// # Errors
///
/// As any call: [`SendError`].
pub(crate) async fn ask_host_shared<R: DeserializeOwned>(
    here: &Host,
    there: HostUid,
    service: TypeHash,
    args: Shared,
) -> Result<R, SendError> {
    ask_with(here, there, Target::HOST, service, args, None).await
}

/// Calls a service of a host itself, or its tasks: whatever `target` stands for no actor.
///
/// # Errors
///
/// As any call: [`SendError`].
pub(crate) fn call_service<T, R>(
    here: &Host,
    there: HostUid,
    target: Target,
    service: TypeHash,
    args: T,
    deadline: Option<Instant>,
) -> impl Future<Output = Result<R, SendError>>
where
    T: Serialize + DeserializeOwned + Send,
    R: DeserializeOwned,
{
    // Not a future around that of the call, which would be moved once more.
    ask_with(here, there, target, service, Value(args), deadline)
}

async fn ask_with<R: DeserializeOwned>(
    here: &Host,
    there: HostUid,
    target: Target,
    service: TypeHash,
    args: impl Args,
    deadline: Option<Instant>,
) -> Result<R, SendError> {
    let body = if there == here.identity() {
        let limit = here.limits().frame_bytes_max;
        let answer = args.encoded(limit, |body| here.call_self(service, deadline, body));
        let answer = unless_deadlock(here, answer.map_err(NotDelivered::from)?);
        let waited = until(deadline, answer).await.ok_or(OutcomeUnknown::TimedOut)?;
        waited.map_err(|_| SendError::deadlock(true))??
    } else {
        ask_peer(here, &here.peer(there)?, target, service, args, deadline).await?
    };
    decode_for(here, &body)
}

/// Tells an actor of another host something that comes behind all messages that were sent to it before, also
/// behind those that wait for room.
///
/// # Errors
///
/// As any call: [`SendError`].
pub(crate) async fn ask_last(
    here: &Host,
    there: HostUid,
    target: Target,
    service: TypeHash,
) -> Result<(), SendError> {
    let peer = here.peer(there)?;
    let body = match peer.line_up_last(target) {
        None => ask_peer(here, &peer, target, service, Value(()), None).await?,
        Some(place) => {
            let open = queue_in_turn(here, &peer, place, service, Value(()), None).await?;
            unless_deadlock(here, Pending::new(&peer, open))
                .await
                .map_err(|_| SendError::deadlock(true))??
        }
    };
    decode_for(here, &body)
}

/// Decodes an answer; addresses in it bind to `here`.
fn decode_for<R: DeserializeOwned>(here: &Host, body: &Body) -> Result<R, SendError> {
    decode_context::within(here, || decode_answer(body)).map_err(|error| *error)
}

async fn ask_peer(
    here: &Host,
    peer: &Arc<Peer>,
    target: Target,
    service: TypeHash,
    args: impl Args,
    deadline: Option<Instant>,
) -> Result<Body, SendError> {
    let queued = args.encoded(peer.body_bytes_max(), |body| {
        peer.call(target, service, deadline, &mut Retryable::Never, body)
    });
    let open = match queued.map_err(NotDelivered::from)?.map_err(|reason| *reason) {
        Ok(open) => {
            drop(args);
            open
        }
        Err(NotDelivered::Full { size, .. }) => {
            let waiter = Waiter { frame_bytes: size, is_call: true, spares_queue: false };
            let place = peer.line_up(target, waiter);
            // In a box: few calls wait for room, and the future of each is moved as it is made.
            Box::pin(queue_in_turn(here, peer, place, service, args, deadline)).await?
        }
        Err(reason) => return Err(reason.into()),
    };
    unless_deadlock(here, Pending::new(peer, open)).await.map_err(|_| SendError::deadlock(true))?
}

/// Queues a call when there is room for it.
async fn queue_in_turn(
    here: &Host,
    peer: &Arc<Peer>,
    place: Place,
    service: TypeHash,
    args: impl Args,
    deadline: Option<Instant>,
) -> Result<OpenCall, SendError> {
    loop {
        let turn = until(deadline, unless_deadlock(here, place.turn())).await;
        turn.ok_or(NotDelivered::Expired)?.map_err(|_| SendError::deadlock(false))?;
        let queued = args.encoded(peer.body_bytes_max(), |body| {
            peer.call_in_turn(&place, service, deadline, &mut Retryable::Never, body)
        });
        match queued.map_err(NotDelivered::from)?.map_err(|reason| *reason) {
            Ok(open) => return Ok(open),
            // It keeps its place.
            Err(NotDelivered::Full { .. }) => {}
            Err(reason) => return Err(reason.into()),
        }
    }
}

/// Waits for something that keeps no deadline of its own; `None` if the deadline comes first.
async fn until<T>(deadline: Option<Instant>, waited_for: impl Future<Output = T>) -> Option<T> {
    match deadline {
        None => Some(waited_for.await),
        // In a box: a timer would make the future of each call larger, which is moved as it is made.
        Some(deadline) => Box::pin(timeout_at(deadline.into(), waited_for)).await.ok(),
    }
}

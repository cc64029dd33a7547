//! Calls to a host's own services and tasks, and calls that must come last.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout_at;

use super::address::decode_reply;
use super::args::{Args, KeptArgs, SharedArgs};
use crate::host::blocked::unless_deadlock;
use crate::host::peer::{CallHandle, Peer, QueuePosition, ReplyFuture, Retryable, Waiter};
use crate::host::{Deadline, Host, NotDelivered, OutcomeUnknown, SendError, decode_context};
use crate::id::{HostUid, Target, TypeHash};
use crate::observe::trace;
use crate::wire::{Body, MessageBody};

/// Calls a service of a host.
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
    // Encoded here, so that the calls of all services share the code below.
    let encoded = SharedArgs::new(&args, here.limits().frame_bytes_max);
    // The service may take long, and the arguments may be large.
    drop(args);
    let encoded = encoded.map_err(NotDelivered::from)?;
    decode_for(here, &mut call_encoded(here, there, Target::HOST, service, encoded, deadline).await?)
}

/// Calls a service of a host with arguments that were encoded once for several hosts.
///
/// # Errors
///
/// As any call: [`SendError`].
pub(crate) async fn ask_host_shared<R: DeserializeOwned>(
    here: &Host,
    there: HostUid,
    service: TypeHash,
    args: SharedArgs,
) -> Result<R, SendError> {
    decode_for(here, &mut call_encoded(here, there, Target::HOST, service, args, None).await?)
}

/// Calls a service of a host, or one of its tasks: `target` is no actor. The arguments remain, so that the call can
/// be repeated.
///
/// # Errors
///
/// As any call: [`SendError`].
pub(crate) async fn call_service<T, R>(
    here: &Host,
    there: HostUid,
    target: Target,
    service: TypeHash,
    args: &mut T,
    deadline: Option<Instant>,
) -> Result<R, SendError>
where
    T: Serialize + DeserializeOwned + Send,
    R: DeserializeOwned,
{
    decode_for(here, &mut call_encoded(here, there, target, service, KeptArgs(args), deadline).await?)
}

/// Calls a service, and returns the reply's body.
async fn call_encoded(
    here: &Host,
    there: HostUid,
    target: Target,
    service: TypeHash,
    args: impl Args,
    deadline: Option<Instant>,
) -> Result<Body, SendError> {
    if there == here.identity() {
        let limit = here.limits().frame_bytes_max;
        let trace = trace::current();
        let reply = args.encoded(limit, |body| {
            here.call_self(service, deadline, MessageBody { encoded: body, trace: trace.as_ref() })
        });
        let reply = unless_deadlock(here, reply.map_err(NotDelivered::from)?);
        let waited = until(deadline, reply).await.ok_or(OutcomeUnknown::TimedOut)?;
        waited.map_err(|_| SendError::deadlock(true))?.map_err(Into::into)
    } else {
        call_peer(here, &here.peer(there)?, target, service, args, deadline).await
    }
}

/// Calls an actor of another host behind all messages that were sent to it before, including those that
/// wait for capacity.
///
/// # Errors
///
/// As any call: [`SendError`].
pub(crate) async fn call_last(
    here: &Host,
    there: HostUid,
    target: Target,
    service: TypeHash,
) -> Result<(), SendError> {
    let peer = here.peer(there)?;
    let mut body = match peer.enqueue_waiter_last(target) {
        None => call_peer(here, &peer, target, service, KeptArgs(&mut ()), None).await?,
        Some(position) => {
            let open = queue_in_turn(here, &peer, position, service, KeptArgs(&mut ()), None).await?;
            unless_deadlock(here, ReplyFuture::new(&peer, open))
                .await
                .map_err(|_| SendError::deadlock(true))??
        }
    };
    decode_for(here, &mut body)
}

/// Decodes a reply; addresses in it bind to `here`.
fn decode_for<R: DeserializeOwned>(here: &Host, body: &mut Body) -> Result<R, SendError> {
    decode_context::within(here, || decode_reply(body)).map_err(|error| *error)
}

async fn call_peer(
    here: &Host,
    peer: &Arc<Peer>,
    target: Target,
    service: TypeHash,
    args: impl Args,
    deadline: Option<Instant>,
) -> Result<Body, SendError> {
    let trace = trace::current();
    let queued = args.encoded(peer.body_bytes_max(), |body| {
        let body = MessageBody { encoded: body, trace: trace.as_ref() };
        peer.call(target, service, deadline.map(Deadline::from), &mut Retryable::Never, body)
    });
    let open = match queued.map_err(NotDelivered::from)?.map_err(|reason| *reason) {
        Ok(open) => {
            // The arguments may be large, and the body is queued by now.
            drop(args);
            open
        }
        Err(NotDelivered::Full { size, .. }) => {
            let waiter = Waiter { frame_bytes: size, is_call: true, spares_queue: false };
            let position = peer.enqueue_waiter(target, waiter);
            // Boxed: few calls wait for capacity, and the future of each call is moved when it is
            // created.
            Box::pin(queue_in_turn(here, peer, position, service, args, deadline)).await?
        }
        Err(reason) => return Err(reason.into()),
    };
    unless_deadlock(here, ReplyFuture::new(peer, open)).await.map_err(|_| SendError::deadlock(true))?
}

/// Queues a call once there is capacity for it.
async fn queue_in_turn(
    here: &Host,
    peer: &Arc<Peer>,
    position: QueuePosition,
    service: TypeHash,
    args: impl Args,
    deadline: Option<Instant>,
) -> Result<CallHandle, SendError> {
    loop {
        let granted = until(deadline, unless_deadlock(here, position.granted())).await;
        granted.ok_or(NotDelivered::Expired)?.map_err(|_| SendError::deadlock(false))?;
        let trace = trace::current();
        let queued = args.encoded(peer.body_bytes_max(), |body| {
            let body = MessageBody { encoded: body, trace: trace.as_ref() };
            peer.call_in_turn(&position, service, deadline.map(Deadline::from), &mut Retryable::Never, body)
        });
        match queued.map_err(NotDelivered::from)?.map_err(|reason| *reason) {
            Ok(open) => return Ok(open),
            // It keeps its position in the wait queue.
            Err(NotDelivered::Full { .. }) => {}
            Err(reason) => return Err(reason.into()),
        }
    }
}

/// Waits for a future without a deadline of its own; `None` if the deadline comes first.
async fn until<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        None => Some(future.await),
        // Boxed: a timer would enlarge the future of each call, which is moved when it is created.
        Some(deadline) => Box::pin(timeout_at(deadline.into(), future)).await.ok(),
    }
}

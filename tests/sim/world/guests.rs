//! Actors that are spawned on a host, sent to, and stopped: stopping comes last.

use std::rc::Rc;

use roadshow::{RemoteAddr, SendError, SpawnError};
use tokio::task::JoinSet;

use super::cast::Ledger;
use super::record::{Actor, Op, Sent, Stream, Way, content};
use super::senders::Sender;

/// Messages to an actor that is known to have been stopped.
const MESSAGES_AFTER: usize = 2;

/// Spawns an actor, sends to it, stops it and sends once more; another host may send to it meanwhile.
pub(crate) async fn keep(mut sender: Sender, stream: u64, hosts: usize, messages: usize) {
    sender.rest(300).await;
    let life = sender.places.at(sender.to).host.identity().incarnation.0;
    let Some(guest) = spawn(&mut sender).await else { return };
    let (mut visits, mut answers) = (JoinSet::new(), JoinSet::new());
    let visitor = sender.rng.usize(..2 * hosts);
    if visitor < hosts && visitor != sender.from {
        let visitor = Sender {
            places: Rc::clone(&sender.places),
            from: visitor,
            to: sender.to,
            rng: sender.rng.fork(),
        };
        visits.spawn_local(visit(visitor, guest.clone(), (stream << 8, life), messages));
    }
    for _ in 0..messages {
        if sender.rng.u8(..4) == 0 {
            sender.rest(30).await;
        }
        sender.post(&guest, (stream, life), Actor::Lives, &mut answers).await;
    }
    let actor = stop(&sender, &guest).await;
    for _ in 0..MESSAGES_AFTER {
        sender.post(&guest, (stream, life), actor, &mut answers).await;
    }
    while visits.join_next().await.is_some() {}
    while answers.join_next().await.is_some() {}
}

/// Spawns an actor; `None` if that fails, which the record judges.
async fn spawn(sender: &mut Sender) -> Option<RemoteAddr<Ledger>> {
    let (slow, bytes, limit) = (sender.rng.bool(), sender.bytes(), sender.limit());
    let op = sender.record().send(Sent::new(Way::Spawn, sender.from, sender.to).within(limit));
    let (here, there) = (sender.places.at(sender.from), sender.places.at(sender.to));
    here.chosen.choose(there.host.identity());
    let mut request = here.cluster.spawn::<Ledger>((op, slow, content(op, bytes)));
    if let Some(limit) = limit {
        request = request.timeout(limit);
    }
    match request.await {
        Ok(guest) => {
            sender.record().answer(op, Ok(op));
            Some(guest)
        }
        Err(error) => {
            sender.record().answer(op, Err(of_spawn(error)));
            None
        }
    }
}

/// Stops an actor; gives what is known of it then.
async fn stop(sender: &Sender, guest: &RemoteAddr<Ledger>) -> Actor {
    let op: Op = sender.record().send(Sent::new(Way::Stop, sender.from, sender.to));
    let stopped = guest.stop().await;
    let actor = if stopped.is_ok() { Actor::Stopped } else { Actor::MayStop };
    sender.record().answer(op, stopped.map(|()| op));
    actor
}

/// Sends to an actor that another host stops.
async fn visit(mut sender: Sender, guest: RemoteAddr<Ledger>, stream: Stream, messages: usize) {
    let guest = sender.places.at(sender.from).cluster.bind(&guest);
    let mut answers = JoinSet::new();
    for _ in 0..messages {
        sender.rest(20).await;
        sender.post(&guest, stream, Actor::MayStop, &mut answers).await;
    }
    while answers.join_next().await.is_some() {}
}

/// What an error of a spawn says about its request.
fn of_spawn(error: SpawnError) -> SendError {
    match error {
        SpawnError::NotDelivered { reason, .. } => reason.into(),
        SpawnError::OutcomeUnknown { reason, .. } => reason.into(),
        other => SendError::Panicked { text: other.to_string() },
    }
}

//! Actors that are spawned on a host, used and stopped; a stop stays behind earlier messages.

use std::rc::Rc;

use roadshow::{RemoteAddr, SendError, SpawnError};
use tokio::task::JoinSet;

use super::actors::Ledger;
use super::record::{Actor, Op, SendKind, Sent, Stream, content};
use super::senders::Sender;

/// Number of messages sent to an actor after its stop.
const MESSAGES_AFTER: usize = 2;

/// Spawns an actor, sends to it, stops it and sends again; another host may send to it meanwhile.
pub(crate) async fn run(mut sender: Sender, stream: u64, hosts: usize, messages: usize) {
    sender.pause(300).await;
    let incarnation = sender.hosts.at(sender.to).host.identity().incarnation.0;
    let Some(actor_addr) = spawn(&mut sender).await else { return };
    let (mut visits, mut answers) = (JoinSet::new(), JoinSet::new());
    let visitor = sender.rng.usize(..2 * hosts);
    // About every second actor has a visitor.
    if visitor < hosts && visitor != sender.from {
        let visitor =
            Sender { hosts: Rc::clone(&sender.hosts), from: visitor, to: sender.to, rng: sender.rng.fork() };
        visits.spawn_local(visit(visitor, actor_addr.clone(), (stream << 8, incarnation), messages));
    }
    for _ in 0..messages {
        if sender.rng.u8(..4) == 0 {
            sender.pause(30).await;
        }
        sender.post(&actor_addr, (stream, incarnation), Actor::Alive, &mut answers).await;
    }
    let actor = stop(&sender, &actor_addr).await;
    for _ in 0..MESSAGES_AFTER {
        sender.post(&actor_addr, (stream, incarnation), actor, &mut answers).await;
    }
    while visits.join_next().await.is_some() {}
    while answers.join_next().await.is_some() {}
}

/// Spawns an actor; returns `None` on failure, which the record checks.
async fn spawn(sender: &mut Sender) -> Option<RemoteAddr<Ledger>> {
    let (slow, bytes, limit) = (sender.rng.bool(), sender.bytes(), sender.limit());
    let op = sender.record().send(Sent::new(SendKind::Spawn, sender.from, sender.to).within(limit));
    let (here, there) = (sender.hosts.at(sender.from), sender.hosts.at(sender.to));
    // The request is polled below without another await, as `choose` demands.
    here.chosen.choose(there.host.identity());
    let mut request = here.cluster.spawn::<Ledger>((op, slow, content(op, bytes)));
    if let Some(limit) = limit {
        request = request.timeout(limit);
    }
    match request.await {
        Ok(actor_addr) => {
            sender.record().answer(op, Ok(op));
            Some(actor_addr)
        }
        Err(error) => {
            sender.record().answer(op, Err(of_spawn(error)));
            None
        }
    }
}

/// Stops an actor; returns the state known afterwards.
async fn stop(sender: &Sender, actor_addr: &RemoteAddr<Ledger>) -> Actor {
    let op: Op = sender.record().send(Sent::new(SendKind::Stop, sender.from, sender.to));
    let stopped = actor_addr.stop().await;
    // A stop with an unknown outcome may have arrived.
    let actor = if stopped.is_ok() { Actor::Stopped } else { Actor::MayStop };
    sender.record().answer(op, stopped.map(|()| op));
    actor
}

/// Sends to an actor that another host stops.
async fn visit(mut sender: Sender, actor_addr: RemoteAddr<Ledger>, stream: Stream, messages: usize) {
    let actor_addr = sender.hosts.at(sender.from).cluster.bind(&actor_addr);
    let mut answers = JoinSet::new();
    for _ in 0..messages {
        sender.pause(20).await;
        sender.post(&actor_addr, stream, Actor::MayStop, &mut answers).await;
    }
    while answers.join_next().await.is_some() {}
}

/// Converts the error of a spawn to that of its request.
fn of_spawn(error: SpawnError) -> SendError {
    match error {
        SpawnError::NotDelivered { reason, .. } => reason.into(),
        SpawnError::OutcomeUnknown { reason, .. } => reason.into(),
        // No spawn of the simulation panics, so the record reports this as a violation.
        other => SendError::Panicked { text: other.to_string() },
    }
}

//! Future in a durable actor's context that stores its groups and snapshots, and delivers its outbox.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use actix::fut::ActorFuture;
use actix::{ActorContext, Context};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Sleep;

use super::actor::{DurableActor, Serving, Waiter};
use super::outbox::DeliveryFuture;
use super::record::Record;
use super::store::StoreError;
use super::{Durable, flat};
use crate::config::{OUTBOX_IN_FLIGHT_MAX, SNAPSHOT_LOG_BYTES_MIN, STATE_REPAIR_INTERVALS};
use crate::observe::log;

type Step<T> = Pin<Box<dyn Future<Output = T>>>;

/// Encoding of a snapshot into parts.
type Encoding = Step<Result<Vec<Bytes>, String>>;

/// Search for another holder.
enum Repair {
    /// The next one begins then.
    Due(Pin<Box<Sleep>>),
    /// The control plane is asked whether there is one.
    Checking(Step<bool>),
    /// There is one. The group in flight comes first, and no other begins.
    Ready,
    Running(Step<Result<(), StoreError>>),
}

/// Requests of a durable actor to the store and to other actors.
#[derive(Default)]
pub(super) struct Writer {
    append: Option<Step<Result<(), StoreError>>>,
    repair: Option<Repair>,
    /// Number of searches in a row that have found no holder.
    vain_repairs: u32,
    /// Encoding of a snapshot, with the number of the record that it ends before.
    encoding: Option<(u64, Encoding)>,
    /// Encoded snapshot, which must not be stored before its records are.
    encoded: Option<(u64, Vec<Bytes>)>,
    snapshot: Option<Step<Result<(), StoreError>>>,
    /// Size of the last snapshot, in bytes.
    snapshot_bytes: u64,
    deliveries: FuturesUnordered<DeliveryFuture>,
}

impl<S: Durable> ActorFuture<DurableActor<S>> for Writer {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        actor: &mut DurableActor<S>,
        ctx: &mut Context<DurableActor<S>>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let this = self.get_mut();
        let Some(serving) = &mut actor.serving else { return Poll::Ready(()) };
        let polled = this.poll_store(serving, task);
        if let Err(error) = polled {
            actor.end_by(error, ctx);
            return Poll::Ready(());
        }
        if actor.ending.is_some() && !serving.journal.has_unstored() {
            ctx.stop();
        }
        Poll::Pending
    }
}

impl Writer {
    fn poll_store<S: Durable>(
        &mut self,
        serving: &mut Serving<S>,
        task: &mut TaskContext<'_>,
    ) -> Result<(), StoreError> {
        while !self.poll_repair(serving, task)? {
            if self.append.is_none() || self.poll_in_flight(serving, task)?.is_pending() {
                return Ok(());
            }
        }
        // Groups first: their replies may let messages of the outbox go.
        while self.poll_append(serving, task)? {}
        while self.poll_snapshot(serving, task)? {}
        if self.poll_deliveries(serving, task) {
            while self.poll_append(serving, task)? {}
        }
        Ok(())
    }

    /// Adds a copy of a state that has too few; false while no group may begin.
    fn poll_repair<S: Durable>(
        &mut self,
        serving: &Serving<S>,
        task: &mut TaskContext<'_>,
    ) -> Result<bool, StoreError> {
        loop {
            self.repair = match &mut self.repair {
                None if serving.store.is_complete() => {
                    self.vain_repairs = 0;
                    return Ok(true);
                }
                None => {
                    let (shortest, longest) = STATE_REPAIR_INTERVALS;
                    let interval = shortest.saturating_mul(1 << self.vain_repairs.min(16)).min(longest);
                    self.vain_repairs += 1;
                    Some(Repair::Due(Box::pin(tokio::time::sleep(interval))))
                }
                Some(Repair::Due(sleep)) => match sleep.as_mut().poll(task) {
                    Poll::Pending => return Ok(true),
                    Poll::Ready(()) => Some(Repair::Checking(Box::pin(serving.store.clone().can_repair()))),
                },
                Some(Repair::Checking(check)) => match check.as_mut().poll(task) {
                    Poll::Pending => return Ok(true),
                    Poll::Ready(can_repair) => can_repair.then_some(Repair::Ready),
                },
                Some(Repair::Ready) if self.append.is_some() => return Ok(false),
                Some(Repair::Ready) => Some(Repair::Running(Box::pin(serving.store.clone().repair()))),
                Some(Repair::Running(repair)) => match repair.as_mut().poll(task) {
                    Poll::Pending => return Ok(false),
                    Poll::Ready(repaired) => repaired.map(|()| None)?,
                },
            }
        }
    }

    /// Polls the group in flight, and releases what waited for it.
    fn poll_in_flight<S: Durable>(
        &mut self,
        serving: &mut Serving<S>,
        task: &mut TaskContext<'_>,
    ) -> Result<Poll<()>, StoreError> {
        let Some(append) = &mut self.append else { return Ok(Poll::Ready(())) };
        match append.as_mut().poll(task) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(stored) => stored?,
        }
        self.append = None;
        let Serving { journal, deliveries, snapshot, .. } = serving;
        for waiter in journal.on_stored() {
            match waiter {
                Waiter::Reply(reply) => reply.release(),
                Waiter::Sends(below) => deliveries.release(&snapshot.outbox, below),
            }
        }
        Ok(Poll::Ready(()))
    }

    /// Stores the next group; true if there may be more to do.
    fn poll_append<S: Durable>(
        &mut self,
        serving: &mut Serving<S>,
        task: &mut TaskContext<'_>,
    ) -> Result<bool, StoreError> {
        if self.poll_in_flight(serving, task)?.is_pending() {
            return Ok(false);
        }
        let group = serving.journal.take(serving.store.group_bytes_max());
        self.append = group.map(|group| Box::pin(serving.store.clone().append(group)) as _);
        Ok(self.append.is_some())
    }

    /// Makes and stores a snapshot when the log is long; true if there may be more to do.
    fn poll_snapshot<S: Durable>(
        &mut self,
        serving: &mut Serving<S>,
        task: &mut TaskContext<'_>,
    ) -> Result<bool, StoreError> {
        if let Some(snapshot) = &mut self.snapshot {
            match snapshot.as_mut().poll(task) {
                Poll::Pending => return Ok(false),
                Poll::Ready(stored) => stored?,
            }
            self.snapshot = None;
        }
        if let Some((up_to, encoding)) = &mut self.encoding {
            match encoding.as_mut().poll(task) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(parts)) => {
                    self.snapshot_bytes = parts.iter().map(|part| part.len() as u64).sum();
                    self.encoded = Some((*up_to, parts));
                }
                // The log goes on; the next attempt comes when it has grown as much again.
                Poll::Ready(Err(error)) => log::error!(error, "a state cannot be encoded, so its log grows"),
            }
            self.encoding = None;
        }
        if let Some((up_to, parts)) = self.encoded.take_if(|(up_to, _)| *up_to <= serving.journal.stored()) {
            let store = serving.store.clone();
            self.snapshot = Some(Box::pin(store.snapshot(up_to, parts)));
            return Ok(true);
        }
        let is_idle = self.encoded.is_none() && self.snapshot.is_none();
        // Twice the snapshot: writing snapshots costs at most half of what the records cost.
        let due = SNAPSHOT_LOG_BYTES_MIN.max(2 * self.snapshot_bytes);
        if is_idle && serving.journal.bytes() >= due {
            serving.journal.restart_bytes();
            let (snapshot, up_to) = (serving.snapshot.clone(), serving.journal.next());
            // A large state must not hold up the thread of the actors.
            let part_bytes_max = serving.store.group_bytes_max();
            let encode = move || snapshot.encode_parts(part_bytes_max);
            let encoding = serving.store.host().io().spawn_blocking(encode);
            let encoded = async { encoding.await.unwrap_or_else(|error| Err(error.to_string())) };
            self.encoding = Some((up_to, Box::pin(encoded)));
            return Ok(true);
        }
        Ok(false)
    }

    /// Sends messages of the outbox, and records which were handled; true if there is a new record.
    fn poll_deliveries<S: Durable>(&mut self, serving: &mut Serving<S>, task: &mut TaskContext<'_>) -> bool {
        loop {
            while self.deliveries.len() < OUTBOX_IN_FLIGHT_MAX {
                let Some(delivery) = serving.next_delivery() else { break };
                self.deliveries.push(delivery);
            }
            match self.deliveries.poll_next_unpin(task) {
                Poll::Ready(Some(delivered)) => serving.deliveries.on_delivered(delivered),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        // Together with the next decision if there is one soon: no record of its own while a group is in flight.
        if self.append.is_some() || !serving.deliveries.has_handled() {
            return false;
        }
        let record = Record(Vec::new(), None, Vec::new(), serving.deliveries.take_handled());
        match flat::encode(&record, serving.store.record_bytes_max()) {
            Ok(bytes) => serving.commit(&record, bytes),
            Err(error) => log::error!(%error, "handled messages cannot be recorded; they are sent again"),
        }
        true
    }
}
